"""`SqlStore`: runs in SQLite or PostgreSQL.

What writes goes through the one `Writer` of this object, and so into transactions with whatever
else waits; what reads has connections of its own. Several processes may have the same database
open.
"""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from hashlib import sha256
from pathlib import Path
from typing import IO, Any, TypeVar

from ...errors import StoreError, UnknownRun
from ...language.kinds import TYPES
from ...values import canonical
from ..accounts import Amount, Reservation, Shortage, Standing
from ..clock import machine_clock
from ..encryption import StoreKeys
from ..kept import KeptAnswer
from ..limits import CallLimits, Entered
from ..protocol import (
    ALL_RUNS,
    PAGE_RUNS,
    Announced,
    Append,
    Claim,
    Cost,
    Ear,
    Ended,
    Judge,
    RunFilter,
    RunPage,
    RunState,
    Sums,
    TableStore,
    Told,
    Transaction,
    checked_groups,
)
from ..receipts import HAS_ENDED, Entry, Receipt
from ..records import ENDED, PENDING, RUNNING, STEP, SUSPENDED, UNENDED, Message, Row, StoredRun
from ..seals import seal_of, signed, signed_message
from ..signing import PUBLIC_HEX, SigningKey, public_keys
from ..sql import accounts, events, intake, listing, receipts, upkeep
from ..sql import kept as answers
from ..sql import limits as windows
from ..transfer import export
from ..waits import Entry as WaitEntry
from .cells import Bodies, message_cell, rows_cells, run_cells
from .database import Connection, Database, marks, padded, parts
from .read import INBOX, headers, loaded, loaded_each, rows_after, unknown
from .schema import SCHEMA_VERSION
from .writer import Job, Writer, insert_rows

T = TypeVar("T")

LAST_CHARACTER = "\x7f"
"""Comes after all that an id has."""

LONGEST_LEASE_NS = 24 * 3600 * 10**9
"""A time further ahead is none of this clock, and its owner is not taken to live."""

FORGOTTEN_NS = 7 * LONGEST_LEASE_NS
"""How long after its time was over an owner is listed still. One that is not listed counts as gone.
"""

HELD_SECONDS = 0.005
"""How soon to ask again for what another transaction holds: they last a few milliseconds."""

# the owner of a run, unless it was forgotten
_LISTED = "(SELECT owner FROM nano_owners WHERE nano_owners.owner = nano_runs.owner)"
_CLAIMED_STATUSES = f"('{PENDING}', '{RUNNING}', '{SUSPENDED}')"
_HOSTS = "nano_hosts"
_APPROVAL = TYPES.index("approval")
# runs that a worker should claim if they have no owner, and the order that their index has them in
_CLAIMABLE = {
    PENDING: (f"status = '{PENDING}'", "created_ns"),
    RUNNING: (f"status = '{RUNNING}'", "created_ns"),
    SUSPENDED: (f"status = '{SUSPENDED}' AND wake_ns IS NOT NULL AND wake_ns <= ?", "wake_ns"),
    # the operators keep planners from walking all suspended runs, or all in the order of their keys
    "sent": (
        f"status || '' = '{SUSPENDED}' AND key IN (SELECT run FROM nano_inbox WHERE used = 0)",
        "+key",
    ),
}


MOST_LOOKED_AT = 5 * PAGE_RUNS
"""Suspended runs that are looked at for a page of those that wait for something."""


class _Documents:
    """Documents as they are stored. Runs of one program share theirs, which nobody changes; so what
    was made of the last is kept.
    """

    def __init__(self) -> None:
        self._last: tuple[Any, bytes, str] = (None, b"", "")

    def encoded(self, document: dict[str, Any]) -> tuple[bytes, str]:
        """The canonical bytes of *document*, and their hash."""
        known, body, digest = self._last
        if known is not document:
            body = canonical(document)
            digest = sha256(body).hexdigest()
            self._last = document, body, digest
        return body, digest


