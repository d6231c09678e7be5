"""People and the bot on a Discord of its own: memes by command, menu, mention, button, and unasked."""

import asyncio
import io
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from PIL import Image

from adapters.discord_chat import progress
from adapters.discord_chat.pictures import Pictures, servers, words_of
from bot.config import Reply
from bot.events import BadPicture, MemeRecord, NotFound, Place
from captioner import images, video
from captioner.captioner import Captioner
from tests.fakes.discord_bot import Bot, bot_on, picture
from tests.fakes.discord_server import Discord
from tests.fakes.discord_world import ALL_PERMISSIONS, EPHEMERAL, LOADING, Channel, Message

PASSIVE = Reply(passive=True, explore=0.0)


@pytest.fixture
async def bot(discord: Discord, channel: Channel, tmp_path: Path, captioner: Captioner) -> AsyncIterator[Bot]:
    async with bot_on(discord, tmp_path, captioner) as bot:
        yield bot


def is_meme(message: Message, *, spoiler: bool = False) -> bool:
    """A picture with a description and the five buttons."""
    (attachment,) = message.attachments
    assert attachment["description"]
    assert attachment["filename"] == ("SPOILER_" if spoiler else "") + "meme.jpg"
    assert set(message.buttons()) == {"Another one", "Pick", "Edit", "Why?", "Delete"}
    return Image.open(io.BytesIO(message.files[0])).format == "JPEG"


async def known(bot: Bot, message: Message) -> MemeRecord:
    """The meme that stands as a message; the bot writes that down when it has read the answer to its sending."""
    for _ in range(500):
        try:
            return await bot.service.record(await bot.service.meme_at("discord", message.channel.id, message.id))
        except NotFound:
            await asyncio.sleep(0.01)
    raise AssertionError("no meme is known by that message")


async def test_meme_of_an_attached_picture(bot: Bot, discord: Discord, channel: Channel) -> None:
    asked = await discord.slash(channel, "meme", {"image": picture(), "seed": 7})
    answer = await asked.answered()
    assert is_meme(answer)
    assert asked.acknowledged is not None
    record = await known(bot, answer)
    assert (record.seed, record.user, record.server) == (7, "1", channel.guild)
    assert answer.attachments[0]["description"] == record.alt
    await bot.ended(answered=1)
    await discord.until(lambda: set(answer.reactions) == {"👍", "👎"})
    assert (await bot.service.record(record.id)).reactions == {}


async def test_own_words_and_style(bot: Bot, discord: Discord, channel: Channel) -> None:
    own = await discord.slash(channel, "meme", {"image": picture(), "top": "hello", "bottom": "world"})
    assert (await known(bot, await own.answered())).boxes == ("hello", "world")
    told = await discord.slash(channel, "meme", {"image": picture(), "style": "describe"})
    assert (await known(bot, await told.answered())).style == "describe"
    bad = await discord.slash(channel, "meme", {"image": picture(), "top": "kill all jews"})
    assert not (await bad.answered()).attachments
    await bot.ended(refused=1, answered=2)


async def test_the_last_picture_of_the_channel(bot: Bot, discord: Discord, channel: Channel) -> None:
    nothing = await discord.slash(channel, "meme")
    assert "no picture" in (await nothing.answered()).content
    original = await discord.post(channel, "2", "look", [picture()])
    await discord.post(channel, "3", "nice")
    answer = await (await discord.slash(channel, "meme")).answered()
    assert is_meme(answer)
    record = await known(bot, answer)
    assert (record.message, record.author, record.user) == (original.id, "2", "1")
    blind = await discord.slash(channel, "meme", permissions="0")
    assert (await blind.answered()).flags & EPHEMERAL


