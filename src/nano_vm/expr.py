"""Templates and conditions: text of a program in, closures over a frame out.

`parse_expr` and `parse_template` see the program's text alone, before any value exists; `Scope` resolves each name
to a slot; a compiled closure loads slots and never sees program text again. So a value can be
compared, searched and shown, and can not become code, a reference or a second template.

What is not listed here is not in the language: the tokens in ``_TOKEN``, the node classes, the tables of
methods and functions.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from math import isfinite
from typing import Any, Protocol

from .errors import ExprError, LimitExceeded
from .values import CONTAINERS, MAX_INT_BITS, MAX_VALUE_BYTES, UNSET, as_text, kind_name, short

MAX_EXPR_CHARS = 2_000
"""Length of a condition: a page of text; longer ones are generated, and belong into a `switch`."""

MAX_EXPR_DEPTH = 32
"""Levels of an expression's tree; the deepest hand-written one in the corpus has 9."""

Frame = list[Any]
Eval = Callable[[Frame], Any]


# --- nodes ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Const:
    """A literal."""

    value: Any


@dataclass(frozen=True, slots=True)
class Ref:
    """``$name``, ``$step.output``, ``$name.a[0]``: a name as written, and the fields and indexes after it."""

    name: str
    path: tuple[str | int, ...] = ()
    delimited: bool = False

    def __str__(self) -> str:
        text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in self.path)
        return f"${{{self.name}{text}}}" if self.delimited else f"${self.name}{text}"


@dataclass(frozen=True, slots=True)
class Template:
    """Text with references in it; ``typed`` where the whole text is one reference outside of a condition."""

    parts: tuple[str | Ref, ...]
    typed: bool = False


@dataclass(frozen=True, slots=True)
class Compare:
    """``a < b <= c``: the first operand, then pairs of operator and operand."""

    first: Node
    rest: tuple[tuple[str, Node], ...]


@dataclass(frozen=True, slots=True)
class Bool:
    """``and`` or ``or`` over two or more operands."""

    op: str
    operands: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Not:
    operand: Node


@dataclass(frozen=True, slots=True)
class Arith:
    op: str
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Index:
    box: Node
    key: Node


@dataclass(frozen=True, slots=True)
class Call:
    """A function of one argument, or a method with at most one."""

    name: str
    args: tuple[Node, ...]
    method: bool


@dataclass(frozen=True, slots=True)
class Items:
    """A list written in the expression."""

    items: tuple[Node, ...]


Node = Const | Ref | Template | Compare | Bool | Not | Arith | Index | Call | Items


def children(node: Node) -> Iterator[Node]:
    """The operands of *node*, left to right."""
    match node:
        case Compare(first, rest):
            yield first
            yield from (operand for _, operand in rest)
        case Bool(operands=operands) | Items(items=operands) | Call(args=operands):
            yield from operands
        case Not(operand):
            yield operand
        case Arith(left=left, right=right) | Index(box=left, key=right):
            yield left
            yield right


def references(node: Node) -> Iterator[tuple[Ref, bool]]:
    """Each reference in *node* in order, and whether it stands in text."""
    match node:
        case Ref():
            yield node, False
        case Template(parts, typed):
            yield from ((part, not typed) for part in parts if isinstance(part, Ref))
        case _:
            for child in children(node):
                yield from references(child)


# --- parsing -------------------------------------------------------------------------------------------------

_NAME = r"[^\W\d]\w*"
_REF_PATH = rf"(?:\.{_NAME}|\[\d{{1,9}}\])*"
_DOLLAR = re.compile(rf"\$(?:(?P<dollar>\$)|\{{(?P<braced>[^{{}}$]*)\}}|(?P<name>{_NAME})(?P<path>{_REF_PATH}))")
_BRACED = re.compile(rf"\s*(?P<name>[^\W\d][\w-]*)(?P<path>{_REF_PATH})\s*\Z")
_PATH_PART = re.compile(rf"\.({_NAME})|\[(\d+)\]")

