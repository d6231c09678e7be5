"""Training: captions of several data sets and two styles become one checkpoint.

Deterministic by seed on one kind of machine. A run that was cut off resumes from its folder: the order of the data is a
function of seed and step, everything else is in the saved state.
"""

import csv
import math
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from captioner import data, kinds, vectors
from captioner.aptness import Aptness
from captioner.checkpoint import Checkpoint
from captioner.data.pairs import pairs, words
from captioner.data.samples import Sample
from captioner.decoders import DECODERS, Decoder, settings
from captioner.encoders import DEFAULT, build
from captioner.features import Features, features, fit_reduction
from captioner.keywords import Keywords
from captioner.mixture import NEVER
from captioner.ngrams import ORDER, Evidence, KneserNey, NGrams
from captioner.reward import Reward, comparable
from captioner.self_critical import Critic
from captioner.shortlist import shortlist
from captioner.templates import learnt
from captioner.tokenizer import STYLES, VOTES, CaptionTokenizer
from captioner.voice import Voice


@dataclass(frozen=True)
class Recipe:
    """What `key=value` on the command line may change."""

    seed: int = 1
    encoder: str = DEFAULT
    steps: int = 5600
    minutes: float = 0.0
    """Instead of steps, if not 0: time spent on learning, of the processor where there is but one thread."""
    batch: int = 128
    rate: float = 1.5e-3
    warm_up: int = 300
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.999
    describe_share: float = 0.25
    pair_share: float = 0.18
    """The shares of descriptions and of memes paired with photographs in what is learnt from; the rest are memes."""
    describe_dropout: float = 0.0
    """Dropout of descriptions, of which there are few, if not 0 and other than that of memes."""
    describe_smoothing: float = 0.0
    """Label smoothing of descriptions (Szegedy et al. 2016)."""
    mirror: float = 0.0
    """How often the grid of a photograph is mirrored: a view that costs nothing."""
    pairs: int = 20
    """Memes paired with each described photograph."""
    self_critical: float = 0.0
    """Weight of the loss of descriptions that the model draws itself (captioner.self_critical), beside likelihood."""
    held_back: float = 0.0
    """Share of the described photographs that likelihood does not learn from, and self-critical training alone does:
    on those that a network knows by heart there is nothing to mend."""
    patience: int = 0
    """So many checks in a row without a better one end the run, if not 0; the best one is what is kept in any case."""
    start: str = ""
    """A checkpoint to go on from: its weights, tokenizer and reduction. The sizes below are then its own."""
    known_votes: float = 0.5
    """How often a meme is trained with its vote bucket; else with *unknown*."""
    counts: int = 1
    """1 to mix counts of words into what is learnt of memes."""
    vocabulary: int = 8000
    words: int = 0
    """Instead of pieces, if not 0: a vocabulary of the words that are seen at least so often."""
    vectors: str = ""
    """A file of word vectors, in GloVe's text format, that the embedding starts from."""
    options: str = ""
    """Settings of the decoder that have no name here, as key=value,key=value."""
    features: int = 384
    embedding: int = 256
    units: int = 640
    attention: int = 160
    dropout: float = 0.15
    template_views: int = 12
    photograph_views: int = 3
    recogniser_views: int = 48
    """Distorted copies of every template that the recogniser learns from; 0 trains none."""
    check_every: int = 700
    threads: int = 0
    """Of torch; 0 leaves the choice to torch."""


RECIPES = {
    "small": Recipe(),
    "large": Recipe(
        steps=20_000, batch=512, rate=1e-3, warm_up=1000, vocabulary=8000, units=1024, attention=256, embedding=320,
        features=512, dropout=0.25, describe_dropout=0.5, describe_smoothing=0.1, photograph_views=12,
        template_views=24, check_every=1000, patience=5,
    ),
    "describe": Recipe(
        steps=6800, batch=64, rate=1.5e-3, warm_up=200, weight_decay=0.02, ema=0.998, counts=0, words=5, embedding=256,
        units=512, attention=192, dropout=0.5, describe_dropout=0.5, describe_smoothing=0.1, photograph_views=9,
        held_back=0.1, recogniser_views=0, check_every=850, threads=1,
    ),
}  # fmt: skip
"""`small` takes some two hours of two cores, `large` a graphics card (never run: nobody here has had one), `describe`
learns descriptions alone, as long as the benchmark's full budget."""


