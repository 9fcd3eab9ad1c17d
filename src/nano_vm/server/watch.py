"""Runs that somebody follows: one question to the store for all of them, some twenty times a second,
and a word to whoever follows one that has changed.

It works alike with several servers on one database, and with SQLite, where nothing says that
another process has written.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ..errors import StoreError
from ..store.protocol import RunState, TableStore
from ..visible import name

LOOK_SECONDS = 0.05
"""How soon a change is noticed: half of what an eye takes for at once."""

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
            self._looking = asyncio.create_task(self._look())
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
                asked = list(self._followers)
                try:
                    found = await asyncio.to_thread(self.store.standings, asked)
                except StoreError as error:
                    logger.warning("runs cannot be followed: %s", name(str(error)))
                    await asyncio.sleep(REST_SECONDS)
                    continue
                for run_id in asked:
                    self._tell(run_id, found.get(run_id))
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            self._looking = None

    def _tell(self, run_id: str, now: RunState | None) -> None:
        followers = self._followers.get(run_id)
        if followers is None or (now is not None and self._last.get(run_id) == now):
            return
        if now is not None:
            self._last[run_id] = now
        for queue in followers:
            queue.put_nowait(now)
