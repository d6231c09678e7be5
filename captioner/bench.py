"""One bench for captioners: every system gets the same data, time, search and metrics, and a row of one table.

What a run needs again lies in its folder: features once per data set and encoder, a checkpoint and a row for every
system. A run that is started again goes on where it was; a system that fails leaves a row that says so.
"""

import hashlib
import json
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from captioner import data, devices, kinds, metrics, outside_metrics
from captioner.baselines import BASELINES, Baseline, Pictures
from captioner.bench_report import write
from captioner.captioner import shipped
from captioner.checkpoint import Checkpoint
from captioner.corpora import Corpus, prepare, read
from captioner.data.samples import Sample, fingerprint
from captioner.decoders.together import ensemble
from captioner.encoders import DEFAULT, Reduction, build, is_known
from captioner.features import fit_reduction
from captioner.recipe import Recipe, filled, portable
from captioner.search import Lane, Rules, Search, search
from captioner.train import introduce, learnt_tokenizer, new_decoder
from captioner.trainer import Trainer, likelihood

Row = dict[str, Any]

_COMMON: dict[str, Any] = {
    "words": 5, "counts": 0, "batch": 64, "rate": 1.5e-3, "warm_up": 100, "ema": 0.99, "known_votes": 0.0, "threads": 1,
}  # fmt: skip
_BEAM = Search("beam", width=3, steps=30, max_boxes=1, early=True)
_DRAWN = Search("sample", width=4, steps=30, max_boxes=1, temperature=1.0)
_TAKEN = {"encoder", "features", "minutes", "seed", "device", "start"} | {"by", "tune", "told", "own", "compact"}
"""What a bench is asked for otherwise, or all its systems share, or none of them gets."""
_JOBS = 320
"""Memes that are drawn for the figures about variety."""
_BATCH = 16
_LONGEST = 20
"""Ids that the memory of a picture's beams is counted at."""
_REFERENCES = 10
"""Of a picture at most, drawn by the seed: with hundreds BLEU saturates."""


@dataclass(frozen=True)
class System:
    """A captioner of the literature: its decoder, the encoder that it is known with, and its settings."""

    title: str
    decoder: str
    encoder: str = DEFAULT
    recipe: dict[str, Any] = field(default_factory=dict)


_MEMEFLY = {"embedding": 256, "units": 256, "dropout": 0.5}
_LSTM = {"embedding": 512, "units": 512, "dropout": 0.3}
_ATTEND = {"embedding": 256, "units": 512, "attention": 256, "dropout": 0.4}
_LAYERS = {"embedding": 256, "dropout": 0.1, "rate": 5e-4, "together": 5}
_DEFAULT = {"embedding": 256, "units": 512, "attention": 192, "dropout": 0.4}

