"""The one graph of a program: what may follow what. The verifier proves over it, the compiler
lowers exactly it.

A `Program` comes in; nodes and labelled edges go out, and Diagnostics for targets that are no
targets. It runs nothing.

A node is a step in one of its states. How a step was reached decides what follows it, so a step has
two states: entered *in order* or by *jump*. A step inside a block has these two for each state of
its container, since the end of the block is followed by whatever follows the container in that
state.

Rule 1: a jump is a tail call. Without ``next``, what is reached by jump ends its frame after its
blocks. Rule 2: a block is a call. Its end returns to its container (a `close` or `test` node),
which goes on in its own state. Rule 3: a frame (the run, a called program, a branch, an item) is
left by its own `end` or `fail` only. No edge but ``fork`` enters a frame, and the step that forks
is followed only after all its frames have ended.
"""

from __future__ import annotations

import hashlib
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Any, Literal

from ..diagnostics import Diagnostic, Loc
from ..errors import ExprError
from ..spelling import Hints
from ..values import canonical
from .expr import Ref, expression_references, value_references
from .program import END, FAIL, MAX_STEPS, NEXT, Block, OnError, Program, SetStep, Step, block_at
from .semantics import (
    ERROR_WORDS,
    GOES,
    OUTPUT,
    WHEN,
    Approval,
    Calls,
    Chooses,
    Control,
    Forks,
    Goes,
    Repeats,
    Stops,
    Term,
    Test,
    Told,
    ToolCall,
    Use,
    Way,
    Write,
    control,
    error_words,
    output,
    reads,
    tool_calls,
    writes,
)

MAX_NODES = 50_000
"""Nodes of a graph: five a step at the largest program. Only calls of calls and nested double
entries come near it.
"""

MAX_HANDLERS = 50_000
"""Edges of handlers of a graph: five a step at the largest program. Each step inside a loop has an
edge to each handler of each loop around it, so only loops with hundreds of handlers around hundreds
of steps come near it.
"""

Mode = Literal["order", "jump"]
Kind = Literal["step", "when", "test", "close", "end", "fail"]


