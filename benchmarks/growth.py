"""What it costs to load, refuse, check and compile programs of every shape, by their size, up to
the limits of the language.

python benchmarks/growth.py [--write] [FAMILY ...]

A family makes a program of size n, with its host: tools, policy, called programs. Each is measured
at its largest size, which is the limit of the language (steps, bytes of text, depth, nodes of the
graph), and at a quarter of it, in process CPU time, by stage. A program's *refusal* is what a host
pays for one that does not run: reading it from its text, and checking it until it is refused, with
every message placed; its *preparation* is the same for one that runs, with its plan.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nano_vm import ExecutionVM, Program, ProgramError
from nano_vm.adapters.scripted import ScriptedLLM
from nano_vm.language.flow import Flow
from nano_vm.language.reader import MAX_PROGRAM_BYTES

LIMIT_MS = 1_000.0
"""The most that a refusal, or a preparation, of any program up to the limits may take."""

LEAST_MS = 20.0
"""What is shorter is too short for a power to be taken of it."""

Document = dict[str, Any]


@dataclass(slots=True)
class Case:
    """A program and its host."""

    document: Document
    tools: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    policy: Document | None = None
    programs: Mapping[str, Document] = field(default_factory=dict)
    untrusted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Family:
    """Programs of one shape: ``largest`` is the size at which a limit of the language is met."""

    name: str
    make: Callable[[int], Case]
    largest: int


FAMILIES: dict[str, Family] = {}


def family(largest: int) -> Callable[[Callable[[int], Case]], Callable[[int], Case]]:
    def add(make: Callable[[int], Case]) -> Callable[[int], Case]:
        name = make.__name__.replace("_", " ")
        FAMILIES[name] = Family(name, make, largest)
        return make

    return add


# --- what programs are made of ---


def anything(**arguments: Any) -> None:
    """A tool that is never called."""


HOST = dict.fromkeys(("fetch", "pay", "mail"), anything)


def tool(n: object, name: str = "fetch", **more: Any) -> Document:
    return {"id": f"s{n}", "type": "tool", "tool": name, **more}


def writes(n: object, **values: Any) -> Document:
    return {"id": f"s{n}", "type": "set", "values": values or {"x": 1}}


def branch(n: object, then: Any, otherwise: Any = None, condition: str = "$go == 1") -> Document:
    step = {"id": f"c{n}", "type": "condition", "condition": condition, "then": then}
    return step if otherwise is None else {**step, "otherwise": otherwise}


def program(steps: list[Document], **more: Any) -> Case:
    return Case({"name": "measured", **more, "steps": steps}, HOST)


def inputs(*names: str) -> Document:
    properties = {name: {"type": "string"} for name in names}
    return {"type": "object", "properties": properties, "required": list(names)}


# --- straight lines ---


@family(10_000)
def line_of_tools(n: int) -> Case:
    return program(
        [tool(i, args={"q": f"$k{i - 1}" if i else "a"}, output_key=f"k{i}") for i in range(n)]
    )


@family(10_000)
def line_of_sets(n: int) -> Case:
    return program([writes(i, **{f"k{i}": f"$k{i - 1}" if i else 1}) for i in range(n)])


@family(10_000)
def line_that_skips(n: int) -> Case:
    return program([tool(i, output_key=f"k{i}", on_error="skip", default=0) for i in range(n)])


@family(10_000)
def line_that_skips_without_default(n: int) -> Case:
    return program(
        [
            tool(i, args={"q": f"$k{i - 1}" if i else "a"}, output_key=f"k{i}", on_error="skip")
            for i in range(n)
        ]
    )


@family(10_000)
def line_with_when(n: int) -> Case:
    return program(
        [
            tool(i, when=f"$k{i - 1} == 1" if i else "true", output_key=f"k{i}", default=1)
            for i in range(n)
        ]
    )


@family(6_000)
def line_of_models(n: int) -> Case:
    return program(
        [
            {"id": f"s{i}", "type": "llm", "prompt": f"Of $s{i - 1}.output" if i else "a"}
            for i in range(n)
        ]
    )


@family(5_000)
def line_of_labels(n: int) -> Case:
    steps: list[Document] = []
    for i in range(n // 2):
        steps.append(
            {"id": f"s{i}", "type": "llm", "prompt": "Of $x", "allowed_outputs": ["yes", "no"]}
        )
        steps.append(branch(i, [writes(f"t{i}")], condition=f"$s{i}.output == 'yes'"))
    return program(steps)


@family(10_000)
def one_name_written_by_all(n: int) -> Case:
    return program([writes(i, x={"expr": "$x + 1"} if i else 0) for i in range(n)])


@family(10_000)
def counting_name_tested(n: int) -> Case:
    steps = [writes("a", x=0)]
    for i in range(n // 3):
        steps.append(branch(i, [writes(f"u{i}", x={"expr": "$x + 1"})], condition=f"$x > {i}"))
        steps.append(writes(f"v{i}", y="$x"))
    return program(steps)


@family(3_000)
def waits(n: int) -> Case:
    return program(
        [
            {
                "id": f"s{i}",
                "type": "wait",
                "event": "paid",
                "match": {"order": f"$s{i - 1}.output" if i else 1},
                "timeout_seconds": 5,
                "on_error": "skip",
            }
            for i in range(n)
        ]
    )


@family(4_000)
def undone_steps(n: int) -> Case:
    return program(
        [
            tool(
                i,
                "pay",
                args={"to": "$x"},
                undo={"tool": "mail", "args": {"id": f"$s{i}.output"}},
                reconcile="fetch",
            )
            for i in range(n)
        ]
    )


# --- forks ---


@family(9_990)
def wide_parallel(n: int) -> Case:
    return program(
        [
            {
                "id": "all",
                "type": "parallel",
                "parallel_steps": [tool(i, args={"q": "$x"}) for i in range(n)],
            }
        ]
    )


@family(9_990)
def wide_parallel_of_writers(n: int) -> Case:
    return program(
        [
            {
                "id": "all",
                "type": "parallel",
                "parallel_steps": [tool(i, output_key=f"k{i}") for i in range(n)],
            },
            tool("last", args={"q": "$all.output"}),
        ]
    )


@family(9_000)
def many_small_parallels(n: int) -> Case:
    return program(
        [
            {"id": f"p{i}", "type": "parallel", "parallel_steps": [tool(f"{i}a"), tool(f"{i}b")]}
            for i in range(n // 3)
        ]
    )


@family(9_000)
def many_maps(n: int) -> Case:
    return program(
        [
            {
                "id": f"m{i}",
                "type": "map",
                "over": "$rows",
                "as": f"row{i}",
                "steps": [tool(i, args={"q": f"$row{i}"})],
            }
            for i in range(n // 2)
        ]
    )


@family(9_000)
def parallel_guarded_inside(n: int) -> Case:
    branches = [
        [
            {"id": f"ok{i}", "type": "approval", "role": "boss", "show": "$x"},
            tool(i, "pay", args={"to": "$x"}),
        ]
        for i in range(n // 2)
    ]
    case = program([{"id": "all", "type": "parallel", "parallel_steps": branches}])
    case.policy = {"tools": {"pay": {"approval": "boss"}}}
    return case


@family(9_990)
def parallel_with_one_name(n: int) -> Case:
    return program(
        [
            {
                "id": "all",
                "type": "parallel",
                "parallel_steps": [tool(i, output_key="k") for i in range(n)],
            }
        ]
    )


# --- blocks ---


def nested(
    depth: int, inner: list[Document], wrap: Callable[[int, list[Document]], Document]
) -> list[Document]:
    steps = inner
    for i in range(depth):
        steps = [wrap(i, steps)]
    return steps


@family(48)
def deep_conditions(n: int) -> Case:
    return program(
        nested(n, [tool("x")], lambda i, inner: branch(i, [*inner, tool(f"t{i}")], [tool(f"u{i}")]))
    )


@family(48)
def deep_loops(n: int) -> Case:
    def loop(i: int, inner: list[Document]) -> Document:
        return {
            "id": f"l{i}",
            "type": "loop",
            "max_iterations": 2,
            "until": f"$k{i} == 1",
            "steps": [*inner, tool(f"t{i}", output_key=f"k{i}")],
        }

    return program(nested(n, [tool("x")], loop))


@family(48)
def deep_loops_of_many(n: int) -> Case:
    def loop(i: int, inner: list[Document]) -> Document:
        more = [tool(f"t{i}.{j}", output_key=f"k{i}x{j}") for j in range(200)]
        return {
            "id": f"l{i}",
            "type": "loop",
            "max_iterations": 2,
            "until": f"$k{i}x0 == 1",
            "on_error": "skip",
            "steps": [*inner, *more],
        }

    return program(nested(n, [tool("x")], loop))


@family(48)
def deep_maps(n: int) -> Case:
    return program(
        nested(
            n,
            [tool("x")],
            lambda i, inner: {
                "id": f"m{i}",
                "type": "map",
                "over": "$rows",
                "as": f"r{i}",
                "steps": [*inner, tool(f"t{i}", args={"q": f"$r{i}"})],
            },
        )
    )


@family(40)
def deep_parallels(n: int) -> Case:
    return program(
        nested(
            n,
            [tool("x")],
            lambda i, inner: {
                "id": f"p{i}",
                "type": "parallel",
                "parallel_steps": [inner, [tool(f"t{i}")]],
            },
        )
    )


@family(40)
def deep_and_entered_twice(n: int) -> Case:
    def twice(i: int, inner: list[Document]) -> list[Document]:
        return [
            branch(f"j{i}", f"b{i}", "$next"),
            {
                "id": f"b{i}",
                "type": "condition",
                "condition": "$go == 2",
                "then": inner,
                "otherwise": [tool(f"o{i}")],
            },
        ]

    steps = [tool("x")]
    for i in range(n):
        steps = twice(i, steps)
    return program(steps)


@family(4_900)
def loop_of_many(n: int) -> Case:
    return program(
        [
            {
                "id": "l",
                "type": "loop",
                "max_iterations": 2,
                "until": "$k0 == 1",
                "steps": [
                    tool(i, output_key=f"k{i}", args={"q": f"$k{i - 1}" if i else 1})
                    for i in range(n)
                ],
            }
        ]
    )


@family(4_900)
def many_loops(n: int) -> Case:
    return program(
        [
            {
                "id": f"l{i}",
                "type": "loop",
                "max_iterations": 2,
                "until": f"$s{i}.output == 1",
                "steps": [tool(i)],
            }
            for i in range(n)
        ]
    )


@family(3_000)
def loop_with_many_catches(n: int) -> Case:
    catches = [{"errors": [f"Error{i}"], "next": "end"} for i in range(n)]
    return program(
        [
            {
                "id": "l",
                "type": "loop",
                "max_iterations": 2,
                "until": "$k0 == 1",
                "catch": catches,
                "steps": [tool(i, output_key=f"k{i}") for i in range(2 * n)],
            },
            tool("end") | {"id": "end"},
        ]
    )


@family(40)
def deep_loops_that_catch(n: int) -> Case:
    def loop(i: int, inner: list[Document]) -> Document:
        more = [tool(f"t{i}.{j}", output_key=f"k{i}x{j}") for j in range(150)]
        catches = [{"errors": [f"Error{i}x{j}"], "next": "end"} for j in range(20)]
        return {
            "id": f"l{i}",
            "type": "loop",
            "max_iterations": 2,
            "until": f"$k{i}x0 == 1",
            "catch": catches,
            "steps": [*inner, *more],
        }

    return program([*nested(n, [tool("x")], loop), tool("end") | {"id": "end"}])


@family(10_000)
def one_step_with_many_catches(n: int) -> Case:
    return program(
        [
            tool("a", catch=[{"errors": [f"Error{i}"], "next": "end"} for i in range(n)]),
            tool("end") | {"id": "end"},
        ]
    )


@family(40_000)
def one_catch_of_many_errors(n: int) -> Case:
    return program(
        [
            tool("a", catch=[{"errors": [f"Error{i}" for i in range(n)], "next": "end"}]),
            tool("end") | {"id": "end"},
        ]
    )


@family(9_900)
def errors_that_are_read(n: int) -> Case:
    """Each step's error is read by the next one."""
    return program(
        [
            tool(
                i,
                args={"q": {"expr": f"default($s{i - 1}.error, null)"} if i else 1},
                on_error="skip",
                default=0,
            )
            for i in range(n)
        ]
    )


