"""The captioner's commands; `python -m captioner COMMAND --help` tells the options of each."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from captioner.captioner import Captioned, Captioner, Wish, shipped
from captioner.checkpoint import Checkpoint, CheckpointError
from captioner.images import ImageError, Limits, Picture, to_jpeg

_BATCH = 8
_TOO_FEW = 3
"""The exit status of finetune and gate where there are too few labels yet."""


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status: 0, or 2 with a sentence on stderr for what cannot be done."""
    options = arguments().parse_args(argv)
    try:
        status: int = options.run(options)
    except OSError as error:
        print(f"{error.filename}: {error.strerror}." if error.filename else error, file=sys.stderr)
        return 2
    except (ValueError, CheckpointError) as error:
        print(error, file=sys.stderr)
        return 2
    return status


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m captioner", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_caption(commands)
    _add_explain(commands)
    _add_train(commands)
    _add_distil(commands)
    _add_finetune(commands)
    _add_gate(commands)
    _add_evaluate(commands)
    _add_bench(commands)
    _add_audit(commands)
    _add_project(commands)
    _add_rating(commands)
    _add_collect(commands)
    return parser


def _add_caption(commands: Any) -> None:
    parser = commands.add_parser("caption", help="caption pictures")
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="a picture, or a folder of pictures")
    parser.add_argument(
        "-o", dest="folder", type=Path, metavar="DIR", help="draw the memes into this folder, as stills"
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON a picture")
    parser.add_argument("--style", choices=("meme", "describe"), default="meme")
    parser.add_argument("--search", choices=("sample", "beam", "greedy"), default="sample")
    parser.add_argument("--n", type=_count, default=1, help="how many captions come back, best first")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--context", default="", metavar="TEXT", help="words that captions may take up")
    parser.add_argument("--proofreader", default="", metavar="NAME", help="a language model that helps to choose")
    _add_model(parser)
    parser.set_defaults(run=_caption)


def _add_model(parser: Any) -> None:
    parser.add_argument("--model", type=Path, metavar="FILE", help="a checkpoint instead of the shipped one")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto")
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0 for half of the cores")


def _caption(options: argparse.Namespace) -> int:
    captioner = Captioner.load(
        options.model, device=options.device, threads=options.threads, proofreader=options.proofreader
    )
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
                    print(f"wrote {target}", file=sys.stderr)
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
            return f"It is larger than {Limits().max_bytes // 1_000_000} MB."
        return captioner.read(file.read_bytes())
    except ImageError as error:
        return str(error)
    except OSError as error:
        return f"It cannot be read: {error.strerror}."


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
    picture = _read(captioner, options.image)
    if isinstance(picture, str):
        raise ValueError(f"{options.image}: {picture}")
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
    parser.add_argument("--recipe", dest="base", default="small", metavar="small|large|describe", help="what to change")
    parser.add_argument("recipe", nargs="*", type=_pair, metavar="key=value", help="changes to the recipe")
    parser.set_defaults(run=_train)


def _train(options: argparse.Namespace) -> int:
    from captioner.train import train

    sets = {name: Path(folder) for name, folder in options.data}
    train(sets, options.out, _recipe(options), options.decoder)
    print(f"Wrote {options.out}")
    return 0


def _recipe(options: argparse.Namespace) -> Any:
    from captioner.recipe import RECIPES, filled

    if options.base not in RECIPES:
        raise ValueError(f"There is no recipe {options.base}; known are {', '.join(RECIPES)}.")
    return filled(RECIPES[options.base], options.recipe)


def _add_distil(commands: Any) -> None:
    parser = commands.add_parser("distil", help="let teachers describe photographs they did not learn from")
    _add_data(parser)
    parser.add_argument("--decoder", default="attention_gru", metavar="NAME")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="their captions, JSON: taught=FILE")
    parser.add_argument("--parts", type=int, default=3, metavar="N", help="of the photographs, a teacher each")
    parser.add_argument("--recipe", dest="base", default="describe", metavar="small|large|describe")
    parser.add_argument("recipe", nargs="*", type=_pair, metavar="key=value", help="changes to the recipe")
    parser.set_defaults(run=_distil)


def _distil(options: argparse.Namespace) -> int:
    from captioner.distil import distil

    sets = {name: Path(folder) for name, folder in options.data}
    count = distil(sets, options.out, _recipe(options), options.decoder, options.parts)
    print(f"Wrote {count} captions to {options.out}")
    return 0


def _add_learning(parser: Any) -> None:
    """What finetune and gate have in common."""
    parser.add_argument(
        "--labels", required=True, type=Path, metavar="FILE", help="votes, as export-labels writes them"
    )
    parser.add_argument(
        "--data", action="append", default=[], type=_pair, metavar="NAME=DIR", help="public captions to hold on to"
    )
    parser.add_argument("recipe", nargs="*", type=_pair, metavar="key=value", help="changes to the recipe")
    parser.add_argument("--model", type=Path, metavar="FILE", help="a checkpoint instead of the shipped one")
    parser.add_argument("--threads", type=int, default=1, help="of torch; a GPU, where there is one, is left alone")


def _add_finetune(commands: Any) -> None:
    parser = commands.add_parser("finetune", help="let a model learn from votes; exits 3 where there are too few")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="the checkpoint, .safetensors")
    _add_learning(parser)
    parser.set_defaults(run=_finetune)


