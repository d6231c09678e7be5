from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from captioner import encoders
from captioner.checkpoint import Checkpoint
from captioner.data.samples import Sample
from captioner.features import fit_reduction
from captioner.recipe import Recipe
from captioner.train import new_decoder
from captioner.tune import tune
from tests.fakes.pretended_device import pretended

RECIPE = Recipe(tune=1, photograph_views=2, device="cpu", seed=3)


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """Wheels and boxes of any colour, each with five descriptions that say which it is."""
    folder, dice = tmp_path_factory.mktemp("pictures"), np.random.default_rng(1)
    samples = []
    for i in range(48):
        image = Image.fromarray(dice.integers(0, 256, (8, 8, 3), np.uint8)).resize((120, 120))
        ink, kind = tuple(dice.integers(0, 256, 3).tolist()), ("wheel", "crate")[i % 2]
        pen = ImageDraw.Draw(image)
        (pen.ellipse if kind == "wheel" else pen.rectangle)((20, 20, 100, 100), fill=ink)
        image.save(folder / f"{i}.png")
        samples += [Sample(folder / f"{i}.png", (f"a {kind} lies there {k}",), "describe") for k in range(5)]
    return samples


def checkpoint(tiny_model: Path, described: list[Sample]) -> Checkpoint:
    made = Checkpoint.load(tiny_model)
    made.reduction = fit_reduction(encoders.build(), sorted({s.picture for s in described}), 16)
    return made


def separation(model: Checkpoint, samples: list[Sample]) -> float:
    """How far the two kinds lie apart on the grid, against how much pictures of a kind differ."""
    encoder, kinds = model.build_encoder(), {s.picture: s.boxes[0].split()[1] for s in samples}
    with torch.inference_mode():
        grids = model.reduction(encoder(encoder.pixels([Image.open(p).convert("RGB") for p in kinds]))).mean(1)
    parts = [grids[[kind == name for kind in kinds.values()]] for name in ("wheel", "crate")]
    apart = (parts[0].mean(0) - parts[1].mean(0)).norm()
    return float(apart / torch.cat([p - p.mean(0) for p in parts]).norm(dim=1).mean())


def test_held_out_photographs_of_different_words_come_to_lie_apart(
    described: list[Sample], tiny_model: Path, tmp_path: Path
) -> None:
    train, dev = described[:160], described[160:]
    model = checkpoint(tiny_model, described)
    before = separation(model, dev)
    tune(model, train, dev, replace(RECIPE, tune=12), tmp_path)
    assert separation(model, dev) > 1.05 * before
    model.save(tmp_path / "tuned.safetensors")
    assert separation(Checkpoint.load(tmp_path / "tuned.safetensors"), dev) == pytest.approx(
        separation(model, dev), rel=0.02
    )


def test_what_is_told_reaches_the_encoder_and_the_decoder_stays(
    described: list[Sample], tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Descriptions that differ in the order of their words alone, which the words by themselves cannot tell apart."""

    def said(sample: Sample) -> Sample:
        kind = sample.boxes[0].split()[1]
        return replace(sample, boxes=("a wheel beside the crate" if kind == "wheel" else "a crate beside the wheel",))

    train, dev = [said(s) for s in described[:160]], [said(s) for s in described[160:]]
    fast = {"_TOLD_RATE": 1e-3, "_TELLER_RATE": 1e-2, "_TOLD_AVERAGED": 0.5, "_TOLD_BATCH": 8}
    for name, value in fast.items():  # the decoder is of random weights, and there are 32 pictures
        monkeypatch.setattr(f"captioner.tune.{name}", value)
    models = {told: checkpoint(tiny_model, described) for told in (0, 6)}
    for told, model in models.items():
        before = {k: v.clone() for k, v in model.decoder.state_dict().items()}
        (tmp_path / str(told)).mkdir()
        tune(model, train, dev, replace(RECIPE, told=told), tmp_path / str(told))
        assert all(torch.equal(before[k], v) for k, v in model.decoder.state_dict().items())
    assert separation(models[6], described[160:]) > 1.05 * separation(models[0], described[160:])


@pytest.mark.parametrize("name", ["attention_gru", "show_and_tell"])
def test_descriptions_by_teachers_are_told_as_well(
    described: list[Sample], tiny_model: Path, tmp_path: Path, name: str
) -> None:
    train, dev = described[:40], described[160:180]
    taught = [replace(s, boxes=("a crate on wheels",)) for s in train[::5]]
    found, sizes = [], Recipe(features=16, embedding=8, units=8, attention=4)
    for folder, more in (("without", []), ("with", taught)):
        model = checkpoint(tiny_model, described)
        torch.manual_seed(1)
        model.decoder = new_decoder(name, sizes, len(model.tokenizer), 2)
        model.decoder.meet(torch.randn(2, 16), [[5], [6]])
        (tmp_path / folder).mkdir()
        tune(model, train, dev, replace(RECIPE, tune=0, told=1), tmp_path / folder, more)
        found.append(model.reduction.basis)
    assert not torch.equal(*found)


def test_what_another_recipe_learnt_is_not_taken(described: list[Sample], tiny_model: Path, tmp_path: Path) -> None:
    model = checkpoint(tiny_model, described)
    tune(model, described[:40], described[220:], RECIPE, tmp_path)
    with pytest.raises(ValueError, match="another recipe"):
        tune(model, described[:40], described[220:], replace(RECIPE, seed=4), tmp_path)


def test_the_same_seed_tunes_the_same_and_a_run_does_it_once(
    described: list[Sample], tiny_model: Path, tmp_path: Path
) -> None:
    train, dev = described[:60], described[220:]
    models = [checkpoint(tiny_model, described) for _ in range(3)]
    for model, folder in zip(models, ("a", "b", "a"), strict=True):
        (tmp_path / folder).mkdir(exist_ok=True)
        written = tmp_path / folder / "encoder.safetensors"
        written_at = written.stat().st_mtime_ns if written.exists() else None
        tune(model, train, dev, RECIPE, tmp_path / folder)
        assert written_at in (None, written.stat().st_mtime_ns)
    first, *others = models
    for other in others:
        assert torch.equal(first.reduction.basis, other.reduction.basis)
        assert all(torch.equal(first.last_stages[k], v) for k, v in other.last_stages.items())


def test_what_cannot_be_tuned_is_said(described: list[Sample], tiny_model: Path, tmp_path: Path) -> None:
    model = checkpoint(tiny_model, described)
    with pytest.raises(ValueError, match="too few descriptions"):
        tune(model, described[:3], described[200:], RECIPE, tmp_path)
    model.encoder = "squeezenet1_1"
    with pytest.raises(ValueError, match="squeezenet1_1 has no stages"):
        encoders.Encoder("squeezenet1_1", torch.nn.Conv2d(3, 4, 3), 8, [0.0] * 3, [1.0] * 3).halves()


def test_stages_that_were_tuned_on_another_device_serve_on_any_machine(
    described: list[Sample], tiny_model: Path, tmp_path: Path
) -> None:
    model = checkpoint(tiny_model, described)
    with pretended() as device:
        tune(model, described[:40], described[160:180], replace(RECIPE, told=1, device=device.type), tmp_path)
    assert {t.device.type for t in (*model.last_stages.values(), *model.reduction.buffers())} == {"cpu"}
    assert separation(model, described[160:]) > 0
