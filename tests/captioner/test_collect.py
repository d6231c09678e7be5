"""Collecting from a site on loopback whose pages are written here."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from PIL import Image

from captioner import data
from captioner.__main__ import main
from captioner.collect import Collection, Visitor
from captioner.collect.visitor import NotAllowedError, VisitError

AUTHOR = "somebody_with_a_name"


def jpeg() -> bytes:
    out = BytesIO()
    Image.new("RGB", (32, 24), "teal").save(out, "JPEG")
    return out.getvalue()


def unit(post: int, words: str, counts: str, title: str = "A title") -> str:
    """One caption as ImgFlip's pages show it."""
    return f"""<div class="base-unit clearfix"><h2 class="base-unit-title"><a href="/i/{post}">{title}</a></h2>
      <div class="base-img-wrap"><a class="base-img-link" href="/i/{post}"><img class="base-img" src="/{post}.jpg"
        alt="{title} | {words}image tagged in memes | made w/ a meme maker"/></a></div>
      <div class="base-info"><div class="base-author">by <a class="u-username" href="/user/{AUTHOR}">{AUTHOR}</a></div>
        <div class="base-view-count">{counts}</div></div></div>"""


def pager(address: str) -> str:
    return f'<div class="pager"><a class="pager-next l but" href="{address}">Next</a></div>'


@dataclass
class Site:
    """A site of templates, each with three pages of two captions."""

    robots: str | int = "User-agent: *\nAllow: /\n"
    busy: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    """Answers that come before the real ones."""
    shift: int = 0
    """Captions that were posted since, on top of the others."""
    asked: list[tuple[str, str]] = field(default_factory=list)
    url: str = ""

    def answer(self, path: str, agent: str) -> tuple[int, str, bytes, dict[str, str]]:
        self.asked.append((path, agent))
        parts, kind = urlsplit(path), "text/html; charset=utf-8"
        page = int(parse_qs(parts.query).get("page", ["1"])[0])
        if parts.path == "/robots.txt":
            if isinstance(self.robots, int):
                return self.robots, "text/plain", b"", {}
            return 200, "text/plain", self.robots.encode(), {}
        if self.busy:
            status, headers = self.busy.pop(0)
            return status, kind, b"", headers
        if parts.path == "/memetemplates":
            names = ("Two-Buttons", "Wise-Owl") if page == 1 else ("Third-One",)
            boxes = [f'<div class="mt-box"><h3 class="mt-title"><a href="/meme/{n}">{n}</a></h3></div>' for n in names]
            return 200, kind, ("".join(boxes) + (pager("/memetemplates?page=2") if page == 1 else "")).encode(), {}
        if parts.path.startswith("/meme/"):
            return 200, kind, self.captions(parts.path, page).encode(), {}
        if parts.path == "/moved":
            return 302, kind, b"", {"Location": "/memetemplates"}
        if parts.path == "/templates.json":
            meme = {"id": "87", "name": "Owl's Wisdom", "url": f"{self.url}/owl.jpg", "box_count": 2}
            return 200, "application/json", json.dumps({"success": True, "data": {"memes": [meme]}}).encode(), {}
        if parts.path.endswith(".jpg"):
            return 200, "image/jpeg", jpeg(), {}
        return 404, kind, b"", {}

    def captions(self, path: str, page: int) -> str:
        first = (page - 1) * 2 - self.shift
        units = [
            unit(i, f"  FIRST {i}; SECOND {i} | ", f"{1000 + i:,} views, {i + 5} upvotes") for i in (first, first + 1)
        ]
        picture = '<div id="base-right"><a class="meme-link"><img src="/blank.jpg"/></a></div>'
        return picture + "".join(units) + (pager(f"{path}?page={page + 1}") if page < 3 else "")


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, kind, body, headers = site.answer(self.path, self.headers["User-Agent"])
            self.send_response(status)
            for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002, its name in the library
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_port}"
    yield site
    server.shutdown()
    thread.join()
    server.server_close()


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def visitor(clock: Clock) -> Iterator[Visitor]:
    with Visitor("someone@example.org", pause=2.0, sleep=clock.sleep, clock=lambda: clock.now) as visitor:
        yield visitor


