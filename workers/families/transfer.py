"""Copies weights of one network into another, and says what does not fit."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from workers.families.base import SourceUnfit

_MOST_SHOWN = 6


@torch.no_grad()
def copy_weights(
    state: Mapping[str, Tensor], tensors: Mapping[str, Tensor], *, name: str, fresh: tuple[str, ...] = ()
) -> None:
    """Copy parameters and buffers by their names into a network, whose `state_dict()` is `state`.

    What begins with one of `fresh` keeps the values it was built with, whether the source has it or not.

    Raises:
        SourceUnfit: any other name is missing on one side, or has another shape; nothing was copied then.
    """
    own = {key: value for key, value in state.items() if not key.startswith(fresh)}
    given = {key: value for key, value in tensors.items() if not key.startswith(fresh)}
    problems = [
        *_named("is missing there", sorted(own.keys() - given.keys())),
        *_named("is unknown here", sorted(given.keys() - own.keys())),
        *_named(
            "has another shape",
            [
                f"{key} (here {tuple(own[key].shape)}, there {tuple(given[key].shape)})"
                for key in sorted(own.keys() & given.keys())
                if own[key].shape != given[key].shape
            ],
        ),
    ]
    if problems:
        raise SourceUnfit(f"the weights of {name} do not fit this network: {'; '.join(problems)}")
    for key, value in own.items():
        value.copy_(given[key])


def _named(what: str, keys: list[str]) -> list[str]:
    if not keys:
        return []
    more = f" and {len(keys) - _MOST_SHOWN} more" if len(keys) > _MOST_SHOWN else ""
    return [f"{what}: {', '.join(keys[:_MOST_SHOWN])}{more}"]
