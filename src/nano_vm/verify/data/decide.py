"""Tests over domains: what a condition can be, by the values that its names can hold.

A parsed condition or expression and the domains of what it reads come in; what it can be goes
out. It is evaluated with the language's own closures on each combination of values, and by kinds
where the values are not all known. An error is an error, never false.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

from ...errors import ExprError, StepFault
from ...language.closures import Eval, Frame, compile_condition, compile_expr, compile_value
from ...language.expr import (
    Arith,
    Bool,
    Call,
    Compare,
    Const,
    Index,
    Items,
    Not,
    Ref,
    Template,
    children,
    references,
    value_references,
)
from ...language.expr import Node as Expression
from ...language.flow import Names
from ...values import UNSET
from .domains import (
    A_BOOL,
    A_NUMBER,
    A_TEXT,
    ANYTHING,
    BOOL,
    FAILS,
    LIST,
    NO,
    NOTHING,
    NULL,
    NUMBER,
    OBJECT,
    TEXT,
    YES,
    Domain,
    compared,
    descend,
    join,
    joined,
    lacking,
    of_kinds,
    of_values,
    spread,
)

COMBINATIONS = 256
"""Combinations of values on which a test is evaluated: four names of four values each. Beyond,
names count by their kinds.
"""

MAX_EFFORT = 2_000_000
"""Nodes of expressions that are evaluated for the tests of one program, half a second's work: as
many as 200 tests of 40 nodes have on all of their combinations. What comes after it is not looked
at: it can be anything.
"""

ABSTRACT_EFFORT = 20
"""What a node counts for where it is evaluated by kinds."""


class Effort:
    """What may still be spent on the tests of one program."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = MAX_EFFORT

    def allows(self, reads: Reads, lists: Sequence[Sequence[Any] | None]) -> bool:
        """Whether *reads* can be evaluated on all combinations of *lists*, which is spent then."""
        combinations = prod(len(values) for values in lists if values is not None)
        weight = ABSTRACT_EFFORT if None in lists else 1
        cost = combinations * weight * reads.size
        if cost > self.left:
            return False
        self.left -= cost
        return True


Path = tuple[str | int, ...]


class Reads:
    """The names of an expression or value as places of a small frame of their own, and the closure
    over it, which *compiled* makes once a value is asked for.
    """

    def __init__(self, names: Names, compiled: Callable[[Reads], Eval]) -> None:
        self.names = names
        self.places: dict[tuple[int, Path], int] = {}
        self.texts: list[str] = []
        self.node: Expression | None = None
        self.size = 1  # nodes of the expression
        self._compiled = compiled
        self._evaluate: Eval | None = None

    @property
    def evaluate(self) -> Eval:
        """What it gives in such a frame."""
        if self._evaluate is None:
            self._evaluate = self._compiled(self)
        return self._evaluate

    def load(self, ref: Ref) -> tuple[int, Path]:
        """As `expr.Scope.load`: each slot with its path is one place."""
        slot, path = self.names.load(ref)
        place = self.places.setdefault((slot, path), len(self.places))
        if place == len(self.texts):
            self.texts.append(str(ref))
        return place, ()

    @classmethod
    def of_test(cls, node: Expression, names: Names) -> Reads | None:
        return cls._of(node, names, compile_condition)

    @classmethod
    def of_expr(cls, node: Expression, names: Names) -> Reads | None:
        return cls._of(node, names, compile_expr)

    @classmethod
    def _of(cls, node: Expression, names: Names, compiler: Callable[..., Eval]) -> Reads | None:
        reads = cls(names, lambda scope: compiler(node, scope))
        try:
            for ref in references(node):
                reads.load(ref)
        except ExprError:
            return None  # a name that means nothing: told elsewhere
        reads.node = node
        reads.size = _size(node)
        return reads

    @classmethod
    def of_value(cls, value: Any, names: Names) -> Reads | None:
        reads = cls(names, lambda scope: compile_value(value, scope))
        try:
            for ref in value_references(value):
                reads.load(ref)
        except ExprError:
            return None
        reads.size = 1 + len(reads.places)
        return reads


def _size(node: Expression) -> int:
    count, work = 0, [node]
    while work:
        count += 1
        work += children(work.pop())
    return count


@dataclass(slots=True)
class Decision:
    """What a test can be, and the values of the places it reads for each way: None where they
    are not all known.
    """

    mask: int
    yes: list[dict[Any, Any] | None]
    no: list[dict[Any, Any] | None]


