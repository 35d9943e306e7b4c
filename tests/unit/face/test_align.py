from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from workers.families.face.align import TEMPLATE, LandmarksUnusable, align, central, similarity

POINTS = torch.tensor(TEMPLATE, dtype=torch.float64)


def moved(*, degrees: float, scale: float, shift: tuple[float, float]) -> list[tuple[float, float]]:
    """Return the template's points turned, scaled and then shifted."""
    turn = math.radians(degrees)
    rows = []
    for x, y in TEMPLATE:
        across = scale * (x * math.cos(turn) - y * math.sin(turn)) + shift[0]
        down = scale * (x * math.sin(turn) + y * math.cos(turn)) + shift[1]
        rows.append((across, down))
    return rows


def dotted(points: list[tuple[float, float]], *, side: int, radius: float) -> Tensor:
    """Return a black image (3, side, side) with a smooth white disc at every point."""
    line = torch.arange(side)
    image = torch.zeros(side, side, dtype=torch.float64)
    for x, y in points:
        distance = ((line[None] - x) ** 2 + (line[:, None] - y) ** 2).sqrt()
        image = image.maximum((radius + 0.5 - distance).clamp(0, 1))
    return (255 * image).round().to(torch.uint8).expand(3, -1, -1)


def centres(face: Tensor, size: int) -> list[tuple[float, float]]:
    """Return the centre of the light around each of the template's places."""
    line = torch.arange(size, dtype=torch.float64)
    found = []
    for x, y in (POINTS + 0.5) * (size / 112) - 0.5:
        near = ((line[None] - x) ** 2 + (line[:, None] - y) ** 2) < (7 * size / 112) ** 2
        light = face[0].double() * near
        found.append(
            (float((light * line[None]).sum() / light.sum()), float((light * line[:, None]).sum() / light.sum()))
        )
    return found


@pytest.mark.parametrize("degrees", [0, 30, -75, 180])
def test_a_turned_and_scaled_template_is_put_back(degrees: float) -> None:
    points = torch.tensor(moved(degrees=degrees, scale=2.5, shift=(40, -7)), dtype=torch.float64)

    factor, shift = similarity(points, POINTS)

    back = factor * torch.view_as_complex(points) + shift
    torch.testing.assert_close(torch.view_as_real(back), POINTS)
    assert abs(factor) == pytest.approx(1 / 2.5)


def test_no_other_turn_scale_and_shift_comes_nearer() -> None:
    generator = torch.Generator().manual_seed(0)
    points = POINTS + 5 * torch.randn(POINTS.shape, generator=generator, dtype=torch.float64)
    here, there = torch.view_as_complex(points), torch.view_as_complex(POINTS)

    factor, shift = similarity(points, POINTS)

    least = float((factor * here + shift - there).abs().square().sum())
    for change in (0.01, -0.01, 0.01j, -0.01j):
        assert float(((factor + change) * here + shift - there).abs().square().sum()) > least
        assert float((factor * here + shift + 10 * change - there).abs().square().sum()) > least


@pytest.mark.parametrize("size", [112, 160, 32])
@pytest.mark.parametrize(
    ("degrees", "scale", "shift", "side"),
    [
        pytest.param(0, 1.0, (0, 0), 112, id="as it is"),
        pytest.param(20, 3.0, (200, 40), 600, id="turned and large, in a larger picture"),
        pytest.param(-35, 0.6, (5, 60), 130, id="small"),
    ],
)
def test_landmarks_come_to_lie_on_the_template(
    degrees: float, scale: float, shift: tuple[float, float], side: int, size: int
) -> None:
    points = moved(degrees=degrees, scale=scale, shift=shift)
    image = dotted(points, side=side, radius=3.5 * scale)

    face = align(image, points, size)

    assert face.shape == (3, size, size)
    expected = ((POINTS + 0.5) * (size / 112) - 0.5).tolist()
    for found, wanted in zip(centres(face, size), expected, strict=True):
        assert found == pytest.approx(wanted, abs=0.5)


def test_a_large_face_is_averaged_not_picked_from() -> None:
    rows = torch.arange(560)
    image = (255 * ((rows[:, None] + rows[None]) % 2)).to(torch.uint8).expand(3, -1, -1)

    face = align(image, moved(degrees=0, scale=5.0, shift=(0, 0)), 112)

    # At the border the black outside has a part.
    assert (face[:, 1:-1, 1:-1].float() - 127.5).abs().max() < 30


def test_what_of_a_face_lies_outside_of_the_picture_is_black() -> None:
    image = torch.full((3, 80, 80), 200, dtype=torch.uint8)

    half = align(image, moved(degrees=0, scale=1.0, shift=(-6, -6)), 112)
    assert int(half.max()) == 200
    assert int(half.min()) == 0


@pytest.mark.parametrize(
    "points", [pytest.param([(3.0, 4.0)] * 5, id="one place"), pytest.param([(0.0, 0.0)] * 5, id="zeros")]
)
def test_landmarks_without_extent_are_refused(points: list[tuple[float, float]]) -> None:
    with pytest.raises(LandmarksUnusable, match="do not lie like those of a face"):
        align(torch.zeros(3, 20, 20, dtype=torch.uint8), points, 112)


@pytest.mark.parametrize("shift", [(5000, 0), (0, -200), (-200, 0), (60, 60)])
def test_landmarks_outside_of_the_picture_are_refused_for_all_such_faces_would_be_black(
    shift: tuple[float, float],
) -> None:
    with pytest.raises(LandmarksUnusable, match="lie outside of the picture"):
        align(torch.zeros(3, 50, 50, dtype=torch.uint8), moved(degrees=0, scale=1.0, shift=shift), 112)


def test_without_landmarks_the_middle_is_the_face() -> None:
    image = torch.zeros(3, 40, 60, dtype=torch.uint8)
    image[:, 10:30, 20:40] = 255

    assert int(central(image, 20, crop=0.5).min()) == 255
    assert central(image, 40, crop=1.0).float().mean() == pytest.approx(255 / 4, abs=1)
