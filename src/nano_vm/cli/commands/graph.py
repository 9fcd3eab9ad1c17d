"""``nano-vm graph``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ...errors import ProgramError
from .. import completion
from ..faults import OK, UsageFault
from ..grammar import Options, command, flag, option, typed
from ..output import emit, note, write_file
from ..parameters import file_option, takes_policy, takes_program, takes_tools
from ..text import diagnostic_lines

if TYPE_CHECKING:
    from ...draw.graph import Marks
    from ...language.flow import Flow
    from ..sources import Loaded

EXAMPLES = """\
nano-vm graph refund.yaml -o refund.svg
nano-vm graph refund.yaml --proofs --policy refund.policy.yaml -o refund.png
nano-vm graph refund.yaml >> README.md   (Mermaid, which GitHub shows)
nano-vm graph refund.yaml --run run.json -o run.svg
nano-vm graph refund.yaml --run 3f2a --store sqlite:///runs.db --timeline -o time.svg
"""

ENDINGS = {".svg": "svg", ".png": "png", ".dot": "dot", ".gv": "dot"}


@command(examples=EXAMPLES)
@takes_program
@option(
    "--format",
    type=click.Choice(("mermaid", "dot", "svg", "png")),
    help="default: that of FILE's ending, else mermaid",
)
@file_option("-o", "--output", help="write to FILE")
@option(
    "--run",
    metavar="RUN",
    help="mark the way that a run took: a trace, an exported run, or the id of a run in the store",
    shell_complete=completion.recorded,
)
@flag("--timeline", help="draw when the steps of --run began and ended, and not the graph")
@option("--store", metavar="URL", help="the database of runs; default: NANO_VM_STORE")
@flag("--proofs", help="mark guards, the calls that they guard, and where outside text goes")
@takes_tools("the tools, for what their contracts protect")
@takes_policy
def graph(options: Options) -> int:
    """
    Draw the graph of a program: the one that is verified and executed. With --run, the way that a
    run took is marked.

    With --proofs, guards, the calls that they guard, refuted ways and untrusted values are marked,
    and a legend says by which colour. PNG needs pip install 'llm-nano-vm[png]'.
    """
    from ...draw.formats import FORMATS
    from ...draw.mermaid import MERMAID_MAX_EDGES
    from ...language.flow import Flow
    from ..sources import load

    loaded = load(options.program, options.program_file)
    flow = Flow(loaded.program, loaded.programs)
    errors = [d for d in flow.diagnostics if d.severity == "error"]
    if errors:
        raise ProgramError(loaded.placed(loaded.program.place(errors)))
    proofs = options.proofs or typed("policy") or options.untrusted
    if options.timeline and options.run is None:
        raise UsageFault("--timeline draws a run: give --run")
    if options.run is not None and proofs:
        raise UsageFault(
            "--run does not go with --proofs: a graph shows what is proved, or one run"
        )
    ending = Path(options.output or "").suffix
    form = options.format or ENDINGS.get(ending, "svg" if options.timeline else "mermaid")
    if options.timeline and form not in ("svg", "png"):
        raise UsageFault(f"a timeline is SVG or PNG, not {form}")
    if form == "png" and options.output is None:
        raise UsageFault("PNG needs a file to write to: -o FILE.png")
    drawn = "svg" if form == "png" else form
    if options.run is not None:
        text = _of_run(flow, loaded, options, drawn)
    else:
        text = FORMATS[drawn](flow, _marks(flow, loaded, options) if proofs else None)
    if form == "png":
        from ...draw.png import png

        write_file(options.output, png(text))
        return OK
    if form == "mermaid" and sum("->" in line for line in text.splitlines()) > MERMAID_MAX_EDGES:
        note(
            f"more than {MERMAID_MAX_EDGES} edges, which Mermaid does not draw by default; "
            f"--format svg does"
        )
    if options.output is None:
        emit(text)
    else:
        write_file(options.output, text)
    return OK


def _of_run(flow: Flow, loaded: Loaded, options: Options, form: str) -> str:
    """The graph with the way of a run, or the run's timeline."""
    from ...draw.formats import FORMATS
    from ...draw.taken import marks_of_run
    from ...draw.timeline import timeline
    from ...records.trace import Trace
    from ...run.durable.stored import trace_of
    from ..recorded import load_run

    run = load_run(options.run, options)
    trace = run if isinstance(run, Trace) else trace_of(run)
    if options.timeline:
        return timeline(trace)
    if trace.program_digest != (flow.digest or loaded.program.digest):
        note(
            f"nano-vm: the run is of another program ({trace.program_digest[:12]}); steps are "
            f"marked by their ids"
        )
    return FORMATS[form](flow, marks_of_run(flow, trace))


def _marks(flow: Flow, loaded: Loaded, options: Options) -> Marks:
    """What is proved of the program, to be drawn; what speaks against it besides is reported."""
    from ..host import examined
    from ..marks import marks_of
    from ..rules import load_policy

    policy = load_policy(options.policy)
    report = examined(loaded, policy, options)
    found = loaded.placed([d for d in report.diagnostics if d.severity == "error"])
    for line in diagnostic_lines(found):
        note(line)
    return marks_of(flow, report, policy)
