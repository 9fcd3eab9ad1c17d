"""Two servers and three workers on one PostgreSQL, any of which is killed at any time: nothing that was
accepted is lost, and who follows a run sees each of its records once, at whichever server.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import warm
from campaigns import cases
from postgres import PostgresServer, free_port

from nano_vm import client
from nano_vm.client import Client
from nano_vm.errors import StoreError, VMError
from nano_vm.store.protocol import open_store

from .conftest import PASSWORD

SEED = 12
KILLS, FEWEST = 100, 3  # a server, a worker and a server
RUNS_OF_A_KILL = 3
PATIENCE_SECONDS = 120

PROGRAM = """
name: orders
inputs:
  type: object
  properties: {n: {type: integer}, items: {type: array, items: {type: integer}, maxItems: 8}}
  required: [n, items]
steps:
  - {id: one, type: tool, tool: slow, args: {n: $n}}
  - id: each
    type: map
    over: $items
    as: item
    max_items: 8
    steps: [{id: part, type: tool, tool: slow, args: {n: $item}}]
  - {id: go, type: wait, event: go}
  - {id: last, type: tool, tool: slow, args: {n: $n}}
"""

TOOLS = """
import asyncio
from nano_vm import tool

@tool(effect="idempotent")
async def slow(n: int) -> int:
    await asyncio.sleep(0.05)
    return n * n

tools = [slow]
"""


@dataclass
class Process:
    """A server or a worker, which is started again after each death."""

    command: list[str]
    folder: Path
    name: str
    begin: type[subprocess.Popen[bytes]]
    port: int = 0
    process: subprocess.Popen[bytes] | None = None
    starts: int = field(default=0)

    def start(self) -> None:
        self.starts += 1
        with (self.folder / f"{self.name}-{self.starts}.log").open("wb") as log:
            self.process = self.begin(
                self.command, cwd=self.folder, stdout=log, stderr=log, env=dict(os.environ)
            )

    def kill(self) -> None:
        assert self.process is not None
        assert self.process.poll() is None, self.said()
        self.process.kill()
        self.process.wait(30)

    def said(self) -> str:
        return (self.folder / f"{self.name}-{self.starts}.log").read_text()

    @property
    def address(self) -> str:
        """Of a server: where it answers."""
        return f"http://127.0.0.1:{self.port}"

    def wait(self) -> None:
        """Until a server answers."""
        until = time.monotonic() + PATIENCE_SECONDS
        while True:
            with suppress(httpx.TransportError):
                if httpx.get(f"{self.address}/readyz").is_success:
                    return
            assert time.monotonic() < until, self.said()
            time.sleep(0.1)


class Follower(threading.Thread):
    """Follows a run to its end, at a server that it draws anew whenever one is gone."""

    def __init__(self, run_id: str, key: str, addresses: list[str], seed: int) -> None:
        super().__init__(daemon=True)
        self.run_id, self.key, self.addresses = run_id, key, addresses
        self.rng = random.Random(seed)
        self.seen: list[int] = []
        self.ended: str | None = None
        self.address = ""
        self.resumed = 0

    def run(self) -> None:
        while self.ended is None:
            last = self.seen[-1] if self.seen else -1
            self.address = self.rng.choice(self.addresses)
            try:
                with Client(self.address, self.key) as server:
                    for happened in server.events(self.run_id, after=last):
                        if happened.seq is not None:
                            self.seen.append(happened.seq)
                        if happened.kind == "end":
                            self.ended = happened.data["status"]
            except StoreError:
                self.resumed += 1

    def wait(self) -> None:
        """Until the stream is there."""
        until = time.monotonic() + PATIENCE_SECONDS
        while not self.seen:
            assert time.monotonic() < until, self.run_id
            time.sleep(0.01)


@pytest.fixture
def processes(postgres: PostgresServer, tmp_path: Path) -> Iterator[list[Process]]:
    """Two servers and three workers that answer, and the first owner's key in ``key``."""
    url = postgres.database()
    (tmp_path / "tools.py").write_text(TOOLS)
    secret = str(tmp_path / "secret")
    run = [sys.executable, "-m", "nano_vm"]
    made: list[Process] = []
    for name in ("a", "b"):
        port = free_port()
        serve = ["serve", "--store", url, "--bind", str(port), "--secret-file", secret]
        made.append(Process([*run, *serve], tmp_path, f"server-{name}", warm.ServerPopen, port))
    for name in ("a", "b", "c"):
        work = ["work", "--store", url, "--tools", "tools.py:tools", "--concurrency", "4"]
        made.append(Process([*run, *work], tmp_path, f"worker-{name}", warm.Popen))
    made[0].start()
    made[0].wait()  # whose tables and secret the others find
    for other in made[1:]:
        other.start()
    made[1].wait()
    yield made
    for one in made:
        if one.process is not None:
            one.process.kill()
            one.process.wait(30)


