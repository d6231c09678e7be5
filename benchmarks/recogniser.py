"""How well templates are recognised: distorted copies, photographs, and templates that the recogniser does not know.

    python -m benchmarks.recogniser --imgflip575k DIR --memefly DIR --flickr8k DIR [--model FILE] [--views N]

Trains a recogniser on all templates and Flickr8k's training photographs and one for each of two halves of the unknown;
tests on distortions written apart from those of the training, with other fonts, and on the dev photographs. The three
penguins, one drawing in two colours, are left out together. An hour or so of one core.
"""

import argparse
import io
import random
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import matplotlib
import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Tensor

from captioner.captioner import shipped
from captioner.checkpoint import Checkpoint
from captioner.templates import Templates, learnt

_FONTS = sorted(Path(matplotlib.get_data_path(), "fonts", "ttf").glob("DejaVuS*.ttf"))
_WORDS = ("when", "you", "the", "a", "of", "i", "am", "not", "mom", "dog", "be", "like", "just", "got", "home", "never")
_FOLDS = 5


def crop(image: Image.Image, rng: random.Random) -> Image.Image:
    """Keeps 70 % of the area or more."""
    area = rng.uniform(0.7, 1)
    share = rng.uniform(max(area, 0.72), 1)
    w, h = round(image.width * share), round(image.height * area / share)
    x, y = rng.randint(0, image.width - w), rng.randint(0, image.height - h)
    return image.crop((x, y, x + w, y + h))


def recompressed(image: Image.Image, rng: random.Random) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=rng.randint(20, 90))
    return Image.open(buffer).convert("RGB")


def scaled(image: Image.Image, rng: random.Random) -> Image.Image:
    factor = 2 ** rng.uniform(-2, 1)
    return image.resize((max(16, round(image.width * factor)), max(16, round(image.height * factor))))


def mirrored(image: Image.Image, _rng: random.Random) -> Image.Image:
    return ImageOps.mirror(image)


def bordered(image: Image.Image, rng: random.Random) -> Image.Image:
    colour = rng.choice(("black", "white", (rng.randrange(256), rng.randrange(256), rng.randrange(256))))
    wide, high = (round(min(image.size) * rng.uniform(0.01, 0.1)) for _ in range(2))
    return ImageOps.expand(image, rng.choice(((wide, wide), (0, high), (wide, 0))), colour)


