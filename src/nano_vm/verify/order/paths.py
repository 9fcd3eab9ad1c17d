"""Which path of a `Flow` reaches a call without what must have come before it.

A `Question` comes in: edges that give something, writes that take it away, calls that need it and
(where one decision is for one call) use it up. The shortest path to a call in need goes out, or
None if there is none. Nothing runs here.

*Method.* Forward reachability over pairs of a node and a state. A state is a set of bits, each a
good thing: a guard that holds, that no undo of the tool waits, that the tool was not called in this
frame. What an edge does to a state is monotone, and a call that lacks nothing in one state lacks
nothing in a better one, so of the states at a node only the minimal ones are kept (an antichain);
with the one or two bits of common rules that is one or two states a node, and a search is linear in
nodes and edges. Children of a fork are summed up, innermost first: the minimal states in which they
can end when they begin with no guard, and the shortest ways to a call and to an undo that is
remembered. What a child gains adds to what holds at the fork; what it calls uses that up. Source:
M. Sharir, A. Pnueli, *Two approaches to interprocedural data flow analysis*, 1981.

A statement can have many bits, for kinds of calls and of guards; the states at a node are then
bounded by `MAX_STATES`, beyond which they are taken for what they have in common.

Rule 1: an approximation only ever makes a state worse. So None is a proof, and a path is no more
than a path of the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ...language.flow import Flow, FrameGraph, Node
from ...language.semantics import Forks, Repeats
from ..report import Move

MAX_STATES = 64
"""States of one node that are distinguished: those of six decisions between two guards, one after the
other.
"""

MAX_LOOKS = 300_000
"""Looks at nodes that all statements of a flow may take together, a second's work: twenty
statements about a program of 5,000 steps, or two hundred about one of 500. What is not looked at is
not proved.
"""

STEP, UNDO, RECONCILE = 1, 2, 4
"""Flags: which calls a node makes that matter."""


@dataclass(slots=True)
class Question:
    """What to look for, by node.

    ``gains``: the bits that each label gives. ``kills``: the bits that what the node writes takes;
    ``items`` the same for the frames of a map, whose item is written at their entry; ``leaving``
    for the loops that a failure at the node leaves. ``calls``: flags of all calls; ``needs``: by
    such a flag, the bits of which the call needs one. There are ``size`` bits. ``uses``: whether a
    call uses up every bit.
    """

    size: int
    gains: Mapping[int, Mapping[str, int]]
    needs: Mapping[int, Mapping[int, int]]
    calls: Mapping[int, int]
    uses: bool = True
    kills: Mapping[int, int] = field(default_factory=dict)
    items: Mapping[int, int] = field(default_factory=dict)
    leaving: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Breach:
    """A call in need: its node, and the moves that lead there."""

    node: Node
    path: tuple[Move, ...]


class Reach:
    """A point of a search: an entry of its trail, the label of the move there, and how far a child
    goes inside.
    """

    __slots__ = ("at", "cost", "inside", "label", "search")

    def __init__(
        self, search: _Search, at: int, label: str = "", inside: Reach | None = None
    ) -> None:
        self.search, self.at, self.label, self.inside = search, at, label, inside
        self.cost: int = (
            search.costs[at] + (label != "") + (inside.cost if inside is not None else 0)
        )

    def moves(self) -> list[Move]:
        search = self.search
        result = search.moves(self.at)
        if self.label:
            result.append(_move(search.nodes[search.trail[self.at][0]], self.label))
        if self.inside is not None:
            result += self.inside.moves()
        return result


@dataclass(frozen=True, slots=True)
class _How:
    """How an entry of a trail was reached from the one before, where it took more than an edge's
    label.
    """

    labels: tuple[str, ...]  # of the node, in order; children run after the first
    children: tuple[Reach, ...] = ()

    @property
    def cost(self) -> int:
        return len(self.labels) + sum(reach.cost for reach in self.children)


@dataclass(frozen=True, slots=True)
class _Join:
    """How the children of a fork can end together."""

    state: int
    cost: int
    children: tuple[Reach, ...]


@dataclass(slots=True)
class Summary:
    """What a child frame can do: its ends, the nearest call, the nearest undo that is
    remembered.
    """

    ends: list[tuple[int, Reach]] = field(default_factory=list)
    calls: Reach | None = None
    remembers: Reach | None = None


class Follows:
    """The edges of a flow along which a search goes on: without failures of a frame, since nothing
    comes after them that a search for calls can find (remembered undos are judged when they are
    remembered).
    """

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.looks = MAX_LOOKS  # that are left
        self.edges: list[list[tuple[str, int]]] = []
        for node in flow.nodes:
            fail = node.frame.fail
            once = isinstance(node.control, Repeats) and node.control.bound == 1
            self.edges.append(
                [
                    (edge.label, edge.target)
                    for edge in node.edges
                    if edge.target != fail
                    and edge.label != "fork"
                    and not (once and edge.label == "again")
                ]
            )


class TooManyLooks(Exception):
    """The searches over a flow have taken all looks that there are."""


def find_breach(follows: Follows, question: Question) -> Breach | None:
    """The shortest path to a call that lacks what it needs.

    Raises:
        TooManyLooks: Where that cannot be found within `MAX_LOOKS`.
    """
    ground = _Ground(follows, question)
    for index in sorted(ground.frames, reverse=True):  # a child's index is higher than its parent's
        if index:
            ground.summaries[index] = _Search(ground).summed_up(follows.flow.frames[index])
    return _Search(ground).breach()


def surely_hold(follows: Follows, questions: Sequence[Question]) -> list[bool]:
    """Of which *questions* it is plain that there is no breach: all of them in one look at the
    run's own frame.

    Forward data flow: what every path to a node has gained and not lost since, a bit set over all
    questions at once. The paths that meet at a node keep what they have in common, so where a call
    has what it needs here, it has it on every path; where it has not, a search tells. Questions
    about what happens inside of forks, and about undo and reconcile, are left to it.
    """
    together = _Together(follows)
    taken = [together.take(question) for question in questions]
    failing = together.failing() if together.count else set()
    return [number is not None and number not in failing for number in taken]


class _Together:
    """Several questions as one, each with bits of its own."""

    def __init__(self, follows: Follows) -> None:
        self.follows = follows
        self.nodes = follows.flow.nodes
        self.count = self.size = 0
        self.gains: dict[int, dict[str, int]] = {}
        self.kills: dict[int, int] = {}
        self.leaving: dict[int, int] = {}
        self.used: dict[int, int] = {}
        self.needs: dict[int, list[tuple[int, int]]] = {}  # by node: question, bits

    def take(self, question: Question) -> int | None:
        """The number that *question* has from here on; None for one that is left to a search."""
        nodes = self.nodes
        if any(flags != STEP for flags in question.calls.values()) or any(
            nodes[index].frame.index
            for part in (question.gains, question.calls, question.needs)
            for index in part
        ):
            return None
        shift, number = self.size, self.count
        self.size, self.count = shift + question.size, number + 1
        for index, labels in question.gains.items():
            known = self.gains.setdefault(index, {})
            for label, bits in labels.items():
                known[label] = known.get(label, 0) | bits << shift
        for own, part in ((self.kills, question.kills), (self.leaving, question.leaving)):
            for index, bits in part.items():
                own[index] = own.get(index, 0) | bits << shift
        for index in question.calls if question.uses else ():
            self.used[index] = self.used.get(index, 0) | ((1 << question.size) - 1) << shift
        for index, needed in question.needs.items():
            self.needs.setdefault(index, []).append((number, needed[STEP] << shift))
        return number

    def failing(self) -> set[int]:
        """The questions of which a call may lack what it needs, as far as this can tell."""
        follows, order = self.follows.edges, self.follows.flow.order
        entry = self.follows.flow.frames[0].entry
        special = {*self.used, *self.gains, *self.kills, *self.leaving}
        states: dict[int, int] = {entry: 0}
        queued = bytearray(len(order.nodes))
        queued[order.place[entry]] = 1
        for index in order.sweep(queued):
            state = states[index]
            for label, target in follows[index]:
                after = self.after(index, state, label) if index in special else state
                before = states.get(target)
                if before is not None:
                    after &= before
                if after != before:
                    states[target] = after
                    queued[order.place[target]] = 1
        return {
            number
            for index, needed in self.needs.items()
            if index in states
            for number, bits in needed
            if not states[index] & bits
        }

    def after(self, index: int, state: int, label: str) -> int:
        """As `_Search.after`, behind the call of the node."""
        state &= ~self.used.get(index, 0)
        gained = self.gains.get(index)
        if gained is not None:
            state |= gained.get(label, 0)
        if label in ("skip", "catch"):
            state &= ~(self.kills.get(index, 0) | self.leaving.get(index, 0))
        elif label not in ("again", "when"):
            state &= ~self.kills.get(index, 0)
        return state


class _Ground:
    """What all searches for one question share."""

    def __init__(self, follows: Follows, question: Question) -> None:
        self.follows = follows
        self.nodes = nodes = follows.flow.nodes
        self.question = question
        self.guards = (1 << question.size) - 1
        self.calm = 1 << question.size  # no undo of the tool is remembered
        self.fresh = 2 << question.size  # the tool was not called in this frame
        self.frames = self._relevant_frames()
        self.summaries: dict[int, Summary] = {}
        self.joins: dict[int, list[_Join]] = {}
        self.special = {
            *question.gains,
            *question.kills,
            *question.leaving,
            *question.calls,
            *question.needs,
        }
        for index in self.frames:
            owner = follows.flow.frames[index].owner
            if owner is not None:
                self.special.add(owner.index)
        self.wrote: dict[int, int] = {}  # by frame: the bits that what it writes takes
        for index, bits in question.kills.items():
            frame = nodes[index].frame.index
            self.wrote[frame] = self.wrote.get(frame, 0) | bits

    def _relevant_frames(self) -> set[int]:
        """The frames in which something gives or calls, and those around them."""
        question = self.question
        found: set[int] = {0}
        for index in (*question.gains, *question.calls, *question.needs):
            frame: FrameGraph | None = self.nodes[index].frame
            while frame is not None and frame.index not in found:
                found.add(frame.index)
                frame = frame.owner.frame if frame.owner is not None else None
        return found


class _Search:
    """One search from one entry: over a frame alone (`summed_up`), or over the run and into its
    children (`breach`).
    """

    def __init__(self, ground: _Ground) -> None:
        self.ground = ground
        self.nodes, self.question = ground.nodes, ground.question
        self.guards, self.calm, self.fresh = ground.guards, ground.calm, ground.fresh
        self.trail: list[tuple[int, int, int, str | _How]] = []  # node, state, entry before, how
        self.costs: list[int] = []  # moves to there
        self.checking = False
        self.summary = Summary()
        self.found: Breach | None = None

    # --- the two uses ---

    def breach(self) -> Breach | None:
        self.checking = True
        self.run(self.ground.follows.flow.frames[0].entry)
        return self.found

    def summed_up(self, frame: FrameGraph) -> Summary:
        minimal = set(self.run(frame.entry).get(frame.end, ()))
        for at, (node, state, _, _) in enumerate(self.trail):
            if node == frame.end and state in minimal:
                minimal.discard(state)  # the first to come there is the nearest
                self.summary.ends.append((state, Reach(self, at)))
        return self.summary

    # --- the search ---

    def run(self, entry: int) -> dict[int, tuple[int, ...]]:
        """Search from *entry*, nearest first; the minimal states seen at each node."""
        follows, special, trail, costs = (
            self.ground.follows.edges,
            self.ground.special,
            self.trail,
            self.costs,
        )
        state = self.calm | self.fresh
        seen: dict[int, tuple[int, ...]] = {entry: (state,)}
        trail.append((entry, state, -1, ""))
        costs.append(0)
        waiting: dict[int, list[int]] = {0: [0]}
        while waiting:
            cost = min(waiting)
            if self.found is not None and cost >= len(self.found.path):
                break
            near: list[int] = []
            self.ground.follows.looks -= len(waiting[cost])
            if self.ground.follows.looks < 0:
                raise TooManyLooks
            for at in waiting.pop(cost):
                node, state, _, how = trail[at]
                # from further away: seen when it is taken, not when it is found
                if type(how) is _How:
                    known = seen.get(node, ())
                    if _covered(known, state):
                        continue
                    seen[node] = _with(known, state)
                if node not in special:
                    for label, target in follows[node]:
                        known = seen.get(target, ())
                        if known and (known[0] & state == known[0] or _covered(known, state)):
                            continue
                        there = _room(known, state) if known else state
                        seen[target] = _with(known, there) if known else (state,)
                        near.append(len(trail))
                        trail.append((target, there, at, label))
                        costs.append(cost + 1)
                    continue
                for target, after, how in self.steps(at, self.nodes[node], state):
                    known = seen.get(target, ())
                    if _covered(known, after):
                        continue
                    after = _room(known, after)
                    if isinstance(how, str):
                        seen[target] = _with(known, after)
                        near.append(len(trail))
                        costs.append(cost + 1)
                    else:
                        waiting.setdefault(cost + how.cost, []).append(len(trail))
                        costs.append(cost + how.cost)
                    trail.append((target, after, at, how))
            if near:
                waiting.setdefault(cost + 1, []).extend(near)
        return seen

    def steps(self, at: int, node: Node, state: int) -> Iterator[tuple[int, int, str | _How]]:
        """What may follow *node*, reached in *state*: target, state there, and how."""
        calls, uses = self.question.calls.get(node.index, 0), self.question.uses
        if calls & STEP and self.lacks(node, STEP, state):
            self.fail(at, node)
            return
        if calls & STEP and uses:
            state = self.called(at, node, state)
        ways: list[tuple[int, tuple[str, ...]]] = [(state, ())]
        if calls & RECONCILE:
            if self.lacks(node, RECONCILE, state):
                self.fail(at, node, "reconcile")
            if uses:
                ways.append((self.called(at, node, state, "reconcile"), ("reconcile",)))
                if self.checking and node.step.most_calls > 1:
                    self.fail(at, node, "reconcile", "reconcile")  # each attempt may ask
        for before, labels in ways:
            if calls & UNDO:
                self.remembered(at, node, before, labels)
            if node.frames:
                yield from self.fork(at, node, before)
                continue
            for label, target in self.ground.follows.edges[node.index]:
                after = self.after(node, before, label, remembers=bool(calls & UNDO))
                yield target, after, _How((*labels, label)) if labels else label

    def lacks(self, node: Node, call: int, state: int) -> bool:
        """Whether *call* of *node* is in need."""
        return self.checking and not state & self.question.needs[node.index][call]

    def after(self, node: Node, state: int, label: str, *, remembers: bool = False) -> int:
        """*state* behind the edge *label*: what it gives, less what the node writes."""
        question, index = self.question, node.index
        gained = question.gains.get(index)
        if gained is not None:
            state |= gained.get(label, 0)
        if label in ("skip", "catch"):
            state &= ~(question.kills.get(index, 0) | question.leaving.get(index, 0))
        elif label not in ("again", "when"):  # behind these nothing was written
            state &= ~question.kills.get(index, 0)
        if remembers and question.uses:
            state &= ~self.calm
        return state

    def called(self, at: int, node: Node, state: int, label: str = "") -> int:
        """*state* after a call of the tool: it uses up every guard, and leaves an undo that waits
        without one.
        """
        if self.checking and not state & self.calm:
            self.fail(at, node, *([label] if label else []), "cancel")
        self.summary.calls = _nearer(self.summary.calls, Reach(self, at, label or "next"))
        return state & ~(self.guards | self.fresh)

    def remembered(self, at: int, node: Node, state: int, labels: tuple[str, ...]) -> None:
        """The undo of *node* is remembered from here on, and may run at any time: it needs its
        guard now.

        Also where the step fails since its value is refused: the call was made.
        """
        if self.question.uses:
            self.summary.remembers = _nearer(self.summary.remembers, Reach(self, at, "next"))
        second = self.checking and self.question.uses and not state & self.calm
        if second or self.lacks(node, UNDO, self.after(node, state, "next")):
            self.fail(at, node, *labels, *self.stopped_after(node))
        elif self.lacks(node, UNDO, state & ~self.question.kills.get(node.index, 0)):
            self.fail(at, node, *labels, "error")

    def stopped_after(self, node: Node) -> list[str | Move]:
        """The moves from the end of *node* to what can be cancelled next; at the run's end only a
        refused value fails it.
        """
        moves: list[str | Move] = ["next"]
        at: Node = node
        while True:
            target = at.follow("next")
            following = self.nodes[target if target is not None else at.frame.fail]
            while following.kind == "close":
                following = self.nodes[following.edges[0].target]
            owner = at.frame.owner
            if following.kind != "end":
                return [*moves, _move(following, "cancel")]
            if owner is None:
                return ["error"]
            if len(owner.frames) > 1:
                return [*moves, _move(owner, "cancel")]
            at = owner
            moves.append(_move(at, "next"))

    # --- forks ---

    def fork(self, at: int, node: Node, state: int) -> Iterator[tuple[int, int, str | _How]]:
        """Into the children (when checking), and on after the join, or after a failure that is
        caught, skipped or gone on from.
        """
        summaries = self.ground.summaries
        children = [frame for frame in node.frames if frame.index in summaries]
        calling = [summaries[frame.index].calls for frame in children]
        called, undone = (
            _nearest(calling),
            _nearest(summaries[frame.index].remembers for frame in children),
        )
        if called is not None:
            self.summary.calls = _nearer(self.summary.calls, Reach(self, at, "fork", called))
        if undone is not None:
            self.summary.remembers = _nearer(
                self.summary.remembers, Reach(self, at, "fork", undone)
            )
        if self.checking:
            self.remembered_by_two(at, node, children)
            beside = _beside(node, calling)
            for i, frame in enumerate(children):
                inside = state & ~self.question.items.get(frame.index, 0)
                yield frame.entry, inside, "fork"
                sibling = beside(i)
                # of the two calls neither comes before the other: no guard is for both
                if sibling is not None:
                    yield frame.entry, inside & ~self.guards, _How(("fork",), (sibling,))
        failed = self.failed(state, called, undone)
        parts = tuple(dict.fromkeys(part for part in (called, undone) if part is not None))
        for label, target in self.ground.follows.edges[node.index]:
            if label != "next":
                yield target, self.after(node, failed, label), _How(("fork", label), parts)
                continue
            if isinstance(node.control, Forks) and node.control.goes_on:
                yield target, self.after(node, failed, label), _How(("fork", label), parts)
            for join in self.joins(node, children):
                kept = state & (join.state | (self.guards if join.state & self.fresh else 0))
                joined = kept | (join.state & self.guards)
                how = _How(("fork", label), join.children) if join.children else label
                yield target, self.after(node, joined, label), how

    def failed(self, state: int, called: Reach | None, undone: Reach | None) -> int:
        """*state* after a fork that failed: what any child may have done is done, and nothing that
        one may have gained counts.
        """
        if called is not None:
            state &= ~(self.guards | self.fresh)
        return state & ~self.calm if undone is not None else state

    def remembered_by_two(self, at: int, node: Node, children: Sequence[FrameGraph]) -> None:
        """Two undos that siblings remember: one of them runs first, and uses up what guards the
        other.
        """
        found = [
            reach
            for frame in children
            if (reach := self.ground.summaries[frame.index].remembers) is not None
        ]
        if len(found) == 1 and _many(node):
            found *= 2
        if self.question.uses and len(found) > 1:
            moves = [move for reach in sorted(found, key=_cost)[:2] for move in reach.moves()]
            self.fail(at, node, "fork", *moves, "cancel")

    def joins(self, node: Node, children: Sequence[FrameGraph]) -> list[_Join]:
        """How all children can end together: what any of them gained, and what none of them
        lost.
        """
        found = self.ground.joins.get(node.index)
        if found is None:
            found = self.ground.joins[node.index] = self._joins(node, children)
        return found

    def _joins(self, node: Node, children: Sequence[FrameGraph]) -> list[_Join]:
        flags = self.calm | self.fresh
        found = [_Join(flags, 0, ())]
        for frame in children:
            # what a frame wrote is not seen outside: a guard in it may have looked at something else
            kept = ~self.ground.wrote.get(frame.index, 0)
            ends = self.ground.summaries[frame.index].ends
            more = []
            for join in found:
                for state, reach in ends:
                    gained = (join.state | (state & kept)) & self.guards
                    both = join.state & state & flags
                    more.append(
                        _Join(gained | both, join.cost + reach.cost, (*join.children, reach))
                    )
            if _may_be_empty(node):
                more = [
                    found[0],
                    *(_Join(join.state & flags, join.cost, join.children) for join in more),
                ]
            found = _minimal(more)
            if len(found) > MAX_STATES:
                state = found[0].state
                for join in found:
                    state &= join.state
                found = [_Join(state, found[0].cost, found[0].children)]
        return found

    # --- paths ---

    def fail(self, at: int, node: Node, *labels: str | Move) -> None:
        """A breach at *node*, kept if it is the nearest; *labels* are what is still seen of it, and
        moves after it.
        """
        if self.found is not None and self.costs[at] + max(len(labels), 1) >= len(self.found.path):
            return
        tail = [
            label if isinstance(label, Move) else _move(node, label) for label in labels or ("",)
        ]
        self.found = Breach(node, (*self.moves(at), *tail))

    def moves(self, at: int) -> list[Move]:
        """The moves from the search's entry to the entry *at* of its trail."""
        parts: list[list[Move]] = []
        while True:
            _, _, before, how = self.trail[at]
            if before < 0:
                break
            node = self.nodes[self.trail[before][0]]
            if isinstance(how, str):
                parts.append([_move(node, how)])
            else:
                first, *rest = how.labels
                inner = [move for reach in how.children for move in reach.moves()]
                parts.append([_move(node, first), *inner, *(_move(node, label) for label in rest)])
            at = before
        return [move for part in reversed(parts) for move in part]


