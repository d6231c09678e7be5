import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from captioner.__main__ import main
from captioner.attention_map import NoAttentionError, attention_map
from captioner.captioner import Captioner
from captioner.decoders import DECODERS, AttentionGRU, settings
from captioner.encoders import Encoder

CELL, GAP = 200, 8
GREY = Image.new("RGB", (200, 100), (128, 128, 128))


def cells(sheet: bytes, count: int) -> list[np.ndarray]:
    """The pictures of the sheet's first row, the bare one first: (100, 200, 3) each."""
    with Image.open(io.BytesIO(sheet)) as image:
        pixels = np.asarray(image.convert("RGB")).astype(float)
    return [pixels[GAP : GAP + 100, GAP + i * (CELL + GAP) :][:, :CELL] for i in range(count)]


def test_the_sheet_shows_the_picture_and_every_word_under_its_heat() -> None:
    weights = np.array([[0.97, 0.01, 0.01, 0.01], [0.01, 0.01, 0.01, 0.97]])
    bare, first, second = cells(attention_map(GREY, ["▁left", "▁right"], weights), 3)
    assert (bare == 128).all()
    heat = first.sum(-1), second.sum(-1)
    assert heat[0][:25, :50].mean() > heat[0][75:, 150:].mean() + 100
    assert heat[1][75:, 150:].mean() > heat[1][:25, :50].mean() + 100


def test_pieces_are_joined_to_words_and_separators_left_out() -> None:
    rows = np.array([[1.0, 0, 0, 0], [0, 0, 0, 1.0], [0.25] * 4, [0.25] * 4])
    _, joined = cells(attention_map(GREY, ["▁base", "ball", "<sep>"], rows[:3]), 2)
    _, halves = cells(attention_map(GREY, ["▁both"], (rows[:1] + rows[1:2]) / 2), 2)
    assert (joined == halves).all()


@pytest.mark.parametrize("word", ["fußball", "w" * 40, "w" * 200, "ж" * 60])
def test_a_word_stays_under_its_picture_and_is_not_cut_without_a_sign(word: str) -> None:
    label = labels([word])[0]
    assert label[:, :GAP].max() < 60  # the ground
    assert label[:, -GAP:].max() < 60
    fits = word == "fußball"
    assert (labels([word + "i"])[0] == label).all() != fits  # what no longer fits is left out
    assert (labels([word[:4]])[0] != label).any()


def labels(words: list[str]) -> list[np.ndarray]:
    """What is written below the pictures of the words, and the gaps beside: (30, 216, 3) each."""
    sheet = attention_map(GREY, ["▁" + word for word in words], np.full((len(words), 4), 0.25))
    with Image.open(io.BytesIO(sheet)) as image:
        pixels = np.asarray(image.convert("RGB")).astype(float)
    return [pixels[GAP + 100 : GAP + 130, (i + 1) * (CELL + GAP) :][:, : CELL + 2 * GAP] for i in range(len(words))]


def test_who_looked_everywhere_alike_is_not_painted_as_if_it_had_looked_somewhere() -> None:
    noise = np.random.default_rng(0).normal(0, 1e-4, (1, 49))
    _, even = cells(attention_map(GREY, ["▁the"], np.full((1, 49), 1 / 49) + noise), 2)
    assert np.ptp(even.sum(-1)) < 12


def test_regions_are_hot_where_they_lie_and_the_first_one_is_outlined() -> None:
    regions = np.array([[0.0, 0.0, 0.5, 1.0], [0.5, 0.5, 1.0, 1.0]])
    _, cell = cells(attention_map(GREY, ["▁here"], np.array([[0.1, 0.9]]), regions), 2)
    assert (cell[50, 120:190] == 255).all()  # its upper edge
    assert cell[80, 150].sum() > cell[20, 150].sum()
    assert (cell[0, :90] != 255).any()


def test_a_number_of_places_that_is_no_square_is_refused() -> None:
    with pytest.raises(ValueError, match="square grid"):
        attention_map(GREY, ["▁a"], np.full((1, 5), 0.2))


ATTENTIVE = {"attention_gru", "show_attend_and_tell", "up_down", "transformer", "meshed_memory"}


@pytest.mark.parametrize("name", sorted(DECODERS))
def test_every_decoder_explains_itself_or_says_that_it_cannot(name: str, tiny_model: Path) -> None:
    captioner = Captioner.load(tiny_model, device="cpu", threads=1)
    config = {"vocabulary": len(captioner.tokenizer), "features": 16} | (
        {"kinds": 4} if "kinds" in settings(name) else {}
    )
    captioner.decoder = DECODERS[name](config).eval()
    buffer = io.BytesIO()
    GREY.save(buffer, "PNG")
    picture = captioner.read(buffer.getvalue())
    if name in ATTENTIVE:
        assert len(cells(captioner.explain(picture, ["two words"]), 3)) == 3
        return
    with pytest.raises(NoAttentionError, match="as a whole"):
        captioner.explain(picture, ["two words"])


def test_the_command_says_where_there_is_nothing_to_show(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    GREY.save(tmp_path / "a.jpg")
    monkeypatch.delattr(AttentionGRU, "weights")
    out = tmp_path / "e.png"
    assert main(["explain", str(tmp_path / "a.jpg"), "-o", str(out), "--model", str(tiny_model)]) == 2
    assert "as a whole" in capsys.readouterr().err
    assert not out.exists()


@dataclass
class Looking:
    """An encoder of a grid whose places lie elsewhere: three regions of the picture."""

    encoder: Encoder

    def pixels(self, images: list[Image.Image]) -> Tensor:
        return self.encoder.pixels(images)

    def halfway(self, pixels: Tensor) -> Tensor:
        return pixels

    def finished(self, halfway: Tensor) -> Tensor:
        grid: Tensor = self.encoder(halfway)
        return grid[:, :3]

    def places(self, pixels: Tensor) -> Tensor:
        return torch.tensor([[[0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.3]]])


def test_regions_of_an_encoder_are_what_is_shown(tiny_model: Path) -> None:
    captioner = Captioner.load(tiny_model, device="cpu", threads=1)
    captioner.encoder = Looking(captioner.encoder)  # type: ignore[assignment]
    captioner.decoder = DECODERS["up_down"]({"vocabulary": len(captioner.tokenizer), "features": 16}).eval()
    buffer = io.BytesIO()
    GREY.save(buffer, "PNG")
    _, cell = cells(captioner.explain(captioner.read(buffer.getvalue()), ["dog"]), 2)
    assert (cell == 255).all(-1).any()  # an outline
