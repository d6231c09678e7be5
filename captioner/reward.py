"""How people would vote: an ensemble that predicts a caption's vote percentile among comparable captions.

Comparable are captions of one template and one decile of views. Three members see different sides of a caption: least
squares on runs of pieces (with the template, where it is known), a small network on a bag of pieces, and one on a bag
of words. All learn from differences within a group of comparable captions only. Their disagreement is the spread, so
that a ranking can ask for a lower confidence bound.
"""

import math
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captioner.data.samples import Sample, fingerprint
from captioner.tokenizer import CaptionTokenizer

GAP = 0.5
"""Pairs whose percentiles lie at least this far apart count for the accuracy; closer ones are mostly noise."""

_KEPT = 200_000
"""Features that the linear member keeps, six bytes each."""
_SEEN = 4
_HELD_OUT = 20
"""One in so many training captions is kept aside to weigh the members against each other."""
_DROPPED = 0.25
"""The share of training captions whose template is hidden, so that the words alone learn to do without it."""
_HIDDEN = 0.2
_RIDGE = 10.0
_ITERATIONS = 25
WORDS = 2**14
"""Numbers that words are hashed to."""
_END = 0
SHAPES = 8
"""Numbers that tell a caption's shape."""
_LEARN_GAP = 0.25
_CHUNK, _BATCH, _SHIFTS = 32, 512, 16
_ODD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio: Fibonacci hashing spreads neighbours
_DIGIT, _MARK = re.compile(r"\d"), re.compile(r"[^\w\s]|_")
_WORD = re.compile(r"\w+(?:'\w+)?|[^\w\s]")

_NEEDED = {"templates", "runs.keys", "runs.values", "pieces.embedding.weight", "words.embedding.weight"} | {
    f"{k}.{w}" for k in ("known", "unknown") for w in ("joint", "alone")
}

Captions = Sequence[Sequence[str]]


class Scores(NamedTuple):
    """One number a caption each, in units of the vote percentile; 0 is an average caption."""

    mean: np.ndarray
    spread: np.ndarray
    """The standard deviation between the members, after each alone was fitted to held-out percentiles."""


class Ragged(NamedTuple):
    """Items of many captions one after the other: hashes or ids, and the caption each belongs to, ascending."""

    items: np.ndarray
    rows: np.ndarray
    captions: int


