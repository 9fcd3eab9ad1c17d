"""What happens in a run, as server-sent events: a record each, by its number, so that a stream that
was cut goes on where it ended, at whichever server of the database.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

from ..records.record import step_of
from ..records.secrecy import Levels
from ..store.protocol import RunState, TableStore
from ..store.records import ENDED, STEP, Row
from ..values import UNSET
from .credentials import Right
from .shapes import line_bytes
from .watch import Told, Watch

ROWS_AT_ONCE = 200
"""Records that are read at once, so that a long run does not come as one piece."""


class Wanted(NamedTuple):
    """Records of a run that follow number *after*, of the *rows* that it has."""

    run_id: str
    after: int
    rows: int
    content: bool


class Events:
    """What happens in runs of *store*. Records that many want at a time are read and written as text
    once.
    """

    def __init__(self, store: TableStore) -> None:
        self.store = store
        self.watch = Watch(store)
        self._made: dict[Wanted, asyncio.Task[tuple[bytes, int]]] = {}

    async def stream(
        self, run_id: str, after: int, right: Right, *, content: bool, levels: Levels
    ) -> AsyncIterator[bytes]:
        """The records of a run that follow number *after*, and how it stands, until it has ended or
        *right* is so no longer, which is asked before anything is sent, and of a backlog whenever
        there was a word while a part of it was.
        """
        said: RunState | None = None
        async with self.watch.following(run_id, right) as queue:
            yield b"retry: 1000\n\n"
            while (standing := await _latest(queue)) is not None:
                if standing == said:
                    yield b": still here\n\n"
                    continue
                is_latest = True
                while is_latest and after + 1 < standing.rows:
                    wanted = Wanted(run_id, after, standing.rows, content)
                    records, last = await self._records(wanted, levels)
                    if last == after:
                        break
                    after = last
                    yield records
                    is_latest = queue.empty()
                if not is_latest:
                    continue
                said = standing
                yield _event("standing", _standing(standing))
                if standing.status in ENDED:
                    yield _event("end", {"status": standing.status})
                    return

    async def _records(self, wanted: Wanted, levels: Levels) -> tuple[bytes, int]:
        """Records as events, and the number of the last."""
        made = self._made.get(wanted)
        if made is None:
            work = asyncio.to_thread(self._read, wanted, levels)
            made = self._made[wanted] = asyncio.create_task(work)
            made.add_done_callback(lambda _: self._made.pop(wanted))
        return await asyncio.shield(made)  # others may wait for it too

    def _read(self, wanted: Wanted, levels: Levels) -> tuple[bytes, int]:
        run_id, after, count, content = wanted
        most = min(ROWS_AT_ONCE, count - after - 1)
        rows = self.store.rows_after(run_id, after, limit=most)
        records = [
            _event("record", _shown(number, row, content, levels), number)
            for number, row in enumerate(rows, after + 1)
        ]
        return b"".join(records), after + len(rows)


async def _latest(queue: Told) -> RunState | None:
    """How the run stands, once there is anything to say of it."""
    standing = await queue.get()
    while not queue.empty():
        standing = queue.get_nowait()
    return standing


def _standing(standing: RunState) -> dict[str, Any]:
    return {"status": standing.status, "records": standing.rows}


def _shown(number: int, row: Row, content: bool, levels: Levels) -> dict[str, Any]:
    """A record as JSON; what was said only with *content*, and of that what pages accept. Times are milliseconds since 1970."""
    shown: dict[str, Any] = {
        "seq": number,
        "kind": "step" if row.kind == STEP else "begun",
        "frame": row.frame,
        "path": row.path,
        "type": row.type,
        "status": None if row.status is None else row.status.value,
        "started": row.started_ns / 1e6,
        "finished": row.finished_ns / 1e6 if row.finished_ns else None,
        "model": row.model,
        "usage": None if row.usage is None else row.usage.to_dict(),
    }
    if content:
        step_id = step_of(row.path)
        if row.request is not UNSET:
            shown["request"] = levels.shown("pages", step_id, "request", row.request)
        if row.output is not UNSET:
            shown["output"] = levels.shown("pages", step_id, "output", row.output)
    return shown


def _event(kind: str, data: dict[str, Any], number: int | None = None) -> bytes:
    mark = f"id: {number}\n".encode() if number is not None else b""
    return mark + b"event: " + kind.encode() + b"\ndata: " + line_bytes(data) + b"\n\n"
