"""The public API as users type it; checked by ``mypy --strict``, never run."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, assert_type

from nano_vm import (
    Budget,
    Completion,
    Diagnostic,
    Event,
    ExecutionVM,
    FilteredAnswer,
    Limits,
    LLMAdapter,
    LLMUsage,
    ModelError,
    OnError,
    OutcomeUnknown,
    Program,
    ProgramError,
    RateLimited,
    Run,
    RunFailed,
    Step,
    StepResult,
    StepStatus,
    StepType,
    ToolError,
    Trace,
    TraceStatus,
    VMError,
    tool,
)
from nano_vm.adapters import LiteLLMAdapter
from nano_vm.models import Program as ProgramOfModels
from nano_vm.run.options import RunOptions
from nano_vm.run.vm import ExecutionVM as VMOfModule
from nano_vm.store.protocol import RunFilter, RunPage
from nano_vm.testing import RecordedLLM, ScriptedLLM


class Simplest:
    async def complete(self, messages: list[dict[str, str]], **kwargs: Any) -> str:
        return "text"


class WithUsage:
    model = "m"

    async def complete(
        self, messages: list[dict[str, str]], **kwargs: Any
    ) -> tuple[str, dict[str, Any] | None]:
        return "text", {"prompt_tokens": 1}


class Full:
    async def complete(self, messages: list[dict[str, str]], **kwargs: Any) -> Completion:
        if kwargs:
            raise RateLimited("slow down", retry_after_seconds=3.0)
        if not messages:
            raise FilteredAnswer("blocked", usage=LLMUsage(1, 0, 1))
        raise ModelError(
            "bad key", status=401, retryable=False, usage={"prompt_tokens": 1}, answered=True
        )

    async def stream(
        self, messages: list[dict[str, str]], **kwargs: Any
    ) -> AsyncIterator[str | Completion]:
        yield "text"
        yield Completion(
            "text", LLMUsage(1, 2, 3, Decimal("0.1")), "m", "stop", reasoning="so it is"
        )

    def count_tokens(self, messages: list[dict[str, str]]) -> int:
        return len(messages)


adapters: list[LLMAdapter] = [
    Simplest(),
    WithUsage(),
    Full(),
    ScriptedLLM(["yes"]),
    RecordedLLM("x.jsonl", record=Full()),
]
adapters.append(LiteLLMAdapter("groq/llama-3.3-70b-versatile"))


@tool
async def plain(order_id: str) -> dict[str, Any]:
    return {"id": order_id}


@tool(effect="irreversible", timeout_seconds=5, name="refund")
async def issue_refund(order_id: str, amount: Decimal, *, idempotency_key: str) -> str:
    if not amount:
        raise ToolError("nothing to refund", retryable=False)
    raise OutcomeUnknown("no answer")


@tool(inline=True, effect="read")
def add(a: int, b: int = 1) -> int:
    return a + b


# a decorated function keeps its type
assert_type(add(1), int)


def programs() -> list[Program]:
    built = Program(
        name="p",
        steps=[Step(id="a", type=StepType.TOOL, tool="add", args={"a": 1}, on_error=OnError.RETRY)],
    )
    loaded = [
        Program.from_dict({"steps": []}),
        Program.from_yaml("steps: []"),
        Program.from_yaml("steps: []", file="p.yaml"),
        Program.from_json("{}"),
        Program.from_file("p.yaml"),
        ProgramOfModels.from_dict({}),
    ]
    assert_type(built.digest, str)
    assert_type(built.get_step("a"), Step | None)
    assert_type(built.warnings, tuple[Diagnostic, ...])
    assert_type(built.to_dict(), dict[str, Any])
    assert_type(Program.json_schema(), dict[str, Any])
    return [built, *loaded]


class Watching:
    def observe(self, event: Event) -> None:
        assert_type(event.run_id, str)
        assert_type(event.replayed, bool)


def host(mapping: Mapping[str, Program]) -> ExecutionVM:
    ExecutionVM()
    ExecutionVM(None, {"add": add})
    VMOfModule(llm=Simplest(), tools={"add": add, "refund": issue_refund, "give": lambda x: x})
    vm = ExecutionVM(
        {"small": Simplest(), "large": Full()},
        tools={"plain": plain},
        programs=mapping,
        prices={"small": ("0.15", "0.60"), "large": (1, 2.5), "other": (Decimal(1), Decimal(2))},
        budget=Budget(max_steps=60, max_cost_usd=0.05),
        limits=Limits(steps=100),
        threads=4,
        observers=[Watching()],
    )
    vm.register_tool("add", add)
    assert_type(vm.with_(tools={"add": add}, programs=mapping, store=None), ExecutionVM)
    assert_type(vm.with_(), ExecutionVM)
    assert_type(vm.check(programs()[0]), list[Diagnostic])
    assert_type(vm.plan(programs()[0]).explain(), str)
    return vm


async def runs(vm: ExecutionVM, program: Program) -> None:
    trace = await vm.run(program, context={"x": 1}, run_id="r", seed=7, budget={"max_tokens": 100})
    assert_type(trace, Trace)
    assert_type(vm.run_sync(program, {"x": 1}), Trace)
    options: RunOptions = {
        "untrusted": ["x"],
        "budget": Budget(max_steps=9),
        "labels": {"team": "billing"},
        "project": "eu",
        "submitter": "ann",
    }
    assert_type(await vm.run(program, **options), Trace)
    handle = vm.start(program, budget=Budget(max_seconds=3))
    assert_type(handle, Run)
    assert_type(handle.run_id, str)
    assert_type(handle.status, TraceStatus)
    assert_type(await handle, Trace)
    assert_type(await handle.result(), Trace)
    assert_type(await handle.cancel(), Trace)
    assert_type(vm.waiting("r"), list[dict[str, Any]])
    vm.approve("r", "ask", shown="3073ee8b0c41", by="ann")
    assert_type(await vm.inbox.aio.waiting("r"), list[dict[str, Any]])
    await vm.inbox.aio.approve("r", "ask", shown="3073ee8b0c41", by="ann", reason="so")
    assert_type(await vm.inbox.aio.send_event("paid", 5, run_id="r"), bool)
    assert_type(await vm.aio.load("r"), Trace)
    page = vm.runs(RunFilter(status=["pending", "running"], program="p"), size=20)
    assert_type(page, RunPage)
    assert_type(await vm.aio.runs(after=page.after), RunPage)
    assert_type(vm.send_event("r", "paid", {"sum": 5}, id="evt_1"), bool)
    assert_type(vm.send_event("paid", {"order": 7}), bool)
    assert_type(await vm.cancel("r", by="ann"), Trace)
    async for event in vm.stream(program, {"x": 1}, run_id="s"):
        assert_type(event, Event)
        assert_type(event.kind, str)
        assert_type(event.text, str | None)
    async with contextlib.aclosing(vm.stream(program)) as events:
        async for event in events:
            if event.kind == "text":
                break
    try:
        assert_type(trace.raise_for_status(), Trace)
    except RunFailed as failure:
        print(failure.trace)
    except ProgramError as error:
        assert_type(error.diagnostics, tuple[Diagnostic, ...])
    except VMError:
        raise


def reads(trace: Trace) -> None:
    assert_type(trace.status, TraceStatus)
    assert_type(trace.ok, bool)
    assert_type(trace.error, str | None)
    assert_type(trace.error_kind, str | None)
    assert_type(trace.steps, list[StepResult])
    assert_type(trace.total_tokens(), int)
    assert_type(trace.total_cost_usd(), Decimal | None)
    assert_type(trace.usage(), LLMUsage)
    assert_type(trace.duration_ms, float | None)
    assert_type(trace.started_at, datetime)
    assert_type(trace.finished_at, datetime | None)
    assert_type(trace.inputs, dict[str, Any])
    assert_type(trace.diagnostics, tuple[Diagnostic, ...])
    assert_type(trace.digest, str)
    assert_type(trace.seal, str)
    assert_type(trace.program_name, str)
    assert_type(trace.program_digest, str)
    assert_type(trace.run_id, str)
    assert_type(trace.to_json(indent=2), str)
    assert_type(trace.to_dict(), dict[str, Any])
    assert_type(Trace.from_json(trace.to_json()), Trace)
    for step in trace.steps:
        assert_type(step.step_id, str)
        assert_type(step.status, StepStatus)
        assert_type(step.error, str | None)
        assert_type(step.retries, int)
        assert_type(step.usage, LLMUsage | None)
        assert_type(step.duration_ms, float | None)
        assert_type(step.path, str)
        assert_type(step.branch, str | None)
    for diagnostic in trace.diagnostics:
        assert_type(diagnostic.code, str)
        assert_type(diagnostic.line, int | None)
        assert_type(diagnostic.hint, str | None)
