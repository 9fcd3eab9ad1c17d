"""What policies and contracts say of labels, joined: the host's policy first, then the program's.

Policies and contracts come in; a `Secrets` goes out, which answers for an input, a tool, a model, a
person, an event or another receiver with a set of labels, as bits. Of a source the labels add up; a
receiver accepts what all accept that speak of it, and nothing where nobody does. Within one policy
the closest name counts: a tool's or model's own before a pattern, the longer pattern before the
shorter, an argument's own before ``*``; of equally close ones all count.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from fnmatch import fnmatchcase
from typing import TypeVar

from ...diagnostics import Diagnostic, Loc
from ...language.policy import Policy
from ...language.secrecy import ALL, NONE, SECRET, TAG, Labels, Passing
from ...spelling import Hints
from ...tools.contract import ToolContract

Rule = TypeVar("Rule")


class Secrets:
    """The labels of a host and a program; *policies* are as `examine` has them, and *tools* those
    that the program calls.
    """

    def __init__(
        self,
        policies: Sequence[Policy],
        contracts: Mapping[str, ToolContract],
        tools: Iterable[str],
        tags: Mapping[str | None, frozenset[str]],
    ) -> None:
        self.policies = policies
        self.contracts = contracts
        self.tags = tags
        declared = [policy.secrecy.labels for policy in policies]
        names = declared[0] or tuple(dict.fromkeys(name for own in declared for name in own))
        self.called = {tool: contracts[tool] for tool in tools if tool in contracts}
        returned = [contract.options.returns_secret for contract in self.called.values()]
        if not names:  # nobody declares any: those that contracts name, else the one
            found = [name for labels in returned for name in labels]
            names = tuple(dict.fromkeys(name for name in found if name != SECRET))
        self.names: Labels = names or (SECRET,)
        self.bits = {name: 1 << number for number, name in enumerate(self.names)}
        self.all = (1 << len(self.names)) - 1
        # whether the host does, by its policy or its tools: then it says what each receiver accepts
        self.host_speaks = policies[0].speaks_of_secrets or any(returned)
        self.speaks = self.host_speaks or any(policy.speaks_of_secrets for policy in policies[1:])
        self.refuses_implicit = any(policy.secrecy.implicit == "refuse" for policy in policies)

    @property
    def host(self) -> Policy:
        """The host's own policy, which alone may take a label away."""
        return self.policies[0]

    def mask(self, labels: Labels) -> int:
        """*labels* as bits; one that nobody declares is every label, so that nothing gets lost."""
        found = 0
        for name in labels:
            found |= self.bits.get(name, self.all)
        return found

    def accepting(self, labels: Labels) -> int:
        """*labels* of a receiver as bits; one that nobody declares is accepted by nobody."""
        if labels == ALL:
            return self.all
        return sum(self.bits.get(name, 0) for name in labels)

    def listed(self, mask: int) -> list[str]:
        """The labels in *mask*."""
        return [name for name, bit in self.bits.items() if mask & bit]

    def text(self, mask: int) -> str:
        """The labels in *mask*, for people."""
        return ", ".join(self.listed(mask))

    # --- sources ---

    def input(self, name: str) -> int:
        """The labels of an input of the run."""
        said = (
            policy.secrecy.inputs.get(name, policy.secrecy.inputs.get("*", NONE))
            for policy in self.policies
        )
        return self._joined(said)

    def returns(self, tool: str) -> int:
        """The labels of what *tool* returns, beside those of its arguments."""
        contract = self.contracts.get(tool)
        mask = self.mask(contract.options.returns_secret) if contract is not None else 0
        for policy in self.policies:
            for labels in _closest(
                (rule.rank, rule.secrecy.returns)
                for rule in policy.matching(tool)
                if rule.secrecy.returns is not None
            ):
                mask |= self.mask(labels)
        return mask

    def declassified(self, tool: str) -> tuple[int, str]:
        """The labels that the result of *tool* no longer has, and why: the host alone says so."""
        mask, reasons = 0, []
        for rule in self.host.matching(tool):
            if rule.secrecy.declassifies:
                mask |= self.accepting(rule.secrecy.declassifies)
                reasons.append(rule.secrecy.reason)
        return mask, "; ".join(dict.fromkeys(reasons))

    def carries(self, event: str) -> int:
        """The labels of what the event *event* brings."""
        return self._joined(
            passing.gives for found in self._passing("events", event) for passing in found
        )

    def _joined(self, found: Iterable[Labels | None]) -> int:
        mask = 0
        for labels in found:
            mask |= self.mask(labels) if labels is not None else 0
        return mask

    # --- receivers ---

    def argument(self, tool: str, name: str) -> int:
        """The labels that the argument *name* of *tool* accepts."""
        said = []
        for policy in self.policies:
            rules = [rule for rule in policy.matching(tool) if rule.secrecy.accepts]
            own = [(rule.rank, rule.secrecy.accepts.get(name)) for rule in rules]
            other = [(rule.rank, rule.secrecy.accepts.get("*")) for rule in rules]
            said.append(_closest(own) or _closest(other))
        contract = self.contracts.get(tool)
        if contract is not None and contract.options.accepts is not None:
            said[0].append(contract.options.accepts)
        return self._all_accept(said) or 0

    def model(self, name: str | None) -> int | None:
        """The labels that all accept who may answer for a model; None where no rule is for it."""
        tags = self.tags[name] if name in self.tags else self.tags.get(None, frozenset())
        said = []
        for policy in self.policies:
            found = []
            for pattern, labels in policy.secrecy.models.items():
                if pattern.startswith(TAG):
                    if pattern.removeprefix(TAG) in tags:
                        found.append(((True, False, 0), labels))
                elif fnmatchcase(name or "", pattern):
                    found.append((("*" not in pattern, True, len(pattern)), labels))
            exact = [labels for (named, own, _), labels in found if named and own]
            tagged = [labels for (named, own, _), labels in found if named and not own]
            said.append(exact or tagged or _closest(found))
        return self._all_accept(said)

    def role(self, name: str) -> int:
        """The labels that a person of a role may be shown."""
        return self._accepted(self._passing("roles", name))

    def released(self, role: str) -> int:
        """The labels that *role* takes from a value by approving it: the host alone says so, and
        nobody releases what may not be shown to them.
        """
        (host, *_) = self._passing("roles", role)
        return self._joined(passing.gives for passing in host) & self.role(role)

    def event(self, name: str) -> int:
        """The labels that those may know who send the event *name*."""
        return self._accepted(self._passing("events", name))

    def receiver(self, name: str) -> int:
        """The labels that another receiver accepts."""
        found = [policy.secrecy.accepts.get(name) for policy in self.policies]
        return self._all_accept([[] if said is None else [said] for said in found]) or 0

    def _passing(self, kind: str, name: str) -> Iterator[list[Passing]]:
        for policy in self.policies:
            rules: Mapping[str, Passing] = getattr(policy.secrecy, kind)
            yield _closest(
                (("*" not in pattern, len(pattern)), rule)
                for pattern, rule in rules.items()
                if fnmatchcase(name, pattern)
            )

    def _accepted(self, found: Iterable[list[Passing]]) -> int:
        said = [[rule.accepts for rule in rules if rule.accepts is not None] for rules in found]
        return self._all_accept(said) or 0

    def _all_accept(self, said: Sequence[Sequence[Labels]]) -> int | None:
        """What all accept that speak of a receiver, the host's first; None where nobody does, or
        the host does not and labels are its own: what a program's policy says narrows that of the
        host, and stands alone only for labels of its own.
        """
        masks = [self.accepting(labels) for one in said for labels in one]
        if not masks or (self.host_speaks and not said[0]):
            return None
        mask = self.all
        for one in masks:
            mask &= one
        return mask

    # --- what is wrong with it ---

    def faults(self) -> Iterator[Diagnostic]:
        """Labels that nobody declares, and those that receivers accept and no source has."""
        hints = Hints()
        sources: set[str] = set()
        for where, labels, _ in self._named(self.called):
            for name in labels:
                if name != SECRET and name not in self.bits:
                    known = ", ".join(self.names)
                    hint = hints.meant(name, self.names, otherwise=f"the labels are {known}")
                    message = f"label {name!r} is declared by nobody"
                    yield Diagnostic("V065", where, message, hint)
        for _, labels, receives in self._named(self.contracts):
            if not receives:
                sources.update(self.names if SECRET in labels else labels)
        for where, labels, receives in self._named(self.called):
            for name in labels:
                if receives and name in self.bits and name not in sources:
                    message = f"label {name!r} is accepted here, and no value has it"
                    hint = "say which input, tool or event has it, or remove it"
                    yield Diagnostic("V066", where, message, hint)

    def _named(self, contracts: Mapping[str, ToolContract]) -> Iterator[tuple[Loc, Labels, bool]]:
        """Each place of policies and *contracts* that names labels, and whether it is that of a
        receiver.
        """
        for policy in self.policies:
            said, at = policy.secrecy, ("policy",)
            for name, labels in said.inputs.items():
                yield (*at, "inputs", name), labels, False
            for rule in policy.tools:
                here: Loc = (*at, "tools", rule.pattern)
                yield (*here, "returns"), rule.secrecy.returns or NONE, False
                for name, labels in rule.secrecy.accepts.items():
                    yield (*here, "args", name), _explicit(labels), True
                yield (*here, "declassifies"), _explicit(rule.secrecy.declassifies), True
            for name, labels in said.models.items():
                yield (*at, "models", name, "accepts"), _explicit(labels), True
            for name, passing in said.roles.items():
                yield (*at, "roles", name, "accepts"), _explicit(passing.accepts or NONE), True
                yield (*at, "roles", name, "releases"), _explicit(passing.gives or NONE), True
            for name, passing in said.events.items():
                yield (*at, "events", name, "accepts"), _explicit(passing.accepts or NONE), True
                yield (*at, "events", name, "returns"), passing.gives or NONE, False
            for name, labels in said.accepts.items():
                yield (*at, "accepts", name), _explicit(labels), True
        for name, contract in contracts.items():
            options = contract.options
            yield ("policy", "tools", name, "returns"), options.returns_secret, False
            yield ("policy", "tools", name, "args"), _explicit(options.accepts or NONE), True


