"""Regions of a picture, as a detector proposes them: bottom-up attention (Anderson et al. 2018).

`faster_rcnn("fasterrcnn_resnet50_fpn")` is an encoder whose places are boxes instead of the cells of a grid: the 36 of
which Faster R-CNN (Ren et al. 2015) is surest that they hold one of its classes, each with the 1024 numbers of its box
head. Its weights, of COCO's 80 classes, are fetched by torchvision when first used.

Shapes: B pictures, R regions, C channels, P proposals.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torchvision
from torch import Tensor, nn
from torchvision.ops import batched_nms

from captioner.encoders import Encoder

REGIONS = 36
_OVERLAP = 0.7
"""Intersection over union above which the less certain of two boxes is left out."""
_SIZE = 512


class Boxes(NamedTuple):
    """`features` (B, R, C); `boxes` (B, R, 4): left, top, right, bottom in shares of the picture's sides."""

    features: Tensor
    boxes: Tensor


class Regions(nn.Module):
    """Pixels (B, 3, S, S) to `Boxes`, by a torchvision Faster R-CNN."""

    def __init__(self, net: nn.Module, count: int) -> None:
        super().__init__()
        self.net: Any = net
        self.count = count

    def forward(self, pixels: Tensor) -> Boxes:
        found = [self._picture(one) for one in pixels]
        features, boxes = (torch.stack(part) for part in zip(*found, strict=True))
        return Boxes(features, boxes / pixels.shape[-1])

    def _picture(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Features (R, C) and boxes (R, 4) in pixels; the surest is repeated where there are too few."""
        images, _ = self.net.transform([pixels])
        maps = self.net.backbone(images.tensors)
        maps = maps if isinstance(maps, Mapping) else {"0": maps}
        proposals, _ = self.net.rpn(images, maps)
        heads = self.net.roi_heads
        features = heads.box_head(heads.box_roi_pool(maps, proposals, images.image_sizes))  # (P, C)
        scores, classes = heads.box_predictor(features)[0].softmax(-1)[:, 1:].max(-1)  # (P,), background left out
        kept = batched_nms(proposals[0], scores, classes, _OVERLAP)[: self.count]
        kept = torch.cat([kept, kept[:1].repeat(self.count - len(kept))])
        height, width = images.image_sizes[0]
        scale = torch.tensor([width, height, width, height], device=pixels.device) / pixels.shape[-1]
        return features[kept], proposals[0][kept] / scale


class RegionEncoder(Encoder):
    """Pictures to regions: features (B, R, C) of boxes that `boxes` tells."""

    def finished(self, halfway: Tensor) -> Tensor:
        return self.boxes(halfway).features

    def boxes(self, pixels: Tensor) -> Boxes:
        made: Boxes = self.body(pixels)
        return made

    def places(self, pixels: Tensor) -> Tensor:
        return self.boxes(pixels).boxes


def faster_rcnn(name: str, weights: Path | None = None, count: int = REGIONS) -> Encoder:
    """The named Faster R-CNN of torchvision's as an encoder, with its weights or those of a local state dict."""
    net = torchvision.models.get_model(name, weights=None if weights else "DEFAULT", weights_backbone=None)
    if weights:
        net.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    # It normalises by itself, to its own size.
    return RegionEncoder(name, Regions(net.eval(), count), _SIZE, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
