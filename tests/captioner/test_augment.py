from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from captioner.augment import posts, views


@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 1000), st.booleans())
@settings(max_examples=40, deadline=None)
def test_views_of_any_picture_start_with_itself_and_are_repeatable(
    width: int, height: int, seed: int, template: bool
) -> None:
    image = Image.radial_gradient("L").resize((width, height)).convert("RGB")
    made = views(image, 4, seed, template=template)
    assert len(made) == 4
    assert made[0] is image
    assert all(v.mode == "RGB" and min(v.size) >= 1 for v in made)
    again = views(image, 4, seed, template=template)
    assert [v.tobytes() for v in made] == [v.tobytes() for v in again]


@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_posts_of_any_picture_start_with_itself_and_are_repeatable(width: int, height: int, seed: int) -> None:
    image = Image.radial_gradient("L").resize((width, height)).convert("RGB")
    made = posts(image, 5, seed)
    assert len(made) == 5
    assert made[0] is image
    assert all(v.mode == "RGB" and min(v.size) >= 1 for v in made)
    assert [v.tobytes() for v in made] == [v.tobytes() for v in posts(image, 5, seed)]
