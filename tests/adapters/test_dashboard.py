"""The operator's page as text: what it says, and that no text becomes markup."""

import dataclasses
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.web_chat.charts import Span, bars, spans
from adapters.web_chat.dashboard import document
from bot.events import Day, Figures, Rated, Retrained, Version

DAYS = [Day("2026-11-20", 3, 5, 1), Day("2026-11-21", 12, 7, 0)]
EMPTY = Figures([], [], [], [], [])


class Tags(HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append(tag)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def version(name: str, **changes: object) -> Version:
    fields = {"id": name, "state": "serving", "parent": "", "created": 1e9, "labels": 9, "memes": 5, "approval": 0.5}
    return Version(**(fields | {"low": 0.4, "high": 0.6, "verdict": {}, "words": "Approval rises."} | changes))  # type: ignore[arg-type]


def test_nothing_has_happened_yet() -> None:
    text = " ".join(Tags(document(EMPTY)).text)
    for what in ("memes", "retrainings", "texts with more votes for", "texts with more votes against"):
        assert f"There are no {what}" in text


def test_a_vote_is_not_denied_where_it_makes_no_text_the_worst() -> None:
    """Nor where it makes none the best."""
    liked, disliked = [Rated(("good",), 1, 0)], [Rated(("bad",), 0, 1)]
    for best, worst in ((liked, []), ([], disliked), ([], [])):
        text = " ".join(Tags(document(dataclasses.replace(EMPTY, best=best, worst=worst))).text)
        assert "There are no votes" not in text
        assert ("more votes for than against them yet" in text) == (not best)
        assert ("more votes against than for them yet" in text) == (not worst)


def test_everything_is_there() -> None:
    figures = Figures(
        DAYS,
        [version("learnt-0001"), version("quipbot-2", created=None, approval=None)],
        [Retrained(1, 1e9, 1e9 + 300, "learnt-0001", 9, "promoted", ""), Retrained(2, 1e9, None, "x", 9, "", "")],
        [Rated(("good", "one"), 3, 0)],
        [Rated(("bad one",), 0.3, 2)],
        {"wait": (0.01, 0.02), "caption": (0.2, 0.4)},
    )
    page = Tags(document(figures))
    text = " ".join(page.text)
    for words in ("learnt-0001", "50.0% (40.0% to 60.0%)", "5 min", "under way", "good / one", "0.3 for, 2 against"):
        assert words in text
    assert "midnight in UTC" in text
    assert "11-21: memes 12, for 7, against 0" in text
    assert page.found.count("svg") == 3
    assert "script" not in page.found


@given(st.text(max_size=30))
@settings(deadline=None)
def test_no_text_becomes_markup(text: str) -> None:
    figures = Figures(DAYS, [version(text, words=text)], [], [Rated((text,), 1, 0)], [Rated((f"<b>{text}",), 0, 1)])
    plain = Figures(DAYS, [version("x", words="x")], [], [Rated(("x",), 1, 0)], [Rated(("x",), 0, 1)])
    assert Tags(document(figures)).found == Tags(document(plain)).found


@given(st.lists(st.integers(0, 10**6), max_size=40))
@settings(deadline=None)
def test_bars_stay_inside(values: list[int]) -> None:
    chart = bars("title", [str(place) for place in range(len(values))], {"memes": values})
    svg = chart[0]
    _, _, width, height = map(float, svg.attrib["viewBox"].split())
    for rect in svg.iter("rect"):
        x, y, wide, high = (float(rect.attrib[name]) for name in ("x", "y", "width", "height"))
        assert -0.1 <= x <= x + wide <= width + 0.1
        assert -0.1 <= y <= y + high <= height
    assert len(list(svg.iter("rect"))) == len(values)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0, None])
def test_spans_stay_inside(share: float | None) -> None:
    svg = spans("title", [Span("a", share, 0.0, 1.0)])[0]
    text = ElementTree.tostring(svg, encoding="unicode")
    numbers = [float(found) for found in re.findall(r' (?:x1|x2|cx)="(\S+)"', text)]
    assert all(0 <= number <= 640 for number in numbers)
