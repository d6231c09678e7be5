"""Whether reactions make the memes funnier: made-up people vote, the bot learns, and others measure.

People of a taste that is drawn at random (or read from a file) vote on what the model writes for pictures. After 300,
1,000 and 3,000 votes, approval is the noiseless share of up-votes on pictures that were not voted on: of the frozen
model, with re-ranking by the votes so far, and of a model fine-tuned on them, alone and re-ranked, by KTO and by
weighted likelihood. Then the gate is put to the test: votes at random, one spammer, a candidate that says one thing
only.

    python -m benchmarks.learning --pictures DIR [--quick] [--seeds 5] [--population FILE] [--part NAME…] [--out DIR]

The longest part is writing captions, which are kept in --out for the next run. Whatever is printed has a 95 % interval
over the seeds.
"""

import argparse
import json
import random
import shutil
import sys
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.population import Population, drawn, spread
from bot.votes import Label, Shown, Vote, approvals
from captioner.captioner import Wish, shipped
from captioner.checkpoint import Checkpoint
from captioner.finetune import Recipe, finetune
from captioner.gate import Rules, Writer, Written, bits, judged, verdict
from captioner.images import ImageError
from captioner.labels import Labels, Meme, packed, split
from captioner.replay import Replay, Text, logprob, written
from captioner.taste import Taste

MILESTONES = (300, 1000, 3000)
_CANDIDATES = 12
_WEIGHT = 60.0
"""What the ranking gives for a point of approval, as in captioner.Ranking."""
_EXPLORED = 0.1
_BATCH = 10


@dataclass(frozen=True)
class Scale:
    """How much is done."""

    seeds: int = 5
    votes: int = 3000
    shown: int = 900
    """Pictures and seeds that captions are written for, to be voted on."""
    unseen: int = 150
    random_runs: int = 20
    random_votes: int = 1500
    epochs: float = 0.5
    chance_epochs: float = 0.2
    """Of the candidates that learn from coins."""
    judged: int = 100
    """Pictures of the gate."""
    spam: int = 5000


QUICK = Scale(2, 1000, 250, 80, random_runs=5, random_votes=600, epochs=0.5, judged=60, spam=1500)


@dataclass(frozen=True)
class Choice:
    """What was written for one picture: the best first, with the scores that ranked them."""

    picture: int
    captions: list[tuple[str, ...]]
    scores: np.ndarray

    def best(self, taste: Taste | None = None, among: int = _CANDIDATES) -> tuple[str, ...]:
        """The caption that would be posted, out of so many of them, evenly picked: they are in order.

        On a template the bot would choose by taste among all that it draws there, which are more.
        """
        few = np.unique(np.linspace(0, len(self.captions) - 1, min(among, len(self.captions))).astype(int))
        captions = [self.captions[i] for i in few]
        liked = taste.score(captions) * _WEIGHT if taste else 0.0
        best: tuple[str, ...] = captions[int(np.argmax(self.scores[few] + liked))]
        return best