def _explicit(labels: Labels) -> Labels:
    """Those that are named: who accepts all accepts also those that nobody has."""
    return NONE if labels == ALL else labels


def _closest(found: Iterable[tuple[object, Rule | None]]) -> list[Rule]:
    """Those rules, of all that say something, that name their subject most closely."""
    said = [(rank, rule) for rank, rule in found if rule is not None]
    if not said:
        return []
    best = max(rank for rank, _ in said)  # type: ignore[type-var]
    return [rule for rank, rule in said if rank == best]


def widened(secrets: Secrets, own: Policy) -> Iterator[Diagnostic]:
    """Where a program's *own* policy would let more be known than the host's does, or takes a label
    away.
    """
    host = copy(secrets)
    host.policies = secrets.policies[:1]
    if not host.host_speaks:
        return
    for name in own.secrecy.labels:
        if host.host.secrecy.labels and name not in host.host.secrecy.labels:
            yield _loosened(("secret",), f"label {name!r} is none of the host's")
    for name, labels in own.secrecy.inputs.items():
        missing = host.input(name) & ~secrets.mask(labels)
        if missing:
            message = f"input {name!r} is {secrets.text(missing)} to the host, and not here"
            yield _loosened(("inputs", name), message)
    for rule in own.tools:
        if rule.secrecy.declassifies:
            message = f"what {rule.pattern!r} declassifies is for the host to say"
            yield _loosened(("tools", rule.pattern, "declassifies"), message)
    for name, passing in own.secrecy.roles.items():
        if passing.gives:
            message = f"what {name!r} releases is for the host to say"
            yield _loosened(("roles", name, "releases"), message)
    for loc, labels, known, what in _accepted_by(own, host):
        more = secrets.accepting(labels) & ~known
        if more:
            message = f"the host gives {what} no value that is {secrets.text(more)}"
            yield _loosened(loc, f"{message}, and the program does")


