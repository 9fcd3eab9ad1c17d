"""Static passes: a `Flow` in; Diagnostics, proofs, the worst case and flows out. No tool and no model is called.

Each pass is a function of its own module. `check` runs those that any run needs to be safe; `examine` adds what policies
demand, and looks for a run that breaks what could not be proved; `verify` is that for people.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from difflib import get_close_matches
from typing import Any

from ..errors import Diagnostic, Loc, VMError
from ..expr import value_references
from ..flow import Flow
from ..ledger import DEFAULT_LIMITS, Limits
from ..policy import EFFECTS, ArgRule, Budget, Policy, Rules, loosened, rules_of
from ..program import Program, ToolStep
from ..tools import ToolContract, contract
from ..values import kind_name
from .names import check_names
from .report import Finding, Influence, Move, Proof, Report
from .shape import check_shape
from .tools import check_tools

__all__ = [
    "Examined",
    "Finding",
    "Influence",
    "Move",
    "Proof",
    "Report",
    "check",
    "check_names",
    "check_shape",
    "check_tools",
    "examine",
    "policy_of",
    "verify",
]


@dataclass(slots=True)
class Examined:
    """What a host needs to run a program: the report, the value checks to enforce, the contracts by its policy."""

    report: Report
    contracts: Mapping[str, ToolContract]
    policies: tuple[Policy, ...] = ()
    checks: Mapping[Loc, Sequence[ArgRule]] = field(default_factory=dict)


def check(flow: Flow, contracts: Mapping[str, ToolContract], given: Iterable[str] = ()) -> list[Diagnostic]:
    """Every fault of *flow* for a host with these tools, in document order; *given* are names that the inputs hold."""
    if any(d.code == "V008" for d in flow.diagnostics):  # too large, and not all of it is there
        return list(flow.diagnostics)
    found = [*flow.diagnostics, *check_shape(flow), *check_tools(flow, contracts)]
    if not any(d.severity == "error" for d in flow.diagnostics):  # data flow over a broken graph says nonsense
        found += check_names(flow, frozenset(given))
    return in_order(found)


def in_order(found: Iterable[Diagnostic]) -> list[Diagnostic]:
    """*found* in document order."""
    return sorted(found, key=lambda d: _step_place(d.loc))


def _step_place(loc: Loc) -> list[tuple[int, int, str]]:
    """A key that orders places by their step; within a step they stay as they were found."""
    last = max((i for i, part in enumerate(loc) if isinstance(part, int)), default=-1)
    return [(0, part, "") if isinstance(part, int) else (1, 0, part) for part in loc[: last + 1]]


def examine(
    flow: Flow,
    contracts: Mapping[str, ToolContract],
    *,
    policy: Policy | None = None,
    budget: Budget | None = None,
    prices: Mapping[str, tuple[Decimal, Decimal]] | None = None,
    default_model: str | None = None,
    untrusted: Iterable[str] = (),
    literals_untrusted: bool = False,
    limits: Limits = DEFAULT_LIMITS,
    more: Iterable[Diagnostic] = (),
) -> Examined:
    """Everything that can be said of *flow* for a host with these contracts; *more* are faults found elsewhere."""
    program = flow.program
    policies = tuple(p for p in (policy, *_own_policies(flow)) if p is not None)
    found = [*more, *check(flow, contracts)]
    contracts, faults = _by_policy(contracts, policy, policies)
    found += faults
    report = Report(program.name, flow.digest or program.digest, tuple(in_order(found)))
    return Examined(report, contracts, policies)


def _own_policies(flow: Flow) -> list[Policy]:
    """Those of the program and of each that it calls."""
    programs = {id(frame.names.program): frame.names.program for frame in flow.frames}
    return [p.own_policy for p in programs.values() if p.own_policy is not None]


def _by_policy(
    contracts: Mapping[str, ToolContract], host: Policy | None, policies: Sequence[Policy]
) -> tuple[dict[str, ToolContract], list[Diagnostic]]:
    """The contracts with the effects that policies give them, and what is wrong with the policies for this host."""
    found: list[Diagnostic] = []
    result = dict(contracts)
    for number, policy in enumerate(policies):
        own = host is None or number > 0
        if own:
            found += loosened(host, policy)
        at: Loc = ("policy",)
        for rule in policy.tools:
            loc: Loc = (*at, "tools", rule.pattern)
            if "*" in rule.pattern:
                continue
            known = contracts.get(rule.pattern)
            if known is None:
                near = get_close_matches(rule.pattern, list(contracts), n=1)
                hint = (
                    f"did you mean {near[0]!r}?" if near else "the host's tools are " + (", ".join(contracts) or "none")
                )
                found.append(Diagnostic("V051", loc, f"the policy names unknown tool {rule.pattern!r}", hint))
                continue
            for name in rule.args:
                if name != "*" and name not in known.parameters and not known.open:
                    near = get_close_matches(name, list(known.parameters), n=1)
                    hint = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(known.parameters) or 'none'}"
                    message = f"the policy names argument {name!r}, which tool {rule.pattern!r} does not take"
                    found.append(Diagnostic("V051", (*loc, "args", name), message, hint))
        for name in contracts:
            for rule in policy.matching(name):
                effect = rule.effect
                now = result[name]
                if effect is None or effect == now.effect:
                    continue
                if EFFECTS.index(effect) < EFFECTS.index(now.effect) and (now.declared or own):
                    message = f"tool {name!r} is declared {now.effect!r}, and the policy calls it {effect!r}"
                    hint = "a policy may only make an effect graver"
                    found.append(Diagnostic("V057", ("policy", "tools", rule.pattern, "effect"), message, hint))
                else:
                    result[name] = replace(now, effect=effect, declared=True)
    return result, found


def policy_of(policy: Any) -> Policy | None:
    """A policy from what a host may give: a `Policy`, a dict, a file's path.

    Raises:
        ProgramError: With every fault of it.
        VMError: If it is none of these.
    """
    if policy is None or isinstance(policy, Policy):
        return policy
    if isinstance(policy, Mapping):
        return Policy.from_dict(dict(policy))
    if isinstance(policy, (str, os.PathLike)):
        return Policy.from_file(os.fspath(policy))
    raise VMError(f"a policy is a Policy, a dict or the path of a file, not {kind_name(policy)}")


def verify(
    program: Program,
    *,
    tools: Mapping[str, Any] | None = None,
    policy: Policy | Mapping[str, Any] | str | None = None,
    prices: Mapping[str, tuple[Any, Any]] | None = None,
    programs: Mapping[str, Program] | None = None,
    untrusted: Iterable[str] = (),
    approved: Iterable[str] = (),
) -> Report:
    """What can be said of every run of *program* before any: faults, proofs, the worst case, flows. Nothing is called.

    *tools* are callables by name, for their contracts; *policy* a `Policy`, a dict, or a file's path; *prices* dollars per million tokens;
    *untrusted* inputs whose values come from outside; *approved* digests of programs from untrusted sources.

    Raises:
        ProgramError: If the policy is malformed.
    """
    contracts = {name: contract(name, function) for name, function in (tools or {}).items()}
    examined = examine(
        Flow(program, programs),
        contracts,
        policy=policy_of(policy),
        budget=program.budget,
        prices={m: (Decimal(str(a)), Decimal(str(b))) for m, (a, b) in prices.items()} if prices is not None else None,
        untrusted=untrusted,
        literals_untrusted=program.untrusted and program.digest not in frozenset(approved),
        more=program.warnings,
    )
    return replace(examined.report, diagnostics=tuple(program.place(list(examined.report.diagnostics))))