@dataclass(frozen=True)
class Corpus:
    """Captions as ids, ready to be batched: `ids[i]` belong to the views from `rows[i]` on.

    `votes[i]` is the caption's vote bucket, -1 for unknown. What counts say about its ids begins at `counted[i]` of the
    evidence.
    """

    name: str
    """`meme`, `describe` or `pair`: memes with photographs that they were not written for."""

    samples: list[Sample]
    ids: list[list[int]]
    rows: np.ndarray
    views: int
    votes: np.ndarray
    grids: np.ndarray
    style: str
    evidence: Evidence | None
    counted: np.ndarray


@dataclass(frozen=True)
class Batch:
    grid: Tensor  # (B, R, D)
    tokens: Tensor  # (B, T), the prefix first
    targets: Tensor  # (B, T), -1 where nothing is asked
    counted: Tensor  # (N,) log-probabilities that counts give to the targets asked for, row by row
    evidence: Tensor  # (N, F) features of those counts
    describes: bool  # whether all are descriptions


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


def read(sets: dict[str, Path]) -> tuple[list[Sample], dict[str, Counter[str]]]:
    """All data sets cleaned; with the counts of what was dropped, by set and reason."""
    samples: list[Sample] = []
    dropped: dict[str, Counter[str]] = {}
    for name, folder in sets.items():
        dropped[name] = Counter()
        before = len(samples)
        samples += data.cleaned(data.load(name, folder), dropped[name], tuple(samples))
        reasons = ", ".join(f"{count} {reason}" for reason, count in dropped[name].most_common())
        print(f"{name}: {len(samples) - before} captions kept; dropped: {reasons or 'none'}")
    return samples, dropped


def train(sets: dict[str, Path], out: Path, recipe: Recipe, decoder_name: str = "attention_gru") -> Checkpoint:
    """Trains and saves to `out`; logs, plot and the state to resume from lie in a folder of that name beside it.

    Raises ValueError or FileNotFoundError for data that cannot be read.
    """
    torch.manual_seed(recipe.seed)
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    run = out.with_suffix("")
    run.mkdir(parents=True, exist_ok=True)
    samples, dropped = read(sets)
    split = [data.split_of(s) for s in samples]
    texts = [box for s, part in zip(samples, split, strict=True) if part == "train" for box in s.boxes]
    tokenizer = _tokenizer(texts, recipe, run / "tokenizer.json")
    checkpoint = _untrained(samples, split, tokenizer, recipe, decoder_name, out.stem)
    corpora = prepare(samples, split, checkpoint, recipe, run)
    introduce(checkpoint, corpora["train"], recipe)
    history = Trainer(checkpoint, recipe, run).fit(corpora["train"], corpora["dev"])
    equip(checkpoint, corpora["train"], recipe)
    checkpoint.facts = {
        "data": {name: sum(1 for s in samples if folder in s.picture.parents) for name, folder in sets.items()},
        "dropped": {name: dict(counts) for name, counts in dropped.items()},
        "recipe": asdict(recipe),
        "started_from": checkpoint.facts,
        "figures": min(history, key=_total),
    }
    checkpoint.save(out)
    plot(history, run / "training.png")
    return checkpoint


