"""Kills what learns, again and again, at random moments of retraining, gating and swapping.

    .venv/bin/python -m benchmarks.learning_kills --pictures DIR [--model FILE]

Nothing is a stand-in: the bot makes memes of the pictures over HTTP, made-up people vote on them, `captioner finetune`
and `captioner gate` make the next model of it, and the bot swaps. Killed are retrainings by hand, beside a bot that
must go on serving; whole bots that retrain by themselves; and whole bots that were just told to serve another model.
Memes are asked for and voted on all the time. After every kill the database must be sound, every checkpoint in the
model folder must load, and nothing that was started may be left. At the end what nobody kills must finish what was
begun, and the bot serve what was promoted. Half an hour or so of one core.
"""

import argparse
import asyncio
import itertools
import json
import os
import random
import secrets
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import psutil

from bot.database import beside
from bot.learn import versions
from captioner.checkpoint import Checkpoint

ROOT = Path(__file__).parents[1]
READY = "Quipbot is ready: "
PEOPLE = 5
CLIENTS = 2
PAUSE = 4.0
"""Seconds between two memes that a client asks for, so that a retraining gets on beside them on one core."""
VOTED = 0.3
"""The share of those memes that is voted on: all would make every retraining longer than the last."""
WORDS = 5
"""Captions of at most so many words are liked."""
FAIR = 0.9
"""The share of the votes that say so."""
RECIPE = ["memes=100", "downs=20", "epochs=0.8", "texts=200", "rate=0.0006", "check_every=4"]
"""So that a retraining takes half a minute instead of minutes, and learns enough to be promoted now and then."""


class Bot:
    """One process after the other on the same store."""

    def __init__(self, store: Path, model: Path | None) -> None:
        self.store = store
        self.settings = [f"store.path={store}", "captioner.threads=1", "captioner.device=cpu", "web.port=0"]
        self.settings += ["learn.every=0.00001", "learn.least=1", "log.level=warning"]
        self.settings += [f"learn.recipe={json.dumps(RECIPE)}"]
        self.base = str(model.absolute()) if model else ""
        self.settings += [f"captioner.model={self.base}"]
        self.environ = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        self.address = ""
        self.process: asyncio.subprocess.Process

    async def spawn(self, command: str, *words: str, settings: Sequence[str] = ()) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bot", command, *words, *self.settings, *settings),
            cwd=self.store.parent,
            env=self.environ,
            stdout=asyncio.subprocess.PIPE,
            stderr=None if command != "retrain" else asyncio.subprocess.DEVNULL,
        )

    async def start(self, *settings: str) -> None:
        self.process = await self.spawn("run", settings=settings)
        assert self.process.stdout
        line = (await self.process.stdout.readline()).decode().strip()
        if not line.startswith(READY):
            raise SystemExit(f"The bot did not start: {line!r}")
        self.address = line.removeprefix(READY)

    async def kill(self) -> None:
        await killed(self.process)

    async def models(self, *words: str) -> None:
        """`python -m bot models`, as the operator writes it."""
        process = await self.spawn("models", *words)
        assert await process.wait() == 0, words


async def killed(process: asyncio.subprocess.Process) -> None:
    """Killed, with nothing left of what it had started."""
    started = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    await process.wait()
    _, left = await asyncio.to_thread(psutil.wait_procs, started, 10)
    assert not [each for each in left if each.is_running() and each.status() != psutil.STATUS_ZOMBIE], left


