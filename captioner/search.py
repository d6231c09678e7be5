"""Top-k beam sampling and its siblings: one loop over a [lanes × beams] tensor.

A lane is one search on one picture; a picture's description and its memes are searched for together.

*sample* draws a picture's beams without replacement from the model (stochastic beam search: Kool, van Hoof and Welling
2019): distinct exact samples for the cost of a beam search. *beam* keeps the likeliest, *greedy* is a beam of one.

Shapes: B pictures, L lanes, K beams, M = L·K rows, A of them still writing, N kept children of a row, V vocabulary,
T steps.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import groupby
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from captioner.decoders import AttentionGRU, Memory, Run
from captioner.mixture import Mixture
from captioner.tokenizer import CaptionTokenizer

Method = Literal["sample", "beam", "greedy"]
_NEVER = -1e9
_KEEP = 50
"""Children of a beam that are considered at all (top-k)."""


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
    favour: tuple[tuple[int, float], ...] = ()
    """Ids, and what is added to their logits until one of them has been written: taken up, not stuttered."""

    @property
    def width(self) -> int:
        return 1 if self.how.method == "greedy" else self.how.width


@dataclass(frozen=True)
class Hypothesis:
    """One caption: ids up to and including the end, and its natural-log probability under the untempered model."""

    ids: tuple[int, ...]
    logprob: float
    score: float


class Rules:
    """What may be written where, as factors (V,) of probabilities: a caption is never empty, unknown or raw bytes."""

    def __init__(self, tokenizer: CaptionTokenizer, device: torch.device) -> None:
        self.eos, self.sep = tokenizer.eos, tokenizer.sep
        self.anywhere = torch.ones(len(tokenizer), device=device)
        self.anywhere[tokenizer.forbidden] = 0
        self.forbidden = torch.tensor(tokenizer.forbidden, device=device)
        pieces = tokenizer.pieces(range(len(tokenizer)))
        opens = [p.startswith("▁") and any(c.isalpha() for c in p) for p in pieces]
        self.opening = torch.where(torch.tensor(opens, device=device), self.anywhere, 0)


@dataclass
class _Beams:
    """The state of every row; rows of one lane are adjacent."""

    tokens: Tensor  # (M, t), the prefix left out
    last: Tensor  # (M,) the token to read next
    state: Tensor  # (M, H)
    perturbed: Tensor  # (M,) what rows are selected by
    tempered: Tensor  # (M,) log-probability under the sampled distribution
    logprob: Tensor  # (M,) and under the model itself
    boxes: Tensor  # (M,) separators written
    named: Tensor  # (M,) whether a favoured id was written
    done: Tensor  # (M,)

    def select(self, rows: Tensor) -> "_Beams":
        """Everything of these rows, gathered together, so that no beam reads another's state."""
        return _Beams(*(getattr(self, f.name)[rows] for f in fields(self)))


class _Children(NamedTuple):
    """What may follow each row, its likeliest N: ids and log-probabilities (M, N), sampled and of the model."""

    ids: Tensor
    tempered: Tensor
    logprob: Tensor


class _Lanes:
    """The lanes still searching, their settings as tensors over L lanes, padded to K slots of beams each."""

    def __init__(self, lanes: Sequence[Lane], mixture: Mixture | None, device: torch.device) -> None:
        self.lanes, self.mixture, self.device = list(lanes), mixture, device
        self.slots = max(lane.width for lane in lanes)
        self.noise = _noise(lanes, self.slots, device)
        self._settle()

    def _settle(self) -> None:
        def column(values: Sequence[float]) -> Tensor:
            return torch.tensor(values, device=self.device).repeat_interleave(self.slots)  # (M,)

        self.sampled = column([lane.how.method == "sample" for lane in self.lanes])
        self.temperature = column([lane.how.temperature for lane in self.lanes])
        self.max_boxes = column([lane.how.max_boxes for lane in self.lanes])
        self.early = column([lane.how.early and lane.how.method != "sample" for lane in self.lanes])
        self.least = column([lane.how.least for lane in self.lanes])
        self.length_power = column([lane.how.length_power for lane in self.lanes])
        self.steps = column([lane.how.steps for lane in self.lanes])
        self.pictures = column([lane.picture for lane in self.lanes])
        width = torch.tensor([lane.width for lane in self.lanes], device=self.device)
        # Slots without a beam count as done.
        idle = [self.slots - lane.width for lane in self.lanes]
        counts = [lane.how.enough if lane.how.method == "sample" else 0 for lane in self.lanes]
        enough = [
            min(self.slots, free + count) if count else self.slots for free, count in zip(idle, counts, strict=True)
        ]
        self.enough = torch.tensor(enough, device=self.device)
        self.unused = torch.arange(self.slots, device=self.device) >= width.unsqueeze(1)  # (L, K)
        most = max(1, *(len(lane.favour) for lane in self.lanes))
        favours = [[*lane.favour, *[(0, 0.0)] * (most - len(lane.favour))] for lane in self.lanes]
        pairs = torch.tensor(favours, device=self.device).repeat_interleave(self.slots, 0)  # (M, F, 2)
        self.favoured, self.factors = pairs[..., 0].long(), pairs[..., 1].exp()
        self.trust = column([lane.trust for lane in self.lanes])
        self.mixed = column([self.mixture is not None and self.mixture.mixes(lane.prefix) for lane in self.lanes])

    def keep(self, left: list[int]) -> None:
        self.lanes = [self.lanes[i] for i in left]
        self.noise = self.noise[:, left]
        self._settle()


