"""What the server adds: reading and starting runs by the API beside what a bare route and the store
alone take, the first page of a million runs beside that of a thousand, checking a program of 50
steps, and how soon an event reaches 200 who follow its run. Ratios within one run: what is compared
takes turns, so that a busy machine slows both alike. Medians, and processor time of all processes'
threads here, which the client shares.

    python benchmarks/server.py [--runs 1000000] [--postgres URL] [--write]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import sqlalchemy as sa
from fastapi import FastAPI, Response

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from server.serving import answering

from nano_vm import ExecutionVM, Program
from nano_vm.run.inbox import Inbox
from nano_vm.server import secrets, tables
from nano_vm.server.app import application
from nano_vm.server.rows import Rows
from nano_vm.server.state import State
from nano_vm.store.protocol import TableStore, open_tables

PAGE = Path(__file__).parents[1] / "docs" / "explanation" / "server-benchmarks.md"
PROJECT = "/api/v1/projects/bench"
STEPS = [{"id": f"s{n}", "type": "set", "values": {f"v{n}": n}} for n in range(20)]
SHORT = Program.from_dict({"name": "short", "steps": STEPS})
WAITS = Program.from_dict({"name": "waits", "steps": [{"id": "w", "type": "wait", "event": "e"}]})
SOURCE = "name: long\nsteps:\n" + "".join(
    f"  - {{id: s{n}, type: set, values: {{v{n}: {n}}}}}\n" for n in range(50)
)
PEPPER = b"the pepper of a benchmark, 32 by"

ROUNDS, TURN, WARM = 20, 10, 10
LISTENERS, EVENTS = 200, 40
FEW = 1_000

PART = 10
"""One of so many runs has failed, and as many have the label: of few runs, too, a full page."""


class Line(NamedTuple):
    """What was measured, its time, beside what, the bar, and whether it was met."""

    what: str
    took: str
    beside: str
    bar: str
    met: bool

    def cells(self) -> tuple[str, str, str, str]:
        """As they are printed: a bar that was missed says so."""
        return self.what, self.took, self.beside, self.bar if self.met else f"{self.bar}: missed"


def main() -> None:
    """Print the table; with ``--write`` also the page of the documentation."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=1_000_000)
    parser.add_argument("--postgres", help="an empty database, for events with notices")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        lines = [
            *of_requests(f"sqlite:///{folder}/runs.db"),
            *of_pages(folder, given.runs),
            of_events(f"sqlite:///{folder}/events.db", "SQLite, which is asked"),
        ]
        if given.postgres:
            lines.append(of_events(given.postgres, "PostgreSQL, which gives notice"))
    for line in lines:
        print("{:58} {:>12}   {:32} {}".format(*line.cells()))
    if given.write:
        PAGE.write_text(page_of(lines), encoding="utf-8")


def of_requests(url: str) -> list[Line]:
    """Reading, starting and checking."""
    store = open_tables(url)
    vm = ExecutionVM(store=store)
    state = State(store, PEPPER, vm=ExecutionVM())
    key = seed(state)
    run_id = vm.run_sync(SHORT, {}, project="bench").run_id
    bare = FastAPI()
    with (
        answering(application(state)) as address,
        answering(bare) as other,
        client_of(address, key) as client,
        httpx.Client(base_url=other) as plain,
    ):
        content = client.get(f"{PROJECT}/runs/{run_id}").content
        bare.get("/")(lambda: Response(content, media_type="application/json"))
        put = {"source": "name: short\nsteps:\n" + SOURCE.partition("steps:\n")[2]}
        client.post(f"{PROJECT}/programs", json=put).raise_for_status()
        read = turns(
            {
                "bare": lambda: plain.get("/"),
                "read": lambda: client.get(f"{PROJECT}/runs/{run_id}"),
            }
        )
        start = turns(
            {
                "alone": lambda: store.create(vm.pending(SHORT, {}, project="bench")),
                "start": lambda: client.post(f"{PROJECT}/runs", json={"program": "short"}),
            }
        )
        changed = (f"{SOURCE}# {n}\n" for n in range(1_000))
        check = turns(
            {
                "check": lambda: client.post(
                    f"{PROJECT}/programs/check", json={"source": next(changed)}
                )
            },
            rounds=5,
        )
    reading, processor = (read["read"][n] / read["bare"][n] for n in range(2))
    starting = start["start"][0] / start["alone"][0]
    checking = check["check"][0]
    return [
        Line(
            "read a run of 20 steps",
            shown(read["read"][0]),
            f"{reading:.1f} x a bare route; of the processor {processor:.1f} x",
            "at most 3",
            reading <= 3,
        ),
        Line(
            "start a run",
            shown(start["start"][0]),
            f"{starting:.2f} x what the store alone takes",
            "at most 2",
            starting <= 2,
        ),
        Line("check a program of 50 steps", shown(checking), "", "at most 50 ms", checking <= 50),
    ]


