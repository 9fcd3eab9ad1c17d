"""What a step of each type means, written once: what it reads and writes, where it goes, what its
output is made of.

A step comes in; small terms go out, which every analysis interprets in its own way. An analysis
that handles each term handles each type of step, those to come included, and names no class of
steps. The table is at the end; which of a step's fields hold templates, expressions and blocks
stands with its model (`Step.HOLDS`), as does whether it calls outside (`Step.OUTSIDE`). Nothing
here looks at a value or at another step.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

from ..diagnostics import Loc
from .expr import Ref, expression_references, is_literal, named_references, value_references
from .program import (
    ATTRIBUTES,
    HOLD_STEPS,
    ApprovalStep,
    AssertStep,
    Block,
    CallStep,
    ConditionStep,
    FailStep,
    Holds,
    LLMStep,
    LoopStep,
    MapStep,
    OnError,
    ParallelStep,
    Program,
    SetStep,
    Step,
    SwitchStep,
    ToolStep,
    WaitStep,
    block_at,
    blocks,
    written,
)

# --- what an output is made of --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Literals:
    """One of these values, as the program spells them."""

    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class External:
    """What comes from outside: what a tool returned, a model answered to what the step reads, a
    person decided, an event carried, or the time that has come.

    It is one of ``allowed``, or valid by ``schema``, where the step says so.
    """

    by: Literal["tool", "model", "person", "event", "time"]
    schema: dict[str, Any] | None = None
    allowed: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Last:
    """What the last step of one of ``blocks`` left; null where no step of it left anything."""

    blocks: tuple[tuple[Step, ...], ...]


@dataclass(frozen=True, slots=True)
class ObjectOf:
    """By branch, what its last step left; ``or_null`` for one that failed."""

    branches: Mapping[str, Last]
    or_null: bool


@dataclass(frozen=True, slots=True)
class ListOf:
    """For each item, what the last step left; ``or_null`` for one that failed."""

    each: Last
    or_null: bool


@dataclass(frozen=True, slots=True)
class Values:
    """An object of templates."""

    templates: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Called:
    """The output of the program that is called with ``arguments``."""

    arguments: Mapping[str, Any]


Term: TypeAlias = Literals | External | Last | ObjectOf | ListOf | Values | Called

# --- what is written ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Output:
    """The step's output."""


OUTPUT = Output()


@dataclass(frozen=True, slots=True)
class Value:
    """What a template gives, at the end of the step."""

    template: Any
    name: str


@dataclass(frozen=True, slots=True)
class Item:
    """An item of a list, for the frame of that item alone."""

    over: Any


ErrorWord = Literal["error", "errors"]
ERROR_WORDS: tuple[ErrorWord, ...] = ("error", "errors")
"""The fields of ``$step`` that tell what went wrong in it."""


@dataclass(frozen=True, slots=True)
class Told:
    """What went wrong: in the step (``error``), or in each of its branches or items (``errors``)."""

    word: ErrorWord


Write: TypeAlias = Output | Value | Item | Told

# --- where a step goes ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Goes:
    """To what follows it."""

    by_values: ClassVar[bool] = False


GOES = Goes()


@dataclass(frozen=True, slots=True)
class Stops:
    """Nowhere: its frame has failed with an error of the name that the template ``error`` gives."""

    by_values: ClassVar[bool] = False
    error: str


@dataclass(frozen=True, slots=True)
class Way:
    """A way out of a decision that leads to ``target``, which stands ``at`` a place in the step.

    ``word`` names its edge in a policy, where that says something of the decision. ``output`` is
    what a step gives that writes which way it took. ``absent`` is what happens where the program
    gives no target.
    """

    label: str
    word: str | None
    target: str | Sequence[Step] | None
    at: Loc
    output: Any = None
    absent: Literal["fail", "follow", "block"] = "fail"
    case: str | None = None  # of a switch; the way without one takes the other values


@dataclass(frozen=True, slots=True)
class Test:
    """A condition that stands in ``field``, and the edges on which it was true, and was not."""

    __test__ = False  # not a test case, whatever pytest makes of the name

    field: str
    text: str | None
    true: str
    false: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Approval:
    """What a person of a role is asked, and is shown."""

    role: str
    show: Any


