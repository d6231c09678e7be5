"""Text as it is written: cleaned, upper-cased, cut where lines may break, and put in the order in which it is seen."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from bidi import algorithm as bidi

from captioner.fonts import Face, Fonts

_MAX_CHARACTERS = 2000
_MAX_MARKS = 4
_MAX_JOINED = 16

_ZWJ = "\u200d"
_JOINERS = "\u200c\u200d"
_SKIN = range(0x1F3FB, 0x1F400)
_TAGS = range(0xE0020, 0xE0080)
_REGIONAL = range(0x1F1E6, 0x1F200)
_HANGUL = range(0xAC00, 0xD7A4)
_LINE_BREAK = re.compile("[\n\r\v\f\x85\u2028\u2029]+")
_GREEK_ACCENT = re.compile("([\u0391-\u03a9])[\u0300\u0301\u0342]")
_NO_LINE_START = frozenset("、。，．：；！？」』）】》〉〕…‥ー々ぁぃぅぇぉっゃゅょァィゥェォッャュョ!?.,:;)]}%\"'”’»")
_NO_LINE_END = frozenset("「『（【《〈〔([{“‘«")
_BIDI = frozenset({"L", "R", "AL", "AN", "EN", "ES", "ET", "CS", "NSM", "ON", "WS"})
_BREAK_AFTER = frozenset("-–—/")


@dataclass(frozen=True, slots=True)
class Cluster:
    """What a reader takes for one character, and the font that draws it."""

    text: str
    face: Face


@dataclass(frozen=True, slots=True)
class Word:
    """Clusters between which no line breaks."""

    clusters: tuple[Cluster, ...]
    spaced: bool
    """A space stands before it, unless it begins a line."""


@dataclass(frozen=True, slots=True)
class Run:
    """Clusters of one font and direction, in logical order."""

    clusters: tuple[str, ...]
    face: Face
    rtl: bool

    @property
    def text(self) -> str:
        return "".join(self.clusters)

    @property
    def from_left(self) -> tuple[str, ...]:
        return self.clusters[::-1] if self.rtl else self.clusters


def paragraphs(text: str, fonts: Fonts) -> list[list[Word]]:
    """The words of each line that `text` forces. What no font can draw is left out, and so are empty lines."""
    lines = (_words(line, fonts) for line in _LINE_BREAK.split(_clean(text)))
    return [line for line in lines if line]


def runs(clusters: Sequence[Cluster]) -> list[Run]:
    """What to draw from left to right for one line (Unicode's bidirectional algorithm, without its controls)."""
    levels = _levels([cluster.text for cluster in clusters])
    order = list(range(len(clusters)))
    for level in range(max(levels, default=0), 0, -1):
        order = _reversed_at(order, levels, level)
    result = []
    for (face, level), group in groupby(order, key=lambda i: (clusters[i].face, levels[i])):
        result.append(Run(tuple(clusters[i].text for i in sorted(group)), face, rtl=level % 2 == 1))
    return result


def _clean(text: str) -> str:
    """Composed and upper-case, spaces single, no control characters, nothing that is not text."""
    if text.isascii() and text.isprintable():
        return text[:_MAX_CHARACTERS].upper()
    text = unicodedata.normalize("NFC", text[:_MAX_CHARACTERS])
    # Georgian has upper-case letters that hardly any font draws and nobody writes.
    text = "".join(char if "\u10d0" <= char <= "\u10ff" else char.upper() for char in text)
    text = unicodedata.normalize("NFC", _GREEK_ACCENT.sub(r"\1", unicodedata.normalize("NFD", text)))
    return "".join(_cleaned(text))


def _cleaned(text: str) -> Iterator[str]:
    for char in text:
        category = unicodedata.category(char)
        if category == "Zs" or char == "\t":
            yield " "
        elif _LINE_BREAK.match(char) or char in _JOINERS or ord(char) in _TAGS or category[0] != "C":
            yield char


def _clusters(text: str) -> list[str]:
    """Characters with their marks; emoji sequences, flags and syllables of Indic scripts stay whole."""
    found: list[str] = []
    for char in text:
        if found and _joins(found[-1], char):
            if _is_mark(char) and sum(map(_is_mark, found[-1])) >= _MAX_MARKS:
                continue
            found[-1] += char
        elif not (_is_mark(char) or char in _JOINERS or ord(char) in _TAGS):
            found.append(char)
    return found


def _joins(cluster: str, char: str) -> bool:
    if cluster == " " or len(cluster) >= _MAX_JOINED:
        return _is_mark(char) and cluster != " "
    if _is_mark(char) or ord(char) in _SKIN or ord(char) in _TAGS:
        return True
    if char in _JOINERS:
        return not cluster[0].isascii()
    if ord(char) in _REGIONAL:
        return len(cluster) == 1 and ord(cluster) in _REGIONAL
    return cluster[-1] == _ZWJ or unicodedata.combining(cluster[-1]) == 9  # 9: virama


def _is_mark(char: str) -> bool:
    return unicodedata.category(char)[0] == "M"


def _words(line: str, fonts: Fonts) -> list[Word]:
    words: list[Word] = []
    for spaced, stretch in groupby(_clusters(line), key=lambda text: text != " "):
        if not spaced:
            continue
        parts = _split(_in_fonts(list(stretch), fonts))
        words += [Word(tuple(part), spaced=number == 0) for number, part in enumerate(parts)]
    return words


def _in_fonts(texts: list[str], fonts: Fonts) -> list[Cluster]:
    """One font for the whole stretch where one has it all, else a font a cluster."""
    found: list[Cluster] = []
    for is_emoji, group in groupby(texts, key=fonts.is_emoji):
        stretch = list(group)
        if is_emoji and fonts.emoji:
            found += [Cluster(text, fonts.emoji) for text in stretch]
        elif face := fonts.face_for("".join(stretch)):
            found += [Cluster(text, face) for text in stretch]
        else:
            found += filter(None, (_in_any_font(text, fonts) for text in stretch))
    return found


def _in_any_font(text: str, fonts: Fonts) -> Cluster | None:
    """The cluster, or what is nearest to it: without its marks, or in plain letters (𝓶𝓮𝓶𝓮, ﷺ)."""
    for attempt in (text, text[0], unicodedata.normalize("NFKC", text[0]).upper()):
        if face := fonts.face_for(attempt):
            return Cluster(attempt, face)
    return None


def _split(clusters: list[Cluster]) -> list[list[Cluster]]:
    parts: list[list[Cluster]] = []
    for cluster in clusters:
        if parts and not _may_break(parts[-1], cluster):
            parts[-1].append(cluster)
        else:
            parts.append([cluster])
    return parts


def _may_break(before: list[Cluster], after: Cluster) -> bool:
    """Whether a line may end between them although there is no space: CJK, emoji, after a hyphen."""
    last = before[-1]
    if after.text in _NO_LINE_START or last.text in _NO_LINE_END:
        return False
    if last.text in _BREAK_AFTER:
        return len(before) > 1 and after.text not in _BREAK_AFTER
    return _breaks_freely(last) or _breaks_freely(after)


def _breaks_freely(cluster: Cluster) -> bool:
    first = cluster.text[0]
    return cluster.face.colour or (unicodedata.east_asian_width(first) in "WF" and ord(first) not in _HANGUL)


def _levels(texts: list[str]) -> list[int]:
    """Embedding level of each cluster; odd ones run from right to left."""
    if all(map(str.isascii, texts)):
        return [0] * len(texts)
    first = "".join(text[0] if unicodedata.bidirectional(text[0]) in _BIDI else "!" for text in texts)
    if not any(unicodedata.bidirectional(char) in ("R", "AL", "AN") for char in first):
        return [0] * len(texts)
    storage: dict[str, Any] = bidi.get_empty_storage()
    storage["base_level"] = bidi.get_base_level(first)
    storage["base_dir"] = ("L", "R")[storage["base_level"]]
    bidi.get_embedding_levels(first, storage)
    bidi.calc_level_runs(storage)
    bidi.resolve_weak_types(storage)
    bidi.resolve_neutral_types(storage, debug=False)
    bidi.resolve_implicit_levels(storage, debug=False)
    return [int(char["level"]) for char in storage["chars"]]


def _reversed_at(order: list[int], levels: list[int], level: int) -> list[int]:
    result: list[int] = []
    for high, group in groupby(order, key=lambda i: levels[i] >= level):
        stretch = list(group)
        result += reversed(stretch) if high else stretch
    return result
