"""``nano-vm schema``."""

from __future__ import annotations

from ..faults import OK
from ..grammar import Options, command, flag
from ..output import emit_json

EXAMPLES = """\
nano-vm schema > .nano-vm/program.schema.json   (editors complete and check programs by it)
nano-vm schema --tests > .nano-vm/tests.schema.json
"""


@command(examples=EXAMPLES)
@flag("--tests", help="the schema of files NAME.test.yaml")
def schema(options: Options) -> int:
    """Print the JSON Schema of the language."""
    from .. import schemas

    emit_json(schemas.schema("tests" if options.tests else "program"))
    return OK
