import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from captioner import train as training
from captioner.aptness import Aptness
from captioner.batches import batches, shares
from captioner.captioner import Captioner, Wish
from captioner.checkpoint import Checkpoint
from captioner.corpora import Corpus, corpus, held_back, read
from captioner.data import SPLITS, split_of
from captioner.data.samples import Sample
from captioner.distil import distil
from captioner.encoders import Encoder, Reduction
from captioner.features import Features
from captioner.keywords import Keywords
from captioner.ngrams import NGrams
from captioner.recipe import RECIPES, Recipe, rate
from captioner.self_critical import Critic
from captioner.tokenizer import CaptionTokenizer
from captioner.train import new_decoder, train
from captioner.trainer import Trainer
from captioner.voice import Voice
from tests.fakes.pretended_device import pretended

RECIPE = Recipe(
    steps=12, batch=8, vocabulary=420, features=8, embedding=16, units=16, attention=8, check_every=6, warm_up=2,
    template_views=2, photograph_views=2, recogniser_views=2, own=8,
)  # fmt: skip


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny Memefly and Flickr8k in their public layouts, drawn here."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)

    def draw(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8)).resize((64, 48)).save(path)

    draw(root / "memefly/images/cat.jpg")
    texts = [f"when {a} meets {b} again" for a in ("cat", "dog", "bird", "fish") for b in ("me", "you", "us", "them")]
    template = {
        "meme_id": 0,
        "meme_name": "cat",
        "meme_bounding_box": [],
        "meme_text": [f"{t} {i}" for t in texts for i in range(25)],
    }
    (root / "memefly/combined_data.json").write_text(json.dumps([template]))
    lines = []
    for i in range(6):
        draw(root / f"flickr8k/Flickr8k_Dataset/{i}.jpg")
        lines += [f"{i}.jpg#{k}\tA {c} dog runs {k} ." for k, c in enumerate(("brown", "black", "white", "red", "wet"))]
    (root / "flickr8k/Flickr8k.token.txt").write_text("\n".join(lines))
    (root / "flickr8k/Flickr_8k.trainImages.txt").write_text("0.jpg\n1.jpg\n2.jpg\n4.jpg\n5.jpg\n")
    (root / "flickr8k/Flickr_8k.devImages.txt").write_text("3.jpg\n")
    return {"memefly": root / "memefly", "flickr8k": root / "flickr8k"}


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A folder of one's own: a few captions of two pictures, none of them held out."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in ("owl", "beach"):
        Image.effect_noise((64, 48), 80).convert("RGB").save(folder / f"{name}.jpg")
    lines = [
        {"picture": "owl.jpg", "boxes": [f"when {who} {does}", "at three at night"], "votes": len(who), "views": 340}
        for who in ("your brother", "nobody", "the black cat", "everyone", "a teacher")
        for does in ("wakes up", "falls asleep", "sings loudly", "finds pizza", "must cook")
    ]
    lines += [{"picture": "beach.jpg", "boxes": [f"{n} dogs run along"], "style": "describe"} for n in ("two", "six")]
    (folder / "captions.jsonl").write_text("\n".join(json.dumps({"split": "train"} | line) for line in lines))
    return folder


def weights(checkpoint: Checkpoint) -> list[torch.Tensor]:
    return [p.detach().clone() for p in checkpoint.decoder.parameters()]


def same(first: Checkpoint, second: Checkpoint) -> bool:
    return all(torch.equal(a, b) for a, b in zip(weights(first), weights(second), strict=True))


def test_a_run_learns_logs_plots_and_is_deterministic(sets: dict[str, Path], tmp_path: Path) -> None:
    first = train(sets, tmp_path / "first.safetensors", replace(RECIPE, steps=60, rate=1e-2))
    log = (tmp_path / "first/log.csv").read_text().splitlines()
    assert len(log) == 11
    losses = [float(row.split(",")[2]) for row in log[1:]]
    assert losses[-1] < losses[0] * 0.8
    with Image.open(tmp_path / "first/training.png") as plot:
        assert plot.width > 100
    loaded = Checkpoint.load(tmp_path / "first.safetensors")
    assert loaded.facts["figures"]["meme_bits_per_char"] > 0
    assert loaded.facts["data"] == {"memefly": 400, "flickr8k": 30}
    again = train(sets, tmp_path / "again.safetensors", replace(RECIPE, steps=60, rate=1e-2))
    assert same(first, again)


