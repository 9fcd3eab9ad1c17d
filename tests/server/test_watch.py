"""Who follows a run is told of changes: at once where the database gives notice, and soon where that
is lost, or there is none.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from postgres import PostgresServer

from nano_vm import ExecutionVM, Program
from nano_vm.run.inbox import Inbox
from nano_vm.server import notices
from nano_vm.server import watch as module
from nano_vm.server.watch import Watch
from nano_vm.store.protocol import RunState, TableStore, open_tables

ASK = Program.from_dict({"name": "p", "steps": [{"id": "w", "type": "wait", "event": "paid"}]})

NEVER = 600.0
SOON = 20.0  # of a machine that has much else to do


class Clock:
    def time_ns(self) -> int:
        return 1


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    return postgres.database()


@pytest.fixture
def stores(url: str) -> Iterator[tuple[TableStore, TableStore]]:
    """That of the server, and that of another process."""
    both = open_tables(url), open_tables(url)
    yield both
    for store in both:
        store.close()


@asynccontextmanager
async def followed(store: TableStore, run_id: str) -> AsyncIterator[tuple[Watch, Any]]:
    """A queue of how a run stands, once it has said how it does at first."""
    watch = Watch(store)
    async with watch.following(run_id, None) as queue:
        await asyncio.wait_for(queue.get(), SOON)
        yield watch, queue
    looking = watch._looking
    watch._wake.set()
    if looking is not None:
        await asyncio.wait_for(looking, SOON)
    assert not watch.notices.heard


async def until(what: Callable[[], bool]) -> None:
    """Wait for what happens beside."""
    async with asyncio.timeout(SOON):
        while not what():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)


def made(store: TableStore) -> str:
    return ExecutionVM(store=store).run_sync(ASK).run_id


async def say(store: TableStore, run_id: str, number: int) -> None:
    inbox = Inbox(store, None, Clock())
    await asyncio.to_thread(inbox.send_event, "other", number, run_id=run_id, id=str(number))


async def told(queue: asyncio.Queue[RunState | None]) -> RunState | None:
    return await asyncio.wait_for(queue.get(), SOON)


def test_a_notice_of_another_process_is_enough(
    stores: tuple[TableStore, TableStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    own, other = stores
    run_id = made(other)
    monkeypatch.setattr(module, "UNHEARD_SECONDS", NEVER)

    async def go() -> None:
        async with followed(own, run_id) as (watch, queue):
            await until(lambda: watch.notices.heard)
            monkeypatch.setattr(module, "LOOK_SECONDS", NEVER)
            for number in range(5):
                await say(other, run_id, number)
                await told(queue)
            burst = [say(other, run_id, number) for number in range(10, 30)]
            await asyncio.gather(*burst)
            while (await told(queue)).messages < 25:  # type: ignore[union-attr]
                pass
            watch._wake.set()  # who rests for ever is woken to see that nobody follows
            monkeypatch.setattr(module, "UNHEARD_SECONDS", 0.1)

    asyncio.run(go())


def test_a_change_is_noticed_where_every_notice_is_lost(
    stores: tuple[TableStore, TableStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    own, other = stores
    run_id = made(other)
    monkeypatch.setattr(type(other.database.dialect), "notice", None)  # type: ignore[attr-defined]

    async def go() -> None:
        async with followed(own, run_id) as (watch, queue):
            await until(lambda: watch.notices.heard)
            for number in range(3):
                await say(other, run_id, number)
                await told(queue)

    asyncio.run(go())


def test_a_connection_that_was_lost_is_made_again(
    stores: tuple[TableStore, TableStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    own, other = stores
    run_id = made(other)
    monkeypatch.setattr(notices, "LISTEN_AGAIN_SECONDS", 0.2)

    def cut() -> None:
        with other.reading() as transaction:
            transaction.all(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE left(query, 6) = 'LISTEN'"
            )

    async def go() -> None:
        async with followed(own, run_id) as (watch, queue):
            await until(lambda: watch.notices.heard)
            await asyncio.to_thread(cut)
            await until(lambda: not watch.notices.heard)
            await say(other, run_id, 1)
            await told(queue)
            await until(lambda: watch.notices.heard)
            await say(other, run_id, 2)
            await told(queue)

    asyncio.run(go())


def test_a_file_is_asked(tmp_path: Path) -> None:
    store = open_tables(f"sqlite:///{tmp_path}/runs.db")
    run_id = made(store)

    async def go() -> None:
        async with followed(store, run_id) as (watch, queue):
            assert not watch.notices.heard
            await say(store, run_id, 1)
            await told(queue)

    asyncio.run(go())
    store.close()


def test_an_error_of_any_kind_ends_no_watch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_tables(f"sqlite:///{tmp_path}/runs.db")
    run_id = made(store)
    monkeypatch.setattr(module, "REST_SECONDS", 0.01)
    monkeypatch.setattr(notices, "LISTEN_AGAIN_SECONDS", 0.01)
    closed: list[Lost] = []

    class Lost:
        """A connection that is lost as soon as it is made."""

        def fileno(self) -> int:
            raise OSError("the connection is lost")

        def close(self) -> None:
            closed.append(self)

    raised = iter([RuntimeError("of the driver"), ValueError("of a row")])
    asked, listened = store.standings, iter([RuntimeError("at connecting"), Lost(), None])

    def standings(run_ids: list[str]) -> Any:
        for error in raised:
            raise error
        return asked(run_ids)

    def ear() -> Any:
        found = next(listened, None)
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(store, "standings", standings)
    monkeypatch.setattr(store, "listened", ear)

    async def go() -> None:
        async with followed(store, run_id) as (watch, queue):
            await until(lambda: watch.notices._never)
            await say(store, run_id, 1)
            await told(queue)

    asyncio.run(go())
    store.close()
    assert len(closed) == 1
    for said in ("of the driver", "of a row", "at connecting", "the connection is lost"):
        assert said in caplog.text


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """What takes connections and says nothing, until it is closed."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening


