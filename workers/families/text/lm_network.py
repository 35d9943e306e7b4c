"""The recurrent language model: as it is trained, over many tokens, and as it is served, one token at a time.

The layout is that of pytorch/examples `word_language_model` (77f55b9): embedding, dropout, recurrent layers, dropout,
a linear layer over the vocabulary. Forget gates start open, with a bias of 1 (Jozefowicz et al. 2015, section 5).
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional

from workers.families.precision import full_precision
from workers.families.text.config import LmModel
from workers.families.text.rows import DIGITS, from_digits

_CELLS: dict[str, type[nn.RNN | nn.LSTM | nn.GRU]] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
_INITIAL = 0.1


class LanguageModel(nn.Module):
    """Tokens (N, T) and what was read before in; scores (N, T, V) of each next token out, and what is read now.

    What was read is one tensor (K, layers, N, hidden): of an LSTM both its states, of other cells their one.
    """

    def __init__(self, model: LmModel, num_tokens: int) -> None:
        super().__init__()
        self.model = model
        self.embedding = nn.Embedding(num_tokens, model.embedding)
        self.dropout = nn.Dropout(model.dropout)
        between = model.dropout if model.layers > 1 else 0.0
        cell = _CELLS[model.cell]
        self.layers = cell(model.embedding, model.hidden, model.layers, batch_first=True, dropout=between)
        self.bias = nn.Parameter(torch.zeros(num_tokens))
        # A tied network writes with the weights it reads with.
        self.decoder = None if model.tied else nn.Parameter(torch.empty(num_tokens, model.hidden))
        self._initialise()

    def forward(self, tokens: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        read = self.dropout(self.embedding(tokens))
        parts = hidden.to(read.dtype).unbind(0)
        # oneDNN has no LSTM of mixed types, which is what autocast makes of it on a processor.
        with full_precision(read.device) if read.device.type == "cpu" else nullcontext():
            found, after = self.layers(read, parts if len(parts) > 1 else parts[0])
        weight = self.embedding.weight if self.decoder is None else self.decoder
        scores = functional.linear(self.dropout(found), weight, self.bias)
        return scores, torch.stack(after) if isinstance(after, tuple) else after[None]

    def nothing_read(self, count: int, *, device: torch.device) -> Tensor:
        """Return what stands before the first token of `count` texts."""
        return torch.zeros(num_states(self.model), self.model.layers, count, self.model.hidden, device=device)

    @torch.no_grad()
    def _initialise(self) -> None:
        for weight in (self.embedding.weight, self.decoder):
            if weight is not None:
                nn.init.uniform_(weight, -_INITIAL, _INITIAL)
        if self.model.cell != "lstm":
            return
        size = self.model.hidden
        for layer in range(self.model.layers):
            # PyTorch adds two biases; the gates come in the order input, forget, cell, output.
            getattr(self.layers, f"bias_ih_l{layer}")[size : 2 * size] = 1.0
            getattr(self.layers, f"bias_hh_l{layer}")[size : 2 * size] = 0.0


class Step(nn.Module):
    """One token more: a row of its id and of what was read before in, (scores, what is read now) out, a row each."""

    def __init__(self, network: LanguageModel) -> None:
        super().__init__()
        self.network = network

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        model = self.network.model
        token, state = from_digits(rows[:, :DIGITS]), rows[:, DIGITS:]
        hidden = state.reshape(-1, num_states(model), model.layers, model.hidden).permute(1, 2, 0, 3).contiguous()
        scores, after = self.network(token, hidden)
        return scores[:, 0], after.permute(2, 0, 1, 3).flatten(1)


def num_states(model: LmModel) -> int:
    return 2 if model.cell == "lstm" else 1


def row_size(model: LmModel) -> int:
    """Return how many numbers a row of `Step` has."""
    return DIGITS + num_states(model) * model.layers * model.hidden
