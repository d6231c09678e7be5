"""How recent memes are voted on, and whether their pictures still stand, asked over REST.

A new session is not told what happened before it.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager

import discord

from adapters.discord_chat import wording
from adapters.discord_chat.delivery import NETWORK, UNREADABLE, Delivery
from bot.events import Expected, Placed, Service

log = logging.getLogger(__name__)

RECENT = 7 * 86_400
"""Seconds: how old the memes may be."""
MOST = 2000
"""Memes looked at, the newest first."""
AT_ONCE = 4
"""Channels looked at at a time."""
WINDOW = 100
"""Messages that Discord shows by one request."""
UNKNOWN_MESSAGE = 10008


class CatchingUp:
    """Reads the votes once. `in_turn` is entered by everybody who writes votes on a message down."""

    def __init__(
        self,
        client: discord.Client,
        service: Service,
        delivery: Delivery,
        in_turn: Callable[[int], AbstractAsyncContextManager[None]],
    ) -> None:
        self._client = client
        self._service = service
        self._delivery = delivery
        self._in_turn = in_turn
        self.stale: set[int] = set()
        """Messages whose votes have changed since the beginning: what was read of them before does not hold."""

    async def run(self) -> None:
        """Read all, and then those memes that were on their way meanwhile: votes on them have found no meme."""
        on_their_way = self._delivery.in_doubt
        known = await self._standing()
        await self._read_all(known)
        if on_their_way:
            await asyncio.wait(on_their_way)
            await self._read_all([placed for placed in await self._standing() if placed not in known])
        log.info("caught up with the votes on %d memes", len(known))

    async def _standing(self) -> list[Placed]:
        return (await self._service.standing(wording.NAME, time.time() - RECENT))[:MOST]

    async def _read_all(self, standing: Sequence[Placed]) -> None:
        """Channels side by side; in each, the newest memes first."""
        chats: dict[str, list[Placed]] = {}
        for placed in sorted(standing, key=lambda placed: -int(placed.message)):
            chats.setdefault(placed.chat, []).append(placed)
        left = iter(chats.values())

        async def some() -> None:
            for memes in left:
                await self._read_chat(memes)

        await asyncio.gather(*(some() for _ in range(AT_ONCE)))

    async def _read_chat(self, memes: Sequence[Placed]) -> None:
        """A channel's memes by as few requests as show them all; what these leave out is asked for by itself."""
        shown: dict[int, discord.Message] = {}
        oldest = int(memes[0].message) + 1
        numbers = {int(placed.message) for placed in memes}
        seen: set[int] = set()
        """Messages that were shown once."""
        for placed in memes:
            number = int(placed.message)
            if number < oldest:
                shown = await self._shown_until(placed)
                is_worth_it = len(shown) == WINDOW and len(numbers & shown.keys()) > 1
                oldest = min(shown) if is_worth_it else 0
                seen |= shown.keys()
            async with self._in_turn(number):
                try:
                    await self._read(placed, shown.get(number))
                except (discord.HTTPException, Expected, *NETWORK, *UNREADABLE) as error:
                    log.info("the votes on a meme cannot be read: %s", error)
        await self._look_for_pictures(memes, seen)

    async def _look_for_pictures(self, memes: Sequence[Placed], seen: set[int]) -> None:
        """The memes of a channel whose pictures were deleted meanwhile go as well; those on messages `seen` stay."""
        # A thread has the number of the message that it began with, which stands elsewhere.
        sources = {int(p.source) for p in memes if p.source.isdigit() and p.source not in (p.chat, p.message)}
        channel = self._client.get_partial_messageable(int(memes[0].chat))
        for number in sorted(sources - seen, reverse=True):
            try:
                await channel.fetch_message(number)
            except discord.NotFound as error:
                if error.code == UNKNOWN_MESSAGE:
                    self._delivery.clean_up(memes[0].chat, str(number))
            except (discord.HTTPException, *NETWORK, *UNREADABLE) as error:
                log.info("a picture's message cannot be looked at: %s", error)

    async def _shown_until(self, placed: Placed) -> dict[int, discord.Message]:
        """A meme's message and those before it; none where they may not be read."""
        channel = self._client.get_partial_messageable(int(placed.chat))
        after_it = discord.Object(int(placed.message) + 1)
        try:
            return {message.id: message async for message in channel.history(limit=WINDOW, before=after_it)}
        except (discord.HTTPException, *NETWORK, *UNREADABLE) as error:
            log.info("a channel with memes cannot be read: %s", error)
            return {}

    async def _read(self, placed: Placed, shown: discord.Message | None) -> None:
        """Write down who voted, by what was shown of the message where that still holds, and says anything of votes."""
        message = shown
        if message is None or not message.reactions or message.id in self.stale:
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
            if not (reaction.me and reaction.count == 1)  # nobody but the bot, which offers it
            async for user in _users(reaction)
            if not user.bot and user != self._client.user
        }
        await if_ours(self._service.set_votes(wording.NAME, placed.chat, placed.message, votes))


async def _users(reaction: discord.Reaction) -> AsyncIterator[discord.User | discord.Member]:
    async for user in reaction.users(type=discord.ReactionType.normal):
        yield user
    if reaction.burst_count:
        async for user in reaction.users(type=discord.ReactionType.burst):
            yield user


async def if_ours(call: Awaitable[None]) -> None:
    """Votes on messages that are no memes of ours are nobody's business."""
    try:
        await call
    except Expected as error:
        log.debug("a reaction does not count: %s", error)
