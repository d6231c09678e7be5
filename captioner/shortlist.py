"""Which of the vocabulary's ids a search may write: the output layer is most of the work of a batch.

The short list of Jean et al. 2015, one for all pictures. What training and `evaluate` call likelihood is that of the
whole vocabulary; a search knows the list only.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from captioner.tokenizer import CaptionTokenizer

SIZE = 4096


def shortlist(
    tokenizer: CaptionTokenizer, styles: Iterable[Sequence[Sequence[int]]], words: Iterable[str] = (), size: int = SIZE
) -> Tensor:
    """The ids (C,), sorted, that the captions of the styles need most, every style alike; and those that write `words`.

    *Unknown*, the end and the separator are always among them.
    """
    total = np.zeros(len(tokenizer))
    for captions in styles:
        counts = np.bincount(np.concatenate([np.array(ids, np.int64) for ids in captions]), minlength=len(total))
        total += counts / counts.sum()
    total[tokenizer.forbidden] = -1
    total[_writing(tokenizer, words)] = np.inf
    total[[tokenizer.unk, tokenizer.eos, tokenizer.sep]] = np.inf
    likeliest = np.argsort(-total, kind="stable")[: min(size, len(total) - len(tokenizer.forbidden) + 1)]
    return torch.from_numpy(np.sort(likeliest))


def widened(listed: Tensor, tokenizer: CaptionTokenizer, words: Iterable[str]) -> Tensor:
    """A list (C,) of ids with those that write `words`, in pieces if need be, sorted.

    As many others join as make its size a multiple of 16 again, which a search is quicker with.
    """
    words = list(words)
    pieces = {piece for word in words for piece in tokenizer.encode([word])[:-1]}
    return joined(listed, tokenizer, pieces.union(_writing(tokenizer, words)))


def joined(listed: Tensor, tokenizer: CaptionTokenizer, ids: Iterable[int]) -> Tensor:
    """A list (C,) of ids with others, sorted, and filled up as `widened` says."""
    missing = set(ids).difference(listed.tolist(), tokenizer.forbidden)
    if not missing:
        return listed
    known = missing.union(listed.tolist())
    # A BPE's pieces are numbered as they were learnt, the commonest first.
    others = [i for i in range(len(tokenizer)) if i not in known and i not in tokenizer.forbidden]
    return torch.tensor(sorted([*known, *others[: -len(known) % 16]]), device=listed.device)


def _writing(tokenizer: CaptionTokenizer, words: Iterable[str]) -> list[int]:
    """The ids that are words or their plurals."""
    pieces = (tokenizer.encode([form])[:-1] for word in words for form in (word, word + "s"))
    return [ids[0] for ids in pieces if len(ids) == 1]
