"""``nano-vm trace show``: what a recorded run did, and why it took its path."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from ..records.trace import StepResult, Trace, TraceError
from .faults import Failure, UsageFault
from .grammar import Options
from .run import summary_lines
from .text import OK, diagnostic_lines, safe, say, seconds, shorten, shown
from .view import heading, plain_row, rich_row

DETAIL_CHARS = 300  # of an attempt's error or a value that a condition read


def show(options: Options) -> int:
    """Print a trace file, if it is whole and unchanged."""
    trace = _read(options.file)
    say(safe(f"{trace.program_name}, run {trace.run_id}, {trace.started_at:%Y-%m-%d %H:%M:%S} UTC"))
    say(safe(f"program {trace.program_digest}"))
    for name, value in trace.inputs.items():
        say(f"input {safe(name)}: {shown(value, DETAIL_CHARS)}")
    _table(trace)
    for line in diagnostic_lines(trace.diagnostics):
        say(line)
    if trace.error is not None and not trace.diagnostics:
        say(f"error: {safe(trace.error)}")
    for waiting in trace.waiting:
        say(f"waiting: {shown(waiting, DETAIL_CHARS)}")
    for line in summary_lines(trace):
        say(line)
    say(f"seal {trace.seal}")
    return OK


def _read(path: str) -> Trace:
    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
        return Trace.from_json(data)
    except OSError as error:
        raise UsageFault(f"can not read {path}: {error.strerror}") from None
    except TraceError as error:
        raise Failure(f"{path}: {error}") from None
    except (ValueError, RecursionError) as error:
        # a NUL in the name, nesting beyond what can be hashed
        raise Failure(f"{path}: {error}") from None


def _table(trace: Trace) -> None:
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.text import Text

        console = Console()
        console.print(heading(console.width))
        for step in trace.steps:
            console.print(rich_row(step, console.width))
            for line in details(step):
                console.print(Text(f"  {line}", style="dim"))
        return
    for step in trace.steps:
        say(plain_row(step))
        for line in details(step):
            say(f"  {line}")


def details(step: StepResult) -> Iterator[str]:
    """Why the path went on as it did, and what failed before."""
    for name, value in (step.references or {}).items():
        yield f"because {safe(name)} = {shown(value, DETAIL_CHARS)}"
    if "by" in step.extra:
        yield f"by {safe(str(step.extra['by']))}"
    for number, attempt in enumerate(step.attempts, start=1):
        took = seconds((attempt.finished_ns - attempt.started_ns) / 1e6)
        answer = (
            f", answer {shown(attempt.answer, DETAIL_CHARS)}" if attempt.answer is not None else ""
        )
        yield (
            f"attempt {number} ({took}): {shorten(safe(str(attempt.error)), DETAIL_CHARS)}{answer}"
        )
    if step.extra.get("in_doubt"):
        yield f"in doubt: {shown(step.extra['in_doubt'], DETAIL_CHARS)}"
