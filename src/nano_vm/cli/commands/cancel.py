"""``nano-vm cancel``."""

from __future__ import annotations

from ..grammar import Options, command, option
from ..parameters import STORED, takes_run, takes_store, takes_worker


@command(examples="nano-vm cancel 3f2a --tools refund.py:tools", footer=STORED)
@takes_run
@option("--by", metavar="NAME", help="who wants it; default: your account")
@takes_store
@takes_worker
def cancel(options: Options) -> int:
    """Cancel a run, and undo what it did."""
    from ..runs import cancel

    return cancel(options)
