"""``nano-vm verify``."""

from __future__ import annotations

from ..faults import FAILED, OK
from ..grammar import Options, command
from ..output import emit_json, say
from ..parameters import takes_public_keys, takes_recorded, takes_store
from ..text import safe

EXAMPLES = """\
nano-vm verify run.json --program refund.yaml
nano-vm verify runs.jsonl --key public.pem
"""


@command(examples=EXAMPLES)
@takes_recorded
@takes_store
@takes_public_keys
def verify(options: Options) -> int:
    """
    Verify recorded runs: the hash chain holds, the program is the one that the run names, every
    step is the only one that could follow. All that is needed is the file; for a trace, also its
    program.

    RUN is a trace, a file that 'store export' wrote (all runs in it), or a run of a store.
    """
    from ...replay import verify as verified
    from ..keys import public_keys
    from ..recorded import load_runs, subject_named

    keys = public_keys(options.key, "--key") if options.key else None
    found = [
        verified(subject_named(run, options), keys=keys).shown_to("show")
        for run in load_runs(options.run, options)
    ]
    if options.json:
        emit_json([one.to_dict() for one in found] if len(found) != 1 else found[0].to_dict())
    else:
        for one in found:
            for line in str(one).splitlines():
                say(safe(line))
        if len(found) != 1:
            say(f"{sum(map(bool, found))} of {len(found)} runs verified")
    return OK if found and all(found) else FAILED
