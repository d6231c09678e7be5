"""Decoders, one file a model, each built from its config."""

from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import Any

from captioner.decoders.attention_gru import AttentionGRU, AttentionGRUConfig, Memory
from captioner.decoders.base import Decoder, Run
from captioner.decoders.meshed_memory import MeshedMemory, MeshedMemoryConfig
from captioner.decoders.par_inject_gru import ParInjectGRU, ParInjectGRUConfig
from captioner.decoders.show_and_tell import ShowAndTell, ShowAndTellConfig
from captioner.decoders.show_attend_and_tell import ShowAttendAndTell, ShowAttendAndTellConfig
from captioner.decoders.template_lstm import TemplateLSTM, TemplateLSTMConfig
from captioner.decoders.transformer import Transformer, TransformerConfig
from captioner.decoders.up_down import UpDown, UpDownConfig

_KINDS: dict[str, tuple[Callable[[Any], Decoder], type[Any]]] = {
    "attention_gru": (AttentionGRU, AttentionGRUConfig),
    "par_inject_gru": (ParInjectGRU, ParInjectGRUConfig),
    "template_lstm": (TemplateLSTM, TemplateLSTMConfig),
    "show_and_tell": (ShowAndTell, ShowAndTellConfig),
    "show_attend_and_tell": (ShowAttendAndTell, ShowAttendAndTellConfig),
    "up_down": (UpDown, UpDownConfig),
    "transformer": (Transformer, TransformerConfig),
    "meshed_memory": (MeshedMemory, MeshedMemoryConfig),
}


def _made(name: str, config: dict[str, Any]) -> Decoder:
    model, settings = _KINDS[name]
    return model(settings(**config))


DECODERS: dict[str, Callable[[dict[str, Any]], Decoder]] = {name: partial(_made, name) for name in _KINDS}
"""Each makes a decoder of the settings that its config has."""


def settings(name: str) -> dict[str, type]:
    """The settings of a decoder's config, and what they are."""
    return {f.name: f.type for f in fields(_KINDS[name][1]) if isinstance(f.type, type)}


__all__ = ["DECODERS", "AttentionGRU", "AttentionGRUConfig", "Decoder", "Memory", "Run", "settings"]
