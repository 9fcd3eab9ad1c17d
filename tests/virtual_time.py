"""Time that passes only when nothing else can happen, and then at once: a test that waits for an
hour ends within milliseconds, and a busy machine makes no wait longer.

It is the time of one event loop, so it is for code that awaits; what waits in a thread, or for
another process, waits in real time.
"""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine
from typing import Any


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time."""

    def __init__(self) -> None:
        self.virtual = 1_000_000.0
        loop = self

        class Selector(selectors.DefaultSelector):
            def select(self, timeout: float | None = None) -> Any:
                events = super().select(0)
                if not events:
                    if timeout is None:
                        raise RuntimeError("the run waits for something that never comes")
                    loop.virtual += max(timeout, 0)
                return events

        super().__init__(Selector())

    def time(self) -> float:
        return self.virtual


class VirtualClock:
    """The time of the loop that runs, as the clock of a VM."""

    @staticmethod
    def monotonic_ns() -> int:
        return round(asyncio.get_running_loop().time() * 1e9)

    @staticmethod
    def time_ns() -> int:
        return 1_700_000_000_000_000_000 + round(asyncio.get_running_loop().time() * 1e9)

    sleep = staticmethod(asyncio.sleep)


def hold(seconds: float) -> None:
    """Hold the loop that runs, as a function does that computes for so long."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    loop.virtual += seconds


def in_virtual_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """The coroutine function *test* as a plain one, that runs it in a `VirtualLoop`."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(test(*args, **kwargs))

    return run
