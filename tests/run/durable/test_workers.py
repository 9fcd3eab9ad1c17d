"""Several workers over one database: they take different runs, hold no lock that another waits for,
and do each run once.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import warm
from postgres import PostgresServer, url_of
from working import LONG, MEETINGS, PROCESSES, RUNS, WRITES

from nano_vm import ExecutionVM, tool
from nano_vm.errors import LeaseLost, StoreError
from nano_vm.records.status import StepStatus
from nano_vm.run.durable.worker import Worker as WorkerOfRuns
from nano_vm.store.protocol import Append
from nano_vm.store.records import STEP, Message, Row, StoredRun
from nano_vm.store.seals import RunSeal
from nano_vm.store.sql.database import IDLE_CONNECTIONS, Connection, Database
from nano_vm.store.sql.store import SqlStore

STRESS_TURNS = 15
"""Of each worker; they take 3 s on a machine that does nothing else."""


@pytest.fixture(params=["file", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return url_of(request, tmp_path)


def deadlocks(server: PostgresServer) -> int:
    """Those that the server has ended so far; it counts them when a session is over."""
    time.sleep(0.3)
    return int(
        str(server.execute("SELECT coalesce(sum(deadlocks), 0) FROM pg_stat_database")[0][0])
    )


# --- processes ---


@pytest.mark.slow
def test_workers_share_the_runs_and_do_each_once(
    url: str,
    tmp_path: Path,
    postgres: PostgresServer,
) -> None:
    """All submit the same runs, each in an order of its own, and then work on them."""
    before = deadlocks(postgres)
    ledgers = [tmp_path / f"ledger-{number}" for number in range(PROCESSES)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with ExitStack() as ending:
        workers = []
        for ledger in ledgers:
            command = [sys.executable, "-m", "working", url, str(ledger)]
            pipe = subprocess.PIPE
            worker = warm.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True)
            workers.append(ending.enter_context(worker))
            ending.callback(worker.kill)
        for _ in range(MEETINGS):
            assert [worker.stdout.readline() for worker in workers] == ["here\n"] * PROCESSES
            for worker in workers:
                worker.stdin.write("\n")
                worker.stdin.flush()
        shares = [json.loads(worker.communicate()[0]) for worker in workers]
        assert [worker.returncode for worker in workers] == [0] * PROCESSES
    assert sorted(run_id for share in shares for run_id in share) == sorted(
        f"run-{number}" for number in range(RUNS)
    )
    assert all(shares)
    calls = Counter(
        line for ledger in ledgers if ledger.exists() for line in ledger.read_text().splitlines()
    )
    assert calls.pop(LONG[:20]) == 2 * RUNS
    assert calls == {f"run {number}": 1 for number in range(RUNS)}
    assert deadlocks(postgres) == before


# --- locks ---


class Worker(threading.Thread):
    """A store of its own, whose operations come in batches and in any order."""

    def __init__(self, url: str, name: str, ids: list[str]) -> None:
        super().__init__()
        self.store, self.name, self.ids = SqlStore(url), name, ids
        self.draw = random.Random(name)
        self.errors: list[BaseException] = []
        self.appended: Counter[str] = Counter()

    def run(self) -> None:
        self.store.heartbeat(self.name, 60)
        try:
            for _ in range(STRESS_TURNS):
                asyncio.run(self.turn())
        except BaseException as error:  # noqa: BLE001 - a thread's error would be lost
            self.errors.append(error)

    def row(self) -> Row:
        output = {"text": LONG, "n": self.draw.randrange(4)}
        return Row(STEP, "", "s", "tool", StepStatus.SUCCESS, 1, 2, output=output)

    async def turn(self) -> None:
        """Create, send, claim, append and give back, all at the same time."""
        draw, store = self.draw, self.store
        created = [
            store.begin(
                StoredRun(run_id, "p", "d", 1, {"p": LONG}, {"x": LONG + run_id[-1]}, salt=b"s")
            )
            for run_id in draw.sample(self.ids, 8)
        ]
        sent = [
            asyncio.to_thread(store.send, run_id, Message("event", "e", {"x": LONG}, None, 1))
            for run_id in draw.sample(self.ids, 3)
        ]
        claims = [
            asyncio.to_thread(store.claim, draw.sample(self.ids, 8), self.name, 1, most=4)
            for _ in range(2)
        ]
        await asyncio.gather(*created)
        claimed, _ = await asyncio.gather(
            asyncio.gather(*claims), asyncio.gather(*sent, return_exceptions=True)
        )
        mine = {run_id: claim.fence for found in claimed for run_id, claim in found.items()}
        items = []
        for run_id, fence in mine.items():
            run, row = await asyncio.to_thread(store.load, run_id), self.row()
            items.append(
                (run_id, Append(run.key, fence, [row], RunSeal(run).after([row], {"output": LONG})))
            )
        draw.shuffle(items)
        free = [
            (run_id, Append(item.key, item.fence, (), {"owner": None})) for run_id, item in items
        ]
        for run_id, answer in zip(
            [run_id for run_id, _ in items],
            await asyncio.gather(
                *(store.append(item) for _, item in items), return_exceptions=True
            ),
            strict=True,
        ):
            if answer is None:
                self.appended[run_id] += 1
            elif not isinstance(answer, LeaseLost):
                raise answer
        await asyncio.gather(*(store.append(item) for _, item in free), return_exceptions=True)


@pytest.mark.slow
def test_no_two_ever_wait_for_each_other(url: str, postgres: PostgresServer) -> None:
    before = deadlocks(postgres)
    ids = [f"r{number}" for number in range(24)]
    with SqlStore(url) as store:
        for run_id in ids:
            store.create(StoredRun(run_id, "p", "d", 1, salt=b"s"))
        workers = [
            Worker(url, f"w{number}", [*ids, *(f"n{n}" for n in range(200))]) for number in range(4)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()  # a deadlock is an error of the database, and ends it too
            worker.store.close()
        assert [error for worker in workers for error in worker.errors] == []
        assert store.check() == []
        for run in store.runs():
            rows = len(store.load(run.run_id).rows)
            assert rows == sum(worker.appended[run.run_id] for worker in workers), (
                "what was acknowledged is there"
            )
    assert deadlocks(postgres) == before


async def test_a_run_that_another_transaction_holds_keeps_no_other_waiting(
    postgres: PostgresServer,
) -> None:
    import psycopg

    url = postgres.database()
    row = Row(STEP, "", "s", "tool", StepStatus.SUCCESS, 1, 2)
    with SqlStore(url, busy_timeout_seconds=0.5) as store, psycopg.connect(url) as other:
        runs = [StoredRun(f"r{number}", "p", "d", 1, salt=b"s") for number in range(3)]
        for run in runs:
            store.create(run)
        other.execute("SELECT 1 FROM nano_runs WHERE run_id = 'r1' FOR UPDATE")
        assert await asyncio.to_thread(store.claim, ["r1"], "me", 1) == {}
        held = [
            store.append(Append(runs[1].key, 1, [row])),
            store.append(Append(runs[1].key, 1, [row])),
        ]
        await asyncio.gather(
            *(store.append(Append(run.key, 1, [row])) for run in (runs[0], runs[2]))
        )
        assert not held[0].done()
        with pytest.raises(
            StoreError, match=r"run number 2 was locked for \d+\.\d s by another transaction"
        ):
            await held[0]
        with pytest.raises(StoreError, match="locked"):
            await held[1]
        again = store.append(Append(runs[1].key, 1, [row]))
        await asyncio.sleep(0.1)
        other.rollback()
        await again
        assert [len(store.load(run.run_id).rows) for run in runs] == [1, 1, 1]


# --- what a worker asks of the database ---


@pytest.mark.slow
async def test_runs_are_claimed_and_loaded_together(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a program costs a worker does not grow with the number of runs that it takes at once."""
    asked: Counter[str] = Counter()
    begin, connect = Connection.begin, Database.connect

    def counted(self: Connection, *, write: bool = True) -> Any:
        asked["writes" if write else "reads"] += 1
        return begin(self, write=write)

    def connected(self: Database) -> Connection:
        asked["connections"] += 1
        return connect(self)

    @tool(effect="write")
    async def note(text: str) -> str:
        return text

    vm = ExecutionVM(tools={"note": note}, store=url)
    for number in range(RUNS):
        await vm.submit(WRITES, {"name": f"run {number}"}, run_id=f"run-{number}")
    monkeypatch.setattr(Connection, "begin", counted)
    monkeypatch.setattr(Database, "connect", connected)
    assert len(await vm.work(until_idle=True)) == RUNS
    vm.close()
    assert asked["reads"] < RUNS / 2, "each run was loaded by itself, and asked three times: 1.5"
    assert asked["writes"] < RUNS
    assert asked["connections"] <= IDLE_CONNECTIONS, "one was opened that had been closed"