def pinned(domains: list[Domain]) -> list[list[tuple[Any, Any]] | None]:
    """The values of each place that are tried one by one, with their identities; None for a place
    that is not.
    """
    lists: list[list[tuple[Any, Any]] | None] = []
    total = 1
    for domain in domains:
        if domain.values is None:
            lists.append(None)
            continue
        values = list(domain.values.items())
        if domain.absent:
            values.append((UNSET, UNSET))
        lists.append(values)
        total *= len(values)
    while total > COMBINATIONS:
        largest = max(
            (i for i, values in enumerate(lists) if values), key=lambda i: len(lists[i] or ())
        )
        total //= len(lists[largest] or ())
        lists[largest] = None
    return lists


def decide(reads: Reads, domains: list[Domain], effort: Effort) -> Decision:
    """Evaluate a test on every combination of the values that it may read; by their kinds alone, or
    not at all, where *effort* does not allow for it.
    """
    lists = pinned(domains)
    count = len(lists)
    if not effort.allows(reads, lists):
        lists = [None] * count
        if not effort.allows(reads, lists):
            return Decision(YES | NO | FAILS, [None] * count, [None] * count)
    yes: list[dict[Any, Any] | None] = [None if values is None else {} for values in lists]
    no: list[dict[Any, Any] | None] = [None if values is None else {} for values in lists]
    mask = 0
    known = None not in lists
    tester = None if known else _Abstract(reads, domains, lists)
    evaluate = reads.evaluate if known else None
    for combination in product(
        *[values if values is not None else ((None, None),) for values in lists]
    ):
        frame = [value for _, value in combination]
        if evaluate is not None:
            try:
                found = YES if evaluate(frame) else NO
            except StepFault:
                found = FAILS
        else:
            assert tester is not None
            assert reads.node is not None
            tester.frame = frame
            found = tester.test(reads.node)
        mask |= found
        for way, bit in ((yes, YES), (no, NO)):
            if found & bit:
                for place in range(count):
                    values = way[place]
                    if values is not None:
                        key, value = combination[place]
                        values[key] = value
    return Decision(mask, yes, no)


class _Abstract:
    """Evaluates an expression of which some places have one value and others a domain."""

    def __init__(self, reads: Reads, domains: list[Domain], lists: list[Any]) -> None:
        self.reads = reads
        self.domains = domains
        self.open = [values is None for values in lists]
        self.frame: Frame = []
        self.closures: dict[int, Eval | None] = {}

    def closure(self, node: Expression) -> Eval | None:
        """The compiled form of *node* where all that it reads has one value."""
        key = id(node)
        if key not in self.closures:
            whole = all(not self.open[self.place(ref)] for ref in references(node))
            self.closures[key] = compile_expr(node, self.reads) if whole else None
        return self.closures[key]

    def place(self, ref: Ref) -> int:
        return self.reads.load(ref)[0]

    def test(self, node: Expression) -> int:
        """What *node* can be as a boolean."""
        match node:
            case Bool(op, operands):
                stop, go_on = (NO, YES) if op == "and" else (YES, NO)
                result = 0
                for operand in operands:
                    found = self.test(operand)
                    result |= found & (stop | FAILS)
                    if not found & go_on:
                        return result
                return result | go_on
            case Not(operand):
                found = self.test(operand)
                return found & FAILS | (YES if found & NO else 0) | (NO if found & YES else 0)
            case Compare(first, rest):
                return self.chain(first, rest, node)
        value = self.value(node)
        result = FAILS if value.absent else 0
        if value.values is not None:
            for one in value.values.values():
                result |= YES if one is True else NO if one is False else FAILS
            return result
        return (
            result | (YES | NO if value.kinds & BOOL else 0) | (FAILS if value.kinds & ~BOOL else 0)
        )

    def chain(
        self, first: Expression, rest: tuple[tuple[str, Expression], ...], node: Compare
    ) -> int:
        concrete = self.closure(node)
        if concrete is not None:
            try:
                return YES if concrete(self.frame) else NO
            except StepFault:
                return FAILS
        result = 0
        a = self.value(first)
        for op, operand in rest:
            b = self.value(operand)
            if a.absent or b.absent:
                result |= FAILS
            found = compared(op, a, b)
            result |= found & (NO | FAILS)
            if not found & YES:
                return result
            a = b
        return result | YES

    def value(self, node: Expression) -> Domain:
        """The values that *node* can have; ``absent`` where it may be an error instead."""
        if isinstance(node, Const):
            return of_values([node.value])
        known = not isinstance(node, Ref) or not self.open[self.place(node)]
        concrete = self.closure(node) if known else None
        if concrete is not None:
            try:
                return of_values([concrete(self.frame)])
            except StepFault:
                return lacking(NOTHING)
        match node:
            case Ref():
                return self.domains[self.place(node)]
            case Template():
                return lacking(A_TEXT)
            case Compare() | Bool() | Not():
                found = self.test(node)
                return of_values(
                    [*([True] if found & YES else []), *([False] if found & NO else [])],
                    bool(found & FAILS),
                )
            case Arith(_, left, right):
                numbers = self.value(left).kinds & self.value(right).kinds & NUMBER
                return lacking(A_NUMBER if numbers else NOTHING)
            case Index(box, key):
                return self.item(self.value(box), self.value(key))
            case Items(items):
                inside = [self.value(item) for item in items]
                return Domain(
                    LIST,
                    items=lacking(joined(inside), False),
                    absent=any(part.absent for part in inside),
                )
            case Call(name, args):
                return called(name, [self.value(argument) for argument in args])

    @staticmethod
    def item(box: Domain, key: Domain) -> Domain:
        if key.values is None:
            return lacking(ANYTHING)
        found = NOTHING
        for part in key.values.values():
            if type(part) is str or type(part) is int:
                found = join(found, descend(box, (part,)))
        return lacking(found)


