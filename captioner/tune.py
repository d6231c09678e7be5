"""Fine-tunes the encoder's last stages on the words that people use of photographs.

ImageNet's thousand classes are breeds and tools; descriptions speak of boys, beaches and jumping. A linear layer reads
off the reduced grid's mean and maximum what share of a photograph's descriptions holds each word (as the word detectors
of Fang et al. 2015, for shares instead of yes and no), and its gradient goes on into the reduction and the encoder's
last stages. What comes before them is computed once.

Then, where the recipe says so, the checkpoint's decoder joins: a copy of it, thrown away at the end, learns to tell
whole descriptions of what the stages give, and its gradient reaches them as well (as Vinyals et al. 2017 fine-tune).

Shapes: B photographs, R places of the grid, C' channels half-way, D features, K words, N captions, T tokens.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from captioner import devices
from captioner.batches import padded
from captioner.checkpoint import Checkpoint
from captioner.data.pairs import words
from captioner.data.samples import Sample, digest
from captioner.encoders import Encoder, Reduction, refresh
from captioner.features import Features, features
from captioner.recipe import Recipe

_FEWEST = 20
"""Descriptions that a word has to stand in."""
_BATCH, _RATE, _DECAY, _DROPOUT, _AVERAGED = 32, 1e-4, 0.05, 0.4, 0.99
_FIRST_RATE = 3e-4
_FIRST = 800
"""Steps in which the words alone are learnt, of features as they were published: they are cheap."""
_TOLD, _LONGEST = 5, 24
"""Descriptions of a photograph that are told at once, and the ids that one has at most."""
_TOLD_BATCH, _TOLD_RATE, _TELLER_RATE, _TOLD_AVERAGED = 24, 6e-5, 8e-4, 0.996
_WORDS_WEIGHT = 0.05
"""Of a photograph's nats of words beside nats a token of its descriptions."""
_DECIDING = ("tune", "told", "start", "seed", "photograph_views", "describe_dropout", "describe_smoothing", "dropout")
"""What of a recipe the stages' weights depend on."""


@dataclass(frozen=True)
class Described:
    """Views of photographs half-way through the encoder, and what share of a photograph's descriptions has a word."""

    views: Features
    side: int
    pictures: list[Path]
    shares: Tensor  # (P, K)
    texts: list[list[str]]
    device: torch.device

    @classmethod
    def of(
        cls, samples: Sequence[Sample], stages: Encoder, views: int, folder: Path, known: Sequence[str]
    ) -> "Described":
        """Of the described photographs among the samples; `known` are the words."""
        said: dict[Path, list[str]] = {}
        for sample in samples:
            said.setdefault(sample.picture, []).append(sample.text)
        place = {word: i for i, word in enumerate(known)}
        shares = torch.zeros(len(said), len(known))
        for row, texts in enumerate(said.values()):
            used = [words(text) for text in texts]
            for word, count in Counter(w for found in used for w in found if w in place).items():
                shares[row, place[word]] = count / len(texts)
        same = Reduction(stages.channels, stages.channels)
        same.basis.copy_(torch.eye(stages.channels))
        pictures = list(said)
        seen = features(stages, same, pictures, views, folder, template=False)
        device = stages.mean.device
        return cls(seen, math.isqrt(stages.regions), pictures, shares.to(device), list(said.values()), device)

    def read(self, rows: Sequence[int], views: Sequence[int]) -> Tensor:
        """One view each of some photographs: (B, C', H', W')."""
        at = [self.views.rows[self.pictures[row]].start + view for row, view in zip(rows, views, strict=True)]
        grids = torch.from_numpy(self.views.grids[at]).to(self.device).float()
        placed = grids.view(len(at), self.side, self.side, -1).permute(0, 3, 1, 2)
        return placed.contiguous(memory_format=torch.channels_last)


