"""Marks of a graph: the way that one run took.

A flow and the steps of a trace come in; marks of nodes and edges go out. A step that ran several
times is marked by its last time.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..language.flow import Flow, Node
from ..records.result import StepResult
from ..records.status import StepStatus
from ..records.trace import Trace
from .graph import Mark, Marks

_MARKS: dict[StepStatus, Mark] = {
    StepStatus.SUCCESS: "taken",
    StepStatus.SKIPPED: "skipped",
    StepStatus.SUSPENDED: "waits",
}


def marks_of_run(flow: Flow, trace: Trace) -> Marks:
    """What to mark in the graph of the run's program."""
    marks = Marks()
    nodes: dict[str, list[Node]] = {}
    for node in flow.nodes:
        if node.kind in ("step", "when"):
            nodes.setdefault(node.step.id, []).append(node)
    reached: set[int] = set()
    for result in trace.steps:
        ran = _node_of(nodes.get(result.step_id, []), reached, result)
        if ran is None:
            continue
        marks.nodes[ran.index] = _MARKS.get(result.status, "failed")
        for number in _edges(ran, result):
            edge = ran.edges[number]
            marks.edges[ran.index, edge.label] = "taken"
            reached.add(edge.target)
    return marks


def _node_of(found: list[Node], reached: set[int], result: StepResult) -> Node | None:
    """The node of a step that ran: a step has two where it can be entered by a jump and in order,
    and one for its `when`, whose record it is where that did not hold.
    """
    skipped = result.branch == "unless"
    fitting = [node for node in found if (node.kind == "when") == skipped] or found
    return next((node for node in fitting if node.index in reached), next(iter(fitting), None))


def _edges(node: Node, result: StepResult) -> Iterator[int]:
    """The edge that a finished step was left by."""
    if result.status is StepStatus.SUCCESS:
        labels = [result.branch, f"case:{result.branch}"] if result.branch else ["next", "then"]
    elif result.branch == "unless":
        labels = ["unless"]
    else:
        labels = ["skip"] if result.status is StepStatus.SKIPPED else []
    for label in labels:
        for number, edge in enumerate(node.edges):
            if edge.label == label:
                yield number
                return
