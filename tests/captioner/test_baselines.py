import numpy as np
import pytest
import torch

from captioner.baselines import BASELINES, NearestNeighbour, Pictures, SlotTemplates

PLACES, SIZE = 4, 8


def grids(kinds: list[int]) -> np.ndarray:
    """Pictures of a kind point one way."""
    rng = np.random.default_rng(0)
    made = rng.normal(0, 0.1, (len(kinds), PLACES, SIZE))
    for picture, kind in zip(made, kinds, strict=True):
        picture[:, kind] += 3
    return made.astype(np.float16)


def captions(kind: int) -> list[str]:
    thing, place = [("dog", "grass"), ("boat", "water"), ("climber", "rock")][kind]
    return [
        f"a {thing} is on the {place}",
        f"a {thing} is on the {place} now",
        f"one {thing} on {place}",
        "nothing to be seen",
        f"a {thing} is near the {place}",
    ]


@pytest.fixture(scope="module")
def known() -> Pictures:
    kinds = [i % 3 for i in range(60)]
    return Pictures(grids(kinds), [captions(k) for k in kinds], of_their_own=False)


def grid(kind: int) -> torch.Tensor:
    return torch.from_numpy(grids([kind])[0])


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize(("kind", "words"), [(0, {"dog", "grass"}), (1, {"boat", "water"}), (2, {"climber", "rock"})])
def test_what_is_seen_is_named(known: Pictures, name: str, kind: int, words: set[str]) -> None:
    assert words <= set(BASELINES[name](known).caption(grid(kind)).split())


def test_the_nearest_pictures_caption_that_others_agree_with_is_taken(known: Pictures) -> None:
    baseline = NearestNeighbour(known)
    assert baseline.caption(grid(0)) == "a dog is on the grass"
    agreement = baseline._agreement(["a dog is on the grass", "a dog is on the grass now", "nothing to be seen"])
    assert agreement.argmin() == 2


def test_slots_are_filled_with_words_of_their_own_place_and_none_twice(known: Pictures) -> None:
    said = SlotTemplates(known).caption(grid(2)).split()
    assert said.index("climber") < said.index("rock")
    assert len({w for w in said if w in ("climber", "rock")}) == said.count("climber") + said.count("rock")


def test_a_template_has_its_own_sentences() -> None:
    kinds = [i % 2 for i in range(40)]
    said = [["one does not simply walk the dog"] * 3, ["what if the dog told you"] * 3]
    known = Pictures(grids(kinds), [said[k] for k in kinds], of_their_own=True)
    baseline = SlotTemplates(known)
    assert baseline.caption(grid(0)) == "one does not simply walk the dog"
    assert baseline.caption(grid(1)) == "what if the dog told you"


def test_captions_that_agree_on_nothing_are_refused() -> None:
    known = Pictures(grids([0, 1]), [["a b"], ["c d"]], of_their_own=False)
    with pytest.raises(ValueError, match="too few"):
        SlotTemplates(known)
