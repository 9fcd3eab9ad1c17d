"""``nano-vm batch``."""

from __future__ import annotations

from contextlib import ExitStack

from .. import completion
from ..faults import UsageFault
from ..grammar import Options, argument, command, flag, option
from ..output import json_text, only_ours
from ..parameters import (
    keeps_in_store,
    takes_budget,
    takes_concurrency,
    takes_host,
    takes_json,
    takes_keys,
    takes_policy,
    takes_price,
    takes_program,
    takes_said,
    takes_telemetry,
)

EXAMPLES = """\
nano-vm batch triage.yaml mails.jsonl -o results.jsonl --tools triage.py:tools --model local \\
    --concurrency 8
jq -c 'select(.status != "success")' results.jsonl
"""


@command(examples=EXAMPLES)
@takes_program
@argument(
    "inputs",
    help="a file in JSON Lines (- is standard input)",
    shell_complete=completion.files,
)
@option(
    "-o",
    "--output",
    metavar="OUT",
    required=True,
    help="the file of results",
    shell_complete=completion.files,
)
@takes_concurrency()
@flag("--ordered", help="write results in the order of inputs")
@flag("--retry-failed", help="run again what OUT says has failed or was cancelled, nothing else")
@flag(
    "--restart",
    help="begin anew what OUT has: its results are lost, and effects are made again",
)
@flag("--yes", help="with --restart: do not ask")
@takes_json("print the summary as JSON")
@takes_host
@takes_policy
@takes_budget("a limit for each run: max_steps, ...")
@takes_price("for max_cost_usd")
@keeps_in_store("the runs")
@takes_said
@takes_keys
@takes_telemetry
def batch(options: Options) -> int:
    """
    Run a program on each line of a file, and write a line of results for each.

    INPUTS is JSON Lines: an object of inputs a line. OUT is JSON Lines too: the number of the
    input's line, status, output or error, steps, tokens, cost and digests. A line that is no input,
    and a run that fails, have their line and stop nothing.

    Ctrl-C ends it cleanly: what is under way ends, nothing new begins. The same command goes on
    where it stopped, by what OUT has. With --store also what was under way when the process was
    killed goes on and is not repeated.
    """
    from ...run.batch.inputs import BatchFault
    from ..batch import Batch

    with only_ours(options.json) as line, ExitStack() as stack:
        try:
            code, told = Batch(options, stack).run()
        except BatchFault as error:
            raise UsageFault(str(error)) from None
        if options.json:
            line(json_text(told))
    return code
