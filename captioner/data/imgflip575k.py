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
            for meme, percentile in zip(memes, percentiles(memes), strict=True):
                boxes = tuple(str(b) for b in meme.get("boxes") or () if b)
                yield Sample(pictures[file.stem], boxes, "meme", _name(file.stem), percentile)


def percentiles(memes: list[dict[str, Any]]) -> list[float | None]:
    """For each meme of a template the share of its decile of views with fewer votes, ties counted half.

    Raw votes mostly measure how often a meme was seen; within a decile of views that is even. None where views or
    votes are missing.
    """
    facts = [(_number(m, "views"), _number(m, "img-votes")) for m in memes]
    ranked = sorted(i for i, (views, votes) in enumerate(facts) if views is not None and votes is not None)
    ranked.sort(key=lambda i: facts[i][0] or 0)
    deciles: dict[int, list[int]] = defaultdict(list)
    for rank, i in enumerate(ranked):
        deciles[rank * 10 // len(ranked)].append(i)
    result: list[float | None] = [None] * len(memes)
    for members in deciles.values():
        votes = sorted(facts[i][1] or 0 for i in members)
        for i in members:
            mine = facts[i][1] or 0
            result[i] = (bisect_left(votes, mine) + bisect_right(votes, mine)) / 2 / len(votes)
    return result


def _number(meme: dict[str, Any], key: str) -> int | None:
    value = (meme.get("metadata") or {}).get(key)
    try:
        return int(str(value).replace(",", ""))
    except ValueError:
        return None


def _name(stem: str) -> str:
    return stem.lower().replace("_", "-")
