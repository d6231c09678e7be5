"""A shortlist: what is written is on it, and is written as without it."""

from pathlib import Path

import torch

from captioner.captioner import Captioner, Wish
from captioner.checkpoint import Checkpoint
from captioner.mixture import Mixture
from captioner.shortlist import shortlist, widened
from tests.conftest import TEXTS


def test_the_words_that_captions_need_most_are_on_it(tiny_model: Path) -> None:
    tokenizer = Checkpoint.load(tiny_model).tokenizer
    often, seldom = tokenizer.encode(["dog"]), tokenizer.encode(["laser"])
    styles = [[often] * 9 + [seldom], [often] * 9]
    chosen = shortlist(tokenizer, styles, size=len(set(often)) + 3).tolist()
    assert chosen == sorted(set(chosen))
    assert {*often, tokenizer.unk, tokenizer.sep} <= set(chosen)
    assert set(tokenizer.encode(["cat"])) <= set(shortlist(tokenizer, styles, ["cat"], size=12).tolist())
    everything = shortlist(tokenizer, styles).tolist()
    assert set(everything) & set(tokenizer.forbidden) == {tokenizer.unk}


def test_a_list_grows_by_words_in_any_number_of_pieces(tiny_model: Path) -> None:
    tokenizer = Checkpoint.load(tiny_model).tokenizer
    listed = shortlist(tokenizer, [[tokenizer.encode(["dog"])]], size=12)
    pieces = {piece for word in ("zeppelin", "cat", "cats") for piece in tokenizer.encode([word])[:-1]}
    assert not pieces <= set(listed.tolist())
    grown = widened(listed, tokenizer, ["zeppelin", "cat"]).tolist()
    assert grown == sorted(set(grown))
    assert len(grown) % 16 == 0
    assert {*listed.tolist(), *pieces}.difference(tokenizer.forbidden) <= set(grown)
    assert set(grown) & set(tokenizer.forbidden) == {tokenizer.unk}
    assert widened(torch.tensor(grown), tokenizer, ["cat"]).tolist() == grown


def test_a_list_of_everything_changes_no_caption(tiny_model: Path, tmp_path: Path) -> None:
    plain = Captioner.load(tiny_model, device="cpu", threads=1)
    checkpoint = Checkpoint.load(tiny_model)
    checkpoint.decoder.shorten(torch.arange(len(checkpoint.tokenizer)))
    checkpoint.save(tmp_path / "listed.safetensors")
    listed = Captioner.load(tmp_path / "listed.safetensors", device="cpu", threads=1)
    grids = torch.randn(3, 49, 16, generator=torch.Generator().manual_seed(1))
    wishes, seeds = [Wish(seed=i) for i in range(3)], [1, 2, 3]
    said = [[c.boxes for c in made.captions] for made in plain.decode(grids, wishes, seeds)]
    assert said == [[c.boxes for c in made.captions] for made in listed.decode(grids, wishes, seeds)]


def test_nothing_else_is_written(tiny_model: Path, tmp_path: Path) -> None:
    checkpoint = Checkpoint.load(tiny_model)
    tokenizer = checkpoint.tokenizer
    ids = shortlist(tokenizer, [[tokenizer.encode([t]) for t in TEXTS]], size=96)
    checkpoint.decoder.shorten(ids)
    checkpoint.save(tmp_path / "short.safetensors")
    captioner = Captioner.load(tmp_path / "short.safetensors", device="cpu", threads=1)
    captioner.fingerprints = captioner.fingerprints[:0]
    grids = torch.randn(4, 49, 16, generator=torch.Generator().manual_seed(2))
    pieces = set(tokenizer.pieces(ids.tolist()))
    for made in captioner.decode(grids, [Wish(seed=i) for i in range(4)], range(4)):
        for caption in made.captions:
            assert "".join(caption.boxes)
            assert all(letter in "".join(pieces) for letter in "".join(caption.boxes).replace(" ", ""))


def test_counts_say_the_same_of_a_listed_id(tiny_model: Path) -> None:
    checkpoint = Checkpoint.load(tiny_model)
    assert checkpoint.ngrams
    ids = shortlist(checkpoint.tokenizer, [[checkpoint.tokenizer.encode([t]) for t in TEXTS]], size=40)
    history = torch.tensor([[checkpoint.ngrams.start, *checkpoint.tokenizer.encode(["when the cat"])[:-1]]])
    weights = torch.rand(1, len(checkpoint.tokenizer))
    listed = weights[:, ids].clone()
    Mixture(checkpoint.ngrams, checkpoint.gate).add_(weights, history, torch.ones(1))
    Mixture(checkpoint.ngrams, checkpoint.gate, ids).add_(listed, history, torch.ones(1))
    assert torch.allclose(weights[:, ids], listed)
