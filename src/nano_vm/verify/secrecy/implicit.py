"""What happens only because of how a secret turned out: the region of each decision.

The graph of values comes in; for each node where values decide, the nodes that run or not, or run so
often, by how it was decided: those on the ways from it to its immediate post-dominator. Source: J.
Ferrante, K. J. Ottenstein, J. D. Warren, "The Program Dependence Graph and Its Use in Optimization",
TOPLAS 9(3), 1987.

That a call fails ends a run too, and is no decision: of what a step's failure gives away nothing is
said, but where the program goes on after it, or itself decides to fail (`fail`, `assert`, a branch
that leads nowhere). A fork or call fails with what fails inside it, so that what is decided there
decides of all that follows. Of a decision to fail the caller gets an error or none: there the node
that decides is itself in the region, as far as that receiver goes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import replace

from ...diagnostics import Loc
from ...language.flow import FrameGraph, Node
from ...language.semantics import Calls, Forks, Repeats, Value
from ..report import Finding
from ..trust.graph import Reach
from .labels import Secrets
from .receivers import Receiver, decides_to_fail
from .sources import Decision, Labelled


class Regions:
    """Of one program, each made when it is asked for."""

    def __init__(self, labelled: Labelled) -> None:
        self.labelled = labelled
        self.graph = labelled.graph
        self.nodes = self.graph.flow.nodes
        self._follow = _followed(self.nodes)
        self._joins: dict[int, dict[int, int]] = {}  # by frame: the immediate post-dominators
        self._regions: dict[int, list[int]] = {}
        self.decisions = [
            replace(decision, node=self._deciding(decision)) for decision in labelled.decisions()
        ]

    def carry(self) -> None:
        """Let all that is written in a region have the labels of what decided it."""
        for decision in self.decisions:
            node, names = decision.node, decision.by.frame.names
            written = list(dict.fromkeys(self._written(node)))
            strong = self.labelled.own.strong
            for vertex in dict.fromkeys(self.graph.read(names, ref)[0] for ref in decision.refs):
                if vertex >= 0:
                    strong[vertex] += [(target, node.index) for target in written]
            source = f"what step {decision.by.step.id!r} calls"
            for target in written if decision.mask else ():
                self.labelled.seed(decision.mask, target, source, node.index)

    def findings(
        self, receivers: Iterable[Receiver], reaches: Mapping[int, Reach], secrets: Secrets
    ) -> Iterator[Finding]:
        """For each receiver, whether anything that it does not accept decides if it is reached."""
        deciding: dict[int, list[tuple[int, Node]]] = {}
        own: dict[int, list[tuple[int, Node]]] = {}  # what a node that may fail decides itself
        for one in self.decisions:
            for bit, reach in reaches.items():
                if not (one.mask & bit or reach.reached(one.by.frame.names, one.refs).level):
                    continue
                for index in self.region(one.node):
                    deciding.setdefault(index, []).append((bit, one.node))
                own.setdefault(one.node.index, []).append((bit, one.node))
        found: dict[tuple[Loc, str], Finding] = {}
        present = sum(reaches)
        for receiver in receivers:
            if receiver.name == "output" or not present & ~receiver.accepts:
                continue
            key = receiver.node.loc, receiver.name
            labels = secrets.text(present & ~receiver.accepts).replace(", ", " or ")
            told = f"no {labels} value decides whether {receiver.what} is given anything"
            at = receiver.node.index
            known = [*deciding.get(at, ()), *(own.get(at, ()) if receiver.name == "errors" else ())]
            by = [node for bit, node in known if not bit & receiver.accepts]
            if not by:
                found.setdefault(key, Finding("secrecy", receiver.name, told, True, receiver.loc))
                continue
            if key not in found or found[key].holds:
                reason = (
                    f"step {by[0].step.id!r} decides it; that follows from the graph, so no run "
                    f"is searched for"
                )
                found[key] = Finding(
                    "secrecy", receiver.name, told, False, receiver.loc, reason=reason
                )
        return iter(found.values())

    def region(self, node: Node) -> list[int]:
        """The nodes that run by how it was decided at *node*."""
        if node.index not in self._regions:
            self._regions[node.index] = list(dict.fromkeys(self._region(node)))
        return self._regions[node.index]

    def _deciding(self, decision: Decision) -> Node:
        """Where it is decided: by a loop at the end of an iteration."""
        node = decision.node
        if not decision.of_failure and node.kind == "step" and isinstance(node.control, Repeats):
            return next(n for n in self.nodes if n.kind == "test" and n.of is node)
        return node

    def _region(self, node: Node) -> Iterator[int]:
        if node.kind == "step":
            yield from self._inside(node)
        join = self._immediate(node.frame).get(node.index, -1)
        seen = set(self._follow[node.index]) - {join}
        queue = sorted(seen)
        for index in queue:  # grows as it is walked
            yield index
            inner = self.nodes[index]
            if inner.kind == "step":
                yield from self._inside(inner)
            for target in self._follow[index]:
                if target not in seen and target != join:
                    seen.add(target)
                    queue.append(target)
        frame = node.frame
        if frame.fail in seen and frame.owner is not None:
            yield from self.region(frame.owner)

    def _inside(self, node: Node) -> Iterator[int]:
        """All nodes of the frames of a fork or call."""
        frames = {id(frame) for frame in node.frames}
        for other in self.nodes if frames else ():  # frames inside come after those around them
            if id(other.frame) in frames:
                yield other.index
                frames |= {id(frame) for frame in other.frames}

    def _written(self, node: Node) -> Iterator[int]:
        """The vertices that the nodes of its region write, those of its own output, and errors:
        whether a step failed is known only where it ran.
        """
        for index in [node.index, *self.region(node)]:
            other = self.nodes[index]
            names = other.frame.names
            if other.kind == "end" or other.kind == "fail":
                continue
            yield self.graph.out(other)
            for word in ("error", "errors"):
                if (other.step.id, word) in names.errors:
                    yield names.base + names.errors[other.step.id, word]
            if other.step.output_key is not None:
                yield names.base + names.keys[other.step.output_key]
            for slot, write in names.writes(other.step):
                if isinstance(write, Value):
                    yield names.base + slot

    def _immediate(self, frame: FrameGraph) -> dict[int, int]:
        """The immediate post-dominator of each node of a frame; -1 where only its end is. By K. D.
        Cooper, T. J. Harvey, K. Kennedy, "A Simple, Fast Dominance Algorithm", 2001.
        """
        if frame.index in self._joins:
            return self._joins[frame.index]
        before: dict[int, list[int]] = {}
        for node in self.nodes:
            if node.frame is frame:
                for target in self._follow[node.index]:
                    before.setdefault(target, []).append(node.index)
        order = _postorder([frame.end, frame.fail], before)
        rank = {index: number for number, index in enumerate(order)}
        rank[-1] = len(order)
        joins = {frame.end: -1, frame.fail: -1, -1: -1}
        changed = True
        while changed:
            changed = False
            for index in reversed(order):
                if index in (frame.end, frame.fail):
                    continue
                new: int | None = None
                for target in self._follow[index]:
                    if target in joins:
                        new = target if new is None else _common(target, new, joins, rank)
                if new is not None and joins.get(index) != new:
                    joins[index] = new
                    changed = True
        self._joins[frame.index] = joins
        return joins


def _postorder(roots: Iterable[int], edges: Mapping[int, list[int]]) -> list[int]:
    """The nodes that *roots* reach, each after those that it leads to."""
    order: list[int] = []
    seen: set[int] = set()
    for root in roots:
        stack = [(root, iter(edges.get(root, ())))]
        if root in seen:
            continue
        seen.add(root)
        while stack:
            index, rest = stack[-1]
            target = next((one for one in rest if one not in seen), None)
            if target is None:
                order.append(index)
                stack.pop()
            else:
                seen.add(target)
                stack.append((target, iter(edges.get(target, ()))))
    return order


def _common(one: int, other: int, joins: Mapping[int, int], rank: Mapping[int, int]) -> int:
    while one != other:
        while rank[one] < rank[other]:
            one = joins[one]
        while rank[other] < rank[one]:
            other = joins[other]
    return one


def _followed(nodes: Sequence[Node]) -> list[list[int]]:
    """By node, what may follow it by a decision of the program."""
    found: list[list[int]] = [[]] * len(nodes)
    failing: set[int] = set()  # the frames that a decision may end so
    for node in reversed(nodes):  # what is inside a fork or call comes after it
        fails = _decides_to_fail(node, failing)
        found[node.index] = [
            edge.target
            for edge in node.edges
            if edge.label != "fork" and (edge.label != "error" or fails)
        ]
        if node.frame.fail in found[node.index]:
            failing.add(node.frame.index)
    return found


def _decides_to_fail(node: Node, failing: Set[int]) -> bool:
    """Whether the program says that it fails here, or inside, in one of the frames *failing*."""
    match node.kind, node.control:
        case "step", Calls() | Forks(goes_on=False):
            return any(frame.index in failing for frame in node.frames)
    return decides_to_fail(node)
