"""`Program`: every fault of a single step by its code, what is written back, digests, JSON Schema,
constructors.
"""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from time import process_time
from typing import Any

import jsonschema_rs
import pytest

from nano_vm import Budget, OnError, Program, ProgramError, Step, StepType
from nano_vm.diagnostics import Diagnostic
from nano_vm.language.policy import MAX_FAULTS
from nano_vm.language.program import (
    CallStep,
    ConditionStep,
    LLMStep,
    LoopStep,
    MapStep,
    ParallelStep,
    Retry,
    SetStep,
    SwitchStep,
    ToolStep,
    WaitStep,
)

from test_corpus import CORPUS, written  # isort: skip - a module beside this one

SET = {"id": "a", "type": "set", "values": {"x": 1}}


def faults(data: Any) -> list[Diagnostic]:
    with pytest.raises(ProgramError) as caught:
        Program.from_dict(data)
    return list(caught.value.diagnostics)


def of_step(**fields: Any) -> list[Diagnostic]:
    return faults({"steps": [{"id": "s", **fields}]})


# --- one case for each code -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "code", "place", "part"),
    [
        (None, "P006", "program", "not nothing"),
        ([], "P006", "program", "an object with 'steps'"),
        ("x", "P006", "program", "'x'"),
        ({"steps": [SET], "name": float("nan")}, "P004", "program", "nan"),
        ({"steps": [{**SET, 5: 1}]}, "P004", "program", "keys must be strings"),
        ({"steps": [{"type": "set", "values": {"x": 1}}]}, "P010", "steps[0]", "'id' is required"),
        ({"steps": [{"id": "a"}]}, "P014", "steps[0].type", "a step needs a 'type'"),
        ({"steps": [{"id": "a", "type": "loop", "steps": [SET | {"id": "b"}], "until": "1"}]}, "P010", "steps[0]", ""),
        ({"steps": [SET], "nmae": "x"}, "P012", "nmae", "did you mean 'name'"),
        ({"steps": [SET], "name": 5}, "P013", "name", "valid string"),
        ({"steps": [{"id": "a", "type": "sett"}]}, "P014", "steps[0].type", "did you mean 'set'"),
        ({"steps": [{**SET, "max_retries": 2}]}, "P015", "steps[0].max_retries", "it makes no call"),
        ({"steps": [SET, SET]}, "P020", "steps[1].id", "stands twice"),
        ({"steps": [{**SET, "id": "a/b"}]}, "P021", "steps[0].id", "cannot be a step id"),
        ({"steps": [{**SET, "id": "x" * 201}]}, "P021", "steps[0].id", "at most 200"),
        ({"steps": [{**SET, "output_key": "a b"}]}, "P021", "steps[0].output_key", "cannot be a name"),
        ({"steps": [SET], "tools": {}}, "P022", "tools", "not built yet"),
        ({"steps": [SET], "policy": {"tols": {}}}, "P041", "policy.tols", "did you mean 'tools'"),
        ({"steps": [{**SET, "values": {"x": {"expr": "1 +"}}}]}, "P030", "steps[0].values.x.expr", "the end"),
        ({"steps": [{"id": "a", "type": "llm", "prompt": "${a b}"}]}, "P031", "steps[0].prompt", "is not a reference"),
        ({"steps": [SET], "inputs": {"properties": {"x": {"type": "q"}}}}, "P032", "inputs", "usable JSON Schema"),
    ],
)  # fmt: skip
def test_codes(data: Any, code: str, place: str, part: str) -> None:
    found = faults(data)
    assert [(d.code, d.place) for d in found] == [(code, place)]
    assert part in str(found[0])


ASK = {"id": "a", "type": "llm", "prompt": "hi"}
LOOK = {"id": "a", "type": "tool", "tool": "look"}
NUMBERS = {
    "timeout_seconds": {**LOOK, "timeout_seconds": 1},
    "delay_seconds": {**LOOK, "max_retries": 2, "retry": {"delay_seconds": 1}},
    "max_delay_seconds": {**LOOK, "max_retries": 2, "retry": {"max_delay_seconds": 1}},
    "factor": {**LOOK, "max_retries": 2, "retry": {"factor": 1}},
    "max_retries": {**LOOK, "max_retries": 1},
    "temperature": {**ASK, "temperature": 1},
    "top_p": {**ASK, "top_p": 1},
    "max_tokens": {**ASK, "max_tokens": 1},
    "seed": {**ASK, "seed": 1},
}


