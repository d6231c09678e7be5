"""Requests live in the store from before their platform hears of them until they are done with."""

import asyncio
import dataclasses
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlite_utils import Database

from bot import requests
from bot.events import Kept, MemeRecord, Request
from bot.schema import MIGRATIONS
from bot.store import Store

ASKED = Request("test", "1", "c", "u", expires=100.0, payload={"url": "x", "boxes": ["ä"]}, message="m")
MEME = MemeRecord(
    **dict.fromkeys(("id", "chat", "user", "alt", "description", "model", "content_type"), "x"),  # type: ignore[arg-type]
    platform="test",
    created=1.0,
    boxes=("b",),
    style="meme",
    seed=1,
    candidates=(),
    chosen=None,
    explored=False,
    reactions={},
)


async def test_nothing_of_a_forgotten_request_is_left_in_any_file(tmp_path: Path) -> None:
    async with Store(tmp_path / "q.db") as store:

        def files_with(words: bytes) -> list[str]:
            return [file.name for file in tmp_path.rglob("*") if file.is_file() and words in file.read_bytes()]

        for number in range(20):
            await store.accept(asked(number, payload={"text": "our zebra"}, user="u" if number % 2 else "v"), 1.0)
            await store.finish("test", str(number), "refused", "no")
        assert files_with(b"zebra"), "the test looks where it would be"
        await store.forget("test", "u", 0.0)
        assert not files_with(b"zebra")


def asked(number: int, **changes: object) -> Request:
    return dataclasses.replace(ASKED, id=str(number), **changes)  # type: ignore[arg-type]


async def test_what_was_accepted_survives(tmp_path: Path) -> None:
    async with Store(tmp_path / "q.db") as store:
        assert await store.accept(ASKED, 1.0)
        assert not await store.accept(ASKED, 2.0)
        assert await store.accept(asked(2, expires=5.0), 2.0)
        assert await store.accept(dataclasses.replace(ASKED, platform="other"), 2.0)
    async with Store(tmp_path / "q.db") as store:
        assert await store.unfinished("test", now=10.0) == [ASKED]
        assert await store.counts("test") == {"waiting": 1, "expired": 1, "resent": 0}


async def test_many_at_once(store: Store) -> None:
    new = await asyncio.gather(*(store.accept(asked(number % 60), 1.0) for number in range(100)))
    assert sum(new) == 60
    assert [request.id for request in await store.unfinished("test", 0.0)] == [str(n) for n in range(60)]


async def test_from_waiting_to_answered(store: Store) -> None:
    await store.accept(ASKED, 1.0)
    await store.add(MEME, Kept(b"drawn", b"source", request="1"))
    assert await store.sending("test", "1")
    (left,) = await store.unfinished("test", 2.0)
    assert (left.meme, left.sending) == ("x", True)
    await store.sent("x", "77")
    assert await store.counts("test") == {"answered": 1, "resent": 1}
    assert not await store.sending("test", "1")
    await store.finish("test", "1", "refused", "too late to say")
    assert await store.counts("test") == {"answered": 1, "resent": 1}
    rows = await store.export("test", "u")
    assert rows["requests"] == [
        {"id": "1", "chat": "c", "message": "m", "created": 1.0, "state": "answered", "why": ""}
    ]


async def test_a_deleted_picture_withdraws_its_requests(store: Store) -> None:
    await store.accept(ASKED, 1.0)
    await store.accept(asked(2, message=""), 1.0)
    await store.concerns("test", "2", "n")
    for message in ("m", "n"):
        await store.withdraw("test", "c", message, "gone")
    assert not await store.sending("test", "1")
    assert await store.counts("test") == {"refused": 2, "resent": 0}


async def test_pruning_keeps_what_is_open_and_what_ended_lately(store: Store) -> None:
    for number in range(3):
        await store.accept(asked(number), 1000.0 * number)
    await store.finish("test", "0", "silent")
    await store.finish("test", "2", "silent")
    await store.prune(before=500.0 + requests.DAY)
    assert not await store.accept(asked(2), 0.0)
    assert await store.accept(asked(0), 0.0)
    assert await store.counts("test") == {"waiting": 2, "silent": 1, "resent": 0}


STEPS = st.lists(st.tuples(st.sampled_from(["sending", "answer", "refuse", "withdraw", "restart"]), st.integers(0, 2)))


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS)
def test_every_request_ends_once(steps: list[tuple[str, int]]) -> None:
    db = Database(memory=True)
    for statement in (statement for migration in MIGRATIONS for statement in migration):
        db.execute(statement)
    requests.accept(db, [(asked(number, message=f"m{number}"), 1.0) for number in range(3)])
    ended: dict[int, str] = {}
    for step, number in steps:
        if step == "sending":
            assert requests.sending(db, "test", str(number)) == (number not in ended)
        elif step == "refuse":
            requests.finish(db, "test", str(number), "refused", "no")
            ended.setdefault(number, "refused")
        elif step == "withdraw":
            requests.withdraw(db, "test", "c", f"m{number}", "gone")
            ended.setdefault(number, "refused")
        elif step == "answer" and number not in ended:
            requests.made(db, "test", str(number), f"meme{number}")
            requests.answered(db, f"meme{number}")
            ended[number] = "answered"
        elif step == "restart":
            left = {int(request.id) for request in requests.unfinished(db, "test", 2.0)}
            assert left == {0, 1, 2} - set(ended)
    counts = requests.counts(db, "test")
    for state in ("answered", "refused"):
        assert counts.get(state, 0) == list(ended.values()).count(state)
    db.close()
