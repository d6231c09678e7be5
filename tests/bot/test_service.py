import asyncio
import dataclasses
import io
import json
import logging
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bot.config import Reply
from bot.engine import Engine
from bot.events import (
    BadPicture,
    BadRequest,
    Blocked,
    Change,
    Failed,
    Fetch,
    Forbidden,
    Gone,
    ImagePosted,
    Made,
    MemeReply,
    NotFound,
    Place,
    ReactionChanged,
    TooLarge,
    TooSoon,
    Wish,
    Withdrawn,
)
from bot.health import Health
from bot.service import MAX_ALT, Service, alt_text
from bot.store import Store

Posted = Callable[..., ImagePosted]


@pytest.fixture
def health() -> Health:
    return Health()


@pytest.fixture
def service(engine: Engine, store: Store, health: Health) -> Service:
    return Service(engine, store, health, Reply(explore=0.0))


@pytest.fixture
def wishes(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> list[Wish]:
    """What the engine is asked for from now on."""
    asked: list[Wish] = []
    make = engine.make

    async def noted(fetch: Fetch, wish: Wish) -> Made:
        asked.append(wish)
        return await make(fetch, wish)

    monkeypatch.setattr(engine, "make", noted)
    return asked


async def answer(service: Service, event: ImagePosted) -> MemeReply:
    reply = await service.post(event)
    assert reply is not None
    return reply


async def test_what_was_answered_is_remembered(service: Service, store: Store, posted: Posted) -> None:
    reply = await answer(service, posted(text="when it compiles", seed=1, spoiler=True))
    record = await service.record(reply.id)
    same = ("id", "alt", "boxes", "description", "seed", "model", "candidates", "chosen", "explored", "content_type")
    assert [getattr(record, name) for name in same] == [getattr(reply, name) for name in same]
    assert await service.picture(reply.id) == (reply.data, "image/jpeg")
    assert (record.platform, record.chat, record.user, record.style) == ("test", "c", "u", "meme")
    assert reply.spoiler
    assert await service.latest("test", "c", "u") == [record]


async def test_the_same_seed_gives_the_same_bytes(service: Service, posted: Posted) -> None:
    one, same, other = [await answer(service, dataclasses.replace(posted(), seed=seed)) for seed in (5, 5, 6)]
    assert one.data == same.data
    assert one.id != same.id
    assert one.boxes != other.boxes
    drawn = [(await answer(service, dataclasses.replace(posted(), seed=None))).seed for _ in range(3)]
    assert len(set(drawn)) == 3


async def test_a_stored_seed_repeats_the_meme(service: Service, posted: Posted) -> None:
    first = await answer(service, dataclasses.replace(posted(), seed=None))
    assert (await answer(service, dataclasses.replace(posted(), seed=first.seed))).data == first.data


async def test_exploring_is_marked(engine: Engine, store: Store, health: Health, posted: Posted) -> None:
    service = Service(engine, store, health, Reply(explore=1.0))
    reply = await answer(service, posted())
    assert reply.explored
    assert (await service.record(reply.id)).explored
    assert not (await answer(service, posted(own_boxes=("a",)))).explored
    assert not (await answer(service, posted(style="describe"))).explored


async def test_a_candidate_can_be_picked(service: Service, posted: Posted) -> None:
    first = await answer(service, posted())
    picked = await service.redo(first.id, "v", candidate=2)
    assert picked.boxes == first.candidates[2].boxes
    assert (picked.chosen, picked.candidates, picked.seed) == (2, first.candidates, first.seed)
    assert picked.description == first.description
    again = await service.redo(picked.id, "v", candidate=0)
    assert again.boxes == first.boxes
    for place in (-1, 3):
        with pytest.raises(BadRequest):
            await service.redo(first.id, "v", candidate=place)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "WEBP"])
