"""The default: a GRU that reads the caption so far and attends over the picture's grid before every word.

The attention is additive (Bahdanau, Cho and Bengio 2015; for pictures Xu et al. 2015). The query is the state *after*
the word was read and the context joins before the output (Lu et al. 2017), so no step waits for the attention of
the step before: training runs the GRU once over the whole caption.

With a *writer*, a second GRU hears the states of the first and what they looked at, and its states are what is
written from: a word then knows what the words before it have looked at, and still no step waits.

Shapes: B captions, T tokens, R places of the grid, D their features, E embedding, H units, W units of the writer (0
for none), A attention, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captioner.decoders.base import Decoder, Run
from captioner.packed import Product, product


@dataclass(frozen=True)
class AttentionGRUConfig:
    vocabulary: int
    features: int = 384
    embedding: int = 256
    units: int = 512
    attention: int = 192
    dropout: float = 0.3
    writer: int = 0
    """Units of a second GRU; 0 for none."""


class Memory(NamedTuple):
    """What is computed once a picture: `keys` (B, R, A) to compare the state with, `values` (B, R, E) to average."""

    keys: Tensor
    values: Tensor


class Products(NamedTuple):
    """`words` (V, 3H) holds every word's part of the gates; the others multiply states and what comes of them."""

    words: Tensor
    first: Product
    key: Product
    value: Product
    state: Product
    query: Product
    energy: Product
    merge: Product
    output: Product


class WriterProducts(NamedTuple):
    """As `Products`, of the second GRU."""

    first: Product
    heard: Product
    recalled: Product
    into: Product
    state: Product