async def test_files_that_are_no_pictures(bot: Bot, discord: Discord, channel: Channel) -> None:
    text = discord.attachment(b"words", "a.txt", "text/plain")
    answer = await (await discord.slash(channel, "meme", {"image": text})).answered()
    assert "no picture" in answer.content
    assert answer.flags & EPHEMERAL
    broken = await discord.slash(channel, "meme", {"image": b"\xff\xd8 broken"})
    assert "picture" in (await broken.answered()).content
    huge = discord.attachment(picture()) | {"size": 21_000_000}
    assert "20 MB" in (await (await discord.slash(channel, "meme", {"image": huge})).answered()).content
    gone = discord.attachment(picture())
    discord.files.clear()
    assert "404" in (await (await discord.slash(channel, "meme", {"image": gone})).answered()).content


async def test_meme_this_needs_no_intent(
    discord: Discord, channel: Channel, tmp_path: Path, captioner: Captioner
) -> None:
    async with bot_on(discord, tmp_path, captioner, message_content=False) as bot:
        original = await discord.post(channel, "2", "my cat", [picture()])
        answer = await (await discord.meme_this(original)).answered()
        assert is_meme(answer)
        record = await known(bot, answer)
        assert record.author == "2"
        for option in ({}, {"top": "a"}):
            pointed = await (await discord.slash(channel, "meme", option)).answered()
            assert "Meme this" in pointed.content
            assert pointed.flags & EPHEMERAL
        reply = await discord.post(channel, "1", "<@100>", reply_to=original)
        await discord.until(lambda: any("Meme this" in words for words in discord.said(channel)))
        assert reply.id
        assert "no picture" in (await (await discord.meme_this(reply)).answered()).content


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("<@100> my <@!7> cat", "my cat"),
        ("<:doge:12> <a:party:13> look <#55> <@&9>", "look"),
        ("at <t:1618953630:R> </meme:816437322781949972> <id:browse>!", "at !"),
        ("i <3 cats > dogs <tom@example.org>", "i <3 cats > dogs <tom@example.org>"),
    ],
)
def test_markup_of_discords_is_nothing_that_anybody_said(content: str, said: str) -> None:
    assert words_of(content) == said


async def test_what_counts_as_a_picture(bot: Bot, discord: Discord, channel: Channel) -> None:
    url = discord.attachment(picture(2))["url"]
    embedded = await discord.post(channel, "2", embeds=[{"type": "image", "thumbnail": {"url": url, "proxy_url": url}}])
    snapshot = {"message": embedded.to_json() | {"embeds": [], "attachments": [discord.attachment(picture(3))]}}
    forwarded = await discord.post(channel, "2", snapshots=[snapshot])
    linked = await discord.post(channel, "2", f"see {url}")
    unnamed = await discord.post(channel, "2", "", [discord.attachment(picture(4), "a.png", None)])
    for message in (embedded, forwarded, linked, unnamed):
        assert is_meme(await (await discord.meme_this(message)).answered())
    await discord.post(channel, "2", "look https://[oops.png")
    assert is_meme(await (await discord.slash(channel, "meme")).answered())
    private = await discord.post(channel, "2", "http://169.254.169.254/a.png and https://10.0.0.1/a.png")
    assert "public" in (await (await discord.meme_this(private)).answered()).content


async def test_mentions(bot: Bot, discord: Discord, channel: Channel) -> None:
    original = await discord.post(channel, "2", "my dog", [picture()])
    asked = await discord.post(channel, "1", "<@100> please", reply_to=original)
    await discord.until(lambda: discord.memes(channel))
    (meme,) = discord.memes(channel)
    assert is_meme(meme)
    assert meme.reference
    assert str(meme.reference["message_id"]) == asked.id
    assert bot.service._posted.by("discord", "1") == ["please"]
    await discord.post(channel, "1", "<@!100>", reply_to=meme)
    await discord.until(lambda: len(discord.memes(channel)) == 2)
    await discord.post(channel, "1", "<@100> and this", [picture(2)])
    await discord.until(lambda: len(discord.memes(channel)) == 3)
    await discord.post(channel, "1", "<@100>?")
    await discord.until(lambda: any("Reply to a picture" in words for words in discord.said(channel)))
    await discord.post(channel, "9", "<@100>", [picture()], bot=True)
    dm = discord.add_channel()
    await discord.post(dm, "1", "", [picture()])
    await discord.until(lambda: discord.memes(dm))
    assert len(discord.memes(channel)) == 3
    await discord.post(channel, "1", "<@100>", reply_to=original)
    await discord.until(lambda: len(discord.memes(channel)) == 4)
    last = await known(bot, discord.memes(channel)[-1])
    said = bot.service._posted.of(last.id, last.created)
    assert said == "my dog", "what was written with the picture, where nothing else was"


