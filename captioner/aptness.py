"""How well words belong to a template: what people say on it and seldom elsewhere.

The network likes what fits every template; among its candidates this picks those that could not stand anywhere. The
odds are those of naive Bayes (McCallum and Nigam 1998), smoothed towards the use of a word on all templates.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_PRIOR = 50.0
"""Ids' worth of use as on all templates that each template starts with."""
_SCALE = 16.0
"""Steps of a stored logarithm: 8 bits reach to ±8."""


class Aptness:
    """`odds` (K, V): how much likelier each id is on a template than on all of them, as a logarithm."""

    def __init__(self, names: Sequence[str], odds: Tensor) -> None:
        self.names, self.odds = list(names), odds
        self._row = {name: row for row, name in enumerate(self.names)}

    @classmethod
    def fit(
        cls, captions: Sequence[Sequence[int]], templates: Sequence[str | None], silent: Sequence[int], vocabulary: int
    ) -> "Aptness":
        """From the ids of people's captions and their templates; `silent` ids say nothing."""
        names = sorted({name for name in templates if name})
        row = {name: place for place, name in enumerate(names)}
        counts = np.zeros((len(names), vocabulary))
        for ids, name in zip(captions, templates, strict=True):
            if name:
                counts[row[name], list(set(ids))] += 1
        used = counts.sum(0)
        share = np.where(used > 0, used, 1) / max(1.0, used.sum())
        odds = np.log((counts + _PRIOR * share) / (counts.sum(1, keepdims=True) + _PRIOR) / share)
        odds[:, used == 0] = 0
        odds[:, list(silent)] = 0
        return cls(names, torch.from_numpy(odds).float())

    def tensor(self, columns: Tensor | None = None) -> Tensor:
        """The odds of those ids, or of all, as bytes for a checkpoint; `from_tensor` is the way back."""
        odds = self.odds if columns is None else self.odds[:, columns.cpu()]
        return (odds * _SCALE).round().clamp(-127, 127).to(torch.int8)

    @classmethod
    def from_tensor(
        cls, names: Sequence[str], stored: Tensor, columns: Tensor | None = None, vocabulary: int = 0
    ) -> "Aptness":
        """Odds (K, V) of all ids, or (K, C) of those `columns` (C,) of a vocabulary; the others then say nothing.

        Raises ValueError for any other shape.
        """
        odds, kept = stored.float() / _SCALE, 0 if columns is None else len(columns)
        if columns is not None and odds.shape == (len(names), kept) != (len(names), vocabulary):
            return cls(names, torch.zeros(len(names), vocabulary).index_copy(1, columns, odds))
        if odds.dim() != 2 or (vocabulary and odds.shape != (len(names), vocabulary)):
            raise ValueError(f"the odds of {len(names)} templates have the shape {tuple(stored.shape)}")
        return cls(names, odds)

    def score(self, template: str, ids: Sequence[int]) -> float:
        """The logarithm of how much likelier a text of these ids is on the template than anywhere; 0 for an unknown."""
        place = self._row.get(template)
        return 0.0 if place is None else float(self.odds[place, sorted(set(ids))].sum())
