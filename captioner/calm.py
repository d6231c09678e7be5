"""Where a picture is calm: how much would be lost by writing on it, place by place."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image

from captioner.images import Face

_SIDE = 56
"""Places along either side of the map."""
_BLUR = 4
_FACES = 0.5
"""The share of faces in what there is to see where there are any."""


@dataclass(frozen=True, slots=True)
class Busyness:
    """Shares of what there is to see, (rows, columns), sum 1: subjects weigh more than skies and walls, faces most."""

    map: np.ndarray
    faces: np.ndarray
    """The same of faces alone; 0 where there are none."""

    def under(self, left: float, top: float, right: float, bottom: float) -> float:
        """The share that a rectangle covers, its sides given as fractions of the picture's."""
        return _under(self.map, left, top, right, bottom)

    def faces_under(self, left: float, top: float, right: float, bottom: float) -> float:
        """The share of the faces that it covers."""
        return _under(self.faces, left, top, right, bottom)


def busyness(image: Image.Image, faces: Sequence[Face] = ()) -> Busyness:
    """From an RGB picture, and the faces on it.

    Detail is the gradient of the brightness; what stands out is the distance of a colour from the picture's mean
    colour (Achanta and others, "Frequency-tuned salient region detection", 2009). Both count more in the middle,
    where people put what they photograph. The captioner's attention is not asked: it is nearly even over the grid.
    """
    small = image.resize((_SIDE, _SIDE), Image.Resampling.BOX, reducing_gap=1.1)
    colours = np.asarray(small.convert("YCbCr"), np.float64)
    steps = np.gradient(np.asarray(small.convert("L"), np.float64))
    edges = _blurred(np.hypot(*steps))
    apart = colours - colours.mean((0, 1))
    distinct = _blurred(np.sqrt(np.einsum("yxc,yxc->yx", apart, apart)))
    total = (_share(edges) + _share(distinct)) * _central()
    total /= total.sum()
    covered = _covered(faces)
    return Busyness((1 - _FACES) * total + _FACES * covered if faces else total, covered)


def _under(shares: np.ndarray, left: float, top: float, right: float, bottom: float) -> float:
    rows, columns = shares.shape
    x0, x1 = int(left * columns), max(int(left * columns) + 1, round(right * columns))
    y0, y1 = int(top * rows), max(int(top * rows) + 1, round(bottom * rows))
    return float(shares[y0:y1, x0:x1].sum())


def _covered(faces: Sequence[Face]) -> np.ndarray:
    """A map (rows, columns) of faces that weigh by their sides, each as much anywhere: sum 1, or 0 without any."""
    ends = np.arange(_SIDE + 1) / _SIDE
    total = np.zeros((_SIDE, _SIDE))
    for left, top, right, bottom in faces:
        rows, columns = (np.diff(ends.clip(low, high)) for low, high in ((top, bottom), (left, right)))
        face = np.outer(rows, columns)
        total += face / max(1e-9, np.sqrt(face.sum()))
    covered: np.ndarray = total / max(1e-9, total.sum())
    return covered


def _share(values: np.ndarray) -> np.ndarray:
    # A constant picture is equally busy everywhere.
    values = values + 1e-6
    share: np.ndarray = values / values.sum()
    return share


def _blurred(values: np.ndarray) -> np.ndarray:
    coarse = Image.fromarray(values.astype(np.float32)).reduce(_BLUR)
    return np.maximum(0, np.asarray(coarse.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC), np.float64))


@cache
def _central() -> np.ndarray:
    """More weight in the middle, less at the edges."""
    places = (np.arange(_SIDE) + 0.5) / _SIDE - 0.5
    hill = np.exp(-((places / 0.45) ** 2))
    return np.outer(hill, hill)
