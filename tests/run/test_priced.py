"""What a model call has cost: by the model that answered, with what a cache did, through stores,
replays and budgets.
"""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from nano_vm import Completion, ExecutionVM, LLMUsage, Program, Trace, VMError
from nano_vm.prices import bound_of, checked_price, cost_of, priced_name
from nano_vm.replay import replay
from nano_vm.run.durable.stored import trace_of
from nano_vm.store.protocol import open_store
from nano_vm.store.records import StoredRun

PROGRAM = Program.from_dict({"steps": [{"id": "s", "type": "llm", "prompt": "x"}]})
PRICES = {"cheap": (1, 2), "dear": (10, 20)}


class Answers:
    """A model that says another one answered."""

    model = "cheap"

    def __init__(self, answered: str | None, **parts: int) -> None:
        self.answered, self.parts = answered, parts

    async def complete(self, messages: list[dict[str, Any]], **kwargs: Any) -> Completion:
        return Completion("yes", LLMUsage(1000, 100, 1100, **self.parts), self.answered)  # type: ignore[arg-type]


def run(adapter: Any, prices: Any = PRICES, **options: Any) -> Trace:
    return ExecutionVM(adapter, prices=prices, **options).run_sync(PROGRAM)


@pytest.mark.parametrize(
    ("answered", "cost", "priced_as"),
    [
        (None, "0.0012", None),
        ("cheap", "0.0012", None),
        ("dear", "0.012", None),
        ("dear-2026-01-31", "0.012", "dear"),
        ("vendor/dear@20260131", "0.012", "dear"),
        ("another", "0.0012", "cheap"),
    ],
)
def test_by_the_model_that_answered(answered: str | None, cost: str, priced_as: str | None) -> None:
    trace = run(Answers(answered))
    assert trace.total_cost_usd() == Decimal(cost)
    assert trace.steps[0].cost_source == "prices"
    assert trace.steps[0].extra.get("priced_as") == priced_as


def test_a_budget_is_charged_what_the_answer_cost() -> None:
    """Two calls fit by the price asked for; the first was answered by a dearer model."""
    steps = [{"id": f"s{i}", "type": "llm", "prompt": "x", "max_tokens": 100} for i in range(2)]
    program = Program.from_dict({"budget": {"max_cost_usd": 0.0121}, "steps": steps})
    assert ExecutionVM(Answers("cheap"), prices=PRICES).run_sync(program).ok
    trace = ExecutionVM(Answers("dear"), prices=PRICES).run_sync(program)
    assert (trace.error_kind, len(trace.steps)) == ("budget", 2)


@pytest.mark.parametrize(
    ("answered", "asked", "known", "name"),
    [
        ("gpt-4.1-mini-2025-04-14", "gpt-4.1-mini", ["gpt-4.1-mini"], "gpt-4.1-mini"),
        ("gpt-4.1-mini", "openai/gpt-4.1-mini", ["openai/gpt-4.1-mini"], "openai/gpt-4.1-mini"),
        ("m-0613", "x", ["m-0613", "m"], "m-0613"),
        ("m-latest", "x", ["m"], "m"),
        ("m-large", "x", ["m"], None),
        ("m-2b", "x", ["m"], None),
        (None, "x", ["x"], "x"),
        (None, None, ["x"], None),
    ],
)
def test_names(answered: str | None, asked: str | None, known: list[str], name: str | None) -> None:
    assert priced_name(answered, (asked,), dict.fromkeys(known)) == name


def test_what_a_cache_keeps_has_its_own_prices() -> None:
    price = checked_price("m", {"input": "3", "output": 15, "cached": "0.3", "cache_write": 3.75})
    usage = LLMUsage(1000, 100, 1100, None, 700, 200, 50)
    assert cost_of(price, usage) == Decimal("0.00276")
    assert cost_of(checked_price("m", (3, 15)), usage) == Decimal("0.0045")
    assert bound_of(price, 1000, 100) == Decimal("0.00525")
    assert checked_price("m", {"input": 1, "output": 2, "cached": 0}) == (1, 2, 0, 1)


@pytest.mark.parametrize(
    "given",
    [(1,), (1, 2, 3), (1, -2), ("x", 1), None, {"input": 1}, {"input": 1, "output": 2, "x": 3}, 7],
)
def test_what_is_no_price(given: Any) -> None:
    with pytest.raises(VMError, match="the price of 'm' is"):
        ExecutionVM(Answers(None), prices={"m": given})


def test_parts_of_usage_go_through_stores_and_replays(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/runs.db"
    prices = {"cheap": {"input": 3, "output": 15, "cached": "0.3", "cache_write": "3.75"}}
    adapter = Answers(None, cached_tokens=700, cache_write_tokens=200, reasoning_tokens=50)
    vm = ExecutionVM(adapter, prices=prices, store=url)
    trace = vm.run_sync(PROGRAM, run_id="r")
    vm.close()
    usage = LLMUsage(1000, 100, 1100, Decimal("0.00276"), 700, 200, 50)
    assert trace.steps[0].usage == usage
    assert Trace.from_json(trace.to_json()).steps[0].usage == usage
    store = open_store(url)
    stored: StoredRun = store.load("r")
    again = trace_of(stored)
    store.close()
    assert again.steps[0].usage == usage
    assert replay(trace, PROGRAM)


def test_parts_of_usage_are_no_part_of_the_digest() -> None:
    plain, cached = run(Answers(None)), run(Answers(None, cached_tokens=700))
    assert plain.digest == cached.digest
    assert plain.to_json() != cached.to_json()


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": 5, "cached_tokens": 6},
        {"prompt_tokens": 5, "cached_tokens": 3, "cache_write_tokens": 3},
        {"completion_tokens": 5, "reasoning_tokens": 6},
        {"prompt_tokens": 5, "cached_tokens": -1},
        {"prompt_tokens": 5, "cached_tokens": "2"},
    ],
)
def test_an_adapter_that_lies_about_parts(usage: dict[str, Any]) -> None:
    class Liar:
        async def complete(self, messages: Any, **kwargs: Any) -> Any:
            return "yes", usage

    trace = ExecutionVM(Liar()).run_sync(PROGRAM)
    assert (trace.status.value, trace.error_kind) == ("failed", "model")
    assert "usage is malformed" in str(trace.error)
