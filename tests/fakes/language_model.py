"""A language model of two layers that has learnt nothing, in the files that transformers saves and loads."""

from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import ByteLevelBPETokenizer
from tokenizers.processors import TemplateProcessing
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast


def language_model(folder: Path, captions: Sequence[Sequence[str]], *, marks: bool = False) -> Path:
    """Writes one whose tokenizer knows the words of the captions; gives the folder.

    With `marks` the tokenizer puts one before whatever it is given, as many do.
    """
    pieces = ByteLevelBPETokenizer()
    texts = [" / ".join(boxes) + "\n" for boxes in captions] * 3
    pieces.train_from_iterator(texts, 400, min_frequency=2, special_tokens=["<s>"])
    if marks:
        pieces.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    pieces.save(str(folder / "tokenizer.json"))
    bos = "<s>" if marks else None
    PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), bos_token=bos).save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=pieces.get_vocab_size(), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    return folder
