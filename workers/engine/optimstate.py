"""An optimizer's state as named tensors and JSON, and back, strictly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from workers.engine import jsonstate
from workers.engine.errors import CheckpointMismatch, StateUnsupported


def capture(name: str, optimizer: Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the live tensors by name, such as `adam.12.exp_avg`, and the rest as JSON."""
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, Any] = {}
    for index, parameter in enumerate(_parameters(optimizer)):
        for key, value in optimizer.state.get(parameter, {}).items():
            label = f"{name}.{index}.{key}"
            if isinstance(value, Tensor):
                tensors[label] = value.detach()
            else:
                numbers[label] = jsonstate.encode(value, where=f"optimizer {label}")
    return tensors, {"class": type(optimizer).__name__, "groups": _groups(name, optimizer), "numbers": numbers}


def restore(name: str, optimizer: Optimizer, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> None:
    """Put a captured state into a freshly built optimizer.

    Tensors shaped like their parameter get its memory format, since fused updates walk memory in order.

    Raises:
        CheckpointMismatch: the optimizer is of another class or has other parameters.
    """
    _check_fit(name, optimizer, document)
    parameters = _parameters(optimizer)
    hosts = _step_on_host(optimizer)
    optimizer.state.clear()
    for label, value in {**tensors, **document["numbers"]}.items():
        owner, index, key = label.split(".", 2)
        if owner != name:
            continue
        parameter = parameters[int(index)]
        if isinstance(value, Tensor):
            is_on_host = key == "step" and hosts[int(index)]
            optimizer.state[parameter][key] = value.clone() if is_on_host else _like(value, parameter)
        else:
            optimizer.state[parameter][key] = jsonstate.decode(value)
    for group, saved in zip(optimizer.param_groups, document["groups"], strict=True):
        group.update(jsonstate.decode(saved["values"]))


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _groups(name: str, optimizer: Optimizer) -> list[dict[str, Any]]:
    if "." in name:
        raise StateUnsupported(f"optimizer {name}: a name must not contain a dot")
    return [
        {
            "shapes": [list(parameter.shape) for parameter in group["params"]],
            "values": jsonstate.encode(
                {key: value for key, value in group.items() if key != "params"}, where=f"optimizer {name}"
            ),
        }
        for group in optimizer.param_groups
    ]


def _check_fit(name: str, optimizer: Optimizer, document: Mapping[str, Any]) -> None:
    if document["class"] != type(optimizer).__name__:
        raise CheckpointMismatch(
            f"optimizer {name} is {type(optimizer).__name__}, the checkpoint has {document['class']}"
        )
    here = [[list(parameter.shape) for parameter in group["params"]] for group in optimizer.param_groups]
    if here != [group["shapes"] for group in document["groups"]]:
        raise CheckpointMismatch(f"optimizer {name} updates other parameters than the checkpoint's")


def _step_on_host(optimizer: Optimizer) -> list[bool]:
    # torch keeps the step count of an unfused optimizer on the host, whatever the parameters' device
    return [
        not (group.get("fused") or group.get("capturable")) for group in optimizer.param_groups for _ in group["params"]
    ]


def _like(value: Tensor, parameter: Tensor) -> Tensor:
    if value.shape == parameter.shape:
        return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)
    return value.to(parameter.device, copy=True)
