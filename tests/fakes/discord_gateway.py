"""The loopback Discord's gateway: compressed, with heartbeats, intents, resuming, and the ways it can fail."""

import asyncio
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

from aiohttp import WSCloseCode, WSMsgType, web

from tests.fakes.discord_world import APPLICATION, Json, user

MESSAGE_CONTENT = 1 << 15
NEEDED = {
    "MESSAGE_CREATE": 1 << 9 | 1 << 12,
    "MESSAGE_DELETE": 1 << 9 | 1 << 12,
    "MESSAGE_REACTION": 1 << 10 | 1 << 13,
    "GUILD": 1 << 0,
}
"""Events to the intents that bring them."""


@dataclass
class Session:
    """What a client identified as, and the events it was sent: they are replayed when it resumes."""

    id: str
    intents: int
    shard: tuple[int, int]
    events: list[Json] = field(default_factory=list)
    socket: web.WebSocketResponse | None = None
    squeeze: Callable[[bytes], bytes] | None = None
    unsent: set[str] = field(default_factory=set)
    """Ids of what happened while there was no connection; a resumption tells of it."""

    async def send(self, packet: Json) -> None:
        if self.socket is None or self.socket.closed:
            self.unsent.add((packet["d"] or {}).get("id", ""))
            return
        data = json.dumps(packet).encode()
        try:
            if self.squeeze is None:
                await self.socket.send_str(data.decode())
            else:
                await self.socket.send_bytes(self.squeeze(data))
        except ConnectionError:
            self.socket = None
            self.unsent.add((packet["d"] or {}).get("id", ""))


class Gateway:
    """Accepts connections, and sends events to those sessions whose intents ask for them."""

    def __init__(self, token: str, guilds: Callable[[], list[Json]], *, content_allowed: bool) -> None:
        self.token = token
        self.guilds = guilds
        self.content_allowed = content_allowed
        self.interval = 41_250
        """Milliseconds between heartbeats."""
        self.sessions: dict[str, Session] = {}
        self.identified: list[Json] = []
        self.resumed = 0
        self.heartbeats = 0
        self.refuse_resume = False
        self.refusals = 0
        """How many of the next connections are not taken."""
        self.compresses = True
        self.missed: set[str] = set()
        """Ids of what happened while nobody listened, and was not told later either."""
        self.connected = asyncio.Event()

    async def handle(self, request: web.Request) -> web.WebSocketResponse:
        if request.query.get("encoding") != "json" or request.query.get("v") != "10":
            raise web.HTTPBadRequest
        if self.refusals:
            self.refusals -= 1
            raise web.HTTPServiceUnavailable
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        link = Session("", 0, (0, 1), socket=socket, squeeze=_squeeze(request.query.get("compress")))
        if not self.compresses:
            link.squeeze = None
        await link.send({"op": 10, "d": {"heartbeat_interval": self.interval}, "s": None, "t": None})
        async for message in socket:
            if message.type is not WSMsgType.TEXT:
                break
            link = await self._received(link, json.loads(message.data))
        return socket

    async def dispatch(self, event: str, data: Json, *, guild: str | None = None) -> None:
        """An event to every session that is responsible for the server and wants such events."""
        needed = next((bits for name, bits in NEEDED.items() if event.startswith(name)), ~0)
        for session in list(self.sessions.values()):
            shard, count = session.shard
            if session.intents & needed and (int(guild or 0) >> 22) % count == shard:
                await self._event(session, event, data)

    async def drop(self, code: int = WSCloseCode.GOING_AWAY) -> None:
        """Close every connection; clients may resume."""
        for session in self.sessions.values():
            socket, session.socket = session.socket, None
            if socket is not None:
                await socket.close(code=code)

    async def ask_to_reconnect(self) -> None:
        for session in self.sessions.values():
            await session.send({"op": 7, "d": None, "s": None, "t": None})

    def sees_content(self) -> bool:
        return any(session.intents & MESSAGE_CONTENT for session in self.sessions.values())

    async def _received(self, link: Session, packet: Json) -> Session:
        """What a client sent; the session that the connection belongs to from now on."""
        if packet["op"] == 1:
            self.heartbeats += 1
            await link.send({"op": 11, "d": None, "s": None, "t": None})
        elif packet["op"] == 2:
            return await self._identify(link, packet["d"])
        elif packet["op"] == 6:
            return await self._resume(link, packet["d"])
        return link

    async def _identify(self, link: Session, data: Json) -> Session:
        assert link.socket
        self.identified.append(data)
        if data["token"] != self.token:
            await link.socket.close(code=4004)
        elif data["intents"] & MESSAGE_CONTENT and not self.content_allowed:
            await link.socket.close(code=4014)
        else:
            link.id = f"session{len(self.identified)}"
            link.intents, link.shard = data["intents"], tuple(data.get("shard", (0, 1)))
            for old in [session for session in self.sessions.values() if session.shard == link.shard]:
                self.missed |= self.sessions.pop(old.id).unsent
            self.sessions[link.id] = link
            await self._welcome(link)
        return link

    async def _welcome(self, link: Session) -> None:
        ours = [g for g in self.guilds() if (int(g["id"]) >> 22) % link.shard[1] == link.shard[0]]
        ready = {
            "v": 10,
            "user": user(APPLICATION, bot=True),
            "guilds": [{"id": guild["id"], "unavailable": True} for guild in ours],
            "session_id": link.id,
            "resume_gateway_url": "wss://elsewhere.invalid/",
            "application": {"id": APPLICATION, "flags": 0},
            "shard": list(link.shard),
        }
        await self._event(link, "READY", ready)
        for guild in ours:
            await self._event(link, "GUILD_CREATE", guild)
        self.connected.set()

    async def _resume(self, link: Session, data: Json) -> Session:
        session = self.sessions.get(data["session_id"])
        if session is None or self.refuse_resume or data["token"] != self.token:
            self.missed |= {packet["d"].get("id", "") for packet in session.events[data["seq"] :]} if session else set()
            await link.send({"op": 9, "d": False, "s": None, "t": None})
            return link
        session.socket, session.squeeze = link.socket, link.squeeze
        session.unsent.clear()
        for packet in session.events[data["seq"] :]:
            await session.send(packet)
        self.resumed += 1
        await self._event(session, "RESUMED", {})
        return session

    async def _event(self, session: Session, event: str, data: Json) -> None:
        packet = {"op": 0, "t": event, "s": len(session.events) + 1, "d": data}
        session.events.append(packet)
        await session.send(packet)


def _squeeze(kind: str | None) -> Callable[[bytes], bytes] | None:
    """One stream a connection, flushed after each packet."""
    if kind is None:
        return None
    if kind != "zlib-stream":
        raise web.HTTPBadRequest
    stream = zlib.compressobj()
    return lambda data: stream.compress(data) + stream.flush(zlib.Z_SYNC_FLUSH)
