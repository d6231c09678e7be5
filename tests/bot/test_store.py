import asyncio
import dataclasses
import sqlite3
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot import people
from bot.database import StoreError
from bot.events import BadRequest, Candidate, Gone, Kept, MemeRecord, NotFound, ReactionChanged
from bot.schema import MIGRATIONS
from bot.store import MAX_REACTIONS, Store, examine

MEME = MemeRecord(
    id="a",
    platform="test",
    chat="c",
    user="u",
    created=1000.0,
    alt="a dog, with the words “hi”",
    boxes=("hi", "there"),
    description="a dog",
    style="meme",
    seed=2**53 - 1,
    model="tiny",
    candidates=(Candidate(("hi", "there"), -1.5, 0.25, 2.0), Candidate(("ho",), -2.5, None, -1.0)),
    chosen=0,
    explored=True,
    content_type="image/jpeg",
    reactions={},
    server="s",
    message="m",
    author="o",
)
LEARNING = {"features", "facts", "models", "promotions", "retrainings"}
KEPT = Kept(b"drawn", b"source", template="doge", spoiler=True)


def meme(name: str, **changes: object) -> MemeRecord:
    return dataclasses.replace(MEME, id=name, **changes)  # type: ignore[arg-type]


def vote(user: str = "v", emoji: str = "👍", added: bool = True, platform: str = "test") -> ReactionChanged:
    return ReactionChanged(platform, user, emoji, added)


async def test_a_meme_comes_back_as_it_was(store: Store) -> None:
    await store.add(MEME, KEPT)
    assert await store.record("a") == MEME
    assert (await store.picture("a"), await store.source("a")) == (b"drawn", b"source")
    assert await store.spoiler("a")
    for method in (store.record, store.picture, store.source, store.spoiler):
        with pytest.raises(NotFound):
            await method("b")


async def test_everything_survives_reopening(tmp_path: Path) -> None:
    async with Store(tmp_path / "q.db") as store:
        await store.add(MEME, KEPT)
        await store.react("a", vote(), 5.0)
    async with Store(tmp_path / "q.db") as store:
        assert await store.record("a", "v") == dataclasses.replace(MEME, reactions={"👍": 1}, mine=("👍",))
    assert examine(tmp_path / "q.db").endswith("holds 1 memes")


async def test_all_or_nothing(store: Store) -> None:
    broken = dataclasses.replace(MEME, candidates=(*MEME.candidates, Candidate(("x",), None, None, 0.0)))  # type: ignore[arg-type]
    with pytest.raises(sqlite3.IntegrityError):
        await store.add(broken, KEPT)
    with pytest.raises(NotFound):
        await store.record("a")
    await store.add(MEME, KEPT)


async def test_latest_are_the_chats_last_oldest_first(store: Store) -> None:
    for number in range(5):
        await store.add(meme(f"m{number}", created=float(number)), KEPT)
    await store.add(meme("other", chat="d"), KEPT)
    await store.react("m4", vote("v"), 1.0)
    await store.react("m4", vote("w"), 2.0)
    latest = await store.latest("test", "c", "w", 3)
    assert [record.id for record in latest] == ["m2", "m3", "m4"]
    assert (latest[-1].reactions, latest[-1].mine, latest[-1].candidates) == ({"👍": 2}, ("👍",), MEME.candidates)
    assert await store.latest("elsewhere", "c", "w", 3) == []


async def test_latest_are_those_whose_picture_is_kept(store: Store) -> None:
    for number in range(4):
        await store.add(meme(f"m{number}", created=float(number)), KEPT)
    await store.prune(before=2.0)
    assert [record.id for record in await store.latest("test", "c", "u", 3)] == ["m2", "m3"]
    await store.prune(before=5.0)
    assert await store.latest("test", "c", "u", 3) == []


async def test_a_reply_is_found_by_its_message(store: Store) -> None:
    await store.add(MEME, KEPT)
    await store.sent("a", "77")
    assert await store.reply("test", "c", "77") == "a"
    for place in (("test", "c", "78"), ("other", "c", "77"), ("test", "d", "77")):
        with pytest.raises(NotFound):
            await store.reply(*place)
    with pytest.raises(NotFound):
        await store.sent("b", "79")


