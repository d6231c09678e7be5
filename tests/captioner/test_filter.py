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


EVERYDAY = """
a black dog runs | the class assassin passed | a cocktail in scunthorpe | i love my grape juice | torpedo | pedometer |
the duke of sussex | a negroni by the niger river | mustard and custard in a leotard | you magnificent bastard |
fire retardant | virginia beach | a pimple | a bomber jacket from bombay | a bath bomb | the condominium |
slither away | david lynch | a wankel engine | gas the car | cracker assortment | the white power ranger |
shoot up the leaderboard | jerk off the grill | call 911 | a porsche 911 | maine coon | a chink in the armour |
spick and span | nip it in the bud | cum laude | a cock a doodle doo | tit for tat | anal retentive | hearing aids
"""


@pytest.mark.parametrize("text", [t.strip() for t in EVERYDAY.replace("\n", " ").split("|")])
def test_the_shipped_list_leaves_everyday_words_alone(text: str) -> None:
    assert shipped().reason(text) is None


DISGUISED = """
ni99er | n1gg3r | n.i.g.g.e.r | n i g g e r | ni gger | niiiigger | n\u0456gger | n\u200bigger | f@990t | fa ggot |
f4gs | niqqa | ret4rd | r e t a r d | retarted | cvnt | k1ke | kys | k.y.s | raepd | lezzie | troon | 1488 |
kill urself | neck yourself | h1tler
"""


@pytest.mark.parametrize("text", [t.strip() for t in DISGUISED.replace("\n", " ").split("|")])
def test_the_shipped_list_sees_through_disguises(text: str) -> None:
    assert shipped().reason(f"you {text} again") is not None


@pytest.mark.parametrize(
    "text", ["a black man poses for a photo", "a half naked man sleeps", "a jewish boy with a hat"]
)
def test_a_description_may_name_what_a_joke_may_not(text: str) -> None:
    assert shipped().reason(text, "describe") is None
    assert shipped().reason(text) == "group"
