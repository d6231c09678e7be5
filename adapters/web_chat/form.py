"""What the fields of a request mean. Which values make sense is the service's to say."""

import re
from typing import cast

from bot.events import BadRequest, Style

CANDIDATES = 3

_COMMAND = re.compile(r"/meme(?=\s|$)", re.IGNORECASE)


def words(text: str) -> tuple[str, tuple[str, ...]]:
    """Split what was typed into context words and the user's own boxes, top to bottom; one of the two is empty.

    A `|` makes own boxes, with or without `/meme` before it. An empty box keeps its place: `| below` writes below.
    """
    text = _COMMAND.sub("", text.strip(), count=1).strip()
    if "|" not in text:
        return text, ()
    return "", tuple(box.strip() for box in text.split("|"))


def whole_number(name: str, value: object) -> int | None:
    """Digits, or a JSON number, from 0 to 2**63 - 1; None where nothing was given. Raises `BadRequest`."""
    if value is None:
        return None
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,19}", value):
        value = int(value)
    if type(value) is not int or not 0 <= value < 2**63:  # JSON's true and 1.0 are no numbers either
        raise BadRequest(f"The {name} must be a whole number from 0 to {2**63 - 1}.")
    return value


def style(value: str | None) -> Style:
    """Raises `BadRequest` for a style that nobody knows."""
    if value is None:
        return "meme"
    if value not in ("meme", "describe"):
        raise BadRequest("The style must be “meme” or “describe”.")
    return cast(Style, value)


def boxes(value: object) -> tuple[str, ...]:
    """A JSON list of texts; raises `BadRequest`."""
    if not isinstance(value, list) or not all(isinstance(box, str) for box in value):
        raise BadRequest("The boxes must be a list of texts, top to bottom.")
    return tuple(value)