def _finetune(options: argparse.Namespace) -> int:
    from captioner.finetune import Recipe, enough, finetune
    from captioner.labels import TooFewLabelsError, read, split
    from captioner.recipe import filled

    _set_threads(options.threads)
    recipe, labels = filled(Recipe(), options.recipe), read(options.labels)
    sets = {name: Path(folder) for name, folder in options.data}
    try:
        enough(labels, recipe)
        checkpoint = Checkpoint.load(options.model or shipped())
        figures = finetune(checkpoint, split(labels)[0], options.out, recipe, sets)
    except TooFewLabelsError as error:
        print(error, file=sys.stderr)
        return _TOO_FEW
    print(json.dumps(figures))
    return 0


def _add_gate(commands: Any) -> None:
    parser = commands.add_parser(
        "gate", help="judge by held-out votes whether a candidate may take a model's place; exits 3 for too few"
    )
    parser.add_argument("--candidate", required=True, type=Path, metavar="FILE", help="the checkpoint to judge")
    parser.add_argument("--json", action="store_true", help="one object instead of sentences")
    _add_learning(parser)
    parser.set_defaults(run=_gate)


def _gate(options: argparse.Namespace) -> int:
    from captioner.gate import Rules, gate
    from captioner.labels import TooFewLabelsError, read
    from captioner.recipe import filled

    _set_threads(options.threads)
    sets = {name: Path(folder) for name, folder in options.data}
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
    import torch

    torch.set_num_threads(threads or 1)


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


def _add_bench(commands: Any) -> None:
    parser = commands.add_parser("bench", help="train and measure the systems of the literature, one table")
    _add_data(parser)
    parser.add_argument("--systems", nargs="+", metavar="NAME", help="by default those that the table is about")
    parser.add_argument("--minutes", required=True, type=float, metavar="N", help="of training, for each system")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"), metavar="DIR", help="where all of it is kept")
    parser.add_argument("--encoder", default="", metavar="NAME", help="one for all instead of each system's own")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="to train on")
    parser.add_argument(
        "--recipe", nargs="+", default=[], type=_pair, metavar="key=value", help="changes to every system's recipe"
    )
    parser.set_defaults(run=_bench)


def _bench(options: argparse.Namespace) -> int:
    from captioner.bench import FIRST, bench

    if options.minutes <= 0:
        raise ValueError("--minutes takes a number above 0.")
    sets = {name: Path(folder) for name, folder in options.data}
    changes = {"seed": options.seed, "encoder": options.encoder, "device": options.device}
    changes["recipe"] = tuple(options.recipe)
    bench(sets, options.systems or FIRST, options.minutes, options.out, changes)
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


def _add_project(commands: Any) -> None:
    parser = commands.add_parser("project", help="show a data set's pictures and texts by category, in 2-D and 3-D")
    _add_data(parser)
    parser.add_argument("--method", choices=("pca", "umap"), default="pca")
    parser.add_argument("--categories", type=int, default=10, metavar="N", help="how many, the most frequent first")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", dest="folder", required=True, type=Path, metavar="DIR", help="for the PNGs and the page")
    parser.set_defaults(run=_project)


def _project(options: argparse.Namespace) -> int:
    with _extra("project"):
        from captioner.project import project, table

        if options.method == "umap":
            import_module("umap")
    sets = {name: Path(folder) for name, folder in options.data}
    print(table(project(sets, options.folder, options.method, options.categories, options.seed)))
    print(f"Wrote {options.folder / 'projection.html'}")
    return 0


def _add_rating(commands: Any) -> None:
    parser = commands.add_parser("rating", help="lay out memes by people and by models for the blind rating page")
    _add_data(parser)
    parser.add_argument("--model", action="append", type=Path, metavar="FILE", help="may be repeated; else the shipped")
    parser.add_argument("--split", choices=("train", "dev", "test", "all"), default="dev", help="of people's captions")
    parser.add_argument("--pictures", type=int, default=50, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", dest="folder", required=True, type=Path, metavar="DIR", help="the folder to rate")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto")
    parser.set_defaults(run=_rating)


def _rating(options: argparse.Namespace) -> int:
    from captioner.rating import lay_out

    captioners = [Captioner.load(model, device=options.device) for model in options.model or [None]]
    sets = {name: Path(folder) for name, folder in options.data}
    count = lay_out(sets, captioners, options.folder, pictures=options.pictures, split=options.split, seed=options.seed)
    print(f"Wrote {count} memes into {options.folder}; serve them with rate.folder={options.folder}")
    return 0


def _add_collect(commands: Any) -> None:
    parser = commands.add_parser("collect", help="collect captions with votes from a site, as imgflip575k reads them")
    parser.add_argument("start", metavar="URL", help="a list of templates, a page or JSON")
    parser.add_argument("-o", dest="folder", required=True, type=Path, metavar="DIR", help="goes on where it stopped")
    parser.add_argument(
        "--captions", default="", metavar="URL", help="of a JSON list: pages of captions by {id}, {name}"
    )
    parser.add_argument("--templates", type=int, default=100, metavar="N")
    parser.add_argument("--pages", type=int, default=10, metavar="N", help="pages of captions of each template")
    parser.add_argument("--pause", type=float, default=2.0, metavar="SECONDS", help="between two requests, at least")
    parser.add_argument("--contact", default="", metavar="TEXT", help="how the site's people reach you")
    parser.set_defaults(run=_collect)


def _collect(options: argparse.Namespace) -> int:
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


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name or not value:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


if __name__ == "__main__":
    sys.exit(main())
