"""One simulated world: workers, clients and persons over one store, all drawn from a seed."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, field
from random import Random
from typing import Any

from soak.programs import drawn, key_of

from nano_vm import ExecutionVM
from nano_vm.errors import StoreError, VMError
from nano_vm.run.durable.resume import Durable
from nano_vm.run.live import LiveRuns
from nano_vm.simulation.store import Database, SimulatedStore
from nano_vm.simulation.system import CLOCK, SYSTEM
from nano_vm.simulation.world import CALM, SECOND, Computer, Faults, Process, World, running
from nano_vm.store.protocol import RunFilter
from nano_vm.store.records import ENDED

from .outside import Model, Outside
from .programs import CALLED, PROGRAMS

LEASE_SECONDS = 2.0
CHAOS_NS = 8 * SECOND
"""How long things go wrong in a world."""

PATIENCE_NS = 900 * SECOND
"""How long after that every run must have ended."""

OUTSIDE = Outside()
HOST = ExecutionVM(Model(OUTSIDE), OUTSIDE.tools, programs=CALLED, clock=CLOCK, system=SYSTEM)
"""One host for all worlds: its programs are prepared once."""


def faults_of(draw: Random) -> Faults:
    """Which faults a world has, and how often: most have some of them, some have none."""

    def rate(most: int, least: int) -> int:
        return 0 if draw.random() < 0.5 else int(most * (least / most) ** draw.random())

    if draw.random() < 0.05:
        return CALM
    return Faults(
        death=rate(60, 2000),
        freeze=rate(60, 2000),
        clock=rate(200, 2000),
        partition=rate(200, 2000),
        refused=rate(15, 300),
        lost_answer=rate(15, 300),
        slow=rate(30, 300),
        failed=rate(10, 100),
        hung=rate(20, 200),
        lost=rate(10, 100),
    )


@dataclass
class Said:
    """Something that was said to a run, and that its store has acknowledged."""

    run_id: str
    kind: str
    name: str
    by: str
    at_ns: int


@dataclass
class Life:
    """A world and what is in it."""

    seed: int
    runs: int = 10
    workers: int = 3
    without: frozenset[int] = frozenset()
    faults: Faults | None = None
    broken: list[str] = field(default_factory=list)
    said: list[Said] = field(default_factory=list)

    def __post_init__(self) -> None:
        draw = Random(self.seed ^ 0xFA017)
        self.world = World(self.seed, self.faults or faults_of(draw), self.without)
        self.world.calm_from = CHAOS_NS
        one_machine = draw.random() < 0.4
        self.database = Database(self.world, one_machine=one_machine, up_ns=SECOND)
        self.ledger = OUTSIDE.begin_world(self.world)
        count = 1 if one_machine else self.workers + 2
        self.computers = [
            Computer(
                f"host{n}",
                f"boot{n}",
                0 if one_machine else draw.randrange(-SECOND, SECOND),
                0 if one_machine else draw.randrange(-50, 50),
                SECOND * (1 if one_machine else draw.randrange(1, 10_000)),
            )
            for n in range(count)
        ]
        self.programs = [PROGRAMS[draw.randrange(len(PROGRAMS))] for _ in range(self.runs)]
        self.ids = [f"r{n}" for n in range(self.runs)]
        self.lease_seconds = LEASE_SECONDS
        self.poll_seconds = draw.choice((0.3, 1.0, 2.0))

    # --- processes ---

    def vm(self, process: Process) -> ExecutionVM:
        """The host as one process has it."""
        vm = copy(HOST)
        store = SimulatedStore(process, self.database)
        vm._durable = Durable(
            store,
            HOST.preparer,
            lease_seconds=self.lease_seconds,
            trusted=None,
            sign=None,
            system=SYSTEM,
        )
        vm._runs = LiveRuns(stored=True)
        return vm

    async def work(self, process: Process) -> None:
        """A worker, for ever."""
        vm = self.vm(process)
        try:
            await vm.work(concurrency=6, poll_seconds=self.poll_seconds)
        except Exception as error:  # noqa: BLE001 - a worker never ends by itself
            self.fault(f"{process.name} ended: {type(error).__name__}: {error}")

    async def begin(self, process: Process) -> None:
        """The client: submits some runs, and begins others itself; after its death once more."""
        vm = self.vm(process)
        world = self.world
        started = []
        for run_id, program in zip(self.ids, self.programs, strict=True):
            await asyncio.sleep(world.delay(SECOND // 1000, SECOND // 2) / 1e9)
            inputs = {"name": run_id}
            if not drawn(f"{run_id}:{self.seed}", 2):
                started.append(vm.start(program, inputs, run_id=run_id))
                continue
            while True:
                try:
                    await vm.submit(program, inputs, run_id=run_id)
                    break
                except StoreError as error:
                    if not error.passing:
                        raise
        for run in started:
            with suppress(VMError):  # that the store did not answer; workers go on with it
                await run
        await asyncio.sleep(3600)

    async def decide(self, process: Process) -> None:
        """A person, who looks again and again at what waits for somebody."""
        vm = self.vm(process)
        store: Any = vm.store
        while True:
            await asyncio.sleep(self.world.delay(SECOND // 4, 3 * SECOND) / 1e9)
            try:
                waiting = await asyncio.to_thread(
                    lambda: list(store.runs(RunFilter(status="suspended")))
                )
                for stored in waiting:
                    for entry in await asyncio.to_thread(vm.waiting, stored.run_id):
                        await asyncio.to_thread(self.settle, vm, process, stored.run_id, entry)
            except VMError as error:
                if not isinstance(error, StoreError):
                    expected(error)

    def settle(self, vm: ExecutionVM, process: Process, run_id: str, entry: Any) -> None:
        """Answer one thing that a run waits for, in a thread."""
        path, kind, by = entry["path"], entry["kind"], process.name
        key = key_of(run_id, path)
        draw = self.world.draw
        if kind == "approval":
            choice = draw.random()
            if choice < 0.1:
                vm.inbox.cancel(run_id, by=by)
                self.note(run_id, "cancel", "", by)
            elif choice < 0.25:
                vm.reject(run_id, path, by=by, shown=entry["shown"], reason="no")
                self.note(run_id, "reject", path, by)
            else:
                vm.approve(run_id, path, by=by, shown=entry["shown"], reason="fine")
                self.note(run_id, "approve", path, by)
        elif kind == "wait" and "event" in entry:
            payload = {"way": "ab"[drawn(key, 2)]}
            if vm.send_event(run_id, entry["event"], payload, id=run_id):
                self.note(run_id, "event", entry["event"], by)
        elif kind == "in_doubt":
            self.settle_in_doubt(vm, run_id, entry, by)

    def settle_in_doubt(self, vm: ExecutionVM, run_id: str, entry: Any, by: str) -> None:
        """Say of a call in doubt what really happened, if it can be known."""
        path = entry["path"]
        key = key_of(run_id, path)
        if entry["tool"].startswith("find"):
            vm.resolve(run_id, path, retry=True, by=by)
            self.note(run_id, "resolve", path, by)
            return
        if self.ledger.open(key):
            return
        done = self.ledger.truth(key)
        if done is not None:
            vm.resolve(run_id, path, done=done.output, by=by)
        else:
            self.ledger.clear(key)
            if self.world.draw.random() < 0.25:
                vm.resolve(run_id, path, fail="it did not happen", by=by)
            else:
                vm.resolve(run_id, path, retry=True, by=by)
        self.note(run_id, "resolve", path, by)

    def note(self, run_id: str, kind: str, name: str, by: str) -> None:
        self.said.append(Said(run_id, kind, name, by, self.world.now))
        self.world.tell(by, f"{kind} {run_id} {name}".rstrip())

    def fault(self, what: str) -> None:
        """Note what must not be."""
        if self.world.closed:  # what is taken apart may say anything
            return
        self.broken.append(f"{self.world.now / SECOND:.6f}: {what}")
        self.world.tell("FAULT", what)

    # --- the whole ---

    def keep_up(self, name: str, computer: Computer, main: Any) -> None:
        """Start a process, and another whenever it dies."""
        world = self.world

        def begin(delay_ns: int) -> None:
            process = world.start(name, computer, main, delay_ns)
            process.ended = lambda: begin(world.delay(SECOND // 10, 5 * SECOND))

        begin(world.delay(1, SECOND))

    def unfinished(self) -> list[Any]:
        runs = [self.database.model._runs[r].run for r in self.ids if self.database.model.has(r)]
        return [run for run in runs if run.status not in ENDED]

    def over(self) -> bool:
        """Whether nothing goes wrong any more, all are begun, and every run has ended."""
        if self.world.events & 63:
            return False
        model = self.database.model
        begun = all(model.has(run_id) for run_id in self.ids)
        return begun and not self.unfinished()

    def live(self) -> Life:
        """Let the world go on until all is done, and look at what it came to."""
        from .invariants import watch, whole

        with running(self.world):
            watch(self)
            self.populate()
            self.world.at(CHAOS_NS, self.world.heal)
            if not self.world.run(self.over, CHAOS_NS + PATIENCE_NS):
                for run in self.unfinished():
                    self.fault(
                        f"{run.run_id} ({run.program_name}) has not ended: {run.status}, owner "
                        f"{run.owner}, waits for {[entry['path'] for entry in run.waiting]}"
                    )
            whole(self)
        return self

    def populate(self) -> None:
        """Start the processes."""
        computers = self.computers
        for n in range(self.workers):
            self.keep_up(f"worker{n}", computers[n % len(computers)], self.work)
        for n in range(2):
            self.keep_up(f"person{n}", computers[-1], self.decide)
        self.keep_up("client", computers[-1], self.begin)


EXPECTED = ("already", "has ended", "asks", "nothing in doubt", "under way", "is over", "could be")


def expected(error: VMError) -> None:
    """Let pass what comes of several people deciding at once."""
    if not any(part in str(error) for part in EXPECTED):
        raise error
