"""A Bot API on loopback, with Telegram's rules: offsets, opt-in, rights, floods, limits of files, links and buttons.

People act through `Chat`'s methods; what the bot did stands in `Chat.messages` and `TelegramApi.calls`.
"""

import asyncio
import io
import itertools
import json
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

import aiohttp
from aiohttp import web
from PIL import Image

from tests.fakes.forms import fields

Json = dict[str, Any]

TOKEN = "123456:test-token"
MAX_DOWNLOAD = 20_000_000
NOT_MESSAGES = ("sendChatAction",)


@dataclass
class Rules:
    """Flood limits as (messages, seconds), and the largest photo in bytes."""

    chat: tuple[int, float] = (1, 0.02)
    group: tuple[int, float] = (1000, 1.0)
    everywhere: tuple[int, float] = (1000, 1.0)
    max_photo: int = 10_000_000


@dataclass
class Fault:
    """What the next calls of a method get instead of an answer."""

    status: int
    times: int = 1
    retry_after: int | None = None
    description: str = "Internal Server Error"
    after: bool = False
    """The call is carried out all the same."""


class Refused(Exception):  # noqa: N818, a reply rather than a mistake
    def __init__(self, status: int, description: str, **parameters: Any) -> None:
        self.status, self.description, self.parameters = status, description, parameters


class Chat:
    """A chat, its members and its messages, by number."""

    def __init__(self, api: "TelegramApi", number: int, kind: str, *, bot: str = "member", title: str = "a chat"):
        self.api, self.id, self.type, self.title = api, number, kind, title
        self.bot_status = bot
        self.became: Chat | None = None
        self.members: dict[int, str] = {}
        self.messages: dict[int, Json] = {}
        self.topics: set[int] = set()
        self.reactions: dict[tuple[int, int], list[str]] = {}

    @property
    def memes(self) -> list[Json]:
        """The bot's pictures that have buttons, oldest first."""
        return [m for m in self.messages.values() if m["from"]["is_bot"] and "reply_markup" in m and "file" in m]

    @property
    def said(self) -> list[str]:
        """The bot's texts."""
        return [m["text"] for m in self.messages.values() if m["from"]["is_bot"] and "text" in m]

    def upgrade(self, number: int, *, tell: bool = True) -> "Chat":
        """The group becomes a supergroup; with `tell`, a message says so."""
        self.became = self.api.group(number, bot=self.bot_status)
        if tell:
            message = self.add(_person(7), migrate_to_chat_id=number)
            self.api.tell("message", _visible(message))
        return self.became

    def as_json(self) -> Json:
        return {"id": self.id, "type": self.type, "title": self.title}

    def add(self, sender: Json, **content: Any) -> Json:
        number = next(self.api.numbers)
        message = {"message_id": number, "date": int(time.time()), "chat": self.as_json(), "from": sender, **content}
        if self.type == "channel" and not sender["is_bot"]:
            message["sender_chat"] = self.as_json()
            message["from"] = {"id": 0, "is_bot": False}  # for this fake's own use
        self.messages[number] = message
        return message

    def post(self, user: int = 7, text: str = "", *, reply_to: Json | None = None, **content: Any) -> Json:
        """Somebody writes; the bot hears of it where Telegram would tell it."""
        if reply_to:
            quoted = {key: value for key, value in reply_to.items() if key != "reply_to_message"}
            content["reply_to_message"] = _visible(quoted)
        if "message_thread_id" in content:
            content["is_topic_message"] = True
        words = {"caption" if _has_media(content) else "text": text} if text else {}
        message = self.add(_person(user), **words, **content)
        if self._bot_may_see(text, reply_to):
            self.api.tell("channel_post" if self.type == "channel" else "message", _visible(message))
        return message

    def post_photo(self, data: bytes, text: str = "", user: int = 7, **content: Any) -> Json:
        sizes = [
            {"file_id": self.api.file(data[:10]), "file_unique_id": "s", "width": 10, "height": 10, "file_size": 10},
            {
                "file_id": self.api.file(data),
                "file_unique_id": "l",
                "width": 900,
                "height": 600,
                "file_size": len(data),
            },
        ]
        return self.post(user, text, photo=sizes, **content)

    def post_file(self, data: bytes, name: str, kind: str, user: int = 7, **content: Any) -> Json:
        document = {"file_id": self.api.file(data), "file_unique_id": "d", "file_name": name, "mime_type": kind}
        return self.post(user, document=document, **content)

    def post_sticker(self, data: bytes, user: int = 7, *, is_animated: bool = False) -> Json:
        sticker = {
            "file_id": self.api.file(data),
            "file_unique_id": "st",
            "type": "regular",
            "width": 512,
            "height": 512,
        }
        return self.post(user, sticker=sticker | {"is_animated": is_animated, "is_video": False})

    def press(self, message: Json, label: str, user: int = 7) -> str:
        """Press the button whose label begins so; returns the query's id."""
        buttons = [b for row in message["reply_markup"]["inline_keyboard"] for b in row]
        found = next(button for button in buttons if label in button["text"])
        return self._query(message, found["callback_data"], user)

    def forge(self, data: str, user: int) -> str:
        """A press as no button below the bot's last message would tell it; returns the query's id."""
        return self._query([m for m in self.messages.values() if m["from"]["is_bot"]][-1], data, user)

    def _query(self, message: Json, data: str, user: int) -> str:
        query = f"q{next(self.api.numbers)}"
        update = {"id": query, "from": _person(user), "chat_instance": "1", "data": data}
        self.api.queries.add(query)
        self.api.tell("callback_query", update | {"message": _visible(message)})
        return query

    def react(self, message: Json, user: int, *emoji: str) -> None:
        """Somebody's reactions are these from now on; told only to administrators who asked for it."""
        key = message["message_id"], user
        old, self.reactions[key] = self.reactions.get(key, []), list(emoji)
        update = {"chat": self.as_json(), "message_id": message["message_id"], "date": int(time.time())}
        update |= {"user": _person(user), "old_reaction": _reactions(old), "new_reaction": _reactions(emoji)}
        if self.bot_status == "administrator":
            self.api.tell("message_reaction", update)

    def count(self, message: Json, **totals: int) -> None:
        """Anonymous reactions, as totals."""
        counts = [{"type": {"type": "emoji", "emoji": e}, "total_count": n} for e, n in totals.items()]
        update = {"chat": self.as_json(), "message_id": message["message_id"], "date": int(time.time())}
        if self.bot_status == "administrator":
            self.api.tell("message_reaction_count", update | {"reactions": counts})

    def _bot_may_see(self, text: str, reply_to: Json | None) -> bool:
        if self.type in ("private", "channel") or self.bot_status == "administrator" or not self.api.privacy:
            return True
        return text.startswith("/") or "@memebot" in text or bool(reply_to and reply_to["from"]["is_bot"])


