"""``nano-vm replay``."""

from __future__ import annotations

from ..faults import FAILED, OK
from ..grammar import Options, command
from ..output import emit_json, say
from ..parameters import takes_recorded, takes_store
from ..text import safe

EXAMPLES = """\
nano-vm replay run.json --program refund.yaml
nano-vm replay 3f2a --store sqlite:///runs.db --json
"""


@command(examples=EXAMPLES)
@takes_recorded
@takes_store
def replay(options: Options) -> int:
    """
    Replay a recorded run from its outcomes, and compare every record. No tool and no model is
    called.

    RUN is a trace that 'run --trace' wrote, a run of a file that 'store export' wrote (FILE#RUN
    where it has several), or a run of a store, by its id. A trace does not hold its program: give
    --program FILE.
    """
    from ...replay import replay as again
    from ..recorded import load_run, subject_named

    subject = subject_named(load_run(options.run, options), options)
    found = again(
        subject.stored or subject.trace, subject.program, programs=subject.programs
    ).shown_to("show")
    if options.json:
        emit_json(found.to_dict())
    else:
        say(safe(str(found)))
    return OK if found else FAILED
