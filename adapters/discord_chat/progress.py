"""What people see while they wait: that the bot is typing, or how many pictures come before theirs."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

FIRST, EACH = 5.0, 10.0
"""Seconds until something is told, and from then on between two looks."""
PATIENCE = 10.0
"""Seconds that an answer waits at most for a word on its way: the answer must come last."""


@asynccontextmanager
async def told(ahead: Callable[[], int | None], tell: Callable[[int], Awaitable[None]]) -> AsyncIterator[None]:
    """While the block runs, `tell` is called with what `ahead` says, as often as that changes; it must not raise."""
    over = asyncio.Event()

    async def watch() -> None:
        last, pause = None, FIRST
        while not over.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await over.wait()
            number, pause = ahead(), EACH
            if not over.is_set() and number not in (None, last):
                await tell(number or 0)
                last = number

    watching = asyncio.create_task(watch())
    try:
        yield
        over.set()
        await asyncio.wait([watching], timeout=PATIENCE)
    finally:
        watching.cancel()


@asynccontextmanager
async def shown(act: Callable[[], Awaitable[None]], seconds: float) -> AsyncIterator[None]:
    """While the block runs, `act` is done again and again, at first after a second; it must not raise."""

    async def repeat() -> None:
        await asyncio.sleep(1.0)
        while True:
            await act()
            await asyncio.sleep(seconds)

    repeating = asyncio.create_task(repeat())
    try:
        yield
    finally:
        repeating.cancel()
