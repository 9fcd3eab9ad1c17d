"""What names can hold at each node, and which ways out of conditions, switches and loops no run can
take for that reason.

A `Flow` comes in; `Domains` and infeasible edges go out. Forward data flow over the graph along the
edges that are feasible so far, so that what stands behind a test that never holds weakens nothing.
What a name holds anywhere is joined once over all steps that write it; a node's own state holds
only what is known better there: since a test was passed, or since one of several writers wrote.
Tests are evaluated with the language's own closures on each combination of the values that they
read, and by kinds where values are not all known. An error is an error, never false. Source:
Wegman, Zadeck, "Constant Propagation with Conditional Branches", TOPLAS 13(2), 1991.

Rule 1: an edge is infeasible only if no run takes it, whatever tools, models, people and inputs
give. So return annotations of tools, to which nobody holds them, count for advice and not for
`infeasible_edges`. Rule 2: ways out of a failure (``catch``, ``skip``, ``error``) are always
feasible: any step may find the budget used up.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ...diagnostics import Loc
from ...errors import ExprError
from ...language.expr import (
    EXPR,
    Bool,
    Compare,
    Const,
    Ref,
    computed,
    entries,
    is_literal,
    parse_expr,
    parse_template,
)
from ...language.expr import Node as Expression
from ...language.flow import Flow, FrameGraph, Names, Node
from ...language.operators import equal, number_in
from ...language.program import Step, walk
from ...language.semantics import (
    Called,
    Chooses,
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
    Told,
    Value,
    Values,
    Write,
    control,
    last,
    tool_calls,
)
from ...tools.contract import ToolContract
from ...values import UNSET, canonical
from .decide import Effort, Path, Reads, decide, pinned, result_of, results_of
from .domains import (
    A_NUMBER,
    A_TEXT,
    ANYTHING,
    BOOL,
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
    descend,
    join,
    joined,
    lacking,
    of_hint,
    of_schema,
    of_values,
    same,
)
from .names import Assigned, assigned

MAX_KNOWN = 64
"""Names of which a node may know more than what holds everywhere; the oldest are forgotten first.
"""

MAX_VISITS = 16
"""Visits of a node after which what still changes there counts by its kinds, so that a loop that
builds ever larger values ends.
"""

MAX_CHAIN = 40
"""Names that are followed from one to the next for what they hold everywhere; what lies further is
anything.
"""

State = dict[int, Domain]  # by slot: what is known better than everywhere


# --- what a name holds anywhere -------------------------------------------------------------------


@dataclass(slots=True)
class _Facts:
    """What is asked again and again of the names of one program."""

    names: Names
    frame: FrameGraph
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
    reads: dict[tuple[str, str], Reads | None] = field(default_factory=dict)


class Domains:
    """What each name can hold at each node. *contracts* add what tools say that they return."""

    def __init__(
        self,
        flow: Flow,
        contracts: Mapping[str, ToolContract] | None = None,
        solved: Assigned | None = None,
    ) -> None:
        self.flow = flow
        self.contracts = contracts or {}
        self.solved = solved if solved is not None else assigned(flow)
        self.effort = Effort()
        self.facts: dict[int, _Facts] = {}
        for frame in flow.roots:
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
        for step, write in facts.names.writers.get(slot, ()):
            found = join(found, self._written(facts, step, write))
            if isinstance(write, Output) and step.has_default:
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
            found = facts.initials[slot] = (
                self._initial_of(facts, name) if name is not None else NOTHING
            )
        return found

    def _initial_of(self, facts: _Facts, name: str) -> Domain:
        names, frame = facts.names, facts.frame
        schema = names.program.inputs or {}
        part = schema.get("properties", {}).get(name)
        found = NOTHING
        if frame.kind == "call":
            owner = frame.owner
            assert owner is not None
            arguments = frame.arguments
            if name in arguments:
                around = self.facts[id(owner.frame.names)]
                return self._value(around, owner.step, arguments[name], f"with {name}")
        elif part is not None:
            found = (facts.given.fields or {}).get(name, ANYTHING)
        elif name in schema.get("required", []) or names.takes(name):
            found = ANYTHING
        if isinstance(part, dict) and "default" in part:
            found = join(found, of_values([part["default"]]))
        return found

    def _written(self, facts: _Facts, step: Step, write: Write) -> Domain:
        """What *step* writes."""
        match write:
            case Value(template, name):
                return self._value(facts, step, template, f"values {name}")
            case Item(over):
                return _items(self._value(facts, step, over, "over"))
            case Told(word):
                return _told(step, word)
        return self._output(facts, step)

    def _expression(self, names: Names, text: str, lookup: Callable[[int], Domain]) -> Domain:
        """The values of an expression."""
        reads, key = self.facts[id(names)].reads, ("", text)
        if key not in reads:
            reads[key] = Reads.of_expr(parse_expr(text), names)
        found = reads[key]
        if found is None:
            return ANYTHING
        return result_of(
            found, [descend(lookup(slot), path) for slot, path in found.places], self.effort
        )

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
                    slot, path = names.load(first)
                except ExprError:
                    return ANYTHING
                return lacking(descend(lookup(slot), path), False)
            if not any(isinstance(part, Ref) for part in template.parts):
                return of_values(
                    ["".join(part for part in template.parts if isinstance(part, str))]
                )
            return A_TEXT
        if kind is list or kind is dict:
            if is_literal(value) and "$" not in repr(value):
                return of_values([value])
            if kind is list:
                return Domain(
                    LIST, items=joined(self._template(names, item, lookup) for item in value)
                )
            if EXPR in value:
                return self._expression(names, value[EXPR], lookup)
            fields = {name: self._template(names, item, lookup) for name, item in entries(value)}
            return Domain(OBJECT, None, fields, True)
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
        return joined(self._term(facts, step, term) for term in facts.names.output(step))

    def _term(self, facts: _Facts, step: Step, term: Term) -> Domain:
        match term:
            case Literals(values):
                return of_values(values)
            case External(allowed=allowed) if allowed is not None:
                return of_values(allowed)
            case External(schema=schema) if schema is not None:
                return of_schema(schema)
            case External("model"):
                return A_TEXT
            case External("tool"):
                return self._returned(step)
            case Last(blocks):
                return joined(self._block(facts, steps) for steps in blocks)
            case ObjectOf(branches, or_null):
                null = THE_NULL if or_null else NOTHING
                fields = {
                    name: join(self._term(facts, step, last), null)
                    for name, last in branches.items()
                }
                return Domain(OBJECT, None, fields, True)
            case ListOf(each, or_null):
                null = THE_NULL if or_null else NOTHING
                return Domain(LIST, items=join(self._term(facts, step, each), null))
            case Values(templates):
                written = {
                    name: self._value(facts, step, template, f"values {name}")
                    for name, template in templates.items()
                }
                return Domain(OBJECT, None, written, True)
            case Called():
                return joined(self._called(frame) for frame in self._call_frames(facts, step))
        return ANYTHING

    def _returned(self, step: Step) -> Domain:
        own, *beside = tool_calls(step)
        contract = self.contracts.get(own.tool)
        if contract is None or any(call.use == "reconcile" for call in beside):
            return ANYTHING
        if own.tool not in self.returned:
            self.returned[own.tool] = of_hint(contract.result)
        return self.returned[own.tool]

    def _call_frames(self, facts: _Facts, step: Step) -> list[FrameGraph]:
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
        return self._template(
            frame.names, program.output, lambda slot: self._anywhere(facts, slot, must)
        )

    def _block(self, facts: _Facts, steps: Sequence[Step]) -> Domain:
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
        flow, order = self.flow, self.flow.order.place
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
        closer = bytearray(len(nodes))  # where values decide, or items are written
        for node in nodes:
            closer[node.index] = node.decides or _of_items(node)
        nothing: State = {}
        for frame in flow.frames:
            states[frame.fail] = nothing  # any step may lead there, and nothing is read there
        while heap:
            index = pop(heap)[1]
            queued[index] = 0
            visits[index] += 1
            node, known = nodes[index], states[index]
            if not known and not closer[index]:
                # most: what was not known is not known behind it
                if node.step.id not in shared[id(node.frame.names)]:
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
        if kind == "step" and isinstance(node.control, Repeats):
            for edge in node.edges:
                yield edge.target, state
            return
        if node.decides:
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
                elif child.item is not None:
                    item, writers = child.item, facts.names.writers[child.item]
                    inner = {slot: domain for slot, domain in state.items() if slot != item}
                    if len(writers) > 1:
                        inner[item] = joined(
                            self._written(facts, step, write)
                            for writer, write in writers
                            if writer is step and isinstance(write, Item)
                        )
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
        result = (
            {slot: domain for slot, domain in state.items() if slot not in own} if state else state
        )
        better: State = {}
        for slot in own:
            writers = facts.names.writers.get(slot, ())
            several = len(writers) > 1 or self._given(facts, slot)
            here = [write for writer, write in writers if writer is step]
            match here:
                case [Value(template)]:
                    if several or state:
                        lookup = partial(self._lookup, node, state)
                        found = lacking(self._template(facts.names, template, lookup), False)
                        if not same(found, self._base(facts, slot)):
                            better[slot] = found
                case [Output()] if several and node.kind == "step":
                    better[slot] = lacking(self._output(facts, step), False)
        return _capped({**result, **better}) if better else result

    def _given(self, facts: _Facts, slot: int) -> bool:
        """Whether inputs or arguments may write *slot* too."""
        return bool(self._initial(facts, slot).kinds)

    # --- ways out of a test ---

    def test_of(self, node: Node) -> Reads | None:
        """What the condition, `until` or `when` of *node* reads."""
        facts, step = self.facts[id(node.frame.names)], node.step
        key = (step.id, "when" if node.kind == "when" else "test")
        if key not in facts.reads:
            test = node.test
            text = test.text if test is not None else None
            facts.reads[key] = (
                Reads.of_test(parse_expr(text), facts.names) if text is not None else None
            )
        return facts.reads[key]

    def switched(self, node: Node, state: State | None = None) -> tuple[Reads, list[Domain]] | None:
        """What the `on` of a switch reads, and the domains there."""
        facts, switch = self.facts[id(node.frame.names)], node.control
        assert isinstance(switch, Chooses)
        key = (node.step.id, "on")
        if key not in facts.reads:
            node_of = computed(switch.on)
            facts.reads[key] = (
                Reads.of_value(switch.on, facts.names)
                if node_of is None
                else Reads.of_expr(node_of, facts.names)
            )
        reads = facts.reads[key]
        return None if reads is None else (reads, self.read_at(node, reads, state))

    def read_at(self, node: Node, reads: Reads, state: State | None = None) -> list[Domain]:
        """The domains of what *reads* reads at *node*."""
        known = state if state is not None else self.states[node.index] or {}
        return [descend(self._lookup(node, known, slot), path) for slot, path in reads.places]

    def on_domain(self, node: Node, state: State | None = None) -> Domain:
        """What a switch compares with its cases."""
        found = self.switched(node, state)
        if found is None:
            return lacking(ANYTHING)
        reads, domains = found
        lists = pinned(domains)
        if None in lists:
            if reads.node is not None:
                return lacking(result_of(reads, domains, self.effort))
            switch = node.control
            assert isinstance(switch, Chooses)
            template = parse_template(switch.on) if type(switch.on) is str else None
            if template is not None and template.typed:
                return domains[0]
            return A_TEXT if template is not None else ANYTHING
        return results_of(reads, lists) if self.effort.allows(reads, lists) else lacking(ANYTHING)

    def _ways(self, node: Node, state: State) -> dict[str, State | None]:
        """What is known behind each labelled way out of a condition, switch, loop or `when`; None
        behind those that no run takes.
        """
        step, facts = node.step, self.facts[id(node.frame.names)]
        own = facts.tracked.get(step.id, ())
        rest = (
            {slot: domain for slot, domain in state.items() if slot not in own}
            if state and own
            else state
        )
        if node.kind == "when":
            return self._guarded(node, state, rest)
        chooses = node.control
        if isinstance(chooses, Chooses) and chooses.by == "value":
            ways = self._cases(node, chooses, state, rest)
        else:
            ways = self._two(node, state, rest)
        if own and isinstance(chooses, Chooses):
            labels = {way.label: way.output for way in chooses.ways}
            for label, behind in ways.items():
                if behind is not None:
                    several = {
                        slot: of_values([labels[label]])
                        for slot in output_slots(node)
                        if slot in own
                    }
                    ways[label] = _capped({**behind, **several})
        self.barred[node.index] = frozenset(label for label, way in ways.items() if way is None)
        return ways

    def _guarded(self, node: Node, state: State, rest: State) -> dict[str, State | None]:
        """Behind a `when`: before its step nothing was written yet, beside it the step's output is
        cleared.
        """
        own = self.facts[id(node.frame.names)].tracked.get(node.step.id, ())
        yes, _ = self._decided(node, state, state, ())
        _, no = self._decided(node, state, rest, own)
        if no is not None and node.step.has_default:
            written = [slot for slot in output_slots(node) if slot in own]
            no = _capped({**no, **dict.fromkeys(written, of_values([node.step.default]))})
        ways = {"when": yes, "unless": no}
        self.barred[node.index] = frozenset(label for label, way in ways.items() if way is None)
        return ways

    def _two(self, node: Node, state: State, rest: State) -> dict[str, State | None]:
        own = self.facts[id(node.frame.names)].tracked.get(node.step.id, ())
        test, loop = node.test, node.control
        assert test is not None
        yes, no = self._decided(node, state, rest, own)
        ways = {test.true: yes if test.text is not None else None, **dict.fromkeys(test.false, no)}
        if isinstance(loop, Repeats) and loop.bound == 1:
            ways["again"] = None
        return ways

    def _decided(
        self, node: Node, state: State, rest: State, own: tuple[int, ...]
    ) -> tuple[State | None, State | None]:
        """What is known where the test of *node* is true, and where it is false; None for what no
        run reaches. It reads *state*; *rest* is what is left of that once the slots *own* are
        written.
        """
        reads = self.test_of(node)
        yes: State | None = rest
        no: State | None = rest
        if reads is not None:
            domains = self.read_at(node, reads, state)
            decision = decide(reads, domains, self.effort)
            self.masks[node.index] = decision.mask
            yes = (
                self._refined(node, state, rest, reads, decision.yes, domains, own)
                if decision.mask & YES
                else None
            )
            no = (
                self._refined(node, state, rest, reads, decision.no, domains, own)
                if decision.mask & NO
                else None
            )
            if yes is not None and reads.node is not None and None in decision.yes:
                yes = self._told(node, yes, reads, reads.node, own)
        return yes, no

    def _refined(
        self,
        node: Node,
        state: State,
        rest: State,
        reads: Reads,
        values: list[dict[Any, Any] | None],
        domains: list[Domain],
        own: tuple[int, ...],
    ) -> State:
        """*rest* with what is known of the places that a test read, since it came out this way."""
        better: State = {}
        for (slot, path), found, domain in zip(reads.places, values, domains, strict=True):
            if (
                found is None
                or slot in own
                or len(found) == len(domain.values or ()) + domain.absent
            ):
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

    def _told(
        self, node: Node, state: State, reads: Reads, test: Expression, own: tuple[int, ...]
    ) -> State:
        """*state* with what ``$name == 'literal'`` says of names whose values are not all known,
        alone or under `and`.
        """
        parts = test.operands if isinstance(test, Bool) and test.op == "and" else (test,)
        better: State = {}
        for part in parts:
            match part:
                case Compare(Ref() as ref, (("==", Const(value)),)):
                    literals = [value]
                case Compare(Ref() as ref, (("in", Const(value)),)) if type(value) is list:
                    literals = value
                case _:
                    continue
            slot, path = list(reads.places)[reads.load(ref)[0]]
            if (
                path
                or slot in own
                or slot in better
                or not literals
                or not all(map(_equals_itself_only, literals))
            ):
                continue
            if self._lookup(node, state, slot).values is None:
                better[slot] = of_values(literals)
        return _capped({**state, **better}) if better else state

    def _cases(
        self, node: Node, switch: Chooses, state: State, rest: State
    ) -> dict[str, State | None]:
        domain, on = self.on_domain(node, state), switch.on
        found = taken(switch, domain)
        ways: dict[str, State | None] = {}
        typed = parse_template(on) if type(on) is str and "$" in on else None
        place: int | None = None
        if typed is not None and typed.typed and isinstance(typed.parts[0], Ref):
            try:
                slot, path = node.frame.names.load(typed.parts[0])
                place = slot if not path else None
            except ExprError:
                pass
        if place in self.facts[id(node.frame.names)].tracked.get(node.step.id, ()):
            place = None
        for label, values in found.items():
            if values is None:
                ways[label] = rest
            elif not values:
                ways[label] = None
            else:
                ways[label] = (
                    _capped({**rest, place: of_values(values)}) if place is not None else rest
                )
        return ways


def output_slots(node: Node) -> list[int]:
    """The slots that hold the output of a node's step."""
    step, names = node.step, node.frame.names
    return [
        names.outputs[step.id],
        *([names.keys[step.output_key]] if step.output_key is not None else []),
    ]


