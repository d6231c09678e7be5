"""Commands in the background: they stand aside, and leave nobody behind."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from bot.learn.child import NICE
from bot.learn.process import Background

PRINTS = (
    "import os, sys; print(os.environ['OMP_NUM_THREADS'], repr(os.environ['CUDA_VISIBLE_DEVICES']));"
    "print('words', file=sys.stderr)"
)
SLEEPS = "import pathlib, sys, time\nwhile True: time.sleep(0.01); pathlib.Path(sys.argv[1]).touch()"


async def yes() -> bool:
    return True


def calm() -> bool:
    return False


def in_background(
    folder: Path, code: str, *words: str, busy: Callable[[], bool] = calm, megabytes: int = 0
) -> "asyncio.Task[int | None]":
    background = Background(megabytes, busy, yes)
    command = [sys.executable, "-c", code, *words]
    return asyncio.create_task(background.run(command, folder / "out", folder / "log"))


async def child(state: str | None = None) -> psutil.Process:
    """The command, once it is itself, and in that state."""
    async with asyncio.timeout(30):
        while True:
            for found in psutil.Process().children():
                try:
                    if "child.py" not in " ".join(found.cmdline()) and state in (None, found.status()):
                        return found
                except psutil.Error:
                    continue
            await asyncio.sleep(0.01)


async def test_words_and_status_come_back(tmp_path: Path) -> None:
    """It has one thread, and sees no GPU: that is left to serving."""
    assert await in_background(tmp_path, PRINTS) == 0
    assert tmp_path.joinpath("out").read_text() == "1 ''\n"
    assert tmp_path.joinpath("log").read_text() == "words\n"
    assert await in_background(tmp_path, "import sys; sys.exit(3)") == 3


async def test_the_terminal_shows_what_it_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log"
    log.write_text("what was said before\n")
    command = [sys.executable, "-c", "import sys; print('50 %\\r100 %', file=sys.stderr)"]
    assert await Background(0, calm, yes, aloud=True).run(command, tmp_path / "out", log) == 0
    assert capsys.readouterr().err == "50 %\r100 %\n"
    assert log.read_bytes() == b"what was said before\n50 %\r100 %\n"


async def test_it_has_the_lowest_priority(tmp_path: Path) -> None:
    task = in_background(tmp_path, SLEEPS, str(tmp_path / "beat"))
    found = await child()
    assert found.nice() == min(19, os.nice(0) + NICE)
    task.cancel()
    await asyncio.wait([task])
    assert not found.is_running()


async def test_it_stands_still_while_pictures_wait(tmp_path: Path) -> None:
    waiting = False
    task = in_background(tmp_path, SLEEPS, str(tmp_path / "beat"), busy=lambda: waiting)
    found = await child()
    waiting = True
    found = await child(psutil.STATUS_STOPPED)
    waiting = False
    async with asyncio.timeout(30):
        while found.status() == psutil.STATUS_STOPPED:
            await asyncio.sleep(0.01)
    waiting = True
    await child(psutil.STATUS_STOPPED)
    task.cancel()
    await asyncio.wait([task])
    assert not found.is_running()


@pytest.mark.skipif(sys.platform != "linux", reason="memory cannot be bounded on this system")
async def test_its_memory_is_bounded(tmp_path: Path) -> None:
    assert await in_background(tmp_path, "b'x' * 600_000_000", megabytes=300) == 1
    assert "MemoryError" in tmp_path.joinpath("log").read_text()


async def test_it_ends_when_nobody_wants_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bot.learn.process.ASK", 0.05)

    async def no() -> bool:
        return False

    background = Background(0, calm, no)
    command = [sys.executable, "-c", SLEEPS, str(tmp_path / "beat")]
    assert await background.run(command, tmp_path / "out", tmp_path / "log") is None
    assert psutil.Process().children() == []


async def test_what_does_not_listen_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bot.learn.process.PATIENCE", 0.1)
    code = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SLEEPS
    task = in_background(tmp_path, code, str(tmp_path / "beat"))
    async with asyncio.timeout(30):
        while not tmp_path.joinpath("beat").exists():
            await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait([task])
    assert psutil.Process().children() == []


@pytest.mark.skipif(sys.platform != "linux", reason="a child outlives its parent on this system")
@pytest.mark.parametrize("busy", [False, True])
async def test_it_dies_with_the_bot(tmp_path: Path, busy: bool) -> None:
    """Also where it was stopped before it had asked to: then it stands still from its first moment on."""
    code = (
        "import asyncio, pathlib, sys\nfrom bot.learn.process import Background\n"
        "async def yes(): return True\n"
        "out = pathlib.Path(sys.argv[1])\n"
        f"asyncio.run(Background(0, lambda: {busy}, yes).run(sys.argv[2:], out, out.with_name('log')))"
    )
    words = [str(tmp_path / "out"), sys.executable, "-c", SLEEPS, str(tmp_path / "beat")]
    bot = await asyncio.create_subprocess_exec(sys.executable, "-c", code, *words)
    async with asyncio.timeout(60):
        while not (children := psutil.Process(bot.pid).children()) or not (
            children[0].status() == psutil.STATUS_STOPPED if busy else tmp_path.joinpath("beat").exists()
        ):
            await asyncio.sleep(0.01)
    (found,) = children
    bot.send_signal(signal.SIGKILL)
    await bot.wait()
    async with asyncio.timeout(30):
        while found.is_running() and found.status() != psutil.STATUS_ZOMBIE:
            await asyncio.sleep(0.01)
