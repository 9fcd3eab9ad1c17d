"""What a failure of Temporal means for a call: most are outcomes that the activity itself returns,
and only what nobody could return is read here.
"""

from __future__ import annotations

from temporalio import exceptions
from temporalio.exceptions import ActivityError, ApplicationError, TimeoutType

from ..machine.faults import LOST, NOTHING_USED
from ..machine.outcome import BadResult, Cancelled, Failed, NotCalled, Outcome, TimedOut, Unknown
from ..records.record import StepError
from .terms import NOT_MADE

WORKER_SHUTDOWN = "WorkerShutdown"
"""The type of the failure with which the SDK ends a call whose worker is stopped in an orderly way.
"""

NO_ACTIVITY = "NotFoundError"
TOO_LARGE = "PayloadsTooLarge"
UNDECODED = "Failed decoding arguments"
"""The message of the failure with which the SDK ends a call whose arguments the worker cannot read,
before it is made.
"""


def too_large(what: str, size: int, most: int) -> str:
    """What is said of a payload that no server takes."""
    return (
        f"{what} has {size:,} bytes, and a payload that is sent through the server has at most "
        f"{most:,}; give all clients and workers a database for large ones: --payloads, or "
        f"connect(payloads=URL)"
    )


def is_lost(error: ActivityError) -> bool:
    """Whether the worker of the call is gone, frozen or cut off, so that nobody can say what the
    call did.
    """
    cause = error.cause
    if isinstance(cause, exceptions.TimeoutError):
        return cause.type == TimeoutType.HEARTBEAT
    return isinstance(cause, ApplicationError) and cause.type == WORKER_SHUTDOWN


def is_not_made(error: ActivityError) -> bool:
    """Whether the worker has surely not made the call, and will not."""
    cause = error.cause
    return isinstance(cause, ApplicationError) and cause.type == NOT_MADE


def is_untaken(error: ActivityError) -> bool:
    """Whether no worker has taken the call from its task queue in time."""
    cause = error.cause
    limit = TimeoutType.SCHEDULE_TO_START
    return isinstance(cause, exceptions.TimeoutError) and cause.type == limit


SAME_FOR_ALL = "clients and workers of a cluster all need the same key and database of payloads"
"""What to do where payloads cannot be decoded."""


def chain_of(error: BaseException) -> str:
    """What an error of another process says, with its causes."""
    cause = error.__cause__
    return str(error) if cause is None else f"{error}: {chain_of(cause)}"


def unmade(fault: StepError, kind: str) -> Outcome:
    """The outcome of a call of *kind* (``tool`` or ``model``) that *fault* kept from being made."""
    return NotCalled(fault) if kind == "tool" else Failed(fault, NOTHING_USED)


def outcome_of_failure(error: ActivityError, *, unsafe: bool, kind: str) -> Outcome:
    """The outcome of a call of *kind* that ended with *error* and is not `is_lost`; *unsafe* is
    whether it may have changed the world.
    """
    called = error.started_event_id != 0
    cause = error.cause
    if isinstance(cause, exceptions.TimeoutError):
        return TimedOut(called=called)
    if isinstance(cause, exceptions.CancelledError):
        return Cancelled(called=called)
    name = (cause.type if isinstance(cause, ApplicationError) else None) or type(cause).__name__
    message = str(cause) or str(error)
    if name == NO_ACTIVITY:
        told = f"the worker that took the call has no such activity: {message}"
        return unmade(StepError("refused", "NoActivity", told, retryable=False), kind)
    if isinstance(cause, ApplicationError) and cause.message == UNDECODED:
        why = chain_of(cause.cause or cause)
        told = f"the worker that took the call cannot decode its arguments: {why}; {SAME_FOR_ALL}"
        return unmade(StepError("refused", "Undecodable", told, retryable=False), kind)
    fault = StepError(kind, name, message, retryable=False)
    if name == TOO_LARGE and kind == "tool":
        return BadResult(fault)
    if unsafe:
        return Unknown(StepError("in_doubt", LOST.type, f"{name}: {message}", retryable=False))
    return Failed(fault)
