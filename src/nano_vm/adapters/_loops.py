"""One client for each event loop.

A pool of connections belongs to the loop that opened them, and a VM may be used from several: each
`run_sync` is one.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, get_running_loop
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class PerLoop(Generic[T]):
    """The client of the running loop: opened on first use, closed with its loop or by `aclose`.

    An asynchronous generator holds each client, since `asyncio.run` finishes those before it closes
    its loop. So no connection outlives its loop, nobody has to remember `aclose`, and no
    ``ResourceWarning`` is left behind.
    """

    def __init__(self, open_: Callable[[], T], close: Callable[[T], Awaitable[object]]) -> None:
        self._open = open_
        self._close = close
        self._held: dict[AbstractEventLoop, tuple[T, AsyncGenerator[T, None]]] = {}

    async def get(self) -> T:
        loop = get_running_loop()
        if loop not in self._held:
            for other in list(self._held):
                if other.is_closed():  # by hand, without asyncio.run
                    self._held.pop(other, None)
            holder = self._hold(loop)
            # suspends nothing: no second caller comes between
            self._held[loop] = await anext(holder), holder
        return self._held[loop][0]

    async def aclose(self) -> None:
        """Close the running loop's client; the next `get` opens another."""
        if (held := self._held.get(get_running_loop())) is not None:
            await held[1].aclose()

    async def _hold(self, loop: AbstractEventLoop) -> AsyncGenerator[T, None]:
        client = self._open()
        try:
            yield client
        finally:
            self._held.pop(loop, None)
            await self._close(client)
