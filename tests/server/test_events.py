"""What happens in a run, as it happens: each record once, also where the stream is cut."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from nano_vm.records.secrecy import NOTHING_SECRET
from nano_vm.server import secrets, watch
from nano_vm.server.credentials import Credential, Right
from nano_vm.server.events import Events, Wanted
from nano_vm.server.state import State
from nano_vm.server.tables import sessions
from nano_vm.server.watch import Watch
from nano_vm.store.protocol import open_tables

from .conftest import PASSWORD, PEPPER, World
from .serving import served

SHOP = "/api/v1/projects/shop"
MANY = 20


@pytest.fixture(scope="module")
def address(world: World) -> Iterator[str]:
    with served(world.state) as found:
        yield found


Login = Callable[[str, str], httpx.Client]


@pytest.fixture
def login() -> Iterator[Login]:
    """Logs people in at an address; their clients are closed at the end."""
    clients: list[httpx.Client] = []

    def enter(address: str, name: str) -> httpx.Client:
        client = httpx.Client(base_url=address, headers={"origin": address}, timeout=30)
        clients.append(client)
        body = {"name": name, "password": PASSWORD}
        assert client.post("/api/v1/login", json=body).is_success
        return client

    yield enter
    for client in clients:
        client.close()


def events(client: httpx.Client, run_id: str, last: str | None = None) -> Iterator[dict[str, Any]]:
    headers = {} if last is None else {"last-event-id": last}
    with client.stream("GET", f"{SHOP}/runs/{run_id}/events", headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        found: dict[str, Any] = {}
        for line in answer.iter_lines():
            if not line and "event" in found:
                yield found
                found = {}
            name, _, value = line.partition(": ")
            if name in ("id", "event"):
                found[name] = value
            elif name == "data":
                found["data"] = json.loads(value)


def approve(world: World, run_id: str) -> None:
    asked = world.operator.get(f"{SHOP}/inbox").json()["asked"]
    [one] = [one for one in asked if one["run"] == run_id]
    answer = {"run": run_id, "path": "approve", "shown": one["shown"], "answer": "approve"}
    assert world.operator.post(f"{SHOP}/inbox", json=answer).is_success
    world.work()


def followed(
    world: World, address: str, login: Login
) -> tuple[str, list[dict[str, Any]], threading.Thread]:
    """A run that waits, the events that a developer has seen of it, and the thread that follows."""
    run_id = world.start()
    seen: list[dict[str, Any]] = []
    waits = threading.Event()

    def follow() -> None:
        for event in events(login(address, "developer"), run_id):
            seen.append(event)
            if event["event"] == "standing":
                waits.set()

    thread = threading.Thread(target=follow)
    thread.start()
    assert waits.wait(30)
    return run_id, seen, thread


@pytest.mark.slow
def test_a_run_is_followed_to_its_end(world: World, address: str, login: Login) -> None:
    run_id, seen, thread = followed(world, address, login)
    assert seen[-1]["data"]["status"] == "suspended"
    approve(world, run_id)
    thread.join(30)
    assert not thread.is_alive()
    records = [event for event in seen if event["event"] == "record"]
    assert [int(event["id"]) for event in records] == list(range(len(records)))
    assert [
        e["data"]["output"] for e in records if e["data"]["path"] == "pay" and "output" in e["data"]
    ] == ["paid A-1"]
    assert seen[-1] == {"event": "end", "data": {"status": "success"}}


@pytest.mark.slow
def test_a_stream_goes_on_where_it_was_cut_at_another_server(
    world: World, address: str, login: Login
) -> None:
    run_id = world.start()
    approve(world, run_id)
    whole = [e for e in events(login(address, "viewer"), run_id) if e["event"] == "record"]
    assert len(whole) >= 3
    assert all("output" not in event["data"] for event in whole)  # which a viewer may not read
    url = f"sqlite:///{world.state.store.database.dialect.place}"  # type: ignore[attr-defined]
    store = open_tables(url)
    with served(State(store, PEPPER)) as other:
        for last in range(len(whole)):
            rest = [
                e
                for e in events(login(other, "viewer"), run_id, str(last))
                if e["event"] == "record"
            ]
            assert [e["id"] for e in rest] == [str(n) for n in range(last + 1, len(whole))]
    store.close()


@pytest.mark.slow
def test_a_stream_ends_with_the_session(
    world: World, address: str, login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nano_vm.server.watch.KEEP_ALIVE_SECONDS", 0.1)
    run_id = world.start()
    client = login(address, "viewer")
    ended = threading.Event()

    def follow() -> None:
        list(events(client, run_id))
        ended.set()

    thread = threading.Thread(target=follow)
    thread.start()
    time.sleep(0.3)
    assert not ended.is_set()
    cookies = "; ".join(f"{name}={value}" for name, value in client.cookies.items())
    headers = {"origin": address, "cookie": cookies}
    assert httpx.post(f"{address}/api/v1/logout", headers=headers).status_code == 200
    assert ended.wait(30)
    thread.join()


def test_a_stream_shows_nothing_to_one_who_may_read_it_no_longer(
    world: World, address: str, login: Login
) -> None:
    run_id, seen, thread = followed(world, address, login)
    member = f"{SHOP}/members/developer"
    assert world.admin.put(member, json={"role": "viewer"}).is_success
    before = len(seen)
    try:
        approve(world, run_id)
        thread.join(30)
        assert not thread.is_alive()
        assert seen[before:] == []  # the stream was cut before anything more was sent
        first = seen[0]["id"]
        again = [e for e in events(login(address, "developer"), run_id) if e["event"] == "record"]
        assert again[0]["id"] == first
        assert all("output" not in event["data"] for event in again)
    finally:
        assert world.admin.put(member, json={"role": "developer"}).is_success


FORGED = "A\u2028\u2028event: end\u2029data: {}\u2029\x85\x85event: end\x85data: {}\x85\x85\x1e"


def test_what_a_tool_gave_is_no_event(world: World, address: str, login: Login) -> None:
    run_id = world.start(inputs={"order_id": FORGED, "amount": 1})
    approve(world, run_id)
    # by httpx's lines, which end where `str.splitlines` ends them
    found = list(events(login(address, "developer"), run_id))
    outputs = [one["data"].get("output") for one in found if one["event"] == "record"]
    assert f"paid {FORGED}" in outputs
    assert [one["event"] for one in found].count("end") == 1


def test_runs_are_followed_in_one_event_loop_after_another(world: World) -> None:
    run_id = world.start()
    watch = Watch(world.state.store)

    async def followed() -> str:
        async with watch.following(run_id, None) as queue:
            standing = await asyncio.wait_for(queue.get(), 30)
            await asyncio.sleep(0.3)  # so that it rests, and looks again
        assert standing is not None
        assert watch._looking is not None
        await asyncio.wait([watch._looking])
        assert watch._looking is None
        return str(standing.status)

    for _ in range(2):
        assert asyncio.run(followed()) == "suspended"


def test_nobody_follows_a_run_of_others(world: World, address: str, login: Login) -> None:
    run_id = world.start()
    answer = login(address, "stranger").get(f"{SHOP}/runs/{run_id}/events")
    assert answer.status_code == 404


def test_nothing_is_asked_of_the_store_when_nobody_follows(
    world: World, address: str, login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = world.start()
    approve(world, run_id)
    list(events(login(address, "viewer"), run_id))
    time.sleep(0.2)
    monkeypatch.setattr(type(world.state.store), "standings", None)  # who asked would fail
    time.sleep(0.2)
    assert world.state.events.watch._looking is None


@pytest.mark.slow
def test_what_many_follow_is_asked_and_read_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also whether each of them still may: one question for all, whoever they are."""
    run_id = world.start()
    store = world.state.store
    events = Events(store)
    read: list[int] = []
    asked: list[int] = []
    rows_after, ask = store.rows_after, watch.holding

    def counted(run_id: str, after: int, **more: Any) -> Any:
        read.append(after)
        return rows_after(run_id, after, **more)

    def held(rows: Any, rights: Any) -> Any:
        asked.append(len(rights))
        return ask(rows, rights)

    monkeypatch.setattr(store, "rows_after", counted)
    monkeypatch.setattr(watch, "holding", held)
    rights = []
    for _ in range(MANY):
        cookie = world.login("developer").cookies[world.state.cookie]
        credential = Credential(session=secrets.hash_of_cookie(cookie))
        rights.append(Right(credential, "shop", "run:content"))
    taken = rights[0].credential.session
    gone = sa.delete(sessions).where(sessions.c.hash == taken)

    async def follow(right: Right, waits: asyncio.Semaphore) -> list[bytes]:
        seen = []
        parts = events.stream(run_id, -1, right, content=True, levels=NOTHING_SECRET)
        async for part in parts:
            seen.append(part)
            if b"suspended" in part:
                waits.release()
        return seen

    async def go() -> list[list[bytes]]:
        waits = asyncio.Semaphore(0)
        tasks = [asyncio.create_task(follow(right, waits)) for right in rights]
        for _ in tasks:
            await asyncio.wait_for(waits.acquire(), 30)
        assert (asked, read) == ([MANY], [-1])
        await asyncio.to_thread(world.state.tables.write, lambda rows: rows.run(gone))
        await asyncio.to_thread(approve, world, run_id)
        return await asyncio.wait_for(asyncio.gather(*tasks), 30)

    first, *others = asyncio.run(go())
    assert b"event: end" not in b"".join(first)
    assert all(b"".join(one) == b"".join(others[0]) for one in others)
    assert b"paid A-1" in b"".join(others[0])
    assert b"event: end" in b"".join(others[0])
    assert asked[1] == MANY
    assert all(count < MANY for count in asked[2:]), "who has gone is asked about no longer"
    assert read == sorted(set(read)), "each record once"


