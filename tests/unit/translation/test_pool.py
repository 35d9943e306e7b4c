"""The pool of generated images: who is shown, who is kept, and that a resume goes on with the same."""

from __future__ import annotations

import torch
from torch import Tensor

from workers.families.translation.pool import exchange, new_pool

SIZE = 50


def images(first: int, count: int) -> Tensor:
    """Return pictures of one value each, counted from `first`."""
    return torch.arange(first, first + count, dtype=torch.float32)[:, None, None, None].expand(-1, 1, 2, 2).clone()


def shown_after(steps: int, *, batch: int = 4, seed: int = 0) -> tuple[list[list[int]], Tensor]:
    torch.manual_seed(seed)
    pool = new_pool(SIZE, (1, 2, 2), torch.device("cpu"))
    seen = []
    for step in range(steps):
        shown = exchange(pool, images(step * batch, batch), seen=step * batch)
        seen.append([int(one) for one in shown[:, 0, 0, 0]])
    return seen, pool


def test_the_first_images_fill_the_pool_and_are_shown_themselves() -> None:
    seen, pool = shown_after(12)

    assert [one for batch in seen for one in batch] == list(range(48))
    assert pool[:48, 0, 0, 0].tolist() == list(range(48))


def test_of_a_full_pool_half_of_what_is_shown_is_older() -> None:
    seen, _ = shown_after(800)
    late = [(step, one) for step, batch in enumerate(seen) if step > 100 for one in batch]

    older = [one for step, one in late if one < 4 * step]

    assert 0.45 < len(older) / len(late) < 0.55


def test_an_older_image_is_shown_once_and_what_came_instead_of_it_stays() -> None:
    seen, pool = shown_after(800)
    shown = [one for batch in seen[13:] for one in batch]
    kept = {int(one) for one in pool[:, 0, 0, 0]}

    # Nothing of what is shown late is shown twice, but those that filled the pool: they were shown on their way in.
    assert len(shown) == len(set(shown))
    assert not kept & set(shown[-100:])


def test_a_batch_may_fill_the_last_places_and_exchange_the_rest() -> None:
    torch.manual_seed(0)
    pool = new_pool(3, (1, 2, 2), torch.device("cpu"))

    shown = exchange(pool, images(0, 40), seen=0)

    assert shown[:3, 0, 0, 0].tolist() == [0, 1, 2]
    assert shown[3:, 0, 0, 0].tolist() != list(range(3, 40))


def test_without_a_pool_everything_is_shown_as_it_is() -> None:
    batch = images(0, 4)

    assert exchange(new_pool(0, (1, 2, 2), torch.device("cpu")), batch, seen=9) is batch


def test_a_shown_image_does_not_change_with_the_pool() -> None:
    torch.manual_seed(0)
    pool = new_pool(1, (1, 2, 2), torch.device("cpu"))
    exchange(pool, images(0, 1), seen=0)

    shown = exchange(pool, images(1, 20), seen=1).clone()
    pool.zero_()

    assert shown.unique().numel() > 10