def _loosened(loc: Loc, message: str) -> Diagnostic:
    hint = "remove it; a program's policy can only add demands"
    return Diagnostic("V057", ("policy", *loc), message, hint)


def _accepted_by(own: Policy, host: Secrets) -> Iterator[tuple[Loc, Labels, int, str]]:
    """Each receiver of the program's *own* policy: its place, what it accepts there and by the
    *host*, its name.
    """
    for rule in own.tools:
        for name, labels in rule.secrecy.accepts.items():
            known = host.argument(rule.pattern, name)
            what = f"argument {name!r} of {rule.pattern!r}"
            yield ("tools", rule.pattern, "args", name), labels, known, what
    for name, labels in own.secrecy.models.items():
        known = host.all if name.startswith(TAG) else host.model(name) or 0
        yield ("models", name, "accepts"), labels, known, f"model {name!r}"
    for name, passing in own.secrecy.roles.items():
        labels = passing.accepts or NONE
        yield ("roles", name, "accepts"), labels, host.role(name), f"role {name!r}"
    for name, passing in own.secrecy.events.items():
        labels = passing.accepts or NONE
        yield ("events", name, "accepts"), labels, host.event(name), f"event {name!r}"
    for name, labels in own.secrecy.accepts.items():
        yield ("accepts", name), labels, host.receiver(name), repr(name)
