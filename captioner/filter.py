"""What the bot neither learns from nor says: a block list that sees through the usual disguises.

Three levels, each refusing what the laxer ones refuse: `off` only what is never said (slurs, hate, sexual words about
minors), `normal` also cruelty, sex and jokes about groups of people, `strict` also swearing, drugs, politics and
religion.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from itertools import pairwise
from typing import Any, Literal, get_args

Level = Literal["strict", "normal", "off"]
LEVELS: tuple[Level, ...] = get_args(Level)

_LEET = str.maketrans("0123456789@$!|€£+¢", "oizeasgtbgasiieltc")
_ALSO_L = str.maketrans("1!|", "lll")
_CONFUSABLE = str.maketrans(
    "аеорсухіѕјԁɡɑıνԛкмтвαειοκρτυɴʀᴇᴀʙᴄᴅғɢʜɪᴊᴋʟᴍᴏᴘᴛᴜᴠᴡʏᴢ🅱🅰🅾", "aeopcyxisjdgaivqkmtbaeiokptunreabcdfghijklmoptuvwyzbao"
)
_NUMBERED = re.compile(r"[a-z]\d+")
"""Buses, rooms and cars are called so."""
_BLANKS = {"\u115f", "\u1160", "\u2800", "\u3164"}
"""Letters and signs that nobody sees."""
_LEETED = re.compile(r"[\w'*/-]*[0-9@$!|€£+¢][\w'@$!|€£+¢*/-]*")
_SPACED = re.compile(r"\b(?:\w[\W_]+){2,}\w\b")
_SPACED_LEET = re.compile(r"(?<!\S)(?:[\w@$!€£¢]\s+){2,}[\w@$!€£¢](?!\S)")
_STRETCHED = re.compile(r"(.)\1\1")
_DISGUISED = re.compile(r"[0-9@$!|€£+¢]|(.)\1\1|\w[.*_-]\w")
_RUNS = re.compile(r"(.)\1{2,}")
_CENSORED = re.compile(r"(?<!\w)(?=[^\W\d_]*[*#])(?:[^\W\d_]|[*#]){3,}(?!\w)")
_HEADING = re.compile(r"\[(\w+)(?: (strict|normal|off))?( memes)?\]")
_ANYWHERE, _INNOCENT, _MINOR, _SEXUAL = "anywhere", "innocent", "minor", "sexual"


@dataclass(frozen=True)
class Section:
    """Entries under one heading: the level is the laxest that refuses them; some count for memes only."""

    reason: str
    level: Level
    memes: bool
    entries: tuple[str, ...]

    def counts(self, style: str, level: Level) -> bool:
        return LEVELS.index(self.level) >= LEVELS.index(level) and (style == "meme" or not self.memes)


class BlockList:
    """Entries by reason; `reason` tells which one a text falls under."""

    def __init__(self, text: str) -> None:
        """Reads the format that `data/blocklist.txt` begins with. Raises ValueError for another."""
        found = list(sections(text))
        special = {s.reason: s for s in found if s.reason in (_ANYWHERE, _INNOCENT, _MINOR)}
        self._sections = [s for s in found if s not in special.values()]
        self._anywhere = special[_ANYWHERE].entries if _ANYWHERE in special else ()
        self._innocent, self._minor = (
            pattern(special[name].entries) if name in special else None for name in (_INNOCENT, _MINOR)
        )
        self._patterns: dict[object, re.Pattern[str]] = {}

    def reason(self, text: str, style: str = "meme", level: Level = "normal") -> str | None:
        """Why a text is blocked at a level, or None. Case, accents, look-alikes, spacing and stretches are undone.

        A description may name a group of people; a joke about one is not made. Raises ValueError for an unknown level.
        """
        found = self._found(text, style, level)
        if found is None or self._innocent is None:
            return found
        lower = text.lower()
        harmless = self._innocent.sub(" ", lower)
        return found if harmless == lower else self._found(harmless, style, level)

    def blocks(self, boxes: Sequence[str], style: str = "meme", level: Level = "normal") -> bool:
        """Whether any box, or their words read on from box to box, is blocked at a level."""
        return self.reason(" ".join(boxes), style, level) is not None

    def _found(self, text: str, style: str, level: Level) -> str | None:
        refused = self._combined(style, level)
        for variant in _variants(text):
            if refused.search(variant):
                return next(s.reason for s in self._counting(style, level) if self._of(s).search(variant))
            if _STRETCHED.search(variant) and (reason := self._stretched(variant, style, level)):
                return reason
            if level == "off" and self._about_minors(variant):
                return "minors"
            letters = re.sub(r"[\W_]+", "", variant)
            if any(entry in letters for entry in self._anywhere):
                return "slur"
        return next(
            filter(None, (self._censored(m.group(), style, level) for m in _CENSORED.finditer(text.lower()))), None
        )

    def _stretched(self, text: str, style: str, level: Level) -> str | None:
        """The reason of a word with letters that are said on and on, each of which may be a double one."""
        words = (m.group() for m in self._combined(style, level, stretched=True).finditer(text))
        if not (found := next(filter(_STRETCHED.search, words), None)):
            return None
        return next(s.reason for s in self._counting(style, level) if self._of(s, stretched=True).search(found))

    def _about_minors(self, text: str) -> bool:
        """Whether minors and sex share a text; stricter levels block the sexual word by itself."""
        if self._minor is None or not self._minor.search(text):
            return False
        return any(self._of(s).search(text) for s in self._sections if s.reason == _SEXUAL)

    def _censored(self, word: str, style: str, level: Level) -> str | None:
        """The reason of a word with letters starred out: the mildest that it may stand for."""
        stars = len(re.findall(r"[*#]", word))
        if stars > len(word) - stars:
            return None
        for section in sorted(self._sections, key=lambda s: LEVELS.index(s.level)):
            if any(_may_be(word, entry) for entry in section.entries):
                return section.reason if section.counts(style, level) else None
        return None

    def _counting(self, style: str, level: Level) -> Iterable[Section]:
        return (s for s in self._sections if s.counts(style, level))

    def _combined(self, style: str, level: Level, stretched: bool = False) -> re.Pattern[str]:
        if level not in LEVELS:
            raise ValueError(f"There is no filter level {level}; known are {', '.join(LEVELS)}.")
        key = (style == "meme", level, stretched)
        if key not in self._patterns:
            self._patterns[key] = pattern((e for s in self._counting(style, level) for e in s.entries), stretched)
        return self._patterns[key]

    def _of(self, section: Section, stretched: bool = False) -> re.Pattern[str]:
        key = (section, stretched)
        if key not in self._patterns:
            self._patterns[key] = pattern(section.entries, stretched)
        return self._patterns[key]


@lru_cache(maxsize=1)
def shipped() -> BlockList:
    """The list that comes with the package."""
    return BlockList(resources.files("captioner").joinpath("data/blocklist.txt").read_text("utf-8"))


def sections(text: str) -> Iterable[Section]:
    """What stands under each heading. Raises ValueError for another format."""
    lines = [line for raw in text.splitlines() if (line := raw.strip().lower()) and not line.startswith("#")]
    starts = [i for i, line in enumerate(lines) if line.startswith("[")] + [len(lines)]
    if lines and starts[0] != 0:
        raise ValueError(f"The block list does not begin with a [heading] but with {lines[0]!r}.")
    for start, end in pairwise(starts):
        heading = _HEADING.fullmatch(lines[start])
        if heading is None:
            raise ValueError(f"The block list has a heading that is none: {lines[start]}.")
        level = next(known for known in LEVELS if known == (heading[2] or "normal"))
        yield Section(heading[1], level, bool(heading[3]), tuple(map(_folded, lines[start + 1 : end])))


def pattern(entries: Iterable[str], stretched: bool = False) -> re.Pattern[str]:
    """Any of the entries as whole words, by a tree of their letters: no word is compared with all of them.

    With `stretched`, every letter may stand there several times.
    """
    tree: dict[str, Any] = {}
    for entry in entries:
        node = tree
        for letter in entry:
            node = node.setdefault(letter, {})
        node[""] = {}
    return re.compile(rf"(?<!\w)(?<!\w')(?:{_branches(tree, '+' * stretched) or '(?!)'})(?!\w)")


def _branches(node: dict[str, Any], often: str) -> str:
    special = {"*": r"\w*", " ": r"[\W_]+"}
    ways = [
        special.get(letter, re.escape(letter) + often) + _branches(below, often)
        for letter, below in node.items()
        if letter
    ]
    if not ways:
        return ""
    return f"(?:{'|'.join(ways)})" + ("?" if "" in node else "")


def _may_be(word: str, entry: str) -> bool:
    """Whether the letters that are left of a starred word are the entry's."""
    stem = entry.removesuffix("*")
    if stem != entry:
        word = word[: len(stem)]
    return len(word) == len(stem) and all(w in "*#" or w == e for w, e in zip(word, stem, strict=True))


