"""One caption of several views of a picture: what a decoder says of each, averaged (as Krizhevsky et al. 2012 do).

A view that was cut a little differently is misread a little differently; what all of them bear out stays.

Shapes: B pictures, V views, R places of the grid, D their features, N captions.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from captioner.decoders.base import Decoder, Run


class Several(Decoder):
    """Steps a decoder on every view and averages its logits: a geometric mean of what it finds likely.

    `begin` takes grids (B, V, R, D); a state holds those of all views along its last dimension.
    """

    def __init__(self, decoder: Decoder, views: int) -> None:
        super().__init__()
        self.of, self.views, self.shortlist = decoder, views, decoder.shortlist

    def begin(self, grid: Tensor) -> tuple[list[Any], Tensor]:
        memories, firsts = zip(*(self.of.begin(view.contiguous()) for view in grid.unbind(1)), strict=True)
        return list(memories), torch.cat(firsts, -1)

    look = begin

    def read(self, tokens: Tensor, state: Tensor, memory: list[Any], runs: Sequence[Run]) -> Tensor:
        states = zip(state.chunk(self.views, -1), memory, strict=True)
        return torch.cat([self.of.read(tokens, part.contiguous(), seen, runs) for part, seen in states], -1)

    def step(self, tokens: Tensor, state: Tensor, memory: list[Any], runs: Sequence[Run]) -> tuple[Tensor, Tensor]:
        states = zip(state.chunk(self.views, -1), memory, strict=True)
        made = [self.of.step(tokens, part.contiguous(), seen, runs) for part, seen in states]
        return torch.stack([logits for logits, _ in made]).mean(0), torch.cat([stepped for _, stepped in made], -1)

    def forward(self, grid: Tensor, tokens: Tensor, keep: Tensor | None = None) -> Tensor:
        """As of every decoder, grids (B, V, R, D)."""
        return torch.stack([self.of(view, tokens, keep) for view in grid.unbind(1)]).mean(0)
