"""What may enter as a value, what it becomes, and its canonical bytes."""

from __future__ import annotations

import ipaddress
import json
import tracemalloc
import uuid
from collections import OrderedDict, UserDict, defaultdict, namedtuple
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, HttpUrl, SecretStr, TypeAdapter

from nano_vm.errors import LimitExceeded, ValueRefused
from nano_vm.values import (
    MAX_DEPTH,
    admit,
    as_text,
    canonical,
    copied,
    error_named,
    parse_json,
    short,
)

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 4096) + 1, (1 << 4096) - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=("Cs",))),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=("Cs",))), inner, max_size=4)
    ),
    max_leaves=12,
)


def plain(value: Any) -> Any:
    return admit(value)[0]


@pytest.mark.slow
@given(json_values)
def test_json_values_pass_as_they_are(value: Any) -> None:
    found = plain(value)
    assert found == value
    assert canonical(found) == canonical(value)
    assert parse_json(canonical(value).decode()) == value
    assert json.loads(canonical(value)) == value
    assert copied(value) == value


@pytest.mark.slow
@given(json_values)
def test_containers_are_fresh(value: Any) -> None:
    """Nothing that comes out is a list or dict that somebody else holds."""

    def containers(node: Any) -> list[int]:
        inner = (
            list(node.values())
            if isinstance(node, dict)
            else node
            if isinstance(node, list)
            else []
        )
        return ([id(node)] if isinstance(node, list | dict) else []) + [
            i for item in inner for i in containers(item)
        ]

    for result in (plain(value), copied(value)):
        assert not set(containers(result)) & set(containers(value))


def test_shared_parts_become_separate() -> None:
    part: list[int] = []
    found = plain([part, part])
    assert found[0] is not found[1]


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    LOW = 1


class Text(str):
    __slots__ = ()


class Count(int):
    pass


class Point(BaseModel):
    x: int
    when: date | None = None


@dataclass
class Pair:
    left: int
    right: list[Any] = field(default_factory=list)


Coordinates = namedtuple("Coordinates", "x y")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Colour.RED, "red"),
        (Level.LOW, 1),
        ({Colour.RED: 1}, None),
        (Text("a"), "a"),
        (Count(5), 5),
        ({Text("k"): Text("v")}, {"k": "v"}),
        (Point(x=1, when=date(2026, 1, 2)), {"x": 1, "when": "2026-01-02"}),
        (Pair(1, [Point(x=2)]), {"left": 1, "right": [{"x": 2, "when": None}]}),
        (Coordinates(1, 2), [1, 2]),
        ((1, (2,)), [1, [2]]),
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (defaultdict(list, a=[1]), {"a": [1]}),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00+00:00"),
        (time(1, 2), "01:02:00"),
        (Decimal("1.10"), 1.1),
        (Decimal("100"), 100),
        (Decimal("1E+2"), 100),
        (Decimal("-0.5"), -0.5),
        (True, True),
        (-0.0, -0.0),
        ("\0\u2028\U0001f600", "\0\u2028\U0001f600"),
    ],
)
def test_converted(value: Any, expected: Any) -> None:
    if expected is None:
        with pytest.raises(ValueRefused):
            plain(value)
        return
    found = plain(value)
    assert canonical(found) == canonical(expected)


def cyclic() -> Any:
    value: dict[str, Any] = {}
    value["self"] = [value]
    return value


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "place", "remedy"),
    [
        (float("nan"), "value", "None or a string"),
        (float("-inf"), "value", "None or a string"),
        ({"a": [1, float("inf")]}, "value['a'][1]", "None or a string"),
        ("\ud800", "value", "errors='replace'"),
        (["ok", "\udfff"], "value[1]", "surrogate"),
        ({"\ud800": 1}, "value", "surrogate"),
        ({1: 2}, "value", "keys must be strings"),
        ({None: 2}, "value", "keys must be strings"),
        ({b"a": 2}, "value", "keys must be strings"),
        (1 << 4096, "value", "4097 bits"),
        (-(1 << 4096), "value", "4097 bits"),
        ({"a": Count(1 << 5000)}, "value['a']", "5001 bits"),
        (Decimal("NaN"), "value", "str(value)"),
        (Decimal("Infinity"), "value", "str(value)"),
        (Decimal("sNaN"), "value", "str(value)"),
        (Decimal("0.1000000000000000000000000000001"), "value", "str(value)"),
        (Decimal("1e500000"), "value", "str(value)"),
        (b"x", "value", "decode"),
        (bytearray(b"x"), "value", "decode"),
        (memoryview(b"x"), "value", "decode"),
        ({1, b"x"}, "value", "decode"),
        ([object()], "value[0]", "return None"),
        (int, "value", "return None"),
        (Point, "value", "return None"),
        (Pair, "value", "return None"),
        (len, "value", "return None"),
        (1j, "value", "return None"),
        (UserDict(a=1), "value", "return None"),
        (range(3), "value", "return None"),
        (iter([1]), "value", "return None"),
        ((i for i in "ab"), "value", "collect it into a list"),
        (cyclic(), "value", "contains itself"),
        (nested(100_000), "value", "nested deeper"),
        (NotImplemented, "value", "return None"),
    ],
)
def test_refused_with_place_and_remedy(value: Any, place: str, remedy: str) -> None:
    with pytest.raises(ValueRefused) as caught:
        plain(value)
    assert str(caught.value).startswith(place)
    assert remedy in str(caught.value)


