"""What the bot remembers: one SQLite file, and a folder of pictures beside it.

SQLite and the file system are worked by a single thread. A picture is on the disk before the row that names it, and a
row is committed before anybody hears of it, so that a killed process leaves nothing worse than a file without a row.
"""

import asyncio
import hashlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from sqlite_utils import Database

from bot.events import BadRequest, Candidate, Gone, Kept, MemeRecord, NotFound, ReactionChanged

MAX_REACTIONS = 20
"""Different emoji that one user can put on one meme."""

Result = TypeVar("Result")
Row = dict[str, Any]

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE memes (
            id TEXT PRIMARY KEY,
            platform TEXT NOT NULL,
            chat TEXT NOT NULL,
            message TEXT NOT NULL,
            reply TEXT,
            user TEXT NOT NULL,
            created REAL NOT NULL,
            posted REAL NOT NULL,
            parent TEXT REFERENCES memes (id) ON DELETE SET NULL,
            style TEXT NOT NULL,
            seed INTEGER NOT NULL,
            model TEXT NOT NULL,
            template TEXT,
            description TEXT NOT NULL,
            alt TEXT NOT NULL,
            boxes TEXT NOT NULL,
            chosen INTEGER,
            explored INTEGER NOT NULL,
            spoiler INTEGER NOT NULL,
            content_type TEXT NOT NULL,
            picture TEXT,
            source TEXT
        )""",
        "CREATE INDEX memes_by_chat ON memes (platform, chat, created)",
        "CREATE UNIQUE INDEX memes_by_reply ON memes (platform, chat, reply)",
        """CREATE TABLE candidates (
            meme TEXT NOT NULL REFERENCES memes (id) ON DELETE CASCADE,
            place INTEGER NOT NULL,
            boxes TEXT NOT NULL,
            logprob REAL NOT NULL,
            reward REAL,
            score REAL NOT NULL,
            PRIMARY KEY (meme, place)
        )""",
        """CREATE TABLE reactions (
            meme TEXT NOT NULL REFERENCES memes (id) ON DELETE CASCADE,
            user TEXT NOT NULL,
            emoji TEXT NOT NULL,
            platform TEXT NOT NULL,
            created REAL NOT NULL,
            PRIMARY KEY (meme, user, emoji)
        )""",
        """CREATE TABLE settings (
            platform TEXT NOT NULL,
            chat TEXT NOT NULL,
            key TEXT NOT NULL,
            value TEXT NOT NULL,
            PRIMARY KEY (platform, chat, key)
        )""",
        """CREATE TABLE consent (
            platform TEXT NOT NULL,
            chat TEXT NOT NULL,
            user TEXT NOT NULL,
            created REAL NOT NULL,
            PRIMARY KEY (platform, chat)
        )""",
        """CREATE TABLE models (
            id TEXT PRIMARY KEY,
            path TEXT NOT NULL,
            created REAL NOT NULL,
            state TEXT NOT NULL,
            report TEXT NOT NULL
        )""",
    ),
)
"""Statements that take a database from each version to the next; a published migration never changes."""


class StoreError(Exception):
    """The database cannot be used; `str(error)` is a sentence."""


class Store:
    """`async with Store(path) as store:` opens or creates the database; raises `StoreError`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.pictures = path.parent / "pictures"
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._closing = ExitStack()
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

    async def add(self, meme: MemeRecord, kept: Kept) -> None:
        """A new meme with its candidates and pictures, all or nothing."""
        await self._call(self._add, meme, kept)

    async def sent(self, meme: str, message: str) -> None:
        """The meme stands in its chat as this message."""
        await self._call(self._sent, meme, message)

    async def reply(self, platform: str, chat: str, message: str) -> str:
        """The id of the meme that was sent as this message."""
        where = "platform = ? AND chat = ? AND reply = ?"
        row = await self._call(self._meme, "id", where, platform, chat, message)
        return str(row["id"])

    async def react(self, meme: str, change: ReactionChanged, at: float) -> bool:
        """Write one vote (`change.emoji` is normalised); False where it stood so already."""
        return await self._call(self._react, meme, change, at)

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

    async def prune(self, before: float) -> None:
        """Forget the pictures that were posted, and the memes that were made, before a time; sweep stray files."""
        await self._call(self._prune, before)

    async def _call(self, work: Callable[..., Result], *args: object) -> Result:
        """The one door to the store's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *args)

    def _open(self) -> None:
        try:
            self.pictures.mkdir(parents=True, exist_ok=True)
            self._lock()
            self._db = self._closing.enter_context(closing(_connected(self.path)))
            _migrate(self._db, self.path)
        except OSError as error:
            raise StoreError(f"The folder {self.path.parent} cannot be written: {error.strerror}.") from error
        except sqlite3.Error as error:
            raise StoreError(f"The database {self.path} cannot be used: {error}.") from error

    def _lock(self) -> None:
        """Hold a lock until the store closes or the process dies: sweeping would take another bot's new files."""
        lock = self.path.with_name(self.path.name + ".lock")
        connection = self._closing.enter_context(closing(sqlite3.connect(lock, timeout=0)))
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
                "message": kept.message,
                "user": meme.user,
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
                "spoiler": kept.spoiler,
                "content_type": meme.content_type,
                "picture": picture,
                "source": source,
            }
            self._db.table("memes").insert(row)
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

    def _latest(self, platform: str, chat: str, user: str, limit: int) -> list[MemeRecord]:
        newest_first = self._db.query(
            "SELECT id FROM memes WHERE platform = ? AND chat = ? ORDER BY created DESC, rowid DESC LIMIT ?",
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

    def _file(self, meme: str, column: str) -> bytes:
        name: str | None = self._meme(column, "id = ?", meme)[column]
        if name is None:
            raise Gone("This picture is not kept any more.")
        try:
            return self.pictures.joinpath(name).read_bytes()
        except FileNotFoundError as error:
            raise Gone("This picture is not kept any more.") from error

    def _prune(self, before: float) -> None:
        with self._db.atomic():
            self._db.execute("UPDATE memes SET source = NULL WHERE posted < ?", [before])
            self._db.execute("UPDATE memes SET picture = NULL WHERE created < ?", [before])
        named = self._db.query("SELECT picture AS name FROM memes UNION SELECT source FROM memes")
        kept = {row["name"] for row in named}
        for file in self.pictures.iterdir():
            if file.name not in kept:
                file.unlink()


def examine(path: Path) -> str:
    """Say in words what stands at `path`, changing nothing; raises `StoreError`."""
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise StoreError(f"The folder {folder} cannot be written.")
    if not path.exists():
        return f"{path} will be created at the first start"
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            _refuse_newer(connection.execute("PRAGMA user_version").fetchone()[0], path)
            (memes,) = connection.execute("SELECT count(*) FROM memes").fetchone()
    except sqlite3.Error as error:
        raise StoreError(f"The database {path} cannot be used: {error}.") from error
    return f"{path} holds {memes} memes"


def _connected(path: Path) -> Database:
    connection = sqlite3.connect(path, timeout=10)
    try:
        db = Database(connection)
        db.enable_wal()
        for pragma in ("foreign_keys = ON", "synchronous = FULL"):
            db.execute(f"PRAGMA {pragma}")
    except BaseException:
        connection.close()
        raise
    return db


def _migrate(db: Database, path: Path) -> None:
    """Bring the database to this program's version, a transaction a step; fails where it cannot be written."""
    version = db.execute("PRAGMA user_version").fetchone()[0]
    _refuse_newer(version, path)
    db.execute("BEGIN IMMEDIATE")
    db.rollback()
    for number, statements in enumerate(MIGRATIONS[version:], start=version + 1):
        with db.atomic():
            for statement in statements:
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {number}")


def _refuse_newer(version: int, path: Path) -> None:
    if version > len(MIGRATIONS):
        raise StoreError(
            f"The database {path} has version {version}, written by a newer Quipbot; this one knows {len(MIGRATIONS)}."
        )


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
    )


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
