"""``nano-vm show``."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from ..faults import OK
from ..grammar import Options, command, flag
from ..output import emit, emit_json, note, say
from ..parameters import STORED, takes_cluster, takes_run, takes_store
from ..text import diagnostic_lines, safe, shown
from ..times import moment

if TYPE_CHECKING:
    from ...records.trace import Trace
    from ...store.records import StoredRun


@command(examples="nano-vm show 3f2a --store sqlite:///runs.db", footer=STORED)
@takes_run
@takes_store
@takes_cluster
@flag("--graph", help="draw the run on its graph, in a terminal that shows pictures")
def show(options: Options) -> int:
    """
    Show a run: what it did and why it took its path, and what it waits for, with the commands that
    answer it.

    An approval is given for what was shown: its digest stands with the request, and 'approve' is
    refused where the run asks something else by then.
    """
    from ...records.secrecy import NOTHING_SECRET, Levels, shown_to
    from ...run.durable.lease import living
    from ...run.durable.stored import trace_of
    from ...run.inbox import presented
    from ...store.records import ENDED
    from ..said import said_words
    from ..standing import header, message_json, standing_lines
    from ..stores import run_id_of, store_of
    from ..summary import DETAIL_CHARS, print_steps, summary_lines

    if options.engine is not None:
        from .. import cluster

        return cluster.show(options)
    with store_of(options, read=True) as store:
        run = store.load(run_id_of(store, options.run))
        owners = living(store)
    erased = run.salt is None
    if erased:
        run.inputs, run.about = {}, {}
    trace = shown_to("show", trace_of(run))
    levels = Levels.of(run.about) or NOTHING_SECRET
    hidden = levels.hides("show", levels.known)
    if options.json:
        waiting = presented(run.waiting) if run.status == "suspended" else []
        waiting = [levels.waiting("show", entry) for entry in waiting]
        told = header(run, owners) | {
            "waiting": waiting,
            "inbox": [message_json(message, hidden=hidden) for message in run.inbox],
        }
        emit_json(told | {"trace": None if erased else trace.to_dict(), "seal": run.seal})
        return OK
    say(safe(f"{run.program_name}, run {run.run_id}, {moment(run.created_ns)}"))
    say(safe(f"program {run.program_digest}"))
    if run.submitter is not None:
        say(safe(f"submitted by {run.submitter}"))
    if words := said_words(run):
        say(safe(words))
    if run.parent is not None:
        say(safe(f"made from run {run.parent}"))
    for name, value in trace.inputs.items():
        say(f"input {safe(name)}: {shown(value, DETAIL_CHARS)}")
    print_steps(trace)
    for line in diagnostic_lines(trace.diagnostics):
        say(line)
    if type(run.error) is str and not trace.diagnostics:
        say(f"error: {safe(trace.error or run.error)}")
    for line in standing_lines(run, owners, options):
        say(line)
    if erased:
        say(f"{run.status}; its values were erased, and its seal still covers what they were")
    elif run.finished_ns:
        for line in summary_lines(trace):
            say(line)
    if run.status in ENDED:
        say(safe(f"seal {run.seal}"))
    if options.graph:
        _draw(run, trace)
    return OK


def _draw(run: StoredRun, trace: Trace) -> None:
    """The way of the run on the graph of its program, where the terminal shows pictures."""
    from ...draw.graph import svg
    from ...draw.png import png
    from ...draw.taken import marks_of_run
    from ...language.flow import Flow
    from ...replay.rerun import programs_of
    from ..images import messages, protocol

    spoken = protocol(os.environ, terminal=sys.stdout.isatty())
    if spoken is None:
        note(
            "nano-vm: this terminal is not known to show pictures; kitty, Ghostty, iTerm2 and "
            "WezTerm do. nano-vm graph PROGRAM --run RUN -o FILE.svg writes one"
        )
        return
    flow = Flow(*programs_of(run))
    for message in messages(png(svg(flow, marks_of_run(flow, trace))), spoken):
        emit(message)
