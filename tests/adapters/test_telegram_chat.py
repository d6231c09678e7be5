"""The real library over the loopback Bot API, with the real service, store and a tiny model behind it."""

import asyncio
import io
import json
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from PIL import Image

from adapters.telegram_chat import TelegramChat, Webhook
from adapters.telegram_chat.floods import Limits
from bot import config, requests
from bot.engine import Engine
from bot.events import Failed, MemeRecord, MemeReply, NotFound, Place, Request, Unusable
from bot.health import Health
from bot.service import Service
from bot.store import Store
from captioner import animation, images, video
from captioner.captioner import Captioner
from tests.fakes.telegram_api import TOKEN, Chat, Fault, Rules, TelegramApi

QUICK = Limits(chat=(1, 0.025), group=(900, 1.0), everywhere=(900, 1.0))


def jpeg(seed: int = 1, size: tuple[int, int] = (96, 64), form: str = "JPEG") -> bytes:
    noise = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).resize(size).save(out, form)
    return out.getvalue()


class Running:
    """The adapter at work, and what is behind it."""

    def __init__(self, api: TelegramApi, service: Service, store: Store, folder: Path) -> None:
        self.api, self.service, self.store, self.folder = api, service, store, folder
        self.chat: TelegramChat
        self.task: asyncio.Task[None]

    def start(self, token: str = TOKEN, webhook: Webhook | None = None, limits: Limits = QUICK) -> None:
        self.chat = TelegramChat(
            token, api_base=self.api.base, file_base=self.api.file_base, webhook=webhook, limits=limits
        )
        self.task = asyncio.create_task(self.chat.run(self.service))

    async def stop(self) -> None:
        self.task.cancel()
        with suppress(asyncio.CancelledError, Unusable):
            await self.task

    async def serving(self) -> None:
        """Updates are asked for, so that what people do now is told."""
        await self.api.until(lambda: self.chat.ready and self.api.allowed)

    async def states(self) -> dict[str, int]:
        return {k: v for k, v in (await self.store.counts("telegram")).items() if v}

    async def settled(self, **states: int) -> None:
        """Wait until the requests stand like this."""
        async with asyncio.timeout(30):
            while await self.states() != states:
                await asyncio.sleep(0.02)

    async def record(self, chat: Chat, message: dict[str, Any]) -> MemeRecord:
        """The meme that stands as this message, as soon as the bot has written that down."""
        async with asyncio.timeout(30):
            while True:
                with suppress(NotFound):
                    meme = await self.store.reply("telegram", str(chat.id), str(message["message_id"]))
                    return await self.store.record(meme)
                await asyncio.sleep(0.01)

    async def votes(self, message: dict[str, Any], chat: Chat) -> dict[str, int]:
        return (await self.record(chat, message)).reactions


@pytest.fixture(scope="module")
def captioner(tiny_model: Path) -> Captioner:
    return Captioner.load(tiny_model, device="cpu", threads=1)


@pytest.fixture
async def api() -> AsyncIterator[TelegramApi]:
    async with TelegramApi() as api:
        yield api


@asynccontextmanager
async def behind(api: TelegramApi, folder: Path, captioner: Captioner, *words: str) -> AsyncIterator[Running]:
    settings = config.load(None, [f"store.path={folder}/q.db", *words], {})
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(Store(settings.store.path))
        engine = await stack.enter_async_context(Engine(settings, lambda _: captioner))
        running = Running(api, Service(engine, store, Health(), settings.reply), store, folder)
        yield running
        await running.stop()


@pytest.fixture
async def bot(api: TelegramApi, tmp_path: Path, captioner: Captioner) -> AsyncIterator[Running]:
    async with behind(api, tmp_path, captioner) as running:
        running.start()
        await running.serving()
        yield running


Sending = Callable[[Chat], dict[str, Any]]


@pytest.mark.parametrize(
    "send",
    [
        lambda chat: chat.post_photo(jpeg()),
        lambda chat: chat.post_file(jpeg(), "a.jpg", "image/jpeg"),
        lambda chat: chat.post_file(jpeg(form="PNG"), "a.PNG", "application/octet-stream"),
        lambda chat: chat.post_sticker(jpeg(form="WEBP")),
    ],
)
async def test_any_picture_in_private_gets_a_meme(bot: Running, send: Sending) -> None:
    chat = bot.api.private()
    post = send(chat)
    await bot.api.until(lambda: chat.memes)
    (meme,) = chat.memes
    assert meme["answers"] == post["message_id"]
    assert Image.open(io.BytesIO(meme["file"])).format == "JPEG"
    await bot.settled(answered=1)
    assert {m for m, _ in bot.api.calls} >= {"setMyCommands", "getFile", "sendChatAction", "sendPhoto"}


async def test_an_album_gets_one_meme_of_its_first_picture(bot: Running) -> None:
    chat = bot.api.private()
    first = chat.post_photo(jpeg(1), media_group_id="g")
    chat.post_photo(jpeg(2), "/meme up | down", media_group_id="g")
    chat.post_photo(jpeg(3), media_group_id="g")
    await bot.api.until(lambda: chat.memes)
    await bot.settled(answered=1)
    (meme,) = chat.memes
    assert meme["answers"] == first["message_id"]
    record = await bot.record(chat, meme)
    assert record.boxes == ("up", "down")
    assert bot.api.called("getFile")[0]["file_id"] == first["photo"][1]["file_id"]
    chat.post_photo(jpeg(4), media_group_id="g")
    chat.post_photo(jpeg(5))
    await bot.api.until(lambda: len(chat.memes) == 2)
    await bot.settled(answered=2)


