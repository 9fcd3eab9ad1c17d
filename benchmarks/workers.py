"""Several worker processes over one database: programs a second, deadlocks, and how often one
waited for a lock of another.

    python benchmarks/workers.py    # PostgreSQL and SQLite, 1, 2, 4 and 8 processes
    python benchmarks/workers.py --runs 200 --only sqlite
    python benchmarks/workers.py --rounds 5 --write    # the figures go to reliability.md

Each process takes runs of five writes until there are none, all at the same time. A wait for a lock
counts from `LOCK_WAIT_MS`, as the server logs it; SQLite has one lock for all, and tells nothing.
What can be gained ends with the processors of the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / "tests")]

from postgres import PostgresServer  # noqa: E402
from report import put  # noqa: E402

from nano_vm import ExecutionVM, Program, Trace, tool  # noqa: E402
from nano_vm.store.sql.database import Connection  # noqa: E402

PAGE = HERE.parent / "docs" / "explanation" / "reliability.md"
BEGIN, END = (
    "<!-- written by benchmarks/workers.py; do not edit -->",
    "<!-- end of what benchmarks/workers.py writes -->",
)

PROCESSES = (1, 2, 4, 8)
STEPS = 5
LOCK_WAIT_MS = 10
LIMIT_SECONDS = 600

FIVE = Program.from_dict(
    {
        "name": "five",
        "inputs": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]},
        "steps": [
            {"id": f"s{at}", "type": "tool", "tool": "note", "args": {"n": "$n"}}
            for at in range(STEPS)
        ],
    }
)


@tool(effect="write")
async def note(n: int) -> int:
    return n


class Statements:
    """Counts what this process sends to its database, in all of its threads."""

    def __init__(self) -> None:
        self.count = 0
        for name in ("begin", "commit", "one", "all", "run", "many"):
            setattr(Connection, name, self.counting(getattr(Connection, name)))

    def counting(self, function: Any) -> Any:
        def counted(connection: Connection, *given: Any, **options: Any) -> Any:
            if given[1:] != ([],):  # of `many` without values, which sends nothing
                self.count += 1
            return function(connection, *given, **options)

        return counted


def opened(url: str) -> ExecutionVM:
    return ExecutionVM(tools={"note": note}, store=url)


async def submitted(url: str, runs: int) -> None:
    """Store so many runs."""
    vm = opened(url)
    for first in range(0, runs, 250):
        numbers = range(first, min(first + 250, runs))
        await asyncio.gather(
            *(vm.submit(FIVE, {"n": number}, run_id=f"r{number}") for number in numbers)
        )
    vm.close()


def work(url: str, ready: Any, results: Any) -> None:
    """A worker process: how many runs it drove, when it was done, and what that took."""
    statements = Statements()
    vm = opened(url)
    driven: list[str] = []

    def ended(trace: Trace) -> None:
        driven.append(trace.run_id)

    async def main() -> None:
        await vm.work(until_idle=True, ended=ended)

    vm.verify(FIVE)  # what a process does once is not counted
    vm.waiting("r0")
    asyncio.run(ExecutionVM(tools={"note": note}, store="sqlite://").run(FIVE, {"n": 0}))
    ready.wait()
    began, used, sent = time.monotonic(), time.process_time(), statements.count
    asyncio.run(main())
    used = time.process_time() - used
    results.put((driven, began, time.monotonic(), used, statements.count - sent))
    vm.close()


@dataclass(frozen=True, slots=True)
class Shared:
    """What several processes did together."""

    seconds: float
    cpu_seconds: float  # of the workers
    statements: int
    share: list[int]  # of the runs, by process
    twice: int


def together(url: str, processes: int) -> Shared:
    """All runs of a database, driven by so many processes that begin at the same time."""
    spawn = multiprocessing.get_context("spawn")
    ready, results = spawn.Barrier(processes), spawn.Queue()
    workers = [spawn.Process(target=work, args=(url, ready, results)) for _ in range(processes)]
    for worker in workers:
        worker.start()
    found = [results.get(timeout=LIMIT_SECONDS) for _ in workers]
    for worker in workers:
        worker.join()
    times = Counter(run_id for driven, *_ in found for run_id in driven)
    began = min(began for _, began, *_ in found)
    last = max(ended for driven, _, ended, *_ in found if driven)
    return Shared(
        last - began,
        sum(used for *_, used, _ in found),
        sum(sent for *_, sent in found),
        sorted(len(driven) for driven, *_ in found),
        sum(n > 1 for n in times.values()),
    )


@contextmanager
def databases(kind: str, folder: Path) -> Iterator[tuple[Any, PostgresServer | None]]:
    """A function that gives the URL of a new database, and its server."""
    if kind == "sqlite":
        yield (lambda number: f"sqlite:///{folder}/{number}.db"), None
        return
    settings = {"log_lock_waits": "on", "deadlock_timeout": f"{LOCK_WAIT_MS}ms"}
    server = PostgresServer(folder, fsync=True, settings=settings)
    try:
        yield (lambda _: server.database()), server
    finally:
        server.stop()


def measured(kind: str, runs: int, rounds: int) -> list[dict[str, Any]]:
    """A row for each number of processes; the best of *rounds*."""
    rows = []
    with (
        tempfile.TemporaryDirectory(dir=HERE) as name,
        databases(kind, Path(name)) as (database, server),
    ):
        for processes in PROCESSES:
            best: dict[str, Any] = {}
            for at in range(rounds):
                url = database(f"{processes}-{at}")
                asyncio.run(submitted(url, runs))
                waits = (
                    server.log.read_text().count("still waiting for") if server is not None else 0
                )
                shared = together(url, processes)
                row = {
                    "processes": processes,
                    "programs_per_second": round(runs / shared.seconds, 1),
                    "cpu_ms_a_program": round(shared.cpu_seconds / runs * 1e3, 2),
                    "statements_a_program": round(shared.statements / runs, 1),
                    "shares": shared.share,
                    "driven_twice": shared.twice,
                }
                if server is not None:
                    row["deadlocks"] = deadlocks(server)
                    row["lock_waits"] = server.log.read_text().count("still waiting for") - waits
                if row["programs_per_second"] > best.get("programs_per_second", 0):
                    best = row
            best = {"database": kind, **best}
            print(json.dumps(best), flush=True)
            rows.append(best)
    return rows


def page(rows: list[dict[str, Any]], runs: int) -> str:
    """The figures as Markdown."""
    lines = [
        f"{runs:,} runs of {STEPS} writes, the best of some rounds on {os.cpu_count()} cores, "
        f"load {os.getloadavg()[0]:.1f} meanwhile.",
        "",
        "| database | processes | programs/s | ms CPU of the workers a program | "
        "statements a program | deadlocks | waits for a lock | runs driven twice |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        told = [
            row["database"],
            row["processes"],
            row["programs_per_second"],
            row["cpu_ms_a_program"],
            row["statements_a_program"],
        ]
        told += [row.get("deadlocks", "-"), row.get("lock_waits", "-"), row["driven_twice"]]
        lines.append(f"| {' | '.join(str(cell) for cell in told)} |")
    return "\n".join(lines)


def deadlocks(server: PostgresServer) -> int:
    """Those of all databases since the server was started."""
    return int(server.execute("SELECT coalesce(sum(deadlocks), 0) FROM pg_stat_database")[0][0])  # type: ignore[call-overload]


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--only", choices=["postgres", "sqlite"])
    parser.add_argument(
        "--write", action="store_true", help="put the figures of both into reliability.md"
    )
    given = parser.parse_args()
    print(f"{os.cpu_count()} cores, {given.runs} runs of {STEPS} writes", flush=True)
    rows = [
        row
        for kind in ([given.only] if given.only else ["postgres", "sqlite"])
        for row in measured(kind, given.runs, given.rounds)
    ]
    if given.write and not given.only:
        put(PAGE, BEGIN, END, page(rows, given.runs))
    return 1 if any(row["driven_twice"] or row.get("deadlocks") for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
