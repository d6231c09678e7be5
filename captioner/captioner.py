"""The captioner: read → encode → decode → draw.

`read` and `draw` may run in any thread; `caption` and `explain` belong to one thread, torch's.
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from captioner import devices, images
from captioner import draw as drawing
from captioner import filter as block
from captioner.attention_map import NoAttentionError, attention_map
from captioner.checkpoint import Checkpoint, CheckpointError
from captioner.data.samples import fingerprint
from captioner.decoders.several import Several
from captioner.faces import Faces
from captioner.fonts import Fonts
from captioner.images import Limits, Picture
from captioner.labels import eyes, packed
from captioner.layouts import layout_for, most_boxes
from captioner.naming import Naming
from captioner.proofreader import Proofreader
from captioner.ranking import STEPS, Caption, Ranker, Ranking
from captioner.search import Hypothesis, Lane, Method, Rules, Search, search
from captioner.seeing import Seen, Sight
from captioner.taste import Taste
from captioner.tokenizer import STYLES, normalise

Style = Literal["meme", "describe"]
ModelError = CheckpointError

_DESCRIBE = Search("greedy", steps=24, max_boxes=1)
CANDIDATES = 31, 3
"""Memes to choose from on a template, where more is known to choose by, and elsewhere."""
_TRUST = 0.1
"""Of the counts while writing on a template: they help to predict, but know no picture and say the usual."""
_TEMPERATURES = 0.9, 0.75
"""On a template and elsewhere."""
_LEANING = 0.1
"""The share of the odds of a word on a template (captioner.aptness) that is added to its logit there: candidates that
belong are many more than ranking alone can find."""
_LEAST = 6
"""Ids before the end: a meme of one word is seldom one."""
_BOXES, _PANEL = 2, 6
"""Boxes of a meme at most where no template has more, and further ids for each box more."""
_BEAM = 3
"""Beams of a description that is asked for as such; wider ones write shorter and no better ones."""
_LENGTH = 1.0
"""The power of the length that log-probabilities are ranked over: with 0.7 descriptions are a little too short."""
_PARTS = ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0))
_PART = 0.84
"""Where the parts lie that a description at length looks at beside the whole, and how much of a side each keeps."""
_SPARE = 1
"""Hypotheses beyond what is asked for: some may not be said."""
_TASTED = 12
"""Memes to choose from by a chat's taste, or where words were posted that may go together with what is seen."""
_TRIES = 3
_UNLIKE = 0.7
"""How much of the grid is taken away for memes on a picture that is surely unlike those that the network has learnt to
see: it would speak of a dog, a blue shirt and much else, and at length."""


@dataclass(frozen=True)
class Wish:
    """What is wanted of one picture.

    `n` is how many captions come back beside the description; `explore` leaves them unranked; with `features`, what the
    model saw comes back, too.
    """

    style: Style = "meme"
    search: Method = "sample"
    n: int = 3
    seed: int = 0
    context: str = ""
    explore: bool = False
    filter: block.Level = "normal"
    features: bool = False
    taste: Taste | None = None
    """What the chat likes; on a photograph, more captions are then written to choose from."""


_NOTHING = Caption(("a picture",), 0.0, None, 0.0)
"""The description where every hypothesis was blocked."""


@dataclass(frozen=True)
class Captioned:
    """The captions of one picture, best first, and its description; fewer than wished where no more may be said."""

    captions: tuple[Caption, ...]
    description: str
    template: tuple[str, float] | None
    """Which known template the picture is, and how surely."""
    seed: int
    model: str
    mirrored: bool = False
    """Whether the template's left and right are swapped on the picture."""
    features: bytes | None = None
    """The picture's grid as `labels.packed` writes it, where it was wished for."""


