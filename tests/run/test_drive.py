"""Threads, deadlines and cancellation: nothing is left running, nobody waits longer than told.

What only awaits is tested in virtual time, where a deadline is kept to the nanosecond; threads, in
real time, wait for each other's events.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import gc
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from build import llm, mapped, parallel, program, statuses, step
from virtual_time import VirtualClock, hold, in_virtual_time

from nano_vm import Completion, ExecutionVM, LLMUsage, Trace, TraceStatus, tool
from nano_vm.adapters.contract import completed
from nano_vm.errors import ModelError
from nano_vm.machine.ledger import Limits
from nano_vm.machine.plan import MAP_CONCURRENCY
from nano_vm.records.record import MAX_WORD
from nano_vm.replay import replay
from nano_vm.run.host import Threads
from nano_vm.run.watchdog import WATCHDOG_GRAIN_NS, watchdog
from nano_vm.testing import ScriptedLLM

SHORT = 0.02  # seconds: a deadline that passes
GRAIN = WATCHDOG_GRAIN_NS / 1e9  # seconds: how late it may be noticed
LONG = 600.0  # seconds that nobody waits


@pytest.fixture(autouse=True)
async def nothing_is_left() -> AsyncIterator[None]:
    """After each test no task is pending and no lane is watched."""
    yield
    await check_that_nothing_is_left(time.monotonic_ns)


def virtual(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """The *test* in virtual time, where its VMs are made by `virtual_vm`."""

    @functools.wraps(test)
    async def checked(*args: Any, **kwargs: Any) -> None:
        await test(*args, **kwargs)
        await check_that_nothing_is_left(VirtualClock.monotonic_ns)

    return in_virtual_time(checked)


virtual_vm = functools.partial(ExecutionVM, clock=VirtualClock)


async def check_that_nothing_is_left(now: Callable[[], int]) -> None:
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    left = [
        task
        for task in asyncio.all_tasks()
        if task is not asyncio.current_task() and not task.done()
    ]
    assert left == []
    assert watchdog(asyncio.get_running_loop(), now).lanes == {}


class Hang:
    """A tool (or a model's answer) that never ends, and tells what happened to it."""

    def __init__(
        self,
        effect: Any = "read",
        *,
        then: Callable[[], Any] | None = None,
        seconds: float = LONG,
    ) -> None:
        self.seconds = seconds
        self.begun = 0
        self.cancelled = 0
        self.then = then
        self.started = asyncio.Event()
        tool(effect=effect)(self)

    async def __call__(self, **rest: Any) -> Any:
        self.begun += 1
        self.started.set()
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.cancelled += 1
            if self.then is not None:
                return self.then()
            raise


class Model:
    """An adapter whose answers are what *answer* gives."""

    model = "m"

    def __init__(self, answer: Callable[[], Awaitable[Any]]) -> None:
        self.answer = answer

    async def complete(self, messages: list[dict[str, str]], **kwargs: Any) -> Any:
        return await self.answer()


def llm(id: str = "m", **fields: Any) -> dict[str, Any]:
    return {"id": id, "type": "llm", "prompt": "x", **fields}


def now() -> float:
    """Seconds of the loop that runs."""
    return asyncio.get_running_loop().time()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(LONG):
        while not condition():  # noqa: ASYNC110 - the tools under test set no event for it
            await asyncio.sleep(0)


# --- threads --------------------------------------------------------------------------------------


async def test_sync_tools_run_beside_the_event_loop_in_threads_of_the_pool() -> None:
    loop_thread = threading.current_thread()
    seen: list[threading.Thread] = []

    def plain() -> None:
        seen.append(threading.current_thread())

    @tool(inline=True)
    def inline() -> None:
        seen.append(threading.current_thread())

    trace = await ExecutionVM(tools={"t": plain, "u": inline}).run(
        program(step("a"), step("b", "u"))
    )
    assert trace.ok
    assert seen[0] is not loop_thread
    assert seen[0].daemon
    assert seen[1] is loop_thread


async def test_the_pool_is_no_larger_than_its_size_and_shared_by_all_runs() -> None:
    lock = threading.Lock()
    now = most = 0
    names = set()

    def work() -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
            names.add(threading.current_thread().name)
        time.sleep(0.005)
        with lock:
            now -= 1

    vm = ExecutionVM(tools={"t": work}, threads=3)
    one = program({"id": "m", "type": "map", "over": "$xs", "steps": [step()]})
    traces = await asyncio.gather(*(vm.run(one, {"xs": list(range(6))}) for _ in range(3)))
    assert all(trace.ok for trace in traces)
    assert most == 3
    assert len(names) == 3


async def test_calls_run_at_the_same_time_in_their_threads() -> None:
    barrier = threading.Barrier(4)
    vm = ExecutionVM(tools={"t": lambda: None, "u": lambda: None}, threads=4)

    def meet() -> None:
        barrier.wait(LONG)

    vm.register_tool("t", meet)
    assert (await vm.run(program(parallel(*(step(f"s{i}") for i in range(4)))))).ok


@pytest.mark.parametrize("threads", [0, -1, 1.5, "4", True, None])
def test_a_pool_has_a_whole_size(threads: Any) -> None:
    with pytest.raises(Exception, match="threads must be a positive integer"):
        ExecutionVM(threads=threads)


async def test_the_deadline_starts_when_a_thread_takes_the_call() -> None:
    class Clock:
        """One that only the tool moves, by as much as it takes."""

        now = 10**15
        sleep = staticmethod(asyncio.sleep)

        @classmethod
        def monotonic_ns(cls) -> int:
            return cls.now

        time_ns = monotonic_ns

    def work() -> str:
        Clock.now += 30 * 10**6
        return "done"

    vm = ExecutionVM(tools={"t": work}, threads=1, clock=Clock)
    one = program(step(timeout_seconds=0.055))  # three in a row take longer than that
    traces = await asyncio.gather(*(vm.run(one) for _ in range(3)))
    assert [t.final_output for t in traces] == ["done"] * 3


async def test_a_thread_that_outlives_its_deadline_stays_counted() -> None:
    release = threading.Event()

    def hang() -> None:
        release.wait(LONG)

    def quick() -> str:
        return "done"

    vm = ExecutionVM(tools={"t": tool(effect="read")(hang), "u": quick}, threads=1)
    late = await vm.run(program(step(timeout_seconds=SHORT)))
    assert late.error_kind == "timeout"
    waits = vm.start(program(step(tool="u")))
    await asyncio.sleep(SHORT)
    assert waits.status is TraceStatus.RUNNING  # the one thread is still held
    release.set()
    assert (await waits).final_output == "done"


async def test_a_timeout_while_waiting_for_a_thread_is_not_in_doubt() -> None:
    release = threading.Event()
    calls = []

    def hang() -> None:
        calls.append("hang")
        release.wait(LONG)

    def write() -> None:
        calls.append("write")

    vm = ExecutionVM(tools={"t": hang, "u": write}, threads=1)
    holder = vm.start(program(step()))
    await until(lambda: calls == ["hang"])
    late = await vm.run(program(step("b", "u"), budget={"max_seconds": SHORT}))
    waiting = vm.preparer.threads.work
    before = waiting.qsize()
    cancelled = vm.start(program(step("c", "u")))
    await until(lambda: waiting.qsize() > before)
    stopped = await cancelled.cancel()
    release.set()
    await holder
    # the pool still works, and the calls that were given up are not made
    await vm.run(program(step("d", "u")))
    assert (late.status, late.error_kind, statuses(late)) == (
        TraceStatus.FAILED,
        "budget",
        {"b": "failed"},
    )
    assert (stopped.status, statuses(stopped)) == (TraceStatus.CANCELLED, {"c": "cancelled"})
    assert calls == ["hang", "write"]


async def test_context_variables_are_seen_by_every_tool() -> None:
    user: contextvars.ContextVar[str] = contextvars.ContextVar("user")

    def plain() -> str:
        return user.get()

    async def coroutine() -> str:
        return user.get()

    vm = ExecutionVM(tools={"t": plain, "u": coroutine, "v": tool(inline=True)(lambda: plain())})
    one = program(step("a"), step("b", "u"), step("c", "v"), parallel(step("d"), step("e", "u")))

    async def run_as(name: str) -> list[Any]:
        user.set(name)
        return [s.output for s in (await vm.run(one)).steps if s.type == "tool"]

    assert await asyncio.gather(run_as("ann"), run_as("bob")) == [["ann"] * 5, ["bob"] * 5]


async def test_threads_are_reused_and_idle_ones_are_not_added_to() -> None:
    pool = Threads(8)
    for _ in range(50):
        await asyncio.wrap_future(pool.submit(lambda: None))
        await until(lambda: pool.idle == pool.count)
    assert pool.count == 1


@pytest.mark.slow
def test_a_hung_sync_tool_does_not_hold_the_interpreter() -> None:
    code = """
    import asyncio, time
    from nano_vm import ExecutionVM, Program, tool
    @tool(effect="read")
    def hang():
        time.sleep(600)
    vm = ExecutionVM(tools={"t": hang})
    program = Program.from_dict({"steps": [{"id": "a", "type": "tool", "tool": "t", "timeout_seconds": 0.02}]})
    print(vm.run_sync(program).error_kind)
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=300,  # and not the 600 for which the tool hangs
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "timeout\n", "")


# --- deadlines ------------------------------------------------------------------------------------


def test_there_is_a_deadline_by_default() -> None:
    async def work() -> None:
        pass

    vm = ExecutionVM(Model(work), tools={"t": work})
    ops = {
        op.step_id: op
        for op in vm.plan(program(step(), llm(), step("b", timeout_seconds=3))).ops
        if op.step_id
    }
    assert [ops[name].timeout_ns for name in ("a", "m", "b")] == [
        60 * 10**9,
        120 * 10**9,
        3 * 10**9,
    ]
    ops = {
        op.step_id: op
        for op in vm.plan(program(step(), llm(), defaults={"timeout_seconds": 7})).ops
        if op.step_id
    }
    assert [ops[name].timeout_ns for name in ("a", "m")] == [7 * 10**9] * 2


@pytest.mark.parametrize("seconds", [0.001, 0.02, 0.05, 3600])
@pytest.mark.parametrize("where", ["tool", "model"])
@virtual
async def test_a_deadline_is_kept(seconds: float, where: str) -> None:
    hang = Hang(seconds=2 * seconds)
    vm = virtual_vm(Model(hang), tools={"t": hang})
    one = {"tool": step(timeout_seconds=seconds), "model": llm(timeout_seconds=seconds)}
    began = now()
    trace = await vm.run(program(one[where]))
    assert (trace.status, trace.error_kind) == (TraceStatus.FAILED, "timeout")
    assert now() - began == pytest.approx(seconds)
    assert f"within {seconds:g} s" in (trace.error or "")


@pytest.mark.parametrize("seconds", [0.001, 0.02, 0.05])
async def test_a_deadline_is_kept_where_a_thread_hangs(seconds: float) -> None:
    release = threading.Event()

    @tool(effect="read")
    def block() -> None:
        release.wait(LONG)

    began = time.monotonic()
    trace = await ExecutionVM(tools={"t": block}).run(program(step(timeout_seconds=seconds)))
    assert seconds <= time.monotonic() - began < LONG
    release.set()
    assert (trace.status, trace.error_kind) == (TraceStatus.FAILED, "timeout")
    assert f"within {seconds:g} s" in (trace.error or "")


@pytest.mark.slow
@virtual
async def test_deadlines_of_many_runs_that_began_at_different_times() -> None:
    hang = Hang()
    vm = virtual_vm(tools={"t": hang})

    async def one(seconds: float) -> float:
        await asyncio.sleep(seconds / 3)
        began = now()
        trace = await vm.run(program(step(timeout_seconds=seconds)))
        assert trace.error_kind == "timeout"
        return now() - began - seconds

    late = await asyncio.gather(*(one(0.005 + i * 0.0005) for i in range(80)))
    assert min(late) > -1e-8
    assert max(late) <= GRAIN + 1e-8


@virtual
async def test_each_attempt_has_its_own_deadline() -> None:
    hang = Hang()
    trace = await virtual_vm(tools={"t": hang}).run(
        program(step(timeout_seconds=0.01, max_retries=3, retry={"delay_seconds": 0}))
    )
    assert (trace.error_kind, trace.steps[0].retries, hang.begun, hang.cancelled) == (
        "timeout",
        2,
        3,
        3,
    )
    assert [a.error.kind for a in trace.steps[0].attempts] == ["timeout"] * 2


def composite(kind: str, *inner: dict[str, Any], seconds: float, **fields: Any) -> dict[str, Any]:
    match kind:
        case "parallel":
            return parallel(list(inner), timeout_seconds=seconds, id="c", **fields)
        case "parallel of two":
            return parallel(
                list(inner), step("beside", "u"), timeout_seconds=seconds, id="c", **fields
            )
        case "map":
            own = {"over": [1, 2], "steps": list(inner)}
            return {"id": "c", "type": "map", "timeout_seconds": seconds, **own, **fields}
        case "call":
            return {
                "id": "c",
                "type": "call",
                "program": {"steps": list(inner)},
                "timeout_seconds": seconds,
                **fields,
            }
    own = {"max_iterations": 2, "on_exhausted": "continue", "steps": list(inner)}
    return {"id": "c", "type": "loop", "timeout_seconds": seconds, **own, **fields}


KINDS = ["parallel", "parallel of two", "map", "call", "loop"]


@pytest.mark.parametrize("kind", KINDS)
@virtual
async def test_the_deadline_of_a_composite_step_covers_the_whole(kind: str) -> None:
    hang = Hang()
    calls = []

    async def quick() -> None:
        calls.append(1)

    vm = virtual_vm(tools={"t": hang, "u": quick})
    began = now()
    inner = step("x", max_retries=3, retry={"delay_seconds": 0})
    trace = await vm.run(program(composite(kind, inner, seconds=SHORT), step("after", "u")))
    assert SHORT <= now() - began <= SHORT + GRAIN + 1e-8
    assert (trace.status, trace.error_kind) == (TraceStatus.FAILED, "timeout")
    assert hang.begun == hang.cancelled  # no further attempt after the deadline of the whole
    assert hang.begun <= 2
    assert f"{SHORT:g} s" in (trace.error or "") or "in time" in (trace.error or "")
    assert "after" not in statuses(trace)


@pytest.mark.parametrize("kind", KINDS)
@virtual
async def test_a_composite_that_is_late_can_be_caught_and_skipped(kind: str) -> None:
    hang = Hang()

    async def quick() -> str:
        return "went on"

    vm = virtual_vm(tools={"t": hang, "u": quick})
    for handler in ({"catch": [{"errors": ["timeout"], "next": "after"}]}, {"on_error": "skip"}):
        trace = await vm.run(
            program(composite(kind, step("x"), seconds=0.01, **handler), step("after", "u"))
        )
        assert (trace.status, trace.final_output) == (TraceStatus.SUCCESS, "went on"), trace.error


@pytest.mark.parametrize("kind", KINDS)
@virtual
async def test_a_composite_that_is_late_when_a_step_has_just_ended_fails_by_timeout(
    kind: str,
) -> None:
    """An inline tool holds the event loop beyond the deadline, so that nothing could be
    cancelled.
    """
    begun = []

    @tool(inline=True)
    def block() -> None:
        hold(0.03)

    @tool(inline=True)
    def quick() -> None:
        begun.append(1)

    vm = virtual_vm(tools={"t": block, "u": quick})
    trace = await vm.run(program(composite(kind, step("x"), step("y", "u"), seconds=0.01)))
    assert (trace.status, trace.error_kind) == (TraceStatus.FAILED, "timeout"), trace.error
    assert "c" in statuses(trace)


@pytest.mark.parametrize("kind", ["parallel", "map", "call"])
@virtual
async def test_the_deadline_of_a_loop_holds_inside_forks(kind: str) -> None:
    hang = Hang()
    inner = composite(kind, step("x", max_retries=3, retry={"delay_seconds": 0}), seconds=LONG)
    trace = await virtual_vm(tools={"t": hang, "u": hang}).run(
        program(
            {**composite("loop", inner, seconds=SHORT), "id": "l"}, budget={"max_seconds": LONG}
        )
    )
    assert (trace.status, trace.error_kind) == (TraceStatus.FAILED, "timeout"), trace.error
    assert f"within {60:g} s" not in (trace.error or "")
    assert hang.begun == hang.cancelled
    assert hang.begun <= 2


@virtual
async def test_the_deadline_of_a_loop_holds_inside_a_fork_whose_step_has_just_ended() -> None:
    @tool(inline=True)
    def block() -> None:
        hold(0.03)

    inner = parallel([step("x"), step("y")])
    trace = await virtual_vm(tools={"t": block}).run(
        program(composite("loop", inner, seconds=0.01))
    )
    assert (trace.status, trace.error_kind) == (TraceStatus.FAILED, "timeout")


@pytest.mark.parametrize("kind", KINDS)
@virtual
async def test_a_write_that_a_composite_deadline_interrupts_is_in_doubt(kind: str) -> None:
    hang = Hang("write")

    async def quick() -> None:
        pass

    trace = await virtual_vm(tools={"t": hang, "u": quick}).run(
        program(composite(kind, step("x"), seconds=SHORT, on_error="skip"))
    )
    assert trace.status is TraceStatus.SUSPENDED
    assert {entry["kind"] for entry in trace.waiting} == {"in_doubt"}


@virtual
async def test_max_seconds_covers_the_run() -> None:
    hang = Hang()
    vm = virtual_vm(tools={"t": hang})
    began = now()
    trace = await vm.run(program(step(on_error="skip"), step("b")), budget={"max_seconds": SHORT})
    assert SHORT <= now() - began <= SHORT + GRAIN + 1e-8
    assert (trace.status, trace.error_kind, statuses(trace)) == (
        TraceStatus.FAILED,
        "budget",
        {"a": "failed"},
    )
    assert "max_seconds" in (trace.error or "")


@virtual
async def test_a_write_that_max_seconds_interrupts_is_in_doubt() -> None:
    undone = []

    async def first() -> int:
        return 1

    async def undo() -> None:
        undone.append(1)

    tools = {"t": Hang("write"), "u": first, "undo": undo}
    steps = [step("first", "u", undo={"tool": "undo"}), step(on_error="skip")]
    vm = virtual_vm(tools=tools)
    for one in (
        program(*steps),
        program(steps[0], parallel(steps[1])),
        program(steps[0], parallel(steps[1], step("b", "u"))),
    ):
        trace = await vm.run(one, budget={"max_seconds": SHORT})
        assert trace.status is TraceStatus.SUSPENDED, trace.error
        assert [entry["kind"] for entry in trace.waiting] == ["in_doubt"]
    assert undone == []


@virtual
async def test_the_max_seconds_of_a_called_program() -> None:
    called = {"steps": [step("x")], "budget": {"max_seconds": SHORT}}
    one = program({"id": "c", "type": "call", "program": called})
    assert (await virtual_vm(tools={"t": Hang()}).run(one)).error_kind == "budget"
    trace = await virtual_vm(tools={"t": Hang("write")}).run(one)
    assert trace.status is TraceStatus.SUSPENDED, trace.error


@pytest.mark.parametrize("answer", ["value", "exception"])
@virtual
async def test_a_tool_that_swallows_its_cancellation_has_timed_out_all_the_same(
    answer: str,
) -> None:
    def then() -> str:
        if answer == "exception":
            raise RuntimeError("instead")
        return "late value"

    hang = Hang(then=then)
    trace = await virtual_vm(tools={"t": hang}).run(program(step(timeout_seconds=SHORT), step("b")))
    assert (trace.error_kind, statuses(trace)) == ("timeout", {"a": "failed"})
    doubtful = await virtual_vm(tools={"t": Hang("write", then=then)}).run(
        program(step(timeout_seconds=SHORT))
    )
    assert doubtful.status is TraceStatus.SUSPENDED


@virtual
async def test_a_model_that_swallows_its_cancellation_has_timed_out_all_the_same() -> None:
    trace = await virtual_vm(Model(Hang(then=lambda: "late"))).run(
        program(llm(timeout_seconds=SHORT))
    )
    assert trace.error_kind == "timeout"


@virtual
async def test_a_timeout_of_the_tools_own_is_a_timeout() -> None:
    @tool(effect="read")
    async def own() -> None:
        async with asyncio.timeout(0.005):
            await asyncio.sleep(LONG)

    trace = await virtual_vm(tools={"t": own}).run(program(step()))
    assert trace.error_kind == "timeout"
    write = await virtual_vm(tools={"t": tool(effect="write")(own)}).run(program(step()))
    assert write.status is TraceStatus.SUSPENDED


@virtual
async def test_a_run_that_cleans_up_after_a_cancellation_has_deadlines_of_its_own() -> None:
    """In an ``except CancelledError`` the task still counts as cancelling; a timeout there is a
    timeout.
    """
    vm = virtual_vm(tools={"t": Hang()})
    one = program(step(timeout_seconds=SHORT))
    traces = []

    async def user() -> None:
        try:
            await asyncio.sleep(LONG)
        except asyncio.CancelledError:
            traces.append(await vm.run(one))

    task = asyncio.create_task(user())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert [(t.status, t.error_kind) for t in traces] == [(TraceStatus.FAILED, "timeout")]


# --- cancellation ---------------------------------------------------------------------------------


class Ledger:
    """Tools that do and undo, and keep what they did."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def tools(self, **more: Any) -> dict[str, Any]:
        async def do(name: str) -> str:
            self.done.append(name)
            return name

        async def undo(name: str) -> None:
            self.done.append(f"-{name}")

        return {"do": do, "undo": undo, **more}

    @staticmethod
    def step(name: str) -> dict[str, Any]:
        return step(
            name,
            "do",
            args={"name": name},
            undo={"tool": "undo", "args": {"name": f"${name}.output"}},
        )


@virtual
async def test_cancelling_the_caller_undoes_and_cancels() -> None:
    ledger, hang = Ledger(), Hang()
    vm = virtual_vm(tools=ledger.tools(t=hang))
    task = asyncio.create_task(
        vm.run(program(ledger.step("x"), ledger.step("y"), step(), ledger.step("z")))
    )
    await hang.started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ledger.done == ["x", "y", "-y", "-x"]
    assert hang.cancelled == 1


@virtual
async def test_a_handle_that_is_cancelled_gives_the_trace() -> None:
    ledger, hang = Ledger(), Hang()
    handle = virtual_vm(tools=ledger.tools(t=hang)).start(
        program(
            ledger.step("x"),
            step(on_error="skip", catch=[{"errors": ["*"], "next": "b"}]),
            step("b"),
        )
    )
    await hang.started.wait()
    assert handle.status is TraceStatus.RUNNING
    trace = await handle.cancel()
    assert (trace.status, trace.error_kind, handle.status) == (
        TraceStatus.CANCELLED,
        "cancelled",
        TraceStatus.CANCELLED,
    )
    assert statuses(trace) == {"x": "success", "a": "cancelled", "x/undo": "success"}
    assert await handle.cancel() is trace
    assert await handle is trace
    assert trace.finished_at is not None


@virtual
async def test_a_run_that_is_cancelled_before_it_began_is_cancelled() -> None:
    hang = Hang()
    handle = virtual_vm(tools={"t": hang}).start(program(step()))
    trace = await handle.cancel()
    assert (trace.status, trace.steps, hang.begun) == (TraceStatus.CANCELLED, [], 0)
    assert trace.error is not None
    assert trace.finished_at is not None
    assert Trace.from_json(trace.to_json()).digest == trace.digest


@virtual
async def test_cancelling_a_run_that_has_ended_changes_nothing() -> None:
    async def quick() -> int:
        return 1

    handle = virtual_vm(tools={"t": quick}).start(program(step()))
    trace = await handle
    assert await handle.cancel() is trace
    assert trace.ok


@virtual
async def test_asyncio_timeout_around_a_run() -> None:
    ledger, hang = Ledger(), Hang()
    vm = virtual_vm(tools=ledger.tools(t=hang))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(SHORT):
            await vm.run(program(ledger.step("x"), step()))
    assert ledger.done == ["x", "-x"]
    assert hang.cancelled == 1


@virtual
async def test_the_caller_of_a_run_with_an_id_is_cancelled_like_any_other() -> None:
    ledger, hang = Ledger(), Hang()
    vm = virtual_vm(tools=ledger.tools(t=hang))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(SHORT):
            await vm.run(program(ledger.step("x"), step()), run_id="r")
    assert hang.cancelled == 1
    assert ledger.done == ["x", "-x"]


@virtual
async def test_one_of_two_callers_of_a_run_may_leave_without_ending_it() -> None:
    go = asyncio.Event()

    waiting = []

    async def wait() -> str:
        waiting.append(1)
        await go.wait()
        return "done"

    vm = virtual_vm(tools={"t": wait})
    one = program(step())
    first, second = (asyncio.create_task(vm.run(one, run_id="r")) for _ in range(2))
    await until(lambda: len(waiting) == 1)
    await asyncio.sleep(1)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    go.set()
    assert (await second).final_output == "done"


NESTED = parallel(
    [step("one"), step("never")],
    {"id": "m", "type": "map", "over": [1, 2, 3], "max_concurrency": 2, "steps": [step("each")]},
    {
        "id": "c",
        "type": "call",
        "program": {"steps": [parallel(step("deep"), llm("talk"), id="q")]},
    },
)


@virtual
async def test_cancellation_reaches_every_tool_and_model_of_a_fork() -> None:
    hang, model = Hang(), Hang()
    handle = virtual_vm(Model(model), tools={"t": hang}).start(program(NESTED))
    await until(lambda: hang.begun == 4 and model.begun == 1)
    trace = await handle.cancel()
    assert trace.status is TraceStatus.CANCELLED
    assert (hang.begun, hang.cancelled, model.begun, model.cancelled) == (4, 4, 1, 1)
    assert statuses(trace) == {
        "p/one": "cancelled",
        "p/m[0]/each": "cancelled",
        "p/m[1]/each": "cancelled",
        "p/m": "cancelled",
        "p/c/q/deep": "cancelled",
        "p/c/q/talk": "cancelled",
        "p/c/q": "cancelled",
        "p/c": "cancelled",
        "p": "cancelled",
    }
    assert Trace.from_json(trace.to_json()).seal == trace.seal


@virtual
async def test_cancellation_reaches_a_caller_of_a_fork() -> None:
    hang, model = Hang(), Hang()
    task = asyncio.create_task(virtual_vm(Model(model), tools={"t": hang}).run(program(NESTED)))
    await until(lambda: hang.begun == 4 and model.begun == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (hang.cancelled, model.cancelled) == (4, 1)


@virtual
async def test_cancelled_in_the_moment_in_which_the_branches_end() -> None:
    """A cancellation that arrives when nothing is under way stops the run at the join."""
    for turns in range(8):
        calls = []

        async def two(name: str, calls: list[str] = calls) -> None:
            calls.append(name)
            await asyncio.sleep(0)

        vm = virtual_vm(tools={"t": two})
        branches = parallel(step("x", args={"name": "x"}), step("y", args={"name": "y"}))
        handle = vm.start(
            program(branches, *(step(f"after{i}", args={"name": f"after{i}"}) for i in range(9)))
        )
        for _ in range(turns):
            await asyncio.sleep(0)
        made = list(calls)
        trace = await handle.cancel()
        assert trace.status is TraceStatus.CANCELLED, (turns, statuses(trace))
        # branches may have been on their way
        assert [c for c in calls if c in made or c not in "xy"] == made, turns


@pytest.mark.parametrize("answer", ["value", "exception"])
@pytest.mark.parametrize("retry", [1, 3])
@virtual
async def test_a_tool_that_swallows_the_cancellation_does_not_save_the_run(
    answer: str, retry: int
) -> None:
    def then() -> str:
        if answer == "exception":
            raise RuntimeError("instead")
        return "late value"

    ledger, hang = Ledger(), Hang(then=then)
    vm = virtual_vm(tools=ledger.tools(t=hang))
    one = program(
        ledger.step("x"), step(max_retries=retry, retry={"delay_seconds": 0}), ledger.step("after")
    )
    handle = vm.start(one)
    await hang.started.wait()
    trace = await asyncio.wait_for(handle.cancel(), LONG)
    assert trace.status is TraceStatus.CANCELLED
    assert ledger.done == ["x", "-x"]
    assert hang.begun == 1


@virtual
async def test_a_model_that_swallows_the_cancellation_does_not_save_the_run() -> None:
    hang = Hang(then=lambda: "late")
    handle = virtual_vm(Model(hang)).start(program(llm(), llm("n")))
    await hang.started.wait()
    trace = await asyncio.wait_for(handle.cancel(), LONG)
    assert (trace.status, hang.begun) == (TraceStatus.CANCELLED, 1)


@pytest.mark.parametrize("way", ["tool", "branch", "model"])
@virtual
async def test_nor_does_the_last_step_which_is_undone_too(way: str) -> None:
    ledger, hang = Ledger(), Hang(then=lambda: "late")
    last = {
        "tool": step(undo={"tool": "undo", "args": {"name": "$a.output"}}),
        "branch": parallel(step(undo={"tool": "undo", "args": {"name": "$a.output"}})),
        "model": llm(),
    }[way]
    one = program(ledger.step("x"), last)
    handle = virtual_vm(Model(hang), tools=ledger.tools(t=hang)).start(one)
    await hang.started.wait()
    trace = await asyncio.wait_for(handle.cancel(), LONG)
    assert (trace.status, trace.output, hang.begun) == (TraceStatus.CANCELLED, None, 1)
    assert ledger.done == (["x", "-x"] if way == "model" else ["x", "-late", "-x"])
    assert replay(trace).identical


@pytest.mark.parametrize("concurrency", [1, 2, 5])
@virtual
async def test_items_that_swallow_the_cancellation_do_not_save_the_run(concurrency: int) -> None:
    hang = Hang(then=lambda: "late")
    items = {
        "id": "m",
        "type": "map",
        "over": [1, 2, 3, 4, 5],
        "max_concurrency": concurrency,
        "steps": [step("x")],
    }
    handle = virtual_vm(tools={"t": hang}).start(program(items, step("after")))
    await until(lambda: hang.begun == concurrency)
    trace = await asyncio.wait_for(handle.cancel(), LONG)
    assert (trace.status, hang.begun) == (TraceStatus.CANCELLED, concurrency)
    assert statuses(trace)["m"] == "cancelled"


@virtual
async def test_cancelled_in_the_wait_between_attempts() -> None:
    calls = []
    ledger = Ledger()

    async def fails() -> None:
        calls.append(1)
        raise ValueError("declined")

    vm = virtual_vm(tools=ledger.tools(t=fails))
    waits = {"delay_seconds": 1000, "max_delay_seconds": 1000}
    handle = vm.start(program(ledger.step("x"), step(max_retries=3, retry=waits)), seed=1)
    await until(lambda: bool(calls))
    await asyncio.sleep(1)
    trace = await handle.cancel()
    assert (trace.status, len(calls)) == (TraceStatus.CANCELLED, 1)
    # it had raised: nothing in doubt
    assert statuses(trace) == {"x": "success", "a": "cancelled", "x/undo": "success"}
    assert trace.steps[1].retries == 1


@virtual
async def test_cancelled_in_the_wait_after_an_unknown_outcome_is_in_doubt() -> None:
    calls = []

    async def lost(idempotency_key: str) -> None:
        calls.append(1)
        raise ConnectionResetError("gone")

    waits = {"delay_seconds": 1000, "max_delay_seconds": 1000}
    one = program(step(max_retries=3, retry=waits))
    handle = virtual_vm(tools={"t": lost}).start(one, seed=1)
    await until(lambda: bool(calls))
    await asyncio.sleep(1)
    trace = await handle.cancel()
    assert statuses(trace) == {"a": "in_doubt"}
    late = await virtual_vm(tools={"t": lost}).run(one, seed=1, budget={"max_seconds": SHORT})
    assert (late.status, statuses(late)) == (TraceStatus.SUSPENDED, {"a": "in_doubt"})


@virtual
async def test_undo_goes_on_when_it_is_cancelled_once_more() -> None:
    ledger, hang, slow = Ledger(), Hang(), Hang("write")
    vm = virtual_vm(tools=ledger.tools(t=hang, slow=slow))
    stubborn = step("s", "do", args={"name": "s"}, undo={"tool": "slow"})
    handle = vm.start(program(ledger.step("x"), stubborn, ledger.step("y"), step()))
    await hang.started.wait()
    ending = asyncio.create_task(handle.cancel())
    await slow.started.wait()
    assert ledger.done == ["x", "s", "y", "-y"]
    handle.task.cancel()  # type: ignore[union-attr]
    trace = await ending
    assert ledger.done == ["x", "s", "y", "-y", "-x"]
    assert trace.status is TraceStatus.CANCELLED
    assert "undo of 's' failed" in (trace.error or "")


@virtual
async def test_an_undo_that_passes_its_deadline_in_a_cancelled_run_says_so() -> None:
    ledger, hang, slow = Ledger(), Hang(), Hang("read")
    vm = virtual_vm(
        tools=ledger.tools(t=hang, slow=tool(effect="write", timeout_seconds=SHORT)(slow))
    )
    handle = vm.start(
        program(
            ledger.step("x"), step("s", "do", args={"name": "s"}, undo={"tool": "slow"}), step()
        )
    )
    await hang.started.wait()
    trace = await handle.cancel()
    assert ledger.done == ["x", "s", "-x"]
    assert trace.status is TraceStatus.CANCELLED
    failed = next(s for s in trace.steps if s.path == "s/undo")
    assert "TimeoutError" in (failed.error or "")


@virtual
async def test_a_cancelled_write_is_in_doubt_and_its_reconcile_is_asked() -> None:
    asked = []

    @tool(effect="read")
    async def find() -> dict[str, Any]:
        asked.append(1)
        return {"done": False}

    hang = Hang("write")
    vm = virtual_vm(tools={"t": hang, "find": find})
    plain = vm.start(program(step()))
    await hang.started.wait()
    trace = await plain.cancel()
    assert (trace.status, statuses(trace)) == (TraceStatus.CANCELLED, {"a": "in_doubt"})
    assert not trace.waiting, "nobody is asked what became of it"
    hang.started.clear()
    asking = vm.start(program(step(reconcile={"tool": "find"})))
    await hang.started.wait()
    trace = await asking.cancel()
    assert (trace.status, asked, hang.begun) == (TraceStatus.CANCELLED, [1], 2)
    assert statuses(trace)["a"] == "cancelled"  # it is known now that nothing happened


@virtual
async def test_the_caller_is_cancelled_also_where_the_run_ends_in_doubt() -> None:
    """A cancellation that arrives while a reconcile is asked: the trace may be suspended, the
    caller is cancelled.
    """
    slow = Hang("read")

    async def lost() -> None:
        raise ConnectionResetError

    vm = virtual_vm(tools={"t": lost, "find": slow})
    task = asyncio.create_task(vm.run(program(step(reconcile={"tool": "find"}))))
    await slow.started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@virtual
async def test_a_stream_that_is_left_early_cancels_its_run() -> None:
    ledger, hang = Ledger(), Hang()
    vm = virtual_vm(tools=ledger.tools(t=hang))
    stream = vm.stream(program(ledger.step("x"), step()))
    async with contextlib.aclosing(stream):  # type: ignore[type-var]
        async for event in stream:
            if event.step_id == "a":
                break
        await hang.started.wait()
    assert ledger.done == ["x", "-x"]
    assert hang.cancelled == 1


@virtual
async def test_a_consumer_of_a_stream_that_is_cancelled_cancels_its_run() -> None:
    hang = Hang()
    vm = virtual_vm(tools={"t": hang})

    async def consume() -> None:
        async for _ in vm.stream(program(step())):
            pass

    task = asyncio.create_task(consume())
    await hang.started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: hang.cancelled == 1)


# --- event loops ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_event_loop_is_not_held_after_its_runs() -> None:
    async def quick() -> int:
        return 1

    vm = ExecutionVM(tools={"t": quick})
    loops = []

    async def run() -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        await vm.run(program(step()))

    for _ in range(5):
        asyncio.run(run())
    gc.collect()
    assert sum(loop() is not None for loop in loops) <= 1  # the VM may know the last one


async def test_memory_of_ended_runs_is_freed() -> None:
    async def quick() -> list[int]:
        return [1]

    vm = ExecutionVM(tools={"t": quick})
    one = program(step(), parallel(step("b"), step("c")))
    trace = await vm.run(one)
    seen = weakref.ref(trace.recording)
    gc.disable()
    try:
        del trace
        assert seen() is None  # without the collector's help
    finally:
        gc.enable()


# --- adapters -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        None,
        b"x",
        5,
        ["x"],
        {"text": "x"},
        ("a",),
        ("a", {}, 1),
        (None, None),
        ("x", "usage"),
        ("x", [1]),
    ],
)
async def test_a_malformed_answer_is_a_clear_error_and_not_text(answer: Any) -> None:
    calls = []

    async def give() -> Any:
        calls.append(1)
        return answer

    trace = await ExecutionVM(Model(give)).run(
        program(llm(on_error="retry", retry={"delay_seconds": 0}))
    )
    assert (trace.status, trace.error_kind, len(calls)) == (TraceStatus.FAILED, "model", 1)
    assert "the adapter" in (trace.error or "")


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": -1},
        {"total_tokens": 1.5},
        {"completion_tokens": "3"},
        {"prompt_tokens": True},
        {"prompt_tokens": 2**63},
        {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 2**63},
        {"cost_usd": "much"},
        {"cost_usd": float("nan")},
        {"cost_usd": -1},
    ],
)
def test_malformed_usage_is_a_clear_error(usage: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="usage is malformed"):
        completed(("x", usage))


