"""A folder of one's own: pictures, and `captions.jsonl` with a JSON object a caption.

    {"picture": "cat.jpg", "boxes": ["when the laser pointer", "is real"], "votes": 12, "views": 340, "template": "cat"}

Only `picture`, a path within the folder, and `boxes` are needed, the texts from top to bottom. `style` is `meme` (left
out) or `describe`; a meme's `template` is its picture's name where none is given; `split` may say `train`, `dev` or
`test`. Votes count against those of captions of the same template that were seen about as often, where views are known.
The file is UTF-8.
"""

import json
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from captioner.data.samples import Sample

_STYLES = "meme", "describe"
_SPLITS = None, "train", "dev", "test"
_BANDS, _IN_BAND = 10, 20
"""Bands of views at most, and captions of a band at least."""


def load(folder: Path) -> Iterator[Sample]:
    """Every caption. Raises FileNotFoundError without captions.jsonl, ValueError that names a line that is none."""
    file = folder / "captions.jsonl"
    if not file.is_file():
        raise FileNotFoundError(f"{folder} has no captions.jsonl.")
    templates: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for number, line in enumerate(_lines(file), 1):
        if line.strip():
            caption = _caption(folder, line, f"{file}, line {number}")
            templates[caption["template"]].append(caption)
    for captions in templates.values():
        yield from _samples(folder, captions)


def _lines(file: Path) -> list[str]:
    """Split where lines end and nowhere else: a text may hold U+2028, which `str.splitlines` takes for an end."""
    try:
        return file.read_text("utf-8-sig").split("\n")  # some editors begin a file with a byte order mark
    except UnicodeDecodeError:
        raise ValueError(f"{file} is not in UTF-8.") from None


def _samples(folder: Path, captions: list[dict[str, Any]]) -> Iterator[Sample]:
    """The captions of one template."""
    standings = _standings(captions)
    for i, caption in enumerate(captions):
        meme = caption["style"] == "meme"
        percentile, band = standings.get(i, (None, None)) if meme else (None, None)
        template = caption["template"] if meme else None
        picture, boxes = folder / caption["picture"], tuple(caption["boxes"])
        yield Sample(picture, boxes, caption["style"], template, percentile, caption.get("split"), band)


def _standings(captions: list[dict[str, Any]]) -> dict[int, tuple[float, int]]:
    """For captions with votes: the share of their band with fewer, ties counted half, and the number of the band."""
    known = [i for i, caption in enumerate(captions) if "votes" in caption]
    if any("views" in captions[i] for i in known):
        known = sorted((i for i in known if "views" in captions[i]), key=lambda i: captions[i]["views"])
        bands = min(_BANDS, max(1, len(known) // _IN_BAND))
    else:
        bands = 1
    members: dict[int, list[int]] = defaultdict(list)
    for rank, i in enumerate(known):
        members[rank * bands // len(known)].append(i)
    standings = {}
    for band, inside in members.items():
        ordered = sorted(captions[i]["votes"] for i in inside)
        for i in inside:
            votes = captions[i]["votes"]
            below = (bisect_left(ordered, votes) + bisect_right(ordered, votes)) / 2
            standings[i] = below / len(ordered), band
    return standings


def _caption(folder: Path, line: str, where: str) -> dict[str, Any]:
    try:
        caption = json.loads(line)
    except ValueError:
        raise ValueError(f"{where} is no JSON.") from None
    if not isinstance(caption, dict) or not isinstance(caption.get("picture"), str):
        raise ValueError(f"{where} names no picture.")
    boxes = caption.get("boxes")
    if not isinstance(boxes, list) or not all(isinstance(box, str) for box in boxes):
        raise ValueError(f"{where} has no boxes, a list of texts.")
    picture = Path(caption["picture"])
    if picture.is_absolute() or ".." in picture.parts or not (folder / picture).is_file():
        raise ValueError(f"{where}: there is no picture {picture} in {folder}.")
    caption = {"style": "meme", "template": picture.stem} | caption
    if not isinstance(caption["template"], str):
        raise ValueError(f"{where}: a template is a name.")
    if caption["style"] not in _STYLES or caption.get("split") not in _SPLITS:
        raise ValueError(f"{where}: style is meme or describe, split is train, dev or test.")
    numbers = {key: caption[key] for key in ("votes", "views") if caption.get(key) is not None}
    if not all(isinstance(number, int | float) for number in numbers.values()):
        raise ValueError(f"{where}: votes and views are numbers.")
    return {key: value for key, value in caption.items() if key not in ("votes", "views")} | numbers