# --- jumps ---


@family(10_000)
def jumps_forward(n: int) -> Case:
    steps = [branch(i, f"c{i + 2}", "$next") for i in range(n)]
    return program(
        [*steps, writes("a") | {"id": f"c{n}"}, writes("b") | {"id": f"c{n + 1}"}][:10_000]
    )


@family(9_900)
def jumps_everywhere(n: int) -> Case:
    return program(
        [
            branch(i, f"c{(i * 7919 + n // 2) % (n - i) + i + 1}" if i < n - 1 else "$end", "$next")
            for i in range(n)
        ]
    )


@family(9_900)
def jumps_back(n: int) -> Case:
    return program([branch(i, "c0", "$next") for i in range(n)])


@family(9_900)
def jumps_back_by_halves(n: int) -> Case:
    return program([branch(i, f"c{i // 2}", "$next") for i in range(n)])


@family(9_900)
def jumps_back_one(n: int) -> Case:
    return program([branch(i, f"c{max(i - 1, 0)}", "$next") for i in range(n)])


@family(9_900)
def jumps_back_to_a_tool(n: int) -> Case:
    return program([tool("a"), *(branch(i, "sa", "$next") for i in range(n))])


@family(9_900)
def nexts_in_reverse(n: int) -> Case:
    steps = [tool(i, next=f"s{i - 1}" if i else "$end") for i in range(n)]
    return program([branch("a", f"s{n - 1}", "$next"), *steps])