async def test_passive(discord: Discord, channel: Channel, tmp_path: Path, captioner: Captioner) -> None:
    guild = discord.guilds[str(channel.guild)]
    quiet, thread = discord.add_channel(guild), discord.add_channel(guild, type=11, parent=channel.id)
    async with bot_on(discord, tmp_path, captioner) as bot:
        on = await discord.slash(channel, "settings", {"passive": True}, permissions=ALL_PERMISSIONS)
        assert "passive: on" in (await on.answered()).content
        await discord.post(quiet, "2", "", [picture()])
        spoiled = discord.attachment(picture(), "SPOILER_a.jpg")
        original = await discord.post(channel, "2", "", [spoiled])
        await discord.post(channel, "9", "", [picture()], bot=True)
        await discord.post(thread, "2", "", [picture()])
        await discord.until(lambda: discord.memes(channel) and discord.memes(thread))
        (meme,) = discord.memes(channel)
        assert is_meme(meme, spoiler=True)
        why = await (await discord.press(meme, "Why?")).answered()
        assert why.attachments[0]["filename"] == "SPOILER_why.png"
        await discord.post(channel, "2", "", [b"broken"])
        await discord.until(lambda: True)
        await bot.service.opt_out("discord", "4", True)
        await discord.post(channel, "4", "", [picture()])
        await discord.delete(original)
        await discord.until(lambda: meme.id not in channel.messages)
        assert discord.memes(quiet) == []
        assert discord.said(channel) == []


async def test_deleting_many_pictures_at_once(bot: Bot, discord: Discord, channel: Channel) -> None:
    originals = [await discord.post(channel, "2", "", [picture(number)]) for number in range(2)]
    for original in originals:
        await known(bot, await (await discord.meme_this(original)).answered())
    gone = {"ids": [original.id for original in originals], "channel_id": channel.id, "guild_id": channel.guild}
    await discord.gateway.dispatch("MESSAGE_DELETE_BULK", gone, guild=channel.guild)
    await discord.until(lambda: not discord.memes(channel))


async def test_deleting_the_picture_before_the_meme_is_there(bot: Bot, discord: Discord, channel: Channel) -> None:
    discord.cdn_delay = 1.0
    original = await discord.post(channel, "2", "", [picture()])
    asked = await discord.slash(channel, "meme")
    await asked.until(lambda: asked.answer)
    await asyncio.sleep(0.3)
    await discord.delete(original)
    answer = await asked.answered()
    assert not answer.attachments
    assert "deleted" in answer.content


async def test_buttons_after_a_restart(
    discord: Discord, channel: Channel, tmp_path: Path, captioner: Captioner
) -> None:
    async with bot_on(discord, tmp_path, captioner):
        first = await (await discord.slash(channel, "meme", {"image": picture(), "top": ""})).answered()
    async with bot_on(discord, tmp_path, captioner) as bot:
        another = await (await discord.press(first, "Another one", by="2")).answered()
        assert is_meme(another)
        offer = await (await discord.press(first, "Pick", by="3")).answered()
        assert offer.flags & EPHEMERAL
        assert is_meme(await (await discord.press(offer, "2", by="3")).answered())
        form = await discord.press(first, "Edit", by="3")
        await form.until(lambda: form.modal)
        mine = await (await discord.submit(form, {"0": "my own", "1": "words"}, by="3")).answered()
        record = await known(bot, mine)
        assert (record.boxes, record.user) == (("my own", "words"), "3")
        assert "own" in (await (await discord.press(mine, "Pick")).answered()).content
        why = await (await discord.press(first, "Why?", by="5")).answered()
        assert why.flags & EPHEMERAL
        assert why.files[0].startswith(b"\x89PNG")
        stranger = await (await discord.press(another, "Delete", by="5")).answered()
        assert "moderator" in stranger.content
        for message, who in ((another, {"by": "2"}), (first, {"by": "5", "permissions": ALL_PERMISSIONS})):
            await discord.press(message, "Delete", **who)
            await discord.until(lambda message=message: message.id not in channel.messages)
        assert "no such meme" in (await (await discord.press(first, "Why?")).answered()).content
        await bot.store.prune(before=2e12)
        for label in ("Another one", "Pick", "Edit", "Why?"):
            gone = await (await discord.press(mine, label)).answered()
            assert "not kept any more" in gone.content
            assert gone.flags & EPHEMERAL


