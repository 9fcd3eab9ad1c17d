"""One program over a file of inputs, a line of results for each, and what it
came to.
"""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import ExitStack, closing
from typing import Any, Protocol

from ..records.trace import Trace
from ..run.batch.files import FileBatch
from ..run.batch.inputs import Input, Inputs
from ..run.batch.results import Results, ended_lines
from .faults import FAILED, OK, SUSPENDED, USAGE, Failure, UsageFault
from .grammar import Options
from .host import program_of, vm_of
from .output import complain, note, on_terminal, say
from .rules import read_budget
from .said import said_of
from .signals import stopped_by_signals
from .stdin import STDIN, claim_standard_input
from .stores import store_if_named
from .telemetry import observers_of
from .text import diagnostic_lines, dollars, safe, seconds, shorten

SHOWN_TOOLS = 5
"""Tools that are named before their effects are made again."""

SHOWN_FAILURES = 10
"""Failed inputs that are named at the end; the file has all."""


class Batch:
    """A program over a file of inputs."""

    def __init__(self, options: Options, stack: ExitStack) -> None:
        self.options = options
        self.budget = read_budget(options.budget)
        self.loaded, policy = program_of(options)
        if options.inputs == STDIN:
            claim_standard_input("the file of inputs")
        self.inputs = stack.enter_context(closing(Inputs(options.inputs)))
        self.store = store_if_named(options)
        observers = observers_of(options, self.store, stack)
        self.vm = vm_of(
            options,
            programs=self.loaded.programs,
            policy=policy,
            store=self.store,
            observers=observers,
        )
        stack.callback(self.vm.close)
        self.check()
        if options.restart:
            self.demand_consent()
        self.results = stack.enter_context(
            closing(
                Results(
                    options.output,
                    self.digest(),
                    self.inputs,
                    restart=options.restart,
                    ordered=options.ordered,
                )
            )
        )
        self.files = FileBatch(
            self.vm,
            self.loaded.program,
            self.inputs,
            self.results,
            fresh=options.restart,
            retry_failed=options.retry_failed,
        )
        self.total, self.before = self.files.total, self.files.before
        self.view: View = _view(self)
        self.failures: list[str] = []
        self.received: list[int] = []
        self.began = time.monotonic()

    def check(self) -> None:
        """Print warnings; raises if no input can make the program run."""
        found = self.vm.check(self.loaded.program)
        errors = [d for d in found if d.severity == "error"]
        shown = errors or [*self.loaded.warnings(), *(d for d in found if d.severity != "error")]
        for line in diagnostic_lines(self.loaded.placed(shown)):
            note(line)
        if errors:
            raise Failure("refused: no input was run")

    def demand_consent(self) -> None:
        """Say what beginning anew does, and ask whether it is meant, where it would make effects
        again.

        Raises:
            UsageFault: If nobody has said yes.
        """
        count = ended_lines(self.options.output)
        effects = sorted(
            name
            for name in self.vm.plan(self.loaded.program).tools
            if self.vm.tools[name].effect != "read"
        )
        if not count or not effects or self.options.yes:
            return
        what = (
            f"--restart runs the inputs of {self.options.output} again, and {count:,} of them "
            f"ended before: what "
            f"{', '.join(effects[:SHOWN_TOOLS])}{', ...' * (len(effects) > SHOWN_TOOLS)} did for "
            f"them is done a second time"
        )
        if self.options.json or not on_terminal():
            raise UsageFault(
                f"{what}; give --yes if that is meant, or leave --restart out to go on "
                f"(--retry-failed for those that failed)"
            )
        note(what)
        try:
            answer = input("begin anew? [y/N] ")
        except EOFError:
            answer = ""
        if answer.strip().lower() not in ("y", "yes"):
            raise UsageFault("nothing was run")

    def digest(self) -> str:
        """The digest of the program with those that it calls."""
        from ..language.flow import Flow

        program = self.loaded.program
        return Flow(program, self.loaded.programs).digest or program.digest

    def run(self) -> tuple[int, dict[str, Any]]:
        """Run what has no result yet; the exit code, and what `--json` prints."""
        if self.results.cut:
            note(
                f"{self.options.output}: the last line was cut short and was removed; its input "
                f"is run again"
            )
        try:
            with asyncio.Runner() as runner:
                runner.run(self.executed())
        finally:
            self.view.close()
        return self.ended()

    async def executed(self) -> None:
        """Take signals, and go through the inputs."""
        task = asyncio.ensure_future(self.work())

        def cancel() -> None:
            self.cancel(task)

        farewell = "what was under way is unknown"
        with stopped_by_signals(self.stop, cancel, farewell=farewell) as self.received:
            await asyncio.wait([task])
        if not task.cancelled():
            task.result()

    def stop(self) -> None:
        """Take no more inputs."""
        if not self.inputs.stopped:
            self.inputs.stop()
            self.view.say(
                f"stopping: {len(self.files.taken)} under way end first; Ctrl-C again cancels them"
            )

    def cancel(self, task: asyncio.Task[None]) -> None:
        """Do not wait for what is under way."""
        self.view.say("cancelling what is under way, and undoing it; Ctrl-C again stops at once")
        task.cancel()

    async def work(self) -> None:
        """Run what has no result yet."""
        await self.files.work(
            self.show,
            concurrency=self.options.concurrency,
            budget=self.budget,
            untrusted=self.options.untrusted,
            **said_of(self.options, kept=self.store is not None),
        )

    def show(self, given: Input, result: dict[str, Any], trace: Trace) -> None:
        """Show that an input has its result."""
        if result["status"] != "success" and len(self.failures) < SHOWN_FAILURES:
            why = result.get("error") or f"waits for {', '.join(w['kind'] for w in trace.waiting)}"
            self.failures.append(
                f"line {given.line}: {result['status']}: {shorten(safe(why), 300)}"
            )
        self.view.result()

    def ended(self) -> tuple[int, dict[str, Any]]:
        """Tell what it came to."""
        counts, took = self.results.counts, time.monotonic() - self.began
        for line in self.failures:
            note(line)
        if sum(counts.statuses[status] for status in UNSETTLED_STATUSES) > len(self.failures):
            note(f"{unsettled_text(counts)}: {self.options.output} has all")
        if counts.statuses["suspended"] and self.store is None:
            note("suspended runs were lost: only with --store can a run that waits go on")
        faults = [fault for fault in (self.results.fault, self.files.fault) if fault is not None]
        complete = self.files.complete
        interrupted = bool(self.received) and not complete
        for fault in faults:
            complain(fault)
        if self.results.unwritten:
            complain(_unwritten(self.results.unwritten))
        code = FAILED if counts.statuses["failed"] or counts.statuses["cancelled"] else OK
        if counts.statuses["suspended"]:
            code = code or SUSPENDED
        if interrupted:
            code = 128 + self.received[0]
        if faults:
            code = USAGE if self.files.misused else FAILED
        self.files.finish()
        if not self.options.json:
            self.tell(took)
        if interrupted or (faults and not self.files.misused):
            note(
                f"{self.options.output} has whole lines only; the same command goes on where it "
                f"stopped"
            )
        told = {
            "inputs": counts.total,
            **counts.statuses,
            "before": self.before,
            "complete": complete,
            "tokens": counts.tokens,
            "cost_usd": str(counts.cost) if not counts.unpriced else None,
            "fault": "; ".join(faults) or None,
            "seconds": round(took, 3),
            "output": self.options.output,
        }
        return code, told

    def tell(self, took: float) -> None:
        """The last line."""
        counts = self.results.counts
        done = counts.total - self.before + self.results.repeated
        of = f" of {self.total:,}" if self.total is not None and self.total != counts.total else ""
        kinds = ", ".join(
            f"{count:,} {name}"
            for name, count in counts.statuses.items()
            if count or name == "success"
        )
        parts = [f"{counts.total:,}{of} input{'s' * ((self.total or counts.total) != 1)}: {kinds}"]
        if self.before:
            before = self.before - self.results.repeated
            parts.append(f"{before:,} of them before" if done else "nothing was left to do")
        if counts.tokens:
            parts += [f"{counts.tokens:,} tokens", cost_text(counts)]
        if done:
            parts.append(f"{seconds(took * 1000)}, {rate_text(done, took)}")
        say("; ".join(parts))


