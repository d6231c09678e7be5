"""Template LSTM: the template is recognised, and an LSTM that knows nothing else of the picture writes.

As Meme Saheb (2020): a ResNet names the template, an LSTM conditioned on the template writes, up-votes rank.

Deviations: the encoder is frozen and the template is that of the nearest known picture (captioner.decoders.labels)
instead of a fine-tuned classifier's; the template's embedding is the LSTM's first state; captions are ranked by
the captioner's reward, which is learnt from up-votes, where the checkpoint has one. Photographs without templates get
the cluster that they fall into.

Shapes: B captions, T tokens, R places of the grid, D their features, E embedding, H units, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from captioner.decoders import lstm
from captioner.decoders.base import Decoder, Run
from captioner.decoders.labels import Labels


@dataclass(frozen=True)
class TemplateLSTMConfig:
    vocabulary: int
    kinds: int
    """Templates, or clusters."""
    features: int = 384
    embedding: int = 256
    units: int = 512
    dropout: float = 0.3


class TemplateLSTM(Decoder):
    def __init__(self, config: TemplateLSTMConfig) -> None:
        super().__init__()
        self.config = c = config
        self.labels = Labels(c.kinds, c.features, 0)
        self.template = nn.Embedding(c.kinds, 2 * c.units)
        self.embedding = nn.Embedding(c.vocabulary, c.embedding)
        self.lstm = nn.LSTM(c.embedding, c.units, batch_first=True)
        self.output = nn.Linear(c.units, c.vocabulary)
        self.dropout = nn.Dropout(c.dropout)

    def meet(self, pictures: Tensor, labels: Sequence[Sequence[int]]) -> None:
        self.labels.fill(pictures, labels)

    def look(self, grid: Tensor) -> tuple[None, Tensor]:
        """The first state (B, 2H) is all that is known of a picture."""
        return None, self.template(self.labels(grid)).tanh()

    def forward(self, grid: Tensor, tokens: Tensor, keep: Tensor | None = None) -> Tensor:
        _, state = self.look(grid)
        states, _ = lstm.run(self.lstm, self.dropout(self.embedding(tokens)), state)  # (B, T, H)
        return self._logits(states if keep is None else states[keep])

    def step(self, tokens: Tensor, state: Tensor, memory: None, runs: Sequence[Run]) -> tuple[Tensor, Tensor]:
        states, state = lstm.run(self.lstm, self.embedding(tokens).unsqueeze(1), state)
        return self._logits(states[:, 0]), state

    def _logits(self, states: Tensor) -> Tensor:
        made: Tensor = self.output(self.dropout(states))
        return made
