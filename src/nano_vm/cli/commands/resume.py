"""``nano-vm resume``."""

from __future__ import annotations

from ..grammar import Options, command
from ..parameters import STORED, takes_run, takes_store, takes_worker


@command(examples="nano-vm resume 3f2a --tools refund.py:tools", footer=STORED)
@takes_run
@takes_store
@takes_worker
def resume(options: Options) -> int:
    """
    Resume a run.

    One that has ended is left as it is: its outcome is reported again, with the exit code that it had.
    """
    from ..driving import driven

    return driven(options, lambda vm, run_id: vm.resume(run_id), "resume")
