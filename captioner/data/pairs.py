"""Photographs paired with memes that speak of what is on them.

Memes come on some eighty pictures, so they teach a network how memes talk but not to look. People's memes name dogs,
trains and swimming pools all the same: here each photograph of a described set is given memes with words on which its
descriptions agree. Nobody wrote them for that photograph, but somebody wrote them, as a meme, about that thing.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import numpy as np

from captioner.data.samples import Sample

_LINES = resources.files("captioner.data").joinpath("stopwords.txt").read_text("utf-8").splitlines()
_SECTIONS = [line for line in _LINES if not line.startswith("#")]
_TALK = _SECTIONS.index("[talk]")
STOP = frozenset(word for line in _SECTIONS[:_TALK] if not line.startswith("[") for word in line.split())
GRAMMAR = frozenset(" ".join(_SECTIONS[1 : _SECTIONS.index("[anywhere]")] + _SECTIONS[_TALK + 1 :]).split())
_LEAST = 2
"""Descriptions of a photograph that must agree on a word."""
_FEWEST = 8
"""Memes that must speak of a word."""
_DRAWN = 4
"""Memes that are drawn for a word; the one that shares most words with the photograph is taken."""
_LONGEST = 110
"""Characters: what is said of a photograph had better be short."""


def words(text: str) -> set[str]:
    """The words of a normalised text that may name something seen, plurals with an s undone."""
    return {singular(w) for w in re.findall(r"[a-z]{3,}", text) if w not in STOP}


def singular(word: str) -> str:
    plural = len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is"))
    return word[:-1] if plural else word


def pairs(described: Sequence[Sample], memes: Sequence[Sample], count: int, seed: int) -> list[tuple[Path, int]]:
    """About `count` memes for each described photograph: the photograph and the index of the meme.

    A word is picked by how many descriptions agree on it and how rare it is, then one of the memes with that word.
    """
    seen: dict[Path, Counter[str]] = defaultdict(Counter)
    for sample in described:
        seen[sample.picture].update(words(sample.text))
    frequency = Counter(word for counts in seen.values() for word in counts)
    named: dict[str, list[int]] = defaultdict(list)
    spoken = [words(meme.text) for meme in memes]
    for i, (meme, mine) in enumerate(zip(memes, spoken, strict=True)):
        for word in mine:
            if word in frequency and len(meme.text) <= _LONGEST:
                named[word].append(i)
    rng = np.random.default_rng(seed)
    made: list[tuple[Path, int]] = []
    for picture in sorted(seen):
        agreed = sorted(w for w, n in seen[picture].items() if n >= _LEAST and len(named[w]) >= _FEWEST)
        if not agreed:
            continue
        weights = np.array([seen[picture][w] * math.log(1 + len(seen) / frequency[w]) for w in agreed])
        for word in rng.choice(len(agreed), count, p=weights / weights.sum()):
            drawn = rng.choice(named[agreed[word]], _DRAWN)
            made.append((picture, int(max(drawn, key=lambda i: len(spoken[i] & seen[picture].keys())))))
    return made
