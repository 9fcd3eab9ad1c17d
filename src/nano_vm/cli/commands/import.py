"""``nano-vm import``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from .. import completion
from ..faults import FAILED, OK
from ..grammar import Options, argument, command
from ..output import emit, emit_json, note, say, write_file
from ..parameters import file_option, takes_json
from ..text import safe

if TYPE_CHECKING:
    from ...importing import Imported

EXAMPLES = """\
nano-vm import order.asl.json -o order.yaml
nano-vm import order.asl.json --json | jq .findings
"""


@command("import", examples=EXAMPLES)
@argument(
    "file",
    help="a state machine, or a flow of Prompt flow, in JSON or YAML (- is standard input)",
    shell_complete=completion.files,
)
@file_option("-o", "--output", help="write the program there, not to stdout")
@takes_json("print the program with the findings and the tools as JSON")
def import_(options: Options) -> int:
    """
    Convert a workflow of AWS Step Functions or Prompt flow into a program.

    The file is a state machine in Amazon's States Language, or a flow.dag.yaml with its prompts
    beside it.

    The program goes to stdout, and to stderr what a person has to look at, with its place: a
    difference, which was converted and does not mean quite the same, and a gap, which has no
    counterpart. In place of a gap stands a step that fails. The exit code is 1 where there are
    gaps, or where the file is wrong; then nothing is written.
    """
    from ...importing import imported
    from ...language.canonical import formatted
    from ..sources import text_of
    from ..stdin import STDIN

    shown = "<stdin>" if options.file == STDIN else options.file
    name = Path(shown.strip("<>")).name.partition(".")[0] or "imported"
    result = imported(text_of(options.file), name=name, file=shown, sources=_beside(shown))
    if options.json:
        emit_json(result.to_dict())
    else:
        for one in result.findings:
            note(safe(one.text(shown)))
        _note_tools(result)
    if result.program is None:
        return FAILED
    if options.output is not None:
        text = formatted(result.program, json_form=options.output.endswith(".json"))
        write_file(options.output, text)
        if not options.json:
            say(safe(f"{options.output}: written"))
    elif not options.json:
        emit(formatted(result.program))
    return OK if result.complete else FAILED


def _beside(file: str) -> Callable[[str], str | None]:
    """The text of files in the folder of *file*, and below it; None of any other."""
    folder = Path(file).resolve().parent

    def read(path: str) -> str | None:
        found = (folder / path).resolve()
        if not found.is_relative_to(folder) or not found.is_file():
            return None
        try:
            return text_of(str(found))
        except (ProgramError, UsageFault):
            return None

    from ...errors import ProgramError
    from ..faults import UsageFault
    from ..sources import text_of

    return read


def _note_tools(result: Imported) -> None:
    for name, arguments in result.tools.items():
        note(safe(f"tool to write: {name}({', '.join(arguments)})"))
    gaps = sum(one.kind == "gap" for one in result.findings)
    if gaps:
        note(
            f"not complete: {gaps} gap{'s' if gaps > 1 else ''}; a step that fails is in its place"
        )
