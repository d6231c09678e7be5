"""The default: a GRU that reads the caption so far and attends over the picture's grid before every word.

The attention is additive (Bahdanau, Cho and Bengio 2015; for pictures Xu et al. 2015). The query is the state *after*
the word was read and the context joins before the output (Lu et al. 2017), so no step waits for the attention of
the step before: training runs the GRU once over the whole caption.

With a *writer*, a second GRU hears the states of the first and what they looked at, and its states are what is
written from: a word then knows what the words before it have looked at, and still no step waits.

How a search takes its steps stands in `attention_gru_steps.py`: the same equations, prepared to be quick.

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

from captioner.decoders.attention_gru_steps import AttentionGRUSteps
from captioner.decoders.base import Decoder, Run


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

    def begin(self, grid: Tensor) -> tuple[Memory, Tensor]:
        keys, values, first = self.steps.begin(grid)
        return Memory(keys, values), first

    def step(self, tokens: Tensor, state: Tensor, memory: Memory, runs: Sequence[Run]) -> tuple[Tensor, Tensor]:
        return self.steps.step(tokens, state, memory, runs)

    def read(self, tokens: Tensor, state: Tensor, memory: Memory, runs: Sequence[Run]) -> Tensor:
        return self.steps.read(tokens, state, memory, runs)

    def shorten(self, ids: Tensor | None) -> None:
        self.shortlist = ids
        self.refresh()

    def refresh(self) -> None:
        self.__dict__.pop("steps", None)

    @cached_property
    def steps(self) -> AttentionGRUSteps:
        """The same equations, a word at a time: `refresh` after the weights have changed."""
        return AttentionGRUSteps(self, self.writer, self.shortlist)
