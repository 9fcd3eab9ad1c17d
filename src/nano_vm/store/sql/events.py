"""Events that are addressed to no run: kept until a run waits for one with these values, and given
to one run only.

Events and waits have *marks*, rows by which one finds the other (`correlation`). Each is stored
before the other side is looked at, with a row that says that this is still to be done. So whichever
comes second finds the other, and a process that dies between the two leaves the row to the next.

Rule 1: an event goes to one run, in one transaction; the same name and id is stored once. Rule 2:
who looks at an event or a run holds it, and waits for nobody who does: it is looked at again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from ...errors import StoreError
from ...language.correlation import mark_of_wait, marks_of_event
from ..records import SUSPENDED, Message, StoredRun, message_of
from ..seals import NO_RUN, message_holds, signed_message
from ..signing import SigningKey
from ..waits import Entry, Waits, fault_of, matched, same_event, takes, unanswered
from .cells import message_cell
from .database import Connection
from .read import loaded, opened_message

EVENT, WAIT, NEW_EVENT, NEW_WAIT = range(4)
"""What a row of ``nano_marks`` is of: the last two have no mark, and say what is to be looked at.
"""

NO_MARK = 0

_EVENT = "id, message, signature"


class Held(StoreError):
    """What a transaction needs is held by another right now; it can be asked for again."""

    def __init__(self, message: str) -> None:
        super().__init__(message, passing=True)


# --- what is stored ---


def register(connection: Connection, waits: Mapping[int, Waits]) -> None:
    """Note what runs, by their numbers, wait for now, in the place of what they waited for
    before.
    """
    before = [(key, entry) for key, (entries, _) in waits.items() for entry in entries]
    now = [(key, entry) for key, (_, entries) in waits.items() for entry in entries]
    _unmark(connection, [(_mark(entry), WAIT, key, entry["path"]) for key, entry in before])
    _unmark(connection, [(NO_MARK, NEW_WAIT, key, entry["path"]) for key, entry in before])
    _set(connection, [(_mark(entry), WAIT, key, entry["path"]) for key, entry in now])
    _set(connection, [(NO_MARK, NEW_WAIT, key, entry["path"]) for key, entry in now])


def post(
    connection: Connection,
    name: str,
    payload: Mapping[str, Any],
    write: Callable[[list[Entry]], Message],
    signer: SigningKey | None,
) -> bool:
    """Store an event that *write* gives for the waits that it may be for; False where the same name
    and id is there.
    """
    marks = marks_of_event(name, payload)
    message = write([entry for _, _, entry in _waits(connection, marks)])
    found = connection.one(
        "INSERT INTO nano_events (name, event_id, created_ns, message, signature) VALUES (?, ?, "
        "?, ?, ?) "
        "ON CONFLICT DO NOTHING RETURNING id",
        name,
        message.body.get("id"),
        message.created_ns,
        message_cell(message, connection.database.keys),  # of no project yet
        signed_message(NO_RUN, message, signer),
    )
    if found is None:
        return False
    _set(
        connection,
        [*((mark, EVENT, found[0], "") for mark in marks), (NO_MARK, NEW_EVENT, found[0], "")],
    )
    return True


def withdraw(connection: Connection, key: int, name: str, event_id: str) -> None:
    """Note that run *key* received the event of that name and id in another way, if nobody has it
    yet.
    """
    found = connection.one(
        f"SELECT {_EVENT} FROM nano_events WHERE name = ? AND event_id = ? AND run IS "
        f"NULL{_skipping(connection)}",
        name,
        event_id,
    )
    if found is not None:
        _taken(connection, _event_of(connection, *found), key)


def forget(connection: Connection, older_than_ns: int) -> None:
    """Delete the events that were recorded before, whether a run has them or not."""
    found = connection.all(
        f"SELECT {_EVENT} FROM nano_events WHERE created_ns < ? AND run IS NULL", older_than_ns
    )
    for fields in found:
        _forget_marks(connection, _event_of(connection, *fields))
    connection.run("DELETE FROM nano_events WHERE created_ns < ?", older_than_ns)


def _mark(entry: Entry) -> int:
    return mark_of_wait(entry["event"], entry["match"])


def _set(connection: Connection, marks: Iterable[tuple[int, int, int, str]]) -> None:
    connection.many(
        "INSERT INTO nano_marks (mark, kind, subject, path) VALUES (?, ?, ?, ?) ON CONFLICT DO "
        "NOTHING",
        list(marks),
    )


def _unmark(connection: Connection, marks: Iterable[tuple[int, int, int, str]]) -> None:
    connection.many(
        "DELETE FROM nano_marks WHERE mark = ? AND kind = ? AND subject = ? AND path = ?",
        list(marks),
    )


def _event_of(connection: Connection, number: int, cell: bytes, signature: str | None) -> Message:
    fields = (number, "event", cell, signature)
    return message_of(*opened_message(connection, fields, connection.database.name))


def _forget_marks(connection: Connection, message: Message) -> None:
    marks = marks_of_event(message.name, message.body["payload"])
    _unmark(
        connection,
        [*((m, EVENT, message.id, "") for m in marks), (NO_MARK, NEW_EVENT, message.id, "")],
    )


def _taken(connection: Connection, message: Message, key: int) -> None:
    """Note that run *key* has an event; its payload is in the inbox of the run, and goes with
    it.
    """
    _forget_marks(connection, message)
    connection.run("UPDATE nano_events SET run = ?, message = ? WHERE id = ?", key, b"", message.id)


# --- who comes second finds the other ---


def is_left(connection: Connection) -> bool:
    """Whether something is to be looked at."""
    found = connection.one(
        f"SELECT 1 FROM nano_marks WHERE mark = {NO_MARK} AND kind IN ({NEW_EVENT}, {NEW_WAIT}) "
        f"LIMIT 1"
    )
    return found is not None


def look(connection: Connection, trusted: frozenset[str] | None) -> str | None:
    """In a transaction: look at one event or wait that is to be looked at; the id of a run that was
    given an event. Where there are *trusted* keys, events that none of them has signed count for
    nothing.

    Raises:
        Held: If another transaction holds it, or what it needs. Nothing was changed.
    """
    found = connection.one(
        f"SELECT kind, subject, path FROM nano_marks WHERE mark = {NO_MARK} AND kind IN "
        f"({NEW_EVENT}, {NEW_WAIT}) "
        f"ORDER BY kind, subject, path LIMIT 1{_skipping(connection)}"
    )
    if found is None:
        if is_left(connection):
            raise Held("what is to be looked at is held by another transaction")
        return None
    kind, subject, path = found
    given = (
        _event_given(connection, subject, trusted)
        if kind == NEW_EVENT
        else _wait_given(connection, subject, path, trusted)
    )
    _unmark(connection, [(NO_MARK, kind, subject, path)])
    return given


def _event_given(connection: Connection, number: int, trusted: frozenset[str] | None) -> str | None:
    """The run that was given an event."""
    message = _held_event(connection, number)
    if message is None:
        return None
    for run_id, path, _ in _waits(
        connection, marks_of_event(message.name, message.body["payload"])
    ):
        if _given(connection, run_id, path, message, trusted):
            return run_id
    return None


def _wait_given(
    connection: Connection, key: int, path: str, trusted: frozenset[str] | None
) -> str | None:
    """The run, if it was given an event for its wait at *path*."""
    run = _readable(connection, key)
    entry = (
        next((entry for entry in matched(run.waiting) if entry["path"] == path), None)
        if run is not None
        else None
    )
    if run is None or entry is None:
        return None
    text = f"SELECT subject FROM nano_marks WHERE mark = ? AND kind = {EVENT} ORDER BY subject"
    for (number,) in connection.all(text, _mark(entry)):
        message = _held_event(connection, number)
        if message is not None and _given(connection, run.run_id, path, message, trusted):
            return run.run_id
    return None


def _held_event(connection: Connection, number: int) -> Message | None:
    """An event that no run has, held until the transaction ends."""
    text = "FROM nano_events WHERE id = ? AND run IS NULL"
    found = connection.one(f"SELECT {_EVENT} {text}{_skipping(connection)}", number)
    if found is not None:
        return _event_of(connection, *found)
    if connection.one(f"SELECT 1 {text}", number) is not None:
        raise Held("an event is held by another transaction")
    return None


def _waits(connection: Connection, marks: Sequence[int]) -> Iterator[tuple[str, str, Entry]]:
    """Waits with one of *marks*, those of older runs first: the run's id, the path, and what is
    asked there.
    """
    text = f"SELECT subject, path FROM nano_marks WHERE kind = {WAIT} AND mark IN (*)"
    for key, path in sorted(set(connection.among(text, list(dict.fromkeys(marks))))):
        run = _readable(connection, key)
        entry = (
            next((entry for entry in run.waiting if entry["path"] == path), None)
            if run is not None
            else None
        )
        if run is not None and entry is not None:
            yield run.run_id, path, entry


def _readable(connection: Connection, key: int) -> StoredRun | None:
    """A run; None where there is none, or it is damaged: that is reported when somebody asks for it,
    and keeps no other from its events.
    """
    found = connection.one("SELECT run_id FROM nano_runs WHERE key = ?", key)
    try:
        return loaded(connection, found[0], rows=False) if found is not None else None
    except StoreError:
        return None


def _given(
    connection: Connection, run_id: str, path: str, message: Message, trusted: frozenset[str] | None
) -> bool:
    """Give an event to the run, if it waits for it at *path* and was given none for that."""
    held = connection.one(
        f"SELECT key FROM nano_runs WHERE run_id = ?{_skipping(connection)}", run_id
    )
    if held is None:
        raise Held(f"run {run_id!r} is held by another transaction")
    run = _readable(connection, held[0])
    if run is None or run.status != SUSPENDED or not message_holds(run_id, message, trusted):
        return False
    if any(known.kind == "cancel" and message_holds(run_id, known, trusted) for known in run.inbox):
        return False
    event_id = message.body.get("id")
    if event_id is not None and any(
        same_event(known, message.name, event_id) for known in (*run.decided, *run.inbox)
    ):
        _taken(connection, message, run.key)  # the run was told it by its id before
        return True
    entry = next((entry for entry in unanswered(run, trusted) if entry["path"] == path), None)
    if (
        entry is None
        or not takes(entry, message)
        or fault_of(entry, message.body["payload"]) is not None
    ):
        return False
    connection.run(
        "INSERT INTO nano_inbox (run, kind, message, signature, used) VALUES (?, ?, ?, ?, 0)",
        run.key,
        message.kind,
        message_cell(message, connection.database.keys, run.project),
        message.signature,
    )
    _taken(connection, message, run.key)
    return True


def _skipping(connection: Connection) -> str:
    return connection.database.dialect.skip_locked
