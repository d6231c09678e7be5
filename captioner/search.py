"""Top-k beam sampling and its siblings: one loop over a [pictures × beams] tensor.

*sample* draws a picture's beams without replacement from the model (stochastic beam search: Kool, van Hoof and Welling
2019): distinct exact samples for the cost of a beam search. *beam* keeps the likeliest, *greedy* is a beam of one.

Shapes: B pictures, K beams, M = B·K rows, A of them still writing, N kept children of a row, V vocabulary, T steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from captioner.decoders import AttentionGRU, Memory
from captioner.tokenizer import CaptionTokenizer

Method = Literal["sample", "beam", "greedy"]
_NEVER = -1e9
_ROWS = 4
"""Matrix products of fewer rows than this take another path in the CPU's library, with other last bits."""


@dataclass(frozen=True)
class Search:
    """How to search. Everything but `width` and `steps` is per call; seeds are per picture."""

    method: Method = "sample"
    width: int = 8
    steps: int = 40
    keep: int = 50
    """Children of a beam that are considered at all (top-k)."""
    temperature: float = 0.9
    length_power: float = 0.7
    """log-probabilities are ranked over ((5 + n) / 6) ** length_power (Wu et al. 2016)."""
    max_boxes: int = 2


@dataclass(frozen=True)
class Hypothesis:
    """One caption: ids up to and including the end, and its natural-log probability under the untempered model."""

    ids: tuple[int, ...]
    logprob: float
    score: float


class Rules:
    """What may be written where, as rows to add to logits: a caption is never empty, unknown or raw bytes."""

    def __init__(self, tokenizer: CaptionTokenizer, device: torch.device) -> None:
        self.eos, self.sep = tokenizer.eos, tokenizer.sep
        self.anywhere = torch.zeros(len(tokenizer), device=device)
        self.anywhere[tokenizer.forbidden] = _NEVER
        pieces = tokenizer.pieces(range(len(tokenizer)))
        opens = [p.startswith("▁") and any(c.isalpha() for c in p) for p in pieces]
        self.opening = torch.where(torch.tensor(opens, device=device), self.anywhere, _NEVER)


@dataclass
class _Beams:
    """The state of every row; rows of one picture are adjacent."""

    tokens: Tensor  # (M, t), the prefix left out
    last: Tensor  # (M,) the token to read next
    state: Tensor  # (M, H)
    perturbed: Tensor  # (M,) what rows are selected by
    tempered: Tensor  # (M,) log-probability under the sampled distribution
    logprob: Tensor  # (M,) and under the model itself
    boxes: Tensor  # (M,) separators written
    done: Tensor  # (M,)

    def select(self, rows: Tensor) -> "_Beams":
        """Everything of these rows, gathered together, so that no beam reads another's state."""
        return _Beams(*(getattr(self, f.name)[rows] for f in fields(self)))


class _Children(NamedTuple):
    """What may follow each row, its likeliest N: ids and log-probabilities (M, N), sampled and of the model."""

    ids: Tensor
    tempered: Tensor
    logprob: Tensor


@torch.inference_mode()
def search(
    decoder: AttentionGRU,
    rules: Rules,
    grids: Tensor,
    prefixes: Sequence[Sequence[int]],
    how: Search,
    seeds: Sequence[int],
    favour: Tensor | None = None,
) -> list[list[Hypothesis]]:
    """Captions of the grids (B, R, D): for each picture its distinct hypotheses, in the order they were drawn.

    `prefixes` say style and votes; `favour` (B, V) is added to the logits. What a picture gets depends on nothing but
    itself, its prefix and its seed: not on the batch.
    """
    width = 1 if how.method == "greedy" else how.width
    noise = _noise(how, width, seeds, grids.device)
    memory, beams = _start(decoder, grids, prefixes, width)
    alive = list(range(len(prefixes)))
    found: list[list[Hypothesis]] = [[] for _ in prefixes]
    for t in range(how.steps):
        children = _children(decoder, beams, memory, rules, favour, how)
        beams = _expand(beams, children, None if noise is None else noise[t], width)
        beams.boxes = beams.boxes + (beams.last == rules.sep)
        beams.done = beams.done | (beams.last == rules.eos)
        finished = beams.done.view(-1, width).all(1)
        if not finished.any():
            continue
        for place in finished.nonzero().flatten().tolist():
            found[alive[place]] = _collect(beams, place * width, width, rules, how)
        left = (~finished).nonzero().flatten()
        if not len(left):
            break
        rows = (left.unsqueeze(1) * width + torch.arange(width, device=left.device)).flatten()
        beams, memory, alive = beams.select(rows), memory.select(left), [alive[i] for i in left.tolist()]
        noise = None if noise is None else noise[:, left]
        favour = None if favour is None else favour[left]
    return found


