"""The connection to Discord: what happens there, and who deals with it."""

import asyncio
import dataclasses
import logging
import re
from typing import Any

import aiohttp
import discord
import yarl
from discord import app_commands
from discord.gateway import DiscordWebSocket
from discord.http import HTTPClient

from adapters.discord_chat import commands, wording
from adapters.discord_chat.delivery import NETWORK, UNREADABLE, Delivery, asked, expiry, replied
from adapters.discord_chat.interactions import Interaction, Pace, acknowledge, may_react, may_write, place_of, tell
from adapters.discord_chat.pictures import LINK, Found, Pictures, in_message, words_of
from adapters.discord_chat.presses import Presses
from adapters.discord_chat.votes import Votes
from bot.events import Expected, Forbidden, NotFound, Request, Service

log = logging.getLogger(__name__)

discord.VoiceClient.warn_nacl = discord.VoiceClient.warn_dave = False  # it never speaks

PREVIEW, PREVIEW_LATE = 3.0, 60.0
"""Seconds that a mention waits for what its link shows, and after which it is not looked at any more."""
GUILD_TIMEOUT = 0.5
"""Seconds without another server after which the list of servers is taken for complete."""


class Client(discord.AutoShardedClient):
    """One bot on Discord. It holds nothing that matters: what was taken on stands in the store."""

    def __init__(
        self,
        service: Service,
        pictures: Pictures,
        *,
        gateway_url: str,
        message_content: bool,
        sharded_from: int,
        max_bytes: int,
    ) -> None:
        intents = discord.Intents(
            guilds=True, guild_messages=True, dm_messages=True, guild_reactions=True, dm_reactions=True
        )
        intents.message_content = message_content
        super().__init__(
            intents=intents,
            shard_count=1,
            allowed_mentions=discord.AllowedMentions.none(),
            guild_ready_timeout=GUILD_TIMEOUT,
            max_messages=None,
            member_cache_flags=discord.MemberCacheFlags.none(),
            chunk_guilds_at_startup=False,
        )
        self.service = service
        self.sees_content = message_content
        self.max_bytes = max_bytes
        self.delivery = Delivery(self, service, pictures)
        self._presses = Presses(service)
        self._votes = Votes(self, service, self.delivery)
        self._pace = Pace()
        self._catching_up: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._previewed: dict[int, asyncio.Future[discord.Message]] = {}
        """Messages whose links are being looked up by Discord, while somebody waits for what they show."""
        self._gateway_url = gateway_url
        self._sharded_from = sharded_from
        self._tree = Tree(self)
        for command in commands.ALL:
            self._tree.add_command(command)

    @property
    def connected(self) -> bool:
        """Whether every connection to the gateway is open."""
        shards = self.shards.values()
        return not self.is_closed() and bool(shards) and not any(shard.is_closed() for shard in shards)

    async def setup_hook(self) -> None:
        """Between log-in and gateway: how many connections there will be, commands, and requests of before."""
        await self._choose_gateway()
        try:
            await self._tree.sync()
        except (discord.HTTPException, *NETWORK) as error:
            log.warning("the commands could not be registered with Discord: %s", error)
        except UNREADABLE as error:
            log.info("Discord's answer to the commands cannot be read: %r", error)
        await self.delivery.resume()

    async def close(self) -> None:
        self._catching_up.cancel()
        await self.delivery.close()
        await super().close()
        self._catching_up.cancel()  # again, as a session may have begun meanwhile
        await asyncio.gather(self._catching_up, return_exceptions=True)

    async def take_on(self, interaction: Interaction, message: str = "", **changes: Any) -> None:
        """Write an interaction down as a request, acknowledge it, and have it worked on."""
        if not may_write(interaction):
            raise Forbidden(wording.MAY_NOT_WRITE)
        place = place_of(interaction.channel, interaction.guild_id)
        payload = asked(
            token=interaction.token,
            application=interaction.application_id,
            limit=interaction.filesize_limit,
            voting=may_react(interaction),
            place=dataclasses.asdict(place),
            **changes,
        )
        chat, user = str(interaction.channel_id or 0), str(interaction.user.id)
        request = Request(wording.NAME, str(interaction.id), chat, user, expiry(), payload, message)
        if not await self.service.accept(request):
            return
        async with self._pace:
            acknowledged = await acknowledge(interaction)
        if acknowledged:
            await self._pace.quiet()
            self.delivery.start(request)
        else:
            await self.service.finish(wording.NAME, request.id, "expired", "It was acknowledged too late.")

    async def on_ready(self) -> None:
        log.info("discord: connected as %s to %d servers", self.user, len(self.guilds))
        if not self.sees_content:
            log.warning(
                "discord: without the message-content intent (discord.message_content) posted pictures are not seen: "
                "passive mode is off"
            )
        self._catch_up()

    async def on_interaction(self, interaction: Interaction) -> None:
        if interaction.type in (discord.InteractionType.component, discord.InteractionType.modal_submit):
            await self._presses.handle(interaction)

    async def on_message(self, message: discord.Message) -> None:
        if message.author.bot or message.webhook_id is not None or self.user is None:
            return
        mention = re.search(rf"<@!?{self.user.id}>", message.content)
        if mention:
            await self._on_mention(message)
        elif message.guild is None:
            if found := in_message(message):
                await self._take_message(message, found)
        elif self.sees_content and (found := in_message(message, previews=False)):
            place = place_of(message.channel, message.guild.id)
            if (await self.service.settings(place)).passive:
                await self._take_message(message, found, addressed=False)

    async def on_raw_message_edit(self, event: discord.RawMessageUpdateEvent) -> None:
        """What a link shows is often added to its message a moment later; people's edits are let be."""
        message = event.message
        waiting = self._previewed.get(message.id)
        found = in_message(message, previews=waiting is not None)
        if message.edited_at or found is None or _age(message) > PREVIEW_LATE:
            return
        if waiting is None:
            await self.on_message(message)
        elif not waiting.done():
            waiting.set_result(message)

    async def on_raw_message_delete(self, event: discord.RawMessageDeleteEvent) -> None:
        self.delivery.clean_up(str(event.channel_id), str(event.message_id))

    async def on_raw_bulk_message_delete(self, event: discord.RawBulkMessageDeleteEvent) -> None:
        for message in event.message_ids:
            self.delivery.clean_up(str(event.channel_id), str(message))

    async def on_raw_reaction_add(self, event: discord.RawReactionActionEvent) -> None:
        await self._votes.changed(event, added=True)

    async def on_raw_reaction_remove(self, event: discord.RawReactionActionEvent) -> None:
        await self._votes.changed(event, added=False)

    async def on_raw_reaction_clear(self, event: discord.RawReactionClearEvent) -> None:
        await self._votes.cleared(event.channel_id, event.message_id)

    async def on_raw_reaction_clear_emoji(self, event: discord.RawReactionClearEmojiEvent) -> None:
        await self._votes.cleared(event.channel_id, event.message_id, event.emoji)

    async def on_error(self, event_method: str, /, *args: Any, **kwargs: Any) -> None:
        log.exception("discord: %s broke", event_method)

    def _catch_up(self) -> None:
        """Votes of before, in a task that ends with the connection; a new session begins anew."""
        if self.is_closed():
            return
        self._catching_up.cancel()
        self._catching_up = self.loop.create_task(self._votes.catch_up(), name="discord votes")

    async def _on_mention(self, message: discord.Message) -> None:
        """A meme of the message's own picture, or of the one that it replies to."""
        found = in_message(message)
        if found is None and message.reference is None and LINK.search(message.content):
            found = await self._preview(message)
        target = message
        if found is None and message.reference is not None and message.reference.message_id:
            replied = await self._replied_to(message)
            if replied is not None and replied.author == self.user:
                await self._again(message, replied)
                return
            found, target = (in_message(replied), replied) if replied is not None else (None, message)
            if found is None:
                unseen = not self.sees_content and message.guild is not None
                await _say(message, wording.UNSEEN_REPLY if unseen else wording.NO_PICTURE)
                return
        if found is None:
            await _say(message, wording.HOW_TO)
            return
        await self._take_message(message, found, target=target)

    async def _preview(self, message: discord.Message) -> Found | None:
        """The picture that a link of a new message turns out to show, if Discord finds one soon."""
        shown = self._previewed[message.id] = self.loop.create_future()
        try:
            return in_message(await asyncio.wait_for(shown, PREVIEW))
        except TimeoutError:
            return None
        finally:
            del self._previewed[message.id]

    async def _replied_to(self, message: discord.Message) -> discord.Message | None:
        reference = message.reference
        if reference is None or reference.message_id is None:
            return None
        if isinstance(reference.resolved, discord.Message):
            return reference.resolved
        try:
            return await message.channel.fetch_message(reference.message_id)
        except (discord.HTTPException, *NETWORK):
            return None

    async def _again(self, message: discord.Message, meme: discord.Message) -> None:
        """Somebody mentions the bot in a reply to a meme: another one of the same picture."""
        try:
            known = await self.delivery.meme_at(str(meme.channel.id), str(meme.id))
        except NotFound:
            await _say(message, wording.HOW_TO)
            return
        await self._accept_message(message, str(meme.id), kind="another", meme=known)

    async def _take_message(
        self,
        message: discord.Message,
        found: Found,
        *,
        target: discord.Message | None = None,
        addressed: bool = True,
    ) -> None:
        target = target or message
        said = words_of(message.content) or words_of(target.content)
        await self._accept_message(
            message, str(target.id), kind="post", picture=found.to_json(), text=said, addressed=addressed
        )

    async def _accept_message(self, message: discord.Message, original: str, **changes: Any) -> None:
        limit = message.guild.filesize_limit if message.guild else discord.utils.DEFAULT_FILE_SIZE_LIMIT_BYTES
        place = place_of(message.channel, message.guild.id if message.guild else None)
        payload = asked(
            limit=limit, voting=True, place=dataclasses.asdict(place), replies_to=str(message.id), **changes
        )
        chat, user = str(message.channel.id), str(message.author.id)
        request = Request(wording.NAME, str(message.id), chat, user, expiry(), payload, original)
        if await self.service.accept(request):
            self.delivery.start(request)

    async def _choose_gateway(self) -> None:
        """One connection, or as many as Discord recommends to a bot on many servers; to the configured address."""
        try:
            shards, url, _ = await self.http.get_bot_gateway()
        except (discord.GatewayNotFound, *UNREADABLE):
            if not self._gateway_url:
                raise
            shards, url = 1, self._gateway_url
        guilds = (self.application and self.application.approximate_guild_count) or 0
        self.shard_count = shards if guilds >= self._sharded_from else 1
        DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(self._gateway_url or url)
        if self._gateway_url:
            _pin_gateway(self.http, yarl.URL(self._gateway_url))


