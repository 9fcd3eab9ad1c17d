"""Arguments of a call: what is recorded, what the tool receives, and that no value is source."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from build import program, step
from campaigns import cases
from hypothesis import given, settings
from hypothesis import strategies as st

import nano_vm.machine.arguments
from nano_vm.errors import StepFault, VMError
from nano_vm.language.closures import compile_expr, compile_value
from nano_vm.language.expr import Template, parse_template
from nano_vm.language.flow import Flow, Names
from nano_vm.machine.arguments import (
    MAX_SHAPES,
    Shapes,
    _in_loops,
    constant_of,
    order,
    single_of,
)
from nano_vm.tools.contract import ToolContract, checked, contract, handed
from nano_vm.values import as_text, canonical

FRAME = {
    "text": "ok",
    "int": 7,
    "exact": 1 << 53,  # the largest int below which each is a float
    "huge": (1 << 60) + 1,
    "float": 0.5,
    "flag": True,
    "none": None,
    "list": ["a", {"b": 1}],
    "object": {"name": "Ann", "n": 3, "deep": {"x": [1]}},
    "digits": "12",
    "long": "x" * 5_000,
    "wide": "é" * 10,
}


def names_of(*read: str) -> tuple[Names, list[Any]]:
    """Names of a program that reads all of `FRAME` and *read*, and a frame where only these have
    no value.
    """
    reads = {f"a{i}": f"${name}" for i, name in enumerate([*FRAME, *read])}
    names = Flow(program(step(args=reads)), {}).frames[0].names
    frame: list[Any] = [nano_vm.machine.arguments.UNSET] * names.size
    for name, value in FRAME.items():
        frame[names.keys[name]] = value
    return names, frame


NAMES, VALUES = names_of("unset")

REFERENCES = st.sampled_from(
    ["$unset", "$object.name", "$object.deep.x[0]", "$object.none", "$list[1].b", "$text.name"]
    + [f"${name}" for name in FRAME]
)
TEXTS = st.sampled_from(
    ["", "plain", "got $text", "${int}-${list}", "$$5", "$wide $unset", "${flag}${none}", "'{c0}'"]
)
EXPRESSIONS = st.sampled_from(["$int + 1", "len($list)", "[$int, $text]", "$unset", "$list"]).map(
    lambda text: {"expr": text}
)
SCALARS = st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.sampled_from([0.5, 3.0])
LEAVES = SCALARS | REFERENCES | TEXTS | EXPRESSIONS
WRITTEN = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["id", "na'me", "$$expr", "{c1}"]), inner, max_size=3)
    ),
    max_leaves=8,
)


async def declared(
    a: str, b: int | None, c: float, d: dict[str, Any], e: list[Any], f: Any, g: bool, *, h: int = 0
) -> str:
    return ""


DECLARED = contract("declared", declared)
ARGUMENTS = st.dictionaries(st.sampled_from("abcdefghxy"), WRITTEN, max_size=5)


def plainly(tool: ToolContract, args: dict[str, Any], frame: list[Any]) -> tuple[Any, Any]:
    """The meaning, in the shortest words: all values, then each as its parameter takes it."""
    values = {name: compile_value(value, NAMES)(frame) for name, value in args.items()}
    received = {
        name: checked(tool.name, tool.parameters[name], value, args[name])
        if name in tool.parameters
        else handed(value)
        for name, value in values.items()
    }
    return tuple(values.values()), tuple(received[name] for name in order(tool, list(args)))


def told(call: Callable[[], Any]) -> tuple[str, Any]:
    try:
        request, received = call()
    except StepFault as error:
        return type(error).__name__, str(error)
    return "", (canonical(list(request)), canonical(list(received)))


@pytest.mark.campaign
@settings(max_examples=cases(10_000))
@given(ARGUMENTS)
def test_the_shape_of_arguments_decides_nothing_about_their_values(args: dict[str, Any]) -> None:
    meant = told(lambda: plainly(DECLARED, args, VALUES))
    for take in (Shapes().take(DECLARED, args, NAMES), _in_loops(DECLARED, args, NAMES)):
        assert told(lambda take=take: take(VALUES)) == meant  # type: ignore[misc]


@pytest.mark.slow
@settings(max_examples=300)
@given(ARGUMENTS)
def test_what_a_tool_does_to_its_arguments_stays_with_it(args: dict[str, Any]) -> None:
    take = Shapes().take(DECLARED, args, NAMES)
    try:
        request, received = take(VALUES)
    except StepFault:
        return
    before = canonical([list(request), VALUES[:-1][: len(FRAME)]])
    for value in received:
        spoil(value)
    assert canonical([list(request), VALUES[:-1][: len(FRAME)]]) == before
    again, _ = take(VALUES)
    assert canonical(list(again)) == canonical(list(request))


def spoil(value: Any) -> None:
    """Change a value and all that stands in it."""
    if isinstance(value, dict):
        for inner in list(value.values()):
            spoil(inner)
        value["spoiled"] = True
    elif isinstance(value, list):
        for inner in value:
            spoil(inner)
        value.append("spoiled")


def test_no_value_of_a_program_is_part_of_a_source(monkeypatch: pytest.MonkeyPatch) -> None:
    sources: list[str] = []
    make = nano_vm.machine.arguments._maker
    monkeypatch.setattr(
        nano_vm.machine.arguments,
        "_maker",
        lambda source: (sources.append(source), make(source))[1],
    )
    evil = "'}); __import__('os').system('x') #"
    args = {
        evil: evil,
        "x": f"got $text {evil}",
        "y": {evil: [evil, "$text", {"expr": "'it' in $text"}], "z": '${text}\\n"""'},
        "z": "$object.name",
        "n": 1234567,
    }
    take = Shapes().take(ToolContract("t", {}, open=True), args, NAMES)
    request, _ = take(VALUES)
    assert (request[0], request[2][evil][0]) == (evil, evil)
    (source,) = sources
    words = set(re.findall(r"[A-Za-z_]+|\d{3,}", source))
    own = {"def", "make", "take", "f", "return", "if", "is", "else", "type", "dict", "in", "and"}
    assert words <= own | {"c", "v", "r", "str", "not", "len", "or"}
    assert evil not in source


