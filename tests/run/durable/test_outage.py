"""A store that fails for a moment: at any statement, for a while, or for longer than anybody waits.
No run hangs on the process that had it, and what its calls gave is not lost.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import resource
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from build import parallel, program, step
from campaigns import is_whole
from in_memory import folder_in_memory
from patience import HANGS_SECONDS
from postgres import PostgresServer, url_of

from nano_vm import ExecutionVM, TraceStatus, tool
from nano_vm.errors import StoreError
from nano_vm.replay import subject_of, verify
from nano_vm.run.durable import outbox
from nano_vm.run.durable.lease import Debt, Lease
from nano_vm.run.system import Process
from nano_vm.store.protocol import Append
from nano_vm.store.records import STEP, Message, StoredRun
from nano_vm.store.sql.database import Connection, Database
from nano_vm.store.sql.postgres import PostgreSQL
from nano_vm.store.sql.store import SqlStore

SUCCESS = TraceStatus.SUCCESS


@pytest.fixture(params=["file", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return url_of(request, tmp_path)


@pytest.fixture
def file(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/runs.db"


class Host:
    """VMs over one database, and the calls of their tools."""

    def __init__(self, url: str) -> None:
        self.url, self.calls = url, Counter[str]()
        self.within: Callable[[str], Any] = lambda _: None  # what happens in a call
        self.vms: list[ExecutionVM] = []

    def vm(self, *, far: bool = False, **options: Any) -> ExecutionVM:
        """A VM of its own store; *far* as if it were in another container, where the process of the
        others cannot be seen.
        """

        def called(name: str, effect: Any) -> Any:
            @tool(effect=effect)
            async def call(x: Any = None) -> Any:
                self.calls[f"{name} {x}"] += 1
                await asyncio.sleep(0)
                found = self.within(name)
                if found is not None:
                    await found
                return [name, x]

            return call

        store = SqlStore(self.url, busy_timeout_seconds=0.2)
        tools = {"pay": called("pay", "irreversible"), "look": called("look", "read")}
        vm = ExecutionVM(tools=tools, store=store, **options)
        if far:
            vm._durable.lease = Lease(store, process=replace(Process.own(), space="1"))
        self.vms.append(vm)
        return vm

    def close(self) -> None:
        for vm in self.vms:
            vm.close()


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are patient for as long as this machine takes, where no test says for how long."""
    monkeypatch.setattr(outbox, "PATIENCE_SECONDS", HANGS_SECONDS)


@pytest.fixture
def host(url: str) -> Iterator[Host]:
    made = Host(url)
    yield made
    made.close()


async def until(holds: Callable[[], Any], seconds: float = HANGS_SECONDS) -> Any:
    """What *holds* gives, once that is true."""
    async with asyncio.timeout(seconds):
        while not (found := await asyncio.to_thread(holds)):  # noqa: ASYNC110 - it is in the store, or in another thread
            await asyncio.sleep(0.02)
        return found


async def taken_up(vm: ExecutionVM) -> Any:
    """The first run that *vm* can take up."""
    async with asyncio.timeout(HANGS_SECONDS):
        while not (found := await vm.work(until_idle=True)):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        return found[0]


PAYS = program(step("a", "pay", args={"x": 1}), step("b", "look"), step("c", "pay", args={"x": 2}))
CALLS = {"pay 1": 1, "look None": 1, "pay 2": 1}


def sound(vm: ExecutionVM, run_id: str) -> bool:
    """Whether the run is verified, and the store has no fault."""
    store: Any = vm.store
    assert store.check() == []
    return bool(verify(subject_of(store.load(run_id))))


# --- at every statement ---


class Faulty:
    """A cursor that fails once: at the *number*-th statement of all, before it is executed or
    after.
    """

    number, moment, count = 0, "", 0

    def __init__(self, cursor: Any, database: Database) -> None:
        self._cursor, self._database = cursor, database

    def _executed(self, name: str, *given: Any) -> Any:
        Faulty.count += 1
        due = Faulty.count == Faulty.number
        if due and Faulty.moment == "before":
            raise self._database.dialect.api.OperationalError("injected, before")
        found = getattr(self._cursor, name)(*given)
        if due:
            raise self._database.dialect.api.OperationalError("injected, after")
        return found

    def execute(self, *given: Any) -> Any:
        return self._executed("execute", *given)

    def executemany(self, *given: Any) -> Any:
        return self._executed("executemany", *given)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> None:
    begin = Connection.__init__

    def wrapped(self: Connection, database: Database, driver: Any, state: Any = None) -> None:
        begin(self, database, driver, state)
        self.cursor = Faulty(self.cursor, database)

    monkeypatch.setattr(Connection, "__init__", wrapped)


