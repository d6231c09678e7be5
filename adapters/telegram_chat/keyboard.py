"""The buttons below a meme. What a button does stands in its data, so that it works after a restart."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from telegram import InlineKeyboardButton, InlineKeyboardMarkup

from bot.events import Candidate

Action = Literal["redo", "pick", "back", "edit", "why", "delete", "vote"]
DATA = re.compile(r"(redo|pick|back|edit|why|delete|vote):([0-9a-f]{24})(?::(.+))?")
MAX_DATA = 64
"""Bytes of data that Telegram takes with a button."""
MAX_LABEL = 60
"""Characters that still show on a button across a telephone."""


@dataclass(frozen=True, slots=True)
class Press:
    """What a button asks for; `detail` is the number of a caption, or the emoji of a vote."""

    action: Action
    meme: str
    detail: str = ""


def parsed(data: str | None) -> Press | None:
    """None for a button that is none of ours."""
    found = DATA.fullmatch(data or "")
    return Press(found[1], found[2], found[3] or "") if found else None  # type: ignore[arg-type]


def below(meme: str, *, choices: int, votes: Mapping[str, int] | None) -> InlineKeyboardMarkup:
    """The buttons of a meme. `votes` has the emoji to vote with and their counts; None where reactions arrive."""
    rows = [_vote_row(meme, votes)] if votes else []
    again = [_button("🎲 Another one", f"redo:{meme}")]
    if choices > 1:
        again.append(_button(f"🃏 Pick of {_words(min(choices, 3))}", f"pick:{meme}"))
    rows.append(again)
    rows.append(
        [
            _button("✏️ My words", f"edit:{meme}"),
            _button("❓ Why", f"why:{meme}"),
            _button("🗑 Delete", f"delete:{meme}"),
        ]
    )
    return InlineKeyboardMarkup(rows)


def picking(meme: str, candidates: Sequence[Candidate]) -> InlineKeyboardMarkup:
    """The captions to choose from, one a row."""
    rows = [
        [_button(_shortened(" / ".join(filter(None, candidate.boxes))), f"pick:{meme}:{number}")]
        for number, candidate in enumerate(candidates[:3])
    ]
    return InlineKeyboardMarkup([*rows, [_button("↩️ Back", f"back:{meme}")]])


def _vote_row(meme: str, votes: Mapping[str, int]) -> list[InlineKeyboardButton]:
    pairs = ((f"{emoji} {count}" if count else emoji, f"vote:{meme}:{emoji}") for emoji, count in votes.items())
    return [_button(label, data) for label, data in pairs if len(data.encode()) <= MAX_DATA]


def _button(label: str, data: str) -> InlineKeyboardButton:
    return InlineKeyboardButton(label, callback_data=data)


def _shortened(text: str) -> str:
    return (text if len(text) <= MAX_LABEL else text[: MAX_LABEL - 1] + "…") or "…"


def _words(number: int) -> str:
    return {2: "two", 3: "three"}[number]