def equip(checkpoint: Checkpoint, corpora: Sequence[Corpus], recipe: Recipe) -> None:
    """Trains what stands beside the decoder: the recogniser, the reward, the words that a picture shows, the voice."""
    by = {c.name: c for c in corpora if c.samples}
    if (memes := by.get("meme")) and comparable(memes.samples):
        checkpoint.reward = Reward.fit(memes.samples, checkpoint.tokenizer, recipe.seed)
    if memes:
        tokenizer = checkpoint.tokenizer
        names = [s.template for s in memes.samples]
        checkpoint.aptness = Aptness.fit(memes.ids, names, [tokenizer.eos, tokenizer.sep], len(tokenizer))
    if described := by.get("describe"):
        checkpoint.keywords = _keywords(described, checkpoint.tokenizer, recipe.seed)
    words = checkpoint.keywords.words if checkpoint.keywords else []
    checkpoint.decoder.shorten(shortlist(checkpoint.tokenizer, [c.ids for c in by.values()], words))
    if memes and described:
        checkpoint.voice = Voice.fit(memes.ids, described.ids, len(checkpoint.tokenizer))
        if recipe.recogniser_views:
            known = {s.template: s.picture for s in memes.samples if s.template}
            others = sorted({s.picture for s in described.samples})[::3]
            checkpoint.templates = learnt(
                build(checkpoint.encoder), checkpoint.reduction, known, others, recipe.recogniser_views
            )


def _keywords(corpus: Corpus, tokenizer: CaptionTokenizer, seed: int) -> Keywords | None:
    """The words that described pictures show; only those that one id writes can be favoured."""
    seen: dict[int, Counter[str]] = {}
    for sample, row in zip(corpus.samples, corpus.rows.tolist(), strict=True):
        seen.setdefault(row, Counter()).update(words(sample.text))
    known = frozenset(w for w in set().union(*seen.values()) if len(tokenizer.encode([w])) == 2)
    rows = [(row + view, counts) for row, counts in seen.items() for view in range(corpus.views)]
    try:
        return Keywords.fit(corpus.grids[[row for row, _ in rows]], [counts for _, counts in rows], known, seed)
    except ValueError:  # a handful of pictures
        return None


def prepare(
    samples: Sequence[Sample], split: Sequence[str], checkpoint: Checkpoint, recipe: Recipe, run: Path
) -> dict[str, list[Corpus]]:
    """The corpora of both styles by split, features computed or read from the run's folder."""
    encoder = build(checkpoint.encoder)
    corpora: dict[str, list[Corpus]] = {"train": [], "dev": []}
    grids: dict[str, Features] = {}
    for style, views in (("meme", recipe.template_views), ("describe", recipe.photograph_views)):
        pictures = sorted({s.picture for s in samples if s.style == style})
        if pictures:
            grids[style] = features(
                encoder, checkpoint.reduction, pictures, views, run / "features", template=style == "meme"
            )
    checkpoint.styles = tuple(
        style for style in STYLES if style in grids or (recipe.start and style in checkpoint.styles)
    )
    checkpoint.votes = recipe.known_votes > 0
    members = {
        (style, part): [s for s, p in zip(samples, split, strict=True) if s.style == style and p == part]
        for style in ("meme", "describe")
        for part in corpora
    }
    counts = None
    for part, made in corpora.items():
        for style in grids:
            made.append(corpus(members[style, part], checkpoint.tokenizer, grids[style], style))
        if "meme" in grids and recipe.counts:
            memes = made[0]
            counts = counts or KneserNey(memes.ids, checkpoint.tokenizer.prefix("meme")[0], len(checkpoint.tokenizer))
            memes = made[0] = counted(memes, counts, seen=part == "train")
            checkpoint.ngrams = NGrams.of(counts)
        if "meme" in grids and "describe" in grids:
            made.append(paired(made[0], members["describe", part], grids["describe"], recipe))
    return corpora


