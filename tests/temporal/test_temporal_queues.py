"""Calls that go to workers of another task queue: as a step says, a tool, a model, or a worker."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from typing import Any

import pytest
from build import llm, program, step

from nano_vm import ExecutionVM, TraceStatus, tool
from nano_vm.errors import ProgramError, VMError
from nano_vm.temporal import TemporalRuns, worker
from temporal.cluster import Server

NUMBERS = count(1)
READS = tool(effect="read")


class Places:
    """Where calls were made; hosts whose tools and models tell that."""

    def __init__(self) -> None:
        self.called: list[tuple[str, str]] = []

    def tool(self, place: str, name: str, **options: Any) -> Callable[..., Any]:
        async def call(x: Any = None) -> Any:
            self.called.append((place, name))
            if name == "fails":
                raise ValueError("no")
            return x

        return tool(**options)(call)

    def model(self, place: str, name: str, queue: str | None) -> Any:
        places = self

        class Model:
            model = name

            async def complete(self, messages: list[dict[str, Any]]) -> str:
                places.called.append((place, name))
                return "yes"

        made = Model()
        if queue is not None:
            made.queue = queue  # type: ignore[attr-defined]
        return made

    def host(self, place: str, options: Mapping[str, Mapping[str, Any]]) -> ExecutionVM:
        models = {name: options[name].get("queue") for name in options if name.startswith("m-")}
        return ExecutionVM(
            {name: self.model(place, name, queue) for name, queue in models.items()} or None,
            {
                name: self.tool(place, name, **options[name])
                for name in options
                if name not in models
            },
        )


@asynccontextmanager
async def cluster(
    server: Server, options: Mapping[str, Mapping[str, Any]], *names: str, **given: Any
) -> AsyncIterator[tuple[TemporalRuns, Places, str]]:
    """Workers of queues: the run's own, and those with *names*; and what their names end with."""
    client, places, end = await server.client(), Places(), f"-{next(NUMBERS)}"
    said = {
        name: {key: f"{value}{end}" if key == "queue" else value for key, value in one.items()}
        for name, one in options.items()
    }
    async with AsyncExitStack() as stack:
        for name in ("own", *names):
            own = given if name == "own" else {}
            if "queues" in own:
                own = {**own, "queues": {k: f"{v}{end}" for k, v in own["queues"].items()}}
            vm = places.host(name, said)
            await stack.enter_async_context(worker(client, vm, f"{name}{end}", **own))
        yield TemporalRuns(client, f"own{end}"), places, end


async def test_a_step_goes_where_it_says_else_where_its_worker_or_its_tool_or_model_does(
    temporal_server: Server,
) -> None:
    options = {
        "plain": {"effect": "read"},
        "bank": {"effect": "read", "queue": "bank"},
        "moved": {"effect": "read", "queue": "bank"},
        "m-gpu": {"queue": "gpu"},
        "m-near": {},
    }
    moved = {"queues": {"moved": "gpu"}}
    async with cluster(temporal_server, options, "bank", "gpu", **moved) as (runs, places, end):
        made = program(
            step("a", tool="plain"),
            step("b", tool="plain", queue=f"bank{end}"),
            step("c", tool="bank"),
            step("d", tool="bank", queue=f"gpu{end}"),
            step("e", tool="moved"),
            llm("f", model="m-gpu"),
            llm("g", model="m-near"),
            llm("h", model="m-near", queue=f"bank{end}"),
        )
        trace = await runs.run(made)
    assert trace.status is TraceStatus.SUCCESS
    assert [place for place, _ in places.called] == [
        *("own", "bank", "bank", "gpu", "gpu"),
        *("gpu", "own", "bank"),
    ]


async def test_an_undo_goes_where_its_tool_says_else_where_its_step_does(
    temporal_server: Server,
) -> None:
    options: dict[str, dict[str, Any]] = {
        "pay": {},
        "back": {"queue": "bank"},
        "take": {},
        "fails": {"effect": "read"},
    }
    async with cluster(temporal_server, options, "bank", "gpu") as (runs, places, end):
        made = program(
            step("a", tool="pay", undo={"tool": "back"}, queue=f"gpu{end}"),
            step("b", tool="pay", undo={"tool": "take"}, queue=f"gpu{end}"),
            step("c", tool="fails"),
        )
        await runs.run(made)
    undone = [("gpu", "take"), ("bank", "back")]
    assert places.called == [("gpu", "pay"), ("gpu", "pay"), ("own", "fails"), *undone]


@pytest.mark.parametrize("what", ["a tool", "a model"])
async def test_a_call_to_a_queue_that_no_worker_polls_ends_and_says_so(
    temporal_server: Server, what: str
) -> None:
    options: dict[str, dict[str, Any]] = {"pay": {}, "m-near": {}}
    async with cluster(temporal_server, options, queue_seconds=0.3) as (runs, places, _):
        asks = llm("a", model="m-near") if what == "a model" else step("a", tool="pay")
        trace = await runs.run(program({**asks, "queue": "nobody"}))
        caught = {**asks, "queue": "nobody", "catch": [{"errors": ["NoWorker"], "next": "b"}]}
        goes_on = await runs.run(program(caught, step("b", tool="pay", args={"x": 1})))
    assert trace.status is TraceStatus.FAILED  # an effect is not in doubt: it was not made
    assert trace.error == (
        "Step 'a' failed: NoWorker: no worker has taken the call from task queue 'nobody' within "
        "0.3 s; start one: nano-vm work --queue nobody"
    )
    assert trace.error_kind == what.removeprefix("a ")
    assert goes_on.final_output == 1
    assert places.called == [("own", "pay")]


async def test_the_deadline_of_a_run_is_not_taken_for_a_queue_without_workers(
    temporal_server: Server,
) -> None:
    options: dict[str, dict[str, Any]] = {"pay": {"effect": "read"}}
    async with cluster(temporal_server, options, queue_seconds=30) as (runs, _, _):
        made = program(step("a", tool="pay", queue="nobody"), timeout_seconds=0.5)
        trace = await runs.run(made)
    assert trace.error_kind == "timeout"
    assert "NoWorker" not in (trace.error or "")


async def test_in_one_process_a_queue_says_nothing() -> None:
    async def read(x: int) -> int:
        return x

    vm = ExecutionVM(None, {"t": READS(read)})
    routed = await vm.run(program(step(args={"x": 1}, queue="bank")))
    assert routed.final_output == 1
    assert [one.output for one in routed.steps] == [1]


def test_a_queue_is_of_calls_only() -> None:
    with pytest.raises(ProgramError, match="'queue'"):
        program({"id": "c", "type": "set", "values": {"x": 1}, "queue": "bank"})
    with pytest.raises(ProgramError, match="write `queue`"):
        program(step(task_queue="bank"))
    for wrong in ("", 3):
        with pytest.raises(ProgramError, match="queue"):
            program(step(queue=wrong))
    with pytest.raises(VMError, match="the queue of a tool"):
        tool(queue=3)  # type: ignore[call-overload]
