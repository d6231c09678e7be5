import asyncio
import gc
import weakref

import pytest

from bot.events import Change, MemeRecord
from bot.feed import PENDING, Feed


def record(meme: str, votes: int = 0, chat: str = "c") -> MemeRecord:
    return MemeRecord(
        meme, "p", chat, "u", 0.0, "", (), "", "meme", 0, "m", (), None, False, "image/jpeg", {"👍": votes}
    )


async def test_listens_from_the_moment_it_is_made() -> None:
    feed = Feed()
    here, elsewhere = feed.listen("p", "c"), feed.listen("p", "other")
    feed.tell(Change("meme", record("a")))
    feed.close()
    assert [change.meme.id async for change in here] == ["a"]
    assert [change async for change in elsewhere] == []
    assert [change async for change in feed.listen("p", "c")] == []


async def test_a_waiting_listener_wakes() -> None:
    feed = Feed()
    listener = feed.listen("p", "c")
    waiting = asyncio.create_task(anext(listener))
    await asyncio.sleep(0)
    feed.tell(Change("meme", record("a")))
    assert (await waiting).meme.id == "a"


async def test_a_slow_listener_hears_the_newest_and_costs_little() -> None:
    feed = Feed()
    listener = feed.listen("p", "c")
    for number in range(10 * PENDING):
        feed.tell(Change("meme", record(str(number))))
    for votes in range(50):
        feed.tell(Change("reactions", record("639", votes)))
    feed.close()
    heard = [change async for change in listener]
    assert len(heard) == PENDING
    assert heard[-1] == Change("meme", record("639", 49))


async def test_closed_and_dropped_listeners_end() -> None:
    feed = Feed()
    listener = feed.listen("p", "c")
    waiting = asyncio.create_task(anext(listener))
    await asyncio.sleep(0)
    await listener.aclose()
    with pytest.raises(StopAsyncIteration):
        await waiting
    feed.tell(Change("meme", record("a")))
    with pytest.raises(StopAsyncIteration):
        await anext(listener)


def test_a_listener_that_nobody_holds_disappears() -> None:
    feed = Feed()
    listener = feed.listen("p", "c")
    gone = weakref.ref(listener)
    del listener
    gc.collect()
    assert gone() is None
    feed.tell(Change("meme", record("a")))