SYSTEMS: dict[str, System] = {
    "memefly": System("Memefly: par-inject GRU", "par_inject_gru", "inception_v3", _MEMEFLY),
    "memefly_noisy_picture": System(
        "Memefly, noise on the picture", "par_inject_gru", "inception_v3", _MEMEFLY | {"options": "picture_noise=0.5"}
    ),
    "memefly_noisy_embedding": System(
        "Memefly, noise on its embedding",
        "par_inject_gru",
        "inception_v3",
        _MEMEFLY | {"options": "embedding_noise=0.5"},
    ),
    "meme_saheb": System("Meme Saheb: template, LSTM", "template_lstm", "resnet50", _LSTM | {"embedding": 256}),
    "show_and_tell": System("Show and Tell", "show_and_tell", "inception_v3", _LSTM),
    "dank_learning": System(
        "Dank Learning, label averaged", "show_and_tell", "inception_v3", _LSTM | {"options": "label=mean"}
    ),
    "dank_learning_words": System(
        "Dank Learning, label read", "show_and_tell", "inception_v3", _LSTM | {"options": "label=words"}
    ),
    "show_attend_and_tell": System("Show, Attend and Tell", "show_attend_and_tell", "vgg19", _ATTEND),
    "image2tweet_gru": System(
        "Image2Tweet: GRU, Bahdanau", "show_attend_and_tell", "inception_v3", _ATTEND | {"options": "cell=gru"}
    ),
    "up_down": System("Up-Down, grid", "up_down", "resnet101", _ATTEND),
    "up_down_regions": System("Up-Down, Faster R-CNN", "up_down", "fasterrcnn_resnet50_fpn", _ATTEND),
    "transformer": System("Transformer 6 + 6", "transformer", "inception_v3", _LAYERS),
    "meshed_memory": System("Meshed-Memory Transformer", "meshed_memory", "resnet101", _LAYERS),
    "attention_gru": System("Default decoder", "attention_gru", DEFAULT, _DEFAULT | {"writer": 256}),
    "attention_gru_one_layer": System("Default decoder, one layer", "attention_gru", DEFAULT, _DEFAULT),
    "quipbot": System(
        "Default decoder, pieces and counts",
        "attention_gru",
        DEFAULT,
        _DEFAULT | {"writer": 256, "words": 0, "vocabulary": 4000, "counts": 1},
    ),
}
ENSEMBLE = "ensemble"
"""The systems that were named before it, writing together."""
TITLES = {name: system.title for name, system in SYSTEMS.items()} | {
    ENSEMBLE: "Ensemble of those above",
    "nearest_neighbour": "Nearest neighbour, consensus",
    "slot_templates": "Slot templates",
}
FIRST = (
    "nearest_neighbour", "slot_templates", "memefly", "meme_saheb", "show_and_tell", "show_attend_and_tell",
    "image2tweet_gru", "up_down", "transformer", "meshed_memory", "attention_gru",
)  # fmt: skip
"""What is run where nobody names systems."""


@dataclass(frozen=True)
class Job:
    """A bench on one data set."""

    name: str
    data: Path
    folder: Path
    minutes: float
    seed: int = 1
    encoder: str = ""
    """One for all; else each system's own, where its weights can be had."""
    device: str = "auto"
    """Where systems are trained; they are measured on the CPU."""
    recipe: tuple[tuple[str, str], ...] = ()
    """Changes to what every system is trained by, as `key`, `value`."""
    captions: str = ""
    """The digest of the data's captions (`captioner.data.digest`)."""

    def asked(self) -> Row:
        """What a row is of, beside its system."""
        asked = {"minutes": self.minutes, "seed": self.seed, "one_encoder": self.encoder, "recipe": dict(self.recipe)}
        return asked | {"captions": self.captions}

    def changes(self) -> list[str]:
        """Those to the recipe as a row's note tells them, files by their names alone."""
        return [f"{key}={Path(value).name}" for key, value in self.recipe]


def bench(sets: dict[str, Path], systems: Sequence[str], minutes: float, out: Path, changes: dict[str, Any]) -> None:
    """Runs the systems on one data set after another; `out/NAME` gets `table.md`, `table.json` and `curves.png`.

    Raises ValueError for a system, an encoder or a change of recipe that nobody knows, and for a set that has both
    memes and descriptions or none to check on, before anything is touched.
    """
    for system in systems:
        if system not in TITLES:
            raise ValueError(f"There is no system {system}; known are {', '.join(TITLES)}.")
    if (encoder := changes.get("encoder")) and not is_known(encoder):
        raise ValueError(f"There is no picture network called {encoder}.")
    asked = changes.get("recipe", ())
    filled(Recipe(), asked)
    if taken := sorted({key for key, _ in asked} & _TAKEN):
        raise ValueError(f"{', '.join(taken)} cannot be changed by a recipe here: the bench decides it.")
    torch.set_num_threads(1)
    materials = [_read(Job(name, folder, out / name, minutes, **changes)) for name, folder in sets.items()]
    for material in materials:
        _bench(material, systems)


def _read(job: Job) -> "Material":
    samples, _ = read({job.name: job.data})
    if len({s.style for s in samples}) > 1:
        raise ValueError(f"{job.data} has memes and descriptions: a bench compares systems on either alone.")
    material = Material(replace(job, captions=data.digest(samples)), samples)
    if not {"train", "dev"} <= set(material.split):
        raise ValueError(
            f"{job.data} has no captions to learn from, or none to check on: its splits are train and dev."
        )
    return material


