"""What runs of a project have cost: by what it is summed, of how many runs, by other prices."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest

from nano_vm import Completion, ExecutionVM, LLMUsage, Pool
from nano_vm.server.routes import costs

from .conftest import World

SHOP = "/api/v1/projects/shop"

ASK = """
name: ask
inputs: {type: object, properties: {text: {type: string}}, required: [text]}
steps: [{id: ask, type: llm, prompt: "$text"}]
"""


class Model:
    """Answers, and counts a million tokens of prompt."""

    def __init__(self, model: str) -> None:
        self.model = model

    async def complete(self, messages: Any, **options: Any) -> Completion:
        return Completion("yes", LLMUsage(1_000_000, 0, 1_000_000), self.model)


@pytest.fixture(scope="module")
def asked(world: World) -> World:
    """A project with runs of two versions of a program, served by a pool; another project's run."""
    pool = Pool([Model("up"), Model("spare")])
    vm = ExecutionVM(pool, prices={"up": (2, 3)}, store=world.state.store)
    vm.preparer.price_sources = {"up": "genai-prices 1.2.3"}
    world.state.hosts.own = vm
    for who, project, source, team in (
        ("developer", "shop", ASK, "red"),
        ("developer", "shop", ASK.replace("$text", "well: $text"), "blue"),
        ("stranger", "bank", ASK, "red"),
    ):
        put = world.people[who].post(
            f"/api/v1/projects/{project}/programs", json={"source": source}
        )
        assert put.status_code == 201, put.text
        for _ in range(2 if team == "red" else 1):
            body = {"program": "ask", "inputs": {"text": "a"}, "labels": {"team": team}}
            started = world.people[who].post(f"/api/v1/projects/{project}/runs", json=body)
            assert started.status_code == 201, started.text
    with ThreadPoolExecutor(1) as threads:
        threads.submit(lambda: asyncio.run(vm.work(until_idle=True))).result(60)
    return world


def summed(world: World, words: str, prices: Any = None, who: str = "viewer") -> Any:
    path = f"{SHOP}/costs?{words}"
    if prices is None:
        answer = world.people[who].get(path)
    else:
        path = path.replace("costs?", "costs/what-if?")
        answer = world.people[who].post(path, json={"prices": prices})
    assert answer.status_code == 200, answer.text
    return answer.json()


def rows(found: Any) -> list[tuple[Any, ...]]:
    return [(*one["of"].values(), one["calls"], Decimal(one["cost_usd"])) for one in found["costs"]]


def test_they_are_summed_by_version_and_by_label(asked: World) -> None:
    found = summed(asked, "by=version")
    (one, two) = sorted(found["costs"], key=lambda row: found["versions"][row["of"]["version"]])
    assert [found["versions"][row["of"]["version"]] for row in (one, two)] == [[1], [2]]
    assert (one["calls"], two["calls"]) == (2, 1)
    assert rows(summed(asked, "by=label:team")) == [("blue", 1, 2), ("red", 2, 4)]
    assert rows(summed(asked, "by=label:team&labels=team%3Dred")) == [("red", 2, 4)]
    assert (found["runs"], found["whole"], found["tables"]) == (3, True, ["genai-prices 1.2.3"])


def test_they_are_summed_by_member_and_by_where_prices_came_from(asked: World) -> None:
    assert rows(summed(asked, "by=member")) == [("up", 3, 6)]
    assert rows(summed(asked, "by=prices,label:team")) == [
        ("genai-prices 1.2.3", "blue", 1, 2),
        ("genai-prices 1.2.3", "red", 2, 4),
    ]


def test_they_would_be_others_by_other_prices(asked: World) -> None:
    found = summed(asked, "by=label:team", {"up": {"input": "0.5", "output": "1"}})
    shown = [(row["cost_usd"], Decimal(row["what_if_usd"])) for row in found["costs"]]
    assert [(Decimal(was), would) for was, would in shown] == [(2, Decimal("0.5")), (4, 1)]
    (none,) = summed(asked, "by=program", {"other": ["1", "2"]})["costs"]
    assert (Decimal(none["what_if_usd"]), none["what_if_unpriced"]) == (0, none["calls"])
    for wrong, told in (
        ({"up": {"input": "x", "output": "1"}}, "the price of 'up' is"),
        ({"up": ["-1", "1"]}, "the price of 'up' is"),
        ({"up": ["1"]}, "the price of 'up' is"),
        ({"up": ["1e999999", "1"]}, "the price of 'up' is"),
    ):
        answer = asked.viewer.post(f"{SHOP}/costs/what-if", json={"prices": wrong})
        assert (answer.status_code, told in answer.json()["detail"]) == (422, True)


@pytest.mark.parametrize("by", ["model", "member"])
def test_it_is_said_of_how_many_runs(
    asked: World, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = summed(asked, f"by={by}&newest=2")
    assert (found["runs"], found["whole"]) == (2, False)
    assert found["since"] > summed(asked, f"by={by}")["since"]
    monkeypatch.setattr(costs, "MOST_SUMMED", 1)
    monkeypatch.setattr(costs, "MOST_READ", 1)
    for words in (f"by={by}", f"by={by}&newest=3"):  # never more than a server sums
        found = summed(asked, words)
        assert (found["runs"], found["whole"]) == (1, False)


def test_what_cannot_be_summed_by_is_refused(asked: World) -> None:
    many = ",".join(f"label:l{n}" for n in range(70))
    for by in ("hour", "label:", "label:a b", "hour,member", many, f"{many},member"):
        answer = asked.viewer.get(f"{SHOP}/costs", params={"by": by})
        assert (answer.status_code, answer.json()["title"]) == (400, "no such filter"), by
    assert asked.viewer.get(f"{SHOP}/costs?newest=0").status_code == 422
