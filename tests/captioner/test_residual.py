"""The residual: texts that the network wrote are told from people's, by their words and by how they go on."""

import numpy as np
import pytest
import torch

from captioner.residual import Residual

VOCABULARY = 40
KNOWN = torch.arange(1, VOCABULARY)


def texts(seed: int, ids: range, count: int = 600) -> list[list[int]]:
    return np.random.default_rng(seed).choice(np.array(ids), (count, 6)).tolist()


def told_apart(residual: Residual, people: list[list[int]], own: list[list[int]]) -> float:
    """How often one of people's scores higher than one of the network's; of two that score alike, half."""
    theirs, mine = (np.array(residual.score(t)) for t in (people, own))
    over, even = (theirs[:, None] > mine).mean(), (theirs[:, None] == mine).mean()
    return float(over + even / 2)


def test_new_texts_are_told_apart_by_the_words_that_only_one_side_says() -> None:
    residual = Residual.fit(texts(0, range(1, 30)), texts(1, range(10, 38)), KNOWN)
    assert told_apart(residual, texts(2, range(1, 30)), texts(3, range(10, 38))) > 0.85


def test_texts_of_the_same_kind_are_not_told_apart() -> None:
    residual = Residual.fit(texts(0, range(1, 30)), texts(1, range(1, 30)), KNOWN)
    assert 0.4 < told_apart(residual, texts(2, range(1, 30)), texts(3, range(1, 30))) < 0.6


def test_texts_of_the_same_words_are_told_apart_by_whether_they_hold_together() -> None:
    """People say one thing from beginning to end; the network forgets what it began with: no pair of words shows it."""

    def speeches(seed: int, *, holds: bool) -> list[list[int]]:
        rng = np.random.default_rng(seed)
        begun = rng.integers(0, 2, 1500)
        ended = begun if holds else 1 - begun
        return [[1 + int(a), *rng.integers(10, 13, 2).tolist(), 3 + int(b)] for a, b in zip(begun, ended, strict=True)]

    residual = Residual.fit(speeches(0, holds=True), speeches(1, holds=False), KNOWN)
    assert told_apart(residual, speeches(2, holds=True), speeches(3, holds=False)) > 0.9


def test_a_text_scores_the_same_in_any_company() -> None:
    residual = Residual.fit(texts(0, range(1, 30)), texts(1, range(10, 38)), KNOWN)
    short, long = [3, 20], list(range(1, 36))
    together = residual.score([short, long, *texts(2, range(1, 38), 5)])[:2]
    assert together == pytest.approx([*residual.score([short]), *residual.score([long])], abs=1e-5)


def test_being_stranger_than_people_is_worth_nothing() -> None:
    residual = Residual.fit(texts(0, range(1, 15), 2000), texts(1, range(20, 38), 2000), KNOWN)
    assert residual.score(texts(2, range(1, 15), 50)) == [2.0] * 50


def test_people_s_texts_that_could_not_be_written_teach_nothing() -> None:
    """Else every rare word would speak for people, and the classifier would learn nothing else."""
    known = torch.arange(1, 30)
    people, own = texts(0, range(1, 30), 200), texts(1, range(1, 30), 200)
    rare = [[*text, VOCABULARY] for text in texts(2, range(1, 15), 200)]
    with_rare, without = Residual.fit(people + rare, own, known), Residual.fit(people, own, known)
    assert all(torch.equal(a, b) for a, b in zip(with_rare.parameters(), without.parameters(), strict=True))


def test_an_id_that_could_not_be_written_speaks_against_a_text_whichever_it_is() -> None:
    """The network's own have some: what it spelled in pieces may be read as another word."""
    own = [[*text[:-1], 30 + i % 5] for i, text in enumerate(texts(1, range(1, 30)))]
    residual = Residual.fit(texts(0, range(1, 30)), own, torch.arange(1, 30))
    new = texts(2, range(1, 30), 50)
    odds = np.subtract(residual.score([[*text[:-1], 37] for text in new]), residual.score(new))
    assert odds.max() < -1


def test_no_texts_have_no_scores() -> None:
    assert Residual(KNOWN).score([]) == []


def test_a_fit_is_the_same_every_time_and_leaves_the_generator_alone() -> None:
    before = torch.get_rng_state()
    first, second = (Residual.fit(texts(0, range(1, 30), 80), texts(1, range(10, 38), 80), KNOWN, 3) for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_tensors_bring_it_back() -> None:
    residual = Residual.fit(texts(0, range(1, 30)), texts(1, range(10, 38)), KNOWN)
    new = texts(2, range(1, 38), 20)
    assert Residual.from_tensors(residual.state_dict()).score(new) == residual.score(new)


@pytest.mark.parametrize(("people", "own"), [([], [[1]]), ([[1]], []), ([[VOCABULARY]], [[1]])])
def test_both_sides_are_needed(people: list[list[int]], own: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="are needed"):
        Residual.fit(people, own, KNOWN)