@contextmanager
def failing(number: int, moment: str) -> Iterator[None]:
    Faulty.number, Faulty.moment, Faulty.count = number, moment, 0
    try:
        yield
    finally:
        Faulty.number = 0


EVERY = 1 if is_whole() else 3
"""Which of the statements of a run fail in turn; a worker at a server asks many."""


@pytest.mark.campaign
@pytest.mark.usefixtures("faulty")
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("worked", [False, True], ids=["run", "work"])
async def test_an_error_at_any_statement_costs_nothing(
    host: Host, moment: str, worked: bool
) -> None:
    """A caller's run and one that a worker takes up: each goes on, every call is made once and
    every record is stored once.
    """
    vm = host.vm()
    await vm.run(program(step("warm", "look")))
    number, hit = 0, True
    numbers = []
    while hit:
        number += 5 if worked and not vm.store.database.dialect.alone else EVERY  # type: ignore[union-attr]
        numbers.append(number)
        host.calls.clear()
        run_id = f"r{number}"
        if worked:
            await vm.submit(PAYS, run_id=run_id)
        with failing(number, moment):
            if worked:
                (trace,) = await vm.work(until_idle=True, poll_seconds=0.01)
            else:
                trace = await vm.run(PAYS, run_id=run_id)
            hit = Faulty.count >= number
        assert (trace.status, host.calls) == (SUCCESS, CALLS), f"statement {number}"
        assert vm.load(run_id).digest == trace.digest
    assert number >= 25
    for at in numbers:
        assert sound(vm, f"r{at}"), f"statement {at}"


@pytest.mark.slow
@pytest.mark.usefixtures("faulty")
async def test_a_run_that_was_made_though_the_answer_was_lost_is_the_caller_s(host: Host) -> None:
    vm = host.vm()
    await vm.run(program(step("warm", "look")))
    for number in range(1, 12):
        with failing(number, "after"):
            assert await vm.submit(PAYS, run_id=f"s{number}") == f"s{number}"
    assert len(await vm.work(until_idle=True)) == 11
    assert host.calls["pay 1"] == 11


@pytest.mark.parametrize("lost", [False, True], ids=["stored", "lost"])
async def test_what_a_server_says_of_a_commit_that_it_did_not_answer_is_not_believed(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch, lost: bool
) -> None:
    """It has crashed, and gave the number of a transaction that it lost to another, or knows
    nothing of one that it has.
    """
    host, commit, commits = Host(postgres.database()), Connection.commit, count()
    vm = host.vm()
    await vm.run(program(step("warm", "look")))
    monkeypatch.setattr(PostgreSQL, "committed", lambda *_: lost)
    number = 0

    def crashing(self: Connection) -> None:
        writes = threading.current_thread().name == "nano-vm-store"
        crashes = writes and next(commits) == number
        if not (crashes and lost):
            commit(self)
        if crashes:
            self.driver.close()
            raise self.database.dialect.api.OperationalError("the server has crashed")

    monkeypatch.setattr(Connection, "commit", crashing)
    while next(commits) >= number:
        number, commits = number + 1, count(1)
        host.calls.clear()
        trace = await vm.run(PAYS, run_id=f"r{number}")
        assert (trace.status, host.calls) == (SUCCESS, CALLS), f"commit {number}"
    assert number >= 5
    for at in range(1, number + 1):
        assert sound(vm, f"r{at}"), f"commit {at}"
    host.close()


def test_a_lease_and_a_claim_count_only_where_the_server_answered(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PostgreSQL, "committed", lambda *_: True)

    def crashing(self: Connection) -> None:
        self.driver.close()
        raise self.database.dialect.api.OperationalError("the server has crashed")

    with SqlStore(postgres.database()) as store:
        store.create(StoredRun("r", "p", "d", 1, salt=b"s"))
        with monkeypatch.context() as patched:
            patched.setattr(Connection, "commit", crashing)
            with pytest.raises(StoreError, match="has crashed") as renewed:
                store.heartbeat("me", 30)
            with pytest.raises(StoreError, match="has crashed") as claimed:
                store.claim(["r"], "me", 1)
        assert renewed.value.passing
        assert claimed.value.passing
        assert store.owners() == {}
        assert store.load("r").owner is None


