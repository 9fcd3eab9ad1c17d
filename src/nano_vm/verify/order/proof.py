"""Guards: is every call of a tool preceded by what a policy demands?

A `Flow` and `Rules` come in; one `Finding` for each statement goes out. The definitions, which
`monitor` applies to runs and `paths` to all runs at once:

- An *execution* of a tool is a step that calls it (all its attempts are one), or an undo or a
  reconcile call of it. A failed step was one.
- *Before* is the order within a frame. What precedes a fork is before everything in its children,
  which is before what follows the join; children of one fork are concurrent. Undo calls run at the
  run's end, last remembered first.
- A guard, one of some edges, is good for an execution if the edge is crossed before the call's
  arguments are read; if no other execution of the tool comes after the edge and not after the call
  (so one decision is good for one call, and for none of two concurrent ones); and if guard and call
  see the same write of every name that both read. An undo's arguments are read when its step ends.
  Frames are copied at a fork, so what a branch writes is not seen outside; names of a called
  program are other names.
- An edge that is taken because of an error is not crossed; of a fork that failed, and of a `map`,
  which may have no item, no guard counts.
- *Approved* is guarded by ``then`` of an approval with the role, which shows each protected
  argument. *After* needs a step that ended well before each execution, and *before* is the same the
  other way round; these are not used up.

A run can fail at every step and be cancelled at every moment, so a remembered undo must have its
guard all the time. Ways that a policy's author will think impossible (a tool returns what is no
JSON value, after which the step fails and its undo is remembered) are ways. Conditions are not
looked at: each branch may be taken.

Most statements are proved together, in one look at the graph (`paths.surely_hold`); each other one
is a search (`paths.find_breach`), linear in nodes and edges.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ...diagnostics import Diagnostic, Loc, Severity
from ...errors import ExprError
from ...language.expr import Ref, named_references
from ...language.flow import Flow, Names, Node
from ...language.program import Step
from ...language.rules import Rules
from ...language.semantics import WHEN, Item, Repeats, Use, Value, Write, edge_words
from ...spelling import Hints
from ...tools.contract import ToolContract
from ..report import Finding
from .of_run import monitor
from .paths import (
    MAX_LOOKS,
    RECONCILE,
    STEP,
    UNDO,
    Follows,
    Question,
    TooManyLooks,
    find_breach,
    surely_hold,
)
from .statement import (
    Form,
    Places,
    Statement,
    form,
    has_references,
    shown,
    statements,
)

MAX_GROUPS = 64
"""Kinds of calls of one tool that are distinguished, by the names that guards and arguments share; the
rest are taken to read what any of them reads, which can only refuse more. So the work of a
statement does not grow with calls times guards.
"""

_FLAGS: Mapping[Use, int] = {"step": STEP, "undo": UNDO, "reconcile": RECONCILE}
_USES = {flag: use for use, flag in _FLAGS.items()}
_NOT_AN_END = ("skip", "catch", "error", "fork", "again")
Slots = frozenset[int]


def speaks_of_order(rules: Iterable[Rules]) -> bool:
    """Whether one of *rules* names edges, steps or tools that come before or after others."""
    return any(rule.guards or rule.after or rule.before for rule in rules)


def check_guards(
    flow: Flow,
    contracts: Mapping[str, ToolContract],
    rules: Mapping[str, Rules],
    index: Index | None = None,
) -> Iterator[Finding]:
    """What holds of each guard, approval, ``after`` and ``before`` in *rules*, which are by tool.

    A ``before`` speaks of other steps than the tool's, so *rules* must also hold those of tools
    that the program never calls. *index* is that of the flow, where it is there already.
    """
    if not any(True for tool_rules in rules.values() for _ in statements(tool_rules)):
        return
    index = index or Index(flow, contracts)
    asked = [one for tool_rules in rules.values() for one in statements(tool_rules)]
    questions = [index.question_of(statement) for statement in asked]
    plain = surely_hold(index.follows, [one for one in questions if one is not None])
    proved = iter(plain)
    for statement, question in zip(asked, questions, strict=True):
        breach, reason = None, None
        if question is not None and not next(proved):
            try:
                breach = find_breach(index.follows, question)
            except TooManyLooks:
                reason = (
                    f"not looked at: what could not be proved at once takes more than {MAX_LOOKS} "
                    f"looks at the program's nodes"
                )
        yield Finding(
            statement.kind,
            statement.tool,
            str(statement),
            breach is None and reason is None,
            breach.node.loc if breach is not None else (),
            breach.path if breach is not None else (),
            monitor(flow, statement, contracts),
            reason,
        )


def check_names_of_rules(
    flow: Flow,
    contracts: Mapping[str, ToolContract],
    rules: Mapping[str, Rules],
    index: Index | None = None,
) -> Iterator[Diagnostic]:
    """Edges, steps and tools that the *rules* of called tools name, and that this program lacks;
    *index* as for `check_guards`.
    """
    if not speaks_of_order(rules.values()):
        return
    index = index or Index(flow, contracts)
    places, hints = index.places, Hints()
    for tool_rules in rules.values():
        if not index.calls.get(tool_rules.tool):
            continue
        for edges in tool_rules.guards:
            lost = [edge for edge in edges if not places.named_edges(edge)]
            for edge in lost:  # one of several may be of another program
                severity: Severity = "error" if len(lost) == len(edges) else "warning"
                yield _lost_edge(edge, tool_rules.tool, places, severity, hints)
        for word, names in (("after", tool_rules.after), ("before", tool_rules.before)):
            for name in names:
                if not index.knows(name):
                    otherwise = "name a step, an edge like step.then, or a tool"
                    meant = hints.meant(
                        name, places.own.ids, sorted(contracts), otherwise=otherwise
                    )
                    hint = places.late(name) or meant
                    message = (
                        f"{word!r} of tool {tool_rules.tool!r} names {name!r}, which is no "
                        f"step, edge or tool"
                    )
                    yield Diagnostic(
                        "V054", ("policy", "tools", tool_rules.tool, word), message, hint
                    )


def _lost_edge(
    edge: str, tool: str, places: Places, severity: Severity, hints: Hints
) -> Diagnostic:
    message = (
        f"a guard of tool {tool!r} is the edge {edge!r}, and this program has none of that name"
    )
    hint = places.late(edge) or hints.meant(edge, list(places.known_edges()))
    step = places.own.by_id.get(edge.rpartition(".")[0])
    if hint is None and step is not None and edge_words(step):
        hint = f"step {step.id!r} has {', '.join(edge_words(step))}"
    elif hint is None:
        hint = "name an edge of a condition, switch, loop, approval or `when`: step.then"
    return Diagnostic("V054", ("policy", "tools", tool, "guarded_by"), message, hint, severity)


@dataclass(slots=True, eq=False)
class _Guard:
    """A step with edges that are guards: where they are crossed, what it reads."""

    names: Names
    step: Step
    crossed: list[tuple[int, str]]  # node, label
    reads: Slots = frozenset()


Site = tuple[int, int]
"""A call: its node, and which of the node's calls."""


