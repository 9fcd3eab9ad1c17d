"""What an error of a model call means for a pool: each is classified once, here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from ...errors import FilteredAnswer, ModelError, RateLimited

Kind = Literal["transient", "limited", "credentials", "unknown_model", "bad_request", "context",
               "filtered"]  # fmt: skip

_CONTEXT = re.compile(
    r"context.?(length|window|size)|maximum (prompt|context)|prompt is too long|too many tokens|"
    r"input is too long|request too large|reduce the length",
    re.IGNORECASE,
)
"""How providers say that a prompt does not fit: OpenAI and those that speak as it, Anthropic,
Google, Mistral, Bedrock, llama.cpp.
"""

DEFAULT_REST_SECONDS = 1.0
"""Of a member that is at the provider's limit, where the provider does not say how long."""

LONGEST_REST_SECONDS = 600.0
"""The longest that a provider's Retry-After can ask for, as for steps."""


@dataclass(frozen=True, slots=True)
class Fault:
    """An error, classified: whether another member may succeed, and what it says of this one."""

    kind: Kind
    elsewhere: bool
    """Whether another member may answer."""
    rest_seconds: float | None = None
    """How long this member is to be left alone."""


def classified(error: BaseException) -> Fault:
    """What *error*, of an adapter's call, means."""
    if isinstance(error, FilteredAnswer):
        return Fault("filtered", elsewhere=False)
    if isinstance(error, RateLimited):
        return Fault("limited", elsewhere=True, rest_seconds=_rest(error.retry_after_seconds))
    if not isinstance(error, ModelError):
        return Fault("transient", elsewhere=True)
    status = error.status
    if status in (400, 413, 422) and _CONTEXT.search(str(error)):
        return Fault("context", elsewhere=True)
    if status in (401, 402, 403) or (status == 429 and not error.retryable):
        return Fault("credentials", elsewhere=True)
    if status == 404:
        return Fault("unknown_model", elsewhere=True)
    if not error.retryable:
        # what no provider has refused: this member cannot take the request, another may
        return Fault("bad_request", elsewhere=status is None)
    wait = error.retry_after_seconds
    return Fault("transient", elsewhere=True, rest_seconds=None if wait is None else _rest(wait))


def _rest(seconds: float | None) -> float:
    return DEFAULT_REST_SECONDS if seconds is None else min(seconds, LONGEST_REST_SECONDS)