class Reward:
    """The ensemble; `fit` trains one, `from_tensors` restores one. Scores are the same every time."""

    MEMBERS = ("runs", "pieces", "words")

    def __init__(self, tokenizer: CaptionTokenizer, weights: Mapping[str, Tensor]) -> None:
        self._tokenizer = tokenizer
        self._weights = dict(weights)
        self._runs = Runs(self._weights["runs.keys"].numpy().view(np.uint32), self._weights["runs.values"].numpy())
        with torch.device("meta"):  # the weights come from outside, so none are drawn
            self._bags = {kind: Bag(*weights[f"{kind}.embedding.weight"].shape) for kind in ("pieces", "words")}
        for kind, bag in self._bags.items():
            own = {k.removeprefix(f"{kind}."): v for k, v in weights.items() if k.startswith(f"{kind}.")}
            bag.load_state_dict(own, assign=True)
            bag.eval()

    @classmethod
    def fit(cls, samples: Sequence[Sample], tokenizer: CaptionTokenizer, seed: int = 0, epochs: int = 3) -> "Reward":
        """Learns from the samples with votes; two to three minutes of a core for 300,000.

        Raises ValueError where no two captions can be compared.
        """
        if not comparable(samples):
            raise ValueError("There are no captions with votes to compare.")
        known = [s for s in samples if s.percentile is not None and s.exposure is not None]
        groups, percentiles = group_numbers(known), _percentiles(known)
        held = np.array([fingerprint(s.text) % _HELD_OUT == 0 for s in known])
        learn = [s for s, aside in zip(known, held, strict=True) if not aside]
        weights = _members(
            learn, _Lesson(percentiles[~held], groups[~held], epochs), tokenizer, np.random.default_rng(seed)
        )
        blank = torch.ones(len(cls.MEMBERS)) / len(cls.MEMBERS)
        even = {f"{k}.{w}": blank.clone() for k in ("known", "unknown") for w in ("joint", "alone")}
        reward = cls(tokenizer, weights | even)
        reward._weigh([s for s, aside in zip(known, held, strict=True) if aside], groups[held], percentiles[held])
        return reward

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], tokenizer: CaptionTokenizer) -> "Reward":
        """The inverse of `tensors`. Raises KeyError or RuntimeError where they are not a reward's."""
        weights = {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}
        if missing := _NEEDED - weights.keys():
            raise KeyError(f"the reward lacks {', '.join(sorted(missing))}")
        return cls(tokenizer, weights)

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint stores, as it is: under 3 MB; half precision, but for a few numbers and the keys."""
        halved = ("runs.values", "pieces.", "words.")
        return {k: (v.half() if k.startswith(halved) else v).contiguous() for k, v in self._weights.items()}

    def score(self, captions: Captions, template: str | None = None) -> Scores:
        """Predicted votes of captions, each a sequence of normalised boxes.

        A template that was not among the training captions counts as none.
        """
        return self._scores(captions, [template] * len(captions))

    def accuracy(self, samples: Iterable[Sample], told: bool = True) -> float | None:
        """The share of comparable pairs that are ranked right; see `pair_accuracy`.

        `told` says whether the templates are known.
        """
        known = [s for s in samples if s.percentile is not None and s.exposure is not None]
        scores = self._scores([s.boxes for s in known], [s.template if told else None for s in known])
        return pair_accuracy(scores.mean, group_numbers(known), _percentiles(known))

    def members(self, captions: Captions, templates: Sequence[str | None]) -> np.ndarray:
        """Raw scores (N, members), each in a unit of its own; `templates` has one entry a caption."""
        marks = self._marks(templates)
        pieces, shape = self._tokenizer.encode_batch(captions), shapes(captions)
        found = [self._runs(grams(_ragged(pieces), marks))]
        with torch.inference_mode():
            for kind, sequence in (("pieces", _ended(pieces, self._tokenizer)), ("words", words(captions))):
                found.append(self._bags[kind](*_boxes(sequence), shape).numpy().astype(np.float64))
        return np.stack(found, 1)

    def _scores(self, captions: Captions, templates: Sequence[str | None]) -> Scores:
        raw = self.members(captions, templates)
        told = (self._marks(templates) > 0)[:, None]
        joint = np.where(told, self._weights["known.joint"], self._weights["unknown.joint"])
        alone = np.where(told, self._weights["known.alone"], self._weights["unknown.alone"])
        return Scores((raw * joint).sum(1), (raw * alone).std(1))

    def _marks(self, templates: Sequence[str | None]) -> np.ndarray:
        marks = {t: mark(t) for t in set(templates)}
        return np.array([m if (m := marks[t]) in self._known else 0 for t in templates], np.uint64)

    @cached_property
    def _known(self) -> frozenset[int]:
        return frozenset(self._weights["templates"].tolist())

    def _weigh(self, held: Sequence[Sample], groups: np.ndarray, percentiles: np.ndarray) -> None:
        """Fits the members' weights to held-out percentiles, together and alone, with the template and without."""
        if not pairs(groups, percentiles):
            return
        target = _centred(percentiles, groups)
        for key, told in (("known", True), ("unknown", False)):
            raw = self.members([s.boxes for s in held], [s.template if told else None for s in held])
            raw = np.stack([_centred(column, groups) for column in raw.T], 1)
            joint = np.linalg.lstsq(raw, target)[0]
            alone = raw.T @ target / np.maximum((raw**2).sum(0), 1e-9)
            # A member may count for nothing, never against its own word.
            self._weights[f"{key}.joint"] = torch.from_numpy(joint.clip(0)).float()
            self._weights[f"{key}.alone"] = torch.from_numpy(alone.clip(0)).float()


class Bag(nn.Module):
    """A caption's shape and mean embeddings of its items, all, the first box's and the others', through one layer."""

    def __init__(self, vocabulary: int, width: int = 48, units: int = 64, dropout: float = 0.3) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        nn.init.normal_(self.embedding.weight, 0, 0.1)
        self.drop = nn.Dropout(dropout)
        self.hidden = nn.Linear(3 * width + SHAPES, units)
        self.out = nn.Linear(units, 1)

    def forward(self, first: Ragged, rest: Ragged, shape: Tensor) -> Tensor:
        one, n = self._sum(first)
        two, m = self._sum(rest)
        means = [(one + two) / (n + m).clamp(1), one / n.clamp(1), two / m.clamp(1)]
        x = torch.cat([self.drop(4 * torch.cat(means, 1)), shape], 1)  # (N, 3 E + shapes)
        return self.out(self.drop(F.relu(self.hidden(x)))).squeeze(1)  # type: ignore[no-any-return]  # (N,)

    def _sum(self, bag: Ragged) -> tuple[Tensor, Tensor]:
        """Sums of embeddings (N, E) and counts (N, 1)."""
        counts = np.bincount(bag.rows, minlength=bag.captions)
        starts = torch.from_numpy(np.cumsum(counts) - counts)
        items = torch.from_numpy(bag.items.astype(np.int64))
        return F.embedding_bag(items, self.embedding.weight, starts, mode="sum"), torch.from_numpy(counts)[:, None]


