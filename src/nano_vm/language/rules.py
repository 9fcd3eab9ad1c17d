"""What several policies (the host's, the program's own, the contracts of tools) demand of a tool,
joined: each can only add a demand.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from ..diagnostics import Diagnostic, Loc
from .policy import EFFECTS, LOOSENED, ArgRule, Policy, Returns, ToolRule


@dataclass(frozen=True, slots=True)
class Rules:
    """All that is demanded of one tool: of each field every demand, the host's before the
    program's.
    """

    tool: str
    allow: bool = True
    args: tuple[tuple[str, ArgRule], ...] = ()
    guards: tuple[tuple[str, ...], ...] = ()  # each: one of these edges
    approvals: tuple[str, ...] = ()
    max_calls: int | None = None
    after: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    returns: Returns | None = None

    def argument(self, name: str) -> list[ArgRule]:
        """The rules for the argument *name*."""
        return [rule for pattern, rule in self.args if pattern in (name, "*")]

    @property
    def protected(self) -> bool:
        """Whether anything is demanded of its arguments."""
        return bool(self.args)


def rules_of(
    tool: str,
    policies: Iterable[Policy],
    trusted: Iterable[str] = (),
    returns: Returns | None = None,
) -> Rules:
    """What *policies* demand of *tool*, the host's first; *trusted* and *returns* are of the tool's
    own contract.

    Only the host's policy may say what a tool returns.
    """
    args: list[tuple[str, ArgRule]] = []
    guards: list[tuple[str, ...]] = []
    approvals: list[str] = []
    after: list[str] = []
    before: list[str] = []
    allow, calls = True, []
    for number, policy in enumerate(policies):
        rules = policy.matching(tool)
        allow = allow and allowed(rules)
        accepts = tuple(rule.approval for rule in rules if rule.approval is not None)
        if number == 0:
            args += [(name, ArgRule("trusted", accepts=accepts)) for name in trusted]
        for rule in rules:
            args += [
                (name, replace(one, accepts=accepts) if accepts else one)
                for name, one in rule.args.items()
            ]
            if rule.guarded_by:
                guards.append(rule.guarded_by)
            if rule.approval is not None:
                approvals.append(rule.approval)
            if rule.max_calls is not None:
                calls.append(rule.max_calls)
            after += rule.after
            before += rule.before
            if rule.returns is not None and number == 0:
                returns = rule.returns
    return Rules(
        tool,
        allow,
        tuple(dict.fromkeys(args)),
        tuple(dict.fromkeys(guards)),
        tuple(dict.fromkeys(approvals)),
        min(calls, default=None),
        tuple(dict.fromkeys(after)),
        tuple(dict.fromkeys(before)),
        returns,
    )


def allowed(rules: Sequence[ToolRule]) -> bool:
    """Whether the closest of *rules*, which are in order, allow their tool: all that are equally
    close, whatever the file's order.
    """
    return all(rule.allow for rule in rules if rule.rank == rules[-1].rank)


def loosened(known: Policy, own: Policy) -> Iterator[Diagnostic]:
    """Where a program's *own* policy would allow what the host's (*known*) does not: it may only
    tighten.
    """

    def fault(
        loc: Loc, message: str, hint: str = "remove it; a program's policy can only add demands"
    ) -> Diagnostic:
        return Diagnostic(LOOSENED, ("policy", *loc), message, hint)

    for name in own.trusted:
        if name in known.untrusted or ("*" in known.untrusted and name not in known.trusted):
            yield fault(
                ("inputs", name),
                f"input {name!r} is untrusted by the host, and the program calls it trusted",
            )
    for rule in own.tools:
        at: Loc = ("tools", rule.pattern)
        rules = known.matching(rule.pattern)
        if rule.returns is not None and not any(r.returns == rule.returns for r in rules):
            yield fault(
                (*at, "returns"),
                f"what {rule.pattern!r} returns is for the host to say, not for the program",
            )
        if (
            "allow" in own.source.get("tools", {}).get(rule.pattern, {})
            and rule.allow
            and not allowed(rules)
        ):
            yield fault(
                (*at, "allow"), f"the host forbids {rule.pattern!r}, and the program allows it"
            )
        most = min((r.max_calls for r in rules if r.max_calls is not None), default=None)
        if most is not None and rule.max_calls is not None and rule.max_calls > most:
            yield fault(
                (*at, "max_calls"),
                f"the host allows {most} calls of {rule.pattern!r}, not {rule.max_calls}",
            )
        effects = [EFFECTS.index(r.effect) for r in rules if r.effect is not None]
        if rule.effect is not None and effects and EFFECTS.index(rule.effect) < max(effects):
            yield fault(
                (*at, "effect"),
                f"the host calls {rule.pattern!r} {EFFECTS[max(effects)]}, not {rule.effect}",
            )
    if own.replaces:
        yield fault(
            ("replaces",),
            "which policy takes the place of which is for the host to say, not for the program",
        )
    for name, value in own.values.items():
        if name in known.values and known.values[name] != value:
            yield fault(
                ("values", name), f"the host's value {name!r} cannot be changed by the program"
            )
