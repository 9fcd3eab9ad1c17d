"""The all-paths test: every run of a program that chosen outcomes can make, on the real machine.

A plan, its flow and the contracts of its tools come in; an `Exploration` goes out: what was
reached, how runs ended, and runs that break a stated property. Runs are made depth first over the
tree of choices, each from the start, since a machine cannot be copied; those that take a choice
for the first time at its place go before all others, so that a search that is cut short has seen
the breadth. No tool is called and no model asked.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import VMError
from ..given import by_name
from ..language.flow import Flow, Node
from ..language.policy import Budget
from ..language.semantics import Calls
from ..machine.machine import Machine
from ..machine.plan import WHEN, Plan, ToolOp
from ..records.record import edge_of
from ..tools.contract import ToolContract
from ..values import short
from .samples import Checks
from .tree import (
    GRAIN_NS,
    Branch,
    Choices,
    Edges,
    ExploredRun,
    Given,
    Outcome,
    Runner,
    Site,
    Took,
    ToolCall,
    assumed,
    held_before,
    replay,
)

DEFAULT_MAX_RUNS = 10_000
"""Runs of one exploration unless asked otherwise: half a second for a program of 20 steps."""

MAX_CHOICES = 1_000
"""Choices of one run that are varied; a loop of many iterations makes more, and those beyond keep
their first outcome.
"""

SHOWN_RUNS = 3
"""Runs kept for each property that is broken: the shortest."""

SHOWN_MISSED = 20
"""Places never reached that a failure's text lists."""

Property = Callable[[ExploredRun], "bool | None"]
"""What must hold of every run: False, or an AssertionError, says that it does not."""


# --- what is found --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Broken:
    """A property and a run that breaks it; ``reason`` is what its AssertionError said."""

    property: str
    run: ExploredRun
    reason: str = ""

    def text(self) -> str:
        """The property and the run, for people."""
        head = f"broken: {self.property}" + (f" ({self.reason})" if self.reason else "")
        return "\n".join([head, *(f"  {line}" for line in self.run.lines())])

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {"property": self.property, "reason": self.reason, "run": self.run.to_dict()}


@dataclass(frozen=True, slots=True)
class Coverage:
    """What runs reached: steps, and branches (``then``, ``case:x``, ``unless``, ``until``,
    ``catch``, ...) of steps.

    ``missed`` says what not, and which steps were reached and failed in every run.
    """

    steps: int
    steps_reached: int
    branches: int
    branches_taken: int
    missed: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"{self.steps_reached} of {self.steps} steps, {self.branches_taken} of "
            f"{self.branches} branches"
        )

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "steps": self.steps,
            "steps_reached": self.steps_reached,
            "branches": self.branches,
            "branches_taken": self.branches_taken,
            "missed": list(self.missed),
        }


