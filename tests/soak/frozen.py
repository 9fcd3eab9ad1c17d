"""Several workers share one database; again and again one of them is frozen past its lease and
woken, at any instant and at chosen points.

    python -m soak.frozen --runs 10000 --url sqlite

A frozen process does not know that it was: what it does when it wakes is what this test is about.
The only point left out lies between the look at the lease and the call's first instruction, which
nothing can close. Prints what was counted as JSON; the exit code is 1 where anything is not as it
must be.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from nano_vm import ExecutionVM, Program
from nano_vm.run.durable.lease import Lease
from nano_vm.run.system import Process
from nano_vm.store.protocol import RunFilter

from .checks import examine
from .life import Place, concluded, count_unfinished, database, live, settle_in_doubt
from .points import NAMES, Points, Shared
from .programs import NOW, beside, call, tools
from .sabotage import SABOTAGE

LEASE_SECONDS = 1.0
FROZEN_SECONDS = (1.05, 2.2)
AT_POINTS = (
    "intent:before", "intent:after", "call:during", "call:after", "outcome:before", "outcome:after",
    "end:before", "transaction:between", "commit:before", "commit:after", "claim:after",
)  # fmt: skip

SHORT = Program.from_dict(
    {
        "name": "short",
        "inputs": {
            "type": "object",
            "properties": {"name": {"type": "string"}},
            "required": ["name"],
        },
        "steps": [
            call("look", "look"),
            call("charge", "charge", reconcile=beside("find", "charge")),
            {
                "id": "both",
                "type": "parallel",
                "parallel_steps": [
                    call("mail", "mail", "both/mail"),
                    call("put", "put", "both/put"),
                ],
            },
            call("note", "note", max_retries=3, retry={**NOW, "delay_seconds": 0.3}),
        ],
    }
)


class Freezer(Points):
    """Stops its process at points, about every *seconds*."""

    def __init__(self, shared: Shared, seconds: float, seed: int) -> None:
        super().__init__(shared)
        self.draw, self.seconds = random.Random(seed), seconds
        self.plan()

    def plan(self) -> None:
        """Where to stop next, and not before when."""
        # between intent and call is where only the look at the lease can help
        self.target = "intent:after" if self.draw.random() < 0.4 else self.draw.choice(AT_POINTS)
        self.earliest = time.monotonic() + self.draw.uniform(0.2, 2 * self.seconds)

    def at(self, name: str) -> None:
        """Pass a point."""
        self.shared.add(name)
        if name == self.target and time.monotonic() >= self.earliest:
            self.plan()
            self.shared.add(name, died=True)
            os.kill(os.getpid(), signal.SIGSTOP)


class Shed(Place):
    """A place whose workers share a lease of a second and few threads, so that calls wait for
    one.
    """

    def open(self, points: Points) -> ExecutionVM:
        """A VM as in a container of its own: who can see that a process is there never takes its
        runs.
        """
        vm = ExecutionVM(
            None,
            tools(self.world, points, frozen=True),
            store=self.url,
            lease_seconds=LEASE_SECONDS,
            threads=6,
        )
        store: Any = vm.store
        vm._durable.lease = Lease(
            store, LEASE_SECONDS, process=replace(Process.own(), space=f"alone-{os.getpid()}")
        )
        return vm


async def submit(place: Shed, runs: int) -> None:
    """Store the runs."""
    vm = place.open(Points(Shared()))
    names = [f"s{number}" for number in range(runs)]
    for at in range(0, runs, 250):
        await asyncio.gather(
            *(vm.submit(SHORT, {"name": name}, run_id=name) for name in names[at : at + 250])
        )
    vm.close()


async def work(place: Shed, points: Points) -> None:
    """A worker, until there is nothing that it could take up."""
    vm = place.open(points)
    await vm.work(until_idle=True, poll_seconds=0.02, concurrency=16)
    vm.close()


async def resolve(place: Shed) -> None:
    """Say what became of the calls in doubt. Nobody is at work now, so what the world shows is all
    there will be.
    """
    vm = place.open(Points(Shared()))
    store: Any = vm.store
    for stored in list(store.runs(RunFilter(status="suspended"))):
        for entry in vm.waiting(stored.run_id):
            settle_in_doubt(place.world, vm, stored.run_id, entry)
    vm.close()


def forked(main: Any, place: Place) -> int:
    """The process that does *main*."""
    process = os.fork()
    if process == 0:
        live(main, place)
    return process


def finish(process: int) -> None:
    os.waitpid(process, 0)


def share(
    place: Shed,
    shared: Shared,
    workers: int,
    seconds: float,
    seed: int,
    limit: float,
    broken: str | None,
) -> Counter[str]:
    """Work until all is done that can be, with one worker at a time frozen."""
    draw = random.Random(seed)
    counted: Counter[str] = Counter()

    def begin(number: int) -> int:
        def main() -> Any:
            if broken:
                SABOTAGE[broken]()
            points = Freezer(shared, seconds * workers, seed + number)
            points.patch(place.keep)
            return work(place, points)

        return forked(main, place)

    until = time.monotonic() + limit
    # by process: when it is woken, 0 where it is awake
    lives = {begin(number): 0.0 for number in range(workers)}
    next_freeze = time.monotonic() + draw.uniform(0.3, 2 * seconds)
    while lives:
        now = time.monotonic()
        for process, wakes in list(lives.items()):
            ended, status = os.waitpid(process, os.WNOHANG | os.WUNTRACED)
            if ended and os.WIFSTOPPED(status):
                counted["freezes"] += 1
                lives[process] = now + draw.uniform(*FROZEN_SECONDS)
            elif ended:
                del lives[process]
            elif wakes and now >= wakes:
                lives[process] = 0.0
                os.kill(process, signal.SIGCONT)
        if now >= next_freeze and lives:
            next_freeze = now + draw.uniform(0.3, 2 * seconds)
            awake = [process for process, wakes in lives.items() if not wakes]
            if len(awake) > 1:
                os.kill(draw.choice(awake), signal.SIGSTOP)
                counted["at random instants"] += 1
        if now >= until:
            hang(place, list(lives))
            break
        time.sleep(0.002)
    return counted


def hang(place: Shed, processes: list[int]) -> None:
    """Tell where workers stand that do not end, and end them."""
    for process in processes:
        os.kill(process, signal.SIGCONT)
        os.kill(process, signal.SIGUSR1)
    time.sleep(0.5)
    for process in processes:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        with place.faults.open("a") as file:
            file.write(
                f"--- worker {process} did not "
                f"end\n{(place.folder / f'stacks-{process}').read_text()}\n"
            )


async def count(place: Shed) -> int:
    vm = place.open(Points(Shared()))
    try:
        return count_unfinished(vm.store)  # type: ignore[arg-type]
    finally:
        vm.close()


def campaign(
    folder: Path,
    url: str,
    runs: int,
    *,
    seed: int,
    workers: int,
    seconds: float,
    broken: str | None = None,
) -> dict[str, Any]:
    """Work and freeze, resolve what is in doubt, work again, examine."""
    place = Shed(folder, url)
    place.world.sync = False  # nobody is killed here
    finish(forked(lambda: submit(place, runs), place))
    shared = Shared()
    started = time.monotonic()
    counted: Counter[str] = Counter()
    for turn in range(10):
        counted += share(
            place, shared, workers, seconds if turn == 0 else 1e9, seed, 60 + runs / 10, broken
        )
        finish(forked(lambda: resolve(place), place))
        if place.faults.exists() or asyncio.run(count(place)) == 0:
            break
    lasted = time.monotonic() - started
    findings = examine(place, SHORT, thorough=runs <= 1_000)
    crashes = [place.faults.read_text()[:5_000]] if place.faults.exists() else []
    faults = (crashes + findings.pop("faults"))[:20]
    at = {name: shared.died()[name] for name in NAMES if shared.died()[name]}
    return {**counted, "seconds": round(lasted, 1), **findings, "frozen": at, "faults": faults}


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument(
        "--url", default="sqlite", help="sqlite, postgres, or the URL of an empty database"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument(
        "--every", type=float, default=2.0, help="seconds between freezes, on average"
    )
    parser.add_argument("--sabotage", choices=list(SABOTAGE), help="break this on purpose")
    parser.add_argument("--keep", action="store_true", help="leave the folder")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="nano-vm-frozen-"))
    with database(folder, given.url) as url:
        result = campaign(
            folder,
            url,
            given.runs,
            seed=given.seed,
            workers=given.workers,
            seconds=given.every,
            broken=given.sabotage,
        )
    return concluded(result, folder, keep=given.keep, broken=given.sabotage)


if __name__ == "__main__":
    sys.exit(main())
