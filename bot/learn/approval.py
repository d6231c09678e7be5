"""How well memes are received, and how surely that is known."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import sqrt

Z = 1.96
"""Normal quantile of two-sided 95 %."""
FEW = 10
"""Voted memes below which how much they differ tells too little: the votes on one count as a single one then."""


@dataclass(frozen=True, slots=True)
class Approval:
    """The share of the votes that are in favour, 0 to 1, with its variance and its 95 % interval."""

    mean: float
    low: float
    high: float
    variance: float


def approval(tallies: Iterable[tuple[float, float]]) -> Approval | None:
    """Of memes' weighted (ups, downs); None where there are no votes.

    The votes on one meme are alike, so that they count as fewer: the variance is that of a ratio of sums over memes,
    and Wilson's interval (1927) takes as many votes as give it, at most those that there are. The variance is never
    less than so many votes allow, however alike a few memes were received by chance.
    """
    voted = [(up, up + down) for up, down in tallies if up + down > 0]
    votes = sum(n for _, n in voted)
    if not votes:
        return None
    mean = sum(up for up, _ in voted) / votes
    spread = sum((up - mean * n) ** 2 for up, n in voted) / votes**2
    spread *= len(voted) / max(1, len(voted) - 1)
    even = mean * (1 - mean)
    most = votes if len(voted) >= FEW and spread > 0 else min(votes, len(voted))
    effective = min(most, even / spread) if spread > 0 else most
    centre = (mean + Z**2 / (2 * effective)) / (1 + Z**2 / effective)
    half = Z / (1 + Z**2 / effective) * sqrt(even / effective + Z**2 / (4 * effective**2))
    # Where all agree, the variance is that of the interval, not none.
    variance = max(spread, even / effective if even > 0 else (half / Z) ** 2)
    return Approval(mean, max(0.0, min(mean, centre - half)), min(1.0, max(mean, centre + half)), variance)


def difference(new: Approval, old: Approval) -> tuple[float, float, float]:
    """By how much the new one is better, and the ends of the 95 % interval of that."""
    gain, half = new.mean - old.mean, Z * sqrt(new.variance + old.variance)
    return gain, gain - half, gain + half
