"""The page, used in headless Chromium against the whole bot: real service, engine, store and a tiny model."""

import asyncio
import base64
import io
import re
import shutil
import sqlite3
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Dialog, Locator, Page, expect, sync_playwright

from adapters.web_chat import WebChat
from bot.config import Captioner, Config, Reply
from bot.database import beside
from bot.emoji import Ballot
from bot.engine import Engine
from bot.health import Health
from bot.learn import labels
from bot.service import Service
from bot.store import Store

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True, "device_scale_factor": 2}

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed; the page was not tested"),
]

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """Runs coroutines in the bot's event loop, which has a thread of its own: Playwright keeps this one."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="bot")
    thread.start()
    yield lambda work: asyncio.run_coroutine_threadsafe(work, loop).result(60)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture(scope="module")
def engine(run: Run, tiny_model: Path) -> Iterator[Engine]:
    stack = AsyncExitStack()
    config = Config(captioner=Captioner(model=str(tiny_model), device="cpu", threads=1))
    yield run(stack.enter_async_context(Engine(config)))
    run(stack.aclose())


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=20_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@dataclass
class Site:
    """One bot with its own empty store, which can be stopped and started again at the same address."""

    engine: Engine
    folder: Path
    run: Run
    token: str | None = None
    port: int = 0
    url: str = ""
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    def start(self) -> None:
        self.url = self.run(self._start())
        self.port = int(self.url.rpartition(":")[2])

    def stop(self) -> None:
        self.run(self._stack.aclose())

    async def _start(self) -> str:
        health = Health()
        store = await self._stack.enter_async_context(Store(self.folder / "quipbot.db"))
        service = Service(self.engine, store, health, Reply(explore=0))
        web = WebChat(
            "127.0.0.1",
            self.port,
            token=self.token,
            chat=True,
            max_bytes=2_000_000,
            health=health,
            spool=self.folder / "spool",
        )
        await web.start()
        self._stack.push_async_callback(_end, asyncio.create_task(web.run(service)))
        return web.address


async def _end(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@pytest.fixture
def site(engine: Engine, tmp_path: Path, run: Run) -> Iterator[Site]:
    site = Site(engine, tmp_path, run)
    site.start()
    yield site
    site.stop()


@contextmanager
def window(browser: Browser, site: Site, **options: Any) -> Iterator[Page]:
    """A page of a visitor of their own; nothing it does may reach beyond the bot, or break in the console."""
    with visitor(browser, site, **options) as context:
        page = context.new_page()
        page.goto(site.url)
        yield page


@contextmanager
def visitor(browser: Browser, site: Site, **options: Any) -> Iterator[BrowserContext]:
    context = browser.new_context(**options)
    context.set_default_timeout(20_000)
    requests: list[str] = []
    broken: list[str] = []
    context.on("request", lambda request: requests.append(request.url))
    context.on("weberror", lambda error: broken.append(str(error.error)))
    yield context
    context.close()
    assert requests
    assert not [url for url in requests if not url.startswith((site.url + "/", "data:", f"blob:{site.url}/"))]
    assert not broken


@pytest.fixture
def page(browser: Browser, site: Site) -> Iterator[Page]:
    with window(browser, site) as page:
        yield page


def picture(shade: int = 0, size: tuple[int, int] = (320, 240)) -> bytes:
    width, height = size
    ramp = np.linspace(0, 255, width * height * 3).reshape(height, width, 3)
    file = io.BytesIO()
    Image.fromarray(((ramp + shade) % 256).astype(np.uint8)).save(file, "JPEG")
    return file.getvalue()


def file(data: bytes, name: str = "picture.jpg") -> Any:
    return {"name": name, "mimeType": "image/jpeg", "buffer": data}


def memes(page: Page) -> Locator:
    return page.locator(".meme")


def pick(page: Page, data: bytes | None = None) -> Locator:
    """Post a picture and wait for its meme."""
    before = memes(page).count()
    page.set_input_files("#pick", file(data or picture()))
    expect(memes(page)).to_have_count(before + 1)
    return memes(page).last


def say(page: Page, words: str) -> None:
    page.get_by_label("Words for the picture").fill(words)
    page.keyboard.press("Enter")


def is_shown(image: Locator) -> bool:
    image.evaluate("image => image.decode()")
    return bool(image.evaluate("image => image.naturalWidth > 0"))


def reaction(meme: Locator, emoji: str) -> Locator:
    return meme.get_by_role("group", name="Reactions").locator(f'[data-emoji="{emoji}"]')


def fits(page: Page) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth <= innerWidth"))


# ------------------------------------------------------------------ posting


def test_an_empty_page_invites_and_a_picked_picture_becomes_a_meme(page: Page) -> None:
    expect(page.get_by_role("heading", name="Show me a picture")).to_be_visible()
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose a picture").first.click()
    chooser.value.set_files(file(picture()))
    image = memes(page).get_by_role("img")
    expect(image).to_have_count(1)
    assert is_shown(image)
    assert image.get_attribute("alt")
    expect(page.get_by_role("heading", name="Show me a picture")).to_be_hidden()


@contextmanager
def paused(run: Run) -> Iterator[None]:
    """The bot's event loop stands still."""
    go = threading.Event()

    async def pause() -> None:
        go.wait(30)

    pausing = threading.Thread(target=run, args=(pause(),))
    pausing.start()
    yield
    go.set()
    pausing.join()


