"""Animated pictures come back animated, with the same words on every frame."""

import io
from dataclasses import replace

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageSequence

from captioner import animation, images, video
from captioner.animation import Animation
from captioner.draw import Lettering, laid_out
from captioner.fonts import Fonts
from captioner.images import VIDEO, ImageError, ImageTooLarge


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


def filmed(frames: int = 5, size: tuple[int, int] = (160, 120), milliseconds: int = 80) -> bytes:
    """The same as a short video without sound."""
    pictures = animation.read(animated(frames=frames, size=size), images.read(animated(frames=frames, size=size)))
    assert pictures
    return video.encode(pictures.frames, [milliseconds] * frames)


FILM = filmed()


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


def test_words_stand_on_every_frame_of_a_video(fonts: Fonts) -> None:
    before = read(filmed(frames=6, size=(161, 121)))
    assert (before.format, before.content_type) == ("MP4", "video/mp4")
    after = read(animation.fitted(before, None, words(fonts)))
    assert len(after.frames) == 6
    assert after.durations[:-1] == (80,) * 5
    assert all(frame.size == (160, 120) for frame in after.frames)
    white = [np.argwhere(np.asarray(frame).min(2) > 200) for frame in after.frames]
    assert all(len(pixels) > 100 for pixels in white)
    starts = np.array([pixels.min(0) for pixels in white])
    assert np.abs(starts - starts[0]).max() <= 2
    assert ImageChops.difference(after.frames[0], after.frames[-1]).crop((0, 50, 160, 70)).getbbox()


def test_long_videos_are_thinned_and_last_as_long() -> None:
    long = read(filmed(frames=140) if animation.MAX_FRAMES > 140 else filmed())
    thinned = animation.read(data := filmed(frames=140), replace(images.read(data), frames=700))
    assert thinned
    assert len(thinned.frames) == 28
    assert abs(sum(thinned.durations) - sum(long.durations)) <= 80


def test_a_video_that_lies_about_its_length_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    data = filmed(frames=20)
    picture = replace(images.read(data), frames=2)
    monkeypatch.setattr(animation, "MAX_PIXELS", 100_000)
    cut = animation.read(data, picture)
    assert cut
    assert sum(frame.width * frame.height for frame in cut.frames) < 150_000


def test_large_videos_are_refused_before_they_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    data = filmed()
    picture = images.read(data)
    monkeypatch.setitem(animation.MAX_DECODED, VIDEO, 1000)
    assert animation.read(data, picture) is None
    monkeypatch.setattr(video, "MAX_PIXELS", 10_000)
    with pytest.raises(ImageTooLarge, match="megapixels"):
        images.read(data)
    # The header says little, the stream is large: the decoder itself refuses.
    small = data.replace(bytes([0, 160, 0, 0, 0, 120, 0, 0]), bytes([0, 40, 0, 0, 0, 30, 0, 0]))
    assert small != data
    monkeypatch.setattr(video, "MAX_PIXELS", 15_000)
    with pytest.raises(ImageError):
        images.read(small)


def test_a_video_is_shown_upright() -> None:
    """Telephones write down how they were held."""
    picture = Image.new("RGB", (160, 120), "blue")
    picture.paste("red", (0, 0, 80, 120))
    data = video.encode([picture] * 2, [80, 80])
    as_it_is, quarter_turn = (b"".join(n.to_bytes(4, signed=True) for n in row) for row in (
        (1 << 16, 0, 0, 0, 1 << 16, 0),
        (0, 1 << 16, 0, -1 << 16, 0, 0),
    ))  # fmt: skip
    before, whole, track, after = data.partition(as_it_is)[0], as_it_is, *data.partition(as_it_is)[2].split(as_it_is, 1)
    turned = images.read(before + whole + track + quarter_turn + after)
    assert turned.image.size == (120, 160)
    top, bottom = (turned.image.getpixel((60, y)) for y in (20, 140))
    assert isinstance(top, tuple)
    assert isinstance(bottom, tuple)
    assert top[0] > 200 > 50 > top[2]
    assert bottom[2] > 200 > 50 > bottom[0]


def test_videos_that_are_not_taken() -> None:
    for codec, words in (("mjpeg", "of this kind"), ("aac", "no picture")):
        out = io.BytesIO()
        with av.open(out, "w", format="mp4") as container:
            stream = container.add_stream(codec)
            if codec == "mjpeg":
                stream.width, stream.height, stream.pix_fmt = 32, 32, "yuvj420p"
                frame = av.VideoFrame.from_image(Image.new("RGB", (32, 32)))
            else:
                frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), "fltp", "stereo")
                frame.sample_rate = 48000
            container.mux([*stream.encode(frame), *stream.encode()])
        with pytest.raises(ImageError, match=words):
            images.read(out.getvalue())


def test_the_smallest_animation_becomes_a_video() -> None:
    tiny = read(animated("WEBP", frames=2, size=(21, 1)))
    assert images.read(animation.encode(tiny.shown_as({"video/mp4"}))).image.size == (20, 2)


def test_damaged_videos_are_a_sentence() -> None:
    data = filmed(frames=8)
    for damaged in (data[: len(data) // 2], b"\0\0\0\x20ftypisom" + bytes(200), data[:40]):
        with pytest.raises(ImageError, match="video"):
            images.read(damaged)


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_no_damage_of_a_video_is_an_error_of_ours(data: st.DataObject) -> None:
    file = bytearray(FILM)
    for _ in range(data.draw(st.integers(1, 20))):
        file[data.draw(st.integers(0, len(file) - 1))] = data.draw(st.integers(0, 255))
    try:
        picture = images.read(bytes(file))
        animation.read(bytes(file), picture)
    except ImageError:
        pass


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


@pytest.mark.parametrize("form", ["GIF", "WEBP"])
def test_small_files_of_huge_frames_are_stills(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame may be a speck on a canvas of fifty megapixels, and is decoded as the whole of it."""
    large, small = Image.new("RGB", (1200, 800)), Image.new("RGB", (1, 1), "white")
    out = io.BytesIO()
    large.save(out, form, save_all=True, append_images=[large.copy() for _ in range(9)] + [small.resize((1200, 800))])
    data = out.getvalue()
    picture = replace(images.read(data), image=small)  # as it was scaled down since
    monkeypatch.setitem(animation.MAX_DECODED, form, picture.frames * 1200 * 800 - 1)
    assert animation.read(data, picture) is None
    monkeypatch.setitem(animation.MAX_DECODED, form, picture.frames * 1200 * 800)
    assert animation.read(data, picture) is not None


@pytest.mark.parametrize("before", ["GIF", "WEBP"])
@pytest.mark.parametrize("after", ["GIF", "WEBP"])
@pytest.mark.parametrize("repeated", [None, 0, 1, 3])
def test_what_is_shown_once_is_not_shown_for_ever(before: str, after: str, repeated: int | None) -> None:
    frames = tuple(Image.new("RGB", (20, 20), colour) for colour in ("red", "green", "blue"))
    source = animation.encode(Animation(frames, (100,) * 3, repeated, before))
    assert read(source).loop == repeated
    assert read(animation.encode(replace(read(source), format=after))).loop == repeated


def test_damaged_frames_are_a_sentence() -> None:
    data = animated("WEBP", frames=8)
    picture = images.read(data)
    with pytest.raises(ImageError):
        animation.read(data[: len(data) // 2], picture)
