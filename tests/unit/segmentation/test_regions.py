import numpy as np
import pytest
from PIL import Image, ImageDraw

from workers.families.segmentation.regions import polygons, run_lengths


def regions() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    ring = np.zeros((9, 9), dtype=bool)
    ring[1:8, 1:8] = True
    ring[3:6, 3:6] = False
    touching = np.zeros((4, 4), dtype=bool)
    touching[:2, :2] = touching[2:, 2:] = True
    return [ring, touching, np.ones((3, 5), bool), np.zeros((3, 5), bool), rng.random((13, 17)) < 0.5]


def fill(rings: list[list[tuple[int, int]]], shape: tuple[int, int]) -> np.ndarray:
    """Fill by the even-odd rule, at pixel centres."""
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    inside = np.zeros(shape, dtype=bool)
    for ring in rings:
        for (ax, ay), (bx, by) in zip(ring, ring[1:] + ring[:1], strict=True):
            if ay != by:
                inside ^= (np.minimum(ay, by) < y) & (y < np.maximum(ay, by)) & (x < ax)
                assert ax == bx
    return inside


@pytest.mark.parametrize("region", regions())
def test_filled_polygons_are_the_region(region: np.ndarray) -> None:
    np.testing.assert_array_equal(fill(polygons(region), region.shape), region)


def test_a_hole_is_a_ring_of_its_own() -> None:
    assert len(polygons(regions()[0])) == 2


@pytest.mark.parametrize("region", regions())
def test_run_lengths_give_the_region_again(region: np.ndarray) -> None:
    stored = run_lengths(region)

    values = np.repeat(np.arange(len(stored["counts"])) % 2 == 1, stored["counts"])
    np.testing.assert_array_equal(values.reshape(region.shape, order="F"), region)


def test_a_drawn_square_has_four_corners() -> None:
    picture = Image.new("1", (8, 8))
    ImageDraw.Draw(picture).rectangle([2, 1, 5, 4], fill=1)

    assert sorted(polygons(np.array(picture))[0]) == [(2, 1), (2, 5), (6, 1), (6, 5)]
