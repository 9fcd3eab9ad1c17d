"""``nano-vm store``."""

from __future__ import annotations

import click

from .. import completion
from ..grammar import Group, Options, argument, command, flag, option, values
from ..parameters import AGE, STORED, takes_public_keys, takes_signing_key, takes_store


@click.command(cls=Group)
def store() -> None:
    """Look after a store."""


@command(footer=STORED)
@option(
    "--older-than",
    required=True,
    type=AGE,
    metavar="AGE",
    help="that ended before: 30d, 12h, ...",
)
@values(
    "--status",
    type=click.Choice(("success", "failed", "cancelled")),
    metavar="STATUS",
    help="only these: success, failed, cancelled; repeat for more",
)
@flag("--dry-run", help="only list the runs that would be deleted")
@flag("--yes", help="do not ask; without a terminal nobody is asked")
@takes_store
@takes_signing_key
def prune(options: Options) -> int:
    """Delete runs that ended long ago."""
    from ..upkeep import prune

    return prune(options)


@command(footer=STORED)
@argument(
    "run",
    nargs=-1,
    metavar="[RUN]...",
    help="the runs; default: all",
    shell_complete=completion.run_ids,
)
@option(
    "-o",
    "--output",
    metavar="FILE",
    help="write to FILE, not to stdout",
    shell_complete=completion.files,
)
@takes_store
def export(options: Options) -> int:
    """Write runs as JSON Lines, with all that is needed to verify and replay them."""
    from ..upkeep import export

    return export(options)


@command("import", footer=STORED)
@argument("file", help="(- is standard input)", shell_complete=completion.files)
@flag(
    "--unfinished",
    help="import also runs that have not ended: only if the other store is given up",
)
@takes_store
@takes_signing_key
def import_(options: Options) -> int:
    """Import runs that 'store export' wrote, all or nothing."""
    from ..upkeep import import_

    return import_(options)


@command(footer=STORED)
@option(
    "--head",
    metavar="NUMBER:HASH",
    help="what 'store head' printed before: its receipt must still be there",
)
@takes_store
@takes_public_keys
def check(options: Options) -> int:
    """Look for damage: checksums, hashes, references, seals, signatures and receipts."""
    from ..upkeep import check

    return check(options)


@command(footer=STORED)
@takes_store
def accept(options: Options) -> int:
    """
    Use a file of SQLite as it is whose log is missing.

    A file of SQLite that was copied without its log while it was in use, or restored from a backup
    that was taken then, is of an earlier moment: going on with its runs would make calls again that
    were made since. So a command that would is refused, until this one says that the file is to be
    used as it is.
    """
    from ..upkeep import accept

    return accept(options)


@command(footer=STORED)
@takes_store
def head(options: Options) -> int:
    """Print number and hash of the newest receipt, to be kept elsewhere."""
    from ..upkeep import head

    return head(options)


@command(footer=STORED)
@argument("run", help="the run's whole id", shell_complete=completion.run_ids)
@takes_store
@takes_signing_key
def erase(options: Options) -> int:
    """
    Erase the values of a run that has ended; its seal still verifies.

    Its inputs, requests and outputs are erased. What happened when stays, and the seal still
    verifies; values that other runs have too stay with them.
    """
    from ..upkeep import erase

    return erase(options)


for made in (prune, export, import_, check, accept, head, erase):
    store.add_command(made)
