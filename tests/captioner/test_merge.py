import math
from pathlib import Path

import numpy as np
import pytest
import torch

from captioner.__main__ import main
from captioner.captioner import Captioner
from captioner.checkpoint import Checkpoint
from captioner.decoders import DECODERS
from captioner.decoders.together import ensemble
from captioner.gate import Rules, gate
from captioner.labels import Labels
from captioner.merge import merged
from captioner.residual import Residual


def moved(model: Path, file: Path, by: float) -> Path:
    """The model with every weight of its decoder and gate moved."""
    checkpoint = Checkpoint.load(model)
    checkpoint.name = file.stem
    with torch.no_grad():
        for parameter in (*checkpoint.decoder.parameters(), *checkpoint.gate.parameters()):
            parameter += by
    checkpoint.save(file)
    return file


def test_a_merged_model_has_the_average_weights_and_all_else_of_the_first(tiny_model: Path, tmp_path: Path) -> None:
    before = Checkpoint.load(tiny_model)
    before.residual = Residual.fit([[7, 8]] * 90, [[9, 10]] * 90, torch.arange(len(before.tokenizer)))
    before.save(tmp_path / "base.safetensors")
    files = [moved(tiny_model, tmp_path / f"{by}.safetensors", by) for by in (-1.0, 1.0)]
    out = tmp_path / "both.safetensors"
    shares = [f"{tmp_path / 'base.safetensors'}=0", f"{files[0]}=0.25", f"{files[1]}=0.75"]
    assert main(["merge", *shares, "--out", str(out)]) == 0
    made = Checkpoint.load(out)
    for part in ("decoder", "gate"):
        for old, new in zip(getattr(before, part).parameters(), getattr(made, part).parameters(), strict=True):
            assert torch.allclose(new, old + 0.5, atol=5e-3)
    assert made.name == "both"
    assert made.residual is not None
    assert [(m["name"], m["share"]) for m in made.facts["merged"][1:]] == [("-1.0", 0.25), ("1.0", 0.75)]
    assert Captioner.load(out, device="cpu").name == "both"


def test_a_merged_model_knows_the_captions_that_any_part_learnt(tiny_model: Path) -> None:
    parts = [Checkpoint.load(tiny_model) for _ in range(4)]
    for part, prints in zip(parts, ([9, 11], [2, 4_000_000_000], [4, 9], [1]), strict=True):
        part.fingerprints = np.array(prints, np.uint32)
    made = merged(list(zip(parts, (0, 0.5, 0.5, 0), strict=True)))
    assert made.fingerprints.tolist() == [2, 4, 9, 11, 4_000_000_000]
    assert made.fingerprints.dtype == np.uint32


def test_what_cannot_be_merged_is_named(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["merge", f"{tiny_model}=0.5", f"{tiny_model}=0.6", "--out", str(tmp_path / "no.safetensors")]) == 2
    assert "sum to 1" in capsys.readouterr().err
    first, other = Checkpoint.load(tiny_model), Checkpoint.load(tiny_model)
    other.name, other.encoder = "other", "resnet18"
    with pytest.raises(ValueError, match=r"other and .* are not of a kind"):
        merged([(first, 0.5), (other, 0.5)])
    with pytest.raises(ValueError, match="0 or more"):
        merged([(first, 1.5), (Checkpoint.load(tiny_model), -0.5)])
    for share in (math.nan, math.inf):
        with pytest.raises(ValueError, match="sum to 1"):
            merged([(first, share)])
    assert not (tmp_path / "no.safetensors").exists()


def turned(model: Path, *, stages: bool = False) -> Checkpoint:
    """The model with other eyes: another reduction, or other last stages."""
    checkpoint = Checkpoint.load(model)
    checkpoint.name = "turned"
    if stages:
        checkpoint.last_stages = {"0.weight": torch.ones(2)}
    else:
        checkpoint.reduction.basis = checkpoint.reduction.basis.flip(1)
    return checkpoint


@pytest.mark.parametrize("stages", [False, True])
def test_models_with_other_eyes_are_not_taken_together(tiny_model: Path, tmp_path: Path, stages: bool) -> None:
    first, other = Checkpoint.load(tiny_model), turned(tiny_model, stages=stages)
    with pytest.raises(ValueError, match=r"turned and .* have other eyes"):
        merged([(first, 0.5), (other, 0.5)])
    first.ngrams = other.ngrams = None
    with pytest.raises(ValueError, match="a and b cannot write together: they have other eyes"):
        ensemble({"a": first, "b": other})
    other.save(tmp_path / "turned.safetensors")
    with pytest.raises(ValueError, match="turned has other eyes than"):
        gate(tiny_model, tmp_path / "turned.safetensors", Labels([], []), {}, Rules())
    assert Checkpoint.load(tmp_path / "turned.safetensors").sees_as(other), "a file keeps half the digits"


def test_ids_are_not_averaged(tiny_model: Path) -> None:
    def labelled(*ids: int) -> Checkpoint:
        plain = Checkpoint.load(tiny_model)
        config = {"vocabulary": len(plain.tokenizer), "features": 16, "embedding": 8, "units": 8}
        torch.manual_seed(1)
        decoder = DECODERS["show_and_tell"](config | {"kinds": len(ids), "label": "words"})
        decoder.meet(torch.eye(len(ids), 16), [[i] for i in ids])
        return Checkpoint(decoder, plain.reduction, plain.tokenizer, "m", "show_and_tell", plain.encoder)

    made = merged([(labelled(301, 99), 0.3), (labelled(301, 99), 0.7)]).decoder.state_dict()
    assert all(torch.allclose(made[key], value) for key, value in labelled(301, 99).decoder.state_dict().items())
    assert all(made[k].dtype == v.dtype for k, v in labelled(301, 99).decoder.state_dict().items())
    with pytest.raises(ValueError, match="cannot be averaged"):
        merged([(labelled(301, 99), 0.3), (labelled(301, 98), 0.7)])
