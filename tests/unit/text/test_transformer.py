from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from workers.families.schedule import learning_rate
from workers.families.sections import Schedule
from workers.families.text.config import TransformerConfig, TransformerModel
from workers.families.text.transformer_network import Transformer, positions
from workers.families.text.vocab import BOS, PAD

SMALL = TransformerModel(width=16, heads=4, feed_forward=32, encoder_layers=2, decoder_layers=2, dropout=0.0)
MAX_TOKENS = 6


def network(model: TransformerModel = SMALL, num_tokens: int = 20) -> Transformer:
    torch.manual_seed(0)
    return Transformer(model, num_tokens=num_tokens, max_tokens=MAX_TOKENS).eval()


def test_the_paper_s_network_has_as_many_parameters_as_the_reference() -> None:
    with torch.device("meta"):
        made = Transformer(TransformerModel(), num_tokens=10, max_tokens=8)

    total = sum(parameter.numel() for parameter in made.parameters())
    assert total - made.embedding.weight.numel() == 44_101_632


def test_a_token_changes_nothing_before_it() -> None:
    made, source = network(), torch.tensor([[4, 5, 6]])
    one, other = torch.tensor([[BOS, 7, 8, 9]]), torch.tensor([[BOS, 7, 11, 9]])

    before, after = made(source, one), made(source, other)

    assert torch.equal(before[:, :2], after[:, :2])
    assert not torch.allclose(before[:, 2:], after[:, 2:])


def test_padding_of_the_source_is_not_seen() -> None:
    made, target = network(), torch.tensor([[BOS, 7]])

    short, long = made(torch.tensor([[4, 5]]), target), made(torch.tensor([[4, 5, PAD, PAD]]), target)

    torch.testing.assert_close(short, long)


def test_the_order_of_the_source_is_seen() -> None:
    made, target = network(), torch.tensor([[BOS]])

    assert not torch.allclose(made(torch.tensor([[4, 5]]), target), made(torch.tensor([[5, 4]]), target))


def test_positions_are_those_of_the_paper() -> None:
    table = positions(50, 8)

    for place in (0, 1, 49):
        for pair in range(4):
            angle = place / 10_000 ** (2 * pair / 8)
            assert table[place, 2 * pair : 2 * pair + 2].tolist() == pytest.approx(
                [math.sin(angle), math.cos(angle)], abs=1e-6
            )


def test_the_rate_is_that_of_the_paper() -> None:
    width, warmup = 512, 4000
    for number in (1, 100, 4000, 4001, 16_000, 100_000):
        wanted = width**-0.5 * min(number**-0.5, number * warmup**-1.5)
        found = learning_rate(
            number - 1,
            peak=(width * warmup) ** -0.5,
            schedule=Schedule(name="inverse_sqrt", warmup_steps=warmup),
            max_steps=100_000,
        )
        assert found == pytest.approx(wanted)


def test_smoothing_and_padding_enter_the_loss_as_they_should() -> None:
    from workers.families.text.transformer import _cross_entropy

    scores, following = torch.randn(1, 3, 7), torch.tensor([[4, 5, PAD]])
    shares = scores[0].log_softmax(-1)
    truth = functional.one_hot(following[0], 7) * 0.9 + 0.1 / 7

    assert float(_cross_entropy(scores, following, smoothing=0.1)) == pytest.approx(
        float(-(truth * shares)[:2].sum()), rel=1e-5
    )


def test_heads_that_do_not_share_the_width_are_told_one_that_they_could() -> None:
    with pytest.raises(
        ValueError, match=r"model\.width \(50\) must be even and a multiple of model\.heads \(8\): use 48"
    ):
        TransformerConfig.model_validate({"model": {"width": 50}})
