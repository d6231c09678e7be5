"""Carries out requests that were taken on: makes the meme, sends it, and says so where that cannot be.

A request's row holds all that is needed, so that a later process goes on from it in the same way. An interaction's
answer is an edit of the deferred one, which may be repeated; a message carries a nonce, so that Discord takes it once.
"""

import asyncio
import io
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from typing import Any, TypeVar

import aiohttp
import discord

from adapters.discord_chat import buttons, progress, wording
from adapters.discord_chat.pictures import Found, Pictures, in_message
from bot.events import BadRequest, Expected, ImagePosted, MemeReply, NotFound, Place, Request, Service, TooLarge

log = logging.getLogger(__name__)

ORIGINAL: Any = "@original"
"""What Discord calls the deferred answer, where the library expects a number."""
TOKEN_LIFE = 15 * 60 - 10
"""Seconds for which an interaction can be answered."""
CANNOT_REPLY = 160002
"""What Discord calls a reply where the bot may not read the messages before."""
HISTORY = 50
UPLOAD_LIMIT = discord.utils.DEFAULT_FILE_SIZE_LIMIT_BYTES
FITS = 5
"""How often a meme that Discord finds too large is made smaller."""
UNREADABLE = (KeyError, TypeError, ValueError, AttributeError)
"""What the library raises on an answer that is not as it expects, from a newer API or another server."""
NETWORK = (aiohttp.ClientError, OSError, TimeoutError)
LONGEST_PAUSE = 30.0
TYPING = 8.0
"""Seconds after which Discord wants to be told again; it shows it for ten."""

MOVING = frozenset({"image/gif", "image/webp", "video/mp4"})

Result = TypeVar("Result")


class Undeliverable(Exception):  # noqa: N818, an answer that comes too late
    """Discord takes no answer any more."""


class Ended(Exception):  # noqa: N818, nobody's mistake
    """What is answered was taken back while the answer was on its way."""


async def persistently(call: Callable[[], Awaitable[Result]], until: float) -> Result:
    """Repeat a call that fails for want of network, patience or health of Discord, until a time (since the epoch)."""
    pause = 0.5
    while True:
        try:
            return await call()
        except discord.HTTPException as error:
            if error.status != 429 and error.status < 500:
                raise
            wait = max(pause, _asked_pause(error))
        except NETWORK:
            wait = pause
        if time.time() + wait > until:
            raise Undeliverable
        await asyncio.sleep(wait)
        pause = min(2 * pause, LONGEST_PAUSE)