def called(name: str, args: list[Domain]) -> Domain:
    """The values that a function or method can give for arguments of these domains; ``absent``,
    since it may fail.
    """
    first = args[0]
    if name == "default":
        return _either(first, args[1])
    takes = _TAKES.get(name, TEXT)
    return lacking(_gives(name, args) if first.kinds & takes else NOTHING)


_TAKES = {
    "len": TEXT | LIST | OBJECT,
    "int": NUMBER | TEXT,
    "float": NUMBER | TEXT,
    "str": ~0,
    "append": LIST,
    "concat": TEXT | LIST,
    "join": LIST,
    "get": OBJECT | LIST,
    "round": NUMBER,
    "abs": NUMBER,
    "sum": LIST,
    "min": ~0,
    "max": ~0,
    "sorted": LIST,
    "keys": OBJECT,
}
"""Kinds of the first argument that are no error; of what is not listed, a string."""

_GIVES = {
    **dict.fromkeys(("len", "int", "float", "round", "abs", "sum"), A_NUMBER),
    **dict.fromkeys(("startswith", "endswith"), A_BOOL),
    **dict.fromkeys(("split", "keys"), Domain(LIST, items=A_TEXT)),
    "json": ANYTHING,
}


def _gives(name: str, args: list[Domain]) -> Domain:
    first = args[0]
    match name:
        case "append":
            return Domain(LIST, items=_join_items(spread(first).items, lacking(args[1], False)))
        case "concat":
            return _concatenated(first, args[1])
        case "get":
            return join(lacking(_Abstract.item(first, args[1]), False), args[2])
        case "min" | "max":
            kinds = joined(args).kinds if len(args) > 1 else (spread(first).items or ANYTHING).kinds
            return of_kinds(kinds & (NUMBER | TEXT))
        case "sorted":
            return Domain(LIST, items=spread(first).items)
    return _GIVES.get(name, A_TEXT)


def _concatenated(a: Domain, b: Domain) -> Domain:
    found = A_TEXT if a.kinds & b.kinds & TEXT else NOTHING
    if a.kinds & b.kinds & LIST:
        found = join(found, Domain(LIST, items=_join_items(spread(a).items, spread(b).items)))
    return found


def _join_items(a: Domain | None, b: Domain | None) -> Domain | None:
    """The items of a list that has those of both; None where they may be anything."""
    return join(a, b) if a is not None and b is not None else None


def _either(value: Domain, other: Domain) -> Domain:
    """What `default` gives: what is there and not null, else the other."""
    if value.values is not None:
        there = of_values([one for one in value.values.values() if one is not None])
    else:
        there = Domain(value.kinds & ~NULL, None, value.fields, value.closed, value.items)
    if not value.absent and not value.kinds & NULL:
        return there
    return lacking(join(there, lacking(other, False)), value.absent or other.absent)


def result_of(reads: Reads, domains: list[Domain], effort: Effort) -> Domain:
    """The values of an expression, as far as *effort* allows."""
    lists = pinned(domains)
    if not effort.allows(reads, lists):
        return ANYTHING
    if None not in lists:
        return lacking(results_of(reads, lists), False)
    assert reads.node is not None
    tester = _Abstract(reads, domains, lists)
    found = NOTHING
    for combination in product(
        *[values if values is not None else ((None, None),) for values in lists]
    ):
        tester.frame = [value for _, value in combination]
        found = join(found, tester.value(reads.node))
    return lacking(found, False)


def results_of(reads: Reads, lists: list[Any]) -> Domain:
    values, absent = [], False
    for combination in product(*lists):
        try:
            values.append(reads.evaluate([value for _, value in combination]))
        except StepFault:
            absent = True
    return of_values(values, absent)