def of_pages(folder: str, count: int) -> list[Line]:
    """The first page of few runs, and of *count*, by three of the filters that have an index."""
    found: dict[str, tuple[float, float]] = {}
    stores = {"few": FEW, "many": count}
    with contextmany(f"sqlite:///{folder}/{name}.db" for name in stores) as clients:
        for (name, runs), (client, store) in zip(stores.items(), clients, strict=True):
            fill(store, runs)
            client.get(f"{PROJECT}/runs").raise_for_status()
            stores[name] = runs
        few, many = (client for client, _ in clients)
        for what in ("", "?status=failed", "?labels=team%3Dred"):
            took = turns(
                {
                    "few": lambda what=what: few.get(f"{PROJECT}/runs{what}"),  # type: ignore[misc]
                    "many": lambda what=what: many.get(f"{PROJECT}/runs{what}"),  # type: ignore[misc]
                },
                rounds=5,
            )
            found[what] = took["many"][0], took["few"][0]
    return [
        Line(
            f"first page of {count:,} runs {what and f'({what[1:]})'}".replace("%3D", "="),
            shown(many_ms),
            f"{many_ms / few_ms:.2f} x that of {FEW:,}",
            "at most 2",
            many_ms <= 2 * few_ms,
        )
        for what, (many_ms, few_ms) in found.items()
    ]


