"""Near-duplicates: captions that share nearly all their words, whatever their order."""

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping

LIKE = 0.85
"""Jaccard similarity of word sets: one word more or less among six, one other among thirteen, order aside."""


class NearDuplicates:
    """Finds like word sets exactly, by prefix filtering (Bayardo, Ma and Srikant 2007).

    Two sets that are alike share one of their rarest few words, so only sets that do are compared.
    """

    def __init__(self, frequency: Mapping[str, int]) -> None:
        """`frequency` tells the rare words; it decides how fast this is, not what is found."""
        self._frequency = frequency
        self._holding: dict[tuple[Hashable, str], list[frozenset[str]]] = defaultdict(list)

    def add(self, group: Hashable, words: frozenset[str]) -> None:
        for word in self._rarest(words):
            self._holding[group, word].append(words)

    def has(self, group: Hashable, words: frozenset[str]) -> bool:
        """Whether the group holds a set like this one."""
        least, most = LIKE * len(words), len(words) / LIKE
        return any(
            least <= len(other) <= most and len(words & other) >= LIKE * len(words | other)
            for word in self._rarest(words)
            for other in self._holding.get((group, word), ())
        )

    def _rarest(self, words: frozenset[str]) -> list[str]:
        """So many of the rarest words that a like set has one of them among its own."""
        ordered = sorted(words, key=lambda w: (self._frequency.get(w, 0), w))
        return ordered[: len(words) - math.ceil(LIKE * len(words)) + 1]


def frequencies(texts: Iterable[frozenset[str]]) -> Counter[str]:
    """In how many texts each word occurs."""
    counts: Counter[str] = Counter()
    for words in texts:
        counts.update(words)
    return counts
