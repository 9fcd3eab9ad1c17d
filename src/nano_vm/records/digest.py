"""The digest of a run: what happened, equal for equal runs. Records in, a hash out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

from ..values import canonical
from .record import Record
from .status import TraceStatus

TRACE_FORMAT = 1

UNDIGESTED = frozenset(
    {"effect_key", "arguments", "shown", "deadline_ns", "began_ns", "owner", "process"}
)
"""Fields of what a run waits for that its digest leaves out: they are times, or said by the record
of the step.
"""

BESIDE = frozenset(
    "children cost_source priced_as route cached by lost settled unmetered outcome resolved "
    "reconcile ends counted last_cost_usd".split()
)
"""What stands beside a record and is no part of what happened: prices, people, calls that a crash
lost, and what tells how it came about.
"""


class Chain:
    """The digest of one frame as it grows: who adds each record as it is made need not keep them."""

    __slots__ = ("head",)

    def __init__(self, head: bytes = b"") -> None:
        self.head = head

    @classmethod
    def of_run(cls, program_digest: str, inputs: dict[str, Any]) -> Chain:
        """That of a run before its first step."""
        start = {"trace": TRACE_FORMAT, "program": program_digest, "inputs": inputs}
        return cls(hashlib.sha256(canonical(start)).digest())

    def add(self, record: Record, children: Sequence[bytes] | None = None) -> None:
        """Add a record; *children* are the heads of a fork's frames in declared
        order, where its record does not have their records.
        """
        step, path, status, output, error, request, _, _, attempts, usage, extra = record
        body: dict[str, Any] = {
            "path": path,
            "type": step.type,
            "status": status.value,
            "output": output,
        }
        if request is not None:
            body["request"] = record.asked()
        if error is not None:
            body["error"] = error.outcome()
        if attempts:
            body["attempts"] = [attempt.outcome() for attempt in attempts]
        if usage is not None:
            body["usage"] = usage.counts()
        if extra is not None:
            told = {k: v for k, v in record.beside.items() if k not in BESIDE}
            if told:
                body["extra"] = told
            if children is None and record.children is not None:
                children = [head_of(child) for child in record.children]
        if children is not None:
            body["children"] = [head.hex() for head in children]
        self.head = hashlib.sha256(self.head + canonical(body)).digest()

    def ended(
        self, status: TraceStatus, output: Any, error: str | None, waiting: Iterable[dict[str, Any]]
    ) -> str:
        """The digest of a run that ended, or waits, so."""
        known = [{k: v for k, v in entry.items() if k not in UNDIGESTED} for entry in waiting]
        last = {"status": status.value, "output": output, "error": error, "waiting": known}
        return hashlib.sha256(self.head + canonical(last)).hexdigest()


def head_of(records: Iterable[Record]) -> bytes:
    """The digest of a child frame with these records, as far as it goes."""
    chain = Chain()
    for record in records:
        chain.add(record)
    return chain.head
