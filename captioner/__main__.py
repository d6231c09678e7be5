"""The captioner's commands; `python -m captioner COMMAND --help` tells the options of each."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

_INTERRUPTED = 130
"""What shells tell of a command that was ended by Ctrl-C."""


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status: 0, 2 with a sentence on stderr for what cannot be done, 130 for what was interrupted."""
    options = arguments().parse_args(argv)
    commands = import_module("captioner.commands")  # which takes seconds to import: torch
    try:
        status: int = getattr(commands, options.run)(options)
    except OSError as error:
        print(f"{error.filename}: {error.strerror}." if error.filename else error, file=sys.stderr)
        return 2
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nStopped. What resumes goes on when the command is given again.", file=sys.stderr)
        return _INTERRUPTED
    return status


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m captioner", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_caption(commands)
    _add_explain(commands)
    _add_train(commands)
    _add_distil(commands)
    _add_merge(commands)
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
    parser.set_defaults(run="caption")


def _add_explain(commands: Any) -> None:
    parser = commands.add_parser("explain", help="a caption's words over the attention they paid to the picture")
    parser.add_argument("image", type=Path, metavar="IMAGE")
    parser.add_argument("-o", dest="file", required=True, type=Path, metavar="FILE", help="the PNG to write")
    parser.add_argument("--style", choices=("meme", "describe"), default="describe")
    parser.add_argument("--seed", type=int, default=0)
    _add_model(parser)
    parser.set_defaults(run="explain")


def _add_train(commands: Any) -> None:
    parser = commands.add_parser("train", help="train a model")
    _add_data(parser)
    parser.add_argument(
        "--decoder", default="", metavar="NAME", help="by default attention_gru, or that of the checkpoint of start="
    )
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="the checkpoint, .safetensors")
    parser.add_argument("--recipe", dest="base", default="small", metavar="small|large|describe", help="what to change")
    parser.add_argument("recipe", nargs="*", type=_pair, metavar="key=value", help="changes to the recipe")
    parser.set_defaults(run="train")


def _add_distil(commands: Any) -> None:
    parser = commands.add_parser("distil", help="let teachers describe photographs, for others to learn from")
    _add_data(parser)
    parser.add_argument("--decoder", default="attention_gru", metavar="NAME")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="their captions, JSON: taught=FILE")
    parser.add_argument("--parts", type=_natural, default=3, metavar="N", help="of the photographs, a teacher each")
    parser.add_argument(
        "--teacher", action="append", type=Path, metavar="FILE", help="a trained one instead; several write together"
    )
    parser.add_argument("--recipe", dest="base", default="describe", metavar="small|large|describe")
    parser.add_argument("recipe", nargs="*", type=_pair, metavar="key=value", help="changes to the recipe")
    parser.set_defaults(run="distil")


def _add_merge(commands: Any) -> None:
    parser = commands.add_parser("merge", help="average models that went on from one; the first lends all but weights")
    parser.add_argument("parts", nargs="+", type=_pair, metavar="FILE=SHARE", help="checkpoints; shares sum to 1")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="the checkpoint, .safetensors")
    parser.add_argument("--compact", action="store_true", help="keep large matrices in 8 bits")
    parser.set_defaults(run="merge")


def _add_finetune(commands: Any) -> None:
    parser = commands.add_parser("finetune", help="let a model learn from votes; exits 3 where there are too few")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="the checkpoint, .safetensors")
    _add_learning(parser)
    parser.set_defaults(run="finetune")


def _add_gate(commands: Any) -> None:
    parser = commands.add_parser(
        "gate", help="judge by held-out votes whether a candidate may take a model's place; exits 3 for too few"
    )
    parser.add_argument("--candidate", required=True, type=Path, metavar="FILE", help="the checkpoint to judge")
    parser.add_argument("--json", action="store_true", help="one object instead of sentences")
    _add_learning(parser)
    parser.set_defaults(run="gate")


def _add_evaluate(commands: Any) -> None:
    parser = commands.add_parser("evaluate", help="measure a model on captions")
    _add_data(parser)
    parser.add_argument("--split", choices=("train", "dev", "test", "all"), required=True)
    parser.add_argument(
        "--by", choices=("caption", "template", "picture"), default="caption", help="what the sets are split by"
    )
    parser.add_argument("--json", action="store_true", help="one object instead of a table")
    _add_model(parser)
    parser.set_defaults(run="evaluate")