async def test_commands_about_people(bot: Bot, discord: Discord, channel: Channel) -> None:
    original = await discord.post(channel, "2", "", [picture()])
    meme = await (await discord.meme_this(original)).answered()
    for voter in ("3", "4"):
        await discord.react(meme, voter, "😂")
    while not (board := await bot.service.leaderboard(Place("discord", channel.id))) or board[0].up < 2:
        await asyncio.sleep(0.01)
    assert f"/{channel.id}/{meme.id}" in (await (await discord.slash(channel, "leaderboard")).answered()).content
    assert "100% of 2 votes" in (await (await discord.slash(channel, "model")).answered()).content
    assert "never used for training" in (await (await discord.slash(channel, "privacy")).answered()).content
    exported = await (await discord.slash(channel, "export")).answered()
    assert exported.flags & EPHEMERAL
    assert b'"memes"' in exported.files[0]
    assert "Nobody but you" in (await (await discord.slash(channel, "optout", by="2")).answered()).content
    refused = await (await discord.meme_this(original)).answered()
    assert "does not want" in refused.content
    assert refused.flags & EPHEMERAL
    assert "does not want" in (await (await discord.press(meme, "Another one")).answered()).content
    assert is_meme(await (await discord.meme_this(original, by="2")).answered())
    assert "again" in (await (await discord.slash(channel, "optout", {"back": True}, by="2")).answered()).content
    assert "0 memes, 1 vote, " in (await (await discord.slash(channel, "forget", by="3")).answered()).content
    assert "2 memes" in (await (await discord.slash(channel, "forget", by="2")).answered()).content


async def test_settings(bot: Bot, discord: Discord, channel: Channel) -> None:
    adult = discord.add_channel(discord.guilds[str(channel.guild)], nsfw=True)

    async def settings(here: Channel, permissions: str = ALL_PERMISSIONS, **options: object) -> str:
        return (await (await discord.slash(here, "settings", options, permissions=permissions)).answered()).content

    assert "manage the server" in await settings(channel, permissions="0", passive=True)
    shown = await settings(channel, where="server", chance=0.25, cooldown_chat=60.0, emoji="🔥 💩", consent=True)
    assert all(words in shown for words in ("chance: 0.25", "60 s", "🔥 💩", "consent: on"))
    assert "chance: 0.25" in await settings(channel)
    assert "chance: 0.5" in await settings(channel, chance=0.5)
    assert "chance: 0.25" in await settings(channel, reset=True)
    assert "adults" in await settings(channel, filter="off")
    assert "filter: off" in await settings(adult, filter="off")
    assert "single emoji" in await settings(channel, emoji="x")
    answer = await (await discord.slash(channel, "meme", {"image": picture()})).answered()
    await discord.until(lambda: set(answer.reactions) == {"🔥", "💩"})
    await settings(channel, cooldown_user=50.0)
    assert is_meme(await (await discord.slash(channel, "meme", {"image": picture()})).answered())
    assert "try again" in (await (await discord.slash(channel, "meme", {"image": picture()})).answered()).content


async def test_too_large_an_answer_is_made_smaller(bot: Bot, discord: Discord, channel: Channel) -> None:
    discord.upload_limit, discord.real_upload_limit = 60_000, 20_000
    image = picture(size=(1600, 1200))
    answer = await (await discord.slash(channel, "meme", {"image": image})).answered()
    assert is_meme(answer)
    assert len(answer.files[0]) <= 20_000


