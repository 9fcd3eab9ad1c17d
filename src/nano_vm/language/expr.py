"""Templates and conditions: text of a program in, nodes out; `closures` makes functions of them.

`parse_expr` and `parse_template` see the program's text alone, before any value exists; a closure
loads slots and never sees program text again. So a value can be compared, searched and shown, and
cannot become code, a reference or a second template.

What is not listed here is not in the language: the tokens in ``_TOKEN``, the node classes, the
tables of methods and functions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, wraps
from math import isfinite
from typing import Any, TypeVar

from ..errors import ExprError
from ..values import MAX_INT_BITS, short
from .functions import FUNCTIONS

MAX_EXPR_CHARS = 2_000
"""Length of a condition: a page of text; longer ones are generated, and belong into a `switch`."""

MAX_EXPR_DEPTH = 32
"""Levels of an expression's tree; the deepest hand-written one in the corpus has 9."""


# --- nodes ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Const:
    """A literal."""

    value: Any


SHORT_CHARS = 200
SHORT_TEXTS, LONG_TEXTS = 1 << 15, 256
"""How many strings are remembered with what they parse to: of short ones more than the largest
program has, since each pass over one with more would push out what the next pass asks for first;
of long ones so few that those of many programs do not fill the memory.
"""

Parsed = TypeVar("Parsed")


def _remembered(parse: Callable[[str], Parsed]) -> Callable[[str], Parsed]:
    """*parse*, which gives what nobody can change, with what it gave lately."""
    of_short, of_long = lru_cache(SHORT_TEXTS)(parse), lru_cache(LONG_TEXTS)(parse)

    @wraps(parse)
    def parsed(text: str) -> Parsed:
        return of_short(text) if len(text) <= SHORT_CHARS else of_long(text)

    return parsed


@dataclass(frozen=True, slots=True)
class Ref:
    """``$name``, ``$step.output``, ``$name.a[0]``: a name as written, and the fields and indexes
    after it.

    ``ambiguous`` says that it is written ``$name.x`` beside other text, where a reader may take
    ``.x`` for text; ``optional`` that `default` stands in where it has no value.
    """

    name: str
    path: tuple[str | int, ...] = ()
    delimited: bool = False
    ambiguous: bool = field(default=False, compare=False)
    optional: bool = False

    def __str__(self) -> str:
        text = self.name + "".join(map(path_text, self.path))
        return f"${{{text}}}" if self.delimited else f"${text}"


@dataclass(frozen=True, slots=True)
class Template:
    """Text with references in it; ``typed`` where the whole text is one reference outside of a
    condition."""

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
    """A function, or a method of its first argument."""

    name: str
    args: tuple[Node, ...]
    method: bool


@dataclass(frozen=True, slots=True)
class Items:
    """A list written in the expression."""

    items: tuple[Node, ...]


Node = Const | Ref | Template | Compare | Bool | Not | Arith | Index | Call | Items


def path_text(part: str | int) -> str:
    """A field or index as it is written behind a name."""
    if isinstance(part, int):
        return f"[{part}]"
    if _FIELD.match(part):
        return f".{part}"
    quote = '"' if "'" in part else "'"
    quoted = f"{quote}{part}{quote}"
    return (
        f"[{quoted}]" if re.fullmatch(_KEY, quoted) else "[" + repr(part).replace("$", "$$") + "]"
    )


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


def references(node: Node) -> Iterator[Ref]:
    """Each reference in *node* in order."""
    match node:
        case Ref():
            yield node
        case Template(parts):
            yield from (part for part in parts if isinstance(part, Ref))
        case _:
            for child in children(node):
                yield from references(child)


# --- parsing --------------------------------------------------------------------------------------

_NAME = r"[^\W\d]\w*"
# plain text: a key is never computed in a reference
_KEY = r"'[^'\\$\x00-\x1f]*'|\"[^\"\\$\x00-\x1f]*\""
_REF_PATH = rf"(?:\.{_NAME}|\[\s*(?:-?\d{{1,9}}|{_KEY})\s*\])*"
_DOLLAR = re.compile(rf"\$(?:(?P<dollar>\$)|(?P<brace>\{{)|(?P<name>{_NAME})(?P<path>{_REF_PATH}))")
_INSIDE = rf"\s*(?P<name>[^\W\d][\w-]*)(?P<path>{_REF_PATH})\s*\}}"
_BRACED = re.compile(_INSIDE)
_PATH_PART = re.compile(rf"\.(?P<field>{_NAME})|\[\s*(?:(?P<index>-?\d+)|(?P<key>{_KEY}))\s*\]")
_FIELD = re.compile(rf"{_NAME}\Z")
_UNBRACED = re.compile(r"[^{}$]*")
_UNNAMED_INSIDE = _INSIDE.replace("?P<name>", "?:").replace("?P<path>", "?:")

