"""PostgreSQL, by `psycopg`: many processes write side by side, on many machines."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from ...errors import MissingExtra
from .dialect import Dialect

if TYPE_CHECKING:
    from ..protocol import Ear
    from .database import Connection

_SCHEMA_LOCK = 0x6E616E6F  # any number that others are not likely to lock

_WAY = {
    "application_name": "llm-nano-vm",
    "connect_timeout": 10,
    # a server that is cut off is noticed within half a minute, and not when the system gives up
    # after hours
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}
"""How a server is reached, where its URL does not say."""

_PASSWORD = re.compile(r"^([^:/?#]*):[^/?#]*@")


_CHANNEL = "nano_vm"


class _Ear:
    """See `protocol.Ear`."""

    def __init__(self, driver: Any) -> None:
        self._driver = driver

    def fileno(self) -> int:
        """The socket."""
        return int(self._driver.fileno())

    def heard(self) -> bool:
        """Read what there is, without waiting."""
        server = self._driver.pgconn
        server.consume_input()
        found = False
        while server.notifies() is not None:
            found = True
        return found

    def close(self) -> None:
        """Close the connection."""
        self._driver.close()


class PostgreSQL(Dialect):
    """``postgresql://user@host/name``."""

    begin_read = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
    # numbers of a sequence are never given twice, also not after a run was deleted
    words: ClassVar = {
        "bytes": "BYTEA",
        "number": "BIGSERIAL PRIMARY KEY",
        "clustered": "",
        "key": ", key",
        "ordered": ' COLLATE "C"',
    }
    # the first that fits: what a server says of a connection stands behind "connection failed"
    hints = (
        ("read-only transaction", "it was set so, or is a standby: write to the primary"),
        ("too many clients", "end sessions that nobody needs, or raise its max_connections"),
        ("lock timeout", "another transaction holds a lock; end it, and try again"),
        ("no space left", "make room on its disk; what was acknowledged is there"),
        ("server closed the connection", "the server went away; see its log, and try again"),
        ("connection is lost", "the server went away; see its log, and try again"),
        ("does not exist", "make the database or the user first: createdb NAME, createuser NAME"),
        ("connection refused", "see that the server runs, and the host and port"),
        ("connection failed", "see that the server runs, and the host, port, user and password"),
    )

    def __init__(self, url: str, *, synchronous: str, busy_timeout_seconds: float) -> None:
        super().__init__(url, synchronous=synchronous, busy_timeout_seconds=busy_timeout_seconds)
        self.api = _psycopg()
        rest = url.partition("://")[2]
        self.place, self.name = (
            f"postgresql://{rest}",
            "postgresql://" + _PASSWORD.sub(r"\1:***@", rest),
        )
        self._texts: dict[str, str] = {}

    def connected(self, *, read_only: bool) -> tuple[Any, Any]:
        given = self.api.conninfo.conninfo_to_dict(self.place)
        driver = self.api.connect(
            self.place, autocommit=True, **{k: v for k, v in _WAY.items() if k not in given}
        )
        try:
            driver.execute(f"SET lock_timeout = {int(self.busy_timeout_seconds * 1000)}")
        except BaseException:
            driver.close()
            raise
        return driver, None

    def is_lost(self, driver: Any) -> bool:
        return bool(driver.closed)

    def cursor(self, driver: Any) -> Any:
        return driver.cursor(binary=True)

    def text(self, statement: str) -> str:
        found = self._texts.get(statement)
        if found is None:
            found = self._texts[statement] = statement.replace("?", "%s")
        return found

    def now(self, clock: Callable[[], int]) -> str:
        # of the server, which nobody's wall clock changes
        return "CAST(extract(epoch FROM clock_timestamp()) * 1000000000 AS bigint)"

    def sum(self, column: str) -> str:
        return f"sum(CAST({column} AS NUMERIC))"

    # A transaction of its own that waits for no disk: notices are committed one after the other, so in
    # those of the writer all processes would wait for each other.
    notice = f"BEGIN; SET LOCAL synchronous_commit = off; NOTIFY {_CHANNEL}; END"

    def listened(self) -> Ear:
        driver, _ = self.connected(read_only=True)
        try:
            driver.execute(f"LISTEN {_CHANNEL}")
        except BaseException:
            driver.close()
            raise
        return _Ear(driver)

    def tables(self, connection: Connection) -> list[str]:
        # by the catalogue's rows: what a session remembers of names can be older than its
        # transaction
        text = (
            "SELECT relname FROM pg_catalog.pg_class WHERE left(relname, 5) = 'nano_' AND "
            "pg_table_is_visible(oid)"
        )
        return [name for (name,) in connection.all(text)]

    def lock_schema(self, connection: Connection) -> None:
        connection.run("SELECT pg_advisory_xact_lock(?)", _SCHEMA_LOCK)

    def patience(self, connection: Connection, seconds: float) -> None:
        connection.run(f"SET idle_in_transaction_session_timeout = {int(seconds * 1000)}")

    def begin(self, connection: Connection) -> Any:
        # one message to the server and back for both, which only texts without parameters have
        cursor = connection.driver.execute(f"{self.begin_write}; SELECT txid_current()")
        cursor.nextset()
        return cursor.fetchone()[0]

    def committed(self, connection: Connection, identity: Any) -> bool | None:
        status = connection.one("SELECT txid_status(?)", identity)[0]
        return None if status == "in progress" else bool(status == "committed")

    @property
    def passing(self) -> tuple[type[BaseException], ...]:
        return (self.api.OperationalError, self.api.InterfaceError, self.api.InternalError)


def _psycopg() -> Any:
    try:
        import psycopg
    except ImportError:
        raise MissingExtra("a store in PostgreSQL", "postgres") from None
    return psycopg