async def test_a_seed_makes_the_same_meme_of_the_picture_as_it_was_kept(
    form: str, service: Service, posted: Posted, fetching: Callable[[bytes], Fetch]
) -> None:
    frames = [Image.effect_noise((120, 90), 60 + shade).convert("RGB") for shade in (0, 20, 40)]
    out = io.BytesIO()
    frames[0].save(out, form, **({"save_all": True, "append_images": frames[1:]} if form in ("GIF", "WEBP") else {}))
    first = await answer(service, posted(fetch=fetching(out.getvalue())))
    assert (await service.redo(first.id, "v", seed=first.seed)).boxes == first.boxes
    other = await service.redo(first.id, "v")
    again = dataclasses.replace(posted(fetch=fetching(out.getvalue())), seed=other.seed)
    assert (await answer(service, again)).boxes == other.boxes
    later = await service.redo(other.id, "v")
    assert (await service.redo(first.id, "v", seed=later.seed)).boxes == later.boxes


async def test_another_one_is_another_one(service: Service, posted: Posted) -> None:
    first = await answer(service, posted())
    other = await service.redo(first.id, "v")
    assert other.boxes != first.boxes
    assert len(other.candidates) == len(first.candidates)
    assert (await service.redo(first.id, "v", seed=other.seed)).data == other.data
    assert [record.id for record in await service.latest("test", "c", "v")][:2] == [first.id, other.id]


async def test_own_text(service: Service, posted: Posted) -> None:
    first = await answer(service, posted(spoiler=True))
    mine = await service.own_text(first.id, "v", ["  top\n", "bot\x00tom\ud800"])
    assert mine.boxes == ("top", "bottom")
    assert (mine.candidates, mine.chosen, mine.description) == ((), None, first.description)
    assert mine.spoiler
    assert (await service.record(mine.id)).user == "v"
    direct = await answer(service, posted(own_boxes=("", "bottom")))
    assert direct.boxes == ("", "bottom")
    for boxes in ([], ["", " "], ["x" * 1001], ["x"] * 11):
        with pytest.raises(BadRequest):
            await service.own_text(first.id, "v", boxes)


async def test_words_that_nobody_can_see_are_none(service: Service, posted: Posted) -> None:
    first = await answer(service, posted())
    for unseen in ("\u200b", "\u2060 \ufeff", "\u00ad\u0301", "\u3164\u2800"):
        with pytest.raises(BadRequest, match="no words"):
            await service.own_text(first.id, "v", [unseen, unseen])
        with pytest.raises(BadRequest, match="no words"):
            await service.post(posted(own_boxes=(unseen,)))
        assert (await service.own_text(first.id, "v", [unseen, "seen"])).boxes == ("", "seen")
    assert (await service.own_text(first.id, "v", ["❤️", "e\u0301"])).boxes == ("❤️", "e\u0301")


async def test_a_description_is_the_best_one_and_another_one_another(
    service: Service, posted: Posted, wishes: list[Wish]
) -> None:
    first = await answer(service, posted(style="describe"))
    assert first.alt.startswith(first.boxes[0])  # what is written on the picture is what it is told by
    await service.redo(first.id, "u", seed=5)
    assert [(wish.style, wish.again) for wish in wishes] == [("describe", False), ("describe", True)]


