"""What chats said of the captioner's own memes, read from a file of JSON lines and split by time.

    {"kind": "meme", "id", "boxes", "style", "template", "at", "chat", "model", "explored", "up", "down", "features",
     "candidates": [{"boxes"}, …]}
    {"kind": "pair", "better", "worse", "template", "chat", "at", "weight"}

`up` and `down` are votes after all caps, so need not be whole; `features` is the base64 of `packed`, or null. Other
keys are for people who want the data.
"""

import base64
import binascii
import json
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from captioner.tokenizer import normalise

HELD_OUT = 0.3
"""The share of the votes, the latest, that judges candidates and that no candidate learns from."""
_HEAD = struct.Struct("<HHI")
_MOST = 1 << 20
"""Numbers of a grid at most: what is unpacked may have been written by somebody else."""


class LabelsError(ValueError):
    """The labels cannot be used; the message is a sentence."""


class TooFewLabelsError(LabelsError):
    """There is not enough to learn from, or to judge by, yet; the message is a sentence."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A caption, normalised, with its votes; `at` unix seconds, `chat` any name that is the chat's own."""

    boxes: tuple[str, ...]
    template: str | None
    up: float
    down: float
    chat: str
    at: float

    @property
    def weight(self) -> float:
        return self.up + self.down


@dataclass(frozen=True, slots=True)
class Meme(Judged):
    """A meme that was shown; without votes it only tells that it was."""

    id: str
    explored: bool
    features: bytes | None = field(repr=False)
    """The picture's grid, `packed`, where the chat consented."""
    candidates: tuple[tuple[str, ...], ...] = field(default=(), repr=False)
    """What else was written for the picture."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two captions of one picture of which people chose one."""

    better: tuple[str, ...]
    worse: tuple[str, ...]
    template: str | None
    chat: str
    at: float
    weight: float


@dataclass(frozen=True, slots=True)
class Labels:
    """Memes that were voted on and pairs, each in the order of time."""

    memes: list[Meme]
    pairs: list[Pair]

    @property
    def votes(self) -> float:
        return sum(m.weight for m in self.memes)

    @property
    def downs(self) -> float:
        return sum(m.down for m in self.memes)


def read(file: Path) -> Labels:
    """The labels of a file. Raises LabelsError naming the line that is none, OSError for a file that cannot be read."""
    memes: list[Meme] = []
    pairs: list[Pair] = []
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                made = _parsed(json.loads(line))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise LabelsError(f"Line {number} of {file} is no label: {error!r}.") from error
            if isinstance(made, Pair):
                pairs.append(made)
            elif made is not None:
                memes.append(made)
    memes.sort(key=lambda m: (m.at, m.id))
    pairs.sort(key=lambda p: (p.at, p.better, p.worse))
    return Labels(memes, pairs)


def split(labels: Labels, held_out: float = HELD_OUT) -> tuple[Labels, Labels]:
    """What to learn from, and the latest votes to judge by: a function of the labels alone.

    Everything from the moment on at which `1 - held_out` of the votes were cast is held out.
    """
    left, total = (1 - held_out) * labels.votes, 0.0
    moment = float("inf")
    for meme in labels.memes:
        if total >= left:
            moment = meme.at
            break
        total += meme.weight
    return (
        Labels([m for m in labels.memes if m.at < moment], [p for p in labels.pairs if p.at < moment]),
        Labels([m for m in labels.memes if m.at >= moment], [p for p in labels.pairs if p.at >= moment]),
    )


def eyes(basis: np.ndarray) -> int:
    """A number that grids have in common which one reduction made, by its basis: others mean something else."""
    return zlib.crc32(basis.astype(np.float16).tobytes())


def packed(grid: np.ndarray, made_by: int = 0) -> bytes:
    """A grid (R, D) in 8 bits a number, every row scaled by its largest, compressed: some 15 kB."""
    scales = np.maximum(np.abs(grid).max(axis=1), 1e-6).astype("<f4")  # (R,)
    numbers = np.rint(grid / scales[:, None] * 127).astype(np.int8)
    return zlib.compress(_HEAD.pack(*grid.shape, made_by) + scales.tobytes() + numbers.tobytes())


def unpacked(data: bytes) -> np.ndarray:
    """The grid (R, D), float32, within a 254th of a row's largest number. Raises LabelsError for other bytes."""
    raw = _raw(data)
    rows, columns, _ = _HEAD.unpack_from(raw)
    scales = np.frombuffer(raw, "<f4", rows, _HEAD.size)
    numbers = np.frombuffer(raw, np.int8, rows * columns, _HEAD.size + 4 * rows).reshape(rows, columns)
    grid: np.ndarray = (numbers.astype(np.float32) * scales[:, None] / 127).astype(np.float32)
    return grid


def maker(data: bytes) -> int:
    """The `eyes` that made a packed grid. Raises LabelsError for other bytes."""
    return int(_HEAD.unpack_from(_raw(data))[2])


def _raw(data: bytes) -> bytes:
    try:
        raw = zlib.decompressobj().decompress(data, 5 * _MOST)
        rows, columns, _ = _HEAD.unpack_from(raw)
        if len(raw) != _HEAD.size + rows * (4 + columns):
            raise ValueError("they are of another size than they say")
    except (zlib.error, struct.error, ValueError) as error:
        raise LabelsError(f"The features of a picture cannot be read: {error}.") from error
    return raw


def seen_by(labels: Labels, made_by: int) -> Labels:
    """The labels without features that another model's eyes made."""
    memes = [
        m if m.features is None or maker(m.features) == made_by else replace(m, features=None) for m in labels.memes
    ]
    return Labels(memes, labels.pairs)


def _parsed(line: dict[str, Any]) -> Meme | Pair | None:
    """A pair, or a meme that somebody voted on; None for anything else."""
    if line["kind"] == "pair":
        better, worse = _boxes(line["better"]), _boxes(line["worse"])
        return Pair(better, worse, line["template"], str(line["chat"]), float(line["at"]), _votes(line["weight"]))
    if line["kind"] != "meme" or line.get("style", "meme") != "meme":
        return None
    up, down = _votes(line["up"]), _votes(line["down"])
    boxes = _boxes(line["boxes"])
    if not boxes or up + down <= 0:
        return None
    features = line.get("features")
    return Meme(
        boxes,
        line["template"],
        up,
        down,
        str(line["chat"]),
        float(line["at"]),
        str(line["id"]),
        bool(line.get("explored", False)),
        _bytes(features) if features else None,
        tuple(other for c in line.get("candidates") or () if (other := _boxes(c["boxes"])) and other != boxes),
    )


def _boxes(boxes: Sequence[str]) -> tuple[str, ...]:
    if isinstance(boxes, str):
        raise TypeError("boxes are a list")
    return tuple(filter(None, map(normalise, boxes)))


def _votes(number: Any) -> float:
    value = float(number)
    if not 0 <= value < float("inf"):
        raise ValueError(f"{number!r} is no number of votes")
    return value


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError("its features are no base64") from error
