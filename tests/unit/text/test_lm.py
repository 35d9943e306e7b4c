from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
import torch
from torch.nn import functional

from services.core.errors import DatasetInvalid
from tests.builders.text_networks import language_model
from workers.families.base import Placement
from workers.families.text.config import LmData, LmModel, RnnLmConfig
from workers.families.text.lm_data import Windows, in_whole, total_loss
from workers.families.text.lm_network import LanguageModel, Step, row_size
from workers.families.text.rows import to_digits

CPU = Placement(torch.device("cpu"), None, torch.contiguous_format)
CELLS = ("rnn", "lstm", "gru")


def network(cell: str = "lstm", **model: Any) -> LanguageModel:
    torch.manual_seed(0)
    config = LmModel.model_validate({"cell": cell, "embedding": 6, "hidden": 10, "layers": 2, **model})
    return LanguageModel(config, 20).eval()


def test_the_lanes_of_a_text_are_read_on_from_step_to_step() -> None:
    source = Windows(torch.arange(22), data=LmData(batch_size=2, bptt=4))

    first, second, again = (source.batch(step) for step in (0, 1, 2))

    assert source.steps_per_epoch == 2
    assert first.tokens.tolist() == [[0, 1, 2, 3], [11, 12, 13, 14]]
    assert first.targets.tolist() == [[1, 2, 3, 4], [12, 13, 14, 15]]
    assert second.tokens.tolist() == [[4, 5, 6, 7], [15, 16, 17, 18]]
    assert [one.is_first for one in (first, second, again)] == [True, False, True]
    assert torch.equal(again.tokens, first.tokens)


def test_a_text_that_is_too_short_for_its_lanes_is_refused() -> None:
    with pytest.raises(DatasetInvalid, match=r"has 7 tokens.*needs 8.*lower data\.batch_size"):
        Windows(torch.arange(7), data=LmData(batch_size=4))


@pytest.mark.parametrize(("count", "lanes", "size"), [(30, 4, 5), (31, 3, 7), (2, 10, 35), (6, 10, 5)])
def test_every_token_but_the_first_is_asked_for_once(count: int, lanes: int, size: int) -> None:
    asked: Counter[int] = Counter()
    for window in in_whole(torch.arange(count), lanes=lanes, size=size):
        for row, wanted in zip(window.tokens.tolist(), window.targets.tolist(), strict=True):
            asked.update(want for want in wanted if want >= 0)
            assert all(want == token + 1 for token, want in zip(row, wanted, strict=True) if want >= 0)

    assert asked == Counter(range(1, count))


@pytest.mark.parametrize("cell", CELLS)
def test_reading_in_windows_is_reading_in_one_piece(cell: str) -> None:
    made, tokens = network(cell), torch.randint(4, 20, (41,))

    whole = total_loss(made, in_whole(tokens, lanes=1, size=40), CPU)
    pieces = total_loss(made, in_whole(tokens, lanes=1, size=7), CPU)

    assert pieces[0] == pytest.approx(whole[0], rel=1e-5)
    assert pieces[1] == whole[1] == 40


@pytest.mark.parametrize("cell", CELLS)
def test_one_token_at_a_time_scores_as_many_at_once(cell: str) -> None:
    made, tokens = network(cell), [5, 9, 4, 11]
    together, _ = made(torch.tensor([tokens]), made.nothing_read(1, device=torch.device("cpu")))
    step, state = Step(made), torch.zeros(1, row_size(made.model) - 2)

    for place, token in enumerate(tokens):
        scores, state = step(torch.cat([to_digits([token])[None], state], dim=1))
        torch.testing.assert_close(scores, together[:, place])


def test_forget_gates_start_open() -> None:
    made = network("lstm")

    for layer in range(2):
        bias = getattr(made.layers, f"bias_ih_l{layer}") + getattr(made.layers, f"bias_hh_l{layer}")
        assert bias[10:20].tolist() == [1.0] * 10
        assert bias.abs().max() <= 1.0


def test_a_tied_network_reads_and_writes_with_one_matrix() -> None:
    made = network(embedding=10, tied=True)

    assert made.decoder is None
    assert (
        sum(one.numel() for one in made.parameters())
        == sum(one.numel() for one in network(embedding=10).parameters()) - 20 * 10
    )
    hidden = made.nothing_read(1, device=torch.device("cpu"))
    scores, after = made(torch.tensor([[4]]), hidden)
    torch.testing.assert_close(scores[0, 0], functional.linear(after[0, -1, 0], made.embedding.weight, made.bias))


def test_weights_of_two_shapes_cannot_be_tied() -> None:
    with pytest.raises(ValueError, match=r"model\.tied needs model\.embedding \(200\) to equal model\.hidden \(300\)"):
        RnnLmConfig.model_validate({"model": {"tied": True, "hidden": 300}})


