"""Leases: who has a run, what can be seen of its process, and clocks that are set while runs are
under way.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import pytest
import warm
from build import parallel, program, step
from patience import HANGS_SECONDS
from postgres import url_of
from processes import born, running

from nano_vm import ExecutionVM, TraceStatus, VMError, tool
from nano_vm.cli import main
from nano_vm.errors import StoreError
from nano_vm.replay import replay, subject_of, verify
from nano_vm.run.durable.journal import Journal
from nano_vm.run.durable.lease import LEASE_MARGIN, Debt, Lease, living
from nano_vm.run.durable.outbox import patiently
from nano_vm.run.system import SYSTEM, Process, Seen
from nano_vm.store.protocol import Append
from nano_vm.store.records import STEP, Message, StoredRun
from nano_vm.store.sql.store import SqlStore

HOUR_NS = 3600 * 10**9


@pytest.fixture(params=["file", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return url_of(request, tmp_path)


@pytest.fixture
def file(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/runs.db"


# --- what is seen of a process ---

SLEEPING = [sys.executable, "-c", "import time; time.sleep(60)"]


def test_a_process_is_seen_while_it_is_there() -> None:
    here = Process.own()
    with running(SLEEPING) as pid:
        other = f"{replace(here, pid=pid, born=born(pid))}/ff"
        assert SYSTEM.sees(other, here) is Seen.ALIVE
        assert SYSTEM.sees(f"{replace(here, pid=pid, born='1')}/ff", here) is Seen.GONE, (
            "another has its id now"
        )
        os.kill(pid, signal.SIGSTOP)
        assert SYSTEM.sees(other, here) is Seen.ALIVE
        os.kill(pid, signal.SIGKILL)
        until = time.monotonic() + HANGS_SECONDS
        while SYSTEM.sees(other, here) is Seen.ALIVE and time.monotonic() < until:
            time.sleep(0.01)
        assert SYSTEM.sees(other, here) is Seen.GONE, "it has ended, and nobody has waited for it"
    assert SYSTEM.sees(other, here) is Seen.GONE


@pytest.mark.parametrize(
    ("fields", "one_machine", "what"),
    [
        ({"boot": "another"}, False, Seen.UNKNOWN),
        # a file is of one machine, and that was started anew
        ({"boot": "another"}, True, Seen.GONE),
        ({"boot": "-"}, True, Seen.UNKNOWN),
        ({"space": "1"}, True, Seen.UNKNOWN),  # a container beside this one
        ({"space": "-"}, True, Seen.UNKNOWN),
        ({"born": "-"}, True, Seen.UNKNOWN),
        # what counts is the machine, and not its name
        ({"host": "another", "pid": 0}, True, Seen.GONE),
    ],
)
def test_where_a_process_cannot_be_seen(
    fields: dict[str, Any], one_machine: bool, what: Seen
) -> None:
    here = Process.own()
    assert SYSTEM.sees(f"{replace(here, **fields)}/ff", here, one_machine=one_machine) is what


@pytest.mark.parametrize("error", [PermissionError(1, "hidden"), OSError(24, "too many files")])
def test_a_process_of_which_nothing_can_be_read_is_not_taken_for_gone(
    error: OSError, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Process.own()

    def refused(*_: Any, **__: Any) -> Any:
        raise error

    with running(SLEEPING) as pid:
        other = f"{replace(here, pid=pid, born=born(pid))}/ff"
        monkeypatch.setattr("builtins.open", refused)
        found = SYSTEM.sees(other, here)
        monkeypatch.setattr("os.kill", lambda *_: refused())
        of_another_user = SYSTEM.sees(other, here)
        monkeypatch.undo()
    assert (found, of_another_user) == (Seen.UNKNOWN, Seen.UNKNOWN), "its lease decides"
    assert SYSTEM.sees(other, here) is Seen.GONE


def test_names_that_no_owner_has() -> None:
    for owner in ("nonsense", "a/b/c/d/e/f", "", "1/2/3/4/5", "a/b/c/1/d/e/f"):
        assert SYSTEM.sees(owner, Process.own(), one_machine=True) is Seen.UNKNOWN


def test_a_lease_of_this_process_is_gone_when_it_was_given_back(file: str) -> None:
    with SqlStore(file) as store:
        first, second = Lease(store), Lease(store)
        first.begin()
        assert second.sees(first.owner) is Seen.ALIVE
        assert living(store) == {first.owner}
        first.end()
        assert second.sees(first.owner) is Seen.GONE
        assert living(store) == set()


def test_who_is_seen_gone_is_forgotten_and_who_is_seen_alive_is_spared(url: str) -> None:
    here = Process.own()
    with SqlStore(url) as store:
        lease, late = Lease(store), Lease(store)
        late.begin()
        store.heartbeat(late.owner, -5)
        gone, elsewhere = f"{replace(here, born='1')}/aa", f"{replace(here, space='1')}/bb"
        for owner in (gone, elsewhere):
            store.heartbeat(owner, -5)
        assert lease.spared() == [late.owner]
        assert set(store.owners()) == {late.owner, elsewhere}
        assert living(store) == {late.owner}
        late.end()


# --- runs ---


class Skewed:
    """A clock that somebody sets: *offset_ns* is what it is wrong by."""

    offset_ns = 0
    monotonic_ns = staticmethod(time.monotonic_ns)
    sleep = staticmethod(asyncio.sleep)

    def time_ns(self) -> int:
        return time.time_ns() + self.offset_ns


class Payments:
    """Tools that pay slowly, with a reconcile that tells what was paid so far."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.paid: list[int] = []
        self.all_begun = asyncio.Event()
        self.may_end = asyncio.Event()
        self.asked = 0

    def tools(self, expected: int) -> dict[str, Callable[..., Any]]:
        @tool(effect="irreversible")
        async def pay(n: int) -> str:
            self.begun.append(n)
            if len(self.begun) == expected:
                self.all_begun.set()
            await self.may_end.wait()
            self.paid.append(n)
            return f"paid {n}"

        @tool(effect="read")
        async def find(n: int) -> Any:
            self.asked += 1
            return {"done": n in self.paid, "output": f"paid {n}"}

        return {"pay": pay, "find": find}


