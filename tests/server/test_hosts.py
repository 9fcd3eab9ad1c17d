"""Workers that say what they can do, and a server that checks and starts by that alone."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from nano_vm import ExecutionVM, Policy, Program, ProgramError
from nano_vm.language.flow import Flow
from nano_vm.run.announced import announcement
from nano_vm.server.hosts import Hosts
from nano_vm.store.protocol import Announced, open_tables
from nano_vm.values import parse_json

from .conftest import REFUND, World, pay

SHOP = "/api/v1/projects/shop"


@contextmanager
def working(url: str, name: str, **host: Any) -> Iterator[ExecutionVM]:
    """A worker in a thread of its own, for as long as this lasts."""
    vm = ExecutionVM(**{"tools": {"pay": pay}, **host}, store=url)
    loop = asyncio.new_event_loop()
    task = loop.create_task(vm.work(ended=lambda _: None, name=name, poll_seconds=0.05))

    def run() -> None:
        with pytest.raises(asyncio.CancelledError):
            loop.run_until_complete(task)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield vm
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(60)
        loop.close()
        vm.close()


def hosts(world: World, until: Callable[[Any], bool]) -> Any:
    """What the server says of hosts, once it is as *until* wants it."""
    end = time.monotonic() + 30
    while True:
        found = world.viewer.get(f"{SHOP}/hosts").json()
        if until(found):
            return found
        assert time.monotonic() < end, found
        time.sleep(0.05)


@pytest.mark.slow
def test_a_worker_is_what_a_program_is_checked_by(
    make_world: Callable[[str], World], database: str
) -> None:
    world = make_world(database)
    world.state.hosts.own = None
    assert world.viewer.get(f"{SHOP}/hosts").json() == {"hosts": [], "stranded": []}
    body = {"program": "refund", "inputs": {"order_id": "A-1", "amount": 7}}
    refused = world.developer.post(f"{SHOP}/runs", json=body)
    assert (refused.status_code, refused.json()["title"]) == (409, "no host")
    with working(database, "till") as vm:
        found = hosts(world, lambda told: len(told["hosts"]) == 1)["hosts"][0]
        assert (found["name"], found["alive"], found["fault"]) == ("till", True, None)
        [tool] = found["tools"]
        assert (tool["name"], tool["effect"]) == ("pay", "write")
        assert tool["arguments"]["properties"] == {"order_id": {"type": "string"}}
        run_id = world.developer.post(f"{SHOP}/runs", json=body).json()["id"]
        end = time.monotonic() + 30
        while vm.require_store().load(run_id, rows=False).status != "suspended":
            assert time.monotonic() < end
            time.sleep(0.05)
    # who leaves says so
    assert hosts(world, lambda told: told["hosts"] == [])["hosts"] == []


@pytest.mark.slow
def test_runs_that_no_worker_can_drive_are_shown_with_the_reason(
    make_world: Callable[[str], World], database: str
) -> None:
    world = make_world(database)
    run_id = world.developer.post(
        f"{SHOP}/runs", json={"program": "refund", "inputs": {"order_id": "A-1", "amount": 7}}
    ).json()["id"]
    world.state.hosts.own = None
    [stranded] = world.viewer.get(f"{SHOP}/hosts").json()["stranded"]
    assert (stranded["runs"], stranded["reasons"]) == (1, ["no worker is alive"])
    with working(database, "other", tools={"sell": pay}):
        found = hosts(world, lambda told: len(told["hosts"]) == 1)
        [stranded] = found["stranded"]
        assert stranded["program"] == "refund"
        assert stranded["reasons"][0].startswith("other: steps[1].tool: V0")
    assert world.state.store.load(run_id, rows=False).status == "pending"


@pytest.mark.slow
def test_a_run_of_a_program_that_this_version_refuses_is_shown_with_the_reason(
    make_world: Callable[[str], World], database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that a later version has submitted, whose language has more."""
    world = make_world(database)
    body = {"program": "refund", "inputs": {"order_id": "A-1", "amount": 7}}
    assert world.developer.post(f"{SHOP}/runs", json=body).status_code == 201
    pending = world.state.store.runs

    def newer(*which: Any, **more: Any) -> Any:
        for run in pending(*which, **more):
            run.document["program"]["steps"][1]["type"] = "new"
            yield run

    monkeypatch.setattr(world.state.store, "runs", newer)
    answer = world.viewer.get(f"{SHOP}/hosts")
    assert answer.status_code == 200, answer.text
    [stranded] = answer.json()["stranded"]
    assert (stranded["program"], stranded["runs"]) == ("refund", 1)
    assert stranded["reasons"][0].startswith("server: steps[")
    assert "new" in stranded["reasons"][0]


