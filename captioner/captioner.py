"""The captioner: read → encode → decode → draw.

`read` and `draw` may run in any thread; `caption` and `explain` belong to one thread, torch's.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
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
from captioner.search import Hypothesis, Method, Rules, Search, search
from captioner.tokenizer import VOTES, normalise

Style = Literal["meme", "describe"]
ModelError = CheckpointError

_DESCRIBE = Search("beam", width=4, steps=24, max_boxes=1)
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
        torch.set_num_threads(threads or max(1, (torch.get_num_threads() + 1) // 2))
        # Full precision on a GPU as well: captions should not depend on where they are written.
        torch.backends.cudnn.allow_tf32 = False
        checkpoint = Checkpoint.load(model or shipped())
        return cls(checkpoint, _device(device), Fonts.resolve(font), limits, max_side)

    def read(self, data: bytes) -> Picture:
        """Untrusted bytes to an upright RGB picture; raises ImageError with a sentence for the user."""
        return images.read(data, self.limits)

    def draw(self, picture: Picture, boxes: Sequence[str]) -> Image.Image:
        """The picture, scaled to `max_side` at most, with the boxes written on it."""
        return drawing.draw(images.scaled(picture.image, self.max_side), boxes, self.fonts)

    @torch.inference_mode()
    def caption(self, jobs: Sequence[tuple[Picture, Wish]]) -> list[Captioned]:
        """Captions all jobs together; each gets what it would get alone."""
        pixels = [self.encoder.pixels([picture.image]) for picture, _ in jobs]
        grids = self._encode(pixels)
        seeds = [_seed(p, wish.seed) for p, (_, wish) in zip(pixels, jobs, strict=True)]
        wishes = [wish for _, wish in jobs]
        described = self._describe(grids)
        written = self._write(grids, wishes, seeds)
        return [
            Captioned(
                tuple(written.get(i) or described[i])[: max(1, wish.n)],
                described[i][0].boxes[0],
                None,
                wish.seed,
                self.name,
            )
            for i, wish in enumerate(wishes)
        ]

    @torch.inference_mode()
    def explain(self, picture: Picture, boxes: Sequence[str], style: Style = "meme") -> bytes:
        """A PNG: every word of the caption over the attention that it paid to the picture."""
        grid = self._encode([self.encoder.pixels([picture.image])])
        text = [b for b in map(normalise, boxes) if b] or ["?"]
        ids = self.tokenizer.encode(text)
        tokens = torch.tensor([self.tokenizer.prefix(style, self._vote(style)) + ids], device=self.device)
        weights = self.decoder.weights(grid, tokens)[0, 1:-1].cpu().numpy()  # (T, R), the step that wrote each id
        return attention_map(picture.image, self.tokenizer.pieces(ids), weights)

    def _encode(self, pixels: Sequence[Tensor]) -> Tensor:
        """Grids (B, R, D). On a CPU picture by picture: as fast, and the same bits in any batch."""
        if self.device.type == "cpu":
            return torch.cat([self.reduction(self.encoder(p)) for p in pixels])
        grids: Tensor = self.reduction(self.encoder(torch.cat(list(pixels))))
        return grids

    def _describe(self, grids: Tensor) -> list[list[Caption]]:
        prefix = self.tokenizer.prefix("describe")
        found = search(self.decoder, self.rules, grids, [prefix] * len(grids), _DESCRIBE, [0] * len(grids))
        described = []
        for hypotheses in found:
            ranked = sorted(self._captions(hypotheses), key=lambda c: -c.score)
            clean = [c for c in ranked if not block.shipped().blocks(c.boxes)]
            described.append(clean or [Caption(("a picture",), 0.0, None, 0.0)])
        return described

    def _write(self, grids: Tensor, wishes: Sequence[Wish], seeds: Sequence[int]) -> dict[int, list[Caption]]:
        """The captions of every wish that the description does not fulfil, by its index."""
        written: dict[int, list[Caption]] = {}
        for attempt in range(_TRIES):
            groups: dict[Search, list[int]] = defaultdict(list)
            for i, wish in enumerate(wishes):
                if (
                    len(written.get(i, ())) < wish.n
                    and (how := _how(wish))
                    and (attempt == 0 or how.method == "sample")
                ):
                    groups[how].append(i)
            for how, members in groups.items():
                prefixes = [self.tokenizer.prefix(wishes[i].style, self._vote(wishes[i].style)) for i in members]
                again = [seeds[i] + attempt for i in members]
                favour = self._favour([wishes[i].context for i in members])
                found = search(self.decoder, self.rules, grids[members], prefixes, how, again, favour)
                for i, hypotheses in zip(members, found, strict=True):
                    self._add(written.setdefault(i, []), hypotheses, wishes[i])
        for i, captions in written.items():
            if not wishes[i].explore:
                captions.sort(key=lambda c: -c.score)
        return written

    def _add(self, captions: list[Caption], hypotheses: Sequence[Hypothesis], wish: Wish) -> None:
        """Appends what may be said: not blocked, no copy of a training caption, not said already."""
        said = {_letters(c.boxes) for c in captions}
        for caption in self._captions(hypotheses):
            letters = _letters(caption.boxes)
            if not letters or letters in said or block.shipped().blocks(caption.boxes):
                continue
            if wish.style == "meme" and self._is_copy(caption.boxes):
                continue
            said.add(letters)
            captions.append(caption)

    def _captions(self, hypotheses: Iterable[Hypothesis]) -> list[Caption]:
        return [Caption(self.tokenizer.decode(h.ids), h.logprob, None, h.score) for h in hypotheses]

    def _is_copy(self, boxes: Sequence[str]) -> bool:
        key = np.uint32(fingerprint(" ".join(boxes)))
        place = int(np.searchsorted(self.fingerprints, key))
        return place < len(self.fingerprints) and bool(self.fingerprints[place] == key)

    def _favour(self, contexts: Sequence[str]) -> Tensor | None:
        """What the words that were posted with a picture add to the logits (B, V); None if nobody said a word."""
        if not any(contexts):
            return None
        favour = torch.zeros(len(contexts), len(self.tokenizer), device=self.device)
        for row, context in enumerate(contexts):
            for word in set(re.findall(r"[^\W\d_]{4,}", normalise(context))):
                favour[row, self.tokenizer.encode([word])[0]] = _CONTEXT
        return favour

    @staticmethod
    def _vote(style: Style) -> int | None:
        return VOTES - 1 if style == "meme" else None


_CONTEXT = 2.5
"""Added to the logits of a context word's first piece: enough to be taken up, too little to be stuttered."""


