"""Corpora become batches: padded captions, a view of each picture, and what counts say.

Their order is a function of seed and step, so that a run which was cut off goes on as if it had not been.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice

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
    grid: Tensor  # (P, R, D), each for B / P adjacent captions; in half precision until it is where it is learnt from
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
    """Batches from a step on.

    They come in chunks: so many captions of each corpus as its share says, sorted by length, so that little is padded,
    cut into batches, and these shuffled. Where descriptions are learnt in another way, they are a part of their own.
    With `together` in the recipe a batch is of groups of captions of one picture, as many as fit into it. Raises what
    `shares` raises.
    """
    apart = bool(recipe.describe_dropout or recipe.describe_smoothing)
    present = [c for c in corpora if c.samples]
    size = max(1, recipe.batch // recipe.together)
    counts, groups = _counts(present, recipe, _CHUNK * size), [_grouped(c, recipe) for c in present]
    chunk, skip = divmod(step, _CHUNK)
    while True:
        picked = [
            (corpus, members[i])
            for corpus, members, count in zip(present, groups, counts, strict=True)
            for i in _cycled(len(members), chunk * count, count, recipe.seed)
        ]
        picked.sort(key=lambda group: max(len(group[0].ids[i]) for i in group[1]))
        for number in np.random.default_rng([recipe.seed, chunk]).permutation(_CHUNK)[skip:]:
            batch = picked[number * size : (number + 1) * size]
            # A generator a batch: a resumed run draws the same views and votes.
            rng = np.random.default_rng([recipe.seed, chunk, number])
            parts = [[g for g in batch if (g[0].style == "describe") == described] for described in (False, True)]
            parts = [part for part in parts if part] if apart else [batch]
            yield [collate(part, tokenizer, rng, recipe.known_votes, recipe.mirror) for part in parts]
        chunk, skip = chunk + 1, 0


_CHUNK = 64
"""Batches of a chunk."""


def shares(names: Sequence[str], recipe: Recipe) -> np.ndarray:
    """What each of the named corpora gives, as shares of one; those of what is not there go to the others.

    Memes fill what the recipe's shares leave. Raises ValueError where that is less than nothing, and where nothing is
    left to learn from.
    """
    told = {"describe": recipe.describe_share, "pair": recipe.pair_share}
    if recipe.taught:
        told["taught"] = recipe.taught_share
    rest = 1 - sum(told.values())
    rest = 0.0 if abs(rest) < 1e-9 else rest  # as people add
    if rest < 0 and "meme" in names:
        given = " and ".join(f"{name}_share={share:g}" for name, share in told.items())
        raise ValueError(f"{given} leave memes no share of what is learnt from: together they may be 1.")
    wanted: np.ndarray = np.array([told.get(name, rest) for name in names])
    if not wanted.any():
        raise ValueError(f"Nothing is left to learn from: the share of {' and '.join(names)} is 0.")
    return np.asarray(wanted / wanted.sum())


def _counts(corpora: Sequence[Corpus], recipe: Recipe, all_: int) -> list[int]:
    """How many of a chunk's groups each corpus gives."""
    wanted = shares([c.name for c in corpora], recipe)
    counts: list[int] = np.round(wanted * all_).astype(int).tolist()
    counts[int(np.argmax(wanted > 0))] += all_ - sum(counts)
    return counts


def _grouped(corpus: Corpus, recipe: Recipe) -> list[list[int]]:
    """Captions in groups of one picture, all of a size: where a picture has too few for its last, some stand twice."""
    if recipe.together == 1:
        return [[i] for i in range(len(corpus.samples))]
    of: dict[int, list[int]] = defaultdict(list)
    for i in np.random.default_rng([recipe.seed, len(corpus.samples)]).permutation(len(corpus.samples)):
        of[int(corpus.rows[i])].append(int(i))
    starts = ((members, start) for members in of.values() for start in range(0, len(members), recipe.together))
    return [list(islice(cycle(members), start, start + recipe.together)) for members, start in starts]


def _cycled(size: int, start: int, count: int, seed: int) -> Iterator[int]:
    """`count` indices from `start` on, of one permutation after another."""
    epoch = -1
    for position in range(start, start + count):
        if position // size != epoch:
            epoch = position // size
            order = np.random.default_rng([seed, size, epoch]).permutation(size)
        yield int(order[position % size])


def collate(
    picked: Sequence[tuple[Corpus, Sequence[int]]],
    tokenizer: CaptionTokenizer,
    rng: np.random.Generator | None,
    known: float = 0.0,
    mirror: float = 0.0,
) -> Batch:
    """Groups of captions, each of one picture, padded to one length.

    A random view and sometimes the votes with `rng`, the picture itself without.
    """
    grids, prefixes = [], []
    for c, group in picked:
        for i in group:
            voted = rng is not None and c.votes[i] >= 0 and rng.random() < known
            prefixes.append(tokenizer.prefix(c.style, int(c.votes[i]) if voted else None))
        view = int(rng.integers(c.views)) if rng is not None else 0
        grid = c.grids[c.rows[group[0]] + view]
        grids.append(_mirrored(grid) if mirror and rng and c.name != "meme" and rng.random() < mirror else grid)
    single = [(c, i) for c, group in picked for i in group]
    counted, evidence = _evidence(single)
    return Batch(
        torch.from_numpy(np.stack(grids)),
        *padded(prefixes, [c.ids[i] for c, i in single], tokenizer.pad),
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
