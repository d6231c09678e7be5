"""What the captioner's commands do, once their options are known (captioner.__main__); each gives an exit status."""

import argparse
import dataclasses
import json
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tqdm import tqdm

from captioner.captioner import Captioned, Captioner, Wish, shipped
from captioner.checkpoint import Checkpoint
from captioner.images import ImageError, Limits, Picture, to_jpeg

_BATCH = 8
_MADE_HERE = b"a meme by Quipbot"
"""The comment in a meme's file, by which it is known again."""
_TOO_FEW = 3
"""The exit status of finetune and gate where there are too few labels yet."""


def caption(options: argparse.Namespace) -> int:
    if options.search == "greedy" and options.n > 1:
        raise ValueError("--search greedy writes one caption: --n takes sample or beam.")
    captioner = Captioner.load(
        options.model, device=options.device, threads=options.threads, proofreader=options.proofreader
    )
    wish = Wish(options.style, options.search, options.n, options.seed, options.context)
    found = {path: list(_pictures(path)) for path in options.paths}
    files = [file for path in options.paths for file in found[path]]
    if not files:
        raise ValueError(f"There are no pictures in {', '.join(map(str, options.paths))}.")
    for path in (path for path, inside in found.items() if not inside):
        print(f"There are no pictures in {path}.", file=sys.stderr)
    if options.folder:
        options.folder.mkdir(parents=True, exist_ok=True)
    taken = {file.resolve() for file in files}
    for start in tqdm(range(0, len(files), _BATCH), unit="batch", disable=None, file=sys.stderr):
        batch = [_read(captioner, file) for file in files[start : start + _BATCH]]
        made = iter(captioner.caption([(p, wish) for p in batch if isinstance(p, Picture)]))
        for file, picture in zip(files[start : start + _BATCH], batch, strict=True):
            line = _failed(file, picture, wish, captioner.name)
            if isinstance(picture, Picture):
                captioned = next(made)
                line = _line(file, captioned)
                if options.folder:
                    target = _free(options.folder, file.stem, taken)
                    target.write_bytes(to_jpeg(_drawn(captioner, picture, captioned), comment=_MADE_HERE))
                    print(f"wrote {_printable(target)}", file=sys.stderr)
            print(json.dumps(line, ensure_ascii=False) if options.json else _plain(line), flush=True)
    return 0


def _printable(file: Path) -> str:
    """A file's name as it can be printed: names need not be UTF-8."""
    return os.fsencode(file).decode("utf-8", "backslashreplace")


def _drawn(captioner: Captioner, picture: Picture, captioned: Captioned) -> Image.Image:
    template = captioned.template[0] if captioned.template else None
    return captioner.draw(picture, captioned.captions[0].boxes, template, mirrored=captioned.mirrored)


def _pictures(path: Path) -> Iterator[Path]:
    """The path itself, or what lies in the folder and is not hidden."""
    if path.is_dir():
        yield from sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
    else:
        yield path


def _read(captioner: Captioner, file: Path) -> Picture | str:
    """The picture, or the sentence that says why it is none."""
    try:
        if file.stat().st_size > Limits().max_bytes:
            return f"It is larger than {Limits().max_bytes // 1_000_000} MB."
        return captioner.read(file.read_bytes())
    except ImageError as error:
        return str(error)
    except OSError as error:
        return f"It cannot be read: {error.strerror}."


def _line(file: Path, captioned: Captioned) -> dict[str, Any]:
    template = captioned.template
    return {
        "image": _printable(file),
        "template": {"name": template[0], "confidence": template[1]} if template else None,
        "description": captioned.description,
        "captions": [dataclasses.asdict(c) for c in captioned.captions],
        "seed": captioned.seed,
        "model": captioned.model,
        "error": None,
    }


def _failed(file: Path, why: object, wish: Wish, model: str) -> dict[str, Any]:
    empty: dict[str, Any] = {"template": None, "description": None, "captions": []}
    return {"image": _printable(file), **empty, "seed": wish.seed, "model": model, "error": str(why)}


