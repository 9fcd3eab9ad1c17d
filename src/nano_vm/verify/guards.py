"""Guards: is every call of a tool preceded by what a policy demands?

A `Flow` and `Rules` come in; one `Finding` for each statement goes out. The definitions, which `monitor` applies to runs and
`paths` to all runs at once:

- An *execution* of a tool is a step that calls it (all its attempts are one), or an undo or a reconcile call of it. A failed step was one.
- *Before* is the order within a frame. What precedes a fork is before everything in its children, which is before what
  follows the join; children of one fork are concurrent. Undo calls run at the run's end, last remembered first.
- A guard, one of some edges, is good for an execution if the edge is crossed before the call's arguments are read; if no other execution
  of the tool comes after the edge and not after the call (so one decision is good for one call, and for none of two concurrent ones);
  and if guard and call see the same write of every name that both read. An undo's arguments are read when its step ends. Frames are
  copied at a fork, so what a branch writes is not seen outside; names of a called program are other names.
- An edge that is taken because of an error is not crossed; of a fork that failed, and of a `map`, which may have no item, no guard counts.
- *Approved* is guarded by ``then`` of an approval with the role, which shows each protected argument. *After* needs a step that
  ended well before each execution, and *before* is the same the other way round; these are not used up.

A run can fail at every step and be cancelled at every moment, so a remembered undo must have its guard all the time.
Ways that a policy's author will think impossible (a tool returns what is no JSON value, after which the step fails and its undo
is remembered) are ways. Conditions are not looked at: each branch may be taken.

Calls that are alike in what ends their guards are looked for together, each kind by one search (`paths.find_breach`), which is linear
in nodes and edges.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from ..errors import Diagnostic, ExprError, Severity
from ..expr import value_references
from ..flow import Flow, Names, Node
from ..policy import Rules
from ..program import ApprovalStep, LoopStep, MapStep, SetStep, Step, ToolStep
from ..tools import ToolContract
from .monitor import monitor
from .paths import RECONCILE, STEP, UNDO, Breach, Follows, Question, find_breach
from .report import Finding
from .statement import Form, Places, Statement, Use, call_arguments, edge_words, form, has_references, shown, statements

MAX_BITS = 6
"""Guards of one statement that are told apart, by what ends them; more are taken to end together, which can only refuse more."""

MAX_GROUPS = 32
"""Kinds of calls that are searched for apart; the rest are taken together likewise. So a statement costs at most so many searches."""

_USES: Mapping[int, Use] = {STEP: "step", UNDO: "undo", RECONCILE: "reconcile"}
_NOT_AN_END = ("skip", "catch", "error", "fork", "again")
Slots = frozenset[int]


def check_guards(flow: Flow, contracts: Mapping[str, ToolContract], rules: Mapping[str, Rules]) -> Iterator[Finding]:
    """What holds of each guard, approval, ``after`` and ``before`` in *rules*, which are by tool.

    A ``before`` speaks of other steps than the tool's, so *rules* must also hold those of tools that the program never calls.
    """
    index = _Index(flow, contracts)
    for tool_rules in rules.values():
        for statement in statements(tool_rules):
            breach = index.breach(statement)
            yield Finding(
                statement.kind,
                statement.tool,
                str(statement),
                breach is None,
                breach.node.loc if breach is not None else (),
                breach.path if breach is not None else (),
                monitor(flow, statement, contracts),
            )


def check_names_of_rules(
    flow: Flow, contracts: Mapping[str, ToolContract], rules: Mapping[str, Rules]
) -> Iterator[Diagnostic]:
    """Edges, steps and tools that the *rules* of called tools name, and that this program lacks."""
    index = _Index(flow, contracts)
    places = index.places
    for tool_rules in rules.values():
        if not index.calls.get(tool_rules.tool):
            continue
        for edges in tool_rules.guards:
            lost = [edge for edge in edges if not places.named_edges(edge)]
            for edge in lost:  # one of several may be of another program
                yield _lost_edge(edge, tool_rules.tool, places, "error" if len(lost) == len(edges) else "warning")
        for word, names in (("after", tool_rules.after), ("before", tool_rules.before)):
            for name in names:
                if not index.knows(name):
                    near = get_close_matches(name, [*places.own.ids, *sorted(contracts)], n=1)
                    hint = f"did you mean {near[0]!r}?" if near else "name a step, an edge like step.then, or a tool"
                    message = f"{word!r} of tool {tool_rules.tool!r} names {name!r}, which is no step, edge or tool"
                    yield Diagnostic("V051", ("policy", "tools", tool_rules.tool, word), message, hint)


def _lost_edge(edge: str, tool: str, places: Places, severity: Severity) -> Diagnostic:
    message = f"a guard of tool {tool!r} is the edge {edge!r}, and this program has none of that name"
    known = list(places.known_edges())
    near = get_close_matches(edge, known, n=1)
    step = places.steps(places.own).get(edge.rpartition(".")[0])
    if near:
        hint = f"did you mean {near[0]!r}?"
    elif step is not None and edge_words(step):
        hint = f"step {step.id!r} has {', '.join(edge_words(step))}"
    else:
        hint = "name an edge of a condition, switch, loop or approval: step.then"
    return Diagnostic("V051", ("policy", "tools", tool, "guarded_by"), message, hint, severity)


@dataclass(slots=True)
class _Guard:
    """A step with edges that are guards: where they are crossed, what it reads, what it shows."""

    names: Names
    step: Step
    crossed: list[tuple[int, str]]  # node, label
    reads: Slots = frozenset()
    shows: frozenset[Form] = frozenset()


Site = tuple[int, int]
"""A call: its node, and which of the node's calls."""


