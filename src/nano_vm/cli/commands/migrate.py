"""``nano-vm migrate``."""

from __future__ import annotations

from ...errors import ProgramError
from ..faults import FAILED, OK, UsageFault
from ..grammar import Options, command, flag, option
from ..output import emit_json, say
from ..parameters import takes_host, takes_program, takes_rules, takes_store
from ..text import safe

EXAMPLES = """\
nano-vm migrate refund-v2.yaml --dry-run --tools refund.py:tools --store sqlite:///runs.db
"""


@command(examples=EXAMPLES)
@takes_program
@flag("--dry-run", help="only say which can move; moving them is not built yet")
@option("--of", metavar="NAME", help="the program's name in the store; default: that of PROGRAM")
@takes_host
@takes_rules
@takes_store
def migrate(options: Options) -> int:
    """
    List the unfinished runs of a program, and which can move to a changed one.

    For each run: whether what it did so far is what the new program would have done, with all the
    data that it needs from here on; and if not, why. Nothing is changed.
    """
    from ...replay.migrate import migrations
    from .. import host, rules, sources, stores

    if not options.dry_run:
        raise UsageFault(
            "moving runs is not built yet; --dry-run says which can go on with the new program"
        )
    loaded = sources.load(options.program, options.program_file)
    policy = rules.load_policy(options.policy)
    with stores.store_of(options, read=True) as store:
        vm = host.vm_of(options, policy=policy, store=store, stubs_for=loaded)
        try:
            found = list(migrations(vm, loaded.program, name=options.of))
        except ProgramError as error:
            raise ProgramError(loaded.placed(error.diagnostics)) from None
    may = sum(one.reason is None for one in found)
    if options.json:
        emit_json({"ok": may == len(found), "runs": [one.to_dict() for one in found]})
        return OK if may == len(found) else FAILED
    for one in found:
        moves = "may move" if one.reason is None else f"stays: {one.reason}"
        say(safe(f"{one.run_id}  {one.status}  {moves}"))
    name = options.of or loaded.program.name
    count = f"{len(found)} unfinished run{'s' * (len(found) != 1)}"
    say(safe(f"{count} of {name!r}: {may} may go on with {options.program}"))
    return OK if may == len(found) else FAILED
