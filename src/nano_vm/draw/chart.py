"""The graph of a program as JSON, for pages that draw it: boxes, boxes inside boxes, and arrows.

A `Flow` comes in. A box is a step: its id is the path that the step has in every run, without the
numbers of turns and items (``items/classify`` for ``items[3]/classify``), so records find their
box. A step that the flow has twice, once for each way into it, is one box. A loop, a fork and a
call hold the boxes of what they run.

`Chart.route` follows the records of one frame over the graph and tells which arrows it took. No
value is read here but the branch that a record names.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from typing_extensions import TypedDict  # of typing, pydantic reads it from Python 3.12 on

from ..language.expr import Ref
from ..language.flow import Edge, Flow, FrameGraph, Node
from ..language.program import MAX_STEPS, Holds, Step
from ..language.semantics import Calls, Chooses, Forks, Repeats
from ..values import canonical
from .graph import Look, described, label, look_of

END, FAIL = "$end", "$fail"
LINE_CHARS = 60
ARROW_CHARS = 32

Way = Literal["next", "branch", "unless", "catch", "skip"]
"""Why an arrow is taken: in order, by a decision, by a `when` that did not hold, by a failure."""

Ended = Literal["well", "badly"] | None
"""How a frame ended, None if it has not: at its end, or by a failure that a record need not show."""

_NUMBERS = re.compile(r"#\d+|\[\d+\]")


class Reading(TypedDict):
    """A name that a step reads: as it is written, what it belongs to, and in which field."""

    text: str
    name: str
    field: str


class Box(TypedDict):
    """A step, or an end of the run or of a frame in it (``$end``, ``$fail``).

    ``parent`` is the box that it stands in, "" at the top, and ``lane`` the frame of that box,
    where it has several. ``scope`` is the box of the call whose names it reads and writes.
    ``written`` is the step as canonical JSON, without the steps in it.
    """

    id: str
    step: str
    type: str
    look: Look
    line: str
    parent: str
    lane: str
    scope: str
    when: str | None
    test: str | None
    lanes: list[str]
    bound: int | None
    reads: list[Reading]
    writes: list[str]
    written: str


class Arrow(TypedDict):
    """A way from one box to another."""

    id: str
    source: str
    target: str
    label: str
    way: Way


class ChartData(TypedDict):
    """The whole graph, as JSON. ``inputs`` are the names that a run is given."""

    name: str
    digest: str
    inputs: list[str]
    entry: str
    boxes: list[Box]
    arrows: list[Arrow]


@dataclass(frozen=True, slots=True)
class Stop:
    """A record on its way over the graph: its box, and what says where it went on."""

    box: str
    status: str
    branch: str | None = None


def box_of(path: str) -> str:
    """The box of the step at *path* of a run."""
    return _NUMBERS.sub("", path)


class Chart:
    """The boxes and arrows of *flow*, and the routes of runs over them."""

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self._boxes: dict[str, Box] = {}
        self._arrows: dict[str, Arrow] = {}
        self._of: dict[int, str] = {}  # the box of a node
        self._forks: dict[str, Node] = {}  # the node that forks, by its box
        self._tests: dict[int, int] = {}  # what ends a turn, by the node of its loop
        self._drawn: dict[tuple[int, int], str] = {}  # the arrow of an edge, by node and place
        self._legs: dict[tuple[int, Stop, Stop | None], _Leg] = {}
        self._base: dict[int, str] = {}  # the path before the boxes of a frame
        self._orders: dict[int, dict[str, int]] = {}  # the number of each step, by its program
        self._places: dict[str, tuple[int, ...]] = {}  # of a box, in the order of the documents
        for frame in flow.frames:
            self._base[frame.index] = self._inside(frame)
        for node in flow.nodes:
            self._of[node.index] = self._box_id(node)
            if node.kind == "test" and node.of is not None:
                self._tests[node.of.index] = node.index
        for node in flow.nodes:
            if node.kind in ("step", "when", "test"):
                self._add_box(node)
        for node in flow.nodes:
            if node.kind in ("step", "when", "test"):
                self._add_arrows(node)

    def data(self) -> ChartData:
        """The graph as JSON."""
        program, names = self.flow.program, self.flow.frames[0].names
        return {
            "name": program.name,
            "digest": program.digest,
            "inputs": [name for name in names.keys if names.takes(name)],
            "entry": self._of[self.flow.frames[0].entry],
            "boxes": sorted(self._boxes.values(), key=lambda box: self._places[box["id"]]),
            "arrows": list(self._arrows.values()),
        }

    def tools(self) -> dict[str, str]:
        """The tool that each box calls, by box."""
        return {
            self._of[node.index]: call.tool
            for node in self.flow.nodes
            if node.kind == "step"
            for call in node.calls
            if call.use == "step"
        }

    # --- boxes ---

    def _inside(self, frame: FrameGraph) -> str:
        owner = frame.owner
        return "" if owner is None else f"{self._base_of(owner)}{_within(owner)}/"

    def _base_of(self, node: Node) -> str:
        return self._base[node.frame.index]

    def _box_id(self, node: Node) -> str:
        base = self._base_of(node)
        if node.kind in ("end", "fail"):
            return base + (END if node.kind == "end" else FAIL)
        return base + _within(node)

    def _add_box(self, node: Node) -> None:
        box, step, frame = self._of[node.index], node.step, node.frame
        if isinstance(node.control, Forks | Calls) and node.frames:
            self._forks.setdefault(box, node)
        if box in self._boxes:
            return
        container = self._container(node)
        self._places[box] = self._place(node)
        self._boxes[box] = {
            "id": box,
            "step": step.id,
            "type": step.type.value,
            "look": look_of(node.of if node.kind == "when" and node.of is not None else node),
            "line": label(described(step), LINE_CHARS),
            "parent": self._of[container.index] if container is not None else "",
            "lane": self._lane(node, container),
            "scope": self._scope(frame),
            "when": step.when,
            "test": _tested(node),
            "lanes": _lanes(node),
            "bound": node.control.bound if isinstance(node.control, Repeats) else None,
            "reads": [_reading(ref, str(at[0])) for ref, at in frame.names.all_reads(step)],
            "writes": [step.id, *(name for name, _ in frame.names.named.get(step.id, ()))],
            "written": _written(step),
        }

    def _place(self, node: Node) -> tuple[int, ...]:
        """Where its step stands in the document; what a call runs stands behind the call."""
        names = node.frame.names
        place = self._orders.get(id(names.steps))
        if place is None:
            place = {step.id: number for number, (step, _) in enumerate(names.steps)}
            self._orders[id(names.steps)] = place
        frame = node.frame
        while not frame.own_names and frame.owner is not None:
            frame = frame.owner.frame
        before = () if frame.owner is None else self._place(frame.owner)
        return (*before, place[node.step.id])

    def _container(self, node: Node) -> Node | None:
        """The loop that *node* stands in, or what runs its frame: blocks of decisions are drawn
        as the ways that they are.
        """
        at = node.owner
        while at is not None and not isinstance(at.control, Repeats):
            at = at.owner
        return at if at is not None else node.frame.owner

    def _lane(self, node: Node, container: Node | None) -> str:
        owner = node.frame.owner
        if container is None or container is not owner or not isinstance(owner.control, Forks):
            return ""
        return node.frame.name if owner.control.kind == "branch" else ""

    def _scope(self, frame: FrameGraph) -> str:
        while not frame.own_names and frame.owner is not None:
            frame = frame.owner.frame
        return "" if frame.owner is None else self._of[frame.owner.index]

    def _end_box(self, node: Node) -> str:
        """The box of an end, made where an arrow leads to it."""
        box = self._of[node.index]
        owner = node.frame.owner
        if box not in self._boxes:
            before = () if owner is None else self._places[self._of[owner.index]]
            self._places[box] = (*before, MAX_STEPS + (node.kind == "fail"))
            self._boxes[box] = {
                "id": box,
                "step": node.kind,
                "type": node.kind,
                "look": look_of(node),
                "line": "",
                "parent": "" if owner is None else self._of[owner.index],
                "lane": node.frame.name if owner is not None and len(owner.frames) > 1 else "",
                "scope": self._scope(node.frame),
                "when": None,
                "test": None,
                "lanes": [],
                "bound": None,
                "reads": [],
                "writes": [],
                "written": "{}",
            }
        return box

    # --- arrows ---

    def _add_arrows(self, node: Node) -> None:
        if node.kind == "step" and isinstance(node.control, Repeats):
            return  # into its own body
        plain = {self._beyond(e.target) for e in node.edges if e.label == "next"}
        for place, edge in enumerate(node.edges):
            way = _way(node, edge)
            if way is None:
                continue
            target = self.flow.nodes[self._beyond(edge.target)]
            if self._is_within(target, node) or (way == "skip" and target.index in plain):
                continue
            source = self._of[node.index if edge.by < 0 else edge.by]
            inner_end = target.kind == "end" and target.frame.owner is not None
            if inner_end or (target.kind == "test" and self._holds(target, source)):
                continue  # the end of what its container runs
            ends = target.kind in ("end", "fail")
            to = self._end_box(target) if ends else self._of[target.index]
            text = label(_label(edge), ARROW_CHARS)
            arrow = f"{source} > {to}" + (f" : {edge.label}" if way != "next" else "")
            self._drawn[node.index, place] = arrow
            self._arrows.setdefault(
                arrow, {"id": arrow, "source": source, "target": to, "label": text, "way": way}
            )

    def _is_within(self, target: Node, node: Node) -> bool:
        """Whether an edge stays in the box that it leaves: the step behind its `when`."""
        return node.kind == "when" and self._of[target.index] == self._of[node.index]

    def _holds(self, test: Node, box: str) -> bool:
        """Whether *box* stands in the loop that ends its turns at *test*."""
        loop, at = self._of[test.index], box
        while at:
            at = self._boxes[at]["parent"]
            if at == loop:
                return True
        return False

    def _beyond(self, index: int) -> int:
        node = self.flow.nodes[index]
        while node.kind == "close":
            node = self.flow.nodes[node.edges[0].target]
        return node.index

    # --- routes ---

    def frame_of(self, name: str) -> FrameGraph | None:
        """The frame that records call *name*: "" for the run, ``path:number`` for a child."""
        if not name:
            return self.flow.frames[0]
        path, _, number = name.rpartition(":")
        fork = self._forks.get(box_of(path))
        if fork is None or not number.isdecimal():
            return None
        if fork.frames[0].item is None and int(number) >= len(fork.frames):
            return None
        return fork.child(int(number))

    def route(self, frame: FrameGraph, stops: Sequence[Stop], ended: Ended = None) -> Route:
        """The arrows that the records *stops* of one frame took, in order; *ended* says how it
        ended, if it has.
        """
        route = Route([], [], [])
        at, leaves = frame.entry, _ENTERED
        following: list[Stop | None] = [*stops, *([None] if ended is not None else [])]
        for stop in following:
            leg = self._legs.get((at, leaves, stop))
            if leg is None:
                leg = self._legs[at, leaves, stop] = self._leg(frame, at, leaves, stop)
            route.arrows += leg.arrows
            if stop is None:
                route.lost += [] if leg.found or ended == "badly" else [END]
                break
            if leg.node < 0:  # go on where it is, whatever led there
                route.lost.append(stop.box)
                found = self._anywhere(frame, stop)
                if found is None:
                    continue
                leg = _Leg(found, [], False)
            at, leaves = leg.node, stop
        if ended is None:
            route.current = self._next(at, leaves)
        return route

    def _next(self, at: int, leaves: Stop) -> list[str]:
        """The boxes that can come after what is recorded: one, but where nobody has decided yet."""
        work, seen = deque([(at, leaves)]), set[int]()
        found: dict[str, None] = {}
        while work:
            index, stop = work.popleft()
            node = self.flow.nodes[index]
            if stop is _ENTERED:
                silent = list(_silent(node))
                if not silent:
                    found[self._of[index]] = None
            else:
                silent = list(_left(node, stop))
            for place in silent:
                target = node.edges[place].target
                if target not in seen:
                    seen.add(target)
                    work.append((target, _ENTERED))
        return list(found)

    def _leg(self, frame: FrameGraph, at: int, leaves: Stop, stop: Stop | None) -> _Leg:
        """The shortest way from what was left to the next record: only nodes that record nothing
        lie between them.
        """
        work: deque[tuple[int, tuple[str, ...]]] = deque()
        seen: set[int] = set()

        def reach(node: Node, places: Iterator[int], passed: tuple[str, ...]) -> None:
            for place in places:
                drawn = self._drawn.get((node.index, place))
                work.append(
                    (node.edges[place].target, (*passed, drawn) if drawn is not None else passed)
                )

        if stop is not None and stop.status in ("failed", "skipped", "cancelled"):
            for index in self._loops_around(at, stop.box):
                return _Leg(index, [], True)
        if leaves is _ENTERED:
            work.append((at, ()))
        else:
            node = self.flow.nodes[at]
            reach(node, _left(node, leaves), ())
        while work:
            index, passed = work.popleft()
            if index in seen:
                continue
            seen.add(index)
            node = self.flow.nodes[index]
            if self._meets(frame, node, stop):
                return _Leg(index, list(passed), True)
            reach(node, _silent(node), passed)
        return _Leg(-1, [], False)

    def _loops_around(self, at: int, box: str) -> Iterator[int]:
        """The end of a turn of the loop *box*, if *at* is in it: what fails there fails the loop,
        and no edge says so.
        """
        around = self.flow.nodes[at].owner
        while around is not None:
            if isinstance(around.control, Repeats) and self._of[around.index] == box:
                yield self._tests[around.index]
            around = around.owner

    def _meets(self, frame: FrameGraph, node: Node, stop: Stop | None) -> bool:
        if stop is None:
            return node.index in (frame.end, frame.fail)
        if self._of[node.index] != stop.box or node.kind not in ("step", "when", "test"):
            return False
        if stop.branch == "unless":
            return node.kind == "when"
        if isinstance(node.control, Repeats) and stop.status == "success":
            return node.kind == "test"
        if stop.status == "skipped" and node.kind == "when":
            return True
        return node.kind == "step" or (node.kind == "when" and stop.status == "failed")

    def _anywhere(self, frame: FrameGraph, stop: Stop) -> int | None:
        inside = (node for node in self.flow.nodes if node.frame is frame)
        return next((node.index for node in inside if self._meets(frame, node, stop)), None)


@dataclass(slots=True)
class Route:
    """The arrows that a frame took, each as often as it took it; ``lost`` are boxes to which no way
    led from the record before, ``current`` those that come next where it has not ended.
    """

    arrows: list[str]
    lost: list[str]
    current: list[str]


@dataclass(frozen=True, slots=True)
class _Leg:
    node: int
    arrows: list[str]
    found: bool


_ENTERED = Stop("", "")


_HANDLERS = frozenset({"catch", "skip", "error", "again"})


def _left(node: Node, stop: Stop) -> Iterator[int]:
    """The edges, by place, by which a record may have left *node*."""
    for place, edge in enumerate(node.edges):
        match stop.status:
            case "failed" | "cancelled":
                fits = edge.label in ("catch", "skip", "error")
            case "skipped" if stop.branch is None:
                fits = edge.label in ("skip", "unless")
            case _ if stop.branch is None and isinstance(node.control, Chooses | Repeats):
                fits = edge.label not in _HANDLERS  # its values were erased: where it led decides
            case _:
                fits = edge.label in (stop.branch or "next", f"case:{stop.branch}")
        # a decision that fails closed has a way to the frame's failure
        if fits or (edge.target == node.frame.fail and stop.status == "failed"):
            yield place


def _silent(node: Node) -> Iterator[int]:
    """The edges that a run follows without a record."""
    match node.kind, node.control:
        case "close", _:
            labels = {"next"}
        case "when", _:
            labels = {"when"}
        case "test", _:
            labels = {"again"}
        case "step", Repeats():
            labels = {"next"}
        case _:
            return
    yield from (place for place, edge in enumerate(node.edges) if edge.label in labels)


def _within(node: Node) -> str:
    """The path of a node in its frame."""
    ids = [node.step.id]
    at = node.owner
    while at is not None:
        ids.append(at.step.id)
        at = at.owner
    return "/".join(reversed(ids))


def _way(node: Node, edge: Edge) -> Way | None:
    """What kind of arrow an edge is, if it is drawn."""
    match edge.label:
        case "error" | "fork" | "again" | "when":
            return None
        case "next" | "catch" | "skip" | "unless":
            return edge.label
    if isinstance(node.control, Repeats) and not node.control.goes_on:
        return "next"
    return "branch"


def _label(edge: Edge) -> str:
    match edge.label:
        case "next":
            return ""
        case "unless":
            return "skipped"
        case "catch":
            return f"on {', '.join(edge.errors)}"
        case "skip":
            return "failed, skipped"
    return edge.label.removeprefix("case:") or '""'


def _lanes(node: Node) -> list[str]:
    control = node.control
    if isinstance(control, Forks) and control.kind == "branch":
        return [name for name, _ in control.frames]
    return []


def _tested(node: Node) -> str | None:
    """The condition, the value or the end that decides at a step."""
    match node.control:
        case Repeats(until=until):
            return until
        case Chooses(condition=str(condition)):
            return condition
        case Chooses(by="value", on=on):
            return on if isinstance(on, str) else canonical(on).decode()
    return None


def _reading(ref: Ref, field: str) -> Reading:
    return {"text": str(ref), "name": ref.name, "field": field}


def _written(step: Step) -> str:
    """*step* as it was written, without the steps in it."""
    fields = step.model_dump(mode="json", exclude_unset=True, by_alias=True, warnings=False)
    for name, holds in step.HOLDS.items():
        if holds is Holds.TARGETS and isinstance(fields.get(name), dict):
            fields[name] = {k: v if isinstance(v, str) else None for k, v in fields[name].items()}
        elif holds in (Holds.BLOCK, Holds.BRANCHES, Holds.TARGET):
            if not isinstance(fields.get(name), str | None):
                del fields[name]
    if isinstance(fields.get("program"), dict):
        fields["program"] = fields["program"].get("name")
    return canonical(fields).decode()
