"""A caption's words over the attention they paid to the picture, as one sheet (after Xu et al. 2015)."""

import io
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from captioner.fonts import Fonts

_CELL = 200
_LABEL = 30
_SIZE = 20
_GAP = 8
_COLUMNS = 4
"""As many as can be read where the sheet is shown on a page: the whole row has the width of a card there."""
_MOST = 30
"""Words of a sheet at most."""
_FLAT = 4
"""A place is at full heat with this many times its even share: who looked everywhere alike is not painted as if it had
looked somewhere."""
_HEATS = 0.0, 0.25, 0.5, 0.75, 1.0
_COLOURS = np.array([(0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)])  # matplotlib's inferno
_OUTLINED = 0.5
"""Regions that got at least this share of what the first one got are outlined, too."""


class NoAttentionError(ValueError):
    """The decoder looks at the whole picture at once; `str(error)` is a sentence that says so."""


def attention_map(
    image: Image.Image,
    pieces: Sequence[str],
    weights: np.ndarray,
    regions: np.ndarray | None = None,
    fonts: Fonts | None = None,
) -> bytes:
    """PNG of the RGB picture, and of it once more for every word, under a heat map of where the word looked.

    `weights` (T, R) has one row a piece. The R places are a square grid over the whole picture, or else `regions`
    (R, 4): left, top, right and bottom in shares of the picture's width and height. Of regions, the one that the word
    looked at most is outlined (after Anderson et al. 2018). Words are written in `fonts`, else in those installed.
    """
    fonts = fonts or Fonts.resolve()
    words = _words(pieces, weights)[:_MOST]
    small = image.copy()
    small.thumbnail((_CELL, _CELL))
    cells = [("", small)] + [(word, _under_heat(small, weight, regions)) for word, weight in words]
    columns = min(_COLUMNS, len(cells))
    width, height = _CELL + _GAP, small.height + _LABEL + _GAP
    sheet = Image.new("RGB", (columns * width + _GAP, math.ceil(len(cells) / columns) * height + _GAP), "#16161c")
    pen = ImageDraw.Draw(sheet)
    for i, (word, picture) in enumerate(cells):
        x, y = _GAP + i % columns * width, _GAP + i // columns * height
        sheet.paste(picture, (x + (_CELL - small.width) // 2, y))
        with fonts.lock:
            font = (fonts.face_for(word.upper()) or fonts.primary).at(_SIZE)
            pen.text((x + _CELL / 2, y + small.height + 4), _shortened(word.upper(), font), "white", font, "ma")
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def _shortened(word: str, font: ImageFont.FreeTypeFont) -> str:
    """The word, or as much of it as fits under its picture."""
    if font.getlength(word) <= _CELL:
        return word
    while word and font.getlength(word + "…") > _CELL:
        word = word[:-1]
    return word + "…"


def _words(pieces: Sequence[str], weights: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Pieces joined to words, their attention averaged; separators left out."""
    words: list[tuple[str, list[np.ndarray]]] = []
    for piece, weight in zip(pieces, weights, strict=False):
        if piece.startswith("<"):
            continue
        if piece.startswith("▁") or not words:
            words.append((piece.removeprefix("▁"), [weight]))
        else:
            words[-1] = (words[-1][0] + piece, [*words[-1][1], weight])
    return [(word or "·", np.mean(parts, 0)) for word, parts in words]


def _under_heat(image: Image.Image, weight: np.ndarray, regions: np.ndarray | None) -> Image.Image:
    """The picture in grey under the heat of weights (R,)."""
    heat = _of_grid(weight, image.size) if regions is None else _of_regions(weight, regions, image.size)
    colour = np.stack([np.interp(heat, _HEATS, channel) for channel in _COLOURS.T], -1)  # (h, w, 3)
    grey = np.asarray(image.convert("L").convert("RGB"))
    blended = Image.fromarray((0.45 * grey + 0.55 * colour).astype(np.uint8))
    if regions is not None:
        _outline(blended, weight, regions)
    return blended


def _of_grid(weight: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Weights (R,) of a square grid as heat (h, w) from 0 to 1."""
    side = math.isqrt(len(weight))
    if side * side != len(weight):
        raise ValueError(f"Attention to {len(weight)} places, which are no square grid.")
    places = Image.fromarray(weight.reshape(side, side).astype(np.float32))
    return _scaled(np.asarray(places.resize(size, Image.Resampling.BICUBIC)), float(weight.max()), len(weight))


def _of_regions(weight: np.ndarray, regions: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Heat (h, w): every point has the weights of all the regions that it lies in."""
    heat = np.zeros(size[::-1])
    for share, region in zip(weight, regions, strict=True):
        left, top, right, bottom = _pixels(region, size)
        heat[top : bottom + 1, left : right + 1] += share
    return _scaled(heat, float(heat.max()), len(weight))


def _scaled(heat: np.ndarray, most: float, places: int) -> np.ndarray:
    return np.clip(heat / max(most, _FLAT / places), 0, 1)


def _outline(image: Image.Image, weight: np.ndarray, regions: np.ndarray) -> None:
    pen = ImageDraw.Draw(image)
    for i in np.argsort(weight):
        if weight[i] >= _OUTLINED * weight.max():
            pen.rectangle(_pixels(regions[i], image.size), outline="white", width=3 if weight[i] == weight.max() else 1)


def _pixels(region: np.ndarray, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The first and the last pixels of a region: left, top, right, bottom."""
    last = np.array([*size, *size]) - 1
    left, top, right, bottom = np.round(np.clip(region, 0, 1) * last).astype(int).tolist()
    return left, top, max(left, right), max(top, bottom)
