"""A collection on the disk, in ImgFlip575K's layout: what is collected is trained on as `imgflip575k=DIR`."""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from captioner.collect import layout
from captioner.collect.layout import Template
from captioner.collect.visitor import NotAllowedError, Page, VisitError, Visitor

_ENDINGS = {"image/jpeg": ".jpg", "image/png": ".png", "image/webp": ".webp"}


class Collection:
    """Captions by template. What a page gave is on the disk before the next one is asked for."""

    def __init__(self, folder: Path, visitor: Visitor) -> None:
        """Goes on where an earlier run into the folder stopped; begins anew where there was none."""
        self._root, self._visitor = folder / "dataset", visitor
        self._file = folder / "collected.json"
        self._state: dict[str, Any] = {"list": "", "templates": [], "pages": {}}
        if self._file.exists():
            self._state = json.loads(self._file.read_text("utf-8"))

    def collect(
        self,
        start: str,
        *,
        pattern: str = "",
        templates: int = 100,
        pages: int = 10,
        say: Callable[[str], None] = print,
    ) -> int:
        """Up to `pages` pages of captions of each of the first `templates` templates; how many captions are new.

        `start` is the address of a list of templates, see `layout.templates`. Templates whose pages cannot be had are
        told of and left out. Raises VisitError where the list cannot be had, or belongs to another collection.
        """
        if self._state["list"] not in ("", start):
            raise VisitError(f"The folder holds a collection of {self._state['list']}; take another one for {start}.")
        new = 0
        for template in tqdm(
            self._templates(start, pattern, templates), unit="template", disable=None, file=sys.stderr
        ):
            try:
                new += self._template(template, pages)
            except NotAllowedError as error:
                say(str(error))
            except VisitError as error:
                say(f"{template.title} is left out: {error}")
        return new

    def _templates(self, start: str, pattern: str, count: int) -> list[Template]:
        """The first so many of the list, which is read once and kept."""
        known = {row["slug"]: Template(**row) for row in self._state["templates"]}
        address = self._state.get("next", start)
        while len(known) < count and address:
            found, address = layout.templates(self._visitor.get(address), pattern)
            known = {template.slug: template for template in found} | known
            self._save(list=start, next=address, templates=[asdict(template) for template in known.values()])
        return list(known.values())[:count]

    def _template(self, template: Template, pages: int) -> int:
        """Pages of a template from where it stopped; how many captions are new."""
        progress = self._state["pages"].setdefault(template.slug, {"read": 0, "next": template.page})
        new = 0
        while progress["next"] and progress["read"] < pages:
            page = self._visitor.get(progress["next"])
            if progress["read"] == 0:
                self._picture(template, page)
            captions, following = layout.captions(page)
            new += self._add(template, captions)
            progress |= {"read": progress["read"] + 1, "next": following if captions else None}
            self._save()
        return new

    def _picture(self, template: Template, page: Page) -> None:
        """The template's picture and facts; raises VisitError where it is none."""
        address = template.picture or layout.picture(page)
        if not address:
            raise VisitError("there is no picture of it.")
        image = self._visitor.get(address)
        if image.content_type not in _ENDINGS:
            raise VisitError(f"{address} is no picture.")
        _write(self._root / "templates/img" / (template.slug + _ENDINGS[image.content_type]), image.body)
        facts = {"title": template.title, "template_url": address}
        _write(self._root / f"templates/{template.slug}.json", json.dumps(facts, ensure_ascii=False).encode())

    def _add(self, template: Template, captions: list[dict[str, Any]]) -> int:
        """Adds to the template's file what is not in it: pages shift while new captions are posted."""
        file = self._root / f"memes/{template.slug}.json"
        known = json.loads(file.read_text("utf-8")) if file.exists() else []
        ids = {caption["id"] for caption in known}
        new = [caption for caption in captions if caption["id"] not in ids]
        _write(file, json.dumps(known + new, ensure_ascii=False, indent=1).encode())
        return len(new)

    def _save(self, **changes: Any) -> None:
        self._state |= changes
        _write(self._file, json.dumps(self._state, ensure_ascii=False, indent=1).encode())


def _write(file: Path, data: bytes) -> None:
    """All or nothing."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(file.name + ".part")
    draft.write_bytes(data)
    draft.replace(file)
