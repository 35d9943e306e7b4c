"""Run one proof, named first, at the seeds named after it; prints its rows, one JSON a line."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from pathlib import Path

from tests.proofs.ground import Ground
from tests.proofs.prove import prove
from tests.proofs.table import PROOFS
from tests.stack.platform import control_plane

# Small networks win little by a second thread, which spins many times slower beside any busy process.
_SMALL = {"TRAINYARD_WORKER_THREADS": os.environ.get("TRAINYARD_WORKER_THREADS", "1")}


def main() -> None:
    # Whoever ends this process ends its platform, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    name, *seeds = sys.argv[1:]
    proof = next(proof for proof in PROOFS if proof.name == name)
    with tempfile.TemporaryDirectory(prefix="trainyard-proofs-") as directory:
        folder = Path(directory)
        with control_plane(folder / "state", _SMALL) as stack, stack.client() as yard:
            stack.start_worker("worker")
            prove(proof, Ground(yard, folder), seeds=[int(seed) for seed in seeds])


if __name__ == "__main__":
    main()
