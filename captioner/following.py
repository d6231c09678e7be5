"""What counts say may follow a text, for all rows of a search at once.

Every order's contexts lie in one sorted table, so that a step asks once, however many orders there are.

Shapes: A rows, L ids of their histories, C contexts of all orders, M their followers, O orders from bigrams on.
"""

from typing import NamedTuple

import numpy as np

from captioner.ngrams import ORDER, Array, Followers, NGrams, features, hash_, places, short

_MOST = 200
"""Followers of a context that are looked at."""


class Continuations(NamedTuple):
    """p(word) = share · p_unigram(word), and `values` added at (`rows`, `columns`), for A histories."""

    share: Array  # (A,)
    rows: Array  # (M,)
    columns: Array  # (M,)
    values: Array  # (M,)
    features: Array  # (A, F)


class Following:
    """The likeliest followers of every context, as columns of what a search may write."""

    def __init__(self, ngrams: NGrams, column: Array) -> None:
        """`column` (V,) is every id's place among those that may be written, -1 for one that may not."""
        tables = [_likeliest(table, column) for table in ngrams.longer]
        self.rest = ngrams.rest
        self._keys = np.concatenate([_keys(t.contexts, n) for n, t in enumerate(ngrams.longer, 2)])  # (C,)
        self._rests = np.concatenate([t.rest for t in ngrams.longer])
        self._sizes = np.concatenate([sizes for sizes, _, _ in tables])
        self._starts = np.cumsum(self._sizes) - self._sizes
        self._columns = np.concatenate([columns for _, columns, _ in tables])
        self._values = np.concatenate([values for _, _, values in tables])

    def after(self, history: Array) -> Continuations:
        """What follows histories (A, L) of ids, the start included.

        What a context leaves to shorter ones is the same whether all its followers are looked at or not.
        """
        rows = len(history)
        orders = np.arange(2, 2 + min(ORDER - 1, history.shape[1]))
        hashes = np.zeros((len(orders), rows), np.uint64)
        for back in range(len(orders), 0, -1):  # the context of order n is n - 1 ids long
            hash_(hashes[back - 1 :], history[:, -back].astype(np.uint64))
        at, known = places(self._keys, _keys(short(hashes), orders[:, None]))  # (O, A)
        rest = np.where(known, self._rests[at], np.float32(1))
        left = np.ones((len(orders) + 1, rows), np.float32)  # by all orders from n on
        np.cumprod(rest[::-1], 0, out=left[-2::-1])
        order = np.where(known, orders[:, None], 1).max(0)
        last = np.where(order > 1, rest[order - 2, np.arange(rows)], self.rest)
        of, owners = known.nonzero()
        context = at[of, owners]
        sizes = self._sizes[context]
        ends = np.cumsum(sizes)
        where = np.arange(ends[-1] if len(ends) else 0) + np.repeat(self._starts[context] - ends + sizes, sizes)
        values = self._values[where] * np.repeat(left[of + 1, owners], sizes)
        return Continuations(left[0], np.repeat(owners, sizes), self._columns[where], values, features(order, last))


def _keys(contexts: Array, order: int | Array) -> Array:
    """Hashes of contexts told apart by their order: sorted within an order, they are so across orders."""
    return contexts.astype(np.uint64) | (np.asarray(order).astype(np.uint64) << np.uint64(32))


def _likeliest(table: Followers, column: Array) -> tuple[Array, Array, Array]:
    """How many of each context's followers are looked at (C,), and their columns and probabilities, end to end."""
    sizes = np.diff(table.offsets)
    owner = np.repeat(np.arange(len(sizes)), sizes)
    order = np.lexsort((-table.values, owner))
    rank = np.arange(len(order)) - np.repeat(table.offsets[:-1], sizes)
    keep = np.zeros(len(order), bool)
    keep[order[rank < _MOST]] = True
    keep &= column[table.ids] >= 0
    return np.bincount(owner[keep], minlength=len(sizes)), column[table.ids[keep]], table.values[keep]
