"""Metrics of generated captions, over tokens split at blanks; definitions as in pycocoevalcap where it has them."""

import math
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

Tokens = Sequence[str]
Gram = tuple[str, ...]
_ORDERS = range(1, 5)


def words(text: str) -> list[str]:
    """Words without punctuation, as the usual tokenisers of captions leave them.

    But for contractions, which stay whole; Flickr8k's descriptions come with theirs split.
    """
    kept = "".join(c if c.isalnum() or c in "'-" else " " for c in text)
    return [w for w in kept.split() if w.strip("'-")]


def ngrams(tokens: Tokens, n: int) -> Counter[Gram]:
    return Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))


def bleu(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> list[float]:
    """Corpus BLEU-1 to BLEU-4 in percent (Papineni et al. 2002), the closest reference's length as measure."""
    matched, total = Counter[int](), Counter[int]()
    length, reference_length = 0, 0
    for candidate, refs in zip(candidates, references, strict=True):
        length += len(candidate)
        reference_length += closest(len(candidate), map(len, refs))
        most = ceiling(refs)
        for n in _ORDERS:
            same, all_of_them = matches(candidate, most, n)
            matched[n] += same
            total[n] += all_of_them
    brevity = 1.0 if length >= reference_length else math.exp(1 - reference_length / max(length, 1))
    scores, product = [], 1.0
    for n in _ORDERS:
        product *= matched[n] / total[n] if total[n] else 0.0
        scores.append(100 * brevity * product ** (1 / n))
    return scores


def ceiling(references: Sequence[Tokens]) -> Counter[Gram]:
    """How often each 1- to 4-gram stands in the reference that has most of it."""
    most: Counter[Gram] = Counter()
    for reference in references:
        for n in _ORDERS:
            most |= ngrams(reference, n)
    return most


def matches(caption: Tokens, ceiling: Mapping[Gram, int], n: int) -> tuple[int, int]:
    """How many of the caption's n-grams count as a reference's, and how many it has."""
    grams = ngrams(caption, n)
    return sum(min(count, ceiling.get(gram, 0)) for gram, count in grams.items()), sum(grams.values())


def closest(length: int, references: Iterable[int]) -> int:
    """The length of the reference that is nearest to a caption's, the shorter one of two."""
    return min((abs(r - length), r) for r in references)[1]


def rouge_l(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]], beta: float = 1.2) -> float:
    """Mean ROUGE-L in percent (Lin 2004): best precision and best recall over the references, as pycocoevalcap."""
    scores = []
    for candidate, refs in zip(candidates, references, strict=True):
        common = [_common(candidate, r) for r in refs]
        precision = max(c / max(len(candidate), 1) for c in common)
        recall = max(c / max(len(r), 1) for c, r in zip(common, refs, strict=True))
        both = precision and recall
        scores.append((1 + beta**2) * precision * recall / (recall + beta**2 * precision) if both else 0.0)
    return 100 * sum(scores) / len(scores)


def cider_d(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> float:
    """Mean CIDEr-D times 100, as tables print it; of a single picture it is 0, as nothing is rare there."""
    score = CiderD(references)
    return 100 * sum(score(i, candidate) for i, candidate in enumerate(candidates)) / len(candidates)


class CiderD:
    """CIDEr-D of single captions, 0 to 10, against the references of a picture (Vedantam, Zitnick and Parikh 2015)."""

    def __init__(self, references: Sequence[Sequence[Tokens]], sigma: float = 6.0) -> None:
        """`references[i]` are the captions of picture `i`; how rare n-grams are comes from all of them."""
        self._sigma, self._pictures = sigma, len(references)
        self._frequency = Counter(
            g for of in references for g in {g for r in of for n in _ORDERS for g in ngrams(r, n)}
        )
        self._references = [[(self._vectors(r), len(r)) for r in of] for of in references]

    def __call__(self, picture: int, caption: Tokens) -> float:
        """Cosines of the clipped vectors, damped by the difference in length, averaged over n and the references."""
        mine, total = self._vectors(caption), 0.0
        for theirs, length in self._references[picture]:
            damped = math.exp(-((len(caption) - length) ** 2) / (2 * self._sigma**2))
            total += damped * sum(_cosine(a, b) for a, b in zip(mine, theirs, strict=True)) / len(_ORDERS)
        return 10 * total / len(self._references[picture])

    def _vectors(self, caption: Tokens) -> list[tuple[dict[Gram, float], float]]:
        """TF-IDF vectors of the 1- to 4-grams and their norms; the term frequency is the raw count, as published."""
        made = []
        for n in _ORDERS:
            vector = {gram: count * self._rarity(gram) for gram, count in ngrams(caption, n).items()}
            made.append((vector, math.sqrt(sum(v * v for v in vector.values()))))
        return made

    def _rarity(self, gram: Gram) -> float:
        return math.log(self._pictures) - math.log(max(1, self._frequency[gram]))


def _cosine(mine: tuple[dict[Gram, float], float], theirs: tuple[dict[Gram, float], float]) -> float:
    """Of two vectors with their norms, the first one cut down to the second."""
    norm = mine[1] * theirs[1]
    if not norm:
        return 0.0
    return sum(min(v, theirs[0].get(g, 0.0)) * theirs[0].get(g, 0.0) for g, v in mine[0].items()) / norm


def distinct(captions: Sequence[Tokens], n: int) -> float:
    """The share of different n-grams among all (Li et al. 2016)."""
    counts: Counter[Gram] = Counter()
    for caption in captions:
        counts.update(ngrams(caption, n))
    return len(counts) / max(1, sum(counts.values()))


def self_bleu(captions: Sequence[Tokens], sample: int = 200, against: int = 100, seed: int = 0) -> float:
    """Mean BLEU-4 in percent of a sample of captions, each against others (Zhu et al. 2018); high is monotonous."""
    rng = random.Random(seed)  # noqa: S311, no secret
    picked = rng.sample(range(len(captions)), min(sample, len(captions)))
    scores = []
    for i in picked:
        others = [j for j in rng.sample(range(len(captions)), min(against + 1, len(captions))) if j != i][:against]
        if others:
            scores.append(bleu([captions[i]], [[captions[j] for j in others]])[3])
    return sum(scores) / max(1, len(scores))


def _common(first: Tokens, second: Tokens) -> int:
    """The length of the longest common subsequence."""
    row = [0] * (len(second) + 1)
    for a in first:
        before = 0
        for j, b in enumerate(second, 1):
            before, row[j] = row[j], before + 1 if a == b else max(row[j], row[j - 1])
    return row[-1]
