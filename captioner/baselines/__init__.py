"""Captioners from before neural decoders: what a decoder has to beat."""

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from captioner.baselines.nearest import NearestNeighbour
from captioner.baselines.pictures import Pictures
from captioner.baselines.slots import SlotTemplates


class Baseline(Protocol):
    def caption(self, grid: Tensor) -> str:
        """A normalised caption of a grid (R, D)."""
        ...


BASELINES: dict[str, Callable[[Pictures], Baseline]] = {
    "nearest_neighbour": NearestNeighbour,
    "slot_templates": SlotTemplates,
}

__all__ = ["BASELINES", "Baseline", "NearestNeighbour", "Pictures", "SlotTemplates"]
