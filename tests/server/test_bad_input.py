"""What goes wrong around a server: each gets one clear answer, and nothing is lost. A port in use
is in `test_processes`, a stream that is cut in `test_events`; what fails for real, and two people in
the same moment, in `test_bad_ways`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient

from nano_vm import ExecutionVM
from nano_vm.cli import main
from nano_vm.errors import StoreError
from nano_vm.run.announced import announcement
from nano_vm.server import app
from nano_vm.server.state import State
from nano_vm.server.tables import programs
from nano_vm.store.protocol import Announced, open_tables
from nano_vm.values import canonical

from .conftest import HOST, REFUND, World, pay

SHOP = "/api/v1/projects/shop"

Make = Callable[[str], World]


def test_a_database_of_a_newer_version(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"sqlite:///{tmp_path}/runs.db"
    store = open_tables(url)
    store.transact(lambda rows: rows.run("UPDATE nano_alembic SET version_num = '9999'"))
    store.close()
    assert main(["serve", "--store", url, "--bind", "0"]) == 2
    told = capsys.readouterr().err.strip()
    assert "\n" not in told
    assert "9999" in told
    assert "newer" in told


@pytest.mark.parametrize(
    ("option", "value", "remedy"),
    [
        ("--policy", "allowed.yaml", "--with-worker, or --tools"),
        ("--approve", "0" * 64, "--with-worker, or --tools"),
        ("--price", "m=1,2", "--with-worker, or --tools"),
        ("--base-url", "http://127.0.0.1:9", "--with-worker, or --tools"),
        ("--trust", "0" * 64, "--with-worker, or --tools"),
        ("--concurrency", "3", "--with-worker"),
    ],
)
def test_an_option_that_would_say_nothing_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    option: str,
    value: str,
    remedy: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("nano_vm.cli.commands.serve._serve", lambda *_: None)
    serve = ["serve", "--store", f"sqlite:///{tmp_path}/runs.db", "--bind", "0"]
    assert main([*serve, option, value]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"nano-vm: {option} is of a ")
    assert told.count("\n") == 1
    assert f"add {remedy}" in told


def test_tools_of_a_server_of_tools_make_a_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    served: list[State] = []
    monkeypatch.setattr("nano_vm.cli.commands.serve._serve", lambda state, *_: served.append(state))
    monkeypatch.setattr(
        "nano_vm.cli.servers.load_servers", lambda given, servers, known: {"pay": pay}
    )
    command = ["serve", "--store", f"sqlite:///{tmp_path}/runs.db", "--mcp", "payments"]
    assert main(command) == 0, capsys.readouterr().err
    [state] = served
    assert state.vm is not None
    assert list(state.vm.tools) == ["pay"]


@pytest.mark.parametrize("passing", [True, False])
def test_a_database_that_goes_away_and_comes_back(
    world: World, monkeypatch: pytest.MonkeyPatch, passing: bool
) -> None:
    run_id = world.start()
    body = {"program": "refund", "inputs": {"order_id": "A", "amount": 1}, "run_id": f"b{passing}"}
    store = type(world.state.store)

    def away(*_: Any, **__: Any) -> Any:
        error = StoreError("server closed the connection: password=hunter2", passing=passing)
        raise error from (None if passing else OSError("gone"))

    with monkeypatch.context() as gone:
        for name in ("reading", "transact", "create", "load", "written"):
            gone.setattr(store, name, away)
        for ask in (
            lambda: world.developer.get(f"{SHOP}/runs/{run_id}"),
            lambda: world.developer.post(f"{SHOP}/runs", json=body),
            lambda: world.client().post("/api/v1/login", json={"name": "x", "password": "y"}),
            lambda: world.client().get("/readyz"),
        ):
            answer = ask()
            assert (answer.status_code, answer.json()["title"]) == (503, "store")
            assert "hunter2" not in answer.text
        assert world.client().get("/healthz").is_success
    assert world.client().get("/readyz").is_success
    assert world.developer.get(f"{SHOP}/runs/{run_id}").is_success, "still logged in"
    assert world.developer.post(f"{SHOP}/runs", json=body).status_code == 201
    assert world.owner.get("/api/v1/audit/verify").json() == {"faults": []}


def test_pages_that_were_not_built(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("nano_vm.ui.page.DIST", tmp_path)
    app.part.cache_clear()
    for path in ("/", "/projects/shop/", "/assets/app.js"):
        answer = world.client().get(path)
        assert answer.status_code == 501
        assert "the pages of the UI are not built" in answer.json()["detail"]
    assert world.viewer.get(f"{SHOP}/runs").is_success, "the API needs none"
    app.part.cache_clear()


def test_a_worker_that_announces_what_is_not_true(make_world: Make, tmp_path: Path) -> None:
    """It says that it has a tool `pay`, and has another one: its calls fail closed."""
    url = f"sqlite:///{tmp_path}/runs.db"
    world = make_world(url)
    calls: list[str] = []

    async def sell(order_id: str) -> str:
        calls.append(order_id)
        return "sold"

    told = ExecutionVM(None, {"pay": pay}, store=world.state.store)
    liar = ExecutionVM(None, {"sell": sell}, store=world.state.store)

    document = canonical({**announcement(told.preparer), "concurrency": 1}).decode()
    world.state.hosts.own = None
    world.state.store.heartbeat("liar", 60)
    world.state.store.announce(Announced("liar", "liar", document, 1, time.time_ns()))
    body = {"program": "refund", "inputs": {"order_id": "A-1", "amount": 7}}
    run_id = world.developer.post(f"{SHOP}/runs", json=body).json()["id"]

    with ThreadPoolExecutor(1) as threads:
        threads.submit(lambda: asyncio.run(liar.work(until_idle=True))).result(60)
    assert calls == []
    run = world.state.store.load(run_id)
    assert (run.status, run.rows) == ("pending", [])
    world.work()  # an honest one
    assert world.state.store.load(run_id, rows=False).status == "suspended"


def test_two_people_who_decide_at_once(world: World) -> None:
    run_id = world.start()
    asked = world.operator.get(f"{SHOP}/inbox").json()["asked"]
    [shown] = [one["shown"] for one in asked if one["run"] == run_id]
    body = {"run": run_id, "path": "approve", "shown": shown, "answer": "approve"}
    no = {**body, "answer": "reject", "reason": "too much"}
    assert world.operator.post(f"{SHOP}/inbox", json=no).is_success
    late = world.owner.post(f"{SHOP}/inbox", json=body)
    assert (late.status_code, late.json()["title"]) == (409, "already decided")
    assert "reject by 'operator'" in late.json()["detail"]


def test_a_server_whose_clock_is_wrong(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked has the server's time, by which a page reckons; nobody decides too late by a
    deadline that another clock has not reached.
    """
    run_id = world.start()
    real = time.time_ns
    for skew in (-3600, 3600):
        monkeypatch.setattr(time, "time_ns", lambda skew=skew: real() + skew * 10**9)
        found = world.operator.get(f"{SHOP}/inbox").json()
        assert abs(found["now"] - time.time_ns() / 1e6) < 60_000
        assert run_id in [one["run"] for one in found["asked"]]
        assert world.viewer.get(f"{SHOP}/hosts").is_success
    monkeypatch.undo()
    assert world.owner.get("/api/v1/audit/verify").json() == {"faults": []}


