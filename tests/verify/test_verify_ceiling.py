"""Ceilings: what they say of small programs, and that no run of the machine goes over one.

The campaign makes programs of all step types, lets dice take the place of every condition, list and
outcome, and counts what the machine uses. Its programs come from here and share no code with `flow`
or `bounds`.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from decimal import Decimal
from importlib import import_module
from random import Random
from typing import Any

import pytest
from build import llm, mapped, parallel, program, step
from campaigns import cases

from nano_vm import Program, VMError
from nano_vm.language.answers import correction
from nano_vm.language.flow import Edge, Flow
from nano_vm.language.messages import SCHEMA
from nano_vm.language.policy import Budget
from nano_vm.machine.bounds import counted, longest
from nano_vm.machine.compile import compile_flow
from nano_vm.machine.ledger import (
    DEFAULT_LIMITS,
    DEFAULT_MAX_TOKENS,
    FILE_TOKENS,
    IMAGE_TOKENS,
    MESSAGE_TOKENS,
    Ledger,
    Limits,
    token_bound,
)
from nano_vm.machine.machine import Machine, loaded, machine_of
from nano_vm.machine.outcome import Answer, Cancelled, Failed, TimedOut, Value
from nano_vm.machine.plan import BranchOp, ForkOp, ModelOp, Op, SwitchOp, TestOp, ToolOp
from nano_vm.machine.simulate import simulate
from nano_vm.machine.terms import RunTerms
from nano_vm.records.record import StepError
from nano_vm.records.usage import LLMUsage
from nano_vm.tools.contract import ToolContract, contract
from nano_vm.values import canonical
from nano_vm.verify.cost import sizes
from nano_vm.verify.cost.ceiling import Ceiling, Interval, ceiling, over_budget
from nano_vm.verify.cost.sizes import CASE, DEFAULT_INPUT_BYTES, TOKEN_BYTES, of_schema
from nano_vm.verify.shape import check_shape

PRICES = {"m": (Decimal("0.15"), Decimal("0.6")), "n": (Decimal(3), Decimal(15))}


def tools(*names: str, effect: str = "write", key: bool = False) -> dict[str, ToolContract]:
    def with_key(idempotency_key: str, **given: Any) -> None: ...
    def without(**given: Any) -> None: ...

    from nano_vm import tool

    return {n: contract(n, tool(effect=effect)(with_key if key else without)) for n in names}  # type: ignore[call-overload]


TOOLS = tools("t", "u", "r")


def of(
    *steps: dict[str, Any], contracts: Mapping[str, ToolContract] = TOOLS, **options: Any
) -> Ceiling:
    fields = options.pop("fields", {})
    return ceiling(Flow(program(*steps, **fields)), contracts, **options)


def sets(id: str = "s", **fields: Any) -> dict[str, Any]:
    return {"id": id, "type": "set", "values": {"x": 1}, **fields}


def choice(id: str, **fields: Any) -> dict[str, Any]:
    return {"id": id, "type": "condition", "condition": "$q == 1", **fields}


def loop(id: str, times: int, *steps: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {
        "id": id,
        "type": "loop",
        "max_iterations": times,
        "until": "$q == 1",
        "steps": list(steps),
        **fields,
    }


# --- steps and calls ------------------------------------------------------------------------------


def test_steps_in_order() -> None:
    found = of(sets("a"), step("b"), llm("c"))
    assert (found.steps, found.llm_calls, found.tool_calls) == (3, 1, 1)
    assert (found.tools, found.models) == ({"t": 1}, {"default": 1})
    assert found.paths["steps"] == ("a", "b", "c")


def test_each_amount_is_its_own_longest_path() -> None:
    found = of(
        choice("c", then=[sets("a"), sets("b"), sets("d")], otherwise=[step("e", max_retries=4)])
    )
    assert (found.steps, found.tool_calls) == (4, 4)
    assert found.paths == {"steps": ("c", "a", "b", "d"), "tool_calls": ("c", "e")}


def test_a_step_reached_by_jump_ends_its_frame() -> None:
    assert of(choice("c", then="a", otherwise="$end"), step("a"), step("b")).tool_calls == 1
    # once in order, once by jump
    assert of(step("a"), choice("c", then="a", otherwise="$end")).tool_calls == 2


def test_a_loop_counts_its_body_by_its_bound() -> None:
    assert of(loop("l", 5, step("a"), step("b"))).steps == 11
    assert of(loop("l", 3, loop("k", 4, step("a")))).steps == 1 + 3 * (1 + 4)


def test_a_loop_that_is_left_by_its_last_iteration() -> None:
    """Two whole iterations of one call each, and a third that leaves for three others."""
    body = [choice("c", then="d", otherwise="$next"), step("a")]
    found = of(loop("l", 3, *body, on_exhausted="continue", next="$end"), step("d", max_retries=3))
    assert found.tool_calls == 2 + 3
    # the third whole iteration is the better one here
    assert of(loop("l", 3, *body, on_exhausted="continue", next="$end"), sets("d")).tool_calls == 3


def test_a_body_that_never_comes_to_its_end_runs_once() -> None:
    assert of(loop("l", 100, step("a", next="$end"), sets("b"))).steps == 2


def test_a_failure_out_of_a_loop() -> None:
    inner = step("a", catch=[{"next": "d"}])
    assert of(loop("l", 3, inner, next="$end"), step("d", max_retries=4)).tool_calls == 3 + 4
    outer = loop("l", 3, step("a"), next="$end", catch=[{"next": "d"}])
    assert of(outer, step("d", max_retries=4)).tool_calls == 3 + 4


def test_a_loop_that_is_skipped_goes_on_though_its_body_never_comes_to_its_end() -> None:
    body = step("a", next="$end")
    assert of(loop("l", 3, body, on_error="skip"), step("d", max_retries=4)).tool_calls == 1 + 4


def test_branches_add_up() -> None:
    found = of(parallel(step("a"), [step("b"), step("c")], on_error="skip"), step("d"))
    assert (found.steps, found.tool_calls) == (5, 4)
    assert found.path == ("p", "a", "b", "c", "d")


def test_a_map_counts_its_items() -> None:
    assert of(mapped(step("a"), over="$q", max_items=7)).tool_calls == 7
    assert of(mapped(step("a"), over="$q")).tool_calls == 1000
    assert of(mapped(step("a"), over=[1, "$q", 3], max_items=7)).tool_calls == 3
    # fails before its first item
    assert of(mapped(step("a"), over=[1, 2, 3], max_items=2)).tool_calls == 0


def test_a_called_program_keeps_to_its_own_budget() -> None:
    inner = {"name": "i", "steps": [loop("l", 9, step("a", max_retries=3), llm("b", "$q"))]}
    call = {"id": "c", "type": "call", "with": {"q": 1}, "program": inner}
    found = of(call, step("z"))
    assert (found.steps, found.llm_calls, found.tool_calls) == (2 + 1 + 18, 9, 28)
    held = {
        **call,
        "program": {**inner, "budget": {"max_steps": 10, "max_llm_calls": 4, "max_tool_calls": 5}},
    }
    found = of(held, step("z"))
    assert (found.steps, found.llm_calls, found.tool_calls) == (2 + 10, 4, 6)


def test_attempts() -> None:
    assert of(step(max_retries=4)).tool_calls == 4
    assert of(step(on_error="retry")).tool_calls == 3
    assert of(llm()).llm_calls == 1
    assert of(llm(allowed_outputs=["a"])).llm_calls == 2
    assert of(llm(allowed_outputs=["a"], max_retries=1)).llm_calls == 1
    assert of(llm(output_schema={}, on_error="retry")).llm_calls == 3


def test_undo_and_reconcile_are_calls_of_their_tools_and_of_no_budget() -> None:
    one = step("a", max_retries=3, undo="u", reconcile="r")
    found = of(one)
    assert found.tools == {"r": 3, "t": 3, "u": 1}
    assert found.tool_calls == 3
    assert of(loop("l", 2, one)).tools == {"r": 6, "t": 6, "u": 2}
    safe = {**tools("t", effect="idempotent"), **tools("u", "r")}
    # an outcome that is lost is asked for again
    assert of(one, contracts=safe).tools == {"t": 3, "u": 1}


def test_models_are_counted_by_name() -> None:
    fields = {"models": {"small": "n"}, "defaults": {"model": "m"}}
    found = of(llm("a"), llm("b", model="small"), llm("c", model="x"), fields=fields)
    assert found.models == {"m": 1, "n": 1, "x": 1}
    assert list(found.models) == sorted(found.models)


def test_a_circle_has_no_ceiling() -> None:
    flow = Flow(program(sets("a"), sets("b")))
    entry = flow.frames[0].entry
    next(node for node in flow.nodes if node.step.id == "b").edges.append(Edge("next", entry))
    with pytest.raises(VMError, match="circle through 'a'"):
        ceiling(flow, TOOLS)


def test_many_ways_to_one_step_are_not_listed() -> None:
    """Forty conditions, each of which skips the next step, have 2^40 paths."""
    steps = [
        part
        for i in range(40)
        for part in (choice(f"c{i}", then=[step(f"a{i}")], otherwise=[]), sets(f"s{i}"))
    ]
    assert of(*steps).steps == 120


# --- tokens and money -----------------------------------------------------------------------------


def test_tokens_of_a_literal_prompt() -> None:
    found = of(
        llm("a", "é!", max_tokens=7, max_retries=2), prices={"m": PRICES["m"]}, default_model="m"
    )
    assert found.prompt_tokens == 2 * (3 + MESSAGE_TOKENS)
    assert found.completion_tokens == 14
    assert found.tokens == found.prompt_tokens + 14
    assert (
        found.cost_usd == (Decimal("0.15") * found.prompt_tokens + Decimal("0.6") * 14) / 1_000_000
    )
    assert found.cost == Interval(found.cost_usd, found.cost_usd)


def test_system_and_messages_each_have_their_own_overhead() -> None:
    assert of(llm("a", "ab", system="c", max_tokens=1)).prompt_tokens == 3 + 2 * MESSAGE_TOKENS
    messages = [{"role": "user", "content": "ab"}] * 3
    found = of({"id": "a", "type": "llm", "messages": messages, "max_tokens": 1})
    assert found.prompt_tokens == 6 + 3 * MESSAGE_TOKENS


def test_inputs_have_the_cap_that_is_given_or_that_of_their_schema() -> None:
    ask = llm("a", "$q", max_tokens=1)
    assert of(ask).prompt_tokens == DEFAULT_INPUT_BYTES + MESSAGE_TOKENS
    assert of(ask, input_bytes=100).prompt_tokens == 100 + MESSAGE_TOKENS
    assert of(ask, input_bytes={"q": 9, "z": 5}).prompt_tokens == 9 + MESSAGE_TOKENS
    declared = {"inputs": {"properties": {"q": {"enum": ["yes", "no"]}}, "required": ["q"]}}
    assert of(ask, fields=declared).prompt_tokens == 3 + MESSAGE_TOKENS


@pytest.mark.slow
def test_answers_have_the_bound_of_what_they_may_be() -> None:
    def asks(**fields: Any) -> int | None:
        first = of(llm("a", "x", max_tokens=2, max_retries=1, **fields)).prompt_tokens
        both = of(
            llm("a", "x", max_tokens=2, max_retries=1, output_key="k", **fields),
            llm("b", "$k", max_tokens=2),
        ).prompt_tokens
        return None if both is None or first is None else both - first - MESSAGE_TOKENS

    assert asks(allowed_outputs=["a", "seven67"]) == 7
    assert asks(allowed_outputs=["a"], on_invalid="twelve__1234") == 12
    assert asks(on_error="skip", default="eight678", allowed_outputs=["a"]) == 8
    assert asks() == 2 * TOKEN_BYTES
    assert asks(output_schema={"type": "boolean"}) == 5
    assert asks(output_schema={"type": "string", "maxLength": 3}) == 12


@pytest.mark.parametrize(
    ("before", "prompt", "text"),
    [
        # an answer that is parsed and written again: 1e15 has four bytes, 1000000000000000.0 has eighteen
        (
            [llm("a", "x", max_tokens=1, output_schema={}, output_key="k")],
            "$k",
            "1000000000000000.0" * 256,
        ),
        # a text that shows a list, in a list: its quotes are escaped twice
        (
            [
                {"id": "a", "type": "set", "values": {"k": ['"' * 50]}},
                {"id": "b", "type": "set", "values": {"l": ["$k is it"]}},
            ],
            "$l",
            json.dumps([json.dumps(['"' * 50]) + " is it"], separators=(",", ":")),
        ),
        # an answer of control characters, shown in an object
        (
            [llm("a", "x", max_tokens=1, output_key="k"), sets("b", values={"l": {"k": "$k"}})],
            "$l",
            "\\u0000" * 1024,
        ),
        (
            [choice("a", then="longer-than-null", otherwise="$next")],
            "${a.output}",
            "longer-than-null",
        ),
        ([sets("a", values={"k": "abc"})], "${k}.Thanks", "abc.Thanks"),
        (
            [sets("a", values={"k": "abc"}), sets("b", values={"l": "${k}.Thanks!"})],
            "$l",
            "abc.Thanks!",
        ),
        # U+0390 has no capital of its own
        (
            [
                llm("a", "x", max_tokens=1, output_key="k"),
                sets("b", values={"l": {"expr": "$k.upper()"}}),
            ],
            "$l",
            "\u0399\u0308\u0301" * 512,
        ),
    ],
)
def test_a_prompt_may_be_as_long_as_this(
    before: list[dict[str, Any]], prompt: str, text: str
) -> None:
    named = {"id": "longer-than-null", "type": "set", "values": {"z": 1}, "next": "z"}
    found = of(*before, named, llm("z", prompt, max_tokens=1), input_bytes=12)
    alone = of(*before, named, input_bytes=12)
    assert found.prompt_tokens is not None
    assert alone.prompt_tokens is not None
    assert found.prompt_tokens - alone.prompt_tokens >= len(text.encode()) + MESSAGE_TOKENS


TURNS = [{"role": "user", "content": "ä\n"}, {"role": "assistant", "content": '"'}]
PICTURE = {"type": "image_url", "image_url": {"url": "http://a"}}


@pytest.mark.parametrize(
    ("written", "given"),
    [
        ("$q", TURNS),
        ("$q", [{"role": "user", "content": ""}] * 9),
        ("$q", [{"role": "user", "content": [{"type": "text", "text": ""}] * 9}]),
        ("$q", [{"role": "user", "content": [PICTURE] * 3}]),
        ("$q.turns", {"turns": TURNS}),
        ([{"role": "developer", "content": "Be $q"}, {"role": "user", "content": "x"}], "kind"),
        ([{"role": "system", "content": "x"}, "$q", {"role": "user", "content": "so"}], TURNS),
        (
            [{"role": "user", "content": [{"type": "text", "text": "see $q"}, PICTURE, PICTURE]}],
            "it",
        ),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "$q"}}]}],
            "http://a",
        ),
    ],
)
def test_messages_may_be_as_long_as_this(written: Any, given: Any) -> None:
    one = Program.from_dict(
        {"steps": [{"id": "z", "type": "llm", "messages": written, "max_tokens": 1}]}
    )
    most = ceiling(Flow(one), {}, input_bytes=len(canonical(given)))
    plan = compile_flow(Flow(one), {})
    op = plan.frames[0].entry
    assert isinstance(op, ModelOp)
    asked = op.messages(loaded(plan.frames[0], {"q": given}))
    assert most.prompt_tokens is not None
    assert most.prompt_tokens >= token_bound(asked)


def test_a_conversation_of_texts_has_no_files_to_pay_for() -> None:
    """Without a schema each 67 bytes of it may be a file; so it is declared, and its schema
    holds before the run.
    """
    step = {"id": "z", "type": "llm", "messages": "$q", "max_tokens": 1}
    properties = {"q": {**SCHEMA, "maxItems": 3}}
    steps = {
        "steps": [step],
        "inputs": {"type": "object", "properties": properties, "required": ["q"]},
    }
    assert ceiling(
        Flow(Program.from_dict({"steps": [step]})), {}, input_bytes=1000
    ).prompt_tokens == (1000 + MESSAGE_TOKENS * 41 + FILE_TOKENS * 14)
    assert (
        ceiling(Flow(Program.from_dict(steps)), {}, input_bytes=1000).prompt_tokens
        == 1000 + MESSAGE_TOKENS * 41
    )
    written = {"id": "s", "type": "set", "values": {"q": [{"role": "user", "content": [PICTURE]}]}}
    found = ceiling(
        Flow(Program.from_dict({**steps, "steps": [written, step]})), {}, input_bytes=1000
    ).prompt_tokens
    assert found is not None
    assert found > IMAGE_TOKENS


def test_what_a_tool_gives_has_no_bound_but_that_of_a_value() -> None:
    steps = step("a", output_key="k"), llm("b", "$k", max_tokens=5)
    found = of(*steps, prices=PRICES, default_model="m")
    assert (found.prompt_tokens, found.completion_tokens, found.tokens) == (None, 5, None)
    assert found.cost == Interval(Decimal("0.0000030"), None)
    assert found.cost_usd is None
    assert found.open == ("step 'b': its prompt has no bound",)
    assert of(*steps, limits=Limits(value_bytes=50)).prompt_tokens == 50 + MESSAGE_TOKENS


def test_a_name_made_of_itself_has_no_bound() -> None:
    start = {"id": "z", "type": "set", "values": {"k": "a", "l": "b"}}
    for grows in (
        {"k": "$k$k"},
        {"k": "$l!", "l": "$k"},
        {"k": {"expr": "concat($k, $l)"}, "l": {"expr": "concat('x', $k)"}},
    ):
        assert (
            of(start, loop("l", 3, sets("s", values=grows)), llm("b", "$k", max_tokens=5)).tokens
            is None
        ), grows


@pytest.mark.parametrize(
    ("start", "grows", "most"),
    [
        ("a", "$k!", 1 + 6),
        ("a", "<$k $l>", 1 + 6 * (3 + 2)),
        ([], {"expr": "append($k, 7)"}, len("[]") + 6 * 2),
        ([], {"expr": "append(append($k, 7), $l)"}, len("[]") + 6 * (2 + 5)),
        ("a", {"expr": "concat($k, '\n- more')"}, 1 + 6 * 7),
        ("a", {"expr": "concat('$l', $k)"}, 1 + 6 * 2),
        ([1], {"expr": "concat($k, [2, 3])"}, 4 + 6 * 5),
        ([], {"expr": "append(default($k, [10, 20]), 7)"}, len("[10,20]") + 6 * 2),
    ],
)
def test_what_is_only_added_to_has_the_bound_of_its_loops(
    start: Any, grows: Any, most: int
) -> None:
    """Three iterations of a loop in one of two: what is added six times at the most."""
    begin = sets("z", values={"k": start, "l": "xy"})
    inner = loop("i", 2, sets("s", values={"k": grows}))
    found = of(begin, loop("l", 3, inner), llm("b", "$k", max_tokens=5)).prompt_tokens
    assert found is not None
    assert found - MESSAGE_TOKENS == most
    once = of(begin, sets("s", values={"k": grows}), llm("b", "$k", max_tokens=5)).prompt_tokens
    assert once is not None
    assert once < found


@pytest.mark.slow
def test_a_long_chain_of_names() -> None:
    chain = [
        {"id": f"s{i}", "type": "set", "values": {f"k{i}": f"${{k{i - 1}}}!"}}
        for i in range(1, 3000)
    ]
    start = {"id": "s0", "type": "set", "values": {"k0": "a"}}
    found = of(start, *chain, llm("b", "$k2999", max_tokens=5))
    assert found.prompt_tokens == 3000 + MESSAGE_TOKENS


def test_an_answer_is_bounded_without_max_tokens_only_where_the_adapter_is_told() -> None:
    assert of(llm()).completion_tokens is None
    assert "declares no max_tokens" in of(llm()).open[0]
    assert of(llm(), budget=Budget(max_tokens=10)).completion_tokens == DEFAULT_MAX_TOKENS
    assert of(llm(), budget=Budget(max_cost_usd=1)).completion_tokens == DEFAULT_MAX_TOKENS
    assert of(llm(), budget=Budget(max_steps=1)).completion_tokens is None
    assert of(llm(), fields={"budget": {"max_tokens": 10}}).completion_tokens == DEFAULT_MAX_TOKENS
    assert of(llm(), fields={"defaults": {"max_tokens": 3}}).completion_tokens == 3
    call = {
        "id": "c",
        "type": "call",
        "program": {"name": "i", "budget": {"max_tokens": 99}, "steps": [llm("i")]},
    }
    found = of(call)
    assert (found.completion_tokens, found.tokens) == (99, 99)  # and not more than its own budget
    call["program"] = {"name": "i", "steps": [llm("i")]}
    assert of(call, budget=Budget(max_tokens=5000)).completion_tokens == DEFAULT_MAX_TOKENS
    assert of(call).completion_tokens is None


def test_a_correction_shows_the_answer_and_the_fault() -> None:
    once = of(llm(allowed_outputs=["yes", "no"], max_tokens=2, max_retries=1)).prompt_tokens
    twice = of(llm(allowed_outputs=["yes", "no"], max_tokens=2)).prompt_tokens
    assert once is not None
    assert twice is not None
    text = "answer " + "☃" * 100
    most = token_bound(correction(text, f"answer {text[:60]!r} is not one of 'yes', 'no'"))
    assert most <= twice - 2 * once <= most + 2 * TOKEN_BYTES


def test_an_unknown_price_is_an_interval_and_never_a_false_number() -> None:
    found = of(
        llm("a", "x", model="m", max_tokens=1),
        llm("b", "x", model="zz", max_tokens=1),
        prices=PRICES,
    )
    assert found.cost.low == (Decimal("0.15") * 17 + Decimal("0.6")) / 1_000_000
    assert found.cost.high is None
    assert found.cost_usd is None
    assert "no price is known for model 'zz'" in found.open[0]
    assert of(sets()).cost == Interval(Decimal(0), Decimal(0))  # nothing is asked, nothing is paid


def test_money_is_exact() -> None:
    price = Decimal("1.23456789012345678901234567890123")
    found = of(
        loop("l", 999_999, llm("a", "x" * 999, max_tokens=10**9)),
        prices={"m": (price, price)},
        default_model="m",
    )
    from fractions import Fraction

    assert found.cost_usd is not None
    assert found.tokens is not None
    assert Fraction(found.cost_usd) == Fraction(price) * found.tokens / 10**6


def test_a_called_program_keeps_to_its_own_money() -> None:
    inner = {
        "name": "i",
        "budget": {"max_cost_usd": 0.01},
        "steps": [step("a", output_key="k"), llm("b", "$k")],
    }
    found = of({"id": "c", "type": "call", "program": inner}, prices=PRICES, default_model="m")
    assert found.cost_usd == Decimal("0.01")
    inner = {**inner, "steps": [llm("b", "x", max_tokens=1)]}
    found = of({"id": "c", "type": "call", "program": inner}, prices=PRICES, default_model="m")
    assert found.cost_usd == (Decimal("0.15") * 17 + Decimal("0.6")) / 1_000_000


# --- budgets --------------------------------------------------------------------------------------


def test_what_is_over_the_budget_is_told_with_its_path() -> None:
    found = of(
        choice("c", then=[sets("a"), sets("b")], otherwise=[step("d", max_retries=4)]),
        llm("e", "x", max_tokens=3),
    )
    budget = Budget(max_steps=3, max_llm_calls=0, max_tool_calls=3, max_tokens=19)
    told = over_budget(found, budget)
    assert [(d.code, d.place, d.severity) for d in told] == [
        ("V070", "budget.max_steps", "error"),
        ("V071", "budget.max_llm_calls", "error"),
        ("V072", "budget.max_tool_calls", "error"),
        ("V073", "budget.max_tokens", "error"),
    ]
    assert (
        told[0].message
        == "a run can take 4 steps, 1 more than the max_steps of 3: c -> a -> b -> e"
    )
    assert (
        told[2].message
        == "a run can make 4 tool calls, 1 more than the max_tool_calls of 3: c -> d -> e"
    )
    assert (
        over_budget(found, Budget(max_steps=4, max_llm_calls=1, max_tool_calls=4, max_tokens=20))
        == []
    )
    assert over_budget(found, Budget()) == []


def test_money_over_the_budget() -> None:
    found = of(llm("a", "x", model="n", max_tokens=1), prices=PRICES)  # 17 * 3 + 15 = 66 millionths
    assert over_budget(found, Budget(max_cost_usd=0.000066)) == []
    (told,) = over_budget(found, Budget(max_cost_usd=0.000065))
    assert told.code == "V074"
    assert "cost $0.000066, 0.000001 more than the max_cost_usd of 0.000065" in told.message


def test_what_has_no_bound_is_a_warning_and_what_is_known_is_enough_for_an_error() -> None:
    steps = (
        llm("a", "x", model="n", max_tokens=1),
        step("t", output_key="k"),
        llm("b", "$k", model="zz", max_tokens=1),
    )
    found = of(*steps, prices=PRICES)
    told = over_budget(found, Budget(max_tokens=100, max_cost_usd=0.001))
    assert [(d.code, d.severity) for d in told] == [("V075", "warning"), ("V075", "warning")]
    assert "step 'b'" in told[0].message
    assert [d.code for d in over_budget(found, Budget(max_cost_usd=0.00001))] == ["V074"]


def test_a_long_path_is_cut_in_the_middle() -> None:
    (told,) = over_budget(of(*(sets(f"s{i}") for i in range(50))), Budget(max_steps=1))
    assert "s8 -> s9 -> ... 39 more ... -> s49" in told.message


def test_a_ceiling_prints_and_has_a_json_form() -> None:
    found = of(
        step("a", output_key="k", undo="u"), llm("b", "$k", model="m", max_tokens=5), prices=PRICES
    )
    assert str(found) == (
        "at most: 2 steps, 1 model call, 1 tool call\n"
        "  tools: t 1, u 1\n"
        "  models: m 1\n"
        "  tokens: no bound known (prompt without bound, completion 5)\n"
        "  cost: $0.000003 and what is not known\n"
        "    step 'b': its prompt has no bound\n"
        "  path: a -> b"
    )
    data = json.loads(json.dumps(found.to_dict()))
    assert data["cost_usd"] == {"low": "0.000003", "high": None}
    assert data["tokens"] is None
    assert data["paths"]["steps"] == ["a", "b"]


# --- sizes ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_case_changes_lengthen_a_text_at_most_so_far() -> None:
    worst = 0.0
    for code in range(0x110000):
        if not 0xD800 <= code < 0xE000:
            char = chr(code)
            for changed in (char.upper(), char.lower(), char.upper().lower().upper()):
                worst = max(worst, len(changed.encode()) / len(char.encode()))
    assert worst == CASE


@pytest.mark.parametrize(
    ("schema", "largest"),
    [
        ({"type": "boolean"}, [True, False]),
        ({"type": "null"}, [None]),
        ({"type": "integer"}, [-(2**4096 - 1), 1e300]),
        ({"type": "number"}, [-1.7976931348623157e308, 2.2250738585072014e-308]),
        ({"enum": ["a", 'b"\n', None, True]}, ["a", 'b"\n', None, True]),
        ({"const": "☃"}, ["☃"]),
        ({"type": "string", "maxLength": 3}, ["\0\0\0", "𝕏𝕏𝕏"]),
        ({"type": "array", "maxItems": 3, "items": {"type": "boolean"}}, [[False] * 3, []]),
        (
            {
                "type": "object",
                "additionalProperties": False,
                "properties": {'"': {"type": "boolean"}, "b": {"const": "\0"}},
            },
            [{'"': False, "b": "\0"}, {}],
        ),
    ],
)
def test_a_schema_bounds_what_fits_it(schema: dict[str, Any], largest: list[Any]) -> None:
    size = of_schema(schema)
    assert size is not None
    for value in largest:
        text = (
            value
            if isinstance(value, str)
            else str(value)
            if not isinstance(value, (list, dict))
            else ""
        )
        assert len(text.encode()) <= size[0]
        assert len(canonical(value)) <= size[1]


@pytest.mark.parametrize(
    "schema",
    [
        True,
        {},
        {"type": "string"},
        {"type": "array", "maxItems": 2},
        {"type": "object"},
        {"enum": [1, 2]},
    ],
)
def test_a_schema_that_says_too_little_bounds_nothing(schema: Any) -> None:
    assert of_schema(schema) is None


def test_the_output_of_a_container_is_that_of_what_runs_inside() -> None:
    """Of a condition, a loop, a map, a parallel and a call: by a prompt that shows it."""
    word = {"id": "w", "type": "set", "values": {"x": "four"}}
    cases = [
        (choice("c", then=[word], otherwise="$end"), 12),  # {"x":"four"}
        (choice("c", then="w", otherwise="$end"), 4),  # $end, and the name of the step
        (loop("c", 2, word), 12),
        (mapped(word, over=[1, 2], id="c"), 27),  # [{"x":"four"},{"x":"four"}]
        (parallel(word, id="c"), 18),  # {"w":{"x":"four"}}
        ({"id": "c", "type": "call", "program": {"name": "p", "steps": [word]}}, 12),
        ({"id": "c", "type": "call", "program": {"name": "p", "output": "$x", "steps": [word]}}, 4),
    ]
    for container, least in cases:
        more = [{**word, "next": "b"}] if container.get("then") == "w" else []
        found = of(container, *more, llm("b", "${c.output}", max_tokens=5))
        assert found.prompt_tokens is not None, container
        assert least <= found.prompt_tokens - MESSAGE_TOKENS <= 4 * least, container


# --- the campaign ---------------------------------------------------------------------------------


class Maker:
    """Random programs: all step types, nested, with jumps that lead forward, catches, retries,
    budgets of called programs.
    """

    def __init__(self, seed: int) -> None:
        self.dice = Random(seed)
        self.count = 0
        self.room = self.dice.choice((4, 8, 16, 24))
        self.before: list[str] = []  # steps of the run's own frame that may have run

    def program(self) -> dict[str, Any]:
        data: dict[str, Any] = {"name": "p", "steps": self.block(0, [], self.dice.randint(1, 5))}
        if self.dice.random() < 0.3:
            data["defaults"] = {"max_tokens": self.dice.randint(1, 9), "model": "n"}
        return data

    def id(self) -> str:
        self.count += 1
        return f"s{self.count}"

    def block(self, depth: int, outer: list[str], size: int) -> list[dict[str, Any]]:
        """Steps whose jumps lead to later ones of their own, or to *outer*: those that follow the
        blocks around.
        """
        ids = [self.id() for _ in range(size)]
        self.room -= size
        made = []
        for i, step_id in enumerate(ids):
            made.append(self.step(step_id, depth, ids[i + 1 :] + outer))
            if depth == 0:
                self.before.append(step_id)
        return made

    def target(self, later: list[str]) -> str:
        return self.dice.choice([*later, *later, "$end", "$fail", "$next"])

    def step(self, step_id: str, depth: int, later: list[str]) -> dict[str, Any]:
        dice = self.dice
        simple = ["tool", "tool", "llm", "llm", "set"]
        nested = ["condition", "switch", "loop", "parallel", "map", "call"]
        kind = dice.choice(
            simple + nested * 2 if depth < 4 and self.room > 0 else [*simple, "jump"]
        )
        made: dict[str, Any] = {"id": step_id, "type": kind}
        if kind == "jump":
            made |= {
                "type": "condition",
                "condition": "true",
                "then": self.target(later),
                "otherwise": self.target(later),
            }
        else:
            getattr(self, kind)(made, depth, later)
        if dice.random() < 0.2 and later:
            made["next"] = dice.choice(later)
        if dice.random() < 0.25:
            made["catch"] = [
                {
                    "errors": dice.choice((["*"], ["timeout"], ["tool"])),
                    "next": self.target(later).replace("$next", "$end"),
                }
            ]
        if dice.random() < 0.2:
            made["on_error"] = "skip"
        if kind in ("tool", "llm", "set", "map", "parallel", "call") and dice.random() < 0.5:
            made["output_key"] = dice.choice("abc") if depth == 0 else f"k{step_id}"
        return made

    def text(self) -> str:
        if self.before and self.dice.random() < 0.3:
            return f"<${{{self.dice.choice(self.before)}.output}}>"
        return self.dice.choice(("hello", "$a and $b", "$q", "é$c!", "$a$a", "x"))

    def tool(self, made: dict[str, Any], depth: int, later: list[str]) -> None:
        dice = self.dice
        made |= {"tool": dice.choice(("write", "keyed", "read")), "retry": {"delay_seconds": 0}}
        made["max_retries"] = dice.choice((1, 1, 2, 3))
        if dice.random() < 0.3:
            made["undo"] = "undo"
        if dice.random() < 0.3:
            made["reconcile"] = dice.choice(("ask", "read"))

    def llm(self, made: dict[str, Any], depth: int, later: list[str]) -> None:
        dice = self.dice
        made |= {"prompt": self.text()}
        if dice.random() < 0.8:
            made["max_tokens"] = dice.randint(1, 5)
        if dice.random() < 0.5:
            made |= dice.choice(
                ({"allowed_outputs": ["yes", "no"]}, {"output_schema": {"type": "integer"}})
            )
            if dice.random() < 0.3:
                made["on_invalid"] = dice.choice(("yes", {"a": ["b" * 99]}))
        if dice.random() < 0.3:
            made |= {"max_retries": dice.randint(1, 3), "retry": {"delay_seconds": 0}}
        if dice.random() < 0.3:
            made["system"] = self.text()
        if dice.random() < 0.5:
            made["model"] = dice.choice("mn")

    def set(self, made: dict[str, Any], depth: int, later: list[str]) -> None:
        name = self.dice.choice("abc" if depth == 0 else [f"v{made['id']}"])
        other = self.dice.choice("abcq")
        plain = (
            "text",
            [1, "$q"],
            {"x": "$q"},
            "q: $q",
            "$q",
            7,
            [self.text()],
            f"${name}$b!",
            f"${name}${name}",
        )
        expressions = (
            "$q == 1",
            f"append(default(${name}, []), ${other})",
            f"append(append(${name}, ${other}), 'x')",
            f"concat(${name}, 'longer')",
            f"concat('${other}', '${name}')",
            f"concat([${other}], ${name})",
            f"join([${other}, $q, 1.5], '--')",
            f"split('${other}', 'x')",
            f"str(['${other}'])",
            f"get(${other}, 'k', $q)",
            f"default(${other}, 'nothing').upper()",
            f"sorted(['${other}', '$q'])",
            f"max('${other}', '$q')",
            f"json('[1e15, \"{other}\"]')",
        )
        made["values"] = {
            name: self.dice.choice(plain)
            if self.dice.random() < 0.4
            else {"expr": self.dice.choice(expressions)}
        }

    def some(self, depth: int, later: list[str]) -> list[dict[str, Any]]:
        return self.block(depth + 1, later, self.dice.randint(1, 3))

    def way(self, depth: int, later: list[str]) -> Any:
        return self.some(depth, later) if self.dice.random() < 0.6 else self.target(later)

    def condition(self, made: dict[str, Any], depth: int, later: list[str]) -> None:
        made |= {"condition": "$q == 1", "then": self.way(depth, later)}
        if self.dice.random() < 0.7:
            made["otherwise"] = self.way(depth, later)

    def switch(self, made: dict[str, Any], depth: int, later: list[str]) -> None:
        made |= {"on": "$q", "cases": {name: self.way(depth, later) for name in ("x", "y")}}
        if self.dice.random() < 0.5:
            made["default"] = self.way(depth, later)

    def loop(self, made: dict[str, Any], depth: int, later: list[str]) -> None:
        made |= {
            "max_iterations": self.dice.randint(1, 4),
            "until": "$q == 1",
            "steps": self.some(depth, later),
        }
        if self.dice.random() < 0.5:
            made["on_exhausted"] = "continue"

    def parallel(self, made: dict[str, Any], depth: int, later: list[str]) -> None:
        made["parallel_steps"] = [self.some(depth, []) for _ in range(self.dice.randint(1, 3))]

    def map(self, made: dict[str, Any], depth: int, later: list[str]) -> None:
        made |= {
            "over": self.dice.choice(([1, 2], "$q", "$q")),
            "max_items": self.dice.randint(1, 4),
            "as": f"i{made['id']}",
        }
        made["steps"] = self.some(depth, [])

    def call(self, made: dict[str, Any], depth: int, later: list[str]) -> None:
        before, self.before = self.before, []
        inner: dict[str, Any] = {"name": "sub", "steps": self.some(depth, [])}
        self.before = before
        if self.dice.random() < 0.4:
            bounds = {
                "max_steps": self.dice.randint(1, 8),
                "max_llm_calls": self.dice.randint(0, 3),
                "max_tool_calls": self.dice.randint(0, 3),
                "max_tokens": self.dice.randint(0, 300),
                "max_cost_usd": self.dice.randint(0, 900) / 10**6,
            }
            inner["budget"] = dict(
                self.dice.sample(sorted(bounds.items()), self.dice.randint(1, 3))
            )
        made |= {"program": inner, "with": {"q": "$q", "a": "lit", "b": "$q!", "c": [1]}}


CAMPAIGN_TOOLS = {
    **tools("write", "ask", "undo"),
    **tools("keyed", key=True),
    **tools("read", effect="read"),
}
SMALL = Limits(value_bytes=300)
INPUT_BYTES = 12


class Used:
    """One run with dice for conditions, lists and outcomes, and what it used."""

    def __init__(self, flow: Flow, seed: int, limits: Limits) -> None:
        self.dice = Random(seed)
        self.plan = compile_flow(flow, CAMPAIGN_TOOLS)
        self.tools: Counter[str] = Counter()
        self.models: Counter[str] = Counter()
        self.calls = [0, 0]
        self.prompt = self.completion = 0
        self.cost = Decimal(0)
        self.limits = limits
        for op in self.plan.ops:
            self.free(op)
        # shares by these would hold a run to the very figures that it is to test
        for frame in self.plan.frames:
            frame.ceiling = (10**9, 10**9, 10**9)

    def free(self, op: Op) -> None:
        """What the program would decide by its values is decided by dice instead."""
        if isinstance(op, BranchOp):
            op.test = lambda frame: self.dice.random() < self.then
        elif isinstance(op, TestOp):
            op.until = lambda frame: self.dice.random() < self.until
        elif isinstance(op, SwitchOp):
            op.on = lambda frame: self.dice.choice(("x", "y", "z"))
        elif isinstance(op, ForkOp) and op.kind == "map" and op.max_items >= 2:
            written = op.over

            def over(frame: list[Any]) -> Any:
                assert written is not None
                found = written(frame)
                return (
                    found
                    if type(found) is list
                    else ["it"] * self.dice.randint(self.fewest(op), op.max_items)
                )

            op.over = over

    def fewest(self, op: ForkOp) -> int:
        return 0 if self.dice.random() < 0.3 else op.max_items

    def run(self, then: float, until: float, faults: float) -> Used:
        self.then, self.until, self.faults = then, until, faults
        values = ("x" * 10, "\0", 1, True, [1, 2], {"k": "v"}, "☃☃☃")
        assert all(len(canonical(value)) <= INPUT_BYTES for value in values)
        given = {name: self.dice.choice(values) for name in "qabc"}
        terms = RunTerms(self.limits, None, PRICES, "m")
        machine = machine_of(self.plan, given, terms, run_id="r", seed=1)
        ledger = machine.ledger = Ledger(10**15, 10**15, 10**15, state=1 << 60)
        simulate(machine, self.feed)
        self.steps = 10**15 - ledger.steps
        self.charged = 10**15 - ledger.llm_calls, 10**15 - ledger.tool_calls
        return self

    def feed(self, machine: Machine, op: Op) -> Op:
        dice = self.dice
        machine.delay_seconds = 0.0
        if isinstance(op, ModelOp):
            return self.model(machine, op)
        assert isinstance(op, ToolOp)
        self.tools[op.tool] += 1
        if op.step_id.endswith("/reconcile"):
            return machine.resume(
                Value(dice.choice(({"done": True}, {"done": False}, {"done": False}, 1))), 0
            )
        if dice.random() < self.faults:
            how = dice.randint(0, 4)
            if how == 0:
                return machine.resume(TimedOut(), 0)
            kind = ("tool", "timeout", "rate_limit", "in_doubt")[how - 1]
            return machine.resume(Failed(StepError(kind, "E", "no", kind != "in_doubt")), 0)
        if dice.random() < 0.01:
            return machine.resume(Cancelled(), 0)
        return machine.resume(
            Value(dice.choice((1, "text", [1, 2, 3], None, {"a": "b"}, "x" * 290, "y" * 400))), 0
        )

    def model(self, machine: Machine, op: ModelOp) -> Op:
        dice = self.dice
        prompt = token_bound(machine.messages)
        self.models[op.model or "default"] += 1
        most = op.max_tokens or (DEFAULT_MAX_TOKENS if machine.reserves else 50)
        completion = most if dice.random() < 0.6 else dice.randint(0, most)
        self.prompt += prompt
        self.completion += completion
        price = PRICES[op.model or "m"]
        self.cost += (price[0] * prompt + price[1] * completion) / 1_000_000
        if dice.random() < self.faults:
            return machine.resume(
                Failed(StepError(dice.choice(("model", "timeout")), "E", "no")), 0
            )
        usage = LLMUsage(prompt, completion, prompt + completion)
        long = dice.choice("z\0é☃") * (completion * sizes.TOKEN_BYTES)
        text = long.encode()[: completion * sizes.TOKEN_BYTES].decode(errors="ignore")
        return machine.resume(
            Answer(dice.choice((text, text, "yes", "7", "1e15", "-9" * completion)), usage), 0
        )


def excess(bound: Ceiling, used: Used) -> Iterator[str]:
    """Every amount of a run that is over its ceiling."""
    for name, have, most in (
        ("steps", used.steps, bound.steps),
        ("llm_calls", used.charged[0], bound.llm_calls),
        ("llm_calls made", sum(used.models.values()), bound.llm_calls),
        ("tool_calls", used.charged[1], bound.tool_calls),
        *((f"tool {name}", count, bound.tools.get(name, 0)) for name, count in used.tools.items()),
        *(
            (f"model {name}", count, bound.models.get(name, 0))
            for name, count in used.models.items()
        ),
        ("prompt", used.prompt, bound.prompt_tokens),
        ("completion", used.completion, bound.completion_tokens),
        ("tokens", used.prompt + used.completion, bound.tokens),
        ("cost", used.cost, bound.cost_usd),
    ):
        if most is not None and have > most:
            yield f"{name}: {have} > {most}"


def campaign(seeds: range, runs: int) -> dict[str, int]:
    """How many programs and runs there were, and for how many programs some run reaches each
    ceiling.
    """
    tally: Counter[str] = Counter()
    for seed in seeds:
        data = Maker(seed).program()
        made = Program.from_dict(data)
        flow = Flow(made)
        assert not flow.diagnostics, (data, flow.diagnostics)
        assert not [d for d in check_shape(flow) if d.severity == "error"], data
        limits = SMALL if seed % 2 else DEFAULT_LIMITS
        bound = ceiling(
            flow,
            CAMPAIGN_TOOLS,
            prices=PRICES,
            default_model="m",
            input_bytes=dict.fromkeys("qabc", INPUT_BYTES),
            limits=limits if seed % 2 else None,
        )
        tally["programs"] += 1
        best: Counter[str] = Counter()
        used = Used(flow, seed, limits)
        for number in range(runs):
            then, until, faults = (
                (0.5, 0.5, 0.2),
                (0.5, 0.0, 0.0),
                (0.9, 0.0, 0.6),
                (0.1, 0.1, 0.9),
            )[number % 4]
            used.tools, used.models, used.prompt, used.completion, used.cost = (
                Counter(),
                Counter(),
                0,
                0,
                Decimal(0),
            )
            used.run(then, until, faults)
            found = list(excess(bound, used))
            assert not found, f"seed {seed}, run {number}: {found}\n{json.dumps(data)}"
            tally["runs"] += 1
            best["steps"] = max(best["steps"], used.steps)
            best["llm_calls"] = max(best["llm_calls"], used.charged[0])
            best["tool_calls"] = max(best["tool_calls"], used.charged[1])
            best["tokens"] = max(best["tokens"], used.prompt + used.completion)
        for name in ("steps", "llm_calls", "tool_calls", "tokens"):
            most = getattr(bound, name)
            if most:
                tally[f"with {name}"] += 1
                tally[f"{name} reached"] += best[name] == most
    return dict(tally)


@pytest.fixture
def small_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens of seven bytes: answers as long as they may be, without megabytes of them."""
    monkeypatch.setattr(sizes, "TOKEN_BYTES", 7)
    monkeypatch.setattr(
        import_module("nano_vm.verify.cost.ceiling"), "TOKEN_BYTES", 7
    )  # the package's own name is the function


