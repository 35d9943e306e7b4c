"""From text to token ids and back: the most frequent tokens of the training text, four special ones before them.

The vocabulary is a constant of the bundle, so that what serves cuts a text as training did. Torch-free.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from workers.families.text.config import VocabConfig

PAD, UNK, BOS, EOS = range(4)
SPECIALS = ("<pad>", "<unk>", "<bos>", "<eos>")

# Words with what an apostrophe joins, ends of lines, and every other mark by itself.
_WORD = re.compile(r"\n|\w+(?:['\u2019]\w+)*|[^\w\s]")
_NO_SPACE_BEFORE = frozenset(".,;:!?)]}%\n")
_NO_SPACE_AFTER = frozenset("([{\n")


@dataclass(frozen=True)
class Vocabulary:
    """Tokens by id; the first four are special."""

    tokeniser: str
    lowercase: bool
    tokens: tuple[str, ...]
    ids: Mapping[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", {token: n for n, token in enumerate(self.tokens) if n >= len(SPECIALS)})

    @classmethod
    def of(cls, texts: Iterable[str], config: VocabConfig) -> Vocabulary:
        """Count the tokens of the training texts and keep the most frequent; of equally many the first in order."""
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(_cut(text, config.tokeniser, lowercase=config.lowercase))
        ranked = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
        kept = [token for token, count in ranked if count >= config.min_count][: config.size - len(SPECIALS)]
        return cls(config.tokeniser, config.lowercase, (*SPECIALS, *kept))

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Vocabulary:
        tokens = tuple(map(str, document["tokens"]))
        return cls(str(document["tokeniser"]), bool(document["lowercase"]), (*SPECIALS, *tokens))

    def to_json(self) -> dict[str, Any]:
        own = list(self.tokens[len(SPECIALS) :])
        return {"tokeniser": self.tokeniser, "lowercase": self.lowercase, "tokens": own}

    def __len__(self) -> int:
        return len(self.tokens)

    def cut(self, text: str) -> list[str]:
        """Return the tokens of a text, known or not."""
        return _cut(text, self.tokeniser, lowercase=self.lowercase)

    def encode(self, text: str) -> list[int]:
        return [self.ids.get(token, UNK) for token in self.cut(text)]

    def decode(self, ids: Sequence[int]) -> str:
        """Return a text that reads well; words come back with the spaces that are usual around them."""
        tokens = [self.tokens[n] for n in ids if n not in (PAD, BOS, EOS)]
        if self.tokeniser == "char":
            return "".join(tokens)
        pieces: list[str] = []
        for before, token in zip(["\n", *tokens], tokens, strict=False):
            is_close = token in _NO_SPACE_BEFORE or before in _NO_SPACE_AFTER
            pieces.append(token if is_close else f" {token}")
        return "".join(pieces)


def _cut(text: str, tokeniser: str, *, lowercase: bool) -> list[str]:
    if lowercase:
        text = text.lower()
    return list(text) if tokeniser == "char" else _WORD.findall(text)
