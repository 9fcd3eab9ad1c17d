"""What a test expects, held against what its run did: each difference is a sentence with its place.

A `Ran` and an `Expected` come in; out come differences, none where the test passes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..diagnostics import Loc
from ..machine.plan import TOOL
from ..records.record import flattened, full
from ..records.result import StepResult
from ..records.status import StepStatus, TraceStatus
from ..tools.contract import IDEMPOTENCY_KEY
from ..values import canonical, short
from .document import Expected, ExpectedStep
from .execute import Ran

SHOWN = 200
"""Characters of a value in a difference."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that is not as expected; ``loc`` is where the expectation stands in its test."""

    loc: Loc
    message: str


def differences(expected: Expected, ran: Ran) -> Iterator[Difference]:
    """What *ran* did that is not *expected*. A run that ends badly is a difference unless the test
    says how it ends.
    """
    steps = ran.trace.steps
    yield from _end(expected, ran)
    yield from _way(expected, steps)
    for name, one in expected.steps.items():
        yield from _step(name, one, steps)
    yield from _calls(expected, ran)
    if expected.budget is not None:
        yield from _used(expected, ran)


def status_of(ran: Ran) -> str:
    """How the run ended; a program that does not run is refused."""
    refused = ran.machine is None
    return "refused" if refused else ran.trace.status.value


def _end(expected: Expected, ran: Ran) -> Iterator[Difference]:
    trace, status = ran.trace, status_of(ran)
    wanted, field = _wanted(expected)
    if status != wanted:
        why = f": {trace.error}" if trace.error else ""
        yield Difference((field,), f"expected {wanted}, and the run is {status}{why}")
        return
    if expected.says("output") and not same(expected.output, trace.final_output):
        yield Difference(("output",), unequal(expected.output, trace.final_output))
    if expected.error is not None and expected.error not in (trace.error or ""):
        message = f"expected an error with {expected.error!r}, and it is {trace.error!r}"
        yield Difference(("error",), message)
    if expected.error_kind is not None and expected.error_kind != trace.error_kind:
        yield Difference(("error_kind",), unequal(expected.error_kind, trace.error_kind))
    if expected.waiting is not None:
        waiting = [entry["path"] for entry in trace.waiting]
        if sorted(waiting) != sorted(expected.waiting):
            yield Difference(("waiting",), unequal(expected.waiting, waiting))
    if expected.diagnostics is not None:
        found = [d.code for d in trace.diagnostics]
        if sorted(set(found)) != sorted(set(expected.diagnostics)):
            message = f"{unequal(expected.diagnostics, found)}: {trace.error or 'no diagnostics'}"
            yield Difference(("diagnostics",), message)


def _wanted(expected: Expected) -> tuple[str, str]:
    """How the run is to end, and the field that says so, or of which it follows."""
    if expected.status is not None:
        return expected.status, "status"
    if expected.diagnostics:
        return "refused", "diagnostics"
    for field in ("error", "error_kind"):
        if getattr(expected, field) is not None:
            return TraceStatus.FAILED.value, field
    if expected.waiting:
        return TraceStatus.SUSPENDED.value, "waiting"
    return TraceStatus.SUCCESS.value, "status"


def _way(expected: Expected, steps: Sequence[StepResult]) -> Iterator[Difference]:
    paths = [step.path for step in steps]
    if expected.path is not None and paths != expected.path:
        at = next(
            (i for i, (a, b) in enumerate(zip(paths, expected.path, strict=False)) if a != b),
            min(len(paths), len(expected.path)),
        )
        here = f"{paths[at]!r}" if at < len(paths) else "its end"
        there = f"{expected.path[at]!r}" if at < len(expected.path) else "its end"
        message = f"expected {there} as step {at + 1} of the path, and it is {here}"
        yield Difference(("path",), f"{message}; the run went {', '.join(paths) or 'nowhere'}")
    for number, name in enumerate(expected.reached):
        if not any(_named(name, step) for step in steps):
            yield Difference(("reached", number), f"step {name!r} was not reached")
    for number, name in enumerate(expected.never):
        found = next((step for step in steps if _named(name, step)), None)
        if found is not None:
            yield Difference(("never", number), f"step {found.path!r} was reached")


