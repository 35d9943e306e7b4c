"""What makes a row of proofs pass, with runs whose figures are known."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.proofs.ground import Ground, Trained
from tests.proofs.proof import Bound, Proof, Run
from tests.proofs.prove import prove

CRIPPLED = {"limits": {"max_steps": 2}}
TRIVIAL = {"limits": {"max_steps": 1}}


class KnownGround(Ground):
    """Trains nothing: good runs reach 0.9, the trivial one 0.1, the crippled one what it is told."""

    def __init__(self, crippled: float) -> None:
        self.crippled = crippled

    def train(self, proof: Proof, run: Run, *, seed: int, start: Trained | None) -> Trained:
        value = {2: self.crippled, 1: 0.1}.get(run.overrides.get("limits", {}).get("max_steps", 0), 0.9)
        return Trained("models/m/versions/1", {"m": value, "served": 0.9}, 1.0)

    def bundle_of(self, trained: Trained) -> Path:
        return Path(trained.model_version)


def measured(value: float) -> Bound:
    """Return a bound whose own control comes to `value`."""

    def spoilt(bundle: Path) -> Mapping[str, float]:
        assert bundle == Path("models/m/versions/1")
        return {"served": value}

    return Bound("served", 0.5, beats_baseline=False, control=spoilt)


def rows(*bounds: Bound, crippled: float = 0.2) -> list[tuple[float, bool]]:
    """Prove at two seeds and return each row's control and whether it passed."""
    proof = Proof("gan/vanilla", Path.mkdir, bounds, baseline=TRIVIAL, control=CRIPPLED)
    return [(row["control"], row["passed"]) for row in prove(proof, KnownGround(crippled), seeds=(0, 1))]


@pytest.mark.parametrize(("crippled", "is_passed"), [(0.2, True), (0.8, False)])
def test_a_row_passes_only_where_the_crippled_run_misses(crippled: float, is_passed: bool) -> None:
    assert rows(Bound("m", 0.5), crippled=crippled) == [(crippled, is_passed)] * 2


@pytest.mark.parametrize(("spoilt", "is_passed"), [(0.2, True), (0.8, False)])
def test_a_bound_with_a_control_of_its_own_must_be_missed_by_that_one(spoilt: float, is_passed: bool) -> None:
    assert rows(Bound("m", 0.5), measured(spoilt)) == [(0.2, True), (spoilt, is_passed)] * 2
