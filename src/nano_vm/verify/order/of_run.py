"""Whether one run broke a statement: the definitions of `proof`, applied to the records of an
ended machine.

It looks at what happened and at nothing that could happen, and shares no step of its reasoning with
`paths`: order is read off the places of records, and a guard is compared with a call by the writes
that each of them saw. Only what a record shows counts: a call that may never have been made is
none.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...errors import ExprError
from ...explore.tree import held_before
from ...language.expr import Ref, named_references
from ...language.flow import Flow, Names, Node
from ...language.semantics import Repeats, Use, Value
from ...machine.machine import Machine
from ...machine.plan import ToolOp
from ...records.record import BRIEF, edge_of
from ...records.status import StepStatus
from ...tools.contract import ToolContract
from .statement import Form, Places, Statement, form, has_references, shown

Place = tuple[int, ...]
"""Where in a run: the number of a record in its frame, and -1 (before its step), 0 (its begin) or 2
(its end); or 1 (within it), the number of a child, and a place there.
"""

COMPARISONS_AN_EVENT = 64
"""How many comparisons of events one run is judged by, for each of its events. Guards stand next to
their calls, so two or three are enough; a run that takes more counts as one that breaks nothing,
and its statement stays unproved.
"""


class _Writes:
    """The writes to the names of one frame, by slot and in order; a branch sees those of the frame
    around it up to its fork.
    """

    __slots__ = ("around", "base", "slots")

    def __init__(self, around: Seen | None = None, base: int = 0) -> None:
        self.around = around
        self.base = base  # of names that no write is known of
        self.slots: dict[int, list[int]] = {}

    def add(self, slot: int, write: int) -> None:
        self.slots.setdefault(slot, []).append(write)


@dataclass(frozen=True, slots=True)
class Seen:
    """What is seen at one moment of a frame: of each slot the last write until then. The moment is
    kept, and not the slots: a run has as many moments as steps.
    """

    writes: _Writes
    until: int

    def get(self, slot: int) -> int:
        """The number of the last write to *slot*; 0 where there was none."""
        seen = self
        while True:
            writes = seen.writes
            known = writes.slots.get(slot)
            at = bisect_right(known, seen.until) if known else 0
            if known and at:
                return known[at - 1]
            if writes.around is None:
                return writes.base
            seen = writes.around


_MAYBE_NOT_MADE = frozenset({"timeout", "budget", "cancelled"})


def monitor(
    flow: Flow, statement: Statement, contracts: Mapping[str, ToolContract]
) -> Callable[[Machine], bool]:
    """A function that says of an ended root machine of *flow* whether its run breaks
    *statement*.
    """
    asked: list[_Asked] = []  # made for the first run: most statements are proved, and see none

    def breaks(machine: Machine) -> bool:
        if not asked:
            asked.append(_Asked(flow, statement, contracts))
        run = _Run(flow)
        run.frame(machine.records, (), _Writes())
        return _Judge(run, asked[0]).broken()

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

    def frame(self, records: list[Any], place: Place, writes: _Writes) -> None:
        """The records of one frame; *writes* are those to its names, and are added to."""
        loops: set[str] = set()
        for i, record in enumerate(records):
            here = (*place, i)
            if len(record) == BRIEF:  # a tool's first success
                self.step(self.flow.nodes[record[0]], here, writes, StepStatus.SUCCESS, None, True)
                continue
            op, path, status, _, error, request, _, _, attempts, _, extra = record
            made = _made(op, status, error, request, attempts)
            if op.index < 0:
                self.beside(path, here, writes, made, records, i)
                continue
            node = self.flow.nodes[op.index]
            for when in held_before(op, path, extra, loops):
                self.ends.append(
                    _End((*here, -1), self.flow.nodes[when.index], self.now(writes), "when")
                )
            for number, child in enumerate(
                extra.get("children", ()) if type(extra) is dict else ()
            ):
                graph = node.child(number)
                if graph.names is node.frame.names:
                    inside = _Writes(self.now(writes))
                else:  # each run of a called program has names of its own
                    self.writes += 1
                    inside = _Writes(base=self.writes)
                if graph.item is not None:
                    self.write(inside, [graph.item])
                self.frame(child, (*here, 1, number), inside)
            self.step(node, here, writes, status, extra, made)
            self.by_path[path] = (*here, 2), node, self.now(writes)

    def now(self, writes: _Writes) -> Seen:
        """What is seen in a frame at this moment."""
        return Seen(writes, self.writes)

    def step(
        self, node: Node, here: Place, writes: _Writes, status: StepStatus, extra: Any, made: bool
    ) -> None:
        step = node.step
        done = status is StepStatus.SUCCESS
        if made if node.calls else done:
            # a loop is recorded at its end; where it began is not told
            begin = (*here, 2 if isinstance(node.control, Repeats) else 0)
            self.calls.append(_Call(begin, begin, node, self.now(writes)))
        edge = _edge(node, extra)
        if done or edge == "unless":
            self.ends.append(_End((*here, 2), node, self.now(writes), edge))
        caught = type(extra) is dict and "caught" in extra
        if done or caught or status is StepStatus.SKIPPED:
            names = node.frame.names
            self.write(writes, names.results(step))
            if done:
                values = [slot for slot, write in names.writes(step) if isinstance(write, Value)]
                self.write(writes, values)

    def beside(
        self, path: str, here: Place, writes: _Writes, made: bool, records: list[Any], at: int
    ) -> None:
        """An undo or reconcile: its path is that of its step, and what it is."""
        base, _, word = path.rpartition("/")
        if not made:
            return
        if word == "undo":
            read, node, then = self.by_path[base]
            self.calls.append(_Call((*here, 0), read, node, then, "undo"))
            return
        for following in range(at + 1, len(records)):  # a reconcile is told before its step
            record = records[following]
            if len(record) != BRIEF and record[1] == base and record[0].index >= 0:
                self.calls.append(
                    _Call(
                        (*here, 0),
                        (*here, 0),
                        self.flow.nodes[record[0].index],
                        self.now(writes),
                        "reconcile",
                    )
                )
                return

    def write(self, writes: _Writes, slots: Iterable[int]) -> None:
        for slot in slots:
            self.writes += 1
            writes.add(slot, self.writes)


def _made(op: Any, status: StepStatus, error: Any, request: Any, attempts: Any) -> bool:
    """Whether a record shows that its call was made: one that fails before it has no request."""
    if type(request) is not tuple or len(request) != len(op.names):
        return bool(attempts)
    if status in (StepStatus.SUCCESS, StepStatus.IN_DOUBT) or attempts:
        return True
    return error is not None and error.kind not in _MAYBE_NOT_MADE


def _edge(node: Node, extra: Any) -> str:
    """The edge that a step took, by its label in the flow."""
    branch = edge_of(extra) or ""
    return f"case:{branch}" if node.follow(f"case:{branch}") is not None else branch


StepKey = tuple[int, str]
"""A step, by its names and id."""


class _Asked:
    """What a statement names in a flow, found once for all runs."""

    def __init__(
        self, flow: Flow, statement: Statement, contracts: Mapping[str, ToolContract]
    ) -> None:
        self.statement = statement
        self.places = Places(flow)
        self.tools = set(contracts)
        for frame in flow.roots:
            for calls in frame.names.calls.values():
                self.tools.update(call.tool for call in calls)
        self.guarding = {edge for name in statement.names for edge in self.edges(name)}
        self._reads: dict[tuple[int, str, str], frozenset[int]] = {}
        self._wanted: dict[tuple[int, str, Use], tuple[list[Form], frozenset[int]]] = {}
        self._shown: dict[StepKey, frozenset[Form]] = {}

    def edges(self, name: str) -> set[tuple[int, str, str]]:
        """The edges of that *name*: whose step, and the label."""
        return {(id(n), step.id, label) for n, step, label in self.places.named_edges(name)}

    def steps(self, name: str) -> set[StepKey]:
        """The steps of that *name*."""
        return {(id(names), step.id) for names, step in self.places.named_steps(name)}

    def read_by_guard(self, guard: _End) -> frozenset[int]:
        """The slots that what decides a guard reads."""
        names, step, before = guard.node.frame.names, guard.node.step, guard.node.kind == "when"
        key = id(names), step.id, "when" if before else "step"
        if key not in self._reads:
            reads = names.deciding(step, before=before)
            self._reads[key] = _slots(names, (ref for ref, _ in reads))
        return self._reads[key]

    def wanted(self, call: _Call) -> tuple[list[Form], frozenset[int]]:
        """What must have been shown of a call's arguments, or of all that a guard may read; and
        the slots that they read.
        """
        names = call.node.frame.names
        key = id(names), call.node.step.id, call.use
        if key not in self._wanted:
            values = list(_arguments(call).items())
            forms: list[Form] = []
            if self.statement.kind == "approval":
                values = [(n, value) for n, value in values if self.statement.protects(n)]
                forms = [form(value, names) for _, value in values]
            read = _slots(names, named_references(value for _, value in values))
            self._wanted[key] = forms, read
        return self._wanted[key]

    def shown(self, guard: _End) -> frozenset[Form]:
        """What an approval shows."""
        names, approval = guard.node.frame.names, guard.node.approval
        assert approval is not None
        key = _step(guard.node)
        if key not in self._shown:
            self._shown[key] = frozenset(shown(approval.show, names))
        return self._shown[key]


class _TooLong(Exception):
    """A run that cannot be judged within its comparisons."""


class _Judge:
    """A run against a statement."""

    def __init__(self, run: _Run, asked: _Asked) -> None:
        self.run = run
        self.asked = asked
        self.left = COMPARISONS_AN_EVENT * (len(run.calls) + len(run.ends) + 1)

    def broken(self) -> bool:
        """Whether the run breaks the statement, and that is seen in time."""
        try:
            if self.asked.statement.kind in ("guard", "approval"):
                return self.unguarded()
            return self.out_of_order()
        except _TooLong:
            return False

    def happens_before(self, one: Place, other: Place) -> bool:
        self.left -= 1
        if self.left < 0:
            raise _TooLong
        return happens_before(one, other)

    # --- what comes after something ---

    def out_of_order(self) -> bool:
        statement, asked = self.asked.statement, self.asked
        other = statement.names[0]
        first, then = (
            (other, statement.tool) if statement.kind == "after" else (statement.tool, other)
        )
        runs = self.runs_of(then)
        if runs is not None:
            begun = [call.place for call in self.run.calls if runs(call)]
        else:  # an edge is crossed where its step ends
            edges = asked.edges(then)
            begun = [end.place for end in self.run.ends if _crosses(end, edges)]
        ends = self.ends_of(first)
        ended = sorted(end.place for end in self.run.ends if ends(end))
        return not all(any(self.happens_before(end, place) for end in ended) for place in begun)

    def runs_of(self, name: str) -> Callable[[_Call], bool] | None:
        """Whether a call is an execution of the tool or step *name*; None where it is neither."""
        if name in self.asked.tools:
            return lambda call: _is_call(call, name)
        steps = self.asked.steps(name)
        return (lambda call: call.use == "step" and _step(call.node) in steps) if steps else None

    def ends_of(self, name: str) -> Callable[[_End], bool]:
        """Whether an end is a good one of what *name* names."""
        if name in self.asked.tools:
            return lambda end: (
                end.node.kind != "when"
                and any(call.use == "step" and call.tool == name for call in end.node.calls)
            )
        steps = self.asked.steps(name)
        if steps:
            return lambda end: end.node.kind != "when" and _step(end.node) in steps
        edges = self.asked.edges(name)
        return lambda end: _crosses(end, edges)

    # --- guards ---

    def unguarded(self) -> bool:
        statement = self.asked.statement
        calls = [call for call in self.run.calls if _is_call(call, statement.tool)]
        calls.sort(key=lambda call: call.place)
        guards = [end for end in self.run.ends if self.may_guard(end)]
        guards.sort(key=lambda end: end.place)
        places = [end.place for end in guards]
        return not all(
            any(
                self.is_for(guards[at], number, calls)
                # the nearest first: it is the one that nothing comes between
                for at in range(bisect_left(places, call.read) - 1, -1, -1)
            )
            for number, call in enumerate(calls)
        )

    def may_guard(self, end: _End) -> bool:
        """Whether *end* is a guard by its step and edge."""
        statement, approval = self.asked.statement, end.node.approval
        if statement.kind == "guard":
            return _crosses(end, self.asked.guarding)
        asked = approval is not None and approval.role == statement.names[0]
        return asked and end.edge == "then"

    def is_for(self, guard: _End, number: int, calls: list[_Call]) -> bool:
        """Whether *guard* is good for the call of this *number*, of those that are in order."""
        call = calls[number]
        return (
            self.happens_before(guard.place, call.read)
            and not self.used_up(guard, number, calls)
            and self.saw_the_same(guard, call)
        )

    def used_up(self, guard: _End, number: int, calls: list[_Call]) -> bool:
        """Whether another call comes after *guard* and not after the call. What happens before
        something has the lower place, so only what stands between the two, and what runs beside
        the call, is looked at.
        """
        call = calls[number]
        for before in range(number - 1, -1, -1):
            other = calls[before]
            if other.place < guard.place:
                break
            if self.happens_before(guard.place, other.place):
                return True
        if len(call.place) > 2:  # in a fork: its siblings have the same begin of a place
            for after in range(number + 1, len(calls)):
                other = calls[after]
                if other.place[:2] != call.place[:2]:
                    break
                if self.happens_before(guard.place, other.place) and not happens_before(
                    call.place, other.place
                ):
                    return True
        return False

    def saw_the_same(self, guard: _End, call: _Call) -> bool:
        """Whether what *guard* and *call* read in common was the same write for both, and, of an
        approval, whether the arguments were shown.
        """
        forms, read = self.asked.wanted(call)
        same = guard.node.frame.names is call.node.frame.names
        if self.asked.statement.kind == "guard":
            read = read & self.asked.read_by_guard(guard) if same else frozenset()
        else:
            known = self.asked.shown(guard)
            if not all(value in known for value in forms):
                return False
            if not same:
                return not any(map(has_references, forms))
        return all(guard.seen.get(slot) == call.seen.get(slot) for slot in read)


def _step(node: Node) -> StepKey:
    return id(node.frame.names), node.step.id


def _crosses(end: _End, edges: set[tuple[int, str, str]]) -> bool:
    return (*_step(end.node), end.edge) in edges


def _is_call(call: _Call, tool: str) -> bool:
    return any(made.use == call.use and made.tool == tool for made in call.node.calls)


def _arguments(call: _Call) -> Mapping[str, Any]:
    return call.node.call(call.use).args


def _slots(names: Names, references: Iterable[Ref]) -> frozenset[int]:
    found: set[int] = set()
    for ref in references:
        try:
            found.add(names.load(ref)[0])
        except ExprError:
            continue
    return frozenset(found)


def called_more(flow: Flow, tool: str, limit: int, machine: Machine) -> bool:
    """Whether the run of an ended root machine called *tool* more than *limit* times, attempts
    counted.
    """
    return _called(flow, tool, machine.records) > limit


def _called(flow: Flow, tool: str, records: list[Any]) -> int:
    count = 0
    for record in records:
        if len(record) == BRIEF:
            count += flow.nodes[record[0]].call("step").tool == tool
            continue
        op, _, status, _, error, request, _, _, attempts, _, extra = record
        if isinstance(op, ToolOp) and op.tool == tool:
            count += len(attempts or ()) + (
                _made(op, status, error, request, None) and status is not StepStatus.CANCELLED
            )
        if type(extra) is dict:
            count += sum(_called(flow, tool, child) for child in extra.get("children", ()))
    return count