@pytest.mark.parametrize("ends", [True, False])
def test_a_backlog_goes_only_to_one_who_still_may(
    world: World, monkeypatch: pytest.MonkeyPatch, ends: bool
) -> None:
    """Who reads slowly is asked about between the parts of what they are sent."""
    monkeypatch.setattr("nano_vm.server.events.ROWS_AT_ONCE", 1)
    monkeypatch.setattr("nano_vm.server.watch.KEEP_ALIVE_SECONDS", 0.01)
    run_id = world.start()
    approve(world, run_id)
    rows = len(world.state.store.load(run_id).rows)
    assert rows >= 3
    events = Events(world.state.store)
    session = secrets.hash_of_cookie(world.login("developer").cookies[world.state.cookie])
    right = Right(Credential(session=session), "shop", "run:content")
    gone = sa.delete(sessions).where(sessions.c.hash == session)

    async def go() -> list[bytes]:
        seen = []
        async with events.watch.following(run_id, None) as heard:
            async for part in events.stream(run_id, -1, right, content=True, levels=NOTHING_SECRET):
                seen.append(part)
                if b"event: record" not in part:
                    continue
                if ends:
                    await asyncio.to_thread(world.state.tables.write, lambda rows: rows.run(gone))
                while not heard.empty():
                    heard.get_nowait()
                for _ in range(2):  # it is asked anew, and all are told, while this part is read
                    await heard.get()
        return seen

    whole = b"".join(asyncio.run(asyncio.wait_for(go(), 30)))
    sent = [int(line[4:]) for line in whole.split(b"\n") if line.startswith(b"id: ")]
    if ends:
        assert (sent, whole.count(b"event: standing"), whole.count(b"event: end")) == ([0], 0, 0)
    else:
        assert sent == list(range(rows)), "each once"
        assert (whole.count(b"event: standing"), whole.count(b"event: end")) == (1, 1)


def test_a_stream_that_is_given_up_keeps_no_other_from_its_records(world: World) -> None:
    run_id = world.start()
    events = Events(world.state.store)
    wanted = Wanted(run_id, -1, 2, True)

    async def go() -> None:
        one = asyncio.create_task(events._records(wanted, NOTHING_SECRET))
        other = asyncio.create_task(events._records(wanted, NOTHING_SECRET))
        await asyncio.sleep(0)
        assert len(events._made) == 1
        one.cancel()
        records, last = await asyncio.wait_for(other, 30)
        assert (records.count(b"event: record"), last) == (2, 1)
        assert one.cancelled()
        assert events._made == {}

    asyncio.run(go())