PAY = program(
    step("pay", "pay", args={"n": "$n"}, reconcile={"tool": "find", "args": {"n": "$n"}}),
    inputs={"type": "object", "properties": {"n": {"type": "integer"}}},
)


@pytest.mark.parametrize("hours", [1, -1])
@pytest.mark.parametrize("far", [False, True], ids=["same container", "elsewhere"])
async def test_a_clock_that_is_set_takes_no_run_from_its_owner(
    url: str, hours: int, far: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    payments, clock = Payments(), Skewed()
    first = ExecutionVM(tools=payments.tools(6), store=url, clock=clock)
    second = ExecutionVM(tools=payments.tools(6), store=url, clock=clock)
    if far:
        store: Any = second.store
        second._durable.lease = Lease(store, process=replace(Process.own(), space="1"))
    runs = [asyncio.create_task(first.run(PAY, {"n": n}, run_id=f"r{n}")) for n in range(6)]
    await payments.all_begun.wait()
    clock.offset_ns = hours * HOUR_NS
    true_time = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: true_time() + hours * HOUR_NS)
    assert await second.work(until_idle=True) == []
    with pytest.raises(VMError, match="is under way in another process"):
        await second.resume("r0")
    payments.may_end.set()
    traces = await asyncio.gather(*runs)
    assert [trace.status for trace in traces] == [TraceStatus.SUCCESS] * 6
    assert (sorted(payments.paid), payments.asked) == ([0, 1, 2, 3, 4, 5], 0)
    first.close()
    second.close()


