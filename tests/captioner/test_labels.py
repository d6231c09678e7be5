"""Labels files: read in full or refused by line, and split by time."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from captioner.labels import Labels, LabelsError, Meme, packed, read, split, unpacked

GRID = np.random.default_rng(1).normal(size=(4, 6)).astype(np.float32)


def _meme(at: float, up: float = 1.0, down: float = 0.0, **more: object) -> dict[str, object]:
    line = {"kind": "meme", "id": f"m{at}", "boxes": ["Top Text", "bottom"], "style": "meme", "template": None}
    return line | {"at": at, "chat": "c", "model": "x", "explored": False, "up": up, "down": down} | more


def _file(folder: Path, lines: list[dict[str, object]]) -> Path:
    file = folder / "labels.jsonl"
    file.write_text("\n".join(json.dumps(line) for line in lines) + "\n", "utf-8")
    return file


def test_memes_with_votes_and_pairs_are_read_in_the_order_of_time(tmp_path: Path) -> None:
    features = base64.b64encode(packed(GRID)).decode()
    pair = {"kind": "pair", "better": ["A"], "worse": ["b"], "template": None, "chat": "c", "at": 3, "weight": 1}
    others = [{"boxes": ["top text", "BOTTOM"]}, {"boxes": ["other"], "score": 1.0}]
    lines = [
        _meme(5, features=features, candidates=others),
        pair,
        _meme(2, 0, 3),
        _meme(4, 0, 0),
        _meme(6, style="describe"),
    ]
    labels = read(_file(tmp_path, lines))
    assert [m.at for m in labels.memes] == [2, 5]
    assert labels.memes[1].boxes == ("top text", "bottom")
    assert labels.memes[1].candidates == (("other",),)
    assert unpacked(labels.memes[1].features or b"") == pytest.approx(GRID, abs=float(np.abs(GRID).max()) / 250)
    assert (labels.votes, labels.downs) == (4, 3)
    assert labels.pairs[0].better == ("a",)


@pytest.mark.parametrize(
    "line",
    [
        {"kind": "meme"},
        _meme(1, up=-1),
        _meme(1, up=float("inf")),
        _meme(1, features="no base64!"),
        _meme(1, boxes="text"),
        {"at": 1},
    ],
)
def test_a_line_that_is_no_label_is_named(tmp_path: Path, line: dict[str, object]) -> None:
    with pytest.raises(LabelsError, match="Line 2"):
        read(_file(tmp_path, [_meme(1), line]))


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0.1, 5)), max_size=60), st.floats(0.1, 0.9))
def test_what_is_held_out_is_later_and_the_share_asked_for(memes: list[tuple[float, float]], share: float) -> None:
    made = [
        Meme((str(i),), None, weight, 0.0, "c", at, str(i), False, None) for i, (at, weight) in enumerate(sorted(memes))
    ]
    learn, held = split(Labels(made, []), share)
    assert learn.memes + held.memes == made
    assert all(a.at < b.at for a in learn.memes for b in held.memes)
    largest = max((m.weight for m in made), default=0.0)
    ties = max((sum(m.weight for m in made if m.at == moment.at) for moment in made), default=0.0)
    assert held.votes >= 0
    assert abs(held.votes - share * sum(m.weight for m in made)) <= largest + ties + 1e-6


@given(arrays.arrays(np.float32, (3, 5), elements=st.floats(-50, 50, width=32)))
def test_features_come_back(grid: np.ndarray) -> None:
    largest = np.maximum(np.abs(grid).max(1, keepdims=True), 1e-6)
    assert (np.abs(unpacked(packed(grid)) - grid) <= largest / 250).all()


@pytest.mark.parametrize("data", [b"", b"abc", packed(GRID)[:-9]])
def test_other_bytes_are_no_features(data: bytes) -> None:
    with pytest.raises(LabelsError, match="cannot be read"):
        unpacked(data)
