"""An interpolated Kneser-Ney model (Kneser and Ney 1995; Chen and Goodman 1999), to judge captions and models by.

The plainest form: one discount an order, raw counts for n-grams that nothing can precede. It shares no code with the
captioner, so that a model's own counts are not their own judge.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

_FACTOR = np.uint64(0x9E3779B97F4A7C15)
Array = np.ndarray


@dataclass(frozen=True)
class _Table:
    """Hashed n-grams of one order with their counts; hashed contexts with the sum and the number of what follows."""

    grams: Array
    counts: Array
    contexts: Array
    totals: Array
    kinds: Array
    discount: float


class KneserNey:
    """Learns from texts of ids below `size`; every text ends in an id of its own, which counts like the others."""

    def __init__(self, texts: Sequence[Sequence[int]], size: int, order: int = 5) -> None:
        self._size, self._order = size, order
        ids, places = self._flat(texts)
        hashes = list(_hashes(ids, order + 1))
        self._tables = [self._table(hashes, places, n) for n in range(1, order + 1)]

    def bits(self, texts: Sequence[Sequence[int]]) -> Array:
        """Bits of every text (B,), its end included."""
        ids, places = self._flat(texts)
        hashes = list(_hashes(ids, self._order))
        probability = np.full(len(ids), 1 / self._size)
        for n, table in enumerate(self._tables, 1):
            there = np.flatnonzero(places >= max(1, n - 1))
            context = _before(hashes, n)[there]
            total, kinds = _found(table.contexts, context, table.totals), _found(table.contexts, context, table.kinds)
            count = _found(table.grams, hashes[n - 1][there], table.counts)
            longer = (np.maximum(count - table.discount, 0) + table.discount * kinds * probability[there]) / np.maximum(
                total, 1
            )
            probability[there] = np.where(total > 0, longer, probability[there])
        spent = np.where(places > 0, -np.log2(probability), 0)
        return np.add.reduceat(spent, np.flatnonzero(places == 0))

    def _flat(self, texts: Sequence[Sequence[int]]) -> tuple[Array, Array]:
        """All texts end to end, each led by an id that starts it, and every id's place in its text."""
        lengths = np.array([len(t) + 1 for t in texts])
        ids = np.concatenate([np.array([self._size, *t], np.uint64) for t in texts])
        starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
        return ids, np.arange(len(ids)) - starts

    def _table(self, hashes: list[Array], places: Array, n: int) -> _Table:
        there = np.flatnonzero(places >= max(1, n - 1))
        grams, first, counts = np.unique(hashes[n - 1][there], return_index=True, return_counts=True)
        first = there[first]
        if n < self._order:
            longer = np.flatnonzero(places >= n)
            _, one = np.unique(hashes[n][longer], return_index=True)
            preceded, kinds = np.unique(hashes[n - 1][longer[one]], return_counts=True)
            counts = np.where(places[first] == n - 1, counts, _found(preceded, grams, kinds))
        contexts, group = np.unique(_before(hashes, n)[first], return_inverse=True)
        ones, twos = max(1, int((counts == 1).sum())), int((counts == 2).sum())
        discount = ones / (ones + 2 * twos)
        return _Table(grams, counts, contexts, np.bincount(group, counts), np.bincount(group), discount)


def _hashes(ids: Array, order: int) -> Iterator[Array]:
    """Of every place the hash of the n-gram that ends there, for n from 1 to the order."""
    made = ids + np.uint64(1)
    for n in range(order):
        if n:
            made = np.concatenate([np.zeros(1, np.uint64), made[:-1]]) * _FACTOR + ids + np.uint64(1)
        yield made


def _before(hashes: list[Array], n: int) -> Array:
    """The hash of the n - 1 ids before every place."""
    if n == 1:
        return np.zeros(len(hashes[0]), np.uint64)
    return np.concatenate([np.zeros(1, np.uint64), hashes[n - 2][:-1]])


def _found(keys: Array, asked: Array, values: Array) -> Array:
    """The values of the keys asked for, 0 for those that are not there."""
    if not len(keys):
        return np.zeros(len(asked), np.int64)
    place = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
    return np.where(keys[place] == asked, values[place], 0)
