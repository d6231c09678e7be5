"""Evaluation: how well a model predicts people's captions, and what its own are like."""

import math
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from captioner import data, metrics
from captioner.captioner import Captioner, Wish
from captioner.data.samples import Sample
from captioner.tokenizer import normalise

KEYS = (
    "bits_per_char", "perplexity", "bleu1", "bleu2", "bleu3", "bleu4", "rouge_l", "cider_d", "meteor", "spice",
    "distinct1", "distinct2", "self_bleu", "copy_rate", "recogniser_top1", "relevance_top1", "relevance_top5",
    "reward_accuracy", "ms_per_picture", "peak_rss_mb", "captions", "dropped", "pictures",
)  # fmt: skip
"""What `evaluate --json` prints; what was not measured is null."""

_BATCH = 16
_MEMES = 1000
"""Memes that are written for the figures about generated ones."""

Figures = dict[str, float | int | None]


def evaluate(captioner: Captioner, sets: dict[str, Path], split: str) -> Figures:
    """All figures of the sets' split (`train`, `dev`, `test`; `all` takes everything).

    Raises ValueError where nothing is in the split.
    """
    figures: Figures = dict.fromkeys(KEYS)
    samples, dropped = _samples(sets, split)
    if not samples:
        raise ValueError(f"There are no captions in the split {split}.")
    grids = _grids(captioner, sorted({s.picture for s in samples}))
    figures |= {"captions": len(samples), "dropped": dropped, "pictures": len(grids)}
    figures |= likelihood(captioner, samples, grids)
    described = [s for s in samples if s.style == "describe"]
    templates = sorted({s.picture for s in samples if s.style == "meme"})
    if described:
        figures |= descriptions(captioner, described, grids)
    if templates:
        figures |= memes(captioner, templates, grids)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    figures["peak_rss_mb"] = peak / (1e6 if sys.platform == "darwin" else 1e3)
    return figures


def likelihood(captioner: Captioner, samples: Sequence[Sample], grids: dict[Path, Tensor]) -> Figures:
    """Bits a character and perplexity a token: picture given, template not told, votes unknown.

    All bits count, separators and end included; characters are those of the normalised text, one for each separator and
    one for the end.
    """
    tokenizer, device = captioner.tokenizer, captioner.device
    ids = tokenizer.encode_batch([s.boxes for s in samples])
    order = sorted(range(len(samples)), key=lambda i: len(ids[i]))
    nats, tokens = 0.0, 0
    for start in tqdm(range(0, len(order), _BATCH), desc="likelihood", file=sys.stderr, disable=None):
        members = order[start : start + _BATCH]
        rows = [tokenizer.prefix(samples[i].style) + ids[i] for i in members]
        length = max(map(len, rows))
        padded = torch.tensor([row + [tokenizer.pad] * (length - len(row)) for row in rows], device=device)
        places = torch.arange(length - 1, device=device)
        lengths = torch.tensor([len(row) for row in rows], device=device).unsqueeze(1)
        keep = (places >= 1) & (places < lengths - 1)  # what the vote token and every word after it predict
        with torch.inference_mode():
            grid = torch.cat([grids[samples[i].picture] for i in members])
            logits = captioner.decoder(grid, padded[:, :-1], keep)
            nats += F.cross_entropy(logits, padded[:, 1:][keep], reduction="sum").item()
        tokens += sum(len(ids[i]) for i in members)
    characters = sum(len(box) + 1 for s in samples for box in s.boxes)
    return {"bits_per_char": nats / math.log(2) / characters, "perplexity": math.exp(nats / tokens)}


