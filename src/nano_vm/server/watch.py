"""Runs that somebody follows: one question to the store for all of them, and a word to whoever follows
one that has changed.

It is asked some twenty times a second, and so works alike with several servers on one database, and
with SQLite, where nothing says that another process has written. Where the database tells that, it
is asked when it does, and four times a second in case a notice was lost.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from ..errors import StoreError
from ..store.protocol import Ear, RunState, TableStore
from ..visible import name

LOOK_SECONDS = 0.05
"""How soon a change is noticed: half of what an eye takes for at once."""

UNHEARD_SECONDS = 0.25
"""The same where a notice was lost, which a pooler of connections does to all of them."""

GAP_SECONDS = 0.01
"""Between two questions at least: writers that are many give as many notices."""

LISTEN_AGAIN_SECONDS = 5.0
"""After a connection that hears notices was lost."""

REST_SECONDS = 1.0
"""How long to leave a store alone that does not answer."""

logger = logging.getLogger("nano_vm.server")


class Watch:
    """Follows runs of *store*, for as long as anybody does."""

    def __init__(self, store: TableStore) -> None:
        self.store = store
        self._followers: dict[str, set[asyncio.Queue[RunState | None]]] = {}
        self._last: dict[str, RunState] = {}
        self._looking: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._ear: Ear | None = None
        self._socket = -1  # that of the ear, which knows it no longer once it is lost
        self._listen_at = 0.0  # by the clock of the event loop

    @asynccontextmanager
    async def following(self, run_id: str) -> AsyncIterator[asyncio.Queue[RunState | None]]:
        """A queue that gets how a run stands, at first and whenever that changes; None once it is
        there no longer.
        """
        queue: asyncio.Queue[RunState | None] = asyncio.Queue()
        self._followers.setdefault(run_id, set()).add(queue)
        last = self._last.get(run_id)
        if last is not None:
            queue.put_nowait(last)
        if self._looking is None:
            self._wake = asyncio.Event()  # of this event loop
            self._looking = asyncio.create_task(self._look())
        self._wake.set()
        try:
            yield queue
        finally:
            followers = self._followers[run_id]
            followers.discard(queue)
            if not followers:
                del self._followers[run_id]
                self._last.pop(run_id, None)

    def listeners(self) -> int:
        """How many follow a run now."""
        return sum(len(followers) for followers in list(self._followers.values()))

    async def _look(self) -> None:
        try:
            while self._followers:
                await self._listen()
                self._wake.clear()
                if await self._ask():
                    await self._rest()
                else:
                    await asyncio.sleep(REST_SECONDS)
        finally:
            self._deaf()
            self._looking, self._listen_at = None, 0.0

    async def _ask(self) -> bool:
        """Tell followers what has changed; whether the store answered."""
        asked = list(self._followers)
        try:
            found = await asyncio.to_thread(self.store.standings, asked)
        except Exception as error:  # noqa: BLE001 - else nobody would be told anything any more
            logger.warning("runs cannot be followed: %s", _told(error))
            return False
        for run_id in asked:
            self._tell(run_id, found.get(run_id))
        return True

    async def _rest(self) -> None:
        """Until something may have changed."""
        await asyncio.sleep(GAP_SECONDS)
        wait = (LOOK_SECONDS if self._ear is None else UNHEARD_SECONDS) - GAP_SECONDS
        with suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), wait)

    def _tell(self, run_id: str, now: RunState | None) -> None:
        followers = self._followers.get(run_id)
        if followers is None or (now is not None and self._last.get(run_id) == now):
            return
        if now is not None:
            self._last[run_id] = now
        for queue in followers:
            queue.put_nowait(now)

    # --- notices ---

    async def _listen(self) -> None:
        """Hear what the database tells, if it tells anything and this event loop can."""
        loop = asyncio.get_running_loop()
        if self._ear is not None or loop.time() < self._listen_at:
            return
        self._listen_at = loop.time() + LISTEN_AGAIN_SECONDS
        try:
            ear = await asyncio.to_thread(self.store.listened)
        except Exception as error:  # noqa: BLE001 - the store is asked more often then
            logger.warning("notices are not heard: %s", _told(error))
            return
        if ear is None:
            self._listen_at = math.inf
            return
        try:
            self._socket = ear.fileno()
            loop.add_reader(self._socket, self._hear)
        except NotImplementedError:  # that of Windows
            self._listen_at = math.inf
            ear.close()
        except Exception as error:  # noqa: BLE001 - of the driver, which may have lost it already
            logger.warning("notices are not heard: %s", _told(error))
            ear.close()
        else:
            self._ear = ear

    def _hear(self) -> None:
        assert self._ear is not None
        try:
            if self._ear.heard():
                self._wake.set()
        except Exception as error:  # noqa: BLE001 - of the driver; the store is asked more often then
            logger.warning("notices are heard no longer: %s", _told(error))
            self._deaf()

    def _deaf(self) -> None:
        if self._ear is not None:
            ear, self._ear = self._ear, None
            asyncio.get_running_loop().remove_reader(self._socket)
            ear.close()
        if self._listen_at != math.inf:
            self._listen_at = asyncio.get_running_loop().time() + LISTEN_AGAIN_SECONDS


def _told(error: Exception) -> str:
    return name(str(error) if isinstance(error, StoreError) else repr(error))
