"""Runs of an exported file, taken into a database: all or nothing."""

from __future__ import annotations

from collections.abc import Iterable
from struct import error as WrongNumber

from ...errors import StoreError
from ..receipts import HAS_ENDED, Entry
from ..records import (
    ENDED,
    SUSPENDED,
    StoredRun,
)
from ..signing import SigningKey
from ..sql import accounts, events, listing, receipts
from ..transfer import document_digest, read_export, run_lines
from ..waits import matched
from .cells import Bodies, message_cell, rows_cells, run_cells
from .database import Connection, Database
from .read import loaded
from .writer import insert_rows, settle


def import_(
    database: Database, stream: Iterable[str], *, unfinished: bool, signer: SigningKey | None = None
) -> list[str]:
    """Take in the runs of a file, all or nothing; the ids of those that were not there."""
    taken: list[str] = []
    entries: list[Entry] = []
    with database.writing() as connection:
        for run in read_export(stream):
            if run.status not in ENDED and not unfinished:
                raise StoreError(
                    f"run {run.run_id!r} is {run.status}: two databases that both go on with it "
                    f"would make its calls twice; "
                    "take it in as unfinished if the other one is given up"
                )
            try:
                new = _take(connection, run)
            except (OverflowError, WrongNumber) as error:
                raise StoreError(
                    f"run {run.run_id!r} holds a number that no database keeps: {error}"
                ) from error
            if new:
                taken.append(run.run_id)
                if run.status in ENDED:
                    entries.append(Entry(HAS_ENDED, run.run_id, run.seal or "", run.finished_ns))
        receipts.add(connection, entries, signer)
    return taken


def _take(connection: Connection, run: StoredRun) -> bool:
    """Insert a run; False where the same is there."""
    keys = connection.database.keys
    bodies = Bodies(keys, run.project)
    columns = run_cells(run, bodies) | {"fence": 1, "owner": None, "row_count": len(run.rows)}
    found = connection.one(
        f"INSERT INTO nano_runs ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))}) "
        "ON CONFLICT (run_id) DO NOTHING RETURNING key",
        *columns.values(),
    )
    if found is None:
        there = loaded(connection, run.run_id)
        if _lines(there) != _lines(run):
            raise StoreError(
                f"there is a run {run.run_id!r} with other content; nothing was changed"
            )
        return False
    key = run.key = int(found[0])
    listing.index_labels(connection, run)
    insert_rows(connection, [(key, 0, rows_cells(run.rows, bodies))])
    messages = [(message, 0) for message in run.inbox] + [(message, 1) for message in run.decided]
    connection.many(
        "INSERT INTO nano_inbox (run, kind, message, signature, used) VALUES (?, ?, ?, ?, ?)",
        [
            (
                key,
                message.kind,
                message_cell(message, keys, run.project),
                message.signature,
                used,
            )
            for message, used in messages
        ],
    )
    if run.status == SUSPENDED:
        events.register(connection, {key: ((), matched(run.waiting))})
    settle(connection, bodies)
    # of a run that a cluster had, whose worker died on the way
    accounts.charge(connection, [run.run_id])
    return True


def _lines(run: StoredRun) -> list[str]:
    return list(run_lines(run, document_digest(run)))
