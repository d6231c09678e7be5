"""Everything that goes out: in its turn, again where Telegram says so, and never cut off half way."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar

from telegram import Bot, ForceReply, LinkPreviewOptions, Message, ReplyParameters
from telegram.error import BadRequest, ChatMigrated, NetworkError, RetryAfter, TelegramError

from .floods import Floods

log = logging.getLogger(__name__)

Result = TypeVar("Result")

UNREADABLE = (KeyError, TypeError, ValueError, AttributeError)
"""What the library raises on an answer that is not as it expects, from a newer API or another server."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0
"""Seconds between two attempts while the server or the network is down."""
FINISHING_SECONDS = 15.0
"""What is on its way at a stop is given so long to arrive."""


class Outbox:
    """Sends in turns; `moved` is told the old and the new number of a group that became a supergroup."""

    def __init__(self, bot: Bot, floods: Floods, moved: Callable[[int, int], Awaitable[None]]) -> None:
        self.bot = bot
        self._floods = floods
        self._moved = moved
        self._under_way: dict[int, set[asyncio.Task[object]]] = {}

    async def send(self, chat: int, attempt: Callable[[int], Awaitable[Result]], *, follows: bool = True) -> Result:
        """Await `attempt(chat)` in the chat's turn, as often as it takes while nothing is wrong with it.

        A group that became a supergroup has another number, which the attempt is then given, unless it is about a
        message (`follows=False`): those are counted anew there, and ChatMigrated is raised. Once an attempt has
        begun, it is carried out even where the caller is cancelled: what Telegram took must be remembered.
        """
        pause = FIRST_PAUSE
        while True:
            await self._turn(chat)
            try:
                return await self._carried_out(chat, attempt)
            except RetryAfter as error:
                self._floods.hold(chat, time.monotonic() + seconds_of(error))
            except ChatMigrated as error:
                await self._moved(chat, error.new_chat_id)
                if not follows:
                    raise
                chat = error.new_chat_id
            except NetworkError as error:
                if isinstance(error, BadRequest) or is_too_large(error):
                    raise
                log.warning("sending failed, and is tried again in %g s: %s", pause, error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)

    async def say(
        self,
        chat: int,
        text: str,
        *,
        to: int | None = None,
        thread: int | None = None,
        markup: ForceReply | None = None,
    ) -> Message:
        """A text as a reply to message `to`; nobody is pinged by it."""

        async def attempt(number: int) -> Message:
            return await self.bot.send_message(
                number,
                harmless(text),
                message_thread_id=thread,
                reply_parameters=reply_to(to),
                reply_markup=markup,
                link_preview_options=LinkPreviewOptions(is_disabled=True),
            )

        return await self.send(chat, attempt)

    async def ask(self, chat: int, text: str, *, to: int | None, thread: int | None) -> Message:
        """A question; in a group the answer's field opens for the author of `to` only, while anybody may answer."""
        markup = ForceReply(selective=chat < 0, input_field_placeholder="top | bottom")
        return await self.say(chat, text, to=to, thread=thread, markup=markup)

    async def settled(self, chat: int) -> None:
        """Wait until what is on its way to the chat has arrived and is written down."""
        under_way = self._under_way.get(chat)
        if under_way:
            await asyncio.wait(list(under_way), timeout=FINISHING_SECONDS)

    async def close(self) -> None:
        """Wait for everything that is on its way."""
        under_way = [task for tasks in self._under_way.values() for task in tasks]
        if under_way:
            await asyncio.wait(under_way, timeout=FINISHING_SECONDS)

    async def _turn(self, chat: int) -> None:
        await _until(self._floods.reserve(chat, time.monotonic()))
        while self._floods.is_held(chat, time.monotonic()):
            await _until(self._floods.reserve(chat, time.monotonic()))
        await _until(self._floods.reserve_anywhere(time.monotonic()))

    async def _carried_out(self, chat: int, attempt: Callable[[int], Awaitable[Result]]) -> Result:
        task = asyncio.ensure_future(attempt(chat))
        tasks = self._under_way.setdefault(chat, set())
        tasks.add(task)
        task.add_done_callback(lambda _: self._arrived(chat, task))
        return await asyncio.shield(task)

    def _arrived(self, chat: int, task: asyncio.Task[object]) -> None:
        tasks = self._under_way[chat]
        tasks.discard(task)
        if not tasks:
            del self._under_way[chat]
        if not task.cancelled():
            task.exception()  # seen, so that asyncio does not complain where nobody waits for it any more


def reply_to(message: int | None) -> ReplyParameters | None:
    """Stays in place where the message is gone meanwhile."""
    return None if message is None else ReplyParameters(message, allow_sending_without_reply=True)


def harmless(text: str) -> str:
    """The text without live mentions: Telegram pings whoever an `@name` in a bot's message names."""
    return text.replace("@", "@\u2060")


def is_too_large(error: TelegramError) -> bool:
    """A 413, which the library knows by its text only."""
    return "too large" in error.message.lower() or "too big" in error.message.lower()


def seconds_of(error: RetryAfter) -> float:
    wait = error.retry_after
    return wait.total_seconds() if isinstance(wait, timedelta) else float(wait)


async def _until(at: float) -> None:
    wait = at - time.monotonic()
    if wait > 0:
        await asyncio.sleep(wait)
