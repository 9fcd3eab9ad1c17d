"""A database by its URL: connections, transactions, and what its errors mean. SQLite and PostgreSQL
differ here and nowhere else.

Both are spoken to by their drivers, `sqlite3` and `psycopg`, in statements of text: a durable step
costs six of them, and a layer in between costs ten times as much as the statement.
"""

from __future__ import annotations

import os
import re
import sqlite3
import threading
import weakref
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from ... import forking
from ...errors import MissingExtra, StoreError
from ..sql import lite
from .schema import SCHEMA_VERSION, TABLES, statements

OLDEST_SQLITE = (3, 35, 0)
"""The first that answers an INSERT with the row's key (RETURNING)."""

SYNCHRONOUS = ("FULL", "NORMAL")

# Sizes that lists of parameters are filled up to, so that a handful of texts is prepared once and not
# one for each length.
_LIST_SIZES = (1, 8, 64, 512, 4096)

_SCHEMA_LOCK = 0x6E616E6F  # any number that others are not likely to lock

REST_SECONDS = 5.0
"""How long a fork waits for transactions under way; they take milliseconds, if nobody holds a lock.
"""

_spoilt_files: set[str] = set()  # files of SQLite of which this process has what its parent knew

IDLE_CONNECTIONS = 5
"""Connections that are kept open for the next who needs one."""


def marks(values: Collection[Any]) -> str:
    """A parameter for each of *values*."""
    return ", ".join("?" * len(values))


