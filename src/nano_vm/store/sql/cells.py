"""Values, rows and headers as they stand in the tables, and back.

A cell is NULL for no value, canonical JSON where that is short, ``#`` and a hash where `contents`
holds it, and ``!`` and the salted hash of a value that was erased. JSON begins with neither mark.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from hashlib import sha256
from struct import Struct
from struct import error as WrongNumber
from typing import Any
from zlib import crc32

from ...errors import StoreError
from ...values import UNSET, canonical, parse_json, short
from ..protocol import (
    INTENT,
    ROW_KINDS,
    RUN_STATUSES,
    STATUSES,
    TYPES,
    Erased,
    Message,
    Row,
    StoredRun,
)
from .receipts import Entry
from .schema import RUN_FIELDS

INLINE_BYTES = 40
"""A value up to this long stands in its cell: a hash is hardly shorter."""

UNREADABLE = (TypeError, ValueError, LookupError, AttributeError, WrongNumber)
"""What comes of a column that holds something else than was put there."""

HELD, GONE = b"#", b"!"

CELLS = frozenset(("document", "inputs", "about", "output", "error", "waiting"))
UPDATABLE = frozenset(
    "status started_ns finished_ns output error error_kind waiting wake_ns owner seal signature "
    "steps tokens cost_usd".split()
)

_NUMBERS = Struct("<7q").pack  # half the time of a formatted text
_TYPES = {name: number for number, name in enumerate(TYPES)}
_STATUSES = {status: number for number, status in enumerate(STATUSES)}


class Bodies:
    """The values that a transaction adds references to, each once, and those that it drops; and
    what it owes a receipt for.
    """

    __slots__ = ("added", "dropped", "entries")

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.added: dict[bytes, list[Any]] = {}  # hash: [body, references]
        self.dropped: dict[bytes, int] = {}

    def cell(self, value: Any) -> bytes | None:
        """The cell of *value*."""
        if value is UNSET:
            return None
        if type(value) is Erased:
            return GONE + bytes.fromhex(value)
        body = canonical(value)
        if len(body) <= INLINE_BYTES:
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


def row_cells(row: Row, bodies: Bodies) -> tuple[Any, ...]:
    """A row without its run and number."""
    finished = row.finished_ns
    return (
        row.kind,
        row.frame,
        row.path,
        _TYPES[row.type],
        None if row.status is None else _STATUSES[row.status],
        row.started_ns,
        finished - row.started_ns if finished else None,
        bodies.cell(row.request),
        bodies.cell(row.output),
        None if row.rest is None else bodies.cell(row.rest),
    )


def row_crc(key: int, seq: int, cells: Sequence[Any]) -> int:
    """What shows a row that was damaged where it lies."""
    kind, frame, path, type_, status, started, lasted, request, output, rest = cells
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
    return crc32(
        b"|".join(
            (numbers, frame.encode(), path.encode(), request or b"", output or b"", rest or b"")
        )
    )


def run_crc(fields: Mapping[str, Any]) -> int:
    """The same for what never changes of a header."""
    texts = [
        fields[n]
        for n in ("run_id", "program_name", "program_digest", "created_ns", "seed", "parent")
    ]
    crc = crc32(json.dumps(texts).encode())
    for name in ("document", "inputs", "about", "salt"):
        crc = crc32(b"\0" if fields[name] is None else fields[name], crc32(b"|", crc))
    return crc


def run_cells(run: StoredRun, bodies: Bodies) -> dict[str, Any]:
    """A header's columns, without its key."""
    fields = {name: getattr(run, name) for name in RUN_FIELDS if name != "key"}
    for name in CELLS:
        fields[name] = bodies.cell(fields[name])
    fields["seed"] = None if run.seed is None else str(run.seed)
    fields["crc"] = run_crc(fields)
    return fields


def update_cells(update: Mapping[str, Any], bodies: Bodies) -> dict[str, Any]:
    """The columns of an update."""
    unknown = [name for name in update if name not in UPDATABLE]
    if unknown:
        raise ValueError(f"a run's {unknown[0]!r} is not changed by an append")
    return {name: bodies.cell(value) if name in CELLS else value for name, value in update.items()}


