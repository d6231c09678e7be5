import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.database import beside
from bot.learn import versions
from bot.learn.versions import Serving, VersionError
from bot.store import Store

NAMES = ("learnt-0001", "learnt-0002", "learnt-0003")
STEPS = st.lists(st.one_of(st.none(), st.sampled_from(NAMES)), max_size=12)


def add(store: Path, *names: str, state: str = "refused") -> None:
    with beside(store) as db:
        for place, name in enumerate(names):
            row = {"id": name, "parent": "", "created": place, "state": state, "labels": 5}
            db.table("models").insert(row | {"figures": "{}", "verdict": "{}"})
            file = versions.file(store, name)
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(b"weights")


@given(STEPS)
@settings(max_examples=15, deadline=None)
def test_promotions_are_a_stack(tmp_path_factory: pytest.TempPathFactory, steps: list[str | None]) -> None:
    store = tmp_path_factory.mktemp("store") / "q.db"
    migrated(store)
    add(store, *NAMES)
    stack: list[str] = []
    with beside(store) as db:
        for step in steps:
            if step is None and not stack:
                with pytest.raises(VersionError):
                    versions.roll_back(db, "", time.time())
            elif step is None:
                assert versions.roll_back(db, "", time.time())[0] == stack.pop()
            elif stack and stack[-1] == step:
                with pytest.raises(VersionError, match="serves already"):
                    versions.promote(db, store, step, "", time.time())
            else:
                versions.promote(db, store, step, "", time.time())
                stack.append(step)
            assert versions.serving(db, "").model == (stack[-1] if stack else "")


def migrated(path: Path) -> None:
    """An empty database of this version."""
    store = Store(path)
    store._open()
    store._closing.close()
    store._thread.shutdown()


async def test_what_cannot_be_promoted(store: Store) -> None:
    add(store.path, *NAMES)
    versions.file(store.path, NAMES[0]).unlink()
    with beside(store.path) as db:
        with pytest.raises(VersionError, match="There is no model x"):
            versions.promote(db, store.path, "x", "", 1.0)
        with pytest.raises(VersionError, match="its file is gone"):
            versions.promote(db, store.path, NAMES[0], "", 1.0)


async def test_a_broken_version_gives_way_to_the_one_before(store: Store) -> None:
    add(store.path, *NAMES)
    with beside(store.path) as db:
        for name in NAMES[:2]:
            versions.promote(db, store.path, name, "", 1.0)
    await store.broken(NAMES[1], "It does not load.", 2.0)
    assert await store.serving("") == Serving(NAMES[0])
    await store.broken(NAMES[0], "Nor does this.", 2.0)
    assert await store.serving("") == Serving()


def on_trial(store: Path, *, against: str) -> None:
    add(store, *NAMES)
    with beside(store) as db:
        versions.promote(db, store, NAMES[0], "", 1.0)
        with db.atomic():
            db.execute("UPDATE models SET state = 'trial', parent = ? WHERE id = ?", [against, NAMES[1]])


def state_of(store: Path, version: str) -> str:
    with beside(store) as db:
        return str(db.execute("SELECT state FROM models WHERE id = ?", [version]).fetchone()[0])


@pytest.mark.parametrize("command", ["promote", "rollback"])
async def test_what_the_operator_decides_ends_a_trial(store: Store, command: str) -> None:
    on_trial(store.path, against=NAMES[0])
    with beside(store.path) as db:
        if command == "promote":
            versions.promote(db, store.path, NAMES[2], "", 2.0)
        else:
            versions.roll_back(db, "", 2.0)
        decided = versions.serving(db, "")
    assert decided == Serving(NAMES[2] if command == "promote" else "")
    await store.end_trial(NAMES[1], "", True, "Well received.", 3.0)
    assert await store.serving("") == decided
    assert state_of(store.path, NAMES[1]) == "unjudged"


async def test_a_trial_against_what_does_not_serve_any_more_promotes_nothing(store: Store) -> None:
    on_trial(store.path, against=NAMES[0])
    await store.broken(NAMES[0], "It does not load.", 2.0)
    await store.end_trial(NAMES[1], "", True, "Well received.", 3.0)
    assert await store.serving("") == Serving()
    assert state_of(store.path, NAMES[1]) == "unjudged"


async def test_whoever_is_on_trial_may_be_promoted_by_hand(store: Store) -> None:
    on_trial(store.path, against=NAMES[0])
    with beside(store.path) as db:
        versions.promote(db, store.path, NAMES[1], "", 2.0)
    assert await store.serving("") == Serving(NAMES[1])
    assert state_of(store.path, NAMES[1]) == "promoted"


async def test_whoever_names_another_model_gets_it(store: Store) -> None:
    add(store.path, NAMES[0])
    with beside(store.path) as db:
        versions.promote(db, store.path, NAMES[0], "", 1.0)
    assert await store.serving("mine.safetensors") == Serving(stale=NAMES[0])
    assert await store.serving("") == Serving(NAMES[0])