@pytest.mark.parametrize("way", ["work", "resume"])
async def test_a_lease_that_ends_between_look_and_claim_takes_no_run_from_a_process_that_lives(
    url: str, way: str
) -> None:
    """Who claims had looked when the owner's lease was good, and stood still since."""
    payments = Payments()
    first = ExecutionVM(tools=payments.tools(1), store=url)
    second = ExecutionVM(tools=payments.tools(1), store=url)
    running = asyncio.create_task(first.run(PAY, {"n": 1}, run_id="r"))
    await payments.all_begun.wait()
    store: Any = second.require_store()
    lease: Any = second._durable.lease  # type: ignore[union-attr]
    owner, spared, claim = store.load("r").owner, lease.spared, store.claim
    looks: list[str] = []

    def looked_in_time() -> list[str]:
        looks.append("lease")
        store.heartbeat(owner, 30)
        return spared()

    def claimed_late(*given: Any, **options: Any) -> Any:
        store.heartbeat(owner, -5)
        try:
            return claim(*given, **options)
        finally:
            looks.append("claim")

    lease.spared, store.claim = looked_in_time, claimed_late
    if way == "work":
        claimable = store.claimable

        def left_by_then(*given: Any, **options: Any) -> Any:
            store.heartbeat(owner, -5)
            return claimable(*given, **options)

        store.claimable = left_by_then
        working = asyncio.create_task(second.work(poll_seconds=0.01))
        async with asyncio.timeout(HANGS_SECONDS):
            while "claim" not in looks:  # noqa: ASYNC110 - calls are all there is
                await asyncio.sleep(0.005)
        working.cancel()
        await asyncio.wait([working])
    else:
        with pytest.raises(VMError, match="is under way in another process"):
            await second.resume("r")
    assert looks[:2] == ["lease", "claim"]
    assert store.load("r").owner == owner
    payments.may_end.set()
    assert (await running).output == "paid 1"
    assert (payments.begun, payments.asked) == ([1], 0)
    first.close()
    second.close()


async def test_a_run_whose_clock_was_set_back_goes_on_forwards(url: str) -> None:
    """What comes later is not recorded as earlier, and no call as having lasted less than
    nothing.
    """
    clock = Skewed()
    vm = ExecutionVM(tools={"stop": tool(effect="write")(stop)}, store=url, clock=clock)
    clock.offset_ns = HOUR_NS
    one = program(step("a", "stop"), {"id": "w", "type": "wait", "event": "go"}, step("b", "stop"))
    await vm.run(one, run_id="r")
    vm.send_event("r", "go")
    clock.offset_ns = 0
    trace = await vm.resume("r")
    assert trace.status is TraceStatus.SUCCESS
    stored = vm.require_store().load("r")
    times = [
        at for row in stored.rows if row.kind == STEP for at in (row.started_ns, row.finished_ns)
    ]
    assert times == sorted(times)
    assert verify(subject_of(stored))
    assert replay(trace, one).identical
    vm.close()


HOLDS = """
import asyncio, os, signal, sys
from nano_vm import ExecutionVM, Program, tool

@tool(effect="read")
async def stop() -> str:
    os.kill(os.getpid(), signal.SIGSTOP)
    return "woken"

one = Program.from_dict({"name": "one", "steps": [{"id": "stop", "type": "tool", "tool": "stop"}]})
vm = ExecutionVM(tools={"stop": stop}, store=sys.argv[1], lease_seconds=0.5)
print(asyncio.run(vm.run(one, run_id="r")).status.value)
"""


