"""Meshed-Memory Transformer (Cornia, Stefanini, Baraldi and Cucchiara 2020).

Memory-augmented encoder: besides the regions themselves, every layer's self-attention sees learnt keys and values, the
memory slots. Meshed decoder: every writing layer attends to the outputs of all reading layers, each through a gate
of its own that the words and what they see decide.

Deviations: 256 units instead of 512; the cells of a grid where there are no detected regions. Equations are the
paper's: the gated sights are added up (the published code divides them by the root of their number), and residual and
normalisation follow the sum. Self-critical fine-tuning is no part of the decoder.

Shapes: B captions, T tokens, R regions, D their features, U units, L writing layers, E reading layers, V vocabulary.
"""

from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captioner.decoders.layers import Attention, Cache, Cached, FeedForward, positions


@dataclass(frozen=True)
class MeshedMemoryConfig:
    vocabulary: int
    features: int = 384
    embedding: int = 256
    """Units of all layers."""
    layers: int = 3
    """Of either side."""
    heads: int = 4
    slots: int = 40
    """Of memory, in every reading layer."""
    dropout: float = 0.1


class Mesh(NamedTuple):
    """Keys and values (B, L, E, R, U) of every writing layer for every reading one."""

    keys: Tensor
    values: Tensor


class Reader(nn.Module):
    def __init__(self, c: MeshedMemoryConfig) -> None:
        super().__init__()
        self.attention = Attention(c.embedding, c.heads, c.slots)
        self.feed = FeedForward(c.embedding, c.dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(c.embedding) for _ in range(2))
        self.dropout = nn.Dropout(c.dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norms[0](x + self.dropout(self.attention(x, *self.attention.remembered(x))[0]))
        made: Tensor = self.norms[1](x + self.dropout(self.feed(x)))
        return made


class Writer(nn.Module):
    def __init__(self, c: MeshedMemoryConfig) -> None:
        super().__init__()
        self.itself, self.regions = Attention(c.embedding, c.heads), Attention(c.embedding, c.heads)
        self.gates = nn.ModuleList(nn.Linear(2 * c.embedding, c.embedding) for _ in range(c.layers))
        self.feed = FeedForward(c.embedding, c.dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(c.embedding) for _ in range(3))
        self.dropout = nn.Dropout(c.dropout)

    def forward(
        self, x: Tensor, keys: Tensor, values: Tensor, cache: Cache | None, layer: int
    ) -> tuple[Tensor, Tensor]:
        """Words (B, T, U) and all levels' keys and values (B, E, R, U) to words, and the attention (B, T, R)."""
        own = self.itself.remembered(x)
        if cache is not None:
            own = cache.extend(layer, *own)
        x = self.norms[0](x + self.dropout(self.itself(x, *own, causal=cache is None)[0]))
        meshed, looked = torch.zeros_like(x), []
        for level, gate in enumerate(self.gates):
            seen, weights = self.regions(x, keys[:, level], values[:, level])
            meshed = meshed + gate(torch.cat([x, seen], -1)).sigmoid() * seen
            looked.append(weights)
        x = self.norms[1](x + self.dropout(meshed))
        return self.norms[2](x + self.dropout(self.feed(x))), torch.stack(looked).mean(0)


class MeshedMemory(Cached):
    def __init__(self, config: MeshedMemoryConfig) -> None:
        super().__init__()
        self.config = c = config
        self.embedding = nn.Embedding(c.vocabulary, c.embedding)
        self.place = nn.Linear(c.features, c.embedding)
        self.norm = nn.LayerNorm(c.embedding)
        self.readers = nn.ModuleList(Reader(c) for _ in range(c.layers))
        self.writers = nn.ModuleList(Writer(c) for _ in range(c.layers))
        self.output = nn.Linear(c.embedding, c.vocabulary, bias=False)
        self.dropout = nn.Dropout(c.dropout)

    def look(self, grid: Tensor) -> tuple[Mesh, Tensor]:
        """The first state (B, 0, L, 2, U) is an empty cache."""
        c = self.config
        x = self.norm(self.dropout(F.relu(self.place(grid))))
        levels = []
        for reader in self.readers:
            x = reader(x)
            levels.append(x)
        read = torch.stack(levels, 1).flatten(0, 1)  # (B·E, R, U)
        made = [cast(Writer, writer).regions.remembered(read) for writer in self.writers]
        keys, values = (
            torch.stack([p.unflatten(0, (len(grid), -1)) for p in part], 1) for part in zip(*made, strict=True)
        )
        return Mesh(keys, values), grid.new_zeros(len(grid), 0, c.layers, 2, c.embedding)

    def _write(self, tokens: Tensor, memory: Mesh, cache: Cache | None) -> tuple[Tensor, Tensor]:
        """Tokens (B, T) after those of the cache to what stands before the output (B, T, U); attention (B, T, R)."""
        units = self.config.embedding
        read = cache.state.shape[1] if cache is not None else 0
        x = self.embedding(tokens)
        x = x + positions(read, tokens.shape[1], units, x)
        for i, writer in enumerate(self.writers):
            x, weights = writer(x, memory.keys[:, i], memory.values[:, i], cache, i)
        return x, weights

    def _logits(self, words: Tensor) -> Tensor:
        made: Tensor = self.output(words)
        return made
