"""What the bot neither learns from nor says: a block list that sees through the usual disguises."""

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from importlib import resources

_LEET = str.maketrans("0134578@$!|€£", "oieastbasiiel")
_WORD = re.compile(r"[\w'@$!|€£*/-]+")
_SPACED = re.compile(r"\b(?:\w[\s._*-]+){2,}\w\b")
_RUNS = re.compile(r"(.)\1{2,}")


class BlockList:
    """Entries by reason; `reason` tells which one a text falls under."""

    def __init__(self, text: str) -> None:
        """Reads the format of `data/blocklist.txt`: ``[reason]`` headings, entries below, ``*`` for any letters."""
        self._patterns: list[tuple[str, re.Pattern[str]]] = []
        for reason, entries in _sections(text).items():
            words = "|".join(re.escape(entry).replace(r"\*", r"\w*") for entry in entries)
            self._patterns.append((reason, re.compile(rf"(?<![\w'])(?:{words})(?![\w])")))

    def reason(self, text: str) -> str | None:
        """Why a text is blocked, or None. Case, accents, look-alikes, spacing and stretched letters are undone."""
        for variant in _variants(text):
            for reason, pattern in self._patterns:
                if pattern.search(variant):
                    return reason
        return None

    def blocks(self, boxes: Sequence[str]) -> bool:
        """Whether any box, or their words read on from box to box, is blocked."""
        return self.reason(" ".join(boxes)) is not None


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


def _variants(text: str) -> list[str]:
    plain = "".join(c for c in unicodedata.normalize("NFKD", text.lower()) if not unicodedata.combining(c))
    joined = _SPACED.sub(lambda m: re.sub(r"[\W_]+", "", m.group()), plain)
    found = [plain, joined]
    for variant in (plain, joined):
        leet = _WORD.sub(
            lambda m: m.group().translate(_LEET) if re.search(r"[^\W\d]", m.group()) else m.group(), variant
        )
        found += [leet, _RUNS.sub(r"\1\1", leet), _RUNS.sub(r"\1", leet), re.sub(r"(?<=\w)[.*_-](?=\w)", "", leet)]
    return list(dict.fromkeys(found))
