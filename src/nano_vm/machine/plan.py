"""What is executed: a `Plan` of ops, one for each node of the `Flow`, with every name resolved to a
slot.

`compile` makes it and `machine` runs it; nothing here does either. An op is never changed by a run,
so that one plan serves any number of runs at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from ..language.closures import Eval, Frame
from ..language.policy import Budget, Effect
from ..language.program import Retry
from ..tools.contract import UNSAFE
from .arguments import Take, TakeMessages
from .demands import Enforce

AWAITED, INLINE, ASKED = 1, 2, 3
"""`Op.straight`: a coroutine function, one that is called in the event loop's thread, or a model."""

(
    TOOL,
    MODEL,
    BRANCH,
    SWITCH,
    SET,
    FORK,
    LOOP,
    TEST,
    CLOSE,
    PAUSE,
    END,
    FAIL,
    WHEN,
    ASSERT,
    STOP,
    DOUBT,
) = range(16)
CODES = (
    "tool",
    "model",
    "branch",
    "switch",
    "set",
    "fork",
    "loop",
    "test",
    "close",
    "pause",
    "end",
    "fail",
    "when",
    "assert",
    "stop",
    "doubt",
)


_LATER: Any = None
"""Of an op while the plan is being made: it is set before the plan is given to anybody."""


@dataclass(slots=True, eq=False)
class Handler:
    """Where a failure goes: ``errors`` is None for a skip; ``by`` is the op whose handler it is."""

    errors: tuple[str, ...] | None
    target: Op
    by: Op


@dataclass(slots=True, eq=False)
class Op:
    """What every op has. ``path`` is None where it depends on the run: inside loops, and where a
    step can run twice.
    """

    index: int = -1
    frame: int = 0
    step_id: str = ""
    type: str = ""
    path: str | None = None
    rooted: bool = False  # whether that is its path in each run: it is in the run's own frame
    # in a loop, where nothing between the two can run twice: the index of the nearest loop, and how
    # the path goes on after that of the iteration
    loop_around: int = -1
    tail: str = ""
    twice: bool = False
    owner: Op | None = None
    timed: tuple[LoopOp, ...] = ()  # the loops around it that have a deadline
    # The slots of what it gives: that of its output, and that of its output_key. What nothing reads
    # has the same slot as all that nothing reads, and where a step has no key its output has both.
    out: int = -1
    key: int = -1
    error: int = -1  # the slots of what went wrong, where it is read
    errors: int = -1
    next: Op = _LATER
    handlers: tuple[Handler, ...] = ()
    default: Any = None
    has_default: bool = False
    when: WhenOp | None = None  # what decides before it whether it runs
    brief: bool = True  # whether nothing is to be said of its success but what it gave
    names: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()  # all that it gives, as a program reads it
    # of a tool call that needs no thread, and no look at its outcome but the machine's
    straight: int = 0
    # whether it is a tool call of which nothing is to be done but to take its arguments, call, and
    # keep the value
    quick: bool = False
    code: int = END

    def targets(self) -> Iterator[tuple[str, Op]]:
        """Label and op of everything that may follow."""
        if self.next is not None:
            yield "next", self.next
        for handler in self.handlers:
            label = "skip" if handler.errors is None else f"catch {'|'.join(handler.errors)}"
            yield label, handler.target

    def describe(self) -> str:
        """The op's own part of `Plan.explain`."""
        return ""


FOREVER = 1 << 62
"""A deadline that never comes, in nanoseconds."""

KEPT_FOREVER = 1 << 62
"""`CallOp.kept_ns` of an answer that may be of any age."""


@dataclass(slots=True, eq=False)
class CallOp(Op):
    """A call to the outside: what both kinds have."""

    attempts: int = 1
    retry: Retry = field(default_factory=Retry)
    timeout_ns: int = 0
    # how long an answer to an equal call may be taken in place of one; None where none is
    kept_ns: int | None = None


