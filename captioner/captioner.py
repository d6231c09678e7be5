"""The captioner: read → encode → decode → draw.

`read` and `draw` may run in any thread; `caption` and `explain` belong to one thread, torch's.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from captioner import draw as drawing
from captioner import filter as block
from captioner import images
from captioner.attention_map import attention_map
from captioner.checkpoint import Checkpoint, CheckpointError
from captioner.data.samples import fingerprint
from captioner.encoders import build
from captioner.fonts import Fonts
from captioner.images import Limits, Picture
from captioner.search import Hypothesis, Lane, Method, Rules, Search, search
from captioner.tokenizer import VOTES, normalise

Style = Literal["meme", "describe"]
ModelError = CheckpointError

_DESCRIBE = Search("beam", width=2, steps=24, max_boxes=1, early=True)
_WIDTH = 4
_SPARE = 1
"""Hypotheses beyond what is asked for: some may not be said."""
_TRIES = 3


@dataclass(frozen=True)
class Wish:
    """What is wanted of one picture. `n` is how many captions come back; `explore` leaves them unranked."""

    style: Style = "meme"
    search: Method = "sample"
    n: int = 3
    seed: int = 0
    context: str = ""
    explore: bool = False


@dataclass(frozen=True)
class Caption:
    """One caption, lower case. `logprob` is the model's natural-log probability of it, `score` what ranks it."""

    boxes: tuple[str, ...]
    logprob: float
    reward: float | None
    score: float


_NOTHING = Caption(("a picture",), 0.0, None, 0.0)
"""The description where every hypothesis was blocked."""


@dataclass(frozen=True)
class Captioned:
    """The captions of one picture, best first, and its description."""

    captions: tuple[Caption, ...]
    description: str
    template: tuple[str, float] | None
    seed: int
    model: str