def test_a_run_goes_on_from_a_checkpoint_and_tunes_its_encoder(sets: dict[str, Path], tmp_path: Path) -> None:
    first = train(sets, tmp_path / "first.safetensors", replace(RECIPE, steps=2))
    on = replace(RECIPE, steps=2, start=str(tmp_path / "first.safetensors"), tune=1, compact=1)
    second = train(sets, tmp_path / "second.safetensors", on)
    assert second.tokenizer.to_json() == first.tokenizer.to_json()
    described = replace(RECIPE, steps=2, start=str(tmp_path / "first.safetensors"))
    third = train({"flickr8k": sets["flickr8k"]}, tmp_path / "third.safetensors", described)
    assert set(first.fingerprints) <= set(third.fingerprints), "it may still write what it learnt before"
    assert third.fingerprints.tolist() == sorted(set(third.fingerprints.tolist()))
    assert third.fingerprints.dtype == np.uint32
    assert not torch.equal(first.reduction.basis, second.reduction.basis)
    captioner = Captioner.load(tmp_path / "second.safetensors", device="cpu")
    stages = captioner.encoder.halves()[1].state_dict()
    assert all(torch.equal(stages[k], v.half().float()) for k, v in second.last_stages.items())
    written = Checkpoint.load(tmp_path / "second.safetensors").facts
    assert written["started_from"]["recipe"]["steps"] == 2
    assert str(tmp_path) not in json.dumps(written), "a folder of this machine travels with the file"


