"""Values, rows and headers as they stand in the tables, and back.

A cell is NULL for no value, canonical JSON where that is short, ``#`` and a hash where `contents`
holds it, and ``!`` and the salted hash of a value that was erased. JSON begins with neither mark.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from operator import attrgetter
from struct import Struct
from typing import Any
from zlib import crc32

from ...errors import StoreError
from ...language.kinds import TYPES
from ...records.record import step_of
from ...records.usage import LLMUsage
from ...values import UNSET, canonical
from ..encryption import ANY_PROJECT, StoreKeys
from ..receipts import Entry
from ..records import (
    INTENT,
    STATUSES,
    STEP,
    Erased,
    Message,
    Row,
    StoredRun,
    checked_row,
    checked_run,
    counts_of,
    used,
)
from .schema import CALL, NEXT, ROW_CELLS, RUN_FIELDS

Cells = tuple[Any, ...]
"""The columns `ROW_CELLS`: of one row of a run, or of a step and the intent after it. As they were
read others may follow them.
"""

INLINE_BYTES = 40
"""A value up to this long stands in its cell: a hash is hardly shorter."""

HELD, GONE = b"#", b"!"

CELLS = frozenset(("document", "inputs", "about", "labels", "output", "error", "waiting"))
PLAIN = frozenset(("document", "about", "labels"))
"""Those of a header that are never encrypted: the program, what is known of the host, and what runs
are found by. None of them holds a value of a run.
"""
UPDATABLE = frozenset(
    "status started_ns finished_ns output error error_kind waiting wake_ns owner seal signature "
    "steps tokens cost_usd".split()
)

_NUMBERS = Struct("<7q").pack  # half the time of a formatted text
_TWO_NUMBERS = Struct("<2q").pack
_KIND, _FRAME, _STARTED = map(ROW_CELLS.index, ("kind", "frame", "started_ns"))
_FIXED = "run_id program_name program_digest created_ns seed parent project submitter".split()
_OWN_FIELDS = [name for name in RUN_FIELDS if name != "key"]
_own_fields = attrgetter(*_OWN_FIELDS)
NO_CALL = (None,) * (len(ROW_CELLS) - CALL)
"""The last cells of a row that no model call has."""

NO_NEXT = (None,) * (CALL - NEXT)
"""Those before them, of a row that holds no intent beside its step."""

_NOTHING_BESIDE = NO_NEXT + NO_CALL
_END = len(ROW_CELLS)

_TYPES = {name: number for number, name in enumerate(TYPES)}
_STATUSES = {status: number for number, status in enumerate(STATUSES)}


class Bodies:
    """The values that a transaction adds references to, each once, and those that it drops; and
    what it owes a receipt for.
    """

    __slots__ = ("added", "dropped", "entries", "keys", "project")

    def __init__(self, keys: StoreKeys | None = None, project: str = ANY_PROJECT) -> None:
        self.keys = keys
        self.project = project  # by whose key its cells are encrypted
        self.entries: list[Entry] = []
        self.added: dict[bytes, list[Any]] = {}  # hash: [body, references]
        self.dropped: dict[bytes, int] = {}

    def cell(self, value: Any, body: bytes | None = None, *, plain: bool = False) -> bytes | None:
        """The cell of *value*, which is encrypted where there are keys, unless it is *plain*; *body*
        are its canonical bytes, where they are known.
        """
        if value is UNSET:
            return None
        if type(value) is Erased:
            return GONE + bytes.fromhex(value)
        if body is None:
            body = canonical(value)
        if self.keys is not None and not plain:
            body = self.keys.seal(body, self.project)
        elif len(body) <= INLINE_BYTES:
            return body
        digest = sha256(body).digest()
        entry = self.added.get(digest)
        if entry is None:
            self.added[digest] = [body, 1]
        else:
            entry[1] += 1
        return HELD + digest

    def drop(self, cell: bytes | None) -> None:
        """A reference less."""
        if cell is not None and cell[:1] == HELD:
            self.dropped[cell[1:]] = self.dropped.get(cell[1:], 0) + 1

    def add(self, other: Bodies) -> None:
        """Those of *other* too."""
        for digest, (body, count) in other.added.items():
            entry = self.added.get(digest)
            if entry is None:
                self.added[digest] = [body, count]
            else:
                entry[1] += count
        self.entries += other.entries


def message_cell(message: Message, keys: StoreKeys | None, project: str = ANY_PROJECT) -> bytes:
    """What is stored of a message, which quotes what was shown, to a run of *project*."""
    body = message.content()
    return body if keys is None else keys.seal(body, project)


def row_cells(row: Row, bodies: Bodies, following: Cells = NO_NEXT) -> Cells:
    """A row without its run and number; *following* is what it says of the intent after it."""
    finished = row.finished_ns
    asked, gave, beside = row.bodies
    own: Cells = (
        row.kind,
        row.frame,
        row.path,
        _TYPES[row.type],
        None if row.status is None else _STATUSES[row.status],
        row.started_ns,
        finished - row.started_ns if finished else None,
        bodies.cell(row.request, asked),
        bodies.cell(row.output, gave),
        None if row.rest is None else bodies.cell(row.rest, beside),
    )
    call = NO_CALL if row.model is None and row.usage is None else _call(row)
    return own + following + call


def rows_cells(rows: Sequence[Row], bodies: Bodies) -> list[Cells]:
    """The cells of *rows*, where an intent that says no more than it must stands with the step
    before it, if that is of the same frame.
    """
    made: list[Cells] = []
    last = len(rows) - 1
    at = 0
    while at <= last:
        row = rows[at]
        if at < last and row.kind == STEP and _goes_with(rows[at + 1], row):
            at += 1
            after = rows[at]
            following = after.path, _TYPES[after.type], after.started_ns - row.started_ns
            made.append(row_cells(row, bodies, following))
        else:
            made.append(row_cells(row, bodies))
        at += 1
    return made


def _goes_with(row: Row, step: Row) -> bool:
    """Whether *row*, which follows *step*, is an intent that can stand with it."""
    return (
        row.kind == INTENT
        and row.rest is None
        and row.frame == step.frame
        and row.request is UNSET
        and row.output is UNSET
        and row.status is None
        and not row.finished_ns
        and row.model is None
        and row.usage is None
    )


def count_of(cells: Cells) -> int:
    """How many rows of a run *cells* are."""
    return 1 if cells[NEXT] is None else 2


def parted(cells: Cells) -> Iterator[Cells]:
    """The same row or rows, with cells for each."""
    if cells[NEXT] is None:
        yield cells
        return
    path, type_, after_ns = cells[NEXT:CALL]
    yield (*cells[:NEXT], *NO_NEXT, *cells[CALL:])
    alone = (INTENT, cells[_FRAME], path, type_, None, cells[_STARTED] + after_ns)
    yield alone + (None,) * (len(ROW_CELLS) - len(alone))


def _call(row: Row) -> tuple[Any, ...]:
    """The columns of a row that say what a model call consumed."""
    step = None if row.model is None else step_of(row.path)
    return row.model, step, *counts_of(row.usage)


def row_crc(key: int, seq: int, cells: Cells) -> int:
    """What shows a row that was damaged where it lies."""
    kind, frame, path, type_, status, started, lasted, request, output, rest = cells[:NEXT]
    numbers = _NUMBERS(
        key,
        seq,
        kind,
        type_,
        -1 if status is None else status,
        started,
        -1 if lasted is None else lasted,
    )
    # no cell is empty, so an empty one is none
    crc = crc32(
        b"|".join(
            (numbers, frame.encode(), path.encode(), request or b"", output or b"", rest or b"")
        )
    )
    if cells[NEXT:_END] == _NOTHING_BESIDE:
        return crc
    following, call = cells[NEXT:CALL], cells[CALL:_END]
    if following != NO_NEXT:
        path, type_, after_ns = following
        crc = crc32(path.encode(), crc32(_TWO_NUMBERS(type_, after_ns), crc))
    return crc if call == NO_CALL else crc32(json.dumps(call).encode(), crc)


def run_crc(fields: Mapping[str, Any]) -> int:
    """The same for what never changes of a header."""
    crc = crc32(json.dumps([fields[name] for name in _FIXED]).encode())
    for name in ("document", "inputs", "about", "labels", "salt"):
        crc = crc32(b"\0" if fields[name] is None else fields[name], crc32(b"|", crc))
    return crc


def run_cells(run: StoredRun, bodies: Bodies, document: bytes | None = None) -> dict[str, Any]:
    """A header's columns, without its key; *document* are the canonical bytes of its document, where
    they are known.
    """
    fields = dict(zip(_OWN_FIELDS, _own_fields(run), strict=True))
    for name in CELLS:
        body = document if name == "document" else None
        fields[name] = bodies.cell(fields[name], body, plain=name in PLAIN)
    fields["seed"] = None if run.seed is None else str(run.seed)
    fields["crc"] = run_crc(fields)
    return fields


def update_cells(update: Mapping[str, Any], bodies: Bodies) -> dict[str, Any]:
    """The columns of an update."""
    if not UPDATABLE.issuperset(update):
        unknown = next(name for name in update if name not in UPDATABLE)
        raise ValueError(f"a run's {unknown!r} is not changed by an append")
    columns = dict(update)
    for name in CELLS.intersection(columns):
        columns[name] = bodies.cell(columns[name])
    return columns


def hashes_in(cells: Iterable[bytes | None]) -> list[bytes]:
    """The hashes that *cells* name, each once."""
    return list(dict.fromkeys(cell[1:] for cell in cells if cell is not None and cell[:1] == HELD))


def decoded(
    cells: Iterable[bytes | None],
    bodies: Mapping[bytes, bytes],
    where: str,
    known: Mapping[bytes, Any],
) -> dict[bytes | None, Any]:
    """The value of each cell, *known* or read; equal cells have one value between them, which
    nobody changes.
    """
    values: dict[bytes | None, Any] = {None: UNSET}
    texts: dict[bytes, bytes] = {}
    for cell in cells:
        if cell is None or cell in values or cell in texts:
            continue
        if cell[:1] == GONE:
            values[cell] = Erased(cell[1:].hex())
        elif cell[:1] == HELD:
            body = bodies.get(cell[1:])
            if body is None:
                raise StoreError(
                    f"{where}: the value {cell[1:].hex()} is missing; the database is damaged"
                )
            if cell in known:
                values[cell] = known[cell]
            else:
                texts[cell] = body
        else:
            texts[cell] = cell
    values.update(zip(texts, _parsed_together(list(texts.values()), where), strict=True))
    return values


def _parsed_together(texts: list[bytes], where: str) -> list[Any]:
    """Many JSON strings in one go: a call for each costs more than most of them do."""
    try:
        found = json.loads(b"[" + b",".join(texts) + b"]")
        if len(found) == len(texts):
            return found  # type: ignore[no-any-return]
    except ValueError:
        pass
    raise StoreError(f"{where}: a value is not JSON; the database is damaged")


def row_of(cells: Cells, values: Mapping[bytes | None, Any]) -> Row:
    """A row as it was appended; of two, the first.

    Raises:
        ValueError: If a column holds what no row has; LookupError, TypeError or AttributeError
        likewise.
    """
    kind, frame, path, type_, status, started, lasted, request, output, rest = cells[:NEXT]
    call = cells[CALL:_END]
    model, usage = (None, None) if call == NO_CALL else _call_of(call, path)
    if lasted is None:
        finished = 0
    elif lasted < 0:
        raise ValueError("it ended before it began")
    else:
        finished = started + lasted
    row = Row(
        kind,
        frame,
        path,
        TYPES[type_] if type_ >= 0 else "",
        None if status is None else STATUSES[status],
        started,
        finished,
        values[request],
        values[output],
        None if rest is None else values[rest],
        model,
        usage,
    )
    return checked_row(row)


def next_of(cells: Cells) -> Row:
    """The intent that stands beside a step; raises as `row_of` does."""
    path, type_, after_ns = cells[NEXT:CALL]
    if cells[_KIND] != STEP:
        raise ValueError("it holds an intent and is no step")
    type_name = TYPES[type_] if type_ >= 0 else ""
    began = cells[_STARTED] + after_ns
    return checked_row(Row(INTENT, cells[_FRAME], path, type_name, None, began))


def _call_of(call: tuple[Any, ...], path: str) -> tuple[Any, LLMUsage | None]:
    """The model that a row names and what it consumed, of the columns that `_call` gives."""
    model, step, *counts = call
    usage = used(counts)
    if step != (None if model is None else step_of(path)):
        raise ValueError("its step is another")
    return model, usage


def run_of(fields: Mapping[str, Any], values: Mapping[bytes | None, Any]) -> StoredRun:
    """A header as it stands.

    Raises:
        ValueError: If a column holds what no run has.
    """
    changed = {name: values[fields[name]] for name in CELLS}
    changed["seed"] = None if fields["seed"] is None else int(fields["seed"])
    run = checked_run(StoredRun(**{**{name: fields[name] for name in RUN_FIELDS}, **changed}))
    cell = fields["document"]
    if cell[:1] == HELD:
        run.read = run.document, cell[1:].hex()
    return run
