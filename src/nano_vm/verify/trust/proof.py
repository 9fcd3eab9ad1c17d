"""Trust: which protected arguments can untrusted text reach, and what declassifies it?

A `Flow`, contracts and the joined rules of the policies come in; findings, flows and the value
checks that a run must make go out. Nothing is run, and no value is seen: names are never computed,
so every label follows from the program's text.

Theory. One bit, *untrusted*, flows from sources along a graph whose vertices are the slots of each
`Names`: an edge stands wherever a step reads one name and writes another. A label is the join of
all writes to its slot, in whatever order (flow-insensitive), so the least fixed point is what the
sources reach, and breadth-first search finds it in linear time with the shortest way to each.
Sources: inputs named as untrusted; what a tool returns, unless its contract says ``trusted``
(nothing) or ``args`` (edges from its arguments); what its reconcile returns, likewise, since that
may become its output; events; an approver's comment. With untrusted literals also whatever the
program's text spells out. A model's answer joins what it was asked with. A caught error gives no
data. Frames of `parallel` and `map` share the slots of the frame around them; each node that calls
has frames, and so slots, of its own. Source: D. E. Denning, "A Lattice Model of Secure Information
Flow", CACM 19(5), 1976.

*Declassifiers* cut an edge: an answer that is one of `allowed_outputs`, and what an `output_schema`
says is an enum, a const or a boolean, read at that place. The cut edges are kept apart (*weak*):
they tell what outside text decides, which is listed and never refused. For a program whose literals
are untrusted they cut nothing, since the choice is the program's. An approval trusts the very
values that it showed (`statement.shown`): forward *must* analysis over the Flow, of the facts "this
expression was approved by this role, and no name that it reads was written since"; intersection at
merges; what is approved inside a branch or item is lost at its end, and a called program begins
with nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...diagnostics import Loc
from ...language.expr import value_references
from ...language.flow import Flow, FrameGraph, Names, Node
from ...language.policy import ArgRule, Shown
from ...language.rules import Rules
from ...language.semantics import (
    ERROR_WORDS,
    Called,
    External,
    Item,
    Literals,
    Term,
    ToolCall,
    Use,
    Value,
)
from ...tools.contract import ToolContract
from ..order.statement import statements
from ..report import Finding, Influence, Move
from .approvals import Approvals, Fact
from .graph import STRONG, WEAK, Edges, Graph, Reach, Reached
from .labels import known_names, returns_of, roles, spells
from .of_run import Arrivals

ONLY_A_BRANCH = "only a branch"


@dataclass(frozen=True, slots=True)
class Trust:
    """What the analysis says.

    ``findings``: one for each protected argument of each call. ``flows``: what untrusted text
    reaches, and what declassifies it. ``checks``: the rules whose value check must hold before the call,
    by the argument's place: the call's own ``loc``, then ``undo`` or ``reconcile`` where it is one,
    then ``args`` and the name (also where a reconcile takes the step's own arguments). ``shown``:
    by the same place, whose approval makes the value good: the tool must receive what was shown.
    """

    findings: tuple[Finding, ...] = ()
    flows: tuple[Influence, ...] = ()
    checks: Mapping[Loc, tuple[ArgRule, ...]] = field(default_factory=dict)
    shown: Mapping[Loc, Shown] = field(default_factory=dict)


def analyse(
    flow: Flow,
    contracts: Mapping[str, ToolContract],
    rules: Mapping[str, Rules],
    *,
    untrusted: frozenset[str] = frozenset(),
    untrusted_literals: bool = False,
    approved: frozenset[str] = frozenset(),
    graph: Graph | None = None,
) -> Trust:
    """Every flow into an argument that *rules* (by tool) protect; *untrusted* names inputs of the
    run.

    A program that is marked as untrusted and whose digest is not among *approved* has nobody who
    vouches for its text, nor for that of those that it calls; ``untrusted_literals`` says so of
    all. *graph* is `graph_of` it, where that is there.
    """
    if graph is None:
        graph = graph_of(flow, untrusted, approved, untrusted_literals=untrusted_literals)
    return _judge(_Untrusted(graph, contracts, rules, untrusted), rules)


def graph_of(
    flow: Flow,
    given: frozenset[str],
    approved: frozenset[str],
    *,
    untrusted_literals: bool = False,
) -> Graph:
    """How values move in *flow*, whose inputs *given* are labelled, by whatever lattice."""
    literals = by_untrusted(flow, approved)
    if untrusted_literals:
        literals = dict.fromkeys(literals, True)
    return Graph(flow, given, literals)


# --- what is untrusted ----------------------------------------------------------------------------


class _Untrusted:
    """Where untrusted text comes from, what passes it on beside the program's own steps, and what
    it reaches.
    """

    def __init__(
        self,
        graph: Graph,
        contracts: Mapping[str, ToolContract],
        rules: Mapping[str, Rules],
        untrusted: frozenset[str],
    ) -> None:
        self.graph = graph
        self.flow = graph.flow
        self.contracts = contracts
        self.rules = rules
        self.untrusted = untrusted
        self.known = known_names(contracts, rules)
        self.own = Edges()
        self.seeds: dict[int, tuple[str, int]] = {}  # vertex: what it is, and its node
        for node, whole in graph.spelt:
            self.seed(whole, own_text(self.place(node.index)), node.index)
        for frame in self.flow.roots:
            self.inputs(frame)
        for frame in self.flow.frames:
            output_of = frame.names.program.output
            if frame.kind == "call" and output_of is not None and frame.owner is not None:
                self.spelt(frame.names, output_of, graph.out(frame.owner), frame.owner.index)
        for node in self.flow.nodes:
            if node.kind == "step":
                self.step(node)
        for node, term in graph.terms:
            self.term(node, term, graph.out(node))
        self.reach = Reach(graph, self.seeds, self.own)

    def step(self, node: Node) -> None:
        step, names = node.step, node.frame.names
        for word in ERROR_WORDS if names.errors else ():
            slot = names.errors.get((step.id, word))
            if slot is not None:
                self.seed(names.base + slot, f"{word} of step {step.id!r}", node.index)
        if self.graph.literal(names):
            self.written(node, self.graph.out(node))

    def inputs(self, frame: FrameGraph) -> None:
        names = frame.names
        start = names.base
        if frame.kind == "run" and self.untrusted:
            # also one that a step writes: a run may be given it too
            for name, slot in names.keys.items():
                if name in self.untrusted:
                    self.seed(start + slot, f"untrusted input {name!r}", -1)
        if self.graph.literal(names):
            for name, part in (names.program.inputs or {}).get("properties", {}).items():
                if isinstance(part, dict) and "default" in part:
                    self.seed(start + names.keys[name], own_text(f"default of input {name!r}"), -1)

    def seed(self, vertex: int, source: str, node: int) -> None:
        self.seeds.setdefault(vertex, (source, node))

    def spelt(self, names: Names, value: Any, target: int, node: int) -> None:
        """What *value* spells out of the program's own text, where that is untrusted."""
        if self.graph.literal(names) and spells(value):
            self.seed(target, own_text(self.place(node)), node)

    def place(self, node: int) -> str:
        return f"step {self.flow.nodes[node].step.id!r}"

    def written(self, node: Node, out: int) -> None:
        """What a step writes of the program's own text, which is untrusted."""
        step, names = node.step, node.frame.names
        source = own_text(self.place(node.index))
        # What a model is asked stands in the program, and so does all that it may answer where that is
        # restricted.
        own = any(isinstance(term, Literals) or _answers(term) for term in names.output(step))
        if step.has_default or own:
            self.seed(out, source, node.index)
        for slot, write in names.writes(step):
            match write:
                case Item(over) if spells(over):
                    self.seed(names.base + slot, source, node.index)
                case Value(template) if spells(template):
                    self.seed(names.base + slot, source, node.index)
                    self.seed(out, source, node.index)

    def returned(
        self, tool: str, args: Mapping[str, Any], names: Names, out: int, node: Node, where: str
    ) -> None:
        """What *tool* returns, into *out*."""
        returns = returns_of(tool, self.contracts, self.rules)
        if returns == "args":
            for value in args.values():
                self.graph.reads(names, value, out, node.index, into=self.own)
                self.spelt(names, value, out, node.index)
            own = next((name for name in args if name not in self.known), None)
            # a pure function of any keywords may give their names
            if own is not None and self.graph.literal(names):
                self.seed(out, own_text(f"argument {own!r} of step {node.step.id!r}"), node.index)
        elif returns is None:
            self.seed(out, f"result of tool {tool!r} ({where} {node.step.id!r})", node.index)

    def term(self, node: Node, term: Term, out: int) -> None:
        """What comes into the output *out* of a step that is made of *term*."""
        names, step_id = node.frame.names, node.step.id
        match term:
            case External("model"):
                pass  # the graph has what it passes on
            case External("tool"):
                own, *beside = node.calls
                self.returned(own.tool, own.args, names, out, node, "step")
                for call in beside:
                    if call.use == "reconcile":  # may say what the call returned
                        where = "reconcile of step"
                        self.returned(call.tool, call.args, names, out, node, where)
            case External("person"):
                self.seed(out, f"comment of approval {step_id!r}", node.index)
            case External("event" | "time"):
                self.seed(out, f"event of step {step_id!r}", node.index)
            case Called(arguments):
                for frame in node.frames if self.graph.literal(names) else ():
                    for name, value in arguments.items():
                        if name in frame.names.keys:
                            target = frame.names.base + frame.names.keys[name]
                            self.spelt(names, value, target, node.index)
            case _:
                # a term that this pass does not know: nothing is known of what is written
                self.seed(out, f"output of step {step_id!r}", node.index)


def own_text(where: str) -> str:
    """A source of which the program itself is the stranger."""
    return f"untrusted text of the program ({where})"


def by_untrusted(flow: Flow, approved: frozenset[str]) -> dict[int, bool]:
    """By the id of its names, whether a program, or one of those that call it on the way there, is
    marked as untrusted, and its digest not *approved*.
    """
    found: dict[int, bool] = {}
    for frame in flow.roots:  # who calls stands before whom it calls
        program, caller = frame.names.program, frame.owner
        own = program.untrusted and program.digest not in approved
        found[id(frame.names)] = own or (caller is not None and found[id(caller.frame.names)])
    return found


def _answers(term: Term) -> bool:
    return isinstance(term, External) and term.by == "model"


# --- the verdict ----------------------------------------------------------------------------------


@dataclass(slots=True)
class _Place:
    """A protected argument of one call, in one state of its step."""

    node: Node
    use: Use
    tool: str
    name: str
    loc: Loc
    rules: list[ArgRule]
    given: bool
    reached: Reached
    approvals: list[tuple[ArgRule, Fact]]

    @property
    def where(self) -> str:
        step = f"step {self.node.step.id!r}"
        return step if self.use == "step" else f"{self.use} of {step}"


def _judge(found: _Untrusted, rules: Mapping[str, Rules]) -> Trust:
    graph, reach = found.graph, found.reach
    approvals = Approvals(graph.flow)
    places = list(_places(found, rules, approvals))
    approvals.solve()
    writer = _Writer(found)
    findings: dict[tuple[Loc, str], Finding] = {}
    flows: dict[tuple[Loc, str], Influence] = {}
    checks: dict[Loc, tuple[ArgRule, ...]] = {}
    seen: dict[Loc, Shown] = {}
    for place in places:
        verdict = _verdict(place, approvals)
        if verdict.checks:
            checks[place.loc] = tuple(dict.fromkeys((*checks.get(place.loc, ()), *verdict.checks)))
        if verdict.shown is not None:
            seen[place.loc] = verdict.shown
        key = place.loc, place.tool
        known = findings.get(key)
        if known is None or (known.holds and not verdict.holds):
            findings[key] = writer.finding(place, verdict.holds)
        if place.reached.level:
            listed = flows.get(key)
            if listed is None or (listed.allowed is not None and not verdict.holds):
                flows[key] = writer.influence(place, verdict.allowed)
    branches: dict[Loc, Influence] = {}
    for node, loc, reads in graph.decisions:
        reached = reach.reached(node.frame.names, (ref for ref, _ in reads))
        if reached.level and loc not in branches:
            branches[loc] = writer.branch(node, reached, loc)
    return Trust(tuple(findings.values()), (*flows.values(), *branches.values()), checks, seen)


def _places(
    found: _Untrusted, rules: Mapping[str, Rules], approvals: Approvals
) -> Iterator[_Place]:
    if not any(rule.protected for rule in rules.values()):
        return
    for node in found.flow.nodes:
        if node.kind == "step":
            for call in node.calls:
                yield from _arguments(found, rules, approvals, node, call)


def _arguments(
    found: _Untrusted,
    rules: Mapping[str, Rules],
    approvals: Approvals,
    node: Node,
    call: ToolCall,
) -> Iterator[_Place]:
    tool, args = call.tool, call.args
    if tool not in rules or not rules[tool].protected:
        return
    names = node.frame.names
    at: Loc = (*node.loc, *call.at, "args")
    for name, value in args.items():
        demands = rules[tool].argument(name)
        if not demands:
            continue
        if found.graph.literal(names) and spells(value):
            reached = Reached(STRONG)
        else:
            reached = found.reach.reached(names, value_references(value))
        # then the name is the program's text
        if found.graph.literal(names) and name not in found.known:
            reached = Reached(STRONG)
        facts = []
        for rule in demands:
            for role in dict.fromkeys(roles(rule)):
                fact = approvals.ask(names, value, role)
                if fact is not None:
                    facts.append((rule, fact))
        yield _Place(node, call.use, tool, name, (*at, name), demands, True, reached, facts)
    contract = found.contracts.get(tool)
    shown = rules[tool].approvals  # of a call whose approver is to be shown what rules name
    named = [pattern for pattern, rule in rules[tool].args if shown or not rule.trusted]
    if "*" in named and contract is not None:
        named += contract.parameters
    for name in dict.fromkeys(named):
        # Left to the tool's own default, which nobody sees: the rule for the value cannot hold.
        if (
            name not in args
            and name != "*"
            and (contract is None or contract.open or name in contract.parameters)
        ):
            demands = [rule for rule in rules[tool].argument(name) if not rule.trusted]
            yield _Place(node, call.use, tool, name, (*at, name), demands, False, Reached(), [])


def shown_arguments(flow: Flow, rules: Mapping[str, Rules]) -> Iterator[tuple[Loc, Shown]]:
    """Each argument that an approval of its whole call must show, by its place, and whose approval
    it is.
    """
    asked = {
        tool: approvals
        for tool, rule in rules.items()
        if (approvals := [one for one in statements(rule) if one.kind == "approval"])
    }
    for node in flow.nodes if asked else ():
        for call in node.calls if node.kind == "step" else ():
            for statement in asked.get(call.tool, ()):
                at: Loc = (*node.loc, *call.at, "args")
                for name in call.args:
                    if statement.protects(name):
                        yield (*at, name), Shown(statement.names[0])


@dataclass(slots=True)
class _Verdict:
    holds: bool
    checks: list[ArgRule]
    allowed: str | None
    shown: Shown | None = None


def _verdict(place: _Place, approvals: Approvals) -> _Verdict:
    """Whether every rule is kept: by trust, by an approval, or by a check before the call."""
    if not place.given:
        return _Verdict(False, [], None)
    holds, rights = True, []
    checks: list[ArgRule] = []
    seen: Shown | None = None
    for rule in place.rules:
        if rule.trusted and place.reached.level != STRONG:
            continue
        approved = [
            fact
            for of, fact in place.approvals
            if of is rule and approvals.holds(fact, place.node, after=place.use == "undo")
        ]
        if approved:
            seen = seen or Shown(approved[0][2])
            rights += [
                f"approved by {fact[2]} at step {step_id}"
                for fact in approved
                for step_id in approvals.by[fact]
            ]
        elif rule.check is not None:
            checks.append(rule)
            rights.append(f"checked before the call: {check_text(rule)}")
        else:
            holds = False
    if place.reached.level == WEAK:
        rights.insert(0, place.reached.right)
    return _Verdict(holds, checks, "; ".join(dict.fromkeys(rights)) if holds else None, seen)


def check_text(rule: ArgRule) -> str:
    """The value check of a rule, as written."""
    text = rule.text.removeprefix("trusted or ")
    return text.removeprefix(f"approved by {rule.approval} or ")


def _demand(rule: ArgRule) -> str:
    said = ["is trusted"] if rule.trusted else []
    said += [f"is approved by {rule.approval}"] if rule.approval is not None else []
    said += [f"passes {check_text(rule)}"] if rule.check is not None else []
    return " or ".join(said)


class _Writer:
    """Puts verdicts into words."""

    def __init__(self, found: _Untrusted) -> None:
        self.found = found
        self.reach = found.reach

    def way(self, reached: Reached, node: Node) -> tuple[str, tuple[str, ...]]:
        """The source, and the names between it and the place."""
        if reached.vertex < 0:
            return own_text(f"step {node.step.id!r}"), ()
        return self.reach.told(reached.vertex)

    def finding(self, place: _Place, holds: bool) -> Finding:
        if all(rule.text == "trusted" for rule in place.rules):
            what = "only trusted values reach"
        else:
            what = f"only what {' and '.join(dict.fromkeys(map(_demand, place.rules)))} reaches"
        statement = f"{what} argument {place.name!r} of tool {place.tool!r} ({place.where})"
        if not place.given:
            statement = (
                f"argument {place.name!r} of tool {place.tool!r} is given "
                f"({place.where}): its default would not be {'checked' if place.rules else 'shown'}"
            )
        path: tuple[Move, ...] = ()
        breaks = None
        if not holds:
            found = self.found
            path = self.reach.moves(place.reached.vertex, place.node.index)
            breaks = Arrivals(
                found.flow,
                found.contracts,
                found.rules,
                found.untrusted,
                found.graph.literals,
                place.node.loc,
                place.use,
                place.tool,
                place.name,
            )
        return Finding("flow", place.tool, statement, holds, place.loc, path, breaks)

    def influence(self, place: _Place, allowed: str | None) -> Influence:
        source, way = self.way(place.reached, place.node)
        target = f"argument {place.name!r} of {place.tool!r}"
        return Influence("argument", place.node.step.id, target, source, way, allowed, place.loc)

    def branch(self, node: Node, reached: Reached, loc: Loc) -> Influence:
        source, way = self.way(reached, node)
        allowed = reached.right if reached.level == WEAK else ONLY_A_BRANCH
        return Influence("branch", node.step.id, node.step.id, source, way, allowed, loc)
