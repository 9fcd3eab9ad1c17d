"""``nano-vm schema``."""

from __future__ import annotations

from ..grammar import Options, command

EXAMPLES = """\
nano-vm schema > nano-vm.schema.json   (editors complete and check programs by it)
"""


@command(examples=EXAMPLES)
def schema(_: Options) -> int:
    """Print the JSON Schema of the language."""
    from ..inspect import schema

    return schema(_)
