"""Models that went on from one checkpoint as one: the average of their weights (model soups: Wortsman et al. 2022).

What one of them learnt of memes and another of descriptions is then in one network, which forgets less than one that
learns both in turn. It works where they are near each other, as after a short training from the same weights.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from captioner.checkpoint import Checkpoint


def merged(parts: Sequence[tuple[Checkpoint, float]]) -> Checkpoint:
    """The first checkpoint with weights of decoder and gate that are of each part as large a share as is said.

    A first one with a share of 0 lends everything else. Captions that any of them learnt are known as copies. Raises
    ValueError where a share is below 0 or they do not sum to 1, or for decoders of other kinds, sizes, vocabularies or
    eyes than the first's.
    """
    first = parts[0][0]
    if any(share < 0 for _, share in parts):
        raise ValueError("The share of a model is 0 or more.")
    if not abs(sum(share for _, share in parts) - 1) <= 1e-6:  # nor where one of them is no number
        raise ValueError("The shares of the models have to sum to 1.")
    for checkpoint, _ in parts:
        if _kind(checkpoint) != _kind(first):
            raise ValueError(f"{checkpoint.name} and {first.name} are not of a kind: only like models can be averaged.")
        if not checkpoint.sees_as(first):
            raise ValueError(
                f"{checkpoint.name} and {first.name} have other eyes: an average would see with neither's."
            )
    first.decoder.load_state_dict(_average([(c.decoder.state_dict(), share) for c, share in parts]))
    first.gate.load_state_dict(_average([(c.gate.state_dict(), share) for c, share in parts]))
    # The first one's as well, whatever its share: it lends its counts.
    first.fingerprints = np.unique(np.concatenate([c.fingerprints for c, share in parts if share or c is first]))
    shares = [{"name": c.name, "share": share, "facts": c.facts} for c, share in parts]
    first.facts = {"data": first.facts.get("data"), "merged": shares}
    return first


def _kind(checkpoint: Checkpoint) -> tuple[object, ...]:
    return checkpoint.decoder_name, checkpoint.decoder.config, checkpoint.tokenizer.to_json(), checkpoint.encoder


def _average(states: Sequence[tuple[Mapping[str, Tensor], float]]) -> dict[str, Tensor]:
    return {key: _mean(key, [(state[key], share) for state, share in states]) for key in states[0][0]}


def _mean(key: str, tensors: Sequence[tuple[Tensor, float]]) -> Tensor:
    """Of weights; what is counted in whole numbers, such as ids, has no mean and must be the same."""
    (first, portion), *others = tensors
    if first.is_floating_point():
        return sum((share * tensor for tensor, share in others), portion * first)
    if not all(torch.equal(tensor, first) for tensor, _ in others):
        raise ValueError(f"The decoders differ in {key}, which cannot be averaged.")
    return first
