"""The path map: what the last runs of a program did, on its graph."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from nano_vm import ExecutionVM, tool
from nano_vm.server.routes import programs
from nano_vm.store import few
from nano_vm.testing import ScriptedLLM

from .conftest import REFUND, World

SHOP = "/api/v1/projects/shop"

SORT = """
name: sort
inputs: {type: object, properties: {text: {type: string}}, required: [text]}
steps:
  - {id: judge, type: llm, prompt: "$text", output_key: said}
  - id: kind
    type: switch
    on: $said
    cases: {bad: refund, good: thank, odd: ask}
    default: $end
  - id: refund
    type: tool
    tool: send
    args: {text: $text}
    catch: [{errors: ["*"], next: ask}]
  - {id: thank, type: tool, tool: send, args: {text: thanks}}
  - {id: ask, type: tool, tool: send, args: {text: ask}}
"""


@tool(effect="read")
async def send(text: str) -> str:
    return text


@pytest.fixture(scope="module")
def sorted_(world: World) -> World:
    """A project with ten runs: seven good, two bad, one that is none of the cases."""

    def vm(**more: Any) -> ExecutionVM:
        answer = ScriptedLLM(lambda messages, **_: messages[-1]["content"])
        return ExecutionVM(answer, {"send": send}, prices={"scripted": (1.0, 1.0)}, **more)

    world.state.hosts.own = vm()
    answer = world.developer.post(f"{SHOP}/programs", json={"source": SORT})
    assert answer.status_code == 201, answer.text
    for text in ["good"] * 7 + ["bad"] * 2 + ["else"]:
        body = {"program": "sort", "inputs": {"text": text}}
        assert world.developer.post(f"{SHOP}/runs", json=body).status_code == 201
    worker = vm(store=world.state.store)
    with ThreadPoolExecutor(1) as threads:
        threads.submit(lambda: asyncio.run(worker.work(until_idle=True))).result(60)
    return world


def traffic(world: World, path: str = "sort/map", who: str = "viewer") -> Any:
    answer = world.people[who].get(f"{SHOP}/programs/{path}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_each_arrow_has_its_share_and_ways_that_none_took_are_named(sorted_: World) -> None:
    found = traffic(sorted_)
    assert (found["runs"], found["version"]) == (10, 1)
    share = {one["id"]: one["share"] for one in found["arrows"]}
    ends = {arrow["id"]: (arrow["source"], arrow["target"]) for arrow in found["chart"]["arrows"]}
    by_target = {ends[name][1]: part for name, part in share.items() if ends[name][0] == "kind"}
    assert by_target == {"refund": 0.2, "thank": 0.7, "ask": 0.0, "$end": 0.1}
    never = {ends[name] for name in found["never"]}
    assert never == {("kind", "ask"), ("refund", "ask")}
    boxes = {one["id"]: (one["runs"], one["times"]) for one in found["boxes"]}
    assert (boxes["judge"], boxes["thank"], boxes["ask"]) == ((10, 10), (7, 7), (0, 0))


def test_costs_and_times_are_those_of_the_runs_that_took_the_arrow(sorted_: World) -> None:
    found = traffic(sorted_)
    [judge] = [one for one in found["boxes"] if one["id"] == "judge"]
    taken = [one for one in found["arrows"] if one["runs"]]
    assert all(one["p95_ms"] >= 0 for one in taken)
    rows = sorted_.viewer.get(f"{SHOP}/runs?program=sort").json()["runs"]
    spent = sum(float(row["cost"]) for row in rows)
    assert float(judge["cost_usd"]) == pytest.approx(spent)
    assert spent > 0


def test_a_run_that_waits_has_come_to_where_it_waits(
    make_world: Callable[[str], World], tmp_path: Path
) -> None:
    world = make_world(f"sqlite:///{tmp_path}/runs.db")
    world.start(run_id="waits-1")
    world.start(run_id="waits-2")
    found = traffic(world, "refund/map")
    [approve] = [one for one in found["boxes"] if one["id"] == "approve"]
    assert (approve["runs"], approve["p95_ms"]) == (2, None)
    ways = {arrow["id"]: arrow["target"] for arrow in found["chart"]["arrows"]}
    assert sorted(ways[name] for name in found["never"]) == ["$end", "pay"]


def noted_loads(world: World, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many runs are loaded at once, from now on."""
    loaded: list[int] = []
    real = type(world.state.store).load_each

    def noted(store: Any, ids: Any) -> Any:
        loaded.append(len(ids))
        return real(store, ids)

    monkeypatch.setattr(type(world.state.store), "load_each", noted)
    return loaded


def test_few_runs_are_found_behind_many_of_another_version(
    make_world: Callable[[str], World], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a page of as many as are asked for has none of them; some are loaded at a time."""
    world = make_world(f"sqlite:///{tmp_path}/runs.db")
    monkeypatch.setattr(programs, "LOADED_AT_ONCE", 2)
    loaded = noted_loads(world, monkeypatch)
    for _ in range(5):
        world.start()
    newer = REFUND.replace("amount: $amount}", "sum: $amount}")
    assert world.developer.post(f"{SHOP}/programs", json={"source": newer}).json()["version"] == 2
    for _ in range(6):
        world.start()
    loaded.clear()
    assert traffic(world, "refund/map?version=1&runs=1")["runs"] == 1
    assert traffic(world, "refund/map?version=1")["runs"] == 5
    assert loaded == [1, 2, 2, 1]


@pytest.mark.parametrize(
    ("most", "loaded_each"), [(1, [1] * 5), (3, [1] * 5), (4, [2, 2, 1]), (9, [4, 1]), (10, [5])]
)
def test_runs_are_loaded_by_their_steps(
    make_world: Callable[[str], World],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    most: int,
    loaded_each: list[int],
) -> None:
    """Those of one batch have together no more than so many, unless one alone has more."""
    world = make_world(f"sqlite:///{tmp_path}/runs.db")
    source = """
name: two
steps: [{id: a, type: set, values: {x: 1}}, {id: b, type: set, values: {y: 2}}]
"""
    assert world.developer.post(f"{SHOP}/programs", json={"source": source}).status_code == 201
    for _ in range(5):
        world.start(program="two", inputs={})
    world.work()
    rows = world.viewer.get(f"{SHOP}/runs").json()["runs"]
    assert [row["steps"] for row in rows] == [2] * 5
    monkeypatch.setattr(few, "STEPS_AT_ONCE", most)
    loaded = noted_loads(world, monkeypatch)
    assert traffic(world, "two/map")["runs"] == 5
    assert loaded == loaded_each


def test_a_map_is_of_one_version_and_of_so_many_runs(sorted_: World) -> None:
    assert traffic(sorted_, "sort/map?runs=3")["runs"] == 3
    changed = SORT.replace("text: thanks", "text: many thanks")
    answer = sorted_.developer.post(f"{SHOP}/programs", json={"source": changed})
    assert answer.json()["version"] == 2
    newest = traffic(sorted_)
    assert (newest["runs"], newest["never"], newest["since"]) == (0, [], None)
    assert traffic(sorted_, "sort/map?version=1")["runs"] == 10
    assert sorted_.viewer.get(f"{SHOP}/programs/none/map").status_code == 404
    assert sorted_.viewer.get(f"{SHOP}/programs/sort/map?runs=0").status_code == 422