def introduce(checkpoint: Checkpoint, corpora: Sequence[Corpus], recipe: Recipe) -> None:
    """Before anything is learnt: the decoder meets the kinds of pictures that there are, and known words."""
    if recipe.start:
        return
    named: dict[str, Tensor] = {}
    unnamed: list[Tensor] = []
    for c in corpora:
        if c.name == "meme" and c.samples:
            named |= kinds.templates(c.samples, c.rows, c.grids, c.views)
        elif c.name == "describe" and c.samples:
            unnamed += kinds.clusters(c.rows, c.grids, recipe.seed)
    labels = [checkpoint.tokenizer.encode([name.replace("-", " ")])[:-1] for name in named]
    checkpoint.decoder.meet(torch.stack([*named.values(), *unnamed]), labels + [[]] * len(unnamed))
    if recipe.vectors:
        found = vectors.fill(checkpoint.decoder.embedding, checkpoint.tokenizer, Path(recipe.vectors))
        print(f"{recipe.vectors}: vectors of {found} words")


def corpus(samples: list[Sample], tokenizer: CaptionTokenizer, grids: Features, style: str) -> Corpus:
    ids = tokenizer.encode_batch([s.boxes for s in samples])
    rows = np.array([grids.rows[s.picture].start for s in samples], np.int64)
    votes = np.array([-1 if s.percentile is None else min(VOTES - 1, int(s.percentile * VOTES)) for s in samples])
    return Corpus(style, samples, ids, rows, grids.views, votes, grids.grids, style, None, np.zeros(0, np.int64))


def counted(corpus: Corpus, counts: KneserNey, *, seen: bool) -> Corpus:
    """The corpus with what counts say about it; `seen` where the counts are its own."""
    starts = np.cumsum([0, *map(len, corpus.ids)])
    return replace(corpus, evidence=counts.evidence(corpus.ids, seen=seen), counted=starts)


def paired(memes: Corpus, described: list[Sample], grids: Features, recipe: Recipe) -> Corpus:
    """Memes with photographs of what they speak of."""
    made = pairs(described, memes.samples, recipe.pairs, recipe.seed)
    chosen = [i for _, i in made]
    return Corpus(
        "pair",
        [memes.samples[i] for i in chosen],
        [memes.ids[i] for i in chosen],
        np.array([grids.rows[picture].start for picture, _ in made], np.int64),
        grids.views,
        memes.votes[chosen],
        grids.grids,
        "meme",
        memes.evidence,
        memes.counted[chosen],
    )


