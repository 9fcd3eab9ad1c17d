"""A hundred thousand runs that wait: what they cost while they do, and how quickly one of them is
found and goes on.

python -m soak.waiting --runs 100000 --url sqlite
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from nano_vm import ExecutionVM, Program
from nano_vm.store.protocol import RunFilter

from .life import database

IDLE_SECONDS = 5.0
TOGETHER = 500
"""Runs that are begun at a time."""

APPROVAL = Program.from_dict(
    {
        "name": "approval",
        "steps": [
            {"id": "note", "type": "set", "values": {"due": "$amount"}},
            {
                "id": "boss",
                "type": "approval",
                "role": "boss",
                "show": {"pay": "$amount"},
                "timeout_seconds": 86400,
            },
            {"id": "after", "type": "set", "values": {"done": True}},
        ],
    }
)
EVENT = Program.from_dict(
    {"name": "event", "steps": [{"id": "paid", "type": "wait", "event": "paid-$amount"}]}
)
TIMER = Program.from_dict(
    {"name": "timer", "steps": [{"id": "later", "type": "wait", "seconds": 86400}]}
)


async def begin(vm: ExecutionVM, runs: int) -> None:
    """Runs up to where they wait: for an approval, for an event, for tomorrow."""
    programs = [APPROVAL, EVENT, TIMER]
    for at in range(0, runs, TOGETHER):
        numbers = range(at, min(at + TOGETHER, runs))
        await asyncio.gather(
            *(vm.run(programs[n % 3], {"amount": n}, run_id=f"w{n}") for n in numbers)
        )


async def idle(vm: ExecutionVM, seconds: float) -> float:
    """CPU seconds of this process while a worker waits."""
    working = asyncio.create_task(vm.work())
    await asyncio.sleep(1.0)
    before = time.process_time()
    await asyncio.sleep(seconds)
    used = time.process_time() - before
    working.cancel()
    await asyncio.wait([working])
    return used


def milliseconds(
    ask: Callable[[], Any], times: int = 9, clock: Callable[[], float] = time.perf_counter
) -> float:
    """The median time that *ask* takes."""
    taken = []
    for _ in range(times):
        before = clock()
        ask()
        taken.append(clock() - before)
    return round(median(taken) * 1000, 2)


async def measure(vm: ExecutionVM, runs: int, seconds: float) -> dict[str, Any]:
    """The figures."""
    store: Any = vm.store
    used = await idle(vm, seconds)

    def newest() -> Any:
        return list(store.runs(limit=50))

    asks = {
        "runs, the newest 50": milliseconds(newest),
        "runs, 50 suspended of one program": milliseconds(
            lambda: list(store.runs(RunFilter(status="suspended", program="event"), limit=50))
        ),
        "runs, none of a status": milliseconds(
            lambda: list(store.runs(RunFilter(status="failed"), limit=50))
        ),
        "what a worker asks": milliseconds(lambda: store.claimable(time.time_ns(), 64)),
        "load one": milliseconds(lambda: store.load(f"w{runs // 3 * 3 // 2}")),
    }
    resumed = []
    for number in range(0, min(runs, 60), 3):
        run_id = f"w{number}"
        before = time.perf_counter()
        vm.approve(run_id, "boss", shown=vm.waiting(run_id)[0]["shown"], by="ann")
        trace = await vm.resume(run_id)
        resumed.append(time.perf_counter() - before)
        assert trace.status.value == "success"
    return {
        "cpu_percent": round(used / seconds * 100, 2),
        "cpu_ms_in": [round(used * 1000, 1), seconds],
        "cpu_ms_of_the_newest_50": milliseconds(newest, clock=time.thread_time),
        "milliseconds": {**asks, "approve and resume one": round(median(resumed) * 1000, 2)},
    }


async def campaign(url: str, runs: int, seconds: float) -> dict[str, Any]:
    """Begin, and measure in a VM that knows nothing of them."""
    vm = ExecutionVM(store=url)
    started = time.perf_counter()
    await begin(vm, runs)
    took = time.perf_counter() - started
    vm.close()
    vm = ExecutionVM(store=url)
    figures = await measure(vm, runs, seconds)
    vm.close()
    return {"runs": runs, "begun_in_seconds": round(took, 1), **figures}


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1_000)
    parser.add_argument(
        "--url", default="sqlite", help="sqlite, postgres, or the URL of an empty database"
    )
    parser.add_argument("--seconds", type=float, default=IDLE_SECONDS)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="nano-vm-waiting-"))
    with database(folder, given.url) as url:
        result = asyncio.run(campaign(url, given.runs, given.seconds))
        file = folder / "runs.db"
        if file.exists():
            result["bytes_a_run"] = os.path.getsize(file) // given.runs
    shutil.rmtree(folder)
    print(json.dumps({**result, "faults": []}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
