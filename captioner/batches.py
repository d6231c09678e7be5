"""Corpora become batches: padded captions, a view of each picture, and what counts say.

Their order is a function of seed and step, so that a run which was cut off goes on as if it had not been.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from captioner.corpora import Corpus
from captioner.mixture import NEVER
from captioner.ngrams import ORDER
from captioner.recipe import Recipe
from captioner.tokenizer import CaptionTokenizer


@dataclass(frozen=True)
class Batch:
    grid: Tensor  # (B, R, D), in half precision until it is where it is learnt from
    tokens: Tensor  # (B, T), the prefix first
    targets: Tensor  # (B, T), -1 where nothing is asked
    counted: Tensor  # (N,) log-probabilities that counts give to the targets asked for, row by row
    evidence: Tensor  # (N, F) features of those counts
    describes: bool  # whether all are descriptions

    def to(self, device: torch.device) -> "Batch":
        """The same on the device, the grid in full precision: it travels as half, while a GPU still computes."""

        def sent(part: Tensor) -> Tensor:
            return (part.pin_memory() if device.type == "cuda" else part).to(device, non_blocking=True)

        return Batch(
            sent(self.grid).float(),
            sent(self.tokens),
            sent(self.targets),
            sent(self.counted),
            sent(self.evidence),
            self.describes,
        )


def batches(corpora: list[Corpus], tokenizer: CaptionTokenizer, recipe: Recipe, step: int) -> Iterator[list[Batch]]:
    """Batches from a step on, styles mixed by the recipe's shares, captions of like length together.

    Where descriptions are learnt in another way, they are a part of their own.
    """
    apart = bool(recipe.describe_dropout or recipe.describe_smoothing)
    present = [c for c in corpora if c.samples]
    of = {"describe": recipe.describe_share, "pair": recipe.pair_share}
    if recipe.taught:
        of["taught"] = recipe.taught_share
    shares = np.array([of.get(c.name, 1 - sum(of.values())) for c in present])
    counts = np.round(shares / shares.sum() * _CHUNK * recipe.batch).astype(int)
    counts[0] += _CHUNK * recipe.batch - counts.sum()
    chunk = step // _CHUNK
    skip = step % _CHUNK
    while True:
        picked = [
            (c, int(i))
            for c, count in zip(present, counts, strict=True)
            for i in _cycled(len(c.samples), chunk * count, count, recipe.seed)
        ]
        picked.sort(key=lambda ci: len(ci[0].ids[ci[1]]))
        order = np.random.default_rng([recipe.seed, chunk]).permutation(_CHUNK)
        for at in order[skip:]:
            members = picked[at * recipe.batch : (at + 1) * recipe.batch]
            # A generator a batch: a resumed run draws the same views and votes.
            rng = np.random.default_rng([recipe.seed, chunk, at])
            parts = [[m for m in members if (m[0].style == "describe") == described] for described in (False, True)]
            parts = [part for part in parts if part] if apart else [members]
            yield [collate(part, tokenizer, rng, recipe.known_votes, recipe.mirror) for part in parts]
        chunk, skip = chunk + 1, 0


_CHUNK = 64


def _cycled(size: int, start: int, count: int, seed: int) -> Iterator[int]:
    """`count` indices from `start` on, of one permutation after another."""
    epoch = -1
    for position in range(start, start + count):
        if position // size != epoch:
            epoch = position // size
            order = np.random.default_rng([seed, size, epoch]).permutation(size)
        yield int(order[position % size])


def collate(
    picked: Sequence[tuple[Corpus, int]],
    tokenizer: CaptionTokenizer,
    rng: np.random.Generator | None,
    known: float = 0.0,
    mirror: float = 0.0,
) -> Batch:
    """Captions padded to one length; a random view and sometimes the votes with `rng`, the picture itself without."""
    grids, prefixes = [], []
    for c, i in picked:
        voted = rng is not None and c.votes[i] >= 0 and rng.random() < known
        prefixes.append(tokenizer.prefix(c.style, int(c.votes[i]) if voted else None))
        view = int(rng.integers(c.views)) if rng is not None else 0
        grid = c.grids[c.rows[i] + view]
        grids.append(_mirrored(grid) if mirror and rng and c.name != "meme" and rng.random() < mirror else grid)
    counted, evidence = _evidence(picked)
    return Batch(
        torch.from_numpy(np.stack(grids)),
        *padded(prefixes, [c.ids[i] for c, i in picked], tokenizer.pad),
        torch.from_numpy(counted),
        torch.from_numpy(evidence),
        all(c.style == "describe" for c, _ in picked),
    )


def padded(prefixes: Sequence[Sequence[int]], captions: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Captions behind their prefixes of two, as tokens that are read and targets (B, T), -1 where nothing is asked."""
    longest = max(map(len, captions))
    tokens = np.full((len(captions), longest + 1), pad, np.int64)
    targets = np.full((len(captions), longest + 1), -1, np.int64)
    for row, (prefix, ids) in enumerate(zip(prefixes, captions, strict=True)):
        tokens[row, :2] = prefix
        tokens[row, 2 : len(ids) + 1] = ids[:-1]
        targets[row, 1 : len(ids) + 1] = ids
    return torch.from_numpy(tokens), torch.from_numpy(targets)


def _mirrored(grid: np.ndarray) -> np.ndarray:
    """A square grid (R, D) with left and right swapped."""
    side = math.isqrt(len(grid))
    return grid.reshape(side, side, -1)[:, ::-1].reshape(grid.shape)


def _evidence(picked: Sequence[tuple[Corpus, int]]) -> tuple[np.ndarray, np.ndarray]:
    """What counts say about the captions' ids, one after another: log-probabilities (N,) and features (N, F)."""
    logs, rows = [], []
    for c, i in picked:
        size = len(c.ids[i])
        if c.evidence is None:
            logs.append(np.full(size, NEVER, np.float32))
            rows.append(np.zeros((size, ORDER + 1), np.float32))
        else:
            part = c.evidence[int(c.counted[i]) : int(c.counted[i]) + size]
            logs.append(np.log(part.probability).astype(np.float32))
            rows.append(part.features())
    return np.concatenate(logs), np.concatenate(rows)
