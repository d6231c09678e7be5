from pathlib import Path

import pytest
import torch
from torch import nn

from captioner.tokenizer import CaptionTokenizer
from captioner.vectors import fill, read

WORDS = ["dog", "cat", "runs", "sleeps", "bird"]


@pytest.fixture(scope="module")
def tokenizer() -> CaptionTokenizer:
    return CaptionTokenizer.of_words([" ".join(WORDS)], 1)


def written(folder: Path, rows: list[str]) -> Path:
    (folder / "vectors.txt").write_text("\n".join(rows) + "\n", "utf-8")
    return folder / "vectors.txt"


def test_words_get_their_vectors_and_others_keep_theirs(tokenizer: CaptionTokenizer, tmp_path: Path) -> None:
    file = written(tmp_path, ["dog 1 0 0", "unheard 5 5 5", "cat 0 2 0", ". 1 1 1"])
    embedding = nn.Embedding(len(tokenizer), 3)
    before, spread = embedding.weight.detach().clone(), float(embedding.weight.detach().std())
    assert fill(embedding, tokenizer, file) == 2
    ids = [tokenizer.encode([word])[0] for word in ("dog", "cat")]
    found = embedding.weight.detach()[ids]
    assert torch.allclose(found / found.std() * spread, found, atol=1e-5)  # at home among the others
    assert torch.allclose(found[1] * torch.tensor([0.0, 0.5, 0.0]), found[0].roll(1) * torch.tensor([0.0, 1.0, 0.0]))
    rest = [i for i in range(len(tokenizer)) if i not in ids]
    assert torch.equal(embedding.weight.detach()[rest], before[rest])


def test_longer_vectors_are_projected_and_likeness_stays(tokenizer: CaptionTokenizer, tmp_path: Path) -> None:
    torch.manual_seed(0)
    plane = torch.randn(5, 2) @ torch.randn(2, 8)  # vectors that lie in a plane lose nothing
    file = written(tmp_path, [f"{w} {' '.join(f'{x:.6f}' for x in row)}" for w, row in zip(WORDS, plane, strict=True)])
    embedding = nn.Embedding(len(tokenizer), 2)
    assert fill(embedding, tokenizer, file) == 5
    made = embedding.weight.detach()[[tokenizer.encode([word])[0] for word in WORDS]]
    cosine = torch.nn.functional.cosine_similarity
    for i in range(1, 5):
        assert float(cosine(made[0], made[i], 0)) == pytest.approx(float(cosine(plane[0], plane[i], 0)), abs=1e-4)


@pytest.mark.parametrize(
    ("rows", "size", "message"),
    [
        (["unheard 1 2 3"], 3, "no vector for any word"),
        (["dog 1 2"], 3, "vectors of 2 numbers, the embedding has 3"),
        (["dog 1 2 3 4"], 3, "only 1 words"),
        (["dog one two"], 2, "Line 1 of .* is not a word"),
        (["dog 1 2", "cat 1 2 3"], 2, "Line 2 of .* is not a word"),
    ],
)
def test_what_does_not_fit_is_said(
    tokenizer: CaptionTokenizer, tmp_path: Path, rows: list[str], size: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        fill(nn.Embedding(len(tokenizer), size), tokenizer, written(tmp_path, rows))


def test_only_asked_for_words_are_kept(tmp_path: Path) -> None:
    assert set(read(written(tmp_path, ["dog 1 2", "cat 3 4"]), {"cat", "cow"})) == {"cat"}
