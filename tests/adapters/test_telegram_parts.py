"""The pure parts of the Telegram adapter: flood budget, reading of messages, buttons."""

import datetime
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from telegram import Chat, Message, User

from adapters.telegram_chat import Webhook, keyboard
from adapters.telegram_chat.albums import Album
from adapters.telegram_chat.floods import Floods, Limits
from adapters.telegram_chat.job import Job
from adapters.telegram_chat.outbox import harmless
from adapters.telegram_chat.reading import own_boxes, picture_of, said
from bot.events import Candidate

LIMITS = Limits(chat=(1, 1.0), group=(4, 10.0), everywhere=(5, 1.0))
ME = User(9, "Meme", True, username="MemeBot")


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from([1, 2, -1, -2]), st.floats(0, 3), st.booleans()), max_size=60))
def test_no_turn_breaks_a_limit(asked: list[tuple[int, float, bool]]) -> None:
    floods, now = Floods(LIMITS), 100.0
    turns: list[tuple[int, float]] = []
    for chat, later, is_held in asked:
        now += later
        if is_held:
            floods.hold(chat, now + 2)
        at = floods.reserve(chat, now)
        assert at >= now + 2 * is_held
        turns.append((chat, at))
    for chat in {chat for chat, _ in turns}:
        times = [at for each, at in turns if each == chat]
        assert times == sorted(times)
        check(times, *LIMITS.chat)
        if chat < 0:
            check(times, *LIMITS.group)


@settings(deadline=None)
@given(st.lists(st.floats(0, 0.5), max_size=60))
def test_no_turn_breaks_the_limit_of_all_chats(pauses: list[float]) -> None:
    floods, now, times = Floods(LIMITS), 100.0, []
    for pause in pauses:
        now += pause
        times.append(floods.reserve_anywhere(now))
    check(times, *LIMITS.everywhere)


def check(times: list[float], count: int, seconds: float) -> None:
    assert all(late - early >= seconds - 1e-9 for early, late in zip(times, times[count:], strict=False))


def message(text: str = "", **changes: Any) -> Message:
    fields: dict[str, Any] = {
        "message_id": 5,
        "date": datetime.datetime.now(datetime.UTC),
        "chat": Chat(-1, "supergroup"),
        "from_user": User(7, "A", False),
        "text": text,
    }
    return Message(**(fields | changes))


@pytest.mark.parametrize(
    ("text", "command", "words", "mentioned"),
    [
        ("/meme", "meme", "", False),
        ("/MEME@memebot  a | b", "meme", "a | b", False),
        ("/meme@otherbot a", "", "/meme@otherbot a", False),
        ("hello @MemeBot, look", "", "hello , look", True),
        ("hello @MemeBots", "", "hello @MemeBots", False),
        ("see /meme", "", "see /meme", False),
        ("/meme\nzwei\nZeilen", "meme", "zwei\nZeilen", False),
        ("", "", "", False),
    ],
)
def test_what_is_said(text: str, command: str, words: str, mentioned: bool) -> None:
    found = said(message(text), ME)
    assert (found.command, found.words, found.mentioned) == (command, words, mentioned)


def test_own_words() -> None:
    assert own_boxes("top | bottom") == ("top", "bottom")
    assert own_boxes("top\nbottom") == ("top", "bottom")
    assert own_boxes("| below") == ("", "below")
    assert own_boxes("  ") == ()


def test_the_largest_photo_that_can_be_downloaded_is_taken() -> None:
    sizes = [{"width": side, "height": side, "file_size": side * 10_000} for side in (90, 1900, 2100)]
    photos = [{"file_id": str(size["width"]), "file_unique_id": "x", **size} for size in sizes]
    known = {"message_id": 1, "date": 0, "chat": {"id": 7, "type": "private"}, "photo": photos}
    picture = picture_of(Message.de_json(known))
    assert picture
    assert picture.file == "1900"


@pytest.mark.parametrize("action", ["redo", "pick", "back", "edit", "why", "delete", "vote"])
def test_buttons_survive_as_their_data(action: str) -> None:
    meme = "0123456789abcdef01234567"
    assert keyboard.parsed(f"{action}:{meme}") == keyboard.Press(action, meme)  # type: ignore[arg-type]
    assert keyboard.parsed(f"{action}:{meme}:👍") == keyboard.Press(action, meme, "👍")  # type: ignore[arg-type]


@settings(deadline=None)
@given(st.text())
def test_data_of_other_buttons_is_nothing(data: str) -> None:
    assert keyboard.parsed(data) is None


@settings(deadline=None)
@given(st.lists(st.text(min_size=1, max_size=300), min_size=1, max_size=5))
def test_every_button_is_within_telegrams_limits(words: list[str]) -> None:
    meme = "f" * 24
    candidates = [Candidate((text,), -1.0, None, 0.0) for text in words]
    votes = {text[:20]: 1 for text in words}
    for markup in (keyboard.picking(meme, candidates), keyboard.below(meme, choices=len(words), votes=votes)):
        for row in markup.inline_keyboard:
            assert all(len(str(button.callback_data).encode()) <= 64 and button.text for button in row)


def test_a_job_is_the_same_after_a_restart() -> None:
    job = Job("post", -1, "7", to=3, thread=4, message=5, file="f", own=("a", "b"), addressed=False, spoiler=True)
    assert Job.of(job.request("x")) == job


def test_an_album_is_what_was_asked_with_any_of_its_items() -> None:
    def item(number: int, make: Callable[[Job], Job | None]) -> tuple[Message, Job | None]:
        photo = {"file_id": f"f{number}", "file_unique_id": "x", "width": 9, "height": 9}
        known = {"message_id": number, "date": 0, "chat": {"id": -7, "type": "group"}, "photo": [photo]}
        return Message.de_json(known), make(Job("post", -7, "1", to=number, message=number, file=f"f{number}"))

    album = Album({2: item(2, lambda job: job), 1: item(1, lambda job: None)})
    assert album.job
    assert (album.job.file, album.job.to) == ("f1", 1)
    assert Album({1: item(1, lambda job: None)}).job is None


def test_nobody_is_pinged() -> None:
    assert "@name" not in harmless("hello @name")


def test_a_webhooks_secret_does_not_give_the_token_away() -> None:
    derived = Webhook("https://a/b", "127.0.0.1", 1).secret_for("1:token")
    assert derived == Webhook("https://c", "127.0.0.1", 2).secret_for("1:token")
    assert derived != Webhook("https://a/b", "127.0.0.1", 1).secret_for("2:token")
    assert Webhook("https://a/b", "127.0.0.1", 1, "mine").secret_for("1:token") == "mine"
    assert "mine" not in repr(Webhook("https://a/b", "127.0.0.1", 1, "mine"))
