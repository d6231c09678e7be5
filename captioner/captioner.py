"""The captioner: read → encode → decode → draw.

`read` and `draw` may run in any thread; `caption` and `explain` belong to one thread, torch's.
"""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Literal, NamedTuple

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
from captioner.encoders import DEFAULT
from captioner.fonts import Fonts
from captioner.images import Limits, Picture
from captioner.labels import eyes, packed
from captioner.layouts import layout_for, most_boxes
from captioner.naming import Naming, Word
from captioner.objects import Objects, names, together
from captioner.proofreader import Proofreader
from captioner.search import Hypothesis, Lane, Method, Rules, Search, over_length, search
from captioner.taste import Taste
from captioner.tokenizer import STYLES, normalise

Style = Literal["meme", "describe"]
ModelError = CheckpointError

_DESCRIBE = Search("greedy", steps=24, max_boxes=1)
CANDIDATES = 31, 3
"""Memes to choose from on a template, where more is known to choose by, and elsewhere."""
_STEPS = 28
"""Ids of a meme at most; one in ten of people's is longer. A beam that had to end there ranks low."""
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
_PARTS = ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0))
_PART = 0.84
"""Where the parts lie that a description at length looks at beside the whole, and how much of a side each keeps."""
_SPARE = 1
"""Hypotheses beyond what is asked for: some may not be said."""
_TASTED = 12
"""Memes to choose from by a chat's taste."""
_TRIES = 3
_SURE = 0.1
"""How likely a word must be that is favoured."""
_SURELY = 0.4
"""How likely things are that a picture is described by, where descriptions have taught no sentence for them."""
_UNLIKE = 0.7
"""How much of the grid is taken away for memes on a picture that is surely unlike those that the network has learnt to
see: it would speak of a dog, a blue shirt and much else, and at length."""
_TWICE = 0.5
"""How much of the doubt about a word is left when the description has it, too."""
_STUTTER = 3.0
"""Taken from the score for every third time and more that a word is said, and for every time twice in a row."""
_AGAIN = 2.0
"""And for every time more than once of a word that was favoured, or of one made of it: a quarter of memes named what
they saw twice and had little else to say ("dog / dogs!!!", "rockstar / rocks"); of people's short ones, one in ten."""
_BROKEN_OFF = 5.0
"""And where the caption had to end before it was finished, or ends with a word that sentences seldom end with."""
_UNCLOSED = 5.0
"""And for a quotation that never ends or never began; of people's boxes with quotes, seven in a hundred have one."""
_MADE_UP = 10.0
"""And for every word that nobody wrote: its pieces never stood together in the training memes."""
_PROOFREAD = 8
"""Captions that a proofreader reads, the best of those to choose from: 97 times in a hundred, what it makes the best of
31 is among them."""
_COMMON = 0.5
"""The share that is taken from a text's likelihood of what its words would get wherever they stood."""
_WORD = re.compile(r"\w+")
_LONG = re.compile(r"\w{4,}")
_IN_A_ROW = re.compile(r"\b(\w{3,}) \1\b")
_DANGLING = re.compile(
    r"(?<![\w'])(a|an|and|as|because|but|doesn't|he|how|i'm|if|im|it's|its|just|my|new|or|she|than|the|their|they|we|when"
    r"|you're|your)[\s.,…]*$"
)
"""With each of these people end one text of a hundred that they say it in, or fewer."""


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


@dataclass(frozen=True)
class Caption:
    """One caption, lower case. `score` is what ranks it.

    `logprob` is its natural-log probability among all that the search may write, as far as no words were favoured or
    leant to; 0 where nothing was searched for, as with the names of things that are a description.
    """

    boxes: tuple[str, ...]
    logprob: float
    reward: float | None
    score: float


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


