"""One connection to Telegram: updates become accepted requests, votes, or nothing; jobs answer them."""

import dataclasses
import logging
import time
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Self

from telegram import ExternalReplyInfo, Message, MessageOriginChannel, Update

from bot.events import Failed, NotFound, Service

from .albums import Albums
from .commands import COMMANDS, Commands
from .delivery import Delivery
from .job import PLATFORM, Job, place_of
from .jobs import Jobs
from .outbox import Outbox
from .presses import Presses
from .reading import (
    Said,
    author_of,
    first_sender,
    is_from_bot,
    is_private,
    own_boxes,
    picture_of,
    said,
    sender,
    thread_of,
)
from .rights import Rights
from .tasks import Tasks
from .votes import Votes

log = logging.getLogger(__name__)

LATE, KEPT = 300.0, 90_000.0
"""Seconds after which a picture that was merely posted is not answered any more, and for which Telegram keeps updates
at most: one that seems to be older comes from a server or a machine whose clock is wrong."""


class Session:
    """`take` deals with an update such that it may be confirmed when it returns."""

    def __init__(self, outbox: Outbox, service: Service) -> None:
        self._outbox = outbox
        self._me = outbox.bot.bot
        self._service = service
        self._tasks = Tasks()
        self._rights = Rights(outbox.bot)
        commands = Commands(outbox, service, self._rights)
        delivery = Delivery(outbox, service, self._rights)
        self._jobs = Jobs(outbox, service, self._rights, delivery, commands.answer, self._tasks)
        self._presses = Presses(outbox, service, self._jobs, delivery, self._rights, self._tasks)
        self._votes = Votes(outbox, service, delivery, self._tasks)
        self._albums = Albums()

    async def __aenter__(self) -> Self:
        """Take up what an earlier process left."""
        await self._jobs.resume()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Drop what has not been sent yet, as it is on the disk; finish what is under way."""
        await self._tasks.close()
        await self._outbox.close()

    async def take(self, update: Update) -> None:
        """Raises `Failed` where what must not be lost could not be kept; with everything else it is done."""
        try:
            await self._dispatch(update)
        except Failed:
            raise
        except Exception:
            log.exception("an update could not be handled")

    def together(self) -> AbstractContextManager[None]:
        """Entered while several updates are taken: until they all are, jobs are acknowledged, but not carried out."""
        return self._jobs.held()

    async def _dispatch(self, update: Update) -> None:
        if update.callback_query:
            await self._presses.take(update.callback_query)
        elif update.message_reaction:
            await self._votes.reacted(update.message_reaction)
        elif update.message_reaction_count:
            await self._votes.counted(update.message_reaction_count)
        elif update.my_chat_member:
            self._rights.changed(update.my_chat_member)
        elif message := update.message or update.channel_post:
            await self._posted(message)

    async def _posted(self, message: Message) -> None:
        if message.migrate_to_chat_id:
            await self._service.moved(PLATFORM, str(message.chat.id), str(message.migrate_to_chat_id))
        if is_from_bot(message):
            return
        job = await self._asked_of(message)
        if message.media_group_id and picture_of(message):
            await self._posted_in_album(message, job)
        elif job:
            await self._jobs.accept(f"{message.chat.id}:{message.message_id}", job)
            await self._jobs.forget_question(job)

    async def _posted_in_album(self, message: Message, job: Job | None) -> None:
        """The album is one request from its first item on; what comes with the others is added in memory."""
        name = f"album:{message.chat.id}:{message.media_group_id}"
        album, is_new = self._albums.add(name, message, job)
        if is_new:
            self._tasks.start(self._close_album(name))
        if job and not album.asked:
            request = job.request(name)
            album.request = request if await self._service.accept(request) else None
            album.asked = True

    async def _close_album(self, name: str) -> None:
        album = await self._albums.complete(name)
        if album.request and album.job:
            payload = dataclasses.asdict(album.job)
            await self._jobs.carry_out(dataclasses.replace(album.request, payload=payload))

    async def _asked_of(self, message: Message) -> Job | None:
        """What the message wants of the bot, if anything."""
        words, quoted = said(message, self._me), message.reply_to_message
        job = Job(
            "command",
            message.chat.id,
            sender(message),
            to=message.message_id,
            thread=thread_of(message),
            text=words.words,
        )
        if words.command in COMMANDS:
            return dataclasses.replace(job, command=words.command)
        if quoted and message.text and (meme := self._jobs.asked_about(message.chat.id, quoted.message_id)):
            boxes = own_boxes(words.words)
            return dataclasses.replace(job, kind="own", message=quoted.message_id, meme=meme, own=boxes)
        if picture_of(message):
            return await self._of_picture_posted(message, words, job)
        return await self._of_words(message, words, job)

    async def _of_picture_posted(self, message: Message, words: Said, job: Job) -> Job | None:
        quoted = message.reply_to_message
        answers_me = bool(quoted and quoted.from_user and quoted.from_user.id == self._me.id)
        addressed = is_private(message) or words.command == "meme" or words.mentioned or answers_me
        if not addressed and (_is_late(message) or not await self._is_passive(message.chat.id)):
            return None
        if not addressed and await self._is_seen_to_elsewhere(message):
            return None
        if self._is_ours(message):
            return dataclasses.replace(job, command="ours") if addressed else None
        job = dataclasses.replace(job, addressed=addressed, author=author_of(message))
        return _with_picture(message, words, job)

    async def _is_passive(self, chat: int) -> bool:
        return (await self._service.settings(place_of(chat))).passive

    async def _is_seen_to_elsewhere(self, message: Message) -> bool:
        """Whether Telegram put it there from a channel where the bot posted it, or answers it."""
        origin = message.forward_origin
        if not message.is_automatic_forward or not isinstance(origin, MessageOriginChannel):
            return False
        is_meme = await self._meme_at(origin.chat.id, origin.message_id) is not None
        return is_meme or await self._is_passive(origin.chat.id)

    async def _of_words(self, message: Message, words: Said, job: Job) -> Job | None:
        """A command or mention in reply to a picture, or to one of our memes; or something that is no picture."""
        if not (is_private(message) or words.command == "meme" or words.mentioned):
            return None
        if not message.text:
            meant = not message.media_group_id or words.command == "meme" or words.mentioned
            return dataclasses.replace(job, command="unreadable") if message.effective_attachment and meant else None
        quoted = message.reply_to_message
        if quoted and (meme := await self._meme_at(quoted.chat.id, quoted.message_id)):
            boxes = own_boxes(words.words)
            return dataclasses.replace(job, kind="own" if boxes else "redo", meme=meme, own=boxes)
        if quoted and self._is_ours(quoted):
            return dataclasses.replace(job, command="ours" if picture_of(quoted) else "hint")
        if quoted and picture_of(quoted):
            return dataclasses.replace(_with_picture(quoted, words, job), author=author_of(quoted))
        if (elsewhere := message.external_reply) and picture_of(elsewhere):
            return dataclasses.replace(_with_picture(elsewhere, words, job), author=first_sender(elsewhere.origin))
        return dataclasses.replace(job, command="hint")

    def _is_ours(self, message: Message) -> bool:
        """Whether the bot wrote it, here or where it was forwarded from: a meme of a meme would be nobody's picture."""
        writer = message.from_user.id if message.from_user else 0
        return self._me.id == writer or (
            message.forward_origin is not None and first_sender(message.forward_origin) == str(self._me.id)
        )

    async def _meme_at(self, chat: int, message: int) -> str | None:
        try:
            return await self._service.meme_at(PLATFORM, str(chat), str(message))
        except NotFound:
            return None


def _is_late(message: Message) -> bool:
    """Whether it was posted so long ago that nobody expects an answer: Telegram keeps what it could not tell."""
    return LATE < time.time() - message.date.timestamp() < KEPT


def _with_picture(source: Message | ExternalReplyInfo, words: Said, job: Job) -> Job:
    """A meme of the picture in `source`; the words are the user's own after a command, or where they have a `|`."""
    picture = picture_of(source)
    assert picture is not None
    own = words.command == "meme" or "|" in words.words
    number, caption = (source.message_id, source.caption) if isinstance(source, Message) else (job.to, None)
    return dataclasses.replace(
        job,
        kind="post",
        message=number,
        file=picture.file,
        size=picture.size,
        still=picture.still,
        text="" if own else words.words or caption or "",
        own=own_boxes(words.words) if own else (),
        spoiler=bool(source.has_media_spoiler),
    )
