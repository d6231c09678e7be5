"""ImgFlip575K: captions of popular templates, with the views and votes each got (`dataset/` as published)."""

import json
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from captioner.data.samples import Sample


def load(folder: Path) -> Iterator[Sample]:
    """Every caption; templates without a picture are left out. Raises FileNotFoundError for another layout."""
    root = folder / "dataset"
    if not (root / "memes").is_dir():
        raise FileNotFoundError(f"{folder} has no dataset/memes: not ImgFlip575K as published.")
    pictures = {p.stem: p for p in sorted((root / "templates" / "img").iterdir())}
    for file in sorted((root / "memes").glob("*.json")):
        if file.stem in pictures:
            memes = [m for m in json.loads(file.read_text("utf-8")) if isinstance(m, dict)]
            for meme, percentile, exposure in zip(memes, percentiles(memes), exposures(memes), strict=True):
                boxes = tuple(str(b) for b in meme.get("boxes") or () if b)
                yield Sample(pictures[file.stem], boxes, "meme", _name(file.stem), percentile, exposure=exposure)


def percentiles(memes: list[dict[str, Any]]) -> list[float | None]:
    """For each meme of a template the share of its decile of views with fewer votes, ties counted half.

    Raw votes mostly measure how often a meme was seen; within a decile of views that is even. None where views or
    votes are missing.
    """
    votes = [_number(m, "img-votes") or 0 for m in memes]
    deciles: dict[int, list[int]] = defaultdict(list)
    for i, decile in enumerate(exposures(memes)):
        if decile is not None:
            deciles[decile].append(i)
    result: list[float | None] = [None] * len(memes)
    for members in deciles.values():
        ordered = sorted(votes[i] for i in members)
        for i in members:
            result[i] = (bisect_left(ordered, votes[i]) + bisect_right(ordered, votes[i])) / 2 / len(ordered)
    return result


def exposures(memes: list[dict[str, Any]]) -> list[int | None]:
    """For each meme of a template its decile of views, 0 the least seen; None where views or votes are missing."""
    views = [_number(m, "views") for m in memes]
    known = [i for i, m in enumerate(memes) if views[i] is not None and _number(m, "img-votes") is not None]
    known.sort(key=lambda i: views[i] or 0)
    result: list[int | None] = [None] * len(memes)
    for rank, i in enumerate(known):
        result[i] = rank * 10 // len(known)
    return result


def _number(meme: dict[str, Any], key: str) -> int | None:
    value = (meme.get("metadata") or {}).get(key)
    try:
        return int(str(value).replace(",", ""))
    except ValueError:
        return None


def _name(stem: str) -> str:
    return stem.lower().replace("_", "-")