_TOKEN = re.compile(
    rf"""\s*(?:
    (?P<number>(?:\d+\.\d*|\.\d+|\d+)(?:[eE][-+]?\d+)?)
  | (?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
  | (?P<ref>\$(?:\{{[^{{}}$]*\}}|{_NAME}(?:{_REF_PATH})))
  | (?P<word>{_NAME})
  | (?P<op>==|!=|<=|>=|<|>|[-+*/%()\[\],.])
    )""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|.)", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", "'": "'", '"': '"', "\n": ""}
_CONSTANTS = {"true": True, "True": True, "false": False, "False": False, "null": None, "None": None}
_COMPARISONS = ("==", "!=", "<", "<=", ">", ">=", "in", "not in")
_METHODS = {"lower": 0, "upper": 0, "strip": 0, "startswith": 1, "endswith": 1}
_FUNCTIONS = ("len", "int", "float", "str")


def _ref_path(text: str) -> tuple[str | int, ...]:
    return tuple(name or int(index) for name, index in _PATH_PART.findall(text))


@lru_cache(maxsize=8192)
def parse_template(text: str) -> Template:
    """The parts of *text*. ``$$`` is a dollar sign; ``$5`` and other non-names stay as typed.

    Raises:
        ExprError: If ``${...}`` does not hold a reference.
    """
    parts: list[str | Ref] = []
    end = 0
    for match in _DOLLAR.finditer(text):
        if match.start() > end:
            parts.append(text[end : match.start()])
        end = match.end()
        if match["dollar"]:
            parts.append("$")
        else:
            parts.append(_reference(match))
    if end < len(text):
        parts.append(text[end:])
    return Template(tuple(parts), typed=len(parts) == 1 and isinstance(parts[0], Ref))


def _reference(match: re.Match[str]) -> Ref:
    braced = match["braced"]
    if braced is None:
        return Ref(match["name"], _ref_path(match["path"]))
    inner = _BRACED.match(braced)
    if not inner:
        raise ExprError(
            f"'${{{short(braced)[1:-1]}}}' is not a reference; write ${{name}}, ${{step.output}} or $$ for a dollar sign"
        )
    return Ref(inner["name"], _ref_path(inner["path"]), delimited=True)


@lru_cache(maxsize=8192)
def parse_expr(text: str) -> Node:
    """The tree of a condition or expression.

    Raises:
        ExprError: With the column, for what is not in the language.
    """
    if len(text) > MAX_EXPR_CHARS:
        raise ExprError(f"expression has {len(text)} characters, the limit is {MAX_EXPR_CHARS}")
    parser = _Parser(text)
    node = parser.disjunction(1)
    if parser.kind != "end":
        raise parser.unexpected()
    _check_depth(node, 1)
    return node


def _check_depth(node: Node, depth: int) -> None:
    if depth > MAX_EXPR_DEPTH:
        raise ExprError(f"expression is nested deeper than {MAX_EXPR_DEPTH} levels")
    for child in children(node):
        _check_depth(child, depth + 1)


class _Parser:
    """Recursive descent, one method a level of precedence, as Python orders them."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.advance()

    def advance(self) -> None:
        match = _TOKEN.match(self.text, self.position)
        if match:
            self.kind = match.lastgroup or ""
            self.token = match[self.kind]
            self.start = match.start(self.kind)
            self.position = match.end()
        else:
            rest = self.text[self.position :]
            self.start = self.position + len(rest) - len(rest.lstrip())
            self.kind, self.token = ("bad", rest.lstrip()[:10]) if rest.strip() else ("end", "")

    def unexpected(self) -> ExprError:
        what = f"{self.token!r}" if self.kind != "end" else "the end"
        hint = _HINTS.get(self.token) or _HINTS.get(self.token[:1], "")
        if self.kind == "bad" and self.token[:1] in "'\"":
            hint = "; a quote is not closed"
        return ExprError(f"unexpected {what} at column {self.start + 1} of {short(self.text, 80)}{hint}")

    def accept(self, *tokens: str) -> str | None:
        if self.kind in ("op", "word") and self.token in tokens:
            token = self.token
            self.advance()
            return token
        return None

    def expect(self, token: str) -> None:
        if not self.accept(token):
            raise self.unexpected()

    def deeper(self, depth: int) -> int:
        if depth > MAX_EXPR_DEPTH * 4:  # parentheses make no node; the tree itself is checked at the end
            raise ExprError(f"expression is nested deeper than {MAX_EXPR_DEPTH} levels")
        return depth + 1

    def disjunction(self, depth: int) -> Node:
        return self.chain("or", self.conjunction, depth)

    def conjunction(self, depth: int) -> Node:
        return self.chain("and", self.negation, depth)

    def chain(self, op: str, operand: Callable[[int], Node], depth: int) -> Node:
        operands = [operand(depth)]
        while self.accept(op):
            operands.append(operand(depth))
        return operands[0] if len(operands) == 1 else Bool(op, tuple(operands))

    def negation(self, depth: int) -> Node:
        if self.accept("not"):
            return Not(self.negation(self.deeper(depth)))
        return self.comparison(depth)

    def comparison(self, depth: int) -> Node:
        first = self.sum(depth)
        rest = []
        while op := self.comparator():
            rest.append((op, self.sum(depth)))
        return Compare(first, tuple(rest)) if rest else first

    def comparator(self) -> str | None:
        if self.accept("not"):
            self.expect("in")
            return "not in"
        return self.accept("==", "!=", "<", "<=", ">", ">=", "in")

    def sum(self, depth: int) -> Node:
        node = self.product(depth)
        while op := self.accept("+", "-"):
            node = Arith(op, node, self.product(depth))
        return node

    def product(self, depth: int) -> Node:
        node = self.unary(depth)
        while op := self.accept("*", "/", "%"):
            node = Arith(op, node, self.unary(depth))
        return node

    def unary(self, depth: int) -> Node:
        if op := self.accept("-", "+"):
            operand = self.unary(self.deeper(depth))
            if isinstance(operand, Const) and type(operand.value) in (int, float):
                return Const(-operand.value) if op == "-" else operand
            return Arith(op, Const(0), operand)
        return self.postfix(depth)

    def postfix(self, depth: int) -> Node:
        node = self.atom(self.deeper(depth))
        while True:
            if self.accept("["):
                node = Index(node, self.disjunction(self.deeper(depth)))
                self.expect("]")
            elif self.accept("."):
                name = self.token
                if self.kind != "word" or name not in _METHODS:
                    raise ExprError(
                        f"'.{name}' at column {self.start + 1} is not a method of the language; "
                        f"there are {', '.join(f'.{m}()' for m in _METHODS)}"
                    )
                self.advance()
                node = self.method(node, name, depth)
            else:
                return node

    def method(self, box: Node, name: str, depth: int) -> Node:
        self.expect("(")
        args = [box]
        if not self.accept(")"):
            args.append(self.disjunction(self.deeper(depth)))
            self.expect(")")
        if len(args) - 1 != _METHODS[name]:
            raise ExprError(f".{name}() takes {_METHODS[name]} arguments, not {len(args) - 1}")
        return Call(name, tuple(args), method=True)

    def atom(self, depth: int) -> Node:
        kind, token = self.kind, self.token
        if kind == "number":
            self.advance()
            return Const(_number(token))
        if kind == "text":
            self.advance()
            return self.quoted(token, depth)
        if kind == "ref":
            self.advance()
            return self.reference(token, depth)
        if kind == "word":
            if token in _CONSTANTS:
                self.advance()
                return Const(_CONSTANTS[token])
            if token in _FUNCTIONS:
                self.advance()
                self.expect("(")
                argument = self.disjunction(self.deeper(depth))
                self.expect(")")
                return Call(token, (argument,), method=False)
            if token not in ("and", "or", "not", "in", *_HINTS):
                raise ExprError(
                    f"{token!r} at column {self.start + 1} is not known; write ${token} for a value, '{token}' for a text"
                )
        if self.accept("("):
            node = self.disjunction(self.deeper(depth))
            if self.kind == "op" and self.token == ",":
                return self.items(node, ")", depth)
            self.expect(")")
            return node
        if self.accept("["):
            if self.accept("]"):
                return Const([])
            return self.items(self.disjunction(self.deeper(depth)), "]", depth)
        raise self.unexpected()

    def items(self, first: Node, close: str, depth: int) -> Node:
        items = [first]
        while self.accept(","):
            if self.token == close:
                break
            items.append(self.disjunction(self.deeper(depth)))
        self.expect(close)
        if all(isinstance(item, Const) and type(item.value) is not list for item in items):
            return Const([item.value for item in items if isinstance(item, Const)])
        return Items(tuple(items))

    def reference(self, token: str, depth: int) -> Node:
        match = _DOLLAR.match(token)
        assert match
        ref = _reference(match)
        last = ref.path[-1] if ref.path else None
        if self.token == "(" and isinstance(last, str) and last in _METHODS and not ref.delimited:
            return self.method(Ref(ref.name, ref.path[:-1]), last, depth)
        return ref

    def quoted(self, token: str, depth: int) -> Node:
        text = _ESCAPE.sub(_unescape, token[1:-1])
        while self.kind == "text":  # 'a' 'b' is one text, as in Python
            text += _ESCAPE.sub(_unescape, self.token[1:-1])
            self.advance()
        template = parse_template(text)
        if any(isinstance(part, Ref) for part in template.parts):
            return Template(template.parts)
        return Const("".join(part for part in template.parts if isinstance(part, str)))


_HINTS = {
    "is": "; compare with ==",
    "if": "; use a condition step",
    "lambda": "; there are no functions",
    "for": "; use a map step",
    "**": "; there is no power",
    "=": "; compare with ==",
    "&": "; write 'and'",
    "|": "; write 'or'",
    "!": "; write 'not'",
}


def _number(text: str) -> int | float:
    if text.isdigit():
        value = int(text) if len(text) < 1300 else 1 << MAX_INT_BITS  # 4,096 bits have 1,234 digits
        if value.bit_length() > MAX_INT_BITS:
            raise ExprError(f"a number of {len(text)} digits; the limit is {MAX_INT_BITS} bits")
        return value
    number = float(text)
    if not isfinite(number):
        raise ExprError(f"{text} is not a finite number")
    return number


def _unescape(match: re.Match[str]) -> str:
    code = match[1]
    if code[0] in "ux" and len(code) > 1:
        character = chr(int(code[1:], 16))
        if "\ud800" <= character <= "\udfff":
            raise ExprError(f"{match[0]} is a lone surrogate")
        return character
    return _ESCAPES.get(code, match[0])


# --- meaning of operators --------------------------------------------------------------------------------------

_JSON_NUMBER = re.compile(r"\s*(-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?)\s*\Z", re.ASCII)


_EVERY_INT = 1 << 53  # up to here each whole number is a float


def _exact_number(text: str) -> int | Decimal | None:
    """The number that *text* is by JSON's grammar, trimmed, with every digit as it is written.

    None if it is none, too large for a float, or has an exponent that no Decimal holds.
    """
    match = _JSON_NUMBER.match(text)
    if not match:
        return None
    digits = match[1]
    if match[2] or match[3]:
        try:
            return Decimal(digits) if isfinite(float(digits)) else None
        except InvalidOperation:
            return None
    whole = int(digits) if len(digits) < 1300 else None
    return whole if whole is not None and whole.bit_length() <= MAX_INT_BITS else None


def number_in(text: str) -> int | float | None:
    """The number that *text* is by JSON's grammar, trimmed; None if it is none, or not finite.

    One with a fraction or an exponent is rounded to a float: see `exactly` for what it says.
    """
    number = _exact_number(text)
    return float(text) if isinstance(number, Decimal) else number


def exactly(value: Any) -> int | Decimal | None:
    """A number, or the one that a text is, with every digit as it is written; None for anything else.

    A text beside a number is compared by this: as a float ``500.00000000000000001`` would pass for 500.
    """
    kind = type(value)
    if kind is str:
        return _exact_number(value)
    if kind is float:
        return Decimal(repr(value))
    return value if kind is int else None


def exact_float(value: Any) -> float | None:
    """The float that a number, or a text that is one, denotes: the one that reads back as it, digit for digit, by its
    shortest repr. None where there is none: ``1e-400`` is not 0.0, and 9007199254740993 is no float."""
    if type(value) is float:
        return value
    number = exactly(value)
    if number is None:
        return None
    if type(number) is int and -_EVERY_INT <= number <= _EVERY_INT:
        return float(number)
    try:
        result = float(number)
    except OverflowError:
        return None
    return result if Decimal(repr(result)) == number else None


def is_number(value: object) -> bool:
    """An int or a float; a bool is none."""
    return type(value) is int or type(value) is float


def equal(a: Any, b: Any) -> bool:
    """By type and value; a text equals a number if it is that number."""
    ta, tb = type(a), type(b)
    if ta is tb:
        if ta is list:
            return len(a) == len(b) and all(map(strictly_equal, a, b))
        if ta is dict:
            return len(a) == len(b) and all(k in b and strictly_equal(v, b[k]) for k, v in a.items())
        return bool(a == b)
    if (ta is str and is_number(b)) or (tb is str and is_number(a)):
        return exactly(a) == exactly(b)
    return bool(is_number(a) and is_number(b) and a == b)


def strictly_equal(a: Any, b: Any) -> bool:
    """Equal inside of containers: as JSON values, with no reading of texts as numbers."""
    ta, tb = type(a), type(b)
    if ta is not tb:
        return bool(is_number(a) and is_number(b) and a == b)
    return equal(a, b) if ta in CONTAINERS else bool(a == b)


def _ordered(symbol: str, compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def test(a: Any, b: Any) -> bool:
        ta, tb = type(a), type(b)
        if (ta is int or ta is float) and (tb is int or tb is float):
            return compare(a, b)
        x, y = exactly(a), exactly(b)
        if x is not None and y is not None:
            return compare(x, y)
        if ta is str and tb is str:
            return compare(a, b)
        raise ExprError(f"can not compare {described(a)} {symbol} {described(b)}")

    return test


def contains(item: Any, box: Any) -> bool:
    """``in``: substring of a text, member of a list, key of a dict."""
    kind = type(box)
    if kind is str:
        if type(item) is str:
            return item in box
    elif kind is list:
        return any(equal(item, member) for member in box)
    elif kind is dict and type(item) is str:
        return item in box
    raise ExprError(f"can not look for {described(item)} in {described(box)}")


def described(value: Any) -> str:
    """A value in an error message: its kind and a short form."""
    if value is None or type(value) is bool:
        return {None: "null", True: "true", False: "false"}[value]
    return f"the {_KINDS.get(type(value), kind_name(value))} {short(value)}"


_KINDS = {str: "text", int: "number", float: "number", list: "list", dict: "object"}
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": equal,
    "!=": lambda a, b: not equal(a, b),
    "<": _ordered("<", operator.lt),
    "<=": _ordered("<=", operator.le),
    ">": _ordered(">", operator.gt),
    ">=": _ordered(">=", operator.ge),
    "in": contains,
    "not in": lambda a, b: not contains(a, b),
}
assert tuple(_COMPARE) == _COMPARISONS
_ARITH: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "%": operator.mod,
}


