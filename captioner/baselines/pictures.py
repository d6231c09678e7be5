"""What a baseline learns from: pictures with all their captions."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Pictures:
    """`grids` (P, R, D) in half precision, and what people wrote on each, normalised."""

    grids: np.ndarray
    captions: list[list[str]]
    of_their_own: bool
    """Whether every picture has its own way of being captioned, as templates of memes have."""
    seed: int = 1


def direction(grid: Tensor) -> Tensor:
    """Grids (…, R, D) to unit vectors (…, D) of their means: their products are cosines."""
    return F.normalize(grid.float().mean(-2), dim=-1)


def directions(grids: np.ndarray) -> Tensor:
    """Of all pictures (P, D), some at a time: half precision has to be widened."""
    parts = np.array_split(grids, max(1, len(grids) // 256))
    return torch.cat([direction(torch.from_numpy(part)) for part in parts])
