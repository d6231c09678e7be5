import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
from PIL import Image

from captioner import bench as benching
from captioner.bench import FIRST, SYSTEMS, TITLES, Job, Material, bench
from captioner.bench_report import table
from captioner.captioner import Captioner, Wish
from captioner.checkpoint import Checkpoint
from captioner.corpora import Corpus, read
from captioner.data.samples import Sample, digest
from captioner.encoders import DEFAULT
from captioner.recipe import Recipe
from captioner.train import new_decoder
from tests.fakes.pretended_device import pretended

ONE = {"encoder": DEFAULT, "seed": 3}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Flickr8k in its public layout."""
    root = tmp_path_factory.mktemp("flickr8k")
    rng = np.random.default_rng(0)
    (root / "Flickr8k_Dataset").mkdir()
    lines = []
    for i in range(6):
        pixels = rng.integers(0, 256, (6, 6, 3), np.uint8)
        Image.fromarray(pixels).resize((64, 48)).save(root / f"Flickr8k_Dataset/{i}.jpg")
        colours = ("brown", "black", "white", "red", "wet")
        lines += [f"{i}.jpg#{k}\tA {colour} dog runs fast ." for k, colour in enumerate(colours)]
    (root / "Flickr8k.token.txt").write_text("\n".join(lines))
    (root / "Flickr_8k.trainImages.txt").write_text("0.jpg\n1.jpg\n2.jpg\n3.jpg\n")
    (root / "Flickr_8k.devImages.txt").write_text("4.jpg\n5.jpg\n")
    return root


def test_every_system_gets_a_row_resumes_and_can_be_served(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for slow in ("meteor_1_0", "meteor_1_5"):  # WordNet and Java take longer to start than all the rest
        monkeypatch.setattr(benching.outside_metrics, slow, lambda *_: None)
    systems = ["nearest_neighbour", "slot_templates", "up_down"]
    bench({"flickr8k": photographs}, systems, 0.02, tmp_path, ONE)
    folder = tmp_path / "flickr8k"
    nearest, slots, up_down = json.loads((folder / "table.json").read_text())
    assert nearest["copy_rate"] == 1
    assert "too few" in slots["error"]
    assert up_down["error"] is None
    assert up_down["bits_per_char"] > 0
    assert up_down["tokens_per_second"] > 0
    assert up_down["kilobytes"] > 0
    assert up_down["note"] == f"on {DEFAULT} instead of resnet101"
    lines = (folder / "table.md").read_text().splitlines()
    assert [line.split(" | ")[0].removeprefix("| ") for line in lines[2:]] == [TITLES[s] for s in systems]
    assert "failed: ValueError" in lines[3]
    with Image.open(folder / "curves.png") as plot:
        assert plot.width > 100

    served = Captioner.load(folder / "up_down.safetensors", device="cpu", threads=1)
    picture = served.read((photographs / "Flickr8k_Dataset/4.jpg").read_bytes())
    captioned = served.caption([(picture, Wish("describe", "beam", 1))])[0]
    assert captioned.captions
    assert len(served.explain(picture, captioned.captions[0].boxes, "describe")) > 1000

    tried: list[str] = []
    monkeypatch.setattr(benching, "_trained", lambda _, name: tried.append(name))
    monkeypatch.setattr(benching, "_baseline", lambda _, name: tried.append(name) or {"curve": []})
    bench({"flickr8k": photographs}, systems, 0.02, tmp_path, ONE)
    assert tried == ["slot_templates"]  # what failed is tried again


def test_systems_write_together_where_they_can(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for slow in ("meteor_1_0", "meteor_1_5"):
        monkeypatch.setattr(benching.outside_metrics, slow, lambda *_: None)
    alone, together, further = "show_attend_and_tell", "meshed_memory", "quipbot"
    bench({"flickr8k": photographs}, [alone, "ensemble", together], 0.01, tmp_path, ONE)
    table_of = tmp_path / "flickr8k" / "table.json"
    assert "two trained systems" in json.loads(table_of.read_text())[1]["error"]
    bench({"flickr8k": photographs}, ["nearest_neighbour", alone, together, "ensemble"], 0.01, tmp_path, ONE)
    *_, first, second, row = json.loads(table_of.read_text())
    assert row["error"] is None
    assert row["note"] == f"{alone}, {together}"
    assert row["parameters"] == first["parameters"] + second["parameters"]
    assert row["kilobytes"] == pytest.approx(first["kilobytes"] + second["kilobytes"])
    assert row["bits_per_char"] < max(first["bits_per_char"], second["bits_per_char"])
    bench({"flickr8k": photographs}, [alone, further, "ensemble"], 0.01, tmp_path, ONE)
    assert "show_attend_and_tell and quipbot cannot write" in json.loads(table_of.read_text())[2]["error"]


def test_a_changed_recipe_is_another_row_and_its_note_says_so(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for slow in ("meteor_1_0", "meteor_1_5"):
        monkeypatch.setattr(benching.outside_metrics, slow, lambda *_: None)
    changed = ONE | {"recipe": (("precision", "bfloat16"), ("embedding", "16"))}
    bench({"flickr8k": photographs}, ["meshed_memory"], 0.01, tmp_path, changed)
    [row] = json.loads((tmp_path / "flickr8k" / "table.json").read_text())
    assert row["error"] is None
    assert row["note"].endswith("precision=bfloat16, embedding=16")
    again = 0.02
    for other in (ONE, ONE | {"seed": 4}, ONE | {"encoder": ""}):
        bench({"flickr8k": photographs}, ["meshed_memory"], again, tmp_path, other)
        [row] = json.loads((tmp_path / "flickr8k" / "table.json").read_text())
        assert (row["error"], row["minutes"], row["seed"]) == (None, again, other["seed"])
        assert "=" not in row["note"]
    tried: list[str] = []
    monkeypatch.setattr(benching, "_trained", lambda _, name: tried.append(name) or {"curve": []})
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(photographs, elsewhere)
    for same in (photographs, elsewhere):
        bench({"flickr8k": same}, ["meshed_memory"], again, tmp_path, ONE | {"encoder": ""})
        assert not tried
    tokens = elsewhere / "Flickr8k.token.txt"
    tokens.write_text(tokens.read_text().replace("A red dog runs fast", "A red dog sleeps"))
    bench({"flickr8k": elsewhere}, ["meshed_memory"], again, tmp_path, ONE | {"encoder": ""})
    assert tried == ["meshed_memory"]


def test_another_data_set_has_another_run(photographs: Path, tmp_path: Path) -> None:
    samples, _ = read({"flickr8k": photographs})
    job = Job("flickr8k", photographs, tmp_path, 1, captions=digest(samples))
    other = replace(job, captions=digest(samples[1:]))
    assert not benching._is_of(other.asked(), job)
    assert not benching._is_of({k: v for k, v in job.asked().items() if k != "captions"}, job), "a row from before"
    assert benching._digest(Recipe(), job.captions) != benching._digest(Recipe(), other.captions)


def test_a_set_that_cannot_be_compared_on_is_refused_before_anything_is_trained(
    photographs: Path, tmp_path: Path
) -> None:
    (tmp_path / "mixed").mkdir()
    Image.new("RGB", (40, 40), "teal").save(tmp_path / "mixed/a.png")
    lines = [
        {"picture": "a.png", "boxes": [f"words {i} of it"], "style": s} for i, s in enumerate(("meme", "describe"))
    ]
    file = tmp_path / "mixed/captions.jsonl"
    for kept, sentence in ((lines, "memes and descriptions"), ([lines[1] | {"split": "train"}], "none to check on")):
        file.write_text("\n".join(map(json.dumps, kept)))
        with pytest.raises(ValueError, match=sentence):
            bench({"flickr8k": photographs, "folder": file.parent}, ["up_down"], 1, tmp_path / "out", ONE)
        assert not (tmp_path / "out").exists()


def test_systems_learn_from_teachers_captions_too(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for slow in ("meteor_1_0", "meteor_1_5"):
        monkeypatch.setattr(benching.outside_metrics, slow, lambda *_: None)
    learnt: list[dict[str, int]] = []

    class Watched(benching.Trainer):
        def fit(self, train: Sequence[Corpus], dev: Sequence[Corpus]) -> list[dict[str, float]]:
            learnt.append({c.name: len(c.samples) for c in train})
            return super().fit(train, dev)

    monkeypatch.setattr(benching, "Trainer", Watched)
    file = tmp_path / "taught.json"
    for of, error in (("0.jpg", None), ("4.jpg", "speaks of none of the pictures")):  # the latter is held out
        file.write_text(json.dumps({of: ["a dog sleeps", "a wet dog"]}))
        told = ONE | {"recipe": (("taught", str(file)), ("taught_share", "0.4"))}
        bench({"flickr8k": photographs}, ["up_down"], 0.01, tmp_path / of, told)
        [row] = json.loads((tmp_path / of / "flickr8k" / "table.json").read_text())
        assert row["error"] is None if error is None else error in row["error"]
    assert learnt == [{"describe": 20, "taught": 2}]
    served = Checkpoint.load(tmp_path / "0.jpg" / "flickr8k" / "up_down.safetensors")
    assert served.facts["recipe"]["taught"] == "taught.json"
    assert "taught=taught.json" in (tmp_path / "0.jpg" / "flickr8k" / "table.json").read_text()


@pytest.mark.parametrize("change", [("dropuot", "0.1"), ("features", "8"), ("minutes", "1"), ("told", "4")])
def test_a_recipe_that_cannot_be_changed_so_costs_no_row(
    photographs: Path, tmp_path: Path, change: tuple[str, str]
) -> None:
    with pytest.raises(ValueError, match=change[0]):
        bench({"flickr8k": photographs}, ["up_down"], 0.01, tmp_path, ONE | {"recipe": (change,)})
    assert not list(tmp_path.iterdir())


def test_a_system_is_trained_on_the_device_and_measured_on_the_cpu(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for slow in ("meteor_1_0", "meteor_1_5"):
        monkeypatch.setattr(benching.outside_metrics, slow, lambda *_: None)
    job = Job("flickr8k", photographs, tmp_path, 0.01, encoder=DEFAULT)
    with pretended() as device:
        row = benching._trained(Material(job, read({"flickr8k": photographs})[0]), "attention_gru")
    assert row["device"] == device.type
    assert row["bits_per_char"] > 0
    assert row["pictures"] == 2


def test_an_unknown_system_is_named(photographs: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no system nonsense; known are memefly"):
        bench({"flickr8k": photographs}, ["nonsense"], 1, tmp_path, ONE)


def test_an_unknown_encoder_is_named_before_anything_is_tried(photographs: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no picture network called resnet5O"):
        bench({"flickr8k": photographs}, ["up_down"], 1, tmp_path / "out", ONE | {"encoder": "resnet5O"})
    assert not (tmp_path / "out").exists()


def test_an_encoder_without_weights_is_replaced_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise URLError("no route")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", unreachable)
    material = Material(Job("flickr8k", tmp_path, tmp_path, 1), [])
    assert material.encoder("resnet18") == (DEFAULT, f"on {DEFAULT}: no weights of resnet18")
    assert material.encoder(DEFAULT) == (DEFAULT, "")
    with pytest.raises(ValueError, match="no picture network called nonsense"):
        material.encoder("nonsense")


def test_what_nobody_measured_is_no_column() -> None:
    rows = [{"system": "memefly", "bleu4": 12.34, "error": None}, {"system": "up_down", "error": "OSError: a | b"}]
    assert table(rows, TITLES).splitlines() == [
        "| system | BLEU-4 | note |",
        "|---|---:|---|",
        "| Memefly: par-inject GRU | 12.3 |  |",
        "| Up-Down, grid | – | failed: OSError: a / b |",
    ]


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_can_be_built_from_its_settings(name: str) -> None:
    recipe = Recipe(**SYSTEMS[name].recipe)
    decoder = new_decoder(SYSTEMS[name].decoder, recipe, 300, 5)
    for option in filter(None, recipe.options.split(",")):
        key, value = option.split("=")
        assert str(getattr(decoder.config, key)) == value
    assert decoder.config.vocabulary == 300


def test_the_first_table_has_known_systems() -> None:
    assert set(FIRST) <= set(TITLES)


def test_unknown_decoders_and_options_are_named() -> None:
    with pytest.raises(ValueError, match="no decoder nonsense; known are attention_gru"):
        new_decoder("nonsense", Recipe(), 300, 5)
    with pytest.raises(ValueError, match="no option heads; it has vocabulary"):
        new_decoder("up_down", Recipe(options="heads=2"), 300, 5)


def test_kinds_are_templates_and_clusters_of_photographs() -> None:
    from captioner import kinds

    photographs = [Sample(Path(f"{i}.jpg"), ("a",), "describe") for i in range(3)]
    memes = [Sample(Path("t.jpg"), ("a",), "meme", name) for name in ("x", "y")]
    assert kinds.count([*photographs, *photographs, *memes]) == 5
    rows = np.array([0, 1, 2, 3])
    grids = np.stack([np.full((4, 2), value, np.float16) for value in (0, 0.1, 5, 5.1)])
    assert len(kinds.clusters(rows, grids, seed=0)) == 4
    found = kinds.templates(memes, np.array([0, 2]), grids, 2)
    assert {name: [round(float(x), 2) for x in centre] for name, centre in found.items()} == {
        "x": [0.05, 0.05],
        "y": [5.05, 5.05],
    }
