"""The most that one execution of a frame can add up to: longest paths over the one graph.

A `Flow` without circles of jumps comes in, and what each node adds to some amounts (steps, calls,
tokens, ...); out go the largest sum of each amount over all paths of each frame, and the path that
has it. It runs nothing, and makes no list of paths.

Theory. Without the ``again`` edges of loops the graph of a frame is acyclic, so the largest sum
from a node to the end is its own amount plus the largest over its successors: one look at each node
and edge, in reverse topological order. All amounts are carried at once, each with a maximum of its
own, so that the most steps and the most calls may come from different paths.

- A loop with bound k runs its body to its end at most k - 1 times, and once more either to its end
  or out of it (a jump, a failure): k - 1 times the longest way from the body's entry to its `test`,
  and the longest way from there to the end of the frame.
- A fork adds what its children add together, whatever follows it: when one fails, its siblings
  still run. A `map` adds its item as often as it may have items.
- An edge of a failure is an edge like any other: what the failing step had used is counted before
  it is taken.

Source: longest paths in a directed acyclic graph, Cormen et al., "Introduction to Algorithms",
section 22.2; bounds of loops by implicit path enumeration, Li and Malik, "Performance Analysis of
Embedded Software Using Implicit Path Enumeration", 1995.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ..errors import VMError
from ..language.flow import Flow, FrameGraph, Node
from ..language.semantics import Forks, Repeats

STEPS, LLM_CALLS, TOOL_CALLS = 0, 1, 2
"""The amounts that every caller asks for, as a budget counts them: undo and reconcile are not among
the tool calls.
"""

Gain = Iterable[tuple[int, int]]
"""What a node adds: pairs of an amount's number and how much."""


_STEP = ((STEPS, 1),)


def step_of(node: Node) -> Gain:
    """The step that a budget counts: where a `when` stands before it, it is counted there, whether
    it is skipped or not.
    """
    return () if node.kind == "step" and node.step.when is not None else _STEP


def counted(node: Node) -> Gain:
    """The steps and calls of a node itself."""
    calls = node.step.most_calls if node.kind == "step" else 0
    own = step_of(node)
    return (*own, (TOOL_CALLS if node.calls else LLM_CALLS, calls)) if calls else own


def capped(frame: FrameGraph, total: list[int]) -> None:
    """Hold the total of a called program to its own budget, as the machine does."""
    budget = frame.names.program.budget if frame.kind == "call" else None
    if budget is not None:
        for amount, most in ((STEPS, budget.max_steps), (LLM_CALLS, budget.max_llm_calls)):
            if most is not None:
                total[amount] = min(total[amount], most)
        if budget.max_tool_calls is not None:
            total[TOOL_CALLS] = min(total[TOOL_CALLS], budget.max_tool_calls)


@dataclass(slots=True)
class Longest:
    """The largest sums, by frame, and the way to each. It does not hold the graph, which would live
    as long as a report does.
    """

    totals: list[list[int]]
    entry: int  # of the run
    # by node: the successor on the path of each traced amount, one where it is the same
    choices: dict[int, Sequence[int]] = field(default_factory=dict)
    # where a way is asked for, by node: the id of the step that runs there, and of a fork where its
    # frames begin
    steps: dict[int, str] = field(default_factory=dict)
    inside: dict[int, list[int]] = field(default_factory=dict)

    def path(self, traced: int) -> tuple[str, ...]:
        """The ids of the steps on the path of the run that has the most of the amount with this
        number among those traced.

        What runs inside a fork stands after it. A loop's body stands there once.
        """
        found = []
        work = [self.entry]
        while work:
            index = work.pop()
            choice = self.choices.get(index)
            if choice:
                work.append(choice[traced] if len(choice) > 1 else choice[0])
            if index in self.steps:
                found.append(self.steps[index])
                work += reversed(self.inside.get(index, ()))
        return tuple(found)


def longest(
    flow: Flow,
    width: int,
    gain: Callable[[Node], Gain],
    cap: Callable[[FrameGraph, list[int]], None] = capped,
    traced: Sequence[int] = (),
) -> Longest:
    """The largest sums of *width* amounts for one execution of each frame of *flow*.

    *gain* tells what each `step` and `when` adds beside its frames and iterations; *cap* may lower
    the total of a frame. The way to the largest sum of the amounts *traced* can be asked for
    afterwards.

    Raises:
        VMError: If steps run in a circle: nothing bounds such a program.
    """
    result = Longest([[0] * width for _ in flow.frames], flow.frames[0].entry)
    for node in flow.nodes if traced else ():
        if node.kind == "step":
            result.steps[node.index] = node.step.id
            if node.frames:
                result.inside[node.index] = [frame.entry for frame in node.frames]
    for frame in reversed(flow.frames):  # a child's index is higher than its parent's
        total = _Frame(flow, frame, width).solve(gain, result, traced)
        cap(frame, total)
        result.totals[frame.index] = total
    return result


