"""Runs that somebody follows: one question to the store for all of them, and a word to whoever follows
one that has changed.

It is asked some twenty times a second, and so works alike with several servers on one database, and
with SQLite, where nothing says that another process has written. Where the database tells that, it
is asked when it does (`Notices`), and four times a second in case a notice was lost.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress

from ..store.protocol import RunState, TableStore
from .credentials import Right, holding
from .notices import Notices, told
from .rows import Tables

LOOK_SECONDS = 0.05
"""How soon a change is noticed: half of what an eye takes for at once."""

UNHEARD_SECONDS = 0.25
"""The same where a notice was lost, which a pooler of connections does to all of them."""

GAP_SECONDS = 0.01
"""Between two questions at least: writers that are many give as many notices."""

REST_SECONDS = 1.0
"""How long to leave a store alone that does not answer."""

KEEP_ALIVE_SECONDS = 15.0
"""How often whoever follows a run hears of it at least: proxies cut streams that are silent for a
minute.
"""

logger = logging.getLogger("nano_vm.server")


Told = asyncio.Queue[RunState | None]
"""How a run stands, for whoever follows it; None is the last, where it is there no longer or they may
follow it no longer.
"""


class Watch:
    """Follows runs of *store*, for as long as anybody does."""

    def __init__(self, store: TableStore) -> None:
        self.store = store
        self.tables = Tables(store)
        self.notices = Notices(store, lambda: self._wake.set())
        self._followers: dict[str, dict[Told, Right | None]] = {}
        self._last: dict[str, RunState] = {}
        self._looking: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._all_due = 0.0  # by the clock of the event loop

    @asynccontextmanager
    async def following(self, run_id: str, right: Right | None) -> AsyncIterator[Told]:
        """A queue that gets how a run stands, at first, whenever that changes, and every
        `KEEP_ALIVE_SECONDS`; each time only if *right* is still so, where there is one.
        """
        queue: Told = asyncio.Queue()
        self._followers.setdefault(run_id, {})[queue] = right
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
            self._leave(run_id, queue)

    def listeners(self) -> int:
        """How many follow a run now."""
        return sum(len(followers) for followers in list(self._followers.values()))

    async def _look(self) -> None:
        self._all_due = asyncio.get_running_loop().time() + KEEP_ALIVE_SECONDS
        try:
            while self._followers:
                self.notices.listen()
                self._wake.clear()
                try:
                    await self._ask()
                except Exception as error:  # noqa: BLE001 - else nobody would be told anything any more
                    logger.warning("runs cannot be followed: %s", told(error))
                    await asyncio.sleep(REST_SECONDS)
                else:
                    await self._rest()
        finally:
            self.notices.close()
            self._looking = None

    async def _ask(self) -> None:
        """Tell followers what has changed."""
        asked = list(self._followers)
        found = await asyncio.to_thread(self.store.standings, asked)
        changed = [run_id for run_id in asked if self._is_news(run_id, found.get(run_id))]
        now = asyncio.get_running_loop().time()
        if now >= self._all_due:
            changed, self._all_due = asked, now + KEEP_ALIVE_SECONDS
        if not changed:
            return
        lost = await self._lost(changed)
        for run_id in changed:
            self._tell(run_id, found.get(run_id), lost)

    def _is_news(self, run_id: str, now: RunState | None) -> bool:
        return now is None or now != self._last.get(run_id)

    async def _lost(self, run_ids: Iterable[str]) -> set[Right]:
        """The rights of who follows these runs that are so no longer."""
        rights = {
            right
            for run_id in run_ids
            for right in self._followers.get(run_id, {}).values()
            if right is not None
        }
        return rights - await asyncio.to_thread(self._holding, rights) if rights else rights

    def _holding(self, rights: set[Right]) -> set[Right]:
        with self.tables.reading() as rows:
            return holding(rows, rights)

    def _tell(self, run_id: str, now: RunState | None, lost: set[Right]) -> None:
        followers = self._followers.get(run_id)
        if followers is None:
            return
        if now is not None:
            self._last[run_id] = now
        for queue, right in list(followers.items()):
            gone = now is None or right in lost
            queue.put_nowait(None if gone else now)
            if gone:
                self._leave(run_id, queue)

    def _leave(self, run_id: str, queue: Told) -> None:
        followers = self._followers.get(run_id, {})
        followers.pop(queue, None)
        if not followers:
            self._followers.pop(run_id, None)
            self._last.pop(run_id, None)

    async def _rest(self) -> None:
        """Until something may have changed."""
        await asyncio.sleep(GAP_SECONDS)
        wait = (UNHEARD_SECONDS if self.notices.heard else LOOK_SECONDS) - GAP_SECONDS
        with suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), wait)
