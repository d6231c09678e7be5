"""A whole retraining but for its captioner, which is a stand-in."""

import asyncio
import json
import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bot.config import Config
from bot.database import StoreError, beside
from bot.events import Kept, Retrained
from bot.learn import runs, versions
from bot.learn.retraining import Retraining, Running
from bot.learn.versions import Serving
from bot.store import Store
from captioner.checkpoint import Checkpoint

from .conftest import NOON, meme, react

ROOT = Path(__file__).parents[3]
Trained = Callable[..., Retraining]


def state(store: Store, version: str) -> tuple[str, str]:
    with beside(store.path) as db:
        return tuple(db.execute("SELECT state, words FROM models WHERE id = ?", [version]).fetchone())


async def serving(retraining: Retraining, store: Store) -> Serving:
    return await store.serving(retraining.config.captioner.model)


async def test_a_better_model_is_promoted(voted: Store, trained: Trained) -> None:
    retraining = trained()
    done = await retraining.run()
    assert (done.outcome, done.model, done.labels) == ("promoted", "learnt-0001", 30)
    assert done.words == "Approval rises."
    assert await serving(retraining, voted) == Serving("learnt-0001")
    file = versions.file(voted.path, "learnt-0001")
    assert Checkpoint.load(file).name == "learnt-0001"
    folder = voted.path.parent / "learn" / "0001"
    assert not folder.joinpath("labels.jsonl").exists()
    assert json.loads(folder.joinpath("verdict.json").read_text())["promote"] is True
    assert not file.with_suffix("").exists()
    again = await retraining.run()
    assert again.model == "learnt-0002"
    with beside(voted.path) as db:
        assert db.execute("SELECT parent, figures FROM models WHERE id = 'learnt-0002'").fetchone() == (
            "learnt-0001",
            json.dumps({"steps": 3, "resumed": 0, "labels": 30}),
        )


