"""``nano-vm fmt``."""

from __future__ import annotations

from ..grammar import Options, command, flag, only_one
from ..parameters import takes_one_program

EXAMPLES = """\
nano-vm fmt refund.yaml -w
nano-vm fmt refund.yaml --check
"""


@command(examples=EXAMPLES)
@takes_one_program
@flag("--check", help="print nothing; exit code 1 if the file has another form")
@flag("-w", "--write", help="write it back to the file")
def fmt(options: Options) -> int:
    """
    Print a program in canonical form: YAML, or JSON for a .json file.

    The form holds what the program means: COMMENTS ARE LOST, and so are fields without meaning,
    aliases and anchors. The result is read again before it goes out, and is the same program, with
    the same digest.
    """
    from ..fmt import fmt

    only_one(options, "--check", "--write")
    return fmt(options)
