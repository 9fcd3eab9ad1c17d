"""Tools: what may be one, what a signature promises, what it is handed and what it may give
back.
"""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import enum
import functools
import inspect
import math
import re
import traceback
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Annotated, Any, Literal, Optional, Union

import pydantic
import pytest
from build import NOW, program, step
from pydantic import BaseModel, Field

from nano_vm import (
    ExecutionVM,
    OutcomeUnknown,
    Program,
    RunFailed,
    ToolError,
    Trace,
    TraceStatus,
    VMError,
    tool,
)
from nano_vm.tools.contract import ArgumentError, Parameter, checked, contract, name_of
from nano_vm.tools.conversion import converter


def run(
    function: Callable[..., Any], *, inputs: dict[str, Any] | None = None, **fields: Any
) -> Trace:
    """One step that calls *function* as ``t``."""
    return ExecutionVM(tools={"t": function}).run_sync(program(step(**fields)), inputs)


# --- what may be a tool ---------------------------------------------------------------------------


class Service:
    """Callables in every form that a user has them."""

    def __init__(self, result: str = "ok") -> None:
        self.result = result

    async def coroutine(self, x: str = "") -> str:
        await asyncio.sleep(0)
        return self.result + x

    def plain(self, x: str = "") -> str:
        return self.result + x

    @classmethod
    async def of_class(cls, x: str = "") -> str:
        return "ok" + x

    @staticmethod
    def static(x: str = "") -> str:
        return "ok" + x

    async def __call__(self, x: str = "") -> str:
        return self.result + x


class SyncCallable:
    def __call__(self, x: str = "") -> str:
        return "ok" + x


class Awaitable:
    def __await__(self) -> Iterator[Any]:
        yield from asyncio.sleep(0).__await__()
        return "ok!"


async def joined(first: str, x: str = "") -> str:
    return first + x


