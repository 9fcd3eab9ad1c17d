"""Runs out of the tables: what is read is held against its hashes and checksums, so damage is an
error and never another run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from itertools import groupby
from operator import itemgetter
from typing import Any

from ...errors import StoreError, UnknownRun
from ..encryption import opened
from ..records import UNREADABLE, Row, StoredRun, message_of
from .cells import (
    CELLS,
    count_of,
    decoded,
    hashes_in,
    next_of,
    row_crc,
    row_of,
    run_crc,
    run_of,
)
from .database import Connection
from .schema import NEXT, ROW_CELLS, ROW_VALUES, RUN_FIELDS

HEADER = f"SELECT {', '.join(RUN_FIELDS)}, row_count, crc FROM nano_runs"
_CELLS = ", ".join(ROW_CELLS)
_ROW = f"SELECT {_CELLS}, seq, crc FROM nano_rows WHERE run = ?"
ROWS = f"{_ROW} ORDER BY seq"
_ROWS_OF_RUNS = f"SELECT {_CELLS}, seq, crc, run FROM nano_rows WHERE run IN (*) ORDER BY run, seq"
_SENT = "id, kind, message, signature, used"
INBOX = f"SELECT {_SENT} FROM nano_inbox WHERE run = ? ORDER BY id"
_INBOXES_OF_RUNS = f"SELECT {_SENT}, run FROM nano_inbox WHERE run IN (*) ORDER BY run, id"
RUN_ID = RUN_FIELDS.index("run_id")
SEQ, _CRC = len(ROW_CELLS), len(ROW_CELLS) + 1
"""Where number and checksum of a row stand, after its cells."""

Columns = tuple[Any, ...]

SEEN = 2
"""``used`` of a message that a run has no use for yet."""

DOCUMENTS = 16
"""Programs of runs that were read lately: reading that of 10,000 steps takes longer than all of a
short run.
"""

_DOCUMENT = RUN_FIELDS.index("document")
_CELLS_AT = [RUN_FIELDS.index(name) for name in RUN_FIELDS if name in CELLS]


def loaded(
    connection: Connection,
    run_id: str,
    *,
    rows: bool = True,
    documents: dict[bytes, Any] | None = None,
) -> StoredRun:
    """A run, with its rows in order and its unused messages; *documents* are those that were read
    lately, by their cells.

    Raises:
        UnknownRun: If there is none.
        StoreError: If it was damaged where it lies.
    """
    found = loaded_each(connection, [run_id], rows=rows, documents=documents)[run_id]
    if isinstance(found, StoreError):
        raise found
    return found


def loaded_each(
    connection: Connection,
    run_ids: Sequence[str],
    *,
    rows: bool = True,
    documents: dict[bytes, Any] | None = None,
) -> dict[str, StoredRun | StoreError]:
    """As `loaded`, of several runs by as many statements as of one; in the place of a run what
    `loaded` would raise.
    """
    page = {
        fields[RUN_ID]: fields
        for fields in connection.among(f"{HEADER} WHERE run_id IN (*)", run_ids)
    }
    keys = [fields[0] for fields in page.values()]
    stored = _stored(connection, keys) if rows else {}
    messages = {
        key: [message[:-1] for message in of_run]
        for key, of_run in _by_run(connection.among(_INBOXES_OF_RUNS, keys)).items()
    }
    found: dict[str, StoredRun | StoreError] = {}
    cells: dict[str, dict[bytes | None, None]] = {}  # each once
    hashes: dict[bytes, None] = {}
    for run_id in run_ids:
        if run_id not in page:
            found[run_id] = unknown(run_id)
            continue
        try:
            with _readable(f"run {run_id!r}"):
                fields = page[run_id]
                cells[run_id] = dict.fromkeys(cells_of([fields], stored.get(fields[0], ())))
                hashes |= dict.fromkeys(hashes_in(cells[run_id]))
        except StoreError as error:
            found[run_id] = error
    bodies = bodies_of(connection, list(hashes))
    known = documents if documents is not None else {}
    for run_id in [run_id for run_id in cells if run_id not in found]:
        fields = page[run_id]
        key, where = fields[0], f"run {run_id!r}"
        try:
            with _readable(where):
                values = decoded(cells[run_id], bodies, where, known)
            sent = opened_messages(connection, messages.get(key, ()), where)
            of_run = stored.get(key, []) if rows else None
            found[run_id] = assembled(fields, of_run, sent, values)
        except StoreError as error:
            found[run_id] = error
            continue
        known[fields[_DOCUMENT]] = values[fields[_DOCUMENT]]
        if len(known) > DOCUMENTS:
            known.pop(next(iter(known)), None)
    return found


def _stored(connection: Connection, keys: Sequence[int]) -> dict[int, list[Columns]]:
    """The rows of runs, by their keys, as `ROWS` selects them."""
    if len(keys) == 1:  # a column less: of 10,000 rows it takes 0.8 ms
        return {keys[0]: connection.all(ROWS, keys[0])}
    return _by_run(connection.among(_ROWS_OF_RUNS, keys))


def _by_run(rows: list[Columns]) -> dict[int, list[Columns]]:
    """Rows that stand in the order of their runs, by the run in their last column."""
    return {key: list(of_run) for key, of_run in groupby(rows, itemgetter(-1))}


def rows_after(connection: Connection, run_id: str, seq: int, limit: int | None) -> list[Row]:
    """The rows of a run that follow row number *seq*.

    Raises:
        UnknownRun: If there is none.
        StoreError: If one was damaged where it lies.
    """
    found = connection.one("SELECT key, row_count FROM nano_runs WHERE run_id = ?", run_id)
    if found is None:
        raise unknown(run_id)
    key, count = found
    first = max(seq + 1, 0)
    last = count if limit is None else min(count, first + limit)
    begin, stored = between(connection, key, first, last)
    values = values_of(connection, (), stored, f"run {run_id!r}")
    try:
        rows = list(rows_of(run_id, key, begin, stored, values))[first - begin : last - begin]
    except UNREADABLE as error:
        raise damaged(run_id, "a row") from error
    if len(rows) != max(last - first, 0):
        raise damaged(run_id, f"{len(rows)} rows of {last - first}")
    return rows


def between(connection: Connection, key: int, first: int, last: int) -> tuple[int, list[Columns]]:
    """What holds the rows of a run from number *first* to before *last*, as `ROWS` selects it, and
    the number of the first row that is in it: one before *first*, or one after *last*, may be held
    together with them.
    """
    stored = connection.all(f"{_ROW} AND seq >= ? AND seq < ? ORDER BY seq", key, first - 1, last)
    if stored and stored[0][SEQ] == first - 1:
        if count_of(stored[0]) > 1:
            return first - 1, stored
        del stored[0]
    return first, stored


def rows_of(
    run_id: str,
    key: int,
    first: int,
    stored: Iterable[Columns],
    values: Mapping[bytes | None, Any],
) -> Iterator[Row]:
    """Rows of a run from number *first* on, of columns that begin with those that `ROWS` selects."""
    at = first
    for row in stored:
        if row[SEQ] != at or row_crc(key, at, row) != row[_CRC]:
            raise damaged(run_id, f"row {at}")
        yield row_of(row, values)
        at += 1
        if row[NEXT] is not None:
            yield next_of(row)
            at += 1


def headers(
    connection: Connection, page: Sequence[Sequence[Any]], damaged: list[str] | None = None
) -> list[StoredRun]:
    """The runs of a *page* of headers; those that were damaged are reported in *damaged*, where that is
    given.

    Raises:
        StoreError: If one was damaged where it lies, and *damaged* is not given.
    """
    try:
        values = values_of(connection, page, (), connection.database.name)
        return [assembled(fields, None, [], values) for fields in page]
    except StoreError:
        if damaged is None:
            raise
    made = []
    for fields in page:
        try:
            values = values_of(connection, [fields], (), f"run {fields[RUN_ID]!r}")
            made.append(assembled(fields, None, [], values))
        except StoreError as error:
            damaged.append(str(error))
    return made


def values_of(
    connection: Connection,
    headers: Sequence[Sequence[Any]],
    rows: Sequence[Sequence[Any]],
    where: str,
) -> dict[bytes | None, Any]:
    """The values of all cells of *headers* and *rows*."""
    with _readable(where):
        cells = dict.fromkeys(cells_of(headers, rows))
        return decoded(cells, bodies_of(connection, hashes_in(cells)), where, {})


@contextmanager
def _readable(where: str) -> Iterator[None]:
    """Tells of cells that are none."""
    try:
        yield
    except UNREADABLE as error:
        raise StoreError(
            f"{where}: a cell holds what was never written; the database is damaged: restore a copy"
        ) from error


def cells_of(headers: Sequence[Sequence[Any]], rows: Sequence[Sequence[Any]]) -> list[bytes | None]:
    """All cells of *headers* and *rows*."""
    cells = [fields[at] for fields in headers for at in _CELLS_AT]
    for row in rows:
        cells += row[ROW_VALUES]
    return cells


def opened_message(connection: Connection, fields: Sequence[Any], where: str) -> Sequence[Any]:
    """The columns of a message, its content decrypted if it is encrypted.

    Raises:
        StoreError: If there is no key for it.
    """
    number, kind, cell, *rest = fields
    return (number, kind, opened(bytes(cell), connection.database.keys, where), *rest)


def opened_messages(
    connection: Connection, messages: Iterable[Sequence[Any]], where: str
) -> list[Sequence[Any]]:
    """As `opened_message`, of several; raises also for what is no message's."""
    with _readable(where):
        return [opened_message(connection, fields, where) for fields in messages]


