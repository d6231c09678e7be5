"""Meme text on pictures: outlined capitals, fitted so that no ink leaves the picture.

On a known template the boxes go where its layout says. Elsewhere one box stands at the top or the bottom, wherever
the picture is calmer; of two, the first is at the top and the second at the bottom (an empty one keeps its place, so
that `("text", "")` is text at the top), or both on one side where a face would be hidden; three and more are spread
evenly from top to bottom.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple

from PIL import Image, ImageDraw

from captioner.calm import Busyness, busyness
from captioner.fonts import EmojiFace, Fonts
from captioner.images import Face
from captioner.layouts import Ink, Layout
from captioner.script import Run, runs
from captioner.typeset import EMOJI_HEIGHT, PARAGRAPH, Line, Text, baselines, breadth, measured_run, outline, spaced

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
_COMFORTABLE = 1 / 13
"""The size of type, as a share of the shorter side, below which nothing is saved by a smaller one."""
_SMALL_TEXT = 0.1
"""The share of what there is to see that must be saved for text of half the size."""
_HIDDEN = 0.1
"""The share of all faces that two texts may hide before both go to one side."""
_IN_LAYOUT = 1 / 34
_IN_LAYOUT_PIXELS = 10
"""Below these sizes a layout's box is too small for its text."""
_BREAKING = 1.5
"""Words are broken only up to this multiple of the smallest readable size."""
_ATTEMPTS = 6

