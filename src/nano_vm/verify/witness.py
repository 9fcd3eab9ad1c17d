"""A run that breaks a statement: searched for along a path of the graph, found by executing the
machine, and kept to be shown.

A static pass says that a statement may be broken, and by which edges. `find_run` looks for outcomes
of calls under which a run takes them: it runs the real `Machine` from the start again and again,
each time with one choice changed, and goes on from the runs that followed the path furthest. Where
a run leaves the path at a branch, choices that the branch reads are changed first, the latest
before the others; where the path takes an error, the outcome of that call. The same candidates as
the all-paths test's (`nano_vm.explore`), so that not to find a run proves nothing.

The search is best-first over the tree of choices (the generational search of P. Godefroid, M.
Levin, D. Molnar, "Automated Whitebox Fuzz Testing", NDSS 2008, with candidate values in place of a
solver). It is deterministic and bounded by a number of runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from typing import Any

from ..explore.samples import TEXT, Checks
from ..explore.tree import GRAIN_NS, Branch, Choices, Edges, ExploredRun, Given, Runner, Site, Took
from ..language.flow import Flow, Node
from ..machine.machine import Machine
from ..machine.plan import FORK, Plan
from ..tools.contract import ToolContract
from ..values import short
from .report import Marks

DEFAULT_BUDGET_RUNS = 2_000
"""Runs of one search: a tenth of a second for a program of 20 steps."""

MAX_EFFORT = 200_000
"""Steps and outcomes of all searches of one `Search` together, about half a second: whoever waits
for a verdict has it before.
"""

MAX_OUTCOMES = 50_000
"""Outcomes of all runs of one search together: what 2,000 runs of a program of 25 calls have; a
longer program gets fewer runs.
"""

MAX_VARIED = 400
"""Choices of one run that are varied: what a loop of many iterations makes beyond is left as it is.
"""

MARK = "«secret»"
"""What stands in the place of a value that the statement is about, where any text may."""

MAX_ARRIVAL_CHARS = 400

CANCEL = "cancel"
"""The label that ends a path on which the run is cancelled."""


@dataclass(frozen=True, slots=True)
class Witness:
    """A run that was executed and breaks the statement ``goal``."""

    goal: str
    run: ExploredRun
    arrival: str = ""  # in words, what the receiver that the statement is about was given

    @property
    def inputs(self) -> dict[str, Any]:
        """The inputs of the run."""
        return self.run.inputs

    @property
    def outcomes(self) -> list[Given]:
        """What each call got, in the order in which they were made."""
        return self.run.given

    @property
    def branches(self) -> list[Branch]:
        """The branches that were taken, with the values that decided them."""
        return self.run.branches

    def replay(self, plan: Plan | None = None) -> Machine:
        """The ended root machine of the same run, executed again on *plan*, or on the one that it
        was found with.
        """
        return self.run.replay(plan)

    def text(self) -> str:
        """The run for people: inputs, outcomes, branches, its end, and what arrived."""
        return "\n".join(filter(None, (self.run.text(), self.arrival)))

    def to_dict(self) -> dict[str, Any]:
        """The JSON form; `Given.from_dict` reads the outcomes back."""
        arrived = {"arrival": self.arrival} if self.arrival else {}
        return {"goal": self.goal, **self.run.to_dict(), **arrived}


def find_run(
    plan: Plan,
    flow: Flow,
    goal: str,
    *,
    breaks: Callable[[Machine], bool],
    prefer: Sequence[tuple[int, str]] = (),
    contracts: Mapping[str, ToolContract] | None = None,
    inputs: Mapping[str, Any] | None = None,
    checks: Checks | None = None,
    budget_runs: int = DEFAULT_BUDGET_RUNS,
) -> Witness | None:
    """A run that *breaks* the statement *goal*, or None where none was found within *budget_runs*
    or `MAX_OUTCOMES`.

    *prefer* is a path through the flow, node and edge label, that runs are steered along; one that
    breaks the statement elsewhere is as good. *breaks* is asked about the ended root machine of
    every run. *contracts* tell the types of tools, *checks* are a policy's value checks that the
    plan was compiled with.
    """
    return Search(plan, flow, contracts, inputs, checks).find(
        goal, breaks=breaks, prefer=prefer, budget_runs=budget_runs
    )


class Search:
    """Searches for several runs of one plan: what may come back from its calls is made up once."""

    def __init__(
        self,
        plan: Plan,
        flow: Flow,
        contracts: Mapping[str, ToolContract] | None = None,
        inputs: Mapping[str, Any] | None = None,
        checks: Checks | None = None,
        effort: int = MAX_EFFORT,
    ) -> None:
        self.effort = effort
        self.plan = plan
        self.flow = flow
        self.contracts = contracts or {}
        self.inputs = inputs
        self.checks = checks
        self.edges = Edges(plan, flow)
        self.runners: dict[bool, Runner] = {}
        self.marking: dict[bool, Runner] = {}  # likewise, whose outcomes have marks

    def runner(self, cancels: bool) -> Runner:
        """The one that cancels runs, or that does not."""
        return self._runner(cancels, self.runners)

    def _runner(self, cancels: bool, runners: dict[bool, Runner]) -> Runner:
        if cancels not in runners:
            choices = Choices(
                self.plan,
                self.flow,
                self.contracts,
                checks=self.checks,
                cancels=cancels,
                orders=True,
            )
            runners[cancels] = Runner(choices, self.inputs)
        return runners[cancels]

    def marked(
        self,
        found: Witness,
        taken: Sequence[int],
        breaks: Callable[[Machine], bool],
        marks: Marks,
        *,
        cancels: bool,
    ) -> Witness:
        """The same run with `MARK` in what comes from where *marks* says, and how it arrives; *found*
        itself where the run then goes another way.
        """
        runner = self._runner(cancels, self.marking)
        fixed = self.runners[cancels].fixed
        runner.fix(
            {
                name: _with_mark(value) if name in marks.inputs else value
                for name, value in fixed.items()
            }
        )
        runner.run(taken)
        changed = list(taken)
        for place, site in enumerate(runner.sites):
            outcome = site.outcomes[taken[place]]
            asked = site.name in marks.inputs if place < len(runner.inputs) else False
            if (asked or site.node in marks.nodes) and outcome.kind in _VALUES:
                site.outcomes.append(replace(outcome, value=_with_mark(outcome.value)))
                changed[place] = len(site.outcomes) - 1
        machine = runner.run(changed)
        run = ExploredRun(runner)
        arrived = short(marks.given(run), MAX_ARRIVAL_CHARS)
        same = machine.status is found.run.machine.status and len(runner.taken) == len(taken)
        if not (same and runner.fits() and breaks(machine) and MARK in arrived):
            return found
        return Witness(found.goal, run, f"{marks.what} is given: {arrived}")

    def find(
        self,
        goal: str,
        *,
        breaks: Callable[[Machine], bool],
        prefer: Sequence[tuple[int, str]] = (),
        budget_runs: int = DEFAULT_BUDGET_RUNS,
        marks: Marks | None = None,
    ) -> Witness | None:
        """As `find_run`; with *marks* the run is shown with them."""
        cancels = bool(prefer) and prefer[-1][1] == CANCEL
        runner = self.runner(cancels)
        path = [(node, label) for node, label in prefer if label != CANCEL]
        checked = self.plan.frames[0].check is not None and self.inputs is None
        # by how much of the path is left, then by how far-fetched the choices are, then by age
        heap: list[tuple[int, int, int, list[int], int, int]] = []
        prefix: list[int] = []
        cost = serial = spent = 0
        for _ in range(budget_runs if self.effort >= 0 else 0):
            machine = runner.run(prefix)
            taken, sites = runner.taken, runner.sites
            self.effort -= runner.terms.ledger.steps - machine.ledger.steps + len(taken)
            fits = not checked or runner.fits()
            if fits and breaks(machine):
                witness = Witness(goal, ExploredRun(runner))
                if marks is not None:
                    witness = self.marked(witness, taken, breaks, marks, cancels=cancels)
                _ = witness.outcomes  # made while the runner still is where it is
                return witness
            left, relevant = self._left(path, machine, runner.choices)
            last = min(len(taken), MAX_VARIED) if fits else len(runner.inputs)
            for place in reversed(range(len(prefix), last)):
                site = sites[place]
                near, erring = relevant(site)
                for choice in range(1, len(site.outcomes)):
                    serial += 1
                    more = cost + _far_fetched(site, choice, near, erring, done=left == 0)
                    heappush(heap, (left, more, serial, taken, place, choice))
            spent += len(taken)
            if not heap or spent > MAX_OUTCOMES or self.effort < 0:
                return None
            _, cost, _, before, place, choice = heappop(heap)
            prefix = [*before[:place], choice]
        return None

    def _left(
        self, path: Sequence[tuple[int, str]], machine: Machine, choices: Choices
    ) -> tuple[int, Callable[[Site], tuple[bool, bool]]]:
        """How much of *path* the run did not take, and which sites decide at the place where it
        left the path.
        """
        if not path:
            return 0, _nothing
        took = sorted(self.edges.of(machine), key=_when)
        at = done = 0
        missed: tuple[int, str] | None = None
        for node, label in path:
            found = next((i for i in range(at, len(took)) if _is(took[i], node, label)), None)
            if found is not None:
                at, done = found + 1, done + 1
            elif label in _PASSING:
                done += 1  # what leaves no record is no turning
            else:
                missed = (node, label)
                break
        if missed is None:
            return 0, _nothing
        return len(path) - done, self._relevant(self.flow.nodes[missed[0]], missed[1], choices)

    def _relevant(
        self, node: Node, label: str, choices: Choices
    ) -> Callable[[Site], tuple[bool, bool]]:
        """Whether a site decides if the edge *label* of *node* is taken, and whether by an error of
        its own.
        """
        sources = choices.questions.sources(node.frame.names, node.step)
        nodes = {node.index}
        if self.plan.ops[node.index].code == FORK and label in ("catch", "skip", "error"):
            inside = {id(frame) for frame in node.frames}
            for other in self.flow.nodes:  # frames inside come after those around them
                if id(other.frame) in inside:
                    nodes.add(other.index)
                    inside |= {id(frame) for frame in other.frames}
        wanted = label in ("catch", "skip", "error")
        return lambda site: (
            site.source in sources or (wanted and site.node in nodes),
            wanted and site.node in nodes,
        )


_PASSING = frozenset({"", "next", "fork"})


def _when(took: Took) -> int:
    return took.at % GRAIN_NS  # not by time: children of a fork run at the same time


def _is(took: Took, node: int, label: str) -> bool:
    return took.node == node and (took.label == label or not label)


_VALUES = ("value", "input", "answer", "arrived")
"""Kinds of outcomes that hold a value."""


def _with_mark(value: Any) -> Any:
    """*value* with `MARK` where it holds any text, or nothing."""
    if type(value) is dict:
        return {name: _with_mark(part) for name, part in value.items()} or {"value": MARK}
    if type(value) is list:
        return [_with_mark(part) for part in value] or [MARK]
    return MARK if value is None or value == TEXT else value


def _nothing(site: Site) -> tuple[bool, bool]:
    return False, False


def _far_fetched(site: Site, choice: int, near: bool, erring: bool, *, done: bool) -> int:
    """What a change of a choice costs: nothing where the path asks for it."""
    kind = site.outcomes[choice].kind
    failing = kind in ("error", "timeout")
    if near and kind != CANCEL and failing <= erring:
        return 0
    if kind == CANCEL:
        return 1 if done else 6
    if kind == "order":
        return 1 if done else 3
    return 4 if failing else 2


__all__ = ["DEFAULT_BUDGET_RUNS", "Search", "Witness", "find_run"]