_TOKEN = re.compile(
    rf"""\s*(?:
    (?P<number>(?:\d+\.\d*|\.\d+|\d+)(?:[eE][-+]?\d+)?)
  | (?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
  | (?P<ref>\$(?:\{{{_UNNAMED_INSIDE}|\{{[^{{}}$]*\}}|{_NAME}{_REF_PATH}))
  | (?P<word>{_NAME})
  | (?P<op>==|!=|<=|>=|<|>|[-+*/%()\[\],.])
    )""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|.)", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", "'": "'", '"': '"', "\n": ""}
_CONSTANTS = {
    "true": True,
    "True": True,
    "false": False,
    "False": False,
    "null": None,
    "None": None,
}
DEFAULT = "default"
_METHODS = {"lower": 0, "upper": 0, "strip": 0, "startswith": 1, "endswith": 1}


def _ref_path(text: str) -> tuple[str | int, ...]:
    path: list[str | int] = []
    for part in _PATH_PART.finditer(text):
        if part["index"] is not None:
            path.append(int(part["index"]))
        else:
            path.append(part["field"] or part["key"][1:-1])
    return tuple(path)


@_remembered
def parse_template(text: str) -> Template:
    """The parts of *text*. ``$$`` is a dollar sign; ``$5`` and other non-names stay as typed.

    Raises:
        ExprError: If ``${`` does not hold a reference, or ``[`` behind a name no index or key.
    """
    parts: list[str | Ref] = []
    end = 0
    while match := _DOLLAR.search(text, end):
        if match.start() > end:
            parts.append(text[end : match.start()])
        if match["dollar"]:
            parts.append("$")
            end = match.end()
        else:
            ref, end = _reference(text, match)
            if text[end : end + 1] == "[" and not ref.delimited:
                raise _no_index(text, match.start(), ref)
            if (match["path"] or "").startswith(".") and match[0] != text:
                ref = replace(ref, ambiguous=True)
            parts.append(ref)
    if end < len(text):
        parts.append(text[end:])
    if len(parts) == 1 and isinstance(parts[0], Ref):
        return Template(tuple(parts), typed=True)
    return Template(tuple(parts))


def _reference(text: str, match: re.Match[str]) -> tuple[Ref, int]:
    """The reference that *match* of `_DOLLAR` begins in *text*, and where it ends."""
    if not match["brace"]:
        return Ref(match["name"], _ref_path(match["path"])), match.end()
    inner = _BRACED.match(text, match.end())
    if inner is not None:
        return Ref(inner["name"], _ref_path(inner["path"]), delimited=True), inner.end()
    written = _UNBRACED.match(text, match.end())
    assert written is not None
    if text[written.end() : written.end() + 1] == "}":
        raise ExprError(
            f"'${{{_excerpt(written[0])}}}' is not a reference; write ${{name}}, ${{step.output}} "
            f"or $$ for a dollar sign"
        )
    raise ExprError(
        f"'${{{_excerpt(written[0])}' at column {match.start() + 1} is not closed; "
        f"write }} behind the reference, or $$ for a dollar sign"
    )


def _excerpt(text: str) -> str:
    """The first characters of *text*, on one line."""
    return repr(text[:20])[1:-1] + ("..." if len(text) > 20 else "")


def _no_index(text: str, start: int, ref: Ref) -> ExprError:
    """What stands in ``[...]`` behind a name is an index or a key, as in a condition, or the name
    is delimited."""
    written, box = _excerpt(text[start:]), str(replace(ref, delimited=True))
    return ExprError(
        f"'{written}' at column {start + 1}: behind a name, [] takes a whole number or a quoted "
        f"key; "
        f"write {{expr: ...}} to compute it, {box}[ for text behind the value, or $$ for a dollar "
        f"sign"
    )


@_remembered
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
        if self.kind == "bad" and self.token[:2] == "${":
            hint = "; write } behind the reference"
        return ExprError(
            f"unexpected {what} at column {self.start + 1} of {short(self.text, 80)}{hint}"
        )

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
        # parentheses make no node; the tree itself is checked at the end
        if depth > MAX_EXPR_DEPTH * 4:
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
            right = self.product(depth)
            if _is_list(node) or _is_list(right):
                raise ExprError(
                    f"{op!r} in {short(self.text, 80)} takes numbers; append(list, item) and "
                    f"concat(a, b) make lists"
                )
            node = Arith(op, node, right)
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
                node = _indexed(node, self.disjunction(self.deeper(depth)))
                self.expect("]")
            elif self.accept("."):
                name = self.token
                if self.kind != "word" or name not in _METHODS:
                    raise ExprError(
                        f"'.{name}' at column {self.start + 1} is not a method of the language; "
                        f"there are {', '.join(f'.{m}()' for m in _METHODS)}; write ['{name}'] "
                        f"for a field"
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
            return self.quoted(token)
        if kind == "ref":
            self.advance()
            return self.reference(token, depth)
        if kind == "word":
            if token in _CONSTANTS:
                self.advance()
                return Const(_CONSTANTS[token])
            if token in FUNCTIONS:
                self.advance()
                return self.function(token, depth)
            if self.text[self.position :].lstrip()[:1] == "(" and token not in _HINTS:
                raise self.no_function(token)
            if token not in ("and", "or", "not", "in", *_HINTS):
                raise ExprError(
                    f"{token!r} at column {self.start + 1} is not known; write ${token} for a "
                    f"value, '{token}' for a string"
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

    def function(self, name: str, depth: int) -> Node:
        """A call, from its ``(`` on."""
        start = self.start
        self.expect("(")
        args: list[Node] = []
        while not self.accept(")"):
            if args:
                self.expect(",")
            args.append(self.disjunction(self.deeper(depth)))
        if fault := FUNCTIONS[name].arity_fault(len(args)):
            raise ExprError(f"{fault}, at column {start + 1} of {short(self.text, 80)}")
        if name == DEFAULT:
            args[0] = _optional(args[0])
        return Call(name, tuple(args), method=False)

    def no_function(self, name: str) -> ExprError:
        if name in _METHODS:
            hint = f"write $x.{name}()"
        else:
            hint = f"functions are {', '.join(FUNCTIONS)}"
        return ExprError(
            f"there is no function {name!r}, at column {self.start + 1} of "
            f"{short(self.text, 80)}; {hint}"
        )

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
        ref, _ = _reference(token, match)
        last = ref.path[-1] if ref.path else None
        if self.token == "(" and last in _METHODS and token.endswith(f".{last}"):
            return self.method(Ref(ref.name, ref.path[:-1]), str(last), depth)
        return ref

    def quoted(self, token: str) -> Node:
        text = _ESCAPE.sub(_unescape, token[1:-1])
        while self.kind == "text":  # 'a' 'b' is one text, as in Python
            text += _ESCAPE.sub(_unescape, self.token[1:-1])
            self.advance()
        template = parse_template(text)
        if any(isinstance(part, Ref) for part in template.parts):
            return Template(template.parts)
        return Const("".join(part for part in template.parts if isinstance(part, str)))


def _optional(node: Node) -> Node:
    """*node* as the first argument of `default`: what it reads may have no value, or lack the field
    or item."""
    match node:
        case Ref():
            return replace(node, optional=True)
        case Index(box, key):
            return Index(_optional(box), key)
        case Call("default", (value, other)):
            return Call(DEFAULT, (value, _optional(other)), method=False)
    return node


def _is_list(node: Node) -> bool:
    return isinstance(node, Items) or (isinstance(node, Const) and type(node.value) is list)


def _indexed(box: Node, key: Node) -> Node:
    """``box[key]``; with a literal key behind a reference that is the reference which a template
    would read."""
    if isinstance(box, Ref) and isinstance(key, Const) and type(key.value) in (str, int):
        return replace(box, path=(*box.path, key.value))
    return Index(box, key)


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


def is_field(part: str | int) -> bool:
    return isinstance(part, str) and _FIELD.match(part) is not None


def text_behind(ref: Ref, length: int) -> str:
    """*ref* written so that its path ends after *length* parts, and the rest is text:
    ``${name}.json``."""
    rest = "".join(map(path_text, ref.path[length:]))
    return f"{Ref(ref.name, ref.path[:length], delimited=True)}{rest}"


# --- values with templates and expressions inside -------------------------------------------------

EXPR, EXPR_KEY = "expr", "$$expr"
"""The key that makes an object an expression, and what a literal object writes for a key of that
name."""


def computed(value: Any) -> Node | None:
    """The expression that *value* is, an object with the key ``expr`` alone; None for anything
    else."""
    return parse_expr(value[EXPR]) if type(value) is dict and type(value.get(EXPR)) is str else None


def entries(value: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The entries of a literal object, by the keys that it will have."""
    for key, item in value.items():
        yield EXPR if key == EXPR_KEY else key, item


def value_references(value: Any) -> Sequence[Ref]:
    """Each reference in a literal with templates and expressions inside."""
    kind = type(value)
    if kind is str:
        return _of_template(value) if "$" in value else ()
    if kind is list:
        return named_references(value)
    if kind is dict:
        text = value.get(EXPR)
        return (
            expression_references(text) if type(text) is str else named_references(value.values())
        )
    return ()


def named_references(values: Iterable[Any]) -> list[Ref]:
    """Each reference in any of *values*: of arguments, say, whose names are not part of a value."""
    return [ref for value in values for ref in value_references(value)]


@_remembered
def expression_references(text: str) -> tuple[Ref, ...]:
    """Each reference in a condition or expression: every pass over a program asks for them."""
    return tuple(references(parse_expr(text)))


@_remembered
def _of_template(text: str) -> tuple[Ref, ...]:
    return tuple(references(parse_template(text)))


def is_literal(value: Any) -> bool:
    """Whether *value* says all of itself: it reads nothing and computes nothing."""
    kind = type(value)
    if kind is str:
        return not value_references(value)
    if kind is list:
        return all(map(is_literal, value))
    return kind is not dict or (EXPR not in value and all(map(is_literal, value.values())))
