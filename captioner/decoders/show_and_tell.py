"""Show and Tell: the picture is the first word that an LSTM reads (Vinyals, Toshev, Bengio and Erhan 2015).

With the variants of Dank Learning (Peirson and Tolunay 2018), which also knows the template's label: `mean` averages
the embeddings of its words and joins them to the picture before the layer that embeds both, as the code that they
published does; `words` lets the LSTM read the label's words one by one between picture and caption.

Deviations: the vector is the mean of whatever grid the encoder gives, which stays frozen; one layer of LSTM where Dank
Learning has two; the label is that of the nearest known picture, not told by the user, and `words` has no attention
over them. Word vectors come in by the recipe's `vectors`.

Shapes: B captions, T tokens, R places of the grid, D their features, E embedding, H units, V vocabulary, L ids of a
label.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from captioner.decoders import lstm
from captioner.decoders.base import Decoder, Run
from captioner.decoders.labels import Labels

_LONGEST = 12
"""Ids of a label at most."""


@dataclass(frozen=True)
class ShowAndTellConfig:
    vocabulary: int
    kinds: int = 0
    """Known kinds of pictures, where labels are read."""
    features: int = 384
    embedding: int = 512
    units: int = 512
    dropout: float = 0.3
    label: str = "none"
    """`none`, `mean` or `words`."""


class ShowAndTell(Decoder):
    """Raises ValueError for a variant that nobody knows."""

    def __init__(self, config: ShowAndTellConfig) -> None:
        super().__init__()
        self.config = c = config
        if c.label not in ("none", "mean", "words"):
            raise ValueError(f"label is none, mean or words, not {c.label}.")
        self.labels = Labels(c.kinds, c.features, _LONGEST)
        self.picture = nn.Linear(c.features + (c.embedding if c.label == "mean" else 0), c.embedding)
        self.embedding = nn.Embedding(c.vocabulary, c.embedding)
        self.lstm = nn.LSTM(c.embedding, c.units, batch_first=True)
        self.output = nn.Linear(c.units, c.vocabulary)
        self.dropout = nn.Dropout(c.dropout)

    def meet(self, pictures: Tensor, labels: Sequence[Sequence[int]]) -> None:
        if self.config.label != "none":
            self.labels.fill(pictures, labels)

    def look(self, grid: Tensor) -> tuple[None, Tensor]:
        """The first state (B, 2H): the LSTM has read the picture, and with `words` its label."""
        vector, label = grid.mean(1), self.config.label
        if label == "mean":
            vector = torch.cat([vector, self.labels.mean(self.labels(grid), self.embedding)], -1)
        state = lstm.start(self.lstm, self.dropout(self.picture(vector)))
        return None, self._told(grid, state) if label == "words" else state

    def forward(self, grid: Tensor, tokens: Tensor, keep: Tensor | None = None) -> Tensor:
        _, state = self.look(grid)
        states, _ = lstm.run(self.lstm, self.dropout(self.embedding(tokens)), state)  # (B, T, H)
        return self._logits(states if keep is None else states[keep])

    def step(self, tokens: Tensor, state: Tensor, memory: None, runs: Sequence[Run]) -> tuple[Tensor, Tensor]:
        states, state = lstm.run(self.lstm, self.embedding(tokens).unsqueeze(1), state)
        return self._logits(states[:, 0]), state

    def _told(self, grid: Tensor, state: Tensor) -> Tensor:
        """The state after the words of every picture's label; labels differ in length."""
        words = self.labels.words[self.labels(grid)]  # (B, L)
        for column in words.T:
            _, after = lstm.run(self.lstm, self.dropout(self.embedding(column.clamp(min=0))).unsqueeze(1), state)
            state = torch.where((column >= 0).unsqueeze(1), after, state)
        return state

    def _logits(self, states: Tensor) -> Tensor:
        made: Tensor = self.output(self.dropout(states))
        return made
