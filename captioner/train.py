"""Training: captions of several data sets and two styles become one checkpoint.

Deterministic by seed on one kind of machine. A run that was cut off resumes from its folder: the order of the data is a
function of seed and step, everything else is in the saved state.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from captioner import data, devices, kinds, vectors
from captioner.aptness import Aptness
from captioner.batches import shares
from captioner.captioner import CANDIDATES, lengths
from captioner.checkpoint import Checkpoint
from captioner.corpora import Corpus, prepare, read, taught_samples
from captioner.data.pairs import words
from captioner.data.samples import Sample
from captioner.decoders import DECODERS, AttentionGRU, Decoder, settings
from captioner.encoders import DEFAULT, build
from captioner.features import fit_reduction
from captioner.gate import Writer
from captioner.keywords import Keywords
from captioner.objects import usual, vocabulary
from captioner.recipe import Recipe, portable, run_folder
from captioner.residual import Residual
from captioner.reward import Reward, comparable
from captioner.shortlist import joined, shortlist, widened
from captioner.templates import learnt
from captioner.tokenizer import CaptionTokenizer
from captioner.trainer import Trainer, plot
from captioner.tune import tune
from captioner.voice import Voice

_OTHERS = 3
"""People's memes to learn from for each that the model writes on a template."""
_SIZES = ("encoder", "features", "vocabulary", "words", "embedding", "units", "attention", "writer")
"""The settings that a network is made with and keeps; not every decoder has all of them."""


def train(
    sets: dict[str, Path], out: Path, recipe: Recipe, decoder_name: str = "", asked: Collection[str] = ()
) -> Checkpoint:
    """Trains and saves to `out`; logs, plot and the state to resume from lie in a folder of that name beside it.

    Without a name the decoder is that of the checkpoint to start from, else `attention_gru`. `asked` are the settings
    that somebody has named, rather than left as they stand in a recipe: those of another network are refused.
    Raises ValueError or FileNotFoundError for data that cannot be read, a device or a split that nobody knows, for an
    `out` without a suffix, for shares that leave nothing (captioner.batches), and for what a checkpoint to start from
    cannot heed.
    """
    if not (recipe.steps or recipe.minutes or recipe.start):
        raise ValueError("Without steps or minutes there must be a checkpoint to start from: nothing would be learnt.")
    if recipe.by not in data.SPLITS:
        raise ValueError(f"by is caption, template or picture, not {recipe.by}.")
    run = run_folder(out, sets.values())
    devices.is_mixed(recipe.precision, devices.for_training(recipe.device))  # known to be there before hours are spent
    name = decoder_name or "attention_gru"
    if recipe.start:
        _check_start(recipe, decoder_name, asked)
    else:
        check_decoder(name, recipe, asked)
    torch.manual_seed(recipe.seed)
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    run.mkdir(parents=True, exist_ok=True)
    samples, dropped = read(sets, recipe.by)
    split = [data.SPLITS[recipe.by](s) for s in samples]
    there = sorted({s.style for s, part in zip(samples, split, strict=True) if part == "train"})
    shares([*there, "taught"] if recipe.taught else there, recipe)  # known to be some before hours are spent
    checkpoint = untrained(samples, split, tokenizer_of(samples, split, recipe, run), recipe, name, out.stem)
    sizes = _sizes(checkpoint) if recipe.start else {}  # the recipe's own went unheeded
    if recipe.tune or recipe.told:
        _tune(checkpoint, samples, split, recipe, run)
    corpora = prepare(samples, split, checkpoint, recipe, run)
    introduce(checkpoint, corpora["train"], recipe)
    trainer = Trainer(checkpoint, recipe, run)
    history = trainer.fit(corpora["train"], corpora["dev"])
    equip(checkpoint, corpora["train"], recipe)
    checkpoint.facts = {
        "data": {name: sum(1 for s in samples if folder in s.picture.parents) for name, folder in sets.items()},
        "dropped": {name: dict(counts) for name, counts in dropped.items()},
        "recipe": portable(recipe) | sizes,
        "started_from": checkpoint.facts,
        "figures": trainer.kept(),
    }
    checkpoint.save(out, compact=bool(recipe.compact))
    plot(history, run / "training.png")
    return checkpoint


def _tune(checkpoint: Checkpoint, samples: Sequence[Sample], split: Sequence[str], recipe: Recipe, run: Path) -> None:
    """Fine-tunes the checkpoint's eyes on what is described, as `tune` does."""
    described = [(s, part) for s, part in zip(samples, split, strict=True) if s.style == "describe"]
    learns, checks = ([s for s, at in described if at == part] for part in ("train", "dev"))
    known = {s.picture for s in learns}
    tune(checkpoint, learns, checks, recipe, run, taught_samples(Path(recipe.taught), known) if recipe.taught else ())
    checkpoint.keywords = checkpoint.templates = None  # other eyes read them


