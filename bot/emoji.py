"""One spelling for each emoji, so that equal votes count as equal."""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bot.events import BadRequest

MAX_CODE_POINTS = 16

# Extended_Pictographic of Unicode's emoji-data.txt, as the inside of a character class.
PICTOGRAPH = (
    "\u00a9\u00ae\u203c\u2049\u2122\u2139\u2194-\u2199\u21a9\u21aa\u231a\u231b\u2328\u23cf\u23e9-\u23f3\u23f8-\u23fa"
    "\u24c2\u25aa\u25ab\u25b6\u25c0\u25fb-\u25fe\u2600-\u2604\u260e\u2611\u2614-\u2685\u2690-\u2705\u2708-\u2712\u2714"
    "\u2716\u271d\u2721\u2728\u2733\u2734\u2744\u2747\u274c\u274e\u2753-\u2755\u2757\u2763-\u2767\u2795-\u2797\u27a1"
    "\u27b0\u27bf\u2934\u2935\u2b05-\u2b07\u2b1b\u2b1c\u2b50\u2b55\u3030\u303d\u3297\u3299"
    "\U0001f000-\U0001f0ff\U0001f10d-\U0001f10f\U0001f12f\U0001f16c-\U0001f171\U0001f17e\U0001f17f\U0001f18e"
    "\U0001f191-\U0001f19a\U0001f201-\U0001f20f\U0001f21a\U0001f22f\U0001f232-\U0001f23a\U0001f23c-\U0001f23f"
    "\U0001f249-\U0001f3fa\U0001f400-\U0001f53d\U0001f546-\U0001f64f\U0001f680-\U0001f6ff\U0001f7e0-\U0001f7ff"
    "\U0001f90c-\U0001f93a\U0001f93c-\U0001f945\U0001f947-\U0001faff"
)
VARIATIONS_AND_TONES = re.compile("[\ufe0e\ufe0f\U0001f3fb-\U0001f3ff]")
ELEMENT = f"[{PICTOGRAPH}][\U000e0020-\U000e007f]*"
EMOJI = re.compile(f"{ELEMENT}(?:\u200d{ELEMENT})*|[\U0001f1e6-\U0001f1ff]{{2}}|[0-9#*]\u20e3")

CUSTOM = re.compile(r"<a?:(\w{1,32}):(\d{1,20})>")
"""An emoji of a platform's own, as Discord writes it."""


@dataclass(frozen=True, slots=True)
class Ballot:
    """Which emoji, normalised, are votes for a meme, and which are votes against it."""

    up: frozenset[str]
    down: frozenset[str]

    @classmethod
    def of(cls, up: Iterable[str], down: Iterable[str]) -> "Ballot":
        """Raises `BadRequest` for what is no emoji, or stands on both sides."""
        ballot = cls(frozenset(map(normalised, up)), frozenset(map(normalised, down)))
        if both := ballot.up & ballot.down:
            raise BadRequest(
                f"{' '.join(sorted(both))} cannot be a vote for and against a meme: see learn.up and learn.down."
            )
        return ballot

    def verdict(self, votes: Mapping[str, int]) -> tuple[int, int]:
        """How many of the votes (normalised emoji to their number) are for a meme, and how many against it."""
        return sum(votes.get(emoji, 0) for emoji in self.up), sum(votes.get(emoji, 0) for emoji in self.down)


def known(text: str) -> str | None:
    """`normalised`, or None for what is no emoji."""
    try:
        return normalised(text)
    except BadRequest:
        return None


def normalised(text: str) -> str:
    """The emoji in NFC, without variation selectors and skin tones; raises `BadRequest` for anything else."""
    if custom := CUSTOM.fullmatch(text):
        return f"<:{custom[1]}:{custom[2]}>"
    if len(text) > MAX_CODE_POINTS:
        raise BadRequest("A reaction is a single emoji.")
    bare = VARIATIONS_AND_TONES.sub("", unicodedata.normalize("NFC", text.strip()))
    if not EMOJI.fullmatch(bare):
        raise BadRequest("A reaction is a single emoji.")
    return bare
