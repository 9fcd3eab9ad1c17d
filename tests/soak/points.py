"""Instants at which a process kills or stops itself: put around store and journal from here, so
that the package needs no hooks.

Counters lie in memory that the processes of a campaign share, so that those of a killed one are not
lost.
"""

from __future__ import annotations

import mmap
import os
import signal
from collections.abc import Sequence
from typing import Any

from nano_vm.run.durable.journal import Journal
from nano_vm.store.protocol import Claim
from nano_vm.store.records import INTENT, STEP, Message
from nano_vm.store.sql.database import Connection
from nano_vm.store.sql.store import SqlStore

NAMES = (
    "intent:before", "intent:after",
    "call:before", "call:during", "call:after",
    "model:before", "model:during", "model:after",
    "outcome:before", "outcome:after",
    "end:before", "end:after",
    "transaction:begun", "transaction:between", "commit:before", "commit:after",
    "submit:before", "submit:after", "claim:before", "claim:after", "send:before", "send:after",
)  # fmt: skip
"""Before and after an intent, an outcome or an end: as it is handed to the store, and when that
acknowledged it.
"""

SLOTS = 2 * len(NAMES)


class Shared:
    """Counters in shared memory: how often each point was passed, and how often a process died
    there.
    """

    def __init__(self) -> None:
        self._cells = memoryview(mmap.mmap(-1, 8 * SLOTS)).cast("Q")

    def add(self, name: str, died: bool = False) -> None:
        """Count one; processes that do so at the same instant may lose one."""
        self._cells[NAMES.index(name) + (len(NAMES) if died else 0)] += 1

    def passed(self) -> dict[str, int]:
        """How often each point was passed."""
        return dict(zip(NAMES, self._cells[: len(NAMES)], strict=True))

    def died(self) -> dict[str, int]:
        """How often a process died at each."""
        return dict(zip(NAMES, self._cells[len(NAMES) :], strict=True))


class Points:
    """The points of one process. At the *number*-th pass of *target* it sends itself *how*."""

    def __init__(
        self,
        shared: Shared,
        target: str | None = None,
        number: int = 1,
        how: signal.Signals = signal.SIGKILL,
    ) -> None:
        self.shared, self.target, self.left, self.how = shared, target, number, how

    def at(self, name: str) -> None:
        """Pass a point."""
        self.shared.add(name)
        if name == self.target:
            self.left -= 1
            if self.left == 0:
                self.shared.add(name, died=True)
                os.kill(os.getpid(), self.how)

    def patch(self, kept: Any) -> None:
        """Put the points around store and journal; *kept* is called with each row that the store
        acknowledged.
        """
        at = self.at
        append, begin, commit, many = (
            Journal.append,
            Connection.begin,
            Connection.commit,
            Connection.many,
        )
        create, claim, decide = SqlStore.begin, SqlStore.claim, SqlStore.decide

        async def append_at(
            self: Journal, rows: Sequence[Any], update: Any = None, *more: Any
        ) -> None:
            names = [
                name
                for name, there in (
                    ("outcome", any(row.kind == STEP for row in rows)),
                    ("intent", any(row.kind == INTENT for row in rows)),
                    ("end", update is not None),
                )
                if there
            ]
            for name in names:
                at(f"{name}:before")
            await append(self, list(rows), update, *more)
            for row in rows:
                kept(self.run.run_id, row)
            for name in names:
                at(f"{name}:after")

        def begin_at(self: Connection, *, write: bool = True) -> Any:
            identity = begin(self, write=write)
            self.writes = write  # type: ignore[attr-defined]
            if write:
                at("transaction:begun")
            return identity

        def commit_at(self: Connection) -> None:
            if self.writes:  # type: ignore[attr-defined]
                at("commit:before")
            commit(self)
            if self.writes:  # type: ignore[attr-defined]
                at("commit:after")

        def many_at(self: Connection, statement: str, values: Sequence[Sequence[Any]]) -> None:
            many(self, statement, values)
            at("transaction:between")

        async def create_at(self: SqlStore, run: Any, **options: Any) -> bool:
            at("submit:before")
            made = await create(self, run, **options)
            at("submit:after")
            return made

        def claim_at(
            self: SqlStore, run_ids: Sequence[str], *given: Any, **options: Any
        ) -> dict[str, Claim]:
            at("claim:before")
            claimed = claim(self, run_ids, *given, **options)
            at("claim:after")
            return claimed

        def decide_at(self: SqlStore, *given: Any) -> Message:
            at("send:before")
            message = decide(self, *given)
            at("send:after")
            return message

        Journal.append = append_at  # type: ignore[method-assign]
        Connection.begin, Connection.commit, Connection.many = begin_at, commit_at, many_at  # type: ignore[method-assign]
        SqlStore.begin, SqlStore.claim, SqlStore.decide = create_at, claim_at, decide_at  # type: ignore[method-assign]