@dataclass(slots=True, eq=False)
class ToolOp(CallOp):
    """One tool call. ``take`` gives the recorded values, and those that the tool receives in the
    order of ``receives``.
    """

    tool: str = ""
    number: int = -1  # index into Plan.calls
    take: Take = _LATER
    # what `take` gives for ever, of arguments that are all scalars of the program
    constant: tuple[tuple[Any, ...], tuple[Any, ...]] | None = None
    # of the one argument that is a name: the slot, and the types that pass as they are
    slot: int = -1
    passing: frozenset[Any] | None = None
    receives: tuple[str, ...] = ()
    effect: Effect = "write"
    takes_key: bool = False
    # what the policy demands: position of the argument, its name, the rule's text, and what holds the
    # value against it
    checks: tuple[tuple[int, str, str, Enforce], ...] = ()
    undo: ToolOp | None = None
    reconcile: ToolOp | None = None
    code: int = TOOL

    @property
    def unsafe(self) -> bool:
        """Whether a call whose outcome is unknown may have changed the world."""
        return self.effect in UNSAFE

    def describe(self) -> str:
        parts = [f"{self.tool}({', '.join(self.names)})", self.effect]
        parts += [f"check {name}: {text}" for _, name, text, _ in self.checks]
        if self.undo:
            parts.append(f"undo {self.undo.tool}")
        return " ".join(parts)


@dataclass(slots=True, eq=False)
class ModelOp(CallOp):
    """One model call. ``messages`` gives what is sent; ``options`` what the step declares beside
    it.
    """

    messages: Eval = _LATER
    # the same where each content is a text
    take: TakeMessages | None = None
    asked: dict[str, Any] = field(default_factory=dict)  # what a request says beside its messages
    plain: bool = False
    text: bool = True  # whether nothing is asked of the answer but to be a text
    options: dict[str, Any] = field(default_factory=dict)
    model: str | None = None
    max_tokens: int | None = None
    allowed: tuple[str, ...] | None = None
    schema: dict[str, Any] | None = None
    # an answer parsed from JSON; the fault, or None
    validate: Callable[[Any], str | None] | None = None
    with_literals: Callable[[Any], Any] | None = (
        None  # a valid answer, with the schema's own literals where it has them
    )
    answer_attempts: int = 1
    on_invalid: Any = None
    has_on_invalid: bool = False
    accepts_cut: bool = False  # on_truncated: accept
    code: int = MODEL

    def describe(self) -> str:
        parts = [self.model or "default model"]
        if self.allowed:
            parts.append(f"one of {list(self.allowed)!r}")
        if self.schema is not None:
            parts.append("by schema")
        return " ".join(parts)


@dataclass(slots=True, eq=False)
class ConditionalOp(Op):
    """A condition, what all of its kinds have: ``capture`` takes the values it reads, for the
    record, and ``show`` gives each reference with the value it had.
    """

    test: Eval = _LATER
    capture: Callable[[Frame], tuple[Any, ...]] = _LATER
    show: Callable[[tuple[Any, ...]], dict[str, Any]] = _LATER
    text: str = ""

    def describe(self) -> str:
        return " ".join(self.text.split())


@dataclass(slots=True, eq=False)
class WhenOp(ConditionalOp):
    """What decides before a step whether it runs: ``next`` is the step, ``unless`` what follows
    where it is skipped.
    """

    unless: Op = _LATER
    code: int = WHEN

    def targets(self) -> Iterator[tuple[str, Op]]:
        yield "when", self.next
        yield "unless", self.unless
        yield from list(Op.targets(self))[1:]


@dataclass(slots=True, eq=False)
class BranchOp(ConditionalOp):
    """A condition that leads to one of two."""

    then: Op = _LATER
    otherwise: Op = _LATER
    # the step's output: a jump's target, or the branch's name
    labels: tuple[str, str] = ("then", "otherwise")
    missing: tuple[bool, bool] = (False, False)  # the branch is not there, and that fails
    code: int = BRANCH

    def targets(self) -> Iterator[tuple[str, Op]]:
        yield "then", self.then
        yield "otherwise", self.otherwise
        yield from Op.targets(self)


@dataclass(slots=True, eq=False)
class AssertOp(ConditionalOp):
    """A condition without which the frame does not go on; ``message`` says what is wrong."""

    message: Eval = _LATER
    code: int = ASSERT


@dataclass(slots=True, eq=False)
class StopOp(Op):
    """The end of a frame, as failed, with an error whose name and message are computed."""

    named: Eval = _LATER
    message: Eval = _LATER
    code: int = STOP


