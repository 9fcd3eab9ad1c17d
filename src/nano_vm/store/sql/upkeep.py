"""Keeping house: erasing what a run held, deleting what is old, and checking that everything is as
it was written.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Any

from ...errors import StoreError
from ...values import UNSET
from ..receipts import WAS_DELETED, WAS_ERASED, Entry
from ..records import (
    ANSWERS,
    ENDED,
    UNREADABLE,
    Erased,
    Message,
    StoredRun,
    late_outcomes,
    message_of,
    salted,
)
from ..seals import NO_RUN, hidden_of, message_holds, sealed_as, signature_holds
from ..signing import signer_of
from ..sql import accounts, kept, listing, receipts
from .cells import HELD, Bodies, row_cells, row_crc, run_cells
from .database import Connection, Database
from .read import (
    HEADER,
    INBOX,
    ROWS,
    SEQ,
    assembled,
    cells_of,
    damaged,
    loaded,
    opened_message,
    opened_messages,
    values_of,
)
from .schema import CALL, NEXT, ROW_VALUES, RUN_FIELDS

PRUNE_RUNS = 100
"""Runs that one transaction deletes."""

CHECK_RUNS = 200
"""Headers that are read at once."""


def erase(connection: Connection, bodies: Bodies, run_id: str) -> bool:
    """In a transaction: drop the values of a run, but for their salted hashes; False where they are
    dropped.
    """
    # two that erase at once would both drop the references
    lock = connection.database.dialect.for_update
    connection.one(f"SELECT key FROM nano_runs WHERE run_id = ?{lock}", run_id)
    run = loaded(connection, run_id)
    if run.status not in ENDED:
        raise StoreError(
            f"run {run_id!r} is {run.status}, and needs its values to go on; cancel it first"
        )
    if run.salt is None:
        return False
    header = connection.one(f"{HEADER} WHERE key = ?", run.key)
    stored = connection.all(ROWS, run.key)
    for cell in cells_of([header], stored):
        bodies.drop(cell)
    salt, run.hidden = run.salt, hidden_of(run)
    run.inputs, run.about = _gone(salt, run.inputs), _gone(salt, run.about)
    run.labels = _gone(salt, run.labels)
    run.output, run.error, run.waiting, run.salt = None, None, [], None
    columns = run_cells(run, bodies)
    connection.run(
        f"UPDATE nano_runs SET {', '.join(f'{name} = ?' for name in columns)} WHERE key = ?",
        *columns.values(),
        run.key,
    )
    changed = []
    for fields in stored:
        seq = fields[SEQ]
        row = run.rows[seq]
        row.request, row.output = _gone(salt, row.request), _gone(salt, row.output)
        row.rest = None if row.rest is None else _gone(salt, row.rest)
        cells = row_cells(row, bodies, fields[NEXT:CALL])
        changed.append((*cells[ROW_VALUES], row_crc(run.key, seq, cells), run.key, seq))
    connection.many(
        "UPDATE nano_rows SET request = ?, output = ?, rest = ?, crc = ? WHERE run = ? AND seq = ?",
        changed,
    )
    connection.run("DELETE FROM nano_inbox WHERE run = ?", run.key)
    connection.run("DELETE FROM nano_labels WHERE run = ?", run.key)
    kept.drop(connection, [run.run_id])
    bodies.entries.append(Entry(WAS_ERASED, run.run_id, run.seal or "", time.time_ns()))
    return True


def _gone(salt: bytes, value: Any) -> Any:
    digest = salted(salt, value)
    return UNSET if digest is None else Erased(digest)


def prune(
    connection: Connection, bodies: Bodies, older_than_ns: int, statuses: Sequence[str]
) -> int:
    """In a transaction: delete some of the runs that ended before *older_than_ns*; how many."""
    marks = ", ".join("?" * len(statuses)) or "NULL"
    # who locks them deletes them too
    lock = connection.database.dialect.skip_locked
    headers = connection.all(
        f"{HEADER} WHERE status IN ({marks}) AND finished_ns < ? ORDER BY key LIMIT "
        f"{PRUNE_RUNS}{lock}",
        *statuses,
        older_than_ns,
    )
    for fields in headers:
        for cell in cells_of([fields], connection.all(ROWS, fields[0])):
            bodies.drop(cell)
        named = dict(zip(RUN_FIELDS, fields, strict=False))
        bodies.entries.append(Entry(WAS_DELETED, named["run_id"], named["seal"], time.time_ns()))
    keys = [(fields[0],) for fields in headers]
    for table in ("nano_rows", "nano_inbox", "nano_labels"):
        connection.many(f"DELETE FROM {table} WHERE run = ?", keys)
    connection.many("DELETE FROM nano_runs WHERE key = ?", keys)
    run_ids = [str(fields[1]) for fields in headers]
    accounts.charge(connection, run_ids)
    kept.drop(connection, run_ids)
    return len(headers)


def unused(connection: Connection) -> list[str]:
    """What runs that have ended did not use of what people sent them."""
    ended = ", ".join(f"'{status}'" for status in ENDED)
    found = connection.all(
        "SELECT u.run_id, m.id, m.kind, m.message, m.signature FROM nano_inbox m JOIN nano_runs u "
        "ON u.key = m.run "
        f"WHERE m.used <> 1 AND u.status IN ({ended}) AND m.kind IN "
        f"({', '.join('?' * len(ANSWERS))}) ORDER BY m.id",
        *ANSWERS,
    )
    told = []
    for run_id, *fields in found:
        message = readable(connection, run_id, fields)
        told.append(
            f"run {run_id!r} has ended and did not use: {message.kind} {message.name!r} by "
            f"{message.by!r}"
        )
    return told


def readable(connection: Connection, run_id: str, fields: Sequence[Any]) -> Message:
    """A message of the columns of its row.

    Raises:
        StoreError: If they hold what no message has, or there is no key for it.
    """
    try:
        return message_of(*opened_message(connection, fields, connection.database.name))
    except UNREADABLE as error:
        raise damaged(run_id, "a message") from error


def check(
    database: Database, trusted: frozenset[str] | None = None, head: str | None = None
) -> list[str]:
    """Problems of a database, each in a sentence; *trusted* keys must have signed everything, and
    the receipt *head* be there.
    """
    problems: list[str] = []
    if (without := database.dialect.lost()) is not None:
        problems.append(without)
    try:
        with database.reading() as connection:
            missing = database.missing(connection)
            if missing:
                return [
                    *problems,
                    *(f"table {name} is missing: restore a copy" for name in missing),
                ]
            problems += database.dialect.faults(connection)
            used: Counter[bytes] = Counter()
            _check_runs(connection, problems, used, trusted)
            _check_contents(connection, problems, used)
            lost = connection.all(
                "SELECT DISTINCT run FROM nano_rows WHERE run NOT IN (SELECT key FROM nano_runs)"
            )
            problems += [f"rows of run number {key}, which is not there" for (key,) in lost]
            problems += listing.unowned_labels(connection)
            problems += _event_faults(connection, trusted)
            problems += receipts.check(connection, trusted, head)
    except StoreError as error:
        problems.append(str(error))
    return problems


def _check_runs(
    connection: Connection,
    problems: list[str],
    used: Counter[bytes],
    trusted: frozenset[str] | None,
) -> None:
    after = -1
    while headers := connection.all(
        f"{HEADER} WHERE key > ? ORDER BY key LIMIT {CHECK_RUNS}", after
    ):
        after = headers[-1][0]
        for fields in headers:
            stored = connection.all(ROWS, fields[0])
            cells = cells_of([fields], stored)
            used.update(cell[1:] for cell in cells if isinstance(cell, bytes) and cell[:1] == HELD)
            name = f"run {fields[RUN_FIELDS.index('run_id')]!r}"
            try:
                messages = opened_messages(connection, connection.all(INBOX, fields[0]), name)
                run = assembled(
                    fields, stored, messages, values_of(connection, [fields], stored, name)
                )
            except StoreError as error:
                problems.append(str(error))
                continue
            problems += (f"{name}: {fault}" for fault in _seal_faults(run, trusted))
            problems += (f"{name}: {fault}" for fault in listing.label_faults(connection, run))
            problems += (f"{name}: {fault}" for fault in _message_faults(run, trusted))
            if run.salt is not None:
                problems += (
                    f"{name} has ended ({run.status}), and its call {message.name!r} came to "
                    f"something else since: nano-vm show"
                    for message in late_outcomes(run)
                )


def _event_faults(connection: Connection, trusted: frozenset[str] | None) -> Iterator[str]:
    """What is wrong with events that no run has yet."""
    for number, name, message, signature in connection.all(
        "SELECT id, name, message, signature FROM nano_events WHERE run IS NULL ORDER BY id"
    ):
        found = readable(connection, f"event {number}", [number, "event", message, signature])
        if found.name != name:
            yield f"event {number}: its name was changed"
        yield from (
            f"event {number}: it {fault}" for fault in _signature_faults(NO_RUN, found, trusted)
        )


def _message_faults(run: StoredRun, trusted: frozenset[str] | None) -> Iterator[str]:
    """What is wrong with the signatures of messages that are not used yet; those that were are
    covered by the seal.
    """
    for message in run.inbox:
        for fault in _signature_faults(run.run_id, message, trusted):
            yield f"its message {message.kind!r} by {message.by!r} {fault}"


def _signature_faults(
    run_id: str, message: Message, trusted: frozenset[str] | None
) -> Iterator[str]:
    signer = signer_of(message.signature)
    if signer is None:
        if trusted is not None:
            yield "is not signed"
    elif trusted is not None and signer not in trusted:
        yield f"is signed by another key: {signer}"
    elif not message_holds(run_id, message, frozenset((signer,))):
        yield "has a signature that does not fit: it was changed"


def _seal_faults(run: StoredRun, trusted: frozenset[str] | None) -> Iterator[str]:
    """What is wrong with the seal of a run, or with its signature."""
    if sealed_as(run) is None:
        yield "its seal does not fit its records: they were changed, or it was"
    elif run.signature is None:
        if trusted is not None:
            yield "it is not signed"
    elif trusted is not None and signer_of(run.signature) not in trusted:
        yield f"it is signed by another key: {signer_of(run.signature)}"
    elif not signature_holds(run):
        yield "its signature does not fit its seal: it was changed"


def _check_contents(connection: Connection, problems: list[str], used: Counter[bytes]) -> None:
    after = b""
    while found := connection.all(
        f"SELECT hash, body, refs FROM nano_contents WHERE hash > ? ORDER BY hash LIMIT "
        f"{CHECK_RUNS}",
        after,
    ):
        after = found[-1][0]
        for digest, body, refs in found:
            if not isinstance(body, bytes) or sha256(body).digest() != digest:
                problems.append(f"value {digest.hex()}: its text does not fit its hash")
            count = used.pop(digest, 0)
            if count != refs:
                problems.append(
                    f"value {digest.hex()}: {refs} references are counted, there are {count}"
                )
    problems += [
        f"value {digest.hex()} is missing, and named {count} times"
        for digest, count in sorted(used.items())
    ]
