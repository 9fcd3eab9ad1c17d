"""Tool calls against the contracts of the host's tools: names, arguments, literal types."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..diagnostics import Diagnostic, Loc
from ..errors import PolicyRefused, StepFault
from ..language.closures import compile_value
from ..language.expr import is_literal
from ..language.flow import Flow
from ..language.policy import ArgRule, CallRule
from ..language.semantics import ToolCall
from ..machine.demands import enforcer
from ..spelling import Hints
from ..tools.contract import IDEMPOTENCY_KEY, ToolContract, checked


def check_tools(flow: Flow, contracts: Mapping[str, ToolContract]) -> Iterator[Diagnostic]:
    """Unknown tools; missing, unknown and ill-typed literal arguments, also of `undo` and
    `reconcile`.
    """
    hints = Hints()
    for names in flow.spaces:
        for step_id, calls in names.calls.items():
            for call in calls:
                loc = (*names.loc, *names.ids[step_id], *call.at)
                yield from _call(step_id, call, loc, contracts, hints)


def check_kept(flow: Flow, contracts: Mapping[str, ToolContract]) -> Iterator[Diagnostic]:
    """Steps that take an answer from before in place of a call that changes something."""
    for names in flow.spaces:
        for step_id, calls in names.calls.items():
            if not getattr(names.by_id[step_id], "cache", None):
                continue
            contract = contracts.get(calls[0].tool)
            if contract is None or contract.effect == "read":
                continue
            message = (
                f"step {step_id!r} keeps what tool {contract.name!r} returns, whose effect is "
                f"{contract.effect}: a call that is not made has none"
            )
            hint = "remove it, or declare the tool with @tool(effect='read') if it only reads"
            at = names.ids[step_id]
            yield Diagnostic("V027", (*names.loc, *at, "cache"), message, hint)


def check_literals(
    flow: Flow, contracts: Mapping[str, ToolContract], checks: Mapping[Loc, Sequence[CallRule]]
) -> Iterator[Diagnostic]:
    """Literal arguments that a policy's check of values refuses: each such call fails when it is reached. A check
    that reads inputs is left to the run.
    """
    for names in flow.spaces if checks else ():
        for step_id, calls in names.calls.items():
            for call in calls:
                for name, value in call.args.items():
                    at: Loc = (*names.loc, *names.ids[step_id], *call.at, "args", name)
                    for rule in checks.get(at, ()) if is_literal(value) else ():
                        if isinstance(rule, ArgRule) and not rule.reads():
                            literal = compile_value(value, names)([])
                            yield from _refused(call.tool, name, literal, rule, contracts, at)


def _refused(
    tool: str,
    name: str,
    literal: Any,
    rule: ArgRule,
    contracts: Mapping[str, ToolContract],
    at: Loc,
) -> Iterator[Diagnostic]:
    known = contracts[tool].parameters.get(name) if tool in contracts else None
    try:
        received = checked(tool, known, literal) if known is not None else literal
        enforcer(tool, name, rule)(literal, received, {})
    except PolicyRefused as error:
        yield Diagnostic("V053", at, str(error), "write a value that the policy allows", "warning")
    except StepFault:
        return  # of the wrong type: told as such


def _call(
    step_id: str, call: ToolCall, loc: Loc, contracts: Mapping[str, ToolContract], hints: Hints
) -> Iterator[Diagnostic]:
    tool, args = call.tool, call.args
    contract = contracts.get(tool)
    if contract is None:
        hint = hints.meant(
            tool,
            contracts,
            otherwise="give it by ExecutionVM(tools={...}) or --tools module:object",
        )
        yield Diagnostic(
            "V020",
            (*loc, "tool"),
            f"tool {tool!r} is not registered; step {step_id!r} calls it",
            hint,
        )
        return
    parameters = contract.parameters
    for name in parameters:
        if parameters[name].required and name not in args:
            hint = f"add it to the args of {(step_id if call.use == 'step' else call.use)!r}"
            yield Diagnostic("V021", loc, f"tool {tool!r} needs argument {name!r}", hint)
    for name, value in args.items():
        at = (*loc, "args", name)
        if name == IDEMPOTENCY_KEY and contract.takes_key:
            yield Diagnostic("V026", at, f"{name!r} is given by the VM", "remove it from args")
        elif name not in parameters:
            if not contract.open:
                otherwise = f"it takes {', '.join(parameters) or 'no arguments'}"
                hint = hints.meant(name, parameters, otherwise=otherwise)
                yield Diagnostic("V026", at, f"tool {tool!r} takes no argument {name!r}", hint)
        elif is_literal(value):
            try:
                checked(tool, parameters[name], value)
            except StepFault as error:
                yield Diagnostic("V022", at, str(error))