def _variants(text: str) -> list[str]:
    plain = text.lower() if text.isascii() else _folded(text)
    joined = _SPACED.sub(lambda m: re.sub(r"[\W_]+", "", m.group()), plain)
    spelled = _SPACED_LEET.sub(lambda m: re.sub(r"\s+", "", m.group()), plain)
    found = [plain, joined, spelled]
    for variant in filter(_DISGUISED.search, (plain, joined, spelled)):
        leet = _unleet(variant)
        found += [leet, _unleet(variant.translate(_ALSO_L)), _RUNS.sub(r"\1\1", leet), _RUNS.sub(r"\1", leet)]
        found.append(re.sub(r"(?<=\w)[.*_-](?=\w)", "", leet))
    return list(dict.fromkeys(found))


def _unleet(text: str) -> str:
    """Digits and signs as the letters they resemble, in words that have a letter and are no number with one before."""

    def read(found: re.Match[str]) -> str:
        word = found.group()
        is_word = re.search(r"[^\W\d]", word) and not _NUMBERED.fullmatch(word)
        return word.translate(_LEET) if is_word else word

    return _LEETED.sub(read, text)


def _folded(text: str) -> str:
    """Lower case without accents, invisible characters and letters that look like Latin ones."""
    folded = unicodedata.normalize("NFKD", text.lower()).translate(_CONFUSABLE)
    seen = (c for c in folded if c not in _BLANKS and not unicodedata.combining(c))
    return "".join(c for c in seen if unicodedata.category(c) != "Cf")
