"""Up-Down: one LSTM attends, another writes (Anderson et al. 2018, "Bottom-Up and Top-Down Attention").

The attention LSTM reads the writer's last output, the mean of all regions and the last word; its output asks every
region (additive attention); the language LSTM reads what was seen and the attention LSTM's output, and writes.

Regions are what the encoder gives: the cells of a grid, or the boxes of Faster R-CNN (captioner.regions).

Deviations: a detector trained on COCO's 80 classes, not on Visual Genome's 1,600 with attributes; smaller than the
paper's 1000 units.

Shapes: B captions, T tokens, R regions, D their features, E embedding, H units, A attention, V vocabulary.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from captioner.decoders.stepwise import Stepwise


@dataclass(frozen=True)
class UpDownConfig:
    vocabulary: int
    features: int = 384
    embedding: int = 256
    units: int = 512
    attention: int = 256
    dropout: float = 0.4


class Regions(NamedTuple):
    """What is computed once a picture: `values` (B, R, D) to average, `keys` (B, R, A) to ask, their `mean` (B, D)."""

    values: Tensor
    keys: Tensor
    mean: Tensor


class UpDown(Stepwise):
    def __init__(self, config: UpDownConfig) -> None:
        super().__init__()
        self.config = c = config
        self.embedding = nn.Embedding(c.vocabulary, c.embedding)
        self.attender = nn.LSTMCell(c.units + c.features + c.embedding, c.units)
        self.writer = nn.LSTMCell(c.features + c.units, c.units)
        self.key = nn.Linear(c.features, c.attention, bias=False)
        self.query = nn.Linear(c.units, c.attention, bias=False)
        self.energy = nn.Linear(c.attention, 1, bias=False)
        self.output = nn.Linear(c.units, c.vocabulary)
        self.dropout = nn.Dropout(c.dropout)

    def look(self, grid: Tensor) -> tuple[Regions, Tensor]:
        """The first state (B, 4H) is zeros: output and cell of the attention LSTM, then of the language LSTM."""
        values = self.dropout(grid)
        return Regions(values, self.key(values), values.mean(1)), grid.new_zeros(len(grid), 4 * self.config.units)

    def _step(self, word: Tensor, state: Tensor, memory: Regions) -> tuple[Tensor, Tensor, Tensor]:
        """A word (N, E) and states (N, 4H) to the new states, the output (N, H) and the attention (N, R)."""
        attended, its_cell, written, writing = state.chunk(4, -1)
        attended, its_cell = self.attender(torch.cat([written, memory.mean, word], -1), (attended, its_cell))
        compared = (memory.keys + self.query(attended).unsqueeze(1)).tanh()  # (N, R, A)
        weights = self.energy(compared).squeeze(-1).softmax(-1)  # (N, R)
        seen = (weights.unsqueeze(1) @ memory.values).squeeze(1)  # (N, D)
        written, writing = self.writer(torch.cat([seen, attended], -1), (written, writing))
        return torch.cat([attended, its_cell, written, writing], -1), written, weights

    def _logits(self, outputs: Tensor) -> Tensor:
        made: Tensor = self.output(self.dropout(outputs))
        return made
