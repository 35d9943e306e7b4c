"""One checkpoint through the worker's own uploader, in a process that a row may kill: `python -m ... PLAN`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from services.core.clock import Deadline
from services.core.settings import Settings
from services.db.database import Database
from services.db.job_records import Lease
from services.storage.digest import hash_file
from services.storage.open import open_store
from workers.stop import Latch, StopRequest
from workers.uploads import Uploader


def main(text: str) -> None:
    plan = json.loads(text)
    settings = Settings()
    uploader = Uploader(
        open_store(settings),
        Database(settings.resolved_database_url),
        Lease(*plan["lease"]),
        StopRequest(Latch()),
        family="chaos",
    )
    path = Path(plan["path"])
    files = []
    for file in sorted(path.iterdir()):
        size_bytes, sha256 = hash_file(file)
        files.append({"name": file.name, "size_bytes": size_bytes, "sha256": sha256})
    uploader.start()
    uploader.add_checkpoint({"step": plan["step"], "path": str(path), "files": files, "metric": None})
    uploader.finish(Deadline(60))
    uploader.close()


if __name__ == "__main__":
    main(sys.argv[1])
