"""What learns while the bot serves: real service, engine and store; models that say who they are."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from bot.config import Config
from bot.database import beside
from bot.engine import Engine
from bot.events import (
    Fetch,
    ImagePosted,
    Judgement,
    Kept,
    MemeReply,
    Place,
    Preference,
    ReactionChanged,
    Wish,
)
from bot.health import Health
from bot.learn import versions
from bot.learn.learner import PAUSE, Learner, rest_after
from bot.learn.retraining import Retraining
from bot.service import Service
from bot.store import Store
from captioner.captioner import Captioned, Captioner, ModelError
from captioner.captioner import Wish as ModelWish
from captioner.draw import Lettering
from captioner.images import Picture

from .conftest import NOON, Trained, meme, react
from .test_versions import add

Posted = Callable[..., ImagePosted]
Configured = Callable[..., Config]


class Named:
    """The real captioner, which describes every picture by its own name."""

    def __init__(self, inner: Captioner, name: str) -> None:
        self.inner = inner
        self.name = name

    def caption(self, jobs: Sequence[tuple[Picture, ModelWish]]) -> list[Captioned]:
        if "mute" in self.name:
            raise RuntimeError("nothing comes to mind")
        made = self.inner.caption(jobs)
        return [dataclasses.replace(each, description=self.name, model=self.name) for each in made]

    def read(self, data: bytes) -> Picture:
        return self.inner.read(data)

    def letter(
        self, picture: Picture, boxes: Sequence[str], template: str | None, *, mirrored: bool, own: bool
    ) -> list[Lettering]:
        return []


@dataclass
class Bot:
    service: Service
    engine: Engine
    store: Store
    health: Health
    learner: Learner

    def promote(self, version: str) -> None:
        with beside(self.store.path) as db:
            versions.promote(db, self.store.path, version, self.base, 1.0)

    base = ""

    async def serves(self, model: str) -> None:
        async with asyncio.timeout(60):
            while self.engine.model != model:
                await asyncio.sleep(0.01)


@asynccontextmanager
async def bot_with(config: Config, captioner: Captioner, store: Store, **changes: object) -> AsyncIterator[Bot]:
    """A bot that learns; the files of its models may hold anything but b"broken"."""

    def load(path: Path | None) -> Named:
        if path is not None and path.read_bytes() == b"broken":
            raise ModelError(f"The model file {path} cannot be read: it is broken.")
        return Named(captioner, path.stem if path else "shipped")

    config = dataclasses.replace(config, captioner=dataclasses.replace(config.captioner, model=""))
    health = Health()
    promoted = (await store.serving("")).model
    first = str(versions.file(store.path, promoted)) if promoted else ""
    async with Engine(config, load, first=first) as engine:  # type: ignore[arg-type]
        service = Service(engine, store, health, config.reply, config.learn)
        learner = Learner(config, engine, store, health, Retraining(config), **changes)  # type: ignore[arg-type]
        service.on_votes(learner.voted)
        task = asyncio.create_task(learner.run())
        yield Bot(service, engine, store, health, learner)
        task.cancel()
        await asyncio.wait([task])


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WATCH", "SETTLE", "FIGURES"):
        monkeypatch.setattr(f"bot.learn.learner.{name}", 0.02)


@pytest.fixture
async def bot(configured: Configured, captioner: Captioner, store: Store) -> AsyncIterator[Bot]:
    add(store.path, "learnt-0001", "learnt-0002", "mute")
    async with bot_with(configured("learn.every=0", "engine.batch=4"), captioner, store) as bot:
        yield bot


async def test_a_promoted_model_serves_and_can_be_taken_back(bot: Bot, posted: Posted) -> None:
    await bot.serves("shipped")
    bot.promote("learnt-0001")
    await bot.serves("learnt-0001")
    reply = await bot.service.post(posted())
    assert reply is not None
    assert (reply.model, reply.description) == ("learnt-0001", "learnt-0001")
    with beside(bot.store.path) as db:
        versions.roll_back(db, "", 2.0)
    await bot.serves("shipped")


async def test_the_bot_tells_commands_which_model_promotions_are_of(bot: Bot) -> None:
    async with asyncio.timeout(60):
        while True:
            with beside(bot.store.path) as db:
                if versions.noted_base(db) is not None:
                    break
            await asyncio.sleep(0.01)
    with beside(bot.store.path) as db:
        assert (versions.noted_base(db), versions.name_of(db, "")) == ("", "shipped")
        assert versions.name_of(db, "mine.safetensors") is None


async def test_a_promoted_model_that_does_not_serve_any_more_is_spoken_of(
    configured: Configured, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    add(store.path, "learnt-0001")
    with beside(store.path) as db:
        versions.promote(db, store.path, "learnt-0001", "another.safetensors", 1.0)
    config, engine = configured(), Tasting()
    engine.file = config.captioner.model
    learner = Learner(config, engine, store, Health(), Retraining(config))
    for _ in range(2):
        await learner._watch()
    assert caplog.text.count("so it serves instead of the promoted learnt-0001") == 1


@pytest.mark.parametrize("trouble", ["broken", "gone", "mute"])
async def test_what_does_not_work_never_serves(
    bot: Bot, posted: Posted, trouble: str, caplog: pytest.LogCaptureFixture
) -> None:
    name = "mute" if trouble == "mute" else "learnt-0001"
    bot.promote(name)
    if trouble == "broken":
        versions.file(bot.store.path, name).write_bytes(b"broken")
    if trouble == "gone":
        versions.file(bot.store.path, name).unlink()
    async with asyncio.timeout(60):
        while (await bot.store.serving("")).model:
            reply = await bot.service.post(posted())
            assert reply is not None
            assert reply.model == "shipped"
    with beside(bot.store.path) as db:
        state, words = db.execute("SELECT state, words FROM models WHERE id = ?", [name]).fetchone()
    assert state == "broken"
    assert words.endswith(".")
    assert f"{name} does not serve, shipped goes on" in caplog.text


async def test_after_an_upgrade_what_does_not_load_any_more_gives_way(
    configured: Configured, captioner: Captioner, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    add(store.path, "learnt-0001")
    with beside(store.path) as db:
        versions.promote(db, store.path, "learnt-0001", "", 1.0)
    config = configured("learn.every=0")
    async with bot_with(config, captioner, store) as bot:
        assert bot.engine.model == "learnt-0001"
    versions.file(store.path, "learnt-0001").write_bytes(b"broken")
    async with bot_with(config, captioner, store) as bot:
        assert bot.engine.model == "shipped"
        async with asyncio.timeout(60):
            while (await store.serving("")).model:
                await asyncio.sleep(0.01)
    assert "the promoted model does not serve, captioner.model does: The model file" in caplog.text


async def test_swapping_under_load_fails_nobody_and_every_reply_names_its_maker(bot: Bot, posted: Posted) -> None:
    replies: list[MemeReply] = []
    done = asyncio.Event()

    async def ask(number: int) -> None:
        seed = number
        while not done.is_set():
            seed += 8
            reply = await bot.service.post(posted(seed))
            assert reply is not None
            replies.append(reply)

    async with asyncio.TaskGroup() as tasks:
        for number in range(8):
            tasks.create_task(ask(number))
        for name in ("learnt-0001", "learnt-0002", "learnt-0001", "learnt-0002"):
            bot.promote(name)
            await bot.serves(name)
            before = len(replies)
            while len(replies) < before + 16:
                await asyncio.sleep(0.01)
        done.set()
    assert {reply.model for reply in replies} >= {"learnt-0001", "learnt-0002"}
    assert all(reply.model == reply.description for reply in replies)
    for reply in replies[::7]:
        assert (await bot.store.record(reply.id)).model == reply.model


async def test_a_model_on_trial_serves_its_share_of_the_chats(
    configured: Configured, captioner: Captioner, store: Store, posted: Posted
) -> None:
    add(store.path, "learnt-0001", state="trial")
    now = 100.0
    config = configured("learn.every=0", "learn.trial_share=0.5", "learn.trial_days=1")
    async with bot_with(config, captioner, store, clock=lambda: now) as bot:
        async with asyncio.timeout(60):
            while not bot.engine.trial_file:
                await asyncio.sleep(0.01)
        makers = {}
        for chat in map(str, range(12)):
            reply = await bot.service.post(posted(chat=chat))
            again = await bot.service.redo(reply.id, "u") if reply else None
            assert reply is not None
            assert again is not None
            assert reply.model == again.model
            makers[chat] = reply.model
        assert set(makers.values()) == {"shipped", "learnt-0001"}
        now += 2 * 86_400
        await bot.serves("learnt-0001")
    with beside(store.path) as db:
        assert db.execute("SELECT state FROM models").fetchone() == ("promoted",)


async def test_a_model_that_is_liked_less_ends_its_trial(store: Store) -> None:
    add(store.path, "learnt-0001", state="trial")
    for number in range(40):
        for model, emoji in (("learnt-0001", "👎"), ("shipped", "👍")):
            name = f"{model}{number}"
            await store.add(meme(name, model=model, created=NOON + number), Kept(b"drawn"))
            await store.react(name, ReactionChanged("test", "ann", emoji, added=True), NOON + 60)
    from bot.emoji import Ballot

    better, words = await store.compared(Ballot.of(["👍"], ["👎"]), "learnt-0001", "shipped", NOON)
    assert not better
    assert "-100.0 points" in words
    await store.end_trial("learnt-0001", "", better, words, NOON)
    assert (await store.serving("")).trial == ""


async def test_a_chats_votes_rank_its_next_captions(
    configured: Configured,
    captioner: Captioner,
    voted: Store,
    fetching: Callable[[bytes], Fetch],
    jpeg: Callable[..., bytes],
) -> None:
    """Every caption with the commonest word of some was disliked: then others come first."""
    async with Engine(configured(), lambda _: captioner) as engine:
        wish = Wish(seed=3, chat="test:c", candidates=3)
        before = await engine.make(fetching(jpeg(1)), wish)
        health = Health()
        learner = Learner(configured("learn.every=0"), engine, voted, health, Retraining(configured()))
        for number in range(40):
            name = f"n{number:02d}"
            boxes = before.boxes if number % 2 else ("something else", "entirely")
            await voted.add(meme(name, boxes=boxes, created=NOON + 100 + number), Kept(b"drawn"))
            vote = ReactionChanged("test", "ann", "👎" if number % 2 else "👍", added=True)
            await voted.react(name, vote, NOON + 200)
        task = asyncio.create_task(learner.run())
        async with asyncio.timeout(60):
            while (await engine.make(fetching(jpeg(1)), wish)).boxes == before.boxes:
                learner.voted("test", "c")
        task.cancel()
        await asyncio.wait([task])


class Tasting:
    """Stands in for the engine: which tastes there are, and of how many votes each is."""

    file = trial_file = model = ""

    def __init__(self) -> None:
        self.tastes: dict[str, int] = {}
        self.bare = 0
        """How often a fit began while there were none."""

    async def taste(self, chat: str, judged: Sequence[Judgement], preferred: Sequence[Preference]) -> None:
        if not (judged or preferred):
            self.tastes.clear()
            return
        self.bare += not self.tastes
        self.tastes[chat] = len(judged)


async def test_tastes_stay_until_they_are_fitted_anew_and_forget_who_is_forgotten(
    configured: Configured, voted: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.learn.learner.PAUSE", 0.0)
    monkeypatch.setattr("bot.learn.learner.MOST_TASTES", 1)
    engine = Tasting()
    learner = Learner(configured(), engine, voted, Health(), Retraining(configured()))
    await voted.add(meme("old", chat="d", created=NOON - 60), Kept(b"drawn"))
    await react(voted, "old", "bob", "👍")
    learner.voted("test", "d")
    await learner._fit()
    assert engine.tastes == {"test:c": 31, "": 31}
    learner.voted("test", "d")
    await learner._fit()
    assert set(engine.tastes) == {"test:c", "test:d", ""}
    began = engine.bare
    await voted.forget("test", "bob", 0.0)
    learner.voted("test", "")
    await learner._fit()
    assert engine.tastes == {"test:c": 30, "": 30}
    assert engine.bare == began + 1  # the quick one, after the one that takes long


def test_fitting_rests_but_not_for_minutes() -> None:
    assert rest_after(0.1) == pytest.approx(1.9)
    assert rest_after(60) == PAUSE


async def test_what_people_pick_ranks_the_next_captions(bot: Bot, posted: Posted) -> None:
    """Without a single vote: the caption that nobody picked does not come first any more."""
    first = await bot.service.post(posted(seed=3, candidates=2))
    assert first is not None
    for number in range(10):
        await bot.service.redo(first.id, f"u{number}", candidate=1)
    async with asyncio.timeout(60):
        while (again := await bot.service.post(posted(seed=3, candidates=2))) is None or again.boxes == first.boxes:
            await asyncio.sleep(0.01)


async def test_features_are_kept_where_the_chat_consented(bot: Bot, posted: Posted) -> None:
    def kept() -> int:
        with beside(bot.store.path) as db:
            return int(db.execute("SELECT count(*) FROM features").fetchone()[0])

    place = Place("test", "c", "s")
    await bot.service.post(posted(place=place))
    assert kept() == 0
    await bot.service.change_settings(place, "admin", {"consent": True})
    await bot.service.post(posted(place=place))
    await bot.service.post(posted(place=place, own_boxes=("mine",)))
    assert kept() == 1


async def test_figures_are_for_the_operator_and_for_metrics(bot: Bot, posted: Posted, voted: Store) -> None:
    await bot.service.post(posted())
    figures = await bot.service.figures()
    assert figures.versions[-1].id in ("tiny", "shipped")
    tiny = next(version for version in figures.versions if version.id == "tiny")
    assert (tiny.memes, tiny.approval) == (30, pytest.approx(2 / 3))
    assert tiny.low < 2 / 3 < tiny.high
    assert figures.best[0].boxes == ("top", "m29")
    assert figures.worst[0].down == 2
    assert set(figures.stages) == {"wait", "read", "caption", "draw"}
    async with asyncio.timeout(60):
        while b'quipbot_model_approval{model="tiny"} 0.66' not in bot.health.metrics()[0]:
            await asyncio.sleep(0.01)
    assert b'quipbot_model_serving{model="shipped"} 1.0' in bot.health.metrics()[0]


async def test_all_retrainings_are_counted(voted: Store) -> None:
    """Not only those that the dashboard shows."""
    with beside(voted.path) as db, db.atomic():
        for number in range(1, 31):
            outcome = "" if number == 30 else "failed" if number <= 10 else "refused"
            row = {"number": number, "began": NOON, "parent": "", "model": f"learnt-{number:04d}", "outcome": outcome}
            db.table("retrainings").insert(row)
    health = Health()
    health.learnt(await voted.figures([], [], "tiny", NOON))
    told = health.metrics()[0]
    for outcome, count in (("failed", 10), ("refused", 19), ("running", 1)):
        assert f'quipbot_retrainings{{outcome="{outcome}"}} {count}.0'.encode() in told


async def test_it_retrains_by_itself(
    configured: Configured, captioner: Captioner, voted: Store, trained: Trained
) -> None:
    config = configured("learn.least=10")
    async with Engine(config, lambda path: captioner) as engine:
        learner = Learner(config, engine, voted, Health(), trained("learn.least=10"))
        task = asyncio.create_task(learner.run())
        async with asyncio.timeout(60):
            while not (await voted.serving(config.captioner.model)).model:
                await asyncio.sleep(0.02)
            while "learnt-0001" not in engine.file:
                await asyncio.sleep(0.02)
        task.cancel()
        await asyncio.wait([task])