@family(9_900)
def all_jump_to_the_last(n: int) -> Case:
    return program([*(branch(i, "slast", "$next") for i in range(n - 1)), tool("last")])


@family(3_300)
def unreachable(n: int) -> Case:
    return program([tool(i, next="$end") for i in range(n)])


@family(10_000)
def switch_of_many_jumps(n: int) -> Case:
    return program(
        [
            {"id": "w", "type": "switch", "on": "$x", "cases": {f"v{i}": "end" for i in range(n)}},
            tool("end") | {"id": "end"},
        ]
    )


@family(8_000)
def switch_of_many_blocks(n: int) -> Case:
    return program(
        [
            {
                "id": "w",
                "type": "switch",
                "on": "$x",
                "cases": {f"v{i}": [tool(i)] for i in range(n)},
                "default": "$end",
            },
            tool("end"),
        ]
    )


@family(5_000)
def switch_of_labels(n: int) -> Case:
    labels = [f"label{i}" for i in range(n)]
    return program(
        [
            {"id": "a", "type": "llm", "prompt": "x", "allowed_outputs": labels},
            {
                "id": "w",
                "type": "switch",
                "on": "$a.output",
                "cases": {label: [writes(label)] for label in labels},
            },
        ]
    )


# --- names and values ---


@family(20_000)
def one_set_of_many(n: int) -> Case:
    return program([writes("a", **{f"k{i}": f"${f'i{i}'}" for i in range(n)})])


@family(20_000)
def many_inputs(n: int) -> Case:
    names = [f"name{i}" for i in range(n)]
    return program([tool("a", args={"q": f"$name{n - 1}"})], inputs=inputs(*names))


@family(20_000)
def many_inputs_needed(n: int) -> Case:
    return program([{"id": "a", "type": "llm", "prompt": " ".join(f"$name{i}" for i in range(n))}])


@family(9_000)
def many_names_read_by_all(n: int) -> Case:
    size = max(1, int(math.sqrt(n)))
    steps = [writes(i, **{f"k{i}": 1}) for i in range(size)]
    steps += [
        {"id": f"r{i}", "type": "llm", "prompt": " ".join(f"$k{j}" for j in range(size))}
        for i in range(size)
    ]
    return program(steps)


@family(20_000)
def many_arguments(n: int) -> Case:
    return program([tool("a", args={f"a{i}": f"$x{i}" for i in range(n)})])


@family(500)
def long_conditions(n: int) -> Case:
    long = " or ".join(f"$x{i} == {i}" for i in range(130))
    return program([branch(i, [writes(i)], condition=long) for i in range(n)])


