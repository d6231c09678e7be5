"""What a chat likes, learnt within a second from its votes so far, to rank captions by.

Bayesian linear regression of approval on the words of a caption, its boxes and its length, solved as a Gaussian process
(Rasmussen and Williams 2006, chapter 2) because votes are fewer than words. A chat's weights are those of all chats
together plus its own: what nobody here voted on yet is judged as elsewhere, and with no votes at all every caption is
worth 0, which leaves the ranking to the shipped reward.

Nothing here depends on a model, so a taste outlives a change of models. How much votes say is fixed: estimating it by
the likelihood of the votes (empirical Bayes) was tried and said too little of the first few hundred.
"""

import json
import re
import zlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from captioner.labels import Judged, Pair

MOST = 2000
"""Labels that are learnt from at most, the latest; more would take longer than a second."""
_LEAST = 0.25
"""Of a vote: memes with less, such as those that only one of too many votes is on, take no place."""
TOGETHER = 0.7
"""The share of a taste that chats have in common."""
WORD, SHAPE, _USUAL = 0.006, 0.03, 0.25
"""Prior variances: of the weight of a word, of a shape, and of a chat's share of ups."""
NOISE = 0.25
"""Variance of one vote: that of a coin."""
_MARGIN = 0.3
"""Points of approval by which the better of a pair is taken to be ahead."""
_WORDS = re.compile(r"\w+(?:'\w+)?|[^\w\s]")
_SHAPES = ("one box", "length", "length squared")
_SIZE = 1_000_000

Captions = Sequence[Sequence[str]]


class Taste:
    """Weights of words and shapes, in points of approval: 0.1 is one more up-vote in ten."""

    def __init__(self, words: Mapping[str, float], shapes: Sequence[float] | np.ndarray) -> None:
        self.words, self.shapes = dict(words), np.asarray(shapes, np.float64)

    @classmethod
    def fitted(cls, judged: Sequence[Judged], chat: str | None = None, pairs: Sequence[Pair] = ()) -> "Taste":
        """What the latest votes say that a chat likes; None asks for all chats together.

        Deterministic; under a second of one core, and milliseconds for another chat of the same votes. Without votes it
        likes everything alike.
        """
        learnt = _learnt(tuple(judged), tuple(pairs))
        if learnt is None:
            return cls({}, np.zeros(len(_SHAPES)))
        alpha = learnt.alpha * (TOGETHER + (1 - TOGETHER) * (learnt.chats == learnt.number.get(chat, -1)))
        shapes = SHAPE * (learnt.shapes.T @ alpha)
        said = np.bincount(learnt.word, learnt.sign * alpha[learnt.row], len(learnt.vocabulary))
        return cls(dict(zip(learnt.vocabulary, (WORD * said).tolist(), strict=True)), shapes)

    def score(self, captions: Captions) -> np.ndarray:
        """How much more the captions (N) should be liked than the usual one, in points of approval (N,)."""
        said = [sum(self.words.get(w, 0.0) for w in words_of(boxes)) for boxes in captions]
        return np.asarray(said, np.float64) + shapes_of(captions) @ self.shapes

    def to_bytes(self) -> bytes:
        """Some kilobytes; `from_bytes` is the way back."""
        said = {"words": {w: round(v, 5) for w, v in self.words.items()}, "shapes": self.shapes.round(6).tolist()}
        return zlib.compress(json.dumps(said).encode())

    @classmethod
    def from_bytes(cls, data: bytes) -> "Taste":
        """Raises ValueError for what `to_bytes` did not write."""
        try:
            read = json.loads(zlib.decompressobj().decompress(data, _SIZE))
            shapes = np.array(read["shapes"], np.float64)
            words = {str(w): float(v) for w, v in read["words"].items()}
        except (zlib.error, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"This is no taste: {error!r}.") from error
        if shapes.shape != (len(_SHAPES),) or not np.isfinite([*shapes, *words.values()]).all():
            raise ValueError("This is no taste: its numbers do not fit.")
        return cls(words, shapes)


