"""``nano-vm schema``."""

from __future__ import annotations

from ..faults import OK
from ..grammar import Options, command
from ..output import emit_json

EXAMPLES = """\
nano-vm schema > nano-vm.schema.json   (editors complete and check programs by it)
"""


@command(examples=EXAMPLES)
def schema(_: Options) -> int:
    """Print the JSON Schema of the language."""
    from ...language.program import Program

    emit_json(Program.json_schema())
    return OK
