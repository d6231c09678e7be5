import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioner.tokenizer import SPECIALS, CaptionTokenizer, normalise
from tests.conftest import TEXTS


@pytest.fixture(scope="module")
def tokenizer() -> CaptionTokenizer:
    return CaptionTokenizer.train(TEXTS * 3, 700)


boxes = st.lists(st.text(max_size=40).map(normalise).filter(bool), min_size=1, max_size=4).map(tuple)


@given(boxes)
def test_any_text_comes_back_and_nothing_is_unknown(tokenizer: CaptionTokenizer, boxes: tuple[str, ...]) -> None:
    ids = tokenizer.encode(boxes)
    assert tokenizer.decode(ids) == boxes
    assert tokenizer.unk not in ids
    assert ids[-1] == tokenizer.eos
    assert ids.count(tokenizer.sep) == len(boxes) - 1


@given(st.lists(boxes, min_size=1, max_size=5))
def test_a_batch_is_encoded_as_its_captions(tokenizer: CaptionTokenizer, batch: list[tuple[str, ...]]) -> None:
    assert tokenizer.encode_batch(batch) == [tokenizer.encode(b) for b in batch]


@given(st.text())
def test_normalising_twice_changes_nothing(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


@pytest.mark.parametrize("special", [*SPECIALS, "<0x41>"])
def test_a_user_cannot_type_a_special_token(tokenizer: CaptionTokenizer, special: str) -> None:
    assert special not in normalise(f"a {special.upper()} b")
    assert len(set(tokenizer.encode([normalise(f"a {special} b")])) & set(tokenizer.forbidden)) == 0


def test_it_survives_its_file(tokenizer: CaptionTokenizer) -> None:
    again = CaptionTokenizer(tokenizer.to_json())
    assert len(again) == len(tokenizer) <= 700
    assert again.encode(TEXTS) == tokenizer.encode(TEXTS)


def test_training_is_repeatable_where_rare_characters_tie() -> None:
    texts = [f"{chr(0x4E00 + i)} common words" for i in range(400)]
    assert len({CaptionTokenizer.train(texts, 500).to_json() for _ in range(4)}) == 1


def test_styles_and_votes_are_tokens(tokenizer: CaptionTokenizer) -> None:
    prefixes = {tuple(tokenizer.prefix(s, v)) for s in ("meme", "describe") for v in (None, 0, 4)}
    assert len(prefixes) == 6
    with pytest.raises(ValueError, match="no style"):
        tokenizer.prefix("haiku")


WORDS = CaptionTokenizer.of_words(["a dog runs , fast", "a dog's 30 bones"] * 5 + ["the zebra"], 5)


def test_a_vocabulary_of_words_keeps_frequent_words_whole_and_spells_the_others() -> None:
    assert " ".join(WORDS.pieces(WORDS.encode(["a dog's bones, 30"]))) == "▁a ▁dog's ▁bones , ▁30 <eos>"
    assert " ".join(WORDS.pieces(WORDS.encode(["zebra"]))) == "▁ z e b r a <eos>"


@given(boxes)
def test_a_vocabulary_of_words_loses_nothing(boxes: tuple[str, ...]) -> None:
    ids = WORDS.encode(boxes)
    assert WORDS.unk not in ids
    assert WORDS.decode(ids) == boxes
    assert WORDS.encode_batch([boxes]) == [ids]


def test_a_vocabulary_of_words_writes_no_letters() -> None:
    allowed = WORDS.pieces(sorted(set(range(len(WORDS))) - set(WORDS.forbidden)))
    assert {p for p in allowed if len(p) == 1} == {",", "'"}
    assert {"▁a", "▁dog", "▁dog's", "▁30", "<eos>"} <= set(allowed)
    assert CaptionTokenizer(WORDS.to_json()).forbidden == WORDS.forbidden