def _bench(material: "Material", systems: Sequence[str]) -> None:
    job = material.job
    job.folder.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    for system in systems:
        file = job.folder / f"{system}.json"
        row = json.loads(file.read_text("utf-8")) if file.exists() else {}
        # An ensemble is of whatever was named with it this time.
        if row.get("error", "") is not None or not _is_of(row, job) or system == ENSEMBLE:
            row = _tried(material, system, [row["system"] for row in rows if row["error"] is None])
            file.write_text(json.dumps(row, indent=1), "utf-8")
        rows.append(row)
        write(job.folder, rows, TITLES)


def _is_of(row: Row, job: Job) -> bool:
    """Whether a row that was kept is what the job asks for."""
    known = {"one_encoder": "", "recipe": {}} | row
    return all(known.get(key) == value for key, value in job.asked().items())


def _tried(material: "Material", system: str, before: Sequence[str]) -> Row:
    job = material.job
    row: Row = {"system": system, "error": None} | job.asked()
    print(f"{job.name}: {system}", flush=True)
    try:
        if system == ENSEMBLE:
            return row | _together(material, [name for name in before if name in SYSTEMS])
        return row | (_baseline(material, system) if system in BASELINES else _trained(material, system))
    except Exception as error:  # whatever it was, the others shall have their turn
        traceback.print_exc()
        return row | {"error": f"{type(error).__name__}: {error}"}


class Material:
    """A data set as it is read once for all systems."""

    def __init__(self, job: Job, samples: list[Sample]) -> None:
        self.job, self.samples = job, samples
        self.split = [data.split_of(s) for s in samples]
        self.train = [s for s, part in zip(samples, self.split, strict=True) if part == "train"]
        self.prints = np.array(sorted({fingerprint(s.text) for s in self.train}), np.uint32)
        self.seen = frozenset(self.prints.tolist())

    def encoder(self, wanted: str) -> tuple[str, str]:
        """The encoder to use, and a word about why it is not the one that was wanted.

        Raises ValueError for one that nobody knows.
        """
        name = self.job.encoder or wanted
        try:
            build(name)
        except OSError:  # where weights are fetched from cannot be reached
            return DEFAULT, f"on {DEFAULT}: no weights of {name}"
        return name, "" if name == wanted else f"on {name} instead of {wanted}"

    def eyes(self, encoder: str, features: int) -> tuple[Reduction, dict[str, Tensor]]:
        """The reduction and the last stages: the shipped model's for its own encoder, else a reduction fitted to the
        training pictures, once."""
        model = Checkpoint.load(shipped())
        if encoder == model.encoder:
            return model.reduction, model.last_stages
        file = self.job.folder / f"reduction-{encoder}-{self.job.captions}.safetensors"
        if not file.exists():
            seeing = build(encoder).to(devices.for_training(self.job.device))
            made = fit_reduction(seeing, sorted({s.picture for s in self.train}), features)
            save_file({key: value.contiguous() for key, value in made.state_dict().items()}, file)
        stored = load_file(file)
        reduction = Reduction(*stored["basis"].shape)
        reduction.load_state_dict(stored)
        return reduction, {}

    def checkpoint(self, name: str, decoder: str, recipe: Recipe) -> Checkpoint:
        """An untrained one."""
        texts = [box for s in self.train for box in s.boxes]
        tokenizer = learnt_tokenizer(texts, recipe)
        torch.manual_seed(recipe.seed)
        model = new_decoder(decoder, recipe, len(tokenizer), kinds.count(self.train))
        reduction, last = self.eyes(recipe.encoder, recipe.features)
        return Checkpoint(model, reduction, tokenizer, name, decoder, recipe.encoder, self.prints, last_stages=last)

    def corpora(self, checkpoint: Checkpoint, recipe: Recipe) -> dict[str, list[Corpus]]:
        return prepare(self.samples, self.split, checkpoint, recipe, self.job.folder)


