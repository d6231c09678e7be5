"""What a picture shows, as far as memes on it are concerned: which known template it is, or else which things."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, device

from captioner import filter as block
from captioner.checkpoint import Checkpoint
from captioner.data.pairs import GRAMMAR, STOP, singular
from captioner.encoders import DEFAULT
from captioner.naming import Naming, Word
from captioner.objects import Objects, names, together, vocabulary
from captioner.tokenizer import normalise

_LINK = re.compile(r"(?:https?://|www\.)\S+", re.IGNORECASE)
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")
_SURE = 0.1
"""How likely a word must be that is favoured."""
_SURELY = 0.4
"""How likely things are that a picture is described by, where descriptions have taught no sentence for them."""
_UNFAMILIAR, _MAYBE = 0.7, 0.2
"""From which strangeness on no sentence stands beside memes where nothing is surely there: of fourteen pictures none
was true. Said is then what is there with this chance, which was true of five of seven."""


APES = frozenset(
    {"ape", "baboon", "chimp", "gorilla", "monkey", "orangutan"}
    | {"apes", "baboons", "chimps", "gorillas", "monkeys", "orangutans"}
)
"""Networks take people for them, and descriptions of children on monkey bars have the word; nobody is to be called so.
No search is led to these, and on what is no template a meme with one ranks last."""


class Seen(NamedTuple):
    """What is known of a picture before a word is written: words that were posted with it, and how likely others name
    what is there.

    `names` are the things on a picture that no description taught to describe; `strange` is how surely it is such a
    one, `mistaken` the words for what is not there that were taught, and `unsure` what to say of it beside a meme where
    a sentence would be false and no name is sure.
    """

    template: tuple[str, float] | None
    mirrored: bool
    posted: Sequence[Word] = ()
    chances: Mapping[Word, float] = {}
    names: Sequence[str] = ()
    strange: float = 0.0
    mistaken: Collection[Word] = ()
    unsure: str = ""


class Sight:
    """A checkpoint's recognisers: of templates, of the words that descriptions taught, and of ImageNet's objects."""

    def __init__(self, checkpoint: Checkpoint, where: device, naming: Naming) -> None:
        self.naming = naming
        self.templates = checkpoint.templates.to(where) if checkpoint.templates else None
        self.keywords = checkpoint.keywords.to(where) if checkpoint.keywords else None
        self.objects = Objects(checkpoint.usual).to(where) if checkpoint.encoder == DEFAULT else None

    def see(
        self, grid: Tensor, style: str, context: str, level: block.Level, objects: Callable[[], Tensor | None]
    ) -> Seen:
        """What a picture (1, R, D) shows, alone as in a batch: its template, or else words to favour.

        `context` was posted with it; `objects` gives what `classified` does, and is asked of photographs only.
        """
        refused = partial(block.shipped().blocks, style="meme", level=level)
        said = [word for word in posted_words(context) if not refused([word])]
        template = self.templates.recognise(grid)[0] if self.templates else None
        if template and self.templates:
            return Seen(template, self.templates.is_mirrored(template[0], grid[0]), self._forms(said))
        posted = self._forms([word for word in said if singular(word) not in APES])
        taught, found, strange = self.words(grid, objects())
        described = partial(block.shipped().blocks, style="describe", level=level)
        sure = {word: chance for word, chance in found.items() if strange * chance > _SURELY and not described([word])}
        if style != "meme":
            return Seen(None, False, posted, names=names(sure))
        sayable = {word: c for word, c in found.items() if c < _SURE or not (word in APES or refused([word]))}
        chances = self.naming.chances(sayable, _SURE)
        unlike = [word for word, chance in taught.items() if chance >= _SURE > found.get(word, 0.0)]
        mistaken = {form for word in unlike for form in self.naming.forms(word)}.difference(chances, posted)
        unsure = ""
        if not sure and strange >= _UNFAMILIAR:
            unsure = _unsure({word: found[word] for word in vocabulary() if word in found and not described([word])})
        return Seen(None, False, posted, chances, names(sure), strange, mistaken, unsure)

    def words(self, grid: Tensor, classes: Tensor | None = None) -> tuple[dict[str, float], dict[str, float], float]:
        """What a photograph (1, R, D) shows: words and their chances by what descriptions taught, and all in all; and
        how strange it is.

        `classes` (1, C) is what the network of objects finds, if it was asked: things that no description taught.
        """
        taught = {}
        if self.keywords:
            taught = dict(zip(self.keywords.words, self.keywords(grid)[0].tolist(), strict=True))
        if self.objects is None or classes is None:
            return taught, taught, 0.0
        shown = self.objects.shown(classes[0])
        return taught, together(taught, shown), shown.strange

    @torch.inference_mode()
    def classified(self, halfway: Sequence[Tensor], place: int) -> Tensor | None:
        """What the network of objects finds (1, C) on one of the pictures that the encoder has begun with."""
        found: Tensor | None = self.objects(halfway[place]) if self.objects else None
        return found

    def _forms(self, words: Sequence[str]) -> list[Word]:
        """Words as they were written and their plurals, or else their singulars."""
        return [form for word in words for form in self.naming.forms(word) or self.naming.forms(singular(word))]


def _unsure(found: Mapping[str, float]) -> str:
    """What to say of a picture of which a sentence would be false: alt text is read by people who cannot see it."""
    likely = names({word: chance for word, chance in found.items() if chance >= _MAYBE})
    return f"maybe {likely[0]}" if likely else "something unfamiliar"


def posted_words(text: str) -> list[str]:
    """The words of a text that say something, links left out; of none such, those that are no mere grammar."""
    written = _WORD.findall(normalise(_LINK.sub(" ", text)).replace("’", "'"))
    bare = {word.removesuffix("'s") for word in written}
    words = {word for word in bare if len(word) > 2 and word.isalpha()} - GRAMMAR
    return sorted((words - STOP) or words)
