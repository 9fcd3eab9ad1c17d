"""A run that a live process drives, cancelled by another: it stops before its next step, and no
effect is cut off without need.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from build import llm, mapped, parallel, program, statuses, step
from killed import die, settled
from patience import HANGS_SECONDS
from postgres import url_of

from nano_vm import ExecutionVM, Program, Trace, TraceStatus, tool
from nano_vm.errors import AlreadyDecided, StoreError, ToolError, UnknownRun
from nano_vm.replay import replay
from nano_vm.run.durable import interruption, listener, worker
from nano_vm.run.durable.listener import Listener
from nano_vm.run.inbox import Inbox
from nano_vm.store.protocol import Append, Told, open_store
from nano_vm.store.records import Message
from nano_vm.store.signing import SigningKey
from nano_vm.store.sql.store import SqlStore
from nano_vm.testing import ScriptedLLM

CANCELLED = TraceStatus.CANCELLED
BACK = {"tool": "back", "args": {}}


class Host:
    """VMs over one database; ``calls`` are what their tools began and ended. Tools hang until
    `go`.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.calls: list[str] = []
        self.go = asyncio.Event()
        self.vms: list[ExecutionVM] = []

    def vm(self, model: Any = None, **options: Any) -> ExecutionVM:
        def made(name: str, effect: Any, hangs: bool) -> Any:
            @tool(effect=effect)
            async def call() -> str:
                self.calls.append(name)
                if hangs:
                    await self.go.wait()
                    self.calls.append(f"{name} ended")
                return name

            return call

        kinds = {
            "read": ("read", True),
            "write": ("write", True),
            "quick": ("write", False),
            "back": ("write", False),
        }
        tools = {name: made(name, *kind) for name, kind in kinds.items()}
        vm = ExecutionVM(model or ScriptedLLM({"": "yes"}), tools, store=self.url, **options)
        self.vms.append(vm)
        return vm

    async def called(self, name: str) -> None:
        async with asyncio.timeout(HANGS_SECONDS):
            while name not in self.calls:  # noqa: ASYNC110 - calls are all there is
                await asyncio.sleep(0.005)

    def used(self, run_id: str) -> bool:
        """Whether nothing that was said to the run is left."""
        return self.vms[0].require_store().load(run_id).inbox == []


async def heard(vm: ExecutionVM) -> None:
    """Wait until the run that *vm* drives is stopping."""
    async with asyncio.timeout(HANGS_SECONDS):
        while not any(journal.interruption.stopping for journal in vm._durable.journals):  # noqa: ASYNC110 - a thread says so
            await asyncio.sleep(0.005)


async def left_in_doubt(host: Host, one: Program | None, at: str) -> ExecutionVM:
    """A new VM over run ``r``, which waits for a person: its process died in the call of *at*. It is
    a run of *one*, or is resumed.
    """
    vm = host.vm()
    driving = asyncio.create_task(vm.resume("r") if one is None else vm.run(one, run_id="r"))
    await host.called(at)
    await settled(vm)
    await die(vm, driving)
    other = host.vm()
    trace = await other.resume("r")
    assert [entry["kind"] for entry in trace.waiting] == ["in_doubt"]
    host.calls.clear()
    return other


@pytest.fixture(params=["file", "postgres"])
def host(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Host]:
    monkeypatch.setattr(listener, "NOTICED_SECONDS", 0.02)
    monkeypatch.setattr(interruption, "EFFECT_GRACE_SECONDS", 2 * HANGS_SECONDS)
    made = Host(url_of(request, tmp_path))
    yield made
    for vm in made.vms:
        vm.close()


@pytest.mark.parametrize("how", ["run", "resume", "work"])
async def test_a_call_that_only_reads_is_cut_off(host: Host, how: str) -> None:
    vm, other = host.vm(), host.vm()
    one = program(step("a", "quick", undo=BACK), step("b", "read"), step("c", "quick"))
    if how == "run":
        driving = asyncio.create_task(vm.run(one, run_id="r"))
    else:
        await vm.submit(one, run_id="r")
        driving = asyncio.create_task(
            vm.resume("r") if how == "resume" else vm.work(until_idle=True)
        )  # type: ignore[arg-type]
    await host.called("read")
    trace = await asyncio.wait_for(other.cancel("r", by="ann"), HANGS_SECONDS)
    assert (trace.status, host.calls) == (CANCELLED, ["quick", "read", "back"])
    found: Any = await driving
    assert (found if how != "work" else found[0]).status is CANCELLED
    assert host.used("r")


