"""How a search is led to name what is seen: some words are favoured, and on strange pictures others held back."""

import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from captioner.mixture import Mixture
from captioner.search import Favour, Rules
from captioner.tokenizer import CaptionTokenizer

Word = tuple[int, ...]
"""The ids of a word's pieces."""

_NAMED = 5.0
"""Added to the logit of a word that was posted with the picture or is surely seen; a doubtful one gets less, one on a
picture that is surely strange one more: there, the network itself would say something else."""
_RARE, _USUAL = 0.5, -8.0
"""And a share of how much rarer it is in people's memes than *dog*, whose log-probability this is; twice as much where
the picture is strange: the network would rather call a lion a dog."""
_UNNAMED = -6.0
"""Added to the logit of the end as long as none of these words was written."""
_MISTAKEN = -4.0
"""Added to the logit of a word for what is not there, where the picture is surely strange."""
_MOST = 8
"""Words that are favoured at most."""
_PLURAL = 0.2
"""How likely a thing is to be there more than once, where nobody said how likely that is."""


class Naming:
    """What a search may write, and the counts that tell how usual words are in memes."""

    def __init__(self, tokenizer: CaptionTokenizer, rules: Rules, mixture: Mixture | None) -> None:
        self._tokenizer, self._rules, self._mixture = tokenizer, rules, mixture

    def spelled(self, word: str) -> Word | None:
        """The ids that write a word, where they may be written: one, or as many as are known to follow each other."""
        ids = tuple(self._tokenizer.encode([word])[:-1])
        if not ids or any(i not in self._rules.column or i in self._tokenizer.forbidden for i in ids):
            return None
        # Else the first would begin too many other words.
        is_known = len(ids) == 1 or (self._mixture is not None and self._mixture.ngrams.knows(ids))
        return ids if is_known else None

    def forms(self, word: str) -> list[Word]:
        """The ids that write a word and its plural, as far as those may be written."""
        return [ids for ids in map(self.spelled, (word, word + "s")) if ids]

    def chances(self, words: Mapping[str, float], least: float) -> dict[Word, float]:
        """How likely it is that what is written so is there: the likeliest words, and their plurals.

        Those that come to less than `least` are left out.
        """
        found = dict(sorted(words.items(), key=lambda entry: -entry[1])[:_MOST])
        plurals = {word + "s": _PLURAL * chance for word, chance in found.items() if word + "s" not in words}
        spelled = ((self.spelled(word), chance) for word, chance in (found | plurals).items() if chance >= least)
        return {word: chance for word, chance in spelled if word}

    def holds(self, ids: Sequence[int], word: Word) -> bool:
        """Whether the ids of a word stand together among others, and are not the beginning of another word."""
        parts = (ids[at : at + len(word) + 1] for at, first in enumerate(ids) if first == word[0])
        return any((*part[:-1],) == word and part[-1] not in self._rules.continuing for part in parts)

    def favour(
        self, chances: Mapping[Word, float], posted: Collection[Word], strange: float, mistaken: Collection[Word]
    ) -> tuple[Favour, ...]:
        """What makes a search write one of the words: the surer, and the rarer, the more.

        Where words were `posted`, it is these alone: of what is seen the network speaks by itself.
        `strange` is how surely the picture is unlike what the network has learnt to describe, and `mistaken` are
        the words for what it would see there.
        """
        wanted: dict[tuple[int, int], float] = defaultdict(float)
        whole: set[tuple[int, int]] = set()
        for word in posted or chances:
            usual = self._usual(word)
            rarity = max(0.0, _USUAL - sum(usual))
            bonus = _NAMED + _RARE * rarity
            if not posted:
                bonus += math.log(chances[word]) + strange * (1 + _RARE * rarity)
            for at, piece in enumerate(word):
                # A beginning is wanted as far as it is usual that the word goes on from there.
                key = piece, word[at - 1] if at else -1
                wanted[key] += (math.exp(bonus) - 1) * math.exp(sum(usual[at + 1 :]))
                if at == len(word) - 1:
                    whole.add(key)
        favour = [
            Favour(piece, math.log1p(gain), after, (piece, after) in whole) for (piece, after), gain in wanted.items()
        ]
        if wanted:
            favour.append(Favour(self._tokenizer.eos, _UNNAMED))
        held = [Favour(word[0], _MISTAKEN * strange, whole=False) for word in mistaken if len(word) == 1 and strange]
        return (*favour, *held)

    def _usual(self, word: Word) -> list[float]:
        """The log-probabilities in memes of a word's pieces, where nothing is known but those before."""
        if not self._mixture:
            return [0.0] * len(word)
        ngrams = self._mixture.ngrams
        anywhere = (self._tokenizer.unk, *word)  # after an id that was never seen, and not where a text begins
        return [float(np.log(ngrams.unigrams[word[0]])), *np.log(ngrams.evidence([anywhere]).probability[2:]).tolist()]
