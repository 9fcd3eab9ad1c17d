"""The terms of a run: kept with its record and read from there, whatever the host has now."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from build import llm, program, step

from nano_vm import Budget, ExecutionVM, Limits, LLMUsage, TraceStatus
from nano_vm.adapters.protocol import Completion
from nano_vm.machine.machine import machine_of
from nano_vm.machine.plan import FOREVER
from nano_vm.machine.terms import RunTerms
from nano_vm.replay import replay, verify
from nano_vm.replay.rerun import subject_of
from nano_vm.store.protocol import open_store

PRICES = {"m": (Decimal("0.5"), Decimal(2)), "a": (Decimal(0), Decimal(1))}
BUDGET = Budget(max_steps=5, max_seconds=1.5, max_cost_usd=0.25)


@pytest.mark.parametrize(
    "terms",
    [
        RunTerms(),
        RunTerms(Limits(steps=3, value_bytes=99), BUDGET, PRICES, "m"),
        RunTerms(budget=Budget()),
    ],
)
def test_a_record_gives_the_terms_that_it_keeps(terms: RunTerms) -> None:
    told = json.loads(json.dumps(terms.to_dict()))
    assert RunTerms.of_record(told, None) == terms
    tighter = RunTerms.of_record(told, Budget(max_steps=2)).budget
    assert tighter is not None
    assert tighter.max_steps == 2


@pytest.mark.parametrize(
    "about",
    [
        {"budget": 3},
        {"budget": {"max_steps": "many"}},
        {"limits": []},
        {"limits": {"speed": 1}},
        {"prices": {"m": ["1"]}},
        {"prices": {"m": ["dear", "1"]}},
    ],
)
def test_what_is_no_record_of_terms_is_refused(about: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"terms of a run|validation error"):
        RunTerms.of_record(about, None)


def test_a_machine_has_its_deadline_and_ledger_from_its_terms() -> None:
    plan = ExecutionVM(tools={"t": lambda: 1}).plan(program(step("a", "t")))
    machine = machine_of(plan, {}, RunTerms(budget=BUDGET), 10)
    assert machine.base_deadline == 10 + 1_500_000_000
    assert (machine.ledger.steps, machine.ledger.cost) == (5, Decimal("0.25"))
    assert machine_of(plan, {}).base_deadline == FOREVER


class Model:
    """Each answer costs 1,000 tokens of each kind."""

    model = "m"

    async def complete(self, messages: Any, **_: Any) -> Completion:
        return Completion("yes" * 200, LLMUsage(1_000, 1_000, 2_000))


ASK = {"id": "ask", "type": "approval", "role": "boss", "then": "last", "otherwise": "$end"}


async def test_a_run_goes_on_under_the_terms_that_it_was_begun_with(tmp_path: Path) -> None:
    """Under others what is recorded would be what another run did, and it would not verify."""
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    made = program(llm("first", max_tokens=10), ASK, llm("last", max_tokens=10))
    begun = ExecutionVM(Model(), store=url, prices=PRICES, budget={"max_cost_usd": 0.01})
    trace = await begun.run(made, run_id="r")
    assert trace.status is TraceStatus.SUSPENDED, trace.error
    begun.approve("r", "ask", by="ann", shown=begun.waiting("r")[0]["shown"])
    begun.close()
    dearer = {"m": (Decimal(500), Decimal(500))}
    small = Limits(value_bytes=500, state_bytes=500)
    other = ExecutionVM(Model(), store=url, prices=dearer, limits=small, budget={"max_steps": 1})
    trace = await other.resume("r")
    assert trace.ok, trace.error
    other.close()
    store = open_store(url)
    assert verify(subject_of("r", store=store))
    assert replay("r", store=store)
    store.close()


class Counting(Model):
    """Counts tokens in a way of its own, and does not say what a call used."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens

    def count_tokens(self, messages: Any) -> int:
        if self.tokens < 0:
            raise RuntimeError("no tokenizer here")
        return self.tokens

    async def complete(self, messages: Any, **_: Any) -> Completion:
        return Completion("yes")


@pytest.mark.parametrize("tokens", [1, 40, -1])
async def test_what_was_counted_is_kept_for_those_who_count_otherwise(
    tmp_path: Path, tokens: int
) -> None:
    """A reservation that is spent counts as it was made, also where a run is computed again."""
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    made = program(llm("first", max_tokens=10), ASK, llm("last", max_tokens=10))
    begun = ExecutionVM(Counting(30), store=url, budget={"max_tokens": 80})
    trace = await begun.run(made, run_id="r")
    assert trace.steps[0].extra["counted"] == [30]
    begun.approve("r", "ask", by="ann", shown=begun.waiting("r")[0]["shown"])
    begun.close()
    other = ExecutionVM(Counting(tokens), store=url)
    trace = await other.resume("r")
    # 40 are left: enough for a token and the answer's ten
    assert trace.status is (TraceStatus.SUCCESS if tokens != 40 else TraceStatus.FAILED)
    if tokens == 40:
        assert "the call may use 50 tokens, 40 are left" in str(trace.error)
    other.close()
    store = open_store(url)
    assert replay("r", store=store)
    assert verify(subject_of("r", store=store))
    store.close()
    plain = await ExecutionVM(Counting(3)).run(made)
    assert "counted" not in plain.steps[0].extra  # nothing is counted without a budget