@pytest.mark.parametrize("counts", [(2**63, 0, 0), (-5, 0, 0), (1.5, 0, 0), (True, 0, 0)])
async def test_no_call_has_used_what_an_adapter_counts(counts: tuple[Any, ...]) -> None:
    used = LLMUsage(*counts)

    async def give() -> Any:
        return Completion("x", used)

    async def fail() -> Any:
        raise ModelError("down", usage=used)

    trace = await ExecutionVM(Model(give)).run(program(llm()))
    assert "usage is malformed" in str(trace.error)
    trace = await ExecutionVM(Model(fail)).run(program(llm()))
    assert trace.steps[0].usage is None, "nobody knows what it used"


def test_words_that_a_provider_says_of_itself_are_short_and_visible() -> None:
    odd = completed(Completion("x", None, "m\x00\ud800" + "n" * 10_000, "st\nop"))
    assert odd.model is not None
    assert odd.model.startswith("m\ufffd\\ud800nnn")
    assert len(odd.model) == MAX_WORD
    assert odd.finish_reason == "st\ufffdop"
    assert completed(Completion("x", None, "модель", "stop")).model == "модель"


def test_the_three_kinds_of_answer() -> None:
    assert completed("x") == Completion("x")
    assert completed(("x", None)) == Completion("x")
    assert completed(("x", {})) == Completion("x")
    usage = completed(("x", {"prompt_tokens": 2, "completion_tokens": 3, "cost_usd": 0.1})).usage
    assert usage is not None
    assert (usage.total_tokens, str(usage.cost_usd)) == (5, "0.1")
    assert completed(Completion("x", None, "m", "stop")).finish_reason == "stop"


