"""Branches: which ways out of conditions, switches and loops no run can take, by the values that names can hold.

A `Flow` comes in; Diagnostics and infeasible edges go out. Forward data flow over the graph along the edges that are feasible so
far, so that what stands behind a test that never holds weakens nothing. What a name holds anywhere is joined once over all
steps that write it; a node's own state holds only what is known better there: since a test was passed, or since one of several
writers wrote. Tests are evaluated with the language's own closures on each combination of the values that they read, and
by kinds where values are not all known. An error is an error, never false.
Source: Wegman, Zadeck, "Constant Propagation with Conditional Branches", TOPLAS 13(2), 1991.

Rule 1: an edge is infeasible only if no run takes it, whatever tools, models, people and inputs give. So return annotations
of tools, to which nobody holds them, count for advice and not for `infeasible_edges`.
Rule 2: ways out of a failure (``catch``, ``skip``, ``error``) are always feasible: any step may find the budget used up.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import product
from typing import Any

from ..errors import Diagnostic, ExprError, Loc, Severity, StepFault
from ..expr import (
    Arith,
    Bool,
    Call,
    Compare,
    Const,
    Eval,
    Frame,
    Index,
    Items,
    Not,
    Ref,
    Template,
    children,
    compile_condition,
    compile_expr,
    compile_value,
    equal,
    number_in,
    parse_expr,
    parse_template,
    references,
    value_references,
)
from ..expr import Node as Expression
from ..flow import Flow, FrameGraph, Names, Node
from ..program import (
    ApprovalStep,
    CallStep,
    ConditionStep,
    LLMStep,
    LoopStep,
    MapStep,
    ParallelStep,
    SetStep,
    Step,
    StepType,
    SwitchStep,
    ToolStep,
    walk,
)
from ..tools import ToolContract
from ..values import UNSET, canonical
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
    THE_NULL,
    YES,
    Domain,
    compared,
    descend,
    described,
    join,
    joined,
    lacking,
    of_returns,
    of_schema,
    of_values,
    same,
    shown_value,
    spread,
)
from .names import Assigned, assigned

COMBINATIONS = 256
"""Combinations of values on which a test is evaluated: four names of four values each. Beyond, names count by their kinds."""

MAX_KNOWN = 64
"""Names of which a node may know more than what holds everywhere; the oldest are forgotten first."""

MAX_VISITS = 16
"""Visits of a node after which what still changes there counts by its kinds, so that a loop that builds ever larger values ends."""

MAX_CHAIN = 40
"""Names that are followed from one to the next for what they hold everywhere; what lies further is anything."""

State = dict[int, Domain]  # by slot: what is known better than everywhere

_Path = tuple[str | int, ...]


# --- what a test or value reads ------------------------------------------------------------------------------------


class _Reads:
    """The names of an expression or value as places of a small frame of their own, and the closure over it."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self.places: dict[tuple[int, _Path], int] = {}
        self.texts: list[str] = []
        self.node: Expression | None = None
        self.evaluate: Eval = lambda frame: None

    def load(self, ref: Ref, in_text: bool) -> tuple[int, _Path, str]:
        """As `expr.Scope.load`: each slot with its path is one place."""
        slot, path, rest = self.names.load(ref, in_text)
        place = self.places.setdefault((slot, path), len(self.places))
        if place == len(self.texts):
            self.texts.append(str(Ref(ref.name)) if rest else str(ref))
        return place, (), rest

    @classmethod
    def of_test(cls, node: Expression, names: Names) -> _Reads | None:
        return cls._of(node, names, compile_condition)

    @classmethod
    def of_expr(cls, node: Expression, names: Names) -> _Reads | None:
        return cls._of(node, names, compile_expr)

    @classmethod
    def _of(cls, node: Expression, names: Names, compiler: Callable[..., Eval]) -> _Reads | None:
        reads = cls(names)
        try:
            reads.evaluate = compiler(node, reads)
        except ExprError:
            return None  # a name that means nothing: told elsewhere
        reads.node = node
        return reads

    @classmethod
    def of_value(cls, value: Any, names: Names) -> _Reads | None:
        reads = cls(names)
        try:
            reads.evaluate = compile_value(value, reads)
        except ExprError:
            return None
        return reads


@dataclass(slots=True)
class Decision:
    """What a test can come to, and the values of the places it reads for each way: None where they are not all known."""

    mask: int
    yes: list[dict[Any, Any] | None]
    no: list[dict[Any, Any] | None]


def _pinned(domains: list[Domain]) -> list[list[tuple[Any, Any]] | None]:
    """The values of each place that are tried one by one, with their identities; None for a place that is not."""
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
        largest = max((i for i, values in enumerate(lists) if values), key=lambda i: len(lists[i] or ()))
        total //= len(lists[largest] or ())
        lists[largest] = None
    return lists


