"""Fine-tuning: a model learns from the votes on its own memes, beside replay of what it or people wrote before.

The votes are read through the taste that they make up (captioner.taste): it tells of captions that were posted, and of
those that were written beside them, how much better than usual they are liked, with less noise than one vote has. Two
methods. *kto* (Ethayarajh et al. 2024) raises the likelihood of what is liked and lowers that of what is not, each
against the model it began as; *weighted* is likelihood weighted by the taste, which cannot push a caption down. On
replayed texts the network is held to what it said of every next word before (the Kullback-Leibler divergence), and the
run ends for good where it has moved too far on those that it is not held to.

Deviation from KTO: the divergence that its rewards are measured against is that of the batch's own captions rather than
of mismatched ones, which spares a third pass.

A meme whose picture's features were not kept, or are another model's, is learnt with the mean grid of its template's
memes that have some, else with the origin of the reduction, which is the mean of all pictures: its words and their
order, whatever is seen.

Resumable: batches are a function of seed and step, the rest is in the saved state. A step unpacks one batch of grids.
"""

import hashlib
import json
import math
import random
from collections import defaultdict
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from captioner import judge
from captioner.checkpoint import Checkpoint
from captioner.labels import Labels, Meme, TooFewLabelsError, eyes, seen_by, split, unpacked
from captioner.recipe import run_folder
from captioner.replay import Replay, Text, logprob, padded, replay
from captioner.taste import Taste

METHODS = ("kto", "weighted")
_DEV = 8
"""One in so many replayed texts is kept to measure the divergence."""
_POINTS = 0.1
"""Of approval, that count as one vote: little evidence moves little."""


@dataclass(frozen=True)
class Recipe:
    """What `key=value` on the command line may change."""

    method: str = "kto"
    seed: int = 1
    memes: int = 2000
    downs: int = 200
    """Memes with votes, and votes against one, below which nothing is learnt; what is held out counts as well."""
    epochs: float = 1.0
    batch: int = 32
    """Captions of a step, and as many replayed texts."""
    others: int = 4
    """Captions that were not posted, of every meme."""
    rate: float = 2e-4
    beta: float = 0.1
    replay: float = 0.5
    """The weight of the divergence on replayed texts."""
    texts: int = 1200
    """Replayed, about."""
    divergence: float = 0.12
    """Nats a token on replay at which a run ends."""
    check_every: int = 10


@dataclass(frozen=True)
class Lessons:
    """What is voted on refers to `pictures`, what is replayed to the replay's own grids."""

    pictures: list[bytes | np.ndarray]
    """Packed, or a template's mean."""
    voted: list[Text]
    replay: Replay


def finetune(
    checkpoint: Checkpoint, labels: Labels, out: Path, recipe: Recipe, sets: dict[str, Path] | None = None
) -> dict[str, Any]:
    """Fine-tunes the checkpoint on the labels, which must be the split to learn from, and saves it to `out`.

    Gives the figures, which the checkpoint keeps, too; the state to resume from lies in a folder of out's name. Raises
    ValueError for a recipe that cannot be followed, TooFewLabelsError where nothing can be learnt.
    """
    if recipe.method not in METHODS:
        raise ValueError(f"There is no method {recipe.method}; known are {', '.join(METHODS)}.")
    if not recipe.beta:
        raise ValueError("beta takes a number above 0: it says how far from the old model a caption may come.")
    run = run_folder(out, (sets or {}).values())
    run.mkdir(parents=True, exist_ok=True)
    labels = seen_by(labels, eyes(checkpoint.reduction.basis.numpy()))
    lessons = prepare(checkpoint, labels, recipe, sets or {})
    figures = {
        "method": recipe.method,
        "memes": len(labels.memes),
        "votes": round(labels.votes, 1),
        **Tuner(checkpoint, lessons, recipe, run).fit(),
    }
    checkpoint.facts = {"recipe": asdict(recipe), "figures": figures, "started_from": checkpoint.facts}
    checkpoint.facts["parent"] = checkpoint.name
    checkpoint.name = out.stem
    checkpoint.save(out)
    return figures


def enough(labels: Labels, recipe: Recipe) -> None:
    """Raises TooFewLabelsError where all labels are fewer than the recipe asks for, or those held out than the gate."""
    if len(labels.memes) < recipe.memes or labels.downs < recipe.downs:
        raise TooFewLabelsError(
            f"There are {len(labels.memes)} memes with votes and {labels.downs:.0f} votes against one: fine-tuning "
            f"takes {recipe.memes} and {recipe.downs}."
        )
    judge.evidence(split(labels)[1].memes)