def taken(switch: Chooses, domain: Domain) -> dict[str, list[Any] | None]:
    """By label of a switch the values of *domain* that take it; None where they are not all known,
    empty where there are none.
    """
    result: dict[str, list[Any] | None] = {way.label: [] for way in switch.ways}
    if domain.values is not None:
        for value in domain.values.values():
            label = case_of(switch, value)
            values = result.get(label) if label is not None else None
            if values is not None:
                values.append(value)
        return result
    for way in switch.ways:
        case = way.case
        if case is None:
            result[way.label] = None if domain.kinds & ~(LIST | OBJECT) else []
            continue
        other = case in ("true", "false", "null") or number_in(case) is not None
        if domain.kinds & TEXT:
            result[way.label] = None if other else [case]
        elif domain.kinds & (
            BOOL
            if case in ("true", "false")
            else NULL
            if case == "null"
            else NUMBER
            if other
            else 0
        ):
            result[way.label] = None
    return result


def case_of(switch: Chooses, value: Any) -> str | None:
    """The label that a switch takes for *value*; None where it fails."""
    if type(value) in (list, dict):
        return None
    text = value if type(value) is str else canonical(value).decode()
    for way in switch.ways:
        case = way.case
        if case is None or case == text or (type(value) in (int, float) and equal(case, value)):
            return way.label
    return None


