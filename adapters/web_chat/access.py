"""Who may talk to the server: Host, Origin and token, and the headers that keep browsers strict."""

import hashlib
import hmac
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from aiohttp import web

from bot.events import BadRequest

from .errors import Handler

SESSION = "quipbot_session"

_LOGIN = (Path(__file__).parent / "static" / "login.html").read_text(encoding="utf-8")
_WRONG = '<p role="alert">That is not the token.</p>'
_SAFE = ("GET", "HEAD", "OPTIONS")
_OPEN = ("/healthz", "/readyz", "/login")
"""What is answered without a token: health is asked for by machines, and tells nothing of the memes."""
_PAGES = ("/", "/rate", "/dashboard")
"""Where somebody without a session is asked for the token, and gets back to."""
_MONTH = 30 * 24 * 3600
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    return _is_address(host) and ip_address(host).is_loopback


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Runs before any answer leaves, streams and errors included."""
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)


class Guard:
    """Refuses, with status 403, what a browser was tricked into sending or what comes without the token."""

    def __init__(self, host: str, token: str | None, allowed_hosts: Sequence[str], home: str = "/") -> None:
        """Raises ValueError where `host` is beyond loopback and there is no token."""
        if not token and not is_loopback(host):
            raise ValueError(f"web.host is {host}, which others can reach: set web.token, or bind 127.0.0.1.")
        self._token = token.encode() if token else None
        self._home = home
        self._named = frozenset(name.lower() for name in allowed_hosts)
        self._hosts = {"localhost", host.lower(), *self._named}
        self._everywhere = _is_address(host) and ip_address(host).is_unspecified

    @web.middleware
    async def check(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if not self._host_is_ours(request):
            raise web.HTTPForbidden(text="This bot does not answer under that host name; see web.allowed_hosts.")
        if request.method not in _SAFE and not self._origin_is_ours(request):
            raise web.HTTPForbidden(text="Another site sent this request; the bot only takes those of its own page.")
        if self._token is None or self._may_pass(request):
            return await handler(request)
        if request.method == "GET" and request.path in _PAGES:
            return self._invite(request)
        raise web.HTTPForbidden(text="This bot needs its token: sign in at /, or send it as a bearer token.")

    @property
    def is_locked(self) -> bool:
        """Whether there is a token to sign in with."""
        return self._token is not None

    async def return_home(self, request: web.Request) -> web.StreamResponse:
        """The form's address, typed or gone back to: the page itself shows the form to whoever is not signed in."""
        return web.Response(status=303, headers={"Location": self._asked_for(request)})

    async def sign_in(self, request: web.Request) -> web.StreamResponse:
        """The login form's answer: the token is exchanged for a cookie."""
        try:
            offered = (await request.post()).get("token")
        except (LookupError, ValueError):  # a charset or a form that nobody can read
            raise BadRequest("That is no form with a token.") from None
        if isinstance(offered, str) and self._is_token(offered):
            return self._welcome(self._asked_for(request))
        return _login_page(request.query.get("page", "/"), wrong=True)

    def _asked_for(self, request: web.Request) -> str:
        """The page that the form was shown in place of."""
        page = request.query.get("page", "/")
        return page if page in _PAGES[1:] else self._home

    def _host_is_ours(self, request: web.Request) -> bool:
        """A rebinding attack comes under the attacker's domain name, so a name must be known; its port says nothing."""
        try:
            name = urlsplit(f"//{request.headers.get('Host', '')}").hostname or ""
        except ValueError:
            return False
        return name in self._hosts or is_loopback(name) or (self._everywhere and _is_address(name))

    def _origin_is_ours(self, request: web.Request) -> bool:
        """No Origin is a command line; a browser always sends one with an unsafe method.

        Behind a proxy that names itself as Host, the page's own name is one of `allowed_hosts`.
        """
        origin = request.headers.get("Origin")
        if origin is None:
            return request.headers.get("Sec-Fetch-Site", "same-origin") in ("same-origin", "none")
        scheme, _, netloc = origin.lower().partition("://")
        if scheme not in ("http", "https"):
            return False
        return netloc == request.headers.get("Host", "").lower() or netloc.partition(":")[0] in self._named

    def _may_pass(self, request: web.Request) -> bool:
        if request.path in _OPEN or request.path.startswith("/static/"):
            return True
        scheme, _, bearer = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._is_token(bearer.strip()):
            return True
        return hmac.compare_digest(_bytes(request.cookies.get(SESSION, "")), self._session().encode())

    def _invite(self, request: web.Request) -> web.StreamResponse:
        """The page of somebody without a session: a form, or a session for a link with the token in it."""
        offered = request.query.get("token")
        if offered is not None and self._is_token(offered):
            return self._welcome(request.path if request.path in _PAGES[1:] else self._home)
        return _login_page(request.path, wrong=offered is not None)

    def _welcome(self, page: str) -> web.StreamResponse:
        response = web.Response(status=303, headers={"Location": page})
        # Lax, not Strict: whoever follows a link to the page is still signed in. Other sites' forms fail on Origin.
        response.set_cookie(SESSION, self._session(), max_age=_MONTH, httponly=True, samesite="Lax")
        return response

    def _is_token(self, offered: str) -> bool:
        return self._token is not None and hmac.compare_digest(_bytes(offered), self._token)

    def _session(self) -> str:
        """What the cookie holds: it proves that the token was known, outlives restarts, and is not the token."""
        return hmac.new(self._token or b"", b"quipbot session", hashlib.sha256).hexdigest()


def _login_page(page: str, *, wrong: bool) -> web.Response:
    text = _LOGIN.replace("<!-- problem -->", _WRONG if wrong else "")
    if page in _PAGES[1:]:
        text = text.replace('action="/login"', f'action="/login?page={page}"')
    return web.Response(status=403, text=text, content_type="text/html", headers={"Cache-Control": "no-store"})


def _bytes(header: str) -> bytes:
    """A header as it came: what is no UTF-8 arrives as surrogates."""
    return header.encode("utf-8", "surrogateescape")
