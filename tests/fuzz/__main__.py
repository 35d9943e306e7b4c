"""Fuzz every rpc of a real server, on SQLite and on PostgreSQL, and write `fuzz.json`; exit with 1 on any fault."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.fuzz.run import fuzz
from tests.fuzz.target import fuzz_target
from tests.stack.postgres import postgres_server

MAX_GROWTH_BYTES = 64 * 2**20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=20_000, help="over both databases")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--database", choices=("sqlite", "postgres", "both"), default="both")
    arguments = parser.parse_args()
    kinds = ("sqlite", "postgres") if arguments.database == "both" else (arguments.database,)
    runs = {kind: _run(kind, arguments.calls // len(kinds) + 1, arguments.seed) for kind in kinds}
    report = _together(runs)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "fuzz.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps({key: value for key, value in report.items() if key != "runs"}, indent=2))
    return 0 if report["passed"] else 1


def _run(kind: str, calls: int, seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="trainyard-fuzz-") as name:
        directory = Path(name)
        if kind == "sqlite":
            with fuzz_target(directory) as target:
                return fuzz(target, calls=calls, seed_number=seed)
        with postgres_server(directory) as url, fuzz_target(directory, database_url=url) as target:
            return fuzz(target, calls=calls, seed_number=seed)


def _together(runs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    sums = {key: sum(run[key] for run in runs.values()) for key in ("calls", "internal", "crashes", "leaks")}
    codes = {code for run in runs.values() for code in run["by_code"]}
    growth = max(run["rss_growth_bytes"] for run in runs.values())
    return {
        **sums,
        "by_code": {code: sum(run["by_code"].get(code, 0) for run in runs.values()) for code in sorted(codes)},
        "rss_growth_bytes": growth,
        "slowest_unary_seconds": max(run["slowest_unary_seconds"] for run in runs.values()),
        "passed": not (sums["internal"] or sums["crashes"] or sums["leaks"]) and growth <= MAX_GROWTH_BYTES,
        "runs": runs,
    }


if __name__ == "__main__":
    sys.exit(main())