class Index:
    """What the rules ask of a flow, found once."""

    def __init__(self, flow: Flow, contracts: Mapping[str, ToolContract]) -> None:
        self.flow = flow
        self.contracts = contracts
        self._follows: Follows | None = None
        self.places = Places(flow)
        self.calls: dict[str, list[Site]] = {}  # by tool
        # by names and id: nodes that run it, or end it
        self.steps: dict[tuple[int, str], list[int]] = {}
        # likewise, nodes that decide whether it runs
        self.whens: dict[tuple[int, str], list[int]] = {}
        # likewise, nodes that end its blocks
        self.closes: dict[tuple[int, str], list[int]] = {}
        by_kind = {"step": self.steps, "test": self.steps, "when": self.whens, "close": self.closes}
        for node in flow.nodes:
            nodes = by_kind.get(node.kind)
            if nodes is not None:
                nodes.setdefault((id(node.frame.names), node.step.id), []).append(node.index)
                if nodes is self.steps:
                    self._calls(node)
        self._writers: dict[int, tuple[list[int], list[int]]] = {}
        self._inside: dict[int, list[int]] = {}
        self._reads: dict[tuple[int, str, int], Slots] = {}

    def _calls(self, node: Node) -> None:
        calls = node.calls
        contract = self.contracts.get(calls[0].tool) if calls else None
        for call in calls:
            # where the outcome of a call is of no consequence nobody asks for it
            if call.use != "reconcile" or contract is None or contract.unsafe:
                self.calls.setdefault(call.tool, []).append((node.index, _FLAGS[call.use]))

    @property
    def follows(self) -> Follows:
        """What follows what, worked out for the first statement."""
        if self._follows is None:
            self._follows = Follows(self.flow)
        return self._follows

    def knows(self, name: str) -> bool:
        """Whether *name* is a tool, a step or an edge."""
        places = self.places
        return name in self.contracts or bool(places.named_steps(name) or places.named_edges(name))

    # --- from statements to questions ---

    def question_of(self, statement: Statement) -> Question | None:
        """What *statement* asks of the flow; None where the program does nothing that it is
        about.
        """
        name = statement.names[0]
        sites = (
            self.runs(name) if statement.kind == "before" else self.calls.get(statement.tool, [])
        )
        if not sites:
            return None
        match statement.kind:
            case "guard":
                return self.guarded(sites, self.edges(statement.names))
            case "approval":
                return self.approved(statement, sites)
            case "after":
                return _order(sites, self.ends(name))
        return _order(sites, self.tool_ends(statement.tool))

    def edges(self, names: Iterable[str]) -> list[_Guard]:
        """The guards that the edges *names* are."""
        found: dict[tuple[int, str, bool], _Guard] = {}
        for name in names:
            for program, step, label in self.places.named_edges(name):
                before = label in WHEN
                key = id(program), step.id, before
                guard = found.get(key)
                if guard is None:
                    reads = program.deciding(step, before=before)
                    guard = found[key] = _Guard(program, step, [], self.read_by(program, reads))
                guard.crossed += self.crossed(program, step, label)
        return list(found.values())

    def crossed(self, program: Names, step: Step, label: str) -> list[tuple[int, str]]:
        """Where the edge *label* of *step* is."""
        nodes = self.whens if label in WHEN else self.steps
        return [(node, label) for node in nodes.get((id(program), step.id), ())]

    def ends(self, name: str) -> list[tuple[int, str]]:
        """Where what *name* names ends well: a tool's steps, a step, or an edge."""
        if name in self.contracts or name in self.calls:
            return self.tool_ends(name)
        places, nodes = self.places, self.flow.nodes
        named = places.named_steps(name)
        if not named:
            edges = places.named_edges(name)
            return [
                place for names, step, label in edges for place in self.crossed(names, step, label)
            ]
        found = []
        for names, step in named:
            for at in self.steps.get((id(names), step.id), ()):
                if nodes[at].kind == "test" or not isinstance(nodes[at].control, Repeats):
                    found += [
                        (at, edge.label)
                        for edge in nodes[at].edges
                        if edge.label not in _NOT_AN_END
                    ]
        return found

    def tool_ends(self, tool: str) -> list[tuple[int, str]]:
        return [(node, "next") for node, flag in self.calls.get(tool, ()) if flag == STEP]

    def runs(self, name: str) -> list[Site]:
        """The executions of what *name* names: a tool's calls, or the runs of a step. Of an edge
        those of its step: what comes before the decision comes before its edge.
        """
        if name in self.contracts or name in self.calls:
            return self.calls.get(name, [])
        nodes = self.flow.nodes
        found = []
        # an edge that is no decision, and so no guard, is crossed all the same
        whole = name.rpartition(".")[0] if self.places.late(name) is not None else name
        named = [(names, step, "") for names, step in self.places.named_steps(whole)]
        for program, step, label in named or self.places.named_edges(name):
            deciding = self.whens if label in WHEN else self.steps
            found += [
                (n, STEP)
                for n in deciding.get((id(program), step.id), ())
                if nodes[n].kind != "test"
            ]
        return found

    def guarded(self, sites: list[Site], guards: list[_Guard]) -> Question:
        """*sites* against *guards*: a bit for each kind of call and set of names whose change ends
        a guard for it.

        Guards that end together are one; which of them it was does not matter.
        """
        any_guard = frozenset[int]().union(*(guard.reads for guard in guards))
        kinds: dict[Slots, list[Site]] = {}
        for node, flag in sites:
            reads = self.read_by_call(self.flow.nodes[node], flag) & any_guard
            if reads not in kinds and len(kinds) >= MAX_GROUPS:
                last, group = kinds.popitem()
                reads |= last
                kinds[reads] = kinds.get(reads, []) + group
            kinds.setdefault(reads, []).append((node, flag))
        alike: dict[Slots, list[_Guard]] = {}
        for guard in guards:
            alike.setdefault(guard.reads, []).append(guard)
        bits = _Bits()
        for kind, (reads, group) in enumerate(kinds.items()):
            mask = 0
            for read, same in alike.items():
                bit = bits.of(kind, read & reads)
                mask |= bit
                for guard in same:
                    bits.gain(bit, guard.crossed)
            bits.need(mask, group)
        return self.question(bits, sites)

    def approved(self, statement: Statement, sites: list[Site]) -> Question:
        """*sites* against approvals: a bit for each set of arguments that a person must have
        seen.
        """
        asking: dict[Form, list[_Guard]] = {}  # by what is shown
        everyone: list[_Guard] = []
        for guard, show in self.approvals(statement.names[0]):
            everyone.append(guard)
            for part in dict.fromkeys(shown(show, guard.names)):
                asking.setdefault(part, []).append(guard)
        bits = _Bits()
        kinds: dict[object, int] = {}
        for site in sites:
            node = self.flow.nodes[site[0]]
            names = node.frame.names
            arguments = node.call(_USES[site[1]]).args
            protected = {
                name: value for name, value in arguments.items() if statement.protects(name)
            }
            try:
                forms = list(dict.fromkeys(form(value, names) for value in protected.values()))
            except ExprError:  # told by the pass that checks names
                bits.need(0, [site])
                continue
            bound = any(has_references(value) for value in forms)
            key = (frozenset(forms), id(names) if bound else 0)
            if key not in kinds:
                kinds[key] = bits.of(len(kinds), self.slots(names, protected))
                rarest = min((asking.get(value, []) for value in forms), key=len, default=everyone)
                for guard in rarest:
                    if (guard.names is names or not bound) and all(
                        guard in asking[value] for value in forms
                    ):
                        bits.gain(kinds[key], guard.crossed)
            bits.need(kinds[key], [site])
        return self.question(bits, sites)

    def approvals(self, role: str) -> Iterator[tuple[_Guard, Any]]:
        """The approvals by *role*, each with what it shows."""
        for program in self.places.programs.values():
            for step, _ in program.steps:
                asked = self.steps.get((id(program), step.id), [])
                approval = self.flow.nodes[asked[0]].approval if asked else None
                if approval is not None and approval.role == role:
                    yield _Guard(program, step, [(at, "then") for at in asked]), approval.show

    def question(self, bits: _Bits, sites: list[Site]) -> Question:
        calls: dict[int, int] = {}
        for node, flag in sites:
            calls[node] = calls.get(node, 0) | flag
        question = Question(len(bits.ended), bits.gains, bits.needs, calls)
        if any(bits.ended):
            self.writes(question, bits.ended)
        return question

    # --- what is read and written ---

    def slots(self, names: Names, arguments: Mapping[str, Any]) -> Slots:
        """What *arguments*, literals with templates inside, read."""
        base, found = names.base, set()
        for ref in named_references(arguments.values()):
            try:
                found.add(base + names.load(ref)[0])
            except ExprError:  # told by the pass that checks names
                continue
        return frozenset(found)

    def read_by(self, names: Names, reads: Iterable[tuple[Ref, Loc]]) -> Slots:
        """The slots that *reads* read."""
        base, found = names.base, set()
        for ref, _ in reads:
            try:
                found.add(base + names.load(ref)[0])
            except ExprError:
                continue
        return frozenset(found)

    def read_by_call(self, node: Node, flag: int) -> Slots:
        names, step = node.frame.names, node.step
        key = id(names), step.id, flag
        found = self._reads.get(key)
        if found is None:
            found = self._reads[key] = self.slots(names, node.call(_USES[flag]).args)
        return found

    def writes(self, question: Question, ended: list[Slots]) -> None:
        """Where each bit of *question* is taken: by a write of one of the names in *ended*."""
        kills, items, leaving = dict(question.kills), dict(question.items), dict(question.leaving)
        for number, names in enumerate(ended):
            bit = 1 << number
            for slot in sorted(names):
                nodes, frames = self._writers_of(slot)
                for index in nodes:
                    kills[index] = kills.get(index, 0) | bit
                    if self.flow.nodes[index].kind == "test":
                        loop = self.flow.nodes[index].of
                        assert loop is not None
                        for inner in self._within(loop.index):
                            leaving[inner] = leaving.get(inner, 0) | bit
                for frame in frames:
                    items[frame] = items.get(frame, 0) | bit
        question.kills, question.items, question.leaving = kills, items, leaving

    def _writers_of(self, slot: int) -> tuple[list[int], list[int]]:
        """The nodes whose end writes *slot*, and the frames at whose entry it is written."""
        found = self._writers.get(slot)
        if found is None:
            roots = self.flow.roots
            root = roots[bisect_right(roots, slot, key=lambda frame: frame.names.base) - 1]
            found = self._writers[slot] = [], []
            for step, write in root.names.writers.get(slot - root.names.base, ()):
                self._add_writer(root.names, step, write, *found)
            if root.index:
                # each run of a called program has names of its own: it begins by writing all of them
                found[1].append(root.index)
        return found

    def _add_writer(
        self, names: Names, step: Step, write: Write, ends: list[int], begins: list[int]
    ) -> None:
        """Add to *ends* the nodes at whose end, and to *begins* the frames at whose entry, *step*
        writes what is *write*.
        """
        key = id(names), step.id
        nodes = [self.flow.nodes[index] for index in self.steps.get(key, ())]
        if isinstance(write, Item):
            begins += [frame.index for node in nodes for frame in node.frames]
            return
        # a loop writes at the end of an iteration
        ends += [n.index for n in nodes if n.kind == "test" or not isinstance(n.control, Repeats)]
        ends += self.closes.get(key, ())
        if not isinstance(write, Value):  # where the step is skipped, its output is cleared
            ends += self.whens.get(key, ())

    def _within(self, loop: int) -> Iterator[int]:
        """The nodes in the body of *loop*, its own frame only."""
        if not self._inside:
            for node in self.flow.nodes:
                if node.owner is not None:
                    self._inside.setdefault(node.owner.index, []).append(node.index)
        work = [loop]
        while work:
            for inner in self._inside.get(work.pop(), ()):
                yield inner
                work.append(inner)


