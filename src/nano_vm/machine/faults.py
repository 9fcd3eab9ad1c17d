"""What an error means: its kind, whether it may be caught or skipped, how long to wait before
another attempt.

Exceptions of tools and adapters come in, `StepError` goes out. Every driver asks here, so that all
of them agree.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from decimal import Decimal
from typing import Any

from ..errors import ModelError, RateLimited, VMError
from ..records.record import StepError
from ..records.usage import LLMUsage
from ..tools.contract import ToolContract
from .plan import CallOp, ToolOp

MAX_RETRY_AFTER_SECONDS = 600.0
"""The longest wait that a provider's Retry-After can ask for; their windows are a minute, some ten.
"""

WORDING = 3
"""The edition of the machine's messages: raise it with every change of one, so that runs that were
recorded before keep the words that they have (see `Recorded.worded`). `tests/machine/wording.json`
has what is said in the runs of the corpus, and its test fails where that changes under one edition.
"""

FATAL = frozenset({"refused", "budget", "cancelled", "in_doubt"})
"""Kinds that fail a fork also where it goes on after a failed branch or item."""

UNSKIPPABLE = FATAL | {"assertion"}
"""Kinds that no ``on_error: skip`` takes, not even that of a loop or fork around them."""

UNCATCHABLE = frozenset({"cancelled", "in_doubt"})
ONLY_NAMED = frozenset({"truncated", "filtered"})
"""Kinds that are retried only where ``retry.on`` names them, by kind or class: the same request
under the same ceiling mostly ends the same way, and is billed again.
"""

NOTHING_USED = LLMUsage(cost_usd=Decimal(0))
"""Of a call that the provider refused before it answered."""

UNKNOWN_OUTCOME = frozenset({"timeout", "cancelled", "in_doubt"})

CANCELLED_UNBEGUN = "the run was cancelled before it began"

CANCELLED = StepError("cancelled", "CancelledError", "the run was cancelled", retryable=False)

CANCELLED_AT_END = StepError(
    "cancelled", "CancelledError", "the run was cancelled after its last step", retryable=False
)

LOST = StepError("in_doubt", "LostCall", "the process that made the call is gone", retryable=False)


def effect_key(run_id: str, path: str) -> str:
    """The identity of an effect: the same over retries and crashes, another for every step of every
    run.
    """
    return hashlib.sha256(f"{run_id}\0{path}".encode()).hexdigest()[:32]


def backoff(op: CallOp, attempt: int, seed: int, path: str, error: StepError) -> float:
    """Seconds to wait after failed attempt number *attempt* (1 is the first): full jitter, drawn
    from the run's seed.

    Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """
    retry = op.retry
    highest = min(
        retry.max_delay_seconds, retry.delay_seconds * retry.factor ** min(attempt - 1, 64)
    )
    drawn = hashlib.sha256(f"{seed}\0{path}\0{attempt}".encode()).digest()
    wait = highest * int.from_bytes(drawn[:8], "big") / 2**64
    if error.retry_after_seconds is not None:
        wait = max(wait, min(error.retry_after_seconds, MAX_RETRY_AFTER_SECONDS))
    return wait


_NO_EXCEPTIONS = frozenset(
    {"SystemExit", "KeyboardInterrupt", "GeneratorExit", "CancelledError", "BaseExceptionGroup"}
)
"""Classes, and those derived from them, that ``except Exception`` does not take."""


def matches(error: StepError, patterns: tuple[str, ...]) -> bool:
    """Whether *error* is one of *patterns*: its kind, the name of its class or of a base class, as
    ``except`` takes them; ``*`` takes all that may be caught, but for what a policy or a person
    refused: that is named, or it ends the frame.
    """
    if error.kind in UNCATCHABLE:
        return False
    if error.kind == "refused":
        return "refused" in patterns or error.type in patterns
    classes = (error.type, *error.bases)
    for pattern in patterns:
        if pattern in ("*", "BaseException", error.kind) or pattern in classes:
            return True
        if pattern == "Exception" and (
            "Exception" in classes or _NO_EXCEPTIONS.isdisjoint(classes)
        ):
            return True
    return False


# Names of exceptions, anywhere in a class's ancestry, after which nobody knows whether a request
# arrived: Python's own ConnectionError, TimeoutError and cut streams, requests' and urllib3's,
# httpx's TransportError, aiohttp's, those of SDKs on top.
_LOST = frozenset(
    "ConnectionError TimeoutError Timeout TransportError ClientConnectionError ClientPayloadError "
    "ProtocolError "
    "ChunkedEncodingError IncompleteRead IncompleteReadError SSLEOFError SSLZeroReturnError "
    "APIConnectionError "
    "APITimeoutError".split()
)
_NEVER_SENT = frozenset(
    {
        "ConnectionRefusedError",
        "ConnectError",
        "ConnectTimeout",
        "ConnectTimeoutError",
        "ClientConnectorError",
    }
)


def lost(names: Iterable[str]) -> bool:
    """Whether after an exception of the classes *names* nobody knows if a request arrived."""
    known = frozenset(names)
    return bool(known & _LOST) and not known & _NEVER_SENT


def tool_error(tool: ToolOp | ToolContract, error: BaseException) -> StepError:
    """What a tool's exception means. After a lost connection or a timeout of its own, a write is in
    doubt.
    """
    fault = StepError.of(error, "tool")
    unsafe = tool.unsafe
    if fault.kind == "in_doubt" and not unsafe:
        return replace(fault, kind="tool", retryable=True)
    if isinstance(error, VMError):
        return fault
    if isinstance(error, BaseExceptionGroup):
        inner = [tool_error(tool, part) for part in error.exceptions]
        return next(
            (
                part
                for part in inner
                if part.kind == "in_doubt" or (unsafe and part.kind == "timeout")
            ),
            fault,
        )
    names = names_of(error)
    if isinstance(error, TimeoutError):
        return replace(fault, kind="timeout")
    if unsafe and lost(names):
        return replace(fault, kind="in_doubt", retryable=False)
    return fault


def names_of(error: BaseException) -> set[str]:
    """The names of the classes of *error* and of what it was raised from, base classes too."""
    return {kind.__name__ for cause in _causes(error) for kind in type(cause).__mro__}


def _causes(error: BaseException) -> list[BaseException]:
    """*error* and what it was raised from, or carries as its reason."""
    found: list[BaseException] = []
    at: Any = error
    while isinstance(at, BaseException) and at not in found and len(found) < 16:
        found.append(at)
        reason = getattr(at, "reason", None)  # urllib's URLError
        at = reason if isinstance(reason, BaseException) else at.__cause__ or at.__context__
    return found


def model_error(error: BaseException) -> StepError:
    """What an adapter's exception means."""
    return StepError.of(error, "timeout" if isinstance(error, TimeoutError) else "model")


