"""Captions to token ids and back: an 8k BPE with byte fallback, so that no text is ever unknown.

A vocabulary of whole words, as the captioners of the literature have, is the other choice; it spells all others.

A caption's ids are ``style vote text [sep text …] eos``. The first two tell what is asked for; decoding forbids
everything that is no text.
"""

import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from itertools import chain

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

PAD, EOS, SEP, UNK = "<pad>", "<eos>", "<sep>", "<unk>"
STYLES = ("meme", "describe")
VOTES = 5
"""Buckets of the vote percentile, 0 the least liked fifth; one more token says that the votes are unknown."""
SPECIALS = [PAD, EOS, SEP, UNK, *(f"<{s}>" for s in STYLES), *(f"<v{i}>" for i in range(VOTES)), "<v?>"]
_ALPHABET = 160
"""Characters with a piece of their own; the others are written in bytes."""
_FEW = 32
"""Captions that are encoded one by one."""
_BYTES = [f"<0x{b:02X}>" for b in range(256)]
_QUOTES = str.maketrans("‘’‚‛“”„‟´`…–—▁", "''''\"\"\"\"''.--_")  # the last one marks a space among pieces
_INVISIBLE = re.compile(r"[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff\ufffd\x00-\x08\x0e-\x1f\x7f-\x9f]")
_SPECIAL = re.compile("|".join(map(re.escape, SPECIALS)) + "|<0x[0-9a-f]{2}>")


def normalise(text: str) -> str:
    """Text as the model sees it: NFKC, lower case, plain quotes, single spaces, nothing invisible."""
    text = unicodedata.normalize("NFKC", text.replace("…", "...")).translate(_QUOTES).lower()
    text = _SPECIAL.sub(" ", _INVISIBLE.sub("", text))
    return " ".join(text.encode("utf-8", "ignore").decode().split())


