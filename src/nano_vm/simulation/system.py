"""What a simulated process gets in the place of its operating system: threads that are greenlets,
random numbers of the world's seed, clocks that are wrong, other processes of the same world.

One object serves all processes: each call is for the one whose code runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from greenlet import GreenletExit

from ..run.host import Threads
from ..run.system import Event, System, Thread
from ..run.system import Process as Identity
from .loop import THREAD_NS
from .world import CURRENT, Process, Waiter, here

T = TypeVar("T")

SPACE = "simulated"


class SimulatedLock:
    """A lock; who waits for it gets it in turn."""

    def __init__(self) -> None:
        self._held = False
        self._waiters: list[Waiter] = []

    def __enter__(self) -> bool:
        if self._held:
            waiter = Waiter(here())
            self._waiters.append(waiter)
            waiter.wait()  # it is handed over, and never free in between
        self._held = True
        return True

    def __exit__(self, *_: object) -> None:
        if self._waiters:
            waiter = self._waiters.pop(0)
            waiter.process.at(waiter.process.world.now, waiter.wake)
        else:
            self._held = False


class SimulatedEvent:
    """As `threading.Event`."""

    def __init__(self) -> None:
        self._set = False
        self._waiters: list[Waiter] = []

    def set(self) -> None:
        self._set = True
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            process = waiter.process
            process.at(process.world.now + process.world.delay(*THREAD_NS), waiter.wake)

    def clear(self) -> None:
        self._set = False

    def is_set(self) -> bool:
        return self._set

    def wait(self, timeout: float | None = None) -> bool:
        if not self._set:
            process = here()
            waiter = Waiter(process)
            self._waiters.append(waiter)
            if timeout is not None:
                process.after(timeout, waiter.wake)
            waiter.wait()
            if waiter in self._waiters:
                self._waiters.remove(waiter)
        return self._set


class SimulatedThreads(Threads):
    """Threads for sync tools, of the process that calls one."""

    def submit(self, call: Callable[[], Any]) -> Future[Any]:
        future: Future[Any] = Future()

        def work() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = call()
            except GreenletExit:
                raise
            except BaseException as error:  # noqa: BLE001 - handed to the waiter, whatever it is
                future.set_exception(error)
            else:
                future.set_result(result)

        process = here()
        process.spawn(work, process.world.delay(*THREAD_NS))
        return future


class SimulatedSystem(System):
    """The system of whichever simulated process runs."""

    def __init__(self) -> None:
        """Nothing is kept here: `leases` are those of a process."""

    @property
    def leases(self) -> set[str]:  # type: ignore[override]
        return here().leases

    def process(self) -> Identity:
        process = here()
        computer = process.computer
        return Identity(computer.name, computer.boot, SPACE, process.pid, process.born)

    def boot_ns(self) -> int:
        return _monotonic_ns()

    def random(self) -> float:
        return here().world.draw.random()

    def random_bytes(self, count: int) -> bytes:
        return here().world.draw.randbytes(count)

    def run_id(self) -> str:
        return self.random_bytes(16).hex()

    def lock(self) -> AbstractContextManager[Any]:
        return SimulatedLock()

    def event(self) -> Event:
        return SimulatedEvent()

    def thread(self, work: Callable[[], None], name: str) -> Thread:
        process = here()
        return process.spawn(work, process.world.delay(*THREAD_NS))

    def tool_threads(self, size: int) -> Threads:
        return SimulatedThreads(size)

    def sleep(self, seconds: float) -> None:
        here().sleep(seconds)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """As in a thread: what *work* awaits lets this thread wait, and nothing else."""
        try:
            work.send(None)
        except StopIteration as ended:
            return ended.value  # type: ignore[no-any-return]
        raise RuntimeError("what a thread awaits has to be there when it comes back")

    def born(self, pid: int) -> str | None:
        found = self._process(pid)
        return found.born if found is not None and found.alive else None

    def is_there(self, pid: int) -> bool:
        found = self._process(pid)
        return found is not None and found.alive

    def _process(self, pid: int) -> Process | None:
        process = here()
        found = next((p for p in process.world.processes if p.pid == pid), None)
        return found if found is not None and found.computer is process.computer else None


SYSTEM = SimulatedSystem()


class SimulatedClock:
    """The clocks of whichever simulated process runs."""

    def __init__(self) -> None:
        # attributes, and not methods: who keeps one finds the same object again
        self.time_ns = _time_ns
        self.monotonic_ns = _monotonic_ns

    async def sleep(self, seconds: float) -> None:
        """Wait in the event loop of the process."""
        await asyncio.sleep(seconds)


def _time_ns() -> int:
    process = here()
    return process.computer.time_ns(process.world.now)


def _monotonic_ns() -> int:
    world = CURRENT.world
    assert world is not None
    process = world.here
    assert process is not None
    return process.computer.boot_ns(world.now)


CLOCK = SimulatedClock()
