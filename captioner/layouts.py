"""Where the boxes of a known template's caption lie (`layouts.toml`)."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal

Ink = Literal["light", "dark"]
Fractions = tuple[float, float, float, float]
"""Left, top, right, bottom as shares of a picture's width and height."""


@dataclass(frozen=True, slots=True)
class Box:
    """Where one text goes, and the ink that stands out there: `light` has a dark outline, `dark` a light one."""

    at: Fractions
    ink: Ink = "light"

    def mirrored(self) -> "Box":
        left, top, right, bottom = self.at
        return Box((1 - right, top, 1 - left, bottom), self.ink)


Layout = tuple[Box, ...]
"""The boxes of a caption, in its order."""


def layout_for(template: str, boxes: int, *, mirrored: bool = False) -> Layout | None:
    """Where a caption of `boxes` texts goes on a picture of `template`; None where nothing better is known than top
    and bottom. `mirrored` where left and right are swapped on the picture.
    """
    layout = shipped().get(template, {}).get(boxes)
    if layout is None or not mirrored:
        return layout
    return tuple(box.mirrored() for box in layout)


def most_boxes(template: str, otherwise: int) -> int:
    """How many boxes the largest layout of a template has, and at least so many as there are `otherwise`."""
    return max(otherwise, *shipped().get(template, {0: ()}))


@cache
def shipped() -> Mapping[str, Mapping[int, Layout]]:
    """The layouts of `layouts.toml`: template → number of boxes → layout."""
    text = resources.files("captioner").joinpath("layouts.toml").read_text("utf-8")
    return parsed(tomllib.loads(text))


def parsed(tables: Mapping[str, Any]) -> dict[str, dict[int, Layout]]:
    """Raises ValueError, naming the template, for what is no layout."""
    result: dict[str, dict[int, Layout]] = {}
    for name, layouts in tables.items():
        result[name] = {}
        for table in layouts:
            layout = tuple(_box(name, entry) for entry in table["boxes"])
            if len(layout) in result[name]:
                raise ValueError(f"The template {name} has two layouts of {len(layout)} boxes.")
            result[name][len(layout)] = layout
    return result


def _box(name: str, entry: Mapping[str, Any]) -> Box:
    left, top, right, bottom = (float(percent) / 100 for percent in entry["at"])
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise ValueError(f"A box of the template {name} does not lie on the picture: {entry['at']}.")
    if entry["ink"] not in ("light", "dark"):
        raise ValueError(f"A box of the template {name} has an ink that is neither light nor dark.")
    return Box((left, top, right, bottom), entry["ink"])
