"""What a chat likes: learnt from its votes, from the others' where it has none, and nothing from coins."""

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from captioner.captioner import Captioner, Wish
from captioner.images import to_jpeg
from captioner.labels import Judged, Pair
from captioner.taste import NOISE, SHAPE, TOGETHER, WORD, Taste, learnt_from

WORDS = ["dog", "cat", "monday", "pizza", "teacher", "game", "snow", "mom", "internet", "why", "when", "nobody"]
CAPTIONS = [["the dog again"], ["the pizza again"], ["when the dog", "eats pizza"], ["a cat"]]


def _judged(seed: int, likes: str | None, count: int = 200, chat: str = "here") -> list[Judged]:
    """Votes that go by one word, with a fifth turned around; or by a coin."""
    rng = random.Random(seed)
    made = []
    for at in range(count):
        words = rng.sample(WORDS, 4)
        chance = 0.5 if likes is None else 0.8 if likes in words else 0.2
        up = float(rng.random() < chance)
        made.append(Judged((" ".join(words),), None, up, 1 - up, chat, float(at)))
    return made


def test_a_word_that_is_voted_for_is_liked() -> None:
    scores = Taste.fitted(_judged(1, "dog"), "here").score(CAPTIONS)
    assert scores[0] > scores[1] + 0.1
    assert scores[2] > scores[1]


def test_no_votes_like_everything_alike() -> None:
    silent = [Judged(("the dog",), None, 0.0, 0.0, "here", 0.0)]
    assert not Taste.fitted(silent).score(CAPTIONS).any()
    assert not Taste.fitted([]).score(CAPTIONS).any()


def test_coins_say_little() -> None:
    coins = [np.ptp(Taste.fitted(_judged(seed, None), "here").score(CAPTIONS)) for seed in range(3)]
    assert np.mean(coins) < np.ptp(Taste.fitted(_judged(1, "dog"), "here").score(CAPTIONS)) / 2


def test_a_chat_without_votes_is_judged_as_the_others_and_its_own_votes_count_more() -> None:
    others = _judged(2, "dog", chat="there")
    new = Taste.fitted(others, "here").score(CAPTIONS)
    assert new == pytest.approx(Taste.fitted(others).score(CAPTIONS))
    assert new[0] > new[1]
    there = Taste.fitted(others, "there").score(CAPTIONS)
    assert there[0] - there[1] > new[0] - new[1]
    own = Taste.fitted(others + _judged(3, "pizza", 400), "here").score(CAPTIONS)
    assert own[1] > own[0]


def test_a_chat_that_only_ever_votes_up_says_nothing_of_words() -> None:
    """Its share of ups is its habit."""
    content = [Judged(j.boxes, None, 1.0, 0.0, "content", j.at) for j in _judged(4, None)]
    cross = [Judged(j.boxes, None, 0.0, 1.0, "cross", j.at) for j in _judged(5, None)]
    assert np.ptp(Taste.fitted(content + cross, "content").score(CAPTIONS)) < 0.04


def test_a_pair_puts_the_better_one_ahead() -> None:
    pairs = [Pair(("pizza now",), ("dog now",), None, "here", float(i), 1.0) for i in range(20)]
    scores = Taste.fitted([], "here", pairs).score(CAPTIONS)
    assert scores[1] > scores[0]
    coins = _judged(6, None)
    alone, both = (Taste.fitted(coins, "here", p).score(CAPTIONS) for p in ((), pairs))
    assert both[1] - both[0] > alone[1] - alone[0] + 0.01


def test_the_latest_labels_decide_beyond_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("captioner.taste.MOST", 100)
    old = _judged(7, "dog")
    late = [Judged(j.boxes, j.template, j.up, j.down, j.chat, j.at + 1e6) for j in _judged(8, "pizza", 100)]
    scores = Taste.fitted(late + old, "here").score(CAPTIONS)
    assert scores == pytest.approx(Taste.fitted(late, "here").score(CAPTIONS))


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 99), st.lists(st.sampled_from(["here", "there", "nowhere", None]), min_size=1, max_size=5))
def test_chats_that_share_a_solution_have_the_tastes_they_had_alone(seed: int, chats: list[str | None]) -> None:
    judged = _judged(seed, "dog", 30) + _judged(seed + 1, "pizza", 30, "there")
    pairs = [Pair(("pizza now",), ("dog now",), None, "there", float(i), 0.5) for i in range(5)]
    for chat in chats:
        lesson = learnt_from(judged, pairs)
        assert lesson is not None
        covariance = lesson.kernel() + lesson.usual() + np.diag(NOISE / lesson.weight)
        own = TOGETHER + (1 - TOGETHER) * (lesson.chats == lesson.number.get(chat, -1))
        alpha = np.linalg.solve(covariance, lesson.target) * own
        taste = Taste.fitted(judged, chat, pairs)
        assert taste.shapes == pytest.approx(SHAPE * (lesson.shapes.T @ alpha))
        assert [taste.words[w] for w in lesson.vocabulary] == pytest.approx(WORD * (lesson.words.T @ alpha))


def test_the_votes_are_solved_once_for_all_chats(monkeypatch: pytest.MonkeyPatch) -> None:
    solved = []
    solve = np.linalg.solve
    monkeypatch.setattr(np.linalg, "solve", lambda *system: (solved.append(1), solve(*system))[1])
    for chat in ("here", "there", None):
        Taste.fitted(_judged(10, "dog", 20), chat)
    assert len(solved) == 1
    Taste.fitted(_judged(11, "dog", 20), "here")
    assert len(solved) == 2


@settings(deadline=None, max_examples=25)
@given(st.dictionaries(st.text(max_size=5), st.floats(-1, 1)), st.lists(st.floats(-1, 1), min_size=3, max_size=3))
def test_bytes_and_back(words: dict[str, float], shapes: list[float]) -> None:
    made = Taste(words, shapes)
    again = Taste.from_bytes(made.to_bytes())
    assert again.score(CAPTIONS) == pytest.approx(made.score(CAPTIONS), abs=1e-3)
    assert Taste.from_bytes(again.to_bytes()).words == again.words


@pytest.mark.parametrize(
    "data", [b"", b"nothing", Taste({}, [1, 2]).to_bytes(), Taste({"a": 1}, [1, 2, float("nan")]).to_bytes()]
)
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="no taste"):
        Taste.from_bytes(data)


def test_a_captioner_ranks_by_taste(tiny_model: Path) -> None:
    captioner = Captioner.load(tiny_model, device="cpu", threads=1)
    picture = captioner.read(to_jpeg(Image.new("RGB", (60, 40), "teal")))
    plain = captioner.caption([(picture, Wish(n=12))])[0]
    last = plain.captions[-1].boxes
    keen = Taste(dict.fromkeys(" ".join(last).split(), 0.01), np.zeros(3))
    ranked = captioner.caption([(picture, Wish(n=12, taste=keen))])[0]
    before = {c.boxes: c.score for c in plain.captions}
    both = [c for c in ranked.captions if c.boxes in before]
    assert len(both) > 5
    for caption in both:
        assert caption.score == pytest.approx(before[caption.boxes] + 60 * keen.score([caption.boxes])[0])
    assert [c.score for c in ranked.captions] == sorted((c.score for c in ranked.captions), reverse=True)
    unmoved = captioner.caption([(picture, Wish(n=12, taste=Taste({}, np.zeros(3))))])[0]
    assert unmoved.captions == plain.captions
