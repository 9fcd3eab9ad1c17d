"""``nano-vm fork``."""

from __future__ import annotations

from .. import completion
from ..grammar import Options, command, flag, option, values
from ..parameters import STORE, takes_host, takes_inputs, takes_recorded, takes_store

EXAMPLES = """\
nano-vm fork run.json --program refund.yaml --tools refund.py:tools --output judge=no
nano-vm fork 3f2a --store sqlite:///runs.db --tools refund.py:tools --model local \\
    --set judge.prompt='Is it broken?'
nano-vm fork refund-A7 --run-id refund-A8 --tools refund.py:tools -i order_id=A8
"""

CHANGES = "what changes"


@command(examples=EXAMPLES)
@takes_recorded
@takes_inputs("an input that changes", "such inputs in JSON or YAML (- is standard input)")
@values(
    "--output",
    metavar="STEP=VALUE",
    help="what a step gives instead; STEP:=JSON",
    section=CHANGES,
)
@values(
    "--set",
    metavar="STEP.FIELD=VALUE",
    help="a field of a step; STEP.FIELD:=JSON",
    section=CHANGES,
)
@option(
    "--to",
    metavar="FILE",
    help="the changed program",
    section=CHANGES,
    shell_complete=completion.programs,
)
@option(
    "--at",
    metavar="STEP",
    help="ask models and read anew from this step on: its path or id",
)
@flag("--effects", help="make calls that have an effect, too")
@option(
    "--trace",
    metavar="FILE",
    help="write the fork's trace to FILE",
    shell_complete=completion.files,
)
@takes_host
@option(
    "--run-id",
    metavar="ID",
    help="keep the fork in the store under this id: it can wait, and go on",
    section=STORE,
)
@takes_store
def fork(options: Options) -> int:
    """
    Run a recorded run again with a change: an input, an output, a field of a step, or the whole
    program.

    Steps that are asked the same take their recorded outcome at no cost; live calls begin where
    what is asked differs, or at --at. A call of a tool with effect 'write' or 'irreversible' is not
    made without --effects: the fork stops before it. With --run-id it is kept in the store, with
    its parent, and goes on when what it waits for has come; a call that it stopped before is for
    'resolve' to decide.
    """
    from ..replay import fork

    return fork(options)
