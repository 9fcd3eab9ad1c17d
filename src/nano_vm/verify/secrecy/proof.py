"""Secrecy: which labelled values can reach a receiver that does not accept them, and what lets them?

The graph of values and the joined labels come in; findings and flows go out. Nothing is run, and no
value is seen.

Theory. A label is a set of names that values carry along, and a receiver accepts some: the lattice
of sets under union, of which *untrusted* is the mirror. Sets are taken apart: for each name one
search over the graph that `trust` uses too, from the sources of that name. Source: A. C. Myers,
B. Liskov, "A Decentralized Model for Information Flow Control", SOSP 1997.

What takes a label away is listed with its right: a tool that the host lets declassify, an answer
that is a choice among what the program lists, an approval that showed exactly the value to a role
that releases it. What a branch gives away is no flow of a value; `implicit` tells of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ...diagnostics import Diagnostic, Loc
from ...language.policy import Shown
from ..report import Finding, Influence, Marks, Released
from ..trust.approvals import Approvals, Fact
from ..trust.graph import STRONG, Graph, Reach, Reached
from .bits import Bits, of_decision, text
from .implicit import Regions
from .labels import Secrets
from .levels import levels
from .of_run import SecretArrivals
from .receivers import Receiver, Receivers
from .sources import Decision, Labelled


@dataclass(frozen=True, slots=True)
class Secrecy:
    """What the analysis says: ``findings`` one for each receiver that does not accept all that there
    is, ``flows`` what is secret reaches and decides, ``faults`` models without a rule, ``shown`` as
    of `Trust`, ``released`` how much can be given away by choices, ``levels`` the labels of what a
    run leaves, which only a run needs.
    """

    findings: tuple[Finding, ...] = ()
    flows: tuple[Influence, ...] = ()
    faults: tuple[Diagnostic, ...] = ()
    shown: Mapping[Loc, Shown] = field(default_factory=dict)
    released: tuple[Released, ...] = ()
    levels: Callable[[], Mapping[str, Any]] = dict


@dataclass(slots=True)
class _Place:
    """A receiver, what of each label reaches it, and which approvals would let it pass."""

    receiver: Receiver
    reached: dict[int, Reached]
    approvals: list[tuple[int, Fact]]


class _Verdicts:
    """Findings and flows, the worst of each place."""

    def __init__(self, labelled: Labelled, reaches: Mapping[int, Reach]) -> None:
        self.labelled = labelled
        self.secrets = labelled.secrets
        self.reaches = reaches
        self.findings: dict[tuple[Loc, str], Finding] = {}
        self.flows: dict[tuple[Loc, str], Influence] = {}
        self.shown: dict[Loc, Shown] = {}
        self.accepted: set[tuple[str, str | None, int]] = set()
        # by label: the nodes and inputs where it begins
        self.begins: dict[int, tuple[frozenset[int], frozenset[str]]] = {}

    def accept(self, receiver: Receiver) -> bool:
        """List what one receiver that accepts all labels is given; whether all of them are listed.
        Who accepts a label is listed once, whatever number of times it is given.
        """
        left = len(self.reaches)
        for bit, reach in self.reaches.items():
            key = receiver.name, receiver.argument, bit
            if key not in self.accepted:
                reached = _reached(receiver, reach)
                if not reached.level:
                    continue
                self.accepted.add(key)
                self._flow(receiver, bit, reached, f"accepted: {self.secrets.text(bit)}")
            left -= 1
        return not left

    def place(self, place: _Place, approvals: Approvals) -> None:
        """Judge one receiver that does not accept all labels."""
        receiver = place.receiver
        forbidden = [bit for bit in self.reaches if not bit & receiver.accepts]
        broken = None
        for bit, reached in place.reached.items():
            if bit in forbidden:
                allowed = self._right(place, bit, reached, approvals)
                if allowed is None and broken is None:
                    broken = bit
                self._flow(receiver, bit, reached, allowed)
            elif (receiver.name, receiver.argument, bit) not in self.accepted:
                self.accepted.add((receiver.name, receiver.argument, bit))
                self._flow(receiver, bit, reached, f"accepted: {self.secrets.text(bit)}")
        self._finding(receiver, forbidden, broken, place)

    def _right(self, place: _Place, bit: int, reached: Reached, approvals: Approvals) -> str | None:
        """What lets the label pass, if anything does."""
        if reached.level != STRONG:
            return reached.right
        undone = place.receiver.use == "undo"
        for label, fact in place.approvals:
            if label == bit and approvals.holds(fact, place.receiver.node, after=undone):
                self.shown.setdefault(place.receiver.loc, Shown(fact[2]))
                return f"released by {fact[2]} at step {', '.join(approvals.by[fact])}"
        return None

    def _flow(self, receiver: Receiver, bit: int, reached: Reached, allowed: str | None) -> None:
        key = receiver.loc, self.secrets.text(bit)
        known = self.flows.get(key)
        if known is not None and (known.allowed is None or allowed is not None):
            return
        source, way = self.reaches[bit].told(reached.vertex)
        step_id = receiver.node.step.id
        self.flows[key] = Influence(
            "argument", step_id, receiver.what, source, way, allowed, receiver.loc, key[1]
        )

    def _finding(
        self, receiver: Receiver, forbidden: list[int], broken: int | None, place: _Place
    ) -> None:
        key = receiver.loc, receiver.name
        known = self.findings.get(key)
        if known is not None and (broken is None or not known.holds):
            return
        labels = " or ".join(self.secrets.text(bit) for bit in forbidden)
        statement = f"no {labels} value reaches {receiver.what}"
        if broken is None:
            self.findings[key] = Finding("secrecy", receiver.name, statement, True, receiver.loc)
            return
        vertex = place.reached[broken].vertex
        path = self.reaches[broken].moves(vertex, receiver.node.index)
        flow = self.labelled.graph.flow
        breaks = SecretArrivals(flow, self.secrets, receiver, broken)
        self.findings[key] = Finding(
            "secrecy",
            receiver.name,
            statement,
            False,
            receiver.loc,
            path,
            breaks,
            marks=self._marks(receiver, broken, breaks),
        )

    def _marks(self, receiver: Receiver, bit: int, breaks: SecretArrivals) -> Marks:
        """Each place where values have the label *bit* of themselves."""
        if bit not in self.begins:
            nodes = frozenset(node for _, node in self.labelled.seeds[bit].values() if node >= 0)
            names = self.labelled.graph.flow.frames[0].names.keys
            inputs = frozenset(name for name in names if self.secrets.input(name) & bit)
            self.begins[bit] = nodes, inputs
        return Marks(*self.begins[bit], receiver.what, breaks.arrived)


def analyse(graph: Graph, secrets: Secrets) -> Secrecy:
    """Every flow of a labelled value to somebody."""
    labelled = Labelled(graph, secrets)
    regions = Regions(labelled) if secrets.refuses_implicit else None
    if regions is not None:
        regions.carry()
    reaches = labelled.spread()
    receivers = Receivers(graph.flow, secrets)
    if not reaches:
        receivers.look()
        return Secrecy(faults=tuple(receivers.without_rule()))
    verdicts = _Verdicts(labelled, reaches)
    approvals = Approvals(graph.flow)
    releasing = {role: secrets.released(role) for role in approvals.roles}
    present = sum(reaches)
    places = []
    for receiver in receivers:
        if present & ~receiver.accepts:
            places.append(_place(receiver, reaches, releasing, approvals))
        elif verdicts.accept(receiver):
            receivers.settled.add((receiver.name, receiver.argument))
    approvals.solve()
    for place in places:
        verdicts.place(place, approvals)
    branches = _Branches(labelled, reaches)
    findings = list(verdicts.findings.values())
    if regions is not None:
        findings += regions.findings([place.receiver for place in places], reaches, secrets)
    return Secrecy(
        tuple(findings),
        (*verdicts.flows.values(), *branches.flows()),
        tuple(receivers.without_rule()),
        verdicts.shown,
        tuple(Bits(labelled).released(reaches, secrets, branches.bits())),
        partial(levels, labelled, reaches, receivers),
    )


def _place(
    receiver: Receiver,
    reaches: Mapping[int, Reach],
    releasing: Mapping[str, int],
    approvals: Approvals,
) -> _Place:
    reached = {}
    for bit, reach in reaches.items():
        found = _reached(receiver, reach)
        if found.level:
            reached[bit] = found
    facts = []
    if receiver.argument is not None:
        for bit, one in reached.items():
            for role, released in releasing.items() if one.level == STRONG else ():
                fact = None
                if released & bit and not bit & receiver.accepts:
                    fact = approvals.ask(receiver.names, receiver.value, role)
                if fact is not None:
                    facts.append((bit, fact))
    return _Place(receiver, reached, facts)


def _reached(receiver: Receiver, reach: Reach) -> Reached:
    """What of a label reaches *receiver*."""
    found = reach.reached(receiver.names, receiver.refs)
    for node in receiver.outputs:
        vertex = reach.graph.out(node)
        if reach.level[vertex] > found.level:
            found = Reached(reach.level[vertex], vertex, reach.right.get(vertex, ""))
    return found


class _Branches:
    """What labelled values decide: for each place and label the first decision, and the bits of
    all.
    """

    def __init__(self, labelled: Labelled, reaches: Mapping[int, Reach]) -> None:
        self.secrets = labelled.secrets
        self.reaches = reaches
        self.found: dict[tuple[Loc, int], tuple[Decision, Reached]] = {}
        self._bits: dict[tuple[Loc, int], float] = {}
        for decision in labelled.decisions():
            for bit, reach in reaches.items():
                reached = reach.reached(decision.by.frame.names, decision.refs)
                if reached.level or decision.mask & bit:
                    key = decision.loc, bit
                    self.found.setdefault(key, (decision, reached))
                    self._bits[key] = self._bits.get(key, 0.0) + of_decision(decision)

    def flows(self) -> Iterator[Influence]:
        """One for each place and label."""
        for (loc, bit), (decision, reached) in self.found.items():
            source = f"what step {decision.by.step.id!r} calls"
            way: tuple[str, ...] = ()
            if reached.level:
                source, way = self.reaches[bit].told(reached.vertex)
            step_id = decision.node.step.id
            target = f"whether {step_id} fails" if decision.of_failure else step_id
            allowed = f"only a branch, {text(self._bits[loc, bit])}"
            label = self.secrets.text(bit)
            yield Influence("branch", step_id, target, source, way, allowed, loc, label)

    def bits(self) -> dict[int, float]:
        """By label, how much all of them give away."""
        found: dict[int, float] = {}
        for (_, bit), more in self._bits.items():
            found[bit] = found.get(bit, 0.0) + more
        return found
