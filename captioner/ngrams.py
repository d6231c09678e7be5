"""An n-gram model of captions: interpolated modified Kneser-Ney (Chen and Goodman 1999), in arrays.

A small network that has read a few million words knows pictures better than phrases; counts know phrases after one
reading. `captioner.mixture` lets them write together.

Deviations: n-grams seen less than `LEAST` times are dropped and their share goes to the shorter contexts; what is kept
is stored in 8 bits a probability, and contexts as 32-bit hashes.

Shapes: N places of a text, A rows asked for, V vocabulary; contexts are at most `ORDER - 1` ids long.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

ORDER = 5
LEAST = (1, 1, 2, 2, 2)
"""The least count of an n-gram that is kept, by order."""
_MIX = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(29)
_STEPS = 22.0
"""Steps of a stored probability to the factor e: 255 of them reach down to one in 100,000."""

Array = np.ndarray


@dataclass(frozen=True)
class Evidence:
    """What the counts say about given tokens, all (N,): their probability, the order of the longest context that was
    known, and the share that this context leaves to shorter ones."""

    probability: Array
    order: Array
    rest: Array

    def __getitem__(self, places: slice) -> "Evidence":
        return Evidence(self.probability[places], self.order[places], self.rest[places])

    def features(self) -> Array:
        """(N, ORDER + 1) for a gate: the order as one of `ORDER`, and the rest."""
        return features(self.order, self.rest)


def features(order: Array, rest: Array) -> Array:
    made = np.zeros((len(order), ORDER + 1), np.float32)
    made[np.arange(len(order)), np.maximum(order, 1) - 1] = 1
    made[:, ORDER] = rest
    return made


@dataclass(frozen=True)
class _Text:
    """Captions end to end, each led by the id that starts a text; `place` counts from there."""

    ids: Array
    place: Array

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]], start: int) -> "_Text":
        lengths = np.array([len(row) + 1 for row in rows])
        ids = np.concatenate([np.array([start, *row], np.uint64) for row in rows])
        begins = np.repeat(np.cumsum(lengths) - lengths, lengths)
        return cls(ids, np.arange(len(ids)) - begins)

    def hashes(self, n: int) -> Array:
        """64 bits (N,) of the n ids that end at each place; not meant where fewer lead there."""
        size = len(self.ids)
        columns = [np.concatenate([np.zeros(b, np.uint64), self.ids])[:size] for b in range(n - 1, -1, -1)]
        return _hashed(columns, size)

    def contexts(self, n: int) -> Array:
        """Hashes (N,) of the n - 1 ids before each place."""
        return np.concatenate([np.zeros(1, np.uint64), self.hashes(n - 1)[:-1]])

    def has(self, n: int) -> Array:
        """Where an n-gram ends (N,)."""
        return self.place >= max(n - 1, 1)


def _hashed(columns: Sequence[Array], size: int) -> Array:
    made = np.zeros(size, np.uint64)
    for column in columns:
        hash_(made, column)
    return made


def hash_(made: Array, column: Array) -> None:
    """Adds one id more to hashes, in place."""
    made += column + np.uint64(1)
    made *= _MIX
    made ^= made >> _SHIFT


@dataclass(frozen=True)
class _Counts:
    """One order's (adjusted) counts; all sorted by key."""

    least: int
    discounts: Array  # (4,) by count, the last for 3 and more
    keys: Array  # of n-grams
    counts: Array
    last: Array  # id that ends each n-gram
    context_of: Array  # index of each n-gram's context
    contexts: Array
    totals: Array  # of each context
    kept: Array  # discounted counts of what is kept, of each context

    def discounted(self, counts: Array) -> Array:
        left = np.where(counts >= max(self.least, 1), counts - self.discounts[np.minimum(counts, 3)], 0.0)
        return np.asarray(left, np.float64)


