"""Fine-tuning and the gate, on a tiny model: through the commands, resumed, and refused with a reason."""

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from captioner.__main__ import main
from captioner.captioner import Captioner, Wish
from captioner.checkpoint import Checkpoint
from captioner.finetune import Recipe, Tuner, finetune, prepare
from captioner.gate import Rules, Writer, Written, bits, judged, verdict
from captioner.images import to_jpeg
from captioner.labels import Labels, Meme, eyes, maker, packed, seen_by
from captioner.replay import grids, logprob, made_up, replay, written

QUICK = Recipe(memes=10, downs=3, epochs=2, batch=16, others=2, texts=20, check_every=5, rate=3e-3, divergence=9.0)
WORDS = ["dog", "cat", "test", "beach", "brain", "grass", "man", "when"]


def _labels(count: int = 90, made_by: int = 0) -> Labels:
    """Votes for memes with a dog."""
    rng = random.Random(4)
    memes = []
    for i in range(count):
        said = tuple(rng.sample(WORDS, 3))
        up = float(rng.random() < (0.9 if "dog" in said else 0.1))
        others = tuple((" ".join(rng.sample(WORDS, 3)),) for _ in range(3))
        template = "t" if i % 3 else None
        grid = np.random.default_rng(i).normal(size=(49, 16)).astype(np.float32)
        features = packed(grid, made_by) if i % 2 else None
        memes.append(Meme((" ".join(said),), template, up, 1 - up, "c", float(i), str(i), False, features, others))
    return Labels(memes, [])


def _file(folder: Path, labels: Labels) -> Path:
    file = folder / "labels.jsonl"
    lines = [
        {"kind": "meme", "id": m.id, "boxes": m.boxes, "template": m.template, "at": m.at, "chat": m.chat}
        | {"up": m.up, "down": m.down, "candidates": [{"boxes": c} for c in m.candidates]}
        for m in labels.memes
    ]
    file.write_text("\n".join(map(json.dumps, lines)), "utf-8")
    return file


@pytest.mark.parametrize("method", ["kto", "weighted"])
def test_what_is_liked_becomes_likelier(tiny_model: Path, tmp_path: Path, method: str) -> None:
    labels = _labels()
    before, after = Checkpoint.load(tiny_model), Checkpoint.load(tiny_model)
    recipe = replace(QUICK, method=method)
    figures = finetune(after, labels, tmp_path / "new.safetensors", recipe)
    lessons = prepare(before, labels, recipe, {})
    odds = []
    for checkpoint in (before, after):
        with torch.no_grad():
            found = logprob(checkpoint, checkpoint.decoder, torch.zeros(len(lessons.voted), 49, 16), lessons.voted)
        up = torch.tensor([t.up for t in lessons.voted])
        down = torch.tensor([t.down for t in lessons.voted])
        odds.append(float((found * up).sum() / up.sum() - (found * down).sum() / down.sum()))
    assert odds[1] > odds[0] + 0.1
    assert figures["step"] > 0
    saved = Checkpoint.load(tmp_path / "new.safetensors")
    assert saved.name == "new"
    assert saved.facts["parent"] == "tiny"
    captioner = Captioner.load(tmp_path / "new.safetensors", device="cpu", threads=1)
    assert captioner.decode(torch.zeros(1, 49, 16), [Wish()], [1])[0].captions


