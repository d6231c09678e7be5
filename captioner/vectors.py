"""Pretrained word vectors in the text format of GloVe (Pennington, Socher and Manning 2014).

A line is a word and its numbers, blanks between.
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from captioner.tokenizer import CaptionTokenizer


def fill(embedding: nn.Embedding, tokenizer: CaptionTokenizer, file: Path) -> int:
    """Gives the ids that are whole words the file's vectors; how many there were.

    Vectors longer than the embedding are projected on their principal axes; all are scaled to its own spread. Raises
    ValueError where they are shorter, or the file is none of vectors.
    """
    ids = {p.removeprefix("▁"): i for i, p in enumerate(tokenizer.pieces(range(len(tokenizer)))) if p.startswith("▁")}
    found = read(file, set(ids))
    if not found:
        raise ValueError(f"{file} has no vector for any word of the vocabulary.")
    vectors = torch.from_numpy(np.stack(list(found.values())))  # (W, N)
    size = embedding.embedding_dim
    if vectors.shape[1] < size:
        raise ValueError(f"{file} has vectors of {vectors.shape[1]} numbers, the embedding has {size}.")
    if vectors.shape[1] > size:
        _, _, axes = torch.linalg.svd(vectors, full_matrices=False)
        if len(axes) < size:
            raise ValueError(f"{file} has only {len(found)} words of the vocabulary, too few to shorten their vectors.")
        vectors = vectors @ axes[:size].T
    with torch.no_grad():
        vectors *= embedding.weight.std() / vectors.std()
        embedding.weight[[ids[word] for word in found]] = vectors
    return len(found)


def read(file: Path, words: set[str]) -> dict[str, np.ndarray]:
    """The vectors (N,) of those words; raises ValueError with the line that is no vector."""
    found: dict[str, np.ndarray] = {}
    length = 0
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            word, _, rest = line.rstrip().partition(" ")
            if word not in words:
                continue
            vector = np.array(_numbers(rest), np.float32)
            if not len(vector) or len(vector) != (length or len(vector)):
                raise ValueError(f"Line {number} of {file} is not a word and as many numbers as the others have.")
            length = len(vector)
            found[word] = vector
    return found


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split()]
    except ValueError:
        return []
