"""Objects: what a photograph shows that descriptions never taught, and what becomes of that."""

import re
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import get_data_path
from PIL import Image
from torch import Tensor

from captioner.captioner import Captioner, Wish
from captioner.checkpoint import Checkpoint
from captioner.encoders import build
from captioner.images import Picture, to_jpeg
from captioner.objects import Objects, Shown, animals, classes, named, names, together, usual, vocabulary
from captioner.ranking import Caption
from captioner.seeing import Seen
from tests.pictures import clock

chances = st.floats(0.0, 1.0)
words = st.dictionaries(st.sampled_from(["cat", "dog", "grass", "cup"]), chances)


def officer() -> Image.Image:
    """A portrait of Grace Hopper in uniform, which comes with matplotlib."""
    return Image.open(Path(get_data_path()) / "sample_data" / "grace_hopper.jpg").convert("RGB")


@torch.inference_mode()
def seen(objects: Objects, image: Image.Image) -> Tensor:
    encoder = build()
    found: Tensor = objects(encoder.halfway(encoder.pixels([image])))[0]
    return found


@pytest.fixture(scope="module")
def shipped() -> Captioner:
    return Captioner.load(device="cpu", threads=1)


def test_words_name_classes_and_most_classes_have_one() -> None:
    assert len(classes()) == len(set(classes())) == 1000
    for word, places in vocabulary().items():
        assert word.isalpha()
        assert places
    assert len({place for places in vocabulary().values() for place in places}) > 700


def test_nobody_is_called_an_ape() -> None:
    """Networks have taken people for them; such a word would be the worst that could be said."""
    apes = range(classes().index("orangutan"), classes().index("indri") + 1)
    assert not [word for word, places in vocabulary().items() if set(places) & set(apes)]


@pytest.mark.parametrize(
    "line", ["cat: tabby, nothing", "cat: tabby .. nothing", "cat: Egyptian cat .. tabby", "cat: "]
)
def test_a_class_that_nobody_knows_is_told_by_its_word(line: str) -> None:
    with pytest.raises(ValueError, match="cat names no classes"):
        named(line, classes())


def test_a_run_of_classes_is_those_from_the_first_to_the_last() -> None:
    found = named("# what is this\n\ncat: tabby .. Egyptian cat\nclock: wall clock, analog clock\n", classes())
    assert [classes()[i] for i in found["cat"]] == ["tabby", "tiger cat", "Persian cat", "Siamese cat", "Egyptian cat"]
    assert [classes()[i] for i in found["clock"]] == ["analog clock", "wall clock"]


def test_real_pictures_are_told_by_the_words_of_their_objects() -> None:
    objects = Objects()
    words = objects.shown(seen(objects, clock())).words
    assert max(words, key=lambda word: words[word]) in ("clock", "time")
    words = objects.shown(seen(objects, officer())).words
    assert max(words, key=lambda word: words[word]) in ("army", "soldier")


def test_a_picture_is_strange_beside_others_and_usual_among_its_like(tmp_path: Path) -> None:
    clock().save(tmp_path / "clock.png")
    officer().save(tmp_path / "officer.png")
    assert not Objects().shown(seen(Objects(), clock())).strange  # where nothing is known of what is usual
    clocks, officers = (usual([tmp_path / f"{name}.png"]) for name in ("clock", "officer"))
    assert float(clocks.sum()) == pytest.approx(1, abs=1e-4)
    assert Objects(officers).shown(seen(Objects(), clock())).strange == 1
    assert Objects(clocks).shown(seen(Objects(), clock())).strange == 0


@given(words, words, chances)
def test_chances_stay_chances_and_what_is_taught_counts_less_on_strange_pictures(
    taught: dict[str, float], shown: dict[str, float], strange: float
) -> None:
    found = together(taught, Shown(shown, strange))
    assert found.keys() == taught.keys() | shown.keys()
    assert all(0 <= chance <= 1 for chance in found.values())
    for word in taught.keys() - shown.keys():
        assert found[word] == pytest.approx(taught[word] * (1 - strange))
    for word in shown.keys() - taught.keys():
        assert found[word] >= strange * shown[word]


@given(words, chances, chances, chances)
def test_the_surer_an_object_is_the_likelier_its_word(
    taught: dict[str, float], one: float, other: float, strange: float
) -> None:
    low, high = (together(taught, Shown({"cat": chance}, strange))["cat"] for chance in sorted((one, other)))
    assert low <= high


def test_one_word_of_several_for_a_thing_and_the_particular_one() -> None:
    assert names({"food": 0.7, "fruit": 0.65, "apple": 0.6}) == ["apple"]
    assert names({"food": 0.9, "fruit": 0.5, "apple": 0.2}) == ["food", "fruit", "apple"]
    assert len(names({"rabbit": 0.8, "bunny": 0.8})) == 1
    assert names({"cat": 0.8, "cup": 0.9}) == ["cup", "cat"]
    assert names({"grass": 0.8, "cat": 0.9}) == ["cat", "grass"]  # what only descriptions teach
    assert names({}) == []


