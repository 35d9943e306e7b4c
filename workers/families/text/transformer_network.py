"""The Transformer of Vaswani et al. 2017 (arXiv:1706.03762): encoder and decoder, norms after each sublayer.

Sections of the paper: 3.2 attention without biases in its projections, as in the reference code; 3.3 feed-forward
layers; 3.4 one matrix that embeds both texts and, transposed, scores the tokens that follow; 3.5 positions; 5.4 dropout.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from workers.families.text.config import TransformerModel
from workers.families.text.vocab import PAD

_EPS = 1e-6
_LONGEST_WAVE = 10_000.0


class Transformer(nn.Module):
    """Source (N, S) and the target so far (N, T) in, padded at the end; scores (N, T, V) of each next token out."""

    def __init__(self, model: TransformerModel, *, num_tokens: int, max_tokens: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_tokens, model.width)
        self.encoder = nn.ModuleList(EncoderLayer(model) for _ in range(model.encoder_layers))
        self.decoder = nn.ModuleList(DecoderLayer(model) for _ in range(model.decoder_layers))
        self.dropout = nn.Dropout(model.dropout)
        self.register_buffer("places", positions(max_tokens, model.width), persistent=False)
        self.places: Tensor
        self._initialise()

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        return self.scores(self.decode(source, self.encode(source), target))

    def encode(self, source: Tensor) -> Tensor:
        mask = not_padding(source)
        x = self._embed(source)
        for layer in self.encoder:
            x = layer(x, mask)
        return x

    def decode(self, source: Tensor, memory: Tensor, target: Tensor) -> Tensor:
        mask = not_padding(source)
        x = self._embed(target)
        for layer in self.decoder:
            x = layer(x, memory, mask)
        return x

    def look_at_source(self, source: Tensor) -> list[KeysAndValues]:
        """Encode a source (N, S) and return what each layer of the decoder will look at, token after token."""
        memory = self.encode(source)
        return [layer.to_source.keys_and_values(memory) for layer in self._decoder_layers]

    def step(
        self,
        tokens: Tensor,
        place: int,
        *,
        before: Sequence[KeysAndValues | None],
        sources: Sequence[KeysAndValues],
        mask: Tensor,
    ) -> tuple[Tensor, list[KeysAndValues]]:
        """Read the tokens (N,) at one place of targets.

        Returns the scores (N, V) of the next tokens, and what each layer looked at, which is `before` of the next step;
        at place 0 that is None a layer. `sources` are those of `look_at_source`, `mask` of `not_padding`.
        """
        x = self._embed(tokens[:, None], first=place)
        after = []
        for layer, seen, source in zip(self._decoder_layers, before, sources, strict=True):
            x, now = layer.step(x, seen, source, mask)
            after.append(now)
        return self.scores(x[:, 0]), after

    def scores(self, decoded: Tensor) -> Tensor:
        return functional.linear(decoded, self.embedding.weight)

    @property
    def _decoder_layers(self) -> list[DecoderLayer]:
        return [layer for layer in self.decoder if isinstance(layer, DecoderLayer)]

    def _embed(self, tokens: Tensor, *, first: int = 0) -> Tensor:
        scaled = self.embedding(tokens) * math.sqrt(self.embedding.embedding_dim)
        embedded: Tensor = self.dropout(scaled + self.places[first : first + tokens.shape[1]])
        return embedded

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        # Scaled by the root of the width, embeddings are as large as positions.
        nn.init.normal_(self.embedding.weight, std=self.embedding.embedding_dim**-0.5)


class KeysAndValues(NamedTuple):
    """What attention looks at: keys and values (N, heads, L, width of a head) of L tokens."""

    keys: Tensor
    values: Tensor

    def rows(self, which: Tensor) -> KeysAndValues:
        return KeysAndValues(self.keys[which], self.values[which])

    def followed_by(self, later: KeysAndValues) -> KeysAndValues:
        return KeysAndValues(torch.cat([self.keys, later.keys], 2), torch.cat([self.values, later.values], 2))


class Attention(nn.Module):
    """Section 3.2.2: heads that look at other tokens each by itself."""

    def __init__(self, model: TransformerModel) -> None:
        super().__init__()
        self.heads = model.heads
        self.query, self.key, self.value, self.output = (
            nn.Linear(model.width, model.width, bias=False) for _ in range(4)
        )

    def forward(self, x: Tensor, seen: Tensor, mask: Tensor | None, *, is_causal: bool = False) -> Tensor:
        return self.look(x, self.keys_and_values(seen), mask, is_causal=is_causal)

    def keys_and_values(self, seen: Tensor) -> KeysAndValues:
        return KeysAndValues(self._split(self.key(seen)), self._split(self.value(seen)))

    def look(self, x: Tensor, seen: KeysAndValues, mask: Tensor | None, *, is_causal: bool = False) -> Tensor:
        query = self._split(self.query(x))
        found = functional.scaled_dot_product_attention(query, *seen, attn_mask=mask, is_causal=is_causal)
        joined: Tensor = self.output(found.transpose(1, 2).flatten(2))
        return joined

    def _split(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)


class EncoderLayer(nn.Module):
    """Section 3.1: attention to the whole source, then a feed-forward layer."""

    def __init__(self, model: TransformerModel) -> None:
        super().__init__()
        self.attention, self.feed_forward = Attention(model), feed_forward(model)
        self.norms = nn.ModuleList(nn.LayerNorm(model.width, eps=_EPS) for _ in range(2))
        self.dropout = nn.Dropout(model.dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.norms[0](x + self.dropout(self.attention(x, x, mask)))
        result: Tensor = self.norms[1](x + self.dropout(self.feed_forward(x)))
        return result


class DecoderLayer(nn.Module):
    """Section 3.1: attention to the target so far, to the source, then a feed-forward layer."""

    def __init__(self, model: TransformerModel) -> None:
        super().__init__()
        self.attention, self.to_source = Attention(model), Attention(model)
        self.feed_forward = feed_forward(model)
        self.norms = nn.ModuleList(nn.LayerNorm(model.width, eps=_EPS) for _ in range(3))
        self.dropout = nn.Dropout(model.dropout)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        # Padding is at the end, where the causal mask hides it from all that counts.
        found = self.attention(x, x, None, is_causal=True)
        return self._after(x, found, self.to_source.keys_and_values(memory), mask)

    def step(
        self, x: Tensor, before: KeysAndValues | None, source: KeysAndValues, mask: Tensor
    ) -> tuple[Tensor, KeysAndValues]:
        """Read one token more of each row (N, 1, width); return it with what the next one will look at."""
        own = self.attention.keys_and_values(x)
        seen = own if before is None else before.followed_by(own)
        return self._after(x, self.attention.look(x, seen, None), source, mask), seen

    def _after(self, x: Tensor, found: Tensor, source: KeysAndValues, mask: Tensor) -> Tensor:
        """Return what the layer makes of `x` and of what its attention to the target found."""
        x = self.norms[0](x + self.dropout(found))
        x = self.norms[1](x + self.dropout(self.to_source.look(x, source, mask)))
        result: Tensor = self.norms[2](x + self.dropout(self.feed_forward(x)))
        return result


def feed_forward(model: TransformerModel) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(model.width, model.feed_forward), nn.ReLU(), nn.Linear(model.feed_forward, model.width)
    )


def positions(count: int, width: int) -> Tensor:
    """Return section 3.5's waves (count, width): sines at even places, cosines of the same wave at the odd one behind."""
    frequencies = _LONGEST_WAVE ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angles = torch.arange(count, dtype=torch.float64)[:, None] * frequencies
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1).float()


def not_padding(source: Tensor) -> Tensor:
    """Return which tokens of a source (N, S) may be looked at, as a mask (N, 1, 1, S)."""
    return (source != PAD)[:, None, None, :]
