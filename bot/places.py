"""Settings of chats and servers: which there are, how people write them, and where they are kept."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any, cast

from sqlite_utils import Database

from bot import emoji
from bot.events import BadRequest, Filter, Place, Settings

MAX_EMOJI = 5
WORDS = {"on": True, "yes": True, "true": True, "off": False, "no": False, "false": False}


def effective(defaults: Settings, changed: Mapping[str, Any], adult: bool) -> Settings:
    """The configuration's settings with what a place changed; the filter is on outside places for adults."""
    known: dict[str, Any] = {key: value for key, value in changed.items() if key in CHECKS}
    if "emoji" in known:
        known["emoji"] = tuple(known["emoji"])
    settings = dataclasses.replace(defaults, **known)
    if settings.filter == "off" and not adult:
        return dataclasses.replace(settings, filter="normal")
    return settings


def checked(changes: Mapping[str, Any], adult: bool) -> dict[str, Any]:
    """The changes as they are kept; None stays, and takes a setting back. Raises `BadRequest`."""
    for key in changes:
        if key not in CHECKS:
            raise BadRequest(f"There is no setting {key}; there are {', '.join(CHECKS)}.")
    kept = {key: None if value is None else CHECKS[key](key, value) for key, value in changes.items()}
    if kept.get("filter") == "off" and not adult:
        raise BadRequest("The filter can be off in channels for adults only.")
    return kept


def settings(db: Database, place: Place) -> dict[str, Any]:
    """What was changed for the chat or, where that was not, for its server."""
    rows = db.query(
        "SELECT key, value FROM settings WHERE platform = ? AND server = ? AND chat IN ('', ?) ORDER BY chat",
        [place.platform, place.server, place.chat],
    )
    return {row["key"]: json.loads(row["value"]) for row in rows}


def change(db: Database, place: Place, user: str, changes: Mapping[str, Any], at: float) -> None:
    """Write what `checked` returned."""
    where = [place.platform, place.server, place.chat]
    with db.atomic():
        for key, value in changes.items():
            db.execute("DELETE FROM settings WHERE platform = ? AND server = ? AND chat = ? AND key = ?", [*where, key])
            if value is not None:
                db.execute(
                    "INSERT INTO settings VALUES (?, ?, ?, ?, ?, ?, ?)", [*where, key, json.dumps(value), user, at]
                )


def move(db: Database, platform: str, old: str, new: str) -> None:
    """A chat has another number: its memes, settings, features and requests go with it.

    Messages are counted anew there, so that its memes stand as none of them.
    """
    values = [new, platform, old]
    with db.atomic():
        chat_of = "SELECT id FROM memes WHERE platform = ?"
        db.execute(f"UPDATE features SET chat = ? WHERE chat = ? AND meme IN ({chat_of})", [new, old, platform])  # noqa: S608
        db.execute("UPDATE memes SET chat = ?, reply = NULL, message = '' WHERE platform = ? AND chat = ?", values)
        db.execute("UPDATE requests SET chat = ? WHERE platform = ? AND chat = ?", values)
        db.execute("UPDATE OR IGNORE settings SET chat = ? WHERE platform = ? AND chat = ?", values)
        db.execute("DELETE FROM settings WHERE platform = ? AND chat = ?", [platform, old])


def drop_features(db: Database, place: Place) -> int:
    """Remove what is kept of pictures in those of the place's chats that do not consent; how many there were."""
    rows = db.query(
        "SELECT DISTINCT features.chat AS chat FROM features JOIN memes ON memes.id = meme "
        "WHERE platform = ? AND server = ? AND ? IN ('', features.chat)",
        [place.platform, place.server, place.chat],
    )
    gone = 0
    with db.atomic():
        for chat in [row["chat"] for row in rows]:
            if not settings(db, Place(place.platform, chat, place.server)).get("consent"):
                memes = "SELECT id FROM memes WHERE platform = ? AND server = ?"
                gone += db.execute(
                    f"DELETE FROM features WHERE chat = ? AND meme IN ({memes})",  # noqa: S608
                    [chat, place.platform, place.server],
                ).rowcount
    return gone


def _switch(key: str, value: object) -> bool:
    if isinstance(value, str):
        value = WORDS.get(value.strip().lower())
    if not isinstance(value, bool):
        raise BadRequest(f"{key} is on or off.")
    return value


def _number(low: float, high: float) -> Callable[[str, object], float]:
    def check(key: str, value: object) -> float:
        try:
            number = float(cast(str, value))
        except (TypeError, ValueError):
            number = float("nan")
        if not low <= number <= high:
            raise BadRequest(f"{key} is a number from {low:g} to {high:g}.")
        return number

    return check


def _filter(key: str, value: object) -> Filter:
    if value in ("strict", "normal", "off"):
        return value
    raise BadRequest(f"{key} is strict, normal or off.")


def _emoji(key: str, value: object) -> list[str]:
    words = value.split() if isinstance(value, str) else list(cast(tuple[str, ...], value))
    if not 0 < len(words) <= MAX_EMOJI:
        raise BadRequest(f"{key} is one to {MAX_EMOJI} emoji with spaces between them.")
    return list(dict.fromkeys(emoji.normalised(word) for word in words))


CHECKS: dict[str, Callable[[str, object], Any]] = {
    "passive": _switch,
    "chance": _number(0, 1),
    "cooldown_chat": _number(0, 86_400),
    "cooldown_user": _number(0, 86_400),
    "filter": _filter,
    "emoji": _emoji,
    "consent": _switch,
}