def shipped() -> Path:
    """The default model's file; raises ModelError where an installation lacks it."""
    folder = resources.files("captioner").joinpath("weights")
    files = sorted(Path(str(folder)).glob("*.safetensors"))
    if not files:
        raise ModelError("No model is shipped with this installation; name one with captioner.model.")
    return files[-1]


def _how(wish: Wish) -> Search | None:
    """The search that fulfils a wish; None where the description already does."""
    if wish.style == "describe" and wish.search == "beam" and wish.n <= _DESCRIBE.width:
        return None
    width = 4 * max(2, -(-wish.n // 4))
    boxes, steps = (1, 24) if wish.style == "describe" else (2, 40)
    return Search(wish.search, width=width, steps=steps, max_boxes=boxes)


def _seed(pixels: Tensor, seed: int) -> int:
    """The picture joins the seed, so that one seed does not make the same joke of every picture."""
    digest = hashlib.blake2b(
        pixels.cpu().numpy().tobytes(), digest_size=8, key=seed.to_bytes(16, "little", signed=True)
    )
    return int.from_bytes(digest.digest(), "little") >> 2


def _letters(boxes: Sequence[str]) -> str:
    return "".join(re.findall(r"\w", " ".join(boxes)))


def _device(name: str) -> str:
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return next(d for d in ("cuda", "mps", "cpu") if available[d])
    if not available.get(name):
        raise ModelError(f"captioner.device is {name}, which this machine does not have.")
    return name
