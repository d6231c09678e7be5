"""Made-up people: read back as written, of the taste that was drawn, and noisy."""

import random
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.population import Person, Population, drawn, spread

CAPTIONS = [
    ("when the dog", "eats my homework"),
    ("monday",),
    ("pizza is life!",),
    ("me at 3 am", "why do i sleep"),
    ("a cat and a dog",),
    ("nobody:", "my mom"),
]
PEOPLE = [Person(0.9, 0.0, {}), Person(0.5, 0.0, {"topic animals": -3.0}), Person(0.0, 0.0, {"word cat": -9.0})]
ONE = Population(
    {"animals": ["dog", "cat"]}, {"topic animals": 1.0}, -0.5, {"up": {"😂": 1.0}, "down": {"👎": 1.0}}, PEOPLE
)


def test_a_population_is_its_file(tmp_path: Path) -> None:
    made = drawn(3, CAPTIONS)
    made.save(tmp_path / "p.json")
    again = Population.load(tmp_path / "p.json")
    assert again == made
    assert [again.approval(c) for c in CAPTIONS] == [made.approval(c) for c in CAPTIONS]
    assert drawn(3, CAPTIONS) == made != drawn(4, CAPTIONS)


def test_approval_is_the_share_of_those_who_vote() -> None:
    assert ONE.likes(("a dog",)) == [True, False, True]
    assert ONE.approval(("a dog",)) == pytest.approx(0.9 / 1.4)
    assert ONE.approval(("a cat",)) == pytest.approx(0.9 / 1.4)
    assert ONE.approval(("a house",)) == 0


def test_votes_are_by_habit_and_noise() -> None:
    rng = random.Random(1)
    cast = [ONE.vote(("a dog",), rng) for _ in range(1000)]
    by = {who: [e for votes in cast for i, e in votes if i == who] for who in range(3)}
    assert len(by[0]) == pytest.approx(900, abs=40)
    assert set(by[0]) == {"😂"}
    assert set(by[1]) == {"👎"}
    assert not by[2]
    loud = replace(ONE, people=[Person(1.0, 0.25, {})])
    downs = sum(e == "👎" for _ in range(1000) for _, e in loud.vote(("a dog",), rng))
    assert downs == pytest.approx(250, abs=50)


def test_many_never_vote_and_the_usual_caption_is_liked_by_less_than_half() -> None:
    made = [drawn(seed, CAPTIONS) for seed in range(3)]
    silent = sum(p.votes == 0 for m in made for p in m.people) / sum(len(m.people) for m in made)
    assert 0.45 < silent < 0.75
    for one in made:
        assert sum(one.approval(c) for c in CAPTIONS) / len(CAPTIONS) == pytest.approx(0.45, abs=0.1)


def test_the_interval_is_students() -> None:
    mean, half = spread([1.0, 2.0, 3.0])
    assert mean == 2
    assert half == pytest.approx(4.30 / 3**0.5)