def passed_on(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(**keywords: Any) -> Any:
        return function(**keywords)

    return wrapper


FORMS = {
    "async function": functools.partial(joined, "ok"),
    "nested partial": functools.partial(functools.partial(joined, first="ok")),
    "partial of a method": functools.partial(Service().plain),
    "async method": Service().coroutine,
    "method": Service().plain,
    "class method": Service.of_class,
    "static method": Service.static,
    "object with async __call__": Service(),
    "object with __call__": SyncCallable(),
    "partial of an object with async __call__": functools.partial(Service()),
    "lambda": lambda x: "ok" + x,
    "lambda returning a coroutine": lambda x: joined("ok", x),
    "lambda returning an awaitable": lambda x: Awaitable(),
    "function returning a coroutine": passed_on(Service().coroutine),
}


@pytest.mark.parametrize("form", list(FORMS))
def test_every_form_of_callable_is_called_and_awaited(form: str) -> None:
    trace = run(FORMS[form], args={"x": "!"})
    assert (trace.status, trace.final_output) == (TraceStatus.SUCCESS, "ok!"), trace.error


def test_a_class_is_a_tool_and_its_instance_data() -> None:
    @dataclasses.dataclass
    class Point:
        x: int
        y: int = 2

    assert run(Point, args={"x": 1}).final_output == {"x": 1, "y": 2}
    assert run(Point, args={"x": "$n"}, inputs={"n": "7"}).final_output == {"x": 7, "y": 2}


def test_the_hints_of_a_class_are_those_of_its_constructor() -> None:
    class Account:
        def __init__(self, number: int) -> None:
            self.number = number

    trace = run(Account, args={"number": "$n"}, inputs={"n": "abc"})
    assert "argument 'number' of tool 't'" in (trace.error or "")


def test_a_builtin_is_a_tool() -> None:
    assert run(dict, args={"a": 1, "b": [2]}).final_output == {"a": 1, "b": [2]}
    assert run(datetime.timedelta, args={"days": 1}).final_output == "P1D"
    assert run(object).status is TraceStatus.FAILED  # a call that gives what is not JSON


async def _generates() -> Any:
    yield 1


def _yields() -> Any:
    yield 1


class _GeneratorCall:
    def __call__(self) -> Any:
        yield 1


@pytest.mark.parametrize(
    ("name", "function", "says"),
    [
        ("t", 5, "tool 't' is int, which cannot be called"),
        ("t", None, "NoneType, which cannot be called"),
        ("t", _generates, "is a generator; return a list instead"),
        ("t", _yields, "is a generator"),
        ("t", functools.partial(_yields), "is a generator"),
        ("t", _GeneratorCall(), "is a generator"),
        ("t", len, "by position only"),
    ],
)
def test_what_cannot_be_a_tool_is_refused_when_it_is_registered(
    name: Any, function: Any, says: str
) -> None:
    with pytest.raises(VMError, match=re.escape(says)):
        ExecutionVM(tools={name: function})
    vm = ExecutionVM()
    with pytest.raises(VMError, match=re.escape(says)):
        vm.register_tool(name, function)


def test_a_tool_has_a_name() -> None:
    with pytest.raises(VMError, match="tools is a dict by name, and 5 is no string"):
        ExecutionVM(tools={5: print})  # type: ignore[dict-item]
    for name in (5, ""):
        with pytest.raises(VMError, match="a tool's name is a string, not"):
            ExecutionVM().register_tool(name, print)  # type: ignore[arg-type]


def test_register_tool_replaces_and_programs_are_checked_anew() -> None:
    vm = ExecutionVM()
    one = program(step(args={"x": 1}))
    assert [d.code for d in vm.check(one)] != []
    assert vm.run_sync(one).status is TraceStatus.FAILED
    vm.register_tool("t", lambda x: x + 1)
    assert vm.check(one) == []
    assert vm.run_sync(one).final_output == 2
    vm.register_tool("t", lambda x: x + 2)
    assert vm.run_sync(one).final_output == 3
    vm.register_tool("t", lambda y: y)
    refused = vm.run_sync(one)
    assert refused.steps == []
    assert "'x'" in (refused.error or "")


async def test_a_run_keeps_the_tool_that_it_began_with() -> None:
    begun = asyncio.Event()
    go = asyncio.Event()

    async def first() -> str:
        begun.set()
        await go.wait()
        return "first"

    vm = ExecutionVM(tools={"t": first})
    handle = vm.start(program(step("a"), step("b")))
    await begun.wait()
    vm.register_tool("t", lambda: "second")
    go.set()
    assert [s.output for s in (await handle).steps] == ["first", "first"]


# --- @tool ----------------------------------------------------------------------------------------


def test_tool_leaves_the_function_as_it_is() -> None:
    @tool
    async def plain(x: int) -> int:
        return x

    @tool(effect="read", timeout_seconds=5)
    def declared(x: int) -> int:
        """Twice x."""
        return x * 2

    assert asyncio.run(plain(3)) == 3
    assert declared(2) == 4
    first, second = contract("plain", plain), contract("declared", declared)
    assert (first.effect, first.declared, first.how, first.timeout_seconds) == (
        "write",
        False,
        "async",
        None,
    )
    assert (second.effect, second.declared, second.how, second.timeout_seconds) == (
        "read",
        True,
        "thread",
        5,
    )
    assert second.doc == "Twice x."
    assert not second.unsafe
    assert first.unsafe


def test_tool_options_are_found_through_methods_and_partials() -> None:
    class Api:
        @tool(effect="read")
        async def get(self) -> int:
            return 1

    assert contract("t", Api().get).effect == "read"
    assert contract("t", functools.partial(Api().get)).effect == "read"


def test_tool_declares_bound_methods_and_builtins() -> None:
    for function in (Service().coroutine, Service().plain, dict):
        assert contract("t", tool(effect="read")(function)).effect == "read"


@pytest.mark.parametrize("effect", ["reads", "", 5])
def test_an_unknown_effect_is_refused(effect: Any) -> None:
    with pytest.raises(VMError, match="effect is one of read, idempotent, write, irreversible"):
        tool(effect=effect)


@pytest.mark.parametrize("seconds", ["x", -1, 0, math.nan, math.inf, True])
def test_a_timeout_that_is_none_is_refused(seconds: Any) -> None:
    with pytest.raises(VMError, match="timeout_seconds"):
        tool(timeout_seconds=seconds)(joined)


def test_the_timeout_of_a_tool_holds_unless_the_step_has_its_own() -> None:
    @tool(effect="read", timeout_seconds=0.02)
    async def slow() -> str:
        await asyncio.sleep(0.045)
        return "done"

    assert run(slow).error_kind == "timeout"
    assert run(slow, timeout_seconds=5).final_output == "done"


def test_contract_as_json() -> None:
    @tool(effect="irreversible")
    async def pay(
        order_id: str, amount: float, note: str | None = None, *, idempotency_key: str = ""
    ) -> None:
        """Pays an order back."""

    shown = contract("pay", pay).to_dict()
    assert (shown["name"], shown["description"], shown["effect"]) == (
        "pay",
        "Pays an order back.",
        "irreversible",
    )
    arguments = shown["arguments"]
    assert arguments["required"] == ["order_id", "amount"]
    # the key is not for the program to give
    assert list(arguments["properties"]) == ["order_id", "amount", "note"]
    assert arguments["properties"]["amount"] == {"type": "number"}
    assert arguments["additionalProperties"] is False
    assert contract("t", lambda **rest: None).to_dict()["arguments"]["additionalProperties"] is True


# --- the contract: names --------------------------------------------------------------------------


async def refund(order_id: str, amount: float, note: str = "") -> str:
    return f"{order_id}:{amount!r}:{note}"


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ({"order_id": "1"}, "'amount'"),
        ({"order_id": "1", "amount": 1, "amuont": 2}, "'amuont'"),
        ({"order_id": "1", "amount": "much"}, "'amount'"),
        ({"order_id": ["1"], "amount": 1}, "'order_id'"),
    ],
)
def test_missing_unknown_and_ill_typed_literal_arguments_are_diagnostics(
    args: dict[str, Any], says: str
) -> None:
    vm = ExecutionVM(tools={"t": refund})
    one = program(step(args=args))
    found = vm.check(one)
    assert len(found) == 1
    assert says in str(found[0])
    assert found[0].loc[:2] == ("steps", 0)
    trace = vm.run_sync(one)
    assert (trace.status, trace.steps, trace.diagnostics) == (TraceStatus.FAILED, [], tuple(found))


