"""Token by token with what is kept, and all at once: the same scores, and no token is read twice."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from tests.builders.text_networks import MAX_TOKENS, transformer
from workers.families.text.config import TransformerModel
from workers.families.text.search import BeamSearch, Found
from workers.families.text.transformer_network import Transformer
from workers.families.text.vocab import BOS, EOS, PAD
from workers.families.text.writing import Writing

SMALL = TransformerModel(width=16, heads=4, feed_forward=32, encoder_layers=2, decoder_layers=2, dropout=0.0)
SOURCES = [[4, 5, 6, 7, EOS], [9, EOS], [8, 8, 10, EOS]]


@pytest.fixture
def network() -> Transformer:
    torch.manual_seed(0)
    return Transformer(SMALL, num_tokens=20, max_tokens=12).eval().requires_grad_(False)


class Again:
    """A writer that keeps no keys and values: it reads all that was written from its beginning, each time."""

    def __init__(self, network: Transformer, sources: Sequence[Sequence[int]]) -> None:
        self._network = network
        self._rows: list[tuple[Sequence[int], tuple[int, ...]]] = [(source, ()) for source in sources]

    def write(self, tokens: Sequence[int], behind: Sequence[int]) -> Tensor:
        self._rows = [
            (self._rows[row][0], (*self._rows[row][1], token)) for token, row in zip(tokens, behind, strict=True)
        ]
        return torch.stack(
            [self._network(torch.tensor([source]), torch.tensor([written]))[0, -1] for source, written in self._rows]
        )


def test_rows_that_branch_and_end_are_scored_as_if_read_from_their_beginning(network: Transformer) -> None:
    writing, again = Writing(network, SOURCES), Again(network, SOURCES)

    calls: list[tuple[list[int], list[int]]] = [
        ([BOS] * 3, [0, 1, 2]),
        ([5, 6, 7, 8, 9], [0, 0, 1, 2, 2]),
        ([10, 11, 12, 13, 14], [1, 0, 2, 4, 3]),
        ([15, 16], [4, 0]),
        ([4, 5, 6], [0, 0, 1]),
    ]

    for tokens, behind in calls:
        torch.testing.assert_close(writing.write(tokens, behind), again.write(tokens, behind))


@pytest.mark.parametrize("beams", [1, 4])
def test_a_search_finds_what_it_finds_without_anything_kept(network: Transformer, beams: int) -> None:
    search, lengths = BeamSearch(12, beams=beams, length_penalty=0.6), list(map(len, SOURCES))

    found, wanted = search(Writing(network, SOURCES), lengths), search(Again(network, SOURCES), lengths)

    assert [one.tokens for one in found] == [one.tokens for one in wanted]
    assert [one.score for one in found] == pytest.approx([one.score for one in wanted], rel=1e-5)
    assert any(one.tokens for one in found)


def test_a_source_is_encoded_once_and_no_token_of_a_hypothesis_is_read_twice(network: Transformer) -> None:
    read: Counter[str] = Counter()

    def count(name: str, module: nn.Module) -> None:
        module.register_forward_hook(lambda _module, given, _result: read.update({name: given[0].shape[:2].numel()}))

    count("source", network.encoder[0].feed_forward)
    count("target", network.decoder[0].feed_forward)

    (found,) = BeamSearch(12, beams=4, length_penalty=0.6)(Writing(network, SOURCES[:1]), [len(SOURCES[0])])

    assert not found.is_whole
    assert len(found.tokens) == 11
    assert read == {"source": len(SOURCES[0]), "target": 1 + 4 * 10}


def test_what_serves_answers_as_the_search(network: Transformer) -> None:
    yard = transformer()
    row = torch.tensor([[2, 0.6, 4, 5, EOS], [4, 0.0, 6, EOS, PAD]], dtype=torch.float64)

    tokens, scores, is_whole = yard.module(row)

    served = yard.module.network
    for place, (beams, penalty, source) in enumerate([(2, 0.6, [4, 5, EOS]), (4, 0.0, [6, EOS])]):
        (wanted,) = BeamSearch(MAX_TOKENS, beams, penalty)(Writing(served, [source]), [len(source)])
        written = tuple(itertools.takewhile(lambda token: token != PAD, tokens[place].tolist()))
        assert Found(written, float(scores[place]), bool(is_whole[place])) == wanted
