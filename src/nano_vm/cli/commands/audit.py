"""``nano-vm audit``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from ...visible import safe_json
from ..faults import FAILED, OK, UsageFault
from ..grammar import Group, Options, command
from ..output import emit_json, note, say
from ..parameters import STORED, takes_store
from ..text import safe

if TYPE_CHECKING:
    from ...server.rows import Tables


@click.command(cls=Group)
def audit() -> None:
    """Verify and export the audit log of a server."""


@command(footer=STORED)
@takes_store
def verify(options: Options) -> int:
    """
    Hold the audit log against its hashes: entries that were changed, left out or moved are found.

    The exit code is 0 where it is as it was written, and 1 where it is not.
    """
    from ...server import audit as log

    with _tables(options) as tables, tables.reading() as rows:
        found = list(log.faults(rows))
        head = log.head(rows)
    if options.json:
        emit_json({"faults": found, "head": head})
    else:
        for fault in found:
            say(safe(fault))
        if not found:
            say(f"the log is as it was written; its head is {head}")
    return FAILED if found else OK


@command(footer=STORED)
@takes_store
def export(options: Options) -> int:
    """Print the audit log, oldest first, an entry a line as JSON."""
    from ...server import audit as log

    count = 0
    with _tables(options) as tables:
        for line in log.lines(tables):
            say(safe_json(line.decode()))
            count += 1
    note(f"nano-vm: {count} entries")
    return OK


@contextmanager
def _tables(options: Options) -> Iterator[Tables]:
    """The server's tables in the store that is named.

    Raises:
        UsageFault: If there is no such store.
    """
    from ...errors import StoreError
    from ...server.rows import Tables
    from ...store.protocol import open_tables
    from ..stores import existing, named

    url = named(options.store)
    existing(url)
    try:
        store = open_tables(url)
    except StoreError as error:
        raise UsageFault(f"--store: {error}") from None
    try:
        yield Tables(store)
    finally:
        store.close()


for made in (verify, export):
    audit.add_command(made)
