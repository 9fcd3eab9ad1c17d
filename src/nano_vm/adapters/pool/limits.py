"""How much a member is asked: at most so many of something in any minute.

A leaky bucket, as `aiolimiter` has it, lets up to twice its rate through in a window that begins
just before a burst. Providers count windows, so each amount is kept until its minute has passed:
over no window is more let through. The clock is given with each question.
"""

from __future__ import annotations

from collections import deque

SECOND = 10**9

WINDOW_NS = 60 * SECOND

SLACK_NS = SECOND // 4
"""Added to a window: requests that were sent a window apart arrive closer together if the first was
longer on its way.
"""


SHARED_SLACK_NS = SECOND
"""The same where processes share a limit: between what a store says and what each of them sends may
lie more, as their event loops are busy.
"""


class Window:
    """At most *limit* in any window of `WINDOW_NS`, counted when a call begins."""

    __slots__ = ("entries", "length", "limit", "used")

    def __init__(self, limit: int, length: int = WINDOW_NS + SLACK_NS) -> None:
        self.limit = limit
        self.length = length
        self.used = 0
        self.entries: deque[list[int]] = deque()

    def wait_ns(self, amount: int, now: int) -> int:
        """How long until *amount* more can begin; 0 for now. More than the limit is let through
        alone.
        """
        self._forget(now)
        over = self.used + min(amount, self.limit) - self.limit
        if over <= 0:
            return 0
        for time, spent in self.entries:
            over -= spent
            if over <= 0:
                return time + self.length - now
        return self.length

    def take(self, amount: int, now: int) -> list[int]:
        """Count *amount*; the entry that `settle` takes."""
        entry = [now, amount]
        self.entries.append(entry)
        self.used += amount
        return entry

    def settle(self, entry: list[int], amount: int) -> None:
        """Replace what was counted for a call by what it used."""
        if self.entries and entry[0] >= self.entries[0][0]:
            self.used += amount - entry[1]
            entry[1] = amount

    def _forget(self, now: int) -> None:
        entries, since = self.entries, now - self.length
        while entries and entries[0][0] <= since:
            self.used -= entries.popleft()[1]
