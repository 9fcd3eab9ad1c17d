"""Waiting for the end of a run: each waiter is woken once, and whoever stops waiting leaves the run
alone.
"""

from __future__ import annotations

import asyncio
import contextvars

import pytest

from nano_vm import ExecutionVM, Program, TraceStatus, tool
from nano_vm.run.live import Run

ONE = Program.from_dict({"steps": [{"id": "s", "type": "tool", "tool": "wait"}]})


class Gate:
    """A run whose only tool waits until the gate is open."""

    def __init__(self) -> None:
        self.gate = asyncio.get_running_loop().create_future()

        @tool(effect="read")
        async def wait() -> str:
            await self.gate
            return "done"

        self.run: Run = ExecutionVM(tools={"wait": wait}).start(ONE)

    def open(self) -> None:
        self.gate.set_result(None)


async def turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_each_of_many_waiters_is_woken() -> None:
    gate = Gate()
    waiters = [asyncio.create_task(gate.run.result()) for _ in range(3)]
    await turns()
    gate.open()
    assert await asyncio.gather(*waiters) == [gate.run.trace] * 3
    assert (await gate.run.result()).status is TraceStatus.SUCCESS  # also where it has ended


async def test_who_stops_waiting_leaves_the_run_and_others_alone() -> None:
    gate = Gate()
    one, other = (asyncio.create_task(gate.run.result()) for _ in range(2))
    await turns()
    one.cancel()
    await turns()
    assert one.cancelled()
    assert not other.done()
    gate.open()
    assert (await other).status is TraceStatus.SUCCESS


async def test_a_waiter_may_be_cancelled_twice() -> None:
    gate = Gate()
    waiter = asyncio.create_task(gate.run.result())
    await turns()
    waiter.cancel()
    waiter.cancel()
    await turns()
    assert waiter.cancelled()
    gate.open()
    assert (await gate.run).status is TraceStatus.SUCCESS


async def test_a_waiter_that_is_cancelled_as_the_run_ends_is_cancelled() -> None:
    gate = Gate()
    waiter = asyncio.create_task(gate.run.result())
    await turns()
    gate.open()
    # the run's task ends in the next turn, and the waiter is cancelled in it, before it is woken
    asyncio.get_running_loop().call_soon(waiter.cancel)
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert waiter.cancelled()
    assert (await gate.run).status is TraceStatus.SUCCESS


async def test_a_waiter_whose_time_is_up_is_told_so() -> None:
    gate = Gate()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await gate.run.result()
    gate.open()
    assert (await gate.run).status is TraceStatus.SUCCESS


async def test_a_run_that_is_cancelled_wakes_its_waiter_without_an_error() -> None:
    gate = Gate()
    waiter = asyncio.create_task(gate.run.result())
    await turns()
    assert (await gate.run.cancel()).status is TraceStatus.CANCELLED
    assert (await waiter).status is TraceStatus.CANCELLED


async def test_a_waiter_goes_on_in_its_own_context() -> None:
    name = contextvars.ContextVar("name", default="none")
    gate = Gate()

    async def wait() -> str:
        name.set("waiter")
        await gate.run.result()
        return name.get()

    waiter = asyncio.create_task(wait())
    await turns()
    gate.open()
    assert await waiter == "waiter"