def test_what_is_collected_can_be_trained_on(site: Site, visitor: Visitor, tmp_path: Path) -> None:
    new = Collection(tmp_path, visitor).collect(f"{site.url}/memetemplates", templates=2, pages=2)
    samples = list(data.load("imgflip575k", tmp_path))
    assert new == len(samples) == 8
    assert samples[0].boxes == ("FIRST 0", "SECOND 0")
    assert {s.template for s in samples} == {"two-buttons", "wise-owl"}
    assert all(s.picture.is_file() for s in samples)
    assert {s.percentile for s in samples} == {0.5}  # views and votes are there, and few to compare with
    kept = "".join(p.read_text("utf-8") for p in tmp_path.rglob("*.json"))
    assert '"1,003"' in kept
    assert AUTHOR not in kept
    assert "/i/" not in kept


def test_it_says_who_it_is_and_waits_between_requests(
    site: Site, visitor: Visitor, clock: Clock, tmp_path: Path
) -> None:
    Collection(tmp_path, visitor).collect(f"{site.url}/memetemplates", templates=1, pages=1)
    assert [path for path, _ in site.asked] == ["/robots.txt", "/memetemplates", "/meme/Two-Buttons", "/blank.jpg"]
    assert {agent for _, agent in site.asked} == {visitor.agent}
    assert visitor.agent.startswith("Quipbot ")
    assert "collecting captions" in visitor.agent
    assert "someone@example.org" in visitor.agent
    assert clock.slept == [2.0, 2.0, 2.0]


def test_robots_txt_is_kept_to(site: Site, visitor: Visitor, clock: Clock, tmp_path: Path) -> None:
    site.robots = "User-agent: *\nDisallow: /\n\nUser-agent: quipbot\nCrawl-delay: 7\nDisallow: /meme/*-Owl$\n"
    said: list[str] = []
    new = Collection(tmp_path, visitor).collect(f"{site.url}/memetemplates", templates=2, pages=1, say=said.append)
    assert new == 2
    assert len(said) == 1
    assert "/meme/Wise-Owl" in said[0]
    assert not [path for path, _ in site.asked if "Owl" in path]
    assert clock.slept[1:] == [7.0, 7.0]


@pytest.mark.parametrize(("robots", "allowed"), [(404, True), (403, True), (500, False), ("", True)])
def test_a_robots_txt_that_cannot_be_had(site: Site, visitor: Visitor, robots: str | int, allowed: bool) -> None:
    site.robots = robots
    if allowed:
        assert visitor.get(f"{site.url}/memetemplates").body
        return
    with pytest.raises(NotAllowedError, match="left alone"):
        visitor.get(f"{site.url}/memetemplates")
    assert {path for path, _ in site.asked} == {"/robots.txt"}


def test_a_run_that_was_cut_off_goes_on(site: Site, visitor: Visitor, tmp_path: Path) -> None:
    start = f"{site.url}/memetemplates"
    Collection(tmp_path, visitor).collect(start, templates=1, pages=1)
    site.asked.clear()
    site.shift = 1  # meanwhile one was posted, so that the pages have moved
    new = Collection(tmp_path, visitor).collect(start, templates=3, pages=3)
    paths = [path for path, _ in site.asked]
    assert "/memetemplates" not in paths
    assert paths.count("/meme/Two-Buttons") == 0
    texts = [s.text for s in data.load("imgflip575k", tmp_path) if s.template == "two-buttons"]
    assert sorted(texts) == [f"FIRST {i} SECOND {i}" for i in range(5)]  # none twice
    assert new == 3 + 6 + 6
    assert Collection(tmp_path, visitor).collect(start, templates=3, pages=3) == 0
    with pytest.raises(VisitError, match="another one"):
        Collection(tmp_path, visitor).collect(f"{site.url}/other")


