"""Par-inject GRU: a picture's vector goes into the network beside every word.

Tanti, Gatt and Camilleri 2017, "Where to put the image in an image caption generator"; as Memefly (2019) built it:
embedding and GRU of 256, a dense layer of 256 before the output, a dropout of 0.5 on the picture, InceptionV3's 2048
numbers of a picture.

Deviations: the vector is the mean of whatever grid the encoder gives; the network is trained on all words of a caption
at once instead of on one prefix at a time; unknown words are spelled. Gaussian noise on the vector or on its embedding
is Memefly's experiment: as in Keras, training only.

Shapes: B captions, T tokens, R places of the grid, D their features, E embedding, H units, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captioner.decoders.base import Decoder, Run, pictures_of


@dataclass(frozen=True)
class ParInjectGRUConfig:
    vocabulary: int
    features: int = 384
    embedding: int = 256
    units: int = 256
    dropout: float = 0.5
    picture_noise: float = 0.0
    """Standard deviation of the noise on the picture's vector, whose numbers have about 1."""
    embedding_noise: float = 0.0
    """And on what the vector is embedded to."""


class ParInjectGRU(Decoder):
    def __init__(self, config: ParInjectGRUConfig) -> None:
        super().__init__()
        self.config = c = config
        self.embedding = nn.Embedding(c.vocabulary, c.embedding)
        self.picture = nn.Linear(c.features, c.embedding)
        self.gru = nn.GRU(2 * c.embedding, c.units, batch_first=True)
        self.dense = nn.Linear(c.units, c.units)
        self.output = nn.Linear(c.units, c.vocabulary)
        self.dropout = nn.Dropout(c.dropout)

    def look(self, grid: Tensor) -> tuple[Tensor, Tensor]:
        """The picture's embedding (B, E), and a state (B, H) of zeros."""
        vector = self.dropout(self._noisy(grid.mean(1), self.config.picture_noise))
        embedded = self._noisy(F.relu(self.picture(vector)), self.config.embedding_noise)
        return embedded, grid.new_zeros(len(grid), self.config.units)

    def forward(self, grid: Tensor, tokens: Tensor, keep: Tensor | None = None) -> Tensor:
        picture, state = self.look(grid)
        words = self.embedding(tokens)  # (B, T, E)
        beside = picture.unsqueeze(1).expand_as(words)
        states, _ = self.gru(torch.cat([beside, words], -1), state.unsqueeze(0))  # (B, T, H)
        return self._logits(states if keep is None else states[keep])

    def step(self, tokens: Tensor, state: Tensor, memory: Tensor, runs: Sequence[Run]) -> tuple[Tensor, Tensor]:
        beside = memory[pictures_of(runs, memory.device)]  # (N, E)
        inputs = torch.cat([beside, self.embedding(tokens)], -1).unsqueeze(1)
        _, states = self.gru(inputs, state.unsqueeze(0).contiguous())
        return self._logits(states[0]), states[0]

    def _logits(self, states: Tensor) -> Tensor:
        made: Tensor = self.output(self.dropout(F.relu(self.dense(states))))
        return made

    def _noisy(self, vector: Tensor, deviation: float) -> Tensor:
        return vector + deviation * torch.randn_like(vector) if self.training and deviation else vector