def test_an_awaitable_is_refused() -> None:
    async def later() -> int:
        return 1

    coroutine = later()
    try:
        with pytest.raises(ValueRefused, match="await it"):
            plain(coroutine)
    finally:
        coroutine.close()


def test_depth_is_bounded_and_what_is_below_passes() -> None:
    assert plain(nested(MAX_DEPTH)) == nested(MAX_DEPTH)
    with pytest.raises(ValueRefused):
        plain(nested(MAX_DEPTH + 1))
    with pytest.raises(ValueRefused):
        plain({"a": Pair(1, nested(MAX_DEPTH))})


def test_integers_of_4096_bits_pass() -> None:
    assert plain((1 << 4096) - 1) == (1 << 4096) - 1
    assert plain([-(1 << 4096) + 1]) == [-(1 << 4096) + 1]


@pytest.mark.slow
def test_size_is_bounded_before_anything_is_built() -> None:
    with pytest.raises(LimitExceeded):
        admit("x" * 101, 100)
    with pytest.raises(LimitExceeded):
        admit("ä" * 51, 100)
    with pytest.raises(LimitExceeded):
        admit(["x" * 50, "x" * 50], 100)
    with pytest.raises(LimitExceeded):
        admit({"x" * 101: 1}, 100)
    with pytest.raises(LimitExceeded):
        admit([0] * 100, 100)
    with pytest.raises(LimitExceeded):
        admit([None] * 100, 100)
    with pytest.raises(LimitExceeded):
        admit([[]] * 100, 100)
    shared: list[Any] = ["x" * 1000]
    for _ in range(60):  # 2^60 texts, if it were written out
        shared = [shared, shared]
    with pytest.raises(LimitExceeded):
        admit(shared)


@pytest.mark.slow
@given(json_values)
def test_size_bounds_the_canonical_bytes_of_texts(value: Any) -> None:
    """A limit in bytes is one: the size is at least that of all strings together."""

    def texts(node: Any) -> int:
        if isinstance(node, str):
            return len(node.encode())
        if isinstance(node, dict):
            return sum(texts(k) + texts(v) for k, v in node.items())
        return sum(map(texts, node)) if isinstance(node, list) else 0

    assert admit(value)[1] >= texts(value)


def test_hostile_objects_do_no_harm() -> None:
    class Hostile:
        def __repr__(self) -> str:
            raise RuntimeError("no")

        def __getattr__(self, name: str) -> Any:
            raise RuntimeError(name)

    with pytest.raises(ValueRefused):
        plain(Hostile())
    assert short(Hostile()).startswith("<")

    class BrokenModel(BaseModel):
        def model_dump(self, **kwargs: Any) -> Any:
            raise RuntimeError("broken")

    with pytest.raises((ValueRefused, RuntimeError)):
        plain(BrokenModel())


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, b"null"),
        (True, b"true"),
        (1.0, b"1.0"),
        (1e16, b"1e+16"),
        (1e22, b"1e+22"),
        (0.1, b"0.1"),
        (5e-324, b"5e-324"),
        (-0.0, b"-0.0"),
        (100, b"100"),
        ({"b": 1, "a": [1, 2.0]}, b'{"b":1,"a":[1,2.0]}'),
        ('ä/\u2028"\\\n\t\x7f\x00', '"ä/\u2028\\"\\\\\\n\\t\x7f\\u0000"'.encode()),
        ("e\u0301", b'"e\xcc\x81"'),
        ([], b"[]"),
        ({}, b"{}"),
    ],
)
def test_canonical_bytes(value: Any, expected: bytes) -> None:
    assert canonical(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a", "a"),
        (None, "None"),
        (True, "True"),
        (1, "1"),
        (1.0, "1.0"),
        ([1, "a"], '[1,"a"]'),
        ({"a": None}, '{"a":null}'),
        ("", ""),
    ],
)
def test_text_of_a_value(value: Any, expected: str) -> None:
    assert as_text(value) == expected


