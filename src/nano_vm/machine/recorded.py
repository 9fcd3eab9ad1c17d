"""Outcomes as they were recorded, handed to a machine again. No call is made, nothing is written.

Records come in; the requests of a machine are answered from them, so that it computes the same run
once more: to check it (`replay`), to resume it where it stopped (`run/durable/journal`), or to do without
calls what did not change (fork). Control flow is never taken from a record: only what came back
from outside is.

A record says how a step ended, and mostly that tells how its call did. Where it does not (a step in
doubt may stand for a timeout or a cancellation, a success for what a reconcile tool said) the
machine has kept the outcome beside it, as data. No message is read here for what it says: those of
the machine itself are taken as they were recorded (`worded`), however they are worded today.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any, Protocol, cast

from ..language.policy import EFFECTS
from ..language.semantics import OUTSIDE
from ..records.record import Attempt, Record, StepError
from ..records.status import StepStatus, TraceStatus
from ..records.usage import LLMUsage
from ..tools.contract import ToolContract
from ..values import error_named
from .faults import ONLY_NAMED, UNKNOWN_OUTCOME
from .machine import KEPT_ANSWER_CHARS, RESOLVED, SUCCESS, Machine
from .outcome import (
    LEGAL,
    Answer,
    Arrived,
    BadResult,
    Cancelled,
    Decided,
    Failed,
    Joined,
    NotCalled,
    Outcome,
    Suspended,
    TimedOut,
    Unknown,
    Value,
    outcome_of,
)
from .plan import DOUBT, END, FORK, MODEL, PAUSE, TOOL, ModelOp, Op, PauseOp, ToolOp

# in the order in which a record has them
_BESIDE = ("model", "finish_reason", "route", "cached", "cost_source", "priced_as", "reasoning")


class Unfit(Exception):
    """The record at ``path`` cannot be of the call that the machine asks for."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(why)
        self.path = path