def words(captions: Captions) -> Ragged:
    """Words and punctuation marks by number, 1 to WORDS - 1; unlike ones may share a number. 0 ends a box."""
    found = (([zlib.crc32(w.encode()) % (WORDS - 1) + 1 for w in _WORD.findall(b)] for b in c) for c in captions)
    return _ragged([[i for box in boxes for i in (*box, _END)] for boxes in found])


def _ended(pieces: Sequence[Sequence[int]], tokenizer: CaptionTokenizer) -> Ragged:
    """Pieces with the end of a box as 0."""
    found = _ragged(pieces)
    ends = (found.items == tokenizer.sep) | (found.items == tokenizer.eos)
    return found._replace(items=np.where(ends, _END, found.items))


def grams(sequence: Ragged, marks: np.ndarray | None = None, orders: Sequence[int] = (1, 2, 3)) -> Ragged:
    """Hashed n-grams; and every single item joined with its caption's template, where its mark is not 0."""
    items, rows = sequence.items.astype(np.uint64), sequence.rows
    parts = []
    for n in orders:
        last = len(items) - n + 1
        inside = np.flatnonzero(rows[n - 1 :] == rows[: max(last, 0)])
        parts.append((_hash(n, *(items[inside + k] for k in range(n))), rows[inside]))
    if marks is not None:
        told = np.flatnonzero(marks[rows])
        parts.append((_hash(0, items[told], marks[rows[told]]), rows[told]))
    return Ragged(np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts]), sequence.captions)


class Runs(NamedTuple):
    """A linear score of hashed features: 32-bit keys in ascending order, and what each is worth."""

    keys: np.ndarray
    values: np.ndarray

    def __call__(self, x: Ragged) -> np.ndarray:
        """The score of every caption; features without a weight count for nothing."""
        kept = self._numbered(x)
        return np.asarray(scale(kept) * np.bincount(kept.rows, self.values[kept.items], x.captions))

    @classmethod
    def fit(cls, x: Ragged, target: np.ndarray, groups: np.ndarray, size: int) -> "Runs":
        """Learns from features seen a few times, keeps the `size` that matter most, and learns again from those."""
        keys, counts = np.unique(_keys(x.items), return_counts=True)
        often = cls(keys[counts >= _SEEN], np.zeros(0))
        counts = counts[counts >= _SEEN]
        matter = np.abs(often._fitted(x, target, groups).values) * np.sqrt(counts)  # (features,)
        best = np.sort(np.argsort(-matter, kind="stable")[:size])
        return cls(often.keys[best], often.values)._fitted(x, target, groups)

    def _fitted(self, x: Ragged, target: np.ndarray, groups: np.ndarray) -> "Runs":
        numbered = self._numbered(x)
        values = least_squares(numbered, scale(numbered), target, groups)
        return Runs(self.keys, np.pad(values, (0, len(self.keys) - len(values))))

    def _numbered(self, x: Ragged) -> Ragged:
        """The features that have a key, by the key's place."""
        if not len(self.keys):
            return Ragged(np.zeros(0, np.int64), np.zeros(0, np.int64), x.captions)
        keys = _keys(x.items)
        places = np.searchsorted(self.keys, keys).clip(max=len(self.keys) - 1)
        hit = self.keys[places] == keys
        return Ragged(places[hit], x.rows[hit], x.captions)


