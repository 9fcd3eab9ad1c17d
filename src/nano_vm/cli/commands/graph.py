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
from ..parameters import takes_policy, takes_program, takes_tools
from ..text import diagnostic_lines

if TYPE_CHECKING:
    from ...draw.graph import Marks
    from ...language.flow import Flow
    from ..sources import Loaded

EXAMPLES = """\
nano-vm graph refund.yaml -o refund.svg
nano-vm graph refund.yaml --proofs --policy refund.policy.yaml -o refund.png
nano-vm graph refund.yaml >> README.md   (Mermaid, which GitHub shows)
"""

ENDINGS = {".svg": "svg", ".png": "png", ".dot": "dot", ".gv": "dot"}


@command(examples=EXAMPLES)
@takes_program
@option(
    "--format",
    type=click.Choice(("mermaid", "dot", "svg", "png")),
    help="default: that of FILE's ending, else mermaid",
)
@option("-o", "--output", metavar="FILE", help="write to FILE", shell_complete=completion.files)
@flag("--proofs", help="mark guards, the calls that they guard, and where outside text goes")
@takes_tools("the tools, for what their contracts protect")
@takes_policy
def graph(options: Options) -> int:
    """
    Draw the graph of a program: the one that is verified and executed.

    With --proofs, guards, the calls that they guard, refuted ways and untrusted values are marked,
    and a legend says by which colour. PNG needs pip install 'llm-nano-vm[png]'.
    """
    from ...draw.graph import FORMATS, MERMAID_MAX_EDGES
    from ...language.flow import Flow
    from ..sources import load

    loaded = load(options.program, options.program_file)
    flow = Flow(loaded.program, loaded.programs)
    errors = [d for d in flow.diagnostics if d.severity == "error"]
    if errors:
        raise ProgramError(loaded.placed(loaded.program.place(errors)))
    proofs = options.proofs or typed("policy") or options.untrusted
    ending = Path(options.output or "").suffix
    form = options.format or ENDINGS.get(ending, "mermaid")
    if form == "png" and options.output is None:
        raise UsageFault("PNG needs a file to write to: -o FILE.png")
    drawn = "svg" if form == "png" else form
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