@pytest.mark.parametrize("wrong", [True, "1"])
@pytest.mark.parametrize("field", NUMBERS)
def test_a_number_is_neither_a_boolean_nor_a_string(field: str, wrong: Any) -> None:
    step = NUMBERS[field]
    assert Program.from_dict({"steps": [step]})
    text = json.dumps({"steps": [step]}).replace(f'"{field}": 1', f'"{field}": {json.dumps(wrong)}')
    assert [d.code for d in faults(json.loads(text))] == ["P013"]


@pytest.mark.parametrize(
    "program",
    [
        {"timeout_seconds": True},
        {"defaults": {"timeout_seconds": "1"}},
        {"defaults": {"temperature": True}},
        {"models": {"m": {"pool": ["a"], "strategy": "hedge", "hedge_after_seconds": True}}},
        {"budget": {"max_seconds": "1"}},
        {"untrusted": "no"},
    ],
)
def test_numbers_and_booleans_of_a_program(program: dict[str, Any]) -> None:
    assert [d.code for d in faults({**program, "steps": [SET]})] == ["P013"]


@pytest.mark.slow
def test_too_many_steps() -> None:
    steps = [{"id": f"s{i}", "type": "set", "values": {"x": 1}} for i in range(10_000)]
    assert len(Program.from_dict({"steps": steps}).steps) == 10_000
    inner = {"id": "c", "type": "condition", "condition": "true", "then": [SET]}
    assert [d.code for d in faults({"steps": [*steps[1:], inner]})] == ["P005"]


@pytest.mark.parametrize(
    ("kind", "missing"),
    [
        ("tool", "tool"),
        ("condition", "condition"),
        ("switch", "cases"),
        ("parallel", "parallel_steps"),
        ("map", "steps"),
        ("loop", "steps"),
        ("call", "program"),
        ("set", "values"),
        ("approval", "role"),
    ],
)
def test_a_required_field_of_each_type(kind: str, missing: str) -> None:
    found = of_step(type=kind)
    assert all(d.loc == ("steps", 0) and d.code == "P010" for d in found), list(map(str, found))
    assert any(repr(missing) in d.message for d in found)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("on_eror", "on_error"),
        ("onerror", "on_error"),
        ("max_retry", "max_retries"),
        ("timeout_second", "timeout_seconds"),
        ("outputkey", "output_key"),
        ("nxt", "next"),
        ("arg", "args"),
        ("catches", "catch"),
        ("reconcil", "reconcile"),
        ("retrys", "retry"),
        ("defalt", "default"),
    ],
)
def test_near_misses(written: str, meant: str) -> None:
    found = of_step(type="tool", tool="f", **{written: "x"})
    assert [(d.code, d.hint) for d in found] == [("P012", f"did you mean {meant!r}?")]


UNKNOWN = [  # where it stands, what is written there, what the remedy names
    ("program", "colour", "fields are dsl, name"),
    ("program", "retries", "on each step"),
    ("program", "on_error", "on each step"),
    ("program", "concurrency", "max_concurrency"),
    ("program", "env", "as an input"),
    ("program", "max_llm_calls", "budget"),
    ("program", "variables", "set"),
    ("program", "Steps", "did you mean 'steps'?"),
    ("step", "zebra", "fields are id, type"),
    ("step", "if", "`when: <condition>`"),
    ("step", "unless", "`when: <condition>`"),
    ("step", "enabled", "`when: <condition>`"),
    ("step", "run-if", "`when: <condition>`"),
    ("step", "requires_approval", "`approval`"),
    ("step", "approval", "`approval`"),
    ("step", "interrupt_before", "`approval`"),
    ("step", "retries", "`max_retries`"),
    ("step", "timeout", "`timeout_seconds`"),
    ("step", "depends_on", "order"),
    ("step", "continue_on_error", "`on_error: skip`"),
    ("step", "for_each", "`map`"),
    ("step", "idempotent", "@tool"),
    ("step", "guarded_by", "policy"),
    ("step", "onError", "did you mean 'on_error'?"),
    ("retry", "delay", "did you mean 'delay_seconds'?"),
    ("retry", "zebra", "fields are delay_seconds"),
    ("catch", "error", "did you mean 'errors'?"),
    ("budget", "max_money", "fields are max_steps"),
    ("defaults", "modle", "did you mean 'model'?"),
    ("undo", "arguments", "fields are tool, args"),
    ("reconcile", "tol", "did you mean 'tool'?"),
]


