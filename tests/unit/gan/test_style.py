from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from workers.families.gan.config import StyleganConfig, StyleModel
from workers.families.gan.generators import build_generator
from workers.families.gan.style import Blur, EqualLinear, ModulatedConv, StyleGenerator
from workers.families.gan.style_discriminator import StyleDiscriminator, spread_map


@pytest.fixture
def generator() -> StyleGenerator:
    torch.manual_seed(0)
    net = build_generator(StyleganConfig.preset("tiny")).eval()
    assert isinstance(net, StyleGenerator)
    return net


@pytest.mark.parametrize("is_up", [False, True])
@pytest.mark.parametrize("demodulate", [False, True])
def test_modulation_equals_a_loop_over_samples_with_weights_of_their_own(*, is_up: bool, demodulate: bool) -> None:
    torch.manual_seed(0)
    conv = ModulatedConv(6, 5, 3, style_size=4, is_up=is_up, demodulate=demodulate)
    maps, w = torch.randn(3, 6, 8, 8), torch.randn(3, 4)

    found = conv(maps, w)

    for n in range(3):
        # As the paper writes it: w'_ijk = s_i w_ijk, then divided by its norm over i and k.
        weight = conv.weight * conv.scale * conv.style(w)[n][None, :, None, None]
        if demodulate:
            weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        if is_up:
            assert conv.blur is not None
            wanted = conv.blur(functional.conv_transpose2d(maps[n : n + 1], weight.transpose(0, 1), stride=2))
        else:
            wanted = functional.conv2d(maps[n : n + 1], weight, padding=1)
        assert torch.allclose(found[n : n + 1], wanted, atol=2e-6)


def test_squares_of_styles_and_weights_are_summed_in_full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    conv = ModulatedConv(512, 16, 1, style_size=16)
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(torch, "rsqrt", lambda squares: seen.append(squares) or squares.rsqrt())

    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        conv(torch.ones(2, 512, 1, 1), torch.randn(2, 16))

    assert [squares.dtype for squares in seen] == [torch.float32]


def test_demodulated_maps_have_unit_scale() -> None:
    torch.manual_seed(0)
    conv = ModulatedConv(64, 64, 3, style_size=16)

    maps = conv(torch.randn(16, 64, 16, 16), 3 * torch.randn(16, 16)).detach()

    # Inside: at the border padding takes a part of the sum away.
    assert float(maps[:, :, 1:-1, 1:-1].std()) == pytest.approx(1.0, abs=0.05)


def test_a_blurred_ramp_stays_a_ramp_and_an_upsampled_constant_a_constant() -> None:
    ramp = torch.arange(12.0).expand(1, 2, 12, 12)
    middle = Blur(pad=(2, 1))(ramp)[:, :, 3:-3, 3:-3]
    spread = functional.conv_transpose2d(torch.ones(1, 1, 8, 8), torch.ones(1, 1, 1, 1), stride=2)

    assert torch.allclose(middle.diff(dim=3), torch.ones(()), atol=1e-5)
    # Zeros between pixels cost three quarters, which the gain gives back.
    assert torch.allclose(Blur(pad=(1, 1), gain=4.0)(spread)[:, :, 3:-3, 3:-3], torch.ones(()), atol=1e-5)


def test_equal_layers_start_at_unit_scale_whatever_their_learning_rate() -> None:
    torch.manual_seed(0)
    values = torch.randn(4000, 128)

    plain, slow = (EqualLinear(128, 64, rate=rate)(values) for rate in (1.0, 0.01))

    assert float(plain.detach().std()) == pytest.approx(1, abs=0.05)
    assert float(slow.detach().std()) == pytest.approx(1, abs=0.05)


def test_a_style_moves_its_layer_and_those_after_but_no_coarser_map(generator: StyleGenerator) -> None:
    seen: list[torch.Tensor] = []
    for conv in generator.convs:
        conv.register_forward_hook(lambda _module, _inputs, output: seen.append(output.detach()))
    ws = generator.styles(torch.randn(1, generator.latent_size))
    other = ws.clone()
    other[:, 2] = torch.randn(generator.latent_size)

    generator.synthesis(ws)
    generator.synthesis(other)

    count = len(generator.convs)
    is_same = [torch.equal(one, two) for one, two in zip(seen[:count], seen[count:], strict=True)]
    assert is_same == [True, True, *[False] * (count - 2)]
    assert generator.style_count == count + 1


def test_truncation_leads_to_the_mean_and_leaves_psi_one_alone(generator: StyleGenerator) -> None:
    generator.mean_w.normal_()
    w = generator.mapping(torch.randn(3, generator.latent_size))

    at_zero, at_one = generator.styles(w, psi=0.0), generator.styles(w, psi=1.0)

    assert torch.equal(at_zero, generator.mean_w.expand_as(at_zero))
    assert torch.allclose(at_one, w[:, None].expand_as(at_one), atol=1e-6)


def test_noise_is_the_same_for_the_same_seed_and_for_every_image_of_a_batch(generator: StyleGenerator) -> None:
    for conv in generator.convs:
        torch.nn.init.constant_(conv.strength, 1.0)
    ws = generator.styles(generator.mapping(torch.randn(2, generator.latent_size)))

    first, again, other = (generator.synthesis(ws, seed) for seed in (3, 3, 4))

    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.allclose(generator.synthesis(ws[1:], 3), first[1:], atol=1e-5)
    assert torch.equal(generator.synthesis(ws), generator.synthesis(ws, 0))


def test_the_paper_s_widths_halve_from_64_pixels_on() -> None:
    generator = build_generator(StyleganConfig.model_validate({"data": {"image_size": [256, 256]}}))
    assert isinstance(generator, StyleGenerator)

    widths = {conv.bias.numel() for conv in generator.convs}

    assert (len(generator.convs), generator.style_count) == (13, 14)
    assert widths == {512, 256, 128}
    assert [conv.bias.numel() for conv in generator.convs][-4:] == [256, 256, 128, 128]


def test_the_discriminator_is_told_how_much_a_group_varies() -> None:
    torch.manual_seed(0)
    same, varied = torch.randn(1, 4, 4, 4).expand(8, -1, -1, -1), torch.randn(8, 4, 4, 4)

    assert float(spread_map(same).max()) == pytest.approx(1e-4, rel=0.1)
    assert float(spread_map(varied).min()) > 0.5
    assert spread_map(varied).shape == (8, 1, 4, 4)
    # Groups: samples 0, 2, 4, 6 and 1, 3, 5, 7.
    mixed = torch.where((torch.arange(8) % 2 == 0)[:, None, None, None], same, varied)
    assert float(spread_map(mixed)[0].max()) < 0.01 < float(spread_map(mixed)[1].min())


def test_the_discriminator_starts_at_unit_scale() -> None:
    torch.manual_seed(0)
    model = StyleModel(latent_size=32, channel_max=64, channel_base=1024)
    judge = StyleDiscriminator(model, size=32, channels=3)

    logits = judge(torch.randn(64, 3, 32, 32))

    assert logits.shape == (64,)
    assert 0.1 < float(logits.detach().square().mean().sqrt()) < 3
