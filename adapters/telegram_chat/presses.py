"""What pressed buttons do. A press becomes an accepted request before Telegram hears that it arrived."""

import dataclasses
import logging

from telegram import CallbackQuery, Chat, Message
from telegram.constants import ChatType
from telegram.error import TelegramError

from bot.events import Expected, Failed, Forbidden, MemeRecord, NotFound, Service

from . import keyboard
from .delivery import Delivery
from .job import Job
from .jobs import Jobs
from .outbox import Outbox
from .reading import thread_of
from .rights import Rights
from .tasks import Tasks

log = logging.getLogger(__name__)

ADMINISTRATORS = "Only this channel's administrators can do that here."
QUESTION = "Reply to this message with your words: top | bottom"


class Presses:
    """Buttons of memes however old: everything that a press needs stands in its data and in the store."""

    def __init__(
        self, outbox: Outbox, service: Service, jobs: Jobs, delivery: Delivery, rights: Rights, tasks: Tasks
    ) -> None:
        self._outbox = outbox
        self._rights = rights
        self._bot = outbox.bot
        self._service = service
        self._jobs = jobs
        self._delivery = delivery
        self._tasks = tasks

    async def take(self, query: CallbackQuery) -> None:
        """Raises `Failed` where the press could not be kept."""
        press = keyboard.parsed(query.data)
        if press is None or query.message is None:
            self._answer(query, "This button is not known any more.")
            return
        user = str(query.from_user.id)
        try:
            record = await self._service.record(press.meme, user)
            # What a button says can be made up. A group's memes of before it was moved stand as no message.
            if record.reply and record.chat != str(query.message.chat.id):
                raise NotFound("There is no such meme here.")
            if press.action != "vote" and not await self._may_post(query.message.chat, user):
                raise Forbidden(ADMINISTRATORS)
            if press.action in ("redo", "pick", "edit", "why"):
                await self._service.check_kept(press.meme)
        except Failed:
            raise
        except Expected as error:
            self._answer(query, str(error), alert=True)
            return
        await self._obey(query, press, record, _job(query, press, record))

    async def _may_post(self, chat: Chat, user: str) -> bool:
        """In a channel, whose subscribers see the buttons, only administrators."""
        return chat.type != ChatType.CHANNEL or await self._rights.is_administrator(chat.id, user)

    async def _obey(self, query: CallbackQuery, press: keyboard.Press, record: MemeRecord, job: Job) -> None:
        if press.action == "vote":
            added = press.detail not in record.mine
            await self._vote(query, dataclasses.replace(job, kind="vote", emoji=press.detail, added=added))
        elif press.action == "edit":
            self._tasks.start(self._ask_for_words(query, job))
        elif press.action == "pick" and not press.detail:
            self._tasks.start(self._offer(query, record, job))
        elif press.action == "back":
            self._tasks.start(self._restore(query, job))
        else:
            await self._order(query, press, job)

    async def _order(self, query: CallbackQuery, press: keyboard.Press, job: Job) -> None:
        """Another meme, why, delete: each is a job."""
        if press.action in ("why", "delete"):
            job = dataclasses.replace(job, kind=press.action)
        elif press.detail:
            job = dataclasses.replace(job, candidate=int(press.detail))
        if not await self._jobs.accept(f"press:{query.id}", job):
            return
        if press.detail:
            self._tasks.start(self._restore(query, job))
        else:
            self._answer(query, "")

    async def _vote(self, query: CallbackQuery, job: Job) -> None:
        """The direction is part of the request: pressed once, counted once, however often Telegram tells of it."""
        request = job.request(f"press:{query.id}")
        if await self._service.accept(request):
            await self._jobs.carry_out(request)
            self._answer(query, f"{job.emoji} counted" if job.added else f"{job.emoji} taken back")
            self._tasks.start(self._delivery.refresh(job))

    async def _offer(self, query: CallbackQuery, record: MemeRecord, job: Job) -> None:
        self._answer(query, "Which words?")
        markup = keyboard.picking(job.meme, record.candidates)
        try:
            await self._bot.edit_message_reply_markup(job.chat, job.message, reply_markup=markup)
        except TelegramError as error:
            log.info("no captions were offered: %s", error)

    async def _restore(self, query: CallbackQuery, job: Job) -> None:
        self._answer(query, "")
        try:
            await self._delivery.restore(job.chat, job.message, job.meme)
        except (TelegramError, Expected) as error:
            log.info("the buttons are not back: %s", error)

    async def _ask_for_words(self, query: CallbackQuery, job: Job) -> None:
        self._answer(query, "")
        try:
            question = await self._outbox.ask(job.chat, QUESTION, to=job.to, thread=job.thread)
            prompt = dataclasses.replace(job, kind="prompt", message=question.message_id)
            await self._jobs.remember_question(prompt)
        except (TelegramError, Expected) as error:
            log.warning("no question was asked: %s", error)

    def _answer(self, query: CallbackQuery, text: str, *, alert: bool = False) -> None:
        """Without waiting: what matters is a row already, and Telegram may be slow."""

        async def answer() -> None:
            try:
                await self._bot.answer_callback_query(query.id, text or None, show_alert=alert or None)
            except TelegramError as error:  # after some time Telegram takes no answer any more
                log.debug("a press is not answered: %s", error)

        self._tasks.start(answer())


def _job(query: CallbackQuery, press: keyboard.Press, record: MemeRecord) -> Job:
    """What follows replies to the picture's message, in the topic where the button is."""
    message = query.message
    assert message is not None
    return Job(
        "redo",
        message.chat.id,
        str(query.from_user.id),
        to=int(record.message) if record.message.isdigit() else message.message_id,
        thread=thread_of(message) if isinstance(message, Message) else None,
        message=message.message_id,
        meme=press.meme,
    )
