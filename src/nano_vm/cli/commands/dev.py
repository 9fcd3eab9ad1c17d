"""``nano-vm dev``."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...errors import MissingExtra, ProgramError, VMError
from ...tools.named import tools_file
from .. import completion
from ..faults import FAILED, OK, Failure, UsageFault
from ..grammar import ARGUMENTS, Options, command, flag, values
from ..output import say
from ..parameters import takes_host, takes_policy, takes_price, takes_program
from ..text import safe, shorten

if TYPE_CHECKING:
    from ..sources import Loaded

EXAMPLES = """\
nano-vm dev program.yaml
nano-vm dev refund.yaml --tools refund.py:tools --recorded run.json
nano-vm dev program.yaml --once     (one look, for scripts)
"""

SHOWN = 8
"""Lines of each part of a round: three parts fit a screen of 24 lines, mostly."""

COLOURS = {"ok": "green", "FAILED": "red", "gone": "yellow"}

Line = tuple[str, str, str]
"""What a line is about, how it stands (``ok``, ``FAILED`` or nothing), and what it says."""


@command(examples=EXAMPLES)
@takes_program
@takes_host
@takes_policy
@takes_price("for what a run can cost")
@values(
    "--recorded",
    metavar="FILE",
    help="a recorded run that is replayed on the program each time; repeat for more",
    shell_complete=completion.files,
)
@flag("--once", help="look once and leave, with exit code 1 where something is wrong")
def dev(options: Options) -> int:
    """
    Watch a program, its tools, policy and tests; on each save check, prove and test it again.

    It runs the test files beside the program (see 'test') and replays recorded runs: no model is
    asked, and no tool is called but those that a test file names. A file that is gone is waited
    for. Ctrl-C ends it.
    """
    if options.once:
        return _round(options)
    from ..signals import noted_signals
    from ..stdin import STDIN
    from ..watching import Watch, watch

    program = Path(options.program)
    if options.program == STDIN:
        raise UsageFault("dev watches a file, and standard input is none")
    if os.path.isdir(program):
        raise UsageFault(f"{program} is a folder; name the program in it")
    tools = tools_file(options.tools) if options.tools is not None else None
    named = [options.policy, options.host, *options.recorded, tools]
    files = [program, *(Path(name) for name in named if name is not None)]
    files += [Path(entry.partition("=")[2]) for entry in options.program_file]
    command_line = [sys.executable, "-m", "nano_vm", *_arguments(), "--once"]

    def begin(changed: list[str]) -> _Child:
        _head(options.program, changed)
        # in a session of its own: Ctrl-C is for the watch alone
        process = subprocess.Popen(  # noqa: S603 - this interpreter, with our own arguments
            command_line, stdin=subprocess.DEVNULL, start_new_session=True
        )
        return _Child(process)

    with noted_signals() as received:

        def wait(seconds: float) -> None:
            time.sleep(seconds)
            if received:  # not before: a round that has just begun would be left behind
                raise _Ended

        with suppress(_Ended):
            watch(Watch(program.parent, tuple(files)), begin, wait)
    say()
    return OK if received[0] == signal.SIGINT else 128 + received[0]


class _Ended(Exception):
    """A signal ends the watch."""


class _Child:
    """A round in a process of its own: tools are imported anew, and one that hangs is ended."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def stop(self) -> None:
        """End it."""
        if self.running():
            self._process.kill()
        self._process.wait()


def _arguments() -> list[str]:
    """The command line again, as Click was given it."""
    arguments: list[str] = click.get_current_context().find_root().meta[ARGUMENTS]
    return arguments


def _head(program: str, changed: list[str]) -> None:
    """A new screen on a terminal, and what the round is of."""
    if sys.stdout.isatty():
        click.clear()
    why = f" ({', '.join(Path(name).name for name in changed[:3])})" if changed else ""
    more = ", ..." if len(changed) > 3 else ""
    at = time.strftime("%H:%M:%S")
    say(_fitting(safe(f"{at} {program}{why}{more}")))


# --- one round ---


def _round(options: Options) -> int:
    """Look at everything once, and say how it stands."""
    failed = False
    try:
        for about, standing, text in _lines(options):
            failed = failed or standing == "FAILED"
            say(_line(about, standing, text))
    except (UsageFault, MissingExtra, Failure, VMError) as error:
        say(_line("check", "FAILED", str(error)))
        failed = True
    return FAILED if failed else OK


