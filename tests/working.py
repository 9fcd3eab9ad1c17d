"""One of several workers that share runs, in a process of its own.

python -m working URL LEDGER

It submits all runs in an order of its own and works on what it gets; the ledger is the file of its
calls. Three times it prints a line and waits for one: before it submits, before it works and in its
first calls. At the end it prints the ids of the runs that have ended with it, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
from pathlib import Path

from build import program, step
from patience import HANGS_SECONDS

from nano_vm import ExecutionVM, Trace, tool

LONG = "a string that is longer than what stands in a cell " * 3
PROCESSES = 4
RUNS = 120
MEETINGS = 3

WRITES = program(
    step("a", "note", args={"text": LONG}),
    step("b", "note", args={"text": "$name"}),
    step("c", "note", args={"text": LONG}),
    inputs={"type": "object", "properties": {"name": {"type": "string"}}},
)


def meet() -> None:
    """Wait until every process is here."""
    print("here", flush=True)
    sys.stdin.readline()


async def work(url: str, ledger: Path) -> list[str]:
    met: list[asyncio.Task[None]] = []

    @tool(effect="write")
    async def note(text: str) -> str:
        if not met:
            met.append(asyncio.create_task(asyncio.to_thread(meet)))
        await asyncio.shield(met[0])
        with ledger.open("a") as file:
            file.write(f"{text[:20]}\n")
        return text

    vm = ExecutionVM(tools={"note": note}, store=url)
    ended: list[str] = []
    names = [f"run {number}" for number in range(RUNS)]
    random.Random(ledger.name).shuffle(names)
    meet()
    ids = await asyncio.gather(
        *(vm.submit(WRITES, {"name": name}, run_id=name.replace(" ", "-")) for name in names)
    )
    assert len(set(ids)) == RUNS

    def note_end(trace: Trace) -> None:
        assert trace.raise_for_status() is trace
        ended.append(trace.run_id)

    await asyncio.to_thread(meet)
    await vm.work(until_idle=True, concurrency=RUNS // PROCESSES, ended=note_end, poll_seconds=0.05)
    vm.close()
    return ended


if __name__ == "__main__":
    signal.alarm(int(HANGS_SECONDS))
    print(json.dumps(asyncio.run(work(sys.argv[1], Path(sys.argv[2])))))
