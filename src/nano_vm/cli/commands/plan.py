"""``nano-vm plan``."""

from __future__ import annotations

from .. import completion
from ..grammar import Options, argument, command, flag, option, values
from ..parameters import (
    RULES,
    takes_budget,
    takes_inputs,
    takes_json,
    takes_model,
    takes_tools,
)

EXAMPLES = """\
nano-vm plan "Refund the customer if the message asks for it" --tools refund.py:tools \\
    --model groq/llama-3.3-70b-versatile -i user_input= -i order_id= -o plan.yaml
nano-vm check plan.yaml --tools refund.py:tools
"""


@command(examples=EXAMPLES)
@argument("intent", help="what the program is to do")
@takes_tools()
@takes_model
@option(
    "--policy",
    metavar="FILE",
    help="what programs may do; one that does not keep to it is refused",
    section=RULES,
    shell_complete=completion.files,
)
@values(
    "--program",
    "program_file",
    metavar="NAME=FILE",
    help="a program that the new one may call",
)
@takes_inputs("an input that it may read", "such inputs in JSON or YAML (- is standard input)")
@takes_budget("a limit for the program: max_steps, ...")
@flag(
    "--untrusted",
    help="the intent comes from outside: so does what the program says, until its digest is "
    "approved",
    section=RULES,
)
@option(
    "-o",
    "--output",
    metavar="FILE",
    help="write the program to FILE, in YAML or, if .json, in JSON",
    shell_complete=completion.files,
)
@takes_json("print the program and its report as JSON")
def plan(options: Options) -> int:
    """
    Let a model write a program for a text, by one call, and check it. Nothing of it is run.

    The model is shown the tools and the names and types of the inputs, never their values. What it
    writes is printed only if it passes: every name, tool and argument, the policy, the budget. Read
    it before it is run.
    """
    from ..plan import plan

    return plan(options)
