"""One retraining: labels, fine-tuning, the gate, and the verdict written down. It may be killed at any moment.

The heavy work is done by `python -m captioner finetune` and `gate`. What is done is on the disk, so that the next
process goes on from there; whoever holds the lock is the only one at it, and a command that outlives its bot holds it.
"""

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sqlite_utils import Database

from bot import folder
from bot.config import Config
from bot.database import beside
from bot.emoji import Ballot
from bot.events import Expected, Retrained
from bot.learn import labels, runs, versions
from bot.learn.process import Background
from bot.learn.runs import Run

log = logging.getLogger(__name__)

CAPTIONER = (sys.executable, "-m", "captioner")
TOO_FEW = 3
"""Exit status of fine-tuning and the gate where there is too little to learn from, or to judge by."""

_PROGRESS = re.compile(r"\d+%\|")
"""How a progress bar begins."""

Result = TypeVar("Result")


class Running(Expected):
    """Another process is at it."""


class _Ended(Exception):  # noqa: N818, how a run ends, not what is wrong with it
    """The run has its outcome; `str(error)` says why."""

    def __init__(self, outcome: str, words: str) -> None:
        super().__init__(words)
        self.outcome = outcome


@dataclass(frozen=True, slots=True)
class Retraining:
    """`busy` tells whether pictures wait. Unless `quiet`, the terminal shows the commands' progress as well."""

    config: Config
    busy: Callable[[], bool] = lambda: False
    quiet: bool = True
    captioner: Sequence[str] = CAPTIONER
    clock: Callable[[], float] = time.time

    async def run(self) -> Retrained:
        """Go on with what an earlier process left, or begin anew. Cancelling ends the commands, and leaves the rest.

        Raises `Running`, and `StoreError` where there is no database, or its folder belongs to another.
        """
        store, base = self.config.store.path, self.config.captioner.model
        await asyncio.to_thread(self._database, lambda db: folder.claim(store))
        with _locked(runs.folder(store) / "lock") as lock:
            run = await self._call(lambda db: runs.begin(db, store, base, self.clock()))
            log.info("retraining", extra={"fields": {"run": run.number, "model": run.model}})
            try:
                await self._steps(run, lock)
            except _Ended as ended:
                await self._end(run, ended.outcome, str(ended))
            except Exception as error:
                log.exception("retraining failed")
                await self._end(run, "failed", f"{type(error).__name__}: {error}")
            retrained = await self._call(lambda db: self._tidied(db, run))
        log.info("retrained", extra={"fields": {"run": run.number, "outcome": retrained.outcome}})
        return retrained

    @property
    def ballot(self) -> Ballot:
        return Ballot.of(self.config.learn.up, self.config.learn.down)

    async def _steps(self, run: Run, lock: int) -> None:
        learn, base = self.config.learn, self.config.captioner.model
        background = Background(
            learn.memory_mb, self.busy, lambda: self._call(lambda db: runs.wanted(db, run)), (lock,), not self.quiet
        )
        await self._write_labels(run)
        await self._finetune(run, background)
        verdict = await self._gate(run, background)
        figures = _last_object(run.folder / "finetune.out") or {}
        trial = 0 < learn.trial_share < 1
        await self._call(lambda db: runs.judged(db, run, verdict, figures, base, trial, self.clock()))

    async def _write_labels(self, run: Run) -> None:
        if run.labels.exists():
            return
        await asyncio.to_thread(runs.begin_anew, run)
        exported = await self._call(lambda db: labels.write(db, run.labels, self.ballot))
        await self._call(lambda db: runs.count(db, run, exported.voted))
        if not exported.voted and not exported.pairs:
            raise _Ended("too few", "Nobody has voted yet, so there is nothing to learn from.")

    async def _finetune(self, run: Run, background: Background) -> None:
        if run.candidate.exists():
            return
        words = ["finetune", "--labels", str(run.labels), *self._parent(run), "--out", str(run.candidate)]
        words += self.config.learn.recipe
        status = await background.run(self._command(words), run.folder / "finetune.out", run.log)
        if status is None:
            raise _Ended("abandoned", "")
        if status == TOO_FEW:
            raise _Ended("too few", _said(run, "There are too few votes to learn from."))
        if status or not run.candidate.exists():
            raise _Ended("failed", _why(run, "Fine-tuning", status))

    async def _gate(self, run: Run, background: Background) -> dict[str, Any]:
        out = run.folder / "gate.out"
        words = ["gate", "--labels", str(run.labels), *self._parent(run), "--candidate", str(run.candidate), "--json"]
        status = await background.run(self._command(words), out, run.log)
        if status is None:
            raise _Ended("abandoned", "")
        if status == TOO_FEW:
            raise _Ended("too few", _said(run, "There are too few votes to judge by."))
        verdict = _last_object(out)
        if status or verdict is None or "promote" not in verdict:
            raise _Ended("failed", _why(run, "The gate", status))
        await asyncio.to_thread(runs.keep, run.folder / "verdict.json", verdict)
        return verdict

    def _command(self, words: Sequence[str]) -> list[str]:
        data = [word for entry in self.config.learn.data for word in ("--data", entry)]
        return [*self.captioner, *words, *data, "--threads", "1"]

    def _parent(self, run: Run) -> list[str]:
        if run.parent:
            return ["--model", str(versions.file(self.config.store.path, run.parent))]
        return ["--model", self.config.captioner.model] if self.config.captioner.model else []

    async def _end(self, run: Run, outcome: str, words: str) -> None:
        await self._call(lambda db: runs.end(db, run, outcome, words, self.clock()))

    def _tidied(self, db: Database, run: Run) -> Retrained:
        known = db.execute("SELECT 1 FROM models WHERE id = ?", [run.model]).fetchone()
        runs.tidy(run, version=known is not None)
        store = self.config.store.path
        for file in versions.thin_out(db, store, self.config.learn.keep, self.config.captioner.model):
            file.unlink(missing_ok=True)
        return runs.get(db, run.number)

    async def _call(self, work: Callable[[Database], Result]) -> Result:
        return await asyncio.to_thread(self._database, work)

    def _database(self, work: Callable[[Database], Result]) -> Result:
        with beside(self.config.store.path) as db:
            return work(db)


@contextlib.contextmanager
def _locked(file: Path) -> Iterator[int]:
    """Hold a lock, and give its descriptor away: it is free once nobody has it open. Raises `Running`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Running("A retraining is under way already.") from None
        yield handle
    finally:
        os.close(handle)


def _why(run: Run, what: str, status: int) -> str:
    """Why a command failed; what was killed had no time to say so."""
    if status >= 0:
        return _said(run, f"{what} ended with status {status}.")
    memory = "; the machine may have been short of memory" if -status == signal.SIGKILL else ""
    return f"{what} was ended by signal {-status}{memory}."


def _said(run: Run, otherwise: str) -> str:
    """The last line that a command wrote, which is its sentence, but for the progress that it shows."""
    lines = [line.strip() for line in run.log.read_text(errors="replace").splitlines()]
    return next((line for line in reversed(lines) if line and not _PROGRESS.match(line)), otherwise)[:500]


def _last_object(file: Path) -> dict[str, Any] | None:
    """The JSON object in a file's last line."""
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines() if file.exists() else []
    try:
        value = json.loads(lines[-1]) if lines else None
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
