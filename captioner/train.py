"""Training: captions of several data sets and two styles become one checkpoint.

Deterministic by seed on one kind of machine. A run that was cut off resumes from its folder: the order of the data is a
function of seed and step, everything else is in the saved state.
"""

import csv
import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from captioner import data
from captioner.checkpoint import Checkpoint
from captioner.data.pairs import pairs, words
from captioner.data.samples import Sample
from captioner.decoders import DECODERS, AttentionGRU
from captioner.encoders import DEFAULT, build
from captioner.features import Features, features, fit_reduction
from captioner.keywords import Keywords
from captioner.mixture import NEVER
from captioner.ngrams import ORDER, Evidence, KneserNey, NGrams
from captioner.reward import Reward
from captioner.templates import learnt
from captioner.tokenizer import VOTES, CaptionTokenizer
from captioner.voice import Voice


@dataclass(frozen=True)
class Recipe:
    """What `key=value` on the command line may change."""

    seed: int = 1
    encoder: str = DEFAULT
    steps: int = 5600
    batch: int = 128
    rate: float = 1.5e-3
    warm_up: int = 300
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.999
    describe_share: float = 0.25
    pair_share: float = 0.18
    """The shares of descriptions and of memes paired with photographs in what is learnt from; the rest are memes."""
    pairs: int = 20
    """Memes paired with each described photograph."""
    start: str = ""
    """A checkpoint to go on from: its weights, tokenizer and reduction. The sizes below are then its own."""
    known_votes: float = 0.5
    """How often a meme is trained with its vote bucket; else with *unknown*."""
    vocabulary: int = 8000
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


@dataclass
class Progress:
    """What a run saves besides weights."""

    step: int = 0
    best: float = math.inf
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
    if (memes := by.get("meme")) and any(s.percentile is not None for s in memes.samples):
        checkpoint.reward = Reward.fit(memes.samples, checkpoint.tokenizer, recipe.seed)
    if described := by.get("describe"):
        checkpoint.keywords = _keywords(described, checkpoint.tokenizer, recipe.seed)
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
    members = {
        (style, part): [s for s, p in zip(samples, split, strict=True) if s.style == style and p == part]
        for style in ("meme", "describe")
        for part in corpora
    }
    counts = None
    for part, made in corpora.items():
        for style in grids:
            made.append(corpus(members[style, part], checkpoint.tokenizer, grids[style], style))
        if "meme" in grids:
            memes = made[0]
            counts = counts or KneserNey(memes.ids, checkpoint.tokenizer.prefix("meme")[0], len(checkpoint.tokenizer))
            memes = made[0] = counted(memes, counts, seen=part == "train")
            checkpoint.ngrams = NGrams.of(counts)
            if "describe" in grids:
                made.append(paired(memes, members["describe", part], grids["describe"], recipe))
    return corpora


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
        self.model: AttentionGRU = checkpoint.decoder
        self.gate = checkpoint.gate
        self.both = nn.ModuleDict({"decoder": self.model, "gate": self.gate})
        self.optimiser = torch.optim.AdamW(
            self.both.parameters(), recipe.rate, weight_decay=recipe.weight_decay, betas=(0.9, 0.98), fused=True
        )
        self.average = {k: v.clone() for k, v in self.both.state_dict().items()}
        self.best = self.average
        self.progress = Progress()

    def fit(self, train: list[Corpus], dev: list[Corpus]) -> list[dict[str, float]]:
        """Trains to the recipe's last step, from where an earlier run was cut off; gives the log."""
        self._resume()
        stream = batches(train, self.checkpoint.tokenizer, self.recipe, self.progress.step)
        bar = tqdm(total=self.recipe.steps, initial=self.progress.step, unit="step", smoothing=0.01, mininterval=5)
        losses: list[float] = []
        started = time.monotonic()
        if not self.progress.log and self.progress.step == self.recipe.steps:  # nothing to learn, only to be equipped
            self._check(dev, math.nan, 0.0)
        while self.progress.step < self.recipe.steps:
            losses.append(self._update(next(stream)))
            bar.update()
            if self.progress.step % 50 == 0:
                bar.set_postfix(loss=f"{np.mean(losses[-50:]):.3f}")
            if self.progress.step % self.recipe.check_every == 0 or self.progress.step == self.recipe.steps:
                self._check(dev, float(np.mean(losses)), time.monotonic() - started)
                losses.clear()
        bar.close()
        self.both.load_state_dict(self.best)
        self.both.eval()
        return self.progress.log

    def _update(self, batch: Batch) -> float:
        self.both.train()
        for group in self.optimiser.param_groups:
            group["lr"] = rate(self.recipe, self.progress.step)
        loss = -_likelihood(self.checkpoint, batch).mean()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.both.parameters(), self.recipe.clip)
        self.optimiser.step()
        self.progress.step += 1
        weight = max(1 - self.recipe.ema, 1 / self.progress.step)
        with torch.no_grad():
            for name, value in self.both.state_dict().items():
                self.average[name].lerp_(value, weight)
        return loss.item()

    def _check(self, dev: list[Corpus], loss: float, seconds: float) -> None:
        current = {k: v.clone() for k, v in self.both.state_dict().items()}
        self.both.load_state_dict(self.average)
        row = {"step": float(self.progress.step), "seconds": seconds, "loss": loss}
        for members in dev:
            if members.samples:
                row |= {f"{members.name}_{k}": v for k, v in likelihood(self.checkpoint, members).items()}
        self.both.load_state_dict(current)
        if _total(row) <= self.progress.best:
            self.progress.best = _total(row)
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
        if state["recipe"] | {"threads": 0} != asdict(replace(self.recipe, threads=0)):
            raise ValueError(f"{self.run} holds a run of another recipe; remove it or choose another --out.")
        self.both.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.average, self.best = state["average"], state["best"]
        self.progress = Progress(**state["progress"])
        torch.set_rng_state(state["random"])
        print(f"Resuming at step {self.progress.step}.")


