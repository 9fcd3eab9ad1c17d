"""What a run was given so far, by frame and in order: enough to compute it again.

Each entry is an outcome with its time, or that a call was lost with its worker. A machine that is
fed the entries of its frame stands where it stood; so a workflow that continues as new carries its
tape, and nobody writes down the state of a machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..machine.machine import Machine
from ..machine.outcome import Failed, Outcome, Value, outcome_json, outcome_of
from ..machine.plan import Op
from ..values import CONTAINERS, admit


@dataclass(frozen=True, slots=True)
class Begun:
    """The frame began."""


@dataclass(frozen=True, slots=True)
class Lost:
    """A call that was begun at these times was lost with its worker: each counts on the budgets,
    but the last where it is *settled* what became of it.
    """

    begun: tuple[int, ...]
    settled: bool = False


Entry = Outcome | Begun | Lost
Timed = tuple[int, Entry]
"""An entry, and the time of the machine at which it came."""


def fed(machine: Machine, op: Op, entry: Timed) -> Op:
    """The request of *machine* after an *entry* of its tape, where it requests *op*."""
    now, what = entry
    assert not isinstance(what, Begun)
    if isinstance(what, Lost):
        refusal = machine.lose(op, what.begun, settled=what.settled)
        return op if refusal is None else machine.resume(Failed(refusal), now)
    return machine.resume(what, now)


class Tape:
    """The entries of a run, by the names of its frames."""

    def __init__(
        self, segments: Iterable[Mapping[str, Any]] = (), values: Iterable[Any] = ()
    ) -> None:
        self._segments = list(segments)
        self._values = list(values)  # those that are too large to stand in a segment
        self.frames: dict[str, list[Timed]] = {}
        for segment in self._segments:
            for frame, entries in segment.items():
                self.frames.setdefault(frame, []).extend(map(self._read, entries))
        self._carried = {frame: len(entries) for frame, entries in self.frames.items()}

    def of(self, frame: str) -> list[Timed]:
        """The entries of *frame*, to which others are added."""
        return self.frames.setdefault(frame, [])

    def parts(self) -> tuple[list[Mapping[str, Any]], list[Any]]:
        """The JSON form: the segments that it was made of, as they are, and what was added since;
        and the large values that these refer to.
        """
        values = self._values.copy()
        new = {
            frame: [_written(entry, values) for entry in entries[self._carried.get(frame, 0) :]]
            for frame, entries in self.frames.items()
        }
        added = {frame: entries for frame, entries in new.items() if entries}
        return ([*self._segments, added] if added else self._segments), values

    def cut(self, frame: str, length: int) -> None:
        """Forget the entries of *frame* from number *length* on."""
        del self.of(frame)[length:]
        if length < self._carried.get(frame, 0):  # the segments say too much: one of all is made
            self._segments, self._values, self._carried = [], [], {}

    def _read(self, told: list[Any]) -> Timed:
        match told:
            case [now]:
                return now, Begun()
            case [now, list(begun), settled]:
                return now, Lost(tuple(begun), settled)
            case [now, int(number)]:
                return now, Value(self._values[number])
            case [now, outcome]:
                return now, outcome_of(outcome)
        raise ValueError(f"{told!r} is no entry of a tape")


LARGE_BYTES = 32 * 1024
"""A value of this size is a payload of its own: with a storage for payloads it is there once, however
often it is sent.
"""


def is_large(value: Any) -> bool:
    """Whether *value* is sent as a payload of its own."""
    if type(value) is str:
        return len(value) >= LARGE_BYTES
    return type(value) in CONTAINERS and admit(value)[1] >= LARGE_BYTES


def _written(entry: Timed, values: list[Any]) -> list[Any]:
    now, what = entry
    if isinstance(what, Begun):
        return [now]
    if isinstance(what, Lost):
        return [now, list(what.begun), what.settled]
    if isinstance(what, Value) and is_large(what.value):
        values.append(what.value)
        return [now, len(values) - 1]
    return [now, outcome_json(what)]
