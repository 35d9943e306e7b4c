"""Composes an attempt: recipe, placement, state, loop, ending. What a trainer process runs.

Errors leave as exceptions that carry `step`; the process's entry turns them into a failure frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from services.core.errors import RequestInvalid, Violation
from workers.engine import curves, ema, kernels, loop, microbatch, placement, rng
from workers.engine import state as train_state
from workers.engine.bundle import write_bundle
from workers.engine.checkpointing import environment
from workers.engine.crew import ALONE, Crew
from workers.engine.data import open_batches
from workers.engine.errors import CheckpointMismatch, ConfigUnbuildable, is_out_of_memory
from workers.engine.frames import FrameKind, FrameWriter
from workers.engine.hooks import Follower, Hooks
from workers.engine.parallel import Parallel
from workers.engine.parts import part_of
from workers.engine.placement import Decision
from workers.engine.plan import PackagePlan, TrainPlan
from workers.engine.probe import ProbeCache, cache_key, cached_probe, probe
from workers.engine.process import process_settings
from workers.engine.source import read_source
from workers.engine.stop import StopSignal
from workers.engine.training import Training
from workers.families.base import BatchSource, Placement, Recipe, TrainState
from workers.families.catalog import CATALOG, Entry
from workers.families.config import RecipeConfig

PROBE_PAYS_STEPS = 200
"""Shorter jobs would spend more on a probe than they can win."""


@dataclass(frozen=True, slots=True)
class _Setup:
    """What an attempt has before it knows how to compute."""

    plan: TrainPlan
    frames: FrameWriter
    recipe: Recipe[Any, Any]
    source: BatchSource[Any]
    device: torch.device
    stored: train_state.Stored | None
    parallel: Parallel

    @property
    def config(self) -> RecipeConfig:
        config: RecipeConfig = self.recipe.config
        return config


def train(
    plan: TrainPlan | Mapping[str, Any],
    frames: FrameWriter,
    stop: StopSignal,
    *,
    catalog: Mapping[str, Entry] = CATALOG,
    crew: Crew = ALONE,
) -> None:
    """Carry one attempt to its end, to a request to stop, or to its time limit; ends with a final frame.

    Every process of a crew calls this; all but the leader write nothing, and return when training is over.

    Raises:
        NonFiniteLoss: the loss or a weight is no longer finite; the last good checkpoint stays.
        CheckpointMismatch: the checkpoint to resume from is not of this job.
    """
    plan = TrainPlan.model_validate(plan)
    _announce(frames, "loading")
    recipe = _load_recipe(plan, catalog)
    runtime = recipe.config.runtime
    device = placement.device_of(runtime, plan.device)
    with process_settings(threads=plan.threads, deterministic=runtime.deterministic):
        source = recipe.train_batches()
        parallel = Parallel(crew, batch_size=source.batch_size, seed=runtime.seed)
        setup = _Setup(plan, frames, recipe, source, device, _read_checkpoint(plan, recipe), parallel)
        decision = _decide(setup, stop)
        frames.write(FrameKind.PRECISION, **decision.to_json())
        training = _build(setup, decision)
        with _errors_carry_step(training.state):
            if crew.is_leader:
                _run(training, stop, setup.stored)
            else:
                _follow(training)


def package_checkpoint(
    plan: PackagePlan | Mapping[str, Any], frames: FrameWriter, *, catalog: Mapping[str, Entry] = CATALOG
) -> None:
    """Write the bundle of any checkpoint; ends with a final frame."""
    plan = PackagePlan.model_validate(plan)
    _announce(frames, "loading")
    recipe = _load_recipe(plan, catalog)
    device = placement.device_of(recipe.config.runtime, plan.device)
    with process_settings(threads=plan.threads, deterministic=recipe.config.runtime.deterministic):
        stored = train_state.read(plan.checkpoint_dir)
        _announce(frames, "building")
        state = recipe.build(Placement(device, None, torch.contiguous_format))
        train_state.restore_weights(state, stored)
        _announce(frames, "exporting")
        metrics = stored.document["metrics"]
        write_bundle(
            plan.bundle_dir,
            recipe,
            state,
            name=plan.recipe,
            device=device,
            metrics=metrics,
            # Checkpoints of an earlier version do not say.
            judge=stored.document.get("judge", {}),
            origin=plan.origin,
        )
    _finish(frames, reason="completed", state=state, metrics=metrics, bundle_dir=str(plan.bundle_dir))


def _load_recipe(plan: TrainPlan | PackagePlan, catalog: Mapping[str, Entry]) -> Recipe[Any, Any]:
    entry = catalog.get(plan.recipe)
    if entry is None:
        raise RequestInvalid(violations=[Violation("recipe", f"this worker knows no recipe {plan.recipe!r}")])
    return entry.load_recipe()(entry.load_config().model_validate(plan.config), plan.dataset_dir)


def _read_checkpoint(plan: TrainPlan, recipe: Recipe[Any, Any]) -> train_state.Stored | None:
    if plan.resume_dir is None:
        return None
    stored = train_state.read(plan.resume_dir)
    if stored.document["config_sha256"] != train_state.config_sha256(plan.recipe, plan.config):
        raise CheckpointMismatch("the checkpoint was made with another recipe or config; start a new job with these")
    return stored


def _decide(setup: _Setup, stop: StopSignal) -> Decision:
    """Return how to compute. A resume keeps its checkpoint's way, or its bits would change."""
    runtime = setup.config.runtime
    if setup.stored is not None:
        return Decision.from_json(setup.stored.document["decision"], source="checkpoint")
    settled = placement.settled(runtime)
    if settled is not None:
        return settled
    if setup.config.limits.max_steps < PROBE_PAYS_STEPS:
        return placement.default(runtime)

    crew, source = setup.parallel.crew, part_of(setup.source, setup.parallel)

    def run() -> Decision:
        _announce(setup.frames, "probing")
        return probe(setup.recipe, source, device=setup.device, is_compiled=runtime.compile, stop=stop)

    def find() -> Decision:
        key = cache_key(setup.plan.recipe, setup.config, batch_size=source.batch_size, device=setup.device)
        return cached_probe(ProbeCache(setup.plan.cache_dir), key, run)

    if crew.is_alone:
        return find()
    # Times differ from process to process, and the way to compute must not.
    told = crew.tell(asdict(find()) if crew.is_leader else None)
    return Decision.from_json(told, source=told["source"])


