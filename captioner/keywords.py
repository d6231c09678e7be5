"""Which words people would use of a photograph: a bag of words read off the encoder's grid in one product.

Memes of known templates teach what to say, not what to look at. A linear map from the grid's mean and maximum to words
on which descriptions agree (as in Fang et al. 2015, without their multiple instances) tells the search which words to
favour.

Shapes: B pictures, R places, D features, K words.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

_AGREED = 2
"""Descriptions of a photograph that use a word before it counts as seen there."""
_FEWEST = 12
"""Photographs that a word has to be seen in."""
_STEPS, _BATCH, _RATE, _DECAY = 1500, 256, 3e-3, 0.05


class Keywords(nn.Module):
    def __init__(self, features: int, words: Sequence[str]) -> None:
        super().__init__()
        self.words = list(words)
        self.read = nn.Linear(2 * features, len(self.words))

    def forward(self, grids: Tensor) -> Tensor:
        """Grids (B, R, D) to the probability (B, K) of every word."""
        return self.logits(_pooled(grids)).sigmoid()

    def logits(self, pooled: Tensor) -> Tensor:
        made: Tensor = self.read(F.dropout(pooled, 0.3, self.training))
        return made

    @classmethod
    def fit(cls, grids: np.ndarray, seen: Sequence[Counter[str]], known: frozenset[str], seed: int) -> "Keywords":
        """Learns from views (N, R, D) in half precision and, for each, in how many descriptions a word stands.

        Only `known` words are learnt: those that can be favoured. Raises ValueError where there is none.
        """
        agreed = [{w for w, n in counts.items() if n >= _AGREED and w in known} for counts in seen]
        frequency = Counter(w for words in agreed for w in words)
        words = sorted(w for w, n in frequency.items() if n >= _FEWEST)
        if not words:
            raise ValueError("There are too few descriptions to learn words from.")
        place = {w: i for i, w in enumerate(words)}
        targets = torch.zeros(len(grids), len(words))
        for row, mine in enumerate(agreed):
            targets[row, [place[w] for w in mine if w in place]] = 1
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = cls(grids.shape[2], words)
            model._learn(torch.cat([_pooled(torch.from_numpy(g).float()) for g in np.array_split(grids, 64)]), targets)
        return model.eval()

    def _learn(self, pooled: Tensor, targets: Tensor) -> None:
        rare = targets.mean(0).clamp(1e-4, 1 - 1e-4)
        nn.init.zeros_(self.read.weight)
        with torch.no_grad():
            self.read.bias.copy_(rare.logit())
        optimiser = torch.optim.AdamW(self.parameters(), _RATE, weight_decay=_DECAY)
        decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, _STEPS)
        for _ in range(_STEPS):
            rows = torch.randint(len(pooled), (_BATCH,))
            loss = F.binary_cross_entropy_with_logits(self.logits(pooled[rows]), targets[rows])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            decay.step()


def _pooled(grids: Tensor) -> Tensor:
    return torch.cat([grids.mean(1), grids.amax(1)], 1)
