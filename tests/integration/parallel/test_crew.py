"""What the processes of a crew tell each other and compute together, with threads in their place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor, nn

from tests.integration.parallel.conftest import crew_of
from workers.engine.batchnorm import share_batch_norm
from workers.engine.crew import Crew, PeerLost
from workers.engine.parallel import Parallel
from workers.families.base import TrainState

T = TypeVar("T")
SIZE = 3
BATCH = 8


@pytest.fixture
def together(tmp_path: Path, loopback: None) -> Callable[[Callable[[Crew], T]], list[T]]:
    """Return what runs a function as every member of a crew and gives back what each returned."""
    return lambda act: crew_of(SIZE, act, meeting=tmp_path / "crew")


Together = Callable[[Callable[[Crew], Any]], list[Any]]


def test_everybody_hears_the_leader(together: Together) -> None:
    def act(crew: Crew) -> tuple[int, Any]:
        return crew.agree(40 + crew.rank), crew.tell({"from": crew.rank, "text": "x" * crew.rank})

    assert together(act) == [(40, {"from": 0, "text": ""})] * SIZE


def test_sums_and_gathered_tensors_are_those_of_all(together: Together) -> None:
    def act(crew: Crew) -> tuple[list[float], list[float]]:
        mine = torch.full((2,), float(crew.rank + 1))
        gathered = crew.gather(mine)
        crew.sum_(mine)
        return mine.tolist(), gathered[:, 0].tolist()

    assert together(act) == [([6.0, 6.0], [1.0, 2.0, 3.0])] * SIZE


def test_who_is_left_alone_is_told_so(together: Together) -> None:
    def act(crew: Crew) -> str:
        if crew.rank == 1:
            return "left"
        with pytest.raises(PeerLost):
            crew.sum_(torch.ones(4))
        return "told"

    assert together(act) == ["told", "left", "told"]


def network() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4, momentum=0.3), nn.ReLU(), nn.BatchNorm2d(4, affine=False)
    )


def images() -> Tensor:
    return torch.randn(BATCH, 2, 6, 6, generator=torch.Generator().manual_seed(2)) * 3 + 1


def test_shared_batch_norm_is_that_of_the_whole_batch_with_uneven_parts(together: Together) -> None:
    whole, inputs = network(), images().requires_grad_()
    expected = whole(inputs)
    (expected.square() * torch.arange(BATCH)[:, None, None, None]).mean().backward()

    copies = [network() for _ in range(SIZE)]  # here, since threads share the generators

    def act(crew: Crew) -> tuple[Tensor, Tensor, nn.Module]:
        parallel = Parallel(crew, batch_size=BATCH, seed=0)
        mine, part = copies[crew.rank], images()[parallel.rows].requires_grad_()
        share_batch_norm(mine, crew, share=parallel.share)
        out = mine(part)
        (out.square() * torch.arange(BATCH)[parallel.rows, None, None, None]).mean().backward()
        assert part.grad is not None
        return out.detach(), part.grad * parallel.share, mine

    parts = together(act)

    assert sorted(len(out) for out, _, _ in parts) == [2, 3, 3]
    torch.testing.assert_close(torch.cat([out for out, _, _ in parts]), expected.detach())
    assert inputs.grad is not None
    torch.testing.assert_close(torch.cat([gradient for _, gradient, _ in parts]), inputs.grad, atol=1e-6, rtol=1e-5)
    for _, _, mine in parts:
        torch.testing.assert_close(dict(mine.named_buffers()), dict(whole.named_buffers()))
        mine.eval()
        whole.eval()
        torch.testing.assert_close(mine(images()), whole(images()))


def test_an_update_of_several_backwards_is_that_of_the_whole_batch(together: Together) -> None:
    """As a GAN does it: two networks, one of them frozen at first, two backwards into the same gradients, clipping."""

    def update(state: TrainState, batch: Tensor) -> None:
        first, second = state.modules["first"], state.modules["second"]
        state.optimizers["first"].zero_grad(set_to_none=True)
        second.requires_grad_(False)
        second(first(batch)).square().mean().backward()
        first(batch * 2).abs().mean().backward()
        nn.utils.clip_grad_norm_(first.parameters(), 0.01)
        state.optimizers["first"].step()
        second.requires_grad_(True)
        state.optimizers["second"].zero_grad(set_to_none=True)
        second(first(batch).detach()).mean().backward()
        state.optimizers["second"].step()

    def build(seed: int) -> TrainState:
        torch.manual_seed(seed)
        first, second = nn.Linear(5, 4), nn.Linear(4, 3)
        second.requires_grad_(False)
        optimizers: dict[str, torch.optim.Optimizer] = {
            "first": torch.optim.SGD(first.parameters(), lr=1.0),
            "second": torch.optim.SGD(second.parameters(), lr=0.1),
        }
        return TrainState(modules={"first": first, "second": second}, optimizers=optimizers)

    batch = torch.randn(BATCH, 5, generator=torch.Generator().manual_seed(3))
    whole = build(0)
    update(whole, batch)

    states = [build(rank) for rank in range(SIZE)]  # unlike the leader's, until they join

    def act(crew: Crew) -> dict[str, Tensor]:
        parallel = Parallel(crew, batch_size=BATCH, seed=0)
        state = states[crew.rank]
        parallel.join(state)
        update(state, batch[parallel.rows])
        return {f"{name}.{key}": p.detach() for name, m in state.modules.items() for key, p in m.named_parameters()}

    expected = {f"{name}.{key}": p.detach() for name, m in whole.modules.items() for key, p in m.named_parameters()}
    for found in together(act):
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_counts_and_scalars_are_those_of_the_whole_batch(together: Together) -> None:
    positives = torch.tensor([5, 0, 1, 2, 0, 0, 9, 3])

    def act(crew: Crew) -> tuple[float, dict[str, float]]:
        parallel = Parallel(crew, batch_size=BATCH, seed=0)
        mine = positives[parallel.rows]
        loss = mine.sum() * 7.0 / parallel.mean_count(mine.sum())
        scalars = parallel.mean({"loss": loss, "mean": mine.float().mean()})
        return float(loss) * parallel.share, {name: float(value) for name, value in scalars.items()}

    results = together(act)

    assert sum(loss for loss, _ in results) == pytest.approx(7.0)
    assert all(scalars == pytest.approx({"loss": 7.0, "mean": 2.5}) for _, scalars in results)


def test_no_two_processes_or_steps_draw_the_same(together: Together) -> None:
    parallels = together(lambda crew: Parallel(crew, batch_size=BATCH, seed=3))

    def draw(parallel: Parallel, step: int) -> float:
        parallel.begin_step(step)
        return float(torch.rand(()))

    draws = {(rank, step): draw(parallel, step) for rank, parallel in enumerate(parallels) for step in range(3)}
    assert len(set(draws.values())) == len(draws)
    assert all(draw(parallels[rank], step) == value for (rank, step), value in draws.items())
