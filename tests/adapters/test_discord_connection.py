"""What Discord and the network do to the bot: votes, lost connections, faults, kills, and the doctor."""

import asyncio
import re
from pathlib import Path

import pytest

from adapters.discord_chat import DiscordChat
from adapters.discord_chat.chat import PERMISSIONS
from bot.config import Reply
from bot.events import Finding, MemeRecord, NotFound, Unusable
from captioner.captioner import Captioner
from tests.fakes.discord_bot import Bot, bot_on, picture
from tests.fakes.discord_server import TAKEN, Discord
from tests.fakes.discord_world import Channel, Message

README = Path(__file__).parents[2] / "README.md"
PASSIVE = Reply(passive=True, explore=0.0)


async def meme(discord: Discord, channel: Channel) -> Message:
    return await (await discord.slash(channel, "meme", {"image": picture()})).answered()


async def votes(bot: Bot, message: Message, expected: dict[str, int]) -> MemeRecord:
    """Wait until the votes on a meme are these, or fail with what they are."""
    record = None
    for _ in range(500):
        try:
            record = await bot.service.record(
                await bot.service.meme_at("discord", message.channel.id, message.id), user="2"
            )
        except NotFound:
            pass
        else:
            if record.reactions == expected:
                return record
        await asyncio.sleep(0.01)
    raise AssertionError(record)


async def test_votes_of_all_kinds(discord: Discord, channel: Channel, tmp_path: Path, captioner: Captioner) -> None:
    async with bot_on(discord, tmp_path, captioner) as bot:
        message = await meme(discord, channel)
        for number, emoji in (("2", "👍"), ("2", "😂"), ("3", "👍🏽"), ("4", "💩"), ("5", "party:77")):
            await discord.react(message, number, emoji)
        await discord.react(message, "9", "🔥", bot=True)
        record = await votes(bot, message, {"👍": 2, "😂": 1, "💩": 1, "<:party:77>": 1})
        assert set(record.mine) == {"👍", "😂"}
        await discord.react(message, "2", "😂", added=False)
        await votes(bot, message, {"👍": 2, "💩": 1, "<:party:77>": 1})
        await discord.clear(message, "💩")
        await votes(bot, message, {"👍": 2, "<:party:77>": 1})
        await discord.clear(message)
        await votes(bot, message, {})
        others = await discord.post(channel, "2", "no meme")
        await discord.react(others, "3", "👍")
        await discord.clear(others)


async def test_votes_that_came_while_nobody_listened(
    discord: Discord, channel: Channel, tmp_path: Path, captioner: Captioner
) -> None:
    async with bot_on(discord, tmp_path, captioner) as bot:
        message, deleted = await meme(discord, channel), await meme(discord, channel)
        await discord.react(message, "2", "👍")
        await discord.react(message, "3", "🔥")
        await votes(bot, message, {"👍": 1, "🔥": 1})
        await bot.ended(answered=2)
    await discord.react(message, "2", "👍", added=False)
    for number in range(200, 320):
        await discord.react(message, str(number), "😂")
    await discord.delete(deleted)
    async with bot_on(discord, tmp_path, captioner) as bot:
        await votes(bot, message, {"🔥": 1, "😂": 120})
        with pytest.raises(NotFound):
            await bot.service.meme_at("discord", channel.id, deleted.id)
        await discord.react(message, "3", "🔥", added=False)
        await votes(bot, message, {"😂": 120})


async def test_few_requests_tell_the_votes_on_many_memes(
    discord: Discord, channel: Channel, tmp_path: Path, captioner: Captioner
) -> None:
    """One for a channel's last messages, and one for each emoji that others than the bot voted with."""
    async with bot_on(discord, tmp_path, captioner) as bot:
        messages = [await meme(discord, channel) for _ in range(4)]
        await discord.react(messages[0], "2", "💩")
        await votes(bot, messages[0], {"💩": 1})
        await discord.until(lambda: all({"👍", "👎"} <= set(message.reactions) for message in messages))
    await discord.react(messages[0], "2", "💩", added=False)
    messages[0].reactions.clear()
    for number, message in enumerate(messages[1:3]):
        await discord.react(message, str(10 + number), "👍")
    discord.requests.clear()
    async with bot_on(discord, tmp_path, captioner) as bot:
        for message in messages[1:3]:
            await votes(bot, message, {"👍": 1})
        await votes(bot, messages[0], {})
        asked = [request for request in discord.requests if request.startswith("GET /channels/")]
        assert sorted(re.sub(r"\d+", "0", request) for request in asked) == [
            "GET /channels/0/messages",
            "GET /channels/0/messages/0",
            *["GET /channels/0/messages/0/reactions/👍"] * 2,
        ]


