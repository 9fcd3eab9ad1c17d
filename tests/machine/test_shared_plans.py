"""A plan holds no function of a host, and is made once for all hosts whose tools have the same
contracts: each calls its own.
"""

from __future__ import annotations

import gc
import types
from collections.abc import Callable
from typing import Annotated, Any, Union

import pytest
from build import step
from pydantic import BaseModel, Field

from nano_vm import ExecutionVM, Program, tool
from nano_vm.language.flow import Flow
from nano_vm.machine.compile import plan_of
from nano_vm.machine.plan import Plan
from nano_vm.replay import replay
from nano_vm.tools.contract import contract


class Order(BaseModel):
    number: int


def shop(said: list[str], name: str) -> dict[str, Callable[..., Any]]:
    """The tools of a host, which tell in *said* that they were called."""

    async def price(item: str, count: int = 1) -> float:
        said.append(f"{name}: price {item} {count}")
        return 1.5

    @tool(effect="idempotent", timeout_seconds=5)
    def pay(order: Order, *, idempotency_key: str) -> Any:
        said.append(f"{name}: pay {order.number}")
        raise ValueError("no money")

    @tool(effect="irreversible", inline=True)
    def ship(to: str) -> str:
        said.append(f"{name}: ship {to}")
        return "sent"

    def recall(to: str) -> None:
        said.append(f"{name}: recall {to}")

    return {"price": price, "pay": pay, "ship": ship, "recall": recall}


PROGRAM = {
    "name": "shop",
    "inputs": {
        "type": "object",
        "properties": {"items": {"type": "array"}},
        "required": ["items"],
    },
    "steps": [
        step("ship", "ship", args={"to": "Ann"}, undo={"tool": "recall", "args": {"to": "Ann"}}),
        {
            "id": "prices",
            "type": "map",
            "over": "$items",
            "as": "item",
            "steps": [step("price", "price", args={"count": 2, "item": "$item"})],
        },
        step("pay", "pay", args={"order": {"number": "$prices.output[0]"}}),
    ],
}
POLICY = {"tools": {"pay": {"args": {"order": "$value.number > 0"}}}}


def held(plan: Plan) -> list[Any]:
    """Everything that *plan* holds, but for what any code of a module can reach."""
    seen: dict[int, Any] = {}
    left: list[Any] = [plan]
    while left:
        one = left.pop()
        if id(one) in seen:
            continue
        seen[id(one)] = one
        if isinstance(one, types.FunctionType):
            left += [cell.cell_contents for cell in one.__closure__ or ()]
            left += one.__defaults__ or ()
            left += (one.__kwdefaults__ or {}).values()
        elif not isinstance(one, type | types.ModuleType):
            left += gc.get_referents(one)
    return list(seen.values())


@pytest.mark.parametrize("policy", [None, POLICY], ids=["plain", "checked"])
def test_a_plan_holds_no_function_of_a_host(policy: Any) -> None:
    tools = shop([], "a")
    plan = ExecutionVM(tools=tools, policy=policy).plan(Program.from_dict(PROGRAM))
    everything = held(plan)
    assert any(one is Order for one in everything), "what converts an argument was not reached"
    assert not [one for one in everything if any(one is f for f in tools.values())]
    ours = {one.__module__ for one in everything if isinstance(one, types.FunctionType)}
    assert all(module is None or module.startswith("nano_vm.") for module in ours), ours


async def test_two_hosts_share_a_plan_and_call_their_own() -> None:
    said: list[str] = []
    one = ExecutionVM(tools=shop(said, "one"))
    two = ExecutionVM(tools=shop(said, "two"))
    programs = [Program.from_dict(PROGRAM), Program.from_dict(PROGRAM)]
    assert one.plan(programs[0]) is two.plan(programs[1])
    traces = [
        await vm.run(made, {"items": ["pen", "cup"]})
        for vm, made in ((one, programs[0]), (two, programs[1]))
    ]
    assert traces[0].digest == traces[1].digest
    assert traces[0].status.value == "failed"
    calls = ["ship Ann", "price pen 2", "price cup 2", "recall Ann"]
    assert [line for line in said if "pay" not in line] == [
        f"{name}: {call}" for name in ("one", "two") for call in calls
    ]
    for trace, made in zip(traces, programs, strict=True):
        assert replay(trace, made)


def test_a_host_that_changes_a_tool_calls_the_new_one() -> None:
    made = Program.from_dict({"steps": [step("a", "t")]})
    vm = ExecutionVM(tools={"t": lambda: 1})
    plan = vm.plan(made)
    assert vm.run_sync(made).output == 1
    vm.register_tool("t", lambda: 2)
    assert vm.run_sync(made).output == 2
    assert vm.plan(made) is plan


def taking(hint: Any, **declared: Any) -> Callable[..., Any]:
    def t(x: Any) -> Any: ...

    t.__annotations__["x"] = hint
    return tool(**declared)(t)


def either(x: int | str) -> Any: ...
def other(x: str | int) -> Any: ...
def keyed(x: Any, idempotency_key: str) -> Any: ...
def wider(x: Any, y: Any = None) -> Any: ...
def by_name(*, x: Any) -> Any: ...
async def awaited(x: Any) -> Any: ...


UNLIKE = {
    "any": taking(Any),
    "effect": taking(Any, effect="read"),
    "inline": taking(Any, inline=True),
    "timeout": taking(Any, timeout_seconds=3),
    "async": awaited,
    "int": taking(int),
    "int or string": either,
    "string or int": other,
    "union": taking(Union[int, None]),
    "model": taking(Order),
    "bounded": taking(Annotated[int, Field(gt=1)]),
    "bounded otherwise": taking(Annotated[int, Field(gt=2)]),
    "keyed": keyed,
    "wider": wider,
    "by name": by_name,
}


def test_what_is_compiled_otherwise_has_a_plan_of_its_own() -> None:
    flow = Flow(Program.from_dict({"steps": [step("a", "t", args={"x": "$x"})]}))
    plans = {name: plan_of(flow, {"t": contract("t", made)}) for name, made in UNLIKE.items()}
    for name, plan in plans.items():
        assert plan_of(flow, {"t": contract("t", UNLIKE[name])}) is plan, name
    assert len({id(plan) for plan in plans.values()}) == len(plans)


def test_a_check_of_a_policy_is_part_of_a_plan() -> None:
    made = Program.from_dict(PROGRAM)
    tools = shop([], "a")
    plain, checked = (ExecutionVM(tools=tools, policy=p).plan(made) for p in (None, POLICY))
    stricter = {"tools": {"pay": {"args": {"order": "$value.number > 1"}}}}
    assert plain is not checked
    assert ExecutionVM(tools=tools, policy=stricter).plan(made) is not checked
    assert ExecutionVM(tools=shop([], "b"), policy=dict(POLICY)).plan(made) is checked


def test_a_tool_that_is_not_called_does_not_matter() -> None:
    made = Program.from_dict({"steps": [step("a", "t")]})
    one = ExecutionVM(tools={"t": lambda: 1}).plan(made)
    assert ExecutionVM(tools={"t": lambda: 2, "u": print}).plan(made) is one
