"""Self-critical training: the reward is what tables measure, drawing is fair, and the reward rises."""

from pathlib import Path

import numpy as np
import pytest
import torch

from captioner import metrics
from captioner.checkpoint import Checkpoint
from captioner.self_critical import Critic, Likeness, _drawn, advantages, sampled
from tests.captioner.test_decoders import SMALL, made
from tests.conftest import TEXTS

REFERENCES = [
    [["a", "dog", "runs", "on", "grass"], ["the", "dog", "is", "running"]],
    [["two", "children", "play", "football"], ["children", "play", "on", "a", "beach"]],
    [["a", "man", "rides", "a", "bicycle"], ["a", "man", "on", "a", "red", "bicycle"]],
]
CAPTIONS = [["a", "dog", "is", "running", "on", "grass"], ["two", "men"], ["a", "man", "rides", "a", "red", "bicycle"]]


def test_the_reward_is_cider_d_with_the_end_as_a_word() -> None:
    like = Likeness(REFERENCES)
    ended = [[[*r, "</s>"] for r in of] for of in REFERENCES]
    expected = metrics.cider_d([[*c, "</s>"] for c in CAPTIONS], ended)
    found = [like(i, c) - 2 * like._bleu(i, [*c, "</s>"]) for i, c in enumerate(CAPTIONS)]
    assert 100 * np.mean(found) == pytest.approx(expected)


def test_what_a_person_said_is_rewarded_most() -> None:
    like = Likeness(REFERENCES)
    for picture, of in enumerate(REFERENCES):
        for reference in of:
            assert like(picture, reference) > like(picture, reference[:-1]) > like(picture, ["nothing"])
            assert like(picture, reference) > like((picture + 1) % 3, reference)


def test_advantages_compare_a_caption_with_its_siblings() -> None:
    found = advantages(torch.tensor([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0]]))
    assert torch.allclose(found, torch.tensor([[-1.5, 0.0, 1.5], [0.0, 0.0, 0.0]]))


def test_columns_are_drawn_as_often_as_they_are_probable() -> None:
    torch.manual_seed(0)
    shares = torch.tensor([0.0, 0.5, 0.0, 0.3, 0.2])
    drawn = torch.bincount(_drawn(shares.expand(20_000, -1)), minlength=5) / 20_000
    assert torch.allclose(drawn, shares, atol=0.015)
    assert drawn[0] == drawn[2] == 0


def test_captions_end_or_are_as_long_as_allowed(tiny_model: Path) -> None:
    torch.manual_seed(1)
    checkpoint = Checkpoint.load(tiny_model)
    tokenizer = checkpoint.tokenizer
    drawn = sampled(checkpoint.decoder, tokenizer, torch.randn(3, 49, 16), 4, 9)
    assert len(drawn) == 12
    for ids in drawn:
        assert len(ids) == 9 or ids[-1] == tokenizer.eos
        assert tokenizer.eos not in ids[:-1]
        assert not {tokenizer.pad, tokenizer.unk} & set(ids)


def test_the_reward_rises(tiny_model: Path) -> None:
    torch.manual_seed(2)
    checkpoint = Checkpoint.load(tiny_model)
    grids = [np.random.default_rng(i).normal(size=(1, 49, 16)).astype(np.float32) for i in range(4)]
    critic = Critic(checkpoint.decoder, checkpoint.tokenizer, grids, [[t] for t in TEXTS[4:]], seed=3)
    optimiser = torch.optim.Adam(checkpoint.decoder.parameters(), 0.02)
    rewards = []
    for step in range(60):
        loss, reward = critic.loss(step)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        rewards.append(reward)
    assert np.mean(rewards[-10:]) > np.mean(rewards[:10]) + 0.2


@pytest.mark.parametrize("name", SMALL)
def test_every_decoder_learns_from_its_own_captions(tiny_model: Path, name: str) -> None:
    tokenizer = Checkpoint.load(tiny_model).tokenizer
    decoder = made(name, vocabulary=len(tokenizer))
    grids = [np.random.default_rng(i).normal(size=(2, 9, 6)).astype(np.float32) for i in range(4)]
    critic = Critic(decoder, tokenizer, grids, [[t] for t in TEXTS[4:]], seed=3)
    optimiser = torch.optim.Adam(decoder.parameters(), 0.02)
    rewards = []
    for step in range(32):
        loss, reward = critic.loss(step)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        rewards.append(reward)
    assert np.mean(rewards[-6:]) > np.mean(rewards[:6])