def test_a_number_that_a_server_does_not_know_is_of_no_commit(postgres: PostgresServer) -> None:
    with SqlStore(postgres.database()) as store:
        with store.database.reading() as connection:
            unknown = connection.one("SELECT txid_current()")[0] + 1000
        assert store.writer._was_committed(unknown) is False


async def test_who_waits_for_what_another_holds_is_told_that_it_will_pass(
    postgres: PostgresServer,
) -> None:
    import psycopg

    url = postgres.database()
    with SqlStore(url, busy_timeout_seconds=0.1) as store, psycopg.connect(url) as other:
        run = StoredRun("r", "p", "d", 1, salt=b"s")
        store.create(run)
        other.execute("SELECT 1 FROM nano_runs WHERE run_id = 'r' FOR UPDATE")
        message = Message("cancel", "", {}, "ann", 1)
        with pytest.raises(StoreError, match="is held by another transaction") as decided:
            await asyncio.to_thread(store.decide, "r", lambda *_: message)
        with pytest.raises(StoreError, match="is held by another transaction") as told:
            await store.told(run.key)
        assert decided.value.passing
        assert told.value.passing


# --- for a while ---


class Locked:
    """Another process that holds a file, as an operator's shell would."""

    def __init__(self, url: str) -> None:
        self.path = url.removeprefix("sqlite:///")
        self.connection: sqlite3.Connection | None = None

    def begin(self) -> None:
        self.connection = sqlite3.connect(
            self.path, isolation_level=None, timeout=10, check_same_thread=False
        )
        self.connection.execute("BEGIN IMMEDIATE")

    def end(self) -> None:
        assert self.connection is not None
        self.connection.rollback()
        self.connection.close()


@pytest.mark.slow
async def test_a_lock_of_a_while_is_waited_out(file: str) -> None:
    """Longer than the database itself waits, in the middle of calls, in two branches; a third
    caller watches.
    """
    host, lock = Host(file), Locked(file)
    one = program(
        parallel(*(step(f"p{n}", "pay", args={"x": n}) for n in range(3))),
        step("end", "pay", args={"x": 9}),
    )
    timers = []

    def within(_: str) -> None:
        if not timers:
            lock.begin()
            timers.append(threading.Timer(1.5, lock.end))
            timers[0].start()

    host.within = within
    vm, watching = host.vm(), host.vm()
    run = asyncio.create_task(vm.run(one, run_id="r"))
    await until(lambda: timers)
    watched = asyncio.create_task(watching.run(one, run_id="r"))
    trace = await run
    assert trace.status is SUCCESS
    assert host.calls == {f"pay {x}": 1 for x in (0, 1, 2, 9)}
    assert (await watched).digest == trace.digest
    assert sound(vm, "r")
    host.close()


@pytest.mark.slow
async def test_a_worker_outlives_a_lock(file: str) -> None:
    host, lock = Host(file), Locked(file)
    vm = host.vm()
    worker = asyncio.create_task(vm.work(poll_seconds=0.05))
    await asyncio.sleep(0.2)
    lock.begin()
    await asyncio.sleep(1.0)
    assert not worker.done()
    lock.end()
    await vm.submit(PAYS, run_id="r")
    await until(lambda: vm.load("r").status is SUCCESS)
    worker.cancel()
    await asyncio.wait([worker])
    host.close()


async def test_a_worker_that_is_to_end_tells_when_the_store_never_answers(
    file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "PATIENCE_SECONDS", 0.5)
    host, lock = Host(file), Locked(file)
    vm = host.vm()
    await vm.submit(PAYS)
    lock.begin()
    with pytest.raises(StoreError, match="database is locked"):
        await vm.work(until_idle=True, poll_seconds=0.05)
    lock.end()
    host.close()


def full(path: str) -> Callable[[], None]:
    """Let no file of this process grow any more; gives what ends that."""
    everything = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = Path(f"{path}-wal").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, everything[1]))
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, everything)


async def test_a_disk_that_is_full_for_a_while(file: str) -> None:
    host = Host(file)
    timers: list[Any] = []

    def within(_: str) -> None:
        if not timers:
            room = full(file.removeprefix("sqlite:///"))
            timers.append(threading.Timer(0.7, room))
            timers[0].start()

    host.within = within
    vm = host.vm()
    began = time.monotonic()
    trace = await vm.run(PAYS, run_id="r")
    timers[0].join()
    assert time.monotonic() - began > 0.7, "there was no room"
    assert (trace.status, host.calls) == (SUCCESS, CALLS)
    assert sound(vm, "r")
    host.close()