def decide(reads: _Reads, domains: list[Domain]) -> Decision:
    """Evaluate a test on every combination of the values that it may read."""
    lists = _pinned(domains)
    count = len(lists)
    yes: list[dict[Any, Any] | None] = [None if values is None else {} for values in lists]
    no: list[dict[Any, Any] | None] = [None if values is None else {} for values in lists]
    mask = 0
    known = None not in lists
    evaluate = reads.evaluate
    tester = None if known else _Abstract(reads, domains, lists)
    for combination in product(*[values if values is not None else ((None, None),) for values in lists]):
        frame = [value for _, value in combination]
        if tester is not None:
            assert reads.node is not None
            tester.frame = frame
            found = tester.test(reads.node)
        else:
            try:
                found = YES if evaluate(frame) else NO
            except StepFault:
                found = FAILS
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

    def __init__(self, reads: _Reads, domains: list[Domain], lists: list[Any]) -> None:
        self.reads = reads
        self.domains = domains
        self.open = [values is None for values in lists]
        self.frame: Frame = []
        self.closures: dict[int, Eval | None] = {}

    def closure(self, node: Expression) -> Eval | None:
        """The compiled form of *node* where all that it reads has one value."""
        key = id(node)
        if key not in self.closures:
            whole = all(not self.open[self.place(ref, text)] for ref, text in references(node))
            self.closures[key] = compile_expr(node, self.reads) if whole else None
        return self.closures[key]

    def place(self, ref: Ref, in_text: bool) -> int:
        return self.reads.load(ref, in_text)[0]

    def test(self, node: Expression) -> int:
        """What *node* can come to as a boolean."""
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
        return result | (YES | NO if value.kinds & BOOL else 0) | (FAILS if value.kinds & ~BOOL else 0)

    def chain(self, first: Expression, rest: tuple[tuple[str, Expression], ...], node: Compare) -> int:
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
        concrete = self.closure(node)
        if concrete is not None:
            try:
                return of_values([concrete(self.frame)])
            except StepFault:
                return lacking(NOTHING)
        match node:
            case Ref():
                return self.domains[self.place(node, False)]
            case Template():
                return lacking(A_TEXT)
            case Compare() | Bool() | Not():
                found = self.test(node)
                return of_values(
                    [*([True] if found & YES else []), *([False] if found & NO else [])], bool(found & FAILS)
                )
            case Arith(_, left, right):
                numbers = self.value(left).kinds & self.value(right).kinds & NUMBER
                return lacking(A_NUMBER if numbers else NOTHING)
            case Index(box, key):
                return self.item(self.value(box), self.value(key))
            case Items(items):
                inside = [self.value(item) for item in items]
                return Domain(LIST, items=lacking(joined(inside), False), absent=any(part.absent for part in inside))
            case Call(name, args):
                return self.called(name, self.value(args[0]))

    @staticmethod
    def item(box: Domain, key: Domain) -> Domain:
        if key.values is None:
            return lacking(ANYTHING)
        found = NOTHING
        for part in key.values.values():
            if type(part) is str or type(part) is int:
                found = join(found, descend(box, (part,)))
        return lacking(found)

    @staticmethod
    def called(name: str, argument: Domain) -> Domain:
        takes, gives = {
            "len": (TEXT | LIST | OBJECT, A_NUMBER),
            "int": (NUMBER | TEXT, A_NUMBER),
            "float": (NUMBER | TEXT, A_NUMBER),
            "startswith": (TEXT, A_BOOL),
            "endswith": (TEXT, A_BOOL),
            "str": (~0, A_TEXT),
        }.get(name, (TEXT, A_TEXT))
        return lacking(gives if argument.kinds & takes else NOTHING)


# --- what a name holds anywhere ----------------------------------------------------------------------------------


@dataclass(slots=True)
class _Facts:
    """What is asked again and again of the names of one program."""

    names: Names
    frame: FrameGraph
    writers: dict[int, list[tuple[Step, str]]] = field(
        default_factory=dict
    )  # by slot: the step, and the name it writes
    tracked: dict[str, tuple[int, ...]] = field(
        default_factory=dict
    )  # by step: slots it writes that some test may read
    shared: frozenset[str] = frozenset()  # steps that write such a slot which others write too
    watched: frozenset[int] = frozenset()  # slots that some test may read
    tests: bool = False  # whether there is any test
    key_names: dict[int, str] = field(default_factory=dict)  # by slot
    unsure: frozenset[int] = frozenset()  # slots that undeclared inputs may hold
    given: Domain = ANYTHING  # the declared inputs
    bases: dict[int, Domain] = field(default_factory=dict)
    initials: dict[int, Domain] = field(default_factory=dict)
    outputs: dict[str, Domain] = field(default_factory=dict)
    reads: dict[tuple[str, str], _Reads | None] = field(default_factory=dict)


