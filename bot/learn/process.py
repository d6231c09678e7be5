"""A command in the background: low priority, bounded memory, no GPU, still while pictures wait, and no orphan."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import bot
from bot.learn import child

TELL = 0.2
"""Seconds between two looks at what a command has said."""
LOOK = 0.05
"""Seconds between two looks at whether pictures wait."""
ASK = 2.0
"""Seconds between two questions whether the command's work is still wanted."""
QUIET = 0.3
"""Seconds without a picture after which it moves again."""
STILL, MOVE = 30.0, 3.0
"""Seconds that it stands still at most, and then moves for whatever waits: otherwise a busy bot would never learn."""
PATIENCE = 5.0
"""Seconds that it is given to end by itself."""


@dataclass(frozen=True, slots=True)
class Background:
    """How commands are run: `busy` tells whether pictures wait, `wanted` whether the work is still wanted."""

    megabytes: int
    busy: Callable[[], bool]
    wanted: Callable[[], Awaitable[bool]]
    holding: tuple[int, ...] = ()
    """File descriptors that the command keeps open: a lock is held for as long as it lives."""
    aloud: bool = False
    """Whether the terminal shows what the command says to its log."""

    async def run(self, command: Sequence[str], out: Path, log: Path) -> int | None:
        """The exit status, or None where the work was not wanted any more; what it prints goes into the files.

        Cancelling ends the command first.
        """
        async with contextlib.AsyncExitStack() as stack:
            if self.aloud:
                log.touch()
                await stack.enter_async_context(_shown(stack.enter_context(log.open(errors="replace", newline=""))))
            return await self._run(command, out, log)

    async def _run(self, command: Sequence[str], out: Path, log: Path) -> int | None:
        with out.open("wb") as stdout, log.open("ab") as stderr:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, child.__file__, str(os.getpid()), str(self.megabytes), *command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env=_environment(),
                pass_fds=self.holding,
                # A group of its own, but no session: a group that stands still when its bot dies is woken and ended by
                # the system then, wherever it was stopped.
                process_group=0,
            )
        try:
            return await self._watched(process)
        finally:
            await _ended(process)

    async def _watched(self, process: asyncio.subprocess.Process) -> int | None:
        waiting = asyncio.create_task(process.wait())
        try:
            async with _pausing(process, self.busy):
                while not (await asyncio.wait([waiting], timeout=ASK))[0]:
                    if not await self.wanted():
                        return None
            return waiting.result()
        finally:
            waiting.cancel()


@contextlib.asynccontextmanager
async def _shown(log: IO[str]) -> AsyncIterator[None]:
    """Show in the terminal what is added to a log meanwhile."""
    log.seek(0, os.SEEK_END)

    def show() -> None:
        with contextlib.suppress(OSError):  # nobody reads any more
            print(log.read(), end="", file=sys.stderr, flush=True)

    async def show_on() -> None:
        while True:
            show()
            await asyncio.sleep(TELL)

    showing = asyncio.create_task(show_on())
    try:
        yield
    finally:
        showing.cancel()
        await asyncio.wait([showing])
        show()


@contextlib.asynccontextmanager
async def _pausing(process: asyncio.subprocess.Process, busy: Callable[[], bool]) -> AsyncIterator[None]:
    pausing = asyncio.create_task(_pause(process, busy))
    try:
        yield
    finally:
        pausing.cancel()
        await asyncio.wait([pausing])


async def _pause(process: asyncio.subprocess.Process, busy: Callable[[], bool]) -> None:
    """Let the command stand still while pictures wait, but not for ever."""
    while True:
        while not busy():
            await asyncio.sleep(LOOK)
        _tell(process, signal.SIGSTOP)
        stopped = since = time.monotonic()
        while time.monotonic() - since < QUIET and time.monotonic() - stopped < STILL:
            await asyncio.sleep(LOOK)
            if busy():
                since = time.monotonic()
        _tell(process, signal.SIGCONT)
        if time.monotonic() - stopped >= STILL:
            await asyncio.sleep(MOVE)


async def _ended(process: asyncio.subprocess.Process) -> None:
    """End it if it has not: gently, then not; also where we are cancelled once more."""
    if process.returncode is not None:
        return
    _tell(process, signal.SIGTERM)
    _tell(process, signal.SIGCONT)
    try:
        async with asyncio.timeout(PATIENCE):
            await process.wait()
    except TimeoutError:
        pass
    finally:
        if process.returncode is None:
            _tell(process, signal.SIGKILL)
            await process.wait()


def _tell(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    """To it and whatever it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _environment() -> dict[str, str]:
    """One thread, the same code as here wherever it was started from, and no GPU: that is left to serving."""
    root = str(Path(bot.__file__).parents[1])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    return os.environ | threads | {"PYTHONPATH": os.pathsep.join(paths), "CUDA_VISIBLE_DEVICES": ""}