async def test_a_dropped_gateway_resumes(
    discord: Discord, channel: Channel, tmp_path: Path, captioner: Captioner
) -> None:
    async with bot_on(discord, tmp_path, captioner, reply=PASSIVE) as bot:
        message = await meme(discord, channel)
        assert bot.chat.ready
        await discord.gateway.ask_to_reconnect()
        await discord.react(message, "2", "👍")
        await votes(bot, message, {"👍": 1})
        await discord.gateway.drop(4000)
        await discord.post(channel, "2", "", [picture(2)])
        await discord.until(lambda: len(discord.memes(channel)) == 2)
        assert discord.gateway.resumed == 2
        assert len(discord.gateway.identified) == 1


async def test_a_gateway_that_is_down_at_first(
    discord: Discord, channel: Channel, tmp_path: Path, captioner: Captioner
) -> None:
    discord.gateway.refusals = 1
    async with bot_on(discord, tmp_path, captioner) as bot:
        assert discord.gateway.refusals == 0
        assert (await meme(discord, channel)).attachments
        assert bot.chat.ready


async def test_heartbeats(discord: Discord, channel: Channel, tmp_path: Path, captioner: Captioner) -> None:
    discord.gateway.interval = 50
    async with bot_on(discord, tmp_path, captioner):
        while discord.gateway.heartbeats < 3:
            await asyncio.sleep(0.01)


async def test_faults_of_the_server(discord: Discord, channel: Channel, tmp_path: Path, captioner: Captioner) -> None:
    async with bot_on(discord, tmp_path, captioner, reply=PASSIVE) as bot:
        for pattern, status in (
            (r"POST /interactions", 429),
            (r"PATCH /webhooks", 429),
            (r"PATCH /webhooks", 500),
            (r"POST /channels", 429),
            (r"POST /channels", 502),
            (r"CDN", 503),
        ):
            discord.faults.append((re.compile(pattern), status))
        answer = await meme(discord, channel)
        assert answer.attachments
        await discord.post(channel, "2", "", [picture(2)])
        await discord.until(lambda: len(discord.memes(channel)) == 2)
        await bot.ended(answered=2)
    assert discord.faults == []


async def test_nothing_accepted_is_lost(
    discord: Discord, channel: Channel, tmp_path: Path, captioner: Captioner
) -> None:
    """The bot is cut off while pictures are being fetched; the next process answers, as often as was asked."""
    discord.cdn_delay = 60
    async with bot_on(discord, tmp_path, captioner, reply=PASSIVE) as bot:
        asked = [await discord.slash(channel, "meme", {"image": picture(n)}) for n in range(3)]
        posted = await discord.post(channel, "2", "", [picture(9)])
        await discord.until(lambda: all(interaction.answer for interaction in asked))
        await bot.ended(waiting=4)
    discord.cdn_delay = 0
    async with bot_on(discord, tmp_path, captioner, reply=PASSIVE) as bot:
        for interaction in asked:
            assert (await interaction.answered()).attachments
        await discord.until(lambda: len(discord.memes(channel)) == 4)
        await bot.ended(answered=4)
        (passive,) = (m for m in discord.memes(channel) if m.reference)
        assert passive.reference
        assert str(passive.reference["message_id"]) == posted.id
    async with bot_on(discord, tmp_path, captioner, reply=PASSIVE) as bot:
        assert await bot.service.unfinished("discord") == []
        assert len(discord.memes(channel)) == 4


async def test_an_answer_on_its_way_is_sent_once(
    discord: Discord, channel: Channel, tmp_path: Path, captioner: Captioner
) -> None:
    """Cut off after Discord took the answers and before the bot heard so: edits and nonces make each one meme."""
    discord.faults += [(re.compile("PATCH /webhooks"), TAKEN), (re.compile("POST /channels"), TAKEN)]
    async with bot_on(discord, tmp_path, captioner, reply=PASSIVE) as bot:
        asked = await discord.slash(channel, "meme", {"image": picture()})
        await discord.post(channel, "2", "", [picture(9)])
        await discord.until(lambda: len(discord.memes(channel)) == 2)
        await bot.ended(sending=2)
        first = (await asked.answered()).files
        for message in discord.memes(channel):
            await discord.react(message, "2", "🔥")
    # They are confirmed only after the votes on everything else were read.
    discord.faults += [(re.compile("PATCH /webhooks"), 502), (re.compile("POST /channels/\\d+/messages"), 502)]
    async with bot_on(discord, tmp_path, captioner, reply=PASSIVE) as bot:
        await bot.ended(answered=2, resent=2)
        assert len(discord.memes(channel)) == 2
        assert (await asked.answered()).files == first
        for message in discord.memes(channel):
            await votes(bot, message, {"🔥": 1})