def test_a_run_that_was_cut_off_ends_as_one_that_was_not(tiny_model: Path, tmp_path: Path) -> None:
    class CutOff(Exception):  # noqa: N818, no error of the project's
        pass

    class Short(Tuner):
        def _update(self) -> float:
            if self.step == 5:
                raise CutOff
            return super()._update()

    mine = eyes(Checkpoint.load(tiny_model).reduction.basis.numpy())
    labels, whole, how = _labels(30, mine), tmp_path / "whole.safetensors", replace(QUICK, check_every=2)
    finetune(Checkpoint.load(tiny_model), labels, whole, how)
    part = tmp_path / "part.safetensors"
    part.with_suffix("").mkdir()
    checkpoint = Checkpoint.load(tiny_model)
    with pytest.raises(CutOff):
        Short(checkpoint, prepare(checkpoint, labels, how, {}), how, part.with_suffix("")).fit()
    finetune(Checkpoint.load(tiny_model), labels, part, how)
    one, two = (Checkpoint.load(f).decoder.state_dict() for f in (whole, part))
    assert all(torch.equal(one[k], two[k]) for k in one)
    turned = Labels([replace(m, up=m.down, down=m.up) for m in labels.memes], [])
    seen = [replace(m, features=labels.memes[1].features if m.features else None) for m in labels.memes]
    for other in (_labels(31, mine), turned, Labels(seen, [])):
        with pytest.raises(ValueError, match="other labels"):
            finetune(Checkpoint.load(tiny_model), other, part, how)
    checkpoint = Checkpoint.load(tiny_model)
    lessons = prepare(checkpoint, labels, how, {})
    replayed = replace(lessons.replay, texts=lessons.replay.texts[1:])
    with pytest.raises(ValueError, match="other labels, replay"):
        Tuner(checkpoint, replace(lessons, replay=replayed), how, part.with_suffix("")).fit()


def test_a_run_ends_before_the_divergence(tiny_model: Path, tmp_path: Path) -> None:
    wild = replace(QUICK, rate=0.02, divergence=0.02, check_every=1, replay=0.0)
    checkpoint = Checkpoint.load(tiny_model)
    tuner = Tuner(checkpoint, prepare(checkpoint, _labels(), wild, {}), wild, tmp_path)
    figures = tuner.fit()
    assert tuner.ended
    assert figures["divergence"] <= 0.02
    assert figures["step"] < tuner.steps


def test_memes_without_features_take_their_templates_mean(tiny_model: Path) -> None:
    lessons = prepare(Checkpoint.load(tiny_model), _labels(), QUICK, {})
    posted = lessons.voted[:: 1 + QUICK.others]
    kinds = [None if t.grid is None else type(lessons.pictures[t.grid]) for t in posted]
    assert [kinds[i] for i in (0, 1, 2)] == [None, bytes, np.ndarray]


def test_features_of_another_models_eyes_are_left_out(tiny_model: Path) -> None:
    mine = eyes(Checkpoint.load(tiny_model).reduction.basis.numpy())
    captioner = Captioner.load(tiny_model, device="cpu", threads=1)
    picture = captioner.read(to_jpeg(Image.new("RGB", (40, 40), "teal")))
    made = captioner.caption([(picture, Wish(features=True))])[0]
    assert maker(made.features or b"") == mine
    assert any(m.features for m in seen_by(_labels(9, mine), mine).memes)
    assert not any(m.features for m in seen_by(_labels(9), mine).memes)


def test_a_model_with_a_shortlist_replays_from_it(tiny_model: Path) -> None:
    checkpoint = Checkpoint.load(tiny_model)
    listed = torch.arange(0, len(checkpoint.tokenizer) - 100)
    checkpoint.decoder.shorten(listed)
    made = written(checkpoint, [np.zeros((49, 16), np.float32)], 1)
    assert {i for t in made for i in t.ids} <= set(listed.tolist())


def test_replay_without_any_data_is_the_models_own(tiny_model: Path) -> None:
    checkpoint = Checkpoint.load(tiny_model)
    assert len(grids(checkpoint, Labels([], []), 3, 1)) == 3
    found = replay(checkpoint, _labels(), {}, 40, 1)
    assert {t.style for t in found.texts} == {"meme", "describe"}
    assert bits(checkpoint, found) > 0
    assert found.texts == replay(Checkpoint.load(tiny_model), _labels(), {}, 40, 1).texts
    assert made_up(1, 2).tobytes() == made_up(1, 2).tobytes() != made_up(1, 3).tobytes()