def _order(sites: list[Site], ends: list[tuple[int, str]]) -> Question:
    """Whether each of *sites* comes after one of *ends*, which nothing takes away."""
    bits = _Bits()
    bit = bits.of(0, frozenset())
    bits.gain(bit, ends)
    bits.need(bit, sites)
    calls: dict[int, int] = {}
    for node, flag in sites:
        calls[node] = calls.get(node, 0) | flag
    return Question(1, bits.gains, bits.needs, calls, uses=False)


class _Bits:
    """The bits of a question: what ends each, who gives it, who needs it."""

    def __init__(self) -> None:
        self.ended: list[Slots] = []
        self.gains: dict[int, dict[str, int]] = {}
        self.needs: dict[int, dict[int, int]] = {}
        self._known: dict[tuple[int, Slots], int] = {}

    def of(self, kind: int, ended: Slots) -> int:
        """The bit of a *kind* of call for guards that a change of one of *ended* ends."""
        bit = self._known.get((kind, ended))
        if bit is None:
            bit = self._known[kind, ended] = 1 << len(self.ended)
            self.ended.append(ended)
        return bit

    def gain(self, bit: int, crossed: Iterable[tuple[int, str]]) -> None:
        for node, label in crossed:
            labels = self.gains.setdefault(node, {})
            labels[label] = labels.get(label, 0) | bit

    def need(self, mask: int, sites: Iterable[Site]) -> None:
        for node, flag in sites:
            self.needs.setdefault(node, {})[flag] = mask
