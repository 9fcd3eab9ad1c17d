"""``nano-vm replay``."""

from __future__ import annotations

from ..faults import FAILED, OK
from ..grammar import Options, command
from ..output import emit_json, say
from ..parameters import takes_cluster, takes_recorded, takes_store
from ..text import safe

EXAMPLES = """\
nano-vm replay run.json --program refund.yaml
nano-vm replay 3f2a --store sqlite:///runs.db --json
nano-vm replay refund-1 --engine temporal
"""


@command(examples=EXAMPLES)
@takes_recorded
@takes_store
@takes_cluster
def replay(options: Options) -> int:
    """
    Replay a recorded run from its outcomes, and compare every record. No tool and no model is
    called.

    RUN is a trace that 'run --trace' wrote, a run of a file that 'store export' wrote (FILE#RUN
    where it has several), or a run of a store, by its id. A trace does not hold its program: give
    --program FILE.

    With --engine temporal RUN is the id of a run on a cluster, or a file that 'temporal workflow show
    --output json' wrote: what this interpreter decides is held against the history, and its trace
    against the one in it.
    """
    from ...replay import replay as again
    from ..recorded import load_run, subject_named

    if options.engine is not None:
        from .. import cluster

        return cluster.replay(options)
    subject = subject_named(load_run(options.run, options), options)
    found = again(
        subject.stored or subject.trace, subject.program, programs=subject.programs
    ).shown_to("show")
    if options.json:
        emit_json(found.to_dict())
    else:
        say(safe(str(found)))
    return OK if found else FAILED
