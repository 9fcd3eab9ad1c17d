"""What was written for ``llm-nano-vm`` 0.1: its imports, its ways to build a program, and its
runs.
"""

from __future__ import annotations

import importlib
import json
from typing import Any

import pytest

NAMES = "Program Step StepType StepStatus OnError StepResult LLMUsage Trace TraceStatus".split()


@pytest.mark.parametrize("name", [*NAMES, "ExecutionVM", "VMError"])
def test_names_import_from_the_package(name: str) -> None:
    assert getattr(importlib.import_module("nano_vm"), name)


@pytest.mark.parametrize("name", NAMES)
def test_names_import_from_models(name: str) -> None:
    models = importlib.import_module("nano_vm.models")
    assert getattr(models, name) is getattr(importlib.import_module("nano_vm"), name)
    assert name in models.__all__


def test_names_import_from_vm_and_adapters() -> None:
    package = importlib.import_module("nano_vm")
    vm = importlib.import_module("nano_vm.vm")
    assert (vm.ExecutionVM, vm.VMError) == (package.ExecutionVM, package.VMError)
    adapters = importlib.import_module("nano_vm.adapters")
    assert (adapters.LiteLLMAdapter, adapters.LLMAdapter) == (
        package.LiteLLMAdapter,
        package.LLMAdapter,
    )


from nano_vm import ExecutionVM, OnError, Program, Step, StepStatus, StepType, TraceStatus, VMError  # noqa: E402
from nano_vm.models import LLMUsage  # noqa: E402


class MockLLM:
    """As the tests of 0.1 had it."""

    def __init__(self, answer: Any = "yes") -> None:
        self.answer = answer
        self.messages: list[Any] = []

    async def complete(self, messages: list[dict[str, str]], **kwargs: Any) -> Any:
        self.messages.append(messages)
        return self.answer


REFUND = """
name: customer_refund
description: Handle a refund
version: "1.0"
steps:
  - id: classify
    type: llm
    system: You are a support agent.
    prompt: "Is this a refund request? Answer yes or no: $user_input"
    output_key: decision
  - id: guardrail
    type: condition
    condition: "'yes' in '$decision'.lower()"
    then: process_refund
    otherwise: reject
  - id: process_refund
    type: tool
    tool: refund
    args:
      order_id: "$order_id"
  - id: reject
    type: llm
    prompt: "Write a polite rejection to $user_input"
"""


def test_members_and_values_of_the_enums() -> None:
    assert [StepType.LLM.value, StepType.TOOL.value, StepType.CONDITION.value] == [
        "llm",
        "tool",
        "condition",
    ]
    assert [OnError.FAIL, OnError.SKIP, OnError.RETRY] == ["fail", "skip", "retry"]
    assert {s.value for s in StepStatus} >= {"pending", "running", "success", "failed", "skipped"}
    assert {s.value for s in TraceStatus} >= {"running", "success", "failed"}
    assert str(StepType.LLM) == "StepType.LLM"
    assert StepStatus("success") is StepStatus.SUCCESS


def test_steps_are_built_by_their_type() -> None:
    tool = Step(
        id="a",
        type=StepType.TOOL,
        tool="t",
        args={"x": "$y"},
        on_error=OnError.RETRY,
        max_retries=3,
    )
    model = Step(id="b", type="llm", prompt="hi", system="s", output_key="k")
    condition = Step(
        id="c", type=StepType.CONDITION, condition="'a' == 'a'", then="a", otherwise="b"
    )
    assert [s.type for s in (tool, model, condition)] == [
        StepType.TOOL,
        StepType.LLM,
        StepType.CONDITION,
    ]
    assert all(isinstance(s, Step) for s in (tool, model, condition))
    assert (tool.tool, tool.args, tool.on_error, tool.max_retries) == (
        "t",
        {"x": "$y"},
        OnError.RETRY,
        3,
    )
    assert (model.prompt, model.system, model.output_key) == ("hi", "s", "k")
    assert (condition.then, condition.otherwise) == ("a", "b")
    program = Program(name="built", steps=[model, condition, tool])
    assert program.get_step("c") == condition
    assert program.get_step("nothing") is None
    assert (program.version, program.description) == ("1.0", "")


