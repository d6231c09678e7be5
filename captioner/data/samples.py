"""What every importer yields, how it is cleaned, and how it is split."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from captioner import filter as block
from captioner.tokenizer import normalise

MAX_CHARACTERS = 240
MAX_BOXES = 6
DEV_SHARE = 0.02

_URL = re.compile(
    r"https?:|www\.|\.(?:com|net|org|io|ly|gg|tv|co)\b|\w@\w|imgflip|memegenerator|quickmeme|meme generator"
)
_BEGGING = re.compile(r"up ?vot|down ?vot|front page|\bsubscribe\b|\bfollow me\b|\bmy stream\b|#\w+ #\w+|comment below")
_STUTTER = re.compile(r"(.)\1{7,}|\b(\w+)(?: \2\b){4,}")


@dataclass(frozen=True, slots=True)
class Sample:
    """One caption of one picture."""

    picture: Path
    boxes: tuple[str, ...]
    style: str
    template: str | None = None
    percentile: float | None = None
    """The share of comparable captions with fewer votes, 0 to 1: same template, same decile of views."""
    split: str | None = None
    """`train`, `dev` or `test` where the data set says so; else `split_of` decides by the text."""

    @property
    def text(self) -> str:
        return " ".join(self.boxes)


def cleaned(samples: Iterable[Sample], dropped: Counter[str]) -> Iterator[Sample]:
    """Normalised samples worth learning from; `dropped` counts the others by reason.

    A description is never a duplicate of another picture's: two dogs may both run through grass.
    """
    seen: set[tuple[str | None, str]] = set()
    for sample in samples:
        boxes = tuple(filter(None, map(normalise, sample.boxes)))
        sample = replace(sample, boxes=boxes)
        reason = why_dropped(boxes, sample.style)
        key = (sample.template or sample.picture.name, _words(sample.text))
        if reason is None and key in seen:
            reason = "duplicate"
        if reason is not None:
            dropped[reason] += 1
            continue
        seen.add(key)
        yield sample


def why_dropped(boxes: tuple[str, ...], style: str = "meme") -> str | None:
    """The reason why normalised boxes are no training text, or None."""
    text = " ".join(boxes)
    if not _words(text):
        return "empty"
    if len(text) > MAX_CHARACTERS or len(boxes) > MAX_BOXES:
        return "over-long"
    if _URL.search(text):
        return "address"
    if _BEGGING.search(text):
        return "begging for votes"
    if _STUTTER.search(text):
        return "stutter"
    return block.shipped().reason(text, style)


def split_of(sample: Sample) -> str:
    """The sample's split: the data set's own, else `dev` for a fiftieth of the texts, whatever picture they are on."""
    if sample.split:
        return sample.split
    digest = hashlib.blake2b(_words(sample.text).encode(), digest_size=8).digest()
    return "dev" if int.from_bytes(digest) / 2**64 < DEV_SHARE else "train"


def fingerprint(text: str) -> int:
    """32 bits of a caption, case, spacing and punctuation aside: to refuse copies of training captions."""
    return int.from_bytes(hashlib.blake2b(_words(text).encode(), digest_size=4).digest(), "little")


def _words(text: str) -> str:
    return " ".join(re.findall(r"\w+", normalise(text).replace("'", "")))
