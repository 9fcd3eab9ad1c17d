"""The planner: what the model is asked, what is read from its answer, and what is refused. Every
model here is scripted.
"""

from __future__ import annotations

import asyncio
import json
import pickle
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from enum import Enum
from random import Random
from typing import Any, Literal

import jsonschema_rs
import pytest
from build import llm, program, step
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from nano_vm import (
    ExecutionVM,
    ModelError,
    Planner,
    PlannerError,
    Program,
    ProgramError,
    VMError,
    tool,
)
from nano_vm.adapters.protocol import Completion
from nano_vm.planner.offers import kinds_of
from nano_vm.planner.reply import read_reply
from nano_vm.testing import ScriptedLLM

regex_parser: Any = re._parser  # type: ignore[attr-defined]


@tool(effect="read")
async def search(query: str, limit: int = 5) -> list:
    """Pages about a query.

    More that no model needs.
    """
    return [query] * limit


@tool(effect="irreversible")
async def pay(
    to: str, amount: float, when: date | None = None, speed: Literal["slow", "fast"] = "slow"
) -> str:
    """Send money."""
    return f"{amount} to {to}"


TOOLS = {"search": search, "pay": pay}
GOOD = {
    "name": "news",
    "steps": [step("s1", "search", args={"query": "$topic"}), llm("s2", "Sum up: ${s1.output}")],
}