@pytest.mark.parametrize(
    "text",
    [
        "NaN",
        "[Infinity]",
        "-Infinity",
        '{"a":1,"a":1}',
        "[" * 100_000,
        "",
        "1 2",
        "{a:1}",
        "1" * 5000,
        "'a'",
    ],
)
def test_parse_json_refuses(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the text is Python's
        parse_json(text)


def test_parse_json_says_of_an_integer_of_any_length_what_a_value_may_be() -> None:
    with pytest.raises(ValueError, match=r"more than 4,096 bits; write it as a string$"):
        parse_json(f'{{"a": {"1" * 5_000}}}')


def test_parse_json_refuses_numbers_that_are_not_finite() -> None:
    with pytest.raises(ValueError, match=r"finite|number"):
        parse_json("1e999")


class Order(BaseModel):
    id: uuid.UUID
    site: HttpUrl
    folder: Path
    lasts: timedelta
    tags: set[str]
    host: ipaddress.IPv4Address
    price: Decimal


def test_a_model_with_everyday_fields_is_what_pydantic_writes() -> None:
    order = Order(
        id=uuid.UUID(int=7),
        site="https://example.org/a",
        folder=Path("/a/b"),
        lasts=timedelta(days=1, hours=2, seconds=3.5),
        tags={"b", "a"},
        host="127.0.0.1",
        price=Decimal("49.90"),
    )
    written = order.model_dump(mode="json") | {"tags": ["a", "b"], "price": 49.9}
    assert plain(order) == written
    assert plain({"o": [order]}) == {"o": [written]}


@given(st.timedeltas())
def test_durations_are_written_as_pydantic_writes_them(value: timedelta) -> None:
    written = plain(value)
    assert TypeAdapter(timedelta).validate_python(written) == value


@pytest.mark.slow
@given(st.frozensets(st.one_of(st.integers(-9, 9), st.text(max_size=3), st.booleans())))
def test_a_set_is_a_list_in_one_order(value: frozenset[Any]) -> None:
    assert plain(value) == plain(frozenset(reversed(list(value))))
    assert frozenset(plain(value)) == value


def test_what_pydantic_alone_can_write_is_taken_from_it() -> None:
    class Odd(BaseModel):
        raw: bytes

    assert plain(Odd(raw=b"x")) == {"raw": "x"}
    with pytest.raises(ValueRefused, match=r"value\['raw'\].*decode"):
        plain(Odd(raw=b"\xff"))

    class Mixed(BaseModel):
        raw: bytes
        key: SecretStr
        tags: set[str]
        price: Decimal

    mixed = Mixed(raw=b"x", key="k", tags={"b", "a"}, price=Decimal("0.5"))
    assert plain(mixed) == {"raw": "x", "key": "**********", "tags": ["a", "b"], "price": 0.5}
    # a number stays one, or is refused: proofs rest on it
    with pytest.raises(ValueRefused, match=r"str\(value\)"):
        plain(mixed.model_copy(update={"price": Decimal("0.1234567890123456789")}))


def test_numpy_and_pandas_values_without_importing_them() -> None:
    """Stand-ins: a class of that module with that method, as numpy's scalars and arrays have it."""
    scalar = type("int64", (), {"__module__": "numpy", "tolist": lambda self: 5})()
    array = type("ndarray", (), {"__module__": "numpy", "tolist": lambda self: [[1.0, 2.0]]})()
    assert plain({"a": scalar, "b": array}) == {"a": 5, "b": [[1.0, 2.0]]}
    no_number = type("float64", (), {"__module__": "numpy", "tolist": lambda self: float("nan")})()
    with pytest.raises(ValueRefused, match="None or a string"):
        plain(no_number)
    no_time = type("NaTType", (datetime,), {"__ne__": lambda self, other: True})(2020, 1, 1)
    with pytest.raises(ValueRefused, match="no such time"):
        plain(no_time)


def test_one_container_that_stands_in_a_value_a_thousand_times_is_not_copied_a_thousand_times() -> (
    None
):
    part = ["x" * 100] * 100
    for value in ([part] * 1000, {str(at): part for at in range(1000)}):
        tracemalloc.start()
        with pytest.raises(LimitExceeded):
            admit(value, 20_000)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert most < 100_000  # a thousand copies would be 800,000


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (MemoryError(), "MemoryError"),
        (MemoryError("no room"), "MemoryError: no room"),
        (KeyError("x"), "KeyError: 'x'"),
        (StopIteration(), "StopIteration"),
    ],
)
def test_an_exception_in_words(error: BaseException, text: str) -> None:
    assert error_named(error) == text
