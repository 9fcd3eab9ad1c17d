"""What to change where a rule of a policy is not proved: the line of the program or of the policy
that is missing.

A statement that fails comes in, with the graph and the rules; out go lines that can be copied.
Nothing is proved here, and a cure may meet the next rule.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..language.flow import Flow, Node
from ..language.policy import Policy
from ..language.program import ApprovalStep, ToolStep
from ..language.rules import Rules, rules_of
from ..verify.order.statement import form, shown, statements
from ..verify.report import Proof
from .text import shown as shown_value


def cures(proof: Proof, flow: Flow, policy: Policy | None) -> Iterator[str]:
    """What to change so that *proof*, which failed, holds."""
    if proof.kind == "secrecy":
        yield from _of_secret(proof)
        return
    call = _call(proof, flow)
    if call is None:
        return
    own = [frame.names.program.own_policy for frame in flow.frames]
    rules = rules_of(proof.tool, [policy or Policy(), *(p for p in own if p is not None)])
    if proof.kind == "flow":
        yield from _of_flow(str(proof.loc[-1]), rules, call, flow)
        return
    for statement in statements(rules):
        if str(statement) != proof.statement:
            continue
        if statement.kind == "approval":
            given = _arguments(call, proof.tool)
            wanted = {name: value for name, value in given.items() if statement.protects(name)}
            yield from _of_approval(statement.names[0], wanted, call, flow)
            if not statement.protected and len(given) > 1:
                yield (
                    "where an approver need not see every argument, name those that count in "
                    f"the rule of {proof.tool!r}: args: {{{next(iter(given))}: "
                    f"{{approval: {statement.names[0]}}}}}"
                )
        elif statement.kind == "guard":
            yield f"let every way to step {call.step.id!r} cross {' or '.join(statement.names)}"


def _call(proof: Proof, flow: Flow) -> Node | None:
    """The call that the statement fails at."""
    found = [
        node
        for node in flow.nodes
        if node.kind == "step"
        and isinstance(node.step, ToolStep)
        and proof.loc[: len(node.loc)] == node.loc
    ]
    return max(found, key=lambda node: len(node.loc), default=None)


def _arguments(call: Node, tool: str) -> Mapping[str, Any]:
    """The arguments of the call of *tool* that the step makes: its own, or one of those beside."""
    step = call.step
    assert isinstance(step, ToolStep)
    calls = (step, step.undo, step.reconcile)
    return next((c.args or {} for c in calls if c is not None and c.tool == tool), {})


def _of_flow(argument: str, rules: Rules, call: Node, flow: Flow) -> Iterator[str]:
    """A value of a stranger reaches *argument*."""
    found = rules.argument(argument)
    roles = [rule.approval for rule in found if rule.approval is not None]
    value = _arguments(call, rules.tool).get(argument)
    for role in dict.fromkeys(roles):
        yield from _of_approval(role, {argument: value}, call, flow)
    if not roles and found:
        yield (
            "take the value from what no stranger writes, as an answer out of 'allowed_outputs', "
            f"or let the rule of {rules.tool!r} take what a person approves, "
            f"{argument}: {{approval: ROLE}}, or what passes a check, "
            f'{argument}: {{check: "$value <= 500"}}'
        )


def _of_secret(proof: Proof) -> Iterator[str]:
    """A value with a label reaches who does not accept it, or decides whether they get anything."""
    if not proof.path:
        yield "do it on both ways of the branch, or let the policy only list such branches"
        return
    if proof.loc[-1] in ("prompt", "system", "messages"):
        yield "ask a model whose rule accepts the label: models: {NAME: {accepts: ...}}"
    yield (
        "give it what a tool made of the value that may declassify: tools: {NAME: {declassifies: "
        "..., reason: ...}}"
    )
    yield "give it a word out of 'allowed_outputs' that a model which accepts the label answers"


def _of_approval(role: str, wanted: Mapping[str, Any], call: Node, flow: Flow) -> Iterator[str]:
    """*wanted*, arguments of the call, are not shown to *role* on every way to it."""
    asked = [
        node
        for node in flow.nodes
        if node.kind == "step"
        and node.frame is call.frame
        and isinstance(node.step, ApprovalStep)
        and node.step.role == role
    ]
    for node in asked:
        assert isinstance(node.step, ApprovalStep)
        names = call.frame.names
        seen = set(shown(node.step.show, names))
        hidden = {name: value for name, value in wanted.items() if form(value, names) not in seen}
        if hidden:
            yield f"add to 'show' of step {node.step.id!r}: {_fields(hidden)}"
        else:
            yield (
                f"let every way to step {call.step.id!r} cross {node.step.id}.then, and write to "
                f"nothing that it shows in between"
            )
    if not asked:
        yield (
            f"ask before step {call.step.id!r}: {{id: ask, type: approval, role: {role}, show: "
            f"{{{_fields(wanted)}}}, then: {call.step.id}, otherwise: $end}}"
        )


def _fields(values: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name}: {value if isinstance(value, str) else shown_value(value)}"
        for name, value in values.items()
    )