async def test_the_caller_of_resume_is_not_left_cancelled(host: Host) -> None:
    vm, other = host.vm(), host.vm()
    await vm.submit(program(step("b", "read")), run_id="r")

    async def caller() -> tuple[Trace, int]:
        trace = await vm.resume("r")
        async with asyncio.timeout(HANGS_SECONDS):
            await asyncio.sleep(0)
        task = asyncio.current_task()
        assert task is not None
        return trace, task.cancelling()

    driving = asyncio.create_task(caller())
    await host.called("read")
    await asyncio.to_thread(other.inbox.cancel, "r", by="ann")
    trace, cancelling = await asyncio.wait_for(driving, HANGS_SECONDS)
    assert (trace.status, cancelling) == (CANCELLED, 0)


async def test_a_model_call_is_cut_off(host: Host) -> None:
    class Slow:
        model = "slow"

        async def complete(self, messages: Any, **_: Any) -> str:
            host.calls.append("model")
            await asyncio.Event().wait()
            raise AssertionError

    vm, other = host.vm(Slow()), host.vm()
    driving = asyncio.create_task(vm.run(program(llm("m")), run_id="r"))
    await host.called("model")
    await asyncio.to_thread(other.inbox.cancel, "r", by="ann")
    assert (await asyncio.wait_for(driving, HANGS_SECONDS)).status is CANCELLED


async def test_a_call_with_an_effect_ends_by_itself_and_the_run_stops_there(host: Host) -> None:
    vm, other = host.vm(), host.vm()
    one = program(step("a", "write", undo=BACK), step("b", "quick"))
    driving = asyncio.create_task(vm.run(one, run_id="r"))
    await host.called("write")
    await asyncio.to_thread(other.inbox.cancel, "r", by="ann")
    await heard(vm)
    assert not driving.done()
    host.go.set()
    trace = await asyncio.wait_for(driving, HANGS_SECONDS)
    assert (trace.status, host.calls) == (CANCELLED, ["write", "write ended", "back"])
    assert trace.waiting == []
    assert host.used("r")


async def test_one_that_does_not_end_is_in_doubt(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interruption, "EFFECT_GRACE_SECONDS", 0.05)
    vm, other = host.vm(), host.vm()
    driving = asyncio.create_task(
        vm.run(program(step("a", "write"), step("b", "quick")), run_id="r")
    )
    await host.called("write")
    await asyncio.to_thread(other.inbox.cancel, "r", by="ann")
    trace = await asyncio.wait_for(driving, HANGS_SECONDS)
    assert (trace.status, statuses(trace)) == (CANCELLED, {"a": "in_doubt"})
    assert host.calls == ["write"]
    for of in (trace, other.load("r")):
        assert not of.waiting, "nobody is asked what became of it"
        assert of.summary()["waiting"] == []
    assert other.waiting("r") == []


