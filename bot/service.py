"""What adapters may ask of the bot: from a posted picture to a remembered meme, from a reaction to a stored vote."""

import dataclasses
import logging
import math
import random
import secrets
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from bot import emoji, policy
from bot.config import Reply
from bot.events import (
    BadRequest,
    Change,
    Engine,
    Expected,
    Failed,
    ImagePosted,
    Kept,
    Made,
    MemeRecord,
    MemeReply,
    ReactionChanged,
    Store,
    Style,
    Wish,
)
from bot.feed import Feed, Listener
from bot.health import Health

log = logging.getLogger(__name__)

MAX_ALT = 1024
"""Characters of alt text that platforms take."""
MAX_CANDIDATES = 10
MAX_WORDS = 1000
"""Characters of a user's own text, all boxes together."""
MAX_BOXES = 10
MAX_CONTEXT = 500
MAX_SEED = 2**63 - 1
"""What SQLite holds; the bot itself draws smaller ones, which every JSON reader gets right."""
MAX_LATEST = 200


class Service:
    """Brings policy, engine and store together. `clock` gives seconds since the epoch, `dice` numbers in [0, 1)."""

    def __init__(
        self,
        engine: Engine,
        store: Store,
        health: Health,
        settings: Reply,
        *,
        clock: Callable[[], float] = time.time,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self._engine = engine
        self._store = store
        self._health = health
        self._settings = settings
        self._clock = clock
        self._dice = dice
        self._feed = Feed()
        self._spoke: dict[tuple[str, str], float] = {}

    async def post(self, event: ImagePosted) -> MemeReply | None:
        """Answer a picture; None where policy says to stay silent."""
        if not self._answers(event):
            return None
        wish = _wish(event, self._settings.explore)
        with self._counted(event.platform, wish.style) as line:
            made = await self._engine.make(event.fetch, wish)
            line |= made.stages
            kept = Kept(made.data, made.picture, message=event.message, template=made.template, spoiler=event.spoiler)
            record = self._record(event.platform, event.chat, event.user, wish, made)
            return await self._finish(record, kept, line)

    async def redo(self, meme: str, user: str, *, candidate: int | None = None, seed: int | None = None) -> MemeReply:
        """Another meme of the same picture: the given candidate of that meme drawn, or new captions by a new seed."""
        old = await self._store.record(meme, user)
        if candidate is not None:
            return await self._redraw(old, user, candidate)
        seed = _seed(seed)
        explore = old.style == "meme" and policy.explores(seed, self._settings.explore)
        wish = Wish(style=old.style, seed=seed, candidates=len(old.candidates) or 3, explore=explore)
        return await self._again(old, user, wish)

    async def own_text(self, meme: str, user: str, boxes: Sequence[str]) -> MemeReply:
        """The user's own words on a meme's picture."""
        old = await self._store.record(meme, user)
        wish = Wish(style="meme", seed=old.seed, own_boxes=_own_boxes(boxes), description=old.description)
        return await self._again(old, user, wish)

    async def react(self, change: ReactionChanged) -> None:
        """Count a vote; adding twice counts once; raises `NotFound` for a meme that is not ours."""
        change = dataclasses.replace(change, emoji=emoji.normalised(change.emoji))
        with _guarded():
            meme = change.meme or await self._store.reply(change.platform, change.chat, change.message)
            if not await self._store.react(meme, change, self._clock()):
                return
            self._health.count_reaction(change.added)
            self._feed.tell(Change("reactions", await self._store.record(meme)))

    async def sent(self, meme: str, message: str) -> None:
        """The meme stands in its chat as this message; votes may name it so from now on."""
        with _guarded():
            await self._store.sent(meme, message)

    async def explain(self, meme: str) -> bytes:
        """A PNG: the words of the meme over the attention they paid."""
        record = await self._store.record(meme)
        return await self._engine.explain(lambda _: self._store.source(meme), record.boxes, record.style)

    async def picture(self, meme: str) -> tuple[bytes, str]:
        """The drawn meme and its content type."""
        record = await self._store.record(meme)
        return await self._store.picture(meme), record.content_type

    async def record(self, meme: str, user: str = "") -> MemeRecord:
        return await self._store.record(meme, user)

    async def latest(self, platform: str, chat: str, user: str, limit: int = 30) -> list[MemeRecord]:
        """The chat's last memes, oldest first, with votes."""
        return await self._store.latest(platform, chat, user, max(0, min(limit, MAX_LATEST)))

    def changes(self, platform: str, chat: str) -> Listener:
        """Every new meme and vote of a chat from now on, until the iterator is closed or the bot stops."""
        return self._feed.listen(platform, chat)

    def close(self) -> None:
        """End every iterator of changes."""
        self._feed.close()

    def _answers(self, event: ImagePosted) -> bool:
        now, chat = self._clock(), (event.platform, event.chat)
        answers = policy.answers(
            addressed=event.addressed,
            from_bot=event.from_bot,
            chance=self._settings.chance,
            dice=self._dice(),
            quiet_for=now - self._spoke.get(chat, -math.inf),
            cooldown=self._settings.cooldown,
        )
        if answers and not event.addressed and self._settings.cooldown:
            self._spoke = {key: at for key, at in self._spoke.items() if now - at < self._settings.cooldown}
            self._spoke[chat] = now
        return answers

    async def _redraw(self, old: MemeRecord, user: str, place: int) -> MemeReply:
        """One of the meme's candidates drawn; the model need not be asked again."""
        if not 0 <= place < len(old.candidates):
            raise BadRequest(f"That meme has {len(old.candidates)} captions to choose from, counted from 0.")
        wish = Wish(old.style, old.seed, own_boxes=old.candidates[place].boxes, description=old.description)
        return await self._again(old, user, wish, chosen=place)

    async def _again(self, old: MemeRecord, user: str, wish: Wish, chosen: int | None = None) -> MemeReply:
        """Another meme of a meme's picture, in the same chat. With `chosen`, one of the meme's own captions."""
        spoiler = await self._store.spoiler(old.id)
        with self._counted(old.platform, wish.style) as line:
            made = await self._engine.make(lambda _: self._store.source(old.id), wish)
            line |= made.stages
            record = self._record(old.platform, old.chat, user, wish, made)
            if chosen is not None:
                record = dataclasses.replace(record, model=old.model, candidates=old.candidates, chosen=chosen)
            kept = Kept(made.data, parent=old.id, template=made.template, spoiler=spoiler)
            return await self._finish(record, kept, line)

    async def _finish(self, record: MemeRecord, kept: Kept, line: dict[str, object]) -> MemeReply:
        """Write the meme down, and only then tell of it."""
        await self._store.add(record, kept)
        line |= {"meme": record.id, "seed": record.seed, "model": record.model}
        self._feed.tell(Change("meme", record))
        return _reply(record, kept)

    def _record(self, platform: str, chat: str, user: str, wish: Wish, made: Made) -> MemeRecord:
        return MemeRecord(
            id=secrets.token_hex(12),
            platform=platform,
            chat=chat,
            user=user,
            created=self._clock(),
            alt=alt_text(made.description, made.boxes),
            boxes=made.boxes,
            description=made.description,
            style=wish.style,
            seed=wish.seed,
            model=made.model,
            candidates=made.candidates,
            chosen=made.chosen,
            explored=wish.explore,
            content_type=made.content_type,
            reactions={},
        )

    @contextmanager
    def _counted(self, platform: str, style: Style) -> Iterator[dict[str, object]]:
        """Log one line for a meme, made or not, and count it; the block adds to the line, never a user's words."""
        line: dict[str, object] = {}
        outcome = "cancelled"
        try:
            with _guarded():
                yield line
            outcome = "made"
        except Expected as error:
            outcome = type(error).__name__
            raise
        finally:
            stages = {key: round(value, 4) for key, value in line.items() if isinstance(value, float)}
            self._health.count_meme(style, outcome, stages)
            fields = {"outcome": outcome, "platform": platform, "style": style} | line | stages
            log.info("meme", extra={"fields": fields})


def alt_text(description: str, boxes: Sequence[str]) -> str:
    """What the picture shows and the words on it, as a sentence of at most 1,024 characters."""
    description = _shortened(description or "a picture", MAX_ALT // 2)
    words = [" ".join(box.split()) for box in boxes if box.strip()]
    if words == [description]:
        return f"{description}, which is also written on it"
    before = f"{description}, with the words “"
    return before + _shortened("” and “".join(words), MAX_ALT - len(before) - 1) + "”"


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _wish(event: ImagePosted, explore: float) -> Wish:
    """What the event asks of the engine; raises `BadRequest` where it asks for too much."""
    if not 1 <= event.candidates <= MAX_CANDIDATES:
        raise BadRequest(f"Between 1 and {MAX_CANDIDATES} captions can be asked for.")
    seed = _seed(event.seed)
    own = _own_boxes(event.own_boxes) if event.own_boxes else ()
    return Wish(
        style=event.style,
        seed=seed,
        candidates=event.candidates,
        context=_clean(event.text)[:MAX_CONTEXT],
        own_boxes=own,
        explore=not own and event.style == "meme" and policy.explores(seed, explore),
    )


def _seed(given: int | None) -> int:
    """The given seed, or a random one that people can type."""
    if given is None:
        return secrets.randbelow(2**31)
    if not 0 <= given <= MAX_SEED:
        raise BadRequest(f"A seed is a whole number from 0 to {MAX_SEED}.")
    return given


def _own_boxes(boxes: Iterable[str]) -> tuple[str, ...]:
    """A user's words as they can be drawn and stored; raises `BadRequest` for none or too many."""
    cleaned = tuple(_clean(box) for box in boxes)
    if not any(cleaned):
        raise BadRequest("There are no words to write on the picture.")
    if len(cleaned) > MAX_BOXES or sum(map(len, cleaned)) > MAX_WORDS:
        raise BadRequest(f"At most {MAX_WORDS} characters in {MAX_BOXES} boxes fit on a picture.")
    return cleaned


def _clean(text: str) -> str:
    """One line, without control characters and halves of surrogate pairs."""
    return "".join(char for char in " ".join(text.split()) if unicodedata.category(char) not in ("Cc", "Cs"))


def _reply(record: MemeRecord, kept: Kept) -> MemeReply:
    return MemeReply(
        id=record.id,
        data=kept.picture,
        content_type=record.content_type,
        alt=record.alt,
        boxes=record.boxes,
        description=record.description,
        seed=record.seed,
        model=record.model,
        candidates=record.candidates,
        chosen=record.chosen,
        explored=record.explored,
        spoiler=kept.spoiler,
    )


@contextmanager
def _guarded() -> Iterator[None]:
    """What nobody expected keeps its traceback in the log, and becomes a sentence."""
    try:
        yield
    except Expected:
        raise
    except Exception as error:
        log.exception("a request failed")
        raise Failed("Something broke on the bot's side. Its log says what.") from error
