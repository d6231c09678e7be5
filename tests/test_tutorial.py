"""The tutorial is part of the build: its commands are run, in its order, on a set of two pictures."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from captioner import audit, data, evaluate, project
from captioner.__main__ import main

ROOT = Path(__file__).parents[1]
TUTORIAL = (ROOT / "docs/tutorial.md").read_text("utf-8")
COMMANDS = [
    line.removeprefix(".venv/bin/python -m ")
    for block in re.findall(r"```sh\n(.*?)```", TUTORIAL, re.DOTALL)
    for line in block.splitlines()
]
NOUNS, VERBS = ("owl", "boat", "cat", "fish", "tree", "cup"), ("sleeps", "runs", "waits", "sings", "falls", "wins")


def mine(folder: Path) -> None:
    """Memes with votes on one picture, descriptions of another; some are held out."""
    dice, lines = np.random.default_rng(0), []
    folder.mkdir()
    for name in ("owl", "beach"):
        Image.fromarray(dice.integers(0, 256, (6, 8, 3), np.uint8)).resize((96, 72)).save(folder / f"{name}.jpg")
    for i in range(72):
        noun, verb = NOUNS[i % 6], VERBS[i // 6 % 6]
        split = "dev" if i % 12 == 0 else "train"
        boxes = [f"when the {noun} {verb}", f"and nobody looks {i}"]
        lines.append({"picture": "owl.jpg", "boxes": boxes, "votes": i % 7, "views": 10 * i, "split": split})
        text = f"a {noun} that {verb} by the sea {i}"
        lines.append({"picture": "beach.jpg", "boxes": [text], "style": "describe", "split": split})
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)))


def bot(command: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", *shlex.split(command), "web.port=0", "captioner.threads=1"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def served(command: str, folder: Path) -> None:
    """The bot starts, serves its pages, and stops when it is told to."""
    process = bot(command, folder)
    assert process.stdout
    found = re.fullmatch(r"Quipbot is ready: (http://127\.0\.0\.1:\d+)\n", process.stdout.readline())
    if found:
        for path in ("/", "/rate"):
            with urllib.request.urlopen(found[1] + path) as answer:
                assert answer.status == 200
        process.send_signal(signal.SIGTERM)
    _, errors = process.communicate()
    assert found, errors
    assert process.returncode == 0, errors


def test_the_commands_do_what_they_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mine(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(audit, "_GENERATED", 8)  # each of many takes its time, and shows nothing more
    monkeypatch.setattr(project, "_PICTURES", 4)
    monkeypatch.setattr(evaluate, "_MEMES", 8)
    monkeypatch.setattr(evaluate, "_OUTSIDE", {})  # Java programs, where they are installed
    ran = []
    for command in COMMANDS:
        words = shlex.split(command)
        if "--help" in words:
            with pytest.raises(SystemExit, match="0"):
                main(words[1:])
        elif words[0] == "captioner":
            assert main(words[1:]) == 0, command
        elif words[1] in ("ratings", "doctor"):
            process = bot(command, tmp_path)
            said, errors = process.communicate()
            assert process.returncode == 0, said + errors
        else:
            served(command, tmp_path)
        ran.append(words[1])
    assert ran[:2] == ["collect", "project"]
    assert (tmp_path / "seen/projection.html").exists()
    assert len(list((tmp_path / "memes").iterdir())) == 1
    assert len((tmp_path / "rating/captions.jsonl").read_text().splitlines()) == 4
    assert (tmp_path / "answers.csv").read_text().startswith("rater,question,answer")
    for file in ("attention.png", "model/training.png"):
        with Image.open(tmp_path / file) as image:
            assert image.format == "PNG"


def test_the_example_is_read_as_it_stands(tmp_path: Path) -> None:
    example = re.search(r"```json\n(.*?)```", TUTORIAL, re.DOTALL)
    assert example
    for name in ("owl", "beach"):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.jpg")
    (tmp_path / "captions.jsonl").write_text(example[1])
    assert [sample.style for sample in data.load("folder", tmp_path)] == ["meme", "meme", "describe"]


def test_every_file_that_is_linked_is_there() -> None:
    assert all((ROOT / "docs" / link).exists() for link in re.findall(r"\]\((?!http)([^)#]+)\)", TUTORIAL))
