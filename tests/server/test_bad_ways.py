"""What lies between a server and those around it fails for real: the database is stopped and started
again, and a proxy cuts every answer after some bytes. Nothing is lost or shown twice.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from in_memory import folder_in_memory
from postgres import PostgresServer

from nano_vm import client as module
from nano_vm.client import Client, Happened

from .conftest import World
from .serving import served

SHOP = "/api/v1/projects/shop"

Make = Callable[..., World]

LONG = "name: long\nsteps:\n" + "".join(
    f"  - {{id: s{n}, type: set, values: {{v{n}: '{'x' * 300}'}}}}\n" for n in range(30)
)

CUT_AFTER_BYTES = 5_000
"""Of each answer: some of the records of `LONG`, and a part of one."""


@pytest.fixture
def own_postgres(tmp_path: Path) -> Iterator[PostgresServer]:
    """A server that a test may stop, which that of all tests is not."""
    server = PostgresServer(tmp_path, home=folder_in_memory())
    yield server
    server.stop(signal.SIGQUIT)


def key_of(world: World) -> str:
    body = {"name": "k", "role": "admin"}
    return str(world.admin.post(f"{SHOP}/keys", json=body).json()["key"])


def approved(world: World, run_id: str) -> None:
    [one] = [o for o in world.owner.get(f"{SHOP}/inbox").json()["asked"] if o["run"] == run_id]
    answer = {"run": run_id, "path": "approve", "shown": one["shown"], "answer": "approve"}
    assert world.owner.post(f"{SHOP}/inbox", json=answer).is_success
    world.work()


def numbers(seen: list[Happened]) -> list[int | None]:
    return [happened.seq for happened in seen if happened.kind == "record"]


@pytest.mark.slow
def test_a_database_that_is_stopped_and_started_again(
    own_postgres: PostgresServer, make_world: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nano_vm.server.watch.REST_SECONDS", 0.05)
    monkeypatch.setattr("nano_vm.server.notices.LISTEN_AGAIN_SECONDS", 0.05)
    world = make_world(own_postgres.database(), copy=False)
    run_id, key = world.start(), key_of(world)
    seen: list[Happened] = []
    waits = threading.Event()

    def follow(address: str) -> None:
        with Client(address, key) as client:
            for happened in client.events(run_id):
                seen.append(happened)
                if happened.kind == "standing":
                    waits.set()

    with served(world.state) as address:
        following = threading.Thread(target=follow, args=(address,))
        following.start()
        assert waits.wait(30)
        for how in (signal.SIGQUIT, signal.SIGINT):
            own_postgres.stop(how)
            for answer in (
                world.developer.get(f"{SHOP}/runs/{run_id}"),
                world.developer.post(f"{SHOP}/runs", json={"program": "refund"}),
            ):
                assert (answer.status_code, answer.json()["title"]) == (503, "store")
            assert world.nobody.get("/readyz").status_code == 503
            own_postgres.start()
            assert world.nobody.get("/readyz").is_success
            run = world.developer.get(f"{SHOP}/runs/{run_id}").json()["run"]
            assert run["status"] == "suspended"
        approved(world, run_id)
        following.join(60)
        assert not following.is_alive()
    assert numbers(seen) == list(range(len(numbers(seen))))
    assert [happened.kind for happened in seen][-1] == "end"
    assert world.start()
    assert world.owner.get("/api/v1/audit/verify").json() == {"faults": []}


@asynccontextmanager
async def cutting(target: int) -> AsyncIterator[int]:
    """The port of a proxy that cuts each connection once so many bytes of answers went by."""

    async def passed(source: asyncio.StreamReader, sink: asyncio.StreamWriter, most: int) -> None:
        with suppress(ConnectionError):
            while most > 0 and (data := await source.read(min(most, 1_000))):
                most -= len(data)
                sink.write(data)
                await sink.drain()

    joining: set[asyncio.Task[Any]] = set()

    async def joined(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        joining.add(task)
        task.add_done_callback(joining.discard)
        other_reader, other_writer = await asyncio.open_connection("127.0.0.1", target)
        there = asyncio.create_task(passed(reader, other_writer, 10**9))
        try:
            await passed(other_reader, writer, CUT_AFTER_BYTES)
        finally:
            there.cancel()
            for one in (writer, other_writer):
                one.transport.abort()  # a reset, as of a proxy that was restarted

    server = await asyncio.start_server(joined, "127.0.0.1", 0)
    async with server:
        yield int(server.sockets[0].getsockname()[1])
    for _ in range(10):  # what was accepted last has begun then
        await asyncio.sleep(0)
    for task in joining:
        task.cancel()
    await asyncio.gather(*joining, return_exceptions=True)


@contextmanager
def behind(address: str) -> Iterator[str]:
    """The address of such a proxy before the server at *address*."""
    begun: list[str] = []
    ready, ended = threading.Event(), threading.Event()

    async def serve() -> None:
        async with cutting(int(address.rpartition(":")[2])) as port:
            begun.append(f"http://127.0.0.1:{port}")
            ready.set()
            await asyncio.to_thread(ended.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert ready.wait(30)
        yield begun[0]
    finally:
        ended.set()
        thread.join(30)


@pytest.mark.slow
def test_a_proxy_that_cuts_streams(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_WAIT_SECONDS", 0.01)
    assert world.developer.post(f"{SHOP}/programs", json={"source": LONG}).status_code == 201
    run_id = world.developer.post(f"{SHOP}/runs", json={"program": "long"}).json()["id"]
    key = key_of(world)
    asked: list[int] = []
    rows_after = world.state.store.rows_after

    def counted(run_id: str, after: int, **more: int) -> object:
        asked.append(after)
        return rows_after(run_id, after, **more)

    monkeypatch.setattr(world.state.store, "rows_after", counted)
    with served(world.state) as address, behind(address) as cut:
        working = threading.Timer(0.2, world.work)
        working.start()
        with Client(cut, key) as client:
            seen = list(client.events(run_id))
        working.join()
        with Client(address, key) as client:
            whole = [happened for happened in client.events(run_id) if happened.kind == "record"]
    assert numbers(seen) == numbers(whole) == list(range(len(whole)))
    assert [h.data for h in seen if h.kind == "record"] == [h.data for h in whole]
    assert seen[-1].kind == "end"
    assert len(asked) > 3, "it was cut"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["file", "postgres"])
def test_two_people_who_decide_in_the_same_moment(
    make_world: Make, request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    """One of them is first; the other is told who was."""
    url = f"sqlite:///{tmp_path}/runs.db"
    if kind == "postgres":
        url = request.getfixturevalue("postgres").database()
    world = make_world(url)
    answers = {"operator": "approve", "owner": "reject"}
    for _ in range(5):
        run_id = world.start()
        got = at_once(world, run_id, answers)
        [first] = [who for who, (status, _) in got.items() if status == 200]
        [late] = [text for status, text in got.values() if status == 409]
        assert f"{answers[first]} by '{first}'" in late
        world.work()
        run = world.developer.get(f"{SHOP}/runs/{run_id}").json()["run"]
        paid = run["output"] == '"paid A-1"'
        assert (run["status"], paid) == ("success", answers[first] == "approve")
    assert world.owner.get("/api/v1/audit/verify").json() == {"faults": []}


def at_once(world: World, run_id: str, answers: Mapping[str, str]) -> dict[str, tuple[int, str]]:
    """What each is answered who decides by *answers* at the same time."""
    asked = world.owner.get(f"{SHOP}/inbox").json()["asked"]
    [shown] = [one["shown"] for one in asked if one["run"] == run_id]
    together = threading.Barrier(len(answers))

    def decide(who: str) -> tuple[int, str]:
        body = {"run": run_id, "path": "approve", "shown": shown, "reason": "so"}
        together.wait(30)
        answer = world.people[who].post(f"{SHOP}/inbox", json={**body, "answer": answers[who]})
        return answer.status_code, answer.text

    with ThreadPoolExecutor(len(answers)) as threads:
        return dict(zip(answers, threads.map(decide, answers), strict=True))
