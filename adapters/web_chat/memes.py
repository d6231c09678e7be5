"""The handlers of memes: post, list, look at, vote, ask for another, be forgotten."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

from aiohttp import web

from bot.events import BadRequest, Failed, ImagePosted, ReactionChanged, Service

from . import form, voter, wire
from .upload import Upload, receive

PLATFORM = "web"
CHAT = "page"

_KEEP = {"Cache-Control": "private, max-age=3600"}
_NO_STORE = {"Cache-Control": "no-store"}
_MEME = r"{meme:[\w-]{1,64}}"


class Memes:
    """Translates between HTTP and the service."""

    def __init__(self, service: Callable[[], Service], *, spool: Path, max_bytes: int) -> None:
        self._service = service
        self._spool = spool
        self._max_bytes = max_bytes

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/api/memes", self.post),
            web.get("/api/memes", self.latest),
            web.post(f"/api/memes/{_MEME}/redo", self.redo),
            web.post(f"/api/memes/{_MEME}/text", self.own_text),
            web.put(f"/api/memes/{_MEME}/reactions/{{emoji}}", self.react),
            web.delete(f"/api/memes/{_MEME}/reactions/{{emoji}}", self.react),
            web.delete("/api/me", self.forget),
            web.get(f"/memes/{_MEME}", self.picture),
            web.get(f"/memes/{_MEME}/attention", self.attention),
        ]

    async def post(self, request: web.Request) -> web.Response:
        service = self._service()
        async with receive(request, self._spool, self._max_bytes) as upload:
            reply = await service.post(_event(upload, voter.identify(request)))
        if reply is None:
            raise Failed("The bot chose not to answer this picture.")
        return _json(wire.reply(reply))

    async def latest(self, request: web.Request) -> web.Response:
        memes = await self._service().latest(PLATFORM, CHAT, voter.identify(request))
        return _json({"memes": [wire.record(meme) for meme in memes]})

    async def redo(self, request: web.Request) -> web.Response:
        wish = await body(request)
        reply = await self._service().redo(
            request.match_info["meme"],
            voter.identify(request),
            candidate=form.whole_number("candidate", wish.get("candidate")),
            seed=form.whole_number("seed", wish.get("seed")),
        )
        return _json(wire.reply(reply))

    async def own_text(self, request: web.Request) -> web.Response:
        boxes = form.boxes((await body(request)).get("boxes"))
        reply = await self._service().own_text(request.match_info["meme"], voter.identify(request), boxes)
        return _json(wire.reply(reply))

    async def react(self, request: web.Request) -> web.Response:
        """PUT adds the voter's emoji, DELETE takes it off; the answer holds the counts."""
        service, meme, user = self._service(), request.match_info["meme"], voter.identify(request)
        added = request.method == "PUT"
        await service.react(ReactionChanged(PLATFORM, user, request.match_info["emoji"], added=added, meme=meme))
        return _json(wire.votes(await service.record(meme, user)))

    async def forget(self, request: web.Request) -> web.Response:
        """The voter's memes and votes are gone, and nothing is learnt from them any more."""
        forgotten = await self._service().forget(PLATFORM, voter.identify(request))
        return _json({"memes": forgotten.memes, "votes": forgotten.reactions})

    async def picture(self, request: web.Request) -> web.Response:
        meme = request.match_info["meme"]
        data, content_type = await self._service().picture(meme)
        headers = dict(_KEEP)
        if "download" in request.query:
            ending = content_type.partition("/")[2].replace("jpeg", "jpg")
            headers["Content-Disposition"] = f'attachment; filename="quipbot-{meme}.{ending}"'
        return web.Response(body=data, content_type=content_type, headers=headers)

    async def attention(self, request: web.Request) -> web.Response:
        data = await self._service().explain(request.match_info["meme"])
        return web.Response(body=data, content_type="image/png", headers=_KEEP)


def _event(upload: Upload, user: str) -> ImagePosted:
    fields = upload.fields
    context, own_boxes = form.words(fields.get("text", ""))
    candidates = form.whole_number("number of captions", fields.get("n"))
    return ImagePosted(
        platform=PLATFORM,
        chat=CHAT,
        message=uuid4().hex,
        user=user,
        fetch=upload.fetch,
        text=context,
        own_boxes=own_boxes,
        style=form.style(fields.get("style")),
        seed=form.whole_number("seed", fields.get("seed")),
        candidates=form.CANDIDATES if candidates is None else candidates,
    )


async def body(request: web.Request) -> dict[str, Any]:
    """A JSON object; no body is an empty one."""
    try:
        value = json.loads(await request.read() or b"{}")
    except (ValueError, RecursionError):
        raise BadRequest("The request's body is not JSON.") from None
    if not isinstance(value, dict):
        raise BadRequest("The request's body must be a JSON object.")
    return value


def _json(value: dict[str, Any]) -> web.Response:
    return web.json_response(value, headers=_NO_STORE)
