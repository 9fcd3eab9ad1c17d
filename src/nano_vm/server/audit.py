"""The audit log: who changed what, when, from where. Each entry has the hash of the one before.

An entry is written in the transaction of the change that it tells of. Whoever adds one holds the
row of the head, so entries are in one order. An entry that is edited, left out or moved breaks the
chain; of entries that are taken from the end the head, which stands apart, tells. Who keeps a head
elsewhere finds it too if both were changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from ..values import canonical, parse_json
from .rows import Prepared, Row, Rows, Tables, everywhere
from .shapes import line_bytes
from .tables import audit, audit_head

READ_AT_ONCE = 1000
"""Entries that are read at once when the log is verified."""

_HASHED = "number at_ns project actor key_id ip action target detail request_id previous".split()

_LAST = Prepared(sa.select(audit_head))
_HEAD = Prepared(sa.select(audit_head).with_for_update())
_ADD = Prepared(
    everywhere(sa.insert(audit).values({c.name: sa.bindparam(f"new_{c.name}") for c in audit.c}))
)
_MOVE = Prepared(
    sa.update(audit_head).values(number=sa.bindparam("new_number"), hash=sa.bindparam("new_hash"))
)

_FOLLOWING = Prepared(
    everywhere(
        sa.select(audit)
        .where(audit.c.number > sa.bindparam("number"))
        .order_by(audit.c.number)
        .limit(sa.bindparam("most"))
    )
)


@dataclass(frozen=True, slots=True)
class Entry:
    """What somebody did: *action* to *target*. ``project`` is empty for what is the instance's."""

    at_ns: int
    project: str
    actor: str
    action: str
    target: str
    detail: dict[str, Any] = field(default_factory=dict)
    key_id: str | None = None
    ip: str = ""
    request_id: str = ""


def hold(rows: Rows) -> Row:
    """The head of the log, which nobody else writes behind until this transaction ends."""
    head = rows.one(_HEAD)
    assert head is not None
    return head


def add(rows: Rows, entry: Entry) -> None:
    """Write *entry* behind the last one."""
    head = hold(rows)
    values = {
        "number": head.number + 1,
        "at_ns": entry.at_ns,
        "project": entry.project,
        "actor": entry.actor,
        "key_id": entry.key_id,
        "ip": entry.ip,
        "action": entry.action,
        "target": entry.target,
        "detail": canonical(entry.detail).decode(),
        "request_id": entry.request_id,
        "previous": head.hash,
    }
    values["hash"] = hash_of(values)
    rows.run(_ADD, **{f"new_{name}": value for name, value in values.items()})
    rows.run(_MOVE, new_number=values["number"], new_hash=values["hash"])


def hash_of(entry: dict[str, Any]) -> str:
    """The hash of an entry: of all that it says, and the hash of the one before."""
    return hashlib.sha256(canonical([entry[name] for name in _HASHED])).hexdigest()


def shown(row: Row) -> dict[str, Any]:
    """An entry as JSON; times are milliseconds since the epoch."""
    return {
        **{name: row[name] for name in ("number", "project", "actor", "key_id", "ip", "action")},
        "target": row.target,
        "detail": parse_json(row.detail),
        "request_id": row.request_id,
        "at": row.at_ns / 1e6,
        "hash": row.hash,
    }


def head(rows: Rows) -> str:
    """Number and hash of the newest entry, to be kept elsewhere."""
    found = rows.one(_LAST)
    return f"{found.number}:{found.hash}" if found is not None else ""


def _following(rows: Rows, number: int) -> list[Row]:
    """Entries behind the one of that number, as many as are read at once."""
    return rows.all(_FOLLOWING, number=number, most=READ_AT_ONCE)


def lines(tables: Tables) -> Iterator[bytes]:
    """All entries, oldest first, each as JSON in a line without its end."""
    last, found = 0, None
    while found is None or len(found) == READ_AT_ONCE:
        with tables.reading() as rows:
            found = _following(rows, last)
        for row in found:
            last = row.number
            yield line_bytes({**shown(row), "previous": row.previous})


def faults(rows: Rows) -> Iterator[str]:
    """What is wrong with the log, each in a sentence; nothing if it is as it was written."""
    previous, number, found = "", 0, None
    while found is None or len(found) == READ_AT_ONCE:
        found = _following(rows, number)
        for row in found:
            if row.number != number + 1:
                yield f"entries {number + 1} to {row.number - 1} are missing"
            elif row.previous != previous:
                yield f"entry {row.number} does not follow entry {number}"
            if hash_of(row) != row.hash:
                yield f"entry {row.number} was changed"
            previous, number = row.hash, row.number
    head = rows.one(_LAST)
    if head is None:
        yield "the head of the log is missing"
    elif (head.number, head.hash) != (number, previous):
        yield f"the log ends with entry {number}, and its head says {head.number}"
