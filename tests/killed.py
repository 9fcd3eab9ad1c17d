"""A VM whose process is killed, without a process."""

from __future__ import annotations

import asyncio
from typing import Any

from nano_vm import ExecutionVM
from nano_vm.errors import LeaseLost


async def die(vm: ExecutionVM, run: asyncio.Task[Any]) -> None:
    """End *vm* and its *run* as a kill would: nothing more is written, and its lease has run out."""
    store, lease = vm.require_store(), vm._durable.lease

    def refused(*_: Any) -> Any:
        raise LeaseLost("a dead process writes nothing")

    lease.pay = lambda: None  # type: ignore[method-assign]
    for journal in vm._durable.journals:
        journal.leaving = True  # no record is made of the cancellation
        journal.store = journal.outbox.store = type(
            "Dead", (), {"give": refused, "send": lambda *_: None}
        )()  # type: ignore[assignment]
    run.cancel()
    await asyncio.wait([run])
    store.forget_owner(lease.owner)


async def settled(vm: ExecutionVM) -> None:
    """Wait until nothing goes on but calls that hang: what was given to the store is durable, and
    who waited for that has gone on, several times over.
    """
    writer = vm.require_store().writer  # type: ignore[attr-defined]
    for _ in range(5):
        await asyncio.wrap_future(writer.submit(lambda *_: None))
        for _ in range(20):
            await asyncio.sleep(0)