def _trained(material: Material, name: str) -> Row:
    """Trains a system for its time and measures it; its checkpoint stays, to be served."""
    job, system = material.job, SYSTEMS[name]
    encoder, note = material.encoder(system.encoder)
    asked = {"encoder": encoder, "minutes": job.minutes, "seed": job.seed, "device": job.device}
    recipe = filled(replace(Recipe(), **(_COMMON | system.recipe | asked)), job.recipe)
    note = ", ".join(filter(None, [note, *job.changes()]))
    run = job.folder / f"{name}-{_digest(recipe, job.captions)}"
    run.mkdir(exist_ok=True)
    checkpoint = material.checkpoint(name, system.decoder, recipe)
    corpora = material.corpora(checkpoint, recipe)
    introduce(checkpoint, corpora["train"], recipe)
    trainer = Trainer(checkpoint, recipe, run)
    log = trainer.fit(corpora["train"], corpora["dev"])
    progress = trainer.progress
    checkpoint.facts = {
        "data": {job.name: len(material.samples)},
        "recipe": portable(recipe),
        "figures": trainer.kept(),
    }
    checkpoint.save(job.folder / f"{name}.safetensors")
    [held] = [c for c in corpora["dev"] if c.samples]
    return {
        "decoder": system.decoder,
        "encoder": encoder,
        "note": note,
        "device": trainer.device.type,
        "parameters": sum(p.numel() for p in checkpoint.decoder.parameters()),
        "steps": progress.step,
        "tokens": progress.tokens,
        "tokens_per_second": progress.tokens / progress.spent,
        "curve": [[row["spent"], row[f"{held.name}_bits_per_char"]] for row in log],
    } | measured(checkpoint, held, material.seen, job.seed)


def _together(material: Material, names: Sequence[str]) -> Row:
    """Measures trained systems as one. Raises ValueError for less than two, or where they cannot write together."""
    job = material.job
    members = {name: Checkpoint.load(job.folder / f"{name}.safetensors") for name in names}
    if len(members) < 2:
        raise ValueError("An ensemble takes two trained systems at least: name them before it.")
    together = ensemble(members)
    recipe = replace(Recipe(), **(_COMMON | {"seed": job.seed, "device": job.device, "encoder": together.encoder}))
    recipe = filled(recipe, job.recipe)
    [held] = [c for c in material.corpora(together, recipe)["dev"] if c.samples]
    parameters = sum(p.numel() for p in together.decoder.parameters())
    note = ", ".join([*members, *job.changes()])
    row = {"encoder": together.encoder, "note": note, "curve": [], "parameters": parameters}
    return row | measured(together, held, material.seen, job.seed)


def _digest(recipe: Recipe, captions: str) -> str:
    """Of what a run is told and learns from: another run has another folder."""
    return hashlib.blake2b(json.dumps([asdict(recipe), captions]).encode(), digest_size=4).hexdigest()


def _baseline(material: Material, name: str) -> Row:
    """Fits what needs no training and measures it on the default encoder's grids."""
    recipe = replace(Recipe(), **(_COMMON | {"seed": material.job.seed, "device": material.job.device}))
    corpora = material.corpora(material.checkpoint(name, "attention_gru", recipe), recipe)
    [known], [held] = ([c for c in corpora[part] if c.samples] for part in ("train", "dev"))
    said: dict[int, list[str]] = defaultdict(list)
    for sample, row in zip(known.samples, known.rows.tolist(), strict=True):
        said[row].append(sample.text)
    pictures = Pictures(known.grids[list(said)], list(said.values()), known.name == "meme", material.job.seed)
    baseline: Baseline = BASELINES[name](pictures)
    row = {"encoder": DEFAULT, "note": "", "curve": []}
    return row | _compared(lambda grids: [baseline.caption(g) for g in grids], held, material.seen, material.job.seed)


