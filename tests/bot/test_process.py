"""The real process: how it starts, stops and dies."""

import asyncio
import os
import re
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest

from bot.events import MemeRecord
from bot.store import Store

ROOT = Path(__file__).parents[2]
Jpeg = Callable[..., bytes]


class Bot:
    """`python -m bot` with a tiny model and a database of its own."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.database = folder / "data" / "q.db"
        self._folder = folder
        self.settings = [f"store.path={self.database}", f"captioner.model={model}", "web.port=0"]
        self.program = ["-m", "bot"]
        self.process: asyncio.subprocess.Process

    async def spawn(self, *words: str, **environ: str) -> None:
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, *self.program, *self.settings, "captioner.threads=1", *words),
            cwd=self._folder,
            env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | environ,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def start(self, *words: str) -> str:
        """The address that it prints."""
        await self.spawn(*words)
        assert self.process.stdout
        line = (await self.process.stdout.readline()).decode()
        found = re.fullmatch(r"Quipbot is ready: (http://127\.0\.0\.1:\d+)\n", line)
        if found is None:
            pytest.fail(f"{line!r} {(await self.ended())[2]}")
        return found[1]

    async def ended(self) -> tuple[int | None, str, str]:
        """Exit status, the rest of standard output, standard error."""
        out, err = await self.process.communicate()
        return self.process.returncode, out.decode(), err.decode()


@pytest.fixture
def bot(tmp_path: Path, tiny_model: Path) -> Bot:
    return Bot(tmp_path, tiny_model)


async def post(session: aiohttp.ClientSession, data: bytes) -> tuple[int, dict[str, str]]:
    form = aiohttp.FormData()
    form.add_field("image", data, filename="a.jpg", content_type="image/jpeg")
    async with session.post("/api/memes", data=form) as response:
        return response.status, await response.json()


async def waiting(session: aiohttp.ClientSession) -> int:
    async with session.get("/metrics") as response:
        found = re.search(r"^quipbot_queue_waiting (\S+)$", await response.text(), re.MULTILINE)
    assert found
    return int(float(found[1]))


async def test_sigterm_finishes_what_was_accepted(bot: Bot, jpeg: Jpeg) -> None:
    address = await bot.start("engine.batch=1", "log.format=json")
    async with aiohttp.ClientSession(address) as session, session.get("/api/feed") as feed:
        assert feed.status == 200
        async with session.get("/readyz") as ready:
            assert ready.status == 200
        posts = [asyncio.create_task(post(session, jpeg(number, (1200, 800)))) for number in range(16)]
        while (queued := await waiting(session)) < 4:
            assert not all(task.done() for task in posts)
        bot.process.send_signal(signal.SIGTERM)
        answers = [
            answer for answer in await asyncio.gather(*posts, return_exceptions=True) if isinstance(answer, tuple)
        ]
    made = [body["id"] for status, body in answers if status == 200]
    assert len(made) >= queued
    assert {status for status, _ in answers} <= {200, 503}
    status, out, err = await bot.ended()
    assert (status, out) == (0, "")
    assert "Traceback" not in err
    async with Store(bot.database) as store:
        assert {meme.id for meme in await store.latest("web", "page", "", 99)} == set(made)


async def test_a_stop_that_is_stuck_ends_and_says_where(bot: Bot) -> None:
    stuck = "threading.Thread(target=threading.Event().wait, name='stuck').start()"
    bot.program = ["-c", f"import sys, threading; import bot.__main__ as m; m.STUCK = 0.5; {stuck}; sys.exit(m.main())"]
    await bot.start("stop.grace=1")
    bot.process.send_signal(signal.SIGTERM)
    status, _, err = await asyncio.wait_for(bot.ended(), 60)
    assert status == 1
    assert "in wait" in err  # what the thread was at


async def test_kill_loses_nothing_that_was_answered(bot: Bot, jpeg: Jpeg) -> None:
    address = await bot.start()
    memes: list[str] = []
    voted: list[str] = []

    async def post_and_vote(session: aiohttp.ClientSession, number: int) -> None:
        status, body = await post(session, jpeg(number))
        assert status == 200
        memes.append(body["id"])
        async with session.put(f"/api/memes/{body['id']}/reactions/🔥") as response:
            assert response.status == 200
        voted.append(body["id"])
        if len(voted) == 6:
            bot.process.kill()

    async with aiohttp.ClientSession(address) as session:
        await asyncio.gather(*(post_and_vote(session, number) for number in range(20)), return_exceptions=True)
    assert (await bot.ended())[0] == -signal.SIGKILL
    assert len(voted) >= 6
    async with Store(bot.database) as store:
        records: list[MemeRecord] = [await store.record(meme) for meme in memes]
        pictures = [await store.picture(meme) for meme in memes]
        await store.prune(before=0.0)
        assert [await store.picture(meme) for meme in memes] == pictures
    assert all(picture.startswith(b"\xff\xd8") and picture.endswith(b"\xff\xd9") for picture in pictures)
    assert {record.id for record in records if record.reactions == {"🔥": 1}} >= set(voted)


async def failing(bot: Bot, *words: str, **environ: str) -> tuple[int | None, str]:
    await bot.spawn(*words, **environ)
    status, out, err = await bot.ended()
    assert "ready" not in out
    assert "Traceback" not in err
    return status, err


async def test_settings_that_cannot_be(bot: Bot) -> None:
    status, err = await failing(bot, "web.prot=1")
    assert (status, err) == (2, "There is no setting web.prot; the nearest is web.port.\n")
    status, err = await failing(bot, "web.host=0.0.0.0")
    assert status == 2
    assert "WEB_TOKEN" in err


async def test_a_port_in_use(bot: Bot) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, err = await failing(bot, f"web.port={port}")
    assert status == 1
    assert err.startswith(f"Port {port} of 127.0.0.1 is in use")
    assert err.count("\n") == 1


async def test_a_database_that_cannot_be_written(bot: Bot, tmp_path: Path) -> None:
    tmp_path.joinpath("file").write_text("in the way")
    status, err = await failing(bot, f"store.path={tmp_path}/file/q.db")
    assert (status, err.count("\n")) == (1, 1)
    assert "cannot be written" in err


async def test_a_model_that_cannot_be_read(bot: Bot, tmp_path: Path) -> None:
    model = tmp_path / "broken.safetensors"
    model.write_bytes(b"\x08" + bytes(40))
    status, err = await failing(bot, f"captioner.model={model}", WEB_TOKEN="very secret token")
    assert (status, err.count("\n")) == (1, 1)
    assert "broken.safetensors cannot be read" in err


async def test_the_doctor_sees_a_running_bot(bot: Bot) -> None:
    address = await bot.start()
    doctor = Bot(bot.database.parents[1], Path(bot.settings[1].partition("=")[2]))
    await doctor.spawn("doctor", f"web.port={address.rpartition(':')[2]}")
    _, out, _ = await doctor.ended()
    assert re.search(r"^ok +address: the bot is running at 127\.0\.0\.1:\d+$", out, re.MULTILINE)
    bot.process.send_signal(signal.SIGTERM)
    await bot.ended()


async def test_forget_needs_a_database_and_a_platform(bot: Bot) -> None:
    for whom, expected, words in (
        ("discord:1", 1, "There is no database"),
        ("dsicord:1", 2, "There is no platform dsicord"),
        ("discord", 2, "Say whom to forget"),
    ):
        await bot.spawn("forget", whom)  # after the settings, as in a container
        status, out, err = await bot.ended()
        assert (status, out) == (expected, "")
        assert err.startswith(words)
        assert not bot.database.exists()
    async with Store(bot.database):
        pass
    await bot.spawn("forget", "discord:1")
    assert (await bot.ended())[:2] == (0, "Forgotten: 0 memes, 0 votes, 0 requests.\n")


async def test_the_doctor_says_what_is_there(bot: Bot) -> None:
    bot.settings.insert(0, "doctor")
    nowhere = f"{bot.database}/nowhere"
    trouble = [f"draw.font={bot.database}", f"rate.folder={nowhere}", f"learn.data=imgflip575k={nowhere}"]
    await bot.spawn(*trouble, "captioner.device=cpu")
    status, out, _ = await bot.ended()
    findings = dict(re.findall(r"^\S+ +(\w+): (.*)$", out, re.MULTILINE))
    assert status == 1
    well = {"python", "database", "address", "token", "model", "discord", "telegram"}
    assert set(findings) == well | {"font", "ratings", "data"}
    for name in ("font", "ratings", "data"):
        assert re.search(rf"^MISSING +{name}", out, re.MULTILINE)
    assert re.search(r"^ok +database", out, re.MULTILINE)
    assert "a GPU is not needed" in findings["model"]
    assert "Leave draw.font empty" in findings["font"]
