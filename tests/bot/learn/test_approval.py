import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.learn.approval import approval, difference

VOTES = st.floats(0, 50).map(lambda votes: round(votes, 1))
TALLIES = st.lists(st.tuples(VOTES, VOTES), max_size=20)


@given(TALLIES)
@settings(deadline=None)
def test_the_share_lies_in_its_interval(tallies: list[tuple[float, float]]) -> None:
    found = approval(tallies)
    if found is None:
        assert not any(up + down for up, down in tallies)
        return
    assert 0 <= found.low <= found.mean <= found.high <= 1
    assert found.variance >= 0
    assert difference(found, found)[0] == 0


def test_more_memes_say_more() -> None:
    few, many = approval([(3, 1), (2, 2)] * 5), approval([(3, 1), (2, 2)] * 50)
    assert few is not None
    assert many is not None
    assert few.mean == many.mean
    assert many.high - many.low < (few.high - few.low) / 2


def test_votes_on_one_meme_are_alike() -> None:
    apart, together = approval([(1, 0), (0, 1)] * 20), approval([(20, 0), (0, 20)])
    assert apart is not None
    assert together is not None
    assert together.high - together.low > 2 * (apart.high - apart.low)


def test_all_in_favour_is_not_certain() -> None:
    found = approval([(1, 0)] * 5)
    assert found is not None
    assert (found.mean, found.high) == (1, 1)
    assert found.low < 0.6
    assert found.variance > 0


@pytest.mark.parametrize("few", [[(1, 2)], [(1, 2), (1, 2)], [(10, 20), (10.1, 20)]])
def test_a_few_memes_make_nothing_sure(few: list[tuple[float, float]]) -> None:
    new, old = approval(few), approval([(1, 0)] * 12 + [(0, 1)] * 8)
    assert new is not None
    assert old is not None
    gain, _, high = difference(new, old)
    assert gain < 0 < high


@given(TALLIES)
@settings(deadline=None)
def test_nothing_is_surer_than_its_votes(tallies: list[tuple[float, float]]) -> None:
    found = approval(tallies)
    if found is not None:
        votes = sum(up + down for up, down in tallies)
        assert found.variance >= found.mean * (1 - found.mean) / votes * (1 - 1e-9)
