"""Whether a member is called at all: closed while it answers, open after failures in a row, half
open for one probe when its time has come. The clock is given with each question.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SECOND = 10**9


@dataclass(frozen=True, slots=True)
class Breaking:
    """When a member is left alone and for how long."""

    failures: int = 2
    """In a row, until it is open: so a member that is down costs that many calls a second try."""
    open_seconds: float = 30.0
    """Until the first probe; each that fails doubles it."""
    longest_seconds: float = 300.0
    refused_seconds: float = 600.0
    """After a refusal that no waiting mends: a key, or a model that is not there."""


class Breaker:
    """The state of one member; times are monotonic nanoseconds."""

    __slots__ = ("breaking", "failures", "opened", "probing", "until")

    def __init__(self, breaking: Breaking) -> None:
        self.breaking = breaking
        self.failures = 0
        self.opened = 0  # times in a row
        self.until = 0  # it is open before
        self.probing = False

    def state(self, now: int) -> Literal["closed", "open", "half_open"]:
        """How it stands."""
        if not self.opened:
            return "closed"
        return "open" if now < self.until else "half_open"

    def admits(self, now: int) -> bool:
        """Whether a call may be made: of a half open one, one at a time."""
        return not self.opened or (now >= self.until and not self.probing)

    def begin(self) -> None:
        """A call is made."""
        if self.opened:
            self.probing = True

    def leave(self) -> None:
        """A call has ended and tells nothing of the member."""
        self.probing = False

    def succeed(self) -> None:
        """A call was answered."""
        self.failures = self.opened = self.until = 0
        self.probing = False

    def fail(self, now: int) -> bool:
        """A call failed; whether it opened the breaker."""
        self.failures += 1
        self.probing = False
        if not self.opened and self.failures < self.breaking.failures:
            return False
        if self.opened and now < self.until:
            return False  # a call that began before it opened
        breaking = self.breaking
        seconds = min(breaking.open_seconds * 2.0**self.opened, breaking.longest_seconds)
        self._open(now, seconds)
        return True

    def refuse(self, now: int) -> None:
        """A call was refused for a reason that no waiting mends."""
        self._open(now, self.breaking.refused_seconds)

    def _open(self, now: int, seconds: float) -> None:
        self.opened = min(self.opened + 1, 32)
        self.until = now + int(seconds * SECOND)
        self.probing = False