def test_the_commands(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = _file(tmp_path, _labels(240))
    out = tmp_path / "next.safetensors"
    common = ["--labels", str(file), "--model", str(tiny_model), "--threads", "1"]
    assert main(["finetune", *common, "--out", str(out)]) == 3
    assert "fine-tuning takes 2000" in capsys.readouterr().err
    assert not out.exists()
    changes = ["memes=50", "downs=5", "epochs=0.2", "texts=20", "others=1", "batch=16"]
    assert main(["finetune", *common, "--out", str(out), *changes, "beta=0"]) == 2
    assert "beta takes a number above 0" in capsys.readouterr().err
    assert main(["finetune", *common, "--out", str(out), *changes]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["method"] == Recipe().method
    gate = ["gate", *common, "--candidate", str(out), "pictures=6", "captions=3"]
    assert main([*gate, "level=1"]) == 2
    assert "level takes a number between 0 and 1" in capsys.readouterr().err
    assert main([*gate, "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(told) == {"promote", "reasons", "model", "candidate", "labels", "seed"}
    assert (told["model"], told["candidate"]) == ("tiny", "next")
    assert told["promote"] == all(r["holds"] for r in told["reasons"])
    assert main(gate) == 0
    assert "approval" in capsys.readouterr().out
    few = _file(tmp_path, _labels(30))
    assert main(["gate", "--labels", str(few), "--model", str(tiny_model), "--candidate", str(out), "pictures=2"]) == 3
    assert "9 have votes that count" in capsys.readouterr().err
    assert main(["finetune", "--labels", str(few), "--out", str(out), "memes=20", "downs=1"]) == 3
    assert "too few to judge by" in capsys.readouterr().err


def test_broken_labels_are_a_sentence(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "l.jsonl").write_text("{}\n")
    assert main(["finetune", "--labels", str(tmp_path / "l.jsonl"), "--out", str(tmp_path / "x.safetensors")]) == 2
    assert "Line 1" in capsys.readouterr().err


def test_a_model_that_says_one_thing_is_refused_for_it() -> None:
    rng = random.Random(1)
    captions = [[(" ".join(rng.sample(WORDS * 3, 6)),) for _ in range(4)] for _ in range(40)]
    before = Written(captions, 160, 0, 0, 1.0)
    liked = Written([[("the dog is a dog",)] * 4] * 40, 160, 0, 0, 1.0)
    reasons = judged(_labels(300), before, liked, (1.5, 1.5), Rules())
    told = verdict(reasons, "a", "b", 90, Rules())
    assert not told["promote"]
    failed = {r.what for r in reasons if not r.holds}
    assert {"distinct-2", "self-BLEU"} <= failed
    assert any("collapsed" in r.sentence for r in reasons if not r.holds)


def test_more_of_what_is_liked_passes_and_what_breaks_does_not() -> None:
    rng = random.Random(2)
    plain = [[(" ".join(rng.sample(WORDS[1:] * 3, 6)),) for _ in range(4)] for _ in range(40)]
    dogs = [[(boxes[0] + " dog",) for boxes in of] for of in plain]

    def holds(after: Written, text_bits: float = 1.5) -> dict[str, bool]:
        before = Written(plain, 160, 2, 2, 1.0)
        return {r.what: r.holds for r in judged(_labels(400), before, after, (1.5, text_bits), Rules())}

    assert all(holds(Written(dogs, 160, 2, 2, 1.1)).values())
    assert not holds(Written(plain, 160, 2, 2, 1.0))["approval"]
    assert not holds(Written(dogs, 160, 20, 2, 1.0))["copies"]
    assert not holds(Written(dogs, 160, 2, 20, 1.0))["blocked"]
    assert not holds(Written(dogs, 160, 2, 2, 3.0))["milliseconds"]
    assert not holds(Written(dogs, 160, 2, 2, 1.0), 1.7)["bits per character"]


def test_a_writer_counts_what_may_not_be_said(tiny_model: Path) -> None:
    found = Writer.open(tiny_model).write([np.zeros((49, 16), np.float32)] * 3, Rules(captions=4))
    assert len(found.captions) == 3
    assert found.drawn >= 3 * 4
    assert found.copies + found.blocked <= found.drawn
