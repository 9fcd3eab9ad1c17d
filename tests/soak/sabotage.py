"""Promises of the package broken on purpose: a campaign over a broken one must find it, or it
proves nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nano_vm.machine.machine import Machine
from nano_vm.machine.plan import ToolOp
from nano_vm.run.durable import outbox
from nano_vm.run.durable.journal import Journal
from nano_vm.run.durable.lease import Lease
from nano_vm.store.protocol import Append, Told
from nano_vm.store.sql.store import SqlStore


def repeat() -> None:
    """Calls that were begun and have no outcome are made again, whatever they do."""

    async def again(*_: Any) -> None:
        return None

    Journal.lost = again  # type: ignore[assignment, method-assign]


def answer_early() -> None:
    """What is appended is acknowledged before it is durable."""

    def early(self: SqlStore, item: Append, told: Told) -> None:
        writing = self.append(item)
        writing.add_done_callback(lambda future: future.cancelled() or future.exception())
        told.set_result(None)

    SqlStore.give = early  # type: ignore[method-assign]


def never_look_at_the_lease() -> None:
    """Calls are made by whoever once had the run."""
    Lease.holds = lambda self: True  # type: ignore[assignment, method-assign, misc]


def forget_lost_calls() -> None:
    """What a crash lost counts on no budget."""
    Machine.lose = lambda *_, **__: None  # type: ignore[assignment, method-assign, misc]


def keep_what_failed() -> None:
    """A run that the store failed stays with its process."""
    outbox.PATIENCE_SECONDS = 0.1
    Lease.owe = lambda *_: None  # type: ignore[assignment, method-assign, misc]
    Lease.pay = lambda *_: None  # type: ignore[assignment, method-assign, misc]


def doubt_nothing() -> None:
    """Calls of a cluster whose worker died are made again, whatever they do."""
    ToolOp.unsafe = property(lambda self: False)  # type: ignore[assignment, method-assign]


SABOTAGE: dict[str, Callable[[], None]] = {
    f.__name__: f
    for f in (
        *(repeat, answer_early, never_look_at_the_lease, forget_lost_calls, keep_what_failed),
        doubt_nothing,
    )
}