@virtual
async def test_a_call_that_takes_its_time_to_stop_is_a_timeout_of_its_own() -> None:
    """The watchdog asks again after a second; what it takes back is as often as it asked."""

    async def slow_to_stop() -> None:
        try:
            await asyncio.sleep(LONG)
        finally:
            await asyncio.sleep(1.2)

    vm = virtual_vm(tools={"t": tool(effect="read")(slow_to_stop)})
    trace = await vm.run(program(step(timeout_seconds=SHORT)))
    assert (trace.status, trace.error_kind) == (TraceStatus.FAILED, "timeout")
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


# --- workers of a fork ----------------------------------------------------------------------------


@pytest.mark.parametrize("waits", [None, 0, 3, 39])
async def test_children_that_need_no_wait_share_a_task(waits: int | None) -> None:
    """Others begin when one has to wait: no more at a time than a map may have, in order."""
    begun: list[int] = []
    tasks: set[Any] = set()
    open_, most = 0, 0

    async def look(n: int) -> int:
        nonlocal open_, most
        begun.append(n)
        tasks.add(asyncio.current_task())
        open_ += 1
        most = max(most, open_)
        if waits is not None and n >= waits:
            await asyncio.sleep(0)
        open_ -= 1
        return n

    one = program(mapped(step(tool="look", args={"n": "$n"}), over=list(range(40)), **{"as": "n"}))
    trace = await ExecutionVM(tools={"look": look}).run(one)
    assert trace.final_output == list(range(40))
    assert begun == list(range(40))
    count = 40 - (waits or 0)
    assert len(tasks) == (1 if waits is None else min(count, MAP_CONCURRENCY) if count > 1 else 1)
    assert most == (1 if waits is None else min(count, MAP_CONCURRENCY))
    assert asyncio.current_task() not in tasks


