"""Values of many items for a typed parameter: the first fault is told, and nothing more is done."""

from __future__ import annotations

from typing import Annotated, Any, TypedDict

import pytest
from pydantic import BaseModel, BeforeValidator

from nano_vm import Program
from nano_vm.tools.contract import ArgumentError, checked, contract
from nano_vm.tools.conversion import ENTRIES_AT_ONCE
from nano_vm.verify import verify

looked_at: list[Any] = []


def _looked(value: Any) -> Any:
    looked_at.append(value)
    return value


Counted = Annotated[int, BeforeValidator(_looked)]


class Order(BaseModel):
    """With a list inside."""

    lines: list[Counted] = []
    type: str = "order"


def lists(items: list[Counted]) -> None: ...
def pairs(items: tuple[Counted, ...]) -> None: ...
def nested(items: list[list[Counted]]) -> None: ...
def objects(items: dict[str, Counted]) -> None: ...


MANY = 20 * ENTRIES_AT_ONCE


@pytest.mark.parametrize(
    ("tool", "value", "place"),
    [
        (lists, [1, 2, "a", *["b"] * MANY], "[2]"),
        (pairs, [1, 2, "a", *["b"] * MANY], "[2]"),
        (nested, [[1], [2, "a", *["b"] * MANY], ["c"] * MANY], "[1][1]"),
        (objects, {"x": 1, **{f"k{i}": "b" for i in range(MANY)}}, "['k0']"),
    ],
)
def test_nothing_is_looked_at_behind_the_first_fault(tool: Any, value: Any, place: str) -> None:
    looked_at.clear()
    parameter = contract("t", tool).parameters["items"]
    with pytest.raises(ArgumentError, match="valid integer") as raised:
        checked("t", parameter, value)
    assert f"'items' of tool 't' {place}: " in str(raised.value)
    assert len(looked_at) <= ENTRIES_AT_ONCE


@pytest.mark.slow
def test_large_values_without_a_fault_are_whole() -> None:
    tools = [contract("t", one).parameters["items"] for one in (lists, objects)]
    assert checked("t", tools[0], list(range(MANY))) == list(range(MANY))
    given = {f"k{i}": i for i in range(MANY + 1)}
    assert checked("t", tools[1], given) == given


def test_a_model_with_a_list_inside() -> None:
    def order(items: Order) -> None: ...

    parameter = contract("t", order).parameters["items"]
    assert checked("t", parameter, {"lines": [1, 2]}) == Order(lines=[1, 2])
    with pytest.raises(ArgumentError, match=r"\['lines'\]\[0\]"):
        checked("t", parameter, {"lines": ["a", "b"]})


class Inner(TypedDict):
    """A field of another."""

    code: str


class Address(TypedDict, total=False):
    """Of the standard library, which pydantic does not take on Python 3.11."""

    street: str
    number: int
    inner: Inner


@pytest.mark.parametrize(
    ("hint", "wrap"),
    [
        (Address, lambda one: one),
        (list[Address], lambda one: [one]),
        (Address | None, lambda one: one),
        (dict[str, Address | None], lambda one: {"a": one}),
    ],
)
def test_typed_dicts_are_checked(hint: Any, wrap: Any) -> None:
    def tool(items: Any) -> None: ...

    tool.__annotations__["items"] = hint
    parameter = contract("t", tool).parameters["items"]
    good = wrap({"street": "A", "number": 3, "inner": {"code": "x"}})
    assert checked("t", parameter, good) == good
    assert checked("t", parameter, wrap({})) == wrap({})
    for bad in ({"number": "many"}, {"inner": {}}, {"street": ["A"]}):
        with pytest.raises(ArgumentError):
            checked("t", parameter, wrap(bad))
    program = Program.from_dict(
        {
            "steps": [
                {
                    "id": "a",
                    "type": "tool",
                    "tool": "t",
                    "args": {"items": wrap({"number": "many"})},
                }
            ]
        }
    )
    assert [d.code for d in verify(program, tools={"t": tool}).diagnostics] == ["V022"]
