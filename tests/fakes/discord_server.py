"""A Discord on loopback: REST, gateway, CDN and interactions, with the rules that bots break.

Methods in the user's voice (`post`, `slash`, `press`, `react` …) do what people do; what the bot did is in the
channels. Breaches of the rules are collected in `breaches`.
"""

import asyncio
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.fakes.discord_gateway import Gateway
from tests.fakes.discord_world import (
    APPLICATION,
    EPHEMERAL,
    LOADING,
    MEMBER_PERMISSIONS,
    Channel,
    Guild,
    Json,
    Message,
    emoji_json,
    member,
    snowflake,
    user,
)
from tests.fakes.forms import fields

ACKNOWLEDGE = 3.0
TAKEN = 0
"""The status of a request that is served, and whose answer never arrives."""
OPTION_TYPES = {str: 3, int: 4, bool: 5, float: 10}


class RefusalError(Exception):
    """An error as Discord words it."""

    def __init__(self, status: int, code: int, words: str) -> None:
        super().__init__(words)
        self.status, self.code = status, code


@dataclass
class Interaction:
    """Something that a user did with the bot, and what became of it."""

    id: str
    token: str
    channel: Channel
    since: float
    limit: int
    about: Message | None = None
    acknowledged: float | None = None
    """Seconds that the acknowledgement took."""
    answer: Message | None = None
    updates: bool = False
    """The answer is the message that a button hangs on."""
    modal: Json | None = None
    followups: list[Message] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_answered(self) -> bool:
        return bool(self.answer) and not self.answer.flags & LOADING and not self.answer.content.endswith("…")

    async def answered(self, seconds: float = 30) -> Message:
        """The answer, once it is more than a promise."""
        return await self.until(lambda: self.is_answered, seconds)

    async def until(self, done: Any, seconds: float = 30) -> Any:
        async with asyncio.timeout(seconds):
            while not done():
                self.changed.clear()
                await self.changed.wait()
        return self.answer


