"""What is said to a stored run: who may say it, until when it counts, and that one of several who
decide does.
"""

from __future__ import annotations

import ast
import asyncio
import os
import pickle
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from build import parallel, program, step
from postgres import url_of

import nano_vm.run.inbox
from nano_vm import ExecutionVM, TraceStatus, VMError
from nano_vm.errors import AlreadyDecided, Changed, Expired, NotPermitted, StoreError, UnknownRun
from nano_vm.machine import pending
from nano_vm.run.inbox import Inbox, presented, principal, process_of
from nano_vm.run.system import Process, Seen, System
from nano_vm.store.protocol import open_store
from nano_vm.store.records import Message, StoredRun

ASK: dict[str, Any] = {
    "id": "ask",
    "type": "approval",
    "role": "boss",
    "show": {"x": "$x"},
    "then": [step("p", "pay", args={"x": "$x"})],
}
OTHER = {"otherwise": [{"id": "late", "type": "set", "values": {"answer": "too late"}}]}


class Time:
    """A clock that is set by hand. It stands still between, so that a second before a deadline is
    one on a busy machine too; only what calls may take, `monotonic_ns`, goes on by itself.
    """

    def __init__(self) -> None:
        self.began_ns, self.ahead_ns = time.time_ns(), 0

    def time_ns(self) -> int:
        return self.began_ns + self.ahead_ns

    def monotonic_ns(self) -> int:
        return time.monotonic_ns() + self.ahead_ns

    sleep = staticmethod(asyncio.sleep)

    def pass_(self, seconds: float) -> None:
        self.ahead_ns += int(seconds * 1e9)