class Missing(Exception):
    """A machine asks for a call at ``path`` that is not recorded."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


class Plain(Protocol):
    """What is kept of a call that was made once and gave a value, as nearly all: when and which,
    and all that its record says, for who asks for more.
    """

    finished_ns: int
    output: Any

    def record(self) -> Record:
        """All of it."""
        ...


class Recorded:
    """The records of a run by path; each answers its step, attempt by attempt. *base_ns* is
    subtracted from their times; *plain* are those of tools that no record was made of yet.

    With a *clock* outcomes come now, and not when they were recorded. With *reword* machines that
    are played take the words of their own errors from the records.
    """

    def __init__(
        self,
        records: Iterable[Record],
        base_ns: int = 0,
        *,
        clock: Callable[[], int] | None = None,
        reword: bool = False,
        plain: Mapping[str, Plain] | None = None,
    ) -> None:
        self.reword = reword
        self._by_path: dict[str, Record] = {}
        self._forks: dict[str, Record] = {}
        self._rest = plain or {}
        # of what succeeded at once: when, and what it gave
        self._plain: dict[str, Record | Plain] = {**self._rest}
        # to reword: records of steps with an error or an attempt, errors of frames that no step tells
        self._errors: dict[str, Record] = {}
        self._ends: dict[str, StepError] = {}
        by_path, at_once = self._by_path, self._plain
        for record in records:
            extra = record.extra
            if record.step.type in OUTSIDE:
                by_path[record.path] = record
                if record.status is SUCCESS and record.attempts is None and _plain_call(extra):
                    at_once[record.path] = record
            elif type(extra) is dict and "children" in extra:
                self._forks[record.path] = record
            if reword:
                self._note(record)
        self.base_ns = base_ns
        self.clock = clock
        self._attempt: dict[str, int] = {}
        self._ended: set[str] = set()  # steps whose last outcome was given
        self._asked: dict[str, int] = {}  # how often the reconcile of a step was answered

    def _note(self, record: Record) -> None:
        extra = record.extra
        if record.error is not None or record.attempts is not None or extra is not None:
            self._errors[record.path] = record
        if type(extra) is dict and "ends" in extra:
            self._ends |= {
                frame: StepError.from_dict(error) for frame, error in extra["ends"].items()
            }

    def record(self, path: str) -> Record | None:
        """What is recorded of the call at *path*."""
        found = self._by_path.get(path)
        if found is None and path in self._rest:
            found = self._by_path[path] = self._rest[path].record()
        return found

    def fork(self, path: str) -> Record | None:
        """What is recorded of the fork at *path*, with the records of its children."""
        return self._forks.get(path)

    def attach(self, machine: Machine) -> None:
        """Have *machine*, which was not started yet, and its children count as was counted and, with
        *reword*, word their errors as they are recorded.
        """
        machine.counted = self.counted
        if self.reword:
            machine.worded = self.worded

    def counted(self, path: str, attempt: int) -> int | None:
        """How many tokens the host counted in the prompt of an attempt, where that is recorded."""
        record = self.record(path)
        counts = _dict(record.extra).get("counted") if record is not None else None
        count = counts[attempt] if type(counts) is list and attempt < len(counts) else None
        return count if type(count) is int and count >= 0 else None

    def worded(self, path: str, attempts: int, error: StepError) -> StepError:
        """*error* of the step at *path* after so many *attempts*, or of the frame of that name: in
        the words that are recorded, if an error of this kind and class is.
        """
        record = self._errors.get(path)
        known = self._ends.get(path) if record is None else record.error
        if record is not None and attempts < len(record.attempts or ()):
            known = record.attempts[attempts].error  # type: ignore[index]
        elif record is not None and known is None and "on_invalid" in _dict(record.extra):
            known = replace(error, message=str(record.extra.get("reason", "")))
        if known is None or (known.kind, known.type) != (error.kind, error.type):
            return error
        return replace(error, message=known.message)

    def walk(
        self, machine: Machine, now: int, following: Callable[[Machine, Op], Op | None]
    ) -> list[Machine]:
        """Drive *machine* and its children as far as *following* gives the request after a call;
        all of them, in the order in which they began.
        """
        machines: list[Machine] = []

        def ended(one: Machine, now: int) -> bool:
            machines.append(one)
            op = one.start(now)
            while op.code != END:
                if op.code == FORK:
                    done = [
                        one.fork.ready(number) and ended(one.child(number), one.now)
                        for number in range(one.fork.size)
                    ]  # each that may begin, also behind one that waits
                    if not all(done):
                        return False
                    op = one.resume(Joined(), one.now)
                    continue
                after = following(one, op)
                if after is None:
                    return False
                op = after
            return True

        self.attach(machine)
        ended(machine, now)
        return machines

    def along(self, machine: Machine, op: Op) -> Op | None:
        """The first request from *op* on that takes a closer look, or has no record; None where
        that is *op*. Those before it are of tools and models that were called once and gave a
        value, as nearly all are: they are answered here, at the times that are recorded.
        """
        base, by_path, at_once = self.base_ns, self._by_path, self._plain
        following: Op | None = None
        machine.recorded = True
        while True:
            code = op.code
            if code == TOOL and op.reconcile is None and (op.quick or machine.side_call is None):  # type: ignore[attr-defined]
                known = at_once.get(machine.path)
                if known is None:
                    break
                machine.now = known.finished_ns - base
                op = following = machine.steps.send(known.output)
            elif code == MODEL and machine.handed is not None:
                record = by_path.get(machine.path)
                answer = _plain_answer(record) if record is not None else None
                if record is None or answer is None:
                    break
                machine.now = record.finished_ns - base
                op = following = machine.steps.send(answer)
            else:
                break
        machine.recorded = False
        return following

    def feed(self, machine: Machine, op: Op) -> Op | None:
        """The request that follows what the record of the requested call says; None where there is
        no record of it.

        Raises:
            Unfit: If the record is none that such a call can have.
        """
        path = machine.path
        record = self.record(path)
        if record is None and machine.side_call is None:
            return None
        try:
            if record is None:
                following = self._unasked(machine, op, path)
            else:
                following = self._fed(machine, op, path, record)
        except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
            if machine.broken:
                raise
            raise Unfit(path, f"its record cannot be read: {error_named(error)}") from error
        if following is not None:
            machine.delay_seconds = 0.0
        return following

    def left(self, path: str) -> bool:
        """Whether not every attempt of the step at *path* was taken yet, of a step that was
        begun.
        """
        record = self.record(path)
        assert record is not None
        return self._attempt.get(path, 0) < len(record.attempts or ()) or path not in self._ended

    def _fed(self, machine: Machine, op: Op, path: str, record: Record) -> Op | None:
        now = self._time(record.finished_ns)
        if op.code == DOUBT:
            return machine.resume(_resolved(machine, op, path, record), now)
        if op.code == PAUSE:
            return self._pause(machine, cast(PauseOp, op), path, record, now)
        if machine.side_call == "reconcile":
            owner, _, _ = path.rpartition("/")
            # asked before a crash, and what it said then may no longer be true
            if self.record(owner) is None:
                return None
            self._asked[owner] = self._asked.get(owner, 0) + 1
        refusal = self._lost(machine, op, path, record)
        if refusal is not None:
            self._ended.add(path)
            return machine.resume(Failed(refusal), now)
        attempts = record.attempts
        if attempts:
            number = self._attempt.get(path, 0)
            if number < len(attempts):
                self._attempt[path] = number + 1
                return self._tried(machine, op, path, attempts[number])
        self._ended.add(path)
        if op.code == MODEL:
            return self._model(machine, cast(ModelOp, op), path, record, now)
        return self._tool(machine, cast(ToolOp, op), path, record, now)

    def _lost(self, machine: Machine, op: Op, path: str, record: Record) -> StepError | None:
        """Count what a crash lost of the call, at its first attempt; the error, where nothing was
        left then.
        """
        extra = _dict(record.extra)
        if "lost" not in extra or path in self._attempt or path in self._ended:
            return None
        return machine.lose(op, extra["lost"], settled=extra.get("settled") is True)

    def _unasked(self, machine: Machine, op: Op, path: str) -> Op | None:
        """A reconcile tool that was not called has no record: the step's own tells it."""
        owner, _, _ = path.rpartition("/")
        record = self.record(owner) if machine.side_call == "reconcile" else None
        told = _dict(record.extra).get("reconcile") if record is not None else None
        if record is None or told is None:
            return None
        return machine.resume(
            _legal(machine, op, path, outcome_of(told)), self._time(record.finished_ns)
        )

    def _time(self, recorded_ns: int) -> int:
        return recorded_ns - self.base_ns if self.clock is None else self.clock()

    # --- attempts ---

    def _tried(self, machine: Machine, op: Op, path: str, attempt: Attempt) -> Op:
        """The outcome of an attempt that was followed by another."""
        now = self._time(attempt.finished_ns)
        error, beside = attempt.error, _billed(attempt)
        if attempt.answer is not None:
            if error.kind == "filtered":  # in the provider's words, which an attempt does not keep
                bad = BadResult(error, attempt.answer, attempt.usage, beside)
                return machine.resume(bad, now)
            if error.kind == "truncated":
                beside = {"finish_reason": "length", **(beside or {})}
            return _answered(machine, attempt.answer, error, attempt.usage, now, beside)
        error = replace(error, retryable=True)  # it was tried again
        if op.code == TOOL and op.reconcile is not None:  # type: ignore[attr-defined]
            told = self._next_reconcile(path)
            if (
                told is not None
                and told.finished_ns == attempt.finished_ns
                and _dict(told.output).get("done") is False
            ):
                # whatever its own error was: it was the answer of the reconcile tool that let it be
                # tried again
                return machine.resume(Unknown(error), self._time(told.started_ns))
        return machine.resume(Failed(error, attempt.usage, extra=beside), now)

    def _next_reconcile(self, path: str) -> Record | None:
        number = self._asked.get(path, 0) + 1
        return self.record(f"{path}/reconcile" if number == 1 else f"{path}/reconcile#{number}")

    # --- models ---

    def _model(self, machine: Machine, op: ModelOp, path: str, record: Record, now: int) -> Op:
        _, _, status, output, error, _, _, _, attempts, usage, extra = record
        extra = _dict(extra)
        if "outcome" in extra:
            return machine.resume(_kept(machine, op, path, extra), now)
        if status is StepStatus.CANCELLED:
            return machine.resume(Cancelled(), now)
        if attempts:
            usage = None if extra.get("unmetered") else last_usage(usage, attempts)
            if usage is not None and "last_cost_usd" in extra:
                usage = replace(usage, cost_usd=_amount(path, extra["last_cost_usd"]))
        told: dict[str, Any] = {key: extra[key] for key in _BESIDE if key in extra}
        if extra.get("on_invalid"):
            invalid = StepError("invalid_answer", "InvalidAnswer", str(extra.get("reason", "")))
            return _answered(machine, _text(path, extra["answer"]), invalid, usage, now, told)
        if error is None:
            text = extra.get("answer", output)
            return machine.resume(Answer(_text(path, text), usage, told), now)
        if error.kind in ("invalid_answer", *ONLY_NAMED) and "answer" in extra:
            return _answered(machine, _text(path, extra["answer"]), error, usage, now, told)
        failed = Failed(replace(error, retryable=False), usage, extra=told or None)
        return machine.resume(failed, now)

    # --- tools ---

    def _tool(self, machine: Machine, op: ToolOp, path: str, record: Record, now: int) -> Op:
        _, _, status, output, error, request, _, _, _, _, extra = record
        asked = self._next_reconcile(path) if op.reconcile is not None else None
        if "outcome" in _dict(extra):
            # it came before its reconcile was asked, and the record is of the end
            when = now if asked is None else self._time(asked.started_ns)
            return machine.resume(_kept(machine, op, path, extra), when)
        if asked is not None or status is StepStatus.IN_DOUBT:
            raise Unfit(
                path, "it does not say what came of the call, as records of this version do"
            )
        if status is StepStatus.SUSPENDED and machine.side_call != "reconcile":
            return machine.resume(Suspended(), now)
        if status is StepStatus.CANCELLED:
            return machine.resume(Cancelled(called=False), now)
        if error is None:
            if status is not SUCCESS:
                raise Unfit(path, f"it is {status.value} without an error")
            cached = _dict(extra).get("cached") is True
            return machine.resume(Value(output, cached), now)
        known = replace(error, retryable=False)
        if machine.side_call is not None:
            refused = machine.side_call == "undo" and not request and op.names
            return machine.resume(NotCalled(known) if refused else Failed(known), now)
        if request is None:
            return machine.resume(NotCalled(known), now)
        if op.unsafe and error.kind in UNKNOWN_OUTCOME:  # after a call it would be in doubt
            return machine.resume(TimedOut(called=False), now)
        return machine.resume(Failed(known), now)

    # --- pauses ---

    @staticmethod
    def _pause(machine: Machine, op: PauseOp, path: str, record: Record, now: int) -> Op:
        _, _, status, output, error, _, _, _, _, _, extra = record
        extra = _dict(extra)
        by = extra.get("by")
        if "outcome" in extra:
            return machine.resume(_kept(machine, op, path, extra), now)
        if status is StepStatus.SUSPENDED:
            return machine.resume(Suspended(), now)
        if status is StepStatus.CANCELLED:
            return machine.resume(Cancelled(), now)
        if error is None:
            if not op.asks:
                return machine.resume(Arrived(output), now)
            if type(output) is not dict or type(output.get("approved")) is not bool:
                raise Unfit(path, "it is no decision")
            return machine.resume(Decided(output["approved"], output.get("reason"), by), now)
        if error.kind in ("timeout", "budget") and by is None:
            return machine.resume(TimedOut(), now)
        return machine.resume(Failed(error, by=by), now)