@pytest.mark.slow
async def test_a_server_that_is_started_again(tmp_path: Path) -> None:
    """As `pg_ctl restart -m immediate`: runs of a worker, of a caller, and one that is submitted
    meanwhile.
    """
    server = PostgresServer(tmp_path, home=folder_in_memory())
    host = Host(server.database())
    vm = host.vm()

    async def slowly() -> None:
        await asyncio.sleep(0.01)

    host.within = lambda _: slowly()
    many = program(*(step(f"s{n}", "pay", args={"x": n}) for n in range(20)))
    for number in range(12):
        await vm.submit(many, run_id=f"r{number}")
    worker = asyncio.create_task(vm.work(poll_seconds=0.05))
    own = asyncio.create_task(vm.run(many, run_id="own"))
    await until(lambda: sum(host.calls.values()) >= 60)

    def restart() -> None:
        server.stop(signal.SIGQUIT)
        time.sleep(0.5)
        server.start()

    during = asyncio.to_thread(restart)
    late, _ = await asyncio.gather(vm.submit(many, run_id="late"), during)
    names = [*(f"r{number}" for number in range(12)), "own", late]
    await until(lambda: all(vm.load(name).status is SUCCESS for name in names))
    assert (await own).status is SUCCESS
    worker.cancel()
    await asyncio.wait([worker])
    assert host.calls == {f"pay {n}": len(names) for n in range(20)}
    assert all(sound(vm, name) for name in names)
    host.close()
    server.stop(signal.SIGQUIT)


# --- for longer than anybody waits ---


@pytest.fixture
def outage(file: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Host, Locked]:
    """VMs that soon give up, over a database that is locked from within their first call."""
    monkeypatch.setattr(outbox, "PATIENCE_SECONDS", 0.4)
    host, lock = Host(file), Locked(file)
    host.within = lambda _: None if lock.connection is not None else lock.begin()
    return host, lock


