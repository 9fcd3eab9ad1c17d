"""One simulated world: workers, clients and persons over one store, all drawn from a seed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any

from soak.programs import drawn, key_of

from nano_vm import ExecutionVM, Program
from nano_vm.errors import StoreError, VMError
from nano_vm.run.observers import Event
from nano_vm.simulation.simulate import prepare
from nano_vm.simulation.store import Database, SimulatedStore
from nano_vm.simulation.system import CLOCK, SYSTEM
from nano_vm.simulation.world import (
    SECOND,
    Computer,
    Faults,
    Process,
    World,
    drawn_faults,
    here,
    running,
)
from nano_vm.store.protocol import RunFilter
from nano_vm.store.records import ENDED

from .outside import Model, Outside
from .programs import CALLED, CALLED_NEXT, FOCUSED, PROGRAMS

CHAOS_NS = 8 * SECOND
"""How long things go wrong in a world."""

QUICK_NS = SECOND // 10, SECOND
"""After how long a person looks again who is quick."""

PATIENCE_NS = 300 * SECOND
"""How long after that every run must have ended."""

OUTSIDE = Outside()


class Stalls:
    """An observer in which a process may stand still right before a call, after it looked at its
    lease.
    """

    event_kinds = frozenset({"step_started"})
    once_in = 40

    def observe(self, event: Event) -> None:
        """See `Observer`."""
        process = here()
        world = process.world
        if world.now < world.calm_from and world.chance.random() * self.once_in < 1:
            seconds = 0.5 + 4 * world.chance.random()
            if world.happens("stall", process.name):
                world.tell(process.name, f"stands still for {seconds:.3f} s before {event.path}")
                process.frozen_until = world.now + int(seconds * SECOND)
                process.sleep(0)


def _hosts(
    lease_seconds: float, *observers: Any, like: Sequence[ExecutionVM] = ()
) -> tuple[ExecutionVM, ExecutionVM]:
    """A host, and its next version, by which a deploy replaces it; they know what others know that
    they are *like* but for their leases and observers.
    """
    old = ExecutionVM(
        Model(OUTSIDE),
        OUTSIDE.tools,
        programs=CALLED,
        clock=CLOCK,
        system=SYSTEM,
        lease_seconds=lease_seconds,
        observers=observers,
    )
    new = old.with_(tools=OUTSIDE.next_tools, programs=CALLED_NEXT)
    for host, known in zip((old, new), like, strict=False):
        host.preparer = known.preparer.beside()
    for program in (*PROGRAMS, *FOCUSED):
        begun_by_old, begun_by_new = prepare(old, program), prepare(new, program)
        old.preparer.of_stored(begun_by_new)
        new.preparer.of_stored(begun_by_old)
    return old, new


_FIRST = _hosts(1.0, Stalls())
HOSTS = (_FIRST, _hosts(2.0, like=_FIRST), _hosts(4.0, like=_FIRST))
"""The hosts of all worlds: their programs are prepared once."""


@dataclass
class Said:
    """Something that was said to a run, and that its store has acknowledged; whether a process
    drove the run then.
    """

    run_id: str
    kind: str
    name: str
    by: str
    at_ns: int
    driven: bool


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
    vms: list[tuple[Process, ExecutionVM]] = field(default_factory=list)
    stopped_ns: dict[Process, int] = field(default_factory=dict)  # workers that were told to stop
    ended_ns: dict[str, int] = field(default_factory=dict)  # when the store had the end of each run
    # by run and path: calls in doubt of which both a person's word and the outcome were there as
    # their run was claimed
    known_twice: set[tuple[str, str]] = field(default_factory=set)
    # by process and key: when the intent of a call was given to the store first
    meant_ns: dict[tuple[Process, str], int] = field(default_factory=dict)
    # by run and fence: which owner has claimed it
    drivers: dict[tuple[str, int], str] = field(default_factory=dict)
    # by key: who stored the newest intent of a call
    makers: dict[str, Process] = field(default_factory=dict)
    linger_ns: int = 0  # how long the world goes on when all runs have ended

    def __post_init__(self) -> None:
        draw = Random(self.seed ^ 0xFA017)
        self.world = World(self.seed, self.faults or drawn_faults(draw), self.without)
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
        self.right_clocks = one_machine
        self.programs = [PROGRAMS[draw.randrange(len(PROGRAMS))] for _ in range(self.runs)]
        self.ids = [f"r{n}" for n in range(self.runs)]
        self.working: dict[Process, asyncio.Task[Any]] = {}
        self.paid: set[str] = set()
        self.cancelled_at_rest: set[str] = set()
        # when all workers are replaced, and when the store does not answer
        self.deploys = [draw.randrange(CHAOS_NS)] if draw.random() < 0.4 else []
        self.outages = [draw.randrange(CHAOS_NS)] if draw.random() < 0.4 else []
        self.outage = draw.choice(("away", "full"))
        self.outage_ns = int(SECOND * 0.1 * 400 ** draw.random())
        self.poll_seconds = draw.choice((0.5, 1.5, 3.0))
        self.hosts = draw.choice(HOSTS)
        self.version = 0  # of what is deployed
        # how soon persons look again, and how often they want to cancel something
        self.looks_ns = draw.choice((QUICK_NS, (SECOND // 4, 4 * SECOND)))
        self.cancels = draw.choice((0.0, 0.05, 0.2))

    # --- processes ---

    def vm(self, process: Process) -> ExecutionVM:
        """The host as one process has it."""
        vm = self.hosts[self.version].with_(store=SimulatedStore(process, self.database))
        self.vms.append((process, vm))
        return vm

    async def work(self, process: Process) -> None:
        """A worker, until it is replaced."""
        vm = self.vm(process)
        working = asyncio.create_task(
            vm.work(concurrency=6, poll_seconds=self.poll_seconds, ended=_forget)
        )
        self.working[process] = working
        try:
            await working
        except asyncio.CancelledError:
            await asyncio.to_thread(vm.close)
            self.world.end(process)
        except Exception as error:  # noqa: BLE001 - a worker never ends by itself
            self.fault(f"{process.name} ended: {type(error).__name__}: {error}")

    async def begin(self, process: Process) -> None:
        """The client: submits some runs, and begins others itself; after its death once more."""
        vm = self.vm(process)
        world = self.world
        started = []
        for run_id, program in zip(self.ids, self.programs, strict=True):
            await asyncio.sleep(world.delay(SECOND // 1000, SECOND // 2) / 1e9)
            begun = self.submitted if drawn(f"{run_id}:{self.seed}", 2) else self.run_here
            started.append(asyncio.create_task(begun(vm, run_id, program)))
        await asyncio.wait(started)
        await process.loop.create_future()

    def options(self, run_id: str) -> dict[str, Any]:
        """What else is said of a run as it begins."""
        return {}

    async def submitted(self, vm: ExecutionVM, run_id: str, program: Program) -> None:
        """Leave a run to the workers; again while the store does not answer."""
        while True:
            try:
                await vm.submit(program, {"name": run_id}, run_id=run_id, **self.options(run_id))
                return
            except StoreError as error:
                if not error.passing:
                    raise

    async def run_here(self, vm: ExecutionVM, run_id: str, program: Program) -> None:
        """Run it in the client's own process; it may be gone on with elsewhere."""
        while True:
            try:
                await vm.run(program, {"name": run_id}, run_id=run_id, **self.options(run_id))
                return
            except StoreError as error:
                if not error.passing:
                    raise

    async def decide(self, process: Process) -> None:
        """A person, who looks again and again at what waits for somebody."""
        vm = self.vm(process)
        store: Any = vm.store
        world = self.world
        while True:
            calm = world.now >= CHAOS_NS  # what is stuck then is not to be got over by a word
            await asyncio.sleep(world.delay(*(QUICK_NS if calm else self.looks_ns)) / 1e9)
            try:
                waiting = await asyncio.to_thread(
                    lambda: list(store.runs(RunFilter(status="suspended")))
                )
                if not calm and world.draw.random() < self.cancels:
                    run_id = world.draw.choice(self.ids)
                    await asyncio.to_thread(self.cancel, vm, run_id, process.name)
                if world.draw.random() < 0.4:
                    await asyncio.to_thread(self.pay, vm, process.name)
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
            if choice < self.cancels and self.world.now < CHAOS_NS:
                self.cancel(vm, run_id, by)
            elif choice < 0.25:
                vm.reject(run_id, path, by=by, shown=entry["shown"], reason="no")
                self.note(run_id, "reject", path, by)
            else:
                vm.approve(run_id, path, by=by, shown=entry["shown"], reason="fine")
                self.note(run_id, "approve", path, by)
        elif kind == "wait" and "event" in entry and "match" not in entry:
            payload = {"way": "ab"[drawn(key, 2)]}
            for _ in range(1 + (draw.random() < 0.3)):  # a message may be delivered twice
                if not vm.send_event(run_id, entry["event"], payload, id=key):
                    continue
                waiting = self.database.model._runs[run_id].run.waiting
                if any(one["path"] == path for one in waiting):
                    self.note(run_id, "event", entry["event"], by)
                else:  # the wait was over, or the event is used already: nobody has to use it
                    self.world.tell(by, f"sends {entry['event']} late")
        elif kind == "in_doubt":
            self.settle_in_doubt(vm, run_id, entry, by)

    def cancel(self, vm: ExecutionVM, run_id: str, by: str) -> None:
        """Cancel a run, however it stands."""
        run = self.database.model._runs.get(run_id)
        rests = run is not None and run.run.status == "suspended"
        fence = run.run.fence if run is not None else 0
        vm.inbox.cancel(run_id, by=by)
        self.note(run_id, "cancel", "", by)
        now = self.database.model._runs[run_id].run
        if rests and now.status == "suspended" and now.fence == fence:
            self.cancelled_at_rest.add(run_id)

    def pay(self, vm: ExecutionVM, by: str) -> None:
        """Send an event that is addressed to no run, for a run whose event was not sent yet."""
        orders = [
            run_id
            for run_id, program in zip(self.ids, self.programs, strict=True)
            if program.name == "parcel" and not self.is_paid(run_id)
        ]
        if orders:
            order = self.world.draw.choice(orders)
            for _ in range(1 + (self.world.draw.random() < 0.3)):
                if vm.send_event("paid", {"order": order, "by": by}, id=order):
                    self.world.tell(by, f"says that {order} is paid")
            self.paid.add(order)

    def is_paid(self, run_id: str) -> bool:
        """Whether nobody sends the event of a run again."""
        return run_id in self.paid

    def settle_in_doubt(self, vm: ExecutionVM, run_id: str, entry: Any, by: str) -> None:
        """Say of a call in doubt what really happened, if it can be known; of the very call that was
        seen, since the word may come when another is in doubt.
        """
        path, shown = entry["path"], entry["shown"]
        key = key_of(run_id, path)
        if entry["tool"].startswith("find"):
            vm.resolve(run_id, path, retry=True, by=by, shown=shown)
            self.note(run_id, "resolve", path, by)
            return
        if self.ledger.open(key):
            return
        done = self.ledger.truth(key)
        if done is not None:
            vm.resolve(run_id, path, done=done.output, by=by, shown=shown)
        else:
            self.ledger.clear(key)
            if self.world.draw.random() < 0.25:
                vm.resolve(run_id, path, fail="it did not happen", by=by, shown=shown)
            else:
                vm.resolve(run_id, path, retry=True, by=by, shown=shown)
        self.note(run_id, "resolve", path, by)

    def note(self, run_id: str, kind: str, name: str, by: str) -> None:
        driven = self.database.model._runs[run_id].run.owner is not None
        self.said.append(Said(run_id, kind, name, by, self.world.now, driven))
        self.world.tell(by, f"{kind} {run_id} {name}".rstrip())

    def fault(self, what: str) -> None:
        """Note what must not be."""
        if self.world.closed:  # what is taken apart may say anything
            return
        self.broken.append(f"{self.world.now / SECOND:.6f}: {what}")
        self.world.tell("FAULT", what)

    # --- the whole ---

    def deploy(self) -> None:
        """Have all workers replaced by those of the next version, or a second time by those of the
        one before: each is told to stop, and another begins when it has ended.
        """
        self.version = 1 - self.version
        which = "next version" if self.version else "version before"
        self.world.tell("operator", f"replaces all workers by the {which}")
        for process in self.world.processes:
            if process.alive and process in self.working:
                process.at(self.world.now, partial(self.stop, process))

    def stop(self, process: Process) -> None:
        """Tell a worker to stop."""
        self.stopped_ns[process] = self.world.now
        self.working[process].cancel()

    def fail_store(self) -> None:
        """Let the store be away for a while: its server is started again, or its disk is full."""
        until, seconds = self.world.now + self.outage_ns, self.outage_ns / SECOND
        if self.outage == "away":
            self.database.out_until = until
            self.world.tell("store", f"does not answer for {seconds:.3f} s")
        else:
            self.database.full_until = until
            self.world.tell("store", f"takes nothing for {seconds:.3f} s")

    def unfinished(self) -> list[Any]:
        runs = [self.database.model._runs[r].run for r in self.ids if self.database.model.has(r)]
        return [run for run in runs if run.status not in ENDED]

    def over(self) -> bool:
        """Whether nothing goes wrong any more, all are begun, and every run has ended."""
        model = self.database.model
        begun = all(model.has(run_id) for run_id in self.ids)
        return begun and not self.unfinished()

    def live(self) -> Life:
        """Let the world go on until all is done, and look at what it came to."""
        from .invariants import watch

        with running(self.world):
            watch(self)
            self.populate()
            self.world.at(CHAOS_NS, self.world.heal)
            if not self.world.run(self.over, CHAOS_NS + PATIENCE_NS):
                for run_id in self.ids:
                    if not self.database.model.has(run_id):
                        self.fault(f"{run_id} was never begun")
                for run in self.unfinished():
                    self.fault(
                        f"{run.run_id} ({run.program_name}) has not ended: {run.status}, owner "
                        f"{run.owner}, waits for {[entry['path'] for entry in run.waiting]}"
                    )
            if self.linger_ns:
                self.world.run(lambda: False, self.world.now + self.linger_ns)
            self.look_back()
        return self

    def look_back(self) -> None:
        """Look at the whole, once all runs have ended."""
        from .invariants import whole

        whole(self)

    def populate(self) -> None:
        """Start the processes."""
        computers = self.computers
        for n in range(self.workers):
            self.world.keep_up(f"worker{n}", computers[n % len(computers)], self.work)
        for n in range(2):
            self.world.keep_up(f"person{n}", computers[-1], self.decide)
        for at in self.deploys:
            self.world.at(at, self.deploy)
        for at in self.outages:
            self.world.at(at, self.fail_store)
        self.world.keep_up("client", computers[-1], self.begin)


def _forget(_: Any) -> None:
    """A trace that nobody waits for."""


EXPECTED = (
    "already",
    "has ended",
    "asks",
    "nothing in doubt",
    "under way",
    "is over",
    "could be",
    "no run",
    "no longer",
)


def expected(error: VMError) -> None:
    """Let pass what comes of several people deciding at once."""
    if not any(part in str(error) for part in EXPECTED):
        raise error