def _resolved(machine: Machine, op: Op, path: str, record: Record) -> Outcome:
    """What somebody said of a call in doubt.

    Raises:
        Unfit: If the record is none that a call in doubt can have.
    """
    told = _dict(record.extra).get(RESOLVED)
    if told is not None:
        return _legal(machine, op, path, outcome_of(told))
    if record.status is SUCCESS:
        return Value(record.output)
    if record.status is not StepStatus.IN_DOUBT:
        raise Unfit(path, "it does not say what became of the call, which was in doubt")
    return Suspended()


def _kept(machine: Machine, op: Op, path: str, extra: Mapping[str, Any]) -> Outcome:
    """The outcome that is kept beside a record.

    Raises:
        Unfit: If such a request cannot have it.
    """
    return _legal(machine, op, path, outcome_of(extra["outcome"]))


def _legal(machine: Machine, op: Op, path: str, outcome: Outcome) -> Outcome:
    kind = machine.kind_of(op)
    if type(outcome) not in LEGAL[kind]:
        raise Unfit(path, f"{kind} cannot have the outcome {outcome!r}")
    return outcome


def _answered(
    machine: Machine,
    text: str,
    error: StepError,
    usage: LLMUsage | None,
    now: int,
    extra: dict[str, Any] | None,
) -> Op:
    """An invalid answer: judged again where all of it is known."""
    if len(text) < KEPT_ANSWER_CHARS:
        return machine.resume(Answer(text, usage, extra), now)
    return machine.resume(BadResult(replace(error, retryable=True), text, usage, extra=extra), now)