# --- parts ----------------------------------------------------------------------------------------


def _of_items(node: Node) -> bool:
    """Whether *node* writes for its items alone."""
    return isinstance(node.control, Forks) and node.control.item is not None


def _facts(frame: FrameGraph) -> _Facts:
    names = frame.names
    facts = _Facts(names, frame)
    watched: set[int] = set()

    def watch(step_reads: list[tuple[Ref, Loc]]) -> None:
        for ref, _ in step_reads:
            try:
                watched.add(names.load(ref)[0])
            except ExprError:
                continue  # told elsewhere

    tests = {step_id for step_id, goes in names.controls.items() if goes.by_values}
    decided = bool(tests or names.whens)
    for step_reads in names.whens.values():
        watch(step_reads)
    for step, _ in names.steps:
        step_reads = names.reads[step.id]
        if step.id in tests or (decided and _computes(names, step)):
            watch(step_reads)
        elif step_reads:
            # for their fields
            watch([read for read in step_reads if read[0].path and read[0].path != ("output",)])
    keys = names.keys
    for step_id, wrote in names.wrote.items():
        # an item is written for its frame alone
        own = [slot for slot, write in wrote if slot in watched and not isinstance(write, Item)]
        if own:
            facts.tracked[step_id] = tuple(dict.fromkeys(own))
    given = set(names.declared) | set((names.program.inputs or {}).get("required", []))
    given |= set(frame.arguments)
    several = {keys[name] for name in given if name in keys} | {
        slot for slot, found in names.writers.items() if len(found) > 1
    }
    facts.shared = frozenset(
        step_id for step_id, own in facts.tracked.items() if not several.isdisjoint(own)
    )
    facts.watched, facts.tests = frozenset(watched), decided
    facts.key_names = {slot: name for name, slot in names.keys.items()}
    if frame.kind == "run":
        facts.unsure = frozenset(
            slot for name, slot in names.keys.items() if name not in names.declared
        )
        if names.program.inputs is not None:
            facts.given = of_schema(names.program.inputs)
    return facts


