"""Decoders of one vocabulary that write a caption together (an ensemble, as in Vinyals et al. 2015).

What one of them misreads, another that learnt otherwise may not.

Shapes: B pictures, R places of the grid, D their features, N captions, T tokens, V vocabulary.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from captioner.checkpoint import Checkpoint
from captioner.decoders.base import Decoder, Run


def ensemble(members: Mapping[str, Checkpoint]) -> Checkpoint:
    """The first checkpoint, written by all of them. Raises ValueError, by their names, where they cannot."""
    (name, first), *others = members.items()
    for other, member in members.items():
        if member.mixture:
            raise ValueError(f"{other} has counts, and writes with no other.")
        if (member.tokenizer.to_json(), member.encoder) != (first.tokenizer.to_json(), first.encoder):
            raise ValueError(f"{name} and {other} cannot write together: their vocabularies or encoders differ.")
        if not member.sees_as(first):
            raise ValueError(f"{name} and {other} cannot write together: they have other eyes, tuned or fitted apart.")
    return replace(first, decoder=Together([member.decoder for member in members.values()])) if others else first


class Together(Decoder):
    """Steps every decoder and averages their log-probabilities: a geometric mean, up to a factor.

    A state holds those of all, flattened, along its second dimension. The memory begins with the shapes that they have
    at first: one that is empty then is a transformer's, and grows by one with every token.
    """

    def __init__(self, members: Sequence[Decoder]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def look(self, grid: Tensor) -> tuple[list[Any], Tensor]:
        return _seen([member.look(grid) for member in self._decoders()])

    def begin(self, grid: Tensor) -> tuple[list[Any], Tensor]:
        return _seen([member.begin(grid) for member in self._decoders()])

    def step(self, tokens: Tensor, state: Tensor, memory: list[Any], runs: Sequence[Run]) -> tuple[Tensor, Tensor]:
        first, *memories = memory
        parts = zip(self._decoders(), _unpacked(state, first), memories, strict=True)
        made = [member.step(tokens, part, seen, runs) for member, part, seen in parts]
        likely = torch.stack([logits.log_softmax(-1) for logits, _ in made]).mean(0)
        return likely, _packed([stepped for _, stepped in made])

    def forward(self, grid: Tensor, tokens: Tensor, keep: Tensor | None = None) -> Tensor:
        """As of every decoder."""
        return torch.stack([member(grid, tokens, keep).log_softmax(-1) for member in self._decoders()]).mean(0)

    def _decoders(self) -> list[Decoder]:
        return list(self.members)  # type: ignore[arg-type]


def _seen(looked: Sequence[tuple[Any, Tensor]]) -> tuple[list[Any], Tensor]:
    """The memory of all, and the first state."""
    memories, firsts = zip(*looked, strict=True)
    return [[first.shape[1:] for first in firsts], *memories], _packed(firsts)


def _packed(states: Sequence[Tensor]) -> Tensor:
    """States (N, …) side by side (N, S)."""
    return torch.cat([state.flatten(1) for state in states], 1)


def _unpacked(state: Tensor, first: Sequence[torch.Size]) -> list[Tensor]:
    """What was packed (N, S) in its shapes, the `first` ones with as many tokens as there is room for."""
    a_token = sum(prod(shape[1:]) for shape in first if not shape[0])
    tokens = (state.shape[1] - sum(map(prod, first))) // max(a_token, 1)
    shapes = [shape if shape[0] else torch.Size((tokens, *shape[1:])) for shape in first]
    parts = torch.split(state, [prod(shape) for shape in shapes], 1)
    return [part.reshape(len(state), *shape).contiguous() for part, shape in zip(parts, shapes, strict=True)]