class Teller(nn.Module):
    """A copy of a checkpoint's decoder, and the descriptions of some photographs that it learns to tell."""

    def __init__(self, checkpoint: Checkpoint, recipe: Recipe, device: torch.device) -> None:
        super().__init__()
        self.decoder = deepcopy(checkpoint.decoder).to(device)
        self.decoder.shorten(None)
        self.decoder.drop(recipe.describe_dropout or recipe.dropout)
        self.smoothing, self.tokenizer = recipe.describe_smoothing, checkpoint.tokenizer

    def ids(self, described: Described, taught: Sequence[Sample] = ()) -> list[list[list[int]]]:
        """Those of every photograph's descriptions, people's and teachers', over-long ones left out."""
        more: dict[Path, list[str]] = {}
        for sample in taught:
            more.setdefault(sample.picture, []).append(sample.text)
        texts = [own + more.get(p, []) for p, own in zip(described.pictures, described.texts, strict=True)]
        each = [self.tokenizer.encode_batch([[text] for text in own]) for own in texts]
        return [[ids for ids in texts if len(ids) <= _LONGEST] for texts in each]

    def missed(self, grid: Tensor, said: Sequence[tuple[int, list[int]]]) -> Tensor:
        """Nats a token, of descriptions (N of T ids) of the places (B, R, D) that each names by its row."""
        prefix = self.tokenizer.prefix("describe")
        tokens, targets = padded([prefix] * len(said), [ids for _, ids in said], self.tokenizer.pad)
        rows = torch.tensor([row for row, _ in said], device=grid.device)
        tokens, targets = tokens.to(grid.device), targets.to(grid.device)
        logits = self.decoder(grid[rows], tokens, targets >= 0)
        smoothing = self.smoothing if self.training else 0.0
        lost = F.cross_entropy(logits, targets[targets >= 0], label_smoothing=smoothing)
        return lost + (self.decoder.penalty() if self.training else 0.0)


def tune(
    checkpoint: Checkpoint,
    train: Sequence[Sample],
    dev: Sequence[Sample],
    recipe: Recipe,
    run: Path,
    taught: Sequence[Sample] = (),
) -> None:
    """Gives the checkpoint last stages and a reduction that were fine-tuned on photographs.

    In `recipe.tune` passes over them on their words, and in `recipe.told` further ones on their descriptions, which are
    people's and those `taught`. Of either the best pass by the photographs of `dev` counts. What was learnt before in
    the run's folder is taken from there.
    Raises ValueError for an encoder whose stages are not known, where there are too few descriptions to learn from, and
    where the folder holds what was learnt by another recipe or of other data.
    """
    file, part = run / "encoder.safetensors", run / "encoder.part"
    told = [*(getattr(recipe, key) for key in _DECIDING), digest(train), digest(dev), *(s.text for s in taught)]
    facts = {"of": hashlib.blake2b(json.dumps(told).encode(), digest_size=8).hexdigest()}
    if file.exists():
        with safe_open(file, "pt") as opened:
            if opened.metadata() != facts:
                raise ValueError(
                    f"{file} was learnt by another recipe or of other data; remove it or choose another --out."
                )
    else:
        save_file(_learnt(checkpoint, train, dev, recipe, run / "features", taught), part, facts)
        part.replace(file)
    found = load_file(file)
    checkpoint.reduction = Reduction(*found["basis"].shape)
    checkpoint.reduction.load_state_dict({name: found.pop(name) for name in ("mean", "basis")})
    checkpoint.last_stages = found


def _learnt(
    checkpoint: Checkpoint,
    train: Sequence[Sample],
    dev: Sequence[Sample],
    recipe: Recipe,
    folder: Path,
    taught: Sequence[Sample],
) -> dict[str, Tensor]:
    encoder = checkpoint.build_encoder().to(devices.for_training(recipe.device))
    stages, last = encoder.halves()
    counts = Counter(w for sample in train for w in words(sample.text))
    known = sorted(w for w, n in counts.items() if n >= _FEWEST)
    if not known or not dev:
        raise ValueError("There are too few descriptions to fine-tune the encoder with.")
    seen = Described.of(train, stages, recipe.photograph_views, folder, known)
    held = Described.of(dev, stages, 1, folder, known)
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        tuner = _Tuner(last, checkpoint.reduction, seen, held, recipe.seed)
        if recipe.tune:
            tuner.fit(recipe.tune)
        if recipe.told:
            tuner.tell(Teller(checkpoint, recipe, seen.device), taught)
            tuner.fit(recipe.told)
    return _copy(last.cpu()) | tuner.reduction().state_dict()


