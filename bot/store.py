"""What the bot remembers: one SQLite file, and a folder of pictures beside it.

SQLite and the file system are worked by a single thread. A picture is on the disk before the row that names it, and a
row is committed before anybody hears of it, so that a killed process leaves nothing worse than a file without a row.
"""

import asyncio
import hashlib
import json
import logging
import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from sqlite_utils import Database

from bot import folder, people, places, requests
from bot.config import Learn
from bot.database import StoreError, beside, connected, locked_by, migrate, refuse_newer
from bot.emoji import Ballot
from bot.events import (
    BadRequest,
    Candidate,
    Figures,
    Forgotten,
    Gone,
    Judgement,
    Kept,
    MemeRecord,
    NotFound,
    Outcome,
    Place,
    Placed,
    Preference,
    ReactionChanged,
    Request,
)
from bot.learn import figures, labels, runs, versions
from bot.learn.versions import Serving
from bot.ratings import rows as ratings

log = logging.getLogger(__name__)

MAX_REACTIONS = 20
"""Different emoji that one user can put on one meme."""

ANONYMOUS = "anonymous:"
"""What the names of voters begin with whose names the platform keeps to itself."""

Result = TypeVar("Result")
Row = dict[str, Any]


class Store:
    """`async with Store(path) as store:` opens or creates the database; raises `StoreError`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.pictures = path.parent / "pictures"
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._closing = ExitStack()
        self._new: list[tuple[Request, float, asyncio.Future[bool]]] = []
        self._accepting: asyncio.Task[None] | None = None
        self._db: Database

    async def __aenter__(self) -> Self:
        try:
            await self._call(self._open)
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._call(self._closing.close)
        self._thread.shutdown()

    async def accept(self, request: Request, at: float) -> bool:
        """A row for a request, before its platform hears of it; False where there is one already.

        Requests that come at once share a transaction: a hundred would wait for a hundred flushes of the disk.
        """
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._new.append((request, at, done))
        if self._accepting is None or self._accepting.done():
            self._accepting = asyncio.create_task(self._accept_new())
        return await done

    async def _accept_new(self) -> None:
        """Write what has come, until nothing more does; it ends with nobody's patience."""
        while self._new:
            batch, self._new = self._new, []
            try:
                known = await self._call(requests.accept, self._db, [(request, at) for request, at, _ in batch])
            except Exception as error:
                for _, _, done in batch:
                    if not done.done():
                        done.set_exception(error)
            else:
                for (_, _, done), new in zip(batch, known, strict=True):
                    if not done.done():
                        done.set_result(new)

    async def unfinished(self, platform: str, now: float) -> list[Request]:
        """Requests that an earlier process left behind, oldest first; those that are too late end as expired."""
        return await self._call(requests.unfinished, self._db, platform, now)

    async def concerns(self, platform: str, request: str, message: str) -> None:
        await self._call(requests.concerns, self._db, platform, request, message)

    async def sending(self, platform: str, request: str) -> bool:
        """The answer is about to be sent; False where the request has ended."""
        return await self._call(requests.sending, self._db, platform, request)

    async def finish(self, platform: str, request: str, outcome: Outcome, why: str = "") -> None:
        await self._call(requests.finish, self._db, platform, request, outcome, why)

    async def withdraw(self, platform: str, chat: str, message: str, why: str) -> None:
        """End what was asked of a message that is gone."""
        await self._call(requests.withdraw, self._db, platform, chat, message, why)

    async def counts(self, platform: str) -> dict[str, int]:
        """Requests by state, and how many answers may have been sent twice ("resent")."""
        return await self._call(requests.counts, self._db, platform)

    async def settings(self, place: Place) -> dict[str, Any]:
        """What was set for the chat or, where it was not, for its server."""
        return await self._call(places.settings, self._db, place)

    async def change_settings(self, place: Place, user: str, changes: Mapping[str, Any], at: float) -> None:
        """Write what was changed; where consent was taken back, features go."""
        await self._call(self._change_settings, place, user, changes, at)

    async def move(self, platform: str, old: str, new: str) -> None:
        """A chat has another number."""
        await self._call(places.move, self._db, platform, old, new)

    async def opt_out(self, platform: str, user: str, out: bool, at: float) -> None:
        await self._call(people.opt_out, self._db, platform, user, out, at)

    async def opted_out(self, platform: str, user: str) -> bool:
        return await self._call(people.opted_out, self._db, platform, user)

    async def export(self, platform: str, user: str) -> dict[str, Any]:
        """Every row that names the user."""
        return await self._call(people.export, self._db, platform, user)

    async def serving(self, base: str) -> Serving:
        """Which model versions are to serve where `captioner.model` is `base`."""
        return await self._call(versions.serving, self._db, base)

    async def note_base(self, base: str, name: str | None) -> None:
        """The running bot's `captioner.model`, and what that model calls itself where it serves."""
        await self._call(versions.note_base, self._db, base, name)

    async def broken(self, version: str, words: str, at: float) -> None:
        """A version that cannot serve."""
        await self._call(versions.broken, self._db, version, words, at)

    async def end_trial(self, version: str, base: str, better: bool, words: str, at: float) -> None:
        """The version on trial is promoted, or refused."""
        await self._call(versions.end_trial, self._db, version, base, better, words, at)

    async def figures(self, up: Collection[str], down: Collection[str], model: str, now: float) -> Figures:
        """What the operator sees of a bot that learns; `model` is the one that serves."""
        return await self._aside(figures.figures, Ballot(frozenset(up), frozenset(down)), model, now)

    async def compared(self, ballot: Ballot, new: str, old: str, since: float) -> tuple[bool, str]:
        """Whether a model on trial since then is received well enough to serve everybody, and why."""
        return await self._aside(figures.compared, ballot, new, old, since)

    async def due(self, learn: Learn, ballot: Ballot, now: float) -> bool:
        """Whether it is time to retrain."""
        return await self._call(runs.due, self._db, learn, ballot, now)

    async def opinions(self, ballot: Ballot) -> tuple[list[Judgement], list[Preference]]:
        """What is known of the newest memes with votes, and of what was picked among three."""
        return await self._aside(lambda db: (labels.judgements(db, ballot), labels.preferences(db)))

    async def forget(self, platform: str, user: str, at: float) -> Forgotten:
        """Remove the user's memes, pictures, votes, requests, and what is being learnt from them."""
        return await self._call(self._forget, platform, user, at)

    async def add(self, meme: MemeRecord, kept: Kept) -> None:
        """A new meme with its candidates and pictures, all or nothing."""
        await self._call(self._add, meme, kept)

    async def sent(self, meme: str, message: str) -> None:
        """The meme stands in its chat as this message; the request that it answers has ended."""
        await self._call(self._sent, meme, message)

    async def reply(self, platform: str, chat: str, message: str) -> str:
        """The id of the meme that was sent as this message."""
        where = "platform = ? AND chat = ? AND reply = ?"
        row = await self._call(self._meme, "id", where, platform, chat, message)
        return str(row["id"])

    async def react(self, meme: str, change: ReactionChanged, at: float) -> bool:
        """Write one vote (`change.emoji` is normalised); False where it stood so already."""
        return await self._call(self._react, meme, change, at)

    async def set_votes(
        self, meme: str, platform: str, votes: Collection[tuple[str, str]], at: float, *, user: str | None = None
    ) -> tuple[int, int]:
        """Exactly these (user, emoji) votes stand on a meme, or these of one user; how many were new, and gone."""
        return await self._call(self._set_votes, meme, platform, frozenset(votes), at, user)

    async def count_votes(
        self, meme: str, platform: str, totals: Mapping[str, int], at: float, *, named: bool
    ) -> tuple[int, int]:
        """So many votes an emoji without names; with `named`, named ones are part of them. How many new, and gone."""
        return await self._call(self._count_votes, meme, platform, dict(totals), at, named)

    async def clear_votes(self, meme: str, emoji: str | None) -> int:
        """Remove all votes on a meme, or those with one emoji; how many there were."""
        return await self._call(self._clear_votes, meme, emoji)

    async def standing(self, platform: str, since: float) -> list[Placed]:
        """Memes made since then that stand in a chat, newest first."""
        where = "platform = ? AND created >= ? AND reply IS NOT NULL ORDER BY created DESC"
        return await self._call(self._placed, where, platform, since)

    async def about(self, platform: str, chat: str, message: str) -> list[Placed]:
        """The memes made of this message's picture, or sent as this message."""
        where = "platform = ? AND chat = ? AND ? IN (message, reply)"
        return await self._call(self._placed, where, platform, chat, message)

    async def delete(self, memes: Sequence[str]) -> None:
        """Remove memes with their candidates, votes and pictures."""
        await self._call(self._delete, memes)

    async def tallies(
        self, place: Place, since: float, among: Collection[str] | None = None
    ) -> dict[str, dict[str, int]]:
        """Votes by emoji on each meme of a chat, or of a server, made since then; memes without votes are left out.

        With `among`, those of other chats are left out, too.
        """
        return await self._call(self._tallies, place, since, among)

    async def votes(self, model: str) -> tuple[int, dict[str, int]]:
        """How many memes have words that a model chose, and the votes on them by emoji."""
        return await self._call(self._votes, model)

    async def record(self, meme: str, user: str = "") -> MemeRecord:
        (record,) = await self._call(self._records, [meme], user)
        return record

    async def latest(self, platform: str, chat: str, user: str, limit: int) -> list[MemeRecord]:
        """The chat's last memes, oldest first."""
        return await self._call(self._latest, platform, chat, user, limit)

    async def picture(self, meme: str) -> bytes:
        """The drawn file; raises `Gone` when it is not kept any more."""
        return await self._call(self._file, meme, "picture")

    async def source(self, meme: str) -> bytes:
        """The picture without text; raises `Gone` when it is not kept any more."""
        return await self._call(self._file, meme, "source")

    async def spoiler(self, meme: str) -> bool:
        row = await self._call(self._meme, "spoiler", "id = ?", meme)
        return bool(row["spoiler"])

    async def layout(self, meme: str) -> tuple[str | None, bool]:
        """The template that the meme's picture is of, if any, and whether as in a mirror."""
        row = await self._call(self._meme, "template, mirrored", "id = ?", meme)
        return row["template"], bool(row["mirrored"])

    async def check_kept(self, meme: str) -> None:
        """Raises `Gone` where the picture without text is not kept any more."""
        await self._call(self._path, meme, "source")

    async def prune(self, before: float) -> None:
        """Forget the pictures that were posted, and the memes that were made, before a time; sweep stray files."""
        await self._call(self._prune, before)

    async def rate(self, platform: str, user: str, memes: Sequence[str], answers: Mapping[str, str], at: float) -> None:
        """One rater's answers on a meme to rate, or on two; without any, they were passed over."""
        await self._call(ratings.add, self._db, platform, user, memes, answers, at)

    async def take_rating_back(self, platform: str, user: str) -> tuple[str, ...]:
        """Remove a rater's last answers; the memes that they were on."""
        return await self._call(ratings.take_back, self._db, platform, user)

    async def ratings(self) -> list[Row]:
        """Every answer, oldest first."""
        return await self._call(ratings.all_of, self._db)

    async def _aside(self, work: Callable[..., Result], *args: object) -> Result:
        """Read what takes long on a connection of its own, so that nobody's meme waits for it."""

        def read() -> Result:
            with beside(self.path) as db:
                db.execute("BEGIN")  # one snapshot for all queries: memes may be deleted meanwhile
                return work(db, *args)

        return await asyncio.to_thread(read)

    async def _call(self, work: Callable[..., Result], *args: object) -> Result:
        """The one door to the store's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *args)

    def _open(self) -> None:
        try:
            folder.check(self.path)
            self.pictures.mkdir(parents=True, exist_ok=True)
            self._lock()
            self._db = self._closing.enter_context(closing(connected(self.path)))
            migrate(self._db, self.path)
            folder.claim(self.path)
            self._closing.callback(self._empty_log)
        except OSError as error:
            raise StoreError(f"The folder {self.path.parent} cannot be written: {error.strerror}.") from error
        except sqlite3.Error as error:
            raise StoreError(f"The database {self.path} cannot be used: {error}.") from error

    def _lock(self) -> None:
        """Hold a lock until the store closes or the process dies: sweeping would take another bot's new files."""
        connection = self._closing.enter_context(closing(sqlite3.connect(locked_by(self.path), timeout=0)))
        try:
            connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise
            raise StoreError(f"Another bot is using the database {self.path}.") from error

    def _add(self, meme: MemeRecord, kept: Kept) -> None:
        picture = self._keep(kept.picture)
        source, posted = (self._keep(kept.source), meme.created) if kept.source else (None, meme.created)
        with self._db.atomic():
            if kept.parent is not None and source is None:
                parent = self._meme("source, posted", "id = ?", kept.parent)
                source, posted = parent["source"], parent["posted"]
            row = {
                "id": meme.id,
                "platform": meme.platform,
                "chat": meme.chat,
                "server": meme.server,
                "message": meme.message,
                "user": meme.user,
                "author": meme.author,
                "created": meme.created,
                "posted": posted,
                "parent": kept.parent,
                "style": meme.style,
                "seed": meme.seed,
                "model": meme.model,
                "template": kept.template,
                "description": meme.description,
                "alt": meme.alt,
                "boxes": json.dumps(meme.boxes),
                "chosen": meme.chosen,
                "explored": meme.explored,
                "mirrored": kept.mirrored,
                "spoiler": kept.spoiler,
                "content_type": meme.content_type,
                "picture": picture,
                "source": source,
                "picked": kept.picked,
            }
            self._db.table("memes").insert(row)
            if kept.features and self._consents(meme, kept):
                self._db.execute(
                    "INSERT INTO features VALUES (?, ?, ?)", [meme.id, kept.place or meme.chat, kept.features]
                )
            self._db.table("candidates").insert_all(
                {
                    "meme": meme.id,
                    "place": place,
                    "boxes": json.dumps(candidate.boxes),
                    "logprob": candidate.logprob,
                    "reward": candidate.reward,
                    "score": candidate.score,
                }
                for place, candidate in enumerate(meme.candidates)
            )
            if kept.request:
                requests.made(self._db, meme.platform, kept.request, meme.id)

    def _consents(self, meme: MemeRecord, kept: Kept) -> bool:
        """Whether features may be kept now; consent may have been taken back while the meme was made."""
        place = Place(meme.platform, kept.place or meme.chat, meme.server)
        return bool(places.settings(self._db, place).get("consent"))

    def _keep(self, data: bytes) -> str:
        """Write a picture, named after its content, beside its target; flush it; rename it."""
        name = hashlib.sha256(data).hexdigest()[:40] + ".jpg"
        target = self.pictures / name
        if target.exists():
            return name
        draft = target.with_suffix(".part")
        with draft.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(target)
        _flush_folder(self.pictures)
        return name

    def _sent(self, meme: str, message: str) -> None:
        with self._db.atomic():
            if self._db.execute("UPDATE memes SET reply = ? WHERE id = ?", [message, meme]).rowcount == 0:
                raise NotFound("There is no such meme.")
            requests.answered(self._db, meme)

    def _react(self, meme: str, change: ReactionChanged, at: float) -> bool:
        with self._db.atomic():
            if self._meme("platform", "id = ?", meme)["platform"] != change.platform:
                raise NotFound("There is no such meme.")
            if change.added:
                self._check_room(meme, change)
                cursor = self._db.execute(
                    "INSERT OR IGNORE INTO reactions (meme, user, emoji, platform, created) VALUES (?, ?, ?, ?, ?)",
                    [meme, change.user, change.emoji, change.platform, at],
                )
            else:
                cursor = self._db.execute(
                    "DELETE FROM reactions WHERE meme = ? AND user = ? AND emoji = ?", [meme, change.user, change.emoji]
                )
            return cursor.rowcount > 0

    def _check_room(self, meme: str, change: ReactionChanged) -> None:
        (count,) = self._db.execute(
            "SELECT count(*) FROM reactions WHERE meme = ? AND user = ? AND emoji != ?",
            [meme, change.user, change.emoji],
        ).fetchone()
        if count >= MAX_REACTIONS:
            raise BadRequest(f"More than {MAX_REACTIONS} reactions to one meme are too many.")

    def _set_votes(
        self, meme: str, platform: str, votes: frozenset[tuple[str, str]], at: float, user: str | None
    ) -> tuple[int, int]:
        with self._db.atomic():
            stood = {vote for vote in self._voted(meme, platform) if user in (None, vote[0])}
            if user is None:
                votes = (votes & stood) | self._not_forgotten(meme, platform, votes - stood)
            return self._replace_votes(meme, platform, stood, votes, at)

    def _not_forgotten(self, meme: str, platform: str, votes: Set[tuple[str, str]]) -> frozenset[tuple[str, str]]:
        """Without those of people who had everything forgotten after the meme was made: they may be votes of before."""
        made: float = self._meme("created", "id = ?", meme)["created"]
        since = {user: people.forgotten_since(self._db, platform, user, made) for user, _ in votes}
        return frozenset(vote for vote in votes if not since[vote[0]])

    def _count_votes(self, meme: str, platform: str, totals: dict[str, int], at: float, named: bool) -> tuple[int, int]:
        with self._db.atomic():
            stood = self._voted(meme, platform)
            nameless = {vote for vote in stood if vote[0].startswith(ANONYMOUS)}
            if named:
                signed = Counter(emoji for _, emoji in stood - nameless)
                totals = {emoji: total - signed[emoji] for emoji, total in totals.items()}
            votes = {
                (f"{ANONYMOUS}{number}", emoji) for emoji, total in totals.items() for number in range(1, total + 1)
            }
            return self._replace_votes(meme, platform, nameless, votes, at)

    def _voted(self, meme: str, platform: str) -> set[tuple[str, str]]:
        """The (user, emoji) votes on a meme; raises `NotFound` where it is another platform's."""
        if self._meme("platform", "id = ?", meme)["platform"] != platform:
            raise NotFound("There is no such meme.")
        rows = self._db.query("SELECT user, emoji FROM reactions WHERE meme = ?", [meme])
        return {(row["user"], row["emoji"]) for row in rows}

    def _replace_votes(
        self, meme: str, platform: str, stood: Set[tuple[str, str]], votes: Set[tuple[str, str]], at: float
    ) -> tuple[int, int]:
        gone, new = stood - votes, votes - stood
        self._db.conn.executemany(
            "DELETE FROM reactions WHERE meme = ? AND user = ? AND emoji = ?", [(meme, *vote) for vote in gone]
        )
        self._db.conn.executemany(
            "INSERT INTO reactions (meme, user, emoji, platform, created) VALUES (?, ?, ?, ?, ?)",
            [(meme, *vote, platform, at) for vote in sorted(new)],
        )
        return len(new), len(gone)

    def _clear_votes(self, meme: str, emoji: str | None) -> int:
        with self._db.atomic():
            cursor = self._db.execute(
                "DELETE FROM reactions WHERE meme = ? AND (? IS NULL OR emoji = ?)", [meme, emoji, emoji]
            )
            return int(cursor.rowcount)

    def _placed(self, where: str, *values: object) -> list[Placed]:
        rows = self._db.query(f"SELECT id, chat, reply, message FROM memes WHERE {where}", values)  # noqa: S608
        return [Placed(row["id"], row["chat"], row["reply"] or "", row["message"]) for row in rows]

    def _delete(self, memes: Sequence[str]) -> None:
        with self._db.atomic():
            files = self._files("id", memes)
            self._db.conn.executemany("DELETE FROM memes WHERE id = ?", [(meme,) for meme in memes])
        self._sweep(files)

    def _forget(self, platform: str, user: str, at: float) -> Forgotten:
        with self._db.atomic():
            rows = self._db.query("SELECT id FROM memes WHERE platform = ? AND ? IN (user, author)", [platform, user])
            files = self._files("id", [row["id"] for row in rows])
            forgotten = people.forget(self._db, platform, user, at)
            learnt = forgotten.memes or forgotten.reactions
            abandoned = runs.note_abandoned(self._db, at) if learnt else []
        self._empty_log()
        self._sweep(files)
        runs.discard(self.path, abandoned)
        return forgotten

    def _empty_log(self) -> None:
        """SQLite's log, too, still has what was removed; while somebody else reads, it is left for the next time.

        Nobody is waited for: everything else would wait for it, too.
        """
        (patience,) = self._db.execute("PRAGMA busy_timeout").fetchone()
        self._db.execute("PRAGMA busy_timeout = 0")
        try:
            busy, *_ = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        finally:
            self._db.execute(f"PRAGMA busy_timeout = {patience}")
        if busy:
            log.info("the database's log is being read, so what was removed goes from it later")

    def _change_settings(self, place: Place, user: str, changes: Mapping[str, Any], at: float) -> None:
        abandoned = []
        with self._db.atomic():
            places.change(self._db, place, user, changes, at)
            if "consent" in changes and places.drop_features(self._db, place):
                abandoned = runs.note_abandoned(self._db, at)
        runs.discard(self.path, abandoned)

    def _files(self, column: str, values: Sequence[str]) -> set[str]:
        """Names of the picture files of some memes."""
        files: set[str] = set()
        for value in values:
            rows = self._db.query(f"SELECT picture, source FROM memes WHERE {column} = ?", [value])  # noqa: S608
            files |= {name for row in rows for name in row.values() if name is not None}
        return files

    def _sweep(self, files: Iterable[str]) -> None:
        """Remove those of the files that no meme names any more."""
        unnamed = (name for name in files if not (self._files("picture", [name]) or self._files("source", [name])))
        _remove(self.pictures / name for name in unnamed)

    def _tallies(self, place: Place, since: float, among: Collection[str] | None) -> dict[str, dict[str, int]]:
        column, value = ("chat", place.chat) if place.chat else ("server", place.server)
        rows = self._db.query(
            "SELECT meme, chat, emoji, count(*) AS count FROM reactions JOIN memes ON memes.id = meme "  # noqa: S608
            f"WHERE memes.platform = ? AND memes.{column} = ? AND memes.created >= ? GROUP BY meme, emoji",
            [place.platform, value, since],
        )
        tallies: dict[str, dict[str, int]] = {}
        for row in rows:
            if among is None or row["chat"] in among:
                tallies.setdefault(row["meme"], {})[row["emoji"]] = row["count"]
        return tallies

    def _votes(self, model: str) -> tuple[int, dict[str, int]]:
        chosen = f"SELECT id FROM memes WHERE model = ? AND {labels.CHOSEN}"  # noqa: S608
        (memes,) = self._db.execute(f"SELECT count(*) FROM ({chosen})", [model]).fetchone()  # noqa: S608
        rows = self._db.execute(
            f"SELECT emoji, count(*) FROM reactions JOIN ({chosen}) AS memes ON memes.id = meme GROUP BY emoji",  # noqa: S608
            [model],
        )
        return memes, dict(rows.fetchall())

    def _latest(self, platform: str, chat: str, user: str, limit: int) -> list[MemeRecord]:
        newest_first = self._db.query(
            "SELECT id FROM memes WHERE platform = ? AND chat = ? AND picture IS NOT NULL "
            "ORDER BY created DESC, rowid DESC LIMIT ?",
            [platform, chat, limit],
        )
        return self._records([row["id"] for row in newest_first][::-1], user)

    def _records(self, memes: list[str], user: str) -> list[MemeRecord]:
        """The records in the order of `memes`; raises `NotFound`."""
        rows = {row["id"]: row for row in self._where_in("SELECT * FROM memes WHERE id IN", memes)}
        if len(rows) < len(memes):
            raise NotFound("There is no such meme.")
        candidates = _grouped(self._where_in("SELECT * FROM candidates WHERE meme IN", memes, "ORDER BY place"))
        reactions = _grouped(self._where_in("SELECT * FROM reactions WHERE meme IN", memes, "ORDER BY created"))
        return [_record(rows[meme], candidates.get(meme, []), reactions.get(meme, []), user) for meme in memes]

    def _where_in(self, select: str, values: list[str], order: str = "") -> Iterable[Row]:
        marks = ", ".join("?" * len(values))
        return self._db.query(f"{select} ({marks}) {order}", values)

    def _meme(self, columns: str, where: str, *values: str) -> Row:
        """These columns of one meme; raises `NotFound`."""
        row = next(iter(self._db.query(f"SELECT {columns} FROM memes WHERE {where}", values)), None)  # noqa: S608
        if row is None:
            raise NotFound("There is no such meme.")
        return row

    def _path(self, meme: str, column: str) -> Path:
        name: str | None = self._meme(column, "id = ?", meme)[column]
        if name is None or not self.pictures.joinpath(name).exists():
            raise Gone("This picture is not kept any more.")
        return self.pictures / name

    def _file(self, meme: str, column: str) -> bytes:
        return self._path(meme, column).read_bytes()

    def _prune(self, before: float) -> None:
        with self._db.atomic():
            self._db.execute("UPDATE memes SET source = NULL WHERE source IS NOT NULL AND posted < ?", [before])
            self._db.execute("UPDATE memes SET picture = NULL WHERE picture IS NOT NULL AND created < ?", [before])
            requests.prune(self._db, before)
            people.prune(self._db, before)
        self._empty_log()
        named = self._db.query("SELECT picture AS name FROM memes UNION SELECT source FROM memes")
        kept = {row["name"] for row in named}
        _remove(file for file in list(self.pictures.iterdir()) if file.name not in kept and file.is_file())


