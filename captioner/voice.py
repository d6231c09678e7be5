"""Whether a text reads as a meme or as a description: naive Bayes over the ids it uses (McCallum and Nigam 1998).

A captioner that has learnt both slides from one into the other on a photograph; this tells the ranking.
"""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

_MOST = 3.0
"""What one id may say at most: few texts decide about a rare word."""
_DOUBT = 3.0
"""Odds that a meme should have before it is taken for one."""


class Voice:
    """`odds` (V,): how much likelier a meme uses each id than a description does, as a logarithm."""

    def __init__(self, odds: Tensor) -> None:
        self.odds = odds.float()

    @classmethod
    def fit(cls, memes: Iterable[Sequence[int]], descriptions: Iterable[Sequence[int]], vocabulary: int) -> "Voice":
        """From the ids of people's captions in both voices."""
        shares = [_shares(texts, vocabulary) for texts in (memes, descriptions)]
        return cls((shares[0].log() - shares[1].log()).clamp(-_MOST, _MOST))

    def score(self, ids: Sequence[int]) -> float:
        """The logarithm of the chance that a text of these ids was written as a meme; 0 is certain."""
        odds = float(self.odds[sorted(set(ids))].sum()) - _DOUBT
        return -math.log1p(math.exp(-odds)) if odds > -30 else odds


def _shares(texts: Iterable[Sequence[int]], vocabulary: int) -> Tensor:
    """The share of texts (V,) that use each id, one more counted for each."""
    counts, size = torch.ones(vocabulary, dtype=torch.float64), 1
    for ids in texts:
        counts[list(set(ids))] += 1
        size += 1
    return counts / size
