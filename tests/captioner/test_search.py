from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from captioner.captioner import Captioner
from captioner.search import Favour, Hypothesis, Lane, Rules, Search, conditioned, search, top_k


@pytest.fixture(scope="module")
def captioner(tiny_model: Path) -> Captioner:
    loaded = Captioner.load(tiny_model, device="cpu", threads=1)
    with torch.no_grad():
        for parameter in loaded.decoder.parameters():
            parameter.mul_(4)  # livelier than random weights are; a power of two stays exact in half precision
    return loaded


def grids(count: int, captioner: Captioner) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randn(count, 49, captioner.decoder.config.features, generator=generator)


def run(captioner: Captioner, grids: Tensor, how: Search, seeds: list[int]) -> list[list[Hypothesis]]:
    prefix = tuple(captioner.tokenizer.prefix("meme", 4))
    lanes = [Lane(i, prefix, how, seed) for i, seed in enumerate(seeds)]
    return search(captioner.decoder, captioner.rules, grids, lanes)


METHODS = [
    Search("sample", 8, 12),
    Search("sample", 4, 20, temperature=1.0),
    Search("beam", 4, 12),
    Search("greedy", steps=9),
]


@pytest.mark.parametrize("how", METHODS, ids=lambda how: f"{how.method}-{how.width}")
def test_a_batch_gives_what_its_pictures_give_alone(captioner: Captioner, how: Search) -> None:
    pictures = grids(5, captioner)
    together = run(captioner, pictures, how, [3, 1, 4, 1, 5])
    alone = [run(captioner, p[None], how, [s])[0] for p, s in zip(pictures, [3, 1, 4, 1, 5], strict=True)]
    assert together == alone


@pytest.mark.parametrize("how", METHODS, ids=lambda how: f"{how.method}-{how.width}")
def test_few_ids_to_write_are_enough(tiny_model: Path, how: Search) -> None:
    captioner = Captioner.load(tiny_model, device="cpu", threads=1)
    known = captioner.tokenizer
    words = [i for i, piece in enumerate(known.pieces(range(len(known)))) if piece.startswith("▁") and len(piece) > 2]
    listed = torch.tensor(sorted({known.eos, known.sep, known.unk, known.pad, *words[:6]}))
    captioner.decoder.shorten(listed)
    lane = Lane(0, tuple(known.prefix("meme", 4)), how, 1)
    rules = Rules(known, torch.device("cpu"), captioner.decoder.shortlist)
    (found,) = search(captioner.decoder, rules, grids(1, captioner), [lane])
    assert found
    assert all(set(h.ids) <= set(listed.tolist()) and h.logprob > -1e6 for h in found)


@given(st.integers(0, 2**63 - 1))
@settings(max_examples=15, deadline=None)
def test_the_same_seed_gives_the_same_answer(captioner: Captioner, seed: int) -> None:
    how = Search("sample", 4, 10)
    assert run(captioner, grids(1, captioner), how, [seed]) == run(captioner, grids(1, captioner), how, [seed])


def test_other_seeds_give_other_answers(captioner: Captioner) -> None:
    answers = {run(captioner, grids(1, captioner), Search("sample", 4, 10), [s])[0][0].ids for s in range(20)}
    assert len(answers) > 15


@given(st.integers(0, 10_000), st.sampled_from(METHODS), st.integers(1, 3), st.integers(1, 5))
@settings(max_examples=30, deadline=None)
def test_captions_are_distinct_finished_and_never_empty_or_unknown(
    captioner: Captioner, seed: int, how: Search, max_boxes: int, least: int
) -> None:
    how = replace(how, max_boxes=max_boxes, least=least)
    tokenizer = captioner.tokenizer
    for found in run(captioner, grids(2, captioner), how, [seed, seed + 1]):
        assert len({h.ids for h in found}) == len(found)
        assert len(found) == (1 if how.method == "greedy" else how.width)
        for hypothesis in found:
            assert hypothesis.ids[-1] == tokenizer.eos
            assert not set(hypothesis.ids) & set(tokenizer.forbidden)
            assert least < len(hypothesis.ids) <= how.steps
            assert 1 <= hypothesis.ids.count(tokenizer.sep) + 1 <= max_boxes
            boxes = tokenizer.decode(hypothesis.ids)
            assert boxes
            assert any(c.isalpha() for c in boxes[0])
            trigrams = list(zip(hypothesis.ids, hypothesis.ids[1:], hypothesis.ids[2:], strict=False))
            assert len(trigrams) == len(set(trigrams))