async def test_votes_are_for_memes_of_their_platform(store: Store) -> None:
    await store.add(MEME, KEPT)
    for name, change in (("b", vote()), ("a", vote(platform="other"))):
        with pytest.raises(NotFound):
            await store.react(name, change, 1.0)


async def test_reactions_of_one_user_are_bounded(store: Store) -> None:
    await store.add(MEME, KEPT)
    emoji = [chr(0x1F600 + number) for number in range(MAX_REACTIONS + 1)]
    for each in emoji[:-1]:
        assert await store.react("a", vote(emoji=each), 1.0)
    with pytest.raises(BadRequest):
        await store.react("a", vote(emoji=emoji[-1]), 1.0)
    assert not await store.react("a", vote(emoji=emoji[0]), 1.0)


VOTES = st.lists(st.tuples(st.sampled_from("uvw"), st.sampled_from(["👍", "😂", "🔥"]), st.booleans()), max_size=12)


@settings(max_examples=25, deadline=None)
@given(VOTES)
def test_a_vote_counts_once_whatever_the_order(votes: Sequence[tuple[str, str, bool]]) -> None:
    async def play(path: Path) -> None:
        expected: set[tuple[str, str]] = set()
        async with Store(path) as store:
            await store.add(MEME, KEPT)
            for user, emoji, added in votes:
                before = (user, emoji) in expected
                (expected.add if added else expected.discard)((user, emoji))
                assert await store.react("a", vote(user, emoji, added), 1.0) == (before != added)
            record = await store.record("a", "u")
        assert record.reactions == {emoji: sum(e == emoji for _, e in expected) for emoji in {e for _, e in expected}}
        assert set(record.mine) == {emoji for user, emoji in expected if user == "u"}

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(play(Path(folder) / "q.db"))


async def test_a_version_of_a_meme_shares_its_source_and_its_age(store: Store) -> None:
    await store.add(MEME, KEPT)
    await store.add(meme("child", created=2000.0), Kept(b"drawn again", parent="a"))
    assert await store.source("child") == b"source"
    assert len(list(store.pictures.iterdir())) == 3
    await store.prune(before=1500.0)
    assert await store.picture("child") == b"drawn again"
    for gone in (store.picture("a"), store.source("a"), store.source("child")):
        with pytest.raises(Gone):
            await gone
    assert (await store.record("a")).alt == MEME.alt
    assert len(list(store.pictures.iterdir())) == 1


async def test_stray_files_are_swept_and_named_ones_kept(store: Store) -> None:
    await store.add(MEME, KEPT)
    for stray in ("0000.jpg", "1111.part"):
        store.pictures.joinpath(stray).write_bytes(b"left by a killed process")
    await store.prune(before=0.0)
    assert len(list(store.pictures.iterdir())) == 2
    assert await store.picture("a") == b"drawn"