async def test_a_worker_that_begins_alone_is_a_task_of_its_own() -> None:
    """Timeouts and context variables of a tool are those of its branch, also of the first one."""
    chosen: contextvars.ContextVar[str] = contextvars.ContextVar("chosen", default="outside")

    async def look(name: str) -> list[Any]:
        before = chosen.get()
        chosen.set(name)
        try:
            async with asyncio.timeout(0.001):
                await asyncio.sleep(60)
        except TimeoutError:
            return [before, chosen.get()]
        return []

    branches = [step(f"s{i}", tool="look", args={"name": f"n{i}"}) for i in range(3)]
    trace = await ExecutionVM(tools={"look": look}).run(program(parallel(*branches)))
    assert trace.final_output == {f"s{i}": ["outside", f"n{i}"] for i in range(3)}
    assert chosen.get() == "outside"


@pytest.mark.parametrize("turns", range(6))
async def test_a_fork_that_is_cancelled_while_its_workers_begin(turns: int) -> None:
    begun, ended = [], []

    async def look(n: int) -> int:
        begun.append(n)
        try:
            for _ in range(3):
                await asyncio.sleep(0)
        finally:
            ended.append(n)
        return n

    one = program(mapped(step(tool="look", args={"n": "$n"}), over=[1, 2, 3], **{"as": "n"}))
    handle = ExecutionVM(tools={"look": look}).start(one)
    for _ in range(turns):
        await asyncio.sleep(0)
    trace = await handle.cancel()
    assert trace.status is TraceStatus.CANCELLED
    assert sorted(begun) == sorted(ended)
    assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


