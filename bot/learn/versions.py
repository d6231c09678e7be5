"""Model versions: which there are, which one serves, and the way back. Functions on the database, for any process.

A version's file is `models/ID.safetensors` beside the database. What serves is the last promotion that was not undone,
or `captioner.model` where there is none. The running bot looks here, and swaps.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from bot.events import Expected

ANOTHER_SERVES = "Another model serves than the one it was compared with."


class VersionError(Expected):
    """What was asked of the models cannot be done; `str(error)` is a sentence."""


@dataclass(frozen=True, slots=True)
class Serving:
    """The versions that are to serve: everybody, and the chats of a trial; "" for `captioner.model`, and for none."""

    model: str = ""
    trial: str = ""
    stale: str = ""
    """A promoted version that does not serve, because `captioner.model` was changed since."""


def folder(store: Path) -> Path:
    """Where the versions' checkpoints lie."""
    return store.parent / "models"


def file(store: Path, version: str) -> Path:
    """Where a version's checkpoint lies."""
    return folder(store) / f"{version}.safetensors"


def serving(db: Database, base: str) -> Serving:
    """What is to serve where `captioner.model` is `base`."""
    row = _current(db)
    trial = db.execute("SELECT id FROM models WHERE state = 'trial' ORDER BY created DESC LIMIT 1").fetchone()
    if row is None or row["base"] != base:
        return Serving(stale=row["model"] if row else "", trial=trial[0] if trial else "")
    return Serving(row["model"], trial[0] if trial else "")


def note_base(db: Database, base: str, name: str | None) -> None:
    """What the running bot has for `captioner.model`, and what that model calls itself where it serves."""
    told = {"base": base} | ({f"name of {base}": name} if name else {})
    with db.atomic():
        for key, value in told.items():
            db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", [key, value])


def noted_base(db: Database) -> str | None:
    """`captioner.model` of the bot that was started last; None where none has told."""
    return _fact(db, "base")


def name_of(db: Database, base: str) -> str | None:
    """What the model at `base` called itself when it served last."""
    return _fact(db, f"name of {base}")


def _fact(db: Database, key: str) -> str | None:
    row = db.execute("SELECT value FROM facts WHERE key = ?", [key]).fetchone()
    return str(row[0]) if row else None


def promote(db: Database, store: Path, version: str, base: str, at: float) -> None:
    """Have a version serve from now on, which ends a trial against another; raises `VersionError`."""
    with db.atomic():
        if db.execute("SELECT 1 FROM models WHERE id = ?", [version]).fetchone() is None:
            raise VersionError(f"There is no model {version}; python -m bot models list tells which there are.")
        if not file(store, version).exists():
            raise VersionError(f"The model {version} cannot serve: its file is gone.")
        if serving(db, base).model == version:
            raise VersionError(f"The model {version} serves already.")
        note_promotion(db, version, base, at)
        _note_unjudged(db, base)


def note_promotion(db: Database, version: str, base: str, at: float) -> None:
    """Within the caller's transaction."""
    db.execute("UPDATE models SET state = 'promoted' WHERE id = ?", [version])
    db.execute("INSERT INTO promotions (model, base, created) VALUES (?, ?, ?)", [version, base, at])


def roll_back(db: Database, base: str, at: float) -> tuple[str, str]:
    """Undo the last promotion: from which version, and to which ("" for `captioner.model`). Raises `VersionError`.

    It ends a trial against the version that is taken back.
    """
    with db.atomic():
        row = _current(db)
        if row is None or row["base"] != base:
            raise VersionError("No promoted model serves, so there is nothing to take back.")
        db.execute("UPDATE promotions SET undone = ? WHERE number = ?", [at, row["number"]])
        _note_unjudged(db, base)
        return row["model"], serving(db, base).model


def broken(db: Database, version: str, words: str, at: float) -> None:
    """A version that does not load or caption: it never serves again, and its promotions are undone."""
    with db.atomic():
        db.execute("UPDATE models SET state = 'broken', words = ? WHERE id = ?", [words, version])
        db.execute("UPDATE promotions SET undone = ? WHERE model = ? AND undone IS NULL", [at, version])


def end_trial(db: Database, version: str, base: str, better: bool, words: str, at: float) -> None:
    """The version on trial is promoted, or refused, or neither where another serves than the one that it was tried
    against; one whose trial is over stays as it is."""
    with db.atomic():
        _note_unjudged(db, base)
        ended = db.execute(
            "UPDATE models SET state = 'refused', words = ? WHERE id = ? AND state = 'trial'", [words, version]
        )
        if ended.rowcount > 0:
            note_overtaken(db)
            if better:
                note_promotion(db, version, base, at)


def _note_unjudged(db: Database, base: str) -> None:
    """What is on trial against a model that does not serve any more tells nothing; within the caller's transaction."""
    db.execute(
        "UPDATE models SET state = 'unjudged', words = ? WHERE state = 'trial' AND parent != ?",
        [ANOTHER_SERVES, serving(db, base).model],
    )


def note_overtaken(db: Database) -> None:
    """Another version takes the place of whatever is on trial; within the caller's transaction."""
    words = "Another model took its place on trial."
    db.execute("UPDATE models SET state = 'refused', words = ? WHERE state = 'trial'", [words])


def thin_out(db: Database, store: Path, keep: int, base: str) -> list[Path]:
    """Mark the oldest versions as removed that neither serve nor did, but for the newest `keep`; their files."""
    now = serving(db, base)
    rows = db.query(
        "SELECT id FROM models WHERE state IN ('refused', 'unjudged', 'broken') "
        "AND id NOT IN (SELECT model FROM promotions WHERE undone IS NULL) ORDER BY created DESC"
    )
    old = [row["id"] for row in list(rows)[keep:] if row["id"] not in (now.model, now.trial)]
    with db.atomic():
        for version in old:
            db.execute("UPDATE models SET state = 'removed' WHERE id = ?", [version])
    return [file(store, version) for version in old]


def _current(db: Database) -> dict[str, Any] | None:
    rows = db.query("SELECT * FROM promotions WHERE undone IS NULL ORDER BY number DESC LIMIT 1")
    return next(iter(rows), None)