def with_field(where: str, key: str, value: Any) -> dict[str, Any]:
    """A program with a field in an object of this kind."""
    call: dict[str, Any] = {"id": "a", "type": "tool", "tool": "f", "max_retries": 2}
    call |= {"undo": {"tool": "g"}, "reconcile": {"tool": "h"}}
    call |= {"retry": {"delay_seconds": 1}, "catch": [{"errors": ["*"], "next": "$end"}]}
    program: dict[str, Any] = {
        "steps": [call],
        "budget": {"max_steps": 9},
        "defaults": {"model": "m"},
    }
    places = {"program": program, "step": call, "catch": call["catch"][0]}
    for name in ("retry", "undo", "reconcile"):
        places[name] = call[name]
    for name in ("budget", "defaults"):
        places[name] = program[name]
    places[where][key] = value
    return program


@pytest.mark.parametrize(("where", "key", "named"), UNKNOWN)
@pytest.mark.parametrize("value", ["x", None, {}, [], False])
def test_an_unknown_field_is_an_error_everywhere(
    where: str, key: str, named: str, value: Any
) -> None:
    found = faults(with_field(where, key, value))
    assert [(d.code, d.loc[-1], d.severity) for d in found] == [("P012", key, "error")]
    assert named in str(found[0].hint)


@pytest.mark.parametrize("where", sorted({where for where, _, _ in UNKNOWN}))
def test_keys_that_begin_with_x_are_free(where: str) -> None:
    written = Program.from_dict(with_field(where, "x-owner", {"team": ["a"]}))
    plain = with_field(where, "x-owner", 1)
    kept = Program.from_dict(written.to_dict())
    assert kept == written
    assert "x-owner" in str(kept.to_dict())
    if where in ("program", "step"):
        assert written.digest == Program.from_dict(plain).digest  # as comments are


def test_a_null_field_of_0_8_that_asks_for_nothing_is_left_out() -> None:
    step = {
        "id": "a",
        "type": "llm",
        "prompt": "q",
        "on_timeout": "fail",
        "parallel_steps": [],
        "then": None,
    }
    program = Program.from_dict({"steps": [step], "max_stalled_steps": None})
    assert program.to_dict()["steps"] == [{"id": "a", "type": "llm", "prompt": "q"}]
    assert [d.code for d in of_step(type="llm", prompt="q", on_timeout="fallback")] == ["P012"]
    assert [d.code for d in faults({"steps": [SET], "max_stalled_steps": 3})] == ["P012"]


BUILT: list[Callable[[], Any]] = [
    lambda: Step(id="a", type="tool", tool="f", iff="$x"),
    lambda: Step(id="a", type="tool", tool="f", condition="$x"),
    lambda: ToolStep(id="a", tool="f", iff="$x"),
    lambda: Step(id="m", type="map", over="$x", steps=[{**SET, "iff": "$x"}]),
    lambda: Retry(delay=3),
    lambda: Budget(max_step=3),
    lambda: Program(steps=[SET], colour="red"),
    lambda: Program(steps=[{**SET, "iff": "$x"}]),
]


@pytest.mark.parametrize("build", BUILT)
def test_an_unknown_field_is_an_error_of_what_is_built_in_python(build: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match=r"P012|P015|unknown field"):
        build()


