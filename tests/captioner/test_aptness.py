"""Aptness: words that stand on one template only say that a caption belongs there."""

import numpy as np
import pytest
import torch

from captioner.aptness import Aptness

EOS, COMMON, CAT, DOG = 0, 1, 2, 3
CAPTIONS = [[COMMON, CAT, EOS]] * 200 + [[COMMON, DOG, EOS]] * 200 + [[COMMON, 4, EOS]] * 3
TEMPLATES = ["cats"] * 200 + ["dogs"] * 200 + [None] * 3


@pytest.fixture
def aptness() -> Aptness:
    return Aptness.fit(CAPTIONS, TEMPLATES, [EOS], 6)


def test_own_words_speak_for_a_template(aptness: Aptness) -> None:
    assert aptness.score("cats", [COMMON, CAT, EOS]) > 0.3 > -0.3 > aptness.score("cats", [COMMON, DOG, EOS])
    assert aptness.score("dogs", [DOG]) > aptness.score("dogs", [CAT])


def test_what_stands_everywhere_or_nowhere_says_little(aptness: Aptness) -> None:
    assert aptness.score("cats", [COMMON]) == pytest.approx(0, abs=0.1)
    assert aptness.score("cats", [EOS]) == aptness.score("cats", [5]) == aptness.score("birds", [CAT]) == 0


def test_a_word_said_twice_counts_once(aptness: Aptness) -> None:
    assert aptness.score("cats", [CAT, CAT]) == aptness.score("cats", [CAT])


def test_bytes_are_enough(aptness: Aptness) -> None:
    restored = Aptness.from_tensor(aptness.names, aptness.tensor())
    assert aptness.tensor().dtype == torch.int8
    assert np.allclose(restored.odds, aptness.odds, atol=1 / 32)


@pytest.mark.parametrize("shape", [(2,), (2, 7), (1, 40)])
def test_odds_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="shape"):
        Aptness.from_tensor(["a", "b"], torch.zeros(shape), torch.arange(3), 40)
