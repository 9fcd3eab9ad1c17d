"""``nano-vm explain``."""

from __future__ import annotations

from ...errors import ProgramError
from ..faults import OK
from ..grammar import Options, command, flag
from ..output import note, say
from ..parameters import takes_host, takes_program
from ..text import safe_lines

EXAMPLES = """\
nano-vm explain refund.yaml --tools refund.py:tools
nano-vm explain refund.yaml --plan
"""


@command(examples=EXAMPLES)
@takes_program
@flag("--plan", help="print the compiled plan instead, operation by operation")
@takes_host
def explain(options: Options) -> int:
    """
    Say in words what a program does: each step, what follows it, and what happens where it fails.

    With --tools also what kind of effect each call has.
    """
    from ...language.flow import Flow
    from .. import host, sources
    from ..outline import in_words

    loaded = sources.load(options.program, options.program_file)
    vm = host.vm_of(options, stubs_for=loaded)
    try:
        plan = vm.plan(loaded.program)
    except ProgramError as error:
        raise ProgramError(loaded.placed(error.diagnostics)) from None
    if not options.plan:
        known = options.tools is not None
        effects = {name: contract.effect for name, contract in vm.tools.items() if known}
        for line in in_words(Flow(loaded.program, loaded.programs), effects):
            say(line)
        return OK
    say(safe_lines(plan.explain()))
    if options.tools is None and plan.tools:
        note(
            "tools were not given: their effects are taken for 'write'; --tools shows what they "
            "declare"
        )
    return OK
