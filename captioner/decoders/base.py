"""What every decoder offers to training, search and checkpoints.

Shapes: B pictures, N captions, T tokens, R places of the grid, D their features, V vocabulary.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

Run = tuple[int, slice]
"""A picture of the memory, and the adjacent captions that look at it; runs follow each other without a gap."""


class Decoder(nn.Module, ABC):
    """A model that writes captions of grids.

    What it computes once a picture is its `memory`, of any kind. What a caption has come to is its `state`: a tensor
    (N, …) that a search gathers by caption, and whose other dimensions may grow from step to step (a cache).

    One that attends also has `weights(grid, tokens)`: the attention (B, T, R) paid before the token after each.
    """

    config: Any
    """A frozen dataclass of numbers and strings, kept in the checkpoint."""
    embedding: nn.Embedding
    dropout: nn.Dropout
    shares: bool = False
    """Whether `forward` takes a grid (P, R, D) for tokens (B, T), each picture for B / P adjacent captions."""
    shortlist: Tensor | None = None
    """The ids (C,), sorted, whose logits `step` gives; None for all."""

    @abstractmethod
    def look(self, grid: Tensor) -> tuple[Any, Tensor]:
        """A grid (B, R, D) to its memory and the first state (B, …), before any token was read."""

    @abstractmethod
    def forward(self, grid: Tensor, tokens: Tensor, keep: Tensor | None = None) -> Tensor:
        """Teacher forcing: grid (B, R, D) and tokens (B, T) to the logits (B, T, V) of the token after each.

        With a mask `keep` (B, T), only those places are computed: (N, V). The output layer is most of the work.
        """

    @abstractmethod
    def step(self, tokens: Tensor, state: Tensor, memory: Any, runs: Sequence[Run]) -> tuple[Tensor, Tensor]:
        """One token a caption: tokens (N,), states (N, …), and which captions look at which picture of the memory.

        Gives logits (N, V), or (N, C) with a shortlist, and the new states.
        """

    def shorten(self, ids: Tensor | None) -> None:
        """From now on `step` may give the logits of these ids (C,) only, and then says so by `shortlist`."""

    def drop(self, rate: float) -> None:
        """The share of numbers that training drops out from now on, in every layer that does so."""
        for module in self.modules():
            if isinstance(module, nn.Dropout):
                module.p = rate

    def refresh(self) -> None:
        """Forgets what `step` prepared: weights have changed."""

    def begin(self, grid: Tensor) -> tuple[Any, Tensor]:
        """`look` for a search, which changes no weights."""
        return self.look(grid)

    def read(self, tokens: Tensor, state: Tensor, memory: Any, runs: Sequence[Run]) -> Tensor:
        """The new states of `step`, where nobody asks for the logits."""
        return self.step(tokens, state, memory, runs)[1]

    def meet(self, pictures: Tensor, labels: Sequence[Sequence[int]]) -> None:
        """Before training: the kinds of pictures there are, each the mean grid (D,) of (K, D) and its label's ids."""

    def penalty(self) -> Tensor | float:
        """What the last `forward` adds to the loss."""
        return 0.0


def pictures_of(runs: Sequence[Run], device: torch.device) -> Tensor:
    """The picture (N,) of every caption."""
    pictures = torch.tensor([picture for picture, _ in runs], device=device)
    return pictures.repeat_interleave(torch.tensor([rows.stop - rows.start for _, rows in runs], device=device))
