"""The store of a simulation: a `Model` that all processes reach over a way that takes time, fails,
and loses answers.

A process has one writer, as `SqlStore` has: what waits when a transaction begins goes into it, and
is answered when that is durable. What is answered stays; what is not may be there or not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from greenlet import GreenletExit, getcurrent

from ..errors import StoreError, VMError
from ..store.accounts import Amount, Reservation, Shortage, Standing
from ..store.kept import KeptAnswer
from ..store.limits import CallLimits, Entered
from ..store.protocol import (
    ALL_RUNS,
    PAGE_RUNS,
    Append,
    Claim,
    Cost,
    Judge,
    RunFilter,
    RunPage,
    Told,
)
from ..store.protocol import Store as StoreProtocol
from ..store.records import UNENDED, Message, Row, StoredRun
from ..store.signing import SigningKey
from .model import Model
from .world import SECOND, Process, Waiter, World

Result = TypeVar("Result")

MICROSECOND = 1_000


class Database:
    """The one store of a world: its model, and how long it takes."""

    def __init__(self, world: World, *, one_machine: bool = True, up_ns: int = 0) -> None:
        self.world = world
        self.one_machine = one_machine
        # the server's clock, or that of the one machine
        self.up_ns = up_ns
        self.model = Model(lambda: self.up_ns + world.now, one_machine=one_machine)
        self.reads = 50 * MICROSECOND, 3_000 * MICROSECOND
        self.commits = 100 * MICROSECOND, 10_000 * MICROSECOND
        self.slow = SECOND // 10, 6 * SECOND
        self.patience = SECOND // 20, 2 * SECOND  # until a driver says that there is no answer
        self.out_until = 0  # a server that is started again
        self.full_until = 0  # a disk that is full, a file that is locked: it can be read
        self.takes_answers = False  # whether what is stored as it goes away is not answered
        self.answers_slowly = False  # whether what is stored may be answered late
        self.given: list[Callable[[Process, Append], None]] = []  # before it is on its way
        self.appended: list[Callable[[Process, Append], None]] = []
        # each run that is claimed, and whose it was before
        self.claimed: list[Callable[[StoredRun, str | None], None]] = []
        self.acknowledged: list[Callable[[Process, Append], None]] = []


class _Write:
    """Something to write, and who waits for it."""

    __slots__ = ("again", "append", "error", "job", "told", "value", "waiter")

    def __init__(
        self,
        job: Callable[[], Any],
        told: Told | None,
        waiter: Waiter | None,
        *,
        again: bool,
        append: Append | None = None,
    ) -> None:
        self.job, self.told, self.waiter, self.again = job, told, waiter, again
        self.append = append
        self.value: Any = None
        self.error: BaseException | None = None


def _tell(batch: Sequence[_Write]) -> None:
    """Tell those who wait in an event loop, in one turn of it."""
    for write in batch:
        assert write.told is not None
        if write.told.done():
            continue
        if write.error is not None:
            write.told.set_exception(write.error)
        else:
            write.told.set_result(write.value)


class SimulatedStore(StoreProtocol):
    """The store as one process sees it."""

    signer: SigningKey | None = None

    def __init__(self, process: Process, database: Database) -> None:
        self.process, self.database = process, database
        self.model, self.world = database.model, database.world
        self._queue: list[_Write] = []
        self._writing = False
        self._closed = False

    @property
    def one_machine(self) -> bool:
        """See `Store.one_machine`."""
        return self.database.one_machine

    # --- how things are asked ---

    def _reach(self) -> None:
        if self.world.closed or not self.process.alive:
            raise GreenletExit
        if self._closed:
            raise StoreError("the store was closed")

    def _out(self, *, writes: bool) -> bool:
        """Whether nothing is answered right now to who reads, or *writes*."""
        until = max(self.process.cut_off_until, self.database.out_until)
        return self.world.now < (max(until, self.database.full_until) if writes else until)

    def _failure(self, what: str) -> StoreError:
        return StoreError(f"could not {what} the simulated store", passing=True)

    def _read(self, job: Callable[[], Result]) -> Result:
        self._reach()
        waiter = Waiter(self.process)
        world, process, database = self.world, self.process, self.database

        def ask() -> None:
            if self._out(writes=False) or world.strikes("refused", process.name):
                waiter.value = None, self._failure("read")
                process.at(world.now + world.delay(*database.patience), waiter.wake)
                return
            try:
                waiter.value = job(), None
            except VMError as error:
                waiter.value = None, error
            process.at(world.now + self._back(database.reads), waiter.wake)

        first = database.slow if world.strikes("slow", process.name) else database.reads
        process.at(world.now + world.delay(*first), ask)
        result: Result
        result, error = waiter.wait()
        if error is not None:
            raise error
        return result

    def _written(self, job: Callable[[], Result], *, again: bool = False) -> Result:
        """What *job* gave, for a thread, which waits."""
        self._reach()
        write = _Write(job, None, Waiter(self.process), again=again)
        given: Result = self._waited(write)
        return given

    def _waited(self, write: _Write) -> Any:
        assert write.waiter is not None
        self._put(write)
        write.waiter.wait()
        if write.error is not None:
            raise write.error
        return write.value

    def _awaited(self, job: Callable[[], Any], *, again: bool) -> asyncio.Future[Any]:
        """The same in an event loop."""
        self._reach()
        future = self.process.loop.create_future()
        self._put(_Write(job, future, None, again=again))
        return future

    def _put(self, write: _Write) -> None:
        self._queue.append(write)
        if not self._writing:
            self._writing = True
            self._begin_soon()

    def _begin_soon(self) -> None:
        world, database = self.world, self.database
        slow = world.strikes("slow", self.process.name)
        delay = world.delay(*(database.slow if slow else database.commits))
        self.process.at(world.now + delay, self._transaction)

    def _transaction(self) -> None:
        world, database, process = self.world, self.database, self.process
        batch, self._queue = self._queue, []
        if self._out(writes=True) or world.strikes("refused", process.name):
            for write in batch:
                write.error = self._failure("write to")
            process.at(world.now + world.delay(*database.patience), partial(self._answer, batch))
            return
        for write in batch:
            try:
                write.value = write.job()
            except VMError as error:
                write.error = error
            else:
                if write.append is not None:
                    for told in database.appended:
                        told(process, write.append)
        if world.strikes("lost_answer", process.name):
            self._lose_answers(batch)
        process.at(world.now + self._back(database.commits), partial(self._answer, batch))

    def _back(self, way: tuple[int, int]) -> int:
        """How long an answer is on its way."""
        database = self.database
        slow = database.answers_slowly and self.world.strikes("slow", self.process.name)
        return self.world.delay(*(database.slow if slow else way))

    def _lose_answers(self, batch: Sequence[_Write]) -> None:
        for write in batch:
            # the others are asked for until it is known what became of them
            if write.again:
                write.error = self._failure("write to")

    def _answer(self, batch: Sequence[_Write]) -> None:
        if self.database.takes_answers and self._out(writes=True):
            self._lose_answers(batch)
        for write in batch:
            if write.append is not None and write.error is None:
                for told in self.database.acknowledged:
                    told(self.process, write.append)
        self._writing = bool(self._queue)
        if self._queue:
            self._begin_soon()
        for write in batch:
            if write.waiter is not None:
                write.waiter.wake()
        if awaited := [write for write in batch if write.told is not None]:
            self.process.loop.call_soon(_tell, awaited)

    # --- a run's life ---

    def create(self, run: StoredRun) -> bool:
        """See `Store.create`."""
        return bool(self._written(lambda: self.model.create(run)))

    async def begin(self, run: StoredRun, *, again: bool = False) -> bool:
        """See `Store.begin`."""
        return bool(await self._awaited(lambda: self.model.create(run, again=again), again=True))

    def append(self, item: Append) -> Awaitable[None]:
        """See `Store.append`; a thread waits at once, and gets what is there already."""
        if getcurrent() is self.process.main:
            future = self.process.loop.create_future()
            self.give(item, future)
            return future
        self._waited(self._writing_of(item, None, Waiter(self.process)))
        return _There()

    def give(self, item: Append, told: Told) -> None:
        """See `Store.give`."""
        self._put(self._writing_of(item, told, None))

    def _writing_of(self, item: Append, told: Told | None, waiter: Waiter | None) -> _Write:
        for given in self.database.given:
            given(self.process, item)
        self._reach()
        again = item.after is not None or not item.rows
        job = partial(self.model.append, item)
        return _Write(job, told, waiter, again=again, append=item)

    def load(self, run_id: str, *, rows: bool = True) -> StoredRun:
        """See `Store.load`."""
        return self._read(lambda: self.model.load(run_id, rows=rows))

    def load_each(self, run_ids: Sequence[str]) -> Mapping[str, StoredRun | StoreError]:
        """See `Store.load_each`."""
        return self._read(lambda: self.model.load_each(run_ids))

    # --- owners ---

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

        def job() -> dict[str, Claim]:
            before = {run_id: self.model.owner_of(run_id) for run_id in run_ids}
            claims = self.model.claim(run_ids, owner, now_ns, most=most, alive=alive)
            for run_id in claims:
                for told in self.database.claimed:
                    told(self.model.load(run_id, rows=False), before[run_id])
            return claims

        return self._written(job, again=True)

    def heartbeat(self, owner: str, seconds: float) -> None:
        """See `Store.heartbeat`."""
        self._written(lambda: self.model.heartbeat(owner, seconds), again=True)

    def forget_owner(self, owner: str) -> None:
        """See `Store.forget_owner`."""
        self._written(lambda: self.model.forget_owner(owner))

    def owned(self, owner: str) -> dict[str, tuple[int, int]]:
        """See `Store.owned`."""
        return self._read(lambda: self.model.owned(owner))

    def owners(self) -> Mapping[str, float]:
        """See `Store.owners`."""
        return self._read(self.model.owners)

    def claimable(
        self, now_ns: int, limit: int, only: str | None = None, *, spare: Collection[str] = ()
    ) -> dict[str, str]:
        """See `Store.claimable`."""
        return self._read(lambda: self.model.claimable(now_ns, limit, only, spare=spare))

    # --- messages ---

    def send(self, run_id: str, message: Message) -> None:
        """See `Store.send`."""
        self._written(lambda: self.model.send(run_id, message))

    def decide(self, run_id: str, judge: Judge, path: str | None = None) -> Message:
        """See `Store.decide`."""
        return self._written(lambda: self.model.decide(run_id, judge, path))

    def cancelled(self, keys: Sequence[int]) -> list[int]:
        """See `Store.cancelled`."""
        return self._read(lambda: self.model.cancelled(keys))

    async def told(self, key: int) -> list[Message]:
        """See `Store.told`."""
        told: list[Message] = await self._awaited(lambda: self.model.told(key), again=False)
        return told

    def post(
        self,
        name: str,
        payload: Mapping[str, Any],
        write: Callable[[list[Mapping[str, Any]]], Message],
    ) -> bool:
        """See `Store.post`."""
        return bool(self._written(lambda: self.model.post(name, payload, write)))

    def deliver(self, trusted: frozenset[str] | None = None) -> list[str]:
        """See `Store.deliver`."""
        if not self._read(lambda: self.model.undelivered):
            return []
        return self._written(lambda: self.model.deliver(trusted))

    # --- reading ---

    def has(self, run_id: str) -> bool:
        """See `Store.has`."""
        return bool(self._read(lambda: self.model.has(run_id)))

    def ids_starting_with(
        self, beginning: str, limit: int, *, project: str | None = None
    ) -> list[str]:
        """See `Store.ids_starting_with`."""
        return self._read(lambda: self.model.ids_starting_with(beginning, limit, project=project))

    def counts(self, statuses: Sequence[str] = UNENDED) -> dict[str, int]:
        """See `Store.counts`."""
        return self._read(lambda: self.model.counts(statuses))

    def oldest(self, statuses: Sequence[str] = UNENDED) -> dict[str, int]:
        """See `Store.oldest`."""
        return self._read(lambda: self.model.oldest(statuses))

    def rows_after(self, run_id: str, seq: int = -1, *, limit: int | None = None) -> list[Row]:
        """See `Store.rows_after`."""
        return self._read(lambda: self.model.rows_after(run_id, seq, limit=limit))

    def page(
        self, filter: RunFilter = ALL_RUNS, *, size: int = PAGE_RUNS, after: str | None = None
    ) -> RunPage:
        """See `Store.page`."""
        return self._read(lambda: self.model.page(filter, size=size, after=after))

    def costs(self, by: Sequence[str] = ("model",), filter: RunFilter = ALL_RUNS) -> list[Cost]:
        """See `Store.costs`."""
        return self._read(lambda: self.model.costs(by, filter))

    # --- budgets that runs share ---

    def reserve(self, reservation: Reservation) -> asyncio.Future[Shortage | None]:
        """See `Store.reserve`."""
        return self._awaited(lambda: self.model.reserve(reservation), again=True)

    def settle(self, id: str, used: Amount | None) -> asyncio.Future[None]:
        """See `Store.settle`."""
        return self._awaited(lambda: self.model.settle(id, used), again=True)

    def enter(
        self, call_id: str, owner: str, limits: CallLimits, tokens: int
    ) -> asyncio.Future[Entered]:
        """See `Store.enter`."""
        return self._awaited(lambda: self.model.enter(call_id, owner, limits, tokens), again=True)

    def leave(
        self, call_id: str, limits: CallLimits, part: int, change: int
    ) -> asyncio.Future[None]:
        """See `Store.leave`."""
        return self._awaited(lambda: self.model.leave(call_id, limits, part, change), again=True)

    def kept(self, key: str, since_ns: int) -> asyncio.Future[str | None]:
        """See `Store.kept`."""
        return self._awaited(lambda: self.model.kept(key, since_ns), again=True)

    def keep(self, answer: KeptAnswer) -> asyncio.Future[None]:
        """See `Store.keep`."""
        return self._awaited(lambda: self.model.keep(answer), again=True)

    def accounts(self) -> dict[str, Standing]:
        """See `Store.accounts`."""
        return self._read(self.model.accounts)

    def close(self) -> None:
        """See `Store.close`."""
        self._closed = True


class _There(Coroutine[Any, Any, None]):
    """An answer that is there already."""

    def __await__(self) -> Any:
        return iter(())

    def send(self, value: Any) -> Any:
        raise StopIteration

    def throw(self, *given: Any) -> Any:
        raise given[0]

    def close(self) -> None:
        """Nothing is left open."""