def arithmetic(op: str, a: Any, b: Any) -> int | float:
    """``a op b`` on numbers; the result is finite and bounded, or it is an error."""
    if not (is_number(a) and is_number(b)):
        raise ExprError(
            f"can not compute {described(a)} {op} {described(b)}; both must be numbers (see int(), float())"
        )
    try:
        result = _ARITH[op](a, b)
        if (type(result) is int and result.bit_length() <= MAX_INT_BITS) or (
            type(result) is float and isfinite(result)
        ):
            return result
    except ZeroDivisionError:
        raise ExprError(f"{short(a)} {op} {short(b)} divides by zero") from None
    except OverflowError:
        pass
    raise ExprError(f"{short(a)} {op} {short(b)} is too large")


def index(box: Any, key: Any) -> Any:
    """``box[key]`` of a list, a text or an object."""
    kind = type(box)
    if kind is dict and type(key) is str:
        if key in box:
            return box[key]
        raise ExprError(f"no field {short(key)} in {described(box)}")
    if (kind is list or kind is str) and type(key) is int:
        if -len(box) <= key < len(box):
            return box[key]
        raise ExprError(f"no item [{key}] in {described(box)} of length {len(box)}")
    raise ExprError(f"can not take [{short(key)}] of {described(box)}")


def _length(value: Any) -> int:
    if type(value) is str or type(value) in CONTAINERS:
        return len(value)
    raise ExprError(f"len() of {described(value)}; it takes a text, a list or an object")