class Domains:
    """What each name can hold at each node. *contracts* add what tools say that they return."""

    def __init__(
        self, flow: Flow, contracts: Mapping[str, ToolContract] | None = None, solved: Assigned | None = None
    ) -> None:
        self.flow = flow
        self.contracts = contracts or {}
        self.solved = solved if solved is not None else assigned(flow)
        self.facts: dict[int, _Facts] = {}
        for frame in flow.frames:
            if frame.kind in ("run", "call"):
                self.facts[id(frame.names)] = _facts(frame)
        self.musts: dict[tuple[int, str], int] | None = None
        self.calls: dict[tuple[int, str], list[FrameGraph]] | None = None
        self.busy: set[tuple[int, str, Any]] = set()
        self.returned: dict[str, Domain] = {}
        self.states: list[State | None] = [None] * len(flow.nodes)
        self.barred: dict[int, frozenset[str]] = {}  # by node: labels that no run takes
        self.masks: dict[int, int] = {}  # by node: what its test can come to
        self._solve()

    # --- at a node ---

    def at(self, node: Node, slot: int) -> Domain:
        """What *slot* can hold when *node* is reached; nothing, where it is not reached."""
        state = self.states[node.index]
        return NOTHING if state is None else self._lookup(node, state, slot)

    def reached(self, node: Node) -> bool:
        """Whether a feasible path leads to *node*."""
        return self.states[node.index] is not None

    def _lookup(self, node: Node, state: State, slot: int) -> Domain:
        found = state.get(slot)
        if found is not None:
            return found
        facts = self.facts[id(node.frame.names)]
        must = self.solved.states[node.index]
        return self._anywhere(facts, slot, must[0] if must is not None else 0)

    def _anywhere(self, facts: _Facts, slot: int, must: int) -> Domain:
        """What *slot* holds where all that is known is which names are surely written."""
        base = self._base(facts, slot)
        if must >> slot & 1:
            return base
        # not written yet, a name may come with the inputs
        return lacking(ANYTHING if slot in facts.unsure else base)

    # --- everywhere ---

    def _base(self, facts: _Facts, slot: int) -> Domain:
        """The join of all that is ever written into *slot*."""
        found = facts.bases.get(slot)
        if found is not None:
            return found
        key = (id(facts), "slot", slot)
        if key in self.busy or len(self.busy) > MAX_CHAIN:
            return ANYTHING
        self.busy.add(key)
        found = self._initial(facts, slot)
        for step, name in facts.writers.get(slot, ()):
            found = join(found, self._written(facts, step, name))
            if name == "" and step.has_default:
                found = join(found, of_values([step.default]))
        self.busy.discard(key)
        found = lacking(found, False)
        facts.bases[slot] = found
        return found

    def _initial(self, facts: _Facts, slot: int) -> Domain:
        """What the inputs of a run or the arguments of a call give *slot*."""
        found = facts.initials.get(slot)
        if found is None:
            name = facts.key_names.get(slot)
            found = facts.initials[slot] = self._initial_of(facts, name) if name is not None else NOTHING
        return found

    def _initial_of(self, facts: _Facts, name: str) -> Domain:
        names, frame = facts.names, facts.frame
        schema = names.program.inputs or {}
        part = schema.get("properties", {}).get(name)
        found = NOTHING
        if frame.kind == "call":
            owner = frame.owner
            assert owner is not None
            assert isinstance(owner.step, CallStep)
            if name in owner.step.arguments:
                around = self.facts[id(owner.frame.names)]
                return self._value(around, owner.step, owner.step.arguments[name], f"with {name}")
        elif part is not None:
            found = (facts.given.fields or {}).get(name, ANYTHING)
        elif name in schema.get("required", []) or name in names.needed:
            found = ANYTHING
        if isinstance(part, dict) and "default" in part:
            found = join(found, of_values([part["default"]]))
        return found

    def _written(self, facts: _Facts, step: Step, name: str) -> Domain:
        """What *step* writes: its output where *name* is empty, else that name."""
        if name and isinstance(step, SetStep) and name in step.values:
            return self._set_value(facts, step, name)
        if name and isinstance(step, MapStep):
            over = self._value(facts, step, step.over, "over")
            return _items(over)
        return self._output(facts, step)

    def _set_value(self, facts: _Facts, step: SetStep, name: str) -> Domain:
        value = step.values[name]
        if isinstance(value, dict) and "expr" in value:
            return self._expr(facts, step, name)
        return self._value(facts, step, value, f"values {name}")

    def _expr(self, facts: _Facts, step: SetStep, name: str) -> Domain:
        reads = self._set_reads(facts, step, name)
        if reads is None:
            return ANYTHING
        must = self._must(facts, step)
        return _result(reads, [descend(self._anywhere(facts, s, must), path) for s, path in reads.places])

    @staticmethod
    def _set_reads(facts: _Facts, step: SetStep, name: str) -> _Reads | None:
        key = (step.id, f"values {name}")
        if key not in facts.reads:
            facts.reads[key] = _Reads.of_expr(parse_expr(step.values[name]["expr"]), facts.names)
        return facts.reads[key]

    def _value(self, facts: _Facts, step: Step, value: Any, what: str) -> Domain:
        """The values of a literal with templates inside, as *step* reads them."""
        key = (id(facts), f"{step.id} {what}", None)
        if key in self.busy or len(self.busy) > MAX_CHAIN:
            return ANYTHING
        self.busy.add(key)
        must = self._must(facts, step)
        found = self._template(facts.names, value, lambda slot: self._anywhere(facts, slot, must))
        self.busy.discard(key)
        return found

    def _template(self, names: Names, value: Any, lookup: Callable[[int], Domain]) -> Domain:
        kind = type(value)
        if kind is str:
            if "$" not in value:
                return of_values([value])
            template = parse_template(value)
            first = template.parts[0]
            if template.typed and isinstance(first, Ref):
                try:
                    slot, path, _ = names.load(first, False)
                except ExprError:
                    return ANYTHING
                return lacking(descend(lookup(slot), path), False)
            if not any(isinstance(part, Ref) for part in template.parts):
                return of_values(["".join(part for part in template.parts if isinstance(part, str))])
            return A_TEXT
        if kind is list or kind is dict:
            if not any(True for _ in value_references(value)) and "$" not in repr(value):
                return of_values([value])
            if kind is list:
                return Domain(LIST, items=joined(self._template(names, item, lookup) for item in value))
            return Domain(OBJECT, None, {k: self._template(names, item, lookup) for k, item in value.items()}, True)
        return of_values([value])

    def _must(self, facts: _Facts, step: Step) -> int:
        """The slots that are surely written whenever *step* runs, as bits."""
        if self.musts is None:
            self.musts = {}
            for node in self.flow.nodes:
                state = self.solved.states[node.index]
                if node.kind == "step" and state is not None:
                    key = (id(node.frame.names), node.step.id)
                    before = self.musts.get(key)
                    self.musts[key] = state[0] if before is None else before & state[0]
        return self.musts.get((id(facts.names), step.id), 0)

    def _output(self, facts: _Facts, step: Step) -> Domain:
        """What *step* gives when it succeeds."""
        found = facts.outputs.get(step.id)
        if found is not None:
            return found
        key = (id(facts), "output", step.id)
        if key in self.busy or len(self.busy) > MAX_CHAIN:
            return ANYTHING
        self.busy.add(key)
        found = facts.outputs[step.id] = self._output_of(facts, step)
        self.busy.discard(key)
        return found

    def _output_of(self, facts: _Facts, step: Step) -> Domain:
        match step:
            case LLMStep():
                if step.allowed_outputs is not None:
                    found = of_values(step.allowed_outputs)
                else:
                    found = of_schema(step.output_schema) if step.output_schema is not None else A_TEXT
                return join(found, of_values([step.on_invalid])) if "on_invalid" in step.model_fields_set else found
            case ToolStep():
                return self._returned(step)
            case ConditionStep():
                return join(of_values(_labels(step).values()), self._blocks(facts, step))
            case SwitchStep():
                return join(of_values(_labels(step).values()), self._blocks(facts, step))
            case LoopStep():
                return self._block(facts, step.steps)
            case SetStep():
                return Domain(OBJECT, None, {name: self._set_value(facts, step, name) for name in step.values}, True)
            case MapStep():
                return Domain(LIST, items=self._block(facts, step.steps))
            case ParallelStep():
                branches = {name: self._block(facts, steps) for name, steps, _ in step.branches()}
                return Domain(OBJECT, None, branches, True)
            case ApprovalStep():
                decided = Domain(OBJECT, None, {"approved": A_BOOL, "reason": ANYTHING}, True)
                return join(decided, self._blocks(facts, step))
            case CallStep():
                return joined(self._called(frame) for frame in self._call_frames(facts, step))
        return ANYTHING

    def _returned(self, step: ToolStep) -> Domain:
        contract = self.contracts.get(step.tool)
        if contract is None or step.reconcile is not None:
            return ANYTHING
        if step.tool not in self.returned:
            self.returned[step.tool] = of_returns(contract.function)
        return self.returned[step.tool]

    def _call_frames(self, facts: _Facts, step: CallStep) -> list[FrameGraph]:
        """The frames of the program that *step* calls: one for each state of the step."""
        if self.calls is None:
            self.calls = {}
            for frame in self.flow.frames:
                if frame.kind == "call" and frame.owner is not None:
                    key = (id(frame.owner.frame.names), frame.owner.step.id)
                    self.calls.setdefault(key, []).append(frame)
        return self.calls.get((id(facts.names), step.id), [])

    def _called(self, frame: FrameGraph) -> Domain:
        program, facts = frame.names.program, self.facts[id(frame.names)]
        if program.output is None:
            return self._block(facts, program.steps)
        state = self.solved.states[frame.end]
        must = state[0] if state is not None else 0
        return self._template(frame.names, program.output, lambda slot: self._anywhere(facts, slot, must))

    def _blocks(self, facts: _Facts, step: Step) -> Domain:
        """What the blocks of a step that branches leave as its output."""
        if isinstance(step, (ConditionStep, ApprovalStep)):
            targets = [step.then, step.otherwise]
            if any(isinstance(target, list) for target in targets):
                return joined(
                    self._block(facts, target) if isinstance(target, list) else THE_NULL for target in targets
                )
            return NOTHING
        assert isinstance(step, SwitchStep)
        lists = [target for target in [*step.cases.values(), step.default] if isinstance(target, list)]
        return joined(self._block(facts, target) for target in lists)

    def _block(self, facts: _Facts, steps: list[Any]) -> Domain:
        """What the last step of a block leaves; null where none did."""
        if steps and all(_straight(step) for step in steps):
            return self._output(facts, steps[-1])
        found = THE_NULL
        for step in steps:
            for inner, _ in walk(step, ()):
                found = join(found, self._output(facts, inner))
                if inner.has_default:
                    found = join(found, of_values([inner.default]))
                if found.values is None and found.kinds == ANYTHING.kinds and found.fields is None:
                    return ANYTHING
        return found

    # --- forward ---

    def _solve(self) -> None:
        flow, order = self.flow, self.solved.order
        entry = flow.frames[0].entry
        states, nodes = self.states, flow.nodes
        states[entry] = {}
        if not any(facts.tests or facts.shared for facts in self.facts.values()):
            for index, state in enumerate(self.solved.states):  # nothing is decided by a value
                states[index] = {} if state is not None else None
            return
        visits = [0] * len(nodes)
        heap = [(order[entry], entry)]
        queued = bytearray(len(nodes))
        queued[entry] = 1
        push, pop = heapq.heappush, heapq.heappop
        shared = {key: facts.shared for key, facts in self.facts.items()}
        nothing: State = {}
        for frame in flow.frames:
            states[frame.fail] = nothing  # any step may lead there, and nothing is read there
        while heap:
            index = pop(heap)[1]
            queued[index] = 0
            visits[index] += 1
            node, known = nodes[index], states[index]
            if not known and node.kind != "test" and node.step.type not in _DECIDES:
                if node.step.id not in shared[id(node.frame.names)]:  # most: what was not known is not known behind it
                    for edge in node.edges:
                        target = edge.target
                        if states[target] is None or states[target]:
                            states[target] = nothing
                            if not queued[target]:
                                queued[target] = 1
                                push(heap, (order[target], target))
                    continue
            for target, after in self._after(node, known or nothing):
                old = states[target]
                if old is after:
                    continue
                if old is None:
                    states[target] = after
                elif not old:
                    continue  # nothing is known there, and never will be
                else:
                    new = _merged(old, after, visits[target] > MAX_VISITS)
                    if new is old:
                        continue
                    states[target] = self._worth(nodes[target], new)
                if not queued[target]:
                    queued[target] = 1
                    push(heap, (order[target], target))

    def _worth(self, node: Node, state: State) -> State:
        """*state* without what holds everywhere, too: after two ways have met, most of it."""
        must = self.solved.states[node.index]
        bases = self.facts[id(node.frame.names)].bases
        if must is None:
            return state
        return {
            slot: domain
            for slot, domain in state.items()
            if slot not in bases or not must[0] >> slot & 1 or not same(domain, bases[slot])
        }

    def _after(self, node: Node, state: State) -> Iterator[tuple[int, State]]:
        """What is known behind each feasible edge of *node*."""
        kind = node.kind
        if kind == "end" or kind == "fail":
            return
        step = node.step
        facts = self.facts[id(node.frame.names)]
        own = facts.tracked.get(step.id, ())
        ways: dict[str, State | None] | None = None
        if kind == "step":
            if isinstance(step, LoopStep):
                for edge in node.edges:
                    yield edge.target, state
                return
            if isinstance(step, (ConditionStep, SwitchStep)):
                ways = self._ways(node, state)
        elif kind == "test":
            ways = self._ways(node, state)
        written = state
        if own and ways is None:
            written = self._writing(facts, node, state, own)
        cleared = state
        if state and own:
            cleared = {slot: domain for slot, domain in state.items() if slot not in own}
        for edge in node.edges:
            label = edge.label
            if label == "error":
                continue
            if label == "skip" or label == "catch":
                after = cleared
                if state and edge.by >= 0 and edge.by != node.index:
                    outer = facts.tracked.get(self.flow.nodes[edge.by].step.id, ())
                    after = {slot: domain for slot, domain in cleared.items() if slot not in outer}
                yield edge.target, after
            elif label == "fork":
                child = self.flow.nodes[edge.target].frame
                if child.kind == "call":
                    yield edge.target, {}
                elif isinstance(step, MapStep):
                    item = child.names.keys[step.item_name]
                    inner = {slot: domain for slot, domain in state.items() if slot != item}
                    if len(facts.writers.get(item, ())) > 1:
                        inner[item] = self._written(facts, step, step.item_name)
                    yield edge.target, inner
                else:
                    yield edge.target, state
            elif ways is not None and label in ways:
                way = ways[label]
                if way is not None:
                    yield edge.target, way
            else:
                yield edge.target, written

    def _writing(self, facts: _Facts, node: Node, state: State, own: tuple[int, ...]) -> State:
        """*state* after *node* has written its slots *own*."""
        step = node.step
        result = {slot: domain for slot, domain in state.items() if slot not in own} if state else state
        better: State = {}
        for slot in own:
            writers = facts.writers.get(slot, ())
            if isinstance(step, SetStep):
                name = facts.key_names.get(slot, "")
                several = len(writers) > 1 or self._given(facts, slot)
                if name in step.values and name != step.output_key and (several or state):
                    found = lacking(self._set_value_at(facts, node, state, step, name), False)
                    if not same(found, self._base(facts, slot)):
                        better[slot] = found
            elif len(writers) > 1 or self._given(facts, slot):
                if node.kind == "step":
                    better[slot] = lacking(self._output(facts, step), False)
        return _capped({**result, **better}) if better else result

    def _given(self, facts: _Facts, slot: int) -> bool:
        """Whether inputs or arguments may write *slot* too."""
        return bool(self._initial(facts, slot).kinds)

    def _set_value_at(self, facts: _Facts, node: Node, state: State, step: SetStep, name: str) -> Domain:
        value = step.values[name]
        if isinstance(value, dict) and "expr" in value:
            reads = self._set_reads(facts, step, name)
            if reads is None:
                return ANYTHING
            return _result(reads, [descend(self._lookup(node, state, s), path) for s, path in reads.places])
        return self._template(facts.names, value, lambda slot: self._lookup(node, state, slot))

    # --- ways out of a test ---

    def test_of(self, node: Node) -> _Reads | None:
        """What the condition or `until` of *node* reads."""
        facts, step = self.facts[id(node.frame.names)], node.step
        key = (step.id, "test")
        if key not in facts.reads:
            text = step.condition if isinstance(step, ConditionStep) else getattr(step, "until", None)
            facts.reads[key] = _Reads.of_test(parse_expr(text), facts.names) if text is not None else None
        return facts.reads[key]

    def switched(self, node: Node, state: State | None = None) -> tuple[_Reads, list[Domain]] | None:
        """What the `on` of a switch reads, and the domains there."""
        facts, step = self.facts[id(node.frame.names)], node.step
        assert isinstance(step, SwitchStep)
        key = (step.id, "on")
        if key not in facts.reads:
            facts.reads[key] = _Reads.of_value(step.on, facts.names)
        reads = facts.reads[key]
        return None if reads is None else (reads, self.read_at(node, reads, state))

    def read_at(self, node: Node, reads: _Reads, state: State | None = None) -> list[Domain]:
        """The domains of what *reads* reads at *node*."""
        known = state if state is not None else self.states[node.index] or {}
        return [descend(self._lookup(node, known, slot), path) for slot, path in reads.places]

    def on_domain(self, node: Node, state: State | None = None) -> Domain:
        """What a switch compares with its cases."""
        found = self.switched(node, state)
        if found is None:
            return lacking(ANYTHING)
        reads, domains = found
        lists = _pinned(domains)
        if None in lists:
            step = node.step
            assert isinstance(step, SwitchStep)
            template = parse_template(step.on) if type(step.on) is str else None
            if template is not None and template.typed:
                return domains[0]
            return A_TEXT if template is not None else ANYTHING
        return _results(reads, lists)

    def _ways(self, node: Node, state: State) -> dict[str, State | None]:
        """What is known behind each labelled way out of a condition, switch or loop; None behind those that no run takes."""
        step, facts = node.step, self.facts[id(node.frame.names)]
        own = facts.tracked.get(step.id, ())
        rest = {slot: domain for slot, domain in state.items() if slot not in own} if state and own else state
        if isinstance(step, SwitchStep):
            ways = self._cases(node, step, state, rest)
        else:
            ways = self._two(node, state, rest)
        if own and not isinstance(step, LoopStep):
            labels = _labels(step)
            for label, way in ways.items():
                if way is not None:
                    several = {slot: of_values([labels[label]]) for slot in own}
                    ways[label] = _capped({**way, **several})
        self.barred[node.index] = frozenset(label for label, way in ways.items() if way is None)
        return ways

    def _two(self, node: Node, state: State, rest: State) -> dict[str, State | None]:
        step = node.step
        reads = self.test_of(node)
        yes: State | None = rest
        no: State | None = rest
        if reads is not None:
            domains = self.read_at(node, reads, state)
            decision = decide(reads, domains)
            self.masks[node.index] = decision.mask
            yes = self._refined(node, state, rest, reads, decision.yes, domains) if decision.mask & YES else None
            no = self._refined(node, state, rest, reads, decision.no, domains) if decision.mask & NO else None
            if yes is not None and reads.node is not None and None in decision.yes:
                yes = self._told(node, yes, reads, reads.node)
        if isinstance(step, LoopStep):
            if step.until is None:
                yes = None
            return {"until": yes, "again": no if step.max_iterations > 1 else None, "exhausted": no}
        return {"then": yes, "otherwise": no}

    def _refined(
        self,
        node: Node,
        state: State,
        rest: State,
        reads: _Reads,
        values: list[dict[Any, Any] | None],
        domains: list[Domain],
    ) -> State:
        """*rest* with what is known of the places that a test read, since it came out this way."""
        facts = self.facts[id(node.frame.names)]
        own = facts.tracked.get(node.step.id, ())
        better: State = {}
        for (slot, path), found, domain in zip(reads.places, values, domains, strict=True):
            if found is None or slot in own or len(found) == len(domain.values or ()) + domain.absent:
                continue
            absent = UNSET in found
            narrowed = of_values([value for value in found.values() if value is not UNSET], absent)
            if not path:
                better[slot] = narrowed
            elif not absent:
                whole = better.get(slot) or self._lookup(node, state, slot)
                changed = _with_part(whole, path, narrowed)
                if changed is not None:
                    better[slot] = changed
        return _capped({**rest, **better}) if better else rest

    def _told(self, node: Node, state: State, reads: _Reads, test: Expression) -> State:
        """*state* with what ``$name == 'literal'`` says of names whose values are not all known, alone or under `and`."""
        parts = test.operands if isinstance(test, Bool) and test.op == "and" else (test,)
        own = self.facts[id(node.frame.names)].tracked.get(node.step.id, ())
        better: State = {}
        for part in parts:
            match part:
                case Compare(Ref() as ref, (("==", Const(value)),)):
                    literals = [value]
                case Compare(Ref() as ref, (("in", Const(value)),)) if type(value) is list:
                    literals = value
                case _:
                    continue
            slot, path = list(reads.places)[reads.load(ref, False)[0]]
            if path or slot in own or slot in better or not literals or not all(map(_equals_itself_only, literals)):
                continue
            if self._lookup(node, state, slot).values is None:
                better[slot] = of_values(literals)
        return _capped({**state, **better}) if better else state

    def _cases(self, node: Node, step: SwitchStep, state: State, rest: State) -> dict[str, State | None]:
        domain = self.on_domain(node, state)
        found = taken(step, domain)
        ways: dict[str, State | None] = {}
        typed = parse_template(step.on) if type(step.on) is str and "$" in step.on else None
        place: int | None = None
        if typed is not None and typed.typed and isinstance(typed.parts[0], Ref):
            try:
                slot, path, _ = node.frame.names.load(typed.parts[0], False)
                place = slot if not path else None
            except ExprError:
                pass
        if place in self.facts[id(node.frame.names)].tracked.get(step.id, ()):
            place = None
        for label, values in found.items():
            if values is None:
                ways[label] = rest
            elif not values:
                ways[label] = None
            else:
                ways[label] = _capped({**rest, place: of_values(values)}) if place is not None else rest
        return ways


