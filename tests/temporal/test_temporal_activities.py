"""Activities without a server: what they do to the event loop of their worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from threading import Barrier, Event, Timer
from typing import Any

import pytest
from build import llm, program, step
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode
from temporalio.testing import ActivityEnvironment

from nano_vm import ExecutionVM, tool
from nano_vm.adapters import Pool
from nano_vm.machine.outcome import Cancelled, Failed, NotCalled, TimedOut, Value
from nano_vm.run.counting import Counting
from nano_vm.temporal import activities as module
from nano_vm.temporal.activities import Activities
from nano_vm.temporal.life import Life
from nano_vm.temporal.terms import (
    NOT_MADE,
    UNKNOWN_PROGRAM,
    Admission,
    ModelCall,
    Start,
    ToolCall,
)

PAYS = program(step(tool="pay", args={"amount": "$n"}))

paid: list[int] = []


async def pay(amount: int) -> int:
    paid.append(amount)
    return amount


@pytest.fixture
def activities() -> Activities:
    """Those of a worker whose policy checks what is paid; the program is not known there yet."""
    paid.clear()
    policy = {"tools": {"pay": {"args": {"amount": "$value <= 100"}}}}
    return Activities(ExecutionVM(None, {"pay": pay}, policy=policy))


class Server:
    """Confirms that a call is still its worker's; *error* is what it says otherwise."""

    def __init__(self, error: RPCError | None = None) -> None:
        self.error, self.asked, self.namespace = error, 0, "default"
        self.workflow_service = self

    async def record_activity_task_heartbeat(self, request: Any, **options: Any) -> None:
        self.asked += 1
        if self.error is not None:
            raise self.error


def environment_of(server: Server | None = None) -> ActivityEnvironment:
    return ActivityEnvironment(client=server or Server())  # type: ignore[arg-type]


def checked_call(activities: Activities) -> dict[str, Any]:
    """A call of a program that its worker has to learn."""
    start = Start(PAYS.to_dict(), {"n": 7})
    admission = Admission.of(activities.verdict(start.to_dict(), "r"))
    activities._prepared.clear()
    return ToolCall(
        "pay",
        {"amount": 7},
        "write",
        "a",
        program=admission.digest,
        op=admission.checked[0],
        document={"program": PAYS.to_dict(), "programs": {}},
    ).to_dict()


def paying(untrusted: list[str], document: dict[str, Any] | None = None) -> dict[str, Any]:
    """A call whose argument is checked only where its run calls input ``n`` untrusted."""
    start = Start(PAYS.to_dict(), {"n": 700}, untrusted=["n"])
    admission = Admission.of(doubting().verdict(start.to_dict(), "r"))
    return ToolCall(
        "pay",
        {"amount": 700},
        "write",
        "a",
        program=admission.digest,
        op=admission.checked[0],
        untrusted=untrusted,
        document=document,
    ).to_dict()


def doubting() -> Activities:
    """Those of a worker whose policy checks what is paid where a stranger may have said it."""
    policy = {"tools": {"pay": {"args": {"amount": {"check": "$value <= 100"}}}}}
    return Activities(ExecutionVM(None, {"pay": pay}, policy=policy))


DOCUMENT = {"program": PAYS.to_dict(), "programs": {}}


async def test_a_worker_that_learns_a_program_checks_what_its_run_calls_untrusted() -> None:
    paid.clear()
    restarted = doubting()
    unknown = await environment_of().run(restarted.call_tool, paying(["n"]))
    assert unknown == UNKNOWN_PROGRAM
    refused = await environment_of().run(restarted.call_tool, paying(["n"], DOCUMENT))
    assert isinstance(refused, NotCalled)
    assert refused.error.type == "PolicyRefused"
    assert paid == []


async def test_a_run_that_trusts_its_inputs_takes_no_check_from_another() -> None:
    paid.clear()
    worker = doubting()
    for untrusted in (["n"], []):
        worker.verdict(Start(PAYS.to_dict(), {"n": 7}, untrusted=untrusted).to_dict(), "r")
    refused = await environment_of().run(worker.call_tool, paying(["n"]))
    assert isinstance(refused, NotCalled)
    assert await environment_of().run(worker.call_tool, paying([])) == Value(700)
    assert paid == [700]


async def test_the_programs_that_a_worker_keeps_are_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "KEPT_PROGRAMS", 1)
    worker = doubting()
    for untrusted in ([], ["n"]):
        worker.verdict(Start(PAYS.to_dict(), {"n": 7}, untrusted=untrusted).to_dict(), "r")
    assert [untrusted for _, untrusted in worker._prepared] == [("n",)]


