"""Naming: which ids a search favours so that it says what is seen."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from captioner.captioner import Captioner
from captioner.naming import Naming
from captioner.objects import vocabulary
from captioner.search import Favour, Lane, Search, search


@pytest.fixture(scope="module")
def captioner() -> Captioner:
    return Captioner.load(device="cpu", threads=1)


@pytest.fixture(scope="module")
def naming(captioner: Captioner) -> Naming:
    return captioner.naming


def test_a_word_is_spelled_by_ids_that_may_be_written(captioner: Captioner, naming: Naming) -> None:
    for word in ("dog", "elephant", "squirrel", "keyboard"):
        ids = naming.spelled(word)
        assert ids
        assert captioner.tokenizer.decode([*ids, captioner.tokenizer.eos]) == (word,)
        assert set(ids) <= set(captioner.rules.ids.tolist())
    assert naming.spelled("pneumonoultramicroscopic") is None
    assert naming.spelled("") is None
    unknowing = Naming(captioner.tokenizer, captioner.rules, None)
    assert unknowing.spelled("dog") == naming.spelled("dog")
    assert unknowing.spelled("elephant") is None


def test_another_word_that_begins_alike_is_not_that_word(captioner: Captioner, naming: Naming) -> None:
    rock, elephant = naming.spelled("rock"), naming.spelled("elephant")
    assert rock
    assert elephant
    for text, holds in {"my rock": True, "rocky road": False, "rock, my rock": True, "rockstar": False}.items():
        assert naming.holds(captioner.tokenizer.encode([text]), rock) == holds, text
    assert naming.holds(captioner.tokenizer.encode(["an elephant", "in the room"]), elephant)
    assert not naming.holds(captioner.tokenizer.encode(["dog", "rock"]), elephant)


def test_plurals_are_less_likely_unless_somebody_knows_better(naming: Naming) -> None:
    dog, dogs, cat, cats = map(naming.spelled, ("dog", "dogs", "cat", "cats"))
    assert dog
    assert dogs
    assert cat
    assert cats
    found = naming.chances({"dog": 0.9, "dogs": 0.3, "cat": 0.8, "grass": 0.05}, 0.1)
    assert found[dog] == 0.9
    assert found[dogs] == 0.3
    assert 0.1 < found[cats] < found[cat] == 0.8
    assert len(found) == 4


@given(st.floats(0.1, 1.0), st.floats(0.1, 1.0), st.floats(0.0, 1.0))
@settings(max_examples=20, deadline=None)
def test_the_surer_a_word_the_more_it_is_favoured(naming: Naming, one: float, other: float, strange: float) -> None:
    dog = naming.spelled("dog")
    assert dog
    low, high = (naming.favour({dog: chance}, (), strange, ())[0].bonus for chance in sorted((one, other)))
    assert low <= high


def test_rare_words_are_favoured_more_and_beginnings_as_far_as_they_go_on(naming: Naming) -> None:
    dog, lion, elephant = map(naming.spelled, ("dog", "lion", "elephant"))
    assert dog
    assert lion
    assert elephant
    [usual, _], [rare, _] = naming.favour({dog: 0.5}, (), 0.0, ()), naming.favour({lion: 0.5}, (), 0.0, ())
    assert rare.bonus > usual.bonus > math.log(0.5)
    first, last, end = naming.favour({elephant: 0.5}, (), 0.0, ())
    assert (first.id, last.id, last.after) == (*elephant, elephant[0])
    assert (first.whole, last.whole) == (False, True)
    assert 0 < first.bonus < last.bonus
    assert end.bonus < 0


def test_how_usual_a_piece_is_does_not_depend_on_where_texts_begin(captioner: Captioner, naming: Naming) -> None:
    elephant = naming.spelled("elephant")
    assert elephant
    assert captioner.mixture
    ngrams, usual = captioner.mixture.ngrams, naming._usual(elephant)
    after = [ngrams.evidence([(before, *elephant)]) for before in range(300, 400)]
    unseen = [found.probability[2] for found in after if found.order[2] <= 2]  # nothing known but the piece before
    assert unseen
    assert np.allclose(unseen, math.exp(usual[1]))


def test_words_with_the_same_beginning_share_what_it_is_wanted_for(naming: Naming) -> None:
    panda, poodle = map(naming.spelled, ("panda", "poodle"))
    assert panda
    assert poodle
    assert panda[0] == poodle[0]
    alone, both = (naming.favour(words, (), 1.0, ()) for words in ({panda: 0.5}, {panda: 0.5, poodle: 0.5}))
    assert len([f for f in both if f.id == panda[0]]) == 1
    assert both[0].bonus > alone[0].bonus


def test_what_was_posted_counts_the_same_on_any_picture_and_alone(naming: Naming) -> None:
    dishes, cat = naming.spelled("dishes"), naming.spelled("cat")
    assert dishes
    assert cat
    usual, strange = (naming.favour({cat: 0.5}, [dishes], strange, ()) for strange in (0.0, 1.0))
    assert usual == strange == naming.favour({}, [dishes], 0.0, ())
    assert usual[0].id == dishes[0]
    assert usual == naming.favour({dishes: 1.0}, [], 0.0, ()), "as what is surely seen"


@pytest.mark.parametrize("form", ["soccers", "tenniss", "bubbless", "huskys"])
def test_no_plurals_that_nobody_writes(naming: Naming, form: str) -> None:
    assert naming.spelled(form) is None


def test_a_beginning_that_is_a_word_itself_is_wanted_once(captioner: Captioner, naming: Naming) -> None:
    """One piece, and the first of another word: its column is not multiplied twice."""
    pairs = [(naming.spelled(word), naming.spelled(word + "s")) for word in vocabulary()]
    both = [(one, many) for one, many in pairs if one and many and len(one) == 1 < len(many) and one[0] == many[0]]
    assert both
    for one, many in both:
        favour = naming.favour({one: 0.5, many: 0.1}, (), 0.0, ())
        assert [f.whole for f in favour if f.id == one[0]] == [True]


def test_what_is_mistaken_is_held_back_on_strange_pictures_only(naming: Naming) -> None:
    dog, shirt = map(naming.spelled, ("dog", "shirt"))
    assert dog
    assert shirt
    assert naming.favour({}, (), 0.0, [shirt]) == ()
    assert [(f.id, f.bonus < 0, f.whole) for f in naming.favour({}, (), 1.0, [shirt])] == [(shirt[0], True, False)]
    assert len(naming.favour({dog: 0.5}, (), 1.0, [shirt])) == 3


def test_a_favoured_word_is_seldom_made_another_one(captioner: Captioner) -> None:
    """*rock* is wanted, *rockstar* is what memes like to say."""
    rock = captioner.naming.spelled("rock")
    assert rock
    grid = torch.zeros(1, 49, captioner.decoder.config.features)
    how, prefix = Search("sample", 4, 14), tuple(captioner.tokenizer.prefix("meme", 4))
    lane = Lane(0, prefix, how, favour=(Favour(rock[0], 9.0),))
    lanes = [replace(lane, seed=seed) for seed in range(30)]

    def made_another() -> float:
        found = search(captioner.decoder, captioner.rules, grid, lanes, captioner.mixture)
        said = [ids[ids.index(rock[0]) + 1] for of in found for h in of if rock[0] in (ids := h.ids)]
        return sum(i in captioner.rules.continuing for i in said) / len(said)

    ending = captioner.rules.ending
    try:
        captioner.rules.ending = torch.ones_like(ending)
        otherwise = made_another()
    finally:
        captioner.rules.ending = ending
    assert made_another() < 0.5 * otherwise
