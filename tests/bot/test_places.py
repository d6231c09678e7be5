"""Settings of chats and servers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot import places
from bot.events import BadRequest, Place, Settings
from bot.store import Store

CHAT, SERVER, OTHER = (Place("test", chat, "s") for chat in ("c", "", "d"))


async def test_a_chat_comes_before_its_server(store: Store) -> None:
    await store.change_settings(SERVER, "u", {"chance": 0.5, "passive": True}, 1.0)
    await store.change_settings(CHAT, "u", {"chance": 0.1}, 2.0)
    assert await store.settings(CHAT) == {"chance": 0.1, "passive": True}
    assert await store.settings(OTHER) == {"chance": 0.5, "passive": True}
    await store.change_settings(CHAT, "u", {"chance": None}, 3.0)
    assert await store.settings(CHAT) == {"chance": 0.5, "passive": True}
    assert await store.settings(Place("test", "c", "t")) == {}
    assert await store.settings(Place("other", "c", "s")) == {}


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"passive": "on", "consent": "No"}, {"passive": True, "consent": False}),
        ({"chance": "0.25", "cooldown_chat": 60}, {"chance": 0.25, "cooldown_chat": 60.0}),
        ({"filter": "strict", "chance": None}, {"filter": "strict", "chance": None}),
        ({"emoji": "❤️ 👍🏽 👍"}, {"emoji": ["❤", "👍"]}),
        ({"emoji": ("<a:party:12>",)}, {"emoji": ["<:party:12>"]}),
    ],
)
def test_settings_as_people_write_them(given: dict[str, object], kept: dict[str, object]) -> None:
    assert places.checked(given, adult=False) == kept


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"pasive": True}, "no setting pasive"),
        ({"passive": "maybe"}, "on or off"),
        ({"chance": 2}, "from 0 to 1"),
        ({"chance": "nan"}, "from 0 to 1"),
        ({"filter": "none"}, "strict, normal or off"),
        ({"filter": "off"}, "adults"),
        ({"emoji": ""}, "one to 5"),
        ({"emoji": "word"}, "single emoji"),
    ],
)
def test_settings_that_cannot_be(given: dict[str, object], words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        places.checked(given, adult=False)


LEVELS = st.sampled_from(["strict", "normal", "off"])


@given(default=LEVELS, changed=st.one_of(st.none(), LEVELS), adult=st.booleans())
def test_the_filter_is_off_for_adults_only(default: str, changed: str | None, adult: bool) -> None:
    held = {} if changed is None else {"filter": changed}
    wanted = changed or default
    settings = places.effective(Settings(filter=default), held, adult)  # type: ignore[arg-type]
    assert settings.filter == ("normal" if wanted == "off" and not adult else wanted)