def _integer(value: Any) -> int:
    if is_number(value):
        return int(value)
    number = number_in(value) if type(value) is str else None
    if type(number) is int:
        return number
    raise ExprError(f"int() of {described(value)}; it takes a number, or a text that is a whole number")


def _floating(value: Any) -> float:
    number = exact_float(value)
    if number is not None:
        return number
    if exactly(value) is not None:
        hint = "no float is that number; compare the value itself, which keeps every digit"
        raise ExprError(f"float() of {described(value)}: {hint}")
    raise ExprError(f"float() of {described(value)}; it takes a number, or a text that is one")


_FUNCTION: dict[str, Callable[[Any], Any]] = {"len": _length, "int": _integer, "float": _floating, "str": as_text}


# --- compiling -------------------------------------------------------------------------------------------------


class Scope(Protocol):
    """What a compiler must know of names; `Flow` frames implement it."""

    def load(self, ref: Ref, in_text: bool) -> tuple[int, tuple[str | int, ...], str]:
        """The slot that *ref* reads, the path to follow from there, and text that stays text (``.Thanks``).

        Raises:
            ExprError: If the name means nothing here.
        """
        ...


def load(ref: Ref, scope: Scope, in_text: bool = False) -> Eval:
    """A closure that gives the value of *ref* in a frame."""
    slot, path, rest = scope.load(ref, in_text)
    assert not rest or in_text
    text = str(ref)

    def plain(frame: Frame) -> Any:
        value = frame[slot]
        if value is UNSET:
            raise ExprError(f"{text} has no value on this path")
        return value

    if not path:
        return plain

    def deep(frame: Frame) -> Any:
        value = plain(frame)
        for part in path:
            try:
                value = index(value, part)
            except ExprError as error:
                raise ExprError(f"{text}: {error}") from None
        return value

    return deep