class KneserNey:
    """Counts of training captions: what `NGrams` is made from, and what captions look like to all the others."""

    def __init__(self, rows: Sequence[Sequence[int]], start: int, vocabulary: int) -> None:
        """`rows`: ids of captions, ends included; `start` stands before every one. Raises ValueError for none."""
        if not rows:
            raise ValueError("There are no captions to count.")
        self.start, self.vocabulary = start, vocabulary
        text = _Text.of(rows, start)
        self.orders: list[_Counts] = []
        chosen = longer = np.flatnonzero(text.has(ORDER))
        for n in range(ORDER, 0, -1):
            if n < ORDER:  # every distinct longer n-gram counts once; what begins a text has no longer one
                begins = np.flatnonzero(text.place == n - 1) if n > 1 else chosen[:0]
                chosen = np.concatenate([longer, begins])
            keys, first, counts = np.unique(text.hashes(n)[chosen], return_index=True, return_counts=True)
            longer = chosen[first]
            self.orders.insert(0, _counted(text, n, keys, counts, longer))

    def evidence(self, rows: Sequence[Sequence[int]], *, seen: bool = False) -> Evidence:
        """What the counts say about every id of these captions.

        For captions that were `seen` in estimation, each id as if it had not been counted (leave one out), so that
        what is learnt from it holds for unseen captions.
        """
        text = _Text.of(rows, self.start)
        found = [_found(counts, text, n) for n, counts in enumerate(self.orders, 1)]
        own = _own(text, [counts for counts, _, _ in found]) if seen else [np.zeros(len(text.ids), np.int64)] * ORDER
        probability = np.full(len(text.ids), 1 / self.vocabulary)
        order, rest = np.zeros(len(text.ids), np.int64), np.ones(len(text.ids))
        for n, (table, (counts, totals, kept), mine) in enumerate(zip(self.orders, found, own, strict=True), 1):
            left, remaining = table.discounted(counts - mine), totals - mine
            kept = kept - table.discounted(counts) + left
            use = (remaining > 0) & (kept > 1e-9)
            share = 1 - kept / np.maximum(remaining, 1)
            probability = np.where(use, left / np.maximum(remaining, 1) + share * probability, probability)
            order, rest = np.where(use, n, order), np.where(use, share, rest)
        asked = text.place >= 1
        return Evidence(probability[asked], order[asked], rest[asked])


def _own(text: _Text, counts: Sequence[Array]) -> list[Array]:
    """How much of each order's counts (N,) a place adds itself, 0 or 1, in a text that was counted.

    Of the longest n-grams every one counts. Of the others a distinct longer one counts once, so a place adds to them
    where it was the only one of the longer n-gram and added to that; and where they begin a text.
    """
    own: list[Array] = []
    for n in range(ORDER, 0, -1):
        if n == ORDER:
            adds = text.has(n)
        else:
            begins = (text.place == n - 1) & (n > 1)
            adds = begins | ((own[0] == 1) & (counts[n] == 1))  # counts[n] are those of order n + 1
        own.insert(0, (adds & (counts[n - 1] > 0)).astype(np.int64))
    return own


def _counted(text: _Text, n: int, keys: Array, counts: Array, where: Array) -> _Counts:
    ones, twos, threes, fours = (max(1, int((counts == k).sum())) for k in (1, 2, 3, 4))
    y = ones / (ones + 2 * twos)
    discounts = np.array([0, 1 - 2 * y * twos / ones, 2 - 3 * y * threes / twos, 3 - 4 * y * fours / threes])
    discounts = discounts.clip(0, [0, 0.99, 1.99, 2.99])  # tiny texts give wild ones
    contexts, context_of = np.unique(text.contexts(n)[where] if n > 1 else keys * np.uint64(0), return_inverse=True)
    made = _Counts(LEAST[n - 1], discounts, keys, counts, text.ids[where], context_of, contexts,
                   np.bincount(context_of, counts).astype(np.int64), np.zeros(0))  # fmt: skip
    kept = np.bincount(context_of, made.discounted(counts), len(contexts))
    return _Counts(**(vars(made) | {"kept": kept}))


