"""``nano-vm diff``."""

from __future__ import annotations

from .. import completion
from ..grammar import Options, argument, command
from ..parameters import takes_store

EXAMPLES = """\
nano-vm diff monday.json tuesday.json
nano-vm diff refund.yaml refund-2.yaml --json | jq .divergence
"""


@command(examples=EXAMPLES)
@argument("a", help="a run or a program", shell_complete=completion.recorded)
@argument("b", help="another", shell_complete=completion.recorded)
@takes_store
def diff(options: Options) -> int:
    """
    Compare two runs or two programs: where they differ first, and what differs in each step.

    A and B are traces, runs of an exported file (FILE#RUN), runs of a store, or two programs. Cost
    and duration are shown, and do not count as differences.

    The exit code is 0 where they are the same and 1 where they differ, as with diff(1).
    """
    from ..replay import diff

    return diff(options)