async def test_a_group_is_answered_when_it_asks(bot: Running) -> None:
    group = bot.api.group()
    group.post_photo(jpeg(1))
    group.post(8, "what a picture")
    picture = group.post_photo(jpeg(2), "look", user=8)
    asked = [
        group.post_photo(jpeg(3), "/meme@MemeBot"),
        group.post(7, "/meme", reply_to=picture),
        group.post(7, "hey @memebot what is this", reply_to=picture),
        group.post(7, "/meme own words", reply_to=picture),
    ]
    group.post_photo(jpeg(4), "/meme@OtherBot")
    await bot.api.until(lambda: len(group.memes) == 4)
    await bot.settled(answered=4)
    assert {meme["answers"] for meme in group.memes} == {message["message_id"] for message in asked}
    records = {m["answers"]: await bot.record(group, m) for m in group.memes}
    last = records[asked[-1]["message_id"]]
    assert (last.boxes, last.author, last.user, last.message) == (("own words",), "8", "7", str(picture["message_id"]))
    group.post(7, "/meme")
    await bot.api.until(lambda: group.said)
    assert group.said[0].startswith("Which picture?")


async def test_a_reply_to_a_picture_of_another_chat(bot: Running) -> None:
    chat = bot.api.private()
    photo = {"file_id": bot.api.file(jpeg()), "file_unique_id": "p", "width": 96, "height": 64}
    writer = {"id": 8, "is_bot": False, "first_name": "B"}
    origin = {"type": "user", "date": 1, "sender_user": writer}
    elsewhere = {"origin": origin, "message_id": 3, "photo": [photo], "has_media_spoiler": True}
    asked = chat.post(text="/meme", external_reply=elsewhere)
    await bot.api.until(lambda: chat.memes)
    record = await bot.record(chat, chat.memes[0])
    assert (record.author, record.message) == ("8", str(asked["message_id"]))
    assert chat.memes[0]["has_media_spoiler"]


async def test_passive_where_an_administrator_said_so(bot: Running) -> None:
    group = bot.api.group()
    group.members[5] = "administrator"
    group.post(6, "/settings passive on")
    group.post(5, "/settings passive on")
    await bot.api.until(lambda: len(group.said) == 2)
    refusal, settings = sorted(group.said, key=len)
    assert refusal == "Only administrators of this chat can change settings."
    assert "passive: on" in settings
    group.post_photo(jpeg(1), user=9)
    await bot.api.until(lambda: group.memes)
    group.post(5, "/settings chance 0")
    await bot.api.until(lambda: len(group.said) == 3)
    group.post_photo(jpeg(2), user=9)
    await bot.settled(answered=3, refused=1, silent=1)
    assert len(group.memes) == 1
    group.post(5, "/settings chance 7")
    group.post(5, "/settings speed 1")
    await bot.api.until(lambda: len(group.said) == 5)
    assert any("from 0 to 1" in text for text in group.said)
    assert any("There is no setting speed" in text for text in group.said)


async def test_buttons_work_after_a_restart(bot: Running) -> None:
    chat = bot.api.private()
    post = chat.post_photo(jpeg())
    await bot.api.until(lambda: chat.memes)
    await bot.settled(answered=1)
    (first,) = chat.memes
    await bot.stop()
    bot.start()
    await bot.serving()
    query = chat.press(first, "Another one")
    await bot.api.until(lambda: len(chat.memes) == 2)
    assert query in bot.api.answers
    assert chat.memes[1]["answers"] == post["message_id"]
    chat.press(first, "Pick of three")
    await bot.api.until(lambda: "Back" in json.dumps(first["reply_markup"]))
    choices = [row[0]["text"] for row in first["reply_markup"]["inline_keyboard"]]
    assert len(choices) == 4
    chat.press(first, choices[1])
    await bot.api.until(lambda: len(chat.memes) == 3)
    picked, old = await bot.record(chat, chat.memes[2]), await bot.record(chat, first)
    assert picked.boxes == old.candidates[1].boxes
    await bot.api.until(lambda: "Back" not in json.dumps(first["reply_markup"]))


async def test_own_words_are_asked_for_and_survive_a_restart(bot: Running) -> None:
    group = bot.api.group()
    group.post_photo(jpeg(), "/meme")
    await bot.api.until(lambda: group.memes)
    group.press(group.memes[0], "My words", user=8)
    await bot.api.until(lambda: group.said)
    question = list(group.messages.values())[-1]
    assert json.loads(json.dumps(question["reply_markup"]))["force_reply"]
    await bot.settled(answered=1, waiting=1)
    await bot.stop()
    bot.start()
    await bot.serving()
    group.post(8, "hello @someone | bottom", reply_to=question)
    await bot.api.until(lambda: len(group.memes) == 2)
    assert (await bot.record(group, group.memes[1])).boxes == ("hello @someone", "bottom")
    await bot.settled(answered=3)
    group.post(8, "/meme more words", reply_to=group.memes[1])
    await bot.api.until(lambda: len(group.memes) == 3)
    assert (await bot.record(group, group.memes[2])).boxes == ("more words",)


