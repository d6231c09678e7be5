"""Whether captions fit their template: a bag of words tells which one they were written for."""

from collections import Counter
from collections.abc import Sequence
from itertools import chain

import numpy as np

Tokens = Sequence[str]


class TemplateReader:
    """Multinomial naive Bayes over words (McCallum and Nigam 1998), every template as likely beforehand."""

    def __init__(self, captions: Sequence[Tokens], templates: Sequence[str], least: int = 2) -> None:
        """Learns from people's captions and their templates; words seen fewer than `least` times are left out."""
        seen = Counter(chain.from_iterable(captions))
        self.templates = sorted(set(templates))
        self._words = {w: i for i, w in enumerate(sorted(w for w, count in seen.items() if count >= least))}
        rows = {name: i for i, name in enumerate(self.templates)}
        counts = np.full((len(rows), len(self._words)), 0.1)
        for caption, name in zip(captions, templates, strict=True):
            np.add.at(counts[rows[name]], self._known(caption), 1)
        self._weights = np.log(counts) - np.log(counts.sum(1, keepdims=True))  # (templates, words)

    def likeliest(self, caption: Tokens, count: int) -> list[str]:
        """The templates that the caption most probably belongs to, best first."""
        scores = self._weights[:, self._known(caption)].sum(1)
        return [self.templates[i] for i in np.argsort(-scores, kind="stable")[:count]]

    def accuracy(self, captions: Sequence[Tokens], templates: Sequence[str], count: int) -> float | None:
        """The share of captions whose template is among the `count` likeliest; None without captions."""
        right = [name in self.likeliest(c, count) for c, name in zip(captions, templates, strict=True)]
        return sum(right) / len(right) if right else None

    def _known(self, caption: Tokens) -> list[int]:
        return [self._words[w] for w in caption if w in self._words]
