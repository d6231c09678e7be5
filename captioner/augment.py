"""Distorted copies of a picture, as chats post them: cropped, mirrored, recompressed, bordered, captioned."""

import io
import random
from collections.abc import Callable

from PIL import Image, ImageDraw, ImageEnhance, ImageFont, ImageOps

Distortion = Callable[[Image.Image, random.Random], Image.Image]


def views(image: Image.Image, count: int, seed: int, *, template: bool) -> list[Image.Image]:
    """`count` views of an RGB picture: itself first, then copies distorted by a generator with that seed.

    Templates are also captioned and bordered, since people post them with text; photographs only crop and mirror.
    """
    rng = random.Random(seed)  # noqa: S311, no secret
    chain = _TEMPLATE if template else _PHOTOGRAPH
    return [image] + [_chained(image, chain, rng) for _ in range(count - 1)]


def posts(image: Image.Image, count: int, seed: int) -> list[Image.Image]:
    """As `views`, with the longer captions and wider borders that a recogniser of templates must see through."""
    rng = random.Random(seed)  # noqa: S311, no secret
    return [image] + [_chained(image, _POST, rng) for _ in range(count - 1)]


def _chained(image: Image.Image, chain: tuple[tuple[float, Distortion], ...], rng: random.Random) -> Image.Image:
    for chance, distort in chain:
        if rng.random() < chance:
            image = distort(image, rng)
    return image


def crop(image: Image.Image, rng: random.Random) -> Image.Image:
    """Keeps at least 75 % of either side's length."""
    w, h = (max(1, round(side * rng.uniform(0.75, 1.0))) for side in image.size)
    x, y = rng.randint(0, image.width - w), rng.randint(0, image.height - h)
    return image.crop((x, y, x + w, y + h))


def mirror(image: Image.Image, rng: random.Random) -> Image.Image:
    return ImageOps.mirror(image)


def recolour(image: Image.Image, rng: random.Random) -> Image.Image:
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = enhance(image).enhance(rng.uniform(0.7, 1.3))
    return image


def recompress(image: Image.Image, rng: random.Random) -> Image.Image:
    """Scales to a quarter to twice the size and saves as JPEG of quality 20 to 90."""
    factor = 2 ** rng.uniform(-2, 1)
    small = image.resize((max(16, round(image.width * factor)), max(16, round(image.height * factor))))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=rng.randint(20, 90))
    return Image.open(buffer).convert("RGB")


def border(image: Image.Image, rng: random.Random) -> Image.Image:
    colour = rng.choice(("black", "white", "grey"))
    return ImageOps.expand(image, border=round(min(image.size) * rng.uniform(0.01, 0.08)), fill=colour)


def caption(image: Image.Image, rng: random.Random) -> Image.Image:
    """Writes nonsense in outlined capitals at the top, the bottom, or both."""
    image = image.copy()
    pen = ImageDraw.Draw(image)
    size = max(8, round(image.height * rng.uniform(0.06, 0.14)))
    font = ImageFont.load_default(size)
    for anchor, y in rng.sample((("ma", 2), ("md", image.height - 2)), rng.randint(1, 2)):
        words = " ".join(
            "".join(rng.choices("ABCDEFGHILMNOPRSTU", k=rng.randint(2, 8))) for _ in range(rng.randint(2, 5))
        )
        pen.text(
            (image.width / 2, y), words, "white", font, anchor, stroke_width=max(1, size // 15), stroke_fill="black"
        )
    return image


def crop_area(image: Image.Image, rng: random.Random) -> Image.Image:
    """Keeps at least 65 % of the area, in any ratio."""
    area = rng.uniform(0.65, 1.0)
    share = rng.uniform(area, 1.0)
    w, h = max(1, round(image.width * share)), max(1, round(image.height * area / share))
    x, y = rng.randint(0, image.width - w), rng.randint(0, image.height - h)
    return image.crop((x, y, x + w, y + h))


def frame(image: Image.Image, rng: random.Random) -> Image.Image:
    """A border of any colour around all of the picture, or bars at some of its sides."""
    colour = rng.choice(("black", "white", "grey", tuple(rng.randrange(256) for _ in range(3))))
    left, top, right, bottom = rng.choice(((1, 1, 1, 1), (1, 1, 1, 1), (0, 1, 0, 1), (1, 0, 1, 0), (0, 1, 0, 0)))
    across, down = (round(min(image.size) * rng.uniform(0.01, 0.1)) for _ in range(2))
    return ImageOps.expand(image, (left * across, top * down, right * across, bottom * down), colour)


def captions(image: Image.Image, rng: random.Random) -> Image.Image:
    """Writes up to three blocks of up to three lines of nonsense, outlined or plain, light or dark."""
    image = image.copy()
    pen = ImageDraw.Draw(image)
    ink, other = rng.choice((("white", "black"),) * 3 + (("black", "white"),))
    lower = rng.random() < 0.3
    places = (("ma", 0.01), ("md", 0.99), ("mm", rng.uniform(0.2, 0.8)))
    for anchor, y in rng.sample(places, rng.choice((1, 2, 2, 3))):
        size = max(6, round(min(image.size) * rng.uniform(0.05, 0.14)))
        text = _nonsense(max(1, int(image.width / size / 3.2)), rng)
        stroke = rng.choice((0, size // 15, size // 10)) if ink == "black" else max(1, size // rng.randint(9, 18))
        at = (image.width * rng.choice((0.5, 0.5, rng.uniform(0.3, 0.7))), y * image.height)
        pen.multiline_text(
            at,
            text.lower() if lower else text,
            ink,
            ImageFont.load_default(size),
            anchor,
            align="center",
            stroke_width=stroke,
            stroke_fill=other,
        )
    return image


def _nonsense(words: int, rng: random.Random) -> str:
    """One to three lines of at most so many words."""
    lines = (
        ("".join(rng.choices("ETAOINSHRDLCUMWFGYPBVK", k=rng.randint(1, 9))) for _ in range(rng.randint(1, words)))
        for _ in range(rng.randint(1, 3))
    )
    return "\n".join(" ".join(line) for line in lines)


_PHOTOGRAPH: tuple[tuple[float, Distortion], ...] = ((0.8, crop), (0.7, mirror))
_TEMPLATE: tuple[tuple[float, Distortion], ...] = (
    (0.6, crop),
    (0.3, mirror),
    (0.4, recolour),
    (0.5, caption),
    (0.3, border),
    (0.5, recompress),
)
_POST: tuple[tuple[float, Distortion], ...] = (
    (0.5, crop_area),
    (0.3, mirror),
    (0.2, recolour),
    (0.65, captions),
    (0.3, frame),
    (0.4, recompress),
)
