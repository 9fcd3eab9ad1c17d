"""The state machine: outcomes in, requests out. No await, no I/O, no clock, no random number.

    request = machine.start(now)             # a ToolOp or ModelOp to call, a ForkOp, a PauseOp, an
                                             # end; or DOUBT_OP: what became of the call before?
    request = machine.resume(outcome, now)   # what came of it, see `outcome`

These are one `send` each to the machine's generator, whose locals hold what a step needs; a driver
in a hurry sets ``now`` and sends the value of a tool itself. A machine executes one frame. Branches,
items and called programs are child machines that the driver runs, at the same time or one by one:
what comes out does not depend on it. A driver reads ``given`` or ``messages``, ``path``,
``deadline`` and ``delay_seconds`` between two of these calls and changes nothing.

Rule 1: what an outcome does is decided here, the same for every driver: retry, catch, skip, in
doubt, undo, budget. Rule 2: a value in a frame is never changed, only replaced; tools get copies.
Rule 3: a record, once appended, never changes.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from types import MappingProxyType
from typing import Any, cast

from ..errors import (
    BudgetExceeded,
    ExprError,
    IllegalOutcome,
    LimitExceeded,
    StepFault,
    VMError,
)
from ..language.answers import (
    WHOLE,
    correction,
    ending,
    filtered,
    kept_reasoning,
    read_answer,
    without_reasoning,
)
from ..language.closures import Eval
from ..language.correlation import fits
from ..language.operators import described, equal
from ..language.semantics import Use
from ..language.shape import ERROR_NAMES, error_name
from ..records.record import MAX_MESSAGE, Attempt, StepError, bases_of, error_text
from ..records.recording import Recording, seed_of
from ..records.status import RUNNING, SUCCEEDED, StepStatus, TraceStatus
from ..records.usage import LLMUsage
from ..values import (
    CONTAINERS,
    MINUS_SMALL_INT,
    NODE_BYTES,
    SMALL_INT,
    SMALL_TEXT,
    UNSET,
    NotPlain,
    admit,
    canonical,
    converted,
    is_small,
    plain_copy,
    short,
    writable,
)
from .arguments import ROOM
from .billing import (
    Meter,
    Served,
    charge_of,
    most_of,
    priced,
    serving,
    tokens_of,
    unpriced,
)
from .faults import (
    CANCELLED,
    CANCELLED_AT_END,
    FATAL,
    NOTHING_USED,
    ONLY_NAMED,
    UNKNOWN_OUTCOME,
    UNSKIPPABLE,
    backoff,
    effect_key,
    matches,
)
from .forks import Fork, together
from .ledger import DEFAULT_MAX_TOKENS, UNLIMITED, Ledger, token_bound
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
    outcome_json,
)
from .plan import (
    ASSERT,
    BRANCH,
    CLOSE,
    DOUBT,
    END,
    FAIL,
    FOREVER,
    FORK,
    LOOP,
    MODEL,
    PAUSE,
    SET,
    STOP,
    SWITCH,
    TEST,
    TOOL,
    WHEN,
    AssertOp,
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
    StopOp,
    SwitchOp,
    TestOp,
    ToolOp,
    WhenOp,
)
from .terms import DEFAULT_TERMS, RunTerms

_ILLEGAL = "{} {!r} cannot have the outcome {!r}"
_NO_STEP = "the run has used all its steps (max_steps)"

RESOLVED = "resolved"
"""Where a record keeps what somebody said of a call in doubt, if that was no success."""

OTHER: Any = object()  # sent in place of a tool's value

KEPT_ANSWER_CHARS = 10_000
"""Of an invalid answer a record keeps as much; a longer one cannot be judged again."""

_UNUSABLE = frozenset({"invalid_answer", *ONLY_NAMED})

SUCCESS, FAILED, SKIPPED = StepStatus.SUCCESS, StepStatus.FAILED, StepStatus.SKIPPED


class Machine:
    """The execution of one frame of a plan, under *terms*; ``run_id``, ``seed`` and ``inputs`` are
    those of the run, and never drawn here.
    """

    # What every run sets or each step looks at is a slot; what few runs need has its default here,
    # costs nothing until it is set, and is then in the instance's dict. CPython 3.11 finds a slot at
    # once, and an attribute that the class has a default of eight times as slowly; and of the names
    # in a dict it shares between instances only those that the first of them have set.
    __slots__ = (
        "__dict__",
        "_attempts",
        "_block_last",
        "_counts",
        "_doubt",
        "_last",
        "_loops",
        "_lost_attempts",
        "_op",
        "_prefix",
        "_started",
        "base_deadline",
        "deadline",
        "delay_seconds",
        "fixed_deadline",
        "frame",
        "frame_name",
        "frame_plan",
        "given",
        "handed",
        "ledger",
        "now",
        "output",
        "path",
        "recorded",
        "records",
        "request",
        "run_id",
        "skipped",
        "status",
        "steps",
        "terms",
        "watched",
    )

    run_id: str
    seed: int | None = None
    inputs: Mapping[str, Any] = MappingProxyType({})  # that the policy's value checks read
    now: int
    status: TraceStatus
    deadline: int
    base_deadline: int  # of a budget's max_seconds, which leaves waits out
    _deadline_error: StepError | None = None
    fixed_deadline: int  # of the timeout_seconds around, which do not
    _fixed_error: StepError | None = None
    _prefix: str  # how paths in the frame begin
    frame_name: str  # the frame's identity in the run; the run's own has none
    steps: Generator[Op, Any, None]  # from the start to the end
    path: str
    request: Any
    given: tuple[Any, ...]  # what a tool receives, in the order of `ToolOp.receives`
    messages: list[dict[str, Any]]
    # copies of `messages` for an adapter, where its answer may be sent as it is: a text, or text,
    # usage and what is recorded beside it
    handed: list[Any] | None
    # whether somebody looks at the machine before a call; a driver that does not says so
    watched: bool
    # whether the value that is sent next is a recorded one, which nobody changes: it needs no copy
    recorded: bool
    delay_seconds: float
    output: Any
    error: StepError | None = None
    # the exception of the last call that failed, where the driver had one
    raised: BaseException | None = None
    waiting: Sequence[dict[str, Any]] = ()
    # whether the request is a call beside a step's own: "undo", "reconcile"
    side_call: Use | None = None
    # whether the run is being cancelled, and the request is what must come before its end
    cancelling = False
    skipped: bool
    _ask: Op  # the request to make
    _op: Any
    _started: int
    _attempts: list[Attempt] | None
    _outcome: Outcome  # that was given last, but for values that were sent
    # outcomes that the record of the step does not tell and that are kept beside it, as JSON
    _kept: dict[str, Any] | None = None
    # whether the frame failed with an error that no record of its own tells
    end_failed = False
    # An error as it is recorded, where the run is computed again: so no change of a message changes
    # what a run that was recorded did. Given its path, how many attempts came before, and itself.
    worded: Callable[[str, int, StepError], StepError] | None = None
    # Likewise how many tokens a prompt was counted to have, where that is recorded.
    counted: Callable[[str, int], int | None] | None = None
    _counts_kept: list[int] | None = None  # of the requested call, by attempt
    _last: Any
    _block_last: Any
    # when the frame began, if that was in another process; monotonic here
    begun_ns: int | None = None
    waited_ns = 0  # of the frame's time, waits and approvals
    _ends_by = FOREVER  # the deadline of the frame's own program
    _undo: list[tuple[ToolOp, str, tuple[Any, ...], tuple[Any, ...] | StepError]] | None = None
    _undo_errors: list[str] | None = None
    _counts: dict[str, int] | None  # runs of steps that can run twice, by path
    # by LoopOp.index: iteration, start, deadline, path, how paths in the iteration begin
    _loops: dict[int, list[Any]] | None
    # by WhenOp.index: what the condition read when it held
    _whens: dict[int, dict[str, Any]] | None = None
    fork: Fork[Machine]  # that is requested
    # what a reconcile is about: op, error, path, request, what is given, what else is known; when
    _call: tuple[ToolOp, StepError, str, Any, tuple[Any, ...], str, int]
    _doubt: StepError | None  # why an earlier attempt of this call may have taken effect
    # whether a call was lost with its process: then a person is waited for also where the run is
    # cancelled
    _crashed = False
    # a call in doubt, while that is the request: its op, its error, what it was asked
    _question: tuple[ToolOp, StepError, Any]
    _resolving = False  # whether a value is taken that somebody says a call in doubt gave
    _original: list[dict[str, Any]]
    _reserved = 0
    _reserved_cost: Decimal | None = None
    # whether the value that is sent next was known, and the tool not called; a driver's
    cached = False
    # of the requested model call, where budgets outside of the machine count it; a driver's
    meter: Meter | None = None
    # attempts at the requested call that were lost in a crash
    _lost_attempts: tuple[list[int], bool] | None
    failed_step = ""

    def __init__(
        self, frame_plan: FramePlan, frame: list[Any], terms: RunTerms, ledger: Ledger
    ) -> None:
        self.frame_plan = frame_plan
        self.frame = frame
        self.terms = terms
        self.ledger = ledger
        self.records: list[Any] = []
        self.run_id = self.frame_name = self.path = self._prefix = ""
        self.now = self._started = 0
        self.status = RUNNING
        self.deadline = self.base_deadline = self.fixed_deadline = FOREVER
        self.delay_seconds = 0.0
        self.given = ()
        self.watched = True
        self.recorded = self.skipped = False
        self.output = self._last = self._block_last = self.handed = self.request = None
        self._op = self._attempts = self._doubt = self._counts = self._loops = None
        self._lost_attempts = None

    def end_by_budget(self, deadline: int) -> None:
        """Before the start: the budget's max_seconds end then, waits left out."""
        self.base_deadline = self.deadline = deadline
        self._deadline_error = _budget("the budget's max_seconds is used up")

    # --- what a driver calls ---

    def start(self, now: int) -> Op:
        """The first request; *now* is monotonic nanoseconds, here and everywhere."""
        self.now = now
        if self.frame_plan.timeout_ns and not self.frame_name:
            self._end_by(now + self.frame_plan.timeout_ns)
        self.steps = self._steps()
        return self.steps.send(None)

    def resume(self, outcome: Outcome, now: int) -> Op:
        """The next request, after what came of this one.

        Raises:
            IllegalOutcome: If the request cannot have such an outcome (see `LEGAL`): a fault of the
                driver, after which the machine is broken.
        """
        if self.status is not RUNNING and self.side_call is None:
            if type(outcome) is Cancelled:
                return self._cancelled_at_end(now)
            raise IllegalOutcome(f"the run has ended, and is given {outcome!r}")
        self.now = now
        if type(outcome) is Value and self.handed is None and self._op is not DOUBT_OP:
            if outcome.cached:
                self.cached = True
            return self.steps.send(outcome.value)
        self._outcome = outcome
        return self.steps.send(OTHER)

    def lose(self, op: Op, begun: Sequence[int], *, settled: bool = False) -> StepError | None:
        """Take that attempts at the requested call *op* were lost with their process: each counts
        on the budgets, but the last where it is *settled* what became of it, since its outcome is
        that of the call. The error, where nothing is left for another attempt.

        *begun* are the times at which they were begun, since the epoch: they are recorded beside
        the step's digest.
        """
        if op is not self._op or self.side_call == "reconcile":
            # what a reconcile lost is not the step's that it is asked about
            return None
        before = self._lost_attempts[0] if self._lost_attempts is not None else []
        self._lost_attempts = [*before, *begun], settled
        self.handed = None  # the answer is recorded with what was lost, not on the short way
        count, ledger = len(begun) - settled, self.ledger
        if self.side_call is not None:
            return None
        if op.code == TOOL:
            enough = ledger.take_tool_calls(count)
            return None if enough else _budget(_LOST_CALLS.format("tool calls", "max_tool_calls"))
        if not ledger.take_llm_calls(count):
            return _budget(_LOST_CALLS.format("model calls", "max_llm_calls"))
        own = self._reserved, self._reserved_cost
        for _ in range(count):
            refusal = self._reserve(cast(ModelOp, op))  # what is reserved for it is spent
            self._reserved, self._reserved_cost = own
            if refusal is not None:
                return refusal
        return None

    def kind_of(self, op: Op) -> str:
        """What kind of request *op* is now, as `LEGAL` names it."""
        if op.code == DOUBT:
            return "in_doubt"
        return self.side_call or ("fork" if op.code == FORK else op.type)

    @property
    def keywords(self) -> dict[str, Any]:
        """What the requested tool receives, by name."""
        return dict(zip(self._op.receives, self.given, strict=True))

    @property
    def reached_ns(self) -> int:
        """When the step of the request was reached: that of a pause, when it began."""
        return self._started

    @property
    def retrying(self) -> bool:
        """Whether the request is another attempt of one made before."""
        return bool(self._attempts) and self.side_call is None

    @property
    def failed_attempt(self) -> Attempt | None:
        """The attempt that failed last, where the request is another of the same call."""
        return self._attempts[-1] if self._attempts and self.side_call is None else None

    @property
    def broken(self) -> bool:
        """Whether an exception of our own ended the machine: a fault of this package, not an
        outcome.
        """
        steps: Any = getattr(self, "steps", None)  # it has none before its start and after its end
        return steps is not None and steps.gi_frame is None

    @property
    def reserves(self) -> bool:
        """Whether a model call must be reserved."""
        return self.ledger.tokens < UNLIMITED or self.ledger.cost is not None

    def child(self, number: int) -> Machine:
        """The machine of one branch or item of the requested fork, which is `ready`."""
        op, fork = self._op, self.fork
        frame_plan = fork.plan_of(number)
        budget = frame_plan.budget
        bound = Ledger.of(self.terms.limits, budget) if budget is not None else None
        ledger = fork.share(number, bound)
        if op.kind == "call":
            frame = loaded(frame_plan, fork.given)
        else:
            frame = self.frame.copy()
        child = Machine(frame_plan, frame, self.terms, ledger)
        child.run_id = self.run_id
        if self.seed is not None:
            child.seed = self.seed
        if self.inputs:
            child.inputs = self.inputs
        if self.counted is not None:  # it is computed again
            child.counted, child.worded = self.counted, self.worded
        child.frame_name = f"{self.path}:{number}"
        if op.kind == "map":
            frame[op.item] = fork.given[number]
            child._prefix = f"{self.path}[{number}]/"
        else:
            child._prefix = f"{self.path}/"
        if self.deadline < FOREVER or op.timeout_ns or op.kind == "call":
            self._bound(child, op)
        fork.children[number] = child
        return child

    def _bound(self, child: Machine, op: ForkOp) -> None:
        """Deadlines of a *child* of the requested fork: those around the fork, and its own."""
        frame_plan, started = child.frame_plan, self._started
        fixed, fixed_error = self._fixed(op)
        if op.timeout_ns and started + op.timeout_ns < fixed:
            fixed = started + op.timeout_ns
            fixed_error = _timeout(f"{op.step_id!r} did not end within {op.timeout_ns / 1e9:g} s")
        deadline, error = self.base_deadline, self._deadline_error
        seconds = frame_plan.budget.max_seconds if frame_plan.budget is not None else None
        if seconds is not None and started + int(seconds * 1e9) < deadline:
            deadline = started + int(seconds * 1e9)
            error = _budget(f"the max_seconds of program {frame_plan.name!r} are used up")
        child.base_deadline = child.deadline = deadline
        child._deadline_error = error
        child.fixed_deadline, child._fixed_error = fixed, fixed_error
        if frame_plan.timeout_ns:  # from when it was called, whichever process it goes on in
            child._end_by(started + frame_plan.timeout_ns)

    def _joined(self) -> Op | None:
        op, fork = self._op, self.fork
        self._adopt()
        children, extra = fork.begun, fork.recorded()
        waiting = [entry for child in children if child.waiting for entry in child.waiting]
        ways = {child.status for child in children}
        if (len(children) < fork.size and fork.held_up) or TraceStatus.CANCELLED in ways:
            return self._cancellation(called=True)
        if waiting:
            self._record(op, StepStatus.SUSPENDED, None, None, extra=extra)
            return self._suspend(waiting)
        lost = fork.lost() if TraceStatus.FAILED in ways else []
        for number in lost:
            cause = cast(StepError, children[number].error)
            if not op.goes_on or cause.kind in FATAL:
                self.raised = children[number].raised
                text = error_text(children[number].failed_step, cause)
                message = f"{fork.title(number)}: {text}"
                inner = replace(cause, message=message, retryable=False)
                return self._failed(op, inner, extra=extra)
        if op.timeout_ns and self.now >= self._started + op.timeout_ns:
            return self._failed(
                op, _timeout(f"did not end within {op.timeout_ns / 1e9:g} s"), extra=extra
            )
        if self.ledger.state < 0:  # before the join allocates
            return self._failed(op, _state_full(), extra=extra)
        return self._gathered(op, lost, extra)

    def _gathered(self, op: ForkOp, lost: list[int], extra: dict[str, Any]) -> Op | None:
        """The fork succeeded, though children may be *lost*: what they gave is its output."""
        fork, limit = self.fork, self.terms.limits.value_bytes
        skipped = fork.skipped() if op.kind != "call" else []
        if skipped:
            extra["skipped"] = skipped
        if lost:
            extra["failed"] = [fork.name(number) for number in lost]
        try:
            value, size = admit(fork.gathered(), limit)
            if op.errors >= 0:
                errors, more = admit(fork.errors(lost), limit)
                size += more
        except VMError as error:
            return self._failed(op, StepError.of(error), extra=extra)
        if op.errors >= 0 and size <= self.ledger.state:
            self.frame[op.errors] = errors
        return self._answered(op, value, size, None, extra)

    @property
    def gave(self) -> Any:
        """What a branch or item gives at the join; null where it failed."""
        return self.output if self.status is SUCCEEDED else None

    def _partial(self, op: ForkOp, joined: bool) -> tuple[Any, list[Any]]:
        """What the children of a failed fork gave, with null for those that failed, and which these
        are; where they did not end, or their values are too large together, null for each.
        """
        count = self.fork.size if joined else len(op.frames) if op.kind != "map" else 0
        nothing = together(op, [None] * count)
        if not joined:
            return nothing, []
        lost = [self.fork.name(number) for number in self.fork.lost()]
        try:
            value, size = admit(self.fork.gathered(), self.terms.limits.value_bytes)
        except VMError:
            return nothing, lost
        if size > self.ledger.state:
            return nothing, lost
        self.ledger.state -= size
        return value, lost

    # --- the loop ---

    def _steps(self) -> Generator[Op, Any, None]:
        """Go on from op to op; what is yielded is a request, what is sent a tool's value, or
        `OTHER` beside `_outcome`.

        A tool call whose arguments and value are as they mostly are is written out here, in locals,
        and costs half a microsecond; all else calls a method. A method gives the op to go on with,
        or None to make the request `_ask` (again).
        """
        frame, ledger, records = self.frame, self.ledger, self.records
        watched, limit = self.watched, self.terms.limits.value_bytes
        # a host may set a limit below that of what is not counted
        lenient = limit >= SMALL_TEXT
        short = SMALL_TEXT if lenient else limit + 1
        last: Any = None  # the op before, where `_op` is not told of it
        request: Any
        fuel = ledger.steps
        self.deadline = self.base_deadline
        if self.fixed_deadline < self.deadline:
            self.deadline = self.fixed_deadline
        unbounded = self.deadline >= FOREVER
        calm = unbounded and ledger.tool_calls >= UNLIMITED
        unmetered = (
            unbounded
            and ledger.llm_calls >= UNLIMITED
            and ledger.tokens >= UNLIMITED
            and ledger.cost is None
        )
        op: Any = self.frame_plan.entry
        follow: Any
        # What decides whether a step is as it mostly is, is asked for its truth only: a comparison
        # with a long way to the other branch is not specialised, and costs ten times as much.
        while True:
            if op.quick and fuel and (calm or self._within()):
                fuel -= 1
                started = self.now
                if op.rooted:
                    where = None  # the op's own
                elif (where := op.path) is None:
                    where = self._path_of(op)
                else:
                    where = self._prefix + where
                try:
                    if (known := op.constant) is not None:
                        request, self.given = known
                    elif (known := op.passing) is not None and type(frame[op.slot]) in known:
                        request = self.given = (frame[op.slot],)
                    else:
                        take = op.take  # called as a method it is looked up by its descriptor
                        request, self.given = take(frame)
                except StepFault as error:
                    self._reach(op, where, None, started, fuel)
                    follow = self._failed(op, StepError.of(error))
                else:
                    if watched:  # as `_reach`
                        ledger.steps, self._op, self.request = fuel, op, request
                        self.path = op.path if where is None else where
                        self._started, self._attempts, self._doubt = started, None, None
                    value = yield op
                    if (not watched or self._lost_attempts is None) and (
                        ((kind := type(value)) is str and len(value) < short and value.isascii())
                        or (kind is not dict and kind is not list and lenient and is_small(value))
                        or (value := self._admitted(value, limit)) is not OTHER
                    ):
                        frame[op.out] = frame[op.key] = self._last = self._block_last = value
                        records.append((op.index, value, request, started, self.now, where))
                        last = op
                        op = op.next
                        continue
                    self._reach(op, where, request, started, fuel)
                    follow = self._taken(value)
            elif (code := op.code) in _HERE and fuel:
                fuel -= 1
                where = op.path
                if where is None:
                    where = self._path_of(op)
                elif not op.rooted:
                    where = self._prefix + where
                try:
                    follow = _HERE[code](self, op, where)
                except StepFault as error:
                    self._reach(op, where, None, self.now, fuel)
                    follow = self._failed(op, StepError.of(error))
                else:
                    if follow is not None:
                        last, op = op, follow
                        continue
                    self._reach(op, where, None, self.now, fuel)
                    follow = self._failed(op, _no_branch(op))
            elif code == MODEL and unmetered and op.plain and fuel:
                fuel -= 1
                started = self.now
                where = op.path
                if where is None:
                    where = self._path_of(op)
                elif not op.rooted:
                    where = self._prefix + where
                try:
                    messages, self.handed, few = op.take(frame)
                    if not few or limit < ROOM:
                        admit(messages, limit)
                except StepFault as error:
                    self.handed = None
                    self._reach(op, where, None, started, fuel)
                    follow = self._failed(op, StepError.of(error))
                else:
                    self.messages = self._original = messages
                    request = {"messages": messages, **op.asked}
                    if watched:
                        self._reach(op, where, request, started, fuel)
                    value = yield op
                    self.handed = None
                    if value is OTHER or (watched and self._lost_attempts is not None):
                        self._reach(op, where, request, started, fuel)
                        follow = self._taken(value)
                    else:
                        text, usage, extra = (value, None, None) if type(value) is str else value
                        if usage is not None:
                            usage, extra = self._priced(op, usage, extra)
                        size = len(text)
                        if (
                            (op.text or (op.allowed is not None and text in op.allowed))
                            and size <= limit
                            and size <= ledger.state
                            and text.isascii()
                            and "think>" not in text
                            and (extra is None or _is_whole(extra))
                        ):
                            if not op.text:  # a label: the record also says what the answer was
                                extra = {**(extra or {}), "answer": text}
                            ledger.state -= size
                            frame[op.out] = frame[op.key] = self._last = self._block_last = text
                            records.append((op, where, SUCCESS, text, None, request, started, self.now,
                                    None, usage, extra))  # fmt: skip
                            last, op = op, op.next
                            continue
                        self._reach(op, where, request, started, fuel)
                        follow = self._answer(text, usage, extra)
            elif code == WHEN:
                ledger.steps = fuel - 1
                follow = self._when(op)
            elif code == CLOSE:
                frame[op.out] = frame[op.key] = self._block_last
                op = op.next
                continue
            elif code in (END, FAIL):
                ledger.steps = fuel
                if self.status is RUNNING:
                    self._op = last or self._op
                    follow = self._ended(op)
                    while follow is None:
                        follow = self._taken((yield self._ask))
                del self.steps  # or generator and machine would keep each other alive
                yield END_OP
                return
            elif code == TEST:
                ledger.steps = fuel
                follow = self._test(op)
            else:
                ledger.steps = fuel - 1
                follow = self._begin(op)
            while follow is None:
                follow = self._taken((yield self._ask))
            fuel, last = ledger.steps, None
            # a pause is not counted on max_seconds
            self.deadline = FOREVER if unbounded else min(self.base_deadline, self.fixed_deadline)
            op = follow

    def _admitted(self, value: Any, limit: int) -> Any:
        """What is kept of the *value* of the requested call, and charged; `OTHER` where it cannot be
        taken, which is the call's outcome then.
        """
        kind = type(value)
        try:
            if kind is dict or kind is list:  # as `admit`
                try:
                    kept, size = plain_copy(value, limit)
                    if self.recorded:
                        kept = value
                except NotPlain:
                    kept, size = converted(value, limit)
            elif value is OTHER:
                return value
            else:
                kept, size = admit(value, limit)
                kind = type(kept)
                if size < SMALL_TEXT if kind is str else kind not in CONTAINERS and is_small(kept):
                    return kept
        except VMError as error:
            self._outcome = BadResult(StepError.of(error))
            return OTHER
        ledger = self.ledger
        if size > ledger.state:
            self._outcome = BadResult(_state_full(), size=size)
            return OTHER
        ledger.state -= size
        return kept

    def _within(self) -> bool:
        """Whether deadlines and budget leave room for a tool call, which is then counted."""
        if self.now >= self.deadline:
            return False
        ledger = self.ledger
        left = ledger.tool_calls
        if left < UNLIMITED:
            if left <= 0:
                return False
            ledger.tool_calls = left - 1
        return True

    def _reach(self, op: Op, where: str | None, request: Any, started: int, fuel: int) -> None:
        """Keep what the requested call is, for those who look at it, and for its outcome."""
        self.ledger.steps = fuel
        self._op, self.request, self._started = op, request, started
        self.path = op.path if where is None else where  # type: ignore[assignment]
        self._attempts = self._doubt = None

    def _taken(self, value: Any) -> Op | None:
        """What follows a tool's *value*, or the other outcome that waits in `_outcome`."""
        if value is OTHER:
            return self._take(self._outcome)
        if self._op.code != TOOL:  # what a model answered is sent only where `handed` is
            raise IllegalOutcome(_ILLEGAL.format(self.kind_of(self._op), self.path, Value(value)))
        return self._value(value)

    def _take(self, outcome: Outcome) -> Op | None:
        """What follows *outcome*."""
        kind = self.kind_of(self._op)
        if type(outcome) not in LEGAL[kind]:
            raise IllegalOutcome(_ILLEGAL.format(kind, self.path, outcome))
        if kind == "in_doubt":
            return self._doubt_ended(outcome)
        match outcome:
            case Answer(text, usage, extra):
                return self._answer(text, *self._priced(self._op, usage, extra))
            case Failed(error, usage, by, extra):
                if self._op.code == PAUSE:
                    return self._decided(False, {"approved": False, "reason": None}, by, error)
                usage, beside = self._priced(self._op, usage, extra)
                return self._failure(error, usage=usage, extra=beside if extra else None)
            case TimedOut(called, usage, extra):
                return self._expiry(called, self._priced(self._op, usage)[0], extra)
            case Cancelled(called):
                return self._cancellation(called)
            case Suspended():
                return self._pause()
            case Decided(approved, reason, by):
                return self._decided(approved, {"approved": approved, "reason": reason}, by)
            case Arrived(payload):
                return self._decided(True, payload, None)
            case Unknown(error, crashed, ask):
                return self._lost(error, crashed, ask)
            case BadResult(error, None, usage, extra, size):
                self._keep(outcome)
                return self._bad_result(error, usage, extra, size)
            case BadResult(error, str(answer), usage, extra):
                return self._rejected(answer, error, *self._priced(self._op, usage, extra))
            case NotCalled(error):
                return self._not_called(error)
            case Joined():
                return self._joined()
        raise AssertionError(outcome)

    def _value(self, value: Any) -> Op | None:
        """Take what a tool returned, whatever it is."""
        if self.side_call is not None:
            return self._value_aside(value)
        op: ToolOp = self._op
        # as on the short way: what a run has used must not hang on which way it went
        value = self._admitted(value, self.terms.limits.value_bytes)
        if value is OTHER:
            refused = cast(BadResult, self._outcome)
            self._keep(refused, RESOLVED if self._resolving else "outcome")
            return self._bad_result(refused.error, size=refused.size)
        self._doubt = None
        self._write(op, value)
        self._record(op, SUCCESS, value, None, extra={"cached": True} if self.cached else None)
        self.cached = False
        if op.undo is not None:
            self._remember_undo(op)
        return op.next

    def _bad_result(
        self,
        fault: StepError,
        usage: LLMUsage | None = None,
        extra: dict[str, Any] | None = None,
        size: int = 0,
    ) -> Op | None:
        """The call was made and its value cannot be taken: another call would repeat its
        effect.
        """
        op: Any = self._op
        self.ledger.state -= size
        if op.code == MODEL:
            self._settle(usage)
            return self._failed(op, fault, usage, extra)
        self._doubt = None
        self.frame[op.out] = UNSET
        if op.undo is not None:
            self._remember_undo(op)
        return self._failed(op, replace(fault, retryable=False))

    def _keep(self, outcome: Outcome, name: str = "outcome") -> None:
        """Keep *outcome* beside the step's record, which does not tell it; the first one counts."""
        self._kept = {name: outcome_json(outcome), **(self._kept or {})}

    def _as_recorded(self, error: StepError, path: str | None = None) -> StepError:
        """*error*, in the words that were recorded where the run is computed again."""
        if self.worded is None:
            return error
        attempts = len(self._attempts) if self._attempts else 0
        return self.worded(self.path if path is None else path, attempts, error)

    def _write(self, op: Op, value: Any) -> None:
        """A step's output: into its slots, and last of its block and frame."""
        frame = self.frame
        frame[op.out] = frame[op.key] = self._last = self._block_last = value

    def _begin(self, op: Any) -> Op | None:
        """Begin a step: None, with its request in `_ask`, or what follows where it needs nothing
        outside.
        """
        code = op.code
        now = self._started = self.now
        self._op, self._attempts, self._doubt, self.request = op, None, None, None
        self.path = self._path_of(op)
        ledger = self.ledger
        if ledger.steps < 0:
            ledger.steps = 0
            return self._failed(op, _budget(_NO_STEP))
        try:
            if code == TOOL:
                if not ledger.take_tool_calls():
                    raise BudgetExceeded("the run has used all its tool calls (max_tool_calls)")
                self._take_arguments(op)
            elif code == MODEL:
                if not ledger.take_llm_calls():
                    raise BudgetExceeded("the run has used all its model calls (max_llm_calls)")
                self._begin_model(op)
            elif code == FORK:
                self._begin_fork(op)
            elif code == LOOP:
                return self._enter_loop(op)
            elif code == ASSERT:
                return self._assert(op)
            elif code == STOP:
                return self._stop(op)
            else:
                assert code == PAUSE
                self.request, _ = admit(op.request(self.frame), self.terms.limits.value_bytes)
        except StepFault as error:
            return self._failed(op, StepError.of(error))
        self.deadline = self._nearest(op)
        if now >= self.deadline:
            return self._failed(op, cast(StepError, self._expired()), _uncalled(op))
        refusal = self._reserve(op) if code == MODEL else None
        if refusal is not None:
            return self._failed(op, refusal)
        if code == PAUSE:
            self.deadline = self._fixed(op)[0]
        self._ask = op
        return None

    def _take_arguments(self, op: ToolOp) -> None:
        """What a call is made with: fresh for each attempt, since the one before may have changed
        what it was given.
        """
        self.request, self.given = self._arguments(op, self.path)

    def _arguments(self, op: ToolOp, path: str) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """The values of a call that the policy lets pass, as recorded and as the tool receives
        them; the idempotency key is the last of these.
        """
        values, given = op.take(self.frame)
        for position, name, _, enforce in op.checks:
            enforce(values[position], given[op.receives.index(name)], self.inputs)
        if op.takes_key:
            given = (*given, effect_key(self.run_id, path))
        return values, given

    def _branch(self, op: BranchOp, path: str) -> Op | None:
        """A condition: the branch it takes, None where that is not there and has to be."""
        frame = self.frame
        found = op.test(frame)
        which = 0 if found else 1
        if op.missing[which]:
            return None
        frame[op.out] = frame[op.key] = label = op.labels[which]
        self._block_last = None
        branch, read = "then" if found else "otherwise", op.capture(frame)
        if op.brief:
            now = self.now
            self.records.append(
                (op, path, SUCCESS, label, None, None, now, now, None, None, (branch, read))
            )
        else:
            self._done(op, path, label, {"branch": branch, "references": op.show(read)})
        return op.then if found else op.otherwise

    def _done(self, op: Any, path: str, output: Any, extra: dict[str, Any] | None) -> None:
        """Record a step that needed nothing outside."""
        now = self.now
        if op.brief:
            self.records.append(
                (op, path, SUCCESS, output, None, None, now, now, None, None, extra)
            )
            return
        self.path, self._started, self._attempts, self.request = path, now, None, None
        self._record(op, SUCCESS, output, None, extra=extra)

    def _when(self, op: WhenOp) -> Op | None:
        """Whether a step runs: the step, or what follows where it is skipped. The step or its skip
        counts, not both.
        """
        self._started = self.now
        self._op, self._attempts, self._doubt, self.request = op, None, None, None
        try:
            if self.ledger.steps < 0:
                self.ledger.steps = 0
                raise BudgetExceeded(_NO_STEP)
            found = op.test(self.frame)
        except StepFault as error:
            self.path = self._path_of(op)
            return self._failed(op, StepError.of(error))
        seen = op.show(op.capture(self.frame))
        if found:
            self.ledger.steps += 1
            if self._whens is None:
                self._whens = {}
            self._whens[op.index] = seen
            return op.next
        self.path = self._path_of(op)
        self._leave(op, None, None, {"branch": "unless", "references": seen}, skip=True)
        return op.unless

    def _path_of(self, op: Op) -> str:
        """The path of *op* as it is reached now; a second run in this frame is another path."""
        if op.path is not None:
            return self._prefix + op.path
        if op.loop_around >= 0:
            return self._loops[op.loop_around][4] + op.tail  # type: ignore[index,no-any-return]
        if op.owner is None:
            base = self._prefix + op.step_id
        else:
            base = self._inner_path(op)
        return self._counted(base) if op.twice else base

    def _counted(self, base: str) -> str:
        """The path of what is reached at *base* once more."""
        counts = self._counts
        if counts is None:
            counts = self._counts = {}
        count = counts[base] = counts.get(base, 0) + 1
        return base if count == 1 else f"{base}#{count}"

    def _inner_path(self, op: Op) -> str:
        owner = op.owner
        if owner is None:
            return self._prefix + op.step_id
        if isinstance(owner, LoopOp):
            return cast(str, self._loop(owner)[4]) + op.step_id
        around = self._inner_path(owner)
        if owner.twice:
            count = (self._counts or {}).get(around, 1)
            around = around if count == 1 else f"{around}#{count}"
        return f"{around}/{op.step_id}"

    # --- steps that need no outside ---

    def _switch(self, op: SwitchOp, path: str) -> Op:
        value = op.on(self.frame)
        if type(value) in (list, dict):
            raise ExprError(
                f"'on' is {described(value)}; a switch takes a string, a number, true, false or null"
            )
        case = value if type(value) is str else _case_of(op, value)
        target = op.cases.get(case)
        if target is None:
            case, target = "default", op.other
            if target is None:
                raise NoCase(f"no case for {short(value)}, and no default")
        frame = self.frame
        frame[op.out] = frame[op.key] = label = op.labels[case]
        self._block_last = None
        self._done(op, path, label, {"branch": case, "references": {"on": value}})
        return target

    def _set(self, op: SetOp, path: str) -> Op:
        frame, values, total = self.frame, {}, 0
        for name, _, get in op.values:
            value = get(frame)
            if type(value) is int and MINUS_SMALL_INT < value < SMALL_INT:
                size = NODE_BYTES
            else:
                value, size = admit(value, self.terms.limits.value_bytes)
            values[name] = value
            total += size
        self._charge(total)
        for name, slot, _ in op.values:
            frame[slot] = values[name]
        frame[op.out] = frame[op.key] = self._last = self._block_last = values
        self._done(op, path, values, None)
        return op.next

    def _assert(self, op: AssertOp) -> Op | None:
        """Go on where the condition is true; it leaves the last output of its block as it is."""
        held, read = op.test(self.frame), op.capture(self.frame)
        extra: Any = {"references": op.show(read)}
        if not held:
            error = StepError("assertion", "AssertionError", self._said(op.message), False)
            return self._failed(op, error, extra=extra)
        self.frame[op.out] = self.frame[op.key] = True
        self._record(op, SUCCESS, True, None, extra={"branch": "holds", **extra})
        return op.next

    def _stop(self, op: StopOp) -> Op | None:
        """End the frame with the error that the program names."""
        name, message = op.named(self.frame), self._said(op.message)
        if not error_name(name):
            message = f"{short(name)} cannot be the name of an error ({ERROR_NAMES}): {message}"
            name = "Failed"
        return self._failed(op, StepError("value", name, message, False))

    def _said(self, template: Eval) -> str:
        """The message of a failure, which is one also where its message cannot be computed."""
        try:
            text: str = template(self.frame)
        except StepFault as error:
            return f"its message cannot be computed: {error}"
        return text if len(text) <= MAX_MESSAGE else text[:MAX_MESSAGE] + "..."

    def _loop(self, op: LoopOp) -> list[Any]:
        """How the entered loop *op* stands."""
        assert self._loops is not None
        return self._loops[op.index]

    def _enter_loop(self, op: LoopOp) -> Op | None:
        deadline = self.now + op.timeout_ns if op.timeout_ns else FOREVER
        if self._loops is None:
            self._loops = {}
        self._loops[op.index] = [1, self.now, deadline, self.path, f"{self.path}#1/"]
        self._block_last = None
        return op.next

    def _test(self, op: TestOp) -> Op | None:
        """The end of an iteration: the body again, or what follows the loop."""
        state = self._loop(op.loop)
        self._op, self.path, self._started, self._attempts, self.request = (
            op,
            state[3],
            state[1],
            None,
            None,
        )
        try:
            if self.now >= state[2]:
                raise LoopTimeout(f"did not end within {op.loop.timeout_ns / 1e9:g} s")
            done = op.until is not None and op.until(self.frame)
            if not done and state[0] >= op.loop.max_iterations and op.exhausted is None:
                raise LoopExhausted(f"'until' did not hold within {state[0]} iterations")
        except StepFault as error:
            return self._failed(op, StepError.of(error))
        if not done and state[0] < op.loop.max_iterations:
            state[0] += 1
            state[4] = f"{state[3]}#{state[0]}/"
            self._block_last = None
            return op.again
        value = self._block_last
        self.frame[op.out] = self.frame[op.key] = self._last = value
        self._record(
            op, SUCCESS, value, None, extra={"iterations": state[0], "exhausted": not done}
        )
        return op.next if done else cast(Op, op.exhausted)

    def _pause(self) -> Op | None:
        """Nothing came yet, or the call is not to be made now: the run is left as it is, to be
        resumed later.
        """
        op = self._op
        self._record(op, StepStatus.SUSPENDED, None, None)
        asked = self.request
        if op.code == TOOL:
            asked = {
                "kind": "effect",
                "tool": op.tool,
                "request": dict(zip(op.names, asked, strict=True)),
            }
        return self._suspend([{"path": self.path, "step_id": op.step_id, **asked}])

    def _leave_out(self, waited_ns: int) -> None:
        """A budget's max_seconds leaves waiting out."""
        self.waited_ns += waited_ns
        if self.base_deadline < FOREVER:
            self.base_deadline += waited_ns

    def _decided(
        self, approved: bool, value: Any, by: str | None, error: StepError | None = None
    ) -> Op | None:
        """What was waited for has come: a person's decision, an event's payload, the time; or
        *error*, a timeout.
        """
        op: PauseOp = self._op
        self._leave_out(self.now - self._started)
        extra: dict[str, Any] = {"by": by} if by is not None else {}
        try:
            value, size = admit(value, self.terms.limits.value_bytes)
            self._charge(size)
        except VMError as fault:
            return self._failed(op, StepError.of(fault), extra=extra)
        if not op.asks:
            wrong = op.validate(value) if op.validate is not None and error is None else None
            if error is None and not fits(value, self.request.get("match")):
                wrong = "it lacks a value that the step matches"
            if wrong is not None:
                error = StepError(
                    "invalid_answer",
                    "InvalidEvent",
                    f"the event's payload is not valid: {wrong}",
                    False,
                )
            if error is not None:
                return self._failed(op, error)
            try:
                value = value if op.with_literals is None else op.with_literals(value)
            except VMError as fault:
                return self._failed(op, StepError.of(fault))
            self._write(op, value)
            self._record(op, SUCCESS, value, None, extra=extra or None)
            return op.then
        if not approved and op.rejects:
            if error is None:
                self._keep(self._outcome)
                error = StepError(
                    "refused",
                    "Rejected",
                    f"rejected: {value['reason'] or 'no reason given'}",
                    False,
                )
            return self._failed(op, error, extra=extra)
        frame = self.frame
        frame[op.out] = frame[op.key] = value
        self._block_last = None
        extra["branch"] = "then" if approved else "otherwise"
        self._record(op, SUCCESS, value, None, extra=extra)
        return op.then if approved else cast(Op, op.otherwise)

    # --- outcomes other than a tool's value ---

    def _answer(self, text: str, usage: LLMUsage | None, extra: dict[str, Any] | None) -> Op | None:
        op: ModelOp = self._op
        self._settle(usage, extra)
        extra = dict(extra) if extra else {}
        reason = extra.get("finish_reason")
        ended = ending(reason) if reason not in WHOLE else None
        constrained = op.allowed is not None or op.validate is not None
        if "think>" in text or "reasoning" in extra:
            text = self._without_reasoning(
                text, extra, cut=ended == "truncated", constrained=constrained
            )
        try:
            if ended == "filtered":
                raise filtered(text, str(reason))
            value = read_answer(
                text,
                allowed=op.allowed,
                check=op.validate,
                cut=ended == "truncated",
                accepted=op.accepts_cut,
                max_tokens=op.max_tokens,
            )
            if op.with_literals is not None:
                value = op.with_literals(value)
            value, size = admit(value, self.terms.limits.value_bytes)
        except VMError as error:
            fault = StepError.of(error)
            if fault.kind in _UNUSABLE:
                return self._invalid(op, writable(text), fault, usage, extra)
            self._keep(BadResult(fault, usage=usage, extra=extra or None))
            return self._failed(op, fault, usage, extra)
        if constrained:
            extra["answer"] = writable(text)
        return self._answered(op, value, size, usage, extra)

    @staticmethod
    def _without_reasoning(
        text: str, extra: dict[str, Any], *, cut: bool, constrained: bool
    ) -> str:
        """The answer alone; what the model thought before it is put into *extra*."""
        text, thoughts = without_reasoning(text, cut=cut, constrained=constrained)
        reasoning = kept_reasoning(extra.pop("reasoning", None), thoughts)
        if reasoning is None:
            return text
        extra["reasoning"] = reasoning
        return text.lstrip()  # models put empty lines between the two

    def _rejected(
        self, text: str, error: StepError, usage: LLMUsage | None, extra: dict[str, Any] | None
    ) -> Op | None:
        self._settle(usage, extra)
        return self._invalid(self._op, text, error, usage, extra or {})

    def _failure(
        self,
        error: StepError,
        lost: bool = False,
        usage: LLMUsage | None = None,
        extra: dict[str, Any] | None = None,
    ) -> Op | None:
        """The call failed; *lost* where it was stopped and nobody knows what it did."""
        op = self._op
        if self.side_call is not None:
            if self.side_call == "undo" and op.unsafe and (lost or error.kind in UNKNOWN_OUTCOME):
                return self._unknown_outcome(op, error)  # as of the step that it undoes
            return self._failed_aside(error)
        if op.code == MODEL:
            # what was not reserved was not asked for
            self._settle(NOTHING_USED if error.kind == "budget" else usage, extra)
        elif op.unsafe and (lost or error.kind in UNKNOWN_OUTCOME):
            return self._unknown_outcome(op, error)
        if self._may_retry(op, error, op.attempts):
            return self._retry(op, error, usage, route=(extra or {}).get("route"))
        return self._failed(op, error, usage, extra)

    def _expiry(
        self, called: bool, usage: LLMUsage | None = None, extra: dict[str, Any] | None = None
    ) -> Op | None:
        if self._op.code == PAUSE:
            return self._nobody_came()
        error = self._expired()
        if error is None:
            error = replace(
                _timeout(f"no outcome within {self._op.timeout_ns / 1e9:g} s{_advice(self._op)}"),
                retryable=True,
            )
        if not called and self.side_call is None:
            if self._op.code == MODEL:
                self._settle(NOTHING_USED)
            return self._failed(self._op, error, _uncalled(self._op))
        return self._failure(error, lost=True, usage=usage, extra=extra)

    def _nobody_came(self) -> Op | None:
        """What is waited for did not come in time. The deadline of something around it is no
        decision, so no `otherwise` follows.
        """
        op: PauseOp = self._op
        around, error = self._fixed(op)
        if self.now >= around:
            self._leave_out(self.now - self._started)
            return self._failed(op, cast(StepError, error))
        error = replace(_timeout(f"no outcome within {op.timeout_ns / 1e9:g} s"), retryable=True)
        return self._decided(False, {"approved": False, "reason": str(error)}, None, error)

    def _lost(self, error: StepError, crashed: bool, ask: bool) -> Op | None:
        op = cast(ToolOp, self._op)
        self._doubt, self._crashed = error, crashed
        if ask or op.reconcile is None:
            return self._resolve(op)
        self._doubt = None
        self._keep(self._outcome)
        return self._in_doubt(op, error, NOT_ASKED)

    def _not_called(self, error: StepError) -> Op | None:
        if self.side_call == "undo":
            self.request = ()
            return self._failed_aside(error)
        if self.side_call == "reconcile":
            op, cause, self.path, self.request, self.given, more, _ = self._call
            self.side_call, self._op = None, op
            self._keep(NotCalled(error), "reconcile")
            return self._unasked(op, cause, more, error.message)
        self.request = None
        return self._failed(self._op, error)

    def _cancellation(self, called: bool) -> Op | None:
        if self.side_call == "undo":
            return self._failed_aside(CANCELLED)
        self.cancelling = True
        if self.side_call is not None:
            return self._failed_aside(CANCELLED)
        op = self._op
        extra = None
        if isinstance(op, ForkOp):
            self._adopt()
            self.waiting = [entry for child in self.fork.begun for entry in child.waiting]
            extra = self.fork.recorded()
        elif isinstance(op, ModelOp):
            self._settle(None if called else NOTHING_USED)
        elif isinstance(op, ToolOp):
            if called and op.unsafe:
                self._doubt = CANCELLED
            if self._doubt is not None:
                return self._resolve(op)
        self._record(op, StepStatus.CANCELLED, None, self._as_recorded(CANCELLED), extra=extra)
        return self._cancelled(op)

    def _cancelled_at_end(self, now: int) -> Op:
        """The run is cancelled when its last step is done: what it did is undone. One that has
        failed or waits stays as it is, and so does a frame, whose run is cancelled in its place.
        """
        if self.frame_name or self.status is not SUCCEEDED:
            return END_OP
        self.now, self.output = now, None
        self.steps = self._ending()
        return self.steps.send(None)

    def _ending(self) -> Generator[Op, Any, None]:
        self.status, self.error = TraceStatus.CANCELLED, CANCELLED_AT_END
        follow = self._wind_up()
        while follow is None:
            follow = self._taken((yield self._ask))
        del self.steps
        yield END_OP

    def _cancelled(self, op: Op) -> Op | None:
        self.status = TraceStatus.CANCELLED
        self.error = CANCELLED
        self.failed_step = op.step_id
        return self._wind_up()

    # --- calls ---

    def _reserve(self, op: ModelOp) -> StepError | None:
        """Reserve the most that the requested call can use; the error, where the budget does not
        cover it.
        """
        if not self.reserves:
            return None
        ledger, served = self.ledger, self._served(op)
        prompt, answer = self._prompt_tokens(op), op.max_tokens or DEFAULT_MAX_TOKENS
        most = tokens_of(served, prompt, answer)
        if most > ledger.tokens:
            share = "" if not self.frame_name else "this branch's share of "
            return _budget(
                f"the call may use {most} tokens, {max(ledger.tokens, 0)} are left of "
                f"{share}max_tokens"
            )
        cost = None
        if ledger.cost is not None:
            name = op.model or self.terms.default_model
            cost = most_of(name, served, self.terms.prices, prompt, answer)
            if cost is None:
                who = unpriced(name, served, self.terms.prices)
                return _budget(f"no price is known for {who}, and the budget limits cost")
            if cost > ledger.cost:
                return _budget(
                    f"the call may cost ${cost:.6f}, ${max(ledger.cost, Decimal(0)):.6f} are left "
                    f"of max_cost_usd"
                )
            ledger.cost -= cost
        if ledger.tokens < UNLIMITED:
            ledger.tokens -= most
        self._reserved, self._reserved_cost = most, cost
        return None

    def most(self, op: ModelOp) -> tuple[int, Decimal | None]:
        """The most tokens and dollars that the requested model call can use, for who keeps budgets
        outside of the machine; None where a price is not known.
        """
        served = self._served(op)
        answer = op.max_tokens or DEFAULT_MAX_TOKENS
        if self.reserves:
            prompt = self._prompt_tokens(op)
        else:  # no record tells it: nothing in the machine depends on it
            prompt = self._counted_by_host(op)
        name = op.model or self.terms.default_model
        cost = most_of(name, served, self.terms.prices, prompt, answer)
        return tokens_of(served, prompt, answer), cost

    def _counted_by_host(self, op: ModelOp) -> int:
        count = self.terms.count_tokens
        return token_bound(self.messages) if count is None else count(op.model, self.messages)

    def _prompt_tokens(self, op: ModelOp) -> int:
        """The most tokens that the prompt can have: as recorded, as the host counts, or by its
        bytes. What was counted is kept, since who computes the run again may count otherwise.
        """
        attempt, kept = len(self._attempts) if self._attempts else 0, self._counts_kept
        if kept is not None and len(kept) == attempt + 1:
            return kept[attempt]  # since it was reserved
        tokens = self.counted(self.path, attempt) if self.counted is not None else None
        if tokens is None and self.terms.count_tokens is not None:
            tokens = self.terms.count_tokens(op.model, self.messages)
        if tokens is None:
            return token_bound(self.messages)
        if kept is None or len(kept) <= attempt:
            self._counts_kept = [*(kept or ()), tokens]
        return tokens

    def _begin_model(self, op: ModelOp) -> None:
        messages = op.messages(self.frame)
        admit(messages, self.terms.limits.value_bytes)
        self.messages = messages
        self.request = {"messages": messages, **op.asked}
        self._original = messages
        self.deadline = self._nearest(op)

    def _nearest(self, op: Op) -> int:
        """The deadline around *op*: that of the frame, or of a loop in it."""
        return min(self.base_deadline, self._fixed(op)[0])

    def _fixed(self, op: Op) -> tuple[int, StepError | None]:
        """The nearest `timeout_seconds` around *op*, and the error that it gives."""
        nearest, error = self.fixed_deadline, self._fixed_error
        for loop in op.timed:
            deadline = self._loop(loop)[2]
            if deadline < nearest:
                nearest = deadline
                error = _timeout(
                    f"loop {loop.step_id!r} did not end within {loop.timeout_ns / 1e9:g} s"
                )
        return nearest, error

    def _expired(self) -> StepError | None:
        """The error of a deadline around the call, where one has passed."""
        fixed, error = (
            self._fixed(self._op)
            if self.side_call is None
            else (self.fixed_deadline, self._fixed_error)
        )
        if self.base_deadline <= fixed:
            fixed, error = self.base_deadline, self._deadline_error
        return error if self.now >= fixed else None

    def _end_by(self, deadline: int) -> None:
        """The whole of the frame's program has this deadline."""
        self._ends_by = deadline
        if deadline < self.fixed_deadline:
            self.fixed_deadline, self._fixed_error = deadline, self._too_long()

    def _too_long(self) -> StepError:
        what = "the run" if not self.frame_name else f"program {self.frame_plan.name!r}"
        return _timeout(f"{what} did not end within {self.frame_plan.timeout_ns / 1e9:g} s")

    def _seed(self) -> int:
        seed = self.seed
        return seed_of(self.run_id) if seed is None else seed

    def _may_retry(self, op: CallOp, error: StepError, attempts: int) -> bool:
        on = op.retry.on
        if error.kind in ONLY_NAMED:
            if on is None or not {error.kind, error.type} & set(on):
                return False
        elif (
            not error.retryable
            or error.kind in UNSKIPPABLE
            or (on is not None and not matches(error, tuple(on)))
        ):
            return False
        return (len(self._attempts) if self._attempts else 0) + 1 < attempts

    def _retry(
        self,
        op: CallOp,
        error: StepError,
        usage: LLMUsage | None = None,
        answer: str | None = None,
        route: dict[str, Any] | None = None,
    ) -> Op | None:
        """The same call once more, after `delay_seconds`; the attempt is kept for the record."""
        ledger = self.ledger
        error = self._as_recorded(error)
        if op.code == MODEL:
            if not ledger.take_llm_calls():
                # no attempt and no record tells what this one ended with
                beside: dict[str, Any] = {} if route is None else {"route": route}
                self._keep(
                    Failed(error, usage, extra=beside or None)
                    if answer is None
                    else BadResult(error, answer, usage, beside or None)
                )
                fault = _budget("no model call is left for another attempt (max_llm_calls)")
                if usage is None:
                    beside["unmetered"] = True
                return self._failed(op, fault, usage, beside or None)
        else:
            if not ledger.take_tool_calls():
                return self._failed(
                    op, _budget("no tool call is left for another attempt (max_tool_calls)")
                )
            self._take_arguments(cast(ToolOp, op))
        if self._attempts is None:
            self._attempts = []
        started = self._attempts[-1].finished_ns if self._attempts else self._started
        self._attempts.append(Attempt(error, started, self.now, usage, answer, route))
        self._kept = None  # the attempt tells it
        # an invalid answer is asked again at once: the provider did nothing wrong
        self.delay_seconds = (
            0.0
            if answer is not None
            else backoff(op, len(self._attempts), self._seed(), self.path, error)
        )
        if op.code == MODEL:
            refusal = self._reserve(cast(ModelOp, op))
            if refusal is not None:
                self.delay_seconds = 0.0
                return self._failed(op, refusal)
        self._ask = op
        return None

    def _invalid(
        self,
        op: ModelOp,
        text: str,
        error: StepError,
        usage: LLMUsage | None,
        extra: dict[str, Any],
    ) -> Op | None:
        shown = text[:KEPT_ANSWER_CHARS]
        error = self._as_recorded(error)
        # and neither cut off nor filtered: what would be wrong with it?
        invalid = error.kind == "invalid_answer"
        if self._may_retry(op, error, op.answer_attempts if invalid else op.attempts):
            if invalid:
                self.messages = [*self._original, *correction(text, error.message)]
            return self._retry(op, error, usage, shown, extra.get("route"))
        if invalid and op.has_on_invalid:
            extra |= {"answer": shown, "on_invalid": True, "reason": error.message}
            value, size = admit(op.on_invalid)
            return self._answered(op, value, size, usage, extra)
        return self._failed(op, error, usage, {**extra, "answer": shown})

    def _answered(
        self, op: Any, value: Any, size: int, usage: LLMUsage | None, extra: dict[str, Any] | None
    ) -> Op | None:
        """A model step or a fork succeeded."""
        try:
            self._charge(size)
        except StepFault as error:
            fault = StepError.of(error)
            if op.code == MODEL:
                self._keep(BadResult(fault, None, usage, extra or None, size))
            return self._failed(op, fault, usage, extra)
        self._write(op, value)
        self._record(op, SUCCESS, value, None, usage, extra or None)
        return op.next  # type: ignore[no-any-return]

    def _charge(self, size: int) -> None:
        self.ledger.state -= size
        if self.ledger.state < 0:
            raise LimitExceeded(_state_full().message)

    def _served(self, op: ModelOp) -> Served | None:
        """The pool that serves the model of *op*, if one does."""
        return serving(self.terms.served, op.model)

    def _priced(
        self, op: Op, usage: LLMUsage | None, extra: dict[str, Any] | None = None
    ) -> tuple[LLMUsage | None, dict[str, Any] | None]:
        """*usage* with its cost by the run's prices, or as the adapter says; and *extra*, which says
        whose cost it is. Where it says so already, the call was priced when it was made; what no
        model consumed has no price.
        """
        terms = self.terms
        if usage is None or (extra is None and terms.prices is None and usage.cost_usd is None):
            return usage, extra  # nobody says what it costs
        made = extra is not None and "cost_source" in extra
        if made or not isinstance(op, ModelOp):
            return usage, extra
        return priced(usage, extra, (op.model or terms.default_model,), terms.prices)

    def _settle(self, usage: LLMUsage | None, extra: Mapping[str, Any] | None = None) -> None:
        """Replace a call's reservation by what it used; without usage the reservation is the
        charge.
        """
        if self.meter is not None and self.meter.charged is None:
            self.meter.charged = charge_of(self.meter.tokens, usage, extra, self._served(self._op))
        if usage is None:
            self._reserved, self._reserved_cost = 0, None
            return
        ledger = self.ledger
        if ledger.tokens < UNLIMITED:
            charged, _ = charge_of(self._reserved, usage, extra, self._served(self._op))
            ledger.tokens += self._reserved - charged
        if ledger.cost is not None and self._reserved_cost is not None:
            # where the cost is not known, the reservation is the charge
            if usage.cost_usd is not None:
                ledger.cost += self._reserved_cost - usage.cost_usd
        self._reserved, self._reserved_cost = 0, None

    # --- unknown outcomes ---

    def _unknown_outcome(self, op: ToolOp, error: StepError) -> Op | None:
        """A call that may have changed the world ended without an outcome."""
        self._doubt = error
        repeatable = StepError("timeout", error.type, error.message, bases=error.bases)
        if (
            op.takes_key
            and self._expired() is None
            and self._may_retry(op, repeatable, op.attempts)
        ):
            return self._retry(op, error)
        return self._resolve(op)

    def _resolve(self, op: ToolOp, more: str = "") -> Op | None:
        """Ask the reconcile tool whether the effect took place; without one, leave it to a
        person.
        """
        error = cast(StepError, self._doubt)
        self._doubt = None
        self._keep(self._outcome)
        if op.reconcile is None:
            return self._in_doubt(op, error, more)
        try:
            values, given = self._arguments(op.reconcile, self.path)
        except StepFault as fault:
            self._keep(NotCalled(StepError.of(fault)), "reconcile")
            return self._unasked(op, error, more, str(fault))
        path = self._counted(f"{self.path}/reconcile")
        self.side_call, self._call = (
            "reconcile",
            (op, error, self.path, self.request, self.given, more, self.now),
        )
        self._op = self._ask = op.reconcile
        self.path, self.request, self.given = path, values, given
        return None

    def _unasked(self, op: ToolOp, error: StepError, more: str, why: str) -> Op | None:
        return self._in_doubt(op, error, f"{more}; its reconcile could not be asked: {why}")

    def _in_doubt(self, op: ToolOp, error: StepError, more: str) -> Op | None:
        before = f"{error.message}; " if error.message else ""
        message = f"{before}whether {op.tool!r} took effect is not known{more}"
        doubt = StepError("in_doubt", error.type, message, False, bases=error.bases)
        doubt = self._as_recorded(doubt)
        asked = {
            "kind": "in_doubt",
            "tool": op.tool,
            "effect_key": effect_key(self.run_id, self.path),
        }
        if self.cancelling and not self._crashed:
            self.waiting = self._left_in_doubt(op, doubt, asked)
            return self._cancelled(op)
        self._question = op, doubt, self.request
        self.request, self._op, self._ask = asked, DOUBT_OP, DOUBT_OP
        return None

    def _doubt_ended(self, outcome: Outcome) -> Op | None:
        """What became of a call in doubt, as somebody says, is the outcome of the call; where nobody
        does, the run is left as it is.
        """
        op, doubt, request = self._question
        asked, self._op, self.request = self.request, op, request
        match outcome:
            case Value(value):
                self._crashed, self._resolving = False, True
                follow = self._value(value)
                self._resolving = False
            case Failed(error) | BadResult(error):
                self._crashed = False
                self._keep(outcome, RESOLVED)
                error = replace(error, retryable=False)
                if self.side_call is not None:
                    follow = self._failed_aside(error)
                elif isinstance(outcome, BadResult):
                    follow = self._bad_result(error, size=outcome.size)
                else:
                    follow = self._failed(op, error)
            case Cancelled() if not self._crashed and self.side_call is None:
                self.cancelling = True
                self._keep(outcome, RESOLVED)
                self.waiting = self._left_in_doubt(op, doubt, asked)
                return self._cancelled(op)
            case _:  # where its process is gone, a person is waited for though the run is cancelled
                self.error, self.failed_step = doubt, op.step_id
                return self._suspend(self._left_in_doubt(op, doubt, asked))
        if self.cancelling and self.status is RUNNING:
            return self._cancelled(op)
        return follow

    def _left_in_doubt(
        self, op: ToolOp, doubt: StepError, asked: dict[str, Any]
    ) -> list[dict[str, Any]]:
        """Record that nobody said what became of the call; what the run waits for."""
        self._record(op, StepStatus.IN_DOUBT, None, doubt)
        return [{"path": self.path, "step_id": op.step_id, **asked}]

    def _value_aside(self, value: Any) -> Op | None:
        """What a reconcile or undo tool returned."""
        try:
            value, _ = admit(value, self.terms.limits.value_bytes)
        except VMError as fault:
            error = StepError.of(fault)
            if self._resolving:
                self._keep(BadResult(error), RESOLVED)
            return self._failed_aside(error)
        if self.side_call == "undo":
            self._record(self._op, SUCCESS, value, None)
            return self._next_undo()
        op, error = self._back_from(SUCCESS, value, None)
        done = value.get("done") if type(value) is dict else None
        if type(done) is bool:
            self._crashed = False  # what became of it is known
        if done is True:
            follow = self._value(value.get("output"))
            return self._cancelled(op) if self.cancelling and self.status is RUNNING else follow
        if done is False:
            if self.cancelling:
                self._record(op, StepStatus.CANCELLED, None, self._as_recorded(CANCELLED))
                return self._cancelled(op)
            # nothing happened: it may be tried again, like after an error of its own
            clean = StepError(
                "timeout" if error.kind == "in_doubt" else error.kind,
                error.type,
                error.message,
                self._expired() is None,
                bases=error.bases,
            )
            if not self._may_retry(op, clean, op.attempts):
                return self._failed(op, clean)
            return self._retry(op, clean)
        hint = (
            "; its reconcile returned "
            + short(value)
            + " and not {'done': true or false, 'output': ...}"
        )
        return self._in_doubt(op, error, hint)

    def _back_from(
        self,
        status: StepStatus,
        value: Any,
        fault: StepError | None,
        extra: dict[str, Any] | None = None,
    ) -> tuple[ToolOp, StepError]:
        """Record what the reconcile tool said; the call that it was asked about, and that call's
        error.
        """
        record = (
            self._op,
            self.path,
            status,
            value,
            fault,
            self.request,
            self._call[-1],
            self.now,
            None,
            None,
            extra,
        )
        self.records.append(record)
        op, error, self.path, self.request, self.given, _, _ = self._call
        self.side_call, self._op = None, op
        return op, error

    def _failed_aside(self, error: StepError) -> Op | None:
        stopped = {"outcome": outcome_json(Cancelled())} if error is CANCELLED else None
        error = self._as_recorded(error)
        if self.side_call == "undo":
            self._record(self._op, FAILED, None, error, extra=stopped)
            assert self._undo_errors is not None
            self._undo_errors.append(
                f"undo of '{self._op.step_id.removesuffix('/undo')}' failed: {error}"
            )
            return self._next_undo()
        op, cause = self._back_from(FAILED, None, error, stopped)
        return self._in_doubt(op, cause, f"; its reconcile failed: {error}")

    # --- failures ---

    def _failed(
        self,
        op: Any,
        error: StepError,
        usage: LLMUsage | None = None,
        extra: dict[str, Any] | None = None,
    ) -> Op | None:
        """A step failed for good: the first handler that takes the error, or the end of the
        frame.
        """
        if self._doubt is not None and op is self._op:
            return self._resolve(op, f"; then: {error}")
        error = self._as_recorded(error)
        for handler in op.handlers:
            if handler.errors is None:
                if error.kind in UNSKIPPABLE:
                    continue
            elif not matches(error, handler.errors):
                continue
            by = handler.by
            caught = (
                {"caught": handler.target.step_id or "$end"} if handler.errors is not None else {}
            )
            if by is op:
                self._leave(
                    op, error, usage, {**(extra or {}), **caught}, skip=handler.errors is None
                )
            else:
                self._record(op, FAILED, None, error, usage, extra)
                self._unwind(op, by, error, caught)
            return handler.target  # type: ignore[no-any-return]
        self._record(op, FAILED, None, error, usage, extra)
        self._unwind(op, None, error, {})
        return self._frame_failed(op.step_id, error)

    def _leave(
        self,
        op: Any,
        error: StepError | None,
        usage: LLMUsage | None,
        extra: dict[str, Any],
        *,
        skip: bool,
    ) -> None:
        """Record that *op* was skipped or that its failure is caught; what it had written is
        cleared.
        """
        value: Any = UNSET
        if skip and op.has_default:
            value, _ = admit(op.default)
            extra = {**extra, "default": True}
        fork = op.next if op.code == WHEN else op
        if not skip and fork.code == FORK and fork.kind != "call":
            value, lost = self._partial(fork, joined=extra.get("forked", False))
            extra = {**extra, "failed": lost} if lost else extra
        frame = self.frame
        frame[op.out] = frame[op.key] = value
        if op.error >= 0:
            frame[op.error] = error.told() if error is not None else UNSET
        if op.errors >= 0:
            frame[op.errors] = UNSET
        output = None if value is UNSET else value
        if skip:
            self._block_last = output
            if value is not UNSET:
                self._last = value
            elif self.frame_plan.keeps_last:
                self._last = _SKIPPED
        self._record(op, SKIPPED if skip else FAILED, output, error, usage, extra or None)

    def _unwind(self, op: Any, by: Op | None, error: StepError, caught: dict[str, Any]) -> None:
        """Record the loops that a failure inside them ends, inner first, up to the one that handles
        it.
        """
        around = op.owner
        while around is not None:
            if isinstance(around, LoopOp):
                state = self._loop(around)
                self.path, self._started, self._attempts, self.request = (
                    state[3],
                    state[1],
                    None,
                    None,
                )
                extra = {"iterations": state[0]}
                if around is by:
                    self._leave(around, error, None, {**extra, **caught}, skip=not caught)
                    return
                self._record(around, FAILED, None, error, extra=extra)
            around = around.owner

    def _record(
        self,
        op: Any,
        status: StepStatus,
        output: Any,
        error: StepError | None,
        usage: LLMUsage | None = None,
        extra: dict[str, Any] | None = None,
    ) -> None:
        attempts = self._attempts
        if attempts and op.code == MODEL:
            spent = [attempt.usage for attempt in attempts]
            if usage is None and any(known is not None for known in spent):
                # the sum does not tell that the last call's is not in it
                extra = {**(extra or {}), "unmetered": True}
            last, usage = usage, _total([*spent, usage])
            if usage is not None and usage.cost_usd is None:
                if last is not None and last.cost_usd is not None:
                    # the sum does not tell by what the budget was charged
                    extra = {**(extra or {}), "last_cost_usd": str(last.cost_usd)}
        request = self.request if op.code in (TOOL, MODEL, PAUSE) else None
        if self._lost_attempts is not None:
            begun, settled = self._lost_attempts
            extra = {**(extra or {}), "lost": begun, **({"settled": True} if settled else {})}
            self._lost_attempts = None
        if self._kept is not None:
            extra = {**(extra or {}), **self._kept}
            self._kept = None
        if self._counts_kept is not None:
            extra = {**(extra or {}), "counted": self._counts_kept}
            self._counts_kept = None
        if op.when is not None:
            extra = {**(extra or {}), "when": (self._whens or {})[op.when.index]}
        if status is SUCCESS and op.error >= 0:
            self.frame[op.error] = UNSET
        self.records.append(
            (
                op,
                self.path,
                status,
                output,
                error,
                request,
                self._started,
                self.now,
                tuple(attempts) if attempts else None,
                usage,
                extra,
            )
        )

    # --- forks ---

    def _begin_fork(self, op: ForkOp) -> None:
        ledger, limits = self.ledger, self.terms.limits
        fork = self.fork = Fork(op, self.path, self._given_to(op), ledger)
        self.deadline = self._nearest(op)
        if (
            not self.watched
            and op.kind != "call"
            and self.deadline >= FOREVER
            and not op.timeout_ns
            and fork.shares.ample
            and ledger.tool_calls >= UNLIMITED
            and limits.value_bytes >= SMALL_TEXT
        ):
            fork.allow_light(self.frame, limits.value_bytes, ledger.state)

    def _given_to(self, op: ForkOp) -> Any:
        """The items of a map, or the inputs of a called program."""
        if op.kind == "map":
            assert op.over is not None
            items = op.over(self.frame)
            if type(items) is not list:
                raise ExprError(f"'over' is {described(items)}, and must be a list")
            if len(items) > op.max_items:
                raise LimitExceeded(f"{len(items)} items, and max_items is {op.max_items}")
            return items
        if op.kind == "call":
            assert op.arguments is not None
            inputs = admit(op.arguments(self.frame), self.terms.limits.value_bytes)[0]
            check = op.frames[0].check
            fault = check(inputs) if check is not None else None
            if fault is not None:
                raise ExprError(f"inputs of the called program: {fault}")
            return inputs
        return None

    def _adopt(self) -> None:
        """What the children that were started used, and what they would undo, becomes this
        machine's.
        """
        fresh = self.fork.adopt(self.ledger)
        self._leave_out(max((child.waited_ns for child in fresh), default=0))
        for child in fresh:
            if child._undo:
                self._undo = (self._undo or []) + child._undo
            child.frame = []  # adopted once; its values live on in its records

    # --- ends ---

    def _ended(self, op: Op) -> Op | None:
        last = self._op
        if op.code == FAIL:
            return self._end_failed_with(
                last.step_id,
                StepError("value", "Failed", f"went to $fail after step {last.step_id!r}", False),
            )
        if self.now >= self._ends_by:  # also where a handler has caught what came of that
            return self._end_failed_with(last.step_id, self._too_long())
        self.skipped = self._last is _SKIPPED
        self.output = None if self.skipped else self._last
        declared = self.frame_plan.output
        if declared is not None:
            try:
                self.output, _ = admit(declared(self.frame), self.terms.limits.value_bytes)
            except VMError as error:
                return self._end_failed_with("output", StepError.of(error))
        self.status = SUCCEEDED
        return END_OP

    def _end_failed_with(self, step_id: str, error: StepError) -> Op | None:
        """The frame failed at its end, where no step does."""
        self.end_failed = True
        return self._frame_failed(step_id, self._as_recorded(error, self.frame_name))

    def _frame_failed(self, step_id: str, error: StepError) -> Op | None:
        self.status = TraceStatus.FAILED
        self.error = error
        self.failed_step = step_id
        return self._wind_up()

    def _suspend(self, waiting: list[dict[str, Any]]) -> Op | None:
        self.status = TraceStatus.SUSPENDED
        self.waiting = waiting
        self.side_call = None
        return END_OP

    def _wind_up(self) -> Op | None:
        """The run failed or was cancelled: undo what was done, last first."""
        if self._undo and not self.frame_name:
            self._undo_errors = []
            return self._next_undo()
        return END_OP

    def _remember_undo(self, op: ToolOp) -> None:
        undo = cast(ToolOp, op.undo)
        if self._undo is None:
            self._undo = []
        path = f"{self.path}/undo"
        try:
            self._undo.append((undo, path, *self._arguments(undo, path)))
        except StepFault as error:  # told when the time for it comes
            self._undo.append((undo, path, (), StepError.of(error)))

    def _next_undo(self) -> Op | None:
        while self._undo:
            op, path, values, given = self._undo.pop()
            self.side_call, self._op, self.path, self.request = "undo", op, path, values
            self._started, self._attempts, self.delay_seconds = self.now, None, 0.0
            self.deadline = self.base_deadline = self.fixed_deadline = (
                FOREVER  # what was done is undone even when time or money is up
            )
            if isinstance(given, tuple):
                self.given, self._ask = given, op
                return None
            given = self._as_recorded(given)
            self._record(op, FAILED, None, given)
            assert self._undo_errors is not None
            self._undo_errors.append(
                f"undo of '{op.step_id.removesuffix('/undo')}' failed: {given}"
            )
        self.side_call = None
        return END_OP

    def fill(self, recording: Recording) -> None:
        """Say in *recording*, which has the records, how the run stands."""
        recording.status, recording.output = self.status, self.output
        if self.status is not SUCCEEDED:
            if self.waiting:
                recording.waiting = self.waiting
            error, raised = self.error, self.raised
            if error is not None:
                recording.error, recording.error_kind = self.error_summary(), error.kind
                if raised is not None and type(raised).__name__ == error.type:
                    recording.raised = raised
        recording.changed()

    def error_summary(self) -> str | None:
        """What `Trace.error` says: the step that failed the frame, and undo calls that failed."""
        if self.error is None:
            return None
        step, error = self.failed_step, self.error
        parts = [error_text(step, error) if step else error.message or error.type]
        return "; ".join(parts + (self._undo_errors or []))