def prepare(checkpoint: Checkpoint, labels: Labels, recipe: Recipe, sets: dict[str, Path]) -> Lessons:
    """The captions with what they are worth, and the replay. Raises TooFewLabelsError where all are worth the same."""
    taste = Taste.fitted(labels.memes, None, labels.pairs)
    pictures, numbers = _pictures(labels.memes)
    rng = random.Random(recipe.seed)  # noqa: S311, no secret
    captions: list[tuple[tuple[str, ...], int | None]] = []
    for meme, number in zip(labels.memes, numbers, strict=True):
        others = rng.sample(meme.candidates, min(recipe.others, len(meme.candidates)))
        captions += [(boxes, number) for boxes in (meme.boxes, *others)]
    liked = taste.score([boxes for boxes, _ in captions])
    liked -= liked.mean()
    if not liked.any():
        raise TooFewLabelsError("The votes tell no caption from another.")
    ids = checkpoint.tokenizer.encode_batch([boxes for boxes, _ in captions])
    liked /= _POINTS
    voted = [
        Text(row, "meme", number, max(value, 0.0), max(-value, 0.0))
        for row, (_, number), value in zip(ids, captions, liked.tolist(), strict=True)
    ]
    return Lessons(pictures, voted, replay(checkpoint, labels, sets, recipe.texts, recipe.seed))


def _pictures(memes: Sequence[Meme]) -> tuple[list[bytes | np.ndarray], list[int | None]]:
    """All pictures' grids, and which one each meme is learnt with."""
    sums: dict[str, np.ndarray] = {}
    counts: dict[str, int] = defaultdict(int)
    for meme in memes:
        if meme.features and meme.template:
            sums[meme.template] = sums.get(meme.template, 0) + unpacked(meme.features)
            counts[meme.template] += 1
    means = sorted(sums)
    found: list[bytes | np.ndarray] = [sums[t] / counts[t] for t in means]
    numbers: list[int | None] = []
    for meme in memes:
        if meme.features:
            numbers.append(len(found))
            found.append(meme.features)
        else:
            numbers.append(means.index(meme.template) if meme.template in sums else None)
    return found, numbers