def captioned(image: Image.Image, rng: random.Random) -> Image.Image:
    """Up to three lines at the top, the bottom or both."""
    image = image.copy()
    pen = ImageDraw.Draw(image)
    path = rng.choice(_FONTS)
    for anchor, y in rng.sample((("ma", 0.02), ("md", 0.98)), rng.choice((1, 2, 2))):
        size = max(8, round(min(image.size) * rng.uniform(0.05, 0.13)))
        font = ImageFont.truetype(path, size)
        lines = [""]
        for word in rng.choices(_WORDS, k=rng.randint(2, 12)):
            if lines[-1] and pen.textlength(f"{lines[-1]} {word}".upper(), font) > 0.95 * image.width:
                lines.append("")
            lines[-1] = f"{lines[-1]} {word}".strip().upper()
        at, text, stroke = (image.width / 2, y * image.height), "\n".join(lines[:3]), max(1, size // 14)
        pen.multiline_text(at, text, "white", font, anchor, align="center", stroke_width=stroke, stroke_fill="black")
    return image


KINDS: dict[str, Callable[[Image.Image, random.Random], Image.Image]] = {
    "cropped": crop,
    "mirrored": mirrored,
    "captioned": captioned,
    "bordered": bordered,
    "scaled": scaled,
    "recompressed": recompressed,
}


def mixed(image: Image.Image, rng: random.Random) -> Image.Image:
    """Two to four of them."""
    chosen = rng.sample(list(KINDS), rng.randint(2, 4))
    for kind in KINDS:
        if kind in chosen:
            image = KINDS[kind](image, rng)
    return image


def copies(file: Path) -> Iterator[tuple[str, Image.Image]]:
    """The picture, three copies of every kind, and nine mixes."""
    rng = random.Random(zlib.crc32(file.name.encode()) + 991)
    with Image.open(file) as opened:
        image = opened.convert("RGB")
    yield "original", image
    for kind, distort in KINDS.items():
        for _ in range(3):
            yield kind, distort(image, rng)
    for _ in range(9):
        yield "mixed", mixed(image, rng)


Encode = Callable[[Image.Image], Tensor]
Seen = dict[str, list[tuple[str, Tensor]]]
"""Template → the kinds of its copies and their grids (1, R, D)."""


def recall(recogniser: Templates, seen: Seen) -> dict[str, float]:
    """The share of copies that are recognised, by kind and in all."""
    found: dict[str, list[bool]] = {}
    for name in recogniser.names:
        for kind, grid in seen[name]:
            match = recogniser.recognise(grid)[0]
            right = match is not None and match[0] == name
            found.setdefault(kind, []).append(right)
            found.setdefault("all", []).append(right)
    return {kind: sum(rights) / len(rights) for kind, rights in found.items()}


def taken(recogniser: Templates, grids: Sequence[Tensor]) -> float:
    """The share of pictures of no known template that are taken for one."""
    return sum(recogniser.recognise(grid)[0] is not None for grid in grids) / max(1, len(grids))


def photographs(folder: Path, split: str) -> list[Path]:
    names = sorted((folder / f"Flickr_8k.{split}Images.txt").read_text("utf-8").split())
    return [file for name in names if (file := folder / "Flickr8k_Dataset" / name).is_file()]


def fold_of(name: str) -> int:
    return zlib.crc32(("penguin" if "penguin" in name else name).encode()) % _FOLDS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("imgflip575k", "memefly", "flickr8k"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--model", type=Path, help="takes encoder and reduction from this checkpoint")
    parser.add_argument("--views", type=int, default=64)
    parser.add_argument("--folds", type=int, default=2, help="how many fifths of the templates are left out in turn")
    parser.add_argument("--every", type=int, default=2, help="uses every N-th photograph")
    args = parser.parse_args()
    checkpoint = Checkpoint.load(args.model or shipped())
    encoder, reduction = checkpoint.build_encoder(), checkpoint.reduction

    @torch.inference_mode()
    def encode(image: Image.Image) -> Tensor:
        grid: Tensor = reduction(encoder(encoder.pixels([image])))
        return grid.half()

    folders = (args.memefly / "images", args.imgflip575k / "dataset" / "templates" / "img")
    files = {file.stem.lower(): file for folder in folders for file in sorted(folder.iterdir())}
    others = photographs(args.flickr8k, "train")[:: args.every]
    seen: Seen = {name: [(kind, encode(copy)) for kind, copy in copies(file)] for name, file in files.items()}
    dev = photographs(args.flickr8k, "dev")[:: args.every]
    photos = [grid for file in dev for grid in _of_photograph(file, encode)]
    everything = learnt(encoder, reduction, files, others, args.views)
    for kind, share in recall(everything, seen).items():
        print(f"recognised, {kind}: {share:.2%}")
    print(f"photographs taken for a template: {taken(everything, photos):.2%} of {len(photos)}")
    for fold in range(args.folds):
        known = {name: file for name, file in files.items() if fold_of(name) != fold}
        recogniser = learnt(encoder, reduction, known, others, args.views)
        unknown = [grid for name in files.keys() - known.keys() for _, grid in seen[name]]
        print(f"fold {fold}: recognised {recall(recogniser, seen)['all']:.2%}", end=", ")
        print(f"unknown taken for a known one {taken(recogniser, unknown):.2%} of {len(unknown)}")


def _of_photograph(file: Path, encode: Encode) -> list[Tensor]:
    """The photograph, captioned, and with some of all distortions."""
    rng = random.Random(zlib.crc32(file.name.encode()) + 991)
    with Image.open(file) as opened:
        image = opened.convert("RGB")
    return [encode(copy) for copy in (image, captioned(image, rng), mixed(image, rng))]


if __name__ == "__main__":
    main()
