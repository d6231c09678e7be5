"""The HTTP interface, asked over loopback as any client would."""

import asyncio
import dataclasses
import io
import json
import os
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from adapters.web_chat import WebChat, form
from bot.events import (
    BadPicture,
    BadRequest,
    Busy,
    Candidate,
    Change,
    Failed,
    Forbidden,
    Forgotten,
    Gone,
    ImagePosted,
    MemeRecord,
    MemeReply,
    NotFound,
    ReactionChanged,
    TooSoon,
    Withdrawn,
)

MAX_BYTES = 20_000_000


class Listening:
    """What `Service.changes` gives."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Change | None] = asyncio.Queue()

    def __aiter__(self) -> "Listening":
        return self

    async def __anext__(self) -> Change:
        change = await self.queue.get()
        if change is None:
            raise StopAsyncIteration
        return change

    async def aclose(self) -> None:
        self.queue.put_nowait(None)


class Pictures:
    """A service without a model: the meme of a picture is the picture, so that every state can be brought about."""

    def __init__(self) -> None:
        self.posted: list[ImagePosted] = []
        self.memes: dict[str, tuple[MemeRecord, bytes]] = {}
        self.votes: dict[str, set[tuple[str, str]]] = {}
        self.listening: list[Listening] = []
        self.trouble: Exception | None = None
        self.go = asyncio.Event()
        self.go.set()

    async def post(self, event: ImagePosted) -> MemeReply | None:
        self.posted.append(event)
        if self.trouble:
            raise self.trouble
        data = await event.fetch(MAX_BYTES)
        await self.go.wait()
        try:
            with Image.open(io.BytesIO(data)) as image:
                image.load()
        except (OSError, SyntaxError):
            raise BadPicture("This is no picture that the bot can read.") from None
        return self._answer(event.user, data, event.own_boxes or ("top", "bottom"), event.seed or 7)

    async def redo(self, meme: str, user: str, *, candidate: int | None = None, seed: int | None = None) -> MemeReply:
        record, data = self._known(meme)
        if candidate is not None and candidate >= len(record.candidates):
            raise BadRequest("There is no such caption.")
        boxes = ("again",) if candidate is None else record.candidates[candidate].boxes
        return self._answer(user, data, boxes, record.seed + 1 if seed is None else seed)

    async def own_text(self, meme: str, user: str, boxes: Sequence[str]) -> MemeReply:
        record, data = self._known(meme)
        return self._answer(user, data, tuple(boxes), record.seed)

    async def sent(self, meme: str, message: str) -> None: ...

    async def react(self, change: ReactionChanged) -> None:
        assert change.meme is not None
        self._known(change.meme)
        votes = self.votes[change.meme]
        (votes.add if change.added else votes.discard)((change.user, change.emoji))
        self._tell(Change("reactions", "web", "page", change.meme))

    async def explain(self, meme: str) -> bytes:
        self._known(meme)
        return png(9, 9)

    async def forget(self, platform: str, user: str) -> Forgotten:
        theirs = [meme for meme, (record, _) in self.memes.items() if record.user == user]
        for meme in theirs:
            del self.memes[meme], self.votes[meme]
            self._tell(Change("gone", platform, "page", meme))
        return Forgotten(len(theirs), 0, 0)

    async def picture(self, meme: str) -> tuple[bytes, str]:
        return self._known(meme)[1], "image/png"

    async def record(self, meme: str, user: str = "") -> MemeRecord:
        votes = sorted(self.votes.get(meme, ()))
        counts: dict[str, int] = {}
        for _, emoji in votes:
            counts[emoji] = counts.get(emoji, 0) + 1
        mine = tuple(emoji for voter, emoji in votes if voter == user)
        return dataclasses.replace(self._known(meme)[0], reactions=counts, mine=mine)

    async def latest(self, platform: str, chat: str, user: str, limit: int = 30) -> list[MemeRecord]:
        assert (platform, chat) == ("web", "page")
        return [await self.record(meme, user) for meme in list(self.memes)[-limit:]]

    def changes(self, platform: str, chat: str) -> Listening:
        self.listening.append(Listening())
        return self.listening[-1]

    def _known(self, meme: str) -> tuple[MemeRecord, bytes]:
        if meme not in self.memes:
            raise NotFound("There is no such meme.")
        if not self.memes[meme][1]:
            raise Gone("This picture is not kept any more.")
        return self.memes[meme]

    def _tell(self, change: Change) -> None:
        for listening in self.listening:
            listening.queue.put_nowait(change)

    def _answer(self, user: str, data: bytes, boxes: tuple[str, ...], seed: int) -> MemeReply:
        name = f"m{len(self.memes)}"
        candidates = tuple(Candidate(words, -9.5, None, 0.5) for words in (("top", "bottom"), ("left", "right")))
        record = MemeRecord(
            name, "web", "page", user, 1.5, "A picture: top / bottom", boxes, "a picture", "meme", seed, "pictures-1",
            candidates, 0, False, "image/png", {},
        )  # fmt: skip
        self.memes[name] = record, data
        self.votes[name] = set()
        self._tell(Change("meme", "web", "page", name))
        return MemeReply(
            name, data, "image/png", record.alt, boxes, "a picture", seed, "pictures-1", candidates, 0
        )  # fmt: skip


class Well:
    """The health of a process that is fine, or not."""

    def __init__(self, well: bool = True) -> None:
        self.well = well

    def live(self) -> tuple[bool, str]:
        return True, "The process answers."

    def ready(self) -> tuple[bool, str]:
        return self.well, "Ready." if self.well else "The model is still loading."

    def metrics(self) -> tuple[bytes, str]:
        return b"memes_total 0\n", "text/plain; version=1.0.0; charset=utf-8"


@dataclasses.dataclass
class Site:
    """A running server, its service, and a client that keeps its cookies."""

    web: WebChat
    service: Pictures
    client: aiohttp.ClientSession
    running: "asyncio.Task[None]"

    def post(self, *pictures: bytes, **fields: str) -> Any:
        data = aiohttp.FormData(default_to_multipart=True)
        for name, value in fields.items():
            data.add_field(name, value)
        for picture in pictures:
            data.add_field("image", picture, filename="picture.png")
        return self.client.post("/api/memes", data=data)

    async def meme(self) -> dict[str, Any]:
        async with self.post(png()) as answer:
            return await answer.json()


def png(width: int = 40, height: int = 30) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), (90, 140, 120)).save(file, "PNG")
    return file.getvalue()


@asynccontextmanager
async def serving(spool: Path, **options: Any) -> AsyncIterator[Site]:
    settings: dict[str, Any] = {"token": None, "chat": True, "max_bytes": MAX_BYTES, "health": Well()} | options
    host = settings.pop("host", "127.0.0.1")
    web = WebChat(host, 0, spool=spool, **settings)
    await web.start()
    service = Pictures()
    running = asyncio.create_task(web.run(service))
    await asyncio.sleep(0)
    jar = aiohttp.CookieJar(unsafe=True)  # "unsafe": for hosts that are addresses
    try:
        async with aiohttp.ClientSession(web.address, cookie_jar=jar) as client:
            yield Site(web, service, client, running)
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with serving(tmp_path) as site:
        yield site


async def refused(answer: aiohttp.ClientResponse, status: int) -> str:
    """The sentence of an error."""
    assert answer.status == status, await answer.text()
    error = await answer.json()
    assert list(error) == ["error"]
    assert error["error"][0].isupper()
    assert error["error"][-1] in ".!”"
    return str(error["error"])


# ------------------------------------------------------------------ posting


async def test_a_posted_picture_is_answered_with_a_meme(site: Site, tmp_path: Path) -> None:
    picture = png(320, 200)
    async with site.post(picture) as answer:
        assert answer.status == 200
        meme = await answer.json()
    assert set(meme) == {"id", "url", "alt", "boxes", "seed", "model", "candidates"}
    assert meme["url"] == f"/memes/{meme['id']}"
    assert meme["candidates"][0] == {"boxes": ["top", "bottom"], "logprob": -9.5, "reward": None, "score": 0.5}
    async with site.client.get(meme["url"]) as answer:
        assert answer.content_type == "image/png"
        assert "Content-Disposition" not in answer.headers
        assert await answer.read() == picture
    async with site.client.get(meme["url"] + "?download=1") as answer:
        assert answer.headers["Content-Disposition"] == f'attachment; filename="quipbot-{meme["id"]}.png"'
    assert not list(tmp_path.iterdir())


async def test_fields_reach_the_service(site: Site) -> None:
    async with site.post(
        png(), text=" cats again ", style="describe", seed=str(2**63 - 1), n="10", other="x"
    ) as answer:
        assert answer.status == 200
    event = site.service.posted[0]
    assert (event.platform, event.chat, event.addressed) == ("web", "page", True)
    assert (event.text, event.own_boxes, event.style) == ("cats again", (), "describe")
    assert (event.seed, event.candidates) == (2**63 - 1, 10)
    async with site.post(png(), text="/meme Oben | unten") as answer:
        assert (await answer.json())["boxes"] == ["Oben", "unten"]
    assert site.service.posted[1].text == ""
    assert site.service.posted[1].seed is None


@pytest.mark.parametrize(
    "fields",
    [{"seed": each} for each in ("-1", "1.5", "x", "", "٣", str(2**63), "9" * 40)]
    + [{"n": each} for each in ("-1", "three", "")]
    + [{"style": "haiku"}, {"text": "x" * 20_000}],
)
async def test_a_field_that_cannot_be_meant_is_refused(site: Site, fields: dict[str, str]) -> None:
    async with site.post(png(), **fields) as answer:
        await refused(answer, 400)
    assert not site.service.posted


async def test_exactly_one_picture_is_taken(site: Site) -> None:
    for pictures in ((), (b"",), (png(), png())):
        async with site.post(*pictures, text="hello") as answer:
            await refused(answer, 400)
    twice = aiohttp.FormData([("seed", "1"), ("seed", "2")], default_to_multipart=True)
    twice.add_field("image", png(), filename="a.png")
    async with site.client.post("/api/memes", data=twice) as answer:
        assert "twice" in await refused(answer, 400)
    await site.meme()


async def test_what_is_no_picture_is_refused(site: Site) -> None:
    for data in (b"not a picture", b"<svg xmlns='http://www.w3.org/2000/svg'/>", png()[:60]):
        async with site.post(data) as answer:
            await refused(answer, 415)
    await site.meme()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nothing",
        b"--x\r\n",
        b"--x--\r\n",
        b"--x\r\nContent-Type: multipart/mixed; boundary=y\r\n\r\n--y--\r\n--x--",
    ]
    + [
        b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\nabc' + end
        for end in (b"", b"\r\n--", b"\r\n--z--")
    ]
    + [b'--x\r\nContent-Disposition: form-data; name="text"\r\n\r\n\xff\r\n--x--', b"--x\r\n" + b"A: b\r\n" * 999],
)
async def test_a_broken_form_is_refused(site: Site, body: bytes) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    async with site.client.post("/api/memes", data=body, headers=headers) as answer:
        await refused(answer, 400)
    assert not site.service.posted


async def test_other_bodies_are_refused(site: Site) -> None:
    for content_type in ("application/json", "image/png", "text/plain"):
        async with site.client.post("/api/memes", data=png(), headers={"Content-Type": content_type}) as answer:
            await refused(answer, 415)
    async with site.client.post("/api/memes", headers={"Content-Type": "multipart/form-data"}, data=b"x") as answer:
        await refused(answer, 400)


async def chunks(head: bytes, size: int) -> AsyncIterator[bytes]:
    yield head
    for _ in range(size // 100_000):
        yield bytes(100_000)


@pytest.mark.parametrize("name", ["image", "other"])
async def test_too_large_a_picture_is_refused_with_flat_memory(site: Site, name: str) -> None:
    head = b'--x\r\nContent-Disposition: form-data; name="%s"; filename="a.png"\r\n\r\n' % name.encode()
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    memory = psutil.Process(os.getpid()).memory_info
    before = memory().rss
    # No Content-Length: what is too large shows only while it arrives.
    async with site.client.post("/api/memes", data=chunks(head, 60_000_000), headers=headers) as answer:
        assert "20 MB" in await refused(answer, 413)
    assert memory().rss - before < 40_000_000
    await site.meme()


async def test_a_client_that_writes_before_it_reads_sees_the_refusal(site: Site) -> None:
    """As curl without Expect, requests and browsers do with 21 MB."""
    size = 21_000_000
    host, port = site.web.address.removeprefix("http://").split(":")

    def blocking() -> bytes:
        with socket.create_connection((host, int(port))) as connection:
            head = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
            connection.sendall(
                b"POST /api/memes HTTP/1.1\r\nHost: %s\r\nContent-Type: multipart/form-data; boundary=x\r\n"
                b"Connection: close\r\nContent-Length: %d\r\n\r\n" % (host.encode(), len(head) + size)
            )
            connection.sendall(head + bytes(size))
            return b"".join(iter(lambda: connection.recv(100_000), b""))

    answer = await asyncio.to_thread(blocking)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'{"error": "The picture is larger than 20 MB' in answer


async def test_a_picture_of_just_the_limit_is_read(tmp_path: Path) -> None:
    picture = png()
    async with serving(tmp_path, max_bytes=len(picture)) as site:
        await site.meme()
        async with site.post(picture + b"\0") as answer:
            await refused(answer, 413)


async def test_a_client_that_leaves_leaves_nothing_behind(site: Site, tmp_path: Path, caplog: Any) -> None:
    host, port = site.web.address.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        b"POST /api/memes HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        b'Content-Length: 9999\r\n\r\n--x\r\nContent-Disposition: form-data; name="image"\r\n\r\nabc'
    )
    await writer.drain()
    await asyncio.sleep(0.05)
    writer.close()
    await writer.wait_closed()
    await site.meme()
    assert not list(tmp_path.iterdir())
    assert not caplog.records


@pytest.mark.parametrize(
    ("trouble", "status"),
    [
        (Busy("Too many pictures wait."), 503),
        (TooSoon("One at a time: try again in 60 s.", 60), 429),
        (Forbidden("It is another's picture."), 403),
        (Withdrawn("It is not kept."), 410),
        (Failed("It broke."), 500),
        (RuntimeError("secret"), 500),
    ],
)
async def test_trouble_is_told_in_a_sentence(site: Site, trouble: Exception, status: int, caplog: Any) -> None:
    site.service.trouble = trouble
    async with site.post(png()) as answer:
        sentence = await refused(answer, status)
        assert answer.headers.get("Retry-After") == {503: "3", 429: "60"}.get(status)
    assert "secret" not in sentence
    assert bool(caplog.records) == isinstance(trouble, RuntimeError)
    assert all(record.exc_info for record in caplog.records)


# ------------------------------------------------------------------ more of a meme


async def test_another_one_own_words_and_attention(site: Site) -> None:
    meme = await site.meme()
    path = f"/api/memes/{meme['id']}"
    async with site.client.post(f"{path}/redo") as answer:
        assert (await answer.json())["seed"] == meme["seed"] + 1
    async with site.client.post(f"{path}/redo", json={"seed": 99}) as answer:
        assert (await answer.json())["seed"] == 99
    async with site.client.post(f"{path}/redo", json={"candidate": 1}) as answer:
        assert (await answer.json())["boxes"] == ["left", "right"]
    async with site.client.post(f"{path}/text", json={"boxes": ["mine", ""]}) as answer:
        assert (await answer.json())["boxes"] == ["mine", ""]
    async with site.client.get(f"{meme['url']}/attention") as answer:
        assert answer.content_type == "image/png"


@pytest.mark.parametrize(
    ("path", "body"),
    [("redo", each) for each in (b"{", b"[]", b'{"candidate": -1}', b'{"candidate": true}', b'{"candidate": 9}')]
    + [("redo", each) for each in (b'{"seed": 1.5}', b'{"seed": 9223372036854775808}')]
    + [("text", each) for each in (b"", b'{"boxes": "a"}', b'{"boxes": [1]}')],
)
async def test_a_wish_that_cannot_be_meant_is_refused(site: Site, path: str, body: bytes) -> None:
    meme = await site.meme()
    async with site.client.post(f"/api/memes/{meme['id']}/{path}", data=body) as answer:
        await refused(answer, 400)


async def test_unknown_and_forgotten_memes(site: Site) -> None:
    meme = await site.meme()
    for path, status in (("/memes/none", 404), (f"/memes/{meme['id']}", 410)):
        record, _ = site.service.memes[meme["id"]]
        site.service.memes[meme["id"]] = record, b""
        async with site.client.get(path) as answer:
            await refused(answer, status)
    async with site.client.put("/api/memes/none/reactions/🔥") as answer:
        await refused(answer, 404)


async def test_unknown_addresses_and_methods(site: Site) -> None:
    for path in ("/api/nothing", "/nothing", "/static/login.html", "/static/../server.py", "/memes/a%2Fb"):
        async with site.client.get(path) as answer:
            await refused(answer, 404)
    async with site.client.delete("/api/memes") as answer:
        await refused(answer, 405)
        assert answer.headers["Allow"] == "GET,HEAD,POST"
    async with site.client.post("/api/memes/m0/redo", data=bytes(100_000)) as answer:
        await refused(answer, 413)


# ------------------------------------------------------------------ votes and the feed


async def test_votes_are_counted_per_anonymous_voter(site: Site) -> None:
    meme = await site.meme()
    path = f"/api/memes/{meme['id']}/reactions"
    for _ in range(2):
        async with site.client.put(f"{path}/🔥") as answer:
            assert await answer.json() == {"id": meme["id"], "reactions": {"🔥": 1}, "mine": ["🔥"]}
    async with aiohttp.ClientSession(site.web.address) as other, other.put(f"{path}/%F0%9F%94%A5") as answer:
        assert await answer.json() == {"id": meme["id"], "reactions": {"🔥": 2}, "mine": ["🔥"]}
        cookie = answer.headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
    async with site.client.delete(f"{path}/🔥") as answer:
        assert "Set-Cookie" not in answer.headers
        assert await answer.json() == {"id": meme["id"], "reactions": {"🔥": 1}, "mine": []}
    async with site.client.get("/api/memes") as answer:
        listed = (await answer.json())["memes"][0]
    assert listed == meme | {"created": 1.5, "reactions": {"🔥": 1}, "mine": []}


async def test_the_page_itself_sets_no_voter(site: Site) -> None:
    """Else a link from another site, which brings no strict cookie, would replace the voter."""
    async with site.client.get("/") as answer:
        assert answer.content_type == "text/html"
        assert "Set-Cookie" not in answer.headers


async def event(answer: aiohttp.ClientResponse) -> tuple[str, dict[str, Any]]:
    """The next event of a stream, heartbeats skipped."""
    lines: dict[str, str] = {}
    while "data" not in lines:
        name, _, value = (await answer.content.readline()).decode().partition(":")
        lines[name] = value
    return lines["event"].strip(), json.loads(lines["data"])


async def test_the_feed_tells_every_window(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapters.web_chat.feed.HEARTBEAT_SECONDS", 0.01)
    await site.meme()
    async with AsyncExitStack() as stack:
        other = await stack.enter_async_context(aiohttp.ClientSession(site.web.address))
        windows = [await stack.enter_async_context(client.get("/api/feed")) for client in (site.client, other)]
        for window in windows:
            assert window.content_type == "text/event-stream"
            told = [await window.content.readline() for _ in range(5)]
            assert told == [b"retry: 1000\n", b": still here\n", b"\n", b": still here\n", b"\n"]
        meme = await site.meme()
        async with site.client.put(f"/api/memes/{meme['id']}/reactions/👍"):
            pass
        for window, mine in zip(windows, ([["👍"], []]), strict=True):
            kind, told = await event(window)
            assert (kind, told["id"], told["url"]) == ("meme", meme["id"], meme["url"])
            kind, told = await event(window)
            assert (kind, told["reactions"], told["mine"]) == ("reactions", {"👍": 1}, mine)


async def test_the_feed_tells_nothing_but_the_id_of_what_is_forgotten(site: Site) -> None:
    """Nor where it was to tell of something else, and the meme is gone by then."""
    async with site.client.get("/api/feed") as window:
        meme = await site.meme()
        assert (await event(window))[0] == "meme"
        async with site.client.delete("/api/me") as answer:
            assert await answer.json() == {"memes": 1, "votes": 0}
        site.service._tell(Change("reactions", "web", "page", meme["id"]))
        for _ in range(2):
            assert await event(window) == ("gone", {"id": meme["id"]})


# ------------------------------------------------------------------ starting and stopping


async def test_stopping_ends_feeds_and_finishes_what_was_posted(tmp_path: Path) -> None:
    async with serving(tmp_path) as site, site.client.get("/api/feed") as feed:
        host, port = site.web.address.removeprefix("http://").split(":")
        site.service.go.clear()
        posting = asyncio.create_task(site.meme())
        while not site.service.posted:
            await asyncio.sleep(0.01)
        assert site.web.ready
        site.running.cancel()
        assert await feed.read() == b"retry: 1000\n: still here\n\n"
        assert not site.web.ready
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(host, int(port))
        site.service.go.set()
        assert (await posting)["boxes"] == ["top", "bottom"]
        with pytest.raises(asyncio.CancelledError):
            await site.running


async def test_before_the_service_runs_the_bot_says_so(tmp_path: Path) -> None:
    web = WebChat("127.0.0.1", 0, token=None, chat=True, max_bytes=9, health=Well(False), spool=tmp_path)
    await web.start()
    assert not web.ready
    async with aiohttp.ClientSession(web.address) as client:
        async with client.get("/api/memes") as answer:
            assert "starting" in await refused(answer, 503)
        async with client.get("/readyz") as answer:
            assert await refused(answer, 503) == "The model is still loading."
        async with client.get("/healthz") as answer:
            assert answer.status == 200
    await web.close()


async def test_a_port_in_use_is_an_os_error(site: Site, tmp_path: Path) -> None:
    port = int(site.web.address.rpartition(":")[2])
    web = WebChat("127.0.0.1", port, token=None, chat=True, max_bytes=9, health=Well(), spool=tmp_path)
    with pytest.raises(OSError, match="address already in use"):
        await web.start()


async def test_without_the_chat_health_and_metrics_remain(tmp_path: Path) -> None:
    async with serving(tmp_path, chat=False) as site:
        for path in ("/", "/api/feed", "/api/memes", "/memes/m0", "/static/app.js", "/login"):
            async with site.client.get(path) as answer:
                await refused(answer, 404)
        async with site.post(png()) as answer:
            await refused(answer, 404)
        for path in ("/healthz", "/readyz"):
            async with site.client.get(path) as answer:
                assert answer.status == 200
        async with site.client.get("/metrics") as answer:
            assert answer.headers["Content-Type"] == "text/plain; version=1.0.0; charset=utf-8"
            assert await answer.text() == "memes_total 0\n"


# ------------------------------------------------------------------ who may ask


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.20", "example.org"])
def test_beyond_loopback_a_token_is_needed(host: str, tmp_path: Path) -> None:
    def make(token: str | None) -> WebChat:
        return WebChat(host, 0, token=token, chat=True, max_bytes=9, health=Well(), spool=tmp_path)

    for token in (None, ""):
        with pytest.raises(ValueError, match=r"web\.token"):
            make(token)
    make("a token")


async def test_only_known_hosts_are_answered(tmp_path: Path) -> None:
    async with serving(tmp_path, allowed_hosts=["Memes.example"]) as site:
        port = site.web.address.rpartition(":")[2]
        for host in (f"127.0.0.1:{port}", "localhost", "LOCALHOST:1", "[::1]:80", "memes.example", "memes.example:443"):
            async with site.client.get("/healthz", headers={"Host": host}) as answer:
                assert answer.status == 200, host
        for host in ("evil.example", "", "localhost.evil.example", "[", "10.0.0.1", "127.0.0.1@evil.example"):
            async with site.client.get("/api/memes", headers={"Host": host}) as answer:
                await refused(answer, 403 if answer.status == 403 else 400)


async def test_other_origins_change_nothing(site: Site) -> None:
    here = site.web.address
    for origin in ("http://evil.example", "null", "http://127.0.0.1", "http://localhost:1", "", here + ".evil"):
        async with site.client.post("/api/memes/m0/redo", headers={"Origin": origin}) as answer:
            await refused(answer, 403)
    async with site.client.post("/api/memes/m0/redo", headers={"Sec-Fetch-Site": "cross-site"}) as answer:
        await refused(answer, 403)
    async with site.client.post("/api/memes/m0/redo", headers={"Origin": here}) as answer:
        await refused(answer, 404)
    async with site.client.get("/api/memes", headers={"Origin": "http://evil.example"}) as answer:
        assert "Access-Control-Allow-Origin" not in answer.headers


async def test_behind_a_proxy_the_pages_own_name_may_post(tmp_path: Path) -> None:
    async with serving(tmp_path, allowed_hosts=["Memes.example"]) as site:
        for origin, status in (
            ("https://memes.example", 404),
            ("https://memes.example:8443", 404),
            ("https://evil.example", 403),
            ("https://memes.example.evil", 403),
            ("ftp://memes.example", 403),
        ):
            async with site.client.post("/api/memes/m0/redo", headers={"Origin": origin}) as answer:
                await refused(answer, status)


async def test_what_nobody_can_read_is_a_bad_request(tmp_path: Path, caplog: Any) -> None:
    async with serving(tmp_path, token="sesame") as site:
        form = {"Content-Type": "application/x-www-form-urlencoded; charset=klingon"}
        async with site.client.post("/login", data=b"token=x", headers=form) as answer:
            await refused(answer, 400)
        bearer = {"Authorization": "Bearer sesame"}
        async with site.client.post("/api/memes/m0/redo", data=b"[" * 60_000, headers=bearer) as answer:
            await refused(answer, 400)
    assert not caplog.records


async def test_every_answer_carries_the_strict_headers(site: Site) -> None:
    for path in ("/", "/static/app.js", "/api/memes", "/nothing", "/api/feed", "/healthz"):
        async with site.client.get(path) as answer:
            assert answer.headers["Content-Security-Policy"].startswith(
                "default-src 'self'; img-src 'self' blob: data:;"
            )
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Referrer-Policy"] == "same-origin"


async def test_a_token_guards_everything_but_health(tmp_path: Path) -> None:
    async with serving(tmp_path, host="0.0.0.0", token="open sesame") as site:
        assert site.web.address.startswith("http://127.0.0.1:")
        for path in ("/api/memes", "/api/feed", "/memes/m0", "/metrics", "/nothing"):
            async with site.client.get(path) as answer:
                await refused(answer, 403)
        for path in ("/healthz", "/readyz", "/static/style.css"):
            async with site.client.get(path) as answer:
                assert answer.status == 200
        for bearer, status in (("open sesame", 200), ("open", 403), ("öpen sesame", 403)):
            async with site.client.get("/api/memes", headers={"Authorization": f"Bearer {bearer}"}) as answer:
                assert answer.status == status
        async with site.client.get("/healthz", headers={"Host": "192.168.1.20:8080"}) as answer:
            assert answer.status == 200  # bound everywhere: any of the machine's addresses may be ours


@pytest.mark.parametrize("by_link", [True, False])
async def test_signing_in(tmp_path: Path, by_link: bool) -> None:
    async with serving(tmp_path, token="sesame") as site:

        def sign_in(token: str) -> Any:
            if by_link:
                return site.client.get("/", params={"token": token})
            return site.client.post("/login", data={"token": token})

        async with site.client.get("/") as answer:
            assert answer.status == 403
            assert "not the token" not in await answer.text()
        async with sign_in("guess") as answer:
            assert answer.status == 403
            assert "That is not the token." in await answer.text()
        async with sign_in("sesame") as answer:
            assert answer.status == 200
            assert answer.url.path_qs == "/"
            assert "sesame" not in answer.history[0].headers["Set-Cookie"]
        await site.meme()


async def test_the_address_of_the_form_leads_to_the_page(tmp_path: Path) -> None:
    async with serving(tmp_path, token="sesame") as site:
        for page, shown in (("/", "/"), ("/dashboard", "/dashboard"), ("https://evil.example", "/")):
            async with site.client.get("/login", params={"page": page}) as answer:
                assert (answer.url.path, answer.status) == (shown, 403)
                assert 'type="password"' in await answer.text()
        async with site.client.post("/login", data={"token": "sesame"}), site.client.get("/login") as answer:
            assert (answer.url.path, answer.status) == ("/", 200)


async def test_without_the_chat_the_dashboard_can_be_signed_in_to(tmp_path: Path) -> None:
    async with serving(tmp_path, token="sesame", chat=False) as site:
        async with site.client.get("/static/style.css") as answer:
            assert answer.status == 200
        async with site.client.get("/dashboard") as answer:
            assert answer.status == 403
            assert 'action="/login?page=/dashboard"' in await answer.text()
        login = {"page": "/dashboard"}
        async with site.client.post("/login", params=login, data={"token": "sesame"}, allow_redirects=False) as answer:
            assert (answer.status, answer.headers["Location"]) == (303, "/dashboard")
            assert answer.cookies
        site.client.cookie_jar.clear()
        async with site.client.post("/login", data={"token": "sesame"}, allow_redirects=False) as answer:
            assert (answer.status, answer.headers["Location"]) == (303, "/dashboard")  # by the form at /


# ------------------------------------------------------------------ words

texts = st.text(st.characters(exclude_characters="|", exclude_categories=["Cs"]), max_size=30).map(str.strip)


@given(st.lists(texts, min_size=2, max_size=5), st.sampled_from(["", "/meme ", " /MEME\n"]))
def test_own_boxes_are_what_stands_between_the_bars(boxes: list[str], command: str) -> None:
    joined = " | ".join(boxes)
    if command or not joined.lower().startswith("/meme"):
        assert form.words(command + joined) == ("", tuple(boxes))


@given(texts.filter(lambda text: not text.lower().startswith("/meme")))
def test_other_text_is_context(text: str) -> None:
    assert form.words(text) == form.words(f"/meme {text}") == (text, ())


@given(st.integers(0, 2**63 - 1))
def test_every_seed_is_understood(seed: int) -> None:
    assert form.whole_number("seed", str(seed)) == form.whole_number("seed", seed) == seed


def test_longer_words_are_not_the_command() -> None:
    assert form.words("/memes are fun") == ("/memes are fun", ())
    assert form.words("/meme") == ("", ())
