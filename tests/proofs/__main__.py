"""Run every recipe's small proof through the platform, job in and model out, and write the rows."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from tests.proofs.ground import Ground
from tests.proofs.proof import Proof
from tests.proofs.prove import Row, prove
from tests.proofs.table import PROOFS
from tests.stack.platform import control_plane

# Small networks win little by a second thread, which spins many times slower beside any busy process.
_SMALL = {"TRAINYARD_WORKER_THREADS": os.environ.get("TRAINYARD_WORKER_THREADS", "1")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--recipe", action="append", help="only this recipe; may be given more than once")
    parser.add_argument("--seed", action="append", type=int, help="only this seed; may be given more than once")
    parser.add_argument("--merge", action="store_true", help="keep the rows of recipes and seeds not run this time")
    parser.add_argument("--processes", type=_positive, default=min(4, len(os.sched_getaffinity(0))))
    arguments = parser.parse_args()
    chosen = [proof for proof in PROOFS if not arguments.recipe or proof.recipe in arguments.recipe]
    if not chosen:
        parser.error(f"no such recipe here; there are {', '.join(sorted({proof.recipe for proof in PROOFS}))}")
    target = arguments.out / "proofs.json"
    kept = _kept(target, chosen, arguments.seed) if arguments.merge else []
    rows: dict[str, list[Row]] = {}
    broken = []
    with ProcessPoolExecutor(arguments.processes, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
        going = {pool.submit(_prove, proof, arguments.seed or proof.seeds): proof for proof in chosen}
        for done in as_completed(going):
            name = going[done].name
            if (error := done.exception()) is not None:
                print(f"{name}: {error}", file=sys.stderr, flush=True)
                broken.append(name)
                continue
            rows[name] = done.result()
            # After each: an hour of proofs is not lost to the last one.
            _write(target, [*kept, *(row for proof in chosen for row in rows.get(proof.name, ()))])
    passed = [row["passed"] for made in rows.values() for row in made]
    print(
        f"{sum(passed)} passed, {len(passed) - sum(passed)} failed", *(f"{name} broke off" for name in broken), sep=", "
    )
    sys.exit(0 if all(passed) and not broken else 1)


def _prove(proof: Proof, seeds: Sequence[int]) -> list[Row]:
    """Run a proof on a platform of its own."""
    with tempfile.TemporaryDirectory(prefix="trainyard-proofs-") as directory:
        folder = Path(directory)
        with control_plane(folder / "state", _SMALL) as stack, stack.client() as yard:
            stack.start_worker("worker")
            return prove(proof, Ground(yard, folder), seeds=seeds)


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise ValueError
    return number


def _kept(path: Path, chosen: Sequence[Proof], seeds: Sequence[int] | None) -> list[Row]:
    """Return the rows of an earlier run that this one does not make again."""
    if not path.exists():
        return []
    made = {(proof.name, seed) for proof in chosen for seed in seeds or proof.seeds}
    names = {proof.name for proof in chosen}
    rows: list[Row] = json.loads(path.read_text())
    return [row for row in rows if row["recipe"] not in names or (seeds and (row["recipe"], row["seed"]) not in made)]


def _write(path: Path, rows: Sequence[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
