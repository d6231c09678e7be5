"""What the operator sees: memes and votes by day, models and how they are received, retrainings, texts."""

import datetime
import json
from collections import defaultdict
from collections.abc import Sequence

from sqlite_utils import Database

from bot.emoji import Ballot
from bot.events import Day, Figures, Rated, Retrained, Version
from bot.learn import labels, runs
from bot.learn.approval import Approval, approval, difference
from bot.votes import Label

DAYS = 30
RETRAININGS = 20
TEXTS = 10
SHOWN = 20_000
"""Memes that approvals go by, the newest."""


def figures(db: Database, ballot: Ballot, model: str, now: float) -> Figures:
    """Everything but the stages' times, which the process itself knows; `model` is the one that serves."""
    found = labels.folded(db, ballot, SHOWN)
    best, worst = _texts(db, found)
    outcomes = dict(db.execute("SELECT outcome, count(*) FROM retrainings GROUP BY outcome").fetchall())
    days, versions = _days(db, ballot, now), versions_of(db, found, model)
    return Figures(days, versions, _retrainings(db), best, worst, outcomes=outcomes)


def versions_of(db: Database, found: Sequence[Label], model: str) -> list[Version]:
    """Every version that there is, and every other model that made memes or serves; newest first."""
    received, made = _received(db, found)
    listed = [
        Version(
            row["id"],
            "serving" if row["id"] == model else row["state"],
            row["parent"],
            row["created"],
            row["labels"],
            made.get(row["id"], 0),
            *_interval(received.get(row["id"])),
            json.loads(row["verdict"]) or {},
            row["words"],
        )
        for row in db.query("SELECT * FROM models ORDER BY created DESC, id DESC")
    ]
    known = {version.id for version in listed}
    for name in dict.fromkeys(name for name in (model, *made) if name and name not in known):
        state = "serving" if name == model else "shipped"
        listed.append(Version(name, state, "", None, 0, made.get(name, 0), *_interval(received.get(name)), {}))
    return listed


def _received(db: Database, found: Sequence[Label], since: float = 0.0) -> tuple[dict[str, Approval], dict[str, int]]:
    """The approval of every model's memes, and how many it made, both of those with words that it chose."""
    by_meme = {label.meme: label for label in found}
    tallies: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in db.query(
        f"SELECT id, model FROM memes WHERE {labels.CHOSEN} AND created >= ? ORDER BY created DESC LIMIT ?",  # noqa: S608
        [since, SHOWN],
    ):
        if label := by_meme.get(row["id"]):
            tallies[row["model"]].append((label.up, label.down))
    made = db.execute(
        f"SELECT model, count(*) FROM memes WHERE {labels.CHOSEN} GROUP BY model ORDER BY max(created) DESC"  # noqa: S608
    ).fetchall()
    return {model: known for model, of in tallies.items() if (known := approval(of))}, dict(made)


def compared(db: Database, ballot: Ballot, new: str, old: str, since: float) -> tuple[bool, str]:
    """Whether a model on trial may serve everybody: unless its memes are surely liked less. And why, in words."""
    found = labels.folded(db, ballot, SHOWN)
    received, _ = _received(db, found, since)
    if new not in received or old not in received:
        return True, "There were too few votes during the trial to compare it."
    gain, low, high = difference(received[new], received[old])
    words = f"On trial its approval differed by {100 * gain:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f})."
    return high >= 0, words


def _interval(known: Approval | None) -> tuple[float | None, float, float]:
    return (known.mean, known.low, known.high) if known else (None, 0.0, 1.0)


def _days(db: Database, ballot: Ballot, now: float) -> list[Day]:
    """The last days in UTC, oldest first; votes count on the day they were cast."""
    today = datetime.datetime.fromtimestamp(now, datetime.UTC).date()
    dates = [str(today - datetime.timedelta(days)) for days in range(DAYS - 1, -1, -1)]
    memes = dict(db.execute("SELECT date(created, 'unixepoch') AS day, count(*) FROM memes GROUP BY day").fetchall())
    votes: dict[str, dict[str, int]] = defaultdict(dict)
    for day, emoji, count in db.execute(
        "SELECT date(created, 'unixepoch') AS day, emoji, count(*) FROM reactions "
        "WHERE created >= ? GROUP BY day, emoji",
        [now - (DAYS + 1) * 86_400],
    ):
        votes[day][emoji] = count
    return [Day(date, memes.get(date, 0), *ballot.verdict(votes[date])) for date in dates]


def _retrainings(db: Database) -> list[Retrained]:
    rows = db.query("SELECT * FROM retrainings ORDER BY number DESC LIMIT ?", [RETRAININGS])
    return [runs.retrained(row) for row in rows]


def _texts(db: Database, found: Sequence[Label]) -> tuple[list[Rated], list[Rated]]:
    """The memes that are liked best and least; of those alike, the newest first, as they come."""
    best = sorted((label for label in found if label.up > label.down), key=lambda label: -label.approval)
    worst = sorted((label for label in found if label.down > label.up), key=lambda label: label.approval)
    return [_rated(db, label) for label in best[:TEXTS]], [_rated(db, label) for label in worst[:TEXTS]]


def _rated(db: Database, label: Label) -> Rated:
    (boxes,) = db.execute("SELECT boxes FROM memes WHERE id = ?", [label.meme]).fetchone()
    return Rated(tuple(json.loads(boxes)), label.up, label.down)
