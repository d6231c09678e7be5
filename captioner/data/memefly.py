"""Memefly's training set: captions of 108 templates, boxes run together (`combined_data.json`, `images/`)."""

import json
from collections.abc import Iterator
from pathlib import Path

from captioner.data.samples import Sample


def load(folder: Path) -> Iterator[Sample]:
    """Every caption of a template that has a picture. Raises FileNotFoundError for another layout."""
    file = folder / "combined_data.json"
    if not file.is_file():
        raise FileNotFoundError(f"{folder} has no combined_data.json: not Memefly's set as published.")
    for template in json.loads(file.read_text("utf-8")):
        picture = folder / "images" / f"{template['meme_name']}.jpg"
        if picture.is_file():
            for text in template["meme_text"]:
                yield Sample(picture, (text,), "meme", template["meme_name"])
