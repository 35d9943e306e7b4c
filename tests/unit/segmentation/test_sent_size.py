"""A class for every pixel of a sent image, without scores for all of its pixels at once."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from workers.families.base import Instance, InstanceInvalid, ServingSpec
from workers.families.letterbox import Fit, fit
from workers.families.segmentation import decision
from workers.families.segmentation.decision import decide, held, possible_winners, to_image_size
from workers.families.segmentation.handler import SegmentationHandler

CLASSES = tuple("abcde")
SIZE = 32


def answer(scores: Tensor, height: int, width: int, **params: Any) -> dict[str, Any]:
    names = [f"class {index}" for index in range(len(scores))]
    handler = SegmentationHandler(ServingSpec((3, *scores.shape[1:]), {"classes": names}))
    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, "PNG", compress_level=1)
    (found,) = handler.predict([Instance(buffer.getvalue(), {}, params)], lambda _: scores[None])
    assert not isinstance(found, InstanceInvalid), found
    return dict(found)


def mask_of(found: dict[str, Any]) -> Tensor:
    with Image.open(io.BytesIO(base64.b64decode(found["mask"]["b64"]))) as picture:
        return torch.from_numpy(np.array(picture))


@pytest.mark.parametrize("strip", [1, 700, 2**24])
@pytest.mark.parametrize(
    ("height", "width"), [(32, 32), (77, 131), (131, 77), (97, 97), (20, 32), (19, 11), (5, 200), (200, 3), (1, 90)]
)
def test_strips_decide_as_the_whole_does(monkeypatch: pytest.MonkeyPatch, height: int, width: int, strip: int) -> None:
    monkeypatch.setattr(decision, "_STRIP", strip)
    scores = torch.randn(len(CLASSES), SIZE, SIZE, generator=torch.Generator().manual_seed(height * 1000 + width))

    found = answer(scores, height, width, return_probs=True)

    whole = to_image_size(scores, fit(height, width, SIZE))
    mask, expected = mask_of(found), whole.argmax(0)
    best = whole.topk(2, dim=0).values
    assert mask.shape == (height, width)
    assert ((mask == expected) | (best[0] - best[1] < 1e-5)).all()
    for index, row in enumerate(found["classes"]):
        won = mask == index
        assert row["pixels"] == int(won.sum())
        mean = whole.softmax(0)[index][won].double().mean() if won.any() else torch.zeros(())
        assert row["probability"] == pytest.approx(float(mean), abs=2e-5)


def smooth(classes: int, side: int) -> Tensor:
    """Return scores (C, side, side) of which few classes are the largest anywhere."""
    generator = torch.Generator().manual_seed(side)
    coarse = torch.randn(classes, 4, 4, generator=generator) + 3 * torch.randn(classes, 1, 1, generator=generator)
    return functional.interpolate(coarse[None], (side, side), mode="bilinear", align_corners=False)[0]


@pytest.mark.parametrize(("height", "width"), [(32, 32), (77, 131), (131, 77), (5, 200), (1, 90), (90, 1)])
def test_leaving_out_classes_that_lose_everywhere_changes_no_pixel(height: int, width: int) -> None:
    scores, placed = smooth(21, SIZE), fit(height, width, SIZE)
    whole = to_image_size(scores, placed)
    expected, best = whole.argmax(0), whole.topk(2, dim=0).values

    found = decide(held(scores, placed), placed, with_probabilities=False)

    assert ((found.mask == expected) | (best[0] - best[1] < 1e-5)).all()
    assert torch.equal(found.pixels, found.mask.flatten().bincount(minlength=21))
    assert len(possible_winners(held(scores, placed))) < 21


def test_a_class_is_kept_that_wins_only_between_two_others() -> None:
    left, right, between = torch.tensor([4.0, 0.0]), torch.tensor([0.0, 4.0]), torch.tensor([3.0, 3.0])
    beaten = torch.tensor([-2.0, -1.0])
    scores = torch.stack([left, right, between, beaten])[:, None].expand(-1, 2, -1)

    assert possible_winners(scores) == [0, 1, 2]
    found = decide(scores, Fit(200, 200, 0.01, 0.01, 0, 0), with_probabilities=False)
    assert found.mask[0, [0, 100, 199]].tolist() == [0, 2, 1]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_scores_that_are_not_finite_are_no_answer(bad: float) -> None:
    scores = torch.zeros(3, SIZE, SIZE)
    scores[1, 5, 5] = bad
    with pytest.raises(ArithmeticError, match="not finite"):
        answer(scores, 40, 40)


@pytest.mark.parametrize(("height", "width"), [(1100, 900), (900, 1100), (1, 1_000_000)])
def test_no_more_than_a_strip_of_scores_is_held_at_once(height: int, width: int) -> None:
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            if isinstance(out, Tensor):
                largest = max(largest, out.numel())
            return out

    scores = torch.randn(21, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    with Watch():
        mask = mask_of(answer(scores, height, width))

    assert mask.shape == (height, width)
    assert height * width <= largest <= 2**24 < 21 * height * width
