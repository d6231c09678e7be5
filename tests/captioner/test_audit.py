import json
from pathlib import Path

import pytest
from PIL import Image

from captioner.__main__ import main
from captioner.audit import lexicon, tally


@pytest.fixture
def memes(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    Image.new("RGB", (40, 30), "teal").save(tmp_path / "images/dog.jpg")
    texts = ["My MOM is the best", "mom is so stupid today", "gay people everywhere", "a plain dog", ""]
    template = {"meme_id": 0, "meme_name": "dog", "meme_text": texts}
    (tmp_path / "combined_data.json").write_text(json.dumps([template]))
    return tmp_path


def test_groups_are_counted_before_and_after(memes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "--data", f"memefly={memes}", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["before"]["all"] == {"captions": 4, "negative": 0.25, "blocked": 0.25}
    assert found["before"]["groups"]["gender: women"] == {"captions": 2, "negative": 0.5, "blocked": 0}
    assert found["before"]["groups"]["sexuality: gay"]["blocked"] == 1
    assert found["after"]["groups"]["sexuality: gay"]["captions"] == 0
    assert found["after"]["all"]["captions"] == 3
    assert found["generated"] is None


def test_what_a_model_writes_is_a_column(
    memes: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("captioner.audit._GENERATED", 5)
    assert main(["audit", "--data", f"memefly={memes}", "--model", str(tiny_model)]) == 0
    header, everybody, *groups = capsys.readouterr().out.splitlines()
    assert "generated" in header
    assert everybody.split()[:4] == ["all", "10000.0", "25%", "25%"]
    assert len(groups) == len(lexicon()[0])


def test_nothing_to_audit_is_said(memes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (memes / "combined_data.json").write_text("[]")
    assert main(["audit", "--data", f"memefly={memes}"]) == 2
    assert "no captions" in capsys.readouterr().err


def test_a_caption_counts_for_every_group_that_it_speaks_of() -> None:
    found = tally([("a mexican girl and a jewish kid", "describe")])
    spoken = {name for name, mentions in found.groups.items() if mentions.captions}
    assert spoken == {"gender: women", "nationality: mexican", "religion: jewish", "age: children"}