def stopped_worker(url: str) -> subprocess.Popen[str]:
    """A process that drives run ``r`` and has stopped in a call for longer than its lease."""
    worker = warm.Popen([sys.executable, "-c", HOLDS, url], stdout=subprocess.PIPE, text=True)
    _, status = os.waitpid(worker.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    with SqlStore(url) as store:
        until = time.monotonic() + HANGS_SECONDS
        while min(store.owners().values()) >= 0 and time.monotonic() < until:
            time.sleep(0.02)
        assert max(store.owners().values()) < 0
    return worker


def stop() -> str:
    return "called here"


@pytest.mark.slow
async def test_a_process_that_is_there_keeps_its_runs_however_long_it_stands_still(
    url: str,
) -> None:
    worker = stopped_worker(url)
    vm = ExecutionVM(tools={"stop": tool(effect="read")(stop)}, store=url)
    assert await vm.work(until_idle=True) == []
    with pytest.raises(VMError, match="is under way in another process"):
        await vm.resume("r")
    worker.send_signal(signal.SIGCONT)
    assert worker.communicate(timeout=HANGS_SECONDS)[0] == "success\n"
    assert vm.load("r").steps[0].output == "woken"
    vm.close()


@pytest.mark.slow
async def test_when_it_is_gone_its_runs_are_free_at_once(url: str) -> None:
    worker = stopped_worker(url)
    worker.kill()
    worker.communicate()
    vm = ExecutionVM(tools={"stop": tool(effect="read")(stop)}, store=url)
    (trace,) = await vm.work(until_idle=True)
    assert (trace.status, trace.steps[0].output) == (TraceStatus.SUCCESS, "called here")
    vm.close()


@pytest.mark.slow
async def test_from_elsewhere_its_time_counts(url: str) -> None:
    """A container beside it cannot see the process; there the lease decides, by the store's
    clock.
    """
    worker = stopped_worker(url)
    vm = ExecutionVM(tools={"stop": tool(effect="read")(stop)}, store=url)
    store: Any = vm.store
    vm._durable.lease = Lease(store, process=replace(Process.own(), space="1"))
    (trace,) = await vm.work(until_idle=True)
    assert trace.steps[0].output == "called here"
    worker.kill()
    worker.communicate()
    vm.close()


# --- calls that are under way while their run is taken over ---


class Two:
    """Two VMs that cannot see each other's process; the first is inside its call when the second
    takes the run over.
    """

    def __init__(self, url: str, effect: str = "irreversible", fails: bool = False) -> None:
        self.inside, self.go_on = asyncio.Event(), asyncio.Event()
        self.calls, self.asked, self.paid = 0, 0, False
        self.effect, self.fails, self.url = effect, fails, url
        self.first, self.second = self.vm("1"), self.vm("2")

    def vm(self, space: str) -> ExecutionVM:
        @tool(effect=self.effect)  # type: ignore[arg-type]
        async def pay() -> str:
            self.calls += 1
            if self.calls == 1:
                self.inside.set()
                await self.go_on.wait()
            if self.fails:
                raise ValueError("the bank says no")
            self.paid = True
            return "paid"

        @tool(effect="read")
        async def find() -> Any:
            self.asked += 1
            return {"done": self.paid, "output": "found"}

        store = SqlStore(self.url)
        vm = ExecutionVM(tools={"pay": pay, "find": find}, store=store)
        vm._durable.lease = Lease(store, process=replace(Process.own(), space=space))
        return vm

    async def taken_over(self, one: Any) -> tuple[asyncio.Task[Any], Any]:
        """The first's run, still under way, and the trace of the second."""
        run = asyncio.create_task(self.first.run(one, run_id="r"))
        await self.inside.wait()
        self.second.require_store().heartbeat(self.first._durable.lease.owner, -1)  # type: ignore[union-attr]
        return run, await self.second.resume("r")

    def close(self) -> None:
        self.first.close()
        self.second.close()


async def test_who_waits_for_what_another_makes_is_not_taken_for_who_makes_it(url: str) -> None:
    """Who takes over leaves the call in doubt, begins something else and waits; and when it goes on
    still asks nothing, since the call is not its own.
    """
    two = Two(url)
    pauses = [
        {"id": "short", "type": "wait", "seconds": 0.01},
        {"id": "long", "type": "wait", "seconds": 60},
    ]
    one = program(parallel(step("a", "pay", reconcile={"tool": "find"}), pauses, id="both"))
    run = asyncio.create_task(two.first.run(one, run_id="r"))
    await two.inside.wait()
    await asyncio.sleep(0.02)
    two.second.require_store().heartbeat(two.first._durable.lease.owner, -1)  # type: ignore[union-attr]
    for _ in range(2):
        trace = await two.second.resume("r")
        assert [entry["path"] for entry in trace.waiting] == ["both/a", "both/long"]
        assert (trace.waiting[0]["process"]["alive"], two.asked, two.calls) == (None, 0, 1)
    two.go_on.set()
    await run
    assert two.second.load("r").steps[0].output == "paid"
    two.close()


ONE_PAY = program(step("a", "pay", reconcile={"tool": "find"}), step("z", "find"))


async def test_who_takes_over_does_not_ask_what_cannot_be_answered_yet(url: str) -> None:
    """The payment is under way: 'not done' would be believed, and untrue. Its outcome comes late
    and is the step's.
    """
    two = Two(url)
    run, trace = await two.taken_over(ONE_PAY)
    assert (trace.status, two.asked) == (TraceStatus.SUSPENDED, 0)
    (waiting,) = trace.waiting
    assert (waiting["kind"], waiting["process"]["alive"]) == ("in_doubt", None)
    assert "may be making it still" in str(trace.error)
    assert replay(trace, ONE_PAY).identical
    two.go_on.set()
    assert (await run).status is TraceStatus.SUCCESS
    trace = two.second.load("r")
    assert (trace.status, trace.steps[0].output, two.calls) == (TraceStatus.SUCCESS, "paid", 1)
    assert verify(subject_of(two.second.require_store().load("r")))
    assert two.second.require_store().check() == []  # type: ignore[attr-defined]
    two.close()


@pytest.mark.slow
async def test_that_the_tool_failed_comes_late_too(url: str) -> None:
    two = Two(url, fails=True)
    run, _ = await two.taken_over(ONE_PAY)
    two.go_on.set()
    trace = await run
    assert (trace.status, two.calls, two.asked) == (TraceStatus.FAILED, 1, 0)
    assert "the bank says no" in str(trace.error)
    assert verify(subject_of(two.second.require_store().load("r")))
    two.close()


async def test_when_the_process_is_gone_the_reconcile_is_asked(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = Two(url)
    run, trace = await two.taken_over(ONE_PAY)
    wake = two.second.require_store().load("r").wake_ns
    assert wake is not None, "it is looked at again"
    assert await two.second.work(until_idle=True) == []
    two.second.require_store().forget_owner(two.first._durable.lease.owner)  # type: ignore[union-attr]
    two.second.preparer.clock = Skewed()
    two.second.preparer.clock.offset_ns = 24 * HOUR_NS
    two.paid = True  # the world has it, and the process never told
    (trace,) = await two.second.work(until_idle=True)
    assert (trace.status, trace.steps[1].output, two.calls) == (TraceStatus.SUCCESS, "found", 1)
    run.cancel()
    await asyncio.wait([run])
    two.close()


@pytest.mark.slow
async def test_an_outcome_beside_a_run_that_has_ended_is_told(
    url: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """A person was quicker, and wrong."""
    two = Two(url)
    run, _ = await two.taken_over(ONE_PAY)
    two.second.resolve("r", "a", fail="it did not happen", by="ann")
    assert (await two.second.resume("r")).status is TraceStatus.FAILED
    two.go_on.set()
    await run
    await asyncio.to_thread(two.first._durable.lease.pay)  # type: ignore[union-attr]
    assert (
        "run r has ended (failed), and 'a' came to something else since: see nano-vm show r"
        in caplog.text
    )
    store: Any = two.second.require_store()
    assert store.check() == [
        "run 'r' has ended (failed), and its call 'a' came to something else since: nano-vm show"
    ]
    two.close()
    assert main(["show", "r", "--store", url]) == 0
    shown = capsys.readouterr().out
    assert "late: a ended" in shown
    assert '"paid"' in shown
    assert "what the run says of these calls is not what happened" in shown


async def test_an_outcome_that_says_the_same_is_no_news(url: str) -> None:
    two = Two(url)
    run, _ = await two.taken_over(ONE_PAY)
    two.second.resolve("r", "a", done="paid", by="ann")
    assert (await two.second.resume("r")).status is TraceStatus.SUCCESS
    two.go_on.set()
    await run
    await asyncio.to_thread(two.first._durable.lease.pay)  # type: ignore[union-attr]
    assert two.second.require_store().check() == []  # type: ignore[attr-defined]
    two.close()


@pytest.mark.parametrize("how", ["async", "inline", "thread", "model"])
async def test_who_stood_still_after_the_last_look_begins_no_call(
    file: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look with the request and the call itself lies the driver's own work; there is
    one more look after it.
    """
    in_time: list[bool] = []

    async def later() -> str:
        return now()

    def now() -> str:
        assert vm._durable.lease is not None
        in_time.append(vm._durable.lease.holds())
        return "x"

    class Model:
        async def complete(self, messages: Any, **_: Any) -> str:
            return now()

    functions = {"async": later, "inline": now, "thread": now, "model": now}
    called = tool(effect="write", inline=how == "inline")(functions[how])
    one = (
        program({"id": "m", "type": "llm", "prompt": "x"})
        if how == "model"
        else program(step("a", "call"))
    )
    vm = ExecutionVM(Model(), {"call": called}, store=file)
    before = Journal.before

    async def then_frozen(self: Journal, *given: Any) -> Any:
        following = await before(self, *given)
        if following is None:
            monkeypatch.setattr(Journal, "before", before)
            self.lease.until = self.lease.clock() - 100
        return following

    monkeypatch.setattr(Journal, "before", then_frozen)
    trace = await vm.run(one, run_id="r")  # it lets the run go and takes it up again
    if how == "model":
        assert (trace.status, in_time) == (TraceStatus.SUCCESS, [True])
    else:
        assert (trace.status, in_time) == (TraceStatus.SUSPENDED, [])
    vm.close()


# --- calls that outlive the driving of their run ---


class Bank:
    """A tool that blocks a thread, and a reconcile that would say that nothing was paid yet."""

    def __init__(self) -> None:
        self.begun, self.may_end, self.ended = (threading.Event() for _ in range(3))
        self.asked: list[bool] = []

    def tools(self) -> dict[str, Callable[..., Any]]:
        @tool(effect="irreversible")
        def pay(n: int) -> str:
            self.begun.set()
            assert self.may_end.wait(HANGS_SECONDS)
            self.ended.set()
            return f"paid {n}"

        @tool(effect="read")
        async def find(n: int) -> Any:
            self.asked.append(self.ended.is_set())
            return {"done": self.ended.is_set(), "output": f"found {n}"}

        return {"pay": pay, "find": find}


@pytest.mark.parametrize("closed", [False, True], ids=["same VM", "after it was closed"])
async def test_a_call_that_a_worker_leaves_in_a_thread_is_not_taken_for_gone(
    url: str, closed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its run is free, and nobody asks its reconcile before the call has ended."""
    monkeypatch.setattr("nano_vm.run.durable.worker.GRACE_SECONDS", 0.05)
    bank, clock = Bank(), Skewed()
    vm = ExecutionVM(tools=bank.tools(), store=url, clock=clock)
    await vm.submit(PAY, {"n": 1}, run_id="r")
    working = asyncio.create_task(vm.work())
    assert await asyncio.to_thread(bank.begun.wait, HANGS_SECONDS)
    working.cancel()
    await asyncio.wait([working])
    assert vm.require_store().load("r").owner is None
    if closed:
        vm.close()
        vm = ExecutionVM(tools=bank.tools(), store=url, clock=clock)
    trace = await vm.resume("r")
    assert (trace.status, bank.asked) == (TraceStatus.SUSPENDED, [])
    (entry,) = vm.waiting("r")
    assert (entry["path"], entry["process"]["alive"]) == ("pay", True)
    bank.may_end.set()
    assert await asyncio.to_thread(bank.ended.wait, HANGS_SECONDS)
    clock.offset_ns = HOUR_NS
    async with asyncio.timeout(HANGS_SECONDS):
        while not (ended := await vm.work(until_idle=True)) or not bank.asked:
            clock.offset_ns += HOUR_NS
    assert (ended[0].output, bank.asked) == ("found 1", [True])
    vm.close()


async def test_a_vm_that_is_closed_while_it_calls_is_not_taken_for_gone(url: str) -> None:
    payments = Payments()
    first = ExecutionVM(tools=payments.tools(1), store=url)
    second = ExecutionVM(tools=payments.tools(1), store=url)
    run = asyncio.create_task(first.run(PAY, {"n": 1}, run_id="r"))
    await payments.all_begun.wait()
    await asyncio.to_thread(first.close)
    trace = await second.resume("r")
    assert (trace.status, payments.asked) == (TraceStatus.SUSPENDED, 0)
    second.resolve("r", "pay", done="paid 1", by="ann")
    assert (await second.resume("r")).output == "paid 1"
    payments.may_end.set()
    with pytest.raises(StoreError, match="was closed"):
        await run
    second.close()


async def test_a_vm_that_is_closed_between_calls_leaves_its_runs_to_others(url: str) -> None:
    begun, may_end = asyncio.Event(), asyncio.Event()

    @tool(effect="read")
    async def find(n: int) -> Any:
        begun.set()
        await may_end.wait()
        return {"done": False}

    first = ExecutionVM(tools={"find": find}, store=url)
    second = ExecutionVM(tools=Payments().tools(1), store=url)
    looks = program(step("a", "find", args={"n": 1}))
    run = asyncio.create_task(first.run(looks, run_id="r"))
    await begun.wait()
    await asyncio.to_thread(first.close)
    assert second.require_store().owners() == {}
    (trace,) = await second.work(until_idle=True)
    assert trace.status is TraceStatus.SUCCESS
    may_end.set()
    with pytest.raises(StoreError, match="was closed"):
        await run
    second.close()


async def test_a_run_that_has_ended_is_no_error_where_what_came_late_cannot_be_said(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    @tool(effect="read")
    async def find(n: int) -> int:
        return n

    vm = ExecutionVM(tools={"find": find}, store=url)
    await vm.submit(program(step("a", "find", args={"n": 1})), run_id="r")
    vm.require_store().send("r", Message("outcome", "before", {"output": 1}, None, time.time_ns()))

    def away(run: StoredRun) -> NoReturn:
        raise StoreError("the store is away")

    monkeypatch.setattr("nano_vm.run.durable.journal.late_outcomes", away)
    assert (await vm.resume("r")).final_output == 1
    vm.close()


@pytest.mark.parametrize(
    ("at", "submitted"),
    [
        ("patiently", False),
        ("RunSeal", False),
        ("RunSeal", True),
        ("Journal", False),
        ("Journal", True),
        ("Notifier", True),
    ],
)
async def test_a_run_that_was_begun_and_cannot_be_driven_is_given_back(
    url: str, at: str, submitted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    @tool(effect="read")
    async def find(n: int) -> int:
        return n

    def fails(*_: Any) -> NoReturn:
        raise MemoryError

    class Watches:
        def observe(self, event: Any) -> None: ...

    async def stored_and_cancelled(clock: Any, ask: Any) -> Any:
        found = await patiently(clock, ask)
        if vm.runs().runs:
            raise MemoryError
        return found

    vm = ExecutionVM(tools={"find": find}, store=url, observers=[Watches()])
    one = program(step("a", "find", args={"n": 1}))
    if submitted:
        await vm.submit(one, run_id="r")
    with monkeypatch.context() as patched:
        end = stored_and_cancelled if at == "patiently" else fails
        patched.setattr(f"nano_vm.run.durable.resume.{at}", end)
        with pytest.raises(MemoryError):
            await (vm.resume("r") if submitted else vm.run(one, run_id="r"))
    lease = vm._durable.lease  # type: ignore[union-attr]
    assert not lease.has("r")
    await asyncio.to_thread(lease.pay)
    assert vm.require_store().load("r").owner is None
    vm.close()


# --- a worker that stops ---


ANSWERS = {
    "value": ("success", 1),
    "error": ("suspended", 1),  # whether it took place, only a person knows
    "cancellation": ("suspended", 1),
}


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("forked", [False, True], ids=["alone", "in branches"])
async def test_a_worker_that_stops_cancels_no_run_however_its_calls_answer(
    file: str, answer: str, forked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nano_vm.run.durable.worker.GRACE_SECONDS", 0.05)
    begun, calls = asyncio.Event(), Counter[str]()

    @tool(effect="write")
    async def slow(n: int) -> str:
        calls[f"slow {n}"] += 1
        if calls.total() == (2 if forked else 1):
            begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if answer == "value":
                return "finished"
            if answer == "error":
                raise ValueError("it was interrupted") from None
            raise
        return ""

    @tool(effect="read")
    async def look() -> str:
        return "looked"

    steps = [step("a", "slow", args={"n": 1})]
    if forked:
        steps = [parallel(step("a", "slow", args={"n": 1}), step("b", "slow", args={"n": 2}))]
    vm = ExecutionVM(tools={"slow": slow, "look": look}, store=file)
    await vm.submit(program(*steps, step("c", "look")), run_id="r")
    working = asyncio.create_task(vm.work())
    await begun.wait()
    working.cancel()
    await asyncio.wait([working])
    left = vm.require_store().load("r")
    assert (left.status, left.owner) == ("running", None)
    trace = await vm.resume("r")
    status, times = ANSWERS[answer]
    assert trace.status.value == status
    assert set(calls.values()) == {times}
    assert verify(subject_of(vm.require_store().load("r")))
    vm.close()


async def test_a_worker_that_stops_begins_nothing_in_a_run_that_it_gets_back(
    file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another owner had taken the run, and gives it back after the worker was told to stop."""
    monkeypatch.setattr("nano_vm.run.durable.worker.GRACE_SECONDS", 0.5)
    begun, go = asyncio.Event(), asyncio.Event()
    calls: list[str] = []

    @tool(effect="write")
    async def slow() -> str:
        calls.append("slow")
        begun.set()
        await go.wait()
        return "done"

    @tool(effect="write")
    async def more() -> None:
        calls.append("more")
        await asyncio.Event().wait()

    vm = ExecutionVM(tools={"slow": slow, "more": more}, store=file)
    await vm.submit(program(step("a", "slow"), step("b", "more")), run_id="r")
    working = asyncio.create_task(vm.work())
    await asyncio.wait_for(begun.wait(), HANGS_SECONDS)
    store: Any = vm.require_store()
    owner = vm._durable.lease.owner
    await asyncio.to_thread(store.forget_owner, owner)
    await asyncio.to_thread(store.heartbeat, "other", 60.0)
    claims = await asyncio.to_thread(store.claim, ["r"], "other", 1)
    go.set()
    async with asyncio.timeout(HANGS_SECONDS):
        while vm._durable.journals:  # noqa: ASYNC110 - until it follows the other owner
            await asyncio.sleep(0.005)
    await asyncio.to_thread(store.heartbeat, owner, 60.0)
    working.cancel()
    await asyncio.sleep(0)
    stored = await asyncio.to_thread(store.load, "r")
    await store.append(Append(stored.key, claims["r"].fence, (), {"owner": None}))
    await asyncio.wait([working])
    left = await asyncio.to_thread(store.load, "r")
    assert (left.status, left.owner, calls) == ("running", None, ["slow"])
    vm.close()


def test_a_lease_that_is_given_back_while_it_is_renewed_does_not_hold_again() -> None:
    class Store:
        """Whose answer to a renewal comes after the lease was given back."""

        late = False

        def heartbeat(self, owner: str, seconds: float) -> None:
            if self.late:
                lease.end()

    store: Any = Store()
    lease = Lease(store, 10.0)
    lease.renew()
    assert lease.holds()
    store.late = True
    lease.renew()
    assert not lease.holds()


class SlowStore:
    """A store of which each message takes five seconds of a clock that nothing else moves."""

    def __init__(self) -> None:
        self.seconds, self.sent = 0.0, 0
        self.renewed: list[float] = []

    def clock(self) -> float:
        return self.seconds

    def heartbeat(self, owner: str, seconds: float) -> None:
        self.renewed.append(self.seconds)

    def send(self, run_id: str, message: Message) -> None:
        self.seconds += 5
        self.sent += 1

    def load(self, run_id: str) -> StoredRun:
        return StoredRun(run_id, "p", "d", 0, status="running")

    def owned(self, owner: str) -> dict[str, tuple[int, int]]:
        return {}

    def forget_owner(self, owner: str) -> None:
        pass


@pytest.mark.parametrize("debts", [1, 20])
def test_however_much_is_owed_the_lease_is_renewed_in_time(debts: int) -> None:
    store = SlowStore()
    lease = Lease(store, 30.0, clock=store.clock)  # type: ignore[arg-type]
    lease.begin()
    outcomes = [Message("outcome", f"s{n}", {"output": n}, None, 0) for n in range(20)]
    until = time.monotonic() + HANGS_SECONDS
    try:
        for n in range(debts):
            lease.owe(Debt("r", outcomes=outcomes[n::debts]))
        while store.sent < 20 and time.monotonic() < until:
            time.sleep(0.01)
        assert store.sent == 20
    finally:
        lease.end()
    assert lease.lapses == 0
    pauses = [after - before for before, after in pairwise(store.renewed)]
    assert max(pauses) < 30 * (1 - LEASE_MARGIN)