@dataclass(slots=True)
class Names:
    """The names of one program and their slots: keys (``$name``), outputs of steps
    (``$step.output``) and errors of steps.
    """

    program: Program
    loc: Loc
    keys: dict[str, int] = field(default_factory=dict)
    outputs: dict[str, int] = field(default_factory=dict)
    errors: dict[tuple[str, str], int] = field(
        default_factory=dict
    )  # by step and word: `error` or `errors` that are read
    declared: set[str] = field(default_factory=set)
    written: set[str] = field(default_factory=set)
    # what inputs must give, and where it is read first
    needed: dict[str, Loc] = field(default_factory=dict)
    # as `needed`, of names that only `default` reads
    optional: dict[str, Loc] = field(default_factory=dict)
    ids: dict[str, Loc] = field(default_factory=dict)
    # all of the program, in document order
    steps: list[tuple[Step, Loc]] = field(default_factory=list)
    by_id: dict[str, Step] = field(default_factory=dict)
    controls: dict[str, Control] = field(default_factory=dict)  # by step id: where it goes
    # by id of a step that calls tools: its calls
    calls: dict[str, tuple[ToolCall, ...]] = field(default_factory=dict)
    # by id of a step that writes names beside its output: these, and what
    named: dict[str, tuple[tuple[str, Write], ...]] = field(default_factory=dict)
    # by step id: the slots that it writes, and what
    wrote: dict[str, tuple[tuple[int, Write], ...]] = field(default_factory=dict)
    # by slot: each step that writes it, and what
    writers: dict[int, list[tuple[Step, Write]]] = field(default_factory=dict)
    # by step id: what `reads` gives
    reads: dict[str, list[tuple[Ref, Loc]]] = field(default_factory=dict)
    # likewise what its `when` reads
    whens: dict[str, list[tuple[Ref, Loc]]] = field(default_factory=dict)
    # likewise of what its output is made, once a pass asks for it
    terms: dict[str, tuple[Term, ...]] = field(default_factory=dict)
    size: int = 0
    base: int = 0  # the first of its slots among those of all programs of a flow

    @classmethod
    def of(cls, program: Program, loc: Loc) -> Names:
        """The names that *program* declares, writes and reads."""
        names = cls(program, loc)
        steps = names.steps = list(program.walk())
        for step, at in steps:
            step_id = step.id
            names.ids[step_id], names.by_id[step_id] = at, step
            names.controls[step_id] = control(step)
            if calls := tool_calls(step):
                names.calls[step_id] = calls
            names.reads[step_id] = list(reads(step))
            if step.when is not None:
                at_when: Loc = ("when",)
                names.whens[step_id] = [(r, at_when) for r in expression_references(step.when)]
            names.outputs[step_id] = -1
            if named := tuple(writes(step)):
                names.named[step_id] = named
                names.written.update(name for name, _ in named)
        # Inputs have the first slots: a run's frame is the values that it is given, and then what it writes.
        schema = program.inputs or {}
        for name in schema.get("properties", {}):
            names.declared.add(name)
            names.key(name)
        asked: list[Ref] = []  # what reads what went wrong in a step, it seems
        for ref, at, where in names._every_read():
            names.note(ref, at, where)
            if ref.path and ref.path[0] in ERROR_WORDS:
                asked.append(ref)
        for step, _ in steps:
            names.outputs[step.id] = names.size
            names.size += 1
            for name, _ in names.named.get(step.id, ()):
                names.key(name)
        names._errors(asked)
        for step, _ in steps:
            wrote = names.wrote[step.id] = tuple(names._writes(step))
            for slot, write in wrote:
                names.writers.setdefault(slot, []).append((step, write))
        return names

    def _every_read(self) -> Iterator[tuple[Ref, Loc, Loc]]:
        """All that the program reads: what, by the step at which place, and where in it."""
        for step, at in self.steps:
            for ref, where in self.all_reads(step):
                yield ref, at, where
        for ref in value_references(self.program.output):
            yield ref, (), ("output",)

    def _errors(self, asked: Iterable[Ref]) -> None:
        """A slot for each `$step.error` and `$step.errors` among *asked* that there is."""
        for ref in asked:
            step, word = self.by_id.get(ref.name), str(ref.path[0])
            told = step is not None and word in [*error_words(step, self.controls[step.id])]
            if told and (ref.name, word) not in self.errors:
                self.errors[ref.name, word] = self.size
                self.size += 1

    def key(self, name: str) -> int:
        """The slot of ``$name``."""
        slot = self.keys.get(name)
        if slot is None:
            slot = self.keys[name] = self.size
            self.size += 1
        return slot

    def all_reads(self, step: Step) -> list[tuple[Ref, Loc]]:
        """What *step* reads, before it (its `when`) and in it."""
        before = self.whens.get(step.id)
        return self.reads[step.id] if before is None else [*before, *self.reads[step.id]]

    def output(self, step: Step) -> tuple[Term, ...]:
        """The terms of which the output of *step* is one, where it succeeds."""
        found = self.terms.get(step.id)
        if found is None:
            found = self.terms[step.id] = output(step)
        return found

    def deciding(self, step: Step, *, before: bool = False) -> list[tuple[Ref, Loc]]:
        """What the decision of *step* reads; *before* it, its `when`."""
        if before:
            return self.whens[step.id]
        decides = self.controls[step.id]
        test = decides.test if isinstance(decides, Chooses) else None
        read = self.reads[step.id]
        return read if test is None else [one for one in read if one[1][0] == test.field]

    def early(self) -> dict[str, Loc]:
        """Those `needed` names that a step writes too: they are read before any step can have
        written them.
        """
        return {name: loc for name, loc in self.needed.items() if name in self.written}

    def note(self, ref: Ref, at: Loc, where: Loc) -> None:
        """Take a name that no step writes for an input, which is needed unless only `default` reads
        it; it is read by the step *at* a place, *where* in it.
        """
        name = ref.name
        if name in self.written or name in self.outputs:
            return
        self.key(name)
        if name in self.needed:
            return
        if not ref.optional:
            self.needed[name] = (*at, *where)
            self.optional.pop(name, None)
        elif name not in self.optional:
            self.optional[name] = (*at, *where)

    @property
    def inputs(self) -> Set[str]:
        """The names that can be given: those that are declared, or all where none are."""
        schema = self.program.inputs
        return self.keys.keys() if schema is None else {*self.declared, *schema.get("required", ())}

    def takes(self, name: str) -> bool:
        """Whether inputs may give *name*: it is declared, or read and written by no step."""
        return name in self.needed or name in self.declared or name in self.optional

    def writes(self, step: Step) -> tuple[tuple[int, Write], ...]:
        """The slots that *step* writes, and what: its output, names, what went wrong."""
        return self.wrote[step.id]

    def _writes(self, step: Step) -> Iterator[tuple[int, Write]]:
        yield self.outputs[step.id], OUTPUT
        for name, write in self.named.get(step.id, ()):
            yield self.keys[name], write
        for word in ERROR_WORDS if self.errors else ():
            slot = self.errors.get((step.id, word))
            if slot is not None:
                yield slot, Told(word)

    def results(self, step: Step) -> list[int]:
        """The slots that the end of *step* writes or clears, however it ends."""
        found = [self.outputs[step.id]]
        if step.output_key is not None:
            found.append(self.keys[step.output_key])
        for word in ERROR_WORDS if self.errors else ():
            slot = self.errors.get((step.id, word))
            if slot is not None:
                found.append(slot)
        return found

    def is_error(self, ref: Ref) -> bool:
        """Whether *ref* reads what went wrong in a step."""
        return bool(ref.path) and (ref.name, ref.path[0]) in self.errors

    def load(self, ref: Ref) -> tuple[int, tuple[str | int, ...]]:
        """As `expr.Scope.load`: the slot, and the path behind it."""
        name, path = ref.name, ref.path
        if name in self.outputs:
            if path and path[0] == "output":
                return self.outputs[name], path[1:]
            if path and (name, path[0]) in self.errors:
                return self.errors[name, str(path[0])], path[1:]
            if name not in self.keys:
                if path:  # `$step.field`, as 0.1 read it
                    return self.outputs[name], path
                raise ExprError(f"{ref} is a step, not a value; write ${name}.output")
        if name not in self.keys:
            raise ExprError(f"unknown name {ref}")
        return self.keys[name], path


