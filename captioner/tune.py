"""Fine-tunes the encoder's last stages on the words that people use of photographs.

ImageNet's thousand classes are breeds and tools; descriptions speak of boys, beaches and jumping. A linear layer reads
off the reduced grid's mean and maximum what share of a photograph's descriptions holds each word (as the word detectors
of Fang et al. 2015, for shares instead of yes and no), and its gradient goes on into the reduction and the encoder's
last stages. What comes before them is computed once.

Shapes: B photographs, C' channels half-way, D features, K words.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from captioner import devices
from captioner.checkpoint import Checkpoint
from captioner.data.pairs import words
from captioner.data.samples import Sample
from captioner.encoders import Encoder, Reduction, refresh
from captioner.features import Features, features
from captioner.recipe import Recipe

_FEWEST = 20
"""Descriptions that a word has to stand in."""
_BATCH, _RATE, _DECAY, _DROPOUT, _AVERAGED = 32, 1e-4, 0.05, 0.4, 0.99
_FIRST_RATE = 3e-4
_FIRST = 800
"""Steps in which the words alone are learnt, of features as they were published: they are cheap."""


@dataclass(frozen=True)
class Described:
    """Views of photographs half-way through the encoder, and what share of a photograph's descriptions has a word."""

    views: Features
    side: int
    pictures: list[Path]
    shares: Tensor  # (P, K)
    device: torch.device

    @classmethod
    def of(
        cls, samples: Sequence[Sample], stages: Encoder, views: int, folder: Path, known: Sequence[str]
    ) -> "Described":
        """Of the described photographs among the samples; `known` are the words."""
        said: dict[Path, list[set[str]]] = {}
        for sample in samples:
            said.setdefault(sample.picture, []).append(words(sample.text))
        place = {word: i for i, word in enumerate(known)}
        shares = torch.zeros(len(said), len(known))
        for row, texts in enumerate(said.values()):
            for word, count in Counter(w for text in texts for w in text if w in place).items():
                shares[row, place[word]] = count / len(texts)
        same = Reduction(stages.channels, stages.channels)
        same.basis.copy_(torch.eye(stages.channels))
        pictures = list(said)
        seen = features(stages, same, pictures, views, folder, template=False)
        device = stages.mean.device
        return cls(seen, math.isqrt(stages.regions), pictures, shares.to(device), device)

    def read(self, rows: Sequence[int], views: Sequence[int]) -> Tensor:
        """One view each of some photographs: (B, C', H', W')."""
        at = [self.views.rows[self.pictures[row]].start + view for row, view in zip(rows, views, strict=True)]
        grids = torch.from_numpy(self.views.grids[at]).to(self.device).float()
        placed = grids.view(len(at), self.side, self.side, -1).permute(0, 3, 1, 2)
        return placed.contiguous(memory_format=torch.channels_last)


def tune(checkpoint: Checkpoint, train: Sequence[Sample], dev: Sequence[Sample], recipe: Recipe, run: Path) -> None:
    """Gives the checkpoint last stages and a reduction that were fine-tuned in `recipe.tune` passes over photographs.

    The best pass by the photographs of `dev` counts. What was learnt before in the run's folder is taken from there.
    Raises ValueError for an encoder whose stages are not known, and where there are too few descriptions to learn from.
    """
    file = run / "encoder.safetensors"
    if not file.exists():
        save_file(_learnt(checkpoint, train, dev, recipe, run / "features"), file)
    found = load_file(file)
    checkpoint.reduction = Reduction(*found["basis"].shape)
    checkpoint.reduction.load_state_dict({name: found.pop(name) for name in ("mean", "basis")})
    checkpoint.last_stages = found


