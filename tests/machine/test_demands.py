"""What a policy demands of an argument holds for what the tool receives: checks, approvals, and
conversions between.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import json
import pathlib
import uuid
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import pydantic
import pytest
from build import program, step
from campaigns import cases
from hypothesis import given, settings
from hypothesis import strategies as st

from nano_vm import ExecutionVM, Trace, tool
from nano_vm.errors import ValueRefused
from nano_vm.machine.demands import json_form, same


class Bank:
    """A tool that keeps what it received."""

    def __init__(self, hint: Any, effect: Any = "write") -> None:
        self.got: list[Any] = []

        async def pay(acc: Any) -> str:
            self.got.append(acc)
            return "paid"

        pay.__annotations__["acc"] = hint
        self.pay: Callable[..., Any] = tool(effect=effect)(pay)


def host(check: str | None = None, **values: Any) -> dict[str, Any]:
    rule = {"pay": {"args": {"acc": check}}} if check is not None else {}
    return {"inputs": {"mail": "untrusted"}, "values": values, "tools": {**rule}}


def checked(hint: Any, check: str, mail: Any, **values: Any) -> tuple[Trace, list[Any]]:
    """A run of one call, whose argument is untrusted and must pass *check*."""
    bank = Bank(hint)
    vm = ExecutionVM(tools={"pay": bank.pay}, policy=host(check, **values))
    one = program(step("s", "pay", args={"acc": "$mail"}))
    assert vm.verify(one).ok
    return vm.run_sync(one, {"mail": mail}), bank.got


class Colour(enum.Enum):
    RED = "red"


class Order(pydantic.BaseModel):
    to: str
    cents: int = 5
    note: str = "none"


@dataclasses.dataclass
class Transfer:
    to: str
    cents: float = 1.0


LOWER = Annotated[str, pydantic.StringConstraints(to_lower=True, strip_whitespace=True)]

BROKEN: list[tuple[Any, str, Any]] = [
    # numbers that rounding would carry over the line
    (int, "$value not in [666]", "666.00000000000000000000001"),
    (int, "$value < 100", "99.99999999999999999999"),
    (float, "$value > 0", "1e-400"),
    (float, "$value > 0", "1e-99999999999999999999"),
    (float, "$value < 1", "0.99999999999999999999999"),
    (float, "$value != 9007199254740992", 9007199254740993),
    (float, "float($value) >= 100", "99.99999999999999999999"),
    (str, "float($value) >= 100", "99.99999999999999999999"),
    (int | None, "$value != 666", "666.00000000000000000000001"),
    (int | float, "$value < 100", "99.99999999999999999999"),
    (list[float], "$value[0] > 0", ["1e-400"]),
    (dict[str, float], "$value.a > 0", {"a": "1e-400"}),
    (Transfer, "$value.cents > 0", {"to": "x", "cents": "1e-400"}),
    (decimal.Decimal, "$value > 0", "-1e-400"),
    # texts that the conversion changes
    (str, "$value not in ['true', 'True']", True),
    (str, "$value not in ['true']", True),
    (LOWER, "$value not in ['evil']", " EVIL "),
    (pathlib.Path, "$value != 'b'", "b/"),
    (
        uuid.UUID,
        "$value != '00000000-0000-0000-0000-00000000000a'",
        "{00000000-0000-0000-0000-00000000000A}",
    ),
    (datetime.date, "$value != '1970-01-02'", 86400),
    (Colour, "$value == 'red ' or $value == 'blue'", "red"),
    (int | str, "$value not in ['1.5']", 1.5),
    # what the conversion adds
    (Order, "$value.cents > 5", {"to": "x"}),
    (Transfer, "$value.cents > 1", {"to": "x"}),
    (Annotated[int, pydantic.BeforeValidator(lambda v: v * 100)], "$value < 100", 5),
    (
        Annotated[int | None, pydantic.BeforeValidator(lambda v: 666 if v is None else v)],
        "$value != 666",
        None,
    ),
    (Annotated[Any, pydantic.AfterValidator(lambda v: Bank(int))], "$value != 666", 5),
]


@pytest.mark.parametrize(
    ("hint", "check", "mail"), BROKEN, ids=[f"{c}-{m!r:.24}" for _, c, m in BROKEN]
)
def test_a_value_that_passes_and_would_be_received_as_one_that_does_not(
    hint: Any, check: str, mail: Any
) -> None:
    trace, got = checked(hint, check, mail)
    assert got == []
    assert not trace.ok


KEPT: list[tuple[Any, str, Any, Any]] = [
    (int, "$value not in [666]", "665.0", 665),
    (int, "$value < 100", "99", 99),
    (float, "$value > 0", "1e-300", 1e-300),
    (float, "$value in [5, 0.1]", 5, 5.0),
    (float, "$value in [5, 0.1]", "0.10", 0.1),
    (str, "$value in ['5', 5]", 5, "5"),
    (LOWER, "$value.lower() in ['good']", "good", "good"),
    (decimal.Decimal, "$value < 0.2 and $value + 1 < 2", 0.1, decimal.Decimal("0.1")),
    (decimal.Decimal, "$value > 0", "1e-400", decimal.Decimal("1e-400")),
    (datetime.date, "$value < '2026-01-01'", "2025-12-31", datetime.date(2025, 12, 31)),
    (
        uuid.UUID,
        "$value in ['00000000-0000-0000-0000-00000000000a']",
        str(uuid.UUID(int=10)),
        uuid.UUID(int=10),
    ),
    (Colour, "$value in ['red']", "red", Colour.RED),
    (Order, "$value.to in ['x']", {"to": "x"}, Order(to="x")),
    (list[int], "len($value) == 2", ["1", 2], [1, 2]),
    (set[str], "len($value) == 2", ["b", "a"], {"a", "b"}),
    (Any, "$value in [true]", True, True),
    (pydantic.SecretStr, "$value in ['x']", "x", pydantic.SecretStr("x")),
]


@pytest.mark.parametrize(
    ("hint", "check", "mail", "received"), KEPT, ids=[f"{c}-{m!r:.24}" for _, c, m, _ in KEPT]
)
def test_a_value_that_passes_both_ways_is_sent(
    hint: Any, check: str, mail: Any, received: Any
) -> None:
    trace, got = checked(hint, check, mail)
    assert got == [received], trace.error
    assert type(got[0]) is type(received)


def test_the_error_says_what_the_tool_would_have_received() -> None:
    trace, _ = checked(LOWER, "$value not in ['evil']", "EVIL")
    assert trace.error_kind == "refused"
    assert "argument 'acc' of tool 'pay' is 'EVIL', which the tool receives as 'evil'" in (
        trace.error or ""
    )
    trace, _ = checked(str, "$value != 'true'", True)
    assert "is True, which the tool takes as a string" in (trace.error or "")
    odd = Annotated[Any, pydantic.AfterValidator(lambda v: Bank(int))]
    trace, _ = checked(odd, "$value != 666", 5)
    assert "no JSON form that the policy could look at" in (trace.error or "")


# --- undo, reconcile, defaults --------------------------------------------------------------------


def test_an_undo_is_checked_as_it_will_be_sent() -> None:
    bank = Bank(LOWER)

    async def fails() -> None:
        raise ValueError("no")

    vm = ExecutionVM(
        tools={"pay": bank.pay, "ok": lambda: 1, "fails": fails},
        policy=host("$value not in ['evil']"),
    )
    undo = {"tool": "pay", "args": {"acc": "$mail"}}
    one = program(step("a", "ok", undo=undo), step("b", "fails"))
    assert vm.verify(one).ok
    trace = vm.run_sync(one, {"mail": "EVIL"})
    assert "undo of 'a' failed" in (trace.error or "")
    assert bank.got == []
    vm.run_sync(one, {"mail": "Good"})
    assert bank.got == ["good"]


def test_a_reconcile_is_checked_as_it_will_be_asked() -> None:
    bank = Bank(LOWER, effect="read")

    async def lost(acc: str) -> None:
        raise ConnectionError("gone")

    vm = ExecutionVM(tools={"pay": bank.pay, "lost": lost}, policy=host("$value not in ['evil']"))
    one = program(step("a", "lost", args={"acc": "$mail"}, reconcile={"tool": "pay"}))
    assert vm.verify(one).ok
    trace = vm.run_sync(one, {"mail": "EVIL"})
    assert trace.error_kind == "in_doubt"
    assert bank.got == []
    vm.run_sync(one, {"mail": "Good"})
    assert bank.got == ["good"]


def test_a_default_of_a_skipped_step_and_of_an_input_is_checked_where_it_arrives() -> None:
    bank = Bank(int)
    vm = ExecutionVM(
        tools={"pay": bank.pay}, policy={"tools": {"pay": {"args": {"acc": "$value != 666"}}}}
    )
    skipped = step("a", "pay", args={"acc": "x$n"}, on_error="skip", default="666.0")
    declared = {"type": "object", "properties": {"n": {"default": "666.0"}}}
    for one in (
        program({**skipped}, step("b", "pay", args={"acc": "$a.output"}), inputs=declared),
        program(step("b", "pay", args={"acc": "$n"}), inputs=declared),
    ):
        trace = vm.run_sync(one, {})
        assert trace.error_kind == "refused", trace.error
    assert bank.got == []


# --- approvals ------------------------------------------------------------------------------------

APPROVED: list[tuple[Any, Any, Any]] = [
    (float, 49, 49.0),
    (float, "49.90", 49.9),
    (int, "1e3", 1000),
    (str, 5, "5"),
    (list[int], ["1", 2], [1, 2]),
    (Order, {"to": "x"}, Order(to="x")),
    (datetime.date, "2025-12-31", datetime.date(2025, 12, 31)),
    (Any, {"a": [True]}, {"a": [True]}),
]
NOT_AS_SHOWN: list[tuple[Any, Any]] = [
    (str, True),
    (LOWER, "EVIL"),
    (datetime.date, 86400),
    (Order, {"to": "x", "unheard": "of"}),
    (list[LOWER], ["EVIL"]),
    (Annotated[int, pydantic.BeforeValidator(lambda v: v * 100)], 5),
    (list[bool], ["yes"]),
    (Annotated[Any, pydantic.AfterValidator(lambda v: Bank(int))], 5),
]
RULES = [
    {"approval": "boss"},
    {"args": {"acc": {"approval": "boss"}}},
    {"args": {"acc": "trusted"}, "approval": "boss"},
]


async def approved(hint: Any, rule: Any, mail: Any, folder: Path) -> tuple[Trace, list[Any]]:
    """A run of one call, which a person approved who was shown its argument."""
    bank = Bank(hint)
    policy = {"inputs": {"mail": "untrusted"}, "tools": {"pay": rule}}
    vm = ExecutionVM(
        tools={"pay": bank.pay}, policy=policy, store=f"sqlite:///{folder / 'runs.db'}"
    )
    ask = {"id": "ask", "type": "approval", "role": "boss", "show": {"what": "$mail"}}
    one = program(ask, step("s", "pay", args={"acc": "$mail"}))
    try:
        assert vm.verify(one).ok
        await vm.run(one, {"mail": mail}, run_id="r")
        (entry,) = vm.waiting("r")
        vm.approve("r", "ask", shown=entry["shown"], by="ann")
        return await vm.resume("r"), bank.got
    finally:
        vm.close()


@pytest.mark.parametrize(
    "rule", RULES, ids=["of the call", "of the argument", "for what is trusted"]
)
@pytest.mark.parametrize(
    ("hint", "mail", "received"), APPROVED, ids=[f"{m!r}" for _, m, _ in APPROVED]
)
async def test_what_was_shown_is_sent(
    rule: Any, hint: Any, mail: Any, received: Any, tmp_path: Path
) -> None:
    trace, got = await approved(hint, rule, mail, tmp_path)
    assert got == [received], trace.error


@pytest.mark.parametrize(
    "rule", RULES, ids=["of the call", "of the argument", "for what is trusted"]
)
@pytest.mark.parametrize(("hint", "mail"), NOT_AS_SHOWN, ids=[f"{m!r}" for _, m in NOT_AS_SHOWN])
async def test_what_was_shown_and_would_be_received_otherwise(
    rule: Any, hint: Any, mail: Any, tmp_path: Path
) -> None:
    trace, got = await approved(hint, rule, mail, tmp_path)
    assert got == []
    assert trace.error_kind == "refused"
    assert "argument 'acc' of tool 'pay'" in (trace.error or "")


async def test_an_argument_that_no_approval_protects_is_converted_as_ever(tmp_path: Path) -> None:
    got: list[Any] = []

    async def pay(acc: str, note: LOWER) -> None:
        got.append((acc, note))

    rule = {"args": {"acc": {"approval": "boss"}}}
    vm = ExecutionVM(
        tools={"pay": pay},
        policy={"tools": {"pay": rule}},
        store=f"sqlite:///{tmp_path / 'runs.db'}",
    )
    ask = {"id": "ask", "type": "approval", "role": "boss", "show": {"what": "$mail"}}
    try:
        await vm.run(
            program(ask, step("s", "pay", args={"acc": "$mail", "note": "ABC"})),
            {"mail": "x"},
            run_id="r",
        )
        vm.approve("r", "ask", shown=vm.waiting("r")[0]["shown"], by="ann")
        assert (await vm.resume("r")).ok
    finally:
        vm.close()
    assert got == [("x", "abc")]


# --- the two relations ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "form", "says"),
    [
        (5, "5", True),
        ("5.0", 5, True),
        (5, 5.0, True),
        (True, 1, False),
        (True, "True", False),
        (0, False, False),
        (None, "None", False),
        ("a", "A", False),
        ([1, "2"], [1, 2], True),
        ([1], [1, 1], False),
        ([], {}, False),
        ({"a": 1}, {"a": 1, "b": 2}, True),
        ({"a": 1, "b": 2}, {"a": 1}, False),
        ({"a": {"b": "1"}}, {"a": {"b": 1}}, True),
        ("1e-400", 0.0, False),
    ],
)
def test_same(value: Any, form: Any, says: bool) -> None:
    assert same(value, form) is says


def test_the_json_form_of_what_is_received() -> None:
    nested = {
        1: (Order(to="x"), {3, 1, 2}),
        "d": datetime.datetime(2025, 1, 1, tzinfo=datetime.UTC),
    }
    expected = {
        "1": [{"to": "x", "cents": 5, "note": "none"}, [1, 2, 3]],
        "d": "2025-01-01T00:00:00Z",
    }
    assert json_form(nested) == expected
    assert json_form({"b", "a", "c"}) == ["a", "b", "c"]  # whatever the seed of hashes
    assert json_form(decimal.Decimal("0.1")) == 0.1
    assert json_form(decimal.Decimal("0.1234567890123456789")) == "0.1234567890123456789"
    for odd in (object(), float("nan"), b"\xff", [Bank(int)], {"x": "\ud800"}):
        with pytest.raises(ValueRefused):
            json_form(odd)


# --- drawn ----------------------------------------------------------------------------------------

digits = st.from_regex(
    r"-?(0|[1-9][0-9]{0,3})(\.[0-9]{1,30})?([eE][-+]?[0-9]{1,3})?", fullmatch=True
)
near = st.sampled_from(["100", "99", "0", "1", "666", "0.1"]).flatmap(
    lambda text: st.sampled_from(
        [text, f"{text}.0", text + ("" if "." in text else ".") + "0" * 22 + "1", f" {text} "]
    )
)
nines = st.integers(1, 30).map(lambda n: "99." + "9" * n)
numbers = st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False)
mails = digits | near | nines | numbers | st.booleans() | st.none() | st.text(max_size=4)
hints = st.sampled_from(
    [int, float, str, bool, int | float, float | str, int | str, float | None, Any]
)
limits = st.sampled_from([0, 1, 0.1, 99, 100, 666, 1e-300, 9007199254740992])
operators = st.sampled_from(["<", "<=", ">", ">=", "==", "!=", "in", "not in"])


def exact(value: Any) -> Fraction | None:
    """A number as what its digits say: a judge of its own, beside the language's. A text is one if
    JSON can read it as one: "00" is none.
    """
    if type(value) is str:
        try:
            parsed = json.loads(
                value.strip(" \t\n\r\f\v"), parse_int=Fraction, parse_float=Fraction
            )
        except ValueError:
            return None
        return parsed if isinstance(parsed, Fraction) else None
    if type(value) is bool or value is None:
        return None
    return Fraction(repr(value)) if type(value) is float else Fraction(value)


def holds(value: Any, operator: str, limit: Any) -> bool:
    number, bound = exact(value), exact(limit)
    assert bound is not None
    if operator in ("==", "in"):
        return number == bound
    if operator in ("!=", "not in"):
        return number != bound
    assert number is not None, "an order of what is no number"
    return {"<": number < bound, "<=": number <= bound, ">": number > bound, ">=": number >= bound}[
        operator
    ]


@pytest.mark.campaign
@given(hints, operators, limits, mails)
@settings(max_examples=cases(6_000))
def test_whatever_is_received_passes_the_check(
    hint: Any, operator: str, limit: Any, mail: Any
) -> None:
    box = f"[{limit!r}]" if operator in ("in", "not in") else f"{limit!r}"
    trace, got = checked(hint, f"$value {operator} {box}", mail)
    for received in got:
        assert holds(received, operator, limit), (received, trace.steps)
        assert holds(mail, operator, limit)
