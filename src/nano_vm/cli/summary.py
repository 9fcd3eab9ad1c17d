"""How a run is reported: a row for each step, why it took its path, how it ended, the exit code."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from ..records.result import StepResult
from ..records.status import StepStatus, TraceStatus
from ..records.trace import Trace
from .faults import FAILED, OK, SUSPENDED
from .output import say
from .rows import heading, plain_row, rich_row
from .text import SHOWN_OUTPUT_CHARS, dollars, safe, seconds, shorten, shown

DETAIL_CHARS = 300
"""Shown of an attempt's error, or of a value that a condition read."""


def exit_code(trace: Trace, signalled: int | None) -> int:
    """0 success, 1 failed, 3 suspended, 130 interrupted (128 and the number of the signal)."""
    if signalled is not None and trace.status is TraceStatus.CANCELLED:
        return 128 + signalled
    return {TraceStatus.SUCCESS: OK, TraceStatus.SUSPENDED: SUSPENDED}.get(trace.status, FAILED)


def summary_lines(trace: Trace) -> Sequence[str]:
    """How a run ended: its output, and a line with status, steps, tokens, cost, duration and
    digest.
    """
    lines = []
    if trace.final_output is not None:
        lines.append(f"output: {shown(trace.final_output, SHOWN_OUTPUT_CHARS)}")
    usage = trace.usage()
    count = len(trace.steps)
    parts = [trace.status.value, f"{count} step{'s' * (count != 1)}"]
    if any(step.type == "llm" for step in trace.steps):
        parts += [f"{usage.total_tokens} tokens", dollars(usage.cost_usd)]
    parts.append(seconds(trace.duration_ms))
    if trace.digest:  # it is hidden with what was said
        parts.append(f"digest {trace.digest}")
    lines.append(", ".join(parts))
    return lines


def doubt_lines(trace: Trace) -> Iterator[str]:
    """The calls that a run has left in doubt at its end; nobody is asked about them any more."""
    if trace.status is not TraceStatus.SUSPENDED:
        for step in trace.steps:
            if step.status is StepStatus.IN_DOUBT:
                yield safe(f"left in doubt: {step.path}: {shorten(step.error or '', DETAIL_CHARS)}")


def print_steps(trace: Trace) -> None:
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
