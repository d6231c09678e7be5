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
    result = [image]
    while len(result) < count:
        view = image
        for chance, distort in chain:
            if rng.random() < chance:
                view = distort(view, rng)
        result.append(view)
    return result


def crop(image: Image.Image, rng: random.Random) -> Image.Image:
    """Keeps at least 70 % of either side's length."""
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


_PHOTOGRAPH: tuple[tuple[float, Distortion], ...] = ((0.8, crop), (0.7, mirror))
_TEMPLATE: tuple[tuple[float, Distortion], ...] = (
    (0.6, crop),
    (0.3, mirror),
    (0.4, recolour),
    (0.5, caption),
    (0.3, border),
    (0.5, recompress),
)
