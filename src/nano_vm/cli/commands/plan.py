"""``nano-vm plan``."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from ..faults import FAILED, OK, UsageFault
from ..grammar import Options, argument, command, flag, values
from ..output import emit, emit_json, note, say, write_file
from ..parameters import (
    RULES,
    file_option,
    of_project,
    takes_budget,
    takes_inputs,
    takes_json,
    takes_model,
    takes_tools,
)
from ..text import diagnostic_lines, safe, shown

if TYPE_CHECKING:
    from ...language.program import Program
    from ...verify.report import Report

SHOWN_REPLY_CHARS = 300

EXAMPLES = """\
nano-vm plan "Refund the customer if the message asks for it" --tools refund.py:tools \\
    --model groq/llama-3.3-70b-versatile -i user_input= -i order_id= -o plan.yaml
nano-vm check plan.yaml --tools refund.py:tools
"""


@command(examples=EXAMPLES)
@argument("intent", help="what the program is to do")
@takes_tools()
@takes_model
@file_option(
    "--policy",
    help="what programs may do; one that does not keep to it is refused",
    section=RULES,
    default=of_project("policy"),
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
@file_option("-o", "--output", help="write the program to FILE, in YAML or, if .json, in JSON")
@takes_json("print the program and its report as JSON")
def plan(options: Options) -> int:
    """
    Let a model write a program for an intent, by one call, and check it. Nothing of it is run.

    The model is shown the tools and the names and types of the inputs, never their values. What it
    writes is printed only if it passes: every name, tool and argument, the policy, the budget. Read
    it before it is run.
    """
    import asyncio

    from ...errors import PlannerError
    from ...language.canonical import formatted
    from ...planner.planner import Planner
    from .. import host, inputs, models, rules, tools
    from ..sources import load, named_files

    if not options.model and not models.project(options.host).models:
        raise UsageFault(
            "plan needs a model that writes the program: --model local, --model groq/NAME, ..."
        )
    told = options.input or options.input_file is not None
    context = inputs.read_inputs(options.input, options.input_file) if told else None
    budget = rules.read_budget(options.budget)
    programs = {name: load(file).program for name, file in named_files(options.program_file)}
    known = tools.load_tools(options.tools) if options.tools is not None else {}
    given = models.load_host(options.host, options.model)
    llm = models.load_models(options.model, options.base_url, host=given)
    planner = Planner(llm, known, options.policy, programs=programs, budget=budget)
    making = planner.generate(options.intent, context, untrusted=options.untrusted)
    try:
        program = asyncio.run(making)
    except PlannerError as error:
        for line in str(error).split("\n"):
            note(safe(line))
        if error.reply:
            note(f"the model wrote: {shown(error.reply, SHOWN_REPLY_CHARS)}")
        return FAILED
    vm = host.vm_of(options, programs=programs, policy=options.policy, budget=budget)
    report = vm.verify(program)
    text = formatted(program, json_form=(options.output or "").endswith(".json"))
    if options.output is not None:
        write_file(options.output, text)
    if options.json:
        emit_json({"program": program.to_dict(), "report": report.to_dict()})
        return OK
    _print(options, program, report, text)
    return OK


def _print(options: Options, program: Program, report: Report, text: str) -> None:
    """What was written, and what is known of it; all of it, where its digest is to be approved."""
    from ..decide import WHOLE_CHARS
    from ..outline import summary, whole_lines

    output = options.output
    tell = say if output is not None else note
    decided = output is not None and program.untrusted
    for line in whole_lines(text) if decided else summary(program):
        tell(line)
    for line in diagnostic_lines(report.diagnostics):
        tell(line)
    told = set(map(str, report.diagnostics))
    for line in report.lines():
        if line not in told and not line.startswith(("warning: ", "hint: ")):
            tell(safe(line))
    if output is None:
        emit(text)
    elif decided and len(text) > WHOLE_CHARS:
        say(
            safe(
                f"{output}: written; it is too long for a screen. Read it, and ask for its digest:"
            )
        )
        say(safe(f"  nano-vm check {shlex.quote(output)} --json | jq .digest"))
    else:
        say(safe(f"{output}: written, digest {program.digest}"))