def _found(table: _Counts, text: _Text, n: int) -> tuple[Array, Array, Array]:
    """The count of the n-gram that ends at each place, its context's total and what of it is kept, all (N,)."""
    if not len(table.keys):
        none = np.zeros(len(text.ids), np.int64)
        return none, none, none.astype(np.float64)
    at, known = places(table.keys, text.hashes(n))
    context = text.contexts(n) if n > 1 else np.zeros(len(text.ids), np.uint64)
    place, met = places(table.contexts, context)
    met &= text.has(n)
    return (
        np.where(known & met, table.counts[at], 0),
        np.where(met, table.totals[place], 0),
        np.where(met, table.kept[place], 0.0),
    )


def places(keys: Array, asked: Array) -> tuple[Array, Array]:
    """Where each asked key lies among sorted ones, and whether it does."""
    if not len(keys):
        return np.zeros(len(asked), np.int64), np.zeros(len(asked), bool)
    places = np.searchsorted(keys, asked)
    places[places == len(keys)] = 0
    return places, keys[places] == asked


@dataclass(frozen=True)
class Followers:
    """What may follow the contexts of one order: context i has `ids[offsets[i] : offsets[i + 1]]`, sorted."""

    contexts: Array  # (C,) 32-bit hashes, sorted
    offsets: Array  # (C + 1,)
    ids: Array  # (M,)
    codes: Array  # (M,) probabilities as bytes
    values: Array  # (M,) and as numbers
    rest: Array  # (C,) what a context leaves to the shorter one
    pairs: Array  # (M,) place of the context and id in one number, sorted

    @classmethod
    def of(cls, contexts: Array, sizes: Array, ids: Array, codes: Array, vocabulary: int) -> "Followers":
        offsets = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        owner = np.repeat(np.arange(len(contexts)), sizes)
        values = _decoded(codes)
        rest = (1 - np.bincount(owner, values, len(contexts))).astype(np.float32)
        ids = ids.astype(np.int64)
        return cls(contexts, offsets, ids, codes, values, rest, owner * vocabulary + ids)


