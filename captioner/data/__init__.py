"""Importers, one a data set, each reading the set in its public layout."""

from collections.abc import Callable, Iterator
from pathlib import Path

from captioner.data import coco, flickr8k, imgflip575k, memefly
from captioner.data import folder as own
from captioner.data.samples import SPLITS, Sample, cleaned, digest, fingerprint, split_of

IMPORTERS: dict[str, Callable[[Path], Iterator[Sample]]] = {
    "coco": coco.load,
    "flickr8k": flickr8k.load,
    "folder": own.load,
    "imgflip575k": imgflip575k.load,
    "memefly": memefly.load,
}

__all__ = ["IMPORTERS", "SPLITS", "Sample", "cleaned", "digest", "fingerprint", "load", "split_of"]


def load(name: str, folder: Path) -> Iterator[Sample]:
    """The samples of a data set, raw. Raises ValueError for an unknown name, FileNotFoundError for another layout."""
    if name not in IMPORTERS:
        raise ValueError(f"There is no importer for {name}; known are {', '.join(sorted(IMPORTERS))}.")
    return IMPORTERS[name](folder)
