"""The folder of memes to rate: drawn pictures, and `captions.jsonl` that says who wrote each.

    {"file": "3fa9.jpg", "picture": "boat-cat", "system": "people", "boxes": ["i should buy", "a boat"]}

Memes of one `picture` are shown side by side. The system `people` stands for captions that people wrote; any other
name is a program's. `python -m captioner rating` writes such a folder.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bot.events import NotFound

PEOPLE = "people"
_KINDS = {".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png", ".webp": "image/webp", ".gif": "image/gif"}


class SheetError(Exception):
    """The folder cannot be rated; `str(error)` is a sentence."""


@dataclass(frozen=True, slots=True)
class Item:
    """A meme to rate. Its `id`, the only name that raters are told, says nothing of who wrote it."""

    id: str
    file: Path
    picture: str
    system: str
    boxes: tuple[str, ...]

    @property
    def content_type(self) -> str:
        return _KINDS[self.file.suffix.lower()]


class Sheet:
    """The memes of a folder, by their ids."""

    def __init__(self, folder: Path) -> None:
        """Raises `SheetError` for a folder that cannot be rated."""
        file = folder / "captions.jsonl"
        try:
            lines = file.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise SheetError(f"The memes to rate cannot be read: {file} ({error}).") from error
        items = [_item(folder, line, f"{file}, line {i}") for i, line in enumerate(lines, 1) if line.strip()]
        if not items:
            raise SheetError(f"There are no memes to rate in {file}.")
        self.items = {item.id: item for item in items}
        if len(self.items) < len(items):
            raise SheetError(f"A meme is named twice for the same system in {file}.")

    def item(self, meme: str) -> Item:
        """Raises `NotFound`."""
        if meme not in self.items:
            raise NotFound("There is no such meme to rate.")
        return self.items[meme]

    def pairs(self) -> list[tuple[str, str]]:
        """Every two memes of one picture by different systems."""
        ordered = sorted(self.items.values(), key=lambda item: item.id)
        by_picture: dict[str, list[Item]] = {}
        for item in ordered:
            by_picture.setdefault(item.picture, []).append(item)
        return [
            (one.id, other.id)
            for members in by_picture.values()
            for place, one in enumerate(members)
            for other in members[place + 1 :]
            if one.system != other.system
        ]


def _item(folder: Path, line: str, where: str) -> Item:
    try:
        value: Any = json.loads(line)
    except ValueError:
        raise SheetError(f"{where} is no JSON.") from None
    texts = [value.get(key) for key in ("file", "picture", "system")] if isinstance(value, dict) else []
    boxes = value.get("boxes") if isinstance(value, dict) else None
    if not texts or not all(isinstance(text, str) and text for text in texts):
        raise SheetError(f"{where}: a meme needs file, picture and system.")
    if not isinstance(boxes, list) or not all(isinstance(box, str) for box in boxes):
        raise SheetError(f"{where}: boxes must be a list of texts.")
    name, picture, system = map(str, texts)
    file = folder / name
    if file.suffix.lower() not in _KINDS or not file.is_file() or not file.resolve().is_relative_to(folder.resolve()):
        raise SheetError(f"{where}: there is no picture {name} in {folder}.")
    # The same every time, so that votes outlive a restart; no rater can tell the system from it without the list.
    key = hashlib.blake2b(json.dumps([name, picture, system]).encode(), digest_size=9).hexdigest()
    return Item(key, file, picture, system, tuple(boxes))
