import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from captioner import commands
from captioner.__main__ import arguments, main


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.new("RGB", (80, 60), "teal").save(tmp_path / "a.jpg")
    Image.new("RGB", (60, 80), "pink").save(tmp_path / "a.png")
    (tmp_path / "b.jpg").write_text("no picture")
    (tmp_path / ".hidden").write_text("")
    return tmp_path


def test_every_picture_gets_a_line_whatever_happened_to_it(
    folder: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["caption", str(folder), str(folder / "gone.jpg"), "--json", "--n", "2", "--model", str(tiny_model)])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert status == 0
    assert [Path(line["image"]).name for line in lines] == ["a.jpg", "a.png", "b.jpg", "gone.jpg"]
    keys = {"image", "template", "description", "captions", "seed", "model", "error"}
    assert all(set(line) == keys for line in lines)
    assert [bool(line["error"]) for line in lines] == [False, False, True, True]
    for line in lines[:2]:
        assert len(line["captions"]) == 2
        assert set(line["captions"][0]) == {"boxes", "logprob", "reward", "score"}
        assert all(c["boxes"] for c in line["captions"])
    assert sorted(p.name for p in folder.iterdir()) == [".hidden", "a.jpg", "a.png", "b.jpg"]


def test_memes_are_drawn_where_asked_and_none_overwrites_another(folder: Path, tiny_model: Path) -> None:
    out = folder / "out"
    assert main(["caption", str(folder), "-o", str(out), "--model", str(tiny_model)]) == 0
    assert sorted(p.name for p in out.iterdir()) == ["a-2.jpg", "a.jpg"]
    with Image.open(out / "a-2.jpg") as meme:
        assert meme.size == (60, 80)


def test_a_description_comes_in_one_box(folder: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(
        [
            "caption",
            str(folder / "a.jpg"),
            "--json",
            "--style",
            "describe",
            "--search",
            "beam",
            "--model",
            str(tiny_model),
        ]
    )
    line = json.loads(capsys.readouterr().out)
    assert line["captions"][0]["boxes"] == [line["description"]]


def test_explain_writes_a_picture(folder: Path, tiny_model: Path) -> None:
    assert main(["explain", str(folder / "a.jpg"), "-o", str(folder / "e.png"), "--model", str(tiny_model)]) == 0
    with Image.open(folder / "e.png") as sheet:
        assert sheet.format == "PNG"


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["caption", "{folder}/a.jpg", "--model", "{folder}/b.jpg"], "b.jpg"),
        (["caption", "{folder}/empty"], "no pictures"),
        (["train", "--data", "flickr8k={folder}", "--out", "{folder}/x.safetensors"], "as published"),
        (["train", "--data", "flickr8k={folder}", "--out", "{folder}/x.safetensors", "stepz=3"], "stepz"),
        (["train", "--data", "flickr8k={folder}", "--out", "{folder}/x.safetensors", "steps=x"], "steps"),
        (["train", "--data", "flickr8k={folder}", "--out", "{folder}/x.safetensors", "steps=-1"], "of 0 or more, not"),
        (["train", "--data", "flickr8k={folder}", "--out", "{folder}/x.safetensors", "minutes=nan"], "minutes takes"),
        (["train", "--data", "flickr8k={folder}", "--out", "{folder}/x.safetensors", "batch=0"], "of 1 or more, not 0"),
        (["train", "--data", "flickr8k={folder}", "--out", "{folder}/x.safetensors", "ema=2"], "from 0 to 1, not 2"),
        (["train", "--data", "flickr8k={folder}", "--out", "{folder}/x"], "a suffix"),
        (["train", "--data", "flickr8k={folder}", "--out", "{folder}/empty"], "a suffix"),
        (["distil", "--data", "flickr8k={folder}", "--out", "{folder}/x"], "a suffix"),
        (["distil", "--data", "flickr8k={folder}", "--out", "{folder}/x", "--teacher", "{folder}/gone"], "a suffix"),
        (["finetune", "--labels", "{folder}/gone", "--out", "{folder}/x"], "a suffix"),
        (["finetune", "--labels", "{folder}/gone", "--out", "{folder}/x.safetensors", "batch=0"], "batch"),
        (["gate", "--labels", "{folder}/gone", "--candidate", "{folder}/x", "pictures=0"], "pictures"),
        (["merge", "{folder}/a.jpg=half", "--out", "{folder}/x.safetensors"], "a share is a number"),
    ],
)
def test_mistakes_are_said_in_a_sentence(
    folder: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], word: str
) -> None:
    (folder / "empty").mkdir()
    arguments = [a.format(folder=folder) for a in arguments]
    if arguments[0] == "caption" and "--model" not in arguments:
        arguments += ["--model", str(tiny_model)]
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert word in said.lower()
    assert "Traceback" not in said


