"""How values move through a program, and what reaches what: the graph and the search that trust and
secrecy share.

A `Flow` comes in. `Graph` has a vertex for each slot of each `Names`, and an edge wherever a step
reads one name and writes another, whatever is said of the values. A lattice (`proof` for
*untrusted*, `secrecy.proof` for the names of secrets) adds `Edges` of its own, since tools, errors
and people pass on one thing and not the other, and seeds: `Reach` is what follows from these, by
breadth-first search in linear time with the shortest way to each.

An edge is *weak* where the value is a choice among what the program lists: an answer that is one of
`allowed_outputs`, and what an `output_schema` says is an enum, a const or a boolean, read at that
place. Frames of `parallel` and `map` share the slots of the frame around them; each node that calls
has frames, and so slots, of its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...diagnostics import Loc
from ...errors import ExprError
from ...language.expr import Ref, value_references
from ...language.flow import Flow, FrameGraph, Names, Node
from ...language.semantics import (
    Called,
    External,
    Forks,
    Item,
    Last,
    ListOf,
    Literals,
    ObjectOf,
    Term,
    Value,
    Values,
)
from ..report import Move
from .labels import restricted, shape

MAX_WAY = 16
"""Names that are shown of a way, the last ones: so that many long ways are not written out many
times.
"""

CLEAN, WEAK, STRONG = 0, 1, 2


@dataclass(slots=True)
class Reached:
    """What reaches a place: how, from which vertex (-1: from the program's own text), and the right
    of a weak one.
    """

    level: int = CLEAN
    vertex: int = -1
    right: str = ""


@dataclass(slots=True)
class Edges:
    """By vertex, the target of each edge and the node that carries it; of a weak one its right."""

    strong: defaultdict[int, list[tuple[int, int]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    weak: defaultdict[int, list[tuple[int, int, str]]] = field(
        default_factory=lambda: defaultdict(list)
    )

    def copy(self) -> Edges:
        """The same, to which others can be added."""
        edges = Edges()
        for vertex, strong in self.strong.items():
            edges.strong[vertex] += strong
        for vertex, weak in self.weak.items():
            edges.weak[vertex] += weak
        return edges


class Graph:
    """Vertices are slots: ``names.base`` plus the slot's number.

    *given* are names of which inputs of the run may be the writers too. *literals* says by `Names`
    whether nobody vouches for the program's own text: nothing that it lists is then a restriction.
    """

    def __init__(
        self, flow: Flow, given: frozenset[str] = frozenset(), literals: Mapping[int, bool] = {}
    ) -> None:
        self.flow = flow
        self.given = given
        self.literals = literals
        self.edges = Edges()
        self.size = flow.size
        # each step with a term of which a lattice has something to say: what comes from outside,
        # what a call is given, and what this graph does not know
        self.terms: list[tuple[Node, Term]] = []
        self.decisions = list(decisions(flow))
        # schemas of all that is written to a vertex
        self.shapes: dict[int, list[dict[str, Any]]] = {}
        # by output with keys that the program spells: the vertex of the whole
        self.whole: dict[int, int] = {}
        self.spelt: list[tuple[Node, int]] = []  # the steps that spell them, and these vertices
        self._labels: dict[int, str] = {}
        self._build()

    def _build(self) -> None:
        if any(self.literals.values()):
            self._structures()
        for frame in self.flow.roots:
            self._shaped(frame)
        for frame in self.flow.frames:
            if frame.kind == "call" and frame.names.program.output is not None:
                assert frame.owner is not None
                target = self.out(frame.owner)
                self.reads(frame.names, frame.names.program.output, target, frame.owner.index)
        strong = self.edges.strong
        for node in self.flow.nodes:
            if node.kind != "step":
                continue
            step, frame = node.step, node.frame
            names = frame.names
            start = names.base
            out = start + names.outputs[step.id]
            result = self.whole.get(out, out) if self.whole else out
            if step.output_key is not None:
                strong[result].append((start + names.keys[step.output_key], node.index))
            # The end of a block gives its last output to the container, the end of a frame to the step that
            # forked.
            around = node.owner
            if around is None and not (frame.kind == "call" and names.program.output is not None):
                around = frame.owner
            if around is not None:
                strong[result].append((self.out(around), around.index))
            for slot, write in names.writes(step):
                if isinstance(write, Value):
                    self.reads(names, write.template, start + slot, node.index)
                elif isinstance(write, Item):
                    self.reads(names, write.over, start + slot, node.index)
            for term in names.output(step):
                self._term(node, term, out)

    def _structures(self) -> None:
        """An object whose keys are the program's own text is that text only where it is read as a
        whole, not by a field.
        """
        for node in self.flow.nodes:
            if node.kind != "step" or not self.literal(node.frame.names):
                continue
            out = self.out(node)
            terms = node.frame.names.output(node.step)
            spelt = any(isinstance(term, (ObjectOf, Values)) for term in terms)
            if spelt and out not in self.whole:
                whole = self.whole[out] = self.size
                self.size += 1
                self.spelt.append((node, whole))
                self.edges.strong[out].append((whole, node.index))

    def _shaped(self, frame: FrameGraph) -> None:
        """The schemas of outputs, and of names under which nothing but such outputs is written."""
        names = frame.names
        if self.literal(names):
            return
        shapes = ((step, shape(names.output(step))) for step, _ in names.steps)
        asked = [(step, schema) for step, schema in shapes if schema is not None]
        if not asked:
            return
        start = names.base
        given: Iterable[str] = frame.arguments if frame.kind == "call" else self.given
        for step, schema in asked:
            self.shapes[start + names.outputs[step.id]] = [schema]
            key = step.output_key
            if key is not None and key not in given:
                writers = names.writers[names.keys[key]]
                shapes_of = [shape(names.output(by)) for by, _ in writers]
                schemas = [schema for schema in shapes_of if schema is not None]
                if len(schemas) == len(writers):
                    self.shapes[start + names.keys[key]] = schemas

    def _term(self, node: Node, term: Term, out: int) -> None:
        """What of values flows into the output *out* of a step that is made of *term*, but for what
        each lattice says of what comes from outside.
        """
        names = node.frame.names
        match term:
            case External("model"):
                self._model(node, term, names, out)
                self.terms.append((node, term))
            case Literals() | Last() | ObjectOf() | ListOf():
                pass  # no value reaches a literal; what blocks leave comes along their own edges
            case Values(templates):
                for template in templates.values():
                    self.reads(names, template, out, node.index)
            case Called(arguments):
                self.terms.append((node, term))
                for frame in node.frames:
                    for name, value in arguments.items():
                        if name in frame.names.keys:
                            target = frame.names.base + frame.names.keys[name]
                            self.reads(names, value, target, node.index)
            case _:
                self.terms.append((node, term))

    def _model(self, node: Node, answer: External, names: Names, out: int) -> None:
        right = None
        if not self.literal(names):
            if answer.allowed is not None:
                right = f"one of {', '.join(map(repr, answer.allowed))}"
            elif answer.schema is not None:
                right = restricted(answer.schema, ())
        for ref, _ in names.reads[node.step.id]:
            self.edge(names, ref, out, node.index, right)

    # --- asking ---

    def literal(self, names: Names) -> bool:
        """Whether nobody vouches for the text of the program that has these names."""
        return self.literals.get(id(names), False)

    def out(self, node: Node) -> int:
        """The vertex of a step's output."""
        names = node.frame.names
        return names.base + names.outputs[node.step.id]

    def read(self, names: Names, ref: Ref) -> tuple[int, str | None]:
        """The vertex that a reference reads, and why what it reads there is harmless, if it is; -1
        for an unknown name.
        """
        try:
            slot, path = names.load(ref)
        except ExprError:  # told elsewhere, and never compiled
            return -1, None
        vertex = names.base + slot
        if not path:
            return self.whole.get(vertex, vertex) if self.whole else vertex, None
        if vertex in self.shapes:
            found = [restricted(schema, path) for schema in self.shapes[vertex]]
            if all(found):
                return vertex, " or ".join(dict.fromkeys(filter(None, found)))
        return vertex, None

    def edge(
        self,
        names: Names,
        ref: Ref,
        target: int,
        node: int,
        right: str | None = None,
        *,
        into: Edges | None = None,
    ) -> None:
        """An edge from what *ref* reads, weak where that is restricted, or by *right*."""
        vertex, harmless = self.read(names, ref)
        if vertex < 0:
            return
        edges = self.edges if into is None else into
        if right is None:
            right = harmless
        if right is None:
            edges.strong[vertex].append((target, node))
        else:
            edges.weak[vertex].append((target, node, right))

    def reads(
        self, names: Names, value: Any, target: int, node: int, *, into: Edges | None = None
    ) -> None:
        """Edges from all that *value* reads."""
        for ref in value_references(value):
            self.edge(names, ref, target, node, into=into)

    def labels(self) -> dict[int, str]:
        """What each vertex is called; made when the first is needed."""
        if self._labels:
            return self._labels
        result = self._labels
        for frame in self.flow.roots:
            prefix, start = path_of(frame), frame.names.base
            for name, slot in frame.names.keys.items():
                result[start + slot] = f"{prefix}${name}"
            for step_id, slot in frame.names.outputs.items():
                result[start + slot] = f"{prefix}{step_id}.output"
            for (step_id, word), slot in frame.names.errors.items():
                result[start + slot] = f"{prefix}{step_id}.{word}"
        for vertex, whole in self.whole.items():
            result[whole] = result[vertex]
        return result


def moves(flow: Flow, nodes: Iterable[int]) -> tuple[Move, ...]:
    """*nodes* that carry a value, as the moves of a path."""
    return tuple(Move(index, flow.nodes[index].step.id) for index in dict.fromkeys(nodes))


class Reach:
    """What *seeds* reach along the edges of *graph* and those of the lattice's *own*: the least
    fixed point, and the shortest way to each vertex, first along strong edges, then along weak ones
    too.
    """

    def __init__(self, graph: Graph, seeds: Mapping[int, tuple[str, int]], own: Edges) -> None:
        size = graph.size
        self.graph = graph
        self.seeds = seeds  # vertex: what it is, and its node
        self.level = bytearray(size)
        self.depth = [0] * size
        # vertex before it on the shortest way, and the node between
        self.before: list[tuple[int, int]] = [(-1, -1)] * size
        self.right: dict[int, str] = {}
        self.root: list[int] = list(range(size))  # the source that reaches it
        self._spread(own)

    def _spread(self, own: Edges) -> None:
        level, depth, before, root = self.level, self.depth, self.before, self.root
        strong = (self.graph.edges.strong, own.strong)
        weak = [edges for edges in (self.graph.edges.weak, own.weak) if edges]
        queue = list(self.seeds)
        for vertex in queue:
            level[vertex] = STRONG
        for vertex in queue:  # grows as it is walked
            for edges in strong:
                for target, node in edges.get(vertex, ()):
                    if not level[target]:
                        level[target] = STRONG
                        depth[target] = depth[vertex] + 1
                        before[target] = vertex, node
                        root[target] = root[vertex]
                        queue.append(target)
        if not weak:
            return
        for vertex in queue:
            found = [edge for edges in weak for edge in edges.get(vertex, ())]
            if level[vertex] == WEAK:
                right = self.right[vertex]
                found += [(*edge, right) for edges in strong for edge in edges.get(vertex, ())]
            for target, node, right in found:
                if not level[target]:
                    level[target] = WEAK
                    depth[target] = depth[vertex] + 1
                    before[target] = vertex, node
                    root[target] = root[vertex]
                    self.right[target] = right
                    queue.append(target)

    def reached(self, names: Names, references: Iterable[Ref]) -> Reached:
        """The worst that any of *references* reads, and of equals the nearest."""
        best = Reached()
        for ref in references:
            vertex, right = self.graph.read(names, ref)
            found = self.level[vertex] if vertex >= 0 else CLEAN
            if not found:
                continue
            if found == WEAK or right is not None:
                found, right = WEAK, right or self.right[vertex]
            if found > best.level or (
                found == best.level and self.depth[vertex] < self.depth[best.vertex]
            ):
                best = Reached(found, vertex, right or "")
        return best

    def way(self, vertex: int) -> list[tuple[int, int]]:
        """The source, and the last vertices on the way from it to *vertex*, each with the node that
        carried the value there.
        """
        if vertex < 0:
            return []
        source = self.root[vertex]
        way: list[tuple[int, int]] = []
        while vertex != source and len(way) < MAX_WAY:
            way.append((vertex, self.before[vertex][1]))
            vertex = self.before[vertex][0]
        return [(source, self.seeds[source][1]), *reversed(way)]

    def told(self, vertex: int) -> tuple[str, tuple[str, ...]]:
        """The source of what reaches *vertex*, and the names between them."""
        way = self.way(vertex)
        names = self.graph.labels()
        cut = ("...",) if self.depth[vertex] > MAX_WAY else ()
        return self.seeds[way[0][0]][0], cut + tuple([names[at] for at, _ in way[1:]])

    def moves(self, vertex: int, node: int) -> tuple[Move, ...]:
        """The nodes that carry it to *vertex*, and the *node* that reads it there."""
        carrying = [by for _, by in self.way(vertex) if by >= 0]
        return moves(self.graph.flow, [*carrying, node])


def decisions(flow: Flow) -> Iterator[tuple[Node, Loc, list[tuple[Ref, Loc]]]]:
    """Each node at which values decide how it goes on, or how often: its place, and what it reads
    for that.
    """
    for node in flow.nodes:
        names, control = node.frame.names, node.control
        decides = control.by_values or (isinstance(control, Forks) and control.item is not None)
        if node.kind == "when":
            yield node, (*node.loc, "when"), names.deciding(node.step, before=True)
        elif node.kind == "step" and decides:
            yield node, node.loc, names.deciding(node.step)


def path_of(frame: FrameGraph) -> str:
    """The calls that lead to *frame*'s program, each with a slash."""
    ids: list[str] = []
    at: FrameGraph | None = frame
    while at is not None and at.owner is not None:
        if at.kind == "call":
            ids.append(f"{at.owner.step.id}/")
        at = at.owner.frame
    return "".join(reversed(ids))