def _noise(how: Search, width: int, seeds: Sequence[int], device: torch.device) -> Tensor | None:
    """Gumbel noise (T, B, K, N), each picture's from its own generator; None where nothing is sampled."""
    if how.method != "sample":
        return None
    drawn = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed % 2**63)
        uniform = torch.rand(how.steps, width, how.keep, generator=generator)
        drawn.append(-torch.log(-torch.log(uniform.clamp(1e-7, 1 - 1e-7))))
    return torch.stack(drawn, 1).to(device)


def _start(
    decoder: AttentionGRU, grids: Tensor, prefixes: Sequence[Sequence[int]], width: int
) -> tuple[Memory, _Beams]:
    """Reads the first prefix token; the second is read by the loop. Only a picture's first row is alive yet."""
    # Picture by picture, for the same bits in any batch.
    looked = [decoder.look(grid.unsqueeze(0)) for grid in grids]
    memory = Memory(torch.cat([m.keys for m, _ in looked]), torch.cat([m.values for m, _ in looked]))
    first, second = torch.tensor([p[:2] for p in prefixes], device=grids.device).unbind(1)
    _, state = _step(decoder, first, torch.cat([s for _, s in looked]), memory)
    score = torch.full((len(grids), width), _NEVER, device=grids.device)
    score[:, 0] = 0
    score = score.flatten()
    none = torch.zeros(len(score), dtype=torch.long, device=grids.device)
    done = torch.zeros_like(none, dtype=torch.bool)
    tokens = none.new_zeros(len(none), 0)
    last, state = second.repeat_interleave(width), state.repeat_interleave(width, 0)
    return memory, _Beams(tokens, last, state, score, score, score, none, done)


