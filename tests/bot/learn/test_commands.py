"""`python -m bot retrain | models | export-labels`, and a bot that follows what they say."""

import asyncio
import functools
import json
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest

from bot import __main__ as bot
from bot.config import Config
from bot.database import beside
from bot.learn import commands, versions
from bot.learn.retraining import Retraining
from bot.store import Store
from tests.fakes.learning_bot import CAPTIONER

ROOT = Path(__file__).parents[3]
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(
    voted: Store, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Runs a command on the database with votes; its status, and what it prints."""
    stand_in = functools.partial(Retraining, captioner=CAPTIONER)
    monkeypatch.setattr(commands, "Retraining", stand_in)
    monkeypatch.setattr("bot.logs.setup", lambda *_: None)

    def run(*words: str) -> tuple[int, str, str]:
        status = bot.main([*words, f"store.path={voted.path}", f"captioner.model={tiny_model}"])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


async def test_models_are_listed_promoted_and_rolled_back(
    command: Command, voted: Store, trained: Callable[..., Retraining]
) -> None:
    run = functools.partial(asyncio.to_thread, command)
    _, out, _ = await run("models")
    assert re.search(r"^tiny +serving +- +- +- +30  67% \(\d\d% to \d\d%\)$", out, re.MULTILINE)
    await trained().run()
    _, out, _ = await run("models", "list")
    line = r"^learnt-0001 +serving +\S+ \S+ +captioner.model +30 +0  -\n    Approval rises.\n    approval 0.5 → 0.6$"
    assert re.search(line, out, re.MULTILINE)
    assert await run("models", "promote", "learnt-0001") == (1, "", "The model learnt-0001 serves already.\n")
    status, out, _ = await run("models", "rollback")
    assert status == 0
    assert out.startswith("learnt-0001 is taken back; ")
    _, out, _ = await run("models")
    assert re.search(r"^tiny +serving", out, re.MULTILINE)
    assert "learnt-0001 serving" not in " ".join(out.split())
    assert await run("models", "rollback") == (1, "", "No promoted model serves, so there is nothing to take back.\n")
    assert await run("models", "promote", "learnt-0001") == (0, "learnt-0001 serves from now on.\n", "")
    assert (await run("models", "promote", "x"))[2].startswith("There is no model x;")
    assert (await run("models", "burn"))[0] == 1


async def test_commands_are_for_the_model_that_the_bot_was_started_with(
    command: Command, voted: Store, trained: Callable[..., Retraining], tiny_model: Path
) -> None:
    await trained().run()
    with beside(voted.path) as db:
        versions.roll_back(db, str(tiny_model), 1.0)
    await voted.note_base("", "quipbot-99")
    run = functools.partial(asyncio.to_thread, command)
    status, out, err = await run("models", "promote", "learnt-0001")
    assert (status, out) == (0, "learnt-0001 serves from now on.\n")
    assert "started with captioner.model=, so" in err
    assert (await voted.serving("")).model == "learnt-0001"
    assert (await voted.serving(str(tiny_model))).model == ""
    await run("models", "rollback")
    assert re.search(r"^quipbot-99 +serving", (await run("models"))[1], re.MULTILINE)  # though no meme was made by it
    await voted._call(voted._closing.close)  # no bot is running any more, so the settings count
    assert (await run("models", "promote", "learnt-0001"))[2] == ""
    with beside(voted.path) as db:
        assert versions.serving(db, str(tiny_model)).model == "learnt-0001"


async def test_labels_are_exported(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "labels.jsonl"
    status, out, _ = await asyncio.to_thread(command, "export-labels", str(file))
    assert (status, out) == (0, f"{file}: 30 memes, 30 of them with votes, and 0 pairs.\n")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert {line["kind"] for line in lines} == {"meme"}
    assert (await asyncio.to_thread(command, "export-labels"))[0] == 2
    folder = tmp_path / "folder"
    folder.mkdir()
    assert (await asyncio.to_thread(command, "export-labels", str(folder)))[0] == 1
    assert not folder.with_name("folder.part").exists()
    tmp_path.joinpath("in the way").touch()
    assert (await asyncio.to_thread(command, "export-labels", f"{tmp_path}/in the way/x"))[0] == 1


async def test_a_running_bot_follows(
    voted: Store, configured: Callable[..., Config], trained: Callable[..., Retraining], tmp_path: Path
) -> None:
    """A retraining by hand, a bot that serves what came of it, is killed, and serves it again."""
    config = configured()
    settings = [f"store.path={config.store.path}", f"captioner.model={config.captioner.model}", "web.port=0"]
    settings += ["captioner.threads=1", "learn.every=0"]
    await voted._call(voted._closing.close)  # the store of the test, so that the bot may open it
    for number in range(2):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.fakes.learning_bot", *settings),
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            assert process.stdout
            address = (await process.stdout.readline()).decode().split()[-1]
            if not number:
                assert (await trained().run()).outcome == "promoted"
            async with aiohttp.ClientSession(address) as session:
                await serving(session, "learnt-0001")
            process.send_signal(signal.SIGTERM if number else signal.SIGKILL)
            assert await process.wait() == (0 if number else -signal.SIGKILL)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def serving(session: aiohttp.ClientSession, model: str) -> None:
    async with asyncio.timeout(90):
        while True:
            async with session.get("/metrics") as response:
                if f'quipbot_model_serving{{model="{model}"}} 1.0' in await response.text():
                    return
            await asyncio.sleep(0.1)