@dataclass(slots=True, eq=False)
class Edge:
    """What may follow: ``next``, ``then``, ``otherwise``, ``case:x``, ``default``, ``until``,
    ``again``, ``exhausted``, ``when``, ``unless``, ``skip``, ``catch``, ``error``, ``fork``;
    ``catch`` carries the kinds it takes.
    """

    label: str
    target: int
    errors: tuple[str, ...] = ()
    by: int = -1  # the node whose handler it is, where an enclosing loop's


@dataclass(slots=True, eq=False, weakref_slot=True)
class Node:
    """A step in one state; what decides before it whether it runs (`when`); or an end of something:
    a block (`close`), an iteration (`test`), a frame (`end`, `fail`).
    """

    index: int
    kind: Kind
    step: Step
    mode: Mode
    frame: FrameGraph
    loc: Loc
    owner: Node | None
    control: Control
    # of a `close` or `test`: the step node whose block it ends; of a `when`: the one behind it
    of: Node | None = None
    edges: list[Edge] = field(default_factory=list)
    frames: list[FrameGraph] = field(default_factory=list)

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """The calls of tools that the step makes: its own, and those beside it."""
        return self.frame.names.calls.get(self.step.id, ())

    def call(self, use: Use) -> ToolCall:
        """The call that the step makes as *use*."""
        return next(call for call in self.calls if call.use == use)

    def child(self, number: int) -> FrameGraph:
        """The frame of the child *number* of a fork: all items have the same."""
        return self.frames[0 if self.frames[0].item is not None else number]

    @property
    def approval(self) -> Approval | None:
        """What a person is asked here, where one is."""
        control = self.control if self.kind == "step" else None
        return control.approval if isinstance(control, Chooses) else None

    @property
    def test(self) -> Test | None:
        """The condition that decides here, if one does."""
        match self.kind, self.control:
            case "when", _:
                return Test("when", self.step.when, WHEN[0], WHEN[1:])
            case "step", Chooses() as chooses:
                return chooses.test
            case "test", Repeats() as loop:
                return loop.test
        return None

    @property
    def looks(self) -> bool:
        """Whether its step, or the `when` before it, reads here what it reads: a loop does at the
        end of an iteration, others where they begin.
        """
        match self.kind:
            case "step":
                return not isinstance(self.control, Repeats)
            case "end":
                return self.frame.own_names  # which alone have an output
        return self.kind not in ("close", "fail")

    @property
    def reads(self) -> list[tuple[Ref, Loc]]:
        """What is read here, see `looks`."""
        names = self.frame.names
        match self.kind:
            case "when":
                return names.whens[self.step.id]
            case "end" if self.frame.own_names:
                return [(ref, ("output",)) for ref in value_references(names.program.output)]
            case "step" | "test":
                here = (self.kind == "test") == isinstance(self.control, Repeats)
                return names.reads[self.step.id] if here else []
        return []

    @property
    def decides(self) -> bool:
        """Whether values decide here how it goes on; those of a loop at the end of an iteration."""
        if self.kind == "step":
            return self.control.by_values and not isinstance(self.control, Repeats)
        return self.kind in ("when", "test")

    def follow(self, label: str) -> int | None:
        """The node behind the edge *label*."""
        return next((edge.target for edge in self.edges if edge.label == label), None)


