"""Runs under way in this process: the handle of one, and the ids that join it."""

from __future__ import annotations

import asyncio
import contextvars
from collections import OrderedDict
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from .. import forking
from ..errors import VMError
from ..language.program import Program
from ..machine.faults import CANCELLED_UNBEGUN
from ..machine.machine import Machine
from ..records.recording import Recording
from ..records.status import RUNNING, TraceStatus
from ..records.trace import Trace
from ..values import canonical
from .driver import Driver, Journal
from .host import Host
from .kept import Kept
from .observers import Notifier
from .shared import Shared

REMEMBERED_RUNS = 10_000
"""Runs with an id given by the caller that are remembered, so that the same id joins and does not
repeat.
"""


@dataclass(slots=True)
class Begun:
    """A run before its first step, and where its calls go; one that was refused has neither machine
    nor host.
    """

    program: Program
    trace: Trace
    machine: Machine | None = None
    host: Host | None = None


class Run:
    """A handle to a run: ``await run`` or ``await run.result()`` gives its trace.

    Examples:
        >>> import asyncio
        >>> from nano_vm import ExecutionVM, Program
        >>> program = Program.from_yaml("{name: hello, steps: [{id: a, type: set, values: {x: 1}}]}")
        >>> async def main():
        ...     run = ExecutionVM().start(program, run_id="hello-1")
        ...     trace = await run
        ...     return run.run_id, trace.output
        >>> asyncio.run(main())
        ('hello-1', {'x': 1})
    """

    __slots__ = ("__weakref__", "task", "trace", "waiters")

    def __init__(self, trace: Trace, execution: Any) -> None:
        self.trace = trace
        self.waiters = 0
        self.task = (
            asyncio.get_running_loop().create_task(execution, name=trace.run_id)
            if execution is not None
            else None
        )

    @property
    def run_id(self) -> str:
        """The run's identity."""
        return self.trace.run_id

    @property
    def status(self) -> TraceStatus:
        """How the run stands."""
        return self.trace.status

    async def result(self) -> Trace:
        """The trace, once the run has ended; also after `cancel`.

        Raises:
            VMError: If the run is under way in another event loop.
        """
        task = self.task
        if task is not None and not task.done():
            await _End(self, task)
        return self._read()

    def _read(self) -> Trace:
        """The trace, whose run has ended."""
        task = self.task
        if task is not None and task.cancelled():
            recording = self.trace.recording
            if recording.status is RUNNING:  # before its first step
                recording.status = TraceStatus.CANCELLED
                recording.finished_ns = recording.started_ns
                recording.error, recording.error_kind = CANCELLED_UNBEGUN, "cancelled"
                recording.changed()
        elif task is not None:
            task.result()
            self.task = None  # it holds more memory than the trace of a short run
        return self.trace

    async def joined(self) -> Trace:
        """As `result`; the run is cancelled when the last of those who wait here is."""
        self.waiters += 1
        task = self.task
        try:
            if task is not None and not task.done():
                # one turn is all that a run takes whose calls wait for nothing, and half the price
                # of being woken at its end, which comes in the turn after that
                await asyncio.sleep(0)
                if not task.done():
                    await _End(self, task)
            return self._read()
        except asyncio.CancelledError:
            if self.waiters == 1:
                await self.cancel()
            raise
        finally:
            self.waiters -= 1

    async def cancel(self) -> Trace:
        """Stop the run and give its trace; what was done is undone first. A run that has ended
        stays as it is.
        """
        if self.task is not None and not self.task.done():
            self.task.cancel()
        return await self.result()

    def __await__(self) -> Generator[Any, None, Trace]:
        return self.result().__await__()