async def test_one_in_a_branch_that_does_not_end_is_recorded_in_doubt(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its frame has ended with the run: what stood at its end is no longer computed again."""
    monkeypatch.setattr(interruption, "EFFECT_GRACE_SECONDS", 0.05)
    vm, other = host.vm(), host.vm()
    branches = program(parallel(step("a", "write"), step("b", "quick"), id="p"))
    driving = asyncio.create_task(vm.run(branches, run_id="r"))
    await host.called("write")
    await asyncio.to_thread(other.inbox.cancel, "r", by="ann")
    trace = await asyncio.wait_for(driving, HANGS_SECONDS)
    stored = vm.load("r")
    assert trace.status is CANCELLED
    assert [step.status.value for step in stored.steps if step.path == "p/a"] == ["in_doubt"]
    assert stored.digest == trace.digest
    assert replay(stored, branches).identical


# --- what is cancelled when nothing is left to be called ------------------------------------------


async def test_a_run_whose_last_call_was_under_way_is_undone_with_it(host: Host) -> None:
    vm, other = host.vm(), host.vm()
    one = program(step("a", "quick", undo=BACK), step("b", "write", undo=BACK))
    driving = asyncio.create_task(vm.run(one, run_id="r"))
    await host.called("write")
    await asyncio.to_thread(other.inbox.cancel, "r", by="ann")
    await heard(vm)
    host.go.set()
    trace = await asyncio.wait_for(driving, HANGS_SECONDS)
    assert (trace.status, trace.output) == (CANCELLED, None)
    assert host.calls == ["quick", "write", "write ended", "back", "back"]
    assert host.used("r")
    stored = vm.load("r")
    assert (stored.digest, stored.error) == (
        trace.digest,
        "the run was cancelled after its last step",
    )
    assert replay(stored, one).identical


LAST = {
    "alone": (step("a", "write", undo=BACK), "a"),
    "in a branch": (parallel(step("a", "write", undo=BACK), step("b", "quick")), "p/a"),
    "in an item": (mapped(step("a", "write", undo=BACK), over=[0]), "m[0]/a"),
}


@pytest.mark.parametrize("first", ["resolve", "cancel"])
@pytest.mark.parametrize("where", LAST)
async def test_one_whose_last_call_was_in_doubt_is_cancelled(
    host: Host, where: str, first: str
) -> None:
    """Both are said before anybody resumes the run, in either order."""
    last, path = LAST[where]
    one = program(step("x", "quick", undo=BACK), last)
    vm = await left_in_doubt(host, one, "write")
    said = [
        lambda: vm.resolve("r", path, done="receipt", by="ann"),
        lambda: vm.inbox.cancel("r", by="ben"),
    ]
    for say in said if first == "resolve" else reversed(said):
        say()
    trace = await vm.resume("r")
    assert (trace.status, trace.output) == (CANCELLED, None)
    assert host.calls == ["back", "back"]
    assert host.used("r")
    assert replay(vm.load("r"), one).identical


async def test_one_that_failed_stays_so_when_its_undo_is_resolved(host: Host) -> None:
    broken = {"id": "b", "type": "fail", "error": "Broken", "message": "no"}
    one = program(step("a", "quick", undo={"tool": "write"}), broken)
    vm = await left_in_doubt(host, one, "write")
    vm.resolve("r", "a/undo", done=None, by="ann")
    vm.inbox.cancel("r", by="ben")
    trace = await vm.resume("r")
    assert (trace.status, host.calls) == (TraceStatus.FAILED, [])
    assert host.used("r")


@pytest.mark.parametrize("last", ["set", "model", "read"])
async def test_one_that_nobody_had_begun_is_cancelled(host: Host, last: str) -> None:
    steps = {
        "set": {"id": "s", "type": "set", "values": {"n": 1}},
        "model": llm("m"),
        "read": step("b", "read"),
    }
    vm = host.vm()
    one = program(steps[last])
    await vm.submit(one, run_id="r")
    vm.inbox.cancel("r", by="ann")
    trace = await vm.resume("r")
    assert (trace.status, trace.output, host.calls) == (CANCELLED, None, [])
    assert replay(vm.load("r"), one).identical


@pytest.mark.parametrize("last", ["wait", "approval"])
async def test_one_is_cancelled_though_what_it_waits_for_last_has_come(
    host: Host, last: str
) -> None:
    pause = {
        "wait": {"id": "w", "type": "wait", "event": "paid"},
        "approval": {"id": "w", "type": "approval", "role": "boss", "show": {}},
    }[last]
    vm = host.vm()
    one = program(step("x", "quick", undo=BACK), pause)
    await vm.run(one, run_id="r")
    if last == "wait":
        vm.send_event("r", "paid", {}, id="e")
    else:
        (entry,) = vm.waiting("r")
        vm.approve("r", "w", by="ann", shown=entry["shown"])
    vm.inbox.cancel("r", by="ben")
    trace = await vm.resume("r")
    assert (trace.status, host.calls) == (CANCELLED, ["quick", "back"])
    assert replay(vm.load("r"), one).identical


async def test_one_is_cancelled_that_lost_its_process_between_its_last_outcome_and_its_end(
    tmp_path: Path,
) -> None:
    """Nothing is in doubt, and nothing is asked any more."""
    calls: list[str] = []
    ending = asyncio.Event()

    class Dying(SqlStore):
        def give(self, item: Append, told: Told) -> None:
            if not ending.is_set() and "finished_ns" in item.update:
                ending.set()
            else:
                super().give(item, told)

    async def quick() -> None:
        calls.append("quick")

    async def back() -> None:
        calls.append("back")

    vms = [
        ExecutionVM(
            tools={"quick": quick, "back": back}, store=Dying(f"sqlite:///{tmp_path / 'runs.db'}")
        )
        for _ in range(2)
    ]
    one = program(step("a", "quick", undo=BACK), parallel(step("b", "quick", undo=BACK)))
    driving = asyncio.create_task(vms[0].run(one, run_id="r"))
    await asyncio.wait_for(ending.wait(), HANGS_SECONDS)
    await die(vms[0], driving)
    vms[1].inbox.cancel("r", by="ann")
    trace = await asyncio.wait_for(vms[1].resume("r"), HANGS_SECONDS)
    assert (trace.status, calls) == (CANCELLED, ["quick", "quick", "back", "back"])
    assert replay(vms[1].load("r"), one).identical
    for vm in vms:
        vm.close()


@pytest.mark.slow
async def test_an_undo_at_the_end_that_is_in_doubt_is_resolved_and_the_rest_is_undone(
    host: Host,
) -> None:
    one = program(step("a", "quick", undo=BACK), step("b", "write", undo={"tool": "write"}))
    vm = await left_in_doubt(host, one, "write")
    vm.resolve("r", "b", done="receipt", by="ann")
    vm.inbox.cancel("r", by="ben")
    vm = await left_in_doubt(host, None, "write")
    assert [entry["path"] for entry in vm.waiting("r")] == ["b/undo"]
    assert replay(vm.load("r"), one).identical
    vm.resolve("r", "b/undo", done=None, by="ann")
    trace = await vm.resume("r")
    assert (trace.status, host.calls) == (CANCELLED, ["back"])
    assert replay(vm.load("r"), one).identical
    assert host.used("r")


async def test_one_that_is_cancelled_as_it_comes_to_wait_is_cancelled(tmp_path: Path) -> None:
    """The cancellation is heard when the run has nothing more to do but to say that it waits."""

    class Late(SqlStore):
        sent = False

        def give(self, item: Append, told: Told) -> None:
            if not self.sent and any(row.type == "approval" for row in item.rows):
                self.sent = True
                self.send("r", Message("cancel", "", {}, "ann", time.time_ns()))
                assert vm._durable is not None
                for journal in vm._durable.journals:
                    journal.interruption.stop()
            super().give(item, told)

    vm = ExecutionVM(store=Late(f"sqlite:///{tmp_path / 'late.db'}"))
    asks = {"id": "ask", "type": "approval", "role": "boss", "show": {}}
    trace = await asyncio.wait_for(vm.run(program(asks), run_id="r"), 20)
    assert trace.status is CANCELLED
    vm.close()


async def test_beside_an_effect_nothing_else_is_waited_for(host: Host) -> None:
    """One branch reads for ever, another has an effect under way: that ends, then the reading is
    cut off.
    """
    vm, other = host.vm(), host.vm()
    hanging = asyncio.Event()

    @tool(effect="read")
    async def forever() -> None:
        host.calls.append("forever")
        await hanging.wait()

    vm.register_tool("forever", forever)
    one = program(parallel(step("a", "write", undo=BACK), step("b", "forever")), step("c", "quick"))
    driving = asyncio.create_task(vm.run(one, run_id="r"))
    await host.called("write")
    await host.called("forever")
    await asyncio.to_thread(other.inbox.cancel, "r", by="ann")
    await heard(vm)
    assert not driving.done()
    host.go.set()
    trace = await asyncio.wait_for(driving, HANGS_SECONDS)  # and not after the grace of an effect
    assert (trace.status, host.calls[2:]) == (CANCELLED, ["write ended", "back"])


async def test_items_that_have_not_begun_do_not(host: Host) -> None:
    vm, other = host.vm(), host.vm()
    one = program(mapped(step("w", "write"), over=list(range(50)), max_concurrency=3))
    driving = asyncio.create_task(vm.run(one, run_id="r"))
    await host.called("write")
    await asyncio.to_thread(other.inbox.cancel, "r", by="ann")
    await heard(vm)
    host.go.set()
    assert (await asyncio.wait_for(driving, HANGS_SECONDS)).status is CANCELLED
    assert host.calls.count("write") == 3


async def test_what_undoes_is_not_cut_off(host: Host) -> None:
    vm, other = host.vm(), host.vm()

    @tool(effect="read")
    async def broken() -> None:
        raise ValueError("broken")

    vm.register_tool("broken", broken)
    one = program(step("a", "quick", undo={"tool": "write"}), step("b", "broken"))
    driving = asyncio.create_task(vm.run(one, run_id="r"))
    await host.called("write")
    await asyncio.to_thread(other.inbox.cancel, "r", by="ann")
    await heard(vm)
    host.go.set()
    trace = await asyncio.wait_for(driving, HANGS_SECONDS)
    assert (trace.status, host.calls) == (TraceStatus.FAILED, ["quick", "write", "write ended"])


async def test_in_the_same_vm_it_acts_at_once(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "NOTICED_SECONDS", 3600)
    vm = host.vm()
    driving = asyncio.create_task(
        vm.run(program(step("a", "quick", undo=BACK), step("b", "read")), run_id="r")
    )
    await host.called("read")
    trace = await asyncio.wait_for(vm.cancel("r"), HANGS_SECONDS)
    assert (trace.status, host.calls) == (CANCELLED, ["quick", "read", "back"])
    assert (await driving).status is CANCELLED
    assert host.used("r")


async def test_a_second_cancellation_is_told_of_the_first(host: Host) -> None:
    vm, other = host.vm(), host.vm()
    driving = asyncio.create_task(
        vm.run(program(step("a", "read"), step("b", "quick")), run_id="r")
    )
    await host.called("read")
    other.inbox.cancel("r", by="ann")
    with pytest.raises(AlreadyDecided, match="by 'ann'"):
        other.inbox.cancel("r", by="bob")  # before this loop lets the driver hear of the first
    assert (await driving).status is CANCELLED
    with pytest.raises(UnknownRun):
        await other.cancel("none")


async def test_other_runs_of_a_worker_go_on(host: Host) -> None:
    vm, other = host.vm(), host.vm()
    for run_id in ("r", "s"):
        await vm.submit(program(step("a", "read"), step("b", "quick")), run_id=run_id)
    working = asyncio.create_task(vm.work(until_idle=True))
    await host.called("read")
    await asyncio.to_thread(other.inbox.cancel, "r", by="ann")
    async with asyncio.timeout(HANGS_SECONDS):
        while (await asyncio.to_thread(other.load, "r")).status is not CANCELLED:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    host.go.set()
    assert sorted((trace.run_id, trace.status.value) for trace in await working) == [
        ("r", "cancelled"),
        ("s", "success"),
    ]


class Answers:
    """A store that says what was cancelled, or that it cannot."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.answers: list[Any] = []

    def cancelled(self, keys: list[int]) -> list[int]:
        self.asked.append(sorted(keys))
        answer = self.answers.pop(0) if self.answers else []
        if isinstance(answer, Exception):
            raise answer
        return list(answer)


def test_the_listener_asks_once_for_all_until_they_are_discarded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listener, "NOTICED_SECONDS", 0.01)
    store, heard, both = Answers(), [], threading.Event()
    store.answers = [StoreError("locked"), [1], [1, 2]]
    ear = Listener(store)  # type: ignore[arg-type]
    ear.add(1, lambda: heard.append(1))
    ear.add(2, lambda: (heard.append(2), both.set()))  # type: ignore[func-returns-value]
    assert both.wait(HANGS_SECONDS)
    assert heard == [1, 1, 2]
    assert store.asked[:2] in ([[1, 2], [1, 2]], [[1], [1, 2]])
    thread = ear._thread
    assert thread is not None
    for key in (1, 2):
        ear.discard(key)
    thread.join(HANGS_SECONDS)
    assert not thread.is_alive()  # nobody is left to listen for
    ear.add(3, lambda: None)
    assert ear._thread is not None
    ear.discard(3)


