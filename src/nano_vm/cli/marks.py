"""What `graph --proofs` shows: a report and the rules come in, marks of nodes and edges of the same
`Flow` go out.

Nothing is proved here: what a call is marked as follows from the statements about its tool.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Literal

from ..draw.graph import Mark, Marks
from ..language.flow import Flow, Node
from ..language.policy import Policy
from ..language.rules import Rules, rules_of
from ..language.semantics import WHEN
from ..verify.order.statement import Places
from ..verify.report import Proof, Report

_SOURCE = re.compile(r"\bstep '([^']+)'")


def marks_of(flow: Flow, report: Report, policy: Policy | None) -> Marks:
    """Guards, calls of which something is demanded, and where untrusted values go."""
    marks = Marks()
    policies = [names.program.own_policy for names in flow.spaces]
    own = [each for each in policies if each is not None]
    nodes = [node for node in flow.nodes if node.kind in ("step", "when", "test")]
    tools = dict.fromkeys(call.tool for node in nodes for call in node.calls)
    places = Places(flow)
    for tool in tools:
        for node, label in _guards(nodes, places, rules_of(tool, [policy or Policy(), *own])):
            marks.nodes[node.index] = "guard"
            marks.edges[node.index, label] = "guard"
            _note(marks, node, f"guards {tool}")
    for node in nodes:
        called = [call.tool for call in node.calls]
        about = [
            proof
            for proof in report.proofs
            if node.kind == "step"
            and (_is_at(node, proof) if proof.kind == "secrecy" else proof.tool in called)
        ]
        if about:
            _call(marks, node, about)
    worst: tuple[Literal["unproved", "refuted"], ...] = ("unproved", "refuted")
    for status in worst:  # an edge that is on both ways is on the one that was found
        for proof in report.proofs:
            if proof.status == status:
                for move in proof.path:
                    at = move.node, move.label
                    # a guard's own edge stays one: the way breaks the rule elsewhere
                    if move.label and marks.edges.get(at) != "guard":
                        marks.edges[at] = status
    _untrusted(marks, nodes, report)
    return marks


def _guards(nodes: Sequence[Node], places: Places, rules: Rules) -> Iterator[tuple[Node, str]]:
    """The nodes and edges, one of which must be crossed before a call, or whose approval is asked
    for.
    """
    edges = [edge for names in rules.guards for name in names for edge in places.named_edges(name)]
    roles = {
        *rules.approvals,
        *(rule.approval for _, rule in rules.args if rule.approval is not None),
    }
    for node in nodes:
        for names, step, label in edges:
            if (
                node.step is step
                and node.frame.names is names
                and (node.kind == "when") == (label in WHEN)
            ):
                yield node, label
        if node.approval is not None and node.approval.role in roles:
            yield node, "then"


def _is_at(node: Node, proof: Proof) -> bool:
    """Whether *proof* is about what the step itself gives away."""
    return (
        len(proof.loc) > len(node.loc)
        and proof.loc[: len(node.loc)] == node.loc
        and (not isinstance(proof.loc[-1], int) and proof.loc[len(node.loc)] in _GIVES)
    )


_GIVES = frozenset(
    "args undo reconcile prompt system messages show match event message error".split()
)
"""The fields of steps whose values go to somebody."""


def _call(marks: Marks, node: Node, about: Sequence[Proof]) -> None:
    """A call, by the worst of what is known of its tool; what is refuted elsewhere is here only not
    proved.
    """
    mark: Mark = "guarded"
    for proof in about:
        here = not proof.loc or proof.loc[: len(node.loc)] == node.loc
        if proof.status == "refuted" and here:
            mark = "refuted"
        elif proof.status != "proved" and mark != "refuted" and (here or not proof.of_values):
            mark = "unproved"
    marks.nodes[node.index] = mark
    for status in ("proved", "refuted", "unproved"):
        kinds = dict.fromkeys(
            proof.kind
            for proof in about
            if proof.status == status
            and (not proof.of_values or proof.loc[: len(node.loc)] == node.loc)
        )
        if kinds:
            _note(marks, node, f"{status}: {', '.join(kinds)}")


def _untrusted(marks: Marks, nodes: Sequence[Node], report: Report) -> None:
    """Steps that carry untrusted and secret values, and the receivers and branches that these
    reach.
    """
    for flow in report.flows:
        carrying = {
            name.removesuffix(".output").rpartition("/")[2]
            for name in flow.way
            if name.endswith(".output")
        }
        carrying |= set(_SOURCE.findall(flow.source))
        for node in nodes:
            before = node.kind == "when"
            here = node.step.id == flow.step_id and flow.loc[: len(node.loc)] == node.loc
            if here and before == (flow.loc[-1] == "when"):
                label = flow.label or "untrusted"
                what = (
                    f"{label}: {flow.loc[-1]}"
                    if flow.kind == "argument"
                    else f"decided by {label} values"
                )
                _note(marks, node, what + (f" ({flow.allowed})" if flow.allowed else ""))
            elif before or node.step.id not in carrying or node.index in marks.nodes:
                continue
            marks.nodes.setdefault(node.index, "secret" if flow.label else "untrusted")


def _note(marks: Marks, node: Node, text: str) -> None:
    notes = marks.notes.setdefault(node.index, [])
    if text not in notes:
        notes.append(text)
