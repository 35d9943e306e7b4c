"""What the table of proofs promises, without training anything."""

from __future__ import annotations

from importlib import import_module

import pytest

from services.datasets.formats import FAMILIES
from services.recipes.manager import RecipeManager
from tests.proofs.proof import THIS, Bound, Broken, Proof, Run
from tests.proofs.table import PROOFS
from workers.families.catalog import CATALOG

ALL = pytest.mark.parametrize("proof", PROOFS, ids=lambda proof: proof.name)


@pytest.mark.parametrize(
    ("bound", "value", "is_right"),
    [
        pytest.param(Bound("m", 0.5), 0.5, True, id="at least"),
        pytest.param(Bound("m", 0.5), 0.49, False, id="too little"),
        pytest.param(Bound("m", 0.5, "max"), 0.51, False, id="too much"),
        pytest.param(Bound("m", 3, "equal"), 3.0, True, id="exactly"),
        pytest.param(Bound("m", 3, "equal"), 4.0, False, id="not exactly"),
    ],
)
def test_a_bound_judges_its_side(bound: Bound, value: float, is_right: bool) -> None:
    assert bound.passes(value) is is_right


def test_a_bound_compares_two_runs() -> None:
    figures = {THIS: {"m": 0.9}, "coarse": {"m": 0.6}, "coarser": {"m": 0.5}}

    assert Bound("m", 0.1, over="coarse").value(figures) == pytest.approx(0.3)
    assert Bound("m", 0.1, of="coarse", over="coarser").value(figures) == pytest.approx(0.1)
    assert Bound("m", 0.1, of="coarse", over="coarser").name == "m of coarse over coarser"


def test_every_recipe_has_a_proof() -> None:
    assert {proof.recipe for proof in PROOFS} == set(CATALOG)


@ALL
def test_every_run_of_a_proof_is_one_that_the_platform_takes(proof: Proof) -> None:
    manager = RecipeManager.of_catalog()
    controls = () if isinstance(proof.control, Broken) else (Run(overrides=proof.control),)
    runs = (*proof.runs.values(), *controls, Run(overrides=proof.baseline))

    for run in runs:
        overrides = run.overrides if run.recipe else {**proof.overrides, **run.overrides}
        assert manager.get(run.recipe or proof.recipe).resolve("tiny", overrides)
    assert len(proof.seeds) == 3


@ALL
def test_every_dataset_of_a_proof_is_one_that_its_recipe_reads_and_the_platform_imports(proof: Proof) -> None:
    entry, own = CATALOG[proof.recipe], proof.recipe.partition("/")[0]

    assert proof.dataset_family in (entry.datasets or (own,))
    assert proof.dataset_family in FAMILIES


@ALL
def test_every_bound_and_start_names_a_run_before_it(proof: Proof) -> None:
    names = [*proof.runs, THIS]

    for number, run in enumerate(proof.runs.values()):
        assert run.start is None or run.start in names[:number]
    assert proof.start is None or proof.start in proof.runs
    assert {run for bound in proof.bounds for run in (bound.of, bound.over)} <= {*names, None}


@ALL
def test_a_broken_control_is_the_recipe_with_a_part_of_its_own(proof: Proof) -> None:
    if not isinstance(proof.control, Broken):
        return
    module, _, name = proof.control.recipe.partition(":")
    spoilt = getattr(import_module(module), name)

    assert issubclass(spoilt, CATALOG[proof.recipe].load_recipe())
    assert len(vars(spoilt)) > len({"__module__", "__doc__"})
