"""``nano-vm explore``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import ProgramError
from .. import completion
from ..faults import FAILED, OK, UsageFault
from ..grammar import Options, command, flag, option, values
from ..output import emit_json, say
from ..parameters import (
    file_option,
    of_project,
    takes_inputs,
    takes_json,
    takes_program,
    takes_tools,
)
from ..text import safe

if TYPE_CHECKING:
    from collections.abc import Collection

    from ...explore.search import Property

EXAMPLES = """\
nano-vm explore refund.yaml --tools refund.py:tools --at-most issue_refund=1
nano-vm explore refund.yaml --only-after issue_refund=guardrail.then --json | jq .failures
"""

PROPERTIES = "properties (repeat for more)"


@command(examples=EXAMPLES)
@takes_program
@takes_tools("the tools, for their types and effects: module:object or file.py:object")
@takes_inputs("an input, as for 'run'; else made up")
@file_option(
    "--policy", help="a policy, whose value checks hold in every run", default=of_project("policy")
)
@option("--max-runs", type=int, metavar="N", help="stop after N runs; default: 10000")
@flag("--no-errors", help="inject no errors and timeouts")
@flag("--cancel", help="cancel the run at each call, too")
@values(
    "--at-most",
    metavar="TOOL=N",
    help="no run calls the tool more often; each attempt counts",
    section=PROPERTIES,
    shell_complete=completion.called,
)
@values(
    "--never",
    metavar="TOOL",
    help="no run calls the tool",
    section=PROPERTIES,
    shell_complete=completion.called,
)
@values(
    "--only-after",
    metavar="TOOL=STEP.BRANCH",
    help="each call of the tool comes after the branch, taken since the call before",
    section=PROPERTIES,
    shell_complete=completion.called,
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
    from ... import testing
    from ...explore.search import DEFAULT_MAX_RUNS
    from .. import inputs, sources, tools

    if options.max_runs is not None and options.max_runs < 1:
        raise UsageFault(f"--max-runs takes a whole number of at least 1, not {options.max_runs}")
    loaded = sources.load(options.program, options.program_file)
    known_tools = tools.load_tools(options.tools) if options.tools is not None else None
    given = options.input or options.input_file is not None
    known = dict.fromkeys(tools.tool_names(loaded.program, loaded.programs))
    steps = {
        step.id
        for program in (loaded.program, *loaded.programs.values())
        for step, _ in program.walk()
    }
    try:
        found = testing.explore(
            loaded.program,
            tools=known_tools,
            policy=options.policy,
            programs=loaded.programs,
            properties=_properties(options, known, steps),
            inputs=inputs.read_inputs(options.input, options.input_file, loaded.program)
            if given
            else None,
            max_runs=options.max_runs or DEFAULT_MAX_RUNS,
            errors=not options.no_errors,
            cancels=options.cancel,
        )
    except ProgramError as error:
        raise ProgramError(loaded.placed(error.diagnostics)) from None
    if options.json:
        emit_json(found.to_dict())
        return OK if found.ok else FAILED
    for line in found.lines():
        say(safe(line))
    return OK if found.ok else FAILED


def _properties(
    options: Options, known: Collection[str], steps: Collection[str]
) -> dict[str, Property]:
    """The properties that the command line states."""
    from ...explore.search import at_most, never, only_after

    properties: dict[str, Property] = {}
    for entry in options.at_most:
        tool, separator, count = entry.rpartition("=")
        if not separator or not count.isascii() or not count.isdigit():
            raise UsageFault(f"--at-most takes TOOL=N, not {entry!r}")
        properties |= at_most(_called(tool, known, "--at-most"), int(count))
    for tool in options.never:
        properties |= never(_called(tool, known, "--never"))
    for entry in options.only_after:
        tool, _, branch = entry.partition("=")
        step_id, _, label = branch.rpartition(".")
        if not (tool and step_id and label):
            raise UsageFault(f"--only-after takes TOOL=STEP.BRANCH, not {entry!r}")
        if step_id not in steps:
            raise UsageFault(f"--only-after: the program has no step {step_id!r}")
        properties |= only_after(_called(tool, known, "--only-after"), branch)
    return properties


def _called(tool: str, known: Collection[str], option: str) -> str:
    """*tool*, which the program calls: a property of a misspelled name would hold of every run."""
    if tool not in known:
        tools = f"it calls {', '.join(sorted(known))}" if known else "it calls none"
        raise UsageFault(f"{option}: the program calls no tool {tool!r}; {tools}")
    return tool