async def test_a_run_that_cannot_be_loaded_keeps_no_other_waiting(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    @tool(effect="write")
    async def note(text: str) -> str:
        return text

    vm = ExecutionVM(tools={"note": note}, store=url)
    for number in range(3):
        await vm.submit(WRITES, {"name": f"run {number}"}, run_id=f"run-{number}")
    store: Any = vm.store
    with store.database.writing() as connection:
        connection.run("UPDATE nano_runs SET crc = crc + 1 WHERE run_id = 'run-1'")
    found = store.load_each(["run-0", "run-1", "unknown", "run-2"])
    assert {run_id: type(run).__name__ for run_id, run in found.items()} == {
        "run-0": "StoredRun",
        "run-1": "StoreError",
        "unknown": "UnknownRun",
        "run-2": "StoredRun",
    }
    assert sorted(trace.run_id for trace in await vm.work(until_idle=True)) == ["run-0", "run-2"]
    assert "run run-1 cannot be resumed here: run 'run-1': its header is not what was written" in (
        caplog.text
    )
    vm.close()


def test_a_connection_that_was_lost_while_nobody_used_it_is_replaced(
    postgres: PostgresServer,
) -> None:
    with SqlStore(postgres.database()) as store:
        store.create(StoredRun("r", "p", "d", 1, salt=b"s"))
        assert store.load("r").run_id == "r"
        with store.database.writing():
            pass
        postgres.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'llm-nano-vm'"
        )
        assert store.load("r").run_id == "r"
        with store.database.writing() as connection:
            assert connection.one("SELECT count(*) FROM nano_runs")[0] == 1


def test_a_worker_looks_later_each_time_that_others_are_quicker(tmp_path: Path) -> None:
    vm = ExecutionVM(store=f"sqlite:///{tmp_path}/runs.db")
    durable: Any = vm._durable
    worker = WorkerOfRuns(durable, concurrency=4, poll_seconds=0.5, only=None)
    for times, longest in ((0, 0.5), (1, 0.04), (2, 0.08), (3, 0.16), (9, 0.5)):
        worker.passed_over = times
        pauses = [worker._pause() for _ in range(50)]
        assert longest / 2 <= min(pauses) < max(pauses) <= longest
    vm.close()