class Tuner:
    """Moves a checkpoint's decoder; counts, gate and everything else stay."""

    def __init__(self, checkpoint: Checkpoint, lessons: Lessons, recipe: Recipe, run: Path) -> None:
        self.checkpoint, self.lessons, self.recipe, self.run = checkpoint, lessons, recipe, run
        self.model = checkpoint.decoder.eval()  # no dropout: ratios of likelihoods would drown in it
        self.before = deepcopy(self.model).requires_grad_(False)
        self.model.requires_grad_(True)
        checkpoint.gate.requires_grad_(False)
        self.optimiser = torch.optim.AdamW(self.model.parameters(), recipe.rate, weight_decay=0.0, betas=(0.9, 0.98))
        texts = lessons.replay.texts
        self.dev, self.held = texts[::_DEV], [t for i, t in enumerate(texts) if i % _DEV]
        self.shape = lessons.replay.grids[0].shape
        self.steps = max(1, math.ceil(recipe.epochs * len(lessons.voted) / recipe.batch))
        self.step = 0
        self.log: list[dict[str, float]] = []
        self.kept = _copied(self.model)
        self.ended = False

    def fit(self) -> dict[str, float]:
        """To the last step or the divergence; the model ends as it was at the last check within the divergence."""
        self._resume()
        bar = tqdm(total=self.steps, initial=self.step, unit="step", mininterval=5)
        losses: list[float] = []
        while self.step < self.steps and not self.ended:
            losses.append(self._update())
            bar.update()
            if self.step % self.recipe.check_every == 0 or self.step == self.steps:
                self._check(self._moved(), float(np.mean(losses)))
                losses.clear()
                bar.set_postfix(loss=f"{self.log[-1]['loss']:.3f}", divergence=f"{self.log[-1]['divergence']:.3f}")
        bar.close()
        self.model.load_state_dict(self.kept)
        self.model.requires_grad_(False)
        self.model.refresh()
        within = [row for row in self.log if row["divergence"] <= self.recipe.divergence]
        return {k: within[-1][k] if within else 0.0 for k in ("step", "divergence")}

    def _update(self) -> float:
        batch = _cycled(self.lessons.voted, self.recipe.batch, self.step, self.recipe.seed)
        held = _cycled(self.held, self.recipe.batch, self.step, self.recipe.seed + 1)
        self.optimiser.zero_grad(set_to_none=True)
        loss = self._kto(batch) if self.recipe.method == "kto" else self._weighted(batch)
        loss = loss + self.recipe.replay * self._divergence(held)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.step += 1
        return loss.item()

    def _kto(self, batch: Sequence[Text]) -> Tensor:
        ratio = self._logprob(self.model, batch, self.lessons.pictures)
        with torch.no_grad():
            first = self._logprob(self.before, batch, self.lessons.pictures)
            usual = (ratio - first).mean().clamp(min=0)
        up, down = (torch.tensor(column) for column in zip(*((t.up, t.down) for t in batch), strict=True))
        value = (self.recipe.beta * (ratio - first - usual)).sigmoid()
        # up · (1 - value) + down · value, but for a constant; over beta, so that it does not set the pace
        return ((down - up) * value).mean() / self.recipe.beta

    def _weighted(self, batch: Sequence[Text]) -> Tensor:
        found = self._logprob(self.model, batch, self.lessons.pictures)
        weight = torch.tensor([t.up - t.down for t in batch]).exp().clamp(0.3, 3)
        return -(weight * found).sum() / weight.mean() / sum(len(t.ids) for t in batch)

    def _logprob(self, model: nn.Module, batch: Sequence[Text], grids: Sequence[bytes | np.ndarray]) -> Tensor:
        return logprob(self.checkpoint, model, self._stacked(batch, grids), batch)

    def _stacked(self, batch: Sequence[Text], grids: Sequence[bytes | np.ndarray]) -> Tensor:
        """Grids (B, R, D)."""
        found = [np.zeros(self.shape, np.float32) if t.grid is None else _plain(grids[t.grid]) for t in batch]
        return torch.from_numpy(np.stack(found)).float()

    def _divergence(self, batch: Sequence[Text]) -> Tensor:
        """Nats a token from what the network said before of the words that may follow, over the replayed texts."""
        tokens, _, keep = padded(self.checkpoint, batch)
        grids = self._stacked(batch, self.lessons.replay.grids)
        with torch.no_grad():
            before = self.before(grids, tokens, keep).log_softmax(-1)  # (N, V)
        now = self.model(grids, tokens, keep).log_softmax(-1)
        return F.kl_div(now, before, reduction="batchmean", log_target=True)

    @torch.no_grad()
    def _moved(self) -> float:
        """The divergence on the texts that the model is not held to."""
        parts = [self.dev[i : i + self.recipe.batch] for i in range(0, len(self.dev), self.recipe.batch)]
        sizes = [sum(len(t.ids) for t in part) for part in parts]
        each = [float(self._divergence(part)) for part in parts]
        return sum(d * n for d, n in zip(each, sizes, strict=True)) / sum(sizes)

    def _check(self, divergence: float, loss: float) -> None:
        self.log.append({"step": float(self.step), "loss": loss, "divergence": divergence})
        self.ended = divergence > self.recipe.divergence
        if not self.ended:
            self.kept = _copied(self.model)
        state = {
            "about": self._about(),
            "model": self.model.state_dict(),
            "kept": self.kept,
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "ended": self.ended,
            "log": self.log,
        }
        torch.save(state, self.run / "state.part")
        (self.run / "state.part").replace(self.run / "state.pt")

    def _resume(self) -> None:
        file = self.run / "state.pt"
        if not file.exists():
            return
        state: dict[str, Any] = torch.load(file, weights_only=True)
        if state["about"] != self._about():
            raise ValueError(f"{file} is of a run with other labels, replay or recipe; remove it.")
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.kept, self.step, self.ended, self.log = (state[k] for k in ("kept", "step", "ended", "log"))

    def _about(self) -> str:
        """What a run that goes on must have in common with the one that began."""
        # Rounded: what the last bits are depends on the machine's threads.
        voted = [[t.ids, t.grid, round(t.up, 4), round(t.down, 4)] for t in self.lessons.voted]
        replayed = [[t.ids, t.style, t.grid] for t in self.lessons.replay.texts]
        made = hashlib.blake2b(digest_size=8)
        made.update(json.dumps([asdict(self.recipe), self.checkpoint.name, voted, replayed]).encode())
        for picture in self.lessons.pictures:
            made.update(picture if isinstance(picture, bytes) else picture.tobytes())
        return made.hexdigest()


def _plain(grid: bytes | np.ndarray) -> np.ndarray:
    return unpacked(grid) if isinstance(grid, bytes) else grid


def _copied(model: nn.Module) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in model.state_dict().items()}


def _cycled(texts: Sequence[Text], count: int, step: int, seed: int) -> list[Text]:
    """The batch of a step, from one permutation after another."""
    places = np.arange(step * count, (step + 1) * count)
    epochs = {e: np.random.default_rng([seed, e]).permutation(len(texts)) for e in set((places // len(texts)).tolist())}
    return [texts[int(epochs[p // len(texts)][p % len(texts)])] for p in places.tolist()]
