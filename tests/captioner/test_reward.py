"""The reward: it learns what is voted for, ignores what cannot be compared, and survives a checkpoint."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from captioner.data.samples import Sample
from captioner.reward import GAP, Ragged, Reward, Runs, comparable, grams, least_squares, pair_accuracy, words
from captioner.tokenizer import CaptionTokenizer

FILLER = ["the cat", "my dog", "a friend of mine", "the teacher", "this bus", "our neighbour", "the moon", "an old car"]
VERBS = ["sleeps", "waits", "sings", "falls over", "looks at me", "eats lunch"]


def sample(text: str, percentile: float | None, exposure: int | None = 0, template: str = "drake") -> Sample:
    return Sample(Path("p"), tuple(text.split("|")), "meme", template, percentile, exposure=exposure)


def liked(number: int, seed: int) -> list[Sample]:
    """On `drake` people like pizza, on `fry` they do not; they like short ones, wherever."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(number):
        template = ("drake", "fry")[rng.integers(2)]
        good = bool(rng.integers(2))
        topic = "pizza" if good == (template == "drake") else "rain"
        text = f"{rng.choice(FILLER)} {rng.choice(VERBS)} {rng.integers(1000)}|{'yes' if good else 'no'} {topic}"
        q = 0.5 + (0.4 if good else -0.4) * rng.random() ** 0.2
        made.append(sample(text, float(q), int(rng.integers(3)), template))
    return made


@pytest.fixture(scope="module")
def tokenizer() -> CaptionTokenizer:
    return CaptionTokenizer.train([box for s in liked(300, 9) for box in s.boxes], 500)


@pytest.fixture(scope="module")
def reward(tokenizer: CaptionTokenizer) -> Reward:
    return Reward.fit(liked(800, 0), tokenizer)


def test_it_ranks_unseen_captions_as_people_do(reward: Reward) -> None:
    unseen = liked(300, 1)
    assert (reward.accuracy(unseen) or 0) > 0.95
    assert (reward.accuracy(unseen, told=False) or 0) > 0.95


def test_the_template_changes_what_is_liked(tokenizer: CaptionTokenizer) -> None:
    silent = [replace(s, boxes=(s.boxes[0], s.boxes[1].split()[1])) for s in liked(1200, 2)]  # no yes, no no
    reward = Reward.fit(silent[:900], tokenizer)
    assert (reward.accuracy(silent[900:]) or 0) > 0.9
    assert abs((reward.accuracy(silent[900:], told=False) or 0) - 0.5) < 0.15


def test_scores_are_in_units_of_the_percentile(reward: Reward) -> None:
    unseen = [s for s in liked(400, 3) if s.template == "fry"]
    scores = reward.score([s.boxes for s in unseen], "fry").mean
    truth = np.array([s.percentile for s in unseen]) - 0.5
    assert abs(np.polyfit(scores, truth, 1)[0] - 1) < 0.2


def test_a_caption_scores_the_same_alone_and_among_others(reward: Reward) -> None:
    captions = [s.boxes for s in liked(20, 4)]
    together = reward.score(captions, "drake")
    assert np.all(together.spread >= 0)
    for i, boxes in enumerate(captions):
        alone = reward.score([boxes], "drake")
        assert alone.mean[0] == pytest.approx(together.mean[i], abs=1e-6)
        assert alone.spread[0] == pytest.approx(together.spread[i], abs=1e-6)


def test_a_strange_template_counts_as_none(reward: Reward) -> None:
    captions = [s.boxes for s in liked(20, 5)]
    assert np.array_equal(reward.score(captions, "never-seen").mean, reward.score(captions).mean)
    assert not np.array_equal(reward.score(captions, "drake").mean, reward.score(captions).mean)


def test_a_checkpoint_changes_no_score(reward: Reward, tokenizer: CaptionTokenizer) -> None:
    restored = Reward.from_tensors(reward.tensors(), tokenizer)
    captions = [s.boxes for s in liked(20, 6)]
    for before, after in zip(reward.score(captions, "fry"), restored.score(captions, "fry"), strict=True):
        assert np.array_equal(before, after)


def test_a_seed_gives_one_reward_and_leaves_the_generator_alone(tokenizer: CaptionTokenizer) -> None:
    state = torch.get_rng_state()
    first, second = (Reward.fit(liked(150, 7), tokenizer, seed=3, epochs=1).tensors() for _ in range(2))
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert torch.equal(state, torch.get_rng_state())


def test_no_captions_and_empty_ones_have_scores(reward: Reward) -> None:
    assert reward.score([]).mean.shape == (0,)
    assert np.isfinite(reward.score([(), ("",), ("日本",), ("a",) * 9]).mean).all()


def test_what_is_missing_or_cannot_be_compared_is_said(reward: Reward, tokenizer: CaptionTokenizer) -> None:
    with pytest.raises(ValueError, match="votes"):
        Reward.fit([sample("a", None, None), sample("b", 0.9), sample("c", 0.1, 1)], tokenizer)
    kept = {k: v for k, v in reward.tensors().items() if k != "templates"}
    with pytest.raises(KeyError, match="templates"):
        Reward.from_tensors(kept, tokenizer)
    assert reward.accuracy([sample("b", 0.9), sample("c", 0.1, 1)]) is None


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0, 1), st.integers(0, 5)), min_size=2, max_size=30))
def test_pair_accuracy_counts_pairs(rows: list[tuple[int, float, int]]) -> None:
    groups, votes, scores = (np.array(column) for column in zip(*rows, strict=True))
    right = [
        0.5 if scores[i] == scores[j] else float(scores[i] > scores[j])
        for i in range(len(rows))
        for j in range(len(rows))
        if groups[i] == groups[j] and votes[i] - votes[j] >= GAP
    ]
    found = pair_accuracy(scores, groups, votes)
    assert found == (pytest.approx(sum(right) / len(right)) if right else None)


def test_least_squares_is_ridge_on_differences_within_groups() -> None:
    rng = np.random.default_rng(0)
    rows, items = np.repeat(np.arange(40), 3), rng.integers(0, 6, 120)
    x, scale, groups = Ragged(items, rows, 40), rng.random(40) + 0.5, np.arange(40) % 4
    target = rng.random(40)
    dense = np.zeros((40, 6))
    np.add.at(dense, (rows, items), scale[rows])
    for group in range(4):
        dense[groups == group] -= dense[groups == group].mean(0)
    expected = np.linalg.solve(dense.T @ dense + 10 * np.eye(6), dense.T @ target)
    assert least_squares(x, scale, target, groups) == pytest.approx(expected, abs=1e-9)


def test_runs_keep_the_features_that_matter() -> None:
    captions = [("good thing",), ("bad thing",)] * 20
    x, votes = grams(words(captions)), np.tile([0.9, 0.1], 20)
    all_kept = Runs.fit(x, votes, np.zeros(40, np.int64), 100)
    few = Runs.fit(x, votes, np.zeros(40, np.int64), 2)
    assert len(few.keys) == 2 < len(all_kept.keys)
    assert few(x)[0] > 0 > few(x)[1]
    assert Runs(few.keys[:0], few.values[:0])(x).tolist() == [0] * 40


def test_a_few_captions_make_a_reward_that_can_be_kept(tokenizer: CaptionTokenizer, tmp_path: Path) -> None:
    few = [sample(f"the cat waits {i}", i / 10) for i in range(10)]
    assert comparable(few)
    assert not comparable([sample("the cat waits", 0.5), sample("the dog waits", 0.5), sample("they wait", None)])
    save_file(Reward.fit(few, tokenizer, epochs=1).tensors(), tmp_path / "reward.safetensors")
