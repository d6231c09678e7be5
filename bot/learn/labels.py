"""Labels out of the store: what is learnt is the bot's own captions with their votes, and which of three was picked."""

import base64
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, TextIO

from sqlite_utils import Database

from bot.database import namer
from bot.emoji import Ballot
from bot.events import Judgement, Preference
from bot.votes import Label, Shown, Vote, approvals

ANONYMOUS = "anonymous:"
"""What the names of voters begin with whose names the platform keeps to itself; they tell nobody from one meme to the
next."""
PICKS = 20.0
"""What the picks of one user in one chat weigh at most, as votes do."""
RECENT = 5_000
"""Memes that the live taste goes by, the newest: it is fitted while the bot serves."""

LATELY = 90 * 86_400.0
"""Seconds before the newest meme that picks are remembered for by the live taste."""

OWN = "style = 'meme' AND chosen IS NOT NULL"
"""Memes with words by the model: users' own texts are not learnt from, nor are descriptions."""
CHOSEN = f"{OWN} AND NOT picked"
"""Those that tell how a model is received: what somebody picked from three was chosen for being liked."""

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Exported:
    """How much was written: memes, those of them with votes, and pairs."""

    memes: int
    voted: int
    pairs: int


def write(db: Database, file: Path, ballot: Ballot) -> Exported:
    """All labels as JSON lines, oldest first; the file is there when it is complete, and nothing is if it cannot be."""
    part = file.with_name(file.name + ".part")
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with part.open("w", encoding="utf-8") as out:
            exported = _write(lines(db, ballot), out)
            out.flush()
            os.fsync(out.fileno())
        part.replace(file)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return exported


def _write(labels: Iterator[dict[str, Any]], out: TextIO) -> Exported:
    counts: Counter[str] = Counter()
    for line in labels:
        counts[line["kind"]] += 1
        counts["voted"] += line["kind"] == "meme" and line["weight"] > 0
        out.write(json.dumps(line, ensure_ascii=False) + "\n")
    return Exported(counts["meme"], counts["voted"], counts["pair"])


def lines(db: Database, ballot: Ballot) -> Iterator[dict[str, Any]]:
    """Every label as it is exported. Chats have names that mean nothing outside this store; users have none."""
    found = {label.meme: label for label in folded(db, ballot)}
    name = namer(db)
    picks = _picks(db)
    for row, candidates in _memes(db):
        chat = name(row["platform"], row["chat"])[:16]
        if row["id"] in found:  # others are newer than the votes that were read
            yield _line(row, candidates, found[row["id"]], chat)
        if row["id"] in picks:
            yield from _pairs(row, [each["boxes"] for each in candidates], chat, picks[row["id"]])


def preferences(db: Database) -> list[Preference]:
    """What was picked lately, rather than what; `chat` as in `judgements`."""
    picks = _picks(db)
    return [
        Preference(
            tuple(pair["better"]), tuple(pair["worse"]), row["template"], pair["chat"], row["created"], pair["weight"]
        )
        for row, offered in _memes(db, "AND picked AND created >= (SELECT max(created) FROM memes) - ?", [LATELY])
        if row["id"] in picks
        for pair in _pairs(row, [each["boxes"] for each in offered], _chat(row), picks[row["id"]])
    ]


def judgements(db: Database, ballot: Ballot) -> list[Judgement]:
    """What is known of the newest memes with votes; `chat` is the platform and its name for the chat."""
    voted = {label.meme: label for label in folded(db, ballot, RECENT) if label.weight > 0}
    query = f"SELECT id, boxes, template, created FROM memes WHERE {OWN} ORDER BY created DESC LIMIT ?"  # noqa: S608
    return [
        Judgement(tuple(json.loads(row["boxes"])), row["template"], of.up, of.down, of.chat, row["created"])
        for row in db.query(query, [RECENT])
        if (of := voted.get(row["id"]))
    ]