class Discord:
    """`async with Discord() as discord:` serves on a free port until the block ends."""

    def __init__(self, token: str = "token", *, content_allowed: bool = True, port: int = 0) -> None:
        self.token = token
        self.port = port
        self.guilds: dict[str, Guild] = {}
        self.channels: dict[str, Channel] = {}
        self.files: dict[str, bytes] = {}
        self.commands: dict[str, Json] = {}
        self.interactions: dict[str, Interaction] = {}
        self.breaches: list[str] = []
        self.requests: list[str] = []
        self.faults: list[tuple[re.Pattern[str], int]] = []
        """Statuses with which the next requests that match fail."""
        self.upload_limit = 10 * 1024 * 1024
        self.real_upload_limit: int | None = None
        """What is enforced, where it is less than what is told."""
        self.cdn_delay = 0.0
        self.terse = False
        """As little is answered as a bot can live with."""
        self.shards = 1
        self.guild_count: int | None = None
        self._nonces: dict[tuple[str, str], Message] = {}
        self.gateway = Gateway(
            token, lambda: [guild.to_json() for guild in self.guilds.values()], content_allowed=content_allowed
        )
        self.changed = asyncio.Event()
        self._runner: web.AppRunner

    async def __aenter__(self) -> "Discord":
        app = web.Application(client_max_size=2**28)
        app.router.add_get("/gateway-ws", self.gateway.handle)
        app.router.add_get("/cdn/{file}/{name}", self._cdn)
        app.router.add_route("*", "/api/v10/{path:.*}", self._rest)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.gateway.drop()
        await self._runner.cleanup()

    @property
    def api_base(self) -> str:
        return f"http://127.0.0.1:{self.port}/api/v10"

    @property
    def gateway_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/gateway-ws"

    # the world

    def add_guild(self) -> Guild:
        guild = Guild(snowflake())
        self.guilds[guild.id] = guild
        return guild

    def add_channel(self, guild: Guild | None = None, **traits: Any) -> Channel:
        channel = Channel(snowflake(), guild.id if guild else None, **({} if guild else {"type": 1}) | traits)
        self.channels[channel.id] = channel
        if guild:
            guild.channels[channel.id] = channel
        return channel

    def attachment(self, data: bytes, name: str = "a.jpg", kind: str | None = "image/jpeg", **traits: Any) -> Json:
        number = snowflake()
        self.files[number] = data
        url = f"http://127.0.0.1:{self.port}/cdn/{number}/{name}"
        attachment = {"id": number, "filename": name, "size": len(data), "url": url, "proxy_url": url, **traits}
        return attachment | ({"content_type": kind} if kind else {})

    # what people do

    async def post(
        self,
        channel: Channel,
        author: str = "1",
        content: str = "",
        pictures: Sequence[bytes | Json] = (),
        *,
        reply_to: Message | None = None,
        bot: bool = False,
        **traits: Any,
    ) -> Message:
        attachments = [p if isinstance(p, dict) else self.attachment(p) for p in pictures]
        message = Message(snowflake(), channel, user(author, bot=bot), content, attachments, **traits)
        if reply_to:
            message.reference = {
                "message_id": reply_to.id,
                "channel_id": channel.id,
                "guild_id": channel.guild,
                "type": 0,
            }
        channel.messages[message.id] = message
        await self._announce(message)
        return message

    async def embed(self, message: Message, *embeds: Json) -> None:
        """Discord has found out what the message's links show."""
        message.embeds = list(embeds)
        await self._announce(message, "MESSAGE_UPDATE")

    async def delete(self, message: Message) -> None:
        message.channel.messages.pop(message.id, None)
        data = {"id": message.id, "channel_id": message.channel.id, "guild_id": message.channel.guild}
        await self.gateway.dispatch("MESSAGE_DELETE", _sparse(data), guild=message.channel.guild)
        self._notice()

    async def react(self, message: Message, number: str, emoji: str, *, added: bool = True, bot: bool = False) -> None:
        users = message.reactions.setdefault(emoji, {})
        if added == (number in users):
            return
        if added:
            users[number] = bot
        else:
            del users[number]
        if not users:
            del message.reactions[emoji]
        guild = message.channel.guild
        data = self._reaction(message) | {"user_id": number, "emoji": emoji_json(emoji), "type": 0, "burst": False}
        if added:
            data |= {"message_author_id": message.author["id"]}
            data |= {"member": member(number, bot=bot)} if guild else {}
        await self.gateway.dispatch(f"MESSAGE_REACTION_{'ADD' if added else 'REMOVE'}", data, guild=guild)

    async def clear(self, message: Message, emoji: str | None = None) -> None:
        guild, data = message.channel.guild, self._reaction(message)
        if emoji is None:
            message.reactions.clear()
            await self.gateway.dispatch("MESSAGE_REACTION_REMOVE_ALL", data, guild=guild)
        else:
            message.reactions.pop(emoji)
            data |= {"emoji": emoji_json(emoji)}
            await self.gateway.dispatch("MESSAGE_REACTION_REMOVE_EMOJI", data, guild=guild)

    async def slash(
        self, channel: Channel, name: str, options: Mapping[str, object] | None = None, **who: Any
    ) -> Interaction:
        """A command with its options; the value of a file's option is its bytes, or an attachment."""
        resolved: Json = {"attachments": {}}
        values = []
        for option, value in (options or {}).items():
            if isinstance(value, bytes | dict):
                attachment = value if isinstance(value, dict) else self.attachment(value)
                resolved["attachments"][attachment["id"]] = attachment
                values.append({"name": option, "type": 11, "value": attachment["id"]})
            else:
                values.append({"name": option, "type": OPTION_TYPES[type(value)], "value": value})
        data = {"id": self._command(name)["id"], "name": name, "type": 1, "options": values, "resolved": resolved}
        return await self._interact(channel, 2, data, **who)

    async def meme_this(self, message: Message, **who: Any) -> Interaction:
        resolved = {"messages": {message.id: message.to_json()}}
        command = self._command("Meme this")
        data = {"id": command["id"], "name": "Meme this", "type": 3, "target_id": message.id, "resolved": resolved}
        return await self._interact(message.channel, 2, data, **who)

    async def press(self, message: Message, label: str, **who: Any) -> Interaction:
        data = {"custom_id": message.buttons()[label], "component_type": 2}
        return await self._interact(message.channel, 3, data, about=message, **who)

    async def submit(self, form: Interaction, values: Mapping[str, str], **who: Any) -> Interaction:
        assert form.modal
        rows = [
            {"type": 1, "components": [{"type": 4, "custom_id": key, "value": value}]} for key, value in values.items()
        ]
        data = {"custom_id": form.modal["custom_id"], "components": rows}
        return await self._interact(form.channel, 5, data, about=form.about, **who)

    async def until(self, done: Any, seconds: float = 30) -> None:
        """Wait until something holds of what the bot did."""
        async with asyncio.timeout(seconds):
            while not done():
                self.changed.clear()
                await self.changed.wait()

    def memes(self, channel: Channel) -> list[Message]:
        """The bot's messages with pictures in a channel."""
        return [m for m in channel.messages.values() if m.author["id"] == APPLICATION and m.attachments]

    def said(self, channel: Channel) -> list[str]:
        """The bot's sentences in a channel."""
        return [m.content for m in channel.messages.values() if m.author["id"] == APPLICATION and m.content]

    async def _interact(
        self,
        channel: Channel,
        kind: int,
        data: Json,
        *,
        by: str = "1",
        permissions: str = MEMBER_PERMISSIONS,
        about: Message | None = None,
        app_permissions: str = MEMBER_PERMISSIONS,
        installed_by_user: bool = False,
    ) -> Interaction:
        interaction = Interaction(
            snowflake(), f"token{snowflake()}", channel, time.monotonic(), self.upload_limit, about
        )
        self.interactions[interaction.token] = interaction
        payload: Json = {
            "id": interaction.id,
            "application_id": APPLICATION,
            "type": kind,
            "data": data,
            "token": interaction.token,
            "version": 1,
            "channel_id": channel.id,
            "channel": channel.to_json(),
            "app_permissions": app_permissions,
            "locale": "en-US",
            "entitlements": [],
            "authorizing_integration_owners": {"1": by} if installed_by_user else {"0": channel.guild or "0"},
            "context": 0 if channel.guild else 1,
            "attachment_size_limit": self.upload_limit,
        }
        if channel.guild:
            payload |= {"guild_id": channel.guild, "guild": {"id": channel.guild, "locale": "en-US", "features": []}}
            payload |= {"member": member(by, permissions)}
        else:
            payload |= {"user": user(by)}
        if about is not None:
            payload["message"] = about.to_json()
        await self.gateway.dispatch("INTERACTION_CREATE", payload, guild=channel.guild)
        return interaction

    # REST

    async def _rest(self, request: web.Request) -> web.StreamResponse:
        path = f"{request.method} /{request.match_info['path']}"
        self.requests.append(path)
        status = self._fault(path)
        if status:
            headers = {"Retry-After": "0.05", "Via": "1.1 fake"} if status == 429 else {}
            return _json({"message": "fault", "code": 0, "retry_after": 0.05, "global": False}, status, headers)
        if request.headers.get("Authorization") != f"Bot {self.token}" and not re.match(
            r"\w+ /(webhooks|interactions)/", path
        ):
            return _json({"message": "401: Unauthorized", "code": 0}, 401)
        for pattern, handler in ROUTES:
            if found := re.fullmatch(pattern, path):
                try:
                    answer = await handler(self, request, *found.groups())
                except RefusalError as error:
                    return _json({"message": str(error), "code": error.code}, error.status)
                finally:
                    self._notice()
                if status == TAKEN:
                    await asyncio.sleep(3600)
                return web.Response(status=204) if answer is None else _json(answer)
        self.breaches.append(f"unknown route {path}")
        return _json({"message": "404: Not Found", "code": 0}, 404)

    def _fault(self, path: str) -> int | None:
        """The status with which a request is to fail."""
        found = next((fault for fault in self.faults if fault[0].match(path)), None)
        if found is None:
            return None
        self.faults.remove(found)
        return found[1]

    async def _me(self, _: web.Request) -> Json:
        return user(APPLICATION, bot=True)

    async def _application(self, _: web.Request) -> Json:
        return {
            "id": APPLICATION,
            "name": "quipbot",
            "description": "",
            "icon": None,
            "bot_public": True,
            "bot_require_code_grant": False,
            "owner": user("1"),
            "verify_key": "",
            "flags": 1 << 19 if self.gateway.content_allowed else 0,
            "approximate_guild_count": len(self.guilds) if self.guild_count is None else self.guild_count,
        }

    async def _gateway(self, _: web.Request) -> Json:
        if self.terse:
            return {"url": "ws://127.0.0.1:9/elsewhere"}
        limits = {"total": 1000, "remaining": 1000, "reset_after": 0, "max_concurrency": 16}
        return {"url": self.gateway_url, "shards": self.shards, "session_start_limit": limits}

    async def _register(self, request: web.Request) -> list[Json]:
        given = await request.json()
        self.commands = {
            c["name"]: c | {"id": snowflake(), "application_id": APPLICATION, "version": "1"} for c in given
        }
        if self.terse:
            return [{"id": c["id"]} for c in self.commands.values()]
        return [{"description": "", "default_member_permissions": None} | c for c in self.commands.values()]

    async def _callback(self, request: web.Request, number: str, token: str) -> Json | None:
        interaction = self.interactions.get(token)
        if interaction is None or interaction.id != number:
            raise RefusalError(404, 10062, "Unknown interaction")
        took = time.monotonic() - interaction.since
        if interaction.acknowledged is not None:
            self.breaches.append(f"{number} was acknowledged twice")
            raise RefusalError(400, 40060, "Interaction has already been acknowledged.")
        if took > ACKNOWLEDGE:
            self.breaches.append(f"{number} was acknowledged after {took:.1f} s")
            raise RefusalError(404, 10062, "Unknown interaction")
        payload, files = await self._body(request)
        interaction.acknowledged = took
        data = payload.get("data") or {}
        if payload["type"] == 4:
            interaction.answer = self._new(interaction, data, files)
        elif payload["type"] == 5:
            interaction.answer = self._new(interaction, {"flags": data.get("flags", 0) | LOADING}, [])
        elif payload["type"] == 6:
            interaction.answer, interaction.updates = interaction.about, True
        elif payload["type"] == 9:
            interaction.modal = data
        interaction.changed.set()
        if self.terse:
            return None
        answer = interaction.answer
        told: Json = {"interaction": {"id": number, "type": 2}}
        if answer is not None and payload["type"] in (4, 5):
            told["interaction"] |= {"response_message_id": answer.id}
            told["resource"] = {"type": payload["type"], "message": answer.to_json()}
        return told

    async def _edit_answer(self, request: web.Request, token: str) -> Json:
        interaction = self._acknowledged(token)
        assert interaction.answer
        payload, files = await self._body(request)
        self._fill(interaction.answer, payload, files)
        interaction.answer.flags &= ~LOADING
        interaction.changed.set()
        return interaction.answer.to_json()

    async def _show_answer(self, _: web.Request, token: str) -> Json:
        interaction = self._acknowledged(token)
        assert interaction.answer
        return interaction.answer.to_json()

    async def _delete_answer(self, _: web.Request, token: str) -> None:
        interaction = self._acknowledged(token)
        assert interaction.answer
        await self.delete(interaction.answer)
        interaction.changed.set()

    async def _send(self, request: web.Request, channel: str) -> Json:
        payload, files = await self._body(request)
        place = self._channel(channel)
        nonce = (channel, str(payload.get("nonce")))
        if payload.get("enforce_nonce") and nonce in self._nonces:
            return self._nonces[nonce].to_json()
        if payload.get("allowed_mentions", {}).get("parse") != []:
            self.breaches.append("a message may ping")
        if payload.get("message_reference") and place.history_hidden:
            raise RefusalError(403, 160002, "Cannot reply without permission to read message history")
        message = Message(snowflake(), place, user(APPLICATION, bot=True), reference=payload.get("message_reference"))
        self._fill(message, payload, files)
        place.messages[message.id] = message
        self._nonces[nonce] = message
        await self._announce(message)
        return message.to_json()

    async def _message(self, _: web.Request, channel: str, number: str) -> Json:
        message = self._channel(channel).messages.get(number)
        if message is None:
            raise RefusalError(404, 10008, "Unknown Message")
        return self._visible(message)

    async def _history(self, request: web.Request, channel: str) -> list[Json]:
        messages = list(self._channel(channel).messages.values())[::-1]
        if before := request.query.get("before"):
            messages = [m for m in messages if int(m.id) < int(before)]
        shown = [m for m in messages if not m.flags & EPHEMERAL]
        return [self._visible(m) for m in shown[: int(request.query.get("limit", 50))]]

    async def _delete(self, _: web.Request, channel: str, number: str) -> None:
        message = self._channel(channel).messages.get(number)
        if message is None:
            raise RefusalError(404, 10008, "Unknown Message")
        await self.delete(message)

    async def _add_reaction(self, _: web.Request, channel: str, number: str, emoji: str) -> None:
        message = self._channel(channel).messages.get(number)
        if message is None:
            raise RefusalError(404, 10008, "Unknown Message")
        await self.react(message, APPLICATION, emoji, bot=True)

    async def _type(self, _: web.Request, channel: str) -> None:
        self._channel(channel)

    async def _reactors(self, request: web.Request, channel: str, number: str, emoji: str) -> list[Json]:
        users = self._channel(channel).messages[number].reactions.get(emoji, {})
        after = int(request.query.get("after", 0))
        later = sorted((u for u in users if int(u) > after), key=int)
        return [user(u, bot=users[u]) for u in later[: int(request.query.get("limit", 25))]]

    async def _cdn(self, request: web.Request) -> web.Response:
        await asyncio.sleep(self.cdn_delay)
        path = f"CDN {request.path}"
        self.requests.append(path)
        if status := self._fault(path):
            return web.Response(status=status)
        data = self.files.get(request.match_info["file"])
        return web.Response(status=404) if data is None else web.Response(body=data)

    async def _body(self, request: web.Request) -> tuple[Json, list[tuple[Json, bytes]]]:
        """The payload, and each file with what the payload says of it."""
        if not request.content_type.startswith("multipart/"):
            return await request.json(), []
        form = await fields(request)
        payload = json.loads(form["payload_json"][1])
        limit = self.upload_limit if self.real_upload_limit is None else self.real_upload_limit
        files = []
        for part in payload.get("attachments") or payload.get("data", {}).get("attachments", []):
            name, data = form[f"files[{part['id']}]"]
            files.append((part | {"filename": part.get("filename") or name}, data))
        if any(len(data) > limit for _, data in files):
            raise RefusalError(413, 40005, "Request entity too large")
        return payload, files

    def _new(self, interaction: Interaction, data: Json, files: list[tuple[Json, bytes]]) -> Message:
        message = Message(snowflake(), interaction.channel, user(APPLICATION, bot=True), webhook=APPLICATION)
        message.flags = data.get("flags", 0)
        self._fill(message, data, files)
        if not message.flags & EPHEMERAL:
            interaction.channel.messages[message.id] = message
        return message

    def _fill(self, message: Message, payload: Json, files: list[tuple[Json, bytes]]) -> None:
        message.content = payload.get("content", message.content) or ""
        if len(message.content) > 2000:
            raise RefusalError(400, 50035, "Invalid Form Body")
        message.components = payload.get("components", message.components)
        if files or payload.get("attachments") == []:
            message.attachments = [
                self.attachment(data, part["filename"], "image/jpeg", description=part.get("description"))
                for part, data in files
            ]
            message.files = [data for _, data in files]
        message.edited += 1

    def _acknowledged(self, token: str) -> Interaction:
        interaction = self.interactions.get(token)
        if interaction is None or interaction.answer is None:
            raise RefusalError(404, 10015, "Unknown Webhook")
        return interaction

    def _channel(self, number: str) -> Channel:
        if number not in self.channels:
            raise RefusalError(404, 10003, "Unknown Channel")
        return self.channels[number]

    def _command(self, name: str) -> Json:
        return self.commands[name]

    def _visible(self, message: Message) -> Json:
        """A message as the bot may see it."""
        shown = (
            self.gateway.sees_content()
            or message.channel.guild is None
            or message.author["id"] == APPLICATION
            or message.mentions(APPLICATION)
        )
        return message.to_json(hidden=not shown)

    def _reaction(self, message: Message) -> Json:
        data = {"channel_id": message.channel.id, "message_id": message.id, "guild_id": message.channel.guild}
        return _sparse(data)

    async def _announce(self, message: Message, event: str = "MESSAGE_CREATE") -> None:
        data = self._visible(message)
        if message.reference and (original := message.channel.messages.get(message.reference["message_id"])):
            data["referenced_message"] = self._visible(original)
        guild = message.channel.guild
        if guild:
            data |= {
                "guild_id": guild,
                "member": {k: v for k, v in member(message.author["id"]).items() if k != "user"},
            }
        await self.gateway.dispatch(event, data, guild=guild)

    def _notice(self) -> None:
        self.changed.set()


