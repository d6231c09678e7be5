"""Retrainings as rows and folders: what an unfinished one needs to go on, and what stays of a finished one.

A run's folder is `learn/NUMBER` beside the database: the labels while it goes on, the commands' words, the verdict.
"""

import json
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from bot.config import Learn
from bot.emoji import Ballot
from bot.events import Retrained
from bot.learn import versions
from bot.learn.labels import OWN
from bot.votes import USUAL

HOUR = 3600.0
_VERSION = re.compile(r"learnt-\d{4,}")


@dataclass(frozen=True, slots=True)
class Run:
    """A retraining under way: it makes the version `model` of `parent` ("" for `captioner.model`)."""

    number: int
    model: str
    parent: str
    folder: Path
    candidate: Path
    """The checkpoint that it writes."""

    @property
    def labels(self) -> Path:
        return self.folder / "labels.jsonl"

    @property
    def log(self) -> Path:
        """What the commands said."""
        return self.folder / "log.txt"

    @property
    def state(self) -> Path:
        """What fine-tuning needs to go on after it was killed."""
        return self.candidate.with_suffix("")


def folder(store: Path) -> Path:
    """Where everything of retraining lies."""
    return store.parent / "learn"


def begin(db: Database, store: Path, base: str, at: float) -> Run:
    """The run that was left unfinished, or a new one of the version that serves."""
    with db.atomic():
        row = next(iter(db.query("SELECT * FROM retrainings WHERE ended IS NULL ORDER BY number DESC LIMIT 1")), None)
        if row is None:
            number = _next(db, store)
            parent = versions.serving(db, base).model
            row = {"number": number, "began": at, "parent": parent, "model": f"learnt-{number:04d}"}
            db.table("retrainings").insert(row)
    run = Run(
        row["number"],
        row["model"],
        row["parent"],
        folder(store) / f"{row['number']:04d}",
        versions.file(store, row["model"]),
    )
    run.folder.mkdir(parents=True, exist_ok=True)
    run.candidate.parent.mkdir(parents=True, exist_ok=True)
    _sweep(db, store, run)
    return run


def _next(db: Database, store: Path) -> int:
    """A number that no retraining had: not in the database, nor on the disk, where those of an older one may lie."""
    (known,) = db.execute("SELECT coalesce(max(number), 0) FROM retrainings").fetchone()
    runs = [entry.name for entry in _entries(folder(store)) if entry.name.isdecimal()]
    models = [entry.name.partition(".")[0] for entry in _entries(versions.folder(store))]
    made = [name.partition("-")[2] for name in models if _VERSION.fullmatch(name)]
    return 1 + max(int(known), *map(int, runs + made), 0)


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.exists() else []


def _sweep(db: Database, store: Path, run: Run) -> None:
    """Remove what earlier runs left that were killed when they had ended, before they could tidy up.

    An operator's own checkpoints may lie beside the versions.
    """
    for labels in folder(store).glob("*/labels.jsonl*"):
        if labels.parent != run.folder:
            labels.unlink()
    kept = {row["id"] for row in db.query("SELECT id FROM models WHERE state != 'removed'")} | {run.model}
    for file in run.candidate.parent.iterdir():
        if _VERSION.fullmatch(file.name.partition(".")[0]) is None:
            continue
        if file.is_dir() and file != run.state:
            shutil.rmtree(file)
        elif file.is_file() and file.name.partition(".")[0] not in kept:
            file.unlink()


def wanted(db: Database, run: Run) -> bool:
    """False once somebody was forgotten whose votes the run would learn from."""
    row = db.execute("SELECT 1 FROM retrainings WHERE number = ? AND ended IS NULL", [run.number]).fetchone()
    return row is not None


def count(db: Database, run: Run, labels: int) -> None:
    """Memes with votes that the run learns from."""
    with db.atomic():
        db.execute("UPDATE retrainings SET labels = ? WHERE number = ?", [labels, run.number])


def end(db: Database, run: Run, outcome: str, words: str, at: float) -> None:
    """How it ended; what ended before stays as it is."""
    with db.atomic():
        note_end(db, run, outcome, words, at)


def note_end(db: Database, run: Run, outcome: str, words: str, at: float) -> bool:
    """Within the caller's transaction; False where it had ended before."""
    cursor = db.execute(
        "UPDATE retrainings SET ended = ?, outcome = ?, words = ? WHERE number = ? AND ended IS NULL",
        [at, outcome, words, run.number],
    )
    return bool(cursor.rowcount > 0)