def _total(usages: list[LLMUsage | None]) -> LLMUsage | None:
    """The sum of what attempts consumed; its cost is not known where that of one is not."""
    known = [usage for usage in usages if usage is not None]
    if not known:
        return None
    total = sum(known[1:], known[0])
    return total if len(known) == len(usages) else replace(total, cost_usd=None)


_HERE: dict[int, Callable[[Machine, Any, str], Op | None]] = {
    BRANCH: Machine._branch,
    SET: Machine._set,
    SWITCH: Machine._switch,
}
"""Steps that need nothing outside: they give what follows, or raise `StepFault`."""


class LoopTimeout(StepFault):
    kind = "timeout"


class LoopExhausted(StepFault):
    kind = "limit"


class NoCase(StepFault):
    """No case of a switch fits."""


def _case_of(op: SwitchOp, value: Any) -> str:
    """The case of a *value* that is no text: the first that is its JSON, or the same number."""
    text = canonical(value).decode()
    if type(value) not in (int, float):
        return text
    return next((case for case in op.cases if case == text or equal(case, value)), text)


def _no_branch(op: BranchOp) -> StepError:
    word = "true and has no 'then'" if op.missing[0] else "false and has no 'otherwise'"
    return StepError("value", "NoBranch", f"condition is {word}", False)