def rate_text(count: int, took: float) -> str:
    """How many a second."""
    rate = count / max(took, 1e-3)
    return f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.1f}/s"


def cost_text(counts: Any) -> str:
    """What all results cost, as far as it is known."""
    return dollars(
        counts.cost if not counts.unpriced else None if not counts.cost else counts.cost
    ) + (f" and {counts.unpriced:,} of unknown cost" if counts.unpriced and counts.cost else "")


def _unwritten(lines: list[int]) -> str:
    shown = ", ".join(map(str, lines[:20])) + (
        f" and {len(lines) - 20} more" if len(lines) > 20 else ""
    )
    return (
        f"{len(lines)} run{'s' * (len(lines) != 1)} ended whose result could not be written: "
        f"line{'s' * (len(lines) != 1)} "
        f"{shown}; what they did is done, and another start runs them again unless there is a "
        f"--store"
    )


UNSETTLED_STATUSES = ("failed", "cancelled", "suspended")


def unsettled_text(counts: Any) -> str:
    """How many of the results are no success: ``2 of 12 failed``."""
    found = [
        (status, counts.statuses[status])
        for status in UNSETTLED_STATUSES
        if counts.statuses[status]
    ]
    texts = [f"{count:,} {status}" for status, count in found]
    first = f"{found[0][1]:,} of {counts.total:,} {found[0][0]}"
    return ", ".join([first, *texts[1:]])