def folded(db: Database, ballot: Ballot, limit: int = -1) -> list[Label]:
    """A label for each of the newest memes, without limit for all; `chat` is the platform and its name for the chat."""
    newest = f"SELECT * FROM memes WHERE {OWN} ORDER BY created DESC LIMIT ?"  # noqa: S608
    rows = db.query(f"SELECT id, platform, chat, created FROM ({newest})", [limit])  # noqa: S608
    shown = [Shown(row["id"], _chat(row), row["created"]) for row in rows]
    return approvals(shown, _votes(db, ballot, newest, limit))


def _votes(db: Database, ballot: Ballot, newest: str, limit: int) -> Iterator[Vote]:
    rows = db.query(
        "SELECT meme, reactions.user AS user, emoji, reactions.created AS created, "  # noqa: S608
        "reactions.user IN (memes.user, memes.author) AS own "
        f"FROM reactions JOIN ({newest}) AS memes ON memes.id = meme ORDER BY reactions.created, reactions.rowid",
        [limit],
    )
    for row in rows:
        if row["emoji"] in ballot.up or row["emoji"] in ballot.down:
            user = f"{row['meme']}:{row['user']}" if row["user"].startswith(ANONYMOUS) else row["user"]
            yield Vote(row["meme"], user, row["emoji"] in ballot.up, row["created"], bool(row["own"]))


def _chat(row: Row) -> str:
    return f"{row['platform']}:{row['chat']}"


def _memes(db: Database, only: str = "", values: Sequence[float] = ()) -> Iterator[tuple[Row, list[Row]]]:
    """Each meme with what was written for it, best first, oldest meme first."""
    rows = db.query(
        "SELECT memes.id, platform, memes.chat, user, created, template, model, explored, picked, chosen, "  # noqa: S608
        "memes.boxes AS drawn, grid, candidates.boxes, logprob, reward, score FROM memes "
        "JOIN candidates ON candidates.meme = memes.id LEFT JOIN features ON features.meme = memes.id "
        f"WHERE {OWN} {only} ORDER BY created, memes.id, place",
        values,
    )
    for _, group in groupby(rows, key=lambda row: row["id"]):
        candidates = [row | {"boxes": json.loads(row["boxes"])} for row in group]
        yield candidates[0], candidates


def _line(row: Row, candidates: Sequence[Row], label: Label, chat: str) -> dict[str, Any]:
    return {
        "kind": "meme",
        "id": row["id"],
        "boxes": json.loads(row["drawn"]),
        "style": "meme",
        "template": row["template"],
        "at": row["created"],
        "chat": chat,
        "model": row["model"],
        "explored": bool(row["explored"]),
        "approval": round(label.approval, 6),
        "up": round(label.up, 6),
        "down": round(label.down, 6),
        "weight": round(label.weight, 6),
        "exposure": label.exposure,
        "features": base64.b64encode(row["grid"]).decode() if row["grid"] else None,
        "candidates": [{key: each[key] for key in ("boxes", "logprob", "reward", "score")} for each in candidates],
    }


def _pairs(row: Row, offered: Sequence[list[str]], chat: str, weight: float) -> Iterator[dict[str, Any]]:
    """What was picked is better than each of the others that were offered with it."""
    others = [boxes for place, boxes in enumerate(offered) if place != row["chosen"]]
    for boxes in others:
        yield {
            "kind": "pair",
            "better": json.loads(row["drawn"]),
            "worse": boxes,
            "template": row["template"],
            "at": row["created"],
            "chat": chat,
            "weight": round(weight / len(others), 6),
        }


def _picks(db: Database) -> dict[str, float]:
    """What each pick weighs, by meme. Of what a user picked among the same captions the last counts, as of votes."""
    rows = list(
        db.query(
            f"SELECT id, platform, chat, user, max(created) FROM memes WHERE {OWN} AND picked "  # noqa: S608
            "GROUP BY platform, chat, user, message, seed"
        )
    )
    made = Counter((row["platform"], row["chat"], row["user"]) for row in rows)
    return {row["id"]: min(1.0, PICKS / made[row["platform"], row["chat"], row["user"]]) for row in rows}
