"""The limits of members of pools, kept in the store of the runs that call them."""

from __future__ import annotations

import asyncio
import itertools

from ...adapters.pool.sharing import Ticket
from ...adapters.protocol import Clock
from ...errors import ModelError, StoreError
from ...store.limits import CallLimits, SharesLimits
from .later import Later
from .outbox import patiently

NO_PART = -1
"""Of a call of which it is not known whether it was counted: it stays counted."""


class StoredLimits:
    """What a pool asks, answered by *store* for a process that is *owner* there; *id* tells its
    calls from those of others.
    """

    def __init__(self, store: SharesLimits, owner: str, clock: Clock, id: str) -> None:
        self._store, self._owner, self._clock, self._id = store, owner, clock, id
        self._numbers = itertools.count()
        self._later = Later(
            clock, "member %s: that a call has ended is not stored, and its place stays taken: %s"
        )

    async def enter(self, limits: CallLimits, tokens: int) -> Ticket | int:
        """See `Sharing.enter`."""
        call_id = f"{self._id}.{next(self._numbers)}"
        try:
            entered = await patiently(
                self._clock, lambda _: self._store.enter(call_id, self._owner, limits, tokens)
            )
        except asyncio.CancelledError:
            self.leave(Ticket(call_id, limits, NO_PART, tokens), None)
            raise
        except StoreError as error:
            self.leave(Ticket(call_id, limits, NO_PART, tokens), None)
            message = f"the limits of member {limits.name!r} are in a store, and {error}"
            raise ModelError(message, retryable=True) from error
        if entered.wait_ns:
            return entered.wait_ns
        return Ticket(call_id, limits, entered.part, tokens)

    def leave(self, ticket: Ticket, used: int | None) -> None:
        """See `Sharing.leave`."""
        call_id, limits, part, tokens = ticket
        change = 0 if used is None or limits.tokens is None else used - tokens
        if change or limits.concurrency is not None:
            self._later.give(limits.name, lambda: self._store.leave(call_id, limits, part, change))