def parts(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """*values* in parts that one statement takes."""
    return (values[at : at + _LIST_SIZES[-1]] for at in range(0, len(values), _LIST_SIZES[-1]))


class Connection:
    """One connection to the database, used by one thread at a time."""

    def __init__(self, database: Database, driver: Any, state: str | None = None) -> None:
        self.database = database
        self.state = state  # of a file that nobody has open, see `lite.to_read`
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
        """Begin a transaction: one that writes holds the lock at once, one that reads sees one
        state throughout.
        """
        self.cursor.execute(self.database.begin_write if write else self.database.begin_read)

    def commit(self) -> None:
        """End the transaction; what it wrote is durable."""
        self.cursor.execute("COMMIT")

    def rollback(self) -> None:
        """End the transaction; nothing was written."""
        self.cursor.execute("ROLLBACK")

    def release(self) -> None:
        """Give it back, to be used again."""
        self.database.take_back(self)

    def answers(self) -> bool:
        """Whether the server is still there; a file always is."""
        if self.database.lite:
            return True
        try:
            self.cursor.execute("SELECT 1")
        except self.database.errors:
            return False
        return True

    def discard(self) -> None:
        """Close it: who knows what state it is in. That of a database in memory is the database,
        and is only rolled back.
        """
        with suppress(*self.database.errors):
            # one that stands in a statement would keep a closed connection's locks
            self.cursor.close()
            if self.database.lite:  # a server rolls back what has no client
                self.driver.rollback()
        if not self.database.in_memory:
            self.close()

    def close(self) -> None:
        """End it."""
        with suppress(*self.database.errors):
            self.driver.close()


class Turns:
    """Who may use connections: all at a time, or *one_by_one* where there is but one; none during a
    fork.
    """

    def __init__(self, *, one_by_one: bool) -> None:
        self._one_by_one = one_by_one
        self._begin()

    def _begin(self) -> None:
        self._one = threading.RLock() if self._one_by_one else None
        self._changed = threading.Condition()
        self._users: Counter[int] = Counter()  # by thread
        self._resting = self._rested = False

    def __enter__(self) -> None:
        me = threading.get_ident()
        with self._changed:
            self._changed.wait_for(lambda: not self._resting or me in self._users)
            self._users[me] += 1
        if self._one is not None:
            self._one.acquire()

    def __exit__(self, *_: object) -> None:
        if self._one is not None:
            self._one.release()
        me = threading.get_ident()
        with self._changed:
            self._users[me] -= 1
            if not self._users[me]:
                del self._users[me]
                if self._resting:
                    self._changed.notify_all()

    def rest(self) -> bool:
        """Let nobody begin, and wait for who has begun, `REST_SECONDS` at most; whether all are
        done.
        """
        me = threading.get_ident()
        with self._changed:
            if not self._resting:
                self._resting = True
                seconds = 0.0 if me in self._users else REST_SECONDS
                self._rested = self._changed.wait_for(lambda: not self._users, seconds)
            return self._rested

    def go_on(self) -> None:
        """Let those begin who wait."""
        with self._changed:
            self._resting = False
            self._changed.notify_all()

    def begin_anew(self) -> bool:
        """Forget the users, who are not in this process; whether they were done."""
        rested = self._rested
        self._begin()
        return rested


class Database:
    """Where a store's tables are. Makes them where they are not there yet.

    Raises:
        StoreError: If it cannot be opened, is none, or was made by a newer version.
    """

    def __init__(
        self,
        url: str,
        synchronous: str,
        busy_timeout_seconds: float,
        *,
        read_only: bool = False,
        accept: bool = False,
    ) -> None:
        if synchronous not in SYNCHRONOUS:
            raise ValueError(f"synchronous is one of {', '.join(SYNCHRONOUS)}, not {synchronous!r}")
        self.lite, self.place, self.name = _parsed(url)
        if self.lite and sqlite3.sqlite_version_info < OLDEST_SQLITE:
            raise StoreError(
                f"SQLite {sqlite3.sqlite_version} is too old for a store; it takes 3.35, or "
                f"PostgreSQL"
            )
        self.api: Any = sqlite3 if self.lite else _psycopg()
        self.errors: tuple[type[BaseException], ...] = (self.api.Error,)
        self.in_memory = self.lite and self.place in ("", ":memory:")
        self.begin_write = "BEGIN IMMEDIATE" if self.lite else "BEGIN"
        self.begin_read = (
            "BEGIN" if self.lite else "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
        )
        self.synchronous, self.busy_timeout_seconds = synchronous, busy_timeout_seconds
        self.turns = Turns(one_by_one=self.in_memory)
        self._memory: Any = None
        self._mark: lite.Mark | None = None
        self._idle: list[Connection] = []
        self._lock = threading.Lock()
        self._closed = False
        self._spoilt = False
        self.read_only = read_only
        self._texts: dict[str, str] = {}
        forking.join(self)
        with self.turns:
            if self.lite and lite.is_file(self.place) and not read_only:
                self._own_log(accept=accept)
            try:
                self.prepare()
            except BaseException:
                self.close()
                raise

    def before_fork(self) -> None:
        """Close all connections: SQLite's must not be in the child, not even unused."""
        if self.turns.rest() and not self.in_memory:
            self._close_idle(min(self.busy_timeout_seconds, REST_SECONDS))

    def after_fork_in_parent(self) -> None:
        """Let those go on who want a connection."""
        self.turns.go_on()

    def after_fork_in_child(self) -> None:
        """Begin without connections.

        If one was in use, what SQLite knows here of locks on the file is the parent's, for any
        connection: then this process cannot use the file.
        """
        rested = self.turns.begin_anew()
        forking.leave(self._idle)
        self._idle = []
        self._lock = threading.Lock()
        if self._mark is not None:
            self._new_mark()
        if self.lite and not rested:
            self._spoilt = True
            _spoilt_files.add(os.path.realpath(self.place))

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
        if self._spoilt or (
            _spoilt_files and self.lite and os.path.realpath(self.place) in _spoilt_files
        ):
            raise StoreError(
                f"{self.name} was in use when this process was forked; make the store after the "
                f"fork, "
                "or start processes by 'spawn'"
            )
        while True:
            with self._lock:
                kept = self._idle.pop() if self._idle else None
            if kept is None:
                break
            if kept.answers():
                return kept
            kept.discard()
        try:
            if self.lite and self.read_only:
                return Connection(self, *lite.to_read(self.place, self.busy_timeout_seconds))
            return Connection(self, self._memory or self._driver())
        except self.errors as error:
            raise self.failure(error, "open") from error

    def take_back(self, connection: Connection) -> None:
        """Keep a connection for the next who needs one."""
        if self.in_memory:
            return
        # it reads one state of the file, and does not look for another
        if connection.state is not None:
            connection.close()
            return
        with self._lock:
            if not self._closed and len(self._idle) < IDLE_CONNECTIONS:
                self._idle.append(connection)
                return
        connection.close()

    def _driver(self) -> Any:
        if not self.lite:
            return self._postgres()
        driver = lite.to_write(self.place, self.synchronous, self.busy_timeout_seconds)
        if self.in_memory:
            self._memory = driver
        return driver

    def _own_log(self, *, accept: bool) -> None:
        """Refuse a file whose log is missing; and see that the mark of this process is taken away
        at its end, if nobody closes the store before.
        """
        lost = lite.lost_log(self.place)
        if lost is not None and not accept:
            raise StoreError(
                f"{lost}; to go on would make calls again that are not in it. It can be read "
                f"(show, verify, store check, store export); "
                "to use it as it is: nano-vm store accept"
            )
        if lost is not None:
            lite.accept(self.place)
        self._new_mark()

    def _new_mark(self) -> None:
        self._mark = lite.Mark(self.place)
        weakref.finalize(self, self._mark.take_away, self.busy_timeout_seconds)

    def mark(self, connection: Connection) -> None:
        """Called before the first transaction that writes."""
        if self._mark is not None and not self._mark.is_set:
            self._mark.set(connection.driver)

    def _postgres(self) -> Any:
        given = self.api.conninfo.conninfo_to_dict(self.place)
        driver = self.api.connect(
            self.place, autocommit=True, **{k: v for k, v in _WAY.items() if k not in given}
        )
        try:
            driver.execute(f"SET lock_timeout = {int(self.busy_timeout_seconds * 1000)}")
        except BaseException:
            driver.close()
            raise
        return driver

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection on which everything read belongs to one state of the database."""
        with self.turns:
            connection = self.connect()
            try:
                connection.begin(write=False)
                yield connection
                connection.commit()
                if not lite.unchanged(self.place, connection.state):
                    raise StoreError(f"{self.name} was written to while it was read; try again")
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
        with self.turns:
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
                if self.read_only:
                    raise StoreError(
                        f"{self.name} has no runs: it has none of the tables of a store"
                    )
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
        missing = self.missing(connection)
        if len(missing) == len(TABLES):
            return False
        if "nano_meta" in missing or (missing and not self.read_only):
            raise StoreError(
                f"{self.name}: table {missing[0]} is missing; the database is damaged: restore a "
                f"copy"
            )
        found = connection.one("SELECT value FROM nano_meta WHERE name = 'schema'")
        if found is None or type(found[0]) is not str or not found[0].isdigit():
            raise StoreError(
                f"{self.name}: table nano_meta has no version; it was not made by llm-nano-vm"
            )
        if int(found[0]) < SCHEMA_VERSION:
            raise StoreError(
                f"{self.name} was made by an older llm-nano-vm: its tables are of version "
                f"{found[0]}, this one knows "
                f"{SCHEMA_VERSION}; use another file or database; nothing was changed"
            )
        if int(found[0]) > SCHEMA_VERSION:
            raise StoreError(
                f"{self.name} was made by a newer llm-nano-vm: its tables are of version "
                f"{found[0]}, this one knows {SCHEMA_VERSION}; "
                "install that version or a newer one; nothing was changed"
            )
        return True

    def missing(self, connection: Connection) -> list[str]:
        """The tables that are not there."""
        if self.lite:
            text = (
                "SELECT name FROM sqlite_master WHERE type = 'table' AND substr(name, 1, 5) = "
                "'nano_'"
            )
        else:
            # by the catalogue's rows: what a session remembers of names can be older than its transaction
            text = (
                "SELECT relname FROM pg_catalog.pg_class WHERE left(relname, 5) = 'nano_' AND "
                "pg_table_is_visible(oid)"
            )
        there = {name for (name,) in connection.all(text)}
        return [name for name in TABLES if name not in there]

    def make(self, connection: Connection) -> None:
        """All tables and indexes."""
        for statement in statements(lite=self.lite):
            connection.cursor.execute(statement)
        connection.run(
            "INSERT INTO nano_meta (name, value) VALUES ('schema', ?)", str(SCHEMA_VERSION)
        )
        connection.run(
            "INSERT INTO nano_meta (name, value) VALUES ('store', ?)", os.urandom(16).hex()
        )

    def failure(self, error: BaseException, what: str) -> StoreError:
        """An error of the driver as one of ours: what happened, and what to do."""
        told = " ".join(str(error).split()) or type(error).__name__
        low = told.lower()
        hint = next((hint for sign, hint in _HINTS if sign in low), None)
        api = self.api
        kinds = (
            (api.OperationalError,)
            if self.lite
            else (api.OperationalError, api.InterfaceError, api.InternalError)
        )
        passing = isinstance(error, kinds)
        return StoreError(
            f"could not {what} {self.name}: {told}" + (f"; {hint}" if hint else ""), passing=passing
        )

    def locked(self, what: str, waited_seconds: float) -> StoreError:
        """That another transaction held *what* for too long."""
        return StoreError(
            f"could not write to {self.name}: {what} was locked for {waited_seconds:.1f} s by "
            f"another transaction; "
            "end it, or give more busy_timeout_seconds",
            passing=True,
        )

    def blames_statement(self, error: BaseException) -> bool:
        """Whether *error* comes from what was to be written, and not from the database or the way
        to it.
        """
        api = self.api
        return isinstance(
            error, (api.DataError, api.IntegrityError, api.ProgrammingError, api.NotSupportedError)
        )

    def flush(self) -> None:
        """Empty SQLite's log, which still has what was dropped, unless somebody reads from it right
        now.
        """
        if not self.lite:
            return
        with self.turns:
            connection = self.connect()
            try:
                connection.all("PRAGMA wal_checkpoint(TRUNCATE)")
            except self.errors as error:
                connection.discard()
                raise self.failure(error, "write to") from error
            connection.release()

    def close(self) -> None:
        """Close every connection; one that is in use is closed when it is given back."""
        with self._lock:
            self._closed = True
        self._close_idle(self.busy_timeout_seconds)
        if self._memory is not None:
            self._memory.close()

    def _close_idle(self, seconds: float) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        if self._mark is not None:
            self._mark.take_away(seconds)
        for connection in idle:
            connection.close()


_WAY = {
    "application_name": "llm-nano-vm",
    "connect_timeout": 10,
    # a server that is cut off is noticed within half a minute, and not when the system gives up after
    # hours
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}
"""How a server is reached, where its URL does not say."""

_HINTS = (
    ("database is locked", "another process held it for longer than busy_timeout_seconds; end its "
                           "transaction, or give more"),
    ("disk is full", "make room on its disk; what was acknowledged is there"),
    ("no space left", "make room on its disk; what was acknowledged is there"),
    ("malformed", "the file is damaged: restore a copy, or save what can be read with sqlite3's "
                  ".recover"),
    ("not a database", "the file is something else; name another"),
    ("unable to open", "see that the folder exists and may be written"),
    ("readonly", "see that the file and its folder may be written"),
    ("disk i/o error", "the disk or the file failed; see the system's log; what was acknowledged "
                       "is there"),
    ("server closed the connection", "the server went away; see its log, and try again"),
    ("connection is lost", "the server went away; see its log, and try again"),
    ("does not exist", "make the database or the user first: createdb NAME, createuser NAME"),
    ("connection refused", "see that the server runs, and the host and port"),
    ("connection failed", "see that the server runs, and the host, port, user and password"),
)  # fmt: skip


def _parsed(url: str) -> tuple[bool, str, str]:
    """Whether *url* is of SQLite, what its driver takes, and how the store is named in messages:
    without a password.
    """
    kind, mark, rest = url.partition("://")
    if not mark:
        raise StoreError(
            f"not the URL of a store: {url!r}; write sqlite:///runs.db or postgresql://host/name"
        )
    match kind:
        case "sqlite" if "?" in rest and not rest.startswith("/file:"):
            raise StoreError(
                f"{url!r} has options, and a store in SQLite takes none in its URL; write "
                f"sqlite:///runs.db"
            )
        case "sqlite" if not rest or rest.startswith("/"):
            return True, rest[1:], url
        case "sqlite":
            raise StoreError(
                f"{url!r} names a host; a file is sqlite:///runs.db, or sqlite:////var/runs.db"
            )
        case "postgresql" | "postgres" | "postgresql+psycopg":
            return False, f"postgresql://{rest}", "postgresql://" + _PASSWORD.sub(r"\1:***@", rest)
        case other:
            raise StoreError(
                f"no store is kept in {other!r}; write sqlite:///runs.db or postgresql://host/name"
            )


_PASSWORD = re.compile(r"^([^:/?#]*):[^/?#]*@")


def _psycopg() -> Any:
    try:
        import psycopg
    except ImportError:
        raise MissingExtra("a store in PostgreSQL", "postgres") from None
    return psycopg