@torch.inference_mode()
def search(
    decoder: AttentionGRU, rules: Rules, grids: Tensor, lanes: Sequence[Lane], mixture: Mixture | None = None
) -> list[list[Hypothesis]]:
    """Runs all lanes over the grids (B, R, D) together: for each its distinct hypotheses, in the order drawn.

    What a lane gets depends on nothing but itself and its picture, not on what else is in the batch: on a CPU with
    oneDNN to the last bit, elsewhere as far as matrix products of other sizes round alike.
    """
    memory, first = _look(decoder, grids)
    running = _Lanes(lanes, mixture, grids.device)
    beams = _start(decoder, running, first)
    index = list(range(len(lanes)))
    found: list[list[Hypothesis]] = [[] for _ in lanes]
    for t in range(max(lane.how.steps for lane in lanes)):
        children = _children(decoder, beams, memory, rules, running)
        beams = _expand(beams, children, running, t)
        beams.boxes = beams.boxes + (beams.last == rules.sep)
        beams.named = beams.named | (beams.last.unsqueeze(1) == running.favoured).any(1)
        beams.done = beams.done | (beams.last == rules.eos) | running.unused.flatten()
        finished = (beams.done.view(-1, running.slots).sum(1) >= running.enough) | _decided(beams, running)
        if not finished.any():
            continue
        for place in finished.nonzero().flatten().tolist():
            found[index[place]] = _collect(beams, place * running.slots, running.lanes[place], rules)
        left = (~finished).nonzero().flatten()
        if not len(left):
            break
        rows = (left.unsqueeze(1) * running.slots + torch.arange(running.slots, device=left.device)).flatten()
        beams, index = beams.select(rows), [index[i] for i in left.tolist()]
        running.keep(left.tolist())
    return found


def _noise(lanes: Sequence[Lane], slots: int, device: torch.device) -> Tensor:
    """Gumbel noise (T, L, K, N), each lane's from its own generator; zeros where nothing is sampled."""
    noise = torch.zeros(max(lane.how.steps for lane in lanes), len(lanes), slots, _KEEP)
    for i, lane in enumerate(lanes):
        if lane.how.method == "sample":
            generator = torch.Generator().manual_seed(lane.seed % 2**63)
            uniform = torch.rand(lane.how.steps, lane.width, _KEEP, generator=generator)
            noise[: lane.how.steps, i, : lane.width] = -torch.log(-torch.log(uniform.clamp(1e-7, 1 - 1e-7)))
    return noise.to(device)


def _look(decoder: AttentionGRU, grids: Tensor) -> tuple[Memory, Tensor]:
    """Memory of all pictures and their first states (B, H)."""
    by = decoder.products
    places = grids.flatten(0, 1)
    memory = Memory(*(part(places).view(*grids.shape[:2], -1) for part in (by.key, by.value)))
    return memory, by.first(grids.mean(1)).tanh_()


def _runs(counts: Sequence[int], running: _Lanes) -> list[Run]:
    """Which rows look at which picture, so many for each lane."""
    runs: list[Run] = []
    start = 0
    for lane, count in zip(running.lanes, counts, strict=False):
        if count:
            runs.append((lane.picture, slice(start, start + count)))
            start += count
    return runs


def _start(decoder: AttentionGRU, running: _Lanes, first: Tensor) -> _Beams:
    """Reads the first prefix token; the second is read by the loop. Only a lane's first row is alive yet."""
    pictures = running.pictures[:: running.slots]
    style, vote = torch.tensor([lane.prefix for lane in running.lanes], device=first.device).unbind(1)
    state = decoder.advance(style, first[pictures])
    score = torch.full((len(running.lanes), running.slots), _NEVER, device=first.device)
    score[:, 0] = 0
    score = score.flatten()
    none = torch.zeros(len(score), dtype=torch.long, device=first.device)
    done = torch.zeros_like(none, dtype=torch.bool)
    last, state = vote.repeat_interleave(running.slots), state.repeat_interleave(running.slots, 0)
    return _Beams(none.new_zeros(len(none), 0), last, state, score, score, score, none, done, done)


