"""What is remembered of one person: to hand out, to forget, and the wish not to be memed."""

import json
from typing import Any

from sqlite_utils import Database

from bot.database import namer
from bot.events import Forgotten, Placed

REMEMBERED = 30 * 86_400
"""Seconds; platforms are asked for votes of the last days only."""


def opt_out(db: Database, platform: str, user: str, out: bool, at: float) -> None:
    """Keep a person's pictures from being memed by others, or let them be."""
    with db.atomic():
        if out:
            db.execute("INSERT OR IGNORE INTO optouts VALUES (?, ?, ?)", [platform, user, at])
        else:
            db.execute("DELETE FROM optouts WHERE platform = ? AND user = ?", [platform, user])


def opted_out(db: Database, platform: str, user: str) -> bool:
    found = db.execute("SELECT 1 FROM optouts WHERE platform = ? AND user = ?", [platform, user]).fetchone()
    return found is not None


def export(db: Database, platform: str, user: str) -> dict[str, Any]:
    """Every row that names the person; of memes that others made of their pictures, no more than that they are there.

    Pictures are left out: they stand in the chats, and are kept for days only.
    """
    columns = "id, server, chat, message, reply, created, style, seed, model, template, description, alt, boxes, chosen"
    asked = db.query(f"SELECT {columns}, picked FROM memes WHERE platform = ? AND user = ?", [platform, user])  # noqa: S608
    return {
        "platform": platform,
        "user": user,
        "opted_out": opted_out(db, platform, user),
        "memes": [row | {"boxes": json.loads(row["boxes"])} for row in asked],
        "memes_by_others": _rows(
            db, "id, server, chat, reply, created FROM memes", "author = ? AND user != author", platform, user
        ),
        "features_kept": _rows(
            db, "memes.id AS meme FROM features JOIN memes ON memes.id = meme", "author = ?", platform, user
        ),
        "reactions": _rows(db, "meme, emoji, created FROM reactions", "user = ?", platform, user),
        "requests": _rows(db, "id, chat, message, created, state, why FROM requests", "user = ?", platform, user),
        "ratings": _rows(db, "meme, other, question, answer, created FROM ratings", "user = ?", platform, user),
        "settings": _rows(db, "server, chat, key, value, changed FROM settings", "user = ?", platform, user),
    }


def forget(db: Database, platform: str, user: str, at: float) -> Forgotten:
    """Within the caller's transaction. The wish not to be memed stays: without it the pictures would be taken again.

    So does, until `prune`, under a name that means nothing elsewhere, that somebody was forgotten: what their platform
    shows of votes of before, when it is asked again, is not written down anew.
    """
    values = [platform, user]
    db.execute("INSERT OR REPLACE INTO forgotten VALUES (?, ?, ?)", [platform, namer(db)(platform, "user", user), at])
    db.execute("UPDATE settings SET user = '' WHERE platform = ? AND user = ?", values)
    db.execute("DELETE FROM ratings WHERE platform = ? AND user = ?", values)
    voted = _placed(
        db, "? NOT IN (user, author) AND id IN (SELECT meme FROM reactions WHERE user = ?)", platform, user, user
    )
    reactions = db.execute("DELETE FROM reactions WHERE platform = ? AND user = ?", values).rowcount
    requests = db.execute("DELETE FROM requests WHERE platform = ? AND user = ?", values).rowcount
    gone = _placed(db, "? IN (user, author)", platform, user)
    db.execute("DELETE FROM memes WHERE platform = ? AND ? IN (user, author)", values)
    return Forgotten(len(gone), reactions, requests, gone, voted)


def prune(db: Database, before: float) -> None:
    """Forget also who was forgotten long before a time; within the caller's transaction."""
    db.execute("DELETE FROM forgotten WHERE at < ?", [before - REMEMBERED])


def forgotten_since(db: Database, platform: str, user: str, since: float) -> bool:
    """Whether somebody had everything forgotten after a time."""
    found = db.execute(
        "SELECT 1 FROM forgotten WHERE platform = ? AND who = ? AND at >= ?",
        [platform, namer(db)(platform, "user", user), since],
    )
    return found.fetchone() is not None


def _placed(db: Database, where: str, *values: str) -> tuple[Placed, ...]:
    """Memes of a platform, oldest first."""
    rows = db.query(f"SELECT id, chat, reply FROM memes WHERE platform = ? AND {where} ORDER BY created", values)  # noqa: S608
    return tuple(Placed(row["id"], row["chat"], row["reply"] or "") for row in rows)


def _rows(db: Database, what: str, where: str, platform: str, user: str) -> list[dict[str, Any]]:
    return list(db.query(f"SELECT {what} WHERE platform = ? AND {where}", [platform, user]))
