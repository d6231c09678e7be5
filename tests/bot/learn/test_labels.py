import base64
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bot.database import beside
from bot.emoji import Ballot
from bot.events import Candidate, Kept, Place
from bot.learn import labels
from bot.store import Store
from captioner.labels import packed, read, unpacked

from .conftest import NOON, meme, react

BALLOT = Ballot.of(["👍", "😂", "🤣", "😁", "❤️", "🔥"], ["👎", "💩", "😐"])


def lines(store: Store) -> list[dict[str, Any]]:
    with beside(store.path) as db:
        return list(labels.lines(db, BALLOT))


async def test_votes_become_labels(store: Store) -> None:
    await store.add(meme("a"), Kept(b"drawn", template="doge"))
    await store.add(meme("b", created=NOON + 1, explored=True), Kept(b"drawn"))
    await store.add(meme("c", created=NOON + 2), Kept(b"drawn"))
    for user, emoji in (("ann", "👎"), ("ann", "❤"), ("poster", "😂"), ("asker", "💩"), ("bob", "🍕")):
        await react(store, "a", user, emoji)
    await react(store, "b", "ann", "👍", later=60)
    await react(store, "b", "ann", "👎", later=90)
    await react(store, "b", "bob", "👎", later=3 * 86_400)
    a, b, c = lines(store)
    assert (a["kind"], a["boxes"], a["template"], a["at"], a["model"]) == ("meme", ["top", "a"], "doge", NOON, "tiny")
    assert (a["up"], a["down"]) == (pytest.approx(1.3), pytest.approx(0.3))
    assert a["candidates"][1] == {"boxes": ["other"], "logprob": -2.5, "reward": None, "score": 1.0}
    assert (b["explored"], b["up"], b["down"]) == (True, 0, 1)
    assert (c["weight"], c["exposure"], c["features"]) == (0, 3, None)
    assert 0 < b["approval"] < c["approval"] < 1
    assert a["chat"] == b["chat"] != "c"


async def test_only_the_models_words_are_learnt_from(store: Store) -> None:
    await store.add(meme("own", chosen=None, candidates=()), Kept(b"drawn"))
    await store.add(meme("told", style="describe"), Kept(b"drawn"))
    for name in ("own", "told"):
        await react(store, name, "ann", "😂")
    assert lines(store) == []


async def test_voters_without_names_are_different_people(store: Store) -> None:
    for number in range(40):
        await store.add(meme(f"m{number}", created=NOON + number), Kept(b"drawn"))
        await store.count_votes(f"m{number}", "test", {"👍": 2}, NOON + 100, named=False)
    assert {line["up"] for line in lines(store)} == {2}


async def test_what_was_picked_is_better_than_what_it_was_offered_with(store: Store) -> None:
    offered = tuple(Candidate((word,), -1.0, None, 0.0) for word in ("one", "two", "three"))
    await store.add(meme("a", boxes=("one",), candidates=offered), Kept(b"drawn"))
    picked = meme("b", boxes=("three",), candidates=offered, chosen=2, created=NOON + 1)
    await store.add(picked, Kept(b"drawn", parent="a", picked=True))
    pairs = [line for line in lines(store) if line["kind"] == "pair"]
    assert [(pair["better"], pair["worse"], pair["weight"]) for pair in pairs] == [
        (["three"], ["one"], 0.5),
        (["three"], ["two"], 0.5),
    ]
    with beside(store.path) as db:
        assert [preference.worse for preference in labels.preferences(db)] == [("one",), ("two",)]


async def test_who_picks_again_has_changed_their_mind(store: Store) -> None:
    """Of the same captions; another user's pick stays, as does one among other captions of the picture."""
    offered = tuple(Candidate((word,), -1.0, None, 0.0) for word in ("one", "two"))
    for number, (user, chosen, seed) in enumerate([("ann", 1, 1), ("bob", 1, 1), ("ann", 0, 1), ("ann", 1, 2)]):
        picked = meme(f"m{number}", user=user, boxes=offered[chosen].boxes, candidates=offered, chosen=chosen)
        picked = dataclasses.replace(picked, message="picture", seed=seed, created=NOON + number)
        await store.add(picked, Kept(b"drawn", picked=True))
    pairs = [line["better"] for line in lines(store) if line["kind"] == "pair"]
    assert pairs == [["two"], ["one"], ["two"]]
    with beside(store.path) as db:
        assert [preference.better for preference in labels.preferences(db)] == [("two",), ("one",), ("two",)]


async def test_one_users_picks_have_a_cap(store: Store) -> None:
    for number in range(100):
        name = f"m{number}"
        await store.add(meme(name, message=name, created=NOON + number), Kept(b"drawn", picked=True))
    assert sum(line["weight"] for line in lines(store) if line["kind"] == "pair") == pytest.approx(labels.PICKS)


async def test_the_file_is_what_the_captioner_reads(voted: Store, tmp_path: Path) -> None:
    grid = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)
    await voted.change_settings(Place("test", "c"), "admin", {"consent": True}, NOON)
    await voted.add(meme("x", created=NOON + 99), Kept(b"drawn", features=packed(grid), picked=True))
    await react(voted, "x", "ann", "👍", later=100)
    with beside(voted.path) as db:
        exported = labels.write(db, tmp_path / "labels.jsonl", BALLOT)
    assert dataclasses.astuple(exported) == (31, 31, 1)
    found = read(tmp_path / "labels.jsonl")
    assert (len(found.memes), len(found.pairs)) == (31, 1)
    features = found.memes[-1].features
    assert features is not None
    assert np.abs(unpacked(features) - grid).max() < 0.05
    assert b"ann" not in tmp_path.joinpath("labels.jsonl").read_bytes()


async def test_who_is_forgotten_is_in_no_later_set(voted: Store) -> None:
    await voted.change_settings(Place("test", "c"), "admin", {"consent": True}, NOON)
    await voted.add(meme("mine", user="ann", created=NOON + 99), Kept(b"drawn", features=b"seen"))
    await react(voted, "mine", "bob", "👍", later=100)
    assert base64.b64encode(b"seen").decode() in json.dumps(lines(voted))
    await voted.forget("test", "ann", 0.0)
    assert len(lines(voted)) == 30
    assert sum(line["weight"] for line in lines(voted)) == 30
    with beside(voted.path) as db:
        assert db.execute("SELECT count(*) FROM features").fetchone() == (0,)


async def test_features_go_with_the_consent(store: Store) -> None:
    everywhere, one = Place("test", "", "s"), Place("test", "one", "s")

    def kept() -> list[str]:
        return [line["id"] for line in lines(store) if line["features"]]

    await store.change_settings(everywhere, "admin", {"consent": True}, NOON)
    for name, chat in (("a", "one"), ("b", "two")):
        await store.add(meme(name, chat=chat, server="s"), Kept(b"drawn", features=b"seen", place=chat))
    assert kept() == ["a", "b"]
    await store.change_settings(one, "admin", {"consent": True}, NOON)
    await store.change_settings(everywhere, "admin", {"consent": None}, NOON)
    assert kept() == ["a"]
    await store.change_settings(one, "admin", {"consent": False}, NOON)
    assert kept() == []
    await store.add(meme("late", chat="one", server="s"), Kept(b"drawn", features=b"seen", place="one"))
    assert kept() == []  # it was on its way when the consent was taken back
