"""Raw votes to labels: what a meme's votes say of it, whoever cast them and however often. Pure, standard library.

One vote a user a meme, the latest; the poster's and the asker's own count less; a day when a chat is busier than usual,
a user who votes more than the others, and a chat that votes more than the others all count as far as a cap. Silence
says nothing: a meme without votes has a weight of 0.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import lgamma, log
from statistics import median

DAY = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Shown:
    """A meme that a chat was shown, `at` unix seconds; `chat` is any name that is the chat's own."""

    id: str
    chat: str
    at: float


@dataclass(frozen=True, slots=True)
class Vote:
    """One reaction that is for a meme or against it; `own` where the voter posted the picture or asked for the meme.

    Reactions by bots are none.
    """

    meme: str
    user: str
    up: bool
    at: float
    own: bool = False


@dataclass(frozen=True, slots=True)
class Rules:
    """What votes count."""

    own: float = 0.3
    """What the poster's and the asker's own votes weigh."""
    within: float = DAY
    """Seconds after the meme; later votes count for nothing."""
    busy: float = 2.0
    """A day with more voters than so many times the chat's median counts as one with so many."""
    user: tuple[float, float] = (20.0, 1.0)
    """Votes that one user may cast in a chat before they are scaled down to it: the larger of a number, and a multiple
    of the median of the chat's other voters. The only voter of a chat has no cap."""
    chat: tuple[float, float] = (1000.0, 4.0)
    """The same for the chats among each other."""


USUAL = Rules()


@dataclass(frozen=True, slots=True)
class Label:
    """What is learnt from one meme: the weighted votes for and against it, after all caps."""

    meme: str
    chat: str
    up: float
    down: float
    approval: float
    """The posterior mean of a Beta-Binomial fitted to the chat, 0 to 1; the chat's usual where there are no votes."""
    exposure: int
    """People who voted on anything in the chat within a day of the meme."""

    @property
    def weight(self) -> float:
        return self.up + self.down


def approvals(shown: Iterable[Shown], votes: Iterable[Vote], rules: Rules = USUAL) -> list[Label]:
    """A label for every meme shown, in their order; votes on other memes, and before or long after, are left out.

    The result does not depend on the order of the votes, but for those of one user on one meme at one moment: of these
    the last one counts.
    """
    memes = list(shown)
    places = {m.id: m for m in memes}
    counted = _latest(v for v in votes if v.meme in places and 0 <= v.at - places[v.meme].at <= rules.within)
    exposure = _exposure(memes, counted, rules.within)
    weights = _capped(counted, places, _busy(memes, exposure, rules), rules)
    tallies: dict[str, list[float]] = {m.id: [0.0, 0.0] for m in memes}
    for vote in counted:
        tallies[vote.meme][not vote.up] += weights[vote.meme, vote.user]
    of_chat: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for m in memes:
        of_chat[m.chat].append((tallies[m.id][0], tallies[m.id][1]))
    priors = {chat: beta_binomial(found) for chat, found in of_chat.items()}
    return [_label(m, tallies[m.id], priors[m.chat], exposure[m.id]) for m in memes]


def beta_binomial(tallies: Iterable[tuple[float, float]]) -> tuple[float, float]:
    """The prior votes for and against, (α, β), under which (ups, downs) of a chat's memes are likeliest.

    The mean is the chat's share of ups, a little towards a half; the concentration α + β is the best of a grid by the
    marginal likelihood (empirical Bayes), times a weak prior around 4 that decides where there are few votes. Counts
    need not be whole: the likelihood is continued by the gamma function.
    """
    counts = Counter((round(u, 2), round(d, 2)) for u, d in tallies if u + d > 0)
    ups, downs = (sum(pair[i] * n for pair, n in counts.items()) for i in (0, 1))
    mean = (ups + 1) / (ups + downs + 2)
    best = max(_CONCENTRATIONS, key=lambda c: _log_marginal(counts, mean * c, (1 - mean) * c) - log(c / 4) ** 2 / 2)
    return mean * best, (1 - mean) * best


_CONCENTRATIONS = [2 ** (i / 2) for i in range(0, 15)]
"""1 to 128 votes: less would make one vote decide, more is no telling memes apart."""