@pytest.mark.parametrize("why", ["it lacks a tool", "it cannot read the program"])
async def test_a_worker_that_cannot_run_the_program_makes_no_call(why: str) -> None:
    paid.clear()
    looks = program(step("b", tool="look"), step(tool="pay", args={"amount": "$n"}))
    document = {**DOCUMENT, "program": looks.to_dict()}
    if why == "it cannot read the program":
        document["program"] = {**looks.to_dict(), "steps": [{"id": "a", "type": "later"}]}
    refused = await environment_of().run(doubting().call_tool, paying(["n"], document))
    assert isinstance(refused, NotCalled)
    fault = refused.error
    assert (fault.kind, fault.type, fault.retryable) == ("refused", "ProgramRefused", False)
    assert "the worker that took the call cannot run its program" in fault.message
    assert ("'look'" if why == "it lacks a tool" else "'later'") in fault.message
    assert paid == []


async def test_a_worker_that_cannot_run_the_program_asks_none_of_its_pools() -> None:
    class Model:
        async def complete(self, messages: list[dict[str, Any]]) -> str:
            raise AssertionError("it was asked")

    pooled = program(
        llm("q", model="judge"),
        step("b", tool="look"),
        models={"judge": {"pool": ["m"]}},
    )
    call = ModelCall(
        ASKED.messages,
        "q",
        "q",
        model="judge",
        program="its digest",
        document={"program": pooled.to_dict(), "programs": {}},
    )
    made = Activities(ExecutionVM({"m": Model()}))
    outcome = await environment_of().run(made.call_model, call.to_dict())
    assert isinstance(outcome, Failed)
    assert outcome.error.type == "ProgramRefused"
    assert "'look'" in outcome.error.message


@contextmanager
def proving(activities: Activities) -> Iterator[None]:
    """While the proof of another program has the lock; for five seconds, or a loop that waits for it
    would never go on.
    """
    activities._lock.acquire()
    proof = Timer(5.0, activities._lock.release)
    proof.start()
    try:
        yield
    finally:
        proof.cancel()
        if activities._lock.locked():
            activities._lock.release()


async def under_way(
    activities: Activities, environment: ActivityEnvironment, call: dict[str, Any]
) -> asyncio.Future[Any]:
    """*call*, which waits for a proof; if the event loop did too, it would be done."""
    task = asyncio.ensure_future(environment.run(activities.call_tool, call))
    await asyncio.sleep(0.05)
    assert not task.done(), "the event loop stood still until the proof had ended"
    return task


async def cut_off(
    task: asyncio.Future[Any], environment: ActivityEnvironment, by_the_run: bool
) -> None:
    """End a call that has not been made, by its run or by its worker."""
    if by_the_run:
        environment.cancel()
        assert await task == Cancelled(called=False)
    else:
        task.cancel()
        with pytest.raises(ApplicationError) as refused:
            await task
        assert refused.value.type == NOT_MADE


async def test_a_checked_call_does_not_stop_the_loop_while_a_program_is_proved(
    activities: Activities,
) -> None:
    call, environment = checked_call(activities), environment_of()
    with proving(activities):
        task = await under_way(activities, environment, call)
    assert await task == Value(7)


async def test_a_checked_call_of_a_known_program_waits_for_no_proof(
    activities: Activities,
) -> None:
    call = checked_call(activities)
    await environment_of().run(activities.call_tool, call)
    known = {name: value for name, value in call.items() if name != "document"}
    with proving(activities):
        assert await environment_of().run(activities.call_tool, known) == Value(7)
        assert activities._lock.locked(), "it has waited for the proof"
    assert paid == [7, 7]


@pytest.mark.parametrize("by_the_run", [True, False])
async def test_a_call_that_is_cut_off_while_it_is_checked_is_not_made(
    activities: Activities, by_the_run: bool
) -> None:
    call, environment = checked_call(activities), environment_of()
    with proving(activities):
        task = await under_way(activities, environment, call)
        await cut_off(task, environment, by_the_run)
    assert paid == []


@pytest.mark.parametrize("code", [RPCStatusCode.NOT_FOUND, RPCStatusCode.UNAVAILABLE])
async def test_an_effect_is_made_only_where_the_server_says_that_it_is_this_workers(
    activities: Activities, code: RPCStatusCode
) -> None:
    call, server = checked_call(activities), Server(RPCError("no", code, b""))
    with pytest.raises(ApplicationError) as refused:
        await environment_of(server).run(activities.call_tool, call)
    assert refused.value.type == NOT_MADE
    assert (paid, server.asked) == ([], 1)


