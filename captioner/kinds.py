"""The kinds of pictures that a data set has: its templates, and clusters of its photographs, which have no names.

For decoders that know a picture by its label (captioner.decoders.labels).

Shapes: K kinds, P pictures, D features.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from captioner.data.samples import Sample

CLUSTERS = 64
"""Of photographs, at most as many as there are."""
_ROUNDS = 20


def count(samples: Sequence[Sample]) -> int:
    """How many kinds `templates` and `clusters` find in the samples that are trained on."""
    templates = {s.template or s.picture.stem for s in samples if s.style == "meme"}
    return len(templates) + min(CLUSTERS, len({s.picture for s in samples if s.style == "describe"}))


def templates(samples: Sequence[Sample], rows: np.ndarray, grids: np.ndarray, views: int) -> dict[str, Tensor]:
    """The mean (D,) of all views of every template's picture."""
    row = {s.template or s.picture.stem: int(r) for s, r in zip(samples, rows, strict=True)}
    return {name: torch.from_numpy(grids[r : r + views]).float().mean((0, 1)) for name, r in sorted(row.items())}


def clusters(rows: np.ndarray, grids: np.ndarray, seed: int) -> Tensor:
    """Centres (K, D) of photographs by Lloyd's k-means."""
    means = torch.stack([torch.from_numpy(grids[r]).float().mean(0) for r in np.unique(rows)])  # (P, D)
    generator = torch.Generator().manual_seed(seed)
    centres = means[torch.randperm(len(means), generator=generator)[:CLUSTERS]]
    for _ in range(_ROUNDS):
        nearest = torch.cdist(means, centres).argmin(1)
        held = torch.bincount(nearest, minlength=len(centres)).unsqueeze(1)
        sums = torch.zeros_like(centres).index_add_(0, nearest, means)
        centres = torch.where(held > 0, sums / held.clamp(min=1), centres)
    return centres
