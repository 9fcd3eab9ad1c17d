"""Arguments of a tool call and messages of a model call: a function for their shape.

What a program writes as arguments and what the tool declares come in; a function of the frame goes
out that gives the values as they are recorded and as the tool receives them. Its source is made of
names that are made here and compiled once for each shape in a process; slots, literals, names of
keys and converters come in as the cells of its closure, so that no value is ever part of a source.

A value that passes as it is costs a look at its type. Any other takes the same function that the
good case would have taken, by way of `checked` or `handed`: it converts, copies, or tells the error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from types import UnionType
from typing import Any, TypeAlias, Union, get_args, get_origin

from ..errors import StepFault
from ..language.closures import (
    FEW_REFERENCES,
    Eval,
    Frame,
    Scope,
    compile_expr,
    compile_value,
    load,
)
from ..language.expr import Ref, Template, computed, entries, is_literal, parse_template
from ..tools.contract import ArgumentError, Parameter, ToolContract, checked, handed
from ..tools.conversion import converter
from ..values import MAX_VALUE_BYTES, SCALARS, SMALL_TEXT, UNSET, as_text

Take: TypeAlias = Callable[[Frame], tuple[tuple[Any, ...], tuple[Any, ...]]]
"""The recorded values of the arguments, in the program's order, and those that the tool receives,
in the order of `order`. It raises `StepFault`.
"""

MAX_PARTS = 64
"""Entries of a literal object or list that are written out; a larger one is made in loops, and a
frame's source stays short.
"""

MAX_ARGUMENTS = 64
"""Arguments of one call that have a function of their own; more are taken in loops, since the time
to compile a source grows faster than its length.
"""

MAX_SHAPES = 250
"""Shapes of one plan that have a function of their own, at a third of a millisecond each; a program
that a person wrote has a dozen.
"""

NUMBERS = SCALARS - {str}
EXACT_INT = (1 << 30) - 1
"""Every int up to it is a float exactly, and is compared in one step; a larger one is looked at."""


def order(contract: ToolContract, names: Sequence[str]) -> tuple[str, ...]:
    """The arguments *names* as the function takes them by position, where it can; else as they
    are.
    """
    first = contract.positional[: len(names)]
    return first if set(first) == set(names) else tuple(names)


TakeMessages: TypeAlias = Callable[[Frame], tuple[list[Any], list[Any], bool]]
"""The messages as they are recorded, once more as the adapter receives them, and whether each text
in them from outside is short. It raises `StepFault`.
"""

MAX_QUICK_MESSAGES = 16
MAX_QUICK_LITERALS = 1 << 18
"""More, or with more text of the program's own, and their size is counted before each call."""

ROOM = 1 << 20
"""Bytes: so many short strings and literals are never more."""


def constant_of(
    take: Take, args: Mapping[str, Any]
) -> tuple[tuple[Any, ...], tuple[Any, ...]] | None:
    """What *take* gives whatever the frame is, where all arguments are scalars of the program: one
    pair for all calls.
    """
    if not all(type(value) in SCALARS and is_literal(value) for value in args.values()):
        return None
    try:
        pair = take([])
    except StepFault:  # told when the step is reached
        return None
    return pair if take([]) is pair else None


def single_of(
    contract: ToolContract, args: Mapping[str, Any], names: Scope
) -> tuple[int, frozenset[Any]] | None:
    """The shape that most calls have, which the machine writes out: of one argument that is one
    name, the slot, and the types that pass as they are.
    """
    if len(args) != 1:
        return None
    ((name, written),) = args.items()
    template = parse_template(written) if type(written) is str else None
    if template is None or not template.typed:
        return None
    slot, path = names.load(template.parts[0])  # type: ignore[arg-type]
    passing = passes(contract.parameters.get(name, Parameter(name, False)))
    return (slot, passing) if passing and not path else None


