"""Faults of the store while runs are driven: at each transaction in turn, and afterwards the runs
go on and end as they must.

    python -m soak.faults --url sqlite

Each fault gives the text of the error and what was counted; ``faults`` are what is not as it must
be. `test_store` has the same faults, one by one, below the VM.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import resource
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import psycopg
from postgres import PostgresServer

from nano_vm import ExecutionVM
from nano_vm.errors import StoreError
from nano_vm.run.durable import outbox
from nano_vm.run.durable.journal import Journal
from nano_vm.store.records import StoredRun
from nano_vm.store.sql.database import Connection
from nano_vm.store.sql.store import SqlStore

from .checks import examine
from .frozen import SHORT
from .life import Place, concluded, server_in, settle_in_doubt
from .points import Points, Shared
from .programs import tools

BUSY_SECONDS = 0.2
outbox.PATIENCE_SECONDS = 0.3  # a fault lasts until it is heard of

Hurt = Callable[[Connection], None]


class Bench(Place):
    """A place for one fault at a time, in this process."""

    def open(self, **options: Any) -> ExecutionVM:
        """A VM that does not wait long for a locked database."""
        store = SqlStore(self.url, busy_timeout_seconds=BUSY_SECONDS, **options)
        return ExecutionVM(None, tools(self.world, Points(Shared())), store=store)


@contextmanager
def at_transaction(number: int, moment: str, hurt: Hurt) -> Iterator[None]:
    """Do *hurt* once: at the *number*-th transaction that writes, *moment* is before it, inside it,
    or before or after its commit.
    """
    begin, many, commit = Connection.begin, Connection.many, Connection.commit
    left = number

    def due(self: Connection, name: str) -> None:
        nonlocal left
        if name != moment or not getattr(self, "writes", False) or left < 0:
            return
        left -= 1
        if left == 0:
            left = -1
            hurt(self)

    def begin_at(self: Connection, *, write: bool = True) -> None:
        self.writes = write  # type: ignore[attr-defined]
        due(self, "before")
        begin(self, write=write)

    def many_at(self: Connection, statement: str, values: Any) -> None:
        many(self, statement, values)
        if "nano_rows" in statement:
            due(self, "inside")

    def commit_at(self: Connection) -> None:
        due(self, "before the commit")
        commit(self)
        due(self, "after the commit")

    Connection.begin, Connection.many, Connection.commit = begin_at, many_at, commit_at  # type: ignore[method-assign]
    try:
        yield
    finally:
        Connection.begin, Connection.many, Connection.commit = begin, many, commit  # type: ignore[method-assign]


@contextmanager
def acknowledged(count: Callable[[str], int], seen: dict[str, int]) -> Iterator[None]:
    """Keep in *seen*, by run, the rows that a second connection saw when an append was
    acknowledged.
    """
    append = Journal.append

    async def append_at(self: Journal, rows: Any, *more: Any) -> None:
        await append(self, rows, *more)
        with suppress(psycopg.Error):  # a server that is gone cannot be asked
            seen[self.run.run_id] = count(self.run.run_id)

    Journal.append = append_at  # type: ignore[method-assign]
    try:
        yield
    finally:
        Journal.append = append  # type: ignore[method-assign]


class Fault:
    """A fault: what to do at a transaction, how to end it, and what was seen."""

    def __init__(
        self,
        name: str,
        moment: str,
        hurt: Hurt,
        heal: Callable[[], None],
        *,
        heard: bool | None = True,
    ) -> None:
        self.name, self.moment, self.hurt, self.heal = name, moment, hurt, heal
        self.heard = heard  # whether it must be told, or must not be; None where it may
        self.told: list[str] = []
        self.hits = 0

    def __call__(self, connection: Connection) -> None:
        """Hurt."""
        self.hits += 1
        self.hurt(connection)

    def row(self) -> dict[str, Any]:
        """As it is told."""
        return {
            "fault": self.name,
            "moment": self.moment,
            "errors": len(self.told),
            "says": self.told[:1],
        }


async def suffer(place: Bench, fault: Fault, every: int, faults: list[str]) -> int:
    """Runs with *fault* at the first transaction, the second, and so on, up to the last of a run,
    or at *every* second or third of them; how many there were.
    """
    number = 1 - every
    while True:
        number += every
        run_id = f"{fault.name} {fault.moment} {number}".replace(" ", "-")
        vm, hits = place.open(), fault.hits
        seen: dict[str, int] = {}
        with acknowledged(place.rows, seen), at_transaction(number, fault.moment, fault):
            try:
                trace = await vm.run(SHORT, {"name": run_id}, run_id=run_id)
                told = ""
                if trace.status.value != "success":
                    faults.append(f"{run_id}: {trace.status.value}: {trace.error}")
            except StoreError as error:
                told = str(error)
        hit = fault.hits > hits
        if hit:
            fault.heal()
        if told:
            fault.told.append(told)
        if fault.heard is not None and hit and bool(told) is not fault.heard:
            faults.append(f"{run_id}: {told or 'nobody heard of the fault'}")
        vm.close()
        there = place.rows(run_id)
        if there < seen.get(run_id, -1):
            faults.append(f"{run_id}: {seen[run_id]} rows were acknowledged, {there} are there")
        await end(place, run_id)
        if not hit:
            return number - every


async def end(place: Bench, run_id: str) -> None:
    """Go on with a run until it has ended; one that was never stored is begun."""
    vm = place.open()
    if place.rows(run_id) < 0:
        await vm.submit(SHORT, {"name": run_id}, run_id=run_id)
    for _ in range(10):
        trace = await vm.resume(run_id)
        if trace.status.value != "suspended":
            break
        for entry in vm.waiting(run_id):
            settle_in_doubt(place.world, vm, run_id, entry)
    vm.close()


class LiteBench(Bench):
    """With SQLite."""

    def rows(self, run_id: str) -> int:
        """How many rows of a run a second connection sees; -1 where there is no such run."""
        connection = sqlite3.connect(self.url.removeprefix("sqlite:///"), timeout=10)
        try:
            return _rows(connection.execute(_COUNT.replace("%s", "?"), (run_id, run_id)).fetchone())
        finally:
            connection.close()

    def faults_of(self) -> list[Fault]:
        path = self.url.removeprefix("sqlite:///")
        other: list[sqlite3.Connection] = []
        everything = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)

        def lock(_: Connection) -> None:
            connection = sqlite3.connect(
                path, isolation_level=None, timeout=10, check_same_thread=False
            )
            connection.execute("BEGIN IMMEDIATE")
            other.append(connection)

        def unlock() -> None:
            other.pop().close()

        def no_more_bytes(_: Connection) -> None:
            size = os.path.getsize(f"{path}-wal")
            resource.setrlimit(resource.RLIMIT_FSIZE, (max(size, 8_192), everything[1]))

        def room() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, everything)

        return [
            # a connection that is closed empties the log, and then there may be room
            Fault("disk full", "before", no_more_bytes, room, heard=None),
            Fault("disk full", "inside", no_more_bytes, room, heard=None),
            Fault("locked database", "before", lock, unlock),
        ]


class PostgresBench(Bench):
    """With PostgreSQL."""

    server: PostgresServer

    def rows(self, run_id: str) -> int:
        """As in `LiteBench`."""
        with psycopg.connect(self.url) as connection:
            return _rows(connection.execute(_COUNT, (run_id, run_id)).fetchone())

    def faults_of(self) -> list[Fault]:
        def end_session(connection: Connection) -> None:
            self.server.execute(
                f"SELECT pg_terminate_backend({connection.driver.info.backend_pid}, 5000)"
            )

        def crash(connection: Connection) -> None:
            os.kill(
                connection.driver.info.backend_pid, signal.SIGKILL
            )  # the server then drops all sessions, and recovers
            time.sleep(0.3)

        def stop(_: Connection) -> None:
            self.server.stop(signal.SIGQUIT)

        def lose_answer(connection: Connection) -> None:
            connection.driver.close()
            raise psycopg.OperationalError("the connection was lost before the answer came")

        def nothing() -> None:
            until = time.monotonic() + 30
            while time.monotonic() < until:
                with suppress(psycopg.Error):
                    self.server.execute("SELECT 1")
                    return
                time.sleep(0.05)

        return [
            Fault("session ended by the server", "before", end_session, nothing, heard=False),
            Fault("session ended by the server", "inside", end_session, nothing, heard=False),
            Fault(
                "session ended by the server",
                "before the commit",
                end_session,
                nothing,
                heard=False,
            ),
            Fault(
                "answer to the commit lost", "after the commit", lose_answer, nothing, heard=False
            ),
            # it may take longer to recover
            Fault("server process killed", "inside", crash, nothing, heard=None),
            Fault("server gone", "inside", stop, self.server.start),
        ]


_COUNT = (
    "SELECT (SELECT count(*) FROM nano_runs WHERE run_id = %s), "
    "(SELECT count(*) + count(next_path) FROM nano_rows WHERE run IN (SELECT key FROM nano_runs WHERE run_id = %s))"
)


def _rows(found: Any) -> int:
    return int(found[1]) if found[0] else -1


def torn(folder: Path, seed: int, faults: list[str]) -> dict[str, Any]:
    """Databases as a power failure leaves them: the write of the last transaction is cut anywhere,
    and what came before is there.
    """
    draw = random.Random(seed)
    number = 1
    while torn_at(folder / f"torn-{number}", number, draw, faults):
        number += 1
    return {
        "fault": "last write torn",
        "moment": "at each transaction",
        "transactions": number - 1,
        "errors": 0,
        "says": [],
    }


def torn_at(folder: Path, number: int, draw: random.Random, faults: list[str]) -> bool:
    """A run whose files are copied right after its *number*-th transaction, torn, and gone on with;
    False where it had fewer.
    """
    place = LiteBench(folder, f"sqlite:///{folder}/runs.db")
    copy = Path(f"{folder}-copy")
    sizes: list[int] = []
    seen: dict[str, int] = {}
    known: dict[str, int] = {}

    def note(_: Connection) -> None:
        sizes.append(os.path.getsize(folder / "runs.db-wal"))
        known.update(seen)

    def cut(_: Connection) -> None:
        shutil.copytree(folder, copy)
        (copy / "runs.db-shm").unlink()
        whole = (copy / "runs.db-wal").stat().st_size
        os.truncate(copy / "runs.db-wal", draw.randint(min([*sizes, whole]), whole))

    async def run() -> None:
        vm = place.open()
        before, after = (
            at_transaction(number, "before", note),
            at_transaction(number, "after the commit", cut),
        )
        with acknowledged(place.rows, seen), before, after:
            await vm.run(SHORT, {"name": "torn"}, run_id="torn")
        vm.close()

    asyncio.run(run())
    if not copy.exists():
        return False
    left = LiteBench(copy, f"sqlite:///{copy}/runs.db")
    with SqlStore(left.url) as store:
        for owner in store.owners():  # it is this process, which lives
            store.forget_owner(owner)
    if left.rows("torn") < known.get("torn", -1):
        faults.append(
            f"torn at {number}: {known['torn']} rows were acknowledged, {left.rows('torn')} are "
            f"there"
        )
    asyncio.run(end(left, "torn"))
    faults += [f"torn at {number}: {fault}" for fault in examine(left, SHORT)["faults"]]
    return True


ENDS = frozenset({"started_ns", "output", "error", "waiting"})
"""What is written into a run's header as it starts, waits and ends: under its seal, which a check of
the store and whoever resumes it look at, and under no checksum that is looked at where it is read.
"""

CHANGING = ENDS | frozenset(
    {
        "status",
        "finished_ns",
        "seal",
        "wake_ns",
        "owner",
        "fence",
        "steps",
        "tokens",
        "cost_usd",
        "error_kind",
    }
)
"""That, and what else of a header changes while a run goes on: told in reliability.md."""


def changed(run: StoredRun, right: StoredRun) -> list[str]:
    """The fields in which two runs differ."""
    return [
        field.name
        for field in fields(run)
        if getattr(run, field.name) != getattr(right, field.name)
    ]


def corrupted(folder: Path, seed: int, flips: int, faults: list[str]) -> dict[str, Any]:
    """Bytes of a database of ended runs changed at random: what is read is an error or what was
    written.
    """
    draw = random.Random(seed)
    place = LiteBench(folder / "sound", f"sqlite:///{folder}/sound/runs.db")

    async def run() -> None:
        vm = place.open()
        for number in range(30):
            await vm.run(SHORT, {"name": f"c{number}"}, run_id=f"c{number}")
        vm.close()

    asyncio.run(run())
    path = folder / "sound" / "runs.db"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    with SqlStore(place.url) as store:
        sound = {run_id: store.load(run_id) for run_id in (f"c{number}" for number in range(30))}
    for run in sound.values():
        run.key = 0
    whole = path.read_bytes()
    told: Counter[str] = Counter()
    says: list[str] = []
    for number in range(flips):
        bad = bytearray(whole)
        at = draw.randrange(100, len(bad))
        size = draw.choice((1, 1, 16, 512))
        bad[at : at + size] = draw.randbytes(size)
        (folder / "bad.db").write_bytes(bad)
        try:
            found = False
            differ: set[str] = set()
            with SqlStore(f"sqlite:///{folder}/bad.db") as store:
                for run_id, right in sound.items():
                    try:
                        run = store.load(run_id)
                    except StoreError as error:
                        found = True
                        says.append(str(error))
                    else:
                        run.key = 0
                        fields_of = set(changed(run, right))
                        if fields_of <= CHANGING:
                            differ |= fields_of
                        else:
                            faults.append(
                                f"flip {number} at {at}: run {run_id!r} is read with another "
                                f"{', '.join(sorted(fields_of))}"
                            )
                found_by_check = bool(store.check())
            if differ & ENDS and not found_by_check:
                faults.append(f"flip {number} at {at}: no check finds another {sorted(differ)}")
            where = (
                "found by load"
                if found
                else "found by check"
                if found_by_check
                else "in bytes that mean nothing"
            )
            told[
                "unnoticed, in what changes of a header" if differ and not found_by_check else where
            ] += 1
        except StoreError as error:
            told["found when opened"] += 1
            says.append(str(error))
        except UnicodeDecodeError:  # SQLite's own message has the damaged bytes in it
            told["found, and told by another error"] += 1
        for left in folder.glob("bad.db*"):
            left.unlink()
    return {
        "fault": "changed bytes",
        "moment": f"{flips} times",
        "errors": len(says),
        "says": says[:1],
        **told,
    }


async def suffer_all(
    place: LiteBench | PostgresBench, every: int, faults: list[str]
) -> list[dict[str, Any]]:
    """Each fault of a database at each transaction, or at *every* second or third."""
    rows = []
    for fault in place.faults_of():
        transactions = await suffer(place, fault, every, faults)
        rows.append({**fault.row(), "transactions": transactions})
        if transactions < 5:
            faults.append(f"{fault.name}, {fault.moment}: hit {transactions} transactions only")
    return rows


def campaign(folder: Path, kind: str, *, flips: int, every: int) -> dict[str, Any]:
    """All faults of a database."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    faults: list[str] = []
    place: LiteBench | PostgresBench
    if kind == "sqlite":
        place = LiteBench(folder / "runs", f"sqlite:///{folder}/runs/runs.db")
        rows = asyncio.run(suffer_all(place, every, faults))
        rows += [torn(folder, 1, faults), corrupted(folder, 2, flips, faults)]
    else:
        server = server_in(folder)
        try:
            place = PostgresBench(folder / "runs", server.database())
            place.server = server
            rows = asyncio.run(suffer_all(place, every, faults))
            faults += examine(place, SHORT)["faults"]
        finally:
            server.stop()
        return {"rows": rows, "faults": faults}
    findings = examine(place, SHORT)
    return {"rows": rows, "runs": findings["runs"], "faults": faults + findings["faults"]}


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="sqlite", choices=["sqlite", "postgres"])
    parser.add_argument("--flips", type=int, default=60)
    parser.add_argument("--every", type=int, default=1, help="leave out transactions between")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="nano-vm-faults-"))
    result = campaign(folder, given.url, flips=given.flips, every=given.every)
    result["faults"] = result["faults"][:20]
    return concluded(result, folder)


if __name__ == "__main__":
    sys.exit(main())
