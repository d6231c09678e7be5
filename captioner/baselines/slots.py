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


class SlotTemplates:
    """Raises ValueError for captions that agree on too few words."""

    def __init__(self, known: Pictures) -> None:
        self.directions = directions(known.grids)
        self.of_their_own = known.of_their_own
        self.keywords = _recogniser(known)
        self._place = {word: i for i, word in enumerate(self.keywords.words)}
        self._between: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        groups = known.captions if known.of_their_own else [[text for said in known.captions for text in said]]
        self._sentences = [self._commonest(said) for said in groups]

    @torch.inference_mode()
    def caption(self, grid: Tensor) -> str:
        seen = self.keywords(grid.float().unsqueeze(0))[0].clamp(min=1e-6).log()  # (K,)
        picture = int((self.directions @ direction(grid)).argmax()) if self.of_their_own else 0
        made = (self._filled(sentence, score, seen) for sentence, score in self._sentences[picture])
        return max(made, key=lambda scored: scored[0])[1]

    def _commonest(self, said: Sequence[str]) -> list[tuple[Sentence, float]]:
        """Sentences with slots and the logarithm of how often each was used; what stood in the slots is counted."""
        used: Counter[Sentence] = Counter()
        for text in said:
            tokens = words(text)
            sentence = tuple(_SLOT if singular(w) in self._place else w for w in tokens)
            used[sentence] += 1
            for word, around in zip(tokens, _around(sentence), strict=True):
                if singular(word) in self._place:
                    self._between[around][word] += 1
        fit = [s for s, _ in used.most_common() if s.count(_SLOT) in _SLOTS][:_SENTENCES] or [used.most_common(1)[0][0]]
        return [(s, math.log(used[s])) for s in fit]

    def _filled(self, sentence: Sentence, score: float, seen: Tensor) -> tuple[float, str]:
        """The sentence with the likeliest words in its slots, none twice, and how likely all of it is."""
        made: list[str] = []
        for word, around in zip(sentence, _around(sentence), strict=True):
            if word != _SLOT:
                made.append(word)
                continue
            counts = self._between[around]
            chances = {
                filler: float(seen[self._place[singular(filler)]]) + math.log(count / counts.total())
                for filler, count in counts.items()
            }
            best = max(chances.keys() - made or chances, key=lambda filler: (chances[filler], filler))
            score += chances[best] + _PAY
            made.append(best)
        return score, " ".join(made)


def _around(sentence: Sentence) -> list[tuple[str, str]]:
    """The words before and after each; nothing at the ends."""
    return list(zip(("", *sentence[:-1]), (*sentence[1:], ""), strict=True))


def _recogniser(known: Pictures) -> Keywords:
    counts = [Counter(w for text in said for w in {singular(w) for w in words(text)}) for said in known.captions]
    frequent = frozenset(w for c in counts for w in c if w not in STOP and len(w) > 2 and w.isalpha())
    return Keywords.fit(np.asarray(known.grids), counts, frequent, known.seed)
