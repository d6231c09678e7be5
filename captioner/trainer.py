"""The training loop: a checkpoint's decoder is fitted to batches, averaged, and checked on held-out captions.

Everything that learns lies on the recipe's device until the run is over; what is saved can be read without a GPU.
"""

import csv
import json
import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from captioner import devices
from captioner.batches import Batch, batches, collate
from captioner.checkpoint import Checkpoint
from captioner.corpora import Corpus, held_back
from captioner.data.samples import digest
from captioner.mixture import NEVER
from captioner.recipe import Recipe, rate
from captioner.self_critical import Critic


@dataclass
class Progress:
    """What a run saves besides weights."""

    step: int = 0
    spent: float = 0.0
    """Seconds of learning, checks left out."""
    tokens: int = 0
    """Predicted so far."""
    best: float = math.inf
    worse: int = 0
    """Checks since the best one."""
    reward: float = math.nan
    """Of the descriptions drawn last, and how far the advantages spread of late; of a self-critical run."""
    spread: float = 1.0
    log: list[dict[str, float]] = field(default_factory=list)


class Trainer:
    """Fits a checkpoint's decoder, which ends on the CPU with the averaged weights of the best check.

    Raises ValueError for a device or a precision that is not there; and when it fits, where the run's folder holds a
    run of something else.
    """

    def __init__(self, checkpoint: Checkpoint, recipe: Recipe, run: Path) -> None:
        self.checkpoint, self.recipe, self.run = checkpoint, recipe, run
        self.model = checkpoint.decoder
        self.gate = checkpoint.gate
        self.device = devices.for_training(recipe.device)
        self.is_mixed = devices.is_mixed(recipe.precision, self.device)
        self.both = nn.ModuleDict({"decoder": self.model, "gate": self.gate}).to(self.device)
        self.optimiser = torch.optim.AdamW(
            self.both.parameters(), recipe.rate, weight_decay=recipe.weight_decay, betas=(0.9, 0.98), fused=True
        )
        self.average = {k: v.clone() for k, v in self.both.state_dict().items()}
        self.best = self.average
        self.critic: Critic | None = None
        self.progress = Progress()
        self.of: dict[str, Any] = {}

    def fit(self, train: list[Corpus], dev: list[Corpus]) -> list[dict[str, float]]:
        """Trains to the recipe's last step, from where an earlier run was cut off; gives the log."""
        config = json.dumps(asdict(self.model.config))
        corpora = [[c.name, digest(c.samples)] for c in (*train, *dev)]
        self.of = {"decoder": self.checkpoint.decoder_name, "config": config, "corpora": corpora}
        train, back = held_back(train, self.recipe.held_back)
        if self.recipe.self_critical:
            self.critic = self._critic(back if self.recipe.held_back else train)
        self._resume()
        stream = batches(train, self.checkpoint.tokenizer, self.recipe, self.progress.step)
        steps = None if self.recipe.minutes else self.recipe.steps
        bar = tqdm(total=steps, initial=self.progress.step, unit="step", smoothing=0.01, mininterval=5)
        losses: list[Tensor] = []
        started = time.monotonic()
        if not self.progress.log and self.progress.step == self.recipe.steps:  # nothing to learn, only to be equipped
            self._check(dev, math.nan, 0.0)
        while self._done() < 1:
            before = self._done()
            losses.append(self._update([part.to(self.device) for part in next(stream)]))
            bar.update()
            if self.progress.step % 50 == 0:
                bar.set_postfix(loss=f"{torch.stack(losses[-50:]).mean().item():.3f}")
            if self._is_due(before):
                self._check(dev, float(np.mean(torch.stack(losses).tolist())), time.monotonic() - started)
                losses.clear()
        bar.close()
        self.both.load_state_dict(self.best)
        self.both.cpu().eval()
        return self.progress.log

    def kept(self) -> dict[str, float]:
        """The check, of those so far, whose weights are kept."""
        if self.critic:
            return self.progress.log[-1]
        known = [row for row in self.progress.log if not math.isnan(total(row))]
        return min(reversed(known or self.progress.log), key=total)  # the last of equals, as in `_check`

    def _done(self) -> float:
        """The share of the run that is over."""
        if self.recipe.patience and self.progress.worse >= self.recipe.patience:
            return 1.0
        if self.recipe.minutes:
            return self.progress.spent / (60 * self.recipe.minutes)
        return self.progress.step / self.recipe.steps if self.recipe.steps else 1.0

    def _is_due(self, before: float) -> bool:
        """Whether a check is due: after so many steps or, of a run by time, a share of it; and at the end."""
        if self.recipe.minutes:
            return int(before * _CHECKS) < int(self._done() * _CHECKS)
        return self.progress.step % self.recipe.check_every == 0 or self._done() >= 1

    def _update(self, parts: Sequence[Batch]) -> Tensor:
        """One step; gives the loss in nats a token, which a GPU may still be computing."""
        began = self._clock()
        self.both.train()
        for group in self.optimiser.param_groups:
            group["lr"] = rate(self.recipe, self.progress.step, self._done() if self.recipe.minutes else None)
        self.optimiser.zero_grad(set_to_none=True)
        size = sum(len(part.counted) for part in parts)
        loss = torch.stack([self._learn(part, len(part.counted) / size) for part in parts]).sum()
        if self.critic:
            self._drop(True)
            criticism, self.progress.reward = self.critic.loss(self.progress.step)
            (self.recipe.self_critical * criticism).backward()  # type: ignore[no-untyped-call]
            self.progress.spread = self.critic.spread
        nn.utils.clip_grad_norm_(self.both.parameters(), self.recipe.clip)
        self.optimiser.step()
        self.progress.step += 1
        weight = max(1 - self.recipe.ema, 1 / self.progress.step)
        with torch.no_grad():
            for name, value in self.both.state_dict().items():
                if value.is_floating_point():
                    self.average[name].lerp_(value, weight)
        self.progress.tokens += size
        self.progress.spent += self._clock() - began
        return loss

    def _clock(self) -> float:
        """Seconds: with one thread and no GPU the processor's own, so that a run means the same on a busy machine."""
        alone = torch.get_num_threads() == 1 and self.device.type == "cpu"
        return time.process_time() if alone else time.monotonic()

    def _learn(self, batch: Batch, share: float) -> Tensor:
        """Adds the gradient of a share of an update; gives that share of the loss in nats a token."""
        smoothing = self.recipe.describe_smoothing if batch.describes else 0.0
        self._drop(batch.describes)
        logits = self._logits(batch.grid, batch.tokens, batch.targets >= 0)
        evenly = -logits.log_softmax(-1).mean() if smoothing else 0.0
        targets = batch.targets[batch.targets >= 0]
        mixed, alone = self.checkpoint.gate.likelihoods(logits, targets, batch.counted, batch.evidence)
        loss = -mixed.mean()
        smoothed = (1 - smoothing) * loss + smoothing * evenly
        aside = -self.recipe.alone * (alone * (batch.counted > NEVER / 2)).mean()
        (share * (smoothed + aside + self.model.penalty())).backward()  # type: ignore[no-untyped-call]
        return share * loss.detach().double()

    def _drop(self, describes: bool) -> None:
        """Descriptions, of which there are few, may drop out more."""
        rate = self.recipe.describe_dropout if describes and self.recipe.describe_dropout else self.recipe.dropout
        self.model.drop(rate)

    def _logits(self, grid: Tensor, tokens: Tensor, keep: Tensor) -> Tensor:
        """Of every target asked for (N, V), in full precision whatever the network computed in.

        A grid (P, R, D) is for B / P of the tokens (B, T) each.
        """
        if not self.model.shares:
            grid = grid.repeat_interleave(len(tokens) // len(grid), 0)
        with devices.mixed(self.model, self.device) if self.is_mixed else nullcontext():
            logits: Tensor = self.model(grid, tokens, keep)
        return logits.float()

    def _check(self, dev: list[Corpus], loss: float, seconds: float) -> None:
        current = {k: v.clone() for k, v in self.both.state_dict().items()}
        self.both.load_state_dict(self.average)
        row = {"step": float(self.progress.step), "seconds": seconds, "loss": loss, "spent": self.progress.spent}
        if self.critic:
            row["reward"] = self.progress.reward
        for members in dev:
            if members.samples:
                found = likelihood(self.checkpoint, members, _CHECKED if self.recipe.minutes else 2000)
                row |= {f"{members.name}_{k}": v for k, v in found.items()}
        self.both.load_state_dict(current)
        self.progress.worse += 1
        # A self-critical run gives up likelihood of descriptions for what it is after.
        if self.critic or total(row) <= self.progress.best:
            self.progress.best, self.progress.worse = total(row), 0
            self.best = {k: v.clone() for k, v in self.average.items()}
        self.progress.log.append(row)
        _write_log(self.run / "log.csv", self.progress.log)
        tqdm.write("  ".join(f"{k} {v:.4g}" for k, v in row.items()))
        self._save()

    def _critic(self, corpora: Sequence[Corpus]) -> Critic:
        """Raises ValueError where no descriptions are trained on."""
        for corpus in corpora:
            if corpus.name == "describe" and corpus.samples:
                said: dict[int, list[str]] = {}
                for sample, row in zip(corpus.samples, corpus.rows.tolist(), strict=True):
                    said.setdefault(row, []).append(sample.text)
                views = [corpus.grids[row : row + corpus.views] for row in said]
                tokenizer, seed = self.checkpoint.tokenizer, self.recipe.seed
                return Critic(self.model, tokenizer, views, list(said.values()), seed, self._logits)
        raise ValueError("self_critical needs a data set of descriptions.")

    def _save(self) -> None:
        state = {
            "recipe": asdict(self.recipe),
            "of": self.of,
            "model": self.both.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "average": self.average,
            "best": self.best,
            "progress": asdict(self.progress),
            "random": torch.get_rng_state(),
            "random_gpu": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
        }
        torch.save(_moved(state, torch.device("cpu")), self.run / "state.part")
        (self.run / "state.part").replace(self.run / "state.pt")

    def _resume(self) -> None:
        file = self.run / "state.pt"
        if not file.exists():
            return
        state: dict[str, Any] = torch.load(file, weights_only=True)
        machine = {"threads": 0, "device": "auto"}
        if asdict(Recipe()) | state["recipe"] | machine != asdict(self.recipe) | machine:
            raise ValueError(f"{file} is of a run by another recipe; remove it or choose another --out.")
        if state.get("of") != self.of:
            raise ValueError(
                f"{file} is of a run with other data or another decoder; remove it or choose another --out."
            )
        torch.set_rng_state(state["random"])
        if self.device.type == "cuda" and state.get("random_gpu") is not None:
            torch.cuda.set_rng_state(state["random_gpu"], self.device)
        state = _moved(state, self.device)
        self.both.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.average, self.best = state["average"], state["best"]
        self.progress = Progress(**state["progress"])
        if self.critic:
            self.critic.spread = self.progress.spread
        print(f"Resuming at step {self.progress.step}.")


_CHECKS, _CHECKED = 6, 400
"""Of a run by time, and captions of each: they take time, too."""


def _moved(state: Any, device: torch.device) -> Any:
    """A nest of dictionaries and lists with its tensors on the device."""
    if isinstance(state, Tensor):
        return state.to(device)
    if isinstance(state, dict):
        return {key: _moved(value, device) for key, value in state.items()}
    return [_moved(value, device) for value in state] if isinstance(state, list) else state


def _mixed(checkpoint: Checkpoint, batch: Batch, logits: Tensor) -> Tensor:
    """Log-likelihood (N,) of every target asked for, network and counts mixed."""
    return checkpoint.gate.likelihood(logits, batch.targets[batch.targets >= 0], batch.counted, batch.evidence)


@torch.inference_mode()
def likelihood(checkpoint: Checkpoint, corpus: Corpus, limit: int = 2000, batch: int = 128) -> dict[str, float]:
    """Bits per character and perplexity of up to `limit` captions, evenly picked, votes unknown.

    Characters are those of the normalised text, one for every separator and one for the end.
    """
    checkpoint.decoder.eval()
    device = checkpoint.gate.weigh.weight.device
    step = max(1, math.ceil(len(corpus.samples) / limit))
    order = sorted(range(0, len(corpus.samples), step), key=lambda i: len(corpus.ids[i]))
    nats, tokens, characters = 0.0, 0, 0
    for start in range(0, len(order), batch):
        members = order[start : start + batch]
        made = collate([(corpus, [i]) for i in members], checkpoint.tokenizer, None).to(device)
        found = _mixed(checkpoint, made, checkpoint.decoder(made.grid, made.tokens, made.targets >= 0))
        nats -= found.sum().item()
        tokens += len(found)
        characters += sum(len(box) + 1 for i in members for box in corpus.samples[i].boxes)
    return {"bits_per_char": nats / math.log(2) / characters, "perplexity": math.exp(nats / tokens)}


def plot(log: list[dict[str, float]], file: Path) -> None:
    """Loss and held-out bits per character over the steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    steps = [row["step"] for row in log]
    left.plot(steps, [row["loss"] for row in log])
    left.set(title="training loss, nats a token", xlabel="step")
    checked = [k for k in (log[0] if log else {}) if k.endswith("bits_per_char")]
    for key in checked:
        right.plot(steps, [row[key] for row in log], label=key.removesuffix("_bits_per_char"))
    right.set(title="dev, bits per character", xlabel="step")
    if checked:  # else nothing is held out
        right.legend()
    figure.savefig(file)


def total(row: dict[str, float]) -> float:
    """What the best check is chosen by: bits per character of all styles."""
    return sum(v for k, v in row.items() if k.endswith("bits_per_char"))


def _write_log(file: Path, log: list[dict[str, float]]) -> None:
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, list(log[-1]))
        writer.writeheader()
        writer.writerows(log)
