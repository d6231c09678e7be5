"""Counts of captions: probabilities that sum to one, what is left out, and what is stored."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captioner.following import Following
from captioner.ngrams import ORDER, KneserNey, NGrams

VOCABULARY, START, END = 12, 10, 11
texts = st.lists(st.lists(st.integers(0, 9), max_size=8).map(lambda ids: [*ids, END]), min_size=2, max_size=12)


def distribution(ngrams: NGrams, history: list[int]) -> np.ndarray:
    """Every id's probability after a history, one at a time."""
    return np.array([ngrams.evidence([[*history, i]]).probability[-1] for i in range(VOCABULARY)])


@settings(max_examples=60, deadline=None)
@given(texts, st.lists(st.integers(0, 9), max_size=6))
def test_probabilities_after_any_history_sum_to_one(rows: list[list[int]], history: list[int]) -> None:
    counts = KneserNey(rows * 3, START, VOCABULARY)
    ngrams = NGrams.of(counts)
    each = distribution(ngrams, history)
    assert each.min() > 0
    assert each.sum() == pytest.approx(1, abs=1e-4)
    exact = np.array([counts.evidence([[*history, i]]).probability[-1] for i in range(VOCABULARY)])
    assert exact.sum() == pytest.approx(1, abs=1e-9)
    assert each == pytest.approx(exact, rel=0.5, abs=0.02)  # 8 bits, rounded down


@settings(max_examples=60, deadline=None)
@given(texts, st.lists(st.lists(st.integers(0, 9), min_size=3, max_size=3), min_size=1, max_size=5))
def test_writing_sees_what_evaluation_sees(rows: list[list[int]], histories: list[list[int]]) -> None:
    ngrams = NGrams.of(KneserNey(rows * 3, START, VOCABULARY))
    made = Following(ngrams, np.arange(VOCABULARY)).after(np.array([[START, *h] for h in histories]))
    dense = made.share[:, None] * ngrams.unigrams
    np.add.at(dense, (made.rows, made.columns), made.values)
    for row, history in enumerate(histories):
        assert dense[row] == pytest.approx(distribution(ngrams, history), abs=1e-6)
        assert made.features[row] == pytest.approx(ngrams.evidence([[*history, END]]).features()[-1], abs=1e-6)


def test_what_was_seen_is_judged_as_if_it_had_not_been() -> None:
    rng = np.random.default_rng(1)
    rows = [[*rng.integers(0, 10, 6).tolist(), END] for _ in range(300)]
    counts = KneserNey(rows[:200], START, VOCABULARY)

    def bits(part: list[list[int]], *, seen: bool) -> float:
        return float(-np.log2(counts.evidence(part, seen=seen).probability).mean())

    memorised, left_out, unseen = (
        bits(rows[:200], seen=False),
        bits(rows[:200], seen=True),
        bits(rows[200:], seen=False),
    )
    assert memorised < unseen - 0.3
    assert left_out == pytest.approx(unseen, abs=0.1)


@settings(max_examples=60, deadline=None)
@given(texts, st.lists(st.integers(0, 9), min_size=2, max_size=8))
def test_no_row_is_known_that_was_not_written(rows: list[list[int]], ids: list[int]) -> None:
    ngrams = NGrams.of(KneserNey(rows * 3, START, VOCABULARY))
    size = min(len(ids), ORDER)
    written = {tuple(row[at : at + size]) for row in rows for at in range(len(row) - size + 1)}
    parts = {tuple(ids[at : at + size]) for at in range(len(ids) - size + 1)}
    assert parts <= written or not ngrams.knows(ids)


def test_rows_that_were_written_are_known() -> None:
    row = [1, 2, 3, 4, 5, 6, 7, END]
    ngrams = NGrams.of(KneserNey([row, [8, *row], [9, *row], [4, 3, END]] * 3, START, VOCABULARY))
    for known in ([1, 2], [1, 2, 3], [4, 3], [1, 2, 3, 4, 5, 6, 7]):
        assert ngrams.knows(known), known
    for unknown in ([2, 1], [1, 2, 4], [1, 2, 3, 4, 5, 7]):
        assert not ngrams.knows(unknown), unknown


def test_a_repeated_phrase_is_learnt() -> None:
    rows = [[1, 2, 3, 4, END]] * 20 + [[i, 9 - i, END] for i in range(10)]
    ngrams = NGrams.of(KneserNey(rows, START, VOCABULARY))
    found = ngrams.evidence([[1, 2, 3, 4, END]])
    assert found.probability[1:].min() > 0.5
    assert found.order.max() == ORDER


def test_what_is_stored_comes_back() -> None:
    rng = np.random.default_rng(0)
    rows = [[*rng.integers(0, 10, 6).tolist(), END] for _ in range(200)]
    ngrams = NGrams.of(KneserNey(rows, START, VOCABULARY))
    again = NGrams.from_tensors(ngrams.tensors())
    assert np.array_equal(again.evidence(rows).probability, ngrams.evidence(rows).probability)


def test_wide_vocabularies_are_stored_as_they_are() -> None:
    most = 2**15 + 100
    rows = [[most - 1 - i % 7, most - 2 - i % 3, END] for i in range(50)]
    ngrams = NGrams.of(KneserNey(rows, START, most))
    again = NGrams.from_tensors(ngrams.tensors())
    assert np.array_equal(again.evidence(rows).probability, ngrams.evidence(rows).probability)


def test_nothing_to_count_is_refused() -> None:
    with pytest.raises(ValueError, match="no captions"):
        KneserNey([], START, VOCABULARY)