class Captioner:
    """A loaded model with its encoder and fonts; `Captioner.load` makes one."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        device: str,
        fonts: Fonts,
        limits: Limits,
        max_side: int,
        ranking: Ranking,
        proofreader: Proofreader | None = None,
    ) -> None:
        self.name = checkpoint.name
        self.device = torch.device(device)
        self.fonts, self.limits, self.max_side = fonts, limits, max_side
        self.faces = Faces()
        self._aside = ThreadPoolExecutor(1, "faces")
        self.tokenizer = checkpoint.tokenizer
        self.encoder = checkpoint.build_encoder().to(self.device)
        self.eyes = eyes(checkpoint.reduction.basis.numpy())
        self.reduction = checkpoint.reduction.to(self.device)
        self.decoder = checkpoint.decoder.to(self.device).eval()
        self.styles = checkpoint.styles
        self.prefixes = {style: checkpoint.prefix(style) for style in STYLES}
        self.mixture = checkpoint.mixture
        if self.mixture:
            self.mixture.gate.to(self.device)
        self.rules = Rules(self.tokenizer, self.device, self.decoder.shortlist)
        self.fingerprints = checkpoint.fingerprints
        self.naming = Naming(self.tokenizer, self.rules, self.mixture)
        self.sight = Sight(checkpoint, self.device, self.naming)
        self.ranker = Ranker(ranking, checkpoint, self.device, self.naming, proofreader)
        self.leaning = self._leaning()

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
        ranking: Ranking = Ranking(),  # noqa: B008, frozen
        proofreader: str = "",
    ) -> "Captioner":
        """Loads a checkpoint file, or the shipped one.

        `threads` of torch, 0 for half of the cores: a chat server has more to do; `proofreader` as `Proofreader.load`
        knows it, empty for none. Raises ModelError for a file that cannot be read or a device that is not there,
        FontError for a configured font that is not, ProofreaderError.
        """
        torch.set_num_threads(threads or max(1, _cores() // 2))
        # Full precision on a GPU as well: captions should not depend on where they are written.
        torch.backends.cudnn.allow_tf32 = False
        checkpoint = Checkpoint.load(model or shipped())
        where = _device(device)
        reads = Proofreader.load(proofreader, torch.device(where).type) if proofreader else None
        return cls(checkpoint, where, Fonts.resolve(font), limits, max_side, ranking, reads)

    def read(self, data: bytes) -> Picture:
        """Untrusted bytes to an upright RGB picture, at most `max_side` long; raises ImageError with a sentence."""
        picture = images.read(data, self.limits)
        image = images.scaled(picture.image, self.max_side)
        # Beside the captioning: what draws has the answer by then.
        return replace(picture, image=image, faces=self._aside.submit(self.faces.find, image).result)

    def opened(self, file: Path) -> Picture:
        """The picture in a file, scaled as `read` does it; raises an ImageError that names the file, OSError."""
        picture = images.opened(file, self.limits)
        return replace(picture, image=images.scaled(picture.image, self.max_side))

    def draw(
        self, picture: Picture, boxes: Sequence[str], template: str | None = None, *, mirrored: bool = False
    ) -> Image.Image:
        """The picture with the boxes written on it: where they belong on a known template, else where it is calm."""
        letterings = self.letter(picture, boxes, template, mirrored=mirrored, own=False)
        return drawing.paint(picture.image.convert("RGB"), letterings)

    def letter(
        self, picture: Picture, boxes: Sequence[str], template: str | None, *, mirrored: bool, own: bool
    ) -> list[drawing.Lettering]:
        """The boxes as they are to be painted on a picture, or on all frames of an animation of which it is the first.

        Somebody's `own` words for top and bottom stay there, whatever they hide.
        """
        layout = layout_for(template, len(boxes), mirrored=mirrored) if template else None
        faces = picture.faces or partial(self.faces.find, picture.image)
        return drawing.laid_out(picture.image, boxes, self.fonts, layout, faces, joining=not own)

    @torch.inference_mode()
    def caption(self, jobs: Sequence[tuple[Picture, Wish]]) -> list[Captioned]:
        """Captions all jobs together; on a CPU each gets what it would get alone, to the last bit."""
        if not jobs:
            return []
        pixels = [self.encoder.pixels([picture.image]) for picture, _ in jobs]
        seeds = [_seed(p, wish.seed) for p, (_, wish) in zip(pixels, jobs, strict=True)]
        halfway = self.begin(pixels)
        grids = self.finish(halfway)
        long = [i for i, (_, wish) in enumerate(jobs) if _is_long(wish)]
        looks = {i: self.look(jobs[i][0].image, grids[i : i + 1]) for i in long}
        objects = partial(self.sight.classified, halfway)
        captioned = self.decode(grids, [wish for _, wish in jobs], seeds, looks, objects)
        wanted = [wish.features for _, wish in jobs]
        return [
            replace(made, features=packed(grids[i].cpu().numpy(), self.eyes)) if wanted[i] else made
            for i, made in enumerate(captioned)
        ]

    def encode(self, pixels: Sequence[Tensor]) -> Tensor:
        """Pixels (1, 3, S, S) of each picture to grids (B, R, D).

        On a CPU picture by picture: as fast as a batch, and the same bits in any.
        """
        return self.finish(self.begin(pixels))

    @torch.inference_mode()
    def begin(self, pixels: Sequence[Tensor]) -> list[Tensor]:
        """Pixels (1, 3, S, S) of each picture to what the encoder's last stages read, (1, C', H', W') each."""
        if self.device.type == "cpu":
            return [self.encoder.halfway(p) for p in pixels]
        return list(torch.split(self.encoder.halfway(torch.cat(list(pixels))), 1))

    @torch.inference_mode()
    def finish(self, halfway: Sequence[Tensor]) -> Tensor:
        """What `begin` gave to grids (B, R, D)."""
        if self.device.type == "cpu":
            return torch.cat([self.reduction(self.encoder.finished(part)) for part in halfway])
        grids: Tensor = self.reduction(self.encoder.finished(torch.cat(list(halfway))))
        return grids

    @torch.inference_mode()
    def look(self, image: Image.Image, grid: Tensor) -> Tensor:
        """The grid (1, R, D) of an RGB picture and those of its parts (V, R, D), for a description at length."""
        w, h = (max(1, round(side * _PART)) for side in image.size)
        corners = [(round(x * (image.width - w)), round(y * (image.height - h))) for x, y in _PARTS]
        parts = [image.crop((x, y, x + w, y + h)) for x, y in corners]
        return torch.cat([grid, self.encode([self.encoder.pixels([part]) for part in parts])])

    @torch.inference_mode()
    def decode(
        self,
        grids: Tensor,
        wishes: Sequence[Wish],
        seeds: Sequence[int],
        looks: Mapping[int, Tensor] | None = None,
        objects: Callable[[int], Tensor | None] = lambda _: None,
    ) -> list[Captioned]:
        """Captions of grids (B, R, D): descriptions and memes in one search, and again where too few may be said.

        `looks` holds what `look` gives of pictures, by their places in the batch: their descriptions take their time.
        `objects` gives what the network of objects (1, C) finds on the picture at a place; it is asked of photographs.
        """
        described: list[list[Caption]] = [[] for _ in wishes]
        written: list[list[Caption]] = [[] for _ in wishes]
        seen = [
            self.sight.see(grids[i : i + 1], wish.style, wish.context, wish.filter, partial(objects, i))
            for i, wish in enumerate(wishes)
        ]
        if any(s.strange for s in seen):
            left = grids.new_tensor([1 - _UNLIKE * s.strange for s in seen])
            grids = torch.cat([grids, grids * left[:, None, None]])
        looks = looks or {}
        lanes = [self._description(i) for i in range(len(wishes))] if "describe" in self.styles else []
        # Of a strange picture, memes are written from a second grid that says less: what it says is mistaken.
        own = [i + len(wishes) * (s.strange > 0) for i, s in enumerate(seen)]
        lanes += [self._caption(own[i], wish, seeds[i], seen[i]) for i, wish in enumerate(wishes) if wish.n]
        for attempt in range(_TRIES):
            found = self._searched(grids, lanes, looks)
            for lane, hypotheses in zip(lanes, found, strict=True):
                at = lane.picture % len(wishes)
                if lane.how is _DESCRIBE:
                    self._add(described[at], hypotheses, "describe", wishes[at].filter)
                else:
                    self._add(written[at], hypotheses, wishes[at].style, wishes[at].filter)
            short = [i for i, w in enumerate(wishes) if w.search == "sample" and len(written[i]) < w.n]
            lanes = [self._caption(own[i], wishes[i], seeds[i] + attempt + 1, seen[i]) for i in short]
            if not lanes:
                break
        return [self._captioned(*parts) for parts in zip(wishes, described, written, seen, strict=True)]

    def _searched(self, grids: Tensor, lanes: Sequence[Lane], looks: Mapping[int, Tensor]) -> list[list[Hypothesis]]:
        """The hypotheses of every lane; those of a description at length look at the picture's parts as well."""
        long = [i for i, lane in enumerate(lanes) if lane.picture in looks and lane.how is not _DESCRIBE]
        short = [i for i in range(len(lanes)) if i not in long]
        found: dict[int, list[Hypothesis]] = {}
        if short:
            each = search(self.decoder, self.rules, grids, [lanes[i] for i in short], self.mixture)
            found |= zip(short, each, strict=True)
        if long:
            views = torch.stack([looks[lanes[i].picture] for i in long])  # (L, V, R, D)
            several = Several(self.decoder, views.shape[1])
            own = [replace(lanes[i], picture=at) for at, i in enumerate(long)]
            each = search(several, self.rules, views, own, self.mixture)
            found |= zip(long, each, strict=True)
        return [found[i] for i in range(len(lanes))]

    def _captioned(self, wish: Wish, described: list[Caption], written: list[Caption], seen: Seen) -> Captioned:
        described = _named(sorted(described, key=lambda c: -c.score) or [_NOTHING], seen.names)
        if written and wish.style == "describe":
            written = _named(written, seen.names)
        captions = written or described
        if wish.style == "meme":
            captions = self.ranker.scored(captions, seen, described[0].boxes[0], wish.taste, explore=wish.explore)
        if not wish.explore:
            captions = sorted(captions, key=lambda c: -c.score)
        if seen.unsure:
            described = [Caption((seen.unsure,), 0.0, None, 0.0)]
        # A description that was searched for at length is the better one.
        description = (captions if wish.style == "describe" and wish.search == "beam" else described)[0].boxes[0]
        return Captioned(tuple(captions[: wish.n]), description, seen.template, wish.seed, self.name, seen.mirrored)

    @torch.inference_mode()
    def explain(self, picture: Picture, boxes: Sequence[str], style: Style = "meme") -> bytes:
        """A PNG: every word of the caption over the attention that it paid to the picture.

        Raises NoAttentionError where the decoder pays none.
        """
        attend = getattr(self.decoder, "weights", None)
        if attend is None:
            raise NoAttentionError(f"The model {self.name} looks at a picture as a whole: no word has a place to show.")
        pixels = self.encoder.pixels([picture.image])
        grid, places = self.encode([pixels]), self.encoder.places(pixels)
        text = [b for b in map(normalise, boxes) if b] or ["?"]
        ids = self.tokenizer.encode(text)
        prefix = self.prefixes[style]
        tokens = torch.tensor([[*prefix, *ids]], device=self.device)
        weights = attend(grid, tokens)[0, len(prefix) - 1 : -1].cpu().numpy()  # (T, R), the step that wrote each id
        regions = None if places is None else places[0].cpu().numpy()
        return attention_map(picture.image, self.tokenizer.pieces(ids), weights, regions, self.fonts)

    def _description(self, picture: int) -> Lane:
        return Lane(picture, self.prefixes["describe"], _DESCRIBE)

    def _caption(self, picture: int, wish: Wish, seed: int, seen: Seen) -> Lane:
        """The lane that fulfils a wish."""
        leaning = self.leaning.get(seen.template[0]) if seen.template and wish.style == "meme" else None
        how, trust = _how(wish, seen), _trust(seen)
        favour = self.naming.favour(seen.chances, seen.posted, seen.strange, seen.mistaken)
        return Lane(picture, self.prefixes[wish.style], how, seed, trust, favour, leaning)

    def _add(self, captions: list[Caption], hypotheses: Sequence[Hypothesis], style: Style, level: block.Level) -> None:
        """Appends what may be said: not blocked, not said already, and no meme that copies a training caption."""
        said = {_letters(c.boxes) for c in captions}
        for caption in self._captions(hypotheses):
            letters = _letters(caption.boxes)
            if not letters or letters in said or block.shipped().blocks(caption.boxes, style, level):
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

    def _leaning(self) -> dict[str, Tensor]:
        """What probabilities are multiplied by on each template, by its name."""
        if self.ranker.aptness is None:
            return {}
        factors = (_LEANING * self.ranker.aptness.odds.to(self.device)[:, self.rules.ids]).exp()
        return dict(zip(self.ranker.aptness.names, factors, strict=True))


