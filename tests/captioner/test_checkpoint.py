from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from captioner.aptness import Aptness
from captioner.checkpoint import Checkpoint, CheckpointError, _eighths, _under
from captioner.residual import Residual
from captioner.tokenizer import VOTES


def test_a_checkpoint_survives_its_file(tiny_model: Path, tmp_path: Path) -> None:
    first = Checkpoint.load(tiny_model)
    first.facts = {"data": {"a": 1}, "recipe": {"seed": 3}}
    first.save(tmp_path / "deeper" / "again.safetensors")
    again = Checkpoint.load(tmp_path / "deeper" / "again.safetensors")
    assert again.facts == first.facts
    assert again.name == first.name
    assert again.tokenizer.to_json() == first.tokenizer.to_json()
    assert (again.fingerprints == first.fingerprints).all()
    assert len(first.fingerprints) > 0
    assert all(torch.equal(a, b) for a, b in zip(first.decoder.parameters(), again.decoder.parameters(), strict=True))
    assert [p.name for p in (tmp_path / "deeper").iterdir()] == ["again.safetensors"]


@pytest.mark.parametrize("damage", ["missing", "folder", "empty", "text", "truncated", "other", "tokenizer", "encoder"])
def test_what_cannot_be_read_is_said_in_a_sentence(tiny_model: Path, tmp_path: Path, damage: str) -> None:
    file = tmp_path / "model.safetensors"
    whole = tiny_model.read_bytes()
    if damage in ("tokenizer", "encoder"):
        with safe_open(tiny_model, "pt") as opened:
            tensors, about = {k: opened.get_tensor(k) for k in opened.keys()}, opened.metadata()  # noqa: SIM118
        save_file(tensors, file, about | {damage: "nonsense"})
    elif damage == "folder":
        file.mkdir()
    elif damage == "other":
        save_file({"x": torch.zeros(1)}, file)
    elif damage != "missing":
        file.write_bytes({"empty": b"", "text": b"hello" * 99, "truncated": whole[: len(whole) // 2]}[damage])
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        Checkpoint.load(file)


def test_an_unpickled_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    torch.save({"decoder.bias": torch.zeros(3)}, file)
    with pytest.raises(CheckpointError):
        Checkpoint.load(file)


def test_a_style_that_was_not_learnt_is_asked_for_as_the_one_that_was(tiny_model: Path, tmp_path: Path) -> None:
    checkpoint = Checkpoint.load(tiny_model)
    tokenizer = checkpoint.tokenizer
    best, unknown = tokenizer.prefix("meme", VOTES - 1), tokenizer.prefix("describe")
    assert list(checkpoint.prefix("meme")) == best
    checkpoint.styles = ("describe",)
    checkpoint.save(tmp_path / "describes.safetensors")
    again = Checkpoint.load(tmp_path / "describes.safetensors")
    assert list(again.prefix("meme")) == list(again.prefix("describe")) == unknown
    again.styles, again.votes = ("meme",), False
    again.save(tmp_path / "memes.safetensors")
    memes = Checkpoint.load(tmp_path / "memes.safetensors")
    assert list(memes.prefix("meme")) == list(memes.prefix("describe")) == tokenizer.prefix("meme")


def test_a_compact_file_means_the_same(tiny_model: Path) -> None:
    checkpoint = Checkpoint.load(tiny_model)
    torch.manual_seed(0)
    large = torch.nn.Parameter(torch.randn(len(checkpoint.tokenizer), 512) * torch.rand(len(checkpoint.tokenizer), 1))
    checkpoint.decoder.embedding.weight = large
    tensors = checkpoint.decoder.state_dict()
    kept = _under("decoder.", _eighths("decoder", tensors))
    assert kept.keys() == tensors.keys()
    step = large.abs().amax(1, keepdim=True) / 127
    assert (kept["embedding.weight"] - large).abs().le(step * 0.51).all()
    again = _under("decoder.", _eighths("decoder", kept))
    assert torch.equal(again["embedding.weight"], kept["embedding.weight"]), "packing twice moves it twice"
    small = {k: v for k, v in tensors.items() if v.numel() < 1000}
    assert all(torch.equal(kept[k], v.half().float()) for k, v in small.items())


def test_fine_tuned_stages_travel_with_the_checkpoint(tiny_model: Path, tmp_path: Path) -> None:
    checkpoint = Checkpoint.load(tiny_model)
    pixels = torch.rand(2, 3, 224, 224)
    encoder = checkpoint.build_encoder()
    with torch.inference_mode():
        before = encoder(pixels)  # packs the weights
    _, last = encoder.halves()
    checkpoint.last_stages = {k: (v * 1.5).detach() for k, v in last.state_dict().items()}
    checkpoint.save(tmp_path / "tuned.safetensors", compact=True)
    encoder.renew(checkpoint.last_stages)
    again = Checkpoint.load(tmp_path / "tuned.safetensors").build_encoder()
    with torch.inference_mode():
        assert not torch.allclose(encoder(pixels), before, atol=0.1)
        kept, made = again(pixels), encoder(pixels)
    assert (kept - made).abs().mean() < 0.01 * made.abs().mean()


@pytest.fixture
def short(tiny_model: Path) -> Checkpoint:
    """A checkpoint that may write every other id, with odds of all."""
    checkpoint = Checkpoint.load(tiny_model)
    size = len(checkpoint.tokenizer)
    checkpoint.decoder.shorten(torch.arange(0, size, 2))
    checkpoint.aptness = Aptness(["dogs"], torch.linspace(-7, 7, size).unsqueeze(0))
    checkpoint.residual = Residual(torch.arange(0, size, 2)).eval()
    return checkpoint


def test_of_what_may_not_be_written_no_odds_are_kept(short: Checkpoint, tmp_path: Path) -> None:
    short.save(tmp_path / "short.safetensors")
    again = Checkpoint.load(tmp_path / "short.safetensors")
    assert short.aptness
    assert again.aptness
    assert again.aptness.odds.shape == short.aptness.odds.shape
    assert torch.allclose(again.aptness.odds[:, ::2], short.aptness.odds[:, ::2], atol=1 / 16)
    assert not again.aptness.odds[:, 1::2].any()
    assert short.residual
    assert again.residual
    texts = [[2, 4, 6], [7, 8]]
    assert again.residual.score(texts) == pytest.approx(short.residual.score(texts), abs=0.01)


def test_a_checkpoint_with_quipbot_7s_residual_is_read_without_it(short: Checkpoint, tmp_path: Path) -> None:
    """It was one row of numbers, and the odds were those of all ids."""
    assert short.aptness
    short.residual = None
    short.save(tmp_path / "new.safetensors")
    with safe_open(tmp_path / "new.safetensors", "pt") as opened:
        tensors, about = {k: opened.get_tensor(k) for k in opened.keys()}, opened.metadata()  # noqa: SIM118
    old = tensors | {"aptness": short.aptness.tensor(), "residual": torch.zeros(73_536, dtype=torch.int8)}
    save_file(old, tmp_path / "old.safetensors", about)
    read = Checkpoint.load(tmp_path / "old.safetensors")
    assert read.residual is None
    assert read.aptness
    assert torch.allclose(read.aptness.odds, short.aptness.odds, atol=1 / 16)