def message_of(number: int, kind: str, cell: bytes, signature: str | None) -> Message:
    """The inverse of `Message.content`; *kind* is that by which the database knows it."""
    told, name, body, by, created = parse_json(bytes(cell).decode())
    right = (
        told == kind and type(name) is str and type(body) is dict and type(by) in (str, type(None))
    )
    if not right or type(created) is not int or type(signature) not in (str, type(None)):
        raise ValueError("not a message")
    return Message(kind, name, body, by, created, number, signature)


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
    """Many JSON texts in one go: a call for each costs more than most of them do."""
    try:
        found = json.loads(b"[" + b",".join(texts) + b"]")
        if len(found) == len(texts):
            return found  # type: ignore[no-any-return]
    except ValueError:
        pass
    raise StoreError(f"{where}: a value is not JSON; the database is damaged")


def row_of(cells: Sequence[Any], values: Mapping[bytes | None, Any]) -> Row:
    """A row as it was appended.

    Raises:
        ValueError: If a column holds what no row has; LookupError, TypeError or AttributeError
        likewise.
    """
    kind, frame, path, type_, status, started, lasted, request, output, rest = cells
    row = Row(
        kind,
        frame,
        path,
        TYPES[type_] if type_ >= 0 else "",
        None if status is None else STATUSES[status],
        started,
        0 if lasted is None else started + lasted,
        values[request],
        values[output],
        None if rest is None else values[rest],
    )
    if lasted is not None and lasted < 0:
        raise ValueError("it ended before it began")
    return checked_row(row)


def checked_row(row: Row) -> Row:
    """*row*, if it is one that a run can have.

    Raises:
        ValueError: If it is none; LookupError, TypeError or AttributeError likewise.
    """
    right = (
        (row.status is None) == (row.kind == INTENT)
        and row.kind in ROW_KINDS
        and row.type
        and row.path
    )
    if not right or type(row.rest) not in _RESTS or row.started_ns < 0:
        raise ValueError("it is a row of no kind")
    return row


_RESTS = (type(None), dict, Erased)


def run_of(fields: Mapping[str, Any], values: Mapping[bytes | None, Any]) -> StoredRun:
    """A header as it stands.

    Raises:
        ValueError: If a column holds what no run has.
    """
    changed = {name: values[fields[name]] for name in CELLS}
    changed["seed"] = None if fields["seed"] is None else int(fields["seed"])
    return checked_run(StoredRun(**{**{name: fields[name] for name in RUN_FIELDS}, **changed}))


def checked_run(run: StoredRun) -> StoredRun:
    """*run*, if its header is one that a run can have.

    Raises:
        ValueError: If it is none.
    """
    for name, kinds in _KINDS.items():
        if type(getattr(run, name)) not in kinds:
            raise ValueError(f"its {name} is {short(getattr(run, name))}")
    if run.status not in RUN_STATUSES:
        raise ValueError(f"its status {run.status!r} is none that a run has")
    if run.output is UNSET or not all(map(_is_entry, run.waiting)):
        raise ValueError(
            f"its {'output' if run.output is UNSET else 'waiting'} is none that a run has"
        )
    if (run.salt is None) != (run.hidden is not None) or (
        run.salt is None and (run.output or run.error or run.waiting)
    ):
        raise ValueError("it is half erased")
    if run.cost_usd is not None and not _is_amount(run.cost_usd):
        raise ValueError(f"its cost {run.cost_usd!r} is no amount")
    return run


def _is_amount(text: str) -> bool:
    try:
        return Decimal(text).is_finite()
    except ArithmeticError:
        return False


def _is_entry(entry: Any) -> bool:
    """Whether *entry* says what a run waits for."""
    if type(entry) is not dict or any(
        type(entry.get(name)) is not str for name in ("path", "kind")
    ):
        return False
    return entry.get("match") is None or (
        type(entry["match"]) is dict and type(entry.get("event")) is str
    )


_NONE = type(None)
_KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys("run_id program_name program_digest status seal".split(), (str,)),
    **dict.fromkeys("key created_ns started_ns finished_ns fence steps tokens".split(), (int,)),
    **dict.fromkeys(
        "parent owner error error_kind signature hidden cost_usd".split(), (str, _NONE)
    ),
    **dict.fromkeys(("inputs", "about"), (dict, Erased)),
    "document": (dict,),
    "salt": (bytes, _NONE),
    "waiting": (list,),
    "wake_ns": (int, _NONE),
}
"""What the fields of a header are."""
