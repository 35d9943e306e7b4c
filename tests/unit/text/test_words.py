from __future__ import annotations

from typing import Any

import pytest
import torch

from services.core.errors import DatasetInvalid
from tests.builders.text_networks import WORDS, word_vectors
from workers.families.base import Instance, InstanceInvalid, Placement
from workers.families.text.config import VocabConfig, Word2VecConfig, Word2VecData
from workers.families.text.vocab import Vocabulary
from workers.families.text.word2vec import _loss
from workers.families.text.words_data import PairDraws, Pairs, WordStream, frequencies_of, kept_shares
from workers.families.text.words_network import WordVectors

CPU = Placement(torch.device("cpu"), None, torch.contiguous_format)
PLANE = [[1.0, 3, 0], [-1, 3, 0], [1, 1, 0], [-1, 1, 0], [1, 0, 2], [-1, 0, 2]]
"""Of king, queen, man, woman, boy and girl: gender, rank, youth."""


def draws(text: str, count: int = 4000, **data: Any) -> tuple[Pairs, Vocabulary]:
    vocabulary = Vocabulary.of([text], VocabConfig())
    stream = WordStream(text, vocabulary, split="train")
    config = Word2VecData.model_validate({"subsampling": 0, **data})
    source = PairDraws(stream, frequencies_of(stream, len(vocabulary)), data=config, batch_size=count, seed=0)
    return source.batch(0), vocabulary


def test_neighbours_stand_within_the_window_and_in_the_same_line() -> None:
    pairs, vocabulary = draws("a b c d e\nf g h i j", window=2)

    found = {
        (vocabulary.tokens[word], vocabulary.tokens[other])
        for word, other, is_one in zip(pairs.words, pairs.neighbours, pairs.counts, strict=True)
        if is_one
    }

    lines = ("abcde", "fghij")
    assert found == {
        (line[one], line[other])
        for line in lines
        for one in range(5)
        for other in range(5)
        if 0 < abs(one - other) <= 2
    }


def test_near_neighbours_come_more_often_than_far_ones() -> None:
    pairs, vocabulary = draws("a b c d e f g h i", window=3)
    middle = pairs.neighbours[(pairs.words == vocabulary.ids["e"]) & pairs.counts]
    counts = {letter: int((middle == vocabulary.ids[letter]).sum()) for letter in "bcdfgh"}

    # A reach of 1, 2 or 3, each as likely: the next word is in all of them.
    assert counts["d"] > 1.5 * counts["c"] > 2.0 * counts["b"]


def test_noise_is_drawn_by_the_frequency_to_its_power() -> None:
    pairs, vocabulary = draws("a " * 16 + "b", noise_power=0.5)

    share = float((pairs.noise == vocabulary.ids["a"]).float().mean())

    assert share == pytest.approx(4 / 5, abs=0.02)
    assert int(pairs.noise.min()) >= 4


def test_frequent_words_are_passed_over() -> None:
    text = "\n".join(["the the the the the the the the rare"] * 30)
    plain, vocabulary = draws(text, count=20_000)
    thinned, _ = draws(text, count=20_000, subsampling=0.1)

    def share(pairs: Pairs) -> float:
        return float((pairs.words == vocabulary.ids["the"]).float().mean())

    assert share(plain) == pytest.approx(8 / 9, abs=0.02)
    kept = (0.1 / (8 / 9)) ** 0.5
    rest = (0.1 / (1 / 9)) ** 0.5
    assert share(thinned) == pytest.approx(8 * kept / (8 * kept + rest), abs=0.02)
    assert kept_shares(torch.tensor([0.4, 0.05]), 0.1).tolist() == pytest.approx([0.5, 1.0])


def test_a_step_always_draws_the_same_pairs() -> None:
    one, other = (draws("a b c d e\nf g h", count=50)[0] for _ in range(2))

    assert torch.equal(one.words, other.words)
    assert torch.equal(one.noise, other.noise)


def test_a_text_without_two_words_in_a_line_is_refused() -> None:
    with pytest.raises(DatasetInvalid, match="has two words that are known"):
        draws("a\nb\n\nc")


