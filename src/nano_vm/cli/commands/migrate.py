"""``nano-vm migrate``."""

from __future__ import annotations

from ..grammar import Options, command, flag, option
from ..parameters import takes_host, takes_program, takes_rules, takes_store

EXAMPLES = """\
nano-vm migrate refund-v2.yaml --dry-run --tools refund.py:tools --store sqlite:///runs.db
"""


@command(examples=EXAMPLES)
@takes_program
@flag("--dry-run", help="only say which can move; moving them is not built yet")
@option("--of", metavar="NAME", help="the program's name in the store; default: that of PROGRAM")
@takes_host
@takes_rules
@takes_store
def migrate(options: Options) -> int:
    """
    List the unfinished runs of a program, and which can move to a changed one.

    For each run: whether what it did so far is what the new program would have done, with all the
    data that it needs from here on; and if not, why. Nothing is changed.
    """
    from ..migrate import migrate

    return migrate(options)