INCOMPLETE = [
    ({"type": StepType.LLM}, "prompt"),
    ({"type": StepType.TOOL}, "tool"),
    ({"type": StepType.CONDITION, "then": "b"}, "condition"),
    ({"type": StepType.CONDITION, "condition": "true"}, "then"),
]


@pytest.mark.parametrize(("fields", "missing"), INCOMPLETE)
def test_incomplete_steps_raise_a_value_error(fields: dict[str, Any], missing: str) -> None:
    with pytest.raises(ValueError, match=missing):
        Program.from_dict({"steps": [{"id": "a", **fields}]})
    with pytest.raises(ValueError, match=missing):
        Step(id="a", **fields)


def test_a_program_has_steps() -> None:
    with pytest.raises(ValueError, match="steps"):
        Program.from_dict({"name": "empty", "steps": []})


@pytest.mark.parametrize(("answer", "taken"), [("Yes, it is.", "process_refund"), ("no", "reject")])
async def test_the_refund_program(answer: str, taken: str) -> None:
    refunded: list[str] = []

    async def refund(order_id: str) -> str:
        refunded.append(order_id)
        return f"refunded {order_id}"

    llm = MockLLM(answer)
    vm = ExecutionVM(llm=llm, tools={"refund": refund})
    program = Program.from_yaml(REFUND)
    trace = await vm.run(
        program,
        context={"user_input": "I want my money back", "order_id": "A-1", "unused": object()},
    )
    assert trace.status == TraceStatus.SUCCESS
    assert [s.step_id for s in trace.steps] == ["classify", "guardrail", taken]
    assert trace.steps[1].output == taken
    assert (
        trace.final_output
        == trace.last_output()
        == ("refunded A-1" if taken == "process_refund" else answer)
    )
    assert refunded == (["A-1"] if taken == "process_refund" else [])
    assert llm.messages[0] == [
        {"role": "system", "content": "You are a support agent."},
        {
            "role": "user",
            "content": "Is this a refund request? Answer yes or no: I want my money back",
        },
    ]
    assert trace.program_name == "customer_refund"
    assert trace.duration_ms is not None
    assert trace.started_at <= trace.finished_at  # type: ignore[operator]


async def test_register_tool_and_sync_tools() -> None:
    vm = ExecutionVM(llm=MockLLM())
    vm.register_tool("add", lambda a, b: a + b)
    program = Program.from_dict(
        {
            "name": "sum",
            "steps": [{"id": "s", "type": "tool", "tool": "add", "args": {"a": 1, "b": 2}}],
        }
    )
    assert (await vm.run(program)).final_output == 3
    vm.register_tool("add", lambda a, b: a * b)
    assert (await vm.run(program)).final_output == 2


async def test_a_failed_step_is_data() -> None:
    def boom() -> None:
        raise RuntimeError("kaput")

    vm = ExecutionVM(llm=MockLLM(), tools={"boom": boom})
    trace = await vm.run(
        Program.from_dict({"steps": [{"id": "b", "type": "tool", "tool": "boom"}]})
    )
    assert trace.status == TraceStatus.FAILED
    assert trace.error == "Step 'b' failed: RuntimeError: kaput"
    assert (trace.steps[0].status, trace.steps[0].error) == (
        StepStatus.FAILED,
        "RuntimeError: kaput",
    )
    assert trace.final_output is None


async def test_skip_and_retry() -> None:
    calls: list[int] = []

    async def flaky() -> str:
        calls.append(1)
        if len(calls) < 3:
            raise RuntimeError("again")
        return "ok"

    def boom() -> None:
        raise RuntimeError("kaput")

    vm = ExecutionVM(llm=MockLLM(), tools={"boom": boom, "flaky": flaky})
    program = Program(
        steps=[
            Step(id="b", type=StepType.TOOL, tool="boom", on_error=OnError.SKIP),
            Step(
                id="f",
                type=StepType.TOOL,
                tool="flaky",
                on_error=OnError.RETRY,
                max_retries=3,
                retry={"delay_seconds": 0},
            ),
        ]
    )
    trace = await vm.run(program)
    assert trace.status == TraceStatus.SUCCESS
    assert trace.steps[0].status == StepStatus.SKIPPED
    assert trace.steps[0].error == "RuntimeError: kaput"
    assert (trace.steps[1].retries, trace.final_output) == (2, "ok")