def key_of(server: Process) -> str:
    """A key of the project ``default``, whose program is put there once a worker can drive it."""
    found = re.search(r"#/setup/(\S+)", server.said())
    assert found is not None, server.said()
    with httpx.Client(base_url=server.address, headers={"origin": server.address}) as browser:
        body = {"token": found[1], "name": "ada", "password": PASSWORD}
        assert browser.post("/api/v1/setup", json=body).status_code == 201
        path = "/api/v1/projects/default"
        made = browser.post(f"{path}/keys", json={"name": "k", "role": "admin"})
        until = time.monotonic() + PATIENCE_SECONDS
        source = {"source": PROGRAM}
        while (put := browser.post(f"{path}/programs", json=source)).status_code == 409:
            assert time.monotonic() < until, put.text  # no worker has said yet what it has
            time.sleep(0.2)
        assert put.status_code == 201, put.text
    return str(made.json()["key"])


def insistent(ask: Callable[[Client], Any], key: str, addresses: list[str], rng: Any) -> Any:
    """What a server answers, asked anywhere until one does: what may be asked twice."""
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            with Client(rng.choice(addresses), key) as server:
                return ask(server)
        except StoreError:
            assert time.monotonic() < until


@pytest.mark.campaign
def test_nothing_is_lost_or_shown_twice(
    monkeypatch: pytest.MonkeyPatch,
    postgres: PostgresServer,
    processes: list[Process],
) -> None:
    monkeypatch.setattr(client, "STREAM_ATTEMPTS", 1)  # a follower goes to another server at once
    rng = random.Random(SEED)
    key = key_of(processes[0])
    addresses = [one.address for one in processes[:2]]
    followers: list[Follower] = []
    kills = cases(KILLS, FEWEST)
    for number in range(kills):
        for one in range(RUNS_OF_A_KILL):
            run_id = f"run-{number}-{one}"
            inputs = {"n": number, "items": list(range(4))}

            def start(server: Client, run_id: str = run_id, inputs: Any = inputs) -> str:
                return server.start("orders", inputs, run_id=run_id)

            assert insistent(start, key, addresses, rng) == run_id
            follower = Follower(run_id, key, addresses, rng.randrange(2**32))
            follower.start()
            followers.append(follower)
        time.sleep(rng.uniform(0, 1.0))
        if number % 2:
            victim = rng.choice(processes[2:])
        else:  # a server at which one follows a run that cannot end before it is sent an event
            followers[-1].wait()
            victim = processes[addresses.index(followers[-1].address)]
        victim.kill()
        time.sleep(rng.uniform(0, 0.5))
        victim.start()
        for follower in followers[-RUNS_OF_A_KILL:]:

            def go(server: Client, run_id: str = follower.run_id) -> bool:
                return server.send_event(run_id, "go", id="once")

            insistent(go, key, addresses, rng)
    for follower in followers:
        follower.join(PATIENCE_SECONDS)
        assert follower.ended == "success", (follower.run_id, follower.seen)
    for follower in followers:
        found = insistent(
            lambda server, run_id=follower.run_id: server.verify(run_id), key, addresses, rng
        )
        assert found["identical"], found["text"]
    store = open_store(processes[0].command[processes[0].command.index("--store") + 1])
    try:
        for follower in followers:
            rows = store.rows_after(follower.run_id)
            assert follower.seen == list(range(len(rows))), follower.run_id
        assert list(store.check()) == []
    except VMError as error:
        raise AssertionError(str(error)) from error
    finally:
        store.close()
    resumed = sum(follower.resumed for follower in followers)
    assert resumed >= (kills + 1) // 2, "a server was killed, and no stream was cut"
    print(f"{len(followers)} runs, {kills} kills, {resumed} streams resumed")