def test_progress_is_seen_and_heard_in_the_shape_of_the_picture(page: Page, run: Run) -> None:
    with paused(run):
        see_progress(page)
    expect(memes(page)).to_have_count(1)
    expect(page.locator(".making")).to_have_count(0)
    expect(page.get_by_role("status")).to_contain_text("Here is the meme.")


def see_progress(page: Page) -> None:
    page.set_input_files("#pick", file(picture(size=(300, 150))))
    making = page.locator(".making")
    expect(making).to_have_attribute("aria-busy", "true")
    expect(making.locator(".spinner")).to_be_visible()
    expect(page.get_by_role("status")).to_have_text("Making a meme…")
    box = making.locator("img").bounding_box()
    assert box is not None
    assert box["width"] / box["height"] == pytest.approx(2, rel=0.02)


def test_a_pasted_picture_becomes_a_meme(page: Page) -> None:
    assert paste(page)
    expect(memes(page)).to_have_count(1)
    assert paste(page, "/home/me/image.png\n")
    expect(memes(page)).to_have_count(2)


def test_pasted_words_stay_words_though_a_picture_of_them_comes_along(page: Page) -> None:
    assert not paste(page, "me at work")
    expect(page.locator(".making, .meme")).to_have_count(0)


def paste(page: Page, words: str = "") -> bool:
    """Paste a picture, and maybe words with it; whether the page took it, else the browser pastes the words."""
    taken = page.evaluate(
        """([data, words]) => {
            const bytes = Uint8Array.from(atob(data), (sign) => sign.charCodeAt(0));
            const clipboardData = new DataTransfer();
            clipboardData.items.add(new File([bytes], "image.png", { type: "image/png" }));
            if (words) clipboardData.setData("text/plain", words);
            const event = new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true });
            return !document.body.dispatchEvent(event);
        }""",
        [base64.b64encode(picture()).decode(), words],
    )
    return bool(taken)


def test_dropped_pictures_are_posted_one_after_the_other(page: Page) -> None:
    data = page.evaluate_handle(
        """pictures => {
            const data = new DataTransfer();
            for (const picture of pictures) {
                const bytes = Uint8Array.from(atob(picture), (sign) => sign.charCodeAt(0));
                data.items.add(new File([bytes], "picture.jpg", { type: "image/jpeg" }));
            }
            return data;
        }""",
        [base64.b64encode(picture(size=size)).decode() for size in ((200, 100), (100, 100), (300, 100))],
    )
    page.dispatch_event("body", "dragover", {"dataTransfer": data})
    expect(page.get_by_text("Drop it here")).to_be_visible()
    page.dispatch_event("body", "drop", {"dataTransfer": data})
    expect(page.get_by_text("Drop it here")).to_be_hidden()
    expect(memes(page)).to_have_count(3)
    images = memes(page).get_by_role("img")
    assert all(is_shown(images.nth(place)) for place in range(3))
    assert [image.evaluate("image => image.naturalWidth") for image in images.all()] == [200, 100, 300]


