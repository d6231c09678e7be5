"""`python -m bot retrain | models | export-labels`: beside a running bot, or without one."""

import asyncio
import dataclasses
import datetime
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from sqlite_utils import Database

from bot.config import Config
from bot.database import beside, in_use
from bot.emoji import Ballot
from bot.events import BadRequest, Version
from bot.learn import figures, labels, versions
from bot.learn.retraining import Retraining

FAILED = ("failed", "abandoned")


async def retrain(config: Config) -> int:
    """One retraining, its progress in the terminal; the exit status is 0 whatever the gate said. Raises `Expected`."""
    config = _as_running(config)
    task = asyncio.create_task(Retraining(config, quiet=False).run())
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        done = await task
    except asyncio.CancelledError:
        print("Stopped. The next retraining goes on from here.")
        return 1
    print(f"{done.model}: {done.outcome}. {done.words}")
    return int(done.outcome in FAILED)


def models(config: Config, words: Sequence[str]) -> int:
    """`list`, `promote ID` or `rollback`; a running bot follows within seconds. Raises `Expected` and `StoreError`."""
    config = _as_running(config)
    store, base = config.store.path, config.captioner.model
    with beside(store) as db:
        match list(words):
            case [] | ["list"]:
                found = labels.folded(db, _ballot(config), figures.SHOWN)
                listed = figures.versions_of(db, found, versions.serving(db, base).model or _shipped(db, base))
                print(table(listed) if listed else f"{base or 'The shipped model'} serves; no meme was made yet.")
            case ["promote", version]:
                versions.promote(db, store, version, base, time.time())
                print(f"{version} serves from now on.")
            case ["rollback"]:
                undone, serving = versions.roll_back(db, base, time.time())
                print(f"{undone} is taken back; {serving or base or 'the shipped model'} serves.")
            case _:
                raise BadRequest("Write models list, models promote ID or models rollback.")
    return 0


def export_labels(config: Config, file: Path) -> int:
    """All labels as JSON lines, for people who want the data."""
    with beside(config.store.path) as db:
        exported = labels.write(db, file, _ballot(config))
    print(f"{file}: {exported.memes} memes, {exported.voted} of them with votes, and {exported.pairs} pairs.")
    return 0


def _as_running(config: Config) -> Config:
    """The settings with the `captioner.model` of the bot that is running: that one is what it promotes or takes back.

    Raises `StoreError`.
    """
    with beside(config.store.path) as db:
        base = versions.noted_base(db)
    if base in (None, config.captioner.model) or not in_use(config.store.path):
        return config
    print(f"The running bot was started with captioner.model={base}, so this is done for that model.", file=sys.stderr)
    return dataclasses.replace(config, captioner=dataclasses.replace(config.captioner, model=base))


def _shipped(db: Database, base: str) -> str:
    """`captioner.model` by its name: as it told when it served last, or the model of the last meme that no version
    wrote."""
    if name := versions.name_of(db, base):
        return name
    row = db.execute(
        "SELECT model FROM memes WHERE NOT picked AND model NOT IN (SELECT id FROM models) "
        "ORDER BY created DESC LIMIT 1"
    ).fetchone()
    return row[0] if row else ""


def table(found: Sequence[Version]) -> str:
    """The versions for people, a line each with the gate's reasons and figures below."""
    lines = [f"{'model':16}{'state':11}{'date':18}{'from':16}{'labels':>7}{'memes':>7}  approval"]
    for each in found:
        date = datetime.datetime.fromtimestamp(each.created).strftime("%Y-%m-%d %H:%M") if each.created else "-"
        approval = "-" if each.approval is None else f"{each.approval:.0%} ({each.low:.0%} to {each.high:.0%})"
        parent = each.parent or ("-" if each.created is None else "captioner.model")
        numbers = f"{each.labels or '-':>7}{each.memes:>7}"
        lines.append(f"{each.id:16}{each.state:11}{date:18}{parent:16}{numbers}  {approval}")
        if each.words:
            lines.append(f"    {each.words}")
        if figures := [f"{r['what']} {r['before']:.3g} → {r['after']:.3g}" for r in each.verdict.get("reasons", [])]:
            lines.append(f"    {', '.join(figures)}")
    return "\n".join(lines)


def _ballot(config: Config) -> Ballot:
    return Ballot.of(config.learn.up, config.learn.down)