def _plain(line: dict[str, Any]) -> str:
    if line["error"]:
        return f"{line['image']}: {line['error']}"
    captions = [" | ".join(c["boxes"]).upper() for c in line["captions"]]
    return f"{line['image']}: {line['description']}\n  " + "\n  ".join(captions)


def _free(folder: Path, stem: str, taken: set[Path]) -> Path:
    """A name in the folder that no picture and no other meme of this run has; only memes of earlier runs give way."""
    names = (folder / f"{stem}{f'-{i}' if i > 1 else ''}.jpg" for i in count(1))
    target = next(n for n in names if n.resolve() not in taken and (not os.path.lexists(n) or _is_meme(n)))
    taken.add(target.resolve())
    return target


def _is_meme(file: Path) -> bool:
    """Whether this command has written the file."""
    try:
        with Image.open(file) as image:
            return image.info.get("comment") == _MADE_HERE
    except (OSError, ValueError):
        return False


def explain(options: argparse.Namespace) -> int:
    captioner = Captioner.load(options.model, device=options.device, threads=options.threads)
    picture = _read(captioner, options.image)
    if isinstance(picture, str):
        raise ValueError(f"{options.image}: {picture}")
    if options.file.resolve() == options.image.resolve():
        raise ValueError(f"{options.file} is the picture itself; -o takes another name.")
    wish = Wish(options.style, "sample" if options.style == "meme" else "beam", 1, options.seed)
    caption = captioner.caption([(picture, wish)])[0].captions[0]
    options.file.write_bytes(captioner.explain(picture, caption.boxes, options.style))
    print(f"{' | '.join(caption.boxes)}: wrote {options.file}")
    return 0


def _sets(options: argparse.Namespace) -> dict[str, Path]:
    """The data sets' folders by name. Raises ValueError for a name that is given twice."""
    names = [name for name, _ in options.data]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{name} is named twice: --data takes one folder of a name.")
    return {name: Path(folder) for name, folder in options.data}


def train(options: argparse.Namespace) -> int:
    from captioner.train import train

    sets = _sets(options)
    train(sets, options.out, _recipe(options), options.decoder, {key for key, _ in options.recipe})
    print(f"Wrote {options.out}")
    return 0


def distil(options: argparse.Namespace) -> int:
    from captioner.distil import described_by, distil

    sets = _sets(options)
    if options.teacher:
        count = described_by(options.teacher, sets, options.out, _recipe(options))
    else:
        asked = {key for key, _ in options.recipe}
        count = distil(sets, options.out, _recipe(options), options.decoder, options.parts, asked)
    print(f"Wrote {count} captions to {options.out}")
    return 0


def merge(options: argparse.Namespace) -> int:
    from captioner.merge import merged

    try:
        shares = [float(share) for _, share in options.parts]
    except ValueError:
        raise ValueError("A share is a number: FILE=0.5.") from None
    files = [Path(file) for file, _ in options.parts]
    made = merged([(Checkpoint.load(file), share) for file, share in zip(files, shares, strict=True)])
    made.name = options.out.stem
    made.save(options.out, compact=options.compact)
    print(f"Wrote {options.out}")
    return 0


def _recipe(options: argparse.Namespace) -> Any:
    from captioner.recipe import RECIPES, filled

    if options.base not in RECIPES:
        raise ValueError(f"There is no recipe {options.base}; known are {', '.join(RECIPES)}.")
    return filled(RECIPES[options.base], options.recipe)


