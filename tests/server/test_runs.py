"""Runs by the API: started, decided, recomputed, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from nano_vm import ExecutionVM
from nano_vm.draw import view
from nano_vm.newest import Newest
from nano_vm.records.secrecy import REDACTED
from nano_vm.run.inbox import Inbox
from nano_vm.store.sql.database import Connection

from .conftest import World

SHOP = "/api/v1/projects/shop"


@pytest.mark.slow
def test_a_run_is_started_approved_and_verified(
    make_world: Callable[[str], World], database: str
) -> None:
    world = make_world(database)
    run_id = world.start()
    listed = world.viewer.get(f"{SHOP}/runs").json()["runs"]
    assert [(row["id"], row["status"], row["submitter"]) for row in listed] == [
        (run_id, "suspended", "developer")
    ]
    asked = world.operator.get(f"{SHOP}/inbox").json()
    assert asked["by"] == "operator"
    [one] = asked["asked"]
    assert [(fact["name"], fact["text"]) for fact in one["facts"]] == [
        ("order", '"A-1"'),
        ("amount", "7"),
    ]
    answer = {
        "run": run_id,
        "path": "approve",
        "shown": one["shown"],
        "answer": "approve",
        "reason": "seen it",
    }
    # who lacks the role that the approval asks for; who does not see the project; who is late
    assert world.admin.post(f"{SHOP}/inbox", json=answer).status_code == 403
    assert world.stranger.post(f"{SHOP}/inbox", json=answer).status_code == 404
    other = {**answer, "shown": "0" * 64}
    changed = world.operator.post(f"{SHOP}/inbox", json=other)
    assert (changed.status_code, changed.json()["title"]) == (409, "changed")
    assert world.operator.post(f"{SHOP}/inbox", json=answer).json() == {
        "recorded": True,
        "missing": 0,
    }
    late = world.owner.post(f"{SHOP}/inbox", json=answer)
    assert late.status_code == 409
    assert "by 'operator'" in late.json()["detail"]
    world.work()
    verified = world.developer.get(f"{SHOP}/runs/{run_id}/verify").json()
    assert (verified["identical"], verified["complete"]) == (True, True)
    run = world.developer.get(f"{SHOP}/runs/{run_id}").json()["run"]
    assert (run["status"], run["output"]) == ("success", '"paid A-1"')
    actions = [
        (row["actor"], row["action"])
        for row in world.admin.get(f"{SHOP}/audit").json()["entries"]
        if row["target"] == run_id
    ]
    assert actions == [("operator", "step.approved"), ("developer", "run.started")]
    assert world.owner.get("/api/v1/audit/verify").json() == {"faults": []}


@pytest.mark.slow
def test_who_may_not_read_contents_sees_path_and_cost_only(world: World) -> None:
    run_id = world.start(inputs={"order_id": "SECRET-1", "amount": 1})
    for name in ("operator", "viewer"):
        for path in (f"/runs/{run_id}", "/runs", f"/runs/{run_id}/verify"):
            answer = world.people[name].get(f"{SHOP}{path}")
            assert answer.status_code == 200
            assert "SECRET-1" not in answer.text
    assert "SECRET-1" in world.developer.get(f"{SHOP}/runs/{run_id}").text


def test_who_may_not_read_contents_learns_nothing_by_guessing_the_inputs_of_a_run(
    make_world: Callable[[str], World], tmp_path: Path
) -> None:
    """Whoever starts it again is answered by whether the inputs are the same."""
    world = make_world(f"sqlite:///{tmp_path}/runs.db")
    runs, inputs = f"{SHOP}/runs", {"order_id": "SECRET-3", "amount": 3}
    body: dict[str, Any] = {"program": "refund", "inputs": inputs}
    header = {"Idempotency-Key": "order SECRET-3"}
    keyed = world.developer.post(runs, json=body, headers=header).json()["id"]
    for run_id in (world.start(inputs=inputs), keyed):
        right = {**body, "run_id": run_id}
        wrong = {**right, "inputs": {"order_id": "SECRET-4", "amount": 3}}
        told = [world.operator.post(runs, json=guess) for guess in (right, wrong)]
        assert [(one.status_code, one.json()["title"]) for one in told] == [(409, "taken")] * 2
        details = [one.json()["detail"] for one in told]
        assert details[0] == details[1]
        # who reads it knows; and it is that run
        again = world.admin.post(runs, json=right)
        assert (again.status_code, again.json()["created"]) == (200, False)
        assert world.admin.post(runs, json=wrong).status_code == 409
    # what somebody else calls so is another run; and who started one may ask for it again
    own = world.operator.post(runs, json=body, headers=header)
    assert own.status_code == 201
    assert own.json()["id"] != keyed
    for asked in (
        {"headers": header, "json": body},
        {"json": {**body, "run_id": own.json()["id"]}},
    ):
        again = world.operator.post(runs, **asked)
        assert (again.status_code, again.json()) == (200, {**own.json(), "created": False})
        changed = {**asked["json"], "inputs": {"order_id": "SECRET-3", "amount": 4}}
        assert world.operator.post(runs, **{**asked, "json": changed}).status_code == 409


def test_who_decides_sees_what_is_asked_of_people_and_no_more(
    make_world: Callable[[str], World], tmp_path: Path
) -> None:
    world = make_world(f"sqlite:///{tmp_path}/runs.db")
    source = """
