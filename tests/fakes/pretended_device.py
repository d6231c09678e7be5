"""A device that is not there, to find tensors that were left behind on the CPU where no GPU is at hand.

Its tensors say that they lie on `DEVICE`, torch's device without memory, and carry their numbers along on the CPU. An
operator that is given tensors of both kinds fails, by the rules of a GPU: only a tensor without dimensions may come
from the CPU, and indices. What is computed is what the CPU computes, generators of random numbers included.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from captioner import devices

DEVICE = torch.device("meta")
_FUSED = "_get_fused_kernels_supported_devices"
_COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)


class There(Tensor):
    """A tensor of the device; `here` are its numbers."""

    here: Tensor

    @staticmethod
    def __new__(cls, here: Tensor) -> "There":
        with torch.inference_mode(False):  # a wrapper's views would lose count of its changes
            made: There = Tensor._make_wrapper_subclass(
                cls, here.shape, here.stride(), here.storage_offset(), dtype=here.dtype, device=DEVICE
            )
        made.here = here
        return made

    def tolist(self) -> Any:
        return self.here.tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Watch(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Filled(TorchFunctionMode):
    """`torch.tensor` would drop the numbers before an operator is asked for."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.tensor and kwargs.get("device") == DEVICE:
            return func(*args, **kwargs | {"device": None}).to(DEVICE)
        return func(*args, **kwargs)


@contextmanager
def pretended() -> Iterator[torch.device]:
    """Within, trainings run on `DEVICE`, for which optimisers have fused steps as for a GPU."""
    with pytest.MonkeyPatch.context() as patch, _Filled(), _Watch():
        patch.setattr(devices, "for_training", lambda _: DEVICE)
        patch.setattr(import_module("torch.optim.optimizer"), _FUSED, lambda: ["cpu", DEVICE.type])
        yield DEVICE


def _run(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    is_there = any(isinstance(t, There) for t in tensors)
    if is_there and func not in _COPIES:
        _refuse_strangers(func, args, tensors)
    if (asked := kwargs.get("device")) is not None:
        is_there, kwargs = torch.device(asked) == DEVICE, kwargs | {"device": torch.device("cpu")}
    if func is torch.ops.aten.copy_.default:
        is_there = isinstance(args[0], There)
    here, named = tree_map_only(There, lambda t: t.here, (args, kwargs))
    made = func(*here, **named)
    if torch.Tag.inplace_view in func.tags and is_there:
        with torch._C._DisableTorchDispatch():
            func(*args, **kwargs)  # the shape that it says it has changes as well
    if func._schema.is_mutable:
        return _mutated(func, args, kwargs)
    return tree_map_only(Tensor, There, made) if is_there else made


def _refuse_strangers(func: Any, args: Sequence[Any], tensors: Sequence[Tensor]) -> None:
    watched = tensors
    if func in (torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default, torch.ops.aten.index_put.default):
        watched = [args[0], *args[2:3]]  # indices may come from anywhere
    for tensor in watched:
        if not isinstance(tensor, There) and tensor.dim():
            raise RuntimeError(f"{func} was given a tensor {tuple(tensor.shape)} of the CPU beside those of a device")


def _mutated(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """What an operator gives that changes its arguments: those, or nothing."""
    given = dict(zip((a.name for a in func._schema.arguments), args, strict=False)) | kwargs
    written = [given[a.name] for a in func._schema.arguments if a.alias_info and a.alias_info.is_write]
    if not func._schema.returns:
        return None
    return written[0] if len(written) == 1 else tuple(written)