class Captioner:
    """A loaded model with its encoder and fonts; `Captioner.load` makes one."""

    def __init__(self, checkpoint: Checkpoint, device: str, fonts: Fonts, limits: Limits, max_side: int) -> None:
        self.name = checkpoint.name
        self.device = torch.device(device)
        self.fonts, self.limits, self.max_side = fonts, limits, max_side
        self.tokenizer = checkpoint.tokenizer
        self.encoder = build(checkpoint.encoder).to(self.device)
        self.reduction = checkpoint.reduction.to(self.device)
        self.decoder = checkpoint.decoder.to(self.device).eval()
        self.rules = Rules(self.tokenizer, self.device)
        self.fingerprints = checkpoint.fingerprints

    @classmethod
    def load(
        cls,
        model: Path | None = None,
        *,
        device: str = "auto",
        threads: int = 0,
        limits: Limits = Limits(),  # noqa: B008, frozen
        font: str | None = None,
        max_side: int = 2048,
    ) -> "Captioner":
        """Loads a checkpoint file, or the shipped one.

        `threads` of torch, 0 for half of the cores: a chat server has more to do. Raises ModelError for a file that
        cannot be read or a device that is not there, FontError for a configured font that is not.
        """
        torch.set_num_threads(threads or max(1, _cores() // 2))
        # Full precision on a GPU as well: captions should not depend on where they are written.
        torch.backends.cudnn.allow_tf32 = False
        checkpoint = Checkpoint.load(model or shipped())
        return cls(checkpoint, _device(device), Fonts.resolve(font), limits, max_side)

    def read(self, data: bytes) -> Picture:
        """Untrusted bytes to an upright RGB picture, at most `max_side` long; raises ImageError with a sentence."""
        picture = images.read(data, self.limits)
        return replace(picture, image=images.scaled(picture.image, self.max_side))

    def draw(self, picture: Picture, boxes: Sequence[str]) -> Image.Image:
        """The picture with the boxes written on it."""
        return drawing.draw(picture.image, boxes, self.fonts)

    @torch.inference_mode()
    def caption(self, jobs: Sequence[tuple[Picture, Wish]]) -> list[Captioned]:
        """Captions all jobs together; on a CPU each gets what it would get alone, to the last bit."""
        if not jobs:
            return []
        pixels = [self.encoder.pixels([picture.image]) for picture, _ in jobs]
        seeds = [_seed(p, wish.seed) for p, (_, wish) in zip(pixels, jobs, strict=True)]
        return self.decode(self.encode(pixels), [wish for _, wish in jobs], seeds)

    def encode(self, pixels: Sequence[Tensor]) -> Tensor:
        """Pixels (1, 3, S, S) of each picture to grids (B, R, D).

        On a CPU picture by picture: as fast as a batch, and the same bits in any.
        """
        if self.device.type == "cpu":
            return torch.cat([self.reduction(self.encoder(p)) for p in pixels])
        grids: Tensor = self.reduction(self.encoder(torch.cat(list(pixels))))
        return grids

    @torch.inference_mode()
    def decode(self, grids: Tensor, wishes: Sequence[Wish], seeds: Sequence[int]) -> list[Captioned]:
        """Captions of grids (B, R, D): descriptions and memes in one search, and again where too few may be said."""
        described: list[list[Caption]] = [[] for _ in wishes]
        written: list[list[Caption]] = [[] for _ in wishes]
        lanes = [self._description(i) for i in range(len(wishes))]
        lanes += [lane for i in range(len(wishes)) for lane in self._caption(i, wishes[i], seeds[i])]
        for attempt in range(_TRIES):
            for lane, hypotheses in zip(lanes, search(self.decoder, self.rules, grids, lanes), strict=True):
                if lane.how is _DESCRIBE:
                    self._add(described[lane.picture], hypotheses, "describe")
                else:
                    self._add(written[lane.picture], hypotheses, wishes[lane.picture].style)
            short = [i for i, w in enumerate(wishes) if w.search == "sample" and len(written[i]) < w.n]
            lanes = [lane for i in short for lane in self._caption(i, wishes[i], seeds[i] + attempt + 1)]
            if not lanes:
                break
        return [self._captioned(*parts) for parts in zip(wishes, described, written, strict=True)]

    def _captioned(self, wish: Wish, described: list[Caption], written: list[Caption]) -> Captioned:
        described = sorted(described, key=lambda c: -c.score) or [_NOTHING]
        captions = written or described
        if not wish.explore:
            captions = sorted(captions, key=lambda c: -c.score)
        return Captioned(tuple(captions[: wish.n]), described[0].boxes[0], None, wish.seed, self.name)

    @torch.inference_mode()
    def explain(self, picture: Picture, boxes: Sequence[str], style: Style = "meme") -> bytes:
        """A PNG: every word of the caption over the attention that it paid to the picture."""
        grid = self.encode([self.encoder.pixels([picture.image])])
        text = [b for b in map(normalise, boxes) if b] or ["?"]
        ids = self.tokenizer.encode(text)
        tokens = torch.tensor([self.tokenizer.prefix(style, self._vote(style)) + ids], device=self.device)
        weights = self.decoder.weights(grid, tokens)[0, 1:-1].cpu().numpy()  # (T, R), the step that wrote each id
        return attention_map(picture.image, self.tokenizer.pieces(ids), weights)

    def _description(self, picture: int) -> Lane:
        return Lane(picture, tuple(self.tokenizer.prefix("describe")), _DESCRIBE)

    def _caption(self, picture: int, wish: Wish, seed: int) -> list[Lane]:
        """The lane that fulfils a wish; none where the description already does."""
        how = _how(wish)
        if how is None:
            return []
        prefix = self.tokenizer.prefix(wish.style, self._vote(wish.style))
        return [Lane(picture, tuple(prefix), how, seed, self._favour(wish.context))]

    def _add(self, captions: list[Caption], hypotheses: Sequence[Hypothesis], style: Style) -> None:
        """Appends what may be said: not blocked, not said already, and no meme that copies a training caption."""
        said = {_letters(c.boxes) for c in captions}
        for caption in self._captions(hypotheses):
            letters = _letters(caption.boxes)
            if not letters or letters in said or block.shipped().blocks(caption.boxes, style):
                continue
            if style == "meme" and self.is_copy(caption.boxes):
                continue
            said.add(letters)
            captions.append(caption)

    def _captions(self, hypotheses: Iterable[Hypothesis]) -> list[Caption]:
        return [Caption(self.tokenizer.decode(h.ids), h.logprob, None, h.score) for h in hypotheses]

    def is_copy(self, boxes: Sequence[str]) -> bool:
        """Whether a training caption has the same words; one in some ten thousand others is taken for one, too."""
        key = np.uint32(fingerprint(" ".join(boxes)))
        place = int(np.searchsorted(self.fingerprints, key))
        return place < len(self.fingerprints) and bool(self.fingerprints[place] == key)

    def _favour(self, context: str) -> Tensor | None:
        """What the words that were posted with a picture add to the logits (V,); None if there are none."""
        words = set(re.findall(r"[^\W\d_]{4,}", normalise(context)))
        pieces = [self.tokenizer.encode([word])[:-1] for word in words]
        # Of a word in several pieces, the first begins too many others.
        whole = [ids[0] for ids in pieces if len(ids) == 1]
        if not whole:
            return None
        favour = torch.zeros(len(self.tokenizer), device=self.device)
        favour[whole] = _CONTEXT
        return favour

    @staticmethod
    def _vote(style: Style) -> int | None:
        return VOTES - 1 if style == "meme" else None


_CONTEXT = 2.5
"""Added to the logits of a context word: enough to be taken up, too little to be stuttered."""


def shipped() -> Path:
    """The default model's file; raises ModelError where an installation lacks it."""
    folder = resources.files("captioner").joinpath("weights")
    files = sorted(Path(str(folder)).glob("*.safetensors"))
    if not files:
        raise ModelError("No model is shipped with this installation; name one with captioner.model.")
    return files[-1]


def _how(wish: Wish) -> Search | None:
    """The search that fulfils a wish; None where the description already does."""
    if wish.style == "describe" and wish.search == "beam" and wish.n == 1:
        return None
    width = max(_WIDTH, wish.n + _SPARE)
    if wish.style == "describe":
        return Search(wish.search, width=width, steps=24, max_boxes=1)
    return Search(wish.search, width=width, least=4)


def _seed(pixels: Tensor, seed: int) -> int:
    """The picture joins the seed, so that one seed does not make the same joke of every picture."""
    digest = hashlib.blake2b(pixels.cpu().numpy().tobytes(), digest_size=8, key=(seed % 2**127).to_bytes(16, "little"))
    return int.from_bytes(digest.digest(), "little") >> 2


def _letters(boxes: Sequence[str]) -> str:
    return "".join(re.findall(r"\w", " ".join(boxes)))


def _cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _device(name: str) -> str:
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return next(d for d in ("cuda", "mps", "cpu") if available[d])
    if not available.get(name):
        raise ModelError(f"captioner.device is {name}, which this machine does not have.")
    return name
