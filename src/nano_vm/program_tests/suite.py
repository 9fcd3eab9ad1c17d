"""The tests of one file: each is run and judged, and together they cover part of their program.

A `Document` and a `Subject` come in, a `Verdict` for each test goes out. Golden files are read, and
written only where that is asked for; nothing else is touched.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from ..diagnostics import Loc, format_loc
from ..errors import ProgramError, VMError
from ..explore.search import (
    MAX_CHOICES,
    Coverage,
    Edges,
    Property,
    Tally,
    at_most,
    never,
    only_after,
)
from ..language.reader import marks
from ..machine.compile import plan_of
from ..machine.machine import Machine
from ..machine.plan import Plan
from ..run.inputs import admitted_inputs
from ..testing import explore
from .document import Case, Document, PropertyCase
from .execute import Ran, Subject, execute
from .expect import Difference, differences
from .golden import changed_lines, golden_text


@dataclass(frozen=True, slots=True)
class Test:
    """One test of a file, and where it stands."""

    name: str
    case: Case | PropertyCase
    loc: Loc
    line: int


@dataclass(slots=True)
class Verdict:
    """What came of one test: lines that say what is wrong, none where it passed."""

    test: Test
    faults: list[str] = field(default_factory=list)
    steps: int = 0
    seconds: float = 0.0
    updated: bool = False

    @property
    def passed(self) -> bool:
        """Whether all is as expected."""
        return not self.faults


class Suite:
    """The tests of the file *path*, whose text is *text*."""

    def __init__(self, path: Path, text: str, document: Document, subject: Subject) -> None:
        self.path = path
        self.document = document
        self.subject = subject
        self._places = marks(text)
        self.runs: list[tuple[Machine, Plan]] = []

    @cached_property
    def tests(self) -> list[Test]:
        """In the order of the file, properties last."""
        return [
            Test(case.name, case, (section, number), self._places.get((section, number), (1, 1))[0])
            for section in ("tests", "properties")
            for number, case in enumerate(getattr(self.document, section))
        ]

    def run(self, test: Test, *, update: bool = False) -> Verdict:
        """Run one test; with *update* a golden file that differs is written anew."""
        begun = time.perf_counter()
        verdict = Verdict(test)
        case = test.case
        if isinstance(case, PropertyCase):
            verdict.faults = list(self._explored(test, case))
        else:
            self._tried(case, verdict, update)
        verdict.seconds = time.perf_counter() - begun
        return verdict

    def _tried(self, case: Case, verdict: Verdict, update: bool) -> None:
        inputs = {**self.document.inputs, **case.inputs}
        try:
            ran = execute(self.subject, case, inputs, self._real(case))
        except (ValueError, VMError) as error:
            verdict.faults = [self._said(verdict.test, Difference((), str(error)))]
            return
        if ran.machine is not None and ran.plan is not None:
            self.runs.append((ran.machine, ran.plan))
        verdict.steps = len(ran.trace.steps)
        if ran.unanswered is not None:
            found = [Difference((), ran.unanswered)]
        else:
            found = [
                Difference(("expect", *one.loc), one.message)
                for one in differences(case.expect, ran)
            ]
            found += [Difference((), left) for left in ran.answers.left()]
        verdict.faults = [self._said(verdict.test, one) for one in found]
        if case.golden is not None and ran.unanswered is None:
            self._golden(case.golden, ran, verdict, update)

    def _real(self, case: Case) -> frozenset[str]:
        """The tools that the test calls in earnest."""
        wanted = self.document.real_tools if case.real_tools is None else case.real_tools
        if isinstance(wanted, bool):
            return frozenset(self.subject.functions) if wanted else frozenset()
        return frozenset(wanted)

    def _golden(self, name: str, ran: Ran, verdict: Verdict, update: bool) -> None:
        file = self.path.parent / name
        new = golden_text(ran)
        try:
            kept = file.read_text(encoding="utf-8") if file.exists() else None
            if kept == new:
                return
            if update:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(new, encoding="utf-8")
                verdict.updated = True
                return
        except (OSError, UnicodeDecodeError) as error:
            verdict.faults.append(self._said(verdict.test, Difference(("golden",), str(error))))
            return
        if kept is None:
            message = f"there is no {name} yet; write it with --update"
            verdict.faults.append(self._said(verdict.test, Difference(("golden",), message)))
            return
        message = f"the run is not that of {name}; if it may differ, write it anew with --update"
        verdict.faults.append(self._said(verdict.test, Difference(("golden",), message)))
        verdict.faults += [f"  {line}" for line in changed_lines(kept, new)]

    def _explored(self, test: Test, stated: PropertyCase) -> Iterator[str]:
        """The shortest run that breaks each property, and whether runs were left out: a property
        holds of every run, or is not shown to hold.
        """
        properties: dict[str, Property] = {}
        for tool, count in stated.at_most.items():
            properties |= at_most(tool, count)
        for tool in stated.never:
            properties |= never(tool)
        for tool, edge in stated.only_after.items():
            properties |= only_after(tool, edge)
        try:
            found = explore(
                self.subject.program,
                tools=self.subject.functions or None,
                policy=self.subject.policy,
                programs=self.subject.programs,
                properties=properties,
                inputs=stated.inputs,
                errors=stated.errors,
                max_runs=stated.max_runs,
            )
        except ProgramError as error:
            yield from (str(d) for d in error.diagnostics)
            return
        except VMError as error:
            yield self._said(test, Difference((), str(error)))
            return
        unfit = list(self._unfit(stated))
        yield from (self._said(test, one) for one in unfit)
        if unfit:
            return  # what holds of runs that no host would begin holds of nothing
        yield from (line for failure in found.failures for line in failure.text().splitlines())
        if not found.complete:
            message = (
                f"the search was cut off after {found.runs:,} runs, and the others may break the "
                f"property: max_runs is {stated.max_runs:,}, and {MAX_CHOICES:,} choices of a run "
                f"are varied; raise max_runs, give inputs, or write errors: false"
            )
            yield self._said(test, Difference(("max_runs",), message))

    def _unfit(self, stated: PropertyCase) -> Iterator[Difference]:
        """What is wrong with the inputs that every run of a property is given."""
        if stated.inputs is None:
            return
        plan = _plan(self.subject)
        if plan is None:
            return
        names = self.subject.flow.frames[0].names
        _, faults = admitted_inputs(stated.inputs, plan.frames[0], names, plan.given)
        yield from (Difference(("inputs", *d.loc[1:]), d.message) for d in faults)

    def _said(self, test: Test, one: Difference) -> str:
        """A difference behind its place."""
        loc = (*test.loc, *one.loc)
        at = loc
        while at and at not in self._places:
            at = at[:-1]
        line, column = self._places.get(at, (1, 1))
        field = f"{format_loc(one.loc)}: " if one.loc else ""
        return f"{self.path}:{line}:{column}: {field}{one.message}"


def coverage(suites: Sequence[Suite]) -> Coverage | None:
    """What the tests of *suites*, all of one program, reached of it in the runs that were made;
    None where none of them lets it run.
    """
    tally = next((found for suite in suites if (found := _tally(suite.subject)) is not None), None)
    if tally is None:
        return None
    for suite in suites:
        for machine, plan in suite.runs:
            tally.edges = Edges(plan, tally.flow)  # its own: other rules, another plan
            tally.add(machine, 0)
    return tally.coverage()


def _tally(subject: Subject) -> Tally | None:
    """An empty one of what *subject* may reach; None where its program may not run."""
    plan = _plan(subject)
    return Tally(plan, subject.flow) if plan is not None else None


def _plan(subject: Subject) -> Plan | None:
    """That of its program; None where it may not run."""
    examined = subject.examined()
    if any(d.severity == "error" for d in examined.report.faults):
        return None
    return plan_of(subject.flow, examined.contracts, examined.checks)
