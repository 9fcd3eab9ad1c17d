"""Budgets that bind the runs of a project: those of its workers, how they stand, what met one."""

from __future__ import annotations

import asyncio
import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from nano_vm import ExecutionVM
from nano_vm.run.announced import announcement
from nano_vm.run.elsewhere import host_of
from nano_vm.store.protocol import Announced
from nano_vm.testing import ScriptedLLM

from .conftest import World

ASK = """
name: ask
inputs: {type: object, properties: {text: {type: string}}, required: [text]}
steps: [{id: ask, type: llm, prompt: "$text", max_tokens: 10}]
"""

BUDGETS: dict[str, Any] = {
    "of shop": {"project": "shop", "max_llm_calls": 2},
    "each": {"per": ["project", "day"], "max_llm_calls": 9, "max_cost_usd": 5},
    "all": {"max_tokens": 100_000},
    "of bank": {"project": "bank", "max_llm_calls": 7},
}


@pytest.fixture(scope="module")
def bound(world: World) -> World:
    """Projects whose runs have used their budgets; the third of a shop's is refused by one."""

    def answer(messages: Any, **options: Any) -> str:
        return "yes"

    vm = ExecutionVM(
        ScriptedLLM(answer), prices={"scripted": (1, 1)}, budgets=BUDGETS, store=world.state.store
    )
    world.state.hosts.own = host_of(json.loads(json.dumps(announcement(vm.preparer))))
    for who, project, runs in (("developer", "shop", 3), ("stranger", "bank", 1)):
        put = world.people[who].post(f"/api/v1/projects/{project}/programs", json={"source": ASK})
        assert put.status_code == 201, put.text
        for number in range(runs):
            body = {"program": "ask", "inputs": {"text": "a"}, "run_id": f"{project}-{number}"}
            started = world.people[who].post(f"/api/v1/projects/{project}/runs", json=body)
            assert started.status_code == 201, started.text
    with ThreadPoolExecutor(1) as threads:
        work = vm.work(until_idle=True, concurrency=1)
        threads.submit(lambda: asyncio.run(work)).result(60)
    return world


def asked(world: World, who: str = "viewer", project: str = "shop") -> Any:
    answer = world.people[who].get(f"/api/v1/projects/{project}/budgets")
    assert answer.status_code == 200, answer.text
    return answer.json()


def calls(found: Any) -> dict[str, int]:
    return {account["name"]: account["spent"]["calls"] for account in found["accounts"]}


def test_budgets_are_those_of_workers_that_count_runs_of_the_project(bound: World) -> None:
    found = asked(bound)
    rows = {row["name"]: row for row in found["budgets"]}
    assert list(rows) == ["all", "each", "of shop"]
    assert (rows["of shop"]["max_llm_calls"], rows["of shop"]["hosts"]) == (2, ["server"])
    assert (rows["each"]["per"], rows["each"]["max_cost_usd"]) == (["project", "day"], "5")
    assert [row["shared"] for row in rows.values()] == [True, False, False]


def test_an_account_of_several_projects_is_for_owners(bound: World) -> None:
    assert calls(asked(bound)) == {"each": 2, "of shop": 2}
    assert calls(asked(bound, "admin")) == {"each": 2, "of shop": 2}
    assert calls(asked(bound, "stranger", "bank")) == {"each": 1, "of bank": 1}
    whole = calls(asked(bound, "owner"))
    assert (whole["all"], whole["of shop"], whole["each"]) == (3, 2, 2)
    made = bound.owner.post(
        "/api/v1/projects/shop/keys", json={"name": "k", "role": "viewer"}
    ).json()
    key = bound.client(made["key"])  # of an owner, and for one project
    assert calls(key.get("/api/v1/projects/shop/budgets").json()) == {"each": 2, "of shop": 2}


OTHERS: dict[str, Any] = {
    "project": {"project": "shop", "max_llm_calls": 5},
    "none": {"max_llm_calls": 5},
}
"""Budgets that another worker may have by the name of one that is the bank's here."""


@pytest.mark.parametrize("other", OTHERS)
def test_an_account_is_of_all_projects_whose_budgets_have_its_name(
    bound: World, other: str
) -> None:
    """What the bank spent is not the shop's to see where a worker has that name for its budget."""
    store = bound.state.store
    vm = ExecutionVM(ScriptedLLM([]), budgets={"of bank": OTHERS[other]})
    document = json.dumps(announcement(vm.preparer))
    store.heartbeat("other", 60)
    store.announce(Announced("other", "other", document, 1, time.time_ns()))
    try:
        (row,) = (one for one in asked(bound)["budgets"] if one["name"] == "of bank")
        assert row["hosts"] == ["other"]
        assert calls(asked(bound)) == {"each": 2, "of shop": 2}
        assert calls(asked(bound, "stranger", "bank")) == {"each": 1}
        assert calls(asked(bound, "owner"))["of bank"] == 1
    finally:
        store.forget_owner("other")
    assert calls(asked(bound, "stranger", "bank")) == {"each": 1, "of bank": 1}


def test_an_account_says_what_is_left(bound: World) -> None:
    (each,) = (one for one in asked(bound)["accounts"] if one["name"] == "each")
    assert each["of"]["project"] == "shop"
    assert (each["max_llm_calls"], each["max_cost_usd"], each["max_tokens"]) == (9, "5", None)
    assert float(each["spent"]["cost_usd"]) > 0
    assert each["reserved"] == {"calls": 0, "tokens": 0, "cost_usd": "0"}


def test_runs_that_met_a_budget_are_counted(bound: World) -> None:
    found = asked(bound)
    (met,) = found["met"]
    failed = bound.viewer.get("/api/v1/projects/shop/runs?status=failed").json()["runs"]
    assert met == {"program": "ask", "runs": 1, "newest": failed[0]["id"]}
    assert found["looked"] == 1
    assert asked(bound, "stranger", "bank")["met"] == []
