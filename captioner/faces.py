"""Where faces are, so that no writing hides them.

Three small networks look at ever fewer windows ever more closely (Zhang, Zhang, Li and Qiao, "Joint Face Detection and
Alignment Using Multitask Cascaded Convolutional Networks", 2016), with the weights of the package mtcnn, which needs
TensorFlow to run them itself. Their five points of a face are not asked for.

Shapes: N windows or boxes; boxes (N, 4) are left, top, right, bottom in pixels of the picture as it is looked at.
"""

from importlib.util import find_spec
from pathlib import Path

import joblib
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import nms, roi_align

from captioner.images import Face

_LONGEST = 256
"""The longer side of a picture as it is looked at, in pixels."""
_SMALLEST_FACE = 20
"""Pixels of it; a smaller face is not what a picture is of."""
_WINDOW, _STRIDE = 12, 2
"""Pixels that the first network sees at once, and how far its windows lie apart."""
_PYRAMID = 0.709
"""Each level of the pyramid has half of the pixels of the one before."""
_CHANCES = 0.8, 0.7, 0.9
"""How surely a window must be a face for each network. The paper's code has 0.6, 0.7 and 0.8; so there are half as many
windows to look at closely, and of 108 faces one is lost."""
_ALIKE = 0.5
"""Of two boxes that share more than this of their area (intersection over union), the surer one stays."""


class Faces(nn.Module):
    """The three networks on a CPU; any thread may ask them."""

    def __init__(self) -> None:
        super().__init__()
        self.propose = _Network("pnet", [_conv(3, 10), _pool(2), _conv(10, 16), _conv(16, 32)], 32)
        layers = [_conv(3, 28), _pool(3), _conv(28, 48), _pool(3), _conv(48, 64, 2), _Flat(), _dense(576, 128)]
        self.refine = _Network("rnet", layers, 128)
        layers = [_conv(3, 32), _pool(3), _conv(32, 64), _pool(3), _conv(64, 64), _pool(2), _conv(64, 128, 2)]
        self.decide = _Network("onet", [*layers, _Flat(), _dense(1152, 256)], 256, points=10)

    @torch.inference_mode()
    def find(self, image: Image.Image) -> list[Face]:
        """The faces on a picture, the surest first."""
        small = image.convert("RGB")
        small.thumbnail((_LONGEST, _LONGEST), Image.Resampling.BOX, reducing_gap=2)
        pixels = torch.from_numpy(np.array(small)).permute(2, 0, 1)[None].float().sub(127.5).div(128)
        boxes = self._proposed(pixels)
        for network, side, least in ((self.refine, 24, _CHANCES[1]), (self.decide, 48, _CHANCES[2])):
            # Beyond the picture a window sees grey, which is 0.
            windows = roi_align(pixels, [_squared(boxes)], side, sampling_ratio=2, aligned=True)
            chances, sides = network(windows)
            boxes = _best(_moved(_squared(boxes), sides), chances, least)
        shares = boxes / boxes.new_tensor([*small.size, *small.size])
        return [(left, top, right, bottom) for left, top, right, bottom in shares.clamp(0, 1).tolist()]

    def _proposed(self, pixels: Tensor) -> Tensor:
        """Boxes (N, 4) on pixels (1, 3, H, W) that may be faces, by all levels of the pyramid."""
        found, chances = [pixels.new_zeros(0, 4)], [pixels.new_zeros(0)]
        scale = _WINDOW / _SMALLEST_FACE
        while min(size := [round(side * scale) for side in pixels.shape[2:]]) >= _WINDOW:
            each, sides = (map_[0] for map_ in self.propose(F.interpolate(pixels, size, mode="area")))
            rows, columns = (each > _CHANCES[0]).nonzero(as_tuple=True)
            corners = torch.stack([columns, rows, columns, rows], 1) * _STRIDE
            windows = (corners + corners.new_tensor([0, 0, _WINDOW, _WINDOW])) / scale
            boxes, sure = _moved(windows, sides[rows, columns]), each[rows, columns]
            kept = nms(boxes, sure, _ALIKE)
            found.append(boxes[kept])
            chances.append(sure[kept])
            scale *= _PYRAMID
        return _best(torch.cat(found), torch.cat(chances), _CHANCES[0])


class _Network(nn.Module):
    """One of the three: windows (N, 3, S, S) to the chances of a face and how far its sides are off.

    They are (N,) and (N, 4), shares of the window's side; the first network, which is a convolution throughout, gives
    them for every window of a picture (N, 3, H, W), as (N, H', W') and (N, H', W', 4).
    """

    def __init__(self, name: str, layers: list[nn.Module], width: int, points: int = 0) -> None:
        super().__init__()
        self.trunk = nn.Sequential(*layers)
        self.heads = nn.ModuleList(nn.Linear(width, outputs) for outputs in (4, points, 2) if outputs)
        self._load(name)
        # With so few channels three times as fast on a CPU.
        self.eval().requires_grad_(False).to(memory_format=torch.channels_last)

    def forward(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        seen = self.trunk(windows.contiguous(memory_format=torch.channels_last))
        seen = seen.permute(0, 2, 3, 1) if seen.ndim == 4 else seen
        return self.heads[-1](seen).softmax(-1)[..., 1], self.heads[0](seen)

    def _load(self, name: str) -> None:
        """The package's arrays are in the order of the layers, inputs before outputs."""
        for parameter, array in zip(self.parameters(), joblib.load(_folder() / f"{name}.lz4"), strict=True):
            kernel = torch.from_numpy(array)
            kernel = kernel.permute(3, 2, 0, 1) if kernel.ndim == 4 else kernel.T if kernel.ndim == 2 else kernel
            parameter.data = kernel.reshape(parameter.shape).contiguous()


class _Flat(nn.Module):
    """(N, C, H, W) to (N, W · H · C): the weights were learnt with columns before rows."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps.permute(0, 3, 2, 1).flatten(1)


def _conv(inputs: int, outputs: int, side: int = 3) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inputs, outputs, side), nn.PReLU(outputs))


def _dense(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, outputs), nn.PReLU(outputs))


def _pool(side: int) -> nn.Module:
    return nn.MaxPool2d(side, 2, ceil_mode=True)


def _folder() -> Path:
    """Of the weights; the package itself is not imported, since it would import TensorFlow."""
    spec = find_spec("mtcnn")
    assert spec, "mtcnn is among the dependencies"
    assert spec.origin
    return Path(spec.origin).parent / "assets" / "weights"


def _moved(boxes: Tensor, sides: Tensor) -> Tensor:
    """Boxes with each side moved by a share (N, 4) of their width or height."""
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    return boxes + sides * torch.stack([width, height, width, height], 1)


def _squared(boxes: Tensor) -> Tensor:
    """The smallest squares around the boxes."""
    middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]).amax(1, keepdim=True) / 2
    return torch.cat([middle - half, middle + half], 1)


def _best(boxes: Tensor, chances: Tensor, least: float) -> Tensor:
    """The boxes that are sure enough and not nearly the same as a surer one, the surest first."""
    sure = chances > least
    boxes, chances = boxes[sure], chances[sure]
    return boxes[nms(boxes, chances, _ALIKE)]