def _text(path: str, value: Any) -> str:
    if type(value) is not str:
        raise Unfit(path, "a model's answer is a string")
    return value


def _amount(path: str, value: Any) -> Decimal:
    try:
        return Decimal(value)
    except (ArithmeticError, TypeError, ValueError):
        raise Unfit(path, "what a call cost is an amount in dollars") from None


def _dict(extra: Any) -> dict[str, Any]:
    return extra if type(extra) is dict else {}


def _billed(attempt: Attempt) -> dict[str, Any] | None:
    """What stood beside an attempt when it was priced, which is not done again."""
    beside: dict[str, Any] = {} if attempt.route is None else {"route": attempt.route}
    if attempt.usage is not None and attempt.usage.cost_usd is not None:
        beside["cost_source"] = "recorded"
    return beside or None


def last_usage(total: LLMUsage | None, attempts: Iterable[Attempt]) -> LLMUsage | None:
    """What the last call consumed, where that was known: a record holds the sum of all attempts."""
    if total is None:
        return None
    known = [attempt.usage for attempt in attempts]
    before = sum((usage for usage in known if usage is not None), LLMUsage(cost_usd=Decimal(0)))
    return total - before


# --- frames ---------------------------------------------------------------------------------------


HELD = StepError(
    "refused", "ForkStopped", "the call is held back: it has an effect", retryable=False
)