def shipped() -> Path:
    """The default model's file; raises ModelError where an installation lacks it."""
    folder = resources.files("captioner").joinpath("weights")
    files = sorted(Path(str(folder)).glob("*.safetensors"))
    if not files:
        raise ModelError("No model is shipped with this installation; name one with captioner.model.")
    return files[-1]


def _named(described: list[Caption], names: Sequence[str]) -> list[Caption]:
    """The descriptions; or, where the best has none of the names, these rather than what others are usually of."""
    if not names or not set(names).isdisjoint(re.findall(r"\w+", max(described, key=lambda c: c.score).boxes[0])):
        return described
    return [Caption((", ".join(names),), 0.0, None, 0.0)]


def _is_long(wish: Wish) -> bool:
    """Whether a description is asked for that takes its time."""
    return wish.style == "describe" and wish.search == "beam" and wish.n > 0


def _trust(seen: Seen) -> float:
    return _TRUST if seen.template else 1.0


def _how(wish: Wish, seen: Seen) -> Search:
    """The search that fulfils a wish."""
    if wish.style == "describe":
        width = max(_BEAM, wish.n) + _SPARE * (wish.search == "sample")
        return Search(wish.search, width=width, steps=24, length_power=_LENGTH, max_boxes=1)
    is_ranked = wish.search == "sample" and not wish.explore
    choice = _TASTED if is_ranked and (wish.taste or seen.posted) else 0
    enough = max(CANDIDATES[not (seen.template and is_ranked)], wish.n, choice)
    name = seen.template[0] if seen.template else None
    steps, temperature = lengths(name).stop - 1, _TEMPERATURES[not seen.template]
    width, boxes, least = enough + _SPARE, _most_boxes(name), lengths(name).start - 1
    return Search(wish.search, width, steps, temperature, _LENGTH, boxes, enough, least=least)


def lengths(template: str | None) -> range:
    """How many ids a meme may have, the end included, on a template or elsewhere."""
    return range(_LEAST + 1, STEPS + _PANEL * (_most_boxes(template) - _BOXES) + 1)


def _most_boxes(template: str | None) -> int:
    return most_boxes(template, _BOXES) if template else _BOXES


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
    try:
        return str(devices.named(name))
    except ValueError as error:
        raise ModelError(f"captioner.{error}") from None
