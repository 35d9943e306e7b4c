"""Brings the metadata database to the newest schema and makes the first token: `python -m services.up.migrate`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from services.core.errors import DatabaseUnavailable
from services.core.settings import Settings
from services.db.database import Database
from services.identity.bootstrap import BootstrapInvalid, bootstrap, ensure_local


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="services.up.migrate")
    parser.add_argument("--local-token", type=Path, help="keep a token for this machine in this file")
    options = parser.parse_args(arguments)
    settings = Settings()
    database = Database(settings.resolved_database_url)
    try:
        database.migrate()
        if settings.bootstrap_token_file is not None:
            bootstrap(database, settings.bootstrap_token_file)
        if options.local_token is not None:
            ensure_local(database, options.local_token)
    except (BootstrapInvalid, DatabaseUnavailable) as err:
        print(f"error: {err}", file=sys.stderr)  # noqa: T201 - what the operator of a one-time step reads
        return 1
    finally:
        database.dispose()
    return 0


if __name__ == "__main__":
    sys.exit(main())