def _add_bench(commands: Any) -> None:
    parser = commands.add_parser("bench", help="train and measure the systems of the literature, one table")
    _add_data(parser)
    parser.add_argument(
        "--systems",
        nargs="+",
        metavar="NAME",
        help="by default those that the table is about; ensemble: those named before it, together",
    )
    parser.add_argument("--minutes", required=True, type=float, metavar="N", help="of training, for each system")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"), metavar="DIR", help="where all of it is kept")
    parser.add_argument("--encoder", default="", metavar="NAME", help="one for all instead of each system's own")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="to train on")
    parser.add_argument(
        "--recipe", nargs="+", default=[], type=_pair, metavar="key=value", help="changes to every system's recipe"
    )
    parser.set_defaults(run="bench")


def _add_audit(commands: Any) -> None:
    parser = commands.add_parser("audit", help="count what groups of people captions speak of, and how")
    _add_data(parser)
    parser.add_argument("--json", action="store_true", help="one object instead of a table")
    _add_model(parser, "a checkpoint to audit as well; without it only the data")
    parser.set_defaults(run="audit")


def _add_project(commands: Any) -> None:
    parser = commands.add_parser("project", help="show a data set's pictures and texts by category, in 2-D and 3-D")
    _add_data(parser)
    parser.add_argument("--method", choices=("pca", "umap"), default="pca")
    parser.add_argument("--categories", type=int, default=10, metavar="N", help="how many, the most frequent first")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", dest="folder", required=True, type=Path, metavar="DIR", help="for the PNGs and the page")
    parser.set_defaults(run="project")


def _add_rating(commands: Any) -> None:
    parser = commands.add_parser("rating", help="lay out memes by people and by models for the blind rating page")
    _add_data(parser)
    parser.add_argument("--model", action="append", type=Path, metavar="FILE", help="may be repeated; else the shipped")
    parser.add_argument("--split", choices=("train", "dev", "test", "all"), default="dev", help="of people's captions")
    parser.add_argument("--pictures", type=_natural, default=50, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", dest="folder", required=True, type=Path, metavar="DIR", help="the folder to rate")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto")
    parser.set_defaults(run="rating")


def _add_collect(commands: Any) -> None:
    parser = commands.add_parser("collect", help="collect captions with votes from a site, as imgflip575k reads them")
    parser.add_argument("start", metavar="URL", help="a list of templates, a page or JSON")
    parser.add_argument("-o", dest="folder", required=True, type=Path, metavar="DIR", help="goes on where it stopped")
    parser.add_argument(
        "--captions", default="", metavar="URL", help="of a JSON list: pages of captions by {id}, {name}"
    )
    parser.add_argument("--templates", type=_natural, default=100, metavar="N")
    parser.add_argument("--pages", type=_natural, default=10, metavar="N", help="pages of captions of each template")
    parser.add_argument("--pause", type=float, default=2.0, metavar="SECONDS", help="between two requests, at least")
    parser.add_argument("--contact", default="", metavar="TEXT", help="how the site's people reach you")
    parser.set_defaults(run="collect")


def _add_data(parser: Any) -> None:
    parser.add_argument(
        "--data",
        action="append",
        required=True,
        type=_pair,
        metavar="NAME=DIR",
        help="a data set; may be repeated, with other names",
    )


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
    parser.add_argument("--threads", type=_natural, default=1, help="of torch; a GPU is left alone")


def _add_model(parser: Any, told: str = "a checkpoint instead of the shipped one") -> None:
    parser.add_argument("--model", type=Path, metavar="FILE", help=told)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto")
    parser.add_argument("--threads", type=_natural, default=0, help="of torch; 0 for half of the cores")


def _count(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 50:
        raise argparse.ArgumentTypeError("--n takes a number from 1 to 50")
    return int(text)


def _natural(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} is no number from 0 on")
    return int(text)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name or not value:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


if __name__ == "__main__":
    sys.exit(main())
