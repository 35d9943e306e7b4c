from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import pytest
import torch

from services.datasets.importer import import_folder
from services.datasets.limits import ImportLimits
from tests.builders.datasets import write_files
from workers.families.base import Placement
from workers.families.supervised import in_eval_mode
from workers.families.text.config import RnnLmConfig
from workers.families.text.lm_data import cross_entropy
from workers.families.text.rnn_lm import RnnLm

CPU = Placement(torch.device("cpu"), None, torch.contiguous_format)
TEXT = "the cat sat on the mat and the dog sat on the log, one by one by one\n" * 6
HELD_OUT = "the dog sat on the mat\n"


@pytest.fixture
def recipe(tmp_path: Path) -> RnnLm:
    stored = tmp_path / "canonical"
    stored.mkdir()
    folder = write_files(tmp_path / "in", {"train.txt": TEXT.encode(), "val.txt": HELD_OUT.encode()})
    import_folder(folder, stored, source_format=None, limits=ImportLimits())
    config = {"data": {"batch_size": 3, "bptt": 16}, "model": {"embedding": 8, "hidden": 8, "dropout": 0.0}}
    return RnnLm(RnnLmConfig.model_validate({**config, "vocab": {"tokeniser": "char"}}), stored)


def test_a_step_reads_on_from_where_the_one_before_it_ended(recipe: RnnLm) -> None:
    source, state = recipe.train_batches(), recipe.build(CPU)
    first, second = source.batch(0), source.batch(1)
    network = state.modules["network"]
    _, wanted = network(first.tokens, network.nothing_read(3, device=torch.device("cpu")))

    recipe.train_step(state, first, CPU)

    assert torch.equal(state.tensors["hidden"], wanted.detach())
    state.step += 1
    scores, _ = network(second.tokens, wanted.detach())
    expected = float(cross_entropy(scores, second.targets).detach())
    assert float(recipe.train_step(state, second, CPU)["train/loss"]) == pytest.approx(expected, rel=1e-6)


def test_the_text_begins_anew_with_nothing_read(recipe: RnnLm) -> None:
    source, state = recipe.train_batches(), recipe.build(CPU)
    state.tensors["hidden"].fill_(5.0)
    first = source.batch(source.steps_per_epoch)
    network = state.modules["network"]
    scores, _ = network(first.tokens, network.nothing_read(3, device=torch.device("cpu")))
    expected = float(cross_entropy(scores, first.targets).detach())

    assert float(recipe.train_step(state, first, CPU)["train/loss"]) == pytest.approx(expected, rel=1e-6)


def test_a_network_that_knows_frequencies_alone_has_their_entropy_in_bits(recipe: RnnLm) -> None:
    state = recipe.build(CPU)
    network = state.modules["network"]
    counts = Counter(HELD_OUT[1:])
    with torch.no_grad():
        network.decoder.zero_()
        network.bias.fill_(-50.0)
        for letter, count in counts.items():
            network.bias[recipe.vocabulary.ids[letter]] = math.log(count)
    total = sum(counts.values())
    entropy = -sum(count / total * math.log2(count / total) for count in counts.values())

    figures = recipe.evaluate(state, CPU)

    assert figures["eval/bits_per_character"] == pytest.approx(entropy, rel=1e-5)
    assert figures["eval/perplexity"] == pytest.approx(2**entropy, rel=1e-5)
    assert figures["eval/unknown"] == 0.0


def test_many_unknown_words_are_told_before_the_first_step(recipe: RnnLm) -> None:
    assert recipe.notices() == []
    recipe._held_out_tokens[:3] = 1

    assert "of the held-out tokens are not in the vocabulary" in recipe.notices()[0]


def test_what_is_gone_on_from_begins_and_ends_with_whole_words(recipe: RnnLm) -> None:
    recipe._held_out = TEXT

    passages = recipe._passages(4, 20)

    assert len(passages) == 4
    words = set(TEXT.split())
    assert all(word in words for passage in passages for word in passage.split())
    with in_eval_mode(recipe.build(CPU).modules["network"]):
        assert recipe.sample(recipe.build(CPU), CPU)[0].png.startswith(b"\x89PNG")