class Opaque:
    """What has no JSON form, or one that is asked for once."""

    asked = 0

    def model_dump(self) -> dict[str, Any]:
        Opaque.asked += 1
        return {"fields": [1, 2]}


class Gone(BaseException):
    """No `Exception`: a tool's outcome all the same."""


OUTCOMES: dict[str, Callable[[], Any]] = {
    "text": lambda: "fine",
    "accents": lambda: "é" * 3_000,
    "long": lambda: "x" * 50_000,
    "surrogate": lambda: "\ud800",
    "number": lambda: 7,
    "large number": lambda: 1 << 90,
    "no number": lambda: float("nan"),
    "object": lambda: {"a": [1, {"b": None}]},
    "model": lambda: {"inner": Opaque()},
    "opaque": Opaque,
    "object of nothing": lambda: {"a": object()},
    "nothing": lambda: None,
    "error": lambda: raised(ValueError("no")),
    "base error": lambda: raised(Gone("gone")),
    "own cancellation": lambda: raised(asyncio.CancelledError()),
    "generator's end": lambda: raised(StopIteration("end")),
}


def raised(error: BaseException) -> Any:
    raise error


def in_one_call(**fields: Any) -> list[Any]:
    call = step(tool="t", args={"n": "$n"}, **fields)
    return [
        program(mapped(call, over=[0, 1, 2], **{"as": "n"}, on_item_error=how))
        for how in ("fail", "continue")
    ]