def test_a_step_built_in_python_takes_what_a_loaded_one_does() -> None:
    built = Step(
        id="m",
        type="map",
        over="$x",
        item_name="y",
        steps=[SET],
        next_step="$end",
        parallel_steps=[],
    )
    assert (
        built
        == Program.from_dict(
            {
                "steps": [
                    {
                        "id": "m",
                        "type": "map",
                        "over": "$x",
                        "as": "y",
                        "steps": [SET],
                        "next": "$end",
                    }
                ]
            }
        ).steps[0]
    )
    assert Step(id="a", type="tool", tool="f", is_terminal=True).next == "$end"


@pytest.mark.slow
def test_refusing_ten_thousand_unknown_fields_takes_no_time() -> None:
    steps = [{**SET, "id": f"s{i}", f"unknown_field_{i}": 1} for i in range(9_000)]
    started = process_time()
    found = faults({"steps": steps})
    assert len(found) == MAX_FAULTS + 1
    assert (found[-1].code, found[-1].hint) == ("P009", "mend these first")
    assert process_time() - started < 1.5


def test_all_faults_at_once_in_document_order() -> None:
    found = faults(
        {
            "nmae": "x",
            "budget": {"max_step": 1},
            "steps": [
                {"id": "a", "type": "llm"},
                {
                    "id": "a",
                    "type": "switch",
                    "on": "$x",
                    "cases": {"x": [{"id": "b", "type": "tol"}], "y": {"id": "c"}},
                },
                {
                    "id": "d",
                    "type": "map",
                    "over": "$x",
                    "steps": [{"id": "e", "type": "set", "values": {"a b": 1}}, 5],
                },
                "x",
            ],
        }
    )
    assert {(d.code, d.place) for d in found} == {
        ("P012", "nmae"),
        ("P012", "budget.max_step"),
        ("P010", "steps[0]"),
        ("P020", "steps[1].id"),
        ("P014", "steps[1].cases.x[0].type"),
        ("P013", "steps[1].cases.y"),
        ("P021", "steps[2].steps[0].values.a b"),
        ("P013", "steps[2].steps[1]"),
        ("P013", "steps[3]"),
    }


def test_no_place_is_told_twice() -> None:
    found = of_step(
        type="tool", tool=5, args=[], timeout_seconds="x", max_retries=0, catch=[5], retry=[]
    )
    assert len({d.loc for d in found}) == len(found)
    assert [d.place for d in found if not d.place.startswith("steps[0].")] == []


@pytest.mark.parametrize("value", [True, "5", 1.5, 0, -1, 11, [], {}])
def test_numbers_are_not_guessed(value: Any) -> None:
    assert [d.place for d in of_step(type="tool", tool="f", max_retries=value)] == [
        "steps[0].max_retries"
    ]


def test_text_of_a_diagnostic() -> None:
    found = of_step(type="tool", tool="f", on_eror="skip")
    assert (
        str(found[0]) == "steps[0].on_eror: P012: unknown field 'on_eror'; did you mean 'on_error'?"
    )
    assert Diagnostic.from_dict(found[0].to_dict()) == found[0]


def test_program_error_is_a_value_error_and_can_be_pickled() -> None:
    with pytest.raises(ValueError, match="P010") as caught:
        Program.from_dict({})
    again = pickle.loads(pickle.dumps(caught.value))
    assert again.diagnostics == caught.value.diagnostics  # type: ignore[attr-defined]


# --- written back ---------------------------------------------------------------------------------


def corpus_programs() -> list[Any]:
    """Every program of the corpus that loads."""
    found = []
    for path in sorted(CORPUS.glob("*.yaml")):
        for case in written(path):
            if "program" in case and "load" not in case:
                found.append(pytest.param(case["program"], id=f"{path.stem}-{case['case']}"))
    return found


PROGRAMS = corpus_programs()


@pytest.mark.parametrize("data", PROGRAMS)
def test_round_trip(data: Any) -> None:
    before = copy.deepcopy(data)
    program = Program.from_dict(data)
    assert data == before, "loading changes what it was given"
    written = program.to_dict()
    again = Program.from_dict(written)
    assert again.to_dict() == written
    assert json.dumps(again.to_dict()) == json.dumps(written)
    assert again.digest == program.digest
    assert again == program
    assert Program.from_json(json.dumps(written)).digest == program.digest
    assert Program.from_yaml(json.dumps(written)).digest == program.digest