@contextmanager
def contextmany(urls: Any) -> Iterator[list[tuple[httpx.Client, TableStore]]]:
    """A server, with a client, over each database."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        found = []
        for url in urls:
            store = open_tables(url)
            stack.callback(store.close)
            state = State(store, PEPPER, vm=ExecutionVM())
            key = seed(state)
            address = stack.enter_context(answering(application(state)))
            found.append((stack.enter_context(client_of(address, key)), store))
        yield found


def fill(store: TableStore, count: int) -> None:
    """So many runs, copies of one by SQL: of each `PART` one failed, and one has a
    label.
    """
    ExecutionVM(store=store).run_sync(SHORT, {}, project="bench", labels={"team": "red"})
    with store.reading() as transaction:
        [(columns,)] = transaction.all(
            "SELECT group_concat(name, ',') FROM pragma_table_info('nano_runs')"
        )
    changed = {
        "key": "r.key + n.n",
        "run_id": "r.run_id || '-' || n.n",
        "created_ns": "r.created_ns + n.n",
        "status": f"CASE n.n % {PART} WHEN 0 THEN 'failed' ELSE r.status END",
    }
    values = ", ".join(changed.get(name, f"r.{name}") for name in columns.split(","))
    numbers = (
        f"WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {count - 1}) "
    )

    def job(transaction: Any) -> None:
        transaction.run(
            f"{numbers}INSERT INTO nano_runs ({columns}) SELECT {values} FROM n, nano_runs r"
        )
        transaction.run(
            "INSERT INTO nano_labels (name, value, created_ns, run) "
            f"SELECT 'team', 'red', created_ns, key FROM nano_runs WHERE key % {PART} = 0"
        )

    store.transact(job)


def of_events(url: str, what: str) -> Line:
    """From the commit of a change to its arrival at those who follow the run."""
    store, writer = open_tables(url), open_tables(url)
    state = State(store, PEPPER, vm=ExecutionVM())
    key = seed(state)
    run_id = ExecutionVM(store=writer).run_sync(WAITS, {}, project="bench").run_id
    with answering(application(state)) as address:
        took = asyncio.run(listened(address, key, run_id, writer))
    store.close()
    writer.close()
    near, far = statistics.median(took) * 1e3, statistics.quantiles(took, n=20)[-1] * 1e3
    return Line(
        f"an event at {LISTENERS} who follow its run ({what})",
        shown(near),
        f"p95 {far:.0f} ms",
        "at most 100 ms",
        near <= 100,
    )


async def listened(address: str, key: str, run_id: str, writer: TableStore) -> list[float]:
    """How long each of many events took to each listener."""
    sent: list[float] = []
    took: list[float] = []
    ready = 0
    inbox = Inbox(writer, None, time)
    limits = httpx.Limits(max_connections=None)
    headers = {"authorization": f"Bearer {key}"}
    client = httpx.AsyncClient(base_url=address, headers=headers, limits=limits, timeout=60)

    async def follow() -> None:
        nonlocal ready
        seen = 0
        async with client.stream("GET", f"{PROJECT}/runs/{run_id}/events") as answer:
            async for line in answer.aiter_lines():
                if line != "event: standing":
                    continue
                if seen == 0:
                    ready += 1
                else:
                    took.append(time.perf_counter() - sent[seen - 1])
                seen += 1
                if seen > EVENTS:
                    return

    async with client:
        tasks = [asyncio.create_task(follow()) for _ in range(LISTENERS)]
        while ready < LISTENERS:  # noqa: ASYNC110 - nothing that is measured
            await asyncio.sleep(0.05)
        for number in range(EVENTS):
            await asyncio.to_thread(
                inbox.send_event, "other", number, run_id=run_id, id=str(number)
            )
            sent.append(time.perf_counter())
            while len(took) < LISTENERS * (number + 1):  # noqa: ASYNC110 - likewise
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.02)
        await asyncio.gather(*tasks)
    return took


def seed(state: State) -> str:
    """Make a project and an owner; a key of theirs."""
    made, now = secrets.new_key(), time.time_ns()
    row = {"project": "bench", "name": "bench", "maker": "ada", "role": "admin", "created_ns": now}

    def job(rows: Rows) -> None:
        rows.run(sa.insert(tables.projects).values(name="bench", settings="{}", created_ns=now))
        account = {"name": "ada", "owner": 1, "disabled": 0, "created_ns": now}
        rows.run(sa.insert(tables.users).values(**account))
        kept = secrets.keyed_hash(made.text, state.pepper)
        rows.run(sa.insert(tables.keys).values(id=made.id, hash=kept, **row))

    state.tables.write(job)
    return made.text


def client_of(address: str, key: str) -> httpx.Client:
    headers = {"authorization": f"Bearer {key}"}
    return httpx.Client(base_url=address, headers=headers, timeout=120)


def turns(
    calls: Mapping[str, Callable[[], Any]], rounds: int = ROUNDS
) -> dict[str, tuple[float, float]]:
    """Of each call its median, and the median of its processor time, in milliseconds."""
    took: dict[str, list[float]] = {name: [] for name in calls}
    used: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        for _ in range(WARM):
            accepted(call())
    for _ in range(rounds):
        for name, call in calls.items():
            processor = time.process_time()
            for _ in range(TURN):
                began = time.perf_counter()
                answer = call()
                took[name].append(time.perf_counter() - began)
                accepted(answer)
            used[name].append((time.process_time() - processor) / TURN)
    return {
        name: (statistics.median(took[name]) * 1e3, statistics.median(used[name]) * 1e3)
        for name in calls
    }


def accepted(answer: Any) -> None:
    if isinstance(answer, httpx.Response):
        answer.raise_for_status()


def shown(milliseconds: float) -> str:
    return f"{milliseconds:.2f} ms"


def page_of(lines: Sequence[Line]) -> str:
    """The page of the documentation."""
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    rows = "\n".join(
        f"| {' | '.join(part.strip() or '-' for part in line.cells())} |" for line in lines
    )
    return (
        "# What the server costs\n\n"
        "<!-- written by benchmarks/server.py --write; do not edit -->\n"
        f"Measured on {datetime.now(UTC):%Y-%m-%d}: {platform.system()} {platform.machine()}, "
        f"{os.cpu_count()} cores,\nCPython {platform.python_version()}, load average {load}. "
        "Medians; what is compared takes turns, and\nclient and server share a process.\n\n"
        "| what | takes | beside | bar |\n|---|---|---|---|\n"
        f"{rows}\n\n"
        "A time beside is of the same run. On a machine that has much else to do, times are those of "
        "waiting for\na processor: the ratios, and above all those of processor time, are what to "
        "go by.\n"
    )


if __name__ == "__main__":
    main()