def test_who_leaves_while_pictures_wait_is_asked(page: Page, run: Run) -> None:
    asked: list[str] = []

    def stay(dialog: Dialog) -> None:
        asked.append(dialog.type)
        dialog.dismiss()

    page.on("dialog", stay)
    reaction(pick(page), "👍").click()  # browsers ask nobody who has touched nothing
    with paused(run):
        page.set_input_files("#pick", [file(picture(shade)) for shade in range(2)])
        expect(page.locator(".making")).to_have_count(2)
        with page.expect_event("dialog"):
            page.evaluate("setTimeout(() => location.reload())")
    expect(memes(page)).to_have_count(3)
    assert asked == ["beforeunload"]
    page.reload()
    assert asked == ["beforeunload"]


def test_words_go_along_with_the_next_picture(page: Page) -> None:
    say(page, "me at work")
    expect(page.locator(".note")).to_contain_text("add a picture")
    expect(page.get_by_label("Words for the picture")).to_have_value("me at work")
    pick(page)
    expect(page.locator(".said")).to_have_text("me at work")
    expect(page.get_by_label("Words for the picture")).to_have_value("")


def test_ones_own_words_on_the_last_picture_and_on_a_new_one(page: Page) -> None:
    say(page, "/meme left | right")
    expect(page.locator(".note")).to_contain_text("There is no picture to write on yet")
    page.get_by_label("Words for the picture").fill("/meme first | picture")
    expect(pick(page).get_by_role("img")).to_have_attribute("alt", containing("first” and “picture"))
    say(page, "/meme my own words | below")
    expect(memes(page)).to_have_count(2)
    expect(memes(page).last.get_by_role("img")).to_have_attribute("alt", containing("my own words” and “below"))


def containing(words: str) -> re.Pattern[str]:
    return re.compile(re.escape(words))


# ------------------------------------------------------------------ a meme


def test_commands_of_other_platforms_are_no_words_for_a_picture(page: Page) -> None:
    page.locator("#text").fill("/leaderboard")
    page.keyboard.press("Enter")
    expect(page.locator(".note").last).to_have_text("This page knows two commands: /meme and /forget.")


def test_reactions_toggle_and_outlive_a_reload(page: Page) -> None:
    meme = pick(page)
    for emoji in ("🔥", "❤️"):
        reaction(meme, emoji).click()
        expect(reaction(meme, emoji)).to_have_attribute("aria-pressed", "true")
    reaction(meme, "🔥").click()
    expect(reaction(meme, "🔥")).to_have_attribute("aria-pressed", "false")
    expect(reaction(meme, "🔥")).to_have_text("🔥")
    alt = meme.get_by_role("img").get_attribute("alt")
    page.reload()
    expect(memes(page)).to_have_count(1)
    assert meme.get_by_role("img").get_attribute("alt") == alt
    expect(reaction(meme, "❤️")).to_have_attribute("aria-pressed", "true")
    expect(reaction(meme, "❤️")).to_have_text("❤️1")
    expect(reaction(meme, "🔥")).to_have_attribute("aria-pressed", "false")


def test_another_one_is_another_meme_of_the_picture(page: Page) -> None:
    meme = pick(page, picture(size=(250, 125)))
    meme.get_by_role("button", name="Another one").click()
    expect(memes(page)).to_have_count(2)
    image = memes(page).last.get_by_role("img")
    assert is_shown(image)
    assert image.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [250, 125]


