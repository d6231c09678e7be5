"""Which known meme template a picture shows, if any.

Instances are recognised in one small embedding: every place of the encoder's grid passes a layer of rectifiers, their
mean a linear map to the unit sphere, where each template has a centre. It is trained with an additive-margin softmax
(Wang and others, "Additive margin softmax for face verification", 2018) over the templates and "none", whose logit is
a constant: photographs must stay further from every centre than it says, and so must a template from the others'.

Whether a copy is mirrored is read off its places, which are compared with the template's own both ways round.
"""

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from captioner.augment import posts
from captioner.encoders import Encoder, Reduction
from captioner.images import opened

_NONE = 0.5
"""Cosine at which a picture is as likely none of the templates as the nearest."""
_SCALE = 20.0
_MARGIN = 0.15
_OTHERS = 0.5
"""Weight of keeping a template from the other templates' centres: what lets unknown ones be refused."""
_AXES = 24
"""Dimensions of a place when templates and copies are compared place by place."""
_BATCH = 256
_RATE = 2e-3
_DECAY = 1e-3


@dataclass(frozen=True, slots=True)
class Fit:
    """How a recogniser is trained."""

    units: int = 96
    dimensions: int = 96
    epochs: int = 12
    seed: int = 0
    least: float = 0.75
    """The confidence below which a picture is taken for none: over five folds of templates
    98.7 % of distorted copies reach it, and 0.9 % of copies of templates left out. At 0.5 it is 99.1 and 2.8 %."""


