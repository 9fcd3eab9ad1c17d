"""What may come of a request: one frozen value of each kind, its JSON form, and which is legal
where.

A driver hands an outcome to `Machine.resume`; a store keeps it, where the record of the step does
not tell it; a replay reads it back. What follows from it is the machine's matter alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any

from ..records.record import StepError
from ..records.usage import LLMUsage


@dataclass(frozen=True, slots=True)
class Value:
    """A tool returned *value*; *cached* says that it did so before, and was not called."""

    value: Any
    cached: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """A model answered; *extra* is recorded beside the text, and its ``finish_reason`` decides with
    it.
    """

    text: str
    usage: LLMUsage | None = None
    extra: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """The call or the pause failed.

    *usage* is what a model call consumed all the same; without it nobody knows, and its reservation
    is spent. *by* is the person whose decision on an approval led to the error. *extra* is what is
    recorded beside the error of a model call: of a pool, its attempts.
    """

    error: StepError
    usage: LLMUsage | None = None
    by: str | None = None
    extra: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class TimedOut:
    """The deadline passed and the call was stopped; *called* is false if it had not begun.

    *usage* is what a model call consumed that came to its end all the same, too late. *extra* is
    recorded beside: of a pool, its attempts.
    """

    called: bool = True
    usage: LLMUsage | None = None
    extra: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The run is to be cancelled; an interrupted effect is in doubt. *called* is false if no call
    was under way.
    """

    called: bool = True


@dataclass(frozen=True, slots=True)
class Suspended:
    """Nothing came yet, or nobody knows: the run ends here, suspended, until it is resumed."""


@dataclass(frozen=True, slots=True)
class Decided:
    """A person decided on an approval; *by* is recorded, and no value of the program."""

    approved: bool
    reason: str | None = None
    by: str | None = None


@dataclass(frozen=True, slots=True)
class Arrived:
    """The time or the event that was waited for has come."""

    payload: Any = None


@dataclass(frozen=True, slots=True)
class Unknown:
    """Nobody knows whether the call took effect: its owner is gone (*crashed*), or *error* says
    why. Without *ask* it may be under way still, so that no reconcile tool can tell yet that it did
    not.
    """

    error: StepError
    crashed: bool = True
    ask: bool = True


@dataclass(frozen=True, slots=True)
class BadResult:
    """The call was made and gave what cannot be taken, as *error* says.

    *answer* is what is known of a model's text that does not pass for an answer; *size* is how much
    it took of what the values of a run may be together, where there was no room for it.
    """

    error: StepError
    answer: str | None = None
    usage: LLMUsage | None = None
    extra: dict[str, Any] | None = None
    size: int = 0


@dataclass(frozen=True, slots=True)
class NotCalled:
    """The call was not made, for a reason that another attempt would not mend."""

    error: StepError


@dataclass(frozen=True, slots=True)
class Joined:
    """Every child of the fork has ended."""


Outcome = (
    Value
    | Answer
    | Failed
    | TimedOut
    | Cancelled
    | Suspended
    | Decided
    | Arrived
    | Unknown
    | BadResult
    | NotCalled
    | Joined
)

KINDS: dict[str, type[Outcome]] = {
    "value": Value,
    "answer": Answer,
    "failed": Failed,
    "timed_out": TimedOut,
    "cancelled": Cancelled,
    "suspended": Suspended,
    "decided": Decided,
    "arrived": Arrived,
    "unknown": Unknown,
    "bad_result": BadResult,
    "not_called": NotCalled,
    "joined": Joined,
}
"""The kinds of outcomes by the name that their JSON form has."""

_NAMES = {kind: name for name, kind in KINDS.items()}

LEGAL: dict[str, tuple[type[Outcome], ...]] = {
    "tool": (Value, Failed, TimedOut, Cancelled, Suspended, Unknown, BadResult, NotCalled),
    "llm": (Answer, Failed, TimedOut, Cancelled, Suspended, BadResult),
    "approval": (Decided, Failed, TimedOut, Cancelled, Suspended),
    "wait": (Arrived, Failed, TimedOut, Cancelled, Suspended),
    "fork": (Joined, Cancelled),
    "undo": (Value, Failed, TimedOut, Cancelled, Suspended, Unknown, NotCalled),
    "reconcile": (Value, Failed, TimedOut, Cancelled, Unknown, NotCalled),
    "in_doubt": (Value, Failed, Cancelled, Suspended, BadResult),
}
"""Which outcomes a request can have; ``undo`` and ``reconcile`` are calls beside a step's own, and
``in_doubt`` asks what became of a call.
"""


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """The JSON form: ``kind``, and each field that is not as it is when left out."""
    told: dict[str, Any] = {"kind": _NAMES[type(outcome)]}
    for field in fields(outcome):
        value = getattr(outcome, field.name)
        if field.default is not MISSING and value == field.default:
            continue
        if isinstance(value, StepError):
            value = _error_json(value)
        elif isinstance(value, LLMUsage):
            value = value.to_dict()
        told[field.name] = value
    return told


def outcome_of(told: Mapping[str, Any]) -> Outcome:
    """The inverse of `outcome_json`.

    Raises:
        ValueError: If *told* is no outcome.
    """
    values = dict(told)
    kind = KINDS.get(values.pop("kind", ""))
    if kind is None:
        raise ValueError(f"{told.get('kind')!r} is no kind of outcome")
    try:
        for name, value in values.items():
            if name == "error":
                values[name] = _error_of(value)
            elif name == "usage":
                values[name] = LLMUsage.from_dict(value)
            elif type(value) not in _TYPES[name]:
                raise TypeError(f"{name!r} is {value!r}")
        return kind(**values)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"no outcome of kind {told['kind']!r}: {error}") from None


_ANY = (str, int, float, bool, list, dict, type(None))
_TYPES: dict[str, tuple[type, ...]] = {
    "value": _ANY,
    "payload": _ANY,
    "text": (str,),
    "answer": (str,),
    "reason": (str,),
    "by": (str,),
    "extra": (dict,),
    "size": (int,),
    **dict.fromkeys(("called", "approved", "crashed", "ask", "cached"), (bool,)),
}
"""What the fields of the JSON forms are, but for errors and usage."""


def _error_json(error: StepError) -> dict[str, Any]:
    """An error with what a record leaves out: whether another attempt may mend it, and when."""
    told = error.to_dict()
    if not error.retryable:
        told["retryable"] = False
    if error.retry_after_seconds is not None:
        told["retry_after_seconds"] = error.retry_after_seconds
    return told


def _error_of(told: Mapping[str, Any]) -> StepError:
    error = StepError(
        told["kind"],
        told["type"],
        told["message"],
        told.get("retryable", True),
        told.get("retry_after_seconds"),
        tuple(told.get("bases", ())),
    )
    words = (error.kind, error.type, error.message, *error.bases)
    if {type(word) for word in words} != {str} or type(told.get("retryable", True)) is not bool:
        raise TypeError(f"'error' is {told!r}")
    if type(told.get("retry_after_seconds")) not in (int, float, type(None)):
        raise TypeError(f"'error' is {told!r}")
    return error
