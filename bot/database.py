"""The SQLite file: opened, brought to this program's version, and read and written beside a running bot."""

import hashlib
import hmac
import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sqlite_utils import Database

from bot.schema import MIGRATIONS


class StoreError(Exception):
    """The database cannot be used; `str(error)` is a sentence."""


class _Shared(Database):
    """A database that other processes write, too: a transaction waits for them before it begins.

    One that begins by reading and then writes would not be let wait, and fail, when somebody wrote in between.
    """

    @contextmanager
    def atomic(self) -> Iterator[Database]:
        if self.conn.in_transaction:
            with super().atomic():
                yield self
            return
        self.conn.execute("BEGIN IMMEDIATE")
        try:
            yield self
            self.conn.execute("COMMIT")
        except BaseException:
            self.rollback()
            raise


def connected(path: Path) -> Database:
    connection = sqlite3.connect(path, timeout=10)
    try:
        db = _Shared(connection)
        db.enable_wal()
        # Secure: what is removed is overwritten.
        for pragma in ("foreign_keys = ON", "synchronous = FULL", "secure_delete = ON"):
            db.execute(f"PRAGMA {pragma}")
    except BaseException:
        connection.close()
        raise
    return db


@contextmanager
def beside(path: Path) -> Iterator[Database]:
    """The database of a bot that may be running; raises `StoreError` where there is none of this program's version."""
    if not path.exists():
        raise StoreError(f"There is no database {path} yet: start the bot first.")
    try:
        with closing(connected(path)) as db:
            version = db.execute("PRAGMA user_version").fetchone()[0]
            refuse_newer(version, path)
            if version < len(MIGRATIONS):
                raise StoreError(f"The database {path} was written by an older Quipbot: start this one's bot first.")
            yield db
    except sqlite3.Error as error:
        raise StoreError(f"The database {path} cannot be used: {error}.") from error


def in_use(path: Path) -> bool:
    """Whether a bot is using the database now."""
    lock = locked_by(path)
    if not lock.exists():
        return False
    try:
        with closing(sqlite3.connect(lock, timeout=0)) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master")
    except sqlite3.OperationalError as error:
        return error.sqlite_errorcode == sqlite3.SQLITE_BUSY
    return False


def locked_by(path: Path) -> Path:
    """The file that a bot holds a lock on while it uses the database."""
    return path.with_name(path.name + ".lock")


def namer(db: Database) -> Callable[..., str]:
    """Gives names, in hexadecimal, to what is told in texts; only this database can tell which is which."""
    (salt,) = db.execute("SELECT value FROM facts WHERE key = 'salt'").fetchone()

    def name(*what: str) -> str:
        return hmac.new(salt.encode(), json.dumps(what).encode(), hashlib.sha256).hexdigest()

    return name


def migrate(db: Database, path: Path) -> None:
    """Bring the database to this program's version, a transaction a step; fails where it cannot be written."""
    version = db.execute("PRAGMA user_version").fetchone()[0]
    refuse_newer(version, path)
    db.execute("BEGIN IMMEDIATE")
    db.rollback()
    for number, statements in enumerate(MIGRATIONS[version:], start=version + 1):
        with db.atomic():
            for statement in statements:
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {number}")


def refuse_newer(version: int, path: Path) -> None:
    """Raises `StoreError` for a database that a later program wrote."""
    if version > len(MIGRATIONS):
        raise StoreError(
            f"The database {path} has version {version}, written by a newer Quipbot; this one knows {len(MIGRATIONS)}."
        )
