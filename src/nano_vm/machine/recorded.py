"""Outcomes as they were recorded, handed to a machine again. No call is made, nothing is written.

Records come in; the requests of a machine are answered from them, so that it computes the same run
once more: to check it (`replay`), to go on from where it stopped (`durable`), or to do without
calls what did not change (fork). Control flow is never taken from a record: only what came back
from outside is.

A record says how a step ended, and not how its call did: a step in doubt may stand for a timeout or
a cancellation, a success for what a reconcile tool told. What each record can only have come from
is said here, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, cast

from ..errors import VMError
from ..language.policy import EFFECTS, Budget, tightest
from ..language.semantics import OUTSIDE
from ..records.trace import Attempt, LLMUsage, Record, StepError, StepStatus
from ..tools.contract import ToolContract
from .faults import CANCELLED, ONLY_NAMED, UNKNOWN_OUTCOME
from .ledger import Limits, token_bound
from .machine import NOT_ASKED, Machine
from .outcome import (
    Answer,
    Arrived,
    BadResult,
    Cancelled,
    Decided,
    Failed,
    Joined,
    NotCalled,
    Suspended,
    TimedOut,
    Unknown,
    Value,
)
from .plan import END, FORK, MODEL, PAUSE, TOOL, ModelOp, Op, PauseOp, ToolOp

KEPT_ANSWER_CHARS = 10_000
"""Of an invalid answer a record keeps as much; a longer one can not be judged again."""

_BESIDE = ("model", "finish_reason", "cost_source", "reasoning")
_SPOILED = frozenset({"ValueRefused", "LimitExceeded"})
_NO_TOOL_CALL = "no tool call is left for another attempt (max_tool_calls)"
_NO_MODEL_CALL = "no model call is left for another attempt (max_llm_calls)"
_STATE_FULL = "the values of the run together are larger than its limit"
_UNASKED = "; its reconcile could not be asked: "


class Unfit(Exception):
    """The record at ``path`` can not be of the call that the machine asks for."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(why)
        self.path = path