@pytest.mark.slow
def test_what_was_announced_wrongly_is_shown_and_not_used(
    make_world: Callable[[str], World], database: str
) -> None:
    world = make_world(database)
    world.state.hosts.own = None
    store = world.state.store
    store.heartbeat("odd", 60)
    for document in ("no json", "[1]", '{"format":1}', '{"format":2}'):
        store.announce(Announced("odd", "odd", document, 1, 2))
        [found] = world.viewer.get(f"{SHOP}/hosts").json()["hosts"]
        assert found["fault"], document
        answer = world.developer.post(f"{SHOP}/programs", json={"source": REFUND})
        assert answer.status_code == 409
    store.withdraw("odd")


ODD = (
    "null",
    "1e999",
    '{"tools": 7}',
    '{"tools": [{}], "models": [{}]}',
    '{"format": 1, "version": [], "tools": [{"name": 1}], "models": "x", "concurrency": {}}',
)


@pytest.mark.parametrize("document", ODD)
def test_an_announcement_that_cannot_be_read_hides_no_other(world: World, document: str) -> None:
    store, now = world.state.store, time.time_ns()
    store.heartbeat("odd", 60)
    store.announce(Announced("odd", "odd", document, 1, now))
    store.announce(Announced("even", "even", '{"format": 2}', 2, now))
    try:
        answer = world.viewer.get(f"{SHOP}/hosts")
        assert answer.status_code == 200, answer.text
        shown = {host["name"]: host for host in answer.json()["hosts"]}
        assert shown["odd"]["fault"]
        assert (shown["odd"]["tools"], shown["odd"]["concurrency"]) == ([], 0)
        assert "even" in shown
        assert world.developer.post(f"{SHOP}/programs", json={"source": REFUND}).is_success
    finally:
        store.withdraw("odd")
        store.withdraw("even")


@pytest.mark.slow
def test_a_worker_that_was_killed_is_forgotten_after_a_week(
    make_world: Callable[[str], World], database: str
) -> None:
    """By the store's clock: a worker whose own is years ahead has nobody forgotten."""
    store = make_world(database).state.store
    day, year = 24 * 3600, 365 * 24 * 3600 * 10**9
    for owner, ago, clock in (("killed", 8 * day, 10), ("away", 6 * day, 11), ("here", -60, year)):
        store.heartbeat(owner, -ago)
        store.announce(Announced(owner, owner, "{}", clock, clock))
    assert [said.owner for said in store.announced()] == ["away", "here"]


