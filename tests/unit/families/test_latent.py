from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from workers.families.latent import LatentInvalid, combine, direction, draw, jittered, renormalise, shifted, walk

SIZES = st.sampled_from([1, 2, 3, 32, 100])
SEEDS = st.integers(0, 2**31 - 1)


@given(SEEDS, SEEDS, SIZES)
def test_a_draw_depends_on_its_own_seed_alone(one, other, size):
    assert torch.equal(draw([one, other], size)[1], draw([other], size)[0])


def test_draws_are_of_the_standard_normal_distribution():
    z = draw(range(2000), 50)

    assert z.dtype == torch.float32
    assert z.mean().abs() < 0.01
    assert (z.std() - 1).abs() < 0.01
    assert (torch.corrcoef(z[:20]) - torch.eye(20)).abs().max() < 0.6


@given(SEEDS, SEEDS, SIZES, st.integers(2, 20), st.sampled_from(["slerp", "lerp"]))
def test_a_walk_begins_and_ends_with_exactly_what_was_given(one, other, size, steps, mode):
    start, end = draw([one, other], size)
    if mode == "slerp" and size == 1 and float(start * end) < 0:
        return  # opposite: see below

    path = walk(start, end, steps, mode)

    assert path.shape == (steps, size)
    assert torch.equal(path[0], start)
    assert torch.equal(path[-1], end)


@given(SEEDS, SEEDS, st.integers(3, 12))
def test_slerp_turns_by_equal_angles_in_the_plane_of_both_ends(one, other, steps):
    start, end = (z / z.norm() for z in draw([one, other], 32).double())
    angle = math.acos(max(-1.0, min(1.0, float(start @ end))))

    path = walk(start, end, steps)

    lengths = path.norm(dim=1)
    assert torch.allclose(lengths, torch.ones_like(lengths), atol=1e-9)
    if one != other:
        turns = (path[:-1] * path[1:]).sum(1).clamp(-1, 1).arccos()
        assert torch.allclose(turns, torch.full_like(turns, angle / (steps - 1)), atol=1e-6)


def test_slerp_of_orthogonal_vectors_of_different_length_passes_the_known_middle():
    middle = walk(torch.tensor([2.0, 0.0]), torch.tensor([0.0, 4.0]), 3)[1]

    assert torch.allclose(middle, torch.tensor([math.sqrt(2), 2 * math.sqrt(2)]))


def test_slerp_between_equal_vectors_stays():
    z = draw([1], 8)[0]

    assert torch.allclose(walk(z, z.clone(), 5), z.expand(5, -1))


@pytest.mark.parametrize(
    ("start", "end", "reason"),
    [
        pytest.param([1.0, 2.0], [-2.0, -4.0], "opposite", id="no one arc"),
        pytest.param([0.0, 0.0], [1.0, 0.0], "zero", id="no direction to turn from"),
    ],
)
def test_slerp_without_one_arc_is_refused_where_a_line_is_not(start, end, reason):
    with pytest.raises(LatentInvalid, match=reason):
        walk(torch.tensor(start), torch.tensor(end), 4)

    assert walk(torch.tensor(start), torch.tensor(end), 3, "lerp")[1].tolist() == [
        (a + b) / 2 for a, b in zip(start, end, strict=True)
    ]


def test_arithmetic_adds_the_signed_means_of_groups():
    king, man, woman = torch.tensor([[3.0, 1.0], [5.0, 1.0]]), torch.tensor([[1.0, 1.0]]), torch.tensor([[1.0, 7.0]])

    assert combine([(1, king), (-1, man), (1, woman)]).tolist() == [4.0, 7.0]


@given(SEEDS, SIZES)
def test_renormalised_vectors_have_the_length_of_a_draw_and_their_direction(seed, size):
    z = draw([seed], size)[0]

    scaled = renormalise(7 * z)

    assert math.isclose(float(scaled.norm()), math.sqrt(size), rel_tol=1e-5)
    assert math.isclose(float(torch.cosine_similarity(scaled, z, dim=0)), 1, rel_tol=1e-5)


def test_a_sum_that_cancels_is_refused():
    z = draw([1, 2, 3], 8)

    with pytest.raises(LatentInvalid, match="zero vector"):
        renormalise(combine([(1, z), (-1, z)]))


def test_jitter_adds_its_share_of_a_draw():
    z = draw([9], 8)[0]

    assert torch.equal(jittered(z, [4, 5], 0.0), z.expand(2, -1))
    assert torch.equal(jittered(z, [4, 5], 0.5)[1], z + 0.5 * draw([5], 8)[0])


def test_a_direction_leads_from_those_without_to_those_with_it():
    without, with_it = torch.tensor([[0.0, 2.0], [2.0, 2.0]]), torch.tensor([[1.0, 5.0]])

    assert direction(with_it, without).tolist() == [0.0, 3.0]
    assert shifted(without, torch.tensor([1.0, 0.0]), [-1.0, 2.0]).tolist() == [[-1, 2], [2, 2], [1, 2], [4, 2]]