class Studio:
    """Pictures' grids, and what models write for them."""

    def __init__(self, folder: Path, scale: Scale, kept: Path) -> None:
        self.scale, self.kept = scale, kept
        writer = Writer.open(shipped())
        files = sorted(f for f in folder.rglob("*") if f.is_file())
        random.Random(3).shuffle(files)
        # A few pictures are shown again and again: another seed makes other captions of them.
        files = files[: scale.unseen + scale.shown]
        self.grids = self._grids(writer, files)
        self.unseen = min(scale.unseen, len(self.grids) // 3)
        self.base = Writer.open(shipped())
        self.shown = self.write(self.base, self._shown(), "shown")
        self.fixed = self.write(self.base, self._fixed(), "fixed")

    def _grids(self, writer: Writer, files: Sequence[Path]) -> torch.Tensor:
        """(P, R, D), from the folder where they lie there."""
        file = self.kept / f"grids-{writer.name}-{zlib.crc32(repr([f.name for f in files]).encode()):08x}.npy"
        if not file.exists():
            np.save(file, torch.stack(_encoded(writer, files)).half().numpy())
        return torch.from_numpy(np.load(file)).float()

    def _shown(self) -> list[tuple[int, int]]:
        some = range(self.unseen, len(self.grids))
        return [(some[i % len(some)], 10_000 + i) for i in range(self.scale.shown)]

    def _fixed(self) -> list[tuple[int, int]]:
        return [(i, i) for i in range(self.unseen)]

    def rewritten(self, model: Path) -> list[Choice]:
        """What another model writes for the unseen pictures."""
        return self.write(Writer.open(model), self._fixed(), None)

    def write(self, writer: Writer, jobs: Sequence[tuple[int, int]], name: str | None) -> list[Choice]:
        """Captions for pictures by seed, the best first; from the folder where they lie there."""
        file = self.kept / f"{name}-{writer.name}-{len(self.grids)}-{len(jobs)}.json"
        if name and file.exists():
            return [Choice(p, list(map(tuple, c)), np.array(s)) for p, c, s in json.loads(file.read_text("utf-8"))]
        writer.written = Written()
        made: list[Choice] = []
        for start in tqdm(range(0, len(jobs), _BATCH), desc="write", file=sys.stderr, mininterval=5):
            batch = jobs[start : start + _BATCH]
            found = writer.decode(
                self.grids[[i for i, _ in batch]], [Wish(n=_CANDIDATES)] * len(batch), [seed for _, seed in batch]
            )
            for (picture, _), one in zip(batch, found, strict=True):
                captions = [c.boxes for c in one.captions]
                made.append(Choice(picture, captions, np.array([c.score for c in one.captions])))
        if name:
            file.write_text(json.dumps([[c.picture, c.captions, c.scores.tolist()] for c in made]), "utf-8")
        return made


@torch.inference_mode()
def _encoded(writer: Writer, files: Sequence[Path]) -> list[torch.Tensor]:
    found = []
    for file in tqdm(files, desc="encode", file=sys.stderr, mininterval=5):
        try:
            image = writer.read(file.read_bytes()).image
        except ImageError:
            continue
        found.append(writer.encode([writer.encoder.pixels([image])])[0])
    return found


@dataclass
class Chat:
    """A chat in which memes are posted, voted on, and learnt from as the bot would."""

    studio: Studio
    population: Population
    rng: random.Random
    random_votes: bool = False
    spammer: bool = False

    def __post_init__(self) -> None:
        self.posted: list[tuple[Choice, tuple[str, ...], bool]] = []
        self.votes: list[Vote] = []
        self.counts: list[int] = []

    def post(self, taste: Taste | None) -> None:
        """The next meme: ranked by the taste so far, a tenth unranked, and what people say of it."""
        choice = self.studio.shown[len(self.posted) % len(self.studio.shown)]
        explored = self.rng.random() < _EXPLORED
        boxes = self.rng.choice(choice.captions) if explored else choice.best(taste)
        at, meme = self.now, str(len(self.posted))
        self.posted.append((choice, boxes, explored))
        cast = self.population.vote(boxes, self.rng)
        for person, emoji in cast:
            up = self.rng.random() < 0.5 if self.random_votes else emoji in self.population.emoji["up"]
            self.votes.append(Vote(meme, f"person {person}", up, at + 60))
        if self.spammer:  # against whatever the others are for
            self.votes.append(Vote(meme, "spammer", self.population.approval(boxes) < 0.5, at + 60))
        self.counts.append(len(cast))

    @property
    def now(self) -> float:
        """A meme every half hour."""
        return 1800.0 * len(self.posted)

    def labels(self) -> Labels:
        shown = [Shown(str(i), "chat", 1800.0 * i) for i in range(len(self.posted))]
        found = zip(approvals(shown, self.votes), self.posted, strict=True)
        return Labels([self._meme(label, *posted) for label, posted in found if label.weight > 0], [])

    def _meme(self, label: Label, choice: Choice, boxes: tuple[str, ...], explored: bool) -> Meme:
        others = tuple(c for c in choice.captions if c != boxes)
        features = packed(self.studio.grids[choice.picture].numpy(), self.studio.base.eyes)
        at = 1800.0 * int(label.meme)
        return Meme(boxes, None, label.up, label.down, "chat", at, label.meme, explored, features, others)


def lived(chat: Chat, votes: int, every: int = 60) -> dict[int, Taste]:
    """Memes and votes until there are so many, the taste fitted anew as they come; tastes at the milestones."""
    taste: Taste | None = None
    tastes: dict[int, Taste] = {}
    fitted = 0
    while sum(chat.counts) < votes:
        chat.post(taste)
        cast = sum(chat.counts)
        due = [m for m in MILESTONES if m <= cast and m not in tastes]
        if due or cast >= fitted + every:
            taste, fitted = Taste.fitted(chat.labels().memes, "chat"), cast
            every = max(every, cast // 8)
            tastes |= dict.fromkeys(due, taste)
    return tastes


class Lab:
    """The parts of the benchmark; figures by name, a value a seed, gather in `found`."""

    def __init__(self, studio: Studio, scale: Scale, out: Path, population: Path | None) -> None:
        self.studio, self.scale, self.out, self.population = studio, scale, out, population
        self.found: dict[str, list[float]] = {}
        self._bits: dict[Path, float] = {}

    def people(self, seed: int) -> Population:
        if self.population:
            return Population.load(self.population)
        return drawn(seed, [c for choice in self.studio.shown[::5] for c in choice.captions[::5]])

    def note(self, name: str, value: float) -> None:
        self.found.setdefault(name, []).append(value)

    def approval(
        self, people: Population, choices: Sequence[Choice], taste: Taste | None, among: int = _CANDIDATES
    ) -> float:
        """In percent, of what would be posted for the unseen pictures."""
        return 100 * sum(people.approval(c.best(taste, among)) for c in choices) / len(choices)

    def chats(self) -> Iterator[tuple[int, Population, Chat, dict[int, Taste], float]]:
        """By seed: the people, what they voted on, the tastes at the milestones, and the frozen model's approval."""
        for seed in range(1, self.scale.seeds + 1):
            people = self.people(seed)
            chat = Chat(self.studio, people, random.Random(seed))
            tastes = lived(chat, self.scale.votes)
            yield seed, people, chat, tastes, self.approval(people, self.studio.fixed, None)

    def learn(self) -> None:
        """Approval after so many votes, re-ranked, and fine-tuned at the end."""
        for seed, people, chat, tastes, frozen in self.chats():
            self.note("frozen", frozen)
            for votes, taste in tastes.items():
                for among in (4, 8, _CANDIDATES):
                    gain = self.approval(people, self.studio.fixed, taste, among) - frozen
                    self.note(f"{votes} votes, re-ranked, best of {among}: gain", gain)
            if self.scale.epochs:
                self._tuned(seed, chat.labels(), people, frozen, tastes[max(tastes)])

    def weighted(self) -> None:
        """The same votes learnt from by weighted likelihood instead."""
        for seed, people, chat, tastes, frozen in self.chats():
            self._tuned(seed, chat.labels(), people, frozen, tastes[max(tastes)], "weighted")

    def _tuned(
        self, seed: int, labels: Labels, people: Population, frozen: float, taste: Taste, method: str = "kto"
    ) -> None:
        """Fine-tuned on the earlier votes, gated by the later."""
        file = self.tune(labels, f"{method}-{seed}", epochs=self.scale.epochs, method=method)
        choices = self.studio.rewritten(file)
        self.note(f"fine-tuned ({method}) alone: gain", self.approval(people, choices, None) - frozen)
        self.note(f"fine-tuned ({method}) and re-ranked: gain", self.approval(people, choices, taste) - frozen)
        told = self.gate(file, labels)
        self.note(f"the gate promotes it ({method})", float(told["promote"]))
        say(f"{method} {seed}", told)

    def tune(self, labels: Labels, name: str, **changes: Any) -> Path:
        """A candidate that learnt from the earlier votes."""
        file = self.out / f"{name}.safetensors"
        shutil.rmtree(file.with_suffix(""), ignore_errors=True)
        figures = finetune(Checkpoint.load(shipped()), split(labels)[0], file, replace(Recipe(), **changes))
        print(f"{name}: {figures}", flush=True)
        return file

    def gate(self, file: Path, labels: Labels) -> dict[str, Any]:
        """The gate's verdict on a candidate; the shipped model writes once for all of them."""
        rules = Rules(pictures=self.scale.judged)
        after = Writer.open(file).write(self._pictures(), rules)
        text = self._text_bits(shipped()), bits(Checkpoint.load(file), self._replayed)
        held = len(split(labels)[1].memes)
        return verdict(judged(labels, self._before, after, text, rules), "shipped", file.stem, held, rules)

    @cached_property
    def _before(self) -> Written:
        return self.studio.base.write(self._pictures(), Rules(pictures=self.scale.judged))

    def _pictures(self) -> list[np.ndarray]:
        """Pictures that approval is not measured on."""
        grids = self.studio.grids[self.studio.unseen :]
        return [g.numpy() for g in grids[:: max(1, len(grids) // self.scale.judged)][: self.scale.judged]]

    @cached_property
    def _replayed(self) -> Replay:
        pictures = self._pictures()[:24]
        return Replay(pictures, written(Checkpoint.load(shipped()), pictures, 11))

    def _text_bits(self, file: Path) -> float:
        if file not in self._bits:
            self._bits[file] = bits(Checkpoint.load(file), self._replayed)
        return self._bits[file]

    def chance(self) -> None:
        """Votes by coin: candidates learn from them and are judged by them."""
        for run in range(self.scale.random_runs):
            chat = Chat(self.studio, self.people(100), random.Random(1000 + run), random_votes=True)
            lived(chat, self.scale.random_votes, every=400)
            labels = chat.labels()
            told = self.gate(self.tune(labels, "chance", epochs=self.scale.chance_epochs, seed=run), labels)
            self.note("votes at random: promoted", float(told["promote"]))
            self.note("votes at random: rise in standard errors", _errors(told["reasons"][0]))
            say(f"run {run}", told)

    def spam(self) -> None:
        """One who votes on every meme against what the others are for; what the others think of the memes then."""
        for seed in range(1, self.scale.seeds + 1):
            people = self.people(seed)
            now: list[float] = []
            for spammer in (False, True):
                chat = Chat(self.studio, people, random.Random(seed), spammer=spammer)
                while len(chat.posted) < self.scale.spam:
                    chat.post(None)
                now.append(self.approval(people, self.studio.fixed, Taste.fitted(chat.labels().memes, "chat")))
            self.note(f"a spammer with {self.scale.spam} votes: the others' approval moves by", now[1] - now[0])

    def collapse(self) -> None:
        """A candidate that says one thing whatever it sees, the thing that is liked best."""
        people = self.people(1)
        chat = Chat(self.studio, people, random.Random(1))
        lived(chat, 1000, every=200)
        best = max((c for choice in self.studio.shown for c in choice.captions), key=people.approval)
        file = _collapsed(best, self.out / "collapsed.safetensors", self.studio.grids[:64])
        told = self.gate(file, chat.labels())
        self.note("a collapsed candidate is promoted", float(told["promote"]))
        say(f"collapsed to {' / '.join(best)!r}", told)


def say(name: str, told: dict[str, Any]) -> None:
    """A verdict in short: how approval rose, and what else failed."""
    approval, *others = told["reasons"]
    print(f"{name}: {'promoted' if told['promote'] else 'refused'}. {approval['sentence']}", flush=True)
    for reason in others:
        if not reason["holds"]:
            print(f"    {reason['sentence']}", flush=True)


def _errors(reason: dict[str, Any]) -> float:
    """The rise in units of its standard error, from the one-sided bounds."""
    error = (reason["high"] - reason["low"]) / 2 / NormalDist().inv_cdf(Rules().level)
    return float((reason["after"] - reason["before"]) / error)


def _collapsed(boxes: tuple[str, ...], file: Path, grids: torch.Tensor) -> Path:
    """The shipped model, trained to write one caption only."""
    checkpoint = Checkpoint.load(shipped())
    checkpoint.decoder.requires_grad_(True)
    text = Text(checkpoint.tokenizer.encode(boxes), "meme", 0)
    optimiser = torch.optim.AdamW(checkpoint.decoder.parameters(), 1e-3)
    for _ in range(60):
        optimiser.zero_grad()
        some = grids[torch.randperm(len(grids))[:16]]
        (-logprob(checkpoint, checkpoint.decoder, some, [text] * len(some)).mean()).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    checkpoint.name = file.stem
    checkpoint.save(file)
    return file


PARTS = ("learn", "weighted", "collapse", "spam", "chance")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, required=True, help="a folder; the more the better")
    parser.add_argument("--quick", action="store_true", help="minutes instead of two hours, and wider intervals")
    parser.add_argument("--seeds", type=int, help="populations, five unless told")
    parser.add_argument("--population", type=Path, help="a population's file instead of one drawn by seed")
    parser.add_argument("--part", action="append", choices=PARTS, help="only this; may be repeated")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/learning"), help="where captions and candidates are kept"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    scale = QUICK if options.quick else Scale()
    scale = replace(scale, seeds=options.seeds or scale.seeds)
    lab = Lab(Studio(options.pictures, scale, options.out), scale, options.out, options.population)
    for part in options.part or PARTS:
        getattr(lab, part)()
        for name, values in lab.found.items():
            mean, half = spread(values)
            print(f"{name:72} {mean:7.2f} ± {half:.2f}  ({len(values)})", flush=True)
        lab.found.clear()


if __name__ == "__main__":
    main()