def finetune(options: argparse.Namespace) -> int:
    from captioner.finetune import Recipe, enough, finetune
    from captioner.labels import TooFewLabelsError, read, split
    from captioner.recipe import filled, run_folder

    _set_threads(options.threads)
    sets, recipe = _sets(options), filled(Recipe(), options.recipe)
    run_folder(options.out, sets.values())  # before anything is read
    labels = read(options.labels)
    try:
        enough(labels, recipe)
        checkpoint = Checkpoint.load(options.model or shipped())
        figures = finetune(checkpoint, split(labels)[0], options.out, recipe, sets)
    except TooFewLabelsError as error:
        print(error, file=sys.stderr)
        return _TOO_FEW
    print(json.dumps(figures))
    return 0


def gate(options: argparse.Namespace) -> int:
    from captioner.gate import Rules, gate
    from captioner.labels import TooFewLabelsError, read
    from captioner.recipe import filled

    _set_threads(options.threads)
    sets = _sets(options)
    rules = filled(Rules(), options.recipe)
    try:
        verdict = gate(options.model or shipped(), options.candidate, read(options.labels), sets, rules)
    except TooFewLabelsError as error:
        print(error, file=sys.stderr)
        return _TOO_FEW
    if options.json:
        print(json.dumps(verdict))
        return 0
    print("Promote." if verdict["promote"] else "Keep the old model.")
    for reason in verdict["reasons"]:
        print(f"  {'holds' if reason['holds'] else 'FAILS'}  {reason['sentence']}")
    return 0


def _set_threads(threads: int) -> None:
    torch.set_num_threads(threads or 1)


def evaluate(options: argparse.Namespace) -> int:
    from captioner.evaluate import evaluate, table

    sets = _sets(options)
    captioner = Captioner.load(options.model, device=options.device, threads=options.threads)
    figures = evaluate(captioner, sets, options.split, options.by)
    print(json.dumps(figures) if options.json else table(figures))
    return 0


def bench(options: argparse.Namespace) -> int:
    from captioner.bench import FIRST, bench

    if not 0 < options.minutes < math.inf:
        raise ValueError("--minutes takes a number above 0.")
    sets = _sets(options)
    changes = {"seed": options.seed, "encoder": options.encoder, "device": options.device}
    changes["recipe"] = tuple(options.recipe)
    bench(sets, options.systems or FIRST, options.minutes, options.out, changes)
    return 0


def audit(options: argparse.Namespace) -> int:
    from captioner.audit import as_json, audit, table

    sets, captioner = _sets(options), None
    if options.model:
        captioner = Captioner.load(options.model, device=options.device, threads=options.threads)
    tallies = audit(sets, captioner)
    print(json.dumps(as_json(tallies)) if options.json else table(tallies))
    return 0


def project(options: argparse.Namespace) -> int:
    with _extra("project"):
        from captioner.project import project, table

        if options.method == "umap":
            import_module("umap")
    sets = _sets(options)
    print(table(project(sets, options.folder, options.method, options.categories, options.seed)))
    print(f"Wrote {options.folder / 'projection.html'}")
    return 0


def rating(options: argparse.Namespace) -> int:
    from captioner.rating import lay_out

    sets = _sets(options)
    captioners = [Captioner.load(model, device=options.device) for model in options.model or [None]]
    count = lay_out(sets, captioners, options.folder, pictures=options.pictures, split=options.split, seed=options.seed)
    print(f"Wrote {count} memes into {options.folder}; serve them with rate.folder={options.folder}")
    return 0


def collect(options: argparse.Namespace) -> int:
    with _extra("collect"):
        from captioner.collect import Collection, Visitor
    with Visitor(options.contact, pause=options.pause) as visitor:
        collection = Collection(options.folder, visitor)
        new = collection.collect(
            options.start, pattern=options.captions, templates=options.templates, pages=options.pages
        )
    print(f"{new} new captions in {options.folder}; train on them with --data imgflip575k={options.folder}")
    return 0


@contextmanager
def _extra(name: str) -> Iterator[None]:
    """A command's imports that come with an extra; raises ValueError that names it where it is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ValueError(f"This needs {error.name}: in the project's folder, pip install -e '.[{name}]'.") from error