def _computes(names: Names, step: Step) -> bool:
    """Whether *step* writes what templates give, so that what it reads may be what a test reads."""
    return any(isinstance(write, Value) for _, write in names.named.get(step.id, ()))


def _told(step: Step, word: str) -> Domain:
    """What `$step.error` or `$step.errors` is."""
    error = dict.fromkeys(("kind", "type", "message"), A_TEXT)
    if word == "error":
        return Domain(OBJECT, None, error, True)
    forks = control(step)
    assert isinstance(forks, Forks)
    of_child = {"item": A_NUMBER} if forks.item is not None else {"branch": A_TEXT}
    return Domain(LIST, items=Domain(OBJECT, None, {**of_child, **error}, True))


def _items(domain: Domain) -> Domain:
    """What stands in the lists of *domain*."""
    if domain.values is not None:
        return of_values(
            [item for value in domain.values.values() if type(value) is list for item in value]
        )
    return domain.items if domain.items is not None and domain.kinds & LIST else ANYTHING


def _straight(step: Step) -> bool:
    """Whether *step* surely leaves its own output as the last, once it is done."""
    if (
        step.when is not None
        or step.catch
        or step.on_error.value == "skip"
        or step.next is not None
    ):
        return False
    return last(step) == "own" and not isinstance(control(step), Repeats)


