"""``nano-vm event``."""

from __future__ import annotations

from ..grammar import Options, argument, command, flag, option
from ..parameters import STORED, takes_store

EXAMPLES = """\
nano-vm event 3f2a paid '{"amount": 30}'
nano-vm event --match paid '{"order": "A7", "amount": 30}' --id evt_1
"""


@command(examples=EXAMPLES, footer=STORED)
@argument(
    "words",
    nargs=-1,
    required=True,
    metavar="RUN NAME [JSON]",
    help="the run, the event's name as a 'wait' step has it, and what it brings, or @FILE; "
    "default: null",
)
@flag(
    "--match",
    help="for the run whose 'wait' has a 'match' that the payload fits; then without RUN",
)
@option(
    "--id",
    metavar="ID",
    help="the sender's: what has the same name and id is recorded once",
)
@takes_store
def event(options: Options) -> int:
    """Send an event to a run, or to the one that waits for its values."""
    from ..runs import event

    return event(options)