def _is_whole(extra: dict[str, Any]) -> bool:
    """Whether an answer beside which *extra* was reported came to its end and is nothing but text."""
    return extra.get("finish_reason") in WHOLE and "reasoning" not in extra


class _Skipped:
    """The output of a branch or item whose last step was skipped."""


_SKIPPED: Any = _Skipped()
END_OP = Op(code=END, type="end")
DOUBT_OP = Op(code=DOUBT, type="in_doubt")


def loaded(frame_plan: FramePlan, inputs: Mapping[str, Any]) -> list[Any]:
    """A new frame with its inputs, which hold every needed name."""
    frame = frame_plan.blank.copy()
    for name, slot in frame_plan.inputs:
        value = inputs.get(name, UNSET)
        if value is not UNSET:
            frame[slot] = value
    return frame


def machine_of(
    plan: Plan,
    inputs: Mapping[str, Any],
    terms: RunTerms = DEFAULT_TERMS,
    started: int = 0,
    *,
    run_id: str = "",
    seed: int | None = None,
    frame: list[Any] | None = None,
) -> Machine:
    """The machine of a run of *plan*, before its first step; *started* is when the run began.
    Whoever drives, resumes, replays, explores or migrates a run has its machine from here, so that
    it is bounded alike.

    *inputs* have every name that the plan needs. *frame* is the root frame where a caller in a
    hurry has loaded it already; the inputs are then only asked for what value checks read.
    """
    root = plan.frames[0]
    if frame is None:
        frame = loaded(root, inputs)
    machine = Machine(root, frame, terms, terms.ledger.copy())
    machine.run_id = run_id
    if seed is not None:
        machine.seed = seed
    if plan.given:
        machine.inputs = {name: inputs[name] for name in plan.given if name in inputs}
    if terms.budget is not None and terms.budget.max_seconds is not None:
        machine.end_by_budget(started + int(terms.budget.max_seconds * 1e9))
    return machine


NOT_ASKED = "; its reconcile is not asked before the process that made the call is gone"

_LOST_CALLS = "the run has used all its {} ({}), those that were lost in a crash included"


def _budget(message: str) -> StepError:
    return StepError.of(BudgetExceeded(message))


def _timeout(message: str) -> StepError:
    return StepError(
        "timeout", "TimeoutError", message, retryable=False, bases=bases_of(TimeoutError)
    )


def _uncalled(op: Op) -> LLMUsage | None:
    """What a call consumed that was not made."""
    return NOTHING_USED if op.code == MODEL else None


def _advice(op: Op) -> str:
    """What may help a call that took too long."""
    if not isinstance(op, ModelOp):
        return ""
    return (
        f"; raise timeout_seconds, or {'lower' if op.max_tokens is not None else 'set'} max_tokens"
    )


def _state_full() -> StepError:
    return StepError.of(LimitExceeded("the values of the run together are larger than its limit"))
