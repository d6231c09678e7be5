"""Matrix products for decoding: few rows against large weights, hundreds of times a caption.

What they cost is reading the weights from memory. On a CPU with FBGEMM they are kept in half precision, as they lie in
the checkpoint, and multiplied in single precision: half the bytes, the same numbers.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Product = Callable[[Tensor], Tensor]

ROWS = 6
"""FBGEMM multiplies blocks of so many rows; a multiple of it gives every row the same bits whatever comes with it."""


def product(weight: Tensor, bias: Tensor) -> Product:
    """x (N, I) to x @ weight.T + bias (N, O), for weights (O, I) that do not change any more."""
    if weight.device.type != "cpu" or "fbgemm" not in torch.backends.quantized.supported_engines:
        return lambda x: F.linear(x, weight, bias)
    packed = torch.ops.quantized.linear_prepack_fp16(weight.detach(), bias.detach())

    def multiply(x: Tensor) -> Tensor:
        made: Tensor = torch.ops.quantized.linear_dynamic_fp16(x, packed)
        return made

    return multiply