name: paid
inputs: {type: object, properties: {order_id: {type: string}}, required: [order_id]}
steps:
  - id: both
    type: parallel
    parallel_steps:
      - {id: ask, type: approval, role: manager, show: {order: $order_id}}
      - {id: paid, type: wait, event: paid, match: {account: "DE $order_id"}}
"""
    put = world.developer.post(f"{SHOP}/programs", json={"source": source})
    assert put.status_code == 201, put.text
    run_id = world.start(program="paid", inputs={"order_id": "SECRET-2"})
    run = world.operator.get(f"{SHOP}/standings/{run_id}").json()["run"]
    ask, paid = sorted(run["waiting"], key=lambda entry: str(entry["path"]))
    assert ask["show"] == {"order": "SECRET-2"}
    assert (paid["event"], paid["match"]) == ("paid", "[redacted]")


@pytest.mark.slow
def test_a_run_is_started_once(world: World) -> None:
    body: dict[str, Any] = {"program": "refund", "inputs": {"order_id": "A-9", "amount": 9}}
    header = {"Idempotency-Key": "order A-9"}
    runs = f"{SHOP}/runs"
    first = world.developer.post(runs, json=body, headers=header)
    again = world.developer.post(runs, json=body, headers=header)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["id"] == again.json()["id"]
    assert (first.json()["created"], again.json()["created"]) == (True, False)
    # what somebody else calls so is another run
    other = world.operator.post(runs, json=body, headers=header)
    assert other.json()["id"] != first.json()["id"]
    body["run_id"] = first.json()["id"]
    body["inputs"] = {"order_id": "A-9", "amount": 10}
    taken = world.developer.post(runs, json=body)
    assert (taken.status_code, taken.json()["title"]) == (409, "taken")


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        ({"program": "none"}, 404, "there is no program 'none'"),
        ({"program": "refund", "version": 9}, 404, "version 9"),
        ({"program": "refund", "inputs": {"order_id": "x"}}, 422, "amount"),
        ({"program": "refund", "inputs": [1]}, 422, "inputs"),
        ({"program": "refund", "run_id": "a b"}, 422, "run_id"),
        ({"program": "refund", "labels": {"": "x"}}, 422, "label"),
    ],
)
def test_a_run_that_is_refused(world: World, body: Any, status: int, told: str) -> None:
    answer = world.developer.post(f"{SHOP}/runs", json=body)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert told in answer.text


def test_a_program_that_is_refused_is_not_put(world: World) -> None:
    source = "name: bad\nsteps:\n  - {id: a, type: tool, tool: nothing_such}\n"
    answer = world.developer.post(f"{SHOP}/programs", json={"source": source})
    assert answer.status_code == 422
    [found] = answer.json()["diagnostics"]
    assert found["place"].startswith("<text>:3") or found["loc"] == ["steps", 0, "tool"]
    assert world.developer.get(f"{SHOP}/programs/bad").status_code == 404


def test_a_program_has_versions(world: World) -> None:
    def put(text: str) -> Any:
        source = f"name: note\nsteps:\n  - {{id: a, type: set, values: {{x: {text}}}}}\n"
        return world.developer.post(f"{SHOP}/programs", json={"source": source}).json()

    assert [put(text)["version"] for text in ("1", "2", "2", "1")] == [1, 2, 2, 3]
    read = world.viewer.get(f"{SHOP}/programs/note/versions/2").json()
    assert (read["version"], read["versions"]) == (2, [1, 2, 3])
    listed = {
        p["name"]: p["version"] for p in world.viewer.get(f"{SHOP}/programs").json()["programs"]
    }
    assert listed == {"note": 3, "refund": 1}


def test_a_project_may_ask_for_four_eyes(world: World) -> None:
    run_id = world.start("operator", run_id="four-eyes")
    assert world.admin.put(f"{SHOP}/settings", json={"four_eyes": True}).is_success
    [one] = [a for a in world.operator.get(f"{SHOP}/inbox").json()["asked"] if a["run"] == run_id]
    answer = {"run": run_id, "path": "approve", "shown": one["shown"], "answer": "approve"}
    refused = world.operator.post(f"{SHOP}/inbox", json=answer)
    assert refused.status_code == 403
    assert "another than who started it" in refused.json()["detail"]
    assert world.owner.post(f"{SHOP}/inbox", json=answer).status_code == 200
    assert world.admin.put(f"{SHOP}/settings", json={"four_eyes": False}).is_success


def test_a_run_is_cancelled_with_its_entry(world: World) -> None:
    run_id = world.start()
    assert world.operator.post(f"{SHOP}/runs/{run_id}/cancel").json() == {"recorded": True}
    again = world.operator.post(f"{SHOP}/runs/{run_id}/cancel")
    assert (again.status_code, again.json()["title"]) == (409, "already decided")
    entries = world.admin.get(f"{SHOP}/audit").json()["entries"]
    assert [e["action"] for e in entries if e["target"] == run_id] == [
        "run.cancelled",
        "run.started",
    ]


def test_a_change_whose_entry_fails_is_not_made(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = world.start()

    def fail(*_: Any) -> None:
        raise RuntimeError("the log cannot be written")

    monkeypatch.setattr("nano_vm.server.audit.hash_of", fail)
    assert world.operator.post(f"{SHOP}/runs/{run_id}/cancel").status_code == 503
    monkeypatch.undo()
    store = world.state.store
    assert store.load(run_id, rows=False).inbox == []
    Inbox(store, None, __import__("time")).cancel(run_id, by="mia")


def test_what_was_erased_is_answered_no_longer(make_world: Any, tmp_path: Path) -> None:
    """Also where the answer was kept: a run that has ended is not drawn again for each who looks."""
    world = make_world(f"sqlite:///{tmp_path}/runs.db")
    run_id = world.start(inputs={"order_id": "SECRET-9", "amount": 7})
    path = f"/api/v1/projects/shop/runs/{run_id}"
    waiting = world.developer.get(path).json()
    [asked] = world.operator.get("/api/v1/projects/shop/inbox").json()["asked"]
    answer = {"run": run_id, "path": "approve", "shown": asked["shown"], "answer": "approve"}
    assert world.operator.post("/api/v1/projects/shop/inbox", json=answer).is_success
    world.work()
    ended = world.developer.get(path)
    assert ended.json()["version"] != waiting["version"]
    assert world.developer.get(path).content == ended.content
    assert "SECRET-9" in ended.text
    assert "SECRET-9" not in world.viewer.get(path).text
    assert world.stranger.get(path).status_code == 404
    world.state.store.erase(run_id)
    erased = world.developer.get(path)
    assert "SECRET-9" not in erased.text
    assert erased.json()["run"]["erased"]


def test_a_run_of_a_large_program_comes_without_its_graph_first_to_who_asks_so(
    make_world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view, "_CHARTS", Newest(view.KEPT_NODES, view._size))
    monkeypatch.setattr(view, "LARGE_STEPS", 2)
    world = make_world(f"sqlite:///{tmp_path}/runs.db")
    world.start()  # of the same program
    run_id = world.start(inputs={"order_id": "SECRET-9", "amount": 7})
    path = f"{SHOP}/runs/{run_id}"
    world.developer.post(f"{path}/cancel")
    world.work()  # a view of what has ended is kept
    first = world.viewer.get(path, params={"graph": "later"}).json()
    assert (first["run"]["chart"], first["run"]["chart_fault"]) == (None, None)
    assert "SECRET-9" not in str(first)
    again = {"seen": first["version"], "graph": "later"}
    whole = world.viewer.get(path, params=again).json()
    assert whole["run"]["chart"] is not None
    assert "SECRET-9" not in str(whole)
    assert whole["version"] != first["version"]
    assert world.viewer.get(path, params={"seen": whole["version"]}).json()["run"] is None
    assert world.viewer.get(path, params={"graph": "later"}).json() == whole
    assert "SECRET-9" in world.developer.get(path, params=again).text
    assert world.viewer.get(path, params={"graph": "soon"}).status_code == 422


def test_a_start_asks_the_database_for_who_asks_then_for_program_and_policy_and_writes_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.start()  # what is known by now is not found out again
    database = world.state.store.database  # type: ignore[attr-defined]
    done: list[str] = []

    def counted(name: str) -> None:
        call = getattr(Connection, name)

        def counting(self: Connection, *given: Any, **more: Any) -> Any:
            if self.database is database:
                told = name if name == "begin" else " ".join(given[0].split()[:3])
                done.append(told if not more.get("write", True) else told.upper())
            return call(self, *given, **more)

        monkeypatch.setattr(Connection, name, counting)

    for name in ("begin", "one", "all", "run"):
        counted(name)
    body = {"program": "refund", "inputs": {"order_id": "A-1", "amount": 7}}
    answer = world.developer.post("/api/v1/projects/shop/runs", json=body)
    assert answer.status_code == 201
    begun = [number for number, what in enumerate(done) if what in ("begin", "BEGIN")]
    assert [done[number] for number in begun] == ["begin", "begin", "BEGIN"]
    who, wanted, written = (done[a + 1 : b] for a, b in pairwise([*begun, len(done)]))
    assert (len(who), len(wanted)) == (1, 2)
    assert [what.split()[0] for what in written] == ["INSERT", "SELECT", "INSERT", "UPDATE"]


def test_what_went_wrong_is_redacted_in_one_word_wherever_it_may_not_be_read(world: World) -> None:
    async def pay(order_id: str) -> str:
        raise ValueError("the card of SECRET-7 was refused")

    run_id = world.start()
    asked = world.operator.get(f"{SHOP}/inbox").json()["asked"]
    [one] = [one for one in asked if one["run"] == run_id]
    answer = {"run": run_id, "path": "approve", "shown": one["shown"], "answer": "approve"}
    assert world.operator.post(f"{SHOP}/inbox", json=answer).is_success
    broken = ExecutionVM(None, {"pay": pay}, store=world.state.store)
    with ThreadPoolExecutor(1) as threads:
        threads.submit(lambda: asyncio.run(broken.work(until_idle=True))).result(60)

    def errors(client: Any) -> list[str]:
        listed, briefs = (client.get(f"{SHOP}/{of}").json() for of in ("runs", "standings"))
        run = client.get(f"{SHOP}/runs/{run_id}").json()["run"]
        failed = [step["error"]["message"] for step in run["steps"] if step.get("error")]
        return [
            next(row["error"] for row in listed["runs"] if row["id"] == run_id),
            next(row["error"] for row in briefs["runs"] if row["run_id"] == run_id),
            run["error"],
            *failed,
        ]

    assert errors(world.viewer) == [REDACTED] * 4
    read = errors(world.developer)
    assert (len(read), all("SECRET-7" in error for error in read)) == (4, True), read
