"""Limits of a model's provider that processes share: at most so many requests and tokens in any
window, and so many calls at the same time.

Rule: what a store lets begin is never above a limit, in any window, over all processes that have it
open. A window is counted in parts, and each part until all of it has passed, so what it holds does
not grow with the limit; the price is that a limit is used to 63 parts of 64.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import NamedTuple, Protocol

PARTS = 64
"""Of a window."""

AT_ONCE = -1
"""In place of a wait: it depends on the end of another call."""


class CallLimits(NamedTuple):
    """What bounds the calls of one member, by its *name*, which is the same in all processes. A
    window lasts *length_ns*; an amount that is None is not limited.
    """

    name: str
    length_ns: int
    requests: int | None = None
    tokens: int | None = None
    concurrency: int | None = None

    def part_of(self, now_ns: int) -> int:
        """The number of the part of a window in which a moment is."""
        return now_ns // self._part_ns

    def oldest_of(self, now_ns: int) -> int:
        """The number of the oldest part that still counts then."""
        return self.part_of(now_ns - self.length_ns)

    @property
    def _part_ns(self) -> int:
        return -(-self.length_ns // PARTS)

    def wait_ns(self, parts: Sequence[Counted], busy: int, tokens: int, now_ns: int) -> int:
        """How long until a call of *tokens* may begin: 0 for now, `AT_ONCE` where *busy*, the calls
        under way, are too many. *parts* are those that count, oldest first. A call of more tokens
        than the limit is let through alone.
        """
        wait = 0
        for limit, asked, spent in (
            (self.requests, 1, [part.requests for part in parts]),
            (self.tokens, tokens, [part.tokens for part in parts]),
        ):
            if limit is not None:
                over = sum(spent) + min(asked, limit) - limit
                for part, amount in zip(parts, spent, strict=True):
                    if over <= 0:
                        break
                    over -= amount
                    wait = max(wait, self._ends_ns(part) - now_ns)
        if wait:
            return wait
        full = self.concurrency is not None and busy >= self.concurrency
        return AT_ONCE if full else 0

    def _ends_ns(self, part: Counted) -> int:
        """When a part counts no more."""
        return (part.number + 1) * self._part_ns + self.length_ns


class Counted(NamedTuple):
    """What began in one part of a window."""

    number: int
    requests: int
    tokens: int


class Entered(NamedTuple):
    """Whether a call may begin, where *wait_ns* is 0; the part that counts it."""

    wait_ns: int
    part: int = 0


class SharesLimits(Protocol):
    """What keeps limits for several processes: a store."""

    def enter(
        self, call_id: str, owner: str, limits: CallLimits, tokens: int
    ) -> Awaitable[Entered]:
        """Count a call that begins, if the limits allow it now. It is under way until `leave`, or
        until *owner* lives no more by the store's clock.
        """
        ...

    def leave(self, call_id: str, limits: CallLimits, part: int, change: int) -> Awaitable[None]:
        """The call has ended; *change* is what it used more than was counted for it, in tokens.
        Begun when this returns.
        """
        ...