class _End:
    """The end of the *task* of *run*, however it ends, to be awaited by any number of others:
    whoever stops waiting leaves it alone.

    A future to asyncio, which wakes the waiter when the task itself would: `asyncio.wait` takes one
    turn of the event loop more, and four times as long.
    """

    __slots__ = ("_asyncio_future_blocking", "cancelled", "context", "run", "task", "wake")
    wake: Callable[[Any], object]
    context: contextvars.Context | None

    def __init__(self, run: Run, task: asyncio.Task[Any]) -> None:
        self.run, self.task = run, task
        self.cancelled = False  # whether somebody asked for the waiter's end
        self._asyncio_future_blocking = False

    def __await__(self) -> Generator[Any, None, None]:
        self._asyncio_future_blocking = True  # as `asyncio.isfuture` knows one
        try:
            yield self
        except asyncio.CancelledError:  # the waiter's, or that with which the task itself ended
            if self.cancelled or not self.task.cancelled():
                raise
        except RuntimeError:  # asyncio's, since a task waits for what is of its own loop only
            raise VMError(f"run {self.run.run_id!r} is under way in another event loop") from None

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self.task.get_loop()

    def add_done_callback(
        self, wake: Callable[[Any], object], *, context: contextvars.Context | None = None
    ) -> None:
        self.wake, self.context = wake, context
        self.task.add_done_callback(wake, context=context)

    def cancel(self, msg: Any = None) -> bool:
        """The waiter is cancelled: it is woken, and the task goes on."""
        first, self.cancelled = not self.cancelled, True
        if not first or not self.task.remove_done_callback(self.wake):
            return False  # it is being woken already
        self.get_loop().call_soon(self.wake, self, context=self.context)
        return True

    def result(self) -> None:
        """What the waiter is woken with."""
        if self.cancelled:
            raise asyncio.CancelledError


class LiveRuns(forking.Begins):
    """The runs with an id given by the caller, by that id; those of a store (*stored*) while they
    run. A child that is forked has none of them.
    """

    def __init__(self, *, stored: bool) -> None:
        self.stored = stored
        self._known: OrderedDict[str, Run] = OrderedDict()
        forking.join(self)

    def after_fork_in_child(self) -> None:
        """Forget them, and leave their tasks to the parent's event loop."""
        forking.leave(list(self._known), *self._known.values())
        self._known.clear()

    def get(self, run_id: str) -> Run | None:
        """The run of this id, if it is known."""
        known = self._known.get(run_id)
        if known is not None and self.stored and (known.task is None or known.task.done()):
            return None  # what forgets it comes a turn later
        return known

    def remember(self, run: Run) -> None:
        """Keep a run by its id; beyond `REMEMBERED_RUNS` the oldest that has ended is forgotten.
        What a store has is kept while it runs.
        """
        if self.stored and run.task is None:  # refused: another start asks again
            return
        known = self._known
        known[run.run_id] = run
        if self.stored and run.task is not None:
            run.task.add_done_callback(lambda _: self._forget_ended(run))
        if len(known) > REMEMBERED_RUNS:
            for run_id, old in known.items():
                if old.trace.recording.status is not RUNNING:
                    del known[run_id]
                    break

    def _forget_ended(self, run: Run) -> None:
        """Know *run* no longer; another of its id may have been started since."""
        if self._known.get(run.run_id) is run:
            del self._known[run.run_id]


async def execute(
    host: Host,
    recording: Recording,
    machine: Machine,
    notifier: Notifier | None = None,
    journal: Journal | None = None,
    shared: Shared | None = None,
    kept: Kept | None = None,
) -> bool:
    """Drive *machine* to its end and complete its *recording*; whether it was cancelled from
    outside.
    """
    plain = notifier is None and journal is None and shared is None and kept is None
    driver = Driver.of(host) if plain else Driver(host, notifier, journal, shared, kept)
    started = recording.started_ns
    lane = driver.lane(machine, started if journal is None else driver.now())
    try:
        cancelled = await driver.drive(machine, lane, started)
        if shared is not None:
            await shared.end()
        if kept is not None:
            await kept.end()
        return cancelled
    finally:
        if shared is not None:
            shared.leave()
        driver.left(machine, lane, recording)


async def observed(
    host: Host,
    recording: Recording,
    machine: Machine,
    notifier: Notifier,
    journal: Journal | None,
    shared: Shared | None = None,
    kept: Kept | None = None,
) -> bool:
    """`execute` for a run that is not stored, with its beginning and its end observed."""
    notifier.run_started()
    try:
        return await execute(host, recording, machine, notifier, journal, shared, kept)
    finally:
        notifier.run_left()


def call_in(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    """Make *call* in *loop*, from any thread; a loop that was closed has nothing to do any more."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(call)


def identity_of(trace: Trace) -> bytes:
    return canonical([trace.program_digest, trace.inputs])