def check_decoder(name: str, recipe: Recipe, asked: Collection[str] = ()) -> None:
    """Raises ValueError for a decoder or an option that nobody knows, and where it lacks sizes that were asked for."""
    if name not in DECODERS:
        raise ValueError(f"There is no decoder {name}; known are {', '.join(DECODERS)}.")
    _options(name, recipe)
    sizes = {*_SIZES}.difference(settings(name), ("encoder", "words"))
    if lacking := [key for key in _SIZES if key in sizes.intersection(asked) and getattr(recipe, key)]:
        raise ValueError(f"The decoder {name} has no {' and no '.join(lacking)}.")


def _check_start(recipe: Recipe, decoder_name: str, asked: Collection[str]) -> None:
    """Raises ValueError where a checkpoint to start from is another than what is asked for beside it."""
    base = Checkpoint.load(Path(recipe.start))
    if decoder_name not in ("", base.decoder_name):
        raise ValueError(f"{recipe.start} has the decoder {base.decoder_name}, not {decoder_name}.")
    if recipe.vectors:
        raise ValueError("vectors is for a model that begins anew: one to start from has learnt its own.")
    config = asdict(base.decoder.config)
    for key, value in _options(base.decoder_name, recipe).items():
        if config[key] != value:
            raise ValueError(f"{recipe.start} has {key}={config[key]}, not {value}: options are for a new model.")
    check_decoder(base.decoder_name, recipe, asked)
    sizes = _sizes(base)
    if not sizes.get("writer"):  # it gets one
        sizes.pop("writer", None)
    check_sizes(sizes, recipe, asked)


def check_sizes(sizes: dict[str, Any], recipe: Recipe, asked: Collection[str]) -> None:
    """Raises ValueError where settings were asked for that differ from those of the checkpoint to start from."""
    if others := [key for key in sizes if key in asked and sizes[key] != getattr(recipe, key)]:
        has = " and ".join(f"{key}={sizes[key]}" for key in others)
        raise ValueError(f"{recipe.start} has {has}, which it keeps: nothing else can be asked for.")


def _sizes(base: Checkpoint) -> dict[str, Any]:
    """The settings that a checkpoint was made with and keeps whatever is learnt further, as far as it tells them."""
    first = base.facts
    while first.get("started_from"):
        first = first["started_from"]
    config = asdict(base.decoder.config)
    # What was asked for: few texts give a smaller vocabulary. Of pieces it is where no words are told.
    told = {"words": 0} | {key: n for key, n in first.get("recipe", {}).items() if key in ("vocabulary", "words")}
    sizes = {key: config[key] for key in _SIZES if key in config}
    return sizes | told | {"encoder": base.encoder, "features": base.reduction.basis.shape[1]}


def equip(checkpoint: Checkpoint, corpora: Sequence[Corpus], recipe: Recipe) -> None:
    """Trains what stands beside the decoder: what a search may write, and all that it and the ranking go by.

    Of a checkpoint that was started from, each part stays that there is nothing to learn anew from.
    """
    by = {c.name: c for c in corpora if c.samples}
    if (memes := by.get("meme")) and comparable(memes.samples):
        checkpoint.reward = Reward.fit(memes.samples, checkpoint.tokenizer, recipe.seed)
    if memes:
        tokenizer = checkpoint.tokenizer
        names = [s.template for s in memes.samples]
        checkpoint.aptness = Aptness.fit(memes.ids, names, [tokenizer.eos, tokenizer.sep], len(tokenizer))
    described = by.get("describe")
    if described:
        found = _keywords(described, checkpoint.tokenizer, recipe.seed)
        # Both of the same photographs: what is usual among those that taught no word says nothing of the words.
        if checkpoint.encoder == DEFAULT and (found or not checkpoint.keywords):
            checkpoint.usual = usual(sorted({s.picture for s in described.samples}))
        checkpoint.keywords = found or checkpoint.keywords
    checkpoint.decoder.shorten(_listed(checkpoint, list(by.values()), recipe))
    if memes and described:
        checkpoint.voice = Voice.fit(memes.ids, described.ids, len(checkpoint.tokenizer))
        if recipe.recogniser_views:
            known = {s.template: s.picture for s in memes.samples if s.template}
            others = sorted({s.picture for s in described.samples})[::3]
            device = devices.for_training(recipe.device)
            encoder, reduction = checkpoint.build_encoder().to(device), deepcopy(checkpoint.reduction).to(device)
            checkpoint.templates = learnt(encoder, reduction, known, others, recipe.recogniser_views)
    if memes:
        before, checkpoint.residual = checkpoint.residual, None  # another model gives itself away by other things
        if checkpoint.templates and recipe.own:
            checkpoint.residual = _residual(checkpoint, memes, recipe) or before


def _listed(checkpoint: Checkpoint, corpora: Sequence[Corpus], recipe: Recipe) -> Tensor | None:
    """The ids (C,) that a search may write, None for all.

    Where one of the styles that it knows is not in the data, what the checkpoint to start from might write it may, too.
    """
    tokenizer = checkpoint.tokenizer
    words = checkpoint.keywords.words if checkpoint.keywords else []
    listed = shortlist(tokenizer, [c.ids for c in corpora], words)
    if checkpoint.encoder == DEFAULT:
        listed = widened(listed, tokenizer, vocabulary())
    if recipe.start and not set(checkpoint.styles) <= {c.style for c in corpora}:
        before = Checkpoint.load(Path(recipe.start)).decoder.shortlist
        return None if before is None else joined(listed, tokenizer, before.tolist())
    return listed


