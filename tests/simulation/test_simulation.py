"""The protocol keeps its promises under any mix of faults, in virtual time; and the checker sees broken ones."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.chaos.mutants import MUTANTS, Mutant
from tests.simulation.plan import Fault, Plan, plan_of
from tests.simulation.run import simulate

RUNS = int(os.environ.get("TRAINYARD_SIMULATION_RUNS", "8"))
PLANS = st.builds(
    Plan,
    seed=st.integers(0, 2**32 - 1),
    workers=st.integers(1, 4),
    controllers=st.integers(1, 3),
    jobs=st.integers(1, 5),
    projects=st.integers(1, 3),
    faults=st.frozensets(st.sampled_from(Fault), min_size=3),
)


@settings(
    max_examples=RUNS,
    deadline=None,
    database=None,
    # The default suite runs the same plans each time; more runs, asked for by hand, are new ones.
    derandomize="TRAINYARD_SIMULATION_RUNS" not in os.environ,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)
@given(plan=PLANS)
def test_promises_hold_under_any_mix_of_faults(plan: Plan) -> None:
    outcome = simulate(plan)

    assert not outcome.violations, outcome.report()


def test_equal_plans_run_alike() -> None:
    assert simulate(plan_of(1)) == simulate(plan_of(1))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.invariant} {mutant.name}")
def test_checker_catches(mutant: Mutant) -> None:
    assert mutant.find() is not None