def taken(step: SwitchStep, domain: Domain) -> dict[str, list[Any] | None]:
    """By label of a switch the values of *domain* that take it; None where they are not all known, empty where there are none."""
    result: dict[str, list[Any] | None] = {f"case:{case}": [] for case in step.cases}
    if step.default is not None:
        result["default"] = []
    if domain.values is not None:
        for value in domain.values.values():
            label = case_of(step, value)
            values = result.get(label) if label is not None else None
            if values is not None:
                values.append(value)
        return result
    if step.default is not None:
        result["default"] = None if domain.kinds & ~(LIST | OBJECT) else []
    for case in step.cases:
        other = case in ("true", "false", "null") or number_in(case) is not None
        if domain.kinds & TEXT:
            result[f"case:{case}"] = None if other else [case]
        elif domain.kinds & (BOOL if case in ("true", "false") else NULL if case == "null" else NUMBER if other else 0):
            result[f"case:{case}"] = None
    return result


def case_of(step: SwitchStep, value: Any) -> str | None:
    """The label that a switch takes for *value*; None where it fails."""
    if type(value) in (list, dict):
        return None
    text = value if type(value) is str else canonical(value).decode()
    for case in step.cases:
        if case == text or (type(value) in (int, float) and equal(case, value)):
            return f"case:{case}"
    return "default" if step.default is not None else None


