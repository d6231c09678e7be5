"""Flickr8k: photographs with five descriptions each (Hodosh, Young and Hockenmaier, 2013), standard splits."""

from collections.abc import Iterator
from pathlib import Path

from captioner.data import karpathy
from captioner.data.samples import Sample

_FOLDERS = ("Flickr8k_Dataset", "Flicker8k_Dataset", "Images", "images")
"""Where copies of the set keep the pictures; the second is how the set's own archive spells it."""


def load(folder: Path) -> Iterator[Sample]:
    """Every description of a picture that is there and stands in a split.

    Read from the token file and the lists of its splits as published, else from Karpathy's `dataset_flickr8k.json`.
    Raises FileNotFoundError for another layout.
    """
    tokens, rearranged = folder / "Flickr8k.token.txt", folder / "dataset_flickr8k.json"
    if not tokens.is_file() and not rearranged.is_file():
        raise FileNotFoundError(
            f"{folder} has neither Flickr8k.token.txt nor dataset_flickr8k.json: not Flickr8k as published."
        )
    pictures = _pictures(folder)
    lists = {s: folder / f"Flickr_8k.{s}Images.txt" for s in ("train", "dev", "test")}
    lists = {split: file for split, file in lists.items() if file.is_file()}
    if tokens.is_file() and lists:
        yield from _tokens(tokens, lists, pictures)
    elif rearranged.is_file():
        yield from karpathy.load(rearranged, lambda image: pictures.get(image["filename"]))
    else:
        raise FileNotFoundError(
            f"{folder} has no Flickr_8k.trainImages.txt, which tells its splits: not Flickr8k as published."
        )


def _tokens(file: Path, lists: dict[str, Path], pictures: dict[str, Path]) -> Iterator[Sample]:
    splits = {name.strip(): split for split, named in lists.items() for name in named.read_text("utf-8").splitlines()}
    for line in file.read_text("utf-8").splitlines():
        key, _, text = line.partition("\t")
        name = key.rpartition("#")[0]
        if name in splits and name in pictures:
            yield karpathy.described(pictures[name], text, splits[name])


def _pictures(folder: Path) -> dict[str, Path]:
    for name in _FOLDERS:
        if (folder / name).is_dir():
            return {p.name: p for p in (folder / name).iterdir()}
    raise FileNotFoundError(f"{folder} has no {_FOLDERS[0]}: not Flickr8k as published.")
