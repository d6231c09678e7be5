"""What users ask for, checked: seeds, words, numbers of captions."""

import secrets
import unicodedata
from collections.abc import Iterable

from bot import policy
from bot.events import BadRequest, Filter, ImagePosted, Wish

MAX_CANDIDATES = 10
MAX_WORDS = 1000
"""Characters of a user's own text, all boxes together."""
MAX_BOXES = 10
MAX_CONTEXT = 500
MAX_SEED = 2**63 - 1
"""What SQLite holds; the bot itself draws smaller ones, which every JSON reader gets right."""

_UNSEEN = ("Cc", "Cf", "Cs", "Mn", "Zs")
"""Categories of characters that show nothing by themselves."""
_BLANK_LETTERS = "\u115f\u1160\u2800\u3164\uffa0"
"""Letters and signs by their category, of which fonts draw nothing."""


def wish_of(event: ImagePosted, explore: float, level: Filter) -> Wish:
    """What the event asks of the engine; raises `BadRequest` where it asks for too much."""
    if not 1 <= event.candidates <= MAX_CANDIDATES:
        raise BadRequest(f"Between 1 and {MAX_CANDIDATES} captions can be asked for.")
    seed = checked_seed(event.seed)
    own = checked_boxes(event.own_boxes) if event.own_boxes else ()
    return Wish(
        style=event.style,
        seed=seed,
        candidates=event.candidates,
        context=_clean(event.text)[:MAX_CONTEXT],
        own_boxes=own,
        max_bytes=event.max_bytes,
        filter=level,
        moving=event.moving,
        explore=not own and event.style == "meme" and policy.explores(seed, explore),
    )


def checked_seed(given: int | None) -> int:
    """The given seed, or a random one that people can type."""
    if given is None:
        return secrets.randbelow(2**31)
    if not 0 <= given <= MAX_SEED:
        raise BadRequest(f"A seed is a whole number from 0 to {MAX_SEED}.")
    return given


def checked_boxes(boxes: Iterable[str]) -> tuple[str, ...]:
    """A user's words as they can be drawn and stored; raises `BadRequest` for none or too many."""
    cleaned = tuple(box if _shows(box) else "" for box in map(_clean, boxes))
    if not any(cleaned):
        raise BadRequest("There are no words to write on the picture.")
    if len(cleaned) > MAX_BOXES or sum(map(len, cleaned)) > MAX_WORDS:
        raise BadRequest(f"At most {MAX_WORDS} characters in {MAX_BOXES} boxes fit on a picture.")
    return cleaned


def _shows(text: str) -> bool:
    """Whether anything of it can be seen."""
    return any(unicodedata.category(char) not in _UNSEEN and char not in _BLANK_LETTERS for char in text)


def _clean(text: str) -> str:
    """One line, without control characters and halves of surrogate pairs."""
    return "".join(char for char in " ".join(text.split()) if unicodedata.category(char) not in ("Cc", "Cs"))