@dataclass(slots=True, eq=False)
class SwitchOp(Op):
    """A branch by the text of a value."""

    on: Eval = _LATER
    cases: dict[str, Op] = field(default_factory=dict)
    other: Op | None = None
    labels: dict[str, str] = field(default_factory=dict)
    code: int = SWITCH

    def targets(self) -> Iterator[tuple[str, Op]]:
        for value, op in self.cases.items():
            yield f"case {value}", op
        if self.other is not None:
            yield "default", self.other
        yield from Op.targets(self)


@dataclass(slots=True, eq=False)
class SetOp(Op):
    """Writes names."""

    values: tuple[tuple[str, int, Eval], ...] = ()
    code: int = SET

    def describe(self) -> str:
        return ", ".join(f"${name}" for name, _, _ in self.values)


MAP_CONCURRENCY = 16
"""Items of a `map` at a time without ``max_concurrency``: within the rate limits that providers
give to small accounts.
"""


@dataclass(slots=True, eq=False)
class ForkOp(Op):
    """Child frames: the branches of a `parallel`, the items of a `map`, the one of a `call`."""

    kind: Literal["parallel", "map", "call"] = "parallel"
    frames: tuple[FramePlan, ...] = ()
    over: Eval | None = None
    item: int = -1
    max_items: int = 0
    max_concurrency: int | None = None
    goes_on: bool = False  # on_item_error: continue
    arguments: Eval | None = None
    timeout_ns: int = 0
    code: int = FORK

    def at_once(self, count: int) -> int:
        """How many of *count* children may run at a time."""
        return min(
            count, self.max_concurrency or (MAP_CONCURRENCY if self.kind == "map" else count)
        )

    def describe(self) -> str:
        failing = ", goes on after failed ones" if self.goes_on else ""
        return (
            f"{self.kind} "
            f"{', '.join(f'frame {frame.index} {frame.name!r}' for frame in self.frames)}{failing}"
        )


@dataclass(slots=True, eq=False)
class LoopOp(Op):
    """The entry of a loop: sets its counter."""

    timeout_ns: int = 0
    max_iterations: int = 1
    code: int = LOOP

    def describe(self) -> str:
        return f"at most {self.max_iterations} times"


@dataclass(slots=True, eq=False)
class TestOp(Op):
    """The end of an iteration; ``again`` is the body."""

    __test__ = False  # not a test case, whatever pytest makes of the name

    loop: LoopOp = _LATER
    until: Eval | None = None
    again: Op = _LATER
    exhausted: Op | None = None
    text: str = ""
    code: int = TEST

    def targets(self) -> Iterator[tuple[str, Op]]:
        yield "until", self.next
        yield "again", self.again
        if self.exhausted is not None:
            yield "exhausted", self.exhausted
        yield from list(Op.targets(self))[1:]

    def describe(self) -> str:
        return f"until {' '.join(self.text.split())}" if self.text else ""


@dataclass(slots=True, eq=False)
class CloseOp(Op):
    """The end of a block: its output becomes that of its container."""

    code: int = CLOSE


@dataclass(slots=True, eq=False)
class PauseOp(Op):
    """A wait for a person, a time or an event; ``request`` says for what."""

    request: Eval = _LATER
    then: Op = _LATER
    otherwise: Op | None = None
    timeout_ns: int = 0
    asks: bool = False  # a person, who may reject
    rejects: bool = False  # a rejection fails the step: there is no `otherwise`
    validate: Callable[[Any], str | None] | None = None  # of an event's payload; the fault, or None
    with_literals: Callable[[Any], Any] | None = (
        None  # a valid payload, with the schema's own literals where it has them
    )
    code: int = PAUSE

    def targets(self) -> Iterator[tuple[str, Op]]:
        yield "then", self.then
        if self.otherwise is not None:
            yield "otherwise", self.otherwise
        yield from Op.targets(self)


