"""What databases differ in: a `Dialect` for each, found by the scheme of a store's URL.

Everything else in this package is written once, in the SQL that all of them have. A database more
is a class here beside, and its schemes in `SCHEMES`.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from ...errors import StoreError

if TYPE_CHECKING:
    from ..protocol import Ear
    from .database import Connection


class Dialect(ABC):
    """One database by its URL: how it is reached and spoken to. The defaults are those of a server
    whose transactions write side by side.

    Raises:
        MissingExtra: If its driver is not installed.
        StoreError: If the URL is none of this database.
    """

    alone: ClassVar[bool] = False
    """Whether a transaction that writes is alone: then nobody holds a row, and all that waits
    shares one transaction.
    """

    one_machine: ClassVar[bool] = False
    """Whether only processes of one machine can have it open."""

    in_memory: bool = False
    """Whether the database is one connection of this process, and ends with it."""

    begin_write: ClassVar[str] = "BEGIN"
    begin_read: ClassVar[str] = "BEGIN"

    for_update: ClassVar[str] = " FOR UPDATE"
    for_share: ClassVar[str] = " FOR SHARE"
    skip_locked: ClassVar[str] = " FOR UPDATE SKIP LOCKED"
    """What follows a SELECT whose rows are held until the transaction ends."""

    words: ClassVar[Mapping[str, str]]
    """The words of the schema that differ, see `schema`."""

    hints: ClassVar[tuple[tuple[str, str], ...]] = ()
    """What to do about an error, by a sign in its text."""

    api: Any
    """The driver, a module of DB-API 2.0."""

    name: str
    """What messages call the database, without a password."""

    def __init__(self, url: str, *, synchronous: str, busy_timeout_seconds: float) -> None:
        self.name = url
        self.synchronous, self.busy_timeout_seconds = synchronous, busy_timeout_seconds

    # --- connections ---

    @abstractmethod
    def connected(self, *, read_only: bool) -> tuple[Any, Any]:
        """A connection of the driver, and what `unchanged` needs of it."""

    def cursor(self, driver: Any) -> Any:
        """A cursor of a connection."""
        return driver.cursor()

    def unchanged(self, state: Any) -> bool:
        """Whether what was read since `connected` gave *state* was of one moment."""
        return True

    def is_lost(self, driver: Any) -> bool:
        """Whether a connection on which a statement failed has no other side any more."""
        return False

    def undo(self, driver: Any) -> None:
        """Roll back before a connection is closed, where closing does not."""
        return

    def close(self) -> None:
        """Nothing is connected any more."""
        return

    # --- a process among others ---

    def enter(self, *, accept: bool) -> None:
        """Called before the first connection that may write; *accept* takes what was lost as it is.

        Raises:
            StoreError: If something is missing without which nobody may go on.
        """
        return

    def writes(self, driver: Any) -> None:
        """Called before the first transaction that writes."""
        return

    def leave(self, seconds: float) -> None:
        """Called before the last connection is closed."""
        return

    def forked(self, *, rested: bool) -> None:
        """Called in a child; *rested* says that no transaction was under way in its parent."""
        return

    def usable(self) -> None:
        """Called before each connection, and before each transaction on one that was kept.

        Raises:
            StoreError: If this process may not use the database.
        """
        return

    # --- statements ---

    def text(self, statement: str) -> str:
        """*statement*, whose parameters are ``?``, as the driver marks them."""
        return statement

    @abstractmethod
    def now(self, clock: Callable[[], int]) -> str:
        """The present by the clock of leases, in nanoseconds, as an expression of SQL."""

    @abstractmethod
    def sum(self, column: str) -> str:
        """The exact sum of a column of decimals that are stored as text, None where there is none,
        as an expression of SQL.
        """

    @abstractmethod
    def tables(self, connection: Connection) -> list[str]:
        """The names of the tables that are there and begin with ``nano_``."""

    def lock_schema(self, connection: Connection) -> None:
        """In a transaction: keep others from making the tables meanwhile."""
        return

    def patience(self, connection: Connection, seconds: float) -> None:
        """Have the database end a transaction of *connection* whose process does nothing for so
        long.
        """
        return

    def begin(self, connection: Connection) -> Any:
        """Begin a transaction that writes; what `committed` is asked about it, None where a commit
        cannot get lost on its way.
        """
        connection.cursor.execute(self.begin_write)

    def committed(self, connection: Connection, identity: Any) -> bool | None:
        """Whether a transaction was committed; None while it is under way."""
        raise NotImplementedError

    def faults(self, connection: Connection) -> Iterator[str]:
        """What the database itself finds damaged."""
        return iter(())

    def lost(self) -> str | None:
        """What is missing beside the tables, see `enter`."""
        return None

    notice: ClassVar[str | None] = None
    """The statement that tells who listens that something was written; it needs no transaction, and
    may fail.
    """

    def listened(self) -> Ear | None:
        """A connection that hears notices; None where the database has none.

        Raises:
            Exception: One of `errors`, if there is no connection.
        """
        return None

    def flush(self, connection: Connection) -> None:
        """Overwrite what was dropped, where that waits for something."""
        return

    # --- errors ---

    @property
    def errors(self) -> tuple[type[BaseException], ...]:
        """Errors of the driver."""
        return (self.api.Error,)

    @property
    @abstractmethod
    def passing(self) -> tuple[type[BaseException], ...]:
        """Errors of the driver that may be over a moment later."""


SCHEMES: dict[str, str] = {
    "sqlite": "sqlite:SQLite",
    "postgresql": "postgres:PostgreSQL",
    "postgres": "postgres:PostgreSQL",
    "postgresql+psycopg": "postgres:PostgreSQL",
}
"""Modules of this package and their `Dialect`, which is imported when a URL asks for it."""


def dialect_of(url: str, *, synchronous: str, busy_timeout_seconds: float) -> Dialect:
    """The dialect of a store's URL.

    Raises:
        MissingExtra: If its driver is not installed.
        StoreError: If there is none.
    """
    scheme, mark, _ = url.partition("://")
    if not mark:
        raise StoreError(
            f"not the URL of a store: {url!r}; write sqlite:///runs.db or postgresql://host/name"
        )
    if scheme not in SCHEMES:
        raise StoreError(
            f"no store is kept in {scheme!r}; write sqlite:///runs.db or postgresql://host/name"
        )
    module, _, name = SCHEMES[scheme].partition(":")
    made: Dialect = getattr(importlib.import_module(f".{module}", __package__), name)(
        url, synchronous=synchronous, busy_timeout_seconds=busy_timeout_seconds
    )
    return made