def test_a_connection_that_hangs_as_it_is_made_keeps_nothing_back(
    stores: tuple[TableStore, TableStore],
    silent: socket.socket,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own, other = stores
    run_id = made(other)
    monkeypatch.setattr(notices, "LISTEN_AGAIN_SECONDS", 0.05)
    port = silent.getsockname()[1]
    connect, begun, attempts = psycopg.connect, threading.Event(), []

    def connects(place: str, **options: Any) -> Any:
        if threading.current_thread().name == "nano-vm-notices":
            attempts.append(1)
            begun.set()
            return connect(f"postgresql://x@127.0.0.1:{port}/x", connect_timeout=600)
        return connect(place, **options)

    monkeypatch.setattr(psycopg, "connect", connects)

    async def go() -> None:
        async with followed(own, run_id) as (watch, queue):
            assert await asyncio.to_thread(begun.wait, SOON)
            for number in range(10):
                await say(other, run_id, number)
                await told(queue)
            assert not watch.notices.heard
            assert len(attempts) == 1  # however long it hangs, it hangs once
            connecting = watch.notices._connecting
            assert connecting is not None
            assert connecting.is_alive()
            monkeypatch.setattr(psycopg, "connect", connect)
            silent.close()
            await until(lambda: watch.notices.heard)

    asyncio.run(go())


def test_a_connection_that_hangs_later_keeps_nothing_back(
    stores: tuple[TableStore, TableStore],
) -> None:
    own, other = stores
    run_id = made(other)

    def listening() -> int:
        text = "SELECT pid FROM pg_stat_activity WHERE left(query, 6) = 'LISTEN'"
        with other.reading() as transaction:
            [(pid,)] = transaction.all(text)
        return int(pid)

    async def go() -> None:
        async with followed(own, run_id) as (watch, queue):
            await until(lambda: watch.notices.heard)
            pid = await asyncio.to_thread(listening)
            os.kill(pid, signal.SIGSTOP)
            try:
                for number in range(3):
                    await say(other, run_id, number)
                    await told(queue)
                assert watch.notices.heard
            finally:
                os.kill(pid, signal.SIGCONT)

    asyncio.run(go())
