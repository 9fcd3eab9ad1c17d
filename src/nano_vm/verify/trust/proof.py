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

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...diagnostics import Loc
from ...errors import ExprError
from ...language.expr import Ref, value_references
from ...language.flow import Flow, FrameGraph, Names, Node
from ...language.policy import ArgRule, Rules, Shown
from ...language.semantics import (
    Called,
    External,
    Forks,
    Item,
    Last,
    ListOf,
    Literals,
    ObjectOf,
    Repeats,
    Term,
    ToolCall,
    Use,
    Value,
    Values,
    by_values,
    output,
)
from ...tools.contract import ToolContract
from ..order.statement import Form, form, shown, statements
from ..report import Finding, Influence, Move
from .labels import known_names, restricted, returns_of, roles, shape, spells
from .of_run import Arrivals

MAX_WAY = 16
"""Names that are shown of a way, the last ones: so that many long ways are not written out many
times.
"""

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
) -> Trust:
    """Every flow into an argument that *rules* (by tool) protect; *untrusted* names inputs of the
    run.

    A program that is marked as untrusted and whose digest is not among *approved* has nobody who
    vouches for its text, nor for that of those that it calls; ``untrusted_literals`` says so of
    all.
    """
    graph = _Graph(flow, contracts, rules, untrusted, untrusted_literals, approved)
    graph.build()
    graph.spread()
    return _judge(graph, rules)


# --- the graph of influence -----------------------------------------------------------------------

CLEAN, WEAK, STRONG = 0, 1, 2


@dataclass(slots=True)
class _Reached:
    """What reaches a place: how, from which vertex (-1: from the program's own text), and the right
    of a weak one.
    """

    level: int = CLEAN
    vertex: int = -1
    right: str = ""


