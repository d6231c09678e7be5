"""Encoder features of a data set's pictures, computed once and kept in a folder."""

import hashlib
import json
import zlib
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from captioner.augment import views
from captioner.encoders import Encoder, Reduction
from captioner.images import opened


@dataclass(frozen=True, slots=True)
class Features:
    """`grids` (V, R, D) in half precision, one row a view; a picture's views are `rows[picture]`."""

    grids: np.ndarray
    rows: dict[Path, range]
    views: int
    """Of every picture."""


@torch.inference_mode()
def fit_reduction(encoder: Encoder, pictures: Sequence[Path], dimensions: int) -> Reduction:
    """Principal components, on the CPU, of up to 800 pictures' features, picked evenly."""
    step = max(1, len(pictures) // 800)
    picked = [opened(p).image for p in pictures[::step]]
    batches = [encoder(encoder.pixels(picked[i : i + 16])).cpu() for i in range(0, len(picked), 16)]
    return Reduction.fit(torch.cat(batches).flatten(0, 1), dimensions)


def features(
    encoder: Encoder, reduction: Reduction, pictures: Sequence[Path], count: int, folder: Path, *, template: bool
) -> Features:
    """Reduced features of `count` views of every picture, from the folder where they were computed before.

    Computed where the encoder lies.
    """
    rows = {picture: range(i * count, (i + 1) * count) for i, picture in enumerate(pictures)}
    files = [(p.name, p.stat().st_size) for p in pictures]
    facts = [encoder.name, count, template, float(reduction.basis.double().sum()), files]
    file = folder / f"{hashlib.blake2b(json.dumps(facts).encode(), digest_size=8).hexdigest()}.npy"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        beside = deepcopy(reduction).to(encoder.mean.device)
        shape = (len(pictures) * count, encoder.regions, reduction.basis.shape[1])
        grids = np.lib.format.open_memmap(file.with_suffix(".part"), "w+", np.float16, shape)
        for picture in tqdm(pictures, desc="features", unit="picture"):
            # zlib, not hash(): the same views in every run
            images = views(opened(picture).image, count, zlib.crc32(picture.name.encode()), template=template)
            grids[rows[picture].start : rows[picture].stop] = _reduced(encoder, beside, images).half().cpu().numpy()
        grids.flush()
        file.with_suffix(".part").rename(file)
    return Features(np.load(file), rows, count)


@torch.inference_mode()
def _reduced(encoder: Encoder, reduction: Reduction, images: list[Image.Image]) -> Tensor:
    reduced: Tensor = reduction(encoder(encoder.pixels(images)))  # (count, R, D)
    return reduced
