"""Top-k beam sampling and its siblings: one loop over a [lanes × beams] tensor.

A lane is one search on one picture; a picture's description and its memes are searched for together.

*sample* draws a picture's beams without replacement from the model (stochastic beam search: Kool, van Hoof and Welling
2019): distinct exact samples for the cost of a beam search. *beam* keeps the likeliest, *greedy* is a beam of one.

A step takes every beam that is still writing from the decoder's logits to its likeliest children, and every lane from
those to its next beams:

    logits → exp → weights + counts → × favoured, × leant to → × rules → largest N → normalised → tempered
           → perturbed (Gumbel noise, sampling only) → best K of a lane's K · N children

Weights are probabilities that do not sum to 1 yet. Up to the rules all happens in place and to them, not to logits,
since what counts say is added to probabilities (captioner.mixture), and a factor of 0 forbids.

Shapes: B pictures, L lanes, K beams, M = L·K rows, A of them still writing, N kept children of a row, C ids that may be
written, T steps.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import groupby
from typing import Any, Literal, NamedTuple, Self, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from captioner.decoders import Decoder, Run
from captioner.mixture import Mixture
from captioner.tokenizer import CaptionTokenizer

Number = TypeVar("Number", float, Tensor)
Method = Literal["sample", "beam", "greedy"]
_NEVER = -1e9
_KEEP = 80
"""Children of a beam that are considered at all (top-k)."""
_TAKEN_UP = 0.1
"""What the weight of a favoured word is multiplied by once it was written: most captions that say it again have nothing
else to say."""

_CONTINUED = 0.05
"""What the weight of a piece is multiplied by that would make another word of the favoured one before: a rockstar is no
rock."""


@dataclass(frozen=True)
class Search:
    """How to search for one caption's hypotheses."""

    method: Method = "sample"
    width: int = 4
    """Beams, and so hypotheses; greedy has one."""
    steps: int = 40
    temperature: float = 0.75
    length_power: float = 0.7
    """log-probabilities are ranked over ((5 + n) / 6) ** length_power (Wu et al. 2016)."""
    max_boxes: int = 2
    enough: int = 0
    """Hypotheses that end a sampling, however many beams are still writing; 0 waits for all."""
    early: bool = False
    """Whether a beam search ends with its best hypothesis, before the others have ended."""
    least: int = 1
    """Tokens before the end: a meme of one word is seldom one."""


class Favour(NamedTuple):
    """An id that is wanted, or the opposite, and what is added to its logit until one that is wanted was written."""

    id: int
    bonus: float
    after: int = -1
    """The id that has to stand right before it, where it goes on with a word; -1 for any."""
    whole: bool = True
    """Whether what is wanted has been written with it, rather than begun."""


@dataclass(frozen=True)
class Lane:
    """One search among those that run together: on which picture, for what, how."""

    picture: int
    """Index of the grid; several lanes may look at one picture."""
    prefix: tuple[int, ...]
    how: Search
    seed: int = 0
    trust: float = 1.0
    """What the share of the counts in every word is multiplied by: the less, the more the picture speaks."""
    favour: tuple[Favour, ...] = ()
    """What is wanted. Once it has been written it is held back: taken up, not stuttered."""
    leaning: Tensor | None = None
    """(C,) what the probabilities of the ids that may be written are multiplied by throughout, if anything."""

    @property
    def width(self) -> int:
        return 1 if self.how.method == "greedy" else self.how.width


@dataclass(frozen=True)
class Hypothesis:
    """One caption: ids up to and including the end, and its natural-log probability under the untempered model among
    what the search may write (shortlist, rules, trust), with what the lane favours and leans to."""

    ids: tuple[int, ...]
    logprob: float
    score: float