def test_one_of_the_three_best_can_be_picked_and_is_learnt_from(page: Page, site: Site) -> None:
    first = pick(page)
    choices = first.locator(".candidates button")
    expect(choices).to_have_count(3)
    other = choices.and_(page.locator(":not([aria-current])")).first
    words = other.inner_text().split("\n")
    other.click()
    expect(memes(page)).to_have_count(2)
    drawn = memes(page).last
    assert drawn.locator('.candidates [aria-current="true"]').inner_text().split("\n") == words
    expect(drawn.get_by_role("img")).to_have_attribute("alt", containing("” and “".join(words)))
    assert [pair["better"] for pair in pairs(site)] == [words] * 2
    last = first.locator(".candidates button").last
    changed = last.inner_text().split("\n")
    last.click()
    expect(memes(page)).to_have_count(3)
    assert [pair["better"] for pair in pairs(site)] == [changed] * 2
    assert words in [pair["worse"] for pair in pairs(site)]


def pairs(site: Site) -> list[dict[str, Any]]:
    """What is learnt from what was picked."""
    with beside(site.folder / "quipbot.db") as db:
        return [line for line in labels.lines(db, Ballot.of(["👍"], ["👎"])) if line["kind"] == "pair"]


def test_who_wants_to_be_forgotten_is(browser: Browser, site: Site) -> None:
    with window(browser, site) as one, window(browser, site) as two:
        pick(one)
        expect(memes(two)).to_have_count(1)
        reaction(memes(two).first, "👍").click()
        expect(reaction(memes(one).first, "👍")).to_have_text("👍1")
        pick(two).locator(".candidates button").last.click()
        expect(memes(two)).to_have_count(3)
        assert pairs(site)
        two.once("dialog", lambda dialog: dialog.dismiss())
        say(two, "/forget")
        expect(memes(two)).to_have_count(3)
        two.once("dialog", lambda dialog: dialog.accept())
        say(two, "/forget")
        expect(two.locator(".note").last).to_have_text("Forgotten: 2 memes and 1 vote of yours.")
        expect(memes(two)).to_have_count(1)
        for page in (one, two):
            expect(reaction(memes(page).first, "👍")).to_have_text("👍")
        assert not pairs(site)


def test_what_is_forgotten_disappears_from_every_window(browser: Browser, site: Site) -> None:
    with window(browser, site) as one, window(browser, site) as two:
        listen(two)
        pick(two)
        expect(memes(one)).to_have_count(1)
        pick(one)
        expect(memes(two)).to_have_count(2)
        forget(one)
        expect(memes(two)).to_have_count(1)
        forget(two)
        for page in (one, two):
            expect(memes(page)).to_have_count(0)
        one.reload()
        expect(one.get_by_role("heading", name="Show me a picture")).to_be_visible()


def forget(page: Page) -> None:
    page.once("dialog", lambda dialog: dialog.accept())
    say(page, "/forget")
    expect(page.locator(".note").last).to_contain_text("Forgotten:")


def test_what_waits_when_everything_is_forgotten_is_not_posted(page: Page, run: Run) -> None:
    posts: list[str] = []
    page.on("request", lambda request: posts.append(request.url) if request.method == "POST" else None)
    with paused(run):
        page.set_input_files("#pick", [file(picture(shade)) for shade in range(3)])
        expect(page.locator(".making")).to_have_count(3)
        page.once("dialog", lambda dialog: dialog.accept())
        say(page, "/forget")
        expect(page.locator(".making")).to_have_count(1)
    expect(page.locator(".note", has_text="Forgotten:")).to_be_visible()
    expect(page.locator(".making")).to_have_count(0)
    listed = page.evaluate("async () => (await (await fetch('/api/memes')).json()).memes.length")
    expect(memes(page)).to_have_count(listed)
    pick(page)
    assert len(posts) == 2


def test_a_window_that_did_not_hear_what_was_forgotten_finds_out(browser: Browser, site: Site, page: Page) -> None:
    listen(page)
    for _ in range(2):
        pick(page)
    quietly_forget(site)
    reaction(memes(page).first, "👍").click()
    expect(page.locator(".problem")).to_have_text("There is no such meme.")
    expect(memes(page)).to_have_count(1)
    site.stop()
    expect(page.get_by_text("Connecting again…")).to_be_visible()
    site.start()
    expect(memes(page)).to_have_count(0)
    say(page, "/meme own | words")
    expect(page.locator(".note").last).to_contain_text("There is no picture to write on yet")


