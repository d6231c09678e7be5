import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from captioner import data
from captioner.data.imgflip575k import percentiles
from captioner.data.samples import MAX_CHARACTERS, Sample, why_dropped


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (32, 24), "teal").save(path)
    return path


def test_imgflip575k_in_its_public_layout(tmp_path: Path) -> None:
    img = picture(tmp_path / "dataset/templates/img/Two-Buttons.jpg")
    memes = tmp_path / "dataset/memes"
    memes.mkdir()
    rows = [
        {"metadata": {"views": "1,992", "img-votes": "11", "title": "x"}, "boxes": ["TOP", "BOTTOM"]},
        {"metadata": {"views": "2,001", "img-votes": 0, "title": None}, "boxes": ["ONE", None, ""]},
        {"metadata": None, "boxes": None},
    ]
    (memes / "Two-Buttons.json").write_text(json.dumps(rows))
    (memes / "No-Picture.json").write_text(json.dumps(rows))
    found = list(data.load("imgflip575k", tmp_path))
    assert [s.boxes for s in found] == [("TOP", "BOTTOM"), ("ONE",), ()]
    assert {s.picture for s in found} == {img}
    assert found[2].percentile is None
    assert found[0].template == "two-buttons"


def test_memefly_in_its_public_layout(tmp_path: Path) -> None:
    img = picture(tmp_path / "images/advice-dog.jpg")
    templates = [
        {"meme_id": 0, "meme_name": "advice-dog", "meme_bounding_box": [], "meme_text": ["a b", "c"]},
        {"meme_id": 1, "meme_name": "nobody", "meme_bounding_box": [], "meme_text": ["d"]},
    ]
    (tmp_path / "combined_data.json").write_text(json.dumps(templates))
    assert list(data.load("memefly", tmp_path)) == [Sample(img, (t,), "meme", "advice-dog") for t in ("a b", "c")]


def test_flickr8k_in_its_public_layout(tmp_path: Path) -> None:
    img = picture(tmp_path / "Flickr8k_Dataset/a.jpg")
    lines = ["a.jpg#0\tA dog\truns .", "a.jpg#1\tA dog plays .", "gone.jpg#0\tNothing .", "unlisted.jpg#0\tNothing ."]
    (tmp_path / "Flickr8k.token.txt").write_text("\n".join(lines))
    (tmp_path / "Flickr_8k.devImages.txt").write_text("a.jpg\ngone.jpg\n")
    found = list(data.load("flickr8k", tmp_path))
    assert found == [Sample(img, (t,), "describe", split="dev") for t in ("A dog\truns", "A dog plays")]


@pytest.mark.parametrize("name", sorted(data.IMPORTERS))
def test_another_layout_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="as published"):
        list(data.load(name, tmp_path))


def test_an_unknown_set_is_named() -> None:
    with pytest.raises(ValueError, match="flickr8k"):
        list(data.load("flicker", Path()))


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 100)), min_size=1, max_size=60))
def test_percentiles_lie_between_and_average_to_a_half(facts: list[tuple[int, int]]) -> None:
    memes = [{"metadata": {"views": f"{v:,}", "img-votes": str(n)}} for v, n in facts]
    found = [p for p in percentiles(memes) if p is not None]
    assert len(found) == len(memes)
    assert all(0 < p < 1 or p == 0.5 for p in found)
    assert sum(found) / len(found) == pytest.approx(0.5)


def test_the_percentile_does_not_follow_exposure() -> None:
    memes = [
        {"metadata": {"views": str(1000 * d + i), "img-votes": str(10 * d + i)}} for d in range(10) for i in range(10)
    ]
    assert percentiles(memes)[:10] == percentiles(memes)[-10:]


def test_cleaning_counts_every_reason() -> None:
    p = Path("a.jpg")
    texts = [
        "Hello  WORLD",
        "hello, world!",
        "",
        "see www.example.org",
        "x" * (MAX_CHARACTERS + 1),
        "pls upvote",
        "ha " * 9,
    ]
    dropped: Counter[str] = Counter()
    kept = list(data.cleaned([Sample(p, (t,), "meme", "t") for t in texts], dropped))
    assert [s.boxes for s in kept] == [("hello world",)]
    assert dropped == {"duplicate": 1, "empty": 1, "address": 1, "over-long": 1, "begging for votes": 1, "stutter": 1}


def test_slurs_and_hate_are_dropped_by_reason() -> None:
    assert why_dropped(("kill yourself",)) == "harm"
    assert why_dropped(("what a r3tard",)) == "slur"


@given(st.text(min_size=1, max_size=30))
def test_a_text_is_on_one_side_whatever_its_case_and_picture(text: str) -> None:
    sides = {data.split_of(Sample(Path(f), (t,), "meme")) for f in "ab" for t in (text, f" {text}  ")}
    assert len(sides) == 1


def test_a_fiftieth_is_held_out() -> None:
    held = sum(data.split_of(Sample(Path("a"), (f"caption number {i}",), "meme")) == "dev" for i in range(5000))
    assert 60 < held < 140


def test_fingerprints_ignore_case_and_punctuation() -> None:
    assert data.fingerprint("Don't  panic!") == data.fingerprint("dont panic")
    assert data.fingerprint("don't panic") != data.fingerprint("do panic")