class Rules:
    """What may be written where, as factors (C,) of probabilities: a caption is never empty, unknown or raw bytes.

    The C columns are the decoder's shortlist, or all ids.
    """

    def __init__(self, tokenizer: CaptionTokenizer, device: torch.device, shortlist: Tensor | None = None) -> None:
        self.eos, self.sep, self.unk = tokenizer.eos, tokenizer.sep, tokenizer.unk
        ids = list(range(len(tokenizer))) if shortlist is None else shortlist.tolist()
        self.ids = torch.tensor(ids, device=device)
        self.column = {i: column for column, i in enumerate(ids)}
        forbidden = [self.column[i] for i in tokenizer.forbidden if i in self.column]
        self.forbidden = torch.tensor(forbidden, device=device)
        pieces = tokenizer.pieces(ids)
        opens = [p.startswith("▁") and any(c.isalpha() for c in p) for p in pieces]
        self.opening = torch.tensor(opens, device=device).index_fill(0, self.forbidden, 0).float()
        # What makes another word of one that was written; a plural is the same.
        self.continuing = frozenset(i for i, p in zip(ids, pieces, strict=True) if p[0].isalpha() and p != "s")
        self.ending = torch.tensor([_CONTINUED if i in self.continuing else 1.0 for i in ids], device=device)


class _ByRow:
    """Tensors with a row for each beam; rows of one lane are adjacent."""

    def select(self, rows: Tensor) -> Self:
        """Everything of these rows, gathered together, so that no beam reads another's state."""
        return type(self)(*(getattr(self, f.name)[rows] for f in fields(self)))  # type: ignore[arg-type]


@dataclass
class _Beams(_ByRow):
    """The state of every row."""

    tokens: Tensor  # (M, t), the prefix left out
    last: Tensor  # (M,) the token to read next
    state: Tensor  # (M, …)
    perturbed: Tensor  # (M,) what rows are selected by
    tempered: Tensor  # (M,) log-probability under the sampled distribution
    logprob: Tensor  # (M,) and under the model itself
    boxes: Tensor  # (M,) separators written
    named: Tensor  # (M,) whether something favoured was written
    met: Tensor  # (M,) and whether it was by the last id
    done: Tensor  # (M,)


@dataclass
class _Settings(_ByRow):
    """How every row is searched for, and the F ids that it favours."""

    sampled: Tensor  # (M, 1)
    temperature: Tensor  # (M, 1)
    trust: Tensor  # (M,)
    length_power: Tensor  # (M,)
    early: Tensor  # (M,) whether it may end with its best hypothesis
    max_boxes: Tensor  # (M,)
    least: Tensor  # (M,)
    steps: Tensor  # (M,)
    wanted: Tensor  # (M, F) ids that are favoured
    whole: Tensor  # (M, F) whether what is wanted has been written with them
    before: Tensor  # (M, F) the ids that have to stand right before them, -1 for any
    favoured: Tensor  # (M, F) their columns
    factors: Tensor  # (M, F)
    later: Tensor  # (M, F) the factors of those that were written


class _Children(NamedTuple):
    """What may follow each row, its likeliest N: ids and log-probabilities (M, N), sampled and of the model."""

    ids: Tensor
    tempered: Tensor
    logprob: Tensor


class _Rows(NamedTuple):
    """The rows that are still writing, and the settings of each; the same from step to step until one ends."""

    places: list[int]
    active: Tensor  # (A,) the same
    settings: _Settings  # of A rows
    runs: list[Run]
    mixed: list[slice]  # stretches of rows that counts speak of
    leaning: list[tuple[Tensor, slice]]  # and of rows that lean to some ids


