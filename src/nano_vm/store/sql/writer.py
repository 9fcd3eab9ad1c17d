"""The one thread of a process that writes to a database, in groups: whatever waits when a
transaction begins goes into it.

Appends and jobs come in; each is answered when the transaction that holds it is durable. A
transaction that fails fails all that is in it, and nothing of it is written.

On a server many processes write at once, and none may hold what another waits for while it waits
itself. So locks are taken in one order everywhere: new runs by their ids, then runs, then messages,
then values by their hashes. Nobody waits for a run: an append whose run is held by another
transaction is put off. A job that may take any lock has a transaction of its own.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from ... import forking
from ...errors import LeaseLost, StoreError, VMError
from ...values import error_named
from ..encryption import StoreKeys
from ..protocol import Append, Told
from ..receipts import HAS_ENDED, Entry
from ..records import ENDED
from ..signing import SigningKey
from ..sql import events, receipts
from ..waits import Waits
from .cells import (
    NO_CALL,
    Bodies,
    Cells,
    count_of,
    parted,
    row_cells,
    row_crc,
    rows_cells,
    update_cells,
)
from .database import Connection, Database
from .read import SEQ, between
from .schema import CALL, ROW_CELLS

BATCH_ITEMS = 1000
"""The most that goes into one transaction, so that none makes the others wait for long."""

BATCH_BYTES = 32_000_000
"""The same, counted in bytes of new values: two of the largest that a run may hold."""

GATHER_SECONDS, GATHER_PART = 0.001, 0.25
"""How long, at most, and for what part of the last transaction, to wait for those that it answered,
when others wait already. Without it runs in flight can fall into two groups that wait for each
other in turns (measured on PostgreSQL: 40 commits for 20 steps, with it 21).
"""

STOPPED_SECONDS, STOPPED_PART = 2.0, 1 / 3
"""After how long, at least, and what part of the busy timeout, a server ends a transaction whose
process does nothing: it is frozen, or its machine gone. A process that only waits for its processor
is quicker.
"""

UNKNOWN_SECONDS = 30.0
"""How long to ask a server whether a transaction was committed, when the connection was lost as it
was being.
"""

NOTICE_SECONDS = 0.02
"""Between two notices that something was written, at least. One takes a server 0.1 ms."""

PUT_OFF_SECONDS = 0.01
"""How soon an append is tried again whose run another transaction held."""

DEADLOCK_ATTEMPTS = 5
_CHOSEN = ("40P01", "40001")  # deadlock detected, could not serialize

Job = Callable[[Connection, Bodies], Any]


def _insertion(cells: Sequence[str]) -> str:
    names = ("run", "seq", "crc", *cells)
    return f"INSERT INTO nano_rows ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"


_VALUES = ("output", "error", "waiting")
_HELD = (
    f"SELECT key, fence, row_count, run_id, seal, status, {', '.join(_VALUES)} FROM nano_runs "
    "WHERE key IN (*) ORDER BY key"
)
_INSERT_CALLS, _INSERT_OTHERS = _insertion(ROW_CELLS), _insertion(ROW_CELLS[:CALL])


def insert_rows(
    connection: Connection, appended: Iterable[tuple[int, int, Iterable[Cells]]]
) -> None:
    """Insert rows: each time the run, the number of the first row, and the cells from there on.

    Most are of no model call, and leave out the columns of one: to bind six parameters that are
    NULL takes two thirds of the time of binding all others (1.5 of 4.2 µs a row, SQLite).
    """
    calls, others = [], []
    for key, seq, made in appended:
        for cells in made:
            found = (key, seq, row_crc(key, seq, cells))
            if cells[CALL:] == NO_CALL:
                others.append(found + cells[:CALL])
            else:
                calls.append(found + cells)
            seq += count_of(cells)
    connection.many(_INSERT_OTHERS, others)
    connection.many(_INSERT_CALLS, calls)


class _Item:
    """Something to write: a job, or an append with its cells; and who waits for it.

    *order* is the id of the run that a job makes: it shares a transaction with appends, and comes
    before them in the order of ids.
    """

    __slots__ = (
        "again",
        "append",
        "bodies",
        "columns",
        "error",
        "future",
        "job",
        "keys",
        "loop",
        "order",
        "put_off",
        "rows",
        "since",
        "value",
    )

    bodies: Bodies  # of an append that was encoded, of a job that was run
    rows: Sequence[Cells]
    columns: dict[str, Any]

    def __init__(
        self,
        keys: StoreKeys | None,
        job: Job | None,
        append: Append | None,
        future: Any,
        loop: Any,
        order: str | None = None,
        again: bool = False,
    ) -> None:
        self.again = again
        self.keys = keys
        self.job, self.append, self.future, self.loop, self.order = job, append, future, loop, order
        self.since = time.monotonic()
        self.put_off = False
        self.value: Any = None
        self.error: BaseException | None = None

    @property
    def shares(self) -> bool:
        """Whether it shares a transaction with others: an append, or what makes a run."""
        return self.job is None or self.order is not None

    @property
    def comes_again(self) -> bool:
        """Whether who gave it gives it again where the answer was lost, and what is stored already
        is recognised then.

        So nobody has to ask the server what became of it. One that crashed gives the numbers of
        transactions that it lost to others, and would say of a lost one that it was committed.
        """
        if self.append is None:
            return self.again or self.order is not None
        return self.append.after is not None or not self.append.rows

    def encode(self, there: int = 0) -> int:
        """Make the cells, without those of the first rows that are *there* already; how many bytes
        of values stand beside them. What is no value fails this item alone.
        """
        append = self.append
        if append is None:
            return 0
        bodies = self.bodies = Bodies(self.keys, append.project)
        self.rows, self.columns = (), {}
        try:
            self.rows = rows_cells(append.rows[there:], bodies)
            if append.update:
                self.columns = update_cells(append.update, bodies)
        except (ValueError, TypeError, KeyError, VMError) as error:
            self.error = StoreError(f"a row that cannot be stored: {error_named(error)}")
            self.error.__cause__ = error
        return sum(len(body) for body, _ in bodies.added.values()) if bodies.added else 0


class _Held:
    """A run as a transaction holds it, and what appends change of it."""

    __slots__ = ("changes", "count", "fence", "run_id", "seal", "status", "values")

    def __init__(
        self, fence: int, count: int, run_id: str, seal: str, status: str, *values: bytes | None
    ) -> None:
        self.fence, self.count, self.run_id = fence, count, run_id
        self.seal, self.status = seal, status
        self.values = values  # the cells of `_VALUES`
        self.changes: dict[str, Any] = {}  # by column

    def change(self, columns: Mapping[str, Any], bodies: Bodies) -> None:
        """Set *columns*; values that they had are dropped, and an end has a receipt."""
        for name, cell in zip(_VALUES, self.values, strict=True):
            if name in columns:
                bodies.drop(self.changes.get(name, cell))
        self.changes.update(columns)
        self.status = columns.get("status", self.status)
        # with its seal it was stored before, and the answer lost
        if self.status in ENDED and self.changes.get("seal") != self.seal:
            seal, at = self.changes.get("seal", self.seal), self.changes.get("finished_ns", 0)
            bodies.entries.append(Entry(HAS_ENDED, self.run_id, seal, at))


class Writer:
    """Writes for one `Database`; ``transactions`` counts what it committed."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.signer: SigningKey | None = None
        self._receipt: str | None = None  # the hash of the last that was made here
        self.transactions = 0
        self._closed = False
        self._connection: Connection | None = None
        self.after_fork_in_child()
        forking.join(self)

    def before_fork(self) -> None:
        """Close the connection, between two transactions."""
        if (
            self.database.turns.rest()
            and self._connection is not None
            and not self.database.dialect.in_memory
        ):
            self._connection.close()
            self._connection = None

    def after_fork_in_parent(self) -> None:
        """Nothing: another connection is made when it is needed."""

    def after_fork_in_child(self) -> None:
        """Begin without a thread, and without what the parent is to write."""
        forking.leave(self._connection)
        self._connection = None
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._put_off: list[_Item] = []
        self._noticed = 0  # transactions, of which others were told
        self._notice_due = 0.0
        self._lock = threading.Lock()  # nothing enters the queue after its end was put there
        self._thread: threading.Thread | None = None

    # --- any thread ---

    def give(self, append: Append, told: Told) -> None:
        """Called in an event loop, in which *told* hears when *append* is durable; that it does not
        wait any more does not prevent this.
        """
        loop = asyncio.get_running_loop()
        self._put(_Item(self.database.keys, None, append, told, loop))

    def job(self, job: Job) -> asyncio.Future[Any]:
        """`submit`, in an event loop."""
        return self._awaited(job)

    def creation(self, job: Job, run_id: str) -> asyncio.Future[Any]:
        """Run *job*, which makes the run *run_id* and takes no other lock; called in an event
        loop.
        """
        return self._awaited(job, run_id)

    def submit(self, job: Job, *, again: bool = False) -> Future[Any]:
        """Run *job* in a transaction; it may run again if that one fails. *again* says that who
        gave it gives it again where it is not known to be durable.
        """
        future: Future[Any] = Future()
        self._put(_Item(self.database.keys, job, None, future, None, again=again))
        return future

    def close(self) -> None:
        """Write what was put here, and end."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            thread = self._thread
            self._queue.put(None)
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _awaited(self, job: Job, order: str | None = None) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._put(_Item(self.database.keys, job, None, future, loop, order))
        return future

    def _put(self, item: _Item) -> None:
        with self._lock:
            if self._closed:
                raise StoreError(f"{self.database.name} was closed")
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._work, name="nano-vm-store", daemon=True
                )
                self._thread.start()
            self._queue.put(item)

    # --- the thread ---

    def _work(self) -> None:
        ending = False
        while not ending or self._put_off:
            batch, last = self._gather(ending)
            ending = ending or last
            began = time.monotonic()
            for group in self._groups(batch):
                self._batch(group)
            self._notify(ending)
            if batch and not self._queue.empty():
                time.sleep(min(GATHER_SECONDS, (time.monotonic() - began) * GATHER_PART))
        if self._connection is not None:
            self._connection.release()

    def _gather(self, ending: bool) -> tuple[list[_Item], bool]:
        """What was put off and everything that waits, at least one item; and whether the last has
        come. Nothing comes when *ending*.
        """
        batch, self._put_off = self._put_off, []
        if batch:
            time.sleep(PUT_OFF_SECONDS)
        size = 0
        while not ending:
            try:
                item = self._queue.get(not batch, self._until_notice() if not batch else None)
            except queue.Empty:
                break
            if item is None:
                return batch, True
            size += item.encode()
            batch.append(item)
            if len(batch) >= BATCH_ITEMS or size >= BATCH_BYTES:
                break
        return batch, False

    def _until_notice(self) -> float | None:
        """How long nothing need happen, in seconds; None where no notice is due."""
        if self.database.dialect.notice is None or self._noticed == self.transactions:
            return None
        return max(self._notice_due - time.monotonic(), 0)

    def _notify(self, ending: bool) -> None:
        """Tell who listens in other processes that something was written, once for all that was
        within `NOTICE_SECONDS`. They look themselves now and then, so it may fail.
        """
        wait = self._until_notice()
        if wait is None or (wait > 0 and not ending) or self._connection is None:
            return
        notice = self.database.dialect.notice
        assert notice is not None
        self._noticed, self._notice_due = self.transactions, time.monotonic() + NOTICE_SECONDS
        try:
            with self.database.turns:
                self._connection.driver.execute(notice)
        except self.database.errors:
            self._connection.discard()
            self._connection = None

    def _groups(self, batch: list[_Item]) -> list[list[_Item]]:
        """What shares a transaction: all of it, where a transaction that writes is alone anyway."""
        if self.database.dialect.alone:
            return [batch] if batch else []
        together = [item for item in batch if item.shares]
        alone = [[item] for item in batch if not item.shares]
        return [*alone, together] if together else alone

    def _batch(self, batch: list[_Item]) -> None:
        """Write *batch* and answer it. An item that no database would take does not take the others
        with it.
        """
        try:
            with self.database.turns:
                self._attempts(batch)
        except BaseException as error:  # noqa: BLE001 - the thread must outlive whatever happens, and tell those who wait
            if len(batch) > 1 and not isinstance(error, StoreError):
                for item in batch:
                    self._batch([item])
                return
            for item in batch:
                item.put_off = False
                if item.error is None:
                    item.error = _own(error)
        self._put_off += [item for item in batch if item.put_off]
        _answer(item for item in batch if not item.put_off)

    def _attempts(self, batch: list[_Item]) -> None:
        """`_transaction`, again where the server chose it to end a deadlock."""
        for _ in range(DEADLOCK_ATTEMPTS):
            try:
                return self._transaction(batch)
            except StoreError as error:
                if getattr(error.__cause__, "sqlstate", None) not in _CHOSEN:
                    raise
        return self._transaction(batch)

    def _transaction(self, batch: list[_Item]) -> None:
        """One transaction with all of *batch*; raises if nothing was written, `StoreError` if that
        is no single item's fault.
        """
        connection, identity = self._begun()
        receipt = self._receipt
        committing = False
        try:
            receipt = self._write(connection, batch)
            committing = True
            connection.commit()
        except BaseException as error:
            self._connection = None
            connection.discard()
            if not isinstance(error, self.database.errors):
                raise
            asks = identity is not None and not all(item.comes_again for item in batch)
            if committing and asks and self._was_committed(identity):
                self.transactions += 1
                self._receipt = receipt
                return
            if self.database.blames_statement(error):
                raise
            raise self.database.failure(error, "write to") from error
        self.transactions += 1
        self._receipt = receipt

    def _begun(self) -> tuple[Connection, Any]:
        """A connection in a transaction, and what tells that one from others. A connection that was
        lost since it was used last is replaced: nothing hung on it.
        """
        while True:
            self.database.dialect.usable()
            kept = self._connection
            connection = kept if kept is not None else self.database.connect()
            try:
                if kept is None:
                    # A process that is stopped in the middle loses its transaction before those who wait for its locks
                    # lose patience.
                    seconds = max(
                        STOPPED_SECONDS, self.database.busy_timeout_seconds * STOPPED_PART
                    )
                    self.database.dialect.patience(connection, seconds)
                    self.database.dialect.writes(connection.driver)
                identity = connection.begin()
            except self.database.errors as error:
                self._connection = None
                connection.discard()
                if kept is None or self.database.dialect.alone:
                    raise self.database.failure(error, "write to") from error
                continue
            self._connection = connection
            return connection, identity

    def _was_committed(self, identity: int) -> bool:
        """Whether the server committed a transaction whose answer was lost."""
        until = time.monotonic() + UNKNOWN_SECONDS
        while True:
            try:
                with self.database.reading() as connection:
                    committed = self.database.dialect.committed(connection, identity)
                if committed is not None:
                    return committed
            except StoreError as error:
                if not error.passing:  # a server that crashed does not know the number
                    return False
            if time.monotonic() > until:
                # To say that nothing was written could be wrong too; the run is looked at again by whoever takes it
                # up.
                return False
            time.sleep(0.1)

    def _write(self, connection: Connection, batch: list[_Item]) -> str | None:
        """All statements of a transaction: new runs first, then runs and what belongs to them, then
        values in the order of their hashes. The hash of the newest receipt that this process made.
        """
        bodies = Bodies(self.database.keys)
        sound = [item for item in batch if item.error is None]
        jobs = [item for item in sound if item.append is None]
        for item in sorted(jobs, key=lambda item: item.order or ""):
            self._job(connection, item, bodies)
        if len(jobs) < len(sound):
            self._appends(connection, [item for item in sound if item.append is not None], bodies)
        settle(connection, bodies)
        return receipts.add(connection, bodies.entries, self.signer, self._receipt)

    def _job(self, connection: Connection, item: _Item, bodies: Bodies) -> None:
        assert item.job is not None
        item.value, item.bodies = None, Bodies(self.database.keys)
        try:
            item.value = item.job(connection, item.bodies)
        except VMError as error:  # raised by the job before it wrote
            item.error = error
            return
        bodies.add(item.bodies)
        for digest, count in item.bodies.dropped.items():
            bodies.dropped[digest] = bodies.dropped.get(digest, 0) + count

    def _appends(self, connection: Connection, items: list[_Item], bodies: Bodies) -> None:
        keys = sorted({item.append.key for item in items if item.append is not None})
        held = _HELD + self.database.dialect.skip_locked  # nobody claims the run until the commit
        runs = {key: _Held(*found) for key, *found in connection.among(held, keys)}
        locked = self._locked(connection, [key for key in keys if key not in runs])
        rows: list[tuple[int, int, Sequence[Cells]]] = []
        used: list[tuple[int, int]] = []
        seen: list[tuple[int, int]] = []
        waits: dict[int, Waits] = {}
        for item in items:
            append = item.append
            assert append is not None
            key = append.key
            item.put_off = key in locked and self._may_wait(item, key)
            run = runs.get(key)
            if key in locked or not self._takes(connection, item, run):
                continue
            assert run is not None
            bodies.add(item.bodies)
            if item.rows:
                rows.append((key, run.count, item.rows))
                first = run.count if append.after is None else append.after
                run.count = run.changes["row_count"] = first + len(append.rows)
            if item.columns:
                run.change(item.columns, bodies)
            if append.waits is not None:
                waits[key] = append.waits
            used += [(message, key) for message in append.used]
            seen += [(message, key) for message in append.seen]
        insert_rows(connection, rows)
        for names, values in _by_shape(runs).items():
            connection.many(
                f"UPDATE nano_runs SET {', '.join(f'{name} = ?' for name in names)} WHERE key = ?",
                values,
            )
        if waits:
            events.register(connection, waits)
        connection.many("UPDATE nano_inbox SET used = 1 WHERE id = ? AND run = ?", used)
        connection.many(
            "UPDATE nano_inbox SET used = 2 WHERE id = ? AND run = ? AND used = 0", seen
        )

    def _may_wait(self, item: _Item, key: int) -> bool:
        """Whether an append to a run that another transaction holds is tried again."""
        waited = time.monotonic() - item.since
        if waited <= self.database.busy_timeout_seconds:
            return True
        item.error = self.database.locked(f"run number {key}", waited)
        return False

    def _takes(self, connection: Connection, item: _Item, run: _Held | None) -> bool:
        """Whether an append is to be written to *run*; where it is not, and was not stored before, it
        has an error.
        """
        append = item.append
        assert append is not None
        count, after = len(append.rows), append.after
        there = 0 if run is None else self._there(connection, append, run.count)
        if run is None or run.fence != append.fence:
            if run is None or not count or there < count:
                item.error = LeaseLost(
                    f"run number {append.key} has another owner now; what it did since is not "
                    f"kept here"
                )
            return False
        if run.status in ENDED:
            # nothing of it changes any more, though it may have been erased; what was stored
            # before, and the answer lost, is there
            if after is None or after + count > run.count:
                item.error = LeaseLost(f"run number {append.key} has ended")
            return False
        if after is not None and after + there != run.count:
            item.error = StoreError(
                f"run number {append.key} has {run.count} rows and not {after}: what went "
                f"before was not stored"
            )
            return False
        if there:
            item.encode(there)
        return True

    def _there(self, connection: Connection, append: Append, count: int) -> int:
        """How many of the first rows of *append* are stored already: it was given before, and the
        answer to it was lost.
        """
        if append.after is None or count <= append.after or not append.rows:
            return 0
        after = append.after
        begin, held = between(connection, append.key, after, after + len(append.rows))
        stored = [cells for columns in held for cells in parted(columns[:SEQ])][after - begin :]
        unused = Bodies(self.database.keys, append.project)
        same = [
            cells == row_cells(row, unused) for cells, row in zip(stored, append.rows, strict=False)
        ]
        return len(same) if all(same) else 0

    def _locked(self, connection: Connection, keys: list[int]) -> set[int]:
        """Those of *keys* that are there: other transactions hold them, where they can."""
        if self.database.dialect.alone or not keys:
            return set()
        return {
            key for (key,) in connection.among("SELECT key FROM nano_runs WHERE key IN (*)", keys)
        }


def settle(connection: Connection, bodies: Bodies) -> None:
    """Keep the values that *bodies* adds, and let go of those that nothing names any more.

    One pass in the order of hashes, so that two processes never wait for each other. What is only
    dropped is there, so its empty body is never written.
    """
    changes = {digest: (body, count) for digest, (body, count) in bodies.added.items()}
    for digest, count in bodies.dropped.items():
        body, added = changes.get(digest, (b"", 0))
        changes[digest] = body, added - count
    connection.many(
        "INSERT INTO nano_contents (hash, body, refs) VALUES (?, ?, ?) "
        "ON CONFLICT (hash) DO UPDATE SET refs = nano_contents.refs + excluded.refs",
        [(digest, *changes[digest]) for digest in sorted(changes)],
    )
    connection.many(
        "DELETE FROM nano_contents WHERE hash = ? AND refs <= 0",
        [(digest,) for digest in sorted(bodies.dropped)],
    )


def _by_shape(runs: dict[int, _Held]) -> dict[tuple[str, ...], list[tuple[Any, ...]]]:
    """What is changed of *runs*, by the columns that are changed."""
    shapes: dict[tuple[str, ...], list[tuple[Any, ...]]] = {}
    for key, run in runs.items():
        if run.changes:
            shapes.setdefault(tuple(run.changes), []).append((*run.changes.values(), key))
    return shapes


def _own(error: BaseException) -> StoreError:
    if isinstance(error, StoreError):
        return error
    own = StoreError(f"could not be stored: {error_named(error)}")
    own.__cause__ = error
    return own


def _answer(batch: Iterable[_Item]) -> None:
    """Tell those who wait; those of one event loop with one call."""
    loops: dict[Any, list[_Item]] = {}
    for item in batch:
        if item.loop is not None:
            loops.setdefault(item.loop, []).append(item)
        elif item.error is not None:
            item.future.set_exception(item.error)
        else:
            item.future.set_result(item.value)
    for loop, items in loops.items():
        try:
            loop.call_soon_threadsafe(_resolve, items)
        except RuntimeError:
            pass  # the loop was closed: nobody waits


def _resolve(items: list[_Item]) -> None:
    for item in items:
        if item.future.done():
            continue  # cancelled
        if item.error is not None:
            item.future.set_exception(item.error)
        else:
            item.future.set_result(item.value)
