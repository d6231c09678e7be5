"""Carries accepted jobs out, each in a task of its own, and those that a crash left over."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, nullcontext

from telegram import InputFile
from telegram.error import BadRequest, TelegramError

from bot.events import Expected, Forbidden, ImagePosted, MemeReply, NotFound, Outcome, ReactionChanged, Request, Service

from .activity import Activity
from .delivery import MAX_PHOTO, MOVING, Delivery
from .files import fetching
from .job import PLATFORM, Job, place_of
from .outbox import Outbox, harmless, reply_to
from .rights import Rights
from .tasks import Tasks

log = logging.getLogger(__name__)

MAX_CAPTION = 1024
LEFT_OVER_AT_ONCE = 8
NO_RIGHTS = "I may not send pictures here. An administrator of this chat can allow it."
BROKEN = "Something broke on the bot's side. Its log says what."


class Jobs:
    """`commands` answers the jobs of kind "command"."""

    def __init__(
        self,
        outbox: Outbox,
        service: Service,
        rights: Rights,
        delivery: Delivery,
        commands: Callable[[Job], Awaitable[None]],
        tasks: Tasks,
    ) -> None:
        self._outbox = outbox
        self._service = service
        self._rights = rights
        self._delivery = delivery
        self._commands = commands
        self._tasks = tasks
        self._activity = Activity(outbox.bot, tasks)
        self._questions: dict[tuple[int, int], str] = {}
        """Messages that asked for words, and the memes that they asked them for."""
        self._free = asyncio.Event()
        self._free.set()
        self._left_over = asyncio.Semaphore(LEFT_OVER_AT_ONCE)

    async def accept(self, name: str, job: Job) -> bool:
        """Take a job on, and start it. False where that was done before."""
        request = job.request(name)
        accepted = await self._service.accept(request)
        if accepted:
            self._tasks.start(self.carry_out(request))
        return accepted

    @contextmanager
    def held(self) -> Iterator[None]:
        """No meme is made meanwhile: users hear first that they were heard."""
        self._free.clear()
        try:
            yield
        finally:
            self._free.set()

    async def resume(self) -> None:
        """Start what an earlier process took on and did not finish; questions go on waiting for their answers."""
        for request in await self._service.unfinished(PLATFORM):
            job = Job.of(request)
            if job.kind == "prompt" and job.message is not None:
                self._questions[job.chat, job.message] = job.meme
                continue
            if request.sending and request.meme:
                self._delivery.doubt(job, request.meme)
            self._tasks.start(self._carry_out_left_over(request))

    async def remember_question(self, prompt: Job) -> None:
        """`prompt.message` asks for words; this must be known after a restart, so it is a request that stays open."""
        assert prompt.message is not None
        await self._service.accept(prompt.request(_question(prompt.chat, prompt.message)))
        self._questions[prompt.chat, prompt.message] = prompt.meme

    def asked_about(self, chat: int, message: int) -> str | None:
        """The meme that this message asked words for."""
        return self._questions.get((chat, message))

    async def forget_question(self, job: Job) -> None:
        """The question has its answer, which is accepted."""
        if job.message is not None and self._questions.pop((job.chat, job.message), ""):
            await self._service.finish(PLATFORM, _question(job.chat, job.message), "answered")

    async def carry_out(self, request: Request) -> None:
        """Do what was asked, and end the request; never raises but when cancelled."""
        job = Job.of(request)
        try:
            async with asyncio.timeout(max(0.0, request.expires - time.time())):
                await self._attempt(request, job)
        except TimeoutError:
            await self._end(request, "expired", "")
        except TelegramError as error:
            log.warning("Telegram refused an answer in chat %s: %s", job.chat, error)
            await self._end(request, "refused", str(error))
        except Exception:
            log.exception("a job broke")
            await self._end(request, "refused", BROKEN)

    async def _carry_out_left_over(self, request: Request) -> None:
        """A few at a time: all at once would fill the model's queue, and most would be refused."""
        async with self._left_over:
            await self.carry_out(request)

    async def _attempt(self, request: Request, job: Job) -> None:
        try:
            if job.kind in ("post", "redo", "own"):
                await self._answer(request, job)
                return
            others = {"vote": self._vote, "why": self._why, "delete": self._delete}
            await others.get(job.kind, self._commands)(job)
        except Expected as error:
            await self._refuse(request, job, str(error))
        except BadRequest as error:
            if "not enough rights" not in error.message.lower():
                raise
            log.info("no rights to answer in chat %s: %s", job.chat, error)
            await self._refuse(request, job, NO_RIGHTS)
        else:
            await self._end(request, "answered", "")

    async def _answer(self, request: Request, job: Job) -> None:
        await self._free.wait()
        with self._activity.shown(job.chat, job.thread) if job.addressed else nullcontext():
            reply = await (self._service.reply(request.meme) if request.meme else self._made(request, job))
        if reply is None:
            await self._end(request, "silent", "")
        else:
            await self._delivery.deliver(request, job, reply)

    async def _made(self, request: Request, job: Job) -> MemeReply | None:
        if job.meme:  # whose chat may have become another one since
            place = place_of(int((await self._service.record(job.meme)).chat))
            if job.kind == "own":
                return await self._service.own_text(job.meme, job.user, job.own, place=place, request=request.id)
            return await self._service.redo(
                job.meme, job.user, candidate=job.candidate, place=place, request=request.id
            )
        return await self._service.post(
            ImagePosted(
                platform=PLATFORM,
                chat=str(job.chat),
                message=str(job.message),
                user=job.user,
                fetch=fetching(self._outbox.bot, job.file, job.size, job.still),
                text=job.text,
                own_boxes=job.own,
                addressed=job.addressed,
                spoiler=job.spoiler,
                author=job.author,
                place=job.place,
                request=request.id,
                max_bytes=MAX_PHOTO,
                moving=MOVING,
            )
        )

    async def _vote(self, job: Job) -> None:
        await self._service.react(ReactionChanged(PLATFORM, job.user, job.emoji, job.added, meme=job.meme))

    async def _why(self, job: Job) -> None:
        """The words over what they looked at, and the meme in words for who cannot see it."""
        record = await self._service.record(job.meme)
        picture = await self._service.explain(job.meme)
        spoiler = (await self._service.reply(job.meme)).spoiler or None

        async def attempt(chat: int) -> None:
            await self._outbox.bot.send_photo(
                chat,
                InputFile(picture, filename="why.png"),
                caption=harmless(record.alt)[:MAX_CAPTION],
                has_spoiler=spoiler,
                message_thread_id=job.thread,
                reply_parameters=reply_to(job.message),
            )

        await self._outbox.send(job.chat, attempt)

    async def _delete(self, job: Job) -> None:
        """The message goes first: what was forgotten before could not be asked for again where that fails."""
        moderator = await self._rights.is_administrator(job.chat, job.user)
        try:
            await self._service.check_deletable(job.meme, job.user, moderator=moderator)
        except NotFound:  # deleted before a stop
            return
        message = job.message or 0  # a press always names it

        async def attempt(chat: int) -> None:
            await self._outbox.bot.delete_message(chat, message)

        refused: BadRequest | None = None
        try:
            await self._outbox.send(job.chat, attempt, follows=False)
        except BadRequest as error:
            refused = None if "not found" in error.message.lower() else error
        await self._service.delete(job.meme, job.user, moderator=moderator)
        if refused:
            raise Forbidden(
                "Telegram does not let me delete this message. What I remembered of it is gone."
            ) from refused

    async def _refuse(self, request: Request, job: Job, why: str) -> None:
        """Say why not, to those who asked."""
        if job.addressed:

            async def attempt(chat: int) -> None:
                if await self._service.sending(PLATFORM, request.id):
                    await self._outbox.bot.send_message(
                        chat, harmless(why), message_thread_id=job.thread, reply_parameters=reply_to(job.to)
                    )

            await self._outbox.send(job.chat, attempt)
        await self._end(request, "refused", why)

    async def _end(self, request: Request, outcome: Outcome, why: str) -> None:
        await self._service.finish(PLATFORM, request.id, outcome, why)


def _question(chat: int, message: int) -> str:
    return f"prompt:{chat}:{message}"
