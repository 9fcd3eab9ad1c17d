"""The event loop of a simulated process: asyncio's tasks and futures, on a clock that the world
moves. What is ready runs first in, first out, as asyncio promises; when something becomes ready is
the world's to say.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from greenlet import GreenletExit

if TYPE_CHECKING:
    from .world import Process

THREAD_NS = 5_000, 200_000
"""How long a thread takes to begin, and its answer to arrive: from 5 to 200 microseconds."""


class Ready:
    """What a loop calls once, unless it is cancelled: an `asyncio.Handle` in what is asked of one."""

    __slots__ = ("__weakref__", "args", "callback", "context", "off")

    def __init__(
        self,
        callback: Callable[..., Any],
        args: tuple[Any, ...],
        context: contextvars.Context | None,
    ) -> None:
        self.callback, self.args, self.off = callback, args, False
        self.context = context if context is not None else contextvars.copy_context()

    def cancel(self) -> None:
        """Let it not be called."""
        self.off = True

    def cancelled(self) -> bool:
        """Whether it is not to be called."""
        return self.off


class SimulatedLoop:
    """Runs what is ready of one process whenever the world wakes it. It has what asyncio's tasks,
    futures and waits ask of a loop, and nothing for files and sockets.
    """

    def __init__(self, process: Process) -> None:
        self.process = process
        self.asyncio = cast(asyncio.AbstractEventLoop, self)
        self._ready: deque[Ready] = deque()
        self._tasks: list[asyncio.Task[Any]] = []
        self._called = False  # whether the world is to wake it
        self._idle = True  # whether it waits for that, and not in the middle of a call

    def serve(self) -> None:
        """Run what is ready, for ever."""
        ready, world = self._ready, self.process.world
        hub = world.hub
        while True:
            while ready:
                due = ready.popleft()
                if due.off:
                    continue
                try:
                    due.context.run(due.callback, *due.args)
                except (SystemExit, KeyboardInterrupt):
                    raise
                except BaseException as error:  # noqa: BLE001 - as asyncio has it
                    self.call_exception_handler(
                        {"message": "a callback raised", "exception": error}
                    )
                if world.closed:  # a task has kept what was to end this greenlet
                    return
            self._idle = True
            hub.switch()
            if world.closed:
                return
            self._idle = False

    def _turn(self) -> None:
        self._called = False
        if self._idle and self._ready:
            self.process.resume(self.process.main)

    def call_soon(
        self,
        callback: Callable[..., Any],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> Ready:
        soon = Ready(callback, args, context)
        self._ready.append(soon)
        if not self._called and self._idle:
            self._called = True
            self.process.at(self.process.world.now, self._turn)
        return soon

    call_soon_threadsafe = call_soon

    def call_later(
        self,
        delay: float,
        callback: Callable[..., Any],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> Ready:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[..., Any],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> Ready:
        later = Ready(callback, args, context)

        def due() -> None:
            if not later.off:  # one that was cancelled is passed over when it is due
                self._ready.append(later)
                self._turn()

        self.process.after(when - self.time(), due)
        return later

    def time(self) -> float:
        return self.process.monotonic_ns() / 1e9

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self.asyncio)

    def create_task(
        self,
        coro: Coroutine[Any, Any, Any],
        *,
        name: str | None = None,
        context: contextvars.Context | None = None,
    ) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(
            coro, loop=self.asyncio, name=name or "task", context=context
        )
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        self._tasks.append(task)
        return task

    def run_in_executor(
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """As `asyncio.to_thread` has it: *func* in a thread of its own."""
        future = self.create_future()
        world = self.process.world

        def work() -> None:
            value: Any = None
            error: BaseException | None = None
            try:
                value = func(*args)
            except GreenletExit:
                raise
            except BaseException as raised:  # noqa: BLE001 - handed to who waits, whatever it is
                error = raised

            def answer() -> None:
                if future.done():
                    return
                if error is not None:
                    future.set_exception(error)
                else:
                    future.set_result(value)

            self.process.at(world.now + world.delay(*THREAD_NS), answer)

        self.process.spawn(work, world.delay(*THREAD_NS))
        return future

    def take_apart(self) -> None:
        """Close what its tasks are in the middle of, whatever they say to that."""
        while self._tasks:
            task = self._tasks.pop()
            if not task.done():
                with suppress(BaseException):
                    task.get_coro().close()
        self._ready.clear()

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        told = f"{context['message']}: {error!r}" if error is not None else context["message"]
        self.process.world.tell(self.process.name, f"its event loop says: {told}")