def _residual(checkpoint: Checkpoint, memes: Corpus, recipe: Recipe) -> Residual | None:
    """What tells people's memes from those that the model draws, on each template that it recognises."""
    checkpoint.decoder.eval()
    rows = {s.template: row for s, row in zip(memes.samples, memes.rows.tolist(), strict=True) if s.template}
    by: dict[str, list[list[int]]] = {name: [] for name in rows}
    for sample, ids in zip(memes.samples, memes.ids, strict=True):
        # What no search can write would be told by its length alone.
        if sample.template and len(ids) in lengths(sample.template):
            by[sample.template].append(ids)
    writer, rng = Writer.of(checkpoint), np.random.default_rng(recipe.seed)
    searches = -(-recipe.own // CANDIDATES[0])
    own: list[tuple[str, ...]] = []
    people: list[list[int]] = []
    for number, (name, row) in enumerate(tqdm(sorted(rows.items()), desc="own memes", unit="template")):
        made = writer.memes(memes.grids[[row] * searches], name, recipe.seed + 10_000_000 * number)
        own += made
        people += [by[name][i] for i in rng.permutation(len(by[name]))[: _OTHERS * len(made)]]
    tokenizer, listed = checkpoint.tokenizer, checkpoint.decoder.shortlist
    known = set(range(len(tokenizer)) if listed is None else listed.tolist()).difference(tokenizer.forbidden)
    try:
        return Residual.fit(people, tokenizer.encode_batch(own), torch.tensor(sorted(known)), recipe.seed)
    except ValueError:  # a handful of memes, or none of a template that is recognised
        return None


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


def tokenizer_of(samples: Sequence[Sample], split: Sequence[str], recipe: Recipe, run: Path) -> CaptionTokenizer:
    """Learnt once a run, data and kind, of what is learnt from: weights mean nothing with another."""
    if recipe.start:
        return Checkpoint.load(Path(recipe.start)).tokenizer
    seen = [s for s, part in zip(samples, split, strict=True) if part == "train"]
    kind = f"{recipe.words}-words" if recipe.words else f"{recipe.vocabulary}-pieces"
    file = run / f"tokenizer-{data.digest(seen)}-{kind}.json"
    if not file.exists():
        file.write_text(learnt_tokenizer([box for s in seen for box in s.boxes], recipe).to_json(), "utf-8")
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
    check_decoder(name, recipe)
    known = settings(name)
    given = asdict(recipe) | {"vocabulary": vocabulary, "kinds": many}
    config = {key: given[key] for key in known if key in given}
    return DECODERS[name](config | _options(name, recipe))


def _options(name: str, recipe: Recipe) -> dict[str, Any]:
    """The recipe's settings of a decoder that have no name there. Raises ValueError for one that it has not."""
    known, found = settings(name), {}
    for option in filter(None, recipe.options.split(",")):
        key, _, value = option.partition("=")
        if key not in known:
            raise ValueError(f"The decoder {name} has no option {key}; it has {', '.join(known)}.")
        found[key] = known[key](value)
    return found


def untrained(
    samples: Sequence[Sample],
    split: Sequence[str],
    tokenizer: CaptionTokenizer,
    recipe: Recipe,
    decoder_name: str,
    name: str,
    eyes: Checkpoint | None = None,
) -> Checkpoint:
    """What a training begins with: an encoder, its reduction, and a decoder that knows nothing yet.

    Or the whole of the checkpoint that the recipe starts from; or of `eyes`, encoder and reduction.
    """
    seen = {data.fingerprint(s.text) for s, part in zip(samples, split, strict=True) if part == "train"}
    fingerprints = np.array(sorted(seen), np.uint32)
    if recipe.start:
        base = Checkpoint.load(Path(recipe.start))
        base.decoder.shorten(None)
        if isinstance(base.decoder, AttentionGRU) and recipe.writer > base.decoder.config.writer == 0:
            base.decoder = base.decoder.with_writer(recipe.writer)
        base.decoder.drop(recipe.dropout)
        base.name, base.fingerprints = name, np.union1d(base.fingerprints, fingerprints)  # it can still write the old
        return base
    seen_in = [s for s, part in zip(samples, split, strict=True) if part == "train"]
    decoder = new_decoder(decoder_name, recipe, len(tokenizer), kinds.count(seen_in))
    if eyes:
        made = Checkpoint(decoder, eyes.reduction, tokenizer, name, decoder_name, eyes.encoder, fingerprints)
        made.last_stages = eyes.last_stages
        return made
    encoder = build(recipe.encoder).to(devices.for_training(recipe.device))
    photographs = sorted({s.picture for s in seen_in if s.style == "describe"})
    templates = sorted({s.picture for s in seen_in if s.style == "meme"})
    # Templates are few, so they count twice.
    reduction = fit_reduction(encoder, templates * 2 + photographs, recipe.features)
    return Checkpoint(decoder, reduction, tokenizer, name, decoder_name, recipe.encoder, fingerprints)
