"""The HTTP server: chat page, memes, feed, health and metrics, on loopback unless a token guards it.

    POST   /api/memes                        multipart `image`; optional `text`, `style`, `seed`, `n`
                                             → {"id", "url", "alt", "boxes", "seed", "model", "candidates"}
    GET    /api/memes                        {"memes": […]}: the last ones whose pictures are kept, oldest first, each
                                             as above with `created`, `reactions` (emoji → count) and `mine` (the
                                             asking voter's emoji)
    POST   /api/memes/{id}/redo              {"candidate"?: k, "seed"?: s}: another of the picture; answers like a post
    POST   /api/memes/{id}/text              {"boxes": […]}: one's own words on it; answers like a post
    PUT    /api/memes/{id}/reactions/{emoji} and DELETE → {"id", "reactions", "mine"}
    GET    /api/feed                         server-sent events `meme` and `reactions`, data as in the list, and
                                             `gone` with an {"id"}; heartbeats
    GET    /memes/{id}                       the picture; `?download=1` to save it
    GET    /memes/{id}/attention             PNG: the words over the attention they paid
    GET    /rate                             blind rating, where there is something to rate: see rate.py
    GET    /dashboard                        figures for the operator
    GET    /healthz, /readyz, /metrics

A `text` with a `|` (`/meme top | bottom`) is the user's own; any other is context for the captions. A voter is an
anonymous cookie. Errors are JSON `{"error": "a sentence"}`.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from aiohttp import web

from bot.events import Busy, Health, Ratings, Service

from . import voter
from .access import Guard, add_headers
from .dashboard import Dashboard
from .errors import errors_as_json, problem
from .feed import Feed
from .memes import CHAT, PLATFORM, Memes
from .rate import Rate

_STATIC = Path(__file__).parent / "static"
_SMALL_BODY = 64 * 1024
"""Bytes of a request's body where no picture is expected."""
_SHUTDOWN_SECONDS = 30.0


class WebChat:
    """The adapter of the page; the process's health is served here too."""

    name = PLATFORM

    def __init__(
        self,
        host: str,
        port: int,
        *,
        token: str | None,
        chat: bool,
        max_bytes: int,
        health: Health,
        allowed_hosts: Sequence[str] = (),
        spool: Path,
        ratings: Ratings | None = None,
    ) -> None:
        """Prepare a server of `host`; `spool` is the folder where pictures wait while they are answered.

        Without `chat` only health, metrics and the dashboard are served; with `ratings`, /rate is, beside the chat.
        Raises ValueError where `host` can be reached from elsewhere and there is no token.
        """
        self._host = host
        self._port = port
        self._health = health
        self._spool = spool
        self._service: Service | None = None
        self._closing = False
        self._streams = Feed()
        self._guard = Guard(host, token, allowed_hosts, home="/" if chat else "/dashboard")
        self._memes = Memes(self._running_service, spool=spool, max_bytes=max_bytes)
        self._dashboard = Dashboard(self._running_service)
        self._rate = Rate(ratings) if ratings else None
        self._runner = web.AppRunner(self._application(chat=chat), access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS)

    @property
    def ready(self) -> bool:
        return self._service is not None and not self._closing

    @property
    def address(self) -> str:
        """The page's URL, once started."""
        host, port = self._runner.addresses[0][:2]
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104, not bound here: made clickable
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def start(self) -> None:
        """Bind; port 0 takes any free one. Raises OSError when the port is in use or the spool cannot be made."""
        self._spool.mkdir(parents=True, exist_ok=True)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except OSError:
            await self._runner.cleanup()
            raise

    async def run(self, service: Service) -> None:
        """Serve until cancelled; then feeds end, and what was posted is still answered."""
        self._service = service
        try:
            await asyncio.Event().wait()
        finally:
            await self.close()

    async def close(self) -> None:
        """Stop listening, end the feeds and wait for the answers under way."""
        self._closing = True
        await self._runner.cleanup()

    def _application(self, *, chat: bool) -> web.Application:
        app = web.Application(middlewares=[voter.keep, errors_as_json, self._guard.check], client_max_size=_SMALL_BODY)
        app.on_response_prepare.append(add_headers)
        app.on_shutdown.append(self._end_streams)
        app.add_routes(
            [web.get("/healthz", self._live), web.get("/readyz", self._ready), web.get("/metrics", self._metrics)]
        )
        app.add_routes(
            [
                web.get("/dashboard", self._dashboard.show),
                web.get(r"/static/{file:dashboard\.css|colours\.css|style\.css}", self._page),
            ]
        )
        if self._guard.is_locked:
            app.add_routes([web.get("/login", self._guard.return_home), web.post("/login", self._guard.sign_in)])
        if chat:
            app.add_routes([web.get("/", self._page), web.get(r"/static/{file:app\.js}", self._page)])
            app.add_routes([web.get("/api/feed", self._feed)])
            app.add_routes(self._memes.routes())
            app.add_routes(self._rate.routes() if self._rate else [])
        return app

    def _running_service(self) -> Service:
        if self._closing:
            raise Busy("The bot is stopping.")
        if self._service is None:
            raise Busy("The bot is still starting. Try again in a moment.")
        return self._service

    async def _page(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info.get("file", "index.html")
        return web.FileResponse(_STATIC / name, headers={"Cache-Control": "no-cache"})

    async def _feed(self, request: web.Request) -> web.StreamResponse:
        return await self._streams.stream(request, self._running_service(), PLATFORM, CHAT)

    async def _end_streams(self, app: web.Application) -> None:
        await self._streams.close()

    async def _live(self, request: web.Request) -> web.Response:
        return _state(*self._health.live())

    async def _ready(self, request: web.Request) -> web.Response:
        return _state(*self._health.ready())

    async def _metrics(self, request: web.Request) -> web.Response:
        exposition, content_type = self._health.metrics()
        return web.Response(body=exposition, headers={"Content-Type": content_type})


def _state(well: bool, sentence: str) -> web.Response:
    """Told with the bot's name, so that `doctor` knows who answers."""
    response = web.json_response({"status": sentence}) if well else problem(503, sentence)
    response.headers["X-Bot"] = "quipbot"
    return response
