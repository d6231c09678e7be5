"""A command in the background: lowest priority, bounded memory, standing still while pictures wait, no orphan."""

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

    async def run(self, command: Sequence[str], out: Path, log: Path | None) -> int | None:
        """The exit status, or None where the work was not wanted any more; what it prints goes into the files.

        Cancelling ends the command first.
        """
        with contextlib.ExitStack() as files:
            stdout: IO[bytes] = files.enter_context(out.open("wb"))
            stderr = files.enter_context(log.open("ab")) if log else None
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
    """One thread, and the same code as here wherever it was started from."""
    root = str(Path(bot.__file__).parents[1])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    return os.environ | threads | {"PYTHONPATH": os.pathsep.join(paths)}
