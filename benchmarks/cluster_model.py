"""What a Temporal cluster of a size carries, from what a step costs here: the section on sizing of
docs/how-to/temporal.md.

    python benchmarks/cluster_model.py            # prints the table
    python benchmarks/cluster_model.py --write    # and writes it into the page

Events, bytes and a worker's processor time of a step are measured on a development server, as the
difference of a long and a short program. What the server's parts do in a second is assumed, see
`ASSUMED`: two cores cannot show it. From both follow which part is full first, and by simulation how
long steps wait in each: runs are drawn onto shards, steps arrive at random, and each part serves in
order. Nothing here was tried on a cluster of several hosts.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import os
import random
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from report import finish

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "temporal.md"
BEGIN, END = "<!-- written by benchmarks/cluster_model.py -->", "<!-- end of the model -->"

SHORT, LONG, RUNS, ROUNDS = 10, 40, 16, 3

TARGET_STEPS, TARGET_RUNS = 10_000, 1_000_000
"""A second, and in flight."""

SIMULATED_SECONDS, SEED = 5.0, 7


@dataclass(frozen=True, slots=True)
class Step:
    """What a step costs, as measured."""

    cpu_ms: float
    events: float
    history_bytes: float


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the cluster: *units* of it serve in order, each a step in *ms*; *drawn* says that a
    run belongs to one of them, and does not go to whichever is free.
    """

    name: str
    ms: float
    units: int
    drawn: bool
    why: str

    @property
    def carries(self) -> float:
        """Steps a second, where all units are full."""
        return self.units * 1000 / self.ms

    def needs(self, steps: float, full: float = 0.7) -> int:
        """Units for *steps* a second, each at most so *full*."""
        return -int(-steps * self.ms / 1000 / full // 1)


REQUESTS, WRITES, DISPATCHES = 5, 5, 1
"""Of a step with an effect: both tasks are polled and answered, and the worker has the server confirm
the call: five requests; of them five change the run's state on its shard. One task is dispatched by
the shared task queue, the other by the one of the run's own worker.
"""


def parts_of(step: Step) -> list[Part]:
    """A cluster of a middling size."""
    return [
        Part("core of a worker", step.cpu_ms, 40, False, "measured"),
        Part(
            "instance of the frontend", REQUESTS * 1000 / 2400, 8, False, "`frontend.rps` is 2,400"
        ),
        Part("history shard", WRITES * 5.0, 512, True, "a write of 5 ms, one at a time"),
        Part(
            "partition of a task queue", DISPATCHES * 1.0, 4, True, "1 ms a dispatch; 4 by default"
        ),
        Part("database", WRITES * 1000 / 50_000, 1, False, "50,000 writes a second"),
    ]


def wait_ms(part: Part, steps: float, seconds: float, chance: random.Random) -> float:
    """How long 99 of 100 steps wait at most before *part* serves them, where *steps* arrive in each
    of so many *seconds*.
    """
    free = [0.0] * part.units  # when each is free again; a heap where any of them serves
    now, waits = 0.0, []
    while (now := now + chance.expovariate(steps)) < seconds:
        number = chance.randrange(part.units) if part.drawn else 0
        begins = max(now, free[number])
        waits.append(begins - now)
        if part.drawn:
            free[number] = begins + part.ms / 1000
        else:
            heapq.heapreplace(free, begins + part.ms / 1000)
    return sorted(waits)[int(len(waits) * 0.99)] * 1000 if waits else 0.0


def fullest(runs: int, shards: int, chance: random.Random) -> float:
    """How much more runs the fullest shard has than the mean."""
    counts = [0] * shards
    for _ in range(runs):
        counts[chance.randrange(shards)] += 1
    return max(counts) * shards / runs


async def measured() -> Step:
    """A further step of a run on a development server."""
    from temporal.cluster import Server

    from nano_vm import ExecutionVM, Program, tool
    from nano_vm.temporal import TemporalRuns, worker

    @tool(effect="write")
    async def put(n: int) -> int:
        return n

    def program(count: int) -> Program:
        steps = [
            {"id": f"s{n}", "type": "tool", "tool": "put", "args": {"n": n}} for n in range(count)
        ]
        return Program.from_dict({"name": "sized", "steps": steps})

    server = Server()
    server.start()
    try:
        client = await server.client()
        vm = ExecutionVM(None, {"put": put})
        async with worker(client, vm, "sized"):
            runs = TemporalRuns(client, "sized")
            used: dict[int, list[float]] = {SHORT: [], LONG: []}
            for number in range(-1, ROUNDS):
                for count in used:
                    made, started = program(count), time.process_time()
                    names = [f"{number}-{count}-{one}" for one in range(RUNS)]
                    await asyncio.gather(*(runs.run(made, run_id=name) for name in names))
                    if number >= 0:  # the first is to warm up
                        used[count].append((time.process_time() - started) / RUNS * 1000)
            sizes = {}
            for count in used:
                history = await client.get_workflow_handle(f"0-{count}-0").fetch_history()
                size = sum(len(event.SerializeToString()) for event in history.events)
                sizes[count] = len(history.events), size
    finally:
        server.stop()
    further = LONG - SHORT
    return Step(
        (median(used[LONG]) - median(used[SHORT])) / further,
        (sizes[LONG][0] - sizes[SHORT][0]) / further,
        (sizes[LONG][1] - sizes[SHORT][1]) / further,
    )


def told(step: Step) -> str:
    """The table, and what it comes to."""
    chance = random.Random(SEED)
    head = ["part", "a step takes", "assumed", "units", "carry steps/s", "for 10,000/s"]
    lines = [head, ["---", "---:", "---", "---:", "---:", "---:"]]
    parts = parts_of(step)
    for part in parts:
        enough = Part(part.name, part.ms, part.needs(TARGET_STEPS), part.drawn, part.why)
        wait = wait_ms(enough, TARGET_STEPS, SIMULATED_SECONDS, chance)
        lines.append(
            [
                part.name,
                f"{part.ms:.3g} ms",
                part.why,
                str(part.units),
                f"{part.carries:,.0f}",
                f"{enough.units}, wait {wait:.1f} ms",
            ]
        )
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    first, second = sorted(parts, key=lambda part: part.carries)[:2]
    shards = next(part.units for part in parts if part.name == "history shard")
    uneven = fullest(TARGET_RUNS, shards, chance)
    day = step.history_bytes * TARGET_STEPS * 86_400
    return f"""\
A further step: {step.cpu_ms:.2g} ms of a worker's processor, {step.events:.2g} events, \
{step.history_bytes:,.0f} bytes ({os.cpu_count()} cores at load {os.getloadavg()[0]:.0f}).

{table}

The units of the last column are at most 70 % full; the wait is that of 99 of 100 steps.

- Of these units the first that are full are of "{first.name}", at {first.carries:,.0f} steps a \
second, then of "{second.name}".
- 1,000,000 runs in flight that wait cost no step. On {shards} shards each has {TARGET_RUNS // shards:,}, \
and the fullest {uneven:.2f} times as many; the workers keep the {1_000:,} used last each, of 60 kB, \
and compute the others again when something comes for them.
- 10,000 steps a second write {day / 1e12:.1f} TB of history a day, which the retention multiplies."""


def wrapped(text: str, width: int = 100) -> str:
    """*text* whose paragraphs fit the page; tables stay as they are."""
    import textwrap

    found = []
    for paragraph in text.split("\n"):
        indent = "  " if paragraph.startswith("- ") else ""
        whole = paragraph.startswith("|") or not paragraph
        found.append(
            paragraph if whole else textwrap.fill(paragraph, width, subsequent_indent=indent)
        )
    return "\n".join(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write it into the page")
    given = parser.parse_args()
    text = wrapped(told(asyncio.run(measured())))
    finish(PAGE, BEGIN, END, text, write=given.write)


if __name__ == "__main__":
    main()