def quietly_forget(site: Site) -> None:
    """Every meme, as another process does it: the bot is not told."""
    with closing(sqlite3.connect(site.folder / "quipbot.db")) as db, db:
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("DELETE FROM memes")


def test_a_meme_whose_picture_is_not_kept_any_more_is_a_sentence(page: Page, site: Site) -> None:
    listen(page)
    first = pick(page)
    pick(page)
    quietly_prune(site)
    first.get_by_role("button", name="Another one").click()
    sentences = page.locator(".note:not(.problem)")
    expect(sentences).to_have_text(["The picture of this meme is not kept any more."])
    expect(memes(page)).to_have_count(1)
    page.evaluate("document.querySelector('.meme img').src += '?again'")
    expect(sentences).to_have_count(2)
    expect(page.get_by_role("group", name="Reactions")).to_have_count(0)
    page.reload()
    expect(page.get_by_role("heading", name="Show me a picture")).to_be_visible()


def quietly_prune(site: Site) -> None:
    """Every picture, as after store.keep_pictures days."""
    with closing(sqlite3.connect(site.folder / "quipbot.db")) as db, db:
        db.execute("UPDATE memes SET picture = NULL, source = NULL")


def test_the_attention_is_shown_on_request(page: Page) -> None:
    meme = pick(page)
    button = meme.get_by_role("button", name="Why these words?")
    button.click()
    shown = meme.locator(".attention img")
    expect(shown).to_be_visible()
    assert is_shown(shown)
    expect(button).to_have_attribute("aria-expanded", "true")
    expect(meme.locator(".attention a")).to_have_attribute("href", re.compile(r"^/memes/\w+/attention$"))
    button.click()
    expect(shown).to_be_hidden()


def test_the_attention_fits_a_wide_window_and_scrolls_in_a_narrow_one(browser: Browser, site: Site) -> None:
    for options in ({}, PHONE):
        with window(browser, site, **options) as page:
            for size in ((320, 240), (120, 400)):
                meme = pick(page, picture(size=size))
                meme.get_by_role("button", name="Why these words?").click()
                shown = meme.locator(".attention img")
                expect(shown).to_be_visible()
                hidden = meme.locator(".attention div").evaluate("box => box.scrollWidth - box.clientWidth")
                assert (hidden > 0) == bool(options)
                mask = meme.locator(".attention div").evaluate("box => getComputedStyle(box).maskImage")
                assert ("gradient" in mask) == bool(options)
                if options:
                    meme.locator(".attention div").evaluate("box => box.scrollTo(box.scrollWidth, 0)")
                    edges = meme.evaluate(
                        "meme => ['div', 'img'].map(tag => "
                        "meme.querySelector('.attention ' + tag).getBoundingClientRect().right)"
                    )
                    assert edges[1] <= edges[0] - 30  # nothing of the picture is left in the fading edge
                assert fits(page)


def test_nobody_is_told_why_the_model_wrote_what_it_did_not(page: Page) -> None:
    why = page.get_by_role("button", name="Why these words?")
    pick(page).locator(".candidates button").nth(1).click()
    expect(why).to_have_count(2)
    say(page, "/meme own | words")
    expect(memes(page)).to_have_count(3)
    expect(why).to_have_count(2)
    page.reload()
    expect(memes(page)).to_have_count(3)
    expect(why).to_have_count(2)


def test_a_meme_can_be_downloaded(page: Page) -> None:
    meme = pick(page, picture(size=(180, 90)))
    with page.expect_download() as download:
        meme.get_by_role("link", name="Download").click()
    assert download.value.suggested_filename.startswith("quipbot-")
    with Image.open(download.value.path()) as image:
        assert image.size == (180, 90)


def test_trouble_is_told_in_the_chat_and_the_next_picture_works(page: Page, site: Site) -> None:
    page.set_input_files("#pick", file(b"not a picture", "holiday.jpg"))
    expect(page.locator(".problem")).to_contain_text("not a picture")
    expect(page.locator(".making")).to_have_count(0)
    page.set_input_files("#pick", file(bytes(3_000_000), "large.jpg"))
    expect(page.locator(".problem").last).to_contain_text("2 MB")
    pick(page)
    site.stop()
    page.set_input_files("#pick", file(picture()))
    expect(page.locator(".problem").last).to_have_text("picture.jpg: The bot cannot be reached. Is it still running?")