def bodies_of(connection: Connection, hashes: Sequence[bytes]) -> dict[bytes, bytes]:
    """The strings of values; one that does not fit its hash is left out, as if it were not there."""
    keys = connection.database.keys
    found = connection.among("SELECT hash, body FROM nano_contents WHERE hash IN (*)", hashes)
    return {
        digest: opened(body, keys, connection.database.name)
        for digest, body in found
        if type(body) is bytes and sha256(body).digest() == digest
    }


def assembled(
    fields: Sequence[Any],
    rows: Sequence[Columns] | None,
    messages: Sequence[Sequence[Any]],
    values: Mapping[bytes | None, Any],
) -> StoredRun:
    """A run of what the tables hold of it.

    Raises:
        StoreError: If it was damaged where it lies.
    """
    named = dict(zip(RUN_FIELDS, fields, strict=False))
    where = "its header"
    try:
        if run_crc(named) != fields[-1]:
            raise damaged(named["run_id"], where)
        count = sum(map(count_of, rows or ()))
        if rows is not None and count != fields[-2]:
            raise damaged(named["run_id"], f"{count} rows of {fields[-2]}")
        run = run_of(named, values)
        where = "a row"
        run.rows.extend(rows_of(named["run_id"], fields[0], 0, rows or (), values))
        where = "its inbox"
        for *fields_of, used in messages:
            message = message_of(*fields_of)
            message.seen = used == SEEN
            (run.inbox, run.decided, run.inbox)[used].append(message)
    except UNREADABLE as error:
        told = f" ({error})" if isinstance(error, ValueError) else ""
        raise damaged(named["run_id"], f"{where}{told}") from error
    return run


def damaged(run_id: str, what: str) -> StoreError:
    """That what was read is not what was written."""
    return StoreError(
        f"run {run_id!r}: {what} is not what was written; the database is damaged: restore a copy"
    )


def unknown(run_id: str) -> UnknownRun:
    """That there is no such run."""
    return UnknownRun(f"there is no run {run_id!r} in this store")
