"""Votes to labels: each vote once, none too much, and silence says nothing."""

import math
import random
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.votes import DAY, Label, Rules, Shown, Vote, approvals, beta_binomial

MEMES = [Shown(f"m{i}", f"c{i % 2}", 1000.0 * i) for i in range(6)]


def _votes() -> st.SearchStrategy[list[Vote]]:
    one = st.builds(
        Vote,
        st.sampled_from([m.id for m in MEMES]),
        st.sampled_from("abcd"),
        st.booleans(),
        st.floats(0, 2 * DAY),
        st.booleans(),
    )
    return st.lists(one, max_size=40, unique_by=lambda v: (v.meme, v.user, v.at))


def _by_meme(labels: Iterable[Label]) -> dict[str, Label]:
    return {label.meme: label for label in labels}


@settings(deadline=None)
@given(_votes(), st.randoms())
def test_labels_do_not_depend_on_the_order_of_votes(votes: list[Vote], rng: random.Random) -> None:
    shuffled = votes[:]
    rng.shuffle(shuffled)
    assert approvals(MEMES, shuffled) == approvals(MEMES, votes)


@settings(deadline=None)
@given(_votes())
def test_a_meme_gets_at_most_one_vote_a_user_and_approval_is_a_share(votes: list[Vote]) -> None:
    for label in approvals(MEMES, votes):
        assert 0 < label.approval < 1
        assert label.weight <= len({v.user for v in votes if v.meme == label.meme}) + 1e-9
        assert label.exposure >= (label.weight > 0)


@given(_votes())
def test_without_caps_every_vote_counts(votes: list[Vote]) -> None:
    more = [*votes, Vote("m2", "new", True, MEMES[2].at + 1)]
    free = Rules(busy=math.inf, user=(math.inf, 1), chat=(math.inf, 1))
    before, after = (_by_meme(approvals(MEMES, v, free)) for v in (votes, more))
    assert after["m2"].up == pytest.approx(before["m2"].up + 1)
    assert all(after[m].weight == pytest.approx(before[m].weight) for m in before if m != "m2")


def test_the_latest_vote_of_a_user_counts_once() -> None:
    votes = [Vote("m0", "a", True, 5.0), Vote("m0", "a", False, 9.0), Vote("m0", "a", True, 7.0)]
    label = approvals(MEMES, votes)[0]
    assert (label.up, label.down) == (0.0, 1.0)


def test_own_votes_weigh_less_and_late_and_early_ones_nothing() -> None:
    votes = [
        Vote("m0", "poster", True, 10.0, own=True),
        Vote("m0", "a", False, DAY + 1),
        Vote("m5", "b", False, MEMES[5].at - 1),
        Vote("gone", "a", True, 10.0),
    ]
    labels = _by_meme(approvals(MEMES, votes))
    assert labels["m0"].up == pytest.approx(0.3)
    assert labels["m0"].down == 0
    assert labels["m5"].weight == 0


def test_silence_is_no_downvote() -> None:
    votes = [Vote(m.id, user, True, m.at + 1) for m in MEMES[:4] for user in "ab"]
    labels = _by_meme(approvals(MEMES, votes))
    assert labels["m4"].weight == 0
    assert labels["m4"].approval > 0.7  # what this chat usually says
    assert labels["m4"].approval < labels["m0"].approval


def test_one_user_with_thousands_of_votes_is_capped_by_the_others() -> None:
    rng = random.Random(1)
    memes = [Shown(str(i), "chat", float(i)) for i in range(2000)]
    votes = [Vote(str(i), "spammer", False, i + 1.0) for i in range(2000)]
    votes += [Vote(str(rng.randrange(2000)), f"u{k % 20}", True, 2500.0) for k in range(400)]
    labels = approvals(memes, votes)
    assert sum(label.down for label in labels) <= 3 * 22
    assert sum(label.up for label in labels) == pytest.approx(400, rel=0.05)


def test_the_only_voter_of_a_chat_is_not_capped() -> None:
    memes = [Shown(str(i), "chat", float(i)) for i in range(500)]
    labels = approvals(memes, [Vote(str(i), "me", i % 3 > 0, i + 1.0) for i in range(500)])
    assert sum(label.weight for label in labels) == 500


def test_one_loud_chat_is_capped_by_the_others() -> None:
    memes = [Shown(f"{c}{i}", c, float(i)) for c in "xyz" for i in range(900)]
    votes = [Vote(f"x{i}", f"u{k}", True, i + 1.0) for i in range(900) for k in range(10)]
    votes += [Vote(f"{c}{i}", "v", True, i + 1.0) for c in "yz" for i in range(300)]
    labels = approvals(memes, votes, Rules(busy=100))
    assert sum(label.weight for label in labels if label.chat == "x") == pytest.approx(1200)
    assert sum(label.weight for label in labels if label.chat == "y") == pytest.approx(300)


def test_a_raid_counts_as_a_busy_day() -> None:
    """One meme among many that suddenly gets fifty votes, where two are usual."""
    memes = [Shown(str(i), "chat", 2 * DAY * i) for i in range(20)]
    votes = [Vote(m.id, f"u{k}", True, m.at + 1) for m in memes for k in range(2)]
    votes += [Vote("7", f"raider{k}", False, memes[7].at + 2) for k in range(50)]
    raided = approvals(memes, votes)[7]
    assert raided.weight == pytest.approx(4)
    assert raided.exposure == 52


def test_the_prior_is_found_again() -> None:
    """Memes drawn from Beta(3, 1), six votes each."""
    rng = random.Random(3)
    tallies = []
    for _ in range(3000):
        p = rng.betavariate(3, 1)
        ups = sum(rng.random() < p for _ in range(6))
        tallies.append((float(ups), float(6 - ups)))
    alpha, beta = beta_binomial(tallies)
    assert alpha / (alpha + beta) == pytest.approx(0.75, abs=0.02)
    assert 2.8 <= alpha + beta <= 5.7
    assert sum(beta_binomial([])) == pytest.approx(4)