@dataclass(frozen=True)
class Ranking:
    """What the best caption is chosen by: the weights of its likelihood, of the votes that it may expect, of the chance
    that it names what is seen, of reading as a meme, of a point more of the chat's approval, of words that belong
    to the template, and, on one, of reading like people's memes rather than the model's and of holding together for a
    proofreader."""

    likelihood: float = 1.0
    reward: float = 6.0
    matching: float = 8.0
    voice: float = 2.0
    taste: float = 60.0
    aptness: float = 2.0
    residual: float = 6.0
    fluency: float = 2.0


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
        self.fonts, self.limits, self.max_side, self.ranking = fonts, limits, max_side, ranking
        self.tokenizer = checkpoint.tokenizer
        self.encoder = checkpoint.build_encoder().to(self.device)
        self.eyes = eyes(checkpoint.reduction.basis.numpy())
        self.reduction = checkpoint.reduction.to(self.device)
        self.decoder = checkpoint.decoder.to(self.device).eval()
        self.objects = Objects(checkpoint.usual).to(self.device) if checkpoint.encoder == DEFAULT else None
        self.styles = checkpoint.styles
        self.prefixes = {style: checkpoint.prefix(style) for style in STYLES}
        self.mixture = checkpoint.mixture
        if self.mixture:
            self.mixture.gate.to(self.device)
        self.rules = Rules(self.tokenizer, self.device, self.decoder.shortlist)
        self.fingerprints = checkpoint.fingerprints
        self.templates = checkpoint.templates.to(self.device) if checkpoint.templates else None
        self.reward, self.voice = checkpoint.reward, checkpoint.voice
        self.aptness = checkpoint.aptness
        self.residual = checkpoint.residual.to(self.device) if checkpoint.residual else None
        self.proofreader = proofreader
        self.leaning = self._leaning()
        self.keywords = checkpoint.keywords.to(self.device) if checkpoint.keywords else None
        self.naming = Naming(self.tokenizer, self.rules, self.mixture)

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
        ranking: Ranking = Ranking(),
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
        return replace(picture, image=images.scaled(picture.image, self.max_side))

    def draw(
        self, picture: Picture, boxes: Sequence[str], template: str | None = None, *, mirrored: bool = False
    ) -> Image.Image:
        """The picture with the boxes written on it: where they belong on a known template, else where it is calm."""
        return drawing.paint(
            picture.image.convert("RGB"), self.letter(picture.image, boxes, template, mirrored=mirrored)
        )

    def letter(
        self, image: Image.Image, boxes: Sequence[str], template: str | None = None, *, mirrored: bool = False
    ) -> list[drawing.Lettering]:
        """The boxes as `draw` paints them on an RGB picture: for animations, whose frames all get the same."""
        layout = layout_for(template, len(boxes), mirrored=mirrored) if template else None
        return drawing.laid_out(image, boxes, self.fonts, layout)

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
        objects = partial(self.classified, halfway)
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
        seen = [self._seen(grids[i : i + 1], wish, partial(objects, i)) for i, wish in enumerate(wishes)]
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

    def _seen(self, grid: Tensor, wish: Wish, objects: Callable[[], Tensor | None]) -> "Seen":
        """What a picture (1, R, D) shows, alone as in a batch: its template, or else words to favour."""
        template = self.templates.recognise(grid)[0] if self.templates else None
        if template and self.templates:
            return Seen(template, self.templates.is_mirrored(template[0], grid[0]), self._context(wish.context))
        posted = self._context(wish.context)
        taught, found, strange = self.words(grid, objects())
        described = partial(block.shipped().blocks, style="describe", level=wish.filter)
        sure = {word: chance for word, chance in found.items() if strange * chance > _SURELY and not described([word])}
        if wish.style != "meme":
            return Seen(None, False, posted, names=names(sure))
        refused = partial(block.shipped().blocks, style="meme", level=wish.filter)
        chances = self.naming.chances({word: c for word, c in found.items() if c < _SURE or not refused([word])}, _SURE)
        unlike = [word for word, chance in taught.items() if chance >= _SURE > found.get(word, 0.0)]
        mistaken = {form for word in unlike for form in self.naming.forms(word)}.difference(chances, posted)
        return Seen(None, False, posted, chances, names(sure), strange, mistaken)

    def words(self, grid: Tensor, classes: Tensor | None = None) -> tuple[dict[str, float], dict[str, float], float]:
        """What a photograph (1, R, D) shows: words and their chances by what descriptions taught, and all in all; and
        how strange it is.

        `classes` (1, C) is what the network of objects finds, if it was asked: things that no description taught.
        """
        taught = {}
        if self.keywords:
            taught = dict(zip(self.keywords.words, self.keywords(grid)[0].tolist(), strict=True))
        if self.objects is None or classes is None:
            return taught, taught, 0.0
        shown = self.objects.shown(classes[0])
        return taught, together(taught, shown), shown.strange

    @torch.inference_mode()
    def classified(self, halfway: Sequence[Tensor], place: int) -> Tensor | None:
        """What the network of objects finds (1, C) on one of the pictures that `begin` has begun with."""
        found: Tensor | None = self.objects(halfway[place]) if self.objects else None
        return found

    def _captioned(self, wish: Wish, described: list[Caption], written: list[Caption], seen: "Seen") -> Captioned:
        described = _named(sorted(described, key=lambda c: -c.score) or [_NOTHING], seen.names)
        if written and wish.style == "describe":
            written = _named(written, seen.names)
        captions = written or described
        if wish.style == "meme":
            captions = self._judged(captions, seen, described[0].boxes[0])
            if self.proofreader and self.ranking.fluency and seen.template and len(written) > 1 and not wish.explore:
                captions = self._proofread(self.proofreader, captions, seen.template[0])
            if wish.taste:
                liked = (self.ranking.taste * wish.taste.score([c.boxes for c in captions])).tolist()
                captions = [replace(c, score=c.score + more) for c, more in zip(captions, liked, strict=True)]
        if not wish.explore:
            captions = sorted(captions, key=lambda c: -c.score)
        # A description that was searched for at length is the better one.
        description = (captions if wish.style == "describe" and wish.search == "beam" else described)[0].boxes[0]
        return Captioned(tuple(captions[: wish.n]), description, seen.template, wish.seed, self.name, seen.mirrored)

    def _judged(self, captions: list[Caption], seen: "Seen", description: str) -> list[Caption]:
        """The captions with the votes that they may expect, and scored by the ranking's weights."""
        votes: Sequence[float | None] = [None] * len(captions)
        if self.reward:
            template = seen.template[0] if seen.template else None
            votes = self.reward.score([c.boxes for c in captions], template).mean.tolist()
        odds = [0.0] * len(captions)
        if self.residual and seen.template:
            odds = self.residual.score(self.tokenizer.encode_batch([c.boxes for c in captions]))
        told = set(self.tokenizer.encode([description]))
        return [
            replace(c, reward=vote, score=self._score(c, vote or 0.0, seen, told) + self.ranking.residual * odd)
            for c, vote, odd in zip(captions, votes, odds, strict=True)
        ]

    def _score(self, caption: Caption, vote: float, seen: "Seen", told: set[int]) -> float:
        """By all but the residual, which reads the captions of a picture together."""
        by, ids = self.ranking, self.tokenizer.encode(caption.boxes)
        chances = {**seen.chances, **dict.fromkeys(seen.posted, 1.0)}
        favoured = [word for word in chances if self.naming.holds(ids, word)]
        # What the description names as well is the surer.
        named = [1 - (1 - chances[word]) * (_TWICE if told.issuperset(word) else 1) for word in favoured]
        voice = self.voice.score(ids) if self.voice and not seen.template else 0.0
        score = by.likelihood * caption.score + by.reward * vote + by.voice * voice
        if self.aptness and seen.template:
            score += by.aptness * self.aptness.score(seen.template[0], ids)
        return score + by.matching * max(named, default=0.0) - self._faults(caption.boxes, ids, favoured, seen)

    def _proofread(self, proofreader: Proofreader, captions: list[Caption], template: str) -> list[Caption]:
        """The captions, the best first, with what the proofreader finds of the first of them for the template.

        What it does not read counts as the worst of what it does.
        """
        captions = sorted(captions, key=lambda c: -c.score)
        first = [c.boxes for c in captions[:_PROOFREAD]]
        found = proofreader.read(f'Memes "{template.replace("-", " ")}"', first)
        fluent = [self._fairly(likelihood, boxes) for likelihood, boxes in zip(found, first, strict=True)]
        fluent += [min(fluent, default=0.0)] * (len(captions) - len(first))
        return [
            replace(c, score=c.score + self.ranking.fluency * more) for c, more in zip(captions, fluent, strict=True)
        ]

    def _fairly(self, likelihood: float, boxes: Sequence[str]) -> float:
        """A text's log-probability so that short ones and common words have less of an advantage.

        Half of what its words would get wherever they stood is taken from it (all of it: Pauls and Klein 2012).
        """
        ids = self.tokenizer.encode(boxes)
        if self.mixture:
            likelihood -= _COMMON * float(np.log(self.mixture.ngrams.unigrams[ids]).sum())
        return over_length(likelihood, len(ids), Search.length_power)

    def _faults(self, boxes: Sequence[str], ids: Sequence[int], favoured: Sequence[Word], seen: "Seen") -> float:
        """What a caption loses for all that is wrong with how it is said."""
        text = " ".join(boxes)
        stutter = sum(max(0, count - 2) for count in Counter(_LONG.findall(text)).values())
        stutter += sum(len(_IN_A_ROW.findall(box)) for box in boxes)
        again = _again(text, {"".join(self.tokenizer.pieces(word)).removeprefix("▁") for word in favoured})
        broken_off = (len(ids) >= _STEPS and not seen.template) or bool(_DANGLING.search(text))
        unclosed = any(map(_is_misquoted, boxes))
        made_up = 0
        if self.mixture:
            made_up = sum(not self.mixture.ngrams.knows(run) for run in self._spelled(ids))
        worst = _STUTTER * stutter + _AGAIN * again + _BROKEN_OFF * broken_off
        return worst + _UNCLOSED * unclosed + _MADE_UP * made_up

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
        return attention_map(picture.image, self.tokenizer.pieces(ids), weights, regions)

    def _description(self, picture: int) -> Lane:
        return Lane(picture, self.prefixes["describe"], _DESCRIBE)

    def _caption(self, picture: int, wish: Wish, seed: int, seen: "Seen") -> Lane:
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

    def _context(self, context: str) -> list[Word]:
        """The words that were posted with a picture."""
        words = set(re.findall(r"[^\W\d_]{4,}", normalise(context)))
        return [form for word in sorted(words) for form in self.naming.forms(word)]

    def _spelled(self, ids: Sequence[int]) -> Iterator[list[int]]:
        """The words that take several pieces, as far as they are letters."""
        run: list[int] = []
        for i, piece in zip(ids, self.tokenizer.pieces(ids), strict=True):
            begins, letters = piece.startswith("▁"), piece.removeprefix("▁")
            if begins or not letters.isalpha():
                if len(run) > 1:
                    yield run
                run = []
            if letters.isalpha():
                run.append(i)
        if len(run) > 1:
            yield run

    def _leaning(self) -> dict[str, Tensor]:
        """What probabilities are multiplied by on each template, by its name."""
        if self.aptness is None:
            return {}
        factors = (_LEANING * self.aptness.odds.to(self.device)[:, self.rules.ids]).exp()
        return dict(zip(self.aptness.names, factors, strict=True))


