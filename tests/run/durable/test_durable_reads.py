"""Calls that only read do not wait for each other's records. What a crash loses of them is read
again; nothing is stored with a hole.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from build import program, step
from patience import HANGS_SECONDS

from nano_vm import ExecutionVM, Program, TraceStatus, tool
from nano_vm.errors import StoreError
from nano_vm.records.status import StepStatus
from nano_vm.replay import replay
from nano_vm.run.durable.journal import PILE_ROWS
from nano_vm.run.durable.stored import trace_of
from nano_vm.store.protocol import Append, Told
from nano_vm.store.records import INTENT, STEP, Row, StoredRun
from nano_vm.store.seals import seal_of
from nano_vm.store.sql.store import SqlStore
from nano_vm.store.sql.writer import Writer

READS = 3 * PILE_ROWS


class Host:
    """A VM whose tools note what is called."""

    def __init__(self, path: Path) -> None:
        self.url = f"sqlite:///{path / 'runs.db'}"
        self.calls: list[str] = []
        self.rows_at_write: list[int] = []

    def vm(self) -> ExecutionVM:
        @tool(effect="read")
        async def look(x: Any = None) -> Any:
            self.calls.append("look")
            return {"seen": len(self.calls)}

        @tool(effect="write")
        async def pay(x: Any = None) -> Any:
            self.calls.append("pay")
            with SqlStore(self.url) as other:
                (run,) = other.runs()
                self.rows_at_write.append(len(other.load(run.run_id).rows))
            return "paid"

        return ExecutionVM(tools={"look": look, "pay": pay}, store=self.url)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def reads(count: int, *more: dict[str, Any]) -> Program:
    return program(*(step(f"s{number}", "look") for number in range(count)), *more)


@pytest.mark.parametrize("count", [1, 2, PILE_ROWS, PILE_ROWS + 1, READS])
async def test_what_was_read_is_stored_in_order_under_the_seal(host: Host, count: int) -> None:
    vm = host.vm()
    work = reads(count)
    trace = await vm.run(work)
    run = vm.require_store().load(trace.run_id)
    vm.close()
    assert [row.path for row in run.rows] == [f"s{number}" for number in range(count)]
    assert seal_of(run) == run.seal
    assert trace_of(run).digest == trace.digest
    assert replay(trace_of(run), work)


async def test_a_call_with_an_effect_waits_for_all_that_was_read(host: Host) -> None:
    vm = host.vm()
    trace = await vm.run(reads(READS, step("p", "pay"), step("after", "look")))
    run = vm.require_store().load(trace.run_id)
    vm.close()
    assert host.rows_at_write == [READS + 1]  # and its intent
    assert [(row.kind, row.path) for row in run.rows[READS:]] == [
        (INTENT, "p"),
        (STEP, "p"),
        (STEP, "after"),
    ]
    assert seal_of(run) == run.seal


async def test_reads_share_transactions(host: Host) -> None:
    vm = host.vm()
    await vm.run(reads(PILE_ROWS))
    writer: Writer = vm.store.writer  # type: ignore[union-attr]
    assert writer.transactions <= 5  # the lease, the run, what was read, the end
    vm.close()


async def test_a_read_after_an_effect_waits_for_its_outcome(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a finished effect would be in doubt after a crash in the next call, which may take
    long.
    """
    give, given, done = SqlStore.give, [], []

    def noted(self: SqlStore, item: Append, told: Told) -> None:
        writing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        writing.add_done_callback(lambda _: told.set_result(None))
        given.append(([(row.kind, row.path) for row in item.rows], writing))
        give(self, item, writing)

    @tool(effect="read")
    async def peek() -> int:
        done.extend((paths, writing.done()) for paths, writing in given)
        return 1

    monkeypatch.setattr(SqlStore, "give", noted)
    vm = host.vm()
    vm.register_tool("peek", peek)
    await vm.run(program(step("p", "pay"), step("r", "peek")))
    vm.close()
    assert done == [([(INTENT, "p")], True), ([(STEP, "p")], True)]


@pytest.mark.slow
async def test_what_follows_a_lost_append_is_not_stored_without_it(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm = host.vm()
    give, failed = SqlStore.give, []

    def failing(self: SqlStore, item: Append, told: Told) -> None:
        if any(row.path == "s3" for row in item.rows) and not failed:
            failed.append(item)
            told.set_exception(StoreError("the disk is full"))
        else:
            give(self, item, told)

    # each read waits a little, so that most records are appends of their own
    @tool(effect="read")
    async def slow() -> int:
        await asyncio.sleep(0.01)
        return 1

    vm.register_tool("slow", slow)
    monkeypatch.setattr(SqlStore, "give", failing)
    work = program(*(step(f"s{number}", "slow") for number in range(8)), step("p", "pay"))
    with pytest.raises(StoreError, match="the disk is full"):
        await vm.run(work, run_id="r")
    assert failed
    assert "pay" not in host.calls
    # the lease pays what is owed: what was lost, and then what followed it; no look finds a hole
    store, stored = vm.require_store(), 3
    async with asyncio.timeout(HANGS_SECONDS):
        while stored < 8:
            run = store.load("r")
            stored = len(run.rows)
            assert [row.path for row in run.rows] == [f"s{number}" for number in range(stored)]
            await asyncio.sleep(0.005)
    vm.close()
    again = host.vm()
    again.require_store().forget_owner(str(run.owner))
    again.register_tool("slow", slow)
    trace = await again.resume("r")
    run = again.require_store().load("r")
    again.close()
    assert trace.status is TraceStatus.SUCCESS
    assert host.calls == ["pay"]
    assert seal_of(run) == run.seal


async def test_an_append_says_after_what_it_comes(tmp_path: Path) -> None:
    row = Row(STEP, "", "a", "tool", StepStatus.SUCCESS, 1, 2)
    with SqlStore(f"sqlite:///{tmp_path / 'runs.db'}") as store:
        run = StoredRun("r", "p", "d", 1, {}, {}, {}, None, b"salt", "running", owner="me")
        assert store.create(run)
        await store.append(Append(run.key, run.fence, [row], after=0))
        both = [store.append(Append(run.key, run.fence, [row], after=count)) for count in (3, 1, 2)]
        found = await asyncio.gather(*both, return_exceptions=True)
        assert [type(error) for error in found] == [StoreError, type(None), type(None)]
        with pytest.raises(StoreError, match="has 3 rows and not 2"):
            await store.append(Append(run.key, run.fence, (), {"steps": 1}, after=2))
        assert len(store.load("r").rows) == 3
