"""Which event is for which wait: by name, deadline, and the values that the wait matches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..language.correlation import fits
from ..language.schemas import schema_check
from .records import Message, StoredRun
from .seals import message_holds

Entry = Mapping[str, Any]
"""What a run waits for, as its header has it."""

Waits = tuple[Sequence[Entry], Sequence[Entry]]
"""What a run waited for before, and waits for now, of what is found by the values of an event."""


def takes(entry: Entry, message: Message) -> bool:
    """Whether a wait takes an event: one of its name, recorded in time, whose payload has the
    values that it matches.
    """
    if message.kind != "event" or entry.get("event") != message.name:
        return False
    deadline = entry.get("deadline_ns")
    in_time = deadline is None or message.created_ns < deadline
    return in_time and fits(message.body.get("payload"), entry.get("match"))


def fault_of(entry: Entry, payload: Any) -> str | None:
    """Why *payload* is not what a wait asks for, by its schema; None where it is."""
    schema = entry.get("output_schema")
    return schema_check(schema)(payload) if schema is not None else None


def same_event(message: Message, name: str, event_id: str) -> bool:
    """Whether *message* is the event of that name and id."""
    return message.kind == "event" and message.name == name and message.body.get("id") == event_id


def matched(waiting: Iterable[Entry]) -> list[Entry]:
    """Those of what a run waits for that are found by values."""
    return [entry for entry in waiting if entry.get("match") is not None]


def unanswered(run: StoredRun, trusted: frozenset[str] | None) -> list[Entry]:
    """The waits of a run that no event in its inbox is for: each event is for one of them."""
    events = [m for m in run.inbox if m.kind == "event" and message_holds(run.run_id, m, trusted)]
    left: list[Entry] = []
    for entry in run.waiting:
        found = next((message for message in events if takes(entry, message)), None)
        if found is not None:
            events.remove(found)
        elif entry.get("event"):
            left.append(entry)
    return left
