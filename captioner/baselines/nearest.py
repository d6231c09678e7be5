"""Nearest neighbour: of the captions of the most similar pictures, the one that the others agree with most.

Devlin, Gupta, Girshick, Mitchell and Zitnick 2015, "Exploring Nearest Neighbor Approaches for Image Captioning": the
consensus caption of the nearest training pictures.

Deviations: features are the mean of the frozen encoder's grid; agreement is CIDEr (Vedantam et al. 2015) without
clipping and penalty of length, the mean over the half of the candidates that agree most.

Shapes: P pictures, D features, C candidates, G different n-grams among them.
"""

import math
from collections import Counter

import torch
from torch import Tensor

from captioner.baselines.pictures import Pictures, direction, directions
from captioner.metrics import ngrams, words

_CANDIDATES = 150
"""At least; the captions of as many pictures as it takes."""
_MOST = 300
_AGREEING = 0.5

Vector = dict[tuple[str, ...], float]


class NearestNeighbour:
    def __init__(self, known: Pictures) -> None:
        self.known = known
        self.directions = directions(known.grids)  # (P, D)
        frequency: Counter[tuple[str, ...]] = Counter()
        for said in known.captions:
            frequency.update({gram for text in said for n in range(1, 5) for gram in ngrams(words(text), n)})
        rare = math.log(max(2, len(known.captions)))
        self._weights = {gram: rare - math.log(count) for gram, count in frequency.items()}

    def caption(self, grid: Tensor) -> str:
        order = (self.directions @ direction(grid)).argsort(descending=True).tolist()
        candidates: list[str] = []
        for picture in order:
            candidates += self.known.captions[picture]
            if len(candidates) >= _CANDIDATES:
                break
        candidates = candidates[:_MOST]
        return candidates[int(self._agreement(candidates).argmax())]

    def _agreement(self, candidates: list[str]) -> Tensor:
        """How far each candidate (C,) is what the others say."""
        vectors = [self._vector(text) for text in candidates]
        column = {gram: i for i, gram in enumerate({gram for vector in vectors for gram in vector})}
        table = torch.zeros(len(vectors), max(1, len(column)))  # (C, G)
        for row, vector in zip(table, vectors, strict=True):
            row[[column[gram] for gram in vector]] = torch.tensor(list(vector.values()))
        likeness = (table @ table.T).fill_diagonal_(0)
        return likeness.topk(max(1, int(len(likeness) * _AGREEING))).values.mean(1)

    def _vector(self, text: str) -> Vector:
        """TF-IDF of the 1- to 4-grams, each length of norm ½: products are the mean of the four cosines."""
        made: Vector = {}
        tokens = words(text)
        for n in range(1, 5):
            part = {gram: count * self._weights[gram] for gram, count in ngrams(tokens, n).items()}
            norm = math.sqrt(sum(value * value for value in part.values()))
            made |= {gram: value / norm / 2 for gram, value in part.items() if norm}
        return made