def measured(checkpoint: Checkpoint, held: Corpus, seen: frozenset[int], seed: int) -> Row:
    """All figures of a trained decoder on held-out captions; `seen` are the fingerprints of the training captions."""
    rules = Rules(checkpoint.tokenizer, torch.device("cpu"), checkpoint.decoder.shortlist)
    prefix = tuple(checkpoint.tokenizer.prefix(held.style))

    def written(grids: Tensor, how: Search, first: int = 0) -> list[str]:
        lanes = [Lane(i, prefix, how, seed + first + i) for i in range(len(grids))]
        found = search(checkpoint.decoder, rules, grids, lanes, checkpoint.mixture)
        if how.method == "beam":
            found = [sorted(hypotheses, key=lambda h: -h.score) for hypotheses in found]
        return [" ".join(checkpoint.tokenizer.decode(hypotheses[0].ids)) for hypotheses in found]

    row: Row = dict(likelihood(checkpoint, held))
    row |= {"words_per_token": _words_per_token(held)}
    row |= _compared(lambda grids: written(grids, _BEAM), held, seen, seed)
    if held.name == "meme":
        rows = np.unique(held.rows)
        jobs = [int(rows[i % len(rows)]) for i in range(_JOBS)]
        drawn: list[str] = []
        for start in range(0, _JOBS, _BATCH):
            drawn += written(_grids(held, jobs[start : start + _BATCH]), _DRAWN, start)
        row |= {f"drawn_{key}": value for key, value in _variety(drawn, seen).items()}
    return row | {"kilobytes": _kilobytes(checkpoint, _grids(held, held.rows[:1].tolist()))}


def _words_per_token(held: Corpus) -> float:
    """Words, each caption's end counted as one, over ids: what turns nats an id into nats a word."""
    return sum(len(s.text.split()) + 1 for s in held.samples) / sum(map(len, held.ids))


def _compared(write_all: Callable[[Tensor], list[str]], held: Corpus, seen: frozenset[int], seed: int) -> Row:
    """Every held-out picture's best caption against people's; the time it took."""
    said: dict[int, list[list[str]]] = defaultdict(list)
    for sample, row in zip(held.samples, held.rows.tolist(), strict=True):
        said[row].append(metrics.words(sample.text))
    rows, rng = list(said), np.random.default_rng(seed)
    references = [[said[row][i] for i in rng.permutation(len(said[row]))[:_REFERENCES]] for row in rows]
    written: list[str] = []
    began = time.process_time()
    for start in tqdm(range(0, len(rows), _BATCH), desc="captions", mininterval=5):
        written += write_all(_grids(held, rows[start : start + _BATCH]))
    spent = time.process_time() - began
    told = [metrics.words(text) for text in written]
    bleu = metrics.bleu(told, references)
    return {
        **{f"bleu{n}": score for n, score in enumerate(bleu, 1)},
        "rouge_l": metrics.rouge_l(told, references),
        "cider_d": metrics.cider_d(told, references),
        "meteor": outside_metrics.meteor_1_0(told, references),
        "meteor_1_5": outside_metrics.meteor_1_5(told, references),
        "spice": outside_metrics.spice(told, references),
        **_variety(written, seen),
        "ms_per_picture": 1000 * spent / len(rows),
        "pictures": len(rows),
        "examples": written[:8],
    }


def _variety(written: Sequence[str], seen: frozenset[int]) -> Row:
    """How captions of different pictures differ; `self_bleu` says how alike they are."""
    told = [metrics.words(text) for text in written]
    return {
        "distinct1": metrics.distinct(told, 1),
        "distinct2": metrics.distinct(told, 2),
        "self_bleu": metrics.self_bleu(told),
        "different": len(set(written)) / len(written),
        "copy_rate": sum(fingerprint(text) in seen for text in written) / len(written),
    }


def _grids(held: Corpus, rows: Sequence[int]) -> Tensor:
    """Undistorted pictures (B, R, D)."""
    return torch.from_numpy(held.grids[list(rows)]).float()


@torch.inference_mode()
def _kilobytes(checkpoint: Checkpoint, grid: Tensor) -> float:
    """What a picture (1, R, D) takes while its captions are written: its memory, and the state of its beams."""
    decoder, width = checkpoint.decoder, _BEAM.width
    memory, state = decoder.begin(grid)
    state, tokens = state.repeat_interleave(width, 0), torch.zeros(width, dtype=torch.long)
    for _ in range(_LONGEST):
        _, state = decoder.step(tokens, state, memory, [(0, slice(0, width))])
    return (_bytes(memory) + state.nbytes) / 1000


def _bytes(memory: Any) -> int:
    """Of the tensors in a decoder's memory."""
    if isinstance(memory, Tensor):
        return memory.nbytes
    return sum(map(_bytes, memory)) if isinstance(memory, list | tuple) else 0