@dataclass(frozen=True, slots=True)
class Exploration:
    """What the runs showed. ``complete``: every combination of the outcomes tried was run, each
    within `MAX_CHOICES`.

    ``statuses`` counts how runs ended, ``broken`` by property how many runs break it, of which
    ``failures`` holds the shortest; ``notes`` says what could not be made up.
    """

    program: str
    runs: int
    complete: bool
    coverage: Coverage
    statuses: dict[str, int]
    failures: tuple[Broken, ...] = ()
    broken: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether no run broke a property."""
        return not self.failures

    def check(self) -> Exploration:
        """Itself, if no run broke a property.

        Raises:
            AssertionError: With the shortest run that breaks each.
        """
        if self.failures:
            raise AssertionError(self.text())
        return self

    def lines(self) -> Iterator[str]:
        """The result for people, a line each."""
        extent = "all there are" if self.complete else "not all there are"
        yield f"{self.program}: {self.runs} runs, {extent}; {self.coverage}"
        yield "ended: " + ", ".join(f"{count} {status}" for status, count in self.statuses.items())
        yield from (f"never reached: {missed}" for missed in self.coverage.missed[:SHOWN_MISSED])
        if len(self.coverage.missed) > SHOWN_MISSED:
            yield f"never reached: {len(self.coverage.missed) - SHOWN_MISSED} more"
        yield from (f"note: {text}" for text in self.notes)
        for name, count in self.broken.items():
            if count:
                yield f"{name}: broken by {count} of {self.runs} runs"
                yield from (
                    next(failure for failure in self.failures if failure.property == name)
                    .text()
                    .splitlines()
                )

    def text(self) -> str:
        """`lines` in one text."""
        return "\n".join(self.lines())

    __str__ = text

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "ok": self.ok,
            "program": self.program,
            "runs": self.runs,
            "complete": self.complete,
            "coverage": self.coverage.to_dict(),
            "statuses": self.statuses,
            "broken": self.broken,
            "failures": [failure.to_dict() for failure in self.failures],
            "notes": list(self.notes),
        }


# --- properties -----------------------------------------------------------------------------------


def at_most(tool: str, count: int) -> dict[str, Property]:
    """The property that no run calls *tool* more than *count* times: attempts, undo and reconcile
    calls are calls.

    Examples:
        >>> from nano_vm import Program
        >>> from nano_vm.testing import at_most, explore
        >>> program = Program.from_yaml(
        ...     "steps: [{id: gate, type: condition, condition: $sure, then: pay, otherwise: $end},"
        ...     " {id: pay, type: tool, tool: pay}]"
        ... )
        >>> explore(program, properties=at_most("pay", 1), inputs={"sure": True}).ok
        True
    """

    def holds(run: ExploredRun) -> bool:
        return sum(call.attempts for call in run.calls if call.tool == tool) <= count

    return {f"{tool} is called at most {count} time{'s' * (count != 1)}": holds}


def never(tool: str) -> dict[str, Property]:
    """The property that no run calls *tool*.

    Examples:
        >>> from nano_vm import Program
        >>> from nano_vm.testing import explore, never
        >>> program = Program.from_yaml(
        ...     "steps: [{id: gate, type: condition, condition: $sure, then: pay, otherwise: $end},"
        ...     " {id: pay, type: tool, tool: pay}]"
        ... )
        >>> explore(program, properties=never("pay"), inputs={"sure": False}).ok
        True
    """
    return {f"{tool} is never called": lambda run: all(call.tool != tool for call in run.calls)}


def only_after(tool: str, branch: str) -> dict[str, Property]:
    """The property that each call of *tool* comes after *branch* (``step.then``), which was taken
    since the call before it.

    A branch that is taken in a sibling, whose end the call does not wait for, is not before it.

    Examples:
        >>> from nano_vm import Program
        >>> from nano_vm.testing import explore, only_after
        >>> program = Program.from_yaml(
        ...     "steps: [{id: gate, type: condition, condition: $sure, then: pay, otherwise: $end},"
        ...     " {id: pay, type: tool, tool: pay}]"
        ... )
        >>> explore(program, properties=only_after("pay", "gate.then"), inputs={"sure": True}).ok
        True
    """
    step_id, _, label = branch.rpartition(".")

    def frame(records: Sequence[Any], open_: bool) -> bool | None:
        """Whether the branch is open after these *records*; None where a call came without it."""
        seen: set[str] = set()
        for record in records:
            op, path, status, _, _, request, _, _, _, _, extra = record
            held = [when.step_id for when in held_before(op, path, extra, seen)]
            open_ = open_ or (label == "when" and step_id in held)
            if type(extra) is dict and "children" in extra:
                ends = [frame(child, open_) for child in extra["children"]]
                if None in ends:
                    return None
                open_ = any(ends) if not open_ else all(ends)
            if isinstance(op, ToolOp) and op.tool == tool and request is not None:
                if not open_:
                    return None
                open_ = False
            decided = status.value == "success" or op.code == WHEN
            if op.step_id == step_id and edge_of(extra) == label and decided:
                open_ = True
        return open_

    def holds(run: ExploredRun) -> bool:
        return frame(run.tree, False) is not None

    return {f"{tool} is called only after {branch}": holds}


# --- the search -----------------------------------------------------------------------------------


class Tally:
    """Which edges of the flow runs took."""

    def __init__(self, plan: Plan, flow: Flow) -> None:
        self.edges = Edges(plan, flow)
        self.flow = flow
        self.taken = [0] * len(flow.nodes)  # bits by edge
        self.reached = [False] * len(flow.nodes)

    def add(self, machine: Machine, fresh: int) -> bool:
        """Take in what a run did since its record *fresh*; whether anything was new."""
        new = False
        taken, reached = self.taken, self.reached
        for took in self.edges.of(machine, fresh):
            node, edge = took.node, took.edge
            if not reached[node]:
                reached[node] = new = True
            if edge >= 0 and not taken[node] & 1 << edge:
                taken[node] |= 1 << edge
                new = True
        return new

    def coverage(self) -> Coverage:
        """What was reached: a step that can be entered in several ways counts once, and so does
        each of its branches.
        """
        steps: dict[tuple[int, str], tuple[str, bool]] = {}
        passed: dict[tuple[int, str], bool] = {}
        branches: dict[tuple[tuple[int, str], str], bool] = {}
        for node in self.flow.nodes:
            if node.kind not in ("step", "when", "test"):
                continue
            key = (id(node.frame.names), node.step.id)
            reached = (self.reached[node.index] and node.kind != "when") or steps.get(
                key, ("", False)
            )[1]
            steps[key] = (_name_of(node), reached)
            passed[key] = passed.get(key, False) or any(
                self.taken[node.index] >> number & 1 and edge.label not in _FAILING
                for number, edge in enumerate(node.edges)
            )
            for number, edge in enumerate(node.edges):
                if edge.label in _PLAIN:
                    continue
                by = self.flow.nodes[edge.by] if edge.by >= 0 else node
                label = f"catch {'|'.join(edge.errors)}" if edge.label == "catch" else edge.label
                branch = ((id(by.frame.names), by.step.id), label)
                branches[branch] = branches.get(branch, False) or bool(
                    self.taken[node.index] >> number & 1
                )
        missed = [name for name, reached in steps.values() if not reached]
        missed += [
            f"{steps[key][0]}: {label}"
            for (key, label), taken in branches.items()
            if steps[key][1] and not taken
        ]
        return Coverage(
            steps=len(steps),
            steps_reached=sum(reached for _, reached in steps.values()),
            branches=len(branches),
            branches_taken=sum(branches.values()),
            missed=tuple(missed),
        )


_PLAIN = frozenset({"next", "error", "fork"})
_FAILING = frozenset({"error", "skip", "catch", "fork"})


def _name_of(node: Node) -> str:
    """The step's id, behind those of the calls that it stands in."""
    name, caller = node.step.id, node.frame.owner
    while caller is not None:
        if isinstance(caller.control, Calls):
            name = f"{caller.step.id}/{name}"
        caller = caller.frame.owner
    return name


