"""The buttons below a meme. Their ids say everything, so that they work after a restart as before."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import discord

from bot.events import MemeRecord

ID = re.compile(r"quip:(?P<what>another|pick|take|edit|words|why|delete):(?P<meme>[0-9a-f]{24})(?::(?P<number>\d))?")
LABELS = (
    ("another", "Another one", "🎲"),
    ("pick", "Pick", "🔢"),
    ("edit", "Edit", "✏️"),
    ("why", "Why?", "🔍"),
    ("delete", "Delete", "🗑️"),
)
MAX_INPUTS = 5
MAX_INPUT = 300


def below(meme: str) -> discord.ui.View:
    """The row of buttons of a meme."""
    return _view(
        discord.ui.Button(label=label, emoji=emoji, custom_id=f"quip:{what}:{meme}") for what, label, emoji in LABELS
    )


def choices(meme: MemeRecord) -> tuple[str, discord.ui.View]:
    """The captions to pick from, and a button for each."""
    texts = [" / ".join(box for box in candidate.boxes if box) for candidate in meme.candidates[:MAX_INPUTS]]
    lines = [f"{number}. {text[:300]}" for number, text in enumerate(texts, start=1)]
    view = _view(
        discord.ui.Button(label=str(place + 1), custom_id=f"quip:take:{meme.id}:{place}") for place in range(len(texts))
    )
    return "Which one?\n" + discord.utils.escape_markdown("\n".join(lines)), view


def form(meme: MemeRecord) -> discord.ui.Modal:
    """A dialogue with the meme's words to change."""
    modal = discord.ui.Modal(title="Your words", custom_id=f"quip:words:{meme.id}", timeout=None)
    boxes = ("", *meme.boxes) if len(meme.boxes) == 1 else meme.boxes[:MAX_INPUTS]
    for number, box in enumerate(boxes):
        label = ("Top", "Bottom")[number] if len(boxes) == 2 else f"Text {number + 1}"
        words: discord.ui.TextInput[Any] = discord.ui.TextInput(
            label=label, custom_id=str(number), default=box[:MAX_INPUT] or None, required=False, max_length=MAX_INPUT
        )
        modal.add_item(words)
    modal.stop()  # so that the library does not wait for it: answers are recognised by their id
    return modal


def written(data: Mapping[str, Any]) -> list[str]:
    """The texts that were sent with a dialogue, in their order."""
    values = {field["custom_id"]: field.get("value") or "" for field in _fields(data.get("components", ()))}
    return [values[key] for key in sorted(values)]


def _fields(components: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    for component in components:
        inner = component.get("components") or ([component["component"]] if "component" in component else [])
        if inner:
            yield from _fields(inner)
        elif "custom_id" in component:
            yield component


def _view(buttons: Iterator[discord.ui.Button[Any]]) -> discord.ui.View:
    view = discord.ui.View(timeout=None)
    for button in buttons:
        view.add_item(button)
    view.stop()  # so that the library does not keep it: presses are recognised by their id
    return view