class _Graph:
    """Vertices are slots: ``names.base`` plus the slot's number."""

    def __init__(
        self,
        flow: Flow,
        contracts: Mapping[str, ToolContract],
        rules: Mapping[str, Rules],
        untrusted: frozenset[str],
        untrusted_literals: bool,
        approved: frozenset[str],
    ) -> None:
        self.flow = flow
        self.contracts = contracts
        self.rules = rules
        self.untrusted = untrusted
        self.known = known_names(contracts, rules)
        # by Names: whether its program's own text is untrusted
        self.literals = {
            id(frame.names): untrusted_literals or by_untrusted(frame, approved)
            for frame in flow.roots
        }
        size = flow.size
        # target, and the node that carries it
        self.strong: list[list[tuple[int, int]]] = [[] for _ in range(size)]
        self.weak: dict[int, list[tuple[int, int, str]]] = {}
        self.seeds: dict[int, tuple[str, int]] = {}  # vertex: what it is, and its node
        # schemas of all that is written to a vertex
        self.shapes: dict[int, list[dict[str, Any]]] = {}
        self.level = bytearray(size)
        self.depth = [0] * size
        self.before: list[tuple[int, int]] = [
            (-1, -1)
        ] * size  # vertex before it on the shortest way, and the node between
        self.right: dict[int, str] = {}
        self.root: list[int] = list(range(size))  # the source that reaches it
        # by output with keys that the program spells: the vertex of the whole
        self.whole: dict[int, int] = {}

    # --- building ---

    def build(self) -> None:
        if any(self.literals.values()):
            self.structures()
        for frame in self.flow.roots:
            self.inputs(frame)
            self.shaped(frame)
        for frame in self.flow.frames:
            if frame.kind == "call" and frame.names.program.output is not None:
                assert frame.owner is not None
                self.value(
                    frame.names,
                    frame.names.program.output,
                    self.out(frame.owner),
                    frame.owner.index,
                )
        strong = self.strong
        for node in self.flow.nodes:
            if node.kind != "step":
                continue
            step, frame = node.step, node.frame
            names = frame.names
            start = names.base
            for (step_id, word), slot in names.errors.items():
                if step_id == step.id:
                    self.seed(start + slot, f"{word} of step {step_id!r}", node.index)
            out = start + names.outputs[step.id]
            result = self.whole.get(out, out) if self.whole else out
            if step.output_key is not None:
                strong[result].append((start + names.keys[step.output_key], node.index))
            # The end of a block gives its last output to the container, the end of a frame to the step that
            # forked.
            around = node.owner
            if around is None and not (frame.kind == "call" and names.program.output is not None):
                around = frame.owner
            if around is not None:
                strong[result].append((self.out(around), around.index))
            if self.literals[id(names)]:
                self.spelt(node, out)
            for slot, write in names.writes(step):
                if isinstance(write, Value):
                    self.edges(names, write.template, start + slot, node.index)
                elif isinstance(write, Item):
                    self.edges(names, write.over, start + slot, node.index)
            for term in output(step):
                self.term(node, term, out)

    def out(self, node: Node) -> int:
        """The vertex of a step's output."""
        names = node.frame.names
        return names.base + names.outputs[node.step.id]

    def structures(self) -> None:
        """An object whose keys are the program's own text is that text only where it is read as a
        whole, not by a field.
        """
        for node in self.flow.nodes:
            if node.kind != "step" or not self.literals[id(node.frame.names)]:
                continue
            out = self.out(node)
            spelt = any(isinstance(term, (ObjectOf, Values)) for term in output(node.step))
            if spelt and out not in self.whole:
                whole = self.whole[out] = len(self.strong)
                self.strong.append([])
                self.strong[out].append((whole, node.index))
                self.level.append(CLEAN)
                self.depth.append(0)
                self.before.append((-1, -1))
                self.root.append(whole)
                self.seed(whole, self.own_text(self.place(node.index)), node.index)

    def inputs(self, frame: FrameGraph) -> None:
        names = frame.names
        start = names.base
        if frame.kind == "run" and self.untrusted:
            # also one that a step writes: a run may be given it too
            for name, slot in names.keys.items():
                if name in self.untrusted:
                    self.seed(start + slot, f"untrusted input {name!r}", -1)
        if self.literals[id(names)]:
            for name, part in (names.program.inputs or {}).get("properties", {}).items():
                if isinstance(part, dict) and "default" in part:
                    self.seed(
                        start + names.keys[name], self.own_text(f"default of input {name!r}"), -1
                    )

    def shaped(self, frame: FrameGraph) -> None:
        """The schemas of outputs, and of names under which nothing but such outputs is written."""
        names = frame.names
        if self.literals[id(names)]:
            return
        asked = [(step, schema) for step, _ in names.steps if (schema := shape(step)) is not None]
        if not asked:
            return
        start = names.base
        given: Iterable[str] = frame.arguments if frame.kind == "call" else self.untrusted
        for step, schema in asked:
            self.shapes[start + names.outputs[step.id]] = [schema]
            key = step.output_key
            if key is not None and key not in given:
                writers = names.writers[names.keys[key]]
                schemas = [schema for by, _ in writers if (schema := shape(by)) is not None]
                if len(schemas) == len(writers):
                    self.shapes[start + names.keys[key]] = schemas

    def seed(self, vertex: int, source: str, node: int) -> None:
        self.seeds.setdefault(vertex, (source, node))

    @staticmethod
    def own_text(where: str) -> str:
        return f"untrusted text of the program ({where})"

    def read(self, names: Names, ref: Ref) -> tuple[int, str | None]:
        """The vertex that a reference reads, and why what it reads there is harmless, if it is; -1
        for an unknown name.
        """
        try:
            slot, path = names.load(ref)
        except ExprError:  # told elsewhere, and never compiled
            return -1, None
        vertex = names.base + slot
        if not path:
            return self.whole.get(vertex, vertex) if self.whole else vertex, None
        if vertex in self.shapes:
            found = [restricted(schema, path) for schema in self.shapes[vertex]]
            if all(found):
                return vertex, " or ".join(dict.fromkeys(filter(None, found)))
        return vertex, None

    def edge(
        self, names: Names, ref: Ref, target: int, node: int, right: str | None = None
    ) -> None:
        vertex, harmless = self.read(names, ref)
        if vertex < 0:
            return
        if right is None:
            right = harmless
        if right is None:
            self.strong[vertex].append((target, node))
        else:
            self.weak.setdefault(vertex, []).append((target, node, right))

    def edges(self, names: Names, value: Any, target: int, node: int) -> None:
        """Edges from all that *value* reads."""
        for ref in value_references(value):
            self.edge(names, ref, target, node)

    def value(self, names: Names, value: Any, target: int, node: int) -> None:
        """Edges from all that *value* reads, and from what it spells out."""
        self.edges(names, value, target, node)
        if self.literals[id(names)] and spells(value):
            self.seed(target, self.own_text(self.place(node)), node)

    def place(self, node: int) -> str:
        return f"step {self.flow.nodes[node].step.id!r}"

    def spelt(self, node: Node, out: int) -> None:
        """What a step writes of the program's own text, where that is untrusted."""
        step, names = node.step, node.frame.names
        source = self.own_text(self.place(node.index))
        # What a model is asked stands in the program, and so does all that it may answer where that is
        # restricted.
        own = any(isinstance(term, Literals) or _answers(term) for term in output(step))
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
                self.value(names, value, out, node.index)
            own = next((name for name in args if name not in self.known), None)
            # a pure function of any keywords may give their names
            if own is not None and self.literals[id(names)]:
                self.seed(
                    out, self.own_text(f"argument {own!r} of step {node.step.id!r}"), node.index
                )
        elif returns is None:
            self.seed(out, f"result of tool {tool!r} ({where} {node.step.id!r})", node.index)

    def term(self, node: Node, term: Term, out: int) -> None:
        """What flows into the output *out* of a step that is made of *term*."""
        names, step_id = node.frame.names, node.step.id
        match term:
            case Literals() | Last() | ObjectOf() | ListOf():
                pass  # no value reaches a literal; what blocks leave comes along their own edges
            case External("tool"):
                own, *beside = node.calls
                self.returned(own.tool, own.args, names, out, node, "step")
                for call in beside:
                    if call.use == "reconcile":  # may say what the call returned
                        where = "reconcile of step"
                        self.returned(call.tool, call.args, names, out, node, where)
            case External("model"):
                self.model(node, term, names, out)
            case External("person"):
                self.seed(out, f"comment of approval {step_id!r}", node.index)
            case External("event" | "time"):
                self.seed(out, f"event of step {step_id!r}", node.index)
            case Values(templates):
                for template in templates.values():
                    self.edges(names, template, out, node.index)
            case Called(arguments):
                for frame in node.frames:
                    for name, value in arguments.items():
                        if name in frame.names.keys:
                            target = frame.names.base + frame.names.keys[name]
                            self.value(names, value, target, node.index)
            case _:
                # a term that this pass does not know: nothing is known of what is written
                self.seed(out, f"output of step {step_id!r}", node.index)

    def model(self, node: Node, answer: External, names: Names, out: int) -> None:
        right = None
        if not self.literals[id(names)]:
            if answer.allowed is not None:
                right = f"one of {', '.join(map(repr, answer.allowed))}"
            elif answer.schema is not None:
                right = restricted(answer.schema, ())
        for ref, _ in names.reads[node.step.id]:
            self.edge(names, ref, out, node.index, right)

    # --- the fixed point ---

    def spread(self) -> None:
        """Levels of all vertices, and the shortest way to each: first along strong edges, then
        along weak ones too.
        """
        level, depth, before, root = self.level, self.depth, self.before, self.root
        queue = list(self.seeds)
        for vertex in queue:
            level[vertex] = STRONG
        for vertex in queue:  # grows as it is walked
            for target, node in self.strong[vertex]:
                if not level[target]:
                    level[target] = STRONG
                    depth[target] = depth[vertex] + 1
                    before[target] = vertex, node
                    root[target] = root[vertex]
                    queue.append(target)
        if not self.weak:
            return
        for vertex in queue:
            edges: list[tuple[int, int, str]] = self.weak.get(vertex, [])
            if level[vertex] == WEAK:
                own = self.right[vertex]
                edges = [*edges, *((target, node, own) for target, node in self.strong[vertex])]
            for target, node, right in edges:
                if not level[target]:
                    level[target] = WEAK
                    depth[target] = depth[vertex] + 1
                    before[target] = vertex, node
                    root[target] = root[vertex]
                    self.right[target] = right
                    queue.append(target)

    # --- asking ---

    def reached(self, names: Names, references: Iterable[Ref]) -> _Reached:
        """The worst that any of *references* reads, and of equals the nearest."""
        best = _Reached()
        for ref in references:
            vertex, right = self.read(names, ref)
            found = self.level[vertex] if vertex >= 0 else CLEAN
            if not found:
                continue
            if found == WEAK or right is not None:
                found, right = WEAK, right or self.right[vertex]
            if found > best.level or (
                found == best.level and self.depth[vertex] < self.depth[best.vertex]
            ):
                best = _Reached(found, vertex, right or "")
        return best

    def way(self, vertex: int) -> list[tuple[int, int]]:
        """The source, and the last vertices on the way from it to *vertex*, each with the node that
        carried the value there.
        """
        if vertex < 0:
            return []
        source = self.root[vertex]
        way: list[tuple[int, int]] = []
        while vertex != source and len(way) < MAX_WAY:
            way.append((vertex, self.before[vertex][1]))
            vertex = self.before[vertex][0]
        return [(source, self.seeds[source][1]), *reversed(way)]

    def labels(self) -> dict[int, str]:
        """What each vertex is called."""
        result = {}
        for frame in self.flow.roots:
            prefix, start = path_of(frame), frame.names.base
            for name, slot in frame.names.keys.items():
                result[start + slot] = f"{prefix}${name}"
            for step_id, slot in frame.names.outputs.items():
                result[start + slot] = f"{prefix}{step_id}.output"
            for (step_id, word), slot in frame.names.errors.items():
                result[start + slot] = f"{prefix}{step_id}.{word}"
        for vertex, whole in self.whole.items():
            result[whole] = result[vertex]
        return result