def _move(node: Node, label: str) -> Move:
    return Move(node.index, node.step.id, label)


def _cost(reach: Reach) -> int:
    return reach.cost


def _nearer(one: Reach | None, other: Reach) -> Reach:
    return other if one is None or other.cost < one.cost else one


def _nearest(reaches: Iterable[Reach | None]) -> Reach | None:
    return min((reach for reach in reaches if reach is not None), key=_cost, default=None)


def _covered(known: tuple[int, ...], state: int) -> bool:
    """Whether one of *known* is as bad as *state*."""
    return any(other & state == other for other in known)


def _with(known: tuple[int, ...], state: int) -> tuple[int, ...]:
    return (*(other for other in known if state & other != state), state)


def _room(known: tuple[int, ...], state: int) -> int:
    """*state*, or, where too many are distinguished already, what it has in common with them."""
    if len(known) >= MAX_STATES:
        for other in known:
            state &= other
    return state


def _minimal(joins: list[_Join]) -> list[_Join]:
    """The worst, of equal ones the nearest."""
    found: list[_Join] = []
    for join in sorted(joins, key=lambda join: (join.state.bit_count(), join.cost)):
        if not any(other.state & join.state == other.state for other in found):
            found.append(join)
    return found


def _beside(node: Node, calling: list[Reach | None]) -> Callable[[int], Reach | None]:
    """By child of a fork, the nearest call of another child that may run at the same time."""
    nearest = _nearest(calling)
    if _many(node) or nearest is None:
        return lambda child: nearest
    first = calling.index(nearest)
    second = _nearest(calling[:first] + calling[first + 1 :])
    return lambda child: second if child == first else nearest


def _may_be_empty(node: Node) -> bool:
    """Whether a fork may have no child at all."""
    return isinstance(node.control, Forks) and node.control.item is not None


def _many(node: Node) -> bool:
    """Whether two children of the same frame can run at the same time."""
    forks = node.control
    return isinstance(forks, Forks) and forks.item is not None and forks.most > 1