class _Index:
    """What the rules ask of a flow, found once."""

    def __init__(self, flow: Flow, contracts: Mapping[str, ToolContract]) -> None:
        self.flow = flow
        self.contracts = contracts
        self.follows = Follows(flow)
        self.places = Places(flow)
        self.calls: dict[str, list[Site]] = {}  # by tool
        self.steps: dict[tuple[int, str], list[int]] = {}  # by names and id: nodes that run it, or end it
        for node in flow.nodes:
            step = node.step
            if node.kind == "step":
                self.steps.setdefault((id(node.frame.names), step.id), []).append(node.index)
                if isinstance(step, ToolStep):
                    self._tool(node.index, step)
            elif node.kind == "test":
                self.steps.setdefault((id(node.frame.names), step.id), []).append(node.index)
        self.bases: dict[int, int] = {}  # by names: the first of its slots, so that a slot's number says whose it is
        size = 0
        for names in self.places.programs.values():
            self.bases[id(names)] = size
            size += names.size
        self._writers: dict[int, list[int]] | None = None
        self._items: dict[int, list[int]] = {}
        self._inside: dict[int, list[int]] = {}
        self._reads: dict[tuple[int, str, int], Slots] = {}

    def _tool(self, node: int, step: ToolStep) -> None:
        self.calls.setdefault(step.tool, []).append((node, STEP))
        if step.undo is not None:
            self.calls.setdefault(step.undo.tool, []).append((node, UNDO))
        if step.reconcile is not None:
            contract = self.contracts.get(step.tool)
            if contract is None or contract.unsafe:  # else nobody asks
                self.calls.setdefault(step.reconcile.tool, []).append((node, RECONCILE))

    def knows(self, name: str) -> bool:
        """Whether *name* is a tool, a step or an edge."""
        places = self.places
        return name in self.contracts or bool(places.named_steps(name) or places.named_edges(name))

    # --- from statements to questions ---

    def breach(self, statement: Statement) -> Breach | None:
        """The shortest path that breaks *statement*."""
        match statement.kind:
            case "guard":
                sites = self.calls.get(statement.tool, [])
                questions = self.guarded(statement, sites, self.edges(statement.names)) if sites else []
            case "approval":
                sites = self.calls.get(statement.tool, [])
                questions = self.guarded(statement, sites, self.approvals(statement.names[0])) if sites else []
            case "after":
                sites = self.calls.get(statement.tool, [])
                questions = [_order(sites, self.ends(statement.names[0]))] if sites else []
            case _:
                sites = self.runs(statement.names[0])
                questions = [_order(sites, self.tool_ends(statement.tool))] if sites else []
        found = [breach for question in questions if (breach := find_breach(self.follows, question)) is not None]
        return min(found, key=lambda breach: len(breach.path), default=None)

    def edges(self, names: Iterable[str]) -> list[_Guard]:
        """The guards that the edges *names* are."""
        found: dict[tuple[int, str], _Guard] = {}
        for name in names:
            for program, step, label in self.places.named_edges(name):
                key = id(program), step.id
                guard = found.get(key)
                if guard is None:
                    guard = found[key] = _Guard(program, step, [], self.read_by(program, step))
                guard.crossed += [(node, label) for node in self.steps.get(key, ())]
        return list(found.values())

    def approvals(self, role: str) -> list[_Guard]:
        """The guards that a person in *role* is asked by."""
        found = []
        for program in self.places.programs.values():
            for step, _ in program.steps:
                if isinstance(step, ApprovalStep) and step.role == role:
                    crossed = [(node, "then") for node in self.steps.get((id(program), step.id), ())]
                    reads = self.read_by(program, step)
                    found.append(_Guard(program, step, crossed, reads, frozenset(shown(step.show, program))))
        return found

    def ends(self, name: str) -> list[tuple[int, str]]:
        """Where what *name* names ends well: a tool's steps, a step, or an edge."""
        if name in self.contracts or name in self.calls:
            return self.tool_ends(name)
        places, nodes = self.places, self.flow.nodes
        named = places.named_steps(name)
        if not named:
            edges = places.named_edges(name)
            return [(at, label) for names, step, label in edges for at in self.steps.get((id(names), step.id), ())]
        found = []
        for names, step in named:
            for at in self.steps.get((id(names), step.id), ()):
                if nodes[at].kind == "test" or not isinstance(step, LoopStep):
                    found += [(at, edge.label) for edge in nodes[at].edges if edge.label not in _NOT_AN_END]
        return found

    def tool_ends(self, tool: str) -> list[tuple[int, str]]:
        return [(node, "next") for node, flag in self.calls.get(tool, ()) if flag == STEP]

    def runs(self, name: str) -> list[Site]:
        """The executions of what *name* names: a tool's calls, or the runs of a step."""
        if name in self.contracts or name in self.calls:
            return self.calls.get(name, [])
        nodes = self.flow.nodes
        found = []
        for program, step in self.places.named_steps(name):
            found += [(n, STEP) for n in self.steps.get((id(program), step.id), ()) if nodes[n].kind == "step"]
        return found

    def guarded(self, statement: Statement, sites: list[Site], guards: list[_Guard]) -> list[Question]:
        """One question for each kind of call: those for which the same guards count, and end by the same writes."""
        groups: dict[tuple[Slots | None, ...], list[Site]] = {}
        for site in sites:
            key = self.endings(statement, site, guards)
            if key not in groups and len(groups) >= MAX_GROUPS:
                key, joined = _joined(groups.popitem(), key)
                groups.setdefault(key, []).extend(joined)
            groups.setdefault(key, []).append(site)
        calls = _flags(sites)
        return [self.question(key, guards, group, calls) for key, group in groups.items()]

    def endings(self, statement: Statement, site: Site, guards: list[_Guard]) -> tuple[Slots | None, ...]:
        """For each guard, the names whose change ends it for *site*; None where it is no guard of that call."""
        node = self.flow.nodes[site[0]]
        names = node.frame.names
        if statement.kind == "guard":
            reads = self.read_by_call(node, site[1])
            return tuple(guard.reads & reads for guard in guards)
        assert isinstance(node.step, ToolStep)
        arguments = call_arguments(node.step, _USES[site[1]])
        protected = {name: value for name, value in arguments.items() if statement.protects(name)}
        try:
            forms = [form(value, names) for value in protected.values()]
        except ExprError:
            return tuple(None for _ in guards)
        reads = self.slots(names, protected)
        bound = any(has_references(value) for value in forms)
        return tuple(
            reads if all(value in guard.shows for value in forms) and (guard.names is names or not bound) else None
            for guard in guards
        )

    def question(
        self, key: tuple[Slots | None, ...], guards: list[_Guard], group: list[Site], calls: Mapping[int, int]
    ) -> Question:
        """*group* against *guards*; a bit for each set of names whose change ends them, since guards that end together are one."""
        apart = list(dict.fromkeys(slots for slots in key if slots is not None))
        ended = apart[:MAX_BITS]
        for more in apart[MAX_BITS:]:
            ended[-1] |= more
        gains: dict[int, dict[str, int]] = {}
        for slots, guard in zip(key, guards, strict=True):
            if slots is not None:
                bit = 1 << min(apart.index(slots), MAX_BITS - 1)
                for node, label in guard.crossed:
                    labels = gains.setdefault(node, {})
                    labels[label] = labels.get(label, 0) | bit
        question = Question(len(ended), gains, _flags(group), calls)
        if any(ended):
            self.writes(question, ended)
        return question

    # --- what is read and written ---

    def slots(self, names: Names, value: object) -> Slots:
        """What *value*, a literal with templates inside, reads."""
        base, found = self.bases[id(names)], set()
        for ref, text in value_references(value):
            try:
                found.add(base + names.load(ref, text)[0])
            except ExprError:  # told by the pass that checks names
                continue
        return frozenset(found)

    def read_by(self, names: Names, step: Step) -> Slots:
        """What *step* itself reads."""
        base, found = self.bases[id(names)], set()
        for ref, text, _ in names.reads[step.id]:
            try:
                found.add(base + names.load(ref, text)[0])
            except ExprError:
                continue
        return frozenset(found)

    def read_by_call(self, node: Node, flag: int) -> Slots:
        names, step = node.frame.names, node.step
        key = id(names), step.id, flag
        found = self._reads.get(key)
        if found is None:
            assert isinstance(step, ToolStep)
            found = self._reads[key] = self.slots(names, call_arguments(step, _USES[flag]))
        return found

    def writes(self, question: Question, ended: list[Slots]) -> None:
        """Where each bit of *question* is taken: by a write of one of the names in *ended*."""
        if self._writers is None:
            self._writers = self._find_writers()
        kills, items, leaving = dict(question.kills), dict(question.items), dict(question.leaving)
        for number, names in enumerate(ended):
            bit = 1 << number
            for slot in sorted(names):
                for index in self._writers.get(slot, ()):
                    kills[index] = kills.get(index, 0) | bit
                    if self.flow.nodes[index].kind == "test":
                        loop = self.flow.nodes[index].of
                        assert loop is not None
                        for inner in self._within(loop.index):
                            leaving[inner] = leaving.get(inner, 0) | bit
                for frame in self._items.get(slot, ()):
                    items[frame] = items.get(frame, 0) | bit
        question.kills, question.items, question.leaving = kills, items, leaving

    def _find_writers(self) -> dict[int, list[int]]:
        """By slot, the nodes whose end writes it."""
        writers: dict[int, list[int]] = {}
        for node in self.flow.nodes:
            if node.owner is not None:
                self._inside.setdefault(node.owner.index, []).append(node.index)
            step, names = node.step, node.frame.names
            if node.kind in ("end", "fail") or (node.kind == "step" and isinstance(step, LoopStep)):
                continue
            base = self.bases[id(names)]
            written = [names.outputs[step.id]]
            if step.output_key is not None:
                written.append(names.keys[step.output_key])
            if isinstance(step, SetStep) and node.kind == "step":
                written += [names.keys[name] for name in step.values]
            for slot in written:
                writers.setdefault(base + slot, []).append(node.index)
            if isinstance(step, MapStep) and node.kind == "step":
                item = base + names.keys[step.item_name]
                self._items.setdefault(item, []).extend(frame.index for frame in node.frames)
        return writers

    def _within(self, loop: int) -> Iterator[int]:
        """The nodes in the body of *loop*, its own frame only."""
        work = [loop]
        while work:
            for inner in self._inside.get(work.pop(), ()):
                yield inner
                work.append(inner)


def _order(sites: list[Site], ends: list[tuple[int, str]]) -> Question:
    """Whether each of *sites* comes after one of *ends*, which nothing takes away."""
    gains: dict[int, dict[str, int]] = {}
    for node, label in ends:
        gains.setdefault(node, {})[label] = 1
    return Question(1, gains, _flags(sites), _flags(sites), uses=False)


def _flags(sites: Iterable[Site]) -> dict[int, int]:
    found: dict[int, int] = {}
    for node, flag in sites:
        found[node] = found.get(node, 0) | flag
    return found


def _joined(
    last: tuple[tuple[Slots | None, ...], list[Site]], key: tuple[Slots | None, ...]
) -> tuple[tuple[Slots | None, ...], list[Site]]:
    """Two groups as one: a guard counts where it does for both, and ends by the writes of either."""
    other, sites = last
    return tuple(a | b if a is not None and b is not None else None for a, b in zip(other, key, strict=True)), sites
