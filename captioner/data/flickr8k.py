"""Flickr8k: photographs with five descriptions each (Hodosh, Young and Hockenmaier, 2013), standard splits."""

from collections.abc import Iterator
from pathlib import Path

from captioner.data.samples import Sample


def load(folder: Path) -> Iterator[Sample]:
    """Every description of a picture that is there and stands in a split file. FileNotFoundError for another layout."""
    tokens = folder / "Flickr8k.token.txt"
    if not tokens.is_file():
        raise FileNotFoundError(f"{folder} has no Flickr8k.token.txt: not Flickr8k as published.")
    splits = {
        name.strip(): split
        for split in ("train", "dev", "test")
        if (file := folder / f"Flickr_8k.{split}Images.txt").is_file()
        for name in file.read_text("utf-8").splitlines()
    }
    pictures = {p.name: p for p in (folder / "Flickr8k_Dataset").iterdir()}
    for line in tokens.read_text("utf-8").splitlines():
        key, _, text = line.partition("\t")
        name = key.rpartition("#")[0]
        if name in splits and name in pictures:
            yield Sample(pictures[name], (text.removesuffix(".").strip(),), "describe", split=splits[name])
