import asyncio
import gc
import weakref
from typing import Literal

import pytest

from bot.events import Change
from bot.feed import PENDING, Feed


def change(kind: Literal["meme", "reactions", "gone"], meme: str) -> Change:
    return Change(kind, "p", "c", meme)


async def test_listens_from_the_moment_it_is_made() -> None:
    feed = Feed()
    here, elsewhere = feed.listen("p", "c"), feed.listen("p", "other")
    feed.tell(change("meme", "a"))
    feed.close()
    assert [told.meme async for told in here] == ["a"]
    assert [told async for told in elsewhere] == []
    assert [told async for told in feed.listen("p", "c")] == []


async def test_a_waiting_listener_wakes() -> None:
    feed = Feed()
    listener = feed.listen("p", "c")
    waiting = asyncio.create_task(anext(listener))
    await asyncio.sleep(0)
    feed.tell(change("meme", "a"))
    assert (await waiting).meme == "a"


async def test_a_slow_listener_hears_the_newest_and_costs_little() -> None:
    feed = Feed()
    listener = feed.listen("p", "c")
    for number in range(10 * PENDING):
        feed.tell(change("meme", str(number)))
    for _ in range(50):
        feed.tell(change("reactions", str(10 * PENDING - 1)))
    feed.close()
    heard = [told async for told in listener]
    assert len(heard) == PENDING
    assert heard[-1] == change("meme", str(10 * PENDING - 1))


async def test_what_is_gone_stays_gone() -> None:
    """A vote that was being written meanwhile may be told of later."""
    feed = Feed()
    listener = feed.listen("p", "c")
    kinds: tuple[Literal["meme", "reactions", "gone"], ...] = ("meme", "reactions", "gone", "reactions")
    for kind in kinds:
        feed.tell(change(kind, "a"))
    feed.close()
    assert [told async for told in listener] == [change("gone", "a")]


async def test_however_many_are_gone_all_are_heard_of() -> None:
    """Somebody who is forgotten may have made hundreds, and all of them are to disappear from every window."""
    feed = Feed()
    listener = feed.listen("p", "c")
    for number in range(10 * PENDING):
        feed.tell(change("gone", str(number)))
    for number in range(2 * PENDING):
        feed.tell(change("meme", f"new {number}"))
    feed.close()
    heard = [told async for told in listener]
    assert [told.meme for told in heard if told.kind == "gone"] == [str(number) for number in range(10 * PENDING)]
    assert len(heard) == 11 * PENDING


async def test_closed_and_dropped_listeners_end() -> None:
    feed = Feed()
    listener = feed.listen("p", "c")
    waiting = asyncio.create_task(anext(listener))
    await asyncio.sleep(0)
    await listener.aclose()
    with pytest.raises(StopAsyncIteration):
        await waiting
    feed.tell(change("meme", "a"))
    with pytest.raises(StopAsyncIteration):
        await anext(listener)


def test_a_listener_that_nobody_holds_disappears() -> None:
    feed = Feed()
    listener = feed.listen("p", "c")
    gone = weakref.ref(listener)
    del listener
    gc.collect()
    assert gone() is None
    feed.tell(change("meme", "a"))
