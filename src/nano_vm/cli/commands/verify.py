"""``nano-vm verify``."""

from __future__ import annotations

from ..grammar import Options, command
from ..parameters import takes_public_keys, takes_recorded, takes_store

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
    from ..replay import verify

    return verify(options)
