"""The residual: what people say and the network does not speaks for a text, and pieces of words say nothing."""

import numpy as np
import pytest
import torch

from captioner.residual import Residual

VOCABULARY, PIECE, END = 40, 39, 38


def texts(seed: int, ids: range, count: int = 300) -> list[list[int]]:
    return np.random.default_rng(seed).choice(np.array(ids), (count, 6)).tolist()


def test_new_texts_are_told_apart_by_the_words_that_only_one_side_says() -> None:
    residual = Residual.fit(texts(0, range(1, 30)), texts(1, range(10, 38)), VOCABULARY)
    people, own = ([residual.score(t) for t in new] for new in (texts(2, range(1, 30)), texts(3, range(10, 38))))
    assert np.mean(np.array(people)[:, None] > np.array(own)[None, :]) > 0.9
    assert residual.score([1]) > residual.score([20]) > residual.score([37])


def test_texts_of_the_same_kind_are_not_told_apart() -> None:
    residual = Residual.fit(texts(0, range(1, 30)), texts(1, range(1, 30)), VOCABULARY)
    assert np.std([residual.score(t) for t in texts(2, range(1, 30))]) < 1


def test_order_tells_where_words_do_not() -> None:
    forwards = [[a, a + 1, a + 2] for a in range(1, 30)] * 10
    backwards = [text[::-1] for text in forwards]
    residual = Residual.fit(forwards, backwards, VOCABULARY)
    assert all(residual.score([a, a + 1, a + 2]) > residual.score([a + 2, a + 1, a]) for a in range(1, 30))


def test_many_texts_of_one_side_weigh_no_more_than_few_of_the_other() -> None:
    few = Residual.fit(texts(0, range(1, 30)), texts(1, range(10, 38)), VOCABULARY)
    many = Residual.fit(texts(0, range(1, 30)), texts(1, range(10, 38)) * 10, VOCABULARY)
    assert all(abs(many.score(t)) < 3 * abs(few.score(t)) + 1 for t in texts(2, range(10, 30)))
    assert np.mean([many.score(t) for t in texts(2, range(1, 10))]) > 0


def test_words_of_several_pieces_say_nothing() -> None:
    """Nor the pairs of their pieces with what precedes and follows, such as the end."""
    people = [[*text, 35, PIECE, END] for text in texts(0, range(1, 30))]
    own = [[*text, END] for text in texts(1, range(1, 30))]
    residual, naive = Residual.fit(people, own, VOCABULARY, {PIECE}), Residual.fit(people, own, VOCABULARY)
    of_pieces = [residual.score([5, *pieces, END]) for pieces in ([35, PIECE], [36, PIECE], [7, PIECE, PIECE])]
    assert len(set(of_pieces)) == 1
    assert of_pieces[0] == pytest.approx(residual.score([5]) + residual.score([END]) - residual.score([]), abs=0.5)
    assert naive.score([5, 35, PIECE, END]) > naive.score([5, END]) + 1


def test_bytes_are_enough() -> None:
    residual = Residual.fit(texts(0, range(1, 30)), texts(1, range(10, 38)), VOCABULARY, {PIECE})
    restored = Residual.from_tensor(residual.tensor(), {PIECE})
    assert residual.tensor().dtype == torch.int8
    assert np.allclose(restored.weights, residual.weights, atol=1 / 100)
    assert restored.score([1, PIECE]) == pytest.approx(residual.score([1, PIECE]), abs=0.1)


@pytest.mark.parametrize(("people", "own"), [([], [[1]]), ([[1]], [])])
def test_both_sides_are_needed(people: list[list[int]], own: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="are needed"):
        Residual.fit(people, own, VOCABULARY)