async def test_a_call_that_may_be_made_again_asks_nobody() -> None:
    @tool(effect="read")
    async def read(amount: int) -> int:
        return amount

    server = Server(RPCError("no", RPCStatusCode.UNAVAILABLE, b""))
    call = ToolCall("pay", {"amount": 3}, "read", "a").to_dict()
    made = Activities(ExecutionVM(None, {"pay": read}))
    assert await environment_of(server).run(made.call_tool, call) == Value(3)
    assert server.asked == 0


class Slow(Server):
    """Confirms a call when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.asking, self.may, self.answered = (asyncio.Event() for _ in range(3))

    async def record_activity_task_heartbeat(self, request: Any, **options: Any) -> None:
        self.asked += 1
        if self.asked == 1:  # before the call waits for its thread
            return
        self.asking.set()
        await self.may.wait()
        self.answered.set()


@pytest.mark.parametrize("by_the_run", [True, False])
async def test_a_call_in_a_thread_that_is_given_up_before_it_begins_is_not_made(
    monkeypatch: pytest.MonkeyPatch, by_the_run: bool
) -> None:
    paid.clear()

    def pay_in_thread(amount: int) -> None:
        paid.append(amount)

    # no confirmation lasts until a thread has the call, as where all of them were busy
    monkeypatch.setattr(Life, "is_confirmed", False)
    server = Slow()
    vm = ExecutionVM(None, {"pay": pay_in_thread})
    call, environment = (
        ToolCall("pay", {"amount": 3}, "write", "a").to_dict(),
        environment_of(server),
    )
    task = asyncio.ensure_future(environment.run(Activities(vm).call_tool, call))
    await server.asking.wait()
    await cut_off(task, environment, by_the_run)
    server.may.set()
    await server.answered.wait()
    # the thread that had the call has gone on when each thread has done something else
    threads = vm.preparer.threads
    together = Barrier(threads.size)
    both = [asyncio.wrap_future(threads.submit(together.wait)) for _ in range(threads.size)]
    await asyncio.wait_for(asyncio.gather(*both), 10)
    assert paid == []


async def test_a_call_in_a_thread_that_has_begun_is_made() -> None:
    begun, go_on = Event(), Event()

    def pay_in_thread(amount: int) -> None:
        begun.set()
        go_on.wait(10)

    environment = environment_of()
    made = Activities(ExecutionVM(None, {"pay": pay_in_thread}))
    call = ToolCall("pay", {"amount": 3}, "write", "a").to_dict()
    task = asyncio.ensure_future(environment.run(made.call_tool, call))
    assert await asyncio.to_thread(begun.wait, 10)
    environment.cancel()
    try:
        assert await task == Cancelled(called=True)
    finally:
        go_on.set()


ASKED = ModelCall([{"role": "user", "content": "?"}], "q", "q", seconds=0.05)


async def asked(model: Any) -> Any:
    activities = Activities(ExecutionVM(model))
    return await environment_of().run(activities.call_model, ASKED.to_dict())


@pytest.mark.parametrize("ends", ["late", "by its error"])
async def test_the_attempts_of_a_pool_are_told_however_its_call_ends(ends: str) -> None:
    class Model:
        model = "slow"

        async def complete(self, messages: list[dict[str, Any]]) -> str:
            if ends == "late":
                await asyncio.sleep(60)
            raise ConnectionError("lost")

    outcome = await asked(Pool([Model()], name="judges"))
    assert isinstance(outcome, TimedOut if ends == "late" else Failed)
    assert outcome.extra is not None
    assert [one["member"] for one in outcome.extra["route"]["attempts"]] == ["slow"]


async def test_the_first_call_of_an_adapter_is_not_in_the_time_of_the_call() -> None:
    class Model:
        loaded = False

        async def ready(self) -> None:
            await asyncio.sleep(0.2)
            self.loaded = True

        async def complete(self, messages: list[dict[str, Any]]) -> str:
            return f"loaded: {self.loaded}"

    assert (await asked(Model())).text == "loaded: True"


@pytest.mark.parametrize("by_the_run", [True, False])
async def test_a_call_of_a_model_that_is_cut_off_while_its_limits_wait_is_not_made(
    monkeypatch: pytest.MonkeyPatch, by_the_run: bool
) -> None:
    class Model:
        async def complete(self, messages: list[dict[str, Any]]) -> str:
            raise AssertionError("it was asked")

    waits = asyncio.Event()

    @asynccontextmanager
    async def limits(self: Any, *, own_pools: bool) -> AsyncIterator[None]:
        waits.set()
        await asyncio.Event().wait()
        yield

    monkeypatch.setattr(Counting, "limits", limits)
    environment, made = environment_of(), Activities(ExecutionVM(Model()))
    task = asyncio.ensure_future(environment.run(made.call_model, ASKED.to_dict()))
    await waits.wait()
    await cut_off(task, environment, by_the_run)
