"""The blind rating page, used in headless Chromium against the real server and store."""

import json
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import aiohttp
import pytest
from PIL import Image, ImageDraw
from playwright.sync_api import Browser, Locator, Page, expect

from adapters.web_chat import WebChat
from bot.health import Health
from bot.ratings import BlindRatings
from bot.store import Store
from tests.adapters import test_web_page as chat
from tests.adapters.test_web_page import PHONE, Run, fits, luminance, tab_to, visitor

browser, run, pytestmark = chat.browser, chat.run, chat.pytestmark

SYSTEMS = "people", "secret-gru", "secret-ngrams"


def folder(path: Path, pictures: int) -> Path:
    """Memes by people and two programs."""
    path.mkdir()
    lines = []
    for picture in range(pictures):
        for system in SYSTEMS:
            name = f"{len(lines):03}.png"
            meme = Image.new("RGB", (480, 320), ("teal", "firebrick", "navy")[picture % 3])
            ImageDraw.Draw(meme).text((20, 20), f"MEME {len(lines)}", font_size=60)
            meme.save(path / name)
            lines.append({"file": name, "picture": f"p{picture}", "system": system, "boxes": [f"meme {len(lines)}"]})
    (path / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return path


@dataclass
class Site:
    """The server with something to rate."""

    run: Run
    store: Store
    url: str

    def answers(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.run(self.store.ratings())
        return rows


@contextmanager
def serving(
    run: Run, folder: Path, show: Literal["single", "pairs"] = "single", token: str | None = None
) -> Iterator[Site]:
    stack = AsyncExitStack()

    async def start() -> Site:
        store = await stack.enter_async_context(Store(folder.parent / "q.db"))
        ratings = BlindRatings(folder, store, show)
        web = WebChat(
            "127.0.0.1",
            0,
            token=token,
            chat=True,
            max_bytes=1000,
            health=Health(),
            spool=folder.parent / "spool",
            ratings=ratings,
        )
        await web.start()
        stack.push_async_callback(web.close)
        return Site(run, store, web.address)

    yield run(start())
    run(stack.aclose())


@pytest.fixture
def site(run: Run, tmp_path: Path) -> Iterator[Site]:
    with serving(run, folder(tmp_path / "memes", 1)) as site:
        yield site


@contextmanager
def rater(browser: Browser, site: Site, **options: Any) -> Iterator[Page]:
    with visitor(browser, site, **options) as context:  # type: ignore[arg-type]
        page = context.new_page()
        page.goto(site.url + "/rate")
        yield page


def test_forced_colours_show_what_was_answered(browser: Browser, site: Site) -> None:
    with rater(browser, site, forced_colors="active") as page:
        group = page.get_by_role("group", name="Is it funny?")
        group.get_by_text("Yes").click()
        expect(group.locator("label").nth(0)).to_have_css("border-width", "3px")
        expect(group.locator("label").nth(1)).to_have_css("border-width", "1px")
        expect(page.locator("fieldset.next")).to_have_css("border-width", "3px")


def progress(page: Page) -> Locator:
    return page.locator("#progress")


def test_memes_are_rated_one_by_one_and_nothing_tells_who_wrote_them(browser: Browser, site: Site) -> None:
    with rater(browser, site) as page:
        heard: list[str] = []
        page.on("response", lambda response: heard.append(response.url + str(response.headers)))
        seen = set()
        for done in range(3):
            expect(progress(page)).to_have_text(f"{done} of 3 rated")
            image = page.locator("#shown img")
            image.evaluate("image => image.decode()")
            seen.add(image.get_attribute("alt"))
            page.get_by_role("group", name="Is it funny?").get_by_text("Yes").click()
            page.get_by_role("group", name="Do the words fit").get_by_text("No").click()
            page.get_by_role("group", name="Who wrote").get_by_text("A program").click()
            html = page.content() + "".join(heard)
            assert not [
                word for word in (*SYSTEMS, "captions.jsonl", ".png") if word in html.replace("People wrote", "")
            ]
            page.get_by_role("button", name="Next").click()
        expect(page.get_by_text("That was all of them")).to_be_visible()
        assert len(seen) == 3
        page.reload()
        expect(page.get_by_text("That was all of them")).to_be_visible()
    answers = site.answers()
    assert len(answers) == 9
    assert {(row["question"], row["answer"]) for row in answers} == {("funny", "yes"), ("fits", "no"), ("person", "no")}


def test_all_questions_want_an_answer_and_a_meme_may_be_passed_over(browser: Browser, site: Site) -> None:
    with rater(browser, site) as page:
        page.get_by_role("group", name="Is it funny?").get_by_text("Yes").click()
        page.get_by_role("button", name="Next").click()
        expect(progress(page)).to_have_text("0 of 3 rated")
        page.get_by_role("button", name="Pass").click()
        expect(progress(page)).to_have_text("1 of 3 rated")
        page.get_by_role("button", name="Back").click()
        expect(progress(page)).to_have_text("0 of 3 rated")
        expect(page.get_by_role("button", name="Back")).to_be_disabled()


def test_keys_are_enough(browser: Browser, site: Site) -> None:
    with rater(browser, site) as page:
        expect(progress(page)).to_have_text("0 of 3 rated")
        for key in "121":
            page.keyboard.press(key)
        page.keyboard.press("Enter")
        expect(progress(page)).to_have_text("1 of 3 rated")
        page.keyboard.press("Backspace")
        expect(progress(page)).to_have_text("0 of 3 rated")
        tab_to(page, page.get_by_label("Yes").first)
        page.keyboard.press("ArrowRight")
        expect(page.get_by_label("No").first).to_be_checked()
        label = page.locator("#questions label").nth(1)
        assert label.evaluate("label => getComputedStyle(label).outlineStyle") != "none"
        tab_to(page, page.get_by_role("button", name="Pass"))
        page.keyboard.press("Enter")
        expect(progress(page)).to_have_text("1 of 3 rated")
    assert [row["question"] for row in site.answers()] == [""]


def test_two_memes_of_a_picture_are_compared(browser: Browser, run: Run, tmp_path: Path) -> None:
    with serving(run, folder(tmp_path / "memes", 1), "pairs") as site, rater(browser, site) as page:
        for done in range(3):
            expect(progress(page)).to_have_text(f"{done} of 3 rated")
            expect(page.locator("#shown img")).to_have_count(2)
            page.get_by_role("group", name="funnier").get_by_text("A", exact=True).click()
            page.get_by_role("group", name="fit the picture").get_by_text("Same").click()
            page.get_by_role("button", name="Next").click()
        expect(page.get_by_text("That was all of them")).to_be_visible()
        assert {row["answer"] for row in site.answers() if row["question"] == "funny"} == {"first"}


@pytest.mark.parametrize("show", ["single", "pairs"])
def test_a_phone_scrolls_in_one_direction_only(
    browser: Browser, run: Run, tmp_path: Path, show: Literal["single", "pairs"]
) -> None:
    with serving(run, folder(tmp_path / "memes", 1), show) as site, rater(browser, site, **PHONE) as page:
        expect(page.locator("#shown img").first).to_be_visible()
        assert fits(page)
        for label in page.locator("#questions label").all():
            box = label.bounding_box()
            assert box is not None
            assert box["height"] >= 44


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_light_and_in_dark(browser: Browser, site: Site, scheme: str) -> None:
    with rater(browser, site, color_scheme=scheme) as page:
        page.get_by_label("Yes").first.check()
        for words, ground in (("#about", "body"), ("legend", "fieldset"), ("#questions label", "#questions label")):
            pair = (
                luminance(page.locator(words).first, "color"),
                luminance(page.locator(ground).first, "backgroundColor"),
            )
            assert (max(pair) + 0.05) / (min(pair) + 0.05) >= 4.5, (words, pair)


def test_trouble_is_told_on_the_page(browser: Browser, site: Site) -> None:
    with rater(browser, site) as page:
        expect(progress(page)).to_have_text("0 of 3 rated")
        page.route("**/api/rate", lambda route: route.abort())
        page.get_by_role("button", name="Pass").click()
        expect(page.get_by_role("alert")).to_contain_text("cannot be reached")
        page.unroute("**/api/rate")
        page.get_by_role("button", name="Pass").click()
        expect(page.get_by_role("alert")).to_be_hidden()


def test_a_link_with_the_token_leads_to_the_page(browser: Browser, run: Run, tmp_path: Path) -> None:
    with serving(run, folder(tmp_path / "memes", 1), token="open sesame") as site:
        with visitor(browser, site) as context:  # type: ignore[arg-type]
            page = context.new_page()
            page.goto(site.url + "/rate?token=open%20sesame")
            expect(progress(page)).to_have_text("0 of 3 rated")
        with rater(browser, site) as page:
            page.get_by_label("token").fill("guess")
            page.get_by_role("button", name="Sign in").click()
            page.get_by_label("token").fill("open sesame")
            page.get_by_role("button", name="Sign in").click()
            expect(progress(page)).to_have_text("0 of 3 rated")


def test_bad_requests_get_a_sentence(site: Site) -> None:
    async def statuses() -> list[tuple[int, Any]]:
        async with aiohttp.ClientSession(site.url) as session:
            found = []
            for body in (
                {},
                {"memes": "a"},
                {"memes": ["0"]},
                {"memes": [], "answers": {}},
                {"memes": [], "answers": 1},
            ):
                async with session.post("/api/rate", json=body) as answer:
                    found.append((answer.status, await answer.json()))
            async with session.get("/rate/memes/00") as answer:
                found.append((answer.status, await answer.json()))
            return found

    found = site.run(statuses())
    assert [status for status, _ in found] == [400, 400, 404, 400, 400, 404]
    assert all(list(body) == ["error"] for _, body in found)


def test_without_anything_to_rate_there_is_no_page(run: Run, tmp_path: Path) -> None:
    async def status() -> int:
        web = WebChat("127.0.0.1", 0, token=None, chat=True, max_bytes=1, health=Health(), spool=tmp_path / "spool")
        await web.start()
        try:
            async with aiohttp.ClientSession(web.address) as session, session.get("/rate") as answer:
                return answer.status
        finally:
            await web.close()

    assert run(status()) == 404
