"""``nano-vm export``."""

from __future__ import annotations

from ..faults import OK, UsageFault
from ..grammar import Options, command, flag
from ..output import emit_json, note, write_file
from ..parameters import file_option, takes_recorded, takes_store

EXAMPLES = """\
nano-vm export 3f2a --store sqlite:///runs.db -o run.html
nano-vm export run.json --program refund.yaml -o run.html
nano-vm export 3f2a -o for-the-vendor.html --redact
"""


@command(examples=EXAMPLES)
@takes_recorded
@file_option("-o", "--output", help="the HTML file")
@flag(
    "--redact",
    help="leave out what inputs, models, tools and people said; path, times and costs remain, and "
    "the program",
)
@takes_store
def export(options: Options) -> int:
    """
    Write a run as one HTML file, which any browser shows without a server and without a network.

    It shows the run on the graph of its program: the path that it took and why, prompts, answers,
    attempts, tokens and costs. A trace does not hold its program: give --program FILE, or the file
    has no graph. With --json, print what the file would show.
    """
    from ...draw.view import view_of
    from ...ui.page import page
    from ..recorded import load_run, program_named

    if options.output is None and not options.json:
        raise UsageFault("which file is to be written? Give -o run.html, or --json to print it")
    run = load_run(options.run, options)
    loaded = program_named(options)
    program, programs = (None, None) if loaded is None else (loaded.program, loaded.programs)
    view = view_of(run, program, programs, content=not options.redact, receiver="export")
    if options.json:
        emit_json(view)
    if options.output is not None:
        title = f"{view['program']} {view['id']}"
        write_file(options.output, page(title, {"runs": [view]}))
        if view["chart"] is None:
            note(f"without its graph: {view['chart_fault']}")
    return OK