class Shapes:
    """What takes the arguments and messages of the calls of one plan."""

    def __init__(self) -> None:
        self.sources: set[str] = set()

    def take(self, contract: ToolContract, args: Mapping[str, Any], names: Scope) -> Take:
        """What takes the arguments *args* of a call from a frame."""
        if len(args) > MAX_ARGUMENTS:
            return _in_loops(contract, args, names)
        shape = _Shape(names)
        take: Take | None = self.made(shape, shape.source(contract, args))
        return _in_loops(contract, args, names) if take is None else take

    def messages(self, texts: Sequence[tuple[str, str]], names: Scope) -> TakeMessages | None:
        """What takes messages from a frame, given by role and the text of their content; None where
        they are too many or too long to go unlooked at.
        """
        literal = sum(len(content) for _, content in texts)
        if len(texts) > MAX_QUICK_MESSAGES or literal > MAX_QUICK_LITERALS:
            return None
        shape = _Shape(names)
        take: TakeMessages | None = self.made(shape, shape.messages(texts))
        return take

    def made(self, shape: _Shape, source: str) -> Any:
        """The function of *shape*; None where the plan has as many sources as it may."""
        if source not in self.sources and len(self.sources) >= MAX_SHAPES:
            return None
        self.sources.add(source)
        return _maker(source)(*shape.cells)


def _in_loops(contract: ToolContract, args: Mapping[str, Any], names: Scope) -> Take:
    """As a function of a shape, argument by argument."""
    values = [compile_value(written, names) for written in args.values()]
    give = [
        _converting(contract.name, contract.parameters.get(name, Parameter(name, False)), written)
        for name, written in args.items()
    ]
    number = {name: at for at, name in enumerate(args)}
    received = [number[name] for name in order(contract, list(args))]

    def take(frame: Frame) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        recorded = tuple([value(frame) for value in values])
        given = [convert(value) for convert, value in zip(give, recorded, strict=True)]
        return recorded, tuple([given[at] for at in received])

    return take


