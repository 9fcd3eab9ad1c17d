"""Forks by the API: what they take is taken by the server, what they call is called by a worker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest

from nano_vm import ExecutionVM, tool
from nano_vm.store.protocol import RunFilter
from nano_vm.testing import ScriptedLLM

from .conftest import World

SHOP = "/api/v1/projects/shop"

TRIAGE = """
name: triage
inputs:
  type: object
  properties: {order_id: {type: string}}
  required: [order_id]
steps:
  - {id: fetch, type: tool, tool: fetch, args: {order_id: $order_id}, output_key: order}
  - {id: judge, type: llm, prompt: "Is it broken? $order", output_key: verdict}
  - id: broken
    type: condition
    condition: "'yes' in $verdict"
    then: both
    otherwise: $end
  - id: both
    type: parallel
    next: refund
    parallel_steps:
      - {id: look, type: tool, tool: fetch, args: {order_id: B}}
      - {id: word, type: llm, prompt: "Say sorry for $order"}
  - {id: refund, type: tool, tool: refund, args: {order_id: $order_id}}
"""


@dataclass
class Host:
    """A worker's tools and model, which note what is called."""

    calls: list[str] = field(default_factory=list)

    def vm(self, **more: Any) -> ExecutionVM:
        """A host with them."""

        @tool(effect="read")
        async def fetch(order_id: str) -> str:
            self.calls.append(f"fetch {order_id}")
            return f"a lamp for {order_id}"

        @tool(effect="irreversible")
        async def refund(order_id: str) -> str:
            self.calls.append(f"refund {order_id}")
            return f"refunded {order_id}"

        def answer(messages: Any, **_: Any) -> str:
            said = messages[-1]["content"]
            self.calls.append(said)
            return "yes, broken" if said.startswith("Is it") else "sorry"

        return ExecutionVM(ScriptedLLM(answer), {"fetch": fetch, "refund": refund}, **more)

    def work(self, world: World) -> list[str]:
        """Drive what is to be driven; what was called for it."""
        self.calls.clear()
        vm = self.vm(store=world.state.store)
        with ThreadPoolExecutor(1) as threads:
            threads.submit(lambda: asyncio.run(vm.work(until_idle=True))).result(60)
        return list(self.calls)


@pytest.fixture(scope="module")
def triage(world: World) -> tuple[World, Host, str]:
    """As `driven`, of the server that the tests of this module share."""
    return driven(world)


def driven(world: World) -> tuple[World, Host, str]:
    """A server whose worker has driven a run of `TRIAGE` to its end."""
    host = Host()
    world.state.hosts.own = host.vm()
    put = world.developer.post(f"{SHOP}/programs", json={"source": TRIAGE})
    assert put.status_code == 201, put.text
    return world, host, finished(world, host)


def finished(world: World, host: Host) -> str:
    """A run of `TRIAGE` that has ended."""
    body = {"program": "triage", "inputs": {"order_id": "A"}, "labels": {"team": "blue"}}
    run_id = world.developer.post(f"{SHOP}/runs", json=body).json()["id"]
    assert len(host.work(world)) == 5
    return str(run_id)


def run_of(world: World, run_id: str) -> Any:
    return world.developer.get(f"{SHOP}/runs/{run_id}").json()["run"]


@pytest.mark.slow
def test_a_fork_takes_what_is_asked_the_same_and_a_worker_calls_the_rest(
    make_world: Callable[[str], World], database: str
) -> None:
    world, host, run_id = driven(make_world(database))
    body = {"edit": {"word": {"prompt": "Say sorry twice for $order"}}}
    fork = f"{SHOP}/runs/{run_id}/fork"
    seen = world.developer.post(f"{fork}/preview", json=body).json()
    assert seen["taken"] == ["fetch", "judge", "both/look"]
    [call] = seen["calls"]
    assert (call["path"], call["type"], call["stops"]) == ("both/word", "llm", False)
    made = world.developer.post(fork, json=body)
    assert made.status_code == 201, made.text
    assert made.json()["taken"] == 3
    assert host.work(world) == ["Say sorry twice for a lamp for A"]
    run = run_of(world, made.json()["id"])
    # the refund has an effect: it waits for a person
    assert (run["status"], run["parent"], run["labels"]) == ("suspended", run_id, {"team": "blue"})
    assert '"kind":"effect"' in run["waiting"][0]
    verified = world.developer.get(f"{SHOP}/runs/{run['id']}/verify").json()
    assert verified["identical"], verified
    stored = world.state.store.load(run["id"])
    assert [row.path for row in stored.rows if row.model is not None] == ["both/word"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "taken", "first", "called"),
    [
        ({}, 5, [], []),
        (
            {"at": "judge"},
            1,
            ["judge"],
            ["Is it broken? a lamp for A", "Say sorry for a lamp for A", "fetch B"],
        ),
        ({"edit": {"judge": {"output": "no"}}}, 2, [], []),
        (
            {"edit": {"fetch": {"output": "a vase"}}},
            1,
            ["judge"],
            ["Is it broken? a vase", "Say sorry for a vase", "fetch B"],
        ),
        (
            {"edit": {"inputs": {"order_id": "C"}}},
            0,
            ["fetch"],
            ["Is it broken? a lamp for C", "Say sorry for a lamp for C", "fetch B", "fetch C"],
        ),
    ],
)
def test_what_is_edited_is_called_anew_from_there_on(
    triage: tuple[World, Host, str], body: Any, taken: int, first: list[str], called: list[str]
) -> None:
    world, host, run_id = triage
    fork = f"{SHOP}/runs/{run_id}/fork"
    seen = world.developer.post(f"{fork}/preview", json=body).json()
    assert (len(seen["taken"]), [call["path"] for call in seen["calls"]]) == (taken, first)
    made = world.developer.post(fork, json=body).json()
    assert sorted(host.work(world)) == called  # and no refund: it waits for a person
    assert run_of(world, made["id"])["status"] == ("suspended" if called else "success")
    assert world.developer.get(f"{SHOP}/runs/{made['id']}/verify").json()["identical"]