@pytest.mark.parametrize("kind", ["async", "inline"])
@pytest.mark.parametrize("name", OUTCOMES)
async def test_a_child_that_is_one_call_ends_as_one_that_is_watched(name: str, kind: str) -> None:
    """`stream` looks at every step, so that each child has a machine; `run` does not."""
    limits = Limits(state_bytes=120_000)
    for one in [*in_one_call(), *in_one_call(max_retries=1, retry={"delay_seconds": 0})]:
        seen = []
        for watched in (False, True):
            calls = []

            def sync(n: int, calls: list[int] = calls) -> Any:
                calls.append(n)
                return OUTCOMES[name]() if n == 1 or name == "long" else n

            async def tool_(n: int, sync: Any = sync) -> Any:
                return sync(n)

            function = tool(effect="read", inline=kind == "inline")(
                sync if kind == "inline" else tool_
            )
            vm = ExecutionVM(tools={"t": function}, limits=limits)
            if watched:
                trace = [event async for event in vm.stream(one, run_id="r")][-1].trace
            else:
                trace = await vm.run(one, run_id="r")
            seen.append((trace.digest, trace.status, trace.error, calls, statuses(trace)))
        assert seen[0] == seen[1]


@pytest.mark.slow
async def test_light_children_count_on_what_the_run_may_use() -> None:
    """Steps and values of items are counted as if each had a machine."""
    look = step("look", tool="t", args={"n": "$n"})
    for steps in range(1, 8):
        for state in (10_000, 31_000, 41_000, 60_000):
            limits = Limits(steps=steps, state_bytes=state)
            one = program(
                mapped(look, over=[0, 1, 2], **{"as": "n"}),
                step("b", args={"n": 1}),
                step("c", args={"n": 2}),
            )
            found = []
            for watched in (False, True):
                vm = ExecutionVM(tools={"t": lambda n: "x" * 10_000}, limits=limits)
                trace = (
                    [event async for event in vm.stream(one, run_id="r")][-1].trace
                    if watched
                    else await vm.run(one, run_id="r")
                )
                found.append((trace.digest, trace.error, statuses(trace)))
            assert found[0] == found[1]


