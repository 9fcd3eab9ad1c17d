"""Expressions, templates and values with both inside, as closures over a frame; a `Scope` gives them
slots. Operators and functions answer as `operators` and `functions` say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from ..errors import ExprError, LimitExceeded
from ..values import MAX_VALUE_BYTES, MINUS_SMALL_INT, SMALL_INT, UNSET, as_text, weighed
from .expr import (
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
    computed,
    entries,
    is_field,
    parse_template,
    text_behind,
)
from .functions import FUNCTIONS
from .operators import COMPARISONS, arithmetic, contains, described, equal, index, present

Frame = list[Any]
Eval = Callable[[Frame], Any]


class Scope(Protocol):
    """What a compiler must know of names; `Flow` frames implement it."""

    def load(self, ref: Ref) -> tuple[int, tuple[str | int, ...]]:
        """The slot that *ref* reads, and the path to follow from there.

        Raises:
            ExprError: If the name means nothing here.
        """
        ...


def load(ref: Ref, scope: Scope, in_template: bool = False) -> Eval:
    """A closure that gives the value of *ref* in a frame. In a template, what looks like a field
    may have been meant as text."""
    slot, path = scope.load(ref)
    text = str(ref)

    def plain(frame: Frame) -> Any:
        value = frame[slot]
        if value is UNSET:
            raise ExprError(f"{text} has no value on this path")
        return value

    if not path:
        return plain
    skipped = len(ref.path) - len(path)  # `.output` is no field

    def deep(frame: Frame) -> Any:
        value = plain(frame)
        for number, part in enumerate(path):
            try:
                value = index(value, part)
            except ExprError as error:
                hint = ""
                if in_template and not ref.delimited and type(value) is not dict and is_field(part):
                    hint = (
                        f"; write {text_behind(ref, skipped + number)} where it is text "
                        f"behind the value"
                    )
                raise ExprError(f"{text}: {error}{hint}") from None
        return value

    return deep


def compile_template(template: Template, scope: Scope) -> Eval:
    """Text with its references filled in; a ``typed`` template gives the value itself."""
    if template.typed:
        (reference,) = template.parts
        assert isinstance(reference, Ref)
        return load(reference, scope, in_template=True)
    pieces: list[Any] = []  # the text, with None where a reference stands
    loads: list[tuple[int, Eval]] = []
    for part in template.parts:
        if isinstance(part, Ref):
            loads.append((len(pieces), _texted(load(part, scope, in_template=True))))
            pieces.append(None)
        else:
            pieces.append(part)
    if len(pieces) == 1 and loads:
        return loads[0][1]
    if len(loads) > FEW_REFERENCES:
        return _joined_with_care(pieces, loads)

    def joined(frame: Frame) -> str:
        parts = pieces.copy()
        for position, get in loads:
            parts[position] = get(frame)
        text = "".join(parts)
        if len(text) > MAX_VALUE_BYTES:  # "$a$a" in a loop doubles
            raise LimitExceeded(f"a string of more than {MAX_VALUE_BYTES} characters")
        return text

    return joined


FEW_REFERENCES = 8
"""References whose strings may be joined before anybody looks at their length: each is of at most
`MAX_VALUE_BYTES`."""


def _joined_with_care(pieces: list[Any], loads: list[tuple[int, Eval]]) -> Eval:
    """As `joined` above for many references: a program of a megabyte could name a large value
    500,000 times."""

    def joined(frame: Frame) -> str:
        parts, total = pieces.copy(), 0
        for position, get in loads:
            text = parts[position] = get(frame)
            total += len(text)
            if total > MAX_VALUE_BYTES:
                raise LimitExceeded(f"a string of more than {MAX_VALUE_BYTES} characters")
        return "".join(parts)

    return joined


def _constant(value: Any) -> Eval:
    return lambda frame: value


def _texted(get: Eval) -> Eval:
    def text(frame: Frame) -> str:
        value = get(frame)
        return value if type(value) is str else as_text(value)

    return text


def compile_value(value: Any, scope: Scope) -> Eval:
    """A literal with templates and expressions anywhere inside. What references give is the frame's
    own, which nobody may change."""
    kind = type(value)
    if kind is str:
        template = parse_template(value)
        texts = [part for part in template.parts if isinstance(part, str)]
        if len(texts) == len(template.parts):
            return _constant("".join(texts))
        return compile_template(template, scope)
    if kind is list:
        items = [compile_value(item, scope) for item in value]
        return lambda frame: [item(frame) for item in items]
    if kind is dict:
        node = computed(value)
        if node is not None:
            return compile_expr(node, scope)
        return compile_named(dict(entries(value)), scope)
    return _constant(value)


def compile_named(values: Mapping[str, Any], scope: Scope) -> Eval:
    """Values by names, such as the arguments of a call: the mapping itself is none of them."""
    gets = [(name, compile_value(value, scope)) for name, value in values.items()]
    return lambda frame: {name: get(frame) for name, get in gets}


def compile_expr(node: Node, scope: Scope) -> Eval:
    """*node* as a closure. What is not matched here is not in the language."""
    match node:
        case Const(value):
            if type(value) is list:
                return lambda frame: list(value)
            return _constant(value)
        case Ref():
            return load(node, scope)
        case Template():
            return compile_template(node, scope)
        case Bool(op, operands):
            tests = [compile_condition(operand, scope) for operand in operands]
            if len(tests) == 2:  # most have two, and all() builds a generator
                first, second = tests
                if op == "and":
                    return lambda frame: first(frame) and second(frame)
                return lambda frame: first(frame) or second(frame)
            if op == "and":
                return lambda frame: all(test(frame) for test in tests)
            return lambda frame: any(test(frame) for test in tests)
        case Not(operand):
            test = compile_condition(operand, scope)
            return lambda frame: not test(frame)
        case Compare(first, rest):
            return _comparison(first, rest, scope)
        case Arith(op, left, right):
            return _arithmetic(op, left, right, scope)
        case Index(box, key):
            a, b = compile_expr(box, scope), compile_expr(key, scope)
            return lambda frame: index(a(frame), b(frame))
        case Items(items):
            loads = [_operand(item, scope) for item in items]
            return lambda frame: [item(frame) for item in loads]
        case Call("default", (tried, other)):
            return _default(compile_optional(tried, scope), compile_expr(other, scope))
        case Call(name, args, method=False):
            return _function(name, [_operand(argument, scope) for argument in args])
        case Call(name, args):
            return _method(name, args, scope)


def _arithmetic(op: str, left: Node, right: Node, scope: Scope) -> Eval:
    a, b = compile_expr(left, scope), compile_expr(right, scope)
    if op not in _SUMS or not (isinstance(left, Ref) and isinstance(right, Const)):
        return lambda frame: arithmetic(op, a(frame), b(frame))
    (slot, path), by = scope.load(left), right.value
    if path or type(by) is not int or not MINUS_SMALL_INT < by < SMALL_INT:
        return lambda frame: arithmetic(op, a(frame), by)
    by = by if op == "+" else -by

    # a counter: a fifth of the time
    def counted(frame: Frame) -> int | float:
        value = frame[slot]
        if type(value) is int and MINUS_SMALL_INT < value < SMALL_INT:
            return value + by
        return arithmetic(op, a(frame), right.value)

    return counted


_SUMS = frozenset("+-")


def _operand(node: Node, scope: Scope) -> Eval:
    """*node* as a part of an expression. What it builds of others' values is held to the size of
    one before it is used: a list that names a large value many times costs nothing itself, and to
    compare or print it could take hours."""
    get = compile_expr(node, scope)
    return (lambda frame: weighed(get(frame))) if _builds(node) else get


def _builds(node: Node) -> bool:
    match node:
        case Items() | Call("append" | "concat"):
            return True
        case Call("default", args):
            return any(map(_builds, args))
    return False


def _function(name: str, args: list[Eval]) -> Eval:
    apply = FUNCTIONS[name].apply
    assert apply is not None
    if len(args) == 1:
        (first,) = args
        return lambda frame: apply(first(frame))
    if len(args) == 2:
        first, second = args
        return lambda frame: apply(first(frame), second(frame))
    return lambda frame: apply(*[argument(frame) for argument in args])


def compile_optional(node: Node, scope: Scope) -> Eval:
    """As `compile_expr`, but `UNSET` where a name has no value, or a value no such field or item:
    what `default` looks at."""
    match node:
        case Ref(optional=True):
            slot, path = scope.load(node)

            def found(frame: Frame) -> Any:
                value = frame[slot]
                for part in path:
                    if value is UNSET:
                        break
                    value = _present(value, part, node)
                return value

            return found
        case Index(box, key):
            outer, part = compile_optional(box, scope), compile_expr(key, scope)

            def item(frame: Frame) -> Any:
                value = outer(frame)
                return value if value is UNSET else present(value, part(frame))

            return item
        case Call("default", (value, other)):
            return _default(compile_optional(value, scope), compile_optional(other, scope))
    return compile_expr(node, scope)


def _present(value: Any, part: str | int, ref: Ref) -> Any:
    try:
        return present(value, part)
    except ExprError as error:
        raise ExprError(f"{ref}: {error}") from None


def _default(value: Eval, other: Eval) -> Eval:
    def chosen(frame: Frame) -> Any:
        found = value(frame)
        return other(frame) if found is None or found is UNSET else found

    return chosen


def _method(name: str, args: tuple[Node, ...], scope: Scope) -> Eval:
    box = compile_expr(args[0], scope)
    method: Callable[..., Any] = getattr(str, name)
    if len(args) == 1:

        def bare(frame: Frame) -> Any:
            value = box(frame)
            if type(value) is str:
                return method(value)
            raise ExprError(f".{name}() of {described(value)}; it takes a string")

        return bare
    argument = compile_expr(args[1], scope)

    def with_argument(frame: Frame) -> Any:
        value, other = box(frame), argument(frame)
        if type(value) is str and type(other) is str:
            return method(value, other)
        raise ExprError(
            f".{name}() of {described(value)} with {described(other)}; both must be strings"
        )

    return with_argument


def compile_condition(node: Node, scope: Scope) -> Eval:
    """*node* as a closure that gives a bool; any other result is an error."""
    evaluate = compile_expr(node, scope)
    if isinstance(node, (Compare, Bool, Not)):
        return evaluate  # always a bool

    def test(frame: Frame) -> bool:
        value = evaluate(frame)
        if value is True or value is False:
            return value
        raise ExprError(
            f"{described(value)} is not true or false; compare it, for example == 'yes'"
        )

    return test


def _comparison(first: Node, rest: tuple[tuple[str, Node], ...], scope: Scope) -> Eval:
    left = _operand(first, scope)
    if len(rest) == 1:
        op, operand = rest[0]
        test = COMPARISONS[op]
        if isinstance(first, Const) and op == "in":
            item, box = first.value, _operand(operand, scope)

            # 'yes' in ...: the commonest condition, half a microsecond less
            def found(frame: Frame) -> bool:
                value = box(frame)
                if type(value) is str and type(item) is str:
                    return item in value
                return contains(item, value)

            return found
        if isinstance(operand, Const):
            constant = operand.value
            if op == "==" and type(constant) is str:
                slot, path = scope.load(first) if isinstance(first, Ref) else (-1, ("",))
                if not path:

                    def is_named(frame: Frame) -> bool:
                        value = frame[slot]
                        return (
                            value == constant
                            if type(value) is str
                            else equal(left(frame), constant)
                        )

                    return is_named

                def is_constant(frame: Frame) -> bool:
                    value = left(frame)
                    return value == constant if type(value) is str else equal(value, constant)

                return is_constant
            return lambda frame: test(left(frame), constant)
        right = _operand(operand, scope)
        return lambda frame: test(left(frame), right(frame))
    pairs = [(COMPARISONS[op], _operand(operand, scope)) for op, operand in rest]

    def chain(frame: Frame) -> bool:
        a = left(frame)
        for test, operand in pairs:
            b = operand(frame)
            if not test(a, b):
                return False
            a = b
        return True

    return chain
