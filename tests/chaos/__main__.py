"""Runs the fault matrix: `python -m tests.chaos [--only 3,7] [--seeds N] [--short] [--nightly MINUTES] [--merge] [--out out]`.

Writes chaos.json: {rows: [{row, fault, bar, value, passed, seeds, seconds, violations}], mutants: [{name, invariant,
caught, seed}]}. Its exit code is 0 only if every row held its bar, no invariant was violated and every mutant was caught.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.chaos.measure import write_json
from tests.chaos.registry import rows
from tests.chaos.row import Result, Row, Stage

MIX_SECONDS = 240.0
"""Of one seed of the nightly mix, on a platform of its own."""


def main() -> int:
    options = _options()
    if options.nightly:
        return 0 if _nightly(options) else 1
    # Libraries of this process stay off the cores that the platform's processes are measured on.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    found = rows()
    chosen = [int(number) for number in options.only.split(",")] if options.only else list(found)
    begin = time.monotonic()
    kept = _kept(options.out / "chaos.json", chosen) if options.merge else {"rows": [], "mutants": []}
    done: list[dict[str, Any]] = kept["rows"]
    with tempfile.TemporaryDirectory(prefix="trainyard-chaos-") as directory:
        for number in chosen:
            done.append(run_row(found[number], Path(directory), options))
            done.sort(key=lambda row: row["row"])
            write_json(options.out / "chaos.json", {**kept, "rows": done})
        mutants = kept["mutants"] if options.only or options.no_mutants else _run_mutants()
    document = {"rows": done, "mutants": mutants, "seconds": round(time.monotonic() - begin, 1)}
    write_json(options.out / "chaos.json", document)
    return 0 if _conclude(document) else 1


def _kept(path: Path, chosen: Sequence[int]) -> dict[str, Any]:
    """Return an earlier run's report without the rows that this one runs again."""
    document: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"rows": [], "mutants": []}
    return document | {"rows": [row for row in document["rows"] if row["row"] not in chosen]}


def run_row(row: Row, directory: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run one row and return its line of the report; a row that breaks has not passed."""
    print(f"row {row.number}: {row.fault}", flush=True)
    stage = Stage(directory / f"row-{row.number}", is_short=options.short, seeds=options.seeds, say=_say)
    stage.directory.mkdir(parents=True)
    begin = time.monotonic()
    try:
        result = row.run(stage)
    except Exception as err:
        traceback.print_exc()
        result = Result({"error": f"{type(err).__name__}: {str(err)[:2000]}"}, False)
    seconds = round(time.monotonic() - begin, 1)
    passed = result.passed and not stage.violations
    print(
        f"row {row.number}: {'passed' if passed else 'FAILED'} in {seconds} s: {json.dumps(result.value, default=str)}"
    )
    for violation in stage.violations:
        print(f"  {violation}")
    sys.stdout.flush()
    return {
        "row": row.number,
        "fault": row.fault,
        "bar": row.bar,
        "value": result.value,
        "passed": passed,
        "seeds": list(result.seeds),
        "seconds": seconds,
        "violations": stage.violations,
    }


def _nightly(options: argparse.Namespace) -> bool:
    """Run the random mix with one seed after the other until the time is over; seeds differ from night to night."""
    from tests.chaos.rows.mix import run_mix

    begin, first = time.monotonic(), int(time.time()) // 60
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="trainyard-chaos-") as directory:
        while (left := options.nightly * 60 - (time.monotonic() - begin)) > 0:
            seed = first + len(runs)
            stage = Stage(Path(directory) / f"seed-{seed}", say=_say)
            stage.directory.mkdir()
            done: dict[str, int] = {}
            try:
                done = dict(run_mix(stage, seed, seconds=min(left, MIX_SECONDS)))
            except Exception as err:
                traceback.print_exc()
                stage.violations.append(f"{type(err).__name__}: {str(err)[:2000]}")
            print(f"seed {seed}: {done} {stage.violations}", flush=True)
            runs.append({"seed": seed, "done": done, "violations": stage.violations})
            document = {"seconds": round(time.monotonic() - begin, 1), "runs": runs}
            write_json(options.out / "chaos_nightly.json", document)
    return not any(run["violations"] for run in runs)


def _run_mutants() -> list[dict[str, Any]]:
    """Run the checker against mutants of the protocol, each of which it must catch."""
    from tests.chaos import mutants

    print("mutants", flush=True)
    found: list[dict[str, Any]] = mutants.run()
    for one in found:
        print(f"mutant {one['name']} ({one['invariant']}): {'caught' if one['caught'] else 'NOT CAUGHT'}", flush=True)
    return found


def _conclude(document: dict[str, Any]) -> bool:
    failed = [row["row"] for row in document["rows"] if not row["passed"]]
    missed = [one["name"] for one in document["mutants"] if not one["caught"]]
    print(f"{len(document['rows']) - len(failed)} of {len(document['rows'])} rows passed in {document['seconds']} s")
    if failed:
        print(f"failed: {failed}")
    if missed:
        print(f"mutants nobody noticed: {missed}")
    return not failed and not missed


def _say(text: str) -> None:
    print(f"  {text}", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--only", default="", help="numbers of rows, by comma")
    parser.add_argument("--seeds", type=int, help="repetitions of each row instead of its bar's")
    parser.add_argument("--short", action="store_true", help="only a taste of each row")
    parser.add_argument("--nightly", type=float, default=0.0, help="only a random mix, for so many minutes")
    parser.add_argument("--no-mutants", action="store_true")
    parser.add_argument("--merge", action="store_true", help="keep the rows of an earlier run that are not run now")
    parser.add_argument("--out", type=Path, default=Path("out"))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
