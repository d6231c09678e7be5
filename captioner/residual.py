"""What gives the network's captions away: a classifier tells people's memes from those that it writes.

The energy of a residual energy-based model (Deng et al. 2020): what a text's likelihood has to be corrected by for
people's texts to be as likely as they are. A network that writes word by word loses the thread; one that reads the
whole text, both ways, notices. It is small, since it has to read all candidates for a meme.

Shapes: N texts, T ids of the longest, C ids that may be written, E numbers an id, U units each way.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence
from tqdm import tqdm

_SIZE, _UNITS, _HIDDEN = 64, 96, 64
_LONGEST = 48
"""Ids that are read of a text."""
_DROPPED = 0.2
_EPOCHS, _BATCH, _RATE, _DECAY = 4, 256, 2e-3, 0.01
_FEWEST = 60
"""Steps at least, however few the texts."""
_WARM_UP = 0.1
_OUTSIDE = 0
"""The column of all ids that may not be written."""
_SURE = 2.0
"""The odds from which on a text is people's, as a logarithm: beyond, it is only stranger."""

Ids = Sequence[int]


class Residual(nn.Module):
    """Reads texts of `known` (C,) ids, ascending; any other ids look alike."""

    known: Tensor

    def __init__(self, known: Tensor) -> None:
        super().__init__()
        self.register_buffer("known", known)
        self.embedding = nn.Embedding(len(known) + 1, _SIZE)
        self.reader = nn.GRU(_SIZE, _UNITS, batch_first=True, bidirectional=True)
        self.judge = nn.Sequential(
            nn.Dropout(_DROPPED), nn.Linear(4 * _UNITS, _HIDDEN), nn.GELU(), nn.Dropout(_DROPPED), nn.Linear(_HIDDEN, 1)
        )

    @classmethod
    def fit(cls, people: Sequence[Ids], own: Sequence[Ids], known: Tensor, seed: int = 0) -> "Residual":
        """From the ids of people's texts and of the network's, which count alike however many they are.

        What people wrote with other ids is left out: else these would speak for people, and nothing else be learnt.
        Raises ValueError where nothing is left, or nothing the network's own.
        """
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            made = cls(known)
            # The network's own have such ids as well, where what it spelled in pieces is read as another word.
            theirs = [columns for columns in map(made._columns, people) if _OUTSIDE not in columns]
            mine = [*map(made._columns, own)]
            if not (theirs and mine):
                raise ValueError("People's texts and the network's are needed to tell them apart.")
            made._learn(theirs, mine, np.random.default_rng(seed))
        return made.eval().requires_grad_(False)

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "Residual":
        """From `state_dict`; raises KeyError or RuntimeError where it is none."""
        made = cls(tensors["known"])
        made.load_state_dict(tensors)
        return made.eval().requires_grad_(False)

    @torch.inference_mode()
    def score(self, texts: Sequence[Ids]) -> list[float]:
        """How much each text of these ids sounds like people rather than like the network, as the logarithm of odds."""
        if not texts:
            return []
        columns = _padded([self._columns(ids) for ids in texts])
        found: list[float] = self(columns.to(self.known.device)).clamp(max=_SURE).tolist()
        return found

    def forward(self, columns: Tensor) -> Tensor:
        """Columns (N, T), -1 after the end, to the logarithms (N,) of the odds that people wrote them."""
        there = (columns >= 0).unsqueeze(2)
        lengths = there.sum((1, 2))
        read = F.dropout(self.embedding(columns.clamp(min=_OUTSIDE)), _DROPPED, self.training)
        # Packed, since a text that is read backwards must not begin in the padding.
        packed = pack_padded_sequence(read, lengths.cpu(), batch_first=True, enforce_sorted=False)
        heard, _ = pad_packed_sequence(self.reader(packed)[0], batch_first=True)  # (N, T, 2U)
        most = heard.masked_fill(~there, -1).amax(1)
        odds: Tensor = self.judge(torch.cat([most, heard.sum(1) / lengths.unsqueeze(1)], 1)).squeeze(1)
        return odds

    def _columns(self, ids: Ids) -> list[int]:
        """The places of the first ids among the known ones from 1 on, and 0 for others."""
        return [self._places.get(i, _OUTSIDE) for i in ids[:_LONGEST]]

    @cached_property
    def _places(self) -> dict[int, int]:
        return {i: place for place, i in enumerate(self.known.tolist(), 1)}

    def _learn(self, people: list[list[int]], own: list[list[int]], rng: np.random.Generator) -> None:
        """Every epoch reads all of the network's texts and as many of people's, others where there are more."""
        steps = max(_FEWEST, _EPOCHS * -(-2 * len(own) // _BATCH))
        optimiser = torch.optim.AdamW(self.parameters(), _RATE, weight_decay=_DECAY)
        rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, _RATE, total_steps=steps + 1, pct_start=_WARM_UP)
        batches = _batches(people, own, rng)
        for _ in tqdm(range(steps), desc="residual", unit="step"):
            columns, labels = next(batches)
            loss = F.binary_cross_entropy_with_logits(self(columns), labels)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(self.parameters(), 1.0)
            optimiser.step()
            rate.step()


def _batches(
    people: list[list[int]], own: list[list[int]], rng: np.random.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Texts of similar length and whether people wrote them, without end."""
    while True:
        drawn = np.resize(rng.permutation(len(people)), len(own))
        texts = [*(people[i] for i in drawn), *own]
        labels = np.repeat([1.0, 0.0], len(own))
        by_length = np.argsort([len(t) + rng.random() * 6 for t in texts])
        chunks = [by_length[at : at + _BATCH] for at in range(0, len(texts), _BATCH)]
        for chunk in rng.permutation(len(chunks)).tolist():
            yield _padded([texts[i] for i in chunks[chunk]]), torch.from_numpy(labels[chunks[chunk]]).float()


def _padded(texts: Sequence[list[int]]) -> Tensor:
    return pad_sequence([torch.tensor(t) for t in texts], batch_first=True, padding_value=-1)