def test_of_several_pictures_the_one_that_cannot_be_read_is_named_in_its_place(page: Page) -> None:
    broken = file(b"not a picture", "holiday.jpg")
    page.set_input_files("#pick", [file(picture(), "a.jpg"), broken, file(picture(9), "b.jpg")])
    expect(memes(page)).to_have_count(2)
    expect(page.locator("#log > .meme + .problem")).to_contain_text("holiday.jpg: ")
    expect(page.locator("#log > .problem + .meme")).to_have_count(1)


def test_a_file_that_is_gone_when_its_turn_comes_is_named(page: Page, run: Run, tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a.jpg", "b.jpg")]
    for each in files:
        each.write_bytes(picture())
    with paused(run):
        page.set_input_files("#pick", files)
        expect(page.locator(".making")).to_have_count(2)
        files[1].unlink()
    expect(page.locator("#log > .meme + .problem")).to_have_text(
        "b.jpg: This file cannot be read: is it a folder, or was it moved?"
    )


def test_words_come_back_when_nothing_comes_of_them(page: Page, site: Site) -> None:
    typed = page.get_by_label("Words for the picture")
    pick(page)
    typed.fill("me at work")
    page.set_input_files("#pick", file(b"not a picture"))
    expect(page.locator(".problem")).to_have_count(1)
    expect(typed).to_have_value("me at work")
    site.stop()
    say(page, "/meme top | bottom")
    expect(page.locator(".problem")).to_have_count(2)
    expect(typed).to_have_value("/meme top | bottom")


# ------------------------------------------------------------------ every window live


def test_windows_of_two_visitors_are_live(browser: Browser, site: Site) -> None:
    with window(browser, site) as one, window(browser, site) as two:
        listen(one)
        listen(two)
        meme = pick(one)
        expect(memes(two)).to_have_count(1)
        reaction(meme, "👍").click()
        theirs = reaction(memes(two).first, "👍")
        expect(theirs).to_have_text("👍1")
        expect(theirs).to_have_attribute("aria-pressed", "false")
        theirs.click()
        expect(reaction(meme, "👍")).to_have_text("👍2")
        expect(memes(one)).to_have_count(1)


def listen(page: Page) -> None:
    """Wait until the page has told that it hears of changes."""
    expect(page.locator("#connection")).to_have_attribute("data-live", "true")


def test_windows_of_one_browser_share_a_connection_and_hand_it_on(browser: Browser, site: Site) -> None:
    with visitor(browser, site) as context:
        feeds: list[str] = []
        context.on("request", lambda request: feeds.append(request.url) if "feed" in request.url else None)
        pages = [context.new_page() for _ in range(8)]  # a browser opens six connections at most
        for page in pages:
            page.goto(site.url)
        listen(pages[0])
        meme = pick(pages[3])
        reaction(meme, "🔥").click()
        for page in pages:
            expect(reaction(memes(page).first, "🔥")).to_have_attribute("aria-pressed", "true")
        assert len(feeds) == 1
        pages[0].close()
        pick(pages[3])
        expect(memes(pages[7])).to_have_count(2)
        assert len(feeds) == 2


def test_a_window_catches_up_after_the_bot_was_away(browser: Browser, site: Site, page: Page) -> None:
    listen(page)
    site.stop()
    expect(page.get_by_text("Connecting again…")).to_be_visible()
    site.start()
    with window(browser, site) as other:
        pick(other)
    expect(memes(page)).to_have_count(1)
    expect(page.get_by_text("Connecting again…")).to_be_hidden()


# ------------------------------------------------------------------ everybody's page


def tab_to(page: Page, wanted: Locator) -> None:
    handle = wanted.element_handle()
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("wanted => document.activeElement === wanted", handle):
            return
    pytest.fail(f"{wanted} cannot be reached by keyboard")


def test_everything_works_by_keyboard(page: Page) -> None:
    # Listening from the start: where the browser is told only just before the key, it may open a real dialogue.
    page.on("filechooser", lambda chooser: chooser.set_files(file(picture())))
    tab_to(page, page.get_by_role("button", name="Choose a picture").first)
    page.keyboard.press("Enter")
    expect(memes(page)).to_have_count(1)
    meme = memes(page).first
    tab_to(page, reaction(meme, "😂"))
    page.keyboard.press("Space")
    expect(reaction(meme, "😂")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("Space")
    expect(reaction(meme, "😂")).to_have_attribute("aria-pressed", "false")
    tab_to(page, page.get_by_label("Words for the picture"))
    page.keyboard.type("/meme typed | by hand")
    page.keyboard.press("Enter")
    expect(memes(page)).to_have_count(2)
    tab_to(page, meme.get_by_role("button", name="Another one"))
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none"
    page.keyboard.press("Enter")
    expect(memes(page)).to_have_count(3)


def test_the_keyboard_skips_the_memes_and_opens_them(page: Page) -> None:
    meme = pick(page)
    page.reload()
    expect(memes(page)).to_have_count(1)
    skip = page.get_by_role("link", name="Write or add a picture")
    expect(skip).to_have_css("opacity", "0")
    page.keyboard.press("Tab")
    expect(skip).to_be_focused()
    expect(skip).to_have_css("opacity", "1")
    page.keyboard.press("Enter")
    expect(page.get_by_label("Words for the picture")).to_be_focused()
    page.reload()
    alt = meme.get_by_role("img").get_attribute("alt")
    frame = page.get_by_role("link", name=f"{alt} Full size")
    tab_to(page, frame)
    assert int(frame.evaluate("frame => parseInt(getComputedStyle(frame).outlineOffset)")) < 0
    with page.expect_popup() as popup:
        page.keyboard.press("Enter")
    expect(popup.value).to_have_url(re.compile(r"/memes/\w+$"))


def test_the_caption_that_is_picked_by_keyboard_keeps_the_focus(page: Page) -> None:
    choice = pick(page).locator(".candidates button").nth(1)
    choice.focus()
    page.keyboard.press("Enter")
    expect(memes(page)).to_have_count(2)
    expect(memes(page).last.locator(".candidates button").nth(1)).to_be_focused()
    say(page, "/meme own | words")
    expect(memes(page)).to_have_count(3)
    expect(page.get_by_label("Words for the picture")).to_be_focused()


def test_a_phone_scrolls_in_one_direction_only(browser: Browser, site: Site) -> None:
    with window(browser, site, **PHONE) as page:
        page.keyboard.press("Tab")
        skip = page.get_by_role("link", name="Write or add a picture")
        assert skip.evaluate("skip => skip.getClientRects()[0].height") <= 40  # one line
        expect(page.get_by_role("button", name="Take a photo").first).to_be_visible()
        assert page.locator("#camera").get_attribute("capture") == "environment"
        assert fits(page)
        pick(page, picture(size=(1600, 200)))
        expect(pick(page, picture(size=(600, 900))).get_by_role("img")).to_be_in_viewport(ratio=1)
        memes(page).last.get_by_role("button", name="Why these words?").tap()
        expect(memes(page).last.locator(".attention img")).to_be_visible()
        say(page, "/meme " + "unbreakable" * 20 + " | 🔥")
        expect(memes(page)).to_have_count(3)
        page.set_input_files("#pick", file(b"no picture"))
        expect(page.locator(".problem")).to_be_visible()
        assert fits(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_light_and_in_dark(browser: Browser, site: Site, scheme: str) -> None:
    with window(browser, site, color_scheme=scheme) as page:
        paper = luminance(page.locator("body"), "backgroundColor")
        assert paper > 0.8 if scheme == "light" else paper < 0.05
        pick(page)
        for words, ground in (("header h1", "body"), ("#hint", "body"), ("summary", ".meme"), (".primary",) * 2):
            pair = luminance(page.locator(words).last, "color"), luminance(page.locator(ground).last, "backgroundColor")
            assert (max(pair) + 0.05) / (min(pair) + 0.05) >= 4.5, (words, pair)


def luminance(element: Locator, of: str) -> float:
    """Relative luminance as WCAG defines it."""
    rgb = element.evaluate(f"element => getComputedStyle(element).{of}.match(/[0-9.]+/g).slice(0, 3).map(Number)")
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (part / 255 for part in rgb)]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def test_forced_colours_show_ones_votes_and_the_caption_that_was_picked(browser: Browser, site: Site) -> None:
    with window(browser, site, forced_colors="active") as page:
        meme = pick(page)
        reaction(meme, "👍").click()
        expect(reaction(meme, "👍")).to_have_attribute("aria-pressed", "true")
        page.mouse.move(0, 0)
        picked = meme.locator('.candidates [aria-current="true"]')
        for marked in (reaction(meme, "👍"), picked):
            expect(marked).not_to_have_css("border-color", border_of(reaction(meme, "🔥")))
            expect(marked).to_have_css("border-width", "3px")
        reaction(meme, "👍").hover()
        expect(reaction(meme, "👍")).not_to_have_css("border-color", border_of(reaction(meme, "🔥")))


def border_of(element: Locator) -> str:
    return str(element.evaluate("element => getComputedStyle(element).borderColor"))


def test_reduced_motion_is_kept_still(browser: Browser, site: Site, run: Run) -> None:
    with window(browser, site, reduced_motion="reduce") as page, paused(run):
        page.set_input_files("#pick", file(picture()))
        spinner = page.locator(".spinner")
        assert spinner.evaluate("spinner => getComputedStyle(spinner).animationName") == "breathe"
        assert page.locator(".making").evaluate("making => getComputedStyle(making).animationName") == "none"


def test_a_token_is_asked_for_once(browser: Browser, engine: Engine, tmp_path: Path, run: Run) -> None:
    site = Site(engine, tmp_path, run, token="open sesame")
    site.start()
    with window(browser, site) as page:
        page.get_by_label("token").fill("guess")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert")).to_have_text("That is not the token.")
        page.get_by_label("token").fill("open sesame")
        page.get_by_role("button", name="Sign in").click()
        pick(page)
        page.reload()
        expect(memes(page)).to_have_count(1)
    site.stop()


# ------------------------------------------------------------------ the dashboard


def test_the_operator_sees_what_happened(browser: Browser, site: Site, page: Page) -> None:
    for _ in range(2):
        pick(page)
    reaction(memes(page).first, "🔥").click()
    expect(reaction(memes(page).first, "🔥")).to_have_attribute("aria-pressed", "true")
    with window(browser, site, **PHONE) as phone:
        phone.goto(site.url + "/dashboard")
        expect(phone.get_by_role("img", name="Memes and votes by day")).to_be_visible()
        expect(phone.get_by_role("img", name="Share of the votes in favour by model")).to_be_visible()
        expect(phone.get_by_role("cell", name="serving")).to_be_visible()
        best = phone.get_by_role("region", name="Best texts").get_by_role("listitem")
        expect(best).to_have_count(1)
        expect(best).to_contain_text("0.3 for, 0 against")
        assert fits(phone)
        scale = "text => text.ownerSVGElement.getScreenCTM().a * parseFloat(getComputedStyle(text).fontSize)"
        assert phone.locator("svg text").first.evaluate(scale) >= 10
        phone.emulate_media(forced_colors="active")
        swatch = "key => getComputedStyle(key, '::before').backgroundColor"
        assert len({key.evaluate(swatch) for key in phone.locator(".key").all()}) == 3
        phone.get_by_role("link", name="Back to the chat").click()
        expect(memes(phone)).to_have_count(2)


def test_the_dashboard_asks_for_the_token(browser: Browser, engine: Engine, tmp_path: Path, run: Run) -> None:
    site = Site(engine, tmp_path, run, token="open sesame")
    site.start()
    with visitor(browser, site) as context:
        page = context.new_page()
        page.goto(site.url + "/dashboard")
        expect(page.get_by_role("heading", name="Quipbot’s figures")).to_have_count(0)
        page.get_by_label("token").fill("open sesame")
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Quipbot’s figures")).to_be_visible()
    site.stop()
