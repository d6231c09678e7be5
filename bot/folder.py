"""The folder of a database belongs to it alone: the pictures and models there that it does not know are swept."""

import os
from pathlib import Path

from bot.database import StoreError

NOTE = "belongs-to.txt"
"""The file that holds the name of the database which the folder belongs to."""


def check(database: Path) -> None:
    """Raises `StoreError` where the folder belongs to another database; OSError where that cannot be read."""
    owner = _owner(database.parent / NOTE)
    if owner not in ("", database.name):
        raise StoreError(
            f"The folder {database.parent} belongs to {owner}; give store.path a folder of its own. If {database.name} "
            f"is that database under a new name, remove {database.parent / NOTE}."
        )


def claim(database: Path) -> None:
    """Have the folder belong to this database from now on, where it belongs to none; raises as `check`, and OSError."""
    note = database.parent / NOTE
    if not _owner(note):
        _note(note, database.name)
    check(database)


def _owner(note: Path) -> str:
    return note.read_text("utf-8").strip() if note.exists() else ""


def _note(note: Path, name: str) -> None:
    """Write it beside its target and link it there, which of two that do so at once only the first one can."""
    draft = note.with_name(f"{name}.{NOTE}")
    with draft.open("w", encoding="utf-8") as file:
        file.write(f"{name}\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(draft, note)
        draft.unlink()
    except OSError:  # there is an empty one, or the file system has no links
        if _owner(note):
            draft.unlink()
        else:
            draft.replace(note)
