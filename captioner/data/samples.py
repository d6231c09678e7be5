"""What every importer yields, how it is cleaned, and how it is split."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from captioner import filter as block
from captioner.data.near import NearDuplicates, frequencies
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
    """`train`, `dev` or `test` where the data set says so; else `split_of` decides."""
    exposure: int | None = None
    """The decile of views within the template, 0 the least seen; only captions of one decile have votes to compare."""

    @property
    def text(self) -> str:
        return " ".join(self.boxes)


def cleaned(
    samples: Iterable[Sample],
    dropped: Counter[str],
    before: Sequence[Sample] = (),
    split: Callable[[Sample], str] | None = None,
) -> Iterator[Sample]:
    """Normalised samples worth learning from; `dropped` counts the others by reason.

    A meme is left out that nearly repeats one of its template, or one of any template that falls on another side of
    `split`, by default `split_of`: neither tells about the other. `before` are cleaned samples of other sets, to be
    told apart from. A description is never a duplicate of another picture's: two dogs may both run through grass.
    """
    kept = list(_cleaned(samples, dropped))
    earlier = before if any(s.style == "meme" for s in kept) else ()
    words = [_word_set(s) for s in (*earlier, *kept)]
    within, across = (NearDuplicates(frequencies(words)) for _ in range(2))
    for i, (sample, mine) in enumerate(zip((*earlier, *kept), words, strict=True)):
        new = i >= len(earlier)
        if sample.style == "meme":
            side = (split or split_of)(sample)
            others = {"train", "dev", "test"} - {side}
            if new and (within.has(sample.template, mine) or any(across.has(other, mine) for other in others)):
                dropped["near-duplicate"] += 1
                continue
            within.add(sample.template, mine)
            across.add(side, mine)
        if new:
            yield sample


def _cleaned(samples: Iterable[Sample], dropped: Counter[str]) -> Iterator[Sample]:
    seen: set[tuple[str | Path, str]] = set()
    for sample in samples:
        boxes = tuple(filter(None, map(normalise, sample.boxes)))
        sample = replace(sample, boxes=boxes)
        reason = why_dropped(boxes, sample.style)
        key = (sample.template or sample.picture, _words(sample.text))
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
    """The sample's split: the data set's own, else `dev` for a fiftieth of the memes' texts, whatever they are on.

    And for a fiftieth of the described pictures: with four other descriptions of a picture learnt, the fifth is known.
    """
    if sample.split:
        return sample.split
    if sample.style == "describe":
        return split_of_picture(sample)
    return "dev" if _share(_words(sample.text)) < DEV_SHARE else "train"


def split_of_template(sample: Sample, share: float = 0.1) -> str:
    """`dev` for all memes of a tenth of the templates, whatever set they are from, so that no training saw these.

    What its set keeps for tests stays there.
    """
    if sample.split == "test":
        return "test"
    if sample.template is None:
        return split_of_picture(sample)
    return "dev" if _share(sample.template) < share else "train"


def split_of_picture(sample: Sample, share: float = 0.02) -> str:
    """The data set's own split, which goes by picture; else `dev` for a fiftieth of the pictures, by their names."""
    return sample.split or ("dev" if _share(sample.picture.name) < share else "train")


SPLITS: dict[str, Callable[[Sample], str]] = {
    "caption": split_of,
    "template": split_of_template,
    "picture": split_of_picture,
}
"""What may be held out: memes by their text beside described pictures, whole templates, or all pictures by name."""


def fingerprint(text: str) -> int:
    """32 bits of a caption, case, spacing and punctuation aside: to refuse copies of training captions."""
    return int.from_bytes(hashlib.blake2b(_words(text).encode(), digest_size=4).digest(), "little")


def told_apart(pictures: Iterable[Path]) -> dict[Path, str]:
    """A name for each picture: its file's, led by as many folders as tell it from the others of that name."""
    left, made, size = set(pictures), dict[Path, str](), 1
    while left:
        tails = {picture: "/".join(picture.parts[-size:]) for picture in left}
        often = Counter(tails.values())
        made |= {picture: tail for picture, tail in tails.items() if often[tail] == 1}
        left, size = left.difference(made), size + 1
    return made


def digest(samples: Iterable[Sample]) -> str:
    """Of captions with their splits and votes, and of their pictures' names: the same wherever the sets lie."""
    made = hashlib.blake2b(digest_size=8)
    for s in samples:
        facts = [s.picture.name, s.boxes, s.style, s.template, s.percentile, s.split, s.exposure]
        made.update(json.dumps(facts).encode())
    return made.hexdigest()


def _words(text: str) -> str:
    return " ".join(re.findall(r"\w+", normalise(text).replace("'", "")))


def _word_set(sample: Sample) -> frozenset[str]:
    return frozenset(_words(sample.text).split()) if sample.style == "meme" else frozenset()


def _share(key: str) -> float:
    """A number from 0 to 1 that is the key's own."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest()) / 2**64