class CaptionTokenizer:
    """Wraps a `tokenizers.Tokenizer`; `to_json` and the constructor round-trip it."""

    def __init__(self, serialised: str) -> None:
        self._serialised = serialised
        try:
            self._tokenizer = Tokenizer.from_str(serialised)
        except Exception as error:  # the library raises nothing narrower
            raise ValueError(f"the tokenizer cannot be read: {error}") from error
        self.pad, self.eos, self.sep, self.unk = (self._id(s) for s in SPECIALS[:4])

    @classmethod
    def train(cls, texts: Sequence[str], size: int = 8000) -> "CaptionTokenizer":
        """Learns `size` pieces, the special tokens and the 256 bytes counted in, from normalised texts."""
        counts = Counter(chain.from_iterable(texts))
        # Ours to choose: the library breaks ties at its own limit differently from run to run.
        alphabet = [c for c, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))][:_ALPHABET]
        bpe = Tokenizer(models.BPE(unk_token=UNK, byte_fallback=True, fuse_unk=False))
        digits_alone = pre_tokenizers.Split(Regex(r"\d|[^\w\s▁']"), "isolated")
        bpe.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), digits_alone])
        bpe.normalizer = normalizers.Sequence([])
        bpe.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(), decoders.Fuse()])
        # The bytes join as ordinary pieces in place of the rarest learnt ones, since the trainer knows nothing of them.
        trainer = trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=SPECIALS + _BYTES,
            initial_alphabet=["▁", *alphabet],
            limit_alphabet=len(alphabet) + 1,
            min_frequency=3,
            show_progress=False,
        )
        bpe.train_from_iterator(texts, trainer)
        plain = [t for t in bpe.get_added_tokens_decoder().values() if t.content in _BYTES]
        return cls(_without_added(bpe.to_str(), {t.content for t in plain}))

    @classmethod
    def of_words(cls, texts: Sequence[str], least: int = 5) -> "CaptionTokenizer":
        """Whole words that stand in normalised texts `least` times; others are spelled in characters or bytes."""
        split = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), _punctuation_alone()])
        counts = Counter(piece for text in texts for piece, _ in split.pre_tokenize_str(text))
        characters = Counter(chain.from_iterable(texts))
        alphabet = [c for c, _ in sorted(characters.items(), key=lambda item: (-item[1], item[0])) if c != " "]
        known = sorted(p for p, count in counts.items() if count >= least and len(p) > 1)
        # A whole word is always likelier than its letters, and letters than bytes.
        scores = [(s, -300.0) for s in SPECIALS] + [(b, -200.0) for b in _BYTES]
        scores += [(c, -100.0) for c in ["▁", *alphabet[:_ALPHABET]]]
        scores += [(p, math.log(counts[p] / counts.total())) for p in known]
        words = Tokenizer(models.Unigram(scores, SPECIALS.index(UNK), byte_fallback=True))
        words.pre_tokenizer = split
        words.normalizer = normalizers.Sequence([])
        words.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(), decoders.Fuse()])
        words.add_special_tokens(SPECIALS)
        return cls(words.to_str())

    def to_json(self) -> str:
        return self._serialised

    def __len__(self) -> int:
        return int(self._tokenizer.get_vocab_size())

    @cached_property
    def forbidden(self) -> list[int]:
        """Ids that generation never writes: everything that is no text, and raw bytes, which could break characters.

        Nor, with a vocabulary of words, the letters that unknown ones are spelled with.
        """
        never = [self._id(s) for s in SPECIALS if s not in (EOS, SEP)] + [self._id(b) for b in _BYTES]
        if isinstance(self._tokenizer.model, models.Unigram):
            pieces = self.pieces(range(len(self)))
            never += [i for i, p in enumerate(pieces) if p == "▁" or (len(p) == 1 and p.isalnum())]
        return never

    def prefix(self, style: str, vote: int | None = None) -> list[int]:
        """The two ids that say what is asked: the style, and the vote bucket or unknown. Raises ValueError."""
        if style not in STYLES:
            raise ValueError(f"There is no style {style}.")
        bucket = "<v?>" if vote is None else f"<v{vote}>"
        return [self._id(f"<{style}>"), self._id(bucket)]

    def encode(self, boxes: Sequence[str]) -> list[int]:
        """Normalised boxes to ids, separators between and the end included."""
        ids: list[int] = []
        for i, box in enumerate(boxes):
            ids += ([self.sep] if i else []) + self._tokenizer.encode(box).ids
        return [*ids, self.eos]

    def encode_batch(self, captions: Sequence[Sequence[str]]) -> list[list[int]]:
        """`encode` of many captions, in parallel; for a few, waking other threads would take longer than the work."""
        if len(captions) <= _FEW:
            return [self.encode(boxes) for boxes in captions]
        flat = self._tokenizer.encode_batch_fast([box for boxes in captions for box in boxes])
        pieces = iter(flat)
        result = []
        for boxes in captions:
            ids: list[int] = []
            for i in range(len(boxes)):
                ids += ([self.sep] if i else []) + next(pieces).ids
            result.append([*ids, self.eos])
        return result

    def decode(self, ids: Sequence[int]) -> tuple[str, ...]:
        """Ids (without the prefix) to boxes; stops at the end, leaves empty boxes out."""
        boxes: list[list[int]] = [[]]
        for i in ids:
            if i == self.eos:
                break
            if i == self.sep:
                boxes.append([])
            else:
                boxes[-1].append(i)
        texts = (" ".join(self._tokenizer.decode(box, skip_special_tokens=True).split()) for box in boxes)
        return tuple(text for text in texts if text)

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The piece of every id, `▁` marking the start of a word."""
        return [self._tokenizer.id_to_token(i) or "" for i in ids]

    def _id(self, piece: str) -> int:
        found = self._tokenizer.token_to_id(piece)
        if found is None:
            raise ValueError(f"The tokenizer lacks {piece}.")
        return int(found)


def _punctuation_alone() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Split(Regex(r"[^\w\s▁']"), "isolated")


def _without_added(serialised: str, names: set[str]) -> str:
    """The tokenizer with these tokens as ordinary vocabulary: the model's byte fallback finds them, text does not."""
    state = json.loads(serialised)
    state["added_tokens"] = [t for t in state["added_tokens"] if t["content"] not in names]
    return json.dumps(state, ensure_ascii=False, separators=(",", ":"))
