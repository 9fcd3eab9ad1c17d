"""What a receiver is shown of two runs that were compared, or of a run that was computed once more.

A comparison and the labels that are kept with its runs come in; the same without values that the
receiver does not accept goes out. That there is a difference is shown: the step, and which field.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..records.record import step_of
from ..records.secrecy import FIELDS, REDACTED, Levels, Receiver, levels_of
from .compare import Difference
from .diffs import Diff

_NO_VALUES = frozenset(
    "status tokens cost_usd duration_ms branch retries type step usage children error_kind".split()
)
"""Fields of a step or run that say how it went, and hold nothing that was said in it."""


def accepted(receiver: Receiver, found: Diff) -> Diff:
    """*found* as *receiver* is shown it: values are hidden where any of a step is in one of the
    runs; itself, where it is of programs.
    """
    runs = [levels_of(trace) for trace in found.traces]

    def shown(path: str | None, pairs: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        return {
            name: (REDACTED, REDACTED)
            if any(_hides(levels, receiver, path, name) for levels in runs)
            else pair
            for name, pair in pairs.items()
        }

    steps = tuple(replace(step, fields=shown(step.path, step.fields)) for step in found.steps)
    return replace(found, whole=shown(None, found.whole), steps=steps)


def accepted_difference(
    receiver: Receiver, levels: Levels, found: Difference | None
) -> Difference | None:
    """What differs between records and what is computed, likewise."""
    if found is None or found.kind in ("program", "order"):
        return found
    field = "inputs" if found.kind == "inputs" else found.field
    if not _hides(levels, receiver, found.path or None, field):
        return found
    why = REDACTED if found.why else ""
    return replace(found, recorded=REDACTED, computed=REDACTED, why=why)


def _hides(levels: Levels, receiver: Receiver, path: str | None, field: str) -> bool:
    """Whether *receiver* does not accept what a field of the step at *path* holds, or without one
    of the run. Of a step whatever is secret in it hides all: requests are in attempts too, and
    answers in errors.
    """
    if field in _NO_VALUES:
        return False
    if path is None:
        return levels.hides(receiver, levels.of_run(field))
    found: Sequence[frozenset[str]] = [levels.level(step_of(path), one) for one in FIELDS]
    return any(levels.hides(receiver, one) for one in found)