Rect = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom lie outside."""


@dataclass(frozen=True, slots=True)
class _Area:
    """Where a box may have ink, and the edge it holds to: 0 is the top, 0.5 the middle, 1 the bottom."""

    rect: Rect
    anchor: float

    @property
    def width(self) -> int:
        return self.rect[2] - self.rect[0]

    @property
    def height(self) -> int:
        return self.rect[3] - self.rect[1]

    def beyond(self, ink: Rect) -> tuple[int, int]:
        """By how many pixels `ink` is too wide and too high."""
        return max(0, ink[2] - ink[0] - self.width), max(0, ink[3] - ink[1] - self.height)

    def place(self, width: float, height: float) -> tuple[int, int]:
        """Left and top of ink of this width and height: centred between the sides, and at the edge it holds to."""
        return (
            self.rect[0] + math.floor((self.width - width) / 2),
            self.rect[1] + round((self.height - height) * self.anchor),
        )


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


def draw(image: Image.Image, boxes: Sequence[str], fonts: Fonts, layout: Layout | None = None) -> Image.Image:
    """A new RGB image of the same size with `boxes` drawn on it. Any thread may call it.

    `layout` is that of a known template for as many boxes; a text that does not fit its box there sends all of them to
    top and bottom. Text that is too long at the smallest size ends in an ellipsis; characters that no font has are left
    out.
    """
    picture = image.convert("RGB")
    return paint(picture, laid_out(picture, boxes, fonts, layout))


def laid_out(
    picture: Image.Image,
    boxes: Sequence[str],
    fonts: Fonts,
    layout: Layout | None = None,
    faces: Callable[[], Sequence[Face]] = tuple,
    *,
    joining: bool = True,
) -> list[Lettering]:
    """The boxes as `draw` paints them on this RGB picture, faces on it left free where that is possible.

    `faces` tells where they are; it is asked only where that decides where text goes. Of two boxes of which one would
    hide a face, both stand on the other side, where `joining` allows.
    """
    letterings = arranged(picture.size, boxes, fonts, layout) if layout else None
    if letterings is None:
        busy = busyness(picture, faces())
        letterings = letter(picture.size, boxes, fonts, busy)
        if joining and len(letterings) == 2:
            letterings = _joined(letterings, boxes, picture.size, fonts, busy)
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
    placed = [_calmest(words, areas, size, fonts, busy) for words, areas in _areas(boxes, size)]
    return [lettering for lettering in placed if lettering]


def _joined(
    apart: list[Lettering], boxes: Sequence[str], size: tuple[int, int], fonts: Fonts, busy: Busyness
) -> list[Lettering]:
    """Two letterings, or their boxes as one text on one side, where that leaves faces free that would be hidden."""
    hidden = _hidden(apart, size, busy)
    if hidden < _HIDDEN:
        return apart
    together = letter(size, [PARAGRAPH.join(boxes)], fonts, busy)
    return together if _hidden(together, size, busy) < hidden / 2 else apart


def _hidden(letterings: Sequence[Lettering], size: tuple[int, int], busy: Busyness) -> float:
    """The share of the faces that they would hide."""
    width, height = size
    inks = (lettering.ink for lettering in letterings)
    return sum(busy.faces_under(x0 / width, y0 / height, x1 / width, y1 / height) for x0, y0, x1, y1 in inks)


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
            setter = _Setter(area, text, fonts)
            setting = setter.largest(range(smallest, largest), area.height, breaking=False)
            lettering = setting and setter.painted(setting)
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


def _areas(boxes: Sequence[str], size: tuple[int, int]) -> Iterator[tuple[str, list[_Area]]]:
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
        yield box, [_Area((margin, top, width - margin, bottom), anchor) for anchor in anchors]


def _calmest(
    words: str, areas: Sequence[_Area], size: tuple[int, int], fonts: Fonts, busy: Busyness | None
) -> Lettering | None:
    """The text in the area and at the readable size that hide least for their legibility; None for one without ink.

    What it would hide is measured; only what is chosen is painted.
    """
    with fonts.lock:
        text = Text.of(words, fonts)
        setters = [_Setter(area, text, fonts) for area in areas if area.width > 0 and area.height > 0]
        if not text.length or not setters:
            return None
        settings = list(_choice(setters, size, fonts)) if busy else []
        best = min(settings, key=lambda setting: _cost(setting, size, busy)) if busy and settings else None
        # What fits by its measures may not fit with its ink.
        ways = chain([best] if best else [], _ways(setters[0], size, fonts))
        lettering = next(filter(None, (setting.setter.painted(setting) for setting in ways)), None)
        return lettering if lettering and (lettering.outlines or lettering.emoji) else None


def _choice(setters: Sequence["_Setter"], size: tuple[int, int], fonts: Fonts) -> Iterator["_Setting"]:
    """The text as large as it goes in each of the areas, and smaller."""
    yield from filter(None, (next(_ways(setter, size, fonts), None) for setter in setters))
    _, readable, largest = _sizes(size, fonts)
    comfortable = min(largest, max(readable, round(min(size) * _COMFORTABLE)))
    for setter in setters:
        for share in _SHORTER_TEXT:
            short = min(setter.area.height, round(size[1] * share))
            if setting := setter.largest(range(comfortable, largest), short, breaking=False):
                yield setting


def _ways(setter: "_Setter", size: tuple[int, int], fonts: Fonts) -> Iterator["_Setting"]:
    """The text at the largest size that fits: in part of the area, with long words broken, in all of it, shortened."""
    smallest, readable, largest = _sizes(size, fonts)
    height = setter.area.height
    short = min(height, round(size[1] * _SHORT_TEXT))
    broken = range(readable, min(largest, round(readable * _BREAKING)))
    for sizes, room, breaking in (
        (range(readable, largest), short, False),
        (broken, short, True),
        (range(smallest, readable), height, True),
    ):
        if setting := setter.largest(sizes, room, breaking=breaking):
            yield setting
    if setting := setter.shortened(smallest):
        yield setting


def _cost(setting: "_Setting", size: tuple[int, int], busy: Busyness) -> float:
    left, top, right, bottom = setting.rect
    hidden = busy.under(left / size[0], top / size[1], right / size[0], bottom / size[1])
    return hidden - _SMALL_TEXT * math.log2(setting.size / min(size))


def _sizes(size: tuple[int, int], fonts: Fonts) -> tuple[int, int, int]:
    """The smallest, the smallest readable and the largest size of type on a picture of `size`."""
    side = min(size)
    smallest = max(_SMALLEST_PIXELS, round(side * _SMALLEST))
    readable = max(smallest, round(side * _READABLE))
    return smallest, readable, max(readable, _LARGEST_PIXELS, round(side * _LARGEST_CAPITAL / fonts.primary.cap_height))


class _Way(NamedTuple):
    """What is varied until a text fits: a number is its size or its length."""

    variant: Callable[[int], tuple[Text, int]]
    numbers: range
    breaking: bool


class _Setting(NamedTuple):
    """A text broken into lines at a size, measured to fit `room` (width, height), not yet painted."""

    setter: "_Setter"
    lines: list[Line]
    size: int
    room: tuple[int, int]
    way: _Way

    @property
    def rect(self) -> tuple[float, float, float, float]:
        """About where the ink will be."""
        width = max(map(breadth, self.lines)) * self.size + 2 * outline(self.size)
        height = self.setter.height(self.lines, self.size)
        left, top = self.setter.area.place(width, height)
        return left, top, left + width, top + height


class _Setter:
    """Sets a text in one area. Sizes are found by measures, which are estimates; the ink itself has the last word."""

    def __init__(self, area: _Area, text: Text, fonts: Fonts) -> None:
        self.area = area
        self._text = text
        self._fonts = fonts

    def largest(self, sizes: range, height: int, *, breaking: bool) -> _Setting | None:
        """The text at the largest of `sizes` (its stop included) at which it fits the area's width and `height`."""
        return self._fitted(_Way(lambda size: (self._text, size), sizes, breaking), (self.area.width, height))

    def shortened(self, size: int) -> _Setting | None:
        """As much of the text as fits at `size`, and an ellipsis; None if not even that fits."""
        way = _Way(lambda length: (self._text.shortened(length), size), range(self._text.length), True)
        return self._fitted(way, (self.area.width, self.area.height))

    def painted(self, setting: _Setting) -> Lettering | None:
        """The setting, or the next smaller one whose ink stays in the area; None where there is none."""
        found: _Setting | None = setting
        for _ in range(_ATTEMPTS):
            if found is None:
                return None
            lettering = self._painted(found.lines, found.size)
            beyond = self.area.beyond(lettering.ink)
            if beyond == (0, 0):
                return lettering
            found = self._fitted(found.way, (found.room[0] - beyond[0], found.room[1] - beyond[1]))
        return None

    def height(self, lines: list[Line], size: int) -> int:
        """Of all the ink, in pixels."""
        return baselines(lines, size, self._fonts)[1]

    def _fitted(self, way: _Way, room: tuple[int, int]) -> _Setting | None:
        """The last of a way's variants that fits the room."""

        def fits(number: int) -> bool:
            text, size = way.variant(number)
            lines = text.filled(_limit(room, size), breaking=way.breaking)
            return lines is not None and self.height(lines, size) <= room[1]

        number = _last(fits, way.numbers)
        if number is None:
            return None
        text, size = way.variant(number)
        return _Setting(self, text.balanced(_limit(room, size), breaking=way.breaking), size, room, way)

    def _painted(self, lines: list[Line], size: int) -> Lettering:
        """The lines under each other, their ink centred between the sides and at the area's anchor."""
        lettering = Lettering(size)
        for line, baseline in zip(lines, baselines(lines, size, self._fonts)[0], strict=True):
            _paint_line(lettering, line, math.ceil(baseline), self._fonts)
        left, top, right, bottom = lettering.ink
        x, y = self.area.place(right - left, bottom - top)
        return lettering.moved(x - left, y - top)


def _limit(room: tuple[int, int], size: int) -> float:
    """The width in em that lines may have."""
    return (room[0] - 2 * outline(size)) / size


def _paint_line(lettering: Lettering, line: Line, baseline: int, fonts: Fonts) -> None:
    """Add the line, centred on x = 0."""
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
