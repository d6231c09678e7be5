"""Self-critical fine-tuning: descriptions learn to be like people's as a whole, not word by word.

Captions are sampled, rewarded by their likeness to people's, and made likelier as far as they beat their siblings
(Rennie et al. 2017; the mean of a picture's other samples as baseline: Luo 2020). CIDEr alone teaches broken
endings, so the end counts as a word and BLEU-4 is in the reward. Likelihood of memes and descriptions is trained on
beside it, so that what it does not speak of is kept.

Shapes: B pictures, K samples of each, T steps, R places of the grid, D their features, V vocabulary.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from captioner.decoders import Decoder
from captioner.metrics import CiderD, Tokens, ceiling, closest, matches, words
from captioner.tokenizer import CaptionTokenizer

_PICTURES, _SAMPLES, _STEPS = 30, 5, 22
"""Pictures of an update, captions drawn of each, and their ids at most."""
_UNFINISHED = 1.0
"""Taken from the reward of a caption that has no end by then."""
_MEMORY = 0.98
"""Of the running spread of the advantages, by which they are divided."""

_END = "</s>"
_BLEU = 2.0
"""Of the reward: a sentence's BLEU-4 lies around 0.2, its CIDEr-D around 0.5, a tenth of what tables print."""


class Likeness:
    """CIDEr-D plus BLEU-4 of single captions against the references of their picture, the end counted as a word."""

    def __init__(self, references: Sequence[Sequence[Tokens]]) -> None:
        """`references[i]` are the captions of picture `i`, split into words."""
        ended = [[(*reference, _END) for reference in of] for of in references]
        self._cider = CiderD(ended)
        self._ceilings = [ceiling(of) for of in ended]
        self._lengths = [[len(reference) for reference in of] for of in ended]

    def __call__(self, picture: int, caption: Tokens) -> float:
        ended = (*caption, _END)
        return self._cider(picture, ended) + _BLEU * self._bleu(picture, ended)

    def _bleu(self, picture: int, caption: Tokens) -> float:
        """Sentence BLEU-4, counts of two words and more raised by one (Lin and Och 2004)."""
        product = 0.0
        for n in range(1, 5):
            matched, total = matches(caption, self._ceilings[picture], n)
            if not matched + (n > 1):
                return 0.0
            product += math.log((matched + (n > 1)) / (total + (n > 1))) / 4
        nearest = closest(len(caption), self._lengths[picture])
        return math.exp(product + min(0.0, 1 - nearest / len(caption)))


class Critic:
    """The loss of descriptions sampled from a decoder.

    `grids[i]` (W, R, D) are the views of picture `i`, `references[i]` its descriptions. `logits` is the decoder's
    teacher forcing with all of its arguments, where that is done in another precision.
    """

    def __init__(
        self,
        decoder: Decoder,
        tokenizer: CaptionTokenizer,
        grids: Sequence[np.ndarray],
        references: Sequence[Sequence[str]],
        seed: int,
        logits: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
    ) -> None:
        self.decoder, self.tokenizer, self.grids, self.seed = decoder, tokenizer, grids, seed
        self.logits = logits or decoder
        self.likeness = Likeness([[words(text) for text in of] for of in references])
        self.spread = 1.0
        """Of the advantages of late: a run that was cut off has to keep it."""

    def loss(self, step: int) -> tuple[Tensor, float]:
        """The loss, and the mean reward, of an update; the pictures are a function of seed and step."""
        rng = np.random.default_rng([self.seed, step])
        chosen = rng.choice(len(self.grids), min(_PICTURES, len(self.grids)), replace=False).tolist()
        views = np.stack([self.grids[i][rng.integers(len(self.grids[i]))] for i in chosen])
        device = self.decoder.embedding.weight.device
        grids = torch.from_numpy(views).to(device).float()
        self.decoder.eval()
        captions = sampled(self.decoder, self.tokenizer, grids, _SAMPLES, _STEPS)
        rewards = torch.tensor([self._reward(chosen[n // _SAMPLES], ids) for n, ids in enumerate(captions)])
        gains = advantages(rewards.view(-1, _SAMPLES)).flatten()
        self.spread = _MEMORY * self.spread + (1 - _MEMORY) * gains.std().item()
        self.decoder.train()
        tokens, targets = (made.to(device) for made in _padded(captions, self.tokenizer))
        keep = targets >= 0
        likelihood = self.logits(grids.repeat_interleave(_SAMPLES, 0), tokens, keep).log_softmax(-1)
        each = likelihood.gather(1, targets[keep].unsqueeze(1)).squeeze(1)
        weights = (gains.to(device) / self.spread).unsqueeze(1).expand_as(targets)[keep]
        return -(weights * each).mean(), rewards.mean().item()

    def _reward(self, picture: int, ids: Sequence[int]) -> float:
        ended = ids[-1] == self.tokenizer.eos
        text = " ".join(self.tokenizer.decode(ids[:-1] if ended else ids))
        return self.likeness(picture, words(text)) - (0 if ended else _UNFINISHED)


def _padded(captions: Sequence[Sequence[int]], tokenizer: CaptionTokenizer) -> tuple[Tensor, Tensor]:
    """Tokens, the prefix first, and targets (N, T), -1 where nothing is asked."""
    longest = max(map(len, captions)) + 1
    tokens, targets = torch.full((len(captions), longest), tokenizer.pad), torch.full((len(captions), longest), -1)
    for row, ids in enumerate(captions):
        tokens[row, : len(ids) + 1] = torch.tensor([*tokenizer.prefix("describe"), *ids[:-1]])
        targets[row, 1 : len(ids) + 1] = torch.tensor(ids)
    return tokens, targets


@torch.no_grad()
def sampled(decoder: Decoder, tokenizer: CaptionTokenizer, grids: Tensor, count: int, steps: int) -> list[list[int]]:
    """`count` captions of every grid (B, R, D) drawn from the model, as ids with the end; B · count lists.

    One that is not finished after `steps` ids has no end.
    """
    memory, state = decoder.look(grids)
    runs = [(i, slice(i * count, (i + 1) * count)) for i in range(len(grids))]
    state = state.repeat_interleave(count, 0)
    style, vote = (torch.full((len(state),), i, device=grids.device) for i in tokenizer.prefix("describe"))
    decoder.refresh()
    state = decoder.read(style, state, memory, runs)
    drawn, tokens, done = [], vote, torch.zeros_like(vote, dtype=torch.bool)
    for _ in range(steps):
        logits, state = decoder.step(tokens, state, memory, runs)
        for silent in (tokenizer.pad, tokenizer.unk):
            logits[:, silent] = -torch.inf
        tokens = _drawn(logits.softmax(-1)).masked_fill(done, tokenizer.pad)
        drawn.append(tokens)
        done |= tokens == tokenizer.eos
        if done.all():
            break
    decoder.refresh()
    return [[i for i in row if i != tokenizer.pad] for row in torch.stack(drawn, 1).tolist()]


def _drawn(probabilities: Tensor) -> Tensor:
    """One column (N,) of each row (N, V), by inversion: many times faster than `torch.multinomial` on a CPU."""
    below = probabilities.cumsum(-1)
    asked = torch.rand(len(below), 1, device=below.device) * below[:, -1:]
    return torch.searchsorted(below, asked, right=True).squeeze(1).clamp(max=below.shape[1] - 1)


def advantages(rewards: Tensor) -> Tensor:
    """Rewards (B, K) less the mean of each picture's others (B, K)."""
    others = (rewards.sum(1, keepdim=True) - rewards) / (rewards.shape[1] - 1)
    return rewards - others
