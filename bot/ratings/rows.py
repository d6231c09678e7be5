"""Ratings in the database: a row an answer, and one without a question for what was passed over."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlite_utils import Database


def add(db: Database, platform: str, user: str, memes: Sequence[str], answers: Mapping[str, str], at: float) -> None:
    """One rater's answers on a meme, or on two, in place of earlier ones; without any, they were passed over."""
    meme, other = (*memes, "")[:2]
    with db.atomic():
        _remove(db, platform, user, meme, other)
        for question, answer in (answers or {"": ""}).items():
            values = [platform, user, meme, other, question, answer, at]
            db.execute("INSERT INTO ratings VALUES (?, ?, ?, ?, ?, ?, ?)", values)


def take_back(db: Database, platform: str, user: str) -> tuple[str, ...]:
    """Remove a rater's last answers; the memes that they were on, none where there are no answers."""
    with db.atomic():
        found = db.execute(
            "SELECT meme, other FROM ratings WHERE platform = ? AND user = ? ORDER BY created DESC, rowid DESC LIMIT 1",
            [platform, user],
        ).fetchone()
        if found is None:
            return ()
        _remove(db, platform, user, *found)
    return tuple(filter(None, found))


def all_of(db: Database) -> list[dict[str, Any]]:
    """Every answer, oldest first."""
    return list(db.query("SELECT * FROM ratings ORDER BY created, rowid"))


def _remove(db: Database, platform: str, user: str, meme: str, other: str) -> None:
    values = [platform, user, meme, other]
    db.execute("DELETE FROM ratings WHERE platform = ? AND user = ? AND meme = ? AND other = ?", values)
