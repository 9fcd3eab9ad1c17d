"""Cycles and unreachable steps.

A jump back is a cycle, and repetition is `loop` and `map` only; so the graph without the ``again`` edges of loops must be
acyclic, and then any program that passes ends: each step runs at most once for each of its states, times the bounds
of the loops around it. A depth-first search finds a cycle in time linear in nodes and edges.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import Diagnostic
from ..flow import Flow


def check_shape(flow: Flow) -> Iterator[Diagnostic]:
    """Cycles of jumps, and steps that no path reaches."""
    yield from _cycles(flow)
    yield from _unreachable(flow)


def _cycles(flow: Flow) -> Iterator[Diagnostic]:
    state = bytearray(len(flow.nodes))  # 0 unseen, 1 on the path, 2 done
    reported = set()
    for frame in flow.frames:
        if frame.entry < 0 or state[frame.entry]:
            continue
        stack = [(frame.entry, iter(flow.nodes[frame.entry].edges))]
        state[frame.entry] = 1
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
                    shown = " -> ".join([*path[at:], target.step.id])
                    yield Diagnostic(
                        "V005",
                        (*node.loc, "next" if edge.label == "next" else edge.label.split(":")[0]),
                        f"steps run in a circle: {shown}",
                        "repetition is a 'loop' step with a bound",
                    )
            else:
                state[edge.target] = 1
                stack.append((edge.target, iter(flow.nodes[edge.target].edges)))


def _unreachable(flow: Flow) -> Iterator[Diagnostic]:
    """The graph is built from the entry on: a step without a node is on no path."""
    seen = {node.loc for node in flow.nodes if node.kind == "step"}
    for names in {id(frame.names): frame.names for frame in flow.frames}.values():
        for step, at in names.program.walk():
            loc = (*names.loc, *at)
            if loc not in seen and (loc[:-1] in seen or len(at) == 2 or _parent_seen(loc, seen)):
                yield Diagnostic(
                    "V009",
                    loc,
                    f"no path reaches step {step.id!r}",
                    "remove it, or lead a branch or 'next' to it",
                    severity="warning",
                )


def _parent_seen(loc: tuple[str | int, ...], seen: set[tuple[str | int, ...]]) -> bool:
    """Whether the step around *loc* is reachable: of a lost block only the outermost step is told."""
    at = loc[:-1]
    while at:
        if at in seen:
            return True
        at = at[:-1]
    return False
