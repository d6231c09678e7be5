import io
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, PngImagePlugin

from captioner.images import FORMATS, ImageError, ImageTooLarge, Limits, Picture, opened, read, scaled, to_jpeg

RED, GREEN, BLUE, WHITE = (200, 30, 30), (30, 160, 30), (30, 30, 200), (255, 255, 255)


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def quarters(size: tuple[int, int] = (64, 48)) -> Image.Image:
    """Red, green / blue, white, so that every turn shows."""
    image = Image.new("RGB", (2, 2))
    image.putdata([RED, GREEN, BLUE, WHITE])
    return image.resize(size, Image.Resampling.NEAREST)


def corners(image: Image.Image) -> np.ndarray:
    width, height = image.size
    at = [(width // 4, height // 4), (3 * width // 4, height // 4), (width // 4, 3 * height // 4)]
    return np.array([image.getpixel(xy) for xy in at])


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG that promises RGB of that size and holds nothing of it."""
    body = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), *chunks, (b"IDAT", zlib.compress(b"\0"))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in body
    )


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_is_read_from_its_content(form: str) -> None:
    picture = read(encoded(quarters(), form))
    assert (picture.format, picture.frames) == (form, 1)
    assert picture.image.size == (64, 48)
    assert type(picture.image) is Image.Image
    assert np.abs(corners(picture.image) - [RED, GREEN, BLUE]).max() < 40


@pytest.mark.parametrize(
    "data",
    [
        b"just text, although its name ends in .jpg",
        b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
        b"%PDF-1.7\n",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"P6 1 1 255\n\0\0\0",
        b"\0",
    ],
)
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    with pytest.raises(ImageError, match="not a picture"):
        read(data)


def test_nothing_is_refused() -> None:
    with pytest.raises(ImageError, match="empty"):
        read(b"")


@pytest.mark.parametrize("form", FORMATS)
def test_a_truncated_file_is_refused(form: str) -> None:
    noise = Image.effect_noise((64, 64), 90).convert("RGB")
    data = encoded(noise, form)
    with pytest.raises(ImageError):
        read(data[: len(data) // 2])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "HEIF", "AVIF"])
def test_the_camera_position_is_undone(orientation: int, form: str) -> None:
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # EXIF's number → the Transpose that a camera would have applied
    held = quarters() if orientation == 1 else quarters().transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = read(encoded(held, form, exif=exif.tobytes()))
    assert picture.image.size == (64, 48)
    assert np.abs(corners(picture.image) - [RED, GREEN, BLUE]).max() < 40


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "HEIF", "AVIF"])
def test_no_metadata_comes_out(form: str) -> None:
    exif = Image.Exif()
    exif[0x010F] = "Camera"
    exif.get_ifd(0x8825)[1] = "N"
    picture = read(encoded(quarters(), form, exif=exif, icc_profile=ImageCms.ImageCmsProfile(srgb()).tobytes()))
    assert not picture.image.info
    assert not dict(picture.image.getexif())
    again = Image.open(io.BytesIO(to_jpeg(picture.image)))
    assert not dict(again.getexif())
    assert "icc_profile" not in again.info


def test_to_jpeg_strips_what_the_image_carries() -> None:
    image = quarters()
    image.info = {"exif": b"Exif\0\0secret", "icc_profile": b"secret", "comment": b"secret"}
    assert b"secret" not in to_jpeg(image)
    assert b"secret" not in to_jpeg(image.convert("RGBA"))


def srgb() -> ImageCms.core.CmsProfile:
    return ImageCms.createProfile("sRGB")


def test_transparency_is_laid_on_white() -> None:
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    half = Image.new("LA", (8, 8), (0, 128))
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([0, 0, 0, 200, 30, 30])
    assert read(encoded(clear)).image.getpixel((4, 4)) == WHITE
    assert read(encoded(half)).image.getpixel((4, 4)) == (127, 127, 127)
    assert read(encoded(palette, transparency=0)).image.getpixel((4, 4)) == WHITE
    assert read(encoded(palette, transparency=b"\x00\xff")).image.getpixel((4, 4)) == WHITE
    assert read(encoded(palette, "GIF", transparency=0)).image.getpixel((4, 4)) == WHITE


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_clipped(form: str) -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(1, 256).repeat(4, axis=0)
    image = read(encoded(Image.fromarray(ramp), form)).image
    assert [image.getpixel((x, 0)) for x in (0, 128, 255)] == [(0,) * 3, (128,) * 3, (255,) * 3]


@pytest.mark.parametrize("values", [[-5.0, 0.0, 5.0], [0.0, np.nan, 1e30], [7.0, 7.0, 7.0]])
def test_measurements_are_stretched(values: list[float]) -> None:
    image = Image.fromarray(np.array([values], dtype=np.float32))
    assert read(encoded(image, "TIFF")).image.size == (3, 1)


@pytest.mark.parametrize("form", ["JPEG", "TIFF"])
def test_cmyk_keeps_its_colours(form: str) -> None:
    image = read(encoded(quarters().convert("CMYK"), form)).image
    assert np.abs(corners(image) - [RED, GREEN, BLUE]).max() < 40


def test_a_wide_gamut_profile_is_brought_to_srgb() -> None:
    swapped = read(encoded(quarters(), icc_profile=swapped_profile())).image
    assert np.argmax(corners(swapped), axis=1).tolist() == [2, 1, 0]


def test_a_profile_that_cannot_be_used_is_ignored() -> None:
    grey = quarters().convert("L")
    assert read(encoded(grey, icc_profile=swapped_profile())).image.getchannel(0).tobytes() == grey.tobytes()
    assert corners(read(encoded(quarters(), icc_profile=b"no profile")).image).tolist() == [[*RED], [*GREEN], [*BLUE]]


def swapped_profile() -> bytes:
    """sRGB with the places of red and blue exchanged, so that applying it shows."""
    data = ImageCms.ImageCmsProfile(srgb()).tobytes()
    data = data.replace(b"rXYZ", b"tmp!").replace(b"bXYZ", b"rXYZ").replace(b"tmp!", b"bXYZ")
    return data.replace(b"s\0R\0G\0B", b"x\0X\0X\0X").replace(b"sRGB", b"xXXX")


def test_of_an_animation_the_first_frame_is_read() -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, GREEN, BLUE)]
    for form in ("GIF", "PNG", "WEBP", "AVIF"):
        picture = read(encoded(frames[0], form, save_all=True, append_images=frames[1:]))
        assert picture.frames == 3
        assert np.abs(np.array(picture.image.getpixel((8, 8))) - RED).max() < 40


def test_counting_the_frames_of_a_hostile_gif_takes_no_time() -> None:
    still = encoded(Image.new("L", (1, 1)), "GIF")
    assert read(still[:-1] + b"\x2c\0\0\0\0\1\0\1\0\0\2\0" * 1_000_000).frames == 10_000


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (2, 3)])
def test_the_smallest_pictures_work(size: tuple[int, int]) -> None:
    image = read(encoded(Image.new("RGB", size, RED))).image
    assert image.size == size
    assert Image.open(io.BytesIO(to_jpeg(scaled(image, 100)))).size == scaled(image, 100).size


def test_limits_come_before_decoding() -> None:
    with pytest.raises(ImageTooLarge, match="20 MB"):
        read(bytes(21_000_000))
    with pytest.raises(ImageTooLarge, match="12 megapixels"):
        read(png(4000, 4000), Limits(max_pixels=12_000_000))
    with pytest.raises(ImageError, match="damaged"):
        read(png(4000, 3000), Limits(max_pixels=12_000_000))


@pytest.mark.parametrize("size", [(7100, 7100), (10_000, 10_000), (30_000, 30_000), (2**31 - 1, 2**31 - 1)])
def test_a_bomb_is_refused_from_its_header(size: tuple[int, int]) -> None:
    before = psutil.Process().memory_info().rss
    bitmap = b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, *size, 1, 24, 0, 0, 0, 0, 0, 0)
    gif = b"GIF89a" + struct.pack("<HHBBB", min(size[0], 65535), min(size[1], 65535), 0, 0, 0) + b";"
    for data in (png(*size), bitmap):
        with pytest.raises(ImageTooLarge, match="50 megapixels"):
            read(data)
    with pytest.raises(ImageError):
        read(gif)
    assert psutil.Process().memory_info().rss - before < 20_000_000


def test_a_text_bomb_is_refused() -> None:
    bomb = (b"zTXt", b"Comment\0\0" + zlib.compress(bytes(300_000_000)))
    before = psutil.Process().memory_info().rss
    with pytest.raises(ImageError):
        read(png(8, 8, bomb))
    assert psutil.Process().memory_info().rss - before < 100_000_000


def test_broken_metadata_does_not_spoil_a_picture() -> None:
    info = PngImagePlugin.PngInfo()
    info.add(b"eXIf", b"no exif at all")
    assert read(encoded(quarters(), pnginfo=info)).image.size == (64, 48)
    assert read(encoded(quarters(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff")).image.size == (64, 48)


def test_warnings_are_neither_shown_nor_switched_off_for_others() -> None:
    odd = encoded(quarters(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\x09\0\6\0\0")
    with ThreadPoolExecutor(8) as pool:
        assert len(list(pool.map(read, [odd] * 100))) == 100
    with pytest.warns(UserWarning, match="still heard"):
        warnings.warn("still heard", UserWarning, stacklevel=1)


def test_scaled_keeps_the_ratio_and_never_enlarges() -> None:
    image = quarters((640, 480))
    assert scaled(image, 320).size == (320, 240)
    assert scaled(image, 640) is image
    assert scaled(quarters((5000, 2)), 100).size == (100, 1)


def samples() -> list[bytes]:
    image = quarters((24, 20))
    exif = Image.Exif()
    exif[0x0112] = 6
    return [
        *(encoded(image, form) for form in FORMATS),
        *(encoded(image, form, exif=exif) for form in ("JPEG", "PNG", "TIFF", "WEBP")),
        encoded(image.convert("CMYK"), "JPEG"),
        encoded(image, "JPEG", progressive=True, icc_profile=swapped_profile()),
        encoded(image.convert("P"), "PNG", transparency=0),
        encoded(image, "GIF", save_all=True, append_images=[image.rotate(90)]),
        encoded(image, "TIFF", compression="tiff_lzw"),
        encoded(image, "TIFF", compression="jpeg"),
        encoded(image.convert("RGBA"), "WEBP", lossless=True),
    ]


SAMPLES = samples()


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_damaged_files_give_a_picture_or_a_sentence(draw_from: st.DataObject) -> None:
    data = bytearray(draw_from.draw(st.sampled_from(SAMPLES)))
    for _ in range(draw_from.draw(st.integers(0, 6))):
        # Headers are at the beginning, and a change there breaks more than one in the pixels.
        last = min(draw_from.draw(st.sampled_from([40, 400, len(data)])), len(data)) - 1
        data[draw_from.draw(st.integers(0, last))] = draw_from.draw(st.integers(0, 255))
    cut = draw_from.draw(st.one_of(st.just(len(data)), st.integers(0, len(data))))
    try:
        picture = read(bytes(data[:cut]), Limits(max_pixels=1_000_000))
    except ImageError:
        return
    assert isinstance(picture, Picture)
    assert picture.image.mode == "RGB"
    assert not picture.image.info


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([data[:16] for data in SAMPLES]))
def test_noise_behind_a_signature_gives_a_picture_or_a_sentence(noise: bytes, start: bytes) -> None:
    with pytest.raises(ImageError):
        read(start + noise)


def test_a_file_is_read_as_a_posted_picture_and_named_where_it_is_none(tmp_path: Path) -> None:
    turned, file = Image.Exif(), tmp_path / "turned.jpg"
    turned[0x0112] = 6
    Image.new("RGB", (40, 20)).save(file, exif=turned)
    assert opened(file).image.size == (20, 40)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ImageError, match=r"turned\.jpg: The picture"):
        opened(file)