class View(Protocol):
    """What shows how far it is."""

    def result(self) -> None:
        """One more."""
        ...

    def say(self, text: str) -> None:
        """A line meanwhile."""
        ...

    def close(self) -> None:
        """Nothing more comes."""
        ...


class Silent:
    """Shows nothing but lines."""

    def result(self) -> None:
        """Nothing."""

    def say(self, text: str) -> None:
        """Print it."""
        note(text)

    def close(self) -> None:
        """Nothing."""


class Bar:
    """A bar on stderr, with what is done, how fast, what it costs so far and how long it will
    take.
    """

    def __init__(self, work: Batch, console: Any) -> None:
        from rich.progress import (
            BarColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self.work = work
        columns = [BarColumn(bar_width=None), TextColumn("{task.fields[told]}")]
        columns += (
            [TextColumn("left"), TimeRemainingColumn()]
            if work.total is not None
            else [TimeElapsedColumn()]
        )
        self.progress = Progress(
            *columns,
            console=console,
            transient=True,
            expand=True,
            redirect_stdout=sys.stdout.isatty(),
        )
        self.began = time.monotonic()
        self.task = self.progress.add_task(
            "", total=work.total, completed=work.before, told=self.told()
        )
        self.progress.start()
        self.shown = 0.0

    def told(self) -> str:
        counts = self.work.results.counts
        of = f"/{self.work.total:,}" if self.work.total is not None else ""
        rate = rate_text(counts.total - self.work.before, time.monotonic() - self.began)
        parts = [f"{counts.total:,}{of}", rate]
        if counts.tokens:
            parts.append(cost_text(counts))
        if counts.total != counts.statuses["success"]:
            parts.append(unsettled_text(counts))
        return "  ".join(parts)

    def result(self) -> None:
        """Move on, at most as often as is drawn."""
        now = time.monotonic()
        if now - self.shown > 0.1:
            self.shown = now
            self.progress.update(
                self.task, completed=self.work.results.counts.total, told=self.told()
            )

    def say(self, text: str) -> None:
        """Print it above the bar."""
        self.progress.console.print(text, markup=False, highlight=False)

    def close(self) -> None:
        """Take the bar away."""
        self.progress.stop()


def _view(work: Batch) -> View:
    if sys.stderr.isatty():
        from rich.console import Console

        console = Console(stderr=True)
        if not console.is_dumb_terminal:
            return Bar(work, console)
    return Silent()
