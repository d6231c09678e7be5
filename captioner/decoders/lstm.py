"""An LSTM whose cell and output lie in one tensor (N, 2H), as searches gather states."""

import torch
from torch import Tensor, nn


def start(lstm: nn.LSTM, inputs: Tensor) -> Tensor:
    """The state (B, 2H) of a one-layer LSTM after one input (B, I) on zeros."""
    _, (output, cell) = lstm(inputs.unsqueeze(1))
    return torch.cat([output[0], cell[0]], -1)


def run(lstm: nn.LSTM, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Inputs (N, T, I) from a state (N, 2H) to outputs (N, T, H) and the last state."""
    output, cell = (part.unsqueeze(0).contiguous() for part in state.chunk(2, -1))
    outputs, (output, cell) = lstm(inputs, (output, cell))
    return outputs, torch.cat([output[0], cell[0]], -1)