def _log_marginal(counts: Mapping[tuple[float, float], int], a: float, b: float) -> float:
    whole = lgamma(a + b) - lgamma(a) - lgamma(b)
    return sum(n * (whole + lgamma(a + u) + lgamma(b + d) - lgamma(a + b + u + d)) for (u, d), n in counts.items())


def _label(meme: Shown, tally: Sequence[float], prior: tuple[float, float], exposure: int) -> Label:
    up, down = tally
    approval = (prior[0] + up) / (sum(prior) + up + down)
    return Label(meme.id, meme.chat, up, down, approval, exposure)


def _latest(votes: Iterable[Vote]) -> list[Vote]:
    """One vote a user a meme."""
    found: dict[tuple[str, str], Vote] = {}
    for vote in votes:
        before = found.get((vote.meme, vote.user))
        if before is None or vote.at >= before.at:
            found[vote.meme, vote.user] = vote
    return sorted(found.values(), key=lambda v: (v.at, v.meme, v.user))


def _exposure(memes: Sequence[Shown], votes: Sequence[Vote], within: float) -> dict[str, int]:
    """How many people voted on anything in each meme's chat from then on until `within` seconds later."""
    chats = {m.id: m.chat for m in memes}
    cast: dict[str, list[Vote]] = defaultdict(list)
    for vote in votes:  # in order of time
        cast[chats[vote.meme]].append(vote)
    found, windows = {}, {chat: _Window(of) for chat, of in cast.items()}
    for meme in sorted(memes, key=lambda m: m.at):
        found[meme.id] = windows[meme.chat].voters(meme.at, meme.at + within) if meme.chat in windows else 0
    return found


class _Window:
    """Counts the voters of a stretch of time that moves forwards."""

    def __init__(self, votes: Sequence[Vote]) -> None:
        self._votes, self._start, self._stop = votes, 0, 0
        self._users: Counter[str] = Counter()

    def voters(self, start: float, stop: float) -> int:
        while self._stop < len(self._votes) and self._votes[self._stop].at <= stop:
            self._users[self._votes[self._stop].user] += 1
            self._stop += 1
        while self._start < self._stop and self._votes[self._start].at < start:
            user = self._votes[self._start].user
            self._users[user] -= 1
            if not self._users[user]:
                del self._users[user]
            self._start += 1
        return len(self._users)


def _busy(memes: Sequence[Shown], exposure: Mapping[str, int], rules: Rules) -> dict[str, float]:
    """What a vote on each meme counts for how busy its day was, 1 on a usual one."""
    of_chat: dict[str, list[int]] = defaultdict(list)
    for m in memes:
        if exposure[m.id]:
            of_chat[m.chat].append(exposure[m.id])
    usual = {chat: median(found) for chat, found in of_chat.items()}
    return {m.id: min(1.0, rules.busy * usual[m.chat] / exposure[m.id]) for m in memes if exposure[m.id]}


def _capped(
    votes: Sequence[Vote], memes: Mapping[str, Shown], busy: Mapping[str, float], rules: Rules
) -> dict[tuple[str, str], float]:
    """The weight of every vote, by meme and user."""
    weights = {(v.meme, v.user): (rules.own if v.own else 1.0) * busy[v.meme] for v in votes}
    users: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for (meme, user), weight in weights.items():
        users[memes[meme].chat][user] += weight
    scales = {chat: _scales(cast, *rules.user) for chat, cast in users.items()}
    chats = {chat: sum(cast[u] * scales[chat][u] for u in cast) for chat, cast in users.items()}
    chat_scales = _scales(chats, *rules.chat)
    return {
        (meme, user): weight * scales[memes[meme].chat][user] * chat_scales[memes[meme].chat]
        for (meme, user), weight in weights.items()
    }


def _scales(cast: Mapping[str, float], least: float, times: float) -> dict[str, float]:
    """What brings everybody's total under the cap that the others' median sets; 1 where it is under it already."""
    if len(cast) < 2:
        return dict.fromkeys(cast, 1.0)
    ranked = sorted(cast.values())
    k = (len(ranked) - 2) // 2  # the lower middle, once one is taken out
    return {
        who: min(1.0, max(least, times * ranked[k + 1 if total <= ranked[k] else k]) / total)
        for who, total in cast.items()
    }