def test_a_program_that_is_refused_has_its_faults_on_the_line(world: World) -> None:
    source = REFUND.replace("tool: pay", "tool: pya")
    answer = world.developer.post(f"{SHOP}/programs", json={"source": source})
    assert (answer.status_code, answer.json()["title"]) == (422, "refused")
    [fault] = answer.json()["diagnostics"]
    line = next(n for n, text in enumerate(source.splitlines(), 1) if "pya" in text)
    assert (fault["line"], "pay" in fault["hint"]) == (line, True)


def test_a_program_that_is_gone_while_its_runs_are_under_way(
    make_world: Make, tmp_path: Path
) -> None:
    world = make_world(f"sqlite:///{tmp_path}/runs.db")
    run_id = world.start()
    gone = sa.delete(programs).where(programs.c.project == "shop")
    world.state.tables.write(lambda rows: rows.run(gone))
    body = {"program": "refund", "inputs": {"order_id": "A-1", "amount": 7}}
    answer = world.developer.post(f"{SHOP}/runs", json=body)
    assert (answer.status_code, "no program 'refund'" in answer.text) == (404, True)
    [one] = world.operator.get(f"{SHOP}/inbox").json()["asked"]
    answer = {"run": run_id, "path": "approve", "shown": one["shown"], "answer": "approve"}
    assert world.operator.post(f"{SHOP}/inbox", json=answer).is_success
    world.work()
    run = world.developer.get(f"{SHOP}/runs/{run_id}").json()["run"]
    assert (run["status"], run["output"]) == ("success", '"paid A-1"')
    assert world.developer.get(f"{SHOP}/runs/{run_id}/verify").json()["identical"]


def test_a_request_that_no_server_can_read(world: World) -> None:
    client = TestClient(world.app, base_url=HOST, headers={"origin": HOST})
    for content in (b"\xff", b"{", b'{"name": "\\ud800", "password": "x"}', b"[" * 10_000):
        answer = client.post("/api/v1/login", content=content)
        assert answer.status_code == 422, content[:20]
        assert answer.headers["content-type"] == "application/problem+json"