class SqlStore(TableStore):
    """A `Store` in a database: ``sqlite:///runs.db``, ``sqlite://`` (in memory, for tests) or
    ``postgresql://user@host/name``.

    *synchronous* is SQLite's: with ``FULL`` what was acknowledged survives a loss of power. With
    ``NORMAL`` it survives a crash of the process, but a loss of power or a crash of the system can
    take the last transactions with it; the database stays sound, and a call with an effect that
    they recorded may then be made again. *busy_timeout_seconds* is how long to wait for another
    process that writes. With *read_only* nothing is written, and a file of SQLite may lie where
    nothing can be. *accept* takes a file whose log is missing as it is, and *upgrade* makes tables
    of an older version those of this one, by the revisions in `migrations`. One that is
    stopped while it writes keeps others from writing to SQLite; PostgreSQL takes its transaction
    from it. *keys* encrypt the values of runs: by default those that the environment names.

    Raises:
        MissingExtra: If ``psycopg`` is needed and not installed.
        StoreError: If the database cannot be opened or made, or is of another version.
    """

    def __init__(
        self,
        url: str,
        *,
        synchronous: str = "FULL",
        busy_timeout_seconds: float = 30.0,
        clock: Callable[[], int] | None = None,
        signing_key: str | Path | bytes | SigningKey | None = None,
        read_only: bool = False,
        accept: bool = False,
        upgrade: bool = False,
        keys: StoreKeys | None = None,
    ) -> None:
        signer = SigningKey.load(signing_key) if signing_key is not None else None
        self.database = Database(
            url,
            synchronous,
            busy_timeout_seconds,
            read_only=read_only,
            accept=accept,
            upgrade=upgrade,
            keys=StoreKeys.from_environment() if keys is None else keys,
        )
        self.writer = Writer(self.database)
        self.writer.signer = signer
        self._clock = clock or machine_clock()  # of leases in SQLite; a server has its own
        self._documents: dict[bytes, Any] = {}
        self._new_documents = _Documents()
        self._also: Callable[[Transaction], None] | None = None  # see `along`

    def reading(self) -> AbstractContextManager[Transaction]:
        """See `TableStore.reading`."""
        return self.database.reading()

    def transact(self, job: Callable[[Transaction], T]) -> T:
        """See `TableStore.transact`."""
        return self.written(lambda connection, _: job(connection))  # type: ignore[no-any-return]

    def along(self, also: Callable[[Transaction], None]) -> SqlStore:
        """See `TableStore.along`."""
        other = copy.copy(self)
        other._also = also
        return other

    @property
    def signer(self) -> SigningKey | None:
        """What signs all that is written through this object."""
        return self.writer.signer

    @signer.setter
    def signer(self, key: SigningKey | None) -> None:
        self.writer.signer = key

    # --- a run's life ---

    def create(self, run: StoredRun) -> bool:
        """See `Store.create`."""
        return bool(self.written(self._creation(run)))

    async def begin(self, run: StoredRun, *, again: bool = False) -> bool:
        """See `Store.begin`."""
        job = self._creation(run, again)
        if self._also is not None:  # which may take any lock
            return bool(await self.writer.job(job))
        return bool(await self.writer.creation(job, run.run_id))

    def append(self, item: Append) -> asyncio.Future[None]:
        """See `Store.append`."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.writer.give(item, future)
        return future

    def give(self, item: Append, told: Told) -> None:
        """See `Store.give`."""
        self.writer.give(item, told)

    @property
    def one_machine(self) -> bool:
        """See `Store.one_machine`: SQLite's log lies in memory that its processes share."""
        return self.database.dialect.one_machine

    def claim(
        self,
        run_ids: Sequence[str],
        owner: str,
        now_ns: int,
        *,
        most: int = 1,
        alive: Callable[[str], bool] = lambda _: False,
    ) -> dict[str, Claim]:
        """See `Store.claim`."""

        def job(connection: Connection, _: Bodies) -> dict[str, Claim]:
            free, given = self._free([owner], ())
            claimable = f"status IN {_CLAIMED_STATUSES} AND {free}"
            lock = (
                self.database.dialect.skip_locked
            )  # nobody waits for another who claims or appends
            found: dict[int, str] = {}
            for ids in map(padded, parts(run_ids)):
                text = (
                    f"SELECT key, status, {_LISTED} FROM nano_runs "
                    f"WHERE run_id IN ({marks(ids)}) AND {claimable} ORDER BY key LIMIT ?"
                )
                looked = connection.all(text + lock, *ids, *given, most - len(found))
                found |= {
                    key: status
                    for key, status, listed in looked
                    if listed in (None, owner) or not alive(listed)
                }
            if not found:
                return {}
            # a second look, now that nobody changes them: the first may have been from before another's claim
            keys = padded(list(found))
            taken = connection.all(
                f"UPDATE nano_runs SET owner = ?, fence = fence + 1, status = '{RUNNING}', "
                "started_ns = CASE WHEN started_ns = 0 THEN ? ELSE started_ns END "
                f"WHERE key IN ({marks(keys)}) AND {claimable} RETURNING key, run_id, fence",
                owner,
                now_ns,
                *keys,
                *given,
            )
            accounts.charge(connection, [str(run_id) for _, run_id, _ in taken])
            return {str(run_id): Claim(int(fence), found[key]) for key, run_id, fence in taken}

        claimed: dict[str, Claim] = self.written(job, again=True)
        return claimed

    def heartbeat(self, owner: str, seconds: float) -> None:
        """See `Store.heartbeat`."""
        lasts = min(int(seconds * 1e9), LONGEST_LEASE_NS)
        self.written(
            lambda connection, _: connection.run(
                f"INSERT INTO nano_owners (owner, until_ns) VALUES (?, {self._now()} + ?) "
                "ON CONFLICT (owner) DO UPDATE SET until_ns = excluded.until_ns",
                owner,
                lasts,
            ),
            again=True,
        )

    def forget_owner(self, owner: str) -> None:
        """See `Store.forget_owner`."""
        self.written(
            lambda connection, _: connection.run("DELETE FROM nano_owners WHERE owner = ?", owner)
        )

    def owned(self, owner: str) -> dict[str, tuple[int, int]]:
        """See `Store.owned`."""
        text = (
            f"SELECT run_id, key, fence FROM nano_runs WHERE status = '{RUNNING}' AND owner = "
            f"? ORDER BY key"
        )
        with self.database.reading() as connection:
            return {run_id: (key, fence) for run_id, key, fence in connection.all(text, owner)}

    def owners(self) -> Mapping[str, float]:
        """See `Store.owners`."""
        with self.database.reading() as connection:
            found = connection.all(
                f"SELECT owner, until_ns - {self._now()} FROM nano_owners ORDER BY owner"
            )
        return {owner: -1.0 if left > LONGEST_LEASE_NS else left / 1e9 for owner, left in found}

    def claimable(
        self, now_ns: int, limit: int, only: str | None = None, *, spare: Collection[str] = ()
    ) -> dict[str, str]:
        """See `Store.claimable`."""
        free, spared = self._free((), spare)
        texts: list[str] = []
        given: list[Any] = []
        for name, (clause, order) in _CLAIMABLE.items():
            if only is not None and only != (SUSPENDED if name == "sent" else name):
                continue
            texts.append(
                f"SELECT * FROM (SELECT key, run_id, program_digest FROM nano_runs WHERE {clause} "
                f"AND {free} ORDER BY {order} LIMIT ?) AS {name}_runs"
            )
            given += [*[now_ns] * clause.count("?"), *spared, limit]
        with self.database.reading() as connection:
            rows = connection.all(" UNION ALL ".join(texts), *given)
        found = {key: (run_id, digest) for key, run_id, digest in rows}
        return dict([found[key] for key in sorted(found)][:limit])

    def _now(self) -> str:
        """The present by the clock of leases, as an expression of SQL."""
        return self.database.dialect.now(self._clock)

    def _free(self, own: Collection[str], spare: Collection[str]) -> tuple[str, list[str]]:
        """A clause for runs that nobody has but *own*, where *spare* live whatever the clock says;
        and its values.
        """
        now = self._now()
        lives = (
            "EXISTS (SELECT 1 FROM nano_owners WHERE nano_owners.owner = nano_runs.owner "
            f"AND nano_owners.until_ns >= {now} AND nano_owners.until_ns <= {now} + "
            f"{LONGEST_LEASE_NS})"
        )
        spared = f" AND owner NOT IN ({marks(spare)})" if spare else ""
        owned = f" OR owner IN ({marks(own)})" if own else ""
        return f"(owner IS NULL{owned} OR (NOT {lives}{spared}))", [*own, *spare]

    def send(self, run_id: str, message: Message) -> None:
        """See `Store.send`."""

        def job(connection: Connection, _: Bodies) -> None:
            lock = self.database.dialect.for_share
            run = connection.one(
                f"SELECT key, status, project FROM nano_runs WHERE run_id = ?{lock}", run_id
            )
            if run is None:
                raise unknown(run_id)
            if run[1] in ENDED and message.kind != "outcome":
                raise StoreError(
                    f"run {run_id!r} has ended ({run[1]}); there is nothing to send to it"
                )
            self._keep(connection, run[0], run_id, run[2], message)

        self.written(job)

    def decide(self, run_id: str, judge: Judge, path: str | None = None) -> Message:
        """See `Store.decide`."""

        def job(connection: Connection, _: Bodies) -> Message:
            self._hold(connection, "run_id", run_id)
            run = loaded(connection, run_id, rows=False, documents=self._documents)
            ended = path is not None and connection.one(
                f"SELECT 1 FROM nano_rows WHERE run = ? AND path = ? AND kind = {STEP} AND type = "
                f"{_APPROVAL} LIMIT 1",
                run.key,
                path,
            )
            message = judge(run, bool(ended))
            self._keep(connection, run.key, run_id, run.project, message)
            if message.kind == "event" and "id" in message.body:
                events.withdraw(connection, run.key, message.name, message.body["id"])
            self._accompany(connection)
            return message

        return self._held(job)  # type: ignore[no-any-return]

    def post(
        self, name: str, payload: Mapping[str, Any], write: Callable[[list[WaitEntry]], Message]
    ) -> bool:
        """See `Store.post`."""

        def job(connection: Connection, _: Bodies) -> bool:
            kept = events.post(connection, name, payload, write, self.signer)
            if kept:
                self._accompany(connection)
            return bool(kept)

        return bool(self.written(job))

    def deliver(self, trusted: frozenset[str] | None = None) -> list[str]:
        """See `Store.deliver`."""
        given: list[str] = []
        while True:
            with self.database.reading() as connection:
                if not events.is_left(connection):
                    return given
            try:
                run_id = self._held(lambda connection, _: events.look(connection, trusted))
            except events.Held:
                # whoever holds it for so long looks itself, or leaves it to the next
                return given
            if run_id is not None:
                given.append(run_id)

    def cancelled(self, keys: Sequence[int]) -> list[int]:
        """See `Store.cancelled`."""
        with self.database.reading() as connection:
            text = (
                "SELECT DISTINCT run FROM nano_inbox WHERE used = 0 AND kind = 'cancel' AND "
                "run IN (*)"
            )
            return [key for (key,) in connection.among(text, keys)]

    def _hold(self, connection: Connection, column: str, value: Any) -> None:
        """Hold a run until the transaction ends, without waiting for who holds it: two that wait
        for each other would both fail.
        """
        if self.database.dialect.alone:
            return
        if (
            connection.one(
                f"SELECT key FROM nano_runs WHERE {column} = ?{self.database.dialect.skip_locked}",
                value,
            )
            is None
        ):
            if connection.one(f"SELECT key FROM nano_runs WHERE {column} = ?", value) is not None:
                raise events.Held(f"run {value!r} is held by another transaction")

    def _held(self, job: Job) -> Any:
        """What *job* gave, as `written`; it is tried again where what it needs is held."""
        until = time.monotonic() + self.database.busy_timeout_seconds
        while True:
            try:
                return self.written(job)
            except events.Held:
                if time.monotonic() > until:
                    raise
                time.sleep(HELD_SECONDS)

    def _accompany(self, connection: Connection) -> None:
        if self._also is not None:
            self._also(connection)

    def _keep(
        self, connection: Connection, key: int, run_id: str, project: str, message: Message
    ) -> None:
        """Put a message into the inbox of a run."""
        connection.run(
            "INSERT INTO nano_inbox (run, kind, message, signature, used) VALUES (?, ?, ?, ?, 0)",
            key,
            message.kind,
            message_cell(message, self.database.keys, project),
            signed_message(run_id, message, self.signer),
        )

    async def told(self, key: int) -> list[Message]:
        """See `Store.told`."""

        def job(connection: Connection, _: Bodies) -> list[Message]:
            self._hold(connection, "key", key)
            return [
                upkeep.readable(connection, f"number {key}", found)
                for *found, used in connection.all(INBOX, key)
                if used != 1
            ]

        until = time.monotonic() + self.database.busy_timeout_seconds
        while True:
            try:
                return await self.writer.job(job)  # type: ignore[no-any-return]
            except events.Held:
                if time.monotonic() > until:
                    raise
                await asyncio.sleep(HELD_SECONDS)

    # --- reading ---

    def load(self, run_id: str, *, rows: bool = True) -> StoredRun:
        """See `Store.load`. Equal values of a run are one object: change none."""
        with self.database.reading() as connection:
            return loaded(connection, run_id, rows=rows, documents=self._documents)

    def load_each(self, run_ids: Sequence[str]) -> Mapping[str, StoredRun | StoreError]:
        """See `Store.load_each`."""
        with self.database.reading() as connection:
            return loaded_each(connection, run_ids, documents=self._documents)

    def page(
        self, filter: RunFilter = ALL_RUNS, *, size: int = PAGE_RUNS, after: str | None = None
    ) -> RunPage:
        """See `Store.page`. Each run has its document too."""
        if size < 1:
            raise ValueError(f"a page has at least one run, not {size}")
        place = _place(after) if after is not None else None
        with self.database.reading() as connection:
            if filter.waiting is None:
                return _page(connection, filter, size, place)
            return _waiting(connection, filter, size, place)

    def has(self, run_id: str) -> bool:
        """See `Store.has`."""
        with self.database.reading() as connection:
            return connection.one("SELECT 1 FROM nano_runs WHERE run_id = ?", run_id) is not None

    def ids_starting_with(
        self, beginning: str, limit: int, *, project: str | None = None
    ) -> list[str]:
        """See `Store.ids_starting_with`."""
        within = "" if project is None else "AND project = ? "
        with self.database.reading() as connection:
            found = connection.all(
                f"SELECT run_id FROM nano_runs WHERE run_id >= ? AND run_id < ? {within}"
                f"ORDER BY run_id LIMIT ?",
                beginning,
                beginning + LAST_CHARACTER,
                *(() if project is None else (project,)),
                limit,
            )
        return [run_id for (run_id,) in found]

    def counts(self, statuses: Sequence[str] = UNENDED) -> dict[str, int]:
        """See `Store.counts`."""
        if not statuses:
            return {}
        marks = ", ".join("?" * len(statuses))
        with self.database.reading() as connection:
            found = connection.all(
                f"SELECT status, count(*) FROM nano_runs WHERE status IN ({marks}) "
                f"GROUP BY status ORDER BY status",
                *statuses,
            )
        return dict(found)

    def oldest(self, statuses: Sequence[str] = UNENDED) -> dict[str, int]:
        """See `Store.oldest`."""
        with self.database.reading() as connection:
            found = {
                # each is the first of its part of the index; grouped, all of them would be read
                status: connection.all(
                    "SELECT created_ns FROM nano_runs WHERE status = ? ORDER BY created_ns LIMIT 1",
                    status,
                )
                for status in statuses
            }
        return {status: rows[0][0] for status, rows in found.items() if rows}

    def rows_after(self, run_id: str, seq: int = -1, *, limit: int | None = None) -> list[Row]:
        """See `Store.rows_after`."""
        with self.database.reading() as connection:
            return rows_after(connection, run_id, seq, limit)

    def per_day(self, filter: RunFilter) -> dict[tuple[int, str], int]:
        """See `TableStore.per_day`."""
        with self.database.reading() as connection:
            return listing.per_day(connection, filter)

    def costs(self, by: Sequence[str] = ("model",), filter: RunFilter = ALL_RUNS) -> list[Cost]:
        """See `Store.costs`."""
        groups = checked_groups(by)
        with self.database.reading() as connection:
            return listing.costs(connection, groups, filter)

    def costs_of_newest(self, by: Sequence[str], filter: RunFilter, most: int) -> Sums:
        """See `TableStore.costs_of_newest`."""
        groups = checked_groups(by)
        with self.database.reading() as connection:
            return listing.costs_of_newest(connection, groups, filter, most)

    # --- budgets that runs share ---

    def reserve(self, reservation: Reservation) -> asyncio.Future[Shortage | None]:
        """See `Store.reserve`."""
        return self.writer.job(lambda connection, _: accounts.reserve(connection, reservation))

    def settle(self, id: str, used: Amount | None) -> asyncio.Future[None]:
        """See `Store.settle`."""
        return self.writer.job(lambda connection, _: accounts.settle(connection, id, used))

    def accounts(self) -> dict[str, Standing]:
        """See `Store.accounts`."""
        with self.database.reading() as connection:
            return accounts.accounts(connection)

    # --- limits that processes share ---

    def enter(
        self, call_id: str, owner: str, limits: CallLimits, tokens: int
    ) -> asyncio.Future[Entered]:
        """See `Store.enter`."""
        return self.writer.job(
            lambda connection, _: windows.enter(
                connection, call_id, owner, limits, tokens, self._now()
            )
        )

    def leave(
        self, call_id: str, limits: CallLimits, part: int, change: int
    ) -> asyncio.Future[None]:
        """See `Store.leave`."""
        return self.writer.job(
            lambda connection, _: windows.leave(connection, call_id, limits, part, change)
        )

    def standings(self, run_ids: Sequence[str]) -> dict[str, RunState]:
        """See `TableStore.standings`."""
        text = (
            "SELECT run_id, status, fence, row_count, seal, "
            "(SELECT count(*) FROM nano_inbox i WHERE i.run = r.key) "
            "FROM nano_runs r WHERE run_id IN (*)"
        )
        with self.database.reading() as connection:
            found = connection.among(text, list(run_ids))
            return {run_id: RunState(*told) for run_id, *told in found}

    def listened(self) -> Ear | None:
        """See `TableStore.listened`."""
        try:
            return self.database.dialect.listened()
        except self.database.errors as error:
            raise self.database.failure(error, "listen to") from error

    # --- hosts ---

    def announce(self, host: Announced) -> bool:
        """See `Noticeboard.announce`."""

        def job(connection: Connection, _: Bodies) -> bool:
            if _HOSTS not in self.database.dialect.tables(connection):
                return False
            # by the store's clock: of one that is wrong nobody else is forgotten
            known = f"SELECT owner FROM nano_owners WHERE until_ns > {self._now()} - {FORGOTTEN_NS}"
            connection.run(
                f"DELETE FROM {_HOSTS} WHERE owner = ? OR owner NOT IN ({known})", host.owner
            )
            connection.run(
                f"INSERT INTO {_HOSTS} (owner, name, document, since_ns, seen_ns) "
                "VALUES (?, ?, ?, ?, ?)",
                host.owner,
                host.name,
                host.document,
                host.since_ns,
                host.seen_ns,
            )
            return True

        return bool(self.written(job, again=True))

    def withdraw(self, owner: str) -> None:
        """See `Noticeboard.withdraw`."""

        def job(connection: Connection, _: Bodies) -> None:
            if _HOSTS in self.database.dialect.tables(connection):
                connection.run(f"DELETE FROM {_HOSTS} WHERE owner = ?", owner)

        self.written(job, again=True)

    def announced(self) -> list[Announced]:
        """See `TableStore.announced`."""
        text = f"SELECT owner, name, document, since_ns, seen_ns FROM {_HOSTS} ORDER BY since_ns"
        with self.database.reading() as connection:
            return [Announced(*found) for found in connection.all(text)]

    # --- answers that runs share ---

    def kept(self, key: str, since_ns: int) -> asyncio.Future[str | None]:
        """See `Store.kept`. Asked in the order of what is kept, so that what was given is found."""
        return self.writer.job(lambda connection, _: answers.find(connection, key, since_ns))

    def keep(self, answer: KeptAnswer) -> asyncio.Future[None]:
        """See `Store.keep`."""
        return self.writer.job(lambda connection, _: answers.keep(connection, answer))

    # --- keeping house ---

    @property
    def version(self) -> int:
        """See `Archive.version`."""
        return SCHEMA_VERSION

    def erase(self, run_id: str) -> bool:
        """Drop all values of a run that has ended, and its salt, for good; False where that was
        done before.

        Headers, paths, times and the salted hashes of the values stay, so that the seal still
        verifies; other runs with equal values keep theirs. SQLite overwrites what is dropped;
        PostgreSQL does when it vacuums, and keeps it in its own log and copies until then.

        Raises:
            StoreError: If the run has not ended.
            UnknownRun: If there is none.
        """
        done = self._erased(run_id)
        if done:
            self.database.flush()
        return done

    def erase_ended(self, older_than_ns: int, statuses: Sequence[str] = ENDED) -> int:
        """See `Archive.erase_ended`."""
        done = 0
        for run in self.prunable(older_than_ns, statuses, held=True):
            with suppress(UnknownRun):  # somebody has deleted it since
                done += self._erased(run.run_id)
        if done:
            self.database.flush()
        return done

    def _erased(self, run_id: str) -> bool:
        return bool(
            self.written(lambda connection, bodies: upkeep.erase(connection, bodies, run_id))
        )

    def prunable(
        self, older_than_ns: int, statuses: Sequence[str] = ENDED, *, held: bool = False
    ) -> list[Ended]:
        """See `Archive.prunable`."""
        _must_be_ended(statuses)
        which = "AND salt IS NOT NULL " if held else ""
        with self.database.reading() as connection:
            return [
                Ended(*found)
                for found in connection.all(
                    f"SELECT run_id, program_name, status, finished_ns FROM nano_runs WHERE "
                    f"status IN ({marks(statuses)}) "
                    f"AND finished_ns < ? {which}ORDER BY finished_ns, key",
                    *statuses,
                    older_than_ns,
                )
            ]

    def prune(self, older_than_ns: int, statuses: Sequence[str] = ENDED) -> int:
        """Delete the runs that ended before *older_than_ns* in one of *statuses*; how many there
        were. Their receipts stay.
        """
        _must_be_ended(statuses)
        total = 0
        while True:  # some at a time, so that others get their turn
            count: int = self.written(
                lambda connection, bodies: upkeep.prune(connection, bodies, older_than_ns, statuses)
            )
            total += count
            if not count:
                self.written(lambda connection, _: events.forget(connection, older_than_ns))
                self.written(lambda connection, _: answers.forget(connection, older_than_ns))
                self.written(
                    lambda connection, _: connection.run(
                        f"DELETE FROM nano_owners WHERE until_ns < {self._now()} - {FORGOTTEN_NS}"
                    )
                )
                self.database.flush()
                return total

    def check(self, *, keys: Iterable[str] | None = None, head: str | None = None) -> list[str]:
        """What is wrong with what is stored: damage, counts of references that are off, seals and
        receipts that do not fit; empty if nothing is. *keys* are public keys of which one must have
        signed every seal and receipt; *head* is what `head` gave before: its receipt must still be
        there.
        """
        return upkeep.check(self.database, public_keys(keys) if keys is not None else None, head)

    def unused(self) -> list[str]:
        """Decisions that runs which have ended did not use, each in a sentence: who decided was
        promised that it is recorded.
        """
        with self.database.reading() as connection:
            return upkeep.unused(connection)

    def head(self) -> str | None:
        """Number and hash of the newest receipt, to be kept elsewhere; None where no run has
        ended.
        """
        with self.database.reading() as connection:
            last = receipts.newest(connection)
        return last.head if last is not None else None

    def signers(self) -> list[tuple[str | None, int, int, int]]:
        """The public keys that signed receipts (None: not signed), each with their number and the
        times of the first and last run.
        """
        with self.database.reading() as connection:
            return connection.all(
                f"SELECT substr(signature, 1, {PUBLIC_HEX}), count(*), min(at_ns), max(at_ns) "
                f"FROM nano_receipts GROUP BY 1 ORDER BY 1"
            )

    def receipts(self, run_id: str) -> list[Receipt]:
        """The receipts of a run, oldest first; those of one that was deleted are still there."""
        with self.database.reading() as connection:
            return receipts.of_run(connection, run_id)

    def export(self, run_ids: Iterable[str], stream: IO[str]) -> int:
        """Write runs to *stream* as JSON Lines, one snapshot each; how many. `transfer` tells the
        format.

        Raises:
            UnknownRun: If there is none of an id.
        """
        return export((self.load(run_id) for run_id in run_ids), stream)

    def import_(self, stream: Iterable[str], *, unfinished: bool = False) -> list[str]:
        """Take in what `export` wrote, all or nothing; the ids of the runs that were not there
        before.

        A run that has not ended is refused unless *unfinished*: two databases that both go on with
        it would make its calls twice. Nobody else writes to SQLite meanwhile.

        Raises:
            StoreError: If it was cut short or edited, is from a newer version, or a run of that id
            with other content is there.
        """
        return intake.import_(self.database, stream, unfinished=unfinished, signer=self.signer)

    def close(self) -> None:
        """See `Store.close`."""
        self.writer.close()
        self.database.close()

    def __enter__(self) -> SqlStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- inside ---

    def written(self, job: Job, *, again: bool = False) -> Any:
        """What *job* gave, when it is durable; *again* as in `Writer.submit`."""
        return self.writer.submit(job, again=again).result()

    def _creation(self, run: StoredRun, again: bool = False) -> Job:
        bodies = Bodies(self.database.keys, run.project)
        document, digest = self._new_documents.encoded(run.document)
        run.read = run.document, digest
        run.seal = seal_of(run)
        run.signature = signed(run.seal, self.signer) if self.signer is not None else None
        columns = run_cells(run, bodies, document) | {"fence": 1, "row_count": len(run.rows)}
        cells = rows_cells(run.rows, bodies)  # of a fork: what it takes

        def job(connection: Connection, added: Bodies) -> bool:
            found = connection.one(
                f"INSERT INTO nano_runs ({', '.join(columns)}) VALUES "
                f"({', '.join('?' * len(columns))}) "
                "ON CONFLICT (run_id) DO NOTHING RETURNING key",
                *columns.values(),
            )
            new = found is not None
            if new:
                added.add(bodies)
                if run.status in ENDED:
                    added.entries.append(
                        Entry(HAS_ENDED, run.run_id, run.seal or "", run.finished_ns)
                    )
            elif again:  # a salt is drawn for each run, so it tells them apart
                found = connection.one(
                    "SELECT key FROM nano_runs WHERE run_id = ? AND salt = ?", run.run_id, run.salt
                )
            if found is None:
                return False
            run.key, run.fence = int(found[0]), 1
            if new:
                insert_rows(connection, [(run.key, 0, cells)])
                listing.index_labels(connection, run)
                self._accompany(connection)
            return True

        return job