async def test_why_shows_where_the_model_looked_and_pings_nobody(bot: Running) -> None:
    chat = bot.api.private()
    chat.post_photo(jpeg(), "/meme hello @everybody", has_media_spoiler=True)
    await bot.api.until(lambda: chat.memes)
    assert chat.memes[0]["has_media_spoiler"]
    chat.press(chat.memes[0], "Why")
    await bot.api.until(lambda: len(bot.api.called("sendPhoto")) == 2)
    why = bot.api.called("sendPhoto")[1]
    assert why["photo"].startswith(b"\x89PNG")
    assert why["has_spoiler"]
    assert "hello" in why["caption"]
    assert "@everybody" not in why["caption"]


async def test_delete_is_for_those_it_concerns(bot: Running) -> None:
    group = bot.api.group()
    group.members[5] = "administrator"
    picture = group.post_photo(jpeg(), user=8)
    for _ in range(3):
        group.post(7, "/meme", reply_to=picture)
    await bot.api.until(lambda: len(group.memes) == 3)
    group.press(group.memes[0], "Delete", user=6)
    await bot.api.until(lambda: group.said)
    assert "a moderator can delete this meme" in group.said[0]
    for user in (5, 7, 8):
        before = len(group.memes)
        group.press(group.memes[0], "Delete", user=user)
        await bot.api.until(lambda before=before: len(group.memes) < before)
    await bot.settled(answered=6, refused=1)
    assert await bot.store.latest("telegram", str(group.id), "", 9) == []


async def test_reactions_count_once_however_often_they_are_told(bot: Running) -> None:
    group = bot.api.group(bot="administrator")
    group.post_photo(jpeg(), "/meme")
    await bot.api.until(lambda: group.memes)
    (meme,) = group.memes
    assert "vote:" not in json.dumps(meme["reply_markup"])
    await bot.settled(answered=1)
    group.react(meme, 7, "👍")
    group.react(meme, 8, "❤️", "👍")
    group.react(meme, 8, "👍")
    group.react(meme, 9, "5368324170671202286", "🔥")
    await told(bot)
    assert await bot.votes(meme, group) == {"👍": 2, "<:custom:5368324170671202286>": 1, "🔥": 1}
    group.react(meme, 7)
    group.count(meme, **{"👍": 4})
    await told(bot)
    assert (await bot.votes(meme, group))["👍"] == 4
    group.count(meme, **{"👍": 1})
    await told(bot)
    assert (await bot.votes(meme, group))["👍"] == 1


async def told(bot: Running) -> None:
    """Everything that happened so far was told and confirmed."""
    last = bot.api.updates[-1]["update_id"] if bot.api.updates else 0
    await bot.api.until(lambda: bot.api.confirmed > last)


async def test_a_reaction_that_overtakes_the_answer_to_its_meme(bot: Running) -> None:
    group = bot.api.group(bot="administrator")
    answered = bot.api._sendPhoto

    async def slowly(given: dict[str, Any]) -> dict[str, Any]:
        sent = await answered(given)
        group.react(group.messages[sent["message_id"]], 8, "🔥")
        await asyncio.sleep(0.3)
        return sent

    bot.api._sendPhoto = slowly  # type: ignore[method-assign]
    group.post_photo(jpeg(), "/meme")
    await bot.api.until(lambda: group.memes)
    await told(bot)
    assert await bot.votes(group.memes[0], group) == {"🔥": 1}


async def test_a_channel_counts_without_names(bot: Running) -> None:
    channel = bot.api.group(-2002, bot="administrator", kind="channel")
    channel.post_photo(jpeg(), "/meme")
    await bot.api.until(lambda: channel.memes)
    await bot.settled(answered=1)
    for total in (3, 3, 2):
        channel.count(channel.memes[0], **{"👍": total})
        await told(bot)
        assert await bot.votes(channel.memes[0], channel) == {"👍": total}


async def test_votes_by_button_where_reactions_do_not_arrive(bot: Running) -> None:
    group = bot.api.group()
    group.post_photo(jpeg(), "/meme")
    await bot.api.until(lambda: group.memes)
    (meme,) = group.memes
    for user, label in ((7, "👍"), (8, "👍"), (8, "👎"), (7, "👍")):
        query = group.press(meme, label, user=user)
        await bot.api.until(lambda query=query: query in bot.api.answers)
    assert await bot.votes(meme, group) == {"👍": 1, "👎": 1}
    await bot.api.until(lambda: [b["text"] for b in meme["reply_markup"]["inline_keyboard"][0]] == ["👍 1", "👎 1"])


async def test_a_vote_by_button_and_by_reaction_is_one(bot: Running) -> None:
    """The bot is made an administrator after the vote by button."""
    group = bot.api.group()
    group.post_photo(jpeg(), "/meme")
    await bot.api.until(lambda: group.memes)
    (meme,) = group.memes
    query = group.press(meme, "👍")
    await bot.api.until(lambda: query in bot.api.answers)
    group.bot_status = "administrator"
    for emoji, count in ((("👍",), {"👍": 1}), ((), {})):
        group.react(meme, 7, *emoji)
        await told(bot)
        assert await bot.votes(meme, group) == count


async def test_a_redelivered_press_does_not_take_the_vote_back(bot: Running) -> None:
    group = bot.api.group()
    group.post_photo(jpeg(), "/meme")
    await bot.api.until(lambda: group.memes)
    query = group.press(group.memes[0], "👍")
    again = bot.api.updates[-1] if bot.api.updates else None
    assert again
    await bot.api.until(lambda: query in bot.api.answers)
    bot.api.tell("callback_query", again["callback_query"])
    await told(bot)
    assert await bot.votes(group.memes[0], group) == {"👍": 1}


