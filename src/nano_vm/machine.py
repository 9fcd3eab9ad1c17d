"""The state machine: outcomes in, requests out. No await, no I/O, no clock, no random number.

    request = machine.start(now)             # a ToolOp or ModelOp to call, a ForkOp, or an end (code END)
    request = machine.resume(value, now)     # what a tool returned
    request = machine.answer(text, usage, now)   # what a model answered
    request = machine.fail(error, now)       # what went wrong
    request = machine.join(now)              # the children of a fork have ended

A machine executes one frame. Branches, items and called programs are child machines that the driver runs, at the same
time or one by one: what comes out does not depend on it. A driver reads ``keywords`` or ``messages``, ``path``,
``deadline`` and ``delay_seconds`` between two of these calls and changes nothing.

Rule 1: what an outcome does is decided here, the same for every driver: retry, catch, skip, in doubt, undo, budget.
Rule 2: a value in a frame is never changed, only replaced; tools get copies.
Rule 3: a record, once appended, never changes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, cast

from .errors import BudgetExceeded, ExprError, LimitExceeded, StepFault, VMError
from .expr import described, equal
from .plan import (
    BRANCH,
    CLOSE,
    END,
    FAIL,
    FORK,
    LOOP,
    MODEL,
    PAUSE,
    SET,
    SWITCH,
    TEST,
    TOOL,
    BranchOp,
    CallOp,
    ForkOp,
    FramePlan,
    LoopOp,
    ModelOp,
    Op,
    PauseOp,
    Plan,
    SetOp,
    SwitchOp,
    TestOp,
    ToolOp,
)
from .program import MAX_STEPS, Budget
from .schemas import allowed_answer, correction, schema_answer
from .trace import Attempt, LLMUsage, Record, StepError, StepStatus, TraceStatus, error_text
from .values import MAX_VALUE_BYTES, SMALL_INT, UNSET, admit, canonical, short

UNLIMITED = 1 << 62
FOREVER = 1 << 62

DEFAULT_MAX_TOKENS = 1024
"""Reserved for an answer whose step declares no ``max_tokens``, and then also asked of the adapter; LANGUAGE 7."""

MESSAGE_TOKENS = 16
"""Added to the UTF-8 bytes of each message: role and separators; chat formats in use take 3 to 8 tokens."""

MAX_RETRY_AFTER_SECONDS = 600.0
"""The longest wait that a provider's Retry-After can ask for; their windows are a minute, some ten."""

UNSKIPPABLE = frozenset({"refused", "budget", "cancelled", "in_doubt"})
UNCATCHABLE = frozenset({"cancelled", "in_doubt"})
UNKNOWN_OUTCOME = frozenset({"timeout", "cancelled", "in_doubt"})

SUCCESS, FAILED, SKIPPED = StepStatus.SUCCESS, StepStatus.FAILED, StepStatus.SKIPPED


@dataclass(frozen=True, slots=True)
class Limits:
    """What the host bounds, whatever a program says."""

    steps: int = MAX_STEPS
    """Executed steps of a run: as many as a program may have."""
    value_bytes: int = MAX_VALUE_BYTES
    """Size of one value."""
    state_bytes: int = 256 * 1024 * 1024
    """Size of all values of a run together: sixteen of the largest."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is given for a run and never drawn by the machine. ``prices`` are dollars per million tokens, in and out."""

    run_id: str = ""
    seed: int = 0
    limits: Limits = Limits()
    prices: Mapping[str, tuple[Decimal, Decimal]] | None = None
    default_model: str | None = None


class Ledger:
    """What a frame may still use; `UNLIMITED` or None where nothing bounds it."""

    __slots__ = ("cost", "llm_calls", "state", "steps", "tokens", "tool_calls")

    def __init__(
        self,
        steps: int,
        llm_calls: int = UNLIMITED,
        tool_calls: int = UNLIMITED,
        tokens: int = UNLIMITED,
        cost: Decimal | None = None,
        state: int = UNLIMITED,
    ) -> None:
        self.steps = steps
        self.llm_calls = llm_calls
        self.tool_calls = tool_calls
        self.tokens = tokens
        self.cost = cost
        self.state = state

    @classmethod
    def of(cls, limits: Limits, budget: Budget | None) -> Ledger:
        """What a run may use under *budget*."""
        if budget is None:
            return cls(limits.steps, state=limits.state_bytes)
        return cls(
            min(limits.steps, _or_unlimited(budget.max_steps)),
            _or_unlimited(budget.max_llm_calls),
            _or_unlimited(budget.max_tool_calls),
            _or_unlimited(budget.max_tokens),
            Decimal(str(budget.max_cost_usd)) if budget.max_cost_usd is not None else None,
            limits.state_bytes,
        )

    def shares(self, ceilings: list[tuple[int, int, int]]) -> list[Ledger]:
        """One ledger a child: its ceiling where all fit, else equal shares in declared order. What is unspent returns by `settle`."""
        count = len(ceilings)
        columns = [
            _granted(have, [ceiling[i] for ceiling in ceilings])
            for i, have in enumerate((self.steps, self.llm_calls, self.tool_calls))
        ]
        tokens = [UNLIMITED] * count if self.tokens >= UNLIMITED else _equal(self.tokens, count)
        cost = [None if self.cost is None else self.cost / count for _ in range(count)]
        return [
            Ledger(columns[0][i], columns[1][i], columns[2][i], tokens[i], cost[i], self.state) for i in range(count)
        ]

    def settle(self, granted: Ledger, left: Ledger) -> None:
        """Charge what a child used of its share."""
        self.steps -= granted.steps - left.steps
        self.llm_calls -= granted.llm_calls - left.llm_calls
        self.tool_calls -= granted.tool_calls - left.tool_calls
        self.tokens -= granted.tokens - left.tokens
        self.state -= granted.state - left.state
        if self.cost is not None and granted.cost is not None and left.cost is not None:
            self.cost -= granted.cost - left.cost

    def copy(self) -> Ledger:
        """The same amounts."""
        return Ledger(self.steps, self.llm_calls, self.tool_calls, self.tokens, self.cost, self.state)


