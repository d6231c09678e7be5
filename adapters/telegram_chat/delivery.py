"""Memes on their way into the chat, and the buttons below them."""

import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from telegram import InlineKeyboardMarkup, InputFile, Message
from telegram.error import BadRequest, TelegramError

from bot.events import BadPicture, Expected, MemeReply, Request, Service

from . import keyboard
from .job import PLATFORM, Job, place_of
from .outbox import Outbox, is_too_large, reply_to
from .rights import Rights

log = logging.getLogger(__name__)

MAX_PHOTO = 10_000_000
"""Bytes that Telegram takes as a photo; memes are made to fit."""
MOVING = frozenset({"image/gif", "video/mp4"})
"""What is sent as an animation."""
SMALLER = 2 / 3
"""What a meme is shrunk to where the server finds it too large all the same, each time."""


@dataclass(slots=True)
class Doubt:
    """A meme that may stand in its chat as a message that nobody wrote down, between two others."""

    meme: str
    after: int
    """The message that it answers."""
    before: float = math.inf
    """The message that it was sent as in the end."""


class Delivery:
    """What was sent is written down before the next turn of the chat."""

    def __init__(self, outbox: Outbox, service: Service, rights: Rights) -> None:
        self._outbox = outbox
        self._service = service
        self._rights = rights
        self._refreshing: set[str] = set()
        self._doubts: dict[int, list[Doubt]] = {}
        """By chat: the memes that were on their way at a crash."""
        self._copies: dict[tuple[int, int], str | None] = {}

    async def deliver(self, request: Request, job: Job, reply: MemeReply) -> None:
        """Send the meme; smaller where it is too large, as a file where Telegram takes it as no photo."""
        as_file = len(reply.data) > MAX_PHOTO and reply.content_type not in MOVING
        thread = job.thread
        if as_file:
            _check_uncovered(reply)
        while True:
            try:
                await self._send(request, job, reply, thread, as_file=as_file)
                return
            except TelegramError as error:
                if is_too_large(error):
                    reply = await self._service.fit(reply, int(len(reply.data) * SMALLER))
                elif isinstance(error, BadRequest) and _is_no_photo(error) and not as_file:
                    as_file = True
                    _check_uncovered(reply)
                elif isinstance(error, BadRequest) and "thread not found" in error.message.lower() and thread:
                    thread = None
                else:
                    raise

    async def _send(self, request: Request, job: Job, reply: MemeReply, thread: int | None, *, as_file: bool) -> None:
        markup = await self._buttons(job.chat, reply.id)

        async def attempt(chat: int) -> None:
            if not await self._service.sending(PLATFORM, request.id):
                return
            message = await self._sent_as(reply, as_file=as_file)(
                chat,
                InputFile(reply.data, filename=_name_of(reply)),
                message_thread_id=thread,
                reply_parameters=reply_to(job.to),
                reply_markup=markup,
                **({} if as_file else {"has_spoiler": reply.spoiler or None}),
            )
            await self._service.sent(reply.id, str(message.message_id))
            for doubt in self._doubts.get(chat, ()):
                if doubt.meme == reply.id:
                    doubt.before = message.message_id

        await self._outbox.send(job.chat, attempt)

    def _sent_as(self, reply: MemeReply, *, as_file: bool) -> Callable[..., Awaitable[Message]]:
        bot = self._outbox.bot
        if as_file:
            return bot.send_document
        return bot.send_animation if reply.content_type in MOVING else bot.send_photo

    def doubt(self, job: Job, meme: str) -> None:
        """The meme was on its way at a crash: it may stand in its chat as a message that nobody wrote down."""
        self._doubts.setdefault(job.chat, []).append(Doubt(meme, job.to or 0))

    async def copied(self, chat: int, message: int) -> str | None:
        """The meme that a message is such a copy of. None for a message of somebody else, or not in doubt."""
        if chat not in self._doubts:
            return None
        if (chat, message) not in self._copies:
            doubts = [doubt for doubt in self._doubts[chat] if doubt.after < message < doubt.before]
            found = [doubt.meme for doubt in doubts if await self._is_copy(chat, message, doubt.after, doubt.meme)]
            self._copies[chat, message] = found[-1] if found else None
        return self._copies[chat, message]

    async def _is_copy(self, chat: int, message: int, to: int, meme: str) -> bool:
        """Whether the meme's buttons can be put below the message: Telegram lets a bot edit its own messages only."""

        async def attempt(number: int) -> Message | bool:
            return await self._outbox.bot.edit_message_reply_markup(
                number, message, reply_markup=await self._buttons(number, meme)
            )

        try:
            edited = await self._outbox.send(chat, attempt, follows=False)
        except BadRequest as error:
            return "not modified" in error.message.lower()
        except (TelegramError, Expected) as error:
            log.info("a message cannot be looked at: %s", error)
            return False
        answered = edited.reply_to_message if isinstance(edited, Message) else None
        return answered is None or answered.message_id == to

    async def refresh(self, job: Job) -> None:
        """Show the counts on the buttons as they are by the chat's next turn; whoever votes meanwhile is in them."""
        if job.message is None or job.meme in self._refreshing:
            return
        self._refreshing.add(job.meme)

        async def attempt(chat: int) -> None:
            self._refreshing.discard(job.meme)
            await self.restore(chat, job.message, job.meme)

        try:
            await self._outbox.send(job.chat, attempt, follows=False)
        except (TelegramError, Expected) as error:
            log.debug("the counts are not shown: %s", error)
        finally:
            self._refreshing.discard(job.meme)

    async def restore(self, chat: int, message: int | None, meme: str) -> None:
        """Put the buttons of a meme below it."""
        markup = await self._buttons(chat, meme)
        await self._outbox.bot.edit_message_reply_markup(chat, message, reply_markup=markup)

    async def _buttons(self, chat: int, meme: str) -> InlineKeyboardMarkup:
        record = await self._service.record(meme)
        emoji = (await self._service.settings(place_of(chat))).emoji
        counted = {each: record.reactions.get(each, 0) for each in emoji}
        votes = None if await self._rights.sees_reactions(chat) else counted
        return keyboard.below(meme, choices=len(record.candidates), votes=votes)


def _check_uncovered(reply: MemeReply) -> None:
    """Raises `BadPicture` for a spoiler: a file has no cover, so everybody would see it."""
    if reply.spoiler:
        raise BadPicture("Telegram takes this meme as a file only, and that cannot be covered as its picture is.")


def _is_no_photo(error: TelegramError) -> bool:
    """Too long and thin, for example."""
    return any(word in error.message.upper() for word in ("PHOTO_INVALID", "IMAGE_PROCESS_FAILED", "PHOTO_SAVE"))


def _name_of(reply: MemeReply) -> str:
    ending = {"image/gif": "gif", "image/png": "png", "image/webp": "webp", "video/mp4": "mp4"}
    return f"meme.{ending.get(reply.content_type, 'jpg')}"
