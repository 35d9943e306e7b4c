"""Run one plan and print its trace, or many seeds in a row: `python -m tests.simulation --help`."""

from __future__ import annotations

import argparse
import sys
import time

from tests.simulation.plan import Fault, Plan, plan_of
from tests.simulation.run import simulate


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=0, help="run so many plans of random sizes")
    parser.add_argument("--first", type=int, default=0, help="the first of those seeds")
    parser.add_argument("--seed", type=int, default=0)
    for name in ("workers", "controllers", "jobs", "projects"):
        parser.add_argument(f"--{name}", type=int, default=getattr(Plan(seed=0), name))
    parser.add_argument("--fault-seconds", type=float, default=Plan(seed=0).fault_seconds)
    parser.add_argument("--fault", dest="faults", action="append", type=Fault, choices=list(Fault))
    parser.add_argument("--no-faults", action="store_true")
    arguments = vars(parser.parse_args())
    seeds, first = arguments.pop("seeds"), arguments.pop("first")
    if seeds:
        return many(range(first, first + seeds))
    has_none, faults = arguments.pop("no_faults"), arguments.pop("faults")
    chosen = frozenset() if has_none else frozenset(faults or Fault)
    outcome = simulate(Plan(**arguments, faults=chosen))
    print(outcome.report(lines=1_000_000))
    return 1 if outcome.violations else 0


def many(seeds: range) -> int:
    begin = time.monotonic()
    for seed in seeds:
        outcome = simulate(plan_of(seed))
        if outcome.violations:
            print(outcome.report())
            return 1
    print(f"{len(seeds)} runs without a violation in {time.monotonic() - begin:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