# --- parts -----------------------------------------------------------------------------------------------------------


_DECIDES = frozenset({StepType.CONDITION, StepType.SWITCH, StepType.MAP})  # or writes for its items alone
_TESTS = frozenset({StepType.CONDITION, StepType.SWITCH, StepType.LOOP})


def _facts(frame: FrameGraph) -> _Facts:
    names = frame.names
    facts = _Facts(names, frame)
    watched: set[int] = set()

    def watch(step_reads: list[tuple[Ref, bool, Loc]]) -> None:
        for ref, text, _ in step_reads:
            try:
                watched.add(names.load(ref, text)[0])
            except ExprError:
                continue  # told elsewhere

    kinds = {step.id: step.type for step, _ in names.steps}
    tests = [step_id for step_id, kind in kinds.items() if kind in _TESTS]
    for step_id in tests:
        watch(names.reads[step_id])
    for step_id, step_reads in names.reads.items():
        if tests and kinds[step_id] is StepType.SET:
            watch(step_reads)
        elif kinds[step_id] not in _TESTS:
            watch([read for read in step_reads if read[0].path and read[0].path != ("output",)])  # for their fields
    writers, keys, outputs = facts.writers, names.keys, names.outputs
    for step, _ in names.steps:
        slots = [outputs[step.id]]
        if step.output_key is not None:
            slots.append(keys[step.output_key])
        for slot in slots:
            writers.setdefault(slot, []).append((step, ""))
        if isinstance(step, SetStep):
            for name in step.values:
                slots.append(keys[name])
                writers.setdefault(keys[name], []).append((step, name))
        elif isinstance(step, MapStep):
            writers.setdefault(keys[step.item_name], []).append((step, step.item_name))
        if not watched.isdisjoint(slots):
            facts.tracked[step.id] = tuple(dict.fromkeys([slot for slot in slots if slot in watched]))
    given = set(names.declared) | set((names.program.inputs or {}).get("required", []))
    if frame.owner is not None and isinstance(frame.owner.step, CallStep):
        given |= set(frame.owner.step.arguments)
    several = {keys[name] for name in given if name in keys} | {
        slot for slot, found in writers.items() if len(found) > 1
    }
    facts.shared = frozenset(step_id for step_id, own in facts.tracked.items() if not several.isdisjoint(own))
    facts.watched, facts.tests = frozenset(watched), bool(tests)
    facts.key_names = {slot: name for name, slot in names.keys.items()}
    if frame.kind == "run":
        facts.unsure = frozenset(slot for name, slot in names.keys.items() if name not in names.declared)
        if names.program.inputs is not None:
            facts.given = of_schema(names.program.inputs)
    return facts