@dataclass(slots=True, eq=False)
class FrameGraph:
    """A frame: its name, its names, where it begins and ends."""

    index: int
    name: str
    kind: Literal["run", "call", "branch", "item"]
    names: Names
    steps: list[Step]  # its own, without those in their blocks
    # the node that forks it, which has it among its frames: a graph has no cycle of references, so
    # that it goes with its `Flow`, and the cycle collector never has to find out
    forked_by: weakref.ref[Node] | None = None
    entry: int = -1
    end: int = -1
    fail: int = -1

    @property
    def owner(self) -> Node | None:
        """The node that forks it; None for the run's own."""
        return self.forked_by() if self.forked_by is not None else None

    @property
    def item(self) -> int | None:
        """The slot of the item, in the frame of one."""
        control = self.owner.control if self.owner is not None else None
        if isinstance(control, Forks) and control.item is not None:
            return self.names.keys[control.item]
        return None

    @property
    def arguments(self) -> Mapping[str, Any]:
        """What the call of a program gives it; nothing for any other frame."""
        control = self.owner.control if self.owner is not None else None
        return control.arguments if isinstance(control, Calls) else {}

    @property
    def own_names(self) -> bool:
        """Whether its names are its own: branches and items have those of the frame around them."""
        return self.kind in ("run", "call")


@dataclass(slots=True, eq=False)
class _Block:
    """A list of steps in one state of its container: what follows its end, and where jumps may
    go.
    """

    steps: Block  # each with its place in the whole program
    after: int
    parent: _Block | None
    owner: Node | None
    frame: FrameGraph
    entered: dict[tuple[int, Mode], int] = field(default_factory=dict)
    positions: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.positions = {step.id: i for i, (step, _) in enumerate(self.steps)}


class Order:
    """What of a graph is reached from ``entry``, in reverse postorder: where no way leads back, each
    node stands behind all that lead to it. ``nodes`` are their indexes, and ``place`` says by index
    where each stands, -1 where no path leads to it.
    """

    __slots__ = ("nodes", "place")

    def __init__(self, graph: Sequence[Node], entry: int) -> None:
        self.place = place = [-1] * len(graph)
        place[entry] = 0
        done: list[int] = []
        stack = [(entry, iter(graph[entry].edges))]
        while stack:
            index, edges = stack[-1]
            for edge in edges:
                target = edge.target
                if place[target] < 0:
                    place[target] = 0
                    stack.append((target, iter(graph[target].edges)))
                    break
            else:
                done.append(index)
                stack.pop()
        done.reverse()
        self.nodes = done
        for at, index in enumerate(done):
            place[index] = at

    def sweep(self, queued: bytearray) -> Iterator[int]:
        """The nodes whose places are *queued*, in their order, until none is: a pass over a graph
        without loops. What is queued on the way behind the node that is at hand waits for the next
        pass, which takes all loops at once: those inside would else begin anew with each change of
        those around them.
        """
        nodes, at = self.nodes, -1
        while (at := queued.find(1, at + 1)) >= 0 or (at := queued.find(1)) >= 0:
            queued[at] = 0
            yield nodes[at]


