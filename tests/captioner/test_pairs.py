"""Memes for photographs: they speak of what people saw there, and not of anybody's colour."""

from pathlib import Path

from captioner.data.pairs import STOP, pairs, words
from captioner.data.samples import Sample

SEEN = {"dog": "a brown dog runs over the grass", "boat": "a boat on a lake at night", "plain": "somebody is there"}
MEMES = [f"when {thing} number {i} is brown" for thing in ("the dog", "my boats", "a cat") for i in range(10)]


def test_a_photograph_gets_memes_that_name_what_descriptions_agree_on() -> None:
    described = [Sample(Path(name), (text,), "describe") for name, text in SEEN.items() for _ in range(3)]
    memes = [Sample(Path("t"), (text,), "meme") for text in MEMES]
    made = pairs(described, memes, 5, seed=1)
    assert {picture.name for picture, _ in made} == {"dog", "boat"}
    for picture, i in made:
        assert picture.name in words(memes[i].text)
    assert made == pairs(described, memes, 5, seed=1)


def test_words_are_what_may_be_seen() -> None:
    assert words("two brown dogs and a boat's glass on grass") == {"dog", "boat", "glass", "grass"}
    assert {"the", "brown", "black", "two"} <= STOP
