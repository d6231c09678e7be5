"""The captions that a training learns from, as ids beside the views of their pictures."""

import json
import zlib
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from captioner import data, devices
from captioner.checkpoint import Checkpoint
from captioner.data.pairs import pairs
from captioner.data.samples import Sample, told_apart
from captioner.features import Features, features
from captioner.ngrams import Evidence, KneserNey, NGrams
from captioner.recipe import Recipe
from captioner.tokenizer import STYLES, VOTES, CaptionTokenizer

_NAMES = {"meme": "memes", "describe": "descriptions"}


@dataclass(frozen=True)
class Corpus:
    """Captions as ids, ready to be batched: `ids[i]` belong to the views from `rows[i]` on.

    `votes[i]` is the caption's vote bucket, -1 for unknown. What counts say about its ids begins at `counted[i]` of the
    evidence.
    """

    name: str
    """`meme`, `describe`, `taught`: descriptions by teachers, or `pair`: memes with photographs that they were not
    written for."""

    samples: list[Sample]
    ids: list[list[int]]
    rows: np.ndarray
    views: int
    votes: np.ndarray
    grids: np.ndarray
    style: str
    evidence: Evidence | None
    counted: np.ndarray


def read(sets: dict[str, Path], by: str = "caption") -> tuple[list[Sample], dict[str, Counter[str]]]:
    """All data sets cleaned, to be split `by` one of `data.SPLITS`; with the counts of what was dropped, by reason.

    Raises ValueError for a set of which nothing is kept, and what its importer raises.
    """
    samples: list[Sample] = []
    dropped: dict[str, Counter[str]] = {}
    for name, folder in sets.items():
        dropped[name] = Counter()
        before = len(samples)
        samples += data.cleaned(data.load(name, folder), dropped[name], tuple(samples), data.SPLITS[by])
        reasons = ", ".join(f"{count} {reason}" for reason, count in dropped[name].most_common())
        print(f"{name}: {len(samples) - before} captions kept; dropped: {reasons or 'none'}")
        if len(samples) == before:
            raise ValueError(f"{folder} gives no caption of a picture to learn from.")
    return samples, dropped


def prepare(
    samples: Sequence[Sample], split: Sequence[str], checkpoint: Checkpoint, recipe: Recipe, run: Path
) -> dict[str, list[Corpus]]:
    """The corpora by split, features computed or read from the run's folder.

    The checkpoint learns here which styles it will know, whether votes were trained with, and the counts. Raises
    ValueError where the recipe names teachers' captions that cannot be read or speak of no picture described here.
    """
    grids = _grids(samples, checkpoint, recipe, run)
    had = checkpoint.styles if recipe.start else ()
    checkpoint.styles = tuple(style for style in STYLES if style in grids or style in had)
    if "meme" in grids or not recipe.start:
        checkpoint.votes = recipe.known_votes > 0
    corpora: dict[str, list[Corpus]] = {}
    counts: KneserNey | None = None
    for part in ("train", "dev"):  # counts are of what is trained on, which comes first
        members = [sample for sample, its_part in zip(samples, split, strict=True) if its_part == part]
        made = {
            style: corpus([s for s in members if s.style == style], checkpoint.tokenizer, of_style, style)
            for style, of_style in grids.items()
        }
        if recipe.counts and "meme" in made and made["meme"].ids:
            if part == "train":
                start, size = checkpoint.tokenizer.prefix("meme")[0], len(checkpoint.tokenizer)
                counts = KneserNey(made["meme"].ids, start, size)
                checkpoint.ngrams = NGrams.of(counts)
            if counts:
                made["meme"] = counted(made["meme"], counts, seen=part == "train")
        if {"meme", "describe"} <= made.keys():
            made["pair"] = paired(made["meme"], made["describe"].samples, grids["describe"], recipe)
        corpora[part] = list(made.values())
    _tell_unchecked(corpora)
    if recipe.taught:
        corpora["train"].append(taught(Path(recipe.taught), corpora["train"], checkpoint.tokenizer))
    return corpora


def _tell_unchecked(corpora: dict[str, list[Corpus]]) -> None:
    """Says of what is learnt where nothing is held out: such a run keeps what it learnt last, better or not."""
    for learnt, held in zip(corpora["train"], corpora["dev"], strict=True):
        if learnt.name in _NAMES and learnt.samples and not held.samples:
            print(f"No {_NAMES[learnt.name]} are held out to check on: nothing will tell when they are learnt.")


