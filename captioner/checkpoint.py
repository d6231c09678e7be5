"""One safetensors file that describes itself: weights, model config, tokenizer, training data and figures."""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from captioner.aptness import Aptness
from captioner.decoders import DECODERS, Decoder
from captioner.encoders import DEFAULT, Encoder, Reduction, build, is_known
from captioner.keywords import Keywords
from captioner.mixture import Gate, Mixture
from captioner.ngrams import NGrams
from captioner.residual import Residual
from captioner.reward import Reward
from captioner.templates import Templates
from captioner.tokenizer import STYLES, VOTES, CaptionTokenizer
from captioner.voice import Voice

FORMAT = "quipbot-1"
_LARGE = 1 << 16
"""Numbers in a matrix from which on 8 bits are worth their steps."""
_STEPS = ":steps"


class CheckpointError(ValueError):
    """The file is no checkpoint that this version can read; the message is a sentence."""


@dataclass
class Checkpoint:
    """Everything a captioner needs beside the encoder's published weights."""

    decoder: Decoder
    reduction: Reduction
    tokenizer: CaptionTokenizer
    name: str
    decoder_name: str = "attention_gru"
    encoder: str = DEFAULT
    fingerprints: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint32))
    """Sorted 32-bit hashes of the training captions, to refuse copies."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Data, recipe, seed and figures, for people and for the model card."""
    styles: tuple[str, ...] = STYLES
    """Those that were learnt."""
    votes: bool = True
    """Whether memes were learnt with their vote buckets."""
    last_stages: dict[str, Tensor] = field(default_factory=dict)
    """The encoder's last stages as they were fine-tuned; empty where the published ones serve."""
    gate: Gate = field(init=False)
    """Lets the counts in, where there are any."""
    ngrams: NGrams | None = None
    """Counts of the training memes' words, which the decoder's probabilities are mixed with."""
    templates: Templates | None = None
    reward: Reward | None = None
    keywords: Keywords | None = None
    voice: Voice | None = None
    aptness: Aptness | None = None
    residual: Residual | None = None
    usual: Tensor | None = None
    """How large a share (C,) of the described pictures are of each of ImageNet's classes (captioner.objects)."""

    def __post_init__(self) -> None:
        self.gate = Gate(self.tokenizer.unk)

    @property
    def mixture(self) -> Mixture | None:
        return Mixture(self.ngrams, self.gate, self.decoder.shortlist) if self.ngrams else None

    def prefix(self, style: str) -> tuple[int, ...]:
        """The two ids that ask for the best of a style; of the one that was learnt, where it was not this one."""
        style = style if style in self.styles else self.styles[0]
        return tuple(self.tokenizer.prefix(style, VOTES - 1 if style == "meme" and self.votes else None))

    def build_encoder(self) -> Encoder:
        """The encoder that this checkpoint's grids come from."""
        encoder = build(self.encoder)
        if self.last_stages:
            encoder.renew(self.last_stages)
        return encoder

    def sees_as(self, other: "Checkpoint") -> bool:
        """Whether both make the same grids of a picture: by encoder, its last stages, and reduction."""
        mine, its = (_eyes(c) for c in (self, other))
        alike = mine.keys() == its.keys() and all(torch.equal(tensor, its[key]) for key, tensor in mine.items())
        return self.encoder == other.encoder and alike

    def save(self, file: Path, *, compact: bool = False) -> None:
        """Half precision; written beside the target, flushed and renamed.

        `compact` keeps large matrices in 8 bits: for a file that is downloaded. What was fine-tuned is not saved so,
        since steps of learning can be smaller than those of 8 bits; nor is the encoder, whose clipped activations bear
        them badly (its grid moves by 7 %).
        """
        large = _eighths if compact else _halves
        tensors = large("decoder", self.decoder.state_dict())
        tensors |= _halves("encoder", self.last_stages) | _halves("reduction", self.reduction.state_dict())
        tensors["fingerprints"] = torch.from_numpy(self.fingerprints.astype(np.uint32).view(np.int32))
        if self.ngrams:
            tensors |= {f"ngrams.{k}": v.contiguous() for k, v in self.ngrams.tensors().items()}
            tensors["gate.weigh.weight"] = self.gate.weigh.weight.detach()
        if self.templates:
            tensors |= _halves("templates", self.templates.tensors())
        if self.keywords:
            tensors |= large("keywords", self.keywords.state_dict())
        if self.aptness:
            tensors["aptness"] = self.aptness.tensor(self.decoder.shortlist)
        if self.residual:
            tensors |= large("residual", self.residual.state_dict())
        if self.decoder.shortlist is not None:
            tensors["shortlist"] = self.decoder.shortlist.cpu().to(torch.int32)
        if self.usual is not None:
            tensors["usual"] = self.usual
        if self.voice:
            tensors["voice"] = self.voice.odds.half()
        if self.reward:
            kept = {f"reward.{k}": v for k, v in self.reward.tensors().items()}
            tensors |= kept | (_bytes(kept) if compact else {})
        about = {
            "format": FORMAT,
            "name": self.name,
            "encoder": self.encoder,
            "decoder": self.decoder_name,
            "config": json.dumps(asdict(self.decoder.config)),
            "tokenizer": self.tokenizer.to_json(),
            "facts": json.dumps(self.facts),
            "styles": json.dumps(self.styles),
            "votes": json.dumps(self.votes),
            "templates": json.dumps(self.templates.names if self.templates else []),
            "aptness": json.dumps(self.aptness.names if self.aptness else []),
            "keywords": json.dumps(self.keywords.words if self.keywords else []),
        }
        part = file.with_name(file.name + ".part")
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, part, about)
        part.chmod(0o644)  # the library makes it unreadable for others, such as a container's user
        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.replace(file)

    @classmethod
    def load(cls, file: Path) -> "Checkpoint":
        """Raises CheckpointError with a sentence for whatever is wrong with the file."""
        try:
            with safe_open(file, "pt") as opened:
                about = opened.metadata() or {}
                tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118, not a dict
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"The model file {file} cannot be read: {error}.") from error
        if about.get("format") != FORMAT or about.get("decoder") not in DECODERS:
            raise CheckpointError(f"The model file {file} is not of a kind this version knows.")
        try:
            return cls._from(about, tensors)
        except (LookupError, ValueError, TypeError, RuntimeError) as error:
            raise CheckpointError(f"The model file {file} is damaged: {error}.") from error

    @classmethod
    def _from(cls, about: dict[str, str], tensors: dict[str, Tensor]) -> "Checkpoint":
        if not is_known(about["encoder"]):
            raise ValueError(f"there is no encoder {about['encoder']}")
        decoder = DECODERS[about["decoder"]](json.loads(about["config"]))
        decoder.load_state_dict(_under("decoder.", tensors))
        reduction = Reduction(*tensors["reduction.basis"].shape)
        reduction.load_state_dict(_under("reduction.", tensors))
        made = cls(
            decoder.eval(),
            reduction,
            CaptionTokenizer(about["tokenizer"]),
            about["name"],
            about["decoder"],
            about["encoder"],
            tensors["fingerprints"].numpy().view(np.uint32),
            json.loads(about["facts"]),
            tuple(json.loads(about["styles"])) if "styles" in about else STYLES,
            json.loads(about.get("votes", "true")),
            _under("encoder.", tensors),
        )
        if counts := _under("ngrams.", tensors):
            made.ngrams = NGrams.from_tensors(counts)
            made.gate.load_state_dict(_under("gate.", tensors))
        if parts := _under("templates.", tensors):
            made.templates = Templates.from_tensors(json.loads(about["templates"]), parts)
        if parts := _under("reward.", tensors):
            made.reward = Reward.from_tensors(parts, made.tokenizer)
        if parts := _under("keywords.", tensors):
            made.keywords = Keywords(reduction.basis.shape[1], json.loads(about["keywords"])).eval()
            made.keywords.load_state_dict(parts)
            made.keywords.requires_grad_(False)
        if "aptness" in tensors:
            columns = tensors["shortlist"].long() if "shortlist" in tensors else None
            names, size = json.loads(about["aptness"]), len(made.tokenizer)
            made.aptness = Aptness.from_tensor(names, tensors["aptness"], columns, size)
        if parts := _under("residual.", tensors):
            made.residual = Residual.from_tensors(parts)
        if "shortlist" in tensors:
            decoder.shorten(tensors["shortlist"].long())
        made.usual = tensors.get("usual")
        made.voice = Voice(tensors["voice"]) if "voice" in tensors else None
        return made