def test_a_fork_that_may_makes_its_effects(triage: tuple[World, Host, str]) -> None:
    world, host, run_id = triage
    body = {"edit": {"inputs": {"order_id": "C"}}, "effects": True}
    made = world.developer.post(f"{SHOP}/runs/{run_id}/fork", json=body).json()
    assert "refund C" in host.work(world)
    assert run_of(world, made["id"])["status"] == "success"


def test_forks_are_a_tree_and_each_says_what_it_changes(triage: tuple[World, Host, str]) -> None:
    world, host, _ = triage
    run_id = finished(world, host)

    def fork(origin: str, name: str, **body: Any) -> str:
        answer = world.developer.post(
            f"{SHOP}/runs/{origin}/fork", json={"run_id": name, "labels": {}, **body}
        )
        assert answer.status_code == 201, answer.text
        host.work(world)
        return name

    one = fork(run_id, "one", edit={"judge": {"output": "no"}})
    fork(one, "deep", edit={"inputs": {"order_id": "D"}})
    fork(run_id, "two", at="judge", edit={"judge": {"prompt": "Broken? $order"}})
    for seen in (run_id, "deep"):
        tree = world.viewer.get(f"{SHOP}/runs/{seen}/forks").json()
        assert tree["whole"]
        assert [(run["id"], run["depth"], run["at"], run["changed"]) for run in tree["runs"]] == [
            (run_id, 0, None, []),
            ("one", 1, None, ["judge.output"]),
            ("deep", 2, None, ["inputs.order_id"]),
            ("two", 1, "judge", ["judge.prompt"]),
        ]
    [entry] = [
        e
        for e in world.admin.get(f"{SHOP}/audit").json()["entries"]
        if e["action"] == "run.forked" and e["target"] == "two"
    ]
    assert entry["detail"] == {"origin": run_id, "at": "judge", "changed": ["judge.prompt"]}
    again = world.developer.post(
        f"{SHOP}/runs/{run_id}/fork", json={"run_id": "one", "edit": {"judge": {"output": "no"}}}
    )
    assert (again.status_code, again.json()["created"]) == (200, False)
    taken = world.developer.post(f"{SHOP}/runs/{run_id}/fork", json={"run_id": "one"})
    assert (taken.status_code, taken.json()["title"]) == (409, "taken")


@pytest.mark.slow
def test_the_id_of_a_fork_that_was_erased_is_taken(triage: tuple[World, Host, str]) -> None:
    world, host, run_id = triage
    fork = f"{SHOP}/runs/{run_id}/fork"
    made = world.developer.post(fork, json={"run_id": "once-1"})
    assert (made.status_code, made.json()["taken"]) == (201, 5), made.text
    assert world.developer.post(fork, json={"run_id": "once-1"}).status_code == 200
    assert host.work(world) == []
    world.state.store.erase("once-1")
    again = world.developer.post(fork, json={"run_id": "once-1"})
    assert (again.status_code, again.json()["title"]) == (409, "taken"), again.text
    tree = world.developer.get(f"{SHOP}/runs/{run_id}/forks").json()["runs"]
    assert [one["changed"] for one in tree if one["id"] == "once-1"] == [[]]


def test_a_fork_to_another_version(triage: tuple[World, Host, str]) -> None:
    world, _, run_id = triage
    source = TRIAGE.replace("Say sorry for", "Be sorry for")
    assert world.developer.post(f"{SHOP}/programs", json={"source": source}).status_code == 201
    body = {"version": 2}
    seen = world.developer.post(f"{SHOP}/runs/{run_id}/fork/preview", json=body).json()
    assert [call["path"] for call in seen["calls"]] == ["both/word"]


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        ({"at": "nowhere"}, 422, "no step 'nowhere'"),
        ({"edit": {"nowhere": {"output": 1}}}, 422, "no step 'nowhere'"),
        ({"edit": {"judge": {}}}, 422, "an object with what changes"),
        ({"edit": {"judge": {"promt": "x"}}}, 422, "promt"),
        ({"edit": {"broken": {"output": True}}}, 422, "is computed"),
        ({"edit": {"program": {"name": "x"}}}, 422, "by its version"),
        ({"edit": {"inputs": {"order_id": 7}}}, 422, "order_id"),
        ({"edit": {"fetch": {"tool": "nothing_such"}}}, 422, "nothing_such"),
        ({"edit": {"\ud800": {"output": 1}}}, 422, "lone surrogate"),
        ({"version": 9}, 404, "version 9"),
        ({"run_id": "a b"}, 422, "run_id"),
    ],
)
def test_a_fork_that_is_refused(
    triage: tuple[World, Host, str], body: Any, status: int, told: str
) -> None:
    world, _, run_id = triage
    before = len(world.state.store.page(RunFilter()).runs)
    content = json.dumps(body)  # which escapes a surrogate
    headers = {"content-type": "application/json"}
    answer = world.developer.post(f"{SHOP}/runs/{run_id}/fork", content=content, headers=headers)
    assert answer.status_code == status, answer.text
    assert told in answer.text
    assert len(world.state.store.page(RunFilter()).runs) == before
