"""Short videos without sound, as chats make them of animations: MP4 in and out, limits first.

Containers and codecs are FFmpeg's, by PyAV. Times are milliseconds.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from functools import partial

import av
import numpy as np
from av.container import InputContainer
from PIL import Image

CONTENT_TYPE = "video/mp4"
STILLS = (b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"mif2", b"msf1")
"""Brands of files that look like an MP4 at first, and are pictures."""
CODECS = ("h264", "hevc", "mpeg4", "av1", "vp9")
MAX_PIXELS = 2560 * 1440
"""Of a frame: decoders hold more than a dozen of them."""
DAMAGE = (av.FFmpegError, StopIteration, ValueError, ArithmeticError, LookupError, TypeError, OSError, MemoryError)
"""What FFmpeg and its Python side are known to raise on damaged or hostile files."""
MILLISECOND = Fraction(1, 1000)
UNKNOWN_DURATION = 40


class VideoError(ValueError):
    """The video cannot be read; `str(error)` is a sentence."""


class VideoTooLarge(VideoError):  # noqa: N818
    """Its frames have more pixels than are decoded."""


def is_video(data: bytes) -> bool:
    """Whether the bytes begin as those of an MP4 do."""
    return data[4:8] == b"ftyp" and data[8:12] not in STILLS


def first(data: bytes) -> tuple[Image.Image, int]:
    """The first frame, upright, and about how many there are; raises `VideoError`."""
    with _opened(data) as container:
        stream = container.streams.video[0]
        image = _upright(next(container.decode(stream)))
        if stream.frames:
            return image, stream.frames
        seconds = (container.duration or 0) / av.time_base
        return image, max(1, round(seconds * float(stream.average_rate or 25)))


def frames(data: bytes) -> Iterator[tuple[Callable[[], Image.Image], int]]:
    """How to get each frame, upright, and for how long it is shown; raises `VideoError`."""
    with _opened(data) as container:
        stream = container.streams.video[0]
        usual = round(1000 / stream.average_rate) if stream.average_rate else UNKNOWN_DURATION
        kept: av.VideoFrame | None = None
        for frame in container.decode(stream):
            if kept is not None:
                known = kept.time is not None and frame.time is not None
                yield partial(_upright, kept), max(1, round(1000 * (frame.time - kept.time))) if known else usual
            kept = frame
        if kept is not None:
            yield partial(_upright, kept), usual


def encode(images: Sequence[Image.Image], durations: Sequence[int]) -> bytes:
    """H.264 in an MP4 that every player takes: sides are even, so that a last row or column may go."""
    width, height = (max(2, side - side % 2) for side in images[0].size)
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "23", "preset": "veryfast", "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = stream.time_base = MILLISECOND
        at = 0
        for image, duration in zip(images, durations, strict=True):
            frame = av.VideoFrame.from_ndarray(np.asarray(image.crop((0, 0, width, height))), "rgb24")
            frame.time_base, frame.pts, frame.duration = MILLISECOND, at, duration
            container.mux(stream.encode(frame))
            at += duration
        container.mux(stream.encode())
    return out.getvalue()


@contextmanager
def _opened(data: bytes) -> Iterator[InputContainer]:
    """The file with its header parsed and its size checked; what FFmpeg says becomes a `VideoError`."""
    try:
        with av.open(io.BytesIO(data), "r", format="mp4", metadata_errors="replace") as container:
            if not container.streams.video:
                raise VideoError("There is no picture in this video.")
            stream = container.streams.video[0]
            codec = stream.codec_context.name if stream.codec_context else "unknown"
            if codec not in CODECS:
                raise VideoError(f"Videos of this kind ({codec}) cannot be read.")
            if stream.width * stream.height > MAX_PIXELS:
                raise VideoTooLarge(f"The video has more than {MAX_PIXELS / 1e6:.1f} megapixels.")
            # Streams can lie about their size, so that the decoder is told what it may use.
            stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
            stream.codec_context.thread_count = 1
            yield container
    except VideoError:
        raise
    except DAMAGE as error:
        raise VideoError("The video cannot be read: its file is damaged or incomplete.") from error


def _upright(frame: av.VideoFrame) -> Image.Image:
    image = Image.fromarray(frame.to_ndarray(format="rgb24"))
    return image.rotate(frame.rotation, expand=True) if frame.rotation else image