async def test_a_refused_one_is_kept_with_its_verdict(
    voted: Store, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REFUSES", "1")
    retraining = trained("learn.keep=2")
    assert (await retraining.run()).outcome == "refused"
    assert await serving(retraining, voted) == Serving()
    assert versions.file(voted.path, "learnt-0001").exists()
    assert state(voted, "learnt-0001") == ("refused", "It says the same of everything.")
    for _ in range(2):
        await retraining.run()
    assert state(voted, "learnt-0001")[0] == "removed"
    assert sorted(file.stem for file in voted.path.parent.joinpath("models").iterdir()) == [
        "learnt-0002",
        "learnt-0003",
    ]


async def test_a_trial_comes_first_where_there_are_trials(voted: Store, trained: Trained) -> None:
    retraining = trained("learn.trial_share=0.2")
    assert (await retraining.run()).outcome == "trial"
    assert await serving(retraining, voted) == Serving(trial="learnt-0001")
    await voted.end_trial("learnt-0001", retraining.config.captioner.model, True, "Well received.", 5.0)
    assert await serving(retraining, voted) == Serving("learnt-0001")


@pytest.mark.parametrize(
    ("trouble", "value", "outcome", "words"),
    [
        ("TOO_FEW", "1", "too few", "12 votes are too few."),
        ("FAILS", "finetune", "failed", "It broke on purpose."),
        ("FAILS", "gate", "failed", "It broke on purpose."),
        (
            "KILLED",
            "finetune",
            "failed",
            "Fine-tuning was ended by signal 9; the machine may have been short of memory.",
        ),
    ],
)
async def test_what_can_go_wrong(
    voted: Store, trained: Trained, monkeypatch: pytest.MonkeyPatch, trouble: str, value: str, outcome: str, words: str
) -> None:
    monkeypatch.setenv(trouble, value)
    done = await trained().run()
    assert (done.outcome, done.words) == (outcome, words)
    assert list(voted.path.parent.joinpath("models").iterdir()) == []


async def test_without_votes_or_a_database(store: Store, trained: Trained) -> None:
    assert (await trained().run()).outcome == "too few"
    other = store.path.with_name("other.db")
    with pytest.raises(StoreError, match="start the bot first"):
        await trained(f"store.path={other}").run()
    with beside(store.path) as db:
        db.execute("VACUUM INTO ?", [str(other)])
    with pytest.raises(StoreError, match="belongs to"):
        await trained(f"store.path={other}").run()


async def began(retraining: Retraining) -> "asyncio.Task[Retrained]":
    """A retraining that has done some steps of many."""
    task = asyncio.create_task(retraining.run())
    state = versions.file(retraining.config.store.path, "learnt-0001").with_suffix("")
    async with asyncio.timeout(60):
        while not state.is_dir() or len(list(state.iterdir())) < 2:
            await asyncio.sleep(0.01)
    return task


async def test_only_one_at_a_time_and_the_next_goes_on(
    voted: Store, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEPS", "500")
    task = await began(trained())
    with pytest.raises(Running):
        await trained().run()
    task.cancel()
    await asyncio.wait([task])
    monkeypatch.setenv("STEPS", "5")
    done = await trained().run()
    assert (done.number, done.outcome) == (1, "promoted")
    with beside(voted.path) as db:
        (figures,) = db.execute("SELECT figures FROM models").fetchone()
    assert json.loads(figures)["resumed"] >= 2


async def test_who_is_forgotten_meanwhile_is_not_learnt_from(
    voted: Store, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.learn.process.ASK", 0.05)
    monkeypatch.setenv("STEPS", "500")
    task = await began(trained())
    await voted.forget("test", "ann", 0.0)
    assert not voted.path.parent.joinpath("learn", "0001", "labels.jsonl").exists()
    assert (await task).outcome == "abandoned"
    assert list(voted.path.parent.joinpath("models").iterdir()) == []
    monkeypatch.setenv("STEPS", "1")
    assert (await trained().run()).model == "learnt-0002"


async def test_another_model_promoted_meanwhile_stays(
    voted: Store, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    await trained().run()
    monkeypatch.setenv("STEPS", "60")
    retraining = trained()
    task = asyncio.create_task(retraining.run())
    async with asyncio.timeout(60):
        while not versions.file(voted.path, "learnt-0002").with_suffix("").exists():
            await asyncio.sleep(0.01)
    with beside(voted.path) as db:
        versions.roll_back(db, retraining.config.captioner.model, 7.0)
    assert (await task).outcome == "unjudged"
    assert await serving(retraining, voted) == Serving()


async def test_of_two_models_on_trial_the_newer_one_is_tried(
    voted: Store, trained: Trained, configured: Callable[..., Config]
) -> None:
    for _ in range(2):
        retraining = trained("learn.trial_share=0.2")
        assert (await retraining.run()).outcome == "trial"
    base = retraining.config.captioner.model
    with beside(voted.path) as db:
        states = {row["id"]: row["state"] for row in db.query("SELECT id, state FROM models")}
    assert states == {"learnt-0001": "refused", "learnt-0002": "trial"}
    await voted.end_trial("learnt-0001", base, True, "Late.", 5.0)
    assert await serving(retraining, voted) == Serving(trial="learnt-0002")
    await voted.end_trial("learnt-0002", base, True, "Well received.", 6.0)
    assert await serving(retraining, voted) == Serving("learnt-0002")


def begun(store: Store, number: int) -> int:
    """How often fine-tuning began in a run."""
    log = store.path.parent / "learn" / f"{number:04d}" / "log.txt"
    return log.read_text().splitlines().count("finetune began")


async def test_what_an_older_database_left_is_not_taken_for_new(voted: Store, trained: Trained) -> None:
    await trained().run()
    with beside(voted.path) as db:  # a backup of before is put back, or a new database begun
        for table in ("retrainings", "models", "promotions"):
            db.execute(f"DELETE FROM {table}")
        db.conn.commit()
    done = await trained().run()
    assert (done.model, done.outcome) == ("learnt-0002", "promoted")
    assert (begun(voted, 1), begun(voted, 2)) == (1, 1)


async def test_a_candidate_of_other_labels_is_not_taken_for_new(voted: Store, trained: Trained) -> None:
    await trained().run()
    with beside(voted.path) as db:  # the backup is of while it went on
        db.execute("UPDATE retrainings SET ended = NULL, outcome = ''")
        db.execute("DELETE FROM models")
        db.execute("DELETE FROM promotions")
        db.conn.commit()
    assert (await trained().run()).model == "learnt-0001"
    assert begun(voted, 1) == 2


async def test_an_operators_own_checkpoint_beside_the_versions_stays(voted: Store, trained: Trained) -> None:
    own = voted.path.parent / "models" / "mine.safetensors"
    own.parent.mkdir(exist_ok=True)
    own.write_bytes(b"weights")
    left = own.with_name("learnt-0999.safetensors")
    left.write_bytes(b"of a run that was killed")
    await trained().run()
    assert own.read_bytes() == b"weights"
    assert not left.exists()


async def test_it_is_due_when_there_are_new_votes_and_some_time_has_passed(
    voted: Store, trained: Trained, configured: Callable[..., Config]
) -> None:
    def due(now: float, *overrides: str) -> bool:
        retraining = trained()
        learn = configured("learn.least=20", *overrides).learn
        ballot = retraining.ballot
        with beside(voted.path) as db:
            return runs.due(db, learn, ballot, now)

    now = 2e9
    assert due(now)
    assert not due(now, "learn.least=31")
    assert not due(now, "learn.every=0")
    await trained(clock=lambda: now).run()
    assert not due(now + 90_000)  # nothing new
    for number in range(20):
        await voted.add(meme(f"n{number}", created=now + number), Kept(b"drawn"))
        await react(voted, f"n{number}", "ann", "👍", later=now + 60 - NOON)
    assert not due(now + 80_000)
    assert due(now + 90_000)
    assert not due(now + 90_000, "learn.least=21")
    for number in range(30):  # what was learnt from may go without others being waited for
        await voted.delete([f"m{number:02d}"])
    assert due(now + 90_000)
    with beside(voted.path) as db:
        db.execute("UPDATE models SET state = 'trial'")
        db.conn.commit()
    assert not due(now + 90_000)
    with beside(voted.path) as db:
        db.execute("UPDATE retrainings SET ended = NULL")
        db.conn.commit()
    assert due(now + 1)  # an unfinished one


async def test_killed_at_any_moment_the_next_one_finishes(
    voted: Store, configured: Callable[..., Config], tmp_path: Path
) -> None:
    """`kill -9` of `python -m bot retrain` and whatever it started; benchmarks/learning_kills.py does it often."""
    model = configured().captioner.model
    command = [sys.executable, "-m", "tests.fakes.learning_bot", "retrain", f"store.path={voted.path}"]
    environ = os.environ | {"PYTHONPATH": str(ROOT), "STEPS": "20"}
    dice, killed, rounds = random.Random(5), 0, 0
    while killed < 4:
        rounds += 1
        process = await asyncio.create_subprocess_exec(
            *command, f"captioner.model={model}", env=environ, cwd=tmp_path, stdout=asyncio.subprocess.DEVNULL
        )
        try:
            async with asyncio.timeout(dice.uniform(0.3, 4.0)):
                assert await process.wait() in (0, 1)
        except TimeoutError:
            process.send_signal(signal.SIGKILL)
            await process.wait()
            killed += 1
        with beside(voted.path) as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        for file in voted.path.parent.glob("models/*.safetensors"):
            assert Checkpoint.load(file).name == file.stem
    process = await asyncio.create_subprocess_exec(
        *command, f"captioner.model={model}", env=environ, cwd=tmp_path, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert b": promoted. Approval rises." in out
    with beside(voted.path) as db:
        assert runs.get(db, 1).outcome == "promoted"