class Trainer:
    """Fits a checkpoint's decoder; the checkpoint ends with the averaged weights of the best check."""

    def __init__(self, checkpoint: Checkpoint, recipe: Recipe, run: Path) -> None:
        self.checkpoint, self.recipe, self.run = checkpoint, recipe, run
        self.model = checkpoint.decoder
        self.gate = checkpoint.gate
        self.both = nn.ModuleDict({"decoder": self.model, "gate": self.gate})
        self.optimiser = torch.optim.AdamW(
            self.both.parameters(), recipe.rate, weight_decay=recipe.weight_decay, betas=(0.9, 0.98), fused=True
        )
        self.average = {k: v.clone() for k, v in self.both.state_dict().items()}
        self.best = self.average
        self.critic: Critic | None = None
        self.progress = Progress()

    def fit(self, train: list[Corpus], dev: list[Corpus]) -> list[dict[str, float]]:
        """Trains to the recipe's last step, from where an earlier run was cut off; gives the log."""
        train, back = _held_back(train, self.recipe.held_back)
        if self.recipe.self_critical:
            self.critic = _critic(self.checkpoint, back if self.recipe.held_back else train, self.recipe.seed)
        self._resume()
        stream = batches(train, self.checkpoint.tokenizer, self.recipe, self.progress.step)
        steps = None if self.recipe.minutes else self.recipe.steps
        bar = tqdm(total=steps, initial=self.progress.step, unit="step", smoothing=0.01, mininterval=5)
        losses: list[float] = []
        started = time.monotonic()
        if not self.progress.log and self.progress.step == self.recipe.steps:  # nothing to learn, only to be equipped
            self._check(dev, math.nan, 0.0)
        while self._done() < 1:
            before = self._done()
            losses.append(self._update(next(stream)))
            bar.update()
            if self.progress.step % 50 == 0:
                bar.set_postfix(loss=f"{np.mean(losses[-50:]):.3f}")
            if self._is_due(before):
                self._check(dev, float(np.mean(losses)), time.monotonic() - started)
                losses.clear()
        bar.close()
        self.both.load_state_dict(self.best)
        self.both.eval()
        return self.progress.log

    def _done(self) -> float:
        """The share of the run that is over."""
        if self.recipe.patience and self.progress.worse >= self.recipe.patience:
            return 1.0
        if self.recipe.minutes:
            return self.progress.spent / (60 * self.recipe.minutes)
        return self.progress.step / self.recipe.steps

    def _is_due(self, before: float) -> bool:
        """Whether a check is due: after so many steps or, of a run by time, a share of it; and at the end."""
        if self.recipe.minutes:
            return int(before * _CHECKS) < int(self._done() * _CHECKS)
        return self.progress.step % self.recipe.check_every == 0 or self._done() >= 1

    def _update(self, parts: Sequence[Batch]) -> float:
        began = _clock()
        self.both.train()
        for group in self.optimiser.param_groups:
            group["lr"] = rate(self.recipe, self.progress.step, self._done() if self.recipe.minutes else None)
        self.optimiser.zero_grad(set_to_none=True)
        size = sum(len(part.counted) for part in parts)
        loss = sum(self._learn(part, len(part.counted) / size) for part in parts)
        if self.critic:
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
        self.progress.spent += _clock() - began
        return loss

    def _learn(self, batch: Batch, share: float) -> float:
        """Adds the gradient of a share of an update; gives that share of the loss in nats a token."""
        recipe, smoothing = self.recipe, self.recipe.describe_smoothing if batch.describes else 0.0
        self.model.dropout.p = (batch.describes and recipe.describe_dropout) or recipe.dropout
        logits = _logits(self.checkpoint, batch)
        evenly = -logits.log_softmax(-1).mean() if smoothing else 0.0
        loss = -_mixed(self.checkpoint, batch, logits).mean()
        smoothed = (1 - smoothing) * loss + smoothing * evenly
        (share * (smoothed + self.model.penalty())).backward()  # type: ignore[no-untyped-call]
        return share * loss.item()

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
        if self.critic or _total(row) <= self.progress.best:
            self.progress.best, self.progress.worse = _total(row), 0
            self.best = {k: v.clone() for k, v in self.average.items()}
        self.progress.log.append(row)
        _write_log(self.run / "log.csv", self.progress.log)
        tqdm.write("  ".join(f"{k} {v:.4g}" for k, v in row.items()))
        self._save()

    def _save(self) -> None:
        state = {
            "recipe": asdict(self.recipe),
            "model": self.both.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "average": self.average,
            "best": self.best,
            "progress": asdict(self.progress),
            "random": torch.get_rng_state(),
        }
        torch.save(state, self.run / "state.part")
        (self.run / "state.part").replace(self.run / "state.pt")

    def _resume(self) -> None:
        file = self.run / "state.pt"
        if not file.exists():
            return
        state: dict[str, Any] = torch.load(file, weights_only=True)
        if asdict(Recipe()) | state["recipe"] | {"threads": 0} != asdict(replace(self.recipe, threads=0)):
            raise ValueError(f"{self.run} holds a run of another recipe; remove it or choose another --out.")
        self.both.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.average, self.best = state["average"], state["best"]
        self.progress = Progress(**state["progress"])
        if self.critic:
            self.critic.spread = self.progress.spread
        torch.set_rng_state(state["random"])
        print(f"Resuming at step {self.progress.step}.")


