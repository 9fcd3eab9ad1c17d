"""Kills and freezes workers of a Temporal cluster, and its server, while runs go on; an independent
ledger of effects says what took place.

python -m soak.cluster --kills 200 --restarts 20 --seed 7

Two workers in processes of their own drive runs with every kind of effect, forks, loops, timers,
approvals and events. A person, who sees the ledger as a bank shows its books, decides what becomes
of each call in doubt. At the end every run must have ended, no effect have taken place twice, and
every digest be that of the same run undisturbed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from temporal.cluster import Server
from temporalio.client import Client
from temporalio.service import RPCError

from nano_vm import ExecutionVM, Program, Trace, VMError, tool
from nano_vm.errors import AlreadyDecided, Changed, Expired
from nano_vm.temporal import TemporalRuns, connect, worker

T = TypeVar("T")

QUEUE = "soak"
WORKERS, IN_FLIGHT = 2, 8
FREEZE_SECONDS = (0.5, 7.0)
"""Shorter and longer than a heartbeat."""

LIMIT_SECONDS = 120.0
"""How long runs may take to end once nothing is killed any more."""


def call(id: str, name: str, **more: Any) -> dict[str, Any]:
    return {"id": id, "type": "tool", "tool": name, "args": {"n": "$n"}, **more}


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


class Ledger:
    """What tools have begun and done, a line each, in a file that all processes append to."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, what: str, key: str, name: str) -> None:
        line = json.dumps({"what": what, "key": key, "tool": name, "pid": os.getpid()})
        with self.path.open("ab", buffering=0) as file:
            file.write(f"{line}\n".encode())

    def read(self) -> list[dict[str, Any]]:
        if not self.path.exists():
            return []
        return [json.loads(line) for line in self.path.read_text().splitlines()]

    def of(self, key: str) -> tuple[bool, list[int]]:
        """Whether the effect with this key took place, and the processes that began it."""
        lines = [line for line in self.read() if line["key"] == key]
        return (
            any(line["what"] == "did" for line in lines),
            [line["pid"] for line in lines if line["what"] == "began"],
        )