def play(
    machine: Machine,
    recorded: Recorded,
    now: int,
    *,
    hold: bool = False,
    cancelled: bool = False,
) -> None:
    """Drive *machine*, to which *recorded* is attached, through all that is recorded.

    With *hold* calls that are not recorded are held: the frame waits there, and its siblings go on.
    *cancelled* says that the run was, which no record tells where its last step was done by then.

    Raises:
        Missing: At the first call that is not recorded, without *hold*.
        Unfit: At the first record that no such call can have.
    """
    op: Any = machine.start(now)
    while True:
        op = recorded.along(machine, op) or op
        code = op.code
        if code == END:
            if not cancelled or machine.status is not TraceStatus.SUCCESS:
                return
            op = machine.resume(Cancelled(called=False), machine.now)
            continue
        if code == FORK:
            op = _forked(machine, recorded, hold)
            continue
        following = recorded.feed(machine, op)
        if following is None:
            if not hold:
                raise Missing(machine.path)
            following = (
                machine.resume(Suspended(), machine.now)
                if machine.side_call is None or op.code == DOUBT
                else machine.resume(NotCalled(HELD), machine.now)
            )
        op = following


def _plain_call(extra: Mapping[str, Any] | None) -> bool:
    """Whether what is recorded beside a tool's success says nothing of its call."""
    return extra is None or (len(extra) == 1 and "when" in extra)


def _plain_answer(
    record: Record,
) -> tuple[str, LLMUsage | None, dict[str, Any] | None] | None:
    """What a model answered that was asked once and succeeded; None where more is to be said."""
    if record.status is not SUCCESS or record.error is not None or record.attempts is not None:
        return None
    text, usage, extra, told = record.output, record.usage, record.extra, None
    if extra is not None:
        if type(extra) is not dict:
            return None
        if len(extra) != 1 or "answer" not in extra:
            if not extra.keys() <= _PLAIN_ANSWER:
                return None
            told = {name: extra[name] for name in _BESIDE if name in extra} or None
        text = extra.get("answer", text)
    return (text, usage, told) if type(text) is str else None


_PLAIN_ANSWER = frozenset({*_BESIDE, "answer"})


def _forked(machine: Machine, recorded: Recorded, hold: bool) -> Op:
    """The children of a fork, those that began, one after the other; then its join, or that it was
    cancelled.
    """
    record = recorded.fork(machine.path)
    children = (record.children or ()) if record is not None else ()
    stopped = record is not None and record.status is StepStatus.CANCELLED
    latest = machine.now
    for number in range(machine.fork.size):
        told = children[number] if number < len(children) else ()
        # a child that began has a record at least of that it was cancelled
        if stopped and not told:
            continue
        if not machine.fork.ready(number):  # behind one that is held
            continue
        child = machine.child(number)
        play(
            child,
            recorded,
            _began(told) - recorded.base_ns if told else machine.now,
            hold=hold,
        )
        latest = max(latest, child.now)
    finished = record.finished_ns - recorded.base_ns if record is not None else latest
    return machine.resume(Cancelled(), finished) if stopped else machine.resume(Joined(), finished)


def _began(records: Sequence[Record]) -> int:
    """When a frame with these records began: its first may be a reconcile, which came later."""
    for record in records:
        if not record.step.step_id.endswith("/reconcile"):
            return record.started_ns
    return records[0].started_ns


# --- hosts ----------------------------------------------------------------------------------------


def contracts_of(about: Mapping[str, Any]) -> dict[str, ToolContract]:
    """The tools of a run, as far as they decide what it did; they take any arguments and cannot be
    called.

    Raises:
        ValueError: If *about* is not as `Trace.about` gives it.
    """
    tools = about.get("tools", {})
    if type(tools) is not dict:
        raise ValueError("'tools' is no object")
    found = {}
    for name, facts in tools.items():
        if type(facts) is not dict or facts.get("effect") not in EFFECTS:
            raise ValueError(f"tool {name!r} has no effect")
        found[name] = ToolContract(
            name,
            {},
            open=True,
            effect=facts["effect"],
            takes_key=facts.get("key") is True,
            how="inline",
        )
    return found