class Missing(Exception):
    """A machine asks for a call at ``path`` that is not recorded."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


class Recorded:
    """The records of a run by path; each answers its step, attempt by attempt. *base_ns* is
    subtracted from their times.

    *stopped* are the paths at which a frame was cancelled (see `stops`): the last record of a frame
    that was cancelled while a call was in doubt does not tell it. *ended* says that the records are
    all there will be. With a *clock* outcomes come now, and not when they were recorded.
    """

    def __init__(
        self,
        records: Iterable[Record],
        base_ns: int = 0,
        *,
        stopped: Iterable[str] = (),
        ended: bool = False,
        clock: Callable[[], int] | None = None,
    ) -> None:
        self.by_path: dict[str, Record] = {
            record[1]: record for record in records if record[0].type in OUTSIDE
        }
        self.base_ns = base_ns
        self.stopped = frozenset(stopped)
        self.ended = ended
        self.clock = clock
        self._attempt: dict[str, int] = {}
        self._ended: set[str] = set()  # steps whose last outcome was given
        self._asked: dict[str, int] = {}  # how often the reconcile of a step was answered

    def feed(self, machine: Machine, op: Op) -> Op | None:
        """The request that follows what the record of the requested call says; None where there is
        no record of it.

        Raises:
            Unfit: If the record is none that such a call can have.
        """
        path = machine.path
        record = self.by_path.get(path)
        try:
            if record is None:
                following = self._unasked(machine, op, path)
            else:
                following = self._fed(machine, op, path, record)
        except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
            if machine.broken:
                raise
            raise Unfit(
                path, f"its record can not be read: {type(error).__name__}: {error}"
            ) from error
        machine.delay_seconds = 0.0
        return following

    def left(self, path: str) -> bool:
        """Whether not every attempt of the step at *path* was taken yet, of a step that was
        begun.
        """
        record = self.by_path[path]
        return self._attempt.get(path, 0) < len(record[8] or ()) or path not in self._ended

    def _fed(self, machine: Machine, op: Op, path: str, record: Record) -> Op | None:
        now = self._time(record[7])
        if op.code == PAUSE:
            return self._pause(machine, cast(PauseOp, op), path, record, now)
        if op.step_id.endswith("/reconcile"):
            owner, _, _ = path.rpartition("/")
            # asked before a crash, and what it said then may no longer be true
            if owner not in self.by_path:
                return None
            self._asked[owner] = self._asked.get(owner, 0) + 1
        refusal = self._lost(machine, op, path, record)
        if refusal is not None:
            self._ended.add(path)
            return machine.resume(Failed(refusal), now)
        if op.code == MODEL and machine.reserves:
            machine.reserve(token_bound(machine.messages))
        attempts = record[8]
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
        extra = _dict(record[10])
        if "lost" not in extra or path in self._attempt or path in self._ended:
            return None
        bound = token_bound(machine.messages) if op.code == MODEL else 0
        return machine.lose(op, extra["lost"], bound, settled=extra.get("settled") is True)

    def _unasked(self, machine: Machine, op: Op, path: str) -> Op | None:
        """A reconcile tool that could not be asked, since its arguments were refused: only the
        step's own record tells.
        """
        owner, _, last = path.rpartition("/")
        record = (
            self.by_path.get(owner)
            if last.startswith("reconcile") and op.step_id.endswith("/reconcile")
            else None
        )
        if record is None or record[2] is not StepStatus.IN_DOUBT or record[4] is None:
            return None
        _, found, why = record[4].message.rpartition(_UNASKED)
        if not found:
            return None
        return machine.resume(
            NotCalled(StepError("value", "ArgumentError", why, False)), self._time(record[7])
        )

    def _time(self, recorded_ns: int) -> int:
        return recorded_ns - self.base_ns if self.clock is None else self.clock()

    # --- attempts ---

    def _tried(self, machine: Machine, op: Op, path: str, attempt: Attempt) -> Op:
        """The outcome of an attempt that was followed by another."""
        now = self._time(attempt.finished_ns)
        error = attempt.error
        if attempt.answer is not None:
            if error.kind == "filtered":  # in the provider's words, which an attempt does not keep
                return machine.resume(BadResult(error, attempt.answer, attempt.usage), now)
            cut = {"finish_reason": "length"} if error.kind == "truncated" else None
            return _answered(machine, attempt.answer, error, attempt.usage, now, cut)
        error = replace(error, retryable=True)  # it was tried again
        if op.code == TOOL and op.reconcile is not None:  # type: ignore[attr-defined]
            told = self._next_reconcile(path)
            if (
                told is not None
                and told[7] == attempt.finished_ns
                and _dict(told[3]).get("done") is False
            ):
                # whatever its own error was: it was the answer of the reconcile tool that let it be tried again
                return machine.resume(Unknown(error), now)
        return machine.resume(Failed(error, attempt.usage), now)

    def _next_reconcile(self, path: str) -> Record | None:
        number = self._asked.get(path, 0) + 1
        return self.by_path.get(
            f"{path}/reconcile" if number == 1 else f"{path}/reconcile#{number}"
        )

    # --- models ---

    def _model(self, machine: Machine, op: ModelOp, path: str, record: Record, now: int) -> Op:
        _, _, status, output, error, _, _, _, attempts, usage, extra = record
        extra = _dict(extra)
        if status is StepStatus.CANCELLED:
            return machine.resume(Cancelled(), now)
        if attempts:
            usage = None if extra.get("unmetered") else last_usage(usage, attempts)
        told: dict[str, Any] = {key: extra[key] for key in _BESIDE if key in extra}
        if extra.get("on_invalid"):
            invalid = StepError("invalid_answer", "InvalidAnswer", str(extra.get("reason", "")))
            return _answered(machine, _text(path, extra["answer"]), invalid, usage, now, told)
        if error is None:
            text = extra.get("answer", output)
            return machine.resume(Answer(_text(path, text), usage, told), now)
        if error.kind in ("invalid_answer", *ONLY_NAMED) and "answer" in extra:
            return _answered(machine, _text(path, extra["answer"]), error, usage, now, told)
        if error.type in _SPOILED:
            _fill(machine, error)
            known = {key: extra[key] for key in (*told, "answer") if key in extra}
            return machine.resume(
                BadResult(replace(error, retryable=False), usage=usage, extra=known), now
            )
        pattern = op.retry.on[0] if op.retry.on else "ModelError"
        if error.kind == "budget" and error.message == _NO_MODEL_CALL:
            # what the attempt itself ended with is not kept: anything that would have been tried again
            if op.allowed is not None or op.schema is not None:
                return machine.resume(
                    BadResult(StepError("invalid_answer", pattern, ""), "", usage), now
                )
            return machine.resume(Failed(StepError("rate_limit", pattern, ""), usage), now)
        return machine.resume(Failed(replace(error, retryable=False), usage), now)

    # --- tools ---

    def _tool(self, machine: Machine, op: ToolOp, path: str, record: Record, now: int) -> Op:
        _, _, status, output, error, request, _, _, _, _, _ = record
        if status is StepStatus.SUSPENDED:
            return machine.resume(Suspended(), now)
        if error is None:
            if status is not StepStatus.SUCCESS:
                raise Unfit(path, f"it is {status.value} without an error")
            if (
                machine.side_call is None
                and op.reconcile is not None
                and self._next_reconcile(path) is not None
            ):
                return self._told(machine, op, path, StepError("timeout", "TimeoutError", ""), now)
            return machine.resume(Value(output), now)
        known = replace(error, retryable=False)
        if machine.side_call is not None:
            if error == CANCELLED:
                return machine.resume(Cancelled(), now)
            if op.step_id.endswith("/undo") and not request and op.names:
                return machine.resume(NotCalled(known), now)
            return machine.resume(Failed(known), now)
        asked = op.reconcile is not None and self._next_reconcile(path) is not None
        if status is StepStatus.IN_DOUBT:
            return self._in_doubt(machine, op, path, error, now, asked)
        if status is StepStatus.CANCELLED:
            return machine.resume(Cancelled(called=asked), now)
        if asked:
            return self._told(machine, op, path, known, now)
        if request is None:
            return machine.resume(NotCalled(known), now)
        if error.type in _SPOILED and self._was_spoiled(machine, op, path):
            _fill(machine, error)
            return machine.resume(BadResult(known), now)
        if op.unsafe and error.kind in UNKNOWN_OUTCOME:  # after a call it would be in doubt
            return machine.resume(TimedOut(called=False), now)
        return machine.resume(Failed(known), now)

    def _told(self, machine: Machine, op: ToolOp, path: str, error: StepError, now: int) -> Op:
        """The call was in doubt, and its reconcile tool told what it did."""
        if path in self.stopped:
            return machine.resume(Cancelled(called=machine._doubt is None), now)
        return machine.resume(Unknown(error), now)

    def _in_doubt(
        self, machine: Machine, op: ToolOp, path: str, error: StepError, now: int, asked: bool
    ) -> Op:
        """The outcome after which nobody knew whether the call took effect."""
        cause, more = _parted(error.message, f"; whether {op.tool!r} took effect is not known")
        if error.type == CANCELLED.type and cause == CANCELLED.message:
            return machine.resume(Cancelled(called=True), now)
        unknown = StepError("in_doubt", error.type, cause, False, bases=error.bases)
        if (
            path in self.stopped
            and str(machine._doubt) == str(unknown)
            and not self._stopped_asking(path)
        ):
            return machine.resume(Cancelled(called=False), now)
        _, then, last = more.partition("; then: ")
        if asked or not then:
            ask = not more.startswith(NOT_ASKED)
            return machine.resume(Unknown(unknown, crashed=path not in self.stopped, ask=ask), now)
        kind, _, text = (
            last.rpartition(_UNASKED)[0].partition(": ")
            if _UNASKED in last
            else last.partition(": ")
        )
        if (
            kind == "BudgetExceeded"
            and text == _NO_TOOL_CALL
            and str(machine._doubt) != str(unknown)
        ):
            return machine.resume(
                Failed(StepError("timeout", error.type, cause, bases=error.bases)), now
            )
        own = StepError("tool", kind, text, False)
        return (
            machine.resume(NotCalled(own), now)
            if self.by_path[path][5] is None
            else machine.resume(Failed(own), now)
        )

    def _stopped_asking(self, path: str) -> bool:
        """Whether it was the reconcile call that was cancelled, which its own record tells."""
        record = self._next_reconcile(path)
        return record is not None and record[4] == CANCELLED

    def _was_spoiled(self, machine: Machine, op: ToolOp, path: str) -> bool:
        """Whether a value was refused, and not raised by the tool as an error of its own: what a
        call did is then undone.

        Where an undo may still come it will: an effect that is undone for nothing is better than
        one that stays.
        """
        return (
            op.undo is None
            or machine._doubt is not None
            or not self.ended
            or f"{path}/undo" in self.by_path
        )

    # --- pauses ---

    @staticmethod
    def _pause(machine: Machine, op: PauseOp, path: str, record: Record, now: int) -> Op:
        _, _, status, output, error, _, _, _, _, _, extra = record
        by = _dict(extra).get("by")
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
        reason = error.message.removeprefix("rejected: ")
        if op.asks and error.type == "Rejected" and reason != error.message:
            return machine.resume(
                Decided(False, None if reason == "no reason given" else reason, by), now
            )
        return machine.resume(Failed(error, by=by), now)


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
        raise Unfit(path, "a model's answer is a text")
    return value


def _dict(extra: Any) -> dict[str, Any]:
    return extra if type(extra) is dict else {}


def _fill(machine: Machine, error: StepError) -> None:
    """After a value for which there was no room, there is none for any other: how large it was is
    not recorded.
    """
    if error.message == _STATE_FULL:
        machine.ledger.state = min(machine.ledger.state, -1)


def _parted(message: str, mark: str) -> tuple[str, str]:
    """What stands before and after *mark*, at the first place where what the machine writes can
    follow.
    """
    at = message.find(mark)
    while at >= 0:
        before, after = message[:at], message[at + len(mark) :]
        if not after or after.startswith(("; then: ", "; its reconcile")):
            return before, after
        at = message.find(mark, at + 1)
    return message, ""


def last_usage(total: LLMUsage | None, attempts: Iterable[Attempt]) -> LLMUsage | None:
    """What the last call consumed, where that was known: a record holds the sum of all attempts."""
    if total is None:
        return None
    known = [attempt.usage for attempt in attempts]
    before = sum((usage for usage in known if usage is not None), LLMUsage(cost_usd=Decimal(0)))
    prompt = total.prompt_tokens - before.prompt_tokens
    completion = total.completion_tokens - before.completion_tokens
    tokens = total.total_tokens - before.total_tokens
    if total.cost_usd is None or before.cost_usd is None:
        return LLMUsage(prompt, completion, tokens)
    return LLMUsage(prompt, completion, tokens, total.cost_usd - before.cost_usd)


# --- frames ---------------------------------------------------------------------------------------


def stops(records: list[Record], cancelled: bool) -> list[str]:
    """Paths of the steps at which frames were cancelled; *cancelled* is whether that of *records*
    was. Children are in their forks.
    """
    found = []
    if cancelled:
        found += [record[1] for record in records if not record[0].step_id.endswith("/undo")][-1:]
    for record in records:
        extra = record[10]
        if extra is not None and type(extra) is dict and "children" in extra:
            for child in extra["children"]:
                found += stops(child, record[2] is StepStatus.CANCELLED)
    return found


def forks_of(records: list[Record]) -> dict[str, Record]:
    """The records of forks by path, those in children too."""
    found: dict[str, Record] = {}
    for record in records:
        extra = record[10]
        if extra is not None and type(extra) is dict and "children" in extra:
            found[record[1]] = record
            for child in extra["children"]:
                found.update(forks_of(child))
    return found


HELD = StepError(
    "refused", "ForkStopped", "the call is held back: it has an effect", retryable=False
)


def play(
    machine: Machine,
    recorded: Recorded,
    forks: Mapping[str, Record],
    now: int,
    *,
    hold: bool = False,
) -> None:
    """Drive *machine* through all that is recorded; *forks* are the records of forks by path, with
    their children.

    With *hold* calls that are not recorded are held: the frame waits there, and its siblings go on.

    Raises:
        Missing: At the first call that is not recorded, without *hold*.
        Unfit: At the first record that no such call can have.
    """
    base, by_path, success = recorded.base_ns, recorded.by_path, StepStatus.SUCCESS
    op: Any = machine.start(now)
    while True:
        code = op.code
        # by far the most, written out
        if code == TOOL and op.reconcile is None and machine.side_call is None:
            record = by_path.get(machine.path)
            if record is not None and record[2] is success and record[8] is None:
                machine.now = record[7] - base
                op = machine.send(record[3])
                continue
        if code == END:
            return
        if code == FORK:
            op = _forked(machine, op, recorded, forks, hold)
            continue
        following = recorded.feed(machine, op)
        if following is None:
            if not hold:
                raise Missing(machine.path)
            following = (
                machine.resume(Suspended(), machine.now)
                if machine.side_call is None
                else machine.resume(NotCalled(HELD), machine.now)
            )
        op = following


def _forked(
    machine: Machine, op: Op, recorded: Recorded, forks: Mapping[str, Record], hold: bool
) -> Op:
    """The children of a fork, those that began, one after the other; then its join, or that it was
    cancelled.
    """
    record = forks.get(machine.path)
    children = record[10]["children"] if record is not None else ()
    stopped = record is not None and record[2] is StepStatus.CANCELLED
    latest = machine.now
    for number in range(machine.fork_size):
        told = children[number] if number < len(children) else ()
        # a child that began has a record at least of that it was cancelled
        if stopped and not told:
            continue
        if not machine.ready(number):  # behind one that is held
            continue
        child = machine.child(number)
        play(
            child,
            recorded,
            forks,
            told[0][6] - recorded.base_ns if told else machine.now,
            hold=hold,
        )
        latest = max(latest, child.now)
    finished = record[7] - recorded.base_ns if record is not None else latest
    return machine.resume(Cancelled(), finished) if stopped else machine.resume(Joined(), finished)


# --- hosts ----------------------------------------------------------------------------------------


def contracts_of(about: Mapping[str, Any]) -> dict[str, ToolContract]:
    """The tools of a run, as far as they decide what it did; they take any arguments and can not be
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
            _never,
            {},
            open=True,
            effect=facts["effect"],
            takes_key=facts.get("key") is True,
            how="inline",
        )
    return found


def _never(**arguments: Any) -> Any:
    raise VMError("a recorded run makes no calls")


@dataclass(slots=True)
class Bounds:
    """What bounded a run."""

    limits: Limits = field(default_factory=Limits)
    budget: Budget | None = None
    prices: dict[str, tuple[Decimal, Decimal]] | None = None
    default_model: str | None = None


def bounds_of(about: Mapping[str, Any], program: Budget | None) -> Bounds:
    """Limits, budget and prices of a run; the *program*'s own budget bounds it whatever *about*
    says.

    Raises:
        ValueError: If *about* is not as `Trace.about` gives it.
    """
    try:
        told = Budget.model_validate(about["budget"]) if "budget" in about else None
        known = [budget for budget in (told, program) if budget is not None]
        prices = {
            name: (Decimal(pair[0]), Decimal(pair[1]))
            for name, pair in about.get("prices", {}).items()
        }
        limits = Limits(**{name: int(value) for name, value in about.get("limits", {}).items()})
    except (ArithmeticError, AttributeError, IndexError, KeyError, TypeError) as error:
        raise ValueError(f"not the bounds of a run: {error}") from None
    model = about.get("default_model")
    return Bounds(limits, tightest(known), prices or None, model if type(model) is str else None)
