"""``nano-vm explore``."""

from __future__ import annotations

from .. import completion
from ..grammar import Options, command, flag, option, values
from ..parameters import takes_inputs, takes_json, takes_program, takes_tools

EXAMPLES = """\
nano-vm explore refund.yaml --tools refund.py:tools --at-most issue_refund=1
nano-vm explore refund.yaml --only-after issue_refund=guardrail.then --json | jq .failures
"""

PROPERTIES = "properties (repeat for more)"


@command(examples=EXAMPLES)
@takes_program
@takes_tools("the tools, for their types and effects: module:object or file.py:object")
@takes_inputs("an input, as for 'run'; else made up")
@option(
    "--policy",
    metavar="FILE",
    help="a policy, whose value checks hold in every run",
    shell_complete=completion.files,
)
@option("--max-runs", type=int, metavar="N", help="stop after N runs; default: 10000")
@flag("--no-errors", help="inject no errors and timeouts")
@flag("--cancel", help="cancel the run at each call, too")
@values(
    "--at-most",
    metavar="TOOL=N",
    help="no run calls the tool more often; each attempt counts",
    section=PROPERTIES,
)
@values("--never", metavar="TOOL", help="no run calls the tool", section=PROPERTIES)
@values(
    "--only-after",
    metavar="TOOL=STEP.BRANCH",
    help="each call of the tool comes after the branch, taken since the call before",
    section=PROPERTIES,
)
@takes_json("print the result as JSON")
def explore(options: Options) -> int:
    """
    Run a program under every outcome worth trying: each side of every branch, errors, timeouts,
    invalid answers.

    No tool and no model is called. Values are made up from enums, schemas and the types that tools
    declare, and from what conditions compare them with. What no run reaches is listed; it may still
    be reachable by values not tried.
    """
    from ..explore import explore

    return explore(options)