class NGrams:
    """Probabilities of what follows a text: a `KneserNey` made small, as it is stored with a model."""

    def __init__(self, start: int, unigrams: Array, longer: Sequence[Followers]) -> None:
        """`unigrams` (V,) are codes; `longer` begins with bigrams."""
        self.start, self.vocabulary, self.codes, self.longer = start, len(unigrams), unigrams, list(longer)
        values = _decoded(unigrams)
        self.rest = np.float32(1 - values.sum(dtype=np.float64))
        self.unigrams = values + self.rest / np.float32(self.vocabulary)

    @classmethod
    def of(cls, counts: KneserNey) -> "NGrams":
        unigrams = np.zeros(counts.vocabulary, np.uint8)
        table = counts.orders[0]
        unigrams[table.last.astype(np.int64)] = _coded(table.discounted(table.counts) / table.totals[0])
        return cls(counts.start, unigrams, [_followers(t, counts.vocabulary) for t in counts.orders[1:]])

    def tensors(self) -> dict[str, Tensor]:
        """For a checkpoint; `from_tensors` is the way back."""
        narrow = np.int16 if self.vocabulary <= np.iinfo(np.int16).max else np.int32
        made = {"start": torch.tensor([self.start]), "1.codes": torch.from_numpy(self.codes)}
        for n, table in enumerate(self.longer, 2):
            made[f"{n}.contexts"] = torch.from_numpy(table.contexts.view(np.int32))
            made[f"{n}.sizes"] = torch.from_numpy(np.diff(table.offsets).astype(narrow))
            made[f"{n}.ids"] = torch.from_numpy(table.ids.astype(narrow))
            made[f"{n}.codes"] = torch.from_numpy(table.codes)
        return made

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> "NGrams":
        """Raises KeyError for tensors that lack something."""
        unigrams = tensors["1.codes"].numpy()
        longer = []
        for n in range(2, ORDER + 1):
            contexts, sizes, ids, codes = (tensors[f"{n}.{k}"].numpy() for k in ("contexts", "sizes", "ids", "codes"))
            longer.append(Followers.of(contexts.view(np.uint32), sizes, ids, codes, len(unigrams)))
        return cls(int(tensors["start"]), unigrams, longer)

    def knows(self, ids: Sequence[int]) -> bool:
        """Whether two ids or more were counted in a row; of a longer row than `ORDER`, every part of that length.

        Shorter rows are counted by what they follow: one that ever stood after one id only may not be known.
        """
        size = min(len(ids), ORDER)
        table = self.longer[size - 2]
        return all(
            _follows(table, ids[end - size : end - 1], ids[end - 1], self.vocabulary)
            for end in range(size, len(ids) + 1)
        )

    def evidence(self, rows: Sequence[Sequence[int]]) -> Evidence:
        """What the counts say about every id of captions (ends included, starts not) that they have not seen."""
        text = _Text.of(rows, self.start)
        probability = self.unigrams[text.ids.astype(np.int64)]
        order, rest = np.ones(len(text.ids), np.int64), np.full(len(text.ids), self.rest)
        for n, table in enumerate(self.longer, 2):
            at, met = places(table.contexts, short(text.contexts(n)))
            met &= text.has(n)
            if not len(table.pairs):
                continue
            place, known = places(table.pairs, at * self.vocabulary + text.ids.astype(np.int64))
            value = np.where(known, table.values[place], 0)
            probability = np.where(met, value + table.rest[at] * probability, probability)
            order, rest = np.where(met, n, order), np.where(met, table.rest[at], rest)
        asked = text.place >= 1
        return Evidence(probability[asked], order[asked], rest[asked])


def _follows(table: Followers, context: Sequence[int], last: int, vocabulary: int) -> bool:
    made = np.zeros(1, np.uint64)
    for i in context:
        hash_(made, np.array([i], np.uint64))
    at, known = places(table.contexts, short(made))
    return bool(known[0]) and bool(places(table.pairs, at * vocabulary + last)[1][0])


def _followers(table: _Counts, vocabulary: int) -> Followers:
    value = table.discounted(table.counts) / table.totals[table.context_of]
    codes = _coded(value)
    keep = codes > 0
    owner, ids, codes = table.context_of[keep], table.last[keep].astype(np.int64), codes[keep]
    hashes = short(table.contexts)[owner]  # sorted like the contexts: what is cut off are the low bits
    order = np.lexsort((ids, hashes))
    owner, ids, codes, hashes = owner[order], ids[order], codes[order], hashes[order]
    # Of two contexts that share a hash, the first stays.
    contexts, first = np.unique(hashes, return_index=True)
    alone = owner == np.repeat(owner[first], np.diff([*first, len(hashes)]))
    contexts, sizes = np.unique(hashes[alone], return_counts=True)
    return Followers.of(contexts, sizes, ids[alone], codes[alone], vocabulary)


def short(hashes: Array) -> Array:
    """The 32 bits of a hash that are stored."""
    return (hashes >> np.uint64(32)).astype(np.uint32)


def _coded(values: Array) -> Array:
    """Probabilities as bytes, rounded down so that a context never gives away more than all; 0 for next to none."""
    with np.errstate(divide="ignore"):
        codes: Array = np.floor(np.log(values) * _STEPS + 256).clip(0, 255).astype(np.uint8)
    return codes


def _decoded(codes: Array) -> Array:
    made: Array = np.where(codes > 0, np.exp((codes.astype(np.float32) - 256) / _STEPS), 0).astype(np.float32)
    return made
