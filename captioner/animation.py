"""Animations: frames within limits, the same words on every one of them, and GIF, WebP or MP4 again.

The text is laid out once, on the first frame, so that it stands still.
"""

import io
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from PIL import Image, ImageSequence

from captioner import video
from captioner.draw import Lettering, paint
from captioner.images import VIDEO, ImageError, ImageTooLarge, Picture, quiet_pillow, rgb, scaled
from captioner.video import VideoError

FORMATS = {"GIF": "image/gif", "WEBP": "image/webp", VIDEO: video.CONTENT_TYPE}
"""What comes back animated, and its content type."""
MAX_FRAMES = 150
"""Frames kept of a longer animation, evenly chosen."""
MAX_SOURCE_FRAMES = 1500
"""Frames that are decoded at all; what has more is treated as a still."""
MAX_PIXELS = 30_000_000
"""Pixels of all frames together; larger animations are scaled down."""
MAX_DECODED = {"GIF": 800_000_000, "WEBP": 300_000_000, VIDEO: 2_000_000_000}
"""Pixels that are decoded of all frames, some five seconds of a core: what has more is treated as a still."""
SMALLEST_SIDE = 64
UNHURRIED = 100
"""Milliseconds that a frame is shown which says so little that browsers do not believe it."""

Letter = Callable[[Image.Image], Sequence[Lettering]]


@dataclass(frozen=True)
class Animation:
    """Upright RGB frames of one size, and how many milliseconds each is shown.

    `loop` is how often it is repeated, as GIF has it: 0 is for ever, None not at all.
    """

    frames: tuple[Image.Image, ...]
    durations: tuple[int, ...]
    loop: int | None
    format: str

    @property
    def content_type(self) -> str:
        return FORMATS[self.format]

    def shown_as(self, content_types: Collection[str]) -> "Animation":
        """The same in a format of one of these content types, if it is not: of those, in the one that loses least."""
        if self.content_type in content_types:
            return self
        return replace(self, format=next(form for form in (VIDEO, "WEBP", "GIF") if FORMATS[form] in content_types))

    def scaled(self, max_side: int) -> "Animation":
        return replace(self, frames=tuple(scaled(frame, max_side) for frame in self.frames))


def read(data: bytes, picture: Picture) -> Animation | None:
    """The animation whose first frame `picture` was read from the same bytes; None for what is to be a still.

    Raises `ImageError` where frames are damaged. Any thread may call it.
    """
    if picture.format not in FORMATS or not 1 < picture.frames <= MAX_SOURCE_FRAMES:
        return None
    loop: int | None = 0
    try:
        if picture.format == VIDEO:
            if _is_too_much(picture, picture.image.size):
                return None
            sampled = list(_sampled(video.frames(data), picture))
        else:
            with quiet_pillow(), Image.open(io.BytesIO(data), formats=[picture.format]) as source:
                # As large as the file says: a kilobyte can hold hundreds of frames of fifty megapixels.
                if _is_too_much(picture, source.size):
                    return None
                loop = _loop(source)
                sampled = list(_sampled(_timed(source), picture))
    except VideoError as error:
        raise ImageError(str(error)) from error
    except (OSError, ValueError, SyntaxError, EOFError, IndexError) as error:
        raise ImageError("The animation cannot be read: its file is damaged or incomplete.") from error
    if len(sampled) < 2:
        return None
    frames, durations = zip(*sampled, strict=True)
    return Animation(frames, durations, loop, picture.format)


def _is_too_much(picture: Picture, size: tuple[int, int]) -> bool:
    return picture.frames * size[0] * size[1] > MAX_DECODED[picture.format]


def _loop(source: Image.Image) -> int | None:
    """How often a GIF or WebP is repeated, as GIF counts: a WebP says how often it is shown."""
    said: int | None = source.info.get("loop")
    return (said - 1 or None) if said and source.format == "WEBP" else said


def lettered(animation: Animation, letter: Letter) -> Animation:
    """The same words on every frame; `letter` lays them out on the first one."""
    letterings = letter(animation.frames[0])
    return replace(animation, frames=tuple(paint(frame.copy(), letterings) for frame in animation.frames))


def encode(animation: Animation, quality: int = 80) -> bytes:
    """A GIF, WebP or MP4 file without metadata."""
    if animation.format == VIDEO:
        return video.encode(animation.frames, animation.durations)
    out = io.BytesIO()
    first, *rest = animation.frames
    timing: dict[str, Any] = {"append_images": rest, "duration": list(animation.durations)}
    if animation.format == "GIF":
        timing |= {} if animation.loop is None else {"loop": animation.loop}
        first.save(out, "GIF", save_all=True, disposal=1, **timing)
    else:
        timing["loop"] = 1 if animation.loop is None else animation.loop and animation.loop + 1
        first.save(out, "WEBP", save_all=True, quality=quality, method=2, **timing)
    return out.getvalue()


def fitted(animation: Animation, max_bytes: int | None, letter: Letter | None = None) -> bytes:
    """The animation as a file of at most so many bytes, smaller if need be; raises `ImageTooLarge` where it cannot be.

    With `letter`, words are laid out anew for each size that is tried.
    """
    while True:
        data = encode(lettered(animation, letter) if letter else animation)
        if max_bytes is None or len(data) <= max_bytes:
            return data
        side = max(animation.frames[0].size)
        # The size of a file goes with the area, roughly; a little less is tried, so that few steps are needed.
        side = math.floor(side * min(0.8, 0.95 * math.sqrt(max_bytes / len(data))))
        if side < SMALLEST_SIDE:
            raise ImageTooLarge("The animation cannot be made small enough.")
        animation = animation.scaled(side)


def _timed(source: Image.Image) -> Iterator[tuple[Callable[[], Image.Image], int]]:
    """How to get each frame of a GIF or WebP before the next one, and how many milliseconds it is shown."""
    for frame in ImageSequence.Iterator(source):
        frame.load()  # Pillow knows a WebP's timing only then
        duration = frame.info.get("duration") or 0
        yield partial(rgb, frame), int(duration) if duration > 10 else UNHURRIED


def _sampled(
    source: Iterator[tuple[Callable[[], Image.Image], int]], picture: Picture
) -> Iterator[tuple[Image.Image, int]]:
    """Every so-many-th frame, shown for as long as those that are left out after it, too."""
    step = math.ceil(picture.frames / MAX_FRAMES)
    count = math.ceil(picture.frames / step)
    width, height = picture.image.size
    share = min(1.0, math.sqrt(MAX_PIXELS / (count * width * height)))
    side = max(SMALLEST_SIDE, math.floor(max(width, height) * share))
    kept: Image.Image | None = None
    shown = room = 0
    for number, (frame, duration) in enumerate(source):
        # A file can have more frames than it says, and larger ones.
        if number >= step * MAX_FRAMES or room > 1.1 * MAX_PIXELS:
            break
        if number % step == 0:
            if kept is not None:
                yield kept, shown
            kept, shown = scaled(frame(), min(side, max(width, height))), 0
            room += kept.width * kept.height
        shown += duration
    if kept is not None:
        yield kept, shown
