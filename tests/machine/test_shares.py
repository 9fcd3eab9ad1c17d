"""Budgets at forks: the share of a child is known before it begins, whoever ends first; lanes have
theirs in common.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from build import llm, parallel, program, step
from hypothesis import given, settings
from hypothesis import strategies as st
from test_whole_run import Host

from nano_vm import ExecutionVM, Program, Trace, TraceStatus
from nano_vm.machine.ledger import token_bound
from nano_vm.replay import replay, subject_of, verify

ANSWER = 50
BOUND = token_bound([{"role": "user", "content": "1"}]) + ANSWER
"""What is reserved for each call of `Model` below."""


class Model:
    """Each prompt is the number of an item: how many tokens its answer uses, after how many turns
    of the loop.
    """

    def __init__(self, used: list[int], turns: list[int]) -> None:
        self.used, self.turns, self.at_once, self.most = used, turns, 0, 0

    async def complete(
        self, messages: list[dict[str, Any]], max_tokens: int
    ) -> tuple[str, dict[str, int]]:
        number = int(messages[0]["content"])
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        for _ in range(self.turns[number]):
            await asyncio.sleep(0)
        self.at_once -= 1
        return "x", {
            "prompt_tokens": self.used[number],
            "completion_tokens": 0,
            "total_tokens": self.used[number],
        }


def items(count: int, at_once: int, **fields: Any) -> Program:
    each = llm("a", prompt="$item", max_tokens=ANSWER)
    one = {
        "id": "m",
        "type": "map",
        "over": list(range(count)),
        "steps": [each],
        "max_concurrency": at_once,
    }
    return program(one, **fields)


def refused(used: list[int], at_once: int, budget: int) -> list[bool]:
    """Of each item, whether the budget refuses it, counted by hand."""
    count = len(used)
    shares = [budget // count + (n < budget % count) for n in range(count)]
    pools = [sum(shares[lane::at_once]) for lane in range(at_once)]
    found = []
    for n, amount in enumerate(used):
        found.append(pools[n % at_once] < BOUND)
        if not found[-1]:
            pools[n % at_once] -= amount
    return found


@pytest.mark.slow
@settings(max_examples=60, derandomize=True)
@given(st.data())
def test_what_is_refused_does_not_hang_on_who_ends_first(data: st.DataObject) -> None:
    used = data.draw(st.lists(st.integers(0, BOUND), min_size=1, max_size=9))
    at_once = data.draw(st.integers(1, 9))
    budget = data.draw(st.integers(0, BOUND * len(used)))
    one = items(len(used), at_once, budget={"max_tokens": budget})

    def run(turns: list[int]) -> Trace:
        model = Model(used, turns)
        trace = ExecutionVM(model).run_sync(one)
        assert model.most <= at_once
        assert trace.usage().total_tokens <= budget
        return trace

    trace = run([0] * len(used))
    expected = refused(used, min(at_once, len(used)), budget)
    failed = [
        entry.status.value == "failed" for entry in trace.steps if entry.path.startswith("m[")
    ]
    assert failed == expected
    assert trace.error_kind == ("budget" if any(expected) else None)
    turns = data.draw(st.lists(st.integers(0, 5), min_size=len(used), max_size=len(used)))
    assert run(turns).digest == trace.digest
    assert verify(subject_of(trace, one))
    assert replay(trace, one)


@pytest.mark.parametrize("amount", ["max_tokens", "max_cost_usd", "max_steps", "max_tool_calls"])
@pytest.mark.parametrize("at_once", [1, 2, 4])
def test_one_item_at_a_time_has_all_there_is(amount: str, at_once: int) -> None:
    """The first item needs more than an equal share of each amount; what the items need together is
    there.
    """
    calls = {
        "id": "l",
        "type": "loop",
        "when": "$item == 0",
        "max_iterations": 3,
        "on_exhausted": "continue",
        "steps": [step("f")],
    }
    each = [calls, llm("a", prompt="$item", max_tokens=ANSWER)]
    one = {
        "id": "m",
        "type": "map",
        "over": [0, 1, 2, 3],
        "steps": each,
        "max_concurrency": at_once,
    }
    needs = {
        "max_tokens": 3 * 20 + BOUND,
        "max_cost_usd": (3 * 20 + BOUND) / 1e6,
        "max_steps": 12,
        "max_tool_calls": 3,
    }
    vm = ExecutionVM({"x": Model([20] * 4, [0] * 4)}, tools={"t": lambda: 1}, prices={"x": (1, 1)})
    trace = vm.run_sync(program(one, defaults={"model": "x"}), budget={amount: needs[amount]})
    assert trace.ok is (at_once == 1), trace.error
    assert trace.ok or trace.error_kind == "budget"


# --- an item that waits ---------------------------------------------------------------------------


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def asking(at_once: int, **fields: Any) -> Program:
    ask = {
        "id": "ask",
        "type": "approval",
        "role": "boss",
        "show": {"n": "$item"},
        "then": "$next",
        "otherwise": "$fail",
    }
    each = [ask, step("call", tool="note", args={"q": "$item"}, max_retries=2)]
    return program(
        {"id": "m", "type": "map", "over": [1, 2, 3], "steps": each, "max_concurrency": at_once},
        **fields,
    )


def decided(host: Host, made: Program) -> tuple[list[list[str]], Trace]:
    """Which approvals were open, each time one was given, and how the run ended; each turn is in
    another process.
    """

    async def go() -> tuple[list[list[str]], Trace]:
        vm = host.vm()
        trace = await vm.run(made, run_id="r")
        opened = []
        while trace.status is TraceStatus.SUSPENDED:
            opened.append([entry["path"] for entry in trace.waiting])
            vm.approve("r", trace.waiting[0]["path"], shown=trace.waiting[0]["shown"], by="ann")
            vm.close()
            vm = host.vm()
            trace = await vm.resume("r")
        assert verify(subject_of("r", None, {}, vm.store))
        vm.close()
        return opened, trace

    return asyncio.run(go())


@pytest.mark.slow
def test_an_item_that_waits_holds_up_those_that_share_its_budget(host: Host) -> None:
    # six would be the most, with retries
    opened, trace = decided(host, asking(1, budget={"max_tool_calls": 3}))
    assert opened == [["m[0]/ask"], ["m[1]/ask"], ["m[2]/ask"]]
    assert trace.ok, trace.error
    assert host.calls == ["note 1", "note 2", "note 3"]


@pytest.mark.slow
def test_lanes_go_on_without_each_other(host: Host) -> None:
    opened, trace = decided(host, asking(2, budget={"max_tool_calls": 3}))
    assert opened == [["m[0]/ask", "m[1]/ask"], ["m[1]/ask", "m[2]/ask"], ["m[2]/ask"]]
    assert trace.ok, trace.error


@pytest.mark.slow
@pytest.mark.parametrize("budget", [{}, {"max_tool_calls": 6}, {"max_tokens": 5}])
def test_an_item_that_waits_holds_up_nobody_where_there_is_enough(
    host: Host, budget: dict[str, int]
) -> None:
    opened, trace = decided(host, asking(1, budget=budget))
    shared = "max_tokens" in budget
    assert opened[0] == (["m[0]/ask"] if shared else ["m[0]/ask", "m[1]/ask", "m[2]/ask"])
    assert trace.ok, trace.error


def test_a_run_that_is_cancelled_while_an_item_waits_is_cancelled(host: Host) -> None:
    async def go() -> Trace:
        vm = host.vm()
        trace = await vm.run(asking(1, budget={"max_tool_calls": 3}), run_id="r")
        assert trace.status is TraceStatus.SUSPENDED
        trace = await vm.cancel("r")
        assert verify(subject_of("r", None, {}, vm.store))
        vm.close()
        return trace

    assert asyncio.run(go()).status is TraceStatus.CANCELLED
    assert host.calls == []


def test_a_failed_item_leaves_what_it_did_not_use() -> None:
    def fail_first(x: int) -> int:
        if x == 0:
            raise ValueError(x)
        return x

    each = step("a", args={"x": "$item"}, max_retries=2)
    one = {"id": "m", "type": "map", "over": [0, 1, 2], "steps": [each], "max_concurrency": 1}
    vm = ExecutionVM(tools={"t": fail_first})
    trace = vm.run_sync(program(one), budget={"max_tool_calls": 4})
    assert [(s.path, s.status.value) for s in trace.steps] == [
        ("m[0]/a", "failed"), ("m[1]/a", "success"), ("m[2]/a", "success"), ("m", "failed"),
    ]  # fmt: skip
    assert trace.error_kind == "tool"


def test_the_budget_of_a_called_program_holds_too() -> None:
    inner = program(step(), step("b"), name="inner", budget={"max_tool_calls": 1})
    vm = ExecutionVM(tools={"t": lambda: 1}, programs={"inner": inner})
    trace = vm.run_sync(
        program({"id": "c", "type": "call", "program": "inner"}), budget={"max_tool_calls": 5}
    )
    assert trace.error_kind == "budget"
    beside = program(
        parallel({"id": "c", "type": "call", "program": "inner"}, step("b"), max_concurrency=1)
    )
    assert vm.run_sync(beside, budget={"max_tool_calls": 2}).error_kind == "budget"