def explore_plan(
    plan: Plan,
    flow: Flow,
    contracts: Mapping[str, ToolContract],
    *,
    properties: Mapping[str, Property] | None = None,
    inputs: Mapping[str, Any] | None = None,
    checks: Checks | None = None,
    budget: Budget | None = None,
    max_runs: int = DEFAULT_MAX_RUNS,
    errors: bool = True,
    orders: bool = False,
    cancels: bool = False,
) -> Exploration:
    """Run *plan* under all outcomes that `Choices` offers, or as many as *max_runs* allows.

    *checks* are those that the plan was compiled with, *budget* the tightest of all, the program's
    own unless given.
    """
    if type(max_runs) is not int or max_runs < 1:
        raise VMError(f"max_runs is a whole number of at least 1, not {max_runs!r}")
    choices = Choices(
        plan, flow, contracts, checks=checks, errors=errors, cancels=cancels, orders=orders
    )
    runner = Runner(choices, inputs, budget)
    tally = Tally(plan, flow)
    judge = _Judge(_properties(properties))
    statuses: dict[str, int] = {}
    novel: deque[tuple[list[int], int, int]] = deque()
    rest: list[tuple[list[int], int, int]] = []
    prefix: list[int] = []
    complete = True
    runs = tries = 0
    picked = len(runner.inputs)
    checked = plan.frames[0].check is not None and inputs is None
    while True:
        tries += 1
        machine = runner.run(prefix)
        taken, sites = runner.taken, runner.sites
        last = len(taken)
        new = False
        if checked and not runner.fits():
            last = picked  # no such run, but the inputs may be completed to one
        else:
            runs += 1
            status = machine.status.value
            statuses[status] = statuses.get(status, 0) + 1
            new = tally.add(machine, runner.fresh)
            if judge.properties:
                judge.judge(runner)
        if last > MAX_CHOICES:
            last, complete = MAX_CHOICES, False
        for place in range(len(prefix), last):
            site = sites[place]
            for choice in range(1, len(site.outcomes)):
                if new or not site.tried >> choice & 1:
                    site.tried |= 1 << choice
                    novel.append((taken, place, choice))
                else:
                    rest.append((taken, place, choice))
        if not (novel or rest):
            break
        if runs >= max_runs or tries >= 4 * max_runs:
            complete = False
            break
        before, place, choice = novel.popleft() if novel else rest.pop()
        prefix = [*before[:place], choice]
    return Exploration(
        program=plan.name,
        runs=runs,
        complete=complete,
        coverage=tally.coverage(),
        statuses=dict(sorted(statuses.items())),
        failures=judge.failures(),
        broken=judge.counts,
        notes=tuple(dict.fromkeys(choices.notes)),
    )