@pytest.mark.parametrize("data", PROGRAMS)
def test_the_order_of_fields_does_not_matter(data: Any) -> None:
    """Fields of programs and steps in another order are the same program; keys of values are
    values.
    """
    steps = [
        dict(reversed(step.items())) if isinstance(step, dict) else step for step in data["steps"]
    ]
    turned = dict(reversed({**data, "steps": steps}.items()))
    assert Program.from_dict(turned).digest == Program.from_dict(data).digest


@pytest.mark.slow
def test_schema_accepts_every_program_of_the_corpus() -> None:
    schema = Program.json_schema()
    json.dumps(schema)
    validator = jsonschema_rs.Draft202012Validator(schema)
    refused = [
        parameter.id
        for parameter in PROGRAMS
        if not validator.is_valid(parameter.values[0])
        and not Program.from_dict(parameter.values[0]).warnings
    ]
    assert refused == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "program",
    [
        {},
        {"steps": []},
        {"steps": {}},
        {"steps": [{"id": "a", "type": "tol"}]},
        {"steps": [{"id": "a", "type": "tool"}]},
        {"steps": [{"id": "a", "type": "tool", "tool": 5}]},
        {"steps": [{"type": "tool", "tool": "f"}]},
        {"steps": [{"id": "a", "type": "tool", "tool": "f", "max_retries": 0}]},
        {"steps": [{"id": "a", "type": "tool", "tool": "f", "on_error": "ignore"}]},
        {"steps": [{"id": "a", "type": "loop", "steps": [SET]}]},
        {"steps": [SET], "budget": {"max_steps": -1}},
        {"steps": [SET], "max_steps": "many"},
        {"steps": [{"id": "a", "type": "tool", "tool": "f", "on_eror": "skip"}]},
        {"steps": [SET], "nmae": "x"},
    ],
)
def test_schema_refuses(program: Any) -> None:
    assert not jsonschema_rs.Draft202012Validator(Program.json_schema()).is_valid(program)


# --- digest ---------------------------------------------------------------------------------------


def digest(**fields: Any) -> str:
    return Program.from_dict({"steps": [{"id": "a", "type": "tool", "tool": "f"}], **fields}).digest


def test_digest_is_fixed() -> None:
    """The canonical form may only change with the language version."""
    assert len(digest()) == 64
    assert digest() == Program.from_json('{"steps":[{"tool":"f","type":"tool","id":"a"}]}').digest


def test_digest_leaves_out_what_means_nothing() -> None:
    assert digest() == digest(description="x", metadata={"a": [1]})
    step = {"id": "a", "type": "tool", "tool": "f"}
    assert digest() == digest(steps=[{**step, "description": "x", "metadata": {"y": 1}}])
    text = "# a comment\nsteps:\n- {id: a, type: tool, tool: f} # another\n"
    assert Program.from_yaml(text).digest == digest()


@pytest.mark.parametrize(
    "change",
    [
        {"name": "x"},
        {"version": "2"},
        {"dsl": 1},
        {"inputs": {"type": "object", "properties": {}}},
        {"output": "$a.output"},
        {"output": None, "name": "y"},
        {"budget": {"max_steps": 1}},
        {"max_steps": 1},
        {"models": {"a": "b"}},
        {"defaults": {"model": "m"}},
        *[
            {"steps": [{"id": "a", "type": "tool", "tool": "f", **fields}]}
            for fields in (
                {"args": {"x": 1}},
                {"args": {"x": 1.0}},
                {"args": {"x": "1"}},
                {"args": {"a": 1, "b": 2}},
                {"args": {"b": 2, "a": 1}},
                {"args": {}},
                {"output_key": "x"},
                {"next": "$end"},
                {"on_error": "skip"},
                {"on_error": "skip", "default": None},
                {"max_retries": 2},
                {"retry": {"factor": 3}},
                {"catch": [{"next": "$end"}]},
                {"timeout_seconds": 5},
                {"undo": {"tool": "g"}},
                {"reconcile": {"tool": "g"}},
            )
        ],
        {"steps": [{"id": "b", "type": "tool", "tool": "f"}]},
        {"steps": [{"id": "a", "type": "tool", "tool": "g"}]},
    ],
)
def test_digest_changes_with_anything_else(change: dict[str, Any]) -> None:
    if change == {"dsl": 1} or change.get("steps", [{}])[0].get("args") == {}:
        return  # written or not, it says the same; both answers are right
    assert digest(**change) != digest()


