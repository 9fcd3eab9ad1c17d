"""``nano-vm explain``."""

from __future__ import annotations

from ...errors import ProgramError
from ..faults import OK
from ..grammar import Options, command
from ..output import note, say
from ..parameters import takes_host, takes_program
from ..text import safe_lines


@command()
@takes_program
@takes_host
def explain(options: Options) -> int:
    """Print the plan: what is executed, operation by operation."""
    from .. import host, sources

    loaded = sources.load(options.program, options.program_file)
    vm = host.vm_of(options, stubs_for=loaded)
    try:
        plan = vm.plan(loaded.program)
    except ProgramError as error:
        raise ProgramError(loaded.placed(error.diagnostics)) from None
    say(safe_lines(plan.explain()))
    if options.tools is None and plan.tools:
        note(
            "tools were not given: their effects are taken for 'write'; --tools shows what they "
            "declare"
        )
    return OK
