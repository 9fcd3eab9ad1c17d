"""One test's run: the real machine, with the answers that the test gives and a clock that it moves.

A `Subject` (program, contracts, policy) and a `Case` come in, the run's trace goes out. No model is
asked; a tool is called only where the test names it under ``real_tools``. Children of a fork run one
by one, and time passes where the run waits: so a run takes no time, and is the same each time.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from ..adapters.contract import answer_parts, completed
from ..adapters.scripted import FREE, counted
from ..diagnostics import Diagnostic
from ..diagnostics.diagnostic import summary
from ..explore.tree import assumed
from ..language.correlation import fits
from ..language.flow import Flow
from ..language.policy import Policy, tightest
from ..language.program import Program
from ..machine.compile import plan_of
from ..machine.faults import consumed, model_error, tool_error
from ..machine.machine import Machine, machine_of
from ..machine.outcome import Answer, Arrived, Decided, Failed, Outcome, Suspended, TimedOut, Value
from ..machine.pending import due_at
from ..machine.plan import FOREVER, ModelOp, Op, PauseOp, Plan, ToolOp
from ..machine.simulate import simulate
from ..machine.terms import RunTerms
from ..prices import Price, checked_price
from ..records.record import StepError
from ..records.recording import Recording
from ..records.status import TraceStatus
from ..records.trace import Trace
from ..run.inputs import admitted_inputs
from ..tools.contract import ToolContract, contract
from ..verify.examine import Examined, examine, placed_for
from .answers import Answers, Decides, Returns, TimesOut, Unanswered, answers_of
from .document import Case, moment_of

RUN_ID = "test"
SEED = 0
STARTS_AT = datetime(2026, 1, 1, tzinfo=UTC)
"""When a run begins, unless its test says another time."""

MODEL = "scripted"
"""The model of steps that name none."""


@dataclass(frozen=True)
class Subject:
    """A program as its tests run it; *functions* are its real tools, called on request only."""

    program: Program
    programs: Mapping[str, Program]
    functions: Mapping[str, Callable[..., Any]]
    policy: Policy | None = None
    prices: Mapping[str, Any] | None = None

    @cached_property
    def flow(self) -> Flow:
        """The program's graph."""
        return Flow(self.program, dict(self.programs))

    @cached_property
    def contracts(self) -> dict[str, ToolContract]:
        """Those of the real tools; of a tool that is not there nothing is known."""
        known = {name: contract(name, function) for name, function in self.functions.items()}
        return known if self.functions else assumed(self.flow, known)

    def examined(self, untrusted: tuple[str, ...] = ()) -> Examined:
        """What the static passes say, as for a run."""
        budget = self.program.budget
        return examine(
            self.flow,
            self.contracts,
            policy=self.policy,
            budget=budget,
            prices=self.priced,
            default_model=MODEL,
            untrusted=untrusted,
            more=self.program.warnings,
            thorough=False,
        )

    @cached_property
    def priced(self) -> dict[str, Price]:
        """Prices of models; what the test file does not price is free."""
        given = {
            (MODEL if name == "default" else name): checked_price(name, price)
            for name, price in (self.prices or {}).items()
        }
        return {**dict.fromkeys(_models(self.flow), FREE), MODEL: FREE, **given}


def _models(flow: Flow) -> list[str]:
    found = (getattr(node.step, "model", None) for node in flow.nodes)
    return [name for name in dict.fromkeys(found) if isinstance(name, str)]


@dataclass(slots=True)
class Ran:
    """A run of a test: its trace, the machine that made it (None where the program was refused), and
    what the run asked for in vain.
    """

    trace: Trace
    answers: Answers
    machine: Machine | None = None
    plan: Plan | None = None
    unanswered: str | None = None


def execute(subject: Subject, case: Case, inputs: Mapping[str, Any], real: frozenset[str]) -> Ran:
    """Run *case* on *inputs*; tools in *real* are called.

    Raises:
        ValueError: If an answer of the case is none, with its place.
    """
    answers = answers_of(case)
    examined = subject.examined(tuple(case.untrusted))
    errors = [d for d in examined.report.faults if d.severity == "error"]
    errors = placed_for(subject.program, subject.policy, errors)
    plan = None if errors else plan_of(subject.flow, examined.contracts, examined.checks)
    names = subject.flow.frames[0].names
    frame = plan.frames[0] if plan is not None else None
    known, faults = admitted_inputs(inputs, frame, names, plan.given if plan is not None else ())
    errors += [*faults, *examined.not_covered(known)]
    started = int((moment_of(case.starts_at or "") or STARTS_AT).timestamp() * 1e9)
    recording = Recording(
        subject.program.name,
        subject.flow.digest or subject.program,
        RUN_ID,
        SEED,
        0,
        base_ns=started,
        salt="00" * 16,
    )
    recording.inputs = known
    if plan is None or errors:
        return Ran(_refused(recording, errors), answers)
    budgets = [subject.program.budget, *(policy.budget for policy in examined.policies)]
    terms = RunTerms(
        budget=tightest([budget for budget in budgets if budget is not None]),
        prices=subject.priced,
        default_model=MODEL,
    )
    machine = machine_of(plan, known, terms, run_id=RUN_ID, seed=SEED)
    machine.now = 0
    recording.records, recording.ops = machine.records, plan.ops
    with asyncio.Runner() as runner:
        host = _Host(answers, plan, subject.functions, real, started, runner)
        unanswered = None
        try:
            simulate(machine, host.feed)
        except Unanswered as error:
            unanswered = str(error)
    machine.fill(recording)
    recording.finished_ns = machine.now
    return Ran(Trace(recording), answers, machine, plan, unanswered)


