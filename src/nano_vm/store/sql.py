"""`SqlStore`: runs in SQLite or PostgreSQL.

What writes goes through the one `Writer` of this object, and so into transactions with whatever else waits; what reads has connections
of its own. Several processes may have the same database open.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from hashlib import sha256
from typing import Any

from ..errors import StoreError, UnknownRun
from . import ENDED, PENDING, RUNNING, SUSPENDED, Append, Message, StoredRun
from .cells import (
    CELLS,
    Bodies,
    decoded,
    hashes_in,
    message_cell,
    message_of,
    row_crc,
    row_of,
    run_cells,
    run_crc,
    run_of,
)
from .database import Connection, Database
from .schema import RUN_FIELDS
from .writer import Job, Writer

PAGE_RUNS = 200
"""Headers that `runs` reads at once; between pages it holds nothing, so a slow reader keeps nobody waiting."""

_HEADER = f"SELECT {', '.join(RUN_FIELDS)}, crc FROM nano_runs"
_LIVE = "EXISTS (SELECT 1 FROM nano_owners WHERE nano_owners.owner = nano_runs.owner AND nano_owners.until_ns >= ?)"
_CLAIMABLE = {
    PENDING: f"status = '{PENDING}'",
    RUNNING: f"status = '{RUNNING}'",
    SUSPENDED: f"status = '{SUSPENDED}' AND wake_ns IS NOT NULL AND wake_ns <= ?",
    "sent": f"status = '{SUSPENDED}' AND key IN (SELECT run FROM nano_inbox WHERE used = 0 AND kind <> 'kept')",
}
"""Runs that somebody should take up if nobody has them, each by an index."""


class SqlStore:
    """A `Store` in a database: ``sqlite:///runs.db``, ``sqlite://`` (in memory, for tests) or ``postgresql://user@host/name``.

    *synchronous* is SQLite's: with ``FULL`` what was acknowledged survives a loss of power. With ``NORMAL`` it survives a crash of the
    process, but a loss of power or a crash of the system can take the last transactions with it; the database stays sound, and a
    call with an effect that they recorded may then be made again. *busy_timeout_seconds* is how long to wait for another process that
    writes.

    Raises:
        MissingExtra: If ``psycopg`` is needed and not installed.
        StoreError: If the database cannot be opened or made, or is from a newer version.
    """

    def __init__(self, url: str, *, synchronous: str = "FULL", busy_timeout_seconds: float = 30.0) -> None:
        self.database = Database(url, synchronous, busy_timeout_seconds)
        self.writer = Writer(self.database)

    # --- a run's life ---

    def create(self, run: StoredRun) -> bool:
        """See `Store.create`."""
        return bool(self.written(self._creation(run)))

    async def begin(self, run: StoredRun) -> bool:
        """See `Store.begin`."""
        return bool(await asyncio.wrap_future(self.writer.submit(self._creation(run))))

    def append(self, item: Append) -> asyncio.Future[None]:
        """See `Store.append`."""
        return self.writer.append(item)

    def claim(self, run_id: str, owner: str, now_ns: int) -> int | None:
        """See `Store.claim`."""

        def job(connection: Connection, _: Bodies) -> int | None:
            if not self.database.lite:  # else who waits for the other's commit judges it by a state from before
                connection.one("SELECT key FROM nano_runs WHERE run_id = ? FOR UPDATE", run_id)
            found = connection.one(
                f"UPDATE nano_runs SET owner = ?, fence = fence + 1, status = '{RUNNING}' "
                f"WHERE run_id = ? AND status IN ('{PENDING}', '{RUNNING}', '{SUSPENDED}') AND (owner IS NULL OR NOT {_LIVE}) "
                "RETURNING fence",
                owner,
                run_id,
                now_ns,
            )
            return None if found is None else int(found[0])

        fence = self.written(job)
        if fence is None:
            self.key_of(run_id)  # UnknownRun, where there is none
        return fence  # type: ignore[no-any-return]

    def heartbeat(self, owner: str, until_ns: int) -> None:
        """See `Store.heartbeat`."""
        self.written(
            lambda connection, _: connection.run(
                "INSERT INTO nano_owners (owner, until_ns) VALUES (?, ?) "
                "ON CONFLICT (owner) DO UPDATE SET until_ns = excluded.until_ns",
                owner,
                until_ns,
            )
        )

    def forget_owner(self, owner: str) -> None:
        """See `Store.forget_owner`."""
        self.written(lambda connection, _: connection.run("DELETE FROM nano_owners WHERE owner = ?", owner))

    def owners(self) -> Mapping[str, int]:
        """See `Store.owners`."""
        with self.database.reading() as connection:
            return dict(connection.all("SELECT owner, until_ns FROM nano_owners ORDER BY owner"))

    def claimable(self, now_ns: int, limit: int, only: str | None = None) -> list[str]:
        """See `Store.claimable`."""
        found: dict[int, str] = {}
        with self.database.reading() as connection:
            for name, clause in _CLAIMABLE.items():
                if only is not None and only != (SUSPENDED if name == "sent" else name):
                    continue
                given = [now_ns] * (clause.count("?") + 1)
                text = f"SELECT key, run_id FROM nano_runs WHERE {clause} AND (owner IS NULL OR NOT {_LIVE}) ORDER BY key LIMIT ?"
                found.update(connection.all(text, *given, limit))
        return [found[key] for key in sorted(found)][:limit]

    def send(self, run_id: str, message: Message) -> None:
        """See `Store.send`."""

        def job(connection: Connection, _: Bodies) -> None:
            lock = "" if self.database.lite else " FOR SHARE"
            run = connection.one(f"SELECT key, status FROM nano_runs WHERE run_id = ?{lock}", run_id)
            if run is None:
                raise unknown(run_id)
            if run[1] in ENDED and message.kind != "outcome":
                raise StoreError(f"run {run_id!r} has ended ({run[1]}); there is nothing to send to it")
            connection.run(
                "INSERT INTO nano_inbox (run, kind, message, used) VALUES (?, ?, ?, 0)", run[0], message.kind, cell
            )

        cell = message_cell(message)
        self.written(job)

    # --- reading ---

    def load(self, run_id: str, *, rows: bool = True) -> StoredRun:
        """See `Store.load`. Equal values of a run are one object: change none."""
        with self.database.reading() as connection:
            fields = connection.one(f"{_HEADER} WHERE run_id = ?", run_id)
            if fields is None:
                raise unknown(run_id)
            key = fields[0]
            stored = connection.all(_ROWS_OF, key) if rows else []
            messages = connection.all("SELECT id, message FROM nano_inbox WHERE run = ? AND used = 0 ORDER BY id", key)
            values = self._values(connection, [fields], stored, run_id)
        return assembled(fields, stored, messages, values)

    def runs(self, **filters: Any) -> Iterator[StoredRun]:
        """See `Store.runs`; ``status`` may be several. Each has its document too, but no rows and no inbox."""
        where, given, limit = _where(**filters)
        after: tuple[Any, ...] = ()
        while limit is None or limit > 0:
            size = PAGE_RUNS if limit is None else min(limit, PAGE_RUNS)
            clauses = [*where, *(["(created_ns, key) < (?, ?)"] if after else [])]
            text = f"{_HEADER}{' WHERE ' if clauses else ''}{' AND '.join(clauses)} ORDER BY created_ns DESC, key DESC LIMIT ?"
            with self.database.reading() as connection:
                page = connection.all(text, *given, *after, size)
                values = self._values(connection, page, [], self.database.name)
            for fields in page:
                yield assembled(fields, [], [], values)
            if len(page) < size:
                return
            limit = None if limit is None else limit - size
            after = (page[-1][_CREATED], page[-1][0])

    def key_of(self, run_id: str) -> int:
        """The store's own number of a run.

        Raises:
            UnknownRun: If there is none.
        """
        with self.database.reading() as connection:
            found = connection.one("SELECT key FROM nano_runs WHERE run_id = ?", run_id)
        if found is None:
            raise unknown(run_id)
        return int(found[0])

    def close(self) -> None:
        """See `Store.close`."""
        self.writer.close()
        self.database.close()

    def __enter__(self) -> SqlStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- inside ---

    def written(self, job: Job) -> Any:
        """What *job* gave, when it is durable."""
        return self.writer.submit(job).result()

    def _creation(self, run: StoredRun) -> Job:
        bodies = Bodies()
        columns = run_cells(run, bodies) | {"fence": 1}

        def job(connection: Connection, added: Bodies) -> bool:
            found = connection.one(
                f"INSERT INTO nano_runs ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))}) "
                "ON CONFLICT (run_id) DO NOTHING RETURNING key",
                *columns.values(),
            )
            if found is None:
                return False
            added.add(bodies)
            run.key, run.fence = int(found[0]), 1
            return True

        return job

    def _values(
        self, connection: Connection, headers: Sequence[Sequence[Any]], rows: Sequence[Sequence[Any]], where: str
    ) -> dict[bytes | None, Any]:
        """The values of all their cells."""
        cells = [fields[at] for fields in headers for at in _CELLS_AT]
        cells += [cell for row in rows for cell in row[8:11]]
        return decoded(cells, bodies_of(connection, hashes_in(cells)), where)


_ROWS_OF = (
    "SELECT seq, kind, frame, path, type, status, started_ns, lasted_ns, request, output, rest, crc FROM nano_rows "
    "WHERE run = ? ORDER BY seq"
)
_CREATED = RUN_FIELDS.index("created_ns")
_CELLS_AT = [RUN_FIELDS.index(name) for name in RUN_FIELDS if name in CELLS]


def unknown(run_id: str) -> UnknownRun:
    """That there is no such run."""
    return UnknownRun(f"there is no run {run_id!r} in this store")


def bodies_of(connection: Connection, hashes: Sequence[bytes]) -> dict[bytes, bytes]:
    """The texts of values; one that does not fit its hash is left out, as if it were not there."""
    found = connection.among("SELECT hash, body FROM nano_contents WHERE hash IN (*)", hashes)
    return {digest: body for digest, body in found if sha256(body).digest() == digest}


def assembled(
    fields: Sequence[Any],
    rows: Sequence[Sequence[Any]],
    messages: Sequence[Sequence[Any]],
    values: Mapping[bytes | None, Any],
) -> StoredRun:
    """A run of what the tables hold of it.

    Raises:
        StoreError: If it was damaged where it lies.
    """
    named = dict(zip(RUN_FIELDS, fields, strict=False))
    if run_crc(named) != fields[-1]:
        raise damaged(named["run_id"], "its header")
    key = fields[0]
    for at, row in enumerate(rows):
        if row[0] != at or row_crc(key, at, row[1:11]) != row[11]:
            raise damaged(named["run_id"], f"row {at}")
    run = run_of(named, values)
    run.rows = [row_of(row[1:11], values) for row in rows]
    run.inbox = [message_of(*message) for message in messages]
    return run


def damaged(run_id: str, what: str) -> StoreError:
    """That what was read is not what was written."""
    return StoreError(f"run {run_id!r}: {what} is not what was written; the database is damaged: restore a copy")


def _where(
    *,
    status: str | Sequence[str] | None = None,
    program: str | None = None,
    since_ns: int | None = None,
    until_ns: int | None = None,
    min_cost_usd: Decimal | float | str | None = None,
    limit: int | None = None,
) -> tuple[list[str], list[Any], int | None]:
    """The clauses of a filter, and their values."""
    clauses: list[str] = []
    given: list[Any] = []
    if status is not None:
        statuses = [status] if isinstance(status, str) else list(status)
        clauses.append(f"status IN ({', '.join('?' * len(statuses))})" if statuses else "1 = 0")
        given += statuses
    for clause, value in (("program_name = ?", program), ("created_ns >= ?", since_ns), ("created_ns < ?", until_ns)):
        if value is not None:
            clauses.append(clause)
            given.append(value)
    if min_cost_usd is not None:
        clauses.append("CAST(cost_usd AS NUMERIC) >= CAST(? AS NUMERIC)")
        given.append(str(min_cost_usd))
    return clauses, given, limit
