"""Run every recipe's small proof through the platform, job in and model out, and write the rows.

Each proof runs in a process of its own, with a platform of its own; some of them run side by side.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from tests.proofs.proof import Proof
from tests.proofs.prove import Row
from tests.proofs.table import PROOFS

_MOST_SIDE_BY_SIDE = 4
"""Each takes a core, and some gigabytes."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--recipe", action="append", help="only this recipe; may be given more than once")
    parser.add_argument("--seed", action="append", type=int, help="only this seed; may be given more than once")
    parser.add_argument("--merge", action="store_true", help="keep the rows of recipes and seeds not run this time")
    cores = min(_MOST_SIDE_BY_SIDE, len(os.sched_getaffinity(0)))
    parser.add_argument("--processes", type=int, default=cores, help=f"proofs side by side (default here: {cores})")
    arguments = parser.parse_args()
    chosen = [proof for proof in PROOFS if not arguments.recipe or proof.recipe in arguments.recipe]
    if not chosen:
        parser.error(f"no such recipe here; there are {', '.join(sorted({proof.recipe for proof in PROOFS}))}")
    if arguments.processes < 1:
        parser.error(f"--processes must be 1 or more, not {arguments.processes}")
    target = arguments.out / "proofs.json"
    kept = _kept(target, chosen, arguments.seed) if arguments.merge else []
    made: dict[str, list[Row]] = {}
    broken: list[str] = []
    with ThreadPoolExecutor(arguments.processes) as threads:
        going = {threads.submit(_prove, proof, arguments.seed or proof.seeds): proof.name for proof in chosen}
        try:
            for done in as_completed(going):
                name = going[done]
                made[name], is_whole = done.result()
                if not is_whole:
                    broken.append(name)
                # After each: an hour of proofs is not lost to the last one.
                _write(target, [*kept, *(row for proof in chosen for row in made.get(proof.name, ()))])
        except BaseException:
            threads.shutdown(cancel_futures=True)
            raise
    passed = [row["passed"] for rows in made.values() for row in rows]
    counts = f"{sum(passed)} passed, {len(passed) - sum(passed)} failed"
    print(", ".join([counts, *(f"{name} broke off" for name in broken)]))
    sys.exit(0 if all(passed) and not broken else 1)


def _prove(proof: Proof, seeds: Sequence[int]) -> tuple[list[Row], bool]:
    """Run a proof in a process; return the rows that it printed, and whether it came to its end."""
    command = [sys.executable, "-m", "tests.proofs.one", proof.name, *map(str, seeds)]
    rows: list[Row] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            if line.startswith("{"):
                rows.append(json.loads(line))
    return rows, process.returncode == 0


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
