"""The default decoder, a word at a time and quick: the equations of `attention_gru.py` with packed products.

A search asks for few rows hundreds of times a caption. What depends on the word alone is looked up, weights lie in the
order that the processor likes, and a picture is read where it lies instead of being copied for every caption.

Shapes: N captions, B pictures, R places of the grid, D their features, E embedding, H units, W units of the writer (0
for none), A attention, V vocabulary, C ids that may be written.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from captioner.decoders.base import Run
from captioner.packed import Product, product

if TYPE_CHECKING:
    from captioner.decoders.attention_gru import AttentionGRU, Memory, Writer


class AttentionGRUSteps:
    """What `step` multiplies by, of a decoder whose weights do not change any more."""

    @torch.no_grad()
    def __init__(self, decoder: "AttentionGRU", writer: "Writer | None", shortlist: Tensor | None) -> None:
        from_word, from_state, word_bias, state_bias = decoder.gru.all_weights[0]
        embedding, listed = decoder.embedding.weight, slice(None) if shortlist is None else shortlist
        self.units = decoder.config.units
        self.words = F.linear(embedding, from_word, word_bias)  # (V, 3H): every word's part of the gates
        self.first = product(decoder.first.weight, decoder.first.bias)
        self.key = _without_bias(decoder.key.weight)
        self.value = product(decoder.value.weight, decoder.value.bias)
        self.state = product(from_state, state_bias)
        self.query = product(decoder.query.weight, decoder.query.bias)
        self.energy = _without_bias(decoder.energy.weight)
        self.merge = product(decoder.merge.weight, decoder.merge.bias)
        self.output = product(embedding[listed], decoder.bias[listed])
        self.writer = WriterSteps(writer) if writer else None

    def begin(self, grid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """A grid (B, R, D) to keys (B, R, A), values (B, R, E) and the first state (B, H + W)."""
        places, seen = grid.flatten(0, 1), grid.mean(1)
        keys, values = (part(places).view(*grid.shape[:2], -1) for part in (self.key, self.value))
        first = [self.first(seen)] if self.writer is None else [self.first(seen), self.writer.first(seen)]
        return keys, values, torch.cat(first, -1).tanh_()

    def step(self, tokens: Tensor, state: Tensor, memory: "Memory", runs: Sequence[Run]) -> tuple[Tensor, Tensor]:
        """Tokens (N,) and states (N, H + W) to the logits (N, C) of what follows, and the new states."""
        written, context, state = self._stepped(tokens, state, memory, runs)
        return self.output(self.merge(written).add_(context).tanh_()), state

    def read(self, tokens: Tensor, state: Tensor, memory: "Memory", runs: Sequence[Run]) -> Tensor:
        """The new states alone."""
        return self._advance(tokens, state) if self.writer is None else self._stepped(tokens, state, memory, runs)[-1]

    def _stepped(self, tokens: Tensor, state: Tensor, memory: "Memory", runs: Sequence[Run]) -> tuple[Tensor, ...]:
        """What is written from, (N, H or W) and (N, E), and the new states (N, H + W)."""
        reading = self._advance(tokens, state[:, : self.units])
        context = self._looked(reading, memory, runs)
        if self.writer is None:
            return reading, context, reading
        writing, context = self.writer.step(state[:, self.units :], reading, context)
        return writing, context, torch.cat([reading, writing], -1)

    def _advance(self, tokens: Tensor, state: Tensor) -> Tensor:
        """States (N, H) after reading the tokens (N,)."""
        return _gated(self.words[tokens], self.state(state), state)

    def _looked(self, state: Tensor, memory: "Memory", runs: Sequence[Run]) -> Tensor:
        """The contexts (N, E) of the reader's states (N, H)."""
        query = self.query(state).unsqueeze(1)  # (N, 1, A)
        compared = query.new_empty(len(state), *memory.keys.shape[1:])  # (N, R, A)
        for picture, rows in runs:  # a picture is read where it lies: a copy for every caption costs more than the sum
            torch.add(query[rows], memory.keys[picture], out=compared[rows])
        weights = self.energy(compared.tanh_().flatten(0, 1)).view(len(state), -1).softmax(-1)  # (N, R)
        return torch.cat([weights[rows] @ memory.values[picture] for picture, rows in runs])


class WriterSteps:
    """As `AttentionGRUSteps`, of the second GRU."""

    def __init__(self, writer: "Writer") -> None:
        into, state, into_bias, state_bias = writer.gru.all_weights[0]
        self.first = product(writer.first.weight, writer.first.bias)
        self.heard = product(writer.heard.weight, writer.heard.bias)
        self.recalled = product(writer.recalled.weight, writer.recalled.bias)
        self.into, self.state = product(into, into_bias), product(state, state_bias)

    def step(self, written: Tensor, state: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """One step of N captions: the writer's states (N, W), the reader's (N, H) and contexts (N, E)."""
        heard = torch.cat([self.heard(state), context], -1)
        return _gated(self.into(heard), self.state(written), written), self.recalled(state).add_(context)


def _without_bias(weight: Tensor) -> Product:
    return product(weight, weight.new_zeros(len(weight)))


def _gated(entering: Tensor, hidden: Tensor, state: Tensor) -> Tensor:
    """A GRU's states (N, H) after a step, from the words' and the states' parts of the gates, (N, 3H) each."""
    size = state.shape[1]
    # The logistic function by way of tanh: on AMD's processors sigmoid rounds the last numbers of a tensor otherwise.
    gates = (entering[:, : 2 * size] + hidden[:, : 2 * size]).mul_(0.5).tanh_().mul_(0.5).add_(0.5)
    reset, update = gates.chunk(2, -1)
    fresh = torch.addcmul(entering[:, 2 * size :], reset, hidden[:, 2 * size :]).tanh_()
    return torch.lerp(fresh, state, update)
