"""What a suspended run waits for: when a timer is due, and what identifies a request that a person
is to answer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from ..language.operators import described, number_in
from ..values import canonical

MAX_WAIT_SECONDS = 100 * 366 * 24 * 3600
"""A century; what is longer is a mistake, and its nanoseconds would not fit."""


def due_at(request: Mapping[str, Any], since: int, base_ns: int) -> int | None:
    """When the timer that *request* asks for is due, monotonic; None for an event. *base_ns* added
    to that gives nanoseconds since the epoch.

    Raises:
        ValueError: If it is none.
    """
    if "seconds" in request:
        seconds = request["seconds"]
        number = number_in(seconds) if type(seconds) is str else seconds
        if number is None or type(number) is bool or not 0 <= number <= MAX_WAIT_SECONDS:
            raise ValueError(f"'seconds' is {described(seconds)}; it is a number of at least 0")
        return since + int(number * 1e9)
    if "until" in request:
        try:
            moment = datetime.fromisoformat(request["until"])
        except (TypeError, ValueError):
            raise ValueError(
                f"'until' is {described(request['until'])}; it is a time like 2027-01-31T12:00:00Z"
            ) from None
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return int(moment.timestamp() * 1e9) - base_ns
    return None


_NOT_SHOWN = frozenset({"shown", "process"})


def shown_digest(entry: Mapping[str, Any]) -> str:
    """What identifies a pending request: SHA-256, in hex, of all that it shows."""
    return hashlib.sha256(
        canonical({key: entry[key] for key in sorted(entry) if key not in _NOT_SHOWN})
    ).hexdigest()
