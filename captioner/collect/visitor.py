"""A polite visitor of web sites: says who it is, keeps to robots.txt, waits between requests, backs off when told."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import NamedTuple, Self
from urllib.parse import urljoin, urlsplit

import requests
from protego import Protego

NAME = "Quipbot"
MAX_BYTES = 20_000_000
_ROBOTS_BYTES = 500 * 1024
"""What RFC 9309 asks a robot to read of robots.txt at least."""
_REDIRECTS = 5
_TRIES = 4
_TIMEOUT = 30.0
_LONGEST = 600.0
"""Seconds that a site may ask to wait; where it wants longer, today is not the day."""
_LATER = 429, 500, 502, 503, 504


class VisitError(ValueError):
    """A page cannot be had; `str(error)` is a sentence."""


class NotAllowedError(VisitError):
    """The site's robots.txt does not want it visited."""


@dataclass(frozen=True, slots=True)
class Page:
    """What was at an address, redirects followed."""

    url: str
    content_type: str
    body: bytes


class _Answer(NamedTuple):
    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def elsewhere(self) -> str:
        """Where a redirect leads."""
        return self.headers.get("location", "") if 300 <= self.status < 400 else ""


class Visitor:
    """Requests, one after the other; `pause` seconds apart on each host, or more where its robots.txt says so."""

    def __init__(
        self,
        contact: str = "",
        *,
        pause: float = 2.0,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.agent = f"{NAME} (self-hosted meme bot, collecting captions to learn from{contact and f'; {contact}'})"
        self._pause, self._sleep, self._clock = pause, sleep, clock
        self._session = requests.Session()
        self._session.headers["User-Agent"] = self.agent
        self._robots: dict[str, Protego] = {}
        self._last: dict[str, float] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def get(self, url: str, max_bytes: int = MAX_BYTES) -> Page:
        """The page at an address. Raises NotAllowedError where robots.txt forbids it, else VisitError."""
        for _ in range(_REDIRECTS):
            origin, host = _origin(url)
            robots = self._rules(origin)
            if not robots.can_fetch(url, NAME):
                raise NotAllowedError(f"The robots.txt of {host} asks robots to stay away from {url}.")
            rate = robots.request_rate(NAME)
            pause = max(self._pause, robots.crawl_delay(NAME) or 0.0, rate.seconds / rate.requests if rate else 0.0)
            answer = self._answer(url, pause, max_bytes)
            if not answer.elsewhere:
                break
            url = urljoin(url, answer.elsewhere)
        if answer.status != 200:
            raise VisitError(f"{url} answered with {answer.status} {answer.reason}.")
        return Page(url, answer.headers.get("content-type", "").partition(";")[0].strip().lower(), answer.body)

    def _rules(self, origin: str) -> Protego:
        """A site's robots.txt as RFC 9309 reads it: none there allows all, and one that cannot be had forbids all."""
        if origin not in self._robots:
            url = origin + "/robots.txt"
            for _ in range(_REDIRECTS):
                answer = self._answer(url, self._pause, _ROBOTS_BYTES, whole=False)
                if not answer.elsewhere:
                    break
                url = urljoin(url, answer.elsewhere)
            if answer.status >= 500:
                raise NotAllowedError(f"{url} answered with {answer.status}, so the site is left alone.")
            text = answer.body.decode("utf-8", "replace") if answer.status == 200 else ""
            self._robots[origin] = Protego.parse(text)
        return self._robots[origin]

    def _answer(self, url: str, pause: float, max_bytes: int, *, whole: bool = True) -> _Answer:
        """One request, tried again where the site asks for patience or the connection breaks."""
        host = urlsplit(url).netloc
        for attempt in range(_TRIES):
            self._wait(host, pause)
            try:
                with self._session.get(url, timeout=_TIMEOUT, allow_redirects=False, stream=True) as response:
                    body = _body(response, max_bytes, whole=whole)
                    answer = _Answer(response.status_code, response.reason, response.headers, body)
            except requests.RequestException as error:
                if attempt == _TRIES - 1:
                    raise VisitError(f"{host} cannot be reached: {type(error).__name__}.") from error
                self._sleep(pause * 2**attempt)
                continue
            finally:
                self._last[host] = self._clock()
            if answer.status not in _LATER or attempt == _TRIES - 1:
                return answer
            patience = _patience(answer, pause * 2 ** (attempt + 1))
            if patience > _LONGEST:
                raise VisitError(
                    f"{host} asks to come back in {patience / 60:.0f} minutes; what was collected is kept."
                )
            self._sleep(patience)
        raise AssertionError("the last attempt returns or raises")

    def _wait(self, host: str, pause: float) -> None:
        if host in self._last:
            self._sleep(max(0.0, self._last[host] + pause - self._clock()))


def _body(response: requests.Response, max_bytes: int, *, whole: bool) -> bytes:
    """The body; raises VisitError where it is longer, or cuts it where it need not be whole."""
    body = bytearray()
    for chunk in response.iter_content(65_536):
        body += chunk
        if len(body) > max_bytes:
            if whole:
                raise VisitError(f"{response.url} is larger than {max_bytes // 1_000_000} MB.")
            break
    return bytes(body[:max_bytes])


def _patience(answer: _Answer, otherwise: float) -> float:
    """Seconds that Retry-After asks for, as a number or a date."""
    text = answer.headers.get("retry-after", "")
    if text.isdigit():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return otherwise


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise VisitError(f"{url} is no web address.")
    return f"{parts.scheme}://{parts.netloc}", parts.netloc
