"""``nano-vm show``."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from ..faults import OK
from ..grammar import Options, command, flag
from ..output import emit, emit_json, note, say
from ..parameters import STORED, takes_cluster, takes_run, takes_server, takes_store
from ..text import safe, shown
from ..times import moment

if TYPE_CHECKING:
    from ...records.trace import Trace
    from ...run.durable.facts import Facts


@command(examples="nano-vm show 3f2a --store sqlite:///runs.db", footer=STORED)
@takes_run
@takes_store
@takes_server
@takes_cluster
@flag("--graph", help="draw the run on its graph, in a terminal that shows pictures")
def show(options: Options) -> int:
    """
    Show a run: what it did and why it took its path, and what it waits for, with the commands that
    answer it.

    An approval is given for what was shown: its digest stands with the request, and 'approve' is
    refused where the run asks something else by then.
    """
    from ...run.durable.facts import shown as shown_run
    from ...store.records import ENDED
    from ..places import is_cluster, place_of
    from ..said import said_words
    from ..standing import standing_lines, whole
    from ..summary import DETAIL_CHARS, print_steps, summary_lines

    if is_cluster(options):
        from .. import cluster

        return cluster.show(options)
    with place_of(options, honours=("graph",), read=True) as place:
        run = place.run(options.run)
    if options.json:
        emit_json(whole(run))
        return OK
    trace = shown_run(run)
    say(safe(f"{run['program']}, run {run['run_id']}, {moment(run['created_ns'])}"))
    say(safe(f"program {run['program_digest']}"))
    if run["submitter"] is not None:
        say(safe(f"submitted by {run['submitter']}"))
    if words := said_words(run):
        say(safe(words))
    if run["parent"] is not None:
        say(safe(f"made from run {run['parent']}"))
    for name, value in trace.inputs.items():
        say(f"input {safe(name)}: {shown(value, DETAIL_CHARS)}")
    print_steps(trace)
    if trace.error is not None:
        say(f"error: {safe(trace.error)}")
    for line in standing_lines(run, place):
        say(line)
    if run["erased"]:
        say(f"{run['status']}; its values were erased, and its seal still covers what they were")
    elif run["finished_ns"]:
        for line in summary_lines(trace):
            say(line)
    if run["status"] in ENDED:
        say(safe(f"seal {run['seal']}"))
    if options.graph:
        _draw(run, trace)
    return OK


def _draw(run: Facts, trace: Trace) -> None:
    """The way of the run on the graph of its program, where the terminal shows pictures."""
    from ...draw.png import png
    from ...draw.svg import svg
    from ...draw.taken import marks_of_run
    from ...language.flow import Flow
    from ...replay.rerun import programs_of_document
    from ..images import messages, protocol

    spoken = protocol(os.environ, terminal=sys.stdout.isatty())
    if spoken is None:
        note(
            "nano-vm: this terminal is not known to show pictures; kitty, Ghostty, iTerm2 and "
            "WezTerm do. nano-vm graph PROGRAM --run RUN -o FILE.svg writes one"
        )
        return
    flow = Flow(*programs_of_document(run["document"], run["run_id"]))
    for message in messages(png(svg(flow, marks_of_run(flow, trace))), spoken):
        emit(message)
