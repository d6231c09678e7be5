import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from captioner import filter as block
from captioner.aptness import Aptness
from captioner.captioner import Captioner, ModelError, Wish
from captioner.checkpoint import Checkpoint
from captioner.data import fingerprint
from captioner.filter import BlockList
from captioner.images import Picture, to_jpeg
from captioner.ranking import Caption, Ranking, _again
from captioner.residual import Residual
from captioner.seeing import Seen, Sight, posted_words


@pytest.fixture(scope="module")
def captioner(tiny_model: Path) -> Captioner:
    return Captioner.load(tiny_model, device="cpu", threads=1, max_side=300)


def picture(captioner: Captioner, seed: int, size: tuple[int, int] = (120, 80)) -> Picture:
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    return captioner.read(to_jpeg(Image.fromarray(pixels).resize(size)))


def test_a_batch_is_captioned_as_its_pictures_alone(captioner: Captioner) -> None:
    jobs = [
        (picture(captioner, 1), Wish(seed=5)),
        (picture(captioner, 2, (33, 200)), Wish(seed=5, n=6)),
        (picture(captioner, 3), Wish("describe", "beam", 1)),
        (picture(captioner, 7), Wish("describe", "beam", 2)),
        (picture(captioner, 4), Wish(seed=2, context="the laser pointer")),
        (picture(captioner, 5), Wish(search="greedy", n=1)),
        (picture(captioner, 6), Wish(seed=5, explore=True)),
    ]
    together = captioner.caption(jobs)
    assert together == [captioner.caption([job])[0] for job in jobs]
    assert together == captioner.caption(jobs[::-1])[::-1]


def test_captions_come_best_first_distinct_and_as_many_as_asked(captioner: Captioner) -> None:
    for n in (1, 3, 10):
        captions = captioner.caption([(picture(captioner, n), Wish(seed=n, n=n))])[0].captions
        assert len(captions) == n
        assert len({c.boxes for c in captions}) == n
        assert [c.score for c in captions] == sorted((c.score for c in captions), reverse=True)


def test_one_seed_makes_another_joke_of_another_picture(captioner: Captioner) -> None:
    made = captioner.caption([(picture(captioner, s), Wish(seed=1)) for s in range(6)])
    assert len({m.captions[0].boxes for m in made}) > 4


def test_what_is_seen_is_named_once(captioner: Captioner) -> None:
    words = [w for w in ("picture", "nobody", "brain", "shirt", "red", "man") if len(captioner.naming.forms(w)) > 0]
    here, there, other, more = words[:4]
    seen = Seen(None, False, chances={i: 0.9 for word in (here, there) for i in captioner.naming.forms(word)})

    def score(*said: str) -> float:
        return captioner.ranker._score(Caption((" ".join(said),), -1.0, None, -1.0), 0.0, seen, set())

    assert score(here, other) > score(other, more)
    assert score(here, other) > score(here, other, here)
    assert score(here, there) == score(here, other)


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ("good dog here", "dog dog here"),
        ("i see the dog", "i see dog the"),
        ("who knows where this is from?", "who knows where from this my..."),
        ("it was my dog", "it was my dog when"),
        ("nobody knew", "nobody i'm"),
        ('dog: "the ball here"', 'dog?" "the ball here'),
        ('he said "hi" and left', 'he said "hi and left'),
        ('he said "hi" and left', 'he said "hi " and left'),
    ],
)
def test_words_twice_in_a_row_dangling_ends_and_quotes_astray_rank_lower(
    captioner: Captioner, monkeypatch: pytest.MonkeyPatch, better: str, worse: str
) -> None:
    monkeypatch.setattr(captioner.ranker, "mixture", None)  # whether the words are known is asked elsewhere

    def score(*boxes: str) -> float:
        return captioner.ranker._score(Caption(boxes, -1.0, None, -1.0), 0.0, Seen(None, False), set())

    assert score(better) > score(worse) + 2
    assert score("dog", "dog here") == score("good", "dog here")


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("dog here", 0),
        ("dog / dogs!!!", 1),
        ("rockstar on the rocks", 1),
        ("a dogma of a dog", 0),
        ("rock rocks rocked", 2),
    ],
)
def test_a_favoured_word_is_counted_with_its_plural_and_what_is_made_of_it(text: str, count: int) -> None:
    assert _again(text, {"dog", "dogs", "rock"}) == count