@pytest.mark.parametrize("turns", range(8))
@pytest.mark.parametrize("swallows", [False, True])
async def test_a_light_child_is_cancelled_like_any_other(turns: int, swallows: bool) -> None:
    begun = []

    async def work(n: int) -> int:
        begun.append(n)
        try:
            for _ in range(2):
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            if not swallows:
                raise
        return n

    one = program(mapped(step(tool="t", args={"n": "$n"}), over=[1, 2, 3], **{"as": "n"}))
    handle = ExecutionVM(tools={"t": tool(effect="read")(work)}).start(one)
    for _ in range(turns):
        await asyncio.sleep(0)
    trace = await handle.cancel()
    expected = {"success"} if trace.ok else {"success", "cancelled"}
    assert trace.ok or trace.status is TraceStatus.CANCELLED
    assert set(statuses(trace).values()) <= expected
    assert len([path for path in statuses(trace) if "/" in path]) >= len(begun)


async def test_a_light_child_that_is_late_is_stopped_by_its_own_deadline() -> None:
    @tool(effect="read", timeout_seconds=0.01)
    async def slow(n: int) -> int:
        await asyncio.sleep(60 if n == 1 else 0)
        return n

    one = program(mapped(step(tool="t", args={"n": "$n"}), over=[0, 1, 2], **{"as": "n"}))
    trace = await ExecutionVM(tools={"t": slow}).run(one)
    assert trace.error_kind == "timeout"
    assert "no outcome within 0.01 s" in (trace.error or "")


