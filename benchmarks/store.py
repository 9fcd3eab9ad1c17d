"""What a store costs: a bare commit beside a lone append, many programs at once, bytes per step,
loading, and many waiting runs.

``python benchmarks/store.py [URL]``; without one, SQLite in a new file here. Everything at
``synchronous=FULL``.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from nano_vm.records.status import StepStatus
from nano_vm.store.protocol import Append, RunFilter
from nano_vm.store.records import INTENT, STEP, Row, StoredRun
from nano_vm.store.sql.store import SqlStore

WAITING = 100_000
PROMPT = "Answer with one word: is the customer entitled to a refund under the rules below? " * 40

APPROVAL = {"path": "ask", "step_id": "ask", "kind": "approval", "role": "manager", "show": {}}
"""What a waiting run waits for."""


def run(number: int, **fields: Any) -> StoredRun:
    given: dict[str, Any] = {
        "inputs": {"order": f"ORD-{number}"},
        "status": "running",
        "owner": "bench",
        "salt": b"0" * 16,
    }
    document = {"program": {"name": "refund", "steps": ["x" * 2000]}, "programs": {}}
    return StoredRun(
        f"run-{number}", "refund", "d" * 64, 10**18 + number, document, **given | fields
    )


def step(number: int, output: Any = True, request: Any = None) -> list[Row]:
    path, start = f"step_{number}", 1_795_000_000_000_000_000 + number * 1_000_000
    return [
        Row(INTENT, "", path, "tool", None, start),
        Row(STEP, "", path, "tool", StepStatus.SUCCESS, start, start + 654_321, request, output),
    ]


def timed(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def bare_commit(folder: Path) -> float:
    """Seconds of one transaction with one row, by the driver alone."""
    database = sqlite3.connect(folder / "bare.db", isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = FULL")
    database.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, a, b)")

    def commit() -> None:
        database.execute("BEGIN IMMEDIATE")
        database.execute("INSERT INTO t (a, b) VALUES ('step', '{}')")
        database.execute("COMMIT")

    seconds = median(timed(commit) for _ in range(300))
    database.close()
    return seconds


async def lone(store: SqlStore) -> float:
    one = run(1_000_001)
    store.create(one)
    spent = []
    for number in range(300):
        began = time.perf_counter()
        await store.append(Append(one.key, one.fence, step(number)))
        spent.append(time.perf_counter() - began)
    return median(spent)


async def together(store: SqlStore, programs: int, steps: int, first: int) -> tuple[float, int]:
    """Programs in flight, each step waiting for its own record."""
    before = store.writer.transactions

    async def one(number: int) -> None:
        mine = run(number)
        await store.begin(mine)
        for at in range(steps):
            await store.append(Append(mine.key, mine.fence, step(at)))
        await store.append(Append(mine.key, mine.fence, (), {"status": "success", "owner": None}))

    began = time.perf_counter()
    await asyncio.gather(*(one(first + number) for number in range(programs)))
    return time.perf_counter() - began, store.writer.transactions - before


def size(store: SqlStore) -> int:
    store.database.flush()
    if store.database.dialect.alone:
        with store.database.reading() as connection:
            return int(
                connection.one("SELECT sum(pgsize) FROM dbstat WHERE name NOT LIKE '%contents%'")[0]
            )
    tables = "nano_runs nano_rows nano_inbox nano_owners".split()
    with store.database.reading() as connection:
        return sum(
            int(connection.one("SELECT pg_total_relation_size(?)", table)[0]) for table in tables
        )


def main() -> None:
    with tempfile.TemporaryDirectory(dir=".") as folder:
        url = sys.argv[1] if len(sys.argv) > 1 else f"sqlite:///{folder}/store.db"
        with SqlStore(url) as store:
            bare = bare_commit(Path(folder))
            alone = asyncio.run(lone(store))
            print(f"bare commit in SQLite      {bare * 1e3:8.3f} ms")
            print(
                f"lone append                {alone * 1e3:8.3f} ms, {alone / bare:.2f} bare commits"
            )
            seconds, commits = asyncio.run(together(store, 20, 20, 2_000_000))
            print(
                f"20 programs of 20 steps    {seconds * 1e3:8.1f} ms, {commits} transactions, "
                f"{400 * bare / seconds:.1f} x a commit each"
            )
            cpu = time.process_time()
            seconds, commits = asyncio.run(together(store, 400, 20, 3_000_000))
            cpu = time.process_time() - cpu
            print(
                f"400 programs of 20 steps   {seconds * 1e3:8.1f} ms, {commits} transactions, "
                f"{cpu / 8000 * 1e6:.0f} us of CPU a step"
            )

            one = run(1_000_002)
            store.create(one)
            before = size(store)
            rows = [
                row
                for number in range(5000)
                for row in step(number, {"order": number, "text": PROMPT[:60] + str(number)})
            ]
            asyncio.run(append(store, Append(one.key, one.fence, rows)))
            print(f"bytes a step, beside values{(size(store) - before) / 5000:8.0f}")
            prompted = run(1_000_003)
            store.create(prompted)
            rows = [
                row
                for number in range(1000)
                for row in step(number, "yes", {"messages": [{"role": "user", "content": PROMPT}]})
            ]
            asyncio.run(append(store, Append(prompted.key, prompted.fence, rows)))
            with store.database.reading() as connection:
                found = connection.one(
                    "SELECT count(*), max(refs) FROM nano_contents WHERE length(body) > 3000"
                )
            print(f"a prompt in 1,000 steps    {found[0]:8d} copy, {found[1]} references")

            seconds = median(timed(lambda: store.load(one.run_id)) for _ in range(9))
            print(f"load 10,000 rows           {seconds * 1e3:8.1f} ms")
            many = [
                run(n, status="suspended", owner=None, wake_ns=10**18 + n, waiting=[APPROVAL])
                for n in range(WAITING)
            ]
            asyncio.run(begin(store, many))
            seconds = median(timed(lambda: list(store.runs(limit=50))) for _ in range(9))
            print(f"runs(limit=50) of 100,000  {seconds * 1e3:8.1f} ms")
            seconds = median(
                timed(lambda: list(store.runs(RunFilter(status="suspended"), limit=50)))
                for _ in range(9)
            )
            print(f"  of those suspended       {seconds * 1e3:8.1f} ms")
            seconds = median(timed(lambda: store.claimable(10**18 + 50, 100)) for _ in range(9))
            print(f"claimable of 100,000       {seconds * 1e3:8.1f} ms")
            seconds = timed(store.check)
            print(f"check of all of it         {seconds:8.1f} s")


async def append(store: SqlStore, item: Append) -> None:
    await store.append(item)


async def begin(store: SqlStore, runs: list[StoredRun]) -> None:
    for at in range(0, len(runs), 1000):
        await asyncio.gather(*(store.begin(one) for one in runs[at : at + 1000]))


if __name__ == "__main__":
    main()
