"""The same run once more, with the same outcomes, in one process that nobody disturbs."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any

from nano_vm import Completion, ExecutionVM, Program, Trace, tool
from nano_vm.errors import StepFault
from nano_vm.records.status import StepStatus

from .programs import CALLED, EFFECTS, Broken, Flaky, key_of

TAKES_KEY = ("put", "charge", "refund", "book")


class LostCall(ConnectionError):
    """As if the connection had been lost: nobody knows what became of the call."""


class Resolved(StepFault):
    """A person said that the call failed."""

    kind = "tool"
    retryable = False


RAISED: dict[str, type[Exception]] = {
    "Flaky": Flaky,
    "Broken": Broken,
    "LostCall": LostCall,
    "Resolved": Resolved,
}


class Clock:
    """Time that passes when somebody waits."""

    def __init__(self) -> None:
        self.ahead = 0

    def monotonic_ns(self) -> int:
        return time.monotonic_ns() + self.ahead

    def time_ns(self) -> int:
        return time.time_ns() + self.ahead

    async def sleep(self, seconds: float) -> None:
        self.ahead += int(seconds * 1e9)
        await asyncio.sleep(0)


def script(trace: Trace) -> dict[str, deque[Any]]:
    """By key, what each call gives, one after the other; an exception is raised."""
    steps = {key_of(trace.run_id, step.path): step for step in trace.steps}
    found: dict[str, deque[Any]] = defaultdict(deque)
    for key, step in steps.items():
        if step.type not in ("tool", "llm"):
            continue
        outcomes = found[key]
        for attempt in step.attempts:
            outcomes.append(
                attempt.answer if attempt.answer is not None else error_of(str(attempt.error))
            )
        asked = sum(
            other == f"{key}/reconcile" or other.startswith(f"{key}/reconcile#") for other in steps
        )
        if asked > sum(isinstance(outcome, LostCall) for outcome in outcomes):
            outcomes.append(error_of("LostCall: the process that made the call is gone"))
        if step.status is StepStatus.SUCCESS:
            outcomes.append(step.extra.get("answer", step.output))
        elif step.error is not None:
            outcomes.append(error_of(step.error))
    return found


def error_of(text: str) -> Exception:
    """The exception that was recorded as *text*."""
    name, _, message = text.partition(": ")
    return RAISED[name](message)


class Stage:
    """A VM in memory whose tools and model give what they gave in the run that is told again."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.outcomes: dict[str, deque[Any]] = {}
        self.usages: dict[str, Any] = {}
        self.asked: dict[str, int] = {}
        tools = {name: self.scripted(name) for name in EFFECTS}
        self.vm = ExecutionVM(self, tools, programs=CALLED, store="sqlite://", clock=self.clock)

    model = "scripted"

    async def complete(self, messages: list[dict[str, str]], **_: Any) -> Completion:
        """As an adapter."""
        key = messages[-1]["content"].removeprefix("key ")
        return Completion(self.next_of(key), self.usages[key], "scripted", "stop")

    def next_of(self, key: str) -> Any:
        outcome = self.outcomes[key].popleft()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def scripted(self, name: str) -> Callable[..., Any]:
        async def plain(key: str) -> Any:
            return self.next_of(key)

        async def keyed(key: str, idempotency_key: str) -> Any:
            return self.next_of(key)

        async def asking(key: str) -> Any:
            number = self.asked[key] = self.asked.get(key, 0) + 1
            return self.next_of(f"{key}/reconcile" + (f"#{number}" if number > 1 else ""))

        function = asking if name.startswith("find") else keyed if name in TAKES_KEY else plain
        return (
            function
            if name in ("note", "unnote", "find_slowly")
            else tool(effect=EFFECTS[name])(function)
        )  # type: ignore[call-overload]

    def again(self, trace: Trace, program: Program) -> Trace:
        """The trace of an undisturbed run in which everything gives what it gave in *trace*."""
        self.outcomes, self.asked = script(trace), {}
        self.usages = {key_of(trace.run_id, step.path): step.usage for step in trace.steps}
        return asyncio.run(self.run(trace, program))

    async def run(self, trace: Trace, program: Program) -> Trace:
        vm = self.vm
        again = await vm.run(program, trace.inputs, run_id=trace.run_id)
        steps = {step.path: step for step in trace.steps}
        for _ in range(100):
            if again.status.value != "suspended":
                break
            for entry in vm.waiting(trace.run_id):
                step = steps.get(entry["path"])
                if step is None:
                    return again
                if step.status is StepStatus.CANCELLED:
                    return await vm.cancel(trace.run_id)
                if entry["kind"] == "approval":
                    output = step.output or {"approved": False, "reason": step.error}
                    decide = vm.approve if output["approved"] else vm.reject
                    decide(
                        trace.run_id,
                        entry["path"],
                        by="ann",
                        shown=entry["shown"],
                        reason=output["reason"],
                    )
                elif "event" in entry:
                    vm.send_event(trace.run_id, entry["event"], step.output)
            self.clock.ahead += 1_000_000_000
            again = await vm.resume(trace.run_id)
        return again
