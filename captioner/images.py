"""Untrusted bytes become upright RGB frames; limits come first, and metadata stays behind."""

import io
import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pillow_heif
from PIL import (  # the plug-ins of the accepted formats; importing them keeps Pillow from loading all others
    AvifImagePlugin,  # noqa: F401
    BmpImagePlugin,  # noqa: F401
    GifImagePlugin,  # noqa: F401
    Image,
    ImageCms,
    JpegImagePlugin,  # noqa: F401
    MpoImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    TiffImagePlugin,  # noqa: F401
    UnidentifiedImageError,
    WebPImagePlugin,  # noqa: F401
)

from captioner import video
from captioner.video import VideoError, VideoTooLarge

pillow_heif.register_heif_opener()
# Pillow gives every picture's memory back to the system at once; touching fresh pages then takes longer than decoding.
Image.core.set_blocks_max(4)  # type: ignore[attr-defined]  # of 16 MB each

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "HEIF", "AVIF")
VIDEO = "MP4"
"""What short videos are called where pictures have their format."""

# What Pillow and the libraries below it are known to raise on damaged or hostile files. It is wide because every
# plug-in parses in its own way; it is used around calls into Pillow only, so that mistakes of ours stay visible.
_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    AttributeError,
    EOFError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
)

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation → the turn that undoes it."""

_ORIENTATION = 0x0112
_MAX_FRAMES = 10_000
_MAX_GIF_BLOCKS = 500_000


class ImageError(ValueError):
    """The bytes are no picture that can be read; `str(error)` is a sentence for the user."""


class ImageTooLarge(ImageError):  # noqa: N818
    """More bytes or pixels than the limits allow."""


@dataclass(frozen=True)
class Limits:
    """What a picture may weigh; both are checked before anything is decoded."""

    max_bytes: int = 20_000_000
    max_pixels: int = 50_000_000


Face = tuple[float, float, float, float]
"""Where a face is: left, top, right and bottom as fractions of the picture's sides."""


@dataclass(frozen=True)
class Picture:
    """The first frame of a picture."""

    image: Image.Image
    """Upright, RGB, at least 1×1, without metadata."""
    format: str
    """One of `FORMATS`, or `VIDEO`, found in the content."""
    frames: int
    """How many frames the animation has; 1 for a still. Counted up to 10,000, in a GIF's first 500,000 blocks."""
    faces: Callable[[], Sequence[Face]] | None = field(default=None, compare=False, repr=False)
    """Waits for what is found by who began to look for faces when the picture was read."""


def read(data: bytes, limits: Limits = Limits()) -> Picture:
    """Decode the first frame of `data`; raises `ImageTooLarge` or `ImageError`. Any thread may call it."""
    if not data:
        raise ImageError("The file is empty.")
    if len(data) > limits.max_bytes:
        raise ImageTooLarge(f"The file is larger than {limits.max_bytes / 1e6:g} MB.")
    if video.is_video(data):
        return _first_of_video(data, limits)
    with quiet_pillow(), _opened(data, limits) as source:
        form = "JPEG" if source.format == "MPO" else str(source.format)
        frames = _frames(source, data)
        try:
            source.load()
            image = rgb(source)
        except _DECODER_ERRORS as error:
            raise ImageError("The picture cannot be read: its file is damaged or incomplete.") from error
    return Picture(image, form, frames)


def _first_of_video(data: bytes, limits: Limits) -> Picture:
    try:
        image, frames = video.first(data)
    except VideoTooLarge as error:
        raise ImageTooLarge(str(error)) from error
    except VideoError as error:
        raise ImageError(str(error)) from error
    if image.width * image.height > limits.max_pixels:
        raise _too_many_pixels(limits)
    return Picture(image, VIDEO, min(frames, _MAX_FRAMES))


def scaled(image: Image.Image, max_side: int) -> Image.Image:
    """`image` with its longer side at most `max_side` pixels, in the same ratio; returned as it is if small enough."""
    longer = max(image.size)
    if longer <= max_side:
        return image
    width, height = (max(1, round(side * max_side / longer)) for side in image.size)
    return image.resize((width, height), Image.Resampling.HAMMING)  # as sharp as bicubic here, in half the time


def opened(file: Path, limits: Limits = Limits()) -> Picture:
    """The picture in a file, as one that is posted is read; raises an ImageError that names the file, OSError."""
    try:
        return read(file.read_bytes(), limits)
    except ImageError as error:
        raise type(error)(f"{file}: {error}") from error


def to_jpeg(image: Image.Image, quality: int = 90, *, comment: bytes = b"") -> bytes:
    """JPEG bytes without EXIF, GPS, colour profile or other comment, whatever `image.info` holds."""
    if image.mode != "RGB" or image.info:
        image = image.convert("RGB")
        image.info = {}
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality, comment=comment)
    return out.getvalue()


