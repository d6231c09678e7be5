"""Kills what learns, again and again, at random moments of retraining, gating and swapping.

    .venv/bin/python -m benchmarks.learning_kills --model FILE

First retrainings by hand, beside a bot that must go on serving; then whole bots that retrain by themselves. Memes are
asked for and voted on all the time. After every kill the database must be sound, every checkpoint in the model folder
must load, and nothing that was started may be left. At the end what nobody kills must finish what was begun, and the
bot serve what was promoted. Fine-tuning and the gate are stand-ins that take a second or two (the real
ones are killed by the tests of the captioner); everything else is the real bot.
"""

import argparse
import asyncio
import io
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import aiohttp
import numpy as np
import psutil
from PIL import Image

from bot.database import beside
from bot.learn import versions
from captioner.checkpoint import Checkpoint

ROOT = Path(__file__).parents[1]
READY = "Quipbot is ready: "
CLIENTS = 3


class Bot:
    """One process after the other on the same store."""

    def __init__(self, store: Path, model: Path, steps: int) -> None:
        self.store = store
        self.settings = [f"store.path={store}", f"captioner.model={model}", "captioner.threads=1", "web.port=0"]
        self.settings += ["learn.every=0.00001", "learn.least=1", "log.level=warning"]
        self.environ = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "STEPS": str(steps)}
        self.address = ""
        self.process: asyncio.subprocess.Process

    async def spawn(self, *words: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.fakes.learning_bot", *words[:1], *self.settings, *words[1:]),
            cwd=self.store.parent,
            env=self.environ,
            stdout=asyncio.subprocess.PIPE,
            stderr=None if words[:1] != ("retrain",) else asyncio.subprocess.DEVNULL,
        )

    async def start(self, *settings: str) -> None:
        self.process = await self.spawn("run", *settings)
        assert self.process.stdout
        line = (await self.process.stdout.readline()).decode().strip()
        if not line.startswith(READY):
            raise SystemExit(f"The bot did not start: {line!r}")
        self.address = line.removeprefix(READY)

    async def kill(self) -> None:
        await killed(self.process)


async def killed(process: asyncio.subprocess.Process) -> None:
    """Killed, with nothing left of what it had started."""
    started = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    await process.wait()
    _, left = await asyncio.to_thread(psutil.wait_procs, started, 10)
    assert not [each for each in left if each.is_running() and each.status() != psutil.STATUS_ZOMBIE], left


class Clients:
    """Ask and vote until they are cancelled; what the bot answered, and with which models."""

    def __init__(self) -> None:
        self.answers: Counter[int] = Counter()
        self.makers: Counter[str] = Counter()
        self.dice = random.Random(1)
        self.last = ""

    async def run(self, address: str) -> None:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(CLIENTS):
                tasks.create_task(self._one(address))

    async def _one(self, address: str) -> None:
        with suppress(aiohttp.ClientError):
            async with aiohttp.ClientSession(address) as session:
                while True:
                    form = aiohttp.FormData()
                    form.add_field("image", picture(self.dice.randrange(1000)), filename="a.jpg")
                    async with session.post("/api/memes", data=form) as response:
                        self.answers[response.status] += 1
                        meme = await response.json()
                    self.last = meme["model"]
                    self.makers[meme["model"]] += 1
                    emoji = self.dice.choice("👍👎🔥")
                    async with session.put(f"/api/memes/{meme['id']}/reactions/{emoji}") as response:
                        self.answers[response.status] += 1


def picture(seed: int) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).resize((96, 64)).save(out, "JPEG")
    return out.getvalue()


def phase(store: Path, model: str) -> str:
    """What the bot was at; `model` made the last meme."""
    with beside(store) as db:
        row = next(iter(db.query("SELECT * FROM retrainings WHERE ended IS NULL")), None)
        promoted = db.execute("SELECT model FROM promotions WHERE undone IS NULL ORDER BY number DESC").fetchone()
    if row is None:
        return "swapping" if promoted and promoted[0] != model else "serving alone"
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


async def main(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        bot = Bot(Path(folder) / "q.db", options.model.absolute(), options.steps)
        dice, clients = random.Random(options.seed), Clients()
        by_hand = await kill_retrainings(bot, clients, dice, options.kills)
        bots = await kill_bots(bot, clients, dice, options.bots, options.seconds)
        await finish(bot, clients)
    print(f"retrainings killed: {dict(by_hand)}; bots killed: {dict(bots)}")
    print(f"answers by status: {dict(clients.answers)}; memes by {len(clients.makers)} models")
    assert set(clients.answers) == {200}


async def kill_retrainings(bot: Bot, clients: Clients, dice: random.Random, kills: int) -> Counter[str]:
    """Retrainings beside a bot that goes on serving, and swaps to what those make that are not killed in time."""
    phases: Counter[str] = Counter()
    await bot.start("learn.every=0")
    asking = asyncio.create_task(clients.run(bot.address))
    while not clients.makers:
        await asyncio.sleep(0.1)
    longest = 0.0
    while phases.total() < kills:
        began = time.monotonic()
        retraining = await bot.spawn("retrain")
        try:
            async with asyncio.timeout(dice.uniform(0.0, longest or 600.0)):
                await retraining.wait()
            longest = max(longest, time.monotonic() - began)
        except TimeoutError:
            await killed(retraining)
            at = phase(bot.store, clients.last)
            phases[at] += 1
            print(f"retraining {phases.total()} killed: {at}", flush=True)
        assert not asking.done()
        check(bot.store)
    await bot.kill()
    await asyncio.wait([asking])
    return phases


async def kill_bots(bot: Bot, clients: Clients, dice: random.Random, kills: int, seconds: float) -> Counter[str]:
    """Whole bots that retrain by themselves."""
    phases: Counter[str] = Counter()
    for number in range(kills):
        await bot.start()
        asking = asyncio.create_task(clients.run(bot.address))
        await asyncio.sleep(dice.uniform(0.05, seconds))
        await bot.kill()
        await asyncio.wait([asking])
        at = phase(bot.store, clients.last)
        phases[at] += 1
        check(bot.store)
        print(f"bot {number + 1} killed: {at}", flush=True)
    return phases


async def finish(bot: Bot, clients: Clients) -> None:
    """Nobody kills any more: what was begun ends, and what was promoted serves."""
    await bot.start("learn.every=0")
    asking = asyncio.create_task(clients.run(bot.address))
    retraining = await bot.spawn("retrain")
    assert await retraining.wait() == 0
    with beside(bot.store) as db:
        rows = db.execute("SELECT outcome, count(*) FROM retrainings GROUP BY outcome").fetchall()
        (model,) = db.execute("SELECT model FROM promotions ORDER BY number DESC").fetchone()
    async with asyncio.timeout(300):
        while clients.last != model:
            await asyncio.sleep(0.1)
    await bot.kill()
    await asyncio.wait([asking])
    check(bot.store)
    print(f"retrainings by outcome: {dict(rows)}; {model} serves")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=40, help="of retrainings beside a bot that serves")
    parser.add_argument("--bots", type=int, default=10, help="that are killed, retraining and all")
    parser.add_argument("--model", type=Path, required=True, help="the checkpoint that serves at first")
    parser.add_argument("--steps", type=int, default=15, help="of 20 ms, that the stand-ins take each")
    parser.add_argument("--seconds", type=float, default=15.0, help="a bot lives for at most, once it is ready")
    parser.add_argument("--seed", type=int, default=1)
    asyncio.run(main(parser.parse_args()))
