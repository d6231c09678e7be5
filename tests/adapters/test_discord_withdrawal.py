"""What people take back, and what they may not have: deleted pictures and memes, forgotten votes, closed channels."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bot.config import Reply
from captioner.captioner import Captioner
from tests.adapters.test_discord_chat import known
from tests.fakes.discord_bot import Bot, bot_on, picture
from tests.fakes.discord_server import Discord
from tests.fakes.discord_world import EPHEMERAL, Channel, Message

SEEING, WRITING = 1 << 10 | 1 << 16, 1 << 11


@pytest.fixture
async def bot(discord: Discord, channel: Channel, tmp_path: Path, captioner: Captioner) -> AsyncIterator[Bot]:
    async with bot_on(discord, tmp_path, captioner) as bot:
        yield bot


async def reactions(bot: Bot, meme: Message, expected: dict[str, int]) -> None:
    while (await known(bot, meme)).reactions != expected:
        await asyncio.sleep(0.01)


async def test_forgotten_votes_do_not_come_back(
    discord: Discord, channel: Channel, tmp_path: Path, captioner: Captioner
) -> None:
    async with bot_on(discord, tmp_path, captioner) as bot:
        meme = await (await discord.slash(channel, "meme", {"image": picture()})).answered()
        for user in "34":
            await discord.react(meme, user, "👍")
        await reactions(bot, meme, {"👍": 2})
        await (await discord.slash(channel, "forget", by="3")).answered()
        await reactions(bot, meme, {"👍": 1})
    await discord.react(meme, "5", "👍")  # while nobody listens
    async with bot_on(discord, tmp_path, captioner) as bot:
        await reactions(bot, meme, {"👍": 2})
        assert (await bot.service.record((await known(bot, meme)).id, "3")).mine == ()
        await discord.react(meme, "3", "🔥")  # what they do from now on counts
        await reactions(bot, meme, {"👍": 2, "🔥": 1})
        later = await (await discord.slash(channel, "meme", {"image": picture(2)})).answered()
        await known(bot, later)
    await discord.react(later, "3", "👍")
    async with bot_on(discord, tmp_path, captioner) as bot:
        await reactions(bot, later, {"👍": 1})


async def test_the_leaderboard_of_a_server_leaves_closed_channels_out(
    bot: Bot, discord: Discord, channel: Channel
) -> None:
    guild = discord.guilds[channel.guild]
    closed, adult, open_ = (discord.add_channel(guild, nsfw=nsfw) for nsfw in (False, True, False))
    plain = closed.to_json
    nobody = {"id": guild.id, "type": 0, "allow": "0", "deny": str(SEEING)}
    closed.to_json = lambda: plain() | {"permission_overwrites": [nobody]}  # type: ignore[method-assign]
    for new in (closed, adult, open_):
        await discord.gateway.dispatch("CHANNEL_CREATE", new.to_json(), guild=guild.id)
    for place, words in ((closed, "closed"), (adult, "adult"), (open_, "open"), (channel, "here")):
        own = {"image": picture(), "top": words, "bottom": words}
        meme = await (await discord.slash(place, "meme", own)).answered()
        await known(bot, meme)
        await discord.react(meme, "2", "👍")
        await reactions(bot, meme, {"👍": 1})

    async def told(place: Channel) -> set[str]:
        board = (await (await discord.slash(place, "leaderboard", by="9")).answered()).content
        return {words for words in ("closed", "adult", "open", "here") if words in board}

    assert await told(channel) == {"open", "here"}
    assert await told(adult) == {"adult", "open", "here"}
    assert await told(closed) == {"closed", "open", "here"}


async def test_a_meme_is_no_picture_of_its_own(bot: Bot, discord: Discord, channel: Channel) -> None:
    original = await discord.post(channel, "2", "me", [picture()])
    meme = await (await discord.meme_this(original)).answered()
    await known(bot, meme)
    another = await (await discord.meme_this(meme)).answered()
    record = await known(bot, another)
    assert (record.author, record.message) == ("2", original.id)
    await (await discord.slash(channel, "optout", by="2")).answered()
    refused = await (await discord.meme_this(meme)).answered()
    assert not refused.attachments
    assert "does not want" in refused.content
    await (await discord.slash(channel, "forget", by="2")).answered()
    assert "do not remember" in (await (await discord.meme_this(meme)).answered()).content


@pytest.mark.parametrize("by_command", [False, True])
async def test_a_picture_that_is_deleted_while_its_meme_is_sent(
    bot: Bot, discord: Discord, channel: Channel, by_command: bool
) -> None:
    sending = "PATCH /webhooks/" if by_command else f"POST /channels/{channel.id}/messages$"
    discord.faults += [(re.compile(sending), 503)] * 2
    if by_command:
        original = await discord.post(channel, "2", "", [picture()])
        await discord.meme_this(original)
    else:
        original = await discord.post(channel, "1", "<@100>", [picture()])
    await discord.until(lambda: any(re.match(sending, request) for request in discord.requests))
    await discord.delete(original)
    async with asyncio.timeout(30):  # whether it is stopped on its way, or taken away again
        while await bot.counts() not in ({"refused": 1}, {"answered": 1}) or discord.memes(channel):
            await asyncio.sleep(0.01)
    assert await bot.service.latest("discord", channel.id, "") == []


async def test_a_meme_whose_deletion_fails_can_be_deleted_again(bot: Bot, discord: Discord, channel: Channel) -> None:
    meme = await (await discord.slash(channel, "meme", {"image": picture()})).answered()
    await known(bot, meme)
    discord.faults += [(re.compile(r"POST /interactions/.*callback"), 404)]
    await discord.press(meme, "Delete")
    await discord.until(lambda: not discord.faults)
    await discord.press(meme, "Delete")
    await discord.until(lambda: meme.id not in channel.messages)


@pytest.mark.parametrize("away", [False, True])
async def test_a_deleted_picture_takes_its_memes_along_whatever_happens(
    discord: Discord, channel: Channel, tmp_path: Path, captioner: Captioner, away: bool
) -> None:
    async with bot_on(discord, tmp_path, captioner) as bot:
        original, kept = [await discord.post(channel, "2", "", [picture(number)]) for number in (1, 2)]
        for source in (original, kept):
            await known(bot, await (await discord.meme_this(source)).answered())
        if not away:
            discord.faults += [(re.compile(r"DELETE /channels/"), 503)]
            await discord.delete(original)
            await discord.until(lambda: len(discord.memes(channel)) == 1)
    if away:
        await discord.delete(original)
        async with bot_on(discord, tmp_path, captioner) as bot:
            await discord.until(lambda: len(discord.memes(channel)) == 1)
    (left,) = discord.memes(channel)
    async with bot_on(discord, tmp_path, captioner) as bot:
        assert (await known(bot, left)).message == kept.id


async def test_who_may_not_write_has_nothing_posted(bot: Bot, discord: Discord, channel: Channel) -> None:
    meme = await (await discord.slash(channel, "meme", {"image": picture()})).answered()
    await known(bot, meme)
    told = await (await discord.press(meme, "Another one", by="9", permissions=str(SEEING))).answered()
    assert told.flags & EPHEMERAL
    assert "may not write" in told.content
    made = await (await discord.press(meme, "Another one", by="9", permissions=str(SEEING | WRITING))).answered()
    assert made.attachments


async def test_what_is_resumed_is_not_too_soon_after_itself(
    discord: Discord, channel: Channel, tmp_path: Path, captioner: Captioner
) -> None:
    async with bot_on(discord, tmp_path, captioner, reply=Reply(explore=0.0, cooldown_user=600)) as bot:
        discord.cdn_delay = 1.0
        asked = await discord.slash(channel, "meme", {"image": picture()})
        await discord.until(lambda: any("callback" in request for request in discord.requests))
        await asyncio.sleep(0.3)  # the picture is being fetched
        bot.running.cancel()
        await asyncio.wait([bot.running])
        discord.cdn_delay = 0
        bot.running = asyncio.create_task(bot.chat.run(bot.service))
        assert (await asked.answered()).attachments