def test_a_handful_of_captions_of_which_none_is_held_out_can_be_learnt(
    mine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = train({"folder": mine}, tmp_path / "few.safetensors", RECIPE)
    said = capsys.readouterr().out
    assert "No memes are held out to check on" in said
    assert "No descriptions are held out to check on" in said
    assert made.facts["figures"]["step"] == RECIPE.steps
    assert Checkpoint.load(tmp_path / "few.safetensors").ngrams


def test_no_steps_leave_what_was_learnt_and_equip_it_anew(sets: dict[str, Path], tmp_path: Path) -> None:
    first = train(sets, tmp_path / "first.safetensors", replace(RECIPE, steps=2, own=0))
    assert first.residual is None
    on = replace(RECIPE, steps=0, recogniser_views=0, own=900, start=str(tmp_path / "first.safetensors"))
    train(sets, tmp_path / "second.safetensors", on)
    before, after = (Checkpoint.load(tmp_path / f"{name}.safetensors") for name in ("first", "second"))
    assert all(torch.equal(a, b) for a, b in zip(weights(before), weights(after), strict=True))
    assert before.templates
    assert after.templates
    assert before.templates.names == after.templates.names
    assert before.residual is None
    assert after.residual is not None
    captioner = Captioner.load(tmp_path / "second.safetensors", device="cpu")
    cat = captioner.read((sets["memefly"] / "images/cat.jpg").read_bytes())
    own = [c.boxes for c in captioner.caption([(cat, Wish(seed=99, n=8, explore=True))])[0].captions]
    people = [(f"when {who} meets you again {i}",) for who in ("cat", "dog", "bird") for i in range(3)]
    odds = [after.residual.score(after.tokenizer.encode_batch(texts)) for texts in (people, own)]
    assert np.mean(odds[0]) > np.mean(odds[1]) + 1
    with pytest.raises(ValueError, match="start from"):
        train(sets, tmp_path / "third.safetensors", replace(RECIPE, steps=0))


def test_what_the_data_do_not_teach_stays_as_the_start_has_it(
    sets: dict[str, Path], mine: Path, tmp_path: Path
) -> None:
    file = tmp_path / "first.safetensors"
    base = train(sets, file, replace(RECIPE, steps=2, own=900))
    words = ["dog", "nosuchword"]
    base.keywords, base.usual = Keywords(RECIPE.features, words), torch.rand(1000)
    listed = base.decoder.shortlist
    assert listed is not None
    base.decoder.shorten(listed[::2])
    base.save(file)
    base = Checkpoint.load(file)
    on = replace(RECIPE, steps=0, start=str(file))
    train({"flickr8k": sets["flickr8k"]}, tmp_path / "described.safetensors", on)
    described = Checkpoint.load(tmp_path / "described.safetensors")
    for part in ("templates", "aptness", "residual", "ngrams", "voice", "keywords", "usual"):
        kept, had = getattr(described, part), getattr(base, part)
        assert tensors(kept) == tensors(had), part
    assert described.decoder.shortlist is not None
    assert base.decoder.shortlist is not None
    assert set(base.decoder.shortlist.tolist()) <= set(described.decoder.shortlist.tolist())
    few = train({"folder": mine}, tmp_path / "few.safetensors", on)
    assert few.keywords is not None
    assert few.keywords.words == words
    assert few.templates is not None
    assert few.templates.names == ("owl",), "there are memes and descriptions to learn a recogniser from"


def tensors(part: Any) -> Any:
    """A checkpoint's part as something that can be compared."""
    if isinstance(part, torch.Tensor):
        return part.tolist()
    if isinstance(part, Aptness | Voice):
        return tensors(part.odds)
    found = part.tensors() if isinstance(part, NGrams) else part.state_dict()
    return {name: tensor.tolist() for name, tensor in found.items()}


def test_a_run_that_was_cut_off_resumes_to_the_same_model(
    sets: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(sets, tmp_path / "whole.safetensors", RECIPE)
    update, steps = Trainer._update, []

    def cut_off(self: Trainer, batch: object) -> float:
        if len(steps) == 9:
            raise KeyboardInterrupt
        steps.append(1)
        return update(self, batch)  # type: ignore[arg-type]

    monkeypatch.setattr(Trainer, "_update", cut_off)
    with pytest.raises(KeyboardInterrupt):
        train(sets, tmp_path / "cut.safetensors", RECIPE)
    monkeypatch.setattr(Trainer, "_update", update)
    assert not (tmp_path / "cut.safetensors").exists()
    resumed = train(sets, tmp_path / "cut.safetensors", RECIPE)
    assert same(whole, resumed)
    with pytest.raises(ValueError, match="another recipe"):
        train(sets, tmp_path / "cut.safetensors", replace(RECIPE, seed=2))
    with pytest.raises(ValueError, match="another decoder"):
        train(sets, tmp_path / "cut.safetensors", RECIPE, "show_and_tell")
    other = tmp_path / "other"
    shutil.copytree(sets["flickr8k"], other)
    assert same(whole, train(sets | {"flickr8k": other}, tmp_path / "whole.safetensors", RECIPE)), "only moved"
    tokens = other / "Flickr8k.token.txt"
    tokens.write_text(tokens.read_text().replace("dog", "little cat"))
    for changed in ({"flickr8k": sets["flickr8k"]}, sets | {"flickr8k": other}):
        with pytest.raises(ValueError, match="of a run with other data"):
            train(changed, tmp_path / "cut.safetensors", RECIPE)


def test_a_tokenizer_is_not_taken_for_other_texts(tmp_path: Path) -> None:
    def learnt(text: str, **changes: Any) -> CaptionTokenizer:
        recipe = replace(RECIPE, **changes)
        return training.tokenizer_of([Sample(Path("a.jpg"), (text,), "meme")], ["train"], recipe, tmp_path)

    first, other = learnt("ducks quack " * 9), learnt("cats purr " * 9)
    assert "quack" in first.to_json()
    assert "purr" in other.to_json()
    assert learnt("ducks quack " * 9).to_json() == first.to_json()
    assert len(learnt("ducks quack " * 9, words=1)) != len(first), "nor for another kind"
    assert len(learnt("ducks quack " * 9, vocabulary=25)) != len(first)


def test_a_run_on_another_device_ends_with_a_model_for_any_machine(sets: dict[str, Path], tmp_path: Path) -> None:
    file = tmp_path / "there.safetensors"
    with pretended() as device:
        made = train(sets, file, replace(RECIPE, steps=3, device=device.type))
    assert all(p.device.type == "cpu" for p in (*made.decoder.parameters(), *made.reduction.buffers()))
    captioner = Captioner.load(file, device="cpu", threads=1)
    assert captioner.sight.templates is not None
    picture = captioner.read(next((sets["flickr8k"] / "Flickr8k_Dataset").iterdir()).read_bytes())
    assert captioner.caption([(picture, Wish(n=2))])[0].captions


@pytest.mark.parametrize("by", ["template", "picture"])
def test_whole_templates_and_pictures_can_be_held_out(by: str, tmp_path: Path) -> None:
    held = [f"t{i}" for i in range(500) if split_by(by, f"t{i}") == "dev"][:2]
    names = [*held, *[f"t{i}" for i in range(500) if split_by(by, f"t{i}") == "train"][:3]]
    (tmp_path / "images").mkdir()
    for name in names:
        Image.effect_noise((64, 48), 80).save(tmp_path / f"images/{name}.jpg")
    said = {name: ["the same on all of them", *(f"{name} meets {i} cats" for i in range(20))] for name in names}
    written = [{"meme_id": 0, "meme_name": n, "meme_bounding_box": [], "meme_text": said[n]} for n in names]
    (tmp_path / "combined_data.json").write_text(json.dumps(written))
    seen: list[list[Corpus]] = []
    with pytest.MonkeyPatch.context() as patch:
        fit = Trainer.fit
        patch.setattr(Trainer, "fit", lambda self, *parts: seen.extend(parts) or fit(self, *parts))
        made = train({"memefly": tmp_path}, tmp_path / "out.safetensors", replace(RECIPE, steps=1, by=by))
    [learnt], [checked] = seen
    assert {s.template for s in learnt.samples} == set(names) - set(held)
    assert {s.template for s in checked.samples} == set(held)
    assert not {s.text for s in learnt.samples} & {s.text for s in checked.samples}
    assert made.facts["figures"]["meme_bits_per_char"] > 0


def split_by(by: str, name: str) -> str:
    return SPLITS[by](Sample(Path(f"{name}.jpg"), ("a",), "meme", name))


@pytest.mark.parametrize(
    ("changes", "decoder", "sentence"),
    [
        ({}, "show_and_tell", "has the decoder attention_gru, not show_and_tell"),
        ({"vectors": "glove.txt"}, "", "vectors is for a model that begins anew"),
        ({"options": "units=7"}, "attention_gru", "has units=24, not 7"),
        ({"options": "heads=7"}, "", "no option heads"),
    ],
)
def test_what_a_checkpoint_to_start_from_cannot_heed_is_named_before_anything_is_read(
    tiny_model: Path, tmp_path: Path, changes: dict[str, Any], decoder: str, sentence: str
) -> None:
    recipe = replace(RECIPE, start=str(tiny_model), **changes)
    with pytest.raises(ValueError, match=sentence):
        train({"folder": tmp_path / "gone"}, tmp_path / "m.safetensors", recipe, decoder)
    agrees = replace(RECIPE, start=str(tiny_model), options="units=24")
    with pytest.raises(FileNotFoundError):
        train({"folder": tmp_path / "gone"}, tmp_path / "m.safetensors", agrees, "attention_gru")


def test_sizes_that_a_checkpoint_to_start_from_has_not_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    gone, out = {"folder": tmp_path / "gone"}, tmp_path / "m.safetensors"
    sizes = {"units": 1024, "features": 64, "embedding": 8, "attention": 9, "words": 5, "encoder": "resnet50"}
    for key, value in sizes.items():
        with pytest.raises(ValueError, match=rf"has {key}=\w+, which it keeps"):
            train(gone, out, replace(Recipe(), start=str(tiny_model), **{key: value}), asked={key})
    with pytest.raises(ValueError, match=r"has features=16 and units=24|has units=24 and features=16"):
        train(gone, out, replace(Recipe(), start=str(tiny_model), units=7, features=9), asked={"units", "features"})
    for heeded in ({"units": 24}, {"writer": 8}, {"batch": 9}):
        with pytest.raises(FileNotFoundError):  # nobody has asked for the sizes of the recipe `large`
            train(gone, out, replace(RECIPES["large"], start=str(tiny_model), **heeded), asked=set(heeded))


def test_what_a_decoder_lacks_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    gone, out = {"folder": tmp_path / "gone"}, tmp_path / "m.safetensors"
    with pytest.raises(ValueError, match="The decoder transformer has no units and no attention"):
        train(gone, out, replace(RECIPE, units=999, attention=9), "transformer", {"attention", "units", "words"})
    with pytest.raises(ValueError, match="no decoder nonsense"):
        train(gone, out, RECIPE, "nonsense")
    with pytest.raises(ValueError, match="no decoder nonsense"):
        distil(gone, tmp_path / "taught.json", RECIPE, "nonsense")
    with pytest.raises(FileNotFoundError):
        train(gone, out, RECIPE, "transformer", {"embedding"})


def test_the_sizes_that_were_heeded_are_what_a_model_tells(sets: dict[str, Path], tmp_path: Path) -> None:
    first = tmp_path / "first.safetensors"
    train(sets, first, replace(RECIPE, steps=2, own=0, recogniser_views=0))
    on = replace(Recipe(), steps=1, template_views=1, photograph_views=1, recogniser_views=0, own=0, start=str(first))
    asked = {"vocabulary", "units"}
    told = train(sets, tmp_path / "second.safetensors", replace(on, vocabulary=420, units=16), asked=asked).facts
    assert told["recipe"]["units"] == told["recipe"]["embedding"] == RECIPE.units
    assert told["recipe"]["vocabulary"] == RECIPE.vocabulary
    assert told["recipe"]["steps"] == 1
    with pytest.raises(ValueError, match="has vocabulary=420"):
        train(sets, tmp_path / "third.safetensors", replace(on, vocabulary=900), asked={"vocabulary"})


def test_an_unknown_split_is_named(sets: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="by is caption, template or picture, not colour"):
        train(sets, tmp_path / "none.safetensors", replace(RECIPE, by="colour"))


def test_held_out_pictures_do_not_shape_the_reduction(sets: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []

    def fitted(encoder: Encoder, pictures: list[Path], dimensions: int) -> Reduction:
        asked.extend(pictures)
        return Reduction(1280, dimensions)

    monkeypatch.setattr(training, "fit_reduction", fitted)
    samples, _ = read(sets)
    split = [split_of(s) for s in samples]
    texts = [box for s in samples for box in s.boxes]
    training.untrained(samples, split, training.learnt_tokenizer(texts, RECIPE), RECIPE, "attention_gru", "m")
    assert {p.name for p in asked} == {s.picture.name for s, p in zip(samples, split, strict=True) if p == "train"}
    assert "3.jpg" not in {p.name for p in asked}


def test_held_out_captions_are_never_in_a_batch(sets: dict[str, Path]) -> None:
    samples, dropped = read(sets)
    assert not any(dropped["memefly"].values())
    tokenizer = CaptionTokenizer.train([b for s in samples for b in s.boxes], 420)
    kept = [s for s in samples if s.style == "meme" and split_of(s) == "train"]
    held = {tuple(tokenizer.encode(s.boxes)) for s in samples if s.style == "meme" and split_of(s) == "dev"}
    assert held
    grids = Features(np.zeros((2, 49, 8), np.float16), {kept[0].picture: range(2)}, 2)
    stream = batches([corpus(kept, tokenizer, grids, "meme")], tokenizer, RECIPE, 0)
    seen = set()
    for _ in range(64):  # a whole chunk
        [batch] = next(stream)
        for tokens, targets in zip(batch.tokens.tolist(), batch.targets.tolist(), strict=True):
            ids = tuple(i for i in targets if i >= 0)
            seen.add(ids)
            assert tokens[2 : len(ids) + 1] == list(ids[:-1])
            assert tokens[:2] == tokenizer.prefix("meme", None)
    assert len(seen) == len({tuple(tokenizer.encode(s.boxes)) for s in kept})
    assert not seen & held


def test_captions_that_are_learnt_together_share_a_picture_and_all_are_learnt() -> None:
    tokenizer = CaptionTokenizer.train(["a b c d e"] * 3, 400)
    paths = [Path(f"{i}.png") for i in range(30)]
    grids = Features(
        np.random.default_rng(0).normal(size=(30, 4, 8)).astype(np.float16),
        {path: range(i, i + 1) for i, path in enumerate(paths)},
        1,
    )
    samples = [Sample(p, (f"{i} {j}",), "describe") for i, p in enumerate(paths) for j in range(4 + i % 5)]
    recipe = replace(RECIPE, batch=16, together=3)
    stream = batches([corpus(samples, tokenizer, grids, "describe")], tokenizer, recipe, 0)
    said = {tuple(tokenizer.encode(s.boxes)): s.picture for s in samples}
    seen = set()
    for _ in range(64):
        [batch] = next(stream)
        assert batch.grid.shape == (5, 4, 8)
        assert len(batch.tokens) == 15
        for i, targets in enumerate(batch.targets.tolist()):
            ids = tuple(t for t in targets if t >= 0)
            assert torch.equal(batch.grid[i // 3], torch.from_numpy(grids.grids[grids.rows[said[ids]].start]))
            seen.add(ids)
    assert seen == set(said)


@pytest.mark.parametrize(
    ("given", "names", "expected"),
    [
        ({}, ["meme", "describe", "pair"], [0.57, 0.25, 0.18]),
        ({}, ["meme"], [1]),
        ({"describe_share": 1.0}, ["describe"], [1]),
        ({"describe_share": 0.6, "pair_share": 0.4}, ["meme", "describe", "pair"], [0, 0.6, 0.4]),
        ({"describe_share": 0.3, "taught": "file", "taught_share": 0.3}, ["describe", "taught"], [0.5, 0.5]),
        ({"describe_share": 1.0}, ["meme", "describe"], "describe_share=1 and pair_share=0.18 leave memes no share"),
        ({"describe_share": 0.6, "pair_share": 0.5}, ["meme"], "together they may be 1"),
        ({"describe_share": 0.0}, ["describe"], "Nothing is left to learn from: the share of describe is 0"),
    ],
)
def test_shares_are_of_one_or_refused(given: dict[str, Any], names: list[str], expected: list[float] | str) -> None:
    recipe = replace(Recipe(), **given)
    if isinstance(expected, str):
        with pytest.raises(ValueError, match=expected):
            shares(names, recipe)
    else:
        assert shares(names, recipe).tolist() == pytest.approx(expected)


def test_shares_that_leave_nothing_are_refused_before_pictures_are_read(
    sets: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "untrained", lambda *_: pytest.fail("it went on"))
    with pytest.raises(ValueError, match="leave memes no share"):
        train(sets, tmp_path / "none.safetensors", replace(RECIPE, describe_share=1.0))


def test_batches_resume_where_they_were(sets: dict[str, Path]) -> None:
    tokenizer = CaptionTokenizer.train(["a b c d e"] * 3, 400)
    samples = [Sample(Path("p"), (f"a b {i}",), "meme", percentile=i / 100) for i in range(100)]
    grids = Features(np.random.default_rng(0).normal(size=(2, 4, 8)).astype(np.float16), {Path("p"): range(2)}, 2)
    members = [corpus(samples, tokenizer, grids, "meme")]
    stream = batches(members, tokenizer, RECIPE, 0)
    for _ in range(64):
        next(stream)
    later = batches(members, tokenizer, RECIPE, 64)
    for _ in range(3):
        [a], [b] = next(stream), next(later)
        assert torch.equal(a.tokens, b.tokens)
        assert torch.equal(a.grid, b.grid)


def test_descriptions_that_are_learnt_in_another_way_come_apart(sets: dict[str, Path]) -> None:
    tokenizer = CaptionTokenizer.train(["a b c d e"] * 3, 400)
    rng = np.random.default_rng(0)
    grids = Features(rng.normal(size=(1, 4, 8)).astype(np.float16), {Path("p"): range(1)}, 1)
    members = [
        corpus([Sample(Path("p"), (f"a b {i}",), style) for i in range(60)], tokenizer, grids, style)
        for style in ("meme", "describe")
    ]
    recipe = replace(RECIPE, describe_share=0.5, pair_share=0.0, describe_dropout=0.4, mirror=0.5)
    stream = batches(members, tokenizer, recipe, 0)
    plain = torch.from_numpy(grids.grids[0])
    mirrored = plain.view(2, 2, -1).flip(1).reshape(4, -1)
    seen: set[tuple[bool, bool]] = set()
    for _ in range(8):
        for part in next(stream):
            style = tokenizer.prefix("describe" if part.describes else "meme")[0]
            assert (part.tokens[:, 0] == style).all()
            for grid in part.grid:
                assert torch.equal(grid, plain) or torch.equal(grid, mirrored)
                seen.add((part.describes, torch.equal(grid, mirrored)))
    assert seen == {(True, True), (True, False), (False, False)}  # memes of templates are never mirrored


def test_memes_and_descriptions_are_learnt_without_counts(sets: dict[str, Path], tmp_path: Path) -> None:
    made = train(sets, tmp_path / "plain.safetensors", replace(RECIPE, steps=2, counts=0, own=0, recogniser_views=0))
    assert made.ngrams is None
    assert {"meme_bits_per_char", "describe_bits_per_char"} <= made.facts["figures"].keys()


def test_a_run_with_every_way_of_learning_descriptions(sets: dict[str, Path], tmp_path: Path) -> None:
    recipe = replace(RECIPE, describe_dropout=0.5, describe_smoothing=0.1, mirror=0.5, self_critical=1.0, held_back=0.5)
    made = train(sets, tmp_path / "all.safetensors", recipe)
    assert made.facts["figures"]["reward"] >= -1
    assert made.facts["figures"]["describe_bits_per_char"] > 0


def test_the_figures_are_those_of_the_weights_that_are_kept(tiny_model: Path, tmp_path: Path) -> None:
    trainer = Trainer(Checkpoint.load(tiny_model), RECIPE, tmp_path)
    bits = (3.0, 2.0, 2.0, 2.5, math.nan)
    trainer.progress.log = [{"step": float(i), "meme_bits_per_char": n} for i, n in enumerate(bits)]
    assert trainer.kept()["step"] == 2
    trainer.critic = Critic.__new__(Critic)
    assert trainer.kept()["step"] == 4, "a self-critical run keeps what it learnt last"


def test_photographs_are_held_back_whole_and_always_the_same() -> None:
    tokenizer = CaptionTokenizer.train(["a b c d e"] * 3, 400)
    pictures = [Path(f"{i}.jpg") for i in range(200)]
    grids = Features(np.zeros((400, 4, 8), np.float16), {p: range(2 * i, 2 * i + 2) for i, p in enumerate(pictures)}, 2)
    described, memes = (
        corpus([Sample(p, (f"a {k}",), style) for k in range(3) for p in pictures], tokenizer, grids, style)
        for style in ("describe", "meme")
    )

    def shown(members: list[Corpus]) -> set[Path]:
        return {s.picture for c in members if c.name == "describe" for s in c.samples}

    kept, back = held_back([memes, described], 0.2)
    assert kept[0] is memes
    assert shown(kept) | shown(back) == set(pictures)
    assert not shown(kept) & shown(back)
    assert 20 < len(shown(back)) < 60
    [apart] = back
    assert all(grids.rows[s.picture].start == row for s, row in zip(apart.samples, apart.rows, strict=True))
    assert [tokenizer.encode(list(s.boxes)) for s in apart.samples] == apart.ids
    taught = replace(described, name="taught")
    [_, _, by_teachers], again = held_back([memes, described, taught], 0.2)
    assert {s.picture for s in by_teachers.samples} == shown(kept)
    assert shown(again) == shown(back)
    assert [c.name for c in again] == ["describe"]
    assert shown(held_back([described], 0.3)[1]) >= shown(back)
    assert held_back([memes, described], 0.0) == ([memes, described], [])


def test_a_run_without_a_better_check_ends_early(sets: dict[str, Path], tmp_path: Path) -> None:
    recipe = replace(RECIPE, steps=200, check_every=5, rate=3.0, warm_up=5, ema=0.5, patience=2)
    trained: list[Trainer] = []
    fit = Trainer.fit

    def kept(self: Trainer, *corpora: list[Corpus]) -> list[dict[str, float]]:
        trained.append(self)
        return fit(self, *corpora)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "fit", kept)
        made = train(sets, tmp_path / "early.safetensors", recipe)
    [trainer] = trained
    assert trainer.progress.step < recipe.steps
    totals = [sum(v for k, v in row.items() if k.endswith("bits_per_char")) for row in trainer.progress.log]
    assert min(totals[-2:]) > min(totals)
    assert made.facts["figures"]["step"] == trainer.progress.log[int(np.argmin(totals))]["step"]


def test_every_named_recipe_makes_a_decoder() -> None:
    for name, recipe in RECIPES.items():
        assert sum(p.numel() for p in new_decoder("attention_gru", recipe, 900, 0).parameters()) > 100_000, name


def test_the_rate_warms_up_and_falls() -> None:
    recipe = Recipe(steps=100, warm_up=10)
    rates = [rate(recipe, s) for s in range(100)]
    assert max(rates) == pytest.approx(recipe.rate, rel=0.01)
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