def rate(recipe: Recipe, step: int) -> float:
    """Linear warm-up, then half a cosine down to a fiftieth."""
    if step < recipe.warm_up:
        return recipe.rate * (step + 1) / recipe.warm_up
    done = (step - recipe.warm_up) / max(1, recipe.steps - recipe.warm_up)
    return recipe.rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))


def batches(corpora: list[Corpus], tokenizer: CaptionTokenizer, recipe: Recipe, step: int) -> Iterator[Batch]:
    """Batches from a step on, styles mixed by the recipe's shares, captions of like length together."""
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
            yield collate(members, tokenizer, np.random.default_rng([recipe.seed, chunk, at]), recipe.known_votes)
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
        grids.append(c.grids[c.rows[i] + view])
    counted, evidence = _evidence(picked)
    return Batch(
        torch.from_numpy(np.stack(grids)).float(),
        torch.from_numpy(tokens),
        torch.from_numpy(targets),
        torch.from_numpy(counted),
        torch.from_numpy(evidence),
    )


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
    keep = batch.targets >= 0
    logits = checkpoint.decoder(batch.grid, batch.tokens, keep)
    return checkpoint.gate.likelihood(logits, batch.targets[keep], batch.counted, batch.evidence)


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
        file.write_text(CaptionTokenizer.train(texts, recipe.vocabulary).to_json(), "utf-8")
    return CaptionTokenizer(file.read_text("utf-8"))


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
        base.name, base.fingerprints = name, fingerprints
        return base
    encoder = build(recipe.encoder)
    photographs = sorted({s.picture for s in samples if s.style == "describe"})
    templates = sorted({s.picture for s in samples if s.style == "meme"})
    # Templates are few, so they count twice.
    reduction = fit_reduction(encoder, templates * 2 + photographs, recipe.features)
    config = {k: getattr(recipe, k) for k in ("features", "embedding", "units", "attention", "dropout")}
    decoder = DECODERS[decoder_name](config | {"vocabulary": len(tokenizer)})
    return Checkpoint(decoder, reduction, tokenizer, name, decoder_name, recipe.encoder, fingerprints)


def _total(row: dict[str, float]) -> float:
    """What the best check is chosen by: bits per character of all styles."""
    return sum(v for k, v in row.items() if k.endswith("bits_per_char"))


def _write_log(file: Path, log: list[dict[str, float]]) -> None:
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, list(log[-1]))
        writer.writeheader()
        writer.writerows(log)
