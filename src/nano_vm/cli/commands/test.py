"""``nano-vm test``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...errors import MissingExtra, ProgramError
from .. import completion
from ..faults import FAILED, OK, USAGE, UsageFault
from ..grammar import Options, argument, command, flag, option
from ..output import OutputFile, emit_json, note, only_ours, say
from ..parameters import file_option, takes_json
from ..text import safe

if TYPE_CHECKING:
    from ...explore.search import Coverage
    from ...program_tests.suite import Suite, Verdict

EXAMPLES = """\
nano-vm test
nano-vm test refund.test.yaml -k refunded
nano-vm test --min-coverage 90 --junit report.xml
nano-vm test --update     (writes golden files anew)
"""

SHOWN_MISSED = 20
"""Steps and branches that no test reaches, of a program: as many are listed."""


@command(examples=EXAMPLES)
@argument(
    "paths",
    nargs=-1,
    help="test files, or folders that hold some; default: the current folder",
    shell_complete=completion.tests,
)
@option(
    "-k",
    "--only",
    metavar="TEXT",
    help="only tests whose names contain TEXT",
    shell_complete=completion.tested,
)
@flag("-x", "--exitfirst", help="stop at the first test that fails")
@flag("--update", help="write golden files that differ")
@file_option("--junit", help="write a JUnit report")
@option(
    "--min-coverage",
    type=click.FloatRange(0, 100),
    metavar="PERCENT",
    help="fail where tests reach less of a program's steps and branches",
)
@takes_json("print the result as JSON")
def test(options: Options) -> int:
    """
    Run the tests of programs that stand in files NAME.test.yaml, and say what they cover.

    A test gives the inputs and what models, tools and people answer, by step, and states what is
    expected of the run. No model is asked; a tool is called only where the test file says so under
    real_tools. Waits take no time. docs/how-to/test-programs.md has all fields.
    """
    from ..program_tests import test_files

    files = test_files(options.paths or ["."])
    if not files:
        where = ", ".join(options.paths) or "this folder"
        note(safe(f"nano-vm: there is no test in {where}: no file is called NAME.test.yaml"))
        return USAGE
    report = None if options.junit is None else OutputFile(options.junit, "--junit: ")
    try:
        with only_ours(options.json):
            tried = _Tried(options)
            for path in files:
                if not tried.file(path):
                    break
            tried.cover()
        if report is not None:
            from ...program_tests.junit import junit_xml

            report.stream.write(junit_xml(tried.verdicts, tried.errors).encode())
            report.commit()
    finally:
        if report is not None:
            report.close()
    if options.json:
        emit_json(tried.to_dict())
    return OK if tried.ok else FAILED


@dataclass(slots=True)
class _Tried:
    """What came of the files so far; each is printed as soon as it is known."""

    options: Options
    verdicts: dict[str, list[Verdict]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    suites: dict[Path, list[Suite]] = field(default_factory=dict)
    covered: dict[str, Coverage] = field(default_factory=dict)
    short: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether everything passed."""
        failed = any(not one.passed for found in self.verdicts.values() for one in found)
        return not (failed or self.errors or self.short)

    def file(self, path: Path) -> bool:
        """Run the tests of a file; false where no more are to be run."""
        from ..program_tests import suite_in, written

        self.say(safe(str(path)))
        try:
            file = written(path)
            suite = suite_in(file)
        except ProgramError as error:
            return self.broken(path, [str(d) for d in error.diagnostics])
        except (UsageFault, MissingExtra) as error:
            return self.broken(path, [str(error)])
        assert file.program is not None  # else it has no suite
        self.suites.setdefault(file.program, []).append(suite)
        found = self.verdicts[str(path)] = []
        for one in suite.tests:
            if self.options.only is not None and self.options.only not in one.name:
                continue
            verdict = suite.run(one, update=self.options.update)
            found.append(verdict)
            self.told(verdict)
            if self.options.exitfirst and not verdict.passed:
                return False
        return True

    def broken(self, path: Path, lines: list[str]) -> bool:
        """A file that cannot be tried."""
        self.errors[str(path)] = "\n".join(lines)
        for line in lines:
            self.say(f"  {safe(line)}")
        return not self.options.exitfirst

    def told(self, verdict: Verdict) -> None:
        """A line of a test, and what is wrong with it below."""
        word = "ok" if verdict.passed else "FAILED"
        rest = " (golden file written)" if verdict.updated else ""
        self.say(f"  {word:6}  {safe(verdict.test.name)}{rest}")
        for line in verdict.faults:
            self.say(f"          {safe(line)}")

    def cover(self) -> None:
        """What the tests reached of each program."""
        from ...program_tests.suite import coverage

        passed = sum(one.passed for found in self.verdicts.values() for one in found)
        failed = sum(map(len, self.verdicts.values())) - passed
        counts = [f"{passed} passed"] + [f"{failed} failed"] * bool(failed)
        counts += [f"{len(self.errors)} not readable"] * bool(self.errors)
        for path, suites in self.suites.items():
            found = coverage(suites)
            if found is None:
                self.refused(str(path))
                continue
            self.covered[str(path)] = found
            self.say(safe(f"{path}: {found}"))
            for missed in found.missed[:SHOWN_MISSED]:
                self.say(safe(f"  not reached: {missed}"))
            if len(found.missed) > SHOWN_MISSED:
                self.say(f"  not reached: {len(found.missed) - SHOWN_MISSED} more")
            self.judge(str(path), found)
        self.say(", ".join(counts))

    def refused(self, path: str) -> None:
        """A program that may run under none of its test files: nothing of it is covered."""
        least, why = self.options.min_coverage, ""
        if least:
            self.short.append(path)
            why = f", and --min-coverage is {least:g}"
        self.say(safe(f"{path}: nothing is covered: the program is refused{why}"))

    def judge(self, path: str, found: Coverage) -> None:
        """Whether enough is covered."""
        least, share = self.options.min_coverage, percent(found)
        if least is not None and share < least:
            self.short.append(path)
            self.say(safe(f"{path}: {share:.1f} % covered, and --min-coverage is {least:g}"))

    def say(self, text: str) -> None:
        """A line for people, unless JSON is asked for."""
        if not self.options.json:
            say(text)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "ok": self.ok,
            "files": [
                {
                    "file": file,
                    "tests": [
                        {
                            "name": one.test.name,
                            "line": one.test.line,
                            "passed": one.passed,
                            "faults": one.faults,
                            "steps": one.steps,
                            "updated": one.updated,
                        }
                        for one in found
                    ],
                }
                for file, found in self.verdicts.items()
            ],
            "errors": self.errors,
            "coverage": {
                path: {**found.to_dict(), "percent": round(percent(found), 1)}
                for path, found in self.covered.items()
            },
        }


def percent(found: Coverage) -> float:
    """How much of the steps and branches is reached."""
    every = found.steps + found.branches
    return 100 * (found.steps_reached + found.branches_taken) / every if every else 100.0
