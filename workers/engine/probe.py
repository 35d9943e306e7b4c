"""Times a few real steps in every precision and memory format, and picks the fastest that computes the same.

No single setting wins on all networks. Each candidate trains a throwaway state of the job's own recipe on one
of its own batches, from the same seed; the rounds of the candidates alternate, so that a busy moment of the
machine hits all of them. Training afterwards is what it would have been without a probe.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

from workers.engine import kernels, rng
from workers.engine.placement import Decision, choices, default, device_name
from workers.engine.stop import StopSignal
from workers.families.base import BatchSource, Placement, Recipe, TrainState
from workers.families.config import RecipeConfig

ROUNDS = 4
"""Steps of each candidate; the first warms up and is not timed."""
BUDGET_SECONDS = 30.0
TOLERANCE = 0.05
"""How far a candidate's losses may be from fp32's, relatively; rounding alone stays well below."""
NOISE_FACTOR = 2.0
HOPELESS = 3.0
"""A candidate whose quickest step takes this many times the plainest one's is tried no longer."""
_EDITION = 2
"""Of what a probe asks: decisions of an earlier one, which did not look for wrong kernels, are not taken up."""
WORTH = 0.95
"""A candidate must take less than this part of the time of the plainer ones before it."""


@dataclass(slots=True, eq=False)
class _Trial:
    decision: Decision
    placement: Placement
    state: TrainState
    batch: Any
    rng: dict[str, Any]
    seconds: list[float] = field(default_factory=list)
    losses: list[dict[str, float]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """What this candidate computed wrongly; looked for only in those about to be chosen."""

    @property
    def step_seconds(self) -> float:
        """The median step after the first; of a candidate given up before there was one, the first."""
        return median(self.seconds[1:] or self.seconds)


def probe(
    recipe: Recipe[Any, Any], source: BatchSource[Any], *, device: torch.device, is_compiled: bool, stop: StopSignal
) -> Decision:
    """Return the fastest decision whose losses are the plainest one's and whose kernels are right; keeps all generators.

    Asked to stop it returns the default before its next step, since nothing will be computed with it.
    """
    seed = recipe.config.runtime.seed
    with rng.guarded(seed):
        options = choices(recipe.config.runtime, device, has_convolutions=_has_convolutions(recipe, device))
        if len(options) == 1:
            return options[0]
        batch = source.batch(0)
        trials = [
            _start(recipe, option, batch, device=device, is_compiled=is_compiled, seed=seed) for option in options
        ]
        # The plainest candidate once more with other draws: how far apart losses lie by chance alone.
        noise = _start(recipe, options[0], batch, device=device, is_compiled=is_compiled, seed=seed)
        noise.rng = _other_draws(seed)
        is_done = _alternate(recipe, trials[0], [*trials[1:], noise], stop)
        return _choose(recipe, trials, noise) if is_done else default(recipe.config.runtime)


def _start(
    recipe: Recipe[Any, Any], decision: Decision, batch: Any, *, device: torch.device, is_compiled: bool, seed: int
) -> _Trial:
    placement = decision.placement(device, is_compiled=is_compiled)
    rng.seed_all(seed)
    state = recipe.build(placement)
    return _Trial(decision, placement, state, recipe.to_device(batch, placement), rng.capture())


def _has_convolutions(recipe: Recipe[Any, Any], device: torch.device) -> bool:
    state = recipe.build(Placement(device, None, torch.contiguous_format))
    kinds = (nn.Conv2d, nn.ConvTranspose2d)
    return any(isinstance(part, kinds) for module in state.modules.values() for part in module.modules())


def _other_draws(seed: int) -> dict[str, Any]:
    rng.seed_all(seed + 1)
    return rng.capture()


def _alternate(recipe: Recipe[Any, Any], plain: _Trial, others: Sequence[_Trial], stop: StopSignal) -> bool:
    start = time.monotonic()
    for number in range(ROUNDS):
        for trial in (plain, *others):
            if stop.is_set():
                return False
            _step(recipe, trial)
        if number > 0 and time.monotonic() - start > BUDGET_SECONDS:
            break
        # What the hardware only emulates takes many times longer: three more such steps would say nothing new.
        others = [trial for trial in others if min(trial.seconds) < HOPELESS * min(plain.seconds)]
    return True


def _step(recipe: Recipe[Any, Any], trial: _Trial) -> None:
    rng.restore(trial.rng)
    start = time.perf_counter()
    scalars = recipe.train_step(trial.state, trial.batch, trial.placement)
    # Reading the scalars waits for the device.
    trial.losses.append({name: float(value) for name, value in scalars.items() if "loss" in name})
    trial.seconds.append(time.perf_counter() - start)
    trial.state.step += 1
    trial.rng = rng.capture()


def _choose(recipe: Recipe[Any, Any], trials: Sequence[_Trial], noise: _Trial) -> Decision:
    plain = trials[0]
    allowed = max(TOLERANCE, NOISE_FACTOR * _distance(noise, plain))
    same = [trial for trial in trials if _distance(trial, plain) <= allowed]
    best = _fastest(same)
    while best is not plain and (wrong := _wrong(recipe, best)):
        best.wrong = wrong
        same.remove(best)
        best = _fastest(same)
    rows = tuple(_row(trial, _distance(trial, plain), is_same=trial in same) for trial in trials)
    return replace(best.decision, candidates=rows)


def _fastest(same: Sequence[_Trial]) -> _Trial:
    best = same[0]
    for trial in same:
        if trial.step_seconds < WORTH * best.step_seconds:
            best = trial
    return best


def _wrong(recipe: Recipe[Any, Any], trial: _Trial) -> list[str]:
    if not kernels.is_doubtful(trial.placement):
        return []
    rng.restore(trial.rng)
    return kernels.wrong_in_step(recipe, trial.state, trial.batch, trial.placement)


def _row(trial: _Trial, distance: float, *, is_same: bool) -> dict[str, Any]:
    return {
        "precision": trial.decision.precision,
        "is_channels_last": trial.decision.is_channels_last,
        "step_ms": round(1000 * trial.step_seconds, 3),
        "loss_distance": round(distance, 6) if math.isfinite(distance) else None,
        "is_same": is_same,
        "wrong_kernels": trial.wrong,
    }


def _distance(trial: _Trial, plain: _Trial) -> float:
    """Return the largest relative difference between the mean losses of two trials, over the steps that both did."""
    worst, count = 0.0, min(len(trial.losses), len(plain.losses))
    for name in plain.losses[0]:
        mine = sum(losses[name] for losses in trial.losses[:count]) / count
        other = sum(losses[name] for losses in plain.losses[:count]) / count
        difference = abs(mine - other) / max(abs(other), 1e-3)
        worst = max(worst, difference if math.isfinite(difference) else math.inf)
    return worst


class ProbeCache:
    """Decisions of probes on disk, by everything that could change them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory / "precision"

    def get(self, key: str) -> Decision | None:
        """Return a decision made before; a damaged entry counts as none."""
        try:
            document = json.loads((self._directory / f"{key}.json").read_bytes())
            return Decision.from_json(document, source="cache")
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def put(self, key: str, decision: Decision) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=self._directory, delete=False) as file:
            json.dump(decision.to_json(), file)
        os.replace(file.name, self._directory / f"{key}.json")


def cache_key(recipe: str, config: RecipeConfig, *, batch_size: int, device: torch.device) -> str:
    """Return the name of a decision: recipe, config but for cadences, batch, device, threads and torch."""
    document = config.model_dump(mode="json", exclude={"limits": True, "runtime": {"seed", "loader_workers"}})
    parts = [recipe, document, batch_size, device_name(device), torch.get_num_threads(), torch.__version__, _EDITION]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def cached_probe(cache: ProbeCache, key: str, run: Callable[[], Decision]) -> Decision:
    """Return the cached decision, else run the probe and keep what it finds."""
    found = cache.get(key)
    if found is not None:
        return found
    decision = run()
    if decision.source == "probe":
        cache.put(key, decision)
    return decision
