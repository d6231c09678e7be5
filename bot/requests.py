"""What the bot took on and has not done with yet. Functions on the database, for the store's thread."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from sqlite_utils import Database

from bot.events import Outcome, Request

DAY = 86_400
"""Seconds that an ended request is remembered at least: a platform may tell of it again."""


def accept(db: Database, new: Sequence[tuple[Request, float]]) -> list[bool]:
    """New rows, all in one transaction; False for each that the platform told of before."""
    with db.atomic():
        return [_inserted(db, request, at) for request, at in new]


def unfinished(db: Database, platform: str, now: float) -> list[Request]:
    """What has not ended, oldest first; what is too late ends as expired, what was being sent is counted."""
    open_ = "platform = ? AND state IN ('waiting', 'sending')"
    with db.atomic():
        db.execute(
            f"UPDATE requests SET state = 'expired', payload = '{{}}' WHERE {open_} AND expires <= ?",  # noqa: S608
            [platform, now],
        )
        db.execute("UPDATE requests SET resent = resent + 1 WHERE platform = ? AND state = 'sending'", [platform])
        rows = list(db.query(f"SELECT * FROM requests WHERE {open_} ORDER BY created, rowid", [platform]))  # noqa: S608
    return [_request(row) for row in rows]


def concerns(db: Database, platform: str, request: str, message: str) -> None:
    """Which message has the picture that is asked for."""
    with db.atomic():
        db.execute("UPDATE requests SET message = ? WHERE platform = ? AND id = ?", [message, platform, request])


def sending(db: Database, platform: str, request: str) -> bool:
    """Whether the answer may be sent: not where the request has ended meanwhile."""
    with db.atomic():
        cursor = db.execute(
            "UPDATE requests SET state = 'sending' WHERE platform = ? AND id = ? AND state IN ('waiting', 'sending')",
            [platform, request],
        )
        return bool(cursor.rowcount > 0)


def made(db: Database, platform: str, request: str, meme: str) -> None:
    """The meme that answers a request; within the transaction that adds the meme."""
    db.execute("UPDATE requests SET meme = ? WHERE platform = ? AND id = ?", [meme, platform, request])


def answered(db: Database, meme: str) -> None:
    """The meme arrived; within the transaction that says where. What the request carried is not needed any more."""
    db.execute("UPDATE requests SET state = 'answered', payload = '{}' WHERE meme = ?", [meme])


def finish(db: Database, platform: str, request: str, outcome: Outcome, why: str) -> None:
    """A request without a meme has ended; one that ended before stays as it is."""
    with db.atomic():
        db.execute(
            "UPDATE requests SET state = ?, why = ?, payload = '{}' "
            "WHERE platform = ? AND id = ? AND state IN ('waiting', 'sending')",
            [outcome, why, platform, request],
        )


def withdraw(db: Database, platform: str, chat: str, message: str, why: str) -> None:
    """End what was asked of a message that is gone."""
    with db.atomic():
        db.execute(
            "UPDATE requests SET state = 'refused', why = ?, payload = '{}' "
            "WHERE platform = ? AND chat = ? AND message = ? AND state IN ('waiting', 'sending')",
            [why, platform, chat, message],
        )


def counts(db: Database, platform: str) -> dict[str, int]:
    """Requests by state, and how many may have been answered twice, as "resent"."""
    rows = db.execute("SELECT state, count(*) FROM requests WHERE platform = ? GROUP BY state", [platform])
    states: dict[str, int] = dict(rows.fetchall())
    (resent,) = db.execute("SELECT count(*) FROM requests WHERE platform = ? AND resent > 0", [platform]).fetchone()
    return states | {"resent": resent}


def prune(db: Database, before: float) -> None:
    """Forget what ended long ago; within the caller's transaction."""
    db.execute("DELETE FROM requests WHERE state NOT IN ('waiting', 'sending') AND created < ?", [before - DAY])


def _inserted(db: Database, request: Request, at: float) -> bool:
    row = dataclasses.asdict(request) | {"payload": json.dumps(request.payload), "created": at, "state": "waiting"}
    del row["sending"]
    cursor = db.execute(
        f"INSERT OR IGNORE INTO requests ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})",  # noqa: S608
        list(row.values()),
    )
    return bool(cursor.rowcount > 0)


def _request(row: dict[str, Any]) -> Request:
    return Request(
        platform=row["platform"],
        id=row["id"],
        chat=row["chat"],
        user=row["user"],
        expires=row["expires"],
        payload=json.loads(row["payload"]),
        message=row["message"],
        meme=row["meme"],
        sending=row["state"] == "sending",
    )
