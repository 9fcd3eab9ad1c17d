"""Kills and freezes workers of a Temporal cluster, parts them from its server, and kills that, while
runs go on; an independent ledger of effects says what took place.

python -m soak.cluster --kills 200 --restarts 20 --seed 7
python -m soak.cluster --kills 50 --wires

Two workers in processes of their own, each behind a proxy that can stand still, or in a network
namespace whose wire can be pulled, drive runs with
every kind of effect, forks, timers of a second and of half a minute, approvals that are given at
once and half a minute later, and events. A person, who sees the ledger as a bank shows its books,
decides what becomes of each call in doubt. At the end every run must have ended, no effect have
taken place twice, and every digest be that of the same run undisturbed.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, TypeVar

from processes import identity, lives, own_output
from temporal.cluster import Server
from temporal.proxy import Proxy, proxy_to
from temporalio.service import RPCError

from nano_vm import ExecutionVM, Program, Trace, VMError, tool
from nano_vm.errors import AlreadyDecided, Changed, Expired
from nano_vm.temporal import TemporalRuns, connect, worker

from .sabotage import SABOTAGE
from .wires import Wire, apart, enter

T = TypeVar("T")

QUEUE = "soak"
WORKERS, IN_FLIGHT = 2, 12
AWAY_SECONDS = (0.5, 7.0)
"""How long a worker stands still, or its network does: shorter and longer than a heartbeat."""

FREEZES, PARTITIONS = 0.2, 0.15
"""How much of what disturbs is so; all else kills."""

LONG_SECONDS = 30
"""A wait, and the time until a late approval: workers die a dozen times meanwhile."""

LIMIT_SECONDS = 240.0
"""How long runs may take to end once nothing is killed any more."""


def call(id: str, name: str, **more: Any) -> dict[str, Any]:
    return {"id": id, "type": "tool", "tool": name, "args": {"n": "$n"}, **more}


LATE = "late"
"""The approval that is given only a long while after it was asked for."""

AGAIN = {"max_retries": 9, "retry": {"delay_seconds": 0.1}}
BOOK = call("book", "book", reconcile={"tool": "booked", "args": {"n": "$n"}}, **AGAIN)
PROGRAMS = {
    "chain": Program.from_dict(
        {
            "name": "chain",
            "steps": [
                call("look", "look"),
                {
                    "id": "each",
                    "type": "map",
                    "over": {"expr": "[1, 2, 3, 4]"},
                    "as": "item",
                    "max_concurrency": 2,
                    "steps": [call("put", "put")],
                },
                call("pay", "pay"),
                {"id": "ok", "type": "approval", "role": "boss", "show": {"n": "$n"}},
                BOOK,
                {"id": "go", "type": "wait", "event": "go"},
                call("last", "look"),
            ],
        }
    ),
    "wide": Program.from_dict(
        {
            "name": "wide",
            "steps": [
                {
                    "id": "p",
                    "type": "parallel",
                    "parallel_steps": [call("pay", "pay"), BOOK, call("look", "look")],
                },
                {"id": "later", "type": "wait", "seconds": 1},
                call("put", "put"),
            ],
        }
    ),
}


def patient(seconds: int) -> Program:
    """A program that waits so long for a time, and as long for a person."""
    steps = [
        call("pay", "pay"),
        {"id": "night", "type": "wait", "seconds": seconds},
        BOOK,
        {"id": LATE, "type": "approval", "role": "boss", "show": {"n": "$n"}},
        call("put", "put"),
    ]
    return Program.from_dict({"name": "patient", "steps": steps})


class Ledger:
    """What tools have begun and done, a line each, in a file that all processes append to."""

    def __init__(self, path: Path) -> None:
        self.path, self.writer = path, identity(os.getpid())

    def write(self, what: str, key: str, name: str) -> None:
        line = json.dumps({"what": what, "key": key, "tool": name, "by": self.writer})
        with self.path.open("ab", buffering=0) as file:
            file.write(f"{line}\n".encode())

    def read(self) -> list[dict[str, Any]]:
        if not self.path.exists():
            return []
        return [json.loads(line) for line in self.path.read_text().splitlines()]

    def of(self, key: str) -> tuple[bool, bool]:
        """Whether the effect with this key took place, and whether it may yet: a process lives that
        began it and has not given it up.
        """
        lines = [line for line in self.read() if line["key"] == key]
        under_way = Counter(line["by"] for line in lines if line["what"] == "began")
        under_way.subtract(line["by"] for line in lines if line["what"] == "gave up")
        return (
            any(line["what"] == "did" for line in lines),
            any(count > 0 and lives(by) for by, count in under_way.items()),
        )


def tools_of(ledger: Ledger) -> dict[str, Callable[..., Any]]:
    """The tools: each says what it begins, takes its time, does it, and takes its time again."""

    def made(name: str, effect: Any) -> Callable[..., Any]:
        @tool(effect=effect)
        async def run(n: int, idempotency_key: str) -> str:
            ledger.write("began", idempotency_key, name)
            try:
                await asyncio.sleep(random.uniform(0, 0.1))
            except asyncio.CancelledError:
                ledger.write("gave up", idempotency_key, name)
                raise
            ledger.write("did", idempotency_key, name)
            await asyncio.sleep(random.uniform(0, 0.2))
            return f"{name} {n}"

        return run

    @tool(effect="read")
    async def look(n: int) -> int:
        await asyncio.sleep(random.uniform(0, 0.1))
        return n * 2

    @tool(effect="read")
    async def booked(n: int, idempotency_key: str) -> dict[str, Any]:
        did, may_yet = ledger.of(idempotency_key)
        if did:
            return {"done": True, "output": f"book {n}"}
        return {"done": None if may_yet else False}

    return {
        "put": made("put", "idempotent"),
        "pay": made("pay", "irreversible"),
        "book": made("book", "write"),
        "look": look,
        "booked": booked,
    }


# --- a worker -------------------------------------------------------------------------------------


PROCESSES = multiprocessing.get_context("forkserver")
"""Each worker is a fork of a process that has imported all and begun nothing, so that it works soon,
and not only the import of a worker is killed.
"""
PROCESSES.set_forkserver_preload(["temporal.cluster", "temporal.proxy"])


def life(address: str, namespace: int | None, ledger: Path, broken: str | None) -> None:
    """The life of the process of a worker, of a package that may be *broken* on purpose."""
    if broken is not None:
        SABOTAGE[broken]()
    if namespace is not None:
        enter(namespace)
    quiet = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # the SDK warns of each call whose worker was not heard of
        os.dup2(quiet, stream)
    asyncio.run(work(address, Ledger(ledger)))


async def work(address: str, ledger: Ledger) -> None:
    """Work until somebody kills this process."""
    vm = ExecutionVM(None, tools_of(ledger))
    while True:
        try:
            client = await connect(address)
            async with worker(client, vm, QUEUE, graceful_shutdown_timeout=timedelta(seconds=2)):
                await asyncio.Event().wait()
        except (VMError, RPCError, RuntimeError):
            await asyncio.sleep(0.2)


# --- the campaign ---------------------------------------------------------------------------------


@dataclass(slots=True)
class Host:
    """A place for one worker at a time, which reaches the server at *address*, in a network
    *namespace* of its own where it has one; its network can stand still.
    """

    network: Proxy | Wire
    address: str
    namespace: int | None = None
    process: ForkServerProcess = field(init=False)


DISTURBED = ("killed", "frozen", "parted from the server", "server killed", "seconds")
CAME = (
    *("steps", "effects", "idempotent effects made again", "runs whose reconcile was asked"),
    *("in doubt, had happened", "in doubt, had not happened"),
)
"""What is counted, in the order in which it is reported."""


class Campaign:
    """Runs, who disturbs them, and who answers them."""

    def __init__(self, folder: Path, given: argparse.Namespace) -> None:
        self.random = random.Random(given.seed)  # of whoever disturbs
        self.drawn = random.Random(given.seed + 1)  # of the runs, whose number depends on time
        self.kills, self.restarts, self.long = given.kills, given.restarts, given.long
        self.wires, self.broken = given.wires, given.sabotage
        self.programs = {**PROGRAMS, "patient": patient(given.long)}
        database = folder / "temporal.db" if given.restarts else None
        self.server = Server(database, "0.0.0.0") if given.wires else Server(database)
        self.ledger = Ledger(folder / "ledger.jsonl")
        self.hosts: list[Host] = []
        self.waited = f"runs that waited twice {given.long} s"
        self.counts = Counter(dict.fromkeys([*DISTURBED, "runs", self.waited, *CAME], 0))
        self.faults: list[str] = []
        self.expected: dict[tuple[str, int], Trace] = {}
        self.late: dict[str, float] = {}  # when a run is given its late approval

    async def host(self, number: int, stack: AsyncExitStack) -> Host:
        """A host with its worker, until *stack* ends."""
        if self.wires:
            wire = Wire(number)
            stack.callback(wire.end)
            return Host(wire, f"{wire.ip}:{self.server.port}", wire.namespace)
        proxy = await stack.enter_async_context(proxy_to(self.server.port))
        return Host(proxy, proxy.address)

    def begin(self, host: Host) -> None:
        """Begin a worker on *host*."""
        given = (host.address, host.namespace, self.ledger.path, self.broken)
        host.process = PROCESSES.Process(target=life, args=given, daemon=True)
        host.process.start()

    async def answered(self, ask: Callable[[], Awaitable[T]]) -> T:
        """What *ask* gives, once the server answers."""
        while True:
            try:
                return await ask()
            except (Changed, Expired, AlreadyDecided):
                raise
            except (VMError, RPCError, RuntimeError, TimeoutError):
                await asyncio.sleep(0.2)

    async def one(self, runs: TemporalRuns, run_id: str, name: str, n: int) -> Trace:
        """Begin a run, and answer it until it has ended."""
        program = self.programs[name]
        await self.answered(lambda: runs.submit(program, {"n": n}, run_id=run_id, seed=1))
        result = asyncio.ensure_future(self.answered(lambda: runs.result(run_id)))
        while not result.done():
            await asyncio.wait([result], timeout=0.3)
            if not result.done():
                for entry in await self.answered(lambda: runs.waiting(run_id)):
                    try:
                        await self.answer(runs, run_id, n, entry)
                    except (Changed, Expired, AlreadyDecided):
                        pass  # it was answered, and the answer to that was lost
        return result.result()

    async def answer(self, runs: TemporalRuns, run_id: str, n: int, entry: dict[str, Any]) -> None:
        path = entry["path"]
        if path == LATE:
            now = time.monotonic()
            if now < self.late.setdefault(run_id, now + self.long):
                return
        if entry["kind"] == "approval":
            await self.answered(lambda: runs.approve(run_id, path, shown=entry["shown"], by="ann"))
        elif entry["kind"] == "wait" and entry.get("event"):
            await self.answered(lambda: runs.send_event(run_id, entry["event"], id="e"))
        elif entry["kind"] == "in_doubt":
            did, may_yet = self.ledger.of(entry["effect_key"])
            if did:
                self.counts["in doubt, had happened"] += 1
                done = f"{entry['tool']} {n}"
                await self.answered(lambda: runs.resolve(run_id, path, done=done, by="ann"))
            elif not may_yet:
                self.counts["in doubt, had not happened"] += 1
                await self.answered(lambda: runs.resolve(run_id, path, retry=True, by="ann"))

    async def go(self, runs: TemporalRuns, run_id: str, name: str, n: int) -> None:
        trace = await self.one(runs, run_id, name, n)
        self.counts["runs"] += 1
        self.counts[self.waited] += name == "patient"
        self.counts["steps"] += len(trace.steps)
        expected = self.expected[name, n]
        asked = any(step.path.endswith("/reconcile") for step in trace.steps)
        self.counts["runs whose reconcile was asked"] += asked
        if not trace.ok:
            self.faults.append(f"{run_id}: {trace.status.value}: {trace.error}")
        elif trace.final_output != expected.final_output:
            self.faults.append(f"{run_id}: {trace.final_output!r}")
        elif trace.digest != expected.digest and not asked:
            self.faults.append(f"{run_id}: another digest")

    async def undisturbed(self, runs: TemporalRuns) -> None:
        """The traces that all runs must have."""
        kinds = [(name, n) for name in self.programs for n in range(3)]
        traces = await asyncio.gather(
            *(self.one(runs, f"calm-{name}-{n}", name, n) for name, n in kinds)
        )
        self.expected = dict(zip(kinds, traces, strict=True))

    async def disturb(self) -> None:
        """Kill workers and the server as often as is asked for; freeze workers and part them from
        the server meanwhile.
        """
        every = max(self.kills // max(self.restarts, 1), 1)
        for number in itertools.count(1):
            if self.counts["killed"] >= self.kills:
                return
            await asyncio.sleep(self.random.uniform(0.2, 1.6))
            if number % every == 0 and self.counts["server killed"] < self.restarts:
                self.server.stop()
                self.counts["server killed"] += 1
                await asyncio.sleep(self.random.uniform(0.1, 2.0))
                self.server.start()
                continue
            host = self.random.choice(self.hosts)
            if await self.away(host) and self.random.random() < 0.5:
                continue
            self.counts["killed"] += 1
            host.process.kill()
            await asyncio.to_thread(host.process.join)
            self.begin(host)

    async def away(self, host: Host) -> bool:
        """Have the worker of *host* stand still, or its network, now and then; whether it was so."""
        drawn, seconds = self.random.random(), self.random.uniform(*AWAY_SECONDS)
        if drawn < FREEZES:
            self.counts["frozen"] += 1
            assert host.process.pid is not None
            os.kill(host.process.pid, signal.SIGSTOP)
            await asyncio.sleep(seconds)
            os.kill(host.process.pid, signal.SIGCONT)
        elif drawn < FREEZES + PARTITIONS:
            self.counts["parted from the server"] += 1
            host.network.cut()
            await asyncio.sleep(seconds)
            host.network.mend()
        return drawn < FREEZES + PARTITIONS

    async def whole(self) -> dict[str, Any]:
        """The campaign; what it counted."""
        self.server.start()
        runs = TemporalRuns(await self.server.client(), QUEUE)
        async with AsyncExitStack() as stack:
            for number in range(WORKERS):
                self.hosts.append(await self.host(number, stack))
                self.begin(self.hosts[-1])
            await self.undisturbed(runs)
            started = time.monotonic()
            await self.disturbed(runs)
        self.effects()
        self.counts["seconds"] = round(time.monotonic() - started)
        return {**self.counts, "faults": self.faults}

    async def disturbed(self, runs: TemporalRuns) -> None:
        """Begin runs for as long as there is somebody who disturbs, and see how each ends."""
        disturbing = asyncio.ensure_future(self.disturb())
        number = 0
        going: set[asyncio.Task[None]] = set()
        while not disturbing.done():
            while len(going) < IN_FLIGHT:
                name, n = self.drawn.choice(list(self.programs)), self.drawn.randrange(3)
                number += 1
                run_id = f"run-{number}"
                going.add(asyncio.create_task(self.go(runs, run_id, name, n), name=run_id))
            done, going = await asyncio.wait(going, timeout=0.5)
            for task in done:
                task.result()
        disturbing.result()
        done, left = await asyncio.wait(going, timeout=LIMIT_SECONDS)
        for task in left:
            self.faults.append(await self.standing(runs, task.get_name()))
            task.cancel()
        for task in done:
            task.result()

    async def standing(self, runs: TemporalRuns, run_id: str) -> str:
        """How a run stands that does not end."""
        try:
            async with asyncio.timeout(10):
                waiting = await runs.waiting(run_id)
                about = await runs.client.get_workflow_handle(run_id).describe()
        except (VMError, RPCError, TimeoutError) as error:
            return f"{run_id} does not end, and cannot be asked: {error!r}"
        keys = [entry.get("effect_key") for entry in waiting]
        lines = [line for line in self.ledger.read() if line["key"] in keys]
        calls = [str(one) for one in about.raw_description.pending_activities]
        task = str(about.raw_description.pending_workflow_task)
        return f"{run_id} does not end: {waiting}, ledger {lines}, calls {calls}, task {task}"

    def effects(self) -> None:
        """Hold the ledger against what may have happened."""
        did = Counter(
            (line["tool"], line["key"]) for line in self.ledger.read() if line["what"] == "did"
        )
        self.counts["effects"] = sum(did.values())
        for (name, key), times in did.items():
            if times > 1 and name != "put":
                self.faults.append(f"{name} with key {key} took place {times} times")
            elif times > 1:
                self.counts["idempotent effects made again"] += 1

    def end(self) -> None:
        for host in self.hosts:
            host.process.kill()
            host.process.join()
        self.server.stop()


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--restarts", type=int, default=0)
    parser.add_argument("--long", type=int, default=LONG_SECONDS, help="seconds of a long wait")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument(
        "--wires", action="store_true", help="workers in network namespaces, and not behind proxies"
    )
    parser.add_argument("--sabotage", choices=list(SABOTAGE), help="break this on purpose")
    parser.add_argument("--apart", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.wires and not given.apart:
        apart("soak.cluster", [*sys.argv[1:], "--apart"])
    output = own_output()  # the SDK warns of a server that is gone
    with tempfile.TemporaryDirectory() as folder:
        # where the server of the forks has its socket, which a process that exits at once leaves
        tempfile.tempdir = folder
        campaign = Campaign(Path(folder), given)
        try:
            result = asyncio.run(campaign.whole())
        finally:
            campaign.end()
    print(json.dumps(result), file=output, flush=True)
    return 1 if result["faults"] else 0


if __name__ == "__main__":
    # threads of the SDK may abort a process that ends the usual way
    code = main()
    sys.stdout.flush()
    os._exit(code)