class Writer(nn.Module):
    """The second GRU; what the first one's states say to the output themselves joins what they looked at."""

    def __init__(self, config: AttentionGRUConfig, dropout: nn.Dropout) -> None:
        super().__init__()
        c = config
        self.first = nn.Linear(c.features, c.writer)
        self.heard = nn.Linear(c.units, c.embedding)
        self.recalled = nn.Linear(c.units, c.embedding)
        self.gru = nn.GRU(2 * c.embedding, c.writer, batch_first=True)
        self.dropout = dropout  # the decoder's: training changes its rate

    def forward(self, first: Tensor, states: Tensor, contexts: Tensor) -> tuple[Tensor, Tensor]:
        """The first state (B, W), states (B, T, H) and contexts (B, T, E) to what is written from.

        That is a state (B, T, W) and a context (B, T, E) for every word.
        """
        states = self.dropout(states)
        heard = torch.cat([self.heard(states), self.dropout(contexts)], -1)
        written, _ = self.gru(heard, first.unsqueeze(0).contiguous())
        return written, contexts + self.recalled(states)

    def step(self, written: Tensor, state: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """One step of N captions: the writer's states (N, W), the reader's (N, H) and contexts (N, E)."""
        by = self.products
        heard = torch.cat([by.heard(state), context], -1)
        return _gated(by.into(heard), by.state(written), written), by.recalled(state).add_(context)

    @cached_property
    def products(self) -> WriterProducts:
        into, state, into_bias, state_bias = self.gru.all_weights[0]
        with torch.no_grad():
            return WriterProducts(
                product(self.first.weight, self.first.bias),
                product(self.heard.weight, self.heard.bias),
                product(self.recalled.weight, self.recalled.bias),
                product(into, into_bias),
                product(state, state_bias),
            )


class AttentionGRU(Decoder):
    def __init__(self, config: AttentionGRUConfig) -> None:
        super().__init__()
        self.config = c = config
        self.embedding = nn.Embedding(c.vocabulary, c.embedding)  # tied to the output
        self.bias = nn.Parameter(torch.zeros(c.vocabulary))
        self.first = nn.Linear(c.features, c.units)
        self.gru = nn.GRU(c.embedding, c.units, batch_first=True)
        self.key = nn.Linear(c.features, c.attention, bias=False)
        self.value = nn.Linear(c.features, c.embedding)
        self.query = nn.Linear(c.units, c.attention)
        self.energy = nn.Linear(c.attention, 1, bias=False)
        self.merge = nn.Linear(c.writer or c.units, c.embedding)
        self.dropout = nn.Dropout(c.dropout)
        self.writer = Writer(c, self.dropout) if c.writer else None
        nn.init.normal_(self.embedding.weight, std=c.embedding**-0.5)

    def with_writer(self, units: int) -> "AttentionGRU":
        """The same decoder with a writer that has nothing to say yet: the logits are what they were."""
        grown = AttentionGRU(replace(self.config, writer=units))
        kept = {name: value for name, value in self.state_dict().items() if not name.startswith("merge.")}
        grown.load_state_dict(kept, strict=False)
        assert grown.writer is not None
        grown.writer.recalled.load_state_dict(self.merge.state_dict())
        nn.init.zeros_(grown.merge.weight)
        nn.init.zeros_(grown.merge.bias)
        return grown.train(self.training)

    def look(self, grid: Tensor) -> tuple[Memory, Tensor]:
        """A grid (B, R, D) to its memory and the first state (B, H + W)."""
        grid = self.dropout(grid)
        seen = grid.mean(1)
        state = self.first(seen) if self.writer is None else torch.cat([self.first(seen), self.writer.first(seen)], -1)
        return Memory(self.key(grid), self.value(grid)), torch.tanh(state)

    def attend(self, states: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """States (B, T, H) to contexts (B, T, E) and weights (B, T, R)."""
        query = self.query(states).unsqueeze(2)  # (B, T, 1, A)
        energy = self.energy(torch.tanh(query + memory.keys.unsqueeze(1))).squeeze(-1)  # (B, T, R)
        weights = energy.softmax(-1)
        return weights @ memory.values, weights

    def logits(self, states: Tensor, contexts: Tensor) -> Tensor:
        """States (…, H, or W of the writer) and contexts (…, E) to logits (…, V)."""
        merged = torch.tanh(self.merge(self.dropout(states)) + contexts)
        return F.linear(self.dropout(merged), self.embedding.weight, self.bias)

    def forward(self, grid: Tensor, tokens: Tensor, keep: Tensor | None = None) -> Tensor:
        """Teacher forcing: grid (B, R, D) and tokens (B, T) to the logits (B, T, V) of the token after each.

        With a mask `keep` (B, T), only those places are computed: (N, V). The output layer is most of the work.
        """
        memory, first = self.look(grid)
        words = self.dropout(self.embedding(tokens))  # (B, T, E)
        states = self._read(words, first)  # (B, T, H)
        contexts, _ = self.attend(states, memory)
        if self.writer is not None:
            states, contexts = self.writer(first[:, self.config.units :], states, contexts)
        return self.logits(states, contexts) if keep is None else self.logits(states[keep], contexts[keep])

    def weights(self, grid: Tensor, tokens: Tensor) -> Tensor:
        """The attention (B, T, R) that was paid before the token after each of `tokens` (B, T)."""
        memory, first = self.look(grid)
        return self.attend(self._read(self.embedding(tokens), first), memory)[1]

    def _read(self, words: Tensor, first: Tensor) -> Tensor:
        """The reader's states (B, T, H) after each of the words (B, T, E)."""
        states: Tensor = self.gru(words, first[:, : self.config.units].unsqueeze(0).contiguous())[0]
        return states

    def step(self, tokens: Tensor, state: Tensor, memory: Memory, runs: Sequence[Run]) -> tuple[Tensor, Tensor]:
        """One token a caption: tokens (N,), states (N, H + W), and which captions look at which picture of the memory.

        Gives logits (N, V) and the new states.
        """
        written, context, state = self._stepped(tokens, state, memory, runs)
        by = self.products
        return by.output(by.merge(written).add_(context).tanh_()), state

    def _stepped(self, tokens: Tensor, state: Tensor, memory: Memory, runs: Sequence[Run]) -> tuple[Tensor, ...]:
        """What is written from, (N, H or W) and (N, E), and the new states (N, H + W)."""
        reading = self.advance(tokens, state[:, : self.config.units])
        context = self._looked(reading, memory, runs)
        if self.writer is None:
            return reading, context, reading
        writing, context = self.writer.step(state[:, self.config.units :], reading, context)
        return writing, context, torch.cat([reading, writing], -1)

    def _looked(self, state: Tensor, memory: Memory, runs: Sequence[Run]) -> Tensor:
        """The contexts (N, E) of the reader's states (N, H)."""
        by = self.products
        query = by.query(state).unsqueeze(1)  # (N, 1, A)
        compared = query.new_empty(len(state), *memory.keys.shape[1:])  # (N, R, A)
        for picture, rows in runs:  # a picture is read where it lies: a copy for every caption costs more than the sum
            torch.add(query[rows], memory.keys[picture], out=compared[rows])
        weights = by.energy(compared.tanh_().flatten(0, 1)).view(len(state), -1).softmax(-1)  # (N, R)
        return torch.cat([weights[rows] @ memory.values[picture] for picture, rows in runs])

    def begin(self, grid: Tensor) -> tuple[Memory, Tensor]:
        by = self.products
        places = grid.flatten(0, 1)
        memory = Memory(*(part(places).view(*grid.shape[:2], -1) for part in (by.key, by.value)))
        seen = grid.mean(1)
        first = [by.first(seen)] if self.writer is None else [by.first(seen), self.writer.products.first(seen)]
        return memory, torch.cat(first, -1).tanh_()

    def read(self, tokens: Tensor, state: Tensor, memory: Memory, runs: Sequence[Run]) -> Tensor:
        return self.advance(tokens, state) if self.writer is None else self._stepped(tokens, state, memory, runs)[-1]

    def shorten(self, ids: Tensor | None) -> None:
        self.shortlist = ids
        self.refresh()

    def refresh(self) -> None:
        for part in filter(None, (self, self.writer)):
            part.__dict__.pop("products", None)

    def advance(self, tokens: Tensor, state: Tensor) -> Tensor:
        """States (N, H) after reading the tokens (N,)."""
        return _gated(self.products.words[tokens], self.products.state(state), state)

    @cached_property
    def products(self) -> "Products":
        """What `step` multiplies by, packed: `refresh` after the weights have changed."""
        from_word, from_state, word_bias, state_bias = self.gru.all_weights[0]
        listed = slice(None) if self.shortlist is None else self.shortlist
        with torch.no_grad():
            return Products(
                F.linear(self.embedding.weight, from_word, word_bias),
                product(self.first.weight, self.first.bias),
                product(self.key.weight, self.key.weight.new_zeros(len(self.key.weight))),
                product(self.value.weight, self.value.bias),
                product(from_state, state_bias),
                product(self.query.weight, self.query.bias),
                product(self.energy.weight, self.energy.weight.new_zeros(1)),
                product(self.merge.weight, self.merge.bias),
                product(self.embedding.weight[listed], self.bias[listed]),
            )


def _gated(entering: Tensor, hidden: Tensor, state: Tensor) -> Tensor:
    """A GRU's states (N, H) after a step, from the words' and the states' parts of the gates, (N, 3H) each."""
    size = state.shape[1]
    # The logistic function by way of tanh: on AMD's processors sigmoid rounds the last numbers of a tensor otherwise.
    gates = (entering[:, : 2 * size] + hidden[:, : 2 * size]).mul_(0.5).tanh_().mul_(0.5).add_(0.5)
    reset, update = gates.chunk(2, -1)
    fresh = torch.addcmul(entering[:, 2 * size :], reset, hidden[:, 2 * size :]).tanh_()
    return torch.lerp(fresh, state, update)
