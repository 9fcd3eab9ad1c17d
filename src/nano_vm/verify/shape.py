"""Cycles and unreachable steps.

A jump back is a cycle, and repetition is `loop` and `map` only; so the graph without the ``again``
edges of loops must be acyclic, and then any program that passes ends: each step runs at most once
for each of its states, times the bounds of the loops around it. A depth-first search finds a cycle
in time linear in nodes and edges.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from ..diagnostics import Diagnostic, Loc
from ..language.flow import Flow, Node
from ..language.semantics import Chooses


def check_shape(flow: Flow) -> Iterator[Diagnostic]:
    """Cycles of jumps, jumps back that repeat nothing, and steps that no path reaches."""
    cycles = [] if _acyclic(flow) else list(_cycles(flow))
    yield from cycles or _back_jumps(flow)
    yield from _unreachable(flow)


def _acyclic(flow: Flow) -> bool:
    """Whether no way leads back but that to the next iteration of a loop."""
    place = flow.order.place
    return all(
        place[edge.target] > at or edge.label == "again"
        for at, index in enumerate(flow.order.nodes)
        for edge in flow.nodes[index].edges
    )


def _cycles(flow: Flow) -> Iterator[Diagnostic]:
    """Depth first from the entry; forks lead into the frames of branches, items and called
    programs.
    """
    state = bytearray(len(flow.nodes))  # 0 unseen, 1 on the path, 2 done
    reported = set()
    entry = flow.frames[0].entry
    stack = [(entry, iter(flow.nodes[entry].edges))]
    state[entry] = 1
    while stack:
        index, edges = stack[-1]
        edge = next(edges, None)
        if edge is None:
            state[index] = 2
            stack.pop()
        elif edge.label == "again" or state[edge.target] == 2:
            continue
        elif state[edge.target] == 1:
            node, target = flow.nodes[index], flow.nodes[edge.target]
            if node.loc not in reported:
                reported.add(node.loc)
                path = [flow.nodes[i].step.id for i, _ in stack]
                at = next(i for i, (n, _) in enumerate(stack) if n == edge.target)
                shown = " -> ".join(dict.fromkeys(path[at:]))
                yield Diagnostic(
                    "V005",
                    (*node.loc, "next" if edge.label == "next" else edge.label.split(":")[0]),
                    f"steps run in a circle: {shown} -> {target.step.id}",
                    "repetition is a 'loop' step with a bound",
                )
        else:
            state[edge.target] = 1
            stack.append((edge.target, iter(flow.nodes[edge.target].edges)))


def _unreachable(flow: Flow) -> Iterator[Diagnostic]:
    """Steps to which no path leads; of a lost block only the outermost step is reported."""
    reached = [flow.nodes[index] for index in flow.order.nodes]
    steps = {(id(node.frame.names), node.step.id) for node in reached if node.kind == "step"}
    if len(steps) == sum(len(names.steps) for names in flow.spaces):
        return
    seen = {node.loc for node in reached if node.kind == "step"}
    for names in flow.spaces:
        lost: set[Loc] = set()
        for step, at in names.steps:
            loc = (*names.loc, *at)
            if loc in seen:
                continue
            if not any(loc[:i] in lost for i in range(1, len(loc))):
                hint = (
                    "what is reached by a jump ends the run unless it has 'next'; lead a "
                    "branch or 'next' here, or remove it"
                )
                yield Diagnostic(
                    "V009", loc, f"no path reaches step {step.id!r}", hint, severity="warning"
                )
            lost.add(loc)


def check_entries(flow: Flow) -> Iterator[Diagnostic]:
    """Hints: steps that are entered both in order and by jump, and are followed by something else
    each way.
    """
    told: set[int] = set()
    for jump in _jumps(flow):
        node, other = jump.target, jump.in_order
        if node.index in told or jump.back or other is None or _follows(other) == _follows(node):
            continue
        told.add(node.index)
        message = (
            f"step {node.step.id!r} is reached in order and by jump, from "
            f"{jump.by.step.id!r}: by jump {_ends(node)} after it"
        )
        hint = "give it 'next' to go on either way, or write what belongs to the branch as a block"
        yield Diagnostic("V015", node.loc, message, hint, "hint")


def _ends(node: Node) -> str:
    return {"run": "the run ends", "call": "its program ends"}.get(
        node.frame.kind, f"the {node.frame.kind} ends"
    )


# --- jumps ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Jump:
    """A jump by the step of *by*, along the edge *label*, to *target*; *in_order* is the same step
    as it is reached in order.
    """

    by: Node
    label: str
    target: Node
    in_order: Node | None

    @property
    def back(self) -> bool:
        """Whether it leads to a step that stands before the jumping one, or is that, in its block
        or in one around it.
        """
        block, at = self.target.loc[:-1], self.target.loc[-1]
        rest = self.by.loc[len(block) :]
        return (
            self.by.loc[: len(block)] == block
            and type(at) is int
            and type(rest[0]) is int
            and at <= rest[0]
        )

    @property
    def field(self) -> Loc:
        """Where in the jumping step its target stands."""
        if self.label != "catch":
            return ("cases", self.label[5:]) if self.label.startswith("case:") else (self.label,)
        return next(
            ("catch", i, "next")
            for i, catch in enumerate(self.by.step.catch)
            if catch.next == self.target.step.id
        )


def _jumps(flow: Flow) -> Iterator[_Jump]:
    """Every jump, in the order of the flow."""
    nodes = flow.nodes
    jumped = {node.index: node for node in nodes if node.mode == "jump" and _entry(node)}
    if not jumped:
        return
    entered: dict[tuple[Loc, int], Node] = {}  # in order, by place and container
    for node in nodes:
        if node.mode == "order" and _entry(node):
            entered[node.loc, _container(node)] = node
    for node in nodes:
        for edge in node.edges:
            target = jumped.get(edge.target)
            if target is not None and edge.label not in ("fork", "when", "next", "again"):
                by = nodes[edge.by] if edge.by >= 0 else node
                yield _Jump(by, edge.label, target, entered.get((target.loc, _container(target))))


def _container(node: Node) -> int:
    return node.owner.index if node.owner is not None else -1


def _entry(node: Node) -> bool:
    """Whether a step is entered here: at its `when`, where it has one."""
    return node.kind == ("step" if node.step.when is None else "when")


def _follows(node: Node) -> list[int]:
    return [edge.target for edge in node.edges if edge.label not in ("error", "catch", "when")]


# --- jumps back -----------------------------------------------------------------------------------

MAX_REPEATED = 8
"""Steps of a loop that a hint writes out; of more the first and the last."""


def _back_jumps(flow: Flow) -> Iterator[Diagnostic]:
    """Jumps back to a step that runs in order too: nearly always meant to repeat, and they do
    not.
    """
    told: set[tuple[Loc, str]] = set()
    ids: dict[int, dict[Loc, str]] = {}  # by program, those of steps by their place
    for jump in _jumps(flow):
        key = jump.by.loc, jump.target.step.id
        if not jump.back or jump.in_order is None or key in told:
            continue
        told.add(key)
        by, to = jump.by.step.id, jump.target.step.id
        names = jump.target.frame.names
        if id(names) not in ids:
            ids[id(names)] = {(*names.loc, *at): step.id for step, at in names.steps}
        loop = _loop_of(jump, ids[id(names)])
        message = (
            f"step {by!r} jumps back to {to!r}, which also runs in order: "
            f"{_ends(jump.target)} after it, nothing is repeated"
        )
        yield Diagnostic("V023", (*jump.by.loc, *jump.field), message, loop, "warning")


def _loop_of(jump: _Jump, ids: Mapping[Loc, str]) -> str:
    """The loop that is meant, written out; *ids* are those of steps by place."""
    block = jump.target.loc[:-1]
    first, last = jump.target.loc[-1], jump.by.loc[len(block)]
    assert isinstance(first, int)
    assert isinstance(last, int)
    step, until = jump.by.step, _until(jump)
    own = until is not None and last > first and len(jump.by.loc) == len(jump.target.loc)
    repeated = range(first, last if own else last + 1)

    def named(numbers: Iterable[int]) -> list[str]:
        return [ids[*block, number] for number in numbers]

    body = (
        named(repeated)
        if len(repeated) <= MAX_REPEATED
        else [*named(repeated[:2]), "...", *named(repeated[-1:])]
    )
    test = json.dumps(until if until is not None else "<when it is done>", ensure_ascii=False)
    loop = (
        f"{{id: {step.id if own else 'again'}, type: loop, max_iterations: 5, until: {test}, "
        f"steps: [{', '.join(body)}]}}"
    )
    return (
        f"to repeat, write in their place {loop}, with those steps inside; what follows goes "
        f"on after it"
    )


def _until(jump: _Jump) -> str | None:
    """When a loop ends in place of which a condition or switch jumps back."""
    match jump.by.control:
        case Chooses(condition=str(condition)) as chooses:
            test = chooses.test
            otherwise = test is not None and jump.label in test.false
            return condition if otherwise else f"not ({condition})"
        case Chooses(on=str(on)) as chooses:
            way = chooses.way(jump.label)
            if way is not None and way.case is not None:
                return f"{on} != {way.case!r}"
    return None
