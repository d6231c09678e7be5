import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioner import metrics, outside_metrics

CANDIDATES = ["a dog runs through the green grass", "two men stand on a beach", "a girl"]
REFERENCES = [
    ["a brown dog is running through the grass", "the dog runs across a green field"],
    ["two people are standing on the beach", "two men on a sandy beach"],
    ["a little girl climbs the stairs", "a child in a pink dress"],
]
SPLIT = [c.split() for c in CANDIDATES], [[r.split() for r in refs] for refs in REFERENCES]

PYCOCO = {"bleu": [71.48664, 42.72144, 0.00025, 0.0], "rouge_l": 65.02424, "cider_d": 149.98109}


def test_figures_are_pycocoevalcaps() -> None:
    """Numbers printed by pycocoevalcap 1.2 for the same sentences."""
    assert metrics.bleu(*SPLIT) == pytest.approx(PYCOCO["bleu"], abs=1e-3)
    assert metrics.rouge_l(*SPLIT) == pytest.approx(PYCOCO["rouge_l"], abs=1e-3)
    assert metrics.cider_d(*SPLIT) == pytest.approx(PYCOCO["cider_d"], abs=1e-3)


def test_meteor_is_nltks_where_it_is_installed() -> None:
    """NLTK 3.10 with WordNet 3.0. Java's gave 27.51234 percent for the same sentences, as by pycocoevalcap 1.2, but
    starts too slowly for a test."""
    assert outside_metrics.meteor_1_0(*SPLIT) in (None, pytest.approx(52.29603, abs=1e-3))


def test_without_java_its_metrics_are_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert outside_metrics.meteor_1_5(*SPLIT) is None
    assert outside_metrics.spice(*SPLIT) is None


words = st.lists(st.sampled_from(["a", "dog", "runs", "on", "the", "beach", "two"]), min_size=1, max_size=12)


@given(words)
def test_a_copy_of_the_reference_is_perfect_and_silence_worthless(tokens: list[str]) -> None:
    assert metrics.rouge_l([tokens], [[tokens]]) == pytest.approx(100)
    assert metrics.bleu([tokens], [[tokens]])[0] == pytest.approx(100)
    assert metrics.bleu([[]], [[tokens]]) == [0, 0, 0, 0]
    assert metrics.rouge_l([[]], [[tokens]]) == 0


@given(st.lists(words, min_size=2, max_size=6))
def test_repeating_captions_lowers_distinct_and_raises_self_bleu(captions: list[list[str]]) -> None:
    assert metrics.distinct(captions * 2, 1) == pytest.approx(metrics.distinct(captions, 1) / 2)
    assert metrics.self_bleu([captions[0]] * 3) >= metrics.self_bleu(captions[:1] * 1)
