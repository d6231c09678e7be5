"""Meme text on pictures: outlined capitals, fitted so that no ink leaves the picture.

On a known template the boxes go where its layout says. Elsewhere one box stands at the top or the bottom, wherever
the picture is calmer; of two, the first is at the top and the second at the bottom (an empty one keeps its place, so
that `("text", "")` is text at the top); three and more are spread evenly from top to bottom.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from PIL import Image, ImageDraw

from captioner.calm import Busyness, busyness
from captioner.fonts import EmojiFace, Fonts
from captioner.layouts import Ink, Layout
from captioner.script import Run, runs
from captioner.typeset import EMOJI_HEIGHT, Line, Text, baselines, measured_run, outline, spaced

# Sizes of type as shares of the picture's shorter side, and the pixels that none of them goes below.
_LARGEST_CAPITAL = 0.105
_READABLE = 1 / 22
_SMALLEST = 1 / 40
_LARGEST_PIXELS = 8
_SMALLEST_PIXELS = 6

_MARGIN = 0.02
"""Space around the text, as a share of the picture's shorter side."""
_SHORT_TEXT = 0.3
"""Share of the picture's height that one box may take while its text is readable in it."""
_SHORTER_TEXT = (0.2, 0.13)
"""Shares that hide less of the picture, tried where the text is readable in them."""
_SMALL_TEXT = 0.1
"""The share of what there is to see that must be saved for text of half the size."""
_IN_LAYOUT = 1 / 34
_IN_LAYOUT_PIXELS = 10
"""Below these sizes a layout's box is too small for its text."""
_BREAKING = 1.5
"""Words are broken only up to this multiple of the smallest readable size."""
_ATTEMPTS = 6
_ROUGH = 256
"""Pixels of the shorter side at which places are compared."""

