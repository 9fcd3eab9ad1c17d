"""``nano-vm explain``."""

from __future__ import annotations

from ..grammar import Options, command
from ..parameters import takes_host, takes_program


@command()
@takes_program
@takes_host
def explain(options: Options) -> int:
    """Print the plan: what is executed, operation by operation."""
    from ..inspect import explain

    return explain(options)