@pytest.mark.parametrize("how", METHODS, ids=lambda how: f"{how.method}-{how.width}")
def test_no_beam_reads_anothers_state(captioner: Captioner, how: Search) -> None:
    """The log-probability of every caption is what teacher forcing gives for it alone."""
    pictures = grids(3, captioner)
    prefix = captioner.tokenizer.prefix("meme", 4)
    for picture, found in zip(pictures, run(captioner, pictures, how, [1, 2, 3]), strict=True):
        for hypothesis in found:
            tokens = torch.tensor([prefix + list(hypothesis.ids[:-1])])
            with torch.inference_mode():
                logits = captioner.decoder(picture[None], tokens)[0, 1:]
            logits = logits.index_fill(-1, captioner.rules.forbidden, -torch.inf)
            logits[0] += captioner.rules.opening.log()
            before = torch.tensor(hypothesis.ids[:-1])
            logits[1:][before == captioner.tokenizer.sep] += captioner.rules.opening.log()
            full = torch.cumsum(before == captioner.tokenizer.sep, 0) >= how.max_boxes - 1
            logits[1:, captioner.tokenizer.sep][full] = -1e9
            logits[how.steps - 2 :, captioner.tokenizer.sep] = -1e9  # no step would be left to fill the box
            each = logits.log_softmax(-1).gather(1, torch.tensor(hypothesis.ids)[:, None])
            expected = each[: how.steps - 1].sum()  # an end that the last step forces costs nothing
            # Repeated trigrams are forbidden as well, which can only take probability from others.
            assert hypothesis.logprob == pytest.approx(float(expected), abs=0.05)


def test_beam_search_is_no_worse_than_greedy(captioner: Captioner) -> None:
    for seed in range(4):
        picture = grids(seed + 1, captioner)[-1:]
        greedy = run(captioner, picture, Search("greedy", steps=8), [0])[0][0]
        beam = run(captioner, picture, Search("beam", 8, steps=8), [0])[0]
        assert max(h.logprob for h in beam) >= greedy.logprob - 1e-4


def test_samples_follow_the_model() -> None:
    """Gumbel-top-1 under the parent's condition draws children as often as their probabilities say."""
    generator = torch.Generator().manual_seed(0)
    logp = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    uniform = torch.rand(20_000, 4, generator=generator)
    gumbels = logp - torch.log(-torch.log(uniform))
    drawn = conditioned(gumbels, torch.zeros(20_000, 1))
    assert torch.equal(drawn.amax(-1), torch.zeros(20_000))
    shares = torch.bincount(drawn.argmax(-1), minlength=4) / 20_000
    assert torch.allclose(shares, logp.exp(), atol=0.02)


@given(st.integers(0, 1000), st.integers(1, 40), st.sampled_from([64, 700, 1000, 1600, 8000]))
@settings(max_examples=40, deadline=None)
def test_top_k_is_exact(seed: int, k: int, size: int) -> None:
    values = torch.randn(3, size, generator=torch.Generator().manual_seed(seed))
    best, ids = top_k(values, k)
    assert torch.equal(best, values.topk(k).values)
    assert torch.equal(values.gather(1, ids), best)


def test_lanes_of_any_kind_run_together_as_alone(captioner: Captioner) -> None:
    pictures = grids(3, captioner)
    prefix = tuple(captioner.tokenizer.prefix("meme", 4))
    usual = [i for i in captioner.rules.ids.tolist() if i not in captioner.tokenizer.forbidden][:40]
    favour = tuple(Favour(i, i % 4, usual[0] if i % 3 == 1 else -1, i % 5 > 0) for i in usual)
    hows = [*METHODS, Search("sample", 3, 7, max_boxes=1)]
    leaning = torch.rand(len(captioner.rules.ids), generator=torch.Generator().manual_seed(0)).exp()
    lanes = [
        Lane(i % 3, prefix, how, i, 1.0 - i % 3 / 4, favour if i % 2 else (), leaning if i % 5 < 2 else None)
        for i, how in enumerate(hows * 2)
    ]
    for mixture in (captioner.mixture, None):
        together = search(captioner.decoder, captioner.rules, pictures, lanes, mixture)
        alone = [search(captioner.decoder, captioner.rules, pictures, [lane], mixture)[0] for lane in lanes]
        assert together == alone
        assert together[::-1] == search(captioner.decoder, captioner.rules, pictures, lanes[::-1], mixture)
        without = [replace(lane, favour=()) for lane in lanes]
        assert together != search(captioner.decoder, captioner.rules, pictures, without, mixture)


def test_favoured_words_come_up_more_often(captioner: Captioner) -> None:
    prefix = tuple(captioner.tokenizer.prefix("meme", 4))
    dog = captioner.tokenizer.encode(["dog"])[0]
    favour = (Favour(dog, 6.0),)
    how = Search("sample", 4, 10)
    lanes = [Lane(0, prefix, how, seed, favour=f) for seed in range(10) for f in (favour, ())]
    found = search(captioner.decoder, captioner.rules, grids(1, captioner), lanes)
    counts = [sum(dog in h.ids for h in hypotheses) for hypotheses in found]
    assert sum(counts[::2]) > sum(counts[1::2])


