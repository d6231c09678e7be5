import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from captioner import data
from captioner.data.samples import Sample


def folder(path: Path, *captions: Any) -> Path:
    (path / "in").mkdir(exist_ok=True)
    Image.new("RGB", (32, 24), "teal").save(path / "in/cat.jpg")
    lines = [c if isinstance(c, str) else json.dumps({"picture": "in/cat.jpg", "boxes": ["a"]} | c) for c in captions]
    (path / "captions.jsonl").write_text("\n".join(lines), "utf-8")
    return path


def load(path: Path, *captions: Any) -> list[Sample]:
    return list(data.load("folder", folder(path, *captions)))


def test_a_caption_needs_no_more_than_picture_and_boxes(tmp_path: Path) -> None:
    found = load(tmp_path, {"boxes": ["top", "bottom"]}, "", {"style": "describe", "split": "dev", "votes": 3})
    cat = tmp_path / "in/cat.jpg"
    assert found == [Sample(cat, ("top", "bottom"), "meme", "cat"), Sample(cat, ("a",), "describe", None, split="dev")]


def test_votes_count_within_the_template(tmp_path: Path) -> None:
    found = load(tmp_path, {"votes": 1}, {"votes": 9}, {}, {"votes": 1}, {"votes": 0, "template": "other"})
    assert [s.percentile for s in found] == [
        pytest.approx(1 / 3),
        pytest.approx(5 / 6),
        None,
        pytest.approx(1 / 3),
        0.5,
    ]
    assert [s.exposure for s in found] == [0, 0, None, 0, 0]


def test_votes_count_among_captions_that_were_seen_as_often(tmp_path: Path) -> None:
    rare = [{"votes": 1, "views": i} for i in range(20)]
    often = [{"votes": 5, "views": 1000 + i} for i in range(19)] + [{"votes": 6, "views": 2000}, {"votes": 7}]
    found = load(tmp_path, *rare, *often)
    assert {s.percentile for s in found[:20]} == {0.5}
    assert {s.exposure for s in found[20:40]} == {1}
    assert found[39].percentile == pytest.approx(0.975)
    assert found[40].percentile is None  # how often was it seen?


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("{", "line 2 is no JSON"),
        ("[]", "names no picture"),
        ('{"picture": "in/cat.jpg"}', "has no boxes"),
        ('{"picture": "in/cat.jpg", "boxes": [1]}', "has no boxes"),
        ('{"picture": "../cat.jpg", "boxes": []}', "no picture"),
        ('{"picture": "dog.jpg", "boxes": []}', "no picture dog.jpg"),
        ('{"picture": "in/cat.jpg", "boxes": [], "style": "poem"}', "style"),
        ('{"picture": "in/cat.jpg", "boxes": [], "votes": "9"}', "numbers"),
    ],
)
def test_a_line_that_is_no_caption_is_named(tmp_path: Path, line: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        load(tmp_path, {}, line)


def test_a_folder_without_captions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"captions\.jsonl"):
        list(data.load("folder", tmp_path))


def test_a_byte_order_mark_and_separators_within_a_text_are_no_harm(tmp_path: Path) -> None:
    folder(tmp_path)
    lines = [json.dumps({"picture": "in/cat.jpg", "boxes": [text]}, ensure_ascii=False) for text in ("a\u2028b", "c")]
    (tmp_path / "captions.jsonl").write_bytes("\r\n".join(lines).encode("utf-8-sig"))
    assert [s.boxes for s in data.load("folder", tmp_path)] == [("a\u2028b",), ("c",)]


def test_another_encoding_is_named_with_the_file(tmp_path: Path) -> None:
    folder(tmp_path)
    (tmp_path / "captions.jsonl").write_text("{}", "utf-16")
    with pytest.raises(ValueError, match=r"captions\.jsonl is not in UTF-8"):
        list(data.load("folder", tmp_path))


@pytest.mark.parametrize("template", [["x"], 5, None])
def test_a_template_is_a_name(tmp_path: Path, template: object) -> None:
    with pytest.raises(ValueError, match="line 1: a template is a name"):
        load(tmp_path, {"template": template})