class Flow:
    """The graph of *program*; ``nodes[frames[0].entry]`` is where a run begins.

    *programs* are those that a `call` may name. ``diagnostics`` holds targets and calls that lead
    nowhere: a graph with errors is good for messages and for nothing else.
    """

    def __init__(self, program: Program, programs: Mapping[str, Program] | None = None) -> None:
        self.program = program
        self.programs = programs or {}
        self.nodes: list[Node] = []
        self.frames: list[FrameGraph] = []
        self.diagnostics: list[Diagnostic] = []
        self.hints = Hints()
        self.called: dict[str, Program] = {}  # those of *programs* that are called, by name
        self.steps = 0  # those of called programs once for each call
        self._named: dict[int, Names] = {}  # by program
        self._seen: set[tuple[str, Loc]] = set()
        self._work: deque[tuple[Node, _Block, int]] = deque()
        self.handlers = 0  # edges of them
        self.caught: set[int] = set()  # nodes after whose failure some handler goes on
        self._end = _end_step()
        self.size = 0  # slots of all programs
        steps = block_at(program.steps, ("steps",))
        self._new_frame("run", "run", Names.of(program, ()), None, steps, ())
        while self._work:
            if len(self.nodes) > MAX_NODES:
                message = (
                    f"the program's graph has more than {MAX_NODES} nodes: calls of calls, "
                    f"or steps entered in many ways"
                )
                self.fault("V008", (), message, "call fewer programs from one place")
                break
            if self.steps > MAX_STEPS:
                message = (
                    f"with the programs that it calls, the program has more than {MAX_STEPS} steps: "
                    f"each call counts as the steps of its program"
                )
                self.fault("V008", (), message, "call fewer programs, or call one in a 'map'")
                break
            if self.handlers > MAX_HANDLERS:
                message = (
                    f"the program's graph has more than {MAX_HANDLERS} edges of handlers: each step "
                    f"inside a loop has those of all loops around it"
                )
                self.fault(
                    "V008", (), message, "catch what fails in fewer loops, or in fewer steps"
                )
                break
            node, block, position = self._work.popleft()
            self._connect(node, block, position)

    @cached_property
    def roots(self) -> list[FrameGraph]:
        """The frame of each program: the run's own first, then those of the calls."""
        return [frame for frame in self.frames if frame.own_names]

    @cached_property
    def spaces(self) -> list[Names]:
        """The names of each program, in that order; branches and items share them."""
        return [frame.names for frame in self.roots]

    @property
    def tools(self) -> list[str]:
        """Every tool that is called, each once."""
        steps = (calls for names in self.spaces for calls in names.calls.values())
        return list(dict.fromkeys(call.tool for calls in steps for call in calls))

    @cached_property
    def order(self) -> Order:
        """The order of all nodes that a run can reach, which the passes share."""
        return Order(self.nodes, self.frames[0].entry)

    def document(self) -> dict[str, Any]:
        """The program and those that it calls by name, as they are stored and sent."""
        called = {name: program.to_dict() for name, program in self.called.items()}
        return {"program": self.program.to_dict(), "programs": called}

    @property
    def digest(self) -> str | None:
        """The digest of the program together with those that it calls by name; None where it calls
        none.
        """
        if not self.called:
            return None
        called = {name: self.called[name].digest for name in sorted(self.called)}
        return hashlib.sha256(
            canonical({"program": self.program.digest, "programs": called})
        ).hexdigest()

    def fault(self, code: str, loc: Loc, message: str, hint: str | None = None) -> None:
        """Add a Diagnostic, once for each place."""
        if (code, loc) not in self._seen:
            self._seen.add((code, loc))
            self.diagnostics.append(Diagnostic(code, loc, message, hint))

    # --- building ---

    def _node(
        self, kind: Kind, step: Step, mode: Mode, frame: FrameGraph, loc: Loc, owner: Node | None
    ) -> Node:
        goes = frame.names.controls.get(step.id, GOES)
        node = Node(len(self.nodes), kind, step, mode, frame, loc, owner, goes)
        self.nodes.append(node)
        return node

    def _new_frame(
        self,
        name: str,
        kind: Literal["run", "call", "branch", "item"],
        names: Names,
        owner: Node | None,
        steps: Block,
        loc: Loc,
    ) -> FrameGraph:
        by = weakref.ref(owner) if owner is not None else None
        frame = FrameGraph(len(self.frames), name, kind, names, [step for step, _ in steps], by)
        self.frames.append(frame)
        if frame.own_names:
            names.base = self.size
            self.size += names.size
        frame.end = self._node("end", self._end, "order", frame, loc, None).index
        frame.fail = self._node("fail", self._end, "order", frame, loc, None).index
        frame.entry = self._enter(_Block(steps, frame.end, None, None, frame), 0, "order")
        return frame

    def _enter(self, block: _Block, position: int, mode: Mode) -> int:
        """The node of a step in one state, made at first sight."""
        step, loc = block.steps[position]
        if step.next is not None:
            mode = "order"  # what follows is the same either way
        index = block.entered.get((position, mode))
        if index is None:
            kind: Kind = "step" if step.when is None else "when"
            node = self._node(kind, step, mode, block.frame, loc, block.owner)
            index = block.entered[position, mode] = node.index
            self._work.append((node, block, position))
        return index

    def _guard(self, node: Node, block: _Block, position: int) -> None:
        """A `when`: the step itself behind it, or what follows where the step is skipped."""
        step = node.of = self._node("step", node.step, node.mode, node.frame, node.loc, node.owner)
        self._connect(step, block, position)
        node.edges.append(Edge("when", step.index))
        skipped = self._skipped(step, block, position)
        node.edges.append(Edge("unless", skipped()))
        self._handlers(node, block, skipped)

    def _skipped(self, node: Node, block: _Block, position: int) -> Callable[[], int]:
        """Where a step leads that is skipped; a decision is never made up, so one that is not made
        takes its `otherwise`, or fails.
        """
        match node.control:
            case Chooses(skipped=str(label)):
                found = node.follow(label)
                return lambda: node.frame.fail if found is None else found
        return lambda: self._after(node, block, position)

    def _connect(self, node: Node, block: _Block, position: int) -> None:
        if node.kind == "when":
            self._guard(node, block, position)
            return
        add = node.edges.append
        follows = -1

        def after() -> int:
            # asked for only where an edge leads there: a condition that jumps both ways is followed
            # by nothing
            nonlocal follows
            if follows < 0:
                follows = self._after(node, block, position)
            return follows

        match node.control:
            case Goes():
                add(Edge("next", after()))
            case Chooses(ways=ways):
                for way in ways:
                    add(Edge(way.label, self._way(node, block, way, after)))
            case Repeats() as loop:
                self._loop(node, block, loop, after)
            case Forks(kind, frames):
                for name, steps in frames:
                    inner = [(inner, (*node.loc, *at)) for inner, at in steps]
                    self._fork(node, name, kind, block.frame.names, inner)
                add(Edge("next", after()))
            case Calls() as call:
                self._call(node, call)
                add(Edge("next", after()))
        if isinstance(node.control, Stops):
            add(Edge("error", node.frame.fail))
        elif not isinstance(node.control, Repeats):
            self._handlers(node, block, self._skipped(node, block, position))

    def _loop(self, node: Node, block: _Block, loop: Repeats, after: Callable[[], int]) -> None:
        test = self._node("test", node.step, node.mode, node.frame, node.loc, node.owner)
        test.of = node
        body = self._block(node, block, loop.body, test.index)
        node.edges.append(Edge("next", body))
        test.edges.append(Edge("until", after()))
        test.edges.append(Edge("again", body))
        self._handlers(test, block, after)
        if loop.goes_on:
            test.edges.append(Edge("exhausted", after()))

    def _after(self, node: Node, block: _Block, position: int) -> int:
        """What follows the step in its state, once it and its blocks are done."""
        step = node.step
        if step.next == NEXT or (step.next is None and node.mode == "order"):
            if position + 1 < len(block.steps):
                return self._enter(block, position + 1, "order")
            return block.after
        if step.next is None:
            return node.frame.end
        return self._resolve(node, block, step.next, ("next",), "order")

    def _way(self, node: Node, block: _Block, way: Way, after: Callable[[], int]) -> int:
        """The node that a way out of a decision leads to."""
        if isinstance(way.target, str):
            target = way.target
            return after() if target == NEXT else self._resolve(node, block, target, way.at, "jump")
        if way.target is None and way.absent != "block":
            return after() if way.absent == "follow" else node.frame.fail
        close = self._node("close", node.step, node.mode, node.frame, node.loc, node.owner)
        close.of = node
        close.edges.append(Edge("next", after()))
        if not way.target:
            return close.index
        return self._block(node, block, block_at(way.target, way.at), close.index)

    def _block(self, node: Node, outer: _Block, steps: Block, after: int) -> int:
        inner = [(step, (*node.loc, *at)) for step, at in steps]
        return self._enter(_Block(inner, after, outer, node, node.frame), 0, "order")

    def _resolve(self, node: Node, block: _Block, target: str, at: Loc, mode: Mode) -> int:
        """The node that a name leads to: a step of this block, or of one around it in the same
        frame.
        """
        if target == END:
            return node.frame.end
        if target == FAIL:
            return node.frame.fail
        around: _Block | None = block
        while around is not None:
            position = around.positions.get(target)
            if position is not None:
                return self._enter(around, position, mode)
            around = around.parent
        self._no_target(node, target, (*node.loc, *at))
        return node.frame.fail

    def _no_target(self, node: Node, target: str, loc: Loc) -> None:
        ids = node.frame.names.ids
        step_id = node.step.id
        if target in ids:
            message = (
                f"step {step_id!r} jumps to {target!r}, which stands inside a block or in "
                f"another branch"
            )
            self.fault(
                "V004",
                loc,
                message,
                "a jump leads to its own block or to one around it, and never out of a branch or "
                "item",
            )
            return
        self.fault(
            "V003",
            loc,
            f"step {step_id!r} jumps to unknown step {target!r}",
            self.hints.meant(
                target, ids, (END, FAIL, NEXT), otherwise="add the step, or use $end or $fail"
            ),
        )

    def _handlers(self, node: Node, block: _Block, skipped: Callable[[], int]) -> None:
        """Edges of a failure: the step's own catches and skip, then those of the loops around it,
        then the frame's fail.
        """
        at: Node | None = node
        here: _Block | None = block
        before = len(node.edges)
        while at is not None:
            step = at.step
            if at is node or isinstance(at.control, Repeats):
                assert here
                for i, catch in enumerate(step.catch):
                    target = self._resolve(at, here, catch.next, ("catch", i, "next"), "jump")
                    node.edges.append(Edge("catch", target, tuple(catch.errors), at.index))
                if step.on_error is OnError.SKIP:
                    skip = (
                        skipped() if at is node else self._after(at, here, here.positions[step.id])
                    )
                    node.edges.append(Edge("skip", skip, (), at.index))
            at = at.owner
            here = here.parent if here is not None else None
        self.handlers += len(node.edges) - before
        if len(node.edges) > before:
            self.caught.add(node.index)
        node.edges.append(Edge("error", node.frame.fail))

    def _fork(
        self,
        node: Node,
        name: str,
        kind: Literal["call", "branch", "item"],
        names: Names,
        steps: Block,
    ) -> None:
        frame = self._new_frame(name, kind, names, node, steps, node.loc)
        node.frames.append(frame)
        node.edges.append(Edge("fork", frame.entry))

    def _call(self, node: Node, call: Calls) -> None:
        program, step = call.program, node.step
        loc: Loc = (*node.loc, "program")
        if isinstance(program, str):
            found = self.programs.get(program)
            if found is None:
                otherwise = "give it by ExecutionVM(programs={...}) or --program name=FILE"
                hint = self.hints.meant(program, self.programs, otherwise=otherwise)
                self.fault("V006", loc, f"step {step.id!r} calls unknown program {program!r}", hint)
                return
            self.called[program] = found
            program = found
        if any(around is program for around in _programs_around(node)):
            message = f"step {step.id!r} calls program {program.name!r}, in which it runs itself"
            self.fault("V007", loc, message, "repetition is 'loop' and 'map' only")
            return
        known = self._named.get(id(program))
        if known is None:
            known = self._named[id(program)] = Names.of(program, loc)
        # each call has names of its own, and of one program they are alike
        names = replace(known, loc=loc)
        self.steps += len(names.steps)
        steps = block_at(program.steps, (*loc, "steps"))
        self._fork(node, program.name, "call", names, steps)


def _programs_around(node: Node) -> Iterator[Program]:
    at: Node | None = node
    while at is not None:
        yield at.frame.names.program
        at = at.frame.owner


@cache  # pydantic looks at the signature of each default's factory, which takes longer than the graph
def _end_step() -> Step:
    return SetStep.model_construct(id="$end", values={})
