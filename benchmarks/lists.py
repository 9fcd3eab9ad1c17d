"""Lists of runs: whether the first page among a million runs costs what it does among a thousand.

``python benchmarks/lists.py [--postgres] [--runs 1000000]``; the default is SQLite in a new folder.
Each run has labels and one model call. A figure is the least of `ROUNDS` pages of `SIZE` runs;
every list must cost at most `BOUND` times as much among the many.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

from nano_vm.records.status import StepStatus
from nano_vm.records.usage import LLMUsage
from nano_vm.store.protocol import RunFilter
from nano_vm.store.records import ENDED, STEP, Row, StoredRun
from nano_vm.store.seals import seal_of
from nano_vm.store.sql.cells import Bodies, row_cells, run_cells
from nano_vm.store.sql.listing import index_labels
from nano_vm.store.sql.store import SqlStore
from nano_vm.store.sql.writer import insert_rows, settle

FEW = 1_000
SIZE = 50
ROUNDS = 41
BOUND = 2.0
AT_ONCE = 10_000
"""Runs that one transaction of the generator has."""

RARE = 100
"""Runs that fail, that belong to the smaller project, that are forks: as many among the few as
among the many, so that a list of them without an index would read nearly the whole table for a
page.
"""

DOCUMENT = {"program": {"name": "refund", "steps": ["x" * 2000]}, "programs": {}}

LISTS: dict[str, dict[str, Any]] = {
    "all": {},
    "one status, rare": {"status": "failed"},
    "several statuses": {"status": ENDED},
    "a program": {"program": "refund"},
    "a program and a rare status": {"program": "refund", "status": "failed"},
    "a rare project": {"project": "eu"},
    "a rare project and a status": {"project": "eu", "status": "failed"},
    "a label": {"labels": {"team": "billing"}},
    "a label of few runs": {"labels": {"customer": "7"}},
    "two labels": {"labels": {"team": "billing", "tier": "gold"}},
    "a submitter": {"submitter": "ann"},
    "forks of a run": {"parent": "run-7"},
    "a time span": {"since_ns": 10**18 + 100, "until_ns": 10**18 + 900},
}


def made(draw: random.Random, number: int, count: int) -> tuple[StoredRun, Row]:
    """A run of *count*, which has ended or waits, with its one row."""
    rare = number % (count // RARE) == 0
    status = "failed" if rare else draw.choice(("success", "success", "suspended"))
    run = StoredRun(
        f"run-{number}",
        "refund" if rare else draw.choice(("refund", "parcel", "triage")),
        "d" * 64,
        10**18 + number,
        DOCUMENT,
        {"order": number},
        salt=b"0" * 16,
        status=status,
        started_ns=10**18 + number,
        finished_ns=10**18 + number + 5,
        project="eu" if rare else "default",
        submitter=draw.choice(("ann", "bob", None)),
        parent="run-7" if rare else None,
        labels={
            "team": draw.choice(("billing", "ops")),
            "tier": draw.choice(("gold", "tin")),
            "customer": str(number % (count // RARE)),
        },
        steps=1,
        tokens=110,
        cost_usd="0.0001",
    )
    usage = LLMUsage(100, 10, 110, Decimal("0.0001"))
    at = 10**18 + number
    row = Row(STEP, "", "ask", "llm", StepStatus.SUCCESS, at, at + 5, "?", "!", {}, "small", usage)
    return run, row


def fill(store: SqlStore, count: int) -> None:
    """Put *count* runs into the tables, as imports do, but without receipts."""
    draw = random.Random(count)
    for first in range(0, count, AT_ONCE):
        with store.database.writing() as connection:
            bodies = Bodies()
            rows, runs = [], []
            for number in range(first, min(first + AT_ONCE, count)):
                run, row = made(draw, number, count)
                run.rows, run.seal, run.key = [row], None, number + 1
                run.seal = seal_of(run)
                columns = run_cells(run, bodies) | {"key": run.key, "fence": 1, "row_count": 1}
                runs.append(tuple(columns.values()))
                rows.append((run.key, 0, [row_cells(row, bodies)]))
                index_labels(connection, run)
            connection.many(
                f"INSERT INTO nano_runs ({', '.join(columns)}) VALUES "
                f"({', '.join('?' * len(columns))})",
                runs,
            )
            insert_rows(connection, rows)
            settle(connection, bodies)
        print(f"\r{first + AT_ONCE:,} runs", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    if not store.database.dialect.alone:  # a server does it by itself, a while later
        with store.database.writing() as connection:
            connection.run("ANALYZE")


def milliseconds(*calls: Callable[[], Any]) -> list[float]:
    """The least of `ROUNDS` of each call, which take turns: what others do on the machine only
    adds, and adds to all of them.
    """
    least = [float("inf")] * len(calls)
    for _ in range(ROUNDS):
        for at, call in enumerate(calls):
            began = time.perf_counter()
            call()
            least[at] = min(least[at], (time.perf_counter() - began) * 1000)
    return least


def calls(store: SqlStore, count: int) -> Iterator[tuple[str, Callable[[], Any]]]:
    """What is timed, by its name."""
    for name, wanted in LISTS.items():
        yield name, lambda w=wanted: store.page(RunFilter(**w), size=SIZE)  # type: ignore[misc]
    place = f"{10**18 + count // 2}.{count // 2}"
    yield "all, from the middle", lambda: store.page(size=SIZE, after=place)
    yield "ids by a beginning", lambda: store.ids_starting_with("run-99", 6)
    yield "rows after the first", lambda: store.rows_after("run-7", 0)


def figures(urls: list[str], count: int) -> Iterator[tuple[str, float, float]]:
    """Milliseconds of each list among the few and among the many."""
    with SqlStore(urls[0]) as few, SqlStore(urls[1]) as many:
        fill(few, FEW)
        fill(many, count)
        for (name, one), (_, other) in zip(calls(few, FEW), calls(many, count), strict=True):
            yield name, *milliseconds(one, other)
        sums = []
        for store, runs in ((few, FEW), (many, count)):
            began = time.perf_counter()
            (cost,) = store.costs(("model",))
            sums.append((time.perf_counter() - began) * 1000)
            assert cost.calls == runs, cost
        yield SUMS, *sums


SUMS = "costs of all, by model"
"""What is read whole, and has no bound."""


def table(name: str, found: list[tuple[str, float, float]], count: int) -> Iterator[str]:
    """The figures as Markdown."""
    yield f"| {name}, ms | {FEW:,} runs | {count:,} runs | |"
    yield "|---|---:|---:|---|"
    for what, few, many in found:
        ratio = many / few
        held = f"{'✓' if ratio <= BOUND else '✗'} {ratio:.2f} times, at most {BOUND:g}"
        yield f"| {what} | {few:.2f} | {many:.2f} | {held if what != SUMS else ''} |"


def main() -> int:
    """Print the table; 1 where a list costs too much among the many."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1_000_000)
    parser.add_argument("--postgres", action="store_true", help="start a PostgreSQL of the tests")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = None
        urls = [f"sqlite:///{folder}/few.db", f"sqlite:///{folder}/many.db"]
        if options.postgres:
            sys.path.append(str(Path(__file__).parents[1] / "tests"))
            from postgres import PostgresServer

            server = PostgresServer(Path(folder))
            urls = [server.database(), server.database()]
        try:
            found = list(figures(urls, options.runs))
        finally:
            if server is not None:
                server.stop()
    name = "PostgreSQL" if options.postgres else "SQLite"
    print("\n".join(table(name, found, options.runs)))
    return int(any(many > BOUND * few for what, few, many in found if what != SUMS))


if __name__ == "__main__":
    sys.exit(main())
