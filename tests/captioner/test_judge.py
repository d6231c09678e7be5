"""The judge finds what people like, is not fooled by coins, and says how sure it is."""

import random

import numpy as np
import pytest

from captioner.judge import change
from captioner.labels import Judged, LabelsError
from captioner.taste import Taste

WORDS = ["dog", "cat", "monday", "pizza", "teacher", "game", "snow", "mom", "internet", "why", "when", "nobody"]
PLAIN = [[[" ".join(random.Random(i).sample(WORDS, 4))] for i in range(k, k + 4)] for k in range(0, 120, 4)]
WITH_DOGS = [[[f"dog {boxes[0]}"] for boxes in captions] for captions in PLAIN]

DOGS = Taste({"dog": 0.2}, [0, 0, 0])


def _votes(seed: int, likes: str | None, count: int = 300) -> list[Judged]:
    rng = random.Random(seed)
    made = []
    for at in range(count):
        words = rng.sample(WORDS, 4)
        up = float(rng.random() < (0.5 if likes is None else 0.75 if likes in words else 0.35))
        made.append(Judged((" ".join(words),), None, up, 1 - up, "here", float(at)))
    return made


def test_more_of_what_is_liked_is_a_rise_and_less_a_fall() -> None:
    found = change(_votes(1, "dog"), DOGS, PLAIN, WITH_DOGS)
    assert found.interval(0.999)[0] > 0
    assert 0 < found.before < found.after < 1
    back = change(_votes(1, "dog"), DOGS, WITH_DOGS, PLAIN)
    assert back.rise == pytest.approx(-found.rise)
    assert back.error == pytest.approx(found.error)


def test_what_was_foreseen_and_is_not_true_is_no_rise() -> None:
    """Captions written to please a taste that nobody has."""
    found = change(_votes(5, None), DOGS, PLAIN, WITH_DOGS)
    assert found.interval(0.999)[0] < 0
    wrong = change(_votes(6, "dog"), Taste({"dog": -0.2}, [0, 0, 0]), PLAIN, WITH_DOGS)
    assert wrong.rise > 0


def test_what_was_foreseen_makes_surer() -> None:
    nothing, true = (change(_votes(7, "dog", 120), t, PLAIN, WITH_DOGS) for t in (Taste({}, [0, 0, 0]), DOGS))
    assert true.rise / true.error > nothing.rise / nothing.error


def test_the_same_captions_are_no_change() -> None:
    found = change(_votes(2, "dog"), DOGS, PLAIN, PLAIN)
    assert found.rise == 0
    assert found.interval(0.999)[0] <= 0


def test_coins_rise_in_errors_like_a_standard_normal() -> None:
    """Over 120 sets of random votes: centred on 0, of about unit spread, none beyond the level."""
    found = [change(_votes(seed, None, 120), DOGS, PLAIN, WITH_DOGS) for seed in range(120)]
    scaled = np.array([f.rise / f.error for f in found])
    assert abs(scaled.mean()) < 0.25
    assert 0.75 < scaled.std() < 1.15
    assert sum(f.interval(0.999)[0] > 0 for f in found) <= 1


def test_a_handful_of_memes_is_too_few() -> None:
    with pytest.raises(LabelsError, match="too few"):
        change(_votes(3, "dog", 20), DOGS, PLAIN, WITH_DOGS)