def test_templates_may_come_from_json(site: Site, visitor: Visitor, tmp_path: Path) -> None:
    with pytest.raises(VisitError, match="say where they are"):
        Collection(tmp_path, visitor).collect(f"{site.url}/templates.json")
    Collection(tmp_path, visitor).collect(f"{site.url}/templates.json", pattern=site.url + "/meme/{id}/{name}", pages=1)
    paths = [path for path, _ in site.asked]
    assert "/meme/87/Owls-Wisdom" in paths
    assert "/owl.jpg" in paths
    assert len(list(data.load("imgflip575k", tmp_path))) == 2


def test_it_backs_off_where_the_site_asks_for_patience(site: Site, visitor: Visitor, clock: Clock) -> None:
    site.busy = [(429, {"Retry-After": "30"}), (503, {})]
    assert visitor.get(f"{site.url}/memetemplates").body
    assert {30.0, 8.0} <= set(clock.slept)
    site.busy = [(429, {"Retry-After": "86400"})]
    with pytest.raises(VisitError, match="come back in 1440 minutes"):
        visitor.get(f"{site.url}/memetemplates")
    site.busy = [(500, {})] * 4
    with pytest.raises(VisitError, match="500"):
        visitor.get(f"{site.url}/memetemplates")


def test_redirects_are_followed_and_robots_asked_there_too(site: Site, visitor: Visitor) -> None:
    assert visitor.get(f"{site.url}/moved").url == f"{site.url}/memetemplates"
    site.robots = "User-agent: *\nDisallow: /memetemplates"
    with Visitor(pause=0) as another, pytest.raises(NotAllowedError, match="memetemplates"):
        another.get(f"{site.url}/moved")


def test_a_page_that_is_too_large_and_one_that_is_none(site: Site, visitor: Visitor) -> None:
    with pytest.raises(VisitError, match="larger"):
        visitor.get(f"{site.url}/memetemplates", max_bytes=10)
    with pytest.raises(VisitError, match="404"):
        visitor.get(f"{site.url}/gone")
    with pytest.raises(VisitError, match="no web address"):
        visitor.get("file:///etc/hostname")


def test_what_is_no_caption_is_left_out(
    site: Site, visitor: Visitor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    units = [
        unit(1, "", "5 views"),  # without words
        unit(2, "WORDS | ", "1 view, 1 upvote, 3 comments", title="Odd | title"),
        unit(3, "SEEN BY NOBODY | ", ""),
        '<div class="base-unit"><h2 class="base-unit-title"><a href="/gif/4">A film</a></h2><video></video></div>',
    ]
    picture = '<a class="meme-link"><img src="/blank.jpg"/></a>'
    monkeypatch.setattr(Site, "captions", lambda *_: picture + "".join(units))
    Collection(tmp_path, visitor).collect(f"{site.url}/memetemplates", templates=1, pages=1)
    (file,) = (tmp_path / "dataset/memes").iterdir()
    found = [(row["boxes"], row["metadata"]) for row in json.loads(file.read_text())]
    assert found == [
        (["WORDS"], {"views": "1", "img-votes": "1"}),
        (["SEEN BY NOBODY"], {"views": None, "img-votes": None}),
    ]


def test_the_command_collects_and_says_what(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start, out = f"{site.url}/memetemplates", str(tmp_path / "set")
    command = ["collect", start, "-o", out, "--templates", "1", "--pages", "2", "--pause", "0"]
    assert main(command) == 0
    assert "4 new captions" in capsys.readouterr().out
    site.robots = "User-agent: *\nDisallow: /"
    assert main(["collect", start, "-o", str(tmp_path / "more"), "--pause", "0"]) == 2
    assert "robots.txt" in capsys.readouterr().err
