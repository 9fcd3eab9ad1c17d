"""`run_many`: every input once, bounded memory, faults that stay with their input, an end that is
clean.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

import pytest
from virtual_time import VirtualClock, in_virtual_time

from nano_vm import ExecutionVM, Program, VMError
from nano_vm.errors import StoreError
from nano_vm.records.status import TraceStatus
from nano_vm.run.batch.runs import ORDERED_WINDOW, WINDOW, run_many

PROGRAM = Program.from_dict(
    {
        "name": "double",
        "steps": [{"id": "double", "type": "tool", "tool": "double", "args": {"n": "$n"}}],
    }
)


class Host:
    """A tool that says how many calls of it are under way, and in which order they end."""

    def __init__(self) -> None:
        self.now = self.most = self.calls = 0
        self.waits: dict[int, asyncio.Event] = {}
        self.cancelled: list[int] = []

    async def double(self, n: int) -> int:
        self.now += 1
        self.calls += 1
        self.most = max(self.most, self.now)
        try:
            if n in self.waits:
                await self.waits[n].wait()
            else:
                await asyncio.sleep(0)
            if n < 0:
                raise ValueError(f"{n} is negative")
            return n * 2
        except asyncio.CancelledError:
            self.cancelled.append(n)
            raise
        finally:
            self.now -= 1


def vm_of(host: Host) -> ExecutionVM:
    return ExecutionVM(tools={"double": host.double}, clock=VirtualClock)


async def outputs(*args: Any, **kwargs: Any) -> list[tuple[int, Any]]:
    return [(number, trace.output) async for number, _, trace in run_many(*args, **kwargs)]


def numbers(count: int, taken: list[int] | None = None) -> Iterator[dict[str, int]]:
    for n in range(count):
        if taken is not None:
            taken.append(n)
        yield {"n": n}


@in_virtual_time
async def test_each_input_once_at_most_so_many_at_a_time() -> None:
    host = Host()
    found = await outputs(vm_of(host), PROGRAM, numbers(100), concurrency=7)
    assert sorted(found) == [(n, 2 * n) for n in range(100)]
    assert (host.most, host.calls) == (7, 100)


@pytest.mark.parametrize("count", [0, 1, 3])
@pytest.mark.parametrize("ordered", [False, True])
@in_virtual_time
async def test_fewer_inputs_than_runs_at_a_time(count: int, ordered: bool) -> None:
    found = await outputs(vm_of(Host()), PROGRAM, numbers(count), concurrency=16, ordered=ordered)
    assert sorted(found) == [(n, 2 * n) for n in range(count)]


@in_virtual_time
async def test_inputs_may_come_asynchronously() -> None:
    async def slowly() -> AsyncIterator[dict[str, int]]:
        for given in numbers(20):
            await asyncio.sleep(0)
            yield given

    assert sorted(await outputs(vm_of(Host()), PROGRAM, slowly(), concurrency=3)) == [
        (n, 2 * n) for n in range(20)
    ]


@in_virtual_time
async def test_results_come_as_runs_end_or_in_order() -> None:
    for ordered in (False, True):
        host = Host()
        host.waits[0] = asyncio.Event()
        found = []
        async with aclosing(
            run_many(vm_of(host), PROGRAM, numbers(9), concurrency=3, ordered=ordered)
        ) as results:
            asyncio.get_running_loop().call_later(0.02, host.waits[0].set)
            async for result in results:
                found.append(result.number)
        assert (found == sorted(found)) is ordered
        assert found[-1] == (8 if ordered else 0)


@pytest.mark.parametrize(("ordered", "window"), [(False, WINDOW), (True, ORDERED_WINDOW)])
@in_virtual_time
async def test_what_is_taken_and_not_given_out_is_bounded(ordered: bool, window: int) -> None:
    host, taken = Host(), []
    if ordered:
        host.waits[0] = asyncio.Event()
    results = run_many(vm_of(host), PROGRAM, numbers(1000, taken), concurrency=2, ordered=ordered)
    first = asyncio.ensure_future(anext(results))
    await asyncio.sleep(0.05)  # a reader that takes nothing more, or a first run that does not end
    assert len(taken) == 2 * window
    if ordered:
        host.waits[0].set()
    assert (await first).number == 0
    await results.aclose()


@pytest.mark.parametrize(("ordered", "window"), [(False, WINDOW), (True, ORDERED_WINDOW)])
@in_virtual_time
async def test_it_stays_bounded_while_results_are_taken(ordered: bool, window: int) -> None:
    taken: list[int] = []
    given = most = 0
    async for _ in run_many(
        vm_of(Host()), PROGRAM, numbers(500, taken), concurrency=2, ordered=ordered
    ):
        most = max(most, len(taken) - given)
        given += 1
        await asyncio.sleep(0.001)
    assert given == 500
    assert most <= 2 * window


@in_virtual_time
async def test_a_failed_run_is_a_result() -> None:
    inputs: list[Any] = [{"n": 1}, {"n": -1}, {"m": 2}, [3], {"n": 4}]
    results = {r.number: r.trace async for r in run_many(vm_of(Host()), PROGRAM, inputs)}
    assert [results[n].status.value for n in range(5)] == [
        "success",
        "failed",
        "failed",
        "failed",
        "success",
    ]
    assert "-1 is negative" in str(results[1].error)
    assert "'n' is needed" in str(results[2].error)
    assert "context is a dict" in str(results[3].error)


@in_virtual_time
async def test_ending_the_inputs_lets_what_is_under_way_end() -> None:
    host = Host()
    host.waits[4] = asyncio.Event()
    stop = False

    def until_stopped() -> Iterator[dict[str, int]]:
        for given in numbers(1000):
            if stop:
                return
            yield given

    found = []
    async for result in run_many(vm_of(host), PROGRAM, until_stopped(), concurrency=2):
        found.append(result.number)
        if len(found) == 5:
            stop = True
            host.waits[4].set()
    assert 4 in found
    assert sorted(found) == list(range(host.calls))
    assert host.calls < 12


@in_virtual_time
async def test_leaving_cancels_what_is_under_way() -> None:
    host = Host()
    for n in (1, 2):
        host.waits[n] = asyncio.Event()
    async with aclosing(run_many(vm_of(host), PROGRAM, numbers(1000), concurrency=3)) as results:
        async for _ in results:
            break
    assert {1, 2} <= set(host.cancelled)
    assert host.now == 0
    assert len(asyncio.all_tasks()) == 1


@in_virtual_time
async def test_an_input_that_cannot_be_read_ends_the_batch_after_what_is_under_way() -> None:
    def broken() -> Iterator[dict[str, int]]:
        yield from numbers(5)
        raise OSError("the disk is gone")

    for ordered in (False, True):
        host, found = Host(), []
        with pytest.raises(OSError, match="the disk is gone"):  # noqa: PT012
            async for result in run_many(
                vm_of(host), PROGRAM, broken(), concurrency=3, ordered=ordered
            ):
                found.append(result.number)
        assert (sorted(found), host.cancelled) == (list(range(5)), [])


@in_virtual_time
async def test_a_fault_of_the_host_ends_the_batch_where_results_are_held_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vm = vm_of(Host())
    run = vm.run

    async def failing(program: Program, context: Any, **more: Any) -> Any:
        await asyncio.sleep(0)
        if context["n"] == 3:
            await asyncio.sleep(0.02)
            raise StoreError("the disk is full")
        return await run(program, context, **more)

    monkeypatch.setattr(vm, "run", failing)
    with pytest.raises(StoreError, match="the disk is full"):
        await outputs(vm, PROGRAM, numbers(10_000), concurrency=4, ordered=True)


@pytest.mark.parametrize("concurrency", [0, -1, True, 1.5, "4"])
@in_virtual_time
async def test_a_concurrency_that_is_none(concurrency: Any) -> None:
    with pytest.raises(VMError, match="concurrency must be a positive integer"):
        await outputs(vm_of(Host()), PROGRAM, numbers(1), concurrency=concurrency)


@pytest.mark.parametrize("inputs", [None, 5, "text", {"n": 1}])
@in_virtual_time
async def test_inputs_that_are_none(inputs: Any) -> None:
    with pytest.raises(VMError, match="inputs are an iterable of dicts"):
        await outputs(vm_of(Host()), PROGRAM, inputs)


@in_virtual_time
async def test_an_id_joins_a_run_that_is_known() -> None:
    host = Host()
    vm = vm_of(host)
    for _ in range(2):
        found = [r async for r in run_many(vm, PROGRAM, numbers(5), run_id=lambda n: f"night-{n}")]
        assert sorted(r.trace.run_id for r in found) == [f"night-{n}" for n in range(5)]
    assert host.calls == 5


@in_virtual_time
async def test_a_run_that_was_cancelled_begins_anew() -> None:
    host = Host()
    host.waits[0] = asyncio.Event()
    vm = vm_of(host)
    async with aclosing(
        run_many(vm, PROGRAM, numbers(2), concurrency=2, run_id=lambda n: f"r{n}")
    ) as results:
        async for result in results:
            assert result.number == 1
            break
    assert host.cancelled == [0]
    host.waits.clear()
    await asyncio.sleep(1)  # another instant, in virtual time: it is an earlier start
    found = {
        r.number: r.trace async for r in run_many(vm, PROGRAM, numbers(2), run_id=lambda n: f"r{n}")
    }
    assert [found[n].status for n in (0, 1)] == [TraceStatus.SUCCESS] * 2
    assert [found[n].run_id for n in (0, 1)] == ["r0.2", "r1"]
