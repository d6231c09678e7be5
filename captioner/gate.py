"""Whether a candidate may take a model's place: held-out votes say that it is liked better, and nothing else breaks.

Both write captions for the same pictures with the same seeds. Held-out votes, which are later than all that the
candidate learnt from, say how much better the candidate's are liked (captioner.judge); the
rise must be above 0 at a one-sided level that chance passes once in a thousand times. Then bits a character on replayed
texts, copies of training captions, diversity, blocked captions and time must hold.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from captioner import filter as block
from captioner import metrics
from captioner.captioner import CANDIDATES, Captioner, Style, Wish
from captioner.checkpoint import Checkpoint
from captioner.fonts import Fonts
from captioner.images import Limits
from captioner.judge import change
from captioner.labels import Labels, eyes, seen_by, split
from captioner.ranking import Caption, Ranking
from captioner.replay import Replay, grids, logprob, replay
from captioner.search import Hypothesis
from captioner.taste import Taste

_BATCH = 8


@dataclass(frozen=True)
class Rules:
    """What `key=value` on the command line may change: how much may be lost, and how surely won."""

    seed: int = 7
    pictures: int = 120
    captions: int = 12
    """Written for every picture."""
    level: float = 0.999
    """Of the one-sided interval that must lie above 0."""
    bits: float = 1.05
    """Bits a character may rise to so many times those of before."""
    copies: float = 0.02
    blocked: float = 0.02
    """How much the shares of copies and of blocked captions may rise."""
    diversity: float = 0.85
    """The share of distinct-2 that must be left."""
    likeness: float = 8.0
    """Points that self-BLEU may rise."""
    slower: float = 1.5
    """Times the processor time a picture may take."""


@dataclass(frozen=True)
class Reason:
    """One measurement of both models, and whether it lets the candidate pass; `low` and `high` bound the difference."""

    what: str
    before: float
    after: float
    low: float | None
    high: float | None
    holds: bool
    sentence: str


@dataclass
class Written:
    """What a model writes for the fixed pictures."""

    captions: list[list[tuple[str, ...]]] = field(default_factory=list)
    """For each picture what may be said, the best first."""
    drawn: int = 0
    """Captions before any was refused."""
    copies: int = 0
    blocked: int = 0
    seconds: float = 0.0
    """Of the processor, for all."""

    @property
    def words(self) -> list[list[str]]:
        """The best caption of every picture."""
        return [" ".join(of[0]).split() for of in self.captions if of]


class Writer(Captioner):
    """A captioner that counts what it may not say; `Writer.open` makes one."""

    written: Written

    @classmethod
    def open(cls, file: Path) -> "Writer":
        """Loads a checkpoint, torch's threads as they are. Raises CheckpointError."""
        return cls.of(Checkpoint.load(file))

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> "Writer":
        return cls(checkpoint, "cpu", Fonts.resolve(None), Limits(), 512, Ranking())

    def memes(self, grids: np.ndarray, template: str, seed: int) -> list[tuple[str, ...]]:
        """All memes that there would be to choose from on grids (B, R, D) that are taken for the template."""
        self.written = Written()
        wish, made = Wish(n=CANDIDATES[0], explore=True), list[tuple[str, ...]]()
        for start in range(0, len(grids), _BATCH):
            batch = torch.from_numpy(grids[start : start + _BATCH]).float().to(self.device)
            # Apart, since a search that has too few captions to say takes the next seeds.
            seeds = [seed + 10 * (start + i) for i in range(len(batch))]
            found = self.decode(batch, [wish] * len(batch), seeds)
            taken = [of for of in found if of.template and of.template[0] == template]
            made += [caption.boxes for of in taken for caption in of.captions]
        return made

    def write(self, grids: Sequence[np.ndarray], rules: Rules) -> Written:
        """Captions for the grids (R, D), in batches of one size: reproducible.

        Of a grid alone nobody can tell what else ImageNet's classes would find (captioner.objects).
        """
        self.written = Written()
        began = time.process_time()
        for start in range(0, len(grids), _BATCH):
            batch = torch.from_numpy(np.stack(grids[start : start + _BATCH])).float().to(self.device)
            seeds = [rules.seed + start + i for i in range(len(batch))]
            made = self.decode(batch, [Wish(n=rules.captions)] * len(batch), seeds)
            self.written.captions += [[c.boxes for c in of.captions] for of in made]
        self.written.seconds = time.process_time() - began
        return self.written

    def _add(self, captions: list[Caption], hypotheses: Sequence[Hypothesis], style: Style, level: block.Level) -> None:
        if style == "meme":
            drawn = [c.boxes for c in self._captions(hypotheses)]
            self.written.drawn += len(drawn)
            self.written.copies += sum(self.is_copy(boxes) for boxes in drawn)
            self.written.blocked += sum(block.shipped().blocks(boxes, style, level) for boxes in drawn)
        super()._add(captions, hypotheses, style, level)


@torch.inference_mode()
def bits(checkpoint: Checkpoint, replayed: Replay) -> float:
    """Bits a character of the replayed texts: separators and the end count as one each."""
    nats, characters = 0.0, 0
    for start in range(0, len(replayed.texts), 4 * _BATCH):
        batch = replayed.texts[start : start + 4 * _BATCH]
        stack = torch.from_numpy(np.stack([replayed.grids[t.grid or 0] for t in batch])).float()
        nats -= float(logprob(checkpoint, checkpoint.decoder, stack, batch).sum())
        characters += sum(len(box) + 1 for t in batch for box in checkpoint.tokenizer.decode(t.ids))
    return nats / math.log(2) / max(1, characters)


