"""One proof: its runs at every seed, the trivial and the crippled run at the first, and a row for each bound."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tests.proofs.ground import Ground, Trained
from tests.proofs.proof import THIS, Bound, Broken, Measure, Proof, Run

Row = dict[str, Any]
Figures = Mapping[str, float]


def prove(proof: Proof, ground: Ground, *, seeds: Sequence[int]) -> list[Row]:
    """Run a proof and return its rows, printing each.

    A row passes where its value does, the trivial run misses the bound, and the crippled one misses any; a bound with
    a control of its own must be missed by that one.
    """
    rows: list[Row] = []
    baseline: Figures = {}
    control: Figures = {}
    own: Mapping[Measure, Figures] = {}
    is_caught = False
    for seed in seeds:
        runs = _runs(proof, ground, seed)
        figures = {name: run.figures for name, run in runs.items()}
        if not rows:
            start = runs[proof.start] if proof.start is not None else None
            baseline = ground.train(proof, Run(overrides=proof.baseline), seed=seed, start=start).figures
            control = _control(proof, ground, seed=seed, start=start)
            own = _own_controls(proof, ground, runs[THIS])
            is_caught = any(not bound.passes(_instead(bound, figures, control)) for bound in proof.bounds)
        for bound in proof.bounds:
            instead = control if bound.control is None else own[bound.control]
            is_missed = is_caught if bound.control is None else not bound.passes(_instead(bound, figures, instead))
            rows.append(_row(proof, bound, runs, baseline, instead) | {"seed": seed})
            rows[-1]["passed"] = rows[-1]["passed"] and is_missed
            print(json.dumps(rows[-1]), flush=True)
    return rows


def _runs(proof: Proof, ground: Ground, seed: int) -> dict[str, Trained]:
    """Train what the proof compares with or starts from, and then what it is about."""
    this = Run(start=proof.start)
    done: dict[str, Trained] = {}
    for name, run in {**proof.runs, THIS: this}.items():
        start = done[run.start] if run.start is not None else None
        done[name] = ground.train(proof, run, seed=seed, start=start)
    return done


def _control(proof: Proof, ground: Ground, *, seed: int, start: Trained | None) -> Figures:
    if isinstance(proof.control, Broken):
        return ground.train_broken(proof, proof.control, seed=seed, start=start)
    return ground.train(proof, Run(overrides=proof.control), seed=seed, start=start).figures


def _own_controls(proof: Proof, ground: Ground, trained: Trained) -> dict[Measure, Figures]:
    """Measure the model in each crippled way that a bound asks for."""
    measures = {bound.control for bound in proof.bounds if bound.control is not None}
    return {measure: measure(ground.bundle_of(trained)) for measure in measures}


def _row(proof: Proof, bound: Bound, runs: Mapping[str, Trained], baseline: Figures, control: Figures) -> Row:
    figures = {name: run.figures for name, run in runs.items()}
    value, trivial = bound.value(figures), _instead(bound, figures, baseline)
    return {
        "recipe": proof.name,
        "metric": bound.name,
        "value": round(value, 4),
        "threshold": bound.threshold,
        "direction": bound.direction,
        "passed": bound.passes(value) and not (bound.beats_baseline and bound.passes(trivial)),
        "baseline": round(trivial, 4),
        "control": round(_instead(bound, figures, control), 4),
        "seconds": round(runs[bound.of].seconds, 1),
    }


def _instead(bound: Bound, figures: Mapping[str, Figures], other: Figures) -> float:
    """Return the value with another run in the place of the one that the bound is of."""
    return bound.value({**figures, bound.of: other})