class Lesson(NamedTuple):
    """Observations: of a caption, or of the difference between two; N of them, V words, S shapes."""

    vocabulary: list[str]
    captions: list[Sequence[str]]
    words: np.ndarray  # (N, V)
    shapes: np.ndarray  # (N, S)
    constant: np.ndarray  # (N,) 1 for a caption, 0 for a difference
    target: np.ndarray  # (N,)
    weight: np.ndarray  # (N,)
    chats: np.ndarray  # (N,)
    number: dict[str | None, int]

    def kernel(self) -> np.ndarray:
        """The prior covariance (N, N) of what is observed."""
        alike = self.chats[:, None] == self.chats[None, :]
        made = WORD * (self.words @ self.words.T) + SHAPE * (self.shapes @ self.shapes.T)
        made = made * (TOGETHER + (1 - TOGETHER) * alike)
        return np.asarray(made, np.float64)

    def usual(self) -> np.ndarray:
        """The covariance (N, N) of how many ups are usual, everywhere and in each chat."""
        alike = self.chats[:, None] == self.chats[None, :]
        return np.asarray(_USUAL * (1 + alike) * np.outer(self.constant, self.constant))


class _Learnt(NamedTuple):
    """What all chats' tastes are made of: N observations, and the K words in them, which are few of all."""

    vocabulary: list[str]
    row: np.ndarray  # (K,) the observation
    word: np.ndarray  # (K,) the place in the vocabulary
    sign: np.ndarray  # (K,) 1, or -1 for a word of the worse one of two
    shapes: np.ndarray  # (N, S)
    alpha: np.ndarray  # (N,) how much each observation says
    chats: np.ndarray  # (N,)
    number: dict[str | None, int]


@lru_cache(maxsize=1)  # chats are fitted one after another, to the same votes, and only the last step differs
def _learnt(judged: tuple[Judged, ...], pairs: tuple[Pair, ...]) -> _Learnt | None:
    """The solution for all chats at once; None where there is no vote."""
    lesson = learnt_from(judged, pairs)
    if lesson is None:
        return None
    covariance = lesson.kernel() + lesson.usual() + np.diag(NOISE / lesson.weight)
    alpha = np.linalg.solve(covariance, lesson.target)
    row, word = np.nonzero(lesson.words)
    sign = lesson.words[row, word].astype(np.float64)
    return _Learnt(lesson.vocabulary, row, word, sign, lesson.shapes, alpha, lesson.chats, lesson.number)


def learnt_from(judged: Sequence[Judged], pairs: Sequence[Pair]) -> Lesson | None:
    """The latest labels; None where there is no vote."""
    voted = sorted((j for j in judged if j.weight >= _LEAST), key=lambda j: j.at)[-MOST:]
    chosen = sorted((p for p in pairs if p.weight > 0), key=lambda p: p.at)[-MOST // 4 :]
    if not voted and not chosen:
        return None
    number: dict[str | None, int] = {}
    names = [j.chat for j in voted] + [p.chat for p in chosen]
    chats = [number.setdefault(name, len(number)) for name in names]
    first = [j.boxes for j in voted] + [p.better for p in chosen]
    vocabulary = sorted({w for boxes in (*first, *(p.worse for p in chosen)) for w in words_of(boxes)})
    words, shapes = _counted(first, vocabulary), shapes_of(first)
    if chosen:
        worse = [p.worse for p in chosen]
        words[len(voted) :] -= _counted(worse, vocabulary)
        shapes[len(voted) :] -= shapes_of(worse)
    ups, weights = np.array([j.up for j in voted]), np.array([j.weight for j in voted])
    usual = (ups.sum() + 1) / (weights.sum() + 2)
    return Lesson(
        vocabulary,
        list(first),
        words,
        shapes,
        np.array([1.0] * len(voted) + [0.0] * len(chosen)),
        np.concatenate([ups / np.maximum(weights, 1e-9) - usual, np.full(len(chosen), _MARGIN)]),
        np.concatenate([weights, [p.weight for p in chosen]]),
        np.array(chats),
        number,
    )


def words_of(boxes: Sequence[str]) -> set[str]:
    return set(_WORDS.findall(" ".join(boxes)))


def _counted(captions: Captions, vocabulary: Sequence[str]) -> np.ndarray:
    """Which words are in which caption (N, V)."""
    place = {w: i for i, w in enumerate(vocabulary)}
    found = np.zeros((len(captions), len(vocabulary)), np.float32)
    for row, boxes in enumerate(captions):
        found[row, [place[w] for w in words_of(boxes)]] = 1
    return found


def shapes_of(captions: Captions) -> np.ndarray:
    """Whether there is one box, and the length, about 0 for a usual caption (N, S)."""
    length = np.array([min(30, len(" ".join(boxes).split())) for boxes in captions], np.float64) / 5
    one = np.array([float(len(boxes) == 1) for boxes in captions])
    return np.stack([one - 0.3, length - 1.8, (length**2 - 4) / 3], 1)