class Host:
    """VMs over one database and one clock; ``paid`` is what their tool was called with."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.clock = Time()
        self.paid: list[Any] = []
        self.vms: list[ExecutionVM] = []

    def vm(self, **options: Any) -> ExecutionVM:
        async def pay(x: Any = None) -> str:
            self.paid.append(x)
            return f"paid {x}"

        vm = ExecutionVM(tools={"pay": pay}, store=self.url, clock=self.clock, **options)
        self.vms.append(vm)
        return vm

    async def asking(self, run_id: str = "r", **more: Any) -> str:
        """A run that waits for an approval; its digest."""
        vm = self.vm()
        trace = await vm.run(program({**ASK, **more}), {"x": 7}, run_id=run_id)
        assert trace.status is TraceStatus.SUSPENDED
        return str(vm.waiting(run_id)[0]["shown"])


@pytest.fixture(params=["file", "postgres"])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Host]:
    made = Host(url_of(request, tmp_path))
    yield made
    for vm in made.vms:
        vm.close()


# --- who ------------------------------------------------------------------------------------------

NOBODY = [None, "", "  ", "\n\t", ["x"], 5, b"ann", "\u3164", "\u200b\u200d", "\ud800", "a" * 201]


@pytest.mark.parametrize("by", NOBODY, ids=repr)
async def test_nobody_decides_nothing(host: Host, by: Any) -> None:
    shown = await host.asking()
    inbox = host.vms[0].inbox
    for say in (
        lambda: inbox.approve("r", "ask", shown=shown, by=by),
        lambda: inbox.reject("r", "ask", by=by),
        lambda: inbox.resolve("r", "ask", retry=True, by=by),
        lambda: inbox.cancel("r", by=by),
    ):
        with pytest.raises(NotPermitted, match="by"):
            say()
    with pytest.raises(NotPermitted):
        await host.vms[0].cancel("r", by=by)
    assert host.vms[0].require_store().load("r").inbox == []


def test_everybody_with_a_name_is_somebody() -> None:
    for by in ("ann", "Zoë Müller", "ann@example.org", "سارا‌نیک", "a" * 200):
        assert principal(by) == by


async def test_who_lacks_the_role_is_told_which(host: Host) -> None:
    shown = await host.asking()
    # one role may be a string
    vm = host.vm(roles=lambda by: {"ann": "boss", "bob": ["clerk"]}.get(by, ()))
    with pytest.raises(NotPermitted, match="'bob' lacks the role 'boss'") as refused:
        vm.approve("r", "ask", shown=shown, by="bob")
    assert (refused.value.by, refused.value.role) == ("bob", "boss")
    vm.approve("r", "ask", shown=shown, by="ann")


# --- one of several -------------------------------------------------------------------------------


@pytest.mark.slow
async def test_one_of_several_decides_and_the_others_learn_who(host: Host) -> None:
    """Each from a process of its own, as far as the database can tell."""
    shown = await host.asking()
    stores = [open_store(host.url) for _ in range(6)]
    barrier, found = threading.Barrier(len(stores)), []

    def decide(number: int) -> None:
        inbox = Inbox(stores[number], None, time)
        barrier.wait()
        try:
            if number % 2:
                inbox.approve("r", "ask", shown=shown, by=f"yes-{number}")
            else:
                inbox.reject("r", "ask", by=f"no-{number}")
        except AlreadyDecided as error:
            found.append((error.decision, error.by))
        else:
            found.append(("recorded", f"{'yes' if number % 2 else 'no'}-{number}"))

    threads = [threading.Thread(target=decide, args=(number,)) for number in range(len(stores))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for store in stores:
        store.close()
    (winner,) = [by for what, by in found if what == "recorded"]
    assert len(found) == len(stores)
    assert {by for _, by in found} == {winner}
    trace = await host.vm().resume("r")
    assert next(step for step in trace.steps if step.path == "ask").extra["by"] == winner
    assert host.paid == ([7] if winner.startswith("yes") else [])


async def test_the_first_decision_stands_also_after_it_was_used(host: Host) -> None:
    shown = await host.asking()
    vm = host.vm()
    vm.approve("r", "ask", shown=shown, by="ann")
    for say in (
        lambda: vm.approve("r", "ask", shown=shown, by="bob"),
        lambda: vm.reject("r", "ask", by="bob"),
    ):
        with pytest.raises(AlreadyDecided, match="decided already: approve by 'ann'") as refused:
            say()
        assert (refused.value.decision, refused.value.by) == ("approve", "ann")
        assert refused.value.decided_ns == host.clock.time_ns()
    assert (await vm.resume("r")).ok
    with pytest.raises(
        AlreadyDecided,
        match=r"has ended \(success\); 'ask' of run 'r' is decided already: approve by 'ann'",
    ):
        vm.approve("r", "ask", shown=shown, by="bob")


async def test_an_approval_after_a_cancellation_is_refused(host: Host) -> None:
    shown = await host.asking()
    inbox = host.vm().inbox
    inbox.cancel("r", by="ann")
    with pytest.raises(AlreadyDecided, match="is to be cancelled already, by 'ann'") as refused:
        inbox.approve("r", "ask", shown=shown, by="bob")
    assert (refused.value.decision, refused.value.by) == ("cancel", "ann")
    with pytest.raises(AlreadyDecided, match="is to be cancelled already"):
        inbox.cancel("r", by="bob")
    (trace,) = await host.vm().work(until_idle=True)
    assert (trace.status, host.paid) == (TraceStatus.CANCELLED, [])
    with pytest.raises(
        AlreadyDecided, match=r"has ended \(cancelled\): it was cancelled already, by 'ann'"
    ):
        inbox.approve("r", "ask", shown=shown, by="bob")
    with pytest.raises(Expired, match=r"has ended \(cancelled\)"):
        inbox.cancel("r", by="bob")


# --- until when -----------------------------------------------------------------------------------


@pytest.mark.parametrize("looked", [False, True], ids=["nobody looked", "a worker looked"])
@pytest.mark.parametrize(
    "more", [{}, OTHER, {**OTHER, "next": "z"}], ids=["fails", "goes on", "waits again"]
)
async def test_a_late_approval_is_refused(host: Host, looked: bool, more: dict[str, Any]) -> None:
    vm = host.vm()
    steps = [{**ASK, "timeout_seconds": 60, **more}, {"id": "z", "type": "wait", "event": "go"}]
    await vm.run(program(*steps[: 2 if "next" in more else 1]), {"x": 7}, run_id="r")
    (asked,) = vm.waiting("r")
    assert asked["deadline_ns"] == pytest.approx(host.clock.time_ns() + 60e9, abs=30e9)
    host.clock.pass_(61)
    if looked:
        await host.vm().work(until_idle=True)
    for say in (
        lambda: vm.approve("r", "ask", shown=asked["shown"], by="ann"),
        lambda: vm.reject("r", "ask", by="ann"),
    ):
        with pytest.raises(Expired) as refused:
            say()
        assert looked or refused.value.deadline_ns == asked["deadline_ns"]
    trace = await vm.resume("r")
    assert host.paid == []
    assert trace.status.value == (
        "failed" if not more else "suspended" if "next" in more else "success"
    )


async def test_an_approval_in_time_counts_however_late_a_worker_looks(host: Host) -> None:
    shown = await host.asking(timeout_seconds=60, **OTHER)
    host.clock.pass_(59)
    host.vm().approve("r", "ask", shown=shown, by="ann")
    host.clock.pass_(3600)
    (trace,) = await host.vm().work(until_idle=True)
    assert (trace.status, host.paid) == (TraceStatus.SUCCESS, [7])


async def test_and_also_where_it_was_recorded_after_the_worker_had_loaded_the_run(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = await host.asking(timeout_seconds=60, **OTHER)
    vm = host.vm()
    host.vm().approve("r", "ask", shown=shown, by="ann")
    host.clock.pass_(3600)
    store = vm.require_store()
    load = store.load

    def before(run_id: str, *, rows: bool = True) -> StoredRun:
        run = load(run_id, rows=rows)
        run.inbox.clear()
        return run

    monkeypatch.setattr(store, "load", before)
    assert (await vm.resume("r")).ok
    assert host.paid == [7]


async def test_a_late_word_by_another_clock_is_not_used(host: Host) -> None:
    """Recorded by a host whose clock is behind: the time at which it was recorded is what
    counts.
    """
    await host.asking(timeout_seconds=60, **OTHER)
    store = host.vm().require_store()
    late = host.clock.time_ns() + int(61e9)
    store.send("r", Message("approve", "ask", {"reason": None}, "ann", late))
    host.clock.pass_(3600)
    assert (await host.vm().resume("r")).final_output == {"answer": "too late"}
    assert host.paid == []


@pytest.mark.parametrize("looked", [False, True])
async def test_a_late_event_is_refused(host: Host, looked: bool) -> None:
    vm = host.vm()
    await vm.run(
        program({"id": "w", "type": "wait", "event": "paid", "timeout_seconds": 60}), run_id="r"
    )
    host.clock.pass_(61)
    if looked:
        await host.vm().work(until_idle=True)
    with pytest.raises(Expired):
        vm.send_event("r", "paid", 5)
    assert (await vm.resume("r")).status is TraceStatus.FAILED


async def test_an_event_in_time_counts(host: Host) -> None:
    vm = host.vm()
    await vm.run(
        program({"id": "w", "type": "wait", "event": "paid", "timeout_seconds": 60}), run_id="r"
    )
    vm.send_event("r", "paid", 5)
    host.clock.pass_(3600)
    assert (await vm.resume("r")).final_output == 5


async def test_an_event_of_one_wait_does_not_expire_for_another(host: Host) -> None:
    vm = host.vm()
    branches = [
        {"id": name, "type": "wait", "event": "e", "timeout_seconds": seconds}
        for name, seconds in (("a", 60), ("b", 600))
    ]
    await vm.run(program({"id": "p", "type": "parallel", "parallel_steps": branches}), run_id="r")
    host.clock.pass_(61)
    vm.send_event("r", "e", 5)
    trace = await vm.resume("r")
    assert {s.path: s.output for s in trace.steps}["p/b"] == 5
    assert trace.status is TraceStatus.FAILED  # the other branch came too late


# --- what was shown -------------------------------------------------------------------------------


async def test_the_beginning_of_a_digest_is_enough(host: Host) -> None:
    shown = await host.asking()
    vm = host.vm()
    short = shown[:11], "123", "0" * 11
    for wrong in (*short, "0" * 64, "0" * 12, "", "x" * 64, shown.upper(), shown + "0"):
        with pytest.raises(Changed) as refused:
            vm.approve("r", "ask", shown=wrong, by="ann")
        told = (
            "give at least 12 of its digits"
            if wrong in short
            else "is not the digest of the request as it stands"
        )
        if wrong:
            assert told in str(refused.value)
    vm.approve("r", "ask", shown=shown[:12], by="ann")


async def test_a_beginning_that_two_requests_have_is_none(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm = host.vm()
    asks = [{"id": name, "type": "approval", "role": "boss", "show": name} for name in ("a", "b")]
    await vm.run(program({"id": "p", "type": "parallel", "parallel_steps": asks}), run_id="r")
    digests = {"a": "ab" * 32, "b": "ab" * 31 + "cd"}
    monkeypatch.setattr(pending, "shown_digest", lambda entry: digests[entry["step_id"]])
    with pytest.raises(Changed, match="begins the digest of several requests"):
        vm.approve("r", "p/a", shown="ab" * 6, by="ann")
    with pytest.raises(Changed, match="is not the digest"):
        vm.approve("r", "p/b", shown=digests["a"], by="ann")
    vm.approve("r", "p/a", shown=digests["a"], by="ann")


async def test_what_is_not_asked(host: Host) -> None:
    shown = await host.asking()
    vm = host.vm()
    with pytest.raises(Changed, match="asks no approval at 'other'; it does at 'ask'"):
        vm.approve("r", "other", shown=shown, by="ann")
    with pytest.raises(Changed, match="has nothing in doubt at 'ask'"):
        vm.resolve("r", "ask", retry=True, by="ann")
    with pytest.raises(UnknownRun):
        vm.approve("none", "ask", shown=shown, by="ann")
    with pytest.raises(VMError, match="a reason is a string"):
        vm.approve("r", "ask", shown=shown, by="ann", reason=5)  # type: ignore[arg-type]


async def test_a_trace_says_what_was_shown_like_the_store(host: Host) -> None:
    vm = host.vm()
    trace = await vm.run(program(ASK), {"x": 7}, run_id="r")
    assert trace.waiting == vm.waiting("r") == vm.load("r").waiting == host.vm().inbox.waiting("r")
    assert len(trace.waiting[0]["shown"]) == 64
    without = await ExecutionVM(tools={"pay": lambda x: x}).run(program(ASK), {"x": 7})
    # neither the deadline nor the digest is part of what happened
    assert without.digest == trace.digest


@pytest.mark.slow
async def test_a_decision_counts_while_the_run_is_under_way_elsewhere(host: Host) -> None:
    """Another branch was answered, and its worker has the run: who approves meanwhile is not turned
    away.
    """
    vm, entered, go_on = host.vm(), asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        entered.set()
        await go_on.wait()

    vm.register_tool("slow", slow)
    branches = [[{"id": "w", "type": "wait", "event": "e"}, step("s", "slow")], ASK]
    await vm.run(
        program({"id": "both", "type": "parallel", "parallel_steps": branches}),
        {"x": 7},
        run_id="r",
    )
    shown = next(entry["shown"] for entry in vm.waiting("r") if entry["kind"] == "approval")
    vm.send_event("r", "e")
    driving = asyncio.create_task(vm.resume("r"))
    await entered.wait()
    other = host.vm().inbox
    assert await asyncio.to_thread(other.waiting, "r") == []
    await asyncio.to_thread(other.approve, "r", "both/ask", shown=shown, by="ann")
    with pytest.raises(AlreadyDecided):
        await asyncio.to_thread(other.reject, "r", "both/ask", by="bob")
    go_on.set()
    assert (await driving).ok
    assert host.paid == [7]


# --- what is in doubt -----------------------------------------------------------------------------


async def test_what_is_in_doubt_is_shown_with_its_arguments_its_time_and_its_process(
    host: Host,
) -> None:
    """A call whose deadline passed, in a process that lives."""
    vm = host.vm()

    async def send(to: str, cents: int) -> None:
        await asyncio.Event().wait()

    vm.register_tool("send", send)
    one = step("s", "send", args={"to": "$to", "cents": 5}, timeout_seconds=0.05)
    trace = await vm.run(program(parallel(one)), {"to": "ann"}, run_id="r")
    (entry,) = trace.waiting
    assert (entry["tool"], entry["arguments"]) == ("send", {"to": "ann", "cents": 5})
    assert host.clock.began_ns <= entry["began_ns"] <= time.time_ns()
    assert entry["process"] == {"host": socket.gethostname(), "pid": os.getpid(), "alive": True}
    assert len(entry["effect_key"]) == 32
    assert vm.waiting("r") == [entry] == vm.load("r").waiting
    assert "owner" not in entry
    vm.close()
    host.vms.remove(vm)
    (again,) = host.vm().waiting("r")
    assert again["process"]["alive"] is False  # it gave its lease back
    assert again == {**entry, "process": again["process"]}


def test_of_a_process_elsewhere_nothing_is_said() -> None:
    assert process_of("far/boot/1/77/9/ff") == {"host": "far", "pid": 77, "alive": None}
    assert process_of("odd") == {"host": "odd", "pid": None, "alive": None}


async def test_what_is_in_doubt_again_is_resolved_again(host: Host) -> None:
    vm = host.vm()

    async def send() -> None:
        await asyncio.Event().wait()

    vm.register_tool("send", send)
    await vm.run(program(step("s", "send", timeout_seconds=0.05)), run_id="r")
    vm.resolve("r", "s", retry=True, by="ann")
    with pytest.raises(AlreadyDecided, match="is resolved already: resolve by 'ann'"):
        vm.resolve("r", "s", retry=True, by="bob")
    first = vm.waiting("r")[0]
    trace = await vm.resume("r")
    assert trace.waiting[0]["began_ns"] > first["began_ns"]
    vm.resolve("r", "s", done="sent", by="bob")
    assert (await vm.resume("r")).final_output == "sent"
    with pytest.raises(AlreadyDecided, match=r"has ended \(success\)"):
        vm.resolve("r", "s", done="sent", by="ann")


# --- the room itself ------------------------------------------------------------------------------


def test_it_needs_no_event_loop() -> None:
    tree = ast.parse(Path(nano_vm.run.inbox.__file__).read_text(encoding="utf-8"))
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    assert "asyncio" not in imported
    assert not [
        node for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef | ast.Await)
    ]


class Drawer:
    """The part of a store that it needs, in a dict."""

    def __init__(self, run: StoredRun) -> None:
        self.run = run

    def load(self, run_id: str, *, rows: bool = True) -> StoredRun:
        if run_id != self.run.run_id:
            raise UnknownRun(run_id)
        return self.run

    def decide(
        self, run_id: str, judge: Callable[[StoredRun, bool], Message], path: str | None = None
    ) -> Message:
        message = judge(self.load(run_id), False)
        self.run.inbox.append(message)
        return message


def test_it_works_on_any_store_and_any_clock() -> None:
    entry = {
        "path": "a",
        "step_id": "a",
        "kind": "approval",
        "role": "boss",
        "show": 5,
        "deadline_ns": 100,
    }
    run = StoredRun("r", "p", "d", 0, status="suspended", waiting=[entry])
    clock = type("Set", (), {"now": 99, "time_ns": lambda self: self.now})()
    inbox = Inbox(Drawer(run), lambda by: ["boss"], clock)  # type: ignore[arg-type]
    (asked,) = inbox.waiting("r")
    clock.now = 100
    with pytest.raises(Expired, match="could be decided until 1970-01-01 00:00:00 UTC"):
        inbox.approve("r", "a", shown=asked["shown"], by="ann")
    clock.now = 99
    inbox.approve("r", "a", shown=asked["shown"], by="ann", reason="fine")
    assert run.inbox == [Message("approve", "a", {"reason": "fine"}, "ann", 99)]
    assert presented(run.waiting) == [asked]


def test_refusals_keep_their_facts_in_a_pickle() -> None:
    for error in (
        NotPermitted("a", by="b", role="c"),
        AlreadyDecided("a", decision="approve", by="b", decided_ns=5),
        Expired("a", deadline_ns=5),
        Changed("a"),
    ):
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), vars(again)) == (type(error), "a", vars(error))
        assert isinstance(error, VMError)
        assert not isinstance(error, StoreError)


# --- what a call gave, told by the process that made it ---


async def in_doubt(made: list[Any], **options: Any) -> ExecutionVM:
    """A VM with a run `r` whose write is in doubt; *made* are its calls."""

    async def pay() -> str:
        made.append("pay")
        raise ConnectionError("lost")

    vm = ExecutionVM(tools={"pay": pay}, store="sqlite://", **options)
    trace = await vm.run(program(step("t", "pay")), run_id="r")
    assert [entry["kind"] for entry in trace.waiting] == ["in_doubt"]
    return vm


async def test_who_began_a_call_is_looked_for_where_the_vm_runs() -> None:
    """In a simulated world another than this process's system knows who is there."""

    class Elsewhere(System):
        def sees(self, owner: str, here: Process, *, one_machine: bool = False) -> Seen:
            return Seen.UNKNOWN

    vm = await in_doubt([], system=Elsewhere())
    run = vm.require_store().load("r")
    assert [entry["process"]["alive"] for entry in presented(run.waiting)] == [False]
    for waiting in (vm.waiting("r"), vm.load("r").waiting, (await vm.resume("r")).waiting):
        assert [entry["process"]["alive"] for entry in waiting] == [None]
    vm.close()


def came(vm: ExecutionVM) -> None:
    """The process that made the call says what it gave."""
    vm.require_store().send("r", Message("outcome", "t", {"output": "paid"}, None, time.time_ns()))


async def test_nobody_resolves_a_call_whose_outcome_has_come() -> None:
    made: list[Any] = []
    vm = await in_doubt(made)
    came(vm)
    with pytest.raises(AlreadyDecided, match="has said what it gave") as refused:
        vm.resolve("r", "t", retry=True, by="ann")
    assert (refused.value.decision, refused.value.by) == ("outcome", None)
    trace = await vm.resume("r")
    assert (trace.status, trace.output, made) == (TraceStatus.SUCCESS, "paid", ["pay"])
    vm.close()


async def test_an_outcome_that_comes_counts_for_more_than_a_word_that_came_before() -> None:
    """Else a call that a person took for lost would be made twice though it is known to be done."""
    made: list[Any] = []
    vm = await in_doubt(made)
    vm.resolve("r", "t", retry=True, by="ann")
    came(vm)
    trace = await vm.resume("r")
    assert (trace.status, trace.output, made) == (TraceStatus.SUCCESS, "paid", ["pay"])
    vm.close()
