"""A server of two projects with a person in each role, over a store with runs in both."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal
from argon2 import PasswordHasher
from httpx import Cookies
from postgres import PostgresServer, url_of
from starlette.testclient import TestClient

from nano_vm import ExecutionVM
from nano_vm.server import secrets
from nano_vm.server.state import State
from nano_vm.store.protocol import open_tables

from .serving import over

HOST = "http://127.0.0.1:8642"
PASSWORD = "correct horse battery"
PEPPER = b"a secret of the tests, 32 bytes."

REFUND = """
name: refund
inputs:
  type: object
  properties: {order_id: {type: string}, amount: {type: number}}
  required: [order_id, amount]
steps:
  - id: approve
    type: approval
    role: manager
    show: {order: $order_id, amount: $amount}
    then: pay
    otherwise: $end
  - {id: pay, type: tool, tool: pay, args: {order_id: $order_id}}
"""

Client = TestClient


async def pay(order_id: str) -> str:
    return f"paid {order_id}"


@dataclass
class World:
    """A server, and a client for each person: ``owner``, ``admin``, ``developer``, ``operator`` and
    ``viewer`` of the project ``shop``, ``stranger``, an admin of the project ``bank``, and
    ``nobody``.
    """

    state: State
    app: Any
    people: dict[str, TestClient]

    def client(self, token: str | None = None) -> TestClient:
        """A browser that nobody is logged in with; with *token*, a program that has this key."""
        headers = {"origin": HOST} if token is None else {"authorization": f"Bearer {token}"}
        return TestClient(self.app, base_url=HOST, headers=headers)

    def login(self, name: str, password: str = PASSWORD) -> TestClient:
        """A browser that somebody is logged in with."""
        client = self.client()
        assert client.post("/api/v1/login", json={"name": name, "password": password}).is_success
        return client

    def __getattr__(self, name: str) -> TestClient:
        return self.people[name]

    def start(self, who: str = "developer", **more: Any) -> str:
        """Start a refund in ``shop``, and let it come to its approval; its id."""
        body = {"program": "refund", "inputs": {"order_id": "A-1", "amount": 7}, **more}
        answer = self.people[who].post("/api/v1/projects/shop/runs", json=body)
        assert answer.status_code == 201, answer.text
        self.work()
        return str(answer.json()["id"])

    def work(self) -> None:
        """Drive what is to be driven."""
        vm = ExecutionVM(None, {"pay": pay}, store=self.state.store)
        with ThreadPoolExecutor(1) as threads:
            threads.submit(lambda: asyncio.run(vm.work(until_idle=True))).result(60)


def world_at(url: str) -> World:
    """A server on the empty database at *url*, and its people."""
    store = open_tables(url)
    state = State(store, PEPPER, vm=ExecutionVM(None, {"pay": pay}))
    world = World(state, over(state), {})
    owner = world.client()
    token = state.setup_token
    setup = {"token": token, "name": "owner", "password": PASSWORD}
    assert owner.post("/api/v1/setup", json=setup).status_code == 201
    world.people = {"owner": owner, "nobody": world.client()}
    for project in ("shop", "bank"):
        assert owner.post("/api/v1/projects", json={"name": project}).status_code == 201
    for name in ("admin", "developer", "operator", "viewer", "stranger"):
        user = {"name": name, "password": PASSWORD}
        assert owner.post("/api/v1/users", json=user).status_code == 201
        project, role = ("bank", "admin") if name == "stranger" else ("shop", name)
        given = {"role": role, "approves": ["manager"] if name == "operator" else []}
        put = owner.put(f"/api/v1/projects/{project}/members/{name}", json=given)
        assert put.status_code == 200
        world.people[name] = world.login(name)
    put = world.developer.post("/api/v1/projects/shop/programs", json={"source": REFUND})
    assert put.status_code == 201, put.text
    return world


@pytest.fixture(scope="session", autouse=True)
def quick_hashes() -> Iterator[None]:
    """Passwords of the tests are hashed quickly; in earnest it is slow on purpose."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(secrets, "HASHER", PasswordHasher(time_cost=1, memory_cost=64))
        yield


@pytest.fixture(scope="module", autouse=True)
def one_loop() -> Iterator[None]:
    """All requests run in one event loop, as in a server. A client of its own accord makes a thread
    and a loop for each, which takes longer than most requests.
    """
    with start_blocking_portal() as portal, pytest.MonkeyPatch.context() as patch:
        patch.setattr(TestClient, "portal", portal)
        yield


class Worlds:
    """Makes worlds: in each kind of database one by what its people do, and all others as copies of
    that one, which takes a fifth of the time.
    """

    def __init__(self, folder: Path, server: Callable[[], PostgresServer]) -> None:
        self.folder, self.server = folder, server
        self.cookies: dict[str, dict[str, Cookies]] = {}  # of the people in each kind
        self.failed: dict[str, Exception] = {}  # why the one of a kind could not be made

    def at(self, url: str) -> World:
        """A world in the empty database at *url*."""
        kind = url.partition(":")[0]
        if kind == "sqlite":
            assert url.startswith("sqlite:///"), f"{url} is no file"
            place = Path(url.removeprefix("sqlite:///"))
            assert not place.exists(), "a world is made in an empty database"
            self.make_first(kind)
            shutil.copyfile(self.folder / "runs.db", place)
        else:
            server = self.server()
            assert url == server.url(url.rpartition("/")[2]), f"{url} is of another server"
            self.make_first(kind)
            server.copy("world", url)
        state = State(open_tables(url), PEPPER, vm=ExecutionVM(None, {"pay": pay}))
        world = World(state, over(state), {})
        for name, cookies in self.cookies[kind].items():
            world.people[name] = world.client()
            world.people[name].cookies = cookies
        return world

    def make_first(self, kind: str) -> None:
        """Make the one that the others are copies of, unless it is there. What is left of one that
        failed would hide why, so each test is shown the error of the first.
        """
        if kind in self.failed:
            raise self.failed[kind]
        if kind in self.cookies:
            return
        try:
            first = world_at(self.first(kind))
        except Exception as error:
            self.failed[kind] = error
            raise
        first.state.store.close()
        self.cookies[kind] = {name: one.cookies for name, one in first.people.items()}

    def first(self, kind: str) -> str:
        """Where the one is that the others are copies of."""
        if kind == "sqlite":
            return f"sqlite:///{self.folder}/runs.db"
        return self.server().kept_database("world")


@pytest.fixture(scope="session")
def worlds(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], World]:
    """Makes a world in the empty database at a URL."""
    folder = tmp_path_factory.mktemp("worlds")
    return Worlds(folder, lambda: request.getfixturevalue("postgres_server")).at


@pytest.fixture(scope="module")
def world(
    worlds: Callable[[str], World], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """A server over a file, which the tests of a module share."""
    made = worlds(f"sqlite:///{tmp_path_factory.mktemp('server')}/runs.db")
    yield made
    made.state.store.close()


@pytest.fixture(params=["file", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database."""
    return url_of(request, tmp_path)


@pytest.fixture
def make_world(worlds: Callable[[str], World]) -> Iterator[Callable[..., World]]:
    """Makes servers that are closed at the end: copies, or by what their people do."""
    made: list[World] = []

    def make(url: str, *, copy: bool = True) -> World:
        made.append(worlds(url) if copy else world_at(url))
        return made[-1]

    yield make
    for world in made:
        world.state.store.close()