def test_where_somebody_is_no_animal_is_named(shipped: Captioner, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {"bird", "snake", "dog", "bug"} <= animals()
    assert not {"hat", "boat", "people"} & animals()
    assert shipped.sight.keywords
    assert shipped.sight.objects
    grid = torch.zeros(1, 49, 384)
    snake = torch.zeros(1, 1000)
    snake[0, classes().index("green snake")] = 1
    said = torch.full((1, len(shipped.sight.keywords.words)), 0.01)
    monkeypatch.setattr(type(shipped.sight.keywords), "forward", lambda *_: said)
    assert "snake" in shipped.sight.words(grid, snake)[1]
    said[0, shipped.sight.keywords.words.index("smiling")] = 0.9
    assert "snake" not in shipped.sight.words(grid, snake)[1]
    said[0, shipped.sight.keywords.words.index("horse")] = 0.2
    assert shipped.naming.spelled("horse") not in shipped.sight.see(grid, "meme", "", "normal", lambda: snake).chances
    said[0, shipped.sight.keywords.words.index("dog")] = 0.9
    assert "dog" in shipped.sight.words(grid, snake)[1]


@pytest.mark.parametrize(("chance", "told"), [(0.3, "maybe flower"), (0.05, "something unfamiliar")])
def test_alt_text_of_what_is_surely_strange_says_nothing_false(
    shipped: Captioner, monkeypatch: pytest.MonkeyPatch, chance: float, told: str
) -> None:
    """Who asks for a description gets a sentence all the same."""
    assert shipped.sight.keywords
    doubtful = torch.full((1, len(shipped.sight.keywords.words)), 0.01)
    doubtful[0, [shipped.sight.keywords.words.index(word) for word in ("red", "shirt")]] = 0.95
    monkeypatch.setattr(type(shipped.sight.keywords), "forward", lambda *_: doubtful)
    nameless = slice(classes().index("orangutan"), classes().index("indri") + 1)
    seen = torch.zeros(1, 1000)
    seen[0, nameless] = (1 - chance) / (nameless.stop - nameless.start)
    seen[0, classes().index("daisy")] = chance
    wishes = [Wish(n=1), Wish("describe", "beam", 1)]
    meme, described = shipped.decode(torch.zeros(2, 49, 384), wishes, [1, 2], None, lambda _: seen)
    assert meme.description == told
    assert len(described.description.split()) > 3


def test_nobody_on_a_photograph_is_called_an_ape(shipped: Captioner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Descriptions of children on monkey bars taught the word."""
    assert shipped.sight.keywords
    said = torch.full((1, len(shipped.sight.keywords.words)), 0.01)
    said[0, [shipped.sight.keywords.words.index(word) for word in ("monkey", "dog")]] = 0.9
    monkeypatch.setattr(type(shipped.sight.keywords), "forward", lambda *_: said)
    seen = shipped.sight.see(torch.zeros(1, 49, 384), "meme", "", "normal", lambda: None)
    assert shipped.naming.spelled("dog") in seen.chances
    assert shipped.naming.spelled("monkey") not in seen.chances
    posted = shipped.sight.see(torch.zeros(1, 49, 384), "meme", "my monkeys and a dog", "normal", lambda: None).posted
    assert list(posted) == shipped.naming.forms("dog"), "nor because somebody wrote it beside the photograph"
    captions = [Caption((text,), -1.0, None, -1.0) for text in ("a monkey here", "dog the dog dog dog my")]
    ape, worse = (c.score for c in shipped.ranker.judged(captions, seen, ""))
    assert ape < worse
    on_template = shipped.ranker.judged(captions, Seen(("monkey-puppet", 1.0), False), "")
    assert on_template[0].score > ape + 20


def test_what_a_level_refuses_is_not_wanted(shipped: Captioner) -> None:
    grid = torch.zeros(1, 49, 384)
    gun = torch.zeros(1, 1000)
    gun[0, classes().index("revolver")] = 1
    word = shipped.naming.spelled("gun")
    found = {level: shipped.sight.see(grid, "meme", "", level, lambda: gun) for level in ("normal", "strict")}
    assert word in found["normal"].chances
    assert word not in found["strict"].chances
    for level in ("normal", "strict"):
        made = shipped.decode(grid, [Wish(n=3, filter=level)], [1], None, lambda _: gun)[0]
        assert len(made.captions) == 3


def test_memes_and_descriptions_name_what_is_no_photograph_of_people_outdoors(shipped: Captioner) -> None:
    picture = shipped.read(to_jpeg(clock()))
    meme, told = shipped.caption([(picture, Wish(seed=1)), (picture, Wish("describe", "beam", 1))])
    said = {word for caption in meme.captions for box in caption.boxes for word in re.findall(r"\w+", box)}
    assert said & {"clock", "clocks", "time", "times"}
    assert told.description in ("clock", "time")
    assert meme.description == told.description
    assert [caption.boxes for caption in told.captions] == [(told.description,)]
    assert "man" not in told.description.split()


def test_on_templates_nobody_asks_for_objects(shipped: Captioner, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shipped.sight.templates
    asked: list[int] = []

    def objects(place: int) -> Tensor | None:
        asked.append(place)
        return None

    grid = torch.randn(1, 49, 384, generator=torch.Generator().manual_seed(0))
    shipped.decode(grid, [Wish(n=1)], [0], None, objects)
    assert asked == [0]
    name = shipped.sight.templates.names[0]
    monkeypatch.setattr(type(shipped.sight.templates), "recognise", lambda self, grids: [(name, 0.9)] * len(grids))
    shipped.decode(grid, [Wish(n=1)], [0], None, objects)
    assert asked == [0]


def test_what_is_usual_stays_with_the_model(tiny_model: Path, tmp_path: Path) -> None:
    checkpoint = Checkpoint.load(tiny_model)
    assert checkpoint.usual is None
    checkpoint.usual = torch.rand(1000)
    checkpoint.save(tmp_path / "model.safetensors", compact=True)
    kept = Checkpoint.load(tmp_path / "model.safetensors").usual
    assert kept is not None
    assert torch.equal(kept, checkpoint.usual)


def test_pictures_in_a_batch_show_what_they_show_alone(shipped: Captioner) -> None:
    jobs: list[tuple[Picture, Wish]] = [(shipped.read(to_jpeg(p)), Wish(n=1)) for p in (clock(), officer(), clock())]
    assert shipped.caption(jobs) == [shipped.caption([job])[0] for job in jobs]
