"""Evaluation: how well a model predicts people's captions, and what its own are like."""

import math
import resource
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from captioner import data, metrics, outside_metrics
from captioner.captioner import Captioned, Captioner, Wish
from captioner.data.samples import Sample
from captioner.metrics import words
from captioner.mixture import NEVER
from captioner.relevance import TemplateReader
from captioner.tokenizer import normalise

KEYS = (
    "bits_per_char", "perplexity", "bleu1", "bleu2", "bleu3", "bleu4", "rouge_l", "cider_d", "meteor", "spice",
    "distinct1", "distinct2", "self_bleu", "copy_rate", "recogniser_top1", "relevance_top1", "relevance_top5",
    "reward_accuracy", "ms_per_picture", "peak_rss_mb", "captions", "dropped", "pictures",
    "meteor_1_5", "relevance_top1_people", "relevance_top5_people",
)  # fmt: skip
"""What `evaluate --json` prints; what was not measured is null. `meteor` is version 1.0, NLTK's."""

_BATCH = 16
_DESCRIBED = Wish("describe", "beam", 1)
_IDS = 4000
"""Ids of a batch at most: their attention and logits have to fit into memory."""
_MEMES = 1000
"""Memes that are written for the figures about generated ones."""
_COMPARED = 1000
"""People's captions of a template, of either side of the split, that generated ones are compared with at most."""
_OUTSIDE = {
    "meteor": outside_metrics.meteor_1_0,
    "meteor_1_5": outside_metrics.meteor_1_5,
    "spice": outside_metrics.spice,
}

Figures = dict[str, float | int | None]


def evaluate(captioner: Captioner, sets: dict[str, Path], split: str, by: str = "caption") -> Figures:
    """All figures of the sets' split (`train`, `dev`, `test`; `all` takes everything), `by` one of `data.SPLITS`.

    Raises ValueError where nothing is in the split.
    """
    figures: Figures = dict.fromkeys(KEYS)
    read = Read.of(sets, split, by)
    samples = read.samples
    if not samples:
        raise ValueError(f"There are no captions in the split {split}.")
    grids = _grids(captioner, sorted({s.picture for s in samples}))
    figures |= {"captions": len(samples), "dropped": read.dropped, "pictures": len(grids)}
    figures |= likelihood(captioner, samples, grids)
    told = describe(captioner, [s for s in samples if s.style == "describe"], grids)
    if told:
        figures |= descriptions(told)
    templates = {s.picture: s.template or s.picture.stem for s in samples if s.style == "meme"}
    if templates:
        figures |= memes(captioner, templates, grids, read)
        figures["reward_accuracy"] = captioner.ranker.reward.accuracy(samples) if captioner.ranker.reward else None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    figures["peak_rss_mb"] = peak / (1e6 if sys.platform == "darwin" else 1e3)
    if told:  # after the peak: WordNet is no part of what a picture costs
        figures |= {name: measure(told.captions, told.references) for name, measure in _OUTSIDE.items()}
    return figures


@dataclass
class Read:
    """What a split holds, normalised and nothing cleaned away, and people's memes to compare generated ones with."""

    samples: list[Sample] = field(default_factory=list)
    dropped: int = 0
    """Captions of the split without any text."""
    train: list[Sample] = field(default_factory=list)
    held: list[Sample] = field(default_factory=list)
    """At most so many memes a template of either side of `data.split_of`, whatever the split."""

    @classmethod
    def of(cls, sets: dict[str, Path], split: str, by: str) -> "Read":
        """Reads the sets; `by` is one of `data.SPLITS`."""
        read = cls()
        taken: Counter[tuple[str, str]] = Counter()
        for raw in (raw for name, folder in sets.items() for raw in data.load(name, folder)):
            sample = replace(raw, boxes=tuple(filter(None, map(normalise, raw.boxes))))
            mine = split in ("all", data.SPLITS[by](sample))
            read.dropped += mine and not sample.boxes
            if mine and sample.boxes:
                read.samples.append(sample)
            side = data.split_of(sample)
            if sample.template and sample.boxes and taken[sample.template, side] < _COMPARED:
                taken[sample.template, side] += 1
                (read.train if side == "train" else read.held).append(sample)
        return read