def consumed(error: BaseException) -> LLMUsage | None:
    """What the model call that ended with *error* has used, see `ModelError`; None where nobody
    knows.

    An exception of a provider's library that says its status counts like one of ours.
    """
    if not isinstance(error, ModelError):
        try:
            status = getattr(error, "status_code", None)
        except Exception:  # noqa: BLE001 - a foreign class may compute it, and fail
            status = None
        return _nothing_if_refused(error, status)
    usage = error.usage
    if isinstance(usage, dict):
        try:
            usage = LLMUsage.from_dict(usage) if usage else None
        except ValueError:
            return None
    if isinstance(usage, LLMUsage) or error.answered:
        return usage if isinstance(usage, LLMUsage) and usage.plausible else None
    if isinstance(error, RateLimited) or not error.retryable:
        return NOTHING_USED
    return _nothing_if_refused(error, error.status)


def route_of(error: BaseException) -> dict[str, Any] | None:
    """The attempts of a pool that *error* ended, as they are recorded."""
    route = getattr(error, "route", None)
    return {"route": route} if type(route) is dict else None


def _nothing_if_refused(error: BaseException, status: Any) -> LLMUsage | None:
    """Nothing where the provider refused the call, or no connection to it came about."""
    refused = type(status) is int and 400 <= status <= 599
    return NOTHING_USED if refused or not _NEVER_SENT.isdisjoint(names_of(error)) else None