@pytest.mark.slow
def test_digests_are_told_apart() -> None:
    seen = {}
    for parameter in PROGRAMS:
        value = Program.from_dict(parameter.values[0])
        other = seen.setdefault(value.digest, value)
        bare = {k: v for k, v in other.to_dict().items() if k not in ("description", "metadata")}
        assert bare == {
            k: v for k, v in value.to_dict().items() if k not in ("description", "metadata")
        }


# --- constructors of 0.1, copies ------------------------------------------------------------


def test_step_builds_the_right_class() -> None:
    made = [
        (Step(id="a", type=StepType.LLM, prompt="q"), LLMStep),
        (Step(id="a", type="tool", tool="f", args={"x": 1}), ToolStep),
        (
            Step(id="a", type=StepType.CONDITION, condition="true", then="b", otherwise="c"),
            ConditionStep,
        ),
        (Step(id="a", type="switch", on="$x", cases={"a": "b"}), SwitchStep),
        (Step(id="p", type="parallel", parallel_steps=[SET]), ParallelStep),
        (Step(id="m", type="map", over="$x", steps=[SET]), MapStep),
        (Step(id="l", type="loop", steps=[SET], until="$x", max_iterations=1), LoopStep),
        (Step(id="a", type="call", program="x"), CallStep),
        (Step(id="a", type="set", values={"x": 1}), SetStep),
        (Step(id="a", type="wait", seconds=1), WaitStep),
    ]
    for step, kind in made:
        assert type(step) is kind
        assert isinstance(step, Step)
        assert step.type.value == kind.__name__[:-4].lower()
    assert made[0][0].on_error is OnError.FAIL


def test_step_of_no_type() -> None:
    for arguments in ({"id": "a"}, {"id": "a", "type": "tol"}):
        with pytest.raises(ProgramError, match="type"):
            Step(**arguments)


def test_step_as_01_checks_it() -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - pydantic's or ours
        Step(id="a", type=StepType.TOOL)
    with pytest.raises(ValueError):  # noqa: PT011
        Program(steps=[Step(id="a", type=StepType.LLM)])


def test_program_of_steps() -> None:
    program = Program(
        name="n", steps=[Step(id="a", type="tool", tool="f"), Step(id="b", type="llm", prompt="q")]
    )
    assert (
        program.digest
        == Program.from_dict(
            {
                "name": "n",
                "steps": [
                    {"id": "a", "type": "tool", "tool": "f"},
                    {"id": "b", "type": "llm", "prompt": "q"},
                ],
            }
        ).digest
    )
    with pytest.raises(ValueError, match="stands twice"):  # pydantic wraps it, as it does for 0.1
        Program(steps=[Step(id="a", type="tool", tool="f"), Step(id="a", type="llm", prompt="q")])


def test_get_step_finds_inner_ones() -> None:
    program = Program.from_dict(
        {"steps": [{"id": "c", "type": "condition", "condition": "true", "then": [SET]}]}
    )
    assert isinstance(program.get_step("a"), SetStep)
    assert program.get_step("c") is program.steps[0]
    assert program.get_step("x") is None


def test_a_program_is_immutable() -> None:
    program = Program.from_dict({"steps": [SET]})
    with pytest.raises(ValueError, match="frozen"):
        program.name = "x"
    with pytest.raises(ValueError, match="frozen"):
        program.steps[0].id = "x"


def test_what_was_given_may_change_afterwards() -> None:
    data = {"steps": [{"id": "a", "type": "tool", "tool": "f", "args": {"x": [1]}}]}
    program = Program.from_dict(data)
    data["steps"][0]["args"]["x"].append(2)
    data["steps"].append({"id": "b"})
    assert program.to_dict()["steps"] == [
        {"id": "a", "type": "tool", "tool": "f", "args": {"x": [1]}}
    ]