def test_programs_of_one_shape_share_their_source() -> None:
    nano_vm.machine.arguments._maker.cache_clear()
    for name in ("text", "int", "flag"):
        Shapes().take(DECLARED, {"f": f"got ${name}"}, NAMES)
    assert nano_vm.machine.arguments._maker.cache_info().currsize == 1


@pytest.mark.slow
def test_a_plan_compiles_a_bounded_number_of_sources() -> None:
    shapes = Shapes()
    for number in range(2 * MAX_SHAPES):
        bits = f"{number:010b}"
        args = {f"a{at}": "$text" if bit == "1" else 7 for at, bit in enumerate(bits)}
        take = shapes.take(ToolContract("t", {}, open=True), args, NAMES)
        text = VALUES[NAMES.keys["text"]]
        assert take(VALUES)[1] == tuple(text if bit == "1" else 7 for bit in bits)
    assert len(shapes.sources) == MAX_SHAPES
    many = {f"a{number}": "$text" for number in range(5_000)}
    request, received = shapes.take(ToolContract("t", {}, open=True), many, NAMES)(VALUES)
    assert request == received == (VALUES[NAMES.keys["text"]],) * 5_000
    assert max(map(len, shapes.sources)) < 10_000


def test_a_large_literal_is_not_written_out() -> None:
    rows = [{"id": i, "name": "$text"} for i in range(2_000)]
    take = Shapes().take(DECLARED, {"f": rows}, NAMES)
    (request,), (received,) = take(VALUES)
    assert request == received == [{"id": i, "name": "ok"} for i in range(2_000)]
    assert received is not request
    assert received[0] is not request[0]


def test_texts_that_are_too_large_together_are_refused() -> None:
    names, frame = names_of()
    frame[names.keys["long"]] = "x" * (9 * 1024 * 1024)
    for written in ({"x": "$long", "y": "$long"}, "$long$long"):
        take = Shapes().take(DECLARED, {"f": written}, names)
        with pytest.raises(VMError, match=r"more than|larger than"):
            take(frame)


def test_a_literal_that_cannot_be_converted_is_told_when_the_step_is_reached() -> None:
    take = Shapes().take(DECLARED, {"b": "seven"}, NAMES)
    with pytest.raises(StepFault, match="argument 'b' of tool 'declared'"):
        take(VALUES)


MESSAGES = st.lists(st.tuples(st.sampled_from(["user", "system"]), TEXTS | REFERENCES), max_size=4)


@pytest.mark.slow
@settings(max_examples=600)
@given(MESSAGES)
def test_messages_are_texts_and_the_adapters_are_its_own(texts: list[tuple[str, str]]) -> None:
    take = Shapes().messages(texts, NAMES)
    assert take is not None
    contents = [compile_expr(Template(parse_template(text).parts), NAMES) for _, text in texts]

    def plainly_taken() -> Any:
        return [as_text(content(VALUES)) for content in contents], []

    def taken() -> Any:
        shown, handed_over, _ = take(VALUES)
        assert canonical(shown) == canonical(handed_over)
        assert [message["role"] for message in shown] == [role for role, _ in texts]
        spoil(handed_over)
        return [message["content"] for message in shown], []

    assert told(taken) == told(plainly_taken)


def test_long_messages_are_looked_at() -> None:
    assert Shapes().messages([("user", "$text")] * 17, NAMES) is None
    assert Shapes().messages([("user", "x" * (1 << 19))], NAMES) is None
    for text, few in (("$text", True), ("$long", False), ("is $long so?", False)):
        take = Shapes().messages([("user", text)], NAMES)
        assert take is not None
        assert take(VALUES)[2] is few


@pytest.mark.slow
@settings(max_examples=400)
@given(st.sampled_from(sorted("abcdefghxy")), LEAVES)
def test_what_the_machine_writes_out_is_what_would_be_taken(name: str, written: Any) -> None:
    args = {name: written}
    take = Shapes().take(DECLARED, args, NAMES)
    constant, single = constant_of(take, args), single_of(DECLARED, args, NAMES)
    if constant is not None:
        assert take(VALUES) == constant
    if single is not None and type(VALUES[single[0]]) in single[1]:
        assert take(VALUES) == ((VALUES[single[0]],),) * 2