async def test_adapters_that_return_pairs() -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15, "cost_usd": 0.00012}
    trace = await ExecutionVM(llm=MockLLM(("hello", usage))).run(
        Program.from_yaml(
            REFUND.replace("'yes'", "'hello'").replace("then: process_refund", "then: reject")
        ),
        context={"user_input": "x", "order_id": 1},
    )
    # the tool is not registered: refused before any model is asked
    assert trace.status == TraceStatus.FAILED
    program = Program.from_dict(
        {
            "steps": [
                {"id": "a", "type": "llm", "prompt": "x"},
                {"id": "b", "type": "llm", "prompt": "y"},
            ]
        }
    )
    trace = await ExecutionVM(llm=MockLLM(("hello", usage))).run(program)
    assert isinstance(trace.steps[0].usage, LLMUsage)
    assert (trace.total_tokens(), f"${trace.total_cost_usd():.6f}") == (30, "$0.000240")
    assert str(trace.steps[0].usage) == "tokens=15, cost=$0.000120"
    assert (await ExecutionVM(llm=MockLLM(("hello", None))).run(program)).total_tokens() == 0


async def test_adapters_without_keywords() -> None:
    class Plain:
        async def complete(self, messages: list[dict[str, str]]) -> str:
            return "plain"

    program = Program.from_dict(
        {"steps": [{"id": "a", "type": "llm", "prompt": "x", "output_key": "k"}]}
    )
    assert (await ExecutionVM(llm=Plain()).run(program)).final_output == "plain"


async def test_values_of_steps_and_context_in_templates_and_conditions() -> None:
    program = Program.from_yaml(
        """
        steps:
          - {id: score, type: tool, tool: give, args: {x: "$start"}}
          - {id: c, type: condition, condition: "$score.output >= '0.8'", then: high, otherwise: low}
          - {id: high, type: tool, tool: give, args: {x: "high $score.output"}}
          - {id: low, type: tool, tool: give, args: {x: "low $score.output"}}
        """
    )
    vm = ExecutionVM(llm=MockLLM(), tools={"give": lambda x: x})
    assert (await vm.run(program, context={"start": "0.9"})).final_output == "high 0.9"
    assert (await vm.run(program, context={"start": 0.5})).final_output == "low 0.5"


def test_vm_error_is_the_base() -> None:
    with pytest.raises(VMError):
        ExecutionVM(llm=5)
    with pytest.raises(ValueError, match=r"steps|mapping|object"):
        Program.from_yaml("- 5")


async def test_traces_as_dicts() -> None:
    program = Program.from_dict({"steps": [{"id": "a", "type": "llm", "prompt": "x"}]})
    trace = await ExecutionVM(llm=MockLLM()).run(program)
    dumped = trace.model_dump()
    assert list(dumped) == OLD_TRACE
    assert list(dumped["steps"][0]) == OLD_STEP
    assert dumped["final_output"] == dumped["steps"][0]["output"] == "yes"
    assert dumped["started_at"] == trace.started_at
    as_json = json.loads(trace.model_dump_json())
    assert list(as_json) == OLD_TRACE
    assert as_json["started_at"] == trace.started_at.isoformat()


# The fields of 0.1.4's models.Trace and models.StepResult.
OLD_TRACE = (
    "program_name status steps final_output error started_at finished_at duration_ms".split()
)
OLD_STEP = "step_id status output error retries usage started_at finished_at duration_ms".split()


async def test_an_unregistered_tool_is_told_in_the_words_of_0_1() -> None:
    program = Program.from_dict({"steps": [{"id": "a", "type": "tool", "tool": "x"}]})
    trace = await ExecutionVM(llm=MockLLM()).run(program)
    assert trace.status is TraceStatus.FAILED
    assert "tool 'x' is not registered" in (trace.error or "")