def compile_template(template: Template, scope: Scope) -> Eval:
    """Text with its references filled in; a ``typed`` template gives the value itself."""
    if template.typed:
        return load(template.parts[0], scope)  # type: ignore[arg-type]
    pieces: list[Any] = []  # the text, with None where a reference stands
    loads: list[tuple[int, Eval]] = []
    for part in template.parts:
        if isinstance(part, Ref):
            rest = scope.load(part, True)[2]
            loads.append((len(pieces), _texted(load(part, scope, in_text=True), rest)))
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
            raise LimitExceeded(f"a text of more than {MAX_VALUE_BYTES} characters")
        return text

    return joined


FEW_REFERENCES = 8
"""References whose texts may be joined before anybody looks at their length: each is of at most `MAX_VALUE_BYTES`."""


def _joined_with_care(pieces: list[Any], loads: list[tuple[int, Eval]]) -> Eval:
    """As `joined` above for many references: a program of a megabyte could name a large value 500,000 times."""

    def joined(frame: Frame) -> str:
        parts, total = pieces.copy(), 0
        for position, get in loads:
            text = parts[position] = get(frame)
            total += len(text)
            if total > MAX_VALUE_BYTES:
                raise LimitExceeded(f"a text of more than {MAX_VALUE_BYTES} characters")
        return "".join(parts)

    return joined


