"""Words that a picture shows, and the voice that a text is in."""

from collections import Counter

import numpy as np
import pytest
import torch

from captioner.keywords import Keywords
from captioner.voice import Voice

KNOWN = frozenset({"dog", "boat"})


def views(count: int) -> tuple[np.ndarray, list[Counter[str]]]:
    """Grids whose first feature says dog and whose second says boat, and how often people said so."""
    rng = np.random.default_rng(0)
    grids = rng.normal(0, 0.1, (count, 4, 6)).astype(np.float16)
    seen = []
    for i, grid in enumerate(grids):
        grid[:, i % 2] += 2
        seen.append(Counter({("dog", "boat")[i % 2]: 3, "sky": 5, "hat": 1}))
    return grids, seen


def test_words_are_read_off_the_grid() -> None:
    grids, seen = views(80)
    state = torch.get_rng_state()
    model = Keywords.fit(grids, seen, KNOWN, seed=1)
    assert torch.equal(state, torch.get_rng_state())  # others' randomness is left alone
    assert model.words == ["boat", "dog"]
    with torch.inference_mode():
        chances = model(torch.from_numpy(grids).float())
    assert (chances[::2, 1] > 0.9).all()
    assert (chances[1::2, 1] < 0.1).all()


def test_too_few_photographs_teach_no_words() -> None:
    grids, seen = views(6)
    with pytest.raises(ValueError, match="too few"):
        Keywords.fit(grids, seen, KNOWN, seed=1)


def test_a_voice_is_told_by_its_words() -> None:
    voice = Voice.fit([[1, 2, 3], [1, 2, 4]] * 20, [[5, 6, 3], [5, 6, 4]] * 20, 8)
    assert voice.score([1, 2, 3]) > voice.score([3, 4]) > voice.score([5, 6, 3])
    assert max(voice.score(ids) for ids in ([], [1, 2], [1, 2, 1, 2])) < 0
    assert voice.score([1, 1, 1]) == voice.score([1])
    assert voice.score([5, 6] * 50) > -20
