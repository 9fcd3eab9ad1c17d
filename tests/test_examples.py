"""The examples: each runs from a script here, and on the real model where that is installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from loading import loaded

from nano_vm import ExecutionVM, LocalAdapter, Program, Trace, tool
from nano_vm.testing import ScriptedLLM

EXAMPLES = Path(__file__).parents[1] / "examples"
NOTE = (
    "Mrs Alvarez called about her coffee machine. It smokes when switched on, she needs a "
    "replacement today."
)
ANGRY = "The blender arrived broken, I want my money back"


def tools(name: str) -> dict[str, Any]:
    return dict(loaded(f"examples/{name}.py", f"examples_{name}").tools)


def run(name: str, llm: Any, inputs: dict[str, Any], **other_tools: Any) -> Trace:
    program = Program.from_file(EXAMPLES / f"{name}.yaml")
    vm = ExecutionVM(llm=llm, tools=tools(name) | other_tools)
    assert vm.check(program) == []
    return vm.run_sync(program, inputs)


def paths(trace: Trace) -> list[str]:
    return [step.path for step in trace.steps]


TRANSFERS = {"transfer", "transfer-chosen", "transfer-approved"}  # in test_examples_policy
SUPPORT = {"support", "support-local", "support-redacted", "support-chosen"}
DURABLE = {"refund-approval"}  # in test_examples_durable


def test_every_example_is_run() -> None:
    programs = {file.stem for file in EXAMPLES.glob("*.yaml") if not file.stem.endswith(".policy")}
    assert programs == {"refund", "extract", "triage"} | TRANSFERS | SUPPORT | DURABLE


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("unhappy", ["analyze", "guardrail", "order", "rules", "refund"]),
        ("happy", ["analyze", "guardrail", "reject"]),
    ],
)
def test_refund_goes_where_the_guardrail_says(answer: str, expected: list[str]) -> None:
    trace = run("refund", ScriptedLLM([answer]), {"user_input": ANGRY})
    assert trace.ok, trace.error
    assert paths(trace) == expected


@pytest.mark.parametrize("order", ["A-1002", "A-1003", "A-1004"])
def test_what_the_model_says_does_not_refund_an_order_that_the_rules_refuse(order: str) -> None:
    trace = run(
        "refund", ScriptedLLM(["unhappy"]), {"user_input": "I love it, thanks!", "order_id": order}
    )
    assert trace.ok, trace.error
    assert paths(trace) == ["analyze", "guardrail", "order", "rules", "refuse"]


def test_refund_is_not_paid_for_an_answer_that_is_none() -> None:
    trace = run("refund", ScriptedLLM(["unhappy, I suppose", "Certainly!"]), {"user_input": ANGRY})
    assert paths(trace) == ["analyze", "guardrail", "reject"]
    assert trace.steps[0].extra["on_invalid"] is True


def test_extract_asks_again_with_the_fault_shown() -> None:
    good = json.dumps({"name": "Alvarez", "product": "coffee machine", "urgent": True})

    def answer(messages: list[dict[str, str]]) -> str:
        if messages[0]["content"].startswith("Summarise"):
            return "It smokes."
        return good if len(messages) > 1 else '{"name": "Alvarez"}'

    trace = run("extract", ScriptedLLM(answer), {"note": NOTE})
    assert trace.ok, trace.error
    assert trace.final_output["summary"] == "It smokes."
    assert trace.final_output["fields"]["urgent"] is True
    fields = next(step for step in trace.steps if step.step_id == "fields")
    assert fields.retries == 1
    assert "does not fit the schema" in fields.attempts[0].error.message
    assert paths(trace)[-1] == "urgent/page"


def test_triage_routes_each_line_by_its_label() -> None:
    llm = ScriptedLLM({"money": "unhappy", "refund": "unhappy", "broken": "unhappy", "": "happy"})
    trace = run("triage", llm, {})
    assert trace.ok, trace.error
    rows = [item["row"] for item in trace.final_output["rows"]]
    assert [row["mood"] for row in rows] == [
        "unhappy",
        "happy",
        "happy",
        "unhappy",
        "happy",
        "unhappy",
    ]
    assert [row["ticket"] is not None for row in rows] == [row["mood"] == "unhappy" for row in rows]
    assert "triage[0]/route/care/ticket" in paths(trace)


@pytest.mark.real_llm
def test_refund_on_the_real_model() -> None:
    first, second = (run("refund", LocalAdapter(), {"user_input": ANGRY}) for _ in range(2))
    assert first.ok, first.error
    assert paths(first) == ["analyze", "guardrail", "order", "rules", "refund"]
    # as recorded from this model; another may say otherwise
    assert first.steps[0].output == "unhappy"
    assert 0 < first.total_tokens() < 400
    assert first.digest == second.digest
    assert first.run_id != second.run_id


@pytest.mark.real_llm
def test_extract_on_the_real_model() -> None:
    trace = run("extract", LocalAdapter(), {"note": NOTE})
    assert trace.ok, trace.error
    fields = trace.final_output["fields"]
    assert set(fields) == {"name", "product", "urgent"}
    assert type(fields["urgent"]) is bool
    assert ("urgent/page" in paths(trace)) == fields["urgent"]
    assert trace.total_tokens() > 0


@pytest.mark.real_llm
def test_triage_on_the_real_model_is_deterministic() -> None:
    all_lines = tools("triage")["read_lines"]

    @tool(effect="read")
    def read_lines(path: str) -> list[str]:
        """Some of them: each takes the model half a second."""
        return list(all_lines(path)[:3])

    first, second = (run("triage", LocalAdapter(), {}, read_lines=read_lines) for _ in range(2))
    assert first.ok, first.error
    assert first.final_output["messages"] == 3
    assert {item["row"]["mood"] for item in first.final_output["rows"]} <= {"happy", "unhappy"}
    assert first.digest == second.digest


def pools() -> Any:
    return loaded("examples/pools.py")


def pooled(local: Any) -> list[list[str]]:
    """The ways that calls of two runs of the example took."""
    example = pools()
    vm = example.host(local)
    found = []
    for _ in range(2):
        trace = vm.run_sync(example.PROGRAM, {"mail": "The blender arrived broken!"})
        assert trace.ok, trace.error
        assert trace.steps[1].output in ("yes", "no")
        assert len(example.told(trace)) == 2
        found += [
            [f"{a['member']} {a['outcome']}" for a in step.extra["route"]["attempts"]]
            for step in trace.steps
        ]
    return found


FALLEN_BACK = [
    ["flaky transient", "local answered"],
    ["vague rejected", "local answered"],
    ["flaky answered"],
    ["vague rejected", "local answered"],
]


def test_pools() -> None:
    script = ScriptedLLM(steps={"reply": "Thanks", "angry": "yes"})
    assert pooled(script) == FALLEN_BACK


@pytest.mark.real_llm
def test_pools_with_the_real_model() -> None:
    assert pooled(LocalAdapter()) == FALLEN_BACK