def _children(decoder: AttentionGRU, beams: _Beams, memory: Memory, rules: Rules, running: _Lanes) -> _Children:
    """Steps the rows that are still writing, and those only: most of a batch's rows finish early."""
    active = (~beams.done & (beams.perturbed > _NEVER / 2)).nonzero().flatten()  # (A,)
    runs = _runs(torch.bincount(active // running.slots).tolist(), running)
    weights, state = decoder.step(beams.last[active], beams.state[active], memory, runs)
    beams.state = beams.state.index_copy(0, active, state)
    # Probabilities, not yet normalised: counts are added to them and rules multiply them.
    weights.sub_(weights.amax(-1, keepdim=True)).exp_()
    _mix(weights, beams.tokens[active], running, active)
    _restrict(weights, beams, active, rules, running)
    top, ids = top_k(weights, _KEEP)  # (A, N)
    logprob = torch.where(top > 0, (top / weights.sum(-1, keepdim=True)).log(), _NEVER)
    logprob = _no_repeated_trigram(logprob, ids, beams.tokens[active])
    tempered = torch.log_softmax(logprob / running.temperature[active].unsqueeze(1), -1)
    tempered = torch.where(running.sampled[active].unsqueeze(1), tempered, logprob)
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


def _mix(weights: Tensor, tokens: Tensor, running: _Lanes, active: Tensor) -> None:
    """Adds what counts say to the weights (A, V) of the rows `active` (A,), in place; `tokens` (A, t) so far."""
    if running.mixture is None:
        return
    for rows in _stretches(running.mixed[active].tolist()):
        start = tokens.new_full((rows.stop - rows.start, 1), running.mixture.ngrams.start)
        history = torch.cat([start, tokens[rows]], 1)
        running.mixture.add_(weights[rows], history, running.trust[active[rows]])


def _stretches(chosen: Sequence[bool]) -> Iterator[slice]:
    """The stretches of adjacent chosen rows; a slice is a view, an index would be a copy."""
    at = 0
    for value, rows in groupby(chosen):
        size = len(list(rows))
        if value:
            yield slice(at, at + size)
        at += size


def _restrict(weights: Tensor, beams: _Beams, active: Tensor, rules: Rules, running: _Lanes) -> None:
    """Applies what may follow and what is favoured to the weights (A, V) of the rows `active` (A,), in place."""
    t = beams.tokens.shape[1]
    favoured = running.favoured[active]  # (A, F)
    factors = torch.where(beams.named[active].unsqueeze(1), 1.0, running.factors[active])
    weights.scatter_(1, favoured, weights.gather(1, favoured) * factors)
    if t == 0:
        weights *= rules.opening
    else:
        weights.index_fill_(1, rules.forbidden, 0)
    opening = (beams.last[active] == rules.sep).nonzero().flatten()
    if t and len(opening):
        weights[opening] *= rules.opening
    full = beams.boxes[active] >= running.max_boxes[active] - 1
    # Nor a box that there is no step left to fill.
    weights[:, rules.sep].masked_fill_(full | (running.steps[active] <= t + 2), 0)
    weights[:, rules.eos].masked_fill_(running.least[active] > t, 0)
    ending = (running.steps[active] == t + 1).nonzero().flatten()
    if len(ending):
        weights[ending] = 0
        weights[ending, rules.eos] = 1


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
    perturbed = torch.where(running.sampled.unsqueeze(1), gumbels, tempered)
    ended = torch.full_like(perturbed, 2 * _NEVER)
    ended[:, 0] = beams.perturbed
    perturbed = torch.where(beams.done.unsqueeze(1), ended, perturbed)
    perturbed, flat = perturbed.view(-1, running.slots * _KEEP).topk(running.slots)  # (L, K)
    perturbed = perturbed.masked_fill(running.unused, _NEVER)
    offset = torch.arange(len(flat), device=flat.device).unsqueeze(1) * running.slots
    parents = (offset + flat // _KEEP).flatten()  # (M,)
    picked = parents * _KEEP + (flat % _KEEP).flatten()
    chosen = beams.select(parents)
    chosen.last = children.ids.flatten()[picked]
    chosen.tokens = torch.cat([chosen.tokens, chosen.last.unsqueeze(1)], 1)
    chosen.perturbed, chosen.tempered = perturbed.flatten(), tempered.flatten()[picked]
    chosen.logprob = chosen.logprob + children.logprob.flatten()[picked]
    return chosen


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
    score = beams.logprob / ((5 + lengths) / 6) ** running.length_power
    score = torch.where(beams.perturbed > _NEVER / 2, score, _NEVER)
    ended = torch.where(beams.done, score, _NEVER).view(-1, running.slots).amax(1)
    writing = torch.where(beams.done, _NEVER, score).view(-1, running.slots).amax(1)
    return running.early[:: running.slots] & (ended > _NEVER / 2) & (ended >= writing)


def _collect(beams: _Beams, start: int, lane: Lane, rules: Rules) -> list[Hypothesis]:
    found = []
    for row in range(start, start + lane.width):
        logprob = float(beams.logprob[row])
        if logprob <= _NEVER / 2 or not beams.done[row]:
            continue
        ids = beams.tokens[row].tolist()
        ids = ids[: ids.index(rules.eos) + 1]
        found.append(Hypothesis(tuple(ids), logprob, logprob / ((5 + len(ids)) / 6) ** lane.how.length_power))
    return found
