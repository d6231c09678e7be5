"""Drawn pictures that networks know."""

import math

from PIL import Image, ImageDraw


def clock() -> Image.Image:
    """An analog clock."""
    image = Image.new("RGB", (448, 448), "white")
    pen = ImageDraw.Draw(image)
    pen.ellipse((40, 40, 408, 408), "white", "black", 14)
    for hour in range(12):
        angle = hour * math.pi / 6
        place = (224 + 150 * math.sin(angle), 224 - 150 * math.cos(angle))
        pen.text(place, str(hour or 12), "black", anchor="mm", font_size=36)
    pen.line((224, 224, 224, 110), "black", 10)
    pen.line((224, 224, 300, 260), "black", 12)
    return image