@dataclass(frozen=True, slots=True)
class Chooses:
    """One of ``ways``: by a ``condition`` the first where it is true, and the second where not; by
    the text of the value ``on``; or as a person says. Where no way is taken, it fails.

    ``skipped`` is the way of a step that is skipped, since no decision is ever made up: it fails
    where it has no such way. None: it goes on.
    """

    by: Literal["condition", "value", "person"]
    ways: tuple[Way, ...]
    condition: str | None = None
    on: Any = None
    approval: Approval | None = None  # where a person says
    skipped: str | None = None

    @property
    def by_values(self) -> bool:
        """Whether values decide, and no person."""
        return self.approval is None

    def way(self, label: str) -> Way | None:
        """The way whose edge has this *label*."""
        return next((way for way in self.ways if way.label == label), None)

    @property
    def test(self) -> Test | None:
        """The condition, where one decides."""
        if self.by != "condition":
            return None
        true, *false = [way.label for way in self.ways]
        return Test("condition", self.condition, true, tuple(false))


@dataclass(frozen=True, slots=True)
class Repeats:
    """``body`` until the condition ``until`` holds, at most ``bound`` times."""

    by_values: ClassVar[bool] = True
    body: Block
    until: str | None
    bound: int
    goes_on: bool  # after the last time

    @property
    def edges(self) -> tuple[str, ...]:
        """The edges that say why it ended."""
        return ("until", "exhausted") if self.goes_on else ("until",)

    @property
    def test(self) -> Test:
        """What decides after each time."""
        return Test("until", self.until, "until", ("again", "exhausted"))


@dataclass(frozen=True, slots=True)
class Forks:
    """Frames at the same time: by name a branch each, or one for each item of the list ``over``,
    with the item under its name. There are at ``most`` so many.
    """

    by_values: ClassVar[bool] = False
    kind: Literal["branch", "item"]
    frames: tuple[tuple[str, Block], ...]
    most: int
    goes_on: bool  # after one that failed
    item: str | None = None
    over: Any = None


@dataclass(frozen=True, slots=True)
class Calls:
    """The frame of another program."""

    by_values: ClassVar[bool] = False
    program: str | Program
    arguments: Mapping[str, Any]


Control: TypeAlias = Goes | Stops | Chooses | Repeats | Forks | Calls
"""Of each, ``by_values`` says whether values decide how it goes on: a condition, or a case for a
value.
"""

# --- calls of tools -------------------------------------------------------------------------------

Use = Literal["step", "undo", "reconcile"]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that a step makes of a tool: its own, or one beside it."""

    use: Use
    tool: str
    args: Mapping[str, Any]

    @property
    def at(self) -> Loc:
        """Its place in the step."""
        return () if self.use == "step" else (self.use,)


# --- one type each --------------------------------------------------------------------------------


def _nothing(step: Any) -> tuple[Any, ...]:
    return ()


def _goes(step: Any) -> Control:
    return GOES


@dataclass(frozen=True, slots=True)
class Semantics:
    """What steps of one type mean: functions from such a step to terms. Its output is one of
    ``output``, and ``last`` says what stands as the last output of its block after it: its own,
    that of its blocks, or that of the step before it.
    """

    output: Callable[[Any], tuple[Term, ...]]
    control: Callable[[Any], Control] = _goes
    writes: Callable[[Any], tuple[tuple[str, Write], ...]] = _nothing  # beside its output
    calls: Callable[[Any], tuple[ToolCall, ...]] = _nothing
    last: Literal["own", "blocks", "before"] = "own"


def _answer(step: LLMStep) -> tuple[Term, ...]:
    allowed = tuple(step.allowed_outputs) if step.allowed_outputs is not None else None
    answer = External("model", step.output_schema, allowed)
    if "on_invalid" in step.model_fields_set:
        return answer, Literals((step.on_invalid,))
    return (answer,)


def _tool_calls(step: ToolStep) -> tuple[ToolCall, ...]:
    found = [ToolCall("step", step.tool, step.args)]
    if step.undo is not None:
        found.append(ToolCall("undo", step.undo.tool, step.undo.args))
    if step.reconcile is not None:
        own = "args" in step.reconcile.model_fields_set
        args = step.reconcile.args if own else step.args
        found.append(ToolCall("reconcile", step.reconcile.tool, args))
    return tuple(found)


def _condition(step: ConditionStep) -> Control:
    # the form of the branch that is there decides: beside a block an empty block, beside a jump a
    # failure
    block = isinstance(step.then, list) or isinstance(step.otherwise, list)
    absent: Literal["block", "fail"] = "block" if block else "fail"
    ways = tuple(
        Way(name, name, target, (name,), _label(name, target), absent)
        for name, target in (("then", step.then), ("otherwise", step.otherwise))
    )
    return Chooses("condition", ways, step.condition, skipped="otherwise")


def _switch(step: SwitchStep) -> Control:
    ways = [
        Way(f"case:{case}", case, target, ("cases", case), _label(case, target), case=case)
        for case, target in step.cases.items()
    ]
    if step.default is not None:
        label = _label("default", step.default)
        ways.append(Way("default", "default", step.default, ("default",), label))
    return Chooses("value", tuple(ways), on=step.on, skipped="default")


def _assertion(step: AssertStep) -> Control:
    way = Way("holds", "holds", None, ("condition",), True, absent="follow")
    return Chooses("condition", (way,), step.condition)


def _label(name: str, target: str | Sequence[Step] | None) -> str:
    """What a step gives that took this way: the target of a jump, else the way's name."""
    return target if isinstance(target, str) else name


