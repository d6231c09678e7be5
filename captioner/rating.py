"""Memes for blind rating: on the same pictures, by people and by models, drawn alike.

The folder that is written holds drawn memes whose names tell nothing, and `captions.jsonl` that says who wrote which:

    {"file": "9f3c….jpg", "picture": "boat-cat", "system": "people", "boxes": ["i should buy", "a boat"]}
"""

import json
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from captioner import data
from captioner.captioner import Captioner, Wish
from captioner.data.samples import Sample
from captioner.images import to_jpeg

PEOPLE = "people"


def lay_out(
    sets: Mapping[str, Path], captioners: Sequence[Captioner], out: Path, *, pictures: int, split: str, seed: int
) -> int:
    """Writes memes on up to `pictures` pictures into `out`, one by people and one by every model; how many memes.

    People's are taken at random from the split of cleaned captions, so from `dev` no model has seen them; models write
    as the bot would, in the style of the set. All are drawn by the first model's captioner. Raises ValueError or
    FileNotFoundError for data that cannot be read, ValueError where `out` has memes already.
    """
    if (out / "captions.jsonl").exists():
        raise ValueError(f"{out} already holds memes to rate; votes on them would be lost. Name another folder.")
    if len({captioner.name for captioner in captioners}) < len(captioners):
        raise ValueError("Two models have the same name, so their memes could not be told apart.")
    dice = random.Random(seed)  # noqa: S311, no secret
    samples = [s for name, folder in sets.items() for s in data.cleaned(data.load(name, folder), Counter())]
    by_picture: dict[Path, list[Sample]] = defaultdict(list)
    for sample in samples:
        if split in ("all", data.split_of(sample)):
            by_picture[sample.picture].append(sample)
    if not by_picture:
        raise ValueError(f"There are no captions in the split {split}.")
    chosen = dice.sample(sorted(by_picture), min(pictures, len(by_picture)))
    out.mkdir(parents=True, exist_ok=True)
    lines = []
    for path in tqdm(chosen, unit="picture", disable=None, file=sys.stderr):
        for system, boxes, drawn in _memes(path, dice.choice(by_picture[path]), captioners, dice.getrandbits(32)):
            name = f"{dice.getrandbits(64):016x}.jpg"
            (out / name).write_bytes(drawn)
            lines.append({"file": name, "picture": path.stem, "system": system, "boxes": boxes})
    dice.shuffle(lines)
    (out / "captions.jsonl").write_text("".join(json.dumps(x, ensure_ascii=False) + "\n" for x in lines), "utf-8")
    return len(lines)


def _memes(
    path: Path, people: Sample, captioners: Sequence[Captioner], seed: int
) -> Iterator[tuple[str, tuple[str, ...], bytes]]:
    """Who wrote, what, and the drawn meme; all of one picture, with the words in the same places."""
    picture = captioners[0].opened(path)
    wish = Wish("meme", "sample", 1, seed) if people.style == "meme" else Wish("describe", "beam", 1, seed)
    made = [captioner.caption([(picture, wish)])[0] for captioner in captioners]
    template = made[0].template[0] if made[0].template else None
    written = [(PEOPLE, people.boxes)]
    written += [(each.model, each.captions[0].boxes) for each in made if each.captions]
    for system, boxes in written:
        drawn = captioners[0].draw(picture, boxes, template, mirrored=made[0].mirrored)
        yield system, boxes, to_jpeg(drawn)
