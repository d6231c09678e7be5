"""A caption's words over the attention they paid to the picture, as one sheet."""

import io
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_CELL = 180
_LABEL = 26
_MOST = 30


def attention_map(image: Image.Image, pieces: Sequence[str], weights: np.ndarray) -> bytes:
    """PNG of one cell a word: bright where the word looked. `weights` (T, R), one row a piece, R a square grid."""
    words = _words(pieces, weights)[:_MOST]
    small = image.copy()
    small.thumbnail((_CELL, _CELL))
    columns = min(6, len(words))
    rows = math.ceil(len(words) / columns)
    sheet = Image.new("RGB", (columns * (_CELL + 8) + 8, rows * (small.height + _LABEL + 8) + 8), "#16161c")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(16)
    for i, (word, weight) in enumerate(words):
        x = 8 + (i % columns) * (_CELL + 8)
        y = 8 + (i // columns) * (small.height + _LABEL + 8)
        sheet.paste(_lit(small, weight), (x, y))
        pen.text((x + small.width / 2, y + small.height + 4), word.upper()[:20], "white", font, "ma")
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


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


def _lit(image: Image.Image, weight: np.ndarray) -> Image.Image:
    side = math.isqrt(len(weight))
    heat = weight[: side * side].reshape(side, side)
    heat = (heat - heat.min()) / max(float(heat.max() - heat.min()), 1e-9)
    mask = Image.fromarray((heat * 255).astype(np.uint8)).resize(image.size, Image.Resampling.BICUBIC)
    dark = Image.blend(image, Image.new("RGB", image.size), 0.8)
    return Image.composite(image, dark, mask)