@contextmanager
def _opened(data: bytes, limits: Limits) -> Iterator[Image.Image]:
    """The file with its header parsed and its size checked, nothing decoded."""
    try:
        source = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        raise ImageError(
            "This is not a picture that can be read: JPEG, PNG, WebP, GIF, BMP, TIFF, HEIC and AVIF are."
        ) from error
    except Image.DecompressionBombError as error:
        raise _too_many_pixels(limits) from error
    except _DECODER_ERRORS as error:
        raise ImageError("The picture cannot be read: its file is damaged or incomplete.") from error
    with source:
        width, height = source.size
        if width * height > limits.max_pixels:
            raise _too_many_pixels(limits)
        if width * height == 0:
            raise ImageError("The picture has no pixels.")
        yield source


def _too_many_pixels(limits: Limits) -> ImageTooLarge:
    return ImageTooLarge(f"The picture has more than {limits.max_pixels / 1e6:g} megapixels.")


def _frames(source: Image.Image, data: bytes) -> int:
    """Frames of an animation. Pages of a TIFF and thumbnails of a HEIC or MPO are none."""
    if source.format == "GIF":  # Pillow would read every frame's palette and blocks, which takes long in a hostile file
        return max(1, _gif_frames(data))
    if source.format in ("PNG", "WEBP", "AVIF"):
        return min(max(1, int(getattr(source, "n_frames", 1))), _MAX_FRAMES)
    return 1


def _gif_frames(data: bytes) -> int:
    """Images in a GIF: its blocks are walked through, none is decoded."""
    frames, at, inside = 0, 13 + _palette_bytes(data[10]), False
    try:
        for _ in range(_MAX_GIF_BLOCKS):
            if inside:
                at, inside = at + 1 + data[at], data[at] > 0
            elif data[at] == 0x2C:  # an image: descriptor, palette, size of its codes, and then blocks of data
                frames, at, inside = frames + 1, at + 11 + _palette_bytes(data[at + 9]), True
            elif data[at] == 0x21:
                at, inside = at + 2, True
            else:
                break
    except IndexError:  # the file ends early
        pass
    return min(frames, _MAX_FRAMES)


def _palette_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def rgb(source: Image.Image) -> Image.Image:
    """The decoded frame upright, in sRGB, on white, as a plain `Image` without metadata."""
    turn = _UPRIGHT.get(_orientation(source))
    profile = source.info.get("icc_profile")
    image = _flat(source)
    image = _to_srgb(image, profile) if profile else image.convert("RGB")
    if turn is not None:
        image = image.transpose(turn)
    image.info = {}
    return image


def _orientation(source: Image.Image) -> int:
    try:
        return int(source.getexif().get(_ORIENTATION, 1))
    except _DECODER_ERRORS:  # a picture with a broken EXIF block is still a picture
        return 1


def _flat(image: Image.Image) -> Image.Image:
    """The same picture in a mode of 8 bits without transparency: L, RGB or CMYK."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image).astype(np.uint16) // 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        return _stretched(image)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(rgba, mask=rgba.getchannel("A"))
        return white
    return image if image.mode in ("L", "RGB", "CMYK") else image.convert("RGB")


def _stretched(image: Image.Image) -> Image.Image:
    """Measurements (32-bit numbers) have no agreed white: darkest to black, brightest to white."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0.0, neginf=0.0)
    low, high = values.min(), values.max()
    return Image.fromarray(((values - low) * (255 / max(high - low, 1e-9))).astype(np.uint8))


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Colours of a wide-gamut or print profile in sRGB; a profile that does not fit the picture is ignored."""
    if b"sRGB" in profile or b"s\0R\0G\0B" in profile:
        return image.convert("RGB")
    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB"), image.mode, "RGB"
        )
        converted = ImageCms.applyTransform(image, transform)
    except (ImageCms.PyCMSError, *_DECODER_ERRORS):
        return image.convert("RGB")
    return converted if converted is not None else image.convert("RGB")


_quiet_lock = threading.Lock()
_quiet_depth = 0
_quiet_filters = warnings.catch_warnings()


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Pillow's warnings about odd files are of no use to anybody here.

    The filters are global, so that threads share one suppression: the first one in sets it, the last one out ends it.
    """
    global _quiet_depth, _quiet_filters
    with _quiet_lock:
        if _quiet_depth == 0:
            _quiet_filters = warnings.catch_warnings()
            _quiet_filters.__enter__()
            warnings.filterwarnings("ignore", module=r"PIL\.")
        _quiet_depth += 1
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_depth -= 1
            if _quiet_depth == 0:
                _quiet_filters.__exit__(None, None, None)
