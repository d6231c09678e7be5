"""Top-k beam sampling and its siblings: one loop over a [pictures × beams] tensor.

*sample* draws a picture's beams without replacement from the model (stochastic beam search: Kool, van Hoof and Welling
2019): distinct exact samples for the cost of a beam search. *beam* keeps the likeliest, *greedy* is a beam of one.

Shapes: B pictures, K beams, M = B·K rows, N kept children of a row, V vocabulary, T steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

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
        return _Beams(
            self.tokens[rows],
            self.last[rows],
            self.state[rows],
            self.perturbed[rows],
            self.tempered[rows],
            self.logprob[rows],
            self.boxes[rows],
            self.done[rows],
        )


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
    bias = None if favour is None else favour.repeat_interleave(width, 0)
    alive = list(range(len(prefixes)))
    found: list[list[Hypothesis]] = [[] for _ in prefixes]
    for t in range(how.steps):
        logits, beams.state = _advance(decoder, beams, memory)
        beams = _expand(beams, _allowed(logits, beams, rules, bias, how, last=t == how.steps - 1), noise, t, width, how)
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
        bias = None if bias is None else bias[rows]
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
    rows = torch.arange(len(grids), device=grids.device).repeat_interleave(width)
    first, second = torch.tensor([p[:2] for p in prefixes], device=grids.device)[rows].unbind(1)
    score = torch.full((len(grids), width), _NEVER, device=grids.device)
    score[:, 0] = 0
    score = score.flatten()
    none = torch.zeros(len(rows), dtype=torch.long, device=grids.device)
    state = torch.cat([s for _, s in looked])[rows]
    beams = _Beams(
        none.new_zeros(len(rows), 0), first, state, score, score, score, none, torch.zeros_like(none, dtype=torch.bool)
    )
    _, beams.state = _advance(decoder, beams, memory)
    beams.last = second
    return memory, beams


def _advance(decoder: AttentionGRU, beams: _Beams, memory: Memory) -> tuple[Tensor, Tensor]:
    """Logits (M, V) and states (M, H) of the next step, never in a product of fewer than `_ROWS` rows."""
    pictures, rows = len(memory.keys), len(beams.last)
    last, state = beams.last.view(pictures, -1), beams.state.view(pictures, rows // pictures, -1)
    if rows < _ROWS:
        copies = -(-_ROWS // rows)
        last, state = last.repeat(copies, 1), state.repeat(copies, 1, 1)
        memory = Memory(memory.keys.repeat(copies, 1, 1), memory.values.repeat(copies, 1, 1))
    logits, state, _ = decoder.step(last, state, memory)
    return logits.flatten(0, 1)[:rows], state.flatten(0, 1)[:rows]


def _allowed(logits: Tensor, beams: _Beams, rules: Rules, bias: Tensor | None, how: Search, last: bool) -> Tensor:
    """The logits with what may not follow put out of reach."""
    t = beams.tokens.shape[1]
    if bias is not None:
        logits = logits + bias
    if last:
        end = logits[:, rules.eos].clone()
        logits = torch.full_like(logits, _NEVER)
        logits[:, rules.eos] = end
        return logits
    if t == 0:
        return logits + rules.opening
    opening = (beams.last == rules.sep).unsqueeze(1)
    logits = logits + torch.where(opening, rules.opening, rules.anywhere)
    full = beams.boxes >= how.max_boxes - 1
    logits[:, rules.sep] = torch.where(full, _NEVER, logits[:, rules.sep])
    return _no_repeated_trigram(logits, beams.tokens)


def _no_repeated_trigram(logits: Tensor, tokens: Tensor) -> Tensor:
    if tokens.shape[1] < 3:
        return logits
    same = (tokens[:, :-2] == tokens[:, -2:-1]) & (tokens[:, 1:-1] == tokens[:, -1:])  # (M, t - 2)
    penalty = torch.where(same, _NEVER, 0.0)
    return logits.scatter_add(1, tokens[:, 2:], penalty)


def _expand(beams: _Beams, logits: Tensor, noise: Tensor | None, t: int, width: int, how: Search) -> _Beams:
    """Every picture's best `width` children, by perturbed score when sampling, else by log-probability."""
    top, ids = top_k(logits, how.keep)  # (M, N)
    logprob = top - logits.logsumexp(-1, keepdim=True)
    tempered = torch.log_softmax(top / how.temperature, -1) if how.method == "sample" else logprob
    # A finished beam has the single child `end`, at no cost.
    only = torch.full_like(top, _NEVER)
    only[:, 0] = 0
    done = beams.done.unsqueeze(1)
    logprob, tempered = torch.where(done, only, logprob), torch.where(done, only, tempered)
    ids = torch.where(done, beams.last.unsqueeze(1), ids)
    tempered = beams.tempered.unsqueeze(1) + tempered
    if noise is None:
        perturbed = tempered
    else:
        perturbed = conditioned(tempered + noise[t].flatten(0, 1), beams.perturbed.unsqueeze(1))
        perturbed = torch.where(done, torch.where(only < 0, _NEVER * 2, beams.perturbed.unsqueeze(1)), perturbed)
    perturbed, flat = perturbed.view(-1, width * how.keep).topk(width)  # (B, K)
    offset = torch.arange(len(flat), device=flat.device).unsqueeze(1) * width
    parents = (offset + flat // how.keep).flatten()  # (M,)
    children = parents * how.keep + (flat % how.keep).flatten()
    total = beams.logprob.unsqueeze(1) + logprob
    chosen = beams.select(parents)
    chosen.last = ids.flatten()[children]
    chosen.tokens = torch.cat([chosen.tokens, chosen.last.unsqueeze(1)], 1)
    chosen.perturbed, chosen.tempered = perturbed.flatten(), tempered.flatten()[children]
    chosen.logprob = total.flatten()[children]
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
