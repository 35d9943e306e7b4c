"""The Transformer of Vaswani et al. 2017 (arXiv:1706.03762): encoder and decoder, norms after each sublayer.

Sections of the paper: 3.2 attention without biases in its projections, as in the reference code; 3.3 feed-forward
layers; 3.4 one matrix that embeds both texts and, transposed, scores the tokens that follow; 3.5 positions; 5.4 dropout.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from workers.families.text.config import TransformerModel
from workers.families.text.rows import DIGITS, from_digits
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
        mask = _seen(source)
        x = self._embed(source)
        for layer in self.encoder:
            x = layer(x, mask)
        return x

    def decode(self, source: Tensor, memory: Tensor, target: Tensor) -> Tensor:
        mask = _seen(source)
        x = self._embed(target)
        for layer in self.decoder:
            x = layer(x, memory, mask)
        return x

    def scores(self, decoded: Tensor) -> Tensor:
        return functional.linear(decoded, self.embedding.weight)

    def _embed(self, tokens: Tensor) -> Tensor:
        scaled = self.embedding(tokens) * math.sqrt(self.embedding.embedding_dim)
        embedded: Tensor = self.dropout(scaled + self.places[: tokens.shape[1]])
        return embedded

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        # Scaled by the root of the width, embeddings are as large as positions.
        nn.init.normal_(self.embedding.weight, std=self.embedding.embedding_dim**-0.5)


class Next(nn.Module):
    """What serves: a row of the source's and the target's ids in, scores (N, V) of the next token out.

    Rows have one length; the next token is the one after the last that is no padding.
    """

    def __init__(self, network: Transformer, *, max_tokens: int) -> None:
        super().__init__()
        self.network = network
        self.max_tokens = max_tokens

    def forward(self, rows: Tensor) -> Tensor:
        source, target = torch.split(from_digits(rows), self.max_tokens, dim=1)
        decoded = self.network.decode(source, self.network.encode(source), target)
        last = (target != PAD).sum(1, keepdim=True).clamp(min=1) - 1
        place = last[:, :, None].expand(-1, -1, decoded.shape[2])
        scores: Tensor = self.network.scores(decoded.gather(1, place)[:, 0])
        return scores


class Attention(nn.Module):
    """Section 3.2.2: heads that look at other tokens each by itself."""

    def __init__(self, model: TransformerModel) -> None:
        super().__init__()
        self.heads = model.heads
        self.query, self.key, self.value, self.output = (
            nn.Linear(model.width, model.width, bias=False) for _ in range(4)
        )

    def forward(self, x: Tensor, seen: Tensor, mask: Tensor | None, *, is_causal: bool = False) -> Tensor:
        query, key, value = self._split(self.query(x)), self._split(self.key(seen)), self._split(self.value(seen))
        found = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=is_causal)
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
        x = self.norms[0](x + self.dropout(self.attention(x, x, None, is_causal=True)))
        x = self.norms[1](x + self.dropout(self.to_source(x, memory, mask)))
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


def _seen(source: Tensor) -> Tensor:
    """Return which tokens of a source may be looked at (N, 1, 1, S): all but padding."""
    return (source != PAD)[:, None, None, :]


def row_size(max_tokens: int) -> int:
    """Return how many numbers a row of `Next` has."""
    return 2 * max_tokens * DIGITS
