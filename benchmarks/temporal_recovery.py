"""How soon a call is made again whose worker was killed on a Temporal cluster, and what a step costs
that is called in the worker itself: figures of docs/how-to/temporal.md.

    python benchmarks/temporal_recovery.py
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from temporal.cluster import Server

from nano_vm import ExecutionVM, Program, tool
from nano_vm.temporal import TemporalRuns, connect, worker

KILLS, READS, ROUNDS = 8, 40, 5


def program(name: str, count: int = 1) -> Program:
    steps = [
        {"id": f"s{n}", "type": "tool", "tool": name, "args": {"n": "$n"}} for n in range(count)
    ]
    return Program.from_dict({"name": name, "steps": steps})


def host(folder: Path) -> ExecutionVM:
    @tool(effect="idempotent")
    async def slow(n: int) -> int:
        begun = folder / str(n)
        first = not begun.exists()
        with begun.open("a") as file:
            file.write(f"{os.getpid()} {time.time()}\n")
        await asyncio.sleep(60 if first else 0)
        return n

    @tool(effect="read", inline=True)
    def look(n: int) -> int:
        return n

    return ExecutionVM(None, {"slow": slow, "look": look})


async def work(address: str, folder: Path) -> None:
    client = await connect(address)
    async with worker(client, host(folder), "recovery"):
        await asyncio.Event().wait()


async def begun(folder: Path, n: int, times: int) -> list[list[str]]:
    """Which process began call *n*, and when, once that was so many *times*."""
    while True:
        file = folder / str(n)
        lines = file.read_text().splitlines() if file.exists() else []
        if len(lines) >= times:
            return [line.split() for line in lines]
        await asyncio.sleep(0.02)


async def recovered(runs: TemporalRuns, folder: Path, address: str) -> list[float]:
    """Seconds from each kill to the call that another worker makes."""
    workers: dict[int, subprocess.Popen[bytes]] = {}

    def spawn() -> None:
        command = [sys.executable, __file__, "--worker", address, "--folder", str(folder)]
        quiet = subprocess.DEVNULL
        process = subprocess.Popen(command, stdout=quiet, stderr=quiet)
        workers[process.pid] = process

    found = []
    try:
        spawn()
        spawn()
        for n in range(KILLS):
            run_id = await runs.submit(program("slow"), {"n": n})
            ((pid, _),) = await begun(folder, n, 1)
            await asyncio.sleep(1.0)
            killed = time.time()
            workers.pop(int(pid)).kill()
            spawn()
            _, (_, at) = await begun(folder, n, 2)
            found.append(float(at) - killed)
            await runs.result(run_id)
    finally:
        for process in workers.values():
            process.kill()
            process.wait()
    return found


async def inline(runs: TemporalRuns) -> float:
    """Milliseconds of a step that is called in the worker itself, beside those of its run."""
    long, short = program("look", READS), program("look")
    took: dict[int, list[float]] = {READS: [], 1: []}
    await runs.run(long, {"n": 1})
    for _ in range(ROUNDS):
        for made, count in ((long, READS), (short, 1)):
            started = time.perf_counter()
            await runs.run(made, {"n": 1})
            took[count].append(time.perf_counter() - started)
    return (median(took[READS]) - median(took[1])) / (READS - 1) * 1000


async def measured(folder: Path) -> None:
    server = Server()
    server.start()
    try:
        client = await server.client()
        runs = TemporalRuns(client, "recovery")
        seconds = await recovered(runs, folder, server.address)
        async with worker(client, host(folder), "recovery"):
            read = await inline(runs)
    finally:
        server.stop()
    load = os.getloadavg()[0]
    print(f"made again {median(seconds):.1f} s after a kill, {max(seconds):.1f} at most of {KILLS}")
    print(f"an inline read {read:.1f} ms; {os.cpu_count()} cores at load {load:.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worker", metavar="ADDRESS", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker is not None:
        asyncio.run(work(given.worker, given.folder))
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measured(Path(folder)))
    sys.stdout.flush()
    os._exit(0)  # threads of the SDK now and then abort a process that ends the usual way


if __name__ == "__main__":
    main()
