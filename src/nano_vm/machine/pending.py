"""What a suspended run waits for: when a timer is due, and what identifies a request that a person
is to answer.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
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


PREFIX_HEX = 12
"""Digits of a request's digest that name it, where they are unique in its run: 48 bits, as many as
a person may copy.
"""

_HEX = re.compile(r"[0-9a-f]+\Z")


def shown_fault(
    shown: str, entry: Mapping[str, Any], waiting: Iterable[Mapping[str, Any]], run: str
) -> str | None:
    """Why *shown* is neither the digest of *entry* nor its beginning and that of no other request in
    *waiting*; None where it is. *run* says which run asks.
    """
    own = shown_digest(entry)
    if own == shown:
        return None
    hexadecimal = _HEX.match(shown) is not None
    if hexadecimal and len(shown) >= PREFIX_HEX and own.startswith(shown):
        if sum(shown_digest(other).startswith(shown) for other in waiting) == 1:
            return None
        return f"{shown!r} begins the digest of several requests of {run}; give more digits"
    if hexadecimal and len(shown) < PREFIX_HEX:
        return f"{shown!r} is too short for a digest; give at least {PREFIX_HEX} of its digits"
    told = shown if len(shown) <= PREFIX_HEX else f"{shown[:PREFIX_HEX]}…"
    return (
        f"{told!r} is not the digest of the request as it stands: it is mistyped, or {run} asks "
        f"something else at {entry['path']!r} than what was shown; look at it again"
    )
