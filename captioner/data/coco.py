"""COCO captions (Chen et al. 2015), of 2014 or 2017: photographs with five descriptions each."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from captioner.data import karpathy
from captioner.data.samples import Sample

_PARTS = tuple((part, year) for year in ("2014", "2017") for part in ("train", "val"))


def load(folder: Path) -> Iterator[Sample]:
    """Every description of a picture that is there, in `train2014/` and so on, or below `images/`.

    Read from Karpathy's `dataset_coco.json` with its splits where it is there, else from
    `annotations/captions_{train,val}{2014,2017}.json`, `val` as dev: the captions of the test pictures are not public.
    Raises FileNotFoundError for another layout.
    """
    rearranged = folder / "dataset_coco.json"
    annotations = {
        (part, year): file
        for part, year in _PARTS
        if (file := folder / "annotations" / f"captions_{part}{year}.json").is_file()
    }
    if not rearranged.is_file() and not annotations:
        raise FileNotFoundError(
            f"{folder} has neither dataset_coco.json nor annotations/captions_train2017.json and the like: "
            "not COCO as published."
        )
    pictures = _pictures(folder)
    if rearranged.is_file():
        yield from karpathy.load(rearranged, lambda image: _found(pictures, image))
    else:
        yield from _annotated(annotations, pictures)


def _annotated(files: dict[tuple[str, str], Path], pictures: dict[str, dict[str, Path]]) -> Iterator[Sample]:
    """Both years hold the same captions, divided otherwise: the first that has the picture counts."""
    seen: set[int] = set()
    for (part, year), file in files.items():
        published = json.loads(file.read_text("utf-8"))
        there = pictures.get(f"{part}{year}", {})
        paths = {i["id"]: there[i["file_name"]] for i in published["images"] if i["file_name"] in there}
        for annotation in published["annotations"]:
            if annotation["image_id"] in paths and annotation["id"] not in seen:
                seen.add(annotation["id"])
                split = "dev" if part == "val" else "train"
                yield karpathy.described(paths[annotation["image_id"]], annotation["caption"], split)


def _pictures(folder: Path) -> dict[str, dict[str, Path]]:
    """The pictures by name, by the part and year that their folder is named after."""
    return {
        f"{part}{year}": {p.name: p for p in place.iterdir()}
        for part, year in _PARTS
        for place in (folder / f"{part}{year}", folder / "images" / f"{part}{year}")
        if place.is_dir()
    }


def _found(pictures: dict[str, dict[str, Path]], image: dict[str, Any]) -> Path | None:
    """The picture by its name of 2014; else by its id, which is its name of 2017, in either part of that year."""
    found = pictures.get(image["filepath"], {}).get(image["filename"])
    names = [f"{image['cocoid']:012}.jpg"] if "cocoid" in image else []
    later = (
        pictures[year][name] for year in ("train2017", "val2017") for name in names if name in pictures.get(year, {})
    )
    return found or next(later, None)
