"""``nano-vm resolve``."""

from __future__ import annotations

from ..grammar import Options, argument, command, flag, only_one, option
from ..parameters import STORED, takes_run, takes_signing_key, takes_store

EXAMPLES = """\
nano-vm resolve 3f2a pay --done '"receipt 77"' --by ann     it took place, and gave this
nano-vm resolve 3f2a pay --retry --by ann                   it did not: make it
"""


@command(examples=EXAMPLES, footer=STORED)
@takes_run
@argument("path", help="of the call, as 'show' prints it")
@option("--done", metavar="JSON", help="it took place, and this is its output (or @FILE)")
@flag("--retry", help="it did not take place: make it again")
@option("--fail", metavar="REASON", help="it failed")
@option("--by", metavar="NAME", help="who says so; default: your account")
@takes_store
@takes_signing_key
def resolve(options: Options) -> int:
    """Record the outcome of a call whose result is unknown."""
    from ..runs import resolve

    only_one(options, "--done", "--retry", "--fail", required=True)
    return resolve(options)