async def test_topics_and_replies_stay_where_they_are(bot: Running) -> None:
    group = bot.api.group()
    group.topics.add(42)
    group.post_photo(jpeg(), "/meme", message_thread_id=42)
    await bot.api.until(lambda: group.memes)
    (meme,) = group.memes
    assert meme["message_thread_id"] == 42
    group.press(meme, "Another one")
    await bot.api.until(lambda: len(group.memes) == 2)
    assert group.memes[1]["message_thread_id"] == 42
    group.topics.clear()
    group.post_photo(jpeg(2), "/meme", message_thread_id=42)
    await bot.api.until(lambda: len(group.memes) == 3)
    assert "message_thread_id" not in group.memes[2]


async def test_floods_server_errors_and_slow_downloads(bot: Running) -> None:
    chats = [bot.api.group(-number) for number in range(1, 5)]
    for fault in (Fault(429, retry_after=1), Fault(500), Fault(502, times=2)):
        bot.api.fail("sendPhoto", fault)
    bot.api.fail("getFile", Fault(500))
    bot.api.fail("download", Fault(503))
    bot.api.fail("getUpdates", Fault(502))
    bot.api.seconds_a_chunk = 0.02
    for number, chat in enumerate(chats * 3):
        chat.post_photo(jpeg(number), "/meme")
    await bot.settled(answered=12)
    assert sum(len(chat.memes) for chat in chats) == 12


async def test_everything_is_answered_within_strict_limits(
    api: TelegramApi, tmp_path: Path, captioner: Captioner
) -> None:
    api.rules = Rules(chat=(1, 0.1), group=(5, 1.0), everywhere=(10, 0.3))
    async with behind(api, tmp_path, captioner) as bot:
        bot.start(limits=Limits(chat=(1, 0.15), group=(5, 1.2), everywhere=(9, 0.4)))
        await bot.serving()
        groups = [api.group(-number) for number in range(1, 4)]
        for number in range(18):
            groups[number % 3].post_photo(jpeg(number), "/meme")
        await bot.settled(answered=18)
    assert [len(group.memes) for group in groups] == [6, 6, 6]


