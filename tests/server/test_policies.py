"""A project's policy: what its programs provably keep to, or are not put and not started."""

from __future__ import annotations

from typing import Any

import pytest

from nano_vm import ExecutionVM, tool
from nano_vm.testing import ScriptedLLM

from .conftest import REFUND, World

SHOP = "/api/v1/projects/shop"

APPROVED = "tools:\n  pay: {approval: manager}\n"

UNASKED = """
name: quick
inputs: {type: object, properties: {order_id: {type: string}}, required: [order_id]}
steps:
  - id: judge
    type: llm
    prompt: "Is $order_id broken?"
    output_key: verdict
  - id: broken
    type: condition
    condition: "'yes' in $verdict"
    then: pay
    otherwise: $end
  - {id: pay, type: tool, tool: pay, args: {order_id: $order_id}}
"""


@tool(effect="irreversible")
async def pay(order_id: str) -> str:
    return f"paid {order_id}"


@pytest.fixture
def shop(make_world: Any, database: str) -> World:
    world: World = make_world(database)
    world.state.hosts.own = ExecutionVM(ScriptedLLM(["yes"]), {"pay": pay})
    return world


def put_policy(world: World, source: str) -> Any:
    answer = world.admin.post(f"{SHOP}/policies", json={"source": source})
    assert answer.status_code == 201, answer.text
    return answer.json()


@pytest.mark.slow
def test_a_policy_has_versions_and_the_newest_is_in_force(shop: World) -> None:
    assert shop.viewer.get(f"{SHOP}/policies").json() == {"policies": []}
    assert [put_policy(shop, text)["version"] for text in (APPROVED, "{}", "{}")] == [1, 2, 2]
    listed = shop.viewer.get(f"{SHOP}/policies").json()["policies"]
    assert [(one["version"], one["put_by"]) for one in listed] == [(2, "admin"), (1, "admin")]
    assert shop.viewer.get(f"{SHOP}/policies/1").json()["source"] == APPROVED
    assert shop.viewer.get(f"{SHOP}/policies/3").status_code == 404
    put = shop.developer.post(f"{SHOP}/programs", json={"source": UNASKED})
    assert put.status_code == 201  # the first is in force no more
    entries = shop.admin.get(f"{SHOP}/audit").json()["entries"]
    assert [e["target"] for e in entries if e["action"] == "policy.put"] == ["shop"] * 2


@pytest.mark.slow
def test_a_program_that_breaks_the_policy_is_neither_put_nor_started(shop: World) -> None:
    assert shop.developer.post(f"{SHOP}/programs", json={"source": UNASKED}).status_code == 201
    put_policy(shop, APPROVED)
    body = {"program": "quick", "inputs": {"order_id": "A"}}
    for path, given in (("programs", {"source": UNASKED + "\n# again"}), ("runs", body)):
        answer = shop.developer.post(f"{SHOP}/{path}", json=given)
        assert answer.status_code == 422, answer.text
        [found] = answer.json()["diagnostics"]
        assert found["code"] == "V052"
        assert "manager" in found["message"]
    assert shop.developer.get(f"{SHOP}/programs/quick").json()["version"] == 1
    assert shop.developer.post(f"{SHOP}/programs", json={"source": REFUND}).status_code == 201
    put_policy(shop, "tools: {}")
    assert shop.developer.post(f"{SHOP}/runs", json=body).status_code == 201


@pytest.mark.slow
def test_a_fork_to_a_program_that_breaks_the_policy_is_refused(shop: World) -> None:
    shop.developer.post(f"{SHOP}/programs", json={"source": UNASKED})
    body = {"program": "quick", "inputs": {"order_id": "A"}}
    run_id = shop.developer.post(f"{SHOP}/runs", json=body).json()["id"]
    put_policy(shop, APPROVED)
    answer = shop.developer.post(f"{SHOP}/runs/{run_id}/fork", json={})
    assert (answer.status_code, answer.json()["diagnostics"][0]["code"]) == (422, "V052")


@pytest.mark.slow
def test_a_check_shows_the_run_that_breaks_the_policy(shop: World) -> None:
    put_policy(shop, APPROVED)
    found = shop.viewer.post(f"{SHOP}/programs/check", json={"source": UNASKED}).json()
    assert (found["host"], found["policy"], found["name"]) == ("server", 1, "quick")
    assert found["bound"].startswith("at most: 3 steps, 1 model call, 1 tool call")
    [broken] = found["counterexamples"]
    proof = found["report"]["proofs"][broken["proof"]]
    assert (proof["status"], proof["tool"]) == ("refuted", "pay")
    run = broken["run"]
    assert [step["path"] for step in run["steps"]] == ["judge", "broken", "pay"]
    assert (run["status"], run["lost"]) == ("success", [])
    drawn = {arrow["id"] for arrow in found["chart"]["arrows"]}
    assert set(run["taken"]) <= drawn
    assert run["taken"]
    allowed = shop.viewer.post(f"{SHOP}/programs/check", json={"source": REFUND}).json()
    assert [p["status"] for p in allowed["report"]["proofs"]] == ["proved"]
    assert allowed["counterexamples"] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("tools:\n  pay: {aproval: manager}\n", "aproval"),
        ("tools: [", "P001"),
        ("- a", "P040"),
    ],
)
def test_what_is_no_policy_is_not_put(shop: World, source: str, told: str) -> None:
    answer = shop.admin.post(f"{SHOP}/policies", json={"source": source})
    assert answer.status_code == 422
    assert told in answer.text
    assert shop.admin.get(f"{SHOP}/policies").json() == {"policies": []}


FIFTY = "name: fifty\nsteps:\n" + "".join(
    f"  - {{id: a{i}, type: llm, prompt: 'Is $a{i - 1} broken?', output_key: a{i}}}\n"
    f"  - {{id: c{i}, type: assert, condition: \"'yes' in $a{i}\"}}\n"
    for i in range(1, 25)
).replace("$a0", "it")
FIFTY += "  - {id: pay, type: tool, tool: pay, args: {order_id: A}}\n  - {id: b, type: set, values: {x: 1}}\n"


def test_a_program_of_fifty_steps_is_checked_with_the_run_that_breaks_it(world: World) -> None:
    """How long that takes, benchmarks/server.py measures."""
    world.state.hosts.own = ExecutionVM(ScriptedLLM(["yes"]), {"pay": pay})
    put_policy(world, APPROVED)
    answer = world.viewer.post(f"{SHOP}/programs/check", json={"source": FIFTY})
    [proof] = [p for p in answer.json()["report"]["proofs"] if p["tool"] == "pay"]
    assert proof["status"] == "refuted"
