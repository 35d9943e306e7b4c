from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from workers.families.answers import decoded
from workers.families.base import Instance, InstanceInvalid, Placement, ServingSpec
from workers.families.images import to_tanh
from workers.families.translation.context_encoder import ContextEncoder, Filled, HoleDiscriminator, fill
from workers.families.translation.data import Batch
from workers.families.translation.holes import FLAT, centre, grown, hide, regions
from workers.families.translation.inpaint import hole_errors
from workers.families.translation.inpaint_handler import InpaintHandler
from workers.families.translation.pictures_config import InpaintConfig

SIDE = 32
CPU = Placement(torch.device("cpu"), None, torch.contiguous_format)


def encoded(pixels: np.ndarray[Any, Any], form: str = "PNG", **options: Any) -> bytes:
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, form, **options)
    return target.getvalue()


PHOTO = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)


def handler(hole: str = "random", overlap: int = 0) -> InpaintHandler:
    return InpaintHandler(ServingSpec((4, SIDE, SIDE), {"hole": hole, "overlap": overlap}))


def white(rows: Tensor) -> Tensor:
    """Fill every hole with white, as a network would."""
    return fill(rows, torch.ones_like(rows[:, :3]))


def ask(own: InpaintHandler, **params: Any) -> Any:
    (answer,) = own.predict([Instance(encoded(PHOTO), {}, params)], white)
    return answer


# --- networks and holes


def test_the_paper_s_networks_have_the_sizes_of_its_published_code() -> None:
    config = InpaintConfig()
    encoder = ContextEncoder(side=128, width=64, bottleneck=config.model.bottleneck, is_centre=True)
    shapes = [tuple(layer.weight.shape) for layer in encoder.layers if hasattr(layer, "kernel_size")]

    assert shapes == [
        (64, 3, 4, 4), (64, 64, 4, 4), (128, 64, 4, 4), (256, 128, 4, 4), (512, 256, 4, 4), (4000, 512, 4, 4),
        (4000, 512, 4, 4), (512, 256, 4, 4), (256, 128, 4, 4), (128, 64, 4, 4), (64, 3, 4, 4),
    ]  # fmt: skip
    judge = HoleDiscriminator(side=64, width=64)
    assert [tuple(one.weight.shape[:2]) for one in judge.layers if hasattr(one, "kernel_size")] == [
        (64, 3), (128, 64), (256, 128), (512, 256), (1, 512),
    ]  # fmt: skip


@pytest.mark.parametrize(("is_centre", "border"), [(True, 8), (False, 0)])
def test_only_what_is_drawn_of_a_canvas_is_not_blank(is_centre: bool, border: int) -> None:
    encoder = ContextEncoder(side=SIDE, width=4, bottleneck=8, is_centre=is_centre).eval()
    nn.init.ones_(encoder.layers[-2].bias)
    canvas = encoder(torch.rand(2, 4, SIDE, SIDE))

    assert canvas.shape == (2, 3, SIDE, SIDE)
    drawn = (canvas != 0).any(0).any(0)
    expected = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    expected[border : SIDE - border, border : SIDE - border] = True
    assert torch.equal(drawn, expected)


def test_what_is_seen_goes_through_a_served_network_unchanged() -> None:
    network = Filled(ContextEncoder(side=SIDE, width=4, bottleneck=8, is_centre=True)).eval()
    images = torch.randint(0, 256, (1, 3, SIDE, SIDE), dtype=torch.uint8)
    mask = centre(SIDE, 2)
    rows = to_tanh(hide(images, mask[None]))

    filled = network(rows)

    assert torch.equal(filled[:, :, ~mask], to_tanh(images)[:, :, ~mask])
    assert not torch.equal(filled[:, :, mask], rows[:, :3, mask])


def test_a_hidden_pixel_says_nothing_but_where_it_is() -> None:
    mask = centre(SIDE, 0)
    one, other = (hide(torch.full((1, 3, SIDE, SIDE), level, dtype=torch.uint8), mask[None]) for level in (0, 255))

    assert torch.equal(one[:, :, mask], other[:, :, mask])
    assert one[0, :3, mask].unique(dim=1).flatten().tolist() == list(FLAT)
    assert torch.equal(one[0, 3] > 0, mask)