def _approval(step: ApprovalStep) -> Control:
    # with a deadline `otherwise` is taken also where nobody has decided
    late = step.timeout_seconds is not None
    ways = (
        Way("then", "then", step.then, ("then",), absent="follow"),
        Way("otherwise", None if late else "otherwise", step.otherwise, ("otherwise",)),
    )
    return Chooses("person", ways, approval=Approval(step.role, step.show))


def _labels_and_blocks(step: Step) -> tuple[Term, ...]:
    ways = _ways(step)
    return Literals(tuple(dict.fromkeys(way.output for way in ways))), *_blocks(ways)


def _decision(step: ApprovalStep) -> tuple[Term, ...]:
    return External("person", DECISION), *_blocks(_ways(step))


DECISION: dict[str, Any] = {
    "type": "object",
    "properties": {"approved": {"type": "boolean"}, "reason": {}},
    "required": ["approved", "reason"],
    "additionalProperties": False,
}
"""What an approval writes: the decision, and a comment of which nothing is known."""


def _ways(step: Step) -> tuple[Way, ...]:
    found = control(step)
    assert isinstance(found, Chooses)
    return found.ways


def _blocks(ways: Sequence[Way]) -> tuple[Last, ...]:
    """The blocks that ways lead to; an absent one beside a block is an empty block."""
    found = [
        tuple(way.target or ())
        for way in ways
        if isinstance(way.target, list) or (way.target is None and way.absent == "block")
    ]
    return (Last(tuple(found)),) if found else ()


def _null(step: ParallelStep | MapStep) -> bool:
    return bool(step.catch) or step.on_item_error == "continue"


def _object(step: ParallelStep) -> tuple[Term, ...]:
    branches = {name: Last((tuple(steps),)) for name, steps, _ in step.branches()}
    return (ObjectOf(branches, _null(step)),)


def _branches(step: ParallelStep) -> Control:
    found = zip(step.branches(), blocks(step), strict=True)
    frames = tuple((name, block) for (name, _, _), block in found)
    return Forks("branch", frames, len(frames), step.on_item_error == "continue")


def _items(step: MapStep) -> Control:
    frames = ((step.item_name, block_at(step.steps, ("steps",))),)
    if isinstance(step.over, list):  # counted, and it fails as a whole if it is too long
        most = len(step.over) if len(step.over) <= step.max_items else 0
    else:
        most = 0 if is_literal(step.over) else step.max_items  # a literal that is no list fails
    goes_on = step.on_item_error == "continue"
    return Forks("item", frames, most, goes_on, step.item_name, step.over)


_FROM_A_TOOL = (External("tool"),)

TABLE: dict[type[Step], Semantics] = {
    ToolStep: Semantics(output=lambda step: _FROM_A_TOOL, calls=_tool_calls),
    LLMStep: Semantics(output=_answer),
    ConditionStep: Semantics(output=_labels_and_blocks, control=_condition, last="blocks"),
    SwitchStep: Semantics(output=_labels_and_blocks, control=_switch, last="blocks"),
    ParallelStep: Semantics(
        output=_object,
        control=_branches,
    ),
    MapStep: Semantics(
        output=lambda step: (ListOf(Last((tuple(step.steps),)), _null(step)),),
        control=_items,
        writes=lambda step: ((step.item_name, Item(step.over)),),
    ),
    LoopStep: Semantics(
        output=lambda step: (Last((tuple(step.steps),)),),
        control=lambda step: Repeats(
            block_at(step.steps, ("steps",)),
            step.until,
            step.max_iterations,
            step.on_exhausted == "continue",
        ),
    ),
    CallStep: Semantics(
        output=lambda step: (Called(step.arguments),),
        control=lambda step: Calls(step.program, step.arguments),
    ),
    SetStep: Semantics(
        output=lambda step: (Values(step.values),),
        writes=lambda step: tuple(
            (name, Value(template, name)) for name, template in step.values.items()
        ),
    ),
    ApprovalStep: Semantics(output=_decision, control=_approval, last="blocks"),
    WaitStep: Semantics(
        output=lambda step: (
            External("time" if step.event is None else "event", step.output_schema),
        )
    ),
    AssertStep: Semantics(
        output=lambda step: (Literals((True,)),), control=_assertion, last="before"
    ),
    FailStep: Semantics(
        output=lambda step: (Literals(()),),
        control=lambda step: Stops(step.error),
        last="before",
    ),
}

