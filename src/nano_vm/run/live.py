"""Runs under way in this process: the handle of one, and the ids that join it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextlib import suppress
from typing import Any

from .. import forking
from ..errors import VMError
from ..records.trace import Trace, TraceStatus
from ..values import canonical

REMEMBERED_RUNS = 10_000
"""Runs with an id given by the caller that are remembered, so that the same id joins and does not
repeat.
"""


class UnderWay(forking.Begins):
    """The runs under way in a process; a child that is forked has none of them."""

    def __init__(self, *held: Any) -> None:
        self.held = held
        forking.join(self)

    def after_fork_in_child(self) -> None:
        """Forget them, and leave their tasks to the parent's event loop."""
        for runs in self.held:
            forking.leave(list(runs), *(runs.values() if isinstance(runs, dict) else ()))
            runs.clear()


class Run:
    """A handle to a run: ``await run`` or ``await run.result()`` gives its trace."""

    def __init__(self, trace: Trace, execution: Any) -> None:
        self.trace = trace
        self.identity: bytes | None = None
        self.waiters = 0
        self.task = (
            asyncio.get_running_loop().create_task(execution) if execution is not None else None
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
            if task.get_loop() is not asyncio.get_running_loop():
                raise VMError(f"run {self.run_id!r} is under way in another event loop")
            await asyncio.wait([task])
        if task is not None and task.cancelled():
            if self.trace.status is TraceStatus.RUNNING:  # before its first step
                self.trace.status, self.trace.finished_ns = (
                    TraceStatus.CANCELLED,
                    self.trace.started_ns,
                )
                self.trace.error, self.trace.error_kind = (
                    "the run was cancelled before it began",
                    "cancelled",
                )
        elif task is not None:
            task.result()
        return self.trace

    async def joined(self) -> Trace:
        """As `result`; the run is cancelled when the last of those who wait here is."""
        self.waiters += 1
        try:
            return await self.result()
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


def call_in(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    """Make *call* in *loop*, from any thread; a loop that was closed has nothing to do any more."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(call)


def become(trace: Trace, other: Trace) -> None:
    """Make *trace* say what *other* does: somebody else drove the run."""
    trace.__dict__.update(other.__dict__)


def identity_of(trace: Trace) -> bytes:
    return canonical([trace.program_digest, trace.inputs])
