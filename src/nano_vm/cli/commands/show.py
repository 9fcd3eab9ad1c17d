"""``nano-vm show``."""

from __future__ import annotations

from ..grammar import Options, command
from ..parameters import STORED, takes_run, takes_store


@command(examples="nano-vm show 3f2a --store sqlite:///runs.db", footer=STORED)
@takes_run
@takes_store
def show(options: Options) -> int:
    """
    Show a run: what it did and why it took its path, and what it waits for, with the commands that
    answer it.

    An approval is given for what was shown: its digest stands with the request, and 'approve' is
    refused where the run asks something else by then.
    """
    from ..runs import show

    return show(options)
