"""What learns while the bot runs: it watches which model is to serve, keeps up with each chat's taste, and retrains."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from bot.config import Config
from bot.emoji import Ballot
from bot.events import Expected, Failed, Figures, Judgement, Preference
from bot.health import Health
from bot.learn import versions
from bot.learn.retraining import Retraining, Running
from bot.learn.versions import Serving
from bot.service import chat_key
from bot.store import Store

log = logging.getLogger(__name__)

WATCH = 2.0
"""Seconds between two looks at which model is to serve."""
SETTLE = 5.0
"""Seconds that votes are collected for before tastes are fitted anew."""
SHARE = 0.05
"""Share of the time that fitting may take, but for `PAUSE`."""
PAUSE = 30.0
"""Seconds that fitting rests at most: a vote is to show within seconds."""
SCHEDULE = 60.0
"""Seconds between two looks at whether it is time to retrain."""
FIGURES = 60.0
"""Seconds between two updates of the figures for /metrics."""
DAY = 86_400.0
MOST_TASTES = 50
"""Chats whose tastes are fitted at the start, those that were judged last."""
ALL = ""
"""Stands for all chats."""


class Engine(Protocol):
    """What the learner needs of the engine."""

    file: str
    trial_file: str

    @property
    def model(self) -> str: ...

    async def swap(self, model: str) -> None: ...

    async def try_out(self, model: str) -> None: ...

    async def taste(self, chat: str, judged: Sequence[Judgement], preferred: Sequence[Preference]) -> None: ...


class Learner:
    """`run` until it is cancelled; then a retraining under way ends, and the next process goes on with it."""

    def __init__(
        self,
        config: Config,
        engine: Engine,
        store: Store,
        health: Health,
        retraining: Retraining,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._engine = engine
        self._store = store
        self._health = health
        self._retraining = retraining
        self._clock = clock
        self._ballot = Ballot.of(config.learn.up, config.learn.down)
        self._voted = {ALL}
        self._refused: str | None = None
        """The file that was tried last in vain."""
        self._noted: tuple[str, str | None] | None = None
        """What commands were told last."""
        self._stale = ""
        """The promoted version that does not serve, as the log says already."""

    def voted(self, platform: str, chat: str) -> None:
        """A chat's votes changed, or somebody picked; "" where somebody was forgotten, who may have done so in any."""
        self._voted.add(chat_key(platform, chat) if chat else ALL)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_repeated(self._watch, WATCH), name="models")
            tasks.create_task(_repeated(self._fit, SETTLE), name="tastes")
            tasks.create_task(_repeated(self._measure, FIGURES), name="figures")
            tasks.create_task(_repeated(self._retrain, SCHEDULE), name="retraining")

    async def _watch(self) -> None:
        """Serve what the models table says."""
        wanted = await self._store.serving(self._config.captioner.model)
        await self._serve(wanted)
        await self._note()
        if wanted.trial and self._config.learn.trial_share == 0:
            await self._end_trial(wanted.trial, True, "Trials are over.")
        elif self._engine.trial_file != self._path(wanted.trial):
            await self._try_out(wanted.trial)

    async def _serve(self, wanted: Serving) -> None:
        path = self._path(wanted.model) or self._config.captioner.model
        if wanted.stale not in ("", self._stale):
            log.info("captioner.model was changed, so it serves instead of the promoted %s", wanted.stale)
        self._stale = wanted.stale
        if path in (self._engine.file, self._refused):
            return
        try:
            await self._engine.swap(path)
            self._refused = None
        except Failed as error:
            log.error("%s does not serve, %s goes on: %s", wanted.model or path, self._engine.model, error)
            self._refused = path
            if wanted.model:
                await self._store.broken(wanted.model, str(error), self._clock())

    async def _note(self) -> None:
        """Let commands know which model promotions are of: they may have been started with other settings."""
        base = self._config.captioner.model
        now = (base, self._engine.model if self._engine.file == base else None)
        if now != self._noted:
            await self._store.note_base(*now)
            self._noted = now

    async def _try_out(self, version: str) -> None:
        try:
            await self._engine.try_out(self._path(version))
        except Failed as error:
            log.error("%s is not tried out: %s", version, error)
            await self._store.broken(version, str(error), self._clock())

    def _path(self, version: str) -> str:
        return str(versions.file(self._config.store.path, version)) if version else ""

    async def _fit(self) -> None:
        """What all chats like together, and each chat that voted; at the start, those that voted last."""
        chats, self._voted = self._voted, set()
        if not chats:
            return
        began = time.monotonic()
        judged, preferred = await self._store.opinions(self._ballot)
        order = [*chats, ALL]
        if ALL in chats:
            # The first fit takes long, the others are quick then: the old tastes serve until it is done. Then all of
            # them go, as somebody who was forgotten may have voted in a chat that is not fitted anew.
            await self._engine.taste(ALL, judged, preferred)
            await self._engine.taste(ALL, [], [])
            heard = [each.chat for each in judged] + [each.chat for each in reversed(preferred)]
            order = [ALL, *list(dict.fromkeys(heard))[:MOST_TASTES]]
        for chat in order:
            await self._engine.taste(chat, judged, preferred)
        await asyncio.sleep(rest_after(time.monotonic() - began))

    async def _measure(self) -> None:
        figures = await self._store.figures(self._ballot.up, self._ballot.down, self._engine.model, self._clock())
        self._health.learnt(figures)
        await self._judge_trial(figures)

    async def _judge_trial(self, figures: Figures) -> None:
        """After its days, the model on trial serves all chats unless it is surely received worse."""
        trial = next((each for each in figures.versions if each.state == "trial"), None)
        if trial is None or self._clock() - (trial.created or 0) < self._config.learn.trial_days * DAY:
            return
        better, words = await self._store.compared(self._ballot, trial.id, self._engine.model, trial.created or 0)
        await self._end_trial(trial.id, better, words)

    async def _end_trial(self, version: str, better: bool, words: str) -> None:
        log.info("trial ended", extra={"fields": {"model": version, "better": better, "words": words}})
        base = self._config.captioner.model
        await self._store.end_trial(version, base, better, words, self._clock())

    async def _retrain(self) -> None:
        if await self._store.due(self._config.learn, self._ballot, self._clock()):
            try:
                await self._retraining.run()
            except Running:
                log.debug("somebody else retrains")


def rest_after(seconds: float) -> float:
    """Seconds without fitting after so many of it."""
    return min(PAUSE, seconds * (1 / SHARE - 1))


async def _repeated(work: Callable[[], Awaitable[None]], pause: float) -> None:
    """Again and again; what nobody expected is logged, and the next time may go well."""
    while True:
        try:
            await work()
        except Expected as error:
            log.error("%s", error)
        except Exception:
            log.exception("learning failed")
        await asyncio.sleep(pause)
