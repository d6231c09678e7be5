"""Which of a picture's captions is the best: a weighted sum of what is known of each, less what is wrong with it."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import device

from captioner.checkpoint import Checkpoint
from captioner.naming import Naming, Word
from captioner.proofreader import Proofreader
from captioner.search import Search, over_length
from captioner.seeing import APES, Seen
from captioner.taste import Taste

STEPS = 28
"""Ids of a meme at most; one in ten of people's is longer. A beam that had to end there ranks low."""
_TWICE = 0.5
"""How much of the doubt about a word is left when the description has it, too."""
_STUTTER = 3.0
"""Taken from the score for every third time and more that a word is said, and for every time twice in a row."""
_AGAIN = 2.0
"""And for every time more than once of a word that was favoured, or of one made of it: a quarter of memes named what
they saw twice and had little else to say ("dog / dogs!!!", "rockstar / rocks"); of people's short ones, one in ten."""
_BROKEN_OFF = 5.0
"""And where the caption had to end before it was finished, or ends with a word that sentences seldom end with."""
_UNCLOSED = 5.0
"""And for a quotation that never ends or never began; of people's boxes with quotes, seven in a hundred have one."""
_MADE_UP = 10.0
"""And for every word that nobody wrote: its pieces never stood together in the training memes."""
_APES = 30.0
"""And on a photograph for every word for an ape: it may be meant for somebody."""
_PROOFREAD = 8
"""Captions that a proofreader reads, the best of those to choose from: 97 times in a hundred, what it makes the best of
31 is among them."""
_COMMON = 0.5
"""The share that is taken from a text's likelihood of what its words would get wherever they stood."""
_WORD = re.compile(r"\w+")
_LONG = re.compile(r"\w{4,}")
_IN_A_ROW = re.compile(r"\b(\w{3,}) \1\b")
_DANGLING = re.compile(
    r"(?<![\w'])(a|an|and|as|because|but|doesn't|he|how|i'm|if|im|it's|its|just|my|new|or|she|than|the|their|they|we|when"
    r"|you're|your)[\s.,…]*$"
)
"""With each of these people end one text of a hundred that they say it in, or fewer."""


@dataclass(frozen=True)
class Caption:
    """One caption, lower case. `score` is what ranks it.

    `logprob` is its natural-log probability among all that the search may write, as far as no words were favoured or
    leant to; 0 where nothing was searched for, as with the names of things that are a description.
    """

    boxes: tuple[str, ...]
    logprob: float
    reward: float | None
    score: float


@dataclass(frozen=True)
class Ranking:
    """What the best caption is chosen by: the weights of its likelihood, of the votes that it may expect, of the chance
    that it names what is seen, of reading as a meme, of a point more of the chat's approval, of words that belong
    to the template, and, on one, of reading like people's memes rather than the model's and of holding together for a
    proofreader."""

    likelihood: float = 1.0
    reward: float = 6.0
    matching: float = 8.0
    voice: float = 2.0
    taste: float = 60.0
    aptness: float = 2.0
    residual: float = 7.0
    fluency: float = 2.0