@dataclass
class Crowd:
    """People who ask and vote; what the bot answered them, and with which models."""

    pictures: Sequence[Path]
    dice: random.Random
    answers: Counter[int] = field(default_factory=Counter)
    makers: Counter[str] = field(default_factory=Counter)
    last: str = ""

    def __post_init__(self) -> None:
        self._next = itertools.cycle(self.pictures)
        self._cookies = [{"quipbot_voter": secrets.token_urlsafe(16)} for _ in range(PEOPLE)]

    async def fill(self, address: str, memes: int) -> None:
        async with AsyncExitStack() as stack:
            people = await self._people(stack, address)
            while self.makers.total() < memes:
                await self._meme(people, 1.0)

    async def run(self, address: str) -> None:
        """Until it is cancelled, or the bot is killed."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(CLIENTS):
                tasks.create_task(self._one(address))

    async def _one(self, address: str) -> None:
        with suppress(aiohttp.ClientError):
            async with AsyncExitStack() as stack:
                people = await self._people(stack, address)
                while True:
                    await self._meme(people, VOTED)
                    await asyncio.sleep(PAUSE)

    async def _people(self, stack: AsyncExitStack, address: str) -> list[aiohttp.ClientSession]:
        """Each with a cookie of their own, the same at every bot."""
        return [
            await stack.enter_async_context(aiohttp.ClientSession(address, cookies=cookies))
            for cookies in self._cookies
        ]

    async def _meme(self, people: Sequence[aiohttp.ClientSession], voted: float) -> None:
        """Asked for by one of them, voted on by all or by none."""
        form = aiohttp.FormData()
        form.add_field("image", next(self._next).read_bytes(), filename="picture.jpg")
        async with self.dice.choice(people).post("/api/memes", data=form) as response:
            self.answers[response.status] += 1
            meme = await response.json()
        self.last = meme["model"]
        self.makers[meme["model"]] += 1
        if self.dice.random() > voted:
            return
        short = len(" ".join(meme["boxes"]).split()) <= WORDS
        for person in people:
            emoji = "😂" if short == (self.dice.random() < FAIR) else "👎"
            async with person.put(f"/api/memes/{meme['id']}/reactions/{emoji}") as response:
                self.answers[response.status] += 1


def retraining(store: Path) -> str:
    """What a retraining was at when it was killed."""
    with beside(store) as db:
        row = next(iter(db.query("SELECT * FROM retrainings WHERE ended IS NULL")), None)
    if row is None:
        return "nothing under way"
    if versions.file(store, row["model"]).exists():
        return "gating"
    labels = store.parent / "learn" / f"{row['number']:04d}" / "labels.jsonl"
    return "fine-tuning" if labels.exists() else "writing labels"


def check(store: Path) -> None:
    """Raises AssertionError where the database or the model folder is not sound."""
    with beside(store) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
        known = {row["id"] for row in db.query("SELECT id FROM models WHERE state != 'removed'")}
        under_way = {row["model"] for row in db.query("SELECT model FROM retrainings WHERE ended IS NULL")}
    files = set(store.parent.glob("models/*.safetensors"))
    assert known <= {file.stem for file in files}, (known, files)
    for file in files:
        assert Checkpoint.load(file).name == file.stem
    left = {file.stem for file in files} - known - under_way
    assert len(left) <= 1, left  # of a run that had ended, and was killed before it could tidy up


@dataclass
class Trial:
    """The kills, and which phases they fell into. A swap is over once somebody got a meme by the new model."""

    bot: Bot
    crowd: Crowd
    dice: random.Random
    shipped: str = ""
    """The name of the model that serves at first."""
    phases: dict[str, Counter[str]] = field(default_factory=dict)
    took: float = 0.0
    """Seconds that the first retraining took, which nobody killed."""

    def note(self, what: str, at: str) -> None:
        counter = self.phases.setdefault(what, Counter())
        counter[at] += 1
        check(self.bot.store)
        print(f"{time.strftime('%X')} {what} {counter.total()} killed: {at}", flush=True)

    async def fill(self, memes: int) -> None:
        """Memes and votes to learn from."""
        await self.bot.start("learn.every=0")
        await self.crowd.fill(self.bot.address, memes)
        self.shipped = self.crowd.last
        await self.bot.kill()

    async def serve(self, *settings: str) -> "asyncio.Task[None]":
        """A bot that serves, and what asks it for memes."""
        await self.bot.start("learn.every=0", *settings)
        asking = asyncio.create_task(self.crowd.run(self.bot.address))
        before = self.crowd.makers.total()
        while self.crowd.makers.total() == before:
            await asyncio.sleep(0.05)
        return asking

    async def end(self, asking: "asyncio.Task[None]") -> None:
        """The bot is killed, and with it end who asked."""
        assert not asking.done()
        await self.bot.kill()
        await asyncio.wait([asking])
        asking.result()

    async def retrainings(self, kills: int) -> None:
        """Beside a bot that goes on serving, and swaps to what those make that are not killed in time."""
        asking = await self.serve()
        while self.phases.get("retraining", Counter()).total() < kills:
            began = time.monotonic()
            process = await self.bot.spawn("retrain")
            try:
                async with asyncio.timeout(self.dice.uniform(0.0, self.took) if self.took else None):
                    await process.wait()
                seconds = time.monotonic() - began
                self.took = self.took or seconds
                assert process.stdout
                print(f"{seconds:.0f} s: {(await process.stdout.read()).decode()}", flush=True)
            except TimeoutError:
                await killed(process)
                self.note("retraining", retraining(self.bot.store))
            assert not asking.done()
        await self.end(asking)

    async def bots(self, kills: int) -> None:
        """Whole bots, which retrain by themselves as soon as they are there."""
        for _ in range(kills):
            asking = await self.serve("learn.every=0.00001")
            await asyncio.sleep(self.dice.uniform(0.0, self.took))
            await self.end(asking)
            self.note("bot", retraining(self.bot.store))

    async def swaps(self, kills: int) -> None:
        """Whole bots, while they go from one model to another and back."""
        took = await self._swapped()
        for _ in range(kills):
            asking = await self.serve()
            await self._turn()
            await asyncio.sleep(self.dice.uniform(0.0, took))
            await self.end(asking)
            self.note("swap", "swapping" if self.crowd.last != self.wanted() else "swapped")

    def wanted(self) -> str:
        """The model that is to serve."""
        with beside(self.bot.store) as db:
            return versions.serving(db, self.bot.base).model or self.shipped

    async def _turn(self) -> None:
        """Another model is to serve: the newest version, or what served before it."""
        with beside(self.bot.store) as db:
            (newest,) = db.execute("SELECT id FROM models WHERE state != 'removed' ORDER BY id DESC").fetchone()
            serving = versions.serving(db, self.bot.base).model
        await self.bot.models(*(("rollback",) if serving == newest else ("promote", newest)))

    async def _swapped(self) -> float:
        """Seconds that a swap takes which nobody kills."""
        asking = await self.serve()
        before = self.crowd.last
        await self._turn()
        began = time.monotonic()
        async with asyncio.timeout(300):
            while self.crowd.last == before:
                await asyncio.sleep(0.05)
        await self.end(asking)
        return time.monotonic() - began

    async def finish(self) -> None:
        """Nobody kills any more: what was begun ends, and what was promoted serves."""
        asking = await self.serve()
        process = await self.bot.spawn("retrain")
        assert await process.wait() == 0
        with beside(self.bot.store) as db:
            rows = db.execute("SELECT outcome, count(*) FROM retrainings GROUP BY outcome").fetchall()
        model = self.wanted()
        async with asyncio.timeout(300):
            while self.crowd.last != model:
                await asyncio.sleep(0.1)
        await self.end(asking)
        check(self.bot.store)
        print(f"retrainings by outcome: {dict(rows)}; {model} serves")


async def main(options: argparse.Namespace) -> None:
    pictures = sorted(file for file in options.pictures.iterdir() if file.is_file())
    if not pictures:
        raise SystemExit(f"There are no pictures in {options.pictures}.")
    dice = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(Bot(Path(folder) / "q.db", options.model), Crowd(pictures, dice), dice)
        await trial.fill(options.memes)
        await trial.retrainings(options.kills)
        await trial.bots(options.bots)
        await trial.swaps(options.swaps)
        await trial.finish()
    found = sum(trial.phases.values(), Counter())
    print(f"{found.total()} kills: {dict(found)}; of { ({what: dict(at) for what, at in trial.phases.items()}) }")
    print(f"answers by status: {dict(trial.crowd.answers)}; memes by model: {dict(trial.crowd.makers)}")
    assert set(trial.crowd.answers) == {200}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, required=True, help="a folder of pictures to make memes of")
    parser.add_argument("--model", type=Path, help="the checkpoint that serves at first; the shipped one without")
    parser.add_argument("--memes", type=int, default=240, help="that are voted on before anything is learnt")
    parser.add_argument("--kills", type=int, default=22, help="of retrainings beside a bot that serves")
    parser.add_argument("--bots", type=int, default=8, help="that are killed, retraining and all")
    parser.add_argument("--swaps", type=int, default=20, help="of bots that were just told to serve another model")
    parser.add_argument("--seed", type=int, default=1)
    asyncio.run(main(parser.parse_args()))
