"""Programs in one process, on a store and on a Temporal cluster, and a bare interpreter on the same
cluster: the table of docs/how-to/temporal.md.

    python benchmarks/temporal.py            # prints the table
    python benchmarks/temporal.py --write    # and writes it into the page

Each program has 20 steps, one after the other, of a tool that returns its argument; see
`temporal_bare` for the bare interpreter. Client and worker are this process, and the processor time
of the server, where there is one, is counted apart. The development server of Temporal is in memory;
PostgreSQL and SQLite commit to the disk. All run in turns, so that what else the machine does hits
all.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean, median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from postgres import PostgresServer
from processes import family_seconds
from report import finish, number
from temporal.cluster import Server
from temporal_bare import bare_worker, echo, echoes, run_bare
from temporalio.client import Client

from nano_vm import ExecutionVM
from nano_vm.temporal import TemporalRuns, worker

PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "temporal.md"
BEGIN, END = "<!-- written by benchmarks/temporal.py -->", "<!-- end of what it writes -->"
STEPS, ROUNDS, AT_ONCE, PROGRAMS = 20, 3, 20, 20

Run = Callable[[str], Awaitable[Any]]


@dataclass(slots=True)
class Way:
    """A way to run the program: *server* is the process that it needs beside this one. What was
    measured in each round: milliseconds of a step alone, programs a second of many at once,
    processor milliseconds of a step here and in the server.
    """

    run: Run
    server: int | None = None
    rounds: list[tuple[float, float, float, float]] = field(default_factory=list)

    def used(self) -> tuple[float, float]:
        """Processor seconds of this process, and of the server."""
        return time.process_time(), family_seconds(self.server) if self.server else 0.0

    async def measure(self, name: str) -> None:
        """One round; *name* begins the ids of its runs."""
        await self.run(f"{name}-warm")
        started = time.perf_counter()
        await self.run(f"{name}-alone")
        alone = (time.perf_counter() - started) / STEPS * 1000
        free = asyncio.Semaphore(AT_ONCE)

        async def one(number: int) -> None:
            async with free:
                await self.run(f"{name}-{number}")

        started, before = time.perf_counter(), self.used()
        await asyncio.gather(*(one(number) for number in range(PROGRAMS)))
        rate = PROGRAMS / (time.perf_counter() - started)
        own, of_server = (
            (after - earlier) / PROGRAMS / STEPS * 1000
            for after, earlier in zip(self.used(), before, strict=True)
        )
        self.rounds.append((alone, rate, own, of_server))

    def cells(self) -> list[str]:
        """The medians."""
        alone, rate, own, of_server = map(median, zip(*self.rounds, strict=True))
        server = f"{number(of_server)} ms" if self.server else "-"
        return [f"{number(alone)} ms", number(rate), f"{number(own)} ms", server]


async def history(client: Client, run_id: str) -> str:
    """Events and bytes of a step of a run."""
    found = await client.get_workflow_handle(run_id).fetch_history()
    size = sum(len(event.SerializeToString()) for event in found.events)
    return f"{len(found.events) / STEPS:.1f}, {size / STEPS:.0f}"


async def measured(folder: Path, open_until: ExitStack) -> str:
    """The table, and how it was measured."""
    server, database = Server(), PostgresServer(folder, fsync=True)
    open_until.callback(database.stop)
    server.start()
    open_until.callback(server.stop)
    client = await server.client()
    assert server.process is not None
    made, plain = echoes(STEPS), ExecutionVM(None, {"echo": echo})

    def stored(url: str) -> Run:
        vm = plain.with_(store=url)
        open_until.callback(vm.close)
        return lambda run_id: vm.run(made, run_id=run_id)

    runs = TemporalRuns(client, "bench", vm=plain)
    ways = {
        "one process": Way(lambda run_id: plain.run(made, run_id=run_id)),
        "a store, SQLite": Way(stored(f"sqlite:///{folder}/runs.db")),
        "a store, PostgreSQL": Way(stored(database.database()), database.pid),
        "a Temporal cluster": Way(lambda run_id: runs.run(made, run_id=run_id), server.process.pid),
        "Temporal, a bare interpreter": Way(
            lambda run_id: run_bare(client, run_id, STEPS), server.process.pid
        ),
    }
    loads = []
    async with worker(client, plain, "bench"), bare_worker(client):
        for turn in range(ROUNDS):
            for place, way in enumerate(ways.values()):
                await way.measure(f"{turn}-{place}")
            loads.append(os.getloadavg()[0])
    events = {
        name: await history(client, f"0-{place}-1")
        for place, name in enumerate(ways)
        if "Temporal" in name
    }
    rows = [[name, *way.cells(), events.get(name, "-")] for name, way in ways.items()]
    return table(rows, mean(loads))


def table(rows: list[list[str]], load: float) -> str:
    """*rows* as Markdown."""
    head = ["20 steps", "a step, alone", "programs/s, 20 at once", "CPU of a step"]
    head += ["and of its server", "events, bytes"]
    lines = [f"| {' | '.join(line)} |" for line in (head, ["---", *["---:"] * 5], *rows)]
    how = (
        f"Medians of {ROUNDS} rounds in turns on {datetime.now(UTC).date()}, {os.cpu_count()} cores "
        f"at load {load:.0f}."
    )
    return "\n".join([*lines, "", how])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the table into the page")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as open_until:
        text = asyncio.run(measured(Path(folder), open_until))
    finish(PAGE, BEGIN, END, text, write=given.write)


if __name__ == "__main__":
    main()