class _Frame:
    """One frame: its nodes in reverse topological order, the successors of each, and the members of
    each loop.
    """

    def __init__(self, flow: Flow, frame: FrameGraph, width: int) -> None:
        self.nodes = flow.nodes
        self.frame = frame
        self.width = width
        self.successors: dict[int, list[int]] = {}
        self.order: list[int] = []
        self.entered: dict[int, int] = {}  # how many predecessors a node has
        self.gains: dict[int, Gain] = {}
        self.search()

    def search(self) -> None:
        """Depth first from the entry; ends add nothing and are left out."""
        nodes, successors, order, entered = self.nodes, self.successors, self.order, self.entered
        end, fail = self.frame.end, self.frame.fail
        entry = self.frame.entry
        if entry in (end, fail):
            return
        state = {entry: 1}  # 1 while on the way, 2 when done
        stack = [entry]
        while stack:
            index = stack[-1]
            if index not in successors:
                found: dict[int, None] = {}  # in the order of the edges
                for edge in nodes[index].edges:
                    target = edge.target
                    if target in (end, fail) or target in found:
                        continue
                    if edge.label not in ("again", "fork"):
                        found[target] = None
                        entered[target] = entered.get(target, 0) + 1
                        seen = state.get(target)
                        if seen is None:
                            stack.append(target)
                        elif seen == 1 and target in successors:
                            raise VMError(
                                f"steps run in a circle through {nodes[target].step.id!r}; "
                                f"nothing bounds them"
                            )
                successors[index] = list(found)
                state[index] = 1
            else:
                stack.pop()
                if state[index] != 2:
                    state[index] = 2
                    order.append(index)

    def solve(
        self, gain: Callable[[Node], Gain], result: Longest, traced: Sequence[int]
    ) -> list[int]:
        nodes, gains = self.nodes, self.gains
        tests: dict[int, int] = {}  # by loop: its test
        members: dict[int, list[int]] = {}  # by loop: the nodes of its body
        # by owner: the loops in which its blocks stand
        around: dict[int, tuple[int, ...]] = {-1: ()}
        for index in self.order:
            node = nodes[index]
            owner = node.owner
            if owner is not None:
                for loop in around.get(owner.index) or self._loops(owner, around):
                    members.setdefault(loop, []).append(index)
            if node.kind == "test":
                assert node.of is not None
                tests[node.of.index] = index
            if node.kind not in ("step", "when"):
                continue
            gains[index] = gain(node)
            if node.frames:
                forks = node.control
                times = forks.most if isinstance(forks, Forks) and forks.item is not None else 1
                totals = [result.totals[child.index] for child in node.frames]
                together = [sum(amount) for amount in zip(*totals, strict=True)]
                gains[index] = _more(gains[index], together, times)
            elif isinstance(node.control, Repeats) and index in tests and node.control.bound > 1:
                body = node.edges[0].target
                # the whole of an iteration; a body that never comes to its end runs once
                iteration = self._sums(members.get(index, []), gains, tests[index], {}).get(body)
                if iteration is not None:
                    gains[index] = _more(gains[index], iteration, node.control.bound - 1)
        values = self._sums(self.order, gains, None, result.choices, traced)
        return values.get(self.frame.entry) or [0] * self.width

    def _loops(self, owner: Node, around: dict[int, tuple[int, ...]]) -> tuple[int, ...]:
        found = around.get(owner.index)
        if found is None:
            outer = () if owner.owner is None else self._loops(owner.owner, around)
            found = around[owner.index] = (
                (*outer, owner.index) if isinstance(owner.control, Repeats) else outer
            )
        return found

    def _sums(
        self,
        order: Sequence[int],
        gains: Mapping[int, Gain],
        goal: int | None,
        choices: dict[int, Sequence[int]],
        traced: Sequence[int] = (),
    ) -> dict[int, list[int]]:
        """The largest sums from each node of *order* to *goal*, or to the end of the frame where
        there is none.

        A list of sums is handed on along a straight way and copied only where ways part, so a node
        costs what it adds.
        """
        successors = self.successors
        values: dict[int, list[int]] = {}
        entered = self.entered
        # how many predecessors have yet to see a node's sums
        left = {index: entered.get(index, 0) for index in order}
        if goal is not None:
            left[goal] = entered[goal]
            values[goal] = [0] * self.width
        for index in order:
            best: list[int] | None = None
            own = False
            chosen: Sequence[int] = ()
            for target in successors[index]:
                value = values.get(target)
                if value is None:
                    continue  # it does not lead to the goal
                left[target] -= 1
                if best is None:
                    best, own, chosen = value, not left[target], (target,)
                    continue
                if traced:
                    if len(chosen) == 1:
                        chosen = [chosen[0]] * len(traced)
                    chosen = [
                        target if value[amount] > best[amount] else before
                        for amount, before in zip(traced, chosen, strict=True)
                    ]
                best, own = [a if a > b else b for a, b in zip(best, value, strict=True)], True
            if best is None:
                if goal is not None:
                    continue
                best = [0] * self.width
            elif not own:
                best = best.copy()
            for amount, units in gains.get(index, ()):
                best[amount] += units
            values[index] = best
            if traced:
                choices[index] = chosen
        return values


def _more(gain: Gain, sums: Sequence[int], times: int) -> Gain:
    """*gain* and *times* the *sums*."""
    return (
        *gain,
        *((amount, units * times) for amount, units in enumerate(sums) if units and times),
    )
