"""The page of all codes, docs/diagnostics.md."""

from __future__ import annotations

from .register import CODES

_HEAD = """# Diagnostics

<!-- written by `python -m nano_vm.diagnostics`; do not edit -->
Every fault that is reported of a program or policy has a code. `nano-vm explain CODE` prints what
stands here. Codes that begin with P are found in the document alone; those with V need the whole
program, and mostly the host: its tools, models and policy. An *error* keeps the program from
running; a *warning* does not, unless `--strict` or a policy makes it an error; a *hint* is shown by
`check` and `ExecutionVM.verify`."""


def document() -> str:
    """The page, as Markdown."""
    return "\n\n".join([_HEAD, *(CODES[code].text for code in sorted(CODES))]) + "\n"
