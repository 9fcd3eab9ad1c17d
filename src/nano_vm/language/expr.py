"""Templates and conditions: text of a program in, closures over a frame out.

`parse_expr` and `parse_template` see the program's text alone, before any value exists; `Scope`
resolves each name to a slot; a compiled closure loads slots and never sees program text again. So a
value can be compared, searched and shown, and cannot become code, a reference or a second
template.

What is not listed here is not in the language: the tokens in ``_TOKEN``, the node classes, the
tables of methods and functions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, wraps
from math import isfinite
from typing import Any, Protocol, TypeVar

from ..errors import ExprError, LimitExceeded
from ..values import (
    MAX_INT_BITS,
    MAX_VALUE_BYTES,
    MINUS_SMALL_INT,
    SMALL_INT,
    UNSET,
    as_text,
    short,
    weighed,
)
from .functions import FUNCTIONS
from .operators import COMPARISONS, arithmetic, contains, described, equal, index, present

MAX_EXPR_CHARS = 2_000
"""Length of a condition: a page of text; longer ones are generated, and belong into a `switch`."""

MAX_EXPR_DEPTH = 32
"""Levels of an expression's tree; the deepest hand-written one in the corpus has 9."""

Frame = list[Any]
Eval = Callable[[Frame], Any]


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


# --- compiling ------------------------------------------------------------------------------------


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
                if (
                    in_template
                    and not ref.delimited
                    and type(value) is not dict
                    and _is_field(part)
                ):
                    hint = (
                        f"; write {_text_behind(ref, skipped + number)} where it is text "
                        f"behind the value"
                    )
                raise ExprError(f"{text}: {error}{hint}") from None
        return value

    return deep


def _is_field(part: str | int) -> bool:
    return isinstance(part, str) and _FIELD.match(part) is not None


def _text_behind(ref: Ref, length: int) -> str:
    """*ref* written so that its path ends after *length* parts, and the rest is text:
    ``${name}.json``."""
    rest = "".join(map(path_text, ref.path[length:]))
    return f"{Ref(ref.name, ref.path[:length], delimited=True)}{rest}"


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


# --- compiling an expression ----------------------------------------------------------------------


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
