from __future__ import annotations

import torch
from torch import nn

from workers.families.gan.units import count_units, gated, recorded, unit_weights


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.ConvTranspose2d(4, 6, 4), nn.ReLU(), nn.ConvTranspose2d(6, 3, 4, stride=2, padding=1))


def maps_of(net: nn.Sequential, x: torch.Tensor, gains: dict[str, torch.Tensor]) -> torch.Tensor:
    # Recorded after the gate: hooks run in the order they were added.
    with torch.inference_mode(), gated(net, gains), recorded(net, ["1"]) as found:
        net(x)
    return found["1"]


def test_ablation_zeroes_exactly_the_given_maps_of_the_given_rows():
    net, x = network(), torch.randn(2, 4, 1, 1)
    gains = torch.ones(2, 6)
    gains[1, [0, 4]] = 0.0

    before, after = maps_of(net, x, {}), maps_of(net, x, {"1": gains})

    assert torch.equal(after[0], before[0])
    assert after[1, [0, 4]].count_nonzero() == 0
    assert torch.equal(after[1, [1, 2, 3, 5]], before[1, [1, 2, 3, 5]])
    assert before[1, [0, 4]].count_nonzero() > 0


def test_gains_of_one_leave_every_bit_and_hooks_do_not_stay():
    net, x = network(), torch.randn(2, 4, 1, 1)
    with torch.inference_mode():
        plain = net(x)
        with gated(net, {"1": torch.ones(2, 6)}):
            assert torch.equal(net(x), plain)
        with gated(net, {"1": torch.zeros(2, 6)}):
            assert not torch.equal(net(x), plain)

        assert torch.equal(net(x), plain)


def test_units_of_layers_are_counted_with_and_without_maps():
    net = nn.Sequential(nn.Linear(3, 5), nn.Unflatten(1, (5, 1, 1)), nn.ConvTranspose2d(5, 7, 2))

    assert count_units(net, ["0", "2"], lambda: net(torch.zeros(1, 3))) == {"0": 5, "2": 7}


def test_weights_tell_units_that_draw_a_thing_from_those_that_do_not():
    torch.manual_seed(0)
    present, absent = torch.randn(400, 5), torch.randn(4000, 5)
    present[:, 1] += 2.0
    absent[:, 3] += 2.0
    present[:, 4] = absent[:, 4] = 0.25

    weights = unit_weights(present, absent)

    assert weights[1] > 0 > weights[3]
    assert weights[[0, 2]].abs().max() < 0.2 * weights[[1, 3]].abs().min()
    assert weights[4] == 0


def test_units_that_fire_together_share_their_weight():
    torch.manual_seed(0)
    present, absent = torch.randn(300, 1) + 2, torch.randn(300, 1)
    twins = [torch.cat([side, side + 0.1 * torch.randn(300, 1)], 1) for side in (present, absent)]

    one, other = unit_weights(*twins).tolist()

    assert one > 0
    assert 0.5 < other / one < 2


def test_kinds_of_absence_weigh_the_same_however_many_rows_they_have():
    torch.manual_seed(0)
    present = torch.randn(200, 2) + torch.tensor([1.0, 1.0])
    many, few = torch.randn(5000, 2) + torch.tensor([1.0, 0.0]), torch.randn(50, 2) + torch.tensor([0.0, 1.0])

    apart, together = unit_weights(present, many, few), unit_weights(present, torch.cat([many, few]))

    assert 0.5 < apart[0] / apart[1] < 2
    assert together[0] < 0.2 * together[1]


def test_weights_are_finite_where_a_unit_tells_all():
    present, absent = torch.ones(10, 1), torch.zeros(10, 1)

    (weight,) = unit_weights(present, absent).tolist()

    assert 0 < weight < 100