def _age(message: discord.Message) -> float:
    """Seconds since it was posted."""
    return (discord.utils.utcnow() - message.created_at).total_seconds()


class Tree(app_commands.CommandTree[Client]):
    async def on_error(self, interaction: discord.Interaction[Client], error: app_commands.AppCommandError, /) -> None:
        """What a user can understand is told; anything else is logged, and told to be broken."""
        cause = error.original if isinstance(error, app_commands.CommandInvokeError) else error
        if isinstance(cause, Expected):
            sentence = str(cause)
        else:
            log.error("discord: a command broke", exc_info=cause)
            sentence = wording.BROKEN
        await tell(interaction, sentence)


async def _say(message: discord.Message, sentence: str) -> None:
    """Answer a message with a sentence, where that may be."""
    try:
        reference = message.to_reference(fail_if_not_exists=False)
        await replied(message.channel, reference, lambda: {"content": sentence})
    except (discord.HTTPException, *NETWORK) as error:
        log.info("discord: nothing can be said there: %s", error)


def _pin_gateway(http: HTTPClient, gateway: yarl.URL) -> None:
    """Connect to the configured address also where Discord names another one to resume a session at."""
    connect = http.ws_connect

    async def pinned(url: str, *, compress: int = 0) -> aiohttp.ClientWebSocketResponse:
        return await connect(str(gateway.with_query(yarl.URL(url).query)), compress=compress)

    http.ws_connect = pinned  # type: ignore[method-assign]