def _held_back(corpora: Sequence[Corpus], share: float) -> tuple[list[Corpus], list[Corpus]]:
    """The corpora without, and those of descriptions with nothing but, a share of the photographs."""
    kept, back = [], []
    for corpus in corpora:
        if not share or corpus.name != "describe":
            kept.append(corpus)
            continue
        apart = [zlib.crc32(s.picture.name.encode()) % 1000 < 1000 * share for s in corpus.samples]
        kept.append(_part(corpus, [i for i, out in enumerate(apart) if not out]))
        back.append(_part(corpus, [i for i, out in enumerate(apart) if out]))
    return kept, back


def _part(corpus: Corpus, members: list[int]) -> Corpus:
    """Some captions of a corpus that counts do not speak of."""
    samples, ids = [corpus.samples[i] for i in members], [corpus.ids[i] for i in members]
    return replace(corpus, samples=samples, ids=ids, rows=corpus.rows[members], votes=corpus.votes[members])


def _critic(checkpoint: Checkpoint, corpora: Sequence[Corpus], seed: int) -> Critic:
    """Raises ValueError where no descriptions are trained on."""
    for corpus in corpora:
        if corpus.name == "describe" and corpus.samples:
            said: dict[int, list[str]] = {}
            for sample, row in zip(corpus.samples, corpus.rows.tolist(), strict=True):
                said.setdefault(row, []).append(sample.text)
            views = [corpus.grids[row : row + corpus.views] for row in said]
            return Critic(checkpoint.decoder, checkpoint.tokenizer, views, list(said.values()), seed)
    raise ValueError("self_critical needs a data set of descriptions.")


_CHECKS, _CHECKED = 6, 400
"""Of a run by time, and captions of each: they take time, too."""


def _clock() -> float:
    """Seconds: with one thread the processor's own, so that a run means the same on a busy machine."""
    return time.process_time() if torch.get_num_threads() == 1 else time.monotonic()


def rate(recipe: Recipe, step: int, done: float | None = None) -> float:
    """Linear warm-up, then half a cosine down to a fiftieth; `done` is the share of a run by time that is over."""
    if step < recipe.warm_up:
        return recipe.rate * (step + 1) / recipe.warm_up
    if done is None:
        done = (step - recipe.warm_up) / max(1, recipe.steps - recipe.warm_up)
    return recipe.rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))


def batches(corpora: list[Corpus], tokenizer: CaptionTokenizer, recipe: Recipe, step: int) -> Iterator[list[Batch]]:
    """Batches from a step on, styles mixed by the recipe's shares, captions of like length together.

    Where descriptions are learnt in another way, they are a part of their own.
    """
    apart = bool(recipe.describe_dropout or recipe.describe_smoothing)
    present = [c for c in corpora if c.samples]
    of = {"describe": recipe.describe_share, "pair": recipe.pair_share}
    shares = np.array([of.get(c.name, 1 - sum(of.values())) for c in present])
    counts = np.round(shares / shares.sum() * _CHUNK * recipe.batch).astype(int)
    counts[0] += _CHUNK * recipe.batch - counts.sum()
    chunk = step // _CHUNK
    skip = step % _CHUNK
    while True:
        picked = [
            (c, int(i))
            for c, count in zip(present, counts, strict=True)
            for i in _cycled(len(c.samples), chunk * count, count, recipe.seed)
        ]
        picked.sort(key=lambda ci: len(ci[0].ids[ci[1]]))
        order = np.random.default_rng([recipe.seed, chunk]).permutation(_CHUNK)
        for at in order[skip:]:
            members = picked[at * recipe.batch : (at + 1) * recipe.batch]
            # A generator a batch: a resumed run draws the same views and votes.
            rng = np.random.default_rng([recipe.seed, chunk, at])
            parts = [[m for m in members if (m[0].style == "describe") == described] for described in (False, True)]
            parts = [part for part in parts if part] if apart else [members]
            yield [collate(part, tokenizer, rng, recipe.known_votes, recipe.mirror) for part in parts]
        chunk, skip = chunk + 1, 0


