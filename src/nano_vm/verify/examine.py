"""Static passes: a `Flow` in; Diagnostics, proofs, the worst case and flows out. No tool and no
model is called.

Each pass is a function of its own module. `check` runs those that any run needs to be safe;
`examine` adds what policies demand, and looks for a run that breaks what could not be proved;
`verify` is that for people.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from ..collector import collector_paused
from ..diagnostics import Diagnostic, Loc, Severity
from ..diagnostics.code import DOUBT, GRAPH, HOST
from ..diagnostics.register import has
from ..errors import VMError
from ..given import by_name, strings
from ..language.flow import Flow, Names
from ..language.policy import EFFECTS, Budget, CallRule, Policy, ToolRule, policy_of, tightest
from ..language.program import LLMStep, Program
from ..language.programs import program_given, programs_given
from ..language.rules import Rules, loosened, rules_of
from ..language.semantics import ToolCall
from ..machine.billing import Served
from ..machine.compile import plan_of
from ..prices import Price, checked_price
from ..spelling import Hints
from ..tools.contract import ToolContract, ToolOptions, contract
from .advice import advise, empty_guards
from .cost.ceiling import Ceiling, ceiling, over_budget
from .data.names import Assigned, assigned, check_names
from .data.possible import Domains
from .order.of_run import called_more
from .order.proof import Index, check_guards, check_names_of_rules, speaks_of_order
from .report import Finding, Influence, Move, Proof, Report
from .secrecy.labels import Secrets, widened
from .secrecy.proof import Secrecy
from .secrecy.proof import analyse as secrecy_of
from .shape import check_shape
from .tools import check_kept, check_literals, check_tools
from .trust.proof import Trust, analyse, graph_of, shown_arguments
from .witness import MAX_EFFORT, Search

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
    "verify",
]


@dataclass(frozen=True, slots=True)
class Unsaid:
    """The ``names`` of inputs of which the host's policy, which speaks of those ``named``, does not
    say whether they are ``one`` thing or the ``other``.
    """

    names: frozenset[str]
    named: Sequence[str]
    one: str
    other: str

    def message(self, name: str) -> str:
        """What is wrong with one of them."""
        return f"the policy does not say whether input {name!r} is {self.one}"

    @property
    def remedy(self) -> str:
        """What to do."""
        return f"name it under the policy's 'inputs' as {self.one} or {self.other}"


@dataclass(slots=True)
class Examined:
    """What a host needs to run a program: the report, what to hold arguments against before calls,
    the contracts by its policy.
    """

    report: Report
    contracts: Mapping[str, ToolContract]
    policies: tuple[Policy, ...] = ()
    checks: Mapping[Loc, Sequence[CallRule]] = field(default_factory=dict)
    uncovered: tuple[Unsaid, ...] = ()
    levels: Callable[[], Mapping[str, Any]] = dict
    """The labels of what a run leaves, as `records.secrecy.Levels` reads them."""

    def not_covered(self, inputs: Iterable[str]) -> Iterator[Diagnostic]:
        """A fault for each of the *inputs* of a run that the host's policy does not speak of: names
        that steps write, and that a run may be given all the same. Those that a run needs are found
        before it.
        """
        for name in inputs:
            for left in self.uncovered:
                if name in left.names:
                    hint = f"{left.remedy}, or do not give it: a step writes it"
                    yield Diagnostic("V059", ("context", name), left.message(name), hint)


def check(
    flow: Flow, contracts: Mapping[str, ToolContract], solved: Assigned | None = None
) -> list[Diagnostic]:
    """Every fault of *flow* for a host with these tools, in document order; *solved* is `assigned`
    of it, where that is there.
    """
    if any(has(d.code, GRAPH) for d in flow.diagnostics):  # too large, and not all of it is there
        return list(flow.diagnostics)
    found = [*flow.diagnostics, *check_shape(flow), *check_tools(flow, contracts)]
    # data flow over a broken graph says nonsense
    if not any(d.severity == "error" for d in flow.diagnostics):
        found += check_names(flow, solved=solved)
    return in_order(found)


def in_order(found: Iterable[Diagnostic]) -> list[Diagnostic]:
    """*found* in document order."""
    return sorted(found, key=lambda d: _step_place(d.loc))


def _step_place(loc: Loc) -> list[tuple[int, int, str]]:
    """A key that orders places by their step; within a step they stay as they were found."""
    last = max((i for i, part in enumerate(loc) if isinstance(part, int)), default=-1)
    return [(0, part, "") if isinstance(part, int) else (1, 0, part) for part in loc[: last + 1]]


_OWN_BUDGET: Loc = ("policy", "budget")


@collector_paused()
def examine(
    flow: Flow,
    contracts: Mapping[str, ToolContract],
    *,
    policy: Policy | None = None,
    budget: Budget | None = None,
    prices: Mapping[str, Price] | None = None,
    default_model: str | None = None,
    served: Mapping[str | None, Served] | None = None,
    tags: Mapping[str | None, frozenset[str]] | None = None,
    untrusted: Iterable[str] = (),
    approved: frozenset[str] = frozenset(),
    more: Iterable[Diagnostic] = (),
    thorough: bool = True,
) -> Examined:
    """Everything that can be said of *flow* for a host with these contracts; *more* are faults
    found elsewhere.

    Not *thorough*, only what decides whether it may run: no warnings about branches, and no worst
    case unless a policy needs it.
    """
    program = flow.program
    host = policy or Policy()
    policies = (host, *_own_policies(flow))
    solved = None if any(d.severity == "error" for d in flow.diagnostics) else assigned(flow)
    found = [*more, *check(flow, contracts, solved)]
    contracts, faults = _by_policy(flow, contracts, policies)
    found += [*faults, *check_kept(flow, contracts)]
    found += _unknown_inputs(flow, policies, untrusted)
    uncovered = _not_covered(flow, policies, untrusted)
    found += _uncovered_inputs(flow, policies, uncovered)
    if by_policy := policy is not None or len(policies) > 1:
        found = [replace(d, severity="error") if has(d.code, DOUBT) else d for d in found]
    sound = not any(d.severity == "error" and not has(d.code, HOST) for d in found)
    proofs: tuple[Proof, ...] = ()
    trust, secrecy, most = Trust(), Secrecy(), None
    checks: dict[Loc, tuple[CallRule, ...]] = {}
    secrets = Secrets(policies, contracts, flow.tools, tags or {})
    demanding = by_policy or secrets.speaks or any(c.options.trusted for c in contracts.values())
    if sound and (demanding or thorough):
        called = _first_calls(flow)
        rules = _rules(called, contracts, policies)
        found += _forbidden(flow, rules)
        index = Index(flow, contracts) if speaks_of_order(rules.values()) else None
        answering = list(_answering(flow, policies, tags or {}))
        found += [d for _, d in answering if d is not None]
        labels = frozenset(untrusted).union(*(untrusted_by(p, flow) for p in policies))
        found += _doubtful(rules, labels)
        trust, secrecy = _values(flow, contracts, rules, secrets, labels, approved)
        found += secrecy.faults
        checks = _checks(flow, rules, trust, secrecy)
        found += check_literals(flow, contracts, checks)
        found += check_names_of_rules(flow, contracts, rules, index)
        bounds = [p.budget for p in policies if p.budget is not None]
        if thorough or bounds or any(rule.max_calls is not None for rule in rules.values()):
            budget = tightest([b for b in (budget, *bounds) if b is not None])
            most = ceiling(
                flow,
                contracts,
                prices=prices,
                default_model=default_model,
                budget=budget,
                served=served,
            )
            for bound in bounds:
                found += _over(
                    flow, contracts, most, bound, prices, default_model, served, budget, _OWN_BUDGET
                )
            if thorough and program.budget is not None:
                found += [replace(d, severity="hint") for d in over_budget(most, program.budget)]
        findings = [
            *_limited(flow, called, rules, most),
            *check_guards(flow, contracts, rules | _uncalled(rules, policies, contracts), index),
            *trust.findings,
            *secrecy.findings,
        ]
        findings += [finding for finding, _ in answering if finding.holds]
        effort = MAX_EFFORT if thorough else REFUSAL_EFFORT
        proofs = tuple(_proofs(flow, contracts, checks, findings, effort))
    if thorough and sound:
        domains = Domains(flow, contracts, solved)
        found += advise(flow, contracts, solved, domains)
        notes = empty_guards(index, rules.values(), domains) if index is not None else {}
        proofs = tuple(replace(p, note=notes.get(p.statement, p.note)) for p in proofs)
    report = Report(
        program.name,
        flow.digest or program.digest,
        tuple(in_order(found)),
        proofs,
        most,
        (*trust.flows, *secrecy.flows) if sound else (),
        secrecy.released,
    )
    return Examined(report, contracts, policies, checks, uncovered, secrecy.levels)


def _values(
    flow: Flow,
    contracts: Mapping[str, ToolContract],
    rules: Mapping[str, Rules],
    secrets: Secrets,
    untrusted: frozenset[str],
    approved: frozenset[str],
) -> tuple[Trust, Secrecy]:
    """Which values reach what: one graph, on which both lattices are laid."""
    secret = frozenset(n for n in flow.frames[0].names.keys if secrets.speaks and secrets.input(n))
    graph = graph_of(flow, untrusted | secret, approved)
    trust = analyse(flow, contracts, rules, untrusted=untrusted, graph=graph)
    if not secrets.speaks:
        return trust, Secrecy()
    secrecy = secrecy_of(graph, secrets)
    faults = [
        *secrecy.faults,
        *secrets.faults(),
        *(fault for own in secrets.policies[1:] for fault in widened(secrets, own)),
    ]
    return trust, replace(secrecy, faults=tuple(faults))


def _checks(
    flow: Flow, rules: Mapping[str, Rules], trust: Trust, secrecy: Secrecy
) -> dict[Loc, tuple[CallRule, ...]]:
    """What is held against arguments before calls."""
    checks: dict[Loc, tuple[CallRule, ...]] = dict(trust.checks)
    by_approval = (*trust.shown.items(), *secrecy.shown.items(), *shown_arguments(flow, rules))
    for place, approval in by_approval:
        checks[place] = tuple(dict.fromkeys((*checks.get(place, ()), approval)))
    return checks


def _rules(
    called: Iterable[str], contracts: Mapping[str, ToolContract], policies: Sequence[Policy]
) -> dict[str, Rules]:
    """What is demanded of each tool that the program calls, in the order of its calls."""
    rules: dict[str, Rules] = {}
    for tool in called:
        known = contracts.get(tool)
        options = known.options if known is not None else ToolOptions()
        rules[tool] = rules_of(tool, policies, options.trusted, options.returns)
    return rules


def _uncalled(
    rules: Mapping[str, Rules], policies: Sequence[Policy], contracts: Mapping[str, ToolContract]
) -> dict[str, Rules]:
    """What must come *before* something else, and is never called: then the other must not be
    either.
    """
    patterns = dict.fromkeys(
        rule.pattern for policy in policies for rule in policy.tools if rule.before
    )
    names = [
        name
        for pattern in patterns
        for name in (contracts if "*" in pattern else (pattern,))
        if fnmatchcase(name, pattern)
    ]
    return {
        name: Rules(name, before=rules_of(name, policies).before)
        for name in names
        if name not in rules
    }


def _calls(flow: Flow) -> Iterator[tuple[ToolCall, Names, str]]:
    """Each call of a tool, with the program and the step that makes it."""
    for names in flow.spaces:
        for step_id, calls in names.calls.items():
            for call in calls:
                yield call, names, step_id


def _place_of(call: ToolCall, names: Names, step_id: str) -> Loc:
    """Where the tool of a call is named."""
    return (*names.loc, *names.ids[step_id], *call.at, "tool")


def _first_calls(flow: Flow) -> dict[str, Loc]:
    """Each tool that is called, in the order of the program, and where it is first."""
    found: dict[str, Loc] = {}
    for call, names, step_id in _calls(flow):
        if call.tool not in found:
            found[call.tool] = _place_of(call, names, step_id)
    return found


def _forbidden(flow: Flow, rules: Mapping[str, Rules]) -> Iterator[Diagnostic]:
    """Calls of tools that a policy does not allow."""
    if all(rule.allow for rule in rules.values()):
        return
    for call, names, step_id in _calls(flow):
        tool = call.tool
        if not rules[tool].allow:
            loc = _place_of(call, names, step_id)
            allowed = [name for name in rules if rules[name].allow]
            named = f"name it in the policy: tools: {{{tool}: {{}}}}"
            hint = (
                f"{named}; it allows {', '.join(map(repr, allowed))} of those that the program "
                f"calls"
                if allowed
                else named
            )
            yield Diagnostic("V050", loc, f"the policy does not allow tool {tool!r}", hint)


def _answering(
    flow: Flow, policies: Sequence[Policy], tags: Mapping[str | None, frozenset[str]]
) -> Iterator[tuple[Finding, Diagnostic | None]]:
    """Whether everyone who may answer for a model has the tags that policies demand of it: of a
    pool, every member.
    """
    seen: dict[str | None, Loc] = {}
    for names in flow.spaces:
        for step, at in names.steps:
            if isinstance(step, LLMStep):
                declared = step.model or names.program.defaults.model
                seen.setdefault(names.program.model_named(declared), (*names.loc, *at))
    for model, loc in seen.items():
        has = tags[model] if model in tags else tags.get(None, frozenset())
        wanted = dict.fromkeys(
            tag
            for policy in policies
            for pattern, demanded in policy.models
            if fnmatchcase(model or "", pattern)
            for tag in demanded
        )
        if not wanted:
            continue
        who = "the default model" if model is None else f"model {model!r}"
        statement = f"all that answer for {who} are tagged {', '.join(wanted)}"
        missing = [tag for tag in wanted if tag not in has]
        finding = Finding("model", model or "", statement, not missing, loc)
        if not missing:
            yield finding, None
            continue
        message = f"the policy demands that {statement}, and not all have {', '.join(missing)}"
        hint = "give the models their tags (Member(tags=...)), or the pool require: [...]"
        yield finding, Diagnostic("V064", (*loc, "model"), message, hint)


def _limited(
    flow: Flow, called: Mapping[str, Loc], rules: Mapping[str, Rules], most: Ceiling | None
) -> Iterator[Finding]:
    """`max_calls`, against the worst case of calls with all their attempts; *called* is where each
    tool is called first.
    """
    for tool, rule in rules.items():
        if rule.max_calls is None or most is None:
            continue
        calls, limit = most.tools.get(tool, 0), rule.max_calls
        times = "once" if limit == 1 else f"{limit} times"
        statement = f"{tool!r} is called at most {times}, attempts included"
        yield Finding(
            "max_calls",
            tool,
            statement,
            calls <= limit,
            called[tool],
            breaks=partial(called_more, flow, tool, limit),
        )


def _over(
    flow: Flow,
    contracts: Mapping[str, ToolContract],
    most: Ceiling,
    bound: Budget,
    prices: Any,
    default_model: str | None,
    served: Mapping[str | None, Served] | None,
    budget: Budget | None,
    loc: Loc,
) -> list[Diagnostic]:
    """Where the worst case exceeds a policy's budget. What depends on the size of inputs is only
    warned of: the run's own reservations hold it, and most inputs are far smaller than the largest.
    """
    faults = over_budget(most, bound, loc)
    if any(d.severity == "error" and d.loc[-1] in ("max_tokens", "max_cost_usd") for d in faults):
        least = ceiling(
            flow,
            contracts,
            prices=prices,
            default_model=default_model,
            served=served,
            budget=budget,
            input_bytes=0,
        )
        sure = {d.loc for d in over_budget(least, bound, loc) if d.severity == "error"}
        faults = [
            d
            if d.loc in sure or d.loc[-1] not in ("max_tokens", "max_cost_usd")
            else replace(
                d,
                code="V075",
                severity="warning",
                hint="it depends on the size of inputs, and is enforced while the program runs",
            )
            for d in faults
        ]
    return faults


def _proofs(
    flow: Flow,
    contracts: Mapping[str, ToolContract],
    checks: Mapping[Loc, Sequence[CallRule]],
    findings: Sequence[Finding],
    effort: int,
) -> Iterator[Proof]:
    """Findings as proofs: for each that does not hold, a run that breaks it is searched for, and
    executed.
    """
    if all(f.holds for f in findings):  # nothing is searched for, so nothing is compiled
        yield from (Proof(f.kind, f.tool, f.statement, "proved", f.loc) for f in findings)
        return
    search: Search | None = None
    effort -= PREPARED_EFFORT * len(flow.nodes)
    missing = "the program cannot be run, so no run was searched for"
    if effort < 0:
        missing = "no run was searched for: the program is too large to try runs while one waits"
    else:
        # unknown tools cannot be compiled, and then nothing can be run
        with suppress(VMError, KeyError):
            plan = plan_of(flow, contracts, checks)
            search = Search(plan, flow, contracts, checks=checks, effort=effort)
    for f in findings:
        if f.holds:
            yield Proof(f.kind, f.tool, f.statement, "proved", f.loc)
            continue
        run, reason = None, None
        if f.reason is not None:
            reason = f.reason
        elif f.breaks is None:
            reason = "trust follows from the program's text alone, so no run is searched for"
        elif search is None:
            reason = missing
        elif search.effort < 0:
            reason = (
                "no run was searched for: the searches for other statements took all the "
                "time that there is"
            )
        else:
            prefer = [(move.node, move.label) for move in f.path]
            run = search.find(
                f.statement,
                breaks=f.breaks,
                prefer=prefer,
                budget_runs=SEARCHED_RUNS,
                marks=f.marks,
            )
            if run is None:
                reason = (
                    f"none of the runs that were tried (at most {SEARCHED_RUNS}) takes this path"
                )
        yield Proof(
            f.kind,
            f.tool,
            f.statement,
            "refuted" if run is not None else "unproved",
            f.loc,
            f.path,
            run,
            reason,
        )


SEARCHED_RUNS = 500
"""Runs that are tried for one counterexample: most are found among the first ten."""

REFUSAL_EFFORT = 20_000
"""Steps of all searched runs where a run waits for its refusal: some 50 ms of the event loop. A
report gets ten times that.
"""


PREPARED_EFFORT = 4
"""What the plan and the choices of a search take, in steps of runs: for each node of the graph."""


def _doubtful(rules: Mapping[str, Rules], untrusted: frozenset[str]) -> Iterator[Diagnostic]:
    """Value checks that read what somebody calls untrusted: a stranger would choose what the value
    is held against.
    """
    for tool, rule in rules.items():
        for argument, one in rule.args:
            for name in one.reads():
                if name in untrusted:
                    message = (
                        f"the check {one.text!r} of argument {argument!r} of {tool!r} reads "
                        f"input {name!r}, which is untrusted"
                    )
                    hint = (
                        "write what is allowed into the policy's values, or take the input "
                        "from a trusted place"
                    )
                    yield Diagnostic(
                        "V058", ("policy", "tools", tool, "args", argument), message, hint
                    )


def _unknown_inputs(
    flow: Flow, policies: Sequence[Policy], untrusted: Iterable[str]
) -> Iterator[Diagnostic]:
    """Inputs that are called untrusted, or labelled, and that the program does not have: a typo
    would leave the right one trusted, or public.
    """
    checks = [one for policy in policies for rule in policy.tools for one in rule.args.values()]
    known = dict.fromkeys(
        [*flow.frames[0].names.keys, *(name for one in checks for name in one.reads())]
    )
    hints = Hints()
    for policy in policies:
        for name in policy.untrusted:
            if name == "*":
                continue
            near = hints.nearest(name, known) if name not in known else None
            if near is not None:
                message = f"the policy calls input {name!r} untrusted, and the program has none"
                trusted = "*" in policy.trusted and near not in policy.trusted + policy.untrusted
                severity: Severity = "error" if trusted else "warning"
                yield Diagnostic(
                    "V056",
                    ("policy", "inputs", name),
                    message,
                    f"did you mean {near!r}? name it too",
                    severity,
                )
        yield from _mislabelled(policy, known, hints, own=policy is not policies[0])
    for name in untrusted:
        if name not in known:
            hint = hints.meant(name, known, otherwise=f"it reads {', '.join(known) or 'no inputs'}")
            yield Diagnostic(
                "V056",
                ("context",),
                f"input {name!r} is called untrusted, and the program reads none",
                hint,
            )


def _mislabelled(
    policy: Policy, known: Collection[str], hints: Hints, *, own: bool
) -> Iterator[Diagnostic]:
    """Inputs that *policy*, the program's *own* or the host's, labels, and that the program does not
    have, where the one that may be meant is public. Where the host does not say so, it is asked.
    """
    labelled = policy.secrecy.inputs
    if labelled.get("*", () if own else None) != ():
        return
    for name in (one for one, labels in labelled.items() if labels and one not in known):
        near = hints.nearest(name, known)
        if near is not None and near not in labelled:
            message = f"the policy labels input {name!r}, and the program has none"
            hint = f"did you mean {near!r}? name it too"
            yield Diagnostic("V056", ("policy", "inputs", name), message, hint)


def _uncovered_inputs(
    flow: Flow, policies: Sequence[Policy], uncovered: Iterable[Unsaid]
) -> Iterator[Diagnostic]:
    """Inputs that a run is given and of which a host's policy with ``inputs`` does not say what is
    said of others there: that a name is missing is as likely a slip of the pen as a decision, and
    it would be trusted, or public.
    """
    for left in uncovered:
        yield from _unsaid(flow, policies, left)


def _unsaid(flow: Flow, policies: Sequence[Policy], left: Unsaid) -> Iterator[Diagnostic]:
    root = flow.frames[0].names
    needed = {name: loc for name, loc in root.needed.items() if name in left.names}
    declared = left.names & root.declared
    needed |= {name: ("inputs", "properties", name) for name in root.keys if name in declared}
    for policy in policies:
        for rule in policy.tools:
            for argument, one in rule.args.items():
                at: Loc = ("policy", "tools", rule.pattern, "args", argument)
                needed |= {
                    name: at for name in one.reads() if name in left.names and name not in needed
                }
    known = {*root.needed, *root.declared}
    named = [name for name in left.named if name not in known]
    hints = Hints()
    for name, loc in needed.items():
        near = hints.nearest(name, named)
        slip = (
            f"it names {near!r}, which the program does not read; did you mean {name!r}? "
            if near is not None
            else ""
        )
        hint = f"{slip}{left.remedy}, or write '*' for all others"
        yield Diagnostic("V059", loc, left.message(name), hint)


def _not_covered(
    flow: Flow, policies: Sequence[Policy], untrusted: Iterable[str]
) -> tuple[Unsaid, Unsaid]:
    """What no entry of the host's ``inputs`` says of the trust, and of the labels, of names that a
    run can be given, or that value checks read.
    """
    host = policies[0]
    checks = [one for policy in policies for rule in policy.tools for one in rule.args.values()]
    names = {*flow.frames[0].names.keys, *(name for one in checks for name in one.reads())}
    said = (*host.untrusted, *host.trusted)
    covered = {
        *host.trusted,
        *untrusted,
        *(name for policy in policies for name in untrusted_by(policy, flow)),
    }
    labelled = tuple(host.secrecy.inputs)
    trust = names - covered if host.names_inputs and "*" not in said else ()
    labels = names.difference(labelled) if labelled and "*" not in labelled else ()
    return (
        Unsaid(frozenset(trust), said, "trusted", "untrusted"),
        Unsaid(frozenset(labels), labelled, "secret", "public"),
    )


def _own_policies(flow: Flow) -> list[Policy]:
    """Those of the program and of each that it calls."""
    programs = {id(frame.names.program): frame.names.program for frame in flow.frames}
    return [p.own_policy for p in programs.values() if p.own_policy is not None]


def _by_policy(
    flow: Flow, contracts: Mapping[str, ToolContract], policies: Sequence[Policy]
) -> tuple[dict[str, ToolContract], list[Diagnostic]]:
    """The contracts with the effects that policies give them, and what is wrong with the policies
    for this host; its own is first.
    """
    found: list[Diagnostic] = []
    hints = Hints()
    result = dict(contracts)
    for number, policy in enumerate(policies):
        own = number > 0
        if own:
            found += loosened(policies[0], policy)
        at: Loc = ("policy",)
        named: dict[str, list[ToolContract]] = {}  # by pattern
        for name, known_tool in contracts.items():
            for rule in policy.matching(name):
                named.setdefault(rule.pattern, []).append(known_tool)
        for rule in policy.tools:
            loc: Loc = (*at, "tools", rule.pattern)
            for name in rule.before:
                meant = hints.meant(name, contracts) if name not in contracts else None
                if meant and not any(name.partition(".")[0] in names.ids for names in flow.spaces):
                    message = (
                        f"{rule.pattern!r} must come before {name!r}, which is no tool, and "
                        f"no step of this program"
                    )
                    found.append(Diagnostic("V054", (*loc, "before"), message, meant))
            if "*" in rule.pattern:
                found += _unmatched(rule, loc, named.get(rule.pattern, []), contracts, hints)
                continue
            known = contracts.get(rule.pattern)
            if known is None:
                otherwise = "the host's tools are " + (", ".join(contracts) or "none")
                hint = hints.meant(rule.pattern, contracts, otherwise=otherwise)
                found.append(
                    Diagnostic("V051", loc, f"the policy names unknown tool {rule.pattern!r}", hint)
                )
                continue
            for name in rule.args:
                if name != "*" and name not in known.parameters and not known.open:
                    otherwise = f"it takes {', '.join(known.parameters) or 'none'}"
                    hint = hints.meant(name, known.parameters, otherwise=otherwise)
                    message = (
                        f"the policy names argument {name!r}, which tool {rule.pattern!r} "
                        f"does not take"
                    )
                    found.append(Diagnostic("V055", (*loc, "args", name), message, hint))
        for name in contracts:
            for rule in policy.matching(name):
                effect = rule.effect
                now = result[name]
                if effect is None or effect == now.effect:
                    continue
                if EFFECTS.index(effect) < EFFECTS.index(now.effect) and (now.declared or own):
                    message = (
                        f"tool {name!r} is declared {now.effect!r}, and the policy calls it "
                        f"{effect!r}"
                    )
                    hint = "a policy may only make an effect graver"
                    found.append(
                        Diagnostic(
                            "V057", ("policy", "tools", rule.pattern, "effect"), message, hint
                        )
                    )
                else:
                    result[name] = replace(now, effect=effect, declared=True)
    return result, found


def untrusted_by(policy: Policy, flow: Flow) -> Iterator[str]:
    """The inputs of the program that *policy* calls untrusted; ``*`` stands for all that it does
    not call trusted.
    """
    for name in policy.untrusted:
        if name == "*":
            yield from (other for other in flow.frames[0].names.keys if other not in policy.trusted)
        else:
            yield name


def _unmatched(
    rule: ToolRule,
    loc: Loc,
    matched: Sequence[ToolContract],
    contracts: Mapping[str, ToolContract],
    hints: Hints,
) -> Iterator[Diagnostic]:
    """A pattern that names no tool of the host, and arguments that none of those *matched* takes."""
    if not matched and rule.pattern != "*":
        message = f"the policy's pattern {rule.pattern!r} matches none of the host's tools"
        yield Diagnostic(
            "V051", loc, message, f"they are {', '.join(contracts) or 'none'}", "warning"
        )
    for name in rule.args if matched else ():
        if name != "*" and not any(known.open or name in known.parameters for known in matched):
            hint = hints.meant(name, sorted({p for known in matched for p in known.parameters}))
            message = (
                f"the policy names argument {name!r}, which no tool that {rule.pattern!r} "
                f"matches takes"
            )
            yield Diagnostic("V055", (*loc, "args", name), message, hint)


@collector_paused()
def verify(
    program: Program,
    *,
    tools: Mapping[str, Any] | None = None,
    policy: Policy | Mapping[str, Any] | str | None = None,
    prices: Mapping[str, Any] | None = None,
    programs: Mapping[str, Program] | None = None,
    untrusted: Iterable[str] = (),
    approved: Iterable[str] = (),
) -> Report:
    """What can be said of every run of *program* before any: faults, proofs, the worst case, flows.
    Nothing is called.

    *tools* are callables by name, for their contracts; *policy* a `Policy`, a dict, or a file's
    path; *prices* dollars per million tokens; *untrusted* inputs whose values come from outside;
    *approved* digests of programs from untrusted sources.

    Raises:
        ProgramError: If the policy is malformed.
    """
    named = by_name(tools, "tools", "write tools={'search': search}")
    contracts = {name: contract(name, function) for name, function in named.items()}
    rules = policy_of(policy)
    examined = examine(
        Flow(program_given(program), programs_given(programs)),
        contracts,
        policy=rules,
        budget=program.budget,
        prices=None
        if prices is None
        else {
            name: checked_price(name, price)
            for name, price in by_name(prices, "prices", "write prices={'model': (1, 2)}").items()
        },
        untrusted=strings(untrusted, "untrusted", "name the inputs"),
        approved=frozenset(strings(approved, "approved", "write the digests of programs")),
        more=program.warnings,
    )
    return replace(
        examined.report, diagnostics=tuple(placed_for(program, rules, examined.report.diagnostics))
    )


def placed_for(
    program: Program, policy: Policy | None, diagnostics: Iterable[Diagnostic]
) -> list[Diagnostic]:
    """*diagnostics* with line and column, in the file of the program or of the host's *policy*,
    whichever each is about.
    """
    found = program.place(list(diagnostics))
    return policy.place(found, program.own_policy) if policy is not None else found