def likelihood(captioner: Captioner, samples: Sequence[Sample], grids: dict[Path, Tensor]) -> Figures:
    """Bits a character and perplexity a token: picture given, template not told, votes unknown.

    All bits count, separators and end included; characters are those of the normalised text, one for each separator and
    one for the end.
    """
    tokenizer, device = captioner.tokenizer, captioner.device
    ids = tokenizer.encode_batch([s.boxes for s in samples])
    counted = _counted(captioner, samples, ids)
    nats, tokens = 0.0, 0
    for members in tqdm(_alike(ids), desc="likelihood", file=sys.stderr, disable=None):
        rows = [tokenizer.prefix(samples[i].style) + ids[i] for i in members]
        length = max(map(len, rows))
        padded = torch.tensor([row + [tokenizer.pad] * (length - len(row)) for row in rows], device=device)
        places = torch.arange(length - 1, device=device)
        lengths = torch.tensor([len(row) for row in rows], device=device).unsqueeze(1)
        keep = (places >= 1) & (places < lengths - 1)  # what the vote token and every word after it predict
        with torch.inference_mode():
            grid = torch.cat([grids[samples[i].picture] for i in members])
            logits = captioner.decoder(grid, padded[:, :-1], keep)
            targets = padded[:, 1:][keep]
            if captioner.mixture is None or counted is None:
                nats += F.cross_entropy(logits, targets, reduction="sum").item()
            else:
                said = (torch.cat([part[i] for i in members]) for part in counted)
                nats -= captioner.mixture.gate.likelihood(logits, targets, *said).sum().item()
        tokens += len(targets)
    characters = sum(len(box) + 1 for s in samples for box in s.boxes)
    return {"bits_per_char": nats / math.log(2) / characters, "perplexity": math.exp(nats / tokens)}


def _alike(ids: Sequence[Sequence[int]]) -> list[list[int]]:
    """Batches of captions of like length, and never more than some thousand ids: people write long ones."""
    batches: list[list[int]] = [[]]
    for i in sorted(range(len(ids)), key=lambda i: len(ids[i])):
        if len(batches[-1]) == _BATCH or (len(batches[-1]) + 1) * len(ids[i]) > _IDS:
            batches.append([])
        batches[-1].append(i)
    return [batch for batch in batches if batch]


def _counted(
    captioner: Captioner, samples: Sequence[Sample], ids: Sequence[Sequence[int]]
) -> tuple[list[Tensor], list[Tensor]] | None:
    """What the model's counts say about every caption: log-probabilities (T,) and features (T, F) of each."""
    if captioner.mixture is None:
        return None
    mixed = [captioner.mixture.mixes(captioner.tokenizer.prefix(s.style)) for s in samples]
    known = [row for row, said in zip(ids, mixed, strict=True) if said]
    logs, rows = captioner.mixture.evidence(known or [[captioner.tokenizer.eos]])
    lengths = [len(row) for row in known]
    said = zip(*(torch.split(part[: sum(lengths)], lengths) for part in (logs, rows)), strict=True)
    found = [
        next(said) if mixes else (logs.new_full((len(row),), NEVER), rows.new_zeros(len(row), rows.shape[1]))
        for row, mixes in zip(ids, mixed, strict=True)
    ]
    return [log for log, _ in found], [row for _, row in found]


@dataclass(frozen=True)
class Told:
    """Descriptions of pictures beside all of a picture's own, as words."""

    captions: list[list[str]]
    references: list[list[list[str]]]
    ms_per_picture: float


def describe(captioner: Captioner, samples: Sequence[Sample], grids: dict[Path, Tensor]) -> Told | None:
    """Descriptions of the samples' pictures by beam search, as somebody is told who asks; None without pictures."""
    references: dict[Path, list[list[str]]] = defaultdict(list)
    for sample in samples:
        references[sample.picture].append(words(sample.text))
    pictures = list(references)
    if not pictures:
        return None
    made: list[Captioned] = []
    spent = 0.0
    for start in tqdm(range(0, len(pictures), _BATCH), desc="describe", file=sys.stderr, disable=None):
        batch = pictures[start : start + _BATCH]
        images = [captioner.opened(p).image for p in batch]
        looks = [captioner.look(image, grids[p]) for image, p in zip(images, batch, strict=True)]
        halfway = captioner.begin([captioner.encoder.pixels([image]) for image in images])
        whole, seeds = torch.cat([grids[p] for p in batch]), [0] * len(batch)
        began = time.perf_counter()
        made += captioner.decode(
            whole,
            [_DESCRIBED] * len(batch),
            seeds,
            dict(enumerate(looks)),
            partial(captioner.sight.classified, halfway),
        )
        spent += time.perf_counter() - began
    return Told([words(_text(m)) for m in made], [references[p] for p in pictures], 1000 * spent / len(pictures))


