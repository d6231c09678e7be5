"""What transformers are made of (Vaswani et al. 2017).

Shapes: B sequences, T queries, S keys, H heads, U units.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captioner.decoders.base import Decoder, Run, pictures_of


class Attention(nn.Module):
    """Scaled dot products of several heads; with `slots`, that many learnt keys and values join every memory's own.

    The slots are Cornia et al. 2020's, scaled as in their code.
    """

    def __init__(self, units: int, heads: int, slots: int = 0) -> None:
        super().__init__()
        self.heads, self.size, self.slots = heads, units // heads, slots
        self.query, self.key, self.value, self.out = (nn.Linear(units, units) for _ in range(4))
        self.slot_keys = nn.Parameter(torch.randn(slots, units) / self.size)
        self.slot_values = nn.Parameter(torch.randn(slots, units) / max(1, slots))

    def remembered(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, S + slots, U) of a memory (B, S, U)."""
        keys, values = self.key(memory), self.value(memory)
        if self.slots:  # scaled so that they begin as large as the others
            more_keys, more_values = math.sqrt(self.size) * self.slot_keys, math.sqrt(self.slots) * self.slot_values
            keys = torch.cat([keys, more_keys.expand(len(memory), -1, -1)], 1)
            values = torch.cat([values, more_values.expand(len(memory), -1, -1)], 1)
        return keys, values

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, causal: bool = False) -> tuple[Tensor, Tensor]:
        """Queries from x (B, T, U); gives what was seen (B, T, U) and the attention (B, T, S), averaged over heads.

        `causal`: no query sees later keys. Otherwise keys and values (P, S, U) may be fewer: B / P adjacent sequences
        look at each.
        """
        asked = self.query(x).reshape(len(keys), -1, x.shape[-1])
        q, k, v = (self._split(part) for part in (asked, keys, values))
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])  # (P, H, B / P · T, S)
        if causal:
            later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=x.device).triu(1)
            scores = scores.masked_fill(later, -math.inf)
        weights = scores.softmax(-1)
        seen = (weights @ v).transpose(1, 2).reshape(x.shape)
        return self.out(seen), weights.mean(1).reshape(*x.shape[:2], -1)

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:-1], self.heads, -1).transpose(1, 2)  # (B, H, S, U / H)


class FeedForward(nn.Module):
    def __init__(self, units: int, dropout: float) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Linear(units, 4 * units), nn.Linear(4 * units, units)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.narrow(self.dropout(F.relu(self.wide(x))))
        return made


def positions(first: int, count: int, units: int, like: Tensor) -> Tensor:
    """Sinusoids (count, units) of the positions from `first` on, on the device of `like`."""
    place = torch.arange(first, first + count, device=like.device).unsqueeze(1)
    frequency = torch.exp(torch.arange(0, units, 2, device=like.device) * (-math.log(10000.0) / units))
    return torch.stack([(place * frequency).sin(), (place * frequency).cos()], -1).flatten(1)


class Cache:
    """Keys and values of what a caption's layers have read, as the state (N, t, L, 2, U) of a search."""

    def __init__(self, state: Tensor) -> None:
        self.state = state
        self.fresh: list[Tensor] = []

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """A layer's keys and values of this step (N, 1, U), with all before them (N, t + 1, U)."""
        self.fresh.append(torch.stack([keys, values], 2))  # (N, 1, 2, U)
        before = self.state[:, :, layer]
        return torch.cat([before[:, :, 0], keys], 1), torch.cat([before[:, :, 1], values], 1)

    def grown(self) -> Tensor:
        """The state (N, t + 1, L, 2, U) after a step of all layers."""
        return torch.cat([self.state, torch.stack(self.fresh, 2)], 1)


class Cached(Decoder):
    """A decoder whose layers read all words at once, or one after those of a cache.

    `look` gives a memory that is a named tuple of tensors (B, …), and an empty cache. V vocabulary, R places.
    """

    shares = True

    @abstractmethod
    def _write(self, tokens: Tensor, memory: Any, cache: Cache | None) -> tuple[Tensor, Tensor]:
        """Tokens (B, T) after those of the cache to what stands before the output (B, T, U); attention (B, T, R)."""

    @abstractmethod
    def _logits(self, words: Tensor) -> Tensor:
        """What stands before the output (…, U) to logits (…, V)."""

    def forward(self, grid: Tensor, tokens: Tensor, keep: Tensor | None = None) -> Tensor:
        words, _ = self._write(tokens, self.look(grid)[0], None)
        return self._logits(words if keep is None else words[keep])

    def weights(self, grid: Tensor, tokens: Tensor) -> Tensor:
        """The last layer's attention, averaged over heads and whatever else there is of it."""
        return self._write(tokens, self.look(grid)[0], None)[1]

    def step(self, tokens: Tensor, state: Tensor, memory: Any, runs: Sequence[Run]) -> tuple[Tensor, Tensor]:
        pictures, cache = pictures_of(runs, tokens.device), Cache(state)
        seen = type(memory)(*(part[pictures] for part in memory))
        words, _ = self._write(tokens.unsqueeze(1), seen, cache)
        return self._logits(words[:, 0]), cache.grown()
