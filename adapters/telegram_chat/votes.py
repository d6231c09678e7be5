"""Reactions, as Telegram tells them: a user's whole set with its predecessor, or totals without names."""

import asyncio
import dataclasses
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from telegram import MessageReactionCountUpdated, MessageReactionUpdated, ReactionType
from telegram import ReactionTypeCustomEmoji as CustomEmoji
from telegram import ReactionTypeEmoji as PlainEmoji
from telegram.constants import ChatType

from bot.events import BadRequest, NotFound, ReactionChanged, Service

from .delivery import Delivery
from .job import PLATFORM
from .outbox import Outbox
from .tasks import Tasks

log = logging.getLogger(__name__)

Said = TypeVar("Said")


class Votes:
    """Writes reactions down before they are confirmed; those on a copy that a crash left, a moment later."""

    def __init__(self, outbox: Outbox, service: Service, delivery: Delivery, tasks: Tasks) -> None:
        self._outbox = outbox
        self._service = service
        self._delivery = delivery
        self._tasks = tasks
        self._in_order = asyncio.Lock()

    async def reacted(self, change: MessageReactionUpdated) -> None:
        """Written so that hearing of it twice changes nothing; votes by button with other emoji stay."""
        actor = change.user or change.actor_chat
        if actor is None or (change.user and change.user.is_bot):
            return
        new = {_emoji_of(reaction) for reaction in change.new_reaction}
        gone = {_emoji_of(reaction) for reaction in change.old_reaction} - new
        for emoji in sorted(new | gone):
            vote = ReactionChanged(
                PLATFORM,
                str(actor.id),
                emoji,
                emoji in new,
                chat=str(change.chat.id),
                message=str(change.message_id),
            )
            if not await self._keep(change.chat.id, self._service.react, vote):
                # Asking Telegram what the message is takes turns of the chat, for which no other update shall wait.
                self._tasks.start(self._keep_on_copy(change.chat.id, change.message_id, vote))

    async def counted(self, change: MessageReactionCountUpdated) -> None:
        """In channels all reactions are anonymous; elsewhere those with names are in the totals, too."""
        totals = {_emoji_of(count.type): count.total_count for count in change.reactions}
        named = change.chat.type != ChatType.CHANNEL

        async def write(message: str) -> None:
            await self._service.count_votes(PLATFORM, str(change.chat.id), message, totals, named=named)

        await self._keep(change.chat.id, write, str(change.message_id))

    async def _keep(self, chat: int, write: Callable[[Said], Awaitable[None]], said: Said) -> bool:
        """Write it; False for no meme. One that is just arriving is not known by its message yet."""
        try:
            try:
                await write(said)
            except NotFound:
                await self._outbox.settled(chat)
                await write(said)
        except NotFound:
            return False
        except BadRequest as error:
            log.info("a reaction does not count: %s", error)
        return True

    async def _keep_on_copy(self, chat: int, message: int, vote: ReactionChanged) -> None:
        """A vote on the other copy of a meme that a crash doubled is one on the meme."""
        async with self._in_order:
            if meme := await self._delivery.copied(chat, message):
                await self._keep(chat, self._service.react, dataclasses.replace(vote, meme=meme))


def _emoji_of(reaction: ReactionType) -> str:
    if isinstance(reaction, PlainEmoji):
        return reaction.emoji
    return f"<:custom:{reaction.custom_emoji_id}>" if isinstance(reaction, CustomEmoji) else "⭐"
