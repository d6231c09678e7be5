"""What the bot neither learns from nor says: a block list that sees through the usual disguises."""

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from importlib import resources

_LEET = str.maketrans("01345789@$!|€£", "oieastbgasiiel")
_CONFUSABLE = str.maketrans("аеорсухіѕјԁɡɑıʟνԛ", "aeopcyxisjdgailvq")
_WORD = re.compile(r"[\w'@$!|€£*/-]+")
_SPACED = re.compile(r"\b(?:\w[\s._*-]+){2,}\w\b")
_DISGUISED = re.compile(r"[0-9@$!|€£]|(.)\1\1|\w[.*_-]\w")
_RUNS = re.compile(r"(.)\1{2,}")
_ANYWHERE, _GROUP = "anywhere", "group"


class BlockList:
    """Entries by reason; `reason` tells which one a text falls under."""

    def __init__(self, text: str) -> None:
        """Reads the format of `data/blocklist.txt`: ``[reason]`` headings, entries below, ``*`` for any letters."""
        sections = _sections(text)
        self._anywhere = sections.pop(_ANYWHERE, [])
        self._patterns: list[tuple[str, re.Pattern[str]]] = []
        for reason, entries in sections.items():
            self._patterns.append((reason, re.compile(rf"(?<![\w'])(?:{_either(entries)})(?![\w])")))

    def reason(self, text: str, style: str = "meme") -> str | None:
        """Why a text is blocked, or None. Case, accents, look-alikes, spacing and stretched letters are undone.

        A description may name a group of people; a joke about one is not made.
        """
        for variant in _variants(text):
            for reason, pattern in self._patterns:
                if (reason != _GROUP or style == "meme") and pattern.search(variant):
                    return reason
            letters = re.sub(r"[\W_]+", "", variant)
            if any(entry in letters for entry in self._anywhere):
                return "slur"
        return None

    def blocks(self, boxes: Sequence[str], style: str = "meme") -> bool:
        """Whether any box, or their words read on from box to box, is blocked."""
        return self.reason(" ".join(boxes), style) is not None


@lru_cache(maxsize=1)
def shipped() -> BlockList:
    """The list that comes with the package."""
    return BlockList(resources.files("captioner").joinpath("data/blocklist.txt").read_text("utf-8"))


def _sections(text: str) -> dict[str, list[str]]:
    sections: dict[str, list[str]] = {}
    entries: list[str] = []
    for raw in text.splitlines():
        line = raw.strip().lower()
        if line.startswith("[") and line.endswith("]"):
            entries = sections.setdefault(line[1:-1], [])
        elif line and not line.startswith("#"):
            entries.append(line)
    return sections


def _either(entries: Sequence[str]) -> str:
    """A pattern for any of the entries, by their first letters: a word is compared with a few, not with hundreds."""
    by_letter: dict[str, list[str]] = {}
    for entry in entries:
        by_letter.setdefault(entry[0], []).append(re.escape(entry[1:]).replace(r"\*", r"\w*"))
    first = {letter: r"\w*" if letter == "*" else re.escape(letter) for letter in by_letter}
    return "|".join(f"{first[letter]}(?:{'|'.join(rest)})" for letter, rest in by_letter.items())


def _variants(text: str) -> list[str]:
    plain = text.lower() if text.isascii() else _folded(text)
    joined = _SPACED.sub(lambda m: re.sub(r"[\W_]+", "", m.group()), plain)
    found = [plain, joined]
    for variant in filter(_DISGUISED.search, (plain, joined)):
        leet = _WORD.sub(
            lambda m: m.group().translate(_LEET) if re.search(r"[^\W\d]", m.group()) else m.group(), variant
        )
        found += [leet, _RUNS.sub(r"\1\1", leet), _RUNS.sub(r"\1", leet), re.sub(r"(?<=\w)[.*_-](?=\w)", "", leet)]
    return list(dict.fromkeys(found))


def _folded(text: str) -> str:
    """Lower case without accents, invisible characters and letters that look like Latin ones."""
    folded = unicodedata.normalize("NFKD", text.lower()).translate(_CONFUSABLE)
    return "".join(c for c in folded if not unicodedata.combining(c) and unicodedata.category(c) != "Cf")