def _must_be_ended(statuses: Sequence[str]) -> None:
    if not statuses:
        raise ValueError(f"choose at least one status of {', '.join(ENDED)}")
    for status in statuses:
        if status not in ENDED:
            raise ValueError(
                f"a run in status {status!r} has not ended; choose of {', '.join(ENDED)}"
            )


def _page(
    connection: Connection, filter: RunFilter, size: int, place: listing.Place | None
) -> RunPage:
    """Runs as an index has them."""
    places, found = listing.page(connection, filter, size, place)
    damaged = [
        f"run number {key} is in an index and not there; the database is damaged: restore a copy"
        for _, key in places
        if key not in found
    ]
    runs = headers(connection, [found[key] for _, key in places if key in found], damaged)
    last = _after(*places[-1]) if places and len(places) == size else None
    return RunPage(runs, last, damaged)


def _waiting(
    connection: Connection, filter: RunFilter, size: int, place: listing.Place | None
) -> RunPage:
    """Those of them that wait for what is asked for, of so many that are looked at."""
    runs: list[StoredRun] = []
    damaged: list[str] = []
    for _ in range(MOST_LOOKED_AT // PAGE_RUNS):
        page = _page(connection, filter, PAGE_RUNS, place)
        damaged += page.damaged
        for run in page.runs:
            if filter.is_waited_by(run.status, run.waiting):
                runs.append(run)
                if len(runs) == size:
                    return RunPage(runs, _after(run.created_ns, run.key), damaged)
        if page.after is None:
            return RunPage(runs, None, damaged)
        place = _place(page.after)
    return RunPage(runs, page.after, damaged)


def _after(created_ns: int, key: int) -> str:
    """What a page that ends at a place is followed by."""
    return f"{created_ns}.{key}"


def _place(after: str) -> listing.Place:
    """The place that an ``after`` of a page says."""
    created, _, key = after.partition(".")
    if not (created.isascii() and created.isdigit() and key.isascii() and key.isdigit()):
        raise ValueError(f"not where a page of runs ended: {after!r}")
    return int(created), int(key)
