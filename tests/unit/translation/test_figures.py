"""Figures of pictures, compared with those of a library and with cases known by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from workers.families.translation import figures


def pair() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    one = torch.rand(3, 3, 24, 20, generator=generator) * 2 - 1
    return one, (one + 0.3 * torch.randn(one.shape, generator=generator)).clamp(-1, 1)


def test_psnr_is_the_library_s_and_equal_pictures_have_100() -> None:
    one, other = pair()

    expected = [float(peak_signal_noise_ratio(a, b, data_range=2.0)) for a, b in zip(one, other, strict=True)]
    assert figures.psnr(one, other).tolist() == pytest.approx(expected, rel=1e-5)
    assert figures.psnr(one, one).tolist() == [100.0] * 3


def test_ssim_of_each_pair_is_on_the_range_of_tanh() -> None:
    one, other = pair()
    expected = [
        float(structural_similarity_index_measure(a[None], b[None], data_range=2.0))
        for a, b in zip(one, other, strict=True)
    ]

    assert figures.ssim(one, other).tolist() == pytest.approx(expected, abs=1e-5)
    assert figures.ssim(one, one).tolist() == pytest.approx([1.0] * 3)


def test_l1_is_a_mean_of_each_picture() -> None:
    one = torch.zeros(2, 3, 4, 4)
    other = torch.stack([torch.full((3, 4, 4), 0.5), torch.full((3, 4, 4), -1.0)])

    assert figures.l1(one, other).tolist() == [0.5, 1.0]


def test_heaps_of_the_same_pictures_are_at_no_distance_in_any_order() -> None:
    pictures = pair()[0]

    assert figures.sliced_distance(pictures, pictures) == 0
    assert figures.sliced_distance(pictures, pictures.flip(0)) < 0.1 * figures.sliced_distance(
        pictures, -pictures.abs()
    )


def test_the_distance_of_heaps_grows_with_a_shift_of_colour() -> None:
    pictures = pair()[0] * 0.5

    near, far = (figures.sliced_distance(pictures, pictures + shift) for shift in (0.1, 0.4))

    assert 0 < near < far
    assert far == pytest.approx(4 * near, rel=0.05)


def test_the_distance_of_heaps_is_in_units_of_pixels() -> None:
    pictures = pair()[0] * 0.5

    # All 147 numbers of a patch grow by 0.1; along a direction of length 1 that is 0.1 times a normal draw.
    assert figures.sliced_distance(pictures, pictures + 0.1) == pytest.approx(0.1 * (2 / math.pi) ** 0.5, rel=0.15)


def test_one_colour_all_over_is_colourful_by_a_share_of_how_far_it_is_from_grey() -> None:
    red = torch.tensor([1.0, -1.0, -1.0])[None, :, None, None].expand(1, 3, 4, 4)

    # Red less green is 2, their mean less blue is 1, and neither varies.
    assert float(figures.colourfulness(red)) == pytest.approx(0.3 * 5**0.5)


def test_the_distance_of_heaps_does_not_depend_on_how_many_pictures_there_are() -> None:
    few, many = torch.zeros(2, 3, 16, 16), torch.zeros(7, 3, 16, 16)

    assert figures.sliced_distance(few, many) == 0
    assert figures.sliced_distance(few, many + 0.3) == pytest.approx(figures.sliced_distance(few, few + 0.3))