def _constant(value: Any) -> Eval:
    return lambda frame: value


def _texted(get: Eval, rest: str) -> Eval:
    if rest:
        return lambda frame: as_text(get(frame)) + rest

    def text(frame: Frame) -> str:
        value = get(frame)
        return value if type(value) is str else as_text(value)

    return text


def compile_value(value: Any, scope: Scope) -> Eval:
    """A literal with templates anywhere inside. What references give is the frame's own, which nobody may change."""
    kind = type(value)
    if kind is str:
        template = parse_template(value)
        if not any(isinstance(part, Ref) for part in template.parts):
            return _constant("".join(template.parts))  # type: ignore[arg-type]
        return compile_template(template, scope)
    if kind is list:
        items = [compile_value(item, scope) for item in value]
        return lambda frame: [item(frame) for item in items]
    if kind is dict:
        entries = [(key, compile_value(item, scope)) for key, item in value.items()]
        return lambda frame: {key: item(frame) for key, item in entries}
    return _constant(value)


def value_references(value: Any) -> Iterator[tuple[Ref, bool]]:
    """Each reference in a literal with templates inside, and whether it stands in text."""
    kind = type(value)
    if kind is str:
        if "$" in value:
            yield from references(parse_template(value))
    elif kind is list:
        for item in value:
            yield from value_references(item)
    elif kind is dict:
        for item in value.values():
            yield from value_references(item)