@pytest.mark.parametrize("share", [0.1, 0.25, 0.6])
def test_random_regions_hide_the_share_that_was_asked_for(share: float) -> None:
    masks = regions(5, 64, share, torch.Generator().manual_seed(3))

    assert masks.float().mean((1, 2)).tolist() == pytest.approx([share] * 5, abs=1e-3)
    assert len({tuple(mask.flatten().tolist()) for mask in masks}) == 5
    again = regions(5, 64, share, torch.Generator().manual_seed(3))
    assert torch.equal(masks, again)


def test_the_centre_and_its_border_are_the_square_that_is_drawn() -> None:
    hidden = centre(128, 4)[None, None].float()

    assert int(hidden.sum()) == 56 * 56
    assert torch.equal(grown(hidden, 4)[0, 0] > 0, centre(128, 0))


# --- loss and figures


def test_the_overlap_counts_ten_times_and_what_is_not_drawn_nothing(inpaint: Any) -> None:
    recipe = inpaint(hole={"overlap": 2})
    images = torch.zeros(1, 3, SIDE, SIDE)
    rows = torch.cat([images, centre(SIDE, 2)[None, None].float() * 2 - 1], 1)
    drawn, hidden = 16 * 16, 12 * 12

    def loss(where: tuple[int, int]) -> float:
        canvas = images.clone()
        canvas[0, :, where[0], where[1]] = 1.0
        return float(recipe.distance(Batch(rows, images), canvas))

    assert loss((16, 16)) == pytest.approx(1 / drawn)
    assert loss((8, 16)) == pytest.approx(10 / drawn)
    assert loss((0, 0)) == 0
    everywhere = float(recipe.distance(Batch(rows, images), images + 1))
    assert everywhere == pytest.approx((hidden + 10 * (drawn - hidden)) / drawn)


def test_figures_are_of_hidden_pixels_alone() -> None:
    hidden = centre(SIDE, 0)[None, None].float()
    target = torch.zeros(1, 3, SIDE, SIDE)
    filled = target + 0.2 * hidden + 9 * (1 - hidden)

    square, absolute, psnr = hole_errors(filled, target, hidden)

    assert (float(square), float(absolute)) == (pytest.approx(0.04), pytest.approx(0.2))
    assert float(psnr) == pytest.approx(20.0)


# --- handler


def test_the_answer_keeps_every_pixel_that_was_seen() -> None:
    answer = ask(handler(), box=[10, 4, 31, 20])

    picture = decoded(answer["image"])
    is_seen = np.ones(PHOTO.shape[:2], dtype=bool)
    is_seen[4:20, 10:31] = False
    assert (picture[is_seen] == PHOTO[is_seen]).all()
    # Near its border the fill is a mean with what lies beyond, as it is scaled to the size that was sent.
    assert (picture[8:16, 15:26] == 255).all()
    assert (answer["size"], answer["sent_size"]) == ([40, 56], [40, 56])
    assert answer["missing"] == pytest.approx(21 * 16 / (40 * 56), abs=1e-6)


def test_a_mask_says_what_is_missing_pixel_by_pixel() -> None:
    mask = np.zeros((40, 56), dtype=np.uint8)
    mask[::7, ::5] = 255

    answer = ask(handler(), mask={"b64": base64.b64encode(encoded(mask)).decode()})

    picture = decoded(answer["image"])
    assert (picture[mask == 0] == PHOTO[mask == 0]).all()
    assert (picture[mask > 0] != PHOTO[mask > 0]).any(1).all()


