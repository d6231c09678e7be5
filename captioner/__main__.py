"""The captioner's commands; `python -m captioner COMMAND --help` tells the options of each."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from captioner.captioner import Captioned, Captioner, Wish
from captioner.checkpoint import CheckpointError
from captioner.images import ImageError, Limits, Picture, to_jpeg

_BATCH = 8


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status: 0, or 2 with a sentence on stderr for what cannot be done."""
    options = arguments().parse_args(argv)
    try:
        status: int = options.run(options)
    except (ValueError, OSError, CheckpointError) as error:
        print(error, file=sys.stderr)
        return 2
    return status


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m captioner", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_caption(commands)
    _add_explain(commands)
    _add_train(commands)
    _add_evaluate(commands)
    _add_audit(commands)
    return parser


def _add_caption(commands: Any) -> None:
    parser = commands.add_parser("caption", help="caption pictures")
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="a picture, or a folder of pictures")
    parser.add_argument("-o", dest="folder", type=Path, metavar="DIR", help="draw the memes into this folder")
    parser.add_argument("--json", action="store_true", help="one line of JSON a picture")
    parser.add_argument("--style", choices=("meme", "describe"), default="meme")
    parser.add_argument("--search", choices=("sample", "beam", "greedy"), default="sample")
    parser.add_argument("--n", type=_count, default=1, help="how many captions come back, best first")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--context", default="", metavar="TEXT", help="words that captions may take up")
    _add_model(parser)
    parser.set_defaults(run=_caption)


def _add_model(parser: Any) -> None:
    parser.add_argument("--model", type=Path, metavar="FILE", help="a checkpoint instead of the shipped one")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto")
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0 for half of the cores")


def _caption(options: argparse.Namespace) -> int:
    captioner = Captioner.load(options.model, device=options.device, threads=options.threads)
    wish = Wish(options.style, options.search, options.n, options.seed, options.context)
    files = [file for path in options.paths for file in _pictures(path)]
    if not files:
        raise ValueError(f"There are no pictures in {', '.join(map(str, options.paths))}.")
    if options.folder:
        options.folder.mkdir(parents=True, exist_ok=True)
    taken = {file.resolve() for file in files}  # a meme never overwrites its picture
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
                    target.write_bytes(to_jpeg(_drawn(captioner, picture, captioned)))
            print(json.dumps(line, ensure_ascii=False) if options.json else _plain(line), flush=True)
    return 0


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
            return f"{file.name} is larger than {Limits().max_bytes // 1_000_000} MB."
        return captioner.read(file.read_bytes())
    except ImageError as error:
        return str(error)
    except OSError as error:
        return f"{file} cannot be read: {error.strerror}."


def _line(file: Path, captioned: Captioned) -> dict[str, Any]:
    template = captioned.template
    return {
        "image": str(file),
        "template": {"name": template[0], "confidence": template[1]} if template else None,
        "description": captioned.description,
        "captions": [dataclasses.asdict(c) for c in captioned.captions],
        "seed": captioned.seed,
        "model": captioned.model,
        "error": None,
    }


def _failed(file: Path, why: object, wish: Wish, model: str) -> dict[str, Any]:
    empty: dict[str, Any] = {"template": None, "description": None, "captions": []}
    return {"image": str(file), **empty, "seed": wish.seed, "model": model, "error": str(why)}


def _plain(line: dict[str, Any]) -> str:
    if line["error"]:
        return f"{line['image']}: {line['error']}"
    captions = [" | ".join(c["boxes"]).upper() for c in line["captions"]]
    return f"{line['image']}: {line['description']}\n  " + "\n  ".join(captions)


def _free(folder: Path, stem: str, taken: set[Path]) -> Path:
    """A name in the folder that no picture and no other meme of this run has."""
    names = (folder / f"{stem}{f'-{i}' if i > 1 else ''}.jpg" for i in range(1, len(taken) + 2))
    target = next(name for name in names if name.resolve() not in taken)
    taken.add(target.resolve())
    return target