@family(500)
def long_conditions_of_one_name(n: int) -> Case:
    long = " or ".join(f"$k == {i}" for i in range(170))
    return program(
        [
            {
                "id": "a",
                "type": "llm",
                "prompt": "x",
                "output_schema": {"enum": list(range(200))},
                "output_key": "k",
            },
            *(branch(i, [writes(i)], condition=long) for i in range(n)),
        ]
    )


@family(500)
def long_conditions_of_many_labels(n: int) -> Case:
    labels = [f"l{i}" for i in range(16)]
    ask = [
        {
            "id": f"a{j}",
            "type": "llm",
            "prompt": "x",
            "allowed_outputs": labels,
            "output_key": f"k{j}",
        }
        for j in range(8)
    ]
    long = " and ".join(
        f"($k{i % 8} == 'l{i % 16}' or $k{(i + 1) % 8} != 'l{i % 13}')" for i in range(40)
    )
    return program([*ask, *(branch(i, [writes(i)], condition=long) for i in range(n))])


@family(60_000)
def long_prompt(n: int) -> Case:
    return program(
        [{"id": "a", "type": "llm", "prompt": " ".join(f"$k{i % 100}" for i in range(n))}]
    )


@family(90)
def deep_values(n: int) -> Case:
    value: Any = "$x"
    for _ in range(n):
        value = [value, "$y"]
    return program([writes("a", v=value)])


@family(40_000)
def large_literal(n: int) -> Case:
    return program([writes("a", v=[{"a": i, "b": "x"} for i in range(n)])])


@family(200)
def doubling_texts(n: int) -> Case:
    return program(
        [
            writes("a", x="abc"),
            *(writes(i, x="$x$x") for i in range(n)),
            {"id": "p", "type": "llm", "prompt": "$x"},
        ]
    )


@family(200)
def doubling_lists(n: int) -> Case:
    return program(
        [
            writes("a", x=[1]),
            *(writes(i, x=["$x", "$x"]) for i in range(n)),
            {"id": "p", "type": "llm", "prompt": "$x"},
        ]
    )


# --- schemas ---


@family(60_000)
def large_enum(n: int) -> Case:
    return program(
        [
            {
                "id": "a",
                "type": "llm",
                "prompt": "x",
                "output_schema": {"enum": [f"label{i}" for i in range(n)]},
            },
            branch("b", [writes("b")], condition="$a.output == 'label7'"),
        ]
    )


@family(60_000)
def many_allowed_outputs(n: int) -> Case:
    return program(
        [
            {
                "id": "a",
                "type": "llm",
                "prompt": "x",
                "allowed_outputs": [f"label{i}" for i in range(n)],
            },
            branch("b", [writes("b")], condition="$a.output == 'label7'"),
        ]
    )


@family(2_000)
def many_labels_and_tests(n: int) -> Case:
    return program(
        [
            {
                "id": "a",
                "type": "llm",
                "prompt": "x",
                "allowed_outputs": [f"label{i}" for i in range(n)],
            },
            *(branch(i, [writes(i)], condition=f"$a.output == 'label{i}'") for i in range(n)),
        ]
    )


@family(10_000)
def schema_of_many_fields(n: int) -> Case:
    schema = {
        "type": "object",
        "properties": {f"f{i}": {"type": "string", "enum": ["a", "b"]} for i in range(n)},
    }
    return program(
        [
            {"id": "a", "type": "llm", "prompt": "x", "output_schema": schema},
            branch("b", [writes("b")], condition="$a.output.f0 == 'a'"),
        ]
    )


@family(10_000)
def schema_of_many_choices(n: int) -> Case:
    schema = {"anyOf": [{"type": "object", "properties": {"k": {"const": i}}} for i in range(n)]}
    return program(
        [
            {"id": "a", "type": "llm", "prompt": "x", "output_schema": schema},
            branch("b", [writes("b")], condition="$a.output.k == 1"),
        ]
    )


@family(5_000)
def schema_of_many_references(n: int) -> Case:
    parts: Document = {
        f"d{i}": {
            "type": "object",
            "properties": {"a": {"$ref": f"#/$defs/d{i + 1}"}, "b": {"$ref": f"#/$defs/d{i + 1}"}},
        }
        for i in range(n)
    }
    schema = {"$defs": {**parts, f"d{n}": {"type": "string"}}, "$ref": "#/$defs/d0"}
    return program(
        [
            {"id": "a", "type": "llm", "prompt": "x", "output_schema": schema},
            branch("b", [writes("b")], condition="$a.output.a.b == 'a'"),
        ]
    )


@family(45)
def deep_schema(n: int) -> Case:
    schema: Document = {"type": "string"}
    for _ in range(n):
        schema = {"type": "object", "properties": {"a": schema, "b": {"type": "string"}}}
    return program([{"id": "a", "type": "llm", "prompt": "x", "output_schema": schema}])


@family(6_000)
def many_schemas(n: int) -> Case:
    return program(
        [
            {
                "id": f"a{i}",
                "type": "llm",
                "prompt": "x",
                "output_schema": {"type": "object", "properties": {"k": {"enum": ["a", i]}}},
            }
            for i in range(n)
        ]
    )


@family(10_000)
def schema_of_many_patterns(n: int) -> Case:
    schema = {
        "type": "object",
        "properties": {
            f"f{i}": {"type": "string", "pattern": f"^[a-z]{{1,20}}x{i}$"} for i in range(n)
        },
    }
    return program([{"id": "a", "type": "llm", "prompt": "x", "output_schema": schema}])