@pytest.mark.parametrize(
    "again",
    [copy.copy, copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p)), lambda p: p.model_copy()],
)
def test_copies(again: Any) -> None:
    program = Program.from_yaml(
        "steps:\n- {id: a, type: condition, condition: 'true', then: [{id: b, type: set, values: "
        "{x: 1}}]}\n"
    )
    other = again(program)
    assert other == program
    assert other.digest == program.digest
    assert other.to_dict() == program.to_dict()


def test_a_changed_copy_has_another_digest() -> None:
    program = Program.from_dict({"steps": [SET]})
    first = program.digest
    assert program.model_copy(update={"name": "other"}).digest != first


def test_equal_programs_are_equal() -> None:
    """Whatever was asked of them, and wherever they were read from."""
    text = json.dumps({"steps": [SET]})
    first, second = Program.from_json(text), Program.from_dict(json.loads(text))
    assert first == second
    assert first.digest
    assert first == second


def test_budget_at_the_top() -> None:
    assert Program.from_dict({"steps": [SET], "max_steps": 3, "max_tokens": 9}).budget == Budget(
        max_steps=3, max_tokens=9
    )


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("policy:\nsteps: [{id: a, type: set, values: {x: 1}}]", "policy"),
        ("budget:\nsteps: [{id: a, type: set, values: {x: 1}}]", "budget"),
        ("budget: {max_tokens: }\nsteps: [{id: a, type: set, values: {x: 1}}]", "max_tokens"),
        ("max_steps:\nsteps: [{id: a, type: set, values: {x: 1}}]", "max_steps"),
        ("untrusted:\nsteps: [{id: a, type: set, values: {x: 1}}]", "untrusted"),
        ("inputs:\nsteps: [{id: a, type: set, values: {x: 1}}]", "inputs"),
        ("steps: [{id: a, type: llm, prompt: q, allowed_outputs: }]", "allowed_outputs"),
        ("steps: [{id: a, type: llm, prompt: q, output_schema: }]", "output_schema"),
        ("steps: [{id: a, type: tool, tool: t, undo: }]", "undo"),
        ("steps: [{id: a, type: tool, tool: t, reconcile: }]", "reconcile"),
        ("steps: [{id: a, type: wait, event: e, match: }]", "match"),
        (
            "steps: [{id: p, type: parallel, parallel_steps: "
            "[{id: a, type: llm, prompt: q, allowed_outputs: }]}]",
            "allowed_outputs",
        ),
    ],
)
def test_a_demand_without_a_value_is_a_warning(text: str, place: str) -> None:
    program = Program.from_yaml(text)
    (warning,) = program.place(list(program.warnings))
    assert (warning.code, warning.severity, warning.loc[-1]) == ("P038", "warning", place)
    assert f"{place!r} says nothing" in warning.message
    assert warning.hint == "fill it in, or remove it"
    line = text.splitlines()[(warning.line or 0) - 1]
    assert line[(warning.column or 0) - 1 :].startswith(place)
    assert Program.from_dict(program.to_dict()).digest == program.digest


def test_a_free_key_of_a_budget_demands_nothing() -> None:
    text = "budget: {x-note: , max_steps: 3}\nsteps: [{id: a, type: set, values: {x: 1}}]"
    assert Program.from_yaml(text).warnings == ()


@pytest.mark.parametrize("field", ["system", "output_key", "timeout_seconds", "next", "tool"])
def test_a_blank_field_that_demands_nothing_is_none(field: str) -> None:
    assert not Program.from_yaml(f"steps: [{{id: a, type: llm, prompt: q, {field}: }}]").warnings


def test_the_schema_describes_every_field() -> None:
    """What editors show; but for fields of other types, which may only stand there empty."""
    schema = Program.json_schema()
    silent = [
        f"{name}.{field}"
        for name, part in schema["$defs"].items()
        for field, kind in part.get("properties", {}).items()
        if "description" not in kind and "$ref" not in kind and kind != {"enum": [None, {}, []]}
    ]
    assert silent == []
    switch = schema["$defs"]["SwitchStep"]["properties"]["default"]["description"]
    assert switch != schema["$defs"]["ToolStep"]["properties"]["default"]["description"]
