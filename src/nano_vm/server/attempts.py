"""Attempts to log in: by whose name, or by which login that began at a provider, and from where.

Rule: an attempt is counted as one that failed before its password is looked at, and taken back if
it was the right one. So many attempts at once are no more than so many one after another.
"""

from __future__ import annotations

import ipaddress
import time
from typing import NamedTuple

import sqlalchemy as sa

from . import audit, secrets
from .problems import Problem
from .rows import Rows
from .tables import attempts

FREE_ATTEMPTS = 5
"""That fail, before one has to wait; each further one waits twice as long."""

FIRST_WAIT_NS, LONGEST_WAIT_NS = 2 * 10**9, 15 * 60 * 10**9

CLEARED_NS = 3600 * 10**9
"""How long after the last attempt that failed they are forgotten."""

_IPV6_NETWORK_BITS = 64
"""What one subscriber has at least: they could come from another address each time."""


class Attempt(NamedTuple):
    """Whose name is tried, and from where, as they are counted."""

    name: str
    place: str


def attempt_of(name: str, ip: str, pepper: bytes) -> Attempt:
    """An attempt with *name*, of which only a hash is kept: people type passwords there."""
    return Attempt(f"name {secrets.keyed_hash(name, pepper)}", f"ip {_network(ip)}")


def return_of(state: str, ip: str, pepper: bytes) -> Attempt:
    """A return from a provider to end the login of *state*. It counts apart from passwords, which
    nobody at the same place has to wait with because of it.
    """
    return Attempt(f"flow {secrets.keyed_hash(state, pepper)}", f"provider {_network(ip)}")


class Begun(NamedTuple):
    """An attempt that was counted; ``wait_ns`` is how long to wait instead, where it was not."""

    wait_ns: int
    until_ns: int = 0  # when the next one from its place may come, if this one fails


def begin(rows: Rows, attempt: Attempt) -> Begun:
    """Count an attempt, unless too many have failed."""
    audit.hold(rows)  # so that those that come at once are counted one after another
    now = time.time_ns()
    known = rows.all(sa.select(attempts).where(attempts.c.who.in_(attempt)))
    wait_ns = max((row.until_ns - now for row in known), default=0)
    if wait_ns > 0:
        return Begun(wait_ns)
    rows.run(sa.delete(attempts).where(attempts.c.until_ns < now - CLEARED_NS))
    failures = {row.who: row.failures for row in known if row.until_ns >= now - CLEARED_NS}
    until_ns = now
    for who in attempt:
        count = failures.get(who, 0) + 1
        until_ns = now + _wait_ns(count)
        values = {"failures": count, "until_ns": until_ns}
        if who in failures:
            rows.run(sa.update(attempts).where(attempts.c.who == who).values(**values))
        else:
            rows.run(sa.insert(attempts).values(who=who, **values))
    return Begun(0, until_ns)


def succeeded(rows: Rows, attempt: Attempt, begun: Begun) -> None:
    """Clear what failed with this name, and take this attempt back from its place. The others from
    there still count: who has an account could guess at another for ever.
    """
    audit.hold(rows)
    rows.run(sa.delete(attempts).where(attempts.c.who == attempt.name))
    place = sa.update(attempts).where(attempts.c.who == attempt.place)
    rows.run(place.values(failures=attempts.c.failures - 1))
    own_wait = place.where(attempts.c.until_ns == begun.until_ns)
    rows.run(own_wait.values(until_ns=time.time_ns()))


def too_many(wait_ns: int) -> Problem:
    """That one has to wait."""
    seconds = wait_ns // 10**9 + 1
    return Problem(
        429,
        "too-many-attempts",
        f"too many attempts to log in have failed; try again in {seconds} s",
        {"Retry-After": str(seconds)},
    )


def _wait_ns(failures: int) -> int:
    late = failures - FREE_ATTEMPTS
    return min(FIRST_WAIT_NS * 2 ** min(late, 20), LONGEST_WAIT_NS) if late >= 0 else 0


def _network(ip: str) -> str:
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:  # of a test, or a socket without one
        return ip
    if address.version == 6:
        return str(ipaddress.ip_network((address, _IPV6_NETWORK_BITS), strict=False))
    return ip
