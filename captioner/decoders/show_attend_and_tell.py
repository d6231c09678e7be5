"""Show, Attend and Tell: soft attention over the grid before every word (Xu et al. 2015).

The LSTM's last output asks every place of the grid (an additive attention, softmax over places); a gate says how much
of what it sees counts; word, state and sight join before the output. The doubly stochastic penalty wants each place to
be looked at about once in a caption.

With `cell=gru` the variant of the study Image2Tweet, which follows a well-known tutorial: a GRU from zeros, additive
attention (Bahdanau, Cho and Bengio 2015) over places embedded by a rectified layer, no gate and no penalty, a
dense layer before the output.

Deviations: the encoder is whatever gives the grid, frozen; soft attention only; the first state comes from one layer.

Shapes: B captions, T tokens, R places of the grid, D their features, P those attended to, E embedding, H units,
A attention, V vocabulary; S is 2H for an LSTM, H for a GRU.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captioner.decoders.stepwise import Stepwise


@dataclass(frozen=True)
class ShowAttendAndTellConfig:
    vocabulary: int
    features: int = 384
    embedding: int = 256
    units: int = 512
    attention: int = 256
    dropout: float = 0.4
    penalised: float = 1.0
    """Weight of the doubly stochastic penalty, of the LSTM."""
    cell: str = "lstm"
    """`lstm` or `gru`."""


class Sight(NamedTuple):
    """What is computed once a picture: `places` (B, R, P) to average and `keys` (B, R, A) to compare the state with."""

    places: Tensor
    keys: Tensor


class ShowAttendAndTell(Stepwise):
    """Raises ValueError for a cell that nobody knows."""

    def __init__(self, config: ShowAttendAndTellConfig) -> None:
        super().__init__()
        self.config = c = config
        if c.cell not in ("lstm", "gru"):
            raise ValueError(f"cell is lstm or gru, not {c.cell}.")
        self.is_lstm = c.cell == "lstm"
        places = c.features if self.is_lstm else c.embedding
        self.embedding = nn.Embedding(c.vocabulary, c.embedding)
        self.place = nn.Identity() if self.is_lstm else nn.Sequential(nn.Linear(c.features, places), nn.ReLU())
        self.key = nn.Linear(places, c.attention)
        self.query = nn.Linear(c.units, c.attention)
        self.energy = nn.Linear(c.attention, 1, bias=False)
        self.cell = (nn.LSTMCell if self.is_lstm else nn.GRUCell)(c.embedding + places, c.units)
        if self.is_lstm:
            self.first = nn.Linear(c.features, 2 * c.units)
            self.gate = nn.Linear(c.units, 1)
            self.from_sight = nn.Linear(places, c.embedding, bias=False)
        self.from_state = nn.Linear(c.units, c.embedding)
        self.output = nn.Linear(c.embedding, c.vocabulary)
        self.dropout = nn.Dropout(c.dropout)
        self._looked: Tensor | None = None

    def look(self, grid: Tensor) -> tuple[Sight, Tensor]:
        places = self.place(self.dropout(grid))
        state = self.first(grid.mean(1)).tanh() if self.is_lstm else grid.new_zeros(len(grid), self.config.units)
        return Sight(places, self.key(places)), state

    def forward(self, grid: Tensor, tokens: Tensor, keep: Tensor | None = None) -> Tensor:
        before, weights = self._run(grid, tokens)
        if self.is_lstm and keep is not None:
            self._looked = (weights * keep.unsqueeze(-1)).sum(1)  # (B, R)
        return self._logits(before if keep is None else before[keep])

    def penalty(self) -> Tensor | float:
        """Of Xu et al. 2015, equation 14, averaged over places: how far each is from being looked at once."""
        if self._looked is None:
            return 0.0
        looked, self._looked = self._looked, None
        weight: float = self.config.penalised
        return weight * ((1 - looked) ** 2).sum(-1).mean() / looked.shape[1]

    def _step(self, word: Tensor, state: Tensor, memory: Sight) -> tuple[Tensor, Tensor, Tensor]:
        """A word (N, E) and states (N, S) to the new states, what stands before the output (N, E), attention (N, R)."""
        output, *cell = state.chunk(2, -1) if self.is_lstm else (state,)
        query = self.query(output).unsqueeze(1)  # (N, 1, A)
        weights = self.energy((query + memory.keys).tanh()).squeeze(-1).softmax(-1)  # (N, R)
        seen = (weights.unsqueeze(1) @ memory.places).squeeze(1)  # (N, P)
        if not self.is_lstm:
            state = self.cell(torch.cat([seen, word], -1), state)
            return state, self.from_state(state), weights
        seen = self.gate(output).sigmoid() * seen
        output, remembered = self.cell(torch.cat([word, seen], -1), (output, *cell))
        before = word + self.from_state(self.dropout(output)) + self.from_sight(seen)
        return torch.cat([output, remembered], -1), before, weights

    def _logits(self, before: Tensor) -> Tensor:
        return F.linear(self.dropout(before), self.output.weight, self.output.bias)
