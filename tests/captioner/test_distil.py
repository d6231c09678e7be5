import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from captioner import distil as module
from captioner.__main__ import main
from captioner.checkpoint import Checkpoint
from captioner.corpora import Corpus
from captioner.recipe import RECIPES
from captioner.train import train
from tests.captioner.test_bench import photographs  # noqa: F401, a fixture

TINY = ("steps=6", "batch=8", "embedding=16", "units=16", "attention=8", "writer=12", "tune=0", "check_every=6")
SIZES = ("features=8", "photograph_views=2", "seed=5")


def test_teachers_describe_what_they_have_not_seen_and_a_student_learns_it(
    photographs: Path,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "taught.json"
    sets = ["--data", f"flickr8k={photographs}"]
    assert main(["distil", *sets, "--out", str(file), "--parts", "2", *TINY, *SIZES]) == 0
    written = json.loads(file.read_text("utf-8"))
    assert set(written) <= {f"{i}.jpg" for i in range(4)}, "held-out photographs are not described"
    assert written
    assert f"Wrote {sum(map(len, written.values()))} captions" in capsys.readouterr().out
    for texts in written.values():
        assert 1 <= len(texts) == len(set(texts)) <= 3

    student = tmp_path / "student.safetensors"
    assert main(["train", *sets, "--recipe", "describe", "--out", str(student), *TINY, *SIZES, f"taught={file}"]) == 0
    checkpoint = Checkpoint.load(student)
    assert checkpoint.facts["recipe"]["taught"] == "taught.json"
    assert checkpoint.decoder.config.writer == 12

    again = tmp_path / "again.json"
    assert main(["distil", *sets, "--out", str(again), "--parts", "2", *TINY, *SIZES, f"start={student}"]) == 0
    state = torch.load(tmp_path / "again" / "teacher-1" / "state.pt", weights_only=True)
    assert state["progress"]["step"] == 6
    assert state["model"]["decoder.first.weight"].shape == checkpoint.decoder.first.weight.shape
    assert not torch.allclose(state["model"]["decoder.first.weight"], checkpoint.decoder.first.weight, atol=0.05), (
        "a teacher knows nothing of what the checkpoint's decoder has seen"
    )


def test_each_teacher_sees_all_but_its_own_part(
    photographs: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    learnt: list[set[str]] = []
    described: list[set[str]] = []

    class Watched:
        def __init__(self, *_: object) -> None:
            pass

        def fit(self, corpora: list[Corpus], _: object) -> None:
            learnt.append({s.picture.name for c in corpora for s in c.samples})

    def watched(_: object, corpus: Corpus, *__: object) -> dict[str, list[str]]:
        described.append({s.picture.name for s in corpus.samples})
        return {name: ["a dog"] for name in described[-1]}

    monkeypatch.setattr(module, "Trainer", Watched)
    monkeypatch.setattr(module, "_described", watched)
    recipe = replace(RECIPES["describe"], steps=1, features=8, photograph_views=2, tune=0)
    assert module.distil({"flickr8k": photographs}, tmp_path / "t.json", recipe, "attention_gru", 3) == 4
    everything = {f"{i}.jpg" for i in range(4)}
    for taught, told in zip(learnt, described, strict=True):
        assert taught | told == everything
        assert not taught & told
    assert set.union(*described) == everything


@pytest.mark.parametrize("content", ["[]", "{", '{"other.jpg": ["a dog"]}'])
def test_a_file_that_no_teacher_wrote(
    photographs: Path,  # noqa: F811
    tmp_path: Path,
    content: str,
) -> None:
    file = tmp_path / "taught.json"
    file.write_text(content)
    recipe = replace(RECIPES["describe"], steps=1, features=8, photograph_views=2, tune=0, taught=str(file))
    with pytest.raises(ValueError, match=r"taught\.json (is no file of captions|speaks of none)"):
        train({"flickr8k": photographs}, tmp_path / "m.safetensors", recipe)


def test_one_part_leaves_nothing_to_learn_from(
    photographs: Path,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = str(tmp_path / "t.json")
    assert main(["distil", "--data", f"flickr8k={photographs}", "--out", out, "--parts", "1"]) == 2
    assert "parts is 2 or more" in capsys.readouterr().err


def test_trained_teachers_describe_together(
    photographs: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    sets = ["--data", f"flickr8k={photographs}"]
    teachers = []
    for decoder in ("show_attend_and_tell", "up_down"):
        file = tmp_path / f"{decoder}.safetensors"
        asked = ["--decoder", decoder, "--recipe", "describe", "--out", str(file), *TINY, *SIZES, "writer=0"]
        assert main(["train", *sets, *asked]) == 0
        teachers += ["--teacher", str(file)]
    out = tmp_path / "taught.json"
    assert main(["distil", *sets, "--out", str(out), *teachers, "photograph_views=2"]) == 0
    written = json.loads(out.read_text("utf-8"))
    assert set(written) == {f"{i}.jpg" for i in range(4)}, "those to learn from, and no others"
    assert all(1 <= len(texts) <= 3 for texts in written.values())
    assert main(["distil", "--data", f"folder={tmp_path}", "--out", str(out), *teachers]) == 2
