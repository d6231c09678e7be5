"""Animated pictures come back animated, with the same words on every frame."""

import io

import numpy as np
import pytest
from PIL import Image, ImageChops, ImageSequence

from captioner import animation, images
from captioner.animation import Animation
from captioner.draw import Lettering, laid_out
from captioner.fonts import Fonts
from captioner.images import ImageError, ImageTooLarge


def animated(form: str = "GIF", frames: int = 5, size: tuple[int, int] = (160, 120), **options: object) -> bytes:
    """A square that walks to the right."""
    pictures = []
    for number in range(frames):
        picture = Image.new("RGB", size, "navy")
        left = number * 3 % size[0]
        picture.paste("orange", (left, size[1] // 2, left + 20, size[1] // 2 + 20))
        pictures.append(picture)
    out = io.BytesIO()
    pictures[0].save(out, form, save_all=True, append_images=pictures[1:], duration=80, loop=0, **options)
    return out.getvalue()


def read(data: bytes) -> Animation:
    found = animation.read(data, images.read(data))
    assert found is not None
    return found


@pytest.fixture(scope="module")
def fonts() -> Fonts:
    return Fonts.resolve(None)


def words(fonts: Fonts) -> animation.Letter:
    def letter(first: Image.Image) -> list[Lettering]:
        return laid_out(first, ["hello", "world"], fonts)

    return letter


@pytest.mark.parametrize("form", ["GIF", "WEBP"])
def test_words_stand_on_every_frame(form: str, fonts: Fonts) -> None:
    before = read(animated(form))
    data = animation.fitted(before, None, words(fonts))
    with Image.open(io.BytesIO(data)) as after:
        assert (after.format, after.n_frames, after.size, after.info["loop"]) == (form, 5, (160, 120), 0)
        frames = [frame.convert("RGB") for frame in ImageSequence.Iterator(after)]
        assert after.info["duration"] == 80
    white = [np.argwhere(np.asarray(frame).min(2) > 220) for frame in frames]
    assert all(len(pixels) > 100 for pixels in white)
    assert {tuple(pixels.min(0)) for pixels in white} == {tuple(white[0].min(0))}
    assert ImageChops.difference(frames[0], frames[-1]).crop((0, 50, 160, 70)).getbbox()


def test_long_animations_are_thinned_and_last_as_long() -> None:
    long = read(animated(frames=400, size=(40, 30)))
    assert len(long.frames) <= animation.MAX_FRAMES
    assert sum(long.durations) == 400 * 80


def test_large_animations_are_scaled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(animation, "MAX_PIXELS", 20_000)
    small = read(animated())
    assert sum(frame.width * frame.height for frame in small.frames) <= 25_000


def test_it_is_made_to_fit(fonts: Fonts) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (4, 200, 300, 3), dtype=np.uint8)
    frames = tuple(Image.fromarray(one) for one in noise)
    before = Animation(frames, (50,) * 4, 0, "GIF")
    full = len(animation.encode(before))
    assert len(animation.fitted(before, full // 4, words(fonts))) <= full // 4
    with pytest.raises(ImageTooLarge):
        animation.fitted(before, 100)


def test_stills_are_no_animations(monkeypatch: pytest.MonkeyPatch) -> None:
    still = animated(frames=1)
    assert animation.read(still, images.read(still)) is None
    monkeypatch.setattr(animation, "MAX_SOURCE_FRAMES", 3)
    long = animated()
    assert animation.read(long, images.read(long)) is None


def test_damaged_frames_are_a_sentence() -> None:
    data = animated("WEBP", frames=8)
    picture = images.read(data)
    with pytest.raises(ImageError):
        animation.read(data[: len(data) // 2], picture)
