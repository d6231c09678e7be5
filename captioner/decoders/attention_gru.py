"""The default: a GRU that reads the caption so far and attends over the picture's grid before every word.

The attention is additive (Bahdanau, Cho and Bengio 2015; for pictures Xu et al. 2015). The query is the state *after*
the word was read and the context joins before the output (Lu et al. 2017), so no step waits for the attention of
the step before: training runs the GRU once over the whole caption.

Shapes: B captions, T tokens, R places of the grid, D their features, E embedding, H units, A attention, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
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
        self.merge = nn.Linear(c.units, c.embedding)
        self.dropout = nn.Dropout(c.dropout)
        nn.init.normal_(self.embedding.weight, std=c.embedding**-0.5)

    def look(self, grid: Tensor) -> tuple[Memory, Tensor]:
        """A grid (B, R, D) to its memory and the first state (B, H)."""
        grid = self.dropout(grid)
        return Memory(self.key(grid), self.value(grid)), torch.tanh(self.first(grid.mean(1)))

    def attend(self, states: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """States (B, T, H) to contexts (B, T, E) and weights (B, T, R)."""
        query = self.query(states).unsqueeze(2)  # (B, T, 1, A)
        energy = self.energy(torch.tanh(query + memory.keys.unsqueeze(1))).squeeze(-1)  # (B, T, R)
        weights = energy.softmax(-1)
        return weights @ memory.values, weights

    def logits(self, states: Tensor, contexts: Tensor) -> Tensor:
        """States (…, H) and contexts (…, E) to logits (…, V)."""
        merged = torch.tanh(self.merge(self.dropout(states)) + contexts)
        return F.linear(self.dropout(merged), self.embedding.weight, self.bias)

    def forward(self, grid: Tensor, tokens: Tensor, keep: Tensor | None = None) -> Tensor:
        """Teacher forcing: grid (B, R, D) and tokens (B, T) to the logits (B, T, V) of the token after each.

        With a mask `keep` (B, T), only those places are computed: (N, V). The output layer is most of the work.
        """
        memory, state = self.look(grid)
        words = self.dropout(self.embedding(tokens))  # (B, T, E)
        states, _ = self.gru(words, state.unsqueeze(0))  # (B, T, H)
        contexts, _ = self.attend(states, memory)
        return self.logits(states, contexts) if keep is None else self.logits(states[keep], contexts[keep])

    def weights(self, grid: Tensor, tokens: Tensor) -> Tensor:
        """The attention (B, T, R) that was paid before the token after each of `tokens` (B, T)."""
        memory, state = self.look(grid)
        states, _ = self.gru(self.embedding(tokens), state.unsqueeze(0))
        return self.attend(states, memory)[1]

    def step(self, tokens: Tensor, state: Tensor, memory: Memory, runs: Sequence[Run]) -> tuple[Tensor, Tensor]:
        """One token a caption: tokens (N,), states (N, H), and which captions look at which picture of the memory.

        Gives logits (N, V) and the new states.
        """
        by = self.products
        state = self.advance(tokens, state)
        query = by.query(state).unsqueeze(1)  # (N, 1, A)
        compared = query.new_empty(len(tokens), *memory.keys.shape[1:])  # (N, R, A)
        for picture, rows in runs:  # a picture is read where it lies: a copy for every caption costs more than the sum
            torch.add(query[rows], memory.keys[picture], out=compared[rows])
        weights = by.energy(compared.tanh_().flatten(0, 1)).view(len(tokens), -1).softmax(-1)  # (N, R)
        context = torch.cat([weights[rows] @ memory.values[picture] for picture, rows in runs])  # (N, E)
        return by.output(by.merge(state).add_(context).tanh_()), state

    def begin(self, grid: Tensor) -> tuple[Memory, Tensor]:
        by = self.products
        places = grid.flatten(0, 1)
        memory = Memory(*(part(places).view(*grid.shape[:2], -1) for part in (by.key, by.value)))
        return memory, by.first(grid.mean(1)).tanh_()

    def read(self, tokens: Tensor, state: Tensor, memory: Memory, runs: Sequence[Run]) -> Tensor:
        return self.advance(tokens, state)

    def shorten(self, ids: Tensor | None) -> None:
        self.shortlist = ids
        self.refresh()

    def refresh(self) -> None:
        self.__dict__.pop("products", None)

    def advance(self, tokens: Tensor, state: Tensor) -> Tensor:
        """States (N, H) after reading the tokens (N,)."""
        by = self.products
        gates, hidden = by.words[tokens], by.state(state)
        reset, update = (gates[:, : -state.shape[1]] + hidden[:, : -state.shape[1]]).sigmoid_().chunk(2, -1)
        fresh = torch.addcmul(gates[:, -state.shape[1] :], reset, hidden[:, -state.shape[1] :]).tanh_()
        return torch.lerp(fresh, state, update)

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