def by_untrusted(frame: FrameGraph, approved: frozenset[str]) -> bool:
    """Whether a program, or one of those that call it on the way there, is marked as untrusted, and
    its digest not *approved*.
    """
    at: FrameGraph | None = frame
    while at is not None:
        program = at.names.program
        if program.untrusted and program.digest not in approved:
            return True
        at = at.owner.frame if at.owner is not None else None
    return False


def path_of(frame: FrameGraph) -> str:
    """The calls that lead to *frame*'s program, each with a slash."""
    ids: list[str] = []
    at: FrameGraph | None = frame
    while at is not None and at.owner is not None:
        if at.kind == "call":
            ids.append(f"{at.owner.step.id}/")
        at = at.owner.frame
    return "".join(reversed(ids))


def _answers(term: Term) -> bool:
    return isinstance(term, External) and term.by == "model"


# --- approvals ------------------------------------------------------------------------------------

Fact = tuple[int, Form, str]  # Names, what was shown, role


class _Approvals:
    """Which expressions are surely approved, unchanged, where a node begins."""

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.bits: dict[Fact, int] = {}
        self.kills: dict[tuple[int, int], int] = {}  # by Names and slot
        self.steps: dict[tuple[int, str], list[Node]] = {}  # by Names and role
        for node in flow.nodes:
            if node.approval is not None:
                key = id(node.frame.names), node.approval.role
                self.steps.setdefault(key, []).append(node)
        self.states: list[int | None] = []
        self.granted: dict[int, int] = {}  # by node of an approval: what it approves
        self.shown: dict[int, frozenset[Form]] = {}
        self.by: dict[Fact, list[str]] = {}  # the steps that may have approved it

    def ask(self, names: Names, value: Any, role: str) -> Fact | None:
        """The fact that *value* was approved, to be looked for; None where no step could approve
        it.
        """
        asked = self.steps.get((id(names), role))
        if asked is None:
            return None
        try:
            key = form(value, names)
        except ExprError:  # an unknown name: told elsewhere
            return None
        fact = (id(names), key, role)
        if fact in self.bits:
            return fact
        showing = [node for node in asked if self.shows(node, key)]
        if not showing:
            return None
        bit = self.bits[fact] = 1 << len(self.bits)
        self.by[fact] = list(dict.fromkeys(node.step.id for node in showing))
        for node in showing:
            self.granted[node.index] = self.granted.get(node.index, 0) | bit
        for ref in value_references(value):
            slot = (id(names), names.load(ref)[0])
            self.kills[slot] = self.kills.get(slot, 0) | bit
        return fact

    def shows(self, node: Node, key: Form) -> bool:
        if node.index not in self.shown:
            assert node.approval is not None
            self.shown[node.index] = frozenset(shown(node.approval.show, node.frame.names))
        return key in self.shown[node.index]

    def killed(self, names: Names, slots: Iterable[int]) -> int:
        """The facts that a write to *slots* ends."""
        mask = 0
        for slot in slots:
            mask |= self.kills.get((id(names), slot), 0)
        return mask

    def written(self, node: Node) -> int:
        """The facts that end with what the step itself writes, or clears where it fails."""
        step, names = node.step, node.frame.names
        slots = names.results(step)
        slots += [slot for slot, write in names.writes(step) if isinstance(write, Value)]
        return self.killed(names, slots)

    def solve(self) -> None:
        """What holds where each node begins, down from everything, to the fixed point."""
        if not self.bits:
            return
        nodes = self.flow.nodes
        self.states = [None] * len(nodes)
        entry = self.flow.frames[0].entry
        self.states[entry] = 0
        queue, queued = deque([entry]), {entry}
        while queue:
            index = queue.popleft()
            queued.discard(index)
            state = self.states[index]
            assert state is not None
            for target, after in self.after(nodes[index], state):
                old = self.states[target]
                new = after if old is None else old & after
                if new != old:
                    self.states[target] = new
                    if target not in queued:
                        queued.add(target)
                        queue.append(target)

    def after(self, node: Node, state: int) -> Iterator[tuple[int, int]]:
        names = node.frame.names
        own = self.written(node) if node.edges else 0
        for edge in node.edges:
            label, held = edge.label, state
            if label == "fork":
                child = self.flow.nodes[edge.target].frame
                if child.kind == "call":
                    held = 0
                elif child.item is not None:
                    held &= ~self.killed(names, [child.item])
            elif label in ("skip", "catch", "error"):
                held &= ~own
                if edge.by >= 0:
                    held &= ~self.written(self.flow.nodes[edge.by])
            elif label not in ("again", "when") and not (
                node.kind == "step" and isinstance(node.control, Repeats)
            ):
                if label == "then" and node.kind == "step":
                    held |= self.granted.get(node.index, 0)
                held &= ~own
            yield edge.target, held

    def holds(self, fact: Fact, node: Node, *, after: bool) -> bool:
        """Whether *fact* holds where *node* begins, or *after* it has written."""
        state = self.states[node.index]
        if state is None:  # no path leads there
            return True
        if after:
            state &= ~self.written(node)
        return bool(state & self.bits[fact])


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
    reached: _Reached
    approvals: list[tuple[ArgRule, Fact]]

    @property
    def where(self) -> str:
        step = f"step {self.node.step.id!r}"
        return step if self.use == "step" else f"{self.use} of {step}"


