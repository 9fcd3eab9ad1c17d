"""Shared limits of members of pools, in the tables of a store. Each function is part of a transaction
that takes no lock before; the row of a member is the lock.
"""

from __future__ import annotations

from ..limits import CallLimits, Counted, Entered
from .database import Connection


def enter(
    connection: Connection,
    call_id: str,
    owner: str,
    limits: CallLimits,
    tokens: int,
    now: str,
) -> Entered:
    """See `SharesLimits.enter`; *now* is the present as an expression of SQL."""
    name = limits.name
    connection.run("INSERT INTO nano_limits VALUES (?) ON CONFLICT (member) DO NOTHING", name)
    _lock(connection, name)
    (at,) = connection.one(f"SELECT {now}")  # once the lock is held
    now_ns = int(at)
    newest = limits.part_of(now_ns)
    # of a machine that was started again, later ones are from before
    connection.run(
        "DELETE FROM nano_windows WHERE member = ? AND (part < ? OR part > ?)",
        name,
        limits.oldest_of(now_ns),
        newest,
    )
    parts = [
        Counted(*map(int, row))
        for row in connection.all(
            "SELECT part, requests, tokens FROM nano_windows WHERE member = ? ORDER BY part", name
        )
    ]
    wait = limits.wait_ns(parts, _busy(connection, limits, now), tokens, now_ns)
    if wait:
        return Entered(wait)
    connection.run(
        "INSERT INTO nano_windows (member, part, requests, tokens) VALUES (?, ?, 1, ?) "
        "ON CONFLICT (member, part) DO UPDATE SET requests = nano_windows.requests + 1, "
        "tokens = nano_windows.tokens + excluded.tokens",
        name,
        newest,
        tokens,
    )
    if limits.concurrency is not None:
        connection.run(
            "INSERT INTO nano_calls (id, member, owner) VALUES (?, ?, ?) "
            "ON CONFLICT (id) DO NOTHING",
            call_id,
            name,
            owner,
        )
    return Entered(0, newest)


def _lock(connection: Connection, member: str) -> None:
    lock = connection.database.dialect.for_update
    connection.one(f"SELECT member FROM nano_limits WHERE member = ?{lock}", member)


def _busy(connection: Connection, limits: CallLimits, now: str) -> int:
    """How many calls are under way; those of owners that live no more are forgotten."""
    if limits.concurrency is None:
        return 0
    connection.run(
        "DELETE FROM nano_calls WHERE member = ? AND NOT EXISTS (SELECT 1 FROM nano_owners WHERE "
        f"nano_owners.owner = nano_calls.owner AND nano_owners.until_ns >= {now})",
        limits.name,
    )
    (count,) = connection.one("SELECT count(*) FROM nano_calls WHERE member = ?", limits.name)
    return int(count)


def leave(connection: Connection, call_id: str, limits: CallLimits, part: int, change: int) -> None:
    """See `SharesLimits.leave`."""
    _lock(connection, limits.name)
    if change:
        connection.run(
            "UPDATE nano_windows SET tokens = tokens + ? WHERE member = ? AND part = ?",
            change,
            limits.name,
            part,
        )
    if limits.concurrency is not None:
        connection.run("DELETE FROM nano_calls WHERE id = ?", call_id)
