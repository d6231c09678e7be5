"""The real process against the loopback Bot API."""

import asyncio
import io
import os
import random
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bot.store import Store
from tests.fakes.telegram_api import TOKEN, Chat, Fault, TelegramApi

ROOT = Path(__file__).parents[2]


def jpeg(seed: int) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).resize((96, 64)).save(out, "JPEG")
    return out.getvalue()


class Process:
    """`python -m bot` with a tiny model; `errors` is what it logged, all lives together."""

    def __init__(self, folder: Path, model: Path, api: TelegramApi) -> None:
        self.database = folder / "q.db"
        self.log = folder / "log"
        self._words = [f"store.path={self.database}", f"captioner.model={model}", "web.port=0", "captioner.threads=1"]
        self._words += [f"telegram.api_base={api.base}", f"telegram.file_base={api.file_base}"]
        self._words += ["discord.api_base=http://127.0.0.1:9/api/v10"]
        tokens = {"TELEGRAM_TOKEN": TOKEN, "DISCORD_TOKEN": "of a Discord that is down"}
        self._environment = os.environ | tokens | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, *words: str) -> None:
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "bot", *words, *self._words),
                cwd=self.log.parent,
                env=self._environment,
                stdout=log,
                stderr=log,
            )

    async def end(self, how: signal.Signals) -> int:
        assert self._process
        if self._process.returncode is None:
            self._process.send_signal(how)
        return await self._process.wait()

    @property
    def logged(self) -> str:
        return self.log.read_text()


@pytest.fixture
async def api() -> AsyncIterator[TelegramApi]:
    async with TelegramApi() as api:
        yield api


@pytest.fixture
async def bot(tmp_path: Path, tiny_model: Path, api: TelegramApi) -> AsyncIterator[Process]:
    process = Process(tmp_path, tiny_model, api)
    yield process
    if process._process:
        await process.end(signal.SIGKILL)


async def test_kills_lose_nothing(bot: Process, api: TelegramApi) -> None:
    """Every post is answered, at most what was being sent is doubled, and every vote is there once.

    Telegram is down at first and Discord all the time, which stops nothing but their adapters.
    """
    groups = [api.group(-number, bot="administrator") for number in range(1, 9)]
    dice = random.Random(4)
    posts: list[tuple[Chat, int]] = []
    votes: set[tuple[str, str, str]] = set()
    api.fail("getMe", Fault(502))
    await bot.start()
    await api.until(lambda: api.allowed, 60)
    doubled = 0
    for life in range(2):
        for number in range(12):
            group = dice.choice(groups)
            posts.append((group, group.post_photo(jpeg(100 * life + number), "/meme")["message_id"]))
        target = len(posts) - 8
        await api.until(lambda target=target: sum(len(group.memes) for group in groups) >= target, 120)
        for group in groups:
            for meme in group.memes[:2]:
                voter = dice.randrange(50)
                group.react(meme, voter, "🔥")
                votes.add((str(group.id), str(meme["answers"]), str(voter)))
        if life < 1:
            doubled += 8  # at most: a group has one message on its way
            await bot.end(signal.SIGKILL)
            await bot.start()
    await api.until(lambda: all(answers(chat, post) for chat, post in posts), 120)
    await api.until(lambda: not api.updates, 60)
    assert await bot.end(signal.SIGTERM) == 0
    assert "Quipbot is ready" in bot.logged
    assert "discord starts again" in bot.logged
    assert TOKEN not in bot.logged
    extra = sum(answers(chat, post) - 1 for chat, post in posts)
    assert extra <= doubled
    async with Store(bot.database) as store:
        counts = await store.counts("telegram")
        assert counts["answered"] == len(posts) == sum(counts.values()) - counts["resent"]
        standing = {(placed.chat, placed.message) for placed in await store.standing("telegram", 0.0)}
    assert len(standing) == len(posts)
    with closing(sqlite3.connect(bot.database)) as connection:
        rows = connection.execute("SELECT chat, message, r.user FROM reactions r JOIN memes ON id = r.meme").fetchall()
    assert sorted(rows) == sorted(votes)


def answers(chat: Chat, post: int) -> int:
    return sum(meme["answers"] == post for meme in chat.memes)
