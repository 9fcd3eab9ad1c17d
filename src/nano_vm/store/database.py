"""A database by its URL: connections, transactions, and what its errors mean. SQLite and PostgreSQL differ here and nowhere else.

SQLAlchemy reads the URL, keeps the connections and makes the tables; statements go to the driver as text, since a durable step costs six
of them and each costs ten times as much by way of an expression.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from sqlalchemy import create_engine, event
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import StaticPool
from sqlalchemy.schema import CreateIndex, CreateTable

from ..errors import MissingExtra, StoreError
from .schema import SCHEMA_VERSION, metadata

OLDEST_SQLITE = (3, 35, 0)
"""The first that answers an INSERT with the row's key (RETURNING)."""

SYNCHRONOUS = ("FULL", "NORMAL")

# Sizes that lists of parameters are filled up to, so that a handful of texts is prepared once and not one for each length.
_LIST_SIZES = (1, 8, 64, 512, 4096)

_SCHEMA_LOCK = 0x6E616E6F  # any number that others are not likely to lock


class Connection:
    """One connection to the database, used by one thread at a time."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._held = database.engine.raw_connection()
        driver: Any = self._held.driver_connection
        self.driver = driver
        self.cursor: Any = driver.cursor() if database.lite else driver.cursor(binary=True)

    def one(self, statement: str, *values: Any) -> Any:
        """The first row, or None."""
        return self.cursor.execute(self.database.text(statement), values).fetchone()

    def all(self, statement: str, *values: Any) -> list[Any]:
        """All rows."""
        return self.cursor.execute(self.database.text(statement), values).fetchall()  # type: ignore[no-any-return]

    def run(self, statement: str, *values: Any) -> int:
        """Execute; the number of rows that it changed."""
        return self.cursor.execute(self.database.text(statement), values).rowcount  # type: ignore[no-any-return]

    def many(self, statement: str, values: Sequence[Sequence[Any]]) -> None:
        """Execute once for each of *values*."""
        if len(values) == 1:
            self.cursor.execute(self.database.text(statement), values[0])
        elif values:
            self.cursor.executemany(self.database.text(statement), values)

    def among(self, statement: str, keys: Sequence[Any]) -> Iterator[Any]:
        """Rows of a statement with ``IN (*)``, for all of *keys*."""
        at = 0
        while at < len(keys):
            left = len(keys) - at
            size = next((n for n in _LIST_SIZES if n >= left), _LIST_SIZES[-1])
            part = list(keys[at : at + size])
            part += part[-1:] * (size - len(part))
            yield from self.all(statement.replace("IN (*)", f"IN ({','.join('?' * size)})"), *part)
            at += size

    def begin(self, *, write: bool = True) -> None:
        """Begin a transaction: one that writes holds the lock at once, one that reads sees one state throughout."""
        self.cursor.execute(self.database.begin_write if write else self.database.begin_read)

    def commit(self) -> None:
        """End the transaction; what it wrote is durable."""
        self.cursor.execute("COMMIT")

    def rollback(self) -> None:
        """End the transaction; nothing was written."""
        self.cursor.execute("ROLLBACK")

    def release(self) -> None:
        """Give it back, to be used again."""
        self._held.close()

    def discard(self) -> None:
        """Close it: who knows what state it is in. That of a database in memory is the database, and is only rolled back."""
        try:
            self.cursor.close()  # one that stands in a statement would keep a closed connection's locks
            if self.database.lite:  # a server rolls back what has no client
                self.driver.rollback()
        except self.database.errors:
            pass
        if self.database.in_memory:
            self.cursor = self.driver.cursor()
        else:
            self._held.invalidate()


class Database:
    """Where a store's tables are. Makes them where they are not there yet.

    Raises:
        StoreError: If it cannot be opened, is none, or was made by a newer version.
    """

    def __init__(self, url: str, synchronous: str, busy_timeout_seconds: float) -> None:
        if synchronous not in SYNCHRONOUS:
            raise ValueError(f"synchronous is one of {', '.join(SYNCHRONOUS)}, not {synchronous!r}")
        parsed = _parsed(url)
        self.name = parsed.render_as_string(hide_password=True)
        self.lite = parsed.get_backend_name() == "sqlite"
        if self.lite and sqlite3.sqlite_version_info < OLDEST_SQLITE:
            raise StoreError(f"SQLite {sqlite3.sqlite_version} is too old for a store; it takes 3.35, or PostgreSQL")
        self.in_memory = self.lite and parsed.database in (None, "", ":memory:")
        self.begin_write = "BEGIN IMMEDIATE" if self.lite else "BEGIN"
        self.begin_read = "BEGIN" if self.lite else "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
        self.busy_timeout_seconds = busy_timeout_seconds
        self.engine = _engine(parsed, self.lite, self.in_memory, synchronous, busy_timeout_seconds)
        self.errors: tuple[type[BaseException], ...] = (self.engine.dialect.loaded_dbapi.Error, SQLAlchemyError)
        # A database in memory has one connection, which its users take in turns.
        self.turn: AbstractContextManager[Any] = threading.RLock() if self.in_memory else nullcontext()
        self._texts: dict[str, str] = {}
        try:
            self.prepare()
        except BaseException:
            self.engine.dispose()
            raise

    def text(self, statement: str) -> str:
        """*statement* with the parameters as the driver marks them."""
        if self.lite:
            return statement
        found = self._texts.get(statement)
        if found is None:
            found = self._texts[statement] = statement.replace("?", "%s")
        return found

    def connect(self) -> Connection:
        """A connection of the caller's own."""
        try:
            return Connection(self)
        except self.errors as error:
            raise self.failure(error, "open") from error

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection on which everything read belongs to one state of the database."""
        with self.turn:
            connection = self.connect()
            try:
                connection.begin(write=False)
                yield connection
                connection.commit()
            except self.errors as error:
                connection.discard()
                raise self.failure(error, "read") from error
            except BaseException:
                connection.discard()
                raise
            connection.release()

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A connection in a transaction that is committed at the end."""
        with self.turn:
            connection = self.connect()
            try:
                connection.begin()
                yield connection
                connection.commit()
            except self.errors as error:
                connection.discard()  # which rolls back
                raise self.failure(error, "write to") from error
            except BaseException:
                connection.discard()
                raise
            connection.release()

    def prepare(self) -> None:
        """Make the tables, or see that they are ours and of a version that we know."""
        connection = self.connect()
        try:
            if not self.version(connection):
                connection.begin()
                if not self.lite:
                    connection.run("SELECT pg_advisory_xact_lock(?)", _SCHEMA_LOCK)
                if not self.version(connection):  # nobody made them in the meantime
                    self.make(connection)
                connection.commit()
        except self.errors as error:
            connection.discard()
            raise self.failure(error, "open") from error
        except BaseException:
            connection.discard()
            raise
        connection.release()

    def version(self, connection: Connection) -> bool:
        """Whether there are tables, of the version that we know."""
        if self.lite:
            there = connection.one("SELECT 1 FROM sqlite_master WHERE name = 'nano_meta'")
        else:
            # by the catalogue's rows: what a session remembers of names can be older than its transaction
            there = connection.one(
                "SELECT 1 FROM pg_catalog.pg_class WHERE relname = 'nano_meta' AND pg_table_is_visible(oid)"
            )
        if there is None:
            return False
        found = connection.one("SELECT value FROM nano_meta WHERE name = 'schema'")
        if found is None or not found[0].isdigit():
            raise StoreError(f"{self.name}: table nano_meta has no version; it was not made by llm-nano-vm")
        if int(found[0]) > SCHEMA_VERSION:
            raise StoreError(
                f"{self.name} was made by a newer llm-nano-vm: its tables are of version {found[0]}, this one knows {SCHEMA_VERSION}; "
                "install that version or a newer one; nothing was changed"
            )
        return True

    def make(self, connection: Connection) -> None:
        """All tables and indexes."""
        dialect = self.engine.dialect
        for table in metadata.sorted_tables:
            connection.cursor.execute(str(CreateTable(table).compile(dialect=dialect)))
            for index in sorted(table.indexes, key=lambda index: str(index.name)):
                connection.cursor.execute(str(CreateIndex(index).compile(dialect=dialect)))
        connection.run("INSERT INTO nano_meta (name, value) VALUES ('schema', ?)", str(SCHEMA_VERSION))

    def failure(self, error: BaseException, what: str) -> StoreError:
        """An error of the driver as one of ours: what happened, and what to do."""
        told = str(error.__cause__ if isinstance(error, SQLAlchemyError) and error.__cause__ else error)
        told = " ".join(told.split()) or type(error).__name__
        low = told.lower()
        hint = next((hint for sign, hint in _HINTS if sign in low), None)
        return StoreError(f"could not {what} {self.name}: {told}" + (f"; {hint}" if hint else ""))

    def blames_statement(self, error: BaseException) -> bool:
        """Whether *error* comes from what was to be written, and not from the database or the way to it."""
        driver = self.engine.dialect.loaded_dbapi
        return isinstance(
            error, (driver.DataError, driver.IntegrityError, driver.ProgrammingError, driver.NotSupportedError)
        )

    def flush(self) -> None:
        """Empty SQLite's log, which still has what was dropped, unless somebody reads from it right now."""
        if not self.lite:
            return
        connection = self.connect()
        try:
            with self.turn:
                connection.all("PRAGMA wal_checkpoint(TRUNCATE)")
        except self.errors as error:
            connection.discard()
            raise self.failure(error, "write to") from error
        connection.release()

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()