def _refused(recording: Recording, errors: list[Diagnostic]) -> Trace:
    recording.status = TraceStatus.FAILED
    recording.diagnostics = tuple(errors)
    recording.error, recording.error_kind = summary(errors), "refused"
    return Trace(recording)


class _Host:
    """What answers the machine of one run."""

    def __init__(
        self,
        answers: Answers,
        plan: Plan,
        functions: Mapping[str, Callable[..., Any]],
        real: frozenset[str],
        base_ns: int,
        runner: asyncio.Runner,
    ) -> None:
        self.answers = answers
        self.base_ns = base_ns
        self.runner = runner
        self.real = {
            number: calling.bound(functions[calling.tool])
            for number, calling in enumerate(plan.calls)
            if calling.tool in real and calling.tool in functions
        }

    def feed(self, machine: Machine, op: Op) -> Op:
        """The request after this one."""
        if isinstance(op, ToolOp):
            outcome = self.tool(machine, op)
        elif isinstance(op, ModelOp):
            outcome = self.model(machine, op)
        else:
            assert isinstance(op, PauseOp)
            outcome = self.pause(machine, op)
        following = machine.resume(outcome, machine.now)
        if machine.delay_seconds:  # the wait before another attempt, which a deadline may end
            due = machine.now + int(machine.delay_seconds * 1e9)
            machine.delay_seconds = 0.0
            machine.now = min(due, machine.deadline)
            if due >= machine.deadline:
                return machine.resume(TimedOut(called=False), machine.now)
        return following

    def tool(self, machine: Machine, op: ToolOp) -> Outcome:
        path = machine.path
        answer = self.answers.next("tools", path)
        if answer is None and op.number in self.real:
            return self.called(machine, op)
        if answer is None:
            raise Unanswered(
                f"{path!r} calls the tool {op.tool!r}, and the test gives no answer; write "
                f"tools: {{{path}: {{returns: ...}}}}, or name it under real_tools"
            )
        if isinstance(answer, TimesOut):
            return self.late(machine, op)
        if isinstance(answer, BaseException):
            return Failed(tool_error(op, answer))
        assert isinstance(answer, Returns)
        return Value(answer.value)

    def called(self, machine: Machine, op: ToolOp) -> Outcome:
        """What the real tool gives."""
        try:
            value = self.real[op.number](*machine.given)
            if inspect.isawaitable(value):
                value = self.runner.run(_awaited(value))
        except Exception as error:  # noqa: BLE001 - whatever a tool raises is its outcome
            machine.raised = error
            return Failed(tool_error(op, error))
        return Value(value)

    def model(self, machine: Machine, op: ModelOp) -> Outcome:
        answer = self.answers.next("models", machine.path)
        if answer is None:
            raise Unanswered(
                f"{machine.path!r} asks a model, and the test gives no answer; write "
                f"models: {{{op.step_id}: ...}}"
            )
        if isinstance(answer, TimesOut):
            return self.late(machine, op)
        if isinstance(answer, BaseException):
            return Failed(model_error(answer), consumed(answer))
        if isinstance(answer, str):
            answer = counted(answer, machine.messages, MODEL)
        return Answer(*answer_parts(completed(answer)))

    def pause(self, machine: Machine, op: PauseOp) -> Outcome:
        """What a person says, or what comes; nothing, where the test does not say."""
        answer = self.answers.next("approvals" if op.asks else "events", machine.path)
        request = machine.request
        if isinstance(answer, TimesOut):
            return self.late(machine, op)
        if isinstance(answer, Decides):
            return Decided(answer.approved, answer.reason, answer.by)
        if isinstance(answer, Returns):
            if not fits(answer.value, request.get("match")):
                raise Unanswered(
                    f"the event for {machine.path!r} lacks a value that the step matches: "
                    f"{request['match']}"
                )
            return Arrived(answer.value)
        try:
            due = None if op.asks else due_at(request, machine.reached_ns, self.base_ns)
        except ValueError as error:
            return Failed(StepError("value", "ExprError", str(error), retryable=False))
        if due is None:
            return Suspended()
        deadline = self.deadline(machine, op)
        machine.now = max(machine.now, min(due, deadline))
        return Arrived() if due <= deadline else TimedOut()

    def late(self, machine: Machine, op: Op) -> Outcome:
        """Time passes to the deadline of the request."""
        deadline = self.deadline(machine, op)
        if deadline >= FOREVER:
            raise Unanswered(f"{machine.path!r} cannot time out: it has no timeout_seconds")
        machine.now = max(machine.now, deadline)
        return TimedOut()

    @staticmethod
    def deadline(machine: Machine, op: Op) -> int:
        own: int = getattr(op, "timeout_ns", 0)
        begun = machine.reached_ns if isinstance(op, PauseOp) else machine.now
        return min(begun + own if own else FOREVER, machine.deadline)


async def _awaited(value: Any) -> Any:
    return await value