class TelegramApi:
    """`async with TelegramApi() as api:` serves `api.base` and `api.file_base`, which an adapter is given."""

    def __init__(self) -> None:
        self.rules = Rules()
        self.privacy = False
        self.numbers = itertools.count(100)
        self.chats: dict[int, Chat] = {}
        self.calls: list[tuple[str, Json]] = []
        self.queries: set[str] = set()
        self.answers: dict[str, Json] = {}
        self.updates: list[Json] = []
        self.confirmed = 0
        self.acknowledged: dict[int, float] = {}
        """Seconds from an update to its confirmation."""
        self.allowed: list[str] = []
        self.webhook: Json = {"url": ""}
        self.faults: dict[str, list[Fault]] = {}
        self.refusals_429 = 0
        self.seconds_a_chunk = 0.0
        """A download comes in ten pieces, so many seconds apart."""
        self.before_confirming: Callable[[], None] = lambda: None
        self._files: dict[str, bytes] = {}
        self._told: dict[int, float] = {}
        self._sent: dict[object, deque[float]] = {}
        self._poll: asyncio.Event | None = None
        self._posting: asyncio.Task[None] | None = None
        self.me = {"id": 999, "is_bot": True, "first_name": "Meme", "username": "MemeBot"}

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=100_000_000)
        app.router.add_route("*", "/bot{token}/{method}", self._call)
        app.router.add_get("/file/bot{token}/{file:.+}", self._download)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.address = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._posting:
            self._posting.cancel()
            with suppress(asyncio.CancelledError):
                await self._posting
        await self._runner.cleanup()

    @property
    def base(self) -> str:
        return f"{self.address}/bot"

    @property
    def file_base(self) -> str:
        return f"{self.address}/file/bot"

    def private(self, user: int = 7) -> Chat:
        return self.chats.setdefault(user, Chat(self, user, "private"))

    def group(self, number: int = -1001, *, bot: str = "member", kind: str = "supergroup") -> Chat:
        return self.chats.setdefault(number, Chat(self, number, kind, bot=bot, title=f"group {-number}"))

    def file(self, data: bytes) -> str:
        name = f"f{next(self.numbers)}"
        self._files[name] = data
        return name

    def fail(self, method: str, fault: Fault) -> None:
        self.faults.setdefault(method, []).append(fault)

    def called(self, method: str) -> list[Json]:
        return [parameters for name, parameters in self.calls if name == method]

    def tell(self, kind: str, content: Json) -> None:
        """An update, for those who asked for its kind."""
        optional = ("message_reaction", "message_reaction_count", "chat_member")
        if kind not in self.allowed and (self.allowed or kind in optional):
            return
        number = next(self.numbers)
        self._told[number] = time.monotonic()
        self.updates.append({"update_id": number, kind: content})
        if self._poll:
            self._poll.set()

    async def until(self, condition: Callable[[], object], seconds: float = 30.0) -> None:
        """Wait for something that the bot does."""
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.01)

    async def _call(self, request: web.Request) -> web.StreamResponse:
        method = request.match_info["method"]
        parameters = await _parameters(request)
        self.calls.append((method, parameters))
        try:
            if request.match_info["token"] != TOKEN:
                raise Refused(401, "Unauthorized")
            fault = self._fault(method)
            if fault and not fault.after:
                raise _as_refusal(fault)
            handler = getattr(self, f"_{method}", None)
            if handler is None:
                raise Refused(404, "Not Found")
            if (method.startswith("send") and method not in NOT_MESSAGES) or method.startswith("edit"):
                self._check_flood(int(parameters["chat_id"]), edits=method.startswith("edit"))
            result = await handler(parameters)
            if fault:
                raise _as_refusal(fault)
        except Refused as error:
            body = {"ok": False, "error_code": error.status, "description": error.description}
            body |= {"parameters": error.parameters} if error.parameters else {}
            return web.json_response(body, status=error.status)
        return web.json_response({"ok": True, "result": result})

    async def _download(self, request: web.Request) -> web.StreamResponse:
        data = self._files.get(request.match_info["file"].removeprefix("photos/"))
        fault = self._fault("download")
        if request.match_info["token"] != TOKEN or data is None:
            return web.Response(status=404)
        if fault:
            return web.Response(status=fault.status)
        response = web.StreamResponse()
        response.content_length = len(data)
        await response.prepare(request)
        step = len(data) // 10 + 1
        for start in range(0, len(data), step):
            await asyncio.sleep(self.seconds_a_chunk)
            await response.write(data[start : start + step])
        return response

    def _fault(self, method: str) -> Fault | None:
        faults = self.faults.get(method, [])
        if not faults:
            return None
        faults[0].times -= 1
        return faults[0] if faults[0].times else faults.pop(0)

    def _check_flood(self, chat: int, *, edits: bool) -> None:
        now = time.monotonic()
        limits = [(("all",), self.rules.everywhere)]
        if not edits:
            limits += [((chat,), self.rules.chat)]
            limits += [((chat, "group"), self.rules.group)] if chat < 0 else []
        for key, (count, seconds) in limits:
            times = self._sent.setdefault(key, deque(maxlen=count))
            if len(times) == count and now - times[0] < seconds:
                self.refusals_429 += 1
                raise Refused(429, "Too Many Requests: retry after 1", retry_after=1)
        for key, (count, _) in limits:
            self._sent.setdefault(key, deque(maxlen=count)).append(now)

    async def _getMe(self, _: Json) -> Json:  # noqa: N802, these are Telegram's names
        return self.me | {"can_read_all_group_messages": not self.privacy}

    async def _getUpdates(self, given: Json) -> list[Json]:  # noqa: N802
        if self.webhook["url"]:
            raise Refused(409, "Conflict: can't use getUpdates method while webhook is active")
        if self._poll:
            self._poll.set()
        self.allowed = given.get("allowed_updates") or self.allowed
        offset = int(given.get("offset") or 0)
        if any(update["update_id"] < offset for update in self.updates):
            self.before_confirming()
        self._confirm(offset)
        if not self.updates:
            self._poll = mine = asyncio.Event()
            with suppress(TimeoutError):
                await asyncio.wait_for(mine.wait(), min(float(given.get("timeout", 0)), 2.0))
            if self._poll is not mine:
                raise Refused(409, "Conflict: terminated by other getUpdates request")
            self._poll = None
        return self.updates[:100]

    def _confirm(self, offset: int) -> None:
        """Everything below has arrived."""
        now = time.monotonic()
        numbers = [update["update_id"] for update in self.updates if update["update_id"] < offset]
        self.acknowledged |= {number: now - self._told.pop(number) for number in numbers}
        self.updates = [update for update in self.updates if update["update_id"] >= offset]
        self.confirmed = max(self.confirmed, offset)

    async def _setWebhook(self, given: Json) -> bool:  # noqa: N802
        self.webhook, self.allowed = given, given["allowed_updates"]
        self._posting = asyncio.create_task(self._post_updates())
        return True

    async def _deleteWebhook(self, _: Json) -> bool:  # noqa: N802
        self.webhook = {"url": ""}
        return True

    async def _getWebhookInfo(self, _: Json) -> Json:  # noqa: N802
        waiting = {"pending_update_count": len(self.updates), "has_custom_certificate": False}
        error = {k: v for k, v in self.webhook.items() if k.startswith("last_error")}
        return {"url": self.webhook["url"]} | waiting | error

    async def _post_updates(self) -> None:
        """One after the other, each until it is taken."""
        async with aiohttp.ClientSession() as session:
            headers = {"X-Telegram-Bot-Api-Secret-Token": self.webhook["secret_token"]}
            while True:
                while not self.updates:
                    await asyncio.sleep(0.01)
                with suppress(aiohttp.ClientError):
                    async with session.post(self.webhook["url"], json=self.updates[0], headers=headers) as response:
                        if response.ok:
                            self._confirm(self.updates[0]["update_id"] + 1)

    async def _getFile(self, given: Json) -> Json:  # noqa: N802
        data = self._files.get(given["file_id"])
        if data is None:
            raise Refused(400, "Bad Request: wrong file_id or the file is temporarily unavailable")
        if len(data) > MAX_DOWNLOAD:
            raise Refused(400, "Bad Request: file is too big")
        path = f"photos/{given['file_id']}"
        return {"file_id": given["file_id"], "file_unique_id": "u", "file_size": len(data), "file_path": path}

    async def _sendMessage(self, given: Json) -> Json:  # noqa: N802
        if len(given["text"]) > 4096:
            raise Refused(400, "Bad Request: message is too long")
        return self._sent_message(given, text=given["text"])

    async def _sendPhoto(self, given: Json) -> Json:  # noqa: N802
        data = given["photo"]
        if len(data) > self.rules.max_photo:
            raise Refused(413, "Request Entity Too Large")
        width, height = Image.open(io.BytesIO(data)).size
        if width + height > 10_000 or max(width, height) > 20 * min(width, height):
            raise Refused(400, "Bad Request: PHOTO_INVALID_DIMENSIONS")
        photo = {"file_id": self.file(data), "file_unique_id": "p", "width": width, "height": height}
        spoiler = {"has_media_spoiler": True} if given.get("has_spoiler") else {}
        return self._sent_message(given, file=data, photo=[photo], **spoiler)

    async def _sendAnimation(self, given: Json) -> Json:  # noqa: N802
        if not (given["animation"].startswith(b"GIF8") or given["animation"][4:8] == b"ftyp"):
            raise Refused(400, "Bad Request: wrong type of the animation")
        return self._sent_message(given, file=given["animation"], kind="animation")

    async def _sendDocument(self, given: Json) -> Json:  # noqa: N802
        return self._sent_message(given, file=given["document"], kind="document")

    def _sent_message(self, given: Json, **content: Any) -> Json:
        chat = self.chats.get(int(given["chat_id"]))
        if chat is None or chat.bot_status == "kicked":
            raise Refused(403, "Forbidden: bot was kicked from the group chat")
        if chat.became:
            upgraded = "Bad Request: group chat was upgraded to a supergroup chat"
            raise Refused(400, upgraded, migrate_to_chat_id=chat.became.id)
        thread = given.get("message_thread_id")
        if thread and int(thread) not in chat.topics:
            raise Refused(400, "Bad Request: message thread not found")
        to = given.get("reply_parameters", {})
        if to and to["message_id"] not in chat.messages and not to.get("allow_sending_without_reply"):
            raise Refused(400, "Bad Request: message to be replied not found")
        for row in given.get("reply_markup", {}).get("inline_keyboard", []):
            if any(len(button["callback_data"].encode()) > 64 for button in row):
                raise Refused(400, "Bad Request: BUTTON_DATA_INVALID")
        kept = {key: given[key] for key in ("reply_markup", "caption") if key in given}
        placed = {"message_thread_id": int(thread), "is_topic_message": True} if thread else {}
        message = chat.add(self.me, **content, **kept, **placed, answers=to.get("message_id"))
        return _visible(message)

    async def _editMessageReplyMarkup(self, given: Json) -> Json:  # noqa: N802
        message = self._message(given)
        if message["from"]["id"] != self.me["id"]:
            raise Refused(400, "Bad Request: message can't be edited")
        if message["reply_markup"] == given["reply_markup"]:
            raise Refused(400, "Bad Request: message is not modified")
        message["reply_markup"] = given["reply_markup"]
        return _visible(message)

    async def _deleteMessage(self, given: Json) -> bool:  # noqa: N802
        self._message(given)
        del self.chats[int(given["chat_id"])].messages[int(given["message_id"])]
        return True

    def _message(self, given: Json) -> Json:
        message = self.chats[int(given["chat_id"])].messages.get(int(given["message_id"]))
        if message is None:
            raise Refused(400, "Bad Request: message not found")
        return message

    async def _answerCallbackQuery(self, given: Json) -> bool:  # noqa: N802
        if given["callback_query_id"] not in self.queries:
            raise Refused(400, "Bad Request: query is too old and response timeout expired or query ID is invalid")
        self.queries.discard(given["callback_query_id"])
        self.answers[given["callback_query_id"]] = given
        return True

    async def _sendChatAction(self, _: Json) -> bool:  # noqa: N802
        return True

    async def _setMyCommands(self, _: Json) -> bool:  # noqa: N802
        return True

    async def _getChat(self, given: Json) -> Json:  # noqa: N802
        chat = self.chats[int(given["chat_id"])]
        return chat.as_json() | {"accent_color_id": 1, "max_reaction_count": 3, "accepted_gift_types": _no_gifts()}

    async def _getChatMember(self, given: Json) -> Json:  # noqa: N802
        chat, user = self.chats[int(given["chat_id"])], int(given["user_id"])
        status = chat.bot_status if user == self.me["id"] else chat.members.get(user, "member")
        member: Json = {"status": status, "user": _person(user)}
        return member | (_every_right() if status == "administrator" else {})