def least_squares(x: Ragged, value: np.ndarray, target: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Weights of numbered features that predict differences of the target within groups.

    Ridge regression by conjugate gradients; `value` is that of a caption's features, one a caption. Least squares
    over all pairs of a group equals least squares over the deviations from its mean, and needs no pairs.
    """
    size = int(x.items.max(initial=-1)) + 1

    def forward(weights: np.ndarray) -> np.ndarray:
        return _centred(value * np.bincount(x.rows, weights[x.items], x.captions), groups)

    def back(errors: np.ndarray) -> np.ndarray:
        return np.bincount(x.items, (value * errors)[x.rows], size)

    weights = np.zeros(size)
    residual = back(_centred(target, groups))
    direction, length = residual.copy(), residual @ residual
    for _ in range(_ITERATIONS):
        image = back(forward(direction)) + _RIDGE * direction
        step = length / max(direction @ image, 1e-12)
        weights += step * direction
        residual -= step * image
        length, before = residual @ residual, length
        direction = residual + length / max(before, 1e-12) * direction
    return weights


def shapes(captions: Captions) -> Tensor:
    """Length, boxes, digits, punctuation and balance (N, SHAPES), each within about ±3."""
    return torch.tensor([_shape(boxes) for boxes in captions]).reshape(-1, SHAPES).clamp(-3, 3)


def _shape(boxes: Sequence[str]) -> list[float]:
    text = " ".join(boxes)
    size = max(1, len(text))
    return [
        math.log1p(size) / 5,
        len(boxes) / 3,
        float(len(boxes) == 1),
        math.log1p(text.count(" ")) / 4,
        len(_DIGIT.findall(text)) / size * 5,
        len(_MARK.findall(text)) / size * 5,
        float(text.endswith(("!", "?", "."))),
        abs(len(boxes[0]) - len(boxes[-1])) / 50 if boxes else 0.0,
    ]


def pair_accuracy(scores: np.ndarray, groups: np.ndarray, percentiles: np.ndarray) -> float | None:
    """Of all pairs of one group with percentiles at least GAP apart, the share that the scores order the same way.

    Equal scores count half; None where there is no pair.
    """
    right, total = 0.0, 0
    for members in _split(groups):
        s, q = scores[members], percentiles[members]
        better = q[:, None] - q[None, :] >= GAP
        ahead = (s[:, None] - s[None, :])[better]
        right += float((ahead > 0).sum() + (ahead == 0).sum() / 2)
        total += len(ahead)
    return right / total if total else None


def comparable(samples: Sequence[Sample]) -> bool:
    """Whether there are votes to learn from: two captions of one group that lie GAP apart."""
    known = [s for s in samples if s.percentile is not None and s.exposure is not None]
    return bool(known) and pairs(group_numbers(known), _percentiles(known))


def pairs(groups: np.ndarray, percentiles: np.ndarray) -> bool:
    """Whether any two of a group lie GAP apart."""
    return any(np.ptp(percentiles[members]) >= GAP for members in _split(groups))


def mark(template: str | None) -> int:
    """24 bits of a template's name, exact even as a float; 0 for none."""
    return 0 if template is None else zlib.crc32(template.encode()) % (2**24 - 1) + 1


class _Lesson(NamedTuple):
    """What the members learn from: percentiles, compared within groups."""

    percentiles: np.ndarray
    groups: np.ndarray
    epochs: int


def _members(
    samples: Sequence[Sample], lesson: _Lesson, tokenizer: CaptionTokenizer, rng: np.random.Generator
) -> dict[str, Tensor]:
    """The weights of all members, rounded to what a checkpoint keeps."""
    captions = [s.boxes for s in samples]
    marks = np.array([mark(s.template) for s in samples], np.uint64)
    hidden = np.where(rng.random(len(samples)) < _DROPPED, np.uint64(0), marks)
    pieces, shape = tokenizer.encode_batch(captions), shapes(captions)
    runs = Runs.fit(grams(_ragged(pieces), hidden), lesson.percentiles, lesson.groups, _KEPT)
    found = {"runs.keys": torch.from_numpy(runs.keys.view(np.int32)), "runs.values": torch.from_numpy(runs.values)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**31)))
        for kind, sequence, bag in (
            ("pieces", _ended(pieces, tokenizer), Bag(len(tokenizer), 48)),
            ("words", words(captions), Bag(WORDS, 24)),
        ):
            _fit_bag(bag, sequence, shape, lesson, rng)
            found |= {f"{kind}.{k}": v for k, v in bag.state_dict().items()}
    found["templates"] = torch.tensor(sorted({int(m) for m in marks} - {0}), dtype=torch.int32)
    return {k: v.half().float() if v.is_floating_point() else v for k, v in found.items()}


def _fit_bag(bag: Bag, sequence: Ragged, shape: Tensor, lesson: _Lesson, rng: np.random.Generator) -> None:
    """Pairwise logistic loss (Burges et al. 2005, RankNet) between neighbours in shuffled groups."""
    steps = math.ceil(sequence.captions / _BATCH) * lesson.epochs
    optimiser = torch.optim.AdamW(bag.parameters(), 3e-3, weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, 3e-3, total_steps=max(steps, 2), pct_start=0.1, cycle_momentum=False
    )
    starts = np.searchsorted(sequence.rows, np.arange(sequence.captions + 1))
    for batch in (b for _ in range(lesson.epochs) for b in _batches(lesson.groups, rng)):
        scores = bag(*_boxes(_taken(sequence, starts, batch), rng), shape[torch.from_numpy(batch)])
        loss = _pair_loss(scores, lesson.percentiles[batch], lesson.groups[batch])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(bag.parameters(), 1.0)
        optimiser.step()
        schedule.step()


