"""How much of a secret choices can give away: the number of alternatives of each declassified answer
and of each branch, times how often a run can come there, in bits.

The graph of values and what labels reach come in; upper bounds go out. They add up, since the
alternatives of independent choices multiply: Shannon's capacity of a channel without noise. A loop
counts once for each iteration, a map once for each item that it may have.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import log2

from ...language.expr import Ref, value_references
from ...language.flow import Names, Node
from ...language.semantics import Chooses, External, Forks, Literals, Repeats, Term, output
from ...values import short
from ..report import Released, rounded_up
from ..trust.graph import Reach
from ..trust.labels import Path, choices
from .labels import Secrets
from .sources import Decision, Labelled


class Bits:
    """Of one program."""

    def __init__(self, labelled: Labelled) -> None:
        self.labelled = labelled
        self.graph = labelled.graph
        self._nodes: dict[tuple[int, str], list[Node]] = {}

    def released(
        self, reaches: Mapping[int, Reach], secrets: Secrets, decided: Mapping[int, float]
    ) -> Iterator[Released]:
        """For each label what choices among the program's own values, and branches, give away; of
        these *decided* says how much.
        """
        for bit, reach in reaches.items():
            answers = self._whole(reach) + self._parts(reach)
            if answers or decided.get(bit):
                yield Released(secrets.text(bit), answers, decided.get(bit, 0.0))

    def _whole(self, reach: Reach) -> float:
        """Answers that are one of several as a whole."""
        total = 0.0
        for node, _ in self.labelled.answers:
            names = node.frame.names
            number = _alternatives(output(node.step))
            if number is not None and not self.graph.literal(names):
                refs = [ref for ref, _ in names.reads[node.step.id]]
                if reach.reached(names, refs).level:
                    total += times(node) * log2(number)
        return total

    def _parts(self, reach: Reach) -> float:
        """Fields of answers that are one of several, and are read as such. Where `default` stands
        in for one that is left out, that it is left out is one more.
        """
        if not self.graph.shapes:
            return 0.0
        for node in self.graph.flow.nodes if not self._nodes else ():
            if node.kind == "step":
                self._nodes.setdefault((id(node.frame.names), node.step.id), []).append(node)
        bits: dict[tuple[int, Path], float] = {}
        for names, ref in self._references():
            vertex, harmless = self.graph.read(names, ref)
            if harmless is None or not reach.level[vertex]:
                continue
            slot, path = names.load(ref)
            numbers = [choices(schema, path) or 1 for schema in self.graph.shapes[vertex]]
            each = sum(log2(number + ref.optional) for number in numbers)
            # of a step that no path reaches there is no node
            nodes = (self._nodes.get((id(names), step.id), ()) for step, _ in names.writers[slot])
            often = sum(times(node) for several in nodes for node in several)
            bits[vertex, path] = max(bits.get((vertex, path), 0.0), often * each)
        return sum(bits.values())

    def _references(self) -> Iterator[tuple[Names, Ref]]:
        for frame in self.graph.flow.roots:
            names = frame.names
            for step, _ in names.steps:
                yield from ((names, ref) for ref, _ in names.all_reads(step))
            yield from ((names, ref) for ref in value_references(names.program.output))


def of_decision(decision: Decision) -> float:
    """What a decision can give away in a run."""
    return times(decision.by) * log2(2 if decision.of_failure else _ways(decision.node))


def times(node: Node) -> int:
    """How often a run can reach *node*, at most."""
    found = 1
    at = node.owner if node.owner is not None else node.frame.owner
    while at is not None:
        match at.control:
            case Repeats(bound=bound):
                found *= bound
            case Forks(item=str(), most=most):
                found *= most
        at = at.owner if at.owner is not None else at.frame.owner
    return found


def _ways(node: Node) -> int:
    """How many ways it can go on at *node*, a failure of the decision among them."""
    if node.kind == "when":
        return 2
    match node.control:
        case Chooses(by="value", ways=ways):
            return len(ways) + all(way.case is not None for way in ways)
        case Repeats(bound=bound):
            return bound + 1
        case Forks(most=most):
            return most + 1
    return 2


def _alternatives(terms: Sequence[Term]) -> int | None:
    """Of how many values an answer is one, that it is none of them included; None where it is not
    restricted.
    """
    match terms:
        case [External("model", allowed=tuple(allowed)), *instead]:
            spelt = [v for term in instead if isinstance(term, Literals) for v in term.values]
            return len({*map(short, allowed), *map(short, spelt)}) + (not spelt)
        case [External("model", schema=dict(schema)), *_]:
            number = choices(schema, ())
            return None if number is None else number + 1
    return None


def text(bits: float) -> str:
    """*bits*, for people."""
    number = rounded_up(bits)
    return f"at most {number:g} bit{'s' * (number != 1)} a run"
