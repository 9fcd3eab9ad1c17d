"""Cycles and unreachable steps.

A jump back is a cycle, and repetition is `loop` and `map` only; so the graph without the ``again`` edges of loops must be
acyclic, and then any program that passes ends: each step runs at most once for each of its states, times the bounds
of the loops around it. A depth-first search finds a cycle in time linear in nodes and edges.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import Diagnostic, Loc
from ..flow import Flow, Node


def check_shape(flow: Flow) -> Iterator[Diagnostic]:
    """Cycles of jumps, and steps that no path reaches."""
    reached = bytearray(len(flow.nodes))  # 0 unseen, 1 on the path, 2 done
    yield from _cycles(flow, reached)
    yield from _unreachable(flow, {node.loc for node in flow.nodes if node.kind == "step" and reached[node.index]})


def _cycles(flow: Flow, state: bytearray) -> Iterator[Diagnostic]:
    """Depth first from the entry; forks lead into the frames of branches, items and called programs."""
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


def _unreachable(flow: Flow, seen: set[Loc]) -> Iterator[Diagnostic]:
    """Steps that the search did not see; of a lost block only the outermost step is told."""
    for names in {id(frame.names): frame.names for frame in flow.frames}.values():
        lost: set[Loc] = set()
        for step, at in names.steps:
            loc = (*names.loc, *at)
            if loc in seen:
                continue
            if not any(loc[:i] in lost for i in range(1, len(loc))):
                hint = "what is reached by a jump ends the run unless it has 'next'; lead a branch or 'next' here, or remove it"
                yield Diagnostic("V009", loc, f"no path reaches step {step.id!r}", hint, severity="warning")
            lost.add(loc)


def check_entries(flow: Flow) -> Iterator[Diagnostic]:
    """Hints: steps that are entered both in order and by jump, and are followed by something else each way."""
    nodes = flow.nodes
    jumps: dict[int, str] = {}  # by node that a jump leads to, the step that it comes from
    for node in nodes:
        for edge in node.edges:
            target = nodes[edge.target]
            if _entry(target) and target.mode == "jump" and edge.label not in ("fork", "when"):
                by = nodes[edge.by].step.id if edge.by >= 0 else node.step.id
                jumps.setdefault(edge.target, by)
    entered: dict[tuple[Loc, int], Node] = {}  # those in order, by place and container
    for node in nodes:
        if _entry(node) and node.mode == "order":
            entered[node.loc, node.owner.index if node.owner is not None else -1] = node
    for index, by in jumps.items():
        node = nodes[index]
        other = entered.get((node.loc, node.owner.index if node.owner is not None else -1))
        if other is None or _follows(other) == _follows(node):
            continue
        what = {"run": "the run ends", "call": "its program ends"}.get(node.frame.kind, f"the {node.frame.kind} ends")
        message = f"step {node.step.id!r} is reached in order and by jump, from {by!r}: by jump {what} after it"
        hint = "give it 'next' to go on either way, or write what belongs to the branch as a block"
        yield Diagnostic("V015", node.loc, message, hint, "hint")


def _entry(node: Node) -> bool:
    """Whether a step is entered here: at its `when`, where it has one."""
    return node.kind == ("step" if node.step.when is None else "when")


def _follows(node: Node) -> list[int]:
    return [edge.target for edge in node.edges if edge.label not in ("error", "catch", "when")]