def lives(pid: int) -> bool:
    """Whether a process is there, which a frozen one is."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def tools_of(ledger: Ledger) -> dict[str, Callable[..., Any]]:
    """The tools: each says what it begins, takes its time, does it, and takes its time again."""

    def made(name: str, effect: Any) -> Callable[..., Any]:
        @tool(effect=effect)
        async def run(n: int, idempotency_key: str) -> str:
            ledger.write("began", idempotency_key, name)
            await asyncio.sleep(random.uniform(0, 0.1))
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
        did, began = ledger.of(idempotency_key)
        if did:
            return {"done": True, "output": f"book {n}"}
        return {"done": None if any(map(lives, began)) else False}

    return {
        "put": made("put", "idempotent"),
        "pay": made("pay", "irreversible"),
        "book": made("book", "write"),
        "look": look,
        "booked": booked,
    }


# --- a worker -------------------------------------------------------------------------------------


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


class Campaign:
    """Runs, who disturbs them, and who answers them."""

    def __init__(self, folder: Path, kills: int, restarts: int, seed: int) -> None:
        self.random = random.Random(seed)
        self.kills, self.restarts = kills, restarts
        self.server = Server(folder / "temporal.db" if restarts else None)
        self.ledger = Ledger(folder / "ledger.jsonl")
        self.workers: list[subprocess.Popen[bytes]] = []
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []
        self.expected: dict[tuple[str, int], Trace] = {}
        self.client: Client

    def spawn(self) -> None:
        command = [sys.executable, "-m", "soak.cluster", "--worker", self.server.address]
        command += ["--ledger", str(self.ledger.path)]
        # the SDK warns of each call whose worker was not heard of
        quiet = subprocess.DEVNULL
        self.workers.append(subprocess.Popen(command, stdout=quiet, stderr=quiet))

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
        program = PROGRAMS[name]
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
        if entry["kind"] == "approval":
            await self.answered(lambda: runs.approve(run_id, path, shown=entry["shown"], by="ann"))
        elif entry["kind"] == "wait" and entry.get("event"):
            await self.answered(lambda: runs.send_event(run_id, entry["event"], id="e"))
        elif entry["kind"] == "in_doubt":
            did, began = self.ledger.of(entry["effect_key"])
            if did:
                self.counts["in doubt, had happened"] += 1
                done = f"{entry['tool']} {n}"
                await self.answered(lambda: runs.resolve(run_id, path, done=done, by="ann"))
            elif not any(map(lives, began)):
                self.counts["in doubt, had not happened"] += 1
                await self.answered(lambda: runs.resolve(run_id, path, retry=True, by="ann"))

    async def go(self, runs: TemporalRuns, run_id: str, name: str, n: int) -> None:
        trace = await self.one(runs, run_id, name, n)
        self.counts["runs"] += 1
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
        for name in PROGRAMS:
            for n in range(3):
                self.expected[name, n] = await self.one(runs, f"calm-{name}-{n}", name, n)

    async def disturb(self) -> None:
        """Kill and freeze workers, and the server, as often as is asked for."""
        every = max(self.kills // max(self.restarts, 1), 1)
        for number in range(self.kills):
            await asyncio.sleep(self.random.uniform(0.2, 1.6))
            if self.restarts and number % every == every - 1:
                self.server.stop()
                self.counts["server killed"] += 1
                await asyncio.sleep(self.random.uniform(0.1, 2.0))
                self.server.start()
                continue
            victim = self.random.choice(self.workers)
            if self.random.random() < 0.3:
                self.counts["frozen"] += 1
                victim.send_signal(signal.SIGSTOP)
                await asyncio.sleep(self.random.uniform(*FREEZE_SECONDS))
                victim.send_signal(signal.SIGCONT)
                if self.random.random() < 0.5:
                    continue
            self.counts["killed"] += 1
            victim.kill()
            await asyncio.to_thread(victim.wait)
            self.workers.remove(victim)
            self.spawn()

    async def whole(self) -> dict[str, Any]:
        """The campaign; what it counted."""
        self.server.start()
        for _ in range(WORKERS):
            self.spawn()
        runs = TemporalRuns(await self.server.client(), QUEUE)
        await self.undisturbed(runs)
        started = time.monotonic()
        disturbing = asyncio.ensure_future(self.disturb())
        number = 0
        going: set[asyncio.Task[None]] = set()
        while not disturbing.done():
            while len(going) < IN_FLIGHT:
                name, n = self.random.choice(list(PROGRAMS)), self.random.randrange(3)
                number += 1
                going.add(asyncio.create_task(self.go(runs, f"run-{number}", name, n)))
            done, going = await asyncio.wait(going, timeout=0.5)
            for task in done:
                task.result()
        disturbing.result()
        _, left = await asyncio.wait(going, timeout=LIMIT_SECONDS)
        self.faults += [f"{len(left)} runs do not end"] if left else []
        for task in left:
            task.cancel()
        self.effects()
        self.counts["seconds"] = round(time.monotonic() - started)
        return {**self.counts, "faults": self.faults}

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
        for process in self.workers:
            process.kill()
            process.wait()
        self.server.stop()


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--restarts", type=int, default=0)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--worker", metavar="ADDRESS")
    parser.add_argument("--ledger", type=Path)
    given = parser.parse_args()
    if given.worker:
        asyncio.run(work(given.worker, Ledger(given.ledger)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        campaign = Campaign(Path(folder), given.kills, given.restarts, given.seed)
        try:
            result = asyncio.run(campaign.whole())
        finally:
            campaign.end()
    print(json.dumps(result), flush=True)
    return 1 if result["faults"] else 0


if __name__ == "__main__":
    # threads of the SDK may abort a process that ends the usual way
    code = main()
    sys.stdout.flush()
    os._exit(code)
