"""What a host announces, and a host made of it: it says of programs what the host itself says."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

from nano_vm import ExecutionVM, Program, tool
from nano_vm.adapters.pool import Member, Pool
from nano_vm.errors import ProgramError, VMError
from nano_vm.run.announced import announcement as announcement_of
from nano_vm.run.elsewhere import host_of
from nano_vm.testing import ScriptedLLM


def announcement(vm: ExecutionVM) -> dict[str, Any]:
    return announcement_of(vm.preparer)


class Order(BaseModel):
    id: str
    lines: list[int] = Field(max_length=5)


@tool(effect="read", returns="trusted")
async def get_order(order_id: str, *, deep: bool = False) -> Order:
    return Order(id=order_id, lines=[])


@tool(effect="irreversible", trusted=["to"], timeout_seconds=5)
def pay(to: str, amount: float, how: Literal["card", "cash"] = "card") -> str:
    return "paid"


@tool(effect="write")
async def note(text: str, idempotency_key: str | None = None) -> None: ...


async def anything(**more: Any) -> Any: ...


class Model:
    model = "small"
    images = True

    async def complete(self, messages: Any, *, temperature: float = 0, max_tokens: int = 0) -> str:
        return "yes"


def host(**more: Any) -> ExecutionVM:
    tools: dict[str, Any] = {
        "get_order": get_order,
        "pay": pay,
        "note": note,
        "anything": anything,
    }
    given: dict[str, Any] = {
        "llm": {"fast": Model(), "good": ScriptedLLM(["x"])},
        "tools": tools,
        "prices": {"fast": (1, Decimal("2.5"))},
        "budget": {"max_cost_usd": 3},
        **more,
    }
    return ExecutionVM(**given)


def moved(vm: ExecutionVM) -> ExecutionVM:
    """The host that is made of what *vm* announces, as it is sent."""
    return host_of(json.loads(json.dumps(announcement(vm))))


PROGRAMS: list[Any] = [
    [{"id": "a", "type": "tool", "tool": "get_order", "args": {"order_id": "x"}}],
    [{"id": "a", "type": "tool", "tool": "get_order", "args": {"order_id": 7}}],
    [{"id": "a", "type": "tool", "tool": "get_order", "args": {"order": "x"}}],
    [{"id": "a", "type": "tool", "tool": "pay", "args": {"to": "$x", "amount": "much"}}],
    [{"id": "a", "type": "tool", "tool": "pay", "args": {"to": "me", "amount": 1, "how": "gold"}}],
    [{"id": "a", "type": "tool", "tool": "note", "args": {"text": "x"}, "max_retries": 2}],
    [{"id": "a", "type": "tool", "tool": "anything", "args": {"some": [1]}}],
    [{"id": "a", "type": "tool", "tool": "none", "args": {}}],
    [{"id": "a", "type": "llm", "model": "fast", "prompt": "hi", "max_tokens": 5}],
    [{"id": "a", "type": "llm", "model": "fast", "prompt": "hi", "seed": 5}],
    [{"id": "a", "type": "llm", "model": "other", "prompt": "hi"}],
    [
        {"id": "a", "type": "tool", "tool": "get_order", "args": {"order_id": "x"}},
        {"id": "b", "type": "set", "values": {"y": "$a.output.nothing_such"}},
    ],
]


@pytest.mark.parametrize("steps", PROGRAMS, ids=range(len(PROGRAMS)))
def test_a_program_has_the_same_faults(steps: Any) -> None:
    inputs = {"type": "object", "properties": {"x": {"type": "string"}}}
    program = Program.from_dict({"steps": steps, "inputs": inputs})
    own, other = host(), moved(host())
    # what does not fit an argument is said in the words of its schema, and not of its type; what a
    # class says of a result, its schema does not say all of, which is worth a warning only
    errors = [
        [(d.code, d.loc) for d in vm.check(program) if d.severity == "error"] for vm in (own, other)
    ]
    assert errors[0] == errors[1]


@pytest.mark.slow
def test_contracts_and_terms_are_the_same() -> None:
    own, other = host(), moved(host())
    for name, contract in own.tools.items():
        there = other.tools[name]
        assert there.to_dict() == contract.to_dict(), name
        same = ("effect", "declared", "takes_key", "timeout_seconds", "open")
        assert [getattr(there, f) for f in same] == [getattr(contract, f) for f in same]
    assert announcement(other)["terms"] == announcement(own)["terms"]
    assert announcement(other)["models"] == announcement(own)["models"]


def test_a_policy_and_a_pool_go_with_it() -> None:
    pool = Pool([Member(Model(), name="one"), Member(Model(), name="two")], "ordered", name="both")
    prices = {"one": (1, 2), "two": (3, 4)}
    policy = {"inputs": {"*": "untrusted"}}
    own = host(llm=pool, prices=prices, policy=policy)
    other = moved(own)
    program = Program.from_dict({"steps": [{"id": "a", "type": "llm", "prompt": "hi"}]})
    mine, theirs = own.pending(program), other.pending(program)
    for fact in ("pools", "prices", "host_policy", "proofs"):
        assert theirs.about.get(fact) == mine.about.get(fact), fact
    assert theirs.about["pools"][0]["members"] == [["one", "small"], ["two", "small"]]


def test_budgets_that_runs_share_go_with_it() -> None:
    budgets = {
        "money": {"per": "day", "max_cost_usd": Decimal("0.1")},
        "of one": {"per": ["program", "project"], "project": "shop", "max_llm_calls": 3},
    }
    own = host(budgets=budgets)
    other = moved(own)
    assert other.preparer.budgets == own.preparer.budgets
    before = {name: told for name, told in announcement(own).items() if name != "budgets"}
    assert host_of(before).preparer.budgets == {}
    asks = {"id": "a", "type": "llm", "model": "good", "prompt": "hi"}
    program = Program.from_dict({"steps": [asks]})
    unpriced = host(budgets=budgets, budget=None)
    for each in (unpriced, moved(unpriced)):
        with pytest.raises(ProgramError, match="budget 'money' limits cost, and no price is known"):
            each.pending(program)


def test_a_run_that_it_starts_is_driven_by_the_host_itself(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/runs.db"
    worker = host(store=url, policy={"inputs": {"*": "untrusted"}})
    starter = moved(worker)
    program = Program.from_dict(
        {"steps": [{"id": "a", "type": "tool", "tool": "get_order", "args": {"order_id": "7"}}]}
    )
    run = starter.pending(program, {})
    store = worker.require_store()
    assert store.create(run)
    [trace] = asyncio.run(worker.work(until_idle=True))
    assert (trace.status.value, trace.final_output) == ("success", {"id": "7", "lines": []})
    worker.close()


@pytest.mark.slow
def test_one_that_announces_what_it_lacks_makes_no_call(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/runs.db"
    told = announcement(host())
    liar = ExecutionVM(None, {"pay": lambda to: "paid"}, store=url)
    program = Program.from_dict(
        {"steps": [{"id": "a", "type": "tool", "tool": "pay", "args": {"to": "me", "amount": 1}}]}
    )
    run = host_of(told).pending(program, {})
    liar.require_store().create(run)
    assert asyncio.run(liar.work(until_idle=True)) == []
    assert liar.require_store().load(run.run_id).status == "pending"
    liar.close()


def test_it_calls_nothing(tmp_path: Path) -> None:
    vm = moved(host())
    program = Program.from_dict(
        {"steps": [{"id": "a", "type": "tool", "tool": "get_order", "args": {"order_id": "7"}}]}
    )
    trace = asyncio.run(vm.run(program, {}))
    assert "only checks and starts" in str(trace.error)


@pytest.mark.parametrize("change", [{"format": 2}, {"tools": [{}]}, {"models": 7}, {"terms": []}])
def test_what_is_no_announcement(change: dict[str, Any]) -> None:
    with pytest.raises(VMError, match="announcement"):
        host_of({**announcement(host()), **change})
    with pytest.raises((VMError, ProgramError)):
        host_of({**announcement(host()), "policy": {"nothing": 1}})
