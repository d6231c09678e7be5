"""Who votes: an anonymous random cookie, made on the first visit."""

import re
import secrets

from aiohttp import web

from .errors import Handler

COOKIE = "quipbot_voter"

_FORM = re.compile(r"[A-Za-z0-9_-]{22}")
_YEAR = 365 * 24 * 3600
_NEW = web.RequestKey("new_voter", str)


def known(request: web.Request) -> str:
    """The voter of this request, or "" for one without a cookie."""
    value = request.cookies.get(COOKIE, "")
    return value if _FORM.fullmatch(value) else ""


def identify(request: web.Request) -> str:
    """The voter of this request, who gets a cookie with the answer if there was none.

    Only the interface calls this, never the page itself: a link from elsewhere opens the page without the cookie
    (SameSite=Strict), and a new one would throw away the votes of the old.
    """
    voter = known(request) or request.get(_NEW)
    if not voter:
        voter = request[_NEW] = secrets.token_urlsafe(16)
    return voter


@web.middleware
async def keep(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Hands a new voter the cookie."""
    response = await handler(request)
    if voter := request.get(_NEW):
        response.set_cookie(COOKIE, voter, max_age=_YEAR, httponly=True, samesite="Strict")
    return response