_CHUNK = 64


def _cycled(size: int, start: int, count: int, seed: int) -> Iterator[int]:
    """`count` indices from `start` on, of one permutation after another."""
    epoch = -1
    for position in range(start, start + count):
        if position // size != epoch:
            epoch = position // size
            order = np.random.default_rng([seed, size, epoch]).permutation(size)
        yield int(order[position % size])


def collate(
    picked: Sequence[tuple[Corpus, int]],
    tokenizer: CaptionTokenizer,
    rng: np.random.Generator | None,
    known: float = 0.0,
    mirror: float = 0.0,
) -> Batch:
    """Captions padded to one length; a random view and sometimes the votes with `rng`, the picture itself without."""
    longest = max(len(c.ids[i]) for c, i in picked)
    tokens = np.full((len(picked), longest + 1), tokenizer.pad, np.int64)
    targets = np.full((len(picked), longest + 1), -1, np.int64)
    grids = []
    for row, (c, i) in enumerate(picked):
        ids = c.ids[i]
        voted = rng is not None and c.votes[i] >= 0 and rng.random() < known
        tokens[row, :2] = tokenizer.prefix(c.style, int(c.votes[i]) if voted else None)
        tokens[row, 2 : len(ids) + 1] = ids[:-1]
        targets[row, 1 : len(ids) + 1] = ids
        view = int(rng.integers(c.views)) if rng is not None else 0
        grid = c.grids[c.rows[i] + view]
        grids.append(_mirrored(grid) if mirror and rng and c.name != "meme" and rng.random() < mirror else grid)
    counted, evidence = _evidence(picked)
    return Batch(
        torch.from_numpy(np.stack(grids)).float(),
        torch.from_numpy(tokens),
        torch.from_numpy(targets),
        torch.from_numpy(counted),
        torch.from_numpy(evidence),
        all(c.style == "describe" for c, _ in picked),
    )


def _mirrored(grid: np.ndarray) -> np.ndarray:
    """A square grid (R, D) with left and right swapped."""
    side = math.isqrt(len(grid))
    return grid.reshape(side, side, -1)[:, ::-1].reshape(grid.shape)


def _evidence(picked: Sequence[tuple[Corpus, int]]) -> tuple[np.ndarray, np.ndarray]:
    """What counts say about the captions' ids, one after another: log-probabilities (N,) and features (N, F)."""
    logs, rows = [], []
    for c, i in picked:
        size = len(c.ids[i])
        if c.evidence is None:
            logs.append(np.full(size, NEVER, np.float32))
            rows.append(np.zeros((size, ORDER + 1), np.float32))
        else:
            part = c.evidence[int(c.counted[i]) : int(c.counted[i]) + size]
            logs.append(np.log(part.probability).astype(np.float32))
            rows.append(part.features())
    return np.concatenate(logs), np.concatenate(rows)


def _likelihood(checkpoint: Checkpoint, batch: Batch) -> Tensor:
    """Log-likelihood (N,) of every target asked for, network and counts mixed."""
    return _mixed(checkpoint, batch, _logits(checkpoint, batch))


def _logits(checkpoint: Checkpoint, batch: Batch) -> Tensor:
    """Of every target asked for, (N, V)."""
    logits: Tensor = checkpoint.decoder(batch.grid, batch.tokens, batch.targets >= 0)
    return logits


def _mixed(checkpoint: Checkpoint, batch: Batch, logits: Tensor) -> Tensor:
    return checkpoint.gate.likelihood(logits, batch.targets[batch.targets >= 0], batch.counted, batch.evidence)


