"""Flows of Prompt flow, as its documentation shapes them, as programs that run."""

from __future__ import annotations

import asyncio

import pytest

from nano_vm import ExecutionVM
from nano_vm.importing import imported
from nano_vm.testing import ScriptedLLM

FLOW = """\
inputs:
  question: {type: string}
outputs:
  answer: {type: string, reference: "${reply.output}"}
  kind: {reference: "${classify.output}"}
nodes:
- name: reply
  type: llm
  source: {type: code, path: reply.jinja2}
  inputs: {deployment_name: gpt, temperature: 0.2, question: "${inputs.question}",
           found: "${search.output}"}
  connection: azure
  api: chat
- name: classify
  type: python
  source: {type: code, path: classify.py}
  inputs: {text: "${inputs.question}"}
- name: search
  type: python
  source: {type: code, path: search.py}
  inputs: {query: "${inputs.question}", limit: 3}
  activate: {when: "${classify.output}", is: lamp}
"""
PROMPT = """\
# system:
It costs $5.

# user:
{{question}} ({{ found }})
"""


@pytest.mark.parametrize(("kind", "seen"), [("lamp", "Why? (3 lamps)"), ("other", "Why? (None)")])
def test_a_flow_runs_its_nodes_in_the_order_of_what_they_read(kind: str, seen: str) -> None:
    result = imported(FLOW, name="flow", sources={"reply.jinja2": PROMPT}.get)
    assert result.program is not None, result.findings
    assert result.complete, result.findings
    llm = ScriptedLLM(["because"])
    tools = {"classify": lambda text: kind, "search": lambda query, limit: f"{limit} lamps"}
    vm = ExecutionVM(llm, tools)
    trace = asyncio.run(vm.run(result.program, {"question": "Why?"}))
    assert trace.final_output == {"answer": "because", "kind": kind}
    assert [step.step_id for step in trace.steps] == ["classify", "search", "reply"]
    assert llm.calls[0]["messages"] == [
        {"role": "system", "content": "It costs $5."},
        {"role": "user", "content": seen},
    ]


@pytest.mark.parametrize(
    ("before", "after", "kind", "message"),
    [
        ("${search.output}", "${serch.output}", "fault", "reads 'serch', which is no node"),
        ("${inputs.question}", "${inputs.q}", "fault", "reads 'q', which is no input"),
        ('text: "${inputs.question}"', 'text: "${reply.output}"', "fault", "read each other"),
        ("name: search", "name: reply", "fault", "two nodes are named 'reply'"),
        ("{reference: ", "{refers: ", "gap", "output 'kind' has no reference"),
        ("type: llm", "type: prompt", "gap", "has the type 'prompt'"),
        ("reply.jinja2", "none.jinja2", "gap", "none.jinja2, which cannot be read"),
        ("deployment_name: gpt", 'model: "${inputs.question}"', "gap", "'reply' reads its model"),
        ("temperature: 0.2", 'seed: "${inputs.question}"', "gap", "'reply' reads its seed"),
        ("limit: 3", 'limit: "${classify}"', "gap", "'search' has the reference '${classify}'"),
        ("${classify.output}", "${classify}", "gap", "has the reference '${classify}'"),
        ("api: chat", "use_variants: true", "gap", "has use_variants"),
        ("inputs:\n", "node_variants: {}\ninputs:\n", "gap", "the flow has node_variants"),
    ],
)
def test_what_is_wrong_or_has_no_counterpart_is_found(
    before: str, after: str, kind: str, message: str
) -> None:
    text = FLOW.replace(before, after, 1 if before == "inputs:\n" else -1)
    result = imported(text, name="flow", sources={"reply.jinja2": PROMPT}.get)
    assert any(one.kind == kind and message in one.message for one in result.findings), (
        result.findings
    )
    assert (result.program is None) == (kind == "fault")


def test_a_reference_reads_a_part_of_an_input_or_output() -> None:
    flow = """\
inputs:
  list: {type: list}
  user-id: {type: string}
outputs:
  answer: {reference: "${last.output[0]}"}
nodes:
- name: last
  type: python
  source: {path: last.py}
  inputs: {first: "${inputs.list[0]}", more: "${inputs.list[1].n}",
           who: "${inputs.user-id}", found: "${search.output['the key'][1]}"}
- name: search
  type: python
  source: {path: search.py}
"""
    result = imported(flow, name="flow")
    assert result.program is not None, result.findings
    assert result.complete, result.findings
    tools = {
        "last": lambda first, more, who, found: [[first, more, who, found]],
        "search": lambda: {"the key": [0, "it"]},
    }
    given = {"list": [1, {"n": 2}], "user_id": "u"}
    trace = asyncio.run(ExecutionVM(None, tools).run(result.program, given))
    assert trace.final_output == {"answer": [1, 2, "u", "it"]}


@pytest.mark.parametrize(
    ("written", "kind", "message"),
    [
        ("${inputs.q[0]}", "fault", "reads 'q', which is no input"),
        ("${inputs.question[*]}", "gap", "node 'search' has the path '$.question[*]'"),
        ("${serch.output[*]}", "fault", "reads 'serch', which is no node"),
    ],
)
def test_a_reference_to_nothing_is_found(written: str, kind: str, message: str) -> None:
    text = FLOW.replace('query: "${inputs.question}"', f'query: "{written}"')
    result = imported(text, name="flow", sources={"reply.jinja2": PROMPT}.get)
    (one,) = result.findings
    assert one.kind == kind
    assert message in one.message


def test_a_string_that_only_contains_a_reference_is_no_reference() -> None:
    text = FLOW.replace("limit: 3", 'limit: "${serch.output} and ${search.output}"')
    result = imported(text, name="flow", sources={"reply.jinja2": PROMPT}.get)
    assert result.program is not None, result.findings
    assert result.complete, result.findings
    tools = {"classify": lambda text: "lamp", "search": lambda query, limit: limit}
    vm = ExecutionVM(ScriptedLLM(["because"]), tools)
    trace = asyncio.run(vm.run(result.program, {"question": "Why?"}))
    assert trace.steps[1].output == "${serch.output} and ${search.output}"


def test_a_prompt_with_statements_of_jinja_is_a_gap() -> None:
    prompt = "{% for item in found %}{{item}}{% endfor %}{{question}}{{found}}"
    result = imported(FLOW, name="flow", sources={"reply.jinja2": prompt}.get)
    assert [one.kind for one in result.findings] == ["gap"]
    assert "of Jinja" in result.findings[0].message
