"""Reactions on memes: as they happen, and caught up with after a time of not listening."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager

import aiohttp
import discord

from adapters.discord_chat import wording
from adapters.discord_chat.delivery import Delivery
from bot.events import Expected, NotFound, Placed, ReactionChanged, Service

log = logging.getLogger(__name__)

CATCH_UP = 7 * 86_400
"""Seconds: how old the memes may be whose reactions are looked at after a start."""
MOST = 2000
"""Memes looked at then, the newest first: each costs a request and one more an emoji."""
AT_ONCE = 4
"""Memes looked at at a time."""
UNKNOWN_MESSAGE = 10008


class Votes:
    """Tells the service of reactions. Those of one message are handled one after another, in their order."""

    def __init__(self, client: discord.Client, service: Service, delivery: Delivery) -> None:
        self._client = client
        self._service = service
        self._delivery = delivery
        self._locks: dict[int, tuple[asyncio.Lock, int]] = {}

    async def changed(self, event: discord.RawReactionActionEvent, *, added: bool) -> None:
        """A reaction was put or taken away."""
        me = self._client.user
        if me is None or event.user_id == me.id or event.message_author_id not in (None, me.id):
            return
        if event.member is not None and event.member.bot:
            return
        chat, message = str(event.channel_id), str(event.message_id)
        change = ReactionChanged(wording.NAME, str(event.user_id), str(event.emoji), added, chat=chat, message=message)
        async with self._in_turn(event.message_id):
            try:
                await self._service.react(change)
            except NotFound:
                # The meme may be so new that the answer to its sending has not been read yet.
                if await self._delivery.settled(chat):
                    await _if_ours(self._service.react(change))
            except Expected as error:
                log.debug("a reaction does not count: %s", error)

    async def cleared(self, channel: int, message: int, emoji: discord.PartialEmoji | None = None) -> None:
        """All reactions were taken away, or all with one emoji."""
        async with self._in_turn(message):
            written = None if emoji is None else str(emoji)
            await _if_ours(self._service.clear_votes(wording.NAME, str(channel), str(message), written))

    async def catch_up(self) -> None:
        """Ask how recent memes are voted on: a new session does not hear of what happened before it."""
        standing = (await self._service.standing(wording.NAME, time.time() - CATCH_UP))[:MOST]
        left = iter(standing)

        async def some() -> None:
            for placed in left:
                try:
                    async with self._in_turn(int(placed.message)):
                        await self._read(placed)
                except (discord.HTTPException, aiohttp.ClientError, OSError, TimeoutError) as error:
                    log.info("the votes on a meme cannot be read: %s", error)

        await asyncio.gather(*(some() for _ in range(AT_ONCE)))
        log.info("caught up with the votes on %d memes", len(standing))

    async def _read(self, placed: Placed) -> None:
        channel = self._client.get_partial_messageable(int(placed.chat))
        try:
            message = await channel.fetch_message(int(placed.message))
        except (discord.NotFound, discord.Forbidden) as error:
            if error.code == UNKNOWN_MESSAGE:
                await self._service.deleted(wording.NAME, placed.chat, placed.message)
            return
        votes = {
            (str(user.id), str(reaction.emoji))
            for reaction in message.reactions
            async for user in _users(reaction)
            if not user.bot and user != self._client.user
        }
        await _if_ours(self._service.set_votes(wording.NAME, placed.chat, placed.message, votes))

    @asynccontextmanager
    async def _in_turn(self, message: int) -> AsyncIterator[None]:
        lock, waiting = self._locks.get(message, (asyncio.Lock(), 0))
        self._locks[message] = lock, waiting + 1
        try:
            async with lock:
                yield
        finally:
            lock, waiting = self._locks[message]
            if waiting == 1:
                del self._locks[message]
            else:
                self._locks[message] = lock, waiting - 1


async def _users(reaction: discord.Reaction) -> AsyncIterator[discord.User | discord.Member]:
    async for user in reaction.users(type=discord.ReactionType.normal):
        yield user
    if reaction.burst_count:
        async for user in reaction.users(type=discord.ReactionType.burst):
            yield user


async def _if_ours(call: Awaitable[None]) -> None:
    """Votes on messages that are no memes of ours are nobody's business."""
    try:
        await call
    except Expected as error:
        log.debug("a reaction does not count: %s", error)