def _equals_itself_only(literal: Any) -> bool:
    """Whether nothing else is equal to *literal*: no number, of which other spellings are equal."""
    if type(literal) is str:
        return number_in(literal) is None
    return literal is None or type(literal) is bool


def _with_part(domain: Domain, path: Path, part: Domain) -> Domain | None:
    """*domain* where what lies at *path* is in *part*; None where that cannot be said."""
    if domain.values is not None:
        kept = [
            value
            for value in domain.values.values()
            if (inner := descend(of_values([value]), path)).values
            and inner.values.keys() <= (part.values or {}).keys()
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


# --- what others ask ------------------------------------------------------------------------------


def possible(
    flow: Flow, contracts: Mapping[str, ToolContract] | None = None, solved: Assigned | None = None
) -> Domains:
    """What each name can hold at each node of *flow*, which must have no faults; see `Domains`."""
    return Domains(flow, contracts, solved)


def infeasible_edges(
    flow: Flow,
    contracts: Mapping[str, ToolContract] | None = None,
    solved: Assigned | None = None,
    *,
    returns_hold: bool = False,
) -> frozenset[tuple[int, str]]:
    """Node and label of the ways out of conditions, switches and loops that no run takes, whatever
    comes from outside.

    With *returns_hold* what tools of *contracts* say that they return is taken for true, too;
    nobody holds them to it. Of a node that no run reaches nothing is reported.
    """
    return barred_edges(Domains(flow, contracts if returns_hold else None, solved))


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
