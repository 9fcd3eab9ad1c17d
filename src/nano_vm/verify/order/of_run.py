"""Whether one run broke a statement: the definitions of `guards`, applied to the records of an
ended machine.

It looks at what happened and at nothing that could happen, and shares no step of its reasoning with
`paths`: order is read off the places of records, and a guard is compared with a call by the writes
that each of them saw. Only what a record shows counts: a call that may never have been made is
none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...errors import ExprError
from ...explore.tree import held_before
from ...language.expr import Ref, named_references
from ...language.flow import Flow, Names, Node
from ...language.program import ApprovalStep, LoopStep, MapStep, SetStep, ToolStep
from ...machine.machine import Machine
from ...machine.plan import ToolOp
from ...records.trace import BRIEF, StepStatus
from ...tools.contract import ToolContract
from .statement import Form, Places, Statement, Use, call_arguments, form, has_references, shown

Place = tuple[int, ...]
"""Where in a run: the number of a record in its frame, and -1 (before its step), 0 (its begin) or 2
(its end); or 1 (within it), the number of a child, and a place there.
"""

Seen = dict[int, int]
"""By slot, which write to it is the last."""

_MAYBE_NOT_MADE = frozenset({"timeout", "budget", "cancelled"})


def monitor(
    flow: Flow, statement: Statement, contracts: Mapping[str, ToolContract]
) -> Callable[[Machine], bool]:
    """A function that says of an ended root machine of *flow* whether its run breaks
    *statement*.
    """
    places = Places(flow)

    def breaks(machine: Machine) -> bool:
        run = _Run(flow)
        run.frame(machine.records, (), {})
        return _Judge(run, statement, places, contracts).broken()

    return breaks


def happens_before(one: Place, other: Place) -> bool:
    """Whether *one* is before *other*; of places in two children of a fork neither is."""
    for level in range(0, min(len(one), len(other)), 3):
        if one[level : level + 2] != other[level : level + 2]:
            return one[level : level + 2] < other[level : level + 2]
        if one[level + 2 : level + 3] != other[level + 2 : level + 3]:
            return False
    return False


@dataclass(slots=True, eq=False)
class _Call:
    """A step that ran, or a call beside it; ``read`` is where its arguments were read, ``seen``
    what they saw.
    """

    place: Place
    read: Place
    node: Node
    seen: Seen
    use: Use = "step"


@dataclass(slots=True, eq=False)
class _End:
    """A step that ended well, and the edge that it took; ``seen`` is what it read."""

    place: Place
    node: Node
    seen: Seen
    edge: str


@dataclass(slots=True)
class _Run:
    """The records of a run as events."""

    flow: Flow
    calls: list[_Call] = field(default_factory=list)
    ends: list[_End] = field(default_factory=list)
    by_path: dict[str, tuple[Place, Node, Seen]] = field(
        default_factory=dict
    )  # of steps: their end, and what is seen then
    writes: int = 0

    def frame(self, records: list[Any], place: Place, seen: Seen) -> None:
        """The records of one frame; *seen* is what its names hold as it begins, and is written
        on.
        """
        loops: set[str] = set()
        for i, record in enumerate(records):
            here = (*place, i)
            if len(record) == BRIEF:  # a tool's first success
                self.step(self.flow.nodes[record[0]], here, seen, StepStatus.SUCCESS, None, True)
                continue
            op, path, status, _, error, request, _, _, attempts, _, extra = record
            made = _made(op, status, error, request, attempts)
            if op.index < 0:
                self.beside(path, here, seen, made, records[i + 1 :])
                continue
            node = self.flow.nodes[op.index]
            for when in held_before(op, path, extra, loops):
                self.ends.append(_End((*here, -1), self.flow.nodes[when.index], dict(seen), "when"))
            for number, child in enumerate(
                extra.get("children", ()) if type(extra) is dict else ()
            ):
                graph = node.frames[0 if isinstance(node.step, MapStep) else number]
                inside = dict(seen) if graph.names is node.frame.names else {}
                # each run of a called program has names of its own
                if graph.names is not node.frame.names:
                    self.write(inside, range(graph.names.size))
                if isinstance(node.step, MapStep):
                    self.write(inside, [graph.names.keys[node.step.item_name]])
                self.frame(child, (*here, 1, number), inside)
            self.step(node, here, seen, status, extra, made)
            self.by_path[path] = (*here, 2), node, dict(seen)

    def step(
        self, node: Node, here: Place, seen: Seen, status: StepStatus, extra: Any, made: bool
    ) -> None:
        step = node.step
        done = status is StepStatus.SUCCESS
        if made if isinstance(step, ToolStep) else done:
            begin = (
                *here,
                2 if isinstance(step, LoopStep) else 0,
            )  # a loop is recorded at its end; where it began is not told
            self.calls.append(_Call(begin, begin, node, dict(seen)))
        edge = _edge(node, extra)
        if done or edge == "unless":
            self.ends.append(_End((*here, 2), node, dict(seen), edge))
        caught = type(extra) is dict and "caught" in extra
        if done or caught or status is StepStatus.SKIPPED:
            names = node.frame.names
            self.write(seen, names.results(step))
            if isinstance(step, SetStep) and done:
                self.write(seen, [names.keys[name] for name in step.values])

    def beside(self, path: str, here: Place, seen: Seen, made: bool, following: list[Any]) -> None:
        """An undo or reconcile: its path is that of its step, and what it is."""
        base, _, word = path.rpartition("/")
        if not made:
            return
        if word == "undo":
            read, node, then = self.by_path[base]
            self.calls.append(_Call((*here, 0), read, node, then, "undo"))
            return
        for record in following:  # a reconcile is told before its step
            if len(record) != BRIEF and record[1] == base and record[0].index >= 0:
                self.calls.append(
                    _Call(
                        (*here, 0),
                        (*here, 0),
                        self.flow.nodes[record[0].index],
                        dict(seen),
                        "reconcile",
                    )
                )
                return

    def write(self, seen: Seen, slots: Iterable[int]) -> None:
        for slot in slots:
            self.writes += 1
            seen[slot] = self.writes


def _made(op: Any, status: StepStatus, error: Any, request: Any, attempts: Any) -> bool:
    """Whether a record shows that its call was made: one that fails before it has no request."""
    if type(request) is not tuple or len(request) != len(op.names):
        return bool(attempts)
    if status in (StepStatus.SUCCESS, StepStatus.IN_DOUBT) or attempts:
        return True
    return error is not None and error.kind not in _MAYBE_NOT_MADE


def _edge(node: Node, extra: Any) -> str:
    """The edge that a step took, by its label in the flow."""
    if type(extra) is tuple:
        return str(extra[0])
    if type(extra) is not dict:
        return ""
    if isinstance(node.step, LoopStep) and node.kind != "when":
        return "exhausted" if extra.get("exhausted") else "until"
    branch = str(extra.get("branch", ""))
    return f"case:{branch}" if node.follow(f"case:{branch}") is not None else branch


@dataclass(slots=True)
class _Judge:
    """A run against a statement."""

    run: _Run
    statement: Statement
    places: Places
    contracts: Mapping[str, ToolContract]

    def broken(self) -> bool:
        statement = self.statement
        if statement.kind in ("guard", "approval"):
            calls = [call for call in self.run.calls if self.is_call(call, statement.tool)]
            return not all(self.guarded(call, calls) for call in calls)
        other = statement.names[0]
        first, then = (
            (other, statement.tool) if statement.kind == "after" else (statement.tool, other)
        )
        begun = [call.place for call in self.run.calls if self.runs(call, then)]
        # an edge is crossed where its step ends
        if not self.is_tool(then) and not self.places.named_steps(then):
            begun = [end.place for end in self.run.ends if self.crosses(end, then)]
        return not all(
            any(self.ends(end, first) and happens_before(end.place, place) for end in self.run.ends)
            for place in begun
        )

    def is_call(self, call: _Call, tool: str) -> bool:
        step = call.node.step
        if not isinstance(step, ToolStep):
            return False
        made = {"undo": step.undo, "reconcile": step.reconcile, "step": step}[call.use]
        return made is not None and made.tool == tool

    def is_tool(self, name: str) -> bool:
        return name in self.contracts or any(
            isinstance(node.step, ToolStep)
            and any(
                part is not None and part.tool == name
                for part in (node.step, node.step.undo, node.step.reconcile)
            )
            for node in self.run.flow.nodes
        )

    def runs(self, call: _Call, name: str) -> bool:
        """Whether *call* is an execution of the tool or step *name*."""
        if self.is_tool(name):
            return self.is_call(call, name)
        return call.use == "step" and self.is_step(call.node, name)

    def is_step(self, node: Node, name: str) -> bool:
        return any(
            names is node.frame.names and step is node.step
            for names, step in self.places.named_steps(name)
        )

    def ends(self, end: _End, name: str) -> bool:
        """Whether *end* is a good end of what *name* names."""
        ran = end.node.kind != "when"
        if self.is_tool(name):
            return ran and isinstance(end.node.step, ToolStep) and end.node.step.tool == name
        if self.places.named_steps(name):
            return ran and self.is_step(end.node, name)
        return self.crosses(end, name)

    def crosses(self, end: _End, edge: str) -> bool:
        named = self.places.named_edges(edge)
        return any(
            n is end.node.frame.names and s is end.node.step and label == end.edge
            for n, s, label in named
        )

    def guarded(self, call: _Call, calls: list[_Call]) -> bool:
        return any(
            happens_before(guard.place, call.read)
            and self.guards(guard, call)
            and not any(
                happens_before(guard.place, other.place)
                and not happens_before(call.place, other.place)
                for other in calls
                if other is not call
            )
            for guard in self.run.ends
        )

    def guards(self, guard: _End, call: _Call) -> bool:
        """Whether *guard* is one for *call*, and both saw the same."""
        statement, names = self.statement, call.node.frame.names
        same = guard.node.frame.names is names
        if statement.kind == "guard":
            if not any(self.crosses(guard, edge) for edge in statement.names):
                return False
            read = set()
            if same:
                reads = (names.whens if guard.node.kind == "when" else names.reads)[
                    guard.node.step.id
                ]
                read = _slots(names, (ref for ref, _ in reads))
            read &= _slots(names, named_references(_arguments(call).values()))
        else:
            step = guard.node.step
            if not (
                isinstance(step, ApprovalStep)
                and step.role == statement.names[0]
                and guard.edge == "then"
            ):
                return False
            protected = {
                name: value for name, value in _arguments(call).items() if statement.protects(name)
            }
            known: set[Form] = set(shown(step.show, guard.node.frame.names))
            wanted = [form(value, names) for value in protected.values()]
            if not all(value in known for value in wanted) or (
                not same and any(map(has_references, wanted))
            ):
                return False
            read = _slots(names, named_references(protected.values())) if same else set()
        return all(guard.seen.get(slot) == call.seen.get(slot) for slot in read)


def _arguments(call: _Call) -> Mapping[str, Any]:
    assert isinstance(call.node.step, ToolStep)
    return call_arguments(call.node.step, call.use)


def _slots(names: Names, references: Iterable[Ref]) -> set[int]:
    found = set()
    for ref in references:
        try:
            found.add(names.load(ref)[0])
        except ExprError:
            continue
    return found


def called_more(flow: Flow, tool: str, limit: int, machine: Machine) -> bool:
    """Whether the run of an ended root machine called *tool* more than *limit* times, attempts
    counted.
    """
    return _called(flow, tool, machine.records) > limit


def _called(flow: Flow, tool: str, records: list[Any]) -> int:
    count = 0
    for record in records:
        if len(record) == BRIEF:
            step = flow.nodes[record[0]].step
            count += isinstance(step, ToolStep) and step.tool == tool
            continue
        op, _, status, _, error, request, _, _, attempts, _, extra = record
        if isinstance(op, ToolOp) and op.tool == tool:
            count += len(attempts or ()) + (
                _made(op, status, error, request, None) and status is not StepStatus.CANCELLED
            )
        if type(extra) is dict:
            count += sum(_called(flow, tool, child) for child in extra.get("children", ()))
    return count
