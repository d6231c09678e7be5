import json
from pathlib import Path

import pytest
from PIL import Image

from captioner.captioner import Captioner
from captioner.rating import lay_out


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lines = []
    for i, name in enumerate(("owl", "cat", "beach")):
        Image.new("RGB", (160, 120), (60 * i, 90, 120)).save(tmp_path / f"{name}.jpg")
        style = "describe" if name == "beach" else "meme"
        for split in ("train", "dev"):
            lines.append({"picture": f"{name}.jpg", "boxes": [f"{name} {split}"], "style": style, "split": split})
    (tmp_path / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return tmp_path


def test_memes_by_people_and_models_are_laid_out_so_that_nothing_but_the_list_tells_them_apart(
    folder: Path, tiny_model: Path
) -> None:
    captioner, other = (Captioner.load(tiny_model, device="cpu", threads=1) for _ in range(2))
    other.name = "other"
    out = folder / "out"
    count = lay_out({"folder": folder}, [captioner, other], out, pictures=9, split="dev", seed=1)
    lines = [json.loads(line) for line in (out / "captions.jsonl").read_text().splitlines()]
    assert count == len(lines) == 9
    assert {(line["picture"], line["system"]) for line in lines} == {
        (picture, system) for picture in ("owl", "cat", "beach") for system in ("people", "tiny", "other")
    }
    assert {tuple(line["boxes"]) for line in lines if line["system"] == "people"} == {
        ("owl dev",),
        ("cat dev",),
        ("beach dev",),
    }
    for line in lines:
        assert len(line["file"]) == 20
        with Image.open(out / line["file"]) as meme:
            assert meme.size == (160, 120)
            assert not meme.getexif()
    assert [line["system"] for line in lines] != sorted(line["system"] for line in lines)
    with pytest.raises(ValueError, match="already holds"):
        lay_out({"folder": folder}, [captioner], out, pictures=1, split="dev", seed=1)


def test_what_could_not_be_told_apart_is_refused(folder: Path, tiny_model: Path) -> None:
    captioner = Captioner.load(tiny_model, device="cpu", threads=1)
    with pytest.raises(ValueError, match="same name"):
        lay_out({"folder": folder}, [captioner, captioner], folder / "out", pictures=1, split="dev", seed=1)
    with pytest.raises(ValueError, match="no captions in the split test"):
        lay_out({"folder": folder}, [captioner], folder / "out", pictures=1, split="test", seed=1)
    assert not (folder / "out").exists()