def _eyes(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """What a file would keep of its eyes: one that was read may be compared with one that was not."""
    reduction = checkpoint.reduction.state_dict()
    return {
        k: v.cpu() for k, v in (_halves("encoder", checkpoint.last_stages) | _halves("reduction", reduction)).items()
    }


def _halves(name: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    made = {f"{name}.{key}": tensor.detach().contiguous() for key, tensor in tensors.items()}
    return {key: tensor.half() if tensor.is_floating_point() else tensor for key, tensor in made.items()}


def _eighths(name: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """As `_halves`, but matrices of some size as `_bytes`."""
    return _halves(name, tensors) | _bytes({f"{name}.{key}": tensor.detach() for key, tensor in tensors.items()})


def _bytes(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those that are matrices of some size, as signed bytes, each row of them with its own step."""
    made = {}
    for key, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.dim() == 2 and tensor.numel() >= _LARGE:
            rows = tensor.float()
            steps = rows.abs().amax(1, keepdim=True).clamp(min=1e-12) / 127
            made[key] = (rows / steps).round().to(torch.int8)
            made[key + _STEPS] = steps
    return made


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a part by their names in it, in full precision."""
    found = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    full = {k: v.float() if v.is_floating_point() or k + _STEPS in found else v for k, v in found.items()}
    for key in [k for k in full if k.endswith(_STEPS)]:
        full[key.removesuffix(_STEPS)] *= full.pop(key)
    return full