def _taken(sequence: Ragged, starts: np.ndarray, batch: np.ndarray) -> Ragged:
    """The captions of a batch; `starts` is where each begins."""
    lengths = starts[batch + 1] - starts[batch]
    rows = np.repeat(np.arange(len(batch)), lengths)
    places = np.arange(len(rows)) + (starts[batch] - (np.cumsum(lengths) - lengths))[rows]
    return Ragged(sequence.items[places], rows, len(batch))


def _pair_loss(scores: Tensor, percentiles: np.ndarray, groups: np.ndarray) -> Tensor:
    """Every caption against the next ones of its group; near ties are left out."""
    loss, total = scores.sum() * 0, 0
    for shift in range(1, min(_SHIFTS + 1, len(groups))):
        gap = percentiles[shift:] - percentiles[:-shift]
        use = (groups[shift:] == groups[:-shift]) & (np.abs(gap) >= _LEARN_GAP)
        sign = torch.from_numpy(np.sign(gap[use])).float()
        loss = loss + F.softplus(-sign * (scores[shift:] - scores[:-shift])[torch.from_numpy(use)]).sum()
        total += int(use.sum())
    return loss / max(1, total)


def _batches(groups: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """All captions once: shuffled, in chunks of one group or few, the chunks shuffled into batches."""
    order = rng.permutation(len(groups))
    order = order[np.argsort(groups[order], kind="stable")]
    chunks = [order[i : i + _CHUNK] for i in range(0, len(order), _CHUNK)]
    order = np.concatenate([chunks[i] for i in rng.permutation(len(chunks))])
    return [order[i : i + _BATCH] for i in range(0, len(order), _BATCH)]


def _boxes(whole: Ragged, rng: np.random.Generator | None = None) -> tuple[Ragged, Ragged]:
    """The items of the first box, and the others; with `rng` a fifth is left out, against learning by heart."""
    ended = np.cumsum(whole.items == _END) - (whole.items == _END)
    starts = np.searchsorted(whole.rows, np.arange(whole.captions))
    before = ended[starts.clip(max=max(0, len(ended) - 1))] if len(ended) else starts
    rest = ended > before[whole.rows]
    keep = rng.random(len(rest)) >= _HIDDEN if rng else np.ones(len(rest), bool)
    first, other = keep & ~rest, keep & rest
    return Ragged(whole.items[first], whole.rows[first], whole.captions), Ragged(
        whole.items[other], whole.rows[other], whole.captions
    )


def _ragged(rows: Sequence[Sequence[int]]) -> Ragged:
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    items = np.fromiter((i for row in rows for i in row), np.int64, int(lengths.sum()))
    return Ragged(items, np.repeat(np.arange(len(rows)), lengths), len(rows))


def _hash(salt: int, *columns: np.ndarray) -> np.ndarray:
    """64 bits of every row of the columns."""
    state = np.full(len(columns[0]), salt + 1, np.uint64)
    for column in columns:
        state = (state ^ column) * _ODD
        state ^= state >> np.uint64(29)
    return state


def _keys(hashes: np.ndarray) -> np.ndarray:
    return (hashes >> np.uint64(32)).astype(np.uint32)


def scale(x: Ragged) -> np.ndarray:
    """One over the root of the number of features: long captions are not extreme for being long."""
    return np.asarray(np.maximum(np.bincount(x.rows, minlength=x.captions), 1) ** -0.5)


def _centred(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    sums, counts = np.bincount(groups, values), np.bincount(groups)
    return np.asarray(values - (sums / np.maximum(counts, 1))[groups])


def _split(groups: np.ndarray) -> list[np.ndarray]:
    """The places of every group's members."""
    order = np.argsort(groups, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(groups[order])) + 1) if len(order) else []


def group_numbers(samples: Sequence[Sample]) -> np.ndarray:
    """A number for every template and decile of views."""
    numbers: dict[tuple[str | None, int | None], int] = {}
    return np.array([numbers.setdefault((s.template, s.exposure), len(numbers)) for s in samples], np.int64)


def _percentiles(samples: Sequence[Sample]) -> np.ndarray:
    return np.array([s.percentile for s in samples], np.float64)