def test_a_wrong_type_at_run_time_names_the_argument_and_is_not_retried() -> None:
    calls = []

    async def pay(order_id: str, amount: float) -> None:
        calls.append(amount)

    args = {"order_id": "1", "amount": "$much"}
    trace = run(pay, args=args, inputs={"much": "ten"}, on_error="retry", retry=NOW)
    assert "argument 'amount' of tool 't' takes a number" in (trace.error or "")
    assert (calls, trace.steps[0].retries) == ([], 0)


def test_one_hint_that_cannot_be_resolved_leaves_the_others() -> None:
    async def pay(amount: int, by: "Nowhere" = None) -> int:  # type: ignore[name-defined]  # noqa: F821, UP037
        return amount

    trace = run(pay, args={"amount": "$n"}, inputs={"n": "abc"})
    assert "argument 'amount' of tool 't'" in (trace.error or "")


# --- the contract: types --------------------------------------------------------------------------


class Colour(enum.Enum):
    RED = "red"


class Rank(enum.IntEnum):
    FIRST = 1


class Rates(pydantic.BaseModel):
    low: float = 0.0
    high: float = pydantic.Field(0.0, alias="High")


@dataclasses.dataclass
class Limit:
    most: float


class Order(pydantic.BaseModel):
    id: int
    lines: list[str] = []


@dataclasses.dataclass
class Pair:
    left: int
    right: str = "r"


class Unknown:
    """A class that pydantic cannot make."""


TAKES: list[tuple[Any, Any, Any]] = [
    (Any, [1], [1]),
    (object, "x", "x"),
    (str, "x", "x"),
    (str, 5, "5"),
    (str, 1.5, "1.5"),
    (str, True, "True"),
    (int, 5, 5),
    (int, "5", 5),
    (int, " -5 ", -5),
    (int, 5.0, 5),
    (int, "5e2", 500),
    (float, 5, 5.0),
    (float, "1.5", 1.5),
    (float, "1e3", 1000.0),
    (int, "666.000", 666),
    (int, "1e300", 10**300),
    (int, 1e300, int(1e300)),
    (float, "0.10", 0.1),
    (float, "1e-5", 0.00001),
    (float, "5e-324", 5e-324),
    (float, 2**53, 9007199254740992.0),
    (float, 10**23, 1e23),
    (float, "-0.0", -0.0),
    (list[float], ["0.1", 2, 1e-300], [0.1, 2.0, 1e-300]),
    (dict[str, int], {"a": "666.0"}, {"a": 666}),
    (Annotated[int, pydantic.BeforeValidator(lambda euros: euros * 100)], 5, 500),
    (Annotated[int, pydantic.BeforeValidator(lambda text: int(text[:-4]))], "5 EUR", 5),
    (Annotated[float, pydantic.AfterValidator(lambda x: round(x, 2))], 1.2345, 1.23),
    (Rank, "1", Rank.FIRST),
    (bool, True, True),
    (list, [1], [1]),
    (list[Any], [1], [1]),
    (dict, {"a": 1}, {"a": 1}),
    (dict[str, Any], {"a": [1]}, {"a": [1]}),
    (type(None), None, None),
    (Optional[int], None, None),  # noqa: UP045 - as users write it
    (Optional[int], "5", 5),  # noqa: UP045
    (Union[int, str], "5", "5"),
    (int | str, 5, 5),
    (int | str, 1.5, "1.5"),
    (int | None, None, None),
    (list[int], [1, 2], [1, 2]),
    (Literal["a", "b"], "a", "a"),
    (Colour, "red", Colour.RED),
    (datetime.date, "2024-02-29", datetime.date(2024, 2, 29)),
    (Decimal, "1.10", Decimal("1.10")),
    (Order, {"id": 1}, Order(id=1)),
    (Pair, {"left": 1}, Pair(1)),
    (Annotated[int, pydantic.Field(gt=0)], 3, 3),
    (Unknown, "as it is", "as it is"),
]