def _judge(graph: _Graph, rules: Mapping[str, Rules]) -> Trust:
    approvals = _Approvals(graph.flow)
    places = list(_places(graph, rules, approvals))
    approvals.solve()
    writer = _Writer(graph)
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
    for node in graph.flow.nodes:
        names, control = node.frame.names, node.control
        decides = by_values(control) or (isinstance(control, Forks) and control.item is not None)
        if node.kind != "when" and not (node.kind == "step" and decides):
            continue
        loc: Loc = (*node.loc, "when") if node.kind == "when" else node.loc
        reads = names.deciding(node.step, before=node.kind == "when")
        reached = graph.reached(names, (ref for ref, _ in reads))
        if reached.level and loc not in branches:
            branches[loc] = writer.branch(node, reached, loc)
    return Trust(tuple(findings.values()), (*flows.values(), *branches.values()), checks, seen)


def _places(graph: _Graph, rules: Mapping[str, Rules], approvals: _Approvals) -> Iterator[_Place]:
    if not any(rule.protected for rule in rules.values()):
        return
    for node in graph.flow.nodes:
        if node.kind == "step":
            for call in node.calls:
                yield from _arguments(graph, rules, approvals, node, call)


def _arguments(
    graph: _Graph,
    rules: Mapping[str, Rules],
    approvals: _Approvals,
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
        if graph.literals[id(names)] and spells(value):
            reached = _Reached(STRONG)
        else:
            reached = graph.reached(names, value_references(value))
        # then the name is the program's text
        if graph.literals[id(names)] and name not in graph.known:
            reached = _Reached(STRONG)
        facts = []
        for rule in demands:
            for role in dict.fromkeys(roles(rule)):
                fact = approvals.ask(names, value, role)
                if fact is not None:
                    facts.append((rule, fact))
        yield _Place(node, call.use, tool, name, (*at, name), demands, True, reached, facts)
    contract = graph.contracts.get(tool)
    named = [pattern for pattern, rule in rules[tool].args if not rule.trusted]
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
            yield _Place(node, call.use, tool, name, (*at, name), demands, False, _Reached(), [])


def shown_arguments(flow: Flow, rules: Mapping[str, Rules]) -> Iterator[tuple[Loc, Shown]]:
    """Each argument that an approval of its whole call must show, by its place, and whose approval
    it is.
    """
    for node in flow.nodes:
        for call in node.calls if node.kind == "step" else ():
            for statement in statements(rules[call.tool]) if call.tool in rules else ():
                if statement.kind == "approval":
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


def _verdict(place: _Place, approvals: _Approvals) -> _Verdict:
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
    """Puts verdicts into words; names of vertices are made when the first is needed."""

    def __init__(self, graph: _Graph) -> None:
        self.graph = graph
        self.names: dict[int, str] | None = None

    def way(self, reached: _Reached, node: Node) -> tuple[str, tuple[str, ...]]:
        """The source, and the names between it and the place."""
        if reached.vertex < 0:
            return self.graph.own_text(f"step {node.step.id!r}"), ()
        if self.names is None:
            self.names = self.graph.labels()
        way = self.graph.way(reached.vertex)
        source = self.graph.seeds[way[0][0]][0]
        cut = ("...",) if self.graph.depth[reached.vertex] > MAX_WAY else ()
        return source, cut + tuple([self.names[vertex] for vertex, _ in way[1:]])

    def finding(self, place: _Place, holds: bool) -> Finding:
        if all(rule.text == "trusted" for rule in place.rules):
            what = "only trusted values reach"
        else:
            what = f"only what {' and '.join(dict.fromkeys(map(_demand, place.rules)))} reaches"
        statement = f"{what} argument {place.name!r} of tool {place.tool!r} ({place.where})"
        if not place.given:
            statement = (
                f"argument {place.name!r} of tool {place.tool!r} is given "
                f"({place.where}): its default would not be checked"
            )
        path: tuple[Move, ...] = ()
        if not holds:
            nodes = [node for _, node in self.graph.way(place.reached.vertex) if node >= 0]
            path = self.moves([*nodes, place.node.index])
        breaks = None
        if not holds:
            graph, loc = self.graph, place.node.loc
            breaks = Arrivals(
                graph.flow,
                graph.contracts,
                graph.rules,
                graph.untrusted,
                graph.literals,
                loc,
                place.use,
                place.tool,
                place.name,
            )
        return Finding("flow", place.tool, statement, holds, place.loc, path, breaks)

    def moves(self, indexes: list[int]) -> tuple[Move, ...]:
        nodes = self.graph.flow.nodes
        return tuple(Move(index, nodes[index].step.id) for index in dict.fromkeys(indexes))

    def influence(self, place: _Place, allowed: str | None) -> Influence:
        source, way = self.way(place.reached, place.node)
        target = f"argument {place.name!r} of {place.tool!r}"
        return Influence("argument", place.node.step.id, target, source, way, allowed, place.loc)

    def branch(self, node: Node, reached: _Reached, loc: Loc) -> Influence:
        source, way = self.way(reached, node)
        allowed = reached.right if reached.level == WEAK else ONLY_A_BRANCH
        return Influence("branch", node.step.id, node.step.id, source, way, allowed, loc)