def judged(
    db: Database, run: Run, verdict: Mapping[str, Any], figures: Mapping[str, Any], base: str, trial: bool, at: float
) -> None:
    """The gate's verdict: the version, what becomes of it, and the run's end, all or nothing."""
    words = sentence(verdict)
    with db.atomic():
        (labels,) = db.execute("SELECT labels FROM retrainings WHERE number = ?", [run.number]).fetchone()
        state = "refused"
        if verdict["promote"]:
            state = "trial" if trial else "promoted"
            if versions.serving(db, base).model != run.parent:
                state, words = "unjudged", versions.ANOTHER_SERVES
        if not note_end(db, run, state, words, at):
            return
        if state in ("trial", "promoted"):
            versions.note_overtaken(db)
        row = {
            "id": run.model,
            "parent": run.parent,
            "created": at,
            "state": state,
            "labels": labels,
            "figures": json.dumps(figures),
            "verdict": json.dumps(verdict),
            "words": words,
        }
        db.table("models").insert(row)
        if state == "promoted":
            versions.note_promotion(db, run.model, base, at)


def sentence(verdict: Mapping[str, Any]) -> str:
    """Why a verdict is as it is, in words."""
    reasons = verdict.get("reasons", [])
    failing = [reason for reason in reasons if not reason["holds"]]
    return " ".join(reason["sentence"] for reason in (failing or reasons))


def note_abandoned(db: Database, at: float) -> list[dict[str, Any]]:
    """Somebody was forgotten: what is learnt from their votes at the moment ends, and is begun anew later.

    Within the caller's transaction; gives the rows for `discard`.
    """
    rows = list(db.query("SELECT number, model FROM retrainings WHERE ended IS NULL"))
    words = "Somebody asked to be forgotten, so it begins anew without them."
    db.execute("UPDATE retrainings SET ended = ?, outcome = 'abandoned', words = ? WHERE ended IS NULL", [at, words])
    return rows


def discard(store: Path, abandoned: Iterable[Mapping[str, Any]]) -> None:
    """Remove what abandoned runs have made."""
    for row in abandoned:
        candidate = versions.file(store, row["model"])
        (folder(store) / f"{row['number']:04d}" / "labels.jsonl").unlink(missing_ok=True)
        shutil.rmtree(candidate.with_suffix(""), ignore_errors=True)


def begin_anew(run: Run) -> None:
    """Remove what a candidate was made of and what came of it: without the labels of its own it is of other ones."""
    shutil.rmtree(run.state, ignore_errors=True)
    run.candidate.unlink(missing_ok=True)


def tidy(run: Run, version: bool) -> None:
    """Remove what only an unfinished run needs, and the checkpoint of one that came to no version."""
    run.labels.unlink(missing_ok=True)
    shutil.rmtree(run.state, ignore_errors=True)
    if not version:
        run.candidate.unlink(missing_ok=True)


def get(db: Database, number: int) -> Retrained:
    (row,) = db.query("SELECT * FROM retrainings WHERE number = ?", [number])
    return retrained(row)


def retrained(row: Mapping[str, Any]) -> Retrained:
    return Retrained(
        row["number"], row["began"], row["ended"], row["model"], row["labels"], row["outcome"], row["words"]
    )


def due(db: Database, learn: Learn, ballot: Ballot, now: float) -> bool:
    """Whether it is time to retrain: one was left unfinished, or is long ago and enough other memes have votes now.

    Not while a model is on trial: what is learnt meanwhile would be compared with a model that may be about to go.
    """
    if not learn.every:
        return False
    last = next(iter(db.query("SELECT * FROM retrainings ORDER BY number DESC LIMIT 1")), None)
    if last and last["ended"] is None:
        return True
    if last and last["outcome"] != "abandoned" and now - last["began"] < learn.every * HOUR:
        return False
    if db.execute("SELECT 1 FROM models WHERE state = 'trial'").fetchone():
        return False
    (learnt,) = db.execute(
        "SELECT coalesce(max(began), 0) FROM retrainings WHERE outcome NOT IN ('abandoned', 'failed')"
    ).fetchone()
    marks = ", ".join("?" * len(ballot.up | ballot.down))
    (fresh,) = db.execute(
        "SELECT count(*) FROM (SELECT min(reactions.created) AS first FROM reactions JOIN memes ON memes.id = meme "  # noqa: S608
        f"WHERE {OWN} AND emoji IN ({marks}) AND reactions.created - memes.created BETWEEN 0 AND ? GROUP BY meme) "
        "WHERE first > ?",
        [*ballot.up, *ballot.down, USUAL.within, learnt],
    ).fetchone()
    return int(fresh) >= learn.least


def keep(file: Path, value: Any) -> None:
    """A small JSON file, all or nothing."""
    part = file.with_name(file.name + ".part")
    part.write_text(json.dumps(value, ensure_ascii=False, indent=1), encoding="utf-8")
    part.replace(file)
