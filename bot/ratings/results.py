"""What ratings come to: shares with intervals, a system at a time. Pure, standard library.

Answers count as independent. Where few people rate many memes they are less so, and the true intervals wider.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

from bot.ratings.sheet import PEOPLE, Item

Z = 1.959964
"""Of an interval that holds the true share 95 times of 100."""
SINGLE = {"funny": "Funny", "fits": "Fits", "person": "Taken for a person's"}
PAIR = {"funny": "Funnier", "fits": "Fits better"}
_WON = {"yes": 1.0, "first": 1.0, "same": 0.5}


@dataclass(frozen=True, slots=True)
class Share:
    """How many of how many; a tie is half."""

    hits: float = 0.0
    of: int = 0

    @property
    def value(self) -> float:
        return self.hits / self.of if self.of else 0.5

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's (1927), of 95 %: it stays between 0 and 1, and is sound for few answers."""
        if not self.of:
            return 0.0, 1.0
        n, p = self.of, self.value
        centre = (p + Z * Z / (2 * n)) / (1 + Z * Z / n)
        half = Z / (1 + Z * Z / n) * sqrt(p * (1 - p) / n + Z * Z / (4 * n * n))
        return max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half))

    def __add__(self, won: float) -> "Share":
        return Share(self.hits + won, self.of + 1)


@dataclass(frozen=True, slots=True)
class Standing:
    """How a system was judged: shares of single memes by question, and of comparisons won."""

    system: str
    memes: int
    single: Mapping[str, Share]
    pair: Mapping[str, Share]


def standings(items: Mapping[str, Item], rows: Iterable[Mapping[str, Any]]) -> list[Standing]:
    """Every system's, people first; answers on memes that are not among the items are left out."""
    systems = sorted({item.system for item in items.values()}, key=lambda system: (system != PEOPLE, system))
    single = {system: dict.fromkeys(SINGLE, Share()) for system in systems}
    pair = {system: dict.fromkeys(PAIR, Share()) for system in systems}
    for row in rows:
        question, won = row["question"], _WON.get(row["answer"], 0.0)
        asked = PAIR if row["other"] else SINGLE
        if row["meme"] not in items or row["other"] not in {"", *items} or question not in asked:
            continue
        if not row["other"]:
            single[items[row["meme"]].system][question] += won
        else:
            pair[items[row["meme"]].system][question] += won
            pair[items[row["other"]].system][question] += 1 - won
    memes = {system: sum(item.system == system for item in items.values()) for system in systems}
    return [Standing(system, memes[system], single[system], pair[system]) for system in systems]


def error_rate(people: Share, system: Share) -> tuple[float, float, float] | None:
    """How often raters err on whether a person wrote a meme, half of them a system's and half people's; and 95 %.

    HYPE's error rate (Zhou et al. 2019): 0.5 where nobody can tell the two apart. `people` and `system` are the shares
    taken for a person's; None where either is without answers. The interval of the mean of two shares follows from
    theirs (Newcombe 1998, method 10).
    """
    if not people.of or not system.of:
        return None
    (p_low, p_high), (s_low, s_high) = people.interval, system.interval
    rate = (1 - people.value + system.value) / 2
    below = sqrt((p_high - people.value) ** 2 + (system.value - s_low) ** 2) / 2
    above = sqrt((people.value - p_low) ** 2 + (s_high - system.value) ** 2) / 2
    return rate, rate - below, rate + above


def table(found: Sequence[Standing]) -> str:
    """The standings for people."""
    lines = []
    if any(share.of for each in found for share in each.single.values()):
        head = [*SINGLE.values(), "Raters err (HYPE)"]
        lines += [f"{'single memes':24}" + "".join(f"{words:>24}" for words in head)]
        people = next((each.single["person"] for each in found if each.system == PEOPLE), Share())
        for each in found:
            cells = [_cell(each.single[question]) for question in SINGLE]
            error = None if each.system == PEOPLE else error_rate(people, each.single["person"])
            cells.append(_words(*error) if error else "")
            lines.append(f"{each.system[:23]:24}" + "".join(f"{cell:>24}" for cell in cells))
    if any(share.of for each in found for share in each.pair.values()):
        lines += [f"{'pairs':24}" + "".join(f"{words:>24}" for words in PAIR.values())]
        for each in found:
            cells = [_cell(each.pair[question]) for question in PAIR]
            lines.append(f"{each.system[:23]:24}" + "".join(f"{cell:>24}" for cell in cells))
    return "\n".join(lines) or "Nobody has rated anything yet."


def _cell(share: Share) -> str:
    return f"{_words(share.value, *share.interval)} of {share.of}" if share.of else ""


def _words(value: float, low: float, high: float) -> str:
    return f"{value:.0%} ({low:.0%}–{high:.0%})"
