"""What a photograph shows that no description taught: ImageNet's thousand classes, in the words that people use.

Flickr8k's photographs are of people and dogs outdoors, and an encoder that was fine-tuned on their descriptions takes a
cat for one or the other. The same network as it was published knows a thousand kinds of things. Its last stages run
beside the fine-tuned ones, on what the first ones give to both.

Shapes: B pictures, C classes, K words.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import EfficientNet_B0_Weights
from tqdm import tqdm

from captioner.encoders import DEFAULT, build, classifying
from captioner.images import opened

_RUN = " .. "
_NAMED = (0.98, -1.6)
"""Of a word's log-odds as ImageNet has them: what they are worth that a description has the word, and what to add."""
_BOTH = (0.72, 0.32, 0.89)
"""The same of a word that descriptions have taught as well: its log-odds by them, by ImageNet, and what to add. Both
were fitted to the 1,000 dev photographs of Flickr8k, two descriptions of five having to agree on a word."""
_SOMEBODY = (
    "baby", "bald", "beard", "biker", "boy", "child", "children", "cigarette", "climber", "climbing", "couple",
    "crowd", "cyclist", "face", "family", "girl", "group", "hair", "hat", "jacket", "kid", "lady", "player", "pose",
    "posing", "rider", "shirt", "shirtless", "skateboarder", "smile", "smiling", "smoking", "teenager", "toddler",
    "uniform",
)  # fmt: skip
_PRESENT = 0.25
"""Words that descriptions teach for people, and how likely one of them or an animal must be by descriptions to count as
there: where somebody is, ImageNet's animals are left out, since somebody may be taken for one."""
_LEAST = 1e-3
_LOOKED_AT = 3000
_NEARLY = 0.6
"""The share of a general word's chance that a particular one must have to be said in its place."""
_FOREIGN = 0.43
"""The odds that a picture is none of the kind that descriptions are of, before it was looked at."""
_STRANGE = 0.4, 0.5
"""From which strangeness on a picture counts as foreign, and from where it does for sure. Of Flickr8k's dev photographs
four in a hundred come to the first; of cats, fruits and cups most to the second."""


@dataclass(frozen=True)
class Shown:
    """What the network of objects finds on a picture."""

    words: dict[str, float]
    """How likely the picture shows what each of them names."""
    strange: float
    """How surely the picture is none of the kind that the descriptions are of, 0 to 1."""


class Objects(nn.Module):
    """The published last stages of the default encoder, and the words for what they see.

    `usual` (C,) is how large a share of the described photographs are of each class, where that is known.
    """

    names: Tensor
    strangeness: Tensor

    def __init__(self, usual: Tensor | None = None) -> None:
        super().__init__()
        self.classify = classifying()
        self.words = list(vocabulary())
        names = torch.zeros(len(classes()), len(self.words))
        for column, places in enumerate(vocabulary().values()):
            names[places, column] = 1
        self.register_buffer("names", names, persistent=False)  # (C, K)
        # That a picture of the class is a foreign one: Bayes' rule, foreign ones being of any class alike.
        strangeness = torch.zeros(len(classes())) if usual is None else _FOREIGN / (_FOREIGN + usual * len(classes()))
        self.register_buffer("strangeness", strangeness, persistent=False)  # (C,)

    def forward(self, halfway: Tensor) -> Tensor:
        """What `Encoder.halfway` gives to the probability (B, C) of every class."""
        seen: Tensor = self.classify(halfway).softmax(-1)
        return seen

    def shown(self, seen: Tensor) -> Shown:
        """Of the probabilities (C,) of a picture."""
        words = (seen @ self.names).clamp(max=1).tolist()
        first, sure = _STRANGE
        strange = ((seen @ self.strangeness).item() - first) / (sure - first)
        return Shown(dict(zip(self.words, words, strict=True)), min(max(strange, 0.0), 1.0))


def together(taught: Mapping[str, float], shown: Shown) -> dict[str, float]:
    """The chances of words by what descriptions taught and by the objects that are shown, as one.

    The stranger the picture, the less counts what was taught, and the more what is shown. Where somebody is, animals
    that descriptions do not see are left out.
    """
    usual = 1 - shown.strange
    chances = {word: chance * usual for word, chance in taught.items()}
    for word, seen in shown.words.items():
        chance = max(_logistic(_NAMED[0] * _odds(seen) + _NAMED[1]), shown.strange * seen)
        if word in taught:
            both = _logistic(_BOTH[0] * _odds(taught[word]) + _BOTH[1] * _odds(seen) + _BOTH[2])
            chance = max(chance, both * usual)
        chances[word] = chance
    if max((taught.get(word, 0.0) for word in _SOMEBODY), default=0.0) < _PRESENT:
        return chances
    return {word: c for word, c in chances.items() if word not in animals() or taught.get(word, 0.0) >= _PRESENT}


def names(chances: Mapping[str, float]) -> list[str]:
    """What a picture is told by: the words, the likeliest first.

    Of words for the same things one, and of general ones none where a particular one is nearly as likely.
    """
    known = vocabulary()
    told: list[str] = []
    for word in sorted(chances, key=lambda word: chances[word]):
        classes = set(known.get(word, ()))
        within = (chances[other] for other in told if classes.issuperset(known.get(other, (-1,))))
        if not classes or max(within, default=0.0) < _NEARLY * chances[word]:
            told.insert(0, word)
    return told


@cache
def animals() -> frozenset[str]:
    """The words for kinds of animals, which ImageNet's order begins with."""
    last = classes().index("puffer")
    return frozenset(word for word, places in vocabulary().items() if min(places) <= last)


def named(text: str, classes: Iterable[str]) -> dict[str, list[int]]:
    """Words and the places of their classes, from the format that `data/objects.txt` begins with.

    Raises ValueError for a class that nobody knows or a run that goes backwards, naming the word.
    """
    place = {name: i for i, name in enumerate(classes)}
    found: dict[str, list[int]] = {}
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        word, _, names = line.partition(": ")
        places: set[int] = set()
        for name in names.split(", "):
            first, _, last = name.partition(_RUN)
            ends = place.get(first), place.get(last or first)
            if ends[0] is None or ends[1] is None or ends[0] > ends[1]:
                raise ValueError(f"{word} names no classes: {name}.")
            places.update(range(ends[0], ends[1] + 1))
        found[word] = sorted(places)
    return found


@cache
def vocabulary() -> Mapping[str, Sequence[int]]:
    """The words of `data/objects.txt`, and the places of the classes that each names."""
    return named(resources.files("captioner").joinpath("data/objects.txt").read_text("utf-8"), classes())


@cache
def classes() -> tuple[str, ...]:
    """ImageNet's classes in their order."""
    return tuple(EfficientNet_B0_Weights.DEFAULT.meta["categories"])


@torch.inference_mode()
def usual(pictures: Sequence[Path]) -> Tensor:
    """How large a share (C,) of the pictures are of each class; of many, some thousand are looked at."""
    encoder, objects = build(DEFAULT), Objects()
    looked = sorted(pictures)[:: max(1, len(pictures) // _LOOKED_AT)]
    found = torch.zeros(len(classes()))
    for picture in tqdm(looked, desc="objects", unit="picture", disable=None):
        found += objects(encoder.halfway(encoder.pixels([opened(picture).image])))[0]
    return found / len(looked)


def _odds(chance: float) -> float:
    chance = min(max(chance, _LEAST), 1 - _LEAST)
    return math.log(chance / (1 - chance))


def _logistic(odds: float) -> float:
    return 1 / (1 + math.exp(-odds))
