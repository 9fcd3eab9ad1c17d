"""A database by its URL: connections, transactions, and what its errors mean. What databases differ
in is their `dialect`.

Each is spoken to by its driver, `sqlite3` or `psycopg`, in statements of text: a durable step costs
six of them, and a layer in between costs ten times as much as the statement.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from ... import forking
from ...errors import MissingExtra, StoreError
from ..encryption import StoreKeys
from . import migrations
from .dialect import Dialect, dialect_of
from .schema import REVISIONS, SCHEMA_VERSION, TABLES, statements

# Sizes that lists of parameters are filled up to, so that a handful of texts is prepared once and
# not one for each length.
_LIST_SIZES = (1, 8, 64, 512, 4096)

REST_SECONDS = 5.0
"""How long a fork waits for transactions under way; they take milliseconds, if nobody holds a lock.
"""

IDLE_CONNECTIONS = 8
"""Connections that are kept open for the next who needs one. asyncio has six threads on two cores,
and the writer and the lease are two more: were it fewer than ask at once, a busy machine would open
and close one again and again.
"""


def marks(values: Collection[Any]) -> str:
    """A parameter for each of *values*."""
    return ", ".join("?" * len(values))


def padded(values: Sequence[Any]) -> list[Any]:
    """*values*, of which the last comes as often again as there is room in the next larger of a few
    sizes.
    """
    size = next((size for size in _LIST_SIZES if size >= len(values)), len(values))
    return [*values, *[values[-1]] * (size - len(values))] if values else []


def parts(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """*values* in parts that one statement takes."""
    return (values[at : at + _LIST_SIZES[-1]] for at in range(0, len(values), _LIST_SIZES[-1]))


class Connection:
    """One connection to the database, used by one thread at a time."""

    def __init__(self, database: Database, driver: Any, state: Any = None) -> None:
        self.database = database
        self.state = state  # see `Dialect.unchanged`
        self.driver = driver
        self._text = database.dialect.text
        self.cursor: Any = database.dialect.cursor(driver)

    @property
    def dialect(self) -> str:
        """Whose words its statements are in."""
        return type(self.database.dialect).__name__

    def one(self, statement: str, *values: Any) -> Any:
        """The first row, or None."""
        return self.cursor.execute(self._text(statement), values).fetchone()

    def all(self, statement: str, *values: Any) -> list[Any]:
        """All rows."""
        return self.cursor.execute(self._text(statement), values).fetchall()  # type: ignore[no-any-return]

    def run(self, statement: str, *values: Any) -> int:
        """Execute; the number of rows that it changed."""
        return self.cursor.execute(self._text(statement), values).rowcount  # type: ignore[no-any-return]

    def many(self, statement: str, values: Sequence[Sequence[Any]]) -> None:
        """Execute once for each of *values*."""
        if len(values) == 1:
            self.cursor.execute(self._text(statement), values[0])
        elif values:
            self.cursor.executemany(self._text(statement), values)

    def among(self, statement: str, keys: Sequence[Any]) -> list[Any]:
        """Rows of a statement with ``IN (*)``, for all of *keys*."""
        found: list[Any] = []
        for part in map(padded, parts(keys)):
            found += self.all(statement.replace("IN (*)", f"IN ({marks(part)})"), *part)
        return found

    def begin(self, *, write: bool = True) -> Any:
        """Begin a transaction: one that writes holds the lock at once, one that reads sees one
        state throughout. Of one that writes, what `Dialect.committed` is asked about it.
        """
        dialect = self.database.dialect
        if write:
            return dialect.begin(self)
        self.cursor.execute(dialect.begin_read)

    def commit(self) -> None:
        """End the transaction; what it wrote is durable."""
        self.cursor.execute("COMMIT")

    def rollback(self) -> None:
        """End the transaction; nothing was written."""
        self.cursor.execute("ROLLBACK")

    def release(self) -> None:
        """Give it back, to be used again."""
        self.database.take_back(self)

    def discard(self) -> None:
        """Close it: who knows what state it is in. That of a database in memory is the database,
        and is only rolled back.
        """
        with suppress(*self.database.errors):
            # one that stands in a statement would keep a closed connection's locks
            self.cursor.close()
            self.database.dialect.undo(self.driver)
        if not self.database.dialect.in_memory:
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
        upgrade: bool = False,
        keys: StoreKeys | None = None,
    ) -> None:
        self.keys = keys
        self.dialect: Dialect = dialect_of(
            url, synchronous=synchronous, busy_timeout_seconds=busy_timeout_seconds
        )
        self.name = self.dialect.name
        self.errors = self.dialect.errors
        self.busy_timeout_seconds = busy_timeout_seconds
        self.turns = Turns(one_by_one=self.dialect.in_memory)
        self._idle: list[Connection] = []
        self._lock = threading.Lock()
        self._closed = False
        self.read_only = read_only
        self.identity: str | None = None  # of the store, once it was read
        forking.join(self)
        with self.turns:
            if not read_only:
                self.dialect.enter(accept=accept)
            try:
                self.prepare(upgrade=upgrade)
            except BaseException:
                self.close()
                raise

    def before_fork(self) -> None:
        """Close all connections: SQLite's must not be in the child, not even unused."""
        if self.turns.rest() and not self.dialect.in_memory:
            self._close_idle(min(self.busy_timeout_seconds, REST_SECONDS))

    def after_fork_in_parent(self) -> None:
        """Let those go on who want a connection."""
        self.turns.go_on()

    def after_fork_in_child(self) -> None:
        """Begin without connections."""
        rested = self.turns.begin_anew()
        forking.leave(self._idle)
        self._idle = []
        self._lock = threading.Lock()
        self.dialect.forked(rested=rested)

    def connect(self) -> Connection:
        """A new connection, the caller's own."""
        self.dialect.usable()
        try:
            return Connection(self, *self.dialect.connected(read_only=self.read_only))
        except self.errors as error:
            raise self.failure(error, "open") from error

    def _begun(self, *, write: bool) -> Connection:
        """A connection in a transaction: one that was kept, if there is any. Nothing depends on one
        that was lost since, so that is found as the transaction begins, and another taken.
        """
        while True:
            self.dialect.usable()
            with self._lock:
                kept = self._idle.pop() if self._idle else None
            connection = kept if kept is not None else self.connect()
            try:
                connection.begin(write=write)
            except BaseException as error:
                lost = kept is not None and self.dialect.is_lost(connection.driver)
                connection.discard()
                if not isinstance(error, self.errors):
                    raise
                if not lost:
                    raise self.failure(error, "write to" if write else "read") from error
            else:
                return connection

    def take_back(self, connection: Connection) -> None:
        """Keep a connection for the next who needs one."""
        if self.dialect.in_memory:
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

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection on which everything read belongs to one state of the database."""
        with self.turns:
            connection = self._begun(write=False)
            try:
                yield connection
                connection.commit()
                if not self.dialect.unchanged(connection.state):
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
            connection = self._begun(write=True)
            try:
                yield connection
                connection.commit()
            except self.errors as error:
                connection.discard()  # which rolls back
                raise self.failure(error, "write to") from error
            except BaseException:
                connection.discard()
                raise
            connection.release()

    def prepare(self, *, upgrade: bool) -> None:
        """Make the tables, or see that they are ours and of the version that we know; with
        *upgrade* make them of it.
        """
        connection = self.connect()
        try:
            found = self.version(connection)
            if found is None and self.read_only:
                raise StoreError(f"{self.name} has no runs: it has none of the tables of a store")
            if found is None or upgrade:
                connection.begin()
                self.dialect.lock_schema(connection)
                found = self.version(connection)  # others may have made them in the meantime
                if found is None:
                    self.make(connection)
                if upgrade:
                    self.upgrade(connection)
                connection.commit()
                found = self.version(connection)
            if found != SCHEMA_VERSION:
                raise self.refused(found)
            self.complete(connection)
        except self.errors as error:
            connection.discard()
            raise self.failure(error, "open") from error
        except BaseException:
            connection.discard()
            raise
        connection.release()

    def version(self, connection: Connection) -> int | None:
        """The version of the tables; None where there are none."""
        missing = self.missing(connection)
        if len(missing) == len(TABLES):
            return None
        if "nano_meta" in missing:
            raise self.damaged(missing)
        found = connection.one("SELECT value FROM nano_meta WHERE name = 'schema'")
        if found is None or type(found[0]) is not str or not found[0].isdigit():
            raise StoreError(
                f"{self.name}: table nano_meta has no version; it was not made by llm-nano-vm"
            )
        return int(found[0])

    def refused(self, found: int | None) -> StoreError:
        """That the tables are of another version, and what to do."""
        age, remedy = "newer", "install that version or a newer one"
        if found is not None and found < SCHEMA_VERSION:
            age = "older"
            remedy = "use another file or database"
            if found in REVISIONS:
                remedy = "nano-vm store upgrade"
        return StoreError(
            f"{self.name} was made by a{'n' * (age == 'older')} {age} llm-nano-vm: its tables are "
            f"of version {found}, this one knows {SCHEMA_VERSION}; {remedy}; nothing was changed"
        )

    def upgrade(self, connection: Connection) -> None:
        """In a transaction: make the tables those that we know, and those of the server too.

        Raises:
            MissingExtra: If what runs revisions is not installed, and they are needed.
            StoreError: If no revision leads from these tables to ours.
        """
        found = self.version(connection)
        if found not in REVISIONS:
            raise self.refused(found)
        try:
            migrations.run(connection.driver, type(self.dialect).__name__, at=REVISIONS[found])
        except MissingExtra:
            if found < SCHEMA_VERSION:
                raise

    def complete(self, connection: Connection) -> None:
        """See that no table is missing; a store that is only read shows what there is."""
        missing = self.missing(connection)
        if missing and not self.read_only:
            raise self.damaged(missing)

    def damaged(self, missing: Sequence[str]) -> StoreError:
        """That a table is missing."""
        return StoreError(
            f"{self.name}: table {missing[0]} is missing; the database is damaged: restore a copy"
        )

    def missing(self, connection: Connection) -> list[str]:
        """The tables that are not there."""
        there = set(self.dialect.tables(connection))
        return [name for name in TABLES if name not in there]

    def make(self, connection: Connection) -> None:
        """All tables and indexes."""
        for statement in statements(self.dialect.words):
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
        hint = next((hint for sign, hint in self.dialect.hints if sign in low), None)
        passing = isinstance(error, self.dialect.passing)
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
        api = self.dialect.api
        return isinstance(
            error, (api.DataError, api.IntegrityError, api.ProgrammingError, api.NotSupportedError)
        )

    def flush(self) -> None:
        """Overwrite what was dropped, where the database has it still."""
        with self.turns:
            connection = self.connect()
            try:
                self.dialect.flush(connection)
            except self.errors as error:
                connection.discard()
                raise self.failure(error, "write to") from error
            connection.release()

    def close(self) -> None:
        """Close every connection; one that is in use is closed when it is given back."""
        with self._lock:
            self._closed = True
        self._close_idle(self.busy_timeout_seconds)
        self.dialect.close()

    def _close_idle(self, seconds: float) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        self.dialect.leave(seconds)
        for connection in idle:
            connection.close()