@dataclass(slots=True, eq=False)
class FramePlan:
    """One frame: where it begins, how many slots it has, what it gives."""

    index: int
    name: str
    slots: list[str] = field(default_factory=list)  # their names, for people
    entry: Op = _LATER
    blank: list[Any] = field(default_factory=list)  # the slots at the start, without inputs
    # names that inputs may give and something reads, with their slots
    inputs: tuple[tuple[str, int], ...] = ()
    needed: tuple[str, ...] = ()  # those that inputs must give; they have the first of `inputs`
    declared: tuple[str, ...] = ()  # by the program's schema
    others: tuple[str, ...] = ()  # the rest of `inputs`
    # all needed values at once, where they have the first slots
    take: Callable[[Any], tuple[Any, ...]] | None = None
    # the inputs against the declared schema; the fault, or None
    check: Callable[[Any], str | None] | None = None
    output: Eval | None = None
    light: ToolOp | None = None  # of a branch or item, the one call that it is made of
    timeout_ns: int = 0  # of the whole run, or of the whole of a called program
    budget: Budget | None = None  # of a called program, within what its caller has left
    keeps_last: bool = False  # a branch or item gives null where its last step was skipped
    # most steps, model calls, tool calls of one execution
    ceiling: tuple[int, int, int] = (0, 0, 0)


class Calling(NamedTuple):
    """How calls of a tool are made: with these arguments, by position or by name."""

    tool: str
    receives: tuple[str, ...]
    by_position: bool

    def bound(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """What takes the arguments by position and calls *function*."""
        names = self.receives
        if self.by_position:
            return function

        def call(*values: Any) -> Any:
            return function(**dict(zip(names, values, strict=True)))

        return call


@dataclass(slots=True, eq=False)
class Plan:
    """A program ready to run, on any host whose tools have the contracts that it was made with: it
    holds no function of a host. ``frames[0]`` is the run itself, ``calls`` are the ways in which
    its tools are called, which a host binds to functions once (`bound`).
    """

    name: str
    frames: list[FramePlan]
    ops: list[Op]
    tools: list[str]
    calls: list[Calling]
    models: list[str | None]
    given: tuple[str, ...] = ()  # inputs that value checks read

    def bound(self, functions: Mapping[str, Callable[..., Any]]) -> list[Callable[..., Any]]:
        """By `ToolOp.number`, what calls the tool, of *functions* by the names of tools."""
        return [calling.bound(functions[calling.tool]) for calling in self.calls]

    @property
    def keeps(self) -> bool:
        """Whether an answer of any call is kept."""
        return any(isinstance(op, CallOp) and op.kept_ns is not None for op in self.ops)

    def shortest_ns(self) -> int:
        """The shortest deadline of anything in the plan."""
        beside = [
            aside
            for op in self.ops
            if isinstance(op, ToolOp)
            for aside in (op.undo, op.reconcile)
            if aside
        ]
        times = [getattr(op, "timeout_ns", 0) for op in [*self.ops, *beside]]
        times += [frame.timeout_ns for frame in self.frames]
        times += [
            int(frame.budget.max_seconds * 1e9)
            for frame in self.frames
            if frame.budget and frame.budget.max_seconds
        ]
        return min((time for time in times if time), default=60_000_000_000)

    def explain(self) -> str:
        """The plan as text: a line an op, with what may follow it."""
        lines = [
            f"program {self.name!r}: {len(self.ops)} ops, {len(self.frames[0].slots)} slots, "
            f"{len(self.frames)} frames"
        ]
        slots = self.frames[0].slots
        lines.append(f"slots: {_numbered(slots)}")
        frame = self.frames[0]
        shown = -1
        for op in sorted(self.ops, key=lambda op: (op.frame, op.code in (END, FAIL), op.index)):
            if op.frame != shown:
                shown = op.frame
                frame = self.frames[shown]
                if frame.slots is not self.frames[0].slots and frame.slots is not slots:
                    slots = frame.slots
                    lines.append(f"slots: {_numbered(slots)}")
                lines.append(f"frame {shown} {frame.name!r}: begins at {frame.entry.index}")
            what = " ".join(part for part in (CODES[op.code], op.step_id, op.describe()) if part)
            if op.code in (END, FAIL):
                what = CODES[op.code]
            told = op.writes and op.code not in (TEST, CLOSE)
            arrow = f" -> {', '.join(op.writes)}" if told else ""
            follows = ", ".join(f"{label} {target.index}" for label, target in op.targets())
            lines.append(f"  {op.index:>4} {what}{arrow}" + (f"  [{follows}]" if follows else ""))
        return "\n".join(lines)


def _numbered(slots: list[str]) -> str:
    return ", ".join(f"{i}={name}" for i, name in enumerate(slots))
