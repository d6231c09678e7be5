"""A network and counts write together: the network says for every word how far to trust the counts.

Pointer sentinel mixture (Merity et al. 2017) with an n-gram model in place of the pointer; mixing counts into a network
by weights that the network learns is Neubig and Dyer 2016. The token that is never written, *unknown*, is the sentinel:
what probability the network gives it is the share of the counts, so any decoder can be mixed without a change.

    p(word) = p_network(word) + p_network(unknown) · p_counts(word)

Shapes: N places, V vocabulary, C ids that may be written, F features of the evidence (captioner.ngrams).
"""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from captioner.following import Following
from captioner.ngrams import ORDER, NGrams

NEVER = -1e4
"""The log-probability of what the counts know nothing of, such as descriptions."""
_ALL = -1e-6
"""The logarithm of the largest share of the counts at which the network's own probabilities can still be told."""


class Gate(nn.Module):
    """Raises or lowers the sentinel by how long a context the counts know and how sure they are of it."""

    def __init__(self, sentinel: int) -> None:
        super().__init__()
        self.sentinel = sentinel
        self.weigh = nn.Linear(ORDER + 1, 1, bias=False)
        nn.init.zeros_(self.weigh.weight)

    def forward(self, logits: Tensor, features: Tensor) -> Tensor:
        """Logits (N, V), changed in place, and features (N, F) to log-probabilities (N, V)."""
        logits[:, self.sentinel] += self.weigh(features).squeeze(1)
        return logits.log_softmax(-1)

    def likelihood(self, logits: Tensor, targets: Tensor, counted: Tensor, features: Tensor) -> Tensor:
        """Log-likelihood (N,) of targets (N,) to which the counts give the log-probabilities `counted` (N,)."""
        return self.likelihoods(logits, targets, counted, features)[0]

    def likelihoods(self, logits: Tensor, targets: Tensor, counted: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """As `likelihood`, beside the log-likelihood (N,) that the network gives the targets without the counts."""
        both = torch.stack([targets, torch.full_like(targets, self.sentinel)], 1)
        network, share = self(logits, features).gather(1, both).unbind(1)
        alone = network - torch.log(-torch.expm1(share.clamp(max=_ALL)))
        return torch.logaddexp(network, share + counted), alone


class Mixture:
    """Counts and the gate that lets them into a network's probabilities.

    While writing, the network's probabilities may be those of a shortlist only: `shortlist` (C,), sorted ids.
    """

    def __init__(self, ngrams: NGrams, gate: Gate, shortlist: Tensor | None = None) -> None:
        self.ngrams, self.gate = ngrams, gate
        self._ids = torch.arange(ngrams.vocabulary) if shortlist is None else shortlist.cpu()
        self._sentinel = int((self._ids == gate.sentinel).nonzero())

    def mixes(self, prefix: Sequence[int]) -> bool:
        """Whether the counts have anything to say on captions with this prefix."""
        return prefix[0] == self.ngrams.start

    def evidence(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Log-probabilities (N,) of all ids of captions, and features (N, F)."""
        found = self.ngrams.evidence(rows)
        device = self.gate.weigh.weight.device
        return (
            torch.from_numpy(found.probability).float().log().to(device),
            torch.from_numpy(found.features()).to(device),
        )

    def add_(self, weights: Tensor, history: Tensor, trust: Tensor) -> None:
        """Adds the counts' part, times `trust` (A,), to unnormalised probabilities (A, C) of the network, in place.

        `history` (A, L) are the ids so far, the start included.
        """
        made = self._following.after(history.cpu().numpy())
        device = weights.device
        features = torch.from_numpy(made.features).to(device)
        share = trust * weights[:, self._sentinel] * self.gate.weigh(features).squeeze(1).exp()  # (A,)
        weights.addcmul_((share * torch.from_numpy(made.share).to(device)).unsqueeze(1), self._unigrams)
        places = torch.from_numpy(made.rows * weights.shape[1] + made.columns).to(device)
        values = torch.from_numpy(made.values).to(device) * share[torch.from_numpy(made.rows).to(device)]
        weights.view(-1).index_add_(0, places, values)

    @cached_property
    def _following(self) -> Following:
        column = np.full(self.ngrams.vocabulary, -1)
        column[self._ids.numpy()] = np.arange(len(self._ids))
        return Following(self.ngrams, column)

    @cached_property
    def _unigrams(self) -> Tensor:
        return torch.from_numpy(self.ngrams.unigrams)[self._ids].to(self.gate.weigh.weight.device)