def examine(path: Path) -> str:
    """Say in words what stands at `path`, changing nothing; raises `StoreError`."""
    above = next(parent for parent in path.absolute().parents if parent.exists())
    for place in (above, path):
        if (place.exists() and not os.access(place, os.W_OK)) or not above.is_dir():
            raise StoreError(
                f"{place} cannot be written. Let the user write it as whom the bot runs, or name another place with "
                "store.path."
            )
    folder.check(path)
    if not path.exists():
        return f"{path} will be created at the first start"
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            refuse_newer(connection.execute("PRAGMA user_version").fetchone()[0], path)
            (memes,) = connection.execute("SELECT count(*) FROM memes").fetchone()
    except sqlite3.Error as error:
        raise StoreError(f"The database {path} cannot be used: {error}.") from error
    return f"{path} holds {memes} memes"


def chats(path: Path, platform: str, limit: int = 20) -> list[str]:
    """The chats of a platform in which memes were made last, read beside a running bot; none where nothing is there."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            rows = connection.execute(
                "SELECT chat FROM memes WHERE platform = ? GROUP BY chat ORDER BY max(created) DESC LIMIT ?",
                [platform, limit],
            )
            return [chat for (chat,) in rows]
    except sqlite3.Error:
        return []


def _grouped(rows: Iterable[Row]) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["meme"], []).append(row)
    return groups


def _record(meme: Row, candidates: list[Row], reactions: list[Row], user: str) -> MemeRecord:
    counts: dict[str, int] = {}
    for reaction in reactions:
        counts[reaction["emoji"]] = counts.get(reaction["emoji"], 0) + 1
    return MemeRecord(
        id=meme["id"],
        platform=meme["platform"],
        chat=meme["chat"],
        user=meme["user"],
        created=meme["created"],
        alt=meme["alt"],
        boxes=tuple(json.loads(meme["boxes"])),
        description=meme["description"],
        style=meme["style"],
        seed=meme["seed"],
        model=meme["model"],
        candidates=tuple(
            Candidate(tuple(json.loads(row["boxes"])), row["logprob"], row["reward"], row["score"])
            for row in candidates
        ),
        chosen=meme["chosen"],
        explored=bool(meme["explored"]),
        content_type=meme["content_type"],
        reactions=counts,
        mine=tuple(reaction["emoji"] for reaction in reactions if reaction["user"] == user),
        server=meme["server"],
        message=meme["message"],
        reply=meme["reply"] or "",
        author=meme["author"],
    )


def _remove(files: Iterable[Path]) -> None:
    """As many as can be: those that cannot are tried again with the next pruning, and logged as one."""
    failed = []
    for file in files:
        try:
            file.unlink(missing_ok=True)
        except OSError as error:
            failed.append(error)
    if failed:
        log.warning("%d pictures could not be removed, the first because of: %s", len(failed), failed[0])


def _flush_folder(folder: Path) -> None:
    """Make a rename durable, where the system lets a folder be opened."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
