import asyncio
import csv
import io
import json
from collections import Counter
from math import comb
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bot import logs
from bot.__main__ import main
from bot.events import BadRequest, NotFound
from bot.ratings.blind import BlindRatings, exported, report
from bot.ratings.results import Share, error_rate, standings
from bot.ratings.sheet import Sheet, SheetError
from bot.store import Store

YES = {"funny": "yes", "fits": "yes", "person": "yes"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures, each with a meme by people, by `gru` and by `ngrams`."""
    lines = []
    for picture in ("cat", "dog"):
        for system in ("people", "gru", "ngrams"):
            name = f"{picture}{len(lines)}.jpg"
            Image.new("RGB", (8, 6), "teal").save(tmp_path / name)
            lines.append({"file": name, "picture": picture, "system": system, "boxes": [f"{system} on", picture]})
    (tmp_path / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return tmp_path


async def rated(ratings: BlindRatings, user: str, answers: dict[str, str]) -> list[tuple[str, ...]]:
    """What a rater is shown until all is rated, always giving the same answers."""
    shown = []
    while (task := await ratings.next("web", user)).memes:
        assert task.done == len(shown)
        shown.append(task.memes)
        await ratings.rate("web", user, task.memes, answers)
    return shown


async def test_everybody_rates_everything_once_in_an_order_of_their_own(folder: Path, store: Store) -> None:
    ratings = BlindRatings(folder, store, "single")
    orders = [await rated(ratings, user, YES) for user in ("a", "b", "c")]
    assert all(sorted(order) == sorted(orders[0]) and len(set(order)) == 6 for order in orders)
    assert len({tuple(order) for order in orders}) > 1
    assert (await ratings.next("web", "a")).done == 6


async def test_what_was_rated_least_comes_first(folder: Path, store: Store) -> None:
    ratings = BlindRatings(folder, store, "single")
    shown = Counter[tuple[str, ...]]()
    for user in range(9):
        for _ in range(2):
            task = await ratings.next("web", str(user))
            shown[task.memes] += 1
            await ratings.rate("web", str(user), task.memes, YES)
    assert set(shown.values()) == {3}


async def test_pairs_are_of_one_picture_and_of_two_systems(folder: Path, store: Store) -> None:
    ratings, items = BlindRatings(folder, store, "pairs"), Sheet(folder).items
    shown = await rated(ratings, "a", {"funny": "first", "fits": "same"})
    assert len({frozenset(pair) for pair in shown}) == 6
    for one, other in shown:
        assert items[one].picture == items[other].picture
        assert items[one].system != items[other].system
    found = {each.system: each.pair for each in standings(items, await store.ratings())}
    assert {pair["funny"].of for pair in found.values()} == {4}
    assert sum(pair["funny"].hits for pair in found.values()) == 6
    assert {pair["fits"].value for pair in found.values()} == {0.5}


async def test_an_answer_can_be_taken_back_and_given_anew(folder: Path, store: Store) -> None:
    ratings = BlindRatings(folder, store, "single")
    first = await ratings.next("web", "a")
    await ratings.rate("web", "a", first.memes, YES)
    await ratings.rate("web", "a", (await ratings.next("web", "a")).memes, {})
    passed = await ratings.take_back("web", "a")
    assert passed.done == 1
    again = await ratings.take_back("web", "a")
    assert (again.memes, again.done) == (first.memes, 0)
    assert (await ratings.take_back("web", "a")).done == 0
    await ratings.rate("web", "a", first.memes, YES)
    await ratings.rate("web", "a", first.memes, YES | {"funny": "no"})
    assert {row["question"]: row["answer"] for row in await store.ratings()} == YES | {"funny": "no"}


async def test_neither_task_nor_address_tells_who_wrote(folder: Path, store: Store) -> None:
    ratings = BlindRatings(folder, store, "single")
    task = await ratings.next("web", "a")
    assert {len(meme) for meme in task.memes} == {18}
    assert "people" not in "".join(task.memes)
    data, content_type = ratings.picture(task.memes[0])
    assert (data[:2], content_type) == (b"\xff\xd8", "image/jpeg")
    with pytest.raises(NotFound):
        ratings.picture("captions.jsonl")


@pytest.mark.parametrize(
    ("count", "answers"),
    [(1, {"funny": "yes"}), (1, YES | {"fits": "first"}), (1, YES | {"more": "yes"}), (2, YES), (2, {})],
)
async def test_answers_that_cannot_be_meant(folder: Path, store: Store, count: int, answers: dict[str, str]) -> None:
    with pytest.raises(BadRequest):
        await BlindRatings(folder, store, "single").rate("web", "a", list(Sheet(folder).items)[:count], answers)
    with pytest.raises(NotFound):
        await BlindRatings(folder, store, "single").rate("web", "a", ["0" * 18], {})


async def test_report_and_export_tell_who_wrote_and_hide_who_rated(folder: Path, store: Store) -> None:
    ratings, items = BlindRatings(folder, store, "single"), Sheet(folder).items
    for user in ("voter-cookie", "other-cookie"):
        for meme, item in items.items():
            human = "yes" if item.system in ("people", "gru") else "no"
            await ratings.rate("web", user, [meme], {"funny": "no", "fits": "yes", "person": human})
    rows = await store.ratings()
    words = report(folder, rows)
    assert [line.split()[0] for line in words.splitlines()] == ["single", "people", "gru", "ngrams"]
    assert "100% (51%–100%) of 4" in words
    assert "50% (" in words.splitlines()[2].split("of 4")[-1]  # who takes both for people errs half of the time
    assert "0% (0%" in words.splitlines()[3].split("of 4")[-1]
    lines = list(csv.DictReader(io.StringIO(exported(folder, rows, ".csv"))))
    objects = [json.loads(line) for line in exported(folder, rows, ".jsonl").splitlines()]
    assert len(lines) == len(objects) == 36
    assert {line["rater"] for line in lines} == {"1", "2"}
    assert objects[0]["boxes"] == " | ".join(next(iter(items.values())).boxes)
    assert "cookie" not in str(lines) + str(objects)


async def test_a_rater_is_told_and_forgotten(folder: Path, store: Store) -> None:
    ratings = BlindRatings(folder, store, "single")
    for user in ("a", "b"):
        await ratings.rate("web", user, (await ratings.next("web", user)).memes, YES)
    assert len((await store.export("web", "a"))["ratings"]) == 3
    await store.forget("web", "a", 0.0)
    assert {row["user"] for row in await store.ratings()} == {"b"}


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("{", "no JSON"),
        ("{}", "needs file"),
        ('{"file": "x.jpg", "picture": "p", "system": "s", "boxes": []}', "no picture x.jpg"),
        ('{"file": "captions.jsonl", "picture": "p", "system": "s", "boxes": []}', "no picture captions.jsonl"),
        ('{"file": "cat0.jpg", "picture": "p", "system": "s", "boxes": "b"}', "boxes"),
        ('{"file": "cat0.jpg", "picture": "cat", "system": "people", "boxes": []}', "twice"),
        ("\n", ""),
    ],
)
def test_a_line_that_is_no_meme_is_named(folder: Path, line: str, sentence: str) -> None:
    with (folder / "captions.jsonl").open("a") as file:
        file.write("\n" + line)
    if not sentence:
        assert len(Sheet(folder).items) == 6
        return
    with pytest.raises(SheetError, match=sentence):
        Sheet(folder)


def test_a_folder_without_memes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SheetError, match="cannot be read"):
        Sheet(tmp_path)
    (tmp_path / "captions.jsonl").write_text("")
    with pytest.raises(SheetError, match="no memes"):
        Sheet(tmp_path)


# ------------------------------------------------------------------ intervals


def test_wilson_as_published() -> None:
    """Newcombe (1998), table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29."""
    for hits, of, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        assert Share(hits, of).interval == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


def test_the_difference_of_shares_as_published() -> None:
    """Newcombe (1998 b), table II, example 56/70 − 48/80: 0.0524 to 0.3339; an error rate is (1 + difference) / 2."""
    found = error_rate(Share(48, 80), Share(56, 70))
    assert found == tuple(pytest.approx((1 + d) / 2, abs=5e-5) for d in (0.2, 0.0524, 0.3339))
    assert error_rate(Share(), Share(1, 2)) is None


@given(st.integers(0, 60), st.integers(0, 60))
def test_an_interval_holds_its_share_and_is_the_same_from_the_other_side(hits: int, rest: int) -> None:
    low, high = Share(hits, hits + rest).interval
    assert 0 <= low <= Share(hits, hits + rest).value <= high <= 1
    assert Share(rest, hits + rest).interval == (pytest.approx(1 - high), pytest.approx(1 - low))


def test_intervals_hold_the_true_share_about_as_often_as_they_say() -> None:
    for p in (0.1, 0.3, 0.5):
        held = 0.0
        for hits in range(41):
            low, high = Share(hits, 40).interval
            held += comb(40, hits) * p**hits * (1 - p) ** (40 - hits) * (low <= p <= high)
        assert 0.92 < held < 0.98


# ------------------------------------------------------------------ the command


def test_the_command_wants_a_folder_a_store_and_a_kind_of_file(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "setup", lambda *_: None)  # it would be every later test's
    monkeypatch.chdir(tmp_path)
    where = [f"store.path={tmp_path / 'data/q.db'}", f"rate.folder={folder}"]
    assert main(["ratings", where[0]]) == 1
    assert "rate.folder" in capsys.readouterr().err
    assert main(["ratings", *where]) == 1
    assert "no database" in capsys.readouterr().err
    asyncio.run(opened(tmp_path / "data/q.db"))
    assert main(["ratings", "answers.txt", *where]) == 1
    assert ".csv or .jsonl" in capsys.readouterr().err
    assert main(["ratings", str(tmp_path / "missing" / "answers.csv"), *where]) == 1
    assert "answers.csv cannot be written: No such file" in capsys.readouterr().err
    assert main(["ratings", *where]) == 0
    assert "Nobody has rated" in capsys.readouterr().out
    assert main(["ratings", f"rate.folder={tmp_path / 'nowhere'}", where[0]]) == 1
    assert "cannot be read" in capsys.readouterr().err


async def opened(path: Path) -> None:
    async with Store(path):
        pass