Rect = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom lie outside."""


@dataclass(frozen=True, slots=True)
class _Area:
    """Where a box may have ink, and the edge it holds to: 0 is the top, 0.5 the middle, 1 the bottom."""

    rect: Rect
    anchor: float
    rough: bool = False
    """Painted to compare places only."""

    @property
    def width(self) -> int:
        return self.rect[2] - self.rect[0]

    @property
    def height(self) -> int:
        return self.rect[3] - self.rect[1]

    def beyond(self, ink: Rect) -> tuple[int, int]:
        """By how many pixels `ink` is too wide and too high."""
        return max(0, ink[2] - ink[0] - self.width), max(0, ink[3] - ink[1] - self.height)


_Canvas = tuple[Sequence[_Area], tuple[int, int]]
"""Where a text may go, and the size of the picture."""


@dataclass(slots=True)
class Lettering:
    """The lines of one box, painted and placed."""

    size: int
    outlines: list[tuple[Image.Image, tuple[int, int]]] = field(default_factory=list)
    letters: list[tuple[Image.Image, tuple[int, int]]] = field(default_factory=list)
    emoji: list[tuple[Image.Image, tuple[int, int]]] = field(default_factory=list)
    colour: Ink = "light"

    @property
    def ink(self) -> Rect:
        """The smallest rectangle around every pixel that is painted."""
        rects = [(x, y, x + image.width, y + image.height) for image, (x, y) in (*self.outlines, *self.emoji)]
        lefts, tops, rights, bottoms = zip(*rects, strict=True) if rects else ((0,),) * 4
        return min(lefts), min(tops), max(rights), max(bottoms)

    def moved(self, x: int, y: int) -> "Lettering":
        outlines, letters, emoji = (
            [(image, (left + x, top + y)) for image, (left, top) in layer]
            for layer in (self.outlines, self.letters, self.emoji)
        )
        return Lettering(self.size, outlines, letters, emoji, self.colour)


def draw(
    image: Image.Image,
    boxes: Sequence[str],
    fonts: Fonts,
    layout: Layout | None = None,
    attention: np.ndarray | None = None,
) -> Image.Image:
    """A new RGB image of the same size with `boxes` drawn on it. Any thread may call it.

    `layout` is that of a known template for as many boxes; a text that does not fit its box there sends all of them to
    top and bottom. `attention` (R,), over a square grid of places, tells what should stay visible elsewhere. Text that
    is too long at the smallest size ends in an ellipsis; characters that no font has are left out.
    """
    picture = image.convert("RGB")
    return paint(picture, laid_out(picture, boxes, fonts, layout, attention))


def laid_out(
    picture: Image.Image,
    boxes: Sequence[str],
    fonts: Fonts,
    layout: Layout | None = None,
    attention: np.ndarray | None = None,
) -> list[Lettering]:
    """The boxes as `draw` paints them on this RGB picture."""
    letterings = arranged(picture.size, boxes, fonts, layout) if layout else None
    if letterings is None:
        letterings = letter(picture.size, boxes, fonts, busyness(picture, attention))
    return letterings


def paint(picture: Image.Image, letterings: Sequence[Lettering]) -> Image.Image:
    """The RGB picture itself, painted on."""
    for lettering in letterings:
        letters, outlines = ("white", "black") if lettering.colour == "light" else ("black", "white")
        for mask, at in lettering.outlines:
            picture.paste(outlines, at, mask)
        for mask, at in lettering.letters:
            picture.paste(letters, at, mask)
        for emoji, at in lettering.emoji:
            picture.paste(emoji, at, emoji)
    return picture


def letter(size: tuple[int, int], boxes: Sequence[str], fonts: Fonts, busy: Busyness | None = None) -> list[Lettering]:
    """The boxes that have ink, painted for a picture of `size` (width, height); their inks do not overlap."""
    rough = _rough(size)
    whole, small = list(_areas(boxes, size)), list(_areas(boxes, rough, rough=True))
    if len(small) != len(whole):  # no room for so many boxes
        rough, small = size, whole
    placed = [
        _calmest(words, (areas, size), (others, rough), fonts, busy)
        for (words, areas), (_, others) in zip(whole, small, strict=True)
    ]
    return [lettering for lettering in placed if lettering]


def _rough(size: tuple[int, int]) -> tuple[int, int]:
    """A size of the same ratio that is fast to paint on: enough to compare places."""
    scale = min(1.0, _ROUGH / min(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def arranged(size: tuple[int, int], boxes: Sequence[str], fonts: Fonts, layout: Layout) -> list[Lettering] | None:
    """The boxes that have ink in those of a layout; None where their number differs or a text does not fit."""
    if len(boxes) != len(layout):
        return None
    side, cap = min(size), fonts.primary.cap_height
    smallest = max(_IN_LAYOUT_PIXELS, round(side * _IN_LAYOUT))
    largest = max(smallest, round(side * _LARGEST_CAPITAL / cap))
    placed: list[Lettering] = []
    for words, box in zip(boxes, layout, strict=True):
        area = _Area(_inside(box.at, size), 0.5)
        with fonts.lock:
            text = Text.of(words, fonts)
            if not text.length:
                continue
            lettering = _Setter(area, text, fonts).largest(range(smallest, largest), area.height, breaking=False)
        if lettering is None:
            return None
        lettering.colour = box.ink
        placed.append(lettering)
    return [lettering for lettering in placed if lettering.outlines or lettering.emoji]


def _inside(at: tuple[float, float, float, float], size: tuple[int, int]) -> Rect:
    """A box given in fractions in pixels, a pixel or more from the edges of the picture."""
    width, height = size
    left, top = (max(1, math.ceil(share * side)) for share, side in zip(at[:2], size, strict=True))
    return left, top, min(width - 1, math.floor(at[2] * width)), min(height - 1, math.floor(at[3] * height))


def _areas(boxes: Sequence[str], size: tuple[int, int], *, rough: bool = False) -> Iterator[tuple[str, list[_Area]]]:
    """Each box and where it can go: its share of the height; boxes that find no room join the last one that does."""
    width, height = size
    margin = max(1, round(min(size) * _MARGIN))
    room = max(1, (height - margin) // (2 * _SMALLEST_PIXELS))
    if len(boxes) > room:
        boxes = [*boxes[: room - 1], " ".join(boxes[room - 1 :])]
    share = (height - margin) / max(1, len(boxes))
    for number, box in enumerate(boxes):
        top, bottom = margin + math.ceil(number * share), math.floor((number + 1) * share)
        anchor = 1.0 if number == len(boxes) - 1 else 0.0 if number == 0 else 0.5
        anchors = (1.0, 0.0) if len(boxes) == 1 else (anchor,)
        yield box, [_Area((margin, top, width - margin, bottom), anchor, rough) for anchor in anchors]


def _calmest(words: str, whole: _Canvas, rough: _Canvas, fonts: Fonts, busy: Busyness | None) -> Lettering | None:
    """The text in the area and at the readable size that hide least for their legibility; None for one without ink.

    The choice is made on a `rough` copy of the areas; only what is chosen is painted on the `whole`.
    """
    with fonts.lock:
        text = Text.of(words, fonts)
        if busy is None:
            return _letter_box(text, whole[0][0], whole[1], fonts)
        tried = [variant() for variant in _variants(text, rough, fonts)]
        costs = [_cost(lettering, rough[1], busy) if lettering else math.inf for lettering in tried]
        best = _variants(text, whole, fonts)[costs.index(min(costs))]()
        # What fits roughly may not fit exactly.
        return best or _letter_box(text, whole[0][0], whole[1], fonts)


def _variants(text: Text, canvas: _Canvas, fonts: Fonts) -> list[Callable[[], Lettering | None]]:
    areas, size = canvas
    large: list[Callable[[], Lettering | None]] = [partial(_letter_box, text, area, size, fonts) for area in areas]
    return large + [partial(_smaller, text, area, size, fonts, short) for area in areas for short in _SHORTER_TEXT]


def _cost(lettering: Lettering, size: tuple[int, int], busy: Busyness) -> float:
    left, top, right, bottom = lettering.ink
    hidden = busy.under(left / size[0], top / size[1], right / size[0], bottom / size[1])
    return hidden - _SMALL_TEXT * math.log2(lettering.size / min(size))


def _letter_box(text: Text, area: _Area, size: tuple[int, int], fonts: Fonts) -> Lettering | None:
    """The text at the largest size that fits: in part of the area, with long words broken, in all of it, shortened."""
    if not text.length or area.width < 1 or area.height < 1:
        return None
    smallest, readable, largest = _sizes(size, fonts)
    short = min(area.height, round(size[1] * _SHORT_TEXT))
    setter = _Setter(area, text, fonts)
    lettering = (
        setter.largest(range(readable, largest), short, breaking=False)
        or setter.largest(range(readable, min(largest, round(readable * _BREAKING))), short, breaking=True)
        or setter.largest(range(smallest, readable), area.height, breaking=True)
        or setter.shortened(smallest)
    )
    return lettering if lettering and (lettering.outlines or lettering.emoji) else None


def _smaller(text: Text, area: _Area, size: tuple[int, int], fonts: Fonts, short: float) -> Lettering | None:
    """The text in less of the area than `_letter_box` takes, if it is still readable there."""
    if not text.length or area.width < 1 or area.height < 1:
        return None
    _, readable, largest = _sizes(size, fonts)
    part = min(area.height, round(size[1] * short))
    lettering = _Setter(area, text, fonts).largest(range(readable, largest), part, breaking=False)
    return lettering if lettering and (lettering.outlines or lettering.emoji) else None


def _sizes(size: tuple[int, int], fonts: Fonts) -> tuple[int, int, int]:
    """The smallest, the smallest readable and the largest size of type on a picture of `size`."""
    side = min(size)
    smallest = max(_SMALLEST_PIXELS, round(side * _SMALLEST))
    readable = max(smallest, round(side * _READABLE))
    return smallest, readable, max(readable, _LARGEST_PIXELS, round(side * _LARGEST_CAPITAL / fonts.primary.cap_height))


class _Setter:
    """Sets a text in one area. Sizes are found by measures, which are estimates; the ink itself has the last word."""

    def __init__(self, area: _Area, text: Text, fonts: Fonts) -> None:
        self._area = area
        self._text = text
        self._fonts = fonts

    def largest(self, sizes: range, height: int, *, breaking: bool) -> Lettering | None:
        """The text at the largest of `sizes` (its stop included) at which it fits the area's width and `height`."""
        return self._fitted(lambda size: (self._text, size), sizes, height, breaking=breaking)

    def shortened(self, size: int) -> Lettering | None:
        """As much of the text as fits at `size`, and an ellipsis; None if not even that fits."""
        lengths = range(self._text.length)
        return self._fitted(
            lambda length: (self._text.shortened(length), size), lengths, self._area.height, breaking=True
        )

    def _fitted(
        self, variant: Callable[[int], tuple[Text, int]], numbers: range, height: int, *, breaking: bool
    ) -> Lettering | None:
        """The last of the variants of text and size that fits; tried with less room while its ink is too large."""
        room = (self._area.width, height)

        def wrapped(number: int) -> list[Line] | None:
            return self._wrapped(*variant(number), room, breaking)

        for _ in range(_ATTEMPTS):
            number = _last(lambda number: wrapped(number) is not None, numbers)
            if number is None:
                return None
            lettering = self._painted(wrapped(number) or [], variant(number)[1])
            beyond = self._area.beyond(lettering.ink)
            if beyond == (0, 0):
                return lettering
            room = (room[0] - beyond[0], room[1] - beyond[1])
        return None

    def _wrapped(self, text: Text, size: int, room: tuple[int, int], breaking: bool) -> list[Line] | None:
        """Balanced lines that fit `room` (width, height) at `size`; None if there are none."""
        limit = (room[0] - 2 * outline(size)) / size
        lines = text.wrapped(limit, breaking=breaking)
        if lines is None or baselines(lines, size, self._fonts)[1] > room[1]:
            return None
        return lines

    def _painted(self, lines: list[Line], size: int) -> Lettering:
        """The lines under each other, their ink centred between the sides and at the area's anchor."""
        lettering = Lettering(size)
        for line, baseline in zip(lines, baselines(lines, size, self._fonts)[0], strict=True):
            _paint_line(lettering, line, math.ceil(baseline), self._fonts, rough=self._area.rough)
        left, top, right, bottom = lettering.ink
        area = self._area
        x = area.rect[0] + (area.width - (right - left)) // 2
        y = area.rect[1] + round((area.height - (bottom - top)) * area.anchor)
        return lettering.moved(x - left, y - top)