def test_a_favoured_word_is_held_back_once_it_was_written(captioner: Captioner) -> None:
    """Also one that is wanted so much that nothing else would come first."""
    prefix = tuple(captioner.tokenizer.prefix("meme", 4))
    dog = captioner.tokenizer.encode(["dog"])[0]
    how = Search("sample", 4, 12)
    lanes = [Lane(0, prefix, how, seed, favour=(Favour(dog, 9.0),)) for seed in range(20)]
    found = search(captioner.decoder, captioner.rules, grids(1, captioner), lanes)
    said = [h.ids.count(dog) for hypotheses in found for h in hypotheses]
    assert sum(count > 0 for count in said) > 0.9 * len(said)
    assert sum(count > 1 for count in said) < 0.1 * len(said)


def test_a_favoured_word_of_several_pieces_is_written_whole(captioner: Captioner) -> None:
    """Its beginning alone is neither what was wanted nor a reason to stop wanting it; pieces may be shared."""
    prefix = tuple(captioner.tokenizer.prefix("meme", 4))
    first, other, last = (captioner.tokenizer.encode([word])[0] for word in ("dog", "laser", "cat"))
    begins = Favour(first, 9.0, whole=False), Favour(other, 7.0, whole=False)
    favour = (*begins, Favour(last, 16.0, first), Favour(last, 16.0, other))
    how = Search("sample", 4, 14)
    lanes = [Lane(0, prefix, how, seed, favour=f) for seed in range(20) for f in (favour, begins)]
    found = search(captioner.decoder, captioner.rules, grids(1, captioner), lanes)
    words = {(first, last), (other, last)}
    told = [[pair in words for pair in pairwise(h.ids)] for hypotheses in found[::2] for h in hypotheses]
    assert sum(map(any, told)) > 0.9 * len(told)
    assert sum(sum(row) > 1 for row in told) < 0.1 * len(told)
    # Without an end of the word that is wanted, its beginning is wanted on and on.
    assert any(h.ids.count(first) + h.ids.count(other) > 3 for hypotheses in found[1::2] for h in hypotheses)


def test_a_lane_leans_to_what_is_made_likelier_and_others_do_not(captioner: Captioner) -> None:
    prefix = tuple(captioner.tokenizer.prefix("meme", 4))
    dog = captioner.tokenizer.encode(["dog"])[0]
    factors = torch.ones(len(captioner.rules.ids))
    factors[captioner.rules.column[dog]] = 200.0
    how = Search("sample", 4, 10)
    lanes = [Lane(0, prefix, how, seed, leaning=by) for seed in range(10) for by in (factors, None)]
    found = search(captioner.decoder, captioner.rules, grids(1, captioner), lanes, captioner.mixture)
    counts = [sum(dog in h.ids for h in hypotheses) for hypotheses in found]
    assert sum(counts[::2]) > sum(counts[1::2])
    without = [replace(lane, leaning=None) for lane in lanes]
    plain = search(captioner.decoder, captioner.rules, grids(1, captioner), without, captioner.mixture)
    assert found[1::2] == plain[1::2]
    even = [replace(lane, leaning=torch.ones_like(factors)) for lane in lanes]
    assert search(captioner.decoder, captioner.rules, grids(1, captioner), even, captioner.mixture) == plain


def test_a_separator_is_never_the_last_word(captioner: Captioner) -> None:
    """Where it could be, no step would be left to fill the box, and the caption could not end."""
    favour = (Favour(captioner.tokenizer.sep, 12.0),)
    prefix = tuple(captioner.tokenizer.prefix("meme", 4))
    for method in ("sample", "beam", "greedy"):
        how = Search(method, 4, steps=6, max_boxes=4, least=5)
        lanes = [Lane(0, prefix, how, seed, favour=favour) for seed in range(20)]
        for found in search(captioner.decoder, captioner.rules, grids(1, captioner), lanes):
            assert found
            assert {h.ids[-1] for h in found} == {captioner.tokenizer.eos}
            assert all(h.ids[-2] != captioner.tokenizer.sep for h in found)


def test_an_early_end_keeps_the_best(captioner: Captioner) -> None:
    """Ended early, a beam search gives some of what it gives in full, or what outranked it when it ended."""
    favour = (Favour(captioner.tokenizer.eos, 8.0),)
    prefix = tuple(captioner.tokenizer.prefix("describe"))
    full = Search("beam", 4, 16, max_boxes=1)
    lanes = [Lane(i, prefix, how, 0, favour=favour) for i in range(6) for how in (full, replace(full, early=True))]
    found = search(captioner.decoder, captioner.rules, grids(6, captioner), lanes)
    assert any(len(early) < len(whole) for whole, early in zip(found[::2], found[1::2], strict=True))
    for whole, early in zip(found[::2], found[1::2], strict=True):
        assert 1 <= len(early) <= len(whole)
        assert max(h.score for h in early) in {h.score for h in whole}
