"""“… is sending a photo” in the chats in which somebody waits for one, for as long as they wait."""

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from telegram import Bot
from telegram.constants import ChatAction
from telegram.error import RetryAfter, TelegramError

from .outbox import seconds_of
from .tasks import Tasks

log = logging.getLogger(__name__)

ACTION_SECONDS = 4.5
"""Telegram shows a chat action for five seconds."""
AT_ONCE = 4
"""Actions under way at a time: messages matter more, and share the connections."""

Chat = tuple[int, int | None]
"""A chat, and the topic in it."""


class Activity:
    """Repeats the action by one task, which lives while there is a chat to tell."""

    def __init__(self, bot: Bot, tasks: Tasks) -> None:
        self._bot = bot
        self._tasks = tasks
        self._waiting: dict[Chat, int] = {}
        self._shown: dict[Chat, float] = {}
        """When the action was last told; chats that nobody waits in any more leave as it fades."""
        self._news = asyncio.Event()
        self._running = False

    @contextmanager
    def shown(self, chat: int, thread: int | None) -> Iterator[None]:
        """Entered while somebody waits for a picture there."""
        place = (chat, thread)
        self._waiting[place] = self._waiting.get(place, 0) + 1
        self._news.set()
        if not self._running:
            self._running = True
            self._tasks.start(self._keep())
        try:
            yield
        finally:
            self._waiting[place] -= 1
            if not self._waiting[place]:
                del self._waiting[place]

    async def _keep(self) -> None:
        try:
            while self._waiting:
                self._news.clear()
                await self._tell()
                await self._sleep()
        finally:
            self._running = False

    async def _tell(self) -> None:
        """The action in every chat where it has faded, or was not shown yet."""
        now = time.monotonic()
        self._shown = {place: at for place, at in self._shown.items() if now - at < ACTION_SECONDS}
        due = iter([place for place in self._waiting if place not in self._shown])

        async def some() -> None:
            for place in due:
                if place in self._waiting:
                    self._shown[place] = time.monotonic()
                    await self._act(*place)

        await asyncio.gather(*(some() for _ in range(AT_ONCE)))

    async def _act(self, chat: int, thread: int | None) -> None:
        try:
            await self._bot.send_chat_action(chat, ChatAction.UPLOAD_PHOTO, message_thread_id=thread)
        except RetryAfter as error:
            await asyncio.sleep(seconds_of(error))
        except TelegramError as error:
            log.debug("no chat action: %s", error)

    async def _sleep(self) -> None:
        """Until a chat is new, or an action fades."""
        fades = min(self._shown.values(), default=0.0) + ACTION_SECONDS
        try:
            async with asyncio.timeout(max(0.1, fades - time.monotonic())):
                await self._news.wait()
        except TimeoutError:
            return
