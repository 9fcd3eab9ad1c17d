"""Runs that somebody follows: one question to the store for all of them, and a word to whoever follows
one that has changed.

It is asked some twenty times a second, and so works alike with several servers on one database, and
with SQLite, where nothing says that another process has written. Where the database tells that, it
is asked when it does (`Notices`), and four times a second in case a notice was lost.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from ..store.protocol import RunState, TableStore
from .notices import Notices, told

LOOK_SECONDS = 0.05
"""How soon a change is noticed: half of what an eye takes for at once."""

UNHEARD_SECONDS = 0.25
"""The same where a notice was lost, which a pooler of connections does to all of them."""

GAP_SECONDS = 0.01
"""Between two questions at least: writers that are many give as many notices."""

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
        self.notices = Notices(store, lambda: self._wake.set())

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
                self.notices.listen()
                self._wake.clear()
                if await self._ask():
                    await self._rest()
                else:
                    await asyncio.sleep(REST_SECONDS)
        finally:
            self.notices.close()
            self._looking = None

    async def _ask(self) -> bool:
        """Tell followers what has changed; whether the store answered."""
        asked = list(self._followers)
        try:
            found = await asyncio.to_thread(self.store.standings, asked)
        except Exception as error:  # noqa: BLE001 - else nobody would be told anything any more
            logger.warning("runs cannot be followed: %s", told(error))
            return False
        for run_id in asked:
            self._tell(run_id, found.get(run_id))
        return True

    async def _rest(self) -> None:
        """Until something may have changed."""
        await asyncio.sleep(GAP_SECONDS)
        wait = (UNHEARD_SECONDS if self.notices.heard else LOOK_SECONDS) - GAP_SECONDS
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