def _items(domain: Domain) -> Domain:
    """What stands in the lists of *domain*."""
    if domain.values is not None:
        return of_values([item for value in domain.values.values() if type(value) is list for item in value])
    return domain.items if domain.items is not None and domain.kinds & LIST else ANYTHING


def _straight(step: Step) -> bool:
    """Whether *step* surely leaves its own output as the last, once it is done."""
    if step.catch or step.on_error.value == "skip" or step.next is not None:
        return False
    return not isinstance(step, (ConditionStep, SwitchStep, LoopStep)) and step.type.value not in ("approval", "wait")


def _labels(step: Step) -> dict[str, str]:
    """The output of a condition or switch by the label of the way it took: a jump's target, or the branch's name."""
    if isinstance(step, SwitchStep):
        targets: dict[str, Any] = {f"case:{case}": (target, case) for case, target in step.cases.items()}
        targets["default"] = (step.default, "default")
    else:
        assert isinstance(step, ConditionStep)
        targets = {"then": (step.then, "then"), "otherwise": (step.otherwise, "otherwise")}
    return {label: target if isinstance(target, str) else name for label, (target, name) in targets.items()}


def _equals_itself_only(literal: Any) -> bool:
    """Whether nothing else is equal to *literal*: no number, of which other spellings are equal."""
    if type(literal) is str:
        return number_in(literal) is None
    return literal is None or type(literal) is bool


def _with_part(domain: Domain, path: _Path, part: Domain) -> Domain | None:
    """*domain* where what lies at *path* is in *part*; None where that can not be said."""
    if domain.values is not None:
        kept = [
            value
            for value in domain.values.values()
            if (inner := descend(of_values([value]), path)).values and inner.values.keys() <= (part.values or {}).keys()
        ]
        return of_values(kept)
    name = path[0]
    if type(name) is not str:
        return None
    fields = domain.fields or {}
    inner = fields.get(name, ANYTHING)
    changed = part if len(path) == 1 else _with_part(inner, path[1:], part)
    if changed is None:
        return None
    return Domain(OBJECT, None, {**fields, name: lacking(changed, False)}, domain.closed)


def _result(reads: _Reads, domains: list[Domain]) -> Domain:
    """The values of an expression."""
    lists = _pinned(domains)
    if None not in lists:
        return lacking(_results(reads, lists), False)
    assert reads.node is not None
    tester = _Abstract(reads, domains, lists)
    found = NOTHING
    for combination in product(*[values if values is not None else ((None, None),) for values in lists]):
        tester.frame = [value for _, value in combination]
        found = join(found, tester.value(reads.node))
    return lacking(found, False)


def _results(reads: _Reads, lists: list[Any]) -> Domain:
    values, absent = [], False
    for combination in product(*lists):
        try:
            values.append(reads.evaluate([value for _, value in combination]))
        except StepFault:
            absent = True
    return of_values(values, absent)


