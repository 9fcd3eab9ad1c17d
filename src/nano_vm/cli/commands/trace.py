"""``nano-vm trace``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .. import completion
from ..faults import OK, Failure, UsageFault
from ..grammar import Group, Options, argument, command
from ..output import say
from ..stdin import STDIN, standard_input
from ..text import diagnostic_lines, safe, shown

if TYPE_CHECKING:
    from ...records.trace import Trace


@click.command(cls=Group)
def trace() -> None:
    """Show what a recorded run did, and why."""


@command(examples="nano-vm trace show run.json")
@argument("file", help="a trace in JSON (- is standard input)", shell_complete=completion.files)
def show(options: Options) -> int:
    """
    Show a trace: steps, why each branch was taken, attempts and errors.

    The file is what 'run --trace' or 'run --json' wrote. One that was changed or cut is refused.
    """
    from ...records.secrecy import shown_to
    from ..summary import DETAIL_CHARS, print_steps, summary_lines

    shown_trace = shown_to("show", _read(options.file))
    say(
        safe(
            f"{shown_trace.program_name}, run {shown_trace.run_id}, {shown_trace.started_at:%Y-%m-%d %H:%M:%S} UTC"
        )
    )
    say(safe(f"program {shown_trace.program_digest}"))
    for name, value in shown_trace.inputs.items():
        say(f"input {safe(name)}: {shown(value, DETAIL_CHARS)}")
    print_steps(shown_trace)
    for line in diagnostic_lines(shown_trace.diagnostics):
        say(line)
    if shown_trace.error is not None and not shown_trace.diagnostics:
        say(f"error: {safe(shown_trace.error)}")
    for waiting in shown_trace.waiting:
        say(f"waiting: {shown(waiting, DETAIL_CHARS)}")
    for line in summary_lines(shown_trace):
        say(line)
    say(f"seal {shown_trace.seal}")
    return OK


def _read(path: str) -> Trace:
    from ...errors import TraceError
    from ...records.trace import Trace

    try:
        data = standard_input("the trace").read() if path == STDIN else Path(path).read_bytes()
        return Trace.from_json(data)
    except OSError as error:
        raise UsageFault(f"cannot read {path}: {error.strerror}") from None
    except TraceError as error:
        raise Failure(f"{path}: {error}") from None
    except (ValueError, RecursionError) as error:
        # a NUL in the name, nesting beyond what can be hashed
        raise Failure(f"{path}: {error}") from None


trace.add_command(show)
