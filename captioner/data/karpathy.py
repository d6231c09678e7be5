"""The JSON in which Karpathy and Fei-Fei (2015) published captions and splits of Flickr8k, Flickr30k and COCO."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from captioner.data.samples import Sample

_SPLITS = {"train": "train", "restval": "train", "val": "dev", "test": "test"}


def load(file: Path, picture: Callable[[dict[str, Any]], Path | None]) -> Iterator[Sample]:
    """Every description of every image that `picture` finds; `restval`, COCO's rest for training, is `train`.

    Raises ValueError for a file of another layout.
    """
    try:
        images = json.loads(file.read_text("utf-8"))["images"]
        for image in images:
            path = picture(image)
            if path is not None:
                for sentence in image["sentences"]:
                    yield described(path, sentence["raw"], _SPLITS[image["split"]])
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is not in Karpathy's layout: {error!r}.") from error


def described(picture: Path, text: str, split: str) -> Sample:
    """A description without its full stop."""
    return Sample(picture, (text.strip().removesuffix(".").strip(),), "describe", split=split)