def descriptions(told: Told) -> Figures:
    """BLEU, ROUGE-L and CIDEr-D of descriptions."""
    bleu = metrics.bleu(told.captions, told.references)
    return {
        **{f"bleu{n}": score for n, score in enumerate(bleu, 1)},
        "rouge_l": metrics.rouge_l(told.captions, told.references),
        "cider_d": metrics.cider_d(told.captions, told.references),
        "ms_per_picture": told.ms_per_picture,  # decoding only; memes overwrite it with theirs
    }


def memes(captioner: Captioner, templates: dict[Path, str], grids: dict[Path, Tensor], read: Read) -> Figures:
    """Variety, copying and relevance of about a thousand memes, every picture equally often, each by its own seed.

    `templates` names the template of every picture. Copies are counted before the captioner refuses them.
    """
    pictures = sorted(templates)
    jobs = [pictures[i % len(pictures)] for i in range(_MEMES)]
    known, captioner.fingerprints = captioner.fingerprints, captioner.fingerprints[:0]
    try:
        began = time.perf_counter()
        made = _decoded(captioner, [grids[p] for p in jobs], Wish(), range(_MEMES))
        spent = time.perf_counter() - began
    finally:
        captioner.fingerprints = known
    captions = [words(_text(m)) for m in made]
    names = [templates[p] for p in jobs]
    return {
        "distinct1": metrics.distinct(captions, 1),
        "distinct2": metrics.distinct(captions, 2),
        "self_bleu": metrics.self_bleu(captions),
        "copy_rate": sum(captioner.is_copy([_text(m)]) for m in made) / len(made),
        "recogniser_top1": _recognised(made, names) if captioner.sight.templates else None,
        "ms_per_picture": 1000 * spent / len(made),
    } | relevance(captions, names, read)


def relevance(captions: Sequence[Sequence[str]], names: Sequence[str], read: Read) -> Figures:
    """How often the template can be read off generated captions, and off people's that are held out.

    The reader learns from people's other captions; both are judged on the same templates, equally often.
    """
    reader = TemplateReader([words(s.text) for s in read.train], [s.template or "" for s in read.train])
    left = Counter(names)
    theirs: list[Sample] = []
    for sample in read.held:
        if left[sample.template or ""] > 0:
            left[sample.template or ""] -= 1
            theirs.append(sample)
    held, labels = [words(s.text) for s in theirs], [s.template or "" for s in theirs]
    return {
        "relevance_top1": reader.accuracy(captions, names, 1),
        "relevance_top5": reader.accuracy(captions, names, 5),
        "relevance_top1_people": reader.accuracy(held, labels, 1),
        "relevance_top5_people": reader.accuracy(held, labels, 5),
    }


def _recognised(made: Sequence[Captioned], names: Sequence[str]) -> float:
    """The share of pictures whose template was named."""
    told = [m.template[0] if m.template else None for m in made]
    return sum(a == b for a, b in zip(told, names, strict=True)) / len(names)


@torch.inference_mode()
def _grids(captioner: Captioner, pictures: Iterable[Path]) -> dict[Path, Tensor]:
    """Every picture's grid (1, R, D)."""
    grids = {}
    for picture in tqdm(list(pictures), desc="encode", unit="picture", file=sys.stderr, disable=None):
        image = captioner.opened(picture).image
        grids[picture] = captioner.encode([captioner.encoder.pixels([image])])
    return grids


def _decoded(captioner: Captioner, grids: Sequence[Tensor], wish: Wish, seeds: Sequence[int]) -> list[Captioned]:
    """What the captioner makes of every grid."""
    made: list[Captioned] = []
    for start in tqdm(range(0, len(grids), _BATCH), desc="decode", file=sys.stderr, disable=None):
        batch = torch.cat(list(grids[start : start + _BATCH]))
        made += captioner.decode(batch, [wish] * len(batch), seeds[start : start + _BATCH])
    return made


def _text(captioned: Captioned) -> str:
    """The best caption, boxes joined by blanks."""
    return " ".join(captioned.captions[0].boxes)


def table(figures: dict[str, Any]) -> str:
    """The figures for people, what was not measured left out."""
    lines = [f"{k:18} {v:.4g}" if isinstance(v, float) else f"{k:18} {v}" for k, v in figures.items() if v is not None]
    return "\n".join(lines)