LONE = "a\ud800"
UNWRITABLE = {
    "text": (LONE, {}),
    "label": (LONE, {"allowed_outputs": ["a", "b"], "max_retries": 2}),
    "label that is left": (LONE, {"allowed_outputs": ["a", "b"], "on_invalid": "b"}),
    "JSON": ('{"a": "\ud800"}', {"output_schema": {"type": "object"}}),
    "JSON with an escape": ('{"a": "\\ud800"}', {"output_schema": {"type": "object"}}),
    "words around JSON": ('{"a": 1} \ud800', {"output_schema": {"type": "object"}}),
    "thoughts": (f"<think>{LONE}</think>a", {"allowed_outputs": ["a"]}),
    "beside": (Completion("a", None, LONE, LONE, LONE), {}),
    "beside a label": (Completion("a", None, LONE, LONE, LONE), {"allowed_outputs": ["a"]}),
    "filtered": (Completion(LONE, None, "m", "refusal"), {}),
    "cut off": (Completion(LONE, None, "m", "length"), {}),
    "cut off and taken": (Completion(LONE, None, "m", "length"), {"on_truncated": "accept"}),
}


@pytest.mark.parametrize("name", UNWRITABLE)
async def test_an_answer_that_cannot_be_written_is_an_outcome_like_any_other(
    name: str, tmp_path: Path
) -> None:
    """Half of a character, as a provider's JSON may hold where an answer was cut off."""
    answer, fields = UNWRITABLE[name]
    vm = ExecutionVM(ScriptedLLM([answer] * 4), store=f"sqlite:///{tmp_path / 'runs.db'}")
    trace = await vm.run(program(llm(**fields)), run_id="r")
    kept = Trace.from_json(vm.load("r").to_json())
    vm.close()
    assert (kept.digest, kept.status, kept.error) == (trace.digest, trace.status, trace.error)
    assert (trace.steps[0].output, trace.error_kind) == {
        "text": (None, "value"),
        "label": (None, "invalid_answer"),
        "label that is left": ("b", None),
        "JSON": (None, "invalid_answer"),
        "JSON with an escape": (None, "invalid_answer"),
        "words around JSON": ({"a": 1}, None),
        "thoughts": ("a", None),
        "beside": ("a", None),
        "beside a label": ("a", None),
        "filtered": (None, "filtered"),
        "cut off": (None, "truncated"),
        "cut off and taken": (None, "value"),
    }[name]


async def test_what_is_shown_where_such_an_answer_is_asked_again_can_be_sent() -> None:
    asked: list[Any] = []

    class Model:
        async def complete(self, messages: list[Any], **_: Any) -> str:
            asked.append(messages)
            return LONE if len(asked) == 1 else "a"

    trace = await ExecutionVM(Model()).run(program(llm(allowed_outputs=["a"])))
    assert trace.final_output == "a"
    assert [message["content"].encode().decode() for message in asked[1]][1] == "a\\ud800"