def _grids(samples: Sequence[Sample], checkpoint: Checkpoint, recipe: Recipe, run: Path) -> dict[str, Features]:
    """The views of the pictures of each style that there are any of."""
    encoder = checkpoint.build_encoder().to(devices.for_training(recipe.device))
    grids = {}
    for style, views in (("meme", recipe.template_views), ("describe", recipe.photograph_views)):
        pictures = sorted({s.picture for s in samples if s.style == style})
        if pictures:
            is_template = style == "meme"
            cache = run / "features"
            grids[style] = features(encoder, checkpoint.reduction, pictures, views, cache, template=is_template)
    return grids


def corpus(samples: list[Sample], tokenizer: CaptionTokenizer, grids: Features, style: str) -> Corpus:
    ids = tokenizer.encode_batch([s.boxes for s in samples])
    rows = np.array([grids.rows[s.picture].start for s in samples], np.int64)
    votes = np.array([-1 if s.percentile is None else min(VOTES - 1, int(s.percentile * VOTES)) for s in samples])
    return Corpus(style, samples, ids, rows, grids.views, votes, grids.grids, style, None, np.zeros(0, np.int64))


def counted(corpus: Corpus, counts: KneserNey, *, seen: bool) -> Corpus:
    """The corpus with what counts say about it; `seen` where the counts are its own."""
    starts = np.cumsum([0, *map(len, corpus.ids)])
    return replace(corpus, evidence=counts.evidence(corpus.ids, seen=seen), counted=starts)


def paired(memes: Corpus, described: list[Sample], grids: Features, recipe: Recipe) -> Corpus:
    """Memes with photographs of what they speak of."""
    made = pairs(described, memes.samples, recipe.pairs, recipe.seed)
    chosen = [i for _, i in made]
    return Corpus(
        "pair",
        [memes.samples[i] for i in chosen],
        [memes.ids[i] for i in chosen],
        np.array([grids.rows[picture].start for picture, _ in made], np.int64),
        grids.views,
        memes.votes[chosen],
        grids.grids,
        "meme",
        memes.evidence,
        memes.counted[chosen] if memes.evidence else memes.counted,
    )


def held_back(corpora: Sequence[Corpus], share: float, part: int = 0) -> tuple[list[Corpus], list[Corpus]]:
    """The corpora without, and those of people's descriptions with nothing but, a share of the photographs.

    `part` tells which: of 1 / share such parts each photograph is in one. Teachers' descriptions of them are left out;
    memes paired with them say too little.
    """
    kept, back = [], []
    for corpus in corpora:
        if not share or corpus.style != "describe":
            kept.append(corpus)
            continue
        places = [zlib.crc32(s.picture.name.encode()) % 1000 for s in corpus.samples]
        apart = [1000 * share * part <= place < 1000 * share * (part + 1) for place in places]
        kept.append(_part(corpus, [i for i, out in enumerate(apart) if not out]))
        if corpus.name == "describe":
            back.append(_part(corpus, [i for i, out in enumerate(apart) if out]))
    return kept, back


def taught_samples(file: Path, pictures: Collection[Path]) -> list[Sample]:
    """The captions of a file that `captioner.distil` wrote, as descriptions of those of the pictures that it names.

    Raises ValueError for another file, and where none of its pictures is among them.
    """
    try:
        by = {name: [str(text) for text in texts] for name, texts in json.loads(file.read_text("utf-8")).items()}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"{file} is no file of captions by teachers: {error}.") from error
    names = told_apart(pictures)
    samples = [Sample(p, (text,), "describe", split="train") for p in sorted(pictures) for text in by.get(names[p], ())]
    if not samples:
        raise ValueError(f"{file} speaks of none of the pictures that these data sets describe.")
    return samples


def taught(file: Path, corpora: Sequence[Corpus], tokenizer: CaptionTokenizer) -> Corpus:
    """`taught_samples` of the pictures that the corpora describe; raises what it raises."""
    described = next((c for c in corpora if c.name == "describe"), None)
    rows = {s.picture: row for s, row in zip(described.samples, described.rows, strict=True)} if described else {}
    samples = taught_samples(file, rows)
    assert described is not None
    return replace(
        described,
        name="taught",
        samples=samples,
        ids=tokenizer.encode_batch([s.boxes for s in samples]),
        rows=np.array([rows[s.picture] for s in samples], np.int64),
        votes=np.full(len(samples), -1),
    )


def _part(corpus: Corpus, members: list[int]) -> Corpus:
    """Some captions of a corpus that counts do not speak of."""
    samples, ids = [corpus.samples[i] for i in members], [corpus.ids[i] for i in members]
    return replace(corpus, samples=samples, ids=ids, rows=corpus.rows[members], votes=corpus.votes[members])