REFUSES: list[tuple[Any, Any, str]] = [
    (str, None, "takes a string, not null"),
    (str, ["x"], "takes a string, not the list"),
    (str, {"x": 1}, "takes a string, not"),
    (int, "five", "takes a whole number"),
    (int, 5.5, "takes a whole number"),
    (int, True, "takes a whole number"),
    (int, "", "takes a whole number"),
    (int, "0x10", "takes a whole number"),
    (int, "1_000", "takes a whole number"),
    (int, None, "takes a whole number, not null"),
    (int, "١", "takes a whole number"),
    (float, "nan", "takes a number"),
    (float, "inf", "takes a number"),
    (float, "1e999", "takes a number"),
    (float, True, "takes a number"),
    (float, 10**400, "takes a number"),
    (int, "666.00000000000000000000001", "takes a whole number"),
    (int, "99.99999999999999999999", "takes a whole number"),
    (int, "1e-400", "takes a whole number"),
    (float, "0.99999999999999999999999", "no float is exactly that number"),
    (float, "1e-400", "no float is exactly that number"),
    (float, "1e-99999999999999999999", "takes a number"),
    (float, "9007199254740993", "no float is exactly that number"),
    (float, 2**53 + 1, "no float is exactly that number"),
    (int | float, "666.00000000000000000000001", "takes int or float"),
    (float | None, "1e-400", "takes float or NoneType"),
    (list[float], [1, "1e-400"], "takes no number that is exactly the string '1e-400'"),
    (list[float], [2**53 + 1], "takes no number that is exactly the number 9007199254740993"),
    (dict[str, list[float]], {"a": ["1e-99999999999999999999"]}, "takes no number that is exactly"),
    (tuple[float, ...], ["0.99999999999999999999999"], "takes no number that is exactly"),
    (Rates, {"low": "1e-400"}, "takes no number that is exactly"),
    (Rates, {"High": "1e-400"}, "takes no number that is exactly"),
    (Limit, {"most": "1e-400"}, "takes no number that is exactly"),
    (Annotated[float, pydantic.Field(ge=0)], "1e-400", "takes no number that is exactly"),
    (bool, 1, "takes true or false"),
    (bool, "true", "takes true or false"),
    (list, "x", "takes a list"),
    (list, {"a": 1}, "takes a list"),
    (dict, [], "takes an object"),
    (type(None), 0, "takes null"),
    (int | None, "x", "takes int or NoneType"),
    (list[int], ["x"], "[0]"),
    (Literal["a", "b"], "c", "'a' or 'b'"),
    (Colour, "blue", "'red'"),
    (datetime.date, "yesterday", "date"),
    (Order, {"lines": []}, "['id']"),
    (Pair, {"left": "x"}, "['left']"),
    (Annotated[int, pydantic.Field(gt=0)], -3, "greater than 0"),
]


def named(hint: Any) -> str:
    return getattr(hint, "__name__", str(hint)).replace("typing.", "")


@pytest.mark.parametrize(
    ("hint", "value", "received"), TAKES, ids=[f"{named(h)}-{v!r:.20}" for h, v, _ in TAKES]
)
def test_a_value_that_fits_the_hint(hint: Any, value: Any, received: Any) -> None:
    result = checked("t", Parameter("x", True, hint, converter(hint)), value)
    assert result == received
    assert type(result) is type(received)