class _Tuner:
    """The last stages, the reduction, and the layer that reads words off what they make of a photograph."""

    def __init__(self, last: nn.Module, reduction: Reduction, seen: Described, held: Described, seed: int) -> None:
        self.seen, self.held, self.dice = seen, held, np.random.default_rng(seed)
        basis, shares = reduction.basis, seen.shares
        reduce, read = nn.Linear(*basis.shape), nn.Linear(2 * basis.shape[1], shares.shape[1])
        with torch.no_grad():
            reduce.weight.copy_(basis.T)
            reduce.bias.copy_(-(reduction.mean @ basis))
            read.weight.zero_()
            read.bias.copy_(shares.mean(0).clamp(1e-4, 1 - 1e-4).logit())
        self.last, self.reduce, self.read = last.requires_grad_(True), reduce.to(seen.device), read.to(seen.device)
        self.parts = nn.ModuleDict({"last": self.last, "reduce": self.reduce, "read": self.read})
        self.teller: Teller | None = None
        self.batch, self.averaged = _BATCH, _AVERAGED
        self.groups: list[dict[str, Any]] = [
            {"params": list(self.parts.parameters()), "lr": _RATE, "weight_decay": _DECAY}
        ]
        self._learn_words()

    def tell(self, teller: Teller, taught: Sequence[Sample]) -> None:
        """From now on the descriptions count as well as their words."""
        self.teller = self.parts["teller"] = teller
        self.told, self.told_held = teller.ids(self.seen, taught), teller.ids(self.held)
        self.batch, self.averaged = _TOLD_BATCH, _TOLD_AVERAGED
        self.groups = [
            {"params": list(self.last.parameters()), "lr": _TOLD_RATE, "weight_decay": 0.01},
            {"params": list(self.reduce.parameters()), "lr": 4 * _TOLD_RATE, "weight_decay": 0.0},
            {"params": list(self.read.parameters()), "lr": _FIRST_RATE, "weight_decay": _DECAY},
            {"params": list(teller.parameters()), "lr": _TELLER_RATE, "weight_decay": 0.02},
        ]

    def reduction(self) -> Reduction:
        made = Reduction(*self.reduce.weight.T.shape)
        made.basis = self.reduce.weight.detach().cpu().T.contiguous()
        # The bias is what the mean comes to, and there are more channels than dimensions.
        made.mean = torch.linalg.lstsq(made.basis.T, -self.reduce.bias.detach().cpu().unsqueeze(1)).solution.squeeze(1)
        return made

    def fit(self, passes: int) -> None:
        """The best of so many passes, and of what was before."""
        each = max(1, len(self.seen.pictures) // self.batch)
        optimiser = torch.optim.AdamW(self.groups, betas=(0.9, 0.98))
        decay = torch.optim.lr_scheduler.LambdaLR(optimiser, _Rate(passes * each))
        average = _copy(self.parts)
        best = (self._loss(), _copy(self.parts))
        bar = tqdm(total=passes * each, desc="encoder", unit="step", postfix={"held out": f"{best[0]:.3f}"})
        for _ in range(passes):
            for rows in np.array_split(self.dice.permutation(len(self.seen.pictures)), each):
                self._step(rows.tolist(), optimiser)
                decay.step()
                with torch.no_grad():
                    for name, value in self.parts.state_dict().items():
                        if value.is_floating_point():
                            average[name].lerp_(value, 1 - self.averaged)
                bar.update()
            learning = _copy(self.parts)
            self.parts.load_state_dict(average)
            best = min(best, (self._loss(), _copy(self.parts)), key=lambda found: found[0])
            bar.set_postfix({"held out": f"{best[0]:.3f}"})
            self.parts.load_state_dict(learning)
        bar.close()
        self.parts.load_state_dict(best[1])

    def _step(self, rows: list[int], optimiser: torch.optim.Optimizer) -> None:
        # Descriptions are learnt by heart sooner than words: blocks are skipped at random (Huang et al. 2016).
        self.parts.train(self.teller is not None)
        views = self.dice.integers(self.seen.views.views, size=len(rows)).tolist()
        grid = self._grid(self.seen.read(rows, views))
        missed = self._missed(grid, self.seen.shares[rows], self._drawn(rows))
        optimiser.zero_grad(set_to_none=True)
        missed.backward()  # type: ignore[no-untyped-call]
        for group in self.groups:
            nn.utils.clip_grad_norm_(group["params"], 1.0 if self.teller else 5.0)
        optimiser.step()

    def _missed(
        self, grid: Tensor, shares: Tensor, told: Sequence[tuple[int, list[int]]], dropout: bool = True
    ) -> Tensor:
        """Nats a photograph of words or, with a teller, their share beside nats a token of descriptions."""
        missed = _missed(self._said(_pooled(grid), dropout=dropout), shares)
        if self.teller is None:
            return missed
        return _WORDS_WEIGHT * missed + (self.teller.missed(grid, told) if told else 0.0)

    def _drawn(self, rows: list[int]) -> list[tuple[int, list[int]]]:
        """Some descriptions of every photograph, each beside its row in the batch; none without a teller."""
        if self.teller is None:
            return []
        drawn = [self.dice.permutation(len(self.told[row]))[:_TOLD] for row in rows]
        return [(at, self.told[row][i]) for at, (row, some) in enumerate(zip(rows, drawn, strict=True)) for i in some]

    def _learn_words(self) -> None:
        """So that the first gradients to reach the stages already mean something."""
        pooled = torch.cat([_pooled(grid) for _, grid in self._grids(self.seen)])
        optimiser = torch.optim.AdamW(self.read.parameters(), _FIRST_RATE, weight_decay=_DECAY)
        for _ in range(_FIRST):
            rows = torch.from_numpy(self.dice.integers(len(pooled), size=8 * _BATCH))
            optimiser.zero_grad(set_to_none=True)
            said = self._said(pooled[rows], dropout=True)
            _missed(said, self.seen.shares[rows]).backward()  # type: ignore[no-untyped-call]
            optimiser.step()

    def _grid(self, halfway: Tensor) -> Tensor:
        """Half-way features (B, C', H', W') to the reduced grid (B, R, D)."""
        made: Tensor = self.reduce(self.last(halfway).flatten(2).transpose(1, 2))
        return made

    def _grids(self, described: Described) -> Iterator[tuple[list[int], Tensor]]:
        """Of the first view of every photograph, some at a time, with their rows; without gradients."""
        refresh(self.last)
        for part in torch.split(torch.arange(len(described.pictures)), 50):
            with torch.no_grad():
                grid = self._grid(described.read(part.tolist(), [0] * len(part)))
            yield part.tolist(), grid

    def _said(self, pooled: Tensor, *, dropout: bool) -> Tensor:
        """Logits (B, K) of the words."""
        made: Tensor = self.read(F.dropout(pooled, _DROPOUT, dropout))
        return made

    @torch.no_grad()
    def _loss(self) -> float:
        """What steps go down, on the photographs held out."""
        self.parts.eval()
        lost = 0.0
        for rows, grid in self._grids(self.held):
            told = [(at, ids) for at, row in enumerate(rows) for ids in self.told_held[row]] if self.teller else []
            lost += len(rows) * float(self._missed(grid, self.held.shares[rows], told, dropout=False))
        return lost / len(self.held.pictures)


def _pooled(grid: Tensor) -> Tensor:
    """The mean and the maximum (B, 2D) of a grid (B, R, D)."""
    return torch.cat([grid.mean(1), grid.amax(1)], 1)


def _copy(parts: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in parts.state_dict().items()}


@dataclass(frozen=True)
class _Rate:
    """Of a step, as a share: rises over a tenth of them, then falls along a cosine."""

    steps: int

    def __call__(self, step: int) -> float:
        return min(1.0, (step + 1) / (0.1 * self.steps)) * (0.02 + 0.49 * (1 + math.cos(math.pi * step / self.steps)))


def _missed(said: Tensor, shares: Tensor) -> Tensor:
    """Logits and shares (B, K) to the mean over photographs of what all words miss by, in nats."""
    return F.binary_cross_entropy_with_logits(said, shares, reduction="none").sum(1).mean()