def _add_explain(commands: Any) -> None:
    parser = commands.add_parser("explain", help="a caption's words over the attention they paid to the picture")
    parser.add_argument("image", type=Path, metavar="IMAGE")
    parser.add_argument("-o", dest="file", required=True, type=Path, metavar="FILE", help="the PNG to write")
    parser.add_argument("--style", choices=("meme", "describe"), default="describe")
    parser.add_argument("--seed", type=int, default=0)
    _add_model(parser)
    parser.set_defaults(run=_explain)


def _explain(options: argparse.Namespace) -> int:
    captioner = Captioner.load(options.model, device=options.device, threads=options.threads)
    picture = captioner.read(options.image.read_bytes())
    wish = Wish(options.style, "sample" if options.style == "meme" else "beam", 1, options.seed)
    caption = captioner.caption([(picture, wish)])[0].captions[0]
    options.file.write_bytes(captioner.explain(picture, caption.boxes, options.style))
    print(f"{' | '.join(caption.boxes)}: wrote {options.file}")
    return 0


def _count(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 50:
        raise argparse.ArgumentTypeError("--n takes a number from 1 to 50")
    return int(text)


def _add_data(parser: Any) -> None:
    parser.add_argument(
        "--data", action="append", required=True, type=_pair, metavar="NAME=DIR", help="a data set; may be repeated"
    )


def _add_train(commands: Any) -> None:
    parser = commands.add_parser("train", help="train a model")
    _add_data(parser)
    parser.add_argument("--decoder", default="attention_gru", metavar="NAME")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="the checkpoint, .safetensors")
    parser.add_argument("recipe", nargs="*", type=_pair, metavar="key=value", help="changes to the recipe")
    parser.set_defaults(run=_train)


def _train(options: argparse.Namespace) -> int:
    from captioner.train import Recipe, train

    sets = {name: Path(folder) for name, folder in options.data}
    train(sets, options.out, _filled(Recipe(), options.recipe), options.decoder)
    print(f"Wrote {options.out}")
    return 0


def _add_evaluate(commands: Any) -> None:
    parser = commands.add_parser("evaluate", help="measure a model on captions")
    _add_data(parser)
    parser.add_argument("--split", choices=("train", "dev", "test", "all"), required=True)
    parser.add_argument(
        "--by", choices=("caption", "template", "picture"), default="caption", help="what the sets are split by"
    )
    parser.add_argument("--json", action="store_true", help="one object instead of a table")
    _add_model(parser)
    parser.set_defaults(run=_evaluate)


def _evaluate(options: argparse.Namespace) -> int:
    from captioner.evaluate import evaluate, table

    captioner = Captioner.load(options.model, device=options.device, threads=options.threads)
    figures = evaluate(captioner, {name: Path(folder) for name, folder in options.data}, options.split, options.by)
    print(json.dumps(figures) if options.json else table(figures))
    return 0


def _add_audit(commands: Any) -> None:
    parser = commands.add_parser("audit", help="count what groups of people captions speak of, and how")
    _add_data(parser)
    parser.add_argument("--json", action="store_true", help="one object instead of a table")
    _add_model(parser)
    parser.set_defaults(run=_audit)


def _audit(options: argparse.Namespace) -> int:
    from captioner.audit import as_json, audit, table

    captioner = None
    if options.model:
        captioner = Captioner.load(options.model, device=options.device, threads=options.threads)
    tallies = audit({name: Path(folder) for name, folder in options.data}, captioner)
    print(json.dumps(as_json(tallies)) if options.json else table(tallies))
    return 0


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name or not value:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def _filled(recipe: Any, changes: list[tuple[str, str]]) -> Any:
    """The dataclass with `key=value` changes, each of its field's type; ValueError names what does not fit."""
    kinds = {f.name: type(getattr(recipe, f.name)) for f in dataclasses.fields(recipe)}
    values = {}
    for key, value in changes:
        if key not in kinds:
            raise ValueError(f"There is no recipe setting {key}; known are {', '.join(kinds)}.")
        try:
            values[key] = kinds[key](value)
        except ValueError:
            raise ValueError(f"{key} takes a number, not {value!r}.") from None
    return dataclasses.replace(recipe, **values)


if __name__ == "__main__":
    sys.exit(main())
