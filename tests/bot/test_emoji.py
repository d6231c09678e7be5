import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.emoji import normalised
from bot.events import BadRequest

PLAIN = [
    "👍",
    "🤣",
    "😂",
    "🔥",
    "💩",
    "❤",
    "☠",
    "🇩🇪",
    "🏴󠁧󠁢󠁥󠁮󠁧󠁿",
    "👩‍💻",
    "👨‍👩‍👧‍👦",
    "🏳‍🌈",
    "1⃣",
    "#⃣",
    "‼",
    "▶",
    "🫠",
    "🪿",
    "🙈",
]


@pytest.mark.parametrize("emoji", PLAIN)
def test_plain_emoji_stay(emoji: str) -> None:
    assert normalised(emoji) == emoji
    assert normalised(emoji[0] + "\ufe0f" + emoji[1:]) == emoji


@pytest.mark.parametrize(
    ("given", "bare"), [("👍🏽", "👍"), ("❤️", "❤"), ("👩🏿‍💻", "👩‍💻"), ("1️⃣", "1⃣"), ("🤝🏻", "🤝")]
)
def test_variations_and_tones_go(given: str, bare: str) -> None:
    assert normalised(given) == bare


@pytest.mark.parametrize(
    "text",
    ["", " ", "a", "12", "👍👍", "👍a", "<b>", "\u200d", "🏽", "\ufe0f", "🇩", "é", "👍" * 40, "\x00", "👍\u200d", "§"],
)
def test_everything_else_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        normalised(text)


@given(st.text(max_size=20))
def test_what_passes_is_settled(text: str) -> None:
    try:
        once = normalised(text)
    except BadRequest:
        return
    assert normalised(once) == once
    assert unicodedata.is_normalized("NFC", once)