class Delivery:
    """Works on requests, each in a task of its own, until `close`."""

    def __init__(self, client: discord.Client, service: Service, pictures: Pictures) -> None:
        self._client = client
        self._service = service
        self._pictures = pictures
        self._tasks: set[asyncio.Task[None]] = set()
        self._arriving: dict[str, int] = {}
        """Chats in which a meme is being sent, and how many."""
        self._arrived = asyncio.Condition()
        self._in_doubt: set[asyncio.Task[None]] = set()

    def start(self, request: Request) -> None:
        task = asyncio.create_task(self._work(request), name=f"discord {request.id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if request.sending:
            self._in_doubt.add(task)
            task.add_done_callback(self._in_doubt.discard)

    async def resume(self) -> None:
        """Go on with what an earlier process left."""
        left = await self._service.unfinished(wording.NAME)
        if left:
            log.info("going on with %d requests of before", len(left))
        for request in left:
            self.start(request)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def clean_up(self, chat: str, message: str) -> None:
        """A message is gone, and so the memes of its picture are to go: each is forgotten once it is taken away."""
        task = asyncio.create_task(self._clean_up(chat, message), name=f"discord deletes the memes of {message}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _clean_up(self, chat: str, message: str) -> None:
        while standing := await self._service.deleted(wording.NAME, chat, message):
            for placed in standing:
                if not await self._taken_away(int(placed.chat), int(placed.message)):
                    return  # the next session finds the picture gone
                await self._service.deleted(wording.NAME, placed.chat, placed.message)

    async def _taken_away(self, chat: int, message: int) -> bool:
        """Delete a message of ours; False where Discord cannot be reached for that."""
        target = self._client.get_partial_messageable(chat).get_partial_message(message)
        try:
            await persistently(target.delete, time.time() + TOKEN_LIFE)
        except Undeliverable:
            return False
        except discord.HTTPException as error:  # gone already, or out of reach: there is nothing to try again
            log.info("the meme of a deleted picture could not be deleted: %s", error)
        return True

    async def settled(self, chat: str) -> bool:
        """Wait until every meme that is being sent to a chat is known by its message; False if none is."""
        if chat not in self._arriving:
            return False
        async with self._arrived:
            await self._arrived.wait_for(lambda: chat not in self._arriving)
        return True

    @property
    def in_doubt(self) -> frozenset[asyncio.Task[None]]:
        """Work on memes that may stand in a chat already, as messages that are not written down yet."""
        return frozenset(self._in_doubt)

    async def meme_at(self, chat: str, message: str) -> str:
        """The meme that stands as a message, be it ever so new; raises `NotFound`."""
        try:
            return await self._service.meme_at(wording.NAME, chat, message)
        except NotFound:
            if not await self.settled(chat):
                raise
        return await self._service.meme_at(wording.NAME, chat, message)

    async def _work(self, request: Request) -> None:
        try:
            await self._answer(request)
        except Expected as error:
            await self._refuse(request, str(error))
        except Exception:
            log.exception("a request broke")
            await self._refuse(request, wording.BROKEN)

    async def _answer(self, request: Request) -> None:
        async with self._progress(request):
            reply = await (self._service.reply(request.meme) if request.meme else self._made(request))
        if reply is None:
            await self._service.finish(request.platform, request.id, "silent")
            return
        try:
            async with self._arrival(request.chat):
                message = await self._sent(request, reply)
                if message is not None:
                    await self._write_down(request, reply, message)
        except Ended:
            with suppress(NotFound):
                await self._service.delete(reply.id, request.user)
            if request.payload.get("addressed", True):
                await self._tell(request, wording.WITHDRAWN)
            return
        if message is not None and request.payload["voting"]:
            await self._offer_votes(request, message)

    @asynccontextmanager
    async def _arrival(self, chat: str) -> AsyncIterator[None]:
        """Entered while a meme is sent and written down."""
        self._arriving[chat] = self._arriving.get(chat, 0) + 1
        if task := asyncio.current_task():
            self._in_doubt.add(task)
        try:
            yield
        finally:
            if task:
                self._in_doubt.discard(task)
            async with self._arrived:
                self._arriving[chat] -= 1
                if not self._arriving[chat]:
                    del self._arriving[chat]
                self._arrived.notify_all()

    def _progress(self, request: Request) -> AbstractAsyncContextManager[None]:
        """What is seen of the work on a request by who asked for it."""
        if "token" in request.payload:
            return progress.told(
                lambda: self._service.ahead(request.platform, request.id),
                lambda number: self._tell_place(request, number),
            )
        if request.payload.get("addressed", True):
            return progress.shown(lambda: self._type(request), TYPING)
        return nullcontext()

    async def _tell_place(self, request: Request, number: int) -> None:
        with suppress(discord.HTTPException, *NETWORK):
            await self._say(request, wording.BEFORE_YOURS.format(number))

    async def _type(self, request: Request) -> None:
        with suppress(discord.HTTPException, *NETWORK):
            await self._client.http.send_typing(int(request.chat))

    async def _made(self, request: Request) -> MemeReply | None:
        """Ask the service for what was requested."""
        asked = request.payload
        place = Place(**asked["place"])
        if asked["kind"] == "post":
            found = Found.from_json(asked["picture"]) if asked["picture"] else await self._last_picture(request)
            return await self._service.post(self._event(request, found, place))
        if asked["kind"] == "words":
            boxes = asked["boxes"]
            return await self._service.own_text(asked["meme"], request.user, boxes, place=place, request=request.id)
        number = asked.get("candidate")
        return await self._service.redo(asked["meme"], request.user, candidate=number, place=place, request=request.id)

    def _event(self, request: Request, found: Found, place: Place) -> ImagePosted:
        asked = request.payload
        return ImagePosted(
            platform=request.platform,
            chat=request.chat,
            message=found.message,
            user=request.user,
            fetch=self._pictures.fetch(found),
            text=asked.get("text", ""),
            own_boxes=tuple(asked.get("boxes", ())),
            style=asked.get("style", "meme"),
            seed=asked.get("seed"),
            addressed=asked.get("addressed", True),
            spoiler=found.spoiler,
            author=found.author,
            place=place,
            request=request.id,
            max_bytes=asked["limit"],
            moving=MOVING,
        )

    async def _last_picture(self, request: Request) -> Found:
        """The newest picture of the channel that the bot itself did not post."""
        channel = self._client.get_partial_messageable(int(request.chat))
        try:
            async for message in channel.history(limit=HISTORY):
                if message.author != self._client.user and (found := in_message(message)):
                    await self._service.concerns(request.platform, request.id, found.message)
                    return found
        except (discord.Forbidden, discord.NotFound) as error:
            raise BadRequest(wording.NO_HISTORY) from error
        raise BadRequest(wording.NO_LAST_PICTURE)

    async def _sent(self, request: Request, reply: MemeReply) -> int | None:
        """The id of the message that the meme became; None where Discord takes no answer any more."""
        limit: int = request.payload["limit"]
        for _ in range(FITS):
            try:
                return await persistently(lambda reply=reply: self._send(request, reply), request.expires)  # type: ignore[misc]
            except Undeliverable:
                break
            except discord.HTTPException as error:
                if error.status == 403:
                    log.warning("no permission to answer %s: %s", request.id, error)
                    await self._refuse(request, wording.NO_PERMISSION)
                    return None
                if error.status != 413 and error.code != 40005:
                    log.warning("Discord does not take the answer to %s: %s", request.id, error)
                    break
                limit = min(limit, len(reply.data)) // 2
                reply = await self._service.fit(reply, limit)
        else:
            raise TooLarge("Discord takes this meme in no size.")
        await self._service.finish(request.platform, request.id, "expired", "Discord takes no answer any more.")
        return None

    async def _write_down(self, request: Request, reply: MemeReply, message: int) -> None:
        """The meme stands as this message; one that was forgotten while it was sent is taken away again."""
        try:
            await self._service.sent(reply.id, str(message))
        except NotFound as error:
            if "token" not in request.payload:  # else the sentence takes its place
                await self._taken_away(int(request.chat), message)
            raise Ended from error

    async def _send(self, request: Request, reply: MemeReply) -> int:
        """One try; raises `Ended` where the picture was deleted, or its poster forgotten, since the last one."""
        if not await self._service.sending(request.platform, request.id):
            raise Ended
        view = buttons.below(reply.id)
        if "token" in request.payload:
            answered = await self._webhook(request).edit_message(
                ORIGINAL,
                content=None,
                attachments=[_file(reply)],
                view=view,
                allowed_mentions=discord.AllowedMentions.none(),
            )
            return int(answered.id)
        message = await self._post(request, lambda: {"file": _file(reply), "view": view})
        return message.id

    async def _post(self, request: Request, parts: Callable[[], dict[str, Any]]) -> discord.Message:
        """A message in the channel, in reply to what asked for it; `parts` as of `replied`."""
        return await replied(self._channel(request), _reference(request), lambda: {"nonce": request.id} | parts())

    async def _refuse(self, request: Request, sentence: str) -> None:
        """Say why there is no meme; a picture that was merely posted gets no excuses."""
        if request.payload.get("addressed", True):
            await self._tell(request, sentence)
        await self._service.finish(request.platform, request.id, "refused", sentence)

    async def _tell(self, request: Request, sentence: str) -> None:
        try:
            await persistently(lambda: self._say(request, sentence), request.expires)
        except (Undeliverable, discord.HTTPException) as error:
            log.info("nobody could be told that %s was refused: %s", request.id, error)

    async def _say(self, request: Request, sentence: str) -> None:
        if "token" in request.payload:
            none = discord.AllowedMentions.none()
            await self._webhook(request).edit_message(
                ORIGINAL, content=sentence, attachments=[], view=None, allowed_mentions=none
            )
            return
        await self._post(request, lambda: {"content": sentence})

    async def _offer_votes(self, request: Request, message: int) -> None:
        """Put the emoji of the place below the meme; where the bot may not, people find their own."""
        settings = await self._service.settings(Place(**request.payload["place"]))
        for emoji in settings.emoji:
            try:
                await self._channel(request).get_partial_message(message).add_reaction(emoji.strip("<>"))
            except (discord.HTTPException, *NETWORK) as error:
                log.debug("no %s below %s: %s", emoji, message, error)
                return

    def _webhook(self, request: Request) -> discord.Webhook:
        return discord.Webhook.partial(request.payload["application"], request.payload["token"], client=self._client)

    def _channel(self, request: Request) -> discord.PartialMessageable:
        return self._client.get_partial_messageable(int(request.chat))


async def replied(
    channel: discord.abc.Messageable, reference: discord.MessageReference, parts: Callable[[], dict[str, Any]]
) -> discord.Message:
    """A message in reply to another, or without a reference where the bot may not read that.

    `parts` are made for every try, since sending uses files up.
    """
    try:
        return await channel.send(reference=reference, mention_author=False, **parts())
    except discord.Forbidden as error:
        if error.code != CANNOT_REPLY:
            raise
    return await channel.send(**parts())


def _file(reply: MemeReply) -> discord.File:
    name = f"meme.{reply.content_type.split('/')[1].replace('jpeg', 'jpg')}"
    return discord.File(io.BytesIO(reply.data), name, description=reply.alt[:1024], spoiler=reply.spoiler)


def _reference(request: Request) -> discord.MessageReference:
    return discord.MessageReference(
        message_id=int(request.payload["replies_to"]), channel_id=int(request.chat), fail_if_not_exists=False
    )


def _asked_pause(error: discord.HTTPException) -> float:
    """The seconds that Discord asks to wait."""
    try:
        return float(error.response.headers.get("Retry-After", 0))
    except ValueError:
        return 0.0


def expiry() -> float:
    """When an interaction of now takes no answer any more."""
    return time.time() + TOKEN_LIFE


def asked(**changes: Any) -> dict[str, Any]:
    """What a request's row needs at least."""
    return {"kind": "post", "picture": None, "limit": UPLOAD_LIMIT, "voting": False, "addressed": True} | changes
