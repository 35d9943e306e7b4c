"""Hidden units of a generator: their gains while it draws, and which of them draw a given thing.

A unit is one map of a hidden layer, or one value where a layer has no maps. Ranking follows Radford et
al. 2016, section 6.3.2: a logistic regression on activations tells places with the thing from places
without; units of positive weight draw it, and zeroing them everywhere makes the generator forget it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

# Strong, so that units which fire together share their weight: with a weak one the regression picks a few of them,
# against others, and enough are left to draw the thing.
_RIDGE = 3.0
_ROUNDS = 100


@contextmanager
def gated(network: nn.Module, gains: Mapping[str, Tensor]) -> Iterator[None]:
    """Multiply the units of layers by gains (N, U): 0 ablates a unit everywhere, 1 leaves its very bits."""
    handles = [network.get_submodule(name).register_forward_hook(_gate(rows)) for name, rows in gains.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def recorded(network: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Collect what layers give, by name; of several calls the last."""
    found: dict[str, Tensor] = {}
    handles = [network.get_submodule(name).register_forward_hook(_keep(found, name)) for name in names]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def count_units(network: nn.Module, names: Sequence[str], run: Callable[[], object]) -> dict[str, int]:
    """Return how many units each layer has, seen during one `run` of the network."""
    with torch.inference_mode(), recorded(network, names) as found:
        run()
    return {name: found[name].shape[1] for name in names}


def unit_weights(present: Tensor, *absent: Tensor) -> Tensor:
    """Return a weight for each unit (U,) by which activations (P, U) where a thing is are told from those (A, U) where not.

    Activations are standardised and both sides weigh the same. Several kinds
    of absence weigh the same too: else the many places beside a thing would drown the few where it might have been.
    """
    rows = torch.cat([present, *absent]).double()
    spread = rows.std(0)
    rows = (rows - rows.mean(0)) / torch.where(spread > 0, spread, 1.0)
    truth = torch.cat([rows.new_ones(len(present)), rows.new_zeros(len(rows) - len(present))])
    shares = [(present, 0.5), *((part, 0.5 / len(absent)) for part in absent)]
    balance = torch.cat([rows.new_full((len(part),), share / len(part)) for part, share in shares])
    weights = rows.new_zeros(rows.shape[1] + 1, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=_ROUNDS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = rows @ weights[:-1] + weights[-1]
        fit = (balance * functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")).sum()
        total = fit + _RIDGE * weights[:-1].square().sum()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    found = weights.detach()[:-1]
    return torch.where(spread > 0, found, 0.0).float()


def _gate(gains: Tensor) -> Callable[[nn.Module, object, Tensor], Tensor]:
    def hook(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        return output * gains.to(output.dtype).reshape(*gains.shape, *(1 for _ in output.shape[2:]))

    return hook


def _keep(found: dict[str, Tensor], name: str) -> Callable[[nn.Module, object, Tensor], None]:
    def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        found[name] = output.detach()

    return hook
