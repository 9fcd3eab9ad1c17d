"""What observers are told of runs: in memory, stored, resumed, worked off, forked; and that nothing
they do reaches a run.
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from build import NOW, llm, mapped, parallel, program, step
from patience import HANGS_SECONDS
from soundness.campaign import drawn
from soundness.programs import KINDS, TOOLS, WORDS, draw_inputs

from nano_vm import Completion, Event, ExecutionVM, Program, ToolError, Trace, VMError, tool
from nano_vm.replay import fork
from nano_vm.run.observers import Notifier
from nano_vm.testing import ScriptedLLM

ASK = {"id": "ask", "type": "approval", "role": "boss", "show": {"what": "$a.output"}}
WHOLE = program(
    step("a", "read"),
    parallel(step("x", "read"), step("y", "write"), id="both"),
    mapped(step("z", "flaky", max_retries=3, retry=NOW), over=[1, 2], id="each"),
    ASK,
    llm("m", "$a.output"),
    step("w", "write"),
)


class Seen:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def observe(self, event: Event) -> None:
        self.events.append(event)

    def kinds(self, *, replayed: bool | None = None) -> list[tuple[str, str]]:
        return [(e.kind, e.path) for e in self.events if replayed in (None, e.replayed)]

    def of(self, kind: str) -> list[Event]:
        return [e for e in self.events if e.kind == kind]


class Hosts:
    """VMs over one database, each with an observer of its own."""

    def __init__(self, folder: Path) -> None:
        self.url = f"sqlite:///{folder / 'runs.db'}"
        self.made: list[ExecutionVM] = []
        self.reached = asyncio.Event()  # a call that hangs was made
        self.hanging: set[str] = set()
        self.called = Counter[str]()

    def tools(self) -> dict[str, Callable[..., Any]]:
        @tool(effect="read")
        async def read() -> str:
            return await self.call("read")

        @tool(effect="write")
        async def write() -> str:
            return await self.call("write")

        @tool(effect="read")
        async def flaky() -> str:
            await self.call("flaky")
            if self.called["flaky"] % 2:
                raise ValueError("once more")
            return "done"

        return {"read": read, "write": write, "flaky": flaky}

    async def call(self, name: str) -> str:
        self.called[name] += 1
        if name in self.hanging:
            self.reached.set()
            await asyncio.Event().wait()
        return name

    def vm(self, *, stored: bool = True, **options: Any) -> tuple[ExecutionVM, Seen]:
        seen = Seen()
        options.setdefault("observers", [seen])
        vm = ExecutionVM(
            ScriptedLLM({"": "yes"}), self.tools(), store=self.url if stored else None, **options
        )
        self.made.append(vm)
        return vm, seen


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    made = Hosts(tmp_path)
    yield made
    for vm in made.made:
        vm.close()


def finished(*observers: Seen) -> list[Any]:
    """What was told to have finished, and not as replayed."""
    return [
        e.result
        for seen in observers
        for e in seen.events
        if e.kind == "step_finished" and not e.replayed
    ]


def by_path(results: list[Any]) -> dict[str, Any]:
    """What came of steps, by their paths, each of which is there once."""
    assert len({result.path for result in results}) == len(results), results
    return {r.path: (r.status, r.output, r.error, r.attempts) for r in results}


async def test_a_run_is_told_from_its_start_to_its_end(hosts: Hosts) -> None:
    vm, seen = hosts.vm(stored=False)
    one = program(step("a", "flaky", max_retries=2, retry=NOW), llm("m"))
    trace = await vm.run(one, run_id="r")
    assert seen.kinds() == [
        ("run_started", ""),
        ("step_started", "a"),
        ("attempt_failed", "a"),
        ("step_finished", "a"),
        ("step_started", "m"),
        ("step_finished", "m"),
        ("run_finished", ""),
    ]
    assert {(e.run_id, e.replayed) for e in seen.events} == {("r", False)}
    assert seen.events[0].trace is seen.events[-1].trace is trace
    assert finished(seen) == trace.steps
    (attempt,) = [e.attempt for e in seen.of("attempt_failed")]
    assert (attempt,) == trace.steps[0].attempts
    assert [(e.step_id, e.type) for e in seen.of("step_started")] == [("a", "tool"), ("m", "llm")]


async def began(vm: ExecutionVM, how: str, one: Program) -> Trace:
    if how == "run":
        return await vm.run(one)
    if how == "run_sync":
        return await asyncio.to_thread(vm.run_sync, one)
    if how == "start":
        return await vm.start(one)
    if how == "stream":
        return [e async for e in vm.stream(one)][-1].trace  # type: ignore[no-any-return]
    if how == "run_many":
        (result,) = [result async for result in vm.run_many(one, [{}])]
        return result.trace
    await vm.submit(one)
    return (await vm.work(until_idle=True))[0]


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("how", ["run", "run_sync", "start", "stream", "run_many", "submit"])
async def test_however_a_run_begins_the_same_is_told(hosts: Hosts, how: str, stored: bool) -> None:
    if how == "submit" and not stored:
        return
    one = program(step("a", "read"), step("b", "flaky", max_retries=2, retry=NOW), llm("m"))
    vm, seen = hosts.vm(stored=stored)
    trace = await began(vm, how, one)
    assert trace.ok
    calls = [("step_started", "b"), ("attempt_failed", "b"), ("step_finished", "b")]
    assert seen.kinds(replayed=False) == [
        ("run_started", ""),
        ("step_started", "a"),
        ("step_finished", "a"),
        *calls,
        ("step_started", "m"),
        *([("text", "m")] if how == "stream" and ("text", "m") in seen.kinds() else []),
        ("step_finished", "m"),
        ("run_finished", ""),
    ]
    assert [e.trace.digest for e in seen.of("run_finished")] == [trace.digest]


async def test_a_run_that_waits_is_told_once_over_all_that_drive_it(hosts: Hosts) -> None:
    first, before = hosts.vm()
    trace = await first.run(WHOLE, run_id="r")
    assert before.kinds()[-2:] == [("step_suspended", "ask"), ("run_suspended", "")]
    assert before.events[-1].trace.waiting == trace.waiting
    first.approve("r", "ask", shown=trace.waiting[0]["shown"], by="ann")
    second, after = hosts.vm()
    ended = await second.resume("r")
    assert ended.ok, ended.error
    assert after.kinds()[0] == ("run_resumed", "")
    assert after.kinds(replayed=False) == [
        ("run_resumed", ""),
        ("step_finished", "ask"),
        ("step_started", "m"),
        ("step_finished", "m"),
        ("step_started", "w"),
        ("step_finished", "w"),
        ("run_finished", ""),
    ]
    stored = {result.path for result in finished(before)}
    assert len(before.of("attempt_failed")) == len({e.path for e in before.of("attempt_failed")})
    assert {e.path for e in after.of("step_finished") if e.replayed} == stored
    assert Counter(kind for kind, _ in after.kinds(replayed=True)) == {
        "step_finished": len(stored),
        "attempt_failed": 2,  # of the map's items, as before
    }
    assert by_path(finished(before, after)) == by_path(ended.steps)


@pytest.mark.parametrize("at", ["read", "write"])
async def test_what_a_worker_leaves_is_released_and_replayed_by_the_next(
    hosts: Hosts, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nano_vm.run.durable.worker.GRACE_SECONDS", 0.0)
    first, before = hosts.vm()
    steps = step("a", "flaky", max_retries=2, retry=NOW), step("b", at), step("c", "flaky")
    await first.submit(program(*steps), run_id="r")
    hosts.hanging.add(at)
    working = asyncio.create_task(first.work())
    await asyncio.wait_for(hosts.reached.wait(), HANGS_SECONDS)
    working.cancel()
    await asyncio.wait([working])
    assert before.kinds()[-2:] == [("step_started", "b"), ("run_released", "")]
    hosts.hanging.clear()
    hosts.called["flaky"] = 1  # the next call succeeds
    second, after = hosts.vm()
    (trace,) = await second.work(until_idle=True)
    assert after.kinds()[:3] == [
        ("run_resumed", ""),
        ("attempt_failed", "a"),
        ("step_finished", "a"),
    ]
    assert [e.path for e in after.events if e.replayed] == ["a", "a"]
    done = [s for s in trace.steps if s.status.value != "in_doubt"]
    assert by_path(finished(before, after)) == by_path(done)
    assert [e.path for e in after.of("step_suspended")] == (["b"] if at == "write" else [])


async def test_a_pending_run_is_started_and_not_resumed(hosts: Hosts) -> None:
    vm, seen = hosts.vm()
    await vm.submit(program(step("a", "read")), run_id="r")
    assert seen.events == []
    await vm.work(until_idle=True)
    assert seen.kinds()[0] == ("run_started", "")


async def test_who_joins_a_run_or_loads_it_is_told_nothing(hosts: Hosts) -> None:
    vm, seen = hosts.vm()
    one = program(step("a", "read"))
    await vm.run(one, run_id="r")
    told = list(seen.events)
    other, nothing = hosts.vm()
    await asyncio.gather(vm.run(one, run_id="r"), vm.resume("r"), other.run(one, run_id="r"))
    other.load("r")
    assert seen.events == told
    assert nothing.events == []


async def test_a_refused_run_has_only_an_end(hosts: Hosts) -> None:
    vm, seen = hosts.vm(stored=False)
    traces = [await vm.run(program(step("a", "nothing"))), await vm.start(program(step("a", "no")))]
    assert [(e.kind, e.trace) for e in seen.events] == [("run_finished", t) for t in traces]
    assert {trace.error_kind for trace in traces} == {"refused"}
    with pytest.raises(VMError):
        await hosts.vm()[0].submit(program(step("a", "nothing")))


async def test_a_cancelled_run_has_ended(hosts: Hosts) -> None:
    vm, seen = hosts.vm()
    hosts.hanging.add("read")
    run = vm.start(program(step("a", "read")), run_id="r")
    await asyncio.wait_for(hosts.reached.wait(), HANGS_SECONDS)
    await run.cancel()
    assert seen.kinds() == [
        ("run_started", ""),
        ("step_started", "a"),
        ("step_finished", "a"),
        ("run_finished", ""),
    ]
    assert seen.events[-1].trace.status.value == "cancelled"


class Raising:
    """Raises at one kind of event, and counts what it is told."""

    def __init__(self, at: str) -> None:
        self.at = at
        self.told = 0

    def observe(self, event: Event) -> None:
        self.told += 1
        if event.kind == self.at:
            raise RuntimeError("no room on the disk")


@pytest.mark.parametrize("stored", [False, True])
async def test_an_observer_that_raises_is_logged_once_and_left_out(
    hosts: Hosts, stored: bool, caplog: pytest.LogCaptureFixture
) -> None:
    raising, seen = Raising("step_started"), Seen()
    vm, _ = hosts.vm(stored=stored, observers=[raising, seen])
    one = program(step("a", "read"), step("b", "read"))
    with caplog.at_level(logging.ERROR, "nano_vm"):
        trace = await vm.run(one, run_id="r")
    assert trace.ok
    assert raising.told == 2
    assert len(seen.events) == 6
    (record,) = caplog.records
    assert "Raising raised at step_started of run r" in record.message
    assert "no room on the disk" in caplog.text
    await vm.run(one, run_id="s")  # each run anew
    assert raising.told == 4


@pytest.mark.parametrize("kind", ["run_started", "step_finished", "run_finished", "run_suspended"])
async def test_a_run_is_as_it_would_be_whatever_an_observer_raises(hosts: Hosts, kind: str) -> None:
    plain = await hosts.vm(observers=[])[0].run(WHOLE, run_id="plain")
    hosts.called.clear()
    observed = await hosts.vm(observers=[Raising(kind)])[0].run(WHOLE, run_id="seen")
    assert observed.digest == plain.digest
    assert observed.waiting == plain.waiting


async def test_without_observers_nothing_is_made_to_tell(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(*_: Any, **__: Any) -> Any:
        raise AssertionError("a notifier was made")

    monkeypatch.setattr(Notifier, "__init__", made)
    for stored in (False, True):
        vm, _ = hosts.vm(stored=stored, observers=[])
        assert (await vm.run(program(step("a", "read")))).ok
        assert (await vm.start(program(step("a", "read")))).ok


class Streaming:
    """A model that can stream, and says which way it was called."""

    def __init__(self) -> None:
        self.ways: list[str] = []

    async def complete(self, messages: list[dict[str, str]], **kwargs: Any) -> str:
        self.ways.append("complete")
        return "ab"

    async def stream(
        self, messages: list[dict[str, str]], **kwargs: Any
    ) -> AsyncIterator[str | Completion]:
        self.ways.append("stream")
        yield "a"
        yield "b"


async def test_observers_do_not_change_how_a_model_is_called() -> None:
    model, seen = Streaming(), Seen()
    vm = ExecutionVM(model, observers=[seen])
    await vm.run(program(llm()))
    assert (model.ways, seen.of("text")) == (["complete"], [])
    events = [e async for e in vm.stream(program(llm()))]
    assert model.ways == ["complete", "stream"]
    assert [e.text for e in events if e.kind == "text"] == ["a", "b"]


async def test_a_stream_gives_what_observers_are_told_of_steps(hosts: Hosts) -> None:
    vm, seen = hosts.vm()
    events = [e async for e in vm.stream(WHOLE, run_id="r")]
    assert events[:-1] == [e for e in seen.events if e.path]
    assert (events[-1].kind, events[-1].trace.status.value) == ("run_finished", "suspended")
    assert {e.run_id for e in events} == {"r"}


@pytest.mark.parametrize("kept", [False, True])
async def test_what_a_fork_takes_from_its_run_is_replayed(hosts: Hosts, kept: bool) -> None:
    vm, seen = hosts.vm()
    await vm.run(program(step("a", "read"), llm("m"), llm("n", "$m.output")), run_id="r")
    seen.events.clear()
    options = {"run_id": "f"} if kept else {}
    made = await fork(vm, "r", edit={"n": {"prompt": "another: $m.output"}}, **options)
    assert made.ok, made.error
    assert seen.kinds() == [
        ("run_started", ""),
        ("step_finished", "a"),
        ("step_finished", "m"),
        ("step_started", "n"),
        ("step_finished", "n"),
        ("run_finished", ""),
    ]
    assert [e.path for e in seen.events if e.replayed] == ["a", "m"]


class Async:
    async def observe(self, event: Event) -> None:
        """Nobody awaits it."""


class Generating:
    def observe(self, event: Event) -> Iterator[None]:
        yield


class Deaf:
    def observe(self) -> None:
        """Takes no event."""


class Greedy(Seen):
    def observe(self, event: Event, more: int) -> None:  # type: ignore[override]
        """Takes more than an event."""


class Misspelt(Seen):
    event_kinds = frozenset({"step_ended"})


class AsyncCall:
    class Call:
        async def __call__(self, event: Event) -> None:
            """Nobody awaits it."""

    observe = Call()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            [object()],
            r"^<object object at .*> is not an observer: it has no method observe\(event\)$",
        ),
        ([None], r"^None is not an observer"),
        ([Async()], r"^Async.observe\(\) is a coroutine function"),
        ([AsyncCall()], r"^AsyncCall.observe\(\) is a coroutine function"),
        ([Generating()], r"^Generating.observe\(\) is a generator"),
        ([Deaf()], r"^Deaf.observe\(\) cannot be called as observe\(event\)"),
        ([Greedy()], r"^Greedy.observe\(\) cannot be called as observe\(event\): missing.*more"),
        ([Misspelt()], r"^Misspelt.event_kinds is .*'step_ended'.*step_finished"),
        ([Seen], r"^observer Seen is a class; give an instance of it"),
        (Seen(), r"^observers is a list of observers, not <.*Seen object"),
        (Seen, r"^observers is a list of observers, not <class"),
        (7, r"^observers is a list of observers, not 7; write"),
        (None, r"^observers is a list of observers, not None"),
        ("log", r"^'l' is not an observer"),
    ],
)
def test_what_is_no_observer_is_refused(given: Any, message: str) -> None:
    with pytest.raises(VMError, match=message):
        ExecutionVM(observers=given)


class Throwing(Seen):
    """Raises what it is given, once it is told that a step began."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def observe(self, event: Event) -> None:
        super().observe(event)
        if event.kind == "step_started":
            raise self.error

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("not to be compared")

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    "error", [asyncio.CancelledError("a future's"), GeneratorExit(), BaseException("odd")]
)
@pytest.mark.parametrize("stored", [False, True])
async def test_whatever_an_observer_raises_is_no_cancellation_of_the_run(
    hosts: Hosts, error: BaseException, stored: bool, caplog: pytest.LogCaptureFixture
) -> None:
    throwing, seen = Throwing(error), Seen()
    vm, _ = hosts.vm(stored=stored, observers=[throwing, seen])
    with caplog.at_level(logging.ERROR, "nano_vm"):
        trace = await vm.run(program(step("a", "read"), step("b", "read")), run_id="r")
    assert trace.ok
    assert len(throwing.events) == 2
    assert len(seen.events) == 6
    assert "Throwing raised at step_started of run r" in caplog.text


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_the_end_of_the_process_is_the_observers_to_say(
    hosts: Hosts, error: type[BaseException]
) -> None:
    vm, _ = hosts.vm(stored=False, observers=[Throwing(error())])
    with pytest.raises(error):
        vm.run_sync(program(step("a", "read")))