def _properties(given: Mapping[str, Property] | None) -> dict[str, Property]:
    """Properties by what they say, each a function of a run."""
    remedy = "write properties=at_most('issue_refund', 1), or {'what it says': function}"
    properties: dict[str, Property] = by_name(given, "properties", remedy)
    for name, holds in properties.items():
        if not callable(holds):
            raise VMError(f"property {name!r} is a function of a run, not {short(holds)}; {remedy}")
    return properties


class _Judge:
    """Holds properties against runs, and keeps the shortest runs that break each."""

    def __init__(self, properties: Mapping[str, Property]) -> None:
        self.properties = list(properties.items())
        self.counts = dict.fromkeys(properties, 0)
        self.kept: dict[str, list[tuple[int, Broken]]] = {name: [] for name in properties}

    def judge(self, runner: Runner) -> None:
        """Ask every property about the run that *runner* has just made."""
        run = ExploredRun(runner)
        for name, holds in self.properties:
            reason = ""
            try:
                broken = holds(run) is False
            except AssertionError as error:
                # pytest adds what the values were
                broken, reason = True, str(error).partition("\n")[0]
            if broken:
                self.counts[name] += 1
                kept = self.kept[name]
                if len(kept) < SHOWN_RUNS or run.length < kept[-1][0]:
                    kept.append((run.length, Broken(name, run, reason)))
                    kept.sort(key=lambda entry: entry[0])
                    del kept[SHOWN_RUNS:]

    def failures(self) -> tuple[Broken, ...]:
        """The runs kept, property by property, the shortest first."""
        return tuple(broken for kept in self.kept.values() for _, broken in kept)


__all__ = [
    "DEFAULT_MAX_RUNS",
    "GRAIN_NS",
    "Branch",
    "Broken",
    "Checks",
    "Choices",
    "Coverage",
    "Edges",
    "Exploration",
    "ExploredRun",
    "Given",
    "Outcome",
    "Property",
    "Runner",
    "Site",
    "Tally",
    "Took",
    "ToolCall",
    "assumed",
    "at_most",
    "explore_plan",
    "held_before",
    "never",
    "only_after",
    "replay",
]
