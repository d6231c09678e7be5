"""Server-sent events: every open window hears of new memes, of votes, and of memes that are forgotten."""

import asyncio
import json
from contextlib import aclosing, suppress
from typing import Any

from aiohttp import web

from bot.events import Change, Changes, NotFound, Service

from . import voter, wire

HEARTBEAT_SECONDS = 15
_HEARTBEAT = b": still here\n\n"
_HELLO = b"retry: 1000\n" + _HEARTBEAT
_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",
}


class Feed:
    """The open streams. Events are named `meme` and `reactions`, their data is a meme as `wire.record` gives it; or
    `gone`, with nothing but the `id` of a meme that is forgotten.

    Whoever connects again asks for the last memes once: what happened in between is not repeated here.
    """

    def __init__(self) -> None:
        self._open: set[Changes] = set()

    async def stream(self, request: web.Request, service: Service, platform: str, chat: str) -> web.StreamResponse:
        """Tell one window of every change until it leaves or the feed is closed."""
        response = web.StreamResponse(headers=_HEADERS)
        async with aclosing(service.changes(platform, chat)) as changes:
            self._open.add(changes)
            try:
                with suppress(ConnectionError):  # the window was closed
                    await response.prepare(request)
                    await response.write(_HELLO)
                    await _tell(response, service, changes, voter.known(request))
            finally:
                self._open.discard(changes)
        return response

    async def close(self) -> None:
        """End every stream."""
        for changes in list(self._open):
            await changes.aclose()


async def _tell(response: web.StreamResponse, service: Service, changes: Changes, user: str) -> None:
    while True:
        try:
            async with asyncio.timeout(HEARTBEAT_SECONDS):
                change = await anext(changes)
        except TimeoutError:
            await response.write(_HEARTBEAT)
            continue
        except StopAsyncIteration:
            return
        await response.write(await _message(service, change, user))


async def _message(service: Service, change: Change, user: str) -> bytes:
    # The change is the same for every window; which votes are "mine" is not.
    try:
        meme = await service.record(change.meme, user)
    except NotFound:  # as was to be told, or forgotten meanwhile
        return _event("gone", {"id": change.meme})
    return _event(change.kind, wire.record(meme))


def _event(kind: str, data: dict[str, Any]) -> bytes:
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n".encode()