@pytest.mark.slow
@pytest.mark.usefixtures("small_tokens")
def test_no_run_goes_over_its_ceiling() -> None:
    tally = campaign(range(250), 12)
    assert tally["runs"] == 3000
    # a bound that nothing comes near says nothing
    assert tally["steps reached"] >= 0.4 * tally["with steps"], tally
    assert tally["tool_calls reached"] >= 0.2 * tally["with tool_calls"], tally
    assert tally["llm_calls reached"] >= 0.2 * tally["with llm_calls"], tally


@pytest.mark.campaign
@pytest.mark.usefixtures("small_tokens")
def test_no_run_of_many_goes_over_its_ceiling() -> None:
    programs = cases(4_000)
    tally = campaign(range(1_000, 1_000 + programs), 25)
    assert tally["runs"] == 25 * programs


# --- how fast -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_ceiling_is_linear_in_the_program() -> None:
    """Of twice the steps not much more than twice the time; the figures are in the benchmarks."""

    def steps(count: int) -> Flow:
        made = [
            part
            for i in range(count // 4)
            for part in (
                step(f"a{i}", f"t{i % 7}"),
                choice(f"c{i}", then=[llm(f"b{i}", "say $q", max_tokens=9)]),
                sets(f"s{i}"),
            )
        ]
        return Flow(program(*made))

    contracts = tools(*(f"t{i}" for i in range(7)))

    def seconds(flow: Flow) -> float:
        best = 1e9
        for _ in range(5):
            start = time.process_time()
            ceiling(flow, contracts, prices=PRICES, default_model="m")
            best = min(best, time.process_time() - start)
        return best

    small, large = seconds(steps(1000)), seconds(steps(4000))
    assert large < 4 * small * 2 + 0.01
    assert longest(steps(1000), 3, counted).totals[0][0] == 1000
