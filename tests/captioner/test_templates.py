from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from captioner.encoders import Encoder, Reduction, build
from captioner.templates import Fit, Templates, learnt

NAMES = ("cat", "dog", "owl", "fry")
QUICK = Fit(units=32, dimensions=16, epochs=30)


def picture(name: int) -> Tensor:
    """A grid (49, 24) with a colour of its own."""
    draw = torch.Generator().manual_seed(name)
    return torch.randn(24, generator=draw) + torch.randn(49, 24, generator=draw)


def copies(name: int, count: int, seed: int = 0) -> Tensor:
    """Grids (count, 49, 24) of one made-up template, each with its own noise."""
    return picture(name) + 0.5 * torch.randn(count, 49, 24, generator=torch.Generator().manual_seed(seed + 1))


def strangers(count: int, seed: int) -> Tensor:
    return torch.cat([copies(1000 * seed + i, 1) for i in range(count)])


@pytest.fixture(scope="module")
def templates() -> Templates:
    return Templates.fit({name: copies(i, 30) for i, name in enumerate(NAMES)}, strangers(300, 1), QUICK)


def test_copies_are_recognised_and_others_are_not(templates: Templates) -> None:
    for i, name in enumerate(NAMES):
        for match in templates.recognise(copies(i, 10, seed=5)):
            assert match is not None
            assert match[0] == name
            assert 0.5 <= match[1] <= 1
    assert sum(match is not None for match in templates.recognise(strangers(100, 2))) <= 10


def test_a_picture_is_taken_for_the_same_alone_and_in_a_batch(templates: Templates) -> None:
    grids = torch.cat([copies(0, 3), strangers(3, 4), copies(2, 3)])
    assert templates.recognise(grids) == [templates.recognise(grid[None])[0] for grid in grids]


def test_the_fit_is_repeatable_and_leaves_the_global_generator_alone() -> None:
    views = {name: copies(i, 4) for i, name in enumerate(NAMES)}
    before = torch.get_rng_state()
    first, second = (Templates.fit(views, strangers(8, 1), Fit(epochs=2)).tensors() for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_half_precision_recognises_the_same(templates: Templates) -> None:
    stored = {key: value.half() for key, value in templates.tensors().items()}
    restored = Templates.from_tensors(templates.names, stored)
    grids = torch.cat([copies(0, 3), strangers(3, 4)])
    for old, new in zip(templates.recognise(grids), restored.recognise(grids), strict=True):
        assert (old is None) == (new is None)
        if old and new:
            assert old[0] == new[0]
            assert old[1] == pytest.approx(new[1], abs=0.02)


def test_tensors_that_do_not_fit_together_are_refused(templates: Templates) -> None:
    with pytest.raises(RuntimeError):
        Templates.from_tensors(("one",), templates.tensors())
    with pytest.raises(KeyError):
        Templates.from_tensors(templates.names, {})


def test_nothing_is_recognised_without_templates() -> None:
    empty = Templates((), 49, 24, 8, 8, 0.5)
    assert empty.recognise(copies(0, 2)) == [None, None]


def test_mirrored_copies_are_told_apart(templates: Templates) -> None:
    for i, name in enumerate(NAMES):
        for copy in copies(i, 5, seed=9):
            swapped = copy.view(7, 7, 24).flip(1).reshape(49, 24)
            assert not templates.is_mirrored(name, copy)
            assert templates.is_mirrored(name, swapped)


def test_pictures_become_a_recogniser(tmp_path: Path) -> None:
    encoder = build()
    reduction = Reduction(encoder.channels, 8)
    reduction.basis = torch.randn(encoder.channels, 8, generator=torch.Generator().manual_seed(0)) / 40
    files = {name: tmp_path / f"{name}.png" for name in ("red", "round")}
    Image.linear_gradient("L").convert("RGB").save(files["red"])
    Image.radial_gradient("L").convert("RGB").save(files["round"])
    other = tmp_path / "grey.png"
    Image.new("RGB", (64, 48), "grey").save(other)
    made = learnt(encoder, reduction, files, [other], views=3, how=Fit(epochs=1))
    assert made.names == ("red", "round")
    assert len(made.recognise(_grids(encoder, reduction, files["red"]))) == 1


@torch.inference_mode()
def _grids(encoder: Encoder, reduction: Reduction, file: Path) -> Tensor:
    with Image.open(file) as image:
        grids: Tensor = reduction(encoder(encoder.pixels([image.convert("RGB")])))
    return grids