def _paint_line(lettering: Lettering, line: Line, baseline: int, fonts: Fonts, *, rough: bool) -> None:
    """Add the line, centred on x = 0; a `rough` one has outlines only: all its ink lies within them."""
    size, thickness = lettering.size, outline(lettering.size)
    drawn = runs(spaced(line, fonts))
    advances = [_advance(run, size, fonts) for run in drawn]
    pad = math.ceil(thickness + size / 2)
    above = math.ceil(max(piece.above for piece in line) * size) + pad
    below = math.ceil(max(0.0, *(piece.below for piece in line)) * size) + pad
    extent = (math.ceil(sum(advances)) + 2 * pad, above + below)
    x, left, top = float(pad), round(-sum(advances) / 2) - pad, baseline - above
    outlines, letters = Image.new("L", extent), Image.new("L", extent)
    for run, advance in zip(drawn, advances, strict=True):
        if isinstance(run.face, EmojiFace):
            _paint_emoji(lettering, run, run.face, left + x, baseline, fonts.primary.cap_height)
        else:
            run.face.paint(ImageDraw.Draw(outlines), (x, above), run.text, run.rtl, size, thickness)
            if not rough:
                run.face.paint(ImageDraw.Draw(letters), (x, above), run.text, run.rtl, size, 0)
        x += advance
    if ink := outlines.getbbox():
        at = (left + ink[0], top + ink[1])
        lettering.outlines.append((outlines.crop(ink), at))
        lettering.letters.append((letters.crop(ink), at))


def _advance(run: Run, size: int, fonts: Fonts) -> float:
    if isinstance(run.face, EmojiFace):
        return measured_run(run, fonts)[0] * size
    return run.face.advance(run.text, run.rtl, size)


def _paint_emoji(lettering: Lettering, run: Run, face: EmojiFace, x: float, baseline: int, cap: float) -> None:
    height = max(1, round(cap * EMOJI_HEIGHT * lettering.size))
    top = baseline - round((height + cap * lettering.size) / 2)
    for picture in map(face.picture, run.from_left):
        width = picture.width / picture.height * height
        scaled = picture.resize((max(1, round(width)), height), Image.Resampling.LANCZOS)
        lettering.emoji.append((scaled, (round(x), top)))
        x += width


def _last(holds: Callable[[int], bool], numbers: range) -> int | None:
    """The largest from start to stop, both included, for which `holds`, if it holds up to some number only."""
    low, high = numbers.start, numbers.stop
    if not holds(low):
        return None
    while low < high:
        middle = (low + high + 1) // 2
        if holds(middle):
            low = middle
        else:
            high = middle - 1
    return low
