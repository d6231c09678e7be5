import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.policy import answers, explores

SHARE = st.floats(0, 1)


@given(chance=SHARE, dice=st.floats(0, 1, exclude_max=True), quiet_for=st.floats(0, 1e6), cooldown=st.floats(0, 1e6))
def test_asked_is_answered_and_bots_never(chance: float, dice: float, quiet_for: float, cooldown: float) -> None:
    rest = {"chance": chance, "dice": dice, "quiet_for": quiet_for, "cooldown": cooldown}
    assert answers(addressed=True, from_bot=False, **rest)
    assert not answers(addressed=True, from_bot=True, **rest)
    assert answers(addressed=False, from_bot=False, **rest) == (quiet_for >= cooldown and dice < chance)


@pytest.mark.parametrize(("chance", "expected"), [(0.0, False), (1.0, True)])
def test_certainties(chance: float, expected: bool) -> None:
    for dice in (0.0, 0.999999):
        seen = answers(addressed=False, from_bot=False, chance=chance, dice=dice, quiet_for=math.inf, cooldown=9)
        assert seen is expected


@given(st.integers(0, 2**53), SHARE)
def test_exploring_is_the_seeds_and_grows_with_the_share(seed: int, share: float) -> None:
    assert explores(seed, share) == explores(seed, share)
    assert not explores(seed, 0)
    assert explores(seed, 1)
    assert explores(seed, share) <= explores(seed, min(1, share + 0.1))


def test_a_tenth_of_the_seeds_explores() -> None:
    assert 0.09 < sum(explores(seed, 0.1) for seed in range(10_000)) / 10_000 < 0.11