class _Lanes:
    """The lanes still searching, each padded to K slots of beams, and the settings of their M rows."""

    def __init__(self, lanes: Sequence[Lane], rules: Rules, mixture: Mixture | None) -> None:
        self.lanes, self.mixture, device = list(lanes), mixture, rules.ids.device
        self.slots = slots = max(lane.width for lane in lanes)
        self.noise = _noise(lanes, slots, device)
        self.settings = _settings(lanes, slots, rules)
        self.pictures = torch.tensor([lane.picture for lane in lanes], device=device)  # (L,)
        self.enough = torch.tensor([_enough(lane, slots) for lane in lanes], device=device)  # (L,)
        width = torch.tensor([lane.width for lane in lanes], device=device)
        # Slots without a beam count as done.
        self.unused = torch.arange(slots, device=device) >= width.unsqueeze(1)  # (L, K)
        self._rows: _Rows | None = None

    @property
    def may_end_early(self) -> bool:
        return any(lane.how.early and lane.how.method == "beam" for lane in self.lanes)

    def met(self, last: Tensor, before: Tensor) -> Tensor:
        """Whether each row (M,) has written something whole that it favours with its last id and the one before."""
        by = self.settings
        goes_on = (by.before < 0) | (by.before == before.unsqueeze(1))
        return (by.whole & goes_on & (by.wanted == last.unsqueeze(1))).any(1)

    def writing(self, alive: Tensor) -> _Rows:
        """The rows where `alive` (M,)."""
        active = alive.nonzero().flatten()
        places = active.tolist()
        if self._rows is None or self._rows.places != places:
            mixing = self.mixture
            mixed = [mixing is not None and mixing.mixes(self.lanes[row // self.slots].prefix) for row in places]
            spans = _spans(Counter(row // self.slots for row in places), self.lanes)
            runs = [(lane.picture, span) for lane, span in spans]
            leaning = [(lane.leaning, span) for lane, span in spans if lane.leaning is not None]
            settings = self.settings.select(active)
            self._rows = _Rows(places, active, settings, runs, list(_stretches(mixed)), leaning)
        return self._rows

    def keep(self, left: Tensor, rows: Tensor) -> None:
        """From now on only the lanes `left` (L',), and the rows (M',) that are theirs."""
        self._rows = None
        self.lanes = [self.lanes[i] for i in left.tolist()]
        self.pictures, self.enough, self.unused = self.pictures[left], self.enough[left], self.unused[left]
        self.noise, self.settings = self.noise[:, left], self.settings.select(rows)


def _enough(lane: Lane, slots: int) -> int:
    """The slots that have to be done for the lane to end; those without a beam are."""
    is_enough = lane.how.enough and lane.how.method == "sample"
    return min(slots, slots - lane.width + lane.how.enough) if is_enough else slots


def _settings(lanes: Sequence[Lane], slots: int, rules: Rules) -> _Settings:
    """Every lane's settings for each of its slots; what a row favours is padded by what is never written."""
    known = [[f for f in lane.favour if f.id in rules.column] for lane in lanes]
    most = max(1, *map(len, known))
    padded = [[*mine, *[Favour(rules.unk, 0.0)] * (most - len(mine))] for mine in known]

    def rows(values: Iterable[Any], kind: torch.dtype) -> Tensor:
        return torch.tensor(list(values), dtype=kind, device=rules.ids.device).repeat_interleave(slots, 0)

    def of_lane(value: Callable[[Lane], float], kind: torch.dtype) -> Tensor:
        return rows(map(value, lanes), kind)

    def of_favour(value: Callable[[Favour], float], kind: torch.dtype) -> Tensor:
        return rows(([value(f) for f in mine] for mine in padded), kind)

    return _Settings(
        sampled=of_lane(lambda lane: lane.how.method == "sample", torch.bool).unsqueeze(1),
        temperature=of_lane(lambda lane: lane.how.temperature, torch.float).unsqueeze(1),
        trust=of_lane(lambda lane: lane.trust, torch.float),
        length_power=of_lane(lambda lane: lane.how.length_power, torch.float),
        early=of_lane(lambda lane: lane.how.early and lane.how.method == "beam", torch.bool),
        max_boxes=of_lane(lambda lane: lane.how.max_boxes, torch.long),
        least=of_lane(lambda lane: lane.how.least, torch.long),
        steps=of_lane(lambda lane: lane.how.steps, torch.long),
        wanted=of_favour(lambda f: f.id, torch.long),
        whole=of_favour(lambda f: f.whole, torch.bool),
        before=of_favour(lambda f: f.after, torch.long),
        favoured=of_favour(lambda f: rules.column[f.id], torch.long),
        factors=of_favour(lambda f: math.exp(f.bonus), torch.float),
        later=of_favour(lambda f: _TAKEN_UP if f.bonus > 0 and f.whole else 1.0, torch.float),
    )


@torch.inference_mode()
def search(
    decoder: Decoder, rules: Rules, grids: Tensor, lanes: Sequence[Lane], mixture: Mixture | None = None
) -> list[list[Hypothesis]]:
    """Runs all lanes over the grids (B, R, D) together: for each its distinct hypotheses, in the order drawn.

    What a lane gets depends on nothing but itself and its picture, not on what else is in the batch: on a CPU with
    oneDNN to the last bit, elsewhere as far as matrix products of other sizes round alike.
    """
    memory, first = decoder.begin(grids)
    running = _Lanes(lanes, rules, mixture)
    beams = _start(decoder, running, memory, first)
    numbers = list(range(len(lanes)))
    """Of the lanes that are still searching, among all."""
    found: list[list[Hypothesis]] = [[] for _ in lanes]
    for t in range(max(lane.how.steps for lane in lanes)):
        children = _children(decoder, beams, memory, rules, running)
        beams = _expand(beams, children, running, t)
        _note(beams, running, rules)
        finished = _finished(beams, running)
        if not finished.any():
            continue
        for place in finished.nonzero().flatten().tolist():
            found[numbers[place]] = _collect(beams, place * running.slots, running.lanes[place], rules)
        left = (~finished).nonzero().flatten()
        if not len(left):
            break
        rows = (left.unsqueeze(1) * running.slots + torch.arange(running.slots, device=left.device)).flatten()
        beams, numbers = beams.select(rows), [numbers[i] for i in left.tolist()]
        running.keep(left, rows)
    return found


def _note(beams: _Beams, running: _Lanes, rules: Rules) -> None:
    """What the ids that were written last mean for their rows: a box, a favoured word, the end."""
    beams.boxes = beams.boxes + (beams.last == rules.sep)
    before = beams.tokens[:, -2] if beams.tokens.shape[1] > 1 else torch.full_like(beams.last, -1)
    beams.met = running.met(beams.last, before)
    beams.named = beams.named | beams.met
    beams.done = beams.done | (beams.last == rules.eos) | running.unused.flatten()


def _finished(beams: _Beams, running: _Lanes) -> Tensor:
    """Lanes (L,) that have enough hypotheses, or whose best one nothing can outrank."""
    writing = ~beams.done & (beams.perturbed > _NEVER / 2)
    done, writing = (rows.view(-1, running.slots) for rows in (beams.done, writing))
    # Or where nothing goes on: a model that is sure of everything has fewer captions than there are beams.
    finished = (done.sum(1) >= running.enough) | ~writing.any(1)
    return finished | _decided(beams, running) if running.may_end_early else finished


def _noise(lanes: Sequence[Lane], slots: int, device: torch.device) -> Tensor:
    """Gumbel noise (T, L, K, N), each lane's from its own generator; zeros where nothing is sampled."""
    noise = torch.zeros(max(lane.how.steps for lane in lanes), len(lanes), slots, _KEEP)
    for i, lane in enumerate(lanes):
        if lane.how.method == "sample":
            generator = torch.Generator().manual_seed(lane.seed % 2**63)
            uniform = torch.rand(lane.how.steps, lane.width, _KEEP, generator=generator)
            noise[: lane.how.steps, i, : lane.width] = -torch.log(-torch.log(uniform.clamp(1e-7, 1 - 1e-7)))
    return noise.to(device)


def _spans(counts: Mapping[int, int], lanes: Sequence[Lane]) -> list[tuple[Lane, slice]]:
    """Which rows are whose, so many for each lane."""
    spans: list[tuple[Lane, slice]] = []
    start = 0
    for place, lane in enumerate(lanes):
        if count := counts.get(place, 0):
            spans.append((lane, slice(start, start + count)))
            start += count
    return spans


def _start(decoder: Decoder, running: _Lanes, memory: Any, first: Tensor) -> _Beams:
    """Reads the first prefix token; the second is read by the loop. Only a lane's first row is alive yet."""
    style, vote = torch.tensor([lane.prefix for lane in running.lanes], device=first.device).unbind(1)
    runs: list[Run] = [(lane.picture, slice(i, i + 1)) for i, lane in enumerate(running.lanes)]
    state = decoder.read(style, first[running.pictures], memory, runs)
    score = torch.full((len(running.lanes), running.slots), _NEVER, device=first.device)
    score[:, 0] = 0
    score = score.flatten()
    none = torch.zeros(len(score), dtype=torch.long, device=first.device)
    done = torch.zeros_like(none, dtype=torch.bool)
    last, state = vote.repeat_interleave(running.slots), state.repeat_interleave(running.slots, 0)
    return _Beams(none.new_zeros(len(none), 0), last, state, score, score, score, none, done, done, done)


def _children(decoder: Decoder, beams: _Beams, memory: Any, rules: Rules, running: _Lanes) -> _Children:
    """Steps the rows that are still writing, and those only: most of a batch's rows finish early."""
    rows = running.writing(~beams.done & (beams.perturbed > _NEVER / 2))
    active, tokens = rows.active, beams.tokens[rows.active]
    weights, state = decoder.step(beams.last[active], beams.state[active], memory, rows.runs)
    beams.state = _put(beams.state, active, state)
    # Probabilities, not yet normalised: counts are added to them and rules multiply them.
    weights.sub_(weights.amax(-1, keepdim=True)).exp_()
    _mix(weights, tokens, running, rows)
    _favour(weights, beams, rows, rules)
    _allow(weights, beams, rows, rules)
    top, columns = _top(weights)  # (A, N)
    logprob = torch.where(top > 0, (top / weights.sum(-1, keepdim=True)).log(), _NEVER)
    ids = rules.ids[columns]
    logprob = _no_repeated_trigram(logprob, ids, tokens)
    tempered = torch.where(rows.settings.sampled, torch.log_softmax(logprob / rows.settings.temperature, -1), logprob)
    # A finished beam has the single child `end`, at no cost; one that never lived has none.
    children = _Children(
        torch.full((len(beams.done), _KEEP), rules.eos, device=ids.device),
        logprob.new_full((len(beams.done), _KEEP), _NEVER),
        logprob.new_full((len(beams.done), _KEEP), _NEVER),
    )
    children.ids[active], children.tempered[active], children.logprob[active] = ids, tempered, logprob
    children.tempered[:, 0].masked_fill_(beams.done, 0)
    children.logprob[:, 0].masked_fill_(beams.done, 0)
    return children


def _top(weights: Tensor) -> tuple[Tensor, Tensor]:
    """The largest N of the weights (A, C) and their columns; of fewer ids than N, the rest are never written."""
    top, columns = top_k(weights, min(_KEEP, weights.shape[1]))
    missing = _KEEP - top.shape[1]
    return (pad(top, (0, missing)), pad(columns, (0, missing))) if missing else (top, columns)


def _put(states: Tensor, rows: Tensor, fresh: Tensor) -> Tensor:
    """States with `fresh` in these rows. Where they grow, the others are empty from now on: they have ended."""
    if fresh.shape[1:] != states.shape[1:]:
        states = fresh.new_zeros(len(states), *fresh.shape[1:])
    return states.index_copy(0, rows, fresh)


def _mix(weights: Tensor, tokens: Tensor, running: _Lanes, rows: _Rows) -> None:
    """Adds what counts say to the weights (A, C) of the rows, in place; `tokens` (A, t) so far."""
    if running.mixture is None:
        return
    for part in rows.mixed:
        start = tokens.new_full((part.stop - part.start, 1), running.mixture.ngrams.start)
        history = torch.cat([start, tokens[part]], 1)
        running.mixture.add_(weights[part], history, rows.settings.trust[part])


def _stretches(chosen: Sequence[bool]) -> Iterator[slice]:
    """The stretches of adjacent chosen rows; a slice is a view, an index would be a copy."""
    at = 0
    for value, rows in groupby(chosen):
        size = len(list(rows))
        if value:
            yield slice(at, at + size)
        at += size


def _favour(weights: Tensor, beams: _Beams, rows: _Rows, rules: Rules) -> None:
    """Multiplies the weights (A, C) of the rows by what is leant to and favoured, in place.

    What was favoured and has been written is held back from then on; right after it, so is what would make another
    word of it.
    """
    by, active, last = rows.settings, rows.active, beams.last[rows.active].unsqueeze(1)
    for factors, span in rows.leaning:
        weights[span] *= factors
    written = (beams.tokens[active].unsqueeze(2) == by.wanted.unsqueeze(1)).any(1)  # (A, F)
    later = torch.where(written, by.later, 1.0)
    factors = torch.where(beams.named[active].unsqueeze(1), later, by.factors)
    factors = torch.where((by.before < 0) | (by.before == last), factors, 1.0)
    # One piece may go on with several words, so a column may stand here more than once.
    weights.scatter_reduce_(1, by.favoured, factors, "prod")
    met = beams.met[active].nonzero().flatten()
    if len(met):
        weights[met] *= rules.ending


def _allow(weights: Tensor, beams: _Beams, rows: _Rows, rules: Rules) -> None:
    """Zeroes what may not follow in the weights (A, C) of the rows, in place.

    A box begins with a word and is never empty, and none begins that there is no step left to fill.
    """
    t, active, by = beams.tokens.shape[1], rows.active, rows.settings
    separator, end = rules.column[rules.sep], rules.column[rules.eos]
    if t == 0:
        weights *= rules.opening
    else:
        weights.index_fill_(1, rules.forbidden, 0)
        opens = (beams.last[active] == rules.sep).nonzero().flatten()
        if len(opens):
            weights[opens] *= rules.opening
    full = beams.boxes[active] >= by.max_boxes - 1
    weights[:, separator].masked_fill_(full | (by.steps <= t + 2), 0)
    weights[:, end].masked_fill_(by.least > t, 0)
    ends = (by.steps == t + 1).nonzero().flatten()
    if len(ends):
        weights[ends] = 0
        weights[ends, end] = 1


def _no_repeated_trigram(top: Tensor, ids: Tensor, tokens: Tensor) -> Tensor:
    """Children (A, N) that would repeat three tokens in a row put out of reach; `tokens` (A, t) so far."""
    if tokens.shape[1] < 3:
        return top
    same = (tokens[:, :-2] == tokens[:, -2:-1]) & (tokens[:, 1:-1] == tokens[:, -1:])  # (A, t - 2)
    if not same.any():
        return top
    followed = torch.where(same, tokens[:, 2:], -1)
    return top.masked_fill((ids.unsqueeze(2) == followed.unsqueeze(1)).any(2), _NEVER)


def _expand(beams: _Beams, children: _Children, running: _Lanes, t: int) -> _Beams:
    """Every lane's best children, by perturbed score when sampling, else by log-probability."""
    tempered = beams.tempered.unsqueeze(1) + children.tempered
    gumbels = conditioned(tempered + running.noise[t].flatten(0, 1), beams.perturbed.unsqueeze(1))
    perturbed = torch.where(running.settings.sampled, gumbels, tempered)
    ended = torch.full_like(perturbed, 2 * _NEVER)
    ended[:, 0] = beams.perturbed
    perturbed = torch.where(beams.done.unsqueeze(1), ended, perturbed)
    perturbed, flat = perturbed.view(-1, running.slots * _KEEP).topk(running.slots)  # (L, K)
    perturbed = perturbed.masked_fill(running.unused, _NEVER)
    offset = torch.arange(len(flat), device=flat.device).unsqueeze(1) * running.slots
    parents = (offset + flat // _KEEP).flatten()  # (M,)
    picked = parents * _KEEP + (flat % _KEEP).flatten()
    last = children.ids.flatten()[picked]
    return _Beams(
        torch.cat([beams.tokens[parents], last.unsqueeze(1)], 1),
        last,
        beams.state[parents],
        perturbed.flatten(),
        tempered.flatten()[picked],
        beams.logprob[parents] + children.logprob.flatten()[picked],
        beams.boxes[parents],
        beams.named[parents],
        beams.met[parents],
        beams.done[parents],
    )


def over_length(logprob: Number, length: Number, power: Number) -> Number:
    """A log-probability as it is compared with those of texts of other lengths (Wu et al. 2016)."""
    made: Number = logprob / ((5 + length) / 6) ** power
    return made


def conditioned(gumbels: Tensor, parent: Tensor) -> Tensor:
    """Gumbels of children (M, N) given that their maximum is the parent's (M, 1): Kool et al. 2019, appendix B.3."""
    most = gumbels.amax(-1, keepdim=True)
    gap = (gumbels - most).exp().neg().log1p()  # log(1 - exp(g - max)), -inf at the maximum itself
    v = parent - gumbels + gap
    return parent - v.clamp(min=0) - v.abs().neg().exp().log1p()


def top_k(values: Tensor, k: int, group: int = 16) -> tuple[Tensor, Tensor]:
    """`values.topk(k)` along the last dimension, in a fraction of the time for long rows.

    The k largest lie in the k groups with the largest maxima, so only those groups are sorted. A group is every
    size // group-th value: maxima over a strided dimension are taken many at once.
    """
    rows, size = values.shape
    stride = size // group
    if size % group or stride < 2 * k:
        return values.topk(k)
    grouped = values.view(rows, group, stride)
    groups = grouped.amax(1).topk(k, sorted=False).indices.unsqueeze(1).expand(-1, group, -1)  # (M, group, k)
    best, place = grouped.gather(2, groups).flatten(1).topk(k)
    return best, groups[:, 0].gather(1, place % k) + place // k * stride


def _decided(beams: _Beams, running: _Lanes) -> Tensor:
    """Lanes (L,) that may end early, and whose best ended beam no beam that is still writing outranks."""
    lengths = beams.tokens.shape[1] - ((beams.tokens == beams.tokens[:, -1:]) & beams.done.unsqueeze(1)).sum(1) + 1
    lengths = torch.where(beams.done, lengths, beams.tokens.shape[1])
    score = over_length(beams.logprob, lengths, running.settings.length_power)
    score = torch.where(beams.perturbed > _NEVER / 2, score, _NEVER)
    ended = torch.where(beams.done, score, _NEVER).view(-1, running.slots).amax(1)
    writing = torch.where(beams.done, _NEVER, score).view(-1, running.slots).amax(1)
    return running.settings.early[:: running.slots] & (ended > _NEVER / 2) & (ended >= writing)


def _collect(beams: _Beams, start: int, lane: Lane, rules: Rules) -> list[Hypothesis]:
    found = []
    for row in range(start, start + lane.width):
        logprob = float(beams.logprob[row])
        if logprob <= _NEVER / 2 or not beams.done[row]:
            continue
        ids = beams.tokens[row].tolist()
        ids = ids[: ids.index(rules.eos) + 1]
        found.append(Hypothesis(tuple(ids), logprob, over_length(logprob, len(ids), lane.how.length_power)))
    return found