HOOK = rf"/webhooks/{APPLICATION}/([^/]+)/messages/@original"
ROUTES: tuple[tuple[str, Any], ...] = (
    (r"GET /users/@me", Discord._me),
    (r"GET /oauth2/applications/@me", Discord._application),
    (r"GET /gateway/bot", Discord._gateway),
    (rf"PUT /applications/{APPLICATION}/commands", Discord._register),
    (r"POST /interactions/(\d+)/([^/]+)/callback", Discord._callback),
    (rf"PATCH {HOOK}", Discord._edit_answer),
    (rf"GET {HOOK}", Discord._show_answer),
    (rf"DELETE {HOOK}", Discord._delete_answer),
    (r"POST /channels/(\d+)/messages", Discord._send),
    (r"GET /channels/(\d+)/messages", Discord._history),
    (r"GET /channels/(\d+)/messages/(\d+)", Discord._message),
    (r"DELETE /channels/(\d+)/messages/(\d+)", Discord._delete),
    (r"POST /channels/(\d+)/typing", Discord._type),
    (r"PUT /channels/(\d+)/messages/(\d+)/reactions/([^/]+)/@me", Discord._add_reaction),
    (r"GET /channels/(\d+)/messages/(\d+)/reactions/([^/]+)", Discord._reactors),
)


def _json(data: object, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Exactly `application/json`: the library takes nothing else for JSON."""
    all_headers = {"Content-Type": "application/json", **(headers or {})}
    return web.Response(body=json.dumps(data).encode(), status=status, headers=all_headers)


def _sparse(data: Json) -> Json:
    """Without what is null: Discord leaves the server out of direct messages."""
    return {key: value for key, value in data.items() if value is not None}