def _build(setup: _Setup, decision: Decision) -> Training:
    _announce(setup.frames, "building")
    where = decision.placement(setup.device, is_compiled=setup.config.runtime.compile)
    rng.seed_all(setup.config.runtime.seed)
    with _buildable():
        state = setup.recipe.build(where)
    if setup.stored is None and setup.parallel.crew.is_leader and setup.config.runtime.precision == "bf16":
        _warn_of_kernels(setup, where)
    if not setup.parallel.crew.is_alone:
        where = replace(where, mean_count=setup.parallel.mean_count)
    training = Training(setup.plan, setup.recipe, setup.source, decision, where, state, setup.frames, setup.parallel)
    if (text := microbatch.warn_of_parts(training)) is not None:
        setup.frames.write(FrameKind.LOG, level="warning", text=text)
    for text in setup.recipe.notices() if setup.stored is None else ():
        setup.frames.write(FrameKind.LOG, level="warning", text=text)
    if setup.stored is not None:
        train_state.restore(state, setup.stored)
        _warn_of_changes(training, setup.stored.document["environment"])
    elif setup.plan.source is not None and setup.parallel.crew.is_leader:
        # The others get the leader's weights when they join.
        source = read_source(setup.plan.source, cache_dir=setup.plan.cache_dir)
        setup.recipe.load_source(state, source)
        ema.restart(state)
        setup.frames.write(FrameKind.LOG, level="info", text=f"starting from {source.origin.name}")
    setup.parallel.join(state)
    return training


