"""What decoders share that read a caption word by word, because what they see of a word waits for the one before.

Shapes: B pictures, N captions, T tokens, R places, S state, E what stands before the output, V vocabulary.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from captioner.decoders.base import Decoder, Run, pictures_of


class Stepwise(Decoder):
    """The loop around a step; `look` gives a memory that is a named tuple of tensors (B, …)."""

    @abstractmethod
    def _step(self, word: Tensor, state: Tensor, memory: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Embedded words (N, …) and states (N, S) to states, what stands before the output (N, E), attention (N, R)."""

    @abstractmethod
    def _logits(self, before: Tensor) -> Tensor:
        """What stands before the output (…, E) to logits (…, V)."""

    def forward(self, grid: Tensor, tokens: Tensor, keep: Tensor | None = None) -> Tensor:
        before, _ = self._run(grid, tokens)
        return self._logits(before if keep is None else before[keep])

    def weights(self, grid: Tensor, tokens: Tensor) -> Tensor:
        return self._run(grid, tokens)[1]

    def step(self, tokens: Tensor, state: Tensor, memory: Any, runs: Sequence[Run]) -> tuple[Tensor, Tensor]:
        pictures = pictures_of(runs, tokens.device)
        seen = type(memory)(*(part[pictures] for part in memory))
        state, before, _ = self._step(self.embedding(tokens), state, seen)
        return self._logits(before), state

    def _run(self, grid: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """What stands before the output (B, T, E), and the attention (B, T, R)."""
        memory, state = self.look(grid)
        steps = []
        for word in self.dropout(self.embedding(tokens)).unbind(1):
            state, *made = self._step(word, state, memory)
            steps.append(made)
        before, weights = (torch.stack(part, 1) for part in zip(*steps, strict=True))
        return before, weights