def descriptions(captioner: Captioner, samples: Sequence[Sample], grids: dict[Path, Tensor]) -> Figures:
    """BLEU, ROUGE-L and CIDEr-D of the descriptions by beam search, against all of a picture's descriptions."""
    references: dict[Path, list[list[str]]] = defaultdict(list)
    for sample in samples:
        references[sample.picture].append(_words(sample.text))
    pictures = list(references)
    began = time.perf_counter()
    made = _decoded(captioner, [grids[p] for p in pictures], Wish("describe", "beam", 1), range(len(pictures)))
    spent = time.perf_counter() - began
    candidates = [_words(caption) for caption in made]
    refs = [references[p] for p in pictures]
    bleu = metrics.bleu(candidates, refs)
    return {
        **{f"bleu{n}": score for n, score in enumerate(bleu, 1)},
        "rouge_l": metrics.rouge_l(candidates, refs),
        "cider_d": metrics.cider_d(candidates, refs),
        "ms_per_picture": 1000 * spent / len(pictures),  # decoding only; memes overwrite it with theirs
    }


def memes(captioner: Captioner, pictures: Sequence[Path], grids: dict[Path, Tensor]) -> Figures:
    """Variety and copying of about a thousand memes, every picture equally often, each by its own seed.

    Copies are counted before the captioner refuses them.
    """
    jobs = [pictures[i % len(pictures)] for i in range(_MEMES)]
    known, captioner.fingerprints = captioner.fingerprints, captioner.fingerprints[:0]
    try:
        began = time.perf_counter()
        made = _decoded(captioner, [grids[p] for p in jobs], Wish(), range(_MEMES))
        spent = time.perf_counter() - began
    finally:
        captioner.fingerprints = known
    captions = [_words(caption) for caption in made]
    return {
        "distinct1": metrics.distinct(captions, 1),
        "distinct2": metrics.distinct(captions, 2),
        "self_bleu": metrics.self_bleu(captions),
        "copy_rate": sum(captioner.is_copy([caption]) for caption in made) / len(made),
        "ms_per_picture": 1000 * spent / len(made),
    }


def _samples(sets: dict[str, Path], split: str) -> tuple[list[Sample], int]:
    """Normalised samples of a split, nothing cleaned away but empty ones, which are counted."""
    samples: list[Sample] = []
    dropped = 0
    for name, folder in sets.items():
        for raw in data.load(name, folder):
            sample = replace(raw, boxes=tuple(filter(None, map(normalise, raw.boxes))))
            if split not in ("all", data.split_of(sample)):
                continue
            if sample.boxes:
                samples.append(sample)
            else:
                dropped += 1
    return samples, dropped


@torch.inference_mode()
def _grids(captioner: Captioner, pictures: Iterable[Path]) -> dict[Path, Tensor]:
    """Every picture's grid (1, R, D)."""
    grids = {}
    for picture in tqdm(list(pictures), desc="encode", unit="picture", file=sys.stderr, disable=None):
        image = captioner.read(picture.read_bytes()).image
        grids[picture] = captioner.encode([captioner.encoder.pixels([image])])
    return grids


def _decoded(captioner: Captioner, grids: Sequence[Tensor], wish: Wish, seeds: Sequence[int]) -> list[str]:
    """The best caption of every grid, boxes joined by blanks."""
    texts = []
    for start in tqdm(range(0, len(grids), _BATCH), desc="decode", file=sys.stderr, disable=None):
        batch = torch.cat(list(grids[start : start + _BATCH]))
        made = captioner.decode(batch, [wish] * len(batch), seeds[start : start + _BATCH])
        texts += [" ".join(m.captions[0].boxes) for m in made]
    return texts


def _words(text: str) -> list[str]:
    """Words without punctuation, as the usual tokenisers of captions leave them."""
    kept = "".join(c if c.isalnum() or c in "'-" else " " for c in text)
    return [w for w in kept.split() if w.strip("'-")]


def table(figures: dict[str, Any]) -> str:
    """The figures for people, what was not measured left out."""
    lines = [f"{k:18} {v:.4g}" if isinstance(v, float) else f"{k:18} {v}" for k, v in figures.items() if v is not None]
    return "\n".join(lines)