@pytest.mark.parametrize(
    "command", ["train", "distil", "finetune", "gate", "evaluate", "bench", "audit", "project", "rating"]
)
def test_a_data_set_that_is_named_twice_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    labels = ["--labels", f"{folder / 'gone.jsonl'}"]
    needs = {
        "train": ["--out", "x.safetensors"],
        "distil": ["--out", "x.json"],
        "finetune": ["--out", "x.safetensors", *labels],
        "gate": ["--candidate", "x.safetensors", *labels],
        "evaluate": ["--split", "dev"],
        "bench": ["--minutes", "1"],
        "project": ["-o", str(folder / "o")],
        "rating": ["-o", str(folder / "o")],
    }
    twice = ["--data", f"folder={folder}", "--data", f"memefly={folder}", "--data", f"folder={folder / 'other'}"]
    assert main([command, *twice, *needs.get(command, [])]) == 2
    assert "folder is named twice" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["caption", "evaluate", "finetune"])
def test_threads_are_counted_from_none(capsys: pytest.CaptureFixture[str], command: str) -> None:
    with pytest.raises(SystemExit):
        main([command, "--threads", "-1"])
    assert "-1 is no number from 0 on" in capsys.readouterr().err


def test_an_empty_folder_beside_others_is_mentioned(
    folder: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "empty").mkdir()
    assert main(["caption", str(folder / "empty"), str(folder / "a.jpg"), "--json", "--model", str(tiny_model)]) == 0
    told = capsys.readouterr()
    assert Path(json.loads(told.out)["image"]).name == "a.jpg"
    assert f"no pictures in {folder / 'empty'}" in told.err


def test_every_command_is_there() -> None:
    (choices,) = (a.choices for a in arguments()._actions if isinstance(a.choices, dict))
    assert len(choices) > 10
    for parser in choices.values():
        assert callable(getattr(commands, parser.get_default("run")))


def test_help_and_mistaken_arguments_need_no_torch() -> None:
    """Which takes seconds to import."""
    told = "import captioner.__main__, sys; captioner.__main__.arguments(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", told], check=False).returncode == 0


def test_a_file_that_is_no_picture_gets_its_line_alone_as_well(
    folder: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["caption", str(folder / "b.jpg"), "--json", "--model", str(tiny_model)]) == 0
    assert json.loads(capsys.readouterr().out)["error"]


def test_a_meme_overwrites_no_picture_but_the_meme_of_an_earlier_run(folder: Path, tiny_model: Path) -> None:
    """`a.jpg` lies beside `a.png`, whose meme would be called so."""
    before = (folder / "a.jpg").read_bytes()
    for _ in range(2):
        assert main(["caption", str(folder / "a.png"), "-o", str(folder), "--model", str(tiny_model)]) == 0
        assert (folder / "a.jpg").read_bytes() == before
        assert sorted(p.name for p in folder.glob("a*")) == ["a-2.jpg", "a.jpg", "a.png"]
    (folder / "a-2.jpg").write_bytes(before)
    assert main(["caption", str(folder / "a.png"), "-o", str(folder), "--model", str(tiny_model)]) == 0
    assert (folder / "a-2.jpg").read_bytes() == before
    assert (folder / "a-3.jpg").exists()


def test_an_attention_map_does_not_take_its_pictures_place(
    folder: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (folder / "a.jpg").read_bytes()
    assert main(["explain", str(folder / "a.jpg"), "-o", str(folder / "a.jpg"), "--model", str(tiny_model)]) == 2
    assert "is the picture itself" in capsys.readouterr().err
    assert (folder / "a.jpg").read_bytes() == before


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_name_that_is_not_utf8_is_printed_and_the_next_picture_as_well(
    folder: Path, tiny_model: Path, form: list[str]
) -> None:
    odd = os.fsdecode(b"\xff odd.png")
    (folder / odd).write_bytes((folder / "a.png").read_bytes())
    command = [sys.executable, "-m", "captioner", "caption", str(folder / odd), str(folder / "a.png")]
    command += ["--model", str(tiny_model), "-o", str(folder / "memes"), *form]
    done = subprocess.run(command, capture_output=True, env=os.environ | {"PYTHONIOENCODING": "utf-8"}, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert "\\xff odd.png" in done.stdout.decode()
    assert "a.png" in done.stdout.decode()
    assert (folder / "memes" / os.fsdecode(b"\xff odd.jpg")).exists()


def test_a_run_is_not_kept_among_the_data(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(folder.iterdir())
    for command in (
        ["train", "--data", f"folder={folder}", "--out", f"{folder}.safetensors"],
        ["distil", "--data", f"folder={folder}", "--out", f"{folder}.json"],
        ["finetune", "--data", f"folder={folder}", "--out", f"{folder}.safetensors", "--labels", "x.jsonl"],
    ):
        assert main(command) == 2
        assert "among the data" in capsys.readouterr().err
    assert sorted(folder.iterdir()) == before


def test_greedy_search_writes_one_caption(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["caption", str(folder / "a.jpg"), "--search", "greedy", "--n", "3", "--model", str(folder / "a.jpg")]
    assert main(command) == 2
    assert "greedy writes one caption" in capsys.readouterr().err


def test_an_interruption_is_no_traceback(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(options: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "caption", interrupted)
    assert main(["caption", str(folder)]) == 130
    assert "Stopped" in capsys.readouterr().err
