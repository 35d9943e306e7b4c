"""The formulas of style transfer."""

from __future__ import annotations

import pytest
import torch

from workers.families.style.losses import content_distance, gram, mean_grams, style_distance, total_variation


def maps(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_gram_matrix_is_the_sum_of_products_of_channels_over_its_places() -> None:
    features = maps(2, 5, 3, 4)

    expected = torch.einsum("nchw,ndhw->ncd", features, features) / (5 * 3 * 4)

    torch.testing.assert_close(gram(features), expected)


def test_a_gram_matrix_does_not_know_where_things_are() -> None:
    features = maps(1, 5, 3, 4)
    shuffled = features.flatten(2)[..., torch.randperm(12, generator=torch.Generator().manual_seed(1))]

    torch.testing.assert_close(gram(shuffled.reshape(1, 5, 4, 3)), gram(features))


def test_a_gram_matrix_is_of_one_size_for_a_picture_and_for_its_repetition() -> None:
    features = maps(1, 5, 3, 4)

    torch.testing.assert_close(gram(features.repeat(1, 1, 2, 3)), gram(features))


def test_a_constant_has_no_variation() -> None:
    assert float(total_variation(torch.full((1, 3, 6, 7), 0.3))) == 0


def test_variation_is_half_the_mean_step_down_and_across() -> None:
    down = torch.arange(6.0)[:, None].expand(1, 3, 6, 7)

    assert float(total_variation(down)) == pytest.approx(0.5)
    assert float(total_variation(3 * down.transpose(2, 3))) == pytest.approx(1.5)


def test_distances_are_means_summed_over_layers_and_nothing_between_a_picture_and_itself() -> None:
    ours, theirs = ({"a": maps(2, 3, 4, 4, seed=n), "b": maps(2, 5, 2, 2, seed=n + 9)} for n in (0, 1))
    grams = mean_grams([{name: gram(one[:1]) for name, one in theirs.items()}])

    content = content_distance(ours, theirs, ("a", "b"))
    style = style_distance(ours, grams, ("b",))

    torch.testing.assert_close(content, sum((ours[n] - theirs[n]).square().mean() for n in "ab"))
    torch.testing.assert_close(style, (gram(ours["b"]) - gram(theirs["b"][:1])).square().mean())
    assert float(content_distance(ours, ours, ("a", "b"))) == 0
    assert float(style_distance({"a": theirs["a"][:1]}, grams, ("a",))) == 0


def test_the_style_of_several_pictures_is_the_mean_of_their_gram_matrices() -> None:
    rows = [{"a": gram(maps(1, 3, *size, seed=n))} for n, size in enumerate(((4, 4), (2, 9), (5, 3)))]

    found = mean_grams(rows)

    torch.testing.assert_close(found["a"], (rows[0]["a"] + rows[1]["a"] + rows[2]["a"])[0] / 3)
    assert mean_grams([]) == {}
