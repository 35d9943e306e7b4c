"""Measure what the platform promises to be fast at, and write `bench.json`."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.bench import (
    creates,
    families,
    full,
    identify,
    latency,
    million,
    parallel,
    serving,
    stall,
    start,
    steps,
    watch,
)

SECTIONS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "latency": latency.run,
    "start": start.run,
    "stall": stall.run,
    "steps": steps.run,
    "parallel": parallel.run,
    "creates": creates.run,
    "million": million.run,
    "watch": watch.run,
    "identify": identify.run,
    "serving": serving.run,
    "families": families.run,
    "full": full.run,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument(
        "--only", choices=SECTIONS, action="append", help="only this section; may be given more than once"
    )
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / "bench.json"
    report: dict[str, Any] = json.loads(path.read_text()) if arguments.only and path.exists() else {}
    measured = arguments.only or list(SECTIONS)
    for name in measured:
        with tempfile.TemporaryDirectory(prefix="trainyard-bench-") as directory:
            figures = SECTIONS[name](Path(directory))
        print(json.dumps(figures), flush=True)
        report.update(figures)
    path.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