# --- calls of programs ---


@family(2_400)
def many_calls_of_one(n: int) -> Case:
    case = program(
        [{"id": f"s{i}", "type": "call", "program": "other", "with": {"x": i}} for i in range(n)]
    )
    case.programs = {"other": program([tool(i, args={"q": "$x"}) for i in range(18)]).document}
    return case


@family(24)
def one_call_in_each_of_chain(n: int) -> Case:
    case = program([{"id": "s", "type": "call", "program": "p0"}])
    case.programs = {
        f"p{i}": program(
            [tool(j) for j in range(50)]
            + ([{"id": "s", "type": "call", "program": f"p{i + 1}"}] if i < n - 1 else [])
        ).document
        for i in range(n)
    }
    return case


@family(600)
def chain_of_calls(n: int) -> Case:
    case = program([{"id": "s", "type": "call", "program": "p0"}])
    case.programs = {
        f"p{i}": program(
            [tool(1), *([{"id": "s", "type": "call", "program": f"p{i + 1}"}] if i < n - 1 else [])]
        ).document
        for i in range(n)
    }
    return case


@family(26)
def calls_of_each_other(n: int) -> Case:
    def others(i: int) -> Document:
        return program(
            [{"id": f"s{j}", "type": "call", "program": f"p{j}"} for j in range(n) if j != i]
        ).document

    case = program([{"id": "s", "type": "call", "program": "p0"}])
    case.programs = {f"p{i}": others(i) for i in range(n)}
    return case


@family(18)
def calls_that_double(n: int) -> Case:
    case = program([{"id": "s", "type": "call", "program": "p0"}])
    case.programs = {
        f"p{i}": program(
            [{"id": f"s{j}", "type": "call", "program": f"p{i + 1}"} for j in range(2)]
            if i < n - 1
            else [tool(1)]
        ).document
        for i in range(n)
    }
    return case


@family(2_000)
def calls_of_unknown_programs(n: int) -> Case:
    case = program(
        [{"id": f"s{i}", "type": "call", "program": f"program_number_{i}"} for i in range(n)]
    )
    case.programs = {f"program_numbre_{i}": program([tool(1)]).document for i in range(n)}
    return case


@family(4_000)
def inline_programs(n: int) -> Case:
    return program(
        [
            {
                "id": f"s{i}",
                "type": "call",
                "program": {"steps": [tool(i, args={"q": "$x"})]},
                "with": {"x": i},
            }
            for i in range(n)
        ]
    )


@family(24)
def deep_inline_programs(n: int) -> Case:
    steps = [tool(0)]
    for _ in range(n):
        steps = [{"id": "s", "type": "call", "program": {"name": "inner", "steps": steps}}]
    return program(steps)


# --- policies ---


@family(9_900)
def calls_under_one_guard(n: int) -> Case:
    case = program([branch("g", [tool(i, "pay") for i in range(n)])])
    case.policy = {"tools": {"pay": {"guarded_by": ["cg.then"]}}}
    return case


