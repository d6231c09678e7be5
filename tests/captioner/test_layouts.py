import pytest

from captioner.layouts import Box, layout_for, parsed, shipped

LAYOUTS = [(name, layout) for name, layouts in shipped().items() for layout in layouts.values()]


@pytest.mark.parametrize(("name", "layout"), LAYOUTS)
def test_shipped_boxes_lie_on_the_picture_and_apart(name: str, layout: tuple[Box, ...]) -> None:
    for i, box in enumerate(layout):
        left, top, right, bottom = box.at
        assert 0 <= left < right <= 1
        assert 0 <= top < bottom <= 1
        for other in layout[:i]:
            apart_x = right <= other.at[0] or other.at[2] <= left
            apart_y = bottom <= other.at[1] or other.at[3] <= top
            assert apart_x or apart_y


def test_drake_speaks_on_the_right_and_mirrored_on_the_left() -> None:
    layout = layout_for("drake-hotline-bling", 2)
    mirrored = layout_for("drake-hotline-bling", 2, mirrored=True)
    assert layout is not None
    assert mirrored is not None
    assert all(box.at[0] > 0.5 and box.ink == "dark" for box in layout)
    assert all(box.at[2] < 0.5 and box.ink == "dark" for box in mirrored)
    assert [box.at[1::2] for box in layout] == [box.at[1::2] for box in mirrored]


def test_other_templates_and_other_numbers_of_boxes_have_no_layout() -> None:
    assert layout_for("drake-hotline-bling", 7) is None
    assert layout_for("nobody-knows-this", 2) is None


@pytest.mark.parametrize(
    ("boxes", "sentence"),
    [
        ([{"at": [10, 10, 5, 20], "ink": "light"}], "does not lie on the picture"),
        ([{"at": [0, 0, 101, 20], "ink": "light"}], "does not lie on the picture"),
        ([{"at": [0, 0, 10, 20], "ink": "red"}], "neither light nor dark"),
    ],
)
def test_what_is_no_layout_is_refused_by_name(boxes: list[dict[str, object]], sentence: str) -> None:
    with pytest.raises(ValueError, match=f"bad-template.*{sentence}"):
        parsed({"bad-template": [{"boxes": boxes}]})


def test_two_layouts_of_as_many_boxes_are_refused() -> None:
    table = {"boxes": [{"at": [0, 0, 10, 10], "ink": "light"}]}
    with pytest.raises(ValueError, match="two layouts of 1 boxes"):
        parsed({"twice": [table, table]})
