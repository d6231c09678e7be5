import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from captioner import project
from captioner.__main__ import main
from captioner.data.samples import Sample
from captioner.project import Cloud, Projected, page, separation


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Memes on two templates, and photographs of dogs and of cats, by rule told apart."""
    dice, lines = np.random.default_rng(0), []
    for name in ("boat", "owl"):
        Image.fromarray(dice.integers(0, 256, (6, 8, 3), np.uint8)).resize((64, 48)).save(tmp_path / f"{name}.jpg")
        for i in range(4):
            lines.append({"picture": f"{name}.jpg", "boxes": [f"when the {name} number {i}", "comes </script> home"]})
    for i in range(4):
        animal = "dog" if i % 2 else "cat"
        Image.new("RGB", (32, 24), (40 * i, 90, 120)).save(tmp_path / f"{i}.jpg")
        for verb in ("runs", "sleeps", "waits"):
            lines.append({"picture": f"{i}.jpg", "boxes": [f"a {animal} {verb} here"], "style": "describe"})
    (tmp_path / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return tmp_path


def test_a_data_set_is_written_as_pictures_figures_and_a_page(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(project, "_PICTURES", 4)
    out = folder / "out"
    assert main(["project", "--data", f"folder={folder}", "-o", str(out)]) == 0
    said = capsys.readouterr().out
    assert [line.split()[0] for line in said.splitlines()[1::3]] == ["pictures", "texts", "digits", "Wrote"]
    for name in ("pictures", "texts", "digits"):
        with Image.open(out / f"{name}.png") as image:
            assert image.width > 1000
    figures = json.loads((out / "projection.json").read_text())
    assert [each["space"] for each in figures["texts"]] == ["full", "2-D", "3-D"]
    assert figures["digits"][0]["purity"] > 0.95  # the reference does separate
    html = (out / "projection.html").read_text("utf-8")
    assert "http" not in html
    assert html.count("</script>") == 1
    assert "comes \\u003c/script> home" in html


def test_photographs_are_categorised_by_what_their_descriptions_agree_on() -> None:
    texts = {"a": ["a brown dog", "the dog", "an animal"], "b": ["a dog", "brown dog"], "c": ["one", "two"]}
    samples = [Sample(Path(p), (t,), "describe") for p, own in texts.items() for t in own]
    samples += [Sample(Path("x"), ("when",), "meme", "owl")] * 2
    chosen = project._chosen(samples, 10)
    assert {category: len(own) for category, own in chosen.items()} == {"dog": 5, "owl": 2}


def test_figures_tell_apart_what_separates_from_what_does_not() -> None:
    dice = np.random.default_rng(0)
    categories = ["a"] * 60 + ["b"] * 60
    mixed = separation("full", dice.normal(size=(120, 5)), categories)
    apart = separation("full", dice.normal(size=(120, 5)) + np.repeat([[0], [20]], 60, 0), categories)
    assert (apart.purity, apart.chance) == (1.0, 0.5)
    assert apart.silhouette > 0.8
    assert abs(mixed.silhouette) < 0.05
    assert abs(mixed.purity - 0.5) < 0.1


def test_no_two_categories_are_a_mistake_that_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "captions.jsonl").write_text('{"picture": "owl.jpg", "boxes": ["when"]}')
    assert main(["project", "--data", f"folder={folder}", "-o", str(folder / "out")]) == 2
    assert "no two categories" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore::ImportWarning", "ignore:Tensorflow not installed", "ignore::DeprecationWarning")
def test_umap_where_it_is_installed_and_a_sentence_where_it_is_not(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if importlib.util.find_spec("umap") is None:
        assert main(["project", "--data", f"folder={folder}", "-o", str(folder / "out"), "--method", "umap"]) == 2
        assert "pip install -e '.[project]'" in capsys.readouterr().err
        return
    points = np.random.default_rng(0).normal(size=(60, 5)) + np.repeat([[0], [20]], 30, 0)
    plane = project._reduced(points, 2, "umap", 0)
    assert separation("2-D", plane, ["a"] * 30 + ["b"] * 30).purity == 1.0
    assert (plane == project._reduced(points, 2, "umap", 0)).all()


def test_the_page_stands_alone_and_is_even() -> None:
    cloud = Cloud("texts", np.zeros((3, 4)), ["b", "a", "b"], ["one", "two", "x" * 500])
    plane = np.array([[0.0, 0.0], [4.0, 2.0], [2.0, 1.0]])
    found = Projected(cloud, plane, np.eye(3), [separation("full", np.eye(3), ["b", "a", "b"])])
    html = page([found], "pca")
    data = json.loads(html.split("const data = ", 1)[1].split(";\n", 1)[0])
    assert data["clouds"][0]["plane"] == [[-1, -0.5], [1, 0.5], [0, 0]]
    assert data["clouds"][0]["category"] == [1, 0, 1]
    assert len(data["clouds"][0]["words"][2]) == 120


@pytest.mark.parametrize("texts", [["one", "two"], ["the same words here", "the same words there"]])
def test_too_little_to_project_is_a_sentence(
    tmp_path: Path, texts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        Image.new("RGB", (32, 24), "teal").save(tmp_path / f"{name}.png")
    lines = [{"picture": f"{n}.png", "boxes": [text]} for n, text in zip("ab", texts, strict=True)]
    (tmp_path / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    command = ["project", "--data", f"folder={tmp_path}", "-o", str(tmp_path / "out")]
    assert main([*command, "--categories", "1"]) == 2
    assert "two or more" in capsys.readouterr().err
    assert main(command) == 2
    assert "too few texts to project" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
