"""Which of the vocabulary's ids a search may write: the output layer is most of the work of a batch.

The short list of Jean et al. 2015, one for all pictures. Likelihood is that of the whole vocabulary, whatever is
written.
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
    for word in words:
        for form in (word, word + "s"):
            if len(ids := tokenizer.encode([form])) == 2:
                total[ids[0]] = np.inf
    total[[tokenizer.unk, tokenizer.eos, tokenizer.sep]] = np.inf
    likeliest = np.argsort(-total, kind="stable")[: min(size, len(total) - len(tokenizer.forbidden) + 1)]
    return torch.from_numpy(np.sort(likeliest))