@pytest.mark.parametrize(
    ("hint", "value", "says"), REFUSES, ids=[f"{named(h)}-{v!r:.20}" for h, v, _ in REFUSES]
)
def test_a_value_that_does_not_fit_the_hint(hint: Any, value: Any, says: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        checked("t", Parameter("x", True, hint, converter(hint)), value)
    assert str(caught.value).startswith("argument 'x' of tool 't' ")
    assert says in str(caught.value)
    assert caught.value.retryable is False


def test_what_is_recorded_is_the_value_before_its_conversion() -> None:
    async def pay(amount: float, when: datetime.date) -> str:
        return f"{amount!r} {when!r}"

    trace = run(pay, args={"amount": "$n", "when": "2024-01-01"}, inputs={"n": "5"})
    assert trace.final_output == "5.0 datetime.date(2024, 1, 1)"
    assert trace.steps[0].request == {"amount": "5", "when": "2024-01-01"}


# --- what comes back ------------------------------------------------------------------------------


def _cycle() -> list[Any]:
    items: list[Any] = []
    items.append({"again": items})
    return items


class Bold(str):
    __slots__ = ()


class Count(enum.IntEnum):
    ONE = 1


GIVES: dict[str, tuple[Any, Any]] = {
    "pydantic model": (lambda: Order(id=1, lines=["a"]), {"id": 1, "lines": ["a"]}),
    "dataclass": (lambda: Pair(1), {"left": 1, "right": "r"}),
    "enum": (lambda: Colour.RED, "red"),
    "int enum": (lambda: Count.ONE, 1),
    "str subclass": (lambda: Bold("x"), "x"),
    "date": (lambda: datetime.date(2024, 1, 2), "2024-01-02"),
    "datetime": (
        lambda: datetime.datetime(2024, 1, 2, tzinfo=datetime.UTC),
        "2024-01-02T00:00:00+00:00",
    ),
    "exact Decimal": (lambda: Decimal("0.25"), 0.25),
    "Decimal amount": (lambda: Decimal("19.99"), 19.99),
    "whole Decimal": (lambda: Decimal(7), 7),
    "tuple": (lambda: (1, (2,)), [1, [2]]),
    "nested": (lambda: {"a": [Pair(1)]}, {"a": [{"left": 1, "right": "r"}]}),
    "4096-bit int": (lambda: 2**4096 - 1, 2**4096 - 1),
    "NUL": (lambda: "a\0b", "a\0b"),
    "what looks like a reference": (lambda: "$x ${y}", "$x ${y}"),
    "None": (lambda: None, None),
}

REFUSED: dict[str, tuple[Any, str]] = {
    "generator": (lambda: (i for i in range(3)), "collect it into a list"),
    "async generator": (lambda: _generates(), "collect it into a list"),
    "cycle": (_cycle, "contains itself"),
    "NaN": (lambda: math.nan, "JSON has no such number"),
    "nested infinity": (lambda: {"a": [math.inf]}, "value['a'][0] is inf"),
    "5000-bit int": (lambda: 2**5000, "an integer of 5001 bits"),
    "bytes": (lambda: b"x", "decode it to a string"),
    "lone surrogate": (lambda: "\ud800", "lone surrogate"),
    "lone surrogate in a key": (lambda: {"\udfff": 1}, "lone surrogate"),
    "int key": (lambda: {1: 2}, "keys must be strings"),
    "None key": (lambda: {"a": {None: 2}}, "value['a'] is a dict with the key None"),
    "inexact Decimal": (lambda: Decimal("0.1234567890123456789"), "return str(value)"),
    "Decimal NaN": (lambda: Decimal("NaN"), "return str(value)"),
    "object": (lambda: object(), "return None, bool, int, float, str, list or dict"),
    "class": (lambda: Order, "return None, bool"),
    "exception": (lambda: ValueError("x"), "ValueError"),
    "101 levels": (
        lambda: functools.reduce(lambda v, _: [v], range(101), 0),
        "nested deeper than 100",
    ),
    "10,000 levels": (
        lambda: functools.reduce(lambda v, _: [v], range(10_000), 0),
        "nested deeper than 100",
    ),
    "itself": (lambda: run, "function"),
    "20 MB": (lambda: "x" * 20_000_000, "larger than 16777216 bytes"),
}


@pytest.mark.parametrize("kind", GIVES)
def test_what_has_an_exact_json_form_is_taken(kind: str) -> None:
    make, expected = GIVES[kind]
    trace = run(make)
    assert trace.error is None
    assert trace.final_output == expected
    assert type(trace.final_output) is type(expected)
    assert Trace.from_json(trace.to_json()).final_output == expected


@pytest.mark.parametrize("kind", REFUSED)
def test_what_has_none_is_an_error_that_says_what_to_return(kind: str) -> None:
    calls = []

    def counted() -> Any:
        calls.append(1)
        return REFUSED[kind][0]()

    trace = run(counted, on_error="retry", retry=NOW)
    assert trace.status is TraceStatus.FAILED
    assert REFUSED[kind][1] in (trace.error or "")
    assert len(calls) == 1  # it took effect: calling again would repeat it


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_coroutine_that_gives_a_coroutine() -> None:
    async def twice() -> Any:
        return joined("a")

    assert "await it" in (run(twice).error or "")


class _Dump:
    def model_dump(self) -> Any:
        raise RuntimeError("no dump")


class _Items(dict[str, Any]):
    def items(self) -> Any:
        raise RuntimeError("no items")


class _Repr:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


@pytest.mark.parametrize(
    "make",
    [_Dump, lambda: _Items(a=1), _Repr, lambda: {"a": _Dump()}],
    ids=["dump", "items", "repr", "inside"],
)
def test_a_value_whose_conversion_raises_fails_its_step(make: Any) -> None:
    trace = run(lambda: make())
    assert trace.status is TraceStatus.FAILED
    assert trace.error is not None


def test_an_input_whose_conversion_raises_is_refused() -> None:
    trace = run(lambda x: x, args={"x": "$x"}, inputs={"x": _Dump()})
    assert (trace.status, trace.steps) == (TraceStatus.FAILED, [])
    assert trace.diagnostics[0].loc == ("context", "x")


def test_what_a_tool_returned_and_keeps_is_not_the_runs_value() -> None:
    kept: list[Any] = [1, {"a": 1}]

    async def give() -> list[Any]:
        return kept

    async def change() -> None:
        kept.append(2)
        kept[1]["a"] = 99

    vm = ExecutionVM(tools={"give": give, "change": change, "show": lambda x: x})
    trace = vm.run_sync(
        program(step("a", "give"), step("b", "change"), step("c", "show", args={"x": "$a.output"}))
    )
    assert trace.final_output == [1, {"a": 1}]


def test_a_tool_that_changes_its_arguments_changes_nothing_behind_the_machine() -> None:
    async def spoil(items: list[Any], deep: dict[str, Any], literal: list[Any]) -> None:
        items.append("spoilt")
        deep["a"].append("spoilt")
        literal.append("spoilt")

    vm = ExecutionVM(tools={"spoil": spoil, "show": lambda **all: all})
    args = {"items": "$items", "deep": "$deep", "literal": [1]}
    one = program(
        step("a", "spoil", args=args), step("b", "show", args=args), step("c", "spoil", args=args)
    )
    inputs: dict[str, Any] = {"items": [1], "deep": {"a": [1]}}
    for _ in range(2):  # the plan's literals stay too
        trace = vm.run_sync(one, inputs)
        assert trace.steps[1].output == {"items": [1], "deep": {"a": [1]}, "literal": [1]}
        assert (
            trace.steps[0].request
            == trace.steps[2].request
            == {"items": [1], "deep": {"a": [1]}, "literal": [1]}
        )
    assert inputs == {"items": [1], "deep": {"a": [1]}}


def test_a_model_that_a_tool_was_given_is_its_own() -> None:
    async def spoil(order: Order) -> list[str]:
        order.lines.append("spoilt")
        return order.lines

    vm = ExecutionVM(tools={"t": spoil})
    one = program(step("a", args={"order": "$order"}), step("b", args={"order": "$order"}))
    assert [s.output for s in vm.run_sync(one, {"order": {"id": 1, "lines": ["a"]}}).steps] == [
        ["a", "spoilt"]
    ] * 2


# --- what is raised -------------------------------------------------------------------------------


class _HostileText(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class _VeryHostileText(Exception):
    def __str__(self) -> str:
        raise SystemExit("no text")


class _Base(BaseException):
    pass


RAISED: dict[str, tuple[Any, str]] = {
    "exception": (ValueError("bad"), "ValueError: bad"),
    "base exception": (_Base("low"), "_Base: low"),
    "SystemExit": (SystemExit(3), "SystemExit: 3"),
    "hostile text": (_HostileText(), "_HostileText: <no message>"),
    "very hostile text": (_VeryHostileText(), "_VeryHostileText: <no message>"),
    "lone surrogate": (ValueError("\ud800"), "ValueError: \\ud800"),
    "long text": (ValueError("x" * 100_000), "x..."),
    "line break": (ValueError("a\nb"), "a"),
    "GeneratorExit": (GeneratorExit("over"), "GeneratorExit"),
    "StopAsyncIteration": (StopAsyncIteration("over"), "StopAsyncIteration"),
}


@pytest.mark.parametrize("where", ["async", "thread", "inline"])
@pytest.mark.parametrize("kind", RAISED)
def test_whatever_a_tool_raises_is_the_error_of_its_step(kind: str, where: str) -> None:
    error, says = RAISED[kind]

    async def raises() -> None:
        raise error

    def raises_sync() -> None:
        raise error

    trace = run(raises if where == "async" else tool(inline=where == "inline")(raises_sync))
    assert trace.status is TraceStatus.FAILED
    assert says in (trace.error or "")
    assert trace.steps[0].error_kind == "tool"
    assert len(trace.error or "") < 20_000
    assert Trace.from_json(trace.to_json()).digest == trace.digest


@pytest.mark.parametrize("where", ["async", "thread", "inline"])
def test_stop_iteration_is_an_error_too(where: str) -> None:
    async def raises() -> None:
        raise StopIteration("over")

    def raises_sync() -> None:
        raise StopIteration("over")

    trace = run(raises if where == "async" else tool(inline=where == "inline")(raises_sync))
    assert trace.status is TraceStatus.FAILED
    assert "StopIteration" in (trace.error or "")


def test_a_keyboard_interrupt_is_the_users_and_ends_the_run() -> None:
    async def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(interrupted)


async def test_a_tool_whose_own_call_was_cancelled_has_not_cancelled_the_run() -> None:
    async def inner() -> None:
        await asyncio.sleep(10)

    @tool(effect="read")
    async def outer() -> None:
        task = asyncio.create_task(inner())
        await asyncio.sleep(0)
        task.cancel()
        await task

    trace = await ExecutionVM(tools={"t": outer}).run(program(step()))
    assert (trace.status, trace.error_kind) == (TraceStatus.FAILED, "timeout")


def test_the_wrong_call_is_the_tools_own_type_error() -> None:
    async def wants(**rest: Any) -> None:
        raise TypeError("missing 'x'")

    assert "TypeError: missing 'x'" in (run(wants, args={"y": 1}).error or "")


# --- effects and keys -----------------------------------------------------------------------------


def test_the_idempotency_key_is_one_over_retries_and_another_for_each_step_and_run() -> None:
    keys: list[tuple[str, str]] = []
    failures = {"a": 2, "b": 0}

    async def send(name: str, idempotency_key: str) -> None:
        keys.append((name, idempotency_key))
        if failures[name] > 0:
            failures[name] -= 1
            raise TimeoutError

    vm = ExecutionVM(tools={"t": send})
    one = program(
        step("a", args={"name": "a"}, max_retries=3, retry=NOW), step("b", args={"name": "b"})
    )
    assert vm.run_sync(one, run_id="first").status is TraceStatus.SUCCESS
    assert vm.run_sync(one, run_id="second").status is TraceStatus.SUCCESS
    assert [name for name, _ in keys] == ["a", "a", "a", "b", "a", "b"]
    assert len({key for _, key in keys[:3]}) == 1
    assert len({keys[0], keys[3], keys[4], keys[5]}) == 4
    again: list[str] = []
    other = ExecutionVM(tools={"t": lambda name, idempotency_key: again.append(idempotency_key)})
    other.run_sync(one, run_id="first")
    assert again == [keys[0][1], keys[3][1]]  # the same in another process after a crash


def test_each_item_and_iteration_has_its_own_key() -> None:
    keys: list[str] = []

    @tool(inline=True)
    def send(idempotency_key: str) -> None:
        keys.append(idempotency_key)

    steps = [
        {"id": "m", "type": "map", "over": "$xs", "steps": [step("a")]},
        {
            "id": "l",
            "type": "loop",
            "max_iterations": 2,
            "on_exhausted": "continue",
            "steps": [step("b")],
        },
    ]
    assert ExecutionVM(tools={"t": send}).run_sync(program(*steps), {"xs": [1, 2, 3]}).ok
    assert len(keys) == len(set(keys)) == 5


def test_a_program_cannot_give_the_key() -> None:
    async def send(idempotency_key: str) -> str:
        return idempotency_key

    vm = ExecutionVM(tools={"t": send})
    found = vm.check(program(step(args={"idempotency_key": "mine"})))
    assert [d.severity for d in found] == ["error"]


async def _times_out(effect: Any, error: BaseException, **fields: Any) -> tuple[Trace, int]:
    calls = []

    @tool(effect=effect)
    async def call() -> str:
        calls.append(1)
        if len(calls) == 1:
            raise error
        return "ok"

    trace = await ExecutionVM(tools={"t": call}).run(
        program(step(max_retries=2, retry=NOW, **fields))
    )
    return trace, len(calls)


@pytest.mark.parametrize("effect", [None, "write", "irreversible"])
@pytest.mark.parametrize(
    "error",
    [
        TimeoutError("slow"),
        ConnectionResetError("gone"),
        BrokenPipeError("gone"),
        OutcomeUnknown("who knows"),
    ],
    ids=repr,
)
async def test_a_write_with_an_unknown_outcome_is_in_doubt(
    effect: Any, error: BaseException
) -> None:
    trace, calls = await _times_out(
        effect,
        error,
        on_error="retry",
        default=1,
        catch=[{"errors": ["*", "timeout"], "next": "$end"}],
    )
    assert (trace.status, calls) == (TraceStatus.SUSPENDED, 1)
    assert [s.status.value for s in trace.steps] == ["in_doubt"]
    assert trace.waiting[0]["kind"] == "in_doubt"


@pytest.mark.parametrize("effect", ["read", "idempotent"])
@pytest.mark.parametrize(
    "error",
    [TimeoutError("slow"), ConnectionResetError("gone"), OutcomeUnknown("who knows")],
    ids=repr,
)
async def test_reads_and_idempotent_calls_are_retried(effect: Any, error: BaseException) -> None:
    trace, calls = await _times_out(effect, error)
    assert (trace.status, calls, trace.steps[0].retries) == (TraceStatus.SUCCESS, 2, 1)


@pytest.mark.parametrize(
    "error",
    [ValueError("declined"), ConnectionRefusedError("nobody there"), ToolError("no")],
    ids=repr,
)
async def test_a_write_that_raised_may_be_retried(error: BaseException) -> None:
    trace, calls = await _times_out("irreversible", error)
    assert (trace.status, calls) == (TraceStatus.SUCCESS, 2)


async def test_a_tool_error_may_forbid_the_retry() -> None:
    trace, calls = await _times_out("read", ToolError("gone for good", retryable=False))
    assert (trace.status, calls, trace.error_kind) == (TraceStatus.FAILED, 1, "tool")


async def test_a_lost_connection_in_a_group_is_in_doubt() -> None:
    group = ExceptionGroup(
        "tasks", [ValueError("x"), ExceptionGroup("more", [ConnectionResetError("gone")])]
    )
    trace, calls = await _times_out("write", group)
    assert (trace.status, calls) == (TraceStatus.SUSPENDED, 1)


# --- callables of every form ----------------------------------------------------------------------


def _passing_on(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(**kw: Any) -> Any:
        return function(**kw)

    return wrapper


def _counted(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(*args: Any, **kw: Any) -> Any:
        return function(*args, **kw)

    return wrapper


def _narrowed(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(b: int, a: int = 1) -> Any:
        return function(a, b)

    return wrapper


def _looking(function: Any) -> Any:
    """It looks for an argument among the keywords, as those that log or check permissions do."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kw: Any) -> Any:
        assert kw["a"] is not None
        return function(*args, **kw)

    return wrapper


def _pretending(function: Any) -> Any:
    """It says that it has the parameters of another."""

    def wrapper(**kw: Any) -> Any:
        return function(**kw)

    wrapper.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    return wrapper


class _Calling:
    """An object that is called."""

    def __init__(self, function: Any) -> None:
        self.function = function

    def __call__(self, *, a: int, b: int = 0) -> Any:
        return self.function(a, b)

    def method(self, a: int, b: int = 0) -> Any:
        return self.function(a, b)


def _method(function: Any) -> Any:
    return _Calling(function).method


def _bound(function: Any) -> Any:
    return functools.partial(function, b=0)


def _subtract(a: int, b: int = 0) -> int:
    return a - b


WRAPPERS = [_passing_on, _counted, _looking, _pretending, _Calling, _method, _bound]


@pytest.mark.parametrize("how", ["async", "inline", "thread"])
@pytest.mark.parametrize("wrap", WRAPPERS)
def test_a_wrapper_is_called_alike_whatever_its_arguments_are(wrap: Any, how: str) -> None:
    async def subtract(a: int, b: int = 0) -> int:
        return a - b

    function = wrap(subtract if how == "async" else _subtract)
    vm = ExecutionVM(tools={"f": tool(inline=how == "inline")(function)})
    for args in ({"a": 7}, {"a": "$x"}, {"a": "${x}"}, {"b": 0, "a": "$x"}, {"b": "$o", "a": "$x"}):
        trace = vm.run_sync(Program.from_dict({"steps": [
            {"id": "t", "type": "tool", "tool": "f", "args": args}]}), {"x": 7, "o": 0})  # fmt: skip
        assert trace.final_output == 7, (args, trace.error)


@pytest.mark.parametrize("wrap", [_passing_on, _counted])
@pytest.mark.parametrize("value", [7, "$x", "$s.output.y"])
def test_a_wrapper_is_called_as_it_can_be(wrap: Any, value: Any) -> None:
    steps = [
        {"id": "s", "type": "set", "values": {"y": 7}},
        {"id": "t", "type": "tool", "tool": "f", "args": {"a": value}},
    ]
    trace = ExecutionVM(tools={"f": wrap(_subtract)}).run_sync(
        Program.from_dict({"steps": steps}), {"x": 7}
    )
    assert trace.final_output == 7, trace.error


def test_a_wrapper_with_parameters_of_its_own_is_asked_for_those() -> None:
    assert list(contract("f", _narrowed(_subtract)).parameters) == ["b", "a"]
    assert run(_narrowed(_subtract), args={"b": 3}).final_output == -2


def test_metadata_of_any_kind_in_an_annotation() -> None:
    def f(a: Annotated[int, {"unit": "cents"}], b: Annotated[str, ["x"], "note"] = "") -> str:
        return f"{a}{b}"

    assert run(f, args={"a": "5", "b": 6}).final_output == "56"

    def g(a: Annotated[int, {"unit": "cents"}, Field(gt=3)]) -> int:
        return a

    assert run(g, args={"a": 4}).final_output == 4
    assert "greater than 3" in (run(g, args={"a": 2}).error or "")


def test_a_class_of_the_function_around_under_postponed_annotations() -> None:
    class Local(BaseModel):
        n: int

    def f(order: Local) -> int:
        assert type(order) is Local
        return order.n

    assert f.__annotations__["order"] == "Local"  # a string: this module postpones annotations
    assert run(f, args={"order": {"n": 3}}).final_output == 3


@pytest.mark.parametrize(
    ("hint", "instead"),
    [
        (bytes, "decode it"),
        (list[bytes], "decode it"),
        (dict[str, bytearray], "decode it"),
        (complex, "return its parts"),
        (Iterator[int], "return a list"),
        (Annotated[bytes, "x"], "decode it"),
    ],
)
def test_a_result_that_cannot_be_written_is_known_at_registration(hint: Any, instead: str) -> None:
    def f() -> Any:
        return None

    f.__annotations__["return"] = hint
    with pytest.raises(VMError, match=f"tool 'f' says that it returns .*; {instead}"):
        ExecutionVM(tools={"f": f})
    f.__annotations__["return"] = (
        hint | None if not isinstance(hint, type(Annotated[int, 1])) else Any
    )
    assert run(f).ok


@pytest.mark.parametrize("around", ["step", "parallel", "map"])
def test_the_tools_exception_keeps_its_traceback(
    around: str, caplog: pytest.LogCaptureFixture
) -> None:
    def f() -> None:
        raise LookupError("nothing there")

    steps: dict[str, Any] = {
        "step": {"id": "a", "type": "tool", "tool": "f"},
        "parallel": {
            "id": "p",
            "type": "parallel",
            "parallel_steps": [{"id": "a", "type": "tool", "tool": "f"}],
        },
        "map": {
            "id": "m",
            "type": "map",
            "over": [1],
            "steps": [{"id": "a", "type": "tool", "tool": "f"}],
        },
    }
    with caplog.at_level("DEBUG", logger="nano_vm"):
        trace = ExecutionVM(tools={"f": f}).run_sync(Program.from_dict({"steps": [steps[around]]}))
    with pytest.raises(RunFailed) as caught:
        trace.raise_for_status()
    assert isinstance(caught.value.__cause__, LookupError)
    assert traceback.extract_tb(caught.value.__cause__.__traceback__)[-1].name == "f"
    (logged,) = [record for record in caplog.records if record.exc_info]
    assert logged.exc_info is not None
    assert logged.exc_info[1] is caught.value.__cause__


class _Person(pydantic.BaseModel):
    name: str


class _Company(pydantic.BaseModel):
    name: str
    vat: str


@pytest.mark.parametrize(
    ("hint", "value", "best"),
    [
        (_Person | _Company, {"name": "a", "vat": "v"}, _Company),
        (_Company | _Person, {"name": "a"}, _Person),
        (_Person | dict[str, Any], {"name": "a", "vat": "v"}, dict),
        (float | int, 2, int),
        (int | str, "5", str),
    ],
    ids=str,
)
def test_a_union_takes_the_member_that_keeps_most(hint: Any, value: Any, best: type) -> None:
    convert = converter(hint)
    assert convert is not None
    assert type(convert(value)) is best


def test_the_name_of_a_tool_in_a_list_is_declared_or_its_own() -> None:
    @tool(name="other")
    def declared() -> None: ...

    def plain() -> None: ...

    assert (name_of(declared), name_of(plain)) == ("other", "plain")
    with pytest.raises(VMError, match="partial in a list has no name; give a dict"):
        name_of(functools.partial(plain))