def _capped(state: State) -> State:
    while len(state) > MAX_KNOWN:
        del state[next(iter(state))]
    return state


def _merged(old: State, new: State, widen: bool) -> State:
    """What both know; *old* itself where that is all that it knew."""
    result = {}
    changed = False
    for slot, domain in old.items():
        other = new.get(slot)
        if other is None:
            changed = True
            continue
        both = join(domain, other)
        if both is not domain and not same(both, domain):
            changed = True
            result[slot] = Domain(both.kinds, absent=both.absent) if widen else both
        else:
            result[slot] = domain
    return result if changed else old


# --- what others ask -------------------------------------------------------------------------------------------------


def possible(
    flow: Flow, contracts: Mapping[str, ToolContract] | None = None, solved: Assigned | None = None
) -> Domains:
    """What each name can hold at each node of *flow*, which must have no faults; see `Domains`."""
    return Domains(flow, contracts, solved)


def infeasible_edges(
    flow: Flow, contracts: Mapping[str, ToolContract] | None = None, solved: Assigned | None = None
) -> frozenset[tuple[int, str]]:
    """Node and label of the ways out of conditions, switches and loops that no run takes.

    Holds for every outcome of every call, so *contracts* must be given only where tools are held to their return annotations.
    Of a node that no run reaches nothing is told.
    """
    return barred_edges(Domains(flow, contracts, solved))


def barred_edges(domains: Domains) -> frozenset[tuple[int, str]]:
    """As `infeasible_edges`, of what is worked out already."""
    nodes = domains.flow.nodes
    return frozenset(
        (index, edge.label)
        for index, labels in domains.barred.items()
        if labels
        for edge in nodes[index].edges
        if edge.label in labels
    )


# --- Diagnostics ---------------------------------------------------------------------------------------------------


def check_branches(
    flow: Flow,
    contracts: Mapping[str, ToolContract] | None = None,
    solved: Assigned | None = None,
    domains: Domains | None = None,
) -> Iterator[Diagnostic]:
    """Tests that always come out the same way, comparisons that never match, switches that forget a value or know too many.

    All are warnings: a domain may hold values that never come about, what is told never to happen costs nothing when it does not,
    and a switch without a case for a value fails closed. A test that reads no name is what somebody wrote on purpose.
    """
    if domains is None:
        domains = Domains(flow, contracts, solved)
    found: dict[Loc, list[Node]] = {}
    for node in flow.nodes:  # a step that is entered in two ways is judged by both
        if node.kind in ("step", "test") and domains.reached(node):
            step = node.step
            if isinstance(step, (ConditionStep, SwitchStep)) or (node.kind == "test" and isinstance(step, LoopStep)):
                found.setdefault(node.loc, []).append(node)
    for loc, nodes in found.items():
        if isinstance(nodes[0].step, SwitchStep):
            yield from _switch(domains, loc, nodes)
        else:
            yield from _test(domains, loc, nodes)


def _test(domains: Domains, loc: Loc, nodes: list[Node]) -> Iterator[Diagnostic]:
    step = nodes[0].step
    reads = domains.test_of(nodes[0])
    if reads is None or not reads.places or reads.node is None:
        return
    field = "condition" if isinstance(step, ConditionStep) else "until"
    whole = 0
    for node in nodes:
        whole |= domains.masks[node.index]
    if whole & YES and whole & NO and not isinstance(reads.node, (Bool, Not)):
        return
    here = [domains.read_at(node, reads) for node in nodes]
    if any(domain.empty for read in here for domain in read):
        return  # never written: told as such
    wholes = [joined(read[place] for read in here) for place in range(len(reads.places))]
    leaves = list(_leaves(reads.node))
    told = False
    for leaf in leaves:
        part = _Reads.of_test(leaf, reads.names)
        if part is None or not part.places:
            continue
        inside = [[read[reads.places[place]] for place in part.places] for read in here]
        mask = 0
        for read in inside:
            mask |= decide(part, read).mask
        known = all(domain.values is not None for read in inside for domain in read)
        if leaf is reads.node and known and mask != FAILS:
            continue  # told of the whole
        problem = _mismatch(leaf, mask)
        if problem is not None and ((whole & YES and whole & NO) or not known or mask == FAILS):
            told = True
            said = f"{field} of {step.id!r}: {shown_test(leaf)} {problem}: {_facts_text(reads, wholes, part)}"
            yield Diagnostic("V062", (*loc, field), said, _remedy(problem), "warning")
    if told or (whole & YES and whole & NO) or not whole & (YES | NO):
        return
    word = "true" if not whole & YES else "false"
    said = f"{field} of {step.id!r} is never {word}: {_facts_text(reads, wholes, reads)}"
    yield Diagnostic("V060", (*loc, field), said, _way(step, word), "warning")


def _way(step: Step, word: str) -> str:
    if isinstance(step, LoopStep):
        return "the loop runs until its bound" if word == "true" else "the loop runs once"
    return f"no run takes {'then' if word == 'true' else 'otherwise'!r}"


def _leaves(node: Expression) -> Iterator[Expression]:
    """The operands of `and`, `or` and `not` in *node*, or *node* itself."""
    if isinstance(node, (Bool, Not)):
        for child in children(node):
            yield from _leaves(child)
    else:
        yield node


def _mismatch(leaf: Expression, mask: int) -> str | None:
    """What is wrong with an operand that comes to *mask*, or None."""
    if not mask & (YES | NO):
        return "is always an error" if isinstance(leaf, Compare) else "is never true or false"
    if isinstance(leaf, Compare):
        denies = len(leaf.rest) == 1 and leaf.rest[0][0] in ("!=", "not in")
        if denies and not mask & NO:
            return "is never false"
        if not denies and not mask & YES:
            return "is never true"
    return None


def _remedy(problem: str) -> str:
    if problem == "is never true or false":
        return "compare it, for example == 'yes'"
    return (
        "compare values of one type; see int(), float() and str()"
        if "error" in problem
        else "compare it with a value that it can have"
    )


def _facts_text(reads: _Reads, domains: list[Domain], part: _Reads) -> str:
    places = [reads.places[place] for place in part.places]
    told = [place for place in places if domains[place].kinds != ANYTHING.kinds or domains[place].fields] or places
    return ", ".join(f"{reads.texts[place]} is {described(domains[place])}" for place in told)


