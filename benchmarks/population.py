"""People who vote on memes, made up: a taste drawn at random, noisy voters, and many who never vote.

A population is one JSON file, so that another can be put in its place; nothing of it is known to the code under test.

    {"topics": {"animals": ["dog", …], …},      words that a topic is spoken of with
     "taste": {"topic animals": 0.8, "word me": -0.4, "box 1": 0.2, "length": 9.0, "length matters": 0.6},
     "bias": -0.3,                              added to everybody's liking
     "emoji": {"up": {"😂": 0.6, …}, "down": {"👎": 1.0}},
     "people": [{"votes": 0.1, "noise": 0.2, "taste": {"topic animals": 0.1, …}}, …]}

A person likes a caption if the liking, the weights of what is in it by the common and the own taste, is above 0; votes
on it with the probability `votes`; and a vote is turned around with the probability `noise`.
"""

import json
import math
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

TOPICS = {
    "animals": "dog dogs cat cats bird birds horse puppy kitten bear fish duck animal animals goat doge doggo pet",
    "food": "food eat eating pizza cake bread cheese milk burger chicken bacon cookie cookies dinner lunch hungry",
    "school": "school teacher class homework test exam student students math college study grade grades kids",
    "work": "work job boss monday office meeting money pay paid boring tired week weekend friday",
    "games": "game games play playing player minecraft fortnite pubg video xbox gamer gamers level pc lag",
    "sport": "football soccer ball team baseball run running swim bike race win winning basketball jump ski",
    "love": "girlfriend boyfriend love girl girls date crush marry kiss wife husband relationship single couple",
    "family": "mom dad mother father parents brother sister family son daughter baby grandma uncle child",
    "internet": "meme memes internet upvote upvotes reddit post posts facebook youtube imgflip phone comments users",
    "film": "movie movies star wars batman superman marvel thanos disney hogwarts harry lord ring matrix",
    "nature": "beach water ocean wave snow grass tree mountain rock river sea rain sun sky hill",
    "night": "sleep bed night morning am alarm wake dream asleep tomorrow midnight coffee late",
}
WORDS = [
    "me",
    "my",
    "you",
    "your",
    "i",
    "when",
    "if",
    "not",
    "is",
    "are",
    "was",
    "like",
    "so",
    "just",
    "good",
    "bad",
    "best",
    "what",
    "why",
    "how",
    "who",
    "people",
    "everyone",
    "nobody",
    "one",
    "all",
    "never",
    "always",
    "can't",
    "don't",
    "know",
    "think",
    "got",
    "get",
    "make",
    "made",
    "see",
    "look",
    "old",
    "new",
    "day",
    "time",
    "life",
    "world",
    "thing",
    "man",
    "boy",
    "friends",
    "friend",
    "says",
    "said",
    "told",
    "want",
    "need",
    "i'm",
    "that's",
    "they",
    "he",
    "she",
    "we",
    "first",
    "last",
    "still",
    "then",
    "now",
]
MARKS = "?!.,:"
UP, DOWN = "😂👍🤣🔥❤😁", "👎😐💩"

Taste = Mapping[str, float]


@dataclass(frozen=True)
class Person:
    votes: float
    noise: float
    taste: dict[str, float]


