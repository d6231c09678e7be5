import pytest

from captioner.filter import BlockList, shipped


@pytest.fixture(scope="module")
def words() -> BlockList:
    return BlockList("[slur]\nwozzle*\nbad thing\n[harm]\n*splat\n")


@pytest.mark.parametrize(
    "text",
    [
        "you wozzle",
        "WOZZLES!",
        "w0zzl3",
        "w o z z l e",
        "w.o.z.z.l.e",
        "w-o-z-z-l-e you",
        "woooozzle",
        "wözzle",
        "wo.zzle",
        "a bad thing",
        "b4d th1ng",
        "kersplat",
    ],
)
def test_disguises_are_seen_through(words: BlockList, text: str) -> None:
    assert words.reason(text) in ("slur", "harm")


@pytest.mark.parametrize("text", ["", "a fine day", "bad things", "splatter", "swozzle", "not bad, thing", "a b c d e"])
def test_innocent_text_passes(words: BlockList, text: str) -> None:
    assert words.reason(text) is None


def test_boxes_are_read_on(words: BlockList) -> None:
    assert words.blocks(("a bad", "thing"))
    assert not words.blocks(("a bad", "idea"))


@pytest.mark.parametrize(
    "text", ["a black dog runs", "the class assassin passed", "a cocktail in scunthorpe", "i love my grape juice"]
)
def test_the_shipped_list_leaves_everyday_words_alone(text: str) -> None:
    assert shipped().reason(text) is None
