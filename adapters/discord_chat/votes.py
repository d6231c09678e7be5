"""Reactions on memes: as they happen, and caught up with after a time of not listening."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import discord

from adapters.discord_chat import wording
from adapters.discord_chat.catching_up import CatchingUp, if_ours
from adapters.discord_chat.delivery import Delivery
from bot.events import Expected, NotFound, ReactionChanged, Service

log = logging.getLogger(__name__)


class Votes:
    """Tells the service of reactions. Those of one message are handled one after another, in their order."""

    def __init__(self, client: discord.Client, service: Service, delivery: Delivery) -> None:
        self._client = client
        self._service = service
        self._delivery = delivery
        self._locks: dict[int, tuple[asyncio.Lock, int]] = {}
        self._reading: CatchingUp | None = None

    async def changed(self, event: discord.RawReactionActionEvent, *, added: bool) -> None:
        """A reaction was put or taken away."""
        me = self._client.user
        if me is None or event.user_id == me.id or event.message_author_id not in (None, me.id):
            return
        if event.member is not None and event.member.bot:
            return
        chat, message = str(event.channel_id), str(event.message_id)
        change = ReactionChanged(wording.NAME, str(event.user_id), str(event.emoji), added, chat=chat, message=message)
        async with self._changing(event.message_id):
            try:
                await self._service.react(change)
            except NotFound:
                # The meme may be so new that the answer to its sending has not been read yet.
                if await self._delivery.settled(chat):
                    await if_ours(self._service.react(change))
            except Expected as error:
                log.debug("a reaction does not count: %s", error)

    async def cleared(self, channel: int, message: int, emoji: discord.PartialEmoji | None = None) -> None:
        """All reactions were taken away, or all with one emoji."""
        async with self._changing(message):
            written = None if emoji is None else str(emoji)
            await if_ours(self._service.clear_votes(wording.NAME, str(channel), str(message), written))

    async def catch_up(self) -> None:
        """Ask how recent memes are voted on: a new session does not hear of what happened before it."""
        self._reading = reading = CatchingUp(self._client, self._service, self._delivery, self._in_turn)
        try:
            await reading.run()
        finally:
            if self._reading is reading:
                self._reading = None

    def _changing(self, message: int) -> AbstractAsyncContextManager[None]:
        if self._reading is not None:
            self._reading.stale.add(message)
        return self._in_turn(message)

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
