"""Which of the known kinds of pictures a picture is: the one whose mean grid is nearest.

Meme generators know a template when they see one; here a picture's label is that of the nearest known picture, on
the encoder's features. Where a data set names no templates, its kinds are clusters without a name.

Shapes: B pictures, K kinds, R places of the grid, D features, L ids of a label at most.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Labels(nn.Module):
    """`words` (K, L) are the ids of every label, padded with -1."""

    centres: Tensor
    words: Tensor

    def __init__(self, kinds: int, features: int, longest: int) -> None:
        super().__init__()
        self.register_buffer("centres", torch.zeros(kinds, features))
        self.register_buffer("words", torch.full((kinds, longest), -1))

    def fill(self, pictures: Tensor, labels: Sequence[Sequence[int]]) -> None:
        """Centres (K, D), and the ids of their labels, cut where they are longer than expected."""
        self.centres = pictures.clone()
        for row, ids in zip(self.words, labels, strict=True):
            row[: len(ids)] = torch.tensor(list(ids)[: len(row)], dtype=torch.long)

    def forward(self, grid: Tensor) -> Tensor:
        """A grid (B, R, D) to the kind (B,) of each picture."""
        return torch.cdist(grid.mean(1), self.centres).argmin(-1)

    def mean(self, kinds: Tensor, embedding: nn.Embedding) -> Tensor:
        """Kinds (B,) to the mean embedding (B, E) of their label's words; zeros for one without a name."""
        words = self.words[kinds]  # (B, L)
        there = (words >= 0).unsqueeze(-1)
        summed = (embedding(words.clamp(min=0)) * there).sum(1)
        made: Tensor = summed / there.sum(1).clamp(min=1)
        return made
