"""The tables of a store: one schema for SQLite and PostgreSQL, with its version in it.

A value (a request, an output, the inputs of a run) stands in a *cell*: its canonical JSON text where that is short, else the hash under
which `contents` holds it once, however many cells name it. Bytes and not a JSON type, because the order of keys is part of a value.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    text,
)

SCHEMA_VERSION = 1
"""Raised by every change after which an older package would read or write these tables wrongly."""

metadata = MetaData()

# Keys are never given twice, also not after a run was deleted: an owner that slept through it must not find its key on another run.
_Key = BigInteger().with_variant(Integer, "sqlite")


def _small(name: str, **more: Any) -> Column[int]:
    return Column(name, SmallInteger, nullable=False, **more)


meta = Table(
    "nano_meta",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

contents = Table(
    "nano_contents",
    metadata,
    Column("hash", LargeBinary, primary_key=True),
    Column("body", LargeBinary, nullable=False),
    Column("refs", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

runs = Table(
    "nano_runs",
    metadata,
    Column("key", _Key, primary_key=True, autoincrement=True),
    Column("run_id", Text, nullable=False, unique=True),
    # never changed, but by erasure; `crc` covers them
    Column("program_name", Text, nullable=False),
    Column("program_digest", Text, nullable=False),
    Column("created_ns", BigInteger, nullable=False),
    Column("document", LargeBinary, nullable=False),
    Column("inputs", LargeBinary, nullable=False),
    Column("about", LargeBinary, nullable=False),
    Column("seed", Text),  # of any length
    Column("salt", LargeBinary),
    Column("parent", Text),
    Column("crc", BigInteger, nullable=False),
    # how it stands
    Column("status", Text, nullable=False),
    Column("started_ns", BigInteger, nullable=False),
    Column("finished_ns", BigInteger, nullable=False),
    Column("output", LargeBinary),
    Column("error", LargeBinary),
    Column("error_kind", Text),
    Column("waiting", LargeBinary),
    Column("wake_ns", BigInteger),
    Column("owner", Text),
    Column("fence", BigInteger, nullable=False),
    Column("seal", Text),
    Column("row_count", BigInteger, nullable=False),  # a damaged tree of SQLite can end early without a word
    Column("steps", BigInteger, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("cost_usd", Text),  # a decimal, exactly
    sqlite_autoincrement=True,
)

Index("nano_runs_created", runs.c.created_ns)
Index("nano_runs_status", runs.c.status, runs.c.created_ns)
_timed = text("wake_ns IS NOT NULL")
Index("nano_runs_wake", runs.c.status, runs.c.wake_ns, sqlite_where=_timed, postgresql_where=_timed)

rows = Table(
    "nano_rows",
    metadata,
    Column("run", _Key, primary_key=True, autoincrement=False),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    _small("kind"),
    Column("frame", Text, nullable=False),
    Column("path", Text, nullable=False),
    _small("type"),  # an index into TYPES
    Column("status", SmallInteger),  # an index into STATUSES
    Column("started_ns", BigInteger, nullable=False),
    Column("lasted_ns", BigInteger),  # shorter than when it finished
    Column("request", LargeBinary),
    Column("output", LargeBinary),
    Column("rest", LargeBinary),
    Column("crc", BigInteger, nullable=False),  # SQLite does not notice a flipped bit
    sqlite_with_rowid=False,
)

inbox = Table(
    "nano_inbox",
    metadata,
    Column("id", _Key, primary_key=True, autoincrement=True),
    Column("run", _Key, nullable=False),
    Column("kind", Text, nullable=False),
    Column("message", LargeBinary, nullable=False),  # as JSON: kind, name, body, by, created_ns
    _small("used"),
    sqlite_autoincrement=True,
)

_unused = text("used <> 1")
Index("nano_inbox_unused", inbox.c.run, sqlite_where=_unused, postgresql_where=_unused)
_telling = text("used = 0")
Index("nano_inbox_telling", inbox.c.run, sqlite_where=_telling, postgresql_where=_telling)

owners = Table(
    "nano_owners",
    metadata,
    Column("owner", Text, primary_key=True),
    Column("until_ns", BigInteger, nullable=False),
)

RUN_FIELDS = tuple(column.name for column in runs.columns if column.name not in ("crc", "row_count"))
ROW_FIELDS = tuple(column.name for column in rows.columns)