async def test_installed_by_a_user(bot: Bot, discord: Discord, channel: Channel) -> None:
    installs = {name: command["integration_types"] for name, command in discord.commands.items()}
    assert {name for name, kinds in installs.items() if kinds == [0]} == {"settings", "leaderboard"}
    assert installs["meme"] == installs["Meme this"] == [0, 1]
    elsewhere = Channel("555", "444")
    asked = await discord.slash(elsewhere, "meme", {"image": picture()}, installed_by_user=True, app_permissions="0")
    answer = await asked.answered()
    assert is_meme(answer)
    assert answer.flags & LOADING == 0
    unseen = await discord.slash(elsewhere, "meme", installed_by_user=True)
    assert "may not read" in (await unseen.answered()).content


async def test_a_moving_picture_of_a_search_stays_moving(bot: Bot, discord: Discord, channel: Channel) -> None:
    """What people pick from Discord's search is an embedded video with a picture that stands for it."""
    frames = [Image.new("RGB", (120, 90), colour) for colour in ("red", "green", "blue")]
    film = discord.attachment(video.encode(frames, [70] * 3), "a.mp4", "video/mp4")["url"]
    still = discord.attachment(picture())["url"]
    embed = {"type": "gifv", "video": {"url": film}, "thumbnail": {"url": still}}
    message = await discord.post(channel, "2", "https://tenor.com/view/a", embeds=[embed])
    answer = await (await discord.meme_this(message)).answered()
    assert answer.attachments[0]["filename"] == "meme.mp4"
    assert images.read(answer.files[0]).frames == 3
    again = await (await discord.press(answer, "Another one")).answered()
    assert again.attachments[0]["filename"] == "meme.mp4"


async def test_what_a_link_shows_may_come_later(
    discord: Discord, channel: Channel, tmp_path: Path, captioner: Captioner
) -> None:
    """Discord looks links up, and adds what they show to the message."""
    still = discord.attachment(picture())["url"]
    embed = {"type": "image", "url": "https://tenor.com/view/a", "thumbnail": {"url": still, "proxy_url": still}}
    async with bot_on(discord, tmp_path, captioner, reply=PASSIVE):
        for words in ("https://tenor.com/view/a", "<@100> https://tenor.com/view/a"):
            message = await discord.post(channel, "2", words)
            await asyncio.sleep(0.2)
            before = len(discord.memes(channel))
            await discord.embed(message, embed)
            await discord.until(lambda before=before: len(discord.memes(channel)) > before)
            await discord.embed(message, embed)  # told again
        page = await discord.post(channel, "2", "<@100> https://example.org/news")
        await asyncio.sleep(0.2)
        await discord.embed(page, embed | {"type": "article"})  # who mentions the bot means what the page shows, too
        await discord.until(lambda: len(discord.memes(channel)) == 3)
        await discord.post(channel, "2", "https://[oops.png", [picture(5)])
        await discord.until(lambda: len(discord.memes(channel)) >= 4)
        assert (len(discord.memes(channel)), discord.said(channel)) == (4, [])


async def test_spoilers_stay_covered(bot: Bot, discord: Discord, channel: Channel) -> None:
    url, other = (discord.attachment(picture(number))["url"] for number in (2, 3))
    embed = {"type": "image", "url": url, "thumbnail": {"url": url, "proxy_url": url}}
    for words, embeds, covered in (
        (f"||{url}||", [], True),
        (f"|| careful {url} ||", [], True),
        (f"||{url}||", [embed], True),
        (f"||look\n{url}|| or not", [embed], True),
        (url, [embed], False),
        (f"||secret|| {url}", [embed], False),
        (f"||{other}|| {url}", [embed], False),
    ):
        message = await discord.post(channel, "2", words, embeds=embeds)
        assert is_meme(await (await discord.meme_this(message)).answered(), spoiler=covered), words


