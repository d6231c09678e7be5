"""The blind rating page: a rater is shown memes without being told who wrote them.

    GET    /rate                 the page
    GET    /api/rate             {"memes": [{"id", "url", "alt"}], "done", "all"}: one, two, or none when all is rated
    POST   /api/rate             {"memes": [ids as shown], "answers": {question: answer}} → the next; no answers: pass
    DELETE /api/rate             takes the last answers back → what they were on
    GET    /rate/memes/{id}      the picture

One meme is asked about with `funny`, `fits` and `person` (`yes`, `no`); two with `funny` and `fits` (`first`, `second`,
`same`). A rater is the page's anonymous voter.
"""

from pathlib import Path
from typing import Any

from aiohttp import web

from bot.events import BadRequest, Ratings, RatingTask

from . import voter
from .memes import PLATFORM, body

_STATIC = Path(__file__).parent / "static"
_KEEP = {"Cache-Control": "private, max-age=3600"}
_NO_STORE = {"Cache-Control": "no-store"}


class Rate:
    """Translates between HTTP and the ratings."""

    def __init__(self, ratings: Ratings) -> None:
        self._ratings = ratings

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/rate", self.page),
            web.get(r"/static/{file:rate\.js|rate\.css}", self.page),
            web.get("/api/rate", self.next),
            web.post("/api/rate", self.rate),
            web.delete("/api/rate", self.take_back),
            web.get(r"/rate/memes/{meme:[0-9a-f]{1,64}}", self.picture),
        ]

    async def page(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info.get("file", "rate.html")
        return web.FileResponse(_STATIC / name, headers={"Cache-Control": "no-cache"})

    async def next(self, request: web.Request) -> web.Response:
        return _answer(await self._ratings.next(PLATFORM, voter.identify(request)))

    async def rate(self, request: web.Request) -> web.Response:
        given, user = await body(request), voter.identify(request)
        memes, answers = given.get("memes"), given.get("answers", {})
        if not isinstance(memes, list) or not all(isinstance(meme, str) for meme in memes):
            raise BadRequest("The memes must be a list of ids.")
        if not isinstance(answers, dict) or not all(isinstance(answer, str) for answer in answers.values()):
            raise BadRequest("The answers must be texts by question.")
        await self._ratings.rate(PLATFORM, user, memes, answers)
        return _answer(await self._ratings.next(PLATFORM, user))

    async def take_back(self, request: web.Request) -> web.Response:
        return _answer(await self._ratings.take_back(PLATFORM, voter.identify(request)))

    async def picture(self, request: web.Request) -> web.Response:
        data, content_type = self._ratings.picture(request.match_info["meme"])
        return web.Response(body=data, content_type=content_type, headers=_KEEP)


def _answer(task: RatingTask) -> web.Response:
    memes: list[dict[str, Any]] = [
        {"id": meme, "url": f"/rate/memes/{meme}", "alt": f"A meme with the words “{'” and “'.join(words)}”"}
        for meme, words in zip(task.memes, task.words, strict=True)
    ]
    return web.json_response({"memes": memes, "done": task.done, "all": task.all}, headers=_NO_STORE)