async def test_a_folder_among_the_pictures_keeps_none_of_them(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As network storage and file systems make them; nor does a picture that cannot be removed keep the others."""
    await store.add(MEME, KEPT)
    store.pictures.joinpath("@eaDir").mkdir()
    unlink, tried = Path.unlink, []

    def stubborn(file: Path, missing_ok: bool = False) -> None:
        tried.append(file)
        if len(tried) == 1:
            raise PermissionError(13, "Permission denied", str(file))
        unlink(file, missing_ok)

    monkeypatch.setattr(Path, "unlink", stubborn)
    await store.prune(2000.0)
    assert len(tried) == 2
    assert "1 pictures could not be removed" in caplog.text
    await store.prune(2000.0)
    assert [file.name for file in store.pictures.iterdir()] == ["@eaDir"]


async def test_a_lost_file_is_gone(store: Store) -> None:
    await store.add(MEME, KEPT)
    for file in store.pictures.iterdir():
        file.unlink()
    with pytest.raises(Gone):
        await store.picture("a")


async def test_reading_while_another_reads(store: Store) -> None:
    await asyncio.gather(*(store.add(meme(f"m{n}"), KEPT) for n in range(20)))
    records = await asyncio.gather(*(store.record(f"m{n}") for n in range(20)))
    assert [record.id for record in records] == [f"m{n}" for n in range(20)]


async def test_the_database_is_durable_and_checked(tmp_path: Path) -> None:
    path = tmp_path / "q.db"
    async with Store(path):
        with sqlite3.connect(path) as connection:
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
            assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        connection.close()
    people = {"reactions", "optouts", "forgotten", "ratings"}
    assert tables == {"memes", "candidates", "settings", "requests"} | people | LEARNING


async def refused(path: Path) -> str:
    with pytest.raises(StoreError) as error:
        async with Store(path):
            pass
    return str(error.value)


async def test_a_newer_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "q.db"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    assert "written by a newer Quipbot" in await refused(path)
    with pytest.raises(StoreError, match="newer"):
        examine(path)


async def test_what_cannot_be_a_database_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("this is not a database, but long enough to be looked at" * 50)
    (tmp_path / "folder").mkdir()
    assert "cannot be used" in await refused(tmp_path / "file")
    assert "cannot be used" in await refused(tmp_path / "folder")
    assert "cannot be written" in await refused(tmp_path / "file" / "q.db")
    with pytest.raises(StoreError, match=r"cannot be written.*store\.path"):
        examine(tmp_path / "file" / "q.db")


async def test_two_bots_do_not_share_a_database(tmp_path: Path) -> None:
    async with Store(tmp_path / "q.db"):
        assert "Another bot is using" in await refused(tmp_path / "q.db")
    async with Store(tmp_path / "q.db"):
        pass


async def test_a_folder_belongs_to_one_database(tmp_path: Path) -> None:
    async with Store(tmp_path / "q.db") as store:
        await store.add(MEME, KEPT)
    before = sorted(file.name for file in tmp_path.iterdir())
    other = tmp_path / "test.db"
    words = await refused(other)
    assert "belongs to q.db; give store.path a folder of its own" in words
    assert sorted(file.name for file in tmp_path.iterdir()) == before
    with pytest.raises(StoreError, match="belongs to"):
        examine(other)
    (tmp_path / "q.db").rename(other)
    assert "belongs to q.db" in await refused(other)
    note = tmp_path / "belongs-to.txt"
    assert str(note) in words
    note.unlink()
    async with Store(other) as store:
        assert await store.picture("a") == b"drawn"
    assert "belongs to test.db" in await refused(tmp_path / "q.db")


def test_examining_changes_nothing(tmp_path: Path) -> None:
    assert "will be created" in examine(tmp_path / "data" / "q.db")
    assert list(tmp_path.iterdir()) == []


def reading(store: Store) -> sqlite3.Connection:
    """Somebody who reads beside the bot, and is not through."""
    connection = sqlite3.connect(store.path)
    connection.execute("BEGIN")
    connection.execute("SELECT count(*) FROM memes").fetchone()
    return connection


def logged(store: Store) -> bytes:
    log = store.path.with_name(store.path.name + "-wal")
    return log.read_bytes() if log.exists() else b""


async def test_what_is_forgotten_goes_from_the_log_as_soon_as_nobody_reads_it(store: Store) -> None:
    await store.add(meme("m1", user="somebody"), KEPT)
    reader = reading(store)
    await store.forget("test", "somebody", 100.0)
    assert b"somebody" in logged(store)
    reader.close()
    await store.prune(0.0)
    assert logged(store) == b""


async def test_what_is_forgotten_goes_from_the_log_with_the_stop(tmp_path: Path) -> None:
    idle = None
    async with Store(tmp_path / "q.db") as store:
        await store.add(meme("m1", user="somebody"), KEPT)
        idle = reading(store)
        await store.forget("test", "somebody", 100.0)
        idle.rollback()  # it stays connected, so that SQLite does not do by itself what is done for the last one
        assert b"somebody" in logged(store)
    assert b"somebody" not in logged(store)
    idle.close()


async def test_who_was_forgotten_is_not_remembered_for_ever(store: Store) -> None:
    at = 100.0
    await store.add(meme("m1", created=at), KEPT)
    await store.forget("test", "v", at)
    assert await store.set_votes("m1", "test", {("v", "👍"), ("w", "👍")}, at) == (1, 0)
    await store.prune(at + people.REMEMBERED + 1)
    assert await store.set_votes("m1", "test", {("v", "👍"), ("w", "👍")}, at) == (1, 0)