def compile_condition(node: Node, scope: Scope) -> Eval:
    """*node* as a closure that gives a bool; any other result is an error."""
    return _boolean(node, scope)


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
            tests = [_boolean(operand, scope) for operand in operands]
            if len(tests) == 2:  # most have two, and all() builds a generator
                first, second = tests
                if op == "and":
                    return lambda frame: first(frame) and second(frame)
                return lambda frame: first(frame) or second(frame)
            if op == "and":
                return lambda frame: all(test(frame) for test in tests)
            return lambda frame: any(test(frame) for test in tests)
        case Not(operand):
            test = _boolean(operand, scope)
            return lambda frame: not test(frame)
        case Compare(first, rest):
            return _comparison(first, rest, scope)
        case Arith(op, left, right):
            a, b = compile_expr(left, scope), compile_expr(right, scope)
            return lambda frame: arithmetic(op, a(frame), b(frame))
        case Index(box, key):
            a, b = compile_expr(box, scope), compile_expr(key, scope)
            return lambda frame: index(a(frame), b(frame))
        case Items(items):
            loads = [compile_expr(item, scope) for item in items]
            return lambda frame: [item(frame) for item in loads]
        case Call(name, args, method=False):
            function, argument = _FUNCTION[name], compile_expr(args[0], scope)
            return lambda frame: function(argument(frame))
        case Call(name, args):
            return _method(name, args, scope)


def _method(name: str, args: tuple[Node, ...], scope: Scope) -> Eval:
    box = compile_expr(args[0], scope)
    method: Callable[..., Any] = getattr(str, name)
    if len(args) == 1:

        def bare(frame: Frame) -> Any:
            value = box(frame)
            if type(value) is str:
                return method(value)
            raise ExprError(f".{name}() of {described(value)}; it takes a text")

        return bare
    argument = compile_expr(args[1], scope)

    def with_argument(frame: Frame) -> Any:
        value, other = box(frame), argument(frame)
        if type(value) is str and type(other) is str:
            return method(value, other)
        raise ExprError(f".{name}() of {described(value)} with {described(other)}; both must be texts")

    return with_argument


def _boolean(node: Node, scope: Scope) -> Eval:
    evaluate = compile_expr(node, scope)
    if isinstance(node, (Compare, Bool, Not)):
        return evaluate  # always a bool

    def test(frame: Frame) -> bool:
        value = evaluate(frame)
        if value is True or value is False:
            return value
        raise ExprError(f"{described(value)} is not true or false; compare it, for example == 'yes'")

    return test


def _comparison(first: Node, rest: tuple[tuple[str, Node], ...], scope: Scope) -> Eval:
    left = compile_expr(first, scope)
    if len(rest) == 1:
        op, operand = rest[0]
        test = _COMPARE[op]
        if isinstance(first, Const) and op == "in":
            item, box = first.value, compile_expr(operand, scope)

            def found(frame: Frame) -> bool:  # 'yes' in ...: the commonest condition, half a microsecond less
                value = box(frame)
                if type(value) is str and type(item) is str:
                    return item in value
                return contains(item, value)

            return found
        if isinstance(operand, Const):
            constant = operand.value
            if op == "==" and type(constant) is str:

                def is_constant(frame: Frame) -> bool:
                    value = left(frame)
                    return value == constant if type(value) is str else equal(value, constant)

                return is_constant
            return lambda frame: test(left(frame), constant)
        right = compile_expr(operand, scope)
        return lambda frame: test(left(frame), right(frame))
    pairs = [(_COMPARE[op], compile_expr(operand, scope)) for op, operand in rest]

    def chain(frame: Frame) -> bool:
        a = left(frame)
        for test, operand in pairs:
            b = operand(frame)
            if not test(a, b):
                return False
            a = b
        return True

    return chain
