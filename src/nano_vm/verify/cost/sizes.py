"""How large a value can get: bounds of names, outputs and prompts, in bytes.

A `Flow` and bounds of what comes from outside go in; for a string of the program goes out how many
UTF-8 bytes it can have, or None where nothing bounds it. No value is made and no program is run.

A name may hold what any of its writers writes, whenever it is read: the order of steps is left out
of account, so the bound is the largest of the writers' bounds. A name that is computed from itself
has none, but where a `set` only adds to it (`append`, `concat`, ``"$draft more"``): then what is
added counts as often as the step can run, by the bounds of the loops around it. What is fixed by
the program's text is counted exactly (literals, allowed outputs, labels of branches); a model's
free answer by its tokens; inputs by a cap that the caller gives, or by their schema. What a tool, a
person or an event gives has no bound.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...errors import ExprError
from ...language.expr import (
    Arith,
    Bool,
    Call,
    Compare,
    Const,
    Index,
    Node,
    Not,
    Ref,
    Template,
    children,
    computed,
    parse_template,
)
from ...language.flow import Flow, FrameGraph, Names
from ...language.program import LLMStep, Step
from ...language.semantics import (
    Called,
    External,
    Forks,
    Item,
    Last,
    ListOf,
    Literals,
    ObjectOf,
    Output,
    Repeats,
    Term,
    Value,
    Values,
    control,
)
from ...records.record import MAX_LISTED, MAX_MESSAGE, MAX_WORD
from ...values import canonical

DEFAULT_INPUT_BYTES = 64 * 1024
"""One input as canonical JSON, where the caller knows no better: thirty pages of text, more than
mail or chat brings.
"""

TOKEN_BYTES = 1024
"""The longest text of one token: 128 bytes in r50k_base, cl100k_base and o200k_base (tiktoken),
1,024 in the tokenizer that Anthropic has published (a run of spaces). Longer ones may exist in
tokenizers that nobody can look into.
"""

NUMBER_BYTES = 1 + 1234
"""A number: the digits of an integer of `MAX_INT_BITS`, and its sign; a float has 24."""

ESCAPED = 6
"""Bytes of one byte of text inside JSON: a control character is ``\\u0000``."""

CASE = 3
"""By how much ``upper`` and ``lower`` can lengthen a string in UTF-8: U+0390 and U+03B0 have two
bytes, in capitals six.
"""

NUMBERS = 5
"""By how much JSON can grow when it is parsed and written again: ``1e15`` becomes
``1000000000000000.0``.
"""

Size = tuple[int, int] | None
"""Most UTF-8 bytes inside text, and as canonical JSON; None without a bound."""

Key = tuple[str, int, str]
_Work = Generator[Key, Size, Size]

_NULL = (4, 4)  # "None" in text, null in JSON


class Sizes:
    """Bounds of the values in one `Flow`.

    *inputs* gives the most bytes of an input, by name or of each. Names that steps write are taken
    for written, unless `inputs` of the program declares them or the mapping names them: a read that
    no write may precede is a fault of its own. *answer* gives the most tokens of a step's answer.
    """

    def __init__(
        self,
        flow: Flow,
        inputs: int | Mapping[str, int],
        answer: Callable[[LLMStep, Names], int | None],
    ) -> None:
        self.flow = flow
        self.inputs = inputs
        self.answer = answer
        self.known: dict[Key, Size] = {}
        self.names = {id(names): names for names in flow.spaces}
        self.callers = {id(frame.names): frame for frame in flow.roots if frame.owner is not None}
        # by names and step: the frames of one of its states
        self.forks: dict[tuple[int, str], tuple[FrameGraph, ...]] = {}
        for frame in flow.frames:
            if frame.owner is not None:
                at = (id(frame.owner.frame.names), frame.owner.step.id)
                self.forks.setdefault(at, tuple(frame.owner.frames))
        # by names and step, how often it runs in each frame
        self.repeats: dict[tuple[int, str], dict[int, int]] = {}

    def text(self, content: str, names: Names) -> int | None:
        """The most bytes of a template rendered as text."""
        total = 0
        for part in parse_template(content).parts:
            if isinstance(part, str):
                total += len(part.encode())
                continue
            key = _found(part, names)
            size = self.of(key) if key is not None else None
            if size is None:
                return None
            total += size[0]
        return total

    def json(self, reference: str, names: Names) -> int | None:
        """The most bytes, as JSON, of the value behind *reference*."""
        template = parse_template(reference)
        ref = template.parts[0] if template.typed else None
        key = _found(ref, names) if isinstance(ref, Ref) else None
        size = self.of(key) if key is not None else None
        return size[1] if size is not None else None

    def of(self, key: Key) -> Size:
        """The bound behind *key*, and of all that it is made of; what is made of itself has
        none.
        """
        known = self.known
        if key in known:
            return known[key]
        under_way: dict[Key, None] = {key: None}
        stack = [(key, self.work(key))]
        given: Size = None
        asked = False
        while stack:
            at, work = stack[-1]
            try:
                wanted = work.send(given) if asked else next(work)
            except StopIteration as stop:
                known[at] = given = stop.value
                asked = True
                del under_way[at]
                stack.pop()
                continue
            if wanted in known:
                given, asked = known[wanted], True
            elif wanted in under_way:
                given, asked = None, True
            else:
                under_way[wanted] = None
                stack.append((wanted, self.work(wanted)))
                given, asked = None, False
        return known[key]

    def work(self, key: Key) -> _Work:
        kind, number, name = key
        if kind == "frame":
            return self.frame(self.flow.frames[number])
        names = self.names[number]
        match kind:
            case "error" | "errors":
                return self.told(names.by_id[name], kind)
            case "output":
                return self.output(names.by_id[name], names)
        return self.name(name, names)

    # --- names ---

    def name(self, name: str, names: Names) -> _Work:
        """Whatever may be written under a name."""
        found: list[Size] = []
        added: list[tuple[int, Size]] = []  # what is added to it, and how often
        as_text = False
        for step, write in names.writers.get(names.keys[name], ()):
            match write:
                case Output():
                    found.append((yield ("output", id(names), step.id)))
                case Item(over):
                    found.append((yield from self.item(over, names)))
                case Value(template):
                    growth = self.growth(template, name, names)
                    if growth is None:
                        found.append((yield from self.value(template, names)))
                        continue
                    for other in growth.others:
                        found.append((yield from self.expression(other, names)))
                    times = self.runs(step, names)
                    for part in growth.added:
                        added.append((times, (yield from self.expression(part, names))))
                    for item in growth.items:
                        size = yield from self.expression(item, names)
                        added.append((times, size and (size[1] + 1, size[1] + 1)))  # and a comma
                    as_text = as_text or growth.as_text
        caller = self.callers.get(id(names))
        schema = (names.program.inputs or {}).get("properties", {}).get(name, True)
        if caller is None:
            if (
                not found
                or names.takes(name)
                or (isinstance(self.inputs, Mapping) and name in self.inputs)
            ):
                most = (
                    self.inputs.get(name, DEFAULT_INPUT_BYTES)
                    if isinstance(self.inputs, Mapping)
                    else self.inputs
                )
                found.append(_lesser((most, most), of_schema(schema)))
        else:
            assert caller.owner is not None
            arguments = caller.arguments
            if name in arguments:
                given = yield from self.value(arguments[name], caller.owner.frame.names)
                found.append(_lesser(given, of_schema(schema)))
        if isinstance(schema, dict) and "default" in schema:
            found.append(literal(schema["default"]))
        return _grown(_largest(found), added, as_text)

    def growth(self, value: Any, name: str, names: Names) -> _Growth | None:
        """What *value* adds to the name that it is written to; None if it is anything but that name
        and what is added.
        """
        node = computed(value)
        if node is None:
            node = parse_template(value) if type(value) is str else Const(None)
        return _growth(node, ("name", id(names), name), names)

    def runs(self, step: Step, names: Names) -> int:
        """How often *step* runs at the most in one run of its frame: once for each state, times the
        loops around it.
        """
        if not self.repeats:
            for node in self.flow.nodes:
                if node.kind == "step":
                    times, at = 1, node.owner
                    while at is not None:
                        times *= at.control.bound if isinstance(at.control, Repeats) else 1
                        at = at.owner
                    key = (id(node.frame.names), node.step.id)
                    frames = self.repeats.setdefault(key, {})
                    frames[node.frame.index] = frames.get(node.frame.index, 0) + times
        return max(self.repeats.get((id(names), step.id), {}).values(), default=0)

    def item(self, over: Any, names: Names) -> _Work:
        if isinstance(over, list):
            found = []
            for item in over:
                found.append((yield from self.value(item, names)))
            return _largest(found)
        return (yield from self.value(over, names))

    # --- outputs ---

    def output(self, step: Step, names: Names) -> _Work:
        """What a step, its blocks or its literals leave as its output."""
        found: list[Size] = [_NULL]
        if step.has_default:
            found.append(literal(step.default))
        for term in names.output(step):
            found.append((yield from self.term(term, step, names)))
        return _largest(found)

    def term(self, term: Term, step: Step, names: Names) -> _Work:
        match term:
            case Literals(values):
                return _largest(map(literal, values))
            case External("model"):
                return self.answered(term, step, names)
            case Values(templates):
                return (yield from self.entries(templates, names))
            case Last(blocks):
                found: list[Size] = []
                for inner in [inner for block in blocks for inner in block]:
                    found.append((yield ("output", id(names), inner.id)))
                return _largest(found)
            case ObjectOf() | ListOf():
                return (yield from self.gathered(step, names))
            case Called():
                sizes: list[Size] = []
                for frame in self.forks.get((id(names), step.id), ()):
                    sizes.append((yield ("frame", frame.index, "")))
                return _largest(sizes) if sizes else None
        return None  # a tool, a person or an event may give anything

    def told(self, step: Step, word: str) -> _Work:
        """What went wrong in a step, or in its branches and items."""
        forks = control(step)
        names, count = [""], 1
        if isinstance(forks, Forks):
            names, count = [name for name, _ in forks.frames], forks.most
        chars = (
            (MAX_MESSAGE if word == "error" else MAX_LISTED)
            + len("...")
            + 2 * MAX_WORD
            + max(map(len, names))
        )
        # of UTF-8 a char has four bytes
        one = ESCAPED * chars + len('{"branch":"","kind":"","message":"","type":""},')
        total = one if word == "error" else 2 + one * count
        yield from ()  # it asks for no other size
        return total, total

    def answered(self, answer: External, step: Step, names: Names) -> Size:
        if answer.allowed is not None:
            return _largest(map(literal, answer.allowed))
        assert isinstance(step, LLMStep)
        tokens = self.answer(step, names)
        most = tokens * TOKEN_BYTES if tokens is not None else None
        if answer.schema is not None:
            parsed = (NUMBERS * most, NUMBERS * most) if most is not None else None
            return _lesser(parsed, of_schema(answer.schema))
        return (most, 2 + ESCAPED * most) if most is not None else None

    def gathered(self, step: Step, names: Names) -> _Work:
        """An object of branches, or a list of items."""
        forks = names.controls[step.id]
        assert isinstance(forks, Forks)
        total = 2
        for frame in self.forks.get((id(names), step.id), ()):
            size = yield ("frame", frame.index, "")
            if size is None:
                return None
            if forks.kind == "item":
                total += (size[1] + 1) * forks.most
            else:
                total += size[1] + 1 + ESCAPED * len(frame.name.encode()) + 3
        return total, total

    def frame(self, frame: FrameGraph) -> _Work:
        """The output that is declared, else that of the step which ran last."""
        names = frame.names
        if frame.own_names and names.program.output is not None:
            return (yield from self.value(names.program.output, names))
        found: list[Size] = [_NULL]
        for step in frame.steps:
            found.append((yield ("output", id(names), step.id)))
        return _largest(found)

    # --- templates ---

    def value(self, value: Any, names: Names) -> _Work:
        """A literal with templates and expressions inside."""
        node = computed(value)
        if node is not None:
            return (yield from self.expression(node, names))
        kind = type(value)
        if kind is str and "$" in value:
            return (yield from self.template(parse_template(value), names))
        if kind is dict:
            return (yield from self.entries(value, names))
        if kind is list:
            total = 2
            for item in value:
                size = yield from self.value(item, names)
                if size is None:
                    return None
                total += size[1] + 1
            return total, total
        return literal(value)

    def entries(self, values: Mapping[str, Any], names: Names) -> _Work:
        total = 2
        for key, value in values.items():
            size = yield from self.value(value, names)
            if size is None:
                return None
            total += ESCAPED * len(key.encode()) + 4 + size[1]
        return total, total

    def template(self, template: Template, names: Names) -> _Work:
        if template.typed and isinstance(template.parts[0], Ref):
            key = _found(template.parts[0], names)
            return None if key is None else (yield key)
        text, json = 0, 2
        for part in template.parts:
            if isinstance(part, str):
                size: Size = literal(part)
            else:
                key = _found(part, names)
                if key is None:
                    return None
                size = yield key
            if size is None:
                return None
            text += size[0]
            # JSON that stands in a text has its quotes and backslashes escaped once more
            json += 2 * size[1] if isinstance(part, Ref) else size[1]
        return text, json

    def expression(self, node: Node, names: Names) -> _Work:
        """What an expression gives: by its kind, or by what it is made of."""
        match node:
            case Const(value):
                return literal(value)
            case Ref():
                key = _found(node, names)
                return None if key is None else (yield key)
            case Template():
                return (yield from self.template(node, names))
            case Compare() | Bool() | Not():
                return _BOOLEAN
            case Arith():
                return _NUMBER
            case Index(box):
                return (yield from self.expression(box, names))
            case Call(name) if name in _OF_ITSELF:
                return _OF_ITSELF[name]
        sizes = []
        for part in children(node):
            sizes.append((yield from self.expression(part, names)))
        known = [size for size in sizes if size is not None]
        if len(known) < len(sizes):
            return None
        if isinstance(node, Call):
            return _BY_PARTS[node.name](known)
        total = 2 + sum(json + 1 for _, json in known)
        return total, total


_NUMBER = (NUMBER_BYTES, NUMBER_BYTES)
_BOOLEAN = (5, 5)
_OF_ITSELF: dict[str, Size] = {
    **dict.fromkeys(("len", "int", "float", "round", "abs", "sum"), _NUMBER),
    **dict.fromkeys(("startswith", "endswith"), _BOOLEAN),
}
"""What these give does not grow with what they are given."""

_Known = tuple[int, int]


def _largest(sizes: Iterable[Size]) -> Size:
    text, json = 0, 0
    for size in sizes:
        if size is None:
            return None
        text, json = max(text, size[0]), max(json, size[1])
    return text, json


def _of_either(parts: Sequence[_Known]) -> Size:
    # an item in text is no longer than in its list
    return _largest([(max(text, json), json) for text, json in parts])


def _cased(parts: Sequence[_Known]) -> Size:
    ((text, json),) = parts
    return CASE * text, CASE * json


def _as_text(parts: Sequence[_Known]) -> Size:
    ((text, json),) = parts
    # JSON that stands in a text has its quotes and backslashes escaped once more
    return text, 2 + 2 * json


def _one_longer(parts: Sequence[_Known]) -> Size:
    (_, box), (_, item) = parts
    return box + item + 1, box + item + 1


def _put_together(parts: Sequence[_Known]) -> Size:
    return sum(text for text, _ in parts), sum(json for _, json in parts)


def _with_separators(parts: Sequence[_Known]) -> Size:
    (_, box), (text, json) = parts
    between = box // 2  # `[0,0]` has two bytes for each item, and one more
    return box + text * between, 2 + 2 * box + json * between


def _taken_apart(parts: Sequence[_Known]) -> Size:
    (text, json), _ = parts
    # each part has quotes and a comma, and there is one more than separators
    total = 2 + json + 3 * (text + 1)
    return total, total


def _parsed(parts: Sequence[_Known]) -> Size:
    ((text, _),) = parts
    return NUMBERS * text, NUMBERS * text


_BY_PARTS: dict[str, Callable[[Sequence[_Known]], Size]] = {
    **dict.fromkeys(("default", "strip"), _largest),
    **dict.fromkeys(("get", "min", "max", "sorted", "keys"), _of_either),
    **dict.fromkeys(("lower", "upper"), _cased),
    "str": _as_text,
    "append": _one_longer,
    "concat": _put_together,
    "join": _with_separators,
    "split": _taken_apart,
    "json": _parsed,
}
"""What the others give, by the sizes of their arguments."""


# --- what is added to a name ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Growth:
    """What a name is made of, beside itself: what is added to it, and what stands in for it where
    it has no value.
    """

    added: tuple[Node, ...] = ()
    items: tuple[Node, ...] = ()
    others: tuple[Node, ...] = ()
    as_text: bool = False  # whether the name may become text by it


def _growth(node: Node, name: Key, names: Names) -> _Growth | None:
    match node:
        case Ref(path=()) if _found(node, names) == name:
            return _Growth()
        case Call("default", (box, other)):
            inner = _growth(box, name, names)
            return inner and replace(inner, others=(*inner.others, other))
        case Call("append", (box, item)):
            inner = _growth(box, name, names)
            return inner and replace(inner, items=(*inner.items, item))
        case Call("concat", (left, right)):
            inner, more = _growth(left, name, names), right
            if inner is None:
                inner, more = _growth(right, name, names), left
            return inner and replace(inner, added=(*inner.added, more))
        case Template(parts):
            found = [
                part
                for part in parts
                if isinstance(part, Ref) and _growth(part, name, names) is not None
            ]
            if len(found) == 1:
                return _Growth(
                    (Template(tuple(part for part in parts if part is not found[0])),), as_text=True
                )
    return None


def _grown(size: Size, added: list[tuple[int, Size]], as_text: bool) -> Size:
    """*size*, and what is added to it as often as that can happen; *as_text*, it may be text
    then.
    """
    if size is None:
        return None
    text, json = size
    for times, more in added:
        if more is None:
            return None
        text, json = text + times * more[0], json + times * more[1]
    return text, max(json, 2 + ESCAPED * text) if as_text else json


def _found(ref: Ref, names: Names) -> Key | None:
    """Where the value of a reference comes from; its fields are no larger than the whole. None for
    a name that means nothing.
    """
    try:
        names.load(ref)
    except ExprError:
        return None
    name, path = ref.name, ref.path
    if names.is_error(ref):
        return str(path[0]), id(names), name
    as_output = name in names.outputs and ((path and path[0] == "output") or name not in names.keys)
    return ("output" if as_output else "name", id(names), name)


def literal(value: Any) -> Size:
    """The exact size of a plain value."""
    json = len(canonical(value))
    if type(value) is str:
        return len(value.encode()), json
    return (max(json, 5), json) if value is None or isinstance(value, bool) else (json, json)


def _lesser(a: Size, b: Size) -> Size:
    if a is None or b is None:
        return b if a is None else a
    return min(a[0], b[0]), min(a[1], b[1])


def of_schema(schema: Any) -> Size:
    """The size of what a JSON Schema lets through, where it says it plainly; None where it does
    not.
    """
    if not isinstance(schema, dict):
        return None
    given = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if isinstance(given, list) and all(
        value is None or isinstance(value, (str, bool)) for value in given
    ):
        return _largest([literal(value) for value in given])
    properties = schema.get("properties", {})
    match schema.get("type"):
        case "boolean" | "null":
            return 5, 5
        case "integer" | "number":
            return NUMBER_BYTES, NUMBER_BYTES
        case "string" if type(schema.get("maxLength")) is int:
            characters = schema["maxLength"]
            return 4 * characters, 2 + ESCAPED * characters
        case "array" if type(schema.get("maxItems")) is int and "prefixItems" not in schema:
            item = of_schema(schema.get("items"))
            if item is not None:
                total = 2 + schema["maxItems"] * (item[1] + 1)
                return total, total
        case "object" if (
            schema.get("additionalProperties") is False and "patternProperties" not in schema
        ):
            total = 2
            for name, part in properties.items():
                size = of_schema(part)
                if size is None:
                    return None
                total += ESCAPED * len(name.encode()) + 4 + size[1]
            return total, total
    return None