class _Shape:
    """The source of one function, and the cells that are its own.

    All values are taken before the first is given over: of several faults the first to be reported is
    that of a name without a value.
    """

    def __init__(self, names: Scope) -> None:
        self.names = names
        self.lines: list[str] = []
        self.cells: list[Any] = []
        # of the lines: those that take a value from its slot, and those that look whether it has one
        self.loads: list[str] = []
        self.looks: list[str] = []
        # of what mostly comes, one for each line that converts: the test, and what is received then
        # in place of the variable that has the outcome
        self.tests: list[str] = []
        self.mostly: dict[str, str] = {}
        self.count = 0

    def source(self, contract: ToolContract, args: Mapping[str, Any]) -> str:
        """The source of the function for *args*, which takes `cells` by the order of its making."""
        values = {name: self.value(value) for name, value in args.items()}
        taken = len(self.lines)
        given = {}
        for name, (variable, written) in values.items():
            given[name] = self.given(contract, name, variable, written)
        names = order(contract, list(args))
        request = _tuple([variable for variable, _ in values.values()])
        received = _tuple([given[name] for name in names])
        if not self.lines and request == received:
            both = tuple([known.value for _, known in values.values()])
            self.lines.append(f"return {self.cell((both, both))}")
            return self.made()
        taking, converting = self.lines[:taken], self.lines[taken:]
        if self.tests and len(self.tests) == len(converting):
            mostly = _tuple([self.mostly.get(given[name], given[name]) for name in names])
            quick = f"if {' and '.join(self.tests)}: {_returned(request, mostly)}"
            if len(taking) == len(self.loads) + len(self.looks):  # nothing but names
                # what has no value passes no test; but a name that has none is told before any fault
                taking = [*self.loads, quick, *self.looks]
            else:
                taking.append(quick)
        self.lines = [*taking, *converting, _returned(request, received)]
        return self.made()

    def messages(self, texts: Sequence[tuple[str, str]]) -> str:
        """A message is written out with a string as its content, whatever that refers to."""
        shown, short = [], []
        for role, content in texts:
            template = parse_template(content)
            references = len(_references(template))
            if not references:
                text = self.cell("".join(part for part in template.parts if isinstance(part, str)))
            else:
                get = compile_expr(Template(template.parts), self.names)
                if template.typed or references > FEW_REFERENCES:
                    as_string = self.cell(as_text)
                    text = self.set(f"{as_string}({self.cell(get)}(f))")
                else:
                    text = self.text(template, get)
                short.append(f"len({text}) < {self.cell(SMALL_TEXT)}")
            keys = self.cell("role"), self.cell("content")
            shown.append(f"{{{keys[0]}: {self.cell(role)}, {keys[1]}: {text}}}")
        whole = f"[{', '.join(shown)}]"
        self.lines.append(f"return {whole}, {whole}, {' and '.join(short) or True}")
        return self.made()

    def made(self) -> str:
        cells = ", ".join(f"c{number}" for number in range(len(self.cells)))
        body = "".join(f"        {line}\n" for line in self.lines)
        return f"def make({cells}):\n    def take(f):\n{body}    return take\n"

    def cell(self, value: Any) -> str:
        self.cells.append(value)
        return f"c{len(self.cells) - 1}"

    def variable(self) -> str:
        self.count += 1
        return f"v{self.count}"

    def set(self, expression: str) -> str:
        name = self.variable()
        self.lines.append(f"{name} = {expression}")
        return name

    # --- values as they are recorded ---

    def value(self, written: Any) -> tuple[str, _Written]:
        """The name of what holds the value of *written*, and what is known of it."""
        if type(written) in (dict, list) and computed(written) is None:
            return self.display(written)
        if is_literal(written):
            value = compile_value(written, self.names)([])
            return self.cell(value), _Written(written, literal=True, kind=type(value), value=value)
        template = parse_template(written) if type(written) is str else None
        if template is not None and template.typed:
            return self.reference(template.parts[0]), _Written(written)  # type: ignore[arg-type]
        if template is not None and 0 < len(_references(template)) <= FEW_REFERENCES:
            whole = compile_value(written, self.names)
            return self.text(template, whole), _Written(written, kind=str)
        get = self.cell(compile_value(written, self.names))
        return self.set(f"{get}(f)"), _Written(written)

    def reference(self, ref: Ref) -> str:
        """The value of a name; of one without a value, or of a field that is not there, the closure
        tells the error.
        """
        slot, path = self.names.load(ref)
        get, at = self.cell(load(ref, self.names, in_template=True)), self.cell(slot)
        if len(path) > 1 or (path and type(path[0]) is not str):
            return self.set(f"{get}(f)")
        name = self.set(f"f[{at}]")
        if path:
            key = self.cell(path[0])
            found = f"{name}[{key}] if type({name}) is dict and {key} in {name} else {get}(f)"
            self.lines.append(f"{name} = {found}")
        else:
            self.loads.append(self.lines[-1])
            self.looks.append(f"if {name} is {self.cell(UNSET)}: {get}(f)")
            self.lines.append(self.looks[-1])
        return name

    def text(self, template: Template, get: Eval) -> str:
        """A string with references in it; *get* tells that it is too long."""
        parts = []
        for part in template.parts:
            if isinstance(part, Ref):
                name = self.reference(part)
                self.lines.append(
                    f"if type({name}) is not str: {name} = {self.cell(as_text)}({name})"
                )
                parts.append(name)
            elif part:
                parts.append(self.cell(part))
        whole = self.set("f'" + "".join(f"{{{part}}}" for part in parts) + "'")
        limit = self.cell(MAX_VALUE_BYTES)
        self.lines.append(f"if len({whole}) > {limit}: {self.cell(get)}(f)")
        return whole

    def display(self, written: Any) -> tuple[str, _Written]:
        """A literal object or list, with whatever stands in it."""
        if _parts(written) > MAX_PARTS:
            get = self.cell(compile_value(written, self.names))
            return self.set(f"{get}(f)"), _Written(written, kind=type(written))
        leaves: list[str] = []
        text = self.written_out(written, leaves)
        return self.set(text), _Written(
            written, kind=type(written), display=text, leaves=tuple(leaves)
        )

    def written_out(self, written: Any, leaves: list[str]) -> str:
        if type(written) is list:
            return "[" + ", ".join(self.written_out(item, leaves) for item in written) + "]"
        if type(written) is dict and computed(written) is None:
            items = [
                f"{self.cell(key)}: {self.written_out(item, leaves)}"
                for key, item in entries(written)
            ]
            return "{" + ", ".join(items) + "}"
        name, known = self.value(written)
        if not known.literal:
            leaves.append(name)
        return name

    # --- values as the tool receives them ---

    def given(self, contract: ToolContract, name: str, variable: str, written: _Written) -> str:
        """The name of what the tool receives for the value in *variable*."""
        parameter = contract.parameters.get(name, Parameter(name, False))
        passing = passes(parameter)
        if written.kind in passing:
            return variable
        convert = _converting(contract.name, parameter, written.source)
        if written.display:
            return self.copy(variable, written, parameter, convert)
        if written.literal and _is_plain(parameter):
            try:
                return self.cell(convert(written.value))
            except ArgumentError:
                pass  # told when the step is reached
        if not passing:
            return self.set(f"{self.cell(convert)}({variable})")
        kinds = self.cell(next(iter(passing)) if len(passing) == 1 else passing)
        test = f"type({variable}) {'is' if len(passing) == 1 else 'in'} {kinds}"
        other = f"{self.cell(convert)}({variable})"
        if parameter.convert is converter(float):  # of an int, as often as not
            whole, low, high = self.cell(int), self.cell(-EXACT_INT), self.cell(EXACT_INT)
            number = f"type({variable}) is {whole} and {low} <= {variable} <= {high}"
            self.tests.append(f"({test} or {number})")
            outcome = self.set(f"float({variable}) if {self.tests[-1]} else {other}")
            self.mostly[outcome] = f"float({variable})"  # which is the same float if it is one
            return outcome
        self.tests.append(test)
        outcome = self.set(f"{variable} if {test} else {other}")
        self.mostly[outcome] = variable
        return outcome

    def copy(
        self, variable: str, written: _Written, parameter: Parameter, convert: Callable[..., Any]
    ) -> str:
        """A literal object or list once more, so that the tool's containers are never those of the
        record; where small scalars stand in it, nothing else needs a look.
        """
        if parameter.convert not in (None, converter(written.kind)):
            return self.set(f"{self.cell(convert)}({variable})")
        texts, numbers, small = self.cell(str), self.cell(NUMBERS), self.cell(SMALL_TEXT)
        tests = [
            f"(type({leaf}) is {texts} and len({leaf}) < {small} or type({leaf}) in {numbers})"
            for leaf in written.leaves
        ]
        long = f"{self.cell(convert)}({variable})"
        return self.set(f"{written.display} if {' and '.join(tests) or True} else {long}")