class Ranker:
    """Scores memes by a checkpoint's judges, and by a proofreader where there is one."""

    def __init__(
        self, by: Ranking, checkpoint: Checkpoint, where: device, naming: Naming, proofreader: Proofreader | None = None
    ) -> None:
        self.by, self.proofreader, self._naming = by, proofreader, naming
        self.reward, self.voice, self.aptness = checkpoint.reward, checkpoint.voice, checkpoint.aptness
        self.residual = checkpoint.residual.to(where) if checkpoint.residual else None
        self.mixture, self._tokenizer = checkpoint.mixture, checkpoint.tokenizer

    def scored(
        self,
        captions: list[Caption],
        seen: Seen,
        description: str,
        taste: Taste | None = None,
        *,
        explore: bool = False,
    ) -> list[Caption]:
        """The memes on a picture with their scores, in any order; the description is what else was written of it.

        What is to be posted unranked (`explore`) is not proofread: that takes most of the time.
        """
        captions = self.judged(captions, seen, description)
        if self.proofreader and self.by.fluency and seen.template and len(captions) > 1 and not explore:
            captions = self.proofread(self.proofreader, captions, seen.template[0])
        if taste:
            liked = (self.by.taste * taste.score([c.boxes for c in captions])).tolist()
            captions = [replace(c, score=c.score + more) for c, more in zip(captions, liked, strict=True)]
        return captions

    def judged(self, captions: list[Caption], seen: Seen, description: str) -> list[Caption]:
        """The captions with the votes that they may expect, and scored by all but proofreader and taste."""
        votes: Sequence[float | None] = [None] * len(captions)
        if self.reward:
            template = seen.template[0] if seen.template else None
            votes = self.reward.score([c.boxes for c in captions], template).mean.tolist()
        odds = [0.0] * len(captions)
        if self.residual and seen.template:
            odds = self.residual.score(self._tokenizer.encode_batch([c.boxes for c in captions]))
        told = set(self._tokenizer.encode([description]))
        return [
            replace(c, reward=vote, score=self._score(c, vote or 0.0, seen, told) + self.by.residual * odd)
            for c, vote, odd in zip(captions, votes, odds, strict=True)
        ]

    def _score(self, caption: Caption, vote: float, seen: Seen, told: set[int]) -> float:
        """By all but the residual, which reads the captions of a picture together."""
        by, ids = self.by, self._tokenizer.encode(caption.boxes)
        favoured = [word for word in {**seen.chances, **dict.fromkeys(seen.posted)} if self._naming.holds(ids, word)]
        # What the description names as well is the surer.
        doubts = ((word, 1 - seen.chances[word]) for word in favoured if word in seen.chances)
        named = [1 - doubt * (_TWICE if told.issuperset(word) else 1) for word, doubt in doubts]
        taken_up = max(named, default=0.0) + any(word in seen.posted for word in favoured)
        voice = self.voice.score(ids) if self.voice and not seen.template else 0.0
        score = by.likelihood * caption.score + by.reward * vote + by.voice * voice
        if self.aptness and seen.template:
            score += by.aptness * self.aptness.score(seen.template[0], ids)
        return score + by.matching * taken_up - self._faults(caption.boxes, ids, favoured, seen)

    def _faults(self, boxes: Sequence[str], ids: Sequence[int], favoured: Sequence[Word], seen: Seen) -> float:
        """What a caption loses for all that is wrong with how it is said."""
        text = " ".join(boxes)
        stutter = sum(max(0, count - 2) for count in Counter(_LONG.findall(text)).values())
        stutter += sum(len(_IN_A_ROW.findall(box)) for box in boxes)
        again = _again(text, {"".join(self._tokenizer.pieces(word)).removeprefix("▁") for word in favoured})
        broken_off = (len(ids) >= STEPS and not seen.template) or bool(_DANGLING.search(text))
        unclosed = any(map(_is_misquoted, boxes))
        made_up = 0
        if self.mixture:
            made_up = sum(not self.mixture.ngrams.knows(run) for run in self._spelled(ids))
        apes = 0 if seen.template else sum(word in APES for word in _WORD.findall(text))
        worst = _APES * apes + _STUTTER * stutter + _AGAIN * again + _BROKEN_OFF * broken_off
        return worst + _UNCLOSED * unclosed + _MADE_UP * made_up

    def _spelled(self, ids: Sequence[int]) -> Iterator[list[int]]:
        """The words that take several pieces, as far as they are letters."""
        run: list[int] = []
        for i, piece in zip(ids, self._tokenizer.pieces(ids), strict=True):
            begins, letters = piece.startswith("▁"), piece.removeprefix("▁")
            if begins or not letters.isalpha():
                if len(run) > 1:
                    yield run
                run = []
            if letters.isalpha():
                run.append(i)
        if len(run) > 1:
            yield run

    def proofread(self, proofreader: Proofreader, captions: list[Caption], template: str) -> list[Caption]:
        """The captions, the best first, with what the proofreader finds of the first of them for the template.

        What it does not read counts as the worst of what it does.
        """
        captions = sorted(captions, key=lambda c: -c.score)
        first = [c.boxes for c in captions[:_PROOFREAD]]
        found = proofreader.read(f'Memes "{template.replace("-", " ")}"', first)
        fluent = [self._fairly(likelihood, boxes) for likelihood, boxes in zip(found, first, strict=True)]
        fluent += [min(fluent, default=0.0)] * (len(captions) - len(first))
        return [replace(c, score=c.score + self.by.fluency * more) for c, more in zip(captions, fluent, strict=True)]

    def _fairly(self, likelihood: float, boxes: Sequence[str]) -> float:
        """A text's log-probability so that short ones and common words have less of an advantage.

        Half of what its words would get wherever they stood is taken from it (all of it: Pauls and Klein 2012).
        """
        ids = self._tokenizer.encode(boxes)
        if self.mixture:
            likelihood -= _COMMON * float(np.log(self.mixture.ngrams.unigrams[ids]).sum())
        return over_length(likelihood, len(ids), Search.length_power)


def _again(text: str, favoured: Iterable[str]) -> int:
    """How often more than once the text has one of the words, its plural, or a word that begins with a long one."""
    said, stems = _WORD.findall(text), {word.removesuffix("s") for word in favoured}
    alike = ([w in (stem, stem + "s") or (len(stem) > 3 and w.startswith(stem)) for w in said] for stem in stems)
    return sum(max(0, sum(found) - 1) for found in alike)


def _is_misquoted(box: str) -> bool:
    """Whether a quotation in the box opens before a gap, ends after one, or does not end."""
    quotes = [match.start() for match in re.finditer('"', box)]
    opens = all(box[at + 1 : at + 2].strip() for at in quotes[::2])
    ends = all(box[at - 1].strip() for at in quotes[1::2])
    return not (opens and ends) or len(quotes) % 2 == 1