_HINTS = (
    ("database is locked", "another process held it for longer than busy_timeout_seconds; end its transaction, or give more"),
    ("disk is full", "make room on its disk; what was acknowledged is there"),
    ("no space left", "make room on its disk; what was acknowledged is there"),
    ("malformed", "the file is damaged: restore a copy, or save what can be read with sqlite3's .recover"),
    ("not a database", "the file is something else; name another"),
    ("unable to open", "see that the folder exists and may be written"),
    ("readonly", "see that the file and its folder may be written"),
    ("disk i/o error", "the disk or the file failed; see the system's log; what was acknowledged is there"),
    ("server closed the connection", "the server went away; see its log, and try again"),
    ("connection is lost", "the server went away; see its log, and try again"),
    ("connection refused", "see that the server runs, and the host and port"),
    ("connection failed", "see that the server runs, and the host, port, user and password"),
)  # fmt: skip


def _parsed(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise StoreError(
            f"not the URL of a store: {url!r}; write sqlite:///runs.db or postgresql://host/name"
        ) from None
    match parsed.drivername:
        case "sqlite":
            return parsed
        case "postgresql" | "postgres" | "postgresql+psycopg":
            return parsed.set(drivername="postgresql+psycopg")
        case other:
            raise StoreError(f"no store is kept in {other!r}; write sqlite:///runs.db or postgresql://host/name")


def _engine(url: URL, lite: bool, in_memory: bool, synchronous: str, busy_timeout_seconds: float) -> Engine:
    milliseconds = int(busy_timeout_seconds * 1000)
    if not lite:
        try:
            engine = create_engine(
                url, pool_pre_ping=True, connect_args={"autocommit": True, "application_name": "llm-nano-vm"}
            )
        except ImportError:
            raise MissingExtra("a store in PostgreSQL", "postgres") from None
        event.listen(engine, "connect", _postgres_settings(milliseconds))
        return engine
    arguments: dict[str, Any] = {"isolation_level": None, "timeout": busy_timeout_seconds, "check_same_thread": False}
    engine = create_engine(url, connect_args=arguments, **({"poolclass": StaticPool} if in_memory else {}))
    event.listen(engine, "connect", _sqlite_settings(synchronous))
    return engine


def _sqlite_settings(synchronous: str) -> Callable[[Any, Any], None]:
    def settings(connection: sqlite3.Connection, _: Any) -> None:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        connection.execute("PRAGMA cell_size_check = ON")
        connection.execute("PRAGMA secure_delete = ON")  # what is erased is gone from the file too

    return settings


def _postgres_settings(milliseconds: int) -> Callable[[Any, Any], None]:
    def settings(connection: Any, _: Any) -> None:
        connection.execute(f"SET lock_timeout = {milliseconds}")

    return settings