def _warn_of_kernels(setup: _Setup, where: Placement) -> None:
    """Say what is computed wrongly in the bf16 that a config insists on, where no probe may choose another way."""
    if not kernels.is_doubtful(where):
        return
    with rng.guarded(setup.config.runtime.seed):
        # Of a state of its own, which the step may change.
        batch = setup.recipe.to_device(part_of(setup.source, setup.parallel).batch(0), where)
        wrong = kernels.wrong_in_step(setup.recipe, setup.recipe.build(where), batch, where)
    if wrong:
        text = f"this processor computes wrongly in bf16: {wrong[0]}; leave runtime.precision to 'auto' or set 'fp32'"
        setup.frames.write(FrameKind.LOG, level="warning", text=text)


def _run(training: Training, stop: StopSignal, stored: train_state.Stored | None) -> None:
    state, frames = training.state, training.frames
    hooks = Hooks(training, stop, resumed=stored.document if stored is not None else None)
    try:
        with _batches(training) as iterator:
            if stored is not None:
                train_state.restore_rng(stored)
            _announce(frames, "training")
            reason = loop.train(training, iterator, hooks)
        hooks.finish(reason)
    finally:
        hooks.close()
    bundle_dir = None
    if reason is loop.StopReason.COMPLETED:
        bundle_dir = str(_export(training, hooks))
    _finish(frames, reason=reason.value, state=state, metrics=hooks.evaluation.metrics, bundle_dir=bundle_dir)


def _follow(training: Training) -> None:
    with _batches(training) as iterator:
        loop.train(training, iterator, Follower())


def _batches(training: Training) -> AbstractContextManager[Iterator[Any]]:
    return open_batches(
        part_of(training.source, training.parallel),
        first_step=training.state.step,
        total_steps=training.total_steps,
        num_workers=_loader_workers(training),
    )


def _export(training: Training, hooks: Hooks) -> Path:
    _announce(training.frames, "exporting")
    _draw_curves(training, hooks)
    directory = training.plan.spool_dir / "bundle"
    write_bundle(
        directory,
        training.recipe,
        training.state,
        name=training.plan.recipe,
        device=training.placement.device,
        metrics=hooks.evaluation.metrics,
        judge=hooks.evaluation.judge,
        origin=training.plan.origin,
    )
    return directory


def _draw_curves(training: Training, hooks: Hooks) -> None:
    if not curves.can_draw():
        training.frames.write(FrameKind.LOG, level="info", text="no picture of the curves: matplotlib is not installed")
        return
    png = curves.draw(hooks.log.history.curves, label=training.recipe.curve_label)
    step = training.state.step
    hooks.artifacts.save("curves.png", png, kind="curves", content_type="image/png", step=step)


def _warn_of_changes(training: Training, earlier: Mapping[str, Any]) -> None:
    here = environment(training)
    changed = [f"{name} {earlier.get(name)} -> {value}" for name, value in here.items() if earlier.get(name) != value]
    if changed:
        text = "resumed on another machine or version, results may differ in rounding: " + ", ".join(changed)
        training.frames.write(FrameKind.LOG, level="warning", text=text)


def _finish(
    frames: FrameWriter, *, reason: str, state: TrainState, metrics: Mapping[str, float], bundle_dir: str | None
) -> None:
    frames.write(FrameKind.FINAL, reason=reason, step=state.step, metrics=dict(metrics), bundle_dir=bundle_dir)


def _announce(frames: FrameWriter, phase: str) -> None:
    frames.write(FrameKind.PHASE, phase=phase, detail="")


def _loader_workers(training: Training) -> int:
    fewer = training.plan.loader_workers
    return training.config.runtime.loader_workers if fewer is None else fewer


@contextmanager
def _buildable() -> Iterator[None]:
    """Tell a config that makes no network from a bug: it fails the same way each time, so nobody should retry it."""
    try:
        yield
    except (AssertionError, ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as err:
        if is_out_of_memory(err) or "CUDA error" in str(err):
            raise
        text = f"the networks cannot be built from this config: {type(err).__name__}: {err}; change the model's fields"
        raise ConfigUnbuildable(text) from err


@contextmanager
def _errors_carry_step(state: TrainState) -> Iterator[None]:
    try:
        yield
    except Exception as err:
        if not hasattr(err, "step"):
            err.step = state.step  # type: ignore[attr-defined]
        raise
