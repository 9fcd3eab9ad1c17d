"""Tool calls against the contracts of the host's tools: names, arguments, literal types."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from ..errors import Diagnostic, Loc, StepFault
from ..expr import value_references
from ..flow import Flow
from ..program import ToolStep
from ..tools import IDEMPOTENCY_KEY, ToolContract, checked


def check_tools(flow: Flow, contracts: Mapping[str, ToolContract]) -> Iterator[Diagnostic]:
    """Unknown tools; missing, unknown and ill-typed literal arguments, also of `undo` and `reconcile`."""
    for names in {id(frame.names): frame.names for frame in flow.frames}.values():
        for step, at in names.steps:
            if isinstance(step, ToolStep):
                loc = (*names.loc, *at)
                yield from _call(step.id, step.tool, step.args, loc, contracts)
                for kind, call in (("undo", step.undo), ("reconcile", step.reconcile)):
                    if call is not None:
                        given = kind == "undo" or "args" in call.model_fields_set
                        yield from _call(step.id, call.tool, call.args if given else step.args, (*loc, kind), contracts)


def _call(
    step_id: str, tool: str, args: dict[str, Any], loc: Loc, contracts: Mapping[str, ToolContract]
) -> Iterator[Diagnostic]:
    contract = contracts.get(tool)
    if contract is None:
        near = get_close_matches(tool, list(contracts), n=1)
        hint = f"did you mean {near[0]!r}?" if near else "give it by ExecutionVM(tools={...}) or --tools module:object"
        yield Diagnostic("V020", (*loc, "tool"), f"step {step_id!r} calls unknown tool {tool!r}", hint)
        return
    parameters = contract.parameters
    for name in parameters:
        if parameters[name].required and name not in args:
            beside = loc[-1] in ("undo", "reconcile")
            hint = f"add it to the args of {loc[-1]!r}" if beside else f"add it to the args of {step_id!r}"
            yield Diagnostic("V021", loc, f"tool {tool!r} needs argument {name!r}", hint)
    for name, value in args.items():
        at = (*loc, "args", name)
        if name == IDEMPOTENCY_KEY and contract.takes_key:
            yield Diagnostic("V021", at, f"{name!r} is given by the VM", "remove it from args")
        elif name not in parameters:
            if not contract.open:
                near = get_close_matches(name, list(parameters), n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(parameters) or 'no arguments'}"
                yield Diagnostic("V021", at, f"tool {tool!r} takes no argument {name!r}", hint)
        elif not any(True for _ in value_references(value)):
            try:
                checked(tool, parameters[name], value)
            except StepFault as error:
                yield Diagnostic("V022", at, str(error))