def test_of_workers_that_are_gone_nothing_is_read(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time_ns()
    world.state.store.announce(Announced("gone", "gone", "{}", 1, now))
    monkeypatch.setattr("nano_vm.server.hosts.parse_json", None)  # what reads an announcement
    assert [host.name for host in world.state.hosts.able()] == ["server"]
    world.state.store.withdraw("gone")


def test_what_workers_have_said_is_parsed_once_for_each_kind(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, now, parsed = world.state.store, time.time_ns(), []

    def parse(text: str) -> Any:
        parsed.append(text)
        return parse_json(text)

    monkeypatch.setattr("nano_vm.server.hosts.parse_json", parse)
    document = json.dumps(announcement(ExecutionVM(tools={"pay": pay}).preparer))
    made = Hosts(store, None)
    for owner, said in (("a", document), ("b", document), ("odd", "[1]")):
        store.heartbeat(owner, 60)
        store.announce(Announced(owner, owner, said, 1, now))
    try:
        [host] = made.able()
        assert sorted(parsed) == sorted([document, "[1]"])
        assert [found.vm for found in made.able()] == [host.vm]
        assert parsed.count(document) == 1, "it is known"
    finally:
        for owner in ("a", "b", "odd"):
            store.withdraw(owner)


def test_digests_of_a_program_on_its_hosts_are_made_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Hosts(world.state.store, ExecutionVM(tools={"pay": pay}))
    drawn: list[str] = []

    def flow(program: Program, called: Any) -> Flow:
        drawn.append(program.digest)
        return Flow(program, called)

    monkeypatch.setattr("nano_vm.server.hosts.Flow", flow)
    alone, caller = Program.from_yaml(CHECKED), Program.from_yaml(CALLER)
    for _ in range(2):
        assert made.digests(alone) == []
        assert made.digests(caller) == []  # it calls what is not there
    assert drawn == [alone.digest, caller.digest]
    made.own = ExecutionVM(tools={"pay": pay}, programs={"part": alone})
    for _ in range(2):
        assert made.digests(caller) == [Flow(caller, {"part": alone}).digest]
    assert drawn == [alone.digest, caller.digest, caller.digest], "another host has its own"


def test_a_program_that_is_fit_is_checked_once_without_a_policy_and_once_under_each(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Hosts(world.state.store, ExecutionVM(tools={"pay": pay}))
    checked: list[Policy | None] = []
    check = ExecutionVM.check

    def counted(vm: ExecutionVM, program: Program) -> Any:
        checked.append(vm.preparer.policy)
        return check(vm, program)

    monkeypatch.setattr(ExecutionVM, "check", counted)
    program = Program.from_yaml(CHECKED)
    allows = Policy.from_dict({"tools": {"pay": {}}})
    forbids = Policy.from_dict({"tools": {"pay": {"approval": "manager"}}})
    for _ in range(2):
        assert made.for_program(program, None) is made.own
        assert made.for_program(program, allows) is made.own
        with pytest.raises(ProgramError):
            made.for_program(program, forbids)
    assert checked == [None, allows, forbids, forbids], "errors are found anew"


def test_what_is_known_of_a_host_does_not_keep_it(world: World) -> None:
    made = Hosts(world.state.store, ExecutionVM(tools={"pay": pay}))
    program = Program.from_yaml(CHECKED)
    allows = Policy.from_dict({"tools": {"pay": {}}})
    assert made.digests(program) == []
    assert made.for_program(program, allows) is made.own
    assert made.own is not None
    dropped = weakref.ref(made.own)
    made.own = None
    gc.collect()
    assert dropped() is None


@pytest.mark.slow
def test_a_worker_that_is_gone_is_not_asked(
    make_world: Callable[[str], World], database: str
) -> None:
    world = make_world(database)
    world.state.hosts.own = None
    with working(database, "till"):
        hosts(world, lambda told: len(told["hosts"]) == 1)
        [said] = world.state.store.announced()
    world.state.store.announce(said)  # as if it had died
    [found] = world.viewer.get(f"{SHOP}/hosts").json()["hosts"]
    assert found["alive"] is False
    answer = world.developer.post(f"{SHOP}/programs", json={"source": REFUND})
    assert answer.json()["title"] == "no host"


def test_a_store_that_no_server_has_opened_is_told_nothing(tmp_path: Any) -> None:
    url = f"sqlite:///{tmp_path}/plain.db"
    with working(url, "till") as vm:
        time.sleep(0.2)
        assert not vm.require_store().announce(Announced("x", "x", "{}", 1, 1))  # type: ignore[attr-defined]
    open_tables(url).close()
    with working(url, "till") as vm:
        end = time.monotonic() + 30
        while not vm.require_store().announced():  # type: ignore[attr-defined]
            assert time.monotonic() < end
            time.sleep(0.05)


CALLER = "{name: caller, steps: [{id: part, type: call, program: part}]}"

CHECKED = """
name: careless
inputs: {type: object, properties: {who: {type: string}}, required: [who]}
steps:
  - {id: pay, type: tool, tool: pay, args: {order_id: $who}}
"""


@pytest.mark.slow
def test_a_program_is_checked_while_it_is_typed(world: World) -> None:
    def check(source: str) -> Any:
        answer = world.viewer.post(f"{SHOP}/programs/check", json={"source": source})
        assert answer.status_code == 200, answer.text
        return answer.json()

    found = check(CHECKED)
    assert (found["host"], found["name"], found["diagnostics"]) == ("server", "careless", [])
    assert found["chart"]["boxes"][0]["id"] == "pay"
    assert found["report"]["ceiling"] is not None
    broken = check(CHECKED.replace("tool: pay", "tool: pya"))
    [diagnostic] = broken["diagnostics"]
    assert diagnostic["hint"] is not None
    unread = check("steps: [{id: a")
    assert (unread["host"], unread["report"], unread["chart"]) == (None, None, None)
    assert unread["diagnostics"][0]["line"] >= 1


def test_a_guard_that_is_broken_comes_with_its_counterexample(world: World) -> None:
    policy = {"inputs": {"*": "untrusted"}, "tools": {"pay": {"args": {"order_id": "trusted"}}}}
    own = world.state.hosts.own
    world.state.hosts.own = ExecutionVM(None, {"pay": pay}, policy=policy)
    try:
        source = {"source": CHECKED}
        found = world.viewer.post(f"{SHOP}/programs/check", json=source).json()
        [proof] = [p for p in found["report"]["proofs"] if p["status"] != "proved"]
        assert proof["path"] or proof["run"] or proof["statement"]
        refused = world.developer.post(f"{SHOP}/programs", json=source)
        assert (refused.status_code, refused.json()["title"]) == (422, "refused")
        assert refused.json()["diagnostics"]
    finally:
        world.state.hosts.own = own


def test_versions_are_compared_and_drawn(world: World) -> None:
    for value in (1, 2):
        source = f"name: two\nsteps: [{{id: a, type: set, values: {{x: {value}}}}}]\n"
        world.developer.post(f"{SHOP}/programs", json={"source": source})
    found = world.viewer.get(f"{SHOP}/programs/two/diff/1/2").json()
    assert (found["same"], "x" in found["text"]) == (False, True)
    assert found["a"]["boxes"][0]["id"] == "a"
    assert "digest" in found["whole"]
    values = ['{"x":1}', '{"x":2}']
    assert found["steps"] == [
        {"path": "a", "side": "", "differs": True, "fields": {"values": values}}
    ]
    assert world.viewer.get(f"{SHOP}/programs/two/graph").json()["name"] == "two"
    assert world.viewer.get(f"{SHOP}/programs/two/diff/1/9").status_code == 404
    assert Program.from_yaml(source).name == "two"


def test_versions_that_have_no_graph_of_their_own_are_compared(world: World) -> None:
    own = world.state.hosts.own
    called = Program.from_yaml("name: other\nsteps: [{id: a, type: set, values: {x: 1}}]\n")
    world.state.hosts.own = ExecutionVM(None, programs={"other": called})
    try:
        for step in ("b", "c"):
            source = f"name: calls\nsteps: [{{id: {step}, type: call, program: other}}]\n"
            put = world.developer.post(f"{SHOP}/programs", json={"source": source})
            assert put.status_code == 201, put.text
        found = world.viewer.get(f"{SHOP}/programs/calls/diff/1/2").json()
    finally:
        world.state.hosts.own = own
    assert (found["a"], found["b"]) == (None, None)
    assert [(step["path"], step["side"]) for step in found["steps"]] == [("b", "a"), ("c", "b")]
