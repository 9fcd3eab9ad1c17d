"""The limits of members where several processes share them: what a pool asks of who keeps them.

Who drives a run of a store says so for the context of the run, so a pool needs to know no store, and
may stand in several hosts.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import NamedTuple, Protocol

from ...store.limits import CallLimits


class Ticket(NamedTuple):
    """One call that was let begin."""

    call_id: str
    limits: CallLimits
    part: int
    tokens: int


class Sharing(Protocol):
    """Who keeps limits for several processes."""

    async def enter(self, limits: CallLimits, tokens: int) -> Ticket | int:
        """A ticket where a call of *tokens* may begin now; else how long to wait in nanoseconds,
        -1 where that depends on the end of another call.

        Raises:
            ModelError: If who keeps them does not answer.
        """
        ...

    def leave(self, ticket: Ticket, used: int | None) -> None:
        """The call has ended, and *used* so many tokens; None where nobody knows."""
        ...


SHARING: ContextVar[Sharing | None] = ContextVar("nano_vm_sharing", default=None)
"""Who keeps the limits of the members that are called in this context; None where each process has
them for itself.
"""
