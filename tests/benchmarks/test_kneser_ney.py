import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.kneser_ney import KneserNey

END, SIZE = 3, 4
texts = st.lists(st.lists(st.integers(0, 2), max_size=6).map(lambda t: [*t, END]), min_size=1, max_size=12)


@settings(max_examples=30, deadline=None)
@given(texts, st.integers(1, 4))
def test_probabilities_of_what_may_follow_add_up_to_one(learnt: list[list[int]], order: int) -> None:
    model = KneserNey(learnt, SIZE, order)
    for start in ([], [0], [2, 1], learnt[0][:-1]):
        # P(start + x) / P(start): bits of both are those of what was read so far, since nothing looks ahead.
        bits = model.bits([[*start, x] for x in range(SIZE)])
        before = model.bits([start])[0] if start else 0.0
        assert sum(2 ** -(bits - before)) == pytest.approx(1)


def test_a_bigram_by_hand() -> None:
    """Two texts, `a b` and `a c`: counts and discounts small enough for paper."""
    a, b, c = 0, 1, 2
    model = KneserNey([[a, b, END], [a, c, END]], SIZE, 2)
    # Bigrams: start-a twice, the other four once, so D = 4 / (4 + 2·1) = 2/3. What unigrams follow: a after one
    # kind (the start), b and c after one, the end after two: D = 3 / (3 + 2·1) = 3/5, 5 in all.
    unigram = {w: (max(n - 0.6, 0) + 0.6 * 4 / SIZE) / 5 for w, n in {a: 1, b: 1, c: 1, END: 2}.items()}
    first = (2 - 2 / 3 + 2 / 3 * 1 * unigram[a]) / 2
    second = (1 - 2 / 3 + 2 / 3 * 2 * unigram[b]) / 2
    third = (1 - 2 / 3 + 2 / 3 * 1 * unigram[END]) / 1
    assert model.bits([[a, b, END]])[0] == pytest.approx(-math.log2(first * second * third))


def test_longer_contexts_tell_more() -> None:
    cycle = [[*itertools.islice(itertools.cycle([0, 0, 1, 0, 1, 1]), n), END] for n in range(5, 40)]
    bits = [KneserNey(cycle, SIZE, order).bits(cycle).sum() for order in (1, 2, 3, 5)]
    assert bits == sorted(bits, reverse=True)
    assert np.isfinite(bits).all()
