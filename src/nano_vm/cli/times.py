"""Times as people write and read them."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

FIRST_NS, LAST_NS = -62_135_596_800 * 10**9, 253_402_300_799 * 10**9
"""The years 1 and 9999, as nanoseconds since the epoch."""

_AGE = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)([smhdw])\Z")

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def age_seconds(text: str) -> float:
    """``30d``, ``12h``, ``15m``, ``90s``, ``2w`` in seconds.

    Raises:
        ValueError: If it is none of these.
    """
    match = _AGE.match(text)
    if match is None:
        raise ValueError(f"{text!r} is no time span; write 30d, 12h, 15m or 90s")
    return float(match[1]) * _UNITS[match[2]]


def time_ns(text: str) -> int:
    """A moment, as nanoseconds since the epoch: ``2h`` ago, or ``2027-01-31T12:00``, in UTC unless
    it says otherwise.

    Raises:
        ValueError: If it is neither.
    """
    if _AGE.match(text):
        return time.time_ns() - int(age_seconds(text) * 1e9)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"{text!r} is no time; write 2h (ago), 2027-01-31 or 2027-01-31T12:00"
        ) from None
    return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1e9)


def moment(ns: int) -> str:
    """A time for people."""
    if not FIRST_NS <= ns <= LAST_NS:
        return "at no time that a calendar has"
    return f"{datetime.fromtimestamp(ns / 1e9, UTC):%Y-%m-%d %H:%M:%S} UTC"


def age(ns: int) -> str:
    """How long ago something was, for people."""
    passed = max(time.time_ns() - ns, 0) / 1e9
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if passed >= 2 * size:
            return f"{passed / size:.0f}{unit}"
    return f"{passed:.0f}s"
