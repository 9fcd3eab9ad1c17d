"""Deadlines: one `Watchdog` for each event loop cancels what is overdue.

`asyncio.timeout` around each call would cost ten times the step.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from typing import Any

from ..machine.forks import Light
from ..machine.machine import Machine
from ..machine.plan import FOREVER

WATCHDOG_GRAIN_NS = 20_000_000
"""How late a deadline may be noticed when thousands of calls run: 50 looks a second at the most."""

SWALLOWED_NS = 1_000_000_000
"""How long a call that was cancelled may take to end before it is cancelled again."""


class Lane:
    """One chain of calls: a run, or a branch or item that runs beside others.

    While ``op`` is set its call is under way since ``machine.now``; else ``until`` is when whatever
    is awaited is overdue.
    """

    __slots__ = ("before", "expired", "machine", "op", "shortest", "stopped", "task", "until")

    def __init__(
        self, task: asyncio.Task[Any], machine: Machine | Light | None, shortest: int
    ) -> None:
        self.task = task
        self.machine = machine
        self.shortest = shortest
        self.op: Any = None
        self.until = FOREVER
        self.expired = 0  # how often the watchdog cancelled the task for the call under way
        # cancellations that were there before and are not this run's
        self.before = task.cancelling()
        self.stopped = False  # whether this run was cancelled

    def cancelled(self) -> bool:
        """Whether somebody else cancelled the task since; true once."""
        count = self.task.cancelling()
        if count <= self.before:
            return False
        self.before = count
        self.stopped = True
        return True

    def forgive(self) -> bool:
        """Take back the watchdog's own cancellations; whether there were any."""
        count, self.expired = self.expired, 0
        for _ in range(count):
            self.task.uncancel()
        return count > 0

    def due(self) -> int:
        """When what is awaited is overdue."""
        if self.op is None:
            return self.until
        assert self.machine is not None
        own: int = self.machine.now + self.op.timeout_ns
        return min(own, self.machine.deadline)


class Watchdog:
    """Cancels the task of each lane whose deadline has passed.

    It looks at least as often as the shortest deadline of any plan in flight is long. So a lane
    that begins a call does nothing but leave a note of it: the next look comes before the call is
    due.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, now: Callable[[], int]) -> None:
        self.loop = weakref.ref(loop)  # the table of watchdogs must not keep loops alive
        self.now = now
        self.lanes: dict[Lane, None] = {}  # in the order in which they began
        self.wake_at = FOREVER
        # weakly: a timer holds its loop
        self.timer: Callable[[], asyncio.TimerHandle | None] = lambda: None

    def arm(self, deadline: int) -> None:
        """Look at *deadline* at the latest."""
        if deadline < self.wake_at:
            timer = self.timer()
            if timer is not None:
                timer.cancel()
            self.wake_at = deadline
            loop = self.loop()
            assert loop is not None
            self.timer = weakref.ref(
                loop.call_later(max((deadline - self.now()) / 1e9, 0), self.look)
            )

    def look(self) -> None:
        """Cancel what is overdue, and set the next look."""
        now = self.now()
        nearest = FOREVER
        for lane in self.lanes:
            due = lane.due()
            if due <= now:
                lane.expired += 1
                lane.task.cancel()
                # one that swallows its cancellation is asked again
                lane.op, lane.until = None, now + SWALLOWED_NS
                due = lane.until
            nearest = min(nearest, due, now + lane.shortest)
        self.wake_at = FOREVER
        if nearest < FOREVER:
            self.arm(max(nearest, now + WATCHDOG_GRAIN_NS))


# Held by the drivers that use them: a timer holds its loop, and an entry here must not.
_watchdogs: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, weakref.ref[Watchdog]] = (
    weakref.WeakKeyDictionary()
)


def watchdog(loop: asyncio.AbstractEventLoop, now: Callable[[], int]) -> Watchdog:
    """The one of *loop*."""
    reference = _watchdogs.get(loop)
    found = reference() if reference is not None else None
    if found is None or found.now is not now:
        found = Watchdog(loop, now)
        _watchdogs[loop] = weakref.ref(found)
    return found