def _named(name: str, step: StepResult) -> bool:
    """Whether *name* is the path of a finished step, or its id; one that was skipped was not
    reached.
    """
    skipped = step.status is StepStatus.SKIPPED and step.error is None
    return not skipped and name in (step.path, step.step_id)


def _step(name: str, one: ExpectedStep, steps: Sequence[StepResult]) -> Iterator[Difference]:
    found = [step for step in steps if step.path == name]
    found = found or [step for step in steps if step.step_id == name]
    loc = ("steps", name)
    if not found:
        yield Difference(loc, f"step {name!r} was not reached")
        return
    if len(found) > 1:
        paths = ", ".join(step.path for step in found)
        yield Difference(loc, f"step {name!r} has several paths, name one of them: {paths}")
        return
    step = found[0]
    has = {
        "status": step.status.value,
        "branch": step.branch,
        "error_kind": step.error_kind,
        "attempts": step.retries + 1,
    }
    for field, value in has.items():
        wanted = getattr(one, field)
        if wanted is not None and wanted != value:
            yield Difference((*loc, field), unequal(wanted, value))
    if one.says("output") and not same(one.output, step.output):
        yield Difference((*loc, "output"), unequal(one.output, step.output))
    if one.error is not None and one.error not in (step.error or ""):
        message = f"expected an error with {one.error!r}, and it is {step.error!r}"
        yield Difference((*loc, "error"), message)


def calls_of(ran: Ran) -> dict[str, list[dict[str, Any]]]:
    """The arguments of each tool call by tool, in the order in which they ended; each attempt is a
    call.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    if ran.machine is None or ran.plan is None:
        return found
    for record in flattened([full(one, ran.plan.ops) for one in ran.machine.records]):
        if record.step.code == TOOL and record.request is not None:
            asked = {k: v for k, v in record.asked().items() if k != IDEMPOTENCY_KEY}
            attempts = len(record.attempts or ()) + 1
            found.setdefault(record.step.tool, []).extend([asked] * attempts)
    return found


def _calls(expected: Expected, ran: Ran) -> Iterator[Difference]:
    found = calls_of(ran)
    for tool, wanted in expected.calls.items():
        made = found.get(tool, [])
        loc = ("calls", tool)
        count = wanted if isinstance(wanted, int) else len(wanted)
        if count != len(made):
            shown = f": {short(made)}" if made else ""
            message = f"expected {_times(count)}, and it was called {_times(len(made))}{shown}"
            yield Difference(loc, message)
        elif not isinstance(wanted, int):
            for number, (a, b) in enumerate(zip(wanted, made, strict=True)):
                if not same(a, b):
                    yield Difference((*loc, number), unequal(a, b))


def _times(count: int) -> str:
    return {0: "no call", 1: "one call"}.get(count, f"{count} calls")


def _used(expected: Expected, ran: Ran) -> Iterator[Difference]:
    """What the run used more of than it may."""
    trace, steps = ran.trace, ran.trace.steps
    cost = trace.total_cost_usd()
    used: Mapping[str, Any] = {
        "max_steps": len(steps),
        "max_llm_calls": sum(step.retries + 1 for step in steps if step.type == "llm"),
        "max_tool_calls": sum(len(calls) for calls in calls_of(ran).values()),
        "max_tokens": trace.total_tokens(),
        "max_cost_usd": None if cost is None else float(cost),
        "max_seconds": (ran.machine.now - ran.machine.waited_ns) / 1e9 if ran.machine else 0.0,
    }
    assert expected.budget is not None
    for name, most in expected.budget.model_dump(exclude_none=True).items():
        if used[name] is None or used[name] > most:
            said = "not known" if used[name] is None else f"{used[name]:g}"
            yield Difference(("budget", name), f"expected at most {most:g}, and it is {said}")


def same(a: Any, b: Any) -> bool:
    """Whether two values are equal as JSON, objects whatever the order of their keys."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    return bool(a == b)


def unequal(wanted: Any, found: Any) -> str:
    """The two values that should be one."""
    return f"expected {_shown(wanted)}, and it is {_shown(found)}"


def _shown(value: Any) -> str:
    text = canonical(value).decode()
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