async def test_words_go_where_the_template_has_them(
    service: Service, store: Store, engine: Engine, posted: Posted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the model is not asked any more, what it knew of the picture still says where words go."""
    asked: list[Wish] = []
    make = engine.make

    async def templated(fetch: Fetch, wish: Wish) -> Made:
        asked.append(wish)
        made = await make(fetch, wish)
        return dataclasses.replace(made, template="Drake", mirrored=True) if len(asked) == 1 else made

    monkeypatch.setattr(engine, "make", templated)
    first = await answer(service, posted())
    assert await store.layout(first.id) == ("Drake", True)
    mine = await service.own_text(first.id, "u", ["no", "yes"])
    picked = await service.redo(first.id, "u", candidate=1)
    assert [(wish.template, wish.mirrored) for wish in asked[1:]] == [("Drake", True)] * 2
    assert first.alt.startswith("the meme template Drake, with the words “")
    assert await store.layout(mine.id) == await store.layout(picked.id) == ("Drake", True)


async def test_explaining(service: Service, posted: Posted) -> None:
    reply = await answer(service, posted())
    assert (await service.explain(reply.id)).startswith(b"\x89PNG")


async def test_requests_that_cannot_be_meant(service: Service, posted: Posted) -> None:
    for changes in ({"candidates": 0}, {"candidates": 11}, {"own_boxes": ("",)}):
        with pytest.raises(BadRequest):
            await service.post(posted(**changes))
    for seed in (-1, 2**63):
        with pytest.raises(BadRequest):
            await service.post(dataclasses.replace(posted(), seed=seed))
    for call in (service.redo("no", "u"), service.own_text("no", "u", ["a"]), service.explain("no")):
        with pytest.raises(NotFound):
            await call
    assert await service.latest("test", "c", "u") == []


async def test_when_the_picture_is_gone(service: Service, store: Store, posted: Posted) -> None:
    reply = await answer(service, posted())
    await store.prune(before=2e12)
    for call in (service.redo(reply.id, "u"), service.own_text(reply.id, "u", ["a"]), service.explain(reply.id)):
        with pytest.raises(Gone):
            await call
    with pytest.raises(Gone):
        await service.picture(reply.id)
    assert (await service.record(reply.id)).boxes == reply.boxes


async def test_votes_count_once_however_they_are_spelt(service: Service, health: Health, posted: Posted) -> None:
    reply = await answer(service, posted())
    for emoji in ("👍", "👍🏽", "👍\ufe0f"):
        await service.react(ReactionChanged("test", "v", emoji, True, meme=reply.id))
    await service.react(ReactionChanged("test", "w", "👍", True, meme=reply.id))
    assert (await service.record(reply.id, "v")).reactions == {"👍": 2}
    await service.react(ReactionChanged("test", "w", "👍🏿", False, meme=reply.id))
    await service.react(ReactionChanged("test", "w", "👍", False, meme=reply.id))
    record = await service.record(reply.id, "v")
    assert (record.reactions, record.mine) == ({"👍": 1}, ("👍",))
    figures = health.metrics()[0].decode()
    assert 'quipbot_reactions_total{change="added"} 2.0' in figures
    assert 'quipbot_reactions_total{change="removed"} 1.0' in figures
    with pytest.raises(BadRequest):
        await service.react(ReactionChanged("test", "v", "<script>", True, meme=reply.id))
    with pytest.raises(NotFound):
        await service.react(ReactionChanged("test", "v", "👍", True, chat="c", message="unknown"))


async def test_every_window_hears_of_memes_and_votes(service: Service, posted: Posted) -> None:
    here, elsewhere = service.changes("test", "c"), service.changes("test", "d")
    reply = await answer(service, posted())
    assert await anext(here) == Change("meme", "test", "c", reply.id)
    await service.react(ReactionChanged("test", "v", "🔥", True, meme=reply.id))
    assert await anext(here) == Change("reactions", "test", "c", reply.id)
    await service.react(ReactionChanged("test", "v", "🔥", True, meme=reply.id))
    service.close()
    assert [change async for change in here] == []
    assert [change async for change in elsewhere] == []


async def test_every_window_hears_of_what_is_gone(service: Service, posted: Posted) -> None:
    """Forgotten with whom it was made for or whose picture it is, deleted by a button, or with its message."""
    memes = [await answer(service, posted(user=user, author=author)) for user, author in (("u", ""), ("v", "u"))]
    memes += [await answer(service, posted(user="v")) for _ in range(3)]
    await service.sent(memes[3].id, "r3")
    here, elsewhere = service.changes("test", "c"), service.changes("test", "d")
    await service.forget("test", "u")
    await service.delete(memes[2].id, "v")
    await service.deleted("test", "c", "r3")
    service.close()
    assert [change async for change in here] == [Change("gone", "test", "c", meme.id) for meme in memes[:4]]
    assert [change async for change in elsewhere] == []


async def test_every_window_hears_of_votes_that_are_forgotten(service: Service, posted: Posted) -> None:
    memes = [await answer(service, posted(user=user)) for user in ("u", "v", "v")]
    for meme in memes[:2]:
        for user in ("u", "w"):
            await service.react(ReactionChanged("test", user, "👍", True, meme=meme.id))
    here = service.changes("test", "c")
    await service.forget("test", "u")
    service.close()
    changes = [change async for change in here]
    assert changes == [Change("gone", "test", "c", memes[0].id), Change("reactions", "test", "c", memes[1].id)]
    assert (await service.record(memes[1].id)).reactions == {"👍": 1}


async def test_policy_keeps_silent(engine: Engine, store: Store, health: Health, posted: Posted) -> None:
    now, dice = 1000.0, 0.4
    service = Service(
        engine,
        store,
        health,
        Reply(passive=True, chance=0.5, cooldown=60, explore=0),
        clock=lambda: now,
        dice=lambda: dice,
    )
    event = posted(addressed=False)
    assert await service.post(event)
    assert await service.post(event) is None
    assert await service.post(posted(addressed=False, chat="d"))
    assert await service.post(posted())
    now += 61
    assert await service.post(event)
    now, dice = now + 61, 0.6
    assert await service.post(event) is None
    assert await service.post(posted(from_bot=True)) is None


async def test_failures_are_counted_and_logged_without_words(
    service: Service, store: Store, health: Health, posted: Posted, caplog: pytest.LogCaptureFixture
) -> None:
    async def fetch(_: int) -> bytes:
        return b"no picture"

    caplog.set_level(logging.INFO, logger="bot")
    await answer(service, posted(text="private words", own_boxes=("more private words",)))
    with pytest.raises(BadPicture):
        await service.post(posted(text="private words", fetch=fetch))
    lines = [record.fields for record in caplog.records if record.name == "bot.service"]
    assert [line["outcome"] for line in lines] == ["made", "BadPicture"]
    assert set(lines[0]) == {
        *("outcome", "platform", "style", "wait", "read", "caption", "draw", "meme", "seed", "model")
    }
    assert "private" not in caplog.text + str(lines)
    assert 'quipbot_memes_total{outcome="BadPicture",style="meme"} 1.0' in health.metrics()[0].decode()


async def test_a_store_that_breaks_is_a_sentence_and_a_traceback(
    service: Service, store: Store, posted: Posted, caplog: pytest.LogCaptureFixture
) -> None:
    reply = await answer(service, posted())
    await store._call(store._db.execute, "DROP TABLE reactions")
    await store._call(store._db.execute, "ALTER TABLE candidates RENAME COLUMN score TO lost")
    with pytest.raises(Failed, match="log"):
        await service.react(ReactionChanged("test", "v", "👍", True, meme=reply.id))
    with pytest.raises(Failed, match="log"):
        await service.post(posted(2))
    assert "OperationalError" in caplog.text


async def test_a_cancelled_post_is_counted(service: Service, health: Health, posted: Posted) -> None:
    async def fetch(_: int) -> bytes:
        await asyncio.Event().wait()
        return b""

    task = asyncio.create_task(service.post(posted(fetch=fetch)))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert 'outcome="cancelled"' in health.metrics()[0].decode()


@given(st.text(max_size=3000), st.lists(st.text(max_size=700), max_size=4))
def test_alt_text_fits(description: str, boxes: list[str]) -> None:
    assert 0 < len(alt_text(description, boxes)) <= MAX_ALT


def test_alt_text_says_what_is_shown_and_written() -> None:
    assert alt_text("a dog", ["top", "", "bottom line"]) == "a dog, with the words “top” and “bottom line”"
    assert alt_text("a dog", ["a dog"]) == "a dog, which is also written on it"


async def test_the_filter_is_for_own_words_too(service: Service, posted: Posted) -> None:
    with pytest.raises(Blocked):
        await service.post(posted(own_boxes=("k1ll all j3ws",)))
    first = await answer(service, posted())
    with pytest.raises(Blocked):
        await service.own_text(first.id, "v", ["kill all", "jews"])


async def test_a_user_cools_down(engine: Engine, store: Store, health: Health, posted: Posted) -> None:
    now = 1000.0
    service = Service(engine, store, health, Reply(cooldown_user=10, explore=0), clock=lambda: now)
    first = await answer(service, posted())
    with pytest.raises(TooSoon, match="10 s"):
        await service.post(posted())
    with pytest.raises(TooSoon):
        await service.redo(first.id, "u")
    assert await service.redo(first.id, "somebody else")
    now += 10
    assert await service.post(posted())


async def test_a_turn_that_came_to_nothing_is_given_back(
    engine: Engine, store: Store, health: Health, posted: Posted, fetching: Callable[[bytes], Fetch]
) -> None:
    service = Service(engine, store, health, Reply(cooldown_user=10, explore=0), clock=lambda: 1000.0)
    with pytest.raises(BadPicture):
        await service.post(posted(fetch=fetching(b"no picture")))
    assert await service.post(posted())
    with pytest.raises(TooSoon) as soon:
        await service.post(posted())
    assert soon.value.wait == 10


async def test_a_turn_is_not_given_back_over_a_later_one(
    engine: Engine, store: Store, health: Health, posted: Posted
) -> None:
    now = 1000.0
    service = Service(engine, store, health, Reply(cooldown_user=10, explore=0), clock=lambda: now)
    started, go_on = asyncio.Event(), asyncio.Event()

    async def broken(limit: int) -> bytes:
        started.set()
        await go_on.wait()
        return b"no picture"

    slow = asyncio.create_task(service.post(posted(fetch=broken)))
    await started.wait()
    now += 10
    assert await service.post(posted())
    go_on.set()
    with pytest.raises(BadPicture):
        await slow
    with pytest.raises(TooSoon):
        await service.post(posted())


@pytest.mark.parametrize("who", ["u", "painter"])
async def test_a_meme_under_way_for_somebody_who_is_forgotten_is_not_kept(
    service: Service, store: Store, posted: Posted, who: str
) -> None:
    event = posted(author="painter")
    fetching, go_on = asyncio.Event(), asyncio.Event()

    async def fetch(limit: int) -> bytes:
        fetching.set()
        await go_on.wait()
        return await event.fetch(limit)

    making = asyncio.create_task(service.post(dataclasses.replace(event, fetch=fetch)))
    await fetching.wait()
    await service.forget("test", who)
    go_on.set()
    with pytest.raises(Withdrawn):
        await making
    assert await service.latest("test", "c", "u") == []
    assert await answer(service, posted(author="painter"))


async def test_who_opted_out_is_not_memed_by_others(service: Service, store: Store, posted: Posted) -> None:
    mine = await answer(service, posted())
    await service.change_settings(Place("test", "c"), "a", {"passive": True})
    assert await service.post(posted(addressed=False))
    await service.opt_out("test", "u", True)
    with pytest.raises(Forbidden):
        await service.post(posted(user="v", author="u"))
    with pytest.raises(Forbidden):
        await service.redo(mine.id, "v")
    assert await service.post(posted(addressed=False)) is None
    assert await service.post(posted())
    await service.opt_out("test", "u", False)
    assert await service.redo(mine.id, "v")


async def test_other_memes_of_a_picture_take_up_the_words_that_came_with_it(
    service: Service, store: Store, posted: Posted, wishes: list[Wish]
) -> None:
    """As long as nobody forgot them, and never on the disk."""
    first = await answer(service, posted(text="our zebra", user="asker", author="author"))
    own = await service.own_text(first.id, "v", ["top", "bottom"])
    other = await service.redo(own.id, "w")
    assert [wish.context for wish in wishes] == ["our zebra"] * 3
    for file in store.path.parent.rglob("*"):
        assert not file.is_file() or b"zebra" not in file.read_bytes()
    assert json.loads(await service.export("test", "asker"))["words_posted_lately"] == ["our zebra"]
    await service.delete(own.id, "v")
    await service.forget("test", "nobody of these")
    plain = await answer(service, posted(seed=2))
    await service.redo(other.id, "x")
    await service.redo(plain.id, "v")
    assert [wish.context for wish in wishes[3:]] == ["", "our zebra", ""]


@pytest.mark.parametrize("who", ["asker", "author"])
async def test_words_are_forgotten_with_whose_they_are(service: Service, posted: Posted, who: str) -> None:
    """Wherever others took them up, and while another meme is being written down."""
    first = await answer(service, posted(text="our zebra", user="asker", author="author"))
    other = await service.redo(first.id, "v")
    last, _ = await asyncio.gather(service.redo(other.id, "w"), service.forget("test", who), return_exceptions=True)
    assert not service._posted._kept
    assert json.loads(await service.export("test", who))["words_posted_lately"] == []
    assert not isinstance(last, MemeReply) or service._posted.of(last.id, 0.0) == ""


async def test_words_go_with_the_meme_that_they_were_posted_for(service: Service, posted: Posted) -> None:
    first, kept = [await answer(service, posted(seed=seed, text=f"zebra {seed}")) for seed in (1, 2)]
    await service.redo(first.id, "v")
    await service.delete(first.id, "u")
    assert list(service._posted._kept) == [kept.id]
    await service.sent(kept.id, "r2")
    assert [placed.message for placed in await service.deleted("test", "c", "m2")] == ["r2"]
    await service.deleted("test", "c", "r2")
    assert not service._posted._kept


async def test_who_may_delete(service: Service, store: Store, posted: Posted) -> None:
    memes = [await answer(service, posted(user="asker", author="author")) for _ in range(3)]
    with pytest.raises(Forbidden):
        await service.delete(memes[0].id, "stranger")
    await service.delete(memes[0].id, "asker")
    await service.delete(memes[1].id, "author")
    await service.delete(memes[2].id, "stranger", moderator=True)
    assert await service.latest("test", "c", "") == []
    assert list(store.pictures.iterdir()) == []


async def test_a_deleted_picture_takes_its_memes_along(service: Service, posted: Posted) -> None:
    first = await answer(service, posted())
    other = await service.redo(first.id, "v")
    elsewhere = await answer(service, posted(seed=2))
    for reply, message in ((first, "r1"), (other, "r2"), (elsewhere, "r3")):
        await service.sent(reply.id, message)
    gone = await service.deleted("test", "c", "m1")
    assert {(placed.meme, placed.message) for placed in gone} == {(first.id, "r1"), (other.id, "r2")}
    assert {placed.source for placed in gone} == {"m1"}
    assert await service.deleted("test", "c", "m1") == gone  # until they are gone they are remembered
    for message in ("r1", "r2", "r3"):
        assert await service.deleted("test", "c", message) == []
    assert await service.deleted("test", "c", "m1") == []
    assert await service.latest("test", "c", "") == []


async def test_whole_sets_of_votes(service: Service, posted: Posted) -> None:
    reply = await answer(service, posted())
    await service.sent(reply.id, "r")
    here = ("test", "c", "r")
    await service.set_votes(*here, {("v", "👍"), ("v", "❤️"), ("w", "👍🏽"), ("w", "no emoji")})
    assert (await service.record(reply.id)).reactions == {"👍": 2, "❤": 1}
    await service.set_votes(*here, {("v", "🔥")}, user="v")
    assert (await service.record(reply.id)).reactions == {"👍": 1, "🔥": 1}
    await service.count_votes(*here, {"👍": 3, "💩": 2}, named=True)
    assert (await service.record(reply.id)).reactions == {"👍": 3, "🔥": 1, "💩": 2}
    await service.count_votes(*here, {"👍": 3}, named=False)
    assert (await service.record(reply.id)).reactions == {"👍": 4, "🔥": 1}
    await service.clear_votes(*here, "👍")
    assert (await service.record(reply.id)).reactions == {"🔥": 1}
    await service.clear_votes(*here)
    assert (await service.record(reply.id)).reactions == {}
    with pytest.raises(NotFound):
        await service.set_votes("test", "c", "unknown", set())


async def test_leaderboard_and_stats(service: Service, posted: Posted) -> None:
    replies = [await answer(service, posted(place=Place("test", "c", "s"))) for _ in range(3)]
    for reply, emoji in zip(replies, ("👍👍", "🔥", "💩"), strict=True):
        for number, one in enumerate(emoji):
            await service.react(ReactionChanged("test", f"v{number}", one, True, meme=reply.id))
    for place in (Place("test", "c", "s"), Place("test", "", "s")):
        board = await service.leaderboard(place)
        assert [(ranked.meme.id, ranked.up, ranked.down) for ranked in board] == [
            (replies[0].id, 2, 0),
            (replies[1].id, 1, 0),
        ]
    assert await service.leaderboard(Place("test", "d", "t")) == []
    stats = await service.stats()
    assert (stats.model, stats.memes, stats.up, stats.down, stats.approval) == ("tiny", 3, 3, 1, 0.75)


async def test_a_model_is_judged_by_the_words_that_it_chose(service: Service, posted: Posted) -> None:
    reply = await answer(service, posted())
    others = [
        await answer(service, posted(own_boxes=("mine",))),
        await answer(service, posted(style="describe")),
        await service.redo(reply.id, "v", candidate=1),
    ]
    await service.react(ReactionChanged("test", "v", "👎", True, meme=reply.id))
    for other in others:
        await service.react(ReactionChanged("test", "w", "👍", True, meme=other.id))
    stats = await service.stats()
    (version,) = (await service.figures()).versions
    assert (stats.memes, stats.up, stats.down) == (1, 0, 1)
    assert (version.id, version.memes, version.approval) == ("tiny", 1, 0)


async def test_export_and_forget(service: Service, store: Store, posted: Posted) -> None:
    reply = await answer(service, posted())
    other = await answer(service, posted(seed=2, user="v"))
    await service.react(ReactionChanged("test", "u", "👍", True, meme=other.id))
    await service.change_settings(Place("test", "c"), "u", {"chance": 0.5})
    await service.opt_out("test", "u", True)
    exported = json.loads(await service.export("test", "u"))
    assert [meme["id"] for meme in exported["memes"]] == [reply.id]
    assert [vote["emoji"] for vote in exported["reactions"]] == ["👍"]
    assert exported["opted_out"]
    gone = await service.forget("test", "u")
    assert (gone.memes, gone.reactions) == (1, 1)
    left = json.loads(await service.export("test", "u"))
    assert [left[key] for key in ("memes", "reactions", "settings", "opted_out")] == [[], [], [], True]
    assert (await service.record(other.id)).reactions == {}
    assert (await service.settings(Place("test", "c"))).chance == 0.5
    assert len(list(store.pictures.iterdir())) == 2


async def test_a_meme_is_made_to_fit(
    service: Service, posted: Posted, jpeg: Callable[..., bytes], fetching: Callable[[bytes], Fetch]
) -> None:
    reply = await answer(service, posted(fetch=fetching(jpeg(1, (1200, 900)))))
    smaller = await service.fit(reply, len(reply.data) // 3)
    assert len(smaller.data) <= len(reply.data) // 3
    assert (smaller.id, smaller.content_type) == (reply.id, "image/jpeg")
    assert (await service.reply(reply.id)).data == reply.data
    with pytest.raises(TooLarge):
        await service.fit(reply, 10)


async def test_buttons_know_what_is_kept(service: Service, store: Store, posted: Posted) -> None:
    reply = await answer(service, posted())
    assert (await service.check_kept(reply.id)).id == reply.id
    await store.prune(before=2e12)
    with pytest.raises(Gone):
        await service.check_kept(reply.id)
    with pytest.raises(NotFound):
        await service.check_kept("0" * 24)
