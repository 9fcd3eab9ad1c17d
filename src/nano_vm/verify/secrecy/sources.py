"""Which values are secret: where labels come from, what passes them on beside the steps of the
program, and what they reach.

The graph of values and the joined labels come in; a `Reach` for each label that has a source goes
out. A tool's result has the labels of its arguments too, whatever it does with them, but for those
that the host lets it take away; a person's comment those of what was shown; an event those of what
it was waited for with. What went wrong in a step may quote all that the step read, what its tools
return, the event that it waited for, what the outputs of programs that it calls read, and all that
steps inside it may quote.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ...diagnostics import Loc
from ...language.expr import Ref, value_references
from ...language.flow import FrameGraph, Names, Node
from ...language.program import written
from ...language.semantics import External, Forks, Term, output
from ..trust.graph import Edges, Graph, Reach
from .labels import Secrets


@dataclass(frozen=True, slots=True)
class Decision:
    """A node at which values decide how the program goes on: those that the node ``by`` reads, which
    is the same or, where it is decided by failing, one inside it; and what the tools of ``by`` or
    the event that it waits for know of the labels in ``mask``.
    """

    node: Node
    loc: Loc
    by: Node
    refs: list[Ref]
    mask: int = 0

    @property
    def of_failure(self) -> bool:
        """Whether it is decided by failing."""
        return self.loc[-1] in ("catch", "on_error", "on_item_error")


class Labelled:
    """What each label reaches in one program."""

    def __init__(self, graph: Graph, secrets: Secrets) -> None:
        self.graph = graph
        self.secrets = secrets
        self.own = Edges()
        # edges that some labels do not go along: those labels, vertex, target, node, right
        self.cut: list[tuple[int, int, int, int, str]] = []
        # by label, by vertex: what it is, and its node
        self.seeds: defaultdict[int, dict[int, tuple[str, int]]] = defaultdict(dict)
        self.tools: dict[str, tuple[int, int, str]] = {}
        for frame in graph.flow.roots:
            self._inputs(frame)
            self._errors(frame)
        self.answers: list[tuple[Node, External]] = []  # of models
        for node, term in graph.terms:
            self._term(node, term, graph.out(node))
        self._decisions: list[Decision] = []

    def spread(self) -> dict[int, Reach]:
        """By bit of a label, what it reaches; for those that have a source."""
        return {
            bit: Reach(self.graph, self.seeds[bit], self._edges(bit))
            for bit in self.secrets.bits.values()
            if bit in self.seeds
        }

    def _edges(self, bit: int) -> Edges:
        if not self.cut:
            return self.own
        edges = self.own.copy()
        for labels, vertex, target, node, right in self.cut:
            if labels & bit:
                edges.weak[vertex].append((target, node, right))
            else:
                edges.strong[vertex].append((target, node))
        return edges

    def seed(self, mask: int, vertex: int, source: str, node: int) -> None:
        """All labels in *mask* begin at *vertex*."""
        for bit in self.secrets.bits.values():
            if mask & bit:
                self.seeds[bit].setdefault(vertex, (source, node))

    def of_tool(self, tool: str) -> tuple[int, int, str]:
        """The labels of what it returns, those that it takes away, and why."""
        if tool not in self.tools:
            self.tools[tool] = (self.secrets.returns(tool), *self.secrets.declassified(tool))
        return self.tools[tool]

    def decisions(self) -> list[Decision]:
        """Where values decide how the program goes on: what it tests, and whether a step fails, or
        one inside it, that it goes on after.
        """
        if not self._decisions:
            self._decisions = list(self._all_decisions())
        return self._decisions

    def _all_decisions(self) -> Iterator[Decision]:
        for node, loc, reads in self.graph.decisions:
            yield Decision(node, loc, node, [ref for ref, _ in reads])
        caught = self.graph.flow.caught
        for node in self.graph.flow.nodes:
            if node.kind == "end" and node.frame.kind == "call":
                read = list(value_references(node.frame.names.program.output))
                assert node.frame.owner is not None
                for at, loc in self._after_failure(node.frame.owner):
                    yield Decision(at, loc, node, read)
            elif node.kind == "step" and (node.index in caught or node.frame.owner is not None):
                handled = list(self._after_failure(node))
                if handled:
                    read = [ref for ref, _ in node.frame.names.all_reads(node.step)]
                    mask = self.known(node)
                    yield from (Decision(at, loc, node, read, mask) for at, loc in handled)

    def _after_failure(self, node: Node) -> Iterator[tuple[Node, Loc]]:
        """Where the program goes on after *node* failed, and where that is written: at the step
        itself, at a loop around it, or at a fork that it is inside of.
        """
        at: Node | None = node
        caught = self.graph.flow.caught
        while at is not None:
            handlers = at.edges if at.index in caught else ()
            by = [edge.by for edge in handlers if edge.label in ("catch", "skip")]
            for index in dict.fromkeys(by):
                handler = self.graph.flow.nodes[index]
                field = "catch" if handler.step.catch else "on_error"
                yield at, (*handler.loc, field)
            at = at.frame.owner
            if at is not None and isinstance(at.control, Forks) and at.control.goes_on:
                yield at, (*at.loc, "on_item_error")

    def known(self, node: Node) -> int:
        """The labels of what the tools of *node*, or the event that it waits for, may tell it."""
        mask = brought(self.secrets, node)
        for call in node.calls:
            mask |= self.of_tool(call.tool)[0]
        return mask

    def _inputs(self, frame: FrameGraph) -> None:
        if frame.kind == "run":
            for name, slot in frame.names.keys.items():
                self.seed(self.secrets.input(name), frame.names.base + slot, f"input {name!r}", -1)

    def _term(self, node: Node, term: Term, out: int) -> None:
        names = node.frame.names
        match term:
            case External("tool"):
                own, *beside = node.calls
                self._returned(own.tool, own.args, names, out, node, "step")
                for call in beside:
                    if call.use == "reconcile":  # may say what the call returned
                        self._returned(call.tool, call.args, names, out, node, "reconcile of step")
            case External("event"):
                event = written(node.step, "event")
                self.seed(
                    self.secrets.carries(event),
                    out,
                    f"event {event!r} of step {node.step.id!r}",
                    node.index,
                )
                self._all_read(node, out)
            case External("person" | "time"):
                self._all_read(node, out)
            case External("model"):
                self.answers.append((node, term))
            case _:
                pass  # the graph has what they pass on

    def _all_read(self, node: Node, target: int) -> None:
        names = node.frame.names
        for ref, _ in names.reads[node.step.id]:
            self.graph.edge(names, ref, target, node.index, into=self.own)

    def _returned(
        self, tool: str, args: Mapping[str, Any], names: Names, out: int, node: Node, where: str
    ) -> None:
        mask, taken, reason = self.of_tool(tool)
        self.seed(mask, out, f"result of tool {tool!r} ({where} {node.step.id!r})", node.index)
        graph = self.graph
        for value in args.values():
            if not taken:
                graph.reads(names, value, out, node.index, into=self.own)
                continue
            for ref in value_references(value):
                vertex, harmless = graph.read(names, ref)
                if vertex >= 0:
                    right = harmless or f"declassified by {tool!r}: {reason}"
                    labels = self.secrets.all if harmless else taken
                    self.cut.append((labels, vertex, out, node.index, right))

    def _errors(self, frame: FrameGraph) -> None:
        """What may stand in the errors that the program reads."""
        names = frame.names
        told = {(names.base + slot, step_id) for (step_id, _), slot in names.errors.items()}
        if not told:
            return
        for node in self.graph.flow.nodes:
            if node.kind == "step":
                outer = {step.step.id for step in around(node) if step.frame.names is names}
                for target, step_id in told:
                    if step_id in outer:
                        self._quoted(node, target)

    def _quoted(self, node: Node, target: int) -> None:
        """What an error of *node* may quote, whatever is restricted: an answer that is refused is
        shown as it was.
        """
        names = node.frame.names
        own = ((names, ref) for ref, _ in names.all_reads(node.step))
        for by, ref in (*own, *reads_of_outputs(node)):
            vertex, _ = self.graph.read(by, ref)
            if vertex >= 0:
                self.own.strong[vertex].append((target, node.index))
        for call in node.calls:
            mask, _, _ = self.of_tool(call.tool)
            source = f"error of tool {call.tool!r} (step {node.step.id!r})"
            self.seed(mask, target, source, node.index)
        source = f"error of step {node.step.id!r}, which waits for an event"
        self.seed(brought(self.secrets, node), target, source, node.index)


def brought(secrets: Secrets, node: Node) -> int:
    """The labels of the event that *node* waits for: one that is refused is quoted too."""
    by = [term.by for term in output(node.step) if isinstance(term, External)]
    return secrets.carries(written(node.step, "event")) if "event" in by else 0


def reads_of_outputs(node: Node) -> Iterator[tuple[Names, Ref]]:
    """What the outputs of the programs that *node* calls read, each by the names of its program:
    they are computed as a part of the step.
    """
    for frame in node.frames:
        if frame.kind == "call":
            for ref in value_references(frame.names.program.output):
                yield frame.names, ref


def around(node: Node) -> Iterator[Node]:
    """*node* and each step that it is inside of, also of programs that call its own."""
    at: Node | None = node
    while at is not None:
        yield at
        at = at.owner if at.owner is not None else at.frame.owner