async def test_an_observer_is_told_of_the_kinds_that_it_names(hosts: Hosts) -> None:
    class Some(Seen):
        event_kinds = frozenset({"step_finished", "run_finished"})

    some = Some()
    vm, _ = hosts.vm(stored=False, observers=[some])
    await vm.run(program(step("a", "flaky", max_retries=2, retry=NOW), llm("m")))
    assert some.kinds() == [("step_finished", "a"), ("step_finished", "m"), ("run_finished", "")]


async def test_an_event_names_what_is_called(hosts: Hosts) -> None:
    vm, seen = hosts.vm(stored=False)
    steps = step("a", "read"), llm("m"), parallel(step("x", "write"), id="both")
    await vm.run(program(*steps))
    assert {(e.path, e.target) for e in seen.events if e.path} == {
        ("a", "read"),
        ("m", "scripted"),
        ("both", ""),
        ("both/x", "write"),
    }
    named = ScriptedLLM({"": "yes"})
    seen.events.clear()
    by_name = ExecutionVM({"fast": named, "good": named}, observers=[seen])
    await by_name.run(program(llm("m"), llm("n", model="good")))
    assert {(e.path, e.target) for e in seen.events if e.path} == {("m", "fast"), ("n", "good")}


class Outcomes:
    """Tools and a model whose outcomes follow from a seed, the call and how often it was made."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.count = Counter[str]()

    def of(self, name: str, given: Any) -> Any:
        call = json.dumps([name, given], sort_keys=True, default=repr)
        self.count[call] += 1
        rng = Random(f"{self.seed} {call} {self.count[call]}")
        if rng.random() < 0.25:
            raise rng.choice((ValueError("no"), TimeoutError("slow"), ToolError("never")))
        return rng.choice({"look": [True, False], "sort": KINDS}.get(name) or [*WORDS, 7, [1, 2]])

    def tools(self) -> dict[str, Callable[..., Any]]:
        def made(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(function)
            def call(**given: Any) -> Any:
                return self.of(name, {k: v for k, v in given.items() if k != "idempotency_key"})

            return call

        return {name: made(name, function) for name, function in TOOLS.items()}

    async def complete(self, messages: list[dict[str, str]], **kwargs: Any) -> str:
        return str(self.of("llm", messages))


@pytest.mark.parametrize("seed", range(60))
async def test_of_any_program_each_step_is_told_once(seed: int) -> None:
    case = drawn(seed)
    if case is None:
        return
    inputs = draw_inputs(Random(seed), case.document)
    seen = Seen()
    plain, watched = Outcomes(seed), Outcomes(seed)
    expected = await ExecutionVM(plain, plain.tools()).run(case.program, inputs, seed=1)
    vm = ExecutionVM(watched, watched.tools(), observers=[seen])
    trace = await vm.run(case.program, inputs, seed=1)
    assert trace.digest == expected.digest
    told = Counter((e.path, e.result.status) for e in seen.events if e.result is not None)
    assert told == Counter((s.path, s.status) for s in trace.steps)
    last = "run_suspended" if trace.status.value == "suspended" else "run_finished"
    refused = trace.error_kind == "refused"
    assert [e.kind for e in seen.events if not e.path] == ([] if refused else ["run_started"]) + [
        last
    ]
    attempts = sum(len(s.attempts) for s in trace.steps)
    assert len(seen.of("attempt_failed")) == attempts