def _learnt(
    checkpoint: Checkpoint, train: Sequence[Sample], dev: Sequence[Sample], recipe: Recipe, folder: Path
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
        tuner = _Tuner(last, checkpoint.reduction, seen, recipe)
        tuner.fit(held)
    return _copy(last.cpu()) | tuner.reduction().state_dict()


class _Tuner:
    """The last stages, the reduction, and the layer that reads words off what they make of a photograph."""

    def __init__(self, last: nn.Module, reduction: Reduction, seen: Described, recipe: Recipe) -> None:
        self.seen, self.passes, self.dice = seen, recipe.tune, np.random.default_rng(recipe.seed)
        basis, shares = reduction.basis, seen.shares
        reduce, read = nn.Linear(*basis.shape), nn.Linear(2 * basis.shape[1], shares.shape[1])
        with torch.no_grad():
            reduce.weight.copy_(basis.T)
            reduce.bias.copy_(-(reduction.mean @ basis))
            read.weight.zero_()
            read.bias.copy_(shares.mean(0).clamp(1e-4, 1 - 1e-4).logit())
        self.last, self.reduce, self.read = last.requires_grad_(True), reduce.to(seen.device), read.to(seen.device)
        self.parts = nn.ModuleDict({"last": self.last, "reduce": self.reduce, "read": self.read})
        self._learn_words()

    def reduction(self) -> Reduction:
        made = Reduction(*self.reduce.weight.T.shape)
        made.basis = self.reduce.weight.detach().cpu().T.contiguous()
        # The bias is what the mean comes to, and there are more channels than dimensions.
        made.mean = torch.linalg.lstsq(made.basis.T, -self.reduce.bias.detach().cpu().unsqueeze(1)).solution.squeeze(1)
        return made

    def fit(self, held: Described) -> None:
        each = max(1, len(self.seen.pictures) // _BATCH)
        optimiser = torch.optim.AdamW(self.parts.parameters(), _RATE, weight_decay=_DECAY, betas=(0.9, 0.98))
        decay = torch.optim.lr_scheduler.LambdaLR(optimiser, _Rate(self.passes * each))
        average = _copy(self.parts)
        best = (self._loss(held), _copy(self.parts))
        bar = tqdm(total=self.passes * each, desc="encoder", unit="step", postfix={"held out": f"{best[0]:.3f}"})
        for _ in range(self.passes):
            for rows in np.array_split(self.dice.permutation(len(self.seen.pictures)), each):
                self._step(rows.tolist(), optimiser)
                decay.step()
                with torch.no_grad():
                    for name, value in self.parts.state_dict().items():
                        average[name].lerp_(value, 1 - _AVERAGED)
                bar.update()
            learning = _copy(self.parts)
            self.parts.load_state_dict(average)
            best = min(best, (self._loss(held), _copy(self.parts)), key=lambda found: found[0])
            bar.set_postfix({"held out": f"{best[0]:.3f}"})
            self.parts.load_state_dict(learning)
        bar.close()
        self.parts.load_state_dict(best[1])

    def _step(self, rows: list[int], optimiser: torch.optim.Optimizer) -> None:
        views = self.dice.integers(self.seen.views.views, size=len(rows)).tolist()
        said = self._said(self._pooled(self.seen.read(rows, views)), dropout=True)
        optimiser.zero_grad(set_to_none=True)
        _missed(said, self.seen.shares[rows]).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.parts.parameters(), 5.0)
        optimiser.step()

    def _learn_words(self) -> None:
        """So that the first gradients to reach the stages already mean something."""
        pooled = self._all_pooled(self.seen)
        optimiser = torch.optim.AdamW(self.read.parameters(), _FIRST_RATE, weight_decay=_DECAY)
        for _ in range(_FIRST):
            rows = torch.from_numpy(self.dice.integers(len(pooled), size=8 * _BATCH))
            optimiser.zero_grad(set_to_none=True)
            said = self._said(pooled[rows], dropout=True)
            _missed(said, self.seen.shares[rows]).backward()  # type: ignore[no-untyped-call]
            optimiser.step()

    def _pooled(self, halfway: Tensor) -> Tensor:
        """Half-way features (B, C', H', W') to the mean and the maximum (B, 2D) of the reduced grid."""
        grid = self.reduce(self.last(halfway).flatten(2).transpose(1, 2))
        return torch.cat([grid.mean(1), grid.amax(1)], 1)

    @torch.no_grad()
    def _all_pooled(self, described: Described) -> Tensor:
        """Of the first view of every photograph."""
        refresh(self.last)
        rows = [part.tolist() for part in torch.split(torch.arange(len(described.pictures)), 50)]
        return torch.cat([self._pooled(described.read(part, [0] * len(part))) for part in rows])

    def _said(self, pooled: Tensor, *, dropout: bool) -> Tensor:
        """Logits (B, K) of the words."""
        made: Tensor = self.read(F.dropout(pooled, _DROPOUT, dropout))
        return made

    @torch.no_grad()
    def _loss(self, held: Described) -> float:
        """Nats a photograph on those held out."""
        return float(_missed(self._said(self._all_pooled(held), dropout=False), held.shares))


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
