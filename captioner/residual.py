"""What the network says too often and too seldom: a classifier tells people's memes from its own.

The energy of a residual energy-based model (Deng et al. 2020): what a text's likelihood has to be corrected by for
people's texts to be as likely as they are. Logistic regression on the ids of a text and its pairs of neighbours, since
it has to be added to the score of every candidate; pairs share `_PAIRS` weights by a hash. Words of several pieces say
nothing: a network writes too few of them, and praise of pieces would make it invent some.
"""

from collections.abc import Collection, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

_PAIRS = 1 << 16
_PRIOR = 0.1
"""Variance of a weight before anything is known."""
_STEPS = 100
_SCALE = 64.0
"""Steps of a stored weight: 8 bits reach to ±2."""

Ids = Sequence[int]


class Residual:
    """`weights` (V + P,) of V ids and P classes of pairs: what each says for a text being people's, as a logarithm.

    `within` are the ids that go on with a word.
    """

    def __init__(self, weights: Tensor, within: Collection[int]) -> None:
        self.weights, self.within = weights.float(), frozenset(within)

    @classmethod
    def fit(
        cls, people: Sequence[Ids], own: Sequence[Ids], vocabulary: int, within: Collection[int] = ()
    ) -> "Residual":
        """From the ids of people's texts and of the network's, which count alike however many they are.

        Raises ValueError where either has none.
        """
        if not people or not own:
            raise ValueError("People's texts and the network's are needed to tell them apart.")
        made = cls(torch.zeros(vocabulary + _PAIRS), within)
        texts = [made._features(ids) for ids in (*people, *own)]
        inputs = torch.tensor([feature for text in texts for feature in text])
        starts = torch.tensor([0, *map(len, texts[:-1])]).cumsum(0)
        is_people = torch.tensor([1.0] * len(people) + [0.0] * len(own))
        each = torch.tensor([0.5 / len(people)] * len(people) + [0.5 / len(own)] * len(own))
        weights = torch.zeros(vocabulary + _PAIRS + 1, 1, requires_grad=True)  # the last is the constant
        optimiser = torch.optim.LBFGS([weights], max_iter=_STEPS, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimiser.zero_grad()
            said = F.embedding_bag(inputs, weights, starts, mode="sum").squeeze(1) + weights[-1]
            loss = F.binary_cross_entropy_with_logits(said, is_people, each, reduction="sum")
            loss = loss + weights[:-1].square().sum() / (2 * _PRIOR * len(texts))
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        optimiser.step(closure)  # type: ignore[no-untyped-call]
        made.weights = weights.detach()[:-1, 0]
        return made

    def tensor(self) -> Tensor:
        """The weights as bytes, for a checkpoint; `from_tensor` is the way back."""
        return (self.weights * _SCALE).round().clamp(-127, 127).to(torch.int8)

    @classmethod
    def from_tensor(cls, stored: Tensor, within: Collection[int]) -> "Residual":
        return cls(stored.float() / _SCALE, within)

    def score(self, ids: Ids) -> float:
        """How much a text of these ids, in their order, sounds like people rather than like the network."""
        return float(self.weights[self._features(ids)].sum())

    def _features(self, ids: Ids) -> list[int]:
        """The ids that are whole words, and the classes of those pairs of which both are, each once."""
        first = len(self.weights) - _PAIRS
        follows = [*(i in self.within for i in ids[1:]), False]
        whole = [i not in self.within and not more for i, more in zip(ids, follows, strict=False)]
        pairs = zip((0, *ids), ids, (True, *whole), whole, strict=False)
        said = {first + (7919 * a + 104729 * b) % _PAIRS for a, b, one, other in pairs if one and other}
        return sorted(said | {i for i, is_whole in zip(ids, whole, strict=True) if is_whole})
