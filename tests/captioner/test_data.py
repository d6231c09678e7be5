import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from captioner import data
from captioner.corpora import read, taught_samples
from captioner.data.imgflip575k import percentiles
from captioner.data.near import LIKE, NearDuplicates, frequencies
from captioner.data.samples import MAX_CHARACTERS, Sample, told_apart, why_dropped

SIDES = ("train", "dev", "test")


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


def test_flickr8k_without_the_lists_of_its_splits(tmp_path: Path) -> None:
    picture(tmp_path / "Flickr8k_Dataset/val.jpg")
    (tmp_path / "Flickr8k.token.txt").write_text("val.jpg#0\tA dog runs .")
    with pytest.raises(FileNotFoundError, match=r"no Flickr_8k\.trainImages\.txt.*as published"):
        list(data.load("flickr8k", tmp_path))
    (tmp_path / "dataset_flickr8k.json").write_text(karpathy("flickr8k"))
    assert [(s.text, s.split) for s in data.load("flickr8k", tmp_path)] == [("A val picture", "dev")]


def karpathy(name: str, **where: str) -> str:
    """A small file of Karpathy's with an image of every split."""
    images = [
        {"filename": f"{split}.jpg", "split": split, "sentences": [{"tokens": [], "raw": f" A {split} picture . "}]}
        for split in ("train", "restval", "val", "test")
    ]
    return json.dumps({"dataset": name, "images": [image | where for image in images]})


def test_flickr8k_in_karpathys_layout(tmp_path: Path) -> None:
    pictures = {s: picture(tmp_path / f"Flicker8k_Dataset/{s}.jpg") for s in ("train", "val", "test")}
    (tmp_path / "dataset_flickr8k.json").write_text(karpathy("flickr8k"))
    found = {s.picture: s for s in data.load("flickr8k", tmp_path)}
    assert {name: found[path].split for name, path in pictures.items()} == {
        "train": "train", "val": "dev", "test": "test",
    }  # fmt: skip
    assert found[pictures["val"]].boxes == ("A val picture",)


@pytest.mark.parametrize("below", ["", "images/"])
def test_coco_in_karpathys_layout(tmp_path: Path, below: str) -> None:
    img = picture(tmp_path / f"{below}val2014/restval.jpg")
    (tmp_path / "dataset_coco.json").write_text(karpathy("coco", filepath="val2014"))
    found = list(data.load("coco", tmp_path))
    assert found == [Sample(img, ("A restval picture",), "describe", split="train")]


def test_coco_of_2017_in_karpathys_layout(tmp_path: Path) -> None:
    img = picture(tmp_path / "images/train2017/000000000009.jpg")
    told = karpathy("coco", filepath="val2014").replace('"filename": "restval.jpg"', '"filename": "x.jpg", "cocoid": 9')
    (tmp_path / "dataset_coco.json").write_text(told)
    assert list(data.load("coco", tmp_path)) == [Sample(img, ("A restval picture",), "describe", split="train")]


def test_a_set_of_which_nothing_is_kept_is_named(tmp_path: Path) -> None:
    (tmp_path / "captions.jsonl").write_text("")
    with pytest.raises(ValueError, match="gives no caption"):
        read({"folder": tmp_path})


@pytest.mark.parametrize("years", [("2014",), ("2017",), ("2014", "2017")])
def test_coco_as_annotation_files(tmp_path: Path, years: tuple[str, ...]) -> None:
    (tmp_path / "annotations").mkdir()
    for year in years:
        for number, part in enumerate(("train", "val")):
            picture(tmp_path / f"{part}{year}/{number}.jpg")
            published = {
                "images": [{"id": i, "file_name": f"{i}.jpg"} for i in (number, 9)],
                "annotations": [
                    {"image_id": i, "id": 10 * i + k, "caption": f"Caption {k}.\n"} for i in (number, 9) for k in (1, 2)
                ],
            }
            (tmp_path / f"annotations/captions_{part}{year}.json").write_text(json.dumps(published))
    found = list(data.load("coco", tmp_path))
    assert [(s.picture.parent.name, s.text, s.split) for s in found] == [
        (f"{part}{years[0]}", f"Caption {k}", split) for part, split in (("train", "train"), ("val", "dev"))
        for k in (1, 2)
    ]  # fmt: skip


def test_a_damaged_file_of_karpathys_is_named(tmp_path: Path) -> None:
    picture(tmp_path / "Images/a.jpg")
    (tmp_path / "dataset_flickr8k.json").write_text('{"images": [{"filename": "a.jpg"}]}')
    with pytest.raises(ValueError, match=r"dataset_flickr8k\.json"):
        list(data.load("flickr8k", tmp_path))


@pytest.mark.parametrize("name", sorted(data.IMPORTERS))
def test_another_layout_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"as published|has no captions"):
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


def memes(*texts: str, template: str = "t") -> list[Sample]:
    return [Sample(Path("a.jpg"), (text,), "meme", template) for text in texts]


def test_near_duplicates_are_dropped_within_a_template() -> None:
    long = "one does not simply write fourteen quite different words into a single test caption"
    texts = [
        "you get a car",
        "a car you get!",
        long,
        long + " today",
        long.replace("fourteen", "thirteen"),
        long.replace("fourteen quite different", "a few"),
    ]
    dropped: Counter[str] = Counter()
    kept = list(data.cleaned(memes(*texts) + memes(texts[1], template="u"), dropped))
    assert [(s.template, s.text) for s in kept] == [("t", texts[0]), ("t", long), ("t", texts[5]), ("u", texts[1])]
    assert dropped == {"near-duplicate": 3}


