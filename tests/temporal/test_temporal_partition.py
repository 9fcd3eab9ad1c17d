"""A worker and its server lose each other for longer than a heartbeat: nothing takes place twice that
must not.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import pytest
from build import program, step

from nano_vm import ExecutionVM, TraceStatus, tool
from nano_vm.temporal import TemporalRuns, connect, driver, life, terms, worker
from temporal.cluster import Server
from temporal.proxy import Proxy, proxy_to

NUMBERS = count(1)
BEAT = 1.0


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A heartbeat of a second, so that a partition is over soon."""
    for module in (terms, life, driver):
        monkeypatch.setattr(module, "HEARTBEAT_SECONDS", BEAT)
    monkeypatch.setattr(life, "CONFIRM_SECONDS", BEAT / 2)


@asynccontextmanager
async def cut_off(
    server: Server, tools: dict[str, Callable[..., Any]]
) -> AsyncIterator[tuple[TemporalRuns, Proxy]]:
    """Runs whose tool ``pay`` is called by a worker behind a proxy, all else by one that is not."""
    number = next(NUMBERS)
    near, far = f"near-{number}", f"far-{number}"
    client = await server.client()
    vm = ExecutionVM(None, tools)
    async with proxy_to(server.port) as proxy:
        behind = await connect(proxy.address)
        async with (
            worker(client, vm, near, queues={"pay": far}),
            worker(behind, vm, far),
        ):
            try:
                yield TemporalRuns(client, near, vm=vm), proxy
            finally:
                proxy.mend()


async def doubt(runs: TemporalRuns, run_id: str) -> None:
    """Wait until a call of the run is in doubt."""
    for _ in range(200):
        if any(entry["kind"] == "in_doubt" for entry in await runs.waiting(run_id)):
            return
        await asyncio.sleep(0.05)
    raise TimeoutError


@pytest.mark.parametrize("how", ["async", "thread"])
async def test_a_call_whose_task_comes_too_late_is_not_made(
    temporal_server: Server, how: str
) -> None:
    """The server has given it to this worker, and the network kept it: by then somebody has looked,
    and said that it did not take place.
    """
    paid: list[str] = []

    async def pay() -> str:
        paid.append("paid")
        return "receipt"

    def pay_in_thread() -> str:
        paid.append("paid")
        return "receipt"

    tools = {"pay": pay if how == "async" else pay_in_thread}
    async with cut_off(temporal_server, tools) as (runs, proxy):
        await runs.run(program(step(tool="pay")))  # the way is there
        proxy.cut()
        run_id = await runs.submit(program(step(tool="pay")))
        await doubt(runs, run_id)
        assert paid == ["paid"]
        proxy.mend()
        await runs.resolve(run_id, "a", retry=True, by="ann")
        trace = await asyncio.wait_for(runs.result(run_id), 30)
    assert trace.status is TraceStatus.SUCCESS
    assert trace.final_output == "receipt"
    assert paid == ["paid", "paid"]  # once in each run


async def test_a_call_that_waited_for_a_thread_meanwhile_is_not_made(
    temporal_server: Server,
) -> None:
    """Its worker had it before, and all threads were busy."""
    paid: list[str] = []

    def pay() -> str:
        paid.append("paid")
        return "receipt"

    async with cut_off(temporal_server, {"pay": pay}) as (runs, proxy):
        await runs.run(program(step(tool="pay")))
        threads = runs.vm.preparer.threads if runs.vm is not None else None
        assert threads is not None
        free = asyncio.Event()
        loop = asyncio.get_running_loop()

        def busy() -> None:
            asyncio.run_coroutine_threadsafe(free.wait(), loop).result()

        held = [asyncio.wrap_future(threads.submit(busy)) for _ in range(threads.size)]
        run_id = await runs.submit(program(step(tool="pay")))
        await asyncio.sleep(BEAT / 2)  # it waits for a thread
        proxy.cut()
        await doubt(runs, run_id)
        free.set()
        await asyncio.gather(*held)
        await asyncio.sleep(BEAT)  # it has its thread, and nobody answers
        proxy.mend()
        await runs.resolve(run_id, "a", retry=True, by="ann")
        trace = await asyncio.wait_for(runs.result(run_id), 30)
    assert trace.final_output == "receipt"
    assert paid == ["paid", "paid"]


async def test_a_call_under_way_takes_place_once_and_its_reconcile_is_asked(
    temporal_server: Server,
) -> None:
    paid: list[str] = []
    done = asyncio.Event()

    async def pay() -> str:
        paid.append("paid")
        await done.wait()
        return "receipt"

    @tool(effect="read")
    async def look() -> dict[str, Any]:
        return {"done": bool(paid), "output": "found"}

    async with cut_off(temporal_server, {"pay": pay, "look": look}) as (runs, proxy):
        run_id = await runs.submit(program(step(tool="pay", reconcile={"tool": "look"})))
        while not paid:  # noqa: ASYNC110 - the tool says it by what it did
            await asyncio.sleep(0.01)
        proxy.cut()
        await asyncio.sleep(2 * BEAT)
        done.set()
        trace = await asyncio.wait_for(runs.result(run_id), 30)
        proxy.mend()
        await asyncio.sleep(BEAT)
    assert trace.final_output == "found"
    assert paid == ["paid"]