@torch.inference_mode()
def likelihood(checkpoint: Checkpoint, corpus: Corpus, limit: int = 2000, batch: int = 128) -> dict[str, float]:
    """Bits per character and perplexity of up to `limit` captions, evenly picked, votes unknown.

    Characters are those of the normalised text, one for every separator and one for the end.
    """
    checkpoint.decoder.eval()
    step = max(1, math.ceil(len(corpus.samples) / limit))
    order = sorted(range(0, len(corpus.samples), step), key=lambda i: len(corpus.ids[i]))
    nats, tokens, characters = 0.0, 0, 0
    for start in range(0, len(order), batch):
        members = order[start : start + batch]
        made = collate([(corpus, i) for i in members], checkpoint.tokenizer, None)
        found = _likelihood(checkpoint, made)
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
    for key in [k for k in (log[0] if log else {}) if k.endswith("bits_per_char")]:
        right.plot(steps, [row[key] for row in log], label=key.removesuffix("_bits_per_char"))
    right.set(title="dev, bits per character", xlabel="step")
    right.legend()
    figure.savefig(file)


def _tokenizer(texts: Sequence[str], recipe: Recipe, file: Path) -> CaptionTokenizer:
    """Learnt once a run: weights mean nothing with another."""
    if recipe.start:
        return Checkpoint.load(Path(recipe.start)).tokenizer
    if not file.exists():
        file.write_text(learnt_tokenizer(texts, recipe).to_json(), "utf-8")
    return CaptionTokenizer(file.read_text("utf-8"))


def learnt_tokenizer(texts: Sequence[str], recipe: Recipe) -> CaptionTokenizer:
    """Of pieces, or of words."""
    if recipe.words:
        return CaptionTokenizer.of_words(texts, recipe.words)
    return CaptionTokenizer.train(texts, recipe.vocabulary)


def new_decoder(name: str, recipe: Recipe, vocabulary: int, many: int) -> Decoder:
    """A decoder for so many ids and kinds of pictures, with those of the recipe's settings that it has.

    Raises ValueError for a name or an option that nobody knows.
    """
    if name not in DECODERS:
        raise ValueError(f"There is no decoder {name}; known are {', '.join(DECODERS)}.")
    known = settings(name)
    given = asdict(recipe) | {"vocabulary": vocabulary, "kinds": many}
    config = {key: given[key] for key in known if key in given}
    for option in filter(None, recipe.options.split(",")):
        key, _, value = option.partition("=")
        if key not in known:
            raise ValueError(f"The decoder {name} has no option {key}; it has {', '.join(known)}.")
        config[key] = known[key](value)
    return DECODERS[name](config)


def _untrained(
    samples: Sequence[Sample],
    split: Sequence[str],
    tokenizer: CaptionTokenizer,
    recipe: Recipe,
    decoder_name: str,
    name: str,
) -> Checkpoint:
    seen = {data.fingerprint(s.text) for s, part in zip(samples, split, strict=True) if part == "train"}
    fingerprints = np.array(sorted(seen), np.uint32)
    if recipe.start:
        base = Checkpoint.load(Path(recipe.start))
        base.decoder.dropout.p = recipe.dropout
        base.decoder.shorten(None)
        base.name, base.fingerprints = name, fingerprints
        return base
    encoder = build(recipe.encoder)
    photographs = sorted({s.picture for s in samples if s.style == "describe"})
    templates = sorted({s.picture for s in samples if s.style == "meme"})
    # Templates are few, so they count twice.
    reduction = fit_reduction(encoder, templates * 2 + photographs, recipe.features)
    seen_in = [s for s, part in zip(samples, split, strict=True) if part == "train"]
    decoder = new_decoder(decoder_name, recipe, len(tokenizer), kinds.count(seen_in))
    return Checkpoint(decoder, reduction, tokenizer, name, decoder_name, recipe.encoder, fingerprints)


def _total(row: dict[str, float]) -> float:
    """What the best check is chosen by: bits per character of all styles."""
    return sum(v for k, v in row.items() if k.endswith("bits_per_char"))


def _write_log(file: Path, log: list[dict[str, float]]) -> None:
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, list(log[-1]))
        writer.writeheader()
        writer.writerows(log)