@dataclass(frozen=True)
class Population:
    topics: dict[str, list[str]]
    taste: dict[str, float]
    bias: float
    emoji: dict[str, dict[str, float]]
    people: list[Person]
    _topic_of: dict[str, str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_topic_of", {w: t for t, words in self.topics.items() for w in words})

    @classmethod
    def load(cls, file: Path) -> "Population":
        read = json.loads(file.read_text("utf-8"))
        return cls(**(read | {"people": [Person(**p) for p in read["people"]]}))

    def save(self, file: Path) -> None:
        made = {k: v for k, v in asdict(self).items() if not k.startswith("_")}
        file.write_text(json.dumps(made, ensure_ascii=False, indent=1), "utf-8")

    def likes(self, boxes: Sequence[str]) -> list[bool]:
        """Everybody's opinion of a caption, without noise."""
        found = self._marks(boxes)
        common = self.bias + _liking(self.taste, found)
        return [common + _liking(p.taste, found) > 0 for p in self.people]

    def approval(self, boxes: Sequence[str]) -> float:
        """The noiseless share of up-votes, each person counted by how often they vote."""
        votes = [p.votes for p in self.people]
        return sum(v for v, liked in zip(votes, self.likes(boxes), strict=True) if liked) / sum(votes)

    def vote(self, boxes: Sequence[str], rng: random.Random) -> list[tuple[int, str]]:
        """Who reacts with which emoji to a meme."""
        found = []
        for i, (person, liked) in enumerate(zip(self.people, self.likes(boxes), strict=True)):
            if rng.random() < person.votes:
                kinds = self.emoji["up" if liked ^ (rng.random() < person.noise) else "down"]
                found.append((i, rng.choices(list(kinds), list(kinds.values()))[0]))
        return found

    def _marks(self, boxes: Sequence[str]) -> dict[str, float]:
        """What is in a caption, by the names that a taste uses."""
        text = " ".join(boxes)
        words = re.findall(r"\w+(?:'\w+)?", text)
        found = {f"word {w}": 1.0 for w in words}
        found |= {f"topic {self._topic_of[w]}": 1.0 for w in words if w in self._topic_of}
        found |= {f"mark {m}": 1.0 for m in MARKS if m in text} | {f"box {len(boxes)}": 1.0}
        return found | {"length": float(len(words))}


def _liking(taste: Taste, found: Mapping[str, float]) -> float:
    """The weights of what was found, and how far the length is from the one liked best, a step every four words."""
    plain = sum(taste.get(name, 0.0) * value for name, value in found.items() if name != "length")
    off = abs(found["length"] - taste.get("length", found["length"])) / 4
    return plain - taste.get("length matters", 0.0) * off


def drawn(seed: int, written: Sequence[Sequence[str]], people: int = 80) -> Population:
    """A population whose taste is drawn at random; on average it likes 45 % of the captions `written`, before noise.

    A meme gets one or two votes on average; six people in ten never vote.
    """
    rng = random.Random(seed)
    taste = {f"topic {t}": rng.gauss(0, 0.9) for t in TOPICS}
    taste |= {f"word {w}": rng.gauss(0, 0.35) for w in WORDS}
    taste |= {f"mark {m}": rng.gauss(0, 0.35) for m in MARKS}
    taste |= {"box 1": rng.gauss(0, 0.4), "length": rng.uniform(4, 16), "length matters": rng.uniform(0, 0.7)}
    crowd = []
    for _ in range(people):
        own = {name: rng.gauss(0, 0.9) for name in taste if name.startswith(("topic", "box", "mark"))}
        own |= {f"word {rng.choice(WORDS)}": rng.gauss(0, 0.6) for _ in range(12)}
        votes = rng.lognormvariate(0, 1) if rng.random() < 0.4 else 0.0
        crowd.append(Person(votes, rng.uniform(0.05, 0.3), own))
    busy = sum(p.votes for p in crowd)
    crowd = [Person(min(0.5, p.votes / busy * 1.6), p.noise, p.taste) for p in crowd]
    emoji = {kind: {e: rng.lognormvariate(0, 1) for e in chosen} for kind, chosen in (("up", UP), ("down", DOWN))}
    made = Population({t: w.split() for t, w in TOPICS.items()}, taste, 0.0, emoji, crowd)
    return _biased(made, written, 0.45)


def _biased(made: Population, written: Sequence[Sequence[str]], share: float) -> Population:
    """The population with the bias at which it likes this share of the captions, by bisection."""
    low, high = -8.0, 8.0
    for _ in range(12):
        middle = (low + high) / 2
        made = Population(made.topics, made.taste, middle, made.emoji, made.people)
        liked = sum(made.approval(boxes) for boxes in written) / len(written)
        low, high = (middle, high) if liked < share else (low, middle)
    return made


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half of the 95 % interval by Student's t for up to ten values; no interval for one."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, math.nan
    deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))
    t = {2: 12.7, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26}.get(len(values), 2.0)
    return mean, t * deviation / math.sqrt(len(values))