class _Written:
    """What is known of a value before the run: what the program writes, the type it will have, and
    of a literal object or list its source and the names of what is not literal in it.
    """

    __slots__ = ("display", "kind", "leaves", "literal", "source", "value")

    def __init__(
        self,
        source: Any,
        *,
        literal: bool = False,
        kind: Any = None,
        value: Any = None,
        display: str = "",
        leaves: tuple[str, ...] = (),
    ) -> None:
        self.source = source
        self.literal = literal
        self.kind = kind
        self.value = value
        self.display = display
        self.leaves = leaves


@lru_cache(maxsize=1024)
def _maker(source: str) -> Callable[..., Any]:
    """The function of one shape; its source holds no name or value of a program."""
    namespace: dict[str, Any] = {}
    exec(source, namespace)  # noqa: S102
    made: Callable[..., Any] = namespace["make"]
    return made


def _returned(request: str, received: str) -> str:
    if request == received:
        return f"r = {request}; return r, r"
    return f"return {request}, {received}"


def _tuple(names: list[str]) -> str:
    return f"({', '.join(names)}{',' if len(names) == 1 else ''})"


def _references(template: Template) -> list[Ref]:
    return [part for part in template.parts if isinstance(part, Ref)]


def _parts(written: Any) -> int:
    """How many entries there are in a literal object or list and what stands in it."""
    if type(written) is list:
        return len(written) + sum(map(_parts, written))
    if type(written) is dict and computed(written) is None:
        return len(written) + sum(map(_parts, written.values()))
    return 0


# --- what passes as it is -------------------------------------------------------------------------


def passes(parameter: Parameter) -> frozenset[Any]:
    """The types whose values the tool receives as they are."""
    if parameter.convert is None:
        return SCALARS
    hints = get_args(parameter.hint) if _is_union(parameter.hint) else ()
    members = [converter(hint) for hint in hints] or [parameter.convert]
    return frozenset(kind for kind in SCALARS if converter(kind) in members)


def _is_union(hint: Any) -> bool:
    return get_origin(hint) in (Union, UnionType)


def _is_plain(parameter: Parameter) -> bool:
    """Whether a scalar is converted to a scalar, so that it may be done once for all calls."""
    return parameter.convert is None or any(parameter.convert is converter(k) for k in SCALARS)


def _converting(tool: str, parameter: Parameter, written: Any) -> Callable[[Any], Any]:
    """What gives the value that the tool receives, or raises."""
    if parameter.convert is None:
        return handed

    return lambda value: checked(tool, parameter, value, written)
