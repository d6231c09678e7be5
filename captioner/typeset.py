"""Words become lines: measured in em once, so that any size can be tried without touching a font again."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

from captioner.fonts import EmojiFace, Fonts
from captioner.script import Cluster, Run, Word, paragraphs, runs

EMOJI_HEIGHT = 1.12
"""Height of an emoji in heights of a capital."""

_MAX_CLUSTERS = 500

# Shares of an em.
_OUTLINE = 0.065
_LINE_GAP = 0.1
_INK_GAP = 0.03
_PARAGRAPH_GAP = 0.3
_BALANCED = 0.1

PARAGRAPH = "\u2029"
"""Between what is told apart by a gap, in one text."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A word or a part of one, measured in em."""

    word: Word
    width: float
    above: float
    below: float
    space: float
    """The space it needs beside it."""


Line = list[Piece]


def outline(size: int) -> float:
    """Thickness of the outline in pixels for type of `size` pixels an em."""
    return max(1.0, size * _OUTLINE)


def measured_run(run: Run, fonts: Fonts) -> tuple[float, float, float]:
    """Width, height above and depth below the baseline in em."""
    if not isinstance(run.face, EmojiFace):
        return run.face.measure(run.text, run.rtl)
    cap = fonts.primary.cap_height
    overhang = cap * (EMOJI_HEIGHT - 1) / 2
    ratios = (picture.width / picture.height for picture in map(run.face.picture, run.clusters))
    return sum(ratios) * cap * EMOJI_HEIGHT, cap + overhang, overhang


def spaced(line: Line, fonts: Fonts) -> list[Cluster]:
    """The line's clusters with spaces between its words, each in the font of a neighbour: the wider space."""
    clusters: list[Cluster] = []
    for piece in line:
        if clusters and piece.word.spaced:
            beside = [face for face in (clusters[-1].face, piece.word.clusters[0].face) if face.space]
            clusters.append(Cluster(" ", max(beside or [fonts.primary], key=lambda face: face.space)))
        clusters += piece.word.clusters
    return clusters


def breadth(line: Line) -> float:
    """Width of a line in em."""
    spaces = sum(max(a.space, b.space) * b.word.spaced for a, b in pairwise(line))
    return sum(piece.width for piece in line) + spaces


def baselines(lines: Sequence[Line], size: int, fonts: Fonts) -> tuple[list[float], int]:
    """How far each baseline lies below the top of the ink, and the height of all the ink, in pixels."""
    cap, thickness = fonts.primary.cap_height, outline(size)
    found: list[float] = []
    below = 0.0
    for line in lines:
        above = max(cap, *(piece.above for piece in line))
        pitch = max(cap + _LINE_GAP, below + above + _INK_GAP)
        found.append(found[-1] + pitch * size + 2 * thickness if found else above * size + thickness)
        below = max(0.0, *(piece.below for piece in line))
    return found, math.ceil(found[-1] + below * size + thickness)


class Text:
    """A box's words, to be broken into lines at any size."""

    def __init__(self, lines: list[Line], fonts: Fonts) -> None:
        self._lines = lines
        """As the text forces them."""
        self._fonts = fonts
        self._letters: dict[Cluster, Piece] = {}

    @classmethod
    def of(cls, text: str, fonts: Fonts) -> "Text":
        """`text` measured; what is longer than anybody reads on a picture ends in an ellipsis."""
        lines: list[Line] = []
        for part in text.split(PARAGRAPH):
            new = [[_measured(word, fonts) for word in line] for line in paragraphs(part, fonts)]
            if lines and new:
                new[0][0] = replace(new[0][0], above=new[0][0].above + _PARAGRAPH_GAP)
            lines += new
        whole = cls(lines, fonts)
        return whole if whole.length <= _MAX_CLUSTERS else whole.shortened(_MAX_CLUSTERS)

    @cached_property
    def length(self) -> int:
        """In clusters."""
        return sum(len(piece.word.clusters) for line in self._lines for piece in line)

    def filled(self, limit: float, *, breaking: bool) -> list[Line] | None:
        """As few lines at most `limit` em wide as there can be; None if a word is wider.

        `breaking` breaks the words that are.
        """
        lines = [self._broken(line, limit) for line in self._lines] if breaking else self._lines
        if any(piece.width > limit for line in lines for piece in line):
            return None
        return [part for line in lines for part in _filled(line, limit)]

    def balanced(self, limit: float, *, breaking: bool) -> list[Line]:
        """As many lines as `filled` makes, equally long; no word may be wider."""
        lines = [self._broken(line, limit) for line in self._lines] if breaking else self._lines
        return [part for line in lines for part in _balanced(line, limit)]

    def shortened(self, length: int) -> "Text":
        """The first `length` clusters and an ellipsis."""
        words = [
            replace(piece.word, spaced=True) if not number else piece.word
            for line in self._lines
            for number, piece in enumerate(line)
        ]
        kept: list[Word] = []
        for word in words:
            if length <= 0:
                break
            kept.append(replace(word, clusters=word.clusters[:length]))
            length -= len(word.clusters)
        last = kept.pop() if kept else Word((), spaced=True)
        dots = tuple(Cluster(".", face) for _ in range(3) if (face := self._fonts.face_for(".")))
        kept.append(replace(last, clusters=(*last.clusters, *dots)))
        return Text([[_measured(word, self._fonts) for word in kept]], self._fonts)

    def _broken(self, line: Line, limit: float) -> Line:
        pieces: Line = []
        for piece in line:
            pieces += [piece] if piece.width <= limit else self._single(piece)
        return pieces

    def _single(self, piece: Piece) -> Line:
        """One piece a cluster."""
        first, *others = (self._letter(cluster) for cluster in piece.word.clusters)
        return [replace(first, word=replace(first.word, spaced=piece.word.spaced)), *others]

    def _letter(self, cluster: Cluster) -> Piece:
        if cluster not in self._letters:
            self._letters[cluster] = _measured(Word((cluster,), spaced=False), self._fonts)
        return self._letters[cluster]


def _measured(word: Word, fonts: Fonts) -> Piece:
    widths, aboves, belows = zip(*(measured_run(run, fonts) for run in runs(word.clusters)), strict=True)
    space = max(face.space for face in {fonts.primary, *(cluster.face for cluster in word.clusters)})
    return Piece(word, sum(widths), max(aboves), max(belows), space)


def _balanced(line: Line, limit: float) -> list[Line]:
    """The fewest lines that `limit` em allow, as equally long as possible."""
    best = _filled(line, limit)
    low, high = max(piece.width for piece in line), limit
    while len(best) > 1 and high - low > _BALANCED:
        middle = (low + high) / 2
        narrower = _filled(line, middle)
        if len(narrower) > len(best):
            low = middle
        else:
            best, high = narrower, middle
    return best


def _filled(pieces: Sequence[Piece], limit: float) -> list[Line]:
    """As much on every line as `limit` em hold."""
    filled: list[Line] = []
    used, space = math.inf, 0.0
    for piece in pieces:
        used += piece.width + max(space, piece.space) * piece.word.spaced
        space = piece.space
        if used > limit:
            filled.append([])
            used = piece.width
        filled[-1].append(piece)
    return filled