_NAMED = {model.model_fields["type"].default.value: model for model in TABLE}

OUTSIDE = frozenset(name for name, model in _NAMED.items() if model.OUTSIDE)
"""The types whose output comes from outside."""

CALLS = frozenset(name for name, model in _NAMED.items() if model.CALLS)
"""The types that make a call."""

# --- questions ------------------------------------------------------------------------------------


def output(step: Step) -> tuple[Term, ...]:
    """The terms of which the output of *step* is one, where it succeeds."""
    return TABLE[type(step)].output(step)


def control(step: Step) -> Control:
    """Where *step* goes."""
    return TABLE[type(step)].control(step)


def tool_calls(step: Step) -> tuple[ToolCall, ...]:
    """The calls of tools that *step* makes, its own first."""
    return TABLE[type(step)].calls(step)


def last(step: Step) -> Literal["own", "blocks", "before"]:
    """What stands as the last output of a block after *step*, see `Semantics`."""
    return TABLE[type(step)].last


def writes(step: Step) -> Iterator[tuple[str, Write]]:
    """The names that *step* writes beside its output, and what."""
    if step.output_key is not None:
        yield step.output_key, OUTPUT
    yield from TABLE[type(step)].writes(step)


def error_words(step: Step, goes: Control) -> Iterator[ErrorWord]:
    """Those that *step* has, which goes so: only where the program goes on after a failure."""
    if step.catch or step.on_error is OnError.SKIP:
        yield "error"
    if isinstance(goes, Forks) and goes.goes_on:
        yield "errors"


def partial_output(step: Step) -> bool:
    """Whether *step* has an output where its failure is caught: what those branches or items gave
    that did not fail.
    """
    return isinstance(control(step), Forks)


WHEN = ("when", "unless")
"""The edges of what decides before a step whether it runs."""


def edge_words(step: Step) -> dict[str, str]:
    """By the word that names it in a policy, the label of each edge of *step* that decides
    something. A word that would name two of them names none.
    """
    found = [(word, word) for word in WHEN] if step.when is not None else []
    match control(step):
        case Chooses(ways=ways):
            found += [(way.word, way.label) for way in ways if way.word is not None]
        case Repeats() as loop:
            found += [(word, word) for word in loop.edges]
    times = Counter(word for word, _ in found)
    return {word: label for word, label in found if times[word] == 1}


def reads(step: Step) -> Iterator[tuple[Ref, Loc]]:
    """Each reference that *step* itself reads, and its place in the step."""
    for field, attribute, holds in _READ[type(step)]:
        value = getattr(step, attribute)
        if value is None:
            continue
        found: Iterable[Ref]
        if holds is Holds.VALUES:
            for name, template in value.items():
                for ref in value_references(template):
                    yield ref, (field, name)
            continue
        at: Loc = (field,)
        if holds is Holds.EXPRESSION:
            found = expression_references(value)
        elif holds is Holds.TEMPLATES:
            found = named_references(value.values())
        elif holds is Holds.CALL:
            found, at = named_references(value.args.values()), (field, "args")
        else:
            found = value_references(value)
        for ref in found:
            yield ref, at


_READ = {
    model: tuple(
        (field, ATTRIBUTES.get(field, field), holds)
        for field, holds in model.HOLDS.items()
        if holds not in HOLD_STEPS
    )
    for model in TABLE
}
"""By type the fields that hold references, each with its attribute."""


def written_at(step: Step, where: Loc) -> Any:
    """What the program writes at a place in *step* that `reads` names."""
    part: Any = written(step, str(where[0]))
    for name in where[1:]:
        part = part[name] if isinstance(part, dict) else getattr(part, str(name))
    return part


def holds_at(step: Step, where: Loc) -> Holds:
    """What stands at a place in *step* that `reads` names."""
    field = str(where[0])
    held = Holds.EXPRESSION if field == "when" else step.HOLDS[field]
    if held is Holds.CALL:
        return Holds.TEMPLATES
    return Holds.TEMPLATE if held is Holds.VALUES else held
