"""Products with weights that do not change any more, on a CPU with oneDNN in its own order.

For decoding, few rows against large weights, hundreds of times a caption: that halves the time of a few rows; and a
row's result does not depend on how many rows come with it, to the last bit. For the encoder, convolutions: a quarter
of the time goes.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Product = Callable[[Tensor], Tensor]


def product(weight: Tensor, bias: Tensor) -> Product:
    """x (N, I) to x @ weight.T + bias (N, O), for weights (O, I) that do not change any more."""
    if not _packs(weight):
        return lambda x: F.linear(x, weight, bias)
    bias = bias.detach()
    ordered = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), 8)

    def multiply(x: Tensor) -> Tensor:
        made: Tensor = torch.ops.mkldnn._linear_pointwise(x, ordered, bias, "none", [], "")
        return made

    return multiply


class Convolution(nn.Module):
    """A convolution and the ReLU6 that may follow it, for inference in one pass over the picture."""

    def __init__(self, conv: nn.Conv2d, clipped: bool) -> None:
        super().__init__()
        self.conv = conv
        self.clipped = clipped
        self._ordered: Tensor | None = None

    def refresh(self) -> None:
        """After the weights have changed."""
        self._ordered = None

    def forward(self, x: Tensor) -> Tensor:
        """Pixels or features (B, C, H, W) to features (B, O, H', W')."""
        if torch.is_grad_enabled() or not _packs(x):
            return F.relu6(self.conv(x)) if self.clipped else self.conv(x)
        by = self.conv
        if self._ordered is None:
            self._ordered = torch.ops.mkldnn._reorder_convolution_weight(
                by.weight.detach(), by.padding, by.stride, by.dilation, by.groups, list(x.shape)
            )
        then, limits = ("hardtanh", [0.0, 6.0]) if self.clipped else ("none", [])
        made: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, self._ordered, by.bias, by.padding, by.stride, by.dilation, by.groups, then, limits, ""
        )
        return made


def _packs(like: Tensor) -> bool:
    return like.device.type == "cpu" and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
