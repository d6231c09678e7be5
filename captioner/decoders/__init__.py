"""Decoders, one file a model, each built from its config."""

from collections.abc import Callable
from typing import Any

from captioner.decoders.attention_gru import AttentionGRU, AttentionGRUConfig, Memory, Run

DECODERS: dict[str, Callable[[dict[str, Any]], AttentionGRU]] = {
    "attention_gru": lambda config: AttentionGRU(AttentionGRUConfig(**config)),
}

__all__ = ["DECODERS", "AttentionGRU", "AttentionGRUConfig", "Memory", "Run"]