@family(9_900)
def calls_with_own_guards(n: int) -> Case:
    case = program([branch(i, [tool(i, "pay", args={"to": "$go"})]) for i in range(n // 2)])
    case.policy = {"tools": {"pay": {"guarded_by": [f"c{i}.then" for i in range(n // 2)]}}}
    return case


@family(9_900)
def calls_without_their_guards(n: int) -> Case:
    steps: list[Document] = []
    for i in range(n // 3):
        steps += [branch(i, [writes(i)]), tool(f"p{i}", "pay", args={"to": "$go"})]
    case = program(steps)
    case.policy = {"tools": {"pay": {"guarded_by": ["c0.then"]}}}
    return case


@family(9_900)
def last_call_without_guard(n: int) -> Case:
    steps = [branch(i, [tool(i, "pay", args={"to": "$go"})]) for i in range(n // 2 - 1)]
    case = program([*steps, tool("last", "pay")])
    case.policy = {"tools": {"pay": {"guarded_by": [f"c{i}.then" for i in range(n // 2 - 1)]}}}
    return case


@family(2_000)
def many_guarded_tools(n: int) -> Case:
    steps = [branch(i, [tool(i, f"pay{i}", args={"to": "$go"})]) for i in range(n)]
    case = program(steps)
    case.tools = {f"pay{i}": anything for i in range(n)}
    case.policy = {"tools": {f"pay{i}": {"guarded_by": [f"c{i}.then"]} for i in range(n)}}
    return case


@family(2_000)
def many_unguarded_tools(n: int) -> Case:
    case = many_guarded_tools(n)
    case.policy = {
        "tools": {f"pay{i}": {"guarded_by": [f"c{n - 1 - i}.otherwise"]} for i in range(n)}
    }
    return case


@family(4_000)
def many_rules_of_order(n: int) -> Case:
    case = program([tool(i, f"t{i}") for i in range(n)])
    case.tools = {f"t{i}": anything for i in range(n)}
    case.policy = {"tools": {f"t{i}": {"before": [f"t{i + 1}"]} for i in range(n - 1)}}
    return case


@family(4_000)
def many_patterns(n: int) -> Case:
    case = program([tool(i, f"t{i}") for i in range(n)])
    case.tools = {f"t{i}": anything for i in range(n)}
    case.policy = {"tools": {f"t{i}*": {"max_calls": 20_000} for i in range(n)}}
    return case


@family(4_000)
def many_bounds_of_calls(n: int) -> Case:
    case = program([tool(i, f"t{i}") for i in range(n)])
    case.tools = {f"t{i}": anything for i in range(n)}
    case.policy = {"tools": {f"t{i}": {"max_calls": 1} for i in range(n)}}
    return case


@family(4_000)
def many_forbidden_tools(n: int) -> Case:
    case = program([tool(i, f"t{i}") for i in range(n)])
    case.tools = {f"t{i}": anything for i in range(n)}
    case.policy = {"tools": {f"t{2 * i}": {} for i in range(n // 2)} | {"*": {"allow": False}}}
    return case


@family(9_900)
def trusted_arguments(n: int) -> Case:
    case = program(
        [
            tool(i, "pay" if i % 2 else "fetch", args={"to": f"$s{i - 1}.output" if i else "$x"})
            for i in range(n)
        ]
    )
    case.policy = {
        "inputs": {"x": "untrusted"},
        "tools": {
            "pay": {"args": {"to": "trusted"}, "returns": "args"},
            "fetch": {"returns": "args"},
        },
    }
    return case


@family(9_900)
def untrusted_names_mixed(n: int) -> Case:
    steps = [writes(i, **{f"k{i}": f"$k{i // 2} $k{i - 1}" if i else "$x"}) for i in range(n)]
    case = program([*steps, tool("p", "pay", args={"to": f"$k{n - 1}"})][-9_999:])
    case.policy = {"inputs": {"x": "untrusted"}, "tools": {"pay": {"args": {"to": "trusted"}}}}
    return case


@family(5_000)
def values_of_checks(n: int) -> Case:
    case = program([tool(i, "pay", args={"to": "$x"}) for i in range(n)])
    case.policy = {
        "inputs": {"x": "untrusted"},
        "values": {"payees": [f"DE{i}" for i in range(n)]},
        "tools": {"pay": {"args": {"to": "$value in $payees"}}},
    }
    return case


@family(4_000)
def approved_calls(n: int) -> Case:
    steps: list[Document] = []
    for i in range(n // 2):
        steps += [
            {"id": f"a{i}", "type": "approval", "role": "boss", "show": {"to": f"$k{i}", "n": i}},
            tool(i, "pay", args={"to": f"$k{i}", "n": i}),
        ]
    case = program(steps)
    case.policy = {"tools": {"pay": {"approval": "boss"}}}
    return case


@family(9_000)
def one_approval_of_many(n: int) -> Case:
    case = program(
        [
            {"id": "a", "type": "approval", "role": "boss", "show": [f"$k{i}" for i in range(n)]},
            *(tool(i, "pay", args={"to": f"$k{i}"}) for i in range(n)),
        ]
    )
    case.policy = {"tools": {"pay": {"approval": "boss"}}}
    return case


@family(10_000)
def policy_of_many_inputs(n: int) -> Case:
    names = [f"name{i}" for i in range(n)]
    case = program([tool("a", args={"q": "$name0"})], inputs=inputs(*names))
    case.policy = {"inputs": {f"nmae{i}": "untrusted" for i in range(n)}}
    return case


@family(5_000)
def own_policy(n: int) -> Case:
    case = program(
        [tool(i, "pay", args={"to": "$x"}) for i in range(n)],
        policy={
            "tools": {f"tool{i}": {"args": {"x": "trusted"}} for i in range(n)}
            | {"pay": {"guarded_by": ["s0.then"]}}
        },
    )
    case.policy = {"tools": {f"tool{i}": {"max_calls": 1} for i in range(n)}}
    return case


@family(20)
def guards_in_parallel_joins(n: int) -> Case:
    branches = [[branch(f"{i}", [writes(f"t{i}")], [writes(f"u{i}")])] for i in range(n)]
    case = program(
        [{"id": "all", "type": "parallel", "parallel_steps": branches}, tool("p", "pay")]
    )
    case.policy = {"tools": {"pay": {"guarded_by": [f"c{i}.then" for i in range(n)]}}}
    return case


# --- faults ---


@family(9_900)
def misspelled_targets(n: int) -> Case:
    return program(
        [branch(i, f"proces_refund_{i}", "$next", "true") for i in range(n // 2)]
        + [tool(i) | {"id": f"process_refund_{i}"} for i in range(n // 2)]
    )


@family(9_900)
def misspelled_names(n: int) -> Case:
    return program(
        [writes(i, **{f"customer_name_{i}": f"$costumer_name_{i}"}) for i in range(n)],
        inputs=inputs("go"),
    )


@family(9_900)
def misspelled_outputs(n: int) -> Case:
    return program(
        [tool(i, args={"q": f"$strep{i}.output"}) | {"id": f"step{i}"} for i in range(n)]
    )


@family(9_900)
def unknown_tools(n: int) -> Case:
    case = program([tool(i, f"fecth_number_{i}") for i in range(n)])
    case.tools = {f"fetch_number_{i}": anything for i in range(n)}
    return case


@family(9_900)
def steps_with_unknown_fields(n: int) -> Case:
    return program([tool(i, retrise=1, **{"if": "$x == 1"}) for i in range(n)])


@family(50_000)
def one_step_of_unknown_fields(n: int) -> Case:
    return program([tool("a", **{f"timeout_secnods{i}": 1 for i in range(n)})])


@family(50_000)
def program_of_unknown_fields(n: int) -> Case:
    return program([tool("a")], **{f"inputz{i}": 1 for i in range(n)})


@family(50_000)
def policy_of_unknown_fields(n: int) -> Case:
    return program([tool("a")], policy={"tools": {"fetch": {f"aproval{i}": 1 for i in range(n)}}})


@family(20_000)
def policy_of_bad_rules(n: int) -> Case:
    return program(
        [tool("a")],
        policy={"tools": {f"t{i}": {"effect": "raed", "args": {"x": "trustd"}} for i in range(n)}},
    )


@family(10_000)
def unknown_types(n: int) -> Case:
    return program([{"id": f"s{i}", "type": "tol", "tool": "fetch"} for i in range(n)])


@family(10_000)
def wrong_types(n: int) -> Case:
    return program(
        [
            {"id": i, "type": "tool", "tool": [], "on_error": "sikp", "max_retries": "x"}
            for i in range(n)
        ]
    )


@family(100_000)
def steps_that_are_texts(n: int) -> Case:
    return program(["a"] * n)  # type: ignore[list-item]


@family(100_000)
def labels_that_are_numbers(n: int) -> Case:
    return program([{"id": "a", "type": "llm", "prompt": "x", "allowed_outputs": list(range(n))}])


@family(50_000)
def messages_that_are_wrong(n: int) -> Case:
    return program([{"id": "a", "type": "llm", "messages": [{"role": "usr"}] * n}])


@family(10_000)
def duplicate_ids(n: int) -> Case:
    return program([tool("same") for _ in range(n)])


@family(8_000)
def broken_conditions(n: int) -> Case:
    return program([branch(i, "$end", "$next", "$x ==") for i in range(n)])


@family(8_000)
def broken_templates(n: int) -> Case:
    return program([tool(i, args={"q": "${x"}) for i in range(n)])


@family(90_000)
def broken_templates_in_one_value(n: int) -> Case:
    return program([tool("a", args={"q": ["${x"] * n})])


@family(480)
def broken_long_conditions(n: int) -> Case:
    return program([branch(i, "$end", "$next", "(" * 1900) for i in range(n)])


@family(480)
def deep_conditions_of_not(n: int) -> Case:
    return program([branch(i, "$end", "$next", "not " * 480 + "$x") for i in range(n)])


@family(10_000)
def names_read_before_written(n: int) -> Case:
    return program([writes(i, **{f"k{i}": f"$k{i + 1}"}) for i in range(n)])


@family(9_900)
def names_that_some_path_lacks(n: int) -> Case:
    size = n // 3
    return program(
        [branch(i, [writes(i, **{f"k{i}": 1})]) for i in range(size)]
        + [tool(f"r{i}", args={"q": f"$k{i}"}) for i in range(size)]
    )


@family(9_900)
def names_that_are_cleared(n: int) -> Case:
    size = n // 3
    steps = [tool(i, output_key=f"k{i}", on_error="skip") for i in range(size)]
    return program(steps + [tool(f"r{i}", args={"q": f"$k{i}"}) for i in range(size)])


@family(20_000)
def wrong_arguments(n: int) -> Case:
    def pay(amount: int, account: str) -> None: ...

    case = program([tool("a", "pay", args={f"acount{i}": "$x" for i in range(n)})])
    case.tools = {"pay": pay}
    return case


@family(9_900)
def literal_arguments(n: int) -> Case:
    def pay(amount: int, account: str) -> None: ...

    case = program([tool(i, "pay", args={"amount": "many", "account": "x"}) for i in range(n)])
    case.tools = {"pay": pay}
    return case


@family(9_900)
def fields_of_no_object(n: int) -> Case:
    return program([writes("a", x="text"), *(tool(i, args={"q": "$x.field"}) for i in range(n))])


@family(9_900)
def unused_names(n: int) -> Case:
    return program(
        [writes(i, **{f"customer_name_{i}": 1}) for i in range(n - 1)]
        + [tool("r", args={"q": [f"$costumer_name_{i}" for i in range(n)]})]
    )


WITHIN = {
    "deep loops of many": 20,
    "loop with many catches": 155,
    "deep loops that catch": 9,
    "deep and entered twice": 11,
    "many calls of one": 540,
    "calls that double": 12,
}
"""Sizes of families that are refused at their largest, at which they are just not refused."""

FAMILIES |= {
    f"{name}, within": Family(name, FAMILIES[name].make, size) for name, size in WITHIN.items()
}


# --- measuring ---

STAGES = ("load", "flow", "refuse", "prepare", "verify")
"""`load` is `Program.from_dict`, `flow` its graph; `refuse` the whole of a run that is refused (text,
checks, messages); `prepare` the whole up to the plan; `verify` the whole report for people."""


@dataclass(slots=True)
class Figures:
    """Milliseconds by stage; ``refused`` says whether the program has faults."""

    ms: dict[str, float] = field(default_factory=dict)
    refused: bool = False
    faults: int = 0

    @property
    def whole(self) -> float:
        """From the text to the plan, or to the refusal."""
        return self.ms["refuse" if self.refused else "prepare"]


def timed(figures: Figures, stage: str, run: Callable[[], Any]) -> Any:
    gc.collect()
    start = time.process_time()
    try:
        return run()
    finally:
        figures.ms[stage] = (time.process_time() - start) * 1e3


def measure(case: Case, deep: bool = True) -> Figures:
    """What *case* costs, by stage."""
    figures = Figures()
    text = json.dumps(case.document)
    if len(text.encode()) > MAX_PROGRAM_BYTES:
        raise SystemExit(f"a program of {len(text.encode())} bytes is over the limit")
    programs = {name: Program.from_dict(other) for name, other in case.programs.items()}
    try:
        timed(figures, "load", lambda: Program.from_dict(case.document))
    except ProgramError as error:
        figures.faults, figures.refused = len(error.diagnostics), True

        def refuse() -> str:
            try:
                Program.from_json(text)
            except ProgramError as fault:
                return str(fault)
            raise AssertionError("loads from text, and not from a dict")

        timed(figures, "refuse", refuse)
        return figures
    loaded = Program.from_json(text)
    timed(figures, "flow", lambda: Flow(loaded, programs))

    def host() -> ExecutionVM:
        return ExecutionVM(ScriptedLLM({}), dict(case.tools), policy=case.policy, programs=programs)

    prepared = host()

    def prepare() -> Any:
        fresh = Program.from_json(text)
        try:
            return fresh, prepared.plan(fresh)
        except ProgramError as error:
            figures.refused, figures.faults = True, len(error.diagnostics)
            return str(error)

    timed(figures, "prepare", prepare)
    if figures.refused:
        figures.ms["refuse"] = figures.ms.pop("prepare")
    if deep:
        other = host()
        timed(figures, "verify", lambda: other.verify(loaded, untrusted=case.untrusted))
    return figures


def largest_that_fits(one: Family) -> int:
    """The family's largest size, less what would be over the limit of a program's text."""
    size = one.largest
    while (written := len(json.dumps(one.make(size).document).encode())) > MAX_PROGRAM_BYTES:
        size = min(size - 1, int(size * MAX_PROGRAM_BYTES / written))
    return size


def exponent(small: Figures, large: Figures, ratio: float) -> float | None:
    """The power of the size by which the whole grows; None where it is too short to be measured."""
    before, after = small.whole, large.whole
    return math.log(after / before) / math.log(ratio) if before >= LEAST_MS else None


@dataclass(slots=True)
class Row:
    """A family at its largest size, and by what power of the size its cost grows."""

    name: str
    size: int
    figures: Figures
    power: float | None

    @property
    def cells(self) -> list[str]:
        ms = self.figures.ms
        late = self.figures.whole > LIMIT_MS
        whole = f"{'**' if late else ''}{self.figures.whole:,.0f}{'**' if late else ''}"
        return [
            self.name,
            f"{self.size:,}",
            f"refused, {self.figures.faults:,}" if self.figures.refused else "runs",
            f"{ms['load']:,.0f}",
            f"{ms['flow']:,.0f}" if "flow" in ms else "",
            whole,
            f"{ms['verify']:,.0f}" if "verify" in ms else "",
            f"{self.power:.2f}" if self.power is not None else "",
        ]


def rows(words: Sequence[str]) -> Iterator[Row]:
    """A row for each family whose name has one of *words* in it, or for all."""
    for name, one in FAMILIES.items():
        if words and not any(word in name for word in words):
            continue
        most = largest_that_fits(one)
        least = max(1, most // 4)
        small, large = measure(one.make(least)), measure(one.make(most))
        yield Row(name, most, large, exponent(small, large, most / least))


SLOWEST = 12
"""Families that stand at the top of the page."""

HEADS = ["family", "size", "outcome, faults", "load", "graph", "in all", "report", "power"]

INTRODUCTION = """# Growth

<!-- written by `python benchmarks/growth.py --write`; do not edit -->
Measured on {date}: {system}, CPython {python}, load average {load}.
Milliseconds of process time; a busy machine doubles them.

What it costs to load, check, refuse and prepare programs of every shape. Each is of the size at
which it meets a limit of the language: 10,000 steps, 1 MB of text, depth, nodes of the graph.

- *Load* is `Program.from_dict`, *graph* is its `Flow`.
- *In all* is what a run pays before its first step: the text is read, checked and compiled, or
  refused with every message at its line and column.
- *Report* is `verify`, for people.
- *Power* is that of the size by which what is paid in all grows, between a quarter of the size and
  the whole: 1 is linear; n log n is 1.1 here. It is left out where the quarter takes less than
  {least:g} ms.

The bar is one second in all. {missed} of {count} families miss it, and are bold.
`tests/test_growth.py` counts the work of the worst of these families without a clock.
"""


def document(found: Sequence[Row]) -> str:
    """The page."""
    widths = [max(len(head), *(len(row.cells[i]) for row in found)) for i, head in enumerate(HEADS)]
    text = INTRODUCTION.format(
        date=time.strftime("%Y-%m-%d"),
        system=f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}",
        python=platform.python_version(),
        load=", ".join(f"{one:.1f}" for one in os.getloadavg()),
        least=LEAST_MS,
        missed=sum(row.figures.whole > LIMIT_MS for row in found),
        count=len(found),
    )
    head = [_line(HEADS, widths), f"| {' | '.join('-' * w for w in widths)} |"]
    slowest = sorted(found, key=lambda row: row.figures.whole, reverse=True)[:SLOWEST]
    return "\n".join(
        [
            text,
            f"## The {SLOWEST} that take longest\n",
            *head,
            *(_line(row.cells, widths) for row in slowest),
            "\n## All families\n",
            "<details markdown>",
            f"<summary>{len(found)} families, by what they are made of</summary>\n",
            *head,
            *(_line(row.cells, widths) for row in found),
            "\n</details>\n",
        ]
    )


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return f"| {' | '.join(cell.ljust(w) for cell, w in zip(cells, widths, strict=True))} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write growth.md")
    parser.add_argument("families", nargs="*", help="words in the names of families")
    options = parser.parse_args()
    found = []
    for row in rows(options.families):
        found.append(row)
        print("  ".join(row.cells), flush=True)
    if options.write:
        (Path(__file__).parent.parent / "docs" / "explanation" / "growth.md").write_text(
            document(found)
        )


if __name__ == "__main__":
    main()