class Constrained:
    """An adapter that names what it takes, and keeps what it was given."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.calls: list[dict[str, Any]] = []

    async def complete(
        self,
        messages: list[dict[str, str]],
        *,
        output_schema: Any = None,
        max_tokens: int | None = None,
    ) -> Any:
        self.calls.append({"messages": messages, "schema": output_schema, "max_tokens": max_tokens})
        return self.answer


def reply(document: Any) -> str:
    return document if isinstance(document, str) else json.dumps(document)


async def planned(
    document: Any, context: Any = None, tools: Any = TOOLS, **options: Any
) -> Program:
    return await Planner(ScriptedLLM([reply(document)]), tools).generate(
        "do it", context, **options
    )


async def refusal(
    document: Any, context: Any = None, tools: Any = TOOLS, **options: Any
) -> PlannerError:
    """The error for a reply; the model was asked exactly once all the same."""
    model = ScriptedLLM([reply(document)])
    with pytest.raises(PlannerError) as caught:
        await Planner(model, tools, **options).generate("do it", context)
    assert len(model.calls) == 1
    assert caught.value.reply == reply(document)
    assert len(str(caught.value)) < 4000
    return caught.value


# --- programs -------------------------------------------------------------------------------------


async def test_a_plan_is_a_program_that_runs() -> None:
    plan = await planned(GOOD, {"topic": "AI"})
    trace = await ExecutionVM(ScriptedLLM(["short"]), TOOLS).run(plan, {"topic": "AI"})
    assert trace.final_output == "short"
    assert trace.steps[0].output == ["AI"] * 5


async def test_it_is_the_same_program_when_read_again() -> None:
    plan = await planned(GOOD, {"topic": "AI"})
    again = Program.from_dict(plan.to_dict())
    assert again == plan
    assert again.digest == plan.digest


async def test_the_inputs_are_those_of_the_context_that_it_reads() -> None:
    plan = await planned(GOOD, {"topic": "AI", "unread": 1})
    assert plan.inputs == {
        "type": "object",
        "properties": {"topic": {"type": "string"}},
        "required": ["topic"],
    }
    trace = await ExecutionVM(ScriptedLLM(["x"]), TOOLS).run(plan, {"topic": 5})
    assert not trace.ok
    assert trace.steps == []


async def test_a_name_outside_of_the_context_is_refused_and_without_one_an_input() -> None:
    error = await refusal(GOOD, {"topik": "AI"})
    assert [d.code for d in error.diagnostics] == ["V012"]
    assert "unknown name '$topic'" in str(error)
    assert (await planned(GOOD)).inputs is None
    declared = {**GOOD, "inputs": {"type": "object", "properties": {"topic": {"type": "string"}}}}
    assert (await planned(declared)).inputs == declared["inputs"]
    assert [d.code for d in (await refusal(declared, {})).diagnostics] == ["V012"]
    assert (await planned({**declared, "steps": [llm()]}, {"topic": "AI"})).inputs is None


async def test_the_budget_is_the_tightest() -> None:
    own = {**GOOD, "budget": {"max_steps": 5, "max_tokens": 100_000}}
    planner = Planner(
        ScriptedLLM([reply(own)]), TOOLS, budget={"max_steps": 20, "max_tokens": 4000}
    )
    plan = await planner.generate("do it")
    assert plan.budget is not None
    assert (plan.budget.max_steps, plan.budget.max_tokens) == (5, 4000)


async def test_untrusted_intents_mark_the_program() -> None:
    assert not (await planned(GOOD)).untrusted
    plan = await planned(GOOD, untrusted=True)
    assert plan.untrusted
    assert Program.from_dict(plan.to_dict()).untrusted
    assert plan.digest != (await planned(GOOD)).digest
    assert (await planned({**GOOD, "untrusted": False}, untrusted=True)).untrusted


@pytest.mark.slow
async def test_called_programs_are_offered_and_checked() -> None:
    inner = Program.from_dict(
        {
            "name": "greet",
            "inputs": {
                "type": "object",
                "properties": {"who": {"type": "string"}},
                "required": ["who"],
            },
            "steps": [{"id": "a", "type": "set", "values": {"x": "$who"}}],
        }
    )
    call = {"steps": [{"id": "s1", "type": "call", "program": "greet", "with": {"who": "ann"}}]}
    model = Constrained(reply(call))
    plan = await Planner(model, programs={"greet": inner}).generate("greet ann")
    assert plan.steps[0].type.value == "call"
    assert "greet(who: text)" in model.calls[0]["messages"][0]["content"]
    assert jsonschema_rs.is_valid(model.calls[0]["schema"], {"name": "greet_ann", **call})
    unknown = {"steps": [{"id": "s1", "type": "call", "program": "nobody"}]}
    assert [d.code for d in (await refusal(unknown, programs={"greet": inner})).diagnostics] == [
        "V006"
    ]


# --- what the model is told -----------------------------------------------------------------------


class Colour(Enum):
    RED = "secret-red"


class Customer(BaseModel):
    mail: str = "secret@example.com"


@dataclass
class Order:
    number: str = "secret-number"


class Hostile:
    def __repr__(self) -> str:
        raise AssertionError("a value was looked at")

    __str__ = __getattr__ = __iter__ = __len__ = __eq__ = __hash__ = __repr__  # type: ignore[assignment]


SECRETS = {
    "name": "secret-text",
    "number": 5317,
    "ratio": 53.17,
    "flag": True,
    "nothing": None,
    "items": ["secret-item"],
    "table": {"secret-key": "secret-value"},
    "colour": Colour.RED,
    "customer": Customer(),
    "order": Order(),
    "day": date(2031, 5, 17),
    "hostile": Hostile(),
    "raw": b"secret-bytes",
    "a name that no program can read": "secret",
    5: "secret",
}


async def test_the_model_sees_names_and_types_and_no_values() -> None:
    model = Constrained(reply({"steps": [llm()]}))
    await Planner(model, TOOLS).generate("the intent", SECRETS)
    told = json.dumps(model.calls)
    for word in ("secret", "5317", "53.17", "2031", "no program can read"):
        assert word not in told
    system, user = model.calls[0]["messages"]
    assert user == {"role": "user", "content": "the intent"}
    expected = (
        "$name (text), $number (number), $ratio (number), $flag (boolean), $nothing (any), $items "
        "(list), $table (object), "
        "$colour (any), $customer (object), $order (object), $day (text), $hostile (any), $raw "
        "(any)"
    )
    assert expected in system["content"]


async def test_the_model_sees_the_contracts() -> None:
    model = Constrained(reply({"steps": [llm()]}))
    await Planner(model, TOOLS).generate("x")
    told = model.calls[0]["messages"][0]["content"]
    assert "- search(query: text, limit: integer?) Pages about a query.\n" in told
    assert (
        '- pay(to: text, amount: number, when: text|null?, speed: "slow"|"fast"?) [irreversible] '
        "Send money." in told
    )
    assert "no model needs" not in told
    assert model.calls[0]["max_tokens"] == 1024


async def test_what_a_policy_forbids_is_not_offered() -> None:
    policy = {
        "tools": {"search": {"args": {"query": "trusted"}}, "*": {"allow": False}},
        "inputs": {"mail": "untrusted"},
    }
    model = Constrained(reply({"steps": [llm()]}))
    await Planner(model, TOOLS, policy).generate("x", {"mail": "", "topic": ""})
    told = model.calls[0]["messages"][0]["content"]
    assert "pay" not in told
    assert "query takes only your own words or $topic." in told
    fits = jsonschema_rs.validator_for(model.calls[0]["schema"]).is_valid
    assert fits({"name": "abc", "steps": [step("s1", "search", args={"query": "$topic"})]})
    assert fits({"name": "abc", "steps": [step("s1", "search", args={"query": "tea"})]})
    assert not fits({"name": "abc", "steps": [step("s1", "search", args={"query": "$mail"})]})
    assert not fits({"name": "abc", "steps": [step("s1", "pay", args={"to": "a", "amount": 1})]})


@pytest.mark.slow
async def test_a_guarded_tool_is_offered_behind_its_guard_alone() -> None:
    policy = {"tools": {"pay": {"guarded_by": ["gate.then"], "max_calls": 1}}}
    model = Constrained(reply({"steps": [llm()]}))
    await Planner(model, TOOLS, policy).generate("x", {"ok": True})
    told = model.calls[0]["messages"][0]["content"]
    assert 'Send money. Only inside "then" of the step with the id "gate". At most 1 call.' in told
    call = step("s1_then", "pay", args={"to": "a", "amount": 1})
    gate = {"id": "gate", "type": "condition", "condition": "$ok", "then": [call]}
    fits = jsonschema_rs.validator_for(model.calls[0]["schema"]).is_valid
    assert fits({"name": "abc", "steps": [gate]})
    assert not fits({"name": "abc", "steps": [{**gate, "id": "s1"}]})
    otherwise = {
        "id": "gate",
        "type": "condition",
        "condition": "$ok",
        "then": [llm("s1_then", "say sorry")],
    }
    assert fits({"name": "abc", "steps": [otherwise]})
    assert not fits(
        {"name": "abc", "steps": [{**otherwise, "otherwise": [{**call, "id": "s1_otherwise"}]}]}
    )
    assert not fits({"name": "abc", "steps": [{**call, "id": "s1"}]})


# --- the schema -----------------------------------------------------------------------------------


async def schema_of(tools: Any, context: Any = None, **options: Any) -> dict[str, Any]:
    model = Constrained(reply({"steps": [llm()]}))
    await Planner(model, tools, **options).generate("x", context)
    found: dict[str, Any] = model.calls[0]["schema"]
    return found


async def test_an_adapter_that_takes_no_schema_gets_none_and_one_without_max_tokens_neither() -> (
    None
):
    model = ScriptedLLM([reply({"steps": [llm()]})])
    await Planner(model).generate("x")
    assert set(model.calls[0]) == {"messages", "max_tokens"}

    class Bare:
        async def complete(self, messages: Any) -> str:
            return reply({"steps": [llm()]})

    assert await Planner(Bare()).generate("x")


WRITABLE = [
    [step("s1", "search", args={"query": "$topic", "limit": 3})],
    [step("s1", "search", args={"query": "pages on ${topic} of today"})],
    [
        step(
            "s1", "pay", args={"to": "ann", "amount": "$sum", "when": "2031-01-01", "speed": "fast"}
        )
    ],
    [llm("s1", "Tell me about ${topic}", allowed_outputs=["good", "bad"])],
    [llm("s1", "Write a poem"), llm("s2", "Judge this: ${s1.output}!")],
    [
        llm("s1", "Is this good: ${topic}", allowed_outputs=["yes", "no"]),
        {
            "id": "s2",
            "type": "condition",
            "condition": "$s1.output == 'yes'",
            "then": [step("s2_then", "search", args={"query": "$topic"})],
            "otherwise": [llm("s2_otherwise", "Say sorry for ${topic}")],
        },
    ],
    [{"id": "s1", "type": "map", "over": "$names", "steps": [llm("s1_item", "Praise ${item}")]}],
    [
        {
            "id": "s1",
            "type": "condition",
            "condition": "$sum > 100",
            "then": [llm("s1_then", "Say ${sum} is much")],
        }
    ],
    [
        {
            "id": "s1",
            "type": "condition",
            "condition": "'ai' in '$topic'",
            "then": [llm("s1_then", "Say that it is")],
        }
    ],
]
UNWRITABLE = [
    [],
    [step("s2", "search", args={"query": "a"})],
    [step("s1", "nothing", args={})],
    [step("s1", "__import__", args={"name": "os"})],
    [step("s1", "search", args={})],
    [step("s1", "search", args={"query": "$s1.output"})],
    [step("s1", "search", args={"query": "$nobody"})],
    [step("s1", "search", args={"query": "a $topic b"})],
    [step("s1", "search", args={"query": "$names"})],
    [step("s1", "search", args={"query": "a", "further": 1})],
    [step("s1", "search", args={"query": "a"}, undo={"tool": "pay"})],
    [step("s1", "pay", args={"to": "ann", "amount": "much"})],
    [step("s1", "pay", args={"to": "ann", "amount": 1, "speed": "at once"})],
    [llm("s1", "a")],
    [llm("s1", "Write a poem"), llm("s2", "Judge this")],
    [{"id": "s1", "type": "loop", "steps": [llm("s1_item", "Write a poem")], "max_iterations": 5}],
    [
        {
            "id": "s1",
            "type": "condition",
            "condition": "__import__('os')",
            "then": [llm("s1_then", "Write a poem")],
        }
    ],
    [{"id": "s1", "type": "map", "over": "$topic", "steps": [llm("s1_item", "Praise ${item}")]}],
]
INPUTS = {"topic": "AI", "sum": 5, "names": ["a"]}


@pytest.mark.slow
async def test_the_schema_takes_what_can_be_planned_and_nothing_else() -> None:
    fits = jsonschema_rs.validator_for(await schema_of(TOOLS, INPUTS)).is_valid
    for steps in WRITABLE:
        assert fits({"name": "abc", "steps": steps}), steps
        plan = await planned({"name": "abc", "steps": steps}, INPUTS)
        assert len(plan.steps) == len(steps)
    for steps in UNWRITABLE:
        assert not fits({"name": "abc", "steps": steps}), steps


def written(schema: Any, root: Any, rng: Random) -> Any:
    """Some value that *schema* allows: what a model writes that is constrained and knows
    nothing.
    """
    if "$ref" in schema:
        return written(root["$defs"][schema["$ref"].removeprefix("#/$defs/")], root, rng)
    if "const" in schema:
        return schema["const"]
    for members in (schema.get("enum"), schema.get("anyOf")):
        if members is not None:
            chosen = rng.choice(members)
            return written(chosen, root, rng) if "anyOf" in schema else chosen
    match schema["type"]:
        case "object":
            fields = {
                n: p
                for n, p in schema["properties"].items()
                if n in schema["required"] or rng.random() < 0.5
            }
            return {name: written(part, root, rng) for name, part in fields.items()}
        case "array" if "prefixItems" in schema:
            return [written(part, root, rng) for part in schema["prefixItems"]]
        case "array":
            return [
                written(schema["items"], root, rng)
                for _ in range(rng.randint(schema["minItems"], schema["maxItems"]))
            ]
        case "string" if "pattern" in schema:
            return matching(regex_parser.parse(schema["pattern"]), rng)
        case "string":
            return {"date": "2031-01-01"}[schema["format"]]
        case "integer":
            return rng.randint(schema["minimum"], schema["maximum"])
        case "number":
            return rng.choice([0, -5, 0.5, 1e9])
        case "boolean":
            return rng.random() < 0.5
        case "null":
            return None
    raise AssertionError(schema)


ODD = "{}[]()$#%&*/.,:;!?=<>|~^`'\"@_-+ abcXYZ019\u00e9\u20ac\u202e\U0001f600\x7f"


def matching(parsed: Any, rng: Random) -> str:
    """Some text that a parsed pattern matches, of odd characters where it allows them."""
    text = ""
    for kind, what in parsed:
        match str(kind):
            case "LITERAL":
                text += chr(what)
            case "AT":
                pass
            case "SUBPATTERN":
                text += matching(what[-1], rng)
            case "BRANCH":
                text += matching(rng.choice(what[1]), rng)
            case "MAX_REPEAT":
                low, high, inner = what
                text += "".join(matching(inner, rng) for _ in range(rng.randint(low, high)))
            case "NOT_LITERAL" | "IN":
                text += rng.choice([c for c in ODD if regex_parser_in(kind, what, c)])
            case _:
                raise AssertionError(kind)
    return text


def regex_parser_in(kind: Any, what: Any, char: str) -> bool:
    if str(kind) == "NOT_LITERAL":
        return ord(char) != what
    negated = str(what[0][0]) == "NEGATE"
    found = any(
        ord(char) == value if str(part) == "LITERAL" else value[0] <= ord(char) <= value[1]
        for part, value in what
        if str(part) != "NEGATE"
    )
    return found != negated


@pytest.mark.slow
def test_whatever_the_schema_lets_a_model_write_is_a_program_that_passes() -> None:
    rng = Random(5)
    count = 0
    settings = []
    for inputs in ({}, INPUTS, INPUTS):
        schema = asyncio.run(schema_of(TOOLS, inputs))
        settings.append((inputs, schema, jsonschema_rs.validator_for(schema).is_valid))
    for number in range(100):
        inputs, schema, fits = settings[number % 3]
        document = written(schema, schema, rng)
        assert fits(document)
        if any(len(set(labels)) < len(labels) for labels in label_lists(document)):
            continue  # the one thing that fixed places cannot hold apart
        count += 1
        plan = asyncio.run(planned(document, inputs))
        assert plan.to_dict()["steps"] == document["steps"]
    assert count > 80


def label_lists(value: Any) -> Iterator[list[str]]:
    """Every ``allowed_outputs`` in *value*."""
    for key, part in (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    ):
        if key == "allowed_outputs":
            yield part
        yield from label_lists(part)


def many(
    texts: list[str],
    colour: Colour,
    address: Customer,
    anything: Any,
    either: int | bool,
    price: Literal["$5"],
) -> None: ...


@pytest.mark.slow
async def test_types_of_arguments_in_the_schema() -> None:
    fits = jsonschema_rs.validator_for(await schema_of([many], {"home": {}, "note": ""})).is_valid
    args = {
        "texts": ["a"],
        "colour": "secret-red",
        "address": "$home",
        "anything": "x",
        "either": True,
        "price": "$5",
    }
    assert fits({"name": "abc", "steps": [step("s1", "many", args=args)]})
    plan = await planned({"steps": [step("s1", "many", args=args)]}, {"home": {}}, [many])
    assert plan.steps
    for wrong in (
        {"texts": [5]},
        {"colour": "blue"},
        {"address": "$note"},
        {"either": "x"},
        {"price": "$6"},
    ):
        assert not fits({"name": "abc", "steps": [step("s1", "many", args={**args, **wrong})]}), (
            wrong
        )


@pytest.mark.slow
async def test_the_schema_grows_with_the_tools_and_not_with_what_they_have_in_common() -> None:
    sizes = []
    for tools in (
        [],
        [f"tool_{i}" for i in range(20)],
        {f"tool_{i}": (search, pay)[i % 2] for i in range(20)},
    ):
        sizes.append(len(json.dumps(await schema_of(tools, INPUTS))))
    assert sizes[0] < 20_000
    assert sizes[1] - sizes[0] < 25_000
    assert sizes[2] - sizes[0] < 50_000


# --- replies that are no program ------------------------------------------------------------------

DEEP = 100_000
BAD_REPLIES = {
    "prose": ("I would search first, and then sum up.", "holds no JSON object"),
    "nothing": ("", "is empty"),
    "spaces": (" \n" * 1000, "is empty"),
    "two": (reply(GOOD) + "\n" + reply(GOOD), "several JSON values"),
    "two in fences": (
        f"```json\n{reply(GOOD)}\n```\n```json\n{reply(GOOD)}\n```",
        "several JSON values",
    ),
    "a list": (json.dumps([GOOD]), "a list or brackets first"),
    "a text": (json.dumps(reply(GOOD)), "not JSON"),
    "a number": ("42", "holds no JSON object"),
    "cut": (reply(GOOD)[:-1], "breaks off"),
    "cut in a text": (reply(GOOD)[:40], "breaks off"),
    "cut at the start": ("{", "breaks off"),
    "backticks": ("`" * 1_000_000, "holds no JSON object"),
    "too large": ('{"name": "' + "x" * 1_000_000 + '"}', "more than 1000000 bytes"),
    "too large in bytes": ('{"name": "' + "\u20ac" * 400_000 + '"}', "more than 1000000 bytes"),
    "deep lists": ('{"steps": ' + "[" * DEEP + "]" * DEEP + "}", "nested too deep"),
    "deep objects": ('{"steps":' * DEEP, "nested too deep"),
    "deep for us": ('{"steps": ' + "[" * 500 + "]" * 500 + "}", "nested deeper than 100 levels"),
    "only brackets": ("[" * DEEP, "a list or brackets first"),
    "only braces": ("{" * DEEP, "not JSON at character 1"),
    "duplicate keys": ('{"name": "a", "name": "b", "steps": []}', "a key stands twice"),
    "NaN": ('{"name": NaN}', "NaN is not a JSON number"),
    "infinite": ('{"name": 1e999}', "not a finite number"),
    "long number": ('{"name": ' + "9" * 5000 + "}", "not JSON"),
    "surrogate": ('{"name": "\\ud800", "steps": []}', "lone surrogate"),
    "raw surrogate": ('{"name": "\ud800", "steps": []}', "lone surrogate"),
    "comment": ('{"name": "a", /* no */ "steps": []}', "not JSON at character"),
    "single quotes": ("{'name': 'a'}", "not JSON at character 1"),
}


@pytest.mark.parametrize("name", BAD_REPLIES)
async def test_a_reply_that_is_no_object(name: str) -> None:
    text, told = BAD_REPLIES[name]
    start = time.process_time()
    error = await refusal(text)
    assert time.process_time() - start < 1
    assert told in str(error)
    assert "\n" not in str(error)
    assert error.diagnostics == ()


@pytest.mark.parametrize(
    "unit",
    [
        '{"',
        '{"a":[',
        '{"a":1,',
        "{} ",
        '"{',
        "[{",
        '{"a":"\\"',
        "```{```",
        "{'",
        '{"steps":[{"id":1}',
    ],
)
def test_reading_takes_linear_time(unit: str) -> None:
    text = unit * (900_000 // len(unit))
    start = time.process_time()
    with pytest.raises(ValueError, match="the reply"):
        read_reply(text)
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    "around", ["{}", " {}\n", "```json\n{}\n```", "Here it is:\n\n{}\n\nIt searches, then sums up."]
)
async def test_one_object_in_prose_or_a_fence_is_read(around: str) -> None:
    assert await planned(around.replace("{}", reply(GOOD)))


@pytest.mark.slow
@given(st.text(alphabet='{}[]":,\\ abn1`\n', max_size=60))
def test_reading_gives_an_object_or_a_value_error(text: str) -> None:
    told = ""
    try:
        assert isinstance(read_reply(text), dict)
    except ValueError as error:
        told = str(error)
    assert not told or told.startswith("the reply")


BAD_PROGRAMS = {
    "no steps": ({"name": "a"}, "P010"),
    "not a step": ({"steps": ["search"]}, "P013"),
    "unknown type": ({"steps": [{"id": "a", "type": "python", "code": "1"}]}, "P014"),
    "unknown tool": ({"steps": [step("a", "serach", args={"query": "x"})]}, "V020"),
    "eval": ({"steps": [step("a", "eval", args={"source": "1"})]}, "V020"),
    "__import__": ({"steps": [step("a", "__import__", args={"name": "os"})]}, "V020"),
    "missing argument": ({"steps": [step("a", "search")]}, "V021"),
    "further argument": ({"steps": [step("a", "search", args={"query": "x", "y": 1})]}, "V026"),
    "ill-typed": ({"steps": [step("a", "pay", args={"to": "x", "amount": "much"})]}, "V022"),
    "code": (
        {
            "steps": [
                {"id": "a", "type": "condition", "condition": "__import__('os')", "then": "$end"}
            ]
        },
        "P030",
    ),
    "jump to nowhere": ({"steps": [step("a", "search", args={"query": "x"}, next="b")]}, "V003"),
    "itself": ({"steps": [step("a", "search", args={"query": "$a.output"})]}, "V010"),
    "cycle": ({"steps": [step("a", "search", args={"query": "x"}, next="a")]}, None),
    "unknown call": ({"steps": [{"id": "a", "type": "call", "program": "b"}]}, "V006"),
    "file": ({"steps": [{"id": "a", "type": "call", "program": "/etc/passwd"}]}, "V006"),
    "near miss": ({"steps": [step("a", "search", args={"query": "x"}, on_eror="skip")]}, None),
    "two ids": ({"steps": [llm("a"), llm("a")]}, "P020"),
    "policy of nonsense": ({**GOOD, "policy": {"tools": {"pay": {"allow": "yes"}}}}, None),
}


@pytest.mark.parametrize("name", BAD_PROGRAMS)
async def test_a_program_that_does_not_pass(name: str) -> None:
    document, code = BAD_PROGRAMS[name]
    error = await refusal(document)
    errors = [d for d in error.diagnostics if d.severity == "error"]
    assert errors
    assert code is None or code in [d.code for d in errors]
    assert str(errors[0]) in str(error)


async def test_a_malformed_program_is_chained_and_every_fault_told() -> None:
    steps = [{"id": f"a{i}", "type": "python"} for i in range(20)]
    error = await refusal({"steps": steps})
    assert isinstance(error.__cause__, ProgramError)
    assert len(error.diagnostics) == 20
    assert str(error).count("\n") == 9
    assert str(error).endswith("and 12 more")


async def test_an_error_survives_pickling() -> None:
    error = await refusal({"steps": [step("a", "eval")]})
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.reply, again.diagnostics) == (
        str(error),
        error.reply,
        error.diagnostics,
    )
    assert isinstance(again, VMError)


# --- adapters and arguments that are no good ------------------------------------------------------


async def failure(answer: Any, **options: Any) -> PlannerError:
    model = ScriptedLLM([answer]) if isinstance(answer, BaseException) else Constrained(answer)
    with pytest.raises(PlannerError) as caught:
        await Planner(model, TOOLS, **options).generate("do it")
    assert len(model.calls) == 1
    assert caught.value.reply is None
    return caught.value


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (ModelError("bad key", retryable=False), "the model call failed: bad key"),
        (ModelError("busy"), "the model call failed: busy"),
        (ValueError(), "the model call failed: ValueError: ValueError"),
        (asyncio.CancelledError(), "the adapter cancelled its own call"),
        (None, "the adapter returned NoneType"),
        (5, "the adapter returned int"),
        (b"{}", "the adapter returned bytes"),
        ({"steps": []}, "the adapter returned dict"),
        ((None, None), "the adapter returned NoneType for the text"),
        (Completion(None), "the adapter returned NoneType for the text"),  # type: ignore[arg-type]
    ],
)
async def test_an_adapter_that_fails_or_gives_garbage_is_asked_once(answer: Any, told: str) -> None:
    error = await failure(answer)
    assert told in str(error)
    if isinstance(answer, Exception):
        assert error.__cause__ is answer


async def test_a_cut_reply_tells_of_max_tokens() -> None:
    model = Constrained(Completion(reply(GOOD)[:50], None, "m", "length"))
    with pytest.raises(
        PlannerError, match="breaks off: its JSON object is not closed; it used up max_tokens"
    ):
        await Planner(model, TOOLS, max_tokens=20).generate("do it")
    assert model.calls[0]["max_tokens"] == 20


class Slow:
    def __init__(self, swallows: bool = False) -> None:
        self.swallows = swallows
        self.asked = asyncio.Event()
        self.release = asyncio.Event()
        self.cancelled = 0
        self.calls = 0

    async def complete(self, messages: Any) -> str:
        self.calls += 1
        self.asked.set()
        while True:
            try:
                await self.release.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                if not self.swallows:
                    raise
            else:
                return reply(GOOD)


@pytest.mark.parametrize("swallows", [False, True])
async def test_an_adapter_that_hangs_is_left(
    swallows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nano_vm.planner.planner.GRACE_SECONDS", 0.01)
    model = Slow(swallows)  # for ever: who waits for it hangs
    try:
        with pytest.raises(PlannerError, match=r"no answer within 0\.01 seconds"):
            await Planner(model, TOOLS, timeout_seconds=0.01).generate("do it")
        assert (model.calls, model.cancelled) == (1, 1)
    finally:
        model.release.set()
        await asyncio.sleep(0)


async def test_a_cancelled_planner_cancels_its_call() -> None:
    model = Slow()
    task = asyncio.create_task(Planner(model, TOOLS).generate("do it"))
    await model.asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert model.cancelled == 1


@pytest.mark.parametrize("intent", ["", "  \n", None, 5, b"x", ["a"], "\ud800", "x" * 100_001])
async def test_an_intent_that_is_none_is_refused_before_the_call(intent: Any) -> None:
    model = ScriptedLLM([])
    with pytest.raises(PlannerError, match="intent"):
        await Planner(model, TOOLS).generate(intent)
    assert model.calls == []


async def test_a_context_that_is_none_is_refused_before_the_call() -> None:
    model = ScriptedLLM([])
    with pytest.raises(PlannerError, match="a context is a dict of inputs, not list"):
        await Planner(model, TOOLS).generate("x", ["a"])  # type: ignore[arg-type]
    assert model.calls == []


def test_names_that_a_program_can_read() -> None:
    class Odd(Mapping[str, Any]):
        def __getitem__(self, key: str) -> Any:
            return 1

        def __iter__(self) -> Any:
            return iter(["a", "b-c", "", "ünï", "1"])

        def __len__(self) -> int:
            return 5

    assert kinds_of(Odd()) == {"a": "number", "ünï": "number"}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"llm": None}, "needs a model"),
        ({"llm": object()}, "is no adapter"),
        ({"tools": "search"}, "tools are callables by name"),
        ({"tools": 5}, "tools are callables by name"),
        ({"tools": {"a": 5}}, "cannot be called"),
        ({"tools": [search, search]}, "two tools are called 'search'"),
        ({"tools": [object()]}, "has no name"),
        ({"policy": 5}, "a policy is a Policy, a dict or the path"),
        ({"policy": {"tolls": {}}}, "tolls"),
        ({"policy": "/nowhere/policy.yaml"}, "cannot read the policy"),
        ({"budget": {"max_stepz": 1}}, "max_stepz"),
        ({"max_tokens": 0}, "max_tokens must be a positive integer"),
        ({"timeout_seconds": 0}, "timeout_seconds is a number of seconds"),
    ],
)
def test_a_planner_that_cannot_be_made(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(VMError, match=told):
        Planner(**{"llm": ScriptedLLM([]), **arguments})


# --- as 0.1 had it --------------------------------------------------------------------------------


async def test_code_written_for_0_1() -> None:
    from nano_vm.errors import PlannerError as PlannerError01
    from nano_vm.planner.planner import Planner as Planner01

    assert (Planner01, PlannerError01) == (Planner, PlannerError)
    answer = json.dumps(
        {
            "name": "news",
            "description": "finds and sends",
            "steps": [
                {
                    "id": "step_1",
                    "type": "tool",
                    "tool": "search",
                    "args": {"q": "$user_input"},
                    "output_key": "found",
                },
                {
                    "id": "step_2",
                    "type": "condition",
                    "condition": "$step_1.output == 'yes'",
                    "then": "step_3",
                    "otherwise": "step_3",
                },
                {"id": "step_3", "type": "llm", "prompt": "Sum up $step_1.output"},
            ],
        }
    )

    class MockLLM:
        async def complete(self, messages: list[dict[str, str]], **kwargs: Any) -> str:
            assert [m["role"] for m in messages] == ["system", "user"]
            return f"```json\n{answer}\n```"

    planner = Planner01(llm=MockLLM(), tools=["search", "send_email"])
    plan = await planner.generate("Find the news and send them", context={"user_input": "AI"})
    assert [s.id for s in plan.steps] == ["step_1", "step_2", "step_3"]
    assert await planner.generate(user_input="Find the news")
    assert await Planner01(MockLLM(), ["search"]).generate("Find the news", {"user_input": "AI"})


async def test_an_input_that_only_default_reads_is_declared_and_not_required() -> None:
    steps = [
        {
            "id": "s1",
            "type": "set",
            "values": {"a": {"expr": "default($tone, 'kind')"}, "b": "$name"},
        }
    ]
    llm = ScriptedLLM([json.dumps({"name": "p", "steps": steps})])
    planned = await Planner(llm, {}).generate(
        "Set it", context={"name": "Ann", "tone": "dry", "other": 1}
    )
    assert planned.inputs is not None
    assert list(planned.inputs["properties"]) == ["name", "tone"]
    assert planned.inputs["required"] == ["name"]


def test_the_program_helper_and_the_planner_agree_on_a_program() -> None:
    assert program(*GOOD["steps"]).steps[0].id == "s1"  # type: ignore[misc]


# --- held to a policy -----------------------------------------------------------------------------

CALL = {"to": "ann", "amount": 1}
GATED = {
    "steps": [
        llm("s1", "Is this fine: ${note}", allowed_outputs=["yes", "no"]),
        {
            "id": "gate",
            "type": "condition",
            "condition": "$s1.output == 'yes'",
            "then": [step("s2_then", "pay", args=CALL)],
        },
    ]
}
AROUND = {"steps": [step("s1", "pay", args=CALL)]}
GUARD = {"tools": {"pay": {"guarded_by": ["gate.then"]}}}


async def held(document: Any, policy: Any, context: Any = None, **options: Any) -> Program:
    return await Planner(ScriptedLLM([reply(document)]), TOOLS, policy).generate(
        "do it", context, **options
    )


async def test_a_guarded_call_passes_and_one_around_the_guard_does_not() -> None:
    assert await held(GATED, GUARD, {"note": ""})
    for document in (
        AROUND,
        {"steps": [*GATED["steps"], *AROUND["steps"][:0], step("s3", "pay", args=CALL)]},
    ):
        with pytest.raises(PlannerError) as caught:
            await held(document, GUARD)
        error = caught.value
        assert error.diagnostics or error.counterexamples
        assert "pay" in str(error)
    assert error.counterexamples
    assert error.counterexamples[0].splitlines()[0] in str(error)


@pytest.mark.slow
async def test_what_a_stranger_wrote_does_not_reach_a_protected_argument() -> None:
    policy = {"tools": {"pay": {"args": {"to": "trusted"}}}, "inputs": {"mail": "untrusted"}}
    fine = {"steps": [step("s1", "pay", args={"to": "$mail", "amount": 1})]}
    with pytest.raises(PlannerError) as caught:
        await held(fine, policy, {"mail": ""})
    assert "argument 'to' of tool 'pay'" in str(caught.value)
    assert "untrusted input 'mail' reaches" in str(caught.value)
    assert await held({"steps": [step("s1", "pay", args=CALL)]}, policy, {"mail": ""})
    # the intent is a stranger's, and so is what the model made of it: a VM asks for the program's
    # approval
    program = await held(
        {"steps": [step("s1", "pay", args=CALL)]}, policy, {"mail": ""}, untrusted=True
    )
    assert program.untrusted
    with pytest.raises(PlannerError):
        await held(fine, policy, {"mail": ""}, untrusted=True)


async def test_a_policy_of_its_own_can_only_tighten() -> None:
    loosening = {
        **AROUND,
        "policy": {
            "tools": {
                "pay": {"guarded_by": ["gate.otherwise"], "max_calls": 9, "returns": "trusted"}
            }
        },
    }
    policy = {"tools": {"pay": {"max_calls": 1}}}
    with pytest.raises(PlannerError) as caught:
        await held(loosening, policy)
    assert "V057" in [d.code for d in caught.value.diagnostics]
    forbidden = {**AROUND, "policy": {"tools": {"pay": {"allow": True}}}}
    with pytest.raises(PlannerError):
        await held(forbidden, {"tools": {"pay": {"allow": False}}})
    with pytest.raises(PlannerError):
        await held(AROUND, {"tools": {"*": {"allow": False}}})


async def test_more_calls_than_the_policy_allows_are_refused() -> None:
    twice = {"steps": [step("s1", "pay", args=CALL), step("s2", "pay", args=CALL)]}
    with pytest.raises(PlannerError):
        await held(twice, {"tools": {"pay": {"max_calls": 1}}})
    assert await held(AROUND, {"tools": {"pay": {"max_calls": 1}}})


@pytest.mark.slow
async def test_a_call_that_needs_consent_is_offered_behind_an_approval() -> None:
    policy = {"tools": {"pay": {"approval": "treasurer", "args": {"to": "trusted"}}}}
    schema = await schema_of(TOOLS, {"who": "", "sum": 5, "names": []}, policy=policy)
    names = ["$who", "$sum", "$names"]
    pay = step("s1_then", "pay", args={"to": "$who", "amount": "$sum"})
    asked = {"id": "s1", "type": "approval", "role": "treasurer", "show": names, "then": [pay]}
    fits = jsonschema_rs.validator_for(schema).is_valid
    assert fits({"name": "abc", "steps": [asked]})
    assert not fits({"name": "abc", "steps": [{**asked, "show": []}]})
    assert not fits(
        {"name": "abc", "steps": [{**asked, "then": [step("s1_then", "pay", args=CALL)]}]}
    )
    assert not fits({"name": "abc", "steps": [{**asked, "role": "clerk"}]})
    assert not fits({"name": "abc", "steps": [{**pay, "id": "s1"}]})
    assert await held({"steps": [asked]}, policy, {"who": "", "sum": 5, "names": []})
    with pytest.raises(PlannerError):
        await held(
            {"steps": [{**asked, "show": ["$sum"]}]}, policy, {"who": "", "sum": 5, "names": []}
        )


async def test_a_budget_that_the_worst_case_would_break_is_refused() -> None:
    many = {"steps": [llm(f"s{i}", "Tell me") for i in range(1, 6)]}
    with pytest.raises(PlannerError, match="5 model calls, 2 more than"):
        await Planner(ScriptedLLM([reply(many)]), budget={"max_llm_calls": 3}).generate("x")
    assert await Planner(ScriptedLLM([reply(many)]), budget={"max_llm_calls": 5}).generate("x")
    assert await Planner(ScriptedLLM([reply(GOOD)]), TOOLS, budget={"max_tokens": 500}).generate(
        "x"
    )


@pytest.mark.slow
async def test_what_a_protected_argument_cannot_take_is_not_offered() -> None:
    policy = {"tools": {"pay": {"args": {"*": "trusted"}}}, "inputs": {"mail": "untrusted"}}
    model = Constrained(reply({"steps": [llm()]}))
    await Planner(model, TOOLS, policy).generate("x", {"mail": ""}, untrusted=True)
    schema = model.calls[0]["schema"]
    assert None not in schema["$defs"].values()
    assert not jsonschema_rs.is_valid(
        schema, {"name": "abc", "steps": [step("s1", "pay", args=CALL)]}
    )
    assert jsonschema_rs.is_valid(
        schema, {"name": "abc", "steps": [step("s1", "search", args={"query": "x"})]}
    )