def _person(user: int) -> Json:
    return {"id": user, "is_bot": False, "first_name": f"User {user}"}


def _has_media(content: Json) -> bool:
    return bool({"photo", "document", "sticker", "animation", "video"} & content.keys())


def _visible(message: Json) -> Json:
    """A message as the API tells it: no other markup than buttons, and nothing of this fake's own notes."""
    hidden = {"file", "kind", "answers"}
    hidden |= {"from"} if not message["from"]["id"] else set()
    hidden |= {"reply_markup"} if "inline_keyboard" not in message.get("reply_markup", {}) else set()
    return {key: value for key, value in message.items() if key not in hidden}


def _reactions(emoji: Iterable[str]) -> list[Json]:
    custom = {"type": "custom_emoji"}
    return [custom | {"custom_emoji_id": e} if e.isdigit() else {"type": "emoji", "emoji": e} for e in emoji]


async def _parameters(request: web.Request) -> Json:
    """Form fields, decoded from JSON where they are such; files as bytes."""
    given: Json = dict(request.query)
    if request.content_type.startswith("multipart/"):
        for key, (name, data) in (await fields(request)).items():
            given[key] = data if name else _value(key, data.decode())
    else:
        given |= {key: _value(key, str(value)) for key, value in (await request.post()).items()}
    return given


def _value(key: str, text: str) -> Any:
    return json.loads(text) if text[:1] in "[{" and key not in ("text", "caption") else text


def _as_refusal(fault: Fault) -> Refused:
    wait = {"retry_after": fault.retry_after} if fault.retry_after else {}
    return Refused(fault.status, fault.description, **wait)


def _no_gifts() -> Json:
    kinds = ("unlimited_gifts", "limited_gifts", "unique_gifts", "premium_subscription", "gifts_from_channels")
    return dict.fromkeys(kinds, False)


def _every_right() -> Json:
    rights = ("can_be_edited", "is_anonymous", "can_manage_chat", "can_delete_messages", "can_manage_video_chats")
    more = ("can_restrict_members", "can_promote_members", "can_change_info", "can_invite_users", "can_post_stories")
    return dict.fromkeys(rights + more + ("can_edit_stories", "can_delete_stories"), True)
