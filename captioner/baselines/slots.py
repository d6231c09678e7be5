"""Slot templates: sentences that people use often, their content words cut out and filled by what is recognised.

In the spirit of Farhadi et al. 2010 and Kulkarni et al. 2011 ("Baby Talk"), who detect objects and fill ⟨object,
action, scene⟩ into fixed sentences.

Deviations: the sentences are the commonest of the training captions, not a grammar; what is seen is a bag of words read
off the grid (captioner.keywords) instead of detectors, and a slot takes what people say between the same two words. On
memes each picture has the sentences of its own template: the snowclones.

Shapes: R places of the grid, D features, K words that may be recognised.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from captioner.baselines.pictures import Pictures, direction, directions
from captioner.data.pairs import STOP, singular
from captioner.keywords import Keywords
from captioner.metrics import words

_SLOT = "*"
_SENTENCES = 400
_SLOTS = range(1, 5)
_PAY = 2.5
"""What a slot adds to a sentence's score: else short ones that say nothing would always win."""

Sentence = tuple[str, ...]
Around = tuple[str, str]


class SlotTemplates:
    """Raises ValueError for captions that agree on too few words."""

    def __init__(self, known: Pictures) -> None:
        self.directions = directions(known.grids)
        self.of_their_own = known.of_their_own
        self.keywords = _recogniser(known)
        self._place = {word: i for i, word in enumerate(self.keywords.words)}
        between: dict[Around, Counter[str]] = defaultdict(Counter)
        groups = known.captions if known.of_their_own else [[text for said in known.captions for text in said]]
        self._sentences = [self._commonest(said, between) for said in groups]
        self._fillers = {around: self._spoken(counts) for around, counts in between.items()}

    @torch.inference_mode()
    def caption(self, grid: Tensor) -> str:
        seen = self.keywords(grid.float().unsqueeze(0))[0].clamp(min=1e-6).log()  # (K,)
        picture = int((self.directions @ direction(grid)).argmax()) if self.of_their_own else 0
        best: dict[Around, list[tuple[str, float]]] = {}
        made = (self._filled(sentence, score, seen, best) for sentence, score in self._sentences[picture])
        return max(made, key=lambda scored: scored[0])[1]

    def _commonest(self, said: Sequence[str], between: dict[Around, Counter[str]]) -> list[tuple[Sentence, float]]:
        """Sentences with slots and the logarithm of how often each was used; counts what stood `between` two words."""
        used: Counter[Sentence] = Counter()
        for text in said:
            tokens = words(text)
            sentence = tuple(_SLOT if singular(w) in self._place else w for w in tokens)
            used[sentence] += 1
            for word, around in zip(tokens, _around(sentence), strict=True):
                if singular(word) in self._place:
                    between[around][word] += 1
        fit = [s for s, _ in used.most_common() if s.count(_SLOT) in _SLOTS][:_SENTENCES] or [used.most_common(1)[0][0]]
        return [(s, math.log(used[s])) for s in fit]

    def _spoken(self, counts: Counter[str]) -> tuple[list[str], Tensor, Tensor]:
        """Words, their places among those recognised, and how likely each is, as logarithms."""
        places = torch.tensor([self._place[singular(word)] for word in counts])
        return list(counts), places, (torch.tensor(list(counts.values())) / counts.total()).log()

    def _filled(
        self, sentence: Sentence, score: float, seen: Tensor, best: dict[Around, list[tuple[str, float]]]
    ) -> tuple[float, str]:
        """The sentence with the likeliest words in its slots, none twice, and how likely all of it is.

        `best` keeps what has been found for other sentences of the picture.
        """
        made: list[str] = []
        for word, around in zip(sentence, _around(sentence), strict=True):
            if word != _SLOT:
                made.append(word)
                continue
            if around not in best:
                fillers, places, spoken = self._fillers[around]
                top = (seen[places] + spoken).topk(min(len(fillers), _SLOTS.stop))
                best[around] = [(fillers[i], c) for i, c in zip(top.indices.tolist(), top.values.tolist(), strict=True)]
            filler, chance = next(((f, c) for f, c in best[around] if f not in made), best[around][0])
            score += chance + _PAY
            made.append(filler)
        return score, " ".join(made)


def _around(sentence: Sentence) -> list[Around]:
    """The words before and after each; nothing at the ends."""
    return list(zip(("", *sentence[:-1]), (*sentence[1:], ""), strict=True))


def _recogniser(known: Pictures) -> Keywords:
    counts = [Counter(w for text in said for w in {singular(w) for w in words(text)}) for said in known.captions]
    frequent = frozenset(w for c in counts for w in c if w not in STOP and len(w) > 2 and w.isalpha())
    return Keywords.fit(np.asarray(known.grids), counts, frequent, known.seed)