def shown_test(node: Expression) -> str:
    """An expression as a program spells it."""
    match node:
        case Const(value):
            return f"[{', '.join(map(shown_value, value))}]" if type(value) is list else shown_value(value)
        case Ref():
            return str(node)
        case Template(parts):
            return repr("".join(map(str, parts)))
        case Compare(first, rest):
            return " ".join([shown_test(first), *(f"{op} {shown_test(operand)}" for op, operand in rest)])
        case Bool(op, operands):
            return f"({f' {op} '.join(map(shown_test, operands))})"
        case Not(operand):
            return f"not {shown_test(operand)}"
        case Arith(op, left, right):
            return f"({shown_test(left)} {op} {shown_test(right)})"
        case Index(box, key):
            return f"{shown_test(box)}[{shown_test(key)}]"
        case Items(items):
            return f"[{', '.join(map(shown_test, items))}]"
        case Call(name, args, method=True):
            return f"{shown_test(args[0])}.{name}({', '.join(map(shown_test, args[1:]))})"
        case Call(name, args):
            return f"{name}({shown_test(args[0])})"


def _switch(domains: Domains, loc: Loc, nodes: list[Node]) -> Iterator[Diagnostic]:
    step = nodes[0].step
    assert isinstance(step, SwitchStep)
    found = domains.switched(nodes[0])
    if found is None or not found[0].places:
        return  # it reads nothing
    domain = joined(domains.on_domain(node) for node in nodes)
    if domain.empty:
        return
    what = f"what {step.id!r} is on is {described(domain)}"
    if domain.values is not None and step.default is None:
        lost = [value for value in domain.values.values() if case_of(step, value) is None]
        if lost:
            shown = ", ".join(map(shown_value, lost))
            message = f"switch {step.id!r} has no case for {shown}, and no default"
            yield Diagnostic(
                "V061", (*loc, "cases"), message, "add a case or a default; without one the step fails", "warning"
            )
    elif domain.values is None and step.default is None and not domain.kinds & ~(LIST | OBJECT):
        message = f"switch {step.id!r} always fails: {what}"
        yield Diagnostic("V062", (*loc, "on"), message, "switch on a text, a number, true, false or null", "warning")
    for label, values in taken(step, domain).items():
        if values == [] and label != "default":
            message = f"switch {step.id!r}: no value takes the case {label[5:]!r}: {what}"
            near = None
            if domain.values is not None:
                texts = [value for value in domain.values.values() if type(value) is str]
                case = label[5:].strip().casefold()
                close = [t for t in texts if t.strip().casefold() == case] or get_close_matches(label[5:], texts, n=1)
                near = f"did you mean {close[0]!r}?" if close else None
            yield Diagnostic("V063", (*loc, "cases", label[5:]), message, near or "remove it", "warning")


# --- fields ----------------------------------------------------------------------------------------------------------


def check_fields(
    flow: Flow,
    contracts: Mapping[str, ToolContract] | None = None,
    solved: Assigned | None = None,
    domains: Domains | None = None,
) -> Iterator[Diagnostic]:
    """Reads of fields that are surely not there (errors), or not among those that are declared (warnings).

    What hangs on a tool's return annotation, or stands in a test that may never look at it, is a warning.
    """
    if domains is None:
        domains = Domains(flow, contracts, solved)
    sure: Domains | None = None
    places: dict[tuple[Loc, int, _Path], list[Node]] = {}
    texts: dict[tuple[Loc, int, _Path], Ref] = {}
    for node in flow.nodes:
        if not domains.reached(node) or node.kind in ("fail", "close") or (node.kind == "test") != _is_loop(node):
            continue
        for ref, text, where in _reads_at(node):
            if not ref.path:
                continue
            try:
                slot, path, _ = node.frame.names.load(ref, text)
            except ExprError:
                continue  # told elsewhere
            if path:
                key = ((*node.loc, *where), slot, path)
                places.setdefault(key, []).append(node)
                texts[key] = ref
    for (loc, slot, path), nodes in places.items():
        lack = _lack(joined(domains.at(node, slot) for node in nodes), path)
        if lack is None:
            continue
        at, inside, surely = lack
        ref = texts[loc, slot, path]
        severity: Severity = "warning"
        if surely and not _evaluated(nodes[0].step, loc):
            if domains.contracts and sure is None:
                sure = Domains(flow, None, domains.solved)
            still = _lack(joined((sure or domains).at(node, slot) for node in nodes), path)
            severity = "error" if still is not None and still[2] else "warning"
        whole = Ref(ref.name, ref.path[: len(ref.path) - len(path) + at])
        message, hint = _field_text(path[at], inside, str(whole))
        yield Diagnostic("V017", loc, f"{str(ref)!r}: {message}", hint, severity)


def _is_loop(node: Node) -> bool:
    return node.kind != "end" and isinstance(node.step, LoopStep)


def _reads_at(node: Node) -> list[tuple[Ref, bool, Loc]]:
    names = node.frame.names
    if node.kind != "end":
        return names.reads[node.step.id]
    if node.frame.kind not in ("run", "call"):
        return []
    return [(ref, text, ("output",)) for ref, text in value_references(names.program.output)]


def _evaluated(step: Step, loc: Loc) -> bool:
    """Whether the place is in an expression, whose `and` and `or` may leave it out."""
    if isinstance(step, SetStep) and "values" in loc and step.id != "$end":
        return isinstance(step.values.get(str(loc[-1])), dict)
    return loc[-1] in ("condition", "until")


def _lack(domain: Domain, path: _Path) -> tuple[int, Domain, bool] | None:
    """Which part of *path* is not there, in what, and whether surely so."""
    for at, part in enumerate(path):
        if domain.empty:
            return None
        inner = descend(domain, (part,))
        if inner.empty:
            return at, domain, True
        fields = domain.fields
        if type(part) is str and domain.kinds & OBJECT and fields and part not in fields and domain.values is None:
            return at, domain, False
        domain = inner
    return None


def _field_text(part: str | int, domain: Domain, text: str) -> tuple[str, str | None]:
    objects = spread(domain)
    if not domain.kinds & OBJECT or type(part) is int:
        hint = "a text has no fields; give the step an output_schema" if domain.kinds == TEXT else None
        return (
            f"{text} is {described(objects)}, which has no {f'field {part!r}' if type(part) is str else f'[{part}]'}",
            hint,
        )
    fields = list(objects.fields or ())
    near = get_close_matches(str(part), fields, n=1)
    known = f"it has {', '.join(map(repr, fields))}" if fields else "it has no fields"
    return f"no field {part!r} is known in {text}", f"did you mean {near[0]!r}?" if near else known
