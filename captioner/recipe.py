"""What a training is told: sizes, shares, rates, and how they change from step to step."""

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captioner.encoders import DEFAULT


@dataclass(frozen=True)
class Recipe:
    """What `key=value` on the command line may change."""

    seed: int = 1
    encoder: str = DEFAULT
    steps: int = 5600
    minutes: float = 0.0
    """Instead of steps, if not 0: time spent on learning, of the processor where it is one thread's work alone."""
    batch: int = 128
    together: int = 1
    """Captions of one picture that stand together in a batch: a transformer then reads the picture once for them."""
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
    taught: str = ""
    """A file of captions by teachers, as `captioner distil` writes it, to learn from beside people's."""
    taught_share: float = 0.2
    """And the share of them in what is learnt from."""
    patience: int = 0
    """So many checks in a row without a better one end the run, if not 0; the best one is what is kept in any case."""
    tune: int = 0
    """Passes over the described photographs in which the encoder's last stages learn their words (captioner.tune); 0
    leaves the encoder as it was published."""
    told: int = 0
    """And further passes in which they learn whole descriptions, those of `taught` as well, together with a decoder:
    best with a checkpoint to start from, whose decoder can already tell."""
    start: str = ""
    """A checkpoint to go on from: its weights, tokenizer and reduction. The sizes below are then its own."""
    known_votes: float = 0.5
    """How often a meme is trained with its vote bucket; else with *unknown*."""
    counts: int = 1
    """1 to mix counts of words into what is learnt of memes."""
    alone: float = 0.5
    """Weight of the likelihood that the network gives memes without the counts, beside the one with them: counts are
    good from the first step on, and where they get all the trust the network is left nothing to learn."""
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
    writer: int = 0
    """Units of the attention GRU's second layer; a checkpoint to go on from that has none gets one."""
    dropout: float = 0.15
    template_views: int = 12
    photograph_views: int = 3
    recogniser_views: int = 48
    """Distorted copies of every template that the recogniser learns from; 0 trains none."""
    own: int = 372
    """Memes on each template that the finished model writes, whole searches of them, to learn what gives them away; 0
    leaves that out."""
    compact: int = 0
    """1 to save the decoder's large matrices in 8 bits: a sixth less of a file that is downloaded."""
    check_every: int = 700
    by: str = "caption"
    """What is held out to check on: `caption`, whole `template` or `picture`."""
    device: str = "auto"
    """`cpu`, `cuda`, or `auto`: a GPU where there is one."""
    precision: str = "auto"
    """`float32`, `bfloat16` for products (mixed precision), or `auto`: mixed on a GPU that can."""
    threads: int = 0
    """Of torch; 0 leaves the choice to torch."""


RECIPES = {
    "small": Recipe(),
    "large": Recipe(
        steps=20_000, batch=512, rate=1e-3, warm_up=1000, vocabulary=8000, units=1024, attention=256, embedding=320,
        features=512, dropout=0.25, describe_dropout=0.5, describe_smoothing=0.1, photograph_views=12,
        template_views=24, tune=3, check_every=1000, patience=5,
    ),
    "describe": Recipe(
        steps=6800, batch=64, rate=1.5e-3, warm_up=200, weight_decay=0.02, ema=0.998, counts=0, words=5, embedding=256,
        units=512, attention=192, writer=512, dropout=0.5, describe_dropout=0.5, describe_smoothing=0.1,
        photograph_views=5, tune=3, recogniser_views=0, check_every=850, threads=1,
    ),
}  # fmt: skip
"""`small` takes some two hours of two cores, `large` a GPU, `describe` learns descriptions alone, as long as the
benchmark's full budget. `large` was never run to its end: nobody here has had a GPU.
"""


_FROM_ONE = {
    "batch", "together", "check_every", "features", "embedding", "units", "attention", "vocabulary", "template_views",
    "photograph_views", "pictures", "captions", "texts",
}  # fmt: skip
_SHARES = {
    "ema", "describe_share", "pair_share", "describe_dropout", "describe_smoothing", "dropout", "mirror", "held_back",
    "taught_share", "known_votes",
}  # fmt: skip
"""Settings, of whatever is told by `key=value`, that are not just any number from 0 on."""


def filled(recipe: Any, changes: Iterable[tuple[str, str]]) -> Any:
    """The dataclass with `key=value` changes, each of its field's type; ValueError names what does not fit."""
    kinds = {f.name: type(getattr(recipe, f.name)) for f in dataclasses.fields(recipe)}
    values = {}
    for key, value in changes:
        if key not in kinds:
            raise ValueError(f"There is no recipe setting {key}; known are {', '.join(kinds)}.")
        try:
            values[key] = kinds[key](value)
        except ValueError:
            raise ValueError(f"{key} takes a number, not {value!r}.") from None
        least, most = 1 if key in _FROM_ONE else 0, 1 if key in _SHARES else math.inf
        if kinds[key] is not str and not (least <= values[key] <= most and math.isfinite(values[key])):
            bounds = f"from {least} to {most}" if key in _SHARES else f"of {least} or more"
            raise ValueError(f"{key} takes a number {bounds}, not {value}.")
    return dataclasses.replace(recipe, **values)


def run_folder(out: Path, sets: Iterable[Path] = ()) -> Path:
    """The folder beside `out`, of its name without suffix, in which its run keeps what it needs again.

    Raises ValueError where that is `out` itself or the folder of one of the data sets, or where `out` is a folder: it
    could not be written in the end.
    """
    if not out.suffix or out.is_dir():
        raise ValueError(f"--out takes a file whose name has a suffix, such as model.safetensors, not {out}.")
    run = out.with_suffix("")
    if run.resolve() in {folder.resolve() for folder in sets}:
        raise ValueError(f"The run of {out} would be kept in {run}, among the data: give --out another name.")
    return run


def portable(recipe: Recipe) -> dict[str, Any]:
    """Its settings as a checkpoint keeps them: files by their names alone, since the checkpoint travels."""
    return dataclasses.asdict(recipe) | {key: Path(getattr(recipe, key)).name for key in ("start", "vectors", "taught")}


def rate(recipe: Recipe, step: int, done: float | None = None) -> float:
    """Linear warm-up, then half a cosine down to a fiftieth; `done` is the share of a run by time that is over."""
    if step < recipe.warm_up:
        return recipe.rate * (step + 1) / recipe.warm_up
    if done is None:
        done = (step - recipe.warm_up) / max(1, recipe.steps - recipe.warm_up)
    return recipe.rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))
