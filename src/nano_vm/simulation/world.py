"""The world of a simulation: one queue of events, a true time that only they move, computers whose
clocks are wrong, and processes that die and stand still.

A process is a set of greenlets: one runs its event loop, and each of its threads is another. One of
them runs at a time, and only until it waits: for the time, for the store, for the outside. So every
interleaving follows from the delays that are drawn, and those from the seed.

Rule: nothing here asks the real time, the system's random numbers, or the order of a set.
"""

from __future__ import annotations

import asyncio
import logging
from asyncio import _set_running_loop
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from random import Random
from typing import TYPE_CHECKING, Any

from ..errors import MissingExtra

if TYPE_CHECKING:
    from .loop import SimulatedLoop

try:
    from greenlet import GreenletExit, getcurrent, greenlet
except ImportError:
    raise MissingExtra("nano_vm.simulation", "simulation") from None

SECOND = 10**9

EPOCH_NS = 1_800_000_000 * SECOND
"""When a world begins, by a clock that is right."""


SHORTEST_NS = 1_000
"""How long a wait takes at least, a microsecond: who waits for less, again and again, gets on."""


EVENTS_AT_ONCE = 64
"""After how many events it is asked again whether a world is over: that looks at all its runs."""


CLOCK_SECONDS = 60
"""How far a clock is set at most: many times a lease, and a run that waits for a time of day is not
late by more.
"""

MOST_OFF_NS = 120 * SECOND
"""How far it is off in all: a run that waits for a time is to end within the world."""