def test_words_that_nobody_wrote_rank_lower(captioner: Captioner) -> None:
    """Of the first training text, and of the same letters the other way round."""
    assert captioner.mixture is not None
    known = "what if the picture is looking at us"
    made_up = " ".join(word[::-1] for word in known.split())
    seen = Seen(None, False)

    def score(text: str) -> float:
        return captioner.ranker.judged([Caption((text,), -1.0, None, -1.0)], seen, "")[0].score

    assert score(known) > score(made_up)
    runs = list(captioner.ranker._spelled(captioner.tokenizer.encode([made_up])))
    assert runs
    assert all(captioner.tokenizer.decode(run)[0] in made_up for run in runs)


@pytest.fixture
def templated(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Captioner:
    """Takes every picture for the template `dogs`, where people say *dog* and *nobody* gives the model away."""
    checkpoint = Checkpoint.load(tiny_model)
    dog, nobody = (checkpoint.tokenizer.encode([word])[0] for word in ("dog", "nobody"))
    odds = torch.zeros(2, len(checkpoint.tokenizer))
    odds[0, dog] = 7.5
    checkpoint.aptness = Aptness(["dogs", "others"], odds)
    known = torch.arange(len(checkpoint.tokenizer))
    rng = np.random.default_rng(0)
    ids = rng.integers(10, len(known), (4000, 5)).tolist()
    checkpoint.residual = Residual.fit(ids[:2000], [[*text[:2], nobody, *text[3:]] for text in ids[2000:]], known)
    checkpoint.save(tmp_path / "templated.safetensors")
    monkeypatch.setattr(Sight, "see", lambda *_: Seen(("dogs", 1.0), False))
    return Captioner.load(tmp_path / "templated.safetensors", device="cpu", threads=1)


def test_on_a_template_the_search_leans_to_its_words_and_ranks_by_them(
    templated: Captioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(name: str) -> float:
        monkeypatch.setattr(Sight, "see", lambda *_: Seen((name, 1.0), False))
        jobs = [(picture(templated, 1), Wish(seed=seed, n=8, explore=True)) for seed in range(12)]
        drawn = [" ".join(c.boxes) for made in templated.caption(jobs) for c in made.captions]
        return sum("dog" in text.split() for text in drawn) / len(drawn)

    monkeypatch.setattr("captioner.captioner._LEANING", 0.6)
    templated.leaning = templated._leaning()
    assert said("dogs") > 2 * said("others")
    assert said("others") == said("unheard of")
    seen = Seen(("dogs", 1.0), False)
    assert templated._caption(0, Wish("describe"), 1, seen).leaning is None
    assert templated._caption(0, Wish(), 1, seen).leaning is templated.leaning["dogs"]

    def score(text: str, at: Seen) -> float:
        return templated.ranker.judged([Caption((text,), -1.0, None, -1.0)], at, "")[0].score

    other = Seen(("others", 1.0), False)
    assert score("the dog", seen) - score("the dog", other) == pytest.approx(2 * 7.5)


def test_on_a_template_what_gives_the_model_away_ranks_lower(templated: Captioner) -> None:
    captions = [Caption((text,), -1.0, None, -1.0) for text in ("the dog and nobody", "the dog and the cat")]

    def scores(template: str | None) -> list[float]:
        seen = Seen(template and (template, 1.0), False)
        return [c.score for c in templated.ranker.judged(captions, seen, "")]

    on_template, on_photograph = scores("others"), scores(None)
    assert templated.ranker.residual is not None
    odds = templated.ranker.residual.score([templated.tokenizer.encode(c.boxes) for c in captions])
    assert odds[0] < odds[1] - 1
    templated.ranker.by = replace(templated.ranker.by, residual=0.0)
    assert np.subtract(on_template, scores("others")) == pytest.approx(Ranking().residual * np.array(odds), abs=1e-3)
    assert on_photograph == scores(None)


def test_a_copy_of_a_training_caption_is_not_served(captioner: Captioner) -> None:
    job = (picture(captioner, 9), Wish(seed=3, n=2))
    first = captioner.caption([job])[0].captions[0]
    known = captioner.fingerprints
    try:
        captioner.fingerprints = np.sort(np.append(known, np.uint32(fingerprint(" ".join(first.boxes)))))
        again = captioner.caption([job])[0].captions
    finally:
        captioner.fingerprints = known
    assert first.boxes not in [c.boxes for c in again]
    assert len(again) == 2


def test_the_description_is_one_box(captioner: Captioner) -> None:
    one, several = captioner.caption([(picture(captioner, 1), Wish("describe", "beam", n)) for n in (1, 3)])
    assert one.captions[0].boxes == (one.description,)
    assert len(several.captions) == 3
    assert all(len(c.boxes) == 1 for c in several.captions)


@torch.inference_mode()
def test_a_description_at_length_looks_at_the_parts_as_well(captioner: Captioner) -> None:
    """Of a picture with something in a corner that the whole hardly shows."""
    image = Image.effect_noise((200, 120), 60).convert("RGB")
    whole = captioner.encode([captioner.encoder.pixels([image])])
    looks = captioner.look(image, whole)
    image.paste((255, 0, 0), (190, 110, 200, 120))
    changed = [not torch.equal(a, b) for a, b in zip(looks, captioner.look(image, whole), strict=True)]
    assert changed[1:] == [False, False, False, True]
    seen = (None, {0: looks[[0] * 5]}, {0: looks})
    once, alike, at_length = (captioner.decode(whole, [Wish("describe", "beam", 3)], [0], s)[0].captions for s in seen)
    assert [c.boxes for c in alike] == [c.boxes for c in once]
    assert [c.logprob for c in at_length] != [c.logprob for c in once]


def test_a_model_that_learnt_one_style_writes_in_it(tiny_model: Path, tmp_path: Path) -> None:
    checkpoint = Checkpoint.load(tiny_model)
    described = Captioner.load(tiny_model, device="cpu", threads=1).prefixes["describe"]
    for styles, prefix in ((("describe",), described), (("meme",), checkpoint.prefix("meme"))):
        checkpoint.styles = styles
        checkpoint.save(tmp_path / "one.safetensors")
        one = Captioner.load(tmp_path / "one.safetensors", device="cpu", threads=1)
        assert set(one.prefixes.values()) == {prefix}
        captioned = one.caption([(picture(one, 1), Wish(n=1, seed=3))])[0]
        assert captioned.captions[0].boxes
        assert (captioned.description == "a picture") == ("describe" not in styles)


def test_drawing_keeps_the_ratio_and_the_limit(captioner: Captioner) -> None:
    drawn = captioner.draw(picture(captioner, 1, (900, 600)), ("hello", "world"))
    assert drawn.size == (300, 200)
    assert captioner.draw(picture(captioner, 1, (90, 60)), ("hello",)).size == (90, 60)


def test_explaining_gives_a_png(captioner: Captioner) -> None:
    png = captioner.explain(picture(captioner, 1), ("when the cat", "finds the dog"))
    with Image.open(io.BytesIO(png)) as sheet:
        assert sheet.format == "PNG"
        assert sheet.width > 180


def test_a_device_that_is_not_there_is_named(tiny_model: Path) -> None:
    with pytest.raises(ModelError, match="tpu"):
        Captioner.load(tiny_model, device="tpu")


def test_what_is_blocked_is_not_served(captioner: Captioner, monkeypatch: pytest.MonkeyPatch) -> None:
    job = (picture(captioner, 9), Wish(seed=3, n=2))
    first = captioner.caption([job])[0].captions[0]
    word = max(" ".join(first.boxes).split(), key=len)
    monkeypatch.setattr(block, "shipped", lambda: BlockList(f"[slur]\n{word}\n"))
    again = captioner.caption([job])[0]
    assert len(again.captions) == 2
    assert not any(word in " ".join(c.boxes).split() for c in again.captions)
    assert word not in again.description.split()


def test_words_posted_with_the_picture_are_taken_up(captioner: Captioner) -> None:
    jobs = [(picture(captioner, s), Wish(seed=s, n=6, context=c)) for s in range(8) for c in ("the picture", "")]
    made = [" ".join(" ".join(c.boxes) for c in m.captions).split() for m in captioner.caption(jobs)]
    assert sum(m.count("picture") for m in made[::2]) > 2 * sum(m.count("picture") for m in made[1::2])


@pytest.mark.parametrize(
    ("context", "telling"),
    [
        ("the man", ["man"]),
        ("a picture of my brain", ["brain"]),
        ("The SHIRTS, look!!", ["shirt"]),
        ("what is this, and why don't they", []),
        ("HTTPS://picture.shirt.com/brain.png?man=1 brain <https://man.org> www.man.com", ["brain"]),
        ("", []),
    ],
)
def test_of_words_posted_with_a_picture_those_count_that_say_something(
    captioner: Captioner, context: str, telling: list[str]
) -> None:
    forms = [form for word in telling for form in captioner.naming.forms(word)]
    assert bool(forms) == bool(telling)
    seen = captioner.sight.see(torch.zeros(1, 4, 16), "meme", context, "normal", lambda: None)
    assert list(seen.posted) == forms


def test_words_that_may_not_be_said_are_not_taken_up(captioner: Captioner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else all that is written would be refused."""
    job = picture(captioner, 1), Wish(n=3, seed=1, context="my brain and the shirt")
    monkeypatch.setattr(block, "shipped", lambda: BlockList("[slur]\nbrain\n"))
    made = captioner.caption([job])[0]
    assert len(made.captions) == 3
    assert not any("brain" in box.split() for c in made.captions for box in c.boxes)
    plain = picture(captioner, 1), Wish(n=3, seed=1, context="the shirt")
    assert made == captioner.caption([plain])[0]


@pytest.mark.parametrize(
    ("text", "telling"),
    [
        ("my grandmother’s birthday", ["birthday", "grandmother"]),
        ("#good_news, covid19", ["covid", "good", "news"]),
        ("lol why now? so true, yes please!", ["true"]),
        ("what is this, and why don't they", []),
        ("what a picture", ["picture"]),
    ],
)
def test_which_words_say_something(text: str, telling: list[str]) -> None:
    assert posted_words(text) == telling


def test_explored_memes_stay_in_the_order_they_were_drawn(captioner: Captioner) -> None:
    made = captioner.caption([(picture(captioner, s), Wish(seed=s, n=6, explore=True)) for s in range(8)])
    scores = [[c.score for c in m.captions] for m in made]
    assert any(order != sorted(order, reverse=True) for order in scores)
    again = captioner.caption([(picture(captioner, s), Wish(seed=s, n=2, explore=True)) for s in range(8)])
    assert [m.captions[0] for m in again] != [max(m.captions, key=lambda c: c.score) for m in made]


def test_nothing_asked_is_nothing_answered(captioner: Captioner) -> None:
    assert captioner.caption([]) == []


@pytest.mark.parametrize("seed", [-1, 0, 2**63 - 1, 10**40])
def test_any_whole_number_is_a_seed(captioner: Captioner, seed: int) -> None:
    assert captioner.caption([(picture(captioner, 1), Wish(seed=seed))])[0].seed == seed
