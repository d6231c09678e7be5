import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from benchmarks import captions


@pytest.fixture
def sets(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    (tmp_path / "Flickr8k_Dataset").mkdir()
    for name, colour in (("cat", "teal"), ("dog", "pink"), ("cow", "red")):
        Image.new("RGB", (40, 30), colour).save(tmp_path / f"images/{name}.jpg")
        Image.new("RGB", (40, 30), colour).save(tmp_path / f"Flickr8k_Dataset/{name}.jpg")
    numbers = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
    templates = [
        {
            "meme_id": i,
            "meme_name": name,
            "meme_text": [f"when the {name} is {a} of {b}" for a in numbers for b in numbers],
        }
        for i, name in enumerate(("cat", "dog"))
    ]
    (tmp_path / "combined_data.json").write_text(json.dumps(templates))
    (tmp_path / "Flickr8k.token.txt").write_text(
        "".join(f"{name}.jpg#{k}\tA {name} runs for the ball .\n" for name in ("cat", "dog", "cow") for k in range(5))
    )
    (tmp_path / "Flickr_8k.trainImages.txt").write_text("cat.jpg\n")
    (tmp_path / "Flickr_8k.devImages.txt").write_text("dog.jpg\ncow.jpg\n")
    return tmp_path


def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> dict[str, float | None]:
    monkeypatch.setattr(sys, "argv", ["captions", *arguments, "--threads", "1", "--json"])
    captions.main()
    found: dict[str, float | None] = json.loads(capsys.readouterr().out)
    return found


def test_every_figure_is_measured(
    sets: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(captions, "PIECES", 500)
    (sets / "words.txt").write_text("zounds\n")
    data = ("--data", f"memefly={sets}", "--data", f"flickr8k={sets}", "--words", str(sets / "words.txt"))
    figures = run(monkeypatch, capsys, *data, "--model", str(tiny_model), "--memes", "12", "--photographs", "2")
    assert None not in figures.values()
    shares = ("copies", "distinct_captions", "distinct2", "telling_apart_auc", "matching", "read_as_memes")
    assert all(0 <= figures[k] <= 1 for k in shares)  # type: ignore[operator]
    assert figures["captions_said"] == 14
    assert figures["innocent_blocked"] == 0


def test_figures_without_their_data_are_null(
    sets: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = run(monkeypatch, capsys, "--data", f"flickr8k={sets}", "--model", str(tiny_model), "--photographs", "2")
    assert figures["copies"] is figures["matching"] is figures["fluency_people"] is None
    assert figures["captions_said"] == 2
