"""Metrics of generated captions, over tokens split at blanks; definitions as in pycocoevalcap where it has them."""

import math
import random
from collections import Counter
from collections.abc import Sequence

Tokens = Sequence[str]


def words(text: str) -> list[str]:
    """Words without punctuation, as the usual tokenisers of captions leave them.

    But for contractions, which stay whole; Flickr8k's descriptions come with theirs split.
    """
    kept = "".join(c if c.isalnum() or c in "'-" else " " for c in text)
    return [w for w in kept.split() if w.strip("'-")]


def ngrams(tokens: Tokens, n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))


def bleu(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]], most: int = 4) -> list[float]:
    """Corpus BLEU-1 to BLEU-`most` in percent (Papineni et al. 2002), the closest reference's length as measure."""
    matched, total = [0] * most, [0] * most
    length, reference_length = 0, 0
    for candidate, refs in zip(candidates, references, strict=True):
        length += len(candidate)
        reference_length += min((abs(len(r) - len(candidate)), len(r)) for r in refs)[1]
        for n in range(1, most + 1):
            counts = ngrams(candidate, n)
            ceiling: Counter[tuple[str, ...]] = Counter()
            for reference in refs:
                ceiling |= ngrams(reference, n)
            matched[n - 1] += sum((counts & ceiling).values())
            total[n - 1] += sum(counts.values())
    brevity = 1.0 if length >= reference_length else math.exp(1 - reference_length / max(length, 1))
    scores, product = [], 1.0
    for n in range(most):
        product *= matched[n] / total[n] if total[n] else 0.0
        scores.append(100 * brevity * product ** (1 / (n + 1)))
    return scores


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


def cider_d(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]], sigma: float = 6.0) -> float:
    """CIDEr-D times 100 (Vedantam, Zitnick and Parikh 2015); document frequencies come from the references.

    Of a single picture it is 0, as nothing is rare there.
    """
    pictures = len(references)
    frequency: Counter[tuple[str, ...]] = Counter()
    for refs in references:
        frequency.update({gram for r in refs for n in range(1, 5) for gram in ngrams(r, n)})
    scores = []
    for candidate, refs in zip(candidates, references, strict=True):
        mine = _weighted(candidate, frequency, pictures)
        each = [_likeness(mine, _weighted(r, frequency, pictures), len(candidate) - len(r), sigma) for r in refs]
        scores.append(sum(each) / len(each))
    return 1000 * sum(scores) / len(scores)


def distinct(captions: Sequence[Tokens], n: int) -> float:
    """The share of different n-grams among all (Li et al. 2016)."""
    counts: Counter[tuple[str, ...]] = Counter()
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


def _weighted(tokens: Tokens, frequency: Counter[tuple[str, ...]], pictures: int) -> list[dict[tuple[str, ...], float]]:
    """TF-IDF vectors of the 1- to 4-grams; the term frequency is the raw count, as in the published code."""
    rare = math.log(pictures)
    return [
        {gram: count * (rare - math.log(max(1, frequency[gram]))) for gram, count in ngrams(tokens, n).items()}
        for n in range(1, 5)
    ]


def _likeness(
    mine: list[dict[tuple[str, ...], float]], theirs: list[dict[tuple[str, ...], float]], gap: int, sigma: float
) -> float:
    """Cosines of the clipped vectors, averaged over n and damped by the difference in length."""
    total = 0.0
    for a, b in zip(mine, theirs, strict=True):
        norm = math.sqrt(sum(v * v for v in a.values()) * sum(v * v for v in b.values()))
        if norm:
            total += sum(min(v, b.get(gram, 0.0)) * b.get(gram, 0.0) for gram, v in a.items()) / norm
    return total / 4 * math.exp(-(gap**2) / (2 * sigma**2))
