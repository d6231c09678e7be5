"""Where a network computes, and how precisely it is trained there."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def named(name: str, kinds: Sequence[str] = ("cuda", "mps")) -> torch.device:
    """The device of that name; `auto` is the first of `kinds` that this machine has, else the CPU.

    Raises ValueError for one that it does not have.
    """
    has = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    there = [kind for kind in kinds if has[kind]] + ["cpu"]
    if name == "auto":
        return torch.device(there[0])
    if name not in there:
        raise ValueError(f"device is {name}, which this machine does not have; auto takes what there is.")
    return torch.device(name)


def for_training(name: str) -> torch.device:
    """`cuda` or the CPU, by name. On a GPU a seed then means one run, and pictures have the features of a CPU.

    Raises ValueError for one that is not there.
    """
    found = named(name, ("cuda",))
    if found.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.allow_tf32 = False
    return found


def is_mixed(precision: str, device: torch.device) -> bool:
    """Whether `bfloat16` is asked for, or `auto` on a GPU that computes with it. Raises ValueError for another word."""
    if precision not in ("auto", "bfloat16", "float32"):
        raise ValueError(f"precision is auto, bfloat16 or float32, not {precision}.")
    if precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return precision == "bfloat16"


@contextmanager
def mixed(network: nn.Module, device: torch.device) -> Iterator[None]:
    """The network's products in bfloat16, its recurrent layers in full precision.

    Under autocast cuDNN computes recurrences in float16, whatever is asked for: the small gradients of a mean over
    thousands of words vanish there.
    """
    recurrent = [part for part in network.modules() if isinstance(part, nn.RNNBase | nn.RNNCellBase)]
    for layer in recurrent:
        layer.forward = _in_full(layer.forward, device)
    try:
        with torch.autocast(device.type, torch.bfloat16):
            yield
    finally:
        for layer in recurrent:
            del layer.forward


def _in_full(forward: Callable[..., Any], device: torch.device) -> Callable[..., Any]:
    def full(*inputs: Any) -> Any:
        with torch.autocast(device.type, enabled=False):
            return forward(*map(_widened, inputs))

    return full


def _widened(given: Tensor | tuple[Tensor, ...]) -> Tensor | tuple[Tensor, ...]:
    return given.float() if isinstance(given, Tensor) else tuple(part.float() for part in given)
