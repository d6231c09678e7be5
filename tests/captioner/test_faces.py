"""Faces are found where they are, and nowhere else; the face is Grace Hopper's, whose portrait matplotlib carries."""

from pathlib import Path

import matplotlib as mpl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from sklearn.datasets import load_sample_images

from captioner.faces import Faces
from captioner.images import Face


@pytest.fixture(scope="module")
def faces() -> Faces:
    return Faces()


@pytest.fixture(scope="module")
def portrait() -> Image.Image:
    with Image.open(Path(mpl.get_data_path()) / "sample_data" / "grace_hopper.jpg") as image:
        return image.convert("RGB")


def shared(one: Face, other: Face) -> float:
    """The intersection over union of two boxes."""
    sides = [max(0.0, min(one[i + 2], other[i + 2]) - max(one[i], other[i])) for i in (0, 1)]
    areas = [(face[2] - face[0]) * (face[3] - face[1]) for face in (one, other)]
    return sides[0] * sides[1] / (sum(areas) - sides[0] * sides[1])


def test_a_face_is_found_where_it_is(faces: Faces, portrait: Image.Image) -> None:
    (face,) = faces.find(portrait)
    assert shared(face, (0.33, 0.15, 0.67, 0.62)) > 0.7, face


def test_in_a_mirror_it_is_on_the_other_side(faces: Faces, portrait: Image.Image) -> None:
    (face,), (mirrored,) = faces.find(portrait), faces.find(ImageOps.mirror(portrait))
    assert shared((1 - face[2], face[1], 1 - face[0], face[3]), mirrored) > 0.8


@settings(max_examples=25, deadline=None)
@given(share=st.floats(0.35, 1), x=st.floats(0, 1), y=st.floats(0, 1), wide=st.floats(0.5, 2))
def test_it_is_found_anywhere_and_at_any_size(
    share: float, x: float, y: float, wide: float, faces: Faces, portrait: Image.Image
) -> None:
    (face,) = faces.find(portrait)
    size = round(600 * wide**0.5), round(600 / wide**0.5)
    pasted = ImageOps.contain(portrait, (round(size[0] * share), round(size[1] * share)))
    left, top = round((size[0] - pasted.width) * x), round((size[1] - pasted.height) * y)
    canvas = Image.new("RGB", size, (200, 210, 220))
    canvas.paste(pasted, (left, top))
    there = (
        (left + face[0] * pasted.width) / size[0],
        (top + face[1] * pasted.height) / size[1],
        (left + face[2] * pasted.width) / size[0],
        (top + face[3] * pasted.height) / size[1],
    )
    assert any(shared(found, there) > 0.5 for found in faces.find(canvas))


@pytest.mark.parametrize("size", [(1, 1), (11, 11), (12, 12), (13, 4000), (4000, 13), (300, 200)])
def test_nothing_is_no_face(size: tuple[int, int], faces: Faces) -> None:
    assert faces.find(Image.new("RGB", size, (128, 90, 70))) == []
    assert faces.find(Image.effect_noise(size, 90).convert("RGB")) == []


def test_a_temple_and_a_flower_have_none(faces: Faces) -> None:
    for pixels in load_sample_images().images:
        assert faces.find(Image.fromarray(pixels)) == []
