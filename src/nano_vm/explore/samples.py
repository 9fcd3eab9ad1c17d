"""Values worth trying: what a program asks of the values that come from outside, and values that
answer either way.

A `Flow` and the contracts of tools come in. `Questions` reads every condition, switch, loop and map
of the flow and notes, by the step or input that the value comes from, what it is compared with and
which fields are read. `samples` gives values by that and by a JSON Schema, where there is one: each
side of each question, every member of an enum. Nothing is run, and nothing is drawn at random.

What is tried is a choice of values, not all values: a branch that no sample reaches can still be
reachable.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from math import gcd
from typing import Any

from ..diagnostics import Loc
from ..language.expr import (
    Arith,
    Bool,
    Call,
    Compare,
    Const,
    Index,
    Items,
    Node,
    Not,
    Ref,
    Template,
    children,
    computed,
    entries,
    parse_expr,
    parse_template,
)
from ..language.flow import Flow, Names
from ..language.messages import SCHEMA as MESSAGES
from ..language.operators import number_in as number_of
from ..language.policy import VALUE, ArgRule, CallRule
from ..language.program import Holds, Program, Step, walk, written
from ..language.schemas import schema_check
from ..language.semantics import (
    Called,
    Calls,
    Chooses,
    External,
    Forks,
    Item,
    Last,
    ListOf,
    ObjectOf,
    Output,
    Term,
    ToolCall,
    Value,
    Values,
    output,
)
from ..language.semantics import last as left_by
from ..tools.contract import ToolContract
from ..values import UNSET, as_text, canonical

MAX_SAMPLES = 32
"""Values tried for one call or input: five questions of two sides each, asked together."""

MAX_DEPTH = 8
"""Levels of a schema or value that are filled in; deeper ones are cut, which a schema that recurs
needs.
"""

TEXT = "text"
"""A string of which nothing is asked."""

OTHER_TEXT = "something else"
"""A string that is none of those asked for."""

Checks = Mapping[Loc, Sequence[CallRule]]
"""By the place of an argument: what is held against its value before the call."""

Schema = Mapping[str, Any] | bool


@dataclass(slots=True)
class Asked:
    """What a program asks of one value: what it is compared with, and of its parts."""

    equal: dict[bytes, Any] = field(default_factory=dict)  # by canonical bytes, in order
    near: dict[float, None] = field(default_factory=dict)  # numbers it is ordered by
    inside: dict[bytes, Any] = field(default_factory=dict)  # what is looked for in it
    starts: dict[str, None] = field(default_factory=dict)
    ends: dict[str, None] = field(default_factory=dict)
    lengths: dict[int, None] = field(default_factory=dict)
    kinds: dict[str, None] = field(default_factory=dict)  # boolean, number, list, object
    schemas: list[dict[str, Any]] = field(default_factory=list)  # of tools that take it
    fields: dict[str, Asked] = field(default_factory=dict)
    item: Asked | None = None

    def part(self, name: str | int) -> Asked:
        """What is asked of a field, or of the items of a list."""
        if isinstance(name, str):
            return self.fields.setdefault(name, Asked())
        if self.item is None:
            self.item = Asked()
        return self.item

    @property
    def anything(self) -> bool:
        """Whether anything is asked at all."""
        return bool(self.equal) or self.errs or self.item is not None

    @property
    def errs(self) -> bool:
        """Whether a value of another type would be an error where it is read."""
        return bool(
            self.near
            or self.inside
            or self.starts
            or self.ends
            or self.lengths
            or self.kinds
            or self.fields
        )


NOTHING = Asked()

Source = tuple[int, str, str]
"""Where a value comes from: index of the first frame with the names, ``step``, ``error``,
``errors`` or ``input``, and its name.
"""

Origin = tuple[Source, tuple[str | int, ...]]


_OF_FIRST = frozenset(
    "lower upper strip int float str round abs default append sorted keys".split()
)
"""Functions and methods whose result says what their first argument is."""


def _kind(name: str) -> Callable[[Asked, Sequence[Node]], None]:
    return lambda asked, args: asked.kinds.setdefault(name)


def _key(asked: Asked, args: Sequence[Node]) -> None:
    match args[1]:
        case Const(str() | int() as key) if type(key) is not bool:
            asked.part(key)
        case _:
            asked.kinds["object"] = None


def _separator(asked: Asked, args: Sequence[Node]) -> None:
    for text in _literals(args[1]):
        _note(asked.inside, text)


def _json_texts(asked: Asked, args: Sequence[Node]) -> None:
    for text in ("{}", "[1]"):
        _note(asked.equal, text)


_ASKS: dict[str, Callable[[Asked, Sequence[Node]], None]] = {
    **dict.fromkeys(("append", "join", "sorted", "sum"), _kind("list")),
    **dict.fromkeys(("round", "abs"), _kind("number")),
    "keys": _kind("object"),
    "get": _key,
    "split": _separator,
    "json": _json_texts,
}
"""What functions ask of their first argument: values of other kinds are errors."""


class Questions:
    """What *flow* asks, by source; ``of`` a step's output or a run's input, ``sources`` of a node's
    condition.
    """

    def __init__(
        self, flow: Flow, contracts: Mapping[str, ToolContract], checks: Checks | None = None
    ) -> None:
        self.flow = flow
        self.contracts = contracts
        self.asked: dict[Source, Asked] = {}
        self.scopes = {id(frame.names): frame for frame in flow.roots}
        for names in flow.spaces:
            for step, at in names.steps:
                self._step(names, step)
                for call in names.calls.get(step.id, ())[:1] if checks else ():
                    for name, value in call.args.items():
                        for rule in (checks or {}).get((*names.loc, *at, "args", name), ()):
                            if isinstance(rule, ArgRule) and rule.check is not None:
                                self._checked(names, value, rule, rule.check)

    def of(self, names: Names, kind: str, name: str) -> Asked:
        """What is asked of the output of a step (*kind* ``step``) or of an input."""
        return self.asked.get(self._source(names, kind, name), NOTHING)

    def sources(self, names: Names, step: Step) -> dict[Source, None]:
        """The sources that the branch of *step* depends on."""
        found: dict[Source, None] = {}
        for ref, _ in names.all_reads(step):
            for source, _ in self.origins(names, ref):
                found.update(
                    self._calls_of(names, source)
                    if source[1] in ("error", "errors")
                    else {source: None}
                )
        return found

    def _calls_of(self, names: Names, source: Source) -> dict[Source, None]:
        """Where the error of a step comes from: its own call, and those inside it."""
        scope, _, name = source
        return {(scope, "step", inner.id): None for inner, _ in walk(names.by_id[name], ())}

    def _source(self, names: Names, kind: str, name: str) -> Source:
        return (self.scopes[id(names)].index, kind, name)

    # --- where a value comes from ---

    def origins(self, names: Names, ref: Ref, depth: int = 0) -> Iterator[Origin]:
        """The sources of what *ref* reads, each with the path to it there."""
        if depth > MAX_DEPTH:
            return
        name, path = ref.name, ref.path
        steps = names.by_id
        if names.is_error(ref):
            yield self._source(names, str(path[0]), name), path[1:]
            return
        if name in steps and (name not in names.keys or (path and path[0] == "output")):
            yield from self._output(
                names, steps[name], path[1:] if path and path[0] == "output" else path, depth + 1
            )
            return
        for step, write in names.writers.get(names.keys.get(name, -1), ()):
            match write:
                case Output():
                    yield from self._output(names, step, path, depth + 1)
                case Value(template):
                    yield from self._value(names, template, path, depth + 1)
                case Item(over):
                    yield from self._value(names, over, (0, *path), depth + 1)
        if names.takes(name):
            yield from self._input(names, name, path, depth + 1)

    def _input(
        self, names: Names, name: str, path: tuple[str | int, ...], depth: int
    ) -> Iterator[Origin]:
        frame = self.scopes[id(names)]
        caller = frame.owner
        if caller is not None:
            if name in frame.arguments:
                yield from self._value(caller.frame.names, frame.arguments[name], path, depth + 1)
            return
        yield self._source(names, "input", name), path

    def _output(
        self, names: Names, step: Step, path: tuple[str | int, ...], depth: int
    ) -> Iterator[Origin]:
        if depth > MAX_DEPTH:
            return
        for term in output(step):
            yield from self._term(names, step, term, path, depth)

    def _term(
        self, names: Names, step: Step, term: Term, path: tuple[str | int, ...], depth: int
    ) -> Iterator[Origin]:
        match term:
            case External("tool" | "model" | "event" | "time"):
                yield self._source(names, "step", step.id), path
            case Values(templates) if path and path[0] in templates:
                yield from self._value(names, templates[str(path[0])], path[1:], depth + 1)
            case ObjectOf(branches) if path and path[0] in branches:
                yield from self._term(names, step, branches[str(path[0])], path[1:], depth)
            case ListOf(each) if path:
                yield from self._term(names, step, each, path[1:], depth)
            case Last(blocks):
                for block in blocks:
                    gives = next((s for s in reversed(block) if left_by(s) != "before"), None)
                    if gives is not None:
                        yield from self._output(names, gives, path, depth + 1)
            case Called():
                yield from self._called(names, step, path, depth + 1)

    def _called(
        self, names: Names, step: Step, path: tuple[str | int, ...], depth: int
    ) -> Iterator[Origin]:
        for frame in self.scopes.values():
            owner = frame.owner
            if owner is not None and owner.step is step and owner.frame.names is names:
                program = frame.names.program
                if program.output is not None:
                    yield from self._value(frame.names, program.output, path, depth + 1)
                else:
                    yield from self._output(frame.names, program.steps[-1], path, depth + 1)
                return

    def _value(
        self, names: Names, value: Any, path: tuple[str | int, ...], depth: int
    ) -> Iterator[Origin]:
        """The sources of a literal with templates inside, at *path* of it."""
        if depth > MAX_DEPTH:
            return
        if type(value) is str:
            template = parse_template(value)
            if template.typed:
                ref = template.parts[0]
                assert isinstance(ref, Ref)
                yield from self.origins(names, Ref(ref.name, ref.path + path), depth + 1)
            elif not path:
                for part in template.parts:
                    if isinstance(part, Ref):
                        yield from self.origins(names, part, depth + 1)
        elif type(value) is dict:
            node = computed(value)
            if node is not None:
                yield from self._expression(names, node, path, depth + 1)
            elif path:
                for key, item in entries(value):
                    if key == path[0]:
                        yield from self._value(names, item, path[1:], depth + 1)
        elif type(value) is list and path and isinstance(path[0], int):
            for item in value:
                yield from self._value(names, item, path[1:], depth + 1)

    def _expression(
        self, names: Names, node: Node, path: tuple[str | int, ...], depth: int
    ) -> Iterator[Origin]:
        inner = path[1:] if path and isinstance(path[0], int) else path
        match node:
            case Ref():
                yield from self.origins(names, Ref(node.name, node.path + path), depth + 1)
                return
            case Template(parts):
                for part in parts:
                    if isinstance(part, Ref):
                        yield from self.origins(names, part, depth + 1)
                return
            case Call("get", (box, Const(str() | int() as key), other)) if type(key) is not bool:
                found = [(box, (key, *path)), (other, path)]
            case Call("append", (box, item)):
                found = [(box, path), (item, inner)]
            case Items(items):
                found = [(item, inner) for item in items]
            case _:
                found = [(child, path) for child in children(node)]
        for child, at in found:
            yield from self._expression(names, child, at, depth + 1)

    # --- what is asked ---

    def _at(self, origin: Origin) -> Asked:
        source, path = origin
        asked = self.asked.setdefault(source, Asked())
        for part in path:
            asked = asked.part(part)
        return asked

    def _ask(self, names: Names, ref: Ref) -> list[Asked]:
        return [self._at(origin) for origin in self.origins(names, ref)]

    def _step(self, names: Names, step: Step) -> None:
        for ref, _ in names.all_reads(step):
            if ref.path:
                self._ask(names, ref)  # a field that is read has to be there
        if step.when is not None:
            self._truth(names, parse_expr(step.when))
        for name, holds in step.HOLDS.items():
            value = written(step, name)
            match holds:
                case Holds.EXPRESSION if value is not None:
                    self._truth(names, parse_expr(value))
                case Holds.TEMPLATES | Holds.VALUES if value is not None:
                    self._expressions(names, value)
                case Holds.MESSAGES:
                    self._conversed(names, value)
        for call in names.calls.get(step.id, ())[:1]:
            self._taken(names, call)
        match names.controls[step.id]:
            case Chooses("value", ways, on=on):
                for asked in self._of_value(names, on):
                    for way in ways:
                        if way.case is not None:
                            _note(asked.equal, way.case)
            case Forks(item=str(), over=over):
                for asked in self._of_value(names, over):
                    asked.kinds["list"] = None
                    asked.part(0)
            case Calls(program, arguments):
                self._given(names, program, arguments)

    def _expressions(self, names: Names, values: Mapping[str, Any]) -> None:
        """What expressions anywhere in *values* ask."""
        work = list(values.values())
        while work:
            value = work.pop()
            node = computed(value)
            if node is not None:
                self._within(names, node)
            elif type(value) is dict:
                work += value.values()
            elif type(value) is list:
                work += value

    def _conversed(self, names: Names, messages: Any) -> None:
        """What stands for messages is a list of them."""
        for item in messages if isinstance(messages, list) else [messages]:
            if isinstance(item, str):
                for asked in self._of_value(names, item):
                    asked.schemas.append(MESSAGES)

    def _of_value(self, names: Names, value: Any) -> list[Asked]:
        return [self._at(origin) for origin in self._value(names, value, (), 0)]

    def _checked(self, names: Names, value: Any, rule: ArgRule, node: Node) -> None:
        """*value* goes to an argument with a check of the policy."""
        if not isinstance(node, Compare):
            for child in children(node):
                self._checked(names, value, rule, child)
            return
        operands = [node.first, *(operand for _, operand in node.rest)]
        for asked in self._of_value(names, value):
            for operand in operands:
                for literal in _literals(operand):
                    for item in literal if type(literal) is list else [literal]:
                        _note(asked.equal, item)
                if isinstance(operand, Ref) and operand.name in rule.values:
                    literal = rule.values[operand.name]
                    for item in literal if type(literal) is list else [literal]:
                        _note(asked.equal, item)
                elif isinstance(operand, Ref) and operand.name != VALUE:
                    _note(asked.equal, TEXT)
        for op, operand in node.rest:
            if (
                isinstance(operand, Ref)
                and operand.name not in rule.values
                and operand.name != VALUE
            ):
                box = self._at(((0, "input", operand.name), operand.path))
                _note(box.inside if op in ("in", "not in") else box.equal, TEXT)
                if op in ("in", "not in"):
                    box.kinds["list"] = None

    def _taken(self, names: Names, call: ToolCall) -> None:
        """A value that goes to a tool unchanged is of the type that the tool takes."""
        contract = self.contracts.get(call.tool)
        for name, value in call.args.items():
            parameter = contract.parameters.get(name) if contract is not None else None
            template = parse_template(value) if type(value) is str else None
            if (
                parameter is None
                or parameter.convert is None
                or template is None
                or not template.typed
            ):
                continue
            schema = hint_schema(parameter.hint)
            if schema is not None:
                for asked in self._of_value(names, value):
                    asked.schemas.append(schema)

    def _given(self, names: Names, program: str | Program, arguments: Mapping[str, Any]) -> None:
        """A value that is an input of a called program is of its declared type."""
        called = self.flow.programs.get(program) if isinstance(program, str) else program
        declared = (called.inputs or {}).get("properties", {}) if called is not None else {}
        for name, value in arguments.items():
            if (
                isinstance(declared.get(name), dict)
                and type(value) is str
                and parse_template(value).typed
            ):
                for asked in self._of_value(names, value):
                    asked.schemas.append(declared[name])

    def _truth(self, names: Names, node: Node) -> None:
        """*node* stands where true or false is asked for."""
        match node:
            case Ref():
                for asked in self._ask(names, node):
                    asked.kinds["boolean"] = None
            case Bool(operands=operands):
                for operand in operands:
                    self._truth(names, operand)
            case Not(operand):
                self._truth(names, operand)
            case Index():
                for asked, _ in self._measured(names, node):
                    asked.kinds["boolean"] = None
            case _:
                self._within(names, node)

    def _within(self, names: Names, node: Node) -> None:
        match node:
            case Compare(first, rest):
                left = first
                for op, right in rest:
                    self._compared(names, left, op, right)
                    left = right
            case Call("startswith" | "endswith" as name, (box, Const(str(text)))):
                for asked, _ in self._measured(names, box):
                    (asked.starts if name == "startswith" else asked.ends)[text] = None
            case Bool() | Not():
                self._truth(names, node)
                return
            case Arith():
                for asked, how in self._measured(names, node):
                    if how == "value":
                        asked.kinds["number"] = None
            case Call(name, args) if name in _ASKS:
                for asked, how in self._measured(names, args[0]):
                    if how == "value":
                        _ASKS[name](asked, args)
        for child in children(node):
            self._within(names, child)

    def _measured(self, names: Names, node: Node, depth: int = 0) -> Iterator[tuple[Asked, str]]:
        """What *node* takes the measure of: its value (``value``), its length (``length``)."""
        match node:
            case Ref():
                yield from ((asked, "value") for asked in self._ask(names, node))
                if depth < MAX_DEPTH:
                    for inner in self._computed(names, node):
                        yield from self._measured(names, inner, depth + 1)
            case Template(parts):
                for part in parts:
                    if isinstance(part, Ref):
                        yield from ((asked, "value") for asked in self._ask(names, part))
            case Call("len", (inner,)):
                yield from ((asked, "length") for asked, _ in self._measured(names, inner, depth))
            case Call("get", (box, Const(str() | int() as key), _)) if type(key) is not bool:
                yield from (
                    (asked.part(key), how) for asked, how in self._measured(names, box, depth)
                )
            case Call("concat", args):
                for inner in args:
                    yield from self._measured(names, inner, depth)
            case Call("min" | "max" | "sum", (inner,)):
                yield from (
                    (asked.part(0), how) for asked, how in self._measured(names, inner, depth)
                )
            case Call(name, args) if name in _OF_FIRST:
                yield from self._measured(names, args[0], depth)
            case Arith(left=left, right=right):
                yield from self._measured(names, left, depth)
                yield from self._measured(names, right, depth)
            case Index(box, Const(str() | int() as key)) if type(key) is not bool:
                yield from (
                    (asked.part(key), how) for asked, how in self._measured(names, box, depth)
                )
            case Index(box):
                yield from (
                    (asked.part(0), how) for asked, how in self._measured(names, box, depth)
                )

    def _computed(self, names: Names, ref: Ref) -> Iterator[Node]:
        """The expressions by which a `set` computes what *ref* reads."""
        name, path = ref.name, ref.path
        found: list[Any] = []
        if not path:
            writers = names.writers.get(names.keys.get(name, -1), ())
            found = [write.template for _, write in writers if isinstance(write, Value)]
        step = names.by_id.get(name)
        if step is not None and len(path) == 2 and path[0] == "output":
            terms = [term for term in output(step) if isinstance(term, Values)]
            found = [term.templates.get(str(path[1])) for term in terms]
        for template in found:
            node = computed(template)
            if node is not None:
                yield node

    def _compared(self, names: Names, left: Node, op: str, right: Node) -> None:
        for one, two, swapped in ((left, right, False), (right, left, True)):
            for asked, how in list(self._measured(names, one)):
                literals = list(_literals(two))
                other = literals[0] if literals else None
                # of two values that are both unknown: equal and not, less and more
                if not literals:
                    literals, other = (
                        ([1], 1) if op in ("<", "<=", ">", ">=") else (["same"], "same")
                    )
                if how == "length":
                    if type(other) is int:
                        asked.lengths[other] = None
                elif op in ("==", "!="):
                    _note(asked.equal, other)
                elif op in ("<", "<=", ">", ">="):
                    number = number_of(other) if type(other) is str else other
                    if isinstance(number, (int, float)):
                        asked.near[number] = None
                    else:
                        _note(asked.equal, other)
                elif swapped:  # something in the value
                    _note(asked.inside, other)
                elif type(other) is list:
                    for item in other:
                        _note(asked.equal, item)
                else:
                    _note(asked.equal, other)


def _literals(node: Node) -> Iterator[Any]:
    """The literal that *node* is, or the literal items of the list that it is."""
    if isinstance(node, Const):
        yield node.value
    elif isinstance(node, Items):
        yield [item.value for item in node.items if isinstance(item, Const)]
    elif isinstance(node, Call) and node.method and node.args and isinstance(node.args[0], Const):
        yield from _literals(node.args[0])


def _note(table: dict[bytes, Any], value: Any) -> None:
    table.setdefault(canonical(value), value)


# --- values ---------------------------------------------------------------------------------------


def samples(asked: Asked, schema: Schema | None = None) -> list[Any]:
    """Values that answer what is *asked* each way, the plainest first; only such as *schema*
    allows, where there is one.

    None at all where none could be made for the schema: a pattern, say, that no text here fits.
    """
    if schema is None and asked.schemas:
        schema = asked.schemas[0]
    if schema is None or schema is True or schema == {}:
        return _distinct(_free(asked, 0))
    found = _distinct(_by_schema(schema, asked, schema, 0))
    if isinstance(schema, Mapping):
        try:
            check = schema_check(dict(schema))
            found = [value for value in found if check(value) is None]
        except ValueError:  # a type's own schema that is none of ours
            pass
    return found


def texts(asked: Asked) -> list[str]:
    """As `samples`, for a string of which a model or a person may make anything."""
    found = [
        value if type(value) is str else as_text(value)
        for value in _free(asked, 0)
        if value is not None
    ]
    return [text for text in _distinct(found) if type(text) is str]


def _distinct(values: Iterable[Any]) -> list[Any]:
    found: dict[bytes, Any] = {}
    for value in values:
        if value is not UNSET:
            _note(found, value)
        if len(found) >= MAX_SAMPLES:
            break
    return list(found.values())


def _free(asked: Asked, depth: int) -> Iterator[Any]:
    """Values of no declared type; of that of the tool which takes the value, where there is one."""
    if asked.schemas and depth <= MAX_DEPTH:
        schema = asked.schemas[0]
        found = [
            *islice(_by_schema(schema, replace(asked, schemas=[]), schema, depth + 1), MAX_SAMPLES)
        ]
        if found:
            yield from found
            return
    if depth > MAX_DEPTH or not asked.anything:
        yield TEXT
        return
    if "boolean" in asked.kinds:
        yield from (True, False)
    if asked.fields:
        yield from _objects(asked.fields, {}, dict.fromkeys(asked.fields), None, depth)
    elif "object" in asked.kinds:
        yield from ({}, {"key": TEXT})
    if "list" in asked.kinds or asked.item is not None:
        yield from _lists(asked, None, None, depth)
    yield from asked.equal.values()
    yield from _numbers(asked)
    if "number" in asked.kinds and not asked.near:
        yield 1
    plain = [value for value in asked.equal.values() if type(value) in (str, int, float)]
    if asked.inside or asked.starts or asked.ends or (asked.lengths and asked.item is None):
        yield from _texts(asked)
    elif plain and not asked.near:
        # unequal to all, of the type of the first
        yield OTHER_TEXT if any(type(value) is str for value in plain) else max(plain) + 1
    elif asked.equal and not asked.near:
        yield OTHER_TEXT
    if asked.errs:
        yield None


def _numbers(asked: Asked) -> Iterator[Any]:
    for number in asked.near:
        step = 1 if number == int(number) else abs(number) / 2
        whole = int(number) if number == int(number) else number
        yield from (whole + step, whole - step, whole)


def _texts(asked: Asked) -> Iterator[str]:
    """Strings with and without what is looked for, and of the lengths asked."""
    inside = [value for value in asked.inside.values() if type(value) is str]
    start, end = "".join(list(asked.starts)[:1]), "".join(list(asked.ends)[:1])
    if inside:
        yield start + " ".join(inside) + end
    yield from inside
    yield from (f"{text}..." for text in asked.starts)
    yield from (f"...{text}" for text in asked.ends)
    for length in asked.lengths:
        yield from ("x" * n for n in (length + 1, length - 1, length) if 0 <= n <= 10_000)
    yield "-" if any(text in OTHER_TEXT for text in inside) else OTHER_TEXT


def _lists(asked: Asked, schema: Schema | None, root: Any, depth: int) -> Iterator[list[Any]]:
    """Lists of no, one and two items, and of the lengths asked."""
    item = asked.item or NOTHING
    if schema is None:
        inside = list(asked.inside.values())
        items = inside + [
            value for value in _distinct(_free(item, depth + 1)) if value not in inside
        ]
    else:
        items = _distinct(_by_schema(schema, item, root, depth + 1))
    if not items:
        yield []
        return
    first = items[0]
    yield [first]
    yield []
    yield [first, items[1] if len(items) > 1 else first]
    yield from ([value] for value in items[1:])
    yield from ([first, value] for value in items[2:])
    if len(items) > 1:
        yield from ([value, first] for value in items[1:])
    for length in asked.lengths:
        yield from ([first] * n for n in (length + 1, length - 1, length) if 0 <= n <= 1_000)


def _objects(
    asked: Mapping[str, Asked],
    declared: Mapping[str, Any],
    names: Iterable[str],
    root: Any,
    depth: int,
) -> Iterator[dict[str, Any]]:
    """Objects: what is asked of their fields in combination, of the others one by one, and each
    field asked of left out.

    All combinations where they are few; else as many, spread over all of them, and each value at
    least once.
    """
    choices: dict[str, list[Any]] = {}
    for name in names:
        part = asked.get(name, NOTHING)
        found = (
            _by_schema(declared[name], part, root, depth + 1)
            if name in declared
            else _free(part, depth + 1)
        )
        choices[name] = _distinct(found) or [TEXT]
    base = {name: values[0] for name, values in choices.items()}
    yield base
    matter = [name for name in choices if name in asked and len(choices[name]) > 1]
    total = 1
    for name in matter:
        total *= len(choices[name])
    many = total > MAX_SAMPLES // 2
    for index in _spread(total, MAX_SAMPLES // 2) if many else range(total):
        combined = {}
        for name in reversed(matter):
            index, which = divmod(index, len(choices[name]))
            combined[name] = choices[name][which]
        yield base | combined
    for name, values in choices.items():
        if name not in asked or many:
            yield from (base | {name: value} for value in values[1:])
    for name in asked:
        if name in base:
            yield {key: value for key, value in base.items() if key != name}


def _spread(total: int, count: int) -> Iterator[int]:
    """*count* different numbers below *total*, evenly spread in any order of their digits: steps of
    the golden ratio.
    """
    step = max(1, round(total * 0.618))
    while gcd(step, total) > 1:
        step += 1
    return (index * step % total for index in range(min(count, total)))


def _by_schema(schema: Schema, asked: Asked, root: Any, depth: int) -> Iterator[Any]:
    """Values that *schema* mostly allows; who asks holds them against it."""
    if not isinstance(schema, Mapping) or depth > MAX_DEPTH * 2:
        if schema is not False:
            yield from _free(asked, depth)
        return
    if isinstance(schema.get("$ref"), str):
        target = _referred(schema["$ref"], root)
        if target is not None:
            yield from _by_schema(target, asked, root, depth + 2)
        return
    if "const" in schema:
        yield schema["const"]
        return
    if isinstance(schema.get("enum"), list):
        yield from schema["enum"]
        return
    for name in ("default", "examples"):
        if name in schema:
            yield from (
                schema[name]
                if name == "examples" and type(schema[name]) is list
                else [schema[name]]
            )
    either = [*schema.get("anyOf", ()), *schema.get("oneOf", ())]
    if either:
        for part in either:
            yield from _by_schema(part, asked, root, depth + 1)
        return
    merged: dict[str, Any] = dict(schema)
    for part in merged.pop("allOf", ()):
        if isinstance(part, Mapping):
            part = (
                _referred(part["$ref"], root) or {} if isinstance(part.get("$ref"), str) else part
            )
            properties = {**merged.get("properties", {}), **part.get("properties", {})}
            merged = {**part, **merged, **({"properties": properties} if properties else {})}
            merged["required"] = [*merged.get("required", ()), *part.get("required", ())]
    kinds = merged.get("type")
    if kinds is None:
        kinds = "object" if "properties" in merged else "array" if "items" in merged else None
    for kind in kinds if isinstance(kinds, list) else [kinds]:
        yield from _of_type(kind, merged, asked, root, depth)


def _of_type(
    kind: Any, schema: Mapping[str, Any], asked: Asked, root: Any, depth: int
) -> Iterator[Any]:
    match kind:
        case "boolean":
            yield from (True, False)
        case "null":
            yield None
        case "integer" | "number":
            numbers: list[Any] = [
                value for value in asked.equal.values() if type(value) in (int, float)
            ]
            numbers += [
                n
                for text in asked.equal.values()
                if type(text) is str and (n := number_of(text)) is not None
            ]
            numbers += _numbers(asked)
            low, high = schema.get("minimum", schema.get("exclusiveMinimum")), schema.get("maximum")
            yield from (int(n) if kind == "integer" and n == int(n) else n for n in numbers)
            if isinstance(low, (int, float)):
                yield from (low, low + 1)
            if isinstance(high, (int, float)):
                yield from (high, high - 1)
            step = schema.get("multipleOf")
            yield from [step] if type(step) in (int, float) else [1, 0]
        case "string":
            yield from _strings(schema, asked)
        case "array":
            smallest = schema.get("minItems", 0)
            items = schema.get("items", True)
            for value in _lists(asked, items, root, depth):
                if value and type(smallest) is int and len(value) < smallest <= 1_000:
                    value = [*value, *[value[-1]] * (smallest - len(value))]
                yield value
        case "object":
            properties = schema.get("properties", {})
            required = [name for name in schema.get("required", ()) if isinstance(name, str)]
            names = dict.fromkeys([*properties, *required])
            if schema.get("additionalProperties", True) is not False:
                names |= dict.fromkeys(asked.fields)
            yield from _objects(asked.fields, properties, names, root, depth)
            optional = [name for name in properties if name not in required]
            if optional:
                yield from _objects(
                    asked.fields, properties, [n for n in names if n not in optional], root, depth
                )
        case _:
            yield from _free(asked, depth)


def _strings(schema: Mapping[str, Any], asked: Asked) -> Iterator[str]:
    low, high = schema.get("minLength", 0), schema.get("maxLength")
    found = [value for value in asked.equal.values() if type(value) is str]
    found += [as_text(number) for number in _numbers(asked)]
    if asked.inside or asked.starts or asked.ends or asked.lengths:
        found += _texts(asked)
    found += _FORMATS.get(schema.get("format", ""), [])
    found.append(OTHER_TEXT if found else TEXT)
    for text in found:
        if type(low) is int and len(text) < low <= 10_000:
            text += "x" * (low - len(text))
        yield text[:high] if type(high) is int else text


_FORMATS = {
    "date": ["2026-01-02"],
    "date-time": ["2026-01-02T03:04:05Z"],
    "time": ["03:04:05Z"],
    "duration": ["P1D"],
    "email": ["someone@example.com"],
    "idn-email": ["someone@example.com"],
    "hostname": ["example.com"],
    "idn-hostname": ["example.com"],
    "ipv4": ["192.0.2.1"],
    "ipv6": ["2001:db8::1"],
    "uri": ["https://example.com/"],
    "uri-reference": ["/a"],
    "iri": ["https://example.com/"],
    "iri-reference": ["/a"],
    "uri-template": ["/{a}"],
    "json-pointer": ["/a"],
    "relative-json-pointer": ["1/a"],
    "regex": ["a+"],
    "uuid": ["123e4567-e89b-12d3-a456-426614174000"],
    **{
        f"uuid{version}": [f"123e4567-e89b-{version}2d3-a456-426614174000"]
        for version in (1, 3, 4, 5, 6, 7, 8)
    },
    "ipv4network": ["192.0.2.0/24"],
    "ipv6network": ["2001:db8::/32"],
    "ipv4interface": ["192.0.2.1/24"],
    "ipv6interface": ["2001:db8::1/32"],
    "ipvanyaddress": ["192.0.2.1"],
    "ipvanynetwork": ["192.0.2.0/24"],
    "ipvanyinterface": ["192.0.2.1/24"],
    "base64": ["YQ=="],
    "base64url": ["YQ=="],
}


def _referred(reference: str, root: Any) -> Any:
    """What a reference within the schema *root* leads to."""
    if not reference.startswith("#") or not isinstance(root, Mapping):
        return None
    at: Any = root
    for part in reference[1:].split("/")[1:]:
        part = part.replace("~1", "/").replace("~0", "~")
        try:
            at = at[int(part)] if isinstance(at, list) else at[part]
        except (KeyError, IndexError, ValueError, TypeError):
            return None
    return at


# --- types of tools -------------------------------------------------------------------------------


def hint_schema(hint: Any) -> dict[str, Any] | None:
    """The JSON Schema of a type hint; None where it has none or says nothing."""
    from pydantic import TypeAdapter

    if hint is Any or hint is object or hint is inspect.Parameter.empty:
        return None
    try:
        return TypeAdapter(hint).json_schema(mode="serialization") or None
    except Exception:  # noqa: BLE001 - a type without a JSON form, or whose schema fails: any value
        return None


def returned(contract: ToolContract) -> dict[str, Any] | None:
    """The JSON Schema of what a tool declares to return; None where it declares nothing."""
    hint = contract.result
    if typing.get_origin(hint) in (Awaitable, Coroutine):
        hint = typing.get_args(hint)[-1]
    if hint is None or hint is type(None):
        return {"type": "null"}
    return hint_schema(hint)


__all__ = [
    "NOTHING",
    "Asked",
    "Checks",
    "Questions",
    "Source",
    "hint_schema",
    "returned",
    "samples",
    "texts",
]
