"""What groups of people captions speak of, and how: data before and after cleaning, and what a model writes of it.

A caption speaks of a group if it has one of the group's words (`data/groups.txt`), and ill of it, roughly, if it has
a negative word too. The figures show where to look; they judge no single caption.
"""

import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from importlib import resources
from itertools import chain
from pathlib import Path
from typing import Any

from tqdm import tqdm

from captioner import data
from captioner.captioner import Captioner, Wish
from captioner.data import Sample
from captioner.filter import pattern, sections, shipped
from captioner.tokenizer import normalise

_GENERATED = 1000
"""Memes that a model writes for its column."""
_BATCH = 8


@dataclass(frozen=True)
class Mentions:
    """Of some captions: how many, and the shares of them with a negative word and blocked at level `normal`."""

    captions: int
    negative: float
    blocked: float


@dataclass(frozen=True)
class Tally:
    """All captions of one column, and by group, named as in `gender: women`, those that speak of it."""

    all: Mentions
    groups: dict[str, Mentions]


def audit(sets: dict[str, Path], captioner: Captioner | None) -> dict[str, Tally]:
    """Tallies `before` and `after` cleaning, and `generated` on the sets' pictures where a model is given.

    Raises ValueError or FileNotFoundError for data that cannot be read.
    """
    raw = [_normalised(sample) for name, folder in sets.items() for sample in data.load(name, folder)]
    raw = [sample for sample in raw if sample.boxes]
    if not raw:
        raise ValueError("There are no captions to audit.")
    tallies = {"before": tally((s.text, s.style) for s in _told(raw, "before"))}
    kept = list(data.cleaned(_told(raw, "cleaning"), Counter()))
    tallies["after"] = tally((s.text, s.style) for s in kept)
    if captioner:
        tallies["generated"] = tally((text, "meme") for text in generated(captioner, sorted({s.picture for s in raw})))
    return tallies


def tally(captions: Iterable[tuple[str, str]]) -> Tally:
    """Counts captions, normalised texts with their styles."""
    groups, negative_words, anybody = lexicon()
    seen: Counter[str] = Counter()
    negative: Counter[str] = Counter()
    blocked: Counter[str] = Counter()
    for text, style in captions:
        spoken = [name for name, words in groups.items() if words.search(text)] if anybody.search(text) else []
        names = ["", *spoken]
        seen.update(names)
        if negative_words.search(text):
            negative.update(names)
        if shipped().blocks([text], style):
            blocked.update(names)
    found = {n: Mentions(seen[n], negative[n] / max(1, seen[n]), blocked[n] / max(1, seen[n])) for n in ("", *groups)}
    return Tally(found.pop(""), found)


@lru_cache(maxsize=1)
def lexicon() -> tuple[dict[str, re.Pattern[str]], re.Pattern[str], re.Pattern[str]]:
    """Patterns of every group's words, of the negative ones, and of any group's: most captions have none."""
    text = resources.files("captioner").joinpath("data/groups.txt").read_text("utf-8")
    found = {s.reason.replace("_", ": ", 1): s.entries for s in sections(text)}
    negative = found.pop("negative")
    groups = {name: pattern(entries) for name, entries in found.items()}
    return groups, pattern(negative), pattern(chain.from_iterable(found.values()))


def generated(captioner: Captioner, pictures: list[Path]) -> Iterator[str]:
    """The best meme of about a thousand pictures, or of fewer by several seeds, as the bot would say it."""
    step = max(1, len(pictures) // _GENERATED)
    picked = [pictures[i * step % len(pictures)] for i in range(_GENERATED)]
    for start in tqdm(range(0, _GENERATED, _BATCH), desc="generating", file=sys.stderr, disable=None):
        jobs = [
            (captioner.opened(picture), Wish(n=1, seed=start + i))
            for i, picture in enumerate(picked[start : start + _BATCH])
        ]
        for captioned in captioner.caption(jobs):
            yield " ".join(captioned.captions[0].boxes)


def table(tallies: dict[str, Tally]) -> str:
    """The tallies for people: of 10,000 captions how many speak of a group, and percentages of these."""
    header = "".join(f"{name:>10}{'negative':>10}{'blocked':>9}" for name in tallies)
    lines = [f"{'of 10,000 captions':24}{header}", _row("all", {k: t.all for k, t in tallies.items()}, tallies)]
    for group in next(iter(tallies.values())).groups:
        lines.append(_row(group, {k: t.groups[group] for k, t in tallies.items()}, tallies))
    return "\n".join(lines)


def as_json(tallies: dict[str, Tally]) -> dict[str, Any]:
    """The tallies as plain objects; `generated` is null without a model."""
    return {"generated": None} | {name: asdict(counted) for name, counted in tallies.items()}


def _row(name: str, mentions: dict[str, Mentions], tallies: dict[str, Tally]) -> str:
    cells = [
        f"{10_000 * m.captions / max(1, tallies[k].all.captions):10.1f}{m.negative:10.0%}{m.blocked:9.0%}"
        for k, m in mentions.items()
    ]
    return f"{name:24}" + "".join(cells)


def _normalised(sample: Sample) -> Sample:
    return replace(sample, boxes=tuple(filter(None, map(normalise, sample.boxes))))


def _told(samples: list[Sample], what: str) -> Iterable[Sample]:
    return tqdm(samples, desc=what, unit="caption", file=sys.stderr, disable=None)
