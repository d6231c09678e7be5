"""What adapters may ask of the bot: from a posted picture to a remembered meme, from a reaction to a stored vote."""

import dataclasses
import json
import logging
import math
import random
import secrets
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from bot import emoji, places, policy
from bot.config import Learn, Reply
from bot.emoji import Ballot
from bot.events import (
    BadRequest,
    Change,
    Engine,
    Expected,
    Failed,
    Figures,
    Forbidden,
    Forgotten,
    ImagePosted,
    Kept,
    Made,
    MemeRecord,
    MemeReply,
    Outcome,
    Place,
    Placed,
    Ranked,
    ReactionChanged,
    Request,
    Settings,
    Stats,
    Store,
    Style,
    TooSoon,
    Wish,
    Withdrawn,
)
from bot.feed import Feed, Listener
from bot.health import Health
from bot.posted import PostedWords
from bot.wishes import checked_boxes, checked_seed, wish_of

log = logging.getLogger(__name__)

MAX_ALT = 1024
"""Characters of alt text that platforms take."""
MAX_LATEST = 200
MAX_PLACES = 10_000
"""Places whose settings are kept in memory."""
DAY = 86_400


class Service:
    """Brings policy, engine and store together. `clock` gives seconds since the epoch, `dice` numbers in [0, 1)."""

    def __init__(
        self,
        engine: Engine,
        store: Store,
        health: Health,
        settings: Reply,
        learn: Learn = Learn(),  # noqa: B008, frozen
        *,
        clock: Callable[[], float] = time.time,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self._engine = engine
        self._store = store
        self._health = health
        self._settings = settings
        self._learn = learn
        self._ballot = Ballot.of(learn.up, learn.down)
        self._told: Callable[[str, str], None] = lambda platform, chat: None
        self._clock = clock
        self._dice = dice
        self._feed = Feed()
        self._defaults = Settings(
            passive=settings.passive,
            chance=settings.chance,
            cooldown_chat=settings.cooldown,
            cooldown_user=settings.cooldown_user,
            filter=settings.filter,
            emoji=tuple(map(emoji.normalised, settings.emoji)),
        )
        self._posted = PostedWords()
        self._changed: dict[Place, dict[str, Any]] = {}
        self._spoke: dict[tuple[str, str], float] = {}
        """When the bot last answered in a chat unasked."""
        self._served: dict[tuple[str, str], float] = {}
        """When a user was last given a meme; only users with a cool-down are in it."""
        self._forgotten: dict[tuple[str, str], float] = {}
        """When users were forgotten, by the monotonic clock: what was begun before for them is not to be kept."""

    def on_votes(self, tell: Callable[[str, str], None]) -> None:
        """Have `tell` called with the platform and the chat where votes change, or one of several captions is picked;
        with "" for votes forgotten."""
        self._told = tell

    async def accept(self, request: Request) -> bool:
        """Take a request on; it is on the disk when this returns. False where it was taken on before."""
        with _guarded():
            return await self._store.accept(request, self._clock())

    async def unfinished(self, platform: str) -> list[Request]:
        """What an earlier process took on and did not finish, oldest first; what is too late ends as expired."""
        with _guarded():
            return await self._store.unfinished(platform, self._clock())

    async def concerns(self, platform: str, request: str, message: str) -> None:
        """It has turned out which message has the picture that a request asks for."""
        with _guarded():
            await self._store.concerns(platform, request, message)

    async def sending(self, platform: str, request: str) -> bool:
        """The answer is about to be sent. False where the request has ended meanwhile: then it is not to be sent."""
        with _guarded():
            return await self._store.sending(platform, request)

    async def finish(self, platform: str, request: str, outcome: Outcome, why: str = "") -> None:
        """A request is done with; `why` is the sentence that was shown."""
        with _guarded():
            await self._store.finish(platform, request, outcome, why)

    def ahead(self, platform: str, request: str) -> int | None:
        """How many pictures come before that of a request; None when it does not wait (any more)."""
        return self._engine.ahead(_ticket(platform, request))

    async def post(self, event: ImagePosted) -> MemeReply | None:
        """Answer a picture; None where policy says to stay silent."""
        place = event.place or _own_place(event.platform, event.chat)
        settings = await self.settings(place)
        if not await self._answers(event, settings):
            return None
        wish = self._of_chat(wish_of(event, self._settings.explore, settings.filter), event.platform, event.chat)
        wish = dataclasses.replace(wish, request=_ticket(event.platform, event.request))
        wish = dataclasses.replace(wish, features=settings.consent and wish.style == "meme" and not wish.own_boxes)
        turn = self._turn(event.platform, event.user, settings) if event.addressed else nullcontext()
        with turn, self._counted(event.platform, wish.style) as line:
            began = time.monotonic()
            made = await self._engine.make(event.fetch, wish)
            line |= made.stages
            kept = Kept(
                made.data,
                made.picture,
                template=made.template,
                mirrored=made.mirrored,
                spoiler=event.spoiler,
                request=event.request,
                features=made.features,
                place=place.chat,
            )
            record = self._record(event.platform, event.chat, event.user, wish, made)
            record = dataclasses.replace(
                record,
                server=event.place.server if event.place else "",
                message=event.message,
                author=event.author or event.user,
            )
            return await self._finish(record, kept, wish, line, began)

    async def redo(
        self,
        meme: str,
        user: str,
        *,
        candidate: int | None = None,
        seed: int | None = None,
        place: Place | None = None,
        request: str = "",
    ) -> MemeReply:
        """Another meme of the same picture: the given candidate of that meme drawn, or new captions by a new seed."""
        old = await self._store.record(meme, user)
        settings = await self._admitted(old, user, place)
        if candidate is not None:
            return await self._redraw(old, user, candidate, settings, request)
        seed = checked_seed(seed)
        explore = old.style == "meme" and policy.explores(seed, self._settings.explore)
        count = len(old.candidates) or 3
        wish = Wish(old.style, seed, candidates=count, again=True, explore=explore, filter=settings.filter)
        wish = self._of_chat(wish, old.platform, old.chat)
        return await self._again(old, user, wish, settings, request)

    async def own_text(
        self, meme: str, user: str, boxes: Sequence[str], *, place: Place | None = None, request: str = ""
    ) -> MemeReply:
        """The user's own words on a meme's picture; raises `Blocked`."""
        old = await self._store.record(meme, user)
        boxes = checked_boxes(boxes)
        settings = await self._admitted(old, user, place)
        wish = Wish("meme", old.seed, own_boxes=boxes, description=old.description, filter=settings.filter)
        return await self._again(old, user, wish, settings, request)

    async def meme_at(self, platform: str, chat: str, message: str) -> str:
        """The id of the meme that was sent as this message; raises `NotFound`."""
        return await self._store.reply(platform, chat, message)

    async def check_kept(self, meme: str) -> MemeRecord:
        """A meme that buttons can work on; raises `NotFound`, or `Gone` where its picture is not kept any more."""
        record = await self._store.record(meme)
        await self._store.check_kept(meme)
        return record

    async def reply(self, meme: str) -> MemeReply:
        """A meme as it was made, to be sent after a crash; raises `Gone`."""
        with _guarded():
            record = await self._store.record(meme)
            kept = Kept(await self._store.picture(meme), spoiler=await self._store.spoiler(meme))
            return _reply(record, kept)

    async def fit(self, reply: MemeReply, max_bytes: int) -> MemeReply:
        """The same meme, encoded smaller; raises `TooLarge` where it cannot be."""
        with _guarded():
            data, content_type = await self._engine.fit(reply.data, max_bytes)
            return dataclasses.replace(reply, data=data, content_type=content_type)

    async def react(self, change: ReactionChanged) -> None:
        """Count a vote; adding twice counts once; raises `NotFound` for a meme that is not ours."""
        change = dataclasses.replace(change, emoji=emoji.normalised(change.emoji))
        with _guarded():
            meme = change.meme or await self._store.reply(change.platform, change.chat, change.message)
            if await self._store.react(meme, change, self._clock()):
                await self._tell_votes(meme, int(change.added), int(not change.added))

    async def set_votes(
        self, platform: str, chat: str, message: str, votes: Collection[tuple[str, str]], *, user: str | None = None
    ) -> None:
        """Exactly these (user, emoji) votes stand on the meme that was sent as `message`; with `user`, of that user."""
        wanted = {(voter, known) for voter, written in votes if (known := emoji.known(written))}
        with _guarded():
            meme = await self._store.reply(platform, chat, message)
            new, gone = await self._store.set_votes(meme, platform, wanted, self._clock(), user=user)
            await self._tell_votes(meme, new, gone)

    async def count_votes(
        self, platform: str, chat: str, message: str, totals: Mapping[str, int], *, named: bool
    ) -> None:
        """Votes that a platform tells as totals by emoji only; with `named`, votes by name are part of the totals."""
        wanted = {known: total for written, total in totals.items() if (known := emoji.known(written))}
        with _guarded():
            meme = await self._store.reply(platform, chat, message)
            new, gone = await self._store.count_votes(meme, platform, wanted, self._clock(), named=named)
            await self._tell_votes(meme, new, gone)

    async def clear_votes(self, platform: str, chat: str, message: str, written: str | None = None) -> None:
        """All votes on a meme are gone, or all with one emoji."""
        only = None if written is None else emoji.normalised(written)
        with _guarded():
            meme = await self._store.reply(platform, chat, message)
            await self._tell_votes(meme, 0, await self._store.clear_votes(meme, only))

    async def standing(self, platform: str, since: float) -> list[Placed]:
        """Memes that were made since and stand in a chat, newest first."""
        return await self._store.standing(platform, since)

    async def sent(self, meme: str, message: str) -> None:
        """The meme stands in its chat as this message; votes may name it so from now on. Its request is answered."""
        with _guarded():
            await self._store.sent(meme, message)

    async def check_deletable(self, meme: str, user: str, *, moderator: bool = False) -> None:
        """Raises `Forbidden` for anybody but a meme's asker, the picture's author and moderators; `NotFound`."""
        record = await self._store.record(meme)
        if not moderator and user not in (record.user, record.author):
            raise Forbidden("Only who asked for it, whose picture it is, or a moderator can delete this meme.")

    async def delete(self, meme: str, user: str, *, moderator: bool = False) -> None:
        """Forget a meme; raises what `check_deletable` raises."""
        await self.check_deletable(meme, user, moderator=moderator)
        with _guarded():
            record = await self._store.record(meme)
            await self._store.delete([meme])
        self._posted.drop(meme)
        self._feed.tell(Change("gone", record.platform, record.chat, meme))

    async def deleted(self, platform: str, chat: str, message: str) -> list[Placed]:
        """A message is gone from its chat: forget the meme that it was, and requests for memes of its picture.

        Those that stand in the chat are returned, for the adapter to delete, and to tell of in the same way: until then
        they are remembered, so that a later process can go on with it.
        """
        with _guarded():
            await self._store.withdraw(platform, chat, message, "The picture was deleted.")
            memes = await self._store.about(platform, chat, message)
            gone = [placed for placed in memes if placed.message in ("", message)]
            await self._store.delete([placed.meme for placed in gone])
            for placed in gone:
                self._posted.drop(placed.meme)
                self._feed.tell(Change("gone", platform, placed.chat, placed.meme))
            return [placed for placed in memes if placed not in gone]

    async def settings(self, place: Place) -> Settings:
        """How the bot behaves there; the filter is never off outside a chat for adults."""
        changed = self._changed.get(place)
        if changed is None:
            if len(self._changed) >= MAX_PLACES:
                self._changed.clear()
            with _guarded():
                changed = self._changed[place] = await self._store.settings(place)
        return places.effective(self._defaults, changed, place.adult)

    async def change_settings(self, place: Place, user: str, changes: Mapping[str, Any]) -> Settings:
        """Set some of a place's settings by name (None: as its server or the configuration has it); `BadRequest`."""
        checked = places.checked(changes, place.adult)
        with _guarded():
            await self._store.change_settings(place, user, checked, self._clock())
        self._changed.clear()
        return await self.settings(place)

    async def moved(self, platform: str, old: str, new: str) -> None:
        """The platform gave a chat another number: what is remembered of it goes with it."""
        with _guarded():
            await self._store.move(platform, old, new)
        self._changed.clear()
        self._told(platform, "")

    async def opt_out(self, platform: str, user: str, out: bool) -> None:
        """Whether other people may have memes made of this user's pictures."""
        with _guarded():
            await self._store.opt_out(platform, user, out, self._clock())

    async def opted_out(self, platform: str, user: str) -> bool:
        return await self._store.opted_out(platform, user)

    async def leaderboard(
        self, place: Place, *, among: Collection[str] | None = None, days: float = 30, limit: int = 10
    ) -> list[Ranked]:
        """The memes with the best votes, of a chat, or of a server where `place.chat` is empty: of chats `among`."""
        with _guarded():
            tallies = await self._store.tallies(place, self._clock() - days * DAY, among)
            scores = {meme: self._ballot.verdict(votes) for meme, votes in tallies.items()}
            liked = [meme for meme, (up, down) in scores.items() if up > down]
            best = sorted(liked, key=lambda meme: (scores[meme][1] - scores[meme][0], -scores[meme][0], meme))
            return [Ranked(await self._store.record(meme), *scores[meme]) for meme in best[:limit]]

    async def stats(self) -> Stats:
        """The serving model, and how its memes are received."""
        with _guarded():
            memes, votes = await self._store.votes(self._engine.model)
            return Stats(self._engine.model, memes, *self._ballot.verdict(votes))

    async def figures(self) -> Figures:
        """Memes, votes, models and retrainings, for the operator."""
        with _guarded():
            ballot, now = self._ballot, self._clock()
            figures = await self._store.figures(ballot.up, ballot.down, self._engine.model, now)
            return dataclasses.replace(figures, stages=self._health.stages())

    async def export(self, platform: str, user: str) -> bytes:
        """Everything that is remembered of a user, as JSON."""
        with _guarded():
            rows = await self._store.export(platform, user)
            rows["words_posted_lately"] = self._posted.by(platform, user)
            return json.dumps(rows, ensure_ascii=False, indent=1).encode()

    async def forget(self, platform: str, user: str) -> Forgotten:
        """Remove everything of a user but the wish not to be memed."""
        _note(self._forgotten, (platform, user), time.monotonic())
        with _guarded():
            try:
                forgotten = await self._store.forget(platform, user, self._clock())
            finally:  # after the store: what was being written down is, and its words are known by now
                self._posted.forget(platform, user)
            for placed in forgotten.gone:
                self._feed.tell(Change("gone", platform, placed.chat, placed.meme))
            for placed in forgotten.voted:
                self._feed.tell(Change("reactions", platform, placed.chat, placed.meme))
            self._told(platform, "")
            return forgotten

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
        """The chat's last memes whose pictures are kept, oldest first, with votes."""
        return await self._store.latest(platform, chat, user, max(0, min(limit, MAX_LATEST)))

    def changes(self, platform: str, chat: str) -> Listener:
        """What new memes, votes and forgotten memes a chat has from now on, until it is closed or the bot stops."""
        return self._feed.listen(platform, chat)

    def close(self) -> None:
        """End every iterator of changes."""
        self._feed.close()

    def _of_chat(self, wish: Wish, platform: str, chat: str) -> Wish:
        """The wish as a chat has it: by its taste, and by the model on trial in a share of the chats."""
        trial = policy.tries(platform, chat, self._learn.trial_share)
        return dataclasses.replace(wish, chat=chat_key(platform, chat), trial=trial)

    async def _answers(self, event: ImagePosted, settings: Settings) -> bool:
        """Whether a picture is answered; raises `Forbidden` where it is asked for and its author opted out."""
        owner = event.author or event.user
        if event.from_bot or not (event.addressed or settings.passive):
            return False
        if (owner != event.user or not event.addressed) and await self.opted_out(event.platform, owner):
            if event.addressed:
                raise _opted_out()
            return False
        now, chat = self._clock(), (event.platform, event.chat)
        answers = policy.answers(
            addressed=event.addressed,
            from_bot=event.from_bot,
            chance=settings.chance,
            dice=self._dice(),
            quiet_for=now - self._spoke.get(chat, -math.inf),
            cooldown=settings.cooldown_chat,
        )
        if answers and not event.addressed and settings.cooldown_chat:
            _note(self._spoke, chat, now)
        return answers

    @contextmanager
    def _turn(self, platform: str, user: str, settings: Settings) -> Iterator[None]:
        """Raises `TooSoon` within a user's cool-down; else it begins anew, unless nothing comes of the work."""
        if not settings.cooldown_user:
            yield
            return
        key, now = (platform, user), self._clock()
        before = self._served.get(key, -math.inf)
        left = settings.cooldown_user - (now - before)
        if left > 0:
            wait = math.ceil(left)
            raise TooSoon(f"One at a time: try again in {wait} s.", wait)
        _note(self._served, key, now)
        try:
            yield
        except BaseException:  # cancelled, too: what is resumed would be too soon after itself
            if self._served.get(key) == now:  # else another one was served meanwhile
                self._served[key] = before
            raise

    async def _admitted(self, old: MemeRecord, user: str, place: Place | None) -> Settings:
        """The settings for another meme of a meme's picture; raises `Forbidden`."""
        settings = await self.settings(place or _own_place(old.platform, old.chat))
        if old.author not in ("", user) and await self.opted_out(old.platform, old.author):
            raise _opted_out()
        return settings

    async def _redraw(self, old: MemeRecord, user: str, number: int, settings: Settings, request: str) -> MemeReply:
        """One of the meme's candidates drawn; the model need not be asked again."""
        if not 0 <= number < len(old.candidates):
            raise BadRequest(f"That meme has {len(old.candidates)} captions to choose from, counted from 0.")
        boxes = old.candidates[number].boxes
        known = Wish(old.style, old.seed, description=old.description, filter=settings.filter)
        wish = dataclasses.replace(known, own_boxes=boxes, picked=True)
        return await self._again(old, user, wish, settings, request, chosen=number)

    async def _again(
        self, old: MemeRecord, user: str, wish: Wish, settings: Settings, request: str, chosen: int | None = None
    ) -> MemeReply:
        """Another meme of a meme's picture, in the same chat. With `chosen`, one of the meme's own captions."""
        spoiler = await self._store.spoiler(old.id)
        wish = dataclasses.replace(
            wish,
            context=self._posted.of(old.id, self._clock()),
            moving=wish.moving | {old.content_type},
            request=_ticket(old.platform, request),
            kept=True,
        )
        if wish.own_boxes:
            template, mirrored = await self._store.layout(old.id)
            wish = dataclasses.replace(wish, template=template, mirrored=mirrored)
        with self._turn(old.platform, user, settings), self._counted(old.platform, wish.style) as line:
            began = time.monotonic()
            made = await self._engine.make(lambda _: self._store.source(old.id), wish)
            line |= made.stages
            record = self._record(old.platform, old.chat, user, wish, made)
            record = dataclasses.replace(record, server=old.server, message=old.message, author=old.author)
            if chosen is not None:
                record = dataclasses.replace(record, model=old.model, candidates=old.candidates, chosen=chosen)
            kept = Kept(
                made.data,
                parent=old.id,
                template=made.template,
                mirrored=made.mirrored,
                spoiler=spoiler,
                request=request,
                picked=chosen is not None,
            )
            reply = await self._finish(record, kept, wish, line, began)
        if kept.picked:
            self._told(old.platform, old.chat)
        return reply

    async def _tell_votes(self, meme: str, new: int, gone: int) -> None:
        """Count votes that were written, and let every window know."""
        self._health.count_reaction(True, new)
        self._health.count_reaction(False, gone)
        if new or gone:
            record = await self._store.record(meme)
            self._feed.tell(Change("reactions", record.platform, record.chat, meme))
            self._told(record.platform, record.chat)

    async def _finish(
        self, record: MemeRecord, kept: Kept, wish: Wish, line: dict[str, object], began: float
    ) -> MemeReply:
        """Write the meme down, and only then tell of it.

        Raises `Withdrawn` where whom it is for, or whose picture it is, was forgotten since the work began.
        """
        if any(self._forgotten.get((record.platform, who), -math.inf) >= began for who in (record.user, record.author)):
            raise Withdrawn("This meme was asked for before everything was forgotten, so it is not kept.")
        await self._store.add(record, kept)
        if kept.parent:
            self._posted.hand_on(kept.parent, record)
        else:
            self._posted.keep(record, wish.context)
        line |= {"meme": record.id, "seed": record.seed, "model": record.model}
        self._feed.tell(Change("meme", record.platform, record.chat, record.id))
        return _reply(record, kept)

    def _record(self, platform: str, chat: str, user: str, wish: Wish, made: Made) -> MemeRecord:
        return MemeRecord(
            id=secrets.token_hex(12),
            platform=platform,
            chat=chat,
            user=user,
            created=self._clock(),
            alt=alt_text(_shown(made), made.boxes),
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


def chat_key(platform: str, chat: str) -> str:
    """One name for a chat among all platforms'."""
    return f"{platform}:{chat}"


def _own_place(platform: str, chat: str) -> Place:
    """A chat of a platform that knows no adults' chats: there the operator's configuration is all there is."""
    return Place(platform, chat, adult=True)


def _ticket(platform: str, request: str) -> str:
    """What the engine calls a request; "" for what was not accepted as one."""
    return f"{platform}:{request}" if request else ""


def _opted_out() -> Forbidden:
    return Forbidden("Whose picture this is does not want memes made of it.")


def _note(times: dict[tuple[str, str], float], key: tuple[str, str], now: float) -> None:
    """Write a time down; those of more than a day ago are of no cool-down any more."""
    if len(times) >= MAX_PLACES:
        for old in [other for other, at in times.items() if now - at > DAY]:
            del times[old]
    times[key] = now


def _shown(made: Made) -> str:
    """What the picture is: a known template by its name, of which descriptions say wrong things."""
    return f"the meme template {made.template.replace('-', ' ')}" if made.template else made.description


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
