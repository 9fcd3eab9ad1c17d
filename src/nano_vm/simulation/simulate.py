"""A user's own program in simulated worlds: their tools over an outside of their own, workers that
die and stand still, and a check of what it all came to.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from ..errors import StoreError, VMError
from ..language.program import Program
from ..records.trace import Trace
from ..run.durable.stored import trace_of
from ..run.observers import Event
from ..run.vm import ExecutionVM
from ..store.protocol import RunFilter
from ..store.records import ENDED, StoredRun
from .shrink import diagram, without_needless
from .store import Database, SimulatedStore
from .system import CLOCK, SYSTEM
from .world import SECOND, Computer, Faults, Happening, Process, World, drawn_faults, here, running

LEASE_SECONDS = 2.0
TROUBLE_NS = 8 * SECOND
"""How long things go wrong in a world; after that all runs must rest."""

REST_NS = 600 * SECOND
"""How long after that: every deadline of a call is over by then, and every lease."""


class Outside:
    """What lies outside of the processes of one world: what tools reach, and who answers.

    Make a class of it: ``__init__(self, world)`` is called for each world, so what an object keeps
    is one world's. A tool begins and ends with ``await self.world.travel()``, the ways to and from
    whom it calls.
    """

    def __init__(self, world: World) -> None:
        self.world = world

    def host(self) -> Mapping[str, Any]:
        """What `ExecutionVM` is given: ``tools``, ``llm``, ``programs``, ``policy``, and so on."""
        return {}

    def person(self, vm: ExecutionVM, run_id: str, entry: Mapping[str, Any]) -> None:
        """Answer what a run waits for, one *entry* of ``vm.waiting(run_id)``. Approves what asks
        for approval; what is in doubt and what waits for an event is for a class to answer.
        """
        if entry["kind"] == "approval":
            vm.approve(run_id, entry["path"], shown=entry["shown"], by="a person")

    def check(self, runs: Mapping[str, Trace]) -> None:
        """Called when all runs have ended: an `AssertionError` says what must not be."""


@dataclass(frozen=True)
class BrokenWorld:
    """A world in which something was not as it must be. *history* is that of the world with as few
    faults as it takes; *left_out* are those that it does not need.
    """

    seed: int
    what: str
    history: Sequence[Happening]
    left_out: frozenset[int]

    def __str__(self) -> str:
        return f"seed {self.seed}: {self.what}\n{diagram(self.history)}"


@dataclass
class Simulation:
    """What many worlds came to."""

    worlds: int = 0
    simulated_seconds: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)  # by kind
    runs: Counter[str] = field(default_factory=Counter)  # by status
    broken: BrokenWorld | None = None

    def check(self) -> None:
        """Raises an `AssertionError` with the first world that was broken."""
        if self.broken is not None:
            raise AssertionError(str(self.broken))


def simulate(
    program: Program,
    outside: type[Outside],
    inputs: Sequence[Mapping[str, Any]],
    *,
    seeds: Iterable[int] = range(100),
    workers: int = 2,
    faults: Faults | None = None,
) -> Simulation:
    """Run *program* on all of *inputs* in one world for each of *seeds*, up to the first that is
    broken.

    In each, *workers* drive the runs over one store while faults befall them: those that the seed
    draws, or *faults*. All runs must end, and `Outside.check` must hold then. The same seed is the
    same world, whenever and wherever it is run.

    Raises:
        MissingExtra: If ``greenlet`` is not installed.
        ProgramError: If the program has faults.
    """
    found = Simulation()
    for seed in seeds:
        one = _One(program, outside, inputs, seed, workers, faults)
        what = one.live()
        found.worlds += 1
        found.simulated_seconds += one.world.now / SECOND
        found.faults.update(fault.kind for fault in one.world.faults)
        found.runs.update(run.status for run in one.database.model.page(size=len(inputs)).runs)
        if what is not None:
            found.broken = _smallest(one, what)
            break
    return found


def prepare(host: ExecutionVM, program: Program) -> StoredRun:
    """Have *host* know a program, and the same as its store has it, which is given: else each
    process of a world would read and compile it for itself.

    Raises:
        ProgramError: If the program has faults.
    """
    host.plan(program)
    prepared = host.preparer.prepare(program)
    digest = prepared.flow.digest or program.digest
    document = prepared.document()
    stored = StoredRun("", program.name, digest, 0, document)
    host.preparer.of_stored(stored)
    return stored


def _smallest(one: _One, what: str) -> BrokenWorld:
    """The world again, with as few faults as it takes to break it."""
    smallest = BrokenWorld(one.seed, what, one.world.history, frozenset())

    def fails(left_out: frozenset[int]) -> Sequence[int] | None:
        nonlocal smallest
        again = one.without(left_out)
        told = again.live()
        if told is None:
            return None
        smallest = BrokenWorld(one.seed, told, again.world.history, left_out)
        return [fault.number for fault in again.world.faults]

    without_needless([fault.number for fault in one.world.faults], fails)
    return smallest


class _Told:
    """An observer that puts what a run does into the history of its world."""

    def observe(self, event: Event) -> None:
        """See `Observer`."""
        if event.replayed or event.kind not in _TOLD:
            return
        process = here()
        word = _TOLD[event.kind].format(event.path, event.run_id)
        process.world.tell(process.name, word)


_TOLD = {
    "run_started": "begins {1}",
    "run_resumed": "resumes {1}",
    "run_suspended": "leaves {1}, which waits",
    "run_finished": "ends {1}",
    "run_released": "loses {1}",
    "step_started": "{1}: {0}",
    "attempt_failed": "{1}: {0} failed",
}


class _One:
    """One world."""

    def __init__(
        self,
        program: Program,
        outside: type[Outside],
        inputs: Sequence[Mapping[str, Any]],
        seed: int,
        workers: int,
        faults: Faults | None,
        left_out: frozenset[int] = frozenset(),
    ) -> None:
        self._given = program, outside, inputs, seed, workers, faults
        self.program, self.inputs, self.seed, self.workers = program, inputs, seed, workers
        draw = Random(seed ^ 0xFA017)  # noqa: S311 - nothing is to be guessed
        self.world = World(seed, faults or drawn_faults(draw), left_out)
        self.world.calm_from = TROUBLE_NS
        one_machine = draw.random() < 0.5
        self.database = Database(self.world, one_machine=one_machine, up_ns=SECOND)
        count = 1 if one_machine else workers + 1
        self.computers = [Computer(f"host{n}", f"boot{n}", up_ns=SECOND) for n in range(count)]
        self.outside = outside(self.world)
        given = dict(self.outside.host())
        self.host = ExecutionVM(
            **{**given, "observers": (*given.get("observers", ()), _Told())},
            clock=CLOCK,
            system=SYSTEM,
            lease_seconds=LEASE_SECONDS,
        )
        prepare(self.host, program)  # or it is refused here
        self.ids = [f"run-{number}" for number in range(len(inputs))]

    def without(self, left_out: frozenset[int]) -> _One:
        """The same world without some faults."""
        return _One(*self._given, left_out)

    def vm(self, process: Process) -> ExecutionVM:
        return self.host.with_(store=SimulatedStore(process, self.database))

    async def work(self, process: Process) -> None:
        await self.vm(process).work(concurrency=4, poll_seconds=0.5, ended=lambda _: None)

    async def begin(self, process: Process) -> None:
        """The client: submits every run; after its death once more, which joins what is there."""
        vm = self.vm(process)
        for run_id, given in zip(self.ids, self.inputs, strict=True):
            while True:
                try:
                    await vm.submit(self.program, given, run_id=run_id)
                    break
                except StoreError as error:
                    if not error.passing:
                        raise
        await process.loop.create_future()  # its work is done, and it may still be asked

    async def answer(self, process: Process) -> None:
        """The person."""
        vm = self.vm(process)
        store = vm.require_store()
        while True:
            await asyncio.sleep(self.world.delay(SECOND // 4, 2 * SECOND) / SECOND)
            try:
                waiting = await asyncio.to_thread(store.page, RunFilter(status="suspended"))
                for run in waiting.runs:
                    for entry in await asyncio.to_thread(vm.waiting, run.run_id):
                        await asyncio.to_thread(self.outside.person, vm, run.run_id, entry)
            except VMError as error:  # others were first, or the store does not answer
                self.world.tell(process.name, f"hears: {error}")

    def over(self) -> bool:
        model = self.database.model
        return all(model.has(r) and model.load(r, rows=False).status in ENDED for r in self.ids)

    def live(self) -> str | None:
        """Let the world go on to its end; what was not as it must be."""
        world, model = self.world, self.database.model
        with running(world):
            for number in range(self.workers):
                computer = self.computers[number % len(self.computers)]
                world.keep_up(f"worker{number}", computer, self.work)
            world.keep_up("person", self.computers[-1], self.answer)
            world.keep_up("client", self.computers[-1], self.begin)
            world.at(TROUBLE_NS, world.heal)
            if not world.run(self.over, TROUBLE_NS + REST_NS):
                runs = {r: model.load(r, rows=False) for r in self.ids if model.has(r)}
                left = [
                    f"{r} is {run.status}, and waits for {[e['path'] for e in run.waiting]}"
                    for r, run in runs.items()
                    if run.status not in ENDED
                ]
                return f"not all runs have ended: {'; '.join(left)}"
            try:
                self.outside.check({r: trace_of(model.load(r)) for r in self.ids})
            except AssertionError as error:
                world.tell("BROKEN", str(error))
                return str(error)
        return None
