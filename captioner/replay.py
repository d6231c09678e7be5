"""Texts that a fine-tuned model should still find likely, and pictures to try models on; nothing is downloaded.

Where public data is at hand, the texts are people's; else they are drawn from the model itself, on pictures whose
features chats left, or on made-up ones: what a model says of shapes and colours is still what it says.
"""

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter
from torch import Tensor

from captioner import data
from captioner.checkpoint import Checkpoint
from captioner.data.samples import Sample
from captioner.images import opened
from captioner.labels import Labels, unpacked
from captioner.mixture import NEVER
from captioner.search import Lane, Rules, Search, search

FEWEST = 24
"""Pictures below which made-up ones are added."""
_MEMES = Search("sample", 8, 28, 1.0, max_boxes=2, least=6)
_DESCRIPTION = Search("beam", 2, 24, max_boxes=1, early=True)
_BATCH = 16


class Text(NamedTuple):
    """Ids of a caption, its style, its picture's place among the grids or None for the mean picture, and its votes."""

    ids: list[int]
    style: str
    grid: int | None
    up: float = 0.0
    down: float = 0.0


@dataclass(frozen=True)
class Replay:
    """Grids (R, D), and captions on them."""

    grids: list[np.ndarray]
    texts: list[Text]


def replay(checkpoint: Checkpoint, labels: Labels, sets: dict[str, Path], texts: int, seed: int) -> Replay:
    """About so many texts: people's where there are data sets, else the checkpoint's own."""
    if sets:
        return _peoples(checkpoint, sets, texts, seed)
    found = grids(checkpoint, labels, max(1, texts // 9), seed)
    return Replay(found, written(checkpoint, found, seed))


def grids(checkpoint: Checkpoint, labels: Labels, count: int, seed: int) -> list[np.ndarray]:
    """Grids of pictures that chats consented to, evenly picked, filled up with made-up ones to `FEWEST`."""
    kept = [m.features for m in labels.memes if m.features]
    step = max(1, len(kept) // count)
    found = [unpacked(features) for features in kept[::step][:count]]
    return found + encoded(checkpoint, (made_up(seed, i) for i in range(min(count, FEWEST) - len(found))))


@torch.inference_mode()
def encoded(checkpoint: Checkpoint, pictures: Iterable[Image.Image]) -> list[np.ndarray]:
    encoder = checkpoint.build_encoder()
    return [checkpoint.reduction(encoder(encoder.pixels([p])))[0].numpy() for p in pictures]


@torch.inference_mode()
def written(checkpoint: Checkpoint, grids: Sequence[np.ndarray], seed: int) -> list[Text]:
    """Eight memes and a description of every grid, as the checkpoint writes them: nothing blocked, nothing ranked."""
    checkpoint.decoder.refresh()
    rules = Rules(checkpoint.tokenizer, torch.device("cpu"), checkpoint.decoder.shortlist)
    texts: list[Text] = []
    for start in range(0, len(grids), _BATCH):
        stack = torch.from_numpy(np.stack(grids[start : start + _BATCH])).float()
        lanes = [
            Lane(i, checkpoint.prefix(style), how, seed + start + i)
            for i in range(len(stack))
            for style, how in (("meme", _MEMES), ("describe", _DESCRIPTION))
        ]
        found = search(checkpoint.decoder, rules, stack, lanes, checkpoint.mixture)
        for lane, hypotheses in zip(lanes, found, strict=True):
            style = "meme" if lane.how is _MEMES else "describe"
            texts += [Text(list(h.ids), style, start + lane.picture) for h in hypotheses]
    checkpoint.decoder.refresh()
    return texts


def logprob(checkpoint: Checkpoint, decoder: torch.nn.Module, grids: Tensor, texts: Sequence[Text]) -> Tensor:
    """Log-likelihood (B,) of captions on grids (B, R, D), network and counts mixed."""
    tokens, targets, keep = padded(checkpoint, texts)
    found = checkpoint.gate.likelihood(decoder(grids, tokens, keep), targets[keep], *_counted(checkpoint, texts))
    rows = torch.arange(len(texts)).unsqueeze(1).expand_as(keep)[keep]
    return torch.zeros(len(texts)).index_add(0, rows, found)


def padded(checkpoint: Checkpoint, texts: Sequence[Text]) -> tuple[Tensor, Tensor, Tensor]:
    """What a decoder reads, what should follow each token, and where that is asked, all (B, T)."""
    longest = max(len(t.ids) for t in texts)
    tokens = torch.full((len(texts), longest + 1), checkpoint.tokenizer.pad)
    targets = torch.full((len(texts), longest + 1), -1)
    for row, text in enumerate(texts):
        tokens[row, : len(text.ids) + 1] = torch.tensor([*checkpoint.prefix(text.style), *text.ids[:-1]])
        targets[row, 1 : len(text.ids) + 1] = torch.tensor(text.ids)
    return tokens, targets, targets >= 0


def _counted(checkpoint: Checkpoint, texts: Sequence[Text]) -> tuple[Tensor, Tensor]:
    """What the counts say about all ids, one caption after another; of descriptions they know nothing."""
    logs, rows = [], []
    for text in texts:
        if checkpoint.mixture is not None and checkpoint.mixture.mixes(checkpoint.prefix(text.style)):
            log, row = checkpoint.mixture.evidence([text.ids])
        else:
            width = checkpoint.gate.weigh.in_features
            log, row = torch.full((len(text.ids),), NEVER), torch.zeros(len(text.ids), width)
        logs.append(log)
        rows.append(row)
    return torch.cat(logs), torch.cat(rows)


def made_up(seed: int, number: int, side: int = 240) -> Image.Image:
    """A picture of nothing: a few soft shapes in colours on a gradient."""
    rng = random.Random(f"{seed} {number}")  # noqa: S311, no secret
    colours = [tuple(rng.randrange(256) for _ in range(3)) for _ in range(9)]
    image = Image.composite(
        Image.new("RGB", (side, side), colours[0]),
        Image.new("RGB", (side, side), colours[1]),
        Image.linear_gradient("L").resize((side, side)).rotate(rng.choice((0, 90, 180, 270))),
    )
    pen = ImageDraw.Draw(image)
    for colour in colours[2:]:
        x, y, size = rng.randrange(side), rng.randrange(side), rng.randrange(10, side // 2)
        shape = rng.choice((pen.ellipse, pen.rectangle))
        shape((x, y, x + size, y + rng.randrange(10, side // 2)), fill=colour)
    return image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 3)))


def _peoples(checkpoint: Checkpoint, sets: dict[str, Path], count: int, seed: int) -> Replay:
    """Captions of the sets, cleaned as for training, on at most a picture for ten of them."""
    samples = [s for name, folder in sets.items() for s in data.load(name, folder)]
    picked = random.Random(seed).sample(samples, min(4 * count, len(samples)))  # noqa: S311, no secret
    pictures: dict[Path, int] = {}
    chosen: list[Sample] = []
    for sample in data.cleaned(picked, Counter()):
        if len(chosen) < count and (sample.picture in pictures or len(pictures) < max(1, count // 10)):
            pictures.setdefault(sample.picture, len(pictures))
            chosen.append(sample)
    if not chosen:
        raise ValueError(f"There are no captions to replay in {', '.join(map(str, sets.values()))}.")
    ids = checkpoint.tokenizer.encode_batch([s.boxes for s in chosen])
    texts = [Text(row, s.style, pictures[s.picture]) for row, s in zip(ids, chosen, strict=True)]
    return Replay(encoded(checkpoint, (opened(p).image for p in pictures)), texts)