def test_whatever_holds_a_missing_pixel_is_hidden_from_the_network() -> None:
    photo, mask = np.zeros((128, 128, 3), dtype=np.uint8), np.zeros((128, 128), dtype=np.uint8)
    mask[50, 20] = 255
    seen: list[Tensor] = []

    def look(rows: Tensor) -> Tensor:
        seen.append(rows)
        return white(rows)

    wish = {"mask": {"b64": base64.b64encode(encoded(mask)).decode()}}
    handler().predict([Instance(encoded(photo), {}, wish)], look)

    assert (seen[0][0, 3] > 0).nonzero().tolist() == [[50 // 4, 20 // 4]]


def test_without_a_word_the_middle_is_filled_and_the_square_is_given_on_request() -> None:
    answer = ask(handler("centre"), size="network")

    picture = decoded(answer["image"])
    assert picture.shape == (SIDE, SIDE, 3)
    is_white = (picture == 255).all(2)
    assert is_white[8:24, 8:24].all()
    assert answer["missing"] == pytest.approx(0.25)


def test_a_large_picture_is_answered_smaller_with_its_hole_in_place() -> None:
    large = np.zeros((1500, 2000, 3), dtype=np.uint8)
    body = encoded(large)

    (answer,) = handler().predict([Instance(body, {}, {"box": [0, 0, 1000, 1500]})], white)

    picture = decoded(answer["image"])
    assert answer["size"] == list(picture.shape[:2])
    assert picture.shape[0] * picture.shape[1] <= 2**20
    half, cell = picture.shape[1] // 2, -(-picture.shape[1] // SIDE)
    assert (picture[:, : half - 2 * cell] == 255).all()
    assert (picture[:, half + 1 :] == 0).all()


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        ({"box": [0, 0, 57, 4]}, "must lie in the picture of 56x40"),
        ({"box": [5, 5, 5, 9]}, "x1 < x2"),
        ({"box": [1, 2, 3]}, "four whole numbers"),
        ({"box": [1.0, 2, 3, 4]}, "four whole numbers"),
        ({"box": [True, 2, 3, 4]}, "four whole numbers"),
        ({"box": "all"}, "four whole numbers"),
        ({"box": [0, 0, 56, 40]}, "leaves nothing of the picture"),
        ({"mask": {"b64": "*"}}, "mask"),
        ({"mask": 7}, "mask must be"),
        ({"mask": {"b64": base64.b64encode(b"GIF89a").decode()}}, "mask: the bytes are not a JPEG"),
        ({"mask": {"b64": base64.b64encode(encoded(PHOTO[:9])).decode()}}, "mask is 56x9, but the image is 56x40"),
        ({"mask": {"b64": base64.b64encode(encoded(PHOTO[..., 0] * 0)).decode()}}, "leaves nothing to fill"),
        ({"mask": {"b64": ""}, "box": [0, 0, 1, 1]}, "send one of them"),
        ({"size": "huge"}, "size must be sent or network"),
        ({"hole": 1}, "unknown parameter 'hole'"),
    ],
)
def test_a_wish_that_makes_no_sense_is_refused_with_its_reason(params: dict[str, Any], reason: str) -> None:
    answer = ask(handler(), **params)

    assert isinstance(answer, InstanceInvalid)
    assert reason in str(answer)


@pytest.mark.parametrize("params", [{"box": [0, 0, 5, 5]}, {"mask": {"b64": ""}}])
def test_a_model_of_the_centre_says_that_it_fills_nothing_else(params: dict[str, Any]) -> None:
    answer = ask(handler("centre"), **params)

    assert isinstance(answer, InstanceInvalid)
    assert "fills the square in the middle only" in str(answer)


def test_values_that_are_not_finite_are_refused() -> None:
    (answer,) = handler().predict([Instance(encoded(PHOTO), {}, {})], lambda rows: rows[:, :3] * torch.nan)

    assert isinstance(answer, InstanceInvalid)


# --- config


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ({"data": {"image_size": 96, "load_size": 96}}, "must be a power of two from 16 on; use 64"),
        ({"data": {"batch_size": 1}}, "must be at least 2"),
        ({"hole": {"overlap": 16}}, "below an eighth of data.image_size, 16; use 4"),
    ],
)
def test_a_config_that_cannot_be_built_names_its_field_and_what_to_use(override: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        InpaintConfig.model_validate(override)