async def test_where_the_bot_may_not_send_pictures_it_says_so(bot: Bot, discord: Discord, channel: Channel) -> None:
    discord.faults.append((re.compile(r"POST /channels/\d+/messages$"), 403))
    await discord.post(channel, "1", "<@100>", [picture()])
    await discord.until(lambda: discord.said(channel))
    discord.faults.append((re.compile(r"PATCH /webhooks"), 403))
    asked = await discord.slash(channel, "meme", {"image": picture()})
    assert "Attach Files" in (await asked.answered()).content
    assert "Attach Files" in discord.said(channel)[0]
    await bot.ended(refused=2)


async def test_where_the_bot_may_not_read_it_answers_without_a_reference(
    bot: Bot, discord: Discord, channel: Channel
) -> None:
    channel.history_hidden = True
    await discord.post(channel, "1", "<@100>", [picture()])
    await discord.until(lambda: discord.memes(channel))
    assert is_meme(discord.memes(channel)[0])
    await discord.post(channel, "1", "<@100>?")
    await discord.until(lambda: discord.said(channel))
    assert "Reply to a picture" in discord.said(channel)[0]


async def test_a_deleted_picture_that_was_merely_posted_is_not_talked_of(
    discord: Discord, channel: Channel, tmp_path: Path, captioner: Captioner
) -> None:
    async with bot_on(discord, tmp_path, captioner, reply=PASSIVE) as bot:
        discord.cdn_delay = 0.6
        original = await discord.post(channel, "2", "", [picture()])
        await asyncio.sleep(0.2)
        await discord.delete(original)
        await bot.ended(refused=1)
        await asyncio.sleep(1)
        assert (discord.said(channel), discord.memes(channel)) == ([], [])


def test_only_the_configured_servers_of_this_machine_are_trusted() -> None:
    fetching = Pictures(servers(["http://127.0.0.1:9001/api/v10", "wss://gateway.example"]))
    for address in ("http://localhost:9001/cdn/1/a.png", "https://[::1]:9001/a.png", "https://gateway.example/a.png"):
        fetching._check(address, given=False)
    for address in ("http://127.0.0.1:22/a.png", "http://localhost/a.png", "http://gateway.example/a.png"):
        fetching._check(address, given=True)  # an attachment: people cannot choose its address
        with pytest.raises(BadPicture):
            fetching._check(address, given=False)
    with pytest.raises(BadPicture):
        fetching._check("http://10.0.0.1:9001/a.png", given=True)


async def test_who_waits_sees_it(
    discord: Discord, channel: Channel, tmp_path: Path, captioner: Captioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "FIRST", 0.1)
    monkeypatch.setattr(progress, "EACH", 0.1)
    discord.cdn_delay = 3.0
    async with bot_on(discord, tmp_path, captioner) as bot:
        asked = [await discord.slash(channel, "meme", {"image": picture(number)}) for number in range(18)]
        told = [f"{number} pictures come before yours …" for number in (16, 17)]
        await discord.until(lambda: {each.answer.content for each in asked if each.answer} >= set(told))
        mentioned = await discord.post(channel, "1", "<@100>", [picture()])
        await discord.until(lambda: f"POST /channels/{channel.id}/typing" in discord.requests)
        discord.cdn_delay = 0.0
        for interaction in asked:
            assert is_meme(await interaction.answered())
            assert interaction.answer
            assert not interaction.answer.content
        await bot.ended(answered=19)
        assert mentioned.id


async def test_an_animation_stays_one(bot: Bot, discord: Discord, channel: Channel) -> None:
    frames = [Image.new("RGB", (120, 90), colour) for colour in ("red", "green", "blue")]
    out = io.BytesIO()
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:], duration=70)
    gif = discord.attachment(out.getvalue(), "a.gif", "image/gif")
    answer = await (await discord.slash(channel, "meme", {"image": gif})).answered()
    assert answer.attachments[0]["filename"] == "meme.gif"
    with Image.open(io.BytesIO(answer.files[0])) as after:
        assert after.n_frames == 3