class Seen(NamedTuple):
    """What is known of a picture before a word is written: words that were posted with it, and how likely others name
    what is there.

    `names` are the things on a picture that no description taught to describe; `strange` is how surely it is such a
    one, `mistaken` the words for what is not there that were taught.
    """

    template: tuple[str, float] | None
    mirrored: bool
    posted: Sequence[Word] = ()
    chances: Mapping[Word, float] = {}
    names: Sequence[str] = ()
    strange: float = 0.0
    mistaken: Collection[Word] = ()


def shipped() -> Path:
    """The default model's file; raises ModelError where an installation lacks it."""
    folder = resources.files("captioner").joinpath("weights")
    files = sorted(Path(str(folder)).glob("*.safetensors"))
    if not files:
        raise ModelError("No model is shipped with this installation; name one with captioner.model.")
    return files[-1]


def _named(described: list[Caption], names: Sequence[str]) -> list[Caption]:
    """The descriptions; or, where the best has none of the names, these rather than what others are usually of."""
    if not names or not set(names).isdisjoint(_WORD.findall(max(described, key=lambda c: c.score).boxes[0])):
        return described
    return [Caption((", ".join(names),), 0.0, None, 0.0)]


def _again(text: str, favoured: Iterable[str]) -> int:
    """How often more than once the text has one of the words, its plural, or a word that begins with a long one."""
    said, stems = _WORD.findall(text), {word.removesuffix("s") for word in favoured}
    alike = ([w in (stem, stem + "s") or (len(stem) > 3 and w.startswith(stem)) for w in said] for stem in stems)
    return sum(max(0, sum(found) - 1) for found in alike)


