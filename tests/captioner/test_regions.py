from pathlib import Path

import pytest
import torch
import torchvision
from PIL import Image

from captioner.captioner import Captioner, Wish
from captioner.encoders import Reduction, build, is_known
from captioner.images import to_jpeg
from captioner.regions import REGIONS, RegionEncoder

SMALL = "fasterrcnn_mobilenet_v3_large_320_fpn"


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> RegionEncoder:
    """With random weights: the published ones would have to be fetched."""
    torch.manual_seed(1)
    net = torchvision.models.get_model(SMALL, weights=None, weights_backbone=None)
    file = tmp_path_factory.mktemp("weights") / "random.pth"
    torch.save(net.state_dict(), file)
    encoder = build(SMALL, file)
    assert isinstance(encoder, RegionEncoder)
    return encoder


@torch.inference_mode()
def test_a_picture_becomes_regions_with_their_boxes(detector: RegionEncoder) -> None:
    pictures = [Image.effect_mandelbrot((300, 200), (-2, -1, 1, 1), 40).convert("RGB"), Image.new("RGB", (90, 120))]
    pixels = detector.pixels(pictures)
    features, boxes = detector.boxes(pixels)
    assert features.shape == (2, REGIONS, detector.channels) == (2, REGIONS, 1024)
    assert boxes.shape == (2, REGIONS, 4)
    assert boxes.min() >= 0
    assert boxes.max() <= 1.001
    assert (boxes[..., 2:] >= boxes[..., :2]).all()
    assert torch.equal(detector(pixels), features)
    places = detector.places(pixels)
    assert torch.equal(places, boxes)
    assert torch.allclose(detector(pixels[1:])[0], features[1], atol=1e-4)
    assert len(torch.unique(boxes[0], dim=0)) > 1


def test_regions_are_what_a_captioner_writes_of(detector: RegionEncoder, tiny_model: Path) -> None:
    captioner = Captioner.load(tiny_model, device="cpu", threads=1)
    captioner.encoder, captioner.sight.objects = detector, None
    captioner.reduction = Reduction(detector.channels, captioner.decoder.config.features)
    picture = captioner.read(to_jpeg(Image.effect_mandelbrot((300, 200), (-2, -1, 1, 1), 40).convert("RGB")))
    assert captioner.encode([detector.pixels([picture.image])]).shape == (1, REGIONS, captioner.decoder.config.features)
    assert captioner.caption([(picture, Wish(n=1))])[0].captions


def test_detectors_are_known_by_name(tmp_path: Path) -> None:
    assert is_known("fasterrcnn_resnet50_fpn")
    assert not is_known("maskrcnn_resnet50_fpn")
    with pytest.raises(ValueError, match="no picture network called fasterrcnn_nothing"):
        build("fasterrcnn_nothing")