def _or_unlimited(value: int | None) -> int:
    return UNLIMITED if value is None else value


def _granted(have: int, ceilings: list[int]) -> list[int]:
    if have >= UNLIMITED:
        return [UNLIMITED] * len(ceilings)
    return list(ceilings) if sum(ceilings) <= have else _equal(have, len(ceilings))


def _equal(have: int, count: int) -> list[int]:
    have = max(have, 0)
    return [have // count + (1 if i < have % count else 0) for i in range(count)]


def effect_key(run_id: str, path: str) -> str:
    """The identity of an effect: the same over retries and crashes, another for every step of every run."""
    return hashlib.sha256(f"{run_id}\0{path}".encode()).hexdigest()[:32]


def token_bound(messages: list[dict[str, str]]) -> int:
    """An upper bound of the tokens of *messages*: no tokenizer in use makes more than one of a byte."""
    return sum(len(m["content"].encode()) + MESSAGE_TOKENS for m in messages)


def backoff(op: CallOp, attempt: int, seed: int, path: str, error: StepError) -> float:
    """Seconds to wait after failed attempt number *attempt* (1 is the first): full jitter, drawn from the run's seed.

    Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """
    retry = op.retry
    highest = min(retry.max_delay_seconds, retry.delay_seconds * retry.factor ** min(attempt - 1, 64))
    drawn = hashlib.sha256(f"{seed}\0{path}\0{attempt}".encode()).digest()
    wait = highest * int.from_bytes(drawn[:8], "big") / 2**64
    if error.retry_after_seconds is not None:
        wait = max(wait, min(error.retry_after_seconds, MAX_RETRY_AFTER_SECONDS))
    return wait


class Machine:
    """The execution of one frame of a plan."""

    __slots__ = (
        "_aside",
        "_attempts",
        "_block_last",
        "_children",
        "_correction",
        "_counts",
        "_deadline_error",
        "_failed_step",
        "_fork",
        "_granted",
        "_last",
        "_loops",
        "_op",
        "_original",
        "_plain",
        "_prefix",
        "_reserved",
        "_reserved_cost",
        "_root",
        "_started",
        "_undo",
        "_undo_errors",
        "base_deadline",
        "deadline",
        "delay_seconds",
        "error",
        "facts",
        "fork_size",
        "frame",
        "frame_plan",
        "keywords",
        "ledger",
        "messages",
        "output",
        "path",
        "records",
        "request",
        "skipped",
        "status",
        "waiting",
    )

    def __init__(
        self,
        frame_plan: FramePlan,
        frame: list[Any],
        facts: Facts,
        ledger: Ledger,
        *,
        prefix: str = "",
        root: bool = True,
        deadline: int = FOREVER,
        deadline_error: StepError | None = None,
    ) -> None:
        self.frame_plan = frame_plan
        self.frame = frame
        self.facts = facts
        self.ledger = ledger
        self.records: list[Record] = []
        self.status = TraceStatus.RUNNING
        self.output: Any = None
        self.error: StepError | None = None
        self.waiting: list[dict[str, Any]] = []
        self.skipped = False
        self.path = ""
        self.request: Any = None
        self.keywords: dict[str, Any] = {}
        self.messages: list[dict[str, str]] = []
        self.delay_seconds = 0.0
        self.base_deadline = self.deadline = deadline
        self.fork_size = 0
        self._deadline_error = deadline_error
        self._prefix = prefix
        self._root = root
        self._plain = root and frame_plan.static
        self._op: Any = None
        self._started = 0
        self._attempts: list[Attempt] | None = None
        self._aside: str | None = None
        self._undo: list[tuple[ToolOp, str, tuple[Any, ...], dict[str, Any]]] | None = None
        self._last: Any = None
        self._block_last: Any = None

    # These are rare, and a run that has none of them should not pay for their slots being set.
    # `_counts`, `_loops`: runs of a step and state of loops; `_children`, `_granted`, `_fork`: of a fork; and so on.

    @classmethod
    def of(cls, plan: Plan, inputs: Mapping[str, Any], facts: Facts, ledger: Ledger, *, deadline: int = FOREVER) -> Machine:
        """The machine of a run; *inputs* are plain data and hold every needed name."""
        root = plan.frames[0]
        error = None
        if deadline < FOREVER:
            error = StepError("budget", "BudgetExceeded", "the budget's max_seconds is used up", retryable=False)
        return cls(root, _loaded(root, inputs), facts, ledger, deadline=deadline, deadline_error=error)

    # --- what a driver calls ---

    def start(self, now: int) -> Op:
        """The first request; *now* is monotonic nanoseconds, here and everywhere."""
        return self._run(self.frame_plan.entry, now)

    def resume(self, value: Any, now: int) -> Op:
        """Take what a tool returned."""
        if self._aside is not None:
            return self._resume_aside(value, now)
        op = self._op
        kind = type(value)
        if value is None or kind is bool or (kind is int and -SMALL_INT < value < SMALL_INT):
            size = 8
        else:
            if kind is not str or not value.isascii():
                try:
                    value, size = admit(value, self.facts.limits.value_bytes)
                except VMError as error:
                    return self.fail(_finally(StepError.of(error)), now)
            else:
                size = len(value)
                if size > self.facts.limits.value_bytes:
                    return self.fail(_finally(_too_large(self.facts.limits.value_bytes)), now)
        ledger = self.ledger
        ledger.state -= size
        if ledger.state < 0:
            return self.fail(_finally(_state_full()), now)
        frame = self.frame
        frame[op.out] = self._last = self._block_last = value
        if op.key >= 0:
            frame[op.key] = value
        attempts = self._attempts
        self.records.append(
            (
                op,
                self.path,
                SUCCESS,
                value,
                None,
                self.request,
                self._started,
                now,
                None if attempts is None else tuple(attempts),
                None,
                None,
            )
        )
        if op.undo is not None:
            self._remember_undo(op)
        return self._run(op.next, now)

    def answer(self, text: str, usage: LLMUsage | None, now: int, extra: dict[str, Any] | None = None) -> Op:
        """Take what a model answered."""
        op: ModelOp = self._op
        self._settle(usage)
        extra = dict(extra) if extra else {}
        value: Any
        try:
            if op.allowed is not None:
                value = allowed_answer(text, op.allowed)
            elif op.validate is not None:
                value = schema_answer(text, op.validate)
            else:
                value = text
            value, size = admit(value, self.facts.limits.value_bytes)
        except VMError as error:
            fault = StepError.of(error)
            if fault.kind == "invalid_answer":
                return self._invalid(op, text, fault, usage, now, extra)
            return self._failed(op, fault, now, usage, extra)
        if op.allowed is not None or op.validate is not None:
            extra["answer"] = text
        return self._answered(op, value, size, usage, now, extra)

    def fail(self, error: StepError, now: int) -> Op:
        """Take what went wrong with the call; what follows (retry, catch, in doubt, ...) is decided here."""
        if self._aside is not None:
            return self._failed_aside(error, now)
        op = self._op
        if op.code == MODEL:
            self._release(error)
        elif op.effect in ("write", "irreversible") and error.kind in UNKNOWN_OUTCOME:
            return self._unknown_outcome(op, error, now)
        if self._may_retry(op, error, op.attempts):
            return self._retry(op, error, now)
        return self._failed(op, error, now)

    def expire(self, now: int, *, called: bool = True) -> Op:
        """Take that the call's deadline passed and the call was stopped; *called* is false if it had not begun."""
        error = self._expired(now)
        if error is None:
            seconds = self._op.timeout_ns / 1e9
            error = StepError("timeout", "TimeoutError", f"no outcome within {seconds:g} s")
        if not called and self._aside is None:
            return self._failed(self._op, error, now)
        return self.fail(error, now)

    def cancel(self, now: int, *, called: bool = True) -> Op:
        """Take that the run is to be cancelled; an interrupted effect is in doubt. *called* is false if no call was under way."""
        if self.status is not TraceStatus.RUNNING:
            return self._op  # type: ignore[no-any-return]
        if self._aside is not None:
            return self._failed_aside(StepError("cancelled", "CancelledError", "the run was cancelled", retryable=False), now)
        error = StepError("cancelled", "CancelledError", "the run was cancelled", retryable=False)
        op = self._op
        doubtful = isinstance(op, ToolOp) and op.effect in ("write", "irreversible") and called
        if isinstance(op, ForkOp):
            self._adopt(op)
            self._record(op, StepStatus.CANCELLED, None, error, now, extra=self._join_extra(op))
        else:
            if isinstance(op, ModelOp):
                self._release(error)
            self._record(op, StepStatus.IN_DOUBT if doubtful else StepStatus.CANCELLED, None, error, now)
        self.status = TraceStatus.CANCELLED
        self.error = error
        self._failed_step = op.step_id
        return self._wind_up(now)

    def reserve(self, prompt_tokens: int) -> StepError | None:
        """Reserve the most that the requested model call can use; the error, where the budget does not cover it."""
        op: ModelOp = self._op
        ledger = self.ledger
        most = prompt_tokens + (op.max_tokens or DEFAULT_MAX_TOKENS)
        if most > ledger.tokens:
            return _budget(f"the call may use {most} tokens, {max(ledger.tokens, 0)} are left of max_tokens")
        cost = None
        if ledger.cost is not None:
            price = self._price(op)
            if price is None:
                return _budget(f"no price is known for model {op.model or self.facts.default_model!r}, and the budget limits cost")
            cost = (price[0] * prompt_tokens + price[1] * (op.max_tokens or DEFAULT_MAX_TOKENS)) / 1_000_000
            if cost > ledger.cost:
                return _budget(f"the call may cost ${cost:.6f}, ${max(ledger.cost, Decimal(0)):.6f} are left of max_cost_usd")
            ledger.cost -= cost
        if ledger.tokens < UNLIMITED:
            ledger.tokens -= most
        self._reserved, self._reserved_cost = most, cost
        return None

    @property
    def reserves(self) -> bool:
        """Whether a model call must be reserved."""
        return self.ledger.tokens < UNLIMITED or self.ledger.cost is not None

    def child(self, number: int) -> Machine:
        """The machine of one branch or item of the requested fork."""
        op: ForkOp = self._op
        frame_plan = op.frames[0 if op.kind == "map" else number]
        if op.kind == "call":
            frame = _loaded(frame_plan, self._fork)
            prefix = f"{self.path}/"
        else:
            frame = self.frame.copy()
            prefix = f"{self.path}/"
            if op.kind == "map":
                frame[op.item] = self._fork[number]
                prefix = f"{self.path}[{number}]/"
        deadline, error = self.deadline, self._deadline_error
        if op.timeout_ns and self._started + op.timeout_ns < deadline:
            deadline = self._started + op.timeout_ns
            error = StepError("timeout", "TimeoutError", f"{op.step_id!r} did not end within {op.timeout_ns / 1e9:g} s", False)
        child = Machine(
            frame_plan,
            frame,
            self.facts,
            self._granted[number].copy(),
            prefix=prefix,
            root=False,
            deadline=deadline,
            deadline_error=error,
        )
        self._children[number] = child
        return child

    def join(self, now: int) -> Op:
        """Take that every child of the fork has ended."""
        op: ForkOp = self._op
        children = self._adopt(op)
        extra = self._join_extra(op)
        waiting = [entry for child in children for entry in child.waiting]
        if any(child.status is TraceStatus.CANCELLED for child in children):
            return self.cancel(now)
        if waiting:
            self._record(op, StepStatus.SUSPENDED, None, None, now, extra=extra)
            return self._suspend(waiting)
        for name, child in zip(self._child_names(op), children, strict=True):
            if child.status is TraceStatus.FAILED:
                cause = cast(StepError, child.error)
                inner = StepError(cause.kind, cause.type, f"{name}: {error_text(child._failed_step, cause)}", False)
                return self._failed(op, inner, now, extra=extra)
        if op.timeout_ns and now >= self._started + op.timeout_ns:
            late = StepError("timeout", "TimeoutError", f"did not end within {op.timeout_ns / 1e9:g} s", False)
            return self._failed(op, late, now, extra=extra)
        outputs = [child.output for child in children]
        value: Any = outputs
        if op.kind == "call":
            value = outputs[0]
        elif op.kind == "parallel":
            value = dict(zip([frame.name for frame in op.frames], outputs, strict=True))
            skipped: list[Any] = [frame.name for frame, child in zip(op.frames, children, strict=True) if child.skipped]
        if op.kind == "map":
            skipped = [i for i, child in enumerate(children) if child.skipped]
        if op.kind != "call" and skipped:
            extra["skipped"] = skipped
        try:
            value, size = admit(value, self.facts.limits.value_bytes)
        except VMError as error:
            return self._failed(op, StepError.of(error), now, extra=extra)
        return self._answered(op, value, size, None, now, extra)

    # --- the loop ---

    def _run(self, op: Any, now: int) -> Op:
        """Go on at *op* until something outside is needed."""
        frame, ledger = self.frame, self.ledger
        while True:
            code = op.code
            if code == CLOSE:
                frame[op.out] = self._block_last
                if op.key >= 0:
                    frame[op.key] = self._block_last
                op = op.next
                continue
            if code == END or code == FAIL:
                return self._ended(op, now)
            if code == TEST:
                op = self._test(op, now)
                if op is None:
                    return self._op  # type: ignore[no-any-return]
                continue
            self._op = op
            self._started = now
            self._attempts = None
            self.path = op.path if self._plain else self._path_of(op)
            ledger.steps -= 1
            if ledger.steps < 0:
                ledger.steps = 0
                return self._failed(op, _budget("the run has used all its steps (max_steps)"), now)
            try:
                if code == TOOL:
                    ledger.tool_calls -= 1
                    if ledger.tool_calls < 0:
                        ledger.tool_calls = 0
                        raise BudgetExceeded("the run has used all its tool calls (max_tool_calls)")
                    self.request, self.keywords = op.arguments(frame)
                    if op.takes_key:
                        self.keywords["idempotency_key"] = effect_key(self.facts.run_id, self.path)
                    self.deadline = self._nearest(op) if op.timed else self.base_deadline
                    if now >= self.deadline:
                        return self._failed(op, cast(StepError, self._expired(now)), now)
                    return op  # type: ignore[no-any-return]
                if code == BRANCH:
                    found = op.test(frame)
                    if op.missing[0 if found else 1]:
                        word = "true and has no 'then'" if found else "false and has no 'otherwise'"
                        return self._failed(op, StepError("value", "NoBranch", f"condition is {word}", False), now)
                    which = 0 if found else 1
                    label = op.labels[which]
                    frame[op.out] = label
                    self._block_last = None
                    if op.key >= 0:
                        frame[op.key] = label
                    branch = ("otherwise", "then")[found]
                    self.records.append(
                        (op, self.path, SUCCESS, label, None, None, now, now, None, None, (branch, op.capture(frame)))
                    )
                    op = op.then if found else op.otherwise
                elif code == MODEL:
                    ledger.llm_calls -= 1
                    if ledger.llm_calls < 0:
                        ledger.llm_calls = 0
                        raise BudgetExceeded("the run has used all its model calls (max_llm_calls)")
                    self._begin_model(op)
                    if now >= self.deadline:
                        return self._failed(op, cast(StepError, self._expired(now)), now)
                    return op  # type: ignore[no-any-return]
                elif code == SWITCH:
                    op = self._switch(op, now)
                elif code == SET:
                    op = self._set(op, now)
                elif code == FORK:
                    self._begin_fork(op)
                    return op  # type: ignore[no-any-return]
                elif code == LOOP:
                    self._enter_loop(op, now)
                    op = op.next
                else:
                    assert code == PAUSE
                    return self._pause(op, now)
            except StepFault as error:
                return self._failed(op, StepError.of(error), now)

    def _path_of(self, op: Op) -> str:
        """The path of *op* as it is reached now; a second run in this frame is another path."""
        if op.path is not None:
            return self._prefix + op.path
        base = self._prefix + self._inner_path(op)
        if not op.twice:
            return base
        counts = self._rare("_counts", dict)
        count = counts[base] = counts.get(base, 0) + 1
        return base if count == 1 else f"{base}#{count}"

    def _inner_path(self, op: Op) -> str:
        owner = op.owner
        if owner is None:
            return op.step_id
        around = self._inner_path(owner)
        if owner.twice:
            count = self._rare("_counts", dict).get(self._prefix + around, 1)
            around = around if count == 1 else f"{around}#{count}"
        if isinstance(owner, LoopOp):
            around = f"{around}#{self._loops[owner.index][0]}"
        return f"{around}/{op.step_id}"

    def _rare(self, name: str, make: type) -> Any:
        """A slot that few runs need, set at first use."""
        try:
            return getattr(self, name)
        except AttributeError:
            value = make()
            setattr(self, name, value)
            return value

    # --- steps that need no outside ---

    def _switch(self, op: SwitchOp, now: int) -> Op:
        value = op.on(self.frame)
        if type(value) in (list, dict):
            raise ExprError(f"'on' is {described(value)}; a switch takes a text, a number, true, false or null")
        text = value if type(value) is str else canonical(value).decode()
        for case, target in op.cases.items():
            if case == text or (type(value) in (int, float) and equal(case, value)):
                return self._branched(op, case, target, value, now)
        if op.other is None:
            raise _NoCase(f"no case for {short(value)}, and no default")
        return self._branched(op, "default", op.other, value, now)

    def _branched(self, op: SwitchOp, case: str, target: Op, value: Any, now: int) -> Op:
        frame = self.frame
        label = op.labels[case]
        frame[op.out] = label
        if op.key >= 0:
            frame[op.key] = label
        self._block_last = None
        extra = {"branch": case, "references": {"on": value}}
        self._record(op, SUCCESS, label, None, now, extra=extra)
        return target

    def _set(self, op: SetOp, now: int) -> Op:
        frame = self.frame
        limit = self.facts.limits.value_bytes
        values, total = {}, 0
        for name, _, get in op.values:
            values[name], size = admit(get(frame), limit)
            total += size
        self._charge(total)
        for name, slot, _ in op.values:
            frame[slot] = values[name]
        frame[op.out] = self._last = self._block_last = values
        if op.key >= 0:
            frame[op.key] = values
        self._record(op, SUCCESS, values, None, now)
        return op.next

    def _enter_loop(self, op: LoopOp, now: int) -> None:
        loops = self._rare("_loops", dict)
        deadline = now + op.timeout_ns if op.timeout_ns else FOREVER
        loops[op.index] = [1, now, deadline, self.path]
        self._block_last = None

    def _test(self, op: TestOp, now: int) -> Op | None:
        """The end of an iteration: what follows, or None where a failure has been dealt with."""
        state = self._loops[op.loop.index]
        self._op, self.path, self._started, self._attempts, self.request = op, state[3], state[1], None, None
        try:
            if now >= state[2]:
                raise _LoopLate(f"did not end within {op.loop.timeout_ns / 1e9:g} s")
            done = op.until is not None and op.until(self.frame)
            if not done and state[0] >= op.loop.max_iterations and op.exhausted is None:
                raise _Exhausted(f"'until' did not hold within {state[0]} iterations")
        except StepFault as error:
            self._op = self._failed(op, StepError.of(error), now)
            return None
        if not done and state[0] < op.loop.max_iterations:
            state[0] += 1
            self._block_last = None
            return op.again
        value = self._block_last
        self.frame[op.out] = self._last = value
        if op.key >= 0:
            self.frame[op.key] = value
        self._record(op, SUCCESS, value, None, now, extra={"iterations": state[0], "exhausted": not done})
        return op.next if done else cast(Op, op.exhausted)

    def _pause(self, op: PauseOp, now: int) -> Op:
        request, _ = admit(op.request(self.frame), self.facts.limits.value_bytes)
        self.request = request
        self._record(op, StepStatus.SUSPENDED, None, None, now)
        return self._suspend([{"path": self.path, "step_id": op.step_id, **request}])

    # --- calls ---

    def _begin_model(self, op: ModelOp) -> None:
        messages = op.messages(self.frame)
        admit(messages, self.facts.limits.value_bytes)
        self.messages = messages
        request: dict[str, Any] = {"messages": messages}
        if op.model is not None:
            request["model"] = op.model
        self.request = {**request, **op.options}
        self._original = messages
        self._reserved, self._reserved_cost = 0, None
        self.deadline = self._nearest(op)

    def _nearest(self, op: Op) -> int:
        """The deadline around *op*: that of the frame, or of a loop in it."""
        return min([self.base_deadline, *(self._loops[loop.index][2] for loop in op.timed)])

    def _expired(self, now: int) -> StepError | None:
        """The error of a deadline around the call, where one has passed."""
        if now >= self.base_deadline:
            return self._deadline_error
        for loop in self._op.timed:
            if now >= self._loops[loop.index][2]:
                return StepError("timeout", "TimeoutError", f"loop {loop.step_id!r} did not end in time", False)
        return None

    def _may_retry(self, op: CallOp, error: StepError, attempts: int) -> bool:
        if not error.retryable or error.kind in UNSKIPPABLE:
            return False
        if op.retry.on is not None and not matches(error, tuple(op.retry.on)):
            return False
        return (len(self._attempts) if self._attempts else 0) + 1 < attempts

    def _retry(
        self, op: CallOp, error: StepError, now: int, usage: LLMUsage | None = None, answer: str | None = None
    ) -> Op:
        """The same call once more, after `delay_seconds`; the attempt is kept for the record."""
        ledger = self.ledger
        if op.code == MODEL:
            if ledger.llm_calls <= 0:
                return self._failed(op, _budget("no model call is left for another attempt (max_llm_calls)"), now, usage)
            ledger.llm_calls -= 1
        else:
            if ledger.tool_calls <= 0:
                return self._failed(op, _budget("no tool call is left for another attempt (max_tool_calls)"), now)
            ledger.tool_calls -= 1
        if self._attempts is None:
            self._attempts = []
        started = self._attempts[-1].finished_ns if self._attempts else self._started
        self._attempts.append(Attempt(error, started, now, usage, answer))
        # an invalid answer is asked again at once: the provider did nothing wrong
        self.delay_seconds = 0.0 if answer is not None else backoff(op, len(self._attempts), self.facts.seed, self.path, error)
        return op

    def _invalid(
        self, op: ModelOp, text: str, error: StepError, usage: LLMUsage | None, now: int, extra: dict[str, Any]
    ) -> Op:
        shown = text[:10_000]
        if self._may_retry(op, error, op.answer_attempts):
            self.messages = [*self._original, *correction(text, error.message)]
            return self._retry(op, error, now, usage, shown)
        if op.has_on_invalid:
            extra |= {"answer": shown, "on_invalid": True, "reason": error.message}
            value, size = admit(op.on_invalid)
            return self._answered(op, value, size, usage, now, extra)
        return self._failed(op, error, now, usage, {**extra, "answer": shown})

    def _answered(
        self, op: Any, value: Any, size: int, usage: LLMUsage | None, now: int, extra: dict[str, Any] | None
    ) -> Op:
        """A model step or a fork succeeded."""
        try:
            self._charge(size)
        except StepFault as error:
            return self._failed(op, StepError.of(error), now, usage, extra)
        frame = self.frame
        frame[op.out] = self._last = self._block_last = value
        if op.key >= 0:
            frame[op.key] = value
        self._record(op, SUCCESS, value, None, now, usage, extra or None)
        return self._run(op.next, now)

    def _charge(self, size: int) -> None:
        self.ledger.state -= size
        if self.ledger.state < 0:
            raise LimitExceeded(_state_full().message)

    def _price(self, op: ModelOp) -> tuple[Decimal, Decimal] | None:
        name = op.model or self.facts.default_model
        return self.facts.prices.get(name) if self.facts.prices and name is not None else None

    def _settle(self, usage: LLMUsage | None) -> None:
        """Replace a call's reservation by what it used; without usage the reservation is the charge."""
        if usage is None:
            return
        ledger = self.ledger
        if ledger.tokens < UNLIMITED:
            ledger.tokens += self._reserved - usage.total_tokens
        if ledger.cost is not None and self._reserved_cost is not None:
            price = self._price(self._op)
            if price is not None:
                used = (price[0] * usage.prompt_tokens + price[1] * usage.completion_tokens) / 1_000_000
                ledger.cost += self._reserved_cost - used
        self._reserved, self._reserved_cost = 0, None

    def _release(self, error: StepError) -> None:
        """Give a reservation back where the provider refused the call; else it may have used all of it."""
        if error.kind == "rate_limit" or (error.kind == "model" and not error.retryable):
            self._settle(LLMUsage())
        self._reserved, self._reserved_cost = 0, None

    # --- unknown outcomes ---

    def _unknown_outcome(self, op: ToolOp, error: StepError, now: int) -> Op:
        """A call that may have changed the world ended without an outcome."""
        if op.takes_key and error.kind != "cancelled":
            repeatable = StepError(error.kind, error.type, error.message)
            if self._may_retry(op, StepError("timeout", error.type, error.message), op.attempts):
                return self._retry(op, repeatable, now)
        if op.reconcile is not None:
            try:
                values, keywords = op.reconcile.arguments(self.frame)
            except StepFault as fault:
                return self._in_doubt(op, error, f"; its reconcile could not be asked: {fault}", now)
            if op.reconcile.takes_key:
                keywords["idempotency_key"] = effect_key(self.facts.run_id, self.path)
            self._aside = "reconcile"
            self._correction = (error, self.request, values)
            self.keywords = keywords
            self._op = op.reconcile
            self._fork = op
            return op.reconcile
        return self._in_doubt(op, error, "", now)

    def _in_doubt(self, op: ToolOp, error: StepError, more: str, now: int) -> Op:
        doubt = StepError("in_doubt", error.type, f"{error.message}; whether {op.tool!r} took effect is not known{more}", False)
        self._record(op, StepStatus.IN_DOUBT, None, doubt, now)
        key = effect_key(self.facts.run_id, self.path)
        entry = {"path": self.path, "step_id": op.step_id, "kind": "in_doubt", "tool": op.tool, "effect_key": key}
        self.error = doubt
        self._failed_step = op.step_id
        return self._suspend([entry])

    def _resume_aside(self, value: Any, now: int) -> Op:
        """What a reconcile or undo tool returned."""
        try:
            value, _ = admit(value, self.facts.limits.value_bytes)
        except VMError as error:
            return self._failed_aside(StepError.of(error), now)
        if self._aside == "undo":
            self._record(self._op, SUCCESS, value, None, now)
            return self._next_undo(now)
        error, request, values = self._correction
        aside, op = self._op, self._fork
        self._aside, self._op = None, op
        done = value.get("done") if type(value) is dict else None
        self.records.append(
            (aside, f"{self.path}/reconcile", SUCCESS, value, None, values, self._started, now, None, None, None)
        )
        self.request = request
        if done is True:
            return self.resume(value.get("output"), now)
        if done is False:  # nothing happened: it may be tried again, like after an error of its own
            clean = StepError(error.kind, error.type, error.message)
            return self._retry(op, clean, now) if self._may_retry(op, clean, op.attempts) else self._failed(op, clean, now)
        hint = "; its reconcile returned " + short(value) + " and not {'done': true or false, 'output': ...}"
        return self._in_doubt(op, error, hint, now)

    def _failed_aside(self, error: StepError, now: int) -> Op:
        if self._aside == "undo":
            self._record(self._op, FAILED, None, error, now)
            self._undo_errors.append(f"undo of '{self._op.step_id.removesuffix('/undo')}' failed: {error}")
            return self._next_undo(now)
        cause, request, values = self._correction
        self.records.append(
            (self._op, f"{self.path}/reconcile", FAILED, None, error, values, self._started, now, None, None, None)
        )
        op = self._op = self._fork
        self._aside, self.request = None, request
        return self._in_doubt(op, cause, f"; its reconcile failed: {error}", now)

    # --- failures ---

    def _failed(
        self,
        op: Any,
        error: StepError,
        now: int,
        usage: LLMUsage | None = None,
        extra: dict[str, Any] | None = None,
    ) -> Op:
        """A step failed for good: the first handler that takes the error, or the end of the frame."""
        for handler in op.handlers:
            if handler.errors is None:
                if error.kind in UNSKIPPABLE:
                    continue
            elif not matches(error, handler.errors):
                continue
            by = handler.by
            caught = {"caught": handler.target.step_id or "$end"} if handler.errors is not None else {}
            if by is op:
                self._leave(op, error, now, usage, {**(extra or {}), **caught}, skip=handler.errors is None)
            else:
                self._record(op, FAILED, None, error, now, usage, extra)
                self._unwind(op, by, error, now, caught)
            return self._run(handler.target, now)
        self._record(op, FAILED, None, error, now, usage, extra)
        self._unwind(op, None, error, now, {})
        self.status = TraceStatus.FAILED
        self.error = error
        self._failed_step = op.step_id
        return self._wind_up(now)

    def _leave(
        self, op: Any, error: StepError, now: int, usage: LLMUsage | None, extra: dict[str, Any], *, skip: bool
    ) -> None:
        """Record that *op* was skipped or that its failure is caught; what it had written is cleared."""
        value: Any = UNSET
        if skip and op.has_default:
            value, _ = admit(op.default)
            extra = {**extra, "default": True}
        frame = self.frame
        frame[op.out] = value
        if op.key >= 0:
            frame[op.key] = value
        output = None if value is UNSET else value
        if skip:
            self._block_last = output
            if value is not UNSET:
                self._last = value
            elif self.frame_plan.keeps_last:
                self._last = _SKIPPED
        self._record(op, SKIPPED if skip else FAILED, output, error, now, usage, extra or None)

    def _unwind(self, op: Any, by: Op | None, error: StepError, now: int, caught: dict[str, Any]) -> None:
        """Record the loops that a failure inside them ends, inner first, up to the one that handles it."""
        around = op.owner
        while around is not None:
            if isinstance(around, LoopOp):
                state = self._loops[around.index]
                self.path, self._started, self._attempts, self.request = state[3], state[1], None, None
                extra = {"iterations": state[0]}
                if around is by:
                    self._leave(around, error, now, None, {**extra, **caught}, skip=not caught)
                    return
                self._record(around, FAILED, None, error, now, extra=extra)
            around = around.owner

    def _record(
        self,
        op: Any,
        status: StepStatus,
        output: Any,
        error: StepError | None,
        now: int,
        usage: LLMUsage | None = None,
        extra: dict[str, Any] | None = None,
    ) -> None:
        attempts = self._attempts
        if attempts:
            for attempt in attempts:
                if attempt.usage is not None:
                    usage = attempt.usage if usage is None else usage + attempt.usage
        request = self.request if op.code in (TOOL, MODEL, PAUSE) else None
        self.records.append(
            (op, self.path, status, output, error, request, self._started, now, tuple(attempts) if attempts else None, usage, extra)
        )

    # --- forks ---

    def _begin_fork(self, op: ForkOp) -> None:
        count = len(op.frames)
        if op.kind == "map":
            assert op.over is not None
            items = op.over(self.frame)
            if type(items) is not list:
                raise ExprError(f"'over' is {described(items)}, and must be a list")
            if len(items) > op.max_items:
                raise LimitExceeded(f"{len(items)} items, and max_items is {op.max_items}")
            self._fork, count = items, len(items)
        elif op.kind == "call":
            assert op.arguments is not None
            self._fork = admit(op.arguments(self.frame), self.facts.limits.value_bytes)[0]
            check = op.frames[0].check
            fault = check(self._fork) if check is not None else None
            if fault is not None:
                raise ExprError(f"inputs of the called program: {fault}")
        frames = op.frames * count if op.kind == "map" else op.frames
        self.fork_size = count
        self._granted = self.ledger.shares([frame.ceiling for frame in frames]) if count else []
        self._children: list[Machine | None] = [None] * count
        self.deadline = self._nearest(op)

    def _child_names(self, op: ForkOp) -> list[str]:
        if op.kind == "map":
            return [f"item [{i}]" for i in range(self.fork_size)]
        word = "branch" if op.kind == "parallel" else "program"
        return [f"{word} {frame.name!r}" for frame in op.frames]

    def _adopt(self, op: ForkOp) -> list[Machine]:
        """The children that were started; what they used and what they would undo becomes this machine's."""
        children = [child for child in self._children if child is not None]
        for granted, child in zip(self._granted, self._children, strict=True):
            if child is not None and child.frame:
                self.ledger.settle(granted, child.ledger)
                if child._undo:
                    self._undo = (self._undo or []) + child._undo
                child.frame = []  # adopted once; its values live on in its records
        return children

    def _join_extra(self, op: ForkOp) -> dict[str, Any]:
        children = [child.records if child is not None else [] for child in self._children]
        return {"forked": True, "children": children}

    # --- ends ---

    def _ended(self, op: Op, now: int) -> Op:
        if op.code == FAIL:
            last = self._op
            self.status = TraceStatus.FAILED
            self.error = StepError("value", "Failed", f"went to $fail after step {last.step_id!r}", False)
            self._failed_step = last.step_id
            return self._wind_up(now)
        self.skipped = self._last is _SKIPPED
        self.output = None if self.skipped else self._last
        declared = self.frame_plan.output
        if declared is not None:
            try:
                self.output, _ = admit(declared(self.frame), self.facts.limits.value_bytes)
            except VMError as error:
                self.status = TraceStatus.FAILED
                self.error = StepError.of(error)
                self._failed_step = "output"
                return self._wind_up(now)
        self.status = TraceStatus.SUCCESS
        self._op = END_OP
        return END_OP

    def _suspend(self, waiting: list[dict[str, Any]]) -> Op:
        self.status = TraceStatus.SUSPENDED
        self.waiting = waiting
        self._op = END_OP
        return END_OP

    def _wind_up(self, now: int) -> Op:
        """The run failed or was cancelled: undo what was done, last first."""
        if self._root and self._undo:
            self._undo_errors: list[str] = []
            return self._next_undo(now)
        self._op = END_OP
        return END_OP

    def _remember_undo(self, op: ToolOp) -> None:
        undo = cast(ToolOp, op.undo)
        if self._undo is None:
            self._undo = []
        try:
            values, keywords = undo.arguments(self.frame)
        except StepFault as error:
            values, keywords = (), {"": StepError.of(error)}  # told when the time for it comes
        if undo.takes_key:
            keywords["idempotency_key"] = effect_key(self.facts.run_id, f"{self.path}/undo")
        self._undo.append((undo, f"{self.path}/undo", values, keywords))

    def _next_undo(self, now: int) -> Op:
        while self._undo:
            op, path, values, keywords = self._undo.pop()
            self._aside, self._op, self.path, self.request, self.keywords = "undo", op, path, values, keywords
            self._started, self._attempts, self.delay_seconds = now, None, 0.0
            self.deadline = self.base_deadline = FOREVER  # what was done is undone even when time or money is up
            if "" not in keywords:
                return op
            error: StepError = keywords[""]
            self._record(op, FAILED, None, error, now)
            self._undo_errors.append(f"undo of '{op.step_id.removesuffix('/undo')}' failed: {error}")
        self._aside = None
        self._op = END_OP
        return END_OP

    def error_summary(self) -> str | None:
        """What `Trace.error` says: the step that failed the frame, and undo calls that failed."""
        if self.error is None:
            return None
        parts = [error_text(self._failed_step, self.error)]
        return "; ".join(parts + getattr(self, "_undo_errors", []))


class _LoopLate(StepFault):
    kind = "timeout"


class _Exhausted(StepFault):
    kind = "limit"


class _NoCase(StepFault):
    """No case of a switch fits."""


class _Skipped:
    """The output of a branch or item whose last step was skipped."""


_SKIPPED: Any = _Skipped()
END_OP = Op(code=END, type="end")


def matches(error: StepError, patterns: tuple[str, ...]) -> bool:
    """Whether *error* is one of *patterns*: its kind, its class name, or ``*``, which takes all that may be caught."""
    if error.kind in UNCATCHABLE:
        return False
    return "*" in patterns or error.kind in patterns or error.type in patterns


# Names of exceptions, anywhere in a class's ancestry, after which nobody knows whether a request arrived: Python's own
# ConnectionError and TimeoutError, requests' ConnectionError and Timeout, httpx's TransportError, aiohttp's ClientConnectionError.
_LOST = frozenset({"ConnectionError", "TimeoutError", "Timeout", "TransportError", "ClientConnectionError"})
_NEVER_SENT = frozenset({"ConnectionRefusedError", "ConnectError", "ConnectTimeout", "ConnectTimeoutError", "ClientConnectorError"})


def tool_error(op: ToolOp, error: BaseException) -> StepError:
    """What a tool's exception means. After a lost connection or a timeout of its own, a write is in doubt."""
    fault = StepError.of(error, "tool")
    unsafe = op.effect in ("write", "irreversible")
    if fault.kind == "in_doubt" and not unsafe:
        return StepError("tool", fault.type, fault.message)
    if isinstance(error, VMError):
        return fault
    names = {kind.__name__ for kind in type(error).__mro__}
    if isinstance(error, TimeoutError):
        return StepError("timeout", fault.type, fault.message)
    if unsafe and names & _LOST and not names & _NEVER_SENT:
        return StepError("in_doubt", fault.type, fault.message, retryable=False)
    return fault


def model_error(error: BaseException) -> StepError:
    """What an adapter's exception means."""
    return StepError.of(error, "timeout" if isinstance(error, TimeoutError) else "model")


def _loaded(frame_plan: FramePlan, inputs: Mapping[str, Any]) -> list[Any]:
    """A new frame with its inputs."""
    frame = [UNSET] * frame_plan.size
    defaults = frame_plan.defaults
    for name, slot in frame_plan.inputs:
        if name in inputs:
            frame[slot] = inputs[name]
        elif name in defaults:
            frame[slot] = defaults[name]
    return frame


def _budget(message: str) -> StepError:
    return StepError("budget", "BudgetExceeded", message, retryable=False)


def _too_large(limit: int) -> StepError:
    return StepError("limit", "LimitExceeded", f"value is larger than {limit} bytes")


def _state_full() -> StepError:
    return StepError("limit", "LimitExceeded", "the values of the run together are larger than its limit")


def _finally(error: StepError) -> StepError:
    """*error* of a call that was made and ended: calling again would repeat its effect."""
    return StepError(error.kind, error.type, error.message, retryable=False)
