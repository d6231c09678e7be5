"""A network and counts: probabilities still sum to one, and what is written is what is evaluated."""

import numpy as np
import pytest
import torch

from captioner.mixture import NEVER, Gate, Mixture
from captioner.ngrams import KneserNey, NGrams

VOCABULARY, SENTINEL, START, END = 16, 3, 4, 1


@pytest.fixture
def mixture() -> Mixture:
    rng = np.random.default_rng(0)
    rows = [[*rng.integers(5, 16, 6).tolist(), END] for _ in range(300)]
    gate = Gate(SENTINEL)
    torch.nn.init.normal_(gate.weigh.weight)
    return Mixture(NGrams.of(KneserNey(rows, START, VOCABULARY)), gate.requires_grad_(False))


def test_writing_and_evaluation_agree(mixture: Mixture) -> None:
    torch.manual_seed(0)
    caption = [7, 9, 12, END]
    logits = torch.randn(len(caption), VOCABULARY)
    logits[:, SENTINEL] += 2
    counted, features = mixture.evidence([caption])
    evaluated = mixture.gate.likelihood(logits.clone(), torch.tensor(caption), counted, features)
    for t, target in enumerate(caption):
        weights = logits[t : t + 1].exp()
        mixture.add_(weights, torch.tensor([[START, *caption[:t]]]), torch.ones(1))
        weights[:, SENTINEL] = 0
        written = (weights[0, target] / weights.sum()).log()
        # The counts of a few ids are all the likeliest ones, so nothing is left out while writing.
        assert float(written) == pytest.approx(float(evaluated[t]), abs=2e-3)


def test_without_trust_the_network_writes_alone(mixture: Mixture) -> None:
    weights = torch.rand(2, VOCABULARY)
    alone = weights.clone()
    mixture.add_(weights, torch.tensor([[START, 7], [START, 9]]), torch.zeros(2))
    assert torch.equal(weights, alone)


def test_what_counts_never_say_is_left_to_the_network(mixture: Mixture) -> None:
    logits = torch.randn(1, VOCABULARY)
    features = torch.zeros(1, mixture.gate.weigh.in_features)
    found = mixture.gate.likelihood(logits.clone(), torch.tensor([6]), torch.tensor([NEVER]), features)
    assert float(found) == pytest.approx(float(logits.log_softmax(-1)[0, 6]), abs=1e-5)


def test_what_the_network_knows_alone_is_learnt_where_the_counts_get_all_the_trust() -> None:
    torch.manual_seed(0)
    gate, sentinel, known = Gate(0), 0, 5
    with torch.no_grad():
        gate.weigh.weight.normal_()
    logits = torch.randn(40, 9)
    targets, features = torch.randint(1, 9, (40,)), torch.rand(40, known + 1)
    counted = torch.full((40,), -0.1)
    _, alone = gate.likelihoods(logits.clone(), targets, counted, features)
    others = logits[:, 1:].log_softmax(-1).gather(1, targets.unsqueeze(1) - 1).squeeze(1)
    torch.testing.assert_close(alone, others)

    trusting = logits.clone()
    trusting[:, sentinel] += 9
    trusting.requires_grad_()
    mixed, alone = gate.likelihoods(trusting * 1, targets, counted, features)
    (of_mixed,) = torch.autograd.grad(mixed.sum(), trusting, retain_graph=True)
    (of_alone,) = torch.autograd.grad(alone.sum(), trusting)
    assert of_mixed[:, 1:].abs().max() < 1e-2  # nothing left to learn
    assert of_alone[:, 1:].abs().amax(1).min() > 0.1