def test_a_text_is_scored_token_by_token() -> None:
    yard = language_model()
    text = "the mat"
    ids = yard.handler.vocabulary.encode(text)
    start = yard.handler.vocabulary.ids["\n"]
    made = yard.module.network
    scores, _ = made(torch.tensor([[start, *ids[:-1]]]), made.nothing_read(1, device=torch.device("cpu")))
    wanted = float(scores[0].log_softmax(-1)[range(len(ids)), ids].sum().detach())

    answer = yard.one(op="score", text=text)

    assert answer["score"] == pytest.approx(wanted, rel=1e-5)
    assert answer["tokens"] == 7
    assert answer["perplexity"] == pytest.approx(math.exp(-wanted / 7), rel=1e-5)
    assert answer["bits_per_character"] == pytest.approx(-wanted / math.log(2) / 7, rel=1e-5)


def test_unknown_letters_are_counted() -> None:
    assert language_model().one(op="score", text="xyz cat")["unknown"] == 3


def test_the_same_seed_writes_the_same_text_whatever_is_asked_beside_it() -> None:
    yard = language_model()
    alone = yard.one(text="the ", max_tokens=30, seed=7)

    beside = yard.ask({"op": "score", "text": "cat"}, {"prompt": "the ", "max_tokens": 30, "seed": 7}, {"text": 3})[1]
    other = yard.one(text="the ", max_tokens=30, seed=8)

    assert beside == alone
    assert other["text"] != alone["text"]
    assert alone["tokens"] == len(alone["text"]) == 30


def test_what_is_written_is_scored_as_it_would_be_asked() -> None:
    yard = language_model()
    prompt = "the cat"
    written = yard.one(text=prompt, max_tokens=12, temperature=1.5, seed=1)

    whole, first = (yard.one(op="score", text=text)["score"] for text in (prompt + written["text"], prompt))

    assert written["score"] == pytest.approx(whole - first, rel=1e-4)


def test_no_special_token_is_ever_written() -> None:
    yard = language_model()
    yard.module.network.bias.data[:4] = 50

    answer = yard.one(max_tokens=50)

    assert len(answer["text"]) == 50
    assert "<" not in answer["text"]


def test_parameters_hold_for_all_instances_and_fields_go_over_them() -> None:
    yard = language_model()

    one, two = yard.ask({"text": "the"}, {"text": "the", "max_tokens": 3}, max_tokens=5, temperature=0)

    assert (one["tokens"], two["tokens"]) == (5, 3)
    assert one["text"].startswith(two["text"])


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({"text": 3}, "text must be a text, not 3"),
        ({"op": "score"}, "text is missing"),
        ({"op": "score", "text": " \n"}, "text is empty"),
        ({"op": "score", "text": "cat", "seed": 1}, "seed has no effect on op score"),
        ({"op": "sing", "text": "cat"}, "op must be generate or score"),
        ({"text": "cat", "prompt": "cat"}, "give text or prompt, not both"),
        ({"text": "a" * 8001}, "8001 characters; at most 8000"),
        ({"text": "\ud800"}, "lone surrogate"),
        ({"max_tokens": 0}, "max_tokens must be a whole number from 1 to 2000"),
        ({"max_tokens": 1e9}, "max_tokens must be"),
        ({"seed": -1}, "seed must be"),
        ({"image": None}, "unknown parameter 'image'"),
        ({"temperature": "hot"}, "temperature must be a number"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_its_field(wish: dict[str, Any], said: str) -> None:
    assert said in language_model().refusal(**wish)


def test_scores_that_are_not_finite_are_no_text() -> None:
    yard = language_model()
    yard.module.network.bias.data[5] = math.nan

    assert "not finite" in yard.refusal(text="the")


def test_the_gate_lets_rounding_pass_and_another_text_not() -> None:
    handler = language_model().handler
    answer = {"text": "cat", "tokens": 3, "score": -6.0}

    assert handler.compare(answer, {**answer, "score": -6.01}).passed
    assert not handler.compare(answer, {**answer, "score": -7.0}).passed
    assert not handler.compare(answer, {**answer, "text": "car"}).passed


def test_long_requests_weigh_more_and_hostile_ones_do_not_break_the_scales() -> None:
    handler = language_model().handler
    from workers.families.base import Instance

    def weight(**fields: Any) -> int:
        return handler.weigh(Instance(None, fields, {}))

    assert weight(text="a" * 100, max_tokens=50) == 50 * 150
    assert weight(text=3, max_tokens="?") == 0
    assert weight() == 50 * 200