@dataclass(eq=False)
class Computer:
    """A computer: its clocks, and a name for this start of it.

    The time of day is *offset_ns* off, and both clocks run *drift_ppm* millionths too fast.
    """

    name: str
    boot: str
    offset_ns: int = 0
    drift_ppm: int = 0
    up_ns: int = 0  # how long it was up when the world began

    def boot_ns(self, now: int) -> int:
        """Nanoseconds since it was started."""
        return self.up_ns + now + now * self.drift_ppm // 1_000_000

    def time_ns(self, now: int) -> int:
        """Nanoseconds since the epoch, by the clock that somebody may set."""
        return EPOCH_NS + self.offset_ns + now + now * self.drift_ppm // 1_000_000

    def true_ns(self, boot_ns: int) -> int:
        """When its clock of `boot_ns` shows that, by the true time; never a little before."""
        return -(-(boot_ns - self.up_ns) * 1_000_000 // (1_000_000 + self.drift_ppm))


class Waiter:
    """A greenlet that waits; it is woken once."""

    __slots__ = ("greenlet", "process", "value", "woken")

    def __init__(self, process: Process) -> None:
        self.process, self.greenlet = process, getcurrent()
        self.woken = False
        self.value: Any = None

    def wake(self) -> None:
        """Let it go on; called as an event of its process."""
        if not self.woken:
            self.woken = True
            self.process.resume(self.greenlet)

    def wait(self) -> Any:
        """Wait until it is woken; the value that was left for it."""
        self.process.park()
        return self.value


class Process:
    """A process of a simulated computer."""

    def __init__(self, world: World, name: str, computer: Computer, pid: int) -> None:
        from .loop import SimulatedLoop

        self.world, self.name, self.computer, self.pid = world, name, computer, pid
        self.born = str(world.now + 1)
        self.alive = True
        self.ended_ns = 0  # when it died or ended, if it did
        self.frozen_until = 0
        self.cut_off_until = 0  # from the store
        self.leases: set[str] = set()
        self.loop: SimulatedLoop = SimulatedLoop(self)
        self.main = greenlet(self.loop.serve, world.hub)
        # that carry threads of it; those of a dead process are kept until the world ends
        self.strands: dict[Strand, None] = {}
        self.ended: Callable[[], None] | None = None  # called when it dies, for who starts another

    def resume(self, which: greenlet) -> None:
        """Let a greenlet of this process run until it waits; called by the world only."""
        world, loop = self.world, self.loop.asyncio if which is self.main else None
        if world.running is not loop:
            # asyncio asks the system for the id of its process then, so it is not told twice
            world.running = loop
            _set_running_loop(loop)
        which.switch()

    def park(self) -> None:
        """Let the world go on until somebody resumes the current greenlet."""
        self.world.hub.switch()
        if self.world.closed:
            raise GreenletExit

    def at(self, when: int, call: Callable[[], None]) -> None:
        """Have *call* made at true time *when*: later if the process stands still then, and never
        if it is dead.
        """
        world = self.world
        now = world.now
        heappush(world.queue, (when if when > now else now, next(world.numbers), call, self))

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        """Have *call* made after so long by the clock of this process; a wait takes some time,
        however short it is.
        """
        nanoseconds = max(int(seconds * 1e9), SHORTEST_NS)
        self.at(self.computer.true_ns(self.monotonic_ns() + nanoseconds), call)

    def sleep(self, seconds: float) -> None:
        """Let the current greenlet wait for so long."""
        waiter = Waiter(self)
        self.after(seconds, waiter.wake)
        waiter.wait()

    def spawn(self, work: Callable[[], None], delay_ns: int) -> Spawned:
        """Run *work* in a thread that begins after *delay_ns*."""
        thread = Spawned(self, work)
        self.at(self.world.now + delay_ns, thread.begin)
        return thread

    def monotonic_ns(self) -> int:
        return self.computer.boot_ns(self.world.now)


class Spawned:
    """A thread of a process."""

    __slots__ = ("done", "process", "waiters", "work")

    def __init__(self, process: Process, work: Callable[[], None]) -> None:
        self.process, self.work = process, work
        self.done = False
        self.waiters: list[Waiter] = []

    def begin(self) -> None:
        process, idle = self.process, self.process.world.idle
        strand = idle.pop() if idle else Strand(process.world)
        strand.thread = self
        process.strands[strand] = None
        process.resume(strand.greenlet)

    def run(self) -> None:
        """All of its work; called by the strand that carries it."""
        self.work()
        self.done = True
        for waiter in self.waiters:
            self.process.at(self.process.world.now, waiter.wake)

    def join(self) -> None:
        """As `threading.Thread.join`."""
        if not self.done:
            waiter = Waiter(self.process)
            self.waiters.append(waiter)
            waiter.wait()


class Strand:
    """A greenlet that carries one thread after the other: to make one takes longer than most threads
    take, since each has a mapping of its own for its stack.
    """

    __slots__ = ("greenlet", "thread", "world")

    def __init__(self, world: World) -> None:
        self.world, self.greenlet = world, greenlet(self._carry, world.hub)
        self.thread: Spawned | None = None

    def _carry(self) -> None:
        while self.thread is not None:
            thread, self.thread = self.thread, None
            thread.run()
            del thread.process.strands[self]
            self.world.idle.append(self)
            self.greenlet.gr_context = None  # the next one begins with a context of its own
            self.world.hub.switch()


@dataclass(frozen=True)
class Happening:
    """A line of a world's history: when it happened by the true time, to whom, and what."""

    at_ns: int
    who: str
    what: str

    def __str__(self) -> str:
        return f"{self.at_ns / SECOND:14.6f}  {self.who:<12} {self.what}"


@dataclass(frozen=True)
class Faults:
    """How often what goes wrong in a world: once in so many chances; 0 is never.

    ``death``, ``freeze``, ``clock`` (it is set) and ``partition`` (of a process from the store) are
    once in so many events of a process; the others once in so many of what they befall: ``refused``
    (a transaction fails and changes nothing), ``lost_answer`` (it is stored, and who asked does not
    hear it), ``slow`` (the store or a call takes very long), ``failed``, ``hung`` and ``lost`` calls
    (before or after their effect).
    """

    death: int = 0
    freeze: int = 0
    clock: int = 0
    partition: int = 0
    refused: int = 0
    lost_answer: int = 0
    slow: int = 0
    failed: int = 0
    hung: int = 0
    lost: int = 0


CALM = Faults()

BEFALL = ("death", "freeze", "clock", "partition")
"""Those that befall a process, before one of its events."""


def drawn_faults(draw: Random) -> Faults:
    """Which faults a world has, and how often: of each kind about half of the worlds have none, so
    that those that hide each other are apart in some; one in twenty has none at all.
    """

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
class Fault:
    """One thing that went wrong; its number is that by which a history can be had without it.
    *where* names the event that the process was about to have.
    """

    number: int
    kind: str
    at_ns: int
    who: str
    where: str = ""


class World:
    """One simulated world, all of which follows from *seed*.

    *without* are numbers of faults that do not happen though they are drawn: so a history is made
    shorter.
    """

    def __init__(
        self, seed: int, faults: Faults = CALM, without: frozenset[int] = frozenset()
    ) -> None:
        self.seed, self.rates, self.without = seed, faults, without
        self.draw = Random(seed)  # noqa: S311 - nothing is to be guessed
        # of its own, so that a fault that is left out changes as little else as can be
        self.chance = Random(seed ^ 0x5EED)  # noqa: S311
        self.now = 0
        self.hub = getcurrent()
        self.here: Process | None = None  # whose greenlet runs, or whose transaction is made
        self.processes: list[Process] = []
        self.idle: list[Strand] = []  # that carry no thread now
        self.history: list[Happening] = []
        self.faults: list[Fault] = []
        self.events = 0
        self.calm_from = 0  # no fault is drawn after that
        self.closed = False
        # what is to come: when, its number, what, and of which process
        self.queue: list[tuple[int, int, Callable[[], None], Process | None]] = []
        self.numbers = count()
        self._drawn = 0
        self.running: asyncio.AbstractEventLoop | None = None  # as asyncio has it
        self._random = self.draw.random
        self._odds: dict[str, int] = {kind: rate for kind, rate in vars(faults).items() if rate}
        self._process_rates = {kind: self._odds[kind] for kind in BEFALL if kind in self._odds}
        rate = sum(1 / rate for rate in self._process_rates.values())
        self._mean = 1 / rate if rate else 0.0
        self._left = self._gap()

    # --- time ---

    def at(self, when: int, call: Callable[[], None], process: Process | None = None) -> None:
        """Have *call* made at *when*."""
        when = when if when > self.now else self.now
        heappush(self.queue, (when, next(self.numbers), call, process))

    def delay(self, least: int, most: int) -> int:
        """A drawn delay: as often between 1 and 2 as between 10 and 20."""
        return int(least * (most / least) ** self._random())

    def run(self, done: Callable[[], bool], until_ns: int) -> bool:
        """Let the world go on until *done*, which is asked now and then, or *until_ns*; whether it
        is done.
        """
        try:
            while not done():
                if not self._go_on(until_ns):
                    return done()
            return True
        finally:
            self.running = None
            _set_running_loop(None)

    def _go_on(self, until_ns: int) -> bool:
        """Let some events happen; whether there were any left until then."""
        queue, comes = self.queue, self._comes
        for _ in range(EVENTS_AT_ONCE):
            if not queue:
                return False
            now, number, call, process = heappop(queue)
            if now > until_ns:
                heappush(queue, (now, number, call, process))
                return False
            self.now = now
            if process is not None:
                left = self._left
                if left == 1 or process.frozen_until > now or not process.alive:
                    if not comes(process, call):
                        continue
                elif left:  # as `_comes` has it, which nearly no event has to ask
                    self._left = left - 1
            self.here = process
            self.events += 1
            call()
        return True

    def _comes(self, process: Process, call: Callable[[], None]) -> bool:
        """Whether an event of a process happens: not if that is dead, and later if it stands
        still. What befalls a process does so right before one of its events.
        """
        if self._left and process.alive and process.frozen_until <= self.now:
            self._left -= 1
            if not self._left and self.now < self.calm_from:
                self._disturb(process, call)
        if not process.alive:
            return False
        if process.frozen_until > self.now:
            self.at(process.frozen_until, call, process)
            return False
        return True

    # --- what goes wrong ---

    def _gap(self) -> int:
        if not self._mean:
            return 0
        return 1 + int(self.chance.expovariate(1 / self._mean))

    def _disturb(self, process: Process, call: Callable[[], None]) -> None:
        """Something happens to *process* right before an event of it, which is *call*."""
        self._left = self._gap()
        kinds = list(self._process_rates)
        weights = [1 / rate for rate in self._process_rates.values()]
        (kind,) = self.chance.choices(kinds, weights)
        size = self.chance.random()
        where = getattr(call, "func", call).__qualname__.rpartition(".")[2]
        if not self.happens(kind, process.name, where):
            return
        getattr(self, f"_{kind}")(process, size)

    def strikes(self, kind: str, who: str) -> bool:
        """Whether a fault of *kind* happens now to *who*."""
        rate = self._odds.get(kind)
        if rate is None or self.now >= self.calm_from or self.chance.random() * rate >= 1:
            return False
        return self.happens(kind, who)

    def happens(self, kind: str, who: str, where: str = "") -> bool:
        """Note that a fault is drawn; whether it happens, or is one of those that are left out."""
        self._drawn += 1
        if self._drawn in self.without:
            return False
        self.faults.append(Fault(self._drawn, kind, self.now, who, where))
        return True

    def _death(self, process: Process, _: float) -> None:
        self.kill(process)

    def _freeze(self, process: Process, size: float) -> None:
        seconds = _length(size)
        process.frozen_until = self.now + int(seconds * SECOND)
        self.tell(process.name, f"stands still for {seconds:.3f} s")

    def _clock(self, process: Process, size: float) -> None:
        seconds = (2 * size - 1) * CLOCK_SECONDS
        if abs(process.computer.offset_ns + int(seconds * SECOND)) > MOST_OFF_NS:
            seconds = -seconds
        process.computer.offset_ns += int(seconds * SECOND)
        self.tell(process.computer.name, f"its clock is set by {seconds:+.1f} s")

    def _partition(self, process: Process, size: float) -> None:
        seconds = _length(size)
        process.cut_off_until = self.now + int(seconds * SECOND)
        self.tell(process.name, f"does not reach the store for {seconds:.3f} s")

    def heal(self) -> None:
        """What was cut off is there again, clocks are set right; what stands still wakes in time."""
        for process in self.processes:
            process.cut_off_until = 0
            process.computer.offset_ns = 0

    # --- processes ---

    def keep_up(
        self,
        name: str,
        computer: Computer,
        main: Callable[[Process], Any],
        again_ns: tuple[int, int] = (SECOND // 10, 5 * SECOND),
    ) -> None:
        """Start a process, and another in its place whenever it ends, after a delay within
        *again_ns*.
        """

        def begin(delay_ns: int) -> None:
            process = self.start(name, computer, main, delay_ns)
            process.ended = lambda: begin(self.delay(*again_ns))

        begin(self.delay(1, SECOND))

    def start(
        self, name: str, computer: Computer, main: Callable[[Process], Any], delay_ns: int = 0
    ) -> Process:
        """Begin a process, whose main task is the coroutine that *main* gives."""
        process = Process(self, name, computer, len(self.processes) + 100)
        self.processes.append(process)

        def begin() -> None:
            self.tell(name, f"begins as process {process.pid}")
            process.loop.create_task(main(process))

        process.at(self.now + delay_ns, begin)
        return process

    def kill(self, process: Process) -> None:
        """End a process where it stands; nothing of it runs any more."""
        self.tell(process.name, "dies")
        self._end(process)

    def end(self, process: Process) -> None:
        """End a process whose work is done; called by itself, as the last thing."""
        self.tell(process.name, "ends")
        self._end(process)

    def _end(self, process: Process) -> None:
        process.alive, process.ended_ns = False, self.now
        if process.ended is not None:
            process.ended()

    def close(self) -> None:
        """End every process and take it apart, so that nothing of it runs when it is collected."""
        self.closed = True
        for process in self.processes:
            process.alive = False
            for which in (*(strand.greenlet for strand in process.strands), process.main):
                self._throw(which)
            process.loop.take_apart()
            process.strands.clear()
        for strand in self.idle:
            self._throw(strand.greenlet)
        self.idle.clear()

    def _throw(self, which: greenlet) -> None:
        if not which.dead:
            with suppress(BaseException):
                which.throw()

    async def travel(self) -> None:
        """For tools: the way of a request, or of its answer. The process may die on it; and as the
        faults of this world have it, what travels is late, is lost, or never comes.

        Raises:
            ConnectionError: If it was lost.
        """
        process = here()
        if self.strikes("hung", process.name):
            await process.loop.create_future()
        slow = self.strikes("slow", process.name)
        await asyncio.sleep(self.delay(*(SLOW_NS if slow else WAY_NS)) / SECOND)
        if self.strikes("lost", process.name):
            raise ConnectionError("the connection was lost")

    def tell(self, who: str, what: str) -> None:
        """Put a line into the history."""
        if self.closed:  # what is taken apart may say anything
            return
        self.history.append(Happening(self.now, who, what))


def _length(size: float) -> float:
    """For how many seconds something lasts, by a *size* from 0 to 1: as often for hundredths or
    tenths as for longer than a lease.
    """
    return float(0.01 * 100 ** (2 * size) if size < 0.5 else 2 * 4 ** (2 * size - 1))


class _Current:
    """The world that runs in this thread."""

    world: World | None = None


CURRENT = _Current()

WAY_NS = SECOND // 2_000, SECOND // 20
"""How long a request or an answer is on its way: from half a millisecond to 50."""

SLOW_NS = SECOND // 10, 20 * SECOND
"""The same for one that is late."""


class _Log(logging.Handler):
    """What processes log, as lines of the history."""

    def emit(self, record: logging.LogRecord) -> None:
        world = CURRENT.world
        if world is not None and world.here is not None and not world.closed:
            world.tell(world.here.name, f"logs: {record.getMessage()}")


@contextmanager
def running(world: World) -> Iterator[World]:
    """While *world* runs, `here` is a process of it and its processes log into its history;
    afterwards it is closed.
    """
    logger, log = logging.getLogger("nano_vm"), _Log(logging.WARNING)
    propagates, CURRENT.world = logger.propagate, world
    logger.propagate = False
    logger.addHandler(log)
    try:
        yield world
    finally:
        world.close()
        logger.removeHandler(log)
        logger.propagate, CURRENT.world = propagates, None


def here() -> Process:
    """The process whose code runs right now."""
    world = CURRENT.world
    if world is None or world.here is None:
        raise RuntimeError("this is only there inside of a simulated process")
    return world.here