def judged(
    labels: Labels, before: Written, after: Written, text_bits: tuple[float, float], rules: Rules
) -> list[Reason]:
    """All reasons for and against; the candidate passes where all hold.

    `labels` are all there are: what is held out judges, by what the rest foresaw. Raises LabelsError for too few.
    """
    return [
        _approval(labels, before, after, rules),
        _bits(*text_bits, rules),
        *_shares(before, after, rules),
        *_diversity(before, after, rules),
        _time(before, after, rules),
    ]


def verdict(reasons: Sequence[Reason], model: str, candidate: str, labels: int, rules: Rules) -> dict[str, Any]:
    """What is written down: {"promote", "reasons", "model", "candidate", "labels", "seed"}."""
    return {
        "promote": all(r.holds for r in reasons),
        "reasons": [asdict(r) for r in reasons],
        "model": model,
        "candidate": candidate,
        "labels": labels,
        "seed": rules.seed,
    }


def _approval(labels: Labels, before: Written, after: Written, rules: Rules) -> Reason:
    both = [(a, b) for a, b in zip(before.captions, after.captions, strict=True) if a and b]
    earlier, held = split(labels)
    foreseen = Taste.fitted(earlier.memes, None, earlier.pairs)
    found = change(held.memes, foreseen, [a for a, _ in both], [b for _, b in both])
    low, high = found.interval(rules.level)
    verb = "rises" if low > 0 else "does not surely rise"
    sentence = (
        f"By {len(held.memes)} held-out memes, approval {verb}: {100 * found.rise:+.1f} points, at least "
        f"{100 * low:+.1f} at the {100 * rules.level:.4g} % level."
    )
    return Reason("approval", found.before, found.after, low, high, low > 0, sentence)


def _bits(before: float, after: float, rules: Rules) -> Reason:
    most = rules.bits * before
    sentence = f"Replayed texts take {after:.3f} bits a character, {before:.3f} before; {most:.3f} would be allowed."
    return Reason("bits per character", before, after, None, None, after <= most, sentence)


def _shares(before: Written, after: Written, rules: Rules) -> list[Reason]:
    """Copies of training captions, and what is blocked."""
    reasons = []
    for what, key, most in (("copies", "copies", rules.copies), ("blocked", "blocked", rules.blocked)):
        was, now = (getattr(w, key) / max(1, w.drawn) for w in (before, after))
        low, high = _difference(was, before.drawn, now, after.drawn)
        sentence = f"{100 * now:.1f} % of what it draws is {_SAID[what]}, {100 * was:.1f} % before."
        reasons.append(Reason(what, was, now, low, high, now <= was + most, sentence))
    return reasons


_SAID = {"copies": "a copy of a training caption", "blocked": "blocked"}


def _difference(p: float, n: int, q: float, m: int) -> tuple[float, float]:
    """The 95 % interval of the difference of two shares."""
    reach = 1.96 * math.sqrt(p * (1 - p) / max(1, n) + q * (1 - q) / max(1, m))
    return q - p - reach, q - p + reach


def _diversity(before: Written, after: Written, rules: Rules) -> list[Reason]:
    """How much the best captions of all pictures differ from each other."""
    was, now = (metrics.distinct(w.words, 2) for w in (before, after))
    alike, alike_now = (metrics.self_bleu(w.words) for w in (before, after))
    varied, apart = now >= rules.diversity * was, alike_now <= alike + rules.likeness
    fallen = (
        "The captions have collapsed into each other: " if now < was / 2 else "The captions have become too alike: "
    )
    pairs = f"{100 * now:.1f} % of the word pairs differ, {100 * was:.1f} % before."
    bleu = f"self-BLEU is {alike_now:.1f}, {alike:.1f} before."
    return [
        Reason("distinct-2", was, now, None, None, varied, ("" if varied else fallen) + pairs),
        Reason("self-BLEU", alike, alike_now, None, None, apart, ("" if apart else fallen) + bleu),
    ]


def _time(before: Written, after: Written, rules: Rules) -> Reason:
    was, now = (1000 * w.seconds / max(1, len(w.captions)) for w in (before, after))
    sentence = f"A picture takes {now:.0f} ms of a processor, {was:.0f} before."
    return Reason("milliseconds", was, now, None, None, now <= rules.slower * was, sentence)


def gate(model: Path, candidate: Path, labels: Labels, sets: dict[str, Path], rules: Rules) -> dict[str, Any]:
    """The verdict on a candidate, both models written and judged one after the other.

    Raises LabelsError for too few held-out votes, CheckpointError for a file that is no model, ValueError for a
    candidate with other eyes: the grids that both write for would mean nothing to it.
    """
    if not 0 < rules.level < 1:
        raise ValueError(f"level takes a number between 0 and 1, not {rules.level:g}.")
    first, second = Checkpoint.load(model), Checkpoint.load(candidate)
    if not second.sees_as(first):
        raise ValueError(
            f"{second.name} has other eyes than {first.name}: the gate cannot compare them on one's grids."
        )
    labels = seen_by(labels, eyes(first.reduction.basis.numpy()))
    _, held = split(labels)
    replayed = replay(first, labels, sets, 9 * rules.pictures, rules.seed)
    pictures = grids(first, held, rules.pictures, rules.seed)
    pictures += replayed.grids[: max(0, rules.pictures - len(pictures))]
    before, after = (_of(file, pictures, replayed, rules) for file in (model, candidate))
    reasons = judged(labels, before[0], after[0], (before[1], after[1]), rules)
    return verdict(reasons, first.name, second.name, len(held.memes), rules)


def _of(file: Path, pictures: Sequence[np.ndarray], replayed: Replay, rules: Rules) -> tuple[Written, float]:
    """What a model writes, and its bits a character."""
    text_bits = bits(Checkpoint.load(file), replayed)
    return Writer.open(file).write(pictures, rules), text_bits