async def test_one_that_nobody_trusted_recorded_does_not_hide_the_next(host: Host) -> None:
    key = SigningKey.generate()
    vm = host.vm(signing_key=key)
    driving = asyncio.create_task(
        vm.run(program(step("a", "read"), step("b", "quick")), run_id="r")
    )
    await host.called("read")
    store: Any = open_store(host.url)
    await asyncio.to_thread(Inbox(store, None, time).cancel, "r", by="eve")
    (journal,) = vm._durable.journals
    async with asyncio.timeout(HANGS_SECONDS):
        while journal.interruption.looking is None:  # noqa: ASYNC110 - a thread says so
            await asyncio.sleep(0.005)
        await asyncio.shield(journal.interruption.looking)
    assert not driving.done()
    store.signer = key
    await asyncio.to_thread(
        Inbox(store, None, time, trusted=frozenset({key.public})).cancel, "r", by="ann"
    )
    assert (await asyncio.wait_for(driving, HANGS_SECONDS)).status is CANCELLED
    store.close()


# --- the wait before another attempt ---


LONG = {"max_retries": 2, "retry": {"delay_seconds": 3600, "max_delay_seconds": 3600}}


class Failing:
    """VMs with a tool that fails at its first call."""

    def __init__(self, host: Host, effect: Any) -> None:
        self.host, self.effect, self.calls = host, effect, 0

    def vm(self) -> ExecutionVM:
        @tool(effect=self.effect)
        async def flaky() -> str:
            self.calls += 1
            if self.calls == 1:
                raise ToolError("not now", retryable=True)
            return "done"

        vm = self.host.vm()
        vm.register_tool("flaky", flaky)
        return vm

    async def rests(self, vm: ExecutionVM) -> None:
        """Wait until the run that *vm* drives waits before its second attempt."""
        async with asyncio.timeout(HANGS_SECONDS):
            while not any(j.interruption.waiting for j in vm._durable.journals):  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.005)


