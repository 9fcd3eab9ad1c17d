"""``nano-vm check``."""

from __future__ import annotations

from ..grammar import Options, command, flag
from ..parameters import takes_host, takes_json, takes_policy, takes_price, takes_program

EXAMPLES = """\
nano-vm check refund.yaml --tools refund.py:tools --strict
nano-vm check refund.yaml --tools refund.py:tools --policy refund.policy.yaml
nano-vm check plan.yaml --tools refund.py:tools --untrusted user_input --json | jq .proofs
"""


@command(examples=EXAMPLES)
@takes_program
@takes_host
@takes_policy
@takes_price("for what a run can cost")
@flag("--strict", help="treat warnings as errors")
@takes_json("print the report as JSON")
def check(options: Options) -> int:
    """
    List every fault of a program, with its place, and what is known about all its runs. Nothing is
    run.

    What a policy demands is proved, or refuted by a run that was found and executed with made-up
    outcomes, or unproved. The last lines give the worst case: steps, calls, tokens and dollars.
    Without --tools and --model, what depends on them is not checked, and the last line says so.
    """
    from ..inspect import check

    return check(options)
