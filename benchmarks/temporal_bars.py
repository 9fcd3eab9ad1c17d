"""What a program costs on a Temporal cluster beside a bare interpreter, and each figure beside the bar
that the project holds it to: a table of docs/how-to/temporal.md.

    python benchmarks/temporal_bars.py            # prints the table
    python benchmarks/temporal_bars.py --write    # and writes it into the page

Both interpreters (`temporal_bare`) have a worker in a process of its own, so that its processor time
is a worker's alone; they run the same steps on one development server in memory, in turns. What a
further step takes is the difference of a long program and a short one, so that what a run takes
beside its steps is in neither.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import textwrap
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean, median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from processes import processor_seconds, running
from report import Bar, Table, finish, number
from temporal.cluster import Server
from temporal_bare import bare_worker, echo, echoes, run_bare
from temporal_recovery import KILLS, host, inline, recovered
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client

from nano_vm import ExecutionVM
from nano_vm.temporal import TemporalRuns, connect, worker
from nano_vm.temporal.conversion import json_bytes
from nano_vm.temporal.workflow import MAX_CALLS

PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "temporal.md"
BEGIN, END = "<!-- written by benchmarks/temporal_bars.py -->", "<!-- end of the bars -->"

SHORT, LONG, ROUNDS = 20, 50, 5
PROGRAMS = {SHORT: 20, LONG: 10}
"""How many of each run at once in a round."""

OURS, BARE = "ours", "bare"


# --- workers --------------------------------------------------------------------------------------


async def work(kind: str, address: str) -> None:
    """Work until this process is killed."""
    client = await connect(address)
    own = ExecutionVM(None, {"echo": echo})
    async with worker(client, own, OURS) if kind == OURS else bare_worker(client):
        await asyncio.Event().wait()


def working(kind: str, address: str) -> AbstractContextManager[int]:
    """A worker in a process of its own; its id."""
    return running([sys.executable, __file__, "--worker", kind, "--address", address])


# --- in turns -------------------------------------------------------------------------------------


@dataclass(slots=True)
class Way:
    """An interpreter: how it runs so many steps, and its worker's process. Of each round: programs
    a second, and processor milliseconds of a program, by the number of its steps.
    """

    run: Callable[[str, int], Awaitable[Any]]
    worker: int
    rates: list[float] = field(default_factory=list)
    cpu: dict[int, list[float]] = field(default_factory=lambda: {SHORT: [], LONG: []})

    async def measure(self, turn: int) -> None:
        """One round."""
        for steps, programs in PROGRAMS.items():
            started, before = time.perf_counter(), processor_seconds(self.worker)
            names = [name_of(turn, steps, one) for one in range(programs)]
            await asyncio.gather(*(self.run(name, steps) for name in names))
            if turn < 0:
                continue  # to warm up
            self.cpu[steps].append((processor_seconds(self.worker) - before) / programs * 1000)
            if steps == SHORT:
                self.rates.append(programs / (time.perf_counter() - started))

    @property
    def further(self) -> list[float]:
        """Processor milliseconds of a further step, in each round."""
        pairs = zip(self.cpu[LONG], self.cpu[SHORT], strict=True)
        return [(long - short) / (LONG - SHORT) for long, short in pairs]


def name_of(turn: int, steps: int, one: int) -> str:
    """What a run is called, behind the kind of its interpreter."""
    return f"{turn}-{steps}-{one}"


async def further(client: Client, kind: str) -> tuple[float, float]:
    """Events and workflow tasks of a further call."""
    counts = []
    for steps in (SHORT, LONG):
        run_id = f"{kind}-{name_of(0, steps, 0)}"
        events = (await client.get_workflow_handle(run_id).fetch_history()).events
        tasks = [
            one for one in events if one.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED
        ]
        counts.append((len(events), len(tasks)))
    short, long = counts
    return (long[0] - short[0]) / (LONG - SHORT), (long[1] - short[1]) / (LONG - SHORT)


async def carried(client: Client, runs: TemporalRuns) -> float:
    """Bytes that a run that continues as new carries of an outcome beside its value."""
    run_id = await runs.submit(echoes(MAX_CALLS + 1))
    await runs.result(run_id)
    (started, *_) = (await client.get_workflow_handle(run_id).fetch_history()).events
    _, segment = started.workflow_execution_started_event_attributes.input.payloads
    return (len(segment.data) - sum(len(json_bytes(n)) for n in range(MAX_CALLS))) / MAX_CALLS


# --- the table ------------------------------------------------------------------------------------


def ratio(ours: list[float], bare: list[float]) -> tuple[float, str]:
    """The median of one beside the other, round by round; and from where to where it went."""
    found = [own / other for own, other in zip(ours, bare, strict=True)]
    return median(found), f"{min(found):.2f} to {max(found):.2f}"


async def measured(folder: Path, open_until: ExitStack) -> Table:
    """The table."""
    server = Server()
    server.start()
    open_until.callback(server.stop)
    client = await server.client()
    runs = TemporalRuns(client, OURS)
    ways = {
        OURS: Way(
            lambda name, steps: runs.run(echoes(steps), run_id=f"{OURS}-{name}"),
            open_until.enter_context(working(OURS, server.address)),
        ),
        BARE: Way(
            lambda name, steps: run_bare(client, f"{BARE}-{name}", steps),
            open_until.enter_context(working(BARE, server.address)),
        ),
    }
    loads = []
    for turn in range(-1, ROUNDS):
        for way in ways.values():
            await way.measure(turn)
        loads.append(os.getloadavg()[0])
    ours, bare = ways.values()
    counts = {kind: await further(client, kind) for kind in ways}
    beside = await carried(client, runs)
    recovery = TemporalRuns(client, "recovery")
    seconds = await recovered(recovery, folder, server.address)
    async with worker(client, host(folder), "recovery"):
        read = await inline(recovery)
    loads.append(os.getloadavg()[0])
    how = (
        f"Measured on {datetime.now(UTC).date()}, {os.cpu_count()} cores at load {mean(loads):.0f}: "
        f"medians of {ROUNDS} rounds in turns, and of the ratios of each round, which went from the "
        "one to the other in brackets."
    )
    table = Table(
        "Costs beside a bare interpreter",
        textwrap.fill(how, 100),
        ["what", "ours", "bare", "ours / bare"],
    )
    for name, own, other, unit, bars in (
        (
            f"programs/s of {SHORT} steps, {PROGRAMS[SHORT]} at once",
            *(ours.rates, bare.rates, ""),
            {"limit": 0.9, "at_least": True},
        ),
        ("worker's processor, a further step", ours.further, bare.further, " ms", {"limit": 1.15}),
        (f"the same, a program of {SHORT} steps", ours.cpu[SHORT], bare.cpu[SHORT], " ms", None),
    ):
        times, spread = ratio(own, other)
        held = [Bar(name, times, unit="×", **bars)] if bars else []
        cells = [f"{number(median(one))}{unit}" for one in (own, other)]
        table.add(name, *cells, f"{times:.2f} ({spread})", bars=held)
    for place, (name, limit) in enumerate((("events", 6), ("workflow tasks", 1))):
        own, other = counts[OURS][place], counts[BARE][place]
        bar = Bar(name, own, limit, name)
        table.add(f"{name} of a further call", number(own), number(other), "", bars=[bar])
    for name, figure, limit, unit in (
        ("bytes of an outcome beside its value, continuing as new", beside, 70, "bytes"),
        (f"call made again after its worker is killed, {KILLS} times", median(seconds), 5, "s"),
        ("a read that is inline", read, 6, "ms"),
    ):
        bar = Bar(name, figure, limit, unit)
        table.add(name, f"{number(figure)} {unit}", "", "", bars=[bar])
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the table into the page")
    parser.add_argument("--worker", choices=[OURS, BARE], help=argparse.SUPPRESS)
    parser.add_argument("--address", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker is not None:
        asyncio.run(work(given.worker, given.address))
    with tempfile.TemporaryDirectory() as folder, ExitStack() as open_until:
        text = asyncio.run(measured(Path(folder), open_until)).markdown()
    finish(PAGE, BEGIN, END, text, write=given.write)


if __name__ == "__main__":
    main()