@pytest.mark.parametrize("effect", ["read", "write"])
async def test_the_wait_before_another_attempt_is_cut_off(host: Host, effect: str) -> None:
    failing = Failing(host, effect)
    vm = failing.vm()
    one = program(step("a", "quick", undo=BACK), step("b", "flaky", **LONG))
    driving = asyncio.create_task(vm.run(one, run_id="r"))
    await failing.rests(vm)
    trace = await asyncio.wait_for(host.vm().cancel("r"), HANGS_SECONDS)
    assert (trace.status, failing.calls, host.calls) == (CANCELLED, 1, ["quick", "back"])
    assert (await driving).status is CANCELLED
    assert replay(trace, one).identical
    assert host.used("r")


async def test_one_in_a_branch_ends_as_the_effect_beside_it_has_ended(host: Host) -> None:
    failing = Failing(host, "write")
    vm = failing.vm()
    one = program(parallel(step("a", "flaky", **LONG), step("b", "write")))
    driving = asyncio.create_task(vm.run(one, run_id="r"))
    await host.called("write")
    await failing.rests(vm)
    cancelling = asyncio.create_task(host.vm().cancel("r"))
    await heard(vm)
    host.go.set()
    trace = await asyncio.wait_for(cancelling, HANGS_SECONDS)
    assert (trace.status, failing.calls, host.calls) == (CANCELLED, 1, ["write", "write ended"])
    assert (await driving).status is CANCELLED