def _step(decoder: AttentionGRU, last: Tensor, state: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
    """Logits (A, V) and states (A, H) of the next step, never in a product of fewer than `_ROWS` rows."""
    rows = len(last)
    if rows < _ROWS:
        padded = torch.arange(_ROWS, device=last.device) % rows
        last, state, memory = last[padded], state[padded], memory.select(padded)
    logits, state, _ = decoder.step(last, state, memory)
    return logits[:rows], state[:rows]


def _children(
    decoder: AttentionGRU, beams: _Beams, memory: Memory, rules: Rules, favour: Tensor | None, how: Search
) -> _Children:
    """Steps the rows that are still writing, and those only: most of a batch's rows finish early."""
    active = (~beams.done & (beams.perturbed > _NEVER / 2)).nonzero().flatten()  # (A,)
    pictures = active // (len(beams.done) // len(memory.keys))
    logits, state = _step(decoder, beams.last[active], beams.state[active], memory.select(pictures))
    beams.state = beams.state.index_copy(0, active, state)
    if favour is not None:
        logits = logits + favour[pictures]
    _forbid(logits, beams, active, rules, how)
    top, ids = top_k(logits, how.keep)  # (A, N)
    top = _no_repeated_trigram(top, ids, beams.tokens[active])
    logprob = top - logits.logsumexp(-1, keepdim=True)
    tempered = torch.log_softmax(top / how.temperature, -1) if how.method == "sample" else logprob
    # A finished beam has the single child `end`, at no cost; one that never lived has none.
    children = _Children(
        torch.full((len(beams.done), how.keep), rules.eos, device=ids.device),
        logprob.new_full((len(beams.done), how.keep), _NEVER),
        logprob.new_full((len(beams.done), how.keep), _NEVER),
    )
    children.ids[active], children.tempered[active], children.logprob[active] = ids, tempered, logprob
    children.tempered[:, 0].masked_fill_(beams.done, 0)
    children.logprob[:, 0].masked_fill_(beams.done, 0)
    return children


def _forbid(logits: Tensor, beams: _Beams, active: Tensor, rules: Rules, how: Search) -> None:
    """Puts out of reach, in place, what may not follow: logits (A, V) of the rows `active` (A,)."""
    t = beams.tokens.shape[1]
    logits += rules.opening if t == 0 else rules.anywhere
    if t == how.steps - 1:
        end = logits[:, rules.eos].clone()
        logits.fill_(_NEVER)
        logits[:, rules.eos] = end
    elif t:
        opening = (beams.last[active] == rules.sep).nonzero().flatten()
        if len(opening):
            logits[opening] += rules.opening
        logits[:, rules.sep].masked_fill_(beams.boxes[active] >= how.max_boxes - 1, _NEVER)


def _no_repeated_trigram(top: Tensor, ids: Tensor, tokens: Tensor) -> Tensor:
    """Children (A, N) that would repeat three tokens in a row put out of reach; `tokens` (A, t) so far."""
    if tokens.shape[1] < 3:
        return top
    same = (tokens[:, :-2] == tokens[:, -2:-1]) & (tokens[:, 1:-1] == tokens[:, -1:])  # (A, t - 2)
    if not same.any():
        return top
    followed = torch.where(same, tokens[:, 2:], -1)
    return top.masked_fill((ids.unsqueeze(2) == followed.unsqueeze(1)).any(2), _NEVER)


def _expand(beams: _Beams, children: _Children, noise: Tensor | None, width: int) -> _Beams:
    """Every picture's best `width` children, by perturbed score when sampling, else by log-probability."""
    keep = children.ids.shape[1]
    tempered = beams.tempered.unsqueeze(1) + children.tempered
    if noise is None:
        perturbed = tempered
    else:
        perturbed = conditioned(tempered + noise.flatten(0, 1), beams.perturbed.unsqueeze(1))
        ended = torch.full_like(perturbed, 2 * _NEVER)
        ended[:, 0] = beams.perturbed
        perturbed = torch.where(beams.done.unsqueeze(1), ended, perturbed)
    perturbed, flat = perturbed.view(-1, width * keep).topk(width)  # (B, K)
    offset = torch.arange(len(flat), device=flat.device).unsqueeze(1) * width
    parents = (offset + flat // keep).flatten()  # (M,)
    picked = parents * keep + (flat % keep).flatten()
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

    The k largest lie in the k groups with the largest maxima, so only those groups are sorted.
    """
    rows, size = values.shape
    if size % group or size // group < 2 * k:
        return values.topk(k)
    grouped = values.view(rows, size // group, group)
    groups = grouped.amax(-1).topk(k).indices  # (M, k)
    members = grouped.gather(1, groups.unsqueeze(-1).expand(-1, -1, group)).flatten(1)
    best, place = members.topk(k)
    ids = groups.gather(1, place // group) * group + place % group
    return best, ids


def _collect(beams: _Beams, start: int, width: int, rules: Rules, how: Search) -> list[Hypothesis]:
    found = []
    for row in range(start, start + width):
        logprob = float(beams.logprob[row])
        if logprob <= _NEVER / 2:
            continue
        ids = beams.tokens[row].tolist()
        ids = ids[: ids.index(rules.eos) + 1]
        found.append(Hypothesis(tuple(ids), logprob, logprob / ((5 + len(ids)) / 6) ** how.length_power))
    return found