def test_the_loss_is_that_of_negative_sampling() -> None:
    torch.manual_seed(0)
    network = WordVectors(8, 4).requires_grad_(False)
    torch.nn.init.normal_(network.neighbours.weight)
    pairs = Pairs(
        torch.tensor([4, 5]), torch.tensor([6, 7]), torch.tensor([[4, 5], [6, 4]]), torch.tensor([True, False])
    )
    word, neighbours = network.words.weight[4], network.neighbours.weight
    wanted = -(neighbours[6] @ word).sigmoid().log() - sum((-(neighbours[n] @ word)).sigmoid().log() for n in (4, 5))

    assert float(_loss(network, pairs, CPU)) == pytest.approx(float(wanted), rel=1e-5)


def test_the_nearest_words_are_those_of_the_largest_cosines() -> None:
    answer = word_vectors(PLANE).one(text="Man", n=2)

    cosine = torch.nn.functional.cosine_similarity(torch.tensor(PLANE), torch.tensor(PLANE[2]), dim=1)
    best = [WORDS.split()[n] for n in cosine.argsort(descending=True)[1:3]]
    assert [one["word"] for one in answer["nearest"]] == best
    assert answer["nearest"][0]["score"] == pytest.approx(float(cosine.sort(descending=True).values[1]), abs=1e-5)


def test_a_vector_is_what_was_trained() -> None:
    assert word_vectors(PLANE).one(text="boy", op="vector")["vector"] == pytest.approx(PLANE[4])


@pytest.mark.parametrize("wish", [{"a": "man", "b": "king", "c": "woman"}, {"text": "man king woman"}])
def test_an_analogy_is_answered_by_none_of_its_own_words(wish: dict[str, str]) -> None:
    answer = word_vectors(PLANE).one(op="analogy", n=100, **wish)

    words = [one["word"] for one in answer["nearest"]]
    assert words[0] == "queen"
    assert sorted(words) == ["boy", "girl", "queen"]


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({"text": "zebra"}, "the word 'zebra' is not in this model's vocabulary"),
        ({"text": "king queen"}, "text must be one word"),
        ({"text": ""}, "text is empty"),
        ({}, "text is missing"),
        ({"text": "king", "a": "man"}, "a has no effect on op nearest"),
        ({"op": "analogy", "text": "king queen"}, "text has 2 words"),
        ({"op": "analogy", "a": "king", "b": "queen"}, "c is missing"),
        ({"op": "analogy", "text": "a b c", "a": "king"}, "give text or a, not both"),
        ({"text": "king", "n": 101}, "n must be a whole number from 1 to 100"),
        ({"text": "<pad>"}, "text must be one word"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_its_field(wish: dict[str, Any], said: str) -> None:
    assert said in word_vectors(PLANE).refusal(**wish)


def test_an_image_is_refused() -> None:
    yard = word_vectors(PLANE)

    (answer,) = yard.handler.predict([Instance(b"\x89PNG", {}, {})], yard.network)

    assert isinstance(answer, InstanceInvalid)
    assert "reads text, no image" in str(answer)


def test_the_gate_looks_at_cosines_and_vectors() -> None:
    handler = word_vectors(PLANE).handler
    near = {"nearest": [{"word": "a", "score": 0.9}, {"word": "b", "score": 0.899}]}
    swapped = {"nearest": [{"word": "b", "score": 0.9}, {"word": "a", "score": 0.899}]}

    assert handler.compare(near, swapped).passed
    assert not handler.compare(near, {"nearest": [{"word": "a", "score": 0.9}, {"word": "b", "score": 0.8}]}).passed
    assert not handler.compare(near, {"nearest": near["nearest"][:1]}).passed
    assert handler.compare({"vector": [1.0, 0.0]}, {"vector": [1.0, 0.01]}).passed
    assert not handler.compare({"vector": [1.0, 0.0]}, {"vector": [0.0, 1.0]}).passed


def test_letters_are_no_words() -> None:
    with pytest.raises(ValueError, match=r"vocab\.tokeniser must be 'word'"):
        Word2VecConfig.model_validate({"vocab": {"tokeniser": "char"}})
