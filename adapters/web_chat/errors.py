"""Every failure becomes JSON `{"error": "a sentence"}` with a fitting status."""

import logging
from collections.abc import Awaitable, Callable

from aiohttp import web

from bot.events import (
    BadPicture,
    BadRequest,
    Busy,
    Expected,
    Failed,
    Forbidden,
    Gone,
    NotFound,
    TooLarge,
    TooSoon,
    Withdrawn,
)

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_STATUS: dict[type[Expected], int] = {
    BadRequest: 400,
    Forbidden: 403,
    NotFound: 404,
    Gone: 410,
    Withdrawn: 410,
    TooLarge: 413,
    BadPicture: 415,
    TooSoon: 429,
    Failed: 500,
    Busy: 503,
}
_SENTENCES = {
    404: "There is nothing at this address.",
    405: "This address does not take such a request.",
    413: "That is more than the bot accepts.",
}
_RETRY_SECONDS = 3


def problem(status: int, sentence: str, retry: int = _RETRY_SECONDS) -> web.Response:
    """The one shape of an error; `retry` are the seconds to wait, where it is worth another try."""
    response = web.json_response({"error": sentence}, status=status)
    if status in (429, 503):
        response.headers["Retry-After"] = str(retry)
    return response


@web.middleware
async def errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Translate expected failures and aiohttp's own; anything else keeps its traceback in the log."""
    try:
        return await handler(request)
    except Expected as error:
        status = next((_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS), 400)
        return problem(status, str(error), error.wait if isinstance(error, TooSoon) else _RETRY_SECONDS)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        response = problem(error.status, _SENTENCES.get(error.status) or error.text or error.reason)
        if "Allow" in error.headers:
            response.headers["Allow"] = error.headers["Allow"]
        return response
    except (ConnectionError, web.RequestPayloadError):
        return problem(400, "The connection broke.")  # nobody is there to read it, nor is it worth a traceback
    except Exception:
        log.exception("%s %s failed", request.method, request.path)
        return problem(500, "Something broke on the bot's side. Its log says what.")