def test_near_duplicates_of_sets_read_before_are_dropped() -> None:
    before = list(data.cleaned(memes("you get a car"), Counter()))
    assert list(data.cleaned(memes("a car you get", "me too"), Counter(), before)) == memes("me too")


@given(st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=9), max_size=30))
def test_like_word_sets_are_found_as_by_comparing_all(captions: list[list[str]]) -> None:
    sets = [frozenset(c) for c in captions]
    found = NearDuplicates(frequencies(sets))
    kept: list[frozenset[str]] = []
    for words in sets:
        alike = any(len(words & other) >= LIKE * len(words | other) for other in kept)
        assert found.has("group", words) == alike
        if not alike:
            found.add("group", words)
            kept.append(words)


@given(st.lists(st.tuples(st.permutations(["a", "b", "c", "d"]), st.sampled_from("tuv")), min_size=2))
def test_no_near_duplicate_of_a_training_caption_is_held_out(captions: list[tuple[list[str], str]]) -> None:
    samples = [s for order, template in captions for s in memes(" ".join(order), template=template)]
    kept = list(data.cleaned(samples, Counter()))
    assert len({data.split_of(s) for s in kept}) == 1


@given(st.lists(st.tuples(st.permutations(["a", "b", "c", "d"]), st.sampled_from("tuv"), st.sampled_from(SIDES))))
def test_no_near_duplicate_is_on_two_sides(captions: list[tuple[list[str], str, str]]) -> None:
    samples = [replace(memes(" ".join(order), template=template)[0], split=side) for order, template, side in captions]
    for by in (data.SPLITS["caption"], data.SPLITS["template"]):
        kept = list(data.cleaned(samples, Counter(), split=by))
        assert len({by(s) for s in kept}) <= 1


def test_a_set_that_keeps_memes_for_tests_keeps_them_whatever_is_held_out() -> None:
    for by in data.SPLITS.values():
        assert {by(replace(memes("x", template=f"t{i}")[0], split="test")) for i in range(60)} == {"test"}


def test_whole_templates_are_held_out() -> None:
    sides = {f"template {i}": data.SPLITS["template"](memes("x", template=f"template {i}")[0]) for i in range(400)}
    assert 20 < sum(side == "dev" for side in sides.values()) < 60
    assert all(data.SPLITS["template"](memes("y", template=name)[0]) == side for name, side in sides.items())


def test_pictures_are_held_out_by_name_where_the_set_does_not_say() -> None:
    sides = [data.SPLITS["picture"](Sample(Path(f"{i}.jpg"), ("x",), "describe")) for i in range(2000)]
    assert 20 < sides.count("dev") < 70
    assert data.SPLITS["picture"](Sample(Path("a"), ("x",), "describe", split="test")) == "test"


def test_slurs_and_hate_are_dropped_by_reason() -> None:
    assert why_dropped(("kill yourself",)) == "harm"
    assert why_dropped(("what a r3tard",)) == "slur"


@given(st.text(min_size=1, max_size=30))
def test_a_text_is_on_one_side_whatever_its_case_and_picture(text: str) -> None:
    sides = {data.split_of(Sample(Path(f), (t,), "meme")) for f in "ab" for t in (text, f" {text}  ")}
    assert len(sides) == 1


def test_pictures_of_one_file_name_are_two(tmp_path: Path) -> None:
    alike = [Sample(Path(folder) / "cat.jpg", ("a cat",), "describe") for folder in ("a", "b", "a")]
    dropped: Counter[str] = Counter()
    assert [s.picture.parent.name for s in data.cleaned(alike, dropped)] == ["a", "b"]
    assert dropped == {"duplicate": 1}
    pictures = [Path(p) for p in ("x/a/cat.jpg", "x/b/cat.jpg", "x/dog.jpg")]
    assert list(map(told_apart(pictures).get, pictures)) == ["a/cat.jpg", "b/cat.jpg", "dog.jpg"]
    file = tmp_path / "taught.json"
    file.write_text(json.dumps({"a/cat.jpg": ["one cat"], "b/cat.jpg": ["two cats"], "dog.jpg": ["a dog"]}))
    assert [(s.picture, s.text) for s in taught_samples(file, pictures)] == list(
        zip(pictures, ("one cat", "two cats", "a dog"), strict=True)
    )


def test_a_fiftieth_is_held_out() -> None:
    described = [Sample(Path(f"{i}.jpg"), (text,), "describe") for i in range(500) for text in ("a dog", "a cat runs")]
    of = [{data.split_of(s) for s in described if s.picture.name == f"{i}.jpg"} for i in range(500)]
    assert sorted({len(sides) for sides in of}) == [1], "the others of a picture that is learnt give it away"
    assert 2 <= of.count({"dev"}) <= 25
    held = sum(data.split_of(Sample(Path("a"), (f"caption number {i}",), "meme")) == "dev" for i in range(5000))
    assert 60 < held < 140


def test_fingerprints_ignore_case_and_punctuation() -> None:
    assert data.fingerprint("Don't  panic!") == data.fingerprint("dont panic")
    assert data.fingerprint("don't panic") != data.fingerprint("do panic")