def _lines(options: Options) -> Iterator[Line]:
    from .. import sources

    if not os.path.isfile(options.program):
        yield "check", "FAILED", f"{options.program} is not there; it is waited for"
        return
    try:
        loaded = sources.load(options.program, options.program_file)
    except ProgramError as error:
        yield from _faults(error.diagnostics)
        return
    checked = list(_checked(loaded, options))
    yield from checked
    if any(standing == "FAILED" for _, standing, _ in checked):
        yield "tests", "", "not run: the program would be refused"
        return
    yield from _tested(options)
    yield from _replayed(loaded, options)


def _faults(found: Any) -> Iterator[Line]:
    shown = [d for d in found if d.severity != "hint"]
    for d in shown[:SHOWN]:
        hint = f"; {d.hint}" if d.hint else ""
        standing = "FAILED" if d.severity == "error" else ""
        yield "check", standing, f"{d.place}: {d.code}: {d.message}{hint}"
    if len(shown) > SHOWN:
        yield "check", "", f"and {len(shown) - SHOWN} more"


def _checked(loaded: Loaded, options: Options) -> Iterator[Line]:
    """What is wrong, what is proved, and the worst case."""
    from ...verify.summary import statuses, worst_case
    from .. import host, rules

    policy = rules.load_policy(options.policy)
    report = host.examined(loaded, policy, options)
    yield from _faults(loaded.placed([*loaded.warnings(), *report.diagnostics]))
    wrong = [proof for proof in report.proofs if proof.status != "proved"]
    for proof in wrong[:SHOWN]:
        yield "check", "FAILED", str(proof).partition("\n")[0]
    if not wrong and not any(d.severity == "error" for d in report.diagnostics):
        said = [*statuses(report.proofs), *list(worst_case(report))[:1]]
        yield "check", "ok", "; ".join(said) or "no faults"


def _tested(options: Options) -> Iterator[Line]:
    """What the test files of the program say."""
    from ...program_tests.suite import Suite, coverage
    from ..program_tests import suite_in, test_files, written

    program = Path(options.program).resolve()
    suites: list[Suite] = []
    passed = failed = 0
    for path in test_files([str(program.parent)]):
        try:
            file = written(path)
            if file.program is not None and file.program.resolve() != program:
                continue
            suites.append(suite_in(file))
        except ProgramError as error:
            found = [str(d) for d in error.diagnostics[:SHOWN]]
        except (UsageFault, MissingExtra) as error:
            found = [str(error)]
        else:
            verdicts = list(map(suites[-1].run, suites[-1].tests))
            passed += sum(verdict.passed for verdict in verdicts)
            found = [f"{one.test.name}: {one.faults[0]}" for one in verdicts if not one.passed]
        failed += len(found)
        yield from (("tests", "FAILED", fault) for fault in found)
    if suites:
        covered = coverage(suites) or "nothing is covered"
        yield "tests", "ok" if passed and not failed else "", f"{passed} passed; {covered}"


def _replayed(loaded: Loaded, options: Options) -> Iterator[Line]:
    """Whether recorded runs are still those of the program."""
    from ...replay import replay, subject_of
    from ..recorded import load_run

    for name in options.recorded:
        subject = subject_of(load_run(name, Options(store=None)), loaded.program, loaded.programs)
        run = subject.stored or subject.trace
        found = replay(run, subject.program, programs=subject.programs).shown_to("show")
        yield "replay", "ok" if found else "FAILED", f"{name}: {found}"


def _line(about: str, standing: str, text: str) -> str:
    """A line that fits the terminal; coloured where there are colours."""
    plain = _fitting(safe(f"{about:6} {standing:6} {text}"))
    if standing not in COLOURS or len(plain) < 14:
        return plain
    word = click.style(f"{standing:6}", fg=COLOURS[standing]) if _coloured() else f"{standing:6}"
    return f"{plain[:7]}{word}{plain[13:]}"


def _coloured() -> bool:
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return sys.stdout.isatty() and not plain


def _fitting(line: str) -> str:
    """*line* in one row of a terminal; as it is where there is none."""
    return shorten(line, shutil.get_terminal_size().columns) if sys.stdout.isatty() else line
