"""Everything a resume needs, as tensors by file and one JSON document; and back into built networks.

A resumed training ends in the same bits as one never interrupted. Nothing is pickled; whatever a recipe
keeps that JSON and tensors cannot hold is refused at the first checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from services.core.errors import IntegrityError
from workers.engine import jsonstate, optimstate, rng
from workers.engine.errors import CheckpointMismatch, StateUnsupported
from workers.engine.tensorfile import read_tensors
from workers.families.base import TrainState

FORMAT_VERSION = 1
MODEL, OPTIM, EMA, TENSORS = "model.safetensors", "optim.safetensors", "ema.safetensors", "tensors.safetensors"
DOCUMENT = "state.json"


@dataclass(frozen=True, slots=True)
class Captured:
    """A state at a step edge: live tensors by file and name, and the document, which is a copy."""

    step: int
    files: Mapping[str, Mapping[str, Tensor]]
    document: Mapping[str, Any]
    finite: frozenset[str]
    """Names, as `file:tensor`, that must hold finite numbers: the parameters."""
    optimizers: tuple[Optimizer, ...]
    """Whoever changes the tensors of `optim.safetensors`, and only in `step`."""
    began: float
    """When the capture began, by `time.perf_counter`: training stands still from then on."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A checkpoint read back onto the host."""

    files: Mapping[str, Mapping[str, Tensor]]
    document: Mapping[str, Any]

    @property
    def step(self) -> int:
        return int(self.document["step"])


def capture(state: TrainState, *, extra: Mapping[str, Any]) -> Captured:
    """Return references to the state's tensors and a copy of everything else; `extra` joins the document.

    Raises:
        StateUnsupported: a part of the state fits neither tensors nor JSON.
    """
    began = time.perf_counter()
    files: dict[str, dict[str, Tensor]] = {MODEL: _module_tensors(state.modules), OPTIM: {}}
    optimizers: dict[str, Any] = {}
    for name, optimizer in state.optimizers.items():
        tensors, optimizers[name] = optimstate.capture(name, optimizer)
        files[OPTIM] |= tensors
    if state.ema:
        files[EMA] = _module_tensors(state.ema)
    if state.tensors:
        files[TENSORS] = {name: tensor.detach() for name, tensor in state.tensors.items()}
    document = {
        "format": FORMAT_VERSION,
        "step": state.step,
        "optimizers": optimizers,
        "schedulers": {
            name: jsonstate.encode(scheduler.state_dict(), where=f"scheduler {name}")
            for name, scheduler in state.schedulers.items()
        },
        "rng": rng.capture(),
        **extra,
    }
    finite = {f"{MODEL}:{name}" for name in _parameter_names(state.modules)}
    finite |= {f"{EMA}:{name}" for name in _parameter_names(state.ema)}
    return Captured(state.step, files, document, frozenset(finite), tuple(state.optimizers.values()), began)


def read(directory: Path) -> Stored:
    """Read a checkpoint directory.

    Raises:
        IntegrityError: a file is missing, cut short or of another format.
    """
    try:
        document = json.loads((directory / DOCUMENT).read_bytes())
        files = {name: read_tensors(directory / name) for name in (MODEL, OPTIM)}
    except (OSError, ValueError) as err:
        raise IntegrityError(f"checkpoint {directory.name} cannot be read: {err}") from err
    for name in (EMA, TENSORS):
        if (directory / name).exists():
            files[name] = read_tensors(directory / name)
    if not isinstance(document, dict) or document.get("format") != FORMAT_VERSION:
        raise IntegrityError(f"checkpoint {directory.name} is not of format {FORMAT_VERSION}")
    return Stored(files, document)


def restore(state: TrainState, stored: Stored) -> None:
    """Put a checkpoint into a freshly built state, except for the random generators.

    Raises:
        CheckpointMismatch: networks, optimizers or schedulers are not those of the checkpoint.
    """
    restore_weights(state, stored)
    _check_names("optimizers", set(state.optimizers), set(stored.document["optimizers"]))
    for name, optimizer in state.optimizers.items():
        optimstate.restore(name, optimizer, stored.files[OPTIM], stored.document["optimizers"][name])
    _check_names("schedulers", set(state.schedulers), set(stored.document["schedulers"]))
    for name, scheduler in state.schedulers.items():
        scheduler.load_state_dict(jsonstate.decode(stored.document["schedulers"][name]))


def restore_weights(state: TrainState, stored: Stored) -> None:
    """Put only networks, averages, extra tensors and the step of a checkpoint into a built state.

    Raises:
        CheckpointMismatch: the networks are not those of the checkpoint.
    """
    _load_modules("modules", state.modules, stored.files[MODEL])
    _load_modules("ema", state.ema, stored.files.get(EMA, {}))
    _load_tensors(state, stored.files.get(TENSORS, {}))
    state.step = stored.step


def restore_rng(stored: Stored) -> None:
    """Put back the random generators; the last thing before the loop goes on."""
    rng.restore(stored.document["rng"])


def config_sha256(recipe: str, config: Mapping[str, Any]) -> str:
    """Return a digest of whatever decides the values of weights: not cadences, not loader processes.

    `config` is the document that the job keeps, not the model read from it: a field that a newer version
    adds is in the latter only, and must not part a running job from its checkpoints.
    """
    limits, runtime = config.get("limits", {}), config.get("runtime", {})
    document = {
        **config,
        "limits": {"max_steps": limits.get("max_steps")},
        "runtime": {key: value for key, value in runtime.items() if key != "loader_workers"},
    }
    text = json.dumps([recipe, document], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _module_tensors(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for owner, module in modules.items():
        for name, value in module.state_dict().items():
            if not isinstance(value, Tensor):
                raise StateUnsupported(f"module {owner} keeps {name}, which is no tensor")
            tensors[f"{owner}.{name}"] = value
    return tensors


def _parameter_names(modules: Mapping[str, nn.Module]) -> set[str]:
    return {
        f"{owner}.{name}"
        for owner, module in modules.items()
        for name, _ in module.named_parameters(remove_duplicate=False)
    }


@torch.no_grad()
def _load_modules(what: str, modules: Mapping[str, nn.Module], stored: Mapping[str, Tensor]) -> None:
    live = _module_tensors(modules)
    _check_names(what, set(live), set(stored))
    for name, tensor in live.items():
        found = stored[name]
        if found.shape != tensor.shape or found.dtype != tensor.dtype:
            raise CheckpointMismatch(
                f"{what}: {name} is {tuple(tensor.shape)} {tensor.dtype} here"
                f" and {tuple(found.shape)} {found.dtype} in the checkpoint"
            )
        tensor.copy_(found)


@torch.no_grad()
def _load_tensors(state: TrainState, stored: Mapping[str, Tensor]) -> None:
    device = next((p.device for module in state.modules.values() for p in module.parameters()), torch.device("cpu"))
    for name in set(state.tensors) - set(stored):
        del state.tensors[name]
    for name, found in stored.items():
        live = state.tensors.get(name)
        if live is not None and live.shape == found.shape and live.dtype == found.dtype:
            live.copy_(found)
        else:
            state.tensors[name] = found.to(live.device if live is not None else device, copy=True)


def _check_names(what: str, here: set[str], stored: set[str]) -> None:
    missing, unexpected = sorted(here - stored), sorted(stored - here)
    if missing or unexpected:
        raise CheckpointMismatch(
            f"{what}: the checkpoint lacks {missing[:5]} and has {unexpected[:5]} besides"
            f" ({len(missing)} and {len(unexpected)} names)"
        )