async def test_too_large_for_telegram(bot: Running) -> None:
    chat = bot.api.private()
    bot.api.rules.max_photo = 40_000
    noise = np.random.default_rng(3).integers(0, 255, (600, 800, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).save(out, "JPEG", quality=95)
    chat.post_photo(out.getvalue())
    await bot.api.until(lambda: chat.memes)
    assert len(chat.memes[0]["file"]) <= 40_000
    assert len(bot.api.called("sendPhoto")) > 1


async def test_a_picture_that_is_no_photo_comes_as_a_file(bot: Running) -> None:
    chat = bot.api.private()
    chat.post_file(jpeg(size=(1500, 40)), "a.jpg", "image/jpeg")
    await bot.api.until(lambda: chat.memes)
    assert chat.memes[0]["kind"] == "document"


@pytest.mark.parametrize(
    ("data", "name", "words"),
    [
        (b"no picture", "a.jpg", "not a picture"),
        (bytes(20_000_001), "a.jpg", "larger than"),
    ],
)
async def test_bad_pictures_get_a_sentence(bot: Running, data: bytes, name: str, words: str) -> None:
    chat = bot.api.private()
    chat.post_file(data, name, "image/jpeg")
    await bot.api.until(lambda: chat.said)
    assert words in chat.said[0]
    await bot.settled(refused=1)


async def test_a_file_that_is_gone(bot: Running) -> None:
    chat = bot.api.private()
    bot.api.fail("getFile", Fault(400, description="Bad Request: wrong file_id or the file is temporarily unavailable"))
    chat.post_photo(jpeg())
    await bot.api.until(lambda: chat.said)
    assert chat.said == ["Telegram does not have this picture any more."]


def animation_of(api: TelegramApi, data: bytes) -> dict[str, Any]:
    """A short video as Telegram makes one of a GIF, told as an animation and as a document."""
    file, still = api.file(data), api.file(jpeg())
    thumbnail = {"file_id": still, "file_unique_id": "t", "width": 96, "height": 64}
    whole = {"file_id": file, "file_unique_id": "a", "width": 96, "height": 64, "duration": 1, "file_size": len(data)}
    document = {"file_id": file, "file_unique_id": "a", "mime_type": "video/mp4"}
    return {"animation": whole | {"thumbnail": thumbnail}, "document": document}


async def test_a_short_animation_comes_back_as_one(bot: Running) -> None:
    chat = bot.api.private()
    frames = [Image.new("RGB", (160, 120), colour) for colour in ("red", "green", "blue", "black")]
    chat.post(**animation_of(bot.api, video.encode(frames, [60, 120, 60, 60])))
    await bot.api.until(lambda: chat.memes)
    (meme,) = chat.memes
    assert meme["kind"] == "animation"
    after = animation.read(meme["file"], images.read(meme["file"]))
    assert after
    assert after.durations[:3] == (60, 120, 60)
    await bot.settled(answered=1)
    chat.press(meme, "Another one")
    await bot.api.until(lambda: len(chat.memes) == 2)
    assert chat.memes[1]["kind"] == "animation"


@pytest.mark.parametrize(("form", "format_after"), [("GIF", "GIF"), ("WEBP", "MP4")])
async def test_an_animated_file_comes_back_as_an_animation(bot: Running, form: str, format_after: str) -> None:
    """Telegram takes no WebP as one."""
    first, *rest = [Image.new("RGB", (160, 120), colour) for colour in ("red", "green", "blue")]
    out = io.BytesIO()
    first.save(out, form, save_all=True, append_images=rest, duration=70)
    chat = bot.api.private()
    chat.post_file(out.getvalue(), f"a.{form.lower()}", f"image/{form.lower()}")
    await bot.api.until(lambda: chat.memes)
    (meme,) = chat.memes
    assert meme["kind"] == "animation"
    after = images.read(meme["file"])
    assert (after.format, after.frames) == (format_after, 3)


async def test_too_large_an_animation_is_taken_by_its_thumbnail(bot: Running) -> None:
    chat = bot.api.private()
    chat.post(**animation_of(bot.api, bytes(20_000_001)))
    await bot.api.until(lambda: chat.memes)
    assert chat.memes[0]["photo"]


async def test_a_damaged_animation_is_a_sentence(bot: Running) -> None:
    chat = bot.api.private()
    chat.post(**animation_of(bot.api, b"\0\0\0\x20ftypisom" + bytes(200)))
    await bot.api.until(lambda: chat.said)
    assert "damaged" in chat.said[0]


async def test_who_waits_sees_it_again_and_again(bot: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapters.telegram_chat.activity.ACTION_SECONDS", 0.2)
    chats = [bot.api.private(user) for user in (7, 8, 9)]
    bot.api.seconds_a_chunk = 0.15
    for chat in chats:
        chat.post_photo(jpeg())
    await bot.settled(answered=3)
    told = [given["chat_id"] for given in bot.api.called("sendChatAction")]
    assert all(told.count(str(chat.id)) > 2 for chat in chats)
    await bot.api.until(lambda: not [task for task in asyncio.all_tasks() if "Activity" in repr(task)])


async def test_a_hundred_at_once_share_a_commit(bot: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    commits = 0
    accept = requests.accept

    def counted(*given: Any) -> list[bool]:
        nonlocal commits
        commits += 1
        return accept(*given)

    monkeypatch.setattr(requests, "accept", counted)
    for number in range(100):
        bot.api.private(1000 + number).post(text="/help")
    await bot.settled(answered=100)
    assert commits < 50


async def test_a_server_that_answers_at_once_is_not_asked_without_pause(bot: Running) -> None:
    async def at_once(given: dict[str, Any]) -> list[dict[str, Any]]:
        return [update for update in bot.api.updates if update["update_id"] >= int(given.get("offset") or 0)]

    bot.api._getUpdates = at_once  # type: ignore[method-assign]
    before = len(bot.api.called("getUpdates"))
    await asyncio.sleep(1.0)
    assert len(bot.api.called("getUpdates")) - before <= 6


async def test_votes_and_their_taking_back_stay_in_their_order(bot: Running) -> None:
    group = bot.api.group(bot="administrator")
    for number in range(3):
        group.post_photo(jpeg(number), "/meme")
    await bot.settled(answered=3)
    for _ in range(10):
        for meme in group.memes:
            group.react(meme, 7, "🔥")
            group.react(meme, 7)
    for meme in group.memes:
        group.react(meme, 8, "👍")
    await told(bot)
    assert [await bot.votes(meme, group) for meme in group.memes] == [{"👍": 1}] * 3


async def test_commands(bot: Running) -> None:
    chat, group = bot.api.private(), bot.api.group()
    chat.post_photo(jpeg())
    await bot.api.until(lambda: chat.memes)
    for text in (
        "/start",
        "/help@memebot",
        "/privacy",
        "/model",
        "/leaderboard",
        "/settings",
        "/optout",
        "/optin",
        "hi",
    ):
        before = len(chat.said)
        chat.post(text=text)
        await bot.api.until(lambda before=before: len(chat.said) > before)
    assert [text.split()[0] for text in chat.said] == [
        *("Post", "Post", "The", "The", "No", "passive:", "Nobody", "Others", "Which")
    ]
    group.post(7, "/export")
    await bot.api.until(lambda: group.said)
    (file,) = [m for m in chat.messages.values() if m.get("kind") == "document"]
    assert "boxes" in json.dumps(json.loads(file["file"]))
    chat.post(text="/forget")
    await bot.api.until(lambda: "Forgotten" in chat.said[-1])
    assert await bot.store.latest("telegram", "7", "", 9) == []
    group.post(55, "/export")
    await bot.api.until(lambda: len(group.said) == 2)
    assert group.said[1] == "I cannot write to you: start a private chat with me first."


async def test_the_leaderboard_leads_to_the_memes(bot: Running) -> None:
    group = bot.api.group(-100_4321, bot="administrator")
    for _ in range(2):
        group.post_photo(jpeg(), f"/meme {'long ' * 40}")
    await bot.settled(answered=2)
    for user, meme in enumerate(group.memes, start=1):
        group.react(meme, user, "👍")
    await told(bot)
    group.post(7, "/leaderboard")
    await bot.api.until(lambda: group.said)
    lines = group.said[0].split("\n")
    assert {line.split()[-1] for line in lines} == {f"https://t.me/c/4321/{meme['message_id']}" for meme in group.memes}
    assert all("(👍 1, 👎 0, " in line and line.count("long") == 20 for line in lines)


async def test_pictures_of_who_opted_out(bot: Running) -> None:
    group = bot.api.group()
    group.post(8, "/optout")
    await bot.api.until(lambda: group.said)
    picture = group.post_photo(jpeg(), user=8)
    group.post(7, "/meme", reply_to=picture)
    await bot.api.until(lambda: len(group.said) == 2)
    assert "does not want memes" in group.said[1]


async def test_a_forwarded_picture_is_whose_it_was(bot: Running) -> None:
    theirs, mine = bot.api.private(8), bot.api.private(7)
    theirs.post(8, "/optout")
    await bot.api.until(lambda: theirs.said)
    for number, known in enumerate(({"id": 8}, {"id": 7})):
        writer = {"is_bot": False, "first_name": "x"} | known
        mine.post_photo(jpeg(number), forward_origin={"type": "user", "sender_user": writer, "date": 1})
    await bot.settled(answered=2, refused=1)
    assert len(mine.memes) == 1
    assert "does not want memes" in mine.said[0]


async def test_old_pictures_that_were_merely_posted_are_let_be(bot: Running) -> None:
    """Telegram tells for a day what it could not tell while the bot was off."""
    group = bot.api.group(bot="administrator")
    group.members[7] = "administrator"
    group.post(7, "/settings passive on")
    await bot.api.until(lambda: group.said)
    await bot.stop()
    group.post_photo(jpeg(1))
    group.post_photo(jpeg(2), "/meme")
    for update in bot.api.updates:
        update["message"]["date"] -= 3600
    group.post_photo(jpeg(3))
    group.post_photo(jpeg(4))
    bot.api.updates[-1]["message"]["date"] = 1  # a server whose clock says nothing
    bot.start()
    await bot.settled(answered=4)
    assert len(group.memes) == 3


async def test_no_right_to_send_pictures(bot: Running) -> None:
    group = bot.api.group()
    words = "Bad Request: not enough rights to send photos to the chat"
    bot.api.fail("sendPhoto", Fault(400, description=words))
    group.post_photo(jpeg(), "/meme")
    await bot.settled(refused=1)
    assert group.said == ["I may not send pictures here. An administrator of this chat can allow it."]


async def test_what_is_no_picture_gets_a_sentence_where_it_was_meant(bot: Running) -> None:
    private, group = bot.api.private(7), bot.api.group()
    video = {"file_id": "x", "file_unique_id": "y", "width": 1, "height": 1, "duration": 1}
    private.post(7, video=video)
    private.post_sticker(b"x", is_animated=True)
    group.post(7, "/meme", video=video)
    group.post(7, "look at this", video=video)
    for _ in range(3):
        private.post(7, video=video, media_group_id="album")
    await bot.settled(answered=3)
    assert len(private.said) == 2
    assert [text.partition(":")[0] for text in group.said] == ["I cannot write on that"]


@pytest.mark.parametrize("tell", [True, False])
async def test_a_group_that_becomes_a_supergroup_keeps_what_it_was(
    bot: Running, tell: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = bot.api.group(-5, bot="administrator")
    group.members[7] = "administrator"
    for words in ("/settings passive on", "/settings filter strict"):
        group.post(7, words)
    await bot.api.until(lambda: len(group.said) == 2)
    group.post_photo(jpeg(1))
    await bot.api.until(lambda: group.memes)
    first = await bot.record(group, group.memes[0])
    supergroup = group.upgrade(-1005, tell=tell)
    asked: list[str] = []
    redo = bot.service.redo

    async def noted(meme: str, user: str, *, place: Place, **more: Any) -> MemeReply:
        asked.append((await bot.service.settings(place)).filter)
        return await redo(meme, user, place=place, **more)

    monkeypatch.setattr(bot.service, "redo", noted)
    group.press(group.memes[0], "Another one")
    await bot.api.until(lambda: supergroup.memes)
    assert asked == ["strict"]
    supergroup.react(supergroup.memes[0], 9, "👍")
    async with asyncio.timeout(30):
        while await bot.votes(supergroup.memes[0], supergroup) != {"👍": 1}:
            await asyncio.sleep(0.02)
    settings = await bot.service.settings(Place("telegram", "-1005"))
    assert (settings.passive, settings.filter) == (True, "strict")
    assert await bot.service.settings(Place("telegram", "-5")) != settings
    assert (await bot.store.record(first.id)).chat == "-1005"
    supergroup.post_photo(jpeg(2))
    await bot.api.until(lambda: len(supergroup.memes) == 2)


async def test_an_album_that_could_not_be_kept_is_told_again(bot: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    accept, broken = bot.service.accept, [Failed("The disk is full.")]

    async def stumbling(request: Request) -> bool:
        if broken:
            raise broken.pop()
        return await accept(request)

    monkeypatch.setattr(bot.service, "accept", stumbling)
    private = bot.api.private(7)
    for number in range(2):
        private.post_photo(jpeg(number), media_group_id="a")
    await bot.settled(answered=1)
    assert len(private.memes) == 1


async def test_what_is_remembered_goes_to_a_person_only(bot: Running) -> None:
    group = bot.api.group()
    group.post(7, "/export", sender_chat=group.as_json())
    await bot.api.until(lambda: group.said)
    assert group.said == ["Ask me as yourself, not in the name of a chat."]
    assert not bot.api.called("sendDocument")


async def test_a_chat_that_threw_the_bot_out(bot: Running) -> None:
    group = bot.api.group()
    group.bot_status = "kicked"
    group.post_photo(jpeg(), "/meme")
    await bot.settled(refused=1)


async def test_what_was_accepted_is_answered_after_a_stop(bot: Running) -> None:
    """Nothing is sent while Telegram is down; everything is after the start, and nothing twice."""
    chats = [bot.api.group(-number) for number in range(1, 7)]
    bot.api.fail("sendPhoto", Fault(500, times=1000))
    for number, chat in enumerate(chats):
        chat.post_photo(jpeg(number), "/meme")
    await bot.api.until(lambda: len({given["chat_id"] for given in bot.api.called("sendPhoto")}) == 6)
    await bot.stop()
    bot.api.faults.clear()
    bot.start()
    await bot.settled(answered=6, resent=6)
    assert [len(chat.memes) for chat in chats] == [1] * 6


async def test_votes_on_both_copies_of_a_meme_that_a_crash_doubled(bot: Running) -> None:
    """Telegram took the meme, but the bot did not hear of it."""
    group = bot.api.group(bot="administrator")
    picture = group.post_photo(jpeg(9), user=4)
    bot.api.fail("sendPhoto", Fault(500, after=True))
    group.post_photo(jpeg(), "/meme")
    await bot.api.until(lambda: group.memes)
    await bot.stop()
    bot.start()
    await bot.settled(answered=1, resent=1)
    group.react(group.memes[0], 7, "🔥")
    group.react(group.memes[1], 7, "🔥")
    group.react(group.memes[0], 8, "👍")
    group.react(picture, 8, "👎")
    async with asyncio.timeout(30):
        while await bot.votes(group.memes[1], group) != {"🔥": 1, "👍": 1}:
            await asyncio.sleep(0.02)
    probes = len(bot.api.called("editMessageReplyMarkup"))
    for number in range(5):  # later messages are no copies, and no turn is spent on them
        group.react(group.post(8, f"hello {number}"), 9, "👍")
    await told(bot)
    group.react(group.memes[0], 9, "👍")
    async with asyncio.timeout(30):
        while (await bot.votes(group.memes[1], group)).get("👍") != 2:
            await asyncio.sleep(0.02)
    assert len(bot.api.called("editMessageReplyMarkup")) == probes


async def test_a_deletion_survives_a_stop(bot: Running) -> None:
    group = bot.api.group()
    group.post_photo(jpeg(), "/meme", user=8)
    await bot.api.until(lambda: group.memes)
    await bot.settled(answered=1)
    bot.api.fail("deleteMessage", Fault(502, times=10_000))
    group.press(group.memes[0], "Delete", user=8)
    await bot.api.until(lambda: bot.api.called("deleteMessage"))
    await bot.stop()
    bot.api.faults.clear()
    bot.start()
    await bot.api.until(lambda: not group.memes)
    await bot.settled(answered=2)
    assert group.said == []
    assert await bot.store.latest("telegram", str(group.id), "", 9) == []


async def test_subscribers_of_a_channel_have_nothing_posted(bot: Running) -> None:
    channel = bot.api.group(-2002, bot="administrator", kind="channel")
    channel.members[7] = "administrator"
    channel.post_photo(jpeg(), "/meme")
    await bot.api.until(lambda: channel.memes)
    await bot.settled(answered=1)
    for label in ("Another one", "My words", "Why", "Delete"):
        query = channel.press(channel.memes[0], label, user=555)
        await bot.api.until(lambda query=query: query in bot.api.answers)
        assert "administrators" in bot.api.answers[query]["text"]
    channel.press(channel.memes[0], "Another one", user=7)
    await bot.api.until(lambda: len(channel.memes) == 2)
    assert channel.said == []
    await bot.settled(answered=2)


async def test_a_button_works_in_its_own_chat_only(bot: Running) -> None:
    """What a press says can be made up by who sends it."""
    group, private = bot.api.group(), bot.api.private(66)
    group.post_photo(jpeg(), "/meme", user=8)
    await bot.api.until(lambda: group.memes)
    record = await bot.record(group, group.memes[0])
    private.post(66, "/help")
    await bot.api.until(lambda: private.said)
    for data in (f"delete:{record.id}", f"redo:{record.id}", f"vote:{record.id}:👎"):
        query = private.forge(data, user=66)
        await bot.api.until(lambda query=query: query in bot.api.answers)
    await bot.settled(answered=2)
    assert (await bot.store.record(record.id)).reactions == {}
    assert private.memes == []


async def test_a_discussion_group_does_not_answer_what_its_channel_shows(bot: Running) -> None:
    channel = bot.api.group(-2002, bot="administrator", kind="channel")
    group = bot.api.group(-3003, bot="administrator")
    group.members[5] = "administrator"
    group.post(5, "/settings passive on")
    await bot.api.until(lambda: group.said)
    posted = channel.post_photo(jpeg(), "/meme")
    await bot.api.until(lambda: channel.memes)
    await bot.record(channel, channel.memes[0])

    def forwarded(message: dict[str, Any], picture: bytes) -> None:
        """As Telegram does by itself with what is posted in a channel."""
        where = {"type": "channel", "date": 1, "chat": channel.as_json(), "message_id": message["message_id"]}
        group.post_photo(
            picture, user=777000, sender_chat=channel.as_json(), is_automatic_forward=True, forward_origin=where
        )

    forwarded(channel.memes[0], channel.memes[0]["file"])
    forwarded(posted, jpeg(2))  # nobody answers pictures in the channel: here somebody does
    await bot.api.until(lambda: group.memes)
    await bot.settled(answered=3)
    assert len(group.memes) == 1


async def test_a_meme_is_no_picture_of_its_own(bot: Running) -> None:
    group = bot.api.group()
    posted = group.post_photo(jpeg(), user=8)
    group.post(7, "/meme", reply_to=posted)
    await bot.api.until(lambda: group.memes)
    await bot.settled(answered=1)
    for words in ("/optout", "/forget"):
        group.post(8, words)
    await bot.api.until(lambda: len(group.said) == 2)
    group.post(7, "/meme", reply_to=group.memes[0])
    await bot.api.until(lambda: len(group.said) == 3)
    me = {"is_bot": True, "first_name": "Meme", "id": group.memes[0]["from"]["id"]}
    private = bot.api.private(7)
    private.post_photo(group.memes[0]["file"], forward_origin={"type": "user", "sender_user": me, "date": 1})
    await bot.api.until(lambda: private.said)
    for told in (group.said[-1], private.said[0]):
        assert "one of my memes" in told
    assert (len(group.memes), len(private.memes)) == (1, 0)


async def test_what_cannot_be_covered_is_not_sent_uncovered(bot: Running) -> None:
    chat = bot.api.private()
    chat.post_photo(jpeg(size=(60, 1500)), "hi", has_media_spoiler=True)
    await bot.api.until(lambda: chat.said)
    assert "covered" in chat.said[0]
    assert chat.memes == []


async def test_what_is_resumed_is_not_too_soon_after_itself(bot: Running) -> None:
    group = bot.api.group()
    group.members[5] = "administrator"
    group.post(5, "/settings cooldown_user 600")
    await bot.api.until(lambda: group.said)
    bot.api.seconds_a_chunk = 0.3
    group.post_photo(jpeg(), "/meme", user=8)
    await bot.api.until(lambda: bot.api.called("getFile"))
    await asyncio.sleep(0.3)  # the picture is being fetched
    await bot.stop()
    bot.api.seconds_a_chunk = 0.0
    bot.start()
    await bot.api.until(lambda: group.memes)


async def test_updates_told_again_are_not_answered_again(bot: Running) -> None:
    chat = bot.api.private()
    chat.post_photo(jpeg())
    chat.post(text="/help")
    updates = list(bot.api.updates)
    await bot.api.until(lambda: chat.memes and chat.said)
    for update in updates:
        bot.api.tell("message", update["message"])
    await told(bot)
    await bot.settled(answered=2)
    assert (len(chat.memes), len(chat.said)) == (1, 1)


async def test_a_post_is_a_row_before_it_is_confirmed(bot: Running) -> None:
    rows: list[int] = []

    def look() -> None:
        with closing(sqlite3.connect(bot.store.path)) as connection:
            rows.append(connection.execute("SELECT count(*) FROM requests").fetchone()[0])

    bot.api.before_confirming = look
    chat = bot.api.private()
    for number in range(5):
        chat.post_photo(jpeg(number))
    await told(bot)
    assert rows
    assert rows[-1] == 5
    await bot.settled(answered=5)


@pytest.mark.filterwarnings("ignore::telegram.warnings.PTBUserWarning")
async def test_an_update_that_cannot_be_read_holds_up_nothing(bot: Running) -> None:
    chat = bot.api.private()
    bot.api.tell("message", {"message_id": "what is this"})
    chat.post_photo(jpeg())
    await bot.api.until(lambda: chat.memes)
    await bot.settled(answered=1)


async def test_webhook(api: TelegramApi, tmp_path: Path, captioner: Captioner, unused_tcp_port: int) -> None:
    async with behind(api, tmp_path, captioner) as bot:
        url = f"http://127.0.0.1:{unused_tcp_port}/hook"
        bot.start(webhook=Webhook(url, "127.0.0.1", unused_tcp_port))
        await bot.serving()
        chat = api.private()
        chat.post_photo(jpeg())
        await api.until(lambda: chat.memes)
        assert not api.called("getUpdates")
        update = {"update_id": 1, "message": chat.messages[min(chat.messages)] | {"message_id": 5}}
        async with aiohttp.ClientSession() as session:
            for headers in ({}, {"X-Telegram-Bot-Api-Secret-Token": "guess"}):
                async with session.post(url, json=update, headers=headers) as response:
                    assert response.status == 403
            right = {"X-Telegram-Bot-Api-Secret-Token": api.webhook["secret_token"]}
            async with session.post(url, data=b"{", headers=right) as response:
                assert response.status == 400
        assert TOKEN not in api.webhook["secret_token"]
        await bot.settled(answered=1)


async def test_a_wrong_token(api: TelegramApi, tmp_path: Path, captioner: Captioner) -> None:
    async with behind(api, tmp_path, captioner) as bot:
        bot.start(token="1:wrong")
        with pytest.raises(Unusable, match="TELEGRAM_TOKEN"):
            await bot.task
        assert not bot.chat.ready


async def test_the_doctor(api: TelegramApi, tmp_path: Path) -> None:
    def chat(token: str = TOKEN, base: str = api.base) -> TelegramChat:
        return TelegramChat(token, api_base=base, file_base=api.file_base, webhook=None)

    api.group(-1, bot="administrator")
    findings = {f.name: f for f in await chat().examine(["-1", "7"])}
    assert all(finding.well for finding in findings.values())
    assert "https://t.me/MemeBot?startgroup" in findings["telegram invitation"].words
    api.privacy = True
    api.group(-2)
    findings = {f.name: f for f in await chat().examine(["-1", "-2", "-3"])}
    assert not findings["telegram privacy"].well
    assert "/setprivacy" in findings["telegram privacy"].words
    assert "group 2" in findings["telegram reactions"].words
    assert "group 1" not in findings["telegram reactions"].words
    (finding,) = await chat("1:wrong").examine([])
    assert not finding.well
    assert "wrong" not in finding.words
    (finding,) = await chat(base="http://127.0.0.1:1/bot").examine([])
    assert "cannot be reached" in finding.words
