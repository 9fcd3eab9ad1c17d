"""``nano-vm explain``."""

from __future__ import annotations

import re

from ...diagnostics.register import CODES, explained
from ...errors import ProgramError
from ...spelling import meant
from ..faults import OK, UsageFault
from ..grammar import Options, command, flag
from ..output import note, say
from ..parameters import takes_host, takes_program
from ..text import safe_lines

EXAMPLES = """\
nano-vm explain refund.yaml --tools refund.py:tools
nano-vm explain refund.yaml --plan
nano-vm explain V003
"""

_CODE = re.compile(r"[PV][0-9]{3}\Z", re.IGNORECASE)


@command(examples=EXAMPLES)
@takes_program
@flag("--plan", help="print the compiled plan instead, operation by operation")
@takes_host
def explain(options: Options) -> int:
    """
    Say in words what a program does: each step, what follows it, and what happens where it fails.

    With --tools also what kind of effect each call has. Given the code of a fault in place of a
    program (V003), say what it means and how it is mended.
    """
    if _CODE.match(options.program):
        return _fault(options.program)
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


def _fault(code: str) -> int:
    """What the code of a fault means."""
    text = explained(code)
    if text is None:
        known = f"the page Diagnostics of the documentation lists all {len(CODES)}"
        hint = meant(code.upper(), CODES, otherwise=known)
        raise UsageFault(f"no fault has the code {code!r}; {hint}")
    say(text)
    return OK
