import json
import math
from pathlib import Path

import pytest
import torch
from PIL import Image

from captioner.__main__ import main
from captioner.captioner import Captioner
from captioner.checkpoint import Checkpoint
from captioner.data import SPLITS, Sample
from captioner.evaluate import KEYS, Read, relevance
from captioner.templates import Templates


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few memes, and no Java: `test_metrics` starts it."""
    monkeypatch.setattr("captioner.evaluate._MEMES", 20)
    monkeypatch.setattr("captioner.evaluate._OUTSIDE", {})


@pytest.fixture
def sets(tmp_path: Path) -> dict[str, Path]:
    (tmp_path / "images").mkdir()
    for name, colour in (("cat", "teal"), ("dog", "pink")):
        Image.new("RGB", (40, 30), colour).save(tmp_path / f"images/{name}.jpg")
    templates = [
        {"meme_id": i, "meme_name": name, "meme_text": [f"When THE {name} {k}" for k in range(5)] + ["", "  "]}
        for i, name in enumerate(("cat", "dog"))
    ]
    (tmp_path / "combined_data.json").write_text(json.dumps(templates))
    (tmp_path / "Flickr8k_Dataset").mkdir()
    Image.new("RGB", (40, 30), "red").save(tmp_path / "Flickr8k_Dataset/a.jpg")
    (tmp_path / "Flickr8k.token.txt").write_text("a.jpg#0\tA red wall .\na.jpg#1\tA wall painted red .\n")
    (tmp_path / "Flickr_8k.testImages.txt").write_text("a.jpg\n")
    return {"memefly": tmp_path, "flickr8k": tmp_path}


def test_every_figure_is_there_or_null(
    sets: dict[str, Path], tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = [part for name, folder in sets.items() for part in ("--data", f"{name}={folder}")]
    assert main(["evaluate", *chosen, "--split", "all", "--model", str(tiny_model), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert tuple(figures) == KEYS
    assert (figures["captions"], figures["dropped"], figures["pictures"]) == (12, 4, 3)
    assert figures["recogniser_top1"] is figures["meteor"] is None
    assert 0 <= figures["relevance_top1"] <= figures["relevance_top5"] == 1
    measured = [k for k in KEYS if figures[k] is not None]
    assert {"bleu4", "cider_d", "rouge_l", "distinct2", "self_bleu", "copy_rate", "peak_rss_mb"} <= set(measured)
    assert 0 <= figures["copy_rate"] <= 1


def test_a_recogniser_that_names_nothing_is_right_on_none(
    sets: dict[str, Path], tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = Checkpoint.load(tiny_model)
    checkpoint.templates = Templates(["cat"], 49, 16, 4, 4, least=2.0)
    checkpoint.save(tmp_path / "blind.safetensors")
    arguments = ["--data", f"memefly={sets['memefly']}", "--split", "all", "--json"]
    assert main(["evaluate", *arguments, "--model", str(tmp_path / "blind.safetensors")]) == 0
    assert json.loads(capsys.readouterr().out)["recogniser_top1"] == 0


def test_bits_per_character_are_those_of_one_caption_after_another(
    sets: dict[str, Path], tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The batched figure equals a plain loop over the captions: prefix given, text, separators and end counted."""
    main(
        ["evaluate", "--data", f"flickr8k={sets['flickr8k']}", "--split", "test", "--model", str(tiny_model), "--json"]
    )
    figures = json.loads(capsys.readouterr().out)
    captioner = Captioner.load(tiny_model, device="cpu", threads=1)
    image = captioner.read((sets["flickr8k"] / "Flickr8k_Dataset/a.jpg").read_bytes()).image
    bits, characters = 0.0, 0
    with torch.inference_mode():
        grid = captioner.encode([captioner.encoder.pixels([image])])
        for text in ("a red wall", "a wall painted red"):
            ids = captioner.tokenizer.encode([text])
            prefix = captioner.tokenizer.prefix("describe")
            logits = captioner.decoder(grid, torch.tensor([prefix + ids[:-1]]))[0, 1:]
            bits -= float(logits.log_softmax(-1)[torch.arange(len(ids)), torch.tensor(ids)].sum()) / math.log(2)
            characters += len(text) + 1
    assert figures["bits_per_char"] == pytest.approx(bits / characters, rel=1e-4)


def test_the_template_is_read_off_captions_that_speak_of_it() -> None:
    people = [
        Sample(Path(f"{name}.jpg"), (f"{word} number {i}",), "meme", name)
        for name, word in (("cat", "meow"), ("dog", "woof"), ("cow", "moo"))
        for i in range(9)
    ]
    captions, names = [["meow"], ["moo"], ["woof"], ["woof"]], ["cat", "cow", "dog", "cat"]
    figures = relevance(captions, names, Read(train=people, held=people))
    assert (figures["relevance_top1"], figures["relevance_top5"]) == (0.75, 1)
    assert figures["relevance_top1_people"] == 1


def test_whole_templates_may_be_held_out(
    sets: dict[str, Path], tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["evaluate", "--data", f"memefly={sets['memefly']}", "--by", "template", "--model", str(tiny_model)]
    sides = {name: SPLITS["template"](Sample(Path(), ("x",), "meme", name)) for name in ("cat", "dog")}
    assert main([*arguments, "--split", sides["cat"], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["pictures"] == list(sides.values()).count(sides["cat"])


def test_an_empty_split_is_named(sets: dict[str, Path], tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["evaluate", "--data", f"flickr8k={sets['flickr8k']}", "--split", "dev", "--model", str(tiny_model)]
    assert main(arguments) == 2
    assert "dev" in capsys.readouterr().err