async def test_what_is_too_late_expires(
    discord: Discord, channel: Channel, tmp_path: Path, captioner: Captioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    discord.cdn_delay = 60
    monkeypatch.setattr("adapters.discord_chat.delivery.TOKEN_LIFE", 1.0)
    async with bot_on(discord, tmp_path, captioner) as bot:
        await discord.slash(channel, "meme", {"image": picture()})
        await bot.ended(waiting=1)
    await asyncio.sleep(1.0)
    async with bot_on(discord, tmp_path, captioner) as bot:
        await bot.ended(expired=1)


async def test_a_hundred_commands_at_once(
    discord: Discord, channel: Channel, tmp_path: Path, captioner: Captioner
) -> None:
    async with bot_on(discord, tmp_path, captioner, queue=8) as bot:
        asked = await asyncio.gather(*(discord.slash(channel, "meme", {"image": picture(n % 5)}) for n in range(100)))
        answers = await asyncio.gather(*(interaction.answered(120) for interaction in asked))
        assert all(interaction.acknowledged is not None for interaction in asked)
        made = sum(bool(answer.attachments) for answer in answers)
        assert all("Too many" in answer.content for answer in answers if not answer.attachments)
        await bot.ended(answered=made, refused=100 - made)


async def test_without_permission_for_content(
    channel: Channel, tmp_path: Path, captioner: Captioner, caplog: pytest.LogCaptureFixture
) -> None:
    async with Discord(content_allowed=False) as discord:
        channel = discord.add_channel(discord.add_guild())
        async with bot_on(discord, tmp_path, captioner, reply=PASSIVE) as bot:
            assert [identity["intents"] >> 15 & 1 for identity in discord.gateway.identified] == [1, 0]
            await discord.post(channel, "2", "", [picture()])
            assert (await meme(discord, channel)).attachments
            await bot.ended(answered=1)
    assert "Message Content Intent" in caplog.text
    assert "passive mode is off" in caplog.text


async def test_a_server_that_says_little(
    discord: Discord, channel: Channel, tmp_path: Path, captioner: Captioner
) -> None:
    """No compression, no number of connections, no commands told back, nothing but a status for acknowledgements."""
    discord.terse, discord.gateway.compresses = True, False
    async with bot_on(discord, tmp_path, captioner, reply=PASSIVE) as bot:
        message = await meme(discord, channel)
        assert message.attachments
        await discord.react(message, "2", "👍")
        await votes(bot, message, {"👍": 1})
        await discord.post(channel, "2", "", [picture(2)])
        await discord.until(lambda: len(discord.memes(channel)) == 2)
        assert (await (await discord.press(message, "Another one")).answered()).attachments
        local = discord.attachment(picture(3))
        local["url"] = local["proxy_url"] = local["url"].replace("127.0.0.1", "localhost")
        assert (await (await discord.slash(channel, "meme", {"image": local})).answered()).attachments


async def test_a_wrong_token(discord: Discord, channel: Channel, tmp_path: Path, captioner: Captioner) -> None:
    token, discord.token = discord.token, "another"
    async with bot_on(discord, tmp_path, captioner) as bot:
        discord.token = token
        with pytest.raises(Unusable, match="does not know this token"):
            await chat(discord, "wrong").run(bot.service)
        assert not chat(discord, "wrong").ready


async def test_many_servers_share_connections(
    discord: Discord, channel: Channel, tmp_path: Path, captioner: Captioner
) -> None:
    discord.shards, discord.guild_count = 2, 1500
    async with bot_on(discord, tmp_path, captioner, sharded_from=1500):
        while len(discord.gateway.sessions) < 2:
            await asyncio.sleep(0.01)
        assert sorted(identity["shard"] for identity in discord.gateway.identified) == [[0, 2], [1, 2]]
        assert (await meme(discord, channel)).attachments


def chat(discord: Discord, token: str = "token", *, message_content: bool = True, api_base: str = "") -> DiscordChat:
    return DiscordChat(
        token,
        api_base=api_base or discord.api_base,
        gateway_url=discord.gateway_url,
        message_content=message_content,
        sharded_from=1000,
        max_bytes=20_000_000,
    )


async def test_the_doctor(discord: Discord, channel: Channel) -> None:
    async def examined(chat: DiscordChat) -> dict[str, Finding]:
        return {finding.name: finding for finding in await chat.examine([])}

    found = await examined(chat(discord))
    assert all(finding.well for finding in found.values())
    assert "on 1 servers" in found["discord"].words
    assert re.search(r"client_id=100\b.*permissions=\d+.*permissions \d+\)", found["discord invitation"].words)
    assert "not asked for" in (await examined(chat(discord, message_content=False)))["discord message content"].words
    assert f"mask\n   is {PERMISSIONS.value}." in README.read_text("utf-8")
    discord.gateway.content_allowed = False
    assert not (await examined(chat(discord)))["discord message content"].well
    assert "does not know this token" in (await examined(chat(discord, "wrong")))["discord"].words
    nowhere = await examined(chat(discord, api_base="http://127.0.0.1:9/api/v10"))
    assert "cannot be reached" in nowhere["discord"].words
    assert not nowhere["discord"].well