@pytest.mark.slow
@pytest.mark.parametrize("worked", [False, True], ids=["run", "work"])
async def test_a_run_that_is_given_up_is_free_when_the_store_answers(
    outage: tuple[Host, Locked], worked: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The process lives on and drives nothing. What the call gave is stored after all, so another
    goes on behind it.
    """
    host, lock = outage
    vm, other = host.vm(), host.vm(far=True)
    if worked:
        await vm.submit(PAYS, run_id="r")
        worker = asyncio.create_task(vm.work(poll_seconds=0.05))
        await until(lambda: "is given back" in caplog.text)
        worker.cancel()
        await asyncio.wait([worker])
    else:
        with pytest.raises(StoreError, match="database is locked"):
            await vm.run(PAYS, run_id="r")
    lock.end()
    host.within = lambda _: None
    store: Any = vm.store
    await until(lambda: [row.path for row in store.load("r").rows if row.kind == STEP] == ["a"])
    assert host.calls == {"pay 1": 1}
    (trace,) = await other.work(until_idle=True)
    assert (trace.status, host.calls) == (SUCCESS, CALLS)
    assert sound(other, "r")
    host.close()


async def test_the_same_process_goes_on_with_what_it_gave_up(
    outage: tuple[Host, Locked],
) -> None:
    host, lock = outage
    vm = host.vm()
    with pytest.raises(StoreError, match="database is locked"):
        await vm.run(PAYS, run_id="r")
    with pytest.raises(StoreError, match="database is locked"):
        await vm.resume("r")
    lock.end()
    trace = await vm.resume("r")
    assert (trace.status, host.calls) == (SUCCESS, CALLS)
    assert sound(vm, "r")
    host.close()


async def test_the_end_of_a_run_is_stored_by_who_gave_it_up(
    outage: tuple[Host, Locked],
) -> None:
    host, lock = outage
    host.within = lambda _: None if host.calls["pay 2"] == 0 else lock.begin()
    vm, other = host.vm(), host.vm(far=True)
    with pytest.raises(StoreError, match="database is locked"):
        await vm.run(PAYS, run_id="r")
    lock.end()
    await until(lambda: other.load("r").status is SUCCESS)
    assert host.calls == CALLS
    assert sound(other, "r")
    host.close()


@pytest.mark.slow
async def test_what_a_call_gave_goes_to_who_took_the_run_over_meanwhile(
    outage: tuple[Host, Locked],
) -> None:
    host, lock = outage
    vm, other = host.vm(), host.vm(far=True)
    lease: Any = vm._durable.lease
    lease.pay = lambda: None  # it stands still
    with pytest.raises(StoreError, match="database is locked"):
        await vm.run(PAYS, run_id="r")
    lock.end()
    other.require_store().heartbeat(lease.owner, -1)
    trace = await other.resume("r")
    assert trace.status is TraceStatus.SUSPENDED
    del lease.pay
    await asyncio.to_thread(lease.pay)
    (trace,) = await other.work(until_idle=True)
    assert (trace.status, host.calls) == (SUCCESS, CALLS)
    assert sound(other, "r")
    host.close()


async def test_a_claim_whose_answer_never_came_is_given_back(url: str) -> None:
    host = Host(url)
    vm, other = host.vm(), host.vm(far=True)
    await vm.submit(PAYS, run_id="r")
    lease: Any = vm._durable.lease
    lease.begin()
    vm.store.claim(["r"], lease.owner, 1)  # type: ignore[union-attr]
    assert await other.work(until_idle=True) == []
    lease.doubt()
    trace = await taken_up(other)
    assert (trace.status, host.calls) == (SUCCESS, CALLS)
    host.close()


async def test_what_can_never_be_stored_keeps_nothing_else_waiting(
    file: str, caplog: pytest.LogCaptureFixture
) -> None:
    host = Host(file)
    vm, other = host.vm(), host.vm(far=True)
    await vm.submit(PAYS, run_id="r")
    lease: Any = vm._durable.lease
    lease.owe(Debt("no such run", outcomes=[Message("outcome", "a", {"output": 1}, None, 1)]))
    lease.owe(Debt("r", outcomes=[Message("outcome", "z", {"output": 1}, None, 1)]))
    await asyncio.to_thread(lease.pay)
    assert "run no such run: what it did last cannot be stored: there is no run" in caplog.text
    assert [message.name for message in other.require_store().load("r").inbox] == ["z"]
    assert not lease.owes
    host.close()


async def test_a_fault_of_ours_in_what_is_owed_keeps_nothing_else_waiting(
    file: str, caplog: pytest.LogCaptureFixture
) -> None:
    host = Host(file)
    vm, other = host.vm(), host.vm(far=True)
    await vm.submit(PAYS, run_id="r")
    lease: Any = vm._durable.lease
    lease.begin()
    vm.store.claim(["r"], lease.owner, 1)  # type: ignore[union-attr]
    broken = [ZeroDivisionError("a fault of ours")]
    settled = lease._settled

    def settled_once(*given: Any) -> Any:
        if broken:
            raise broken.pop()
        return settled(*given)

    lease._settled = settled_once
    lease.hold(["r"])
    lease.owe(Debt("r", Append(1, 2, after=0)))
    trace = await taken_up(other)
    assert (trace.status, host.calls) == (SUCCESS, CALLS)
    assert "run r: what it did last cannot be stored: a fault of ours" in caplog.text
    host.close()


async def test_a_fault_of_ours_leaves_the_run_to_others(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever ends the driving of a run: its process does not keep it."""
    from nano_vm.run.durable.journal import Journal

    end = Journal.end

    async def broken(self: Journal, *given: Any) -> None:
        monkeypatch.setattr(Journal, "end", end)
        raise ZeroDivisionError("a fault of ours")

    monkeypatch.setattr(Journal, "end", broken)
    vm, other = host.vm(), host.vm(far=True)
    with pytest.raises(ZeroDivisionError):
        await vm.run(program(step("a", "pay", args={"x": 1}), step("b", "look")), run_id="r")
    trace = await taken_up(other)
    assert (trace.status, host.calls) == (SUCCESS, {"pay 1": 1, "look None": 2})


@pytest.mark.slow
async def test_a_store_that_fails_makes_no_noise(
    file: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Appends that nobody waits for when they fail: no 'exception was never retrieved'."""
    monkeypatch.setattr(outbox, "PATIENCE_SECONDS", 0.3)
    host, lock = Host(file), Locked(file)
    told: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    reads = program(
        parallel(
            *(
                [step(f"a{n}", "look"), step(f"b{n}", "look"), step(f"c{n}", "pay")]
                for n in range(4)
            )
        )
    )
    host.within = lambda _: None if lock.connection is not None else lock.begin()
    vm = host.vm()
    with caplog.at_level(logging.WARNING), suppress(StoreError):
        await vm.run(reads, run_id="r")
    lock.end()
    gc.collect()
    await asyncio.sleep(0)
    assert told == []
    assert [record.message for record in caplog.records if record.name == "asyncio"] == []
    host.close()
