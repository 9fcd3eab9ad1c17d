"""One life of a process of the kill test: a worker, or the person who decides what workers wait
for. It ends by a kill, or when told.
"""

from __future__ import annotations

import asyncio
import ctypes
import faulthandler
import json
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from in_memory import folder_in_memory
from postgres import PostgresServer

from nano_vm import ExecutionVM, VMError
from nano_vm.errors import StoreError
from nano_vm.records.status import StepStatus
from nano_vm.store.protocol import RunFilter
from nano_vm.store.records import ENDED, STEP, Row
from nano_vm.store.sql.store import SqlStore

from .effects import World
from .points import Points, Shared
from .programs import CALLED, PROGRAMS, Model, drawn, key_of, tools

T = TypeVar("T")

IN_FLIGHT = 12
"""Runs that a worker keeps going."""


class Place:
    """What the processes of a campaign share: the database, the files of effects, and a file that
    says whether more runs are wanted.
    """

    options: Mapping[str, Any] = {}
    """Of every VM."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url = folder, url
        folder.mkdir(exist_ok=True)
        self.world = World(folder / "effects")
        self.more = folder / "more"
        self.faults = folder / "faults"

    def vm(self, points: Points, **options: Any) -> ExecutionVM:
        """A VM over the shared database."""
        given = {"store": self.url, **self.options, **options}
        return ExecutionVM(
            Model(self.world, points), tools(self.world, points), programs=CALLED, **given
        )

    def keep(self, run_id: str, row: Row) -> None:
        """Note that the store acknowledged the outcome of a call."""
        if row.kind == STEP and row.type in ("tool", "llm"):
            called = row.status is not StepStatus.CANCELLED
            self.world.tell(
                "kept",
                key_of(run_id, row.path),
                [row.status and row.status.value, called],
                sync=False,
            )


def warm(place: Place) -> None:
    """Import what a life will need, so that it begins in 20 milliseconds and not in 200. Opens
    nothing and starts no thread.
    """
    import_module("psycopg")
    vm = place.vm(Points(Shared()), store=None)
    for program in PROGRAMS:
        vm.verify(program)


def server_in(folder: Path) -> PostgresServer:
    """A PostgreSQL of a campaign, its log in *folder*. Its data is where that of all tests is, and
    not in a campaign's folder: if the campaign is killed, the next server removes it.
    """
    (folder / "postgres").mkdir()
    return PostgresServer(folder / "postgres", home=folder_in_memory())


@contextmanager
def database(folder: Path, url: str) -> Iterator[str]:
    """The URL of an empty database: *url* itself, or where that says only ``sqlite`` or
    ``postgres``, one in *folder*.
    """
    if url == "sqlite":
        yield f"sqlite:///{folder / 'runs.db'}"
    elif url == "postgres":
        server = server_in(folder)
        try:
            yield server.database()
        finally:
            server.stop()
    else:
        yield url


def concluded(
    result: dict[str, Any], folder: Path, *, keep: bool = False, broken: str | None = None
) -> int:
    """Print what a campaign found; the exit code of its process. Its folder stays with *keep*, or
    where it found what it should not have: faults, or none where something was *broken* on purpose.
    """
    if keep or bool(result["faults"]) is (broken is None):
        result["folder"] = str(folder)
    else:
        shutil.rmtree(folder)
    print(json.dumps(result, indent=1))
    return 1 if result["faults"] else 0


async def work(place: Place, points: Points, name: str) -> None:
    """A worker: takes up runs, and begins new ones while they are wanted."""
    vm = await answered(place.vm, points)
    store: Any = vm.store
    working = asyncio.create_task(vm.work(poll_seconds=0.005))
    number = 0
    own: list[Any] = []
    while not working.done():
        unfinished = await answered(count_unfinished, store)
        wanted = place.more.exists()
        if not unfinished and not wanted:
            break
        if wanted:
            for _ in range(IN_FLIGHT - unfinished):
                number += 1
                run_id = f"{name}-{number}"
                program = PROGRAMS[drawn(run_id, len(PROGRAMS))]
                if number % 2:
                    await vm.submit(program, {"name": run_id}, run_id=run_id)
                    # an event that comes before it is waited for
                    if program.name == "caller" and number % 3 == 0:
                        with suppress(VMError):
                            vm.send_event(run_id, f"go-{run_id}", {"way": "a"})
                else:
                    own.append(vm.start(program, {"name": run_id}, run_id=run_id))
        await asyncio.sleep(0.01)
    if working.done():
        working.result()
    working.cancel()
    for run in own:
        await run
    vm.close()


async def answered(function: Callable[..., T], *arguments: Any) -> T:
    """What *function* gives, once the store answers."""
    while True:
        try:
            return await asyncio.to_thread(function, *arguments)
        except StoreError as error:
            if not error.passing:
                raise
        await asyncio.sleep(0.1)


def count_unfinished(store: SqlStore) -> int:
    """How many runs have not ended."""
    with store.database.reading() as connection:
        marks = ", ".join("?" * len(ENDED))
        return int(
            connection.one(f"SELECT count(*) FROM nano_runs WHERE status NOT IN ({marks})", *ENDED)[
                0
            ]
        )


async def decide(place: Place, points: Points, name: str) -> None:
    """The person: approves, rejects, cancels, sends events, and says what became of calls in doubt,
    from what really happened.
    """
    vm = await answered(place.vm, points)
    store: Any = vm.store
    while place.more.exists() or await answered(count_unfinished, store):
        for stored in await answered(lambda: list(store.runs(RunFilter(status="suspended")))):
            for entry in await answered(vm.waiting, stored.run_id):
                try:
                    await settle(place.world, vm, stored.run_id, entry)
                except StoreError as error:
                    if not error.passing:
                        expected(error)
                except VMError as error:
                    expected(error)
        await asyncio.sleep(0.004)
    vm.close()


def expected(error: VMError) -> None:
    """Let pass what comes of several people deciding at once."""
    told = str(error)
    for part in ("already", "has ended", "asks", "nothing in doubt", "under way"):
        if part in told:
            return
    raise error


async def settle(world: World, vm: ExecutionVM, run_id: str, entry: dict[str, Any]) -> None:
    """Answer one thing that a run waits for."""
    path, kind = entry["path"], entry["kind"]
    key = key_of(run_id, path)
    if kind == "approval":
        choice = drawn(key, 8)
        if choice == 0:
            await vm.cancel(run_id)
        elif choice == 1:
            vm.reject(run_id, path, by="ann", shown=entry["shown"], reason="no")
        else:
            vm.approve(run_id, path, by="ann", shown=entry["shown"], reason="fine")
    elif kind == "wait" and "event" in entry:
        if any(
            message.kind in ("event", "kept") for message in vm.store.load(run_id, rows=False).inbox
        ):  # type: ignore[union-attr]
            return
        vm.send_event(run_id, entry["event"], {"way": "ab"[drawn(key, 2)]})
    elif kind == "in_doubt":
        settle_in_doubt(world, vm, run_id, entry)


def settle_in_doubt(world: World, vm: ExecutionVM, run_id: str, entry: dict[str, Any]) -> None:
    """Say of a call in doubt what really happened. One that did not happen is made again, sometimes
    given up.
    """
    path = entry["path"]
    if entry["tool"].startswith("find"):
        vm.resolve(run_id, path, retry=True, by="ann")
        return
    key = key_of(run_id, path)
    happened, output = world.truth(key)
    if happened:
        vm.resolve(run_id, path, done=output, by="ann")
        return
    world.tell("cleared", key, entry)
    if drawn(key, 4) == 0:
        vm.resolve(run_id, path, fail="it did not happen", by="ann")
    else:
        vm.resolve(run_id, path, retry=True, by="ann")


def live(main: Callable[[], Coroutine[Any, Any, None]], place: Place) -> None:
    """The whole life of a forked process; never returns."""
    code = 0
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: it dies with the campaign
    stacks = (place.folder / f"stacks-{os.getpid()}").open("w")
    faulthandler.register(signal.SIGUSR1, stacks)
    try:
        asyncio.run(main())
    except BaseException:  # noqa: BLE001 - whatever it is, the campaign must hear of it
        code = 1
        with place.faults.open("a") as file:
            file.write(
                f"--- process {os.getpid()} at {time.time():.3f}\n{traceback.format_exc()}\n"
            )
    sys.stdout.flush()
    os._exit(code)
