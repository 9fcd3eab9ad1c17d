"""Which expressions are surely approved, unchanged, where a node begins.

A `Flow` comes in, and the expressions that somebody asks for; whether each is approved at a node
goes out. Forward *must* analysis of the facts "this expression was approved by this role, and no
name that it reads was written since": intersection at merges; what is approved inside a branch or
item is lost at its end, and a called program begins with nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from ...errors import ExprError
from ...language.expr import value_references
from ...language.flow import Flow, Names, Node
from ...language.semantics import Repeats, Value
from ..order.statement import Form, form, shown

Fact = tuple[int, Form, str]  # Names, what was shown, role


class Approvals:
    """Which expressions are surely approved, unchanged, where a node begins."""

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.bits: dict[Fact, int] = {}
        self.kills: dict[tuple[int, int], int] = {}  # by Names and slot
        self.steps: dict[tuple[int, str], list[Node]] = {}  # by Names and role
        for node in flow.nodes:
            if node.approval is not None:
                key = id(node.frame.names), node.approval.role
                self.steps.setdefault(key, []).append(node)
        self.states: list[int | None] = []
        self.granted: dict[int, int] = {}  # by node of an approval: what it approves
        self.shown: dict[int, frozenset[Form]] = {}
        self.by: dict[Fact, list[str]] = {}  # the steps that may have approved it

    @property
    def roles(self) -> list[str]:
        """Those whose approval the program asks for."""
        return list(dict.fromkeys(role for _, role in self.steps))

    def ask(self, names: Names, value: Any, role: str) -> Fact | None:
        """The fact that *value* was approved, to be looked for; None where no step could approve
        it.
        """
        asked = self.steps.get((id(names), role))
        if asked is None:
            return None
        try:
            key = form(value, names)
        except ExprError:  # an unknown name: told elsewhere
            return None
        fact = (id(names), key, role)
        if fact in self.bits:
            return fact
        showing = [node for node in asked if self.shows(node, key)]
        if not showing:
            return None
        bit = self.bits[fact] = 1 << len(self.bits)
        self.by[fact] = list(dict.fromkeys(node.step.id for node in showing))
        for node in showing:
            self.granted[node.index] = self.granted.get(node.index, 0) | bit
        for ref in value_references(value):
            slot = (id(names), names.load(ref)[0])
            self.kills[slot] = self.kills.get(slot, 0) | bit
        return fact

    def shows(self, node: Node, key: Form) -> bool:
        if node.index not in self.shown:
            assert node.approval is not None
            self.shown[node.index] = frozenset(shown(node.approval.show, node.frame.names))
        return key in self.shown[node.index]

    def killed(self, names: Names, slots: Iterable[int]) -> int:
        """The facts that a write to *slots* ends."""
        mask = 0
        for slot in slots:
            mask |= self.kills.get((id(names), slot), 0)
        return mask

    def written(self, node: Node) -> int:
        """The facts that end with what the step itself writes, or clears where it fails."""
        step, names = node.step, node.frame.names
        slots = names.results(step)
        slots += [slot for slot, write in names.writes(step) if isinstance(write, Value)]
        return self.killed(names, slots)

    def solve(self) -> None:
        """What holds where each node begins, down from everything, to the fixed point."""
        if not self.bits:
            return
        nodes = self.flow.nodes
        self.states = [None] * len(nodes)
        entry = self.flow.frames[0].entry
        self.states[entry] = 0
        queue, queued = deque([entry]), {entry}
        while queue:
            index = queue.popleft()
            queued.discard(index)
            state = self.states[index]
            assert state is not None
            for target, after in self.after(nodes[index], state):
                old = self.states[target]
                new = after if old is None else old & after
                if new != old:
                    self.states[target] = new
                    if target not in queued:
                        queued.add(target)
                        queue.append(target)

    def after(self, node: Node, state: int) -> Iterator[tuple[int, int]]:
        names = node.frame.names
        own = self.written(node) if node.edges else 0
        for edge in node.edges:
            label, held = edge.label, state
            if label == "fork":
                child = self.flow.nodes[edge.target].frame
                if child.kind == "call":
                    held = 0
                elif child.item is not None:
                    held &= ~self.killed(names, [child.item])
            elif label in ("skip", "catch", "error"):
                held &= ~own
                if edge.by >= 0:
                    held &= ~self.written(self.flow.nodes[edge.by])
            elif label not in ("again", "when") and not (
                node.kind == "step" and isinstance(node.control, Repeats)
            ):
                if label == "then" and node.kind == "step":
                    held |= self.granted.get(node.index, 0)
                held &= ~own
            yield edge.target, held

    def holds(self, fact: Fact, node: Node, *, after: bool) -> bool:
        """Whether *fact* holds where *node* begins, or *after* it has written."""
        state = self.states[node.index]
        if state is None:  # no path leads there
            return True
        if after:
            state &= ~self.written(node)
        return bool(state & self.bits[fact])
