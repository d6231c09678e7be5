"""Transformer: six layers read the grid, six write (Vaswani et al. 2017), as in the study Image2Tweet.

Deviations: layers are normalised before attention instead of after it, which trains without care for the warm-up
(Xiong et al. 2020); 256 units instead of 512; embedding and output share their weights, as in the paper.

Shapes: B captions, T tokens, R places of the grid, D their features, U units, L layers, V vocabulary.
"""

from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captioner.decoders.layers import Attention, Cache, Cached, FeedForward, positions


@dataclass(frozen=True)
class TransformerConfig:
    vocabulary: int
    features: int = 384
    embedding: int = 256
    """Units of all layers."""
    layers: int = 6
    """Of either side."""
    heads: int = 4
    dropout: float = 0.2


class Grid(NamedTuple):
    """Keys and values (B, L, R, U) of every writing layer."""

    keys: Tensor
    values: Tensor


class Reader(nn.Module):
    def __init__(self, c: TransformerConfig) -> None:
        super().__init__()
        self.attention, self.feed = Attention(c.embedding, c.heads), FeedForward(c.embedding, c.dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(c.embedding) for _ in range(2))
        self.dropout = nn.Dropout(c.dropout)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norms[0](x)
        x = x + self.dropout(self.attention(normed, *self.attention.remembered(normed))[0])
        made: Tensor = x + self.dropout(self.feed(self.norms[1](x)))
        return made


class Writer(nn.Module):
    def __init__(self, c: TransformerConfig) -> None:
        super().__init__()
        self.itself, self.grid = Attention(c.embedding, c.heads), Attention(c.embedding, c.heads)
        self.feed = FeedForward(c.embedding, c.dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(c.embedding) for _ in range(3))
        self.dropout = nn.Dropout(c.dropout)

    def forward(
        self, x: Tensor, keys: Tensor, values: Tensor, cache: Cache | None, layer: int
    ) -> tuple[Tensor, Tensor]:
        """Words (B, T, U) and the grid's keys and values (B, R, U) to words, and the attention (B, T, R)."""
        normed = self.norms[0](x)
        own = self.itself.remembered(normed)
        if cache is not None:
            own = cache.extend(layer, *own)
        x = x + self.dropout(self.itself(normed, *own, causal=cache is None)[0])
        seen, weights = self.grid(self.norms[1](x), keys, values)
        x = x + self.dropout(seen)
        return x + self.dropout(self.feed(self.norms[2](x))), weights


class Transformer(Cached):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = c = config
        self.embedding = nn.Embedding(c.vocabulary, c.embedding)  # tied to the output
        self.bias = nn.Parameter(torch.zeros(c.vocabulary))
        self.place = nn.Linear(c.features, c.embedding)
        self.readers = nn.ModuleList(Reader(c) for _ in range(c.layers))
        self.writers = nn.ModuleList(Writer(c) for _ in range(c.layers))
        self.norms = nn.ModuleList(nn.LayerNorm(c.embedding) for _ in range(2))
        self.dropout = nn.Dropout(c.dropout)
        nn.init.normal_(self.embedding.weight, std=c.embedding**-0.5)

    def look(self, grid: Tensor) -> tuple[Grid, Tensor]:
        """The first state (B, 0, L, 2, U) is an empty cache."""
        c = self.config
        x = self.place(self.dropout(grid))
        x = x + positions(0, x.shape[1], c.embedding, x)
        for reader in self.readers:
            x = reader(x)
        x = self.norms[0](x)
        made = [cast(Writer, writer).grid.remembered(x) for writer in self.writers]
        keys, values = (torch.stack(part, 1) for part in zip(*made, strict=True))
        return Grid(keys, values), grid.new_zeros(len(grid), 0, c.layers, 2, c.embedding)

    def _write(self, tokens: Tensor, memory: Grid, cache: Cache | None) -> tuple[Tensor, Tensor]:
        """Tokens (B, T) after those of the cache to what stands before the output (B, T, U); attention (B, T, R)."""
        units = self.config.embedding
        read = cache.state.shape[1] if cache is not None else 0
        x = self.embedding(tokens) * units**0.5
        x = self.dropout(x + positions(read, tokens.shape[1], units, x))
        for i, writer in enumerate(self.writers):
            x, weights = writer(x, memory.keys[:, i], memory.values[:, i], cache, i)
        return self.norms[1](x), weights

    def _logits(self, words: Tensor) -> Tensor:
        return F.linear(words, self.embedding.weight, self.bias)