class Templates(nn.Module):
    """A recogniser of the templates `names`; `fit` trains one, `from_tensors` restores one."""

    middle: Tensor
    axes: Tensor
    places: Tensor

    def __init__(
        self, names: Sequence[str], regions: int, features: int, units: int, dimensions: int, least: float
    ) -> None:
        super().__init__()
        self.names = tuple(names)
        self.least = least
        self.rectified = nn.Linear(features, units)
        self.projected = nn.Linear(units, dimensions, bias=False)
        self.centres = nn.Parameter(torch.randn(len(self.names), dimensions))
        self.register_buffer("middle", torch.zeros(features))
        self.register_buffer("axes", torch.zeros(features, _AXES))
        self.register_buffer("places", torch.zeros(len(self.names), regions, _AXES))

    @classmethod
    def fit(cls, views: Mapping[str, Tensor], others: Tensor, how: Fit = Fit()) -> "Templates":
        """From views (V, R, D) of every template by name, the picture itself first, and of other pictures (N, R, D).

        The views should be distorted as chats distort them (`augment.posts`), the others as well: else a caption alone
        looks like a template. Deterministic by seed on one machine.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(how.seed)
            names = sorted(views)
            _, regions, features = others.shape
            recogniser = cls(names, regions, features, how.units, how.dimensions, how.least)
            grids = torch.cat([*(views[name] for name in names), others])
            labels = [i for i, name in enumerate(names) for _ in views[name]] + [len(names)] * len(others)
            recogniser._train(grids, torch.tensor(labels), how.epochs)
            recogniser._place(torch.stack([views[name][0].float() for name in names]))
        return recogniser.eval().requires_grad_(False)

    def forward(self, grids: Tensor) -> Tensor:
        """Grids (B, R, D) to the cosine of each with every template's centre, (B, T)."""
        pooled = functional.relu(self.rectified(grids)).mean(1)  # (B, units)
        embedded = functional.normalize(self.projected(pooled), dim=-1)  # (B, dimensions)
        return embedded @ functional.normalize(self.centres, dim=-1).T

    @torch.inference_mode()
    def recognise(self, grids: Tensor) -> list[tuple[str, float] | None]:
        """For each grid (B, R, D) the template and a confidence of 0 to 1, or None.

        Picture by picture, as the encoder: the same bits alone and in a batch.
        """
        return [self._recognised(grid) for grid in torch.split(grids.float(), 1)]

    def _recognised(self, grid: Tensor) -> tuple[str, float] | None:
        if not self.names:
            return None
        cosine, place = self(grid)[0].max(0)
        confidence = 1 / (1 + math.exp(_SCALE * (_NONE - float(cosine))))
        return (self.names[int(place)], confidence) if confidence >= self.least else None

    @torch.inference_mode()
    def is_mirrored(self, name: str, grid: Tensor) -> bool:
        """Whether left and right are swapped on a picture (R, D) of the template `name`; R must be a square."""
        own = self.places[self.names.index(name)]  # (R, A)
        seen = self._along_axes(grid.float())
        side = math.isqrt(len(seen))
        swapped = seen.view(side, side, -1).flip(1).reshape(seen.shape)
        return bool((swapped * own).sum() > (seen * own).sum())

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint stores beside `names`: weights and the threshold."""
        return {**self.state_dict(), "least": torch.tensor([self.least])}

    @classmethod
    def from_tensors(cls, names: Sequence[str], tensors: Mapping[str, Tensor]) -> "Templates":
        """Raises KeyError or RuntimeError for tensors that do not fit together."""
        units, features = tensors["rectified.weight"].shape
        regions, dimensions = tensors["places"].shape[1], tensors["centres"].shape[1]
        recogniser = cls(names, regions, features, units, dimensions, float(tensors["least"][0]))
        recogniser.load_state_dict({k: v.float() for k, v in tensors.items() if k != "least"})
        return recogniser.eval().requires_grad_(False)

    def _place(self, grids: Tensor) -> None:
        """Keeps the templates' own grids (T, R, D) along the axes in which places differ most."""
        cells = grids.flatten(0, 1)
        self.middle = cells.mean(0)
        _, spread, axes = torch.linalg.svd(cells - self.middle, full_matrices=False)
        kept = min(_AXES, len(spread))
        self.axes[:, :kept] = axes[:kept].T / (spread[:kept] + 0.3 * spread[0] + 1e-6)
        self.places = self._along_axes(grids)

    def _along_axes(self, grids: Tensor) -> Tensor:
        """(…, D) to unit vectors (…, A)."""
        return functional.normalize((grids - self.middle) @ self.axes, dim=-1)

    def _train(self, grids: Tensor, labels: Tensor, epochs: int) -> None:
        optimiser = torch.optim.AdamW(self.parameters(), _RATE, weight_decay=_DECAY)
        steps = epochs * math.ceil(len(grids) / _BATCH)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        for _ in range(epochs):
            for rows in torch.split(torch.randperm(len(grids)), _BATCH):
                optimiser.zero_grad()
                self._loss(grids[rows].float(), labels[rows]).backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                schedule.step()

    def _loss(self, grids: Tensor, labels: Tensor) -> Tensor:
        """Every picture nearest to its own centre, and without that one nearer to none than to any other."""
        cosines = self(grids)  # (B, T)
        none = torch.full((len(grids), 1), _NONE)
        own = functional.one_hot(labels, len(self.names) + 1)[:, :-1].bool()  # (B, T), no True for a photograph
        named = torch.cat([cosines - _MARGIN * own, none], 1) * _SCALE
        others = torch.cat([cosines.masked_fill(own, -1.0) + _MARGIN, none], 1) * _SCALE
        refused = functional.cross_entropy(others, torch.full_like(labels, len(self.names)))
        return functional.cross_entropy(named, labels) + _OTHERS * refused


@torch.inference_mode()
def learnt(
    encoder: Encoder,
    reduction: Reduction,
    templates: Mapping[str, Path],
    others: Sequence[Path],
    views: int = 64,
    how: Fit = Fit(),
) -> Templates:
    """A recogniser of the pictures of `templates`, trained on `views` distorted copies of each and three of `others`.

    `others` are photographs of any kind, some thousands; each copy takes some 40 ms of a core. Grids are those of the
    encoder after the reduction, as they will be when it serves.
    """

    def grids(file: Path, count: int) -> Tensor:
        copies = posts(opened(file).image, count, zlib.crc32(file.name.encode()))
        # One by one: copies of a large picture take much memory.
        return torch.cat([reduction(encoder(encoder.pixels([copy]))) for copy in copies]).half().cpu()

    known = {name: grids(file, views) for name, file in tqdm(templates.items(), desc="templates", unit="picture")}
    rest = torch.cat([grids(file, 3) for file in tqdm(others, desc="other pictures", unit="picture")])
    with torch.inference_mode(False), torch.enable_grad():
        return Templates.fit({name: view.clone() for name, view in known.items()}, rest.clone(), how)
