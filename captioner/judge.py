"""How much better one set of captions would be liked than another, by votes on a third, with an interval.

The judge is Bayesian linear regression of approval (as captioner.taste, its priors fixed) on what a taste that learnt
from other, earlier votes foresaw, on words and on shapes. What was foreseen has a wide prior: the votes say how much of
it is true. Words and shapes correct it where captions were written to please that taste and please nobody else.

What the judge says of a difference of captions is a fixed weighted sum of the votes, so its standard error is known
without resampling: from the leave-one-out errors of the votes (a heteroscedasticity-consistent variance: MacKinnon and
White 1985), and from how much the difference varies between the pictures. Votes that have nothing to do with the
captions pull the sum to neither side.
"""

from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from captioner.labels import Judged, TooFewLabelsError
from captioner.taste import NOISE, SHAPE, TOGETHER, WORD, Captions, Lesson, Taste, learnt_from, shapes_of, words_of

FEWEST = 50
"""Memes with votes below which nothing is judged: the sum would not be near to normal."""
_TOLD = 1.0
"""Prior variance of how much of what was foreseen is true; 1 is all of it, and chance has 0 in the middle."""


class Change(NamedTuple):
    """Approval, 0 to 1, of what was written before and after; the rise and its standard error."""

    before: float
    after: float
    error: float

    @property
    def rise(self) -> float:
        return self.after - self.before

    def interval(self, one_sided: float) -> tuple[float, float]:
        """The bounds of the rise, each at this one-sided level."""
        reach = NormalDist().inv_cdf(one_sided) * self.error
        return self.rise - reach, self.rise + reach


def change(votes: Sequence[Judged], foreseen: Taste, before: Sequence[Captions], after: Sequence[Captions]) -> Change:
    """What votes say of two sets of captions on the same pictures; `foreseen` must not have learnt from these votes.

    Raises TooFewLabelsError for fewer than `FEWEST` memes with votes.
    """
    lesson = evidence(votes)
    told = foreseen.score(lesson.captions)[:, None]  # (N, 1)
    covariance = lesson.kernel() + lesson.usual() + _TOLD * told * told.T + np.diag(NOISE / lesson.weight)
    inverse = np.linalg.inv(covariance)
    alpha = inverse @ lesson.target
    features = np.stack(
        [_mean(lesson, foreseen, captions) for side in (before, after) for captions in side]
    )  # (2 P, F)
    together = TOGETHER * np.concatenate([WORD * lesson.words, SHAPE * lesson.shapes], 1)
    weights = np.concatenate([together, _TOLD * told], 1)  # (N, F)
    liked = (features @ (weights.T @ alpha)).reshape(2, -1)  # (2, P)
    difference = features[len(before) :].mean(0) - features[: len(before)].mean(0)
    of_votes = inverse @ (weights @ difference)  # (N,) what each vote weighs in the rise
    left_out = alpha / np.diag(inverse)  # (N,) errors of predictions without the vote itself
    spread = liked[1] - liked[0]
    error = float(np.sqrt(((of_votes * left_out) ** 2).sum() + spread.var() / len(spread)))
    usual = sum(v.up for v in votes) / sum(v.weight for v in votes)
    return Change(usual + float(liked[0].mean()), usual + float(liked[1].mean()), error)


def evidence(votes: Sequence[Judged]) -> Lesson:
    """What there is to judge by. Raises TooFewLabelsError for fewer than `FEWEST` memes with votes that count."""
    lesson = learnt_from(votes, ())
    found = 0 if lesson is None else len(lesson.target)
    if lesson is None or found < FEWEST:
        raise TooFewLabelsError(
            f"Of the latest memes {found} have votes that count: too few to judge by, {FEWEST} would do."
        )
    return lesson


def _mean(lesson: Lesson, foreseen: Taste, captions: Captions) -> np.ndarray:
    """Which share of a picture's captions has each word, their mean shape, and what was foreseen (F = V + S + 1,)."""
    place = {w: i for i, w in enumerate(lesson.vocabulary)}
    found = np.zeros(len(place))
    for boxes in captions:
        found[[place[w] for w in words_of(boxes) if w in place]] += 1 / len(captions)
    return np.concatenate([found, shapes_of(captions).mean(0), [foreseen.score(captions).mean()]])