async def test_a_run_that_is_cancelled_during_an_attempt_waits_for_no_other(host: Host) -> None:
    vm = host.vm()
    calls = []

    @tool(effect="write")
    async def flaky() -> str:
        calls.append("flaky")
        await host.go.wait()
        raise ToolError("not now", retryable=True)

    vm.register_tool("flaky", flaky)
    driving = asyncio.create_task(vm.run(program(step("b", "flaky", **LONG)), run_id="r"))
    async with asyncio.timeout(HANGS_SECONDS):
        while not calls:  # noqa: ASYNC110 - calls are all there is
            await asyncio.sleep(0.005)
    cancelling = asyncio.create_task(host.vm().cancel("r"))
    await heard(vm)
    host.go.set()
    assert (await asyncio.wait_for(cancelling, HANGS_SECONDS)).status is CANCELLED
    assert (await driving).status is CANCELLED
    assert calls == ["flaky"]


@pytest.mark.parametrize("effect", ["read", "write"])
async def test_a_worker_that_stops_in_one_leaves_its_run_at_once(
    host: Host, monkeypatch: pytest.MonkeyPatch, effect: str
) -> None:
    monkeypatch.setattr(worker, "GRACE_SECONDS", 2 * HANGS_SECONDS)
    failing = Failing(host, effect)
    vm = failing.vm()
    await vm.submit(program(step("b", "flaky", **LONG)), run_id="r")
    working = asyncio.create_task(vm.work())
    await failing.rests(vm)
    working.cancel()
    await asyncio.wait_for(asyncio.wait([working]), HANGS_SECONDS)
    assert (vm.load("r").status, failing.calls) == (TraceStatus.RUNNING, 1)
    assert vm.require_store().load("r", rows=False).owner is None
