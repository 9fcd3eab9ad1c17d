"""Names: definite assignment over blocks, loops, skips and catches; what nobody reads; fields that
are not there.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import process_time
from typing import Any, TypedDict

import pytest
from build import llm, mapped, parallel, program, step

from nano_vm import ExecutionVM, tool
from nano_vm.collector import collector_paused
from nano_vm.language.flow import Flow
from nano_vm.tools.contract import contract
from nano_vm.verify.advice import check_braces
from nano_vm.verify.data.branches import check_fields
from nano_vm.verify.data.names import MAX_REMEDIES, assigned, check_names, check_unused


def noted(step_id: str = "n", **fields: Any) -> dict[str, Any]:
    extra = {
        key: fields.pop(key)
        for key in ("on_error", "default", "catch", "next", "output_key")
        if key in fields
    }
    return {"id": step_id, "type": "set", "values": fields or {"z": 1}, **extra}


def choice(
    test: str, then: Any, otherwise: Any = None, id: str = "c", **fields: Any
) -> dict[str, Any]:
    branches = {"then": then} if otherwise is None else {"then": then, "otherwise": otherwise}
    return {"id": id, "type": "condition", "condition": test, **branches, **fields}


def loop(
    *steps: Any, until: str = "$q == 1", most: int = 3, id: str = "l", **fields: Any
) -> dict[str, Any]:
    return {
        "id": id,
        "type": "loop",
        "until": until,
        "max_iterations": most,
        "steps": list(steps),
        **fields,
    }


def flow_of(*steps: dict[str, Any], **fields: Any) -> Flow:
    flow = Flow(program(*steps, **fields))
    assert not flow.diagnostics, flow.diagnostics
    return flow


def told(*steps: dict[str, Any], **fields: Any) -> list[str]:
    return [f"{d.code} {d.message}" for d in check_names(flow_of(*steps, **fields))]


READ = noted("r", y="$x")
NEVER = ["V010 '$x' is read before any step has written it"]
EARLY = ["V024 '$x' is read before any step has written it, so it is needed as an input"]
SOMETIMES = ["V011 '$x' is not written on every path that leads here"]


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([noted(x=1), READ], []),
        ([READ, noted(x=1)], EARLY),
        # it was given, and is there
        ([READ, choice("$q == 1", [noted(x=1)]), {**READ, "id": "r2"}], EARLY),
        (
            [READ, step("a", output_key="x", on_error="skip"), {**READ, "id": "r2"}],
            [*EARLY, *SOMETIMES],
        ),
        ([parallel([{**READ, "id": "i"}, noted(x=1)], noted("o", w=1))], EARLY),
        # a sibling's name is never seen there
        ([parallel({**READ, "id": "i"}, noted(x=1))], NEVER),
        (
            [noted("r", y="$n.output"), noted(x=1)],
            ["V010 '$n.output' is read before any step has written it"],
        ),
        ([choice("$q == 1", [noted(x=1)]), READ], SOMETIMES),
        ([choice("$q == 1", [noted(x=1)], [noted("o", x=2)]), READ], []),
        ([choice("$q == 1", [noted(x=1), {**READ, "id": "i"}]), noted("o", x=2), READ], []),
        ([choice("$q == 1", "$next", "$end"), noted(x=1), READ], []),
        ([choice("$q == 1", "w", "r"), noted("w", x=1, next="r"), READ], SOMETIMES),
        # loops: the body runs at least once, and what a later step of it writes is there from the second
        # round on
        ([loop(noted(x=1)), READ], []),
        ([loop(READ, noted(x=1))], SOMETIMES),
        ([loop(noted(x=1), READ)], []),
        ([loop(choice("$q == 2", [noted(x=1)]), until="$x == 1")], SOMETIMES),
        ([loop(choice("$q == 1", "r", "$next"), noted(x=1)), READ], SOMETIMES),
        # a loop writes when it ends, which its body never sees
        ([loop(READ, output_key="x")], EARLY),
        ([loop(noted("i", y="$l.output"))], [NEVER[0].replace("$x", "$l.output")]),
        # skipped: written nothing, unless by default
        ([step("a", output_key="x", on_error="skip"), READ], SOMETIMES),
        ([step("a", output_key="x", on_error="skip", default=1), READ], []),
        ([noted(x=1), step("a", output_key="x", on_error="skip"), READ], SOMETIMES),
        ([noted(x="$q", on_error="skip"), READ], SOMETIMES),
        # the default is the output, not the names
        ([noted(x="$q", on_error="skip", default=1), READ], SOMETIMES),
        ([noted("o", x=0), noted(x="$q", on_error="skip"), READ], []),  # the older value stays
        ([loop(noted(x=1), step("t"), on_error="skip"), READ], SOMETIMES),
        ([loop(noted(), on_error="skip", output_key="x", default=1), READ], []),
        # caught: a jump from before the write
        ([step("a", output_key="x", catch=[{"next": "r"}]), READ], SOMETIMES),
        ([noted(x=1), step("a", catch=[{"next": "r"}]), READ], []),
        ([noted(x=1), step("a", output_key="x", catch=[{"next": "r"}]), READ], SOMETIMES),
        # the default is for where it is skipped
        (
            [
                step("a", output_key="x", when="$q == 1", default=1, catch=[{"next": "r"}]),
                READ,
            ],
            SOMETIMES,
        ),
        ([step("a", output_key="x", when="$q == 1", default=1), READ], []),
        (
            [loop(step("a"), noted(x=1), step("b"), catch=[{"next": "r"}]), noted("e"), READ],
            SOMETIMES,
        ),
        # frames
        ([parallel(noted(x=1), noted("o", w=1)), READ], NEVER),
        ([noted(x=1), parallel({**READ, "id": "i"})], []),
        ([mapped(noted("i", y="$x"), over=[1], **{"as": "x"})], []),
        ([mapped(noted(x=1), over=[1]), READ], NEVER),
        ([{"id": "s", "type": "switch", "on": "$q", "cases": {"a": [noted(x=1)]}}, READ], []),
        (
            [
                {
                    "id": "s",
                    "type": "switch",
                    "on": "$q",
                    "cases": {"a": [noted(x=1)]},
                    "default": "$next",
                },
                READ,
            ],
            SOMETIMES,
        ),
    ],
)
def test_definite_assignment(steps: list[dict[str, Any]], expected: list[str]) -> None:
    assert told(*steps) == expected


def test_only_what_is_read_somewhere_is_followed() -> None:
    """So a step of which nobody reads anything changes nothing, and no input that nobody reads is
    taken to be there.
    """
    names = ("read", "unread", "late")
    one = program(
        step("a", "look", output_key="unread"),
        step("b", "look", args={"x": "$read"}, output_key="late", on_error="skip"),
        step("c", "look", args={"x": {"expr": "default($late, 1)"}}),
        inputs={"properties": {name: {} for name in names}, "required": list(names)},
    )
    flow = Flow(one)
    keys = flow.frames[0].names.keys
    solved = assigned(flow)
    followed = {
        node.step.id: tuple(
            sorted(name for name in names if state[0] >> keys[name] & 1)
            for state in [solved.states[node.index]]
            if state is not None
        )
        for node in flow.nodes
        if node.kind == "step"
    }
    both = (["late", "read"],)
    assert followed == {"a": both, "b": both, "c": (["read"],)}
    assert solved.states[flow.order.nodes[0]] is solved.states[flow.order.nodes[1]]


def test_in_a_program_that_declares_its_inputs_an_early_read_is_an_error() -> None:
    inputs = {"type": "object", "properties": {"q": {}}}
    assert told(READ, noted(x=1), inputs=inputs) == NEVER
    assert told(READ, noted(x=1), inputs={"type": "object", "properties": {"x": {}}}) == SOMETIMES
    called = {"id": "c", "type": "call", "program": {"steps": [READ, noted(x=1)]}}
    assert told(called) == NEVER
    assert told({**called, "with": {"x": 1}}) == []


def test_an_input_that_may_be_left_out_is_not_there_on_every_path() -> None:
    optional = {"type": "object", "properties": {"x": {}, "q": {}}}
    for changed, expected in (
        ({}, SOMETIMES),
        ({"required": ["x"]}, []),
        ({"properties": {"x": {"default": 1}}}, []),
    ):
        inputs = {**optional, **changed}
        assert told(READ, inputs=inputs) == expected
        called = {"id": "c", "type": "call", "program": {"steps": [READ], "inputs": inputs}}
        needed = ["V040 program 'unnamed' needs input 'x'"] if "required" in changed else expected
        assert told(called) == needed
        assert told({**called, "with": {"x": 1}}) == []
    called = {"id": "c", "type": "call", "program": {"steps": [READ], "inputs": optional}}
    trace = ExecutionVM().run_sync(program(called))
    assert "$x has no value on this path" in str(trace.error)
    held = ExecutionVM(policy={"inputs": {"*": "trusted"}}).run_sync(program(called))
    assert [(d.code, d.severity) for d in held.diagnostics] == [("V011", "error")]
    assert "'with'" in str(held.diagnostics[0].hint)


def test_what_is_read_early_must_be_given() -> None:
    vm = ExecutionVM(tools={"t": lambda **_: 1})
    made = program(choice("$x == 1", [noted("w", x=2)]), noted("r", y="$x"))
    assert [(d.code, d.severity) for d in vm.check(made)] == [("V024", "warning")]
    refused = vm.run_sync(made)
    assert [d.code for d in refused.diagnostics] == ["V040"]
    assert refused.steps == []
    assert vm.run_sync(made, {"x": 1}).final_output == {"y": 2}
    assert vm.run_sync(made, {"x": 5}).final_output == {"y": 5}
    held = ExecutionVM(tools={"t": lambda **_: 1}, policy={"inputs": {"*": "trusted"}})
    assert [d.code for d in held.run_sync(made, {"x": 1}).diagnostics] == ["V024"]
    assert [(d.code, d.severity) for d in held.check(made)] == [("V024", "error")]


def test_what_only_a_step_writes_that_no_path_reaches_must_be_given() -> None:
    vm = ExecutionVM(tools={"t": lambda **_: 1})
    first = {"id": "first", "type": "tool", "tool": "t", "args": {}, "next": "last"}
    lost = {"id": "lost", "type": "set", "values": {"x": 1}}
    made = program(first, lost, noted("last", y="$x"))
    assert [(d.code, d.severity) for d in vm.check(made)] == [
        ("V009", "warning"),
        ("V024", "warning"),
    ]
    refused = vm.run_sync(made)
    assert [d.code for d in refused.diagnostics] == ["V040"]
    assert refused.steps == []
    assert vm.run_sync(made, {"x": 5}).final_output == {"y": 5}


def test_where_inputs_are_declared_no_other_name_is_one() -> None:
    vm = ExecutionVM(tools={"t": lambda **_: 1})
    inputs = {"type": "object", "properties": {"q": {}}}
    steps = [noted("r", y={"expr": "default($x, 0)"}), noted("w", x=1), noted("last", z="$y")]
    assert "always gives its other value" in told(*steps, inputs=inputs)[0]
    assert vm.run_sync(program(*steps, inputs=inputs), {"x": 5}).final_output == {"z": 0}
    assert "unless input 'x' is given" in told(*steps)[0]
    assert vm.run_sync(program(*steps), {"x": 5}).final_output == {"z": 5}
    called = {"steps": [READ, noted(x=1)], "inputs": inputs}
    assert [
        text[:4] for text in told({"id": "c", "type": "call", "with": {"x": 1}, "program": called})
    ] == [
        "V042",
        "V010",
    ]


REMEDIES = [  # what lacks it, what the hint says, and the same with the remedy
    (
        [step("a", output_key="x", on_error="skip"), READ],
        "'default'",
        [step("a", output_key="x", on_error="skip", default=0), READ],
    ),
    (
        [step("a", output_key="x", when="$q"), READ],
        "'default'",
        [step("a", output_key="x", when="$q", default=0), READ],
    ),
    (
        [choice("$q", [step("a", default=0, on_error="skip")]), noted("r", y="$a.output")],
        "the same output_key in each branch",
        [
            choice("$q", [step("a", output_key="k")], [step("b", output_key="k")]),
            noted("r", y="$k"),
        ],
    ),
    (
        [choice("$q", [step("a", output_key="x")]), READ],
        "set it before",
        [noted("s", x=0), choice("$q", [step("a", output_key="x")]), READ],
    ),
    (
        [step("a", output_key="x", catch=[{"next": "r"}]), READ],
        "in its handler",
        [
            step("a", output_key="x", catch=[{"next": "h"}], next="r"),
            noted("h", x=0, next="r"),
            READ,
        ],
    ),
    (
        [choice("$q", "w", "r"), noted("w", x=1, next="r"), READ],
        "on each way",
        [choice("$q", "w", "v"), noted("w", x=1, next="r"), noted("v", x=2, next="r"), READ],
    ),
]


@pytest.mark.parametrize(("steps", "hint", "mended"), REMEDIES)
def test_the_hint_names_what_works(steps: list[Any], hint: str, mended: list[Any]) -> None:
    (found,) = check_names(flow_of(*steps))
    assert found.code == "V011"
    assert hint in str(found.hint)
    assert told(*mended) == []


@pytest.mark.slow
def test_reads_of_many_steps_are_told_in_no_time() -> None:
    steps = [step(f"a{i}", on_error="skip") for i in range(2_000)]
    steps += [noted(f"r{i}", **{f"y{i}": f"$a{i}.output"}) for i in range(2_000)]
    flow = flow_of(*steps)
    with collector_paused():  # looking through what other tests left is none of its time
        started = process_time()
        found = list(check_names(flow))
        took = process_time() - started
    assert took < 2
    assert len(found) == 2_000
    assert sum(d.hint is not None for d in found) == MAX_REMEDIES


# --- what nobody reads ----------------------------------------------------------------------------


@tool(effect="read")
def look() -> str: ...  # type: ignore[empty-body]
def write() -> str: ...  # type: ignore[empty-body]


CONTRACTS = {
    name: contract(name, function) for name, function in {"look": look, "write": write}.items()
}


def unread(*steps: dict[str, Any], **fields: Any) -> list[str]:
    found = list(check_unused(flow_of(*steps, **fields), CONTRACTS))
    assert all(d.severity == "hint" for d in found)
    return [f"{d.code} {d.message}" + (f"; {d.hint}" if d.code == "V018" else "") for d in found]


END = noted("end")


def test_what_nobody_reads() -> None:
    assert unread(noted("a", x=1, y=2), noted("b", z="$x")) == [
        "V016 step 'a' sets 'y', which nobody reads"
    ]
    assert unread(noted("a", x=1)) == [], "it is the output"
    assert unread(choice("$q == 1", [noted("a", x=1)]), END) == [], "it is the block's output"
    assert unread(noted("a", x=1, output_key="all"), noted("b", y="$all")) == []
    assert unread(noted("a", x=1), noted("b", y="$a.output.x")) == []
    assert unread(noted("a", x=1), END, output="$x") == []
    assert unread(llm("m"), END) == ["V016 nobody reads what the model answers in step 'm'"]
    assert unread(llm("m", output_key="x"), noted("b", y="<$x>")) == []
    assert unread(llm("m", output_key="x"), noted("b", y="$m.output")) == []
    assert unread(step("a", "write"), END) == []
    assert unread(step("a", "look"), END) == [
        "V016 nobody reads what tool 'look' gives in step 'a', and it has no effect"
    ]
    assert unread(step("a", "unknown"), END) == []


def test_near_misses() -> None:
    asked = llm("m", output_key="decision")
    assert unread(asked, choice("$decison == 'yes'", "$end", "$end")) == [
        "V016 nobody reads what the model answers in step 'm'",
        "V018 '$decison' is taken for an input: no step writes it; did you mean '$decision', "
        "which is written and read by nobody?",
    ]
    assert unread(asked, choice("$decision == 'yes' and $decisions == 1", "$end", "$end")) == []
    assert (
        unread(
            asked,
            END,
            inputs={"type": "object", "properties": {"decisions": {}}},
            output="$decision",
        )
        == []
    )


# --- fields ---------------------------------------------------------------------------------------


class Order(TypedDict):
    amount: float
    lines: list[str]


@dataclass
class Person:
    name: str
    order: Order


def get_order() -> Order: ...  # type: ignore[empty-body]
def get_person() -> Person | None: ...
def get_text() -> str: ...  # type: ignore[empty-body]


TOOLS = {f.__name__: contract(f.__name__, f) for f in (get_order, get_person, get_text)}


def fields(*steps: dict[str, Any], **more: Any) -> list[str]:
    found = check_fields(flow_of(*steps, **more), TOOLS)
    return [f"{d.severity} {d.code} {d.message}" + (f"; {d.hint}" if d.hint else "") for d in found]


def schema(closed: bool = False, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties} | (
        {"additionalProperties": False} if closed else {}
    )


def test_fields_of_answers() -> None:
    answer = llm("m", output_schema=schema(amount={"type": "number"}), output_key="o")
    assert fields(answer, noted(y="$o.amount")) == []
    assert fields(answer, noted(y="$o.amout")) == [
        "warning V017 '$o.amout': no field 'amout' is known in $o; did you mean 'amount'?"
    ]
    strict = llm("m", output_schema=schema(True, amount={"type": "number"}), output_key="o")
    assert fields(strict, noted(y="$o.amount")) == []
    assert fields(strict, noted(y="for ${o.price} €")) == [
        "error V017 '${o.price}': no field 'price' is known in $o; it has 'amount'"
    ]
    assert fields(strict, noted(y="$m.output.amount.cents")) == [
        "error V017 '$m.output.amount.cents': $m.output.amount is a number, which has no field "
        "'cents'"
    ]
    assert fields(llm("m", output_key="o"), noted(y="$m.output.amount")) == [
        "error V017 '$m.output.amount': $m.output is a string, which has no field 'amount'; "
        "give the step an output_schema, or write ${m.output}.amount where it is text behind the "
        "value"
    ]
    skipped = llm("m", on_error="skip", default={"amount": 1})
    assert fields(skipped, noted(y="$m.output.amount")) == []
    chosen = llm("m", allowed_outputs=["a", "b"])
    assert fields(chosen, noted(y="$m.output[0]")) == []
    assert fields(chosen, noted(y="$m.output[5]"))[0].startswith("error V017")
    assert fields(chosen, choice("$m.output == 'a' or $m.output.x == 1", "$end", "$end"))[
        0
    ].startswith("warning V017")
    assert fields(chosen, END, output="$m.output.x")[0].startswith("error V017")


def test_fields_of_what_tools_return() -> None:
    """Nobody holds a tool to its annotation: a warning."""
    order = step("a", "get_order", output_key="o")
    assert fields(order, noted(y="$o.amount", z="$a.output.lines[0]")) == []
    assert fields(order, noted(y="$o.amout")) == [
        "warning V017 '$o.amout': no field 'amout' is known in $o; did you mean 'amount'?"
    ]
    assert fields(step("a", "get_text"), noted(y="$a.output.x"))[0].startswith("warning V017")
    person = step("a", "get_person", output_key="p")
    assert fields(person, noted(y="$p.order.amount", z="$p.name")) == []
    assert fields(person, noted(y="$p.order.lines.x")) == [
        "warning V017 '$p.order.lines.x': $p.order.lines is a list, which has no field 'x'"
    ]
    assert fields(step("a", "unknown"), noted(y="$a.output.x.y")) == []


def test_fields_of_inputs_and_other_steps() -> None:
    inputs = schema(order=schema(True, id={"type": "string"}), who={"type": ["string", "null"]})
    assert fields(noted(y="$order.id"), inputs=inputs) == []
    assert fields(noted(y="$order.idd"), inputs=inputs) == [
        "error V017 '$order.idd': no field 'idd' is known in $order; did you mean 'id'?"
    ]
    both = parallel(step("a", "t"), llm("b"))
    assert fields(both, noted(y="$p.output.a", z="$p.output.b")) == []
    assert fields(both, noted(y="$p.output.c")) == [
        "error V017 '$p.output.c': no field 'c' is known in $p.output; it has 'a', 'b'"
    ]
    assert fields(noted("s", x={"k": 1}), noted(y="$x.k")) == []
    assert fields(noted("s", x={"k": "$q"}), noted(y="$x.kk"))[0].startswith("error V017 '$x.kk'")


def test_fields_where_a_name_holds_one_thing_or_another() -> None:
    steps = (noted("s", x="text"), choice("$q == 1", [noted("o", x={"k": 1})]))
    assert fields(*steps, noted(y="$x.k")) == [], "on one path it is there"
    assert fields(noted("s", x="text"), noted("o", y="$x.k"), noted("e", x={"k": 1}))[0].startswith(
        "error V017"
    )


def braces(*steps: dict[str, Any], **fields: Any) -> list[str]:
    return [f"{d.message}; {d.hint}" for d in check_braces(flow_of(*steps, **fields))]


def test_braces_of_other_template_languages_are_told() -> None:
    sent = "is sent as it stands: braces are text"
    assert braces(llm("a", prompt="hi {{ name }}")) == [
        f"'{{{{ name }}}}' {sent}; write $name for a value"
    ]
    assert braces(llm("a", prompt="$x"), llm("b", prompt="see {a}")) == [
        f"'{{a}}' {sent}; write $a.output for a value"
    ]
    assert braces(llm("a", prompt="$x and {x}")) == [f"'{{x}}' {sent}; write $x for a value"]
    assert braces(llm("a", prompt="q", system="{{x}}")) != []
    one = {"id": "a", "type": "llm", "messages": [{"role": "user", "content": "{{x}}"}]}
    assert [d.loc for d in check_braces(flow_of(one))] == [("steps", 0, "messages", 0, "content")]
    for harmless in (
        "${x} and $x",
        r"\frac{x}{y} of $x",
        '{"a": 1} {x: 2} {}',
        "{nobody}",
        "$$x {x} {}",
    ):
        assert braces(llm("a", prompt=harmless)) == [], harmless
