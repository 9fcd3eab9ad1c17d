"""Promises of the package broken on purpose: a campaign over a broken one must find it, or it proves nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from nano_vm.durable import Journal, Lease
from nano_vm.store import Append
from nano_vm.store.sql import SqlStore


def repeat() -> None:
    """Calls that were begun and have no outcome are made again, whatever they do."""

    async def again(*_: Any) -> None:
        return None

    Journal.lost = again  # type: ignore[assignment, method-assign]


def answer_early() -> None:
    """What is appended is acknowledged before it is durable."""
    append = SqlStore.append
    left: list[Any] = []

    def early(self: SqlStore, item: Append) -> asyncio.Future[None]:
        left.append(append(self, item))
        left[-1].add_done_callback(lambda future: future.cancelled() or future.exception())
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    SqlStore.append = early  # type: ignore[method-assign]


def never_look_at_the_lease() -> None:
    """Calls are made by whoever once had the run."""
    Lease.holds = lambda self: True  # type: ignore[assignment, method-assign, misc]


SABOTAGE: dict[str, Callable[[], None]] = {f.__name__: f for f in (repeat, answer_early, never_look_at_the_lease)}
