"""What happens in a run, as server-sent events: a record each, by its number, so that a stream that
was cut goes on where it ended, at whichever server of the database.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from ..records.record import step_of
from ..records.secrecy import Levels
from ..store.protocol import RunState
from ..store.records import ENDED, STEP, Row
from ..values import UNSET
from .scope import Scope
from .shapes import line_bytes
from .watch import Watch

ROWS_AT_ONCE = 200
"""Records that are read at once, so that a long run does not come as one piece."""

KEEP_ALIVE_SECONDS = 15.0
"""How often a stream says something: proxies cut those that are silent for a minute."""


async def stream(
    watch: Watch,
    scope: Scope,
    run_id: str,
    after: int,
    *,
    content: bool,
    levels: Levels,
    allowed: Callable[[], bool],
) -> AsyncIterator[bytes]:
    """The records of a run that follow number *after*, and how it stands, until it has ended or who
    asks is no longer *allowed*, which is asked before anything is sent.
    """
    async with watch.following(run_id) as queue:
        yield b"retry: 1000\n\n"
        while True:
            try:
                standing = await asyncio.wait_for(queue.get(), KEEP_ALIVE_SECONDS)
            except TimeoutError:
                if not await asyncio.to_thread(allowed):
                    return
                yield b": still here\n\n"
                continue
            while not queue.empty():
                standing = queue.get_nowait()
            if standing is None or not await asyncio.to_thread(allowed):
                return
            while after + 1 < standing.rows:
                rows = await asyncio.to_thread(
                    scope.store.rows_after, run_id, after, limit=ROWS_AT_ONCE
                )
                if not rows:
                    break
                for row in rows:
                    after += 1
                    yield _event("record", _shown(after, row, content, levels), after)
            yield _event("standing", _standing(standing))
            if standing.status in ENDED:
                yield _event("end", {"status": standing.status})
                return


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
