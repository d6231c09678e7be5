"""Training on a GPU, as far as it can be tested without: on a device that is pretended, and in bfloat16 on the CPU."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from captioner import devices
from captioner.aptness import Aptness
from captioner.batches import Batch
from captioner.captioner import Captioner, Wish
from captioner.checkpoint import Checkpoint
from captioner.corpora import Corpus, corpus, counted
from captioner.data.samples import Sample
from captioner.encoders import Reduction
from captioner.features import Features
from captioner.images import to_jpeg
from captioner.ngrams import KneserNey
from captioner.recipe import Recipe
from captioner.seeing import Seen, Sight
from captioner.tokenizer import CaptionTokenizer
from captioner.trainer import Trainer
from tests.captioner.test_decoders import SMALL, D, R, captions, made, pictures
from tests.conftest import TEXTS
from tests.fakes.pretended_device import DEVICE, pretended

HERE = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
RECIPE = Recipe(
    steps=3, batch=4, check_every=3, warm_up=1, dropout=0.1, describe_dropout=0.2, describe_smoothing=0.1, mirror=0.5,
    describe_share=0.5,
)  # fmt: skip


def lessons(tokenizer: CaptionTokenizer) -> list[Corpus]:
    """Memes that counts speak of, and descriptions."""
    rng = np.random.default_rng(0)
    grids = Features(rng.normal(size=(4, R, D)).astype(np.float16), {Path("p"): range(2), Path("q"): range(2, 4)}, 2)
    memes, described = (
        corpus([Sample(p, (t,), style, percentile=0.4) for p in grids.rows for t in texts], tokenizer, grids, style)
        for style, texts in (("meme", TEXTS[:4]), ("describe", TEXTS[4:]))
    )
    return [counted(memes, KneserNey(memes.ids, tokenizer.prefix("meme")[0], len(tokenizer)), seen=True), described]


def trained(name: str, recipe: Recipe, run: Path) -> tuple[Trainer, list[Tensor]]:
    """A decoder of those that are tested alike, fitted to little; and its weights."""
    run.mkdir(exist_ok=True)
    tokenizer = CaptionTokenizer.train(TEXTS * 3, 420)
    decoder = made(name, vocabulary=len(tokenizer), dropout=0.1)
    torch.manual_seed(7)
    trainer = Trainer(Checkpoint(decoder, Reduction(8, D), tokenizer, name), recipe, run)
    trainer.fit(lessons(tokenizer), lessons(tokenizer))
    return trainer, [p.detach().clone() for p in trainer.both.parameters()]


@pytest.mark.parametrize("name", SMALL)
def test_every_decoder_learns_the_same_on_another_device(name: str, tmp_path: Path) -> None:
    _, expected = trained(name, RECIPE, tmp_path / "here")
    with pretended():
        trainer, found = trained(name, RECIPE, tmp_path / "there")
    assert all(value.device == DEVICE for value in trainer.average.values())
    for a, b in zip(expected, found, strict=True):
        assert b.device.type == "cpu"
        assert torch.allclose(a, b, atol=1e-5)


def test_self_critical_training_stays_on_its_device_and_goes_on_where_it_was(tmp_path: Path) -> None:
    recipe = replace(RECIPE, self_critical=1.0)
    with pretended():
        trainer, _ = trained("attention_gru", recipe, tmp_path / "whole")
        assert -1 <= trainer.progress.reward < 1
        state = torch.load(tmp_path / "whole/state.pt", weights_only=True)
        assert {v.device.type for v in (*state["average"].values(), *state["model"].values())} == {"cpu"}
        resumed = Trainer(trainer.checkpoint, recipe, tmp_path / "whole")
        resumed.of = trainer.of  # as fitting the same corpora would find
        resumed._resume()
    assert resumed.progress == trainer.progress
    assert all(value.device == DEVICE for value in resumed.average.values())


def test_a_model_writes_the_same_on_another_device(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = to_jpeg(Image.effect_mandelbrot((90, 60), (-2, -1, 1, 1), 40).convert("RGB"))
    here = Captioner.load(tiny_model, device="cpu", threads=1)
    picture, wish = here.read(data), Wish(n=1, seed=4, context="the dog")
    described = Wish("describe", "beam", 1)
    expected = [made.captions[0] for made in here.caption([(picture, wish), (picture, described)])]
    monkeypatch.setattr(devices, "named", lambda _: DEVICE)
    with pretended():
        there = Captioner.load(tiny_model, threads=1)
        found = [made.captions[0] for made in there.caption([(picture, wish), (picture, described)])]
        assert there.explain(picture, found[0].boxes)
    assert there.device == DEVICE
    assert [caption.boxes for caption in found] == [caption.boxes for caption in expected]


def test_leaning_is_where_the_model_is(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = Checkpoint.load(tiny_model)
    odds = torch.randn(1, len(checkpoint.tokenizer), generator=torch.Generator().manual_seed(0))
    checkpoint.aptness = Aptness(["dogs"], 2 * odds)
    checkpoint.save(tmp_path / "leaning.safetensors")
    monkeypatch.setattr(Sight, "see", lambda *_: Seen(("dogs", 1.0), False))
    here = Captioner.load(tmp_path / "leaning.safetensors", device="cpu", threads=1)
    picture = here.read(to_jpeg(Image.new("RGB", (90, 60), "red")))
    expected = here.caption([(picture, Wish(seed=4))])[0].captions
    monkeypatch.setattr(devices, "named", lambda _: DEVICE)
    with pretended():
        there = Captioner.load(tmp_path / "leaning.safetensors", threads=1)
        found = there.caption([(picture, Wish(seed=4))])[0].captions
    assert found[0].boxes == expected[0].boxes


def test_a_tensor_that_was_left_behind_is_found() -> None:
    there, here = torch.ones(3), torch.ones(3)
    with pretended():
        there = there.to(DEVICE)
        assert (there + torch.tensor(1.0)).tolist() == [2, 2, 2]
        assert there[torch.tensor([0, 2])].device == DEVICE
        assert (there + torch.tensor([1, 2, 3], device=DEVICE)).tolist() == [2, 3, 4]
        for mistake in (lambda: there + here, lambda: here.add_(there), lambda: torch.cat([there, here])):
            with pytest.raises(RuntimeError, match="of the CPU beside"):
                mistake()
        with pytest.raises(RuntimeError, match="of the CPU beside"):
            nn.Linear(3, 2)(there)
        assert here.copy_(there).device.type == "cpu"


@pytest.mark.parametrize("device", HERE)
@pytest.mark.parametrize("name", ["attention_gru", "show_and_tell", "up_down", "transformer"])
def test_mixed_precision_learns_and_goes_on_where_it_was(name: str, device: str, tmp_path: Path) -> None:
    recipe = replace(RECIPE, steps=24, check_every=12, rate=2e-2, precision="bfloat16", device=device)
    trainer, whole = trained(name, recipe, tmp_path / "whole")
    losses = [row["loss"] for row in trainer.progress.log]
    assert losses[1] < 0.93 * losses[0]
    assert all(p.dtype == torch.float32 for p in whole)
    update = Trainer._update

    def cut_off(self: Trainer, parts: Sequence[Batch]) -> Tensor:
        if self.progress.step == 18:
            raise KeyboardInterrupt
        return update(self, parts)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_update", cut_off)
        with pytest.raises(KeyboardInterrupt):
            trained(name, recipe, tmp_path / "cut")
    _, resumed = trained(name, recipe, tmp_path / "cut")
    assert all(torch.equal(a, b) for a, b in zip(whole, resumed, strict=True))


@pytest.mark.parametrize("name", SMALL)
def test_recurrences_are_in_full_precision_and_only_within(name: str) -> None:
    network, seen = made(name), []
    for part in network.modules():
        if isinstance(part, nn.RNNBase | nn.RNNCellBase):
            part.register_forward_hook(lambda _, __, out: seen.append(out[0].dtype))
    with devices.mixed(network, torch.device("cpu")):
        logits = network(pictures(), captions())
    assert logits.dtype == torch.bfloat16
    assert set(seen) <= {torch.float32}
    plain = network(pictures(), captions())
    assert plain.dtype == torch.float32
    assert torch.allclose(plain, logits.float(), atol=0.1)
    assert not any("forward" in vars(part) for part in network.modules())


def test_what_a_machine_does_not_have_is_said() -> None:
    assert devices.named("auto", ()) == torch.device("cpu")
    with pytest.raises(ValueError, match="device is tpu, which this machine does not have"):
        devices.for_training("tpu")
    with pytest.raises(ValueError, match="precision is auto, bfloat16 or float32, not half"):
        devices.is_mixed("half", torch.device("cpu"))
    assert not devices.is_mixed("auto", torch.device("cpu"))