def _is_misquoted(box: str) -> bool:
    """Whether a quotation in the box opens before a gap, ends after one, or does not end."""
    quotes = [match.start() for match in re.finditer('"', box)]
    opens = all(box[at + 1 : at + 2].strip() for at in quotes[::2])
    ends = all(box[at - 1].strip() for at in quotes[1::2])
    return not (opens and ends) or len(quotes) % 2 == 1


def _is_long(wish: Wish) -> bool:
    """Whether a description is asked for that takes its time."""
    return wish.style == "describe" and wish.search == "beam" and wish.n > 0


def _trust(seen: Seen) -> float:
    return _TRUST if seen.template else 1.0


def _how(wish: Wish, seen: Seen) -> Search:
    """The search that fulfils a wish."""
    if wish.style == "describe":
        width = max(_BEAM, wish.n) + _SPARE * (wish.search == "sample")
        return Search(wish.search, width=width, steps=24, max_boxes=1)
    is_ranked = wish.search == "sample" and not wish.explore
    enough = max(CANDIDATES[not (seen.template and is_ranked)], wish.n, _TASTED if wish.taste and is_ranked else 0)
    name = seen.template[0] if seen.template else None
    steps, temperature = lengths(name).stop - 1, _TEMPERATURES[not seen.template]
    width, boxes, least = enough + _SPARE, _most_boxes(name), lengths(name).start - 1
    return Search(wish.search, width, steps, temperature, 1.0, boxes, enough, least=least)


def lengths(template: str | None) -> range:
    """How many ids a meme may have, the end included, on a template or elsewhere."""
    return range(_LEAST + 1, _STEPS + _PANEL * (_most_boxes(template) - _BOXES) + 1)


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
